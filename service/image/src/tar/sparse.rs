//! Files with holes: which parts of the file the archive holds.

/// Offset and length of each part that has data, in order.
pub(crate) type Map = Vec<(u64, u64)>;

/// Checks a map against the size of the file and the data in the archive: in order, not overlapping, inside the file,
/// and together exactly the data.
pub(crate) fn check(map: &[(u64, u64)], real_size: u64, data: u64) -> Result<(), &'static str> {
    let (mut end, mut sum) = (0u64, 0u64);
    for (offset, length) in map {
        if *offset < end {
            return Err("the parts of a sparse file overlap");
        }
        end = offset.checked_add(*length).ok_or("a sparse map is out of range")?;
        sum = sum.checked_add(*length).ok_or("a sparse map is out of range")?;
    }
    if end > real_size {
        return Err("a sparse map reaches beyond its file");
    }
    match sum == data {
        true => Ok(()),
        false => Err("a sparse map does not fit its data"),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn maps_that_lie_are_refused() {
        assert_eq!(check(&[(0, 10), (20, 5), (100, 0)], 100, 15), Ok(()));
        assert_eq!(check(&[], 1 << 40, 0), Ok(()));
        for (map, size, data) in [
            (&[(0u64, 10u64), (5, 5)] as &[(u64, u64)], 100, 15),
            (&[(20, 5), (0, 10)], 100, 15),
            (&[(90, 11)], 100, 11),
            (&[(0, 10)], 100, 11),
            (&[(u64::MAX, 1)], u64::MAX, 1),
            (&[(0, u64::MAX), (u64::MAX, u64::MAX)], u64::MAX, 0),
        ] {
            assert!(check(map, size, data).is_err(), "{map:?}");
        }
    }
}
