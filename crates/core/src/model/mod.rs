//! Plain values that everything else uses: nodes, links and groups, events, actions, orders, and time. This module knows
//! nothing of dialects, bytes or files. All others import it.
//!
//! * [`identity`], [`resource`]: nodes, links, groups, and the resources of groups;
//! * [`event`] and [`action`]: what the driver tells the director, and what the director asks the driver to do;
//! * [`order`]: what people ask for, and the answers they get;
//! * [`claim`]: an ownership as voters, disks and frames hold it; [`holding`]: a set of groups as heartbeat names it;
//! * [`keys`], [`logging`], [`note`], [`status`]: keys, the log, and what both dialects show alike;
//! * [`time`] and [`timer_queue`].

pub mod action;
pub mod breakage;
pub mod claim;
pub mod event;
pub mod holding;
pub mod identity;
pub mod keys;
pub mod logging;
pub mod note;
pub mod order;
pub mod resource;
pub mod settings;
pub mod status;
pub mod time;
pub mod timer_queue;
