//! `banger events`: what happens to images, VMs and jobs, as it happens.

use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    error::Error,
    output::{self, Format},
};
use banger_dbus::{
    Object,
    model::{ImageId, JobId, VmId},
    names,
    zbus::{
        self, MatchRule, Message, MessageStream, OwnedObjectPath, Variant, fdo::PropertiesChanged,
        message::Type,
    },
};
use clap::Args;
use futures_util::StreamExt;
use serde::Serialize;
use std::{
    collections::HashMap,
    num::NonZero,
    time::{SystemTime, UNIX_EPOCH},
};

/// Signals that wait to be written before the bus is held up.
const BACKLOG: Option<NonZero<usize>> = NonZero::new(256);

/// How they are written.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// One line each: words, or a JSON object.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Something that happened. Only what every user of the host may know travels in signals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// Seconds since 1970.
    time: u64,
    /// `image`, `vm` or `job`.
    kind: &'static str,
    /// `added`, `removed`, `state` or `name`.
    event: &'static str,
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// The new state.
    #[serde(skip_serializing_if = "String::is_empty")]
    state: String,
}

/// Writes events until somebody has had enough.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn events(context: &mut Context, args: EventsArgs) -> Result<(), Error> {
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(names::SERVICE).build()?;
    let mut signals = MessageStream::for_match_rule(rule, &context.connection, BACKLOG).await?;
    let mut known = Names::default();
    loop {
        let message = tokio::select! {
            message = signals.next() => message,
            signal = context.signals.end() => return Err(Error::Interrupted(signal)),
        };
        let Some(message) = message else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        for mut event in read(&message?, now) {
            known.name(&context.connection, &mut event).await;
            match args.format.format {
                Format::Json => output::print_line(&line(&event)?)?,
                Format::Table => output::print_line(&words(&event))?,
            }
        }
    }
}

fn line(event: &Event) -> Result<String, Error> {
    serde_json::to_string(event)
        .map_err(|error| Error::Usage(format!("this cannot be written as JSON: {error}")))
}

fn words(event: &Event) -> String {
    let time = clock(event.time);
    let parts = [time.as_str(), event.kind, event.event, &event.id, &event.name, &event.state];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What a signal tells.
fn read(message: &Message, time: u64) -> Vec<Event> {
    let header = message.header();
    let (Some(path), Some(member)) = (header.path(), header.member()) else { return Vec::new() };
    let event =
        |kind, event, id: String| Event { time, kind, event, id, name: String::new(), state: String::new() };
    let about = |kind, what| {
        let path: Option<OwnedObjectPath> = message.body().deserialize().ok();
        path.and_then(|path| id_of(kind, path.as_str())).map(|id| event(kind, what, id)).into_iter().collect()
    };
    match member.as_str() {
        "VMAdded" => about("vm", "added"),
        "VMRemoved" => about("vm", "removed"),
        "ImageAdded" => about("image", "added"),
        "ImageRemoved" => about("image", "removed"),
        "JobAdded" => about("job", "added"),
        "JobRemoved" => about("job", "removed"),
        "PropertiesChanged" => changes(message, path.as_str())
            .into_iter()
            .filter_map(|(kind, property, value)| {
                let id = id_of(kind, path.as_str())?;
                Some(match property {
                    "Name" => Event { name: value, ..event(kind, "name", id) },
                    _ => Event { state: value, ..event(kind, "state", id) },
                })
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn id_of(kind: &str, path: &str) -> Option<String> {
    match kind {
        "vm" => VmId::from_path(path).map(|id| id.to_string()),
        "image" => ImageId::from_path(path).map(|id| id.to_string()),
        _ => JobId::from_path(path).map(|id| id.to_string()),
    }
}

/// The properties that matter here: names, and states.
fn changes(message: &Message, path: &str) -> Vec<(&'static str, &'static str, String)> {
    let kind = match path {
        path if path.starts_with(VmId::PREFIX) => "vm",
        path if path.starts_with(ImageId::PREFIX) => "image",
        path if path.starts_with(JobId::PREFIX) => "job",
        _ => return Vec::new(),
    };
    let Some(signal) = PropertiesChanged::from_message(message.clone()) else { return Vec::new() };
    let Ok(arguments) = signal.args() else { return Vec::new() };
    let text = |name| match arguments.changed_properties.get(name) {
        Some(Variant::Str(text)) => Some((kind, name, text.to_string())),
        _ => None,
    };
    ["Name", "State"].into_iter().filter_map(text).collect()
}

/// The names of things, by their ids, as far as they are known.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    /// Adds the name that a thing has, or had when it was last heard of.
    async fn name(&mut self, connection: &zbus::Connection, event: &mut Event) {
        if event.event == "removed" {
            event.name = self.0.remove(&event.id).unwrap_or_default();
            return;
        }
        if event.name.is_empty() {
            event.name = match self.0.get(&event.id) {
                Some(name) => name.clone(),
                None => ask(connection, event).await.unwrap_or_default(),
            };
        }
        self.0.insert(event.id.clone(), event.name.clone());
    }
}

/// A name may have to be asked for, and the thing may be gone by then.
async fn ask(connection: &zbus::Connection, event: &Event) -> Option<String> {
    match event.kind {
        "vm" => bus::vm(connection, event.id.parse::<VmId>().ok()?.path()).await.ok()?.name().await.ok(),
        "image" => {
            bus::image(connection, event.id.parse::<ImageId>().ok()?.path()).await.ok()?.name().await.ok()
        }
        _ => {
            let job = bus::job(connection, event.id.parse::<JobId>().ok()?.path()).await.ok()?;
            let (kind, subject) = tokio::join!(job.kind(), job.subject());
            Some(format!("{} {}", kind.ok()?, subject.ok()?).trim_end().to_owned())
        }
    }
}

/// A time as RFC 3339 writes it, in UTC.
fn clock(time: u64) -> String {
    let (days, seconds) = (time / 86_400, time % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date so many days after 1970-01-01 (Gregorian; Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(clock(time), text);
        }
    }

    #[test]
    fn signals_become_events() {
        let vm = VmId::from_bits(7);
        let added = Message::signal(names::MANAGER_PATH, names::MANAGER_INTERFACE, "VMAdded");
        let [event] = &read(&added.build(&vm.path()).unwrap(), 1)[..] else { panic!("one event") };
        assert_eq!((event.kind, event.event, event.id.as_str()), ("vm", "added", vm.to_string().as_str()));
        assert_eq!(words(event), format!("1970-01-01T00:00:01Z vm added {vm}"));
        let changed = || Message::signal(vm.path(), "org.freedesktop.DBus.Properties", "PropertiesChanged");
        let properties = |name: &'static str| HashMap::from([(name, Variant::from("paused"))]);
        let body = (names::VM_INTERFACE, properties("State"), Vec::<String>::new());
        let [event] = &read(&changed().build(&body).unwrap(), 1)[..] else { panic!("one event") };
        assert_eq!((event.event, event.state.as_str()), ("state", "paused"));
        let body = (names::VM_INTERFACE, properties("Addresses"), Vec::<String>::new());
        assert!(read(&changed().build(&body).unwrap(), 1).is_empty());
        let other = Message::signal("/org/other", "org.other", "JobProgress");
        assert!(read(&other.build(&"x").unwrap(), 1).is_empty());
    }
}
