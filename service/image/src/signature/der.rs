//! As much of DER (X.690, section 10) as certificates need here: definite lengths, tags of one byte.

/// What certificates and their extensions are made of.
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const UTF8: u8 = 0x0c;
pub(super) const SEQUENCE: u8 = 0x30;

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    /// Tag and length too.
    pub whole: &'a [u8],
}

/// Reads one element after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next element, if it is one of this tag.
    pub fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        let element = self.clone().next().filter(|element| element.tag == tag)?;
        self.next();
        Some(element.content)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, header) = match first {
            0..=0x7f => (usize::from(first), 2),
            0x81..=0x83 => {
                let bytes = rest.get(..usize::from(first & 0x7f))?;
                let length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                let is_shortest = length >= 0x80 && bytes.first() != Some(&0);
                (is_shortest.then_some(length)?, 2 + bytes.len())
            }
            _ => return None,
        };
        let whole = self.0.get(..header + length)?;
        self.0 = &self.0[whole.len()..];
        (tag & 0x1f != 0x1f).then_some(Element { tag, content: &whole[header..], whole })
    }
}

/// The only element in `bytes`, of this tag.
pub(super) fn only(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader(bytes);
    let content = reader.value(tag)?;
    reader.is_empty().then_some(content)
}

/// An element with this content.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let mut out = vec![tag];
    match content.len() {
        0..=0x7f => out.push(content.len() as u8),
        _ => {
            out.push(0x80 | significant.len() as u8);
            out.extend(significant);
        }
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(tag in 0u8..31, content in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let written = element(tag, &content);
            prop_assert_eq!(only(&written, tag), Some(&content[..]));
            prop_assert_eq!(only(&written[..written.len() - 1], tag), None);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut read = 0;
            for element in Reader(&bytes) {
                read += element.whole.len();
            }
            prop_assert!(read <= bytes.len());
        }
    }

    #[test]
    fn longer_lengths_than_needed_are_refused() {
        assert_eq!(Reader(&[4, 0x81, 1, 9]).next(), None);
        assert_eq!(Reader(&[4, 0x82, 0, 0x80]).next(), None);
        assert_eq!(Reader(&[4, 0x80, 0, 0]).next(), None, "indefinite");
    }
}
