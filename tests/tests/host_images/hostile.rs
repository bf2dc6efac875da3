//! Hostile images in the real registry: the client is told `UnsafeImage`, and nothing of them is left.

use crate::push::{Image, gzip};
use banger_harness::{
    images::Tree,
    inside::{assert_no_residue, banger, kill_9},
};
use serde_json::json;
use std::{fs, path::Path};

const USER: &str = "alice";
const CONFIG: &str = "/etc/banger/config.toml";
const STATE: &str = "/var/lib/banger";

/// An administrator's limits, until the test is over.
struct Limits(Option<String>);

impl Limits {
    fn set(limits: &str) -> Self {
        let before = fs::read_to_string(CONFIG).ok();
        let text = format!("{}\n[limits]\n{limits}", before.as_deref().unwrap_or_default());
        fs::create_dir_all("/etc/banger").unwrap();
        fs::write(CONFIG, text).unwrap();
        // It reads them when it starts, which the next call makes it.
        kill_9("bangerd");
        Self(before)
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        let _ = match &self.0 {
            Some(text) => fs::write(CONFIG, text),
            None => fs::remove_file(CONFIG),
        };
        kill_9("bangerd");
    }
}

/// What the service keeps of images: rows, by their names, folders, and blobs that are not whole.
fn kept() -> Vec<String> {
    let list = banger("root", &["image", "ls", "--format", "json"]).expect(0).json();
    let rows = list.as_array().unwrap().iter().map(|image| format!("row {}", image["id"]));
    let mut kept: Vec<String> = rows.collect();
    files(&Path::new(STATE).join("images"), 1, &mut kept);
    files(&Path::new(STATE).join("blobs"), 9, &mut kept);
    kept.retain(|what| !what.contains("/blobs/") || what.contains("partial"));
    kept
}

fn files(folder: &Path, depth: usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if depth > 1 && entry.path().is_dir() {
            files(&entry.path(), depth - 1, found);
        }
    }
}

/// Pulls what must be refused, for a reason that has these words.
#[track_caller]
fn refused(name: &str, image: &Image, why: &str) {
    let before = kept();
    let reference = image.push(&format!("hostile/{name}"));
    let ran = banger(USER, &["--verbose", "image", "pull", &reference]).expect(125);
    let told = ran.errors();
    assert!(told.contains("(org.banger.Error.UnsafeImage)"), "{name}: {ran}");
    assert!(told.contains(why), "{name}: {why}: {ran}");
    assert_no_residue();
    assert_eq!(kept(), before, "{name}: something is left");
}

fn archive(tree: Tree) -> Vec<u8> {
    tree.finish().unwrap()
}

#[test]
fn hostile_entries_are_refused_by_name_and_leave_nothing() {
    let new = Tree::default;
    for (name, tree, why) in [
        ("dot-dot", new().file("../../etc/passwd", 0o644, b"x"), "it has \"..\" in it"),
        ("dot-dot-inside", new().file("a/../../b", 0o644, b"x"), "it has \"..\" in it"),
        ("root-is-a-file", new().file("./", 0o644, b"x"), "the root must be a directory"),
        ("root-is-a-link", new().symlink("/", "/etc"), "the root must be a directory"),
        ("no-name", new().file("", 0o644, b"x"), "it has no name"),
        ("file-as-parent", new().file("a", 0o644, b"x").file("a/b", 0o644, b"x"), "something else than a"),
        ("circle", new().symlink("a", "b").symlink("b", "a").file("a/x", 0o644, b"x"), "circle"),
        ("whiteout-of-dots", new().file(".wh...", 0o644, b""), "whiteout of nothing"),
    ] {
        refused(name, &Image::new(&[archive(tree)]), why);
    }
}

#[test]
fn damaged_layers_and_lies_are_refused_and_leave_nothing() {
    let whole = archive(Tree::default().file("a", 0o644, &[b'x'; 5000]));
    refused("ends-early", &Image::new(&[whole[..3000].to_vec()]), "ends early");
    let mut blob = gzip(&whole);
    blob.truncate(blob.len() - 9);
    refused("gzip-ends-early", &Image::of_blobs(std::slice::from_ref(&whole), vec![blob]), "ends early");
    let lie = |declared: usize| {
        let mut image = Image::new(std::slice::from_ref(&whole));
        image.manifest["layers"][0]["size"] = json!(declared);
        image
    };
    let size = gzip(&whole).len();
    refused("longer-than-declared", &lie(size - 1), "are declared");
    refused("shorter-than-declared", &lie(size + 1), "are declared");
}

#[test]
fn limits_are_the_administrators_and_what_exceeds_them_leaves_nothing() {
    let zeros = archive(Tree::default().file("zeros", 0o644, &vec![0; 8 << 20]));
    let many = (0..60).fold(Tree::default(), |tree, number| tree.file(&format!("{number}"), 0o644, b""));
    let (bomb, many) = (Image::new(std::slice::from_ref(&zeros)), Image::new(&[archive(many)]));
    let large = Image::of_blobs(std::slice::from_ref(&zeros), vec![zeros.clone()]);
    let mut padded = Image::new(&[archive(Tree::default().dir("a/"))]);
    padded.manifest["annotations"] = json!({"padding": "x".repeat(70_000)});
    {
        let limits = "ratio = 50\nratio-from = \"1M\"\nunpacked = \"4M\"\nentries = 50\nmanifest = \"64K\"\n";
        let _limits = Limits::set(limits);
        refused("bomb", &bomb, "compression ratio");
        refused("too-large", &large, "unpacked size");
        refused("too-many", &many, "number of files");
        refused("manifest-too-large", &padded, "manifest");
    }
    // By the defaults they are harmless.
    for (name, image) in [("bomb", &bomb), ("too-many", &many), ("manifest-too-large", &padded)] {
        let reference = image.push(&format!("hostile/{name}"));
        banger(USER, &["image", "pull", &reference, "--name", "harmless", "--size", "64M"]).expect(0);
        banger(USER, &["image", "rm", "harmless"]).expect(0);
    }
}
