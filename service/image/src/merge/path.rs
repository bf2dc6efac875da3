//! Names of archive entries as paths inside the image.

use crate::{ImageError, Limits, Unsafe, Unsupported, error::shorten};
use std::collections::HashMap;

/// The path without leading `/`, `./`, doubled and trailing slashes; empty for the root. An absolute path counts from
/// the image's root.
///
/// # Errors
/// [`Unsafe::Entry`] for `..` and NUL, [`Unsafe::Limit`] for a path that is too long, [`Unsupported::Entry`] for a name
/// that ext4 cannot hold.
pub(crate) fn normal(path: &[u8], limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let refused = |why| ImageError::from(Unsafe::Entry { name: shorten(path), why });
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(refused("it has \"..\" in it")),
            _ if part.contains(&0) => return Err(refused("it has a NUL byte in it")),
            _ if part.len() > limits.name as usize => {
                let why = format!("a file name has at most {} bytes, not {}", limits.name, part.len());
                return Err(Unsupported::Entry { name: shorten(path), why }.into());
            }
            _ => {}
        }
        if !normal.is_empty() {
            normal.push(b'/');
        }
        normal.extend_from_slice(part);
    }
    within(normal, limits)
}

/// The path, unless it is too long.
fn within(path: Vec<u8>, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let (value, limit) = (path.len() as u64, limits.path.into());
    match value > limit {
        true => Err(Unsafe::Limit { what: "the length of a path", value, limit }.into()),
        false => Ok(path),
    }
}

/// The parent and the last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Every folder above `path`, outermost first, without the root.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &path[..at])
}

/// `path` with the symbolic links followed that `links` has for its folders, inside the image and not for the last
/// name: what containerd and Docker do with an entry below a link of the same layer.
///
/// # Errors
/// [`Unsafe::Entry`] for a circle of links, [`Unsafe::Limit`] for a path that becomes too long.
pub(crate) fn follow(
    path: &[u8],
    links: &HashMap<Vec<u8>, Vec<u8>>,
    limits: &Limits,
) -> Result<Vec<u8>, ImageError> {
    /// As many links as Linux follows (path_resolution(7)).
    const MOST: usize = 40;
    if links.is_empty() || !ancestors(path).any(|folder| links.contains_key(folder)) {
        return Ok(path.to_vec());
    }
    let (parent, name) = split(path);
    let mut rest: Vec<Vec<u8>> = parent.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
    let (mut real, mut followed) = (Vec::new(), 0);
    while let Some(part) = rest.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                let end = split(&real).0.len();
                real.truncate(end);
                continue;
            }
            _ => {}
        }
        let end = real.len();
        if end > 0 {
            real.push(b'/');
        }
        real.extend_from_slice(&part);
        if let Some(target) = links.get(&real) {
            followed += 1;
            if followed > MOST {
                let why = "it lies below a circle of symbolic links";
                return Err(Unsafe::Entry { name: shorten(path), why }.into());
            }
            real.truncate(if target.starts_with(b"/") { 0 } else { end });
            rest.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        }
    }
    if !real.is_empty() {
        real.push(b'/');
    }
    real.extend_from_slice(name);
    within(real, limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_count_from_the_root() {
        for (path, normal_path) in [
            ("./", ""),
            ("", ""),
            ("/", ""),
            ("./a", "a"),
            ("/a/b", "a/b"),
            ("a//b/./c/", "a/b/c"),
            ("...", "..."),
            ("a/..b", "a/..b"),
        ] {
            let got = normal(path.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), normal_path, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let limits = Limits::default();
        for bad in ["..", "../a", "a/../b", "a/..", "/..", "a\0b"] {
            let error = normal(bad.as_bytes(), &limits).unwrap_err();
            assert!(matches!(error, ImageError::Unsafe(Unsafe::Entry { .. })), "{bad:?}: {error}");
        }
        assert!(normal("n".repeat(255).as_bytes(), &limits).is_ok());
        let error = normal("n".repeat(256).as_bytes(), &limits).unwrap_err();
        assert!(matches!(error, ImageError::Unsupported(Unsupported::Entry { .. })), "{error}");
        assert!(normal("n/".repeat(2048).as_bytes(), &limits).is_ok());
        let error = normal(format!("{}n", "n/".repeat(2048)).as_bytes(), &limits).unwrap_err();
        assert!(matches!(error, ImageError::Unsafe(Unsafe::Limit { .. })), "{error}");
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        let links: HashMap<Vec<u8>, Vec<u8>> = [
            ("lib", "usr/lib"),
            ("abs", "/usr"),
            ("up", "../../../etc"),
            ("usr/lib/self", "."),
            ("a", "b"),
            ("b", "a"),
            ("root", "/"),
        ]
        .map(|(a, b)| (a.into(), b.into()))
        .into();
        for (path, real) in [
            ("lib/x", "usr/lib/x"),
            ("lib", "lib"),
            ("abs/lib/x", "usr/lib/x"),
            ("up/x", "etc/x"),
            ("lib/self/self/x", "usr/lib/x"),
            ("root/x", "x"),
            ("other/x", "other/x"),
        ] {
            assert_eq!(
                follow(path.as_bytes(), &links, &Limits::default()).unwrap(),
                real.as_bytes(),
                "{path}"
            );
        }
        assert!(follow(b"a/x", &links, &Limits::default()).is_err());
        let short = Limits { path: 8, ..Limits::default() };
        assert!(matches!(follow(b"lib/x", &links, &short), Err(ImageError::Unsafe(Unsafe::Limit { .. }))));
    }

    proptest! {
        #[test]
        fn a_normal_path_stays_and_has_no_odd_parts(path in proptest::collection::vec(
            proptest::sample::select(b"ab./\0".to_vec()), 0..40))
        {
            if let Ok(once) = normal(&path, &Limits::default()) {
                prop_assert_eq!(&normal(&once, &Limits::default()).unwrap(), &once);
                prop_assert!(once.is_empty()
                    || once.split(|b| *b == b'/').all(|p| !matches!(p, b"" | b"." | b"..") && !p.contains(&0)));
            }
        }
    }
}
