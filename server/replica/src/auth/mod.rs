//! Who may do what: every request is lowered to its effects, and only they are judged.

pub mod effects;
