//! The snapshots' reader: `mechi_tests::fuzz::snapshot` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mechi_tests::fuzz::snapshot(input));
