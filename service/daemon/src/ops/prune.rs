//! Making room: images that nothing uses, and cached layers.

use super::images::remove;
use crate::{disk, error::Error, ids, jobs::Job, service::Service, store::ImageRow};
use banger_dbus::{Dict, DictWriter};
use banger_image::PruneBlobs;
use banger_model::{Bytes, ImageId, Phase, Uid};
use std::{collections::HashSet, sync::Arc, time::Duration};

/// What to prune.
#[derive(Debug, Clone, Copy)]
pub struct Prune {
    /// Whose images: this user's, everybody's for root.
    pub caller: Uid,
    /// Every image that no VM is made of, not only those without a name.
    pub all: bool,
    /// Images alone, and cached layers stay.
    pub dangling: bool,
    /// Only what is older than this.
    pub older_than: Duration,
    /// Only what takes more of the disk than this.
    pub larger_than: Bytes,
    /// Only tell.
    pub dry_run: bool,
}

impl Prune {
    /// Whether an image that no VM is made of goes; `held` are the bytes that it takes.
    fn takes(&self, image: &ImageRow, held: Bytes, now: i64) -> bool {
        let mine = image.owner == self.caller || self.caller == Uid::ROOT;
        let age = now.saturating_sub(image.created).max(0) as u64;
        mine && (self.all || image.names.is_empty())
            && age >= self.older_than.as_secs()
            && (self.larger_than.0 == 0 || held > self.larger_than)
    }
}

/// Removes the caller's images that no VM is made of and that have no name, or with `all` those with one too, and
/// cached layers, which a later pull would download again.
///
/// # Errors
/// What could not be removed.
pub async fn prune(service: Arc<Service>, what: Prune, job: Arc<Job>) -> Result<Dict, Error> {
    job.phase(Phase::Removing);
    let used: HashSet<ImageId> = service.store.vms()?.iter().map(|vm| vm.image).collect();
    let (mut images, mut bytes) = (Vec::new(), Bytes(0));
    for image in service.store.images()?.into_iter().filter(|image| !used.contains(&image.id)) {
        let held = disk::used(&service.rootfs(image.id));
        if !what.takes(&image, held, ids::now().seconds) {
            continue;
        }
        let frees = disk::freed(&service.rootfs(image.id));
        if !what.dry_run {
            match remove(&service, &image, what.caller).await {
                // Somebody made a VM of it meanwhile.
                Err(Error::InUse { .. }) => continue,
                result => result?,
            }
        }
        bytes.0 += frees.0;
        images.push(image.called());
    }
    let mut count = images.len() as u32;
    if !what.dangling {
        let blobs = PruneBlobs {
            owner: (what.caller != Uid::ROOT).then_some(what.caller),
            older_than: what.older_than,
            larger_than: what.larger_than,
            dry_run: what.dry_run,
        };
        let pruned = service.puller.prune_blobs(&blobs)?;
        count += pruned.count;
        bytes.0 += pruned.bytes.0;
    }
    Ok(DictWriter::new().with("count", count).with("bytes", bytes).with("images", images).done())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;

    const NOW: i64 = 1_000_000;

    fn prune(caller: u32) -> Prune {
        Prune {
            caller: Uid(caller),
            all: false,
            dangling: false,
            older_than: Duration::ZERO,
            larger_than: Bytes(0),
            dry_run: false,
        }
    }

    #[tokio::test]
    async fn whose_how_old_how_large_and_with_which_name() {
        let bench = bench().await;
        let named = bench.service.image(bench.image).unwrap();
        let named = ImageRow { owner: Uid(1000), created: NOW - 3600, ..named };
        let dangling = ImageRow { names: Vec::new(), ..named.clone() };
        let held = Bytes::mib(10);
        let all = |prune: Prune| Prune { all: true, ..prune };
        for (prune, image, takes) in [
            (prune(1000), &dangling, true),
            (prune(1000), &named, false),
            (all(prune(1000)), &named, true),
            (all(prune(1001)), &named, false),
            (all(prune(0)), &named, true),
            (Prune { older_than: Duration::from_secs(3600), ..prune(1000) }, &dangling, true),
            (Prune { older_than: Duration::from_secs(3601), ..prune(1000) }, &dangling, false),
            (Prune { larger_than: Bytes::mib(9), ..prune(1000) }, &dangling, true),
            (Prune { larger_than: Bytes::mib(10), ..prune(1000) }, &dangling, false),
        ] {
            assert_eq!(prune.takes(image, held, NOW), takes, "{prune:?} {:?}", image.names);
        }
        // Published in what is the future after the clock was set back: not old.
        let later = ImageRow { created: NOW + 5, ..dangling };
        assert!(!Prune { older_than: Duration::from_secs(1), ..prune(1000) }.takes(&later, held, NOW));
    }
}
