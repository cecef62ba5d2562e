//! A client's call: `mechi_tests::fuzz::request` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mechi_tests::fuzz::request(input));
