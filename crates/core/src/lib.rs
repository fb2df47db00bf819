//! **The mind of Locum.** Everything that is decided is decided here, as plain values: events in, actions out, and
//! time is an argument. There is no socket, file, clock, thread or random source in this crate, and `no_std` makes
//! the compiler hold that line; the simulator, the tests and the daemon all run this same code.
//!
//! The tour:
//!
//! * [`config`] reads `ha.cf`, `authkeys` and `haresources` and checks them into a [`plan::Plan`];
//! * [`auth`] and [`wire`] turn bytes into authentic, typed messages and back;
//! * [`director`] is the front room: an [`event::Event`] goes in, [`action::Action`]s come out. It composes
//!   [`sequence`] (numbering, retransmission, acknowledgement), [`liveness`] (who is alive, on which link), [`r1`]
//!   (who holds which resources: Linux-HA heartbeat's two-node dialect) and [`group`] (ordered start and stop);
//! * [`native`] is the other dialect, of `locum.toml`: claims and leases;
//! * [`status`] is what a person may see of it.
#![no_std]

extern crate alloc;

pub mod action;
pub mod agenda;
pub mod auth;
pub mod breakage;
pub mod claims;
pub mod config;
pub mod director;
pub mod event;
pub mod group;
mod holding;
pub mod liveness;
pub mod native;
pub mod note;
pub mod plan;
pub mod r1;
mod refusals;
pub mod sequence;
pub mod status;
pub mod time;
pub mod wire;
