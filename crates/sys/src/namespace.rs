//! Namespaces of the calling thread: new ones, others, and a death with the parent.
//!
//! They get no names, so nothing is left on the host when the last process or descriptor in them is gone.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    process::Signal,
    thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags},
};

/// The namespaces that a thread gets anew. A new pid namespace begins with the next child.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewNamespaces {
    /// A network namespace: interfaces, addresses, sockets.
    pub network: bool,
    /// A mount namespace; root and working directory are then the thread's own, too.
    pub mounts: bool,
    /// A UTS namespace: the host name.
    pub host_name: bool,
    /// A pid namespace, from the next child on.
    pub processes: bool,
    /// An IPC namespace: System V and POSIX queues.
    pub ipc: bool,
}

/// Moves the calling thread into new namespaces.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the thread's user namespace (see [`become_root_of_user_namespace`]); `ENOSPC`
/// when the limit of namespaces is reached.
pub fn enter_new(fresh: NewNamespaces) -> io::Result<()> {
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWNET, fresh.network);
    flags.set(UnshareFlags::NEWNS | UnshareFlags::FS, fresh.mounts);
    flags.set(UnshareFlags::NEWUTS, fresh.host_name);
    flags.set(UnshareFlags::NEWPID, fresh.processes);
    flags.set(UnshareFlags::NEWIPC, fresh.ipc);
    // SAFETY: the danger of `unshare` is a descriptor table of its own (`FILES`), which is never asked for here.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// Makes the calling process root of a new user namespace. Its only user is mapped to the user that the process is
/// outside. Only for a process with one thread (the kernel refuses others with `EINVAL`).
///
/// # Errors
/// `EPERM` or `ENOSPC` if the host does not allow user namespaces.
pub fn become_root_of_user_namespace() -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: as in `leave`: the descriptor table stays shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Whether the calling thread may make namespaces and mounts (`CAP_SYS_ADMIN` in its user namespace).
#[must_use]
pub fn may_enter_new() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN))
}

/// A descriptor of the calling thread's network namespace; it keeps the namespace alive.
///
/// # Errors
/// The kernel's error; `/proc` must be mounted for the thread's pid namespace.
pub fn network() -> io::Result<OwnedFd> {
    fs::File::open("/proc/thread-self/ns/net").map(Into::into)
}

/// Moves the calling thread alone into a network namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` over it.
pub fn enter_network(network: impl AsFd) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(Into::into)
}

/// Sets the host name in the calling thread's UTS namespace.
///
/// # Errors
/// `EINVAL` above 64 bytes, `EPERM` without the right.
pub fn set_host_name(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes()).map_err(Into::into)
}

/// Asks the kernel to kill the calling process as soon as the *thread* that started it has ended.
///
/// # Errors
/// The kernel's error.
pub fn die_with_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into)
}

/// Makes the kernel reap the calling process's children, including adopted ones. The first process of a pid namespace
/// has to do that for orphans.
pub fn reap_children() {
    // SAFETY: SIG_IGN runs no code of ours; the call touches nothing but this process's signal table.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}
