//! Files with holes, in every format that archivers write (GNU tar manual, "Storing Sparse Files").

use crate::{
    fake::archive::{Archive, header, number, sealed},
    reader::Seen,
    support::pull_one,
};

const GIB: u64 = 1 << 30;

/// Parts of a file, without a zero byte in them, that is 10 GiB long.
fn parts() -> Vec<(u64, Vec<u8>)> {
    let part =
        |number: u64| (number * (GIB / 2) + number * 7, vec![number as u8 + 1; 3 + number as usize * 100]);
    (0..20).map(part).collect()
}

const SIZE: u64 = 10 * GIB;

fn data() -> Vec<u8> {
    parts().into_iter().flat_map(|(_, bytes)| bytes).collect()
}

/// The runs of bytes that are not zero.
fn found(seen: &Seen) -> Vec<(u64, Vec<u8>)> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for (offset, bytes) in &seen.data {
        for (at, byte) in (*offset..).zip(bytes).filter(|(_, byte)| **byte != 0) {
            match runs.last_mut() {
                Some((start, run)) if *start + run.len() as u64 == at => run.push(*byte),
                _ => runs.push((at, vec![*byte])),
            }
        }
    }
    runs
}

async fn holds(archive: Archive) {
    let tree = pull_one(archive.file("next", "x").end()).await;
    let seen = tree.get("/sparse");
    assert_eq!((seen.size, seen.mode), (SIZE, 0o100_644));
    assert_eq!(found(seen), parts());
    let stored: usize = seen.data.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(stored < 40 * 4096, "{stored} bytes are stored: the holes are no holes");
    assert_eq!(tree.content("/next"), b"x");
}

#[tokio::test]
async fn old_gnu_with_continuation_blocks_beyond_8_gib() {
    let mut block = header(b'S', b"sparse", b"", 0o644, data().len() as u64);
    block[257..265].copy_from_slice(b"ustar  \0");
    let mut fields = parts().into_iter().map(|(offset, bytes)| (offset, bytes.len() as u64));
    let mut put = |room: &mut [u8]| {
        for pair in room.as_chunks_mut::<24>().0 {
            let Some((offset, length)) = fields.next() else { return };
            number(&mut pair[..12], offset);
            number(&mut pair[12..], length);
        }
    };
    put(&mut block[386..482]);
    block[482] = 1;
    number(&mut block[483..495], SIZE);
    // 4 parts in the header, 16 in the one block that 21 fit into.
    let mut more = [0; 512];
    put(&mut more[..504]);
    let mut body = data();
    body.resize(body.len().next_multiple_of(512), 0);
    holds(Archive::new().bytes(&sealed(block)).bytes(&more).bytes(&body)).await;
}

#[tokio::test]
async fn old_gnu_with_several_continuation_blocks() {
    // 60 parts of one byte, each at the start of a block: 4 + 21 + 21 + 14.
    let mut block = header(b'S', b"sparse", b"", 0o644, 60);
    block[257..265].copy_from_slice(b"ustar  \0");
    let segment = |pair: &mut [u8; 24], at: u64| {
        number(&mut pair[..12], at * 8192);
        number(&mut pair[12..], 1);
    };
    let mut at = 0;
    let mut put = |room: &mut [u8]| {
        for pair in room.as_chunks_mut::<24>().0.iter_mut().take(60 - at as usize) {
            segment(pair, at);
            at += 1;
        }
    };
    put(&mut block[386..482]);
    block[482] = 1;
    number(&mut block[483..495], 60 * 8192);
    let mut archive = Archive::new().bytes(&sealed(block));
    for last in [false, false, true] {
        let mut more = [0; 512];
        put(&mut more[..504]);
        more[504] = u8::from(!last);
        archive = archive.bytes(&more);
    }
    let mut body = vec![b'x'; 60];
    body.resize(512, 0);
    let tree = pull_one(archive.bytes(&body).end()).await;
    let expected: Vec<(u64, Vec<u8>)> = (0..60).map(|at| (at * 8192, vec![b'x'])).collect();
    assert_eq!(found(tree.get("/sparse")), expected);
}

#[tokio::test]
async fn pax_sparse_0_0() {
    let mut archive =
        Archive::new().pax("GNU.sparse.size", SIZE.to_string()).pax("GNU.sparse.numblocks", "20");
    for (offset, bytes) in parts() {
        archive = archive.pax("GNU.sparse.offset", offset.to_string());
        archive = archive.pax("GNU.sparse.numbytes", bytes.len().to_string());
    }
    holds(archive.file("sparse", data())).await;
}

#[tokio::test]
async fn pax_sparse_0_1() {
    let map: Vec<String> =
        parts().iter().map(|(offset, bytes)| format!("{offset},{}", bytes.len())).collect();
    let archive = Archive::new()
        .pax("GNU.sparse.size", SIZE.to_string())
        .pax("GNU.sparse.numblocks", "20")
        .pax("GNU.sparse.name", "sparse")
        .pax("GNU.sparse.map", map.join(","));
    holds(archive.file("GNUSparseFile.1/sparse", data())).await;
}

#[tokio::test]
async fn pax_sparse_1_0() {
    let mut body = format!("{}\n", parts().len()).into_bytes();
    for (offset, bytes) in parts() {
        body.extend_from_slice(format!("{offset}\n{}\n", bytes.len()).as_bytes());
    }
    body.resize(body.len().next_multiple_of(512), 0);
    body.extend_from_slice(&data());
    let archive = Archive::new()
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "sparse")
        .pax("GNU.sparse.realsize", SIZE.to_string());
    holds(archive.file("GNUSparseFile.1/sparse", body)).await;
}
