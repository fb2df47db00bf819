//! The entry point of the R1 dialect: events go in, actions come out.
//!
//! The driver's contract: feed one event with [`R1Director::handle`]. Before the next event, perform everything that
//! [`R1Director::poll`] gives, oldest first. Feed [`Event::Tick`] no later than [`R1Director::deadline`].
//!
//! The director composes the parts and does what belongs to none of them. It sends beats. It authenticates frames and
//! leads them past numbering and liveness to the dialect. It carries the dialect's steps to the groups and the wire,
//! and keeps the data for [`R1Status`].

use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{cmp::Ordering, fmt::Display};

use super::{
    message::{Body, NodeState, R1Message, Uuid},
    ownership::{R1Ownership, R1State, R1Step, R1View},
    plan::{AutoFailback, R1Plan},
    sequence::{GenerationVerdict, NumberVerdict, PeerSequence, RexmitAnswer, SentHistory},
    sets::Sets,
    status::{self, R1Status},
};
use crate::{
    framing::{
        frame::{self, FrameRefusal, Framing},
        reception::Reception,
        refusals::RefusalAlarm,
    },
    group::{GroupEvent, GroupPhase},
    liveness::{Liveness, LivenessEvent, Watch, services::Services},
    model::{
        action::{Action, GateLease},
        breakage::{self, Breakage},
        claim::Ballot,
        event::{Carrier, Event, FenceOutcome, Source, Ticket},
        holding::Holding,
        identity::{GroupIndex, LastHeard, LinkIndex, NodeIndex, PingIndex, ResourceId},
        keys::Keys,
        note::{Escaped, Level, Note},
        order::{Answer, Order, OrderId},
        resource::Agent,
        time::{Duration, Instant, Now},
    },
};

mod exchange;
mod files;
mod gates;
mod inbound;
mod ipfail;
mod outbound;
mod report;
mod scripts;

use files::Agreement;
use ipfail::Ipfail;

/// The version of Locum's extension to R1 that our status carries.
pub const LOCUM_VERSION: u32 = 1;
/// Upper bound of a peer's `dt`; a larger value is cut to this.
pub const DEADTIME_MAX: Duration = Duration::from_secs(3600);
/// Wait before the peer's node list is asked for again.
pub const REQNODES_PAUSE: Duration = Duration::from_secs(1);
/// How long a node still answers after `shutdone`. It ends earlier when the peer says that it took over.
pub const LINGER: Duration = Duration::from_secs(2);
/// Most messages of the peer that wait for a missing one. Beyond this number the missing ones are given up.
pub const WAITING_MAX: usize = 64;
/// How often the newest generation and number heard of a living peer are stored.
pub const REMEMBER_EVERY: Duration = Duration::from_secs(60);
/// Shortest beat interval that a peer with a short `dt` can cause on this node.
pub const BEAT_MIN: Duration = Duration::from_millis(100);
/// Default weight of a node, as in heartbeat (`hb_setweight` changes it).
pub const WEIGHT: u32 = 100;
/// Interval at which a lasting two-owner state is logged again.
pub const CONTEST_PAUSE: Duration = Duration::from_secs(60);

/// This node's identity and the state it starts with: from the state directory and the sweep of leftovers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct R1Identity {
    /// Identifies this node permanently.
    pub uuid: Uuid,
    /// The generation of this daemon start; larger than any before.
    pub generation: u64,
    /// The newest generation and number heard of the peer before this start.
    pub peer_heard: Option<LastHeard>,
    /// Resources left running by an earlier daemon start that could not be stopped, in the order of the plan.
    pub stop_failed: Vec<ResourceId>,
    /// The sets that the daemon held and left running before a reload in place; `None` for a fresh start.
    pub keeps: Option<Holding>,
    /// Any number; it spreads acknowledgements and requests in time.
    pub seed: u64,
}

/// The R1 director of one node: it decides everything and does no I/O.
#[derive(Debug)]
pub struct R1Director {
    plan: Arc<R1Plan>,
    reception: Reception,
    identity: R1Identity,
    now: Now,
    started: Instant,
    random: u64,
    load: String,
    state: NodeState,
    next_beat: Instant,
    sent: SentHistory,
    links: Vec<LinkView>,
    pings: Vec<Watch>,
    peer: Option<R1Peer>,
    groups: Sets,
    services: Services,
    /// The groups whose clients cannot reach this node.
    unreachable: Vec<GroupIndex>,
    owner_history: Vec<OwnerHistory>,
    labels: Vec<NodeLabel>,
    r1: R1Ownership,
    ipfail: Option<Ipfail>,
    /// The question to the fencing device that is still open.
    fencing: Option<Ticket>,
    left: Option<Departure>,
    contest_noted_at: Option<Instant>,
    files: Agreement,
    out: VecDeque<Action>,
}

#[derive(Debug)]
struct LinkView {
    /// Liveness of the peer as heard over this link.
    watch: Watch,
}

#[derive(Debug)]
struct R1Peer {
    node: NodeIndex,
    name: String,
    watch: Watch,
    received: PeerSequence,
    uuid: Option<Uuid>,
    locum: Option<bool>,
    /// The sets that it kept through a reload in place, if its daemon started so.
    keeps: Option<Holding>,
    /// The groups that it says it could not start.
    failed: Vec<GroupIndex>,
    /// The groups whose clients cannot reach it, as it says.
    unreachable: Vec<GroupIndex>,
    /// The state it last announced in its present generation.
    state: Option<NodeState>,
    /// It said goodbye in its present generation.
    left: bool,
    /// Number of its newest status in this generation. A status that is not newer cannot bring it back from the dead.
    last_status: u64,
    /// Messages that it sent after one that is still missing, by number.
    waiting: BTreeMap<u64, R1Message>,
    comm: Comm,
    /// Its `dt`: how long it waits for our beats before it takes us for dead.
    waits: Option<Duration>,
    /// When the newest heard of it was last stored.
    remembered: Instant,
}

/// Whether this node may take part. It may when every node is heard of or known dead, and a living peer has sent its
/// node list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comm {
    Waiting,
    Asking(Instant),
    Up,
}

/// Who runs a group, since when, and how long it was without an owner: for the status.
#[derive(Clone, Copy, Debug, Default)]
struct OwnerHistory {
    owner: Option<NodeIndex>,
    since: Option<Instant>,
    ownerless: Option<Instant>,
    last_outage: Option<Duration>,
}

/// Weight and site of a node as set by `hb_setweight` and `hb_setsite`: kept and shown, without effect.
#[derive(Clone, Debug)]
struct NodeLabel {
    weight: u32,
    site: String,
}

#[derive(Clone, Copy, Debug)]
struct Departure {
    until: Instant,
    restart: bool,
    clean: bool,
}

impl R1Director {
    /// Makes a node that has just started: links closed, nothing held, no node heard.
    #[must_use]
    pub fn new(plan: Arc<R1Plan>, keys: Keys, identity: R1Identity, now: Now) -> Self {
        let timing = plan.timing;
        let unheard = || Watch::new(now.instant, timing.initdead);
        let links = plan.links.iter().map(|_| LinkView { watch: unheard() }).collect();
        let pings = plan.pings.iter().map(|_| unheard()).collect();
        let peer = plan.peer().map(|node| R1Peer {
            node,
            name: plan.nodes[node.0].clone(),
            watch: unheard(),
            received: PeerSequence::new(identity.peer_heard, identity.seed),
            uuid: None,
            locum: None,
            keeps: None,
            failed: Vec::new(),
            unreachable: Vec::new(),
            state: None,
            left: false,
            last_status: 0,
            waiting: BTreeMap::new(),
            comm: Comm::Waiting,
            waits: None,
            remembered: now.instant,
        });
        let mut director = Self {
            reception: Reception::new(keys, plan.links.len(), timing.keepalive),
            now,
            started: now.instant,
            random: identity.seed | 1,
            load: String::from("n/a"),
            state: NodeState::Init,
            next_beat: now.instant,
            sent: SentHistory::default(),
            links,
            pings,
            peer,
            groups: Sets::new(&plan, &identity.stop_failed),
            services: Services::new(timing.keepalive, now.instant),
            unreachable: Vec::new(),
            owner_history: plan.groups.iter().map(|_| OwnerHistory::default()).collect(),
            labels: plan.nodes.iter().map(|_| NodeLabel { weight: WEIGHT, site: String::new() }).collect(),
            r1: R1Ownership::new(plan.auto_failback, identity.keeps),
            ipfail: Ipfail::new(&plan),
            fencing: None,
            left: None,
            contest_noted_at: None,
            files: Agreement::new(&plan),
            out: VecDeque::new(),
            identity,
            plan,
        };
        director.note(Level::Info, format!("Heartbeat generation: {}", director.identity.generation));
        director.say_status();
        director.state = NodeState::Up;
        director.note(Level::Info, "Local status now set to: 'up'".to_string());
        director.beat();
        director.come_up();
        director.settle();
        director
    }

    /// Handles one event. Call [`Self::poll`] until it is empty before the next event.
    pub fn handle(&mut self, now: Now, event: Event<'_>) {
        // The pause began at the deadline, or at our last call if that came later.
        let due = self.deadline().max(self.now.instant);
        self.now = Now { instant: now.instant.max(self.now.instant), unix_seconds: now.unix_seconds };
        self.forgive_own_pause(due);
        match event {
            Event::Tick => self.tick(),
            Event::Frame { link, from, bytes } => self.frame(link, from, bytes),
            Event::Echo { ping, bytes } => self.echo(ping, bytes),
            Event::Link { link, state } => self.carrier(link, state),
            Event::Done { ticket, outcome } => {
                self.groups.done(self.now.instant, ticket, &outcome, &mut self.out);
            }
            Event::Fenced { ticket, outcome } => {
                // An answer to an earlier question does not count.
                let awaited = self.fencing.take_if(|asked| *asked == ticket).is_some();
                if awaited && self.r1.is_fencing() {
                    self.with_r1(|r1, view| r1.fenced(view, &outcome));
                    if let Some(peer) = self.peer.as_mut().filter(|_| outcome == FenceOutcome::Ok) {
                        peer.watch.note(LivenessEvent::Proved);
                    }
                }
            }
            // R1 waits for no disk and has no witnesses.
            Event::Written { .. } | Event::OwnAddress { .. } => {}
            Event::Script(fields) => self.script(fields),
            Event::AddressGone(resource) => self.groups.address_gone(resource, &mut self.out),
            Event::Service { resource, state: Carrier::Barred(why) } => self.bar(resource, why),
            Event::Service { resource, state } => {
                let group = self.plan.groups.get(resource.group.0);
                if group.is_some_and(|group| resource.member < group.resources.len()) {
                    self.services.report(self.now.instant, resource, state);
                    self.services_go_on();
                }
            }
            Event::Order { id, order } => self.order(id, order),
            Event::Keys(keys) => {
                let text = self.reception.reread("authkeys", keys);
                self.note(Level::Info, text);
            }
            Event::Load(load) => {
                self.load.clear();
                self.load.push_str(load);
            }
        }
        self.settle();
    }

    /// The next action to perform, oldest first.
    pub fn poll(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    /// The latest time for the next [`Event::Tick`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let links = self.links.iter().filter(|link| link.watch.heard() > self.started);
        let watches = links.map(|link| &link.watch).chain(&self.pings).filter_map(Watch::deadline);
        let peer = self.peer.as_ref().into_iter().flat_map(|peer| {
            let asking = match peer.comm {
                Comm::Asking(again) => Some(again),
                Comm::Waiting | Comm::Up => None,
            };
            [peer.watch.deadline(), peer.received.deadline(), asking].into_iter().flatten()
        });
        let others = [
            self.groups.deadline(),
            self.services.deadline(),
            self.r1.deadline(),
            self.left.map(|leaving| leaving.until),
            self.contest_noted_at.map(|at| at + CONTEST_PAUSE),
            self.reception.deadline(),
            self.ipfail.as_ref().and_then(Ipfail::deadline),
        ];
        watches.chain(peer).chain(others.into_iter().flatten()).fold(self.next_beat, Instant::min)
    }

    /// Whether this node takes part: every node was heard of or is known dead.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == NodeState::Active
    }

    /// When the next beat is due; every beat moves it.
    #[must_use]
    pub const fn next_beat(&self) -> Instant {
        self.next_beat
    }

    /// The addresses that this node should carry now; the driver compares them with the kernel.
    pub fn addresses(&self) -> impl Iterator<Item = ResourceId> + use<'_> {
        self.groups.addresses_of(Holding::All)
    }

    // ---- time ------------------------------------------------------------

    /// If this process itself did not run for long, the silence in that time does not count against others.
    fn forgive_own_pause(&mut self, due: Instant) {
        let late = self.now.instant.since(due);
        if late < self.plan.timing.deadtime / 2 {
            return;
        }
        let text = format!(
            "this daemon did not run for {:.1} s; the silence of other nodes in that time does not count",
            late.as_secs_f64()
        );
        self.note(Level::Warning, text);
        let now = self.now.instant;
        if let Some(peer) = &mut self.peer {
            peer.watch.forgive(now, late);
        }
        self.links.iter_mut().for_each(|link| link.watch.forgive(now, late));
        self.pings.iter_mut().for_each(|watch| watch.forgive(now, late));
    }

    fn tick(&mut self) {
        let now = self.now.instant;
        if now >= self.next_beat {
            self.beat();
        }
        self.watch_links();
        self.watch_pings();
        self.watch_peer();
        self.ipfail_goes_on();
        self.ask_for_missing();
        self.groups.tick(now, &mut self.out);
        self.services_go_on();
        self.with_r1(R1Ownership::tick);
        self.repeat_contest();
        while let Some(text) = self.reception.tell(now) {
            self.note(Level::Warning, text);
        }
        if self.left.is_some_and(|leaving| now >= leaving.until) {
            self.exit();
        }
    }

    /// Sends a beat: a status over every link and an echo to every ping node. It also extends the gates' leases.
    fn beat(&mut self) {
        let now = self.now.instant;
        let every = self.beat_interval();
        self.next_beat = self.next_beat + every;
        if self.next_beat <= now {
            self.next_beat = now + every;
        }
        self.files.mark(now, self.sent.last());
        self.say_status();
        self.ping_all();
        self.open_gates();
    }

    /// The beat interval: keepalive, or less in two cases. A peer with a short `dt` would take us for dead between two
    /// such beats (a real heartbeat goes by its own deadtime as well as by ours). While the files' lines are being
    /// sent, beats carry the pieces.
    fn beat_interval(&self) -> Duration {
        let keepalive = self.plan.timing.keepalive;
        let every = match self.peer.as_ref().and_then(|peer| peer.waits) {
            Some(waits) if waits <= keepalive * 2 => (waits / 4).max(BEAT_MIN).min(keepalive),
            _ => keepalive,
        };
        self.exchange_interval().map_or(every, |pace| pace.min(every))
    }

    /// Handles carrier changes of the interfaces of service addresses. Heartbeat's nodes do not announce this, and no
    /// running group is moved for it (`ipfail` may do that). The peer is told, so that it hands over nothing that
    /// clients could not reach here. Groups that failed to start because an interface was down are tried again.
    fn services_go_on(&mut self) {
        for (resource, trouble) in self.services.elapse(self.now.instant) {
            let group = &self.plan.groups[resource.group.0];
            let text = &group.resources[resource.member].text;
            let (level, text) = match trouble {
                Some(why) => (Level::Warning, format!("{text}: clients cannot reach it on this node: {why}")),
                None => (Level::Info, format!("{text}: clients can reach it on this node again")),
            };
            let group = Some(group.key.clone());
            self.out.push_back(Action::Note(Note { level, group, epoch: None, text }));
        }
        let cut = self.services.unreachable();
        if cut == self.unreachable {
            return;
        }
        let before = core::mem::replace(&mut self.unreachable, cut);
        self.say_status();
        let back: Vec<GroupIndex> =
            before.into_iter().filter(|group| !self.unreachable.contains(group)).collect();
        self.with_r1(|r1, view| r1.interfaces_back(view, &back));
    }

    fn watch_links(&mut self) {
        let now = self.now.instant;
        for index in 0..self.links.len() {
            match self.links[index].watch.elapse(now) {
                Some(LivenessEvent::DeadElapsed) if self.links[index].watch.heard() > self.started => {
                    let peer = self.peer.as_ref().map_or("", |peer| peer.name.as_str());
                    let text = format!("Link {peer}:{} dead.", self.plan.links[index].name);
                    self.note(Level::Warning, text);
                    self.ipfail.iter_mut().for_each(Ipfail::note_change);
                    if breakage::is(Breakage::LinkLossIsDeath)
                        && let Some(peer) = &mut self.peer
                    {
                        peer.watch.note(LivenessEvent::DeadElapsed);
                        self.peer_fell_silent();
                    }
                }
                _ => {}
            }
        }
    }

    fn watch_pings(&mut self) {
        let now = self.now.instant;
        for index in 0..self.pings.len() {
            if self.pings[index].elapse(now) == Some(LivenessEvent::DeadElapsed) {
                self.note(
                    Level::Warning,
                    format!("ping node {} does not answer", self.plan.pings[index].name),
                );
                self.ipfail.iter_mut().for_each(Ipfail::note_change);
            }
        }
    }

    fn watch_peer(&mut self) {
        let now = self.now.instant;
        let Some(peer) = &mut self.peer else { return };
        let silence = now.since(peer.watch.heard());
        match peer.watch.elapse(now) {
            Some(LivenessEvent::WarnElapsed) if !peer.left => {
                let text = format!("Late heartbeat: Node {}: interval {} ms", peer.name, silence.as_millis());
                self.note(Level::Warning, text);
            }
            Some(LivenessEvent::DeadElapsed) => self.peer_fell_silent(),
            _ => {}
        }
        if let Some(R1Peer { comm: Comm::Asking(again), .. }) = &self.peer
            && now >= *again
        {
            self.ask_for_nodes();
        }
    }

    /// Handles a peer that was not heard for its deadtime. Guard `none` takes this as proof of its death.
    fn peer_fell_silent(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        let silence = self.now.instant.since(peer.watch.heard());
        peer.received.stop_asking();
        peer.waiting.clear();
        self.remember();
        let Some(peer) = &self.peer else { return };
        self.ipfail.iter_mut().for_each(Ipfail::forget_peer);
        let text = if peer.left {
            format!("node {} is gone", peer.name)
        } else {
            format!("node {}: is dead (not heard for {} ms)", peer.name, silence.as_millis())
        };
        let level = if peer.left { Level::Info } else { Level::Warning };
        self.note(level, text);
        self.record_lost_owners();
        if !self.come_up() {
            self.with_r1(R1Ownership::peer_dead);
        }
        // Without a fencing device, silence is the only proof there is.
        if let Some(peer) = self.peer.as_mut().filter(|_| !self.r1.is_fencing()) {
            peer.watch.note(LivenessEvent::Proved);
        }
    }

    /// Stores what was heard of the peer: after our own restart, a recording of it is recognized as old.
    fn remember(&mut self) {
        if let Some(peer) = &mut self.peer
            && let Some(heard) = peer.received.heard()
        {
            peer.remembered = self.now.instant;
            self.out.push_back(Action::Remember { member: peer.node.into(), heard });
        }
    }

    fn ask_for_missing(&mut self) {
        if breakage::is(Breakage::NoRetransmission) {
            if let Some(peer) = &mut self.peer {
                peer.received.stop_asking();
            }
            return;
        }
        let delay = self.plan.framing.rexmit_delay_max;
        let now = self.now.instant;
        let patience = self.plan.timing.deadtime;
        let lost = self.peer.as_mut().map_or(0, |peer| peer.received.give_up_old(now, patience));
        if lost > 0 {
            let text =
                format!("{lost} packet(s) were not sent again in {} ms; going on", patience.as_millis());
            self.note(Level::Warning, text);
            self.deliver();
        }
        while let Some(ask) = self.peer.as_mut().and_then(|peer| peer.received.ask(now, delay)) {
            self.say_to_peer(Body::Rexmit { first: ask.0, last: ask.0 });
        }
    }

    fn repeat_contest(&mut self) {
        let contested = self.r1.contested();
        if contested.is_none() {
            self.contest_noted_at = None;
            return;
        }
        let now = self.now.instant;
        match self.contest_noted_at {
            Some(at) if now < at + CONTEST_PAUSE => {}
            said => {
                self.contest_noted_at = Some(now);
                if said.is_some() {
                    self.note(Level::Critical, "both nodes still run the same groups".to_string());
                }
            }
        }
    }

    // ---- coming up ------------------------------------------------------------

    /// Takes part as soon as every node is heard of or known dead. Returns whether that happened now.
    fn come_up(&mut self) -> bool {
        match &self.peer {
            None => self.join(),
            Some(peer) if peer.comm == Comm::Up => false,
            Some(peer) if peer.watch.state().is_down() || peer.left => self.join(),
            Some(R1Peer { comm: Comm::Waiting, watch, .. }) if watch.state().is_up() => {
                self.ask_for_nodes();
                false
            }
            Some(_) => false,
        }
    }

    fn ask_for_nodes(&mut self) {
        let again = self.now.instant + REQNODES_PAUSE;
        if let Some(peer) = &mut self.peer {
            peer.comm = Comm::Asking(again);
        }
        self.say_to_peer(Body::ReqNodes);
    }

    fn join(&mut self) -> bool {
        if self.state == NodeState::Active {
            return false;
        }
        if let Some(peer) = &mut self.peer {
            peer.comm = Comm::Up;
        }
        self.note(Level::Info, "Comm_now_up(): updating status to active".to_string());
        self.state = NodeState::Active;
        self.note(Level::Info, "Local status now set to: 'active'".to_string());
        self.say_status();
        self.ipfail_joins();
        self.with_r1(R1Ownership::links_up);
        true
    }

    /// This process lacks the right to carry a service address here and will not get it, whatever its interface does.
    fn bar(&mut self, resource: ResourceId, why: String) {
        if resource.group.0 < self.plan.groups.len() {
            self.groups.bar(resource.group, why);
            self.say_status();
        }
    }

    fn carrier(&mut self, link: LinkIndex, state: Carrier) {
        let Some(plan) = self.plan.links.get(link.0) else { return };
        let name = format!("link {}", plan.name);
        let Some(change) = self.reception.carrier(link, state, &name) else { return };
        self.note(change.level, change.text);
        if change.is_up {
            self.say_status();
        }
    }

    fn order(&mut self, id: OrderId, order: Order) {
        match order {
            Order::Standby(set) => self.with_r1(|r1, view| r1.order_standby(view, id, set)),
            Order::Takeover(set) => self.with_r1(|r1, view| r1.order_takeover(view, id, set)),
            Order::Leave => {
                self.note(Level::Info, "Heartbeat shutdown in progress.".to_string());
                if let Some(leaving) = &mut self.left {
                    // An administrator's order to leave overrides the restart that was to follow.
                    leaving.restart = false;
                }
                self.with_r1(|r1, view| r1.order_leave(view, Some(id)));
            }
            Order::Reload => self.with_r1(|r1, view| r1.order_reload(view, id)),
            Order::Native { .. } => {
                let text = "this cluster speaks heartbeat's dialect (ha.cf): use `locum standby` and `locum takeover`";
                self.out.push_back(Action::Reply { order: id, answer: Answer::Refused(text.into()) });
            }
        }
    }

    // ---- the parts, put together ------------------------------------------------------------

    fn with_r1(&mut self, act: impl FnOnce(&mut R1Ownership, &R1View<'_>)) {
        let Self { now, plan, identity, peer, unreachable: cut, groups, r1, .. } = self;
        let view = view(now.instant, plan, identity, peer.as_ref(), cut, groups);
        r1.know_peer(&view);
        act(r1, &view);
    }

    /// Carries the dialect's steps and the groups' events to each other until both rest.
    fn settle(&mut self) {
        self.check_files();
        loop {
            let mut moved = false;
            while let Some(step) = self.r1.poll() {
                moved |= matches!(step, R1Step::Want(..) | R1Step::WantGroup(..));
                self.step(step);
            }
            while let Some(news) = self.groups.next_event() {
                moved = true;
                self.group_event(&news);
            }
            if moved {
                self.with_r1(|r1, view| r1.groups_changed(view));
                continue;
            }
            // A message of the peer can also end what a leave or a reload in place waits for.
            self.with_r1(|r1, view| r1.leaving_goes_on(view));
            self.with_r1(|r1, view| r1.reload_goes_on(view));
            if self.r1.rests() {
                break;
            }
        }
        self.record_owners();
    }

    fn step(&mut self, step: R1Step) {
        match step {
            R1Step::Say(body) => self.say(body, None),
            R1Step::Fence => {
                let Some(node) = self.peer.as_ref().map(|peer| peer.node) else { return };
                let ticket = self.groups.new_ticket();
                self.fencing = Some(ticket);
                self.out.push_back(Action::Fence { ticket, node });
            }
            R1Step::SayToPeer(body) => self.say_to_peer(body),
            R1Step::WantGroup(group, run) => self.want_group(group, run),
            R1Step::EndStarts => self.groups.end_starts(&mut self.out),
            R1Step::Want(set, run) => {
                let groups: Vec<GroupIndex> = self.groups.of(set).collect();
                groups.into_iter().for_each(|group| self.want_group(group, run));
            }
            R1Step::Keep(set) => {
                self.groups.of(set).for_each(|group| self.files.keep(group));
                self.groups.keep_set(set, &mut self.out);
            }
            R1Step::Announce(set) => {
                let addresses: Vec<ResourceId> = self.groups.addresses_of(set).collect();
                self.out.extend(addresses.into_iter().map(Action::Announce));
            }
            R1Step::Answer(order, answer) => self.reply(order, answer),
            R1Step::Note(level, text) => self.note(level, text),
            R1Step::Reloaded(kept) => {
                self.remember();
                self.note(Level::Info, "Restarting heartbeat.".to_string());
                let restart = Some(Duration::ZERO);
                self.out.push_back(Action::Exit { clean: true, restart, keeps: Some(kept) });
            }
            R1Step::Left { restart, clean } => {
                let peer_up = self.peer.as_ref().is_some_and(|p| p.watch.state().is_up() && !p.left);
                let linger = if peer_up { LINGER } else { Duration::ZERO };
                self.left = Some(Departure { until: self.now.instant + linger, restart, clean });
            }
        }
    }

    fn group_event(&mut self, news: &GroupEvent) {
        let (group, verb) = match *news {
            GroupEvent::Started(group) => (group, "runs"),
            GroupEvent::Stopped(group) => (group, "is stopped"),
            GroupEvent::StopFailed(group) => (group, "cannot be stopped"),
            GroupEvent::Restarting(group) => (group, "is started again"),
            GroupEvent::Failed(group) => {
                // Before the hand-over is announced as done: the node that gave the group must know.
                self.say_status();
                let set = self.set_of(group);
                let failures = self.groups.failures(group);
                self.with_r1(|r1, view| r1.start_failed(view, set, failures));
                (group, "could not be started")
            }
        };
        let key = self.plan.groups[group.0].key.clone();
        let text = format!("group {key} {verb} on {}", self.plan.nodes[self.plan.me.0]);
        self.out.push_back(Action::Note(Note { level: Level::Info, group: Some(key), epoch: None, text }));
    }

    fn exit(&mut self) {
        if let Some(leaving) = self.left.take() {
            self.remember();
            let me = &self.plan.nodes[self.plan.me.0];
            self.note(Level::Info, format!("{me} Heartbeat shutdown complete."));
            let restart = leaving.restart.then(|| self.plan.timing.deadtime + Duration::from_secs(1));
            self.out.push_back(Action::Exit { clean: leaving.clean, restart, keeps: None });
        }
    }

    fn set_of(&self, group: GroupIndex) -> Holding {
        if self.plan.groups[group.0].node == self.plan.me { Holding::Local } else { Holding::Foreign }
    }

    fn reply(&mut self, order: OrderId, answer: Answer) {
        // The sender of the order may be a script that ignores the answer, so the log has it too. A leave is never
        // refused.
        match &answer {
            Answer::Done(_) => {}
            Answer::Refused(why) => self.note(Level::Warning, format!("refused: {why}")),
            Answer::TimedOut(why) => self.note(Level::Warning, format!("switchover not finished: {why}")),
        }
        self.out.push_back(Action::Reply { order, answer });
    }

    fn note(&mut self, level: Level, text: String) {
        self.out.push_back(Action::Note(Note { level, group: None, epoch: None, text }));
    }

    // ---- the books ------------------------------------------------------------

    /// The node that runs the group, as far as known here.
    fn owner(&self, group: GroupIndex) -> Option<NodeIndex> {
        let set = self.set_of(group);
        if !self.r1.mine().and(set).is_none() {
            return (self.groups.phase(group) == GroupPhase::Running).then_some(self.plan.me);
        }
        // Unknown: what a silent peer that was not reset runs.
        let peer = self.peer.as_ref().filter(|_| !self.r1.is_fencing())?;
        let runs = !self.r1.theirs().and(set).is_none() && !peer.failed.contains(&group);
        runs.then_some(peer.node)
    }

    fn record_owners(&mut self) {
        let now = self.now.instant;
        for index in 0..self.owner_history.len() {
            let owner = self.owner(GroupIndex(index));
            let book = &mut self.owner_history[index];
            if owner == book.owner {
                continue;
            }
            match owner {
                Some(_) => {
                    book.last_outage =
                        book.ownerless.take().map(|began| now.since(began)).or(book.last_outage);
                    book.since = Some(now);
                }
                None => {
                    book.ownerless = book.ownerless.or(Some(now));
                    book.since = None;
                }
            }
            book.owner = owner;
        }
    }

    /// The peer is gone: what it ran has had no owner since it was last heard.
    fn record_lost_owners(&mut self) {
        let Some(peer) = &self.peer else { return };
        let (node, heard) = (peer.node, peer.watch.heard());
        for book in self.owner_history.iter_mut().filter(|book| book.owner == Some(node)) {
            *book = OwnerHistory { owner: None, since: None, ownerless: Some(heard), ..*book };
        }
    }
}

/// Collects what the ownership rules see of the director.
fn view<'a>(
    now: Instant,
    plan: &'a R1Plan,
    identity: &R1Identity,
    peer: Option<&'a R1Peer>,
    unreachable: &'a [GroupIndex],
    groups: &'a Sets,
) -> R1View<'a> {
    R1View {
        now,
        peer: peer.map(|peer| peer.name.as_str()),
        peer_up: peer.is_some_and(|peer| peer.watch.state().is_up() && !peer.left),
        peer_older: identity
            .peer_heard
            .is_some_and(|heard| peer.and_then(|peer| peer.received.generation()) == Some(heard.generation)),
        peer_keeps: peer.and_then(|peer| peer.keeps),
        peer_failed: peer.map_or(&[], |peer| &peer.failed),
        peer_unreachable: peer.map_or(&[], |peer| &peer.unreachable),
        unreachable,
        peer_locum: peer.is_some_and(|peer| peer.locum == Some(true)),
        is_first: peer.is_some_and(|peer| plan.me < peer.node),
        fencing: plan.fencing.as_ref().map(|fencing| fencing.device.as_str()),
        deadtime: plan.timing.deadtime,
        groups,
    }
}
