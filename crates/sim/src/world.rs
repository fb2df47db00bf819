//! The simulated world: hosts with power and kernels, daemons that each hold one [`R1Director`], cables, agents, a
//! client, and one clock. The clock moves only when nothing is left to do. Everything happens in one thread, in an
//! order that the seed alone decides.
//!
//! The world does for a director what the daemon does. It gives the director one event, then performs the actions that
//! it wants. It runs the agents, keeps the identity on a disk that survives the loss of power, and stops leftovers
//! before the first beat. After every event [`crate::checks`] checks the invariants.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use locum_core::{
    model::{
        action::{Action, Operation},
        event::{Carrier, Event, FenceOutcome, Outcome, Source, Ticket},
        holding::Holding,
        identity::{LastHeard, LinkIndex, MemberIndex, NodeIndex, PingIndex, ResourceId},
        keys::{Key, Keys},
        note::Note,
        order::{Answer, Order, OrderId},
        resource::Agent,
        time::{Instant, Now},
    },
    r1::{
        director::{R1Director, R1Identity},
        message::Uuid,
        plan::{R1Medium, R1Plan},
        status::R1Status,
    },
};

use crate::{
    checks::Checks,
    net::Segment,
    rng::Rng,
    story::{self, Conduct, Link, Manner, NodeRef},
    transcript::{Fact, ObservedChange, ScriptOutcome},
};

/// Frames that wait in the sockets of a daemon that is not scheduled.
const SOCKET_FRAMES_MAX: usize = 256;
/// Frames of one run of a daemon that can be replayed.
const TAPE_FRAMES_MAX: usize = 4096;
/// Most ticks that a director's own deadline may cause at one moment.
const SPINS_MAX: u32 = 100;
/// Time in which the kernel adds or deletes an address.
const ADDRESS_TIME: Duration = Duration::from_millis(1);
/// Time in which a script reports its status.
const STATUS_TIME: Duration = Duration::from_millis(5);
/// Time in which a device resets a node, or finds that it cannot.
const DEVICE_TIME: Duration = Duration::from_millis(100);
/// Time between the two runs of a daemon that reloads in place.
const RELOAD_TIME: Duration = Duration::from_millis(20);
/// Time until a ping node's answer arrives.
const ECHO_TIME: Duration = Duration::from_micros(300);
/// The wall clock at the beginning of the simulation: 2002-04-01.
const UNIX_BEGIN: u64 = 1_017_619_200;

/// The parts from which a daemon is made.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The node of the story that this daemon is.
    pub node: NodeRef,
    /// Index of the host on which it runs.
    pub host: usize,
    /// The configuration as seen from this node.
    pub plan: Arc<R1Plan>,
    pub keys: Keys,
    /// For each link of the plan, the segment, and the daemon's address there.
    pub links: Vec<(usize, SocketAddr)>,
    /// How scripts behave on this node.
    pub conducts: Vec<Conduct>,
    /// Whether its fencing device works.
    pub device_works: bool,
    /// The node's name, to which conducts refer.
    pub name: String,
}

/// A machine, which daemons share.
#[derive(Debug)]
pub struct Host {
    pub name: String,
    pub is_on: bool,
}

/// A daemon, with its data on the disk and its state in the host's kernel.
pub struct Daemon {
    /// Its parts; keys and conducts are kept up to date.
    pub setup: Setup,
    /// The new plan, if its files were changed since this run began.
    pub written: Option<Arc<R1Plan>>,
    /// Resources that run on its host, as the kernel and the scripts know it.
    pub held: BTreeSet<ResourceId>,
    pub process: ProcessState,
    /// Counts the runs of the daemon, so that events for an earlier run are recognized.
    pub run_number: u64,
    generation: u64,
    remembered: BTreeMap<MemberIndex, LastHeard>,
    /// Frames that it sent, by run.
    tapes: Vec<Vec<SentFrame>>,
}

/// A frame that a daemon sent.
#[derive(Clone)]
struct SentFrame {
    at: u64,
    link: LinkIndex,
    bytes: Arc<[u8]>,
}

/// The process of a daemon.
pub enum ProcessState {
    /// No process is there.
    Down,
    /// It sweeps leftovers before its first beat; these resources are still to be checked.
    Sweeping(Vec<ResourceId>),
    /// It reloads in place: one director has ended and the next has not begun, while all resources run on.
    Reloading,
    Up(Box<Up>),
}

/// The state of a running daemon.
pub struct Up {
    pub director: R1Director,
    /// Whether the process is frozen, so that it is not scheduled.
    pub is_frozen: bool,
    inbox: VecDeque<Input>,
    frames_waiting: usize,
    wake: Option<u64>,
    spins: (u64, u32),
    clock_zero: u64,
    /// Tickets that wait for their answer.
    pub tickets: BTreeMap<Ticket, (ResourceId, Operation)>,
}

/// An [`Event`] that can wait in a queue.
#[derive(Clone, Debug)]
enum Input {
    Tick,
    Frame { link: LinkIndex, from: Source, bytes: Arc<[u8]> },
    Link { link: LinkIndex, state: Carrier },
    Done { ticket: Ticket, outcome: Outcome },
    Fenced { ticket: Ticket, outcome: FenceOutcome },
    Echo { ping: PingIndex, bytes: Arc<[u8]> },
    Order { id: OrderId, order: Order },
    Keys(Keys),
}

/// A future event in the simulation's queue.
enum QueuedEvent {
    Wake { daemon: usize, life: u64 },
    Frame { daemon: usize, life: u64, link: LinkIndex, from: Source, bytes: Arc<[u8]> },
    AgentEnds { daemon: usize, power: u64, life: u64, job: Job },
    Fenced { daemon: usize, life: u64, ticket: Ticket, node: NodeIndex },
    Echo { daemon: usize, life: u64, ping: PingIndex, bytes: Arc<[u8]> },
    Sweep { daemon: usize, life: u64 },
    Return { daemon: usize, life: u64 },
    Reloaded { daemon: usize, life: u64, keeps: Holding },
    Replay { daemon: usize, at: usize, until: u64 },
}

/// An operation of an agent, with the outcome that it will have.
struct Job {
    /// The ticket of the answer; `None` during the sweep.
    ticket: Option<Ticket>,
    resource: ResourceId,
    operation: Operation,
    outcome: Outcome,
}

/// An order that an administrator gave.
#[derive(Debug)]
pub struct PlacedOrder {
    pub daemon: usize,
    /// The run of the daemon that got the order.
    pub run_number: u64,
    pub answer: Option<Answer>,
}

/// A line in the log of a daemon.
#[derive(Clone, Debug)]
pub struct LoggedNote {
    /// When, in nanoseconds since the simulation began.
    pub at: u64,
    pub daemon: usize,
    pub note: Note,
}

/// The simulated world: all hosts, daemons and segments, with the queue of events. See the module.
pub struct World {
    /// Nanoseconds since the beginning.
    pub now: u64,
    pub hosts: Vec<Host>,
    pub daemons: Vec<Daemon>,
    pub segments: Vec<Segment>,
    pub orders: BTreeMap<OrderId, PlacedOrder>,
    /// The logs of all daemons, in the order of time.
    pub notes: Vec<LoggedNote>,
    /// The checks, with the broken invariants that they found.
    pub checks: Checks,
    /// Frames that all daemons sent and heard.
    pub frames: u64,
    /// When the last change seen from outside happened.
    pub last_change: u64,
    /// Operations of agents under way.
    pub jobs: usize,
    power: Vec<u64>,
    facts: Vec<Fact>,
    neighbours: BTreeMap<IpAddr, usize>,
    queue: BTreeMap<(u64, u64), QueuedEvent>,
    queued: u64,
    rng: Rng,
}

impl World {
    /// A world in which no daemon runs yet.
    #[must_use]
    pub fn new(seed: u64, hosts: Vec<String>, links: Vec<Link>) -> Self {
        Self {
            now: 0,
            power: vec![0; hosts.len()],
            hosts: hosts.into_iter().map(|name| Host { name, is_on: true }).collect(),
            daemons: Vec::new(),
            segments: links.into_iter().map(Segment::new).collect(),
            orders: BTreeMap::new(),
            notes: Vec::new(),
            checks: Checks::default(),
            frames: 0,
            last_change: 0,
            jobs: 0,
            facts: Vec::new(),
            neighbours: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
            rng: Rng::new(seed),
        }
    }

    /// Adds a daemon that is not running yet.
    pub fn add(&mut self, setup: Setup) {
        self.daemons.push(Daemon {
            setup,
            written: None,
            held: BTreeSet::new(),
            process: ProcessState::Down,
            run_number: 0,
            generation: 1000,
            remembered: BTreeMap::new(),
            tapes: Vec::new(),
        });
    }

    /// Starts a daemon, and powers on its host first if necessary. Does nothing if the daemon runs.
    pub fn start(&mut self, daemon: usize) {
        self.hosts[self.daemons[daemon].setup.host].is_on = true;
        let d = &mut self.daemons[daemon];
        if !matches!(d.process, ProcessState::Down) {
            return;
        }
        d.run_number += 1;
        d.generation += 1;
        d.read_files();
        let groups = d.setup.plan.groups.iter().enumerate();
        let all = groups.flat_map(|(g, group)| {
            (0..group.resources.len())
                .map(move |member| ResourceId { group: locum_core::model::identity::GroupIndex(g), member })
        });
        // The last resource of this list is looked at first: right to left.
        d.process = ProcessState::Sweeping(all.collect());
        let life = d.run_number;
        self.end_orphans(daemon);
        self.at(self.now, QueuedEvent::Sweep { daemon, life });
    }

    /// Kills operations of an earlier run, before the sweep checks which resources run.
    fn end_orphans(&mut self, daemon: usize) {
        if crate::planted_no_sweep() {
            return;
        }
        let power = self.power[self.daemons[daemon].setup.host];
        let is_orphan = |happening: &QueuedEvent| match happening {
            QueuedEvent::AgentEnds { daemon: d, power: p, .. } => *d == daemon && *p == power,
            _ => false,
        };
        let orphans: Vec<QueuedEvent> =
            self.queue.extract_if(.., |_, happening| is_orphan(happening)).map(|(_, what)| what).collect();
        for orphan in orphans {
            let QueuedEvent::AgentEnds { job, .. } = orphan else { continue };
            self.jobs -= 1;
            if job.operation != Operation::Status {
                self.change(daemon, job.resource, job.operation, &Outcome::TimedOut);
            }
        }
    }

    /// Everything on this host is gone at once, except its disk.
    pub fn power_off(&mut self, host: usize) {
        self.hosts[host].is_on = false;
        self.power[host] += 1;
        for daemon in self.on_host(host) {
            self.end(daemon);
            self.daemons[daemon].held.clear();
        }
    }

    /// Kills the daemon; the kernel, the services and running operations of its agents stay.
    pub fn kill(&mut self, daemon: usize) {
        self.end(daemon);
        self.checks.doubt();
    }

    /// Freezes the daemon (it is not scheduled), or thaws it.
    pub fn freeze(&mut self, daemon: usize, is_frozen: bool) {
        let ProcessState::Up(up) = &mut self.daemons[daemon].process else { return };
        up.is_frozen = is_frozen;
        self.checks.doubt();
        if !is_frozen {
            up.wake = None; // It may have passed unheard.
            self.feed(daemon, Input::Tick);
            loop {
                let ProcessState::Up(up) = &mut self.daemons[daemon].process else { return };
                let Some(input) = up.inbox.pop_front() else { break };
                if matches!(input, Input::Frame { .. }) {
                    up.frames_waiting -= 1;
                }
                self.feed(daemon, input);
            }
        }
    }

    /// Gives a daemon an order of an administrator; `None` if no daemon runs that could answer.
    pub fn order(&mut self, daemon: usize, order: Order) -> Option<OrderId> {
        if !matches!(self.daemons[daemon].process, ProcessState::Up(_)) {
            return None;
        }
        let id = OrderId(self.orders.len() as u64 + 1);
        self.orders
            .insert(id, PlacedOrder { daemon, run_number: self.daemons[daemon].run_number, answer: None });
        self.feed(daemon, Input::Order { id, order });
        Some(id)
    }

    /// Whether an order has its answer, or will never get one because the daemon died.
    #[must_use]
    pub fn is_answered(&self, order: OrderId) -> bool {
        let asked = &self.orders[&order];
        let daemon = &self.daemons[asked.daemon];
        asked.answer.is_some()
            || daemon.run_number != asked.run_number
            || matches!(daemon.process, ProcessState::Down)
    }

    /// Gives the daemon a new `authkeys`, and HUP.
    pub fn rekey(&mut self, daemon: usize, keys: Keys) {
        self.daemons[daemon].setup.keys = keys.clone();
        self.feed(daemon, Input::Keys(keys));
    }

    /// Gives the daemon new files, and HUP.
    pub fn reload(&mut self, daemon: usize, plan: Arc<R1Plan>) -> Option<OrderId> {
        self.daemons[daemon].written = Some(plan);
        self.order(daemon, Order::Reload)
    }

    /// Puts bytes on a segment, as if sent by `from`; all daemons there hear them.
    pub fn inject(&mut self, segment: usize, from: Source, bytes: &[u8]) {
        let bytes: Arc<[u8]> = bytes.into();
        for (daemon, link) in self.listeners(segment) {
            self.hear(self.now + 50_000, daemon, link, from, &bytes);
        }
    }

    /// Until `time` has passed, all daemons on the segments of this daemon hear its old frames: those of the run before
    /// its present or last one.
    pub fn replay(&mut self, daemon: usize, time: Duration) {
        let until = self.now + nanos(time);
        self.at(self.now, QueuedEvent::Replay { daemon, at: 0, until });
    }

    /// The facts seen since the last call, in the order in which they happened.
    pub fn facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
    }

    /// The host whose hardware address the client has for this address, if some host has the address.
    #[must_use]
    pub fn client(&mut self, address: IpAddr) -> Option<usize> {
        if self.lan_is_cut() {
            return None;
        }
        let has = |host: usize| {
            self.on_host(host).into_iter().any(|daemon| {
                let d = &self.daemons[daemon];
                d.held.iter().any(|&r| address_of(&d.setup.plan, r) == Some(address))
            })
        };
        // The client asks for an address that its cache does not have, and then keeps the answer.
        let known = self.neighbours.get(&address).copied();
        let host = known.or_else(|| (0..self.hosts.len()).find(|&host| has(host)))?;
        let answers = has(host).then_some(host);
        self.neighbours.insert(address, host);
        answers
    }

    /// The status that a daemon would report; `None` if it does not run.
    #[must_use]
    pub fn status(&self, daemon: usize) -> Option<R1Status> {
        match &self.daemons[daemon].process {
            ProcessState::Up(up) => Some(up.director.status(moment(self.now, up.clock_zero))),
            ProcessState::Down | ProcessState::Sweeping(_) | ProcessState::Reloading => None,
        }
    }

    /// Lets time pass until `until`, in nanoseconds since the beginning.
    pub fn run_until(&mut self, until: u64) {
        while let Some((&(at, _), _)) = self.queue.first_key_value() {
            if at > until || self.checks.is_bad() {
                break;
            }
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// Handles the next event of the queue; returns `false` if the queue is empty.
    pub fn step(&mut self) -> bool {
        let Some(((at, _), happening)) = self.queue.pop_first() else { return false };
        self.now = self.now.max(at);
        match happening {
            QueuedEvent::Wake { daemon, life } => self.wake(daemon, life),
            QueuedEvent::Frame { daemon, life, link, from, bytes } => {
                if self.daemons[daemon].run_number == life {
                    self.frames += 1;
                    self.feed(daemon, Input::Frame { link, from, bytes });
                }
            }
            QueuedEvent::AgentEnds { daemon, power, life, job } => {
                self.jobs -= 1;
                if self.power[self.daemons[daemon].setup.host] == power {
                    self.agent_ends(daemon, life, job);
                }
            }
            QueuedEvent::Fenced { daemon, life, ticket, node } => {
                self.jobs -= 1;
                if self.daemons[daemon].run_number == life {
                    self.reset(daemon, ticket, node);
                }
            }
            QueuedEvent::Echo { daemon, life, ping, bytes } => {
                if self.daemons[daemon].run_number == life {
                    self.feed(daemon, Input::Echo { ping, bytes });
                }
            }
            QueuedEvent::Sweep { daemon, life } => {
                if self.daemons[daemon].run_number == life {
                    self.sweep(daemon);
                }
            }
            QueuedEvent::Return { daemon, life } => {
                if self.daemons[daemon].run_number == life {
                    self.start(daemon);
                }
            }
            QueuedEvent::Reloaded { daemon, life, keeps } => {
                if self.daemons[daemon].run_number == life {
                    self.first_beat(daemon, Some(keeps));
                }
            }
            QueuedEvent::Replay { daemon, at, until } => self.replay_frame(daemon, at, until),
        }
        true
    }

    /// The indices of all daemons of a host.
    #[must_use]
    pub fn on_host(&self, host: usize) -> Vec<usize> {
        (0..self.daemons.len()).filter(|&d| self.daemons[d].setup.host == host).collect()
    }

    /// The other daemons of the same cluster.
    #[must_use]
    pub fn peers(&self, daemon: usize) -> Vec<usize> {
        let cluster = self.daemons[daemon].setup.node.cluster;
        (0..self.daemons.len())
            .filter(|&d| d != daemon && self.daemons[d].setup.node.cluster == cluster)
            .collect()
    }

    /// Whether two daemons run, are scheduled, know each other's keys, and share a link that carries everything both
    /// ways.
    #[must_use]
    pub fn are_connected(&self, a: usize, b: usize) -> bool {
        let runs = |d: usize| matches!(&self.daemons[d].process, ProcessState::Up(up) if !up.is_frozen);
        let (here, there) = (&self.daemons[a].setup, &self.daemons[b].setup);
        let carries =
            |segment: usize| [here.host, there.host].iter().all(|&h| self.segments[segment].carries(h));
        let reads = |keys: &Keys, key: &Key| {
            keys.all().iter().any(|known| known.method == key.method && known.secret == key.secret)
        };
        let understand = reads(&here.keys, there.keys.signing()) && reads(&there.keys, here.keys.signing());
        runs(a) && runs(b) && understand && here.links.iter().any(|(segment, _)| carries(*segment))
    }

    fn lan_is_cut(&self) -> bool {
        self.segments.iter().any(|s| s.link.cable == story::Cable::Lan && s.is_cut)
    }

    fn at(&mut self, at: u64, happening: QueuedEvent) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    fn end(&mut self, daemon: usize) {
        let d = &mut self.daemons[daemon];
        d.process = ProcessState::Down;
        d.run_number += 1;
        self.checks.ended(daemon);
    }

    fn wake(&mut self, daemon: usize, run_number: u64) {
        let now = self.now;
        let d = &mut self.daemons[daemon];
        if let ProcessState::Up(up) = &mut d.process
            && d.run_number == run_number
            && !up.is_frozen
            && up.wake.is_some_and(|at| at <= now)
        {
            up.wake = None;
            // Only ticks count: a daemon that thaws gets all waiting events at one moment, and has not spun.
            up.spins = if up.spins.0 == now { (now, up.spins.1 + 1) } else { (now, 1) };
            if up.spins.1 > SPINS_MAX {
                return self
                    .checks
                    .fault(format!("daemon {daemon} wants to be woken at once, over and over"));
            }
            self.feed(daemon, Input::Tick);
        }
    }

    /// Gives a daemon an event, now or when it is scheduled again.
    fn feed(&mut self, daemon: usize, input: Input) {
        let now = self.now;
        let ProcessState::Up(up) = &mut self.daemons[daemon].process else { return };
        if up.is_frozen {
            match input {
                Input::Tick => {}
                Input::Frame { .. } if up.frames_waiting >= SOCKET_FRAMES_MAX => {}
                Input::Frame { .. } => {
                    up.frames_waiting += 1;
                    up.inbox.push_back(input);
                }
                other => up.inbox.push_back(other),
            }
            return;
        }
        if let Input::Done { ticket, .. } = &input {
            up.tickets.remove(ticket);
        }
        up.handle(now, &input);
        self.drain(daemon);
        self.look();
    }

    fn drain(&mut self, daemon: usize) {
        loop {
            let ProcessState::Up(up) = &mut self.daemons[daemon].process else { return };
            let Some(action) = up.director.poll() else { break };
            self.perform(daemon, action);
        }
        self.schedule(daemon);
    }

    fn schedule(&mut self, daemon: usize) {
        let now = self.now;
        let ProcessState::Up(up) = &mut self.daemons[daemon].process else { return };
        let deadline = up.director.deadline().as_nanos().saturating_sub(up.clock_zero);
        let deadline = deadline.max(now);
        if up.wake.is_some_and(|at| at <= deadline) {
            return;
        }
        // A timer is never early, and a little late.
        up.wake = Some(deadline);
        let life = self.daemons[daemon].run_number;
        let at = if deadline == now { now } else { deadline + self.rng.below(100_000) };
        self.at(at, QueuedEvent::Wake { daemon, life });
    }

    fn perform(&mut self, daemon: usize, action: Action) {
        match action {
            Action::Send { link, bytes } => self.send(daemon, link, bytes),
            Action::Ping { ping, bytes } => self.ping(daemon, ping, bytes),
            Action::Run { ticket, resource, operation, limit, .. } => {
                self.run(daemon, ticket, resource, operation, limit);
            }
            Action::Abandon(ticket) => self.abandon(daemon, ticket),
            Action::Announce(resource) => self.announce(daemon, resource),
            Action::EventScript { .. } => {} // No story has scripts of its own.
            Action::Fence { ticket, node } => {
                let life = self.daemons[daemon].run_number;
                self.jobs += 1;
                self.at(self.now + nanos(DEVICE_TIME), QueuedEvent::Fenced { daemon, life, ticket, node });
            }
            Action::Reply { order, answer } => match self.orders.get_mut(&order) {
                Some(asked) if asked.answer.is_none() && asked.daemon == daemon => {
                    asked.answer = Some(answer)
                }
                _ => self.checks.fault(format!("daemon {daemon} answers {order:?} that nobody waits for")),
            },
            Action::Remember { member, heard } => {
                let before = self.daemons[daemon].remembered.insert(member, heard);
                if before.is_some_and(|before| before > heard) {
                    self.checks.fault(format!("daemon {daemon} remembers something older"));
                }
            }
            Action::Note(note) => self.notes.push(LoggedNote { at: self.now, daemon, note }),
            Action::Gate { group, lease } => self.check_gate(daemon, group, lease),
            Action::SendTo { .. }
            | Action::AnnounceClaim { .. }
            | Action::Proofs { .. }
            | Action::Write(_) => {
                self.checks.fault(format!("daemon {daemon} wants what R1 does not have"));
            }
            Action::Exit { keeps: Some(keeps), .. } => self.reloaded(daemon, keeps),
            Action::Exit { clean, restart, keeps: None } => {
                if clean {
                    self.check_exit(daemon);
                } else {
                    self.checks.doubt();
                }
                self.end(daemon);
                self.last_change = self.now;
                if let Some(after) = restart {
                    let life = self.daemons[daemon].run_number;
                    self.at(self.now + nanos(after), QueuedEvent::Return { daemon, life });
                }
            }
        }
    }

    fn send(&mut self, daemon: usize, link: LinkIndex, bytes: Arc<[u8]>) {
        self.check_frame(daemon, link, &bytes);
        let d = &mut self.daemons[daemon];
        let Some(&(segment, address)) = d.setup.links.get(link.0) else {
            return self.checks.fault(format!("daemon {daemon} sends on {link:?}, which it does not have"));
        };
        if let Some(tape) = d.tapes.last_mut()
            && tape.len() < TAPE_FRAMES_MAX
        {
            tape.push(SentFrame { at: self.now, link, bytes: bytes.clone() });
        }
        let host = d.setup.host;
        let baud = d.setup.plan.links[link.0].media.iter().find_map(|medium| match medium {
            R1Medium::Serial { baud, .. } => Some(*baud),
            R1Medium::Broadcast { .. } | R1Medium::Multicast { .. } | R1Medium::Unicast { .. } => None,
        });
        let Some(left) = self.segments[segment].depart(self.now, host, bytes.len(), baud.unwrap_or(u32::MAX))
        else {
            return;
        };
        for (listener, its_link) in self.listeners(segment) {
            let there = &self.daemons[listener].setup;
            if baud.is_some() {
                // A null modem has two ends, and no host hears itself.
                if there.host != host && there.node.cluster == self.daemons[daemon].setup.node.cluster {
                    self.deliver(left, segment, listener, its_link, Source::Serial, &bytes);
                }
            } else if there.links[its_link.0].1.port() == address.port() {
                self.deliver(left, segment, listener, its_link, Source::Udp(address), &bytes);
            }
        }
    }

    /// Ping nodes are on the client's segment and always answer.
    fn ping(&mut self, daemon: usize, ping: PingIndex, bytes: Arc<[u8]>) {
        let (host, life) = (self.daemons[daemon].setup.host, self.daemons[daemon].run_number);
        let mut lan = self.segments.iter().filter(|segment| segment.link.cable == story::Cable::Lan);
        if lan.all(|segment| !segment.is_cut && !segment.muted.contains(&host)) {
            self.at(self.now + nanos(ECHO_TIME), QueuedEvent::Echo { daemon, life, ping, bytes });
        }
    }

    /// The fencing device of a daemon has finished.
    fn reset(&mut self, daemon: usize, ticket: Ticket, node: NodeIndex) {
        let setup = &self.daemons[daemon].setup;
        let (name, works) = (setup.plan.nodes[node.0].clone(), setup.device_works);
        let host = self.hosts.iter().position(|host| host.name == name);
        let outcome = match host.filter(|_| works) {
            Some(host) => {
                self.power_off(host);
                FenceOutcome::Ok
            }
            None => FenceOutcome::Bad("the device does not answer".to_owned()),
        };
        self.feed(daemon, Input::Fenced { ticket, outcome });
    }

    fn deliver(
        &mut self,
        left: u64,
        segment: usize,
        listener: usize,
        link: LinkIndex,
        from: Source,
        bytes: &Arc<[u8]>,
    ) {
        for at in self.segments[segment].arrive(left, listener, &mut self.rng) {
            self.hear(at, listener, link, from, bytes);
        }
    }

    fn hear(&mut self, at: u64, daemon: usize, link: LinkIndex, from: Source, bytes: &Arc<[u8]>) {
        let life = self.daemons[daemon].run_number;
        if matches!(self.daemons[daemon].process, ProcessState::Up(_)) {
            self.at(at, QueuedEvent::Frame { daemon, life, link, from, bytes: bytes.clone() });
        }
    }

    /// The daemons that have a link on a segment, with that link.
    fn listeners(&self, segment: usize) -> Vec<(usize, LinkIndex)> {
        let mut listeners = Vec::new();
        for (daemon, d) in self.daemons.iter().enumerate() {
            for (link, &(its, _)) in d.setup.links.iter().enumerate() {
                if its == segment {
                    listeners.push((daemon, LinkIndex(link)));
                }
            }
        }
        listeners
    }

    fn announce(&mut self, daemon: usize, resource: ResourceId) {
        let d = &self.daemons[daemon];
        let Some(address) = address_of(&d.setup.plan, resource) else {
            return self
                .checks
                .fault(format!("daemon {daemon} announces {resource:?}, which has no address"));
        };
        if !d.held.contains(&resource) {
            return self.checks.fault(format!("daemon {daemon} announces {address}, which it does not have"));
        }
        self.heard_by_client(address, self.daemons[daemon].setup.host);
    }

    fn heard_by_client(&mut self, address: IpAddr, host: usize) {
        if !self.lan_is_cut() {
            self.neighbours.insert(address, host);
        }
    }

    fn run(
        &mut self,
        daemon: usize,
        ticket: Ticket,
        resource: ResourceId,
        operation: Operation,
        limit: Duration,
    ) {
        self.check_run(daemon, ticket, resource, operation);
        let (took, outcome) = self.course(daemon, resource, operation);
        let (took, outcome) = if took > limit { (limit, Outcome::TimedOut) } else { (took, outcome) };
        if let ProcessState::Up(up) = &mut self.daemons[daemon].process {
            up.tickets.insert(ticket, (resource, operation));
        }
        self.begin(daemon, took, Job { ticket: Some(ticket), resource, operation, outcome });
    }

    /// The operation is killed now, and not at its end.
    fn abandon(&mut self, daemon: usize, ticket: Ticket) {
        let is_it = |happening: &QueuedEvent| match happening {
            QueuedEvent::AgentEnds { daemon: d, job, .. } => *d == daemon && job.ticket == Some(ticket),
            _ => false,
        };
        let Some((_, QueuedEvent::AgentEnds { mut job, .. })) =
            self.queue.extract_if(.., |_, happening| is_it(happening)).next()
        else {
            return;
        };
        self.jobs -= 1;
        job.outcome = Outcome::TimedOut;
        self.begin(daemon, Duration::ZERO, job);
    }

    fn begin(&mut self, daemon: usize, took: Duration, job: Job) {
        let d = &self.daemons[daemon];
        let (power, life) = (self.power[d.setup.host], d.run_number);
        self.jobs += 1;
        self.at(self.now + nanos(took), QueuedEvent::AgentEnds { daemon, power, life, job });
    }

    /// How long an operation begun now takes and how it ends, if nothing ends it before. The outcome of a status is
    /// read at its end.
    fn course(&self, daemon: usize, resource: ResourceId, operation: Operation) -> (Duration, Outcome) {
        let d = &self.daemons[daemon];
        let what = d.setup.plan.resource(resource);
        let is_address = matches!(what.agent, Agent::Address(_));
        let which = match operation {
            Operation::Status if is_address => return (ADDRESS_TIME, Outcome::Stopped),
            // R1 has no such operations: the checks report the last two as faults.
            Operation::Status | Operation::Terminate | Operation::Kill => {
                return (STATUS_TIME, Outcome::Stopped);
            }
            Operation::Start => story::Operation::Start,
            Operation::Stop => story::Operation::Stop,
        };
        let said = |c: &&Conduct| {
            c.script == what.script
                && c.operation == which
                && c.node.as_ref().is_none_or(|n| *n == d.setup.name)
        };
        let manner = d.setup.conducts.iter().rev().find(said).map_or(Manner::Works, |c| c.manner);
        match manner {
            Manner::Works if is_address => (ADDRESS_TIME, Outcome::Ok),
            Manner::Works => (Manner::USUAL, Outcome::Ok),
            Manner::Takes(time) => (time, Outcome::Ok),
            Manner::Fails => (Manner::USUAL, Outcome::Failed("exit code 1".to_owned())),
            Manner::Hangs => (Duration::from_secs(86_400), Outcome::Ok),
        }
    }

    fn agent_ends(&mut self, daemon: usize, run_number: u64, job: Job) {
        let Job { ticket, resource, operation, mut outcome } = job;
        match operation {
            Operation::Status => {
                let runs = self.daemons[daemon].held.contains(&resource);
                outcome = if runs { Outcome::Running } else { Outcome::Stopped };
            }
            Operation::Start | Operation::Stop => self.change(daemon, resource, operation, &outcome),
            Operation::Terminate | Operation::Kill => {}
        }
        if self.daemons[daemon].run_number != run_number {
            return; // An operation of an earlier run: its work is done, but no daemon waits for the answer.
        }
        match ticket {
            Some(ticket) => self.feed(daemon, Input::Done { ticket, outcome }),
            None => self.swept(daemon, resource, operation, &outcome),
        }
    }

    /// A start or stop has ended: updates the kernel's state and records the fact.
    fn change(&mut self, daemon: usize, resource: ResourceId, operation: Operation, outcome: &Outcome) {
        let d = &mut self.daemons[daemon];
        let end = match outcome {
            Outcome::Ok => ScriptOutcome::Succeeded,
            Outcome::TimedOut => ScriptOutcome::Killed,
            _ => ScriptOutcome::Failed,
        };
        let text = d.setup.plan.resource(resource).text.clone();
        let changed = match (operation, end) {
            (Operation::Start, ScriptOutcome::Succeeded) => d.held.insert(resource),
            (Operation::Stop, ScriptOutcome::Succeeded) => d.held.remove(&resource),
            (Operation::Start, _) => !d.held.contains(&resource),
            _ => d.held.contains(&resource),
        };
        if !changed {
            return;
        }
        let sight = match (address_of(&d.setup.plan, resource), operation) {
            (Some(_), _) if end != ScriptOutcome::Succeeded => return,
            (Some(ip), Operation::Start) => ObservedChange::AddressUp(ip),
            (Some(ip), _) => ObservedChange::AddressDown(ip),
            (None, Operation::Start) => ObservedChange::Start(text, end),
            (None, _) => ObservedChange::Stop(text, end),
        };
        let (host, address) = (d.setup.host, address_of(&d.setup.plan, resource));
        self.facts.push(Fact { node: d.setup.node, group: resource.group.0, change: sight });
        self.last_change = self.now;
        if let (Some(address), Operation::Start, false) =
            (address, operation, crate::planted_no_announcement())
        {
            self.heard_by_client(address, host); // A node that takes an address announces it.
        }
        self.check_held(daemon, resource);
    }

    /// Looks at the leftovers of an earlier run one after the other, and stops them.
    fn sweep(&mut self, daemon: usize) {
        let ProcessState::Sweeping(left) = &mut self.daemons[daemon].process else { return };
        match left.pop() {
            // In a cluster of one node, leftovers may run on.
            Some(resource)
                if self.daemons[daemon].setup.plan.peer().is_some() && !crate::planted_no_sweep() =>
            {
                let (took, outcome) = self.course(daemon, resource, Operation::Status);
                let job = Job { ticket: None, resource, operation: Operation::Status, outcome };
                self.begin(daemon, took, job);
            }
            _ => self.first_beat(daemon, None),
        }
    }

    fn swept(&mut self, daemon: usize, resource: ResourceId, operation: Operation, outcome: &Outcome) {
        if operation == Operation::Status && *outcome == Outcome::Running {
            let (took, outcome) = self.course(daemon, resource, Operation::Stop);
            let limit = self.daemons[daemon].setup.plan.limits.stop;
            let (took, outcome) = if took > limit { (limit, Outcome::TimedOut) } else { (took, outcome) };
            return self.begin(
                daemon,
                took,
                Job { ticket: None, resource, operation: Operation::Stop, outcome },
            );
        }
        self.sweep(daemon);
    }

    /// A run has ended without stopping anything; the next run begins with the new files.
    fn reloaded(&mut self, daemon: usize, keeps: Holding) {
        self.end(daemon);
        let d = &mut self.daemons[daemon];
        d.process = ProcessState::Reloading;
        d.generation += 1;
        d.read_files();
        let life = d.run_number;
        self.at(self.now + nanos(RELOAD_TIME), QueuedEvent::Reloaded { daemon, life, keeps });
    }

    fn first_beat(&mut self, daemon: usize, keeps: Option<Holding>) {
        let seed = self.rng.bits();
        // At every start the monotonic clock begins at another value.
        let clock_zero = self.rng.below(1 << 50);
        let now = self.now;
        let d = &mut self.daemons[daemon];
        let mut uuid = [0x40; 16];
        uuid[0] = u8::try_from(daemon).unwrap_or(u8::MAX);
        let peer = d.setup.plan.peer();
        // Leftovers that still run after the sweep could not be stopped.
        let is_swept = keeps.is_none() && peer.is_some() && !crate::planted_no_sweep();
        let stuck = if is_swept { d.held.iter().copied().collect() } else { Vec::new() };
        if !stuck.is_empty() {
            self.checks.doubt();
        }
        let identity = R1Identity {
            uuid: Uuid(uuid),
            generation: d.generation,
            seed,
            stop_failed: stuck,
            keeps,
            peer_heard: peer.and_then(|peer| d.remembered.get(&peer.into()).copied()),
        };
        let director =
            R1Director::new(d.setup.plan.clone(), d.setup.keys.clone(), identity, moment(now, clock_zero));
        d.tapes.push(Vec::new());
        d.process = ProcessState::Up(Box::new(Up {
            director,
            is_frozen: false,
            inbox: VecDeque::new(),
            frames_waiting: 0,
            wake: None,
            spins: (0, 0),
            clock_zero,
            tickets: BTreeMap::new(),
        }));
        self.drain(daemon);
        for link in 0..self.daemons[daemon].setup.links.len() {
            self.feed(daemon, Input::Link { link: LinkIndex(link), state: Carrier::Up });
        }
    }

    fn replay_frame(&mut self, daemon: usize, at: usize, until: u64) {
        let d = &self.daemons[daemon];
        let earlier = d.tapes.len().checked_sub(2).map(|life| &d.tapes[life]);
        let Some(tape) = earlier.filter(|tape| !tape.is_empty()) else { return };
        let SentFrame { at: sent, link, bytes } = tape[at % tape.len()].clone();
        let next = tape[(at + 1) % tape.len()].at.saturating_sub(sent);
        let (segment, address) = d.setup.links[link.0];
        let is_serial = d.setup.plan.links[link.0].is_serial();
        self.inject(segment, if is_serial { Source::Serial } else { Source::Udp(address) }, &bytes);
        if self.now < until {
            self.at(self.now + next.max(1_000_000), QueuedEvent::Replay { daemon, at: at + 1, until });
        }
    }
}

impl Daemon {
    fn read_files(&mut self) {
        if let Some(plan) = self.written.take() {
            self.setup.plan = plan;
        }
    }

    /// The generation of its present or last run.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The first frames that it sent in its present or last run.
    pub fn tape(&self) -> impl Iterator<Item = &[u8]> {
        self.tapes.last().into_iter().flatten().map(|said| said.bytes.as_ref())
    }
}

impl Up {
    fn handle(&mut self, now: u64, input: &Input) {
        let event = match input {
            Input::Tick => Event::Tick,
            Input::Frame { link, from, bytes } => Event::Frame { link: *link, from: *from, bytes },
            Input::Link { link, state } => Event::Link { link: *link, state: state.clone() },
            Input::Done { ticket, outcome } => Event::Done { ticket: *ticket, outcome: outcome.clone() },
            Input::Fenced { ticket, outcome } => Event::Fenced { ticket: *ticket, outcome: outcome.clone() },
            Input::Echo { ping, bytes } => Event::Echo { ping: *ping, bytes },
            Input::Order { id, order } => Event::Order { id: *id, order: *order },
            Input::Keys(keys) => Event::Keys(keys.clone()),
        };
        self.director.handle(moment(now, self.clock_zero), event);
    }
}

/// The time that a daemon's clocks show.
fn moment(now: u64, clock_zero: u64) -> Now {
    Now { instant: Instant::from_nanos(now + clock_zero), unix_seconds: UNIX_BEGIN + now / 1_000_000_000 }
}

/// The address of a resource, if the resource is an address.
#[must_use]
pub fn address_of(plan: &R1Plan, resource: ResourceId) -> Option<IpAddr> {
    match &plan.resource(resource).agent {
        Agent::Address(address) => Some(address.ip),
        _ => None,
    }
}

/// Converts a time to nanoseconds; simulated times are far below the limit of 64 bits.
#[must_use]
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}
