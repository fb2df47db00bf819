//! The preferred engine: an eBPF program on tcx, both ways of each interface, that compares the kernel's boot time with
//! the deadline in a map. Links, state and addresses are pinned, so a daemon that dies leaves the gate standing, and
//! the deadline shuts it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use super::{Ballot, Engine, Listed, Name, Renewal, Renewed, Settings, hook::Hook, said, with_interface};
use crate::clock;

mod insn;
mod place;
mod program;
mod state;
mod syscall;

use place::Place;
pub use place::{CUSTOMARY, ensure_bpffs, find_bpffs};
use state::Mapped;
use syscall::{MapShape, Way};

const STATE_PIN: &str = "state";
const ADDRESSES_PIN: &str = "addresses";
/// A service address or a peer's: an IPv6 address, or an IPv4 address mapped into one.
const KEY_BYTES: usize = 16;
const STATE: MapShape = MapShape {
    kind: MapShape::ARRAY,
    key: 4,
    value: state::BYTES as u32,
    entries: 1,
    flags: MapShape::CAN_BE_MAPPED,
};
const ADDRESSES: MapShape = MapShape {
    kind: MapShape::HASH,
    key: KEY_BYTES as u32,
    value: 1,
    entries: super::ADDRESSES_MAX as u32,
    flags: 0,
};
/// The name of the program that shows the kernel's clock.
const CLOCK: &str = "locum_clock";
/// So often the clock is compared before a comparison that was interrupted each time is believed.
const CLOCK_TRIES: usize = 10;

/// A gate of this engine.
#[derive(Debug)]
pub(super) struct Gate {
    place: Place,
    state: Mapped,
    judge: OwnedFd,
    ear: Option<OwnedFd>,
    links: BTreeMap<Hook, OwnedFd>,
}

impl Gate {
    /// Makes the gate stand as `settings` say, whatever of it stands already. A lease that runs goes on, unless it is
    /// to be closed first.
    pub(super) fn install(bpffs: &Path, settings: &Settings, closed: bool) -> io::Result<Self> {
        // A deadline on another clock than the kernel's would be none.
        let clock =
            syscall::load(&program::clock(), CLOCK).map_err(|error| said(&error, "load a program"))?;
        compare_clock(&clock).map_err(io::Error::other)?;
        let place = Place::of(bpffs, &settings.name);
        place.make()?;
        let state_map = map(&place, STATE_PIN, STATE)?;
        let state = Mapped::new(&state_map).map_err(|error| said(&error, "map the state of the gate"))?;
        if closed {
            state.close();
        }
        state.set_ballot(settings.ballot);
        let addresses = map(&place, ADDRESSES_PIN, ADDRESSES)?;
        let rivals = settings.rivals.as_ref();
        write_addresses(&addresses, settings)?;
        let judge = syscall::load(&program::judge(state_map.as_fd(), addresses.as_fd()), "locum_judge")
            .map_err(|error| said(&error, "load the gate's program"))?;
        let ear = rivals
            .map(|rivals| {
                let (port, cluster, group) = (rivals.port, rivals.cluster, rivals.group);
                let program = program::ear(state_map.as_fd(), addresses.as_fd(), port, cluster, group);
                syscall::load(&program, "locum_ear")
            })
            .transpose()
            .map_err(|error| said(&error, "load the program that hears rivals"))?;
        let mut gate = Self { place, state, judge, ear, links: BTreeMap::new() };
        let wanted = Hook::wanted(settings);
        for &hook in &wanted {
            gate.link(hook)?;
        }
        for hook in gate.place.hooks()?.into_iter().filter(|hook| !wanted.contains(hook)) {
            gate.place.unpin(&hook.name())?;
        }
        Ok(gate)
    }

    /// Whether something of the gate is pinned.
    pub(super) fn stands(bpffs: &Path, name: &Name) -> bool {
        Place::of(bpffs, name).exists()
    }

    pub(super) fn renew(&self, renewal: Renewal) -> Renewed {
        self.state.renew(renewal);
        if self.state.is_undisputed() {
            Renewed::Open
        } else {
            Renewed::Shut { since: self.state.shut_at(), rival: Some(self.state.rival()) }
        }
    }

    pub(super) fn close(&self) {
        self.state.close();
    }

    pub(super) fn set_ballot(&self, ballot: Ballot) {
        self.state.set_ballot(ballot);
    }

    pub(super) fn add_interface(&mut self, interface: u32) -> io::Result<()> {
        Hook::judges(interface).into_iter().try_for_each(|hook| self.link(hook))
    }

    pub(super) fn remove_interface(&mut self, interface: u32) -> io::Result<()> {
        for hook in Hook::judges(interface) {
            self.place.unpin(&hook.name())?;
            self.links.remove(&hook);
        }
        Ok(())
    }

    /// What of the gate is not in the kernel any more.
    pub(super) fn missing(&self, settings: &Settings) -> io::Result<Vec<String>> {
        let mut missing = Vec::new();
        for pin in [STATE_PIN, ADDRESSES_PIN] {
            if self.place.get(pin)?.is_none() {
                missing.push(format!("the pin {}", self.place.path(pin).display()));
            }
        }
        for hook in Hook::wanted(settings) {
            let path = self.place.path(&hook.name());
            let own = self.links.get(&hook).map(syscall::link_info).transpose()?.map(|info| info.number);
            match self.place.get(&hook.name())?.map(syscall::link_info).transpose()? {
                Some(pinned) if pinned.interface != hook.interface() => {
                    missing.push(with_interface("the program on", hook.interface()));
                }
                Some(pinned) if Some(pinned.number) != own => {
                    missing.push(format!("the link at {}: another is there", path.display()));
                }
                Some(_) => {}
                None => missing.push(format!("the pin {}", path.display())),
            }
        }
        Ok(missing)
    }

    /// Lets the hook's program see packets: in place of the one in a link that is pinned there, else by a new link.
    fn link(&mut self, hook: Hook) -> io::Result<()> {
        let doing = |error| said(&error, &with_interface("put the gate's program on", hook.interface()));
        let program = match hook {
            Hook::Ear(_) => self.ear.as_ref().ok_or(io::ErrorKind::InvalidInput)?,
            Hook::In(_) | Hook::Out(_) => &self.judge,
        };
        let pin = hook.name();
        let stands = |link: &OwnedFd| {
            let wanted = (hook.interface(), way(hook) as u32);
            syscall::link_info(link).is_ok_and(|info| (info.interface, info.way) == wanted)
        };
        if let Some(pinned) = self.place.get(&pin)?.filter(stands) {
            syscall::replace(&pinned, program).map_err(doing)?;
            self.links.insert(hook, pinned);
            return Ok(());
        }
        self.place.unpin(&pin)?;
        let link = syscall::link(program, hook.interface(), way(hook)).map_err(doing)?;
        syscall::pin(&link, &self.place.path(&pin)).map_err(|error| self.place.said(error))?;
        self.links.insert(hook, link);
        Ok(())
    }
}

fn way(hook: Hook) -> Way {
    match hook {
        Hook::In(_) | Hook::Ear(_) => Way::In,
        Hook::Out(_) => Way::Out,
    }
}

/// The map that is pinned there, or a new one.
fn map(place: &Place, pin: &str, shape: MapShape) -> io::Result<OwnedFd> {
    if let Some(pinned) = place.get(pin)? {
        if syscall::map_shape(&pinned)? == shape {
            return Ok(pinned);
        }
        place.unpin(pin)?;
    }
    let map =
        syscall::create_map(shape, &format!("locum_{pin}")).map_err(|error| said(&error, "make a map"))?;
    syscall::pin(&map, &place.path(pin)).map_err(|error| place.said(error))?;
    Ok(map)
}

/// New addresses first: no moment with fewer than both lists have in common.
fn write_addresses(map: &OwnedFd, settings: &Settings) -> io::Result<()> {
    let mut wanted = BTreeMap::new();
    let services = settings.addresses.iter().map(|ip| (ip, program::SERVICE));
    let peers = settings.rivals.iter().flat_map(|rivals| &rivals.peers).map(|ip| (ip, program::PEER));
    for (ip, meaning) in services.chain(peers) {
        *wanted.entry(key(*ip)).or_insert(0u8) |= meaning;
    }
    let doing = |error| said(&error, "write the gate's addresses");
    for (key, meaning) in &wanted {
        syscall::set(map, key, &[*meaning]).map_err(doing)?;
    }
    for key in syscall::keys::<KEY_BYTES>(map).map_err(doing)? {
        if !wanted.contains_key(&key) {
            syscall::unset(map, &key).map_err(doing)?;
        }
    }
    Ok(())
}

fn key(ip: IpAddr) -> [u8; KEY_BYTES] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// All gates that are pinned.
pub(super) fn list(bpffs: &Path) -> io::Result<Vec<Listed>> {
    Place::all(bpffs)?.into_iter().map(|name| look(bpffs, name)).collect()
}

fn look(bpffs: &Path, name: Name) -> io::Result<Listed> {
    let place = Place::of(bpffs, &name);
    let state = place.get(STATE_PIN)?.filter(|map| syscall::map_shape(map).is_ok_and(|shape| shape == STATE));
    let state = state.map(Mapped::new).transpose()?;
    let open = state.filter(Mapped::is_undisputed).map_or(0, |state| state.deadline());
    let mut addresses = Vec::new();
    if let Some(map) = place.get(ADDRESSES_PIN)? {
        for key in syscall::keys::<KEY_BYTES>(&map)? {
            let service = syscall::value::<1>(&map, &key)?[0] & program::SERVICE != 0;
            addresses.extend(service.then(|| IpAddr::from(key).to_canonical()));
        }
    }
    let mut interfaces = BTreeSet::new();
    for hook in place.hooks()?.into_iter().filter(|hook| !matches!(hook, Hook::Ear(_))) {
        let info = place.get(&hook.name())?.map(syscall::link_info).transpose()?;
        interfaces.extend(info.map(|info| info.interface).filter(|interface| *interface != 0));
    }
    addresses.sort();
    Ok(Listed {
        name,
        engine: Engine::Bpf { bpffs: bpffs.into() },
        addresses,
        interfaces: interfaces.into_iter().collect(),
        deadline: (open > clock::boot_nanos()).then_some(open),
    })
}

/// Leaves nothing of the gate. Returns whether there was something.
pub(super) fn remove(bpffs: &Path, name: &Name) -> io::Result<bool> {
    let place = Place::of(bpffs, name);
    let stood = place.exists();
    place.remove()?;
    Ok(stood)
}

/// Why this engine does not work for the calling thread; all but the file system for its pins.
pub(super) fn probe() -> Result<(), String> {
    let clock = syscall::load(&program::clock(), CLOCK).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => {
            "no right to load programs (CAP_BPF and CAP_NET_ADMIN, outside of user namespaces)".to_owned()
        }
        Some(libc::ENOSYS) => "the kernel has no bpf system call (CONFIG_BPF_SYSCALL)".to_owned(),
        _ => format!("the kernel refuses the program: {error}"),
    })?;
    compare_clock(&clock)?;
    let loopback = 1;
    for way in [Way::In, Way::Out] {
        syscall::link(&clock, loopback, way)
            .map_err(|error| format!("no tcx hooks (Linux 6.6, CONFIG_NET_XGRESS): {error}"))?;
    }
    Ok(())
}

/// The kernel's time must lie between two readings of ours.
fn compare_clock(program: &OwnedFd) -> Result<(), String> {
    let mut apart = 0;
    for _ in 0..CLOCK_TRIES {
        // An Ethernet header is the least that a packet must have.
        let mut packet = [0; 64];
        let before = clock::boot_nanos();
        syscall::test_run(program, &mut packet)
            .map_err(|error| format!("cannot test the program: {error}"))?;
        let after = clock::boot_nanos();
        let kernel = packet.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        if (before..=after).contains(&kernel) {
            return Ok(());
        }
        apart = i128::from(before) - i128::from(kernel);
    }
    Err(format!(
        "CLOCK_BOOTTIME of this process is {} ms off the kernel's: it lives in a time namespace",
        apart / 1_000_000
    ))
}
