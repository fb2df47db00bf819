//! `locum move`, `online`, `maintenance`, `freeze`: orders to a native cluster, beside `standby` and `stop`.
//!
//! Exit code: 0 done (with `--no-wait`: begun), 1 refused, 2 not done in time, 3 no daemon runs here, 4 no permission.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{Common, failed, standby::told};
use crate::voice::socket::{self, Client, Fault, MoveGroup, Outcome};

/// The options of `locum move`.
#[derive(Clone, Debug, Args)]
pub struct Move {
    /// The group
    pub group: String,
    /// The node that is to run it; without one, the best
    pub node: Option<String>,
    /// Return as soon as it is begun
    #[arg(long)]
    pub no_wait: bool,
}

/// The argument of `locum maintenance`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Maintenance {
    /// Whether it begins or ends
    #[arg(value_enum)]
    pub turn: Turn,
}

/// The values `on` and `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Turn {
    /// It begins.
    On,
    /// It ends.
    Off,
}

/// The options of `locum freeze`.
#[derive(Clone, Debug, Args)]
pub struct Freeze {
    /// The group
    pub group: String,
    /// Let it go again
    #[arg(long)]
    pub off: bool,
}

/// Moves a group to another node.
///
/// # Errors
/// None: a failure is printed and is in the exit code. The same holds for the other orders.
pub fn move_group(common: &Common, options: Move) -> anyhow::Result<ExitCode> {
    let Move { group, node, no_wait } = options;
    ask(common, |client| client.move_group(&MoveGroup { group, to: node, wait: !no_wait }))
}

/// Ends this node's standby.
///
/// # Errors
/// None: see [`move_group`].
pub fn online(common: &Common) -> anyhow::Result<ExitCode> {
    ask(common, Client::online)
}

/// Begins or ends maintenance of the whole cluster.
///
/// # Errors
/// None: see [`move_group`].
pub fn maintenance(common: &Common, options: Maintenance) -> anyhow::Result<ExitCode> {
    ask(common, |client| client.maintenance(socket::Maintenance { on: options.turn == Turn::On }))
}

/// Freezes a group, or ends that.
///
/// # Errors
/// None: see [`move_group`].
pub fn freeze(common: &Common, options: Freeze) -> anyhow::Result<ExitCode> {
    ask(common, |client| client.freeze(&socket::Freeze { group: options.group, on: !options.off }))
}

fn ask(
    common: &Common,
    question: impl FnOnce(&Client) -> Result<Outcome, Fault>,
) -> anyhow::Result<ExitCode> {
    Ok(match question(&Client::new(&common.run_dir())) {
        Ok(outcome) => told(&outcome),
        Err(fault) => failed(&fault),
    })
}
