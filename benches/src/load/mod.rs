//! The load generator: prepared requests, one thread, frames by hand where many calls are made and raw `h2` elsewhere.

pub mod calls;
pub mod connection;
pub mod drive;
pub mod fanout;
pub mod lease;
pub mod limits;
pub mod list;
pub mod pool;
pub mod report;
pub mod wire;
pub mod work;
