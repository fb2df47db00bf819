//! IP addresses on interfaces.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Parseable};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo},
};

use super::{Netlink, settings::Promotion};

// linux/rtnetlink.h
const RTM_NEWADDR: u16 = 20;

/// The number (`IFA_PROTO`) by which the kernel remembers that Locum added an address. 0 to 3 are the kernel's own; `ip
/// address` shows it.
pub const ADDRESS_PROTOCOL: u8 = 76;
/// The same for kernels without `IFA_PROTO`: an unusual metric for the address's own network (`IFA_RT_PRIORITY`, from
/// 4.18 on).
pub const ADDRESS_METRIC: u32 = 0x4c6f_6375;
/// The first kernel version with [`ADDRESS_PROTOCOL`].
const PROTOCOL_SINCE: (u32, u32) = (5, 18);

/// An address on an interface at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The number of the interface that has it.
    pub interface: u32,
    /// The IP address itself, without its prefix.
    pub ip: IpAddr,
    /// The prefix length of its network.
    pub prefix: u8,
    /// IPv4: its label; the interface's name unless another was chosen.
    pub label: Option<String>,
    /// IPv4: the broadcast address that is stored with it, if any.
    pub broadcast: Option<Ipv4Addr>,
    /// IPv4: another address of the same network was there first. It goes when that one goes, unless the kernel is told
    /// to promote it (`promote_secondaries`).
    pub secondary: bool,
    /// IPv6: not usable yet, because duplicate address detection is running.
    pub tentative: bool,
    /// IPv6: another machine on the segment has it, too.
    pub duplicate: bool,
    /// It makes no route to its network.
    pub no_prefix_route: bool,
    /// Added by Locum, by this process or an earlier one.
    pub marked: bool,
    /// The rest of its lifetime; `None` if it has none and stays.
    pub lifetime: Option<Lifetime>,
}

impl InterfaceAddress {
    /// An address without a lifetime or mark, the first of its network.
    #[must_use]
    pub const fn new(interface: u32, ip: IpAddr, prefix: u8) -> Self {
        Self {
            interface,
            ip,
            prefix,
            label: None,
            broadcast: None,
            secondary: false,
            tentative: false,
            duplicate: false,
            no_prefix_route: false,
            marked: false,
            lifetime: None,
        }
    }

    /// Whether `ip` is in this address's network.
    #[must_use]
    pub fn network_contains(&self, ip: IpAddr) -> bool {
        same_network(self.ip, ip, self.prefix)
    }

    /// IPv4: the address for a datagram to the whole segment: the stored broadcast address, else the network's highest.
    /// Networks of 31 and 32 bits have none.
    #[must_use]
    pub fn broadcast_address(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(ip) = self.ip else { return None };
        self.broadcast.or_else(|| highest_address(ip, self.prefix))
    }

    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        // The crate slices behind the header without checking.
        if payload.len() < 8 {
            return None;
        }
        let message = AddressMessage::parse(payload).ok()?;
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        let (mut address, mut local, mut label, mut broadcast) = (None, None, None, None);
        let (mut marked, mut lifetime) = (false, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(ip),
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Label(text) => label = Some(text),
                AddressAttribute::Broadcast(ip) => broadcast = Some(ip),
                AddressAttribute::Flags(all) => flags = all,
                AddressAttribute::Protocol(protocol) => marked |= u8::from(protocol) == ADDRESS_PROTOCOL,
                AddressAttribute::RoutePriority(metric) => marked |= metric == ADDRESS_METRIC,
                AddressAttribute::CacheInfo(cache) if cache.ifa_valid != u32::MAX => {
                    lifetime = Some(Lifetime { valid: cache.ifa_valid, preferred: cache.ifa_preferred });
                }
                _ => {}
            }
        }
        Some(Self {
            interface: message.header.index,
            // On a point-to-point interface `address` is the other end's.
            ip: local.or(address)?,
            prefix: message.header.prefix_len,
            label,
            broadcast,
            secondary: flags.contains(AddressFlags::Secondary),
            tentative: flags.contains(AddressFlags::Tentative),
            duplicate: flags.contains(AddressFlags::Dadfailed),
            no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
            marked,
            lifetime,
        })
    }
}

/// An address to be added to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAddress {
    /// The number of the interface that gets it.
    pub interface: u32,
    /// The IP address itself, without its prefix.
    pub ip: IpAddr,
    /// The prefix length of its network.
    pub prefix: u8,
    /// IPv4: a label, which must begin with the interface's name and have at most 15 bytes.
    pub label: Option<String>,
    /// IPv4: the broadcast address to store; none is stored without it.
    pub broadcast: Option<Ipv4Addr>,
    /// Makes no route to its network. Needed if another address of this interface reaches the network already: the
    /// route of a narrower one would make this address the source of the machine's own packets.
    pub no_prefix_route: bool,
    /// Marks the address as added by Locum.
    pub marked: bool,
    /// IPv6: the machine's own packets do not use it as their source while there is another address.
    pub deprecated: bool,
}

/// The lifetime of an address, in seconds. The kernel checks now and then, so it removes an address up to a second
/// late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The time until the address is removed; above zero. `u32::MAX`: never.
    pub valid: u32,
    /// The time until new connections of the machine itself no longer use it as their source. At most `valid`; more
    /// counts as `valid`.
    pub preferred: u32,
}

impl NewAddress {
    /// An address without label, broadcast address and mark.
    #[must_use]
    pub const fn new(interface: u32, ip: IpAddr, prefix: u8) -> Self {
        Self {
            interface,
            ip,
            prefix,
            label: None,
            broadcast: None,
            no_prefix_route: false,
            marked: false,
            deprecated: false,
        }
    }

    fn message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(self.ip);
        message.header.prefix_len = self.prefix;
        message.header.index = self.interface;
        message.header.scope = AddressScope::Universe;
        message.attributes = vec![AddressAttribute::Local(self.ip), AddressAttribute::Address(self.ip)];
        message
    }
}

fn all_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

fn any_address(kind: u16, payload: &[u8]) -> Option<InterfaceAddress> {
    (kind == RTM_NEWADDR).then(|| InterfaceAddress::parse(payload)).flatten()
}

impl Netlink {
    /// Reads all addresses of all interfaces, of both families.
    ///
    /// # Errors
    /// The kernel's error; `Interrupted` if they changed during each attempt.
    pub fn addresses(&mut self) -> io::Result<Vec<InterfaceAddress>> {
        self.dump(&all_addresses(), any_address)
    }

    /// As [`addresses`](Self::addresses), for callers that read again soon or only want to know the networks. If
    /// addresses keep changing, some may be missing and some may be in it twice.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn addresses_roughly(&mut self) -> io::Result<Vec<InterfaceAddress>> {
        Ok(self.dump_roughly(&all_addresses(), any_address)?.0)
    }

    /// Adds an address to an interface. IPv6 addresses are usable at once: duplicate address detection is off, because
    /// a takeover may have to take an address that its dying owner still defends.
    ///
    /// # Errors
    /// `AlreadyExists` if the interface has it with this prefix; else the kernel's error.
    pub fn add_address(&mut self, new: &NewAddress) -> io::Result<()> {
        self.put_address(new, None, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// As [`add_address`](Self::add_address), but the kernel removes the address by itself at the end of its lifetime,
    /// unless that is renewed.
    ///
    /// # Errors
    /// As [`add_address`](Self::add_address); `InvalidInput` for a lifetime of zero.
    pub fn add_address_for(&mut self, new: &NewAddress, lifetime: Lifetime) -> io::Result<()> {
        self.put_address(new, Some(lifetime), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Restarts the lifetime of an address, which is otherwise as it was added. All processes that listen to addresses
    /// are told. If it has gone the kernel adds it again: to avoid that, check first.
    ///
    /// # Errors
    /// `InvalidInput` for a lifetime of zero; else the kernel's error.
    pub fn renew_address(&mut self, new: &NewAddress, lifetime: Lifetime) -> io::Result<()> {
        self.put_address(new, Some(lifetime), NLM_F_REPLACE)
    }

    fn put_address(&mut self, new: &NewAddress, lifetime: Option<Lifetime>, mode: u16) -> io::Result<()> {
        let mut message = new.message();
        let mut flags = AddressFlags::empty();
        if new.ip.is_ipv6() {
            flags |= AddressFlags::Nodad;
        }
        if new.no_prefix_route {
            flags |= AddressFlags::Noprefixroute;
        }
        message.attributes.push(AddressAttribute::Flags(flags));
        if new.ip.is_ipv4() {
            message.attributes.extend(new.label.clone().map(AddressAttribute::Label));
            message.attributes.extend(new.broadcast.map(AddressAttribute::Broadcast));
        }
        if new.marked {
            message.attributes.push(match self.keeps_protocol {
                true => AddressAttribute::Protocol(AddressProtocol::from(ADDRESS_PROTOCOL)),
                false => AddressAttribute::RoutePriority(ADDRESS_METRIC),
            });
        }
        let for_ever = Lifetime { valid: u32::MAX, preferred: u32::MAX };
        // IPv4 does not need this: a secondary address is never chosen.
        let is_deprecated = new.deprecated && new.ip.is_ipv6();
        if let Some(lifetime) = lifetime.or(is_deprecated.then_some(for_ever)) {
            if lifetime.valid == 0 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let mut cache = CacheInfo::default();
            cache.ifa_valid = lifetime.valid;
            cache.ifa_preferred = if is_deprecated { 0 } else { lifetime.preferred.min(lifetime.valid) };
            message.attributes.push(AddressAttribute::CacheInfo(cache));
        }
        self.request(RouteNetlinkMessage::NewAddress(message), mode)
    }

    /// Changes an address, given with its prefix: its mark, its lifetime, whether it is used as a source. If it has
    /// gone it is added again.
    ///
    /// # Errors
    /// As [`renew_address`](Self::renew_address).
    pub fn replace_address(&mut self, new: &NewAddress, lifetime: Option<Lifetime>) -> io::Result<()> {
        let for_ever = Lifetime { valid: u32::MAX, preferred: u32::MAX };
        self.put_address(new, Some(lifetime.unwrap_or(for_ever)), NLM_F_REPLACE)
    }

    /// Removes one address from an interface, and no other one.
    ///
    /// With the first IPv4 address of a network the kernel would also remove the later ones, and with the last address
    /// of an interface all routes through it. So for that moment it is told to promote the next address instead
    /// (`promote_secondaries`). If that fails, the addresses that were removed with it are added again as they were,
    /// but without routes.
    ///
    /// # Errors
    /// `AddrNotAvailable` if the interface does not have it; else the kernel's error, also about another address that
    /// could not be added again.
    pub fn delete_address(&mut self, address: &InterfaceAddress) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(delete_message(address));
        // A network of one address has no later one.
        if address.secondary || address.ip.is_ipv6() || address.prefix == 32 {
            return self.request(message, 0);
        }
        if let Ok(promotion) = Promotion::ask(self, address.interface) {
            let deleted = self.request(message, 0);
            promotion.end(self);
            return deleted;
        }
        let dependents = self.dependents(address)?;
        self.request(message, 0)?;
        // Addresses that were not removed still exist; that is no error.
        self.put_back(&dependents)
    }

    /// The secondary addresses that the kernel removes together with `address`. Reads all addresses.
    fn dependents(&mut self, address: &InterfaceAddress) -> io::Result<Vec<InterfaceAddress>> {
        let mut all = self.addresses()?;
        all.retain(|other| {
            other.secondary
                && other.interface == address.interface
                && other.prefix == address.prefix
                && other.network_contains(address.ip)
        });
        Ok(all)
    }

    /// Adds all that can be added; then reports the first that could not.
    fn put_back(&mut self, lost: &[InterfaceAddress]) -> io::Result<()> {
        let mut result = Ok(());
        for lost in lost {
            let restored = NewAddress {
                label: lost.label.clone(),
                broadcast: lost.broadcast,
                no_prefix_route: lost.no_prefix_route,
                marked: lost.marked,
                ..NewAddress::new(lost.interface, lost.ip, lost.prefix)
            };
            let lifetime = lost.lifetime.map(|left| Lifetime { valid: left.valid.max(1), ..left });
            match self.put_address(&restored, lifetime, NLM_F_CREATE | NLM_F_EXCL) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    let text = format!(
                        "it was removed, and {} was removed with it and cannot be added again: {error}",
                        lost.ip
                    );
                    result = result.and(Err(io::Error::new(error.kind(), text)));
                }
                _ => {}
            }
        }
        result
    }
}

/// Whether this kernel is new enough for [`ADDRESS_PROTOCOL`].
pub(super) fn kernel_keeps_protocol() -> bool {
    let name = rustix::system::uname();
    is_since(&name.release().to_string_lossy(), PROTOCOL_SINCE)
}

/// Whether a kernel's release (`6.1.0-13-amd64`) is at least that version.
fn is_since(release: &str, since: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= since,
        _ => true,
    }
}

fn delete_message(address: &InterfaceAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip);
    message.header.prefix_len = address.prefix;
    message.header.index = address.interface;
    // Without the second attribute the kernel ignores the mask, and takes the first address with that number.
    message.attributes = vec![AddressAttribute::Local(address.ip), AddressAttribute::Address(address.ip)];
    message
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Whether two addresses of one family are in the same network of `prefix` bits. Addresses of two families never are.
#[must_use]
pub fn same_network(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let host_bits = 32u32.saturating_sub(u32::from(prefix));
            (a.to_bits() ^ b.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let host_bits = 128u32.saturating_sub(u32::from(prefix));
            (a.to_bits() ^ b.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// The highest address of an IPv4 network, which is its broadcast address; networks of 31 and 32 bits have none.
fn highest_address(ip: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    (prefix < 31).then(|| Ipv4Addr::from_bits(ip.to_bits() | (u32::MAX >> prefix)))
}

/// The address through which this machine is connected to the network of `ip`: the one with the longest prefix; of
/// several the kernel's first. `ip` itself does not count if the machine has it already, nor do loopback addresses.
#[must_use]
pub fn choose_interface(addresses: &[InterfaceAddress], ip: IpAddr) -> Option<&InterfaceAddress> {
    let connected = addresses.iter().filter(|a| a.ip != ip && !a.ip.is_loopback() && a.network_contains(ip));
    connected.fold(None, |best: Option<&InterfaceAddress>, next| match best {
        Some(best) if best.prefix >= next.prefix => Some(best),
        _ => Some(next),
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::{
        RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
    };

    use super::*;
    use crate::testing::{in_namespace, patience, veth_pair};

    fn address(interface: u32, text: &str, prefix: u8) -> InterfaceAddress {
        InterfaceAddress::new(interface, text.parse().unwrap(), prefix)
    }

    #[test]
    fn networks() {
        let same = |a: &str, b: &str, prefix| same_network(a.parse().unwrap(), b.parse().unwrap(), prefix);
        assert!(same("10.0.0.1", "10.0.0.200", 24));
        assert!(!same("10.0.0.1", "10.0.1.1", 24));
        assert!(same("10.0.0.1", "192.168.0.1", 0));
        assert!(!same("10.0.0.1", "10.0.0.2", 32));
        assert!(same("fd00::1", "fd00::ffff", 64));
        assert!(!same("fd00::1", "fd00:0:0:1::1", 64));
        assert!(!same("::1", "0.0.0.1", 0), "two families");
    }

    #[test]
    fn longest_prefix_first() {
        let all = [
            address(2, "172.23.2.1", 16),
            address(3, "172.23.2.1", 24),
            address(4, "fd00::1", 64),
            address(5, "172.23.2.14", 32),
        ];
        let chosen = |ip: &str| choose_interface(&all, ip.parse().unwrap()).map(|a| a.interface);
        assert_eq!(chosen("172.23.2.14"), Some(3), "not the address itself");
        assert_eq!(chosen("172.23.9.9"), Some(2));
        assert_eq!(chosen("fd00::99"), Some(4));
        assert_eq!(chosen("10.0.0.1"), None);
    }

    #[test]
    fn broadcast_addresses() {
        assert_eq!(address(1, "10.1.2.3", 24).broadcast_address(), Some(Ipv4Addr::new(10, 1, 2, 255)));
        assert_eq!(address(1, "10.1.2.3", 0).broadcast_address(), Some(Ipv4Addr::BROADCAST));
        assert_eq!(address(1, "10.1.2.3", 31).broadcast_address(), None);
        assert_eq!(address(1, "fd00::1", 64).broadcast_address(), None);
        let noted = InterfaceAddress { broadcast: Some(Ipv4Addr::BROADCAST), ..address(1, "10.1.2.3", 24) };
        assert_eq!(noted.broadcast_address(), Some(Ipv4Addr::BROADCAST));
    }

    #[test]
    fn garbage_is_no_address() {
        for length in 0..64 {
            for fill in [0u8, 2, 4, 8, 0xff] {
                let _ = InterfaceAddress::parse(&vec![fill; length]);
            }
        }
    }

    fn new(interface: u32, text: &str, prefix: u8) -> NewAddress {
        NewAddress::new(interface, text.parse().unwrap(), prefix)
    }

    #[test]
    fn put_and_taken_in_a_namespace() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let mut netlink = Netlink::open().unwrap();
            netlink.add_address(&new(eth.index, "172.23.2.1", 24)).unwrap();
            let service = NewAddress {
                label: Some("eth0:web".to_string()),
                broadcast: Some(Ipv4Addr::new(172, 23, 2, 255)),
                ..new(eth.index, "172.23.2.14", 24)
            };
            netlink.add_address(&service).unwrap();
            assert_eq!(netlink.add_address(&service).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            netlink.add_address(&new(eth.index, "fd00::14", 64)).unwrap();

            let all = netlink.addresses().unwrap();
            let standing = |text: &str| {
                let ip: IpAddr = text.parse().unwrap();
                all.iter().find(|a| a.ip == ip).unwrap()
            };
            let there = standing("172.23.2.14");
            assert!(there.secondary);
            assert_eq!(there.label.as_deref(), Some("eth0:web"));
            assert_eq!(there.broadcast, Some(Ipv4Addr::new(172, 23, 2, 255)));
            assert!(!standing("fd00::14").tentative, "usable at once");
            assert_eq!(choose_interface(&all, "172.23.2.99".parse().unwrap()).unwrap().interface, eth.index);

            netlink.delete_address(there).unwrap();
            netlink.delete_address(standing("fd00::14")).unwrap();
            let gone = netlink.delete_address(there).unwrap_err();
            assert_eq!(gone.kind(), io::ErrorKind::AddrNotAvailable);
        });
    }

    #[test]
    fn a_primary_address_goes_alone() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let mut netlink = Netlink::open().unwrap();
            netlink.add_address(&new(eth.index, "172.23.2.14", 24)).unwrap();
            netlink.add_address(&new(eth.index, "172.23.2.1", 24)).unwrap();
            let all = netlink.addresses().unwrap();
            let ours = all.iter().find(|a| a.ip.to_string() == "172.23.2.14").unwrap();
            assert!(!ours.secondary);
            netlink.delete_address(ours).unwrap();
            let left = netlink.addresses().unwrap();
            assert!(
                left.iter().any(|a| a.ip.to_string() == "172.23.2.1"),
                "the administrator's address stays: {left:?}"
            );
        });
    }

    /// If the kernel removes others, too, each one that can be added again is, whatever happens to those before it.
    #[test]
    fn one_that_cannot_be_put_back_keeps_no_other_away() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let mut netlink = Netlink::open().unwrap();
            let too_long = Some("a label of more than fifteen bytes".to_owned());
            let lost = [
                address(eth.index, "172.23.2.1", 24),
                InterfaceAddress { label: too_long, ..address(eth.index, "172.23.2.2", 24) },
                address(eth.index, "172.23.2.3", 24),
            ];
            netlink.add_address(&new(eth.index, "172.23.2.1", 24)).unwrap();
            let error = netlink.put_back(&lost).unwrap_err().to_string();
            assert!(error.contains("172.23.2.2 was removed with it"), "{error}");
            let left = netlink.addresses().unwrap();
            assert!(left.iter().any(|a| a.ip == lost[2].ip), "{left:?}");
        });
    }

    /// Each address that is removed is the first of those left, and takes none with it.
    #[test]
    fn many_addresses_of_one_network_go_one_by_one() {
        in_namespace(|| {
            const COUNT: u32 = 200;
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let mut netlink = Netlink::open().unwrap();
            let ip = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a01_0000 + number));
            (1..=COUNT).for_each(|n| netlink.add_address(&NewAddress::new(eth.index, ip(n), 16)).unwrap());
            let begin = crate::clock::monotonic_nanos();
            for number in 1..=COUNT - 1 {
                netlink.delete_address(&InterfaceAddress::new(eth.index, ip(number), 16)).unwrap();
            }
            println!("{} us each", (crate::clock::monotonic_nanos() - begin) / 1000 / u64::from(COUNT));
            let mut left = netlink.addresses().unwrap();
            left.retain(|address| address.interface == eth.index && address.ip.is_ipv4());
            assert_eq!(left.iter().map(|address| address.ip).collect::<Vec<_>>(), [ip(COUNT)]);
            assert!(!left[0].secondary);
        });
    }

    /// Makes the default route of this namespace, by a gateway; with its own source if one is given.
    fn route(netlink: &mut Netlink, interface: u32, to: Ipv4Addr, source: Option<Ipv4Addr>) {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = 254;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        if to != Ipv4Addr::UNSPECIFIED {
            message.header.destination_prefix_length = 32;
            message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to)));
        }
        let gateway = RouteAddress::Inet(Ipv4Addr::new(172, 23, 2, 99));
        message.attributes.push(RouteAttribute::Gateway(gateway));
        message.attributes.push(RouteAttribute::Oif(interface));
        message.attributes.extend(source.map(|ip| RouteAttribute::PrefSource(RouteAddress::Inet(ip))));
        netlink.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL).unwrap();
    }

    /// Destinations of the routes by a gateway.
    fn routes(netlink: &mut Netlink) -> Vec<Ipv4Addr> {
        let all = netlink.dump(&RouteNetlinkMessage::GetRoute(RouteMessage::default()), |_, payload| {
            let message = RouteMessage::parse(payload).ok()?;
            let of =
                |wanted: fn(&RouteAttribute) -> Option<Ipv4Addr>| message.attributes.iter().find_map(wanted);
            let destination = of(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(*ip),
                _ => None,
            });
            of(|attribute| match attribute {
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(*ip),
                _ => None,
            })?;
            Some(destination.unwrap_or(Ipv4Addr::UNSPECIFIED))
        });
        all.unwrap()
    }

    #[test]
    fn a_primary_address_takes_no_route_and_no_lifetime_with_it() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let mut netlink = Netlink::open().unwrap();
            let own = Ipv4Addr::new(172, 23, 2, 1);
            netlink.add_address(&new(eth.index, "172.23.2.14", 24)).unwrap();
            let leased = Lifetime { valid: 1000, preferred: 900 };
            netlink.add_address_for(&new(eth.index, "172.23.2.1", 24), leased).unwrap();
            let (anywhere, one) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(192, 0, 2, 7));
            route(&mut netlink, eth.index, anywhere, None);
            route(&mut netlink, eth.index, one, Some(own));
            assert_eq!(routes(&mut netlink), [anywhere, one]);
            let ours = InterfaceAddress::new(eth.index, "172.23.2.14".parse().unwrap(), 24);
            netlink.delete_address(&ours).unwrap();
            let all = netlink.addresses().unwrap();
            let left: Vec<_> = all.iter().filter(|a| a.ip.is_ipv4()).collect();
            let [left] = left[..] else { panic!("{left:?}") };
            assert!(left.ip == IpAddr::from(own) && !left.secondary, "{left:?}");
            assert!(left.lifetime.is_some_and(|left| left.valid > 900 && left.valid <= 1000), "{left:?}");
            assert_eq!(routes(&mut netlink), [anywhere, one]);
            assert!(!netlink.promotes(eth.index).unwrap(), "as it was set before");
        });
    }

    #[test]
    fn the_mark_stays_through_renewals_and_can_be_given_later() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let lifetime = Lifetime { valid: 100, preferred: 100 };
            for keeps_protocol in [true, false] {
                let mut netlink = Netlink { keeps_protocol, ..Netlink::open().unwrap() };
                let marks = |netlink: &mut Netlink| -> Vec<(String, bool, bool)> {
                    let all = netlink.addresses().unwrap().into_iter();
                    let global = all.filter(|a| !a.ip.to_string().starts_with("fe80"));
                    let global = global.filter(|a| a.interface == eth.index);
                    global.map(|a| (a.ip.to_string(), a.marked, a.lifetime.is_some())).collect()
                };
                for text in ["172.23.2.14", "fd00::14"] {
                    let plain = new(eth.index, text, if text.contains(':') { 64 } else { 24 });
                    let ours = NewAddress { marked: true, ..plain.clone() };
                    netlink.add_address_for(&ours, lifetime).unwrap();
                    netlink.renew_address(&ours, lifetime).unwrap();
                    assert_eq!(marks(&mut netlink), [(text.to_string(), true, true)], "{keeps_protocol}");
                    let there = netlink.addresses().unwrap().into_iter().find(|a| a.marked).unwrap();
                    netlink.delete_address(&there).unwrap();
                    netlink.add_address(&plain).unwrap();
                    assert_eq!(marks(&mut netlink), [(text.to_string(), false, false)]);
                    netlink.replace_address(&ours, Some(lifetime)).unwrap();
                    assert_eq!(marks(&mut netlink), [(text.to_string(), true, true)], "{keeps_protocol}");
                    netlink.replace_address(&ours, None).unwrap();
                    assert_eq!(marks(&mut netlink), [(text.to_string(), true, false)], "{keeps_protocol}");
                    netlink.delete_address(&there).unwrap();
                }
            }
        });
    }

    #[test]
    fn kernels() {
        assert!(is_since("5.18.0", PROTOCOL_SINCE) && is_since("6.1.0-13-amd64", PROTOCOL_SINCE));
        assert!(!is_since("5.10.0-28-amd64", PROTOCOL_SINCE) && !is_since("4.19", PROTOCOL_SINCE));
        assert!(is_since("of another world", PROTOCOL_SINCE));
    }

    #[test]
    fn of_two_masks_the_one_that_is_named_goes() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let mut netlink = Netlink::open().unwrap();
            for (first, second) in [(24, 32), (32, 24)] {
                for prefix in [first, second] {
                    netlink.add_address(&new(eth.index, "172.23.2.14", prefix)).unwrap();
                }
                for (gone, left) in [(second, vec![first]), (first, vec![])] {
                    let ours = InterfaceAddress::new(eth.index, "172.23.2.14".parse().unwrap(), gone);
                    netlink.delete_address(&ours).unwrap();
                    let all = netlink.addresses().unwrap();
                    let prefixes: Vec<u8> =
                        all.iter().filter(|a| a.ip == ours.ip).map(|a| a.prefix).collect();
                    assert_eq!(prefixes, left);
                }
            }
        });
    }

    #[test]
    fn an_address_goes_when_its_lifetime_is_over() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let mut netlink = Netlink::open().unwrap();
            let lifetime = Lifetime { valid: 1, preferred: u32::MAX };
            let nothing = Lifetime { valid: 0, preferred: 0 };
            let all = [new(eth.index, "172.23.2.14", 24), new(eth.index, "fd00::14", 64)];
            for address in &all {
                let none = netlink.add_address_for(address, nothing).unwrap_err();
                assert_eq!(none.kind(), io::ErrorKind::InvalidInput);
                netlink.add_address_for(address, lifetime).unwrap();
            }
            let standing = |netlink: &mut Netlink| {
                let there = netlink.addresses().unwrap();
                all.each_ref().map(|address| there.iter().any(|a| a.ip == address.ip))
            };
            // Renewed for longer than it would have lived by itself.
            for _ in 0..8 {
                crate::clock::sleep_until(crate::clock::monotonic_nanos() + 300_000_000);
                for address in &all {
                    netlink.renew_address(address, lifetime).unwrap();
                }
            }
            assert_eq!(standing(&mut netlink), [true; 2]);
            let deadline = patience();
            while standing(&mut netlink) != [false; 2] {
                assert!(deadline(), "{:?} stand for ever", standing(&mut netlink));
            }
        });
    }
}
