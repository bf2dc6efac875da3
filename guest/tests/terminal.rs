//! Commands with a terminal, through the real agent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use banger_agent::{Exec, ExecRequest, ExitStatus, WindowSize};
use common::{connect, finish, run, script};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn terminal(request: ExecRequest) -> ExecRequest {
    ExecRequest { tty: Some(WindowSize { rows: 31, cols: 97 }), stdin: true, ..request }
}

/// Reads until this text has come.
async fn expect(exec: &mut Exec, text: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let mut chunk = [0; 1024];
        let length = exec.stdout.read(&mut chunk).await.unwrap();
        assert!(length > 0, "{text:?} does not come: {:?}", String::from_utf8_lossy(&seen));
        seen.extend(&chunk[..length]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn it_is_a_terminal_of_that_size_and_everything_comes_through_it() {
    let (_guest, agent) = connect().await;
    let text = "test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM && echo oops >&2; exit 6";
    let outcome = run(&agent, terminal(script(text)), b"").await;
    assert_eq!(outcome.text(), "31 97\r\nxterm\r\noops\r\n");
    assert_eq!((outcome.status, outcome.stderr), (ExitStatus::Code(6), vec![]));
}

#[tokio::test]
async fn it_is_the_controlling_terminal() {
    let (_guest, agent) = connect().await;
    let text = "echo here >/dev/tty; ps -o tty=,pgid=,tpgid= -p $$ | { read t p f; echo $t; test $p = $f && echo forward; }";
    let outcome = run(&agent, terminal(script(text)), b"").await;
    assert!(outcome.text().starts_with("here\r\npts/"), "{:?}", outcome.text());
    assert!(outcome.text().ends_with("forward\r\n"), "{:?}", outcome.text());
}

#[tokio::test]
async fn a_new_size_is_noticed() {
    let (_guest, agent) = connect().await;
    let text = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut exec = agent.exec(terminal(script(text))).await.unwrap();
    expect(&mut exec, "ready").await;
    exec.control.resize(WindowSize { rows: 50, cols: 132 });
    expect(&mut exec, "50 132").await;
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(0));
}

#[tokio::test]
async fn control_c_is_an_interrupt() {
    let (_guest, agent) = connect().await;
    let text = "trap 'echo caught; exit 9' INT; echo ready; while :; do read x; done";
    let mut exec = agent.exec(terminal(script(text))).await.unwrap();
    expect(&mut exec, "ready").await;
    exec.stdin.write_all(b"\x03").await.unwrap();
    expect(&mut exec, "caught").await;
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(9));
}

#[tokio::test]
async fn a_conversation() {
    let (_guest, agent) = connect().await;
    let mut exec =
        agent.exec(terminal(script("stty -echo; echo name?; read n; echo hello $n"))).await.unwrap();
    expect(&mut exec, "name?\r\n").await;
    exec.stdin.write_all("zoë\n".as_bytes()).await.unwrap();
    assert_eq!(expect(&mut exec, "\n").await, "hello zoë\r\n");
    assert_eq!(exec.wait().await.unwrap(), ExitStatus::Code(0));
}

#[tokio::test]
async fn the_end_of_input_is_the_end_of_file() {
    let (_guest, agent) = connect().await;
    for text in [&b""[..], b"line\n", b"unfinished"] {
        let mut exec = agent.exec(terminal(script("stty -echo; echo ready; cat; echo end"))).await.unwrap();
        expect(&mut exec, "ready\r\n").await;
        let outcome = finish(exec, text).await;
        let expected = String::from_utf8_lossy(text).replace('\n', "\r\n") + "end\r\n";
        assert_eq!((outcome.text(), outcome.status), (expected.as_str(), ExitStatus::Code(0)));
    }
}

#[tokio::test]
async fn all_output_comes_before_the_end() {
    let (_guest, agent) = connect().await;
    for _ in 0..20 {
        // Without input, whose end would be echoed.
        let request = terminal(script("stty raw; head -c 300000 /dev/zero; printf end"));
        let outcome = run(&agent, ExecRequest { stdin: false, ..request }, b"").await;
        assert_eq!(outcome.stdout.len(), 300_003);
        assert!(outcome.stdout.ends_with(b"\0end"));
    }
}

#[tokio::test]
async fn a_process_left_behind_does_not_hold_up_the_end() {
    let (_guest, agent) = connect().await;
    let outcome = run(&agent, terminal(script("trap '' HUP; sleep 1000 & echo $!")), b"").await;
    assert_eq!(outcome.status, ExitStatus::Code(0));
    let left = outcome.text().trim().to_owned();
    assert_eq!(run(&agent, script(&format!("kill -9 {left}")), b"").await.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_terminal_that_nobody_has_open_for_a_while_has_not_ended() {
    let (_guest, agent) = connect().await;
    let text = "exec <&- >&- 2>&-; sleep 0.2; exec </dev/tty >/dev/tty; echo back; read x; echo $x";
    let outcome = run(&agent, terminal(script(text)), b"more\n").await;
    assert!(
        outcome.text().contains("back\r\n") && outcome.text().ends_with("more\r\n"),
        "{:?}",
        outcome.text()
    );
    assert_eq!(outcome.status, ExitStatus::Code(0));
}
