//! What a registry wants to see before it gives out a private image.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The right to pull, in one of the forms in which registries give it out. Its text for developers shows the form
/// alone, so that it can stand in a structure that is logged.
///
/// As JSON it is what the option `credentials` of `PullImage` holds: `{"username": …, "password": …}`,
/// `{"identity-token": …}` or `{"registry-token": …}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Credentials {
    /// For HTTP basic authentication, or for a token server that asks for it.
    Password {
        /// Who; without a colon.
        username: String,
        /// The password, or a token that serves as one.
        password: String,
    },
    /// An OAuth2 refresh token, which a token server takes for an access token.
    Identity {
        /// The token.
        identity_token: String,
    },
    /// A bearer token that the registry itself takes.
    Registry {
        /// The token.
        registry_token: String,
    },
}

impl Credentials {
    /// Longest JSON of credentials, in bytes.
    pub const LONGEST: usize = 64 << 10;

    /// What no registry could be shown, in words; `None` when they are usable.
    pub fn flaw(&self) -> Option<&'static str> {
        let control = |text: &str| text.chars().any(char::is_control);
        match self {
            Credentials::Password { username, .. } if username.is_empty() => Some("the username is empty"),
            // RFC 7617, section 2: what is before the first colon would be the name.
            Credentials::Password { username, .. } if username.contains(':') => {
                Some("the username has a colon")
            }
            Credentials::Password { username, password } if control(username) || control(password) => {
                Some("username or password has a control character")
            }
            Credentials::Identity { identity_token: token }
            | Credentials::Registry { registry_token: token }
                if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) =>
            {
                Some("the token is empty or has a character that no token has")
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Password { .. } => "Password(hidden)",
            Credentials::Identity { .. } => "Identity(hidden)",
            Credentials::Registry { .. } => "Registry(hidden)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Credentials> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn each_form_is_read_and_written() {
        for text in [
            r#"{"username":"alice","password":"sesame"}"#,
            r#"{"identity-token":"refresh"}"#,
            r#"{"registry-token":"bearer"}"#,
        ] {
            assert_eq!(serde_json::to_string(&read(text).unwrap()).unwrap(), text);
            assert_eq!(read(text).unwrap().flaw(), None);
        }
    }

    #[test]
    fn mixtures_and_halves_are_refused() {
        for text in [
            "{}",
            r#"{"username":"alice"}"#,
            r#"{"username":"alice","password":"x","identity-token":"y"}"#,
            r#"{"registry-token":"x","color":"red"}"#,
            r#"{"registry-token":7}"#,
            r#""x""#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let error = serde_json::from_str::<Credentials>(r#"{"registry-token":["sesame"]}"#).unwrap_err();
        assert!(!error.to_string().contains("sesame"), "{error}");
    }

    #[test]
    fn what_no_registry_could_be_shown() {
        for text in [
            r#"{"username":"","password":"x"}"#,
            r#"{"username":"a:b","password":"x"}"#,
            r#"{"username":"a","password":"x\r\ny"}"#,
            r#"{"identity-token":""}"#,
            r#"{"registry-token":"a b"}"#,
        ] {
            assert!(read(text).unwrap().flaw().is_some(), "{text}");
        }
    }

    #[test]
    fn nothing_is_shown() {
        for text in [
            r#"{"username":"alice","password":"sesame"}"#,
            r#"{"identity-token":"sesame"}"#,
            r#"{"registry-token":"sesame"}"#,
        ] {
            let shown = format!("{:?}", read(text));
            assert!(!shown.contains("sesame") && !shown.contains("alice"), "{shown}");
        }
    }
}
