//! The two daemons that read `ha.cf`, Locum and the real heartbeat: how a rack starts them, gives them orders and finds
//! their processes.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    fault::Fault,
    process::{Process, Program},
    rack::Rack,
};

const HEARTBEAT: &str = "/usr/libexec/heartbeat/heartbeat";
/// Longer than any short program of the daemons works.
pub(crate) const PROGRAM_LIMIT: Duration = Duration::from_secs(30);
/// The configuration directory, as the node sees it; on this side it is below [`Rack::disk`].
pub(crate) const CONFIG: &str = "/run/disk/ha.d";
/// The daemon's log, as the node sees it.
pub(crate) const LOG: &str = "/run/disk/daemon.log";
/// The name of the log below [`Rack::disk`].
pub(crate) const LOG_NAME: &str = "daemon.log";

/// The daemon that reads a node's `ha.cf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    /// The program under test.
    Locum,
    /// Heartbeat 3 of the Linux-HA project.
    Heartbeat,
}

impl Daemon {
    /// The daemon's name in options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Locum => "locum",
            Self::Heartbeat => "heartbeat",
        }
    }

    /// Whether the daemon is unpacked below `root`, or installed on this host.
    #[must_use]
    pub fn is_present(self, root: Option<&Path>) -> bool {
        self == Self::Locum || is_program(root, HEARTBEAT)
    }

    /// Makes a node's configuration directory, with the files that the daemon's package installs there.
    pub(crate) fn unpack(self, directory: &Path, root: Option<&Path>) -> io::Result<()> {
        fs::create_dir_all(directory.join("resource.d"))?;
        match self {
            Self::Locum => Ok(()),
            Self::Heartbeat => copy_tree(&root.unwrap_or(Path::new("/")).join("etc/ha.d"), directory),
        }
    }

    /// Begins to start the daemon on a node. Call [`Self::await_start`] then.
    pub(crate) fn start(self, rack: &Rack, node: &str) -> Result<Process, Fault> {
        let boot = format!("{HEARTBEAT_FURNITURE}\nexec {HEARTBEAT}");
        let words: &[&str] = match self {
            Self::Locum => &["locum", "--config", CONFIG, "run"],
            Self::Heartbeat => &["/bin/sh", "-c", &boot],
        };
        rack.start(node, &Program::new(words).output(LOG))
    }

    /// Waits until a start has finished its work in the foreground. `None` if the daemon runs in the background.
    /// Otherwise keep the process: the daemon ends when it is dropped.
    pub(crate) fn await_start(self, node: &str, mut begun: Process) -> Result<Option<Process>, Fault> {
        if self == Self::Locum {
            return Ok(Some(begun));
        }
        match begun.wait(PROGRAM_LIMIT).and_then(|status| status.code()) {
            Some(0) => Ok(None),
            code => Err(Fault::Description(format!("heartbeat does not start on {node}: {code:?}"))),
        }
    }

    /// Begins to ask the daemon for a graceful end; the returned program ends when the daemon has ended.
    pub(crate) fn stop(self, rack: &Rack, node: &str) -> Result<Process, Fault> {
        let words: &[&str] = match self {
            Self::Locum => &["locum", "stop"],
            Self::Heartbeat => &[HEARTBEAT, "-k"],
        };
        rack.start(node, &Program::new(words).output(LOG))
    }

    /// Makes the node's daemon read its files again.
    pub(crate) fn reread(self, rack: &Rack, node: &str) -> Result<(), Fault> {
        let hang_up = "kill -HUP $(head -n 1 /run/locum/locum.pid)";
        match self {
            Self::Locum => complete(rack, node, &["/bin/sh", "-c", hang_up]),
            Self::Heartbeat => complete(rack, node, &[HEARTBEAT, "-r"]),
        }
    }

    /// Asks a node to give (`standby`) or to get (`takeover`) a set. Heartbeat's commands do not wait for the outcome.
    pub(crate) fn ask_to_move(
        self,
        rack: &Rack,
        node: &str,
        give: bool,
        set: &str,
    ) -> Result<Process, Fault> {
        let words: &[&str] = match (self, give) {
            (Self::Locum, true) => &["locum", "standby", set],
            (Self::Locum, false) => &["locum", "takeover", set],
            (Self::Heartbeat, true) => &["/usr/share/heartbeat/hb_standby", set],
            (Self::Heartbeat, false) => &["/usr/share/heartbeat/hb_takeover", set],
        };
        rack.start(node, &Program::new(words).output(LOG))
    }

    /// Whether this process is (a part of) the daemon, and not a resource that it started.
    pub(crate) fn is_process(self, process: u32) -> bool {
        match self {
            Self::Locum => {
                let directory = PathBuf::from(format!("/proc/{process}"));
                let words = fs::read(directory.join("cmdline")).unwrap_or_default();
                runs(process, "locum") && words.split(|&byte| byte == 0).any(|word| word == b"run")
            }
            Self::Heartbeat => runs(process, "heartbeat"),
        }
    }

    /// The processes of a node's daemon.
    pub(crate) fn processes(self, rack: &Rack, node: &str) -> Result<Vec<u32>, Fault> {
        let mut processes = rack.processes(node)?;
        processes.retain(|&process| self.is_process(process));
        Ok(processes)
    }
}

/// Whether a process runs a program of this name.
pub(crate) fn runs(process: u32, name: &str) -> bool {
    fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|exe| exe.ends_with(name))
}

/// Whether a program is unpacked below `root`, or installed on this host.
pub(crate) fn is_program(root: Option<&Path>, program: &str) -> bool {
    root.unwrap_or(Path::new("/")).join(program.strip_prefix('/').unwrap_or(program)).exists()
}

/// Runs a program to its end; fails if its exit code is not 0.
pub(crate) fn complete(rack: &Rack, node: &str, words: &[&str]) -> Result<(), Fault> {
    let outcome = rack.run(node, &Program::new(words), PROGRAM_LIMIT)?;
    if outcome.code == Some(0) {
        return Ok(());
    }
    let words = words.join(" ");
    Err(Fault::Description(format!("{words} on {node} failed with {:?}: {}", outcome.code, outcome.text)))
}

/// The directories that heartbeat's boot script makes, in a node's fresh `/run` and on its disk.
const HEARTBEAT_FURNITURE: &str = "
    for d in run/heartbeat/ccm run/heartbeat/dopd lib/heartbeat/ccm lib/heartbeat/crm lib/heartbeat/pengine; do
        mkdir -p /var/$d && chmod 750 /var/$d && chown hacluster:haclient /var/$d || exit
    done
    for u in root nobody hacluster; do
        mkdir -p /var/lib/heartbeat/cores/$u && chmod 700 /var/lib/heartbeat/cores/$u &&
            chown $u /var/lib/heartbeat/cores/$u || exit
    done
    mkdir -p /run/resource-agents && chmod 1755 /run/resource-agents
    mkdir -p /run/lock/subsys
";

/// Copies files, directories and links; everything else is left out.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
