//! The modules that a microVM needs, one table.

/// A module that a VM needs, and how much.
pub(crate) struct Need {
    /// As modprobe(8) names it, with `_`.
    pub(crate) name: &'static str,
    /// Without a required one no VM comes up; without an optional one it lacks a device, or nothing.
    pub(crate) required: bool,
}

const fn required(name: &'static str) -> Need {
    Need { name, required: true }
}

const fn optional(name: &'static str) -> Need {
    Need { name, required: false }
}

/// In the order of loading; dependencies come before what needs them in any case.
pub(crate) const NEEDS: &[Need] = &[
    // The bus, and the disk that everything waits for.
    required("virtio_mmio"),
    required("virtio_blk"),
    // ext4 asks the crypto API for crc32c by name, which modules.dep does not know.
    optional("crc32c_generic"),
    optional("crc32c_intel"),
    optional("libcrc32c"),
    required("ext4"),
    // The agent's port, the network, entropy.
    required("virtio_console"),
    optional("virtio_net"),
    optional("virtio_rng"),
    optional("virtio_balloon"),
    optional("vmw_vsock_virtio_transport"),
    // For machines whose devices are on PCI.
    optional("virtio_pci"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_the_index_spells_them() {
        for need in NEEDS {
            assert!(need.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{}", need.name);
        }
    }
}
