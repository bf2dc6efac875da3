//! The real host, behind the helper's socket.

use crate::packet::{receive, send};
use crate::{
    Answer, Host, HostError, NameRouting, PROTOCOL, Reply, Request, SnapshotDisk, StartVm, VmStatus, VmUsage,
};
use banger_model::{DiskNumber, Firewall, KernelName, NetworkRules, Slot, Subnet, Used, VmId};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fs::File, io, time::Duration};

/// A helper that ended is started again by whoever holds its socket: so often, and after such pauses, is a verb that
/// [`crate::Verb::repeats`] asked again.
const REPEATS: usize = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// The client of `banger-hostd`. Each verb has a connection and a blocking thread of its own, so none waits for
/// another, and a helper that has been restarted is found again by itself.
#[derive(Debug, Clone)]
pub struct HostClient {
    path: PathBuf,
}

impl HostClient {
    /// The client of the helper that listens at `path`, usually `/run/banger/hostd.sock`. Nothing is
    /// connected yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn call<T: Send + 'static>(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
        read: impl Fn(Reply, Vec<OwnedFd>) -> Option<T> + Send + 'static,
    ) -> Answer<'_, T> {
        let path = self.path.clone();
        Box::pin(async move {
            let verb = request.verb();
            let blocking = move || {
                let mut repeats = if verb.repeats() { REPEATS } else { 0 };
                let mut lost = false;
                loop {
                    let answer = exchange(&path, &request, &descriptors, &read);
                    // Nobody there at all is no restart: only one that was there is waited for.
                    lost |= matches!(answer, Err(HostError::Lost { .. }));
                    let gone = matches!(answer, Err(HostError::Lost { .. } | HostError::Unreachable { .. }));
                    if !(lost && gone) || repeats == 0 {
                        return answer;
                    }
                    repeats -= 1;
                    std::thread::sleep(PAUSE);
                }
            };
            tokio::task::spawn_blocking(blocking)
                .await
                .unwrap_or_else(|gone| Err(HostError::Lost { verb, source: io::Error::other(gone) }))
        })
    }
}

fn dial(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// One request and its reply, blocking. `read` makes the result of the reply that fits.
fn exchange<T>(
    path: &Path,
    request: &Request,
    descriptors: &[OwnedFd],
    read: impl Fn(Reply, Vec<OwnedFd>) -> Option<T>,
) -> Result<T, HostError> {
    let verb = request.verb();
    let lost = |source| HostError::Lost { verb, source };
    let protocol = |reason: String| HostError::Protocol { verb, reason };

    let socket = dial(path).map_err(|source| HostError::Unreachable { path: path.to_owned(), source })?;
    let message = serde_json::to_vec(request).map_err(|error| protocol(error.to_string()))?;
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let sent = send(&socket, &message, &borrowed);
    // A helper that refuses its caller answers and hangs up without reading: its answer says more than EPIPE.
    let (answer, received) = match (receive(&socket), sent) {
        (Ok(Some(answer)), _) => answer,
        (_, Err(error)) | (Err(error), Ok(())) => return Err(lost(error)),
        (Ok(None), Ok(())) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
    };
    match serde_json::from_slice(&answer).map_err(|error| protocol(error.to_string()))? {
        Reply::Failed { kind, message } => Err(HostError::Refused { verb, kind, message }),
        reply => read(reply, received).ok_or_else(|| protocol("a reply to another verb".into())),
    }
}

fn done(reply: Reply, _: Vec<OwnedFd>) -> Option<()> {
    (reply == Reply::Done).then_some(())
}

impl Host for HostClient {
    fn hello(&self) -> Answer<'_, ()> {
        self.call(Request::Hello { version: PROTOCOL }, Vec::new(), |reply, _| {
            (reply == Reply::Hello { version: PROTOCOL }).then_some(())
        })
    }

    fn open_host_kernel(&self, release: KernelName) -> Answer<'_, File> {
        self.call(Request::OpenHostKernel { release }, Vec::new(), |reply, mut received| {
            let file = received.pop().filter(|_| reply == Reply::Done)?;
            Some(File::from(file))
        })
    }

    fn probe_disks(&self) -> Answer<'_, Option<String>> {
        self.call(Request::ProbeDisks {}, Vec::new(), |reply, _| match reply {
            Reply::Disks { no_device_mapper } => Some(no_device_mapper),
            _ => None,
        })
    }

    fn attach_loop(
        &self,
        vm: VmId,
        slot: Slot,
        disk: DiskNumber,
        writable: bool,
        file: OwnedFd,
    ) -> Answer<'_, ()> {
        self.call(Request::AttachLoop { vm, slot, disk, writable }, vec![file], done)
    }

    fn attach_snapshot(&self, vm: VmId, slot: Slot, snapshot: SnapshotDisk) -> Answer<'_, ()> {
        let SnapshotDisk { image, rootfs, cow, size } = snapshot;
        self.call(Request::AttachSnapshot { vm, slot, image, size }, vec![rootfs, cow], done)
    }

    fn detach_disk(&self, vm: VmId, disk: DiskNumber) -> Answer<'_, ()> {
        self.call(Request::DetachDisk { vm, disk }, Vec::new(), done)
    }

    fn list_networks(&self) -> Answer<'_, (Vec<Used>, Vec<Firewall>)> {
        self.call(Request::ListNetworks {}, Vec::new(), |reply, _| match reply {
            Reply::Networks { used, firewalls } => Some((used, firewalls)),
            _ => None,
        })
    }

    fn make_tap(&self, vm: VmId, slot: Slot, subnet: Subnet) -> Answer<'_, ()> {
        self.call(Request::MakeTap { vm, slot, subnet }, Vec::new(), done)
    }

    fn open_network(&self, vm: VmId, rules: NetworkRules) -> Answer<'_, ()> {
        self.call(Request::OpenNetwork { vm, rules }, Vec::new(), done)
    }

    fn close_network(&self, vm: VmId) -> Answer<'_, ()> {
        self.call(Request::CloseNetwork { vm }, Vec::new(), done)
    }

    fn remove_tap(&self, vm: VmId) -> Answer<'_, ()> {
        self.call(Request::RemoveTap { vm }, Vec::new(), done)
    }

    fn start_vm(&self, start: StartVm) -> Answer<'_, u32> {
        let StartVm { vm, slot, size, accel, vmm, manner, snapshot, kernel, initrd } = start;
        let request = Request::StartVm { vm, slot, size, accel, vmm, manner };
        let descriptors = [Some(kernel), Some(initrd), snapshot].into_iter().flatten().collect();
        self.call(request, descriptors, |reply, _| match reply {
            Reply::Started { pid } => Some(pid),
            _ => None,
        })
    }

    fn stop_vm(&self, vm: VmId) -> Answer<'_, ()> {
        self.call(Request::StopVm { vm }, Vec::new(), done)
    }

    fn bind_dns(&self, subnet: Subnet, port: u16) -> Answer<'_, Vec<OwnedFd>> {
        self.call(Request::BindDns { subnet, port }, Vec::new(), |reply, received| {
            (reply == Reply::Done && received.len() % 2 == 0).then_some(received)
        })
    }

    fn route_dns(&self, subnet: Subnet, port: u16, owner: OwnedFd) -> Answer<'_, ()> {
        self.call(Request::RouteDns { subnet, port }, vec![owner], done)
    }

    fn show_dns(&self) -> Answer<'_, (NameRouting, String)> {
        self.call(Request::ShowDns {}, Vec::new(), |reply, _| match reply {
            Reply::Dns { routing, message } => Some((routing, message)),
            _ => None,
        })
    }

    fn vm_usage(&self, vm: VmId) -> Answer<'_, VmUsage> {
        self.call(Request::VmUsage { vm }, Vec::new(), |reply, _| match reply {
            Reply::Usage { usage } => Some(usage),
            _ => None,
        })
    }

    fn connect_guest(&self, vm: VmId, port: u32) -> Answer<'_, OwnedFd> {
        self.call(Request::ConnectGuest { vm, port }, Vec::new(), |reply, mut received| {
            received.pop().filter(|_| reply == Reply::Done)
        })
    }

    fn list_vms(&self) -> Answer<'_, Vec<VmStatus>> {
        Box::pin(async move {
            let mut all: Vec<VmStatus> = Vec::new();
            loop {
                let request = Request::ListVms { after: all.last().map(|status| status.vm) };
                let page = self.call(request, Vec::new(), |reply, _| match reply {
                    // A page with more to come and nothing on it would be asked for forever.
                    Reply::Vms { vms, more } if !(more && vms.is_empty()) => Some((vms, more)),
                    _ => None,
                });
                let (vms, more) = page.await?;
                all.extend(vms);
                if !more {
                    return Ok(all);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Refusal;
    use rustix::net::{accept, bind, listen};

    /// A helper that answers one request with `answer`, or hangs up.
    fn against<T>(
        answer: Option<&'static str>,
        ask: impl AsyncFnOnce(&HostClient) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        against_each(vec![answer], ask)
    }

    /// A helper that does so with one request after the other.
    fn against_each<T>(
        answers: Vec<Option<&'static str>>,
        ask: impl AsyncFnOnce(&HostClient) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&socket, 1).unwrap();
        let helper = std::thread::spawn(move || {
            for answer in answers {
                let connection = accept(&socket).unwrap();
                let (request, _) = receive(&connection).unwrap().unwrap();
                assert!(serde_json::from_slice::<Request>(&request).is_ok());
                if let Some(answer) = answer {
                    send(&connection, answer.as_bytes(), &[]).unwrap();
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(ask(&HostClient::new(path)));
        helper.join().unwrap();
        result
    }

    #[test]
    fn answers_are_read() {
        let same = format!(r#"{{"reply":"hello","version":{PROTOCOL}}}"#);
        let hello = against(Some(same.leak()), async |host| host.hello().await);
        assert!(hello.is_ok(), "{hello:?}");
        let vm = VmId::from_bits(1);
        let stop = against(Some(r#"{"reply":"done"}"#), async |host| host.stop_vm(vm).await);
        assert!(stop.is_ok(), "{stop:?}");
        let refused = r#"{"reply":"failed","kind":"slot-taken","message":"no"}"#;
        let error = against(Some(refused), async |host| host.stop_vm(vm).await).unwrap_err();
        assert_eq!((error.refusal(), error.to_string().as_str()), (Some(Refusal::SlotTaken), "no"));
    }

    #[test]
    fn an_undo_in_whose_middle_the_helper_ends_is_asked_again() {
        let answers = vec![None, None, Some(r#"{"reply":"done"}"#)];
        let stop = against_each(answers, async |host| host.stop_vm(VmId::from_bits(1)).await);
        assert!(stop.is_ok(), "{stop:?}");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let vm = VmId::from_bits(1);
        for answer in [r#"{"reply":"started","pid":1}"#, "{}", "x", r#"{"reply":"more"}"#] {
            let error = against(Some(answer), async |host| host.stop_vm(vm).await).unwrap_err();
            assert!(matches!(error, HostError::Protocol { .. }), "{error:?}");
        }
        let endless = r#"{"reply":"vms","vms":[],"more":true}"#;
        let error = against(Some(endless), async |host| host.list_vms().await).unwrap_err();
        assert!(matches!(error, HostError::Protocol { .. }), "{error:?}");
        let release: KernelName = "6.1.0".parse().unwrap();
        let done = Some(r#"{"reply":"done"}"#);
        let error = against(done, async |host| host.open_host_kernel(release).await).unwrap_err();
        assert!(matches!(error, HostError::Protocol { .. }), "without its descriptor: {error:?}");
        let slot = Slot::try_from(1).unwrap();
        let error = against(None, async |host| host.make_tap(vm, slot, Subnet::default()).await).unwrap_err();
        assert!(matches!(error, HostError::Lost { .. }), "what makes something is asked once: {error:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_said() {
        let error = HostClient::new("/nonexistent/hostd.sock").hello().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "banger-hostd cannot be reached at /nonexistent/hostd.sock: start banger-hostd.socket"
        );
    }
}
