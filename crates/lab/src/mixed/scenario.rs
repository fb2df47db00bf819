//! Scenarios of mixed clusters: their steps, and the owners of the groups after each.

use std::time::Duration;

use super::{
    files::{Medium, MixedSettings},
    step::{
        NodeSelector::{Both, First, Second},
        Planned,
        Set::{All, Failback, Foreign, Local},
        Step,
    },
};

/// How many parts a time of loss has in which nothing else happens.
const LOSS_PARTS: u32 = 2;

/// Both nodes ping the client.
const IPFAIL: &str = "ping 172.23.2.100\nrespawn hacluster /usr/libexec/heartbeat/ipfail";
/// A device that resets nothing and always reports success.
const STONITH: &str = "stonith_host * null clustnode1 clustnode2";

/// A named scenario of a mixed cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MixedScenario {
    /// Both daemons start at once; each node loses its power, and comes back.
    Power,
    /// The first node starts alone, the second joins; each leaves gracefully, and comes back.
    FirstFirst,
    /// The second node starts alone, the first joins; both leave at once, and come at once.
    SecondFirst,
    /// All arguments of standby and takeover, on both nodes.
    Words,
    /// With `auto_failback off`: no group returns by itself.
    NoFailback,
    /// With `auto_failback legacy`: groups are asked for one by one.
    Legacy,
    /// Each of two links is cut and mended; no group moves.
    Links,
    /// A partition of the nodes that heals.
    Partition,
    /// A partition with `auto_failback off`.
    PartitionNoFailback,
    /// One frame of ten is lost.
    Loss,
    /// The second node has another key for a while.
    OtherKey,
    /// The only link is a null modem.
    Serial,
    /// Multicast, signed with crc.
    McastCrc,
    /// Unicast, signed with md5.
    UcastMd5,
    /// `msgfmt classic`, signed with sha1, over broadcast and a null modem.
    Classic,
    /// Each daemon is killed, and started again.
    Kill,
    /// Each daemon is frozen for longer than deadtime.
    Freeze,
    /// The first daemon is killed while the second gives it a group, and is back before its death is noticed.
    Interrupted,
    /// A node that does not reach the client any more gives its groups away.
    Ipfail,
    /// Dead nodes are reset by a device that reports success.
    Stonith,
    /// The second has just taken everything when the first comes, and is killed; the second stops before it notices.
    Hasty,
    /// The second node beats more seldom than the first one's deadtime allows.
    SlowBeats,
    /// Each daemon reloads other times in place: while it holds its own groups, none, and all, and beside a peer
    /// without power.
    Reload,
    /// The same with `auto_failback legacy`, where a living node holds its own groups.
    ReloadLegacy,
}

impl MixedScenario {
    /// All scenarios, in the order of the command line.
    pub const ALL: [Self; 24] = [
        Self::Power,
        Self::FirstFirst,
        Self::SecondFirst,
        Self::Words,
        Self::NoFailback,
        Self::Legacy,
        Self::Links,
        Self::Partition,
        Self::PartitionNoFailback,
        Self::Loss,
        Self::OtherKey,
        Self::Serial,
        Self::McastCrc,
        Self::UcastMd5,
        Self::Classic,
        Self::Kill,
        Self::Freeze,
        Self::Interrupted,
        Self::Ipfail,
        Self::Stonith,
        Self::Hasty,
        Self::SlowBeats,
        Self::Reload,
        Self::ReloadLegacy,
    ];

    /// The scenario's name in options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::FirstFirst => "first-first",
            Self::SecondFirst => "second-first",
            Self::Words => "words",
            Self::NoFailback => "no-failback",
            Self::Legacy => "legacy",
            Self::Links => "links",
            Self::Partition => "partition",
            Self::PartitionNoFailback => "partition-no-failback",
            Self::Loss => "loss",
            Self::OtherKey => "other-key",
            Self::Serial => "serial",
            Self::McastCrc => "mcast-crc",
            Self::UcastMd5 => "ucast-md5",
            Self::Classic => "classic",
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Interrupted => "interrupted",
            Self::Ipfail => "ipfail",
            Self::Stonith => "stonith",
            Self::Hasty => "hasty",
            Self::SlowBeats => "slow-beats",
            Self::Reload => "renew",
            Self::ReloadLegacy => "renew-legacy",
        }
    }

    /// The configuration of its cluster.
    #[must_use]
    pub fn settings(self) -> MixedSettings {
        const CABLE: &[Medium] = &[Medium::Bcast];
        const CABLE_AND_LINE: &[Medium] = &[Medium::Bcast, Medium::Serial];
        let usual = MixedSettings::USUAL;
        match self {
            Self::Power | Self::FirstFirst | Self::SecondFirst | Self::Kill | Self::Reload => usual,
            Self::SlowBeats => MixedSettings { second_beats: Some(Duration::from_secs(3)), ..usual },
            Self::Legacy | Self::ReloadLegacy => MixedSettings { auto_failback: "legacy", ..usual },
            Self::Words | Self::NoFailback | Self::Hasty => MixedSettings { auto_failback: "off", ..usual },
            Self::Links | Self::Partition => MixedSettings { media: CABLE_AND_LINE, ..usual },
            Self::PartitionNoFailback => MixedSettings { media: CABLE, auto_failback: "off", ..usual },
            Self::Loss => MixedSettings { media: CABLE, loss: Some(0), ..usual },
            Self::Interrupted => {
                MixedSettings { media: CABLE, auto_failback: "off", slow: Duration::from_secs(3), ..usual }
            }
            Self::Ipfail => MixedSettings { media: CABLE, more: IPFAIL, ..usual },
            Self::Stonith => MixedSettings { more: STONITH, ..usual },
            Self::OtherKey | Self::Freeze => MixedSettings { media: CABLE, ..usual },
            Self::Serial => MixedSettings { media: &[Medium::Serial], ..usual },
            Self::McastCrc => MixedSettings { media: &[Medium::Mcast], key: "crc", ..usual },
            Self::UcastMd5 => MixedSettings { media: &[Medium::Ucast], key: "md5 together", ..usual },
            Self::Classic => MixedSettings { media: CABLE_AND_LINE, more: "msgfmt classic", ..usual },
        }
    }

    /// The steps of the scenario; a time of loss lasts `loss`.
    #[must_use]
    pub fn steps(self, loss: Duration) -> Vec<Planned> {
        use Step::{
            Cut, Freeze, Heal, Isolate, Kill, Lose, LoseNothing, Mend, OtherKey, PowerOff, Rejoin, Reload,
            Rest, RightKey, Split, Standby, Start, Stop, Takeover,
        };
        const FROZEN: Duration = Duration::from_secs(5);
        let steps: Vec<(Step, &'static str)> = match self {
            Self::Power => vec![
                (Start(Both), "12"),
                (PowerOff(First), "22"),
                (Start(First), "12"),
                (PowerOff(Second), "11"),
                (Start(Second), "12"),
            ],
            Self::Legacy => vec![
                (Start(First), "11"),
                (Start(Second), "12"),
                (PowerOff(First), "22"),
                (Start(First), "12"),
                (Stop(Second), "11"),
                (Start(Second), "12"),
                (PowerOff(Second), "11"),
                (Start(Second), "12"),
                (Stop(First), "22"),
            ],
            Self::FirstFirst => vec![
                (Start(First), "11"),
                (Start(Second), "12"),
                (Stop(First), "22"),
                (Start(First), "12"),
                (Stop(Second), "11"),
                (Start(Second), "12"),
            ],
            Self::SecondFirst => vec![
                (Start(Second), "22"),
                (Start(First), "12"),
                (Stop(Both), ""),
                (Start(Both), "12"),
                (Stop(Both), ""),
            ],
            Self::Words => vec![
                (Start(Both), "12"),
                (Standby(First, Local), "22"),
                (Takeover(First, Local), "12"),
                (Standby(Second, Local), "11"),
                (Takeover(Second, Local), "12"),
                (Standby(First, All), "22"),
                (Takeover(First, All), "11"),
                (Standby(First, Foreign), "12"),
                (Takeover(Second, Foreign), "22"),
                (Standby(Second, Failback), "12"),
                (Takeover(First, Foreign), "11"),
                (Standby(First, Failback), "12"),
                (Standby(Second, All), "11"),
                (Takeover(Second, All), "22"),
                (Takeover(First, Failback), ""),
            ],
            Self::NoFailback => vec![
                (Start(Both), "12"),
                (PowerOff(First), "22"),
                (Start(First), "22"),
                (Takeover(First, Local), "12"),
                (Stop(Second), "11"),
                (Start(Second), "11"),
                (Standby(First, Foreign), "12"),
            ],
            Self::Links => vec![
                (Start(Both), "12"),
                (Cut(0), "12"),
                (Rest(FROZEN), "12"),
                (Mend(0), "12"),
                (Cut(1), "12"),
                (Rest(FROZEN), "12"),
                (Mend(1), "12"),
                (PowerOff(Second), "11"),
                (Start(Second), "12"),
            ],
            Self::Partition => vec![(Start(Both), "12"), (Split, ""), (Heal, "12"), (Stop(First), "22")],
            Self::PartitionNoFailback => {
                vec![(Start(Both), "12"), (Split, ""), (Heal, ""), (Stop(Second), "11")]
            }
            Self::Loss => {
                let part = Rest(loss / LOSS_PARTS);
                vec![
                    (Start(Both), "12"),
                    (Lose(10), "12"),
                    (part, "12"),
                    (Standby(First, Local), "22"),
                    (Takeover(First, Local), "12"),
                    (part, "12"),
                    (LoseNothing, "12"),
                    (Stop(Second), "11"),
                ]
            }
            Self::OtherKey => vec![
                (Start(Both), "12"),
                (Stop(Second), "11"),
                (OtherKey(Second), "11"),
                (Start(Second), ""),
                (Stop(Second), "11"),
                (RightKey(Second), "11"),
                (Start(Second), "12"),
            ],
            Self::Kill => vec![
                (Start(Both), "12"),
                (Kill(First), "22"),
                (Start(First), "12"),
                (Kill(Second), "11"),
                (Start(Second), "12"),
            ],
            Self::SlowBeats => vec![
                (Start(Both), "12"),
                (Standby(First, Local), "22"),
                (Takeover(First, Local), "12"),
                (PowerOff(Second), "11"),
                (Start(Second), "12"),
            ],
            Self::Reload => vec![
                (Start(Both), "12"),
                (Reload(First), "12"),
                (Reload(Second), "12"),
                (Standby(First, Local), "22"),
                (Reload(First), "22"),
                (Reload(Second), "22"),
                (Takeover(First, Local), "12"),
                (Standby(Second, Local), "11"),
                (Reload(Second), "11"),
                (Takeover(Second, Local), "12"),
                (PowerOff(First), "22"),
                (Reload(Second), "22"),
                (Start(First), "12"),
            ],
            Self::ReloadLegacy => vec![
                (Start(First), "11"),
                (Start(Second), "12"),
                (Reload(First), "12"),
                (Reload(Second), "12"),
                (PowerOff(First), "22"),
                (Reload(Second), "22"),
                (Start(First), "12"),
                (PowerOff(Second), "11"),
                (Reload(First), "11"),
                (Start(Second), "12"),
            ],
            Self::Freeze => {
                vec![(Start(Both), "12"), (Freeze(First, FROZEN), "12"), (Freeze(Second, FROZEN), "12")]
            }
            Self::Ipfail => vec![
                (Start(Both), "12"),
                (Isolate(First), "22"),
                (Rejoin(First), "12"),
                (Isolate(Second), "11"),
                (Rejoin(Second), "12"),
            ],
            Self::Hasty => {
                return vec![
                    Planned::new(Start(Second), "22"),
                    Planned::new(Start(First), "22"),
                    Planned { hurry: Some(Duration::from_secs(1)), ..Planned::new(Kill(First), "") },
                    Planned::new(Stop(Second), ""),
                ];
            }
            Self::Stonith => vec![
                (Start(Both), "12"),
                (PowerOff(First), "22"),
                (Start(First), "12"),
                (PowerOff(Second), "11"),
                (Start(Second), "12"),
            ],
            Self::Interrupted => {
                return vec![
                    Planned::new(Start(Both), "12"),
                    Planned::new(Standby(First, Local), "22"),
                    Planned::new(Takeover(First, All), "11"),
                    Planned {
                        hurry: Some(Duration::from_secs(1)),
                        ..Planned::new(Takeover(Second, Local), "")
                    },
                    Planned::new(Rest(FROZEN), "12"),
                    Planned::new(Standby(First, Local), "22"),
                    Planned {
                        hurry: Some(Duration::from_millis(1500)),
                        ..Planned::new(Standby(Second, Foreign), "")
                    },
                    Planned { hurry: Some(Duration::ZERO), ..Planned::new(Kill(First), "") },
                    Planned::new(Start(First), ""),
                    Planned::new(Stop(Second), "11"),
                    Planned::new(Stop(First), ""),
                ];
            }
            Self::Serial | Self::McastCrc | Self::UcastMd5 | Self::Classic => vec![
                (Start(Both), "12"),
                (Standby(First, All), "22"),
                (Takeover(First, Local), "12"),
                (PowerOff(Second), "11"),
                (Start(Second), "12"),
                (Stop(First), "22"),
                (Start(First), "12"),
            ],
        };
        steps.into_iter().map(|(step, owners)| Planned::new(step, owners)).collect()
    }
}
