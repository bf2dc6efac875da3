//! What another life of this helper left: VMs that run on are taken on, and of all else nothing stays. Devices that no
//! process holds have gone by themselves.

use crate::fault;
use crate::folder::Folder;
use crate::lend;
use crate::process::Process;
use crate::record::{Record, boot_id};
use crate::strays;
use crate::system::System;
use crate::verbs::Verbs;
use banger_model::VmId;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Takes on the VMs that run on, and removes what is left of others. One that cannot be helped is no reason not to
/// serve the rest. VMs' users are the whole host's, so only the helper that is alone on it (`only_one`) ends
/// processes that have one of them and no record.
pub fn find_again<S: System>(vms: &Path, verbs: &Verbs<S>, only_one: bool) -> io::Result<BTreeSet<VmId>> {
    let boot_id = boot_id()?;
    let mut known = BTreeSet::new();
    let mut lost = Vec::new();
    let mut living = BTreeSet::new();
    for entry in std::fs::read_dir(vms)? {
        let name = entry?.file_name();
        let Some(vm) = name.to_str().and_then(|name| name.parse::<VmId>().ok()) else {
            tracing::warn!(?name, "left alone what is no VM's folder");
            continue;
        };
        fault::come("find-again", "before", Some(vm));
        let folder = Folder::of(vms, vm);
        match take_on(vm, &folder, verbs, &boot_id) {
            Ok(Some(pid)) => {
                tracing::info!(%vm, pid, "found again");
                known.insert(pid);
                living.insert(vm);
            }
            // Nothing can reach its process, if it has one: it is a stray from now on.
            ended => {
                let why = ended.err();
                lost.extend(folder.lent_tap());
                match folder.remove() {
                    Ok(()) => tracing::info!(%vm, why, "removed what a VM has left"),
                    Err(error) => tracing::error!(%vm, %error, "a VM's folder stays"),
                }
            }
        }
        fault::come("find-again", "after", Some(vm));
    }
    if only_one {
        strays::end(&known)?;
    }
    // One that was lent outlives its VM.
    for name in lost {
        if let Err(error) = lend::take_back(&name) {
            tracing::error!(name, %error, "a TAP stays");
        }
    }
    Ok(living)
}

/// The pid of a VM that runs on.
fn take_on<S: System>(
    vm: VmId,
    folder: &Folder,
    verbs: &Verbs<S>,
    boot_id: &str,
) -> Result<Option<u32>, String> {
    let record = folder.read_record().map_err(|error| format!("its record cannot be read: {error}"))?;
    let Some((record, process)) = find_process(vm, record, boot_id).map_err(|error| error.to_string())?
    else {
        return Ok(None);
    };
    let pid = process.pid;
    verbs.adopt(&record, process).map_err(|refused| refused.message)?;
    Ok(Some(pid))
}

fn find_process(
    vm: VmId,
    record: Option<Record>,
    boot_id: &str,
) -> io::Result<Option<(Record, Arc<Process>)>> {
    let Some(record) = record.filter(|record| record.boot_id == boot_id) else { return Ok(None) };
    if record.vm != vm {
        return Err(io::Error::other(format!("its record is VM {}'s", record.vm)));
    }
    Ok(Process::adopt(record.pid, record.start_time)?.map(|process| (record, process)))
}
