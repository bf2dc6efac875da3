//! Writes tar archives: ustar, with pax records for what it cannot hold. The same calls give the same bytes.

use banger_ext4::{Metadata, Timestamp};
use std::io::{self, Write};

const BLOCK: usize = 512;
/// Bytes of a name in a header.
const NAME: usize = 100;
/// What seven and eleven octal digits can say.
const MOST_ID: u32 = 0o777_7777;
const MOST_SIZE: u64 = 0o777_7777_7777;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// A file of so many bytes.
    File(u64),
    /// A file with holes: its size, and its parts as offset and length.
    Sparse(u64, &'a [(u64, u64)]),
    Directory,
    HardLink(&'a [u8]),
    Symlink(&'a [u8]),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// Writes one archive. The body of a file follows its header: exactly as many bytes as it says, a sparse file's parts
/// one after the other; then [`TarWriter::end_body`].
pub(super) struct TarWriter<W> {
    to: W,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to }
    }

    /// Writes what precedes the body of an entry.
    pub(super) fn header(&mut self, path: &[u8], kind: Kind<'_>, metadata: &Metadata) -> io::Result<()> {
        let mut records = Records::default();
        let mut name = path.to_vec();
        if kind == Kind::Directory {
            name.push(b'/');
        }
        let (mut size, mut map) = (0, Vec::new());
        match kind {
            Kind::File(bytes) => size = bytes,
            Kind::Sparse(real_size, parts) => {
                map = sparse_map(parts);
                size = map.len() as u64 + parts.iter().map(|(_, length)| length).sum::<u64>();
                records.add(b"GNU.sparse.major", b"1");
                records.add(b"GNU.sparse.minor", b"0");
                records.add(b"GNU.sparse.name", &name);
                records.add(b"GNU.sparse.realsize", real_size.to_string().as_bytes());
                name = b"GNUSparseFile.0".to_vec();
            }
            _ => {}
        }
        let link = match kind {
            Kind::HardLink(target) | Kind::Symlink(target) => target,
            _ => b"",
        };
        records.metadata(&name, link, size, metadata);
        if !records.0.is_empty() {
            let plain = Metadata { mode: 0o644, ..Metadata::default() };
            self.block(&header(b"PaxHeader", b"", b'x', records.0.len() as u64, &plain, (0, 0)))?;
            self.to.write_all(&records.0)?;
            self.end_body(records.0.len() as u64)?;
        }
        let (flag, device) = match kind {
            Kind::File(_) | Kind::Sparse(..) => (b'0', (0, 0)),
            Kind::HardLink(_) => (b'1', (0, 0)),
            Kind::Symlink(_) => (b'2', (0, 0)),
            Kind::CharDevice(major, minor) => (b'3', (major, minor)),
            Kind::BlockDevice(major, minor) => (b'4', (major, minor)),
            Kind::Directory => (b'5', (0, 0)),
            Kind::Fifo => (b'6', (0, 0)),
        };
        self.block(&header(&name, link, flag, size, metadata, device))?;
        self.to.write_all(&map)
    }

    /// A part of the body.
    pub(super) fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// Pads a body of so many bytes to whole blocks. A sparse file's map is padded already.
    pub(super) fn end_body(&mut self, bytes: u64) -> io::Result<()> {
        let used = (bytes % BLOCK as u64) as usize;
        self.to.write_all(&[0; BLOCK][..(BLOCK - used) % BLOCK])
    }

    /// A whole small file.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let metadata = Metadata { mode: 0o644, ..Metadata::default() };
        self.header(path.as_bytes(), Kind::File(bytes.len() as u64), &metadata)?;
        self.body(bytes)?;
        self.end_body(bytes.len() as u64)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }

    fn block(&mut self, block: &[u8; BLOCK]) -> io::Result<()> {
        self.to.write_all(block)
    }
}

/// GNU's sparse map of version 1.0: the number of parts, then offset and length of each, on lines of their own.
fn sparse_map(parts: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", parts.len()).into_bytes();
    for (offset, length) in parts {
        map.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

fn header(
    name: &[u8],
    link: &[u8],
    flag: u8,
    size: u64,
    metadata: &Metadata,
    device: (u32, u32),
) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut text = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    text(0, &name[..name.len().min(NAME)]);
    text(100, format!("{:07o}", metadata.mode & 0o7777).as_bytes());
    text(108, format!("{:07o}", metadata.uid.min(MOST_ID)).as_bytes());
    text(116, format!("{:07o}", metadata.gid.min(MOST_ID)).as_bytes());
    text(124, format!("{:011o}", size.min(MOST_SIZE)).as_bytes());
    let seconds = u64::try_from(metadata.mtime.seconds).unwrap_or(0).min(MOST_SIZE);
    text(136, format!("{seconds:011o}").as_bytes());
    text(148, b"        ");
    text(156, &[flag]);
    text(157, &link[..link.len().min(NAME)]);
    text(257, b"ustar\x0000");
    text(329, format!("{:07o}", device.0).as_bytes());
    text(337, format!("{:07o}", device.1).as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The records of one extended header.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    /// `<length> <key>=<value>\n`, where the length counts itself too.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// What the header itself cannot say.
    fn metadata(&mut self, name: &[u8], link: &[u8], size: u64, metadata: &Metadata) {
        if name.len() > NAME {
            self.add(b"path", name);
        }
        if link.len() > NAME {
            self.add(b"linkpath", link);
        }
        if size > MOST_SIZE {
            self.add(b"size", size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], metadata.uid), (b"gid", metadata.gid)] {
            if id > MOST_ID {
                self.add(key, id.to_string().as_bytes());
            }
        }
        let time = metadata.mtime;
        let plain = u64::try_from(time.seconds).is_ok_and(|seconds| seconds <= MOST_SIZE);
        if time.nanoseconds != 0 || !plain {
            self.add(b"mtime", decimal(time).as_bytes());
        }
        let mut xattrs: Vec<_> = metadata.xattrs.iter().collect();
        xattrs.sort_unstable();
        for xattr in xattrs {
            match xattr.name.contains(&b'=') {
                // A record's name ends at the first equals sign: libarchive's spelling has none.
                true => {
                    let name = [b"LIBARCHIVE.xattr.", &percent_encoded(&xattr.name)[..]].concat();
                    self.add(&name, base64(&xattr.value).as_bytes());
                }
                false => self.add(&[b"SCHILY.xattr.", &xattr.name[..]].concat(), &xattr.value),
            }
        }
    }
}

/// Seconds with decimals; before 1970 they count backwards.
fn decimal(time: Timestamp) -> String {
    let nanoseconds = time.nanoseconds.min(999_999_999);
    let (sign, seconds, nanoseconds) = match (time.seconds < 0, nanoseconds) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, n) => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - n),
        (false, n) => ("", time.seconds.unsigned_abs(), n),
    };
    match nanoseconds {
        0 => format!("{sign}{seconds}"),
        n => format!("{sign}{seconds}.{n:09}").trim_end_matches('0').to_owned(),
    }
}

fn percent_encoded(name: &[u8]) -> Vec<u8> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'=');
    name.iter()
        .flat_map(|byte| if plain(*byte) { vec![*byte] } else { format!("%{byte:02X}").into_bytes() })
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let word =
            piece.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - piece.len()));
        for at in 0..=piece.len() {
            text.push(char::from(DIGITS[(word >> (18 - 6 * at) & 63) as usize]));
        }
        text.extend(std::iter::repeat_n('=', 3 - piece.len()));
    }
    text
}
