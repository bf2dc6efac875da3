//! `banger run` and `banger exec`: what is asked of the service, and how it ends.

use crate::bus::Bus;

#[test]
fn the_exit_code_is_the_commands_own() {
    let bus = Bus::new();
    for code in [0, 1, 42, 124, 255] {
        let ran = bus.banger(&["run", "--rm", "debian", "--", "sh", "-c", &format!("exit {code}")]);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{}", ran.err);
    }
    let ran = bus.banger(&["run", "--rm", "debian", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(ran.code, 128 + 15);
}

#[test]
fn a_command_that_cannot_be_run_has_a_code_of_its_own() {
    let bus = Bus::new();
    let error = bus.banger(&["run", "--rm", "-q", "debian", "--", "/no/such"]).failed(127);
    assert_eq!(error, "Error: the guest has no program \"/no/such\"\n");
    let error = bus.banger(&["run", "--rm", "-q", "--verbose", "debian", "--", "/etc/passwd"]).failed(126);
    assert!(error.contains("cannot be executed"), "{error}");
    assert!(error.contains("(org.banger.Error.CommandNotExecutable)"), "{error}");
    assert!(bus.state().vms().is_empty(), "--rm is --rm");
}

#[test]
fn the_command_reaches_the_guest_word_by_word() {
    let bus = Bus::new();
    let words = ["run", "--rm", "debian", "--", "printf", "<%s>", "a b", "", "--", "-x", "$HOME", "'\"\\"];
    assert_eq!(bus.banger(&words).ok(), "<a b><><--><-x><$HOME><'\"\\>");
}

#[test]
fn without_a_command_it_is_the_images_own() {
    let bus = Bus::new();
    assert_eq!(bus.banger(&["run", "--rm", "debian"]).ok(), "the image's own\n");
    let asked = bus.state().call("Exec made-up []");
    assert!(asked.contains("entrypoint=true"), "{asked}");
}

#[test]
fn flags_become_options() {
    let bus = Bus::new();
    let run =
        "run --rm --name web --cpus 2 --memory 512M --disk 10G --kernel mine -u me -w / -e A=1 debian env";
    let ran = bus.banger(&run.split(' ').collect::<Vec<_>>()).ok();
    assert!(ran.contains("A=1\n"), "{ran}");
    let created = bus.state().call("CreateVM web");
    for option in
        ["cpus=2", "memory=536870912", "disk=10737418240", "kernel=\"mine\"", "remove=true", "main=\"none\""]
    {
        assert!(created.contains(option), "{option} in {created}");
    }
    assert!(created.ends_with(" true"), "a prompt is allowed: {created}");
    let asked = bus.state().call("Exec web");
    assert!(asked.contains("user=\"me\"") && asked.contains("working-directory=\"/\""), "{asked}");
    assert!(asked.contains("stdin=false"), "{asked}");
    assert!(bus.state().call("Delete web").contains("force=true"));
}

#[test]
fn in_the_background_it_prints_the_name_and_stays() {
    let bus = Bus::new();
    let words = ["run", "-d", "--rm", "--name", "web", "-e", "A=1", "debian", "--", "serve", "--port", "80"];
    assert_eq!(bus.banger(&words).ok(), "web\n");
    assert_eq!(bus.state().vms(), ["web"]);
    let created = bus.state().call("CreateVM web");
    assert!(created.contains("command=[\"serve\", \"--port\", \"80\"]"), "{created}");
    assert!(created.contains("environment=[\"A=1\"]") && !created.contains("main="), "{created}");
    assert!(!bus.state().calls().iter().any(|call| call.starts_with("Exec")));
    assert_eq!(bus.banger(&["run", "-d", "debian"]).ok(), "made-up\n");
}

#[test]
fn without_rm_the_vm_stays_and_a_pipe_hears_no_hint() {
    let bus = Bus::new();
    let ran = bus.banger(&["run", "--name", "box", "-q", "debian", "true"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(bus.state().vms(), ["box"]);
    let error = bus.banger(&["run", "-q", "--name", "box", "debian", "true"]).failed(125);
    assert_eq!(error, "Error: there is a VM \"box\" already\n");
    assert_eq!(bus.state().vms(), ["box"], "the one that was there is not ours to remove");
}

#[test]
fn an_image_is_pulled_once() {
    let bus = Bus::new();
    let reference = "127.0.0.1:5000/team/app:1";
    let ran = bus.banger(&["run", "--rm", "--size", "2G", reference, "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("127.0.0.1:5000/team/app:1: pulling 50 MiB of 100 MiB (50%)\n"), "{}", ran.err);
    assert!(bus.state().call("PullImage").contains("size=2147483648"));
    assert_eq!(bus.banger(&["run", "--rm", "-q", reference, "true"]).code, 0);
    let pulls = bus.state().calls().iter().filter(|call| call.starts_with("PullImage")).count();
    assert_eq!(pulls, 1);
}

#[test]
fn what_is_here_is_found_by_reference() {
    let bus = Bus::new();
    let ran = bus.banger(&["run", "--rm", "-q", "--pull=never", "127.0.0.1:5000/debian:12", "echo", "hi"]);
    assert_eq!(ran.ok(), "hi\n");
    let error = bus.banger(&["run", "--rm", "--pull=never", "127.0.0.1:5000/debian:13", "true"]).failed(125);
    assert!(error.contains("banger image pull 127.0.0.1:5000/debian:13"), "{error}");
    assert_eq!(bus.banger(&["run", "--rm", "-q", "--pull=always", "debian", "true"]).code, 0);
    bus.state().call("PullImage debian");
}

#[test]
fn a_vm_that_does_not_come_up_is_told_and_removed() {
    let bus = Bus::new();
    let error = bus.banger(&["run", "--rm", "-q", "--name", "broken", "debian", "true"]).failed(125);
    assert_eq!(
        error, "Error: the guest did not come up:\n[    0.1] panic?[2J\n",
        "no escape reaches the terminal"
    );
    assert!(bus.state().vms().is_empty());
}

#[test]
fn exec_runs_in_a_vm_that_is_there() {
    let bus = Bus::new();
    bus.banger(&["vm", "create", "--image", "debian", "--name", "box"]).ok();
    let ran =
        bus.banger(&["exec", "-e", "A=1", "-w", "/usr", "box", "--", "sh", "-c", "echo $A; pwd; exit 3"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "1\n/usr\n", ""));
    assert!(!bus.state().call("Exec box").contains("entrypoint"));
    let error = bus.banger(&["exec", "gone", "true"]).failed(125);
    assert!(error.contains("there is no vm \"gone\""), "{error}");
}
