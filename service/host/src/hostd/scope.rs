//! The unit of a VM's process, where systemd runs the host. Elsewhere the process stays where the helper is.

use crate::exec_vm::ExecVm;
use banger_model::{Accel, Bytes, VmId};
use banger_systemd::scope::{Scope, booted};

/// What a VMM needs beside its guest's memory: itself and its devices' queues, and page tables for a sixteenth at most.
const VMM: Bytes = Bytes::mib(256);

/// What translated code may take (QEMU's `tb-size`, by default).
const TRANSLATED: Bytes = Bytes::gib(1);

/// Moves the process to a unit of its own. One that systemd does not make is no reason not to run the VM.
pub fn enter(vm: VmId, pid: u32, exec: &ExecVm) {
    if !booted() {
        return;
    }
    let name = format!("banger-vm-{vm}.scope");
    let scope = Scope {
        description: format!("Virtual machine {vm}"),
        pid,
        memory: most_memory(exec.size.memory, exec.accel).0,
        name,
    };
    match scope.start_and_wait() {
        Ok(()) => tracing::debug!(%vm, pid, unit = scope.name, "has a unit of its own"),
        Err(error) => tracing::warn!(%vm, pid, %error, "has no unit of its own"),
    }
}

fn most_memory(guest: Bytes, accel: Accel) -> Bytes {
    let translated = if accel == Accel::Tcg { TRANSLATED } else { Bytes(0) };
    let parts = [guest.0, guest.0 / 16, VMM.0, translated.0];
    Bytes(parts.into_iter().fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_has_its_guests_memory_and_a_little_more() {
        assert_eq!(most_memory(Bytes::gib(1), Accel::Kvm), Bytes::mib(1024 + 64 + 256));
        assert_eq!(most_memory(Bytes::gib(1), Accel::Tcg), Bytes::mib(2048 + 64 + 256));
        assert_eq!(most_memory(Bytes(u64::MAX), Accel::Kvm), Bytes(u64::MAX));
    }
}
