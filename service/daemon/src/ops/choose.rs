//! What runs a VM: which VMM on what, in the order in which it is tried.
//!
//! A thing that is there may not work (a `/dev/kvm` on which no kernel runs, a Firecracker too old): what is not known to
//! work on this boot of the host is tried within a bound, and what failed is not tried again before the next.

use crate::{config::VmmChoice, error::Error, service::Service};
use banger_host::VmmKind;
use banger_model::Accel;
use std::path::Path;

/// One of the ways to run a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// By what.
    pub vmm: VmmKind,
    /// On what.
    pub accel: Accel,
    /// Whether it is not known to work, so that its failure leads to the next one.
    pub trial: bool,
}

/// What is known of the ways that may not work, on this boot of the host.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    firecracker: Option<bool>,
    kvm: Option<bool>,
}

/// The ways there are, the preferred one first.
const WAYS: [(VmmKind, Accel); 3] =
    [(VmmKind::Firecracker, Accel::Kvm), (VmmKind::Qemu, Accel::Kvm), (VmmKind::Qemu, Accel::Tcg)];

/// What to try for a VM, in order. Whether there is a /dev/kvm is for the helper to say: this service sees no devices.
///
/// # Errors
/// [`Error::HostNotReady`] where what is asked for cannot be.
pub fn choices(service: &Service, asked: VmmChoice) -> Result<Vec<Choice>, Error> {
    let vmm = asked.forced().or(service.config.vmm.forced());
    let accel = service.config.accel.forced();
    let known = Known {
        firecracker: verdict(service, VmmKind::Firecracker, Accel::Kvm)?,
        kvm: verdict(service, VmmKind::Qemu, Accel::Kvm)?,
    };
    let installed = |vmm: VmmKind| vmm.vmm().programs().iter().any(|program| Path::new(program).exists());
    let ways = order(vmm, accel, installed(VmmKind::Firecracker), known);
    if !ways.is_empty() {
        return Ok(ways);
    }
    Err(Error::HostNotReady(
        "firecracker runs guests on KVM alone: ask for vmm \"qemu\" or \"auto\", or take accel = \"tcg\" out of the \
         configuration"
            .into(),
    ))
}

fn order(vmm: Option<VmmKind>, accel: Option<Accel>, has_firecracker: bool, known: Known) -> Vec<Choice> {
    let knowledge = |way: (VmmKind, Accel)| match way {
        (VmmKind::Firecracker, _) => known.firecracker,
        (VmmKind::Qemu, Accel::Kvm) => known.kvm,
        (VmmKind::Qemu, Accel::Tcg) => Some(true),
    };
    let mut ways: Vec<(VmmKind, Accel)> = WAYS
        .into_iter()
        .filter(|way| vmm.is_none_or(|vmm| vmm == way.0) && accel.is_none_or(|accel| accel == way.1))
        .filter(|way| way.0 != VmmKind::Firecracker || vmm.is_some() || has_firecracker)
        .collect();
    // The last one is tried whatever is known: there is nothing else.
    let last = ways.last().copied();
    ways.retain(|way| Some(*way) == last || knowledge(*way) != Some(false));
    // Behind one that works, nothing else is needed.
    if let Some(works) = ways.iter().position(|way| knowledge(*way) == Some(true)) {
        ways.truncate(works + 1);
    }
    let trial = |at: usize| at + 1 < ways.len();
    ways.iter()
        .enumerate()
        .map(|(at, (vmm, accel))| Choice { vmm: *vmm, accel: *accel, trial: trial(at) })
        .collect()
}

/// Remembers whether a way works, until the host is started again. Emulation always does.
///
/// # Errors
/// When the database fails.
pub fn remember(service: &Service, way: Choice, works: bool) -> Result<(), Error> {
    let Some(fact) = fact(way.vmm, way.accel) else { return Ok(()) };
    let word = if works { "works" } else { "fails" };
    Ok(service.store.remember(fact, &format!("{word} {}", boot_id()))?)
}

/// Whether a way has worked the last time that it was tried, if that was before this boot of the host. It is as likely to work
/// now, and a host that is busy starting VMs is no reason to give it up.
///
/// # Errors
/// When the database fails.
pub fn worked_last(service: &Service, way: Choice) -> Result<bool, Error> {
    let Some(fact) = fact(way.vmm, way.accel) else { return Ok(true) };
    Ok(service.store.fact(fact)?.is_some_and(|fact| fact.starts_with("works ")))
}

/// Whether KVM runs QEMU's guests on this boot of the host; none before it has been tried.
///
/// # Errors
/// When the database fails.
pub fn kvm_works(service: &Service) -> Result<Option<bool>, Error> {
    verdict(service, VmmKind::Qemu, Accel::Kvm)
}

fn verdict(service: &Service, vmm: VmmKind, accel: Accel) -> Result<Option<bool>, Error> {
    let Some(fact) = fact(vmm, accel) else { return Ok(None) };
    let remembered = service.store.fact(fact)?;
    let verdict = remembered.as_deref().and_then(|fact| fact.split_once(' '));
    Ok(verdict.filter(|(_, at)| *at == boot_id()).map(|(word, _)| word == "works"))
}

/// The fact under which it is remembered whether a way works.
fn fact(vmm: VmmKind, accel: Accel) -> Option<&'static str> {
    match (vmm, accel) {
        (VmmKind::Firecracker, _) => Some("firecracker"),
        (VmmKind::Qemu, Accel::Kvm) => Some("kvm"),
        (VmmKind::Qemu, Accel::Tcg) => None,
    }
}

/// Tells one boot of the host from the next (random(4)): a module may be there after it that was not before.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Accel::{Kvm, Tcg};
    use VmmKind::{Firecracker, Qemu};

    fn ways(
        vmm: Option<VmmKind>,
        accel: Option<Accel>,
        has: bool,
        known: (Option<bool>, Option<bool>),
    ) -> Vec<(VmmKind, Accel, bool)> {
        let known = Known { firecracker: known.0, kvm: known.1 };
        order(vmm, accel, has, known).into_iter().map(|way| (way.vmm, way.accel, way.trial)).collect()
    }

    #[test]
    fn what_is_unknown_is_tried_and_emulation_comes_last() {
        let unknown = (None, None);
        let all = [(Firecracker, Kvm, true), (Qemu, Kvm, true), (Qemu, Tcg, false)];
        assert_eq!(ways(None, None, true, unknown), all);
        assert_eq!(ways(None, None, false, unknown), all[1..]);
        assert_eq!(ways(Some(Qemu), None, true, unknown), all[1..]);
    }

    #[test]
    fn what_works_ends_the_search_and_what_fails_is_left_out() {
        assert_eq!(ways(None, None, true, (Some(true), None)), [(Firecracker, Kvm, false)]);
        assert_eq!(ways(None, None, true, (Some(false), Some(true))), [(Qemu, Kvm, false)]);
        assert_eq!(ways(None, None, true, (Some(false), Some(false))), [(Qemu, Tcg, false)]);
        assert_eq!(ways(None, None, false, (None, Some(true))), [(Qemu, Kvm, false)]);
    }

    #[tokio::test]
    async fn what_worked_before_a_reboot_is_tried_with_patience() {
        let service = crate::testing::bench().await.service;
        let way = Choice { vmm: Qemu, accel: Kvm, trial: true };
        assert!(!worked_last(&service, way).unwrap(), "nobody has tried");
        service.store.remember("kvm", "works another-boot").unwrap();
        assert_eq!((worked_last(&service, way).unwrap(), kvm_works(&service).unwrap()), (true, None));
        remember(&service, way, false).unwrap();
        assert!(!worked_last(&service, way).unwrap());
    }

    #[test]
    fn what_is_forced_is_the_only_way_whatever_is_known() {
        assert_eq!(ways(Some(Firecracker), None, false, (Some(false), None)), [(Firecracker, Kvm, false)]);
        assert_eq!(ways(None, Some(Tcg), true, (None, None)), [(Qemu, Tcg, false)]);
        assert_eq!(ways(Some(Qemu), Some(Kvm), true, (None, Some(false))), [(Qemu, Kvm, false)]);
        assert_eq!(ways(Some(Firecracker), Some(Tcg), true, (None, None)), []);
    }
}
