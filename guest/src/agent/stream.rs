//! A command's input and outputs, each within its window.

use super::link::Outbox;
use crate::ioctl;
use banger_guest::wire::{INPUT_WINDOW, Kind, MOST_PAYLOAD, OUTPUT_WINDOW, StreamId};
use nix::sys::termios::{self, LocalFlags, SpecialCharacterIndices};
use std::{
    collections::VecDeque,
    fs::File,
    io::{ErrorKind, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

/// What the host sent against the rules.
pub struct Broken;

/// Standard input of a command.
#[derive(Default)]
pub struct Input {
    file: Option<File>,
    is_terminal: bool,
    waiting: VecDeque<u8>,
    ended: bool,
    last: u8,
    /// Bytes that were passed on since the host was last given credit.
    owed: u32,
    /// Bytes that the host may still send.
    window: u32,
}

/// Standard output or error of a command.
pub struct Output {
    file: Option<File>,
    data: Kind,
    end: Kind,
    /// Bytes that the host still has room for.
    credit: u32,
    /// After the command's end: bytes that are still to be sent.
    left: Option<usize>,
}

impl Input {
    pub fn new(file: Option<File>, is_terminal: bool) -> Self {
        Self { file, is_terminal, window: INPUT_WINDOW, ..Self::default() }
    }

    /// The descriptor, and whether something waits to be written to it.
    pub fn watch(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.file.as_ref().map(|f| (f.as_fd(), !self.waiting.is_empty()))
    }

    /// Takes bytes from the host.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let length = u32::try_from(bytes.len()).map_err(|_| Broken)?;
        self.window = self.window.checked_sub(length).filter(|_| !self.ended).ok_or(Broken)?;
        if self.file.is_some() {
            self.waiting.extend(bytes);
        }
        Ok(())
    }

    /// The host has sent everything.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Writes what goes, and gives the host credit for it.
    pub fn pump(&mut self, stream: StreamId, outbox: &mut Outbox) {
        while let (Some(file), false) = (&mut self.file, self.waiting.is_empty()) {
            match file.write(self.waiting.as_slices().0) {
                Ok(n) => {
                    self.last =
                        n.checked_sub(1).and_then(|i| self.waiting.get(i)).copied().unwrap_or(self.last);
                    self.waiting.drain(..n);
                    self.owed += n as u32;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.close(stream, outbox),
            }
        }
        if self.ended && self.waiting.is_empty() {
            self.finish();
        } else if self.owed > 0 && (self.waiting.is_empty() || self.owed >= INPUT_WINDOW / 4) {
            outbox.push(Kind::StdinCredit, stream, &self.owed.to_le_bytes());
            self.window += self.owed;
            self.owed = 0;
        }
    }

    /// Nothing reads it any more.
    pub fn close(&mut self, stream: StreamId, outbox: &mut Outbox) {
        if self.file.take().is_some() && !self.ended {
            outbox.push(Kind::StdinClosed, stream, &[]);
        }
        self.waiting = VecDeque::new();
    }

    /// Passes the end on: a pipe is closed; a terminal that reads lines gets its end-of-file character, twice
    /// after an unfinished line, for the first only hands that over (termios(3), VEOF).
    fn finish(&mut self) {
        if !self.is_terminal {
            self.file = None;
        } else if let Some(mut file) = self.file.take()
            && let Ok(settings) = termios::tcgetattr(&file)
            && settings.local_flags.contains(LocalFlags::ICANON)
        {
            let end = settings.control_chars[SpecialCharacterIndices::VEOF as usize];
            let times = if matches!(self.last, 0 | b'\n') { 1 } else { 2 };
            // Two bytes that find no room have no reader who would miss them.
            let _ = file.write(&[end; 2][..times]);
        }
    }
}

impl Output {
    pub fn stdout(file: Option<File>) -> Self {
        Self { file, data: Kind::Stdout, end: Kind::StdoutEnd, credit: OUTPUT_WINDOW, left: None }
    }

    pub fn stderr(file: Option<File>) -> Self {
        Self { file, data: Kind::Stderr, end: Kind::StderrEnd, credit: OUTPUT_WINDOW, left: None }
    }

    /// The descriptor, while the host has room for what may come out of it.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().filter(|_| self.credit > 0).map(|f| f.as_fd())
    }

    /// The host has room for more.
    pub fn grant(&mut self, credit: u32) -> Result<(), Broken> {
        self.credit = self.credit.checked_add(credit).filter(|c| *c <= OUTPUT_WINDOW).ok_or(Broken)?;
        Ok(())
    }

    /// The command has ended: only what its pipe holds by now is still sent. A terminal's buffer cannot be
    /// counted; there, everything is sent that can be read without waiting, up to a window.
    pub fn last_call(&mut self, is_terminal: bool) {
        let most = OUTPUT_WINDOW as usize;
        self.left = self.file.as_ref().map(|file| match is_terminal {
            true => most,
            false => ioctl::bytes_waiting(file).unwrap_or(0),
        });
    }

    /// Whether the rest can be sent right away.
    pub fn is_due(&self) -> bool {
        self.file.is_some() && self.left.is_some_and(|left| left == 0 || self.credit > 0)
    }

    /// Whether everything was sent.
    pub fn is_done(&self) -> bool {
        self.file.is_none()
    }

    /// Nobody wants it.
    pub fn drop_file(&mut self) {
        self.file = None;
    }

    /// Sends at most one frame of what there is.
    pub fn pump(&mut self, stream: StreamId, outbox: &mut Outbox, scratch: &mut [u8; MOST_PAYLOAD]) {
        let Some(file) = &mut self.file else { return };
        let most = scratch.len().min(self.credit as usize).min(self.left.unwrap_or(usize::MAX));
        if self.left == Some(0) {
            self.finish(stream, outbox);
            return;
        }
        if most == 0 || !outbox.has_room() {
            return;
        }
        match file.read(&mut scratch[..most]) {
            Ok(n @ 1..) => {
                outbox.push(self.data, stream, &scratch[..n]);
                self.credit -= n as u32;
                if let Some(left) = &mut self.left {
                    *left -= n;
                    if *left == 0 {
                        self.finish(stream, outbox);
                    }
                }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock && self.left.is_none() => {}
            // A terminal whose other end was closed says EIO.
            _ => self.finish(stream, outbox),
        }
    }

    fn finish(&mut self, stream: StreamId, outbox: &mut Outbox) {
        self.file = None;
        outbox.push(self.end, stream, &[]);
    }
}
