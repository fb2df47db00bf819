//! Mixed clusters: two nodes of which each runs Locum or the real heartbeat, on a rack, under steps of which each is
//! followed by an audit from outside.
//!
//! * [`scenarios`] plays named lives of a cluster ([`Scenario`]) for several [`Pair`]s, several racks side by side;
//! * [`random`] plays steps chosen by a seed;
//! * [`replace()`] makes two real heartbeats two Locums, node by node, and back, under the eyes of a client.
//!
//! **The audit** after each step waits, at most for a printed limit, until this has been so for two seconds (for nine
//! where a real heartbeat may be about to restart itself): the address and the service of each group are on the same
//! one living node, where the scenario says so on that one; both addresses answer the client's ping; every daemon that
//! should run does. And neither log may have a new line that a cluster must never write, nor may a service have run
//! twice where nothing but planned things happened. While the nodes cannot hear each other, each must own everything:
//! that is all that R1 promises. Two real heartbeats are the oracle: what fails for them, too, is not held against
//! Locum.

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
pub use files::{Medium, Settings};
pub use replace::{Replaced, Stage, replace};
pub use scenario::Scenario;
pub use step::{Planned, Set, Step, Who};

use crate::{daemon::Daemon, fault::Fault};
use cluster::Cluster;
use cts::Chooser;

/// What the first and the second node run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub [Daemon; 2]);

impl Pair {
    /// All of them, the oracle first.
    pub const ALL: [Self; 4] = [
        Self::ORACLE,
        Self([Daemon::Locum, Daemon::Heartbeat]),
        Self([Daemon::Heartbeat, Daemon::Locum]),
        Self([Daemon::Locum, Daemon::Locum]),
    ];
    /// What they do is right by definition.
    pub const ORACLE: Self = Self([Daemon::Heartbeat; 2]);

    /// Its name.
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

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What clusters are made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program: every node's holder, and Locum itself.
    pub program: PathBuf,
    /// Where the real heartbeat is unpacked, with `usr` and `etc` in it; else it is the host's.
    pub peers_root: Option<PathBuf>,
    /// Where the logs of both daemons are kept of every life that an audit ended, or of all.
    pub keep: Option<PathBuf>,
    /// What Locum, built for that, does wrong on purpose: the content of the file `breakage` of its configuration.
    pub breakage: Option<String>,
}

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Options {
    /// The clusters.
    pub setup: Setup,
    /// Of whom.
    pub pairs: Vec<Pair>,
    /// What.
    pub scenarios: Vec<Scenario>,
    /// How long frames are lost where some are.
    pub loss: Duration,
    /// How many racks stand side by side.
    pub racks: usize,
}

/// What came of one life of a cluster.
#[derive(Clone, Debug)]
pub struct Played {
    /// Of whom.
    pub pair: Pair,
    /// Its name.
    pub name: String,
    /// What was audited; the last one failed if any did.
    pub steps: Vec<Audited>,
    /// A Locum was started in it. What fails before that is heartbeat's alone.
    pub met_locum: bool,
    /// The ends of the logs, where an audit failed.
    pub evidence: String,
}

impl Played {
    /// The step whose audit failed.
    #[must_use]
    pub fn failed(&self) -> Option<&Audited> {
        self.steps.iter().find(|audited| !audited.faults.is_empty())
    }

    /// An audit failed before a Locum was started, where one was to be: that says nothing about Locum.
    #[must_use]
    pub fn failed_without_locum(&self) -> bool {
        self.failed().is_some() && !self.met_locum && self.pair != Pair::ORACLE
    }
}

/// A life that says nothing about Locum is played again, up to so many times in all.
const TRIES: usize = 3;

/// Plays each scenario for each pair; once more where a heartbeat failed before a Locum was started beside it: then there is
/// one of each. `tell` is given a line for each step.
///
/// # Errors
/// [`Fault::Missing`] where no rack can be built; else what the kernel says.
pub fn scenarios(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Vec<Played>, Fault> {
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
                        let life =
                            Life { setup: &options.setup, pair, name: scenario.name().into(), seed: 1 };
                        let mut say = |line: String| drop(news.send(News::Line(line)));
                        let played = life.play(scenario.settings(), &mut say, |_| steps.next());
                        let again = played.as_ref().is_ok_and(Played::failed_without_locum);
                        let _ = news.send(News::Played(place, played));
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
                News::Line(line) => tell(&line),
                News::Played(place, played) => all.push((place, played?)),
            }
        }
        all.sort_by_key(|&(place, _)| place);
        Ok(all.into_iter().map(|(_, played)| played).collect())
    })
}

/// Plays so many steps that a seed chooses. `tell` is given a line for each. Where it `hurries`, half of those that
/// belong together are not waited for: a node dies while a group moves, say. Real heartbeats do not survive that.
///
/// # Errors
/// As [`scenarios`].
pub fn random(
    setup: &Setup,
    pair: Pair,
    steps: usize,
    seed: u64,
    hurries: bool,
    tell: &mut dyn FnMut(&str),
) -> Result<Played, Fault> {
    let mut chooser = Chooser::new(seed, hurries);
    let mut left = steps;
    let life = Life { setup, pair, name: format!("seed-{seed}"), seed };
    let settings = chooser.settings();
    tell(&format!("{pair}, {}: {settings}", life.name));
    life.play(settings, &mut |line| tell(&line), |cluster| {
        left = left.checked_sub(1)?;
        Some(chooser.choose(cluster.lives))
    })
}

enum News {
    Line(String),
    Played(usize, Result<Played, Fault>),
}

/// One life of a cluster.
struct Life<'a> {
    setup: &'a Setup,
    pair: Pair,
    name: String,
    seed: u64,
}

impl Life<'_> {
    /// Takes steps until there are none, or until an audit fails: what follows a failure shows nothing.
    fn play(
        self,
        settings: Settings,
        tell: &mut dyn FnMut(String),
        mut next: impl FnMut(&Cluster) -> Option<Planned>,
    ) -> Result<Played, Fault> {
        let Self { setup, pair, name, seed } = self;
        let mut cluster = Cluster::build(setup, pair, settings, seed)?;
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
