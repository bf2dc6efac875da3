//! The system calls that no crate wraps safely, and nothing else.
//!
//! Sources: linux/loop.h and loop(4), linux/if_tun.h, netdevice(7), close_range(2), sd_listen_fds(3).

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `LO_NAME_SIZE`
const LOOP_NAME: usize = 64;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; LOOP_NAME],
    crypt_name: [u8; LOOP_NAME],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

// The sizes that the kernel's headers give on every 64-bit architecture.
const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

impl LoopInfo {
    const EMPTY: LoopInfo = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; LOOP_NAME],
        crypt_name: [0; LOOP_NAME],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The number of a loop device that nobody used a moment ago. `control` is `/dev/loop-control`.
pub fn loop_get_free(control: impl AsFd) -> io::Result<u32> {
    // SAFETY: this ioctl takes no argument and returns a number or an error.
    #[allow(unsafe_code)]
    let number = check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    u32::try_from(number).map_err(io::Error::other)
}

/// Puts the loop device `device` over `file`, until its last user is gone. `name` is shown by losetup(8).
pub fn loop_configure(device: impl AsFd, file: impl AsFd, writable: bool, name: &str) -> io::Result<()> {
    let mut info = LoopInfo::EMPTY;
    info.flags = LO_FLAGS_AUTOCLEAR | if writable { 0 } else { LO_FLAGS_READ_ONLY };
    // One byte stays zero, as the end of the name.
    let length = name.len().min(LOOP_NAME - 1);
    info.file_name[..length].copy_from_slice(&name.as_bytes()[..length]);
    let fd = file.as_fd().as_raw_fd();
    let fd = u32::try_from(fd).map_err(io::Error::other)?;
    let config = LoopConfig { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: the kernel reads one `struct loop_config`, which `config` is, and keeps no pointer to it.
    #[allow(unsafe_code)]
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CONFIGURE, &raw const config) })?;
    Ok(())
}

/// What is known of a loop device that is over a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopStatus {
    /// The name that [`loop_configure`] gave it.
    pub name: String,
    /// Device and inode number of the file.
    pub file: (u64, u64),
}

/// What the loop device `device` is over.
///
/// # Errors
/// `ENXIO` if it is over no file.
pub fn loop_status(device: impl AsFd) -> io::Result<LoopStatus> {
    let mut info = LoopInfo::EMPTY;
    // SAFETY: the kernel writes one `struct loop_info64`, which `info` is: plain numbers, any bits are valid.
    #[allow(unsafe_code)]
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) })?;
    let name = info.file_name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(LoopStatus { name: String::from_utf8_lossy(name).into_owned(), file: (info.device, info.inode) })
}

fn interface_request(name: &str, union: libc::__c_anonymous_ifr_ifru) -> io::Result<libc::ifreq> {
    let mut request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: union };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn interface_ioctl(fd: impl AsFd, number: libc::Ioctl, request: &libc::ifreq) -> io::Result<()> {
    // SAFETY: every request that this file makes takes one `struct ifreq`, whose union's first bytes are
    // set as that request reads them. The kernel may write it back, so it gets a copy of its own.
    #[allow(unsafe_code)]
    check(unsafe {
        let mut copy: libc::ifreq = std::ptr::read(request);
        libc::ioctl(fd.as_fd().as_raw_fd(), number, &raw mut copy)
    })?;
    Ok(())
}

/// Makes a TAP that lives as long as `tun`, an open `/dev/net/tun`, does. It must not exist yet.
pub fn tap_create(tun: impl AsFd, name: &str) -> io::Result<()> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    // The field is 16 bits wide, and the highest of them is a flag.
    let flags = u16::try_from(flags).map_err(io::Error::other)?.cast_signed();
    let request = interface_request(name, libc::__c_anonymous_ifr_ifru { ifru_flags: flags })?;
    interface_ioctl(tun, libc::TUNSETIFF, &request)
}

/// Lets the interface of an attached `/dev/net/tun` outlive it, or not.
pub fn tap_persist(tun: impl AsFd, persist: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes a number, not a pointer.
    #[allow(unsafe_code)]
    check(unsafe {
        libc::ioctl(tun.as_fd().as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(persist))
    })?;
    Ok(())
}

/// Lets a user attach to the interface of an attached `/dev/net/tun`.
pub fn tap_owner(tun: impl AsFd, uid: u32) -> io::Result<()> {
    // SAFETY: TUNSETOWNER takes a number, not a pointer.
    #[allow(unsafe_code)]
    check(unsafe { libc::ioctl(tun.as_fd().as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(uid)) })?;
    Ok(())
}

/// Attaches `tun`, an open `/dev/net/tun`, to a TAP that is there.
pub fn tap_attach(tun: impl AsFd, name: &str) -> io::Result<()> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let flags = u16::try_from(flags).map_err(io::Error::other)?.cast_signed();
    let request = interface_request(name, libc::__c_anonymous_ifr_ifru { ifru_flags: flags })?;
    interface_ioctl(tun, libc::TUNSETIFF, &request)
}

/// Marks every descriptor from 3 on as closed on exec, whoever opened it.
pub fn close_all_on_exec() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: no descriptor is closed now, so none that somebody owns becomes invalid.
    #[allow(unsafe_code)]
    check(unsafe { libc::close_range(3, u32::MAX, flags) })?;
    Ok(())
}

/// Lets a write beyond `RLIMIT_FSIZE` fail, rather than end the process. Survives exec.
pub fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal installs no handler; the call fails for invalid signals only.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN)
    };
}

/// The one socket of socket activation, descriptor 3. Only `main` may call it, once, when the
/// environment says that the service manager passed it.
pub fn activation_socket() -> OwnedFd {
    // SAFETY: by the protocol of sd_listen_fds(3), descriptor 3 is open and this process's own; `main` asks
    // before anything else has been opened.
    #[allow(unsafe_code)]
    unsafe {
        OwnedFd::from_raw_fd(3)
    }
}

/// The processor's time stamp counter; `None` where there is none.
pub fn time_stamp() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads a register and touches no memory. Linux leaves the instruction to programs, unless one has
    // itself forbidden it (PR_SET_TSC), which this one never does.
    #[allow(unsafe_code)]
    return Some(unsafe { std::arch::x86_64::_rdtsc() });
    #[cfg(not(target_arch = "x86_64"))]
    return None;
}
