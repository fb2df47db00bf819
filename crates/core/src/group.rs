//! Groups: resources that move together, started left to right and stopped right to left, one operation at a time.
//!
//! A group is told what is wanted of it ([`Groups::want`]) and gets there by itself:
//!
//! ```text
//!            want run              all members started
//! Stopped ────────────► Starting ──────────────────────► Running
//!    ▲                   │    ▲                             │
//!    │ all stopped       │    └── want run ──┐              │ want stop
//!    │                   │ a start failed    │              │
//!    └─────────────── Stopping ◄─────────────┴──────────────┘
//!                        │
//!                        └── a stop failed [`STOP_TRIES`] times and it still runs ──► Stuck
//! ```
//!
//! Before a start the agent is asked for the status: what runs already is not started again (behaviour reference,
//! section 4). Different groups move at the same time.
//!
//! Nothing here knows a dialect: what a group is stands in its [`Spec`], and who may run it is decided above.

use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
    string::String,
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, Operation},
    breakage::{self, Breakage},
    event::{Outcome, Ticket},
    note::{Level, Note},
    plan::{GroupIndex, ResourceId},
    time::{Duration, Instant},
};

mod sets;
mod spec;

pub use sets::Sets;
pub use spec::{Limits, Member, Spec};

/// A failed stop is tried again this often, as heartbeat's HA_STOPRETRYMAX.
pub const STOP_TRIES: u32 = 10;
/// Between two tries.
pub const STOP_PAUSE: Duration = Duration::from_secs(1);
/// Between two tries to put back an address that somebody took away.
pub const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// Where a group is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing of it runs here.
    Stopped,
    /// Its members are being started; this one now.
    Starting(usize),
    /// All of it runs here.
    Running,
    /// Its members are being stopped; this one now.
    Stopping(usize),
    /// This member cannot be stopped; a person is needed.
    Stuck(usize),
}

/// What the layer above must know of a group that came to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All of it runs.
    Started(GroupIndex),
    /// A start failed; everything of it was stopped again.
    StartFailed(GroupIndex),
    /// Nothing of it runs any more.
    Stopped(GroupIndex),
    /// It cannot be stopped.
    Stuck(GroupIndex),
}

#[derive(Debug)]
struct State {
    wanted: bool,
    phase: Phase,
    /// Failed tries of the current member's stop.
    tries: u32,
    /// The member that could not be stopped, while the group is started again from the left: it still runs.
    unstopped: Option<usize>,
    /// Wait until then before the next try.
    pause: Option<Instant>,
    /// The group is being stopped, or was stopped, because this member did not start.
    failure: Option<String>,
    /// Failed starts in a row.
    failures: u32,
    /// Times that somebody took an address of it away.
    taken_away: u64,
    /// Why an address cannot be put back, as last said: it is tried every second, and the interface may be gone for days.
    repair_failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The next step of the group's way.
    Step,
    /// Put back an address that somebody took away.
    Repair,
    /// Look at an address that an earlier life put there.
    Look,
}

/// All groups of this node's plan, and the operations that are under way.
#[derive(Debug)]
pub struct Groups {
    specs: Vec<Spec>,
    states: Vec<State>,
    running: BTreeMap<Ticket, (ResourceId, Operation, Purpose)>,
    repairs: Vec<(ResourceId, Instant)>,
    last_ticket: u64,
    news: VecDeque<News>,
}

impl Groups {
    /// All stopped, but for these members, which an earlier life left running and which could not be stopped.
    #[must_use]
    pub fn new(specs: Vec<Spec>, stuck: &[ResourceId]) -> Self {
        let stopped = |_: &_| State {
            wanted: false,
            phase: Phase::Stopped,
            tries: 0,
            unstopped: None,
            pause: None,
            failure: None,
            failures: 0,
            taken_away: 0,
            repair_failure: None,
        };
        let mut states: Vec<State> = specs.iter().map(stopped).collect();
        // The last of them is the first to be stopped, should that be tried again.
        for id in stuck {
            if let Some(state) = states.get_mut(id.group.0) {
                state.phase = Phase::Stuck(id.member);
            }
        }
        Self {
            specs,
            states,
            running: BTreeMap::new(),
            repairs: Vec::new(),
            last_ticket: 0,
            news: VecDeque::new(),
        }
    }

    /// Where a group is.
    #[must_use]
    pub fn phase(&self, group: GroupIndex) -> Phase {
        self.states[group.0].phase
    }

    /// A group's key.
    #[must_use]
    pub fn key(&self, group: GroupIndex) -> &str {
        &self.specs[group.0].key
    }

    /// The group of that key.
    #[must_use]
    pub fn named(&self, key: &str) -> Option<GroupIndex> {
        self.specs.iter().position(|spec| spec.key == key).map(GroupIndex)
    }

    /// Whether all of a group runs here.
    #[must_use]
    pub fn is_acquired(&self, group: GroupIndex) -> bool {
        self.states[group.0].phase == Phase::Running
    }

    /// Whether nothing of a group runs here.
    #[must_use]
    pub fn is_released(&self, group: GroupIndex) -> bool {
        self.states[group.0].phase == Phase::Stopped
    }

    /// Why its last start failed, until it is wanted again.
    #[must_use]
    pub fn failure(&self, group: GroupIndex) -> Option<&str> {
        self.states[group.0].failure.as_deref()
    }

    /// How many of its starts failed in a row.
    #[must_use]
    pub fn failures(&self, group: GroupIndex) -> u32 {
        self.states[group.0].failures
    }

    /// How often somebody took an address of it away.
    #[must_use]
    pub fn taken_away(&self, group: GroupIndex) -> u64 {
        self.states[group.0].taken_away
    }

    /// Whether a group has come to rest after it was wanted: it runs, or its start failed.
    #[must_use]
    pub fn has_settled(&self, group: GroupIndex) -> bool {
        match self.states[group.0].phase {
            Phase::Running => true,
            Phase::Stopped | Phase::Stuck(_) => !self.states[group.0].wanted,
            Phase::Starting(_) | Phase::Stopping(_) => false,
        }
    }

    /// Whether something of a group cannot be stopped.
    #[must_use]
    pub fn is_stuck(&self, group: GroupIndex) -> bool {
        matches!(self.states[group.0].phase, Phase::Stuck(_))
    }

    /// Whether a group is at rest, wherever.
    #[must_use]
    pub fn rests(&self, group: GroupIndex) -> bool {
        !matches!(self.states[group.0].phase, Phase::Starting(_) | Phase::Stopping(_))
    }

    /// The addresses of a group, if it runs here.
    pub fn addresses(&self, group: GroupIndex) -> impl Iterator<Item = ResourceId> + use<'_> {
        let members = self.specs[group.0].members.iter().enumerate();
        members
            .filter(move |(_, member)| member.is_address && self.is_acquired(group))
            .map(move |(member, _)| ResourceId { group, member })
    }

    /// Says what is wanted of a group: that it runs here (`true`) or that nothing of it does.
    pub fn want(&mut self, group: GroupIndex, run: bool, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        state.wanted = run;
        if run {
            state.failure = None;
        }
        match (state.phase, run) {
            (Phase::Stopped | Phase::Stuck(_), true) => {
                if let Phase::Stuck(member) = state.phase {
                    state.unstopped = Some(member);
                }
                self.say_line(group, "Acquiring", out);
                self.start(group, 0, out);
            }
            (Phase::Running, false) => {
                self.say_line(group, "Releasing", out);
                self.stop(group, self.members(group) - 1, out);
            }
            (Phase::Stuck(member), false) => self.stop(group, member, out),
            (Phase::Stopped | Phase::Starting(_) | Phase::Running | Phase::Stopping(_), _) => {}
        }
    }

    /// A group runs, from an earlier life of this daemon. Nothing is started; only the addresses are looked at, so that
    /// whoever carries them knows that they are ours.
    pub fn keep(&mut self, group: GroupIndex, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        state.wanted = true;
        state.phase = Phase::Running;
        self.look(ResourceId { group, member: 0 }, out);
    }

    /// An operation has ended. Answers of operations that were never asked for are ignored.
    pub fn done(&mut self, now: Instant, ticket: Ticket, outcome: &Outcome, out: &mut VecDeque<Action>) {
        let Some((resource, operation, purpose)) = self.running.remove(&ticket) else { return };
        match purpose {
            Purpose::Step => {}
            Purpose::Repair => return self.repaired(now, resource, outcome, out),
            Purpose::Look => return self.looked(resource, outcome, out),
        }
        match self.states[resource.group.0].phase {
            Phase::Starting(_) => self.start_goes_on(resource, operation, outcome, out),
            Phase::Stopping(_) => self.stop_goes_on(now, resource, operation, outcome, out),
            // A group at rest has nothing under way.
            Phase::Stopped | Phase::Running | Phase::Stuck(_) => {}
        }
    }

    /// Somebody took an address from its interface. It is put back if it is ours.
    pub fn address_gone(&mut self, resource: ResourceId, out: &mut VecDeque<Action>) {
        let known = self.specs.get(resource.group.0).is_some_and(|spec| resource.member < spec.members.len());
        if !known || !self.carries(resource) {
            return;
        }
        let state = &mut self.states[resource.group.0];
        state.taken_away += 1;
        let times = state.taken_away;
        if is_worth_a_line(times) {
            let name = &self.member(resource).text;
            let text = format!(
                "{name} was taken from its interface by somebody else ({times} times so far); putting it back"
            );
            self.note(resource.group, Level::Warning, text, out);
        }
        self.repairs.retain(|(waiting, _)| *waiting != resource);
        self.repair(resource, out);
    }

    /// Time has come: pauses that are over end.
    pub fn tick(&mut self, now: Instant, out: &mut VecDeque<Action>) {
        for index in 0..self.states.len() {
            let state = &mut self.states[index];
            if state.pause.is_some_and(|until| now >= until) {
                state.pause = None;
                if let Phase::Stopping(member) = state.phase {
                    let resource = ResourceId { group: GroupIndex(index), member };
                    self.run(resource, Operation::Stop, Purpose::Step, out);
                }
            }
        }
        let due: Vec<ResourceId> =
            self.repairs.extract_if(.., |(_, at)| now >= *at).map(|(r, _)| r).collect();
        for resource in due {
            if self.carries(resource) {
                self.repair(resource, out);
            }
        }
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let pauses = self.states.iter().filter_map(|state| state.pause);
        pauses.chain(self.repairs.iter().map(|(_, at)| *at)).min()
    }

    /// What came to rest, oldest first.
    pub fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// A ticket that was never used.
    pub(crate) fn new_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn members(&self, group: GroupIndex) -> usize {
        self.specs[group.0].members.len()
    }

    fn member(&self, resource: ResourceId) -> &Member {
        &self.specs[resource.group.0].members[resource.member]
    }

    fn run(
        &mut self,
        resource: ResourceId,
        operation: Operation,
        purpose: Purpose,
        out: &mut VecDeque<Action>,
    ) {
        let ticket = self.new_ticket();
        self.running.insert(ticket, (resource, operation, purpose));
        let Member { limits, command, .. } = self.member(resource);
        let limit = match operation {
            Operation::Start => limits.start,
            Operation::Stop => limits.stop,
            Operation::Status => limits.status,
        };
        let verb = match operation {
            Operation::Start => "start",
            Operation::Stop => "stop",
            Operation::Status => "",
        };
        // A repair may be tried for ever.
        if !verb.is_empty() && purpose == Purpose::Step {
            self.note(resource.group, Level::Info, format!("Running {command} {verb}"), out);
        }
        out.push_back(Action::Run { ticket, resource, operation, limit });
    }

    /// As the original's scripts say it.
    fn say_line(&self, group: GroupIndex, what: &str, out: &mut VecDeque<Action>) {
        let text = format!("{what} resource group: {}", self.specs[group.0].line);
        self.note(group, Level::Info, text, out);
    }

    fn note(&self, group: GroupIndex, level: Level, text: String, out: &mut VecDeque<Action>) {
        out.push_back(Action::Note(Note { level, group: Some(self.specs[group.0].key.clone()), text }));
    }

    /// Which member is the `step`th to be started, counted from 0.
    fn in_start_order(&self, group: GroupIndex, step: usize) -> usize {
        if breakage::is(Breakage::StartOrderReversed) { self.members(group) - 1 - step } else { step }
    }

    fn in_stop_order(&self, group: GroupIndex, step: usize) -> usize {
        if breakage::is(Breakage::StopOrderReversed) { self.members(group) - 1 - step } else { step }
    }

    fn start(&mut self, group: GroupIndex, step: usize, out: &mut VecDeque<Action>) {
        self.states[group.0].phase = Phase::Starting(step);
        let member = self.in_start_order(group, step);
        self.run(ResourceId { group, member }, Operation::Status, Purpose::Step, out);
    }

    fn stop(&mut self, group: GroupIndex, step: usize, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        let step = state.unstopped.take().map_or(step, |member| step.max(member));
        state.phase = Phase::Stopping(step);
        state.tries = 0;
        state.pause = None;
        // A repair that ended after the stop would leave the address here.
        if !self.is_repairing(group) {
            let member = self.in_stop_order(group, step);
            self.run(ResourceId { group, member }, Operation::Stop, Purpose::Step, out);
        }
    }

    /// Whether this member was started and is not being stopped.
    fn carries(&self, resource: ResourceId) -> bool {
        match self.states[resource.group.0].phase {
            Phase::Running => true,
            Phase::Starting(step) => {
                (0..step).any(|earlier| self.in_start_order(resource.group, earlier) == resource.member)
            }
            Phase::Stopped | Phase::Stopping(_) | Phase::Stuck(_) => false,
        }
    }

    /// Whether an address of the group is being put back or looked at.
    fn is_repairing(&self, group: GroupIndex) -> bool {
        let mut running = self.running.values();
        running.any(|(resource, _, purpose)| resource.group == group && *purpose != Purpose::Step)
    }

    /// Puts an address back, unless that is being done.
    fn repair(&mut self, resource: ResourceId, out: &mut VecDeque<Action>) {
        let repair = (resource, Operation::Start, Purpose::Repair);
        if !self.running.values().any(|running| *running == repair) {
            self.run(resource, Operation::Start, Purpose::Repair, out);
        }
    }

    /// Looks at this member, or at the next one that is an address.
    fn look(&mut self, from: ResourceId, out: &mut VecDeque<Action>) {
        let members = self.specs[from.group.0].members.iter().skip(from.member);
        if let Some(further) = members.map(|member| member.is_carried).position(|carried| carried) {
            let member = from.member + further;
            self.run(ResourceId { member, ..from }, Operation::Status, Purpose::Look, out);
        }
    }

    fn looked(&mut self, resource: ResourceId, outcome: &Outcome, out: &mut VecDeque<Action>) {
        match self.states[resource.group.0].phase {
            Phase::Stopping(step) if !self.is_repairing(resource.group) => {
                return self.stop(resource.group, step, out);
            }
            _ if !self.carries(resource) => return,
            _ => {}
        }
        if *outcome != Outcome::Running {
            self.repair(resource, out);
        }
        self.look(ResourceId { member: resource.member + 1, ..resource }, out);
    }

    fn start_goes_on(
        &mut self,
        resource: ResourceId,
        operation: Operation,
        outcome: &Outcome,
        out: &mut VecDeque<Action>,
    ) {
        let group = resource.group;
        let Phase::Starting(step) = self.states[group.0].phase else { return };
        if !self.states[group.0].wanted {
            // Not wanted any more: what was begun is stopped, this member included.
            return self.stop(group, step, out);
        }
        match (operation, outcome) {
            (Operation::Status, Outcome::Running) | (Operation::Start, Outcome::Ok) => {
                if step + 1 < self.members(group) {
                    return self.start(group, step + 1, out);
                }
                self.states[group.0].phase = Phase::Running;
                self.states[group.0].unstopped = None;
                self.states[group.0].failures = 0;
                self.news.push_back(News::Started(group));
            }
            (Operation::Status, _) => self.run(resource, Operation::Start, Purpose::Step, out),
            (_, failed) => {
                let name = &self.member(resource).text;
                let text = format!("Giving up resources due to failure of {name}: {failed}");
                self.note(group, Level::Critical, text, out);
                self.states[group.0].failure = Some(format!("{name}: {failed}"));
                self.states[group.0].failures += 1;
                self.states[group.0].wanted = false;
                if breakage::is(Breakage::NoStopAfterFailedStart) {
                    self.states[group.0].phase = Phase::Stopped;
                    return self.news.push_back(News::StartFailed(group));
                }
                self.stop(group, step, out);
            }
        }
    }

    fn stop_goes_on(
        &mut self,
        now: Instant,
        resource: ResourceId,
        operation: Operation,
        outcome: &Outcome,
        out: &mut VecDeque<Action>,
    ) {
        let group = resource.group;
        let Phase::Stopping(step) = self.states[group.0].phase else { return };
        let name = self.member(resource).text.clone();
        match (operation, outcome) {
            (Operation::Stop, Outcome::Ok) => self.member_stopped(group, step, out),
            (Operation::Stop, failed) => {
                self.states[group.0].tries += 1;
                let tries = self.states[group.0].tries;
                let text = format!("stop of {name} failed ({tries} of {STOP_TRIES}): {failed}");
                self.note(group, Level::Error, text, out);
                if tries < STOP_TRIES {
                    self.states[group.0].pause = Some(now + STOP_PAUSE);
                } else {
                    self.run(resource, Operation::Status, Purpose::Step, out);
                }
            }
            (_, Outcome::Stopped) => {
                let text = format!("{name} says that it does not run, but its stop fails; going on");
                self.note(group, Level::Error, text, out);
                self.member_stopped(group, step, out);
            }
            _ if self.states[group.0].wanted => self.start(group, step, out),
            (_, status) => {
                let text = format!("{name} cannot be stopped ({status}): a person is needed");
                self.note(group, Level::Critical, text, out);
                self.states[group.0].phase = Phase::Stuck(step);
                self.news.push_back(News::Stuck(group));
            }
        }
    }

    fn member_stopped(&mut self, group: GroupIndex, step: usize, out: &mut VecDeque<Action>) {
        if self.states[group.0].wanted {
            return self.start(group, step, out);
        }
        if step > 0 {
            return self.stop(group, step - 1, out);
        }
        let state = &mut self.states[group.0];
        state.phase = Phase::Stopped;
        let failed = state.failure.is_some();
        self.news.push_back(if failed { News::StartFailed(group) } else { News::Stopped(group) });
    }

    fn repaired(
        &mut self,
        now: Instant,
        resource: ResourceId,
        outcome: &Outcome,
        out: &mut VecDeque<Action>,
    ) {
        let group = resource.group;
        match self.states[group.0].phase {
            Phase::Stopping(step) if !self.is_repairing(group) => return self.stop(group, step, out),
            _ if !self.carries(resource) => return,
            _ => {}
        }
        let name = self.member(resource).text.clone();
        let state = &mut self.states[group.0];
        if *outcome == Outcome::Ok {
            let failed = state.repair_failure.take().is_some();
            if failed || is_worth_a_line(state.taken_away) {
                self.note(group, Level::Info, format!("{name} is back on its interface"), out);
            }
            return;
        }
        let text = format!("{name} cannot be put back: {outcome}; trying again every second");
        if state.repair_failure.as_ref() != Some(&text) {
            state.repair_failure = Some(text.clone());
            self.note(group, Level::Error, text, out);
        }
        self.repairs.push((resource, now + REPAIR_PAUSE));
    }
}

/// Two programs that each want their way with an address can go on for ever, many times a second.
fn is_worth_a_line(count: u64) -> bool {
    count <= 10 || count.is_multiple_of(100)
}
