//! `locum lab`: measure and try on a rack.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Subcommand;
use locum_lab::Fault;

pub mod bench;
pub mod gate;
pub mod machines;
pub mod mixed;
pub mod native;
pub mod replace;
pub mod scale;

/// This machine, or what this process may do on it, allows no rack: the code by which test harnesses know "skipped".
pub const NO_RACK: u8 = 77;

/// Where `scripts/peers` puts the peers, in the repository.
const PEERS: &str = "target/peers/root";

/// What the lab can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure what faults cost the client of a service, with Locum and with its peers
    Bench(bench::Bench),
    /// Measure what a daemon costs while nothing happens
    Cost(bench::Expense),
    /// Put Locum and the real heartbeat into one cluster, and audit it after every step
    Mixed(mixed::Mixed),
    /// Do what chance chooses to a cluster, and audit it after every step
    Cts(mixed::Cts),
    /// Replace two real heartbeats by Locum, node by node, while a client asks the service; and go back
    Replace(replace::Replace),
    /// Freeze the process that renews a gate, and look whether the address falls silent in time
    Gate(gate::Gate),
    /// Do what ends ownership to a native cluster with a witness, and look for two owners
    Native(native::Native),
    /// Run a native cluster on Debian machines under a real systemd: moves, restarts, reloads, a power loss
    Machines(machines::Machines),
    /// Measure what many groups cost, and how soon all of them run
    Scale(scale::Scale),
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
        Command::Mixed(options) => mixed::mixed(options),
        Command::Cts(options) => mixed::cts(&options),
        Command::Replace(options) => replace::replace(&options),
        Command::Gate(options) => gate::gate(&options),
        Command::Native(options) => native::native(&options),
        Command::Machines(options) => machines::machines(&options),
        Command::Scale(options) => scale::scale(&options),
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
            errln!("locum: {missing}");
            Ok(ExitCode::from(NO_RACK))
        }
        // Said where it was found.
        Some(Fault::NoGate { .. }) => Ok(ExitCode::from(NO_RACK)),
        _ => Err(error),
    })
}

fn enter(words: &[String]) -> anyhow::Result<ExitCode> {
    locum_lab::enter()?;
    let (program, arguments) = words.split_first().context("no command")?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {program}"))
}

/// Where the peers are unpacked: where a person says, or where `scripts/peers` puts them; `None`: as they are installed.
fn peers_root(given: Option<&Path>, program: &Path) -> anyhow::Result<Option<PathBuf>> {
    match given {
        // The nodes see it from another directory.
        Some(root) => Ok(Some(root.canonicalize().with_context(|| root.display().to_string())?)),
        None => Ok(unpacked(program)),
    }
}

/// It changes to a user of its own, and this process may have but one.
fn allow_heartbeat() -> anyhow::Result<()> {
    if !(rustix::process::geteuid().is_root() && has_users()) {
        bail!("heartbeat can only be measured by root");
    }
    Ok(())
}

/// What is said of a peer that is not there.
fn absent(peer: &str, root: Option<&Path>) -> String {
    let place = root.map_or("on this host".into(), |root| format!("in {}", root.display()));
    format!("there is no {peer} {place}; `scripts/peers` fetches the peers without installing them")
}

/// Not so in a user namespace of `locum lab enter`.
fn has_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) != Some("1")
}

/// Where `scripts/peers` puts them, in the repository of which the program was built, or in which it was called.
fn unpacked(program: &Path) -> Option<PathBuf> {
    let above = program.ancestors().skip(1).take(3).map(Path::to_owned);
    let places = above.chain([PathBuf::from(".")]).map(|place| place.join(PEERS));
    places.filter_map(|place| place.canonicalize().ok()).find(|place| place.join(".complete").exists())
}
