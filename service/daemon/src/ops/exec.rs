//! Running a command in a guest: what to run, and the pipes between the client and the guest.

use crate::{
    api::ExecObject, error::Error, gate::Caller, ids, jobs::log_failure, service::Service, store::VmRow,
};
use banger_agent::{
    AgentError, Exec, ExecControl, ExecOutput, ExecRequest, ExecStdin, ExitStatus, WindowSize,
};
use banger_dbus::names;
use banger_image::RunConfig;
use banger_model::{ExecId, VmState};
use std::{future::Future, os::fd::OwnedFd, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncWriteExt, BufReader, copy_buf},
    net::unix::pipe,
    sync::watch,
};

/// How long a guest whose connection is being made anew is waited for.
const RECONNECT: Duration = Duration::from_secs(10);

/// How long the end of a command can still be asked for.
const KEPT: Duration = Duration::from_secs(60);

/// Piece in which streams are passed on.
const PIECE: usize = 64 << 10;

/// How long a command whose client is gone may take to end.
const GRACE: Duration = Duration::from_secs(5);

// Linux's numbers on x86 (signal(7)): the guest's, whatever this host's are.
const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
const SIGPIPE: i32 = 13;

/// What to run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Program and arguments; empty for the image's own command.
    pub argv: Vec<String>,
    /// Whether the image's entrypoint goes before them.
    pub entrypoint: bool,
    /// `NAME=value`, over the image's own.
    pub environment: Vec<String>,
    /// The user; empty for the image's own.
    pub user: String,
    /// The folder; empty for the image's own.
    pub working_directory: String,
    /// A terminal of this size.
    pub tty: Option<WindowSize>,
    /// Whether there is standard input.
    pub stdin: bool,
    /// Whether the command goes on when the caller goes.
    pub detach: bool,
}

/// The client's ends of a command's streams.
pub struct Streams {
    /// To write.
    pub stdin: OwnedFd,
    /// To read.
    pub stdout: OwnedFd,
    /// To read.
    pub stderr: OwnedFd,
}

/// How a command ended, once it has.
pub type End = watch::Receiver<Option<Result<ExitStatus, AgentError>>>;

/// The guest's request for a command of an image.
///
/// # Errors
/// [`Error::NoCommand`] when neither the caller nor the image names one.
pub fn request(image: &RunConfig, run: Run) -> Result<ExecRequest, Error> {
    let argv = match (run.argv.is_empty(), run.entrypoint) {
        (true, _) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
        (false, true) => [image.entrypoint.clone(), run.argv].concat(),
        (false, false) => run.argv,
    };
    if argv.is_empty() {
        return Err(Error::NoCommand);
    }
    let given = |own: String, image: &Option<String>| match own.is_empty() {
        true => image.clone().filter(|text| !text.is_empty()),
        false => Some(own),
    };
    Ok(ExecRequest {
        argv,
        env: [image.env.clone(), run.environment].concat(),
        cwd: given(run.working_directory, &image.working_dir),
        user: given(run.user, &image.user),
        tty: run.tty,
        stdin: run.stdin,
    })
}

/// Runs a command in a VM's guest and puts it on the bus.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoAgent`], or what the guest said.
pub async fn exec(
    service: &Arc<Service>,
    caller: &Caller,
    vm: &VmRow,
    run: Run,
) -> Result<(ExecId, Streams), Error> {
    let image = service.image(vm.image)?;
    let detach = run.detach;
    let request = request(&image.config, run)?;
    let live = match (vm.state, service.machines.of(vm.id).live()) {
        (VmState::Running, Some(live)) => live,
        _ => return Err(Error::NotRunning { name: vm.name.to_string(), state: vm.state }),
    };
    let agent =
        live.agent_within(RECONNECT).await.ok_or_else(|| Error::NoAgent { name: vm.name.to_string() })?;
    let Exec { stdin, stdout, stderr, control } = agent.exec(request).await?;

    let (stdin, client_stdin) = stdin_pipe(stdin)?;
    let (stdout, client_stdout) = output_pipe(stdout, control.clone())?;
    let (stderr, client_stderr) = output_pipe(stderr, control.clone())?;
    let id = ExecId::from_bits(ids::random()?);
    let (ended, end) = watch::channel(None);
    let object = ExecObject::new(service.clone(), vm, control.clone(), end);
    service.bus.object_server().at(names::path_of(id), object).await?;
    let gone = service.gate.gone(caller).await?;
    let session = live.session();
    let service = service.clone();
    tokio::spawn(async move {
        let pumps = [tokio::spawn(stdin), tokio::spawn(stdout), tokio::spawn(stderr)];
        let status = tokio::select! {
            status = control.wait() => status,
            () = gone, if !detach => {
                tracing::info!(exec = %id, "the client of a command is gone: ending it");
                hang_up(&control).await
            }
        };
        ended.send_replace(Some(status));
        drop(session);
        // The command is over: nobody reads its input any more. Its output goes on to the client.
        pumps[0].abort();
        tokio::time::sleep(KEPT).await;
        log_failure(service.bus.object_server().remove::<ExecObject, _>(names::path_of(id)).await);
    });
    Ok((id, Streams { stdin: client_stdin, stdout: client_stdout, stderr: client_stderr }))
}

/// Ends a command as a terminal that is closed would, then for good.
async fn hang_up(control: &ExecControl) -> Result<ExitStatus, AgentError> {
    control.signal(SIGHUP)?;
    match tokio::time::timeout(GRACE, control.wait()).await {
        Ok(status) => status,
        Err(_) => {
            control.signal(SIGKILL)?;
            control.wait().await
        }
    }
}

/// What carries the client's input to the command, and the client's end of it.
fn stdin_pipe(mut to: ExecStdin) -> Result<(impl Future<Output = ()> + Send + 'static, OwnedFd), Error> {
    let (reader, writer) = std::io::pipe().map_err(no_pipe)?;
    let reader = pipe::Receiver::from_owned_fd(reader.into()).map_err(no_pipe)?;
    let carry = async move {
        // A command that does not read its input to the end is no error.
        let _ = copy_buf(&mut BufReader::with_capacity(PIECE, reader), &mut to).await;
        let _ = to.shutdown().await;
    };
    Ok((carry, writer.into()))
}

/// What carries a command's output to the client, and the client's end of it.
fn output_pipe(
    from: ExecOutput,
    control: ExecControl,
) -> Result<(impl Future<Output = ()> + Send + 'static, OwnedFd), Error> {
    let (reader, writer) = std::io::pipe().map_err(no_pipe)?;
    let mut writer = pipe::Sender::from_owned_fd(writer.into()).map_err(no_pipe)?;
    let carry = async move {
        let copied = copy_buf(&mut BufReader::with_capacity(PIECE, from), &mut writer).await;
        if copied.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            // What a program on this side of the pipe would get. The command may have ended already.
            let _ = control.signal(SIGPIPE);
        }
    };
    Ok((carry, reader.into()))
}

fn no_pipe(error: std::io::Error) -> Error {
    Error::Internal(format!("no pipe for a command's streams: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv: &[&str]) -> Run {
        Run {
            argv: argv.iter().map(|s| s.to_string()).collect(),
            entrypoint: false,
            environment: vec!["B=2".into()],
            user: String::new(),
            working_directory: String::new(),
            tty: None,
            stdin: false,
            detach: false,
        }
    }

    fn image() -> RunConfig {
        RunConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["A=1".into()],
            user: Some("www".into()),
            working_dir: Some(String::new()),
            ..RunConfig::default()
        }
    }

    #[test]
    fn the_image_fills_what_the_caller_leaves_open() {
        let made = request(&image(), run(&[])).unwrap();
        assert_eq!(made.argv, ["/entry", "default"]);
        assert_eq!(made.env, ["A=1", "B=2"]);
        assert_eq!((made.user.as_deref(), made.cwd), (Some("www"), None));

        let own = Run { user: "0".into(), working_directory: "/srv".into(), ..run(&["ls", "-l"]) };
        let made = request(&image(), own.clone()).unwrap();
        assert_eq!(made.argv, ["ls", "-l"]);
        assert_eq!((made.user.as_deref(), made.cwd.as_deref()), (Some("0"), Some("/srv")));
        let made = request(&image(), Run { entrypoint: true, ..own }).unwrap();
        assert_eq!(made.argv, ["/entry", "ls", "-l"]);
    }

    #[test]
    fn no_command_at_all_is_an_error() {
        assert!(matches!(request(&RunConfig::default(), run(&[])), Err(Error::NoCommand)));
    }
}
