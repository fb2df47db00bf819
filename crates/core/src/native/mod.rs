//! The native dialect: two to 32 nodes, claims and leases, configured by one file, `locum.toml`.
//!
//! * [`plan`]: that file, checked, as plain values ([`crate::config::locum_toml`] makes it);
//! * [`timing`]: every time, derived from the one number that the file gives;
//! * [`canonical`]: the canonical settings of a plan, as short lines that nodes compare;
//! * [`node`]: composes claims, ownership and groups, and decides; [`message`] has the messages that it sends and takes;
//! * [`ownership`]: which groups this node should claim, keep or hand over; [`placement`] ranks the nodes for it;
//! * [`wire`]: writes messages as frames and reads frames;
//! * [`gossip`]: the gossip state: pins and moves by failure, which happen at one node and which every node must know;
//! * [`director`]: joins node and wire, and looks after links and keys; a driver feeds it;
//! * [`ledger`]: writes and reads what a member must remember over a restart;
//! * [`status`]: the values that `locum status` shows.

pub mod canonical;
pub mod director;
pub mod gossip;
pub mod ledger;
pub mod message;
pub mod node;
pub mod ownership;
pub mod placement;
pub mod plan;
mod specs;
pub mod status;
pub mod timing;
pub mod wire;
