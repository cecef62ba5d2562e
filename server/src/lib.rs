//! Mechi's shell: it listens, writes, waits and keeps time, so that `mechi-replica` only computes.
//!
//! In reading order:
pub mod config;
pub mod identity;
pub mod node;
pub mod grpc;
pub mod mailbox;
pub mod propose;
pub mod driver;
pub mod wal_thread;
pub mod disk;
pub mod apply;
pub mod view;
pub mod pages;
pub mod quota;
pub mod compactor;
pub mod watch;
pub mod store;
pub mod limits;
