//! What a registry is shown: found where podman, docker and skopeo keep it, and handed to the service for one pull.
//!
//! The client reads these files because they are the user's: the service may not, and would not know whose to read.

mod auth_file;
mod helper;
mod places;

use crate::{bus, context::Context, error::Error, progress::note, terminal::Hidden};
use auth_file::{AuthFile, Found};
use banger_dbus::model::Credentials;
use clap::Args;
use rustix::fs::{MemfdFlags, SealFlags};
use std::{
    convert::Infallible,
    fmt,
    fs::File,
    io::{self, IsTerminal, Seek, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    str::FromStr,
};

/// How to log in to the registry.
#[derive(Debug, Default, Args)]
pub struct RegistryArgs {
    /// Show the registry this name and password; without a password it is asked for. Others can see what stands in a
    /// command line.
    #[arg(long, value_name = "USER[:PASSWORD]", conflicts_with_all = ["authfile", "anonymous"])]
    pub creds: Option<Secret>,
    /// Look the credentials up in this file, as `podman login --authfile` writes it.
    #[arg(long, value_name = "FILE", conflicts_with = "anonymous")]
    pub authfile: Option<PathBuf>,
    /// Show the registry nothing, also if you are logged in: then the image is for every user of this host.
    #[arg(long)]
    pub anonymous: bool,
}

/// A word that is not to be shown.
#[derive(Clone)]
pub struct Secret(String);

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The credentials for a reference, ready to be handed over; `None` if there are none.
///
/// # Errors
/// [`Error::Usage`] for a file or helper program that does not do its part, [`Error::File`], [`Error::Interrupted`].
pub async fn descriptor(
    context: &mut Context,
    args: &RegistryArgs,
    reference: &str,
) -> Result<Option<OwnedFd>, Error> {
    let credentials = match &args.creds {
        _ if args.anonymous => None,
        Some(Secret(text)) => Some(given(context, text).await?),
        None => look_up(context, args, reference).await?,
    };
    match credentials {
        None => Ok(None),
        Some(credentials) => {
            if let Some(flaw) = credentials.flaw() {
                return Err(Error::Usage(format!("these credentials cannot be used: {flaw}")));
            }
            seal(&credentials).map(Some).map_err(|e| Error::file("hand over", "the credentials", e))
        }
    }
}

async fn given(context: &mut Context, text: &str) -> Result<Credentials, Error> {
    let (username, password) = match text.split_once(':') {
        Some((username, password)) => (username.to_owned(), password.to_owned()),
        None => (text.to_owned(), ask(context, text).await?),
    };
    Ok(Credentials::Password { username, password })
}

/// Looks in the user's files, in order: the first that has something for the reference counts.
async fn look_up(
    context: &mut Context,
    args: &RegistryArgs,
    reference: &str,
) -> Result<Option<Credentials>, Error> {
    let mut files = Vec::new();
    for path in places::files(args.authfile.as_deref(), |name| std::env::var_os(name)) {
        if let Some(file) = AuthFile::read(&path, args.authfile.is_some())? {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    // Where short names come from is the service's to say.
    let manager = context.manager().await?;
    let none = bus::none();
    let full = context.signals.guard(manager.expand_reference(reference, &none)).await?;
    let location = places::location(&full);
    for file in &files {
        for found in file.find(location) {
            let (helper, server, optional) = match found {
                Found::Credentials(credentials) => return Ok(Some(credentials)),
                Found::Helper { helper, server, optional } => (helper, server, optional),
            };
            match context.signals.guard(helper::get(&helper, &server)).await {
                Ok(None) => {}
                Ok(credentials) => return Ok(credentials),
                Err(error @ Error::Interrupted(_)) => return Err(error),
                Err(error) if optional => note(&format!("Going on without: {error}")),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

/// Asks for a password, without showing it.
async fn ask(context: &mut Context, username: &str) -> Result<String, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "there is no terminal to ask for the password of {username}: log in with `podman login` or `docker login`"
        )));
    }
    let failed = |e| Error::file("read", "the password", e);
    let hidden = Hidden::new().map_err(failed)?;
    let _ = write!(io::stderr(), "Password of {username}: ");
    // A thread of its own: reading a terminal cannot be waited for together with a signal.
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let _ = tell.send(io::stdin().read_line(&mut answer).map(|_| answer));
    });
    let answer = tokio::select! {
        answer = told => Ok(answer),
        signal = context.signals.end() => Err(Error::Interrupted(signal)),
    };
    drop(hidden);
    note("");
    let answer = answer?.unwrap_or_else(|_| Ok(String::new())).map_err(failed)?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// Credentials in memory that nobody can change any more, as a file to hand over.
fn seal(credentials: &Credentials) -> io::Result<OwnedFd> {
    let json = serde_json::to_vec(credentials)?;
    let mut file = File::from(rustix::fs::memfd_create(
        "banger-credentials",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?);
    file.write_all(&json)?;
    file.rewind()?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_handed_over_is_sealed() {
        let credentials = Credentials::Password { username: "alice".into(), password: "sesame".into() };
        let mut file = File::from(seal(&credentials).unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, r#"{"username":"alice","password":"sesame"}"#);
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
    }

    #[test]
    fn flags_hide_what_they_hold() {
        let secret: Secret = "alice:sesame".parse().unwrap();
        let args = RegistryArgs { creds: Some(secret), ..RegistryArgs::default() };
        assert!(!format!("{args:?}").contains("sesame"));
    }
}
