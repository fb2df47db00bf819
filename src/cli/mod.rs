//! The command line: one file per command, and the parts that they share.

pub mod by_name;
pub mod check;
pub mod demo;
pub mod demo_httpd;
pub mod doctor;
pub mod explain;
pub mod gate;
mod help;
pub mod import;
pub mod init;
pub mod keygen;
pub mod lab;
pub mod orders;
pub mod resources;
pub mod run;
pub mod standby;
pub mod status;
pub mod stop;
pub mod witness;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::{control::fifo, files, observe::socket::ClientFault};

/// The whole command line of `locum`.
#[derive(Debug, Parser)]
#[command(name = "locum", version, about, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// The options that every command understands.
    #[command(flatten)]
    pub common: CommonOptions,
    /// The command and its own options.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. Each has its own file with its options and a `run` that returns the exit code. If `run` returns an
/// error, it is printed and the exit code is 1.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a live two-node failover demo on this machine, without installation or configuration
    Demo(demo::DemoOptions),
    /// Check the configuration: explain each line and list every error
    Check(check::CheckCommandOptions),
    /// Explain derived values, such as all times that follow from the pace
    #[command(subcommand)]
    Explain(explain::ExplainCommand),
    /// Create locum.toml by answering a few questions
    Init(init::InitOptions),
    /// Convert ha.cf and haresources to locum.toml
    Import(import::ImportOptions),
    /// Create the key file of a native cluster, or roll its key over
    Keygen(keygen::KeygenOptions),
    /// Measure how punctual the heart (the real-time thread) is on this machine
    Doctor(doctor::DoctorOptions),
    /// Run the daemon in the foreground
    Run(run::RunOptions),
    /// Show nodes, links and groups, and what would happen if a node failed
    Status(status::StatusOptions),
    /// Put this node on standby: move its groups away and keep new ones off
    Standby(standby::StandbyOptions),
    /// End the standby of this node: let it run groups again (locum.toml only)
    Online,
    /// Move a group to another node (locum.toml only)
    Move(orders::MoveOptions),
    /// Turn maintenance of the whole cluster on or off: start, stop and move nothing (locum.toml only)
    Maintenance(orders::MaintenanceOptions),
    /// Freeze a group: do not start, stop or move it (locum.toml only)
    Freeze(orders::FreezeOptions),
    /// Take groups over from the other node (ha.cf only)
    Takeover(standby::StandbyOptions),
    /// Stop the daemon: leave the cluster gracefully
    Stop(stop::StopOptions),
    /// List and query the groups of haresources; start and stop them by hand while no daemon runs
    Resources(resources::ResourcesOptions),
    /// List the gates in the kernel, or remove those that a daemon left
    Gate(gate::GateCommandOptions),
    /// Run a witness: a third machine that votes and runs no groups
    #[command(subcommand)]
    Witness(witness::WitnessCommand),
    /// Create links with heartbeat's command names (heartbeat, cl_status, hb_standby …) to this program
    Links(by_name::LinksOptions),
    /// Measure and experiment on a rack: nodes in network namespaces of this machine
    #[command(subcommand)]
    Lab(lab::LabCommand),
    /// The first process of a rack's node
    #[command(name = locum_lab::holder::COMMAND, hide = true)]
    LabNode,
    /// The gate-renewing process that the lab freezes
    #[command(name = locum_lab::gate::COMMAND, hide = true)]
    GateRenewer {
        /// The words of its order
        #[arg(trailing_var_arg = true)]
        words: Vec<String>,
    },
    /// The demo's web server
    #[command(name = demo_httpd::COMMAND, hide = true)]
    DemoHttpd(demo_httpd::DemoHttpdOptions),
}

/// The options that every command takes, before or after its name.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonOptions {
    /// Configuration directory [default: /etc/locum if it contains locum.toml, else /etc/ha.d]
    #[arg(long, global = true, value_name = "DIR")]
    pub config: Option<PathBuf>,
    /// State directory, with identity and ledger [default: /var/lib/locum with locum.toml, else /var/lib/heartbeat]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Run directory, with control socket, pid file and lock [default: /run/locum]
    #[arg(long, global = true, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Log level [default: info, or debug if ha.cf has `debug`]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<LogLevel>,
}

/// The run directory when `--run` is not given.
const RUN_DIR: &str = "/run/locum";

impl CommonOptions {
    /// The directory of `ha.cf`, `authkeys` and `haresources`, or of `locum.toml`.
    #[must_use]
    pub fn config_dir(&self) -> PathBuf {
        self.config.as_deref().map_or_else(|| default_config(Path::new("/etc")), absolute)
    }

    /// The directory in which `locum.toml` and its keys are made.
    #[must_use]
    pub fn native_dir(&self) -> PathBuf {
        self.config.as_deref().map_or_else(|| Path::new("/etc/locum").into(), absolute)
    }

    /// The directory with the node's identity. With heartbeat's files it is heartbeat's own, so that the identity of an
    /// installed heartbeat is kept.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        let name = if is_native(&self.config_dir()) { "locum" } else { "heartbeat" };
        self.state.as_deref().map_or_else(|| Path::new("/var/lib").join(name), absolute)
    }

    /// The pid file that heartbeat's scripts read. With the default run directory it is `/run/heartbeat.pid`, else it
    /// lies in the run directory.
    #[must_use]
    pub fn heartbeat_pid(&self) -> PathBuf {
        let run_dir = self.run_dir();
        let place = if run_dir == Path::new(RUN_DIR) { Path::new("/run") } else { &run_dir };
        place.join("heartbeat.pid")
    }

    /// The FIFO into which local scripts write messages to the cluster.
    #[must_use]
    pub fn fifo(&self) -> PathBuf {
        self.state_dir().join(fifo::NAME)
    }

    /// The directory of the daemon's control socket, pid file and lock.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.run.as_deref().map_or_else(|| PathBuf::from(RUN_DIR), absolute)
    }
}

/// Makes a path absolute, because agents run in another directory than the daemon was started in.
fn absolute(path: &Path) -> PathBuf {
    // Fails only for the empty path, which is refused where it is opened.
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// `locum` below `etc` when it holds `locum.toml`, else `ha.d`.
fn default_config(etc: &Path) -> PathBuf {
    let native = etc.join("locum");
    if is_native(&native) { native } else { etc.join("ha.d") }
}

fn is_native(config: &Path) -> bool {
    config.join(files::NATIVE).exists()
}

/// The values of the option `--log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// Log errors and nothing else
    Error,
    /// Log also conditions that need attention
    Warning,
    /// Log also normal events
    Info,
    /// Log also details for finding a bug in Locum
    Debug,
}

/// Exit code for a wrong command line (`EX_USAGE`). The small numbers have other meanings.
const USAGE: u8 = 64;

/// Parses the arguments, runs the command and returns the exit code. A wrong command line ends here.
#[must_use]
pub fn main() -> ExitCode {
    // Every command but the daemon ends silently when its output is closed. `run` asks for the opposite.
    locum_sys::signal::default_broken_pipe();
    let mut words = std::env::args_os();
    if let Some(name) = words.next().as_deref().and_then(by_name::CommandName::called) {
        return name.run(words.collect());
    }
    let parsed = help::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here, too. If they cannot be printed, there is no other place to report that.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    dispatch(cli)
}

/// Runs the parsed command and returns its exit code.
fn dispatch(cli: Cli) -> ExitCode {
    let common = &cli.common;
    let result: anyhow::Result<ExitCode> = match cli.command {
        Command::Check(options) => check::run(common, &options),
        Command::Explain(command) => explain::run(common, &command),
        Command::Init(options) => init::run(common, options),
        Command::Import(options) => import::run(common, &options),
        Command::Keygen(options) => keygen::run(common, &options),
        Command::Doctor(options) => doctor::run(common, options),
        Command::Run(options) => run::run(common, options),
        Command::Status(options) => status::run(common, options),
        Command::Standby(options) => standby::standby(common, options),
        Command::Online => orders::online(common),
        Command::Move(options) => orders::move_group(common, options),
        Command::Maintenance(options) => orders::maintenance(common, options),
        Command::Freeze(options) => orders::freeze(common, options),
        Command::Takeover(options) => standby::takeover(common, options),
        Command::Stop(options) => stop::run(common, options),
        Command::Resources(options) => resources::run(common, &options),
        Command::Gate(options) => gate::run(common, &options),
        Command::Witness(command) => witness::run(common, &command),
        Command::Links(options) => by_name::links(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Lab(command) => lab::run(command),
        Command::LabNode => locum_lab::holder::hold().map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::GateRenewer { words } => {
            locum_lab::gate::renew(&words).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::DemoHttpd(options) => demo_httpd::run(&options),
    };
    result.unwrap_or_else(|error| {
        errln!("locum: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints why the running daemon could not be asked, and returns the exit code for that.
fn failed(fault: &ClientFault) -> ExitCode {
    errln!("locum: {fault}");
    ExitCode::from(fault.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// An option with the name of a common option is taken for that one, and panics when it is read. The check above
    /// does not notice it.
    #[test]
    fn no_command_has_an_option_of_its_own_by_a_common_name() {
        fn look(command: &clap::Command, common: &[String], found: &mut Vec<String>) {
            let own = command.get_arguments().filter(|argument| !argument.is_global_set());
            let taken = own.filter(|argument| common.iter().any(|name| name == argument.get_id().as_str()));
            found.extend(taken.map(|argument| format!("{} {}", command.get_name(), argument.get_id())));
            command.get_subcommands().for_each(|below| look(below, common, found));
        }
        let cli = Cli::command();
        let common = cli.get_arguments().filter(|argument| argument.is_global_set());
        let common: Vec<String> = common.map(|argument| argument.get_id().to_string()).collect();
        assert!(common.len() >= 4, "{common:?}");
        let mut found = Vec::new();
        look(&cli, &common, &mut found);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn the_configuration_is_native_only_with_its_file() {
        let etc = tempfile::tempdir().unwrap();
        std::fs::create_dir(etc.path().join("locum")).unwrap();
        let common = CommonOptions { config: Some(etc.path().join("locum")), ..CommonOptions::default() };
        assert_eq!(default_config(etc.path()), etc.path().join("ha.d"));
        assert_eq!(common.state_dir(), Path::new("/var/lib/heartbeat"));
        std::fs::write(etc.path().join("locum/locum.toml"), "").unwrap();
        assert_eq!(default_config(etc.path()), etc.path().join("locum"));
        assert_eq!(common.state_dir(), Path::new("/var/lib/locum"));
    }
}
