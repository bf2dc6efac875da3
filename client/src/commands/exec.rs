//! `banger exec`.

use crate::{
    attach::{Command, attach},
    bus,
    cli::{ProcessArgs, StreamArgs},
    context::Context,
    error::{self, Error},
};
use banger_dbus::ExecResult;
use clap::Args;

/// Run a command in a VM that runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger exec web -- cat /etc/os-release
  banger exec -it web bash
  tar c . | banger exec -i web -- tar x -C /srv")]
pub struct ExecArgs {
    /// How it is attached.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// How it is run.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// The VM: its name, id or a unique prefix of its id.
    pub vm: String,
    /// The command; it reaches the guest word by word as given here.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Runs it; the exit code is the command's.
///
/// # Errors
/// [`Error`] if it could not be run.
pub async fn exec(context: &mut Context, mut args: ExecArgs) -> Result<u8, Error> {
    let command = Command {
        environment: args.process.environment(args.stream.tty)?,
        argv: args.command,
        user: args.process.user,
        working_directory: args.process.workdir,
        entrypoint: false,
        interactive: args.stream.interactive,
        tty: args.stream.tty,
    };
    let connection = context.connection.clone();
    let vm = context.signals.guard(bus::find_vm(&connection, &args.vm)).await?;
    Ok(code(attach(context, &vm, command).await?))
}

/// The exit code that tells how a command ended. The guest's codes have eight bits, as everywhere.
pub fn code(result: ExecResult) -> u8 {
    match result {
        ExecResult::Code(code) => (code & 0xff) as u8,
        ExecResult::Signal(signal) => error::of_signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_code() {
        assert_eq!(code(ExecResult::Code(0)), 0);
        assert_eq!(code(ExecResult::Code(42)), 42);
        assert_eq!(code(ExecResult::Code(255)), 255);
        assert_eq!(code(ExecResult::Signal(15)), 143);
    }
}
