//! Packets: one message and its descriptors over an `AF_UNIX` `SOCK_SEQPACKET` socket (unix(7)).

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The longest message, in bytes.
pub const LONGEST: usize = 64 << 10;

/// The most descriptors beside one message.
pub const MOST_DESCRIPTORS: usize = 24;

/// Sends one packet.
///
/// # Errors
/// sendmsg(2)'s; [`io::ErrorKind::InvalidInput`] if there is too much of anything.
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.len() > LONGEST || descriptors.len() > MOST_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // A packet is sent whole or not at all.
    sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for one packet; none at the end of the connection. The descriptors are closed on exec.
///
/// # Errors
/// recvmsg(2)'s; [`io::ErrorKind::InvalidData`] if a message or its descriptors were cut off. What
/// descriptors came with it are closed then.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut message = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut message)];
        match recvmsg(&socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // An empty packet looks like the end, and nobody who speaks this protocol sends one.
    if received.bytes == 0 {
        return Ok(None);
    }
    message.truncate(received.bytes);
    Ok(Some((message, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, send as send_raw, socketpair};
    use std::fs::File;
    use std::io::Read;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    proptest! {
        #[test]
        fn a_packet_arrives_as_it_was_sent(
            message in proptest::collection::vec(any::<u8>(), 1..2000),
            count in 0..=MOST_DESCRIPTORS,
        ) {
            let (here, there) = pair();
            let file = File::open("/proc/self/comm").unwrap();
            send(&here, &message, &vec![file.as_fd(); count]).unwrap();
            send(&here, b"next", &[]).unwrap();
            let (received, descriptors) = receive(&there).unwrap().unwrap();
            prop_assert_eq!(received, message);
            prop_assert_eq!(descriptors.len(), count);
            for descriptor in descriptors {
                let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
                prop_assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
            prop_assert_eq!(receive(&there).unwrap().unwrap().0, b"next");
        }
    }

    #[test]
    fn a_descriptor_is_the_same_file() {
        let (here, there) = pair();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&here, b"x", &[writer.as_fd()]).unwrap();
        drop(writer);
        let (_, descriptors) = receive(&there).unwrap().unwrap();
        drop(descriptors);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "no copy of it is left");
    }

    #[test]
    fn sizes_have_limits() {
        let (here, there) = pair();
        let null = File::open("/dev/null").unwrap();
        assert!(send(&here, &vec![0; LONGEST + 1], &[]).is_err());
        assert!(send(&here, b"x", &[null.as_fd(); MOST_DESCRIPTORS + 1]).is_err());
        send(&here, &vec![1; LONGEST], &[]).unwrap();
        assert_eq!(receive(&there).unwrap().unwrap().0.len(), LONGEST);
        send_raw(&here, &vec![1; LONGEST + 1], SendFlags::empty()).unwrap();
        assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(here);
        assert!(receive(&there).unwrap().is_none(), "the end");
    }
}
