//! Real processes under faults: starts a cluster, lets clients work, does harm, heals, and has all of it judged.
//!
//! In reading order: what runs ([`cluster`], [`proxy`], [`shim`]), what clients do ([`workload`] over
//! [`client`] and [`watcher`], written down by [`recorder`]), the harm ([`nemesis`]), one run of all of it ([`cell`]),
//! the judgement ([`resolve`], [`judge`]), many runs ([`matrix`]), and what a person reads of them ([`report`]). The
//! same cluster under the control plane's processes is [`control`].

pub mod limits;
pub mod cluster;
pub mod proxy;
pub mod shim;
mod pulse;
pub mod recorder;
pub mod client;
pub mod watcher;
pub mod workload;
pub mod nemesis;
pub mod resolve;
pub mod judge;
pub mod cell;
pub mod matrix;
pub mod report;
pub mod control;
