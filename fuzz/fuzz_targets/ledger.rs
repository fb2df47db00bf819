//! Fuzz target: see `locum_fuzz` for what is fed and what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| locum_fuzz::ledger::check(input));
