//! **Locum's hands on the kernel.** The one crate with `unsafe`: small safe functions, no decisions. Whoever calls
//! them decides when and why; the facts about the kernel that they rest on are in `docs/kernel.md`.
//!
//! * [`netlink`]: interfaces and addresses, read, changed and watched;
//! * [`announce`]: tell a segment where an address lives now;
//! * [`signal`]: what a broken pipe does.

pub mod announce;
pub mod netlink;
pub mod signal;

#[cfg(test)]
mod testing;
