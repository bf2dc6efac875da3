//! What nobody can do without: fetch every byte, hash it, inflate it, write it once. All layers at a time.

use super::{folder, settle};
use anyhow::{Context, Result, bail, ensure};
use banger_harness::REGISTRY;
use flate2::write::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Bytes that are fetched, hashed and inflated together.
const PIECE: usize = 256 << 10;

/// What inflates.
#[derive(Debug, Clone, Copy)]
pub enum Inflater {
    /// ISA-L, as the program of Debian's package.
    Igzip,
    /// The one that banger has.
    ZlibRs,
}

impl Inflater {
    /// Those that are measured; the quicker one makes the floor.
    pub const ALL: [Self; 2] = [Self::Igzip, Self::ZlibRs];

    fn start(self, out: File) -> Result<Running> {
        Ok(match self {
            Self::ZlibRs => Running::ZlibRs(Box::new(MultiGzDecoder::new(out))),
            Self::Igzip => {
                let mut command = Command::new("/usr/bin/igzip");
                command.args(["-d", "-c", "-"]).stdin(Stdio::piped()).stdout(out);
                Running::Igzip(command.spawn().context("cannot run igzip")?)
            }
        })
    }
}

impl fmt::Display for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igzip => "igzip",
            Self::ZlibRs => "zlib-rs",
        })
    }
}

/// An inflater at work on one layer.
enum Running {
    Igzip(Child),
    ZlibRs(Box<MultiGzDecoder<File>>),
}

impl Running {
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::ZlibRs(decoder) => decoder.write_all(bytes)?,
            Self::Igzip(child) => child.stdin.as_mut().context("no pipe to igzip")?.write_all(bytes)?,
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        match self {
            Self::ZlibRs(decoder) => drop(decoder.finish()?),
            Self::Igzip(mut child) => {
                drop(child.stdin.take());
                ensure!(child.wait()?.success(), "igzip failed");
            }
        }
        Ok(())
    }
}

/// How long it takes until all layers are written, and until they are on disk.
pub fn run(repository: &str, layers: &[String], inflater: Inflater) -> Result<(Duration, Duration)> {
    let folder = folder()?;
    settle()?;
    let began = Instant::now();
    let files: Vec<PathBuf> =
        (0..layers.len()).map(|number| folder.path().join(number.to_string())).collect();
    thread::scope(|scope| {
        let all: Vec<_> = layers
            .iter()
            .zip(&files)
            .map(|(digest, file)| {
                scope.spawn(move || layer(repository, digest, File::create(file)?, inflater))
            })
            .collect();
        all.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })?;
    let written = began.elapsed();
    for file in &files {
        File::open(file)?.sync_all()?;
    }
    Ok((written, began.elapsed()))
}

fn layer(repository: &str, digest: &str, out: File, inflater: Inflater) -> Result<()> {
    let mut stream = TcpStream::connect(REGISTRY)?;
    write!(stream, "GET /v2/{repository}/blobs/{digest} HTTP/1.0\r\nHost: {REGISTRY}\r\n\r\n")?;
    let mut stream = BufReader::with_capacity(PIECE, stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    ensure!(line.contains(" 200 "), "the registry answers {line:?}");
    while line != "\r\n" {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "the registry's answer ends early");
    }
    let mut inflating = inflater.start(out)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            count => {
                hash.update(&piece[..count]);
                inflating.take(&piece[..count])?;
            }
        }
    }
    inflating.end()?;
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(digest.ends_with(&found), "the registry sent something else than {digest}");
    Ok(())
}
