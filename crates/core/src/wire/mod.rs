//! The wire of Linux-HA heartbeat 3.0.6, in three layers: bytes, a [`frame::Frame`] view that only checks bounds,
//! and a typed [`message::Message`] that keeps no nonsense. Facts: `docs/wire.md`.
pub mod message;
