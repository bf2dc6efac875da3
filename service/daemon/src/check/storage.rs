//! Where everything is kept.

use super::Finding;
use crate::service::Service;
use banger_model::{Bytes, DiskBackend};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// With less than this nothing more can be made.
const LEAST: Bytes = Bytes::gib(1);

/// With less than this it is time to say so, as a share of all.
const LITTLE: u64 = 20;

/// Whether the service's own folder is its own.
pub fn state(service: &Service) -> Finding {
    let path = &service.config.state;
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            return Finding::error(
                format!("{}: {error}", path.display()),
                "make it anew by restarting bangerd",
            );
        }
    };
    let own = metadata.uid() == nix::unistd::geteuid().as_raw();
    let mode = metadata.permissions().mode() & 0o7777;
    match (own, mode & 0o077) {
        (true, 0) => Finding::ok(format!("{} is the service's alone", path.display())),
        (true, _) => Finding::warning(
            format!("{} has mode {mode:04o}: others can look into it", path.display()),
            format!("chmod 0700 {}", path.display()),
        ),
        (false, _) => Finding::error(
            format!("{} belongs to uid {}", path.display(), metadata.uid()),
            format!("chown -R {}: {}", service.config.user, path.display()),
        ),
    }
}

/// What VMs' disks are made of.
pub fn disks(service: &Service) -> Finding {
    let (chosen, why) = service.backends.told();
    match chosen {
        Ok(DiskBackend::Copy) => Finding::note(
            format!("each VM gets a copy of its image: {why}"),
            "VMs are made quicker, and take less room, with device-mapper (load the module dm_snapshot) or with the state folder on btrfs or XFS; then restart bangerd",
        ),
        Ok(backend) => Finding::ok(format!("made with {backend}: {why}")),
        Err(error) => Finding::error(
            error.to_string(),
            "set another `backend` in the section [disks] of the configuration, or remove it",
        ),
    }
}

/// Whether there is room for more.
pub fn space(service: &Service) -> Finding {
    let path = &service.config.state;
    let stat = match nix::sys::statvfs::statvfs(path) {
        Ok(stat) => stat,
        Err(error) => return Finding::unknown(format!("{}: {error}", path.display())),
    };
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(stat.fragment_size()));
    let (free, all) = (bytes(stat.blocks_available()), bytes(stat.blocks()));
    let found = format!("{free} of {all} are free below {}", path.display());
    let remedy =
        "`banger system df` shows what takes how much, and `banger image prune` frees what nothing uses";
    match free {
        free if free < LEAST => Finding::error(found, remedy),
        free if free.0 < all.0 / LITTLE => Finding::warning(found, remedy),
        _ => Finding::ok(found),
    }
}
