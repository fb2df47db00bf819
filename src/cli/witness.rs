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
    /// Make a key for one cluster, and print the line for its locum.toml; the same again for a cluster that is known
    Add(WitnessAddOptions),
    /// Serve all clusters, in the foreground. HUP looks for new ones
    Run,
    /// Show how each cluster looks from here
    Status(status::StatusOptions),
}

/// The options of `locum witness add`.
#[derive(Clone, Debug, Args)]
pub struct WitnessAddOptions {
    /// The cluster's name
    pub cluster: String,
    /// Where this machine is reached by the cluster's nodes
    #[arg(long)]
    pub address: IpAddr,
    /// The UDP port; each cluster has its own [default: the first from 6940 that no other cluster has]
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
    ensure!(is_name(cluster), "`{cluster}` is no cluster's name: 1 to 32 letters, digits, `-`, `_`, `.`");
    ensure!(
        !address.is_unspecified() && !address.is_multicast(),
        "{address} is not this machine's own address"
    );
    let name = host_name().to_lowercase();
    ensure!(
        is_name(&name),
        "this host's name, `{name}`, cannot be a witness's: 1 to 32 letters, digits, `-`, `_`, `.`"
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
            Some(other) => bail!("port {port} is that of cluster {other}: each has its own"),
            None => *port,
        },
        None => (PORT..).find(|port| !taken.contains_key(port)).context("no port is left")?,
    };
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).context("the system gives no random bytes")?;
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
        .with_context(|| format!("{} cannot be made", path.display()))?;
    explain(&line, &directory);
    Ok(ExitCode::SUCCESS)
}

/// Prints the line on standard output and the instructions on standard error.
fn explain(line: &str, directory: &Path) {
    out!("{line}");
    errln!(
        "Paste this line into the cluster's {}, above its first table, on all nodes (mode 0600: it is a key); copy that file to \
         {} here; then `locum witness run`, or a HUP to the one that runs.",
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
    let program = std::env::current_exe().context("where this program lies")?;
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
                        "locum: cluster {cluster} is not served yet: copy its {} to {}, then send HUP",
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
                    errln!(
                        "locum: the witness of cluster {cluster} cannot be started ({error:#}): tried again"
                    );
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
                errln!(
                    "locum: the witness of cluster {cluster} has ended ({how}): started again in a moment"
                );
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
    command.spawn().with_context(|| format!("no process for cluster {cluster}"))
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
        "one cluster can be watched: `locum --run {}/CLUSTER status --watch`",
        places.run.display()
    );
    if clusters.is_empty() {
        errln!("locum: no cluster is served here; `locum witness add` makes the key for one");
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
        assert!(said.contains("port 6941 is that of cluster bank"), "{said}");
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
