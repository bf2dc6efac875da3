use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn image() -> Value {
    json!({
        "kind": "image", "name": "base", "description": "A small system", "architecture": "amd64",
        "url": "https://files.example/base.tar.zst", "sha256": "ab".repeat(32), "size": 1000, "kernel": "6.1-Cloud",
    })
}

fn kernel() -> Value {
    json!({
        "kind": "kernel", "name": "6.1-Cloud", "architecture": "amd64", "url": "http://[::1]:80/k.deb",
        "sha256": "cd".repeat(32), "size": 1, "release": "6.1.0-1-cloud-amd64",
    })
}

fn document(entries: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({"format": 1, "entries": entries})).unwrap()
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

#[test]
fn what_is_built_in_is_sound() {
    assert_eq!(Catalogue::read(&[]).problems(), []);
}

#[test]
fn both_kinds_are_read() {
    let entries = document::parse(&document(&[image(), kernel()])).unwrap();
    assert_eq!((entries[0].kind, entries[0].kernel.as_str()), (EntryKind::Image, "6.1-Cloud"));
    assert_eq!(entries[0].artifact.digest.to_string(), format!("sha256:{}", "ab".repeat(32)));
    assert_eq!((entries[1].kind, entries[1].release.as_str()), (EntryKind::Kernel, "6.1.0-1-cloud-amd64"));
    assert_eq!(entries[1].artifact.url.as_str(), "http://[::1]/k.deb");
}

#[test]
fn what_is_wrong_is_said_with_its_entry() {
    for (key, value, word) in [
        ("name", json!("Upper"), "image name"),
        ("name", json!("../x"), "image name"),
        ("kernel", json!("a/b"), "kernel name"),
        ("release", json!("6.1"), "no \"release\""),
        ("architecture", json!("x86 64"), "architecture"),
        ("architecture", json!(""), "architecture"),
        ("description", json!("two\nlines"), "description"),
        ("description", json!("\u{1b}[2J"), "description"),
        ("description", json!("x".repeat(401)), "description"),
        ("url", json!("http://files.example/x"), "plain HTTP"),
        ("url", json!("http://127.0.0.1.example/x"), "plain HTTP"),
        ("url", json!("file:///etc/passwd"), "not https"),
        ("url", json!("https://me:secret@files.example/x"), "credentials"),
        ("url", json!("https://files.example/x#y"), "fragment"),
        ("url", json!("files.example/x"), "url"),
        ("url", json!(format!("https://files.example/{}", "x".repeat(2048))), "too long"),
        ("sha256", json!("AB".repeat(32)), "sha256"),
        ("sha256", json!("ab"), "sha256"),
        ("size", json!(0), "size"),
    ] {
        let mut entry = image();
        entry[key] = value;
        let error = document::parse(&document(&[kernel(), entry])).unwrap_err();
        assert!(error.contains(word) && error.starts_with("entry "), "{key}: {error}");
    }
    for (text, word) in [
        (document(&[image(), image()]), "twice"),
        (br#"{"format": 2, "entries": []}"#.to_vec(), "format 2"),
        (br#"{"format": 1, "entries": [], "more": 1}"#.to_vec(), "more"),
        (br#"{"format": 1}"#.to_vec(), "entries"),
        (b"[]".to_vec(), "expected"),
        (b"".to_vec(), "EOF"),
        (document(&[json!({"kind": "disk"})]), "disk"),
    ] {
        let error = document::parse(&text).unwrap_err();
        assert!(error.contains(word), "{word}: {error}");
    }
    let mut wanting = kernel();
    wanting["kernel"] = json!("x");
    assert!(document::parse(&document(&[wanting])).unwrap_err().contains("wants no"));
}

#[test]
fn later_files_win_and_a_broken_one_takes_nothing_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("images"), folder.path().join("kernels"));
    fs::create_dir(&first).unwrap();
    fs::create_dir(&second).unwrap();
    let described = |text: &str| {
        let mut entry = image();
        entry["description"] = json!(text);
        document(&[entry])
    };
    fs::write(first.join("10-a.json"), described("first")).unwrap();
    fs::write(first.join("20-b.json"), described("second")).unwrap();
    fs::write(first.join("30-broken.json"), "{").unwrap();
    fs::create_dir(first.join("40-folder.json")).unwrap();
    fs::write(first.join("50-other.txt"), "{").unwrap();
    fs::write(second.join("a.json"), document(&[kernel()])).unwrap();
    let none = folder.path().join("none");
    let catalogue = Catalogue::read(&[&first, &second, &none]);
    let found = catalogue.find(EntryKind::Image, "base", &amd64()).unwrap();
    assert_eq!(found.description, "second");
    assert!(catalogue.find(EntryKind::Kernel, "6.1-Cloud", &amd64()).is_some());
    let broken: Vec<_> =
        catalogue.problems().iter().map(|p| p.path.file_name().unwrap().to_owned()).collect();
    assert_eq!(broken, ["30-broken.json", "40-folder.json"]);
    assert!(catalogue.problems()[0].to_string().contains("30-broken.json: EOF"));
}

#[test]
fn a_name_may_be_there_for_several_processors() {
    let mut arm = image();
    arm["architecture"] = json!("arm64");
    let mut catalogue = Catalogue::default();
    catalogue.add(Path::new("x"), &document(&[image(), arm]));
    assert_eq!(catalogue.architectures(EntryKind::Image, "base"), ["amd64", "arm64"]);
    assert_eq!(catalogue.find(EntryKind::Image, "base", &amd64()).unwrap().architecture, "amd64");
    let other: Platform = "linux/s390x".parse().unwrap();
    assert!(catalogue.find(EntryKind::Image, "base", &other).is_none());
    assert!(catalogue.find(EntryKind::Kernel, "base", &amd64()).is_none());
    let windows: Platform = "windows/amd64".parse().unwrap();
    assert!(catalogue.find(EntryKind::Image, "base", &windows).is_none());
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = document::parse(text.as_bytes());
    }

    #[test]
    fn arbitrary_values_never_panic(
        key in prop::sample::select(vec!["kind", "name", "architecture", "url", "sha256", "size", "kernel", "release"]),
        text in "\\PC{0,80}",
        number: i64,
        is_text: bool,
    ) {
        let mut entry = image();
        entry[key] = if is_text { json!(text) } else { json!(number) };
        let _ = document::parse(&document(&[entry]));
    }
}
