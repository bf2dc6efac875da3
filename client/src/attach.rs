//! A command in a guest, attached: its three streams are this process's own, and signals and the size of
//! the terminal go to it.

use crate::{
    bus,
    context::Context,
    error::Error,
    pump::{self, End},
    signals::WINDOW,
    terminal::{self, Raw},
};
use banger_dbus::{DictWriter, ExecProxy, ExecResult, VMProxy};
use std::{future::Future, io, os::fd::OwnedFd, pin::Pin};
use tokio::sync::oneshot;

/// Ctrl-C this often means that the command is not to be waited for any more.
const INSISTING: u32 = 3;

/// SIGINT's number (signal(7)).
const INTERRUPT: i32 = 2;

/// What to run.
#[derive(Debug, Default)]
pub struct Command {
    /// The program and its arguments; empty for the image's own.
    pub argv: Vec<String>,
    /// `K=V`, over the guest's own.
    pub environment: Vec<String>,
    /// The user; `None` for the image's own.
    pub user: Option<String>,
    /// The folder; `None` for the image's own.
    pub working_directory: Option<String>,
    /// Whether the image's entrypoint goes before `argv`.
    pub entrypoint: bool,
    /// Whether it reads this process's standard input.
    pub interactive: bool,
    /// Whether it has a terminal.
    pub tty: bool,
}

/// Runs a command in `vm`, attached, and returns how it ended.
///
/// # Errors
/// [`Error::Bus`] if the command could not be run or was lost; [`Error::Interrupted`] if somebody insisted.
pub async fn attach(context: &mut Context, vm: &VMProxy<'_>, command: Command) -> Result<ExecResult, Error> {
    let (rows, columns) = terminal::size();
    let options = DictWriter::new()
        .with("environment", command.environment)
        .with_some("user", command.user)
        .with_some("working-directory", command.working_directory)
        .with_some("entrypoint", command.entrypoint.then_some(true))
        .with_some("tty", command.tty.then_some(true))
        .with_some("rows", command.tty.then_some(rows))
        .with_some("columns", command.tty.then_some(columns))
        .with("stdin", command.interactive)
        .done();
    let call = vm.exec(&command.argv, &options);
    let (exec, stdin, stdout, stderr) = context.signals.guard(call).await?;
    let exec = bus::exec(&context.connection, exec).await?;
    // Only now, so that a command that does not start reports it on a sane terminal.
    let raw = match command.tty && command.interactive {
        true => Raw::new().map_err(|e| Error::file("use", "the terminal", e))?,
        false => None,
    };
    match command.interactive {
        true => drop(pump::start(io::stdin(), OwnedFd::from(stdin))),
        false => drop(stdin),
    }
    let output = Output {
        stdout: pump::start(OwnedFd::from(stdout), io::stdout()),
        stderr: pump::start(OwnedFd::from(stderr), io::stderr()),
    };
    let result = follow(context, &exec, output, command.tty).await;
    drop(raw);
    result
}

/// The two streams from the command, on their way.
struct Output {
    stdout: oneshot::Receiver<End>,
    stderr: oneshot::Receiver<End>,
}

impl Output {
    /// Waits until everything that the command wrote has arrived. A reader that left is the command's
    /// matter, which has been told by the same means as ever: SIGPIPE.
    async fn drained(self) -> Result<(), Error> {
        for (end, name) in [(self.stdout, "standard output"), (self.stderr, "standard error")] {
            if let Ok(End::Failed(error)) = end.await {
                return Err(Error::file("write to", name, error));
            }
        }
        Ok(())
    }
}

async fn follow(
    context: &mut Context,
    exec: &ExecProxy<'_>,
    output: Output,
    tty: bool,
) -> Result<ExecResult, Error> {
    let options = bus::none();
    let ended = async {
        let result = exec.wait(&options).await?;
        output.drained().await?;
        Ok::<_, Error>(ExecResult::from_dict(result)?)
    };
    let mut ended: Pin<&mut dyn Future<Output = _>> = std::pin::pin!(ended);
    let mut interrupts = 0;
    loop {
        let signal = tokio::select! {
            biased;
            result = &mut ended => return result,
            signal = context.signals.any() => signal,
        };
        // A command that has just ended takes neither; its result is on its way.
        if signal == WINDOW {
            if tty {
                let (rows, columns) = terminal::size();
                let _ = exec.resize(rows, columns, &options).await;
            }
            continue;
        }
        interrupts += u32::from(signal == INTERRUPT);
        if interrupts == INSISTING {
            return Err(Error::Interrupted(signal));
        }
        let _ = exec.signal(signal, &options).await;
    }
}
