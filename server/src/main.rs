//! The `mechi` program: a member, or several on this machine, with an allocator that gives memory back.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`: milliseconds that freed pages are kept before the system gets them back.
const PURGE_DELAY: std::ffi::c_int = 15;

#[allow(unsafe_code)]
unsafe extern "C" {
    fn mi_option_set(option: std::ffi::c_int, value: std::ffi::c_long);
}

/// Gives freed pages back at once. By default a second's worth of them is kept, and a hundred lists at full speed free
/// more in a second than `--memory-limit` may be.
fn keep_memory_small() {
    // SAFETY: the function takes two numbers, stores the second under the first, which is in range, and is called
    // before there is a second thread.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set(PURGE_DELAY, 0);
    }
}

fn main() -> ExitCode {
    keep_memory_small();
    mechi_server::program::run()
}
