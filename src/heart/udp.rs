//! A link over UDP: all media lines of one interface. It is opened when the interface is fit for them and closed when
//! it no longer is.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use locum_core::{model::event::Carrier, r1::plan::R1Medium};
use locum_sys::{
    netlink::{Interface, InterfaceAddress},
    poll::{Interest, Poller},
    udp::{PortSharing, UdpReceiver, UdpSender},
};

use super::{holders::Holders, network::Network, stats::LinkStats};
use crate::host_config::{LinkInterface, Ports};

/// One link's sockets and state.
pub(super) struct UdpLink {
    link_interface: LinkInterface,
    media: Vec<R1Medium>,
    ports: Ports,
    /// The state of the interface for which the sockets were opened; `None` when they are closed.
    fitness: Option<Fitness>,
    receivers: Vec<UdpReceiver>,
    destinations: Vec<UdpDestination>,
    /// Why the link cannot be used, if the interface is not the reason.
    trouble: Option<String>,
    /// The port that another process holds.
    taken: Option<u16>,
    /// How many frames the kernel dropped on sockets that were closed since.
    dropped_before: u64,
}

/// One destination of a frame.
struct UdpDestination {
    sender: UdpSender,
    to: SocketAddr,
}

/// What an interface allows. If any of it changes, the sockets are opened anew.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fitness {
    interface: Interface,
    ipv4: bool,
    ipv6: bool,
    broadcast: Option<Ipv4Addr>,
    /// The source address for each medium: never a service address.
    sources: Vec<Option<IpAddr>>,
}

impl UdpLink {
    pub(super) fn new(place: &LinkInterface, media: &[R1Medium], ports: Ports) -> Self {
        Self {
            link_interface: place.clone(),
            media: media.to_vec(),
            ports,
            fitness: None,
            receivers: Vec::new(),
            destinations: Vec::new(),
            trouble: None,
            taken: None,
            dropped_before: 0,
        }
    }

    /// Compares the sockets with what the interface allows now, and opens, reopens or closes them. `services` are the
    /// cluster's own addresses: they come and go with their groups, so a link must not rest on them. `token` gives each
    /// receiver its number in the poller.
    pub(super) fn check(
        &mut self,
        network: &Network,
        services: &BTreeSet<IpAddr>,
        holders: &Holders,
        poller: &Poller,
        token: impl Fn(usize) -> u64,
    ) -> Carrier {
        let fitness = fitness(&self.link_interface, &self.media, network, services);
        let fitness = match fitness.and_then(|fitness| fitness.suits(&self.media)) {
            Ok(fitness) => fitness,
            Err(why) => {
                self.close();
                return Carrier::Down(why);
            }
        };
        if self.fitness.as_ref() != Some(&fitness) {
            self.close();
            match self.open(&fitness, holders, poller, token) {
                Ok(()) => self.fitness = Some(fitness),
                Err(error) => {
                    let taken = self.taken;
                    self.close();
                    self.taken = taken;
                    return Carrier::Down(format!("{}: {error}", fitness.interface.name));
                }
            }
        }
        self.carrier()
    }

    fn carrier(&self) -> Carrier {
        self.trouble.clone().map_or(Carrier::Up, Carrier::Down)
    }

    fn open(
        &mut self,
        fitness: &Fitness,
        holders: &Holders,
        poller: &Poller,
        token: impl Fn(usize) -> u64,
    ) -> io::Result<()> {
        let Fitness { interface, .. } = fitness;
        let media: Vec<_> = self.media.iter().zip(&fitness.sources).collect();
        let mut listeners = Vec::new();
        for (medium, source) in media.into_iter().filter(|(medium, _)| fitness.suits_medium(medium)) {
            let source = *source;
            match *medium {
                R1Medium::Broadcast { port, .. } => {
                    add_listener(
                        &mut listeners,
                        ListenerSpec::Any { ipv6: false, port, sharing: PortSharing::Copied },
                    );
                    let broadcast = fitness.broadcast.unwrap_or(Ipv4Addr::BROADCAST);
                    let to = SocketAddr::new(broadcast.into(), port);
                    self.destinations
                        .push(UdpDestination { sender: UdpSender::broadcast(interface, source)?, to });
                }
                R1Medium::Multicast { group, port, ttl, loopback, .. } => {
                    add_listener(&mut listeners, ListenerSpec::Group { group, port });
                    let sender = UdpSender::multicast(interface, group.is_ipv6(), ttl, loopback, source)?;
                    self.destinations
                        .push(UdpDestination { sender, to: destination(group, port, interface) });
                }
                R1Medium::Unicast { peer, port, .. } => {
                    let sharing = match self.ports {
                        Ports::Shared => PortSharing::Balanced,
                        Ports::Own => PortSharing::Exclusive,
                    };
                    add_listener(&mut listeners, ListenerSpec::Any { ipv6: peer.is_ipv6(), port, sharing });
                    let sender = UdpSender::unicast(interface, peer.is_ipv6(), source)?;
                    self.destinations.push(UdpDestination { sender, to: destination(peer, port, interface) });
                }
                R1Medium::Serial { .. } => {}
            }
        }
        for listener in listeners {
            let receiver = match listener {
                ListenerSpec::Any { ipv6, port, sharing } => {
                    UdpReceiver::open(interface, ipv6, port, sharing).map_err(|error| {
                        self.taken = (error.kind() == io::ErrorKind::AddrInUse).then_some(port);
                        taken(error, port, holders)
                    })?
                }
                ListenerSpec::Group { group, port } => {
                    UdpReceiver::join(interface, group, port).map_err(|error| taken(error, port, holders))?
                }
            };
            poller.add(&receiver, token(self.receivers.len()), Interest::Read)?;
            self.receivers.push(receiver);
        }
        Ok(())
    }

    fn close(&mut self) {
        self.dropped_before = self.dropped();
        self.fitness = None;
        self.trouble = None;
        self.taken = None;
        self.receivers.clear();
        self.destinations.clear();
    }

    /// Sends a frame over all media. Returns the link's state if that has changed it.
    pub(super) fn send(&mut self, bytes: &[u8], stats: &mut LinkStats) -> Option<Carrier> {
        let mut trouble = None;
        let mut sent = false;
        for way in &self.destinations {
            match way.sender.send(bytes, way.to) {
                Ok(()) => {
                    stats.frames_out += 1;
                    stats.bytes_out += bytes.len() as u64;
                    sent = true;
                }
                Err(error) => {
                    stats.errors_out += 1;
                    // A full queue is loss like any other, not a fault of the link.
                    if error.kind() != io::ErrorKind::WouldBlock {
                        trouble = Some(format!("cannot send to {}: {error}", way.to));
                    } else {
                        sent = true;
                    }
                }
            }
        }
        if self.destinations.is_empty() {
            stats.errors_out += 1;
            return None;
        }
        let trouble = if sent { None } else { trouble };
        if trouble == self.trouble {
            return None;
        }
        self.trouble = trouble;
        Some(self.carrier())
    }

    /// The port that another process holds, so that the link could not be opened.
    pub(super) fn taken(&self) -> Option<u16> {
        self.taken
    }

    pub(super) fn receiver(&self, receiver: usize) -> Option<&UdpReceiver> {
        self.receivers.get(receiver)
    }

    /// How many frames the kernel dropped because they were not read in time.
    pub(super) fn dropped(&self) -> u64 {
        let now: u64 = self.receivers.iter().map(|receiver| u64::from(receiver.dropped().unwrap_or(0))).sum();
        self.dropped_before + now
    }
}

/// One receiving socket. Several unicast lines of one interface share it: with several sockets on one port the kernel
/// would deal incoming frames among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListenerSpec {
    Any { ipv6: bool, port: u16, sharing: PortSharing },
    Group { group: IpAddr, port: u16 },
}

fn add_listener(listeners: &mut Vec<ListenerSpec>, new: ListenerSpec) {
    for listener in listeners.iter_mut() {
        match (listener, new) {
            (
                ListenerSpec::Any { ipv6, port, sharing },
                ListenerSpec::Any { ipv6: new_ipv6, port: new_port, sharing: new_sharing },
            ) if (*ipv6, *port) == (new_ipv6, new_port) => {
                // The demands of a unicast line are stricter.
                if *sharing == PortSharing::Copied {
                    *sharing = new_sharing;
                }
                return;
            }
            (listener, new) if *listener == new => return,
            _ => {}
        }
    }
    listeners.push(new);
}

/// The error text for a port in use: which process holds it, and what helps.
pub(super) fn taken(error: io::Error, port: u16, holders: &Holders) -> io::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let text = match holders.name(port) {
                Some(holder) => format!(
                    "UDP port {port} is in use: {holder} holds it; stop that program, or give one of the two \
                     another `port`; tried again until it is free"
                ),
                None => format!(
                    "UDP port {port} is in use by another program, cluster or link here (`ss -ulnp` shows it): give \
                     one of them another `port`; tried again until it is free"
                ),
            };
            io::Error::new(io::ErrorKind::AddrInUse, text)
        }
        io::ErrorKind::PermissionDenied => {
            let text = format!(
                "UDP port {port} needs a capability: give the daemon CAP_NET_BIND_SERVICE \
                 (`--cap-add=NET_BIND_SERVICE` of its container, CapabilityBoundingSet= of its unit), or set a port \
                 from 1024 on for both nodes (`udpport`)"
            );
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        }
        _ => error,
    }
}

/// The destination with its interface: link-local IPv6 addresses and groups need one.
fn destination(ip: IpAddr, port: u16, interface: &Interface) -> SocketAddr {
    let mut to = SocketAddr::new(ip, port);
    if let SocketAddr::V6(to) = &mut to
        && (to.ip().is_unicast_link_local() || to.ip().is_multicast())
    {
        to.set_scope_id(interface.index);
    }
    to
}

/// What the interface allows now, or why it allows nothing.
fn fitness(
    place: &LinkInterface,
    media: &[R1Medium],
    network: &Network,
    services: &BTreeSet<IpAddr>,
) -> Result<Fitness, String> {
    let interface = match place {
        LinkInterface::Named(name) => {
            network.interface(name).ok_or_else(|| format!("there is no interface {name}"))?
        }
        LinkInterface::Carrying(ip) => {
            let there = network.carrying(*ip).next();
            there
                .and_then(|address| network.interface_by_index(address.interface))
                .ok_or_else(|| format!("no interface has the address {ip}"))?
        }
    };
    let name = &interface.name;
    if let Some(trouble) = interface.trouble() {
        return Err(format!("interface {name} {trouble}"));
    }
    let own: Vec<&InterfaceAddress> = network
        .addresses()
        .filter(|a| a.interface == interface.index && !a.marked && !services.contains(&a.ip))
        .collect();
    let named = match place {
        LinkInterface::Carrying(ip) => Some(*ip),
        LinkInterface::Named(_) => None,
    };
    let sources = media.iter().map(|medium| source(medium, &own, named)).collect();
    let mut fitness =
        Fitness { interface: interface.clone(), ipv4: false, ipv6: false, broadcast: None, sources };
    for address in own {
        if address.ip.is_ipv4() {
            fitness.ipv4 = true;
            fitness.broadcast = fitness.broadcast.or(address.broadcast_address());
        } else if !address.tentative && !address.duplicate {
            fitness.ipv6 = true;
        }
    }
    Ok(fitness)
}

/// The machine's own address on this interface from which a medium's frames leave: the one in the configuration, else
/// the one whose network holds the other side, else the first. The kernel might choose a service address, which moves
/// to another machine and which packet filters do not expect.
fn source(medium: &R1Medium, own: &[&InterfaceAddress], named: Option<IpAddr>) -> Option<IpAddr> {
    let to = match medium {
        R1Medium::Broadcast { .. } => IpAddr::V4(Ipv4Addr::BROADCAST),
        R1Medium::Multicast { group: ip, .. } | R1Medium::Unicast { peer: ip, .. } => *ip,
        R1Medium::Serial { .. } => return None,
    };
    if named.is_some_and(|ip| ip.is_ipv4() == to.is_ipv4()) {
        return named;
    }
    let is_local = |ip: IpAddr| match ip {
        IpAddr::V4(_) => false,
        // The scope of a group is the last digit of its first part: 2 is the segment.
        IpAddr::V6(ip) => ip.is_unicast_link_local() || (ip.is_multicast() && ip.segments()[0] & 0x000f <= 2),
    };
    let usable = own.iter().filter(|a| a.ip.is_ipv4() == to.is_ipv4() && !a.tentative && !a.duplicate);
    let rank = |a: &InterfaceAddress| {
        let prefix = if a.network_contains(to) { a.prefix.into() } else { -1 };
        (is_local(a.ip) == is_local(to), !a.secondary, prefix)
    };
    let best = usable.fold(None, |best: Option<&InterfaceAddress>, next| match best {
        Some(best) if rank(best) >= rank(next) => Some(best),
        _ => Some(next),
    });
    best.map(|address| address.ip)
}

impl Fitness {
    fn suits_medium(&self, medium: &R1Medium) -> bool {
        match medium {
            R1Medium::Broadcast { .. } => self.broadcast.is_some(),
            R1Medium::Multicast { group: ip, .. } | R1Medium::Unicast { peer: ip, .. } => {
                if ip.is_ipv6() {
                    self.ipv6
                } else {
                    self.ipv4
                }
            }
            R1Medium::Serial { .. } => false,
        }
    }

    /// Returns itself if at least one medium can be used.
    fn suits(self, media: &[R1Medium]) -> Result<Self, String> {
        if media.iter().any(|medium| self.suits_medium(medium)) {
            return Ok(self);
        }
        let name = &self.interface.name;
        Err(match media.first() {
            Some(R1Medium::Broadcast { .. }) if self.ipv4 => {
                format!("the network of interface {name} has no broadcast address")
            }
            Some(R1Medium::Multicast { group: ip, .. } | R1Medium::Unicast { peer: ip, .. })
                if ip.is_ipv6() =>
            {
                format!("interface {name} has no usable IPv6 address")
            }
            _ => format!("interface {name} has no IPv4 address"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_leave_from_the_nodes_own_address() {
        let at = |ip: &str, prefix| InterfaceAddress::new(2, ip.parse().unwrap(), prefix);
        let behind = InterfaceAddress { secondary: true, ..at("10.0.0.2", 24) };
        let all = [at("10.9.0.1", 16), behind, at("10.0.0.1", 24), at("2001:db8::1", 64), at("fe80::1", 64)];
        let own: Vec<_> = all.iter().collect();
        let to = |ip: &str| {
            let peer: IpAddr = ip.parse().unwrap();
            let interface = "eth0".to_string();
            let medium = match peer.is_multicast() {
                false => R1Medium::Unicast { interface, peer, port: 694 },
                true => R1Medium::Multicast { interface, group: peer, port: 694, ttl: 1, loopback: false },
            };
            source(&medium, &own, None).unwrap().to_string()
        };
        assert_eq!(
            (to("10.0.0.9"), to("10.9.7.7"), to("192.0.2.7")),
            ("10.0.0.1".into(), "10.9.0.1".into(), "10.9.0.1".into())
        );
        assert_eq!((to("2001:db8::9"), to("2001:db8:7::9")), ("2001:db8::1".into(), "2001:db8::1".into()));
        assert_eq!(
            (to("fe80::9"), to("ff02::694"), to("ff05::694")),
            ("fe80::1".into(), "fe80::1".into(), "2001:db8::1".into())
        );
        let broadcast = R1Medium::Broadcast { interface: "eth0".into(), port: 694 };
        assert_eq!(source(&broadcast, &own, None), Some(all[0].ip));
        assert_eq!(source(&broadcast, &own, Some(all[2].ip)), Some(all[2].ip));
        assert_eq!(source(&broadcast, &own[3..], None), None);
    }

    #[test]
    fn one_listener_for_all_unicast_lines() {
        let mut listeners = Vec::new();
        let any = |ipv6, port, sharing| ListenerSpec::Any { ipv6, port, sharing };
        add_listener(&mut listeners, any(false, 694, PortSharing::Balanced));
        add_listener(&mut listeners, any(false, 694, PortSharing::Balanced));
        add_listener(&mut listeners, any(true, 694, PortSharing::Balanced));
        add_listener(&mut listeners, any(false, 695, PortSharing::Copied));
        let group = "239.0.0.1".parse().unwrap();
        add_listener(&mut listeners, ListenerSpec::Group { group, port: 694 });
        add_listener(&mut listeners, ListenerSpec::Group { group, port: 694 });
        assert_eq!(listeners.len(), 4);
        add_listener(&mut listeners, any(false, 695, PortSharing::Balanced));
        assert_eq!(listeners[2], any(false, 695, PortSharing::Balanced));
        add_listener(&mut listeners, any(false, 695, PortSharing::Copied));
        assert_eq!(
            listeners[2],
            any(false, 695, PortSharing::Balanced),
            "what is sent to one address wants more"
        );
    }
}
