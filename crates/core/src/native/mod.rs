//! The native dialect: two to 32 nodes, claims and leases, configured by one file, `locum.toml`.
//!
//! * [`plan`] is that file, checked, as plain values ([`crate::config::locum_toml`] makes it);
//! * [`timing`] derives every time from the one number that the file gives;
//! * [`meaning`] writes a plan as short lines, by which nodes compare what their files say;
//! * [`wire`] writes and reads frames.

pub mod meaning;
pub mod node;
pub mod ownership;
pub mod placement;
pub mod plan;
mod specs;
pub mod timing;
pub mod wire;
pub mod word;
