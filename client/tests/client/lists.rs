//! Images, kernels and VMs: listing, showing, changing.

use crate::bus::Bus;
use serde_json::json;

#[test]
fn images_as_a_table_and_as_json() {
    let bus = Bus::new();
    let table = bus.banger(&["image", "ls"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("NAME    ID"), "{table}");
    assert!(lines[1].starts_with("debian  abcd000000000000  127.0.0.1:5000/debian:12  1 GiB"), "{table}");
    let images = bus.banger(&["image", "ls", "--format", "json"]).json();
    assert_eq!(images.as_array().unwrap().len(), 1);
    assert_eq!(images[0]["name"], "debian");
    assert_eq!(images[0]["size"], json!(1u64 << 30));
    assert_eq!(images[0]["owner-uid"], json!(1000));
    assert_eq!(images[0]["used-by"], json!([]));
    assert_eq!(bus.banger(&["image", "show", "debian", "--format", "json"]).json(), images);
    let shown = bus.banger(&["image", "show", "debian"]).ok();
    assert!(shown.contains("platform:       linux/amd64\n"), "{shown}");
}

#[test]
fn an_image_that_is_not_there_is_told() {
    let bus = Bus::new();
    let error = bus.banger(&["image", "show", "nope"]).failed(125);
    assert_eq!(error, "Error: there is no image \"nope\"; see `banger image ls`\n");
}

#[test]
fn removing_goes_on_past_a_failure() {
    let bus = Bus::new();
    bus.banger(&["-q", "image", "pull", "x", "--name", "other"]).ok();
    let ran = bus.banger(&["-q", "image", "rm", "debian", "nope", "other"]);
    assert_eq!((ran.code, ran.out.as_str()), (125, "debian\nother\n"));
    assert_eq!(ran.err, "Error: there is no image \"nope\"; see `banger image ls`\n");
    assert_eq!(bus.banger(&["image", "ls", "--format", "json"]).json(), json!([]));
}

#[test]
fn pruning_asks_first() {
    let bus = Bus::new();
    let what = "3 things of 2 GiB, among them the images old, older\n";
    assert_eq!(bus.banger(&["image", "prune", "--all", "--dry-run"]).ok(), format!("would remove {what}"));
    let error = bus.banger(&["-q", "image", "prune"]).failed(125);
    assert!(error.contains("--yes") && error.contains("Remove 3 things"), "{error}");
    assert!(bus.state().calls().iter().all(|call| !call.contains("dry-run=false")), "nothing was removed");
    assert_eq!(bus.banger(&["image", "prune", "--all", "--yes"]).ok(), format!("removed {what}"));
    bus.state().call("PruneImages all=true dry-run=false");
}

#[test]
fn an_export_is_the_filesystem_or_no_file() {
    let bus = Bus::new();
    let file = bus.path("disk.img");
    bus.banger(&["image", "export", "debian", "--output", &file]).ok();
    assert_eq!(std::fs::read(&file).unwrap(), b"a filesystem\0\xff");
    assert_eq!(bus.banger(&["-q", "image", "export", "debian", "-o", "-"]).bytes, b"a filesystem\0\xff");
    bus.banger(&["-q", "image", "pull", "x", "--name", "half"]).ok();
    let error = bus.banger(&["-q", "image", "export", "half", "--output", &file]).failed(125);
    assert_eq!(error, "Error: there is no space left\n");
    assert!(!std::fs::exists(&file).unwrap(), "half a filesystem is removed");
    let error = bus.banger(&["image", "export", "debian", "--output", "/no/where"]).failed(125);
    assert!(error.contains("cannot create /no/where"), "{error}");
}

#[test]
fn a_kernel_arrives_with_its_modules() {
    let bus = Bus::new();
    std::fs::create_dir_all(bus.path("modules/kernel")).unwrap();
    for name in ["vmlinuz", "initrd", "modules/modules.dep", "modules/kernel/virtio.ko"] {
        std::fs::write(bus.path(name), format!("<{name}>")).unwrap();
    }
    let (kernel, initrd, modules) = (bus.path("vmlinuz"), bus.path("initrd"), bus.path("modules"));
    let ran = bus.banger(&[
        "-q",
        "kernel",
        "import",
        "--kernel",
        &kernel,
        "--initrd",
        &initrd,
        "--modules",
        &modules,
        "mine",
    ]);
    assert_eq!(ran.ok(), "mine\n");
    let call = bus.state().call("ImportKernel");
    assert_eq!(call, "ImportKernel mine <vmlinuz> <initrd> [\"kernel/virtio.ko\", \"modules.dep\"]");
    let error = bus.banger(&["kernel", "import", "--kernel", "/no/such", "mine"]).failed(125);
    assert!(error.contains("cannot open /no/such"), "{error}");
    let error = bus.banger(&["kernel", "import", "--kernel", &kernel, "--modules", "/", "mine"]).failed(125);
    assert!(error.contains("modules.dep"), "{error}");
}

#[test]
fn packages_arrive_in_order() {
    let bus = Bus::new();
    let (core, modules) = (bus.path("core.rpm"), bus.path("modules.rpm"));
    std::fs::write(&core, "core").unwrap();
    std::fs::write(&modules, "modules").unwrap();
    for words in [
        &["-q", "kernel", "import", "--package", &core, "--package", &modules, "mine"][..],
        &["-q", "kernel", "import", &core, &modules, "mine"],
    ] {
        assert_eq!(bus.banger(words).ok(), "mine\n");
        assert_eq!(bus.state().call("ImportKernel"), "ImportKernel mine [\"core\", \"modules\"]");
    }
    let both = ["kernel", "import", "--kernel", core.as_str(), modules.as_str(), "mine"];
    assert!(bus.banger(&both).failed(125).contains("either packages or --kernel"));
}

#[test]
fn the_catalogue_is_listed_by_kind() {
    let bus = Bus::new();
    let images = bus.banger(&["image", "catalogue"]);
    assert!(images.err.contains("/etc/x.json does not count: it is broken"), "{images:?}");
    let table = images.out;
    assert!(table.contains("base") && table.contains("30 MiB") && !table.contains("6.1.0"), "{table}");
    let kernels = bus.banger(&["kernel", "catalogue", "--format", "json"]).json();
    assert_eq!((kernels.as_array().unwrap().len(), &kernels[0]["release"]), (1, &json!("6.1.0")));
    assert_eq!(bus.banger(&["-q", "kernel", "pull", "6.1-Cloud", "--name", "k"]).ok(), "k\n");
    assert_eq!(bus.state().call("PullKernel"), "PullKernel 6.1-Cloud name=\"k\"");
}

#[test]
fn kernels_are_listed() {
    let bus = Bus::new();
    let table = bus.banger(&["kernel", "ls"]).ok();
    assert!(table.contains("host  6.1.0    host    40 MiB  yes      no      *        box"), "{table}");
    assert_eq!(bus.banger(&["kernel", "default"]).ok(), "host\n");
    bus.banger(&["kernel", "default", "--unset"]).ok();
    assert_eq!(bus.state().call("SetDefaultKernel"), "SetDefaultKernel \"\"");
    let kernels = bus.banger(&["kernel", "ls", "--format", "json"]).json();
    assert_eq!(kernels[0]["has-modules"], json!(true));
    bus.banger(&["kernel", "rm", "nope"]).failed(125);
}

#[test]
fn a_vms_life() {
    let bus = Bus::new();
    let created =
        bus.banger(&["vm", "create", "--image", "debian", "--name", "box", "--cpus", "2", "--", "a", "b"]);
    assert_eq!(created.ok(), "box\n");
    let call = bus.state().call("CreateVM box");
    assert!(call.contains("command=[\"a\", \"b\"]") && !call.contains("start="), "{call}");
    assert_eq!(bus.banger(&["vm", "create", "--image", "debian", "--no-start"]).ok(), "made-up\n");
    assert!(bus.state().call("CreateVM  ").contains("start=false"));

    for (words, call) in [
        ("vm start box", "Start box"),
        ("vm stop --timeout 3 box", "Stop box timeout=3"),
        ("vm stop --force box", "Stop box force=true"),
        ("vm restart box", "Restart box"),
        ("vm kill box", "Kill 9 box"),
        ("kill --signal TERM box", "Kill 15 box"),
        ("pause box", "Pause box"),
        ("unpause box", "Resume box"),
        ("stop box", "Stop box"),
    ] {
        let ran = bus.banger(&words.split(' ').collect::<Vec<_>>());
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{words}: {}", ran.err);
        assert!(bus.state().calls().contains(&call.to_owned()), "{call} in {:?}", bus.state().calls());
    }

    let refused = bus.banger(&["stop", "--all", "box"]);
    assert!(refused.code == 125 && refused.err.contains("--all"), "{}", refused.err);
    assert_eq!(bus.banger(&["stop"]).code, 125);
    let stops = || bus.state().calls().iter().filter(|call| call.starts_with("Stop ")).count();
    let before = stops();
    bus.banger(&["stop", "--all"]).ok();
    assert!(stops() > before, "{:?}", bus.state().calls());

    assert_eq!(bus.banger(&["wait", "box"]).ok(), "42\n");
    let set = bus.banger(&["set", "--cpus", "2", "--restart", "always", "--idle-stop", "5m", "box"]);
    assert!(set.err.contains("from the next start on: cpus"), "{}", set.err);
    assert_eq!(bus.state().call("Set box"), "Set box cpus=2 idle-stop=300 restart=\"always\"");
    assert_eq!(bus.banger(&["set", "box"]).code, 125);

    let vms = bus.banger(&["vm", "ls", "--format", "json"]).json();
    assert_eq!((&vms[0]["name"], &vms[1]["name"]), (&json!("box"), &json!("made-up")));
    assert_eq!((&vms[0]["memory"], &vms[0]["addresses"]), (&json!(512u64 << 20), &json!(["172.30.0.2"])));
    assert!(bus.banger(&["vm", "ls"]).ok().contains("box      running  debian  1     512 MiB  172.30.0.2"));
    let shown = bus.banger(&["vm", "show", "box"]).ok();
    assert!(shown.contains("disk:      1 GiB, 3 MiB used, by copy\n"), "{shown}");
    assert_eq!(bus.banger(&["vm", "show", "box", "--format", "json"]).json()[0], vms[0]);

    assert_eq!(bus.banger(&["vm", "rm", "--force", "box", "made-up"]).ok(), "box\nmade-up\n");
    assert_eq!(bus.banger(&["vm", "ls", "--format", "json"]).json(), json!([]));
}

#[test]
fn a_vms_console_and_its_log() {
    let bus = Bus::new();
    bus.banger(&["vm", "create", "--image", "debian", "--name", "box"]).ok();
    assert_eq!(bus.banger(&["vm", "logs", "box"]).bytes, b"[    0.000000] Linux\n\xff\0");
    use std::io::{BufRead, Write};
    let mut command = bus.command(&["vm", "console", "box"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"echo\n").unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(out.next().unwrap().unwrap(), "console");
    assert_eq!(out.next().unwrap().unwrap(), "echo");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(crate::bus::code(child.wait().unwrap()), 130);
}
