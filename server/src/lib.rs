//! Mechi's shell: it listens, writes, waits and keeps time, so that `mechi-replica` only computes.
//!
//! In reading order:
pub mod disk;
pub mod node;
pub mod mailbox;
pub mod propose;
pub mod wal_thread;
pub mod driver;
