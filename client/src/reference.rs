//! Whether what somebody typed means an image that is already here.

/// The registry of a reference that names none, as docker and podman have it.
const REGISTRY: &str = "docker.io";

/// Whether `typed` is the same reference as `canonical`, which the service wrote: with registry and tag
/// spelled out.
pub fn is_same(typed: &str, canonical: &str) -> bool {
    typed == canonical || spelled_out(typed) == canonical
}

/// `debian` as `docker.io/library/debian:latest`. What is no reference stays odd and equals none.
fn spelled_out(typed: &str) -> String {
    let (registry, repository) = match typed.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':', '[']) || first == "localhost" => (first, rest),
        _ => (REGISTRY, typed),
    };
    let library = if registry == REGISTRY && !repository.contains('/') { "library/" } else { "" };
    let last = repository.rsplit('/').next().unwrap_or_default();
    let tag = if last.contains([':', '@']) { "" } else { ":latest" };
    format!("{registry}/{library}{repository}{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_the_long_ones() {
        for (typed, canonical) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:bookworm", "docker.io/library/debian:bookworm"),
            ("team/app", "docker.io/team/app:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("127.0.0.1:5000/debian", "127.0.0.1:5000/debian:latest"),
            ("localhost/a/b:1", "localhost/a/b:1"),
            ("[::1]:5000/x@sha256:00", "[::1]:5000/x@sha256:00"),
        ] {
            assert!(is_same(typed, canonical), "{typed} is {}", spelled_out(typed));
            assert!(is_same(canonical, canonical));
        }
    }

    #[test]
    fn another_registry_is_another_image() {
        assert!(!is_same("debian", "registry.example/library/debian:latest"));
        assert!(!is_same("debian", "docker.io/other/debian:latest"));
        assert!(!is_same("debian:12", "docker.io/library/debian:latest"));
        assert!(!is_same("", "docker.io/library/debian:latest"));
    }
}
