//! **The Locum program.** The core, [`locum_core`], decides; this package carries its decisions out and lets people
//! talk to it.
//!
//! * [`heart`] is the one real-time thread: it owns the director, its links and its timers;
//! * [`control`] is everything that may block: agents, files, leftovers of an earlier daemon;
//! * [`observe`] observes a running daemon: the log, the control socket, the service manager's lines;
//! * [`files`] is the configuration directory, [`host_config`] what heart and control plane need of it;
//! * [`rights`] finds the rights that the kernel does not give this process;
//! * [`cli`] is one file per command.

// These macros panic if nobody reads the output any more. Those of `print` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod print;

pub mod cli;
pub mod control;
pub mod files;
pub mod heart;
mod host;
pub mod host_config;
pub mod observe;
pub mod rights;
