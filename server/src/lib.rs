//! Mechi's shell: it listens, writes, waits and keeps time, so that `mechi-replica` only computes.
//!
//! In reading order:
pub mod config;
pub mod telemetry;
pub mod identity;
pub mod node;
pub mod listen;
pub mod http;
pub mod grpc;
pub mod metrics;
pub mod mailbox;
pub mod propose;
pub mod driver;
pub mod wal_thread;
pub mod disk;
pub mod recovery;
pub mod apply;
pub mod view;
pub mod pages;
pub mod quota;
pub mod compactor;
pub mod watch;
pub mod store;
pub mod limits;
