//! The D-Bus service org.banger.Manager.
//!
//! It runs without privileges: what needs them is asked of `banger-hostd`, who may do what of polkit. This crate
//! wires the parts; each decides for itself.

mod api;
mod catalogue;
mod check;
mod config;
mod console;
mod disk;
mod error;
mod fault;
#[cfg(test)]
mod faults;
mod gate;
mod ids;
mod image_limits;
mod jobs;
mod kernels;
mod lookup;
mod machines;
#[cfg(test)]
mod matrix;
mod monitor;
mod names;
mod ops;
mod privileges;
mod reach;
mod reconcile;
mod registered;
mod serve;
mod service;
mod show;
mod snapshots;
mod space;
mod store;
#[cfg(test)]
mod testing;
mod transfer;
mod turns;
mod volumes;

use anyhow::Context;
use clap::Parser;
use config::Config;
use std::path::PathBuf;

/// Turns any OCI image into a running microVM, for users without privileges: the system service.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration; no file there means the defaults.
    #[arg(long, default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    banger_systemd::init_logging("info")?;
    let config = Config::read(&arguments.config)?;
    // Before there is a second thread.
    privileges::give_up(&config.user, &config.state)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve::serve(config)).context("the service ended");
    // Blocking reads from clients' descriptors must not keep the process.
    runtime.shutdown_background();
    result
}
