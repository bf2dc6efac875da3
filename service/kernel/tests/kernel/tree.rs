//! A folder of modules as depmod leaves one, small.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// The release that the modules say.
pub const RELEASE: &str = "6.1.0-test";

/// Packing of the modules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packing {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

/// A module named `name`, unpacked.
pub fn module(name: &str) -> Vec<u8> {
    let mut bytes = vec![0u8; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[16] = 1;
    bytes.extend_from_slice(format!("\0name={name}\0vermagic={RELEASE} SMP mod_unload \0").as_bytes());
    bytes.resize(bytes.len() + 10_000, b'x');
    bytes
}

fn pack(packing: Packing, bytes: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

/// Modules with their needs, as Debian's cloud kernel has them.
pub const GRAPH: &[(&str, &[&str])] = &[
    ("drivers/virtio/virtio_mmio", &["drivers/virtio/virtio", "drivers/virtio/virtio_ring"]),
    ("drivers/virtio/virtio", &["drivers/virtio/virtio_ring"]),
    ("drivers/virtio/virtio_ring", &[]),
    ("drivers/block/virtio_blk", &["drivers/virtio/virtio", "drivers/virtio/virtio_ring"]),
    ("drivers/char/virtio_console", &["drivers/virtio/virtio", "drivers/virtio/virtio_ring"]),
    ("drivers/char/hw_random/virtio-rng", &["drivers/virtio/virtio", "drivers/virtio/virtio_ring"]),
    ("drivers/sound/unwanted", &[]),
];

/// What comes out of [`GRAPH`], in order.
pub const ORDER: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio_console", "virtio_rng"];

/// Writes the folder `<parent>/<RELEASE>`, with `ext4` built in.
pub fn write(parent: &Path, packing: Packing) -> PathBuf {
    let end = match packing {
        Packing::Plain => ".ko",
        Packing::Gzip => ".ko.gz",
        Packing::Xz => ".ko.xz",
        Packing::Zstd => ".ko.zst",
    };
    let folder = parent.join(RELEASE);
    let mut dep = String::new();
    for (path, needs) in GRAPH {
        let needs: String = needs.iter().map(|need| format!(" kernel/{need}{end}")).collect();
        dep += &format!("kernel/{path}{end}:{needs}\n");
        let file = folder.join(format!("kernel/{path}{end}"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let name = path.rsplit('/').next().unwrap().replace('-', "_");
        fs::write(file, pack(packing, &module(&name))).unwrap();
    }
    fs::write(folder.join("modules.dep"), dep).unwrap();
    fs::write(folder.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\nkernel/lib/crc16.ko\n").unwrap();
    fs::write(folder.join("modules.alias"), "alias x y\n").unwrap();
    folder
}
