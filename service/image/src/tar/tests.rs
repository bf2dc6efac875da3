use super::*;
use proptest::prelude::*;
use std::io::Cursor;

fn layer() -> Digest {
    Digest::of(b"layer")
}

/// A header block; what the test does not care about is as GNU tar writes it.
fn block(name: &[u8], kind: u8, size: u64, magic: &[u8; 8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0004755\0");
    block[108..116].copy_from_slice(b"0001750\0");
    block[116..124].copy_from_slice(b"0000144\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"14524770576\0");
    block[156] = kind;
    block[257..265].copy_from_slice(magic);
    sealed(block)
}

fn sealed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

const POSIX: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

/// A header and its body, padded.
fn file(name: &[u8], kind: u8, body: &[u8], magic: &[u8; 8]) -> Vec<u8> {
    let mut out = block(name, kind, body.len() as u64, magic).to_vec();
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..).map(|d| rest + d).find(|n| n.to_string().len() + rest == *n).unwrap();
        body.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    file(b"pax", b'x', &body, POSIX)
}

fn read_with(archive: &[u8], limits: Limits) -> Result<Vec<(Entry, Vec<u8>)>, ImageError> {
    let mut archive = Archive::new(Cursor::new(archive), layer(), limits);
    let mut found = Vec::new();
    while let Some(entry) = archive.next()? {
        let mut body = Vec::new();
        archive.copy_body(&mut body)?;
        found.push((entry, body));
    }
    Ok(found)
}

fn read(parts: &[&[u8]]) -> Result<Vec<(Entry, Vec<u8>)>, ImageError> {
    read_with(&parts.concat(), Limits::default())
}

const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

#[test]
fn plain_headers() {
    let mut device = block(b"dev", b'3', 0, POSIX);
    device[329..337].copy_from_slice(b"0000005\0");
    device[337..345].copy_from_slice(b"0000001\0");
    let mut link = block(b"link", b'2', 7, POSIX);
    link[157..163].copy_from_slice(b"target");
    let mut hard = block(b"hard", b'1', 7, GNU);
    hard[157..161].copy_from_slice(b"file");
    let mut prefixed = block(b"name", b'0', 0, POSIX);
    prefixed[345..351].copy_from_slice(b"pre/fi");
    let found = read(&[
        &file(b"file", b'0', b"hello", GNU),
        &file(b"old", 0, b"v7", &[0; 8]),
        &block(b"olddir/", 0, 0, &[0; 8]),
        &block(b"dir/", b'5', 99, POSIX),
        &sealed(device),
        &sealed(link),
        &sealed(hard),
        &sealed(prefixed),
        &block(b"fifo", b'6', 0, POSIX),
        &file(b"contiguous", b'7', b"c", POSIX),
        &END,
        b"what follows does not matter",
    ])
    .unwrap();
    let shown: Vec<_> = found.iter().map(|(e, b)| (e.path.as_slice(), &e.kind, b.as_slice())).collect();
    let none: &[u8] = b"";
    let regular = Kind::Leaf(Leaf::File);
    assert_eq!(
        shown,
        [
            (b"file" as &[u8], &regular, b"hello" as &[u8]),
            (b"old", &regular, b"v7"),
            (b"olddir/", &Kind::Directory, none),
            (b"dir/", &Kind::Directory, none),
            (b"dev", &Kind::Leaf(Leaf::CharDevice(5, 1)), none),
            (b"link", &Kind::Leaf(Leaf::Symlink(b"target".into())), none),
            (b"hard", &Kind::HardLink(b"file".into()), none),
            (b"pre/fi/name", &regular, none),
            (b"fifo", &Kind::Leaf(Leaf::Fifo), none),
            (b"contiguous", &regular, b"c"),
        ]
    );
    let metadata = &found[0].0.metadata;
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o4755, 1000, 100));
    assert_eq!(metadata.mtime, Timestamp { seconds: 0o14524770576, nanoseconds: 0 });
}

#[test]
fn extended_headers_override_the_next_entry_only() {
    let long = "n".repeat(200);
    let records = [
        ("path", long.as_str()),
        ("uid", "4000000000"),
        ("gid", "70000"),
        ("mtime", "17179869184.999999999"),
        ("size", "3"),
        ("SCHILY.xattr.security.capability", "\u{1}\u{0}"),
        ("LIBARCHIVE.xattr.user.a", "YmM"),
    ];
    let mut body = block(b"short", b'0', 0, POSIX).to_vec();
    body.extend_from_slice(&[b"abc" as &[u8], &[0; 509]].concat());
    let found = read(&[&pax(&records), &body, &file(b"next", b'0', b"x", POSIX), &END]).unwrap();
    let (entry, content) = &found[0];
    assert_eq!((entry.path.as_slice(), content.as_slice()), (long.as_bytes(), b"abc" as &[u8]));
    let metadata = &entry.metadata;
    assert_eq!((metadata.uid, metadata.gid), (4_000_000_000, 70_000));
    assert_eq!(metadata.mtime, Timestamp { seconds: 17_179_869_184, nanoseconds: 999_999_999 });
    assert_eq!(metadata.xattrs.len(), 2);
    assert_eq!(
        (metadata.xattrs[0].value.as_slice(), metadata.xattrs[1].value.as_slice()),
        (b"\x01\0" as _, b"bc" as _)
    );
    assert_eq!((found[1].0.path.as_slice(), found[1].0.metadata.uid), (b"next" as &[u8], 1000));
}

#[test]
fn gnu_long_names_and_ignored_headers() {
    let long = b"p/".repeat(150);
    let target = [b"t".repeat(300), b"\0".to_vec()].concat();
    let found = read(&[
        &file(b"label", b'V', b"", GNU),
        &file(b"global", b'g', b"17 path=hijacked\n", POSIX),
        &file(b"././@LongLink", b'K', &target, GNU),
        &file(b"././@LongLink", b'L', &long, GNU),
        &block(b"short", b'2', 0, GNU),
        &END,
    ])
    .unwrap();
    assert_eq!(found[0].0.path, long);
    assert_eq!(found[0].0.kind, Kind::Leaf(Leaf::Symlink(b"t".repeat(300))));
}

/// The same sparse file in every format: "abc" at 5, "de" at 1000, 2000 bytes.
#[test]
fn sparse_files() {
    let mut expected = vec![0; 2000];
    expected[5..8].copy_from_slice(b"abc");
    expected[1000..1002].copy_from_slice(b"de");

    let mut old = block(b"sparse", b'S', 5, GNU);
    old[386..398].copy_from_slice(b"00000000005\0");
    old[398..410].copy_from_slice(b"00000000003\0");
    old[482] = 1;
    old[483..495].copy_from_slice(b"00000003720\0");
    let mut more = [0; BLOCK];
    more[..12].copy_from_slice(b"00000001750\0");
    more[12..24].copy_from_slice(b"00000000002\0");
    let data = [b"abcde" as &[u8], &[0; 507]].concat();
    let old = [&sealed(old) as &[u8], &more, &data].concat();

    let zero_dot_zero = pax(&[
        ("GNU.sparse.size", "2000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "5"),
        ("GNU.sparse.numbytes", "3"),
        ("GNU.sparse.offset", "1000"),
        ("GNU.sparse.numbytes", "2"),
    ]);
    let zero_dot_one = pax(&[
        ("GNU.sparse.size", "2000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.map", "5,3,1000,2"),
        ("GNU.sparse.name", "sparse"),
    ]);
    let one = pax(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "sparse"),
        ("GNU.sparse.realsize", "2000"),
    ]);
    let mut body = b"2\n5\n3\n1000\n2\n".to_vec();
    body.resize(BLOCK, 0);
    body.extend_from_slice(b"abcde");
    for archive in [
        old,
        [zero_dot_zero, file(b"sparse", b'0', b"abcde", POSIX)].concat(),
        [zero_dot_one, file(b"GNUSparseFile.1/sparse", b'0', b"abcde", POSIX)].concat(),
        [one, file(b"GNUSparseFile.1/sparse", b'0', &body, POSIX)].concat(),
    ] {
        let found = read(&[&archive, &file(b"next", b'0', b"x", POSIX), &END]).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0.path, b"sparse");
        assert_eq!(found[0].1, expected);
        assert_eq!(found[1].1, b"x");
    }
}

#[test]
fn an_archive_may_end_without_its_end() {
    assert_eq!(read(&[]).unwrap().len(), 0);
    assert_eq!(read(&[&END]).unwrap().len(), 0);
    assert_eq!(read(&[&file(b"a", b'0', b"x", GNU)]).unwrap().len(), 1);
    assert_eq!(read(&[&file(b"a", b'0', b"x", GNU), &[0; BLOCK]]).unwrap().len(), 1);
    // And what only fills the last block may be left out.
    assert_eq!(read(&[&file(b"a", b'0', b"x", GNU)[..BLOCK + 1]]).unwrap().len(), 1);
}

#[test]
fn damaged_archives_are_refused() {
    let mut wrong_sum = block(b"a", b'0', 0, GNU);
    wrong_sum[0] = b'b';
    let good = file(b"a", b'0', &[7; 600], GNU);
    let mut negative = block(b"a", b'0', 0, GNU);
    negative[124..136].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    let bad_map = pax(&[("GNU.sparse.size", "10"), ("GNU.sparse.map", "5,3,4,2")]);
    let short_map =
        pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")]);
    let endless = pax(&[("size", "18446744073709551615")]);
    let no_size = pax(&[("GNU.sparse.map", "0,5")]);
    for (archive, why) in [
        (&wrong_sum as &[u8], "checksum"),
        (&[b'x'; BLOCK], "octal"),
        (&good[..300], "ends early"),
        (&good[..BLOCK], "ends early"),
        (&good[..BLOCK + 599], "ends early"),
        (&good[..BLOCK + 601], "ends early"),
        (&[[0u8; BLOCK].as_slice(), &good].concat(), "followed by more"),
        (&pax(&[("path", "x")]), "ends early"),
        (&[pax(&[("path", "x")]), END.to_vec()].concat(), "ends early"),
        (&[endless, file(b"a", b'0', b"x", POSIX)].concat(), "ends early"),
        (&sealed(negative), "negative"),
        (&file(b"x", b'x', b"3 a", POSIX), "extended header"),
        (&[bad_map, file(b"a", b'0', b"12345", POSIX)].concat(), "overlap"),
        (&[short_map.clone(), file(b"a", b'0', b"2\n1\n", POSIX)].concat(), "sparse map"),
        (&[short_map, file(b"a", b'0', &[b'1'; 1024], POSIX)].concat(), "sparse map"),
        (&[no_size, file(b"a", b'0', b"12345", POSIX)].concat(), "no size"),
    ] {
        match read(&[archive]) {
            Err(ImageError::Unsafe(Unsafe::Archive { why: got, .. })) => {
                assert!(got.contains(why), "{why}: {got}")
            }
            other => panic!("{why}: {other:?}"),
        }
    }
}

#[test]
fn what_ext4_cannot_hold_is_told() {
    let minus_one = pax(&[("uid", "-1")]);
    let too_large = pax(&[("gid", "4294967295")]);
    for archive in [
        [minus_one, file(b"a", b'0', b"", POSIX)].concat(),
        [too_large, file(b"a", b'0', b"", POSIX)].concat(),
        file(b"a", b'M', b"", GNU),
        file(b"a", b'Z', b"", GNU),
    ] {
        let error = read(&[&archive]).unwrap_err();
        assert!(matches!(error, ImageError::Unsupported(Unsupported::Entry { .. })), "{error}");
    }
}

#[test]
fn limits_of_headers() {
    let limits =
        Limits { extension: banger_model::Bytes(100), xattrs: banger_model::Bytes(50), ..Limits::default() };
    let long = "v".repeat(60);
    let mut sparse = block(b"s", b'S', 0, GNU);
    sparse[482] = 1;
    let mut more = [0; BLOCK];
    for pair in more.as_chunks_mut::<24>().0 {
        pair.copy_from_slice(b"00000000000\x0000000000000\0");
    }
    more[504] = 1;
    for archive in [
        file(b"L", b'L', &[b'n'; 101], GNU),
        file(b"x", b'x', &[b'n'; 101], POSIX),
        file(b"g", b'g', &[b'n'; 101], POSIX),
        // A length that would need memory before anything is read.
        block(b"L", b'L', 0o77777777777, GNU).to_vec(),
        [pax(&[("SCHILY.xattr.user.a", &long)]), file(b"a", b'0', b"", POSIX)].concat(),
        [&sealed(sparse) as &[u8], &more, &more].concat(),
    ] {
        let error = read_with(&archive, limits).unwrap_err();
        assert!(matches!(error, ImageError::Unsafe(Unsafe::Limit { .. })), "{error}");
    }
}

proptest! {
    #[test]
    fn never_panics(blocks in proptest::collection::vec(
        (proptest::collection::vec(any::<u8>(), 0..40), proptest::sample::select(b"05xLKgS1\0".to_vec()), 0u64..3000), 0..6),
        tail in proptest::collection::vec(any::<u8>(), 0..1500))
    {
        let mut archive = Vec::new();
        for (name, kind, size) in blocks {
            archive.extend_from_slice(&block(&name, kind, size, GNU));
        }
        archive.extend_from_slice(&tail);
        let _ = read_with(&archive, Limits::default());
    }

    /// Whatever the tar crate writes comes back.
    #[test]
    fn files_come_back(files in proptest::collection::vec(
        ("[a-z/]{1,150}", proptest::collection::vec(any::<u8>(), 0..1200), any::<u32>()), 0..8))
    {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, body, uid) in &files {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(body.len() as u64);
            header.set_mode(0o644);
            header.set_uid((*uid).min(u32::MAX - 1).into());
            header.set_gid(7);
            header.set_mtime(1);
            header.set_entry_type(::tar::EntryType::Regular);
            builder.append_data(&mut header, format!("x{name}"), body.as_slice()).unwrap();
        }
        let archive = builder.into_inner().unwrap();
        let found = read_with(&archive, Limits::default()).unwrap();
        prop_assert_eq!(found.len(), files.len());
        for ((entry, content), (_, body, uid)) in found.iter().zip(&files) {
            prop_assert_eq!(content, body);
            prop_assert_eq!(entry.metadata.uid, (*uid).min(u32::MAX - 1));
        }
    }
}
