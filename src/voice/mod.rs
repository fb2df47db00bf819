//! The voice: what people see of a running daemon. [`journal`] writes the log, [`socket`] answers questions and takes
//! orders, [`report`] is the answer to the most frequent one, [`notify`] speaks to the service manager,
//! [`diagnostics`] draws what is wrong with the configuration.

mod connections;
pub mod diagnostics;
pub mod journal;
pub mod notify;
pub mod report;
pub mod socket;
