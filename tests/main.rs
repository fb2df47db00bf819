//! The single integration test binary: the promises of all parts together, tested from outside.
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
mod words;

/// Reports that something was not tried here, and why. Written past the harness, which hides the output of passed
/// tests; `scripts/test` counts these lines.
fn skipped(why: impl Display) {
    let _ = writeln!(io::stderr(), "skipped: {}", why.to_string().trim_end().replace('\n', " / "));
}
