//! The voice: what people see of a running daemon. [`journal`] writes the log, [`socket`] answers questions and takes
//! orders, [`notify`] speaks to the service manager.

pub mod journal;
pub mod notify;
pub mod socket;
