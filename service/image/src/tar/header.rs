//! One 512-byte header block: ustar (POSIX.1-1988), GNU, star and V7 (tar(5) of libarchive).

use crate::tar::sparse::Map;

/// Archives are made of blocks of this many bytes.
pub(crate) const BLOCK: usize = 512;

/// A header block whose checksum is right.
pub(crate) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Checks the checksum: the sum of all bytes, those of the field itself taken as spaces. Old archives summed signed
    /// bytes.
    pub(crate) fn new(block: &'a [u8; BLOCK]) -> Result<Self, &'static str> {
        let expected = number(&block[148..156])?;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        match expected == unsigned || expected == signed {
            true => Ok(Self(block)),
            false => Err("a header's checksum is wrong, or it is not a tar archive"),
        }
    }

    pub(crate) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix that POSIX and star archives have.
    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match (&self.0[257..263], &self.0[508..512]) {
            (b"ustar\0", b"tar\0") => text(&self.0[345..476]),
            (b"ustar\0", _) => text(&self.0[345..500]),
            _ => b"",
        };
        match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    pub(crate) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(crate) fn mode(&self) -> Result<u16, &'static str> {
        // The type bits that some archivers add are masked away.
        Ok((number(&self.0[100..108])? & 0o7777) as u16)
    }

    pub(crate) fn uid(&self) -> Result<i64, &'static str> {
        number(&self.0[108..116])
    }

    pub(crate) fn gid(&self) -> Result<i64, &'static str> {
        number(&self.0[116..124])
    }

    pub(crate) fn size(&self) -> Result<u64, &'static str> {
        u64::try_from(number(&self.0[124..136])?).map_err(|_| "a size is negative")
    }

    pub(crate) fn mtime(&self) -> Result<i64, &'static str> {
        number(&self.0[136..148])
    }

    /// Major and minor number of a device.
    pub(crate) fn device(&self) -> Result<(u32, u32), &'static str> {
        let part = |field| u32::try_from(number(field)?).map_err(|_| "a device number is out of range");
        Ok((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }

    /// GNU's old sparse format: real size, the first four segments, and whether a block with more follows.
    pub(crate) fn sparse(&self) -> Result<(u64, Map, bool), &'static str> {
        let real = u64::try_from(number(&self.0[483..495])?).map_err(|_| "a size is negative")?;
        Ok((real, segments(&self.0[386..482])?, self.0[482] != 0))
    }
}

/// Pairs of offset and length, 12 bytes each, up to the first empty one.
pub(crate) fn segments(fields: &[u8]) -> Result<Map, &'static str> {
    let mut found = Vec::new();
    for pair in fields.as_chunks::<24>().0 {
        if pair[0] == 0 {
            break;
        }
        let part = |field| u64::try_from(number(field)?).map_err(|_| "a sparse map is negative");
        found.push((part(&pair[..12])?, part(&pair[12..])?));
    }
    Ok(found)
}

/// A text field ends at its first NUL, or fills its room.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// A number: octal digits between spaces and NULs, or, with the top bit set, big-endian two's complement (GNU).
pub(crate) fn number(field: &[u8]) -> Result<i64, &'static str> {
    const OUT_OF_RANGE: &str = "a number of a header is out of range";
    match field.first() {
        Some(first) if first & 0x80 != 0 => {
            let mut value: i64 = if first & 0x40 != 0 { -1 } else { 0 };
            for (at, byte) in field.iter().enumerate() {
                let byte = if at == 0 && value == 0 { byte & 0x7f } else { *byte };
                value = value.checked_mul(256).ok_or(OUT_OF_RANGE)? | i64::from(byte);
            }
            Ok(value)
        }
        _ => {
            let mut value: i64 = 0;
            for byte in text(field).trim_ascii() {
                if !(b'0'..=b'7').contains(byte) {
                    return Err("a number of a header is not octal");
                }
                value = value.checked_mul(8).ok_or(OUT_OF_RANGE)? + i64::from(byte - b'0');
            }
            Ok(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_in_every_spelling() {
        for (field, value) in [
            (b"0000644\0" as &[u8], 0o644),
            (b"   644 \0", 0o644),
            (b"00000000", 0),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"77777777", 0o77777777),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\x80\0\0\0\xff\xff\xff\xff", 0xffff_ffff),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        ] {
            assert_eq!(number(field), Ok(value), "{field:?}");
        }
        for bad in
            [b"00009\0" as &[u8], b"-1\0", b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"0x1f\0"]
        {
            assert!(number(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(block in proptest::collection::vec(any::<u8>(), BLOCK)) {
            let mut block: [u8; BLOCK] = block.try_into().unwrap();
            let sum: u32 = block.iter().enumerate()
                .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) }).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            let header = Header::new(&block).unwrap();
            let _ = (header.path(), header.link(), header.mode(), header.uid(), header.gid());
            let _ = (header.size(), header.mtime(), header.device(), header.sparse());
        }
    }
}
