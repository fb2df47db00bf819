//! Observing a running daemon. [`journal`] writes the log, [`socket`] answers questions and takes orders, [`feed`]
//! streams states to watchers, [`report`] is the answer to `GET /status`, [`notify`] reports to the service manager,
//! [`diagnostics`] draws the faults of a configuration.

mod connections;
pub mod diagnostics;
pub mod feed;
pub mod journal;
pub mod notify;
pub mod report;
pub mod socket;
