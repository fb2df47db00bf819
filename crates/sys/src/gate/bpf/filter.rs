//! The packet filter of a cluster on this machine: two gate programs and one claim listener on each interface, and the
//! maps that they read. Putting a program on an interface takes tens of milliseconds, because the kernel waits for all
//! processors. Making or removing a gate only changes a few entries of maps.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    net::{IpAddr, Ipv6Addr},
    ops::Bound,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    CLOCK_PROGRAM, compare_clock,
    pins::PinDirectory,
    program::{self, ADDRESS_BYTES, PEER_BYTES},
    state::{self, GateState, GateStates, Slot},
    syscall::{self, MapShape, TcxHook},
};
use crate::gate::{GateName, GateSettings, Pattern, Subject, hook::Hook, with_context, with_interface};

/// The prefix of the pin of a link that is about to replace another one.
const NEXT_PIN: &str = "next-";
/// The most service addresses of all groups together.
const ADDRESSES_MAX: u32 = 16_384;
/// The most peers of all groups together.
const PEERS_MAX: u32 = 1024;

pub(super) type AddressKey = [u8; ADDRESS_BYTES];
type PeerKey = [u8; PEER_BYTES];
type GroupKey = [u8; Subject::BYTES];

/// The maps, by the names of their pins. Hash maps have room for all their entries from the beginning: adding an entry
/// when a group is taken over must not fail for lack of memory.
#[derive(Debug)]
pub(super) struct GateMaps {
    gates: OwnedFd,
    addresses: OwnedFd,
    peers: OwnedFd,
    groups: OwnedFd,
}

const GATES: (&str, MapShape) = (
    "gates",
    MapShape {
        kind: MapShape::BPF_MAP_TYPE_ARRAY,
        key: 4,
        value: state::STATE_BYTES as u32,
        entries: state::STATES,
        flags: MapShape::BPF_F_MMAPABLE,
    },
);
const ADDRESSES: (&str, MapShape) = ("addresses", hash(ADDRESS_BYTES, 4, ADDRESSES_MAX));
const PEERS: (&str, MapShape) = ("peers", hash(PEER_BYTES, 1, PEERS_MAX));
const GROUPS: (&str, MapShape) = ("groups", hash(Subject::BYTES, 4, state::SLOTS));

const fn hash(key: usize, value: u32, entries: u32) -> MapShape {
    MapShape { kind: MapShape::BPF_MAP_TYPE_HASH, key: key as u32, value, entries, flags: 0 }
}

impl GateMaps {
    /// Opens the pinned maps, and makes those that are missing.
    pub(super) fn make(place: &PinDirectory) -> io::Result<Self> {
        place.make()?;
        let [gates, addresses, peers, groups] = [GATES, ADDRESSES, PEERS, GROUPS].map(|(pin, shape)| {
            if let Some(pinned) = pinned_map(place, pin, shape)? {
                return Ok(pinned);
            }
            place.unpin(pin)?;
            let map = syscall::create_map(shape, &format!("locum_{pin}"))
                .map_err(|error| with_context(&error, "make a map"))?;
            syscall::pin(&map, &place.path(pin)).map_err(|error| place.with_context(error))?;
            Ok::<_, io::Error>(map)
        });
        Ok(Self { gates: gates?, addresses: addresses?, peers: peers?, groups: groups? })
    }

    /// Opens the pinned maps; `None` if one is missing or has the shape of another version.
    pub(super) fn find(place: &PinDirectory) -> io::Result<Option<Self>> {
        let [gates, addresses, peers, groups] =
            [GATES, ADDRESSES, PEERS, GROUPS].map(|(pin, shape)| pinned_map(place, pin, shape));
        let (Some(gates), Some(addresses), Some(peers), Some(groups)) = (gates?, addresses?, peers?, groups?)
        else {
            return Ok(None);
        };
        Ok(Some(Self { gates, addresses, peers, groups }))
    }

    fn all(&self) -> [(&'static str, &OwnedFd); 4] {
        [
            (GATES.0, &self.gates),
            (ADDRESSES.0, &self.addresses),
            (PEERS.0, &self.peers),
            (GROUPS.0, &self.groups),
        ]
    }

    pub(super) fn programs(&self) -> program::MapDescriptors<'_> {
        let Self { gates, addresses, peers, groups } = self;
        let (gates, addresses) = (gates.as_fd(), addresses.as_fd());
        program::MapDescriptors { gates, addresses, peers: peers.as_fd(), groups: groups.as_fd() }
    }

    pub(super) fn states(&self) -> io::Result<GateStates> {
        GateStates::new(&self.gates).map_err(|error| with_context(&error, "map the states of gates"))
    }

    /// The service addresses of all gates, with their slots.
    pub(super) fn addresses(&self) -> io::Result<Vec<(AddressKey, Option<Slot>)>> {
        let all = syscall::entries(&self.addresses)
            .map_err(|error| with_context(&error, "read gates' addresses"))?;
        Ok(all.into_iter().map(|(key, value)| (key, slot_of(value))).collect())
    }

    fn groups(&self) -> io::Result<Vec<(GroupKey, Option<Slot>)>> {
        let all =
            syscall::entries(&self.groups).map_err(|error| with_context(&error, "read gates' groups"))?;
        Ok(all.into_iter().map(|(key, value)| (key, slot_of(value))).collect())
    }

    /// Removes all entries that name the slot.
    pub(super) fn forget(&self, slot: Slot) -> io::Result<()> {
        let is_its = |value: Option<Slot>| value == Some(slot);
        for (key, _) in self.addresses()?.into_iter().filter(|(_, value)| is_its(*value)) {
            delete_if_slot(&self.addresses, &key, slot)?;
        }
        for (key, _) in self.groups()?.into_iter().filter(|(_, value)| is_its(*value)) {
            delete_if_slot(&self.groups, &key, slot)?;
        }
        Ok(())
    }
}

fn pinned_map(place: &PinDirectory, pin: &str, shape: MapShape) -> io::Result<Option<OwnedFd>> {
    let pinned = place.get(pin)?;
    Ok(pinned.filter(|map| syscall::map_shape(map).is_ok_and(|found| found == shape)))
}

fn slot_of(value: [u8; 4]) -> Option<Slot> {
    Slot::new(u32::from_ne_bytes(value))
}

/// The slot that the key's entry names, if there is an entry.
fn slot_at(map: &OwnedFd, key: &[u8]) -> io::Result<Option<Slot>> {
    match syscall::value(map, key) {
        Ok(value) => Ok(slot_of(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the key's entry if it names that slot.
fn delete_if_slot(map: &OwnedFd, key: &[u8], slot: Slot) -> io::Result<()> {
    if slot_at(map, key)? != Some(slot) {
        return Ok(());
    }
    match syscall::unset(map, key) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn address_key(ip: IpAddr) -> AddressKey {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn peer_key(ip: IpAddr, port: u16) -> PeerKey {
    let mut key = [0; PEER_BYTES];
    key[..ADDRESS_BYTES].copy_from_slice(&address_key(ip));
    key[ADDRESS_BYTES..][..2].copy_from_slice(&port.to_be_bytes());
    key
}

/// The key of a port alone, with the unspecified address: datagrams to this port are examined, whoever sent them.
fn port_key(port: u16) -> PeerKey {
    peer_key(Ipv6Addr::UNSPECIFIED.into(), port)
}

/// A cluster's packet filter. What it is told to cover stays covered until it is removed, or the interface goes.
#[derive(Debug)]
pub(in crate::gate) struct BpfFilter {
    bpffs: PathBuf,
    pins: PinDirectory,
    maps: GateMaps,
    states: GateStates,
    /// Each program twice: an interface takes a program only once, and a new link is made before the old one is
    /// removed.
    gate_program: [OwnedFd; 2],
    claim_listener: [OwnedFd; 2],
    /// It stays when no group has a gate.
    stays: bool,
    /// Never contended: one thread makes and removes a cluster's gates.
    records: Mutex<BpfRecords>,
}

/// The state of the kernel as far as this process knows it.
#[derive(Debug, Default)]
struct BpfRecords {
    links: BTreeMap<Hook, OwnedFd>,
    peers: BTreeSet<PeerKey>,
    /// The slots of gates, and the keys that name them.
    slots: BTreeMap<Slot, SlotKeys>,
    /// The slot assigned last; the search for a free one begins behind it. A released slot thus rests for long: a
    /// program that read its number just before does not write into another gate's state.
    last: Option<Slot>,
    /// The hooks checked last: for foreign programs in front, and for being complete.
    front_checked: Option<Hook>,
    checked: Option<Hook>,
}

impl BpfRecords {
    /// Up to `most` of the covered hooks, beginning behind `last` and wrapping around.
    fn hooks_after(&self, last: Option<Hook>, most: usize) -> Vec<Hook> {
        let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
        let up_to = last.map_or(Bound::Excluded(Hook::FIRST), Bound::Included);
        let around =
            self.links.range((behind, Bound::Unbounded)).chain(self.links.range((Bound::Unbounded, up_to)));
        around.map(|(hook, _)| *hook).take(most).collect()
    }
}

#[derive(Debug, Default)]
struct SlotKeys {
    addresses: BTreeSet<AddressKey>,
    group: Option<GroupKey>,
}

impl BpfFilter {
    /// Finds the packet filter of the cluster of that name, or makes it; its programs are ours from now on, on all
    /// interfaces that it covers. `stays`: it goes only when it is [removed](Self::remove), not with the last gate.
    pub(in crate::gate) fn open(
        bpffs: &Path,
        name: &GateName,
        pattern: Pattern,
        stays: bool,
    ) -> io::Result<Self> {
        // A deadline on another clock than the kernel's would be none.
        let clock = syscall::load(&program::clock(), CLOCK_PROGRAM)
            .map_err(|error| with_context(&error, "load a program"))?;
        compare_clock(&clock).map_err(io::Error::other)?;
        let pins = PinDirectory::of_packet_filter(bpffs, name);
        let maps = GateMaps::make(&pins)?;
        let states = maps.states()?;
        let filter = twice(&program::gate_program(maps.programs()), "locum_judge")
            .map_err(|error| with_context(&error, "load the gate program"))?;
        let listener = twice(&program::claim_listener(maps.programs(), pattern), "locum_ear")
            .map_err(|error| with_context(&error, "load the claim listener"))?;
        let records = Mutex::default();
        let opened = Self {
            bpffs: bpffs.into(),
            pins,
            maps,
            states,
            gate_program: filter,
            claim_listener: listener,
            stays,
            records,
        };
        opened.take_over(name)?;
        Ok(opened)
    }

    /// Reads what exists in the kernel, and removes entries that belong to no gate.
    fn take_over(&self, name: &GateName) -> io::Result<()> {
        let mut records = self.records();
        for gate in PinDirectory::gates(&self.bpffs, name)? {
            if let Some(slot) = PinDirectory::of(&self.bpffs, &gate).slot()? {
                records.slots.insert(slot, SlotKeys::default());
            }
        }
        for (key, slot) in self.maps.addresses()? {
            match slot.and_then(|slot| records.slots.get_mut(&slot)) {
                Some(named) => drop(named.addresses.insert(key)),
                None => syscall::unset(&self.maps.addresses, &key)?,
            }
        }
        for (key, slot) in self.maps.groups()? {
            match slot.and_then(|slot| records.slots.get_mut(&slot)) {
                Some(named) => named.group = Some(key),
                None => syscall::unset(&self.maps.groups, &key)?,
            }
        }
        for (peer, _) in syscall::entries::<PEER_BYTES, 1>(&self.maps.peers)? {
            // Peers that are still believed come with the gates.
            if self.stays {
                syscall::unset(&self.maps.peers, &peer)?;
            } else {
                records.peers.insert(peer);
            }
        }
        for hook in self.pins.hooks()? {
            // Left by a daemon that ended while it replaced the link.
            self.pins.unpin(&format!("{NEXT_PIN}{}", hook.name()))?;
            match self.pins.get(&hook.name())?.filter(|link| is_attached(link, hook)) {
                Some(link) => {
                    self.check_network(&link, hook)?;
                    let [program, _] = self.programs(hook);
                    syscall::replace(&link, program).map_err(|error| attach_error(&error, hook))?;
                    records.links.insert(hook, link);
                }
                None => self.pins.unpin(&hook.name())?,
            }
        }
        Ok(())
    }

    fn records(&self) -> MutexGuard<'_, BpfRecords> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    pub(super) fn stays(&self) -> bool {
        self.stays
    }

    pub(super) fn state(&self, slot: Slot) -> &GateState {
        self.states.get(slot)
    }

    pub(in crate::gate) fn refused(&self) -> u64 {
        self.states.get(Slot::COUNTERS).refused()
    }

    fn programs(&self, hook: Hook) -> &[OwnedFd; 2] {
        match hook {
            Hook::ClaimListener(_) => &self.claim_listener,
            Hook::Ingress(_) | Hook::Egress(_) => &self.gate_program,
        }
    }

    // ---- covered interfaces

    /// Covers the hook from now on. Costs nothing if it is covered already.
    pub(in crate::gate) fn cover(&self, hook: Hook) -> io::Result<()> {
        if let Entry::Vacant(pins) = self.records().links.entry(hook) {
            pins.insert(self.link(hook)?);
        }
        Ok(())
    }

    pub(super) fn covers(&self, hook: Hook) -> bool {
        self.records().links.contains_key(&hook)
    }

    pub(super) fn uncover(&self, hook: Hook) -> io::Result<()> {
        self.pins.unpin(&hook.name())?;
        self.records().links.remove(&hook);
        Ok(())
    }

    /// A link with our program: the pinned one, or a new one.
    fn link(&self, hook: Hook) -> io::Result<OwnedFd> {
        let programs = self.programs(hook);
        let pin = hook.name();
        self.pins.make()?;
        if let Some(pinned) = self.pins.get(&pin)?.filter(|link| is_attached(link, hook)) {
            self.check_network(&pinned, hook)?;
            syscall::replace(&pinned, &programs[0]).map_err(|error| attach_error(&error, hook))?;
            return Ok(pinned);
        }
        self.pins.unpin(&pin)?;
        let link = syscall::attach_one_of(programs, hook.interface(), hook_of(hook))
            .map_err(|error| attach_error(&error, hook))?;
        syscall::pin(&link, &self.pins.path(&pin)).map_err(|error| self.pins.with_context(error))?;
        Ok(link)
    }

    /// If a foreign program runs before ours, puts ours in front again on one hook. Returns the interface and the
    /// foreign program's name. The new link is made before the old one is removed, which takes 10 to 20 ms. Checks at
    /// most `most` hooks, each time others.
    pub(in crate::gate) fn stay_in_front(&self, most: usize) -> io::Result<Option<(u32, String)>> {
        let mut records = self.records();
        let mut found = None;
        for hook in records.hooks_after(records.front_checked, most) {
            records.front_checked = Some(hook);
            let link = records.links.get(&hook).filter(|link| is_attached(link, hook));
            let asked = link.map(|link| syscall::foreign_in_front(link, hook.interface(), hook_of(hook)));
            if let Some(by) = asked.transpose()?.flatten() {
                found = Some((hook, by));
                break;
            }
        }
        let Some((hook, by)) = found else { return Ok(None) };
        let link = syscall::attach_one_of(self.programs(hook), hook.interface(), hook_of(hook))
            .map_err(|error| attach_error(&error, hook))?;
        let (pin, next) =
            (self.pins.path(&hook.name()), self.pins.path(&format!("{NEXT_PIN}{}", hook.name())));
        self.pins.unpin(&format!("{NEXT_PIN}{}", hook.name()))?;
        syscall::pin(&link, &next).map_err(|error| self.pins.with_context(error))?;
        // Closes the old link's descriptor first. Its pin is then the last reference, and removing that does not block.
        records.links.insert(hook, link);
        std::fs::rename(&next, &pin).map_err(|error| self.pins.with_context(error))?;
        Ok(Some((hook.interface(), by)))
    }

    /// A link on an interface with that number in another network namespace protects nothing here.
    fn check_network(&self, link: &OwnedFd, hook: Hook) -> io::Result<()> {
        let info = syscall::link_info(link)?;
        let here = syscall::attached(hook.interface(), hook_of(hook));
        if here.is_ok_and(|all| all.iter().any(|other| other.link == info.number)) {
            return Ok(());
        }
        let text = format!(
            "{} belongs to another network namespace, where a cluster of the same name runs: mount a separate bpf \
             file system for this one",
            self.pins.path(&hook.name()).display()
        );
        Err(io::Error::new(io::ErrorKind::AddrInUse, text))
    }

    /// Describes what is missing in the kernel. An interface that is gone is forgotten. Checks at most `most` hooks,
    /// each time others.
    pub(in crate::gate) fn missing(&self, most: usize) -> io::Result<Vec<String>> {
        let mut missing = Vec::new();
        for (pin, map) in self.maps.all() {
            missing.extend(self.missing_pin(&self.pins, pin, map)?);
        }
        let mut records = self.records();
        for hook in records.hooks_after(records.checked, most) {
            records.checked = Some(hook);
            let Some(own) = records.links.get(&hook) else { continue };
            let pin = hook.name();
            if !is_attached(own, hook) {
                if crate::gate::check_interface(hook.interface()).is_ok() {
                    missing.push(with_interface("the program on", hook.interface()));
                } else {
                    self.pins.unpin(&pin)?;
                    records.links.remove(&hook);
                }
                continue;
            }
            match self.pins.get(&pin)?.map(syscall::link_info).transpose()? {
                Some(pinned) if pinned == syscall::link_info(own)? => {}
                Some(_) => missing.push(other_pin(&self.pins, &pin)),
                None => missing.push(no_pin(&self.pins, &pin)),
            }
        }
        Ok(missing)
    }

    fn missing_pin(&self, place: &PinDirectory, pin: &str, map: &OwnedFd) -> io::Result<Option<String>> {
        let own = syscall::map_number(map)?;
        Ok(match place.get(pin)?.map(syscall::map_number).transpose()? {
            Some(pinned) if pinned == own => None,
            Some(_) => Some(other_pin(place, pin)),
            None => Some(no_pin(place, pin)),
        })
    }

    /// Puts back what is missing, except on interfaces that are gone.
    pub(in crate::gate) fn restore(&self) -> io::Result<()> {
        self.pins.make()?;
        for (pin, map) in self.maps.all() {
            if self.missing_pin(&self.pins, pin, map)?.is_some() {
                self.pin(&self.pins, pin, map)?;
            }
        }
        let mut records = self.records();
        let hooks: Vec<Hook> = records.links.keys().copied().collect();
        for hook in hooks {
            if crate::gate::check_interface(hook.interface()).is_err() {
                self.pins.unpin(&hook.name())?;
                records.links.remove(&hook);
                continue;
            }
            let pin = hook.name();
            let pinned = self.pins.get(&pin)?.map(syscall::link_info).transpose()?;
            let own = records.links.get(&hook).filter(|own| is_attached(own, hook));
            match own.map(|own| Ok::<_, io::Error>((own, syscall::link_info(own)?))).transpose()? {
                Some((_, info)) if pinned == Some(info) => {}
                Some((own, _)) => {
                    self.pins.unpin(&pin)?;
                    syscall::pin(own, &self.pins.path(&pin))
                        .map_err(|error| self.pins.with_context(error))?;
                }
                None => {
                    let link = self.link(hook)?;
                    records.links.insert(hook, link);
                }
            }
        }
        Ok(())
    }

    fn pin(&self, place: &PinDirectory, pin: &str, map: &OwnedFd) -> io::Result<()> {
        place.make()?;
        place.unpin(pin)?;
        syscall::pin(map, &place.path(pin)).map_err(|error| place.with_context(error))
    }

    /// Removes it completely, unless a group still has a gate. Returns whether there was one.
    pub(in crate::gate) fn remove(&self, name: &GateName) -> io::Result<bool> {
        remove(&self.bpffs, name)
    }

    // ---- slots, and the entries that name them

    /// The gate's slot: the one that it has, or a free one, shut and cleared before any entry names it. Also returns
    /// whether it is new.
    pub(super) fn slot(&self, gate: &PinDirectory) -> io::Result<(Slot, bool)> {
        let mut records = self.records();
        if let Some(slot) = gate.slot()?.filter(|slot| records.slots.contains_key(slot)) {
            gate.keep_only(&slot.name())?;
            return Ok((slot, false));
        }
        // Also removes the pins of another version: its programs would go on dropping packets.
        gate.keep_only("")?;
        let begin = records.last.map_or(Slot::FIRST, Slot::next);
        let mut slot = begin;
        while records.slots.contains_key(&slot) {
            slot = slot.next();
            if slot == begin {
                let text = format!(
                    "{} groups of this cluster have a gate on this machine already, which is the limit; `locum \
                     gate` lists them",
                    state::SLOTS
                );
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
            }
        }
        self.states.get(slot).clear();
        self.pin(gate, &slot.name(), &self.maps.gates)?;
        records.slots.insert(slot, SlotKeys::default());
        records.last = Some(slot);
        Ok((slot, true))
    }

    /// Listens to announcements to this port from now on; no socket gets them.
    pub(in crate::gate) fn listen_to(&self, port: u16) -> io::Result<()> {
        self.believe(&mut self.records(), port_key(port))
    }

    fn believe(&self, records: &mut BpfRecords, peer: PeerKey) -> io::Result<()> {
        if !records.peers.contains(&peer) {
            syscall::set(&self.maps.peers, &peer, &[1]).map_err(|error| map_error(&error, "peers"))?;
            records.peers.insert(peer);
        }
        Ok(())
    }

    /// Makes exactly the addresses and the group of `settings` name the slot. New entries are added before old ones are
    /// removed.
    pub(super) fn set_keys(&self, slot: Slot, settings: &GateSettings) -> io::Result<()> {
        let mut records = self.records();
        if let Some(rivals) = &settings.rivals {
            let peers = rivals.peers.iter().map(|ip| peer_key(*ip, rivals.port));
            for peer in peers.chain([port_key(rivals.port)]) {
                self.believe(&mut records, peer)?;
            }
        }
        let named = records.slots.entry(slot).or_default();
        let group = settings.rivals.as_ref().map(|rivals| rivals.subject.0);
        if let Some(old) = named.group.take_if(|old| Some(*old) != group) {
            delete_if_slot(&self.maps.groups, &old, slot)?;
        }
        if let Some(key) = group {
            syscall::set(&self.maps.groups, &key, &slot.bytes())
                .map_err(|error| map_error(&error, "groups"))?;
            named.group = Some(key);
        }
        let wanted: BTreeSet<_> = settings.addresses.iter().map(|ip| address_key(*ip)).collect();
        for &key in &wanted {
            match syscall::add(&self.maps.addresses, &key, &slot.bytes()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let other = slot_at(&self.maps.addresses, &key)?.filter(|other| *other != slot);
                    if let Some(other) = other {
                        return Err(self.collision(&settings.name, key, other));
                    }
                }
                Err(error) => return Err(map_error(&error, "addresses")),
            }
            named.addresses.insert(key);
        }
        for key in named.addresses.extract_if(.., |key| !wanted.contains(key)) {
            delete_if_slot(&self.maps.addresses, &key, slot)?;
        }
        Ok(())
    }

    fn collision(&self, name: &GateName, key: AddressKey, slot: Slot) -> io::Error {
        let ip = IpAddr::from(key).to_canonical();
        let all = PinDirectory::gates(&self.bpffs, name).unwrap_or_default();
        let is_its =
            |name: &GateName| PinDirectory::of(&self.bpffs, name).slot().is_ok_and(|its| its == Some(slot));
        let text = match all.iter().find(|name| is_its(name)) {
            Some(other) => format!(
                "the gate of group {0} has {ip} already; `locum gate --remove --group {0}` removes that gate",
                other.group()
            ),
            None => format!("another gate has {ip} already"),
        };
        io::Error::new(io::ErrorKind::AddrInUse, text)
    }

    /// Removes a gate: first the entries that name its slot, then the slot.
    pub(super) fn forget(&self, slot: Slot, gate: &PinDirectory) -> io::Result<()> {
        let mut records = self.records();
        if let Some(named) = records.slots.get(&slot) {
            for key in &named.addresses {
                delete_if_slot(&self.maps.addresses, key, slot)?;
            }
            if let Some(key) = &named.group {
                delete_if_slot(&self.maps.groups, key, slot)?;
            }
        }
        self.states.get(slot).close();
        gate.remove()?;
        records.slots.remove(&slot);
        Ok(())
    }

    /// Describes what is missing in the kernel of the gate in that slot.
    pub(super) fn missing_of(
        &self,
        slot: Slot,
        gate: &PinDirectory,
        settings: &GateSettings,
    ) -> io::Result<Vec<String>> {
        let mut missing = Vec::from_iter(self.missing_pin(gate, &slot.name(), &self.maps.gates)?);
        for ip in &settings.addresses {
            if slot_at(&self.maps.addresses, &address_key(*ip))? != Some(slot) {
                missing.push(format!("the address {ip}"));
            }
        }
        if let Some(rivals) = &settings.rivals
            && slot_at(&self.maps.groups, &rivals.subject.0)? != Some(slot)
        {
            missing.push("the group's number".into());
        }
        Ok(missing)
    }

    /// Puts the slot's pin back if it is missing.
    pub(super) fn pin_slot(&self, slot: Slot, gate: &PinDirectory) -> io::Result<()> {
        match self.missing_pin(gate, &slot.name(), &self.maps.gates)? {
            Some(_) => self.pin(gate, &slot.name(), &self.maps.gates),
            None => Ok(()),
        }
    }
}

/// Removes the cluster's packet filter completely, unless a group still has a gate. Returns whether there was one.
pub(in crate::gate) fn remove(bpffs: &Path, name: &GateName) -> io::Result<bool> {
    let pins = PinDirectory::of_packet_filter(bpffs, name);
    if !pins.exists() || !PinDirectory::gates(bpffs, name)?.is_empty() {
        return Ok(false);
    }
    pins.remove()?;
    Ok(true)
}

fn twice(program: &[[u8; 8]], name: &str) -> io::Result<[OwnedFd; 2]> {
    Ok([syscall::load(program, name)?, syscall::load(program, name)?])
}

fn is_attached(link: &OwnedFd, hook: Hook) -> bool {
    let wanted = (hook.interface(), hook_of(hook) as u32);
    syscall::link_info(link).is_ok_and(|info| (info.interface, info.attach_type) == wanted)
}

fn hook_of(hook: Hook) -> TcxHook {
    match hook {
        Hook::Ingress(_) | Hook::ClaimListener(_) => TcxHook::Ingress,
        Hook::Egress(_) => TcxHook::Egress,
    }
}

fn attach_error(error: &io::Error, hook: Hook) -> io::Error {
    with_context(error, &with_interface("put the gate program on", hook.interface()))
}

fn no_pin(place: &PinDirectory, pin: &str) -> String {
    format!("the pin {}", place.path(pin).display())
}

fn other_pin(place: &PinDirectory, pin: &str) -> String {
    format!("the pin {}, replaced by a foreign one", place.path(pin).display())
}

/// The kernel's error for a full map says nothing of that.
fn map_error(error: &io::Error, what: &str) -> io::Error {
    if error.raw_os_error() == Some(libc::E2BIG) {
        let text =
            format!("the gates of this cluster have too many {what} together; `locum gate` lists them");
        return io::Error::new(io::ErrorKind::QuotaExceeded, text);
    }
    with_context(error, &format!("write the gate's {what}"))
}
