//! **Locum's access to the kernel.** The only crate with `unsafe`: small safe functions that make no decisions. The
//! callers decide when and why. The facts about the kernel behind them are in `docs/kernel.md`.
//!
//! * [`netlink`]: interfaces and addresses, read, changed and watched;
//! * [`announce`], [`claimants`]: tell a segment where an address is now; hear who else claims to have it;
//! * [`gate`]: lets a service address answer only while an unexpired lease stands in the kernel;
//! * [`udp`], [`serial`], [`icmp`], [`checksum`]: the parts of links and pings;
//! * [`clock`], [`poll`], [`realtime`]: time, waiting, real-time scheduling;
//! * [`child`], [`process`], [`user`]: a clean environment for children; ending a child with all its descendants;
//!   running it as another user;
//! * [`rights`]: the capabilities of this process;
//! * [`watchdog`], [`machine`]: a reset by the watchdog, a reboot by this process;
//! * [`mod@file`]: files that are replaced as a whole, directories with a lock;
//! * [`exclusive_name`]: a name that only one process of a network namespace can have at a time;
//! * [`signal`]: how signals affect this process;
//! * [`namespace`], [`mount`]: namespaces and mounts of one thread;
//! * [`tap`], [`stamp`]: frames of an interface, and the time of their arrival.

pub mod announce;
pub mod checksum;
pub mod child;
pub mod claimants;
pub mod clock;
pub mod exclusive_name;
pub mod file;
pub mod gate;
pub mod icmp;
pub mod machine;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod poll;
pub mod process;
pub mod realtime;
pub mod rights;
pub mod serial;
pub mod signal;
pub mod stamp;
pub mod tap;
pub mod udp;
pub mod user;
pub mod watchdog;

mod option;
#[cfg(test)]
mod testing;
