//! What happens to a cluster, and until when it is watched.

use std::time::Duration;

use crate::pair::{
    cluster::{Cluster, FIRST, SECOND},
    sample::Sample,
};
use crate::{
    clock::{Moment, pause},
    fault::Fault,
    process::Sign,
};

/// How long a service must have answered again, and its holders not have changed, before a run ends.
const SETTLED: Duration = Duration::from_secs(1);
/// For how long two owners are watched, where nothing ends that.
const OVERLAP: Duration = Duration::from_secs(2);
/// After a thaw: heartbeat restarts everything, some seconds later.
const THAWED: Duration = Duration::from_secs(6);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// A planned move away from the owner.
    Move,
    /// The owner's daemon is asked to leave.
    GracefulStop,
    /// The owner loses its power.
    PowerLoss,
    /// The lost node gets its power back, and its service.
    Return,
    /// The owner's daemon stands still, and goes on two seconds after the other node took the service.
    DaemonFreeze,
    /// The owner's daemon is killed, and its kernel goes on.
    DaemonKill,
}

impl Scenario {
    /// All of them, in the order in which one can follow the other on a rack.
    pub const ALL: [Self; 6] =
        [Self::Move, Self::GracefulStop, Self::PowerLoss, Self::Return, Self::DaemonFreeze, Self::DaemonKill];

    /// Its name.
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

    /// Those that are asked for, each once, as they can follow each other.
    pub(super) fn in_order(asked: &[Self]) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|one| asked.contains(one))
    }

    /// Does it to a cluster that was [prepared](Cluster::prepared) for it.
    pub(super) fn measure(self, cluster: &mut Cluster) -> Result<Sample, Fault> {
        let from = match self {
            Self::Move => return cluster.moved(),
            Self::GracefulStop => cluster.leave()?,
            Self::PowerLoss => cluster.power_off()?,
            Self::Return => cluster.power_on()?,
            Self::DaemonFreeze => {
                let from = Moment::now();
                cluster.sign_daemon(Sign::Stop)?;
                cluster.await_holder(SECOND);
                pause(OVERLAP);
                cluster.sign_daemon(Sign::Continue)?;
                pause(THAWED);
                from
            }
            Self::DaemonKill => {
                let from = Moment::now();
                cluster.sign_daemon(Sign::Kill)?;
                cluster.await_holder(SECOND);
                pause(OVERLAP);
                from
            }
        };
        let settled = match self {
            Self::Move | Self::GracefulStop | Self::PowerLoss => cluster.await_calm(&[SECOND], SETTLED),
            Self::Return => cluster.await_calm(&[FIRST], SETTLED),
            Self::DaemonFreeze => {
                // Who has it in the end is the peer's affair.
                cluster.await_one_owner(SETTLED)
            }
            Self::DaemonKill => cluster.await_calm(&[FIRST, SECOND], SETTLED),
        };
        cluster.spoiled |= !settled || self == Self::DaemonKill;
        Ok(cluster.sample(from))
    }
}
