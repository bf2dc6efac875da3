//! A host that was switched off and on: the database is there, the kernel's objects and the run folders are not, and
//! pids mean other processes.

use crate::world::{Victim, World, image};
use banger_harness::inside::{self, assert_no_residue};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command},
};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Another life of the machine, as far as its id tells.
struct OtherBoot(tempfile::NamedTempFile);

impl OtherBoot {
    fn begin() -> OtherBoot {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "11111111-2222-4333-8444-555555555555").unwrap();
        // The service reads it too, which is another user.
        fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let none: Option<&Path> = None;
        mount(Some(file.path()), BOOT_ID, none, MsFlags::MS_BIND, none).unwrap();
        OtherBoot(file)
    }
}

impl Drop for OtherBoot {
    fn drop(&mut self) {
        umount2(BOOT_ID, MntFlags::MNT_DETACH).unwrap();
        let _ = self.0.path();
    }
}

/// A process that is nobody's business.
struct Innocent(Child);

impl Innocent {
    fn start() -> Innocent {
        Innocent(Command::new("/bin/sleep").arg("1000").spawn().unwrap())
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_every_state_is_true_and_every_vm_starts() {
    image();
    let world = World::new().await;
    let (ran, rested) = (world.create("ran").await, world.create("rested").await);
    world.start_all(std::slice::from_ref(&ran)).await;
    let run_folder = PathBuf::from("/run/banger/vm").join(&ran);
    let record = fs::read_to_string(run_folder.join("record.json")).unwrap();

    // The service first, so that it writes nothing down about what happens to the VM.
    Victim::Service.kill();
    Victim::All.kill();
    for entry in fs::read_dir("/run/banger/vm").unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let boot = OtherBoot::begin();
    let mut innocent = Innocent::start();
    // A run folder that outlived the boot names a pid that is somebody else's by now.
    let mut old: serde_json::Value = serde_json::from_str(&record).unwrap();
    let pid = innocent.0.id();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let began: u64 = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().parse().unwrap();
    (old["pid"], old["start_time"]) = (pid.into(), began.into());
    fs::create_dir(&run_folder).unwrap();
    fs::write(run_folder.join("record.json"), old.to_string()).unwrap();
    Victim::Helper.kill();

    let vms = world.settled().await;
    assert_eq!((vms["ran"].state.as_str(), vms["rested"].state.as_str()), ("stopped", "created"));
    assert!(innocent.lives(), "a pid of another boot was trusted");
    assert!(inside::vm_pids().is_empty());
    assert_no_residue();
    world.start_all(&[ran, rested]).await;
    world.assert_truthful(&world.settled().await);
    world.delete_all().await;
    drop(boot);
}
