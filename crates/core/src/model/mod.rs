//! What everything else speaks of, as plain values: who and what, what happens, what is to be done, and time. It knows nothing
//! of any dialect, of bytes or of files, and is imported by all.
//!
//! * [`identity`], [`resource`]: nodes, links, groups, and what groups are made of;
//! * [`event`] and [`action`]: what the director is told, and what it wants done;
//! * [`order`]: what people ask for, and what they are answered;
//! * [`claim`]: an ownership as voters, disks and frames hold it; [`holding`]: a set of groups as heartbeat speaks of it;
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
