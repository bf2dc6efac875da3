//! A Firecracker that is a script: the rules of the real API, and nothing behind them.
//!
//! Paths, methods, required and optional fields are those of its description (`firecracker.yaml`); what may come before and
//! after the start, and the sentences of its refusals, those of its source (`rpc_interface.rs`, `parsed_request.rs`).

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Where a VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    NotStarted,
    Running,
    Paused,
}

/// What has been asked of it, and what it makes of the next request.
#[derive(Debug)]
pub struct Script {
    pub phase: Phase,
    pub version: &'static str,
    /// The number of the request that fails whatever it is, counted from 0.
    pub failing: Option<usize>,
    /// Every request that was accepted, `PUT /vsock` for one.
    pub accepted: Vec<String>,
    asked: usize,
    resources: BTreeSet<&'static str>,
}

/// Status and body.
pub type Answer = (u16, Option<Value>);

/// Path, required fields, optional fields.
type Form = (&'static str, &'static [&'static str], &'static [&'static str]);

const BEFORE: &[Form] = &[
    ("/logger", &[], &["log_path", "level", "show_level", "show_log_origin", "module"]),
    ("/metrics", &["metrics_path"], &["emit_id", "properties"]),
    ("/serial", &[], &["serial_out_path", "rate_limiter"]),
    (
        "/machine-config",
        &["vcpu_count", "mem_size_mib"],
        &["smt", "track_dirty_pages", "cpu_template", "huge_pages"],
    ),
    ("/boot-source", &["kernel_image_path"], &["initrd_path", "boot_args"]),
    (
        "/drives/",
        &["drive_id", "is_root_device"],
        &["path_on_host", "is_read_only", "cache_type", "rate_limiter", "io_engine", "partuuid", "socket"],
    ),
    (
        "/network-interfaces/",
        &["iface_id", "host_dev_name"],
        &["guest_mac", "mtu", "rx_rate_limiter", "tx_rate_limiter"],
    ),
    ("/vsock", &["guest_cid", "uds_path"], &["vsock_id"]),
    ("/entropy", &[], &["rate_limiter"]),
    (
        "/balloon",
        &["amount_mib", "deflate_on_oom"],
        &["stats_polling_interval_s", "free_page_hinting", "free_page_reporting"],
    ),
    (
        "/snapshot/load",
        &["snapshot_path"],
        &[
            "mem_backend",
            "mem_file_path",
            "enable_diff_snapshots",
            "track_dirty_pages",
            "resume_vm",
            "network_overrides",
            "vsock_override",
            "clock_realtime",
            "huge_pages",
        ],
    ),
];

const AFTER: &[Form] = &[
    ("/vm", &["state"], &[]),
    ("/snapshot/create", &["snapshot_path", "mem_file_path"], &["snapshot_type"]),
];

const LATE: &str = "The requested operation is not supported after starting the microVM.";
const EARLY: &str = "The requested operation is not supported before starting the microVM.";

fn fault(message: impl Into<String>) -> Answer {
    (400, Some(json!({"fault_message": message.into()})))
}

fn fields(form: &Form, body: &Map<String, Value>) -> Result<(), Answer> {
    let json = |what: String| {
        fault(format!("An error occurred when deserializing the json body of a request: {what}."))
    };
    if let Some(missing) = form.1.iter().find(|field| !body.contains_key(**field)) {
        return Err(json(format!("missing field `{missing}`")));
    }
    match body.keys().find(|key| !form.1.contains(&key.as_str()) && !form.2.contains(&key.as_str())) {
        Some(unknown) => Err(json(format!("unknown field `{unknown}`"))),
        None => Ok(()),
    }
}

impl Script {
    pub fn new(version: &'static str) -> Self {
        let (accepted, resources) = (Vec::new(), BTreeSet::new());
        Self { phase: Phase::NotStarted, version, failing: None, accepted, asked: 0, resources }
    }

    pub fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        let number = self.asked;
        self.asked += 1;
        if self.failing == Some(number) {
            return fault("Internal VMM error: it was told to fail");
        }
        let answer = self.judge(method, path, body).unwrap_or_else(|refusal| refusal);
        if answer.0 < 300 {
            self.accepted.push(format!("{method} {path}"));
        }
        answer
    }

    fn judge(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer, Answer> {
        let unknown = || fault(format!("Invalid request method and/or path: {method} {path}."));
        if method == "GET" {
            return match path {
                "/version" => Ok((200, Some(json!({"firecracker_version": self.version})))),
                "/" => Ok((200, Some(self.info()))),
                "/balloon/statistics" if self.phase == Phase::NotStarted => Err(fault(EARLY)),
                "/balloon/statistics" if !self.resources.contains("/balloon") => {
                    Err(fault("Balloon config error: No balloon device found."))
                }
                "/balloon/statistics" => Ok((200, Some(statistics()))),
                _ => Err(unknown()),
            };
        }
        let body: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
            fault(format!("An error occurred when deserializing the json body of a request: {error}."))
        })?;
        if (method, path) == ("PUT", "/actions") {
            fields(&("/actions", &["action_type"], &[]), &body)?;
            return self.act(body["action_type"].as_str().unwrap_or_default());
        }
        let form = |forms: &'static [Form]| {
            forms.iter().find(|form| form.0 == path || (form.0.ends_with('/') && path.starts_with(form.0)))
        };
        if let Some(form) = form(AFTER) {
            let wanted = if path == "/vm" { "PATCH" } else { "PUT" };
            return if method == wanted { self.after(form, &body) } else { Err(unknown()) };
        }
        match form(BEFORE) {
            Some(form) if method == "PUT" => self.before(form, path, &body),
            _ => Err(unknown()),
        }
    }

    fn before(&mut self, form: &Form, path: &str, body: &Map<String, Value>) -> Result<Answer, Answer> {
        fields(form, body)?;
        if let Some(id) = path.strip_prefix(form.0).filter(|_| form.0.ends_with('/')) {
            let named = body.get(form.1[0]).and_then(Value::as_str).unwrap_or_default();
            if named != id {
                return Err(fault("The id from the path does not match the id from the body!"));
            }
            if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(fault(
                    "API Resource IDs can only contain alphanumeric characters and underscores.",
                ));
            }
        }
        if self.phase != Phase::NotStarted {
            return Err(fault(LATE));
        }
        match form.0 {
            "/balloon" if body.contains_key("free_page_reporting") && self.version < "1.14" => {
                return Err(fault(
                    "An error occurred when deserializing the json body of a request: unknown field.",
                ));
            }
            "/snapshot/load" => {
                if body.contains_key("mem_backend") == body.contains_key("mem_file_path") {
                    return Err(fault("either `mem_backend` or `mem_file_path` is required"));
                }
                if self.resources.iter().any(|have| !matches!(*have, "/logger" | "/metrics")) {
                    return Err(fault(
                        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific \
                         resources.",
                    ));
                }
                let resume = body.get("resume_vm").and_then(Value::as_bool).unwrap_or(false);
                self.phase = if resume { Phase::Running } else { Phase::Paused };
                self.resources.insert("/balloon");
            }
            _ => {}
        }
        self.resources.insert(form.0);
        Ok((204, None))
    }

    fn after(&mut self, form: &Form, body: &Map<String, Value>) -> Result<Answer, Answer> {
        fields(form, body)?;
        if self.phase == Phase::NotStarted {
            return Err(fault(EARLY));
        }
        match (form.0, body.get("state").and_then(Value::as_str)) {
            ("/vm", Some("Paused")) => self.phase = Phase::Paused,
            ("/vm", Some("Resumed")) => self.phase = Phase::Running,
            ("/snapshot/create", _) if self.phase == Phase::Paused => {}
            ("/snapshot/create", _) => {
                return Err(fault("Create snapshot error: Cannot save the microVM state: it is not paused"));
            }
            _ => {
                return Err(fault(
                    "An error occurred when deserializing the json body of a request: unknown variant.",
                ));
            }
        }
        Ok((204, None))
    }

    fn act(&mut self, action: &str) -> Result<Answer, Answer> {
        match (action, self.phase) {
            ("InstanceStart", Phase::NotStarted) if !self.resources.contains("/boot-source") => {
                Err(fault("Start microvm error: Cannot start microvm without kernel configuration."))
            }
            ("InstanceStart", Phase::NotStarted) => {
                self.phase = Phase::Running;
                Ok((204, None))
            }
            ("InstanceStart", _) => Err(fault(LATE)),
            ("SendCtrlAltDel" | "FlushMetrics", Phase::NotStarted) => Err(fault(EARLY)),
            ("SendCtrlAltDel" | "FlushMetrics", _) => Ok((204, None)),
            _ => Err(fault(
                "An error occurred when deserializing the json body of a request: unknown variant.",
            )),
        }
    }

    fn info(&self) -> Value {
        let state = match self.phase {
            Phase::NotStarted => "Not started",
            Phase::Running => "Running",
            Phase::Paused => "Paused",
        };
        json!({"id": "anonymous-instance", "state": state, "vmm_version": self.version, "app_name": "Firecracker"})
    }
}

fn statistics() -> Value {
    json!({
        "target_pages": 0, "actual_pages": 0, "target_mib": 0, "actual_mib": 0, "free_memory": 1_048_576,
        "total_memory": 2_097_152, "available_memory": 1_500_000, "disk_caches": 4096, "major_faults": 3,
    })
}
