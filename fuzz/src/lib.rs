//! What the fuzz targets check, one module a target, each with `check(input)`: it must not panic, whatever the bytes.
//! Plain `cargo test` replays the corpora through the same functions (`crates/core/tests/corpora.rs`).
pub mod authkeys;
pub mod frame;
pub mod ha_cf;
pub mod haresources;
pub mod ledger;
pub mod locum_toml;
pub mod native_frame;
pub mod serial_cutter;
