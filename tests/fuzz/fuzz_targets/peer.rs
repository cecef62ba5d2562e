//! A member told anything by the others: `mechi_tests::fuzz::peer` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mechi_tests::fuzz::peer(input));
