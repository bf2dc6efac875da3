//! What the fuzz targets share.

pub mod fsck;

const BLOCK: usize = 512;
/// Stands between two layers in an input of several.
pub const SEPARATOR: &[u8] = b"==layer==";

/// The layers of an input.
pub fn layers(bytes: &[u8]) -> Vec<&[u8]> {
    let mut layers = Vec::new();
    let mut rest = bytes;
    // More than five layers show nothing that five do not.
    while layers.len() < 4
        && let Some(end) = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR)
    {
        layers.push(&rest[..end]);
        rest = &rest[end + SEPARATOR.len()..];
    }
    layers.push(rest);
    layers
}

/// The bytes with right checksums in what looks like an archive's headers: no fuzzer would find them.
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let starts: Vec<usize> = match layers(&bytes) {
        all => all.iter().map(|layer| layer.as_ptr().addr() - bytes.as_ptr().addr()).collect(),
    };
    for (at, start) in starts.iter().enumerate() {
        let end = starts.get(at + 1).map_or(bytes.len(), |next| next - SEPARATOR.len());
        for block in bytes[*start..end].as_chunks_mut::<BLOCK>().0 {
            if block[257..262] == *b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
    }
    bytes
}
