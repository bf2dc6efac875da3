//! Jobs: what takes longer than a reply.

use serde::{Deserialize, Serialize};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// An image comes out of a registry.
    PullImage,
    /// An image comes out of a descriptor.
    ImportImage,
    /// A user's file becomes an image.
    RegisterImage,
    /// A registered image becomes banger's own.
    PromoteImage,
    /// A VM's disk becomes an image.
    CommitVm,
    /// An image goes.
    DeleteImage,
    /// Images that nothing uses go.
    PruneImages,
    /// An image is written to a descriptor.
    ExportImage,
    /// A kernel comes out of the catalogue.
    PullKernel,
    /// A kernel is taken in.
    ImportKernel,
    /// A kernel goes.
    DeleteKernel,
    /// A VM is made, and started unless told otherwise.
    CreateVm,
    /// A VM starts.
    StartVm,
    /// A VM stops.
    StopVm,
    /// A VM's processors stop.
    PauseVm,
    /// They run again.
    ResumeVm,
    /// A VM's main process gets a signal.
    KillVm,
    /// A VM stops and starts again.
    RestartVm,
    /// A snapshot of a VM is taken.
    SnapshotVm,
    /// A VM goes back to a snapshot.
    RestoreVm,
    /// A VM is made of another one's snapshot.
    ForkVm,
    /// A VM goes.
    DeleteVm,
    /// A volume goes.
    DeleteVolume,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// At work.
    Running,
    /// Asked to stop, undoing what it did.
    Cancelling,
    /// Ended as it should.
    Done,
    /// Ended with an error.
    Failed,
    /// Ended because somebody asked it to.
    Cancelled,
}

/// What a job is doing at the moment. Each phase counts its own `done` of `total`, which never goes backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waiting for its turn.
    Queued,
    /// Asking the registry what the reference means. Counts nothing.
    Resolving,
    /// Checking who signed it. Counts nothing.
    Verifying,
    /// Downloading layers and writing their files into the image. Counts compressed bytes.
    Pulling,
    /// Writing the filesystem's own structures. Counts nothing.
    Writing,
    /// Putting the finished image in its place. Counts nothing.
    Publishing,
    /// Reading what the client hands over. Counts bytes.
    Importing,
    /// Writing the files of an archive's layers into the image. Counts bytes of the layers.
    Unpacking,
    /// Making the initramfs. Counts nothing.
    Initramfs,
    /// Copying a file or a disk. Counts bytes.
    Copying,
    /// Making the VM's disk. Counts bytes.
    Disk,
    /// Making loop device, TAP and process. Counts steps.
    Starting,
    /// Waiting for the guest to answer. Counts nothing.
    Booting,
    /// Waiting for the guest to be down. Counts nothing.
    Stopping,
    /// Writing to the client's descriptor. Counts bytes.
    Exporting,
    /// Removing. Counts things.
    Removing,
    /// Ended.
    Finished,
}

impl JobKind {
    /// The word for it on the bus.
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::PullImage => "pull-image",
            JobKind::ImportImage => "import-image",
            JobKind::RegisterImage => "register-image",
            JobKind::PromoteImage => "promote-image",
            JobKind::CommitVm => "commit-vm",
            JobKind::DeleteImage => "delete-image",
            JobKind::PruneImages => "prune-images",
            JobKind::ExportImage => "export-image",
            JobKind::PullKernel => "pull-kernel",
            JobKind::ImportKernel => "import-kernel",
            JobKind::DeleteKernel => "delete-kernel",
            JobKind::CreateVm => "create-vm",
            JobKind::StartVm => "start-vm",
            JobKind::StopVm => "stop-vm",
            JobKind::PauseVm => "pause-vm",
            JobKind::ResumeVm => "resume-vm",
            JobKind::KillVm => "kill-vm",
            JobKind::RestartVm => "restart-vm",
            JobKind::SnapshotVm => "snapshot-vm",
            JobKind::RestoreVm => "restore-vm",
            JobKind::ForkVm => "fork-vm",
            JobKind::DeleteVm => "delete-vm",
            JobKind::DeleteVolume => "delete-volume",
        }
    }
}

impl JobState {
    /// The word for it on the bus.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Cancelling => "cancelling",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed | JobState::Cancelled)
    }
}

impl Phase {
    /// The word for it on the bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Resolving => "resolving",
            Phase::Verifying => "verifying",
            Phase::Pulling => "pulling",
            Phase::Writing => "writing",
            Phase::Publishing => "publishing",
            Phase::Importing => "importing",
            Phase::Unpacking => "unpacking",
            Phase::Initramfs => "initramfs",
            Phase::Copying => "copying",
            Phase::Disk => "disk",
            Phase::Starting => "starting",
            Phase::Booting => "booting",
            Phase::Stopping => "stopping",
            Phase::Exporting => "exporting",
            Phase::Removing => "removing",
            Phase::Finished => "finished",
        }
    }
}
