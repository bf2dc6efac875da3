//! The half-MD4 hash of names, by which indexed directories are sorted (kernel: fs/ext4/hash.c).

/// How bytes above 127 enter the hash: C's `char` is signed on some machines and not on others, so the
/// superblock says which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chars {
    /// As on x86.
    #[cfg_attr(not(test), expect(dead_code, reason = "we always write unsigned; the tests compare both"))]
    Signed,
    /// As on ARM.
    Unsigned,
}

/// The hash that sorts, its lowest bit clear, and the hash that breaks ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameHash {
    pub major: u32,
    pub minor: u32,
}

/// The largest value stands for the end of a directory and is not a hash.
const END: u32 = 0xffff_fffe;

/// Hashes a name with the filesystem's seed.
pub(crate) fn half_md4(name: &[u8], seed: [u32; 4], chars: Chars) -> NameHash {
    let mut state = if seed == [0; 4] { [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] } else { seed };
    let mut rest = name;
    while !rest.is_empty() {
        transform(&mut state, &words(rest, chars));
        rest = rest.get(32..).unwrap_or_default();
    }
    let major = state[1] & !1;
    NameHash { major: if major == END { END - 2 } else { major }, minor: state[2] }
}

/// The next 32 bytes of a name as 8 words, padded with the length of what is left of it.
fn words(rest: &[u8], chars: Chars) -> [u32; 8] {
    let length = rest.len() as u32;
    let pad = (length | length << 8) | (length | length << 8) << 16;
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        for &byte in bytes {
            let value = match chars {
                Chars::Signed => byte as i8 as u32,
                Chars::Unsigned => u32::from(byte),
            };
            *word = value.wrapping_add(*word << 8);
        }
    }
    words
}

fn transform(state: &mut [u32; 4], input: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (|x, y, z| (x & y).wrapping_add((x ^ y) & z), 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in ROUNDS {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(input[word]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 00112233-4455-6677-8899-aabbccddeeff
    const SEED: [u32; 4] = [0x3322_1100, 0x7766_5544, 0xbbaa_9988, 0xffee_ddcc];

    /// The values are those of debugfs's `dx_hash -h half_md4 [-s 00112233-4455-6677-8899-aabbccddeeff]`.
    #[test]
    fn agrees_with_debugfs() {
        let long = b"a-very-long-name-that-has-more-than-thirty-two-bytes-in-it.txt";
        for (name, seed, major, minor) in [
            (&b"hello"[..], [0; 4], 0x1746_da32, 0x4200_13b5),
            (b"hello", SEED, 0x344c_a36e, 0x2ef1_6de2),
            (b"a", [0; 4], 0xd5fa_7d7a, 0xacb4_8187),
            (b"a", SEED, 0x9375_2ee6, 0x578c_30ba),
            (long, [0; 4], 0xa90c_09a6, 0xb04b_003f),
            (long, SEED, 0x1c99_f38c, 0xd461_685e),
        ] {
            for chars in [Chars::Signed, Chars::Unsigned] {
                assert_eq!(half_md4(name, seed, chars), NameHash { major, minor }, "{name:?} {chars:?}");
            }
        }
        let name = "na\u{ef}ve".as_bytes();
        let signed = half_md4(name, [0; 4], Chars::Signed);
        assert_eq!(signed, NameHash { major: 0x1b42_012a, minor: 0xfcf9_d17a });
        assert_ne!(half_md4(name, [0; 4], Chars::Unsigned), signed);
    }
}
