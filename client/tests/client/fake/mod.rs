//! The fake service: the interfaces of the real one over lists in memory, whose "guests" are processes here.

mod command;
mod job;
mod objects;

pub use command::Command;
pub use job::{Job, Script};

use banger_dbus::{
    Dict, DictWriter, Error, ImageInfo, JobInfo, KernelInfo, Object, Options, VmInfo, VmSummary,
    model::{Bytes, ImageId, JobId, KernelId, Uid, VmId},
    names,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use zbus::{Connection, OwnedObjectPath, message::Header};

/// What the fake holds, and what was asked of it.
#[derive(Default)]
pub struct State {
    next: AtomicU64,
    pub images: Mutex<Vec<ImageInfo>>,
    pub vms: Mutex<Vec<VmInfo>>,
    pub kernels: Mutex<Vec<KernelInfo>>,
    pub jobs: Mutex<BTreeMap<JobId, Arc<Job>>>,
    pub commands: Mutex<Vec<Arc<Command>>>,
    calls: Mutex<Vec<String>>,
    connection: Mutex<Option<Connection>>,
}

impl State {
    /// Notes a call.
    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// The call that begins with `text`.
    #[track_caller]
    pub fn call(&self, text: &str) -> String {
        let calls = self.calls();
        calls
            .iter()
            .find(|call| call.starts_with(text))
            .unwrap_or_else(|| panic!("no {text} in {calls:?}"))
            .clone()
    }

    /// The names of the VMs.
    pub fn vms(&self) -> Vec<String> {
        self.vms.lock().unwrap().iter().map(|vm| vm.name.clone()).collect()
    }

    /// Ends what still runs.
    pub fn end_everything(&self) {
        for command in self.commands.lock().unwrap().iter() {
            command.kill();
        }
    }

    fn bits(&self) -> u64 {
        0xabcd_0000_0000_0000 + self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn connection(&self) -> Connection {
        self.connection.lock().unwrap().clone().expect("served")
    }

    /// Puts an image on the bus.
    async fn add_image(self: &Arc<Self>, name: &str, reference: &str) -> OwnedObjectPath {
        let info = ImageInfo {
            id: ImageId::from_bits(self.bits()),
            name: name.into(),
            owner_uid: Uid(1000),
            reference: reference.into(),
            digest: "sha256:00".into(),
            platform: "linux/amd64".into(),
            size: Bytes::gib(1),
            content: Bytes::mib(180),
            compressed: Bytes::mib(60),
            created: 1_700_000_000,
            layers: vec!["sha256:01".into(), "sha256:02".into()],
            names: vec![name.into()],
            source: "registry".into(),
            used: Bytes::mib(200),
            private: false,
            signature: String::new(),
            kernel: String::new(),
            entrypoint: vec![],
            command: vec!["/bin/sh".into()],
            environment: vec![],
            user: String::new(),
            working_directory: String::new(),
            unavailable: String::new(),
            used_by: vec![],
        };
        let path = info.id.path();
        let object = objects::Image { state: self.clone(), id: info.id };
        self.images.lock().unwrap().push(info);
        self.connection().object_server().at(&path, object).await.expect("exported");
        path
    }

    /// Begins a job.
    async fn begin(self: &Arc<Self>, kind: &str, subject: &str, script: Script) -> OwnedObjectPath {
        let id = JobId::from_bits(self.bits());
        let job = Arc::new(Job::new(self.clone(), id, kind, subject, script));
        self.jobs.lock().unwrap().insert(id, job.clone());
        self.connection().object_server().at(id.path(), job::JobObject(job)).await.expect("exported");
        id.path()
    }
}

/// The manager.
pub struct Fake(Arc<State>);

impl Fake {
    /// Serves the fake on a bus: with one image, `debian`, and the host's kernel.
    pub async fn serve(address: &str) -> zbus::Result<Arc<State>> {
        let state = Arc::new(State::default());
        let connection = zbus::connection::Builder::address(address)
            .serve_at(names::MANAGER_PATH, Fake(state.clone()))
            .build()
            .await?;
        *state.connection.lock().unwrap() = Some(connection.clone());
        state.add_image("debian", "127.0.0.1:5000/debian:12").await;
        state.kernels.lock().unwrap().push(KernelInfo {
            id: KernelId::from_bits(1),
            name: "host".into(),
            release: "6.1.0".into(),
            source: "host".into(),
            size: Bytes::mib(40),
            has_modules: true,
            has_initrd: false,
            default: true,
            used_by: vec!["box".into()],
        });
        connection.request_name(names::SERVICE).await?;
        Ok(state)
    }
}

fn not_found(what: &str, name: &str) -> Error {
    Error::NotFound(format!("there is no {what} {name:?}; see `banger {what} ls`"))
}

fn interactive(header: &Header<'_>) -> bool {
    header.primary().flags().contains(zbus::message::Flags::ALLOW_INTERACTIVE_AUTH)
}

/// A dictionary as text: values as they are, without their types.
fn shown(options: &Dict) -> String {
    let plain = |text: String| {
        text.strip_prefix("uint32 ").or(text.strip_prefix("uint64 ")).unwrap_or(&text).to_owned()
    };
    let entries: Vec<String> =
        options.iter().map(|(key, value)| format!("{key}={}", plain((**value).to_string()))).collect();
    entries.join(" ")
}

fn content(fd: Option<OwnedFd>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(fd) = fd {
        File::from(fd).read_to_end(&mut bytes).expect("readable");
    }
    bytes
}

#[zbus::interface(name = "org.banger.Manager")]
impl Fake {
    async fn pull_image(
        &self,
        #[zbus(header)] header: Header<'_>,
        reference: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath, Error> {
        self.0.note(format!("PullImage {reference} {} {}", shown(&options), interactive(&header)));
        let mut options = Options::new(options);
        let name = options.take("name")?.unwrap_or_else(|| "pulled".to_owned());
        let _: Option<Bytes> = options.take("size")?;
        let _: Option<String> = options.take("platform")?;
        let credentials = content(options.take("credentials")?);
        options.finish()?;
        self.0.note(format!("with credentials {}", String::from_utf8_lossy(&credentials)));
        if reference.contains(' ') {
            return Err(Error::InvalidReference(format!("{reference:?} is no reference\x1b[31m")));
        }
        let script = match reference {
            "slow" => Script::UntilCancelled,
            "stubborn" => Script::Never,
            "denied" => Script::Fail(Error::RegistryDenied("the registry refuses".into())),
            _ => {
                let image = self.0.add_image(&name, reference).await;
                Script::Succeed(DictWriter::new().with("image", image).done())
            }
        };
        Ok(self.0.begin("pull-image", reference, script).await)
    }

    async fn expand_reference(&self, reference: &str, _options: Dict) -> Result<String, Error> {
        if reference.contains(' ') {
            return Err(Error::InvalidReference(format!("{reference:?} is no reference\x1b[31m")));
        }
        Ok(match reference.contains(['.', ':']) {
            true => reference.to_owned(),
            false => format!("short.example/{reference}:latest"),
        })
    }

    async fn get_image(&self, name: &str, _options: Dict) -> Result<OwnedObjectPath, Error> {
        let images = self.0.images.lock().unwrap();
        let image = images.iter().find(|image| image.name == name || image.id.to_string() == name);
        image.map(|image| image.id.path()).ok_or_else(|| not_found("image", name))
    }

    async fn list_images(&self, _options: Dict) -> Vec<(OwnedObjectPath, Dict)> {
        self.0.images.lock().unwrap().iter().map(|i| (i.id.path(), i.clone().into_dict())).collect()
    }

    async fn prune_images(&self, options: Dict) -> Result<OwnedObjectPath, Error> {
        self.0.note(format!("PruneImages {}", shown(&options)));
        let result = DictWriter::new()
            .with("count", 3u32)
            .with("bytes", Bytes::gib(2))
            .with("images", vec!["old".to_owned(), "older".to_owned()]);
        Ok(self.0.begin("prune-images", "", Script::Succeed(result.done())).await)
    }

    async fn import_kernel(&self, name: &str, options: Dict) -> Result<OwnedObjectPath, Error> {
        let mut options = Options::new(options);
        let files = (options.take("kernel")?, options.take("initrd")?, options.take("modules")?);
        let packages: Vec<OwnedFd> = options.take_or_default("packages")?;
        options.finish()?;
        if !packages.is_empty() {
            let read = packages.into_iter().map(|package| content(Some(package)));
            let read: Vec<String> = read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
            self.0.note(format!("ImportKernel {name} {read:?}"));
            return Ok(self.0.begin("import-kernel", name, Script::Succeed(Dict::new())).await);
        }
        if name == "slow" {
            return Ok(self.0.begin("import-kernel", name, Script::UntilCancelled).await);
        }
        let read = tokio::task::spawn_blocking(|| (content(files.0), content(files.1), content(files.2)));
        let path = self.0.begin("import-kernel", name, Script::Succeed(Dict::new())).await;
        let (state, name) = (self.0.clone(), name.to_owned());
        // As the real one: the call returns, and the job reads.
        let reading = tokio::spawn(async move {
            let (kernel, initrd, modules) = read.await.expect("read");
            let mut archive = tar::Archive::new(modules.as_slice());
            let entries = archive.entries().expect("a tar");
            let entries: Vec<String> =
                entries.map(|e| e.expect("whole").path().expect("a path").display().to_string()).collect();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            state.note(format!("ImportKernel {name} {} {} {entries:?}", text(&kernel), text(&initrd)));
        });
        let job = self.0.jobs.lock().unwrap().values().last().cloned().expect("begun");
        job.after(reading);
        Ok(path)
    }

    async fn pull_kernel(&self, name: &str, options: Dict) -> OwnedObjectPath {
        self.0.note(format!("PullKernel {name} {}", shown(&options)));
        self.0.begin("pull-kernel", name, Script::Succeed(Dict::new())).await
    }

    async fn set_default_kernel(&self, name: &str, _options: Dict) {
        self.0.note(format!("SetDefaultKernel {name:?}"));
    }

    async fn list_catalogue(&self, _options: Dict) -> Vec<Dict> {
        let entry = |kind: &str, name: &str| {
            DictWriter::new().with("kind", kind.to_owned()).with("name", name.to_owned())
        };
        let broken = entry("problem", "/etc/x.json").with("description", "it is broken".to_owned());
        vec![
            entry("image", "base").with("kernel", "6.1-Cloud".to_owned()).with("size", Bytes::mib(30)).done(),
            entry("kernel", "6.1-Cloud").with("release", "6.1.0".to_owned()).done(),
            broken.done(),
        ]
    }

    async fn get_kernel(&self, name: &str, _options: Dict) -> Result<OwnedObjectPath, Error> {
        Err(not_found("kernel", name))
    }

    async fn list_kernels(&self, _options: Dict) -> Vec<(OwnedObjectPath, Dict)> {
        self.0.kernels.lock().unwrap().iter().map(|k| (k.id.path(), k.clone().into_dict())).collect()
    }

    #[zbus(name = "CreateVM")]
    async fn create_vm(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<(OwnedObjectPath, OwnedObjectPath), Error> {
        self.0.note(format!("CreateVM {name} {} {}", shown(&options), interactive(&header)));
        if self.0.vms().iter().any(|taken| taken == name) {
            return Err(Error::AlreadyExists(format!("there is a VM {name:?} already")));
        }
        let name = if name.is_empty() { "made-up" } else { name };
        let mut options = options;
        let image: String = banger_dbus::dict::require(&mut options, "image")?;
        let info = VmInfo {
            id: VmId::from_bits(self.0.bits()),
            name: name.into(),
            state: "running".into(),
            owner_uid: Uid(1000),
            image,
            image_id: String::new(),
            kernel: "host".into(),
            cpus: 1,
            memory: Bytes::mib(512),
            disk: Bytes::gib(1),
            disk_used: Bytes::mib(3),
            disk_backend: "copy".into(),
            volumes: Vec::new(),
            addresses: vec!["172.30.0.2".into()],
            network: "private".into(),
            nat: false,
            ports: Vec::new(),
            created: 1_700_000_000,
            remove: false,
            accel: Some("tcg".into()),
            vmm: Some("qemu".into()),
            pid: None,
            started: None,
            error: None,
            autostart: false,
            restart: "no".into(),
            idle_stop: 0,
            boot: Vec::new(),
            uptime: None,
            exit_code: None,
            exit_signal: None,
            listening: None,
        };
        let id = info.id;
        self.0.vms.lock().unwrap().push(info);
        let object = objects::Vm { state: self.0.clone(), id };
        self.0.connection().object_server().at(id.path(), object).await.expect("exported");
        let script = match name {
            "broken" => {
                Script::Fail(Error::VMMFailed("the guest did not come up:\n[    0.1] panic\x1b[2J".into()))
            }
            "slow" => Script::UntilCancelled,
            _ => Script::Succeed(DictWriter::new().with("vm", id.path()).done()),
        };
        Ok((id.path(), self.0.begin("create-vm", name, script).await))
    }

    #[zbus(name = "GetVM")]
    async fn get_vm(&self, name: &str, _options: Dict) -> Result<OwnedObjectPath, Error> {
        let vms = self.0.vms.lock().unwrap();
        vms.iter().find(|vm| vm.name == name).map(|vm| vm.id.path()).ok_or_else(|| not_found("vm", name))
    }

    #[zbus(name = "ListVMs")]
    async fn list_vms(&self, options: Dict) -> Vec<(OwnedObjectPath, Dict)> {
        let details = options.get("details") == Some(&true.into());
        let told = |vm: &VmInfo| {
            let mut dict = vm.clone().into_dict();
            dict.retain(|key, _| details || VmSummary::KEYS.contains(&key.as_str()));
            (vm.id.path(), dict)
        };
        self.0.vms.lock().unwrap().iter().map(told).collect()
    }

    async fn list_jobs(&self, _options: Dict) -> Vec<(OwnedObjectPath, Dict)> {
        let jobs = self.0.jobs.lock().unwrap();
        jobs.values().map(|job| (job.id.path(), JobInfo::into_dict(job.info()))).collect()
    }

    #[zbus(signal)]
    async fn job_progress(
        emitter: &zbus::object_server::SignalEmitter<'_>,
        job: OwnedObjectPath,
        phase: &str,
        done: u64,
        total: u64,
    ) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        "9.9.9"
    }
}
