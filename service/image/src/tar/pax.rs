//! Extended headers of POSIX.1-2001 ("pax"): records that override fields of the header after them.

use crate::tar::sparse::Map;
use banger_ext4::{Timestamp, Xattr};

/// What the records of one extended header say; `None` leaves the header's own field.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<Timestamp>,
    pub xattrs: Vec<Xattr>,
    pub sparse: Sparse,
}

/// GNU's sparse files in pax archives, versions 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
#[derive(Debug, Default)]
pub(crate) struct Sparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    /// The real name; the header's is made up.
    pub name: Option<Vec<u8>>,
    /// The real size.
    pub size: Option<u64>,
    /// The segments, in versions 0.0 and 0.1.
    pub map: Map,
    /// An offset of version 0.0 whose length has yet to come.
    offset: Option<u64>,
}

impl Sparse {
    /// Whether the segments are in front of the data, as in version 1.0.
    pub(crate) fn map_in_body(&self) -> bool {
        self.major == Some(1) && self.minor.unwrap_or(0) == 0
    }

    /// Whether the file is sparse at all.
    pub(crate) fn any(&self) -> bool {
        self.map_in_body() || !self.map.is_empty() || self.size.is_some()
    }
}

impl Pax {
    /// Reads the body of an extended header: records of the form `<length> <key>=<value>\n`.
    pub(crate) fn parse(mut body: &[u8]) -> Result<Self, &'static str> {
        const DAMAGED: &str = "an extended header is damaged";
        let mut pax = Self::default();
        while !body.is_empty() {
            let space = body.iter().take(20).position(|b| *b == b' ').ok_or(DAMAGED)?;
            let length = usize::try_from(decimal(&body[..space]).ok_or(DAMAGED)?).map_err(|_| DAMAGED)?;
            let record = body.get(space + 1..length).ok_or(DAMAGED)?.strip_suffix(b"\n").ok_or(DAMAGED)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or(DAMAGED)?;
            pax.record(&record[..equals], &record[equals + 1..])?;
            body = &body[length..];
        }
        Ok(pax)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // An empty value takes the record back (pax(1), "pax Extended Header").
        let given = (!value.is_empty()).then_some(value);
        let number = |bad| given.map(|v| decimal(v).ok_or(bad)).transpose();
        match key {
            b"path" => self.path = given.map(<[u8]>::to_vec),
            b"linkpath" => self.link = given.map(<[u8]>::to_vec),
            b"size" => self.size = number("an extended size is not a number")?,
            b"uid" => self.uid = given.map(signed).transpose()?,
            b"gid" => self.gid = given.map(signed).transpose()?,
            b"mtime" => self.mtime = given.map(time).transpose()?,
            b"GNU.sparse.major" => self.sparse.major = number("a sparse version is not a number")?,
            b"GNU.sparse.minor" => self.sparse.minor = number("a sparse version is not a number")?,
            b"GNU.sparse.name" => self.sparse.name = given.map(<[u8]>::to_vec),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.size = number("a sparse size is not a number")?;
            }
            b"GNU.sparse.offset" => self.sparse.offset = number("a sparse map is damaged")?,
            b"GNU.sparse.numbytes" => {
                let length = number("a sparse map is damaged")?;
                match (self.sparse.offset.take(), length) {
                    (Some(offset), Some(length)) => self.sparse.map.push((offset, length)),
                    _ => return Err("a sparse map is damaged"),
                }
            }
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
                let numbers = numbers.ok_or("a sparse map is damaged")?;
                let (pairs, rest) = numbers.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err("a sparse map is damaged");
                }
                self.sparse.map = pairs.iter().map(|[offset, length]| (*offset, *length)).collect();
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name.to_vec(), value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = percent_decoded(name);
                    // The same attribute in both spellings is one attribute; star's is exact.
                    if !self.xattrs.iter().any(|x| x.name == name) {
                        self.xattr(name, base64(value).ok_or("an extended attribute is not base64")?);
                    }
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.xattrs.retain(|x| x.name != name);
        self.xattrs.push(Xattr { name, value });
    }
}

/// Decimal digits and nothing else.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn signed(text: &[u8]) -> Result<i64, &'static str> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let value = decimal(digits).and_then(|v| i64::try_from(v).ok()).ok_or("an extended number is damaged")?;
    Ok(if negative { -value } else { value })
}

/// Seconds since the epoch with any number of decimals; digits after the ninth are dropped towards the past.
fn time(text: &[u8]) -> Result<Timestamp, &'static str> {
    const DAMAGED: &str = "an extended time is damaged";
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[] as &[u8]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(DAMAGED);
    }
    let mut nanoseconds = 0;
    for at in 0..9 {
        nanoseconds = nanoseconds * 10 + u32::from(fraction.get(at).map_or(0, |b| b - b'0'));
    }
    let seconds = signed(whole)?;
    // Minus 1.25 seconds is second -2 and three quarters.
    match whole.first() == Some(&b'-') && nanoseconds > 0 {
        true => Ok(Timestamp {
            seconds: seconds.checked_sub(1).ok_or(DAMAGED)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        }),
        false => Ok(Timestamp { seconds, nanoseconds }),
    }
}

/// libarchive escapes what is not printable in attribute names as %XX.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                out.push(byte);
                rest = &tail[2..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// Standard base64, with or without padding (libarchive writes none).
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded = text.trim_ascii_end();
    let end = unpadded.iter().rposition(|b| *b != b'=').map_or(0, |at| at + 1);
    let mut out = Vec::with_capacity(end * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in &unpadded[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    (end % 4 != 1).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One record, with the length that counts itself.
    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length = (1..).map(|d| rest + d).find(|n| n.to_string().len() + rest == *n).unwrap();
        [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
    }

    #[test]
    fn records_override() {
        let body = [
            record("path", b"a\nb=c"),
            record("linkpath", b"x"),
            record("size", b"8589934592"),
            record("uid", b"4294967294"),
            record("gid", b"-1"),
            record("mtime", b"-1.25"),
            record("comment", b"nothing"),
            record("SCHILY.xattr.user.bin", b"\0\xff\n="),
            record("LIBARCHIVE.xattr.user.b%3d", b"AP8K"),
        ]
        .concat();
        let pax = Pax::parse(&body).unwrap();
        assert_eq!(pax.path.as_deref(), Some(b"a\nb=c" as &[u8]));
        assert_eq!((pax.size, pax.uid, pax.gid), (Some(1 << 33), Some(4_294_967_294), Some(-1)));
        assert_eq!(pax.mtime, Some(Timestamp { seconds: -2, nanoseconds: 750_000_000 }));
        assert_eq!(pax.xattrs[0].value, b"\0\xff\n=");
        assert_eq!(
            (pax.xattrs[1].name.as_slice(), pax.xattrs[1].value.as_slice()),
            (b"user.b=" as _, b"\0\xff\n" as _)
        );
    }

    #[test]
    fn times_keep_nanoseconds() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1700000000.123456789", 1_700_000_000, 123_456_789),
            ("1.5", 1, 500_000_000),
            ("1.0000000009", 1, 0),
            ("-0.5", -1, 500_000_000),
            ("4294967296.000000001", 1 << 32, 1),
        ] {
            assert_eq!(time(text.as_bytes()), Ok(Timestamp { seconds, nanoseconds }), "{text}");
        }
        for bad in ["", ".", "x", "1.x", "1e9", "--1", "99999999999999999999"] {
            assert!(time(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn damaged_records_are_told() {
        for bad in [
            b"5 a=b" as &[u8],
            b"x a=b\n",
            b"999 a=b\n",
            b"3 \n",
            b"6 abc\n",
            b"0 a=b\n",
            b"12345678901234567890 a=b\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        let odd = record("GNU.sparse.map", b"1,2,3");
        assert!(Pax::parse(&odd).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pax::parse(&body);
        }

        #[test]
        fn any_value_comes_back(value in proptest::collection::vec(any::<u8>(), 1..300)) {
            let body = [record("SCHILY.xattr.user.x", &value), record("path", &value)].concat();
            let pax = Pax::parse(&body).unwrap();
            prop_assert_eq!(&pax.xattrs[0].value, &value);
            prop_assert_eq!(pax.path, Some(value));
        }
    }
}
