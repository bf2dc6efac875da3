//! A console's log: a file and the one before it, each bounded, and what reads them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// How much of the log's end an error message quotes.
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 4096;

/// Piece in which the end of a log is searched for lines.
const PIECE: u64 = 64 << 10;

/// The log's file, and how full it is.
pub struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    largest: u64,
}

impl Log {
    /// Opens the log at `path` for more; a file becomes the older one before it would be larger than `largest` bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: &Path, largest: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, length, largest })
    }

    /// Adds to it.
    ///
    /// # Errors
    /// When it cannot be written: a full disk.
    pub fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.length + piece.len() as u64 > self.largest {
            std::fs::rename(&self.path, older(&self.path))?;
            *self = Self::open(&self.path, self.largest)?;
        }
        self.file.write_all(piece)?;
        self.length += piece.len() as u64;
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// What a log holds at a moment: its files, oldest first, and how much of each.
pub struct Content(Vec<(File, u64)>);

impl Content {
    /// The content now. Nobody may write meanwhile, or only the newest words may be missing.
    ///
    /// # Errors
    /// When there is no log, or it cannot be read.
    pub fn of(log: &Path) -> io::Result<Self> {
        let open = |path: &Path| {
            let file = File::open(path)?;
            let about = file.metadata()?;
            Ok::<_, io::Error>((file, about.len(), about.ino()))
        };
        let (file, length, inode) = open(log)?;
        let mut files = vec![(file, length)];
        // Between the two it may have become the older one itself.
        if let Ok((file, length, _)) = open(&older(log)).and_then(|older| match older.2 == inode {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(older),
        }) {
            files.insert(0, (file, length));
        }
        Ok(Self(files))
    }

    /// Leaves out all but the last `lines` lines.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last(&mut self, lines: u32) -> io::Result<()> {
        let mut wanted = u64::from(lines);
        for index in (0..self.0.len()).rev() {
            let last = index + 1 == self.0.len();
            let (file, length) = &mut self.0[index];
            let start = start_of(file, *length, &mut wanted, last)?;
            file.seek(SeekFrom::Start(start.unwrap_or(0)))?;
            if let Some(start) = start {
                *length -= start;
                self.0.drain(..index);
                break;
            }
        }
        Ok(())
    }

    /// Its bytes, oldest first.
    pub fn reader(self) -> impl Read {
        let empty: Box<dyn Read + Send> = Box::new(io::empty());
        self.0.into_iter().fold(empty, |all, (file, length)| Box::new(all.chain(file.take(length))))
    }
}

/// Where the last `wanted` lines begin; `None` when there are fewer, which `wanted` is then less by. The end of the
/// `last` file's last line begins none.
fn start_of(file: &mut File, length: u64, wanted: &mut u64, last: bool) -> io::Result<Option<u64>> {
    if *wanted == 0 {
        return Ok(Some(length));
    }
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        file.seek(SeekFrom::Start(start))?;
        let mut piece = Vec::new();
        (&*file).take(end - start).read_to_end(&mut piece)?;
        for (at, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + at as u64 + 1;
            if last && after == length {
                continue;
            }
            *wanted -= 1;
            if *wanted == 0 {
                return Ok(Some(after));
            }
        }
        end = start;
    }
    Ok(None)
}

/// The last lines of a log, without control characters.
///
/// # Errors
/// When there is no log, or it cannot be read.
pub fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut end = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

/// A line without control characters and without the escape sequences of a terminal (ECMA-48, 5.4).
fn plain(line: &str) -> String {
    let mut kept = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next() == Some('[') {
                // Parameters and intermediates end with one final byte, @ to ~.
                let _ = chars.find(|c| ('@'..='~').contains(c));
            }
        } else if !c.is_control() {
            kept.push(c);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: Content) -> String {
        let mut text = String::new();
        content.reader().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_log_is_bounded_and_nothing_but_the_oldest_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut log = Log::open(&path, 1000).unwrap();
        for n in 0..40 {
            log.append(format!("{n:099}\n").as_bytes()).unwrap();
        }
        let size = |p: &Path| std::fs::metadata(p).unwrap().len();
        assert!(size(&path) <= 1000 && size(&older(&path)) == 1000);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let all = text(Content::of(&path).unwrap());
        let numbers: Vec<u32> = all.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers, (20..40).collect::<Vec<_>>());
    }

    #[test]
    fn the_last_lines_are_found_across_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        for (older_part, newer_part) in
            [("a\nb\nc\n", "d\ne\n"), ("a\nb\nc\nd", "\ne"), ("", "a\nb\nc\nd\ne\n")]
        {
            std::fs::write(older(&path), older_part).unwrap();
            std::fs::write(&path, newer_part).unwrap();
            for lines in 0..8u32 {
                let mut content = Content::of(&path).unwrap();
                content.last(lines).unwrap();
                let kept = text(content);
                let all: Vec<&str> = "a b c d e".split(' ').collect();
                let expected = &all[5usize.saturating_sub(lines as usize)..];
                assert_eq!(
                    kept.lines().collect::<Vec<_>>(),
                    expected,
                    "{lines} of {older_part:?} {newer_part:?}"
                );
            }
        }
    }

    #[test]
    fn lines_longer_than_a_piece_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let long = "x".repeat(3 * PIECE as usize / 2);
        std::fs::write(&path, format!("first\n{long}\n{long}\n")).unwrap();
        let mut content = Content::of(&path).unwrap();
        content.last(2).unwrap();
        assert_eq!(text(content).lines().map(str::len).collect::<Vec<_>>(), [long.len(), long.len()]);
    }

    #[test]
    fn the_tail_is_short_and_plain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let lines: String = (0..10_000).map(|n| format!("\x1b[1mline {n}\x1b[0m\r\n")).collect();
        std::fs::write(&path, lines).unwrap();
        let end = tail(&path).unwrap();
        assert_eq!(end.lines().count(), TAIL_LINES);
        assert!(end.ends_with("\nline 9999"), "{end:?}");
    }
}
