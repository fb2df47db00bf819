//! The capabilities (capabilities(7)) that this thread lacks. In its own user namespace a process seems to have all of
//! them, but some count only outside. Those are found out by trying ([`crate::realtime`], [`crate::gate`]).

use rustix::{
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};

/// A capability that a cluster's daemon needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Changes addresses, rules and programs of interfaces.
    NetAdmin,
    /// Sends raw packets: announcements of addresses, pings.
    NetRaw,
    /// Loads bpf programs into the kernel.
    Bpf,
    /// Binds to ports below 1024.
    NetBindService,
    /// Uses real-time scheduling and priorities.
    SysNice,
    /// Locks memory so that it is never paged out.
    IpcLock,
}

impl Capability {
    /// All capabilities that a daemon needs.
    pub const ALL: [Self; 6] =
        [Self::NetAdmin, Self::NetRaw, Self::Bpf, Self::NetBindService, Self::SysNice, Self::IpcLock];

    /// The kernel's name for it, without `CAP_`.
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

/// The capabilities that the calling thread lacks; empty if the kernel does not tell.
#[must_use]
pub fn missing() -> Vec<Capability> {
    let Ok(sets) = capabilities(None) else { return Vec::new() };
    Capability::ALL.into_iter().filter(|right| !sets.effective.contains(right.set())).collect()
}

/// Whether the calling thread has any capability; an ordinary user's has none.
#[must_use]
pub fn has_any() -> bool {
    capabilities(None).is_ok_and(|sets| !sets.effective.is_empty())
}

/// Whether real-time scheduling at that priority is allowed without [`Capability::SysNice`].
#[must_use]
pub fn may_be_realtime(priority: u64) -> bool {
    getrlimit(Resource::Rtprio).current.is_none_or(|limit| limit >= priority)
}

/// Whether all memory may be locked without [`Capability::IpcLock`].
#[must_use]
pub fn may_lock_memory() -> bool {
    getrlimit(Resource::Memlock).maximum.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_gives_up_is_missing() {
        for right in Capability::ALL {
            // Only this thread's sets change, so no other test is affected.
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
