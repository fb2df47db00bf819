//! **Locum's hands on the kernel.** The one crate with `unsafe`, and no decisions in it.

pub mod signal;
