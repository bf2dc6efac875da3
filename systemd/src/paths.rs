//! Names and paths that the unit files and the code agree on; a test reads the unit files.

/// The user of `bangerd`.
pub const USER: &str = "banger";
/// The name on the system bus.
pub const BUS_NAME: &str = "org.banger.Manager";
/// The service without privileges.
pub const BANGERD: &str = "/usr/libexec/bangerd";
/// The helper with them.
pub const HOSTD: &str = "/usr/libexec/banger-hostd";
/// The program that becomes `/init` in a guest.
pub const GUEST: &str = "/usr/lib/banger/banger-guest";
/// What lasts: the user's own, 0700.
pub const STATE: &str = "/var/lib/banger";
/// What lasts until the next boot: root's, 0755.
pub const RUNTIME: &str = "/run/banger";
/// Where the helper keeps a folder for each running VM: root's, 0755.
pub const RUNTIME_VMS: &str = "/run/banger/vm";
/// Where the helper listens: 0600 and the user's.
pub const HOSTD_SOCKET: &str = "/run/banger/hostd.sock";
