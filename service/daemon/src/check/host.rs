//! What VMs run by.

use super::Finding;
use crate::{kernels, ops::choose, service::Service};
use std::path::Path;
use zbus::{fdo::DBusProxy, names::BusName};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// Where Firecracker is looked for.
const FIRECRACKER: [&str; 2] = ["/usr/bin/firecracker", "/usr/local/bin/firecracker"];

/// polkit's name on the bus.
const POLKIT: &str = "org.freedesktop.PolicyKit1";

/// Whether the helper answers, in the same version.
pub async fn helper(service: &Service) -> Finding {
    match service.host.hello().await {
        Ok(()) => Finding::ok("banger-hostd answers, and is of this version"),
        Err(error) => Finding::error(
            error.to_string(),
            "start it with `systemctl start banger-hostd.socket`; after an upgrade, `systemctl restart bangerd banger-hostd`",
        ),
    }
}

/// Whether somebody says who may do what.
pub async fn polkit(service: &Service) -> Finding {
    let there = async {
        let bus = DBusProxy::new(&service.bus).await?;
        let name = BusName::try_from(POLKIT)?;
        Ok::<_, zbus::Error>(
            bus.name_has_owner(name).await?
                || bus.list_activatable_names().await?.iter().any(|name| name.as_str() == POLKIT),
        )
    };
    match there.await {
        Ok(true) => Finding::ok("polkit is there"),
        Ok(false) => Finding::warning(
            "there is no polkit: only root and owners can do anything",
            "install polkit (the package polkitd)",
        ),
        Err(error) => Finding::unknown(format!("the message bus does not tell: {error}")),
    }
}

/// Whether KVM runs guests, as far as it has been tried.
pub fn kvm(service: &Service) -> Finding {
    if let Some(accel) = service.config.accel.forced() {
        return Finding::note(format!("the configuration wants {accel} and nothing else"), "");
    }
    match choose::kvm_works(service) {
        Ok(Some(true)) => Finding::ok("KVM runs guests"),
        Ok(Some(false)) => Finding::warning(
            "KVM did not run a guest since this host was booted: VMs are emulated, which is slow",
            "switch virtualization on in the firmware's settings, load kvm_intel or kvm_amd, or, on a host that is itself a VM, have nested virtualization switched on; then reboot, or restart bangerd",
        ),
        Ok(None) => {
            Finding::note("KVM has not been tried since this host was booted: the first VM tries it", "")
        }
        Err(error) => Finding::unknown(error.to_string()),
    }
}

/// Which monitors are installed.
pub fn monitors() -> Finding {
    let qemu = Path::new(QEMU).exists();
    let firecracker = FIRECRACKER.iter().find(|path| Path::new(path).exists());
    match (qemu, firecracker) {
        (true, Some(path)) => Finding::ok(format!("QEMU at {QEMU}, Firecracker at {path}")),
        (true, None) => Finding::ok(format!("QEMU at {QEMU}; Firecracker is not installed")),
        (false, Some(path)) => Finding::warning(
            format!("Firecracker at {path}, and no QEMU, which runs VMs where KVM does not"),
            "install QEMU (the package qemu-system-x86)",
        ),
        (false, None) => Finding::error(
            "there is neither QEMU nor Firecracker",
            "install QEMU (the package qemu-system-x86)",
        ),
    }
}

/// Whether a VM that names no kernel gets one.
pub fn kernel(service: &Service) -> Finding {
    let remedy = "install a kernel with its modules, or `banger kernel pull` one; `banger kernel ls` shows those that there are";
    let name = match kernels::default_name(service) {
        Ok(name) => name,
        Err(error) => return Finding::unknown(error.to_string()),
    };
    match kernels::find(service, &name) {
        Ok(kernel) => Finding::ok(format!("{name}, release {}", kernel.release())),
        Err(error) => Finding::error(error.to_string(), remedy),
    }
}

/// Whether what the administrator says of registries can be read.
pub fn registries(service: &Service) -> Finding {
    match service.puller.registries() {
        Ok(_) => Finding::ok("their configuration can be read"),
        Err(error) => {
            Finding::error(error.to_string(), "repair that file: until then no image can be pulled")
        }
    }
}
