//! Linux-HA heartbeat's dialect, "R1": one or two nodes, configured by `ha.cf`, `haresources` and `authkeys`. Facts:
//! `docs/heartbeat.md`, `docs/wire.md`.
//!
//! * [`plan`] is what the three files mean ([`crate::config`] makes it);
//! * [`message`] is what nodes say; [`sequence`] numbers it, asks for what is missing and knows what is old;
//! * [`ownership`] decides who holds which of the two sets of groups, [`sets`] starts and stops them;
//! * [`director`] composes them: it is what a driver drives;
//! * [`status`] is what a person may see of it.
//!
//! ```text
//! bytes ──► AuthenticFrame ── Message::parse ──► Message ── Message::emit ──► bytes
//! ```

mod body;
pub mod director;
pub mod message;
pub mod ownership;
pub mod plan;
pub mod sequence;
pub mod sets;
pub mod status;
