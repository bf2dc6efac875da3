//! `banger version`.

use crate::{context::Context, error::Error, output};

/// Shows the client's version, and the service's if it is there.
///
/// # Errors
/// Those of writing.
pub async fn version(quiet: bool, verbose: bool) -> Result<(), Error> {
    let service = match ask(quiet, verbose).await {
        Ok(version) => version,
        Err(Error::Interrupted(signal)) => return Err(Error::Interrupted(signal)),
        Err(error) => format!("not reachable: {error}"),
    };
    output::print(&output::facts(&[("client", env!("CARGO_PKG_VERSION").into()), ("service", service)]))
}

async fn ask(quiet: bool, verbose: bool) -> Result<String, Error> {
    let mut context = Context::new(quiet, verbose).await?;
    let manager = context.manager().await?;
    context.signals.guard(manager.version()).await
}
