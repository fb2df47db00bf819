//! A pair of nodes that one of the peers serves, and a client that watches it: what the bench and the faults of a native
//! cluster are played on.

use std::{path::PathBuf, time::Duration};

pub use peer::Peer;

use crate::gate::Kind;

pub(crate) mod cluster;
pub(crate) mod files;
mod peer;
pub(crate) mod sample;

/// How fast a cluster beats, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Keepalive, or the time between adverts.
    pub interval: Duration,
    /// Deadtime; keepalived derives its own from the interval.
    pub deadtime: Duration,
}

impl Pace {
    /// The usual one for an interval: five beats until death.
    #[must_use]
    pub fn of(interval: Duration) -> Self {
        Self { interval, deadtime: interval * 5 }
    }

    /// The pace of a native cluster that beats at this interval: a beat is 3/10 of it (`docs/timing.md`).
    #[must_use]
    pub fn native(self) -> Duration {
        self.interval * 10 / 3
    }
}

/// What clusters are made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program: every node's holder, Locum itself, and the web server.
    pub program: PathBuf,
    /// The program's command that takes `start`, `stop` and `status` for a web server on port 80.
    pub web_server: String,
    /// Where the peers are unpacked, with `usr` and `etc` in it; else they are the host's.
    pub peers_root: Option<PathBuf>,
    /// How fast.
    pub pace: Pace,
    /// How long a cluster must have been well before the next fault.
    pub calm: Duration,
    /// By which engine a native cluster's gates are made; `None`: by the best one that works.
    pub gates: Option<Kind>,
    /// Whether a native cluster gives the service back to the first node when that returns.
    pub failback: bool,
}
