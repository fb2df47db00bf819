//! The faults of the bench, and how long a cluster is watched after them.

use std::time::Duration;

use crate::pair::{
    cluster::{FIRST, PairCluster, SECOND},
    sample::Sample,
};
use crate::{
    clock::{Moment, pause},
    fault::Fault,
    process::ProcessSignal,
};

/// Before a run ends, the service must have answered, and its holders not have changed, for this long.
const SETTLED: Duration = Duration::from_secs(1);
/// How long two owners are watched, if nothing ends the overlap.
const OVERLAP: Duration = Duration::from_secs(2);
/// Time after a thaw: heartbeat restarts everything, some seconds later.
const THAWED: Duration = Duration::from_secs(6);

/// A fault or planned move that the bench measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BenchScenario {
    /// A planned move away from the owner.
    Move,
    /// The owner's daemon is asked to leave.
    GracefulStop,
    /// The owner loses its power.
    PowerLoss,
    /// The lost node gets its power and its service back.
    Return,
    /// The owner's daemon is frozen, and thaws two seconds after the other node took the service.
    DaemonFreeze,
    /// The owner's daemon is killed, and its kernel goes on.
    DaemonKill,
}

impl BenchScenario {
    /// All scenarios, in an order in which one can follow the other on a rack.
    pub const ALL: [Self; 6] =
        [Self::Move, Self::GracefulStop, Self::PowerLoss, Self::Return, Self::DaemonFreeze, Self::DaemonKill];

    /// The scenario's name in options and rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::GracefulStop => "graceful-stop",
            Self::PowerLoss => "power-loss",
            Self::Return => "return",
            Self::DaemonFreeze => "daemon-freeze",
            Self::DaemonKill => "daemon-kill",
        }
    }

    /// The scenarios that are asked for, each once, in the order of [`Self::ALL`].
    pub(super) fn in_order(asked: &[Self]) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|one| asked.contains(one))
    }

    /// Plays it on a cluster that was [prepared](PairCluster::prepared) for it, and measures it.
    pub(super) fn measure(self, cluster: &mut PairCluster) -> Result<Sample, Fault> {
        let from = match self {
            Self::Move => return cluster.moved(),
            Self::GracefulStop => cluster.leave()?,
            Self::PowerLoss => cluster.power_off()?,
            Self::Return => cluster.power_on()?,
            Self::DaemonFreeze => {
                let from = Moment::now();
                cluster.signal_daemon(ProcessSignal::Stop)?;
                cluster.await_holder(SECOND);
                pause(OVERLAP);
                cluster.signal_daemon(ProcessSignal::Continue)?;
                pause(THAWED);
                from
            }
            Self::DaemonKill => {
                let from = Moment::now();
                cluster.signal_daemon(ProcessSignal::Kill)?;
                cluster.await_holder(SECOND);
                pause(OVERLAP);
                from
            }
        };
        let settled = match self {
            Self::Move | Self::GracefulStop | Self::PowerLoss => cluster.await_calm(&[SECOND], SETTLED),
            Self::Return => cluster.await_calm(&[FIRST], SETTLED),
            Self::DaemonFreeze => {
                // Either node may have the service in the end; the peer decides.
                cluster.await_one_owner(SETTLED)
            }
            Self::DaemonKill => cluster.await_calm(&[FIRST, SECOND], SETTLED),
        };
        cluster.spoiled |= !settled || self == Self::DaemonKill;
        Ok(cluster.sample(from))
    }
}
