//! Units for VMs, made by a systemd that runs the host this is on: `cargo test -p banger-systemd -- --ignored`, as root,
//! in a container or a VM that systemd has booted.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

use banger_systemd::scope::{SLICE, Scope, booted};
use std::process::{Child, Command};

/// A process that does nothing, ended with the test.
struct Idle(Child);

impl Idle {
    fn start() -> Idle {
        Idle(Command::new("/bin/sleep").arg("1000").spawn().unwrap())
    }

    fn cgroups(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/cgroup", self.0.id())).unwrap()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs systemd as the first process, and root"]
fn a_process_has_a_unit_of_its_own_again_and_again() {
    assert!(booted());
    for _ in 0..3 {
        let idle = Idle::start();
        let name = "banger-vm-00000000000000aa.scope".to_owned();
        let scope = Scope { name, description: "test".into(), pid: idle.0.id(), memory: 64 << 20 };
        // At once after the end of the one before, whose unit may be there still.
        scope.start_and_wait().unwrap();
        let path = format!("/{SLICE}/{}", scope.name);
        assert!(idle.cgroups().lines().any(|line| line.ends_with(&path)), "{}", idle.cgroups());
        let shown = Command::new("/usr/bin/systemctl")
            .args(["show", "--property=MemoryMax,TasksMax,Delegate,DevicePolicy", &scope.name])
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        for line in ["MemoryMax=67108864", "TasksMax=512", "Delegate=no", "DevicePolicy=closed"] {
            assert!(shown.lines().any(|other| other == line), "{line}: {shown}");
        }
    }
}
