//! `WWW-Authenticate` (RFC 9110, section 11.6.1), as registries use it (distribution documentation, "Token
//! Authentication Specification").

/// A way to gain access that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Username and password.
    Basic,
    /// A token.
    Bearer(Bearer),
}

/// Where to get a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    /// Where tokens are given out.
    pub realm: String,
    pub service: Option<String>,
    pub scope: Option<String>,
}

impl Challenge {
    pub fn is_basic(&self) -> bool {
        *self == Challenge::Basic
    }

    pub fn bearer(&self) -> Option<&Bearer> {
        match self {
            Challenge::Bearer(bearer) => Some(bearer),
            Challenge::Basic => None,
        }
    }
}

/// The challenges in a header that can be met: Basic, and Bearer with a realm.
pub(super) fn challenges(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((scheme, tail)) = token(rest.trim_start_matches([' ', '\t', ','])) {
        let (parameters, tail) = parameters(tail);
        let find = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = find("realm")
        {
            found.push(Challenge::Bearer(Bearer { realm, service: find("service"), scope: find("scope") }));
        }
        rest = tail;
    }
    found
}

/// `key=value` pairs up to the next scheme.
fn parameters(mut rest: &str) -> (Vec<(&str, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let pair = token(start).and_then(|(key, tail)| {
            let tail = tail.trim_start_matches([' ', '\t']).strip_prefix('=')?;
            let (value, tail) = value(tail.trim_start_matches([' ', '\t']))?;
            Some(((key, value), tail))
        });
        match pair {
            Some((pair, tail)) => {
                found.push(pair);
                rest = tail;
            }
            None => return (found, start),
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let good = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
    let end = text.find(|c| !good(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token, or text in quotes with backslashes.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_registries_send() {
        let expected = Challenge::Bearer(Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("registry.example".into()),
            scope: Some("repository:library/debian:pull".into()),
        });
        for header in [
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:library/debian:pull""#,
            r#"bearer  REALM = "https://auth.example/token" , service=registry.example, scope="repository:library/debian:pull""#,
        ] {
            assert_eq!(challenges(header), std::slice::from_ref(&expected), "{header}");
        }
        let both = r#"Basic realm="x, y", Bearer scope="repository:library/debian:pull",realm="https://auth.example/token",service="registry.example""#;
        assert_eq!(challenges(both), [Challenge::Basic, expected]);
        match challenges(r#"Bearer realm="a\"b""#).as_slice() {
            [Challenge::Bearer(bearer)] => assert_eq!(bearer.realm, "a\"b"),
            other => panic!("{other:?}"),
        }
        assert_eq!(challenges("Basic"), [Challenge::Basic]);
        for none in ["", "Negotiate", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x", "=", ",,,"] {
            assert_eq!(challenges(none), [], "{none}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\PC{0,60}|[Ba-z=\", \\\\]{0,60})") {
            let _ = challenges(&text);
        }
    }
}
