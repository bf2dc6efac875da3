//! Logs on standard error: with levels that the journal understands when it listens, for people otherwise.

use crate::SystemdError;
use std::{
    env, fmt, fs,
    io::{self, IsTerminal},
    os::unix::fs::MetadataExt,
};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Sets up the log of this process. `filter` says what is logged (`info`, `warn,bangerd=debug`, ...); the
/// environment variable `BANGER_LOG` overrides it.
///
/// # Errors
/// [`SystemdError::Filter`] when the filter cannot be read, [`SystemdError::Twice`] on a second call.
pub fn init_logging(filter: &str) -> Result<(), SystemdError> {
    let filter = env::var("BANGER_LOG").unwrap_or_else(|_| filter.to_owned());
    let parsed = EnvFilter::builder()
        .parse(&filter)
        .map_err(|error| SystemdError::Filter { filter, why: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(io::stderr);
    let result = match stderr_is_journal() {
        true => builder.with_ansi(false).event_format(Journal).try_init(),
        false => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    result.map_err(|_| SystemdError::Twice)
}

/// Whether the journal reads our standard error: `JOURNAL_STREAM` names its device and inode, systemd.exec(5).
/// A child with a redirected standard error inherits the variable, so its presence says too little.
fn stderr_is_journal() -> bool {
    let Ok(metadata) = fs::metadata("/proc/self/fd/2") else { return false };
    env::var("JOURNAL_STREAM").is_ok_and(|stream| names(&stream, metadata.dev(), metadata.ino()))
}

fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

/// One event per line: a priority as sd-daemon(3) has it, then target, text and fields. The journal adds time
/// and process.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        let (priority, target) = (priority(*event.metadata().level()), event.metadata().target());
        // Every line of a longer text gets the priority, or the journal would take the rest for info.
        for line in text.split('\n') {
            writeln!(writer, "<{priority}>{target}: {line}")?;
        }
        Ok(())
    }
}

/// A level as syslog(3) numbers it.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_journal_gets_a_priority_on_every_line() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_ansi(false)
            .event_format(Journal)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "t", vm = "web", "started");
            tracing::error!(target: "t", "one\ntwo");
            tracing::warn!(target: "t", "careful");
            tracing::debug!(target: "t", "detail");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let expected = "<6>t: started vm=\"web\"\n<3>t: one\n<3>t: two\n<4>t: careful\n<7>t: detail\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_journal_is_known_by_its_inode() {
        assert!(names("8:123", 8, 123));
        for stream in ["", "8", "8:", "8:124", "9:123", ":123", "x:y"] {
            assert!(!names(stream, 8, 123), "{stream}");
        }
    }
}
