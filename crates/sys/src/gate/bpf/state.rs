//! The states of gates: values of an array map that the programs read and that is mapped into this process's memory. A
//! renewal is two stores without a system call.

use std::{
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use rustix::mm::{MapFlags, ProtFlags};

use crate::gate::{PROOFS_MAX, Proof, Renewal};

/// The state of one gate: one value of the map. Every field has one writer, so no lock is needed. A reader that reads
/// two fields while one of them changes sees the gate open only if it was open before or is open after the change.
///
/// Fields never move and new ones are added at the end, because a daemon of another version may write the same map.
#[repr(C)]
pub(super) struct GateState {
    /// The gate is shut from this boot time on, in nanoseconds. Written by the daemon, like `sent`.
    pub(super) deadline: AtomicU64,
    /// When the beat behind the last renewal was sent.
    pub(super) sent: AtomicU64,
    /// When a rival was heard last; shut until a renewal by a beat sent later. Written by the claim listener, like `refused`.
    pub(super) rival_heard_at: AtomicU64,
    /// Where development versions had the rival's ballot.
    pub(super) unused: [AtomicU64; 2],
    /// In [`Slot::COUNTERS`] alone: how many announcements proved nothing.
    pub(super) refused: AtomicU64,
    /// Room for fields of later versions.
    pub(super) reserved: [AtomicU64; 2],
    /// The proofs that the gate expects; unused places are zero. Written by the daemon.
    pub(super) proofs: [[AtomicU64; 2]; PROOFS_MAX],
}

/// Bytes of one value of the map.
pub(super) const STATE_BYTES: usize = size_of::<GateState>();
/// The most gates that a cluster can have on one machine: as many as groups.
pub(in crate::gate) const SLOTS: u32 = crate::gate::GATES_MAX;
/// States in the map: those of all gates, and [`Slot::COUNTERS`].
pub(super) const STATES: u32 = SLOTS + 1;

/// The number of a state in the map, below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u32);

impl Slot {
    pub(super) const FIRST: Self = Self(0);
    /// The slot of no gate, for counters that belong to none.
    pub(super) const COUNTERS: Self = Self(SLOTS);

    pub(super) fn new(number: u32) -> Option<Self> {
        (number < SLOTS).then_some(Self(number))
    }

    /// The next slot; the first one follows the last.
    pub(super) fn next(self) -> Self {
        Self((self.0 + 1) % SLOTS)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The slot as a map's value.
    pub(super) fn bytes(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// The name of its pin in the gate's directory: `slot-N`.
    pub(super) fn name(self) -> String {
        format!("slot-{}", self.0)
    }

    /// The slot with that name; `None` for any other text.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let slot = name.strip_prefix("slot-")?.parse().ok().and_then(Self::new)?;
        (slot.name() == name).then_some(slot)
    }
}

impl GateState {
    pub(super) fn renew(&self, renewal: Renewal) {
        self.deadline.store(renewal.deadline, SeqCst);
        self.sent.store(renewal.sent, SeqCst);
    }

    pub(super) fn close(&self) {
        self.deadline.store(0, SeqCst);
    }

    /// Resets the state to that of a new gate: shut, no rival heard, no proofs.
    pub(super) fn clear(&self) {
        for field in [&self.deadline, &self.sent, &self.rival_heard_at] {
            field.store(0, SeqCst);
        }
        self.set_proofs(&[]);
    }

    pub(super) fn deadline(&self) -> u64 {
        self.deadline.load(SeqCst)
    }

    /// Whether the beat behind the last renewal was sent after the last rival was heard.
    pub(super) fn is_undisputed(&self) -> bool {
        self.sent.load(SeqCst) > self.rival_heard_at()
    }

    pub(super) fn rival_heard_at(&self) -> u64 {
        self.rival_heard_at.load(SeqCst)
    }

    /// How many announcements proved nothing.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(SeqCst)
    }

    /// Proofs that stay are in the map at any moment if their order does not change: half of a proof matches nothing.
    pub(super) fn set_proofs(&self, proofs: &[Proof]) {
        let all = proofs.iter().chain(std::iter::repeat(&Proof::NONE));
        for ([first, second], Proof(bytes)) in self.proofs.iter().zip(all) {
            let half = |from: usize| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[from + byte]));
            first.store(half(0), SeqCst);
            second.store(half(8), SeqCst);
        }
    }
}

/// The states of all of a cluster's gates, mapped into this process's memory.
#[derive(Debug)]
pub(super) struct GateStates(NonNull<GateState>);

/// Bytes of all states together.
const ALL_BYTES: usize = STATE_BYTES * STATES as usize;

// SAFETY: the memory belongs to the value alone and is unmapped when it is dropped; everything in it is atomic.
unsafe impl Send for GateStates {}
// SAFETY: as above.
unsafe impl Sync for GateStates {}

impl GateStates {
    /// Maps the values of an array map that was made to be mapped and holds [`STATES`] values of [`STATE_BYTES`].
    pub(super) fn new(map: impl AsFd) -> io::Result<Self> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at a place that the kernel chooses; nothing of ours is there. A map that is smaller is
        // refused by the kernel.
        let address =
            unsafe { rustix::mm::mmap(ptr::null_mut(), ALL_BYTES, both, MapFlags::SHARED, map, 0) }?;
        NonNull::new(address.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn get(&self, slot: Slot) -> &GateState {
        // SAFETY: page-aligned, mapped for [`STATES`] until `self` is dropped; any content is
        // valid, and other writers (the kernel's programs, other processes) meet atomics only.
        unsafe { self.0.add(slot.0 as usize).as_ref() }
    }
}

impl Drop for GateStates {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), ALL_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_slots_come_back() {
        for slot in [Slot::FIRST, Slot(7), Slot(SLOTS - 1)] {
            assert_eq!(Slot::parse(&slot.name()), Some(slot));
        }
        for name in ["state", "slot-", "slot-x", "slot-07", "slot-4096", "in-1"] {
            assert_eq!(Slot::parse(name), None, "{name}");
        }
        assert_eq!(Slot(SLOTS - 1).next(), Slot::FIRST);
    }
}
