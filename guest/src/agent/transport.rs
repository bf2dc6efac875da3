//! What the protocol runs over.

use banger_guest::wire::PORT_NAME;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::PathBuf,
};

/// A byte stream to the host, which never blocks.
pub trait Transport: AsFd {
    /// Reads as read(2). 0 bytes mean that no host is there (any more).
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as write(2).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Whether another host may come after one has gone. Where none can, the agent ends with its host.
    fn reconnects(&self) -> bool;
}

/// A virtio-serial port. Hosts come and go on it, and it stays.
pub struct Port(File);

impl Port {
    /// Finds the agent's port by its name, without udev.
    ///
    /// # Errors
    /// Not found when there is none (yet).
    pub fn find() -> io::Result<Self> {
        for entry in fs::read_dir("/sys/class/virtio-ports")? {
            let entry = entry?;
            // The name is missing until the host has told it.
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim_end() == PORT_NAME {
                let node = PathBuf::from("/dev").join(entry.file_name());
                let options =
                    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(node);
                return options.map(Self);
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Transport for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn reconnects(&self) -> bool {
        true
    }
}

impl Transport for Box<dyn Transport> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (**self).write(bytes)
    }

    fn reconnects(&self) -> bool {
        (**self).reconnects()
    }
}

impl Transport for UnixStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(self, buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn reconnects(&self) -> bool {
        false
    }
}
