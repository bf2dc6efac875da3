//! Names of VMs: `<name>.vm`, and back from an address.
//!
//! [`Zone`] is what there is to know, as plain data; [`answer`] makes the answer to one packet of it, without any I/O;
//! [`Server`] moves packets. Queries are answered one after the other where they arrive, so there is no amount of work
//! that a flood could pile up (docs/adr/0020-names.md).

mod answer;
mod limit;
mod places;
mod reverse;
mod server;
mod tcp;
mod udp;
mod zone;

pub use answer::{LONGEST_UDP, Transport, answer, refuse};
pub use server::{Server, SharedZone, Sockets};
pub use zone::{TTL, Zone};
