//! The state of a gate: one value of an array map, which the programs read and this process has in its memory. A
//! renewal is two stores, no system call.

use std::{
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use rustix::mm::{MapFlags, ProtFlags};

use crate::gate::{Ballot, Renewal};

/// The one value. Every field has one writer, so no lock is needed; whoever reads two fields while one of them changes
/// sees the gate open only if it was open before or is open after.
///
/// Fields keep their places for ever and new ones come behind them: a daemon of another version feeds the same map.
#[repr(C)]
pub(super) struct State {
    /// Boot time in nanoseconds; shut from then on. Written by the daemon, like the next three.
    pub(super) deadline: AtomicU64,
    /// When the beat was sent that the last renewal rests on.
    pub(super) sent: AtomicU64,
    /// The ballot under which this node owns.
    pub(super) round: AtomicU64,
    /// Its node.
    pub(super) node: AtomicU64,
    /// When a rival was heard last; shut until a renewal by a beat sent later. Written by the ear, like the next two.
    pub(super) shut_at: AtomicU64,
    /// The ballot it announced.
    pub(super) rival_round: AtomicU64,
    /// Its node.
    pub(super) rival_node: AtomicU64,
    /// For what may come.
    pub(super) reserved: [AtomicU64; 9],
}

/// Bytes of the map's value.
pub(super) const BYTES: usize = size_of::<State>();

/// A gate's state, in this process's memory.
#[derive(Debug)]
pub(super) struct Mapped(NonNull<State>);

// SAFETY: the memory belongs to the value alone and is unmapped when it is dropped; everything in it is atomic.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the value of a map that was made to be mapped and holds at least [`BYTES`].
    pub(super) fn new(map: impl AsFd) -> io::Result<Self> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at a place that the kernel chooses; nothing of ours is there.
        let place = unsafe { rustix::mm::mmap(ptr::null_mut(), BYTES, both, MapFlags::SHARED, map, 0) }?;
        NonNull::new(place.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn state(&self) -> &State {
        // SAFETY: page-aligned, mapped for at least BYTES until `self` is dropped; any content is valid, and other
        // writers (the kernel's programs, other processes) meet atomics only.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn renew(&self, renewal: Renewal) {
        self.state().deadline.store(renewal.deadline, SeqCst);
        self.state().sent.store(renewal.sent, SeqCst);
    }

    pub(super) fn close(&self) {
        self.state().deadline.store(0, SeqCst);
    }

    pub(super) fn deadline(&self) -> u64 {
        self.state().deadline.load(SeqCst)
    }

    /// Whether no rival was heard since the beat was sent that the last renewal rests on.
    pub(super) fn is_undisputed(&self) -> bool {
        self.state().sent.load(SeqCst) > self.shut_at()
    }

    pub(super) fn shut_at(&self) -> u64 {
        self.state().shut_at.load(SeqCst)
    }

    pub(super) fn rival(&self) -> Ballot {
        let node = self.state().rival_node.load(SeqCst);
        Ballot { round: self.state().rival_round.load(SeqCst), node: u32::try_from(node).unwrap_or(u32::MAX) }
    }

    pub(super) fn set_ballot(&self, ballot: Ballot) {
        self.state().node.store(ballot.node.into(), SeqCst);
        self.state().round.store(ballot.round, SeqCst);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), BYTES) };
    }
}
