//! Public keys, and what they signed.

use rustls::pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::{RawPublicKeyEntity, ring as with};

/// What is tried for a key, those that do not fit its kind being passed over. cosign hashes with SHA-256 whatever the
/// curve is; sigstore's clients take the hash that goes with it.
const ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 10] = [
    with::ECDSA_P256_SHA256,
    with::ECDSA_P384_SHA256,
    with::ECDSA_P384_SHA384,
    with::ED25519,
    with::RSA_PKCS1_2048_8192_SHA256,
    with::RSA_PKCS1_2048_8192_SHA384,
    with::RSA_PKCS1_2048_8192_SHA512,
    with::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    with::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    with::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// The shortest DER of an RSA key of 2048 bits.
const SHORTEST_RSA: usize = 290;

/// A public key of a kind that can be checked with.
#[derive(Debug, Clone)]
pub(crate) struct PublicKey(SubjectPublicKeyInfoDer<'static>);

impl PublicKey {
    /// Takes a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) as DER.
    pub fn new(der: Vec<u8>) -> Result<Self, &'static str> {
        let der = SubjectPublicKeyInfoDer::from(der);
        let key = RawPublicKeyEntity::try_from(&der).map_err(|_| "it is not a public key")?;
        let id = with::RSA_PKCS1_2048_8192_SHA256.public_key_alg_id();
        let fits = |algorithm| {
            let answer = key.verify_signature(algorithm, b"", b"");
            answer == Err(webpki::Error::InvalidSignatureForPublicKey)
        };
        if !ALGORITHMS.iter().any(|algorithm| fits(*algorithm)) {
            return Err("it is of a kind that is not known: ECDSA with P-256 or P-384, Ed25519 and RSA are");
        }
        let is_rsa = der.windows(id.len()).any(|part| part == id.as_ref());
        match is_rsa && der.len() < SHORTEST_RSA {
            true => Err("it is an RSA key of less than 2048 bits"),
            false => Ok(Self(der)),
        }
    }

    /// Whether `signature` is of `message`, by this key.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(key) = RawPublicKeyEntity::try_from(&self.0) else { return false };
        ALGORITHMS.iter().any(|algorithm| key.verify_signature(*algorithm, message, signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::base64;

    const MESSAGE: &[u8] = b"signed with openssl";
    const P256: &str = "\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAErxYFZsH22WB8g9xBAdUh+JURnwvKGZEl+JIwsuuuL5Oz6UKQxWo2Xi54sZMd\
        gdEsJIt12Tvi4IJZCMXur0dBDA==";
    const P384: &str = "\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEvMps4PbbnpPSpwVdBhh+ob6o+jeB94+hvFCUqJePT6d7oiaQJSNR2473bS0EbQZc\
        rq5gWTkkG2jdWSWgtgWvADZT4Qdz0J1Mjv5l8OW5ySucf9sH3sGrrjRxeBuRYBK7";
    const ED25519: &str = "MCowBQYDK2VwAyEAnHkD/8gsqhYsH8SVtj9bo+08gpCDd+lDhLbcf1LWg/s=";
    const RSA: &str = "\
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAl+ZSwwBtjGizLJ4fR5SmpoEoe7vRO0l3dwTVdrPMHoewW8fM+KY8\
        ZSv50dx7cRJgXPXchjvdVg4n0yuXOZ+HuzuzcEwQyp+QBjY9vIRYI5+lLr3Iec1iXuFBnomb4FMtzGMS1SLSDgT7kmzE2phW\
        P8jMu6kj3L74ManJ6hRpT6BGeHRdGPotXwLh5PhM6aV8X4TKu6oxmdK8MHY1kaIa3Tk8DasRe1HTnc6HZm783xsCRjIaZtsW\
        kRe5DVm8WiDpM+hWjlBk25Yhw8jx5+2hkfz04D5Vhnq7aEBtQ3QFUO+RlCN7FLqNmvWG8eCDuNfCEiZ5LUs6xdd+jPF7EI/3\
        qwIDAQAB";
    const SMALL_RSA: &str = "\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDA01dS5ZZyw6y7BOJXZM7CjBQj5YrvSIz2EuKwesujvtH1fARRRcVzjzf+\
        dDK+Yv0EuTSlBa+1I50xMP4gztmn1CqbREFFh/eJH1EHgvpKY9LMNSOT8br0rPTtqXdad86c0KKRukwRZGTuw5FDCUp+c+hh\
        Tax82XlSD4Jg0Y6EsQIDAQAB";
    const P521: &str = "\
        MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBU1hYp5G3Eldk0/cYjtXcqFmpGVMHg+SrZPXpcxkbcwybts4sw+qZqA2jU9Jq\
        10vDf84lYCge66urakTY02m0lwMAr2+BosuDUw0CSkUqZsmQ5i0efO289AUzRv0hV2JfeFdANk10mkpvcGtW/h79sxNSoYv/\
        W7vUUN5Gaa3u5JtiCY8=";
    const P256_SHA256: &str =
        "MEYCIQDUkcnAM+mXGgfyyI3SgroLnn05n+SzzH3NBo6Dr9ejSwIhAOuelQZcaO+4TEVxBhqvjo5gdYA3kaoB2g7Cjpy+c7Lm";
    const P384_SHA256: &str = "\
        MGYCMQCgK8gzF4urCas0EV9KfUsuUJlXbYfO2Ky34O25Fw4p3ZXx2Z3S4ah6u9lYGlOaM/ECMQCN7QwVtgWhVlrEDDPqg3zq\
        oHI+Zh++6O2v7AnN09hmLBKL2THuAUDGt/M8YPu+N08=";
    const P384_SHA384: &str = "\
        MGQCMCL5QcWnXZLHeHkaSKIGVzWqiRKYUTWkUepNkKd+XYyCQmCzqr90Vpoot08jmUw/RwIwEL+Hh08TjQbpc2p9T0QC33bD\
        cVnANzffZVJoWfNCy4sfgjnusJ/fF8y4mc6zTzag";
    const ED25519_PURE: &str =
        "XWjRJUG+Kqev17TZgx1sMs0wD7JmBKS1ylmPcW00vSU/5jY+yMTO2AES2/Mq58aCWg6FOyxO0Oa3scvFPGMcDg==";
    const RSA_PKCS1: &str = "\
        Ck4G43Ye1GYOaf4XCKABM5L6HxJ/sponYRgaKXPMq5IcD+ANm5E5G8JDQtPE2cTRXqhUQAtk6erMiubF7H/wGTMqK8gNiLGN\
        yqsiL+YQqPSpXxVZXd3OCdRnpOn7QT1Q346rJbuLOrUTpC+MB3UkKxBKfxpYUafTXwEj7Xoq7/b8UEjPuBSTIdGNzRIDAwg4\
        XpEDVUOie+PZYkiMDjcfbn4M0qIhPMfwDMsI31fg7Yi9rMkPQrW6Xz2bi8nQoFiYEGXnl4QpmPKgwz9rMCeSHkPflZYL8AEj\
        Lh1wweICBPkkAC904Ag3sEmhtWKoDqu76MeQgwvy3sv1jY1NkenVdQ==";
    const RSA_PSS: &str = "\
        UOxbm2UqQkRT7pV36ywSTXhDw4e4a5EaD3M5veP7eQ0zhvn7jefNPr3+8ezsakKkmCo8dpw7SBzQBbau3vgdnaXX50Jw7hv/\
        KPm92/MXInM6FmQLiJOklGxKz68XHxtaN+PeQDnsBtM1gU6cjoW8YKyRE3+1VjRA1DouaAnXJQFNdYFVFX7RT5tIwdzvVMV8\
        YrvmRdo5uUG1rLhgiM8x1l6rKZyr30mATkGvGCUJIF1Q5ODBgyYAQJawdI6b0lVgUESot9ByHvnA4HxcfQ8NTebMkq5JEHZj\
        SqvXovdRAtEWbNNvpWX2ZBFUTvjDdIS6PARD6oy+DBJ899vaXNueeQ==";

    fn key(spki: &str) -> Result<PublicKey, &'static str> {
        PublicKey::new(base64(spki).unwrap())
    }

    // Keys of `openssl genpkey`, signatures of `openssl dgst -sign` and `openssl pkeyutl -sign -rawin`.
    #[test]
    fn what_openssl_signed_is_signed() {
        let all = [
            (P256, P256_SHA256),
            (P384, P384_SHA256),
            (P384, P384_SHA384),
            (ED25519, ED25519_PURE),
            (RSA, RSA_PKCS1),
            (RSA, RSA_PSS),
        ];
        for (spki, signature) in all {
            let (key, signature) = (key(spki).unwrap(), base64(signature).unwrap());
            assert!(key.signed(MESSAGE, &signature), "{spki}");
            assert!(!key.signed(b"signed with openssl?", &signature), "{spki}");
            for at in 0..signature.len() {
                let mut other = signature.clone();
                other[at] ^= 1;
                assert!(!key.signed(MESSAGE, &other), "{spki}, byte {at}");
            }
            let others = all.iter().filter(|(other, _)| *other != spki);
            assert!(
                others
                    .map(|(other, _)| self::key(other).unwrap())
                    .all(|key| !key.signed(MESSAGE, &signature))
            );
        }
    }

    #[test]
    fn other_kinds_and_weak_keys_are_told() {
        assert!(key(SMALL_RSA).unwrap_err().contains("2048"));
        assert!(key(P521).unwrap_err().contains("kind"));
        assert!(PublicKey::new(Vec::new()).unwrap_err().contains("not a public key"));
        let cut = &base64(P256).unwrap()[..80];
        assert!(PublicKey::new(cut.to_vec()).is_err());
    }
}
