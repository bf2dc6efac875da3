//! Converts a tar archive to an ext4 image, and compares with `mke2fs -d` on the same content.
//!
//! `cargo run --release -p banger-ext4 --example tar2ext4 -- ARCHIVE [IMAGE]`: with IMAGE it only converts.
//! Otherwise it works in the system's temporary folder (TMPDIR) and prints how long both took. As root, or the
//! files that mke2fs sees belong to somebody else.

use banger_ext4::{Metadata, NodeId, NodeKind, Options, Size, Summary, Timestamp, Writer};
use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const EXPECTED: u64 = 1 << 30;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let archive = arguments.next().ok_or("which archive?")?;
    if let Some(image) = arguments.next() {
        println!("{:?}", convert(Path::new(&archive), Path::new(&image))?);
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let start = Instant::now();
    let summary = convert(Path::new(&archive), &folder.path().join("ours"))?;
    let ours = start.elapsed();
    println!("banger-ext4 {ours:?}: {summary:?}");

    let tree = folder.path().join("tree");
    let mut unpacker = tar::Archive::new(BufReader::new(File::open(&archive)?));
    unpacker.set_preserve_permissions(true);
    unpacker.unpack(&tree)?;
    let theirs = folder.path().join("theirs");
    File::create(&theirs)?.set_len(summary.size)?;
    let start = Instant::now();
    let status = Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"])
        .args([&tree, &theirs])
        .status()?;
    let mke2fs = start.elapsed();
    if !status.success() {
        return Err(format!("mke2fs: {status}").into());
    }
    println!("mke2fs -d   {mke2fs:?}");
    println!("ratio       {:.3} (below 1: banger-ext4 is faster)", ours.as_secs_f64() / mke2fs.as_secs_f64());
    Ok(())
}

fn convert(archive: &Path, image: &Path) -> Result<Summary, Box<dyn Error>> {
    let options = Options {
        uuid: *b"tar2ext4 example",
        label: Vec::new(),
        expected: EXPECTED,
        epoch: Timestamp::default(),
    };
    let mut writer = Writer::new(File::create(image)?, options)?;
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, File::open(archive)?));
    let mut buffer = vec![0; 1 << 16];
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path_bytes().into_owned();
        let mut parts: Vec<&[u8]> =
            path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && part != b".").collect();
        let header = entry.header().clone();
        let metadata = Metadata {
            mode: (header.mode()? & 0o7777) as u16,
            uid: header.uid()?.try_into()?,
            gid: header.gid()?.try_into()?,
            mtime: Timestamp { seconds: header.mtime()?.try_into()?, nanoseconds: 0 },
            xattrs: Vec::new(),
        };
        let Some(name) = parts.pop() else {
            writer.set_metadata(writer.root(), metadata)?;
            continue;
        };
        let parent = parents(&mut writer, &parts)?;
        let kind = header.entry_type();
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        let device = || {
            Ok::<_, std::io::Error>((
                header.device_major()?.unwrap_or(0),
                header.device_minor()?.unwrap_or(0),
            ))
        };
        if kind.is_dir() {
            match writer.lookup(parent, name) {
                Some(directory) => writer.set_metadata(directory, metadata)?,
                None => drop(writer.add_dir(parent, name, metadata)?),
            }
        } else if kind.is_symlink() {
            writer.add_symlink(parent, name, metadata, &link)?;
        } else if kind.is_hard_link() {
            let target = find(&writer, &link).ok_or("a hard link to nowhere")?;
            writer.link(parent, name, target)?;
        } else if kind.is_character_special() {
            let (major, minor) = device()?;
            writer.add_char_device(parent, name, metadata, major, minor)?;
        } else if kind.is_block_special() {
            let (major, minor) = device()?;
            writer.add_block_device(parent, name, metadata, major, minor)?;
        } else if kind.is_fifo() {
            writer.add_fifo(parent, name, metadata)?;
        } else if kind.is_file() {
            let mut content = writer.content();
            loop {
                match entry.read(&mut buffer)? {
                    0 => break,
                    count => content.write_all(&buffer[..count])?,
                }
            }
            let content = content.finish()?;
            writer.add_file(parent, name, metadata, content)?;
        }
    }
    let size = (writer.content_bytes() / 4 * 5).max(EXPECTED);
    Ok(writer.finish(Size::AtLeast(size))?)
}

/// The directory at a path, made where the archive leaves it out.
fn parents(writer: &mut Writer<File>, parts: &[&[u8]]) -> Result<NodeId, Box<dyn Error>> {
    let mut at = writer.root();
    for part in parts {
        at = match writer.lookup(at, part) {
            Some(node) if writer.kind(node) == NodeKind::Directory => node,
            Some(_) => return Err("an entry below something that is no directory".into()),
            None => writer.add_dir(at, part, Metadata::default())?,
        };
    }
    Ok(at)
}

fn find(writer: &Writer<File>, path: &[u8]) -> Option<NodeId> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && part != b".")
        .try_fold(writer.root(), |at, part| writer.lookup(at, part))
}
