//! The client against a QEMU that says what the test wants.

use super::*;
use proptest::prelude::*;
use std::future::Future;
use tokio::io::{AsyncBufReadExt, BufReader};

const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 1, "major": 10}}, "capabilities": []}}"#;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(future)
}

/// QEMU's end: answers each command with the next of `answers`, in which `ID` stands for the command's number.
async fn play(stream: UnixStream, answers: &[&str]) -> Vec<String> {
    let (reader, mut writer) = stream.into_split();
    let mut commands = BufReader::new(reader).lines();
    let mut heard = Vec::new();
    writer.write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
    for answer in [r#"{"return": {}, "id": ID}"#].iter().chain(answers) {
        let command: Value = serde_json::from_str(&commands.next_line().await.unwrap().unwrap()).unwrap();
        heard.push(command["execute"].as_str().unwrap().to_owned());
        let answer = answer.replace("ID", &command["id"].to_string());
        writer.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
    }
    heard
}

/// Runs `client` against `answers`; returns its result and the commands that QEMU heard.
fn against<T>(answers: &[&str], client: impl AsyncFnOnce(&mut Qmp) -> T) -> (T, Vec<String>) {
    run(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let speak = async {
            let mut qmp = Qmp::connect(ours).await.unwrap();
            assert_eq!(qmp.version(), "10.1.0");
            client(&mut qmp).await
        };
        tokio::join!(speak, play(theirs, answers))
    })
}

#[test]
fn commands_have_their_words() {
    let nothing = r#"{"return": {}, "id": ID}"#;
    let (result, heard) = against(&[nothing; 4], async |qmp| {
        qmp.stop().await?;
        qmp.cont().await?;
        qmp.power_down().await?;
        qmp.quit().await
    });
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(heard, ["qmp_capabilities", "stop", "cont", "system_powerdown", "quit"]);
}

#[test]
fn status_is_read() {
    for (word, state) in [
        ("running", RunState::Running),
        ("paused", RunState::Paused),
        ("io-error", RunState::Other("io-error".into())),
    ] {
        let answer = format!(r#"{{"return": {{"status": "{word}", "running": false}}, "id": ID}}"#);
        let (result, _) = against(&[&answer], async |qmp| qmp.status().await);
        assert_eq!(result.unwrap(), state);
    }
    let (result, _) = against(&[r#"{"return": {}, "id": ID}"#], async |qmp| qmp.status().await);
    assert!(matches!(result, Err(QmpError::Malformed { .. })));
}

#[test]
fn a_refusal_says_what_was_asked() {
    let answer = r#"{"error": {"class": "GenericError", "desc": "not now"}, "id": ID}"#;
    let (result, _) = against(&[answer], async |qmp| qmp.cont().await);
    assert_eq!(result.unwrap_err().to_string(), "QEMU refused cont: not now");
}

#[test]
fn events_wait_and_stale_answers_are_skipped() {
    let answer = [
        r#"{"return": {"status": "paused"}, "id": 999}"#,
        r#"{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 0}}"#,
        r#"{"event": "SHUTDOWN", "data": {"guest": true}}"#,
        r#"{"return": {"status": "running"}, "id": ID}"#,
    ]
    .join("\r\n");
    let (names, _) = against(&[&answer], async |qmp| {
        assert_eq!(qmp.status().await.unwrap(), RunState::Running);
        let first = qmp.event().await.unwrap();
        let second = qmp.event().await.unwrap();
        assert_eq!(second.data["guest"], true);
        (first.name, second.name)
    });
    assert_eq!(names, ("STOP".into(), "SHUTDOWN".into()));
}

#[test]
fn only_the_last_events_are_kept() {
    let mut answer: Vec<String> = (0..100).map(|n| format!(r#"{{"event": "E{n}"}}"#)).collect();
    answer.push(r#"{"return": {}, "id": ID}"#.into());
    let (first, _) = against(&[&answer.join("\n")], async |qmp| {
        qmp.stop().await.unwrap();
        qmp.event().await.unwrap().name
    });
    assert_eq!(first, "E36");
}

#[test]
fn an_end_is_told() {
    let (result, _) = against(&[], async |qmp| (qmp.stop().await, qmp.quit().await));
    assert!(matches!(result.0, Err(QmpError::Closed | QmpError::Io(_))));
    assert!(result.1.is_ok(), "that it is gone is just what quit wants: {:?}", result.1);
}

/// What becomes of a connection on which QEMU says `bytes` and hangs up.
fn greeted_with(bytes: Vec<u8>) -> Result<Qmp, QmpError> {
    run(async {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let speak = async {
            // A client that has heard enough hangs up.
            let _ = theirs.write_all(&bytes).await;
            let _ = theirs.shutdown().await;
            theirs
        };
        tokio::join!(Qmp::connect(ours), speak).0
    })
}

#[test]
fn a_line_has_a_limit() {
    assert!(matches!(greeted_with(vec![b' '; 10 * LONGEST_LINE]), Err(QmpError::LineTooLong)));
    assert!(matches!(greeted_with(b"{}\n".to_vec()), Err(QmpError::Malformed { .. })));
    assert!(matches!(greeted_with(b"{\"return\": {}}\n".to_vec()), Err(QmpError::Malformed { .. })));
    assert!(matches!(greeted_with(GREETING.into()), Err(QmpError::Closed)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_qemu_says_ends_in_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(greeted_with(bytes).is_err());
    }

    #[test]
    fn lines_may_come_in_pieces(cuts in proptest::collection::vec(1..40usize, 1..30)) {
        let answer = r#"{"return": {"status": "running"}, "id": 2}"#;
        let text = format!("{GREETING}\r\n{{\"return\": {{}}, \"id\": 1}}\r\n{answer}\r\n");
        let state = run(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let speak = async {
                let mut rest = text.as_bytes();
                for cut in cuts.iter().cycle() {
                    let (now, later) = rest.split_at((*cut).min(rest.len()));
                    theirs.write_all(now).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = later;
                    if rest.is_empty() {
                        return theirs;
                    }
                }
                theirs
            };
            let listen = async { Qmp::connect(ours).await.unwrap().status().await.unwrap() };
            tokio::join!(listen, speak).0
        });
        prop_assert_eq!(state, RunState::Running);
    }
}
