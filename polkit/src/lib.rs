//! The authorization table and the polkit authority behind it.
//!
//! [`Operation::requirement`] is the table: what is asked for and whose it is give what the caller needs. An
//! [`Authority`] answers for the actions; [`authorize`] puts the two together. The policy file that polkit
//! reads is generated from the same table ([`policy_xml`]).

mod action;
mod authority;
mod client;
mod policy;
mod scripted;
mod table;

pub use action::{ActionId, Implicit};
pub use authority::{Answer, Authority, Caller, Check, Details, Refusal, authorize};
pub use client::PolkitAuthority;
pub use policy::policy_xml;
pub use scripted::ScriptedAuthority;
pub use table::{Operation, Ownership, Requirement};
