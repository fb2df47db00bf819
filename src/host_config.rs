//! The host config: what the heart and the control plane have to know of a configuration of either dialect. It holds
//! this member's name, its links, the groups that it may have to run, and its times.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use locum_core::{
    model::{
        identity::{GroupIndex, NodeIndex, ResourceId},
        logging::Logging,
        resource::{Agent, Resource},
    },
    native::{
        self,
        plan::{Guard, LinkEnd, NativeMember, WitnessIndex},
    },
    r1::plan::{self, AutoFailback, Client, Fencing, PingNode, R1Limits, R1Medium},
};

/// The host config of one configuration. Indices mean the same as in its plan.
#[derive(Clone, Debug, PartialEq)]
pub struct HostConfig {
    pub cluster: String,
    pub me: String,
    /// The names of all members, by the index with which the core asks to remember something.
    pub members: Vec<String>,
    /// The links, in the order of the plan. In a native cluster the paths between nodes and witnesses follow.
    pub links: Vec<Link>,
    pub pings: Vec<PingNode>,
    /// The groups that this member may have to run.
    pub groups: Vec<HostGroup>,
    /// The time between two beats.
    pub beat: Duration,
    /// After this silence a member counts as dead.
    pub deadtime: Duration,
    /// The SCHED_FIFO priority that the heart asks for, if any.
    pub realtime: Option<u8>,
    /// Where the log lines go.
    pub logging: Logging,
    /// The device that resets this machine when the heart does not beat.
    pub watchdog: Option<String>,
    /// The device that resets a silent peer.
    pub fencing: Option<Fencing>,
    /// Programs that run while this node takes part.
    pub clients: Vec<Client>,
    /// Whether this node compares its ping nodes with the peer's.
    pub ipfail: bool,
    /// Event scripts get the variables of `auto_failback legacy`.
    pub legacy: bool,
    /// No other node could run any of the groups.
    pub is_only_node: bool,
    /// The names that no other process of this network namespace may have at the same time. A native cluster's name is
    /// its own. heartbeat's files identify a cluster poorly: there may be two clusters on the same hosts, with ports or
    /// groups of their own.
    pub reserved_names: Vec<Vec<String>>,
}

/// One path to other members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    /// The hardware or addresses that carry the link.
    pub path: LinkPath,
}

/// The hardware or addresses that carry a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkPath {
    /// A serial null-modem line, which carries frames without UDP.
    Serial {
        device: String,
        /// The speed in bits a second.
        baud: u32,
    },
    /// UDP over one interface: a frame is sent over all these media, none of them serial.
    Interface(LinkInterface, Vec<R1Medium>, Ports),
    /// UDP wherever the routes lead, from one socket. With `to` it sends to this address, which answers there; without
    /// it only answers are sent, from the port of `from`.
    Routed {
        /// The other side; `None` if it is known from its frames alone.
        to: Option<SocketAddr>,
        /// The address on this side.
        from: SocketAddr,
    },
    /// This member is not connected to the link.
    Nowhere,
}

/// The programs that may listen at a link's UDP ports beside this daemon. A broadcast or multicast frame reaches all of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// A heartbeat may, with its own socket options. A frame to one address reaches one of the two.
    Shared,
    /// No program may, on links from address to address: two daemons would take each other's frames unseen.
    Own,
}

/// How the interface of a link is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkInterface {
    /// The interface of this name.
    Named(String),
    /// The interface that has this address.
    Carrying(IpAddr),
}

/// Resources that move together.
#[derive(Clone, Debug, PartialEq)]
pub struct HostGroup {
    pub key: String,
    /// The resources in the order of their starts.
    pub resources: Vec<Resource>,
    /// The limits of each resource.
    pub limits: Vec<R1Limits>,
    /// Whether the group's addresses stand behind a gate.
    pub gate: GatePolicy,
    /// How long the kernel keeps an address that is not renewed, in seconds; `None`: for ever.
    pub lifetime: Option<u32>,
}

/// How much a group relies on its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatePolicy {
    /// The group has no gate.
    None,
    /// It has one if the kernel can make it.
    WherePossible,
    /// Its addresses are not put anywhere without one.
    Required,
}

impl HostConfig {
    /// The resource behind an id.
    ///
    /// # Panics
    /// When the id was not made from this configuration.
    #[must_use]
    pub fn resource(&self, id: ResourceId) -> &Resource {
        &self.groups[id.group.0].resources[id.member]
    }

    /// The name of the resource behind an id, in log lines.
    ///
    /// # Panics
    /// When the id was not made from this configuration.
    #[must_use]
    pub fn name(&self, id: ResourceId) -> &str {
        self.resource(id).name(&self.groups[id.group.0].resources)
    }

    /// The limits of the resource behind an id.
    ///
    /// # Panics
    /// When the id was not made from this configuration.
    #[must_use]
    pub fn limits(&self, id: ResourceId) -> R1Limits {
        self.groups[id.group.0].limits[id.member]
    }

    /// All resources, in their order.
    pub fn resources(&self) -> impl Iterator<Item = (ResourceId, &Resource)> {
        self.groups.iter().enumerate().flat_map(|(group, members)| {
            members
                .resources
                .iter()
                .enumerate()
                .map(move |(member, resource)| (ResourceId { group: GroupIndex(group), member }, resource))
        })
    }
}

impl HostGroup {
    /// The service addresses of this group.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.resources.iter().filter_map(|resource| match &resource.agent {
            Agent::Address(address) => Some(address.ip),
            _ => None,
        })
    }
}

impl From<&plan::R1Plan> for HostConfig {
    fn from(plan: &plan::R1Plan) -> Self {
        let link = |link: &plan::R1Link| Link {
            name: link.name.clone(),
            path: match link.media.first() {
                Some(R1Medium::Serial { device, baud }) => {
                    LinkPath::Serial { device: device.clone(), baud: *baud }
                }
                _ => LinkPath::Interface(
                    LinkInterface::Named(link.name.clone()),
                    link.media.clone(),
                    Ports::Shared,
                ),
            },
        };
        let alone = plan.peer().is_none();
        let group = |group: &plan::R1Group| HostGroup {
            key: group.key.clone(),
            resources: group.resources.clone(),
            limits: vec![plan.limits; group.resources.len()],
            // A gate helps nobody where no other node can answer.
            gate: if alone { GatePolicy::None } else { GatePolicy::WherePossible },
            lifetime: None,
        };
        Self {
            cluster: plan.cluster.clone(),
            me: plan.nodes[plan.me.0].clone(),
            members: plan.nodes.clone(),
            links: plan.links.iter().map(link).collect(),
            pings: plan.pings.clone(),
            groups: plan.groups.iter().map(group).collect(),
            beat: plan.timing.keepalive,
            deadtime: plan.timing.deadtime,
            realtime: plan.realtime,
            logging: plan.logging.clone(),
            watchdog: plan.watchdog.clone(),
            fencing: plan.fencing.clone(),
            clients: plan.clients.clone(),
            ipfail: plan.ipfail,
            legacy: plan.auto_failback == AutoFailback::Legacy,
            is_only_node: alone,
            reserved_names: plan.groups.iter().map(|group| r1_reserved_name(plan, group)).collect(),
        }
    }
}

impl From<&native::plan::NativePlan> for HostConfig {
    fn from(plan: &native::plan::NativePlan) -> Self {
        let nodes = plan.nodes.iter().map(|node| node.name.clone());
        let witnesses = plan.witnesses.iter().map(|witness| witness.name.clone());
        // A witness runs nothing.
        let groups = match plan.me {
            NativeMember::Node(_) => {
                plan.groups.iter().map(|group| native_group(group, &plan.timing)).collect()
            }
            NativeMember::Witness(_) => Vec::new(),
        };
        Self {
            cluster: plan.cluster.clone(),
            me: plan.name(plan.me).to_owned(),
            members: nodes.chain(witnesses).collect(),
            links: native_links(plan),
            pings: Vec::new(),
            groups,
            beat: plan.timing.beat,
            deadtime: plan.timing.silent,
            realtime: plan.local.realtime,
            logging: plan.local.logging.clone(),
            watchdog: plan.local.watchdog.clone(),
            fencing: None,
            clients: Vec::new(),
            ipfail: false,
            legacy: false,
            is_only_node: false,
            reserved_names: vec![["native", &plan.cluster, plan.name(plan.me)].map(str::to_owned).into()],
        }
    }
}

/// The name of a group on a node. The links tell this cluster from others.
fn r1_reserved_name(plan: &plan::R1Plan, group: &plan::R1Group) -> Vec<String> {
    let ways = plan.links.iter().flat_map(|link| &link.media).map(|medium| match medium {
        R1Medium::Broadcast { port, .. }
        | R1Medium::Multicast { port, .. }
        | R1Medium::Unicast { port, .. } => port.to_string(),
        R1Medium::Serial { device, .. } => device.clone(),
    });
    let ways: BTreeSet<String> = ways.collect();
    let names = ["r1", &plan.cluster, &plan.nodes[plan.me.0]].map(str::to_owned);
    names.into_iter().chain(ways).chain([group.key.clone()]).collect()
}

fn native_group(group: &native::plan::NativeGroup, timing: &native::timing::NativeTiming) -> HostGroup {
    let limits = |resource: &native::plan::NativeResource| {
        let native::plan::NativeLimits { start, stop, monitor, .. } = resource.limits;
        R1Limits { start, stop, status: monitor }
    };
    let lifetime = u32::try_from(timing.address_lifetime().as_secs()).ok();
    HostGroup {
        key: group.name.clone(),
        resources: group.resources.iter().map(|resource| resource.runs.clone()).collect(),
        limits: group.resources.iter().map(limits).collect(),
        gate: if group.guard == Guard::None { GatePolicy::WherePossible } else { GatePolicy::Required },
        lifetime: lifetime.filter(|_| group.guard != Guard::None),
    }
}

/// The links of the plan, then one path for each witness. A node asks a witness by it; a witness answers where it was
/// asked from.
fn native_links(plan: &native::plan::NativePlan) -> Vec<Link> {
    let links = plan.links.iter().map(|link| Link {
        name: link.name.clone(),
        path: match plan.me {
            NativeMember::Node(me) => native_path(link, me),
            NativeMember::Witness(_) => LinkPath::Nowhere,
        },
    });
    let witnesses = plan.witnesses.iter().enumerate().map(|(index, witness)| Link {
        name: witness.name.clone(),
        path: match witness.address {
            here if plan.me == NativeMember::Witness(WitnessIndex(index)) => {
                LinkPath::Routed { to: None, from: any(here.is_ipv6(), here.port()) }
            }
            there => LinkPath::Routed { to: Some(there), from: any(there.is_ipv6(), 0) },
        },
    });
    links.chain(witnesses).collect()
}

fn any(ipv6: bool, port: u16) -> SocketAddr {
    let ip = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, port)
}

fn native_path(link: &native::plan::NativeLink, me: NodeIndex) -> LinkPath {
    let Some(Some(end)) = link.ends.get(me.0) else { return LinkPath::Nowhere };
    match (link.medium, end) {
        (native::plan::NativeMedium::Serial { baud }, LinkEnd::Device(device)) => {
            LinkPath::Serial { device: device.clone(), baud }
        }
        (native::plan::NativeMedium::Broadcast { port }, LinkEnd::Interface(interface)) => {
            let medium = R1Medium::Broadcast { interface: interface.clone(), port };
            LinkPath::Interface(LinkInterface::Named(interface.clone()), vec![medium], Ports::Own)
        }
        (native::plan::NativeMedium::Multicast { group, port, ttl }, LinkEnd::Interface(interface)) => {
            let medium =
                R1Medium::Multicast { interface: interface.clone(), group, port, ttl, loopback: false };
            LinkPath::Interface(LinkInterface::Named(interface.clone()), vec![medium], Ports::Own)
        }
        (native::plan::NativeMedium::Unicast { port }, LinkEnd::Address { ip, interface }) => {
            let name = interface.clone().unwrap_or_default();
            let others = link.ends.iter().enumerate().filter(|(node, _)| *node != me.0);
            let media = others.filter_map(|(_, end)| match end {
                Some(LinkEnd::Address { ip, .. }) => {
                    Some(R1Medium::Unicast { interface: name.clone(), peer: *ip, port })
                }
                _ => None,
            });
            let place = interface.clone().map_or(LinkInterface::Carrying(*ip), LinkInterface::Named);
            LinkPath::Interface(place, media.collect(), Ports::Own)
        }
        // The check of the configuration makes no such link.
        _ => LinkPath::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use locum_core::config::locum_toml;

    use super::*;

    const FILE: &str = r#"
        cluster = "shop"
        [nodes.web1]
        links = { front = "10.0.0.1", back = "eth1", wire = "/dev/ttyS0" }
        [nodes.web2]
        links = { front = "10.0.0.2%eth5", back = "eth1", wire = "/dev/ttyS0" }
        [nodes.web3]
        links = { front = "10.0.0.3", back = "eth2" }
        [witnesses.third]
        address = "10.9.0.1:7000"
        [groups.web]
        resources = ["10.0.0.100/24", { script = "x", stop-limit = "7s" }]
        guard = "lease"
    "#;

    fn host_config(me: &str) -> HostConfig {
        let checked = locum_toml::check(FILE.as_bytes(), me);
        HostConfig::from(&checked.plan.expect("a good file"))
    }

    fn path(host_config: &HostConfig, name: &str) -> LinkPath {
        host_config.links.iter().find(|link| link.name == name).unwrap().path.clone()
    }

    #[test]
    fn a_node_finds_its_ends_of_the_links() {
        let web1 = host_config("web1");
        let names: Vec<&str> = web1.links.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["back", "front", "wire", "third"], "witnesses follow");
        let LinkPath::Interface(place, media, Ports::Own) = path(&web1, "front") else { panic!() };
        assert_eq!(place, LinkInterface::Carrying("10.0.0.1".parse().unwrap()));
        let peers: Vec<String> = media
            .iter()
            .map(|medium| match medium {
                R1Medium::Unicast { peer, port: native::plan::PORT, .. } => peer.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(peers, ["10.0.0.2", "10.0.0.3"]);
        let LinkPath::Interface(place, _, _) = path(&host_config("web2"), "front") else { panic!() };
        assert_eq!(place, LinkInterface::Named("eth5".into()));
        assert_eq!(path(&web1, "wire"), LinkPath::Serial { device: "/dev/ttyS0".into(), baud: 115_200 });
        assert_eq!(path(&host_config("web3"), "wire"), LinkPath::Nowhere);
        let to = Some("10.9.0.1:7000".parse().unwrap());
        assert_eq!(path(&web1, "third"), LinkPath::Routed { to, from: "0.0.0.0:0".parse().unwrap() });
        let id = ResourceId { group: GroupIndex(0), member: 1 };
        assert_eq!(
            (web1.limits(id).stop, web1.groups[0].gate),
            (Duration::from_secs(7), GatePolicy::Required)
        );
        assert_eq!(web1.groups[0].lifetime, Some(10));
    }

    #[test]
    fn a_witness_answers_and_runs_nothing() {
        let third = host_config("third");
        assert!(third.groups.is_empty());
        assert_eq!(path(&third, "front"), LinkPath::Nowhere);
        assert_eq!(
            path(&third, "third"),
            LinkPath::Routed { to: None, from: "0.0.0.0:7000".parse().unwrap() }
        );
    }
}
