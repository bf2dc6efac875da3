//! One file per word of the command line.

pub mod catalogue;
pub mod change;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod image;
pub mod job;
pub mod kernel;
pub mod life;
pub mod run;
pub mod snapshots;
pub mod sources;
pub mod stats;
pub mod system;
pub mod version;
pub mod vm;
pub mod volume;

use crate::{cli::ProcessArgs, context::Context, error::Error};

/// The command line's environment as `NAME=value`; a name alone takes its value from here, and is left out
/// if it has none.
///
/// # Errors
/// [`Error::Usage`] for an entry without a name.
pub fn environment(
    entries: Vec<String>,
    here: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Error> {
    let mut environment = Vec::new();
    for entry in entries {
        match entry.split_once('=') {
            Some(("", _)) => return Err(Error::Usage(format!("{entry:?} has no name before the '='"))),
            None if entry.is_empty() => return Err(Error::Usage("a variable needs a name".into())),
            Some(_) => environment.push(entry),
            None => environment.extend(here(&entry).map(|value| format!("{entry}={value}"))),
        }
    }
    Ok(environment)
}

impl ProcessArgs {
    /// The environment for the command; one with a terminal is told its kind, as it would not know.
    ///
    /// # Errors
    /// As [`environment`].
    pub fn environment(&mut self, tty: bool) -> Result<Vec<String>, Error> {
        let here = |name: &str| std::env::var(name).ok();
        let mut environment = environment(std::mem::take(&mut self.env), here)?;
        if tty && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
            environment.push(format!("TERM={}", here("TERM").unwrap_or_else(|| "xterm".into())));
        }
        Ok(environment)
    }
}

/// Does `work` to each of `names`; goes on past a failure, and reports each.
///
/// # Errors
/// The one failure if there is one name; else [`Error::Some`].
pub async fn each(
    context: &mut Context,
    names: Vec<String>,
    mut work: impl AsyncFnMut(&mut Context, &str) -> Result<(), Error>,
) -> Result<(), Error> {
    let count = names.len();
    let mut failed = 0;
    for name in names {
        match work(context, &name).await {
            Ok(()) => {}
            Err(error) if count == 1 || error.is_silent() => return Err(error),
            Err(error) => {
                error.report(context.verbose);
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(Error::Some(failed, count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(entries: &[&str]) -> Result<Vec<String>, Error> {
        let here = |name: &str| (name == "HERE").then(|| "a=b".to_owned());
        environment(entries.iter().map(|e| e.to_string()).collect(), here)
    }

    #[test]
    fn a_name_alone_takes_the_value_from_here() {
        assert_eq!(
            given(&["A=1", "HERE", "GONE", "B=", "C=x=y"]).unwrap(),
            ["A=1", "HERE=a=b", "B=", "C=x=y"]
        );
    }

    #[test]
    fn an_entry_needs_a_name() {
        assert!(given(&["=x"]).is_err());
        assert!(given(&[""]).is_err());
    }
}
