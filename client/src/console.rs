//! A VM's serial console on the user's terminal.

use crate::{
    context::Context,
    error::Error,
    progress::note,
    pump::{self, End},
    terminal::Raw,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Ctrl-], which three times in a row means to leave, as with machinectl.
const ESCAPE: u8 = 0x1d;
/// How often it is to be pressed.
const TIMES: u32 = 3;
/// Within which time.
const WITHIN: Duration = Duration::from_secs(1);

/// Connects the terminal with the console until either has had enough.
///
/// # Errors
/// [`Error::File`] if a stream broke, [`Error::Interrupted`] if a signal ended it.
pub async fn talk(context: &mut Context, name: &str, stream: OwnedFd) -> Result<(), Error> {
    let keys = stream.try_clone().map_err(|e| Error::file("use", "the console", e))?;
    let raw = Raw::new().map_err(|e| Error::file("use", "the terminal", e))?;
    if raw.is_some() && !context.quiet {
        note(&format!("Connected to the console of {name}; Ctrl-] three times within a second leaves.\r"));
    }
    let left = type_into(keys, raw.is_some());
    let shown = pump::start(stream, io::stdout());
    let result = tokio::select! {
        end = shown => match end {
            Ok(End::Failed(error)) => Err(Error::file("use", "the console", error)),
            Ok(End::Closed) => Err(Error::OutputClosed),
            _ => Ok(()),
        },
        Ok(()) = left => Ok(()),
        signal = context.signals.end() => Err(Error::Interrupted(signal)),
    };
    drop(raw);
    if !context.quiet && io::IsTerminal::is_terminal(&io::stderr()) {
        note("");
    }
    result
}

/// Passes on what is typed. Tells when the user leaves; the end of an input that is no terminal is no wish
/// to leave.
fn type_into(console: OwnedFd, terminal: bool) -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    thread::spawn(move || {
        let mut escape = Escape::default();
        let mut buffer = [0; 4096];
        loop {
            let count = match rustix::io::read(io::stdin(), &mut buffer) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            if terminal && escape.is_in(&buffer[..count], Instant::now()) {
                let _ = tell.send(());
                return;
            }
            if pump::write_all(console.as_fd(), &buffer[..count]).is_err() {
                break;
            }
        }
        if !terminal {
            // Kept, not dropped, so that the sight of the console goes on.
            std::mem::forget(tell);
        }
    });
    told
}

/// Counts the keys that mean to leave.
#[derive(Default)]
struct Escape {
    pressed: u32,
    first: Option<Instant>,
}

impl Escape {
    /// Whether the user leaves with `keys`, typed at `now`.
    fn is_in(&mut self, keys: &[u8], now: Instant) -> bool {
        for key in keys {
            let late = self.first.is_some_and(|first| now.saturating_duration_since(first) > WITHIN);
            if *key != ESCAPE || late {
                (self.pressed, self.first) = (0, None);
            }
            if *key == ESCAPE {
                self.pressed += 1;
                self.first.get_or_insert(now);
            }
            if self.pressed == TIMES {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quick_presses_leave() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!(Escape::default().is_in(&[b'a', ESCAPE, ESCAPE, ESCAPE], at(0)));
        let mut escape = Escape::default();
        assert!(!escape.is_in(&[ESCAPE], at(0)));
        assert!(!escape.is_in(&[ESCAPE], at(400)));
        assert!(escape.is_in(&[ESCAPE], at(800)));
    }

    #[test]
    fn slow_or_broken_presses_do_not() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut escape = Escape::default();
        assert!(!escape.is_in(&[ESCAPE, ESCAPE], at(0)));
        assert!(!escape.is_in(&[ESCAPE], at(1_500)), "too late: it is the first of the next three");
        assert!(!escape.is_in(&[ESCAPE, b'x', ESCAPE], at(1_600)));
        assert!(escape.is_in(&[ESCAPE, ESCAPE], at(1_700)));
    }
}
