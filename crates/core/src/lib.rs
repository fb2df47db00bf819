//! **The core of Locum.** All decisions are made here, as plain values: events go in, actions come out, and time is an
//! argument. This crate has no socket, file, clock, thread or random source, and `no_std` makes the compiler enforce
//! that. The simulator, the tests and the daemon all run this same code.
//!
//! The modules, each of which imports only those that stand above it:
//!
//! * [`model`]: nodes, links, groups, events, actions, time: the plain values that all other modules use;
//! * [`framing`]: bytes, authentication, refusals;
//! * [`liveness`]: which nodes are alive, on which link, and which interfaces of service addresses carry frames;
//! * [`claims`]: which node may run a group, in the native dialect;
//! * [`group`]: ordered start and stop;
//! * [`r1`] and [`native`]: the two dialects, which do not know each other. In each, `director` is the entry point: an
//!   [`event::Event`](model::event::Event) goes in, [`action::Action`](model::action::Action)s come out;
//! * [`config`]: turns files into checked plans. Of the dialects it imports only the plans.
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
