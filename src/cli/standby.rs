//! `locum standby` and `locum takeover`: an administrator moves groups between the nodes.
//!
//! Exit code: 0 done (with `--no-wait`: begun), 1 refused, 2 not done in time or not all of it, 3 no daemon runs here,
//! 4 no permission.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{CommonOptions, failed},
    observe::socket::{ControlClient, GroupSet, MoveSetOrder, OrderOutcome, OutcomeKind},
};

/// The options of `locum standby` and `locum takeover`.
#[derive(Clone, Copy, Debug, Args)]
pub struct StandbyOptions {
    /// Which groups to move (ha.cf only; with locum.toml all of them)
    #[arg(value_enum, default_value = "all")]
    pub set: GroupSet,
    /// Do not wait until the groups have moved
    #[arg(long)]
    pub no_wait: bool,
}

/// Gives groups to the other nodes.
///
/// # Errors
/// None: a failure is printed and is in the exit code.
pub fn standby(common: &CommonOptions, options: StandbyOptions) -> anyhow::Result<ExitCode> {
    order(common, "/standby", options)
}

/// Takes groups from the other node.
///
/// # Errors
/// None: a failure is printed and is in the exit code.
pub fn takeover(common: &CommonOptions, options: StandbyOptions) -> anyhow::Result<ExitCode> {
    order(common, "/takeover", options)
}

fn order(common: &CommonOptions, path: &str, options: StandbyOptions) -> anyhow::Result<ExitCode> {
    let order = MoveSetOrder { set: options.set, wait: !options.no_wait };
    Ok(match ControlClient::new(&common.run_dir()).order(path, order) {
        Ok(outcome) => report_outcome(&outcome),
        Err(fault) => failed(&fault),
    })
}

/// Prints the outcome of an order and returns its exit code.
pub(super) fn report_outcome(outcome: &OrderOutcome) -> ExitCode {
    let OrderOutcome { outcome, text } = outcome;
    match outcome {
        OutcomeKind::Done | OutcomeKind::Begun => {
            outln!("{text}");
            ExitCode::SUCCESS
        }
        OutcomeKind::TimedOut => {
            errln!("locum: not done in time: {text}");
            ExitCode::from(2)
        }
        OutcomeKind::Refused | OutcomeKind::Forbidden | OutcomeKind::Unavailable => {
            errln!("locum: refused: {text}");
            ExitCode::FAILURE
        }
    }
}
