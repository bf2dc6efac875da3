//! One line of QMP, parsed.
//!
//! <https://www.qemu.org/docs/master/interop/qmp-spec.html>

use serde::Deserialize;
use serde_json::Value;

/// What QEMU says, one JSON object per line.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first line: QEMU's version.
    Greeting {
        /// Such as `7.2.22`.
        version: String,
    },
    /// A command has been carried out.
    Return {
        /// Which command.
        id: Option<u64>,
        /// What it returns.
        value: Value,
    },
    /// A command failed.
    Error {
        /// Which command.
        id: Option<u64>,
        /// QEMU's sentence.
        reason: String,
    },
    /// Something happened by itself.
    Event(Event),
}

/// Something that happened in QEMU by itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    /// Such as `SHUTDOWN`.
    #[serde(rename = "event")]
    pub name: String,
    /// What it carries.
    #[serde(default)]
    pub data: Value,
}

/// Every shape at once: which of them a line is, its keys tell.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Greeting>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Failure>,
    event: Option<String>,
    data: Option<Value>,
    id: Option<Value>,
}

#[derive(Deserialize)]
struct Greeting {
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    qemu: Triple,
}

#[derive(Deserialize)]
struct Triple {
    major: u64,
    minor: u64,
    micro: u64,
}

#[derive(Deserialize)]
struct Failure {
    desc: String,
}

impl Message {
    /// Reads one line, without its end.
    ///
    /// # Errors
    /// What is wrong with it, as a short text.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let id = line.id.as_ref().and_then(Value::as_u64);
        match line {
            Line { greeting: Some(Greeting { version: Version { qemu } }), .. } => {
                Ok(Message::Greeting { version: format!("{}.{}.{}", qemu.major, qemu.minor, qemu.micro) })
            }
            Line { error: Some(Failure { desc }), .. } => Ok(Message::Error { id, reason: desc }),
            Line { event: Some(name), data, .. } => {
                Ok(Message::Event(Event { name, data: data.unwrap_or_default() }))
            }
            Line { value: Some(value), .. } => Ok(Message::Return { id, value }),
            _ => Err("neither a greeting, a return, an error nor an event".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn reads_what_qemu_says() {
        let greeting = br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}"#;
        let event = br#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#;
        for (line, message) in [
            (&greeting[..], Message::Greeting { version: "7.2.22".into() }),
            (br#"{"return": {}, "id": 3}"#, Message::Return { id: Some(3), value: json!({}) }),
            (
                br#"{"error": {"class": "GenericError", "desc": "no"}}"#,
                Message::Error { id: None, reason: "no".into() },
            ),
            (event, Message::Event(Event { name: "STOP".into(), data: Value::Null })),
        ] {
            assert_eq!(Message::parse(line), Ok(message));
        }
    }

    #[test]
    fn refuses_the_rest() {
        for line in [&b""[..], b"{}", b"[]", b"null", b"{\"return\"", b"{\"event\": 1}", b"\xff"] {
            assert!(Message::parse(line).is_err(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(line: Vec<u8>) {
            let _ = Message::parse(&line);
        }

        #[test]
        fn an_answer_keeps_its_number(id: u64, text: String) {
            let line = json!({"error": {"class": "GenericError", "desc": text}, "id": id}).to_string();
            prop_assert_eq!(Message::parse(line.as_bytes()), Ok(Message::Error { id: Some(id), reason: text }));
        }
    }
}
