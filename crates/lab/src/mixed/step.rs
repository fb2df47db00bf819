//! The steps that are played on a mixed cluster between two audits.

use std::{fmt, time::Duration};

use super::DaemonPair;
use crate::daemon::Daemon;

/// One node, or both at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeSelector {
    First,
    Second,
    /// Both at the same time.
    Both,
}

impl NodeSelector {
    /// The indices of these nodes.
    pub(super) fn each(self) -> &'static [usize] {
        match self {
            Self::First => &[0],
            Self::Second => &[1],
            Self::Both => &[0, 1],
        }
    }

    /// The node with this index.
    pub(super) fn at(place: usize) -> Self {
        if place == 0 { Self::First } else { Self::Second }
    }
}

impl fmt::Display for NodeSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "1",
            Self::Second => "2",
            Self::Both => "1 and 2",
        })
    }
}

/// A set of groups, as the commands call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    All,
    Local,
    Foreign,
    Failback,
}

impl Set {
    /// All sets, in the order of definition.
    pub(super) const EVERY: [Self; 4] = [Self::All, Self::Local, Self::Foreign, Self::Failback];

    /// The set as an argument of a command.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Local => "local",
            Self::Foreign => "foreign",
            Self::Failback => "failback",
        }
    }
}

/// A step that is played on a mixed cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Starts daemons; a node without power gets it first. If a real heartbeat was killed, its node loses its power
    /// before, as by its watchdog: heartbeat has no other way to clear the leftovers of its earlier run.
    Start(NodeSelector),
    /// Starts daemons on nodes where none runs; from now on they are this program.
    Run(NodeSelector, Daemon),
    /// Ends daemons gracefully, and waits for their end.
    Stop(NodeSelector),
    /// Nodes lose their power.
    PowerOff(NodeSelector),
    /// Kills daemons; the kernels go on, and keep their addresses.
    Kill(NodeSelector),
    /// Freezes a daemon for this long.
    Freeze(NodeSelector, Duration),
    /// Asks a node to give a set away.
    Standby(NodeSelector, Set),
    /// Asks a node to get a set.
    Takeover(NodeSelector, Set),
    /// One of the links (by its index in the configuration) carries nothing.
    Cut(usize),
    /// The link carries frames again.
    Mend(usize),
    /// No link carries anything.
    Split,
    /// All links carry frames again.
    Heal,
    /// A node does not reach any other on the client's segment.
    Isolate(NodeSelector),
    /// The node reaches all others again.
    Rejoin(NodeSelector),
    /// This percentage of all frames is lost from now on.
    Lose(u32),
    /// No frame is lost any more. During the loss, each node must have asked for frames again, and been answered.
    LoseNothing,
    /// Nothing is done for this long.
    Rest(Duration),
    /// A node's next daemon has a key that the other does not have.
    OtherKey(NodeSelector),
    /// The node's next daemon has the right key again.
    RightKey(NodeSelector),
    /// A node's files get other times, and its daemon gets HUP: no group may stop or start.
    Reload(NodeSelector),
}

impl Step {
    /// Whether this step starts a Locum in a cluster of this pair.
    pub(super) fn starts_locum(self, pair: DaemonPair) -> bool {
        match self {
            Self::Start(who) => who.each().iter().any(|&place| pair.0[place] == Daemon::Locum),
            Self::Run(_, daemon) => daemon == Daemon::Locum,
            _ => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(who) => write!(f, "start {who}"),
            Self::Run(who, daemon) => write!(f, "start {who} as {}", daemon.name()),
            Self::Stop(who) => write!(f, "stop {who}"),
            Self::PowerOff(who) => write!(f, "power off {who}"),
            Self::Kill(who) => write!(f, "kill {who}"),
            Self::Freeze(who, time) => write!(f, "freeze {who} for {} s", time.as_secs()),
            Self::Standby(who, set) => write!(f, "standby {who} {}", set.word()),
            Self::Takeover(who, set) => write!(f, "takeover {who} {}", set.word()),
            Self::Cut(link) => write!(f, "cut link {}", link + 1),
            Self::Mend(link) => write!(f, "mend link {}", link + 1),
            Self::Split => f.write_str("split"),
            Self::Heal => f.write_str("heal"),
            Self::Isolate(who) => write!(f, "isolate {who}"),
            Self::Rejoin(who) => write!(f, "rejoin {who}"),
            Self::Lose(percent) => write!(f, "lose {percent} %"),
            Self::LoseNothing => f.write_str("lose nothing"),
            Self::Rest(time) => write!(f, "rest {} s", time.as_secs()),
            Self::OtherKey(who) => write!(f, "other key on {who}"),
            Self::RightKey(who) => write!(f, "right key on {who}"),
            Self::Reload(who) => write!(f, "reload {who}"),
        }
    }
}

/// A step, and the required owners of the two groups after it: `"12"` means each on its preferred node, `"22"` both on
/// the second node, `""` each on any one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub step: Step,
    /// The required owners of the groups after it.
    pub owners: &'static str,
    /// If set, the next step follows after this time, and without an audit of this one.
    pub hurry: Option<Duration>,
}

impl Planned {
    /// A step that is audited.
    #[must_use]
    pub fn new(step: Step, owners: &'static str) -> Self {
        Self { step, owners, hurry: None }
    }
}
