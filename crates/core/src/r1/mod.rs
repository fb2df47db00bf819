//! Linux-HA heartbeat's dialect, "R1": one or two nodes, configured by `ha.cf`, `haresources` and `authkeys`. Facts:
//! `docs/heartbeat.md`, `docs/wire.md`.
//!
//! * [`plan`] is the checked content of the three files ([`crate::config`] makes it);
//! * [`message`] is a typed frame; [`sequence`] numbers messages, asks for missing ones and recognizes old ones;
//! * [`ownership`] decides who holds which of the two sets of groups, [`sets`] starts and stops them;
//! * [`director`] composes them; a driver feeds it;
//! * [`status`] is what an administrator may see of it.
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
