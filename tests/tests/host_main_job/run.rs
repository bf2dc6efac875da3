//! `banger run` and `banger exec`: argv, streams, exit codes, environment.

use crate::support::{ALICE, Vm, image, image_names, static_binary, vms};
use banger_harness::{
    images::Tree,
    inside::{self, assert_no_residue, banger, client, run},
};
use serde_json::json;

/// `banger run --rm` with these words after the image.
fn run_rm(flags: &[&str], command: &[&str]) -> inside::Ran {
    banger(ALICE, &[&["run", "--rm"], flags, &[image(), "--"], command].concat())
}

#[test]
fn the_exit_code_is_the_commands_own() {
    run_rm(&[], &["sh", "-c", "exit 42"]).expect(42);
    assert!(vms(ALICE).is_empty(), "--rm leaves no VM");
    assert_no_residue();
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_run_126() {
    let vm = Vm::start("codes");
    vm.exec(&["no-such-program"]).expect(127);
    vm.exec(&["/etc/motd"]).expect(126);
    vm.exec(&["true"]).expect(0);
    vm.exec(&["sh", "-c", "kill -9 $$"]).expect(137);
    vm.remove();
}

#[test]
fn arguments_arrive_exactly() {
    let words = ["a b", "", "$HOME", "*", "it's \"quoted\"", "back\\slash", "new\nline", "ünï", "-n", "--"];
    let ran = run_rm(&[], &[&["printf", "[%s]"], &words[..]].concat()).expect(0);
    let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!(ran.text(), expected, "{ran}");
}

#[test]
fn three_streams_stay_apart_and_binary_safe() {
    let vm = Vm::start("streams");
    // Every byte, and more of them than any buffer on the way holds.
    let input: Vec<u8> = (0..4 << 20).map(|n: u32| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    let both =
        client(ALICE, &["exec", "-i", vm.0, "--", "sh", "-c", "echo to stderr >&2; cat; echo end >&2"]);
    let ran = run(both, &input);
    assert_eq!(ran.code, 0, "{}", ran.errors());
    assert_eq!(ran.errors(), "to stderr\nend\n");
    assert!(ran.stdout == input, "{} bytes came back of {}", ran.stdout.len(), input.len());

    // Without -i the command reads an empty input.
    let without = run(client(ALICE, &["exec", vm.0, "--", "wc", "-c"]), b"not for you").expect(0);
    assert_eq!(without.text().trim(), "0");
    // A command that ends before its input does is no error.
    let early = run(client(ALICE, &["exec", "-i", vm.0, "--", "head", "-c", "3"]), &input);
    assert_eq!((early.code, &early.stdout[..]), (0, &input[..3]), "{}", early.errors());
    vm.remove();
}

#[test]
fn environment_folder_and_user_are_as_asked() {
    let vm = Vm::start("settings");
    let ask = ["sh", "-c", "echo $A-$FROM_IMAGE $(pwd) $(id -u):$(id -g)"];
    let flags = ["exec", "-e", "A=one two", "-w", "/tmp", "-u", "worker", vm.0, "--"];
    let ran = banger(ALICE, &[&flags[..], &ask].concat()).expect(0);
    assert_eq!(ran.text(), "one two-yes /tmp 1000:1000\n", "{ran}");
    assert_eq!(vm.exec(&ask).expect(0).text(), "-yes / 0:0\n");
    assert_eq!(vm.exec(&["hostname"]).expect(0).text().trim(), vm.0);
    vm.remove();
}

#[test]
fn without_a_command_the_images_own_is_run() {
    let ran = banger(ALICE, &["run", "--rm", image()]).expect(0);
    assert_eq!(ran.text(), "the default\n", "{ran}");
}

#[test]
fn an_image_from_scratch_with_one_static_binary_runs() {
    let layer = Tree::default().file("echo", 0o755, &static_binary()).finish().unwrap();
    let config = json!({"Entrypoint": ["/echo", "hello from"], "Cmd": ["scratch"]});
    let (reference, _) = inside::publish("scratch:1", &[layer], &config).unwrap();
    // Not pulled before: `run` pulls what is missing.
    let ran = banger(ALICE, &["run", "--rm", &reference]).expect(0);
    assert_eq!(ran.text(), "hello from scratch\n", "{ran}");
    let ran = banger(ALICE, &["run", "--rm", "scratch-1", "--", "somebody else"]).expect(0);
    assert_eq!(ran.text(), "hello from somebody else\n", "{ran}");
    banger(ALICE, &["image", "rm", "scratch-1"]).expect(0);
    assert!(!image_names().contains(&"scratch-1".to_owned()));
    assert_no_residue();
}

#[test]
fn cpus_memory_and_disk_are_as_asked() {
    let vm = Vm("sized");
    let create = ["vm", "create", "--image", image(), "--name", vm.0];
    let size = ["--cpus", "2", "--memory", "300M", "--disk", "3G"];
    banger(ALICE, &[&create[..], &size].concat()).expect(0);
    let count = vm.exec(&["sh", "-c", "set -- /sys/devices/system/cpu/cpu[0-9]*; echo $#"]).expect(0);
    assert_eq!(count.text().trim(), "2", "{count}");
    let memory = vm.exec(&["head", "-n", "1", "/proc/meminfo"]).expect(0);
    let kib: u64 = memory.text().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((200 << 10..=300 << 10).contains(&kib), "{memory}");
    let disk = vm.exec(&["cat", "/sys/block/vda/size"]).expect(0);
    assert_eq!(disk.text().trim(), ((3_u64 << 30) / 512).to_string(), "{disk}");
    // The filesystem fills it: more can be written than the image's own 1 GiB holds.
    let blocks = vm.exec(&["sh", "-c", "dd if=/dev/zero of=/big bs=1M count=1500 && rm /big"]);
    blocks.expect(0);
    vm.remove();
}
