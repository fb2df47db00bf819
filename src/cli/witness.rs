//! `locum witness`: a machine that votes in clusters and runs none of their groups.
//!
//! `add` makes a key that only this witness and one cluster share, and prints the line for the cluster's `locum.toml`.
//! `run` serves every cluster by a process with its own port, ledger and control socket. So no cluster can affect
//! another one, whatever it sends.
//!
//! ```text
//! /etc/locum/witness/CLUSTER/line         what `add` printed, mode 0600
//! /etc/locum/witness/CLUSTER/locum.toml   a copy of the cluster's file, made by the administrator
//! /var/lib/locum/witness/CLUSTER/         its state
//! /run/locum/witness/CLUSTER/             its run directory
//! ```
//!
//! Exit code: 0 done, 1 not done; `status`: 1 something is not well, 3 no cluster is served here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use locum_core::{
    config::locum_key::KEY_BYTES,
    native::plan::{NAME_BYTES_MAX, PORT},
};
use locum_sys::file::write_atomically;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::sleep,
};

use super::{CommonOptions, status};
use crate::{
    files::{self, host_name},
    observe::notify::ServiceManager,
};

/// The directory below the configuration, state and run directories.
const DIRECTORY: &str = "witness";
/// The file with the line that `add` printed.
const LINE: &str = "line";
/// The pause before a process that ended by itself is started again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The subcommands of `locum witness`.
#[derive(Clone, Debug, Subcommand)]
pub enum WitnessCommand {
    /// Add a cluster: make a key for it and print the line for its locum.toml (again, if it is added already)
    Add(WitnessAddOptions),
    /// Serve all added clusters in the foreground; SIGHUP picks up new ones
    Run,
    /// Show the status of each cluster, as seen from here
    Status(status::StatusOptions),
}

/// The options of `locum witness add`.
#[derive(Clone, Debug, Args)]
pub struct WitnessAddOptions {
    /// Name of the cluster
    pub cluster: String,
    /// Address of this machine, reachable from the cluster's nodes
    #[arg(long)]
    pub address: IpAddr,
    /// UDP port, different for each cluster [default: the first free one from 6940]
    #[arg(long)]
    pub port: Option<u16>,
}

/// Runs the subcommand and returns its exit code.
///
/// # Errors
/// Why it could not be done.
pub fn run(common: &CommonOptions, command: &WitnessCommand) -> anyhow::Result<ExitCode> {
    let places = WitnessDirectories::of(common);
    match command {
        WitnessCommand::Add(options) => add(&places, options),
        WitnessCommand::Run => serve(&places),
        WitnessCommand::Status(options) => show(&places, *options),
    }
}

/// The directories of all clusters of this witness.
struct WitnessDirectories {
    config: PathBuf,
    state: PathBuf,
    run: PathBuf,
}

impl WitnessDirectories {
    fn of(common: &CommonOptions) -> Self {
        let state = common.state.clone().unwrap_or_else(|| "/var/lib/locum".into());
        Self {
            config: common.native_dir().join(DIRECTORY),
            state: state.join(DIRECTORY),
            run: common.run_dir().join(DIRECTORY),
        }
    }

    /// The clusters that `add` registered, by name.
    fn clusters(&self) -> io::Result<BTreeSet<String>> {
        let entries = match fs::read_dir(&self.config) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries?,
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry?;
            if entry.path().join(LINE).is_file() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(names)
    }

    /// The address under which a cluster reaches this witness, read from the printed line.
    fn address(&self, cluster: &str) -> Option<SocketAddr> {
        let line = fs::read_to_string(self.config.join(cluster).join(LINE)).ok()?;
        line.split('"').nth(1)?.parse().ok()
    }
}

// ---- add a cluster

fn add(places: &WitnessDirectories, options: &WitnessAddOptions) -> anyhow::Result<ExitCode> {
    let WitnessAddOptions { cluster, address, port } = options;
    ensure!(
        is_name(cluster),
        "`{cluster}` is not a valid cluster name: use 1 to 32 letters, digits, `-`, `_` or `.`"
    );
    ensure!(
        !address.is_unspecified() && !address.is_multicast(),
        "{address} cannot be an address of this machine: give the one that the nodes use to reach it"
    );
    let name = host_name().to_lowercase();
    ensure!(
        is_name(&name),
        "this host's name `{name}` is not a valid witness name: use 1 to 32 letters, digits, `-`, `_` or `.`"
    );
    let directory = places.config.join(cluster);
    let path = directory.join(LINE);
    if let Ok(line) = fs::read_to_string(&path) {
        explain(&line, &directory);
        return Ok(ExitCode::SUCCESS);
    }
    let mut taken = BTreeMap::new();
    for other in places.clusters().with_context(|| format!("{} cannot be read", places.config.display()))? {
        if let Some(address) = places.address(&other) {
            taken.insert(address.port(), other);
        }
    }
    let port = match port {
        Some(port) => match taken.get(port) {
            Some(other) => bail!("port {port} is used by cluster {other}: give another one with --port"),
            None => *port,
        },
        None => (PORT..).find(|port| !taken.contains_key(port)).context(
            "no free port is left: remove a cluster \
                                                                         that is not served any more",
        )?,
    };
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).context("the system's random number generator failed")?;
    let mut digits = String::new();
    for byte in key {
        let _ = write!(digits, "{byte:02x}"); // writing into a String cannot fail
    }
    let quoted = if name.contains('.') { format!("\"{name}\"") } else { name };
    let address = SocketAddr::new(*address, port);
    let line = format!("witnesses.{quoted} = {{ address = \"{address}\", key = \"{digits}\" }}\n");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .and_then(|()| write_atomically(&path, line.as_bytes(), 0o600))
        .with_context(|| format!("{} cannot be created", path.display()))?;
    explain(&line, &directory);
    Ok(ExitCode::SUCCESS)
}

/// Prints the line on standard output and the instructions on standard error.
fn explain(line: &str, directory: &Path) {
    out!("{line}");
    errln!(
        "1. Paste this line into the cluster's {}, above its first table, on all nodes (mode 0600: it contains a \
         key). 2. Copy that file to {} on this machine. 3. Start `locum witness run`, or send SIGHUP if it runs.",
        files::NATIVE,
        directory.display()
    );
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let all = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    first && all && name.len() <= NAME_BYTES_MAX
}

// ---- serve all clusters

fn serve(places: &WitnessDirectories) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve_all(places))
}

async fn serve_all(places: &WitnessDirectories) -> anyhow::Result<ExitCode> {
    let (mut term, mut int, mut hup) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let notify = ServiceManager::from_env();
    let mut served = BTreeMap::new();
    let mut ends: JoinSet<String> = JoinSet::new();
    let mut said = BTreeSet::new();
    loop {
        let clusters =
            places.clusters().with_context(|| format!("{} cannot be read", places.config.display()))?;
        for cluster in
            clusters.into_iter().filter(|cluster| !served.contains_key(cluster)).collect::<Vec<_>>()
        {
            let directory = places.config.join(&cluster);
            if !directory.join(files::NATIVE).exists() {
                if said.insert(cluster.clone()) {
                    errln!(
                        "locum: cluster {cluster}: not served yet: copy its {} to {}, then send SIGHUP",
                        files::NATIVE,
                        directory.display()
                    );
                }
                continue;
            }
            let mut child = match start(&program, places, &cluster) {
                Ok(child) => child,
                Err(error) => {
                    // The other clusters are served all the same.
                    errln!("locum: cluster {cluster}: its witness cannot be started ({error:#}): retrying");
                    served.insert(cluster.clone(), None);
                    ends.spawn(async move {
                        sleep(AGAIN_AFTER).await;
                        cluster
                    });
                    continue;
                }
            };
            served.insert(cluster.clone(), child.id());
            ends.spawn(async move {
                let end = child.wait().await;
                let how = end.map_or_else(|error| error.to_string(), |end| end.to_string());
                errln!("locum: cluster {cluster}: its witness has ended ({how}): restarting in 2 s");
                sleep(AGAIN_AFTER).await;
                cluster
            });
        }
        notify.ready(&format!("a witness of {} clusters", served.len()));
        tokio::select! {
            Some(Ok(cluster)) = ends.join_next() => drop(served.remove(&cluster)),
            _ = hup.recv() => {
                said.clear();
                signal_all(&served, Signal::HUP);
            }
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
    }
    // Each process ends at once, because it has no groups to hand over. Its task then still sleeps for `AGAIN_AFTER`.
    notify.stopping(AGAIN_AFTER * 2);
    signal_all(&served, Signal::TERM);
    while ends.join_next().await.is_some() {}
    Ok(ExitCode::SUCCESS)
}

/// Starts a cluster's own process. It refuses to be anything but a witness, whatever the copied file says.
fn start(program: &Path, places: &WitnessDirectories, cluster: &str) -> anyhow::Result<Child> {
    let mut command = tokio::process::Command::new(program);
    command
        .arg("--config")
        .arg(places.config.join(cluster))
        .arg("--state")
        .arg(places.state.join(cluster))
        .arg("--run")
        .arg(places.run.join(cluster))
        .args(["run", "--only-as-witness"])
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .stdin(Stdio::null());
    command.spawn().with_context(|| format!("cannot start a process for cluster {cluster}"))
}

fn signal_all(served: &BTreeMap<String, Option<u32>>, signal: Signal) {
    for id in served.values().flatten() {
        if let Some(pid) = i32::try_from(*id).ok().and_then(Pid::from_raw) {
            // The process may have ended at this moment.
            let _ = kill_process(pid, signal);
        }
    }
}

fn show(places: &WitnessDirectories, options: status::StatusOptions) -> anyhow::Result<ExitCode> {
    let clusters =
        places.clusters().with_context(|| format!("{} cannot be read", places.config.display()))?;
    ensure!(
        !options.watch,
        "only a single cluster can be watched: use `locum --run {}/CLUSTER status --watch`",
        places.run.display()
    );
    if clusters.is_empty() {
        errln!("locum: no cluster is served here: add one with `locum witness add`");
        return Ok(ExitCode::from(3));
    }
    let mut worst = ExitCode::SUCCESS;
    for (index, cluster) in clusters.iter().enumerate() {
        if index > 0 && !options.json {
            outln!();
        }
        let common = CommonOptions { run: Some(places.run.join(cluster)), ..CommonOptions::default() };
        let code = status::run(&common, options)?;
        if code != ExitCode::SUCCESS {
            worst = ExitCode::FAILURE;
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(directory: &Path) -> WitnessDirectories {
        WitnessDirectories {
            config: directory.join("etc"),
            state: directory.join("lib"),
            run: directory.join("run"),
        }
    }

    fn wish(cluster: &str, port: Option<u16>) -> WitnessAddOptions {
        WitnessAddOptions { cluster: cluster.into(), address: "10.9.0.1".parse().unwrap(), port }
    }

    #[test]
    fn each_cluster_has_a_port_and_a_key_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        for cluster in ["shop", "bank", "shop"] {
            add(&places, &wish(cluster, None)).unwrap();
        }
        assert_eq!(places.clusters().unwrap(), ["bank", "shop"].map(String::from).into());
        let address = |cluster| places.address(cluster).unwrap().to_string();
        assert_eq!((address("shop").as_str(), address("bank").as_str()), ("10.9.0.1:6940", "10.9.0.1:6941"));
        let line = |cluster: &str| fs::read_to_string(places.config.join(cluster).join(LINE)).unwrap();
        let key = |cluster| line(cluster).split('"').rev().nth(1).unwrap().to_owned();
        assert!(key("shop").len() == 64 && key("shop") != key("bank"));
        let said = add(&places, &wish("third", Some(6941))).unwrap_err().to_string();
        assert!(said.contains("port 6941 is used by cluster bank"), "{said}");
        assert!(add(&places, &wish("../x", None)).is_err());
    }

    #[test]
    fn the_line_is_good_above_the_tables_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        add(&places, &wish("shop", None)).unwrap();
        let line = fs::read_to_string(places.config.join("shop").join(LINE)).unwrap();
        let file = format!(
            "cluster = 'shop'\n{line}nodes.some-a.links.x = '10.0.0.1'\nnodes.some-b.links.x = '10.0.0.2'\n"
        );
        let me = host_name().to_lowercase();
        let checked = locum_core::config::locum_toml::check(file.as_bytes(), &me);
        let plan = checked.plan.unwrap_or_else(|| panic!("{:?}", checked.diags));
        assert!(plan.witnesses[0].key.is_some() && plan.name(plan.me) == me);
    }
}
