//! Mixed clusters: two nodes on a rack, each with Locum or the real heartbeat. Steps are played on them, and after each
//! step an audit checks the cluster from outside.
//!
//! * [`scenarios`] plays named scenarios ([`MixedScenario`]) for several [`DaemonPair`]s, several racks side by side;
//! * [`random`] plays steps chosen by a seed;
//! * [`replace()`] replaces two real heartbeats by two Locums, node by node, and back, while a client watches.
//!
//! **The audit** after each step waits, at most for a printed limit, until this has been so for two seconds (for nine
//! where a real heartbeat may be about to restart itself): the address and the service of each group are on the same
//! one living node, where the scenario says so on that one; both addresses answer the client's ping; every daemon that
//! should run does. No log may have a new line that a cluster must never write. No service may have run twice unless a
//! fault explains it. While the nodes cannot hear each other, each must own everything: R1 promises no more. Two real
//! heartbeats are the oracle: a failure that they share is not held against Locum.

mod cluster;
mod cts;
mod files;
mod replace;
mod scenario;
mod sniff;
mod step;

use std::{
    collections::VecDeque,
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

pub use cluster::Audited;
pub use files::{Medium, MixedSettings};
pub use replace::{Replaced, ReplacementStep, replace};
pub use scenario::MixedScenario;
pub use step::{NodeSelector, Planned, Set, Step};

use crate::{daemon::Daemon, fault::Fault};
use cluster::MixedCluster;
use cts::Chooser;

/// The daemons of the first and the second node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaemonPair(pub [Daemon; 2]);

impl DaemonPair {
    /// All pairs, the oracle first.
    pub const ALL: [Self; 4] = [
        Self::ORACLE,
        Self([Daemon::Locum, Daemon::Heartbeat]),
        Self([Daemon::Heartbeat, Daemon::Locum]),
        Self([Daemon::Locum, Daemon::Locum]),
    ];
    /// The pair whose behaviour is right by definition.
    pub const ORACLE: Self = Self([Daemon::Heartbeat; 2]);

    /// The pair's name in options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            [Daemon::Locum, Daemon::Locum] => "locum+locum",
            [Daemon::Locum, Daemon::Heartbeat] => "locum+heartbeat",
            [Daemon::Heartbeat, Daemon::Locum] => "heartbeat+locum",
            [Daemon::Heartbeat, Daemon::Heartbeat] => "heartbeat+heartbeat",
        }
    }
}

impl fmt::Display for DaemonPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The programs of mixed clusters, and the options for their logs.
#[derive(Clone, Debug)]
pub struct MixedSetup {
    /// The program: every node's holder, and Locum itself.
    pub program: PathBuf,
    /// The directory in which the real heartbeat is unpacked, with `usr` and `etc` in it; if not set, the host's is
    /// used.
    pub peers_root: Option<PathBuf>,
    /// The directory for the logs of both daemons. They are kept for scenarios that fail, or for all.
    pub keep: Option<PathBuf>,
    /// The planted breakage of a Locum that is built for it: the content of the file `breakage` in its configuration.
    pub breakage: Option<String>,
}

/// The scenarios to play, and with which pairs.
#[derive(Clone, Debug)]
pub struct MixedOptions {
    pub setup: MixedSetup,
    pub pairs: Vec<DaemonPair>,
    pub scenarios: Vec<MixedScenario>,
    /// How long frames are lost in scenarios with losses.
    pub loss: Duration,
    /// How many racks stand side by side.
    pub racks: usize,
}

/// The result of one scenario with one pair.
#[derive(Clone, Debug)]
pub struct Played {
    pub pair: DaemonPair,
    pub name: String,
    /// The audited steps; if one failed, it is the last.
    pub steps: Vec<Audited>,
    /// Whether a Locum was started in it. A failure before that is heartbeat's alone.
    pub met_locum: bool,
    /// The ends of the logs, if an audit failed.
    pub evidence: String,
}

impl Played {
    /// The step whose audit failed, if any did.
    #[must_use]
    pub fn failed(&self) -> Option<&Audited> {
        self.steps.iter().find(|audited| !audited.faults.is_empty())
    }

    /// Whether an audit failed before a Locum was started that was to be: such a failure says nothing about Locum.
    #[must_use]
    pub fn failed_without_locum(&self) -> bool {
        self.failed().is_some() && !self.met_locum && self.pair != DaemonPair::ORACLE
    }
}

/// How often a scenario is played at most, if its failures say nothing about Locum.
const TRIES: usize = 3;

/// Plays each scenario for each pair, and again if a heartbeat failed before a Locum was started beside it: then the
/// result has both. `tell` is given a line for each step.
///
/// # Errors
/// [`Fault::Missing`] where no rack can be built; else the kernel's error.
pub fn scenarios(options: &MixedOptions, tell: &mut dyn FnMut(&str)) -> Result<Vec<Played>, Fault> {
    let lives = options
        .scenarios
        .iter()
        .flat_map(|&scenario| options.pairs.iter().map(move |&pair| (scenario, pair)));
    let waiting: Mutex<VecDeque<_>> = Mutex::new(lives.enumerate().collect());
    let (news, reports) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..options.racks.max(1) {
            let (waiting, news) = (&waiting, news.clone());
            scope.spawn(move || {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((place, (scenario, pair))) = next else { return };
                    for _ in 0..TRIES {
                        let mut steps = scenario.steps(options.loss).into_iter();
                        let life = ScenarioRun {
                            setup: &options.setup,
                            pair,
                            name: scenario.name().into(),
                            seed: 1,
                        };
                        let mut say = |line: String| drop(news.send(WorkerMessage::Line(line)));
                        let played = life.play(scenario.settings(), &mut say, |_| steps.next());
                        let again = played.as_ref().is_ok_and(Played::failed_without_locum);
                        let _ = news.send(WorkerMessage::Played(place, played));
                        if !again {
                            break;
                        }
                    }
                }
            });
        }
        drop(news);
        let mut all = Vec::new();
        for news in reports {
            match news {
                WorkerMessage::Line(line) => tell(&line),
                WorkerMessage::Played(place, played) => all.push((place, played?)),
            }
        }
        all.sort_by_key(|&(place, _)| place);
        Ok(all.into_iter().map(|(_, played)| played).collect())
    })
}

/// Plays `steps` random steps chosen by a seed. `tell` is given a line for each. If `hurries`, half of the steps that
/// belong together are not waited for: for example, a node dies while a group moves. Real heartbeats do not survive
/// that.
///
/// # Errors
/// As for [`scenarios`].
pub fn random(
    setup: &MixedSetup,
    pair: DaemonPair,
    steps: usize,
    seed: u64,
    hurries: bool,
    tell: &mut dyn FnMut(&str),
) -> Result<Played, Fault> {
    let mut chooser = Chooser::new(seed, hurries);
    let mut left = steps;
    let life = ScenarioRun { setup, pair, name: format!("seed-{seed}"), seed };
    let settings = chooser.settings();
    tell(&format!("{pair}, {}: {settings}", life.name));
    life.play(settings, &mut |line| tell(&line), |cluster| {
        left = left.checked_sub(1)?;
        Some(chooser.choose(cluster.node_states))
    })
}

enum WorkerMessage {
    Line(String),
    Played(usize, Result<Played, Fault>),
}

/// One cluster of a scenario, from its start to its end.
struct ScenarioRun<'a> {
    setup: &'a MixedSetup,
    pair: DaemonPair,
    name: String,
    seed: u64,
}

impl ScenarioRun<'_> {
    /// Takes steps until there are none, or until an audit fails: the steps after a failure show nothing.
    fn play(
        self,
        settings: MixedSettings,
        tell: &mut dyn FnMut(String),
        mut next: impl FnMut(&MixedCluster) -> Option<Planned>,
    ) -> Result<Played, Fault> {
        let Self { setup, pair, name, seed } = self;
        let mut cluster = MixedCluster::build(setup, pair, settings, seed)?;
        let mut played = Played { pair, name, steps: Vec::new(), met_locum: false, evidence: String::new() };
        while let Some(planned) = next(&cluster) {
            played.met_locum |= planned.step.starts_locum(pair);
            let audited = cluster.take(planned)?;
            tell(format!("{pair}, {}: {}. {audited}", played.name, played.steps.len() + 1));
            let failed = !audited.faults.is_empty();
            played.steps.push(audited);
            if failed {
                break;
            }
        }
        let name = format!("{pair}.{}", played.name);
        if played.failed().is_some() {
            played.evidence = cluster.evidence(setup.keep.as_deref(), &name);
        } else if let Some(keep) = &setup.keep {
            cluster.evidence(Some(keep), &name);
        }
        Ok(played)
    }
}

impl fmt::Display for Audited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, limit, settled, asked, owners, faults, note, .. } = self;
        write!(f, "{step}: ")?;
        if faults.is_empty() {
            if self.hurried {
                return f.write_str("not waited for");
            }
            let seconds = settled.as_secs_f64();
            write!(f, "well after {seconds:.1} s of at most {} s, groups on {owners}", limit.as_secs())?;
        } else {
            write!(f, "FAILED within {} s: {}", limit.as_secs(), faults.join("; "))?;
        }
        if *asked > 1 {
            write!(f, " (asked {asked} times)")?;
        }
        note.iter().try_for_each(|note| write!(f, " ({note})"))
    }
}
