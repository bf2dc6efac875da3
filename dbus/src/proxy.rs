//! The interfaces, as a client calls them. The service implements the same ones.
//!
//! Every call that may need an authorization lets polkit ask the user for it.

use crate::Dict;
use zbus::{Fd, OwnedFd, OwnedObjectPath, Result, proxy};

/// `org.banger.Manager`: everything starts here.
#[proxy(
    interface = "org.banger.Manager",
    default_service = "org.banger.Manager",
    default_path = "/org/banger/Manager"
)]
pub trait Manager {
    /// Pulls an image; returns the job. Options: `name` s, `size` t bytes, `platform` s, `credentials` h or
    /// `username` s and `password` s.
    #[zbus(allow_interactive_auth)]
    fn pull_image(&self, reference: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// A reference in full, with registry and tag.
    fn expand_reference(&self, reference: &str, options: &Dict) -> Result<String>;

    /// Makes an image of what a descriptor holds; returns the job. An empty name is the archive's own. Options:
    /// `format` s, `select` s, `platform` s, `size` t bytes, `default-name` s, and for what does not say itself how it
    /// is run `entrypoint` as, `command` as, `environment` as, `user` s, `working-directory` s.
    #[zbus(allow_interactive_auth)]
    fn import_image(&self, input: Fd<'_>, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// Makes an image of a file that stays the caller's; returns the job. Options: `rootfs` h, `kernel` h, `initrd` h,
    /// `modules` h, `kernel-name` s.
    #[zbus(allow_interactive_auth)]
    fn register_image(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// The image of that name, id or unique prefix of an id.
    fn get_image(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// Every image, described.
    fn list_images(&self, options: &Dict) -> Result<Vec<(OwnedObjectPath, Dict)>>;

    /// Removes images that nothing uses; returns the job. Options: `all` b, `dangling` b, `older-than` t seconds,
    /// `larger-than` t bytes, `dry-run` b.
    #[zbus(allow_interactive_auth)]
    fn prune_images(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// How much of the disk is taken, by kind.
    fn disk_usage(&self, options: &Dict) -> Result<Dict>;

    /// What this host can do for VMs: id, severity, subject, remedy, and details of each thing that was looked at.
    fn check(&self, options: &Dict) -> Result<Vec<(String, String, String, String, Dict)>>;

    /// Pulls a kernel that the catalogue names; returns the job. Options: `name` s, its name here.
    #[zbus(allow_interactive_auth)]
    fn pull_kernel(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// Takes a kernel in; returns the job. Options: `kernel` h, `initrd` h, `modules` h, a tar stream of the
    /// folder that holds `modules.dep`; or `package` h or `packages` ah, a distribution's.
    #[zbus(allow_interactive_auth)]
    fn import_kernel(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// Makes a volume; returns it. Options: `size` t bytes.
    #[zbus(allow_interactive_auth)]
    fn create_volume(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// The caller's volume of that name, id or unique prefix of an id.
    fn get_volume(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// The caller's volumes, described; everybody's for root.
    fn list_volumes(&self, options: &Dict) -> Result<Vec<(OwnedObjectPath, Dict)>>;

    /// The kernel of that name, id or unique prefix of an id.
    fn get_kernel(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// Every kernel, described.
    fn list_kernels(&self, options: &Dict) -> Result<Vec<(OwnedObjectPath, Dict)>>;

    /// Makes a kernel the default; an empty name returns to what is configured.
    #[zbus(allow_interactive_auth)]
    fn set_default_kernel(&self, name: &str, options: &Dict) -> Result<()>;

    /// What can be pulled by a plain name; see [`crate::CatalogueInfo`].
    fn list_catalogue(&self, options: &Dict) -> Result<Vec<Dict>>;

    /// Makes a VM, and starts it unless `start` is false; returns the VM and the job. An empty name is made up.
    #[zbus(allow_interactive_auth, name = "CreateVM")]
    fn create_vm(&self, name: &str, options: &Dict) -> Result<(OwnedObjectPath, OwnedObjectPath)>;

    /// The caller's VM of that name, id or unique prefix of an id.
    #[zbus(name = "GetVM")]
    fn get_vm(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// The caller's VMs; see [`crate::VmSummary`], and with `details` [`crate::VmInfo`].
    #[zbus(name = "ListVMs")]
    fn list_vms(&self, options: &Dict) -> Result<Vec<(OwnedObjectPath, Dict)>>;

    /// The caller's jobs, those that ended within ten minutes too.
    fn list_jobs(&self, options: &Dict) -> Result<Vec<(OwnedObjectPath, Dict)>>;

    /// The service's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> Result<String>;

    /// A job has begun.
    #[zbus(signal)]
    fn job_added(&self, job: OwnedObjectPath) -> Result<()>;

    /// A job that had ended is forgotten.
    #[zbus(signal)]
    fn job_removed(&self, job: OwnedObjectPath) -> Result<()>;

    /// There is a new image.
    #[zbus(signal)]
    fn image_added(&self, image: OwnedObjectPath) -> Result<()>;

    /// An image is gone.
    #[zbus(signal)]
    fn image_removed(&self, image: OwnedObjectPath) -> Result<()>;

    /// There is a new VM.
    #[zbus(signal, name = "VMAdded")]
    fn vm_added(&self, vm: OwnedObjectPath) -> Result<()>;

    /// A VM is gone.
    #[zbus(signal, name = "VMRemoved")]
    fn vm_removed(&self, vm: OwnedObjectPath) -> Result<()>;

    /// How far any job is.
    #[zbus(signal)]
    fn job_progress(&self, job: OwnedObjectPath, phase: &str, done: u64, total: u64) -> Result<()>;
}

/// `org.banger.Image`: one image.
#[proxy(interface = "org.banger.Image", default_service = "org.banger.Manager", assume_defaults = false)]
pub trait Image {
    /// Everything about it; see [`crate::ImageInfo`].
    fn describe(&self, options: &Dict) -> Result<Dict>;

    /// Gives it one more name.
    #[zbus(allow_interactive_auth)]
    fn tag(&self, name: &str, options: &Dict) -> Result<()>;

    /// Takes a name away from it.
    #[zbus(allow_interactive_auth)]
    fn untag(&self, name: &str, options: &Dict) -> Result<()>;

    /// Lets everybody see and use it.
    #[zbus(allow_interactive_auth)]
    fn share(&self, options: &Dict) -> Result<()>;

    /// Removes it; returns the job.
    #[zbus(allow_interactive_auth)]
    fn delete(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Copies the user's file that it is, so that it becomes banger's own; returns the job.
    #[zbus(allow_interactive_auth)]
    fn promote(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Writes it to a descriptor; returns the job. Options: `format` s, `ext4` or `oci`.
    fn export(&self, to: Fd<'_>, options: &Dict) -> Result<OwnedObjectPath>;

    /// Its id.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> Result<String>;

    /// Its first name; empty when it has none or is private.
    #[zbus(property)]
    fn name(&self) -> Result<String>;

    /// All its names.
    #[zbus(property)]
    fn names(&self) -> Result<Vec<String>>;

    /// The reference that it was pulled by.
    #[zbus(property)]
    fn reference(&self) -> Result<String>;

    /// The digest of its manifest.
    #[zbus(property)]
    fn digest(&self) -> Result<String>;

    /// Size of the filesystem, in bytes.
    #[zbus(property)]
    fn size(&self) -> Result<u64>;

    /// Whose it is.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner_uid(&self) -> Result<u32>;
}

/// `org.banger.Volume`: one volume.
#[proxy(interface = "org.banger.Volume", default_service = "org.banger.Manager", assume_defaults = false)]
pub trait Volume {
    /// Everything about it; see [`crate::VolumeInfo`].
    fn describe(&self, options: &Dict) -> Result<Dict>;

    /// Removes it with all that is in it; returns the job.
    fn delete(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Its id.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> Result<String>;

    /// Its name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> Result<String>;

    /// Whose it is.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner_uid(&self) -> Result<u32>;
}

/// `org.banger.Kernel`: one kernel.
#[proxy(interface = "org.banger.Kernel", default_service = "org.banger.Manager", assume_defaults = false)]
pub trait Kernel {
    /// Everything about it; see [`crate::KernelInfo`].
    fn describe(&self, options: &Dict) -> Result<Dict>;

    /// Removes it; returns the job.
    #[zbus(allow_interactive_auth)]
    fn delete(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Its id.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> Result<String>;

    /// Its name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> Result<String>;

    /// Its release.
    #[zbus(property(emits_changed_signal = "const"))]
    fn release(&self) -> Result<String>;
}

/// `org.banger.VM`: one virtual machine.
#[proxy(interface = "org.banger.VM", default_service = "org.banger.Manager", assume_defaults = false)]
pub trait VM {
    /// Starts it; returns the job, which ends when the guest is ready.
    #[zbus(allow_interactive_auth)]
    fn start(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Stops it; returns the job. Options: `timeout` u, in seconds, until it is killed; `force` b kills it at once.
    fn stop(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Stops and starts it; returns the job.
    #[zbus(allow_interactive_auth)]
    fn restart(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Sends a signal to the guest's main process; 9 ends the VM at once. Returns the job.
    fn kill(&self, signal: i32, options: &Dict) -> Result<OwnedObjectPath>;

    /// Replies once it has no process: `state` s, `code` i or `signal` i, `error` s.
    fn wait(&self, options: &Dict) -> Result<Dict>;

    /// Changes it; the reply has `needs-restart` as. Options: `name` s, `cpus` u, `memory` t, `disk` t, `autostart` b,
    /// `restart` s, `idle-stop` u, `remove` b.
    #[zbus(allow_interactive_auth)]
    fn set(&self, options: &Dict) -> Result<Dict>;

    /// Gives it another name; the reply has `needs-restart` as.
    #[zbus(allow_interactive_auth)]
    fn rename(&self, name: &str, options: &Dict) -> Result<Dict>;

    /// What it takes, and how its guest is; see [`crate::VmStats`].
    fn stats(&self, options: &Dict) -> Result<Dict>;

    /// A connection to a TCP port of its guest.
    fn open_port(&self, port: u16, options: &Dict) -> Result<OwnedFd>;

    /// Stops its processors; returns the job.
    fn pause(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Lets them run again; returns the job.
    fn resume(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Takes a snapshot of it while it runs; returns the job.
    #[zbus(allow_interactive_auth)]
    fn snapshot(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// Its snapshots; see [`crate::SnapshotInfo`].
    fn list_snapshots(&self, options: &Dict) -> Result<Vec<Dict>>;

    /// Deletes a snapshot of it.
    fn delete_snapshot(&self, name: &str, options: &Dict) -> Result<()>;

    /// Goes back to a snapshot; returns the job.
    #[zbus(allow_interactive_auth)]
    fn restore(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// Makes another VM that goes on from a snapshot, or from this moment; returns the job.
    #[zbus(allow_interactive_auth)]
    fn fork(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// Makes an image of its disk while it is stopped; returns the job.
    #[zbus(allow_interactive_auth)]
    fn commit(&self, name: &str, options: &Dict) -> Result<OwnedObjectPath>;

    /// Removes it; returns the job. Options: `force` b, for a running one too.
    fn delete(&self, options: &Dict) -> Result<OwnedObjectPath>;

    /// Makes a port of it reachable at an address and port of the host's: now, and whenever it runs.
    #[zbus(allow_interactive_auth)]
    fn publish(&self, port: &crate::Port, options: &Dict) -> Result<()>;

    /// Takes that back.
    fn unpublish(&self, port: &crate::Port, options: &Dict) -> Result<()>;

    /// Everything about it; see [`crate::VmInfo`].
    fn describe(&self, options: &Dict) -> Result<Dict>;

    /// Runs a command in it: the exec object, and the command's stdin, stdout and stderr as pipes.
    ///
    /// Options: `environment` as (`K=V`), `user` s, `working-directory` s, `tty` b, `rows` q, `columns` q, `stdin` b,
    /// `entrypoint` b. An empty `argv` runs the image's own command.
    fn exec(&self, argv: &[String], options: &Dict) -> Result<(OwnedObjectPath, OwnedFd, OwnedFd, OwnedFd)>;

    /// A stream to its serial console, both ways.
    fn open_console(&self, options: &Dict) -> Result<OwnedFd>;

    /// What its serial console has said so far. Options: `lines` u, the last ones; `follow` b, and what comes.
    fn open_log(&self, options: &Dict) -> Result<OwnedFd>;

    /// Its id.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> Result<String>;

    /// Its name.
    #[zbus(property)]
    fn name(&self) -> Result<String>;

    /// Whose it is.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner_uid(&self) -> Result<u32>;

    /// Its state.
    #[zbus(property)]
    fn state(&self) -> Result<String>;

    /// Its addresses.
    #[zbus(property)]
    fn addresses(&self) -> Result<Vec<String>>;
}

/// `org.banger.Job`: something that takes longer than a reply.
#[proxy(interface = "org.banger.Job", default_service = "org.banger.Manager", assume_defaults = false)]
pub trait Job {
    /// Replies when the job has ended: with its result, or with its own error.
    fn wait(&self, options: &Dict) -> Result<Dict>;

    /// Asks the job to end; it undoes what it did.
    #[zbus(allow_interactive_auth)]
    fn cancel(&self, options: &Dict) -> Result<()>;

    /// What it does.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> Result<String>;

    /// On what.
    #[zbus(property(emits_changed_signal = "const"))]
    fn subject(&self) -> Result<String>;

    /// Who asked for it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner_uid(&self) -> Result<u32>;

    /// Where it is.
    #[zbus(property)]
    fn state(&self) -> Result<String>;

    /// What it is doing at the moment.
    #[zbus(property)]
    fn phase(&self) -> Result<String>;

    /// How much of the phase is done.
    #[zbus(property)]
    fn done(&self) -> Result<u64>;

    /// How much the phase has; 0 if it counts nothing.
    #[zbus(property)]
    fn total(&self) -> Result<u64>;

    /// Files, directories and links written into an image so far; 0 if it makes none.
    #[zbus(property)]
    fn entries(&self) -> Result<u64>;

    /// Whether cancelling has an effect now.
    #[zbus(property)]
    fn cancellable(&self) -> Result<bool>;

    /// How far it is, at most ten times a second.
    #[zbus(signal)]
    fn progress(&self, phase: &str, done: u64, total: u64) -> Result<()>;
}

/// `org.banger.Exec`: a command that runs in a guest.
#[proxy(interface = "org.banger.Exec", default_service = "org.banger.Manager", assume_defaults = false)]
pub trait Exec {
    /// Replies when the command has ended; see [`crate::ExecResult`].
    fn wait(&self, options: &Dict) -> Result<Dict>;

    /// Tells the command's terminal its new size.
    fn resize(&self, rows: u16, columns: u16, options: &Dict) -> Result<()>;

    /// Sends the command a signal.
    fn signal(&self, signal: i32, options: &Dict) -> Result<()>;

    /// The VM that it runs in.
    #[zbus(property(emits_changed_signal = "const"), name = "VM")]
    fn vm(&self) -> Result<OwnedObjectPath>;
}
