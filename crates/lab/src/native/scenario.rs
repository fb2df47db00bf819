//! What is done to a native cluster, and what should become of the service.

use std::{io, time::Duration};

use locum_sys::gate;
use rustix::process::{Pid, kill_process};

use crate::pair::files::GROUP;
use crate::{
    clock::{Moment, pause},
    fault::{Doing, Fault},
    node::bpffs,
    pair::cluster::{CROSSOVER, Cluster, FIRST, LAN, SECOND, THIRD, WITNESS},
    process::Sign,
    relay::{Impairment, Way},
};

/// All networks of a node: the client's, the cable to the other node, and that of the witness.
const NETWORKS: [&str; 3] = [LAN, CROSSOVER, THIRD];
/// How often rules are flushed.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// What happens. The owner is the node that has the service, the other is the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// The owner's daemon is frozen, and thaws.
    Freeze,
    /// All processes of the owner are frozen, and thaw.
    FreezeAll,
    /// The owner's daemon is killed; its kernel goes on, and nobody starts it again.
    Kill,
    /// All processes of the owner are killed, in no order; its kernel goes on.
    KillAll,
    /// The owner loses its power.
    PowerLoss,
    /// Nothing that the owner sends arrives anywhere.
    OwnerMute,
    /// Nothing arrives at the owner.
    OwnerDeaf,
    /// Nothing that the other node sends arrives anywhere.
    OtherMute,
    /// Nothing arrives at the other node.
    OtherDeaf,
    /// The nodes do not reach each other; the witness hears both, and the client is on the owner's side.
    Partition,
    /// The owner reaches nobody.
    Isolation,
    /// The witness loses its power.
    WitnessLost,
    /// The other node's cable to the client's network is pulled.
    LinkFront,
    /// The owner's cable to the client's network is pulled: the other node's clients do reach it.
    LinkClient,
    /// The cable between the nodes is pulled.
    LinkBack,
    /// The owner's cable to the witness is pulled.
    LinkWitness,
    /// Somebody deletes the owner's gate, rules and pins, again and again.
    Flush,
}

/// What should become of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other node takes it.
    Moves,
    /// The owner keeps it.
    Stays,
}

impl Scenario {
    /// All of them.
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

    /// Its name.
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

    /// What should become of the service.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Freeze
            | Self::FreezeAll
            | Self::Kill
            | Self::KillAll
            | Self::PowerLoss
            | Self::OwnerMute
            | Self::OwnerDeaf
            | Self::LinkClient
            | Self::Isolation => Outcome::Moves,
            Self::OtherMute
            | Self::OtherDeaf
            | Self::Partition
            | Self::WitnessLost
            | Self::LinkFront
            | Self::LinkBack
            | Self::LinkWitness
            | Self::Flush => Outcome::Stays,
        }
    }

    /// Whether frames are lost in one direction alone, which only a relay can do.
    pub(super) fn is_one_way(self) -> bool {
        matches!(self, Self::OwnerMute | Self::OwnerDeaf | Self::OtherMute | Self::OtherDeaf)
    }

    /// Does it, and returns the moment before. It lasts for `time`; then what can be undone is undone.
    pub(super) fn happen(
        self,
        cluster: &mut Cluster,
        owner: &'static str,
        time: Duration,
    ) -> Result<Moment, Fault> {
        let other = if owner == FIRST { SECOND } else { FIRST };
        let from = Moment::now();
        match self {
            Self::Freeze | Self::FreezeAll => {
                let frozen = self.processes(cluster, owner)?;
                signal(&frozen, Sign::Stop);
                pause(time);
                signal(&frozen, Sign::Continue);
            }
            Self::Kill | Self::KillAll => {
                signal(&self.processes(cluster, owner)?, Sign::Kill);
                pause(time);
            }
            Self::PowerLoss => {
                cluster.lose_power(owner)?;
                pause(time);
            }
            Self::OwnerMute => one_way(cluster, owner, Way::FromNode, time)?,
            Self::OwnerDeaf => one_way(cluster, owner, Way::ToNode, time)?,
            Self::OtherMute => one_way(cluster, other, Way::FromNode, time)?,
            Self::OtherDeaf => one_way(cluster, other, Way::ToNode, time)?,
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

    fn processes(self, cluster: &Cluster, node: &str) -> Result<Vec<Pid>, Fault> {
        let all = matches!(self, Self::FreezeAll | Self::KillAll);
        let found = if all { cluster.rack.processes(node)? } else { cluster.daemon(node)? };
        if found.is_empty() {
            return Err(cluster.fault(&format!("has no daemon on {node}")));
        }
        Ok(found.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())).collect())
    }
}

/// One that ended by itself just now has what it needs.
fn signal(processes: &[Pid], sign: Sign) {
    for &process in processes {
        let _ = kill_process(process, sign.signal());
    }
}

fn one_way(cluster: &Cluster, node: &str, way: Way, time: Duration) -> Result<(), Fault> {
    let all = |loss| {
        NETWORKS.into_iter().try_for_each(|network| {
            cluster.rack.impair(network, node, way, Impairment { loss, ..Impairment::default() })
        })
    };
    all(1.0)?;
    pause(time);
    all(0.0)
}

fn apart(cluster: &mut Cluster, networks: &[&str], node: &str, time: Duration) -> Result<(), Fault> {
    networks.iter().try_for_each(|network| cluster.rack.cut(network, node).map(drop))?;
    pause(time);
    networks.iter().try_for_each(|network| cluster.rack.mend(network, node).map(drop))
}

fn unplugged(cluster: &mut Cluster, network: &str, node: &str, time: Duration) -> Result<(), Fault> {
    cluster.rack.unplug(network, node)?;
    pause(time);
    cluster.rack.plug(network, node).map(drop)
}

/// In a node: deletes every gate, as root may. Rules that belong to the daemon the kernel keeps.
fn flush() -> io::Result<()> {
    for gate in gate::list(Some(bpffs().into()))? {
        match gate::remove(&gate.engine, &gate.name) {
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
