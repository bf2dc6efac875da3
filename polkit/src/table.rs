//! What each operation needs, by whose the object is.

use crate::ActionId;
use banger_model::Uid;

/// What a caller asks for, as far as authorization tells things apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Pull an image from a registry.
    PullImage,
    /// Import an image from a file.
    ImportImage,
    /// Import a kernel.
    ImportKernel,
    /// Create, start, restart or change a VM.
    RunVm,
    /// Let a VM reach outside.
    NetworkNat,
    /// Publish a port of a VM beyond loopback, or below 1024.
    NetworkPublish,
    /// Name or share an image.
    ChangeImage,
    /// Delete an image.
    DeleteImage,
    /// Delete a kernel.
    DeleteKernel,
    /// Stop, kill or delete a VM.
    ManageVm,
    /// See a VM, or reach into it: describe, exec, console, log.
    UseVm,
    /// Wait for a job and see its result.
    UseJob,
    /// Cancel a job.
    CancelJob,
    /// Change settings of the host.
    SystemConfigure,
    /// Exceed the limits of a VM.
    RaiseLimits,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Operation; 15] = [
        Self::PullImage,
        Self::ImportImage,
        Self::ImportKernel,
        Self::RunVm,
        Self::NetworkNat,
        Self::NetworkPublish,
        Self::ChangeImage,
        Self::DeleteImage,
        Self::DeleteKernel,
        Self::ManageVm,
        Self::UseVm,
        Self::UseJob,
        Self::CancelJob,
        Self::SystemConfigure,
        Self::RaiseLimits,
    ];
}

/// Whose the object of an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// The caller's.
    Own,
    /// Another user's.
    Others,
    /// Nobody's: it does not exist yet, or it is the host's.
    Nobodys,
}

impl Ownership {
    /// Whose something of `owner` is for `caller`.
    pub fn of(owner: Uid, caller: Uid) -> Self {
        if owner == caller { Self::Own } else { Self::Others }
    }
}

/// What a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: the owner does as they like, even behind a locked screen.
    Allowed,
    /// Polkit's yes to this action.
    Action(ActionId),
    /// There is nothing to allow: for this caller, the object is not there.
    NotFound,
}

impl Operation {
    /// What the operation needs. This is the authorization table, its one home.
    pub fn requirement(self, ownership: Ownership) -> Requirement {
        use Ownership::{Nobodys, Others, Own};
        use Requirement::{Action, Allowed, NotFound};
        match (self, ownership) {
            (Self::PullImage, _) => Action(ActionId::ImagePull),
            (Self::ImportImage, _) => Action(ActionId::ImageImport),
            (Self::ImportKernel, _) => Action(ActionId::KernelImport),
            (Self::RunVm, Own | Nobodys) => Action(ActionId::VmRun),
            (Self::RunVm, Others) => Action(ActionId::VmManageOthers),
            (Self::NetworkNat, _) => Action(ActionId::NetworkNat),
            (Self::NetworkPublish, _) => Action(ActionId::NetworkPublish),
            (Self::ChangeImage | Self::DeleteImage, Own) => Allowed,
            (Self::ChangeImage | Self::DeleteImage, Others | Nobodys) => Action(ActionId::ImageDeleteOthers),
            (Self::DeleteKernel, Own) => Allowed,
            (Self::DeleteKernel, Others | Nobodys) => Action(ActionId::KernelDeleteOthers),
            (Self::ManageVm, Own) => Allowed,
            (Self::ManageVm, Others | Nobodys) => Action(ActionId::VmManageOthers),
            (Self::UseVm | Self::UseJob, Own) => Allowed,
            (Self::UseVm | Self::UseJob, Others | Nobodys) => NotFound,
            (Self::CancelJob, Own) => Allowed,
            (Self::CancelJob, Others | Nobodys) => Action(ActionId::JobCancelOthers),
            (Self::SystemConfigure, _) => Action(ActionId::SystemConfigure),
            (Self::RaiseLimits, _) => Action(ActionId::LimitsRaise),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const OWNERSHIPS: [Ownership; 3] = [Ownership::Own, Ownership::Others, Ownership::Nobodys];

    #[test]
    fn the_owner_stops_deletes_and_uses_without_polkit() {
        use Operation::*;
        for operation in [ManageVm, UseVm, UseJob, CancelJob, ChangeImage, DeleteImage, DeleteKernel] {
            assert_eq!(operation.requirement(Ownership::Own), Requirement::Allowed, "{operation:?}");
        }
    }

    #[test]
    fn what_is_not_ones_own_is_never_simply_allowed() {
        for operation in Operation::ALL {
            for ownership in [Ownership::Others, Ownership::Nobodys] {
                assert_ne!(operation.requirement(ownership), Requirement::Allowed, "{operation:?}");
            }
        }
    }

    #[test]
    fn what_is_anothers_takes_an_administrator_where_it_is_touched() {
        use crate::Implicit;
        use Operation::*;
        for operation in [RunVm, ChangeImage, DeleteImage, DeleteKernel, ManageVm, CancelJob] {
            match operation.requirement(Ownership::Others) {
                Requirement::Action(action) => {
                    assert_eq!(action.active(), Implicit::AuthAdminKeep, "{operation:?}");
                    assert!(action.id().ends_with("-others"), "{operation:?}");
                }
                other => panic!("{operation:?}: {other:?}"),
            }
        }
        assert_eq!(UseVm.requirement(Ownership::Others), Requirement::NotFound);
    }

    #[test]
    fn every_action_is_asked_for_by_some_operation() {
        let asked: HashSet<ActionId> = Operation::ALL
            .iter()
            .flat_map(|operation| OWNERSHIPS.map(|ownership| operation.requirement(ownership)))
            .filter_map(|requirement| match requirement {
                Requirement::Action(action) => Some(action),
                _ => None,
            })
            .collect();
        assert_eq!(asked, ActionId::ALL.iter().copied().collect());
    }

    #[test]
    fn ownership_is_by_uid() {
        assert_eq!(Ownership::of(Uid(1000), Uid(1000)), Ownership::Own);
        assert_eq!(Ownership::of(Uid(1000), Uid::ROOT), Ownership::Others);
    }
}
