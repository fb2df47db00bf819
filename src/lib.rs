//! **Locum's hands and voice.** The mind is [`locum_core`]; this package lets it act and lets people talk to it.
//!
//! * [`heart`] is the one real-time thread: it owns the director, its links and its timers;
//! * [`control`] is everything that may block: agents, files, what an earlier life left behind;
//! * [`voice`] is what people see of a running daemon: the log, the control socket, the service manager's lines;
//! * [`files`] is the configuration directory, [`duties`] what it means to the hands;
//! * [`rights`] is what the kernel does not let this process do;
//! * [`cli`] is one file per command.

// What panics where nobody reads any more: `print` has what does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod print;

pub mod cli;
pub mod control;
pub mod duties;
pub mod files;
pub mod heart;
mod host;
pub mod rights;
pub mod voice;
