//! How time and memory grow with the number of files and of bytes.

use super::pull;
use anyhow::{Context, Result, anyhow};
use banger_harness::{
    REGISTRY,
    images::{self, Layout},
    inside,
};
use std::{
    fs,
    io::{BufWriter, PipeWriter, Write},
    thread,
};

/// Files and the bytes of each: by number, and by size.
const SERIES: [&[(u64, u64)]; 2] = [
    &[(50_000, 1_000), (200_000, 1_000), (1_000_000, 1_000)],
    &[(1_000, 1_000_000), (5_000, 1_000_000), (20_000, 1_000_000)],
];
/// Files of one folder.
const FOLDER: u64 = 1_000;

/// Makes, pushes, pulls and removes each image in turn.
pub fn measure() -> Result<()> {
    println!(
        "{:>9} {:>9} {:>9} {:>10} {:>9} {:>9}",
        "files", "GB", "seconds", "us / file", "s / GB", "peak MB"
    );
    for (files, size) in SERIES.concat() {
        let figure = one(files, size)?;
        let (seconds, bytes) = (figure.time.as_secs_f64(), (files * size) as f64 / 1e9);
        let (each, per_gb) = (seconds * 1e6 / files as f64, seconds / bytes);
        let memory = figure.memory;
        println!("{files:>9} {bytes:>9.2} {seconds:>9.2} {each:>10.1} {per_gb:>9.2} {memory:>9.1}");
    }
    Ok(())
}

fn one(files: u64, size: u64) -> Result<pull::Figure> {
    let folder = super::folder()?;
    let mut layout = Layout::new(folder.path())?;
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let making = thread::spawn(move || archive(writer, files, size));
    layout.layer(reader)?;
    making.join().map_err(|_| anyhow!("a thread panicked"))??;
    layout.finish(&serde_json::json!({"Cmd": ["/bin/true"]}))?;
    let name = format!("scale:{files}-{size}");
    images::push(folder.path(), &format!("{REGISTRY}/{name}"))?;
    // The registry has it, and the disk may be small.
    let layers = super::layers(folder.path())?;
    drop(folder);
    let figure = pull::fresh(&name)?;
    for layer in layers {
        fs::remove_file(inside::registry_blob(&layer)).context("cannot empty the registry")?;
    }
    Ok(figure)
}

/// Writes an archive of files with content that deflate makes a quarter of, as it does with programs and text.
fn archive(out: PipeWriter, files: u64, size: u64) -> Result<()> {
    let content = content(usize::try_from(size)?);
    let mut builder = tar::Builder::new(BufWriter::with_capacity(1 << 20, out));
    for number in 0..files {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        let path = format!("data/{:04}/{number:07}", number / FOLDER);
        let start = usize::try_from(number)? % 4096;
        let content = &content[start..start + usize::try_from(size)?];
        builder.append_data(&mut header, path, content)?;
    }
    Ok(builder.into_inner()?.flush()?)
}

/// Words in an order without a pattern, a little more of them than `size` bytes.
fn content(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        // xorshift64 (Marsaglia, 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<[u8; 8]> = (0..256).map(|_| random().to_le_bytes()).collect();
    let count = (size + 4096).div_ceil(8);
    (0..count).flat_map(|_| words[(random() % 256) as usize]).collect()
}
