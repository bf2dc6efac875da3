//! Images that the catalogue names: pulled, run, and refused when they are not what they should be.

use crate::support::{ALICE, Vm, image_names, refused, system};
use banger_harness::inside::{assert_no_residue, banger, run};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// Serves files by their paths; tells where.
pub fn serve(files: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let files = files.clone();
            // A client that goes away is its own affair.
            thread::spawn(move || drop(answer(client, &files)));
        }
    });
    address
}

fn answer(mut client: TcpStream, files: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(client.try_clone()?);
    while lines.read_line(&mut request)? > 2 {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match files.get(path) {
        Some(body) => ("200 OK", body.as_slice()),
        None => ("404 Not Found", &b""[..]),
    };
    let length = body.len();
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    client.write_all(body)
}

/// What sha256sum(1) says.
pub fn sha256(bytes: &[u8]) -> String {
    let sum = run(Command::new("/usr/bin/sha256sum"), bytes).expect(0).text();
    sum.split(' ').next().unwrap().to_owned()
}

/// A catalogue file that is there for as long as this is.
pub struct Listed(PathBuf);

impl Listed {
    pub fn new(path: &str, entries: &[Value]) -> Listed {
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        fs::write(path, json!({"format": 1, "entries": entries}).to_string()).unwrap();
        Listed(path.into())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An entry for what is served as `path`.
pub fn entry(kind: &str, name: &str, address: &str, path: &str, file: &[u8]) -> Value {
    json!({
        "kind": kind, "name": name, "architecture": "amd64", "url": format!("{address}{path}"),
        "sha256": sha256(file), "size": file.len(),
    })
}

/// A bundle as people make one, with these files beside the two.
fn bundle(more: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("tree")).unwrap();
    let in_folder = |program: &str, args: &[&str], input: &[u8]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder.path());
        run(command, input).expect(0).stdout
    };
    in_folder("/bin/tar", &["-xf", "-", "-C", "tree"], &system());
    in_folder("/sbin/mke2fs", &["-q", "-t", "ext4", "-d", "tree", "rootfs.ext4", "64M"], b"");
    let manifest =
        json!({"format": 1, "size": 64 << 20, "cmd": ["/bin/sh"], "env": ["PATH=/bin", "BUNDLED=yes"]});
    fs::write(at("manifest.json"), manifest.to_string()).unwrap();
    for name in more {
        fs::write(at(name), "more").unwrap();
    }
    let archive = [&["--format=gnu", "-cf", "-", "manifest.json", "rootfs.ext4"][..], more].concat();
    let archive = in_folder("/bin/tar", &archive, b"");
    in_folder("/usr/bin/zstd", &["-q", "-1", "-c"], &archive)
}

#[test]
fn a_bundle_is_pulled_by_its_plain_name_and_runs() {
    let file = bundle(&[]);
    let address = serve(BTreeMap::from([("/base".to_owned(), file.clone())]));
    let listed = Listed::new(
        "/etc/banger/catalog.d/test.json",
        &[entry("image", "bundled", &address, "/base", &file)],
    );
    let table = banger(ALICE, &["image", "catalogue"]).expect(0).text();
    assert!(table.contains("bundled"), "{table}");
    let pulled = banger(ALICE, &["image", "pull", "bundled"]).expect(0);
    assert_eq!(pulled.text().trim(), "bundled", "{pulled}");
    let show =
        || banger(ALICE, &["image", "show", "bundled", "--format", "json"]).expect(0).json()[0].clone();
    let shown = show();
    assert_eq!((&shown["source"], &shown["size"]), (&json!("catalogue"), &json!(64 << 20)), "{shown}");
    assert_eq!(shown["digest"], format!("sha256:{}", sha256(&file)));
    assert!(shown["used"].as_u64().unwrap() < 48 << 20, "zeros are holes: {shown}");
    // What is here already stays.
    banger(ALICE, &["image", "pull", "bundled"]).expect(0);
    assert_eq!(show()["id"], shown["id"]);

    let vm = Vm("of-a-bundle");
    banger(ALICE, &["vm", "create", "--image", "bundled", "--name", vm.0]).expect(0);
    assert_eq!(vm.exec(&["cat", "/etc/motd"]).expect(0).text(), "made for a test\n");
    assert_eq!(vm.exec(&["sh", "-c", "echo $BUNDLED"]).expect(0).text(), "yes\n");
    vm.remove();
    banger(ALICE, &["image", "rm", "bundled"]).expect(0);
    drop(listed);
    refused(ALICE, &["image", "pull", "--source", "catalogue", "bundled"], "NotFound");
    assert_no_residue();
}

#[test]
fn bundles_that_are_not_what_they_should_be_leave_nothing() {
    let good = bundle(&[]);
    let mut changed = good.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let third = bundle(&["third"]);
    let twice = [&good[..], &good[..]].concat();
    let short = good[..good.len() / 2].to_vec();
    let address = serve(BTreeMap::from([
        ("/changed".to_owned(), changed),
        ("/third".to_owned(), third.clone()),
        ("/twice".to_owned(), twice.clone()),
        ("/short".to_owned(), short.clone()),
        ("/good".to_owned(), good.clone()),
    ]));
    let mut wanting = entry("image", "wanting", &address, "/good", &good);
    wanting["kernel"] = json!("6.1-not-here");
    let _listed = Listed::new(
        "/etc/banger/catalog.d/test.json",
        &[
            entry("image", "changed", &address, "/changed", &good),
            entry("image", "third", &address, "/third", &third),
            entry("image", "twice", &address, "/twice", &twice),
            entry("image", "short", &address, "/short", &short),
            entry("image", "gone", &address, "/gone", &good),
            wanting,
        ],
    );
    // A file that is broken takes nothing else with it.
    let broken = Listed::new("/etc/banger/catalog.d/zz-broken.json", &[json!({"kind": "image"})]);
    let before = image_names();
    let told = banger(ALICE, &["image", "catalogue"]).expect(0);
    assert!(told.errors().contains("zz-broken.json") && told.text().contains("changed"), "{told}");
    drop(broken);
    for (name, error) in [
        ("changed", "DigestMismatch"),
        ("third", "UnsafeImage"),
        ("twice", "UnsafeImage"),
        ("short", "UnsafeImage"),
        ("gone", "RegistryUnavailable"),
        ("wanting", "KernelRequired"),
    ] {
        refused(ALICE, &["image", "pull", name], error);
        assert_eq!(image_names(), before, "{name} left an image");
        assert_no_residue();
    }
    refused(ALICE, &["image", "pull", "third", "--size", "2G"], "InvalidSpec");
}
