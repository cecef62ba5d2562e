//! Kubernetes' objects, as far as they work here, under Kubernetes' names.
//!
//! In reading order: `object` (the macro that makes them), the values within them, the objects, and `fields` (what people
//! are told about fields that are wrong, unknown or without effect).

pub mod object;
pub mod quantity;
pub mod percent;
pub mod time;
pub mod selector;
pub mod meta;
pub mod pod;
pub mod node;
pub mod workload;
pub mod event;
pub mod resource;
pub mod fields;
