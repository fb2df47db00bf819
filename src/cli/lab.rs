//! `locum lab`: measure and try on a rack.

use std::{os::unix::process::CommandExt, process::ExitCode};

use anyhow::Context;
use clap::Subcommand;
use locum_lab::Fault;

pub mod bench;

/// This machine, or what this process may do on it, allows no rack: the code by which test harnesses know "skipped".
pub const NO_RACK: u8 = 77;

/// What the lab can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure what faults cost the client of a service, with Locum and with its peers
    Bench(bench::Bench),
    /// Measure what a daemon costs while nothing happens
    Cost(bench::Expense),
    /// Run a command as root of a user namespace, which may build racks (for tests by anybody but root)
    Enter {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true)]
        words: Vec<String>,
    },
}

/// # Errors
/// A rack that cannot be built ends in [`NO_RACK`]; everything else is an error.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    let result = match command {
        Command::Bench(options) => bench::bench(options),
        Command::Cost(options) => bench::cost(&options),
        Command::Enter { words } => enter(&words),
    };
    without_rack(result)
}

/// Says what is missing where no rack can be built, and turns it into the exit code of that.
///
/// # Errors
/// All others.
pub fn without_rack(result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    result.or_else(|error| match error.downcast_ref::<Fault>() {
        Some(missing @ Fault::Missing { .. }) => {
            eprintln!("locum: {missing}");
            Ok(ExitCode::from(NO_RACK))
        }
        _ => Err(error),
    })
}

fn enter(words: &[String]) -> anyhow::Result<ExitCode> {
    locum_lab::enter()?;
    let (program, arguments) = words.split_first().context("no command")?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {program}"))
}
