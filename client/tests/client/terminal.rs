//! The client on a terminal: raw mode, sizes, bars.

use crate::{
    bus::{Bus, code},
    pty::Pty,
};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_terminal_works_both_ways() {
    let bus = Bus::new();
    let pty = Pty::new(33, 111);
    let before = pty.settings();
    assert!(!pty.is_raw());
    let script = "stty size; echo $TERM; read line; echo \"<$line>\"; exit 9";
    let command = bus.command(&["run", "--rm", "-q", "-it", "debian", "--", "sh", "-c", script]);
    let mut client = pty.start(&command);
    let seen = pty.read_until("xterm\r\n");
    assert!(seen.contains("33 111\r\n"), "{seen:?}");
    assert!(pty.is_raw(), "keys go to the guest one by one");
    pty.write("hello\r");
    pty.read_until("<hello>\r\n");
    assert_eq!(code(client.wait().unwrap()), 9);
    assert_eq!(pty.settings(), before, "the terminal is as it was");
    assert!(bus.state().vms().is_empty());
}

#[test]
fn another_size_and_ctrl_c_reach_the_guest() {
    let bus = Bus::new();
    let pty = Pty::new(24, 80);
    let before = pty.settings();
    let script = "trap 'stty size' WINCH; trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let mut client = pty.start(&bus.command(&["run", "--rm", "-q", "-it", "debian", "sh", "-c", script]));
    pty.read_until("ready");
    pty.resize(50, 132);
    pty.read_until("50 132");
    pty.write("\x03");
    pty.read_until("interrupted");
    assert_eq!(code(client.wait().unwrap()), 5);
    assert_eq!(pty.settings(), before);
    assert!(!bus.state().calls().iter().any(|call| call.starts_with("Signal")), "the key went as a key");
}

#[test]
fn the_terminal_is_as_it_was_after_a_signal() {
    let bus = Bus::new();
    let pty = Pty::new(24, 80);
    let before = pty.settings();
    let words = ["run", "--rm", "-q", "-it", "debian", "sh", "-c", "echo ready; exec sleep 1000"];
    let mut client = pty.start(&bus.command(&words));
    pty.read_until("ready");
    kill_process(Pid::from_child(&client), Signal::TERM).unwrap();
    assert_eq!(code(client.wait().unwrap()), 143);
    assert_eq!(pty.settings(), before);
    assert!(bus.state().vms().is_empty());
}

#[test]
fn a_command_that_does_not_start_leaves_the_terminal_alone() {
    let bus = Bus::new();
    let pty = Pty::new(24, 80);
    let before = pty.settings();
    let mut client =
        pty.start(&bus.command(&["run", "--rm", "-q", "-it", "--name", "broken", "debian", "sh"]));
    pty.read_until("did not come up");
    assert_eq!(code(client.wait().unwrap()), 125);
    assert_eq!(pty.settings(), before);
}

#[test]
fn a_terminal_gets_bars_and_a_hint() {
    let bus = Bus::new();
    let pty = Pty::new(24, 120);
    let mut command = bus.command(&["run", "--name", "box", "127.0.0.1:5000/x", "echo", "done"]);
    let mut client = pty.start(command.env("TERM", "xterm"));
    let seen = pty.read_until("banger vm rm --force box");
    assert_eq!(code(client.wait().unwrap()), 0);
    assert!(
        seen.contains("127.0.0.1:5000/x: pulling [===") && seen.contains("50.00 MiB of 100.00 MiB"),
        "{seen:?}"
    );
    assert!(seen.contains("done\r\n"), "{seen:?}");
}

#[test]
fn a_terminal_that_cannot_draw_gets_lines() {
    let bus = Bus::new();
    let pty = Pty::new(24, 120);
    let mut command = bus.command(&["image", "pull", "127.0.0.1:5000/x"]);
    let mut client = pty.start(command.env("TERM", "dumb"));
    let seen = pty.read_until("pulled\r\n");
    assert_eq!(code(client.wait().unwrap()), 0);
    assert!(seen.contains("x: pulling 50 MiB of 100 MiB (50%)\r\n") && !seen.contains('\x1b'), "{seen:?}");
}

#[test]
fn pruning_takes_no_for_an_answer() {
    let bus = Bus::new();
    for (answer, outcome) in [("\r", "nothing removed"), ("y\r", "removed 3 things")] {
        let pty = Pty::new(24, 120);
        let mut client = pty.start(&bus.command(&["-q", "image", "prune"]));
        pty.read_until("[y/N] ");
        pty.write(answer);
        pty.read_until(outcome);
        assert_eq!(code(client.wait().unwrap()), 0);
    }
}

#[test]
fn a_filesystem_is_not_written_to_a_terminal() {
    let bus = Bus::new();
    let pty = Pty::new(24, 120);
    let mut client = pty.start(&bus.command(&["image", "export", "debian", "-o", "-"]));
    pty.read_until("nothing for a terminal");
    assert_eq!(code(client.wait().unwrap()), 125);
}

#[test]
fn a_console_is_left_by_three_keys() {
    let bus = Bus::new();
    bus.banger(&["vm", "create", "--image", "debian", "--name", "box"]).ok();
    let pty = Pty::new(24, 80);
    let before = pty.settings();
    let mut client = pty.start(&bus.command(&["vm", "console", "box"]));
    pty.read_until("console\r\n");
    pty.write("\x03");
    pty.read_until("\x03");
    pty.write("\x1d\x1d\x1d");
    assert_eq!(code(client.wait().unwrap()), 0);
    assert_eq!(pty.settings(), before);
}
