//! Watches: changes go in once, each watcher's ordered responses come out, and a slow client costs nobody else.
//!
//! A watcher is either *synced* (it has been sent everything up to the hub's cursor and sits in the hub's index) or
//! *lagging* (it keeps only the next revision that it needs and catches up from the store's history in slices). There
//! is no private buffer: what a slow client has not been sent is read again from history when it has room.
//!
//! In reading order:
mod deliver;
mod encode;
mod filter;
mod hub;
mod interval;
mod progress;
mod slice;

#[cfg(test)]
mod script;
#[cfg(test)]
mod simulate;
#[cfg(test)]
mod testing;

pub use encode::{Header, WatchMessage};
pub use hub::{Config, Counters, Input, Out, StreamId, WatchHub};
