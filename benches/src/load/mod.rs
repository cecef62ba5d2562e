//! The load generator: raw `h2`, prepared requests, one thread.

pub mod connection;
pub mod drive;
pub mod limits;
pub mod wire;
pub mod work;
