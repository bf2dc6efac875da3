//! Registries beside the host's own, a CA for them, and a proxy.

use banger_harness::{
    REGISTRY,
    images::Tree,
    inside::{self, Ran, eventually, run},
};
use serde_json::json;
use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Mutex, OnceLock},
    thread,
};

/// The registry that wants TLS and a password. It has the same images as the host's own.
pub const CLOSED: &str = "127.0.0.1:5443";
/// Who may pull there.
pub const USER: &str = "carol";
/// With what password; [`PASSWORD_LINE`] is its bcrypt hash.
pub const PASSWORD: &str = "sesame-street-42";
/// base64 of user and password, as it travels.
pub const TRAVELS: &str = "Y2Fyb2w6c2VzYW1lLXN0cmVldC00Mg==";
const PASSWORD_LINE: &str = "carol:$2b$05$abcdefghijklmnopqrstuuCxFRUU868jbpXibvfiMtJBPApFm5adS";

/// Where what is said about registries stands.
pub const SAID: &str = "/etc/banger/registries.d/50-test.toml";

/// A program, ended with the test.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder that every user may look into.
pub fn folder() -> &'static Path {
    let folder = Path::new("/run/registries-test");
    fs::create_dir_all(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Starts a registry that listens at `address`; `more` is the rest of its configuration.
pub fn registry(name: &str, address: &str, storage: &Path, http: &str, more: &str) -> Server {
    let config = folder().join(format!("{name}.yml"));
    let text = format!(
        "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\n\
         storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{http}{more}",
        storage.display()
    );
    fs::write(&config, text).unwrap();
    let log = fs::File::create(folder().join(format!("{name}.log"))).unwrap();
    let mut command = Command::new("/usr/bin/docker-registry");
    command.arg("serve").arg(config).stdout(log.try_clone().unwrap()).stderr(log);
    let server = Server(command.spawn().unwrap());
    eventually(&format!("{name} listens"), || TcpStream::connect(address).is_ok());
    server
}

/// The registry with TLS and a password.
pub fn closed() -> Server {
    let (_, certificate, key) = certificates();
    let users = folder().join("htpasswd");
    fs::write(&users, format!("{PASSWORD_LINE}\n")).unwrap();
    let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display());
    registry("closed", CLOSED, &inside::state().join("registry"), &tls, &auth)
}

/// A CA of our own, and a certificate of it for loopback with its key.
pub fn certificates() -> &'static (PathBuf, PathBuf, PathBuf) {
    static MADE: OnceLock<(PathBuf, PathBuf, PathBuf)> = OnceLock::new();
    MADE.get_or_init(|| {
        let at = |name: &str| folder().join(name);
        let config = "[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n\
                      [leaf]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1\n";
        fs::write(at("openssl.cnf"), config).unwrap();
        let make = |name: &str, extensions: &str, by: &[&str]| {
            let mut command = Command::new("/usr/bin/openssl");
            command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
            command.args([
                "-nodes",
                "-days",
                "2",
                "-subj",
                &format!("/CN={name}"),
                "-extensions",
                extensions,
            ]);
            command.arg("-config").arg(at("openssl.cnf"));
            command.arg("-keyout").arg(at(&format!("{name}.key")));
            command.arg("-out").arg(at(&format!("{name}.pem"))).args(by).current_dir(folder());
            run(command, b"").expect(0);
        };
        make("ca", "ca", &[]);
        make("leaf", "leaf", &["-CA", "ca.pem", "-CAkey", "ca.key"]);
        (at("ca.pem"), at("leaf.pem"), at("leaf.key"))
    })
}

/// Says something about registries, until it is dropped.
pub struct Said;

pub fn say(text: &str) -> Said {
    fs::create_dir_all(Path::new(SAID).parent().unwrap()).unwrap();
    fs::write(SAID, text).unwrap();
    fs::set_permissions(SAID, fs::Permissions::from_mode(0o644)).unwrap();
    Said
}

impl Drop for Said {
    fn drop(&mut self) {
        let _ = fs::remove_file(SAID);
    }
}

/// What is said about the registry with TLS, and `more` lines of its entry.
pub fn say_closed(more: &str) -> Said {
    let (ca, ..) = certificates();
    say(&format!("[[registry]]\nprefix = \"{CLOSED}\"\nca = \"{}\"\n{more}\n", ca.display()))
}

/// Publishes a small image of its own at the host's registry: its name and tag there, and its layer's digest.
pub fn image(name: &str) -> (String, String) {
    let layer = Tree::default().dir("etc/").file("etc/only-in", 0o644, name.as_bytes()).finish().unwrap();
    let (reference, digest) =
        inside::publish(&format!("{name}:1"), &[layer], &json!({"Cmd": ["/x"]})).unwrap();
    assert_eq!(reference, format!("{REGISTRY}/{name}:1"));
    let manifest = fs::read(inside::registry_blob(&digest)).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    (format!("{name}:1"), manifest["layers"][0]["digest"].as_str().unwrap().to_owned())
}

/// Logs a user in as skopeo does, into the file that podman and it share.
pub fn log_in(user: &str) -> PathBuf {
    let home = PathBuf::from(format!("/run/home/{user}"));
    let file = home.join(".config/containers/auth.json");
    let certificates = folder().join("client-certs");
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(&self::certificates().0, certificates.join("ca.crt")).unwrap();
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut command = Command::new("/usr/bin/skopeo");
    command.arg("login").arg("--authfile").arg(&file).arg("--cert-dir").arg(certificates);
    command.args(["--username", USER, "--password-stdin", CLOSED]).env_remove("REGISTRY_AUTH_FILE");
    run(command, PASSWORD.as_bytes()).expect(0);
    let owner = fs::metadata(&home).unwrap();
    let (uid, gid) =
        (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner));
    for path in [file.as_path(), file.parent().unwrap(), &home.join(".config")] {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
    file
}

/// Where the service keeps a blob: of everybody's, or of one user's.
pub fn blob(owner: Option<u32>, digest: &str) -> PathBuf {
    let root = Path::new("/var/lib/banger/blobs");
    let scope = owner.map_or(root.to_owned(), |uid| root.join("users").join(uid.to_string()));
    scope.join(digest.replace(':', "/"))
}

/// Asserts that a command failed with this D-Bus error.
#[track_caller]
pub fn failed_with(ran: Ran, error: &str) -> String {
    let ran = ran.expect(125);
    assert!(ran.errors().contains(&format!("(org.banger.Error.{error})")), "{error} was expected: {ran}");
    ran.errors()
}

/// An HTTP proxy that makes tunnels, and notes where to. It ends with the process.
pub fn proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let noted = Arc::clone(&seen);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let noted = Arc::clone(&noted);
            thread::spawn(move || tunnel(client, &noted));
        }
    });
    (address, seen)
}

fn tunnel(mut client: TcpStream, noted: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    noted.lock().unwrap().push(head.clone());
    if !head.starts_with("CONNECT ") {
        return client.write_all(b"HTTP/1.1 405 Tunnels only\r\nContent-Length: 0\r\n\r\n");
    }
    let mut server = TcpStream::connect(&target)?;
    client.write_all(b"HTTP/1.1 200 Go\r\n\r\n")?;
    let (mut to_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut server, &mut to_client));
    io::copy(&mut reader, &mut to_server).map(drop)
}
