//! Many groups: the time until all of them run, the cost of the daemons at rest and beside readers of the control
//! socket, and the time until all run again after their owner lost its power (`docs/bench.md`, "Many groups").
//!
//! Each group is one address. The nodes' kernels show which node has it. The daemons' status shows that the group runs
//! behind an open gate; [`ScaleSetup::read`] extracts the necessary part of it.

mod cluster;
mod socket;

use std::{path::PathBuf, time::Duration};

use crate::{
    clock::{Moment, await_some, pause},
    fault::Fault,
    gate::GateBackend,
    process::Program,
};

use cluster::{ScaleCluster, Used};
use socket::Watchers;

/// How often the kernels' addresses are counted.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long announcements go on after a takeover (`native::node::announcing`); nothing is measured during that time.
const ANNOUNCEMENTS: Duration = Duration::from_secs(11);
/// How often the status is asked for beside the watchers.
const QUESTIONS: usize = 10;
/// The limit for a planned move of one group.
const MOVE_LIMIT: Duration = Duration::from_secs(90);
/// Time for the daemon to notice that the watchers have gone.
const GONE: Duration = Duration::from_secs(3);

/// The cluster that is measured, and the times of the measurement.
#[derive(Clone, Debug)]
pub struct ScaleSetup {
    /// The program under test, which is also the nodes' holder.
    pub program: PathBuf,
    /// Number of nodes, without the witness.
    pub nodes: usize,
    /// Number of groups in the cluster.
    pub groups: usize,
    /// Whether the groups prefer the nodes in turn; else all prefer the first one.
    pub spread: bool,
    /// The cluster's `pace` of `locum.toml`.
    pub pace: Duration,
    /// The backend of the gates; `None` for the best one that works.
    pub gates: Option<GateBackend>,
    /// Number of readers that watch the owner's status.
    pub watchers: usize,
    /// How long the daemons' cost is measured, each time.
    pub time: Duration,
    /// How long to wait at most for all groups to run.
    pub limit: Duration,
    /// Reads an answer of the control socket.
    pub read: fn(&[u8]) -> Option<NodeStatus>,
}

/// The part of a node's status report that is used here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Groups that run here behind an open gate.
    pub open: usize,
    /// The greatest delay of the heart so far.
    pub latest: Duration,
    /// How often the heart yielded the processor in the middle of its work.
    pub yields: u64,
    /// Frames dropped because its sockets had no room.
    pub dropped: u64,
}

/// CPU time and memory of one daemon.
#[derive(Clone, Debug)]
pub struct NodeCost {
    pub node: String,
    /// Number of groups whose address the node has.
    pub addresses: usize,
    /// The heart's share of one processor, where 1 is all of it.
    pub heart: f64,
    /// The whole daemon's share of one processor.
    pub processor: f64,
    /// Resident memory in bytes.
    pub resident: u64,
    /// The node's status report; `None` if it does not answer.
    pub view: Option<NodeStatus>,
}

/// The measurements beside the watchers.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The cost of the watched node.
    pub cost: NodeCost,
    /// Bytes that all watchers have read.
    pub bytes: u64,
    /// Number of states that the slowest watcher has received.
    pub states: u64,
    /// How long each question took; `None` if it was not answered.
    pub answers: Vec<Option<Duration>>,
    /// How long it took to move one group; `None` if it was not moved.
    pub moved: Option<Duration>,
    /// Resident memory in bytes when all watchers have gone.
    pub resident_after: u64,
}

/// The takeover after the loss of power of the node with the most groups.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Number of groups that the lost node had.
    pub lost: usize,
    /// Time from the loss until other nodes had all of its addresses; `None` if not within the limit.
    pub addresses: Option<Duration>,
    /// Time from the loss until all groups ran behind open gates; `None` if not within the limit.
    pub open: Option<Duration>,
}

/// The measurements of one cluster.
#[derive(Clone, Debug)]
pub struct ScaleReport {
    /// Time from the start of the daemons until every address was on a node; `None` if not within the limit.
    pub addresses: Option<Duration>,
    /// Time from the start until all groups ran behind open gates; `None` if not within the limit.
    pub open: Option<Duration>,
    /// Number of groups whose address was on a node at the end of that wait.
    pub up: usize,
    /// The cost of the nodes at rest; empty if not all groups came up.
    pub rest: Vec<NodeCost>,
    /// The measurements beside the watchers, if there were any.
    pub watched: Option<Watched>,
    pub taken: Option<Taken>,
    /// The cost of the nodes at the end.
    pub end: Vec<NodeCost>,
    /// Daemons that ended by themselves.
    pub died: Vec<String>,
}

impl ScaleReport {
    /// Whether all groups came up, ran again after the loss of power, and no daemon died.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.open.is_some() && self.taken.is_some_and(|taken| taken.open.is_some()) && self.died.is_empty()
    }
}

/// Starts the cluster and measures it; `tell` is given a line for each part.
///
/// # Errors
/// [`Fault::Missing`] where no rack can be built; else the kernel's error.
pub fn measure(setup: &ScaleSetup, tell: &mut dyn FnMut(&str)) -> Result<ScaleReport, Fault> {
    let mut cluster = ScaleCluster::built(setup)?;
    let from = Moment::now();
    cluster.start()?;
    let all = (0..setup.nodes).collect::<Vec<_>>();
    let (addresses, open) = cluster.await_all(&all, from, setup.limit)?;
    let mut report = ScaleReport {
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

fn watched(cluster: &ScaleCluster, owner: usize, setup: &ScaleSetup) -> Result<Watched, Fault> {
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

impl ScaleCluster {
    /// Waits until these nodes have all addresses, then until all groups run there behind open gates. Both times count
    /// from `from`.
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

    /// The cost of these nodes since `before`.
    fn costs(&self, nodes: &[usize], before: &[Used]) -> Result<Vec<NodeCost>, Fault> {
        let after = self.used(nodes);
        let costs = nodes.iter().zip(before.iter().zip(&after)).map(|(&node, (before, after))| {
            let time = after.at.since(before.at).as_secs_f64().max(f64::MIN_POSITIVE);
            let share = |of: fn(&Used) -> Duration| of(after).saturating_sub(of(before)).as_secs_f64() / time;
            Ok(NodeCost {
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
