//! Little-endian fields at fixed offsets, which is what most of ext4 is.

/// Writes a 16-bit field.
pub(crate) fn put16(buffer: &mut [u8], at: usize, value: u16) {
    buffer[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Writes a 32-bit field.
pub(crate) fn put32(buffer: &mut [u8], at: usize, value: u32) {
    buffer[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes a big-endian 32-bit field, as the journal has them.
pub(crate) fn put32_be(buffer: &mut [u8], at: usize, value: u32) {
    buffer[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// The low and high halves of a number that ext4 keeps in two fields.
pub(crate) fn halves(value: u32) -> (u16, u16) {
    (value as u16, (value >> 16) as u16)
}
