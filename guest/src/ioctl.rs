//! The system calls that neither std nor nix offers safely. All unsafe code of the guest is here.
#![allow(unsafe_code, reason = "system calls by number and pointer; each has its SAFETY reason")]

use banger_guest::wire::{ExitStatus, WindowSize};
use nix::{
    errno::Errno,
    sys::signal::SigSet,
    unistd::{ForkResult, Pid},
};
use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

/// `EXT4_IOC_RESIZE_FS` (linux, fs/ext4/ext4.h): `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
/// `BLKGETSIZE64` (linux/fs.h): `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;

/// `RNDADDENTROPY` (linux/random.h): `_IOW('R', 3, int[2])`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
/// `RNDRESEEDCRNG` (linux/random.h): `_IO('R', 7)`.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// Adds random bytes to the kernel's pool, and counts them all as random. `pool` is `/dev/urandom`.
pub fn add_entropy(pool: impl AsFd, seed: &[u8]) -> io::Result<()> {
    /// `struct rand_pool_info`, with room for the most that is added here.
    #[repr(C)]
    struct PoolInfo {
        bits: libc::c_int,
        size: libc::c_int,
        bytes: [u8; 256],
    }
    let mut info = PoolInfo { bits: 0, size: 0, bytes: [0; 256] };
    let length = seed.len().min(info.bytes.len());
    info.bytes[..length].copy_from_slice(&seed[..length]);
    (info.bits, info.size) = (length as i32 * 8, length as i32);
    // SAFETY: RNDADDENTROPY reads the two numbers and `size` bytes behind them, which `info` has; it lives for the call.
    Errno::result(unsafe { libc::ioctl(pool.as_fd().as_raw_fd(), RNDADDENTROPY, &raw const info) })?;
    Ok(())
}

/// Has the kernel's generator take a new seed from the pool now. `pool` is `/dev/urandom`.
pub fn reseed(pool: impl AsFd) -> io::Result<()> {
    // SAFETY: RNDRESEEDCRNG takes no argument.
    Errno::result(unsafe { libc::ioctl(pool.as_fd().as_raw_fd(), RNDRESEEDCRNG) })?;
    Ok(())
}

/// Forks; `None` is the child.
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: banger-guest never starts a thread, so the child finds no lock that another thread held.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Forks a child of the caller's parent (clone(2), `CLONE_PARENT`); `None` is that child.
pub fn fork_sibling() -> io::Result<Option<Pid>> {
    let (flags, none) = (libc::CLONE_PARENT as libc::c_ulong, 0 as libc::c_ulong);
    // SAFETY: without a stack this is a fork, and as in `fork` there are no threads. The parent gets the signal
    // at the child's end that it would get at the caller's.
    match Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) })? {
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid as i32))),
    }
}

/// A descriptor that the kernel has just made for this process (accept4(2)).
pub fn own(number: i32) -> OwnedFd {
    // SAFETY: only called with what accept4(2) returned, which nobody else has.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Closes every descriptor from `first` on, for a process that goes on without any of them.
pub fn close_from(first: u32) {
    // SAFETY: nothing in this process uses a descriptor from `first` on any more.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if closed != 0 {
        // Kernels before 5.9. The agent has far fewer open than this.
        for fd in first..4096 {
            // SAFETY: as above.
            unsafe { libc::close(fd as i32) };
        }
    }
}

/// Ends the process without running anything of the parent's that a fork copied.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Sends a signal by number; a negative `pid` is a process group (kill(2)). nix knows no real-time signals.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two numbers and checks them.
    Errno::result(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Takes one child that has ended, if any has (waitpid(2) with `WNOHANG`).
///
/// # Errors
/// `ECHILD` when there are no children at all.
pub fn reap() -> io::Result<Option<(Pid, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: `status` lives and is writable for the call.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })?;
    if pid == 0 {
        return Ok(None);
    }
    let ended = match libc::WIFSIGNALED(status) {
        true => ExitStatus::Signal(libc::WTERMSIG(status)),
        false => ExitStatus::Code(libc::WEXITSTATUS(status)),
    };
    Ok(Some((Pid::from_raw(pid), ended)))
}

/// The set of these signals, by number; a number that is no signal is left out.
pub fn signal_set(signals: &[i32]) -> SigSet {
    // SAFETY: an all-zero sigset_t is valid storage, which sigemptyset(3) then sets up.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` lives and is writable for the calls; sigaddset(3) refuses bad numbers.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
    }
    // SAFETY: the set was set up by sigemptyset(3).
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// Gives every signal its default disposition back and unblocks it: what a program expects to find when it
/// starts. Rust ignores SIGPIPE, and whoever started us may ignore others, also the two that the C library
/// keeps for itself and therefore does not touch: hence the system call.
pub fn default_signals() {
    /// The kernel's `struct sigaction`: handler 0 is the default, and nothing else matters then.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=libc::SIGRTMAX() {
        let (new, old) = (DEFAULT.as_ptr(), ptr::null::<u64>());
        // SAFETY: rt_sigaction(2) reads one struct sigaction, which lives for the call; the size is that of
        // its signal set. Signals that cannot be changed are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of::<u64>()) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Keeps every descriptor above 2 from a program that is about to start (close_range(2)). Ours are marked so
/// anyway; this is for those that we inherited ourselves. Kernels before 5.11 cannot do it.
pub fn keep_descriptors_back() {
    // SAFETY: the descriptors are only marked, so nobody's is closed under them.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// How many bytes wait in a pipe (`FIONREAD`, ioctl_tty(2)).
pub fn bytes_waiting(pipe: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which lives for the call.
    Errno::result(unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Sets a terminal's size (`TIOCSWINSZ`, ioctl_tty(2)).
pub fn set_window_size(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives for the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// Makes a terminal the controlling one of the calling session leader (`TIOCSCTTY`).
pub fn take_terminal(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number, 0: do not steal it from another session.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    Ok(())
}

/// Unlocks a new pseudo-terminal and opens its other end, without a path (`TIOCSPTLCK`, `TIOCGPTPEER`).
pub fn open_peer(master: impl AsFd) -> io::Result<OwnedFd> {
    let master = master.as_fd().as_raw_fd();
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives for the call.
    Errno::result(unsafe { libc::ioctl(master, libc::TIOCSPTLCK, &raw const unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open(2) flags and gives a descriptor.
    let peer = Errno::result(unsafe { libc::ioctl(master, libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(peer) })
}

/// Size of a block device, in bytes.
pub fn device_size(device: impl AsFd) -> io::Result<u64> {
    let mut size = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64, which lives for the call.
    Errno::result(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKGETSIZE64, &raw mut size) })?;
    Ok(size)
}

/// Grows the mounted ext4 filesystem that holds this file to so many blocks. The same count is no error.
pub fn resize_ext4(inside: impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64, which lives for the call.
    Errno::result(unsafe {
        libc::ioctl(inside.as_fd().as_raw_fd(), EXT4_IOC_RESIZE_FS, ptr::from_ref(&blocks))
    })?;
    Ok(())
}
