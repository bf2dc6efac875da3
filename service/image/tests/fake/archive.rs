//! Archives byte by byte: whatever an archiver might write, sound or not.

const BLOCK: usize = 512;

/// A tar archive that is being made. Every entry is what the test says, and 0644, root, of 1970 where it does not.
#[derive(Default, Clone)]
pub struct Archive {
    bytes: Vec<u8>,
    /// Records for the next entry's extended header.
    pax: Vec<(Vec<u8>, Vec<u8>)>,
    mode: Option<u32>,
    /// Size field of the next header, where it is not the body's length.
    size: Option<u64>,
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    /// A record of the next entry's extended header.
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// An attribute of the next entry.
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// The next entry's permissions.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// A lie about the next entry's size.
    pub fn says_size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    pub fn file(self, path: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Self {
        self.entry(b'0', path, "", body.as_ref())
    }

    pub fn dir(self, path: impl AsRef<[u8]>) -> Self {
        self.entry(b'5', path, "", b"")
    }

    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(b'2', path, target, b"")
    }

    pub fn hard_link(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(b'1', path, target, b"")
    }

    /// An entry of any kind. A path or target that a header cannot hold goes into an extended header.
    pub fn entry(
        mut self,
        kind: u8,
        path: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
        body: impl AsRef<[u8]>,
    ) -> Self {
        let (mut path, mut target, body) = (path.as_ref(), target.as_ref(), body.as_ref());
        if path.len() > 100 {
            self.pax.push((b"path".to_vec(), path.to_vec()));
            path = b"in the extended header";
        }
        if target.len() > 100 {
            self.pax.push((b"linkpath".to_vec(), target.to_vec()));
            target = b"in the extended header";
        }
        let records: Vec<u8> = self.pax.drain(..).flat_map(|(key, value)| record(&key, &value)).collect();
        if !records.is_empty() {
            self.raw(&header(b'x', b"pax", b"", 0o644, records.len() as u64));
            self.body(&records);
        }
        let mode = self.mode.take().unwrap_or(if kind == b'5' { 0o755 } else { 0o644 });
        let size = self.size.take().unwrap_or(body.len() as u64);
        self.raw(&header(kind, path, target, mode, size));
        self.body(body);
        self
    }

    /// GNU's long name (`L`) or long target (`K`) for the next entry.
    pub fn gnu_long(mut self, kind: u8, name: impl AsRef<[u8]>) -> Self {
        let name = [name.as_ref(), b"\0"].concat();
        self.raw(&header(kind, b"././@LongLink", b"", 0, name.len() as u64));
        self.body(&name);
        self
    }

    /// Bytes as they are.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.raw(bytes);
        self
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A body, padded to whole blocks.
    fn body(&mut self, body: &[u8]) {
        self.raw(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// What there is so far, without the end mark.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }

    /// The whole archive.
    pub fn end(mut self) -> Vec<u8> {
        self.raw(&[0; 2 * BLOCK]);
        self.bytes
    }
}

/// A record of an extended header, with the length that counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n).unwrap();
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// A POSIX header with its checksum.
pub fn header(kind: u8, path: &[u8], target: &[u8], mode: u32, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..path.len()].copy_from_slice(path);
    block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    number(&mut block[124..136], size);
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = kind;
    block[157..157 + target.len()].copy_from_slice(target);
    block[257..265].copy_from_slice(b"ustar\x0000");
    sealed(block)
}

/// A number as GNU writes it: octal where it fits, else base 256.
pub fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let octal = format!("{value:0digits$o}\0");
    match octal.len() == field.len() {
        true => field.copy_from_slice(octal.as_bytes()),
        false => {
            field.fill(0);
            let at = field.len() - 8;
            field[at..].copy_from_slice(&value.to_be_bytes());
            field[0] |= 0x80;
        }
    }
}

/// The block with its checksum.
pub fn sealed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
