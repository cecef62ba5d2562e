//! Mechi's shell: it listens, writes, waits and keeps time, so that `mechi-replica` only computes.
//!
//! In reading order:
pub mod config;
pub mod telemetry;
pub mod identity;
pub mod node;
pub mod front;
pub mod listen;
pub mod http;
pub mod grpc;
pub mod metrics;
pub mod mailbox;
pub mod deliver;
pub mod propose;
pub mod driver;
pub mod peer;
pub mod wal_thread;
pub mod wal_log;
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
pub mod space;
pub mod keeping;
pub mod gauges;
pub mod founding;
pub mod member;
pub mod seat;
pub mod evidence;
pub mod run;
pub mod local;
