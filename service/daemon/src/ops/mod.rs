//! What the service does, one file per kind of operation. Each takes a request that was parsed, authorized
//! and frozen before.

pub mod bundle;
pub mod commit;
pub mod create;
pub mod exec;
pub mod export;
pub mod images;
pub mod import;
pub mod kernels;
pub mod lifecycle;
pub mod pause;
pub mod prune;
pub mod publish;
pub mod pull;
pub mod register;
pub mod start;
pub mod steps;
pub mod usage;
