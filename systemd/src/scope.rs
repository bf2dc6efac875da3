//! A unit of its own for each VM, by systemd's D-Bus interface (org.freedesktop.systemd1(5)): a scope, which is a group
//! of processes that somebody else has started. It has its own cgroup, so a VM's use is counted and bounded by itself,
//! and it goes with the VM's process and not with the service that started that.

use futures_util::StreamExt;
use std::time::Duration;
use zbus::{Connection, OwnedObjectPath, Variant, proxy::CacheProperties};

/// The slice of all VMs.
pub const SLICE: &str = "banger.slice";

/// Threads of a VMM: 64 processors, workers, and room; as many as its user may have.
const TASKS: u64 = 512;

/// What a VMM opens by itself, or has nodes of its own for (m), made before it gives up its privileges. All else is given to it
/// open, and its user may open nothing else anyway.
const DEVICES: [(&str, &str); 4] =
    [("/dev/kvm", "rwm"), ("/dev/net/tun", "rwm"), ("block-loop", "rwm"), ("block-device-mapper", "rwm")];

/// How long systemd may take; a unit of the same name that is just going is waited for meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// The part of the interface that makes units.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    /// Has it tell this connection about jobs.
    fn subscribe(&self) -> zbus::Result<()>;
    /// Makes a unit that goes when it ends; returns the job that starts it.
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        others: &[(&str, &[(&str, Variant<'_>)])],
    ) -> zbus::Result<OwnedObjectPath>;
    /// A job has ended.
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// A scope to be made.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Its unit's name, with `.scope`.
    pub name: String,
    /// What people read about it.
    pub description: String,
    /// The process that it begins with.
    pub pid: u32,
    /// Most memory, in bytes.
    pub memory: u64,
}

impl Scope {
    /// systemd.resource-control(5), systemd.scope(5). How memory that runs out is dealt with (`OOMPolicy=`) is of no
    /// interest for one process, and is refused by versions before 253.
    fn properties(&self) -> Vec<(&'static str, Variant<'static>)> {
        let devices: Vec<(String, String)> =
            DEVICES.iter().map(|(path, how)| ((*path).to_owned(), (*how).to_owned())).collect();
        vec![
            ("Description", self.description.clone().into()),
            ("Slice", SLICE.into()),
            ("PIDs", vec![self.pid].into()),
            ("CollectMode", "inactive-or-failed".into()),
            ("Delegate", false.into()),
            ("TasksMax", TASKS.into()),
            ("MemoryMax", self.memory.into()),
            ("MemoryAccounting", true.into()),
            ("CPUAccounting", true.into()),
            ("IOAccounting", true.into()),
            ("DevicePolicy", "closed".into()),
            ("DeviceAllow", devices.into()),
        ]
    }

    /// Makes it, and returns once the process is in it.
    ///
    /// # Errors
    /// What systemd or the bus says; the process stays where it is.
    pub async fn start(&self) -> zbus::Result<()> {
        let connection = Connection::system().await?;
        let systemd =
            ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await?;
        systemd.subscribe().await?;
        let mut ended = systemd.receive_job_removed().await?;
        let job = self.begin(&systemd).await?;
        while let Some(signal) = ended.next().await {
            let told = signal.args()?;
            if told.job == job {
                return match told.result.as_str() {
                    "done" => Ok(()),
                    other => Err(zbus::Error::Failure(format!("the job of {} is {other}", self.name))),
                };
            }
        }
        Err(zbus::Error::Failure("the bus went away".into()))
    }

    async fn begin(&self, systemd: &ManagerProxy<'_>) -> zbus::Result<OwnedObjectPath> {
        loop {
            match systemd.start_transient_unit(&self.name, "fail", &self.properties(), &[]).await {
                // That of the VM's last process: systemd has not heard of its end yet.
                Err(zbus::Error::MethodError(name, ..))
                    if name.as_str() == "org.freedesktop.systemd1.UnitExists" =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// [`Scope::start`] for who has no runtime, with a bound.
    ///
    /// # Errors
    /// As there, or that systemd took too long.
    pub fn start_and_wait(&self) -> zbus::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let late = |_| zbus::Error::Failure("systemd did not answer in time".into());
            tokio::time::timeout(PATIENCE, self.start()).await.map_err(late)?
        })
    }
}

/// Whether systemd runs this host (sd_booted(3)).
pub fn booted() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_is_told() {
        let scope = Scope {
            name: "banger-vm-0000000000000001.scope".into(),
            description: "VM".into(),
            pid: 7,
            memory: 1 << 30,
        };
        let signature = |value: &Variant<'_>| value.value_signature().to_string();
        let told: Vec<(&str, String)> =
            scope.properties().iter().map(|(name, value)| (*name, signature(value))).collect();
        let expected = [
            ("Description", "s"),
            ("Slice", "s"),
            ("PIDs", "au"),
            ("CollectMode", "s"),
            ("Delegate", "b"),
            ("TasksMax", "t"),
            ("MemoryMax", "t"),
            ("MemoryAccounting", "b"),
            ("CPUAccounting", "b"),
            ("IOAccounting", "b"),
            ("DevicePolicy", "s"),
            ("DeviceAllow", "a(ss)"),
        ];
        assert_eq!(told, expected.map(|(name, signature)| (name, signature.to_owned())));
    }
}
