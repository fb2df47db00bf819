#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| locum_fuzz::authkeys::check(input));
