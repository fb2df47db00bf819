//! Many groups: how long until all of them run, what the daemons cost while nothing happens and beside readers of the control
//! socket, and how long until all run again after their owner lost its power (`docs/bench.md`, "Many groups").
//!
//! Each group is one address. Who has it is read from the nodes' kernels; that it runs behind an open gate, from the daemons'
//! status, of which [`Setup::read`] makes what is needed here.

mod cluster;
mod socket;

use std::{path::PathBuf, time::Duration};

use crate::{
    clock::{Moment, await_some, pause},
    fault::Fault,
    gate::Kind,
    process::Program,
};

use cluster::{Cluster, Used};
use socket::Watchers;

/// How often the kernels' addresses are counted.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After a takeover its announcements go on for so long (`native::node::announcing`): nothing is measured before.
const ANNOUNCEMENTS: Duration = Duration::from_secs(11);
/// So often the status is asked for beside the watchers.
const QUESTIONS: usize = 10;
/// For a planned move of one group.
const MOVE_LIMIT: Duration = Duration::from_secs(90);
/// Watchers are gone, and the daemon has had time to notice.
const GONE: Duration = Duration::from_secs(3);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program under test, which is also the nodes' holder.
    pub program: PathBuf,
    /// How many nodes, beside the witness.
    pub nodes: usize,
    /// How many groups.
    pub groups: usize,
    /// Whether the groups prefer the nodes in turn; else all go to the first one.
    pub spread: bool,
    /// Of the cluster.
    pub pace: Duration,
    /// By which backend the gates are made; `None`: by the best one that works.
    pub gates: Option<Kind>,
    /// How many readers watch the owner's status.
    pub watchers: usize,
    /// For how long what the daemons cost is measured, each time.
    pub time: Duration,
    /// How long is waited for all groups to run.
    pub limit: Duration,
    /// What an answer of the control socket says.
    pub read: fn(&[u8]) -> Option<View>,
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Groups that run here behind an open gate.
    pub open: usize,
    /// The latest that the heart ever was.
    pub latest: Duration,
    /// Times that the heart left the processor to others in the middle of its work.
    pub breaths: u64,
    /// Frames that its sockets had no room for.
    pub dropped: u64,
}

/// What one daemon costs.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The node.
    pub node: String,
    /// Groups whose address it has.
    pub addresses: usize,
    /// The heart's share of one processor, 1 being all of it.
    pub heart: f64,
    /// That of the whole daemon.
    pub processor: f64,
    /// Resident memory in bytes.
    pub resident: u64,
    /// What it says of itself; absent when it does not answer.
    pub view: Option<View>,
}

/// Beside the watchers.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Of the watched node.
    pub cost: Cost,
    /// What all watchers have read.
    pub bytes: u64,
    /// So many states each watcher has been told; of the one that was told fewest.
    pub states: u64,
    /// How long each question took; `None`: it was not answered.
    pub answers: Vec<Option<Duration>>,
    /// How long it took to move one group; `None`: it was not moved.
    pub moved: Option<Duration>,
    /// Resident memory in bytes when all watchers have gone.
    pub resident_after: u64,
}

/// After the loss of power of the node with most groups.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// It had so many.
    pub lost: usize,
    /// From the moment before the loss until others had all of its addresses; `None`: not within the limit.
    pub addresses: Option<Duration>,
    /// And until all of them ran behind open gates.
    pub open: Option<Duration>,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the start of the daemons until every address was on a node; `None`: not within the limit.
    pub addresses: Option<Duration>,
    /// And until all groups ran behind open gates.
    pub open: Option<Duration>,
    /// Groups whose address was on a node at the end of that.
    pub up: usize,
    /// What the nodes cost while nothing happened; empty when not all came up.
    pub rest: Vec<Cost>,
    /// Beside the watchers, if there were any.
    pub watched: Option<Watched>,
    /// The takeover.
    pub taken: Option<Taken>,
    /// What the nodes were like at the end.
    pub end: Vec<Cost>,
    /// Daemons that ended by themselves.
    pub died: Vec<String>,
}

impl Report {
    /// Whether all groups came up, ran again after the loss of power, and no daemon died.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.open.is_some() && self.taken.is_some_and(|taken| taken.open.is_some()) && self.died.is_empty()
    }
}

/// Measures it.
///
/// # Errors
/// [`Fault::Missing`] where no rack can be built; else what the kernel says.
pub fn measure(setup: &Setup, tell: &mut dyn FnMut(&str)) -> Result<Report, Fault> {
    let mut cluster = Cluster::built(setup)?;
    let from = Moment::now();
    cluster.start()?;
    let all = (0..setup.nodes).collect::<Vec<_>>();
    let (addresses, open) = cluster.await_all(&all, from, setup.limit)?;
    let mut report = Report {
        addresses,
        open,
        up: cluster.count(&all)?,
        rest: Vec::new(),
        watched: None,
        taken: None,
        end: Vec::new(),
        died: cluster.died(),
    };
    tell(&format!("{} of {} groups are up{}", report.up, setup.groups, after(open)));
    if open.is_none() {
        report.end = cluster.costs(&all, &cluster.used(&all))?;
        return Ok(report);
    }
    pause(ANNOUNCEMENTS);
    let before = cluster.used(&all);
    pause(setup.time);
    report.rest = cluster.costs(&all, &before)?;
    tell("the nodes were at rest");
    let owner = cluster.fullest(&all)?;
    if setup.watchers > 0 {
        report.watched = Some(watched(&cluster, owner, setup)?);
        tell("they were watched");
    }
    let lost = cluster.count(&[owner])?;
    let from = cluster.lose_power(owner)?;
    let left: Vec<usize> = all.into_iter().filter(|node| *node != owner).collect();
    let (addresses, open) = cluster.await_all(&left, from, setup.limit)?;
    report.taken = Some(Taken { lost, addresses, open });
    match open {
        Some(_) => tell(&format!("{lost} groups were taken over{}", after(open))),
        None => tell(&format!("not all of {lost} groups were taken over")),
    }
    report.end = cluster.costs(&left, &cluster.used(&left))?;
    report.died = cluster.died();
    Ok(report)
}

fn after(took: Option<Duration>) -> String {
    took.map(|took| format!(", after {:.1} s", took.as_secs_f64())).unwrap_or_default()
}

fn watched(cluster: &Cluster, owner: usize, setup: &Setup) -> Result<Watched, Fault> {
    let watchers = Watchers::start(&cluster.socket(owner), setup.watchers)?;
    let before = cluster.used(&[owner]);
    pause(setup.time);
    let cost = cluster.costs(&[owner], &before)?.remove(0);
    let answers = (0..QUESTIONS).map(|_| cluster.ask(owner).map(|(_, took)| took)).collect();
    let from = Moment::now();
    let group = cluster.group_of(owner)?;
    let words = ["locum", "move", &group];
    let outcome = cluster.rack.run(cluster.name(owner), &Program::new(&words), MOVE_LIMIT)?;
    let moved = (outcome.code == Some(0)).then(|| Moment::now().since(from));
    let (bytes, states) = watchers.end();
    pause(GONE);
    let resident_after = cluster.resident(owner);
    Ok(Watched { cost, bytes, states, answers, moved, resident_after })
}

impl Cluster {
    /// Waits until these nodes have all addresses, and then until all groups run there behind open gates; each since `from`.
    fn await_all(
        &mut self,
        nodes: &[usize],
        from: Moment,
        limit: Duration,
    ) -> Result<(Option<Duration>, Option<Duration>), Fault> {
        let end = from + limit;
        let mut fault = None;
        let addresses = await_some(end.remaining(), || {
            let looked = Moment::now();
            match self.count(nodes) {
                Ok(up) if up >= self.groups => return Some(looked.since(from)),
                Ok(_) => {}
                Err(error) => {
                    fault = Some(error);
                    return Some(Duration::ZERO);
                }
            }
            pause(LOOK_EVERY);
            None
        });
        if let Some(fault) = fault {
            return Err(fault);
        }
        if addresses.is_none() {
            return Ok((None, None));
        }
        let open = await_some(end.remaining(), || {
            let views = nodes.iter().filter_map(|node| self.ask(*node)).map(|(view, _)| view.open);
            let open = views.sum::<usize>() >= self.groups;
            if !open {
                pause(LOOK_EVERY * 2);
            }
            open.then(|| Moment::now().since(from))
        });
        Ok((addresses, open))
    }

    /// What these nodes have cost since then.
    fn costs(&self, nodes: &[usize], before: &[Used]) -> Result<Vec<Cost>, Fault> {
        let after = self.used(nodes);
        let costs = nodes.iter().zip(before.iter().zip(&after)).map(|(&node, (before, after))| {
            let time = after.at.since(before.at).as_secs_f64().max(f64::MIN_POSITIVE);
            let share = |of: fn(&Used) -> Duration| of(after).saturating_sub(of(before)).as_secs_f64() / time;
            Ok(Cost {
                node: self.name(node).to_owned(),
                addresses: self.count(&[node])?,
                heart: share(|used| used.heart),
                processor: share(|used| used.all),
                resident: self.resident(node),
                view: self.ask(node).map(|(view, _)| view),
            })
        });
        costs.collect()
    }
}
