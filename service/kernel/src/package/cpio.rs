//! cpio archives of the `newc` form, the payload of an RPM package, in one pass.

use super::skip;
use crate::{
    KernelError,
    scratch::{refused, stream_error},
    tarball::{MOST_ENTRIES, Visit},
};
use std::io::Read;

/// The longest path, in bytes: PATH_MAX.
const MOST_PATH: u64 = 4096;
/// What ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";
/// The bits of a mode that say what an entry is, and those of a regular file (inode(7)).
const TYPE: u64 = 0o170000;
const REGULAR: u64 = 0o100000;

/// Hands each regular file to `visit`. What is not read of it is passed over.
///
/// # Errors
/// [`KernelError::Stream`] when it is no such archive or beyond a bound, and what `visit` says.
pub(super) fn each_file(mut stream: impl Read, visit: &mut Visit<'_>) -> Result<(), KernelError> {
    for _ in 0..MOST_ENTRIES {
        let mut header = [0; 110];
        stream.read_exact(&mut header).map_err(refused)?;
        match &header[..6] {
            b"070701" | b"070702" => {}
            b"07070X" => return Err(stream_error("it has a file of more than 4 GiB")),
            _ => return Err(stream_error("its cpio archive is damaged")),
        }
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let field = |number: usize| hexadecimal(&header[6 + number * 8..14 + number * 8]);
        let (mode, size, length) = (field(1)?, field(6)?, field(11)?);
        if length == 0 || length > MOST_PATH {
            return Err(stream_error("its cpio archive has a path that is too long"));
        }
        let mut path = vec![0; length as usize];
        stream.read_exact(&mut path).map_err(refused)?;
        if path.pop() != Some(0) {
            return Err(stream_error("its cpio archive is damaged"));
        }
        skip(&mut stream, padding(110 + length))?;
        if path == TRAILER {
            return Ok(());
        }
        let mut body = (&mut stream).take(size);
        // Of a file's hard links the last alone has its bytes; the others are empty.
        if mode & TYPE == REGULAR && size > 0 {
            visit(&path, size, &mut body)?;
        }
        let left = body.limit();
        skip(&mut stream, left + padding(size))?;
    }
    Err(stream_error(format!("it has more than {MOST_ENTRIES} entries")))
}

/// Up to the next multiple of 4.
fn padding(length: u64) -> u64 {
    length.next_multiple_of(4) - length
}

fn hexadecimal(field: &[u8]) -> Result<u64, KernelError> {
    let mut digits = field.iter().map(|b| char::from(*b).to_digit(16));
    digits
        .try_fold(0, |sum, digit| Some(sum << 4 | u64::from(digit?)))
        .ok_or_else(|| stream_error("its cpio archive is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::Archive;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, KernelError> {
        let mut files = Vec::new();
        each_file(bytes, &mut |path, size, from| {
            let mut data = Vec::new();
            // Every other file is left to be passed over.
            if files.len() % 2 == 0 {
                from.read_to_end(&mut data).unwrap();
                assert!(data.len() as u64 <= size);
            }
            files.push((String::from_utf8_lossy(path).into_owned(), data));
            Ok(())
        })?;
        Ok(files)
    }

    fn archive() -> Vec<u8> {
        let mut archive = Archive::new(0);
        archive.directory("./boot", 0o755);
        archive.file("./boot/vmlinuz", 0o644, b"kernel");
        archive.file("empty", 0o644, b"");
        archive.file("passed over", 0o644, b"12345");
        archive.character_device("dev/console", 0o600, (5, 1));
        archive.file("last", 0o644, b"1");
        archive.finish()
    }

    #[test]
    fn files_come_in_order() {
        let files = read(&archive()).unwrap();
        let files: Vec<_> = files.iter().map(|(path, data)| (path.as_str(), &data[..])).collect();
        assert_eq!(files, [("./boot/vmlinuz", &b"kernel"[..]), ("passed over", b""), ("last", b"1")]);
    }

    #[test]
    fn damage_is_said() {
        let good = archive();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        for (bytes, word) in [
            (good[..200].to_vec(), "fill"),
            (vec![], "fill"),
            (with(5, b'7'), "damaged"),
            (with(5, b'X'), "4 GiB"),
            (with(6 + 11 * 8, b'1'), "too long"),
            (with(6 + 8, b'x'), "damaged"),
            (with(110 + 6, b'x'), "damaged"),
        ] {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400, byte: u8
        ) {
            let _ = read(&bytes);
            let _ = read(&[b"070701", &bytes[..]].concat());
            let mut harmed = archive();
            let at = at % harmed.len();
            harmed[at] = byte;
            let _ = read(&harmed);
        }
    }
}
