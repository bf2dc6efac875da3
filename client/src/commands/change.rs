//! `banger vm set` and `banger vm rename`.

use super::vm::find;
use crate::{bus, cli::port, context::Context, error::Error, progress::note};
use banger_dbus::{
    Dict, DictWriter, dict,
    model::{Bytes, NetworkMode, PublishedPort},
};
use clap::{Args, ValueEnum};

/// When a VM that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// Never.
    No,
    /// When it failed, or its main process did.
    OnFailure,
    /// However it ended, unless somebody stopped it.
    Always,
}

impl Restart {
    fn as_str(self) -> &'static str {
        match self {
            Restart::No => "no",
            Restart::OnFailure => "on-failure",
            Restart::Always => "always",
        }
    }
}

/// When a VM starts and stops by itself.
#[derive(Debug, Args)]
pub struct LifeArgs {
    /// Start it with the host.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub autostart: Option<bool>,
    /// Start it again when it ended.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub restart: Option<Restart>,
    /// Stop it when nobody has used it for so long, such as 10m or 2h; 0 for never.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub idle_stop: Option<u32>,
}

impl LifeArgs {
    /// These as options of `CreateVM` and `Set`.
    pub fn options(&self, options: DictWriter) -> DictWriter {
        options
            .with_some("autostart", self.autostart)
            .with_some("restart", self.restart.map(|restart| restart.as_str().to_owned()))
            .with_some("idle-stop", self.idle_stop)
    }
}

/// What is to be another.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger vm set --cpus 2 --memory 2G web
  banger vm set --disk 40G --restart on-failure web
  banger vm set --autostart=false --idle-stop 0 web
  banger vm set --nat=false --network shared web
  banger vm set -p 8080:80 -p 8443:443 web       these ports and no others; publish and unpublish change one")]
pub struct SetArgs {
    /// Virtual CPUs.
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Memory, such as 512M or 2G (powers of 1024).
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Size of the root disk, which only grows.
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<Bytes>,
    /// When it starts and stops by itself.
    #[command(flatten)]
    pub life: LifeArgs,
    /// Let it reach other networks, with this host's addresses.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub nat: Option<bool>,
    /// Let it reach other VMs: "shared" with those that are shared too, "private" with none.
    #[arg(long, value_name = "MODE")]
    pub network: Option<NetworkMode>,
    /// Its published ports, instead of those that it has. May be repeated.
    #[arg(short, long, value_name = "[ADDRESS:]HOST:GUEST[/udp]")]
    pub publish: Vec<PublishedPort>,
    /// The VM: its name, id or a unique prefix of its id.
    pub vm: String,
}

/// Changes a VM.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn set(context: &mut Context, args: SetArgs) -> Result<(), Error> {
    let options = DictWriter::new()
        .with_some("cpus", args.cpus)
        .with_some("memory", args.memory)
        .with_some("disk", args.disk);
    let ports = (!args.publish.is_empty()).then(|| args.publish.iter().map(port).collect::<Vec<_>>());
    let options = options
        .with_some("nat", args.nat)
        .with_some("network", args.network.map(|mode| mode.to_string()))
        .with_some("ports", ports);
    let options = args.life.options(options).done();
    if options.is_empty() {
        return Err(Error::Usage(
            "nothing is to be changed: `banger vm set --help` shows what can be".into(),
        ));
    }
    let vm = find(context, &args.vm).await?;
    let result = context.signals.guard(vm.set(&options)).await?;
    later(context, &args.vm, result)
}

/// Gives a VM another name.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn rename(context: &mut Context, vm: &str, name: &str) -> Result<(), Error> {
    let proxy = find(context, vm).await?;
    let result = context.signals.guard(proxy.rename(name, &bus::none())).await?;
    later(context, name, result)
}

/// Says what takes effect at the next start.
fn later(context: &Context, vm: &str, mut result: Dict) -> Result<(), Error> {
    let words: Option<Vec<String>> =
        dict::take(&mut result, "needs-restart").map_err(|error| Error::Bus(error.into()))?;
    match words.unwrap_or_default() {
        words if words.is_empty() || context.quiet => {}
        words => note(&format!(
            "In effect from the next start on: {}. `banger vm restart {vm}` does it now.",
            words.join(", ")
        )),
    }
    Ok(())
}

/// `90`, `90s`, `10m`, `2h` or `1d`, as seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    let number: Option<u32> = digits.parse().ok().filter(|_| unit > 0);
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "no time: write a number of seconds, or with s, m, h or d".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        for (text, expected) in
            [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)]
        {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "m", "-1", "1.5h", "1w", "1 m", "99999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,8}") {
            let _ = seconds(&text);
        }
    }
}
