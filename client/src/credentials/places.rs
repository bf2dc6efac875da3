//! Where credentials are kept, and what for (containers-auth.json(5)).

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The files that may hold credentials, the first that counts first. `named` is one that the user names, then no other
/// counts; `variable` gives a variable of the environment.
pub fn files(named: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(only) = named.map(Path::to_owned).or_else(|| path("REGISTRY_AUTH_FILE")) {
        return vec![only];
    }
    let home = path("HOME");
    let in_home = |folder: &str| home.as_ref().map(|home| home.join(folder));
    let runtime = path("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
    let config = path("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
    let config = config.map(|folder| folder.join("containers/auth.json"));
    let docker = path("DOCKER_CONFIG").or_else(|| in_home(".docker"));
    let docker = docker.map(|folder| folder.join("config.json"));
    runtime.into_iter().chain(config).chain(docker).collect()
}

/// Registry and repository of a full reference, without tag and digest.
pub fn location(full: &str) -> &str {
    let full = full.split_once('@').map_or(full, |(before, _)| before);
    match full.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => full,
    }
}

/// What an entry may be for that counts for `location`, the most specific first: each folder of it, down to the
/// registry.
pub fn prefixes(location: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(location), |longer| longer.rsplit_once('/').map(|(shorter, _)| shorter))
}

/// An entry's name in the form in which it is compared: docker writes URLs of which the host alone counts, and has four
/// names for its own registry.
pub fn normal(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let key = bare.map_or(key, |url| url.split('/').next().unwrap_or(url));
    let (host, rest) = key.split_once('/').map_or((key, None), |(host, rest)| (host, Some(rest)));
    let host = host.to_ascii_lowercase();
    let host = match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    match rest {
        Some(rest) => format!("{host}/{}", rest.trim_end_matches('/')),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_are_where_other_tools_keep_them() {
        let with = |set: &[(&str, &str)], named: Option<&str>| {
            let value = |name: &str| {
                set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
            };
            let files = files(named.map(Path::new), value);
            files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        let usual = [("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/1")];
        assert_eq!(
            with(&usual, None),
            [
                "/run/user/1/containers/auth.json",
                "/home/a/.config/containers/auth.json",
                "/home/a/.docker/config.json"
            ]
        );
        let other = [("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d")];
        assert_eq!(with(&other, None), ["/c/containers/auth.json", "/d/config.json"]);
        let file = [("HOME", "/home/a"), ("REGISTRY_AUTH_FILE", "/f")];
        assert_eq!((with(&file, None), with(&file, Some("/g"))), (vec!["/f".to_owned()], vec!["/g".into()]));
        assert_eq!(with(&[], None), [""; 0]);
    }

    #[test]
    fn the_most_specific_comes_first() {
        let all: Vec<&str> = prefixes(location("r.example:5000/team/app:1@sha256:00")).collect();
        assert_eq!(all, ["r.example:5000/team/app", "r.example:5000/team", "r.example:5000"]);
        assert_eq!(location("localhost:5000/app"), "localhost:5000/app");
    }

    #[test]
    fn names_of_entries() {
        for (key, normalised) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("docker.io/team", "docker.io/team"),
            ("https://Registry.example:5000/v2/", "registry.example:5000"),
            ("http://registry.example", "registry.example"),
            ("registry.example/team/app", "registry.example/team/app"),
        ] {
            assert_eq!(normal(key), normalised, "{key}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\PC{0,40}|(https?://)?[a-z.:/@]{0,30})") {
            prop_assert!(prefixes(location(&text)).count() <= text.len() + 1);
            let _ = normal(&text);
        }
    }
}
