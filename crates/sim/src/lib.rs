//! Tests only: a world in one thread, in which Directors meet faults.
//!
//! * [`story`] is the language of the files in `tests/stories`; [`stage`] plays them, here and on a rack;
//!   [`transcript`] is how that which was seen is written down.
//! * [`theatre`] is the stage in the simulator. It plays in a [`world`] of hosts, [`net`] cables and agents, under
//!   the eyes of [`checks`].
//! * [`hostile`] holds what a neighbour on the link can try.
//! * [`seeds`] makes stories by chance, and makes those that fail shorter.

pub mod checks;
pub mod hostile;
pub mod native;
pub mod net;
pub mod rng;
pub mod seeds;
mod shorten;
pub mod stage;
pub mod story;
pub mod theatre;
pub mod transcript;
pub mod world;

/// The sweep of leftovers is the daemon's work, so here is where it is broken on purpose.
fn planted_no_sweep() -> bool {
    locum_core::model::breakage::is(locum_core::model::breakage::Breakage::NoSweep)
}

/// So is the announcement of an address that was just taken.
fn planted_no_announcement() -> bool {
    locum_core::model::breakage::is(locum_core::model::breakage::Breakage::NoAnnouncement)
}
