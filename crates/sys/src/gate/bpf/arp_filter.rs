//! The ARP filter as programs: one on tcx ingress of each interface that asks and answers, with a map from service
//! addresses to their own interfaces. It is pinned, so that it outlives the daemon. An interface that comes while no
//! daemon is running is not covered.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{
    filter::address_key,
    insn::{
        AccessSize, Assembler, JumpCondition,
        Register::{R0, R1, R2, R6, R7, R8, R9, R10},
    },
    pins::PinDirectory,
    program::{
        ADDRESS_BYTES, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Exits, IPPROTO_ICMPV6, ND_NEIGHBOR_SOLICIT,
        SKB_PROTOCOL, TCX_DROP, TCX_NEXT, linearize, look_up, map_into_ipv6, pass_if_of_vlan, protocol, read,
        to_protocol,
    },
    syscall::{self, MapShape, TcxHook},
};
use crate::{
    gate::{GateName, arp_filter::OwnInterfaces, hook::Hook, with_context, with_interface},
    netlink::Netlink,
};

const PROGRAM: &str = "locum_arp";
const MAP_PIN: &str = "homes";
/// The most service addresses of all groups of a cluster.
const ADDRESSES_MAX: u32 = 16_384;
const MAP_SHAPE: MapShape = MapShape {
    kind: MapShape::BPF_MAP_TYPE_HASH,
    key: ADDRESS_BYTES as u32,
    value: 4,
    entries: ADDRESSES_MAX,
    flags: 0,
};
/// No interface has this number: no interface answers for the address.
const NO_INTERFACE: u32 = 0;

// struct __sk_buff
const SKB_IFINDEX: i16 = 40;

/// The stack: ARP's 28 bytes or an IPv6 header, and a key.
const HEADER: i16 = -64;
const KEY: i16 = -16;

/// The filter of one cluster, as far as it is in the kernel.
#[derive(Debug)]
pub(in crate::gate) struct ArpPrograms {
    pins: PinDirectory,
    map: OwnedFd,
    /// The same program twice: an interface takes a program only once, and a new link is made before the old one is
    /// removed.
    programs: [OwnedFd; 2],
    links: BTreeMap<u32, OwnedFd>,
}

impl ArpPrograms {
    /// Finds or makes the filter. One that exists goes on with this version's program.
    pub(in crate::gate) fn open(bpffs: &Path, name: &GateName) -> io::Result<Self> {
        let place = PinDirectory::of(bpffs, name);
        place.make()?;
        let pinned =
            place.get(MAP_PIN)?.filter(|map| syscall::map_shape(map).is_ok_and(|shape| shape == MAP_SHAPE));
        let map = match pinned {
            Some(map) => map,
            None => {
                place.unpin(MAP_PIN)?;
                let map = syscall::create_map(MAP_SHAPE, "locum_homes")
                    .map_err(|error| with_context(&error, "make a map"))?;
                syscall::pin(&map, &place.path(MAP_PIN)).map_err(|error| place.with_context(error))?;
                map
            }
        };
        let load = || {
            syscall::load(&program(map.as_fd()), PROGRAM)
                .map_err(|error| with_context(&error, "load the program of the ARP filter"))
        };
        let programs = [load()?, load()?];
        let mut opened = Self { pins: place, map, programs, links: BTreeMap::new() };
        for hook in opened.pins.hooks()? {
            let index = hook.interface();
            let link = opened.pins.get(&hook.name())?.filter(|link| is_link_of(link, index));
            let Some(link) = link else {
                opened.pins.unpin(&hook.name())?;
                continue;
            };
            if !is_attached(&link, index) {
                let text = format!(
                    "{} belongs to another network namespace, where a cluster of the same name runs: mount a separate bpf \
                     file system for this one",
                    opened.pins.path(&hook.name()).display()
                );
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            syscall::replace(&link, &opened.programs[0])
                .map_err(|error| with_context(&error, &with_interface("put the ARP filter on", index)))?;
            opened.links.insert(index, link);
        }
        Ok(opened)
    }

    pub(in crate::gate) fn set(&mut self, own_interfaces: &OwnInterfaces) -> io::Result<()> {
        for (ip, home) in own_interfaces {
            self.write(*ip, home.unwrap_or(NO_INTERFACE))?;
        }
        let wanted: BTreeSet<_> = own_interfaces.keys().map(|ip| address_key(*ip)).collect();
        for (key, _) in self.entries()?.into_iter().filter(|(key, _)| !wanted.contains(key)) {
            syscall::unset(&self.map, &key)?;
        }
        Ok(())
    }

    pub(in crate::gate) fn move_to(&mut self, ip: IpAddr, new: u32) -> io::Result<()> {
        self.write(ip, new)
    }

    fn write(&self, ip: IpAddr, home: u32) -> io::Result<()> {
        syscall::set(&self.map, &address_key(ip), &home.to_ne_bytes())
            .map_err(|error| with_context(&error, "write the addresses of the ARP filter"))
    }

    fn entries(&self) -> io::Result<Vec<([u8; ADDRESS_BYTES], [u8; 4])>> {
        syscall::entries(&self.map)
            .map_err(|error| with_context(&error, "read the addresses of the ARP filter"))
    }

    /// Covers exactly the interfaces that answer. Each new one takes 10 to 20 ms. Returns the first error, and covers
    /// the others all the same.
    pub(in crate::gate) fn cover(&mut self) -> io::Result<()> {
        let wanted: BTreeSet<u32> = Netlink::open()?.answering_interfaces()?.into_iter().collect();
        let mut result = Ok(());
        let gone: Vec<u32> = self.links.keys().filter(|index| !wanted.contains(index)).copied().collect();
        for index in gone {
            self.links.remove(&index);
            result = result.and(self.pins.unpin(&Hook::Ingress(index).name()));
        }
        for index in wanted {
            let covered = match self.links.get(&index) {
                Some(link) if is_attached(link, index) => self.stay_in_front(index),
                _ => self.attach(index),
            };
            // An interface that has gone meanwhile is no error.
            if covered.is_err() && crate::gate::check_interface(index).is_ok() {
                result = result.and(covered);
            }
        }
        result
    }

    /// Attaches in front of all programs on the interface. An older link is removed after the new one is in place.
    fn attach(&mut self, index: u32) -> io::Result<()> {
        let doing = |error| with_context(&error, &with_interface("put the ARP filter on", index));
        let pin = Hook::Ingress(index).name();
        let link = syscall::attach_one_of(&self.programs, index, TcxHook::Ingress).map_err(doing)?;
        self.pins.unpin(&pin)?;
        syscall::pin(&link, &self.pins.path(&pin)).map_err(|error| self.pins.with_context(error))?;
        self.links.insert(index, link);
        Ok(())
    }

    /// A foreign program in front would decide before this one runs.
    fn stay_in_front(&mut self, index: u32) -> io::Result<()> {
        match self
            .links
            .get(&index)
            .map(|link| syscall::foreign_in_front(link, index, TcxHook::Ingress))
            .transpose()?
        {
            Some(Some(_)) => self.attach(index),
            _ => Ok(()),
        }
    }

    /// Describes what is missing in the kernel, except for interfaces: [`cover`](Self::cover) repairs those.
    pub(in crate::gate) fn missing(&self, own_interfaces: Option<&OwnInterfaces>) -> io::Result<Vec<String>> {
        let mut missing = Vec::new();
        let own = syscall::map_number(&self.map)?;
        if self.pins.get(MAP_PIN)?.map(syscall::map_number).transpose()? != Some(own) {
            missing.push(format!("the pin {}", self.pins.path(MAP_PIN).display()));
        }
        if let Some(homes) = own_interfaces
            && self.own_interfaces()? != *homes
        {
            missing.push("addresses of the ARP filter".into());
        }
        for (index, link) in &self.links {
            let pin = Hook::Ingress(*index).name();
            let pinned = self.pins.get(&pin)?.and_then(|pinned| syscall::link_info(pinned).ok());
            if pinned != syscall::link_info(link).ok() {
                missing.push(format!("the pin {}", self.pins.path(&pin).display()));
            }
        }
        Ok(missing)
    }

    pub(in crate::gate) fn restore(&mut self, own_interfaces: &OwnInterfaces) -> io::Result<()> {
        self.pins.make()?;
        let own = syscall::map_number(&self.map)?;
        if self.pins.get(MAP_PIN)?.map(syscall::map_number).transpose()? != Some(own) {
            self.pins.unpin(MAP_PIN)?;
            syscall::pin(&self.map, &self.pins.path(MAP_PIN))
                .map_err(|error| self.pins.with_context(error))?;
        }
        for (index, link) in &self.links {
            let pin = Hook::Ingress(*index).name();
            let pinned = self.pins.get(&pin)?.and_then(|pinned| syscall::link_info(pinned).ok());
            if pinned != syscall::link_info(link).ok() {
                self.pins.unpin(&pin)?;
                syscall::pin(link, &self.pins.path(&pin)).map_err(|error| self.pins.with_context(error))?;
            }
        }
        self.set(own_interfaces)
    }

    fn own_interfaces(&self) -> io::Result<OwnInterfaces> {
        Ok(self.entries()?.into_iter().map(own_interface_of).collect())
    }
}

fn own_interface_of((key, value): ([u8; ADDRESS_BYTES], [u8; 4])) -> (IpAddr, Option<u32>) {
    let home = u32::from_ne_bytes(value);
    (IpAddr::from(key).to_canonical(), (home != NO_INTERFACE).then_some(home))
}

fn is_link_of(link: &OwnedFd, index: u32) -> bool {
    syscall::link_info(link)
        .is_ok_and(|info| (info.interface, info.attach_type) == (index, TcxHook::Ingress as u32))
}

/// An interface with that number may also exist in another network namespace.
fn is_attached(link: &OwnedFd, index: u32) -> bool {
    let Ok(info) = syscall::link_info(link) else { return false };
    is_link_of(link, index)
        && syscall::attached(index, TcxHook::Ingress)
            .is_ok_and(|all| all.iter().any(|other| other.link == info.number))
}

/// The addresses of the filter in the kernel, whichever process made it; empty if there is none.
pub(in crate::gate) fn own_interfaces(bpffs: &Path, name: &GateName) -> io::Result<OwnInterfaces> {
    let Some(map) = PinDirectory::of(bpffs, name).get(MAP_PIN)? else { return Ok(OwnInterfaces::new()) };
    if syscall::map_shape(&map)? != MAP_SHAPE {
        return Ok(OwnInterfaces::new());
    }
    Ok(syscall::entries(&map)?.into_iter().map(own_interface_of).collect())
}

/// The clusters with such a filter, by the filter's name.
pub(in crate::gate) fn clusters(bpffs: &Path) -> io::Result<Vec<GateName>> {
    let all = PinDirectory::clusters(bpffs)?.into_iter().map(|filter| filter.arp_filter());
    Ok(all.filter(|name| PinDirectory::of(bpffs, name).exists()).collect())
}

/// Removes some addresses. Returns whether any is left.
pub(in crate::gate) fn remove_addresses(
    bpffs: &Path,
    name: &GateName,
    addresses: &[IpAddr],
) -> io::Result<bool> {
    let Some(map) = PinDirectory::of(bpffs, name).get(MAP_PIN)? else { return Ok(false) };
    let mut left = false;
    for (key, value) in syscall::entries::<ADDRESS_BYTES, 4>(&map)? {
        if addresses.contains(&own_interface_of((key, value)).0) {
            syscall::unset(&map, &key)?;
        } else {
            left = true;
        }
    }
    Ok(left)
}

/// Removes the filter completely. Returns whether there was one.
pub(in crate::gate) fn remove(bpffs: &Path, name: &GateName) -> io::Result<bool> {
    let place = PinDirectory::of(bpffs, name);
    let stood = place.exists();
    if stood {
        place.remove()?;
    }
    Ok(stood)
}

/// Drops questions about a service address that arrive on another interface than its own.
fn program(map: BorrowedFd<'_>) -> Vec<[u8; 8]> {
    let mut a = Assembler::default();
    let [look, own, arp, ipv6, known, short, asks, drop, pass] = std::array::from_fn(|_| a.label());
    a.copy(R6, R1);
    a.set(R9, 0); // not pulled together yet
    a.here(look);
    a.set(R7, 0); // where the packet begins: behind tags of VLAN 0, as for the gate's program
    // A frame of a VLAN belongs to the VLAN's interface, which has the program itself.
    pass_if_of_vlan(&mut a, own, pass);
    a.here(own);
    a.load(AccessSize::Word, R1, R6, SKB_PROTOCOL);
    to_protocol(&mut a, &[(ETH_P_ARP, arp), (ETH_P_IPV6, ipv6)], HEADER, Exits { pass, drop, short });

    // ARP of IPv4 over 6-byte addresses, a request: protocol at 2, lengths at 4, operation at 6, sender at 14, target at 24.
    a.here(arp);
    read(&mut a, 0, 28, HEADER, short);
    a.load(AccessSize::Half, R1, R10, HEADER + 2);
    a.jump_if(R1, JumpCondition::NotEqual, protocol(ETH_P_IP), pass);
    a.load(AccessSize::Half, R1, R10, HEADER + 4);
    a.jump_if(R1, JumpCondition::NotEqual, protocol(0x0604), pass);
    a.load(AccessSize::Half, R1, R10, HEADER + 6);
    a.jump_if(R1, JumpCondition::NotEqual, protocol(1), pass);
    // Only aligned loads are allowed, so two bytes at a time.
    map_into_ipv6(&mut a, KEY);
    a.load(AccessSize::Word, R2, R10, HEADER + 24);
    a.store(AccessSize::Word, R10, KEY + 12, R2);
    // Gratuitous ARP: sender and target are equal, so it asks nothing.
    for half in [0, 2] {
        a.load(AccessSize::Half, R1, R10, HEADER + 14 + half);
        a.load(AccessSize::Half, R2, R10, HEADER + 24 + half);
        a.jump_if_register(R1, JumpCondition::NotEqual, R2, asks);
    }
    a.jump(pass);
    a.here(asks);
    a.jump(known);

    // A neighbour solicitation: next header at 6, type at 40, target at 48.
    a.here(ipv6);
    read(&mut a, 0, 40, HEADER, short);
    a.load(AccessSize::Byte, R1, R10, HEADER + 6);
    a.jump_if(R1, JumpCondition::NotEqual, IPPROTO_ICMPV6, pass);
    read(&mut a, 40, 1, HEADER, short);
    a.load(AccessSize::Byte, R1, R10, HEADER);
    a.jump_if(R1, JumpCondition::NotEqual, ND_NEIGHBOR_SOLICIT, pass);
    read(&mut a, 48, 16, KEY, short);

    a.here(known);
    look_up(&mut a, map, KEY);
    a.jump_if(R0, JumpCondition::Equal, 0, pass);
    a.load(AccessSize::Word, R8, R0, 0);
    a.load(AccessSize::Word, R1, R6, SKB_IFINDEX);
    a.jump_if_register(R8, JumpCondition::Equal, R1, pass);
    a.here(drop);
    a.set(R0, TCX_DROP);
    a.exit();
    a.here(pass);
    a.set(R0, TCX_NEXT);
    a.exit();

    // The packet is in pieces, or is shorter than its header says and asks nothing.
    a.here(short);
    a.jump_if(R9, JumpCondition::NotEqual, 0, pass);
    linearize(&mut a);
    a.jump(look);
    a.assemble()
}
