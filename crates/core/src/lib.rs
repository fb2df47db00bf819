//! **The mind of Locum.** Everything that is decided is decided here, as plain values: events in, actions out, and
//! time is an argument. There is no socket, file, clock, thread or random source in this crate, and `no_std` makes
//! the compiler hold that line; the simulator, the tests and the daemon all run this same code.
//!
//! The rooms, each of which imports only what stands above it:
//!
//! * [`model`]: who and what, events, actions, time; plain values that all others speak of;
//! * [`framing`]: bytes, authentication, refusals;
//! * [`liveness`]: who is alive, on which link, and which interfaces carry;
//! * [`claims`]: who may run a group, in the native dialect;
//! * [`group`]: ordered start and stop;
//! * [`r1`] and [`native`]: the two dialects, which do not know each other. In each, `director` is the front room: an
//!   [`event::Event`](model::event::Event) goes in, [`action::Action`](model::action::Action)s come out;
//! * [`config`]: files to checked plans; it knows the plans of the dialects and nothing that moves.
#![no_std]

extern crate alloc;

pub mod claims;
pub mod config;
pub mod framing;
pub mod group;
pub mod liveness;
pub mod model;
pub mod native;
pub mod r1;
