//! ar(5), the outer archive of a Debian package (deb(5)).

use crate::{
    KernelError,
    scratch::{refused, stream_error},
};
use std::io::Read;

/// How an ar archive begins.
pub(super) const MAGIC: &[u8] = b"!<arch>\n";
/// The most members; a package has three.
const MOST_MEMBERS: u32 = 64;
/// One member's header: name 16, mtime 12, uid 6, gid 6, mode 8, size 10, magic 2.
const HEADER: usize = 60;

/// Reads up to the member whose name begins with `prefix`; the stream then stands at its first byte. Tells its
/// size.
///
/// # Errors
/// [`KernelError::Stream`] when there is none.
pub(super) fn find(stream: &mut impl Read, prefix: &str) -> Result<u64, KernelError> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).map_err(refused)?;
    if magic != MAGIC {
        return Err(stream_error("it is no ar archive"));
    }
    for _ in 0..MOST_MEMBERS {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).map_err(|_| stream_error(format!("it has no {prefix}")))?;
        if !header.ends_with(b"`\n") {
            return Err(stream_error("a header of its archive is damaged"));
        }
        let size = number(&header[48..58])?;
        let name = header[..16].trim_ascii_end();
        if name.strip_suffix(b"/").unwrap_or(name).starts_with(prefix.as_bytes()) {
            return Ok(size);
        }
        // Members start at even offsets.
        super::skip(stream, size + size % 2)?;
    }
    Err(stream_error(format!("its archive has more than {MOST_MEMBERS} members")))
}

/// A decimal number, padded with blanks.
fn number(field: &[u8]) -> Result<u64, KernelError> {
    let text = std::str::from_utf8(field.trim_ascii_end()).ok();
    let digits = text.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| stream_error("a header of its archive has no size"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An archive of these members.
    pub(in crate::package) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, data) in members {
            let size = data.len();
            bytes.extend_from_slice(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100644).as_bytes(),
            );
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }

    #[test]
    fn a_member_is_found_behind_odd_ones() {
        for spelling in ["data.tar.xz", "data.tar.xz/"] {
            let bytes =
                archive(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (spelling, b"here")]);
            let mut stream = &bytes[..];
            assert_eq!(find(&mut stream, "data.tar").unwrap(), 4);
            assert_eq!(stream, b"here");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cut = &archive(&[("debian-binary", b"2.0\n")])[..40];
        let mut sizeless = archive(&[("data.tar", b"")]);
        sizeless[8 + 48] = b'x';
        let mut damaged = archive(&[("data.tar", b"")]);
        damaged[8 + 58] = b'x';
        let many = archive(&[("other", &b"x"[..]); 65]);
        for (bytes, word) in [
            (&b"!<arch>"[..], "fill"),
            (b"!<arch>x12345678", "no ar archive"),
            (cut, "no data.tar"),
            (&archive(&[("debian-binary", b"2.0\n")]), "no data.tar"),
            (&sizeless, "no size"),
            (&damaged, "damaged"),
            (&many, "more than 64"),
        ] {
            let error = find(&mut &bytes[..], "data.tar").unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = find(&mut &bytes[..], "data.tar");
            let _ = find(&mut &[MAGIC, &bytes[..]].concat()[..], "data.tar");
            let _ = number(&bytes);
        }
    }
}
