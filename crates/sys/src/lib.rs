//! **Locum's hands on the kernel.** The one crate with `unsafe`: small safe functions, no decisions. Whoever calls
//! them decides when and why; the facts about the kernel that they rest on are in `docs/kernel.md`.
//!
//! * [`netlink`]: interfaces and addresses, read, changed and watched;
//! * [`announce`], [`claimants`]: tell a segment where an address lives now; hear who else says to have it;
//! * [`gate`]: lets a service address answer only while an unexpired lease stands in the kernel;
//! * [`udp`], [`serial`], [`icmp`], [`checksum`]: what links and pings are made of;
//! * [`clock`], [`poll`], [`realtime`]: time, waiting, punctuality;
//! * [`child`], [`process`], [`user`]: what a child must not inherit; ending it with all it started; as whom it runs;
//! * [`rights`]: what the kernel lets this process do;
//! * [`watchdog`], [`machine`]: being reset, and resetting oneself;
//! * [`mod@file`]: files that are never half there, directories that are used once;
//! * [`place`]: a name that one process of a network namespace has at a time;
//! * [`signal`]: what a broken pipe does;
//! * [`namespace`], [`mount`]: surroundings of a thread's own;
//! * [`tap`], [`stamp`]: frames of an interface, and when they arrived.

pub mod announce;
pub mod checksum;
pub mod child;
pub mod claimants;
pub mod clock;
pub mod file;
pub mod gate;
pub mod icmp;
pub mod machine;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod place;
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
