//! What every command works with.

use crate::{bus, error::Error, signals::Signals};
use banger_dbus::{ManagerProxy, zbus::Connection};

/// The connection, the signals and the general flags.
pub struct Context {
    /// The bus.
    pub connection: Connection,
    /// What people and sessions send.
    pub signals: Signals,
    /// Whether nothing but results and errors is to be said.
    pub quiet: bool,
    /// Whether errors are shown with their D-Bus names.
    pub verbose: bool,
}

impl Context {
    /// Connects to the bus.
    ///
    /// # Errors
    /// [`Error::Bus`] if there is none.
    pub async fn new(quiet: bool, verbose: bool) -> Result<Self, Error> {
        let mut signals = Signals::new().map_err(|e| Error::file("watch", "signals", e))?;
        let connection = signals.guard(bus::connect()).await?;
        signals.guard(bus::wake(&connection)).await?;
        Ok(Self { connection, signals, quiet, verbose })
    }

    /// The manager.
    ///
    /// # Errors
    /// As [`bus::manager`].
    pub async fn manager(&self) -> Result<ManagerProxy<'static>, Error> {
        bus::manager(&self.connection).await
    }
}
