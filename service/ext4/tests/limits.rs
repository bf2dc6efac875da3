//! Edges: what is refused and changes nothing, what is shared, what is given back, and where numbers end.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

mod support;

use banger_ext4::{Content, Ext4Error, Metadata, NodeKind, Size, Timestamp, Writer, Xattr};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::Path;
use support::reader::Reader;
use support::tools::{debugfs, e2fsck};
use support::trees::{bytes, options};

fn writer(path: &Path) -> Writer<File> {
    Writer::new(File::create(path).unwrap(), options()).unwrap()
}

fn content<W: Write + Seek>(writer: &mut Writer<W>, data: &[u8]) -> Content {
    let mut content = writer.content();
    content.write_all(data).unwrap();
    content.finish().unwrap()
}

fn plain() -> Metadata {
    Metadata::default()
}

#[test]
fn what_is_refused_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut writer = writer(&path);
    let root = writer.root();
    let data = content(&mut writer, b"data");
    let file = writer.add_file(root, b"file", plain(), data).unwrap();
    let directory = writer.add_dir(root, b"directory", plain()).unwrap();

    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
        assert!(matches!(writer.add_dir(root, name, plain()), Err(Ext4Error::Name { .. })), "{name:?}");
        assert!(matches!(writer.link(root, name, file), Err(Ext4Error::Name { .. })), "{name:?}");
    }
    for target in [&b""[..], b"a\0b", &[b'x'; 4096]] {
        let result = writer.add_symlink(root, b"link", plain(), target);
        assert!(matches!(result, Err(Ext4Error::SymlinkTarget { name, .. }) if name == "link"));
    }
    for (major, minor) in [(4096, 0), (0, 1 << 20), (u32::MAX, u32::MAX)] {
        let result = writer.add_char_device(root, b"device", plain(), major, minor);
        assert!(matches!(result, Err(Ext4Error::DeviceNumber { .. })));
        assert!(writer.add_block_device(root, b"device", plain(), major, minor).is_err());
    }
    let again = content(&mut writer, &bytes(10_000, 3));
    assert!(matches!(writer.add_file(root, b"file", plain(), again), Err(Ext4Error::Exists { .. })));
    assert!(matches!(writer.add_dir(file, b"x", plain()), Err(Ext4Error::NotADirectory { .. })));
    assert!(matches!(writer.link(root, b"x", directory), Err(Ext4Error::LinkToDirectory { .. })));
    let long = [b'x'; 100];
    assert!(matches!(writer.add_symlink(root, b"file", plain(), &long), Err(Ext4Error::Exists { .. })));
    let unknown = Xattr { name: b"btrfs.x".to_vec(), value: Vec::new() };
    let metadata = Metadata { xattrs: vec![unknown], mode: 0o777, ..plain() };
    assert!(matches!(writer.set_metadata(file, metadata.clone()), Err(Ext4Error::Xattr { .. })));
    assert!(writer.add_fifo(root, b"fifo", metadata).is_err());
    assert_eq!((writer.lookup(root, b"fifo"), writer.lookup(directory, b"file")), (None, None));
    assert_eq!((writer.kind(file), writer.kind(directory)), (NodeKind::File, NodeKind::Directory));
    assert_eq!(writer.content_bytes(), 4096);

    writer.finish(Size::AtLeast(0)).unwrap();
    e2fsck(&path);
    let seen = Reader::open(&path).walk();
    let names: Vec<_> = seen.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(names, ["", "/directory", "/file", "/lost+found"]);
    assert_eq!(seen[&b"/file"[..]].mode, 0o100_755);
}

#[test]
fn a_label_has_16_bytes() {
    let with = |label: &[u8]| {
        let options = banger_ext4::Options { label: label.to_vec(), ..options() };
        Writer::new(Cursor::new(Vec::new()), options)
    };
    assert!(with(&[b'x'; 16]).is_ok());
    assert!(matches!(with(&[b'x'; 17]), Err(Ext4Error::Label { length: 17 })));
}

#[test]
fn data_that_is_given_back_is_free_and_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut writer = writer(&path);
    let root = writer.root();
    let first = content(&mut writer, &bytes(3 << 20, 1));
    writer.discard(first);
    // Dropped in the middle: forgotten.
    writer.content().write_all(&bytes(5 << 20, 2)).unwrap();
    let second = content(&mut writer, &bytes(6 << 20, 3));
    let third = content(&mut writer, &bytes(1 << 20, 4));
    // Not the last: its blocks stay empty.
    writer.discard(second);
    writer.add_file(root, b"third", plain(), third).unwrap();
    let summary = writer.finish(Size::AtLeast(0)).unwrap();
    assert_eq!(summary.content, 1 << 20);
    e2fsck(&path);
    let seen = Reader::open(&path).walk();
    assert!(seen[&b"/third"[..]].data == [(0, bytes(1 << 20, 4))]);
    let blocks = debugfs(&path, "blocks /third");
    let first_block: u64 = blocks.split_whitespace().next().unwrap().parse().unwrap();
    assert!(first_block > (6 << 20) / 4096 && first_block < (8 << 20) / 4096, "{first_block}");
}

#[test]
fn a_name_that_is_taken_away_leaves_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut writer = writer(&path);
    let root = writer.root();
    let large = Xattr { name: b"user.large".to_vec(), value: vec![7; 1000] };
    let attributed = Metadata { xattrs: vec![large], ..plain() };
    let (old, new) = (content(&mut writer, &bytes(3 << 20, 1)), content(&mut writer, &bytes(1 << 20, 2)));
    writer.add_file(root, b"file", attributed, old).unwrap();
    writer.unlink(root, b"file").unwrap();
    assert_eq!((writer.lookup(root, b"file"), writer.content_bytes()), (None, 0));
    writer.add_file(root, b"file", plain(), new).unwrap();
    // One name of two: the file stays.
    let kept = writer.add_fifo(root, b"one", plain()).unwrap();
    writer.link(root, b"other", kept).unwrap();
    writer.unlink(root, b"one").unwrap();
    writer.add_dir(root, b"folder", plain()).unwrap();
    assert!(matches!(writer.unlink(root, b"folder"), Err(Ext4Error::LinkToDirectory { .. })));
    assert!(matches!(writer.unlink(root, b"one"), Err(Ext4Error::Missing { .. })));
    let summary = writer.finish(Size::AtLeast(0)).unwrap();
    assert_eq!(summary.content, 1 << 20);
    e2fsck(&path);
    let seen = Reader::open(&path).walk();
    assert!(seen[&b"/file"[..]].data == [(0, bytes(1 << 20, 2))]);
    assert!(seen.contains_key(&b"/other"[..]) && !seen.contains_key(&b"/one"[..]));
}

#[test]
fn an_exact_size_that_is_too_small_says_what_would_do() {
    let fill = |size| {
        let mut memory = Cursor::new(Vec::new());
        let mut writer = Writer::new(&mut memory, options()).unwrap();
        let data = content(&mut writer, &bytes(30 << 20, 1));
        writer.add_file(writer.root(), b"file", plain(), data).unwrap();
        writer.finish(size)
    };
    let Err(Ext4Error::NoSpace { size, needed }) = fill(Size::Exactly(20 << 20)) else { panic!() };
    assert_eq!(size, 20 << 20);
    assert_eq!(fill(Size::AtLeast(0)).unwrap().size, needed);
    assert_eq!(fill(Size::Exactly(needed)).unwrap().size, needed);
    assert!(matches!(fill(Size::Exactly(needed - 4096)), Err(Ext4Error::NoSpace { .. })));
    assert!(matches!(fill(Size::Exactly(1000)), Err(Ext4Error::TooSmall { .. })));
}

#[test]
fn a_set_of_attributes_shares_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut writer = writer(&path);
    let xattr = Xattr { name: b"user.large".to_vec(), value: vec![7; 1000] };
    let metadata = Metadata { xattrs: vec![xattr], ..plain() };
    for i in 0..2500 {
        writer.add_fifo(writer.root(), format!("{i}").as_bytes(), metadata.clone()).unwrap();
    }
    // Replaced attributes no longer count.
    let replaced = writer.lookup(writer.root(), b"0").unwrap();
    writer.set_metadata(replaced, plain()).unwrap();
    writer.finish(Size::AtLeast(0)).unwrap();
    e2fsck(&path);
    let blocks: BTreeSet<String> = ["1", "1024", "1025", "2499"]
        .map(|name| {
            let stat = debugfs(&path, &format!("stat /{name}"));
            let (_, acl) = stat.split_once("File ACL: ").unwrap();
            acl.split_whitespace().next().unwrap().to_owned()
        })
        .into();
    assert_eq!(blocks.len(), 3);
}

#[test]
fn links_end_at_65000() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut writer = writer(&path);
    let (root, mut last) = (writer.root(), Ok(()));
    let file = writer.add_socket(root, b"file", plain()).unwrap();
    let many = writer.add_dir(root, b"many", plain()).unwrap();
    let few = writer.add_dir(root, b"few", plain()).unwrap();
    for i in 0..65_000 {
        last = writer.link(root, format!("link{i}").as_bytes(), file);
        writer.add_dir(many, format!("{i}").as_bytes(), plain()).unwrap();
    }
    assert!(matches!(last, Err(Ext4Error::TooManyLinks { limit: 65_000, .. })));
    for i in 0..64_998 {
        writer.add_dir(few, format!("{i}").as_bytes(), plain()).unwrap();
    }
    writer.finish(Size::AtLeast(0)).unwrap();
    e2fsck(&path);
    let links = |path_in_image: &str| {
        let stat = debugfs(&path, &format!("stat {path_in_image}"));
        let (_, links) = stat.split_once("Links: ").unwrap();
        links.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(["/file", "/many", "/few"].map(links), ["65000", "1", "65000"]);
}

#[test]
fn lost_and_found_may_be_the_callers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    for directory in [true, false] {
        let mut writer = writer(&path);
        let root = writer.root();
        let metadata = Metadata { mode: 0o750, ..plain() };
        if directory {
            let lost = writer.add_dir(root, b"lost+found", metadata).unwrap();
            writer.add_fifo(lost, b"inside", plain()).unwrap();
        } else {
            writer.add_symlink(root, b"lost+found", metadata, b"elsewhere").unwrap();
        }
        writer.finish(Size::AtLeast(0)).unwrap();
        e2fsck(&path);
        let seen = Reader::open(&path).walk();
        let kind = if directory { 0o040_000 } else { 0o120_000 };
        assert_eq!(seen[&b"/lost+found"[..]].mode, kind | 0o750);
        assert_eq!(seen.contains_key(&b"/lost+found/inside"[..]), directory);
    }
}

#[test]
fn the_filesystem_has_the_features_of_mke2fs() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    let mut options = options();
    options.expected = 1 << 30;
    Writer::new(File::create(&ours).unwrap(), options).unwrap().finish(Size::Exactly(1 << 30)).unwrap();
    File::create(&theirs).unwrap().set_len(1 << 30).unwrap();
    let features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
                    sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
    let status = std::process::Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-O", features])
        .arg(&theirs)
        .status()
        .unwrap();
    assert!(status.success());
    let show = |path: &Path, what: &[&str]| -> Vec<String> {
        let stats = debugfs(path, "stats -h") + &debugfs(path, "stat <7>");
        let of_interest = |line: &&str| what.iter().any(|start| line.trim_start().starts_with(start));
        stats.lines().filter(of_interest).map(str::to_owned).collect()
    };
    let what = [
        "Filesystem features",
        "Default mount",
        "Filesystem state",
        "Inode count",
        "Block count",
        "Free blocks",
        "Free inodes",
        "Reserved GDT",
        "Group descriptor size",
        "Inode size",
        "Inodes per group",
        "Flex block group",
        "First inode",
        "Journal inode",
        "Journal backup",
        "Default directory hash",
        "Checksum type",
        "Reserved block count",
        "User:",
        "Links:",
    ];
    let compared = show(&ours, &what);
    assert!(compared.len() > 17, "{compared:?}");
    assert_eq!(compared, show(&theirs, &what));
}

#[test]
fn times_beyond_what_ext4_holds_are_moved_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut writer = writer(&path);
    for (name, seconds) in [("a", i64::MIN), ("b", i64::MAX), ("c", 3 << 32), ("d", (3 << 32) - 5)] {
        let metadata = Metadata { mtime: Timestamp { seconds, nanoseconds: u32::MAX }, ..plain() };
        writer.add_fifo(writer.root(), name.as_bytes(), metadata).unwrap();
    }
    writer.finish(Size::AtLeast(0)).unwrap();
    e2fsck(&path);
    let seen = Reader::open(&path).walk();
    let times = ["/a", "/b", "/c", "/d"].map(|path| seen[path.as_bytes()].seconds);
    let (least, most) = (Timestamp::MIN.seconds, Timestamp::MAX.seconds);
    assert_eq!(times, [least, most, most, most]);
}

/// Takes so many bytes and no more.
struct Full {
    position: u64,
    limit: u64,
}

impl Write for Full {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.position += data.len() as u64;
        if self.position > self.limit { Err(io::ErrorKind::StorageFull.into()) } else { Ok(data.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Full {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if let SeekFrom::Start(position) = to {
            self.position = position;
        }
        Ok(self.position)
    }
}

#[test]
fn a_full_output_is_an_error_at_any_time() {
    for limit in [0, 1 << 20, 5 << 20, 10 << 20] {
        let write = || -> Result<(), Ext4Error> {
            let mut writer = Writer::new(Full { position: 0, limit }, options())?;
            for i in 0..8u8 {
                let mut content = writer.content();
                content.write_all(&bytes(1 << 20, i))?;
                let content = content.finish()?;
                writer.add_file(writer.root(), &[b'a' + i], plain(), content)?;
            }
            writer.finish(Size::Exactly(64 << 20)).map(drop)
        };
        let Err(Ext4Error::Io(error)) = write() else { panic!("no error with {limit} bytes") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
