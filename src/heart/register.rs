//! The addresses of all interfaces, found without a walk: by address, and by the network that another one lies in. With
//! thousands of service addresses each of them is looked up several times in a moment.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use locum_sys::netlink::InterfaceAddress;

/// The position of an address in the kernel's order: later ones have higher numbers.
type Serial = u64;
/// One interface, or all of them.
type Of = Option<u32>;
/// An address family (true: IPv6) and the mask bits of a network.
type Width = (bool, u8);

/// The addresses of all interfaces; see the module's text.
#[derive(Debug, Default)]
pub(crate) struct Register {
    last: Serial,
    all: BTreeMap<Serial, InterfaceAddress>,
    by_ip: BTreeMap<IpAddr, Vec<Serial>>,
    /// How many addresses have networks of this width.
    widths: BTreeMap<(Of, Width), usize>,
    /// The addresses of each network, in the kernel's order.
    networks: BTreeMap<(Of, u8, IpAddr), BTreeMap<Serial, ()>>,
}

impl Register {
    /// Makes it from all addresses, in the kernel's order.
    pub(crate) fn of(all: Vec<InterfaceAddress>) -> Self {
        let mut register = Self::default();
        for address in all {
            register.put(address);
        }
        register
    }

    /// All addresses, in the kernel's order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &InterfaceAddress> + Clone {
        self.all.values()
    }

    /// The entries of this address, in the kernel's order: it may stand on several interfaces, or with several masks.
    pub(crate) fn at(&self, ip: IpAddr) -> impl Iterator<Item = &InterfaceAddress> {
        self.by_ip.get(&ip).into_iter().flatten().filter_map(|serial| self.all.get(serial))
    }

    /// Adds or replaces an address. Returns whether anything about it has changed.
    pub(super) fn put(&mut self, new: InterfaceAddress) -> bool {
        if let Some(serial) = self.find(&new)
            && let Some(old) = self.all.get_mut(&serial)
        {
            let is_news = *old != new;
            *old = new;
            return is_news;
        }
        self.last += 1;
        let serial = self.last;
        self.by_ip.entry(new.ip).or_default().push(serial);
        for of in [None, Some(new.interface)] {
            *self.widths.entry((of, width(&new))).or_default() += 1;
            self.networks.entry(network(of, new.ip, new.prefix)).or_default().insert(serial, ());
        }
        self.all.insert(serial, new);
        true
    }

    pub(super) fn take(&mut self, gone: &InterfaceAddress) {
        if let Some(serial) = self.find(gone) {
            self.remove(serial);
        }
    }

    /// Removes an interface with all its addresses.
    pub(super) fn take_all_of(&mut self, interface: u32) {
        let of = self.all.iter().filter(|(_, address)| address.interface == interface);
        let gone: Vec<Serial> = of.map(|(serial, _)| *serial).collect();
        gone.into_iter().for_each(|serial| self.remove(serial));
    }

    fn remove(&mut self, serial: Serial) {
        let Some(gone) = self.all.remove(&serial) else { return };
        if let Some(same) = self.by_ip.get_mut(&gone.ip) {
            same.retain(|other| *other != serial);
            if same.is_empty() {
                self.by_ip.remove(&gone.ip);
            }
        }
        for of in [None, Some(gone.interface)] {
            if let Some(count) = self.widths.get_mut(&(of, width(&gone))) {
                *count -= 1;
                if *count == 0 {
                    self.widths.remove(&(of, width(&gone)));
                }
            }
            let key = network(of, gone.ip, gone.prefix);
            if let Some(addresses) = self.networks.get_mut(&key) {
                addresses.remove(&serial);
                if addresses.is_empty() {
                    self.networks.remove(&key);
                }
            }
        }
    }

    /// Finds the entry: the kernel allows one address on one interface several times, with different masks.
    fn find(&self, like: &InterfaceAddress) -> Option<Serial> {
        let same = self.by_ip.get(&like.ip)?.iter().copied();
        let is_same =
            |address: &InterfaceAddress| address.interface == like.interface && address.prefix == like.prefix;
        same.into_iter().find(|serial| self.all.get(serial).is_some_and(is_same))
    }

    /// As [`locum_sys::netlink::choose_interface`]: the address with the longest mask in whose network `ip` lies, of the
    /// addresses of one interface or of all.
    pub(crate) fn choose(&self, of: Of, ip: IpAddr) -> Option<&InterfaceAddress> {
        let family = (of, (ip.is_ipv6(), 0))..=(of, (ip.is_ipv6(), u8::MAX));
        let prefixes = self.widths.range(family).rev().map(|((_, (_, prefix)), _)| *prefix);
        prefixes.into_iter().find_map(|prefix| {
            let serials = self.networks.get(&network(of, ip, prefix))?.keys();
            let mut there = serials.filter_map(|serial| self.all.get(serial));
            there.find(|address| address.ip != ip && !address.ip.is_loopback())
        })
    }
}

fn width(address: &InterfaceAddress) -> Width {
    (address.ip.is_ipv6(), address.prefix)
}

fn network(of: Of, ip: IpAddr, prefix: u8) -> (Of, u8, IpAddr) {
    let host = |bits: u8| u32::from(bits.saturating_sub(prefix));
    let lowest: IpAddr = match ip {
        IpAddr::V4(ip) => {
            Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(host(32)).unwrap_or(0)).into()
        }
        IpAddr::V6(ip) => {
            Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(host(128)).unwrap_or(0)).into()
        }
    };
    (of, prefix, lowest)
}

#[cfg(test)]
mod tests {
    use locum_sys::netlink::choose_interface;
    use proptest::prelude::*;

    use super::*;

    fn any_address() -> impl Strategy<Value = InterfaceAddress> {
        let v4 = (0u8..4, 0u8..4, prop::sample::select(vec![0u8, 8, 24, 30, 32]))
            .prop_map(|(net, host, prefix)| (IpAddr::from([10, 0, net, host]), prefix));
        let v6 = (0u16..3, 0u16..3, prop::sample::select(vec![0u8, 64, 127, 128]))
            .prop_map(|(net, host, prefix)| (IpAddr::from([0xfd00, net, 0, 0, 0, 0, 0, host]), prefix));
        let loopback = Just((IpAddr::from([127, 0, 0, 1]), 8));
        (1u32..4, prop_oneof![4 => v4, 3 => v6, 1 => loopback], any::<bool>()).prop_map(
            |(interface, (ip, prefix), secondary)| InterfaceAddress {
                secondary,
                ..InterfaceAddress::new(interface, ip, prefix)
            },
        )
    }

    #[derive(Clone, Debug)]
    enum RegisterStep {
        Put(InterfaceAddress),
        Take(InterfaceAddress),
        TakeAllOf(u32),
    }

    proptest! {
        /// Whatever comes and goes, it finds what a walk over a plain list finds.
        #[test]
        fn it_finds_what_a_walk_finds(
            steps in prop::collection::vec(
                prop_oneof![
                    6 => any_address().prop_map(RegisterStep::Put),
                    3 => any_address().prop_map(RegisterStep::Take),
                    1 => (1u32..4).prop_map(RegisterStep::TakeAllOf),
                ],
                0..60,
            ),
        ) {
            let (mut register, mut list) = (Register::default(), Vec::<InterfaceAddress>::new());
            let is_same = |a: &InterfaceAddress, b: &InterfaceAddress| {
                a.interface == b.interface && a.ip == b.ip && a.prefix == b.prefix
            };
            for step in steps {
                match step {
                    RegisterStep::Put(new) => {
                        let is_news = match list.iter_mut().find(|old| is_same(old, &new)) {
                            Some(old) => std::mem::replace(old, new.clone()) != new,
                            None => {
                                list.push(new.clone());
                                true
                            }
                        };
                        prop_assert_eq!(register.put(new), is_news);
                    }
                    RegisterStep::Take(gone) => {
                        list.retain(|old| !is_same(old, &gone));
                        register.take(&gone);
                    }
                    RegisterStep::TakeAllOf(interface) => {
                        list.retain(|old| old.interface != interface);
                        register.take_all_of(interface);
                    }
                }
                prop_assert!(register.iter().eq(&list));
            }
            let asked = (0..4).flat_map(|net| (0..5).map(move |host| IpAddr::from([10, 0, net, host])));
            let asked = asked.chain((0..4).map(|host| IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, host])));
            for ip in asked {
                prop_assert!(register.at(ip).eq(list.iter().filter(|there| there.ip == ip)));
                prop_assert_eq!(register.choose(None, ip), choose_interface(&list, ip));
                for interface in 1..4 {
                    let own: Vec<_> = list.iter().filter(|a| a.interface == interface).cloned().collect();
                    prop_assert_eq!(register.choose(Some(interface), ip), choose_interface(&own, ip));
                }
            }
            for there in list.clone() {
                register.take(&there);
            }
            prop_assert!(register.by_ip.is_empty() && register.widths.is_empty() && register.networks.is_empty());
        }
    }
}
