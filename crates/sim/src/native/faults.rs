//! Steps of a scenario: what can happen to a cluster.

use std::fmt;

/// One step of a scenario. Members and groups are numbers in the order of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScenarioStep {
    /// This many milliseconds pass.
    Wait(u64),
    /// A machine loses its power.
    PowerOff(usize),
    /// The machine gets its power back and its daemon starts. Also starts a daemon that was killed.
    Start(usize),
    /// The machine's daemon is killed; everything else on it goes on.
    Kill(usize),
    /// The machine's daemon is frozen (SIGSTOP), or goes on.
    Freeze(usize, bool),
    /// The whole machine stands still, its clock included, or goes on.
    Pause(usize, bool),
    /// No frame goes from the first member to the second any more.
    Cut(usize, usize),
    /// The members of this set (a bit each) hear only each other.
    Split(u32),
    /// All cables work again and nothing is lost.
    Heal,
    /// Frames are no longer doubled or late.
    Calm,
    /// This many frames in a hundred are lost.
    Lose(u8),
    /// Frames from the first member to the second take this many milliseconds longer, until all is healed.
    Slow(usize, usize, u64),
    /// This many frames in a hundred come again, up to this many milliseconds later, until all is calm.
    Repeat(u8, u64),
    /// A member's ledger file is lost while the member is off; then the member starts again.
    LoseFile(usize),
    /// A member's disk fails from now on, or its next run gets one that works.
    BreakDisk(usize, bool),
    /// Sets how the agents on a member treat a group.
    Agents(usize, usize, Agents),
    /// An administrator asks a member to move a group.
    Move(usize, usize, Option<usize>),
    /// An administrator puts a node on standby, or ends it.
    Standby(usize, bool),
    /// An administrator makes a node leave the cluster.
    Leave(usize),
    /// An administrator asks a member to freeze a group (or all: maintenance), or to end that.
    Pin(usize, Option<usize>, bool),
    /// The interface for a group's address has a carrier on a member, or none.
    Cable(usize, usize, bool),
}

/// How the agents of a member behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agents {
    /// They do what they should.
    Work,
    FailToStart,
    /// Starts take longer than their limit.
    HangAtStart,
    FailToStop,
    /// The agents are missing or cannot be executed: each operation ends at once.
    Missing,
    /// Stopping the resources right of the first one takes half a minute.
    SlowToStop,
}

/// The kinds of faults, by name, for counting.
pub const KINDS: [&str; 16] = [
    "power off",
    "kill",
    "freeze",
    "pause",
    "cut",
    "split",
    "loss",
    "file lost",
    "disk",
    "agents",
    "move",
    "standby",
    "leave",
    "slow",
    "repeat",
    "pin",
];

impl ScenarioStep {
    /// The index in [`KINDS`] of this step, or `None` if it is not a fault.
    #[must_use]
    pub const fn kind(&self) -> Option<usize> {
        Some(match self {
            Self::PowerOff(_) => 0,
            Self::Kill(_) => 1,
            Self::Freeze(_, true) => 2,
            Self::Pause(_, true) => 3,
            Self::Cut(..) => 4,
            Self::Split(_) => 5,
            Self::Lose(1..) => 6,
            Self::LoseFile(_) => 7,
            Self::BreakDisk(_, true) => 8,
            Self::Agents(_, _, agents) if !matches!(agents, Agents::Work) => 9,
            Self::Move(..) => 10,
            Self::Standby(_, true) => 11,
            Self::Leave(_) => 12,
            Self::Slow(..) => 13,
            Self::Repeat(..) => 14,
            Self::Pin(_, _, true) => 15,
            _ => return None,
        })
    }
}

impl fmt::Display for ScenarioStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Wait(millis) => write!(f, "wait {millis}ms"),
            Self::PowerOff(member) => write!(f, "power-off {member}"),
            Self::Start(member) => write!(f, "start {member}"),
            Self::Kill(member) => write!(f, "kill {member}"),
            Self::Freeze(member, true) => write!(f, "freeze {member}"),
            Self::Freeze(member, false) => write!(f, "thaw {member}"),
            Self::Pause(member, true) => write!(f, "pause {member}"),
            Self::Pause(member, false) => write!(f, "resume {member}"),
            Self::Cut(from, to) => write!(f, "cut {from} to {to}"),
            Self::Split(set) => write!(f, "split {set:b}"),
            Self::Heal => write!(f, "heal"),
            Self::Calm => write!(f, "calm"),
            Self::Lose(percent) => write!(f, "lose {percent}%"),
            Self::Slow(from, to, millis) => write!(f, "slow {from} to {to} by {millis}ms"),
            Self::Repeat(percent, millis) => write!(f, "repeat {percent}% within {millis}ms"),
            Self::LoseFile(member) => write!(f, "lose-file {member}"),
            Self::BreakDisk(member, true) => write!(f, "break-disk {member}"),
            Self::BreakDisk(member, false) => write!(f, "new-disk {member}"),
            Self::Agents(member, group, agents) => write!(f, "agents {member} group {group} {agents:?}"),
            Self::Move(asked, group, Some(to)) => write!(f, "move group {group} to {to}, asked of {asked}"),
            Self::Move(asked, group, None) => write!(f, "move group {group}, asked of {asked}"),
            Self::Standby(member, true) => write!(f, "standby {member}"),
            Self::Standby(member, false) => write!(f, "online {member}"),
            Self::Leave(member) => write!(f, "leave {member}"),
            Self::Cable(member, group, true) => write!(f, "plug {member} for group {group}"),
            Self::Cable(member, group, false) => write!(f, "unplug {member} for group {group}"),
            Self::Pin(asked, Some(group), true) => write!(f, "freeze group {group}, asked of {asked}"),
            Self::Pin(asked, Some(group), false) => write!(f, "let group {group} go, asked of {asked}"),
            Self::Pin(asked, None, true) => write!(f, "maintenance, asked of {asked}"),
            Self::Pin(asked, None, false) => write!(f, "end maintenance, asked of {asked}"),
        }
    }
}
