//! The control plane: everything that may block, on one runtime at normal priority. Its answers go to the heart over a
//! bounded ring.

pub mod agents;
pub mod daemon;
pub mod dialect;
pub mod errands;
pub mod fifo;
pub mod ledger;
pub mod leftovers;
pub mod lifecycle;
mod native;
pub mod ports;
mod r1;
pub mod reservation;
pub mod state;
