//! Fuzz target: see `locum_fuzz` for its input and its check.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| locum_fuzz::serial_cutter::check(input));
