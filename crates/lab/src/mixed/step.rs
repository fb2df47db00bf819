//! What is done to a cluster between two audits.

use std::{fmt, time::Duration};

use super::Pair;
use crate::daemon::Daemon;

/// One node, or both at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The first.
    First,
    /// The second.
    Second,
    /// Both at the same time.
    Both,
}

impl Who {
    /// Their places.
    pub(super) fn each(self) -> &'static [usize] {
        match self {
            Self::First => &[0],
            Self::Second => &[1],
            Self::Both => &[0, 1],
        }
    }

    /// The node at a place.
    pub(super) fn at(place: usize) -> Self {
        if place == 0 { Self::First } else { Self::Second }
    }
}

impl fmt::Display for Who {
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
#[expect(missing_docs, reason = "heartbeat's words")]
pub enum Set {
    All,
    Local,
    Foreign,
    Failback,
}

impl Set {
    /// All of them.
    pub(super) const EVERY: [Self; 4] = [Self::All, Self::Local, Self::Foreign, Self::Failback];

    /// As a word of a command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Local => "local",
            Self::Foreign => "foreign",
            Self::Failback => "failback",
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Daemons begin; a node without power gets it first. A real heartbeat whose daemon was killed loses its power
    /// before, as by its watchdog: it has nothing else that would clear what the dead one left running.
    Start(Who),
    /// Daemons begin, on nodes where none runs, and from now on they are this program.
    Run(Who, Daemon),
    /// Daemons end gracefully.
    Stop(Who),
    /// Nodes lose their power.
    PowerOff(Who),
    /// Daemons are killed; the kernels go on, and keep what they hold.
    Kill(Who),
    /// A daemon stands still for so long.
    Freeze(Who, Duration),
    /// A node is asked to give a set away.
    Standby(Who, Set),
    /// A node is asked to get a set.
    Takeover(Who, Set),
    /// One of the links (by its place in the configuration) carries nothing.
    Cut(usize),
    /// And carries again.
    Mend(usize),
    /// No link carries anything.
    Split,
    /// All do again.
    Heal,
    /// A node reaches nobody on the client's segment.
    Isolate(Who),
    /// And reaches all again.
    Rejoin(Who),
    /// This share in a hundred of all frames is lost from now on.
    Lose(u32),
    /// Nothing is lost any more. In between, each node must have asked for frames again, and been answered.
    LoseNothing,
    /// Nothing is done for so long.
    Rest(Duration),
    /// A node's next daemon has a key that the other does not have.
    OtherKey(Who),
    /// And the right one again.
    RightKey(Who),
    /// A node's files get other times, and its daemon HUP: no group may be stopped or started by that.
    Renew(Who),
}

impl Step {
    /// Whether a Locum begins by it in a cluster of this pair.
    pub(super) fn starts_locum(self, pair: Pair) -> bool {
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
            Self::Renew(who) => write!(f, "renew {who}"),
        }
    }
}

/// A step, and where the two groups must be after it: `"12"` is each at home, `"22"` both on the second node, `""`
/// wherever they like, but each on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What is done.
    pub step: Step,
    /// Where the groups are then.
    pub owners: &'static str,
    /// The next step follows after so long, and without an audit of this one.
    pub hurry: Option<Duration>,
}

impl Planned {
    /// A step that is audited.
    #[must_use]
    pub fn new(step: Step, owners: &'static str) -> Self {
        Self { step, owners, hurry: None }
    }
}
