//! Commands, from the host's request to their exit code, through the real agent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use banger_agent::{AgentError, ExecFailure, ExecRequest, ExitStatus, WindowSize};
use common::{Outcome, command, connect, finish, noise, run, script};
use std::{fs, os::unix::fs::PermissionsExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn input(request: ExecRequest) -> ExecRequest {
    ExecRequest { stdin: true, ..request }
}

#[tokio::test]
async fn the_exit_code_is_the_commands_own() {
    let (_guest, agent) = connect().await;
    for (text, status) in [
        ("exit 42", ExitStatus::Code(42)),
        ("exit 0", ExitStatus::Code(0)),
        ("exit 255", ExitStatus::Code(255)),
        ("kill -9 $$", ExitStatus::Signal(9)),
        ("kill -s RTMIN $$", ExitStatus::Signal(34)),
    ] {
        assert_eq!(run(&agent, script(text), b"").await.status, status, "{text}");
    }
}

#[tokio::test]
async fn three_streams_stay_apart_and_every_byte_arrives() {
    let (_guest, agent) = connect().await;
    let bytes = noise(6 << 20, 7);
    let outcome = run(&agent, input(script("printf oops >&2; cat; printf done >&2; exit 7")), &bytes).await;
    assert_eq!(outcome.status, ExitStatus::Code(7));
    assert!(outcome.stdout == bytes, "{} bytes came back", outcome.stdout.len());
    assert_eq!(outcome.stderr, b"oopsdone");
}

#[tokio::test]
async fn arguments_arrive_exactly() {
    let (_guest, agent) = connect().await;
    let long = "x".repeat(100_000);
    let arguments = ["", " ", "a b", "'\"$(id)\\", "line\nline", "naïve \u{1f600}", "--", &long];
    let outcome = run(&agent, command(&[&["printf", "%s\\0"], &arguments[..]].concat()), b"").await;
    let expected: Vec<u8> = arguments.iter().flat_map(|a| [a.as_bytes(), b"\0"].concat()).collect();
    assert!(outcome.stdout == expected, "{:?}", outcome.text());
}

#[tokio::test]
async fn environment_and_working_folder() {
    let (_guest, agent) = connect().await;
    let request = ExecRequest {
        env: vec!["A=1".into(), "B=x=y z".into(), "PATH=/bin:/usr/bin".into(), "A=2".into()],
        cwd: Some("/usr".into()),
        ..script("pwd; env | sort")
    };
    let outcome = run(&agent, request, b"").await;
    let lines: Vec<&str> = outcome.text().lines().filter(|l| !l.starts_with("_=")).collect();
    assert_eq!(lines[..4], ["/usr", "A=2", "B=x=y z", lines[3]]);
    assert!(lines.contains(&"PATH=/bin:/usr/bin"), "{lines:?}");
    let names: Vec<&str> = lines[1..].iter().filter_map(|l| l.split('=').next()).collect();
    assert_eq!(
        names,
        ["A", "B", "HOME", "LOGNAME", "PATH", "PWD", "USER"],
        "nothing of the agent's own leaks in"
    );
}

#[tokio::test]
async fn a_command_finds_clean_signals_and_no_strange_descriptors() {
    let (_guest, agent) = connect().await;
    let outcome = run(&agent, command(&["cat", "/proc/self/status"]), b"").await;
    for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(outcome.text().contains(line), "{line} in {}", outcome.text());
    }
    let outcome = run(&agent, command(&["ls", "/proc/self/fd"]), b"").await;
    assert_eq!(outcome.text().split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "3 is ls's own");
}

#[tokio::test]
async fn users_and_groups() {
    let (_guest, agent) = connect().await;
    let id = || script("id -u; id -g; id -G; echo $HOME; echo $USER; echo x >/dev/stdout");
    let of = async |user: &str| {
        let request = ExecRequest { user: Some(user.into()), ..id() };
        let outcome = run(&agent, request, b"").await;
        assert_eq!(outcome.status, ExitStatus::Code(0), "{outcome:?}");
        outcome.text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    if nix_is_root() {
        assert_eq!(of("nobody").await, ["65534", "65534", "65534", "/nonexistent", "nobody", "x"]);
        assert_eq!(of("4321:1234").await, ["4321", "1234", "1234", "/", "4321", "x"]);
        assert_eq!(of("root").await[..3], ["0", "0", "0"]);
    }
    let own = nix_uid();
    assert_eq!(of(&own.to_string()).await[0], own.to_string());
}

fn nix_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap())
}

fn nix_is_root() -> bool {
    nix_uid() == 0
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let (_guest, agent) = connect().await;
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("script");
    fs::write(&bad, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o755)).unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "neither\n").unwrap();
    let garbage = folder.path().join("garbage");
    fs::write(&garbage, "\0\u{1}\u{2}\u{3}").unwrap();
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o755)).unwrap();
    let (bad, plain, garbage) = (bad.to_str().unwrap(), plain.to_str().unwrap(), garbage.to_str().unwrap());
    let cwd = |path: &str| ExecRequest { cwd: Some(path.into()), ..command(&["true"]) };
    let user = |name: &str| ExecRequest { user: Some(name.into()), ..command(&["true"]) };
    for (request, expected) in [
        (command(&["no-such-program"]), ExecFailure::NotFound),
        (command(&["/no/such/program"]), ExecFailure::NotFound),
        (command(&["/etc/passwd/x"]), ExecFailure::NotFound),
        (command(&[plain]), ExecFailure::NotExecutable(13)),
        (command(&["/etc"]), ExecFailure::NotExecutable(13)),
        (command(&[bad]), ExecFailure::NotExecutable(2)),
        (command(&[garbage]), ExecFailure::NotExecutable(8)),
        (cwd("/no/such/folder"), ExecFailure::WorkingDirectory(2)),
        (cwd("/etc/passwd"), ExecFailure::WorkingDirectory(20)),
        (user("no-such-user"), ExecFailure::NoSuchUser),
        (user("root:no-such-group"), ExecFailure::NoSuchGroup),
    ] {
        let what = format!("{request:?}");
        match agent.exec(request).await {
            Err(AgentError::Command { failure, .. }) => assert_eq!(failure, expected, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    let error = agent.exec(user("no-such-user")).await.unwrap_err();
    assert_eq!(error.to_string(), "the guest has no user \"no-such-user\"");
    let relative = ExecRequest { cwd: Some("usr".into()), ..command(&["true"]) };
    for request in [command(&[]), command(&[""]), command(&["a\0b"]), relative, script(&"x".repeat(300_000))]
    {
        assert!(matches!(agent.exec(request).await, Err(AgentError::Invalid(_))));
    }
    assert_eq!(run(&agent, script("exit 5"), b"").await.status, ExitStatus::Code(5), "and life goes on");
}

#[tokio::test]
async fn the_end_of_input_passes_through() {
    let (_guest, agent) = connect().await;
    let outcome = run(&agent, input(command(&["cat"])), b"last words").await;
    assert_eq!((outcome.status, outcome.text()), (ExitStatus::Code(0), "last words"));
    let outcome = run(&agent, input(command(&["wc", "-c"])), b"").await;
    assert_eq!(outcome.text().trim(), "0");
    let outcome = run(&agent, command(&["readlink", "/proc/self/fd/0"]), b"").await;
    assert_eq!(outcome.text(), "/dev/null\n", "without input");
}

#[tokio::test]
async fn input_that_nobody_reads_is_a_broken_pipe() {
    let (_guest, agent) = connect().await;
    let mut exec = agent.exec(input(script("exec <&-; echo closed; sleep 1000"))).await.unwrap();
    let mut word = [0; 7];
    exec.stdout.read_exact(&mut word).await.unwrap();
    // A pipe says that it has no reader only to whoever writes.
    let error = loop {
        if let Err(error) = exec.stdin.write_all(&[0; 4096]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    exec.control.signal(9).unwrap();
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Signal(9));
}

#[tokio::test]
async fn a_command_that_ends_early_does_not_wait_for_its_input() {
    let (_guest, agent) = connect().await;
    let outcome = run(&agent, input(script("head -c 5; exit 3")), &noise(3 << 20, 1)).await;
    assert_eq!(outcome, Outcome { status: ExitStatus::Code(3), stdout: noise(5, 1), stderr: vec![] });
}

#[tokio::test]
async fn signals_reach_the_whole_process_group() {
    let (_guest, agent) = connect().await;
    let text = "trap 'echo caught; exit 9' USR1; sh -c 'trap \"echo child; exit\" USR1; echo up; \
                while :; do sleep 0.1; done' & wait; wait";
    let mut exec = agent.exec(script(text)).await.unwrap();
    let mut up = [0; 3];
    exec.stdout.read_exact(&mut up).await.unwrap();
    exec.control().signal(10).unwrap();
    let outcome = finish(exec, b"").await;
    assert_eq!(outcome.status, ExitStatus::Code(9));
    assert!(outcome.text().contains("caught"), "{outcome:?}");
    assert!(agent.ping().await.is_ok());
    let exec = agent.exec(command(&["sleep", "1000"])).await.unwrap();
    for number in [0, 65, -1] {
        assert!(matches!(exec.control.signal(number), Err(AgentError::Invalid(_))), "{number}");
    }
    exec.control.signal(15).unwrap();
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Signal(15));
}

#[tokio::test]
async fn a_process_left_behind_does_not_hold_up_the_end() {
    let (_guest, agent) = connect().await;
    let outcome = run(&agent, script("sleep 1000 & echo $!; exit 3"), b"").await;
    assert_eq!(outcome.status, ExitStatus::Code(3));
    let left: i32 = outcome.text().trim().parse().unwrap();
    let outcome = run(&agent, script(&format!("kill -9 {left}")), b"").await;
    assert_eq!(outcome.status, ExitStatus::Code(0), "it was still there");
}

#[tokio::test]
async fn what_was_written_before_the_end_arrives_although_somebody_goes_on_writing() {
    let (_guest, agent) = connect().await;
    let outcome =
        run(&agent, script("(while :; do echo y; done) & echo $! >&2; head -c 60000 /dev/zero"), b"").await;
    assert_eq!(outcome.status, ExitStatus::Code(0));
    assert_eq!(outcome.stdout.iter().filter(|b| **b == 0).count(), 60000);
    // Its next word meets a pipe without a reader.
    let left = String::from_utf8(outcome.stderr).unwrap();
    let gone = script(&format!("while kill -0 {} 2>/dev/null; do sleep 0.01; done", left.trim()));
    assert_eq!(run(&agent, gone, b"").await.status, ExitStatus::Code(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once() {
    let (_guest, agent) = connect().await;
    let agent = std::sync::Arc::new(agent);
    let tasks = (0..100u64).map(|i| {
        let agent = agent.clone();
        tokio::spawn(async move {
            let bytes = noise(100_000, i + 1);
            let outcome = run(&agent, input(script(&format!("cat; echo {i} >&2; exit {i}"))), &bytes).await;
            assert!(outcome.stdout == bytes);
            assert_eq!(outcome.stderr, format!("{i}\n").as_bytes());
            assert_eq!(outcome.status, ExitStatus::Code(i as i32));
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn too_many_commands_are_refused() {
    let (_guest, agent) = connect().await;
    let mut running = Vec::new();
    let error = loop {
        // Terminals need the most descriptors.
        let tty = Some(WindowSize { rows: 24, cols: 80 });
        match agent.exec(ExecRequest { tty, ..input(command(&["sleep", "1000"])) }).await {
            Ok(exec) => running.push(exec),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AgentError::TooMany(_)), "{error}");
    assert_eq!(running.len(), 256);
    let last = running.pop().unwrap();
    last.control.signal(9).unwrap();
    last.wait().await.unwrap();
    assert_eq!(run(&agent, script("exit 1"), b"").await.status, ExitStatus::Code(1));
}

#[tokio::test]
async fn a_reader_that_stalls_holds_up_nobody_else() {
    let (_guest, agent) = connect().await;
    let mut stalled = agent.exec(command(&["head", "-c", "3000000", "/dev/zero"])).await.unwrap();
    let mut deaf = agent.exec(input(command(&["sleep", "1000"]))).await.unwrap();
    let bytes = noise(1 << 20, 3);
    // Far more than all windows together: it cannot be through before somebody reads it.
    let flood = async { deaf.stdin.write_all(&bytes).await };
    let others = async {
        for i in 0..20 {
            assert_eq!(
                run(&agent, input(script(&format!("cat >/dev/null; exit {i}"))), &bytes).await.status,
                ExitStatus::Code(i)
            );
        }
    };
    tokio::select! {
        _ = flood => panic!("what nobody reads was taken"),
        _ = stalled.wait() => panic!("what nobody reads was sent"),
        _ = others => {}
    }
    let mut all = Vec::new();
    stalled.stdout.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, vec![0; 3_000_000]);
    assert_eq!(stalled.wait().await.unwrap(), ExitStatus::Code(0));
}

#[tokio::test]
async fn output_that_was_dropped_is_discarded() {
    let (_guest, agent) = connect().await;
    let exec = agent.exec(script("head -c 3000000 /dev/zero; exit 4")).await.unwrap();
    let control = exec.control();
    drop(exec.stdout);
    assert_eq!(control.wait().await.unwrap(), ExitStatus::Code(4));
}
