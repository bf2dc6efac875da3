//! The proof that a log holds an entry: hashes up to the root of its tree (RFC 6962, section 2.1.1), and that root signed
//! by the log (C2SP, tlog-checkpoint.md). It says that the log keeps the entry, not since when.

use super::{base64, key::PublicKey};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// As a bundle has it (sigstore/protobuf-specs, sigstore_rekor.proto, as JSON).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Proof {
    #[serde(default, deserialize_with = "super::log::number")]
    log_index: u64,
    root_hash: String,
    #[serde(deserialize_with = "super::log::number")]
    tree_size: u64,
    #[serde(default)]
    hashes: Vec<String>,
    checkpoint: Checkpoint,
}

#[derive(Debug, Deserialize)]
struct Checkpoint {
    envelope: String,
}

impl Proof {
    /// Whether the log with this key and id holds `entry`; nothing when the proof is damaged.
    pub fn holds(&self, entry: &[u8], key: &PublicKey, id: &[u8]) -> Option<bool> {
        let root = self.root(entry)?;
        let same = base64(&self.root_hash)? == root;
        Some(same && self.is_signed(&root, key, id)?)
    }

    /// The root of the tree in which `entry` is where the proof says.
    fn root(&self, entry: &[u8]) -> Option<Vec<u8>> {
        let mut hashes = self.hashes.iter();
        let (mut index, mut last) = (self.log_index, self.tree_size.checked_sub(1)?);
        if index > last {
            return None;
        }
        let mut root = hash(0, entry, &[]);
        while last > 0 {
            // A node without a right neighbour goes up as it is.
            if index % 2 == 1 {
                root = hash(1, &base64(hashes.next()?)?, &root);
            } else if index < last {
                root = hash(1, &root, &base64(hashes.next()?)?);
            }
            (index, last) = (index / 2, last / 2);
        }
        hashes.next().is_none().then_some(root)
    }

    /// Whether the log signed that its tree has this root.
    fn is_signed(&self, root: &[u8], key: &PublicKey, id: &[u8]) -> Option<bool> {
        let (text, signatures) = self.checkpoint.envelope.split_once("\n\n")?;
        let mut lines = text.lines().skip(1);
        let size: u64 = lines.next()?.parse().ok()?;
        let signed_root = base64(lines.next()?)?;
        let signed = format!("{text}\n");
        let by_log = signatures.lines().any(|line| {
            let signature = line.strip_prefix("\u{2014} ").and_then(|line| line.split_once(' '));
            let signature = signature.and_then(|(_, text)| base64(text)).unwrap_or_default();
            let hint = id.get(..4);
            signature
                .split_at_checked(4)
                .is_some_and(|(of, signature)| Some(of) == hint && key.signed(signed.as_bytes(), signature))
        });
        Some(by_log && size == self.tree_size && signed_root == root)
    }
}

/// The hash of a leaf (0) or of a node (1).
fn hash(kind: u8, left: &[u8], right: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update([kind]).chain_update(left).chain_update(right).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::tests::b64;
    use proptest::prelude::*;
    use rcgen::{KeyPair, PublicKeyData, SigningKey};

    /// The root of a tree, and the way up to it from leaf `index`, as RFC 6962 defines them.
    fn tree(leaves: &[Vec<u8>], index: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let [_, _, ..] = leaves else { return (hash(0, &leaves[0], &[]), Vec::new()) };
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        let (mut way, other, root);
        if index < left.len() {
            let one = tree(left, index);
            (way, other) = (one.1, tree(right, 0).0);
            root = hash(1, &one.0, &other);
        } else {
            let one = tree(right, index - left.len());
            (way, other) = (one.1, tree(left, 0).0);
            root = hash(1, &other, &one.0);
        }
        way.push(other);
        (root, way)
    }

    /// A proof for leaf `index`, signed with `key`.
    fn proof(leaves: &[Vec<u8>], index: usize, key: &KeyPair) -> Proof {
        let (root, way) = tree(leaves, index);
        let text = format!("log.example\n{}\n{}\n", leaves.len(), b64(&root));
        let id = Sha256::digest(key.subject_public_key_info());
        let signature = b64([&id[..4], &key.sign(text.as_bytes()).unwrap()].concat());
        Proof {
            log_index: index as u64,
            root_hash: b64(&root),
            tree_size: leaves.len() as u64,
            hashes: way.iter().map(b64).collect(),
            checkpoint: Checkpoint { envelope: format!("{text}\n\u{2014} log.example {signature}\n") },
        }
    }

    fn leaves(number: usize) -> Vec<Vec<u8>> {
        (0..number).map(|n| format!("entry {n}").into_bytes()).collect()
    }

    proptest! {
        #[test]
        fn an_entry_is_where_it_is(number in 1usize..40, at in any::<prop::sample::Index>()) {
            let (leaves, key, index) = (leaves(number), KeyPair::generate().unwrap(), at.index(number));
            let (spki, id) = (key.subject_public_key_info(), Sha256::digest(key.subject_public_key_info()));
            let public = PublicKey::new(spki).unwrap();
            let proof = proof(&leaves, index, &key);
            for (n, leaf) in leaves.iter().enumerate() {
                prop_assert_eq!(proof.holds(leaf, &public, &id) == Some(true), n == index);
            }
        }
    }

    #[test]
    fn the_log_has_to_have_signed_that_tree() {
        let (leaves, key, other) = (leaves(7), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let holds = |proof: &Proof, key: &KeyPair| {
            let der = key.subject_public_key_info();
            let id = Sha256::digest(&der);
            proof.holds(&leaves[3], &PublicKey::new(der).unwrap(), &id) == Some(true)
        };
        let good = || proof(&leaves, 3, &key);
        assert!(holds(&good(), &key) && !holds(&good(), &other));
        // The signature of another tree of the same log.
        let smaller = proof(&leaves[..6], 3, &key).checkpoint;
        assert!(!holds(&Proof { checkpoint: smaller, ..good() }, &key));
        for index in [0, 2, 4, 7, u64::MAX] {
            assert!(!holds(&Proof { log_index: index, ..good() }, &key), "{index}");
        }
        for size in [0, 3, 6, 8, u64::MAX] {
            assert!(!holds(&Proof { tree_size: size, ..good() }, &key), "{size}");
        }
        let mut long = good();
        long.hashes.push(long.root_hash.clone());
        assert!(!holds(&long, &key));
        for envelope in ["", "\n\n", "log.example\n7\n\n\u{2014} log.example AAAA\n"] {
            let checkpoint = Checkpoint { envelope: envelope.to_owned() };
            assert!(!holds(&Proof { checkpoint, ..good() }, &key), "{envelope:?}");
        }
    }
}
