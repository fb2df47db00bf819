//! The answer to `GET /status`: the cluster as the core sees it, and facts that only the daemon around it knows.

use std::hash::{DefaultHasher, Hasher};

use crate::{
    heart::{HeartStats, OvertakenState, Register},
    host_config::HostConfig,
};
use locum_core::{
    model::resource::{Address, Agent},
    native,
    r1::{ownership, status::R1Status},
};
use locum_sys::netlink::{self, Netlink};
use serde::{Deserialize, Serialize};

/// The whole answer. In JSON, the fields of the core's view stand beside the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport<S = R1Status> {
    #[serde(flatten)]
    pub cluster: S,
    pub daemon: DaemonInfo,
    /// The heart's own figures.
    pub heart: HeartStats,
    /// The interfaces on which the groups' addresses are or would be.
    pub service_interfaces: Vec<ServiceInterface>,
}

/// The daemon's process, which gives the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonInfo {
    pub version: String,
    pub pid: u32,
    pub config: String,
    /// Whether this node compares its ping nodes with the peer's.
    pub ipfail: bool,
    /// Why processes that run here are not kept together by control groups; absent when they are.
    pub control_groups_missing: Option<String>,
    /// Rights that this process lacks, so that something does not work; each with the cure.
    #[serde(default)]
    pub rights_missing: Vec<String>,
}

/// An interface that carries service addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInterface {
    pub address: String,
    /// The key of its group.
    pub group: String,
    /// The interface; absent when no interface fits the address.
    pub interface: Option<String>,
    /// Why clients cannot be served there; absent when the interface has a carrier.
    pub fault: Option<String>,
}

/// The answer of a node of a native cluster.
pub type NativeStatusReport = StatusReport<native::status::NativeStatus>;

/// The answer of either dialect.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyStatusReport {
    /// From a node with heartbeat's files.
    R1(Box<StatusReport>),
    /// From a node of a native cluster.
    Native(Box<NativeStatusReport>),
}

/// The field that tells the answers apart.
#[derive(Deserialize)]
struct DialectTag {
    dialect: String,
}

impl AnyStatusReport {
    /// Reads an answer of either dialect.
    ///
    /// # Errors
    /// If this version cannot read the answer.
    pub fn read(answer: &[u8]) -> serde_json::Result<Self> {
        let DialectTag { dialect } = serde_json::from_slice(answer)?;
        Ok(match dialect.as_str() {
            "native" => Self::Native(serde_json::from_slice(answer)?),
            _ => Self::R1(serde_json::from_slice(answer)?),
        })
    }

    /// Writes the answer as JSON.
    ///
    /// # Errors
    /// No error is known: all fields can be written.
    pub fn write(&self) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::R1(report) => serde_json::to_vec(report),
            Self::Native(report) => serde_json::to_vec(report),
        }
    }

    /// A digest of [`Self::without_counters`]. If it differs, watchers are told.
    #[must_use]
    pub fn stable_digest(self) -> u64 {
        let mut digest = DigestWriter(DefaultHasher::new());
        // All fields can be written, and a digest takes all bytes.
        let _ = match self.without_counters() {
            Self::R1(report) => serde_json::to_writer(&mut digest, &report),
            Self::Native(report) => serde_json::to_writer(&mut digest, &report),
        };
        digest.0.finish()
    }

    /// Everything that is not well, one sentence each; empty when all is well.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        match self {
            Self::R1(report) => report.troubles(),
            Self::Native(report) => report.troubles(),
        }
    }

    /// The parts whose change is reported at once: everything but clocks and counters.
    #[must_use]
    pub fn without_counters(mut self) -> Self {
        match &mut self {
            Self::R1(report) => {
                report.heart = HeartStats::default();
                let cluster = &mut report.cluster;
                (cluster.uptime, cluster.frames) = (0.0, locum_core::model::status::Frames::default());
                cluster.nodes.iter_mut().for_each(|node| node.heard = None);
                cluster.links.iter_mut().for_each(|link| link.heard = None);
                cluster.groups.iter_mut().for_each(|group| group.since = None);
            }
            Self::Native(report) => {
                report.heart = HeartStats::default();
                let cluster = &mut report.cluster;
                (cluster.uptime, cluster.frames) = (0.0, locum_core::model::status::Frames::default());
                cluster.votes.ceiling = 0;
                cluster.votes.single_vote = cluster.votes.single_vote.map(|_| 0.0);
                if let native::status::OwnVote::Mute { left } = &mut cluster.votes.own {
                    *left = 0.0;
                }
                cluster.foreign.iter_mut().for_each(|(_, frames)| *frames = 0);
                for member in &mut cluster.members {
                    member.heard = None;
                    member.links.iter_mut().for_each(|path| path.heard = None);
                }
                cluster.pins.iter_mut().for_each(|pin| pin.age = None);
                for group in &mut cluster.groups {
                    (group.lease_left, group.gate_left) = (None, None);
                    group.pins.iter_mut().for_each(|pin| pin.age = None);
                }
            }
        }
        self
    }
}

/// Feeds bytes into a digest.
struct DigestWriter(DefaultHasher);

impl std::io::Write for DigestWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<S> StatusReport<S> {
    fn host_troubles(&self) -> impl Iterator<Item = String> {
        let services = self.service_interfaces.iter().filter_map(|service| {
            let fault = service.fault.as_ref()?;
            Some(format!("service address {}: {fault}", service.address))
        });
        let gates = &self.heart.gates.gates;
        let faults =
            gates.iter().filter_map(|gate| Some(format!("group {}: {}", gate.group, gate.fault.as_ref()?)));
        let rivals = self.heart.rivals.iter().map(|rival| {
            let others = match rival.changed {
                0 => String::new(),
                changed => format!("; its hardware address has changed {changed} times"),
            };
            format!(
                "service address {}: another machine uses it, too: {} on {} ({} s ago){others}",
                rival.address,
                rival.mac,
                rival.interface,
                rival.ago_ms / 1000
            )
        });
        // Without the filter other interfaces answer for an address, too, even after this daemon has ended.
        let fault = self.heart.arp_filter.fault.iter().filter(|_| self.heart.gates.backend.is_some());
        let filter = fault.map(|fault| {
            format!(
                "ARP filter: missing: {fault}: every interface of this node answers for service addresses"
            )
        });
        let overtaken = self.heart.gates.overtaken.iter().filter(|overtaken| overtaken.lasts).map(|overtaken| {
            let OvertakenState { interface, by, times, .. } = overtaken;
            format!(
                "{interface}: the program {by} keeps being attached in front of the gates ({times} times): gates \
                 there are not reliable; find the program that attaches it with `bpftool net`, and stop it"
            )
        });
        let rights = self.daemon.rights_missing.iter().cloned();
        rights
            .chain(services)
            .chain(faults)
            .chain(rivals)
            .chain(filter)
            .chain(overtaken)
            .chain(self.heart.overload.clone())
    }
}

impl NativeStatusReport {
    /// Everything that is not well, one sentence each; empty when all is well.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let without = &self.heart.gates.without;
        // With ha.cf no group relies on a gate.
        let missing = (!without.is_empty()).then(|| {
            let groups = without.join(" ");
            format!("no gate is possible here (run `locum gate` for the reason), but these groups need one: {groups}")
        });
        self.cluster.troubles.iter().cloned().chain(self.host_troubles()).chain(missing).collect()
    }
}

impl StatusReport {
    /// Everything that is not well, one sentence each; empty when all is well.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = self.cluster.troubles.clone();
        if !matches!(self.cluster.state, ownership::R1State::Stable) {
            let state = match self.cluster.state {
                ownership::R1State::Leaving | ownership::R1State::Left => "leaving the cluster",
                _ => "not settled yet",
            };
            troubles.push(format!("{} is {state}", self.cluster.node));
        }
        troubles.extend(self.host_troubles());
        troubles
    }
}

/// The interface of every service address, as the kernel reports it now.
#[must_use]
pub fn service_interfaces(host_config: &HostConfig) -> Vec<ServiceInterface> {
    let addresses: Vec<(&str, &Address)> = host_config
        .groups
        .iter()
        .flat_map(|group| group.resources.iter().map(move |resource| (group.key.as_str(), &resource.agent)))
        .filter_map(|(key, agent)| match agent {
            Agent::Address(address) => Some((key, address)),
            _ => None,
        })
        .collect();
    let kernel =
        if addresses.is_empty() { Ok(KernelInterfaces::default()) } else { KernelInterfaces::look() };
    let found = |address: &Address| match &kernel {
        Ok(kernel) => kernel.interface_of(address),
        Err(error) => {
            (address.interface.clone(), Some(format!("cannot read the kernel's interfaces: {error}")))
        }
    };
    addresses
        .into_iter()
        .map(|(group, address)| {
            let (interface, fault) = found(address);
            ServiceInterface { address: address.ip.to_string(), group: group.to_owned(), interface, fault }
        })
        .collect()
}

#[derive(Default)]
struct KernelInterfaces {
    interfaces: Vec<netlink::Interface>,
    addresses: Register,
}

impl KernelInterfaces {
    fn look() -> std::io::Result<Self> {
        let mut netlink = Netlink::open()?;
        Ok(Self { interfaces: netlink.interfaces()?, addresses: Register::of(netlink.addresses_roughly()?) })
    }

    /// The named interface, or the one whose network contains the address; and its fault, if any.
    fn interface_of(&self, address: &Address) -> (Option<String>, Option<String>) {
        let by_name =
            |name: &String| self.interfaces.iter().find(|i| i.name == *name).ok_or_else(|| name.clone());
        let by_network = || {
            let way = self.addresses.choose(None, address.ip)?;
            self.interfaces.iter().find(|interface| interface.index == way.interface)
        };
        let interface = match &address.interface {
            Some(name) => by_name(name).map(Some),
            None => Ok(by_network()),
        };
        match interface {
            Err(name) => (Some(name.clone()), Some(format!("there is no interface {name}"))),
            Ok(None) => (None, Some("no interface has a network that contains this address".to_owned())),
            Ok(Some(interface)) => {
                let name = &interface.name;
                (Some(name.clone()), interface.trouble().map(|trouble| format!("{name} {trouble}")))
            }
        }
    }
}
