//! Faults of a native cluster, on real processes: two nodes, a witness and a client (`docs/native-faults.md`).
//!
//! Each scenario is played in a rack of its own. Probes measure how long the client had no answer, how long two nodes
//! had an open gate, and how long two nodes answered. The last two must be zero. [`control()`] makes two nodes answer
//! on purpose, which the instruments must see.

mod control;
pub(crate) mod scenario;

use std::time::Duration;

pub use control::{CONTROL, control};
use locum_sys::gate;
pub use scenario::{ExpectedOutcome, NativeScenario};

use crate::{
    clock::Moment,
    description::Description,
    fault::Fault,
    node::bpffs,
    pair::{
        PairSetup, Peer,
        cluster::{self, FIRST, PairCluster, SECOND, SERVICE, await_steadily},
        files,
        sample::Sample,
    },
    process::Program,
    rack::Rack,
    timeline::Span,
    watch::WatchSpec,
};

/// Number of nodes that may own the service.
pub const CANDIDATES: usize = 2;
/// Stands in a row in place of an owner.
pub const NOBODY: &str = "nobody";
/// A fault that can be undone lasts at least this long.
const LASTS: Duration = Duration::from_secs(5);
/// Such a fault also lasts at least this many times the bound within which the service must be back.
const LASTS_BOUNDS: u32 = 2;
/// How often a scenario is played if the machine spoils it.
const TRIES: u32 = 3;
/// How long a member may take to report its status.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// How long only one node must have had the service at the end.
const SETTLED: Duration = Duration::from_secs(2);

/// The result of one scenario.
#[derive(Clone, Debug)]
pub struct NativeRow {
    /// The scenario's name, or [`CONTROL`].
    pub scenario: &'static str,
    /// The backend of the gates; empty if no gate stands any more.
    pub backend: String,
    /// The expected outcome for the service; `None` in the control.
    pub outcome: Option<ExpectedOutcome>,
    /// The owners of the service before and after, or [`NOBODY`]; `None` in the control.
    pub owners: Option<[&'static str; 2]>,
    /// The time from the fault within which the service must be back; `None` if nothing is promised.
    pub bound: Option<Duration>,
    /// How long two nodes had an open gate for the service.
    pub two_open: Duration,
    /// The longest time in which a gate was not looked at.
    pub unseen: Duration,
    pub(crate) sample: Sample,
    /// The errors found; empty in a good row.
    pub wrong: Vec<String>,
    /// The last status reports of the members, if there was an error.
    pub status_reports: String,
}

impl NativeRow {
    /// The client's longest time without an echo.
    #[must_use]
    pub fn outage(&self) -> Duration {
        self.sample.outage
    }

    /// The client's longest time without a page.
    #[must_use]
    pub fn page_outage(&self) -> Duration {
        self.sample.page_outage
    }

    /// How long two nodes answered for the service.
    #[must_use]
    pub fn two_answer(&self) -> Duration {
        self.sample.two_answer
    }

    /// How long the kernels of two nodes had the address, whatever their gates.
    #[must_use]
    pub fn two_hold(&self) -> Duration {
        self.sample.two_hold
    }

    /// Whether the outages are only lower bounds: the service had not come back when the wait for it ended.
    #[must_use]
    pub fn is_unending(&self) -> bool {
        self.sample.unending
    }
}

/// The times that a cluster promises, and the tolerance of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Longest time after its owner's death until a group is claimed (`locum explain timing`).
    pub takeover: Duration,
    /// Additional time that a busy machine may take.
    pub slack: Duration,
}

impl Promise {
    /// The time within which the service must be back: it is claimed, then its resources are started.
    #[must_use]
    pub fn bound(self) -> Duration {
        self.takeover + files::START_LIMIT * files::RESOURCES
    }

    /// The bound of one scenario; `None` if nothing is promised.
    fn of(self, scenario: NativeScenario, pace: Duration) -> Option<Duration> {
        match (scenario.outcome(), scenario) {
            // The fault must have lasted for a lease; then the group is handed over.
            (_, NativeScenario::LinkClient) => Some(self.bound() + pace),
            // Its beats are granted as long as it counts itself the owner, until its lease has ended.
            (_, NativeScenario::OwnerDeaf) => Some(self.bound() + pace),
            _ => Some(self.bound()),
        }
    }
}

/// Plays one scenario. If the machine stood still for a lease, it is played again, unless something worse was seen.
///
/// # Errors
/// [`Fault::Missing`] where no rack can be built; [`Fault::Description`] if the cluster does not come up; else the
/// kernel's error.
pub fn play(
    scenario: NativeScenario,
    setup: &PairSetup,
    promise: Promise,
    tell: &mut dyn FnMut(&str),
) -> Result<NativeRow, Fault> {
    for _ in 1..TRIES {
        let row = attempt(scenario, setup, promise)?;
        let two = !row.two_open.is_zero() || !row.two_answer().is_zero();
        if two || row.unseen <= setup.pace.native() {
            return Ok(row);
        }
        tell(&format!("{}: the machine stood still for {:?}: played again", row.scenario, row.unseen));
    }
    attempt(scenario, setup, promise)
}

fn attempt(scenario: NativeScenario, setup: &PairSetup, promise: Promise) -> Result<NativeRow, Fault> {
    let description = description(setup);
    let description = if scenario.is_one_way() { description.relayed(1) } else { description };
    let mut cluster = PairCluster::built(Peer::Native, setup, description, watch_spec())?;
    if !await_one_gate(&cluster.rack, setup.calm) {
        return Err(unwell(&cluster, "does not come up"));
    }
    let Some(before) = owner(&cluster.rack) else {
        return Err(cluster.fault("has lost its owner by itself"));
    };
    let lasts = LASTS.max(promise.bound() * LASTS_BOUNDS);
    let from = scenario.happen(&mut cluster, before, lasts)?;
    let settled = await_one_gate(&cluster.rack, SETTLED);
    let after = owner(&cluster.rack).unwrap_or(NOBODY);
    let mut row = row(&cluster.rack, scenario.name(), from);
    row.outcome = Some(scenario.outcome());
    row.owners = Some([before, after]);
    row.bound = promise.of(scenario, setup.pace.native());
    row.wrong = wrong(&row, scenario, setup, promise);
    if !settled {
        row.wrong.push("it did not settle on one owner".into());
    }
    if !row.wrong.is_empty() {
        row.status_reports = unwell(&cluster, &row.wrong.join("; ")).to_string();
    }
    Ok(row)
}

/// An error about the cluster, with its members' logs and status reports.
fn unwell(cluster: &PairCluster, what: &str) -> Fault {
    let mut text = cluster.fault(what).to_string();
    for member in Peer::Native.members() {
        let status = cluster.rack.run(member, &Program::new(&["locum", "status"]), STATUS_LIMIT);
        let said = status.map_or_else(|fault| fault.to_string(), |outcome| outcome.text);
        text += &format!("\n{member} says:\n{said}");
    }
    Fault::Description(text)
}

/// All errors in a row.
fn wrong(row: &NativeRow, scenario: NativeScenario, setup: &PairSetup, promise: Promise) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut note = |is_wrong: bool, text: String| {
        if is_wrong {
            wrong.push(text);
        }
    };
    note(!row.two_open.is_zero(), format!("two gates were open for {:?}", row.two_open));
    note(!row.two_answer().is_zero(), format!("two nodes answered for {:?}", row.two_answer()));
    note(row.unseen > setup.pace.native(), format!("the gates were not looked at for {:?}", row.unseen));
    note(row.is_unending(), "the service did not come back".into());
    if let Some(bound) = row.bound {
        let late = row.outage() > bound + promise.slack;
        note(late, format!("the service was away for {:?}, and {bound:?} is the bound", row.outage()));
    }
    if let Some([before, after]) = row.owners {
        let moved = before != after;
        let should = scenario.outcome() == ExpectedOutcome::Moves;
        let text =
            if should { "the other node should have taken it" } else { "the owner should have kept it" };
        note(moved != should, text.into());
    }
    wrong
}

fn description(setup: &PairSetup) -> Description {
    cluster::description(setup, Some(Peer::Native))
}

fn watch_spec() -> WatchSpec {
    WatchSpec { gates: true, ..cluster::watch_spec() }
}

/// The measurements of a scenario from a moment until now.
fn row(rack: &Rack, scenario: &'static str, from: Moment) -> NativeRow {
    let window = Span::new(from, Moment::now());
    let sample = cluster::sample(rack, from);
    let (two_open, unseen) = rack
        .look(|record| {
            let nodes = [FIRST, SECOND].into_iter().filter(|node| rack.is_on(node));
            let unseen = nodes.map(|node| record.unseen(node, SERVICE, window)).max();
            (record.two_open(SERVICE, window), unseen.unwrap_or_default())
        })
        .unwrap_or_default();
    let backends = [FIRST, SECOND].into_iter().find_map(|node| rack.inside(node, backend).ok().flatten());
    NativeRow {
        scenario,
        backend: backends.unwrap_or_default(),
        outcome: None,
        owners: None,
        bound: None,
        two_open,
        unseen,
        sample,
        wrong: Vec::new(),
        status_reports: String::new(),
    }
}

/// Runs in a node: the backend of its gate, if it has one.
fn backend() -> Option<String> {
    let gates = gate::list(Some(bpffs().into())).ok()?;
    gates.first().map(|gate| gate.backend.to_string())
}

/// Waits until the service has answered for `calm`, with exactly one node's gate open.
fn await_one_gate(rack: &Rack, calm: Duration) -> bool {
    await_steadily(rack, calm, || owner(rack).is_some())
}

/// The only node whose gate is open.
fn owner(rack: &Rack) -> Option<&'static str> {
    rack.look(|record| match record.open_gates(SERVICE)[..] {
        [FIRST] => Some(FIRST),
        [SECOND] => Some(SECOND),
        _ => None,
    })?
}
