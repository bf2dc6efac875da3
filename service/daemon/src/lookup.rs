//! Finding a thing by what a person typed: its exact name, its exact id, or a prefix of its id that fits one only.

use crate::error::Error;

/// Shortest prefix of an id that counts, so that a short name that is not there is not taken for one.
const SHORTEST_PREFIX: usize = 4;

/// The one of `things` that `wanted` means. `key` gives a thing's name and id.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Ambiguous`] names those that fit.
pub fn find<'a, T>(
    what: &'static str,
    wanted: &str,
    things: &'a [T],
    key: impl Fn(&T) -> (String, String),
) -> Result<&'a T, Error> {
    let keyed: Vec<(String, String, &T)> = things.iter().map(|t| (key(t).0, key(t).1, t)).collect();
    let exact = keyed.iter().find(|k| k.0 == wanted).or_else(|| keyed.iter().find(|k| k.1 == wanted));
    if let Some(found) = exact {
        return Ok(found.2);
    }
    let fits: Vec<_> = match wanted.len() {
        0..SHORTEST_PREFIX => Vec::new(),
        _ => keyed.iter().filter(|k| k.1.starts_with(wanted)).collect(),
    };
    match fits.as_slice() {
        [one] => Ok(one.2),
        [] => Err(Error::NotFound { what, wanted: wanted.chars().take(256).collect() }),
        many => Err(Error::Ambiguous {
            what,
            wanted: wanted.to_owned(),
            fits: many.iter().map(|k| format!("{} ({})", k.0, k.1)).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THINGS: [(&str, &str); 5] = [
        ("debian", "00aa000000000001"),
        ("alpine", "00aa000000000002"),
        ("00bb000000000004", "00bb000000000003"),
        ("other", "00bb000000000004"),
        ("00aa", "00cc000000000005"),
    ];

    fn lookup(wanted: &str) -> Result<&'static str, Error> {
        find("image", wanted, &THINGS, |t| (t.0.into(), t.1.into())).map(|t| t.1)
    }

    #[test]
    fn name_then_id_then_prefix() {
        assert_eq!(lookup("debian").unwrap(), "00aa000000000001");
        assert_eq!(lookup("00aa000000000002").unwrap(), "00aa000000000002");
        assert_eq!(lookup("00cc").unwrap(), "00cc000000000005");
        // A name wins over another thing's id, and over a prefix.
        assert_eq!(lookup("00bb000000000004").unwrap(), "00bb000000000003");
        assert_eq!(lookup("00aa").unwrap(), "00cc000000000005");
    }

    #[test]
    fn too_many_too_short_or_none() {
        let Err(Error::Ambiguous { fits, .. }) = lookup("00bb0") else { panic!("two fit") };
        assert_eq!(fits.len(), 2);
        for wanted in ["", "0", "00c", "deb", "ffff", "00AA000000000001"] {
            assert!(matches!(lookup(wanted), Err(Error::NotFound { .. })), "{wanted:?}");
        }
    }
}
