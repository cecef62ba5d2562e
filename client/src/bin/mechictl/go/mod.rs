//! The forms that etcdctl's outputs inherit from Go's standard library, so that each byte is the same.

pub(crate) mod duration;
pub(crate) mod json;
pub(crate) mod number;
pub(crate) mod quote;
pub(crate) mod scan;
pub(crate) mod tabwriter;
