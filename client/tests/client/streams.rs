//! The three streams of a command: apart, whole, and closed when they should be.

use crate::bus::Bus;
use std::{
    io::{BufRead, Read},
    process::Stdio,
};

/// Every byte there is, over and over, in an order that a lost or doubled piece would disturb.
fn megabyte() -> Vec<u8> {
    (0..1_048_583u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn a_megabyte_goes_through_and_comes_back() {
    let bus = Bus::new();
    let bytes = megabyte();
    let ran = bus.banger_reading(&["run", "--rm", "-q", "-i", "debian", "--", "cat"], &bytes);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.bytes == bytes, "{} bytes came back", ran.bytes.len());
}

#[test]
fn output_and_errors_stay_apart() {
    let bus = Bus::new();
    let script = "printf 'out\\0\\377'; echo err >&2; cat >&2";
    let ran = bus.banger_reading(&["run", "--rm", "-q", "-i", "debian", "sh", "-c", script], b"in");
    assert_eq!((ran.bytes.as_slice(), ran.err.as_str()), (&b"out\0\xff"[..], "err\nin"));
}

#[test]
fn without_i_the_input_is_empty() {
    let bus = Bus::new();
    let ran = bus.banger_reading(&["run", "--rm", "-q", "debian", "--", "cat"], b"not for you");
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
}

#[test]
fn input_from_a_file_and_output_to_one() {
    let bus = Bus::new();
    let bytes = megabyte();
    std::fs::write(bus.path("in"), &bytes).unwrap();
    let open = |name| std::fs::File::open(bus.path(name)).unwrap();
    let mut command = bus.command(&["run", "--rm", "-q", "-i", "debian", "--", "cat"]);
    let out = std::fs::File::create(bus.path("out")).unwrap();
    let status = command.stdin(open("in")).stdout(out).status().unwrap();
    assert!(status.success());
    assert!(std::fs::read(bus.path("out")).unwrap() == bytes);
}

#[test]
fn the_end_of_input_is_passed_on_while_output_goes_on() {
    let bus = Bus::new();
    let script = "n=$(wc -c); echo $n; echo after";
    let ran = bus.banger_reading(&["run", "--rm", "-q", "-i", "debian", "sh", "-c", script], &megabyte());
    assert_eq!(ran.ok(), "1048583\nafter\n");
}

#[test]
fn a_command_that_does_not_read_its_input_ends_all_the_same() {
    let bus = Bus::new();
    let ran = bus.banger_reading(&["run", "--rm", "-q", "-i", "debian", "--", "true"], &megabyte());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let bus = Bus::new();
    let mut running = bus.start(&["run", "--rm", "-q", "debian", "--", "yes"]);
    let mut line = String::new();
    running.stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "y\n");
    let crate::bus::Running { mut child, stdout, mut stderr } = running;
    drop(stdout);
    let mut errors = String::new();
    stderr.read_to_string(&mut errors).unwrap();
    // What `yes` alone would do: SIGPIPE ends it.
    assert_eq!((crate::bus::code(child.wait().unwrap()), errors.as_str()), (141, ""));
    assert!(bus.state().vms().is_empty());
}

#[test]
fn a_listing_whose_reader_has_left_is_silent() {
    let bus = Bus::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = bus.command(&["image", "ls"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]));
}

#[test]
fn a_full_disk_behind_the_output_is_told() {
    let bus = Bus::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = bus.command(&["run", "--rm", "-q", "debian", "echo", "hi"]).stdout(full).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.contains("standard output") && error.contains("No space left"), "{error}");
}
