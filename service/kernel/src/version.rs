//! Which of two kernel releases is newer.

use std::cmp::Ordering;

/// One piece of a release, in the order in which pieces sort.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Piece<'a> {
    /// `~` or a release candidate's `rc`: before the release itself.
    Before,
    /// Nothing more.
    End,
    /// A run of letters.
    Word(&'a str),
    /// A run of digits: its length without leading zeros, then the digits, so that size does not matter.
    Number(usize, &'a str),
}

/// Orders two releases, older first, as `sort -V` and rpm do: runs of digits count as numbers, `~` and `rc`
/// come before the end. Releases that differ only in punctuation are ordered by their bytes, so this is a
/// total order.
pub fn compare_releases(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    loop {
        let (piece_a, piece_b) = (next_piece(&mut rest_a), next_piece(&mut rest_b));
        match piece_a.cmp(&piece_b) {
            Ordering::Equal if piece_a == Piece::End => return a.cmp(b),
            Ordering::Equal => {}
            other => return other,
        }
    }
}

/// Takes the first piece off `rest`. Punctuation only separates.
fn next_piece<'a>(rest: &mut &'a str) -> Piece<'a> {
    let start = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric() && c != '~');
    let Some(first) = start.chars().next() else {
        *rest = "";
        return Piece::End;
    };
    if first == '~' {
        *rest = &start[1..];
        return Piece::Before;
    }
    let digits = first.is_ascii_digit();
    let same = |c: char| if digits { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
    let end = start.find(|c| !same(c)).unwrap_or(start.len());
    let (piece, left) = start.split_at(end);
    *rest = left;
    match piece {
        "rc" => Piece::Before,
        number if digits => {
            let number = number.trim_start_matches('0');
            Piece::Number(number.len(), number)
        }
        word => Piece::Word(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn older_comes_first() {
        let ordered = [
            "5.10.0-8-amd64",
            "5.10.0-21-amd64",
            "6.1.0-9-amd64",
            "6.1.0-56-amd64",
            "6.1.0-56-cloud-amd64",
            "6.6.58-1-lts",
            "6.11.4-301.fc41.x86_64",
            "6.12.0-rc1",
            "6.12.0-rc2",
            "6.12.0",
            "6.12.1-arch1-1",
            "6.12.9+bpo-cloud-amd64",
            "6.12.12+bpo-cloud-amd64",
            "6.13~rc7-amd64",
            "6.13",
            "6.100.0",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(compare_releases(a, b), i.cmp(&j), "{a} and {b}");
            }
        }
    }

    #[test]
    fn numbers_have_no_size_limit_and_no_leading_zeros() {
        let long = format!("6.{}", "9".repeat(60));
        assert_eq!(compare_releases("6.1", &long), Ordering::Less);
        assert_eq!(compare_releases("6.09", "6.10"), Ordering::Less);
        assert_eq!(compare_releases("6.010", "6.9"), Ordering::Greater);
    }

    proptest! {
        /// Total: antisymmetric, transitive, and equal only for equal text.
        #[test]
        fn is_a_total_order(
            a in "[0-2a-c~.rc_-]{0,8}", b in "[0-2a-c~.rc_-]{0,8}", c in "[0-2a-c~.rc_-]{0,8}"
        ) {
            prop_assert_eq!(compare_releases(&a, &b), compare_releases(&b, &a).reverse());
            prop_assert_eq!(compare_releases(&a, &b) == Ordering::Equal, a == b);
            let mut sorted = [&a, &b, &c];
            sorted.sort_by(|x, y| compare_releases(x, y));
            prop_assert_ne!(compare_releases(sorted[0], sorted[2]), Ordering::Greater);
        }

        #[test]
        fn any_text_compares(a in ".{0,20}", b in ".{0,20}") {
            prop_assert_eq!(compare_releases(&a, &b), compare_releases(&b, &a).reverse());
        }
    }
}
