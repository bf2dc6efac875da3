//! e2fsprogs, by absolute path.

use std::path::Path;
use std::process::{Command, Output};

fn run(program: &str, arguments: &[&str], image: &Path) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .arg(image)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{program} (package e2fsprogs): {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Checks everything and takes any question or remark for a failure.
pub fn e2fsck(image: &Path) {
    let output = run("/usr/sbin/e2fsck", &["-f", "-n"], image);
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        let quiet = line.starts_with("Pass ") || line.contains(" blocks") && line.contains(" files (");
        assert!(quiet, "e2fsck remarks: {text}");
    }
}

/// Resizes an image that nobody has mounted; it must have been checked by `e2fsck -f`, which we skip with -f.
pub fn resize2fs(image: &Path, size: &str) {
    let output = Command::new("/usr/sbin/resize2fs")
        .args(["-f".as_ref(), image.as_os_str(), size.as_ref()])
        .output()
        .expect("resize2fs (package e2fsprogs)");
    assert!(output.status.success(), "resize2fs {size}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What one request of debugfs prints.
pub fn debugfs(image: &Path, request: &str) -> String {
    let output = run("/usr/sbin/debugfs", &["-R", request], image);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
