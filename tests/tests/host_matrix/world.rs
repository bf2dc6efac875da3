//! The service as root sees it on the bus, what is killed, and what must be true afterwards.

use banger_dbus::{DictWriter, ManagerProxy, VMProxy, VmInfo};
use banger_harness::{
    images::Tree,
    inside::{self, assert_no_residue, banger, eventually, kill_9},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::{collections::BTreeMap, fs, sync::OnceLock, time::Duration};
use zbus::{Connection, proxy::CacheProperties};

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Service,
    Helper,
    Vmm,
    All,
}

impl Victim {
    /// Kills it; returns when it is gone.
    pub fn kill(self) {
        if matches!(self, Victim::Service | Victim::All) {
            kill_9("bangerd");
        }
        if matches!(self, Victim::Helper | Victim::All) {
            kill_9("banger-hostd");
        }
        if matches!(self, Victim::Vmm | Victim::All) {
            let pids = inside::vm_pids();
            for pid in &pids {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            eventually("the VMs' processes are gone", || {
                inside::vm_pids().iter().all(|pid| !pids.contains(pid))
            });
        }
    }

    /// Whether the service itself is among them, and so starts again.
    pub fn has_service(self) -> bool {
        matches!(self, Victim::Service | Victim::All)
    }
}

/// The name of a small image with a shell.
pub fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
        let mut tree = Tree::default().dir("bin/").dir("proc/").dir("sys/").dir("dev/").dir("tmp/");
        tree = tree.file("bin/busybox", 0o755, &busybox);
        for applet in ["sh", "true", "sync"] {
            tree = tree.symlink(&format!("bin/{applet}"), "busybox");
        }
        let config = json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]});
        let (reference, _) = inside::publish("matrix:1", &[tree.finish().unwrap()], &config).unwrap();
        banger("root", &["image", "pull", &reference]).expect(0);
        "matrix-1".to_owned()
    })
}

/// The service.
pub struct World {
    bus: Connection,
}

impl World {
    pub async fn new() -> World {
        World { bus: Connection::system().await.unwrap() }
    }

    async fn manager(&self) -> ManagerProxy<'_> {
        // A service that was started again has other values; nobody tells us.
        ManagerProxy::builder(&self.bus).cache_properties(CacheProperties::No).build().await.unwrap()
    }

    /// The VM's object.
    pub async fn vm(&self, id: &str) -> VMProxy<'_> {
        let path = zbus::OwnedObjectPath::try_from(format!("/org/banger/VM/{id}")).unwrap();
        let builder = VMProxy::builder(&self.bus).path(path);
        builder.cache_properties(CacheProperties::No).build().await.unwrap()
    }

    /// Waits for a job, which may fail or be lost.
    pub async fn end_of(&self, job: zbus::OwnedObjectPath) -> zbus::Result<banger_dbus::Dict> {
        let job = banger_dbus::JobProxy::builder(&self.bus).path(job);
        job.cache_properties(CacheProperties::No).build().await?.wait(&Default::default()).await
    }

    /// Cancels a job.
    pub async fn cancel(&self, job: zbus::OwnedObjectPath) {
        let job = banger_dbus::JobProxy::builder(&self.bus).path(job);
        let job = job.cache_properties(CacheProperties::No).build().await.unwrap();
        job.cancel(&Default::default()).await.unwrap();
    }

    /// Makes a VM that does not run: its id.
    pub async fn create(&self, name: &str) -> String {
        let spec = DictWriter::new()
            .with("image", image().to_owned())
            .with("memory", 128u64 << 20)
            .with("start", false)
            .done();
        let (vm, job) = self.manager().await.create_vm(name, &spec).await.unwrap();
        self.end_of(job).await.unwrap();
        vm.as_str().rsplit('/').next().unwrap().to_owned()
    }

    /// Every VM by its name; `None` while the service cannot be asked.
    pub async fn list(&self) -> Option<BTreeMap<String, VmInfo>> {
        let listed =
            self.manager().await.list_vms(&DictWriter::new().with("details", true).done()).await.ok()?;
        let described = listed.into_iter().map(|(_, dict)| VmInfo::from_dict(dict).unwrap());
        Some(described.map(|vm| (vm.name.clone(), vm)).collect())
    }

    /// Starts each and waits for all.
    pub async fn start_all(&self, ids: &[String]) {
        let mut jobs = Vec::new();
        for id in ids {
            jobs.push(self.vm(id).await.start(&Default::default()).await.unwrap());
        }
        for job in jobs {
            self.end_of(job).await.unwrap();
        }
    }

    /// Waits until no VM is on its way from one state to another.
    pub async fn settled(&self) -> BTreeMap<String, VmInfo> {
        for _ in 0..6_000 {
            let on_its_way = |vm: &VmInfo| matches!(vm.state.as_str(), "starting" | "stopping" | "deleting");
            match self.list().await {
                Some(vms) if !vms.values().any(on_its_way) => return vms,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        panic!("VMs are on their way for two minutes: {:#?}\n{}", self.list().await, inside::service_log());
    }

    /// Asserts that what is listed as running runs and answers, and that nothing else has a process.
    pub fn assert_truthful(&self, vms: &BTreeMap<String, VmInfo>) {
        let running: Vec<&VmInfo> = vms.values().filter(|vm| vm.state == "running").collect();
        for vm in &running {
            banger("root", &["exec", &vm.name, "--", "true"]).expect(0);
        }
        eventually("only what is listed as running has a process", || {
            inside::vm_pids().len() == running.len()
        });
    }

    /// Deletes every VM, and asserts that nothing at all is left.
    pub async fn delete_all(&self) {
        let vms = self.list().await.unwrap();
        let force = DictWriter::new().with("force", true).done();
        let mut jobs = Vec::new();
        for vm in vms.values() {
            jobs.push(self.vm(&vm.id.to_string()).await.delete(&force).await.unwrap());
        }
        for job in jobs {
            self.end_of(job).await.unwrap();
        }
        assert_eq!(self.list().await.unwrap().len(), 0);
        assert!(inside::vm_pids().is_empty());
        assert_no_residue();
    }
}

/// The steps that the journal holds, over all VMs: with none running, there must be none.
pub fn journalled() -> Vec<String> {
    let path = inside::state().join("banger/banger.db");
    let database = rusqlite::Connection::open(path).unwrap();
    let mut rows = database.prepare("SELECT vm || ' ' || step FROM steps").unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}
