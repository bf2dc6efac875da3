//! Readiness, status and watchdog: sd_notify(3).

use sd_notify::{NotifyState, notify, watchdog_enabled};
use std::time::Duration;

/// Tells systemd how the service does. Without systemd, it tells nobody.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The one that the environment describes (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub fn from_env() -> Self {
        Self { watchdog: watchdog_enabled() }
    }

    /// The service has started, and does `status`.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// The service does `status`, which `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(&one_line(status))]);
    }

    /// The service is going down.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// How often [`Self::watchdog`] is to be called, half of the time after which systemd restarts the service;
    /// `None` when systemd does not watch.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// The service is alive. To be called from the loop that does the work, so that it stops with it.
    pub fn watchdog(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Systemd that does not listen is no reason for the service to fail.
    fn tell(&self, state: &[NotifyState<'_>]) {
        if let Err(error) = notify(state) {
            tracing::warn!(%error, "cannot notify systemd");
        }
    }
}

/// A status is one line; a second one would be another assignment.
fn one_line(status: &str) -> String {
    status.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::net::UnixDatagram,
        process::{Command, Stdio},
    };

    const PLAYED: &str = "notify::tests::the_service";

    /// What the test below runs in a process with an environment of its own.
    #[test]
    fn the_service() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return;
        }
        let notifier = Notifier::from_env();
        notifier.ready("listening");
        notifier.status("two jobs\nREADY=0");
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(5)));
        notifier.watchdog();
        notifier.stopping();
    }

    #[test]
    fn systemd_hears_each_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", PLAYED])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "10000000")
            .env_remove("WATCHDOG_PID")
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        listener.set_nonblocking(true).unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(length) = listener.recv(&mut buffer) {
            heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        let expected =
            ["READY=1\nSTATUS=listening\n", "STATUS=two jobs READY=0\n", "WATCHDOG=1\n", "STOPPING=1\n"];
        assert_eq!(heard, expected);
    }
}
