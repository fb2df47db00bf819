//! The one integration test binary: what the parts promise together, from outside.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fmt::Display,
    io::{self, Write as _},
};

mod agents;
mod bench;
mod check;
mod check_native;
mod cli;
mod commands;
mod directives;
mod hands;
mod heart;
mod hostile;
mod lab;
mod mixed;
mod native;
mod native_cli;
mod orders;
mod tidy;

/// Says that something was not tried here, and why. Past the harness, which keeps what a passed test prints to itself;
/// `scripts/test` counts these lines.
fn skipped(why: impl Display) {
    let _ = writeln!(io::stderr(), "skipped: {}", why.to_string().trim_end().replace('\n', " / "));
}
