//! The headers of an RPM package, which are passed over: what is in it says the payload itself.
//! <https://rpm-software-management.github.io/rpm/manual/format_v4.html>

use super::skip;
use crate::{
    KernelError,
    scratch::{refused, stream_error},
};
use std::io::Read;

/// How a package begins.
pub(super) const MAGIC: &[u8] = &[0xed, 0xab, 0xee, 0xdb];
/// The lead's length.
const LEAD: u64 = 96;
/// How a header begins, with its version.
const HEADER: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];
/// The most entries of a header and its longest store, in bytes: what rpm itself accepts (rpm 4.14).
const MOST_ENTRIES: u32 = 65_535;
const MOST_STORE: u32 = 256 << 20;

/// Reads up to the payload, a packed cpio archive.
///
/// # Errors
/// [`KernelError::Stream`] when it is no package.
pub(super) fn payload(stream: &mut impl Read) -> Result<(), KernelError> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).map_err(refused)?;
    if magic != MAGIC {
        return Err(stream_error("it is no RPM package"));
    }
    skip(stream, LEAD - MAGIC.len() as u64)?;
    // The signatures are padded to 8 bytes, the header itself is not.
    let signatures = header(stream)?;
    skip(stream, signatures.next_multiple_of(8) - signatures)?;
    header(stream).map(drop)
}

/// Passes over a header; tells its length.
fn header(stream: &mut impl Read) -> Result<u64, KernelError> {
    let mut intro = [0; 16];
    stream.read_exact(&mut intro).map_err(refused)?;
    let number = |at: usize| intro[at..at + 4].iter().fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
    let (entries, store) = (number(8), number(12));
    if intro[..4] != HEADER || entries > MOST_ENTRIES || store > MOST_STORE {
        return Err(stream_error("a header of the RPM package is damaged"));
    }
    let rest = u64::from(entries) * 16 + u64::from(store);
    skip(stream, rest)?;
    Ok(16 + rest)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(entries: u32, store: &[u8]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&entries.to_be_bytes());
        bytes.extend_from_slice(&(store.len() as u32).to_be_bytes());
        bytes.resize(bytes.len() + entries as usize * 16, 7);
        bytes.extend_from_slice(store);
        bytes
    }

    /// A package with this payload.
    pub(in crate::package) fn package(payload: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.resize(LEAD as usize, 0);
        bytes.extend(one(2, b"signatures"));
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(one(3, b"names and more"));
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn the_payload_follows_the_headers() {
        let bytes = package(b"070701");
        let mut stream = &bytes[..];
        payload(&mut stream).unwrap();
        assert_eq!(stream, b"070701");
    }

    #[test]
    fn damage_and_huge_headers_are_refused() {
        let good = package(b"");
        let mut huge = good.clone();
        huge[96 + 12] = 0x80;
        let mut many = good.clone();
        many[96 + 8] = 1;
        let mut other = good.clone();
        other[96] = 0;
        for (bytes, word) in [
            (&good[..good.len() - 1], "ends early"),
            (&good[..50], "ends early"),
            (&huge, "damaged"),
            (&many, "damaged"),
            (&other, "damaged"),
            (b"nothing of the kind", "no RPM"),
        ] {
            let error = payload(&mut &bytes[..]).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = payload(&mut &bytes[..]);
            let mut lead = package(b"");
            lead.truncate(LEAD as usize);
            let _ = payload(&mut &[&lead[..], &HEADER, &bytes].concat()[..]);
        }
    }
}
