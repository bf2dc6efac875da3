//! Credentials in the options of a call: out of a descriptor, or spelled out. They live as long as the job.

use crate::transfer::{Direction, Peer};
use banger_dbus::{Error, Options};
use banger_model::Credentials;
use std::{io::Read, os::fd::OwnedFd, time::Duration};
use tokio_util::sync::CancellationToken;

/// How long a pipe may take to bring them.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a caller gave.
pub struct Given {
    descriptor: Option<OwnedFd>,
    username: Option<String>,
    password: Option<String>,
}

impl Given {
    /// Takes the options `credentials`, `username` and `password`.
    ///
    /// # Errors
    /// [`Error::InvalidArgs`] when one has another type.
    pub fn take(options: &mut Options) -> Result<Self, Error> {
        Ok(Self {
            descriptor: options.take("credentials")?,
            username: options.take("username")?,
            password: options.take("password")?,
        })
    }

    /// The credentials, if any were given.
    ///
    /// # Errors
    /// [`Error::InvalidArgs`] when they are none; it never quotes them.
    pub async fn read(self) -> Result<Option<Credentials>, Error> {
        let wrong = |why: &str| Error::InvalidArgs(format!("the credentials cannot be used: {why}"));
        let credentials = match (self.descriptor, self.username, self.password) {
            (None, None, None) => return Ok(None),
            (Some(descriptor), None, None) => {
                // Not the parser's own words, which quote what they do not like.
                serde_json::from_slice(&content(descriptor, PATIENCE).await?).map_err(|_| {
                    wrong("the descriptor holds neither {\"username\", \"password\"}, {\"identity-token\"} nor {\"registry-token\"}")
                })?
            }
            (None, Some(username), Some(password)) => Credentials::Password { username, password },
            (None, ..) => return Err(wrong("username and password go together")),
            (Some(_), ..) => return Err(wrong("give a descriptor, or username and password, not both")),
        };
        match credentials.flaw() {
            Some(flaw) => Err(wrong(flaw)),
            None => Ok(Some(credentials)),
        }
    }
}

/// All of a short file or pipe.
async fn content(descriptor: OwnedFd, patience: Duration) -> Result<Vec<u8>, Error> {
    let cancel = CancellationToken::new();
    let mut peer = Peer::new(descriptor, "credentials", Direction::In, cancel.clone())?;
    let _late = cancel.drop_guard();
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let most = Credentials::LONGEST as u64 + 1;
        peer.by_ref().take(most).read_to_end(&mut bytes).map(|_| bytes)
    });
    let unusable =
        |why: &str| Error::InvalidArgs(format!("the descriptor for credentials cannot be used: {why}"));
    match tokio::time::timeout(patience, reading).await {
        Ok(Ok(Ok(bytes))) if bytes.len() > Credentials::LONGEST => Err(unusable("it is longer than 64 KiB")),
        Ok(Ok(Ok(bytes))) => Ok(bytes),
        Ok(_) => Err(unusable("it cannot be read")),
        Err(_) => Err(unusable("it does not come to its end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_dbus::{Dict, DictWriter};
    use std::{fs::File, io::Write};

    async fn read(dict: Dict) -> Result<Option<Credentials>, Error> {
        let mut options = Options::new(dict);
        let given = Given::take(&mut options)?;
        options.finish()?;
        given.read().await
    }

    fn file(content: &[u8]) -> DictWriter {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        DictWriter::new().with("credentials", OwnedFd::from(File::open(file.path()).unwrap()))
    }

    fn words(username: Option<&str>, password: Option<&str>) -> DictWriter {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        DictWriter::new().with_some("username", owned(username)).with_some("password", owned(password))
    }

    #[tokio::test]
    async fn a_descriptor_and_words_mean_the_same() {
        let json = br#"{"username":"alice","password":"sesame"}"#;
        let of_file = read(file(json).done()).await.unwrap().unwrap();
        let of_words = read(words(Some("alice"), Some("sesame")).done()).await.unwrap().unwrap();
        assert_eq!(of_file, of_words);
        let (pipe, mut end) = std::io::pipe().unwrap();
        end.write_all(br#"{"identity-token":"refresh"}"#).unwrap();
        drop(end);
        let of_pipe = read(DictWriter::new().with("credentials", OwnedFd::from(pipe)).done()).await.unwrap();
        assert_eq!(of_pipe, Some(Credentials::Identity { identity_token: "refresh".into() }));
        assert_eq!(read(Dict::new()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_refused_is_not_quoted() {
        let long = vec![b' '; Credentials::LONGEST + 1];
        for (dict, why) in [
            (words(Some("alice"), None), "go together"),
            (words(None, Some("sesame")), "go together"),
            (words(Some("sesame:x"), Some("sesame")), "colon"),
            (file(br#"{"username":"alice","password":["sesame"]}"#), "neither"),
            (file(br#"{"registry-token":"sesame","x":1}"#), "neither"),
            (file(b"sesame"), "neither"),
            (file(b""), "neither"),
            (file(&long), "longer"),
            (file(b"{}").with("username", "sesame".to_owned()), "not both"),
            (
                DictWriter::new().with("credentials", OwnedFd::from(File::open("/dev/null").unwrap())),
                "neither a file nor a pipe",
            ),
        ] {
            let error = read(dict.done()).await.unwrap_err();
            assert!(matches!(error, Error::InvalidArgs(_)), "{error:?}");
            let shown = error.to_string();
            assert!(shown.contains(why) && !shown.contains("sesame"), "{why}: {shown}");
        }
    }

    #[tokio::test]
    async fn a_pipe_that_does_not_end_is_given_up() {
        let (pipe, _end) = std::io::pipe().unwrap();
        let error = content(pipe.into(), Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().contains("does not come to its end"), "{error}");
    }
}
