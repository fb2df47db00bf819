//! Frames as bytes: what holds them together, how they are signed, and which are refused. A frame is authenticated before
//! it is parsed. Facts: `docs/wire.md`, sections 1 and 2.
//!
//! ```text
//! bytes ── frame::authenticate ──► AuthenticFrame ── fields ──► a message of either dialect
//! ```

pub mod auth;
pub mod classic;
pub mod frame;
pub mod netstring;
pub(crate) mod reception;
pub(crate) mod refusals;
pub(crate) mod values;
