//! The voice: what people see of a running daemon. [`journal`] writes the log, [`socket`] answers questions and takes
//! orders, [`feed`] is what its watchers are told, [`report`] is the answer to the most frequent question, [`notify`]
//! speaks to the service manager, [`diagnostics`] draws what is wrong with the configuration.

mod connections;
pub mod diagnostics;
pub mod feed;
pub mod journal;
pub mod notify;
pub mod report;
pub mod socket;
