//! The leader's clock over leases; that a lease exists, and what is attached to it, is [`crate::apply::lease`]'s.

pub(crate) mod judge;
pub mod lessor;
