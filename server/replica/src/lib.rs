//! The deterministic heart of Mechi: it computes, the shell acts.
//!
//! Nothing here has a clock, a thread, a lock, a random number or a socket. A disk is touched only through
//! [`disk::Disk`], the working store only through [`store::Store`]. What happens comes in as [`member::Input`], what
//! shall be done goes out as [`member::Effect`]; the simulator and production run the very same code.
//!
//! In reading order:
pub mod types;
pub mod limits;
pub mod record;
pub mod outcome;
pub mod input;
pub mod effect;
pub mod command;
pub mod conf;
pub mod disk;
pub mod wal;
pub mod store;
mod shared;
pub mod snapshot;
pub mod digest;
pub mod mvcc;
pub mod lease;
pub mod auth;
pub mod apply;
pub mod watch;
pub mod propose;
pub mod raft;
pub mod replica;
mod agree;
pub mod member;
pub mod recovery;
#[cfg(feature = "mutants")]
pub mod mutants;
