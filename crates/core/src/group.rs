//! Groups: resources that move together, started left to right and stopped right to left, one operation at a time.
//!
//! The layer above says what it wants of a group ([`Groups::want`]), and the group gets there by itself:
//!
//! ```text
//!            want run              all members started
//! Stopped ────────────► Starting ──────────────────────► Running
//!    ▲                   │    ▲                             │
//!    │ all stopped       │    └── want run ──┐              │ want stop
//!    │                   │ a start failed    │              │
//!    └─────────────── Stopping ◄─────────────┴──────────────┘
//!                        │
//!                        └── it cannot be stopped ──► StopFailed
//! ```
//!
//! A running member is asked for its status if its [`GroupSpec`] says so (`group::monitor`). If a member fails, it is started
//! again in place, together with all members right of it, as often as the spec allows. After one failure more, the group
//! is stopped and reported as [`GroupEvent::Failed`]: then another node's turn comes. A stop that fails is tried
//! again, or goes down a ladder (`group::stopping`).
//!
//! After each failure in a row the next attempt waits longer (`group::pause`), whatever asked for it. A resource without
//! an agent here does not run here: it fails at once, is not started again in place, and its stop is done, unless it was
//! started here before.
//!
//! Before a start the agent is asked for the status, and a member that runs already is not started again (behaviour
//! reference, section 4). Different groups move at the same time.
//!
//! This module does not know the dialects: a [`GroupSpec`] describes a group, and the layer above decides which node may run
//! it.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::String,
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::model::{
    action::{Action, Operation},
    breakage::{self, Breakage},
    claim::Epoch,
    event::{Outcome, Ticket},
    identity::{GroupIndex, ResourceId},
    note::{Level, Note},
    time::{Duration, Instant},
    timer_queue::TimerQueue,
};

mod invariants;
mod monitor;
mod pause;
mod spec;
mod stopping;

pub use pause::{CALM, LONG_START, PAUSE_MAX};
pub use spec::{FailedStop, GroupMember, GroupSpec, OperationLimits, RestartPolicy};
pub use stopping::{KILL_LIMIT, STOP_PAUSE, STOP_TRIES};

/// Between two tries to put back an address that somebody took away.
pub const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// Where a group is between stopped and running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupPhase {
    /// Nothing of it runs here.
    Stopped,
    /// Its members are being started; this one now.
    Starting(usize),
    /// All of it runs here.
    Running,
    /// Its members are being stopped; this one now.
    Stopping(usize),
    /// Stop-failed: this member cannot be stopped, and a person is needed.
    StopFailed(usize),
}

/// What the layer above must know when a group has come to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// All of it runs.
    Started(GroupIndex),
    /// A start failed, or a member failed too often; all of the group was stopped again.
    Failed(GroupIndex),
    /// A member failed and is started again in place; [`GroupEvent::Started`] or [`GroupEvent::Failed`] follows.
    Restarting(GroupIndex),
    /// Nothing of it runs any more.
    Stopped(GroupIndex),
    /// A member of it cannot be stopped.
    StopFailed(GroupIndex),
}

#[derive(Debug)]
struct GroupState {
    wanted: bool,
    phase: GroupPhase,
    /// The epoch under which it was started.
    epoch: Option<Epoch>,
    /// The epoch under which it is wanted. It differs from `epoch` only until the group was stopped and is started again.
    next_epoch: Option<Epoch>,
    /// Failed tries of the current member's stop.
    tries: u32,
    /// How far down the ladder that stop is.
    rung: Operation,
    /// The group is stopped down to this member, inclusive, even if it is wanted.
    floor: Option<usize>,
    /// The member that could not be stopped, while the group is started again from the left: it still runs.
    unstopped: Option<usize>,
    /// The stop of the current member waits until an address was put back.
    waits: bool,
    /// Wait until then before the next try.
    pause: Option<Instant>,
    /// When the operation of the current step was begun.
    step_since: Instant,
    /// When that operation is ended, because the group is not wanted any more.
    abandon: Option<Instant>,
    /// By member: a start of it was begun here, and it was not stopped since.
    begun: Vec<bool>,
    /// Failures in a row, and until when nothing is attempted after the last of them.
    attempts: pause::Attempts,
    /// The group is being stopped, or was stopped, because this member did not start or failed too often.
    failure: Option<String>,
    /// Failed starts in a row.
    failures: u32,
    /// How often somebody took one of its addresses away.
    taken_away: u64,
    /// Why an address cannot be put back, as logged last. It is tried every second, and the interface may be gone for
    /// days.
    repair_failure: Option<String>,
    /// When members were started again in place.
    restarts: Vec<Instant>,
    /// Counts how often it came to run: an answer about an earlier run does not count for this one.
    run: u64,
    /// By member, when its next monitor is due. `None` while one is under way, and for a member that is never monitored.
    monitors: Vec<Option<Instant>>,
    /// Why it cannot run here at all: it is not tried.
    barred: Option<String>,
    /// Nothing is started, stopped or put back.
    frozen: bool,
    /// What was to be done next when it was frozen.
    postponed: Option<(ResourceId, Operation)>,
    /// By member, the failure that its last monitor reported while the group was frozen.
    complaints: BTreeMap<usize, String>,
}

impl GroupState {
    fn stopped(spec: &GroupSpec) -> Self {
        Self {
            wanted: false,
            phase: GroupPhase::Stopped,
            epoch: None,
            next_epoch: None,
            tries: 0,
            rung: Operation::Stop,
            floor: None,
            unstopped: None,
            waits: false,
            pause: None,
            step_since: Instant::ZERO,
            abandon: None,
            begun: spec.members.iter().map(|_| false).collect(),
            attempts: pause::Attempts::default(),
            failure: None,
            failures: 0,
            taken_away: 0,
            repair_failure: None,
            restarts: Vec::new(),
            run: 0,
            monitors: spec.members.iter().map(|_| None).collect(),
            barred: None,
            frozen: false,
            postponed: None,
            complaints: BTreeMap::new(),
        }
    }

    /// When a pause is over, a monitor is due, or a start is to be ended.
    fn deadline(&self) -> Option<Instant> {
        let monitors = self.monitors.iter().flatten().filter(|_| self.phase == GroupPhase::Running);
        monitors.chain(&self.pause).chain(&self.abandon).min().copied()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The next step of a start or stop of the group.
    Step,
    /// Put back an address that somebody took away.
    Repair,
    /// Look at an address that may be gone.
    Look,
    /// Ask a running member whether it still runs; with the run of the group that is meant.
    Monitor(u64),
}

/// All groups of this node's plan, and the operations that are under way.
#[derive(Debug)]
pub struct Groups {
    specs: Vec<GroupSpec>,
    states: Vec<GroupState>,
    running: BTreeMap<Ticket, (ResourceId, Operation, Purpose)>,
    /// The tickets of those, by group: few, however many groups there are.
    tickets: Vec<Vec<Ticket>>,
    repairs: Vec<(ResourceId, Instant)>,
    last_ticket: u64,
    /// The newest time that was passed in.
    now: Instant,
    events: VecDeque<GroupEvent>,
    /// By group, when something of it becomes due.
    timers: TimerQueue<GroupIndex>,
    /// The groups that may have changed, for [`Groups::changed`].
    changed: BTreeSet<GroupIndex>,
}

impl Groups {
    /// All groups are stopped, except for these members: an earlier run of the daemon left them running, and they could
    /// not be stopped.
    #[must_use]
    pub fn new(specs: Vec<GroupSpec>, stop_failed: &[ResourceId]) -> Self {
        let mut states: Vec<GroupState> = specs.iter().map(GroupState::stopped).collect();
        let mut changed = BTreeSet::new();
        // The last of them is the first to be stopped, should that be tried again.
        for id in stop_failed {
            if let Some(state) = states.get_mut(id.group.0) {
                state.phase = GroupPhase::StopFailed(id.member);
                state.begun.fill(true);
                changed.insert(id.group);
            }
        }
        let tickets = states.iter().map(|_| Vec::new()).collect();
        Self {
            specs,
            states,
            running: BTreeMap::new(),
            tickets,
            repairs: Vec::new(),
            last_ticket: 0,
            now: Instant::ZERO,
            events: VecDeque::new(),
            timers: TimerQueue::new(),
            changed,
        }
    }

    /// The phase of a group.
    #[must_use]
    pub fn phase(&self, group: GroupIndex) -> GroupPhase {
        self.states[group.0].phase
    }

    /// The key of a group.
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
        self.states[group.0].phase == GroupPhase::Running
    }

    /// Whether nothing of a group runs here.
    #[must_use]
    pub fn is_released(&self, group: GroupIndex) -> bool {
        self.states[group.0].phase == GroupPhase::Stopped
    }

    /// The epoch under which it is wanted; if it is not wanted, that under which it ran last.
    #[must_use]
    pub fn epoch(&self, group: GroupIndex) -> Option<&Epoch> {
        let state = &self.states[group.0];
        if state.wanted { state.next_epoch.as_ref() } else { state.epoch.as_ref() }
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
            GroupPhase::Running => true,
            GroupPhase::Stopped | GroupPhase::StopFailed(_) => !self.states[group.0].wanted,
            GroupPhase::Starting(_) | GroupPhase::Stopping(_) => false,
        }
    }

    /// Whether something of a group cannot be stopped.
    #[must_use]
    pub fn is_stop_failed(&self, group: GroupIndex) -> bool {
        matches!(self.states[group.0].phase, GroupPhase::StopFailed(_))
    }

    /// Whether a group is at rest: neither starting nor stopping.
    #[must_use]
    pub fn rests(&self, group: GroupIndex) -> bool {
        !matches!(self.states[group.0].phase, GroupPhase::Starting(_) | GroupPhase::Stopping(_))
    }

    /// The groups that may have changed since the last call.
    pub fn changed(&mut self) -> BTreeSet<GroupIndex> {
        core::mem::take(&mut self.changed)
    }

    /// Must be called after every change of a group.
    fn touch(&mut self, group: GroupIndex) {
        self.assert_sound(group);
        self.timers.set(group, self.states[group.0].deadline());
        self.changed.insert(group);
    }

    /// The addresses of a group, if it runs here.
    pub fn addresses(&self, group: GroupIndex) -> impl Iterator<Item = ResourceId> + use<'_> {
        let members = self.specs[group.0].members.iter().enumerate();
        members
            .filter(move |(_, member)| member.is_address && self.is_acquired(group))
            .map(move |(member, _)| ResourceId { group, member })
    }

    /// Says what is wanted of a group: to run here (`true`) or to be stopped here.
    pub fn want(&mut self, group: GroupIndex, run: bool, out: &mut VecDeque<Action>) {
        if run {
            return self.want_under(group, None, out);
        }
        self.states[group.0].wanted = false;
        self.pursue(group, out);
        self.touch(group);
    }

    /// Something of a group cannot run here at all; with the reason. Members that run go on.
    pub fn bar(&mut self, group: GroupIndex, why: String) {
        let state = &mut self.states[group.0];
        state.failure = Some(why.clone());
        state.barred = Some(why);
        self.touch(group);
    }

    /// Whether it cannot run here at all.
    #[must_use]
    pub fn is_barred(&self, group: GroupIndex) -> bool {
        self.states[group.0].barred.is_some()
    }

    /// Like [`Self::want`] with `true`, under this epoch, which the agents get. A group that is wanted already keeps the
    /// epoch under which it was started. One that is being stopped is stopped completely before it is started under
    /// another epoch.
    pub fn want_under(&mut self, group: GroupIndex, epoch: Option<Epoch>, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        if state.barred.is_some() && state.phase == GroupPhase::Stopped {
            state.failure.clone_from(&state.barred);
            state.failures += 1;
            self.events.push_back(GroupEvent::Failed(group));
            return;
        }
        if !state.wanted {
            state.wanted = true;
            if epoch != state.epoch && state.phase != GroupPhase::Stopped {
                state.floor = Some(0);
            }
            state.next_epoch = epoch;
        }
        state.failure = None;
        self.pursue(group, out);
        self.touch(group);
    }

    /// Begins the start or stop that is wanted, if it is not under way.
    fn pursue(&mut self, group: GroupIndex, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        if state.frozen {
            return;
        }
        let run = state.wanted && state.floor.is_none();
        let is_attempt =
            matches!((state.phase, run), (GroupPhase::Stopped, true) | (GroupPhase::StopFailed(_), _));
        if is_attempt && self.waits_for_pause(group) {
            return;
        }
        let state = &mut self.states[group.0];
        match (state.phase, run) {
            // The pause before a start in place: nothing of that member is under way.
            (GroupPhase::Starting(step), false) if state.pause.take().is_some() => {
                self.stop(group, step, out)
            }
            // A start that lasts is not waited for.
            (GroupPhase::Starting(_), false) if !breakage::is(Breakage::LongStartAwaited) => {
                state.abandon = Some(state.step_since + LONG_START);
            }
            (GroupPhase::Stopped | GroupPhase::StopFailed(_), true) => {
                if let GroupPhase::StopFailed(member) = state.phase {
                    state.unstopped = Some(member);
                }
                state.restarts.clear();
                self.say_line(group, "Acquiring", out);
                self.start(group, 0, out);
            }
            (GroupPhase::Running, false) => {
                self.say_line(group, "Releasing", out);
                self.stop(group, self.members(group) - 1, out);
            }
            (GroupPhase::StopFailed(member), false) => {
                // It is not known any more how much of it was started when its stop failed.
                state.floor = Some(0);
                self.stop(group, member, out);
            }
            (
                GroupPhase::Stopped | GroupPhase::Starting(_) | GroupPhase::Running | GroupPhase::Stopping(_),
                _,
            ) => {}
        }
    }

    /// While a group is frozen, nothing of it is started, stopped or put back. Operations under way end, and monitors go
    /// on. When it is thawed, the start or stop that is wanted begins.
    pub fn freeze(&mut self, group: GroupIndex, frozen: bool, now: Instant, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        if state.frozen == frozen {
            return;
        }
        state.frozen = frozen;
        if frozen {
            return;
        }
        // A member that failed may have been mended meanwhile.
        for member in core::mem::take(&mut state.complaints).into_keys() {
            if !self.is_asked(ResourceId { group, member }) {
                self.states[group.0].monitors[member] = Some(now);
            }
        }
        let state = &mut self.states[group.0];
        let (phase, postponed) = (state.phase, state.postponed.take());
        match (phase, postponed) {
            (GroupPhase::Starting(step), Some(_)) if !state.wanted || state.floor.is_some() => {
                self.stop(group, step, out);
            }
            (_, Some((resource, operation))) => self.step(resource, operation, out),
            (GroupPhase::Running, None) if state.wanted && state.floor.is_none() => {
                self.look(ResourceId { group, member: 0 }, out);
            }
            (_, None) => self.pursue(group, out),
        }
        self.touch(group);
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self, group: GroupIndex) -> bool {
        self.states[group.0].frozen
    }

    /// The failures of a frozen group: the member's name and the answer of its monitor.
    pub fn complaints(&self, group: GroupIndex) -> impl Iterator<Item = (&str, &str)> {
        let names = move |member: usize| self.specs[group.0].members[member].text.as_str();
        self.states[group.0].complaints.iter().map(move |(member, why)| (names(*member), why.as_str()))
    }

    /// How often members of it were started again in place, as far as that still counts.
    #[must_use]
    pub fn restarts(&self, group: GroupIndex, now: Instant) -> usize {
        let within = self.specs[group.0].restarts.within;
        self.states[group.0].restarts.iter().filter(|at| now.since(**at) < within).count()
    }

    /// An earlier run of this daemon left this group running. Nothing is started. Only the addresses are looked at, so
    /// that the part of the program that carries them knows that they are ours.
    pub fn keep(&mut self, group: GroupIndex, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        state.wanted = true;
        state.phase = GroupPhase::Running;
        state.begun.fill(true);
        self.watch(group, Instant::ZERO);
        self.look(ResourceId { group, member: 0 }, out);
        self.touch(group);
    }

    /// An operation has ended. An answer with an unknown ticket is ignored.
    pub fn done(&mut self, now: Instant, ticket: Ticket, outcome: &Outcome, out: &mut VecDeque<Action>) {
        let Some((resource, operation, purpose)) = self.running.remove(&ticket) else { return };
        self.tickets[resource.group.0].retain(|other| *other != ticket);
        self.now = self.now.max(now);
        match (purpose, self.states[resource.group.0].phase) {
            (Purpose::Repair, _) => self.repaired(now, resource, outcome, out),
            (Purpose::Look, _) => self.looked(resource, outcome, out),
            (Purpose::Monitor(run), _) => self.monitored(now, resource, run, outcome, out),
            (Purpose::Step, GroupPhase::Starting(_)) => {
                self.start_goes_on(now, resource, operation, outcome, out)
            }
            (Purpose::Step, GroupPhase::Stopping(_)) => {
                self.stop_goes_on(now, resource, operation, outcome, out)
            }
            // A group at rest has nothing under way.
            (Purpose::Step, GroupPhase::Stopped | GroupPhase::Running | GroupPhase::StopFailed(_)) => {}
        }
        self.touch(resource.group);
    }

    /// Somebody took an address from its interface. It is put back if it is ours.
    pub fn address_gone(&mut self, resource: ResourceId, out: &mut VecDeque<Action>) {
        let known = self.specs.get(resource.group.0).is_some_and(|spec| resource.member < spec.members.len());
        if !known || !self.carries(resource) {
            return;
        }
        let state = &mut self.states[resource.group.0];
        state.taken_away += 1;
        let (times, frozen) = (state.taken_away, state.frozen);
        if is_worth_a_line(times) {
            let name = &self.member(resource).text;
            let what = if frozen { "the group is frozen: it is not put back" } else { "putting it back" };
            let text = format!(
                "{name} was taken from its interface by somebody else ({times} times so far); {what}"
            );
            self.note(resource.group, Level::Warning, text, out);
        }
        self.repairs.retain(|(waiting, _)| *waiting != resource);
        self.repair(resource, out);
    }

    /// Time has passed: ends pauses that are over, and begins monitors that are due.
    pub fn tick(&mut self, now: Instant, out: &mut VecDeque<Action>) {
        self.now = self.now.max(now);
        let due: Vec<GroupIndex> = self.timers.due(now).collect();
        for group in due {
            let state = &mut self.states[group.0];
            if state.pause.is_some_and(|until| now >= until) {
                state.pause = None;
                match state.phase {
                    GroupPhase::Stopping(member) => {
                        self.step(ResourceId { group, member }, Operation::Stop, out);
                    }
                    GroupPhase::Starting(step) if state.wanted && state.floor.is_none() => {
                        state.attempts.begins(now);
                        self.begin_start(group, step, out);
                    }
                    GroupPhase::Starting(step) => self.stop(group, step, out),
                    GroupPhase::Stopped | GroupPhase::Running | GroupPhase::StopFailed(_) => {
                        self.pursue(group, out)
                    }
                }
            }
            self.abandon(now, group, out);
            self.ask(now, group, out);
            self.touch(group);
        }
        assert!(self.timers.first().is_none_or(|at| at > now), "something of a group is due for ever");
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
        self.timers.first().into_iter().chain(self.repairs.iter().map(|(_, at)| *at)).min()
    }

    /// The next report, oldest first.
    pub fn next_event(&mut self) -> Option<GroupEvent> {
        self.events.pop_front()
    }

    /// A ticket that was never used.
    pub(crate) fn new_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn members(&self, group: GroupIndex) -> usize {
        self.specs[group.0].members.len()
    }

    fn member(&self, resource: ResourceId) -> &GroupMember {
        &self.specs[resource.group.0].members[resource.member]
    }

    /// Does the next step of a start or stop; it waits while the group is frozen.
    fn step(&mut self, resource: ResourceId, operation: Operation, out: &mut VecDeque<Action>) {
        let state = &mut self.states[resource.group.0];
        if state.frozen {
            state.postponed = Some((resource, operation));
            return;
        }
        if operation == Operation::Start {
            state.begun[resource.member] = true;
        }
        if operation != Operation::Status {
            let text = format!("Running {} {}", self.member(resource).command, operation.verb());
            self.note(resource.group, Level::Info, text, out);
        }
        self.run(resource, operation, Purpose::Step, out);
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
        self.tickets[resource.group.0].push(ticket);
        if purpose == Purpose::Step {
            self.states[resource.group.0].step_since = self.now;
        }
        let GroupMember { limits, failed_stop, .. } = self.member(resource);
        let limit = match (operation, failed_stop) {
            (Operation::Start, _) => limits.start,
            (Operation::Stop, _) => limits.stop,
            (Operation::Status, _) => limits.status,
            (Operation::Terminate, FailedStop::Ladder { terminate }) => *terminate,
            (Operation::Terminate | Operation::Kill, _) => KILL_LIMIT,
        };
        let epoch = self.states[resource.group.0].epoch.clone();
        out.push_back(Action::Run { ticket, resource, operation, limit, epoch });
    }

    /// Logs it in the words of heartbeat's scripts.
    fn say_line(&self, group: GroupIndex, what: &str, out: &mut VecDeque<Action>) {
        let text = format!("{what} resource group: {}", self.specs[group.0].line);
        self.note(group, Level::Info, text, out);
    }

    fn note(&self, group: GroupIndex, level: Level, text: String, out: &mut VecDeque<Action>) {
        let (key, epoch) = (self.specs[group.0].key.clone(), self.epoch(group).cloned());
        out.push_back(Action::Note(Note { level, group: Some(key), epoch, text }));
    }

    /// Which member is the `step`th to be started, counted from 0.
    fn in_start_order(&self, group: GroupIndex, step: usize) -> usize {
        if breakage::is(Breakage::StartOrderReversed) { self.members(group) - 1 - step } else { step }
    }

    fn in_stop_order(&self, group: GroupIndex, step: usize) -> usize {
        if breakage::is(Breakage::StopOrderReversed) { self.members(group) - 1 - step } else { step }
    }

    /// Starts from this step on, at once or after a pause.
    fn start(&mut self, group: GroupIndex, step: usize, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        state.phase = GroupPhase::Starting(step);
        state.floor = None;
        if step == 0 {
            state.epoch.clone_from(&state.next_epoch);
        }
        // A start again in place is allowed as often as the spec says, but not without a pause.
        if !self.waits_for_pause(group) {
            self.begin_start(group, step, out);
        }
    }

    fn begin_start(&mut self, group: GroupIndex, step: usize, out: &mut VecDeque<Action>) {
        self.states[group.0].phase = GroupPhase::Starting(step);
        let member = self.in_start_order(group, step);
        self.step(ResourceId { group, member }, Operation::Status, out);
    }

    /// Whether this member was started and is not being stopped.
    fn carries(&self, resource: ResourceId) -> bool {
        match self.states[resource.group.0].phase {
            GroupPhase::Running => true,
            GroupPhase::Starting(step) => {
                (0..step).any(|earlier| self.in_start_order(resource.group, earlier) == resource.member)
            }
            // While others are started again in place, the members left of them stay, unless the stop has reached them
            // already.
            GroupPhase::Stopping(step) => {
                let state = &self.states[resource.group.0];
                let stays = state.wanted && state.floor.is_some_and(|floor| resource.member < floor);
                stays && (0..step).any(|later| self.in_stop_order(resource.group, later) == resource.member)
            }
            GroupPhase::Stopped | GroupPhase::StopFailed(_) => false,
        }
    }

    /// The operations of a group that are under way.
    fn under_way(
        &self,
        group: GroupIndex,
    ) -> impl Iterator<Item = (Ticket, &(ResourceId, Operation, Purpose))> {
        self.tickets[group.0].iter().filter_map(|ticket| Some((*ticket, self.running.get(ticket)?)))
    }

    /// Whether an address of the group is being put back or looked at.
    fn is_repairing(&self, group: GroupIndex) -> bool {
        let repairs = |purpose| matches!(purpose, Purpose::Repair | Purpose::Look);
        self.under_way(group).any(|(_, (_, _, purpose))| repairs(*purpose))
    }

    fn is_being_put_back(&self, resource: ResourceId) -> bool {
        let repair = (resource, Operation::Start, Purpose::Repair);
        self.under_way(resource.group).any(|(_, running)| *running == repair)
    }

    /// Puts an address back, unless that is being done. A frozen group is looked at when it is thawed.
    fn repair(&mut self, resource: ResourceId, out: &mut VecDeque<Action>) {
        if !self.is_being_put_back(resource) && !self.states[resource.group.0].frozen {
            self.run(resource, Operation::Start, Purpose::Repair, out);
        }
    }

    /// Asks for the status of this member, or of the next one that is an address.
    fn look(&mut self, from: ResourceId, out: &mut VecDeque<Action>) {
        let members = self.specs[from.group.0].members.iter().skip(from.member);
        if let Some(further) = members.map(|member| member.is_carried).position(|carried| carried) {
            let member = from.member + further;
            self.run(ResourceId { member, ..from }, Operation::Status, Purpose::Look, out);
        }
    }

    fn looked(&mut self, resource: ResourceId, outcome: &Outcome, out: &mut VecDeque<Action>) {
        self.end_wait(resource.group, out);
        if !self.carries(resource) {
            return;
        }
        if *outcome != Outcome::Running {
            self.repair(resource, out);
        }
        self.look(ResourceId { member: resource.member + 1, ..resource }, out);
    }

    fn start_goes_on(
        &mut self,
        now: Instant,
        resource: ResourceId,
        operation: Operation,
        outcome: &Outcome,
        out: &mut VecDeque<Action>,
    ) {
        let group = resource.group;
        let state = &self.states[group.0];
        let GroupPhase::Starting(step) = state.phase else { return };
        if !state.wanted || state.floor.is_some() {
            // Not wanted any more: all begun members are stopped, this one included.
            return self.stop(group, step, out);
        }
        match (operation, outcome) {
            (Operation::Status, Outcome::Running) | (Operation::Start, Outcome::Ok) => {
                self.states[group.0].begun[resource.member] = true;
                if step + 1 < self.members(group) {
                    return self.begin_start(group, step + 1, out);
                }
                let key = &self.specs[group.0].key;
                let has_begun = self.states[group.0].begun.iter().all(|begun| *begun);
                assert!(has_begun, "{key}: runs, and not all of it was started");
                self.states[group.0].phase = GroupPhase::Running;
                self.states[group.0].unstopped = None;
                self.states[group.0].failures = 0;
                self.states[group.0].attempts.runs(now);
                self.watch(group, now);
                self.events.push_back(GroupEvent::Started(group));
            }
            (Operation::Status, outcome) if !matches!(outcome, Outcome::Missing(_)) => {
                self.step(resource, Operation::Start, out);
            }
            (_, failed) => {
                self.states[group.0].failures += 1;
                if breakage::is(Breakage::NoStopAfterFailedStart) {
                    self.states[group.0].wanted = false;
                    self.states[group.0].phase = GroupPhase::Stopped;
                    return self.events.push_back(GroupEvent::Failed(group));
                }
                self.member_failed(now, resource, step, failed, out);
            }
        }
    }

    /// A member did not start, or does not run any more: it is started again in place, or the group is given up. `last`
    /// is the last step of the group that may have been done.
    fn member_failed(
        &mut self,
        now: Instant,
        resource: ResourceId,
        last: usize,
        outcome: &Outcome,
        out: &mut VecDeque<Action>,
    ) {
        let group = resource.group;
        let RestartPolicy { in_place, within } = self.specs[group.0].restarts;
        let name = self.member(resource).text.clone();
        let state = &mut self.states[group.0];
        state.restarts.retain(|at| now.since(*at) < within);
        let times = state.restarts.len() + 1;
        state.attempts.failed(now);
        // What is missing on this machine will be missing a moment later, too.
        let is_missing =
            matches!(outcome, Outcome::Missing(_)) && !breakage::is(Breakage::MissingIsTriedAgain);
        let again = u32::try_from(times).is_ok_and(|times| times <= in_place) && !is_missing;
        // Also if the group is given up: it may be wanted again before all of it was stopped.
        state.floor = Some(resource.member);
        if again || breakage::is(Breakage::RestartForever) {
            state.restarts.push(now);
            let text = format!(
                "{name} failed: {outcome}; it is started again here ({times} of {in_place} times within {} s)",
                within.as_secs()
            );
            self.note(group, Level::Error, text, out);
            self.events.push_back(GroupEvent::Restarting(group));
        } else {
            state.failure = Some(format!("{name}: {outcome}"));
            state.wanted = false;
            let text = format!("Giving up resources due to failure of {name}: {outcome}");
            self.note(group, Level::Critical, text, out);
        }
        self.stop(group, last, out);
    }

    fn repaired(
        &mut self,
        now: Instant,
        resource: ResourceId,
        outcome: &Outcome,
        out: &mut VecDeque<Action>,
    ) {
        let group = resource.group;
        self.end_wait(group, out);
        if !self.carries(resource) {
            return;
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

/// Two programs that fight for an address can go on for ever, many times a second.
fn is_worth_a_line(count: u64) -> bool {
    count <= 10 || count.is_multiple_of(100)
}
