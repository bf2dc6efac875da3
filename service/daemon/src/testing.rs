//! A service for tests: a real database, folders and objects, with a pretended host behind it and nobody on the
//! other end of its bus.

use crate::{
    config::{AccelChoice, BackendChoice, Config, Timeouts},
    disk::Backends,
    gate::Gate,
    ids,
    jobs::{Job, Jobs, NewJob},
    kernels::{self, Kernels, VMLINUZ},
    machines::Machines,
    service::Service,
    store::{ImageRow, KernelRow, Store, VmRow, VmSpec},
    turns::Turns,
};
use banger_dbus::Dict;
use banger_host::FakeHost;
use banger_image::{Puller, RunConfig};
use banger_model::{
    Bytes, Cpus, DiskBackend, ImageId, ImageSource, JobKind, KernelId, Limits, MachineSize, Restart, Slot,
    Uid, VmId, VmState,
};
use banger_polkit::ScriptedAuthority;
use std::{path::Path, sync::Arc};
use zbus::{Connection, connection::Builder};

/// Size of the image and of its VMs' disks.
pub const SIZE: Bytes = Bytes::mib(4);

/// A service, and what is behind it.
pub struct Bench {
    /// The service.
    pub service: Arc<Service>,
    /// The pretended host.
    pub host: Arc<FakeHost>,
    /// Its one image.
    pub image: ImageId,
    folder: tempfile::TempDir,
    _other_end: Connection,
}

/// Makes a service that has one image, `base`, and one kernel, `mine`, and runs guests by emulation.
pub async fn bench() -> Bench {
    bench_on(AccelChoice::Tcg).await
}

/// The same, with this choice of what runs guests. A guest has a second to answer.
pub async fn bench_on(accel: AccelChoice) -> Bench {
    // In memory where that can be: the matrix makes hundreds of them, and each waits for its disk several times.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let host = Arc::new(FakeHost::new());
    let (bus, other_end) = pair().await;
    let service = service(folder.path(), bus, host.clone(), accel).await;
    let image = add_image(&service);
    add_kernel(&service);
    Bench { service, host, image, folder, _other_end: other_end }
}

impl Bench {
    /// Another life of the service over the same folders and the same host, on the runtime that asks for it; and what
    /// keeps its bus open.
    pub async fn another_life(folder: &Path, host: &Arc<FakeHost>) -> (Arc<Service>, Connection) {
        let (bus, other_end) = pair().await;
        (service(folder, bus, host.clone(), AccelChoice::Tcg).await, other_end)
    }

    /// Where everything is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

async fn pair() -> (Connection, Connection) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let server = Builder::unix_stream(ours).server(zbus::Guid::generate()).p2p().build();
    let client = Builder::unix_stream(theirs).p2p().build();
    tokio::try_join!(server, client).unwrap()
}

async fn service(folder: &Path, bus: Connection, host: Arc<FakeHost>, accel: AccelChoice) -> Arc<Service> {
    let config = Config {
        state: folder.join("state"),
        run: folder.join("run"),
        boot: folder.join("boot"),
        modules: folder.join("modules"),
        guest: folder.join("guest"),
        catalogue: folder.join("catalog.d"),
        kernel_catalogue: folder.join("kernels.d"),
        accel,
        timeouts: Timeouts { boot: 1, ..Timeouts::default() },
        ..Config::default()
    };
    for folder in ["images", "kernels", "vms", "volumes"] {
        std::fs::create_dir_all(config.state.join(folder)).unwrap();
    }
    std::fs::write(&config.guest, b"\x7fELF, as far as an initramfs cares").unwrap();
    let gate = Gate::new(&bus, Arc::new(ScriptedAuthority::allowing_all())).await.unwrap();
    Arc::new(Service {
        store: Store::open(&config.state.join("banger.db")).unwrap(),
        jobs: Jobs::new(bus.clone(), gate.clone()),
        gate,
        machines: Machines::default(),
        host,
        puller: Puller::new(config.state.join("blobs"), config.limits.0).unwrap(),
        kernels: Kernels::default(),
        backends: Backends::new(Some("pretended".into()), Some("pretended".into()), BackendChoice::Auto),
        limits: Limits::of_host(4, Bytes::gib(4)),
        bus,
        registered: crate::registered::Registered::default(),
        making_volume: tokio::sync::Mutex::default(),
        making: Turns::default(),
        subnet: std::sync::OnceLock::new(),
        names: crate::names::Names::default(),
        publication: tokio::sync::Mutex::default(),
        config,
    })
}

fn add_image(service: &Service) -> ImageId {
    let id = ImageId::from_bits(ids::random().unwrap());
    let rootfs = service.rootfs(id);
    std::fs::create_dir_all(rootfs.parent().unwrap()).unwrap();
    std::fs::File::create(&rootfs).unwrap().set_len(SIZE.0).unwrap();
    let row = ImageRow {
        id,
        names: vec!["base".parse().unwrap()],
        source: ImageSource::Registry,
        reference: "localhost/base:latest".into(),
        digest: "sha256:0".into(),
        platform: "linux/amd64".into(),
        size: SIZE,
        content: SIZE,
        compressed: SIZE,
        layers: Vec::new(),
        config: RunConfig::default(),
        owner: Uid(1000),
        private: false,
        signature: String::new(),
        kernel: String::new(),
        created: 0,
    };
    service.store.add_image(&row, None).unwrap();
    id
}

fn add_kernel(service: &Service) {
    let id = KernelId::from_bits(ids::random().unwrap());
    let folder = kernels::folder(service, id);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(VMLINUZ), "a kernel").unwrap();
    let row = KernelRow {
        id,
        name: "mine".parse().unwrap(),
        release: String::new(),
        size: Bytes(8),
        has_modules: false,
        has_initrd: false,
        owner: Uid(1000),
        created: 0,
    };
    service.store.add_kernel(&row).unwrap();
}

impl Bench {
    /// What a VM is asked to be.
    pub fn spec(&self) -> VmSpec {
        VmSpec {
            size: MachineSize { cpus: Cpus(1), memory: Bytes::mib(128), disk: SIZE },
            remove: false,
            main: true,
            command: Vec::new(),
            environment: Vec::new(),
            user: String::new(),
            working_directory: String::new(),
            vmm: crate::config::VmmChoice::Auto,
            limits: banger_host::IoLimits::default(),
            ends_with_main: false,
            autostart: false,
            restart: Restart::No,
            idle_stop: 0,
            network: banger_model::NetworkRules::default(),
            disk_backend: DiskBackend::Copy,
            volumes: Vec::new(),
        }
    }

    /// A VM with a disk, written down in this state.
    pub fn add_vm(&self, name: &str, state: VmState) -> VmId {
        let service = &self.service;
        let id = VmId::from_bits(ids::random().unwrap());
        let slot: Slot = service.store.free_slot().unwrap().unwrap();
        let vm = VmRow {
            id,
            name: name.parse().unwrap(),
            owner: Uid(1000),
            image: self.image,
            kernel: "mine".into(),
            spec: self.spec(),
            slot,
            state,
            error: String::new(),
            accel: None,
            created: 0,
            started: 0,
            has_disk: false,
            boot: Vec::new(),
            exit: None,
            wanted: false,
        };
        service.store.add_vm(&vm).unwrap();
        service.store.set_vm_has_disk(id).unwrap();
        std::fs::create_dir_all(service.vm_folder(id)).unwrap();
        std::fs::File::create(service.vm_folder(id).join("disk.img")).unwrap().set_len(SIZE.0).unwrap();
        id
    }

    /// A job that does nothing, for operations that report to one.
    pub async fn job(&self) -> Arc<Job> {
        job(&self.service).await
    }
}

/// A job that does nothing, for operations that report to one.
pub async fn job(service: &Service) -> Arc<Job> {
    let new = NewJob { kind: JobKind::StartVm, subject: "vm".into(), owner: Uid(1000), cancellable: true };
    service.jobs.start(new, |_| async { Ok(Dict::new()) }).await.unwrap()
}
