//! A pair of nodes served by one of the peers, and a client that watches it. The bench and the faults of a native
//! cluster are played on it.

use std::{path::PathBuf, time::Duration};

pub use peer::Peer;

use crate::gate::GateBackend;

pub(crate) mod cluster;
pub(crate) mod files;
mod peer;
pub(crate) mod sample;

/// The times that a cluster's configuration is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Keepalive, or the time between adverts.
    pub interval: Duration,
    /// Deadtime; keepalived derives its own from the interval.
    pub deadtime: Duration,
}

impl Pace {
    /// The usual pace for an interval: deadtime is five intervals.
    #[must_use]
    pub fn of(interval: Duration) -> Self {
        Self { interval, deadtime: interval * 5 }
    }

    /// The `pace` of a native cluster that beats at this interval: a beat is 3/10 of it (`docs/timing.md`).
    #[must_use]
    pub fn native(self) -> Duration {
        self.interval * 10 / 3
    }
}

/// The programs and times of the clusters on a rack.
#[derive(Clone, Debug)]
pub struct PairSetup {
    /// The program: every node's holder, Locum itself, and the web server.
    pub program: PathBuf,
    /// The program's command that takes `start`, `stop` and `status` for a web server on port 80.
    pub web_server: String,
    /// The directory in which the peers are unpacked, with `usr` and `etc` in it; if not set, the host's are used.
    pub peers_root: Option<PathBuf>,
    pub pace: Pace,
    /// How long a cluster must have been well before the next fault.
    pub calm: Duration,
    /// The backend of a native cluster's gates; `None` for the best one that works.
    pub gates: Option<GateBackend>,
    /// Whether a native cluster gives the service back to the first node when that returns.
    pub failback: bool,
}
