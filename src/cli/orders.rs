//! `locum move`, `online`, `maintenance`, `freeze`: orders to a native cluster, beside `standby` and `stop`.
//!
//! Exit code: 0 done (with `--no-wait`: begun), 1 refused, 2 not done in time, 3 no daemon runs here, 4 no permission.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{CommonOptions, failed, standby::report_outcome};
use crate::observe::socket::{self, ClientFault, ControlClient, MoveGroupOrder, OrderOutcome};

/// The options of `locum move`.
#[derive(Clone, Debug, Args)]
pub struct MoveOptions {
    /// Name of the group
    pub group: String,
    /// Target node [default: the best candidate]
    pub node: Option<String>,
    /// Do not wait until the move is done
    #[arg(long)]
    pub no_wait: bool,
}

/// The argument of `locum maintenance`.
#[derive(Clone, Copy, Debug, Args)]
pub struct MaintenanceOptions {
    /// Begin (on) or end (off) maintenance
    #[arg(value_enum)]
    pub turn: OnOff,
}

/// The values `on` and `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Begin maintenance: watch, and change nothing
    On,
    /// End maintenance: manage the groups again
    Off,
}

/// The options of `locum freeze`.
#[derive(Clone, Debug, Args)]
pub struct FreezeOptions {
    /// Name of the group
    pub group: String,
    /// End the freeze of the group
    #[arg(long)]
    pub off: bool,
}

/// Moves a group to another node.
///
/// # Errors
/// None: a failure is printed and is in the exit code. The same holds for the other orders.
pub fn move_group(common: &CommonOptions, options: MoveOptions) -> anyhow::Result<ExitCode> {
    let MoveOptions { group, node, no_wait } = options;
    ask(common, |client| client.move_group(&MoveGroupOrder { group, to: node, wait: !no_wait }))
}

/// Ends this node's standby.
///
/// # Errors
/// None: see [`move_group`].
pub fn online(common: &CommonOptions) -> anyhow::Result<ExitCode> {
    ask(common, ControlClient::online)
}

/// Begins or ends maintenance of the whole cluster.
///
/// # Errors
/// None: see [`move_group`].
pub fn maintenance(common: &CommonOptions, options: MaintenanceOptions) -> anyhow::Result<ExitCode> {
    ask(common, |client| client.maintenance(socket::MaintenanceOrder { on: options.turn == OnOff::On }))
}

/// Freezes a group, or ends that.
///
/// # Errors
/// None: see [`move_group`].
pub fn freeze(common: &CommonOptions, options: FreezeOptions) -> anyhow::Result<ExitCode> {
    ask(common, |client| client.freeze(&socket::FreezeOrder { group: options.group, on: !options.off }))
}

fn ask(
    common: &CommonOptions,
    question: impl FnOnce(&ControlClient) -> Result<OrderOutcome, ClientFault>,
) -> anyhow::Result<ExitCode> {
    Ok(match question(&ControlClient::new(&common.run_dir())) {
        Ok(outcome) => report_outcome(&outcome),
        Err(fault) => failed(&fault),
    })
}
