//! The checks of the fuzz targets, one module per target. Each has a `check(input)` that must not panic for any bytes.
//! Plain `cargo test` replays the corpora through the same functions (`crates/core/tests/corpora.rs`).
pub mod authkeys;
pub mod frame;
pub mod ha_cf;
pub mod haresources;
pub mod ledger;
pub mod locum_toml;
pub mod native_frame;
pub mod serial_cutter;
