//! Streams as a client should not write them.

use super::*;
use crate::tarball::{MOST_ENTRIES, pax_path};
use proptest::prelude::*;
use std::io::Cursor;
use tar::EntryType;

fn receive(bytes: impl Read) -> Result<ModuleTar, KernelError> {
    ModuleTar::receive(bytes, tempfile::tempfile().unwrap())
}

/// A header as a hostile client would write it: any path, any type, any size.
fn header(path: &[u8], kind: EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header
}

fn entry(path: &str, kind: EntryType, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(path.as_bytes(), kind, data.len() as u64).as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, data: &str) -> Vec<u8> {
    entry(path, EntryType::Regular, data.as_bytes())
}

#[test]
fn hostile_paths_are_passed_over() {
    let mut stream = file("r/modules.dep", "good");
    for path in [
        "/modules.dep",
        "../modules.dep",
        "r/../../modules.dep",
        "r//modules.dep",
        "r/./modules.dep",
        "xmodules.dep",
    ] {
        stream.extend(file(path, "bad"));
    }
    for path in ["/etc/x.ko", "r/../x.ko", "r/notes.txt", "r/x.ko.sh"] {
        stream.extend(file(path, "bad"));
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo, EntryType::GNUSparse]
    {
        stream.extend(entry("r/link.ko", kind, b""));
    }
    stream.extend(file("r/kernel/a.ko", "module"));
    let tar = receive(Cursor::new(stream)).unwrap();
    assert_eq!(tar.files.paths().collect::<Vec<_>>(), ["r/kernel/a.ko", "r/modules.dep"]);
    assert_eq!(tar.read("modules.dep", 10).unwrap().as_deref(), Some(&b"good"[..]));
    assert_eq!(tar.read("kernel/a.ko", 10).unwrap().as_deref(), Some(&b"module"[..]));
    assert!(tar.read("kernel/a.ko", 5).is_err());
    assert_eq!(tar.read("../modules.dep", 10).unwrap(), None);
    assert_eq!(tar.kernel(), "r");
}

#[test]
fn the_last_of_two_entries_counts() {
    let stream = [file("modules.dep", "old"), file("./modules.dep", "new")].concat();
    let tar = receive(Cursor::new(stream)).unwrap();
    assert_eq!(tar.read("modules.dep", 10).unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_long_name_is_for_the_next_entry_alone() {
    let long = format!("r/{}/a.ko\0", "d".repeat(200));
    let stream = [
        file("r/modules.dep", ""),
        entry("././@LongLink", EntryType::GNULongName, long.as_bytes()),
        file("cut", "long"),
        file("r/b.ko", "short"),
        entry("././@LongLink", EntryType::GNULongName, b"r/dir.ko\0"),
        entry("cut", EntryType::Directory, b""),
        file("r/c.ko", "after"),
    ]
    .concat();
    let tar = receive(Cursor::new(stream)).unwrap();
    let path = format!("{}/a.ko", "d".repeat(200));
    assert_eq!(tar.read(&path, 10).unwrap().as_deref(), Some(&b"long"[..]));
    assert_eq!(tar.read("b.ko", 10).unwrap().as_deref(), Some(&b"short"[..]));
    assert_eq!(tar.read("c.ko", 10).unwrap().as_deref(), Some(&b"after"[..]));
    assert_eq!(tar.read("dir.ko", 10).unwrap(), None);
}

#[test]
fn what_is_beyond_a_bound_is_refused() {
    let dep = || file("modules.dep", "");
    let two = [file("a/modules.dep", ""), file("b/modules.dep", "")].concat();
    let long = [dep(), entry("x", EntryType::GNULongName, &vec![b'a'; 65_537])].concat();
    let cut = [dep(), header(b"a.ko", EntryType::Regular, 5000).as_bytes().to_vec(), vec![0; 512]].concat();
    let size = entry("x", EntryType::XHeader, b"21 size=123456789012\n");
    let sized = [dep(), size, file("a.ko", "x")].concat();
    for (stream, word) in [
        (vec![], "no modules.dep"),
        (vec![0; 1024], "no modules.dep"),
        (vec![b'x'; 1024], "stream of modules"),
        (file("readme", "x"), "no modules.dep"),
        (two, "more than one kernel"),
        (long, "extended header"),
        (cut, "middle of a file"),
        (sized, "extended size"),
    ] {
        let error = receive(Cursor::new(stream)).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn a_stream_without_end_is_refused() {
    let endless = file("x", "").repeat(MOST_ENTRIES as usize + 1);
    assert!(receive(Cursor::new(endless)).unwrap_err().to_string().contains("entries"));
    let huge = header(b"x", EntryType::Regular, 1 << 40).as_bytes().to_vec();
    let endless = Cursor::new(huge).chain(io::repeat(0));
    let mut bounded = Bounded { inner: endless, left: 1 << 20 };
    let error = io::copy(&mut bounded, &mut io::sink()).unwrap_err().to_string();
    assert!(error.contains("longer than"), "{error}");
}

#[test]
fn a_module_too_big_to_use_is_passed_over_unread() {
    // 64 MiB and one byte, from a reader that makes them up.
    let size = MOST_MODULE + 1;
    let data = io::repeat(0).take(size.next_multiple_of(512));
    let stream = Cursor::new(header(b"big.ko", EntryType::Regular, size).as_bytes().to_vec())
        .chain(data)
        .chain(Cursor::new(file("modules.dep", "")));
    let scratch = tempfile::tempfile().unwrap();
    let kept = scratch.try_clone().unwrap();
    let tar = ModuleTar::receive(stream, scratch).unwrap();
    assert_eq!(tar.files.paths().collect::<Vec<_>>(), ["modules.dep"]);
    assert_eq!(kept.metadata().unwrap().len(), 0);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = receive(Cursor::new(bytes.clone()));
        let _ = pax_path(&bytes);
        let _ = wanted(&bytes);
    }

    /// A header with any path, type and size, checksum right, between two good entries.
    #[test]
    fn arbitrary_headers_never_panic(
        path in prop::collection::vec(any::<u8>(), 0..100),
        kind: u8,
        size in prop_oneof![0u64..4096, Just(u64::MAX >> 1)],
    ) {
        let mut stream = file("modules.dep", "x");
        let kind = EntryType::new(kind);
        let mut bad = tar::Header::new_gnu();
        bad.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(&path);
        bad.set_entry_type(kind);
        bad.set_size(size);
        bad.set_cksum();
        stream.extend_from_slice(bad.as_bytes());
        stream.resize(stream.len() + 8192, b'a');
        let _ = receive(Cursor::new(stream));
    }
}
