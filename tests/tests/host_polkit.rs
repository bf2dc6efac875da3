//! The real polkitd with our policy: who is allowed what, and how each refusal is told.
//!
//! Runs as root on a private host, which has the policy and the users, on buses of its own. Alice counts as
//! sitting at the machine (the host's rule says so), bob as being somewhere else.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

use banger_harness::{bus, inside};
use banger_model::Uid;
use banger_polkit::{ActionId, Authority, Caller, Check, Details, PolkitAuthority, Refusal};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    process::{Child, Command, Stdio},
};
use zbus::{Connection, fdo, message::Header, proxy::CacheProperties};

const NAME: &str = "org.banger.Test.Polkit";
const BUSCTL: &str = "/usr/bin/busctl";
/// polkit's own activation file, which tells where its daemon is.
const POLKIT_SERVICE: &str = "/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service";
const POLKIT: &str = "org.freedesktop.PolicyKit1";

/// Everybody may call the test's service, and polkit, and be them: polkitd runs as a user of its own.
const POLICY: &str = r#"<busconfig>
  <policy context="default">
    <allow own="org.banger.Test.Polkit"/>
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.banger.Test.Polkit"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
  </policy>
</busconfig>"#;

/// An administrator's rule: nobody publishes ports, and bob may pull.
const RULE: &str = r#"polkit.addRule(function(action, subject) {
    if (action.id == "org.banger.manager.network-publish") { return polkit.Result.NO; }
    if (action.id == "org.banger.manager.image-pull" && subject.user == "bob") { return polkit.Result.YES; }
});
"#;
const RULES: &str = "/etc/polkit-1/rules.d/05-test.rules";

/// The rule, there as long as this is: polkitd reads it when it starts, and again when it changes.
struct Rule;

impl Rule {
    fn add() -> Rule {
        fs::write(RULES, RULE).unwrap();
        // The folder may be closed to all but polkitd, who owns it.
        let owner = fs::metadata("/etc/polkit-1/rules.d").unwrap().uid();
        chown(RULES, Some(owner), None).unwrap();
        Rule
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        let _ = fs::remove_file(RULES);
    }
}

/// A bus of the system kind.
struct Bus {
    daemon: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Bus {
    /// A bus that starts polkitd when it is needed, or has none.
    fn start(polkit: bool) -> Bus {
        let folder = tempfile::tempdir().unwrap();
        // Other users connect too.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = |name: &str| folder.path().join(name);
        let listen = format!("unix:path={}", file("bus").display());
        fs::write(file("policy.conf"), POLICY).unwrap();
        fs::create_dir(file("services")).unwrap();
        if polkit {
            fs::copy(POLKIT_SERVICE, file("services").join("polkit.service")).expect("polkitd is installed");
        }
        let text = bus::config(&listen, &file("services"), &[&file("policy.conf")]);
        fs::write(file("bus.conf"), text).unwrap();
        let mut daemon = Command::new(bus::DAEMON)
            .args([&format!("--config-file={}", file("bus.conf").display()), "--nofork", "--print-address"])
            // polkitd inherits it.
            .env("DBUS_SYSTEM_BUS_ADDRESS", &listen)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bus daemon starts");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "the bus daemon ended before it listened");
        Bus { daemon, address: address.trim().to_owned(), _folder: folder }
    }

    async fn connect(&self) -> Connection {
        let builder = zbus::connection::Builder::address(self.address.as_str());
        let connection = builder.build().await.unwrap();
        connection.object_server().at("/", Service(PolkitAuthority::new(connection.clone()))).await.unwrap();
        connection.request_name(NAME).await.unwrap();
        connection
    }

    fn busctl(&self, user: &str, args: &[&str]) -> inside::Ran {
        let mut command = inside::as_user(user, BUSCTL);
        command.arg(format!("--address={}", self.address)).arg("call").args(args);
        inside::run(command, b"")
    }

    /// What the service learns about `action` when `user` calls it.
    async fn ask(&self, user: &str, action: ActionId, interactive: bool) -> String {
        let interactive = if interactive { "true" } else { "false" };
        let args = [NAME, "/", "org.banger.Test", "Check", "sb", action.id(), interactive];
        // On another thread, because the service answers on this one.
        tokio::task::block_in_place(|| {
            let ran = self.busctl(user, &args).expect(0);
            ran.text().trim().trim_start_matches("s \"").trim_end_matches('"').to_owned()
        })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // polkitd ends with its bus.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A service as bangerd is one: it asks polkit about whoever calls it.
struct Service(PolkitAuthority);

#[zbus::interface(name = "org.banger.Test")]
impl Service {
    async fn check(
        &self,
        action: &str,
        interactive: bool,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> fdo::Result<String> {
        let sender = header.sender().unwrap().clone();
        let proxy = fdo::DBusProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
        let uid = proxy.get_connection_unix_user(sender.clone().into()).await?;
        let action = *ActionId::ALL.iter().find(|known| known.id() == action).unwrap();
        let details: Details = action.keys().map(|key| (key, "web".to_owned())).collect();
        let caller = Caller { bus_name: sender.to_string(), uid: Uid(uid) };
        let answer = self.0.check(&Check { action, caller, interactive, details }).await;
        Ok(match answer {
            Ok(()) => "allowed",
            Err(Refusal::Denied { .. }) => "denied",
            Err(Refusal::InteractionRequired { .. }) => "interaction-required",
            Err(Refusal::NoAgent { .. }) => "no-agent",
            Err(Refusal::Dismissed { .. }) => "dismissed",
            Err(Refusal::Unavailable { .. }) => "unavailable",
            Err(Refusal::NotFound) => "not-found",
        }
        .to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_polkit_root_alone_is_allowed() {
    let bus = Bus::start(false);
    let _service = bus.connect().await;
    for action in ActionId::ALL {
        assert_eq!(bus.ask("root", *action, false).await, "allowed", "{action}");
        assert_eq!(bus.ask("alice", *action, true).await, "unavailable", "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polkit_answers_by_policy_and_rules() {
    let _rule = Rule::add();
    let bus = Bus::start(true);
    let service = bus.connect().await;
    // Nothing else starts polkitd: the first question does.

    for action in ActionId::ALL {
        assert_eq!(bus.ask("root", *action, false).await, "allowed", "{action}");
        // Alice as the policy says for somebody at the machine, bob as for everybody else.
        let (alice, bob) = match action {
            ActionId::NetworkPublish => ("denied", "denied"),
            ActionId::ImagePull => ("allowed", "allowed"),
            action if action.active() == banger_polkit::Implicit::Yes => ("allowed", "interaction-required"),
            _ => ("interaction-required", "interaction-required"),
        };
        assert_eq!(bus.ask("alice", *action, false).await, alice, "{action}");
        assert_eq!(bus.ask("bob", *action, false).await, bob, "{action}");
    }
    // With a prompt allowed, but nothing that could show one.
    assert_eq!(bus.ask("bob", ActionId::VmRun, true).await, "no-agent");
    assert_eq!(bus.ask("alice", ActionId::VmManageOthers, true).await, "no-agent");

    // Details are taken from bangerd's user, whom the policy names, and from nobody else.
    let subject = service.unique_name().unwrap().as_str();
    let check = |user: &str| {
        let (path, interface) =
            ("/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority");
        let signature = "(sa{sv})sa{ss}us";
        let action = ActionId::VmRun.id();
        let call =
            [POLKIT, path, interface, "CheckAuthorization", signature, "system-bus-name", "1", "name", "s"];
        bus.busctl(user, &[&call[..], &[subject, action, "1", "vm", "web", "0", ""]].concat())
    };
    tokio::task::block_in_place(|| {
        let ran = check("banger").expect(0);
        assert!(ran.text().starts_with("(bba{ss}) true false"), "{ran}");
        let ran = check("bob").expect(1);
        assert!(ran.errors().contains("trusted callers"), "{ran}");
    });
}
