//! `locum lab`: measurements and experiments on a rack.

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

/// Exit code where no rack can be built, because of this machine or the rights of this process. Test harnesses take 77
/// for "skipped".
pub const NO_RACK: u8 = 77;

/// The directory, within the repository, into which `scripts/peers` unpacks the peers.
const PEERS: &str = "target/peers/root";

/// The subcommands of `locum lab`.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Measure the client's outage in each fault, with Locum and with its peers
    Bench(bench::LabBenchOptions),
    /// Measure processor time and memory of idle daemons
    Cost(bench::LabCostOptions),
    /// Run Locum and the real heartbeat in one cluster, with an audit after every step
    Mixed(mixed::LabMixedOptions),
    /// Run random faults and orders on a cluster, with an audit after every step
    Cts(mixed::LabCtsOptions),
    /// Replace two real heartbeats by Locum, node by node, while a client uses the service; then go back
    Replace(replace::LabReplaceOptions),
    /// Freeze the process that renews a gate, and check that the address falls silent in time
    Gate(gate::LabGateOptions),
    /// Run faults on a native cluster with a witness, and look for two owners
    Native(native::LabNativeOptions),
    /// Run a native cluster on Debian machines under a real systemd: moves, restarts, reloads, a power loss
    Machines(machines::LabMachinesOptions),
    /// Measure the cost of many groups, and the time until all of them run
    Scale(scale::LabScaleOptions),
    /// Run a command as root of a user namespace, so that it may build racks (for tests without root)
    Enter {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true)]
        words: Vec<String>,
    },
}

/// # Errors
/// All but one: if a rack cannot be built, this is [`NO_RACK`] and not an error.
pub fn run(command: LabCommand) -> anyhow::Result<ExitCode> {
    let result = match command {
        LabCommand::Bench(options) => bench::bench(options),
        LabCommand::Cost(options) => bench::cost(&options),
        LabCommand::Mixed(options) => mixed::mixed(options),
        LabCommand::Cts(options) => mixed::cts(&options),
        LabCommand::Replace(options) => replace::replace(&options),
        LabCommand::Gate(options) => gate::gate(&options),
        LabCommand::Native(options) => native::native(&options),
        LabCommand::Machines(options) => machines::machines(&options),
        LabCommand::Scale(options) => scale::scale(&options),
        LabCommand::Enter { words } => enter(&words),
    };
    without_rack(result)
}

/// If no rack can be built, prints what is missing and returns [`NO_RACK`].
///
/// # Errors
/// Every other error of `result`.
pub fn without_rack(result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    result.or_else(|error| match error.downcast_ref::<Fault>() {
        Some(missing @ Fault::Missing { .. }) => {
            errln!("locum: {missing}");
            Ok(ExitCode::from(NO_RACK))
        }
        // Already printed where it was found.
        Some(Fault::NoGate { .. }) => Ok(ExitCode::from(NO_RACK)),
        _ => Err(error),
    })
}

fn enter(words: &[String]) -> anyhow::Result<ExitCode> {
    locum_lab::enter()?;
    let (program, arguments) = words.split_first().context("no command is given")?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {program}"))
}

/// Where the peers are unpacked: the given directory, or the one that `scripts/peers` fills. `None`: use the installed
/// ones.
fn peers_root(given: Option<&Path>, program: &Path) -> anyhow::Result<Option<PathBuf>> {
    match given {
        // The nodes see it from another working directory.
        Some(root) => Ok(Some(root.canonicalize().with_context(|| root.display().to_string())?)),
        None => Ok(unpacked(program)),
    }
}

/// Heartbeat changes to a user of its own, which needs real root: in a user namespace this process has a single user.
fn allow_heartbeat() -> anyhow::Result<()> {
    if !(rustix::process::geteuid().is_root() && has_users()) {
        bail!("heartbeat can only be measured by root: run this command as root");
    }
    Ok(())
}

/// The error text for a peer that is not there.
fn absent(peer: &str, root: Option<&Path>) -> String {
    let place = root.map_or("on this host".into(), |root| format!("in {}", root.display()));
    format!("{peer} is not {place}: fetch the peers with `scripts/peers` (it does not install them)")
}

/// Whether this process has all users. Within `locum lab enter` there is a single one.
fn has_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) != Some("1")
}

/// The directory that `scripts/peers` fills, in the repository from which the program was built or in the working
/// directory.
fn unpacked(program: &Path) -> Option<PathBuf> {
    let above = program.ancestors().skip(1).take(3).map(Path::to_owned);
    let places = above.chain([PathBuf::from(".")]).map(|place| place.join(PEERS));
    places.filter_map(|place| place.canonicalize().ok()).find(|place| place.join(".complete").exists())
}
