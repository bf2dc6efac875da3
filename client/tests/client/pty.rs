//! A terminal of our own, for the client and for the fake's commands.

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    process::{Child, Command},
};

/// Both ends.
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Pty {
    /// A new one.
    pub fn new(rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("named");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, Mode::empty()).expect("the other end");
        let pty = Self { master, slave };
        pty.resize(rows, columns);
        pty
    }

    /// Another size; who has the terminal gets SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.master, rows, columns);
    }

    /// Starts a command with this as its controlling terminal.
    pub fn start(&self, command: &Command) -> Child {
        let end = || self.slave.try_clone().expect("a descriptor");
        let mut through = Command::new("/usr/bin/setsid");
        through.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            through.env(name, value.expect("set"));
        }
        through.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid of util-linux")
    }

    /// The settings, as text to compare.
    pub fn settings(&self) -> String {
        format!("{:?}", tcgetattr(&self.slave).expect("settings"))
    }

    /// Whether keys go through one by one.
    pub fn is_raw(&self) -> bool {
        let settings = tcgetattr(&self.slave).expect("settings");
        !settings.local_modes.contains(rustix::termios::LocalModes::ICANON)
    }

    /// Types.
    pub fn write(&self, text: &str) {
        rustix::io::write(&self.master, text.as_bytes()).expect("typed");
    }

    /// Reads on until `text` has come, and returns all that came.
    pub fn read_until(&self, text: &str) -> String {
        let mut master = File::from(self.master.try_clone().expect("a descriptor"));
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let count = master.read(&mut buffer).expect("readable");
            seen.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

/// Another size for a terminal.
pub fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("resized");
}
