//! `locum standby` and `locum takeover`: an administrator moves groups between the nodes.
//!
//! Exit code: 0 done (with `--no-wait`: begun), 1 refused, 2 not done in time or not all of it, 3 no daemon runs here,
//! 4 no permission.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{Common, failed},
    voice::socket::{Client, Move, Outcome, Set, Word},
};

/// The options of `locum standby` and `locum takeover`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Options {
    /// Which groups: all, those that prefer the other node (foreign), those that prefer this one (local), or those
    /// that return to the node they prefer (failback)
    #[arg(value_enum, default_value = "all")]
    pub set: Set,
    /// Return as soon as it is begun
    #[arg(long)]
    pub no_wait: bool,
}

/// Gives groups to the other nodes.
///
/// # Errors
/// None: a failure is printed and is in the exit code.
pub fn standby(common: &Common, options: Options) -> anyhow::Result<ExitCode> {
    order(common, "/standby", options)
}

/// Takes groups from the other node.
///
/// # Errors
/// None: a failure is printed and is in the exit code.
pub fn takeover(common: &Common, options: Options) -> anyhow::Result<ExitCode> {
    order(common, "/takeover", options)
}

fn order(common: &Common, path: &str, options: Options) -> anyhow::Result<ExitCode> {
    let order = Move { set: options.set, wait: !options.no_wait };
    Ok(match Client::new(&common.run_dir()).order(path, order) {
        Ok(outcome) => told(&outcome),
        Err(fault) => failed(&fault),
    })
}

/// Prints the outcome of an order and returns its exit code.
pub(super) fn told(outcome: &Outcome) -> ExitCode {
    let Outcome { outcome, text } = outcome;
    match outcome {
        Word::Done | Word::Begun => {
            outln!("{text}");
            ExitCode::SUCCESS
        }
        Word::TimedOut => {
            errln!("locum: not done: {text}");
            ExitCode::from(2)
        }
        Word::Refused | Word::Forbidden | Word::Unavailable => {
            errln!("locum: refused: {text}");
            ExitCode::FAILURE
        }
    }
}
