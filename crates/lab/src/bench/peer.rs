//! The peers: how each is configured, started, and asked for a planned move.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Pace, Setup,
    cluster::{CLIENT_SIDE, FIRST, SECOND, SERVICE},
};
use crate::{
    fault::{Doing, Fault},
    process::{Process, Program},
    rack::Rack,
};

const HEARTBEAT: &str = "/usr/libexec/heartbeat/heartbeat";
const KEEPALIVED: &str = "/usr/sbin/keepalived";
/// Longer than any of the peers' own programs works.
const PROGRAM_LIMIT: Duration = Duration::from_secs(30);
/// keepalived's priorities: of the node that is to have the address, of the other, and of the first when it is to give
/// the address away.
const PRIORITIES: [u32; 2] = [150, 100];
const DEMOTION: i32 = -100;
/// A node that starts alone waits for so long; here none does.
const INITDEAD_MIN: Duration = Duration::from_secs(20);
/// What a node reads, in the node; on this side it is below [`Rack::disk`].
const CONFIG: &str = "/run/disk/ha.d";
const LOG: &str = "/run/disk/daemon.log";
/// The same, from this side.
pub(super) const LOG_NAME: &str = "daemon.log";

/// Who keeps the service alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The program itself.
    Locum,
    /// Linux-HA's heartbeat 3, with the same three files.
    Heartbeat,
    /// VRRP version 3, whose nodes keep the web server running all the time.
    Keepalived,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Locum, Self::Heartbeat, Self::Keepalived];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Locum => "locum",
            Self::Heartbeat => "heartbeat",
            Self::Keepalived => "keepalived",
        }
    }

    /// How long after the last beat its configuration promises to notice a death. VRRP version 3: three adverts and
    /// the skew of the lower priority (RFC 5798, section 6.1).
    #[must_use]
    pub fn detection(self, pace: Pace) -> Duration {
        match self {
            Self::Locum | Self::Heartbeat => pace.deadtime,
            Self::Keepalived => pace.interval * 3 + pace.interval * (256 - PRIORITIES[1]) / 256,
        }
    }

    /// Whether it is unpacked below `root`, or installed on this host.
    #[must_use]
    pub fn is_present(self, root: Option<&Path>) -> bool {
        let present = |program: &str| {
            let inside = program.strip_prefix('/').unwrap_or(program);
            root.unwrap_or(Path::new("/")).join(inside).exists()
        };
        match self {
            Self::Locum => true,
            Self::Heartbeat => present(HEARTBEAT),
            Self::Keepalived => present(KEEPALIVED),
        }
    }

    /// Puts its files on a node's disk.
    pub(super) fn configure(self, rack: &Rack, node: &str, setup: &Setup) -> Result<(), Fault> {
        let disk = rack.disk(node);
        let written = match self {
            Self::Locum => self.write_ha_d(&disk.join("ha.d"), setup),
            Self::Heartbeat => {
                // What the package has there: the shell functions and resource scripts.
                let root = setup.peers_root.as_deref().unwrap_or(Path::new("/"));
                copy_tree(&root.join("etc/ha.d"), &disk.join("ha.d"))
                    .and_then(|()| self.write_ha_d(&disk.join("ha.d"), setup))
            }
            Self::Keepalived => fs::write(disk.join("demotion"), "0\n")
                .and_then(|()| fs::write(disk.join("keepalived.conf"), keepalived_conf(node, setup.pace))),
        };
        written.doing(|| format!("write the configuration of {} for {node}", self.name()))
    }

    /// The same three files for Locum and heartbeat.
    fn write_ha_d(self, directory: &Path, setup: &Setup) -> io::Result<()> {
        fs::create_dir_all(directory.join("resource.d"))?;
        fs::write(directory.join("ha.cf"), ha_cf(setup.pace))?;
        fs::write(directory.join("authkeys"), "auth 1\n1 sha1 measured from outside\n")?;
        fs::set_permissions(directory.join("authkeys"), fs::Permissions::from_mode(0o600))?;
        fs::write(directory.join("haresources"), format!("{FIRST} {SERVICE} httpd\n"))?;
        let script = directory.join("resource.d/httpd");
        fs::write(&script, format!("#!/bin/sh\nexec /run/bin/locum {} \"$1\"\n", setup.web_server))?;
        fs::set_permissions(script, fs::Permissions::from_mode(0o755))
    }

    /// Starts its daemon on a node that has just got its power.
    pub(super) fn start(self, rack: &Rack, node: &str, setup: &Setup) -> Result<Option<Process>, Fault> {
        match self {
            Self::Locum => {
                let words = ["locum", "--config", CONFIG, "--state", "/run/disk/state", "run"];
                rack.start(node, &Program::new(&words).output(LOG)).map(Some)
            }
            Self::Heartbeat => {
                complete(rack, node, &["/bin/sh", "-c", HEARTBEAT_FURNITURE])?;
                complete(rack, node, &[HEARTBEAT]).map(|()| None)
            }
            Self::Keepalived => {
                complete(rack, node, &["/run/bin/locum", &setup.web_server, "start"])?;
                let words = [KEEPALIVED, "-n", "-l", "-D", "-f", "/run/disk/keepalived.conf"];
                rack.start(node, &Program::new(&words).output(LOG)).map(Some)
            }
        }
    }

    /// Asks for the service to be moved away from the first node, or back to it, and does not wait for the outcome.
    pub(super) fn ask_to_move(self, rack: &Rack, away: bool) -> Result<Option<Process>, Fault> {
        let start = |words: &[&str]| rack.start(FIRST, &Program::new(words)).map(Some);
        match (self, away) {
            (Self::Locum, true) => start(&["locum", "standby"]),
            (Self::Locum, false) => start(&["locum", "takeover"]),
            (Self::Heartbeat, true) => start(&["/usr/share/heartbeat/hb_standby"]),
            (Self::Heartbeat, false) => start(&["/usr/share/heartbeat/hb_takeover"]),
            (Self::Keepalived, away) => {
                let demotion = if away { DEMOTION } else { 0 };
                fs::write(rack.disk(FIRST).join("demotion"), format!("{demotion}\n"))
                    .map(|()| None)
                    .doing(|| "write keepalived's track file".into())
            }
        }
    }

    /// Whether this process is (a part of) the daemon, and not of what it started.
    pub(super) fn is_daemon(self, process: u32) -> bool {
        let directory = PathBuf::from(format!("/proc/{process}"));
        let is = |name: &str| fs::read_link(directory.join("exe")).is_ok_and(|exe| exe.ends_with(name));
        match self {
            Self::Locum => {
                let words = fs::read(directory.join("cmdline")).unwrap_or_default();
                is("locum") && words.split(|&byte| byte == 0).any(|word| word == b"run")
            }
            Self::Heartbeat => is("heartbeat"),
            Self::Keepalived => is("keepalived"),
        }
    }
}

/// What heartbeat's boot script makes, in a node's fresh `/run` and on its disk.
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

/// Runs a program that ends by itself.
fn complete(rack: &Rack, node: &str, words: &[&str]) -> Result<(), Fault> {
    let outcome = rack.run(node, &Program::new(words), PROGRAM_LIMIT)?;
    if outcome.code == Some(0) {
        return Ok(());
    }
    let words = words.join(" ");
    Err(Fault::Description(format!("{words} on {node} failed with {:?}: {}", outcome.code, outcome.text)))
}

fn ha_cf(pace: Pace) -> String {
    let ms = |length: Duration| format!("{}ms", length.as_millis());
    let lines = [
        format!("logfile {LOG}"),
        format!("keepalive {}", ms(pace.interval)),
        format!("warntime {}", ms(pace.deadtime / 2)),
        format!("deadtime {}", ms(pace.deadtime)),
        format!("initdead {}", ms(INITDEAD_MIN.max(pace.deadtime * 2))),
        "udpport 694".into(),
        format!("bcast {CLIENT_SIDE} eth1"),
        "auto_failback on".into(),
        "crm off".into(),
        format!("node {FIRST}"),
        format!("node {SECOND}"),
    ];
    lines.join("\n") + "\n"
}

/// Both nodes begin as backups, so the higher priority decides, also when its node comes back.
fn keepalived_conf(node: &str, pace: Pace) -> String {
    let priority = PRIORITIES[usize::from(node != FIRST)];
    let interval = pace.interval.as_secs_f64();
    format!(
        "global_defs {{
    router_id {node}
    vrrp_version 3
}}
track_file demotion {{
    file /run/disk/demotion
    weight 1
}}
vrrp_instance service {{
    state BACKUP
    interface {CLIENT_SIDE}
    virtual_router_id 51
    priority {priority}
    advert_int {interval}
    virtual_ipaddress {{
        {SERVICE}/24 dev {CLIENT_SIDE}
    }}
    track_file {{
        demotion
    }}
}}
"
    )
}

/// Copies files, directories and links; what is none of these is left out.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detection_is_what_the_configuration_promises() {
        let pace = Pace::of(Duration::from_millis(100));
        assert_eq!(Peer::Locum.detection(pace), Duration::from_millis(500));
        assert_eq!(Peer::Heartbeat.detection(pace), Duration::from_millis(500));
        assert_eq!(
            Peer::Keepalived.detection(pace),
            Duration::from_micros(360_937) + Duration::from_nanos(500)
        );
    }
}
