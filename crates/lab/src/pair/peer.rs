//! The peers: how each is configured, started, and asked for a planned move.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use super::{
    Pace, PairSetup,
    cluster::{CLIENT_SIDE, FIRST, SECOND, SERVICE, WITNESS},
    files,
};
use crate::{
    daemon::{Daemon, LOG, complete, is_program, runs},
    fault::{Doing, Fault},
    process::{Process, Program},
    rack::Rack,
};

const KEEPALIVED: &str = "/usr/sbin/keepalived";
/// keepalived's priorities: of the node that is to have the address, and of the other. `DEMOTION` is added to the first
/// node's when it is to give the address away.
const PRIORITIES: [u32; 2] = [150, 100];
const DEMOTION: i32 = -100;
/// How long a node waits that starts alone; here none does.
const INITDEAD_MIN: Duration = Duration::from_secs(20);

/// A cluster manager, or a mix of two, that keeps the service alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The program under test, in the R1 dialect.
    Locum,
    /// Linux-HA's heartbeat 3, with the same three files.
    Heartbeat,
    /// Locum on the first node, heartbeat on the second.
    LocumHeartbeat,
    /// Heartbeat on the first node, Locum on the second.
    HeartbeatLocum,
    /// The program under test in its native dialect, with a witness.
    Native,
    /// VRRP version 3; both nodes keep the web server running all the time.
    Keepalived,
}

impl Peer {
    /// All peers, in the order of the command line.
    pub const ALL: [Self; 6] = [
        Self::Locum,
        Self::Heartbeat,
        Self::LocumHeartbeat,
        Self::HeartbeatLocum,
        Self::Native,
        Self::Keepalived,
    ];

    /// The peer's name in options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Locum => "locum",
            Self::Heartbeat => "heartbeat",
            Self::LocumHeartbeat => "locum+heartbeat",
            Self::HeartbeatLocum => "heartbeat+locum",
            Self::Native => "native",
            Self::Keepalived => "keepalived",
        }
    }

    /// By its configuration, how long after the last beat it notices a death. VRRP version 3: three adverts and the
    /// skew of the lower priority (RFC 5798, section 6.1).
    #[must_use]
    pub fn detection(self, pace: Pace) -> Duration {
        match self {
            Self::Locum | Self::Heartbeat | Self::LocumHeartbeat | Self::HeartbeatLocum => pace.deadtime,
            Self::Native => pace.native(),
            Self::Keepalived => pace.interval * 3 + pace.interval * (256 - PRIORITIES[1]) / 256,
        }
    }

    /// Whether the peer is unpacked below `root`, or installed on this host.
    #[must_use]
    pub fn is_present(self, root: Option<&Path>) -> bool {
        match self.daemons() {
            Some(daemons) => daemons.into_iter().all(|daemon| daemon.is_present(root)),
            None => self == Self::Native || is_program(root, KEEPALIVED),
        }
    }

    /// Whether one of its nodes runs heartbeat.
    #[must_use]
    pub fn has_heartbeat(self) -> bool {
        self.daemons().is_some_and(|daemons| daemons.contains(&Daemon::Heartbeat))
    }

    /// The members that run its daemon: the two nodes, and before them a witness, if there is one.
    pub(crate) fn members(self) -> &'static [&'static str] {
        if self == Self::Native { &[WITNESS, FIRST, SECOND] } else { &[FIRST, SECOND] }
    }

    /// Writes its configuration to a node's disk.
    pub(crate) fn configure(self, rack: &Rack, node: &str, setup: &PairSetup) -> Result<(), Fault> {
        let disk = rack.disk(node);
        let root = setup.peers_root.as_deref();
        let written = match self.daemon(node) {
            Some(daemon) => {
                daemon.unpack(&disk.join("ha.d"), root).and_then(|()| write_ha_d(&disk.join("ha.d"), setup))
            }
            None if self == Self::Native => files::write(&disk, setup),
            None => fs::write(disk.join("demotion"), "0\n")
                .and_then(|()| fs::write(disk.join("keepalived.conf"), keepalived_conf(node, setup.pace))),
        };
        written.doing(|| format!("write the configuration of {} for {node}", self.name()))
    }

    /// Starts its daemon on a node that has just got its power.
    pub(crate) fn start(self, rack: &Rack, node: &str, setup: &PairSetup) -> Result<Option<Process>, Fault> {
        if let Some(daemon) = self.daemon(node) {
            return daemon.await_start(node, daemon.start(rack, node)?);
        }
        if self == Self::Native {
            let mut words = vec!["locum", "--config", files::CONFIG, "run"];
            words.extend(setup.gates.iter().flat_map(|backend| ["--gates", backend.name()]));
            return rack.start(node, &Program::new(&words).output(LOG)).map(Some);
        }
        complete(rack, node, &["/run/bin/locum", &setup.web_server, "start"])?;
        let words = [KEEPALIVED, "-n", "-l", "-D", "-f", "/run/disk/keepalived.conf"];
        rack.start(node, &Program::new(&words).output(LOG)).map(Some)
    }

    /// Orders a move of the service away from the first node, or back to it, and does not wait for the outcome.
    pub(crate) fn ask_to_move(self, rack: &Rack, away: bool) -> Result<Option<Process>, Fault> {
        if let Some(daemon) = self.daemon(FIRST) {
            return daemon.ask_to_move(rack, FIRST, away, "all").map(Some);
        }
        if self == Self::Native {
            let to = if away { SECOND } else { FIRST };
            let words = ["locum", "move", files::GROUP, to];
            return rack.start(FIRST, &Program::new(&words).output(LOG)).map(Some);
        }
        let demotion = if away { DEMOTION } else { 0 };
        fs::write(rack.disk(FIRST).join("demotion"), format!("{demotion}\n"))
            .map(|()| None)
            .doing(|| "write keepalived's track file".into())
    }

    /// Asks the first node's daemon to leave gracefully with the peer's own command, and does not wait. `None` if it
    /// has no such command: then send TERM.
    pub(crate) fn ask_to_stop(self, rack: &Rack) -> Result<Option<Process>, Fault> {
        let native = (self == Self::Native).then_some(Daemon::Locum);
        self.daemon(FIRST).or(native).map(|daemon| daemon.stop(rack, FIRST)).transpose()
    }

    /// Whether this process is (a part of) a node's daemon, and not a resource that it started.
    pub(crate) fn is_daemon(self, node: &str, process: u32) -> bool {
        match (self, self.daemon(node)) {
            (_, Some(daemon)) => daemon.is_process(process),
            (Self::Native, None) => Daemon::Locum.is_process(process),
            (_, None) => runs(process, "keepalived"),
        }
    }

    /// The daemon of a node, if it reads `ha.cf`.
    fn daemon(self, node: &str) -> Option<Daemon> {
        self.daemons().map(|daemons| daemons[usize::from(node != FIRST)])
    }

    /// The daemons of the first and the second node, if they read `ha.cf`.
    fn daemons(self) -> Option<[Daemon; 2]> {
        match self {
            Self::Locum => Some([Daemon::Locum; 2]),
            Self::Heartbeat => Some([Daemon::Heartbeat; 2]),
            Self::LocumHeartbeat => Some([Daemon::Locum, Daemon::Heartbeat]),
            Self::HeartbeatLocum => Some([Daemon::Heartbeat, Daemon::Locum]),
            Self::Native | Self::Keepalived => None,
        }
    }
}

/// Writes the same three files for Locum and heartbeat.
fn write_ha_d(directory: &Path, setup: &PairSetup) -> io::Result<()> {
    fs::write(directory.join("ha.cf"), ha_cf(setup.pace))?;
    fs::write(directory.join("authkeys"), "auth 1\n1 sha1 measured from outside\n")?;
    fs::set_permissions(directory.join("authkeys"), fs::Permissions::from_mode(0o600))?;
    fs::write(directory.join("haresources"), format!("{FIRST} {SERVICE} httpd\n"))?;
    let script = directory.join("resource.d/httpd");
    fs::write(&script, format!("#!/bin/sh\nexec /run/bin/locum {} \"$1\"\n", setup.web_server))?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detection_is_what_the_configuration_promises() {
        let pace = Pace::of(Duration::from_millis(100));
        assert_eq!(Peer::Locum.detection(pace), Duration::from_millis(500));
        assert_eq!(Peer::Heartbeat.detection(pace), Duration::from_millis(500));
        assert_eq!(Peer::Native.detection(Pace::of(Duration::from_millis(300))), Duration::from_secs(1));
        assert_eq!(
            Peer::Keepalived.detection(pace),
            Duration::from_micros(360_937) + Duration::from_nanos(500)
        );
    }
}
