//! `banger run -it`: a working terminal.

use crate::support::{ALICE, Vm, image};
use banger_harness::inside::{assert_no_residue, client};
use nix::pty::{Winsize, openpty};
use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    process::{Child, Command},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// The longest that a screen may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// A program on a terminal of its own, as a person would sit before it.
struct Screen {
    keyboard: File,
    /// The program's end, so that its size can be changed.
    slave: File,
    shown: Receiver<Vec<u8>>,
    text: String,
    child: Child,
}

impl Screen {
    fn start(command: &Command, rows: u16, columns: u16) -> Screen {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let (master, slave) = (File::from(pty.master), File::from(pty.slave));
        let mut program = Command::new("/usr/bin/setsid");
        program
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir("/")
            .env("TERM", "xterm");
        let stdio = || slave.try_clone().unwrap();
        let child = program.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let (sender, shown) = channel();
        let mut screen = master.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Screen { keyboard: master, slave, shown, text: String::new(), child }
    }

    fn type_(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the screen shows `wanted`, and forgets everything up to it.
    #[track_caller]
    fn expect(&mut self, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some((_, rest)) = self.text.split_once(wanted) {
                self.text = rest.to_owned();
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("the screen never showed {wanted:?}; it shows {:?}", self.text),
            }
        }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let mut stty = Command::new("/usr/bin/stty");
        stty.arg("-F").arg(format!("/proc/{}/fd/{}", std::process::id(), self.slave.as_raw_fd()));
        let status = stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn code(mut self) -> i32 {
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After a failure it may still wait for somebody to type.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_shell_on_a_terminal_works() {
    // --rm removes it; this does after a failure.
    let vm = Vm("on-screen");
    let mut screen =
        Screen::start(&client(ALICE, &["run", "--rm", "-it", "--name", vm.0, image(), "--", "sh"]), 33, 101);
    screen.expect("# ");
    screen.type_("tty; stty size\n");
    screen.expect("/dev/");
    screen.expect("33 101");
    screen.expect("# ");

    // What is typed is edited by the guest's terminal, not by this one.
    screen.type_("echo abx\x7fc\n");
    screen.expect("\nabc");
    screen.expect("# ");

    // Ctrl-C reaches the command, not the client.
    screen.type_("sh -c 'echo sleep\"\"ing; exec sleep 1000'\n");
    screen.expect("\nsleeping");
    screen.type_("\x03");
    screen.expect("# ");

    screen.resize(40, 120);
    screen.type_("while [ \"$(stty size)\" != '40 120' ]; do :; done; echo res''ized\n");
    screen.expect("resized");
    screen.expect("# ");
    screen.type_("exit 7\n");
    assert_eq!(screen.code(), 7);
    assert_no_residue();
}

#[test]
fn the_terminal_is_left_as_it_was() {
    let command = client(ALICE, &["run", "--rm", "-it", image(), "--", "true"]);
    let screen = Screen::start(&command, 24, 80);
    let slave = screen.slave.try_clone().unwrap();
    let settings = || nix::sys::termios::tcgetattr(&slave).unwrap();
    let before = settings();
    assert_eq!(screen.code(), 0);
    let after = settings();
    assert_eq!(before.local_flags, after.local_flags);
    assert_eq!(before.input_flags, after.input_flags);
    assert_eq!(before.output_flags, after.output_flags);
}
