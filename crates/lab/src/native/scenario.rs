//! The faults of a native cluster, and the expected outcome for the service.

use std::{io, time::Duration};

use locum_sys::gate;
use rustix::process::{Pid, kill_process};

use crate::pair::files::GROUP;
use crate::{
    clock::{Moment, pause},
    fault::{Doing, Fault},
    node::bpffs,
    pair::cluster::{CROSSOVER, FIRST, LAN, PairCluster, SECOND, THIRD, WITNESS},
    process::ProcessSignal,
    relay::{Impairment, RelayDirection},
};

/// All networks of a node: the client's, the cable to the other node, and that of the witness.
const NETWORKS: [&str; 3] = [LAN, CROSSOVER, THIRD];
/// How often rules are flushed.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// A fault of a native cluster. The owner is the node that has the service; the other is the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NativeScenario {
    /// The owner's daemon is frozen, and thaws.
    Freeze,
    /// All processes of the owner are frozen, and thaw.
    FreezeAll,
    /// The owner's daemon is killed and not started again; its kernel goes on.
    Kill,
    /// All processes of the owner are killed, in no order; its kernel goes on.
    KillAll,
    /// The owner loses its power.
    PowerLoss,
    /// No frame of the owner arrives anywhere.
    OwnerMute,
    /// No frame arrives at the owner.
    OwnerDeaf,
    /// No frame of the other node arrives anywhere.
    OtherMute,
    /// No frame arrives at the other node.
    OtherDeaf,
    /// The nodes do not reach each other; the witness hears both, and the client is on the owner's side.
    Partition,
    /// The owner reaches no other member.
    Isolation,
    /// The witness loses its power.
    WitnessLost,
    /// The other node's cable to the client's network is pulled.
    LinkFront,
    /// The owner's cable to the client's network is pulled; clients still reach the other node.
    LinkClient,
    /// The cable between the nodes is pulled.
    LinkBack,
    /// The owner's cable to the witness is pulled.
    LinkWitness,
    /// Another program deletes the owner's gate, rules and pins, again and again.
    Flush,
}

/// The expected outcome for the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedOutcome {
    /// The other node takes the service.
    Moves,
    /// The owner keeps the service.
    Stays,
}

impl NativeScenario {
    /// All scenarios, in the order of the command line.
    pub const ALL: [Self; 17] = [
        Self::Freeze,
        Self::FreezeAll,
        Self::Kill,
        Self::KillAll,
        Self::PowerLoss,
        Self::OwnerMute,
        Self::OwnerDeaf,
        Self::OtherMute,
        Self::OtherDeaf,
        Self::Partition,
        Self::Isolation,
        Self::WitnessLost,
        Self::LinkFront,
        Self::LinkClient,
        Self::LinkBack,
        Self::LinkWitness,
        Self::Flush,
    ];

    /// The scenario's name in options and rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::FreezeAll => "freeze-all",
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::PowerLoss => "power-loss",
            Self::OwnerMute => "owner-mute",
            Self::OwnerDeaf => "owner-deaf",
            Self::OtherMute => "other-mute",
            Self::OtherDeaf => "other-deaf",
            Self::Partition => "partition",
            Self::Isolation => "isolation",
            Self::WitnessLost => "witness-lost",
            Self::LinkFront => "link-front",
            Self::LinkClient => "link-client",
            Self::LinkBack => "link-back",
            Self::LinkWitness => "link-witness",
            Self::Flush => "flush",
        }
    }

    /// The expected outcome for the service.
    #[must_use]
    pub fn outcome(self) -> ExpectedOutcome {
        match self {
            Self::Freeze
            | Self::FreezeAll
            | Self::Kill
            | Self::KillAll
            | Self::PowerLoss
            | Self::OwnerMute
            | Self::OwnerDeaf
            | Self::LinkClient
            | Self::Isolation => ExpectedOutcome::Moves,
            Self::OtherMute
            | Self::OtherDeaf
            | Self::Partition
            | Self::WitnessLost
            | Self::LinkFront
            | Self::LinkBack
            | Self::LinkWitness
            | Self::Flush => ExpectedOutcome::Stays,
        }
    }

    /// Whether frames are lost in only one direction, which needs a relay.
    pub(super) fn is_one_way(self) -> bool {
        matches!(self, Self::OwnerMute | Self::OwnerDeaf | Self::OtherMute | Self::OtherDeaf)
    }

    /// Plays the fault, and returns the moment before it. It lasts for `time`; then it is undone, if that is possible.
    pub(super) fn happen(
        self,
        cluster: &mut PairCluster,
        owner: &'static str,
        time: Duration,
    ) -> Result<Moment, Fault> {
        let other = if owner == FIRST { SECOND } else { FIRST };
        let from = Moment::now();
        match self {
            Self::Freeze | Self::FreezeAll => {
                let frozen = self.processes(cluster, owner)?;
                signal(&frozen, ProcessSignal::Stop);
                pause(time);
                signal(&frozen, ProcessSignal::Continue);
            }
            Self::Kill | Self::KillAll => {
                signal(&self.processes(cluster, owner)?, ProcessSignal::Kill);
                pause(time);
            }
            Self::PowerLoss => {
                cluster.lose_power(owner)?;
                pause(time);
            }
            Self::OwnerMute => one_way(cluster, owner, RelayDirection::FromNode, time)?,
            Self::OwnerDeaf => one_way(cluster, owner, RelayDirection::ToNode, time)?,
            Self::OtherMute => one_way(cluster, other, RelayDirection::FromNode, time)?,
            Self::OtherDeaf => one_way(cluster, other, RelayDirection::ToNode, time)?,
            Self::Partition => apart(cluster, &[LAN, CROSSOVER], other, time)?,
            Self::Isolation => apart(cluster, &NETWORKS, owner, time)?,
            Self::WitnessLost => {
                cluster.lose_power(WITNESS)?;
                pause(time);
                cluster.rack.power_on(WITNESS)?;
                cluster.start(WITNESS)?;
            }
            Self::LinkFront => unplugged(cluster, LAN, other, time)?,
            Self::LinkClient => unplugged(cluster, LAN, owner, time)?,
            Self::LinkBack => unplugged(cluster, CROSSOVER, owner, time)?,
            Self::LinkWitness => unplugged(cluster, THIRD, owner, time)?,
            Self::Flush => {
                let end = from + time;
                while !end.remaining().is_zero() {
                    let flushed = cluster.rack.inside(owner, flush)?;
                    flushed.doing(|| format!("delete the gate of {GROUP} on {owner}"))?;
                    pause(FLUSH_EVERY.min(end.remaining()));
                }
            }
        }
        Ok(from)
    }

    fn processes(self, cluster: &PairCluster, node: &str) -> Result<Vec<Pid>, Fault> {
        let all = matches!(self, Self::FreezeAll | Self::KillAll);
        let found = if all { cluster.rack.processes(node)? } else { cluster.daemon(node)? };
        if found.is_empty() {
            return Err(cluster.fault(&format!("has no daemon on {node}")));
        }
        Ok(found.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())).collect())
    }
}

/// Sends a signal to each process; a process that has just ended needs none.
fn signal(processes: &[Pid], signal: ProcessSignal) {
    for &process in processes {
        let _ = kill_process(process, signal.signal());
    }
}

fn one_way(
    cluster: &PairCluster,
    node: &str,
    direction: RelayDirection,
    time: Duration,
) -> Result<(), Fault> {
    let all = |loss| {
        NETWORKS.into_iter().try_for_each(|network| {
            cluster.rack.impair(network, node, direction, Impairment { loss, ..Impairment::default() })
        })
    };
    all(1.0)?;
    pause(time);
    all(0.0)
}

fn apart(cluster: &mut PairCluster, networks: &[&str], node: &str, time: Duration) -> Result<(), Fault> {
    networks.iter().try_for_each(|network| cluster.rack.cut(network, node).map(drop))?;
    pause(time);
    networks.iter().try_for_each(|network| cluster.rack.mend(network, node).map(drop))
}

fn unplugged(cluster: &mut PairCluster, network: &str, node: &str, time: Duration) -> Result<(), Fault> {
    cluster.rack.unplug(network, node)?;
    pause(time);
    cluster.rack.plug(network, node).map(drop)
}

/// Runs in a node: deletes every gate that root may delete. The kernel keeps rules that belong to the daemon.
fn flush() -> io::Result<()> {
    for gate in gate::list(Some(bpffs().into()))? {
        match gate::remove(&gate.backend, &gate.name) {
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
