//! Which of the kernel's rights (capabilities(7)) this thread lacks. In a user namespace of its own a process has all of them
//! by this count, and some of them count outside only: those are found out by trying ([`crate::realtime`], [`crate::gate`]).

use rustix::{
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};

/// A right that a cluster's daemon needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Addresses, rules and programs of interfaces.
    NetAdmin,
    /// Packets made by hand: announcements of addresses, pings.
    NetRaw,
    /// Programs in the kernel.
    Bpf,
    /// Ports below 1024.
    NetBindService,
    /// Real-time scheduling.
    SysNice,
    /// Memory that is never paged out.
    IpcLock,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::NetAdmin, Self::NetRaw, Self::Bpf, Self::NetBindService, Self::SysNice, Self::IpcLock];

    /// As the kernel names it, after `CAP_`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "NET_ADMIN",
            Self::NetRaw => "NET_RAW",
            Self::Bpf => "BPF",
            Self::NetBindService => "NET_BIND_SERVICE",
            Self::SysNice => "SYS_NICE",
            Self::IpcLock => "IPC_LOCK",
        }
    }

    const fn set(self) -> CapabilitySet {
        match self {
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::NetRaw => CapabilitySet::NET_RAW,
            Self::Bpf => CapabilitySet::BPF,
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
            Self::SysNice => CapabilitySet::SYS_NICE,
            Self::IpcLock => CapabilitySet::IPC_LOCK,
        }
    }
}

/// The rights that the calling thread lacks; none where the kernel does not tell.
#[must_use]
pub fn missing() -> Vec<Right> {
    let Ok(sets) = capabilities(None) else { return Vec::new() };
    Right::ALL.into_iter().filter(|right| !sets.effective.contains(right.set())).collect()
}

/// Whether the calling thread has any right at all: one that has none is an ordinary user's.
#[must_use]
pub fn has_any() -> bool {
    capabilities(None).is_ok_and(|sets| !sets.effective.is_empty())
}

/// Whether real-time scheduling at that priority is allowed without [`Right::SysNice`].
#[must_use]
pub fn may_be_realtime(priority: u64) -> bool {
    getrlimit(Resource::Rtprio).current.is_none_or(|limit| limit >= priority)
}

/// Whether all memory may be locked without [`Right::IpcLock`].
#[must_use]
pub fn may_lock_memory() -> bool {
    getrlimit(Resource::Memlock).maximum.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_gives_up_is_missing() {
        for right in Right::ALL {
            // The thread's own sets: no other test notices.
            let thread = std::thread::spawn(move || {
                let Ok(mut sets) = capabilities(None) else { return };
                if !sets.effective.contains(right.set()) {
                    return;
                }
                let before = missing();
                sets.effective.remove(right.set());
                rustix::thread::set_capabilities(None, sets).unwrap();
                let mut expected = [before, vec![right]].concat();
                expected.sort();
                assert_eq!(missing(), expected);
            });
            thread.join().unwrap();
        }
    }
}
