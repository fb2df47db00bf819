//! The one integration test binary: what the parts promise together, from outside.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agents;
mod check;
mod cli;
mod heart;
mod lab;
mod tidy;
