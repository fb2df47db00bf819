//! What `GET /status` tells: the cluster as the core sees it, and what only the daemon around it knows.

use crate::heart::HeartStats;
use locum_core::{
    plan::{Address, Agent, Plan},
    r1,
    status::{self, Status},
};
use locum_sys::netlink::{self, Netlink};
use serde::{Deserialize, Serialize};

/// The whole answer. As JSON, the fields of [`Status`] stand beside the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The core's view.
    #[serde(flatten)]
    pub cluster: Status,
    /// The process.
    pub daemon: Daemon,
    /// The heart's own figures.
    pub heart: HeartStats,
    /// Where the groups' addresses are or would be.
    pub service_interfaces: Vec<ServiceInterface>,
}

/// The process that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// The program's version.
    pub version: String,
    /// Its process number.
    pub pid: u32,
    /// Where its configuration lies.
    pub config: String,
    /// Whether this node compares its ping nodes with the peer's.
    pub ipfail: bool,
}

/// An interface that carries service addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInterface {
    /// The service address.
    pub address: String,
    /// The key of its group.
    pub group: String,
    /// The interface; absent when no interface fits the address.
    pub interface: Option<String>,
    /// Why nobody can be served there; absent when it has a carrier.
    pub fault: Option<String>,
}

impl Report {
    /// Everything that is not well, in words; empty when all is well.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = self.cluster.troubles.clone();
        if !matches!(self.cluster.state, r1::State::Stable) {
            let state = match self.cluster.state {
                r1::State::Leaving | r1::State::Left => "leaving the cluster",
                _ => "not settled yet",
            };
            troubles.push(format!("{} is {state}", self.cluster.node));
        }
        troubles.extend(self.service_interfaces.iter().filter_map(|service| {
            let fault = service.fault.as_ref()?;
            Some(format!("service address {}: {fault}", service.address))
        }));
        troubles
    }
}

/// What of an answer is news when it changes: everything but clocks and counters.
#[must_use]
pub fn face(answer: &[u8]) -> Option<Report> {
    let mut report: Report = serde_json::from_slice(answer).ok()?;
    report.heart = HeartStats::default();
    let cluster = &mut report.cluster;
    (cluster.uptime, cluster.frames) = (0.0, status::Frames::default());
    cluster.nodes.iter_mut().for_each(|node| node.heard = None);
    cluster.links.iter_mut().for_each(|link| link.heard = None);
    cluster.groups.iter_mut().for_each(|group| group.since = None);
    Some(report)
}

/// Looks at the kernel for the interface of every service address of the plan.
#[must_use]
pub fn service_interfaces(plan: &Plan) -> Vec<ServiceInterface> {
    let addresses: Vec<(&str, &Address)> = plan
        .groups
        .iter()
        .flat_map(|group| group.resources.iter().map(move |resource| (group.key.as_str(), &resource.agent)))
        .filter_map(|(key, agent)| match agent {
            Agent::Address(address) => Some((key, address)),
            _ => None,
        })
        .collect();
    let kernel = if addresses.is_empty() { Ok(Kernel::default()) } else { Kernel::look() };
    let found = |address: &Address| match &kernel {
        Ok(kernel) => kernel.interface_of(address),
        Err(error) => (address.interface.clone(), Some(format!("the kernel does not tell: {error}"))),
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
struct Kernel {
    interfaces: Vec<netlink::Interface>,
    addresses: Vec<netlink::InterfaceAddress>,
}

impl Kernel {
    fn look() -> std::io::Result<Self> {
        let mut netlink = Netlink::open()?;
        Ok(Self { interfaces: netlink.interfaces()?, addresses: netlink.addresses()? })
    }

    /// The interface as named, or the one whose network contains the address; and what is wrong with it.
    fn interface_of(&self, address: &Address) -> (Option<String>, Option<String>) {
        let by_name =
            |name: &String| self.interfaces.iter().find(|i| i.name == *name).ok_or_else(|| name.clone());
        let by_network = || {
            let way = netlink::choose_interface(&self.addresses, address.ip)?;
            self.interfaces.iter().find(|interface| interface.index == way.interface)
        };
        let interface = match &address.interface {
            Some(name) => by_name(name).map(Some),
            None => Ok(by_network()),
        };
        match interface {
            Err(name) => (Some(name.clone()), Some(format!("there is no interface {name}"))),
            Ok(None) => (None, Some("no interface has a network that contains it".to_owned())),
            Ok(Some(interface)) => {
                let name = &interface.name;
                (Some(name.clone()), interface.trouble().map(|trouble| format!("{name} {trouble}")))
            }
        }
    }
}
