//! What is done to a VM, as plans: the steps of each, in order, with the words by which journal, progress and
//! faults know them. Whoever adds a step adds one line here, and the compiler asks for its act and its undo.

use std::fmt;

/// Makes an enumeration of steps and its plan, in the order in which they stand.
macro_rules! plan {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $step:ident: $word:expr $(, undo $undo:literal)?;)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $step,)+ }

        impl $name {
            /// Every step, in order.
            pub const PLAN: &[$name] = &[$($name::$step,)+];

            /// The word for it.
            pub fn word(self) -> &'static str {
                match self { $($name::$step => $word,)+ }
            }

            /// The word for undoing it, if it leaves something on the host that has to be undone.
            pub fn undo(self) -> Option<&'static str> {
                match self { $($name::$step => None$(.or(Some($undo)))?,)+ }
            }
        }
    };
}

plan! {
    /// A step of starting a VM. Undoing what was never done is no error.
    StartStep {
        /// The VM's root disk: a snapshot of its image, or a loop device over a file of its own.
        AttachDisk: "attach-disk", undo "detach-disk";
        /// A loop device over each of the VM's volumes.
        AttachVolumes: "attach-volumes", undo "detach-volumes";
        /// The VM's TAP, in the bridge.
        MakeTap: "make-tap", undo "remove-tap";
        /// What the VM's packets may: whom it reaches, and its published ports.
        OpenNetwork: "open-network", undo "close-network";
        /// The VMM's process.
        StartVmm: "start-vmm", undo "end-vmm";
        /// Waiting for the guest's agent.
        AwaitGuest: "await-guest";
    }
}

/// What a step of a start needs: those of different lanes do not need each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The VM's disks.
    Disks,
    /// Its network.
    Network,
    /// All that the others have made.
    Machine,
}

impl StartStep {
    /// Its lane. Disks and network are made beside each other, and then the machine of both.
    pub fn lane(self) -> Lane {
        match self {
            StartStep::AttachDisk | StartStep::AttachVolumes => Lane::Disks,
            StartStep::MakeTap | StartStep::OpenNetwork => Lane::Network,
            StartStep::StartVmm | StartStep::AwaitGuest => Lane::Machine,
        }
    }

    /// The steps of a lane, in order.
    pub fn of(lane: Lane) -> impl Iterator<Item = StartStep> {
        StartStep::PLAN.iter().copied().filter(move |step| step.lane() == lane)
    }
}

plan! {
    /// A step of stopping a VM.
    StopStep {
        /// The guest is asked to sync and to shut down, and has its time for it.
        AskGuest: "ask-guest";
        /// Each step of its start is undone, last first.
        UndoStart: UNDO;
        /// How it ended is written down.
        Settle: SETTLE;
    }
}

plan! {
    /// A step of deleting a VM that has no process.
    DeleteStep {
        /// That it is going is written down.
        Mark: "mark";
        /// What an earlier undo left of its start is undone, last first.
        UndoStart: UNDO;
        /// Its folder goes, and the disk in it.
        RemoveFolder: "remove-folder";
        /// Its row goes.
        RemoveRow: "remove-row";
    }
}

plan! {
    /// A step of bringing everything to a true state when the service starts.
    RecoverStep {
        /// VMs on the host that nobody knows are ended.
        EndUnknown: "end-unknown";
        /// A VM that runs on is connected to.
        Adopt: "adopt";
        /// Each step of the start of one that does not is undone, last first.
        UndoStart: UNDO;
        /// How that one ended is written down.
        Settle: SETTLE;
        /// That one was going, or never finished, is written down.
        Mark: "mark";
        /// Its folder goes.
        RemoveFolder: "remove-folder";
        /// And then its row.
        RemoveRow: "remove-row";
        /// Folders that no row names go.
        Sweep: "sweep";
    }
}

/// Stands in a plan for the undoing of a start, which is several steps.
const UNDO: &str = "undo-start";

/// Several plans end like that.
const SETTLE: &str = "settle";

/// The plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// [`StartStep`]
    Start,
    /// The undoing of a start that failed or was cancelled.
    Rollback,
    /// [`StopStep`]; also what is done about a VM that ended by itself.
    Stop,
    /// [`DeleteStep`]
    Delete,
    /// [`RecoverStep`]
    Recover,
}

impl Plan {
    /// Every plan.
    pub const ALL: [Plan; 5] = [Plan::Start, Plan::Rollback, Plan::Stop, Plan::Delete, Plan::Recover];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Plan::Start => "start",
            Plan::Rollback => "rollback",
            Plan::Stop => "stop",
            Plan::Delete => "delete",
            Plan::Recover => "recover",
        }
    }

    /// The words of its steps, in order; for the undoing of a start, those of its undos.
    pub fn steps(self) -> Vec<&'static str> {
        fn words<S: Copy>(plan: &[S], word: fn(S) -> &'static str) -> Vec<&'static str> {
            plan.iter().map(|step| word(*step)).collect()
        }
        let steps = match self {
            Plan::Start => words(StartStep::PLAN, StartStep::word),
            Plan::Rollback => vec![UNDO, SETTLE],
            Plan::Stop => words(StopStep::PLAN, StopStep::word),
            Plan::Delete => words(DeleteStep::PLAN, DeleteStep::word),
            Plan::Recover => words(RecoverStep::PLAN, RecoverStep::word),
        };
        let undos = || StartStep::PLAN.iter().rev().filter_map(|step| step.undo());
        steps.into_iter().flat_map(|word| if word == UNDO { undos().collect() } else { vec![word] }).collect()
    }
}

/// A moment in a plan, at which a fault can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Point {
    /// The plan.
    pub plan: Plan,
    /// The word of the step.
    pub step: &'static str,
    /// Whether the step has been carried out.
    pub after: bool,
}

impl Point {
    /// Every moment of every plan, in order.
    pub fn all() -> impl Iterator<Item = Point> {
        Plan::ALL.into_iter().flat_map(Point::of)
    }

    /// Every moment of one plan, in order.
    pub fn of(plan: Plan) -> impl Iterator<Item = Point> {
        let moments = plan.steps().into_iter().flat_map(|step| [(step, false), (step, true)]);
        moments.map(move |(step, after)| Point { plan, step, after })
    }
}

/// `start/make-tap/before`
impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = if self.after { "after" } else { "before" };
        write!(f, "{}/{}/{moment}", self.plan.word(), self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_moment_has_a_name_of_its_own() {
        let names: Vec<String> = Point::all().map(|point| point.to_string()).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert!(names.contains(&"rollback/end-vmm/after".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name.contains(UNDO)), "{names:?}");
    }

    #[test]
    fn the_machine_comes_after_what_it_is_made_of() {
        let lanes: Vec<Lane> = StartStep::PLAN.iter().map(|step| step.lane()).collect();
        let machine = lanes.iter().position(|lane| *lane == Lane::Machine).unwrap();
        assert!(lanes[machine..].iter().all(|lane| *lane == Lane::Machine), "{lanes:?}");
        assert_eq!(StartStep::of(Lane::Machine).next(), Some(StartStep::StartVmm));
    }

    #[test]
    fn a_start_is_undone_from_its_end() {
        let undo = [StartStep::StartVmm, StartStep::MakeTap, StartStep::AttachVolumes, StartStep::AttachDisk]
            .map(StartStep::undo);
        let steps = Plan::Rollback.steps().into_iter().map(Some).filter(|step| undo.contains(step));
        assert_eq!(steps.collect::<Vec<_>>(), undo);
        assert!(Plan::Stop.steps().ends_with(&Plan::Rollback.steps()));
    }
}
