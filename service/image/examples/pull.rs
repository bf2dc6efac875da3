//! Pulls an image into a folder and tells how long each phase took:
//! `cargo run --release -p banger-image --example pull -- REFERENCE FOLDER [PLATFORM]`.
//!
//! Blobs are cached in FOLDER/blobs; the filesystem becomes FOLDER/rootfs.ext4 and replaces what is there.

use banger_image::{Limits, Platform, Progress, PullRequest, Puller, ROOTFS};
use banger_model::Phase;
use std::{
    error::Error,
    fs,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Notes when each phase began.
struct Clock {
    start: Instant,
    phases: Mutex<Vec<(Phase, Duration)>>,
}

impl Progress for Clock {
    fn phase(&self, phase: Phase) {
        self.phases.lock().unwrap_or_else(|e| e.into_inner()).push((phase, self.start.elapsed()));
    }

    fn total(&self, bytes: u64) {
        eprintln!("{bytes} bytes in all layers");
    }

    fn advance(&self, done: u64) {
        eprintln!("{:8.3} s  {done}", self.start.elapsed().as_secs_f64());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: pull REFERENCE FOLDER [PLATFORM]";
    let reference = arguments.next().ok_or(usage)?.parse()?;
    let folder = PathBuf::from(arguments.next().ok_or(usage)?);
    let platform = arguments.next().map_or(Ok(Platform::host()), |text| text.parse())?;
    let _ = fs::remove_file(folder.join(ROOTFS));
    let puller = Puller::new(folder.join("blobs"), Limits::default())?;
    let request =
        PullRequest { reference, platform, size: None, staging: folder, resolved: None, login: None };
    let clock = Clock { start: Instant::now(), phases: Mutex::default() };
    let cancel = CancellationToken::new();
    let on_signal = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_signal.cancel();
        }
    });
    let pulled = puller.pull(&request, &clock, &cancel).await?;
    clock.phase(Phase::Finished);
    for pair in clock.phases.lock().unwrap_or_else(|e| e.into_inner()).windows(2) {
        println!("{:10} {:7.3} s", pair[0].0.as_str(), (pair[1].1 - pair[0].1).as_secs_f64());
    }
    println!("{:10} {:7.3} s", "together", clock.start.elapsed().as_secs_f64());
    println!("{} {}: {} in {}", pulled.manifest_digest, pulled.platform, pulled.content, pulled.size);
    Ok(())
}
