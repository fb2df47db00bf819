//! The control plane on real machines of a rack: clients, the watchdog, fencing devices, lost frames.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use locum::observe::report::StatusReport;
use locum_core::{liveness::Liveness, r1::ownership::R1State};
use locum_lab::{Description, Process, ProcessSignal, Program, Rack, clock::await_some};

use crate::lab::{LOCUM, build};

mod arp_filter;
mod beside;
mod fencing;
mod gates;
mod rights;

const NODES: [&str; 2] = ["clustnode1", "clustnode2"];
const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 14);
const PATIENCE: Duration = Duration::from_secs(60);
const CONFIG: &str = "/run/disk/ha.d";

/// Two machines with two links.
struct Pair {
    /// Declared before the rack, so that processes end before their hosts.
    daemons: [Option<Process>; 2],
    rack: Rack,
}

impl Pair {
    /// `None`, after printing the reason, where no rack can be built. `layer` is laid over `/usr` and `/etc`.
    fn build(layer: Option<&Path>) -> Option<Self> {
        let mut description = Self::description(&[]);
        if let Some(layer) = layer {
            description = description.layer(layer);
        }
        Some(Self { daemons: [None, None], rack: build(description)? })
    }

    /// The machines with their links; `others` are further machines on the first link.
    fn description(others: &[(&str, &str, &str)]) -> Description {
        let [one, two] = NODES;
        let lan = [(one, "eth0", "172.23.2.12/24"), (two, "eth0", "172.23.2.13/24")];
        let description = Description::new(Path::new(LOCUM)).node(one).node(two);
        let description = others.iter().fold(description, |description, (name, ..)| description.node(name));
        description
            .segment("lan", &[&lan, others].concat())
            .segment("link", &[(one, "eth1", "10.0.0.1/24"), (two, "eth1", "10.0.0.2/24")])
    }

    /// Writes a file below the node's disk that every user may read and run.
    fn put(&self, node: usize, name: &str, text: &str) {
        let path = self.rack.disk(NODES[node]).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The text of such a file; empty if it does not exist.
    fn text(&self, node: usize, name: &str) -> String {
        fs::read_to_string(self.rack.disk(NODES[node]).join(name)).unwrap_or_default()
    }

    /// Configures a node, with more lines for `ha.cf`, and starts its daemon.
    fn start(&mut self, node: usize, lines: &str) {
        self.start_with(node, lines, &[]);
    }

    /// As [`Self::start`], with more options of the daemon.
    fn start_with(&mut self, node: usize, lines: &str, options: &[&str]) {
        self.start_by(node, lines, &[], options);
    }

    /// As [`Self::start_with`], started through another program.
    fn start_by(&mut self, node: usize, lines: &str, by: &[&str], options: &[&str]) {
        let common = "keepalive 200ms\nwarntime 1\ndeadtime 2\ninitdead 4\nauto_failback on\nbcast eth1 eth0\n\
                      logfile /run/disk/ha-log\n";
        self.put(node, "ha.d/ha.cf", &format!("{common}node {}\n{lines}", NODES.join(" ")));
        self.put(node, "ha.d/haresources", &format!("{} {SERVICE}\n", NODES[0]));
        self.put(node, "ha.d/authkeys", "auth 1\n1 sha1 some-secret\n");
        let keys = self.rack.disk(NODES[node]).join("ha.d/authkeys");
        fs::set_permissions(keys, fs::Permissions::from_mode(0o600)).unwrap();
        let words = [
            "locum",
            "--config",
            CONFIG,
            "--state",
            "/run/disk/state",
            "run",
            "--reboot-program",
            "/run/disk/reboot",
        ];
        let program = Program::new(&[by, &words, options].concat()).output("/run/disk/output");
        self.daemons[node] = Some(self.rack.start(NODES[node], &program).unwrap());
    }

    fn run(&self, node: usize, words: &[&str]) -> String {
        self.rack.run(NODES[node], &Program::new(words), PATIENCE).unwrap().text
    }

    fn status(&self, node: usize) -> Option<StatusReport> {
        serde_json::from_str(&self.run(node, &["locum", "status", "--json"])).ok()
    }

    fn is_stable(&self, node: usize) -> bool {
        self.status(node).is_some_and(|report| {
            report.cluster.state == R1State::Stable && report.cluster.transition.is_none()
        })
    }

    fn peer(&self, node: usize) -> Option<Liveness> {
        let nodes = self.status(node)?.cluster.nodes;
        nodes.iter().find(|other| other.name != NODES[node]).map(|other| other.liveness)
    }

    /// Waits until the condition holds.
    #[track_caller]
    fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let waited = await_some(PATIENCE, || is_so(self).then_some(()));
        assert!(waited.is_some(), "{what}:\n{}\n--\n{}", self.text(0, "output"), self.text(1, "output"));
    }

    fn log_has(&self, node: usize, words: &str) -> bool {
        self.text(node, "ha-log").contains(words)
    }
}
