//! What this host can do for VMs, looked at: a list of checks, each of which finds one thing and says what to do.
//!
//! "Could not be looked at" is never "well": it has a severity of its own.

mod host;
mod names;
mod network;
mod storage;

use crate::service::Service;
use banger_dbus::{Dict, DictWriter};
use std::{future::Future, pin::Pin, time::Duration};

/// So long may one check take; what takes longer is not known. On the tests' bus nobody ever answers.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It works.
    Ok,
    /// It works in another way than it could, or is not wanted.
    Note,
    /// Something does not work that not everybody needs.
    Warning,
    /// VMs do not run, or not for long.
    Error,
    /// It could not be looked at.
    Unknown,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Unknown => "unknown",
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, as a sentence without its full stop.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}

impl Finding {
    /// It works.
    pub fn ok(found: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, found: found.into(), remedy: String::new() }
    }

    /// Nothing to worry about.
    pub fn note(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Note, found: found.into(), remedy: remedy.into() }
    }

    /// It does not work for everybody.
    pub fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, found: found.into(), remedy: remedy.into() }
    }

    /// It does not work.
    pub fn error(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, found: found.into(), remedy: remedy.into() }
    }

    /// It could not be looked at.
    pub fn unknown(found: impl Into<String>) -> Self {
        Self { severity: Severity::Unknown, found: found.into(), remedy: String::new() }
    }
}

/// What a check comes to.
type Looking<'a> = Pin<Box<dyn Future<Output = Finding> + Send + 'a>>;

/// One thing to look at.
pub struct Check {
    /// Its name, which stays.
    pub id: &'static str,
    /// What it is about, for people.
    pub subject: &'static str,
    run: for<'a> fn(&'a Service) -> Looking<'a>,
}

/// Everything that is looked at, in the order in which it is shown: what others build on comes first.
pub const ALL: &[Check] = &[
    Check { id: "hostd", subject: "privileged helper", run: |s| Box::pin(host::helper(s)) },
    Check { id: "polkit", subject: "authorization", run: |s| Box::pin(host::polkit(s)) },
    Check { id: "kvm", subject: "hardware virtualization", run: |s| Box::pin(async { host::kvm(s) }) },
    Check { id: "vmm", subject: "virtual machine monitors", run: |_| Box::pin(async { host::monitors() }) },
    Check { id: "kernel", subject: "default kernel", run: |s| Box::pin(async { host::kernel(s) }) },
    Check { id: "state", subject: "state folder", run: |s| Box::pin(async { storage::state(s) }) },
    Check { id: "space", subject: "free space", run: |s| Box::pin(async { storage::space(s) }) },
    Check { id: "disks", subject: "disks of VMs", run: |s| Box::pin(async { storage::disks(s) }) },
    Check { id: "network", subject: "the VMs' network", run: |s| Box::pin(network::addresses(s)) },
    Check { id: "firewalls", subject: "other firewalls", run: |s| Box::pin(network::firewalls(s)) },
    Check { id: "forwarding", subject: "routing", run: |_| Box::pin(async { network::forwarding() }) },
    Check { id: "registries", subject: "registries", run: |s| Box::pin(async { host::registries(s) }) },
    Check { id: "dns", subject: "names of VMs", run: |s| Box::pin(names::server(s)) },
    Check { id: "resolver", subject: "this host's resolver", run: |s| Box::pin(names::resolver(s)) },
    Check { id: "guest-dns", subject: "guests' name servers", run: |_| Box::pin(async { names::guests() }) },
];

/// What travels: id, severity, subject, remedy, and details.
pub type Row = (String, String, String, String, Dict);

/// Looks at everything, at once; the order is that of [`ALL`].
pub async fn all(service: &Service) -> Vec<Row> {
    let looking = ALL.iter().map(|check| async move {
        let finding = tokio::time::timeout(PATIENCE, (check.run)(service)).await.unwrap_or_else(|_| {
            Finding::unknown(format!("it took longer than {} s to find out", PATIENCE.as_secs()))
        });
        let details = DictWriter::new().with("found", finding.found).done();
        (check.id.into(), finding.severity.as_str().into(), check.subject.into(), finding.remedy, details)
    });
    futures_util::future::join_all(looking).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bench;
    use banger_host::{Refusal, Verb};
    use std::collections::HashSet;

    #[tokio::test]
    async fn all_is_looked_at_in_order_and_ids_are_names() {
        let bench = bench().await;
        let rows = all(&bench.service).await;
        let ids: Vec<_> = rows.iter().map(|row| row.0.as_str()).collect();
        assert_eq!(ids, ALL.iter().map(|check| check.id).collect::<Vec<_>>());
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        for (id, severity, subject, remedy, details) in &rows {
            assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{id}");
            assert!(!subject.is_empty() && details.contains_key("found"), "{id}");
            assert!(severity != "error" || !remedy.is_empty(), "{id}: an error without a remedy");
        }
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_an_error_and_what_it_would_know_is_unknown() {
        let bench = bench().await;
        bench.host.fail_next(Verb::Hello, Refusal::HostNotReady, "gone");
        bench.host.fail_next(Verb::ShowDns, Refusal::HostNotReady, "gone");
        let rows = all(&bench.service).await;
        let severity = |id: &str| rows.iter().find(|row| row.0 == id).map(|row| row.1.clone());
        assert_eq!(severity("hostd").as_deref(), Some("error"));
        assert_eq!(severity("resolver").as_deref(), Some("unknown"));
    }
}
