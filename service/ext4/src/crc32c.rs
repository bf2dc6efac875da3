//! CRC-32C (Castagnoli) as ext4 uses it: the seed is the running value, and nothing is inverted.

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[k][b]` is the effect of byte `b` followed by `k` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[k - 1][byte];
            tables[k][byte] = (previous >> 8) ^ tables[0][(previous & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// The checksum of `data` after what gave `seed`; a chain starts with `!0`.
pub(crate) fn crc32c(seed: u32, data: &[u8]) -> u32 {
    let mut crc = seed;
    let (words, rest) = data.as_chunks::<8>();
    for w in words {
        let low = crc ^ u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
        crc = TABLES[7][(low & 0xff) as usize]
            ^ TABLES[6][(low >> 8 & 0xff) as usize]
            ^ TABLES[5][(low >> 16 & 0xff) as usize]
            ^ TABLES[4][(low >> 24) as usize]
            ^ TABLES[3][w[4] as usize]
            ^ TABLES[2][w[5] as usize]
            ^ TABLES[1][w[6] as usize]
            ^ TABLES[0][w[7] as usize];
    }
    for &byte in rest {
        crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(byte)) & 0xff) as usize];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn has_the_values_of_rfc_3720() {
        let finished = |data: &[u8]| !crc32c(!0, data);
        assert_eq!(finished(b"123456789"), 0xe306_9283);
        assert_eq!(finished(&[0; 32]), 0x8a91_36aa);
        assert_eq!(finished(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(finished(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    proptest! {
        #[test]
        fn pieces_chain(data: Vec<u8>, cut: usize) {
            let (a, b) = data.split_at(cut % (data.len() + 1));
            prop_assert_eq!(crc32c(crc32c(!0, a), b), crc32c(!0, &data));
        }
    }
}
