//! Images that do not come from a registry, made and read back by the tools that people have.

use crate::support::{ALICE, Vm, busybox, image_names, refused, state, system};
use banger_harness::{
    REGISTRY,
    inside::{Ran, assert_no_residue, banger, client, eventually, kill_9, run},
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A folder of alice's, gone when the scenario ends.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = Path::new("/run/home/alice").join(name);
        fs::create_dir_all(&path).unwrap();
        tool("/bin/chown", &["alice:alice", path.to_str().unwrap()]);
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a program of the host's as root.
#[track_caller]
fn tool(program: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(args);
    run(command, b"").expect(0)
}

/// Copies an image with skopeo, plain HTTP allowed.
#[track_caller]
fn skopeo(from: &str, to: &str) {
    let flags = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"];
    tool("/usr/bin/skopeo", &[&flags[..], &[from, to]].concat());
}

fn shown(image: &str) -> Value {
    banger(ALICE, &["image", "show", image, "--format", "json"]).expect(0).json()[0].clone()
}

fn remove(images: &[&str]) {
    banger(ALICE, &[&["image", "rm"], images].concat()).expect(0);
}

/// The hash of an image's filesystem.
fn bytes_of(image: &str, home: &Home) -> String {
    let file = home.path("bytes.ext4");
    banger(ALICE, &["image", "export", image, "--output", &file]).expect(0);
    let sum = tool("/usr/bin/sha256sum", &[&file]).text();
    fs::remove_file(&file).unwrap();
    sum
}

fn debugfs(file: &str, request: &str) -> String {
    tool("/sbin/debugfs", &["-R", request, file]).text()
}

#[test]
fn an_image_is_the_same_however_it_comes() {
    let home = Home::new("ways");
    let (reference, digest) = busybox();
    let from = format!("docker://{reference}");
    let (folder, archive) = (home.path("layout"), home.path("busybox.tar"));
    skopeo(&from, &format!("oci:{folder}:localhost/ways:1"));
    skopeo(&from, &format!("oci-archive:{archive}:localhost/ways:1"));
    tool("/bin/chmod", &["-R", "a+rX", home.0.to_str().unwrap()]);
    banger(ALICE, &["image", "pull", "--name", "pulled", reference]).expect(0);
    let pulled = bytes_of("pulled", &home);
    let piped = fs::read(&archive).unwrap();
    let ways: [(&str, &[u8]); 3] = [(&folder, b""), (&archive, b""), ("-", &piped)];
    for (path, input) in ways {
        let ran = run(client(ALICE, &["image", "import", "--name", "imported", path]), input).expect(0);
        assert_eq!(ran.text().trim(), "imported");
        let told = shown("imported");
        assert_eq!(
            (&told["digest"], &told["source"]),
            (&Value::from(digest.as_str()), &Value::from("import"))
        );
        assert_eq!(bytes_of("imported", &home), pulled, "{path}: other bytes");
        remove(&["imported"]);
    }
    // Without a name, the archive's own counts.
    let ran = banger(ALICE, &["image", "import", &archive]).expect(0);
    assert_eq!(ran.text().trim(), "ways-1");
    refused(ALICE, &["image", "import", &archive], "AlreadyExists");
    remove(&["ways-1", "pulled"]);
    assert_no_residue();
}

#[test]
fn what_docker_saves_and_what_umoci_builds_is_imported() {
    let home = Home::new("tools");
    let (saved, layout) = (home.path("saved.tar"), home.path("built"));
    skopeo(&format!("docker://{}", busybox().0), &format!("docker-archive:{saved}:localhost/saved:2"));
    let umoci = |args: &[&str]| tool("/usr/bin/umoci", args);
    let image = format!("{layout}:base");
    umoci(&["init", "--layout", &layout]);
    umoci(&["new", "--image", &image]);
    let layer = banger_harness::images::Tree::default().file("greeting", 0o644, b"made by umoci");
    let file = home.path("layer.tar");
    fs::write(&file, layer.finish().unwrap()).unwrap();
    umoci(&["raw", "add-layer", "--image", &image, &file]);
    umoci(&["config", "--image", &image, "--config.cmd", "/greeting"]);
    tool("/bin/chmod", &["-R", "a+rX", home.0.to_str().unwrap()]);

    let ran = banger(ALICE, &["image", "import", &saved]).expect(0);
    assert_eq!(ran.text().trim(), "saved-2");
    assert_eq!(shown("saved-2")["command"], serde_json::json!(["/bin/sh", "-c", "echo the default"]));
    let ran = banger(ALICE, &["image", "import", &layout, "--select", "base"]).expect(0);
    assert_eq!(ran.text().trim(), "built", "a tag alone is no name");
    let out = home.path("out.ext4");
    banger(ALICE, &["image", "export", "built", "--output", &out]).expect(0);
    assert_eq!(debugfs(&out, "cat /greeting"), "made by umoci");
    banger(ALICE, &["image", "export", "saved-2", "--output", &out]).expect(0);
    assert_eq!(debugfs(&out, "cat /etc/motd"), "made for a test\n");
    tool("/sbin/e2fsck", &["-fn", &out]);
    remove(&["saved-2", "built"]);
    assert_no_residue();
}

#[test]
fn a_root_filesystem_and_a_raw_image_run() {
    let home = Home::new("raw");
    let command = ["--cmd", "/bin/cat", "--cmd", "/etc/motd", "--env", "PATH=/bin"];
    let import = [&["image", "import", "--name", "tree"], &command[..], &["-"]].concat();
    run(client(ALICE, &import), &system()).expect(0);
    assert!(banger(ALICE, &["run", "--rm", "tree"]).expect(0).text().contains("made for a test"));

    let (tree, raw) = (home.path("tree"), home.path("raw.ext4"));
    fs::create_dir(&tree).unwrap();
    let mut unpack = Command::new("/bin/tar");
    unpack.args(["-C", &tree, "-x"]);
    run(unpack, &system()).expect(0);
    tool("/sbin/mke2fs", &["-q", "-F", "-t", "ext4", "-d", &tree, &raw, "64M"]);
    let import = [&["image", "import", "--size", "128M"], &command[..], &[&raw]].concat();
    assert_eq!(banger(ALICE, &import).expect(0).text().trim(), "raw");
    assert_eq!(shown("raw")["size"], 128 << 20);
    assert!(banger(ALICE, &["run", "--rm", "raw"]).expect(0).text().contains("made for a test"));

    // One that was not unmounted is not taken.
    tool("/sbin/debugfs", &["-w", "-R", "set_super_value state 0", &raw]);
    let ran = refused(ALICE, &["image", "import", "--name", "unclean", &raw], "UnsupportedImage");
    assert!(ran.errors().contains("run e2fsck first"), "{ran}");
    remove(&["tree", "raw"]);
    assert_no_residue();
}

#[test]
fn what_is_no_image_is_refused_and_leaves_nothing() {
    let home = Home::new("refused");
    let file = home.path("file");
    fs::write(&file, "hello").unwrap();
    refused(ALICE, &["image", "import", "--name", "x", &file], "UnsupportedImage");
    let evil =
        banger_harness::images::Tree::default().file("../../etc/passwd", 0o644, b"x").finish().unwrap();
    fs::write(&file, evil).unwrap();
    refused(ALICE, &["image", "import", "--name", "x", "--format", "rootfs", &file], "UnsafeImage");
    refused(ALICE, &["image", "import", "--name", "x", "--format", "oci", &file], "UnsafeImage");
    assert!(
        banger(ALICE, &["image", "import", home.0.to_str().unwrap()])
            .expect(125)
            .errors()
            .contains("index.json")
    );
    assert!(!image_names().contains(&"x".to_owned()));
    assert_no_residue();
}

#[test]
fn an_exported_image_loads_elsewhere_and_comes_back_as_it_was() {
    let home = Home::new("export");
    let (archive, first, second) = (home.path("app.oci"), home.path("first.ext4"), home.path("second.ext4"));
    banger(ALICE, &["image", "pull", "--name", "app", &busybox().0]).expect(0);
    banger(ALICE, &["image", "export", "app", "--format", "oci", "--output", &archive]).expect(0);
    skopeo(&format!("oci-archive:{archive}"), &format!("docker://{REGISTRY}/exported:1"));
    banger(ALICE, &["image", "pull", "--name", "back", &format!("{REGISTRY}/exported:1")]).expect(0);
    banger(ALICE, &["image", "import", "--name", "again", &archive]).expect(0);
    let (app, back, again) = (shown("app"), shown("back"), shown("again"));
    assert_eq!(back["digest"], again["digest"]);
    for key in ["command", "environment", "entrypoint", "platform", "content"] {
        assert_eq!(app[key], again[key], "{key}");
    }
    banger(ALICE, &["image", "export", "app", "--output", &first]).expect(0);
    banger(ALICE, &["image", "export", "again", "--output", &second]).expect(0);
    for folder in ["/", "/bin", "/etc", "/root"] {
        // Modes, owners, sizes, times and names; the first column is the inode's number.
        let list = |file: &str| -> Vec<String> {
            let text = debugfs(file, &format!("ls -l {folder}"));
            let mut lines: Vec<_> = text
                .lines()
                .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
                .collect();
            lines.sort();
            lines
        };
        assert_eq!(list(&first), list(&second), "{folder}");
    }
    assert_eq!(debugfs(&second, "cat /etc/passwd"), debugfs(&first, "cat /etc/passwd"));
    remove(&["app", "back", "again"]);
    assert_no_residue();
}

#[test]
fn a_registered_file_stays_its_users_until_it_is_promoted() {
    let home = Home::new("registered");
    let file = home.path("mine.ext4");
    banger(ALICE, &["image", "pull", "--name", "source", &busybox().0]).expect(0);
    banger(ALICE, &["image", "export", "source", "--output", &file]).expect(0);
    remove(&["source"]);
    tool("/bin/chmod", &["600", &file]);
    let register = ["image", "register", "--name", "mine", "--rootfs", &file];
    assert_eq!(banger(ALICE, &register).expect(0).text().trim(), "mine");
    let id = shown("mine")["id"].clone();
    assert_eq!((&shown("mine")["source"], &shown("mine")["private"]), (&"register".into(), &true.into()));

    // Nobody else sees it, by name, by id or in a list.
    refused("bob", &["image", "show", "mine"], "NotFound");
    refused("bob", &["image", "show", id.as_str().unwrap()], "NotFound");
    assert!(!banger("bob", &["image", "ls"]).expect(0).text().contains("mine"));
    refused(ALICE, &["image", "share", "mine"], "WrongState");
    let vm = Vm("of-mine");
    banger(ALICE, &["vm", "create", "--image", "mine", "--name", vm.0]).expect(0);
    vm.exec(&["true"]).expect(0);
    refused(ALICE, &["image", "rm", "mine"], "InUse");

    // Nobody keeps the descriptor on this host: the service that starts anew has to be given it again.
    assert_eq!(kill_9("bangerd"), 1);
    assert!(shown("mine")["unavailable"].as_str().unwrap().contains("image register --name mine"));
    refused(ALICE, &["vm", "create", "--image", "mine", "--name", "other"], "WrongState");
    banger(ALICE, &register).expect(0);
    assert_eq!((&shown("mine")["id"], &shown("mine")["unavailable"]), (&id, &"".into()));

    // A file that has changed is no longer what was registered.
    tool("/bin/touch", &["-d", "2001-01-01", &file]);
    refused(ALICE, &["image", "promote", "mine"], "WrongState");
    banger(ALICE, &register).expect(0);
    banger(ALICE, &["image", "promote", "mine"]).expect(0);
    refused(ALICE, &["image", "promote", "mine"], "WrongState");
    fs::remove_file(&file).unwrap();
    assert_eq!((&shown("mine")["id"], &shown("mine")["unavailable"]), (&id, &"".into()));
    assert_eq!(shown("mine")["used-by"], serde_json::json!(["of-mine"]));
    assert!(
        banger(ALICE, &["run", "--rm", "mine", "--", "/bin/cat", "/etc/motd"])
            .expect(0)
            .text()
            .contains("made")
    );
    vm.remove();
    remove(&["mine"]);

    // Deleting a registered image leaves the file alone.
    fs::write(&file, "x").unwrap();
    refused(ALICE, &register, "UnsupportedImage");
    tool("/sbin/mke2fs", &["-q", "-F", "-t", "ext4", &file, "16M"]);
    let before = fs::read(&file).unwrap();
    banger(ALICE, &register).expect(0);
    remove(&["mine"]);
    assert!(fs::read(&file).unwrap() == before, "the user's file was touched");
    assert_no_residue();
}

#[test]
fn a_stopped_vms_disk_becomes_an_image() {
    let vm = Vm::start("worked-in");
    vm.exec(&["sh", "-c", "echo kept > /root/note && chmod 4711 /root/note"]).expect(0);
    refused(ALICE, &["vm", "commit", vm.0, "worked"], "WrongState");
    banger(ALICE, &["vm", "kill", vm.0]).expect(0);
    let ran = refused(ALICE, &["vm", "commit", vm.0, "worked"], "WrongState");
    assert!(ran.errors().contains("start the VM and stop it once"), "{ran}");
    banger(ALICE, &["vm", "start", vm.0]).expect(0);
    vm.exec(&["sh", "-c", "echo kept > /root/note && sync"]).expect(0);
    banger(ALICE, &["vm", "stop", vm.0]).expect(0);
    refused("bob", &["vm", "commit", vm.0, "stolen"], "NotFound");
    assert_eq!(banger(ALICE, &["vm", "commit", vm.0, "worked"]).expect(0).text().trim(), "worked");
    refused(ALICE, &["vm", "commit", vm.0, "worked"], "AlreadyExists");
    let told = shown("worked");
    assert_eq!((&told["source"], &told["private"]), (&"commit".into(), &true.into()));
    assert_eq!(told["command"], serde_json::json!(["/bin/sh", "-c", "echo the default"]));
    let ran = banger(ALICE, &["run", "--rm", "worked", "--", "/bin/cat", "/root/note"]).expect(0);
    assert_eq!(ran.text().trim(), "kept");
    // What a guest has written is read back too.
    let home = Home::new("committed");
    let archive = home.path("worked.oci");
    banger(ALICE, &["image", "export", "worked", "--format", "oci", "--output", &archive]).expect(0);
    banger(ALICE, &["image", "import", "--name", "copy", &archive]).expect(0);
    let ran = banger(ALICE, &["run", "--rm", "copy", "--", "/bin/cat", "/root/note"]).expect(0);
    assert_eq!(ran.text().trim(), "kept");
    assert_eq!(state(vm.0).as_deref(), Some("stopped"));
    vm.remove();
    remove(&["worked", "copy"]);
    assert_no_residue();
}

#[test]
fn the_service_killed_in_the_middle_of_an_import() {
    let mut command = client(ALICE, &["image", "import", "--name", "halved", "--format", "rootfs", "-"]);
    let mut import =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = import.stdin.take().unwrap();
    // More than a pipe holds: when this returns, the service has read a part of it.
    pipe.write_all(&system()[..600_000]).unwrap();
    let importing = |job: &Value| job["kind"] == "import-image" && job["state"] == "running";
    eventually("the import is under way", || {
        let jobs = banger(ALICE, &["job", "ls", "--format", "json"]).expect(0).json();
        jobs.as_array().unwrap().iter().any(|job| importing(job) && job["done"].as_u64() > Some(100_000))
    });
    assert_eq!(kill_9("bangerd"), 1);
    let output = import.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", String::from_utf8_lossy(&output.stderr));
    drop(pipe);
    assert!(!image_names().contains(&"halved".to_owned()));
    assert_no_residue();
}

#[test]
fn an_import_that_does_not_fit_leaves_nothing() {
    // The folder of images on a disk of its own, which is nearly full.
    let (images, before) = (Path::new("/var/lib/banger/images"), image_names());
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(images).unwrap());
    let options = format!("size=4m,mode=0700,uid={owner}");
    mount(Some("tmpfs"), images, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
    let noise: Vec<u8> = (0..6u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let archive = banger_harness::images::Tree::default().file("big", 0o644, &noise).finish().unwrap();
    let ran = run(client(ALICE, &["--verbose", "image", "import", "--name", "big", "-"]), &archive);
    let left: Vec<_> = fs::read_dir(images).unwrap().flatten().map(|entry| entry.path()).collect();
    umount2(images, MntFlags::MNT_DETACH).unwrap();
    assert!(ran.errors().contains("org.banger.Error.NoSpace"), "{ran}");
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(image_names(), before);
    assert_no_residue();
}
