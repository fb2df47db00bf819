//! The pair under attack: two real daemons on a rack, and a third machine on the segment of their first link.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use locum::observe::report::StatusReport;
use locum_core::{model::status::Frames, r1::ownership::R1State};
use locum_lab::{Description, Process, Program, Rack, WatchSpec, clock::await_some};

use crate::lab::{LOCUM, build};

pub(super) const NODES: [&str; 2] = ["clustnode1", "clustnode2"];
/// The attacked link: its network, its interface, its addresses.
pub(super) const NETWORK: &str = "attacked";
pub(super) const LINK: &str = "eth1";
pub(super) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
/// The name of the hostile neighbour's host.
pub(super) const NEIGHBOUR: &str = "neighbour";
pub(super) const NEIGHBOUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 14);
pub(super) const KEEPALIVE: Duration = Duration::from_millis(200);
/// The keys of both nodes.
pub(super) const AUTHKEYS: &str = "auth 1\n1 sha1 the-right-secret\n";

const LAN: &str = "lan";
const PATIENCE: Duration = Duration::from_secs(60);
const LOG: &str = "locum.log";

pub(super) struct Cluster {
    /// Declared before the rack, so that processes end before their hosts.
    daemons: [Option<Process>; 2],
    pub(super) rack: Rack,
}

impl Cluster {
    /// Builds the rack with all hosts powered and no daemon running. `None`, after printing the reason, where that is
    /// not possible.
    pub(super) fn build() -> Option<Self> {
        let [one, two] = NODES;
        let description = Description::new(Path::new(LOCUM))
            .node(one)
            .node(two)
            .node(NEIGHBOUR)
            .node("client")
            .segment(
                LAN,
                &[
                    (one, "eth0", "172.23.2.12/24"),
                    (two, "eth0", "172.23.2.13/24"),
                    ("client", "eth0", "172.23.2.100/24"),
                ],
            )
            .segment(
                NETWORK,
                &[(one, LINK, "10.0.0.1/24"), (two, LINK, "10.0.0.2/24"), (NEIGHBOUR, LINK, "10.0.0.9/24")],
            );
        let mut rack = build(description)?;
        rack.watch(WatchSpec {
            client: "client".into(),
            network: LAN.into(),
            services: vec![SERVICE],
            page: None,
            nodes: NODES.map(str::to_owned).to_vec(),
            ..WatchSpec::default()
        })
        .unwrap();
        for node in NODES {
            write_files(&rack.disk(node).join("ha.d"));
        }
        Some(Self { daemons: [None, None], rack })
    }

    pub(super) fn start(&mut self, node: usize) {
        let line = ["locum", "--config", "/run/disk/ha.d", "--state", "/run/disk/state", "run"];
        let program = Program::new(&line).output(&format!("/run/disk/{LOG}"));
        self.daemons[node] = Some(self.rack.start(NODES[node], &program).unwrap());
    }

    /// Starts the daemon anew, without any state of the old one.
    pub(super) fn restart(&mut self, node: usize) {
        self.daemons[node] = None;
        self.start(node);
    }

    /// The daemon's own status; `None` while it does not answer.
    pub(super) fn status(&self, node: usize) -> Option<StatusReport> {
        let asked = Program::new(&["locum", "status", "--json"]);
        let outcome = self.rack.run(NODES[node], &asked, Duration::from_secs(20)).unwrap();
        serde_json::from_str(&outcome.text).ok()
    }

    pub(super) fn statuses(&self) -> [StatusReport; 2] {
        [0, 1].map(|node| self.status(node).unwrap_or_else(|| panic!("no answer:\n{}", self.log(node))))
    }

    /// Waits until both are well, and the first serves.
    pub(super) fn settle(&self) {
        let is_well = |node: usize| {
            let status = self.status(node)?;
            let stable = status.cluster.state == R1State::Stable && status.cluster.transition.is_none();
            (stable && status.troubles().is_empty()).then_some(())
        };
        let well = await_some(PATIENCE, || is_well(0).and_then(|()| is_well(1)));
        let logs = || [0, 1].map(|node| self.log(node)).join("\n--\n");
        assert!(well.is_some(), "not well: {}", logs());
        let served = await_some(PATIENCE, || (self.holders() == [NODES[0]]).then_some(()));
        assert!(served.is_some(), "{:?} serve: {}", self.holders(), logs());
    }

    /// The nodes whose kernels have the service address.
    pub(super) fn holders(&self) -> Vec<String> {
        let holders = |record: &locum_lab::Record| {
            record.holders(SERVICE.into()).into_iter().map(str::to_owned).collect()
        };
        self.rack.look(holders).unwrap()
    }

    /// Packets that have arrived at the attacked interface of a node.
    pub(super) fn arrived(&self, node: usize) -> u64 {
        let show = Program::new(&["cat", "/proc/net/dev"]);
        let text = self.rack.run(NODES[node], &show, Duration::from_secs(20)).unwrap().text;
        let counters =
            text.lines().find_map(|line| line.trim().strip_prefix(LINK)?.strip_prefix(':')).unwrap();
        counters.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub(super) fn log(&self, node: usize) -> String {
        fs::read_to_string(self.rack.disk(NODES[node]).join(LOG)).unwrap_or_default()
    }

    pub(super) fn log_lines(&self) -> [usize; 2] {
        [0, 1].map(|node| self.log(node).lines().count())
    }
}

/// The second link is for the flood at line rate, during which neither node hears the other on the first.
fn write_files(place: &Path) {
    fs::create_dir_all(place).unwrap();
    let with_mode = |name: &str, text: &str, mode: u32| {
        let path = place.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let ha_cf = format!(
        "keepalive {}ms\nwarntime 1500ms\ndeadtime 2\ninitdead 10\nauto_failback on\nbcast {LINK} eth0\nnode {}\n",
        KEEPALIVE.as_millis(),
        NODES.join(" ")
    );
    with_mode("ha.cf", &ha_cf, 0o644);
    with_mode("haresources", &format!("{} {SERVICE}\n", NODES[0]), 0o644);
    with_mode("authkeys", AUTHKEYS, 0o600);
}

/// All classes of received frames except the refused ones.
pub(super) fn not_refused(frames: &Frames) -> u64 {
    frames.accepted + frames.own + frames.echoes + frames.repeated + frames.elsewhere
}
