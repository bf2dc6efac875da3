//! What QMP does with a whole machine: its state out and in, its balloon, its network's plug.
//!
//! <https://www.qemu.org/docs/master/devel/migration/main.html>

use crate::qemu::{BALLOON, CARD};
use crate::{GuestMemory, Qmp, QmpError};
use banger_model::Bytes;
use serde_json::{Value, json};
use std::os::fd::BorrowedFd;

/// The name under which QEMU keeps the descriptor of a state.
const NAME: &str = "state";

/// Bytes in a second: no bound. QEMU's own is one for a network that others use too.
const BANDWIDTH: u64 = 1 << 40;

/// Seconds between two reports of the guest's balloon.
const BALLOON_INTERVAL: u64 = 1;

impl Qmp {
    /// Writes the state of a paused machine, its memory first of all, into a pipe or socket. The machine stays as it is, and
    /// can go on.
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn save(&mut self, to: BorrowedFd<'_>) -> Result<(), QmpError> {
        self.tell_of_migration().await?;
        self.execute_with("migrate-set-parameters", json!({"max-bandwidth": BANDWIDTH}), None).await?;
        self.execute_with("getfd", json!({"fdname": NAME}), Some(to)).await?;
        self.execute_with("migrate", json!({"uri": format!("fd:{NAME}")}), None).await?;
        self.migrated("migrate").await
    }

    /// Reads the state of a machine that was started to wait for one. It is paused then.
    ///
    /// # Errors
    /// Any of [`QmpError`]; after one, QEMU ends.
    pub async fn load(&mut self, from: BorrowedFd<'_>) -> Result<(), QmpError> {
        self.tell_of_migration().await?;
        self.execute_with("getfd", json!({"fdname": NAME}), Some(from)).await?;
        self.execute_with("migrate-incoming", json!({"uri": format!("fd:{NAME}")}), None).await?;
        self.migrated("migrate-incoming").await
    }

    /// Plugs the network in, or pulls it.
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn plug_network(&mut self, up: bool) -> Result<(), QmpError> {
        self.execute_with("set_link", json!({"name": CARD, "up": up}), None).await.map(drop)
    }

    /// What the guest's balloon tells of its memory; empty until it has. Asking makes it tell from then on.
    ///
    /// # Errors
    /// Any of [`QmpError`].
    pub async fn guest_memory(&mut self) -> Result<GuestMemory, QmpError> {
        let path = format!("/machine/peripheral/{BALLOON}");
        let property = |name: &str| json!({"path": path, "property": name});
        let interval = "guest-stats-polling-interval";
        let asked = self.execute_with("qom-get", property(interval), None).await?;
        if asked.as_u64() != Some(BALLOON_INTERVAL) {
            let mut set = property(interval);
            set["value"] = BALLOON_INTERVAL.into();
            self.execute_with("qom-set", set, None).await?;
        }
        Ok(told(&self.execute_with("qom-get", property("guest-stats"), None).await?))
    }

    async fn tell_of_migration(&mut self) -> Result<(), QmpError> {
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        self.execute_with("migrate-set-capabilities", events, None).await.map(drop)
    }

    async fn migrated(&mut self, command: &'static str) -> Result<(), QmpError> {
        loop {
            let event = self.event().await?;
            if event.name != "MIGRATION" {
                continue;
            }
            match event.data.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some(status @ ("failed" | "cancelled")) => {
                    let query = self.execute("query-migrate").await?;
                    let why = query.get("error-desc").and_then(Value::as_str).unwrap_or(status);
                    let reason = why.chars().filter(|c| !c.is_control()).take(512).collect();
                    return Err(QmpError::Refused { command, reason });
                }
                _ => {}
            }
        }
    }
}

/// A number of the guest's: what it does not tell is all ones.
fn told(answer: &Value) -> GuestMemory {
    let stats = answer.get("stats");
    let number = |name: &str| {
        let number = stats?.get(name)?.as_u64()?;
        (number < u64::MAX).then_some(Bytes(number))
    };
    GuestMemory {
        total: number("stat-total-memory"),
        free: number("stat-free-memory"),
        available: number("stat-available-memory"),
        caches: number("stat-disk-caches"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_does_not_tell_is_nothing() {
        let stats = json!({"last-update": 7, "stats": {
            "stat-total-memory": 512, "stat-free-memory": u64::MAX, "stat-available-memory": "x",
        }});
        let expected = GuestMemory { total: Some(Bytes(512)), ..GuestMemory::default() };
        assert_eq!(told(&stats), expected);
        assert_eq!(told(&Value::Null), GuestMemory::default());
    }
}
