//! `locum lab machines`: two nodes and a witness on Debian machines under a real systemd.
//!
//! Exit code: 0 every group ran on exactly one node after every step and no operation failed, 1 otherwise.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use locum_lab::machines::{self, MachineTrial};

/// Locum's unit file, as packages install it.
const UNIT: (&str, &str) = ("locum.service", include_str!("../../../dist/locum.service"));

/// The options of `locum lab machines`.
#[derive(Debug, Args)]
pub struct LabMachinesOptions {
    /// Groups: every other one is a script, the rest are systemd units
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=500))]
    groups: u16,
    /// Moves of a group, one after the other
    #[arg(long, value_name = "N", default_value_t = 20)]
    moves: u16,
    /// Runs of `systemctl restart locum`, on the nodes in turn
    #[arg(long, value_name = "N", default_value_t = 10)]
    restarts: u16,
    /// Runs of `systemctl reload locum` and `systemctl stop locum` at the same moment
    #[arg(long, value_name = "N", default_value_t = 8)]
    reload_stops: u16,
    /// Root file system of the machines [default: the one made by `scripts/machines`]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// Boots the machines, runs all steps, and prints the results.
///
/// # Errors
/// If there is no root, no systemd-nspawn or no rack, or a machine does not boot.
pub fn machines(options: &LabMachinesOptions) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe()?;
    locum_lab::enter()?;
    let trial = MachineTrial {
        root: machines::find_root(options.root.as_deref(), &program),
        program,
        units: vec![(UNIT.0.to_owned(), UNIT.1.to_owned())],
        groups: options.groups.into(),
        moves: options.moves.into(),
        restarts: options.restarts.into(),
        reload_stops: options.reload_stops.into(),
    };
    let seen = machines::play(&trial, &mut |line| errln!("{line}"))?;
    if !seen.wrong.is_empty() {
        errln!("{}", seen.journals);
    }
    for wrong in &seen.wrong {
        outln!("WRONG: {wrong}");
    }
    outln!("{} steps, {} wrong", seen.steps.len(), seen.wrong.len());
    Ok(if seen.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
