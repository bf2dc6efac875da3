//! POSIX ACLs: from the kernel's extended attribute (version 2, linux/posix_acl_xattr.h) to ext4's shorter
//! form (version 1, fs/ext4/acl.h) and back; that leaves out the ids of entries that have none.

/// Converts an ACL, or says why it is not one.
pub(crate) fn to_disk(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    let Some((header, entries)) = value.split_first_chunk::<4>() else {
        return Err("an ACL has a header of 4 bytes");
    };
    if u32::from_le_bytes(*header) != 2 {
        return Err("an ACL must have version 2, as getxattr(2) returns it");
    }
    let (entries, []) = entries.as_chunks::<8>() else {
        return Err("an ACL is a whole number of 8-byte entries");
    };
    let mut disk = Vec::with_capacity(value.len());
    disk.extend_from_slice(&1u32.to_le_bytes());
    for entry in entries {
        let [tag, tag_high, permissions, permissions_high, id @ ..] = entry;
        if *permissions > 7 || *permissions_high != 0 {
            return Err("an ACL entry has other permissions than rwx");
        }
        let named = match (tag, tag_high) {
            (0x02 | 0x08, 0) => true,
            (0x01 | 0x04 | 0x10 | 0x20, 0) => false,
            _ => return Err("an ACL entry has an unknown tag"),
        };
        disk.extend_from_slice(&entry[..4]);
        if named {
            disk.extend_from_slice(id);
        }
    }
    Ok(disk)
}

/// The way back: the kernel's attribute from what stands on disk, or why it is not an ACL.
pub(crate) fn from_disk(disk: &[u8]) -> Result<Vec<u8>, &'static str> {
    let Some(([1, 0, 0, 0], mut rest)) = disk.split_first_chunk::<4>() else {
        return Err("an ACL has an unknown version");
    };
    let mut value = 2u32.to_le_bytes().to_vec();
    while let Some((entry, after)) = rest.split_first_chunk::<4>() {
        value.extend_from_slice(entry);
        rest = after;
        match entry[..2] {
            [0x02 | 0x08, 0] => match rest.split_first_chunk::<4>() {
                Some((id, after)) => {
                    value.extend_from_slice(id);
                    rest = after;
                }
                None => return Err("an ACL is cut off"),
            },
            // `ACL_UNDEFINED_ID`
            _ => value.extend_from_slice(&[0xff; 4]),
        }
    }
    match rest {
        [] => Ok(value),
        _ => Err("an ACL is cut off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn drops_the_ids_of_unnamed_entries() {
        let kernel = [
            &[2, 0, 0, 0][..],
            &[1, 0, 7, 0, 255, 255, 255, 255],
            &[2, 0, 6, 0, 0xe8, 3, 0, 0],
            &[4, 0, 5, 0, 255, 255, 255, 255],
            &[0x10, 0, 7, 0, 255, 255, 255, 255],
            &[0x20, 0, 0, 0, 255, 255, 255, 255],
        ]
        .concat();
        let disk =
            [1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 6, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0, 0x10, 0, 7, 0, 0x20, 0, 0, 0];
        assert_eq!(to_disk(&kernel).unwrap(), disk);
        assert_eq!(from_disk(&disk).unwrap(), kernel);
        assert!(from_disk(&disk[..disk.len() - 1]).is_err() && from_disk(&[2, 0, 0, 0]).is_err());
    }

    #[test]
    fn refuses_what_is_none() {
        for value in [
            &[][..],
            &[1, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 7],
            &[2, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 1, 7, 0, 0, 0, 0, 0],
        ] {
            assert!(to_disk(value).is_err(), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_never_grows(mut value: Vec<u8>) {
            if let Ok(disk) = to_disk(&value) {
                prop_assert!(disk.len() <= value.len());
            }
            value.splice(0..0, [2, 0, 0, 0]);
            let _ = to_disk(&value);
            value[0] = 1;
            let _ = from_disk(&value);
        }
    }
}
