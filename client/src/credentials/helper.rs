//! Credential helpers: programs that keep credentials elsewhere, such as in a keyring
//! (github.com/docker/docker-credential-helpers).

use crate::error::Error;
use banger_dbus::model::Credentials;
use serde::Deserialize;
use std::{env, ffi::OsStr, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// How long a helper may take, which may have to ask somebody for the password of a keyring.
const PATIENCE: Duration = Duration::from_secs(60);
/// The name of a user that stands for a refresh token.
const TOKEN: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks `docker-credential-<helper>` for the credentials of `server`; `None` if it has none.
///
/// # Errors
/// [`Error::Usage`] when it is not there, fails, takes too long or answers something else. It never quotes an answer.
pub async fn get(helper: &str, server: &str) -> Result<Option<Credentials>, Error> {
    get_within(helper, server, PATIENCE, env::var_os("PATH").as_deref()).await
}

async fn get_within(
    helper: &str,
    server: &str,
    patience: Duration,
    path: Option<&OsStr>,
) -> Result<Option<Credentials>, Error> {
    let name = format!("docker-credential-{helper}");
    let failed = |why: &str| {
        Error::Usage(format!(
            "`{name} get` gives no credentials for {server}: {why}. Repair that, or say --anonymous to pull without"
        ))
    };
    let program = find(&name, path).ok_or_else(|| failed("there is no such program on PATH"))?;
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| failed(&e.to_string()))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        if let Some(mut stdin) = stdin {
            // One that does not read the question answers it or fails.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(Credentials::LONGEST as u64 + 1).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>((answer, child.wait().await?))
    };
    let talked = tokio::time::timeout(patience, talk).await;
    let (answer, status) =
        talked.map_err(|_| failed("it takes too long"))?.map_err(|e| failed(&e.to_string()))?;
    if answer.len() > Credentials::LONGEST {
        return Err(failed("its answer is too long"));
    }
    if !status.success() {
        // The words that the helpers' own library has for it.
        let none = answer.starts_with(b"credentials not found");
        return if none { Ok(None) } else { Err(failed(&format!("it ended with {status}"))) };
    }
    let Answer { username, secret } =
        serde_json::from_slice(&answer).map_err(|_| failed("its answer is not what it should be"))?;
    Ok(match username.as_str() {
        _ if secret.is_empty() => None,
        TOKEN => Some(Credentials::Identity { identity_token: secret }),
        _ => Some(Credentials::Password { username, password: secret }),
    })
}

/// A program on PATH. Only absolute folders count: not the one that the user is in.
fn find(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return None;
    }
    let runs =
        |file: &PathBuf| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    env::split_paths(path?).filter(|folder| folder.is_absolute()).map(|f| f.join(name)).find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::OpenOptionsExt, path::Path};

    fn write(folder: &Path, name: &str, script: &str) {
        let path = folder.join(format!("docker-credential-{name}"));
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).mode(0o755).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn a_helper_is_asked_and_believed() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            "good",
            r#"read -r server; echo "{\"ServerURL\":\"$server\",\"Username\":\"$1 $server\",\"Secret\":\"sesame\"}""#,
        );
        write(folder.path(), "token", r#"echo '{"Username":"<token>","Secret":"refresh"}'"#);
        write(folder.path(), "none", "echo 'credentials not found in native keychain'; exit 1");
        let ask = async |helper: &str| {
            get_within(helper, "r.example", PATIENCE, Some(folder.path().as_os_str())).await.unwrap()
        };
        let expected = Credentials::Password { username: "get r.example".into(), password: "sesame".into() };
        assert_eq!(ask("good").await, Some(expected));
        assert_eq!(ask("token").await, Some(Credentials::Identity { identity_token: "refresh".into() }));
        assert_eq!(ask("none").await, None);
    }

    #[tokio::test]
    async fn one_that_fails_is_told_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "fails", "echo sesame; exit 3");
        write(folder.path(), "odd", "echo '{\"Secret\":[\"sesame\"]}'");
        write(folder.path(), "long", "head -c 70000 /dev/zero");
        write(folder.path(), "slow", "exec sleep 60");
        fs::write(folder.path().join("docker-credential-plain"), "not a program").unwrap();
        for (helper, why) in [
            ("fails", "exit status: 3"),
            ("odd", "not what it should be"),
            ("long", "too long"),
            ("slow", "takes too long"),
            ("plain", "no such program"),
            ("absent", "no such program"),
            ("../x", "no such program"),
        ] {
            let patience = Duration::from_millis(if helper == "slow" { 200 } else { 60_000 });
            let path = Some(folder.path().as_os_str());
            let error = get_within(helper, "r.example", patience, path).await.unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("sesame"), "{helper}: {error}");
        }
        assert_eq!(find("docker-credential-fails", Some(OsStr::new(".:"))), None);
    }
}
