//! The lessor.
