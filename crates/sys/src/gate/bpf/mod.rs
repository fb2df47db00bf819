//! The preferred backend: an eBPF program on tcx, in both directions of each interface. It compares the kernel's boot
//! time with the deadlines of a cluster's gates in a map. Links, deadlines and addresses are pinned: if the daemon dies
//! the gates stay, and their deadlines shut them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use super::{
    Engine, Listed, Name, Proof, Renewal, Renewed, Settings, StandingJudge, hook::Hook, with_interface,
};
use crate::clock;

pub(super) mod elsewhere;
mod insn;
mod judge;
mod place;
mod program;
mod state;
mod syscall;

use judge::Maps;
pub(super) use judge::{Judge, remove as remove_judge};
use place::Place;
pub(super) use place::is_read_only;
pub use place::{CUSTOMARY, ensure_bpffs, find_bpffs};
#[cfg(test)]
pub(super) use state::SLOTS;
use state::{Slot, State};
use syscall::Way;

/// The name of the program that reads the kernel's clock.
const CLOCK: &str = "locum_clock";
/// The most comparisons of the clocks. A comparison fails if the process is interrupted between its readings; if all of
/// them fail, the difference is believed.
const CLOCK_TRIES: usize = 10;

/// A gate of this backend: a slot of its cluster's packet filter, and the map entries that name it.
#[derive(Debug)]
pub(super) struct Gate {
    judge: Arc<Judge>,
    place: Place,
    slot: Slot,
}

impl Gate {
    /// Makes the gate as `settings` say, whatever parts of it exist already. A running lease goes on unless `closed`.
    pub(super) fn install(judge: Arc<Judge>, settings: &Settings, closed: bool) -> io::Result<Self> {
        for hook in Hook::wanted(settings) {
            judge.cover(hook)?;
        }
        let place = Place::of(judge.bpffs(), &settings.name);
        let (slot, is_new) = judge.slot(&place)?;
        let gate = Self { judge, place, slot };
        if closed {
            gate.close();
        }
        gate.set_proofs(&settings.proofs);
        if let Err(error) = gate.put(settings) {
            if is_new {
                // A caller that goes on without the gate must not be silenced by half of one.
                let _ = gate.judge.forget(slot, &gate.place);
            }
            return Err(error);
        }
        Ok(gate)
    }

    /// Makes its pins and map entries; its state stays as it is.
    fn put(&self, settings: &Settings) -> io::Result<()> {
        self.judge.pin_slot(self.slot, &self.place)?;
        self.judge.name(self.slot, settings)
    }

    /// Whether any part of the gate is pinned.
    pub(super) fn stands(bpffs: &Path, name: &Name) -> bool {
        matches!(Place::of(bpffs, name).slot(), Ok(Some(_)))
    }

    fn state(&self) -> &State {
        self.judge.state(self.slot)
    }

    pub(super) fn renew(&self, renewal: Renewal) -> Renewed {
        let state = self.state();
        state.renew(renewal);
        if state.is_undisputed() { Renewed::Open } else { Renewed::Shut { since: state.shut_at() } }
    }

    pub(super) fn close(&self) {
        self.state().close();
    }

    pub(super) fn set_proofs(&self, proofs: &[Proof]) {
        self.state().set_proofs(proofs);
    }

    pub(super) fn add_interface(&self, interface: u32) -> io::Result<()> {
        Hook::judges(interface).into_iter().try_for_each(|hook| self.judge.cover(hook))
    }

    /// Removes the program from there if it serves this gate alone. A packet filter for all gates of the cluster stays.
    pub(super) fn remove_interface(&self, interface: u32, name: &Name) -> io::Result<()> {
        if self.judge.stays() || Place::gates(self.judge.bpffs(), name)?.len() > 1 {
            return Ok(());
        }
        Hook::judges(interface).into_iter().try_for_each(|hook| self.judge.uncover(hook))
    }

    /// Describes what is missing of the gate in the kernel. A packet filter that stays reports its own parts.
    pub(super) fn missing(&self, settings: &Settings) -> io::Result<Vec<String>> {
        let mut missing = if self.judge.stays() { Vec::new() } else { self.judge.missing(usize::MAX)? };
        missing.extend(self.judge.missing_of(self.slot, &self.place, settings)?);
        let uncovered = Hook::wanted(settings).into_iter().filter(|hook| !self.judge.covers(*hook));
        missing.extend(uncovered.map(|hook| with_interface("the program on", hook.interface())));
        Ok(missing)
    }

    pub(super) fn restore(&self, settings: &Settings) -> io::Result<()> {
        if !self.judge.stays() {
            self.judge.restore()?;
        }
        for hook in Hook::wanted(settings) {
            self.judge.cover(hook)?;
        }
        self.put(settings)
    }

    /// Removes the gate completely, and the packet filter if it served this gate alone.
    pub(super) fn remove(self, name: &Name) -> io::Result<()> {
        self.judge.forget(self.slot, &self.place)?;
        if !self.judge.stays() {
            self.judge.remove(name)?;
        }
        Ok(())
    }
}

/// All gates that are pinned in the bpf file system.
pub(super) fn list(bpffs: &Path) -> io::Result<Vec<Listed>> {
    let mut all = Vec::new();
    for judge in Place::clusters(bpffs)? {
        let gates = Place::gates(bpffs, &judge)?;
        if !gates.is_empty() {
            all.extend(list_of(bpffs, &judge, gates)?);
        }
    }
    Ok(all)
}

fn list_of(bpffs: &Path, judge: &Name, gates: Vec<Name>) -> io::Result<Vec<Listed>> {
    let place = Place::of_judge(bpffs, judge);
    let maps = Maps::find(&place)?;
    let states = maps.as_ref().map(Maps::states).transpose()?;
    let mut addresses: BTreeMap<Slot, Vec<IpAddr>> = BTreeMap::new();
    for (key, slot) in maps.as_ref().map(Maps::addresses).transpose()?.unwrap_or_default() {
        if let Some(slot) = slot {
            addresses.entry(slot).or_default().push(IpAddr::from(key).to_canonical());
        }
    }
    let interfaces = interfaces(&place)?;
    let now = clock::boot_nanos();
    gates
        .into_iter()
        .map(|name| {
            let slot = Place::of(bpffs, &name).slot()?;
            let state = states.as_ref().zip(slot).map(|(states, slot)| states.get(slot));
            let open = state.filter(|state| state.is_undisputed()).map_or(0, State::deadline);
            let mut addresses = slot.and_then(|slot| addresses.remove(&slot)).unwrap_or_default();
            addresses.sort();
            Ok(Listed {
                name,
                engine: Engine::Bpf { bpffs: bpffs.into() },
                addresses,
                interfaces: interfaces.clone(),
                deadline: (open > now).then_some(open),
            })
        })
        .collect()
}

/// The interfaces that the packet filter covers.
fn interfaces(place: &Place) -> io::Result<Vec<u32>> {
    let mut interfaces = BTreeSet::new();
    for hook in place.hooks()?.into_iter().filter(|hook| !matches!(hook, Hook::Ear(_))) {
        let info = place.get(&hook.name())?.map(syscall::link_info).transpose()?;
        interfaces.extend(info.map(|info| info.interface).filter(|interface| *interface != 0));
    }
    Ok(interfaces.into_iter().collect())
}

/// All packet filters that are pinned, with and without gates.
pub(super) fn judges(bpffs: &Path) -> io::Result<Vec<StandingJudge>> {
    let look = |name: Name| {
        let place = Place::of_judge(bpffs, &name);
        let stands = place.exists();
        let gates = Place::gates(bpffs, &name)?.len();
        let interfaces = interfaces(&place)?;
        let engine = Engine::Bpf { bpffs: bpffs.into() };
        Ok(stands.then_some(StandingJudge { name, engine, interfaces, gates }))
    };
    Place::clusters(bpffs)?.into_iter().filter_map(|name| look(name).transpose()).collect()
}

/// Removes the gate completely, and the cluster's packet filter if it was the last gate. Returns whether there was a
/// gate.
pub(super) fn remove(bpffs: &Path, name: &Name) -> io::Result<bool> {
    let place = Place::of(bpffs, name);
    let stood = place.exists();
    let maps = Maps::find(&Place::of_judge(bpffs, name))?;
    if let (Some(slot), Some(maps)) = (place.slot()?, maps) {
        maps.forget(slot)?;
        maps.states()?.get(slot).close();
    }
    place.remove()?;
    remove_judge(bpffs, name)?;
    Ok(stood)
}

/// For racks and tests: puts a foreign program on the interface that answers "pass", in both directions. It stays as
/// long as the returned descriptors live.
///
/// # Errors
/// The kernel's error.
pub fn pass_everything(interface: u32, in_front: bool) -> io::Result<Vec<OwnedFd>> {
    const TCX_PASS: i32 = 0;
    let mut a = insn::Assembler::default();
    a.set(insn::Reg::R0, TCX_PASS);
    a.exit();
    let program = syscall::load(&a.assemble(), "somebody")?;
    let link = |way| syscall::link_at(&program, interface, way, in_front);
    Ok(vec![link(Way::In)?, link(Way::Out)?])
}

/// Why this backend does not work for the calling thread, apart from the file system for its pins.
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

/// Checks that the kernel's time lies between two readings of our clock.
fn compare_clock(program: &OwnedFd) -> Result<(), String> {
    let mut apart = 0;
    for _ in 0..CLOCK_TRIES {
        // A packet must have an Ethernet header at least.
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
