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
    Backend, GateName, GateSettings, ListedGate, ListedPacketFilter, Proof, Renewal, RenewalOutcome,
    hook::Hook, with_interface,
};
use crate::clock;

pub(super) mod arp_filter;
mod filter;
mod insn;
mod pins;
mod program;
mod state;
mod syscall;

use filter::GateMaps;
pub(super) use filter::{BpfFilter, remove as remove_filter};
use pins::PinDirectory;
pub(super) use pins::is_read_only;
pub use pins::{CUSTOMARY_MOUNT_POINT, ensure_bpffs, find_bpffs};
#[cfg(test)]
pub(super) use state::SLOTS;
use state::{GateState, Slot};
use syscall::TcxHook;

/// The name of the program that reads the kernel's clock.
const CLOCK_PROGRAM: &str = "locum_clock";
/// The most comparisons of the clocks. A comparison fails if the process is interrupted between its readings; if all of
/// them fail, the difference is believed.
const CLOCK_TRIES: usize = 10;

/// A gate of this backend: a slot of its cluster's packet filter, and the map entries that name it.
#[derive(Debug)]
pub(super) struct BpfGate {
    filter: Arc<BpfFilter>,
    pins: PinDirectory,
    slot: Slot,
}

impl BpfGate {
    /// Makes the gate as `settings` say, whatever parts of it exist already. A running lease goes on unless `closed`.
    pub(super) fn install(filter: Arc<BpfFilter>, settings: &GateSettings, closed: bool) -> io::Result<Self> {
        for hook in Hook::wanted(settings) {
            filter.cover(hook)?;
        }
        let pins = PinDirectory::of(filter.bpffs(), &settings.name);
        let (slot, is_new) = filter.slot(&pins)?;
        let gate = Self { filter, pins, slot };
        if closed {
            gate.close();
        }
        gate.set_proofs(&settings.proofs);
        if let Err(error) = gate.put(settings) {
            if is_new {
                // A caller that goes on without the gate must not be silenced by half of one.
                let _ = gate.filter.forget(slot, &gate.pins);
            }
            return Err(error);
        }
        Ok(gate)
    }

    /// Makes its pins and map entries; its state stays as it is.
    fn put(&self, settings: &GateSettings) -> io::Result<()> {
        self.filter.pin_slot(self.slot, &self.pins)?;
        self.filter.set_keys(self.slot, settings)
    }

    /// Whether any part of the gate is pinned.
    pub(super) fn exists(bpffs: &Path, name: &GateName) -> bool {
        matches!(PinDirectory::of(bpffs, name).slot(), Ok(Some(_)))
    }

    fn state(&self) -> &GateState {
        self.filter.state(self.slot)
    }

    pub(super) fn renew(&self, renewal: Renewal) -> RenewalOutcome {
        let state = self.state();
        state.renew(renewal);
        if state.is_undisputed() {
            RenewalOutcome::Open
        } else {
            RenewalOutcome::Shut { since: state.rival_heard_at() }
        }
    }

    pub(super) fn close(&self) {
        self.state().close();
    }

    pub(super) fn set_proofs(&self, proofs: &[Proof]) {
        self.state().set_proofs(proofs);
    }

    pub(super) fn add_interface(&self, interface: u32) -> io::Result<()> {
        Hook::of_packet_filter(interface).into_iter().try_for_each(|hook| self.filter.cover(hook))
    }

    /// Removes the program from there if it serves this gate alone. A packet filter for all gates of the cluster stays.
    pub(super) fn remove_interface(&self, interface: u32, name: &GateName) -> io::Result<()> {
        if self.filter.stays() || PinDirectory::gates(self.filter.bpffs(), name)?.len() > 1 {
            return Ok(());
        }
        Hook::of_packet_filter(interface).into_iter().try_for_each(|hook| self.filter.uncover(hook))
    }

    /// Describes what is missing of the gate in the kernel. A packet filter that stays reports its own parts.
    pub(super) fn missing(&self, settings: &GateSettings) -> io::Result<Vec<String>> {
        let mut missing = if self.filter.stays() { Vec::new() } else { self.filter.missing(usize::MAX)? };
        missing.extend(self.filter.missing_of(self.slot, &self.pins, settings)?);
        let uncovered = Hook::wanted(settings).into_iter().filter(|hook| !self.filter.covers(*hook));
        missing.extend(uncovered.map(|hook| with_interface("the program on", hook.interface())));
        Ok(missing)
    }

    pub(super) fn restore(&self, settings: &GateSettings) -> io::Result<()> {
        if !self.filter.stays() {
            self.filter.restore()?;
        }
        for hook in Hook::wanted(settings) {
            self.filter.cover(hook)?;
        }
        self.put(settings)
    }

    /// Removes the gate completely, and the packet filter if it served this gate alone.
    pub(super) fn remove(self, name: &GateName) -> io::Result<()> {
        self.filter.forget(self.slot, &self.pins)?;
        if !self.filter.stays() {
            self.filter.remove(name)?;
        }
        Ok(())
    }
}

/// All gates that are pinned in the bpf file system.
pub(super) fn list(bpffs: &Path) -> io::Result<Vec<ListedGate>> {
    let mut all = Vec::new();
    for filter in PinDirectory::clusters(bpffs)? {
        let gates = PinDirectory::gates(bpffs, &filter)?;
        if !gates.is_empty() {
            all.extend(list_of(bpffs, &filter, gates)?);
        }
    }
    Ok(all)
}

fn list_of(bpffs: &Path, filter: &GateName, gates: Vec<GateName>) -> io::Result<Vec<ListedGate>> {
    let pins = PinDirectory::of_packet_filter(bpffs, filter);
    let maps = GateMaps::find(&pins)?;
    let states = maps.as_ref().map(GateMaps::states).transpose()?;
    let mut addresses: BTreeMap<Slot, Vec<IpAddr>> = BTreeMap::new();
    for (key, slot) in maps.as_ref().map(GateMaps::addresses).transpose()?.unwrap_or_default() {
        if let Some(slot) = slot {
            addresses.entry(slot).or_default().push(IpAddr::from(key).to_canonical());
        }
    }
    let interfaces = interfaces(&pins)?;
    let now = clock::boot_nanos();
    gates
        .into_iter()
        .map(|name| {
            let slot = PinDirectory::of(bpffs, &name).slot()?;
            let state = states.as_ref().zip(slot).map(|(states, slot)| states.get(slot));
            let open = state.filter(|state| state.is_undisputed()).map_or(0, GateState::deadline);
            let mut addresses = slot.and_then(|slot| addresses.remove(&slot)).unwrap_or_default();
            addresses.sort();
            Ok(ListedGate {
                name,
                backend: Backend::Bpf { bpffs: bpffs.into() },
                addresses,
                interfaces: interfaces.clone(),
                deadline: (open > now).then_some(open),
            })
        })
        .collect()
}

/// The interfaces that the packet filter covers.
fn interfaces(place: &PinDirectory) -> io::Result<Vec<u32>> {
    let mut interfaces = BTreeSet::new();
    for hook in place.hooks()?.into_iter().filter(|hook| !matches!(hook, Hook::ClaimListener(_))) {
        let info = place.get(&hook.name())?.map(syscall::link_info).transpose()?;
        interfaces.extend(info.map(|info| info.interface).filter(|interface| *interface != 0));
    }
    Ok(interfaces.into_iter().collect())
}

/// All packet filters that are pinned, with and without gates.
pub(super) fn packet_filters(bpffs: &Path) -> io::Result<Vec<ListedPacketFilter>> {
    let look = |name: GateName| {
        let pins = PinDirectory::of_packet_filter(bpffs, &name);
        let stands = pins.exists();
        let gates = PinDirectory::gates(bpffs, &name)?.len();
        let interfaces = interfaces(&pins)?;
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        Ok(stands.then_some(ListedPacketFilter { name, backend, interfaces, gates }))
    };
    PinDirectory::clusters(bpffs)?.into_iter().filter_map(|name| look(name).transpose()).collect()
}

/// Removes the gate completely, and the cluster's packet filter if it was the last gate. Returns whether there was a
/// gate.
pub(super) fn remove(bpffs: &Path, name: &GateName) -> io::Result<bool> {
    let pins = PinDirectory::of(bpffs, name);
    let stood = pins.exists();
    let maps = GateMaps::find(&PinDirectory::of_packet_filter(bpffs, name))?;
    if let (Some(slot), Some(maps)) = (pins.slot()?, maps) {
        maps.forget(slot)?;
        maps.states()?.get(slot).close();
    }
    pins.remove()?;
    remove_filter(bpffs, name)?;
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
    a.set(insn::Register::R0, TCX_PASS);
    a.exit();
    let program = syscall::load(&a.assemble(), "somebody")?;
    let link = |way| syscall::attach_at(&program, interface, way, in_front);
    Ok(vec![link(TcxHook::Ingress)?, link(TcxHook::Egress)?])
}

/// Why this backend does not work for the calling thread, apart from the file system for its pins.
pub(super) fn probe() -> Result<(), String> {
    let clock =
        syscall::load(&program::clock(), CLOCK_PROGRAM).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => {
                "no right to load programs (CAP_BPF and CAP_NET_ADMIN, outside of user namespaces)".to_owned()
            }
            Some(libc::ENOSYS) => "the kernel has no bpf system call (CONFIG_BPF_SYSCALL)".to_owned(),
            _ => format!("the kernel refuses the program: {error}"),
        })?;
    compare_clock(&clock)?;
    let loopback = 1;
    for way in [TcxHook::Ingress, TcxHook::Egress] {
        syscall::attach(&clock, loopback, way)
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
        "CLOCK_BOOTTIME of this process differs from the kernel's by {} ms: the process runs in a time namespace",
        apart / 1_000_000
    ))
}
