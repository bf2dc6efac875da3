//! What the service does, one file per kind of operation. Each takes a request that was parsed, authorized
//! and frozen before.

pub mod bundle;
pub mod change;
pub mod choose;
pub mod commit;
pub mod create;
pub mod exec;
pub mod export;
pub mod firecracker;
pub mod idle;
pub mod images;
pub mod import;
pub mod kernels;
pub mod kill;
pub mod lifecycle;
pub mod network;
pub mod pause;
pub mod port;
pub mod prune;
pub mod publish;
pub mod pull;
pub mod register;
pub mod restart;
pub mod snapshot;
pub mod start;
pub mod stats;
pub mod steps;
pub mod usage;
pub mod wait;
