//! The simulation of a native cluster: machines, cables, disks, and the checker that looks for two owners.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    fmt::{self, Write as _},
    rc::Rc,
    sync::Arc,
};

use locum_core::{
    claims::ClaimMessage,
    config::locum_toml,
    group::GroupPhase,
    model::{
        action::{self, Operation},
        claim::{Ballot, Claim, DurableState, GroupId},
        event::{Carrier, Outcome, Ticket},
        identity::{GroupIndex, LastHeard, MemberIndex, NodeIndex, ResourceId},
        order::{NativeOrder, OrderId},
        time::{Duration, Instant},
    },
    native::{
        message::NativeMessage,
        node::{NativeNode, NodeEvent},
        plan::{NativePlan, Relation},
    },
};

use super::{
    clock::Clock,
    director::{DaemonStart, DirectorAction, PrepareReader, SimDirector, Transmission},
    faults::{Agents, ScenarioStep},
};
use crate::rng::Rng;

/// Frames that the sockets of a frozen daemon keep.
const BACKLOG_MAX: usize = 400;
/// Lines of the log that a failing seed shows.
const LOG_MAX: usize = 400;

#[derive(Debug)]
enum MemberEventKind {
    Wake,
    Deliver(Rc<Frame>),
    Done(Box<Done>),
    Written(Box<DurableState>, bool),
    /// The daemon has been started and has swept leftovers.
    Begin,
}

/// An operation of an agent has ended.
#[derive(Debug)]
struct Done {
    ticket: Ticket,
    resource: ResourceId,
    operation: Operation,
    outcome: Outcome,
}

#[derive(Debug)]
struct Frame {
    from: usize,
    transmission: Transmission,
}

/// An event of a member, in one run of its daemon, at a true time.
#[derive(Debug)]
struct MemberEvent {
    at: u64,
    serial: u64,
    member: usize,
    run_number: u64,
    kind: MemberEventKind,
}

impl PartialEq for MemberEvent {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for MemberEvent {}

impl PartialOrd for MemberEvent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MemberEvent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

/// A machine. Everything but the daemon outlives the daemon.
#[derive(Debug)]
struct Machine {
    plan: Arc<NativePlan>,
    name: String,
    clock: Clock,
    /// The daemon, if it runs.
    node: Option<SimDirector>,
    /// Counts the runs of the daemon.
    run_number: u64,
    has_power: bool,
    is_frozen: bool,
    is_paused: bool,
    backlog: VecDeque<MemberEventKind>,
    /// The next wake-up that counts.
    wake: u64,
    file: Option<DurableState>,
    /// The other members' newest frames, as kept on disk.
    heard: BTreeMap<MemberIndex, LastHeard>,
    disk_works: bool,
    /// The write that is under way.
    writing: Option<DurableState>,
    /// By group: the gate's deadline, by this machine's clock.
    gates: Vec<Option<Instant>>,
    /// The ballots of this node that others may know, as its gates were told.
    expected: BTreeMap<GroupIndex, Vec<Ballot>>,
    /// By group: the last deadline that its gate was told.
    leases: Vec<Instant>,
    /// The machine was in single-vote mode, and may hold leases from it until this true time.
    single_vote_until: u64,
    /// The machine stood still: its gates may answer for the rest of their leases, until this true time at most.
    excused_until: u64,
    /// Resources that run, whichever daemon started them.
    running: BTreeSet<ResourceId>,
    /// Operations of its agents that are under way.
    under_way: BTreeMap<Ticket, (ResourceId, Operation)>,
    agents: BTreeMap<usize, Agents>,
}

/// Traffic of all members as bytes: each frame counted once for each link, and once for each receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub frames: u64,
    /// Bytes of all frames together.
    pub bytes: u64,
    /// Frames counted once for each receiver: a link without multicast carries this many.
    pub copies: u64,
    /// Bytes of all copies together.
    pub copied_bytes: u64,
}

/// A simulated native cluster, played step by step.
#[derive(Debug)]
pub struct NativeWorld {
    now: u64,
    serial: u64,
    rng: Rng,
    machines: Vec<Machine>,
    groups: usize,
    nodes: usize,
    lease: Duration,
    heap: BinaryHeap<Reverse<MemberEvent>>,
    /// Pairs of members: no frame goes from the first to the second.
    cuts: BTreeSet<(usize, usize)>,
    /// By pair of members: how much longer a frame from the first to the second takes.
    slow: BTreeMap<(usize, usize), u64>,
    loss: u8,
    /// This many frames in a hundred come again within this many nanoseconds.
    repeats: (u8, u64),
    /// Reads the frames, where all messages are sent as frames.
    prepare_reader: Option<PrepareReader>,
    /// Frames are sometimes doubled and late.
    is_unruly: bool,
    /// By group: the highest epoch under which a gate was opened, by which member, and whether in single-vote mode.
    epochs: Vec<Option<(Ballot, usize, bool)>>,
    /// By group and member: the highest ballot that was ever prepared, and in which run.
    ballots: BTreeMap<(GroupId, usize), (Ballot, u64)>,
    /// Since when all machines run and hear each other, if they do.
    calm_since: Option<u64>,
    /// How often a group got another owner.
    pub takeovers: u64,
    /// How often a gate was opened or renewed while another one was open, because both machines were in single-vote
    /// mode.
    pub both_own: u64,
    orders: u64,
    log: VecDeque<String>,
    logs: bool,
    fault: Option<String>,
    /// Digest of all events so far, with their members and times.
    pub digest: u64,
    /// The traffic of all members so far.
    pub traffic: Traffic,
}

impl NativeWorld {
    /// A cluster that has just been switched on. `founded`: its members have ledger files. `logs`: events are logged
    /// for a report.
    ///
    /// # Panics
    /// If the configuration is not good.
    #[must_use]
    pub fn new(toml: &str, seed: u64, founded: bool, is_unruly: bool, logs: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let draft = checked(toml, "a");
        let nodes = draft.nodes.len();
        let members = draft.nodes.iter().map(|node| node.name.clone());
        let names: Vec<String> =
            members.chain(draft.witnesses.iter().map(|witness| witness.name.clone())).collect();
        let groups = draft.groups.len();
        let lease = draft.timing.lease;
        let set = draft.voter_set();
        // Two clocks may differ by the margin in one lease; each gets less than half of it.
        let drift_max = draft.timing.margin.as_nanos() * 1_000_000_000 / lease.as_nanos() * 2 / 5;
        let drift_max = u64::try_from(drift_max).expect("a small part of a billion");
        let machine = |name: &String| Machine {
            plan: Arc::new(checked(toml, name)),
            name: name.clone(),
            clock: Clock::new(
                1_000_000_000 + rng.below(1_000_000_000_000),
                i64::try_from(rng.below(2 * drift_max)).unwrap_or(0) - i64::try_from(drift_max).unwrap_or(0),
            ),
            node: None,
            run_number: 0,
            has_power: true,
            is_frozen: false,
            is_paused: false,
            backlog: VecDeque::new(),
            wake: u64::MAX,
            file: founded.then(|| DurableState {
                ceiling: 1,
                longest_lease: lease,
                set,
                ..DurableState::default()
            }),
            heard: BTreeMap::new(),
            disk_works: true,
            writing: None,
            gates: vec![None; groups],
            expected: BTreeMap::new(),
            leases: vec![Instant::ZERO; groups],
            single_vote_until: 0,
            excused_until: 0,
            running: BTreeSet::new(),
            under_way: BTreeMap::new(),
            agents: BTreeMap::new(),
        };
        let machines = names.iter().map(machine).collect();
        let mut world = Self {
            now: 0,
            serial: 0,
            rng,
            machines,
            groups,
            nodes,
            lease,
            heap: BinaryHeap::new(),
            cuts: BTreeSet::new(),
            slow: BTreeMap::new(),
            loss: 0,
            repeats: (0, 0),
            prepare_reader: seed.is_multiple_of(10).then(|| PrepareReader::new(&draft)),
            is_unruly,
            epochs: vec![None; groups],
            ballots: BTreeMap::new(),
            calm_since: None,
            takeovers: 0,
            both_own: 0,
            orders: 0,
            log: VecDeque::new(),
            logs,
            fault: None,
            digest: seed,
            traffic: Traffic::default(),
        };
        (0..world.machines.len()).for_each(|member| world.start(member));
        world
    }

    /// Number of members, nodes and witnesses.
    #[must_use]
    pub fn members(&self) -> usize {
        self.machines.len()
    }

    /// Number of nodes among the members.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    /// Number of groups in the plan.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.groups
    }

    /// The node of a member's daemon, if it runs, and the time of that member's clock.
    #[must_use]
    pub fn node(&self, member: usize) -> Option<(&NativeNode, Instant)> {
        let machine = &self.machines[member];
        Some((machine.node.as_deref()?, machine.clock.at(self.now)))
    }

    /// The last lines of the log, oldest first.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }

    /// Plays one step of a scenario.
    ///
    /// # Errors
    /// The first invariant that was broken.
    pub fn play(&mut self, step: ScenarioStep) -> Result<(), String> {
        self.say(usize::MAX, format_args!("--- {step}"));
        match step {
            ScenarioStep::Wait(millis) => self.pass(Duration::from_millis(millis)),
            ScenarioStep::PowerOff(member) => self.power_off(member),
            ScenarioStep::Start(member) => self.start(member),
            ScenarioStep::Kill(member) => self.kill(member),
            ScenarioStep::Freeze(member, freeze) => self.freeze(member, freeze),
            ScenarioStep::Pause(member, pause) => self.pause(member, pause),
            ScenarioStep::Cut(from, to) => {
                self.cuts.insert((from, to));
            }
            ScenarioStep::Split(set) => {
                let inside = |member: usize| set >> member & 1;
                for from in 0..self.members() {
                    for to in (0..self.members()).filter(|to| inside(*to) != inside(from)) {
                        self.cuts.insert((from, to));
                    }
                }
            }
            ScenarioStep::Heal => {
                self.cuts.clear();
                self.slow.clear();
                self.loss = 0;
            }
            ScenarioStep::Calm => {
                self.is_unruly = false;
                self.repeats = (0, 0);
            }
            ScenarioStep::Slow(from, to, millis) => {
                self.slow.insert((from, to), millis * 1_000_000);
            }
            ScenarioStep::Repeat(percent, millis) => self.repeats = (percent, millis * 1_000_000),
            ScenarioStep::Lose(percent) => self.loss = percent,
            ScenarioStep::LoseFile(member) => {
                self.power_off(member);
                self.machines[member].file = None;
                self.start(member);
            }
            ScenarioStep::BreakDisk(member, breaks) => self.machines[member].disk_works = !breaks,
            ScenarioStep::Agents(member, group, agents) => {
                self.machines[member].agents.insert(group, agents);
            }
            ScenarioStep::Move(asked, group, to) => {
                self.order(asked, NativeOrder::Move(GroupIndex(group), to.map(NodeIndex)));
            }
            ScenarioStep::Standby(member, true) => self.order(member, NativeOrder::Standby),
            ScenarioStep::Standby(member, false) => self.order(member, NativeOrder::Online),
            ScenarioStep::Leave(member) => self.order(member, NativeOrder::Leave),
            ScenarioStep::Cable(member, group, carries) => {
                let resource = ResourceId { group: GroupIndex(group), member: 0 };
                let state = if carries { Carrier::Up } else { Carrier::Down("eth0 has no carrier".into()) };
                self.handle(member, NodeEvent::Service { resource, state });
            }
            ScenarioStep::Pin(asked, Some(group), on) => {
                self.order(asked, NativeOrder::Freeze(GroupIndex(group), on))
            }
            ScenarioStep::Pin(asked, None, on) => self.order(asked, NativeOrder::Maintenance(on)),
        }
        self.note_calm();
        self.fault.take().map_or(Ok(()), Err)
    }

    /// The nodes on which a whole group runs under an open gate.
    #[must_use]
    pub fn holders(&self, group: usize) -> Vec<usize> {
        let runs = |node: &usize| {
            let machine = &self.machines[*node];
            let members = 0..machine.plan.groups[group].resources.len();
            let ids = members.map(|member| ResourceId { group: GroupIndex(group), member });
            ids.into_iter().all(|id| machine.running.contains(&id))
        };
        self.open_gates(group).into_iter().filter(runs).collect()
    }

    /// The machines with power whose gate of a group is open.
    #[must_use]
    pub fn open_gates(&self, group: usize) -> Vec<usize> {
        let is_open = |machine: &Machine| {
            machine.has_power && machine.gates[group].is_some_and(|until| machine.clock.at(self.now) < until)
        };
        (0..self.nodes).filter(|node| is_open(&self.machines[*node])).collect()
    }

    /// Checks that a group runs once, and where the plan's relations let it. For a cluster in which nothing is broken
    /// and that had time to come to rest.
    ///
    /// # Errors
    /// The error in the group's placement.
    pub fn is_where_it_belongs(&self, group: usize) -> Result<(), String> {
        // If a group is stop-failed, groups bound to it may stay where they are until an administrator acts.
        let is_stuck = |node: &SimDirector| {
            (0..self.groups).any(|group| matches!(node.phase(GroupIndex(group)), GroupPhase::StopFailed(_)))
        };
        let is_bound = |relation: &Relation| match relation {
            Relation::Apart(one, other) => [one.0, other.0].contains(&group),
            _ => relation.is_family_of(GroupIndex(group)),
        };
        if self.machines[0].plan.relations.iter().any(is_bound)
            && self.machines.iter().filter_map(|machine| machine.node.as_ref()).any(is_stuck)
        {
            return Ok(());
        }
        let home = match self.holders(group)[..] {
            [home] => home,
            ref holders => {
                return Err(format!("group {group} runs on {holders:?}\n{}", self.describe(group)));
            }
        };
        let plan = &self.machines[home].plan;
        let is_elsewhere = |other: &GroupIndex| self.holders(other.0).iter().any(|holder| *holder != home);
        if family(plan, GroupIndex(group)).iter().any(is_elsewhere) {
            return Err(format!("group {group} runs on {home}, away from one that it stays together with"));
        }
        let meets = |relation: &Relation| match relation {
            Relation::Apart(one, other) if one.0 == group => self.holders(other.0).contains(&home),
            _ => false,
        };
        if plan.relations.iter().any(meets) {
            return Err(format!("group {group} runs on {home}, beside one that it must not meet"));
        }
        Ok(())
    }

    /// The state of a group on each machine, for a report.
    #[must_use]
    pub fn describe(&self, group: usize) -> String {
        let of = |machine: &Machine| {
            let phase = machine.node.as_ref().map(|node| node.phase(GroupIndex(group)));
            let held = machine.node.as_ref().is_some_and(|node| {
                let claimant = node.member().claimant();
                claimant.is_some_and(|claimant| {
                    claimant.held(machine.clock.at(self.now), node.id(GroupIndex(group))).is_some()
                })
            });
            format!("{}: {phase:?} held {held} gate {:?}", machine.name, machine.gates[group])
        };
        self.machines[..self.nodes].iter().map(of).collect::<Vec<_>>().join("; ")
    }

    // ---- machines --------------------------------------------------------

    fn start(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        if machine.node.is_some() || machine.is_paused {
            return;
        }
        machine.has_power = true;
        machine.run_number += 1;
        machine.under_way.clear();
        machine.is_frozen = false;
        machine.backlog.clear();
        // The sweep before the first beat: gates are shut, then resources that run are stopped.
        if !crate::planted_no_sweep() {
            machine.gates.iter_mut().for_each(|gate| *gate = None);
            machine.running.clear();
        }
        let sweep = 1_000_000 + self.rng.below(50_000_000);
        self.schedule(member, sweep, MemberEventKind::Begin);
    }

    fn begin(&mut self, member: usize) {
        let seed = self.rng.bits();
        let machine = &mut self.machines[member];
        let birth = DaemonStart {
            plan: Arc::clone(&machine.plan),
            run_number: machine.run_number,
            ledger: machine.file.clone(),
            heard: machine.heard.clone(),
            seed,
        };
        machine.node =
            Some(SimDirector::new(self.prepare_reader.is_some(), birth, machine.clock.at(self.now)));
        self.perform(member);
        self.note_calm();
    }

    fn power_off(&mut self, member: usize) {
        self.kill(member);
        let machine = &mut self.machines[member];
        machine.has_power = false;
        machine.gates.iter_mut().for_each(|gate| *gate = None);
        machine.running.clear();
        if machine.is_paused {
            machine.is_paused = false;
            machine.clock.stand(self.now, false);
        }
    }

    fn kill(&mut self, member: usize) {
        let torn = self.rng.chance(50);
        let machine = &mut self.machines[member];
        machine.node = None;
        machine.run_number += 1;
        machine.under_way.clear();
        machine.wake = u64::MAX;
        machine.backlog.clear();
        // The ledger has two files: after an interrupted write, the new record or the one before it is there.
        if let Some(durable) = machine.writing.take().filter(|_| torn && machine.disk_works) {
            machine.file = Some(durable);
        }
    }

    fn freeze(&mut self, member: usize, freeze: bool) {
        let machine = &mut self.machines[member];
        if machine.node.is_none() || machine.is_frozen == freeze {
            return;
        }
        machine.is_frozen = freeze;
        self.go_on(member);
    }

    fn pause(&mut self, member: usize, pause: bool) {
        let now = self.now;
        let machine = &mut self.machines[member];
        if !machine.has_power || machine.is_paused == pause {
            return;
        }
        machine.is_paused = pause;
        machine.clock.stand(now, pause);
        if !pause {
            machine.excused_until = machine.clock.when(machine.clock.at(now) + self.lease);
            self.go_on(member);
        }
    }

    /// Handles the events that waited for a daemon that stood still.
    fn go_on(&mut self, member: usize) {
        let machine = &mut self.machines[member];
        if machine.is_frozen || machine.is_paused {
            return;
        }
        let backlog: Vec<MemberEventKind> = machine.backlog.drain(..).collect();
        for what in backlog {
            self.schedule(member, 1000, what);
        }
        self.schedule(member, 2000, MemberEventKind::Wake);
        self.machines[member].wake = self.now + 2000;
    }

    fn order(&mut self, member: usize, order: NativeOrder) {
        self.orders += 1;
        let id = OrderId(self.orders);
        if !self.machines[member].is_frozen && !self.machines[member].is_paused {
            self.handle(member, NodeEvent::Order { id, order, user: 0 });
        }
    }

    // ---- time ------------------------------------------------------------

    fn pass(&mut self, time: Duration) {
        let end = self.now + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        while self.fault.is_none() {
            let Some(Reverse(next)) = self.heap.peek() else { break };
            if next.at > end {
                break;
            }
            let Some(Reverse(happening)) = self.heap.pop() else { break };
            self.now = happening.at;
            self.happen(happening);
        }
        self.now = end;
    }

    fn schedule(&mut self, member: usize, after: u64, kind: MemberEventKind) {
        self.serial += 1;
        let life = self.machines[member].run_number;
        let happening =
            MemberEvent { at: self.now + after, serial: self.serial, member, run_number: life, kind };
        self.heap.push(Reverse(happening));
    }

    fn happen(&mut self, MemberEvent { at, member, run_number: life, kind: what, .. }: MemberEvent) {
        let machine = &mut self.machines[member];
        if let MemberEventKind::Deliver(_) = what {
        } else if life != machine.run_number {
            return;
        }
        if machine.is_paused || (machine.is_frozen && !matches!(what, MemberEventKind::Begin)) {
            if machine.backlog.len() < BACKLOG_MAX && !matches!(what, MemberEventKind::Wake) {
                machine.backlog.push_back(what);
            }
            return;
        }
        if !matches!(what, MemberEventKind::Wake) {
            let news = at ^ (member as u64) << 56;
            self.digest = (self.digest.rotate_left(5) ^ news).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        match what {
            MemberEventKind::Begin => self.begin(member),
            MemberEventKind::Wake if at != machine.wake => {}
            MemberEventKind::Wake => self.handle(member, NodeEvent::Tick),
            MemberEventKind::Deliver(frame) => {
                let now = machine.clock.at(self.now);
                let Some(director) = &mut machine.node else { return };
                let from = frame.from;
                let said = Rc::try_unwrap(frame)
                    .map_or_else(|shared| shared.transmission.clone(), |frame| frame.transmission);
                director.hear(now, from, said);
                self.perform(member);
            }
            MemberEventKind::Done(done) => {
                let Done { ticket, resource, operation, outcome } = *done;
                // An abandoned operation has ended already.
                if machine.under_way.remove(&ticket).is_none() {
                    return;
                }
                match (operation, &outcome) {
                    (Operation::Start, Outcome::Ok | Outcome::TimedOut) => {
                        machine.running.insert(resource);
                    }
                    (Operation::Stop | Operation::Terminate | Operation::Kill, Outcome::Ok) => {
                        machine.running.remove(&resource);
                    }
                    _ => {}
                }
                self.handle(member, NodeEvent::Done { ticket, outcome });
            }
            MemberEventKind::Written(durable, ok) => {
                machine.writing = None;
                if ok {
                    machine.file = Some(*durable);
                }
                self.handle(member, NodeEvent::Written { ok });
            }
        }
    }

    fn handle(&mut self, member: usize, event: NodeEvent) {
        let machine = &mut self.machines[member];
        let now = machine.clock.at(self.now);
        let Some(node) = &mut machine.node else { return };
        node.handle(now, event);
        self.perform(member);
    }

    // ---- actions of directors --------------------------------------------

    fn perform(&mut self, member: usize) {
        self.check_single_vote(member);
        while let Some(does) = self.next_of(member) {
            match does {
                DirectorAction::Send(said, targets) => self.send(member, said, &targets),
                DirectorAction::Expect(group, ballots) => {
                    self.machines[member].expected.insert(group, ballots);
                }
                DirectorAction::Hands(action) => self.hands(member, action),
            }
        }
        let machine = &self.machines[member];
        if let Some(node) = &machine.node {
            let wake = machine.clock.when(node.deadline()).max(self.now + 1000);
            if wake != machine.wake {
                self.schedule(member, wake - self.now, MemberEventKind::Wake);
                self.machines[member].wake = wake;
            }
        }
    }

    fn next_of(&mut self, member: usize) -> Option<DirectorAction> {
        let Machine { plan, run_number: life, node, .. } = &mut self.machines[member];
        node.as_mut()?.poll(plan, member, *life)
    }

    fn hands(&mut self, member: usize, action: action::Action) {
        match action {
            action::Action::Run { ticket, resource, operation, limit, .. } => {
                self.run(member, ticket, resource, operation, limit);
            }
            action::Action::Abandon(ticket) => {
                if let Some((resource, operation)) = self.machines[member].under_way.get(&ticket).copied() {
                    let outcome = Outcome::TimedOut;
                    let done = Done { ticket, resource, operation, outcome };
                    self.schedule(member, 1_000_000, MemberEventKind::Done(Box::new(done)));
                }
            }
            action::Action::Write(durable) => {
                let ok = self.machines[member].disk_works;
                self.machines[member].writing = Some(durable.clone());
                let takes = 200_000 + self.rng.below(20_000_000);
                self.schedule(member, takes, MemberEventKind::Written(Box::new(durable), ok));
            }
            action::Action::Remember { member: of, heard } => {
                self.machines[member].heard.insert(of, heard);
            }
            action::Action::Gate { group, lease } => self.gate(member, group, lease.map(|lease| lease.until)),
            action::Action::Note(note) => {
                let group = note.group.unwrap_or_default();
                self.say(member, format_args!("{group} {}", note.text));
            }
            action::Action::Reply { answer, .. } => self.say(member, format_args!("answer: {answer:?}")),
            action::Action::Exit { .. } => {
                self.kill(member);
                self.say(member, format_args!("has left"));
            }
            _ => {}
        }
    }

    fn run(
        &mut self,
        member: usize,
        ticket: Ticket,
        resource: ResourceId,
        operation: Operation,
        limit: Duration,
    ) {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let takes = 1_000_000 + self.rng.below(100_000_000);
        let machine = &self.machines[member];
        let agents = machine.agents.get(&resource.group.0).copied().unwrap_or(Agents::Work);
        let runs = machine.running.contains(&resource);
        let (takes, outcome) = match (operation, agents) {
            (Operation::Start, Agents::FailToStart) => {
                (takes, Outcome::Failed("the script returned a failure".into()))
            }
            (Operation::Start, Agents::HangAtStart) => (limit, Outcome::TimedOut),
            (Operation::Stop, Agents::FailToStop) => {
                (takes, Outcome::Failed("the script returned a failure".into()))
            }
            (Operation::Terminate | Operation::Kill, Agents::FailToStop) => (limit, Outcome::TimedOut),
            (Operation::Terminate | Operation::Kill, Agents::Missing) => (takes, Outcome::Ok),
            (_, Agents::Missing) => (1_000_000, Outcome::Missing("there is no such script".into())),
            (Operation::Stop, Agents::SlowToStop) if resource.member > 0 => (30_000_000_000, Outcome::Ok),
            (Operation::Status, _) if runs => (takes / 10, Outcome::Running),
            (Operation::Status, _) => (takes / 10, Outcome::Stopped),
            _ => (takes, Outcome::Ok),
        };
        self.machines[member].under_way.insert(ticket, (resource, operation));
        self.schedule(
            member,
            takes,
            MemberEventKind::Done(Box::new(Done { ticket, resource, operation, outcome })),
        );
    }

    fn send(&mut self, from: usize, transmission: Transmission, targets: &[usize]) {
        match &transmission {
            Transmission::Message { word, .. } => {
                self.check_ballots(from, word);
                self.check_releases(from, word);
            }
            Transmission::Frame { bytes, .. } => {
                let (copies, len) = (targets.len() as u64, bytes.len() as u64);
                let Traffic { frames, bytes: said, copies: all, copied_bytes } = self.traffic;
                self.traffic = Traffic {
                    frames: frames + 1,
                    bytes: said + len,
                    copies: all + copies,
                    copied_bytes: copied_bytes + copies * len,
                };
                let now = Instant::from_nanos(self.now);
                if let Some(word) = self.prepare_reader.as_mut().and_then(|eye| eye.prepare(now, bytes)) {
                    self.check_ballots(from, &word);
                }
            }
        }
        let frame = Rc::new(Frame { from, transmission });
        for target in targets.iter().copied() {
            if target == from || target >= self.members() || self.cuts.contains(&(from, target)) {
                continue;
            }
            if self.loss > 0 && self.rng.chance(self.loss) {
                continue;
            }
            let mut delay = 50_000 + self.rng.below(200_000);
            if self.is_unruly && self.rng.chance(10) {
                delay += self.rng.below(400_000_000);
                if self.rng.chance(50) {
                    let late = delay + self.rng.below(200_000_000);
                    self.deliver(target, late, &frame);
                }
            }
            delay += self.slow.get(&(from, target)).unwrap_or(&0);
            self.deliver(target, delay, &frame);
            let (percent, within) = self.repeats;
            if percent > 0 && self.rng.chance(percent) {
                let late = delay + self.rng.below(within);
                self.deliver(target, late, &frame);
            }
        }
    }

    fn deliver(&mut self, target: usize, delay: u64, frame: &Rc<Frame>) {
        if self.machines[target].has_power {
            self.schedule(target, delay, MemberEventKind::Deliver(Rc::clone(frame)));
        }
    }

    // ---- the checker -----------------------------------------------------

    /// Sets the deadline of a gate. Until then no other gate of the group may be open.
    fn gate(&mut self, member: usize, group: GroupIndex, until: Option<Instant>) {
        let was_shut = core::mem::replace(&mut self.machines[member].gates[group.0], until).is_none();
        let Some(until) = until else { return };
        self.machines[member].leases[group.0] = until;
        let now = self.now;
        let machine = &self.machines[member];
        if until > machine.clock.at(now) + self.lease {
            self.fail(format!(
                "{} opens the gate of group {} for longer than a lease",
                machine.name, group.0
            ));
            return;
        }
        for (index, other) in self.machines.iter().enumerate() {
            let open = other.gates[group.0].is_some_and(|until| other.clock.at(now) < until);
            let stood_still = other.is_paused || now < other.excused_until || now < machine.excused_until;
            if index == member || !open || !other.has_power || stood_still {
                continue;
            }
            if now < machine.single_vote_until && now < other.single_vote_until && !self.must_agree() {
                self.both_own += 1;
            } else {
                let text = format!(
                    "two open gates of group {}: {} opens it while that of {} is open",
                    group.0, machine.name, other.name
                );
                return self.fail(text);
            }
        }
        if let Some((other, sibling)) = self.elsewhere(member, group) {
            let text = format!(
                "a family is parted: {} opens the gate of group {} while that of group {sibling} is open on {other}",
                self.machines[member].name, group.0
            );
            return self.fail(text);
        }
        if let Some(sibling) = self.not_owned(member, group).filter(|_| was_shut) {
            let text = format!(
                "a part of a family is started: {} opens the gate of group {} and does not own group {sibling}",
                self.machines[member].name, group.0
            );
            return self.fail(text);
        }
        let machine = &self.machines[member];
        let id = machine.node.as_ref().map(|node| node.id(group));
        let held = id.and_then(|id| {
            machine.node.as_ref()?.member().claimant()?.held(machine.clock.at(now), id).map(|held| held.epoch)
        });
        let Some(epoch) = held else {
            let text = format!("{} opens the gate of group {} without a claim", machine.name, group.0);
            return self.fail(text);
        };
        let is_alone = now < machine.single_vote_until;
        match self.epochs[group.0] {
            // A machine that stood still may use an epoch that is overtaken, until its leases end.
            Some((old, ..)) if epoch < old && now < machine.excused_until => {}
            // In single-vote mode, no other node may know of that epoch any more.
            Some((old, _, true)) if epoch < old => {}
            Some((old, ..)) if epoch < old => {
                let text = format!("the epoch of group {} falls from {old:?} to {epoch:?}", group.0);
                self.fail(text);
            }
            Some((old, ..)) if epoch == old => {}
            Some((_, owner, _)) => {
                self.takeovers += u64::from(owner != member);
                self.epochs[group.0] = Some((epoch, member, is_alone));
            }
            None => self.epochs[group.0] = Some((epoch, member, is_alone)),
        }
    }

    /// Another machine with an open gate of this group's family, if neither machine stood still.
    fn elsewhere(&self, member: usize, group: GroupIndex) -> Option<(&str, usize)> {
        let machine = &self.machines[member];
        let is_excused =
            |other: &Machine| other.is_paused || self.now < other.excused_until.max(other.single_vote_until);
        let others = family(&machine.plan, group).iter().flat_map(|sibling| {
            let open = self.open_gates(sibling.0).into_iter();
            open.filter(|other| *other != member).map(move |other| (other, sibling.0))
        });
        others
            .map(|(other, sibling)| (&self.machines[other], sibling))
            .find(|(other, _)| !is_excused(other) && !is_excused(machine))
            .map(|(other, sibling)| (other.name.as_str(), sibling))
    }

    /// A group of the same family that this machine does not own.
    fn not_owned(&self, member: usize, group: GroupIndex) -> Option<usize> {
        let family = family(&self.machines[member].plan, group);
        family.iter().find(|sibling| !self.owns(member, **sibling)).map(|sibling| sibling.0)
    }

    /// Checks that a node gives away the first group of a family only after all groups of it that it owns have stopped.
    /// A group that it has lost meanwhile does not count: it is given back as soon as it has stopped. A machine that
    /// stood still is not checked: it may have lost one group and not know yet of the others.
    fn check_releases(&mut self, from: usize, message: &NativeMessage) {
        let NativeMessage::Claims(ClaimMessage::Release(list)) = message else { return };
        let machine = &self.machines[from];
        let Some(node) = machine.node.as_ref().filter(|_| self.now >= machine.excused_until) else { return };
        let groups = (0..self.groups).map(GroupIndex);
        let given = groups.filter(|group| {
            let is_lost = machine.leases[group.0] <= machine.clock.at(self.now);
            !is_lost && list.iter().any(|(id, _, successor)| *id == node.id(*group) && successor.is_some())
        });
        let families = given.map(|group| (group, family(&machine.plan, group)));
        let families = families.filter(|(group, family)| family.first() == Some(group));
        let runs = |group: &GroupIndex| machine.running.iter().any(|resource| resource.group == *group);
        let left =
            families.flat_map(|(_, family)| family).find(|group| runs(group) && self.owns(from, **group));
        if let Some(left) = left {
            let text =
                format!("a part of a family is given away: group {} still runs on {}", left.0, machine.name);
            self.fail(text);
        }
    }

    fn owns(&self, member: usize, group: GroupIndex) -> bool {
        let machine = &self.machines[member];
        let now = machine.clock.at(self.now);
        machine.node.as_ref().is_some_and(|node| {
            node.member().claimant().is_some_and(|claims| claims.held(now, node.id(group)).is_some())
        })
    }

    /// Checks single-vote mode: one of two voters may use it, and with more voters no node ever does.
    fn check_single_vote(&mut self, member: usize) {
        let now = self.now;
        let machine = &mut self.machines[member];
        let Some(node) = machine.node.as_ref().filter(|node| node.member().single_vote_since().is_some())
        else {
            return;
        };
        let voters = node.member().settings().voters.members.len();
        machine.single_vote_until = machine.clock.when(machine.clock.at(now) + self.lease);
        if voters != 2 {
            let text = format!("{} is in single-vote mode among {voters} voters", machine.name);
            self.fail(text);
        }
    }

    /// Notes since when all machines run and hear each other. Called after each change to the cluster.
    fn note_calm(&mut self) {
        let runs = |machine: &Machine| machine.node.is_some() && !machine.is_frozen && !machine.is_paused;
        let is_late = self.is_unruly || !self.slow.is_empty() || self.repeats.0 > 0;
        let is_calm = self.machines.iter().all(runs) && self.cuts.is_empty() && self.loss == 0 && !is_late;
        self.calm_since = self.calm_since.or(Some(self.now)).filter(|_| is_calm);
    }

    /// Whether all have heard each other long enough that at most one of two owners is left.
    fn must_agree(&self) -> bool {
        let bound = u64::try_from(self.lease.as_nanos()).unwrap_or(u64::MAX);
        self.calm_since.is_some_and(|since| self.now - since > bound)
    }

    /// Checks that a ballot belongs to one run of one node, and that ballots grow.
    fn check_ballots(&mut self, from: usize, message: &NativeMessage) {
        if let NativeMessage::Claims(ClaimMessage::Propose(_, list)) = message {
            self.check_proposals(from, list);
        }
        let NativeMessage::Claims(ClaimMessage::Prepare(list)) = message else { return };
        let life = self.machines[from].run_number;
        for (group, ballot) in list {
            let last = self.ballots.entry((*group, from)).or_insert((*ballot, life));
            let is_again = *last == (*ballot, life);
            if ballot.node.index() != from || (!is_again && *ballot <= last.0) {
                let text = format!("{} uses {ballot:?} after {:?}", self.machines[from].name, last.0);
                return self.fail(text);
            }
            *last = (*ballot, life);
        }
    }

    /// Checks that an open gate knows each ballot that its node proposes: a voter may accept it, and a rival may learn
    /// no other ballot.
    fn check_proposals(&mut self, from: usize, list: &[(GroupId, Claim)]) {
        let machine = &self.machines[from];
        for (index, group) in machine.plan.groups.iter().enumerate() {
            if machine.gates[index].is_none() {
                continue;
            }
            let id = GroupId::of(&group.name);
            let expected = machine.expected.get(&GroupIndex(index)).map_or(&[][..], Vec::as_slice);
            let unexpected = list.iter().find(|(of, claim)| *of == id && !expected.contains(&claim.ballot));
            if let Some((_, claim)) = unexpected {
                let text =
                    format!("{} proposes {:?}, which its gate does not expect", machine.name, claim.ballot);
                return self.fail(text);
            }
        }
    }

    fn fail(&mut self, text: String) {
        self.say(usize::MAX, format_args!("{text}"));
        self.fault.get_or_insert(text);
    }

    fn say(&mut self, member: usize, text: fmt::Arguments<'_>) {
        if !self.logs {
            return;
        }
        if self.log.len() >= LOG_MAX {
            self.log.pop_front();
        }
        let name = self.machines.get(member).map_or("", |machine| machine.name.as_str());
        self.log.push_back(format!("{:9.3} {name:>2} {text}", self.now as f64 / 1e9));
    }

    /// Whether a group has come to rest: no node is starting or stopping it.
    #[must_use]
    pub fn rests(&self, group: usize) -> bool {
        let rests = |node: &NativeNode| {
            matches!(node.phase(GroupIndex(group)), GroupPhase::Running | GroupPhase::Stopped)
        };
        self.machines.iter().filter_map(|machine| machine.node.as_deref()).all(rests)
    }
}

/// The family of this group, itself included, in order; empty if it has none. The family is read from the plan, as the
/// members read it; the checker judges what they do with it.
fn family(plan: &NativePlan, group: GroupIndex) -> &[GroupIndex] {
    let together = plan.relations.iter().find(|relation| relation.is_family_of(group));
    together.and_then(Relation::family).unwrap_or_default()
}

fn checked(toml: &str, name: &str) -> NativePlan {
    let checked = locum_toml::check(toml.as_bytes(), name);
    checked.plan.unwrap_or_else(|| panic!("{toml}\n{:#?}", checked.diags))
}
