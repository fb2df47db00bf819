//! Tests only: a simulated cluster in one thread, in which directors of the R1 dialect meet faults.
//!
//! * [`story`] is the language of the files in `tests/stories`, and [`testbed`] plays them on a testbed: this simulator
//!   or a rack. [`transcript`] writes down what was seen.
//! * [`simulation`] is the simulation, one of the testbeds. It plays in a [`world`] of hosts, [`net`] cables and agents,
//!   and [`checks`] holds its invariants.
//! * [`hostile`] holds attacks by a neighbour on the link.
//! * [`seeds`] makes random scenarios from seeds, and shortens those that fail.

pub mod checks;
pub mod hostile;
pub mod native;
pub mod net;
pub mod rng;
pub mod seeds;
mod shorten;
pub mod simulation;
pub mod story;
pub mod testbed;
pub mod transcript;
pub mod world;

/// The daemon sweeps leftovers, which the simulator does in its place; so this planted breakage is here.
fn planted_no_sweep() -> bool {
    locum_core::model::breakage::is(locum_core::model::breakage::Breakage::NoSweep)
}

/// The planted breakage of the announcement of an address that was just taken.
fn planted_no_announcement() -> bool {
    locum_core::model::breakage::is(locum_core::model::breakage::Breakage::NoAnnouncement)
}
