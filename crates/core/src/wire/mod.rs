//! The wire of Linux-HA heartbeat 3.0.6, in three layers: bytes, a [`frame`] view that only checks bounds and the
//! stamp, and a typed [`message`] that keeps no nonsense. A frame is authenticated before it is parsed, and the types
//! hold to that: a [`message::Message`] is made from a [`frame::AuthenticFrame`] alone. Facts: `docs/wire.md`.
//!
//! ```text
//! bytes ── frame::authenticate ──► AuthenticFrame ── Message::parse ──► Message ── Message::emit ──► bytes
//! ```
pub mod classic;
pub mod frame;
pub mod message;
pub mod netstring;

pub(crate) mod body;
