//! A cluster of some nodes and a witness, with many groups of one address each.

use std::{
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Mutex,
    time::Duration,
};

use locum_sys::netlink::Netlink;

use super::{NodeStatus, ScaleSetup, socket};
use crate::{
    clock::{Moment, await_some},
    daemon::LOG,
    description::Description,
    fault::{Doing, Fault},
    pair::cluster::WITNESS,
    process::{Process, Program},
    rack::Rack,
};

/// The configuration directory, as the node sees it.
const CONFIG: &str = "/run/disk/locum";
/// The cluster's key: 32 bytes in hexadecimal digits.
const KEY: &str = "6d616e792067726f75707320666f72206d6561737572696e67207468656d2e2e";
/// The control socket, below the node's `/run`.
const SOCKET: &str = "locum/control";
/// Clusters with more nodes use broadcast. All namespaces of a machine share one neighbour table, with room for 1,024
/// entries by default. Over two links, each of 32 nodes has 62 neighbours.
const UNICAST_MAX: usize = 16;
/// How long to try to get a list of addresses that does not change during the dump.
const WHOLE_LIST: Duration = Duration::from_secs(10);
/// How many groups share the third byte of their addresses.
const TO_A_BLOCK: usize = 200;

/// CPU time that a daemon has used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) at: Moment,
    pub(super) heart: Duration,
    pub(super) all: Duration,
}

pub(super) struct ScaleCluster {
    pub(super) groups: usize,
    names: Vec<String>,
    read: fn(&[u8]) -> Option<NodeStatus>,
    gates: Option<&'static str>,
    /// By node; the witness comes last. Dropped before the rack: the process that started a daemon has to reap it.
    daemons: Vec<Option<Process>>,
    kernels: Vec<Mutex<Netlink>>,
    pub(super) rack: Rack,
}

impl ScaleCluster {
    /// A cluster whose nodes have power and files, without daemons.
    pub(super) fn built(setup: &ScaleSetup) -> Result<Self, Fault> {
        if !(2..=32).contains(&setup.nodes) {
            return Err(Fault::Description(format!("a cluster has 2 to 32 nodes, not {}", setup.nodes)));
        }
        let names: Vec<String> = (1..=setup.nodes).map(|number| format!("n{number}")).collect();
        let rack = Rack::build(description(setup, &names))?;
        for member in names.iter().map(String::as_str).chain([WITNESS]) {
            let directory = rack.disk(member).join("locum");
            let written = fs::create_dir_all(&directory)
                .and_then(|()| fs::write(directory.join("locum.toml"), locum_toml(setup, &names)))
                .and_then(|()| fs::write(directory.join("locum.key"), format!("{KEY}\n")))
                .and_then(|()| {
                    fs::set_permissions(directory.join("locum.key"), fs::Permissions::from_mode(0o600))
                });
            written.doing(|| format!("write the configuration of {member}"))?;
        }
        let kernel = |name: &String| {
            let netlink = rack.inside(name, Netlink::open)?;
            netlink.map(Mutex::new).doing(|| format!("ask the kernel of {name}"))
        };
        Ok(Self {
            groups: setup.groups,
            kernels: names.iter().map(kernel).collect::<Result<_, Fault>>()?,
            names,
            read: setup.read,
            gates: setup.gates.map(super::GateBackend::name),
            daemons: Vec::new(),
            rack,
        })
    }

    /// Starts the daemons of all members.
    pub(super) fn start(&mut self) -> Result<(), Fault> {
        let mut words = vec!["locum", "--config", CONFIG, "run"];
        words.extend(self.gates.iter().flat_map(|backend| ["--gates", backend]));
        let program = Program::new(&words).output(LOG);
        for member in self.names.iter().map(String::as_str).chain([WITNESS]) {
            self.daemons.push(Some(self.rack.start(member, &program)?));
        }
        Ok(())
    }

    pub(super) fn name(&self, node: usize) -> &str {
        &self.names[node]
    }

    pub(super) fn socket(&self, node: usize) -> PathBuf {
        self.rack.volatile(self.name(node)).join(SOCKET)
    }

    /// A node's status report, and how long the answer took; `None` if it does not answer.
    pub(super) fn ask(&self, node: usize) -> Option<(NodeStatus, Duration)> {
        let from = Moment::now();
        let answer = socket::ask(&self.socket(node)).ok()?;
        let took = Moment::now().since(from);
        Some(((self.read)(&answer)?, took))
    }

    /// How many service addresses these nodes have.
    pub(super) fn count(&self, nodes: &[usize]) -> Result<usize, Fault> {
        nodes.iter().try_fold(0, |sum, node| Ok(sum + self.held(*node)?.len()))
    }

    /// The groups whose addresses a node has.
    fn held(&self, node: usize) -> Result<Vec<usize>, Fault> {
        let mut netlink = self.kernels[node].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // While thousands of addresses come and go, the kernel cannot dump them consistently.
        let all = await_some(WHOLE_LIST, || match netlink.addresses() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            other => Some(other),
        });
        let all = all.unwrap_or_else(|| netlink.addresses());
        let all = all.doing(|| format!("look at the addresses of {}", self.name(node)))?;
        Ok(all.iter().filter_map(|address| group_at(address.ip)).collect())
    }

    /// The name of a group that a node has.
    pub(super) fn group_of(&self, node: usize) -> Result<String, Fault> {
        let held = self.held(node)?;
        let first = held.iter().min();
        first.map(|group| group_name(*group)).ok_or_else(|| Fault::Description("no group is there".into()))
    }

    /// The node with the most groups.
    pub(super) fn fullest(&self, nodes: &[usize]) -> Result<usize, Fault> {
        let mut best = (0, 0);
        for &node in nodes {
            let held = self.count(&[node])?;
            if held > best.1 {
                best = (node, held);
            }
        }
        Ok(best.0)
    }

    pub(super) fn lose_power(&mut self, node: usize) -> Result<Moment, Fault> {
        let name = self.name(node).to_owned();
        let from = self.rack.power_off(&name)?;
        self.daemons[node] = None;
        Ok(from)
    }

    /// Daemons that have ended by themselves.
    pub(super) fn died(&mut self) -> Vec<String> {
        let names = self.names.iter().map(String::as_str).chain([WITNESS]);
        let ended = names.zip(&mut self.daemons).filter_map(|(name, daemon)| {
            let status = daemon.as_mut()?.ended()?;
            Some(format!("{name}: {status}"))
        });
        ended.collect()
    }

    pub(super) fn used(&self, nodes: &[usize]) -> Vec<Used> {
        nodes.iter().map(|node| self.daemons[*node].as_ref().map_or_else(Used::nothing, Used::by)).collect()
    }

    /// Resident memory of a node's daemon in bytes.
    pub(super) fn resident(&self, node: usize) -> u64 {
        let Some(daemon) = &self.daemons[node] else { return 0 };
        let text = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kibibytes.unwrap_or_default() * 1024
    }
}

impl Used {
    fn nothing() -> Self {
        Self { at: Moment::now(), heart: Duration::ZERO, all: Duration::ZERO }
    }

    /// The processor time of a daemon's threads. A daemon that has ended counts as zero.
    fn by(daemon: &Process) -> Self {
        let mut used = Self::nothing();
        let threads = fs::read_dir(format!("/proc/{}/task", daemon.id())).into_iter().flatten().flatten();
        for thread in threads.map(|entry| entry.path()) {
            let read = |name: &str| fs::read_to_string(thread.join(name)).unwrap_or_default();
            let nanos = read("schedstat").split(' ').next().and_then(|word| word.parse().ok());
            let time = Duration::from_nanos(nanos.unwrap_or_default());
            used.all += time;
            if read("comm").trim() == "heart" {
                used.heart += time;
            }
        }
        used
    }
}

/// Clients and the first link are on one network, the second link and the witness on another.
fn description(setup: &ScaleSetup, names: &[String]) -> Description {
    let places: Vec<(String, String)> =
        (1..=names.len()).map(|n| (format!("10.99.0.{n}/16"), format!("10.98.0.{n}/24"))).collect();
    let (mut front, mut back) = (Vec::new(), vec![(WITNESS, "eth0", "10.98.0.250/24")]);
    for (name, (one, other)) in names.iter().zip(&places) {
        front.push((name.as_str(), "eth0", one.as_str()));
        back.push((name.as_str(), "eth1", other.as_str()));
    }
    let rack = Description::new(&setup.program).node(WITNESS);
    let rack = names.iter().fold(rack, |rack, name| rack.node(name));
    rack.segment("front", &front).segment("back", &back)
}

fn locum_toml(setup: &ScaleSetup, names: &[String]) -> String {
    let mut file = format!("cluster = \"scale\"\npace = \"{}ms\"\n", setup.pace.as_millis());
    for (index, name) in names.iter().enumerate() {
        let (front, back) = match index + 1 {
            _ if names.len() > UNICAST_MAX => ("eth0".to_owned(), "eth1".to_owned()),
            n => (format!("10.99.0.{n}"), format!("10.98.0.{n}")),
        };
        let _ = writeln!(file, "nodes.{name}.links = {{ front = \"{front}\", back = \"{back}\" }}");
    }
    let _ = writeln!(file, "witnesses.{WITNESS}.address = \"10.98.0.250\"");
    for group in 0..setup.groups {
        let _ = writeln!(file, "[groups.{}]", group_name(group));
        let _ = writeln!(file, "resources = [\"{}/16/eth0\"]", address_of(group));
        if setup.spread {
            let _ = writeln!(file, "prefer = \"{}\"", names[group % names.len()]);
        }
    }
    file
}

fn group_name(group: usize) -> String {
    format!("g{group:04}")
}

fn address_of(group: usize) -> Ipv4Addr {
    let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 99, byte(1 + group / TO_A_BLOCK), byte(1 + group % TO_A_BLOCK))
}

fn group_at(ip: IpAddr) -> Option<usize> {
    let IpAddr::V4(ip) = ip else { return None };
    match ip.octets() {
        [10, 99, block, rest] if block > 0 && rest > 0 => {
            Some((usize::from(block) - 1) * TO_A_BLOCK + usize::from(rest) - 1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_an_address_of_its_own() {
        for group in [0, 199, 200, 4095] {
            assert_eq!(group_at(address_of(group).into()), Some(group));
        }
        assert_eq!(group_at(IpAddr::from([10, 99, 0, 3])), None, "a node's own");
    }
}
