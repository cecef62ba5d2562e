//! The load generator: prepared requests, one thread, frames by hand for unary calls and raw `h2` for everything else.

pub mod connection;
pub mod drive;
pub mod limits;
pub mod unary;
pub mod wire;
pub mod work;
