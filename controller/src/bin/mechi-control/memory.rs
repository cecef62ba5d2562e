//! An allocator that gives memory back at once: a scheduler that has bound many pods keeps a small part of what it had in
//! hand when they waited.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`: milliseconds that freed pages are kept before the system gets them back. What is kept
/// is only looked at when more is freed, and at rest nothing is.
const PURGE_DELAY: c_int = 15;

#[allow(unsafe_code)]
unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Gives freed pages back at once.
pub(crate) fn keep_small() {
    // SAFETY: the function takes two numbers, stores the second under the first, which is in range, and is called
    // before there is a second thread.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set(PURGE_DELAY, 0);
    }
}
