//! Any sequence of calls of the ext4 writer: what it takes is a sound filesystem.

#![no_main]

use arbitrary::Arbitrary;
use banger_ext4::{Metadata, Options, Size, Timestamp, Writer, Xattr};
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Write as _};

#[derive(Arbitrary, Debug)]
enum Call {
    File {
        parent: u8,
        name: Vec<u8>,
        metadata: Meta,
        pieces: Vec<Piece>,
    },
    Directory {
        parent: u8,
        name: Vec<u8>,
        metadata: Meta,
    },
    /// So many directories at once, to fill blocks and indexes.
    Directories {
        parent: u8,
        count: u8,
        length: u8,
    },
    Symlink {
        parent: u8,
        name: Vec<u8>,
        target: Vec<u8>,
    },
    /// A target as long as this.
    LongSymlink {
        parent: u8,
        name: Vec<u8>,
        length: u16,
    },
    Device {
        parent: u8,
        name: Vec<u8>,
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo {
        parent: u8,
        name: Vec<u8>,
        metadata: Meta,
    },
    Socket {
        parent: u8,
        name: Vec<u8>,
    },
    Link {
        parent: u8,
        name: Vec<u8>,
        node: u8,
    },
    Unlink {
        parent: u8,
        name: Vec<u8>,
    },
    SetMetadata {
        node: u8,
        metadata: Meta,
    },
    Discard {
        pieces: Vec<Piece>,
    },
    Forget {
        pieces: Vec<Piece>,
    },
}

#[derive(Arbitrary, Debug)]
enum Piece {
    Bytes(u16, u8),
    Hole(u64),
    Short(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Meta {
    mode: u16,
    ids: (u32, u32),
    time: (i64, u32),
    xattrs: Vec<(Name, u16)>,
}

#[derive(Arbitrary, Debug)]
enum Name {
    User(u8),
    Trusted(u8),
    Capability,
    Acl,
    Any(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Input {
    expected: u32,
    size: Option<u32>,
    calls: Vec<Call>,
}

fn metadata(meta: Meta) -> Metadata {
    let xattrs = meta.xattrs.into_iter().map(|(name, length)| Xattr {
        name: match name {
            Name::User(number) => format!("user.{number}").into_bytes(),
            Name::Trusted(number) => format!("trusted.{number}").into_bytes(),
            Name::Capability => b"security.capability".to_vec(),
            Name::Acl => b"system.posix_acl_access".to_vec(),
            Name::Any(name) => name,
        },
        value: vec![7; usize::from(length) % 4100],
    });
    let mtime = Timestamp { seconds: meta.time.0, nanoseconds: meta.time.1 };
    Metadata { mode: meta.mode, uid: meta.ids.0, gid: meta.ids.1, mtime, xattrs: xattrs.collect() }
}

fn write(
    content: &mut banger_ext4::ContentWriter<'_, impl std::io::Write + std::io::Seek>,
    pieces: Vec<Piece>,
) {
    // What is too large for a file is refused, and what follows may still fit.
    for piece in pieces {
        let _ = match piece {
            Piece::Bytes(length, byte) => content.write_all(&vec![byte; length.into()]),
            Piece::Hole(length) => content.hole(length).map_err(Into::into),
            Piece::Short(bytes) => content.write_all(&bytes),
        };
    }
}

fuzz_target!(|input: Input| {
    let options = Options {
        uuid: [7; 16],
        label: Vec::new(),
        // At most 256 MiB: what is skipped is memory too.
        expected: u64::from(input.expected >> 4),
        epoch: Timestamp::default(),
    };
    let mut image = Cursor::new(Vec::new());
    let mut writer = Writer::new(&mut image, options).expect("these options are possible");
    let mut nodes = vec![writer.root()];
    for call in input.calls {
        let node = |number: u8| nodes[usize::from(number) % nodes.len()];
        let plain = Metadata::default;
        let made = match call {
            Call::File { parent, name, metadata: meta, pieces } => {
                let mut content = writer.content();
                write(&mut content, pieces);
                let content = content.finish().expect("memory takes everything");
                writer.add_file(node(parent), &name, metadata(meta), content)
            }
            Call::Directory { parent, name, metadata: meta } => {
                writer.add_dir(node(parent), &name, metadata(meta))
            }
            Call::Directories { parent, count, length } => {
                let parent = node(parent);
                for number in 0..count {
                    let name = format!("{number:0>width$}", width = usize::from(length).clamp(3, 255));
                    let _ = writer.add_dir(parent, name.as_bytes(), plain());
                }
                continue;
            }
            Call::Symlink { parent, name, target } => {
                writer.add_symlink(node(parent), &name, plain(), &target)
            }
            Call::LongSymlink { parent, name, length } => {
                writer.add_symlink(node(parent), &name, plain(), &vec![b't'; usize::from(length) % 4200])
            }
            Call::Device { parent, name, block: true, major, minor } => {
                writer.add_block_device(node(parent), &name, plain(), major, minor)
            }
            Call::Device { parent, name, block: false, major, minor } => {
                writer.add_char_device(node(parent), &name, plain(), major, minor)
            }
            Call::Fifo { parent, name, metadata: meta } => {
                writer.add_fifo(node(parent), &name, metadata(meta))
            }
            Call::Socket { parent, name } => writer.add_socket(node(parent), &name, plain()),
            Call::Link { parent, name, node: target } => {
                let _ = writer.link(node(parent), &name, node(target));
                continue;
            }
            Call::Unlink { parent, name } => {
                // A node without names must not be used again.
                let gone = writer.lookup(node(parent), &name);
                if writer.unlink(node(parent), &name).is_ok() {
                    nodes.retain(|node| Some(*node) != gone);
                }
                continue;
            }
            Call::SetMetadata { node: number, metadata: meta } => {
                let _ = writer.set_metadata(node(number), metadata(meta));
                continue;
            }
            Call::Discard { pieces } => {
                let mut content = writer.content();
                write(&mut content, pieces);
                let content = content.finish().expect("memory takes everything");
                writer.discard(content);
                continue;
            }
            Call::Forget { pieces } => {
                write(&mut writer.content(), pieces);
                continue;
            }
        };
        nodes.extend(made);
    }
    // At most 32 MiB: it is memory.
    let size = input.size.map_or(Size::AtLeast(0), |size| Size::Exactly(u64::from(size >> 7)));
    if let Ok(summary) = writer.finish(size) {
        let mut image = image.into_inner();
        image.resize(summary.size as usize, 0);
        banger_fuzz::fsck::check(&image);
    }
});
