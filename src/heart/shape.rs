//! The order of service addresses and the machine's own ones: a service address never stands in front.
//!
//! IPv4: the first address of a network is the source of the packets that the machine sends there. If it is removed,
//! the later ones are removed with it. After a restart of the network, or if the machine's own address came late, a
//! service address would be the first one. It is then put again, behind the machine's own; meanwhile it stands with
//! another mask, so that it answers all the time.
//!
//! IPv6 has no such order: the service address has no preferred lifetime while its network has another address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use locum_sys::netlink::InterfaceAddress;

/// The machine's own addresses: those that no cluster moves.
pub(super) struct OwnAddresses<'a> {
    /// Each with its position in the kernel's order.
    all: Vec<(usize, &'a InterfaceAddress)>,
}

impl<'a> OwnAddresses<'a> {
    /// `services` are the cluster's own addresses, whoever put them there.
    pub(super) fn of(
        addresses: impl Iterator<Item = &'a InterfaceAddress>,
        services: &BTreeSet<IpAddr>,
    ) -> Self {
        Self { all: addresses.enumerate().filter(|(_, address)| is_own(address, services)).collect() }
    }

    /// Whether the machine has an address of its own on this interface whose network contains `ip`.
    pub(super) fn reaches(&self, interface: u32, ip: IpAddr) -> bool {
        self.all.iter().any(|(_, own)| own.interface == interface && own.network_contains(ip))
    }
}

/// As [`OwnAddresses::reaches`], for one question: it stops at the first such address, which as a rule comes early.
pub(super) fn own_reaches<'a>(
    mut addresses: impl Iterator<Item = &'a InterfaceAddress>,
    services: &BTreeSet<IpAddr>,
    interface: u32,
    ip: IpAddr,
) -> bool {
    addresses.any(|own| own.interface == interface && is_own(own, services) && own.network_contains(ip))
}

fn is_own(address: &InterfaceAddress, services: &BTreeSet<IpAddr>) -> bool {
    !address.marked && !address.duplicate && !address.ip.is_loopback() && !services.contains(&address.ip)
}

/// The IPv4 service addresses that stand in front of the machine's own ones, and those that stand twice.
pub(super) struct Order<'a> {
    /// The addresses that are the first of a network in which the machine has an address of its own.
    firsts: Vec<&'a InterfaceAddress>,
    /// By interface: the position of the last of the machine's own addresses that is the first of its network.
    last: BTreeMap<u32, usize>,
    /// The cluster's addresses, each with its position in the kernel's order.
    services: Vec<(usize, &'a InterfaceAddress)>,
}

impl<'a> Order<'a> {
    pub(super) fn of(
        addresses: impl Iterator<Item = &'a InterfaceAddress> + Clone,
        own: &OwnAddresses<'a>,
    ) -> Self {
        let in_one = |a: &InterfaceAddress, b: &InterfaceAddress| {
            a.interface == b.interface && a.prefix == b.prefix && a.network_contains(b.ip)
        };
        let v4 = || own.all.iter().filter(|(_, own)| own.ip.is_ipv4());
        let behind = v4().filter(|(_, own)| own.secondary);
        let first = |own: &InterfaceAddress| {
            addresses.clone().find(|other| !other.secondary && other.ip.is_ipv4() && in_one(other, own))
        };
        Self {
            firsts: behind.filter_map(|(_, own)| first(own)).filter(|first| first.marked).collect(),
            last: v4().filter(|(_, own)| !own.secondary).map(|(at, own)| (own.interface, *at)).collect(),
            services: addresses.clone().enumerate().filter(|(_, a)| a.marked && a.ip.is_ipv4()).collect(),
        }
    }

    /// All service addresses, and whether each stands in front.
    pub(super) fn services(&self) -> impl Iterator<Item = (&'a InterfaceAddress, bool)> {
        self.services.iter().map(|(at, address)| (*address, self.is_in_front(*at, address)))
    }

    /// Whether the network that this address would have with that mask has a service address for its first one.
    pub(super) fn is_taken(&self, address: &InterfaceAddress, prefix: u8) -> bool {
        self.firsts.iter().any(|first| {
            first.interface == address.interface
                && first.prefix == prefix
                && first.network_contains(address.ip)
        })
    }

    fn is_in_front(&self, at: usize, address: &InterfaceAddress) -> bool {
        let is_before = || self.last.get(&address.interface).is_some_and(|last| at < *last);
        self.is_taken(address, address.prefix) || (!address.secondary && is_before())
    }
}

/// The mask of an address while it is put again.
pub(super) fn other_prefix(prefix: u8) -> u8 {
    if prefix == 32 { 31 } else { 32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ip: &str, prefix: u8) -> InterfaceAddress {
        InterfaceAddress::new(2, ip.parse().unwrap(), prefix)
    }

    fn service(ip: &str, prefix: u8) -> InterfaceAddress {
        InterfaceAddress { marked: true, ..at(ip, prefix) }
    }

    fn behind(address: InterfaceAddress) -> InterfaceAddress {
        InterfaceAddress { secondary: true, ..address }
    }

    fn in_front(addresses: &[InterfaceAddress]) -> Vec<String> {
        let own = OwnAddresses::of(addresses.iter(), &BTreeSet::new());
        let order = Order::of(addresses.iter(), &own);
        order.services().filter(|(_, front)| *front).map(|(address, _)| address.ip.to_string()).collect()
    }

    #[test]
    fn who_stands_in_front_of_the_machines_own() {
        let nobody: [&str; 0] = [];
        assert_eq!(in_front(&[at("10.0.0.1", 24), behind(service("10.0.0.50", 24))]), nobody);
        assert_eq!(
            in_front(&[
                service("10.0.0.50", 24),
                behind(service("10.0.0.51", 24)),
                behind(at("10.0.0.1", 24)),
                service("10.1.0.9", 24)
            ]),
            ["10.0.0.50", "10.0.0.51"],
            "with all that stand in front together; a network of its own is no trouble"
        );
        assert_eq!(
            in_front(&[service("10.1.0.9", 24), service("10.0.0.50", 28), at("10.0.0.1", 24)]),
            ["10.1.0.9", "10.0.0.50"],
            "the first of an interface is the source where no network decides"
        );
        assert_eq!(
            in_front(&[at("10.0.0.1", 24), behind(at("10.0.0.2", 24)), service("10.1.0.9", 24)]),
            nobody
        );
        let elsewhere = InterfaceAddress { interface: 3, ..at("10.0.0.1", 24) };
        assert_eq!(in_front(&[service("10.0.0.50", 24), elsewhere]), nobody);
    }

    #[test]
    fn what_is_the_machines_own() {
        let all = [at("10.0.0.1", 24), service("10.0.1.50", 24), at("10.0.2.7", 24), at("fe80::1", 64)];
        let services = BTreeSet::from(["10.0.2.7".parse().unwrap()]);
        let own = OwnAddresses::of(all.iter(), &services);
        let reaches = |ip: &str| own.reaches(2, ip.parse().unwrap());
        assert!(reaches("10.0.0.99") && !own.reaches(3, "10.0.0.99".parse().unwrap()));
        assert!(!reaches("10.0.1.99"), "by a service address alone");
        assert!(!reaches("10.0.2.99"), "by one that somebody else put");
    }
}
