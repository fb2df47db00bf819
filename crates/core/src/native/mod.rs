//! The native dialect: two to 32 nodes, claims and leases, configured by one file, `locum.toml`.
//!
//! * [`plan`] is that file, checked, as plain values ([`crate::config::locum_toml`] makes it);
//! * [`timing`] derives every time from the one number that the file gives;
//! * [`meaning`] writes a plan as short lines, by which nodes compare what their files say;
//! * [`node`] is the mind, which speaks in [`word`]s; [`wire`] writes and reads them as frames;
//! * [`board`] is what every node must know although it happened at one: pins, moves by failure;
//! * [`director`] joins the two, and looks after links and keys: it is what a driver drives;
//! * [`ledger`] writes and reads what a member must remember;
//! * [`status`] is what a person may see of it.

pub mod board;
pub mod director;
pub mod ledger;
pub mod meaning;
pub mod node;
pub mod ownership;
pub mod placement;
pub mod plan;
mod specs;
pub mod status;
pub mod timing;
pub mod wire;
pub mod word;
