//! `org.banger.VM`.

use super::{create_options::published_port, manager::check_quota, no_options};
use crate::{
    console::{Content, hand_out},
    error,
    gate::Caller,
    jobs::{Job, NewJob},
    ops::{
        change::{self, Change},
        commit::{self, Commit},
        exec::{self, Run},
        kill,
        lifecycle::{self, Stop},
        network, pause, port,
        snapshot::{self, Fork},
        stats, wait,
    },
    service::Service,
    show, snapshots,
    store::VmRow,
};
use banger_agent::WindowSize;
use banger_dbus::{Dict, DictWriter, Error, Options, Port, names};
use banger_model::{ImageName, JobKind, PublishedPort, VmEvent, VmId, VmName};
use banger_polkit::{Details, Operation};
use std::{future::Future, sync::Arc, time::Duration};
use zbus::{OwnedFd, OwnedObjectPath, message::Header};

/// Longest that a caller may let a guest take to shut down, in seconds.
const MOST_PATIENCE: u32 = 3600;

/// The size of a terminal whose user does not tell.
const TERMINAL: WindowSize = WindowSize { rows: 24, cols: 80 };

/// A VM on the bus.
pub struct VmObject {
    service: Arc<Service>,
    id: VmId,
}

impl VmObject {
    /// The object of this VM.
    pub fn new(service: Arc<Service>, id: VmId) -> Self {
        Self { service, id }
    }

    /// The caller and the VM, when the caller may do `operation` with it. Another user's VM is not there for
    /// who may not.
    async fn may(&self, header: &Header<'_>, operation: Operation) -> Result<(Caller, VmRow), Error> {
        let caller = self.service.gate.caller(header).await?;
        let vm = self.service.vm(self.id)?;
        let details = Details::from([("vm", vm.name.to_string())]);
        let allowed = self.service.gate.authorize(&caller, operation, Some(vm.owner), details).await;
        if let Err(refused) = allowed {
            return Err(match vm.owner == caller.uid {
                true => refused,
                false => refused.hide("VM", &self.id.to_string()),
            }
            .into());
        }
        // While somebody was asked, it may have gone.
        Ok((caller, self.service.vm(self.id)?))
    }

    async fn change(&self, header: &Header<'_>, change: Change) -> Result<Dict, Error> {
        let (caller, vm) = self.may(header, Operation::RunVm).await?;
        if change.nat == Some(true) && !vm.spec.network.nat {
            let details = Details::from([("vm", vm.name.to_string())]);
            self.service.gate.authorize(&caller, Operation::NetworkNat, None, details).await?;
        }
        let there = &vm.spec.network.ports;
        for port in change.ports.iter().flatten().filter(|port| !there.contains(port)) {
            self.may_publish(&caller, &vm, port).await?;
        }
        let later = change::change(&self.service, vm.id, &change).await?;
        let later: Vec<String> = later.into_iter().map(ToOwned::to_owned).collect();
        Ok(DictWriter::new().with("needs-restart", later).done())
    }

    /// Whether the caller may publish a port beyond what running a VM takes.
    async fn may_publish(&self, caller: &Caller, vm: &VmRow, port: &PublishedPort) -> Result<(), Error> {
        if port.is_privileged() {
            let details = Details::from([("vm", vm.name.to_string()), ("port", port.to_string())]);
            self.service.gate.authorize(caller, Operation::NetworkPublish, None, details).await?;
        }
        Ok(())
    }

    async fn job<W>(
        &self,
        (caller, vm): (Caller, VmRow),
        kind: JobKind,
        cancellable: bool,
        work: impl FnOnce(Arc<Service>, VmId, Arc<Job>) -> W,
    ) -> Result<OwnedObjectPath, Error>
    where
        W: Future<Output = Result<(), error::Error>> + Send + 'static,
    {
        check_quota(&self.service, caller.uid)?;
        let new = NewJob { kind, subject: vm.name.to_string(), owner: caller.uid, cancellable };
        let service = self.service.clone();
        let begin = |job: Arc<Job>| {
            let work = work(service, vm.id, job);
            async move { work.await.map(|()| Dict::new()) }
        };
        Ok(self.service.jobs.start(new, begin).await?.path())
    }

    fn property<T>(&self, of: impl FnOnce(VmRow) -> T) -> zbus::fdo::Result<T> {
        self.service.vm(self.id).map(of).map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }

    /// How the options of a call want the VM stopped.
    fn stop_options(&self, options: Dict) -> Result<Stop, Error> {
        let mut options = Options::new(options);
        let timeout: Option<u32> = options.take("timeout")?;
        let force = options.take_or_default("force")?;
        options.finish()?;
        let configured = self.service.config.timeouts.stop;
        let patience = match timeout {
            Some(seconds) if seconds > MOST_PATIENCE => {
                return Err(Error::InvalidArgs(format!(
                    "timeout is {seconds}, outside 0 to {MOST_PATIENCE}"
                )));
            }
            Some(seconds) => seconds.into(),
            None => configured,
        };
        Ok(Stop { patience: Duration::from_secs(patience), force, keep: false })
    }
}

/// A virtual machine. To everybody but its owner and root its methods answer `org.banger.Error.NotFound`,
/// unless polkit allows `org.banger.manager.vm-manage-others`.
#[zbus::interface(name = "org.banger.VM")]
impl VmObject {
    /// Starts it; the job ends when the guest is ready. One that runs is no error. Needs
    /// `org.banger.manager.vm-run`.
    #[zbus(out_args("job"))]
    async fn start(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let allowed = self.may(&header, Operation::RunVm).await?;
        let work = |service: Arc<Service>, id, job: Arc<Job>| async move {
            lifecycle::start(&service, id, &job).await
        };
        self.job(allowed, JobKind::StartVm, true, work).await
    }

    /// Stops it: the guest syncs and shuts down, and after `timeout` u seconds (default: as configured) its
    /// process is ended. `force` b ends the process at once. One that does not run is no error.
    #[zbus(out_args("job"))]
    async fn stop(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let how = self.stop_options(options)?;
        let allowed = self.may(&header, Operation::ManageVm).await?;
        let work = |service: Arc<Service>, id, job: Arc<Job>| async move {
            lifecycle::stop(&service, id, how, &job).await
        };
        self.job(allowed, JobKind::StopVm, false, work).await
    }

    /// Takes a snapshot of it while it runs or is paused: memory, devices and disk at one moment. The guest stands still
    /// meanwhile. Its name is a DNS label. Needs `org.banger.manager.vm-run`.
    #[zbus(out_args("job"))]
    async fn snapshot(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let name: VmName = name.parse()?;
        let allowed = self.may(&header, Operation::RunVm).await?;
        let work = |service: Arc<Service>, id, job: Arc<Job>| async move {
            snapshot::snapshot(&service, id, &name, &job).await
        };
        self.job(allowed, JobKind::SnapshotVm, false, work).await
    }

    /// Its snapshots, by name: name, vmm and accel s; created, memory and disk t, the bytes that they take.
    #[zbus(out_args("snapshots"))]
    async fn list_snapshots(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<Vec<Dict>, Error> {
        no_options(options)?;
        let (_, vm) = self.may(&header, Operation::UseVm).await?;
        let all = snapshots::all(&self.service, vm.id)?;
        let info = |(name, one): &(VmName, _)| snapshots::info(&self.service, vm.id, name, one).into_dict();
        Ok(all.iter().map(info).collect())
    }

    /// Deletes a snapshot of it. VMs that went on from it do not need it.
    async fn delete_snapshot(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<(), Error> {
        no_options(options)?;
        let name: VmName = name.parse()?;
        let (_, vm) = self.may(&header, Operation::ManageVm).await?;
        let machine = self.service.machines.of(vm.id);
        // One that something goes on from stays until it has.
        let _turn = machine.turn.lock().await;
        Ok(snapshots::remove(&self.service, vm.id, &name)?)
    }

    /// Goes back to a snapshot: what the VM does is ended, and its guest goes on from there, with the right time. The job
    /// ends when the guest answers. Needs `org.banger.manager.vm-run`.
    #[zbus(out_args("job"))]
    async fn restore(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let name: VmName = name.parse()?;
        let allowed = self.may(&header, Operation::RunVm).await?;
        snapshots::read(&self.service, allowed.1.id, &name)?;
        let work = |service: Arc<Service>, id, job: Arc<Job>| async move {
            snapshot::restore(&service, id, &name, &job).await
        };
        self.job(allowed, JobKind::RestoreVm, false, work).await
    }

    /// Makes another VM, `name`, whose guest goes on from this one's snapshot `snapshot` s, or without that option from this
    /// moment: with MAC address, addresses, machine id and random numbers of its own, and without published ports, which stay
    /// this one's. The job's result has `vm` o. Needs `org.banger.manager.vm-run`.
    #[zbus(out_args("job"))]
    async fn fork(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let mut options = Options::new(options);
        let from: Option<String> = options.take("snapshot")?;
        options.finish()?;
        let name: VmName = name.parse()?;
        let from: Option<VmName> = from.map(|from| from.parse()).transpose()?;
        let (caller, vm) = self.may(&header, Operation::RunVm).await?;
        check_quota(&self.service, caller.uid)?;
        if let Some(from) = &from {
            snapshots::read(&self.service, vm.id, from)?;
        }
        let request = Fork { parent: vm.id, name, snapshot: from, owner: vm.owner };
        let (service, subject) = (self.service.clone(), request.name.to_string());
        let new = NewJob { kind: JobKind::ForkVm, subject, owner: caller.uid, cancellable: false };
        Ok(self.service.jobs.start(new, |job| snapshot::fork(service, request, job)).await?.path())
    }

    /// Stops its processors; memory, disk and addresses stay as they are. One that is paused is no error.
    #[zbus(out_args("job"))]
    async fn pause(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let allowed = self.may(&header, Operation::ManageVm).await?;
        let work = |service: Arc<Service>, id, _| async move { pause::pause(&service, id, "").await };
        self.job(allowed, JobKind::PauseVm, false, work).await
    }

    /// Lets its processors run again. One that runs is no error.
    #[zbus(out_args("job"))]
    async fn resume(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let allowed = self.may(&header, Operation::ManageVm).await?;
        let work = |service: Arc<Service>, id, _| async move { pause::resume(&service, id).await };
        self.job(allowed, JobKind::ResumeVm, false, work).await
    }

    /// Makes an image called `name` of its disk, which is to be run as the VM's own image is. Only while the VM is
    /// stopped, and it cannot start meanwhile; a disk that was not unmounted is refused. The image is private until it
    /// is shared. The job's result has `image` o. Needs `org.banger.manager.image-import`.
    #[zbus(out_args("job"))]
    async fn commit(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        let name: ImageName = name.parse()?;
        let (caller, vm) = self.may(&header, Operation::UseVm).await?;
        check_quota(&self.service, caller.uid)?;
        let details = Details::from([("image", name.to_string())]);
        self.service.gate.authorize(&caller, Operation::ImportImage, None, details).await?;
        let request = Commit { vm: vm.id, name, owner: caller.uid };
        let (service, subject) = (self.service.clone(), request.name.to_string());
        let new = NewJob { kind: JobKind::CommitVm, subject, owner: caller.uid, cancellable: true };
        Ok(self.service.jobs.start(new, |job| commit::commit(service, request, job)).await?.path())
    }

    /// Stops it as `Stop` does, with the same options, and starts it again. Needs `org.banger.manager.vm-run`.
    #[zbus(out_args("job"))]
    async fn restart(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let how = Stop { keep: true, ..self.stop_options(options)? };
        let allowed = self.may(&header, Operation::RunVm).await?;
        let work = |service: Arc<Service>, id, job: Arc<Job>| async move {
            lifecycle::stop(&service, id, how, &job).await?;
            lifecycle::start(&service, id, &job).await
        };
        self.job(allowed, JobKind::RestartVm, true, work).await
    }

    /// Sends `signal`, 1 to 64, to the guest's main process: the command that the VM was made with or its image's own,
    /// else the image's own init. 9 (SIGKILL) ends the VM at once, as pulling the plug would. A VM that ends after 2, 3,
    /// 9 or 15 counts as stopped by somebody, and its restart policy leaves it so.
    #[zbus(out_args("job"))]
    async fn kill(
        &self,
        #[zbus(header)] header: Header<'_>,
        signal: i32,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        no_options(options)?;
        kill::check(signal)?;
        let allowed = self.may(&header, Operation::ManageVm).await?;
        let work = move |service: Arc<Service>, id, job: Arc<Job>| async move {
            kill::kill(&service, id, signal, &job).await
        };
        self.job(allowed, JobKind::KillVm, false, work).await
    }

    /// Replies once it has no process, which may be at once: `state` s, `removed` when it is no longer there; `code` i or
    /// `signal` i, how its main process ended, where that is known; `error` s, why it failed.
    #[zbus(out_args("result"))]
    async fn wait(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        self.may(&header, Operation::UseVm).await?;
        Ok(wait::wait(&self.service, self.id).await?)
    }

    /// Changes it: `name` s, `cpus` u, `memory` t, `disk` t (it only grows), `autostart` b, `restart` s, `idle-stop` u,
    /// `remove` b, `network` s, `nat` b and `ports` a(sqqs), each as for `CreateVM`. All of it, or nothing where something
    /// is not possible. The result has `needs-restart` as, what takes effect at its next start. Needs
    /// `org.banger.manager.vm-run`, and what `CreateVM` needs for `nat` and for ports that are new.
    #[zbus(out_args("result"))]
    async fn set(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        let mut options = Options::new(options);
        let change = Change {
            name: options.take::<String>("name")?.map(|name| name.parse()).transpose()?,
            cpus: options.take("cpus")?,
            memory: options.take("memory")?,
            disk: options.take("disk")?,
            autostart: options.take("autostart")?,
            restart: options.take::<String>("restart")?.map(|policy| policy.parse()).transpose()?,
            idle_stop: options.take("idle-stop")?,
            remove: options.take("remove")?,
            network: options.take::<String>("network")?.map(|mode| mode.parse()).transpose()?,
            nat: options.take("nat")?,
            ports: options
                .take::<Vec<Port>>("ports")?
                .map(|ports| ports.iter().map(published_port).collect())
                .transpose()?,
        };
        options.finish()?;
        self.change(&header, change).await
    }

    /// Gives it another name; the same as `Set` with `name`.
    #[zbus(out_args("result"))]
    async fn rename(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<Dict, Error> {
        no_options(options)?;
        let change = Change { name: Some(name.parse()?), ..Change::default() };
        self.change(&header, change).await
    }

    /// What a VM that runs takes: `cpu-time` t (microseconds), `memory`, `received` and `sent` t (bytes), `read` and
    /// `written` t (bytes of its disks), `cpu-permille` u (thousandths of one processor since the last call); and what
    /// its guest says of itself: `guest-uptime` and `guest-busy` t (milliseconds), `guest-memory`,
    /// `guest-memory-available`, `guest-disk` and `guest-disk-available` t (bytes), `guest-tasks` and
    /// `guest-connections` u. What cannot be had at the moment is left out.
    #[zbus(out_args("stats"))]
    async fn stats(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        let (_, vm) = self.may(&header, Operation::UseVm).await?;
        Ok(stats::stats(&self.service, &vm).await?.into_dict())
    }

    /// A connection to a TCP port of its guest, also one on the guest's loopback alone: a socket.
    #[zbus(out_args("connection"))]
    async fn open_port(
        &self,
        #[zbus(header)] header: Header<'_>,
        port: u16,
        options: Dict,
    ) -> Result<OwnedFd, Error> {
        no_options(options)?;
        let (_, vm) = self.may(&header, Operation::UseVm).await?;
        Ok(port::open(&self.service, &vm, port).await?.into())
    }

    /// Deletes it with its disk. One that runs is refused, unless `force` b.
    #[zbus(out_args("job"))]
    async fn delete(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        let mut options = Options::new(options);
        let force: bool = options.take_or_default("force")?;
        options.finish()?;
        let (caller, vm) = self.may(&header, Operation::ManageVm).await?;
        if !force && vm.state.after(VmEvent::Delete).is_err() {
            return Err(error::Error::Runs { name: vm.name.to_string(), state: vm.state }.into());
        }
        let work = |service: Arc<Service>, id, job: Arc<Job>| async move {
            lifecycle::delete(&service, id, force, &job).await
        };
        self.job((caller, vm), JobKind::DeleteVm, false, work).await
    }

    /// Makes its port (s address of the host, "" for 127.0.0.1; q the host's port; q its own port; s `tcp` or `udp`)
    /// reachable: at once if it runs, and whenever it does. `0.0.0.0` and `::` mean every address of the host. A port that
    /// somebody else has is refused with `org.banger.Error.InUse`. Needs `org.banger.manager.vm-run`, and
    /// `org.banger.manager.network-publish` beyond loopback or for a port of the host's below 1024.
    async fn publish(
        &self,
        #[zbus(header)] header: Header<'_>,
        port: Port,
        options: Dict,
    ) -> Result<(), Error> {
        no_options(options)?;
        let port = published_port(&port)?;
        let (caller, vm) = self.may(&header, Operation::RunVm).await?;
        self.may_publish(&caller, &vm, &port).await?;
        Ok(network::publish(&self.service, self.id, port).await?)
    }

    /// Takes that back. One that is not published is no error.
    async fn unpublish(
        &self,
        #[zbus(header)] header: Header<'_>,
        port: Port,
        options: Dict,
    ) -> Result<(), Error> {
        no_options(options)?;
        let port = published_port(&port)?;
        self.may(&header, Operation::ManageVm).await?;
        Ok(network::unpublish(&self.service, self.id, port).await?)
    }

    /// Everything known of it: id, name, state, image, image-id, kernel and disk-backend s; owner-uid and cpus u; memory,
    /// disk, disk-used and created t; addresses and volumes as; network s, nat b, ports a(sqqs); remove b; and where they apply accel, vmm and error s,
    /// pid u, started t, uptime t (seconds), exit-code i or exit-signal i (how its main process ended last); autostart b,
    /// restart s, idle-stop u; boot a(su), the phases of its last boot with the milliseconds since the guest's kernel
    /// started; and while it runs listening as, what its guest listens on.
    #[zbus(out_args("description"))]
    async fn describe(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Dict, Error> {
        no_options(options)?;
        let (_, vm) = self.may(&header, Operation::UseVm).await?;
        let images = self.service.store.images().map_err(error::Error::from)?;
        let mut info = show::vm(&self.service, &vm, &images);
        info.listening = show::listening(&self.service, &vm).await;
        Ok(info.into_dict())
    }

    /// Runs a command in the guest.
    ///
    /// `argv` reaches the program exactly as given; empty, it is the image's own command. Options: `entrypoint` b,
    /// the image's entrypoint goes before it; `environment` as of `NAME=value`, over the image's own; `user` s and
    /// `working-directory` s (default: the image's); `tty` b with `rows` q and `columns` q, a terminal on `stdin` and
    /// `stdout`; `stdin` b (default: true), otherwise there is none; `detach` b, the command goes on when the caller's
    /// connection ends. Returns the command's object and the caller's ends of its three streams.
    #[zbus(out_args("exec", "stdin", "stdout", "stderr"))]
    async fn exec(
        &self,
        #[zbus(header)] header: Header<'_>,
        argv: Vec<String>,
        options: Dict,
    ) -> Result<(OwnedObjectPath, OwnedFd, OwnedFd, OwnedFd), Error> {
        let mut options = Options::new(options);
        let tty: bool = options.take_or_default("tty")?;
        let rows: Option<u16> = options.take("rows")?;
        let columns: Option<u16> = options.take("columns")?;
        let window =
            WindowSize { rows: rows.unwrap_or(TERMINAL.rows), cols: columns.unwrap_or(TERMINAL.cols) };
        let run = Run {
            argv,
            entrypoint: options.take_or_default("entrypoint")?,
            environment: options.take_or_default("environment")?,
            user: options.take_or_default("user")?,
            working_directory: options.take_or_default("working-directory")?,
            tty: tty.then_some(window),
            stdin: options.take("stdin")?.unwrap_or(true),
            detach: options.take_or_default("detach")?,
        };
        options.finish()?;
        let (caller, vm) = self.may(&header, Operation::UseVm).await?;
        let (id, streams) = exec::exec(&self.service, &caller, &vm, run).await?;
        Ok((names::path_of(id), streams.stdin.into(), streams.stdout.into(), streams.stderr.into()))
    }

    /// The serial console of a VM that runs, to look on and to type: a socket.
    #[zbus(out_args("console"))]
    async fn open_console(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: Dict,
    ) -> Result<OwnedFd, Error> {
        no_options(options)?;
        let (_, vm) = self.may(&header, Operation::UseVm).await?;
        let stopped = || error::Error::NotRunning { name: vm.name.to_string(), state: vm.state };
        let live = self.service.machines.of(vm.id).live().ok_or_else(stopped)?;
        let console =
            live.console.open().map_err(|e| error::Error::disk(&self.service.console_log(vm.id), e))?;
        Ok(console.into())
    }

    /// The log of the serial console, a pipe to read it from, also of a VM that does not run. It is bounded, as
    /// configured: the newest is there. Options: `lines` u, only so many of the last ones; `follow` b, what comes is
    /// passed on until the VM stops.
    #[zbus(out_args("log"))]
    async fn open_log(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<OwnedFd, Error> {
        let mut options = Options::new(options);
        let lines: Option<u32> = options.take("lines")?;
        let follow: bool = options.take_or_default("follow")?;
        options.finish()?;
        let (_, vm) = self.may(&header, Operation::UseVm).await?;
        let path = self.service.console_log(vm.id);
        let failed = |error| error::Error::disk(&path, error);
        if let Some(live) = self.service.machines.of(vm.id).live().filter(|_| follow) {
            return Ok(live.console.follow(lines).map_err(failed)?.into());
        }
        let content = Content::of(&path).and_then(|mut content| {
            lines.map_or(Ok(()), |lines| content.last(lines))?;
            hand_out(content)
        });
        match content {
            Ok(log) => Ok(log.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound(format!(
                "the VM {:?} has no console log: it has never run",
                vm.name.as_str()
            ))),
            Err(error) => Err(error::Error::disk(&path, error).into()),
        }
    }

    /// Its id, 16 hexadecimal digits.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// Its name, a DNS label.
    #[zbus(property)]
    fn name(&self) -> zbus::fdo::Result<String> {
        self.property(|vm| vm.name.to_string())
    }

    /// Whose it is.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner_uid(&self) -> zbus::fdo::Result<u32> {
        self.property(|vm| vm.owner.0)
    }

    /// `created`, `starting`, `running`, `paused`, `stopping`, `stopped`, `failed` or `deleting`.
    #[zbus(property)]
    fn state(&self) -> zbus::fdo::Result<String> {
        self.property(|vm| vm.state.to_string())
    }

    /// Its addresses while it runs.
    #[zbus(property)]
    fn addresses(&self) -> zbus::fdo::Result<Vec<String>> {
        self.property(|vm| show::addresses(&self.service, &vm))
    }
}
