//! The front room of the core: an event goes in, actions come out.
//!
//! The driver's contract: feed one event with [`Director::handle`], then perform everything that [`Director::poll`]
//! gives, oldest first, before the next event; wake it with [`Event::Tick`] no later than [`Director::deadline`].
//!
//! The director composes the parts and holds what belongs to none of them: it sends beats, authenticates frames and
//! leads them past numbering and liveness to the dialect, carries the dialect's steps to the groups and the wire,
//! and keeps the books for [`Status`].

use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use crate::{
    action::{Action, Answer},
    auth::Keys,
    breakage::{self, Breakage},
    event::{Carrier, Event, Order, OrderId, Source},
    group::{Groups, News, Phase},
    liveness::{Sign, Watch},
    note::{Escaped, Level, Note},
    plan::{GroupIndex, LinkIndex, NodeIndex, PingIndex, Plan, ResourceId},
    r1::{R1, State, Step, View},
    sequence::{Again, Life, Received, Sent, Verdict},
    status::{self, Status},
    time::{Duration, Instant, Now},
    wire::{
        frame::{self, Framing, Refusal},
        message::{Body, Holding, Message, NodeState, Uuid},
    },
};

/// The version of Locum's extension to R1 that our status carries.
pub const LOCUM_VERSION: u32 = 1;
/// A peer's `dt` is not believed beyond this.
pub const DEADTIME_MAX: Duration = Duration::from_secs(3600);
/// The peer's node list is asked for again after this.
pub const REQNODES_PAUSE: Duration = Duration::from_secs(1);
/// After `shutdone` a node goes on answering for so long, unless the peer has said that it took over.
pub const LINGER: Duration = Duration::from_secs(2);
/// A refused sender is worth one line in this time.
pub const REFUSAL_PAUSE: Duration = Duration::from_secs(60);
/// Distinct refused senders that are kept apart; more share one line.
pub const REFUSAL_SENDERS_MAX: usize = 32;
/// A lasting two-owner state is said again after this.
pub const CONTEST_PAUSE: Duration = Duration::from_secs(60);

/// Who we are, from the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Names this node for ever.
    pub uuid: Uuid,
    /// This start's generation; larger than any before.
    pub generation: u64,
    /// The highest generation heard of the peer before this start.
    pub peer_generation: Option<u64>,
    /// Any number; spreads acknowledgements and requests.
    pub seed: u64,
}

/// The mind of one node.
#[derive(Debug)]
pub struct Director {
    plan: Arc<Plan>,
    keys: Keys,
    identity: Identity,
    now: Now,
    started: Instant,
    random: u64,
    load: String,
    state: NodeState,
    next_beat: Instant,
    sent: Sent,
    links: Vec<LinkView>,
    pings: Vec<Watch>,
    peer: Option<Peer>,
    groups: Groups,
    books: Vec<Book>,
    r1: R1,
    left: Option<Leaving>,
    contest_said: Option<Instant>,
    refusals: BTreeMap<Option<Source>, RefusedSender>,
    frames: status::Frames,
    out: VecDeque<Action>,
}

#[derive(Debug)]
struct LinkView {
    down: Option<String>,
    /// The peer, as heard over this link.
    watch: Watch,
}

#[derive(Debug)]
struct Peer {
    node: NodeIndex,
    name: String,
    watch: Watch,
    received: Received,
    uuid: Option<Uuid>,
    locum: Option<bool>,
    /// It said goodbye in the generation we know.
    left: bool,
    /// The newest status number of its life; a status that is not newer cannot bring it back from the dead.
    last_status: u64,
    comm: Comm,
}

/// Whether we may take part: everybody is heard of or known dead, and a living peer has sent its node list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comm {
    Waiting,
    Asking(Instant),
    Up,
}

/// Who runs a group, for the books: since when, and how long nobody did.
#[derive(Clone, Copy, Debug, Default)]
struct Book {
    owner: Option<NodeIndex>,
    since: Option<Instant>,
    ownerless: Option<Instant>,
    last_outage: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    until: Instant,
    restart: bool,
    clean: bool,
}

#[derive(Debug)]
struct RefusedSender {
    said: Instant,
    since: u64,
}

impl Director {
    /// A node that has just started: links closed, nothing held, everybody unheard.
    #[must_use]
    pub fn new(plan: Arc<Plan>, keys: Keys, identity: Identity, now: Now) -> Self {
        let timing = plan.timing;
        let unheard = || Watch::new(now.instant, timing.initdead);
        let links = plan.links.iter().map(|_| LinkView { down: None, watch: unheard() }).collect();
        let pings = plan.pings.iter().map(|_| unheard()).collect();
        let peer = plan.peer().map(|node| Peer {
            node,
            name: plan.nodes[node.0].clone(),
            watch: unheard(),
            received: Received::new(identity.peer_generation, identity.seed),
            uuid: None,
            locum: None,
            left: false,
            last_status: 0,
            comm: Comm::Waiting,
        });
        let mut director = Self {
            keys,
            now,
            started: now.instant,
            random: identity.seed | 1,
            load: String::from("n/a"),
            state: NodeState::Init,
            next_beat: now.instant,
            sent: Sent::new(now.instant),
            links,
            pings,
            peer,
            groups: Groups::new(Arc::clone(&plan)),
            books: plan.groups.iter().map(|_| Book::default()).collect(),
            r1: R1::new(plan.auto_failback),
            left: None,
            contest_said: None,
            refusals: BTreeMap::new(),
            frames: status::Frames::default(),
            out: VecDeque::new(),
            identity,
            plan,
        };
        director.say_status();
        director.state = NodeState::Up;
        director.beat();
        director.come_up();
        director.settle();
        director
    }

    /// Something happened. Call [`Self::poll`] until it is empty before the next event.
    pub fn handle(&mut self, now: Now, event: Event<'_>) {
        let due = self.deadline();
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
            Event::AddressGone(resource) => self.groups.address_gone(resource, &mut self.out),
            Event::Order { id, order } => self.order(id, order),
            Event::Keys(keys) => {
                self.note(
                    Level::Info,
                    format!("authkeys reread; signing with key {}", keys.signing().number),
                );
                self.keys = keys;
            }
            Event::Load(load) => {
                self.load.clear();
                self.load.push_str(load);
            }
        }
        self.settle();
    }

    /// The next thing to do, oldest first.
    pub fn poll(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    /// When to wake it with [`Event::Tick`] at the latest.
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
            self.r1.deadline(self.plan.timing.deadtime),
            self.left.map(|leaving| leaving.until),
            self.contest_said.map(|at| at + CONTEST_PAUSE),
        ];
        watches.chain(peer).chain(others.into_iter().flatten()).fold(self.next_beat, Instant::min)
    }

    /// The addresses that this node should carry right now; for the driver's own comparison with the kernel.
    pub fn addresses(&self) -> impl Iterator<Item = ResourceId> + use<'_> {
        self.groups.addresses(Holding::All)
    }

    // ---- time ---------------------------------------------------------------------------------------------------

    /// When we ourselves did not run for long, the silence in that time was ours.
    fn forgive_own_pause(&mut self, due: Instant) {
        let late = self.now.instant.since(due);
        if late < self.plan.timing.deadtime / 2 {
            return;
        }
        let text = format!(
            "this node did not run for {:.1} s; silence of others in that time is not held against them",
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
        self.ask_for_missing();
        self.groups.tick(now, &mut self.out);
        self.with_r1(R1::tick);
        self.repeat_contest();
        if self.left.is_some_and(|leaving| now >= leaving.until) {
            self.exit();
        }
    }

    /// The beat: a status over every link, an echo to every ping node.
    fn beat(&mut self) {
        let now = self.now.instant;
        let keepalive = self.plan.timing.keepalive;
        self.next_beat = self.next_beat + keepalive;
        if self.next_beat <= now {
            self.next_beat = now + keepalive;
        }
        self.say_status();
        self.ping_all();
    }

    fn watch_links(&mut self) {
        let now = self.now.instant;
        for index in 0..self.links.len() {
            match self.links[index].watch.elapse(now) {
                Some(Sign::DeadElapsed) if self.links[index].watch.heard() > self.started => {
                    let peer = self.peer.as_ref().map_or("", |peer| peer.name.as_str());
                    let text = format!("Link {peer}:{} dead.", self.plan.links[index].name);
                    self.note(Level::Warning, text);
                    if breakage::is(Breakage::LinkLossIsDeath)
                        && let Some(peer) = &mut self.peer
                    {
                        peer.watch.note(Sign::DeadElapsed);
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
            if self.pings[index].elapse(now) == Some(Sign::DeadElapsed) {
                self.note(
                    Level::Warning,
                    format!("ping node {} does not answer", self.plan.pings[index].name),
                );
            }
        }
    }

    fn watch_peer(&mut self) {
        let now = self.now.instant;
        let Some(peer) = &mut self.peer else { return };
        let silence = now.since(peer.watch.heard());
        match peer.watch.elapse(now) {
            Some(Sign::WarnElapsed) if !peer.left => {
                let text = format!("{}: late, not heard for {} ms", peer.name, silence.as_millis());
                self.note(Level::Warning, text);
            }
            Some(Sign::DeadElapsed) => self.peer_fell_silent(),
            _ => {}
        }
        if let Some(Peer { comm: Comm::Asking(again), .. }) = &self.peer
            && now >= *again
        {
            self.ask_for_nodes();
        }
    }

    /// The peer was not heard for its deadtime. Guard `none` takes that as proof.
    fn peer_fell_silent(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        let silence = self.now.instant.since(peer.watch.heard());
        peer.received.stop_asking();
        let text = if peer.left {
            format!("node {} is gone", peer.name)
        } else {
            format!("node {}: is dead (not heard for {} ms)", peer.name, silence.as_millis())
        };
        let level = if peer.left { Level::Info } else { Level::Warning };
        self.note(level, text);
        self.keep_books_of_loss();
        if !self.come_up() {
            self.with_r1(R1::peer_dead);
        }
        if let Some(peer) = &mut self.peer {
            peer.watch.note(Sign::Proved);
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
        while let Some(ask) = self.peer.as_mut().and_then(|peer| peer.received.ask(now, delay)) {
            self.say_to_peer(Body::Rexmit { first: ask.0, last: ask.0 });
        }
    }

    fn repeat_contest(&mut self) {
        let contested = self.r1.contested();
        if contested.is_none() {
            self.contest_said = None;
            return;
        }
        let now = self.now.instant;
        match self.contest_said {
            Some(at) if now < at + CONTEST_PAUSE => {}
            said => {
                self.contest_said = Some(now);
                if said.is_some() {
                    self.note(Level::Critical, "both nodes still run the same groups".to_string());
                }
            }
        }
    }

    // ---- frames in ----------------------------------------------------------------------------------------------

    fn frame(&mut self, link: LinkIndex, from: Source, bytes: &[u8]) {
        self.frames.received += 1;
        if link.0 >= self.links.len() {
            return;
        }
        match self.read(bytes) {
            Ok(message) => self.message(link, from, message),
            Err(refusal) => self.refuse(from, refusal.name(), &refusal.to_string()),
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<Message, Refusal> {
        let authentic = frame::authenticate(bytes, &self.keys)?;
        Message::parse(&authentic)
    }

    /// An authentic message. From here on the sender knows our key; it may still be a replay, or mad.
    fn message(&mut self, link: LinkIndex, from: Source, message: Message) {
        let own = message.src == self.plan.nodes[self.plan.me.0];
        if own && !(breakage::is(Breakage::OwnFramesAreNews) && self.peer.is_some()) {
            self.frames.own += 1;
            if message.src_uuid.is_some_and(|uuid| uuid != self.identity.uuid) {
                self.refuse(from, "our_name", "another machine uses our node name");
            }
            return;
        }
        let Some(peer) = &self.peer else { return self.stranger(from, &message.src) };
        if !own && message.src != peer.name {
            return self.stranger(from, &message.src);
        }
        if message.seq.is_some() {
            self.numbered(link, from, &message);
        } else {
            self.unnumbered(link, &message);
        }
    }

    fn stranger(&mut self, from: Source, name: &str) {
        let text = format!("node [{}] is not in ha.cf", Escaped(name.as_bytes()));
        self.refuse(from, "unknown_node", &text);
    }

    /// Messages without a number (`NS_*`) change nothing but the bookkeeping of numbers.
    fn unnumbered(&mut self, link: LinkIndex, message: &Message) {
        let Some(peer) = &mut self.peer else { return };
        if message.generation.is_some() && message.generation != peer.received.generation() {
            return self.count_refusal("generation");
        }
        if !self.is_for_us(message) {
            self.frames.elsewhere += 1;
            return;
        }
        self.frames.accepted += 1;
        let now = self.now.instant;
        match message.body {
            Body::Rexmit { first, last } => self.send_again(first, last),
            Body::Ack { seq } => self.sent.acknowledged(seq),
            Body::NakRexmit { seq, ref reason } => {
                let gave_up = self.peer.as_mut().is_some_and(|peer| peer.received.give_up(seq));
                if gave_up {
                    let reason = Escaped(reason.as_bytes());
                    let text =
                        format!("Irretrievably lost packet: node {} seq {seq} ({reason})", message.src);
                    self.note(Level::Warning, text);
                }
            }
            _ => return,
        }
        self.heard_on(link, now);
    }

    fn numbered(&mut self, link: LinkIndex, from: Source, message: &Message) {
        let (Some(peer), Some(seq)) = (&mut self.peer, message.seq) else { return };
        let Some(generation) = message.generation else {
            return self.count_refusal("generation");
        };
        let is_status = matches!(message.body, Body::Status(_));
        let life = peer.received.life(generation);
        match life {
            Life::Replayed { known } => {
                let text = format!(
                    "attempted replay attack [{}]? [gen = {generation}, curgen = {known}]",
                    peer.name
                );
                return self.refuse(from, "replayed", &text);
            }
            Life::First | Life::Restarted if !is_status => {
                // Only a status begins a life; what comes before it will be asked for or said again.
                return self.count_refusal("before_status");
            }
            Life::First | Life::Restarted => self.begin_life(generation, life),
            Life::Same if is_status && peer.watch.state().is_down() && seq <= peer.last_status => {
                return self.refuse(from, "replayed", "an old status of a dead node");
            }
            Life::Same => {}
        }
        self.number(link, seq, message);
    }

    fn number(&mut self, link: LinkIndex, seq: u64, message: &Message) {
        let now = self.now.instant;
        let random = self.next_random();
        let delay = self.plan.framing.rexmit_delay_max;
        let Some(peer) = &mut self.peer else { return };
        let verdict = peer.received.number(now, seq, delay, random);
        match verdict {
            Verdict::New { lost: 0 } => {}
            Verdict::New { lost } => {
                self.frames.lost += lost;
                let text = format!("{lost} lost packet(s) for [{}] [{}:{seq}]", message.src, seq - lost - 1);
                self.note(Level::Debug, text);
            }
            Verdict::NewAfterFlood => {
                self.note(Level::Warning, format!("lost a lot of packets from {}!", message.src));
            }
            Verdict::Late { closed: true } => {
                self.note(Level::Debug, format!("No pkts missing from {}!", message.src));
            }
            Verdict::Late { closed: false } => {}
            Verdict::Duplicate => {
                self.frames.repeated += 1;
                return self.heard_on(link, now);
            }
            Verdict::Old => {
                self.frames.repeated += 1;
                return;
            }
        }
        self.heard_on(link, now);
        self.acknowledge();
        if !self.is_for_us(message) {
            self.frames.elsewhere += 1;
            return;
        }
        self.frames.accepted += 1;
        self.accept(seq, message);
    }

    /// A new, authentic message of the peer, for us.
    fn accept(&mut self, seq: u64, message: &Message) {
        if let Some(peer) = &mut self.peer {
            peer.uuid = message.src_uuid.or(peer.uuid);
        }
        match &message.body {
            Body::Status(beat) => self.heard_status(seq, message.locum.is_some(), *beat),
            Body::ReqNodes => {
                let nodes = self.plan.nodes.clone();
                self.say_to_peer(Body::RepNodes { nodes, deleted: Vec::new() });
            }
            Body::RepNodes { nodes, .. } => {
                let same = nodes.iter().all(|name| self.plan.nodes.contains(name))
                    && self.plan.nodes.iter().all(|name| nodes.contains(name));
                if !same {
                    let text = "the peer's list of nodes differs from ours; frames do not change ours";
                    self.note(Level::Warning, text.to_string());
                }
                self.join();
            }
            Body::ShutDone => {
                if let Some(peer) = &mut self.peer {
                    peer.left = true;
                }
                self.heard_r1(&message.body);
                self.come_up();
            }
            body => self.heard_r1(body),
        }
    }

    fn heard_r1(&mut self, body: &Body) {
        if let Body::Resource(resource) = body
            && resource.info.as_deref() == Some("shutdown")
        {
            self.keep_books_of_loss();
        }
        self.with_r1(|r1, view| r1.heard(view, body));
        if self.left.is_some() && matches!(body, Body::Resource(_)) {
            // The peer has heard that we left and says what it holds now: nobody needs us any more.
            self.exit();
        }
    }

    fn heard_status(&mut self, seq: u64, locum: bool, beat: crate::wire::message::Status) {
        let now = self.now.instant;
        let (warn, dead) = self.patience(beat.dead_ms);
        let Some(peer) = &mut self.peer else { return };
        peer.last_status = peer.last_status.max(seq);
        let was = peer.watch.state();
        if peer.left {
            // It said goodbye and goes on beating for a moment; that is not a return.
            return peer.watch.hear(now, warn, dead);
        }
        peer.watch.hear(now, warn, dead);
        if peer.locum != Some(locum) {
            peer.locum = Some(locum);
            let program = if locum { "Locum" } else { "heartbeat" };
            let text =
                format!("Status update for node {}: status {} ({program})", peer.name, beat.state.word());
            self.note(Level::Info, text);
        }
        if was.is_down() {
            self.with_r1(R1::peer_healed);
            if let Some(peer) = &mut self.peer {
                peer.watch.note(Sign::Settled);
            }
        }
        self.come_up();
    }

    /// How long the peer's silence may last before it is late and silent: by its own `dt`, within bounds.
    fn patience(&self, dead_ms: Option<u64>) -> (Duration, Duration) {
        let timing = self.plan.timing;
        let told = dead_ms.map_or(timing.deadtime, Duration::from_millis);
        let dead = if breakage::is(Breakage::DeadtimeUnbounded) {
            told
        } else {
            told.clamp(timing.keepalive * 2, DEADTIME_MAX)
        };
        (timing.warntime.min(dead), dead)
    }

    fn begin_life(&mut self, generation: u64, life: Life) {
        let Some(peer) = &mut self.peer else { return };
        let known = peer.received.generation();
        peer.received.begin(generation);
        peer.last_status = 0;
        peer.left = false;
        let was = peer.watch.state();
        if was.is_down() {
            peer.watch = Watch::new(self.now.instant, self.plan.timing.initdead);
        }
        let (node, name) = (peer.node, peer.name.clone());
        if known.is_none_or(|known| known < generation) {
            self.out.push_back(Action::Remember { node, generation });
        }
        // The newcomer knows nothing of us before our next status, and refuses all else.
        self.say_status();
        if life == Life::Restarted {
            self.note(Level::Info, format!("Heartbeat restart on node {name}"));
            self.keep_books_of_loss();
            self.with_r1(R1::peer_restarted);
        }
    }

    /// A frame of the peer came over this link.
    fn heard_on(&mut self, link: LinkIndex, now: Instant) {
        let dead = self.peer.as_ref().map_or(self.plan.timing.deadtime, |peer| peer.watch.dead_after());
        let view = &mut self.links[link.0];
        let up = view.watch.state().is_up();
        view.watch.hear(now, dead, dead);
        if !up {
            view.watch.note(Sign::Settled);
            let peer = self.peer.as_ref().map_or("", |peer| peer.name.as_str());
            self.note(Level::Info, format!("Link {peer}:{} up.", self.plan.links[link.0].name));
        }
    }

    fn is_for_us(&self, message: &Message) -> bool {
        match message.dest_uuid {
            Some(uuid) if uuid.0 != [0; 16] => uuid == self.identity.uuid,
            _ => message.dest.as_ref().is_none_or(|dest| *dest == self.plan.nodes[self.plan.me.0]),
        }
    }

    fn echo(&mut self, ping: PingIndex, bytes: &[u8]) {
        let (Some(watch), Some(node)) = (self.pings.get(ping.0), self.plan.pings.get(ping.0)) else { return };
        let was_up = watch.state().is_up();
        let ours = match self.read(bytes) {
            Ok(message) => matches!(message.body, Body::PingStatus { .. }) && message.src == node.name,
            Err(refusal) => return self.refuse(Source::Local, refusal.name(), &refusal.to_string()),
        };
        if !ours {
            return;
        }
        let dead = self.plan.timing.deadping;
        let (now, name) = (self.now.instant, node.name.clone());
        self.pings[ping.0].hear(now, dead, dead);
        self.pings[ping.0].note(Sign::Settled);
        if !was_up {
            self.note(Level::Info, format!("ping node {name} answers"));
        }
    }

    /// Refused, and no news: it happens in normal life, when the first frames of two nodes cross.
    fn count_refusal(&mut self, reason: &'static str) {
        *self.frames.refused.entry(reason).or_default() += 1;
    }

    /// One line for each sender and minute, with a count; never more than a bounded number of senders.
    fn refuse(&mut self, from: Source, reason: &'static str, text: &str) {
        self.count_refusal(reason);
        let now = self.now.instant;
        let from = match from {
            // Ports change with every forged datagram: the address is the sender.
            Source::Udp(mut address) => {
                address.set_port(0);
                Source::Udp(address)
            }
            other => other,
        };
        let known = self.refusals.contains_key(&Some(from)) || self.refusals.len() < REFUSAL_SENDERS_MAX;
        let sender = if known { Some(from) } else { None };
        let entry = self.refusals.entry(sender);
        let mut first = false;
        let entry = entry.or_insert_with(|| {
            first = true;
            RefusedSender { said: now, since: 0 }
        });
        entry.since += 1;
        if !first && now < entry.said + REFUSAL_PAUSE {
            return;
        }
        let count = core::mem::replace(&mut entry.since, 0);
        entry.said = now;
        let who = match sender {
            Some(Source::Udp(address)) => address.ip().to_string(),
            Some(Source::Serial) => "the serial line".to_string(),
            Some(Source::Local) => "a ping reply".to_string(),
            None => "many senders".to_string(),
        };
        self.note(Level::Warning, format!("frame from {who} refused ({count}): {text}"));
    }

    // ---- coming up ----------------------------------------------------------------------------------------------

    /// Takes part as soon as everybody is heard of or known dead. Tells whether that is now.
    fn come_up(&mut self) -> bool {
        match &self.peer {
            None => self.join(),
            Some(peer) if peer.comm == Comm::Up => false,
            Some(peer) if peer.watch.state().is_down() || peer.left => self.join(),
            Some(Peer { comm: Comm::Waiting, watch, .. }) if watch.state().is_up() => {
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
        self.state = NodeState::Active;
        self.note(Level::Info, "Local status now set to: 'active'".to_string());
        self.say_status();
        self.with_r1(R1::links_up);
        true
    }

    fn carrier(&mut self, link: LinkIndex, state: Carrier) {
        let Some(view) = self.links.get_mut(link.0) else { return };
        let down = match state {
            Carrier::Up => None,
            Carrier::Down(why) => Some(why),
        };
        if view.down == down {
            return;
        }
        let came = view.down.is_some() && down.is_none();
        view.down.clone_from(&down);
        let name = self.plan.links[link.0].name.clone();
        match down {
            Some(why) => self.note(Level::Warning, format!("link {name} is down: {why}")),
            None => self.note(Level::Info, format!("link {name} is open")),
        }
        if came {
            self.say_status();
        }
    }

    fn order(&mut self, id: OrderId, order: Order) {
        match order {
            Order::Standby(set) => self.with_r1(|r1, view| r1.order_standby(view, id, set)),
            Order::Takeover(set) => self.with_r1(|r1, view| r1.order_takeover(view, id, set)),
            Order::Leave => {
                self.note(Level::Info, "Heartbeat shutdown in progress.".to_string());
                self.with_r1(|r1, view| r1.order_leave(view, Some(id)));
            }
        }
    }

    // ---- the parts, put together --------------------------------------------------------------------------------

    fn with_r1(&mut self, act: impl FnOnce(&mut R1, &View<'_>)) {
        let view = View {
            now: self.now.instant,
            peer: self.peer.as_ref().map(|peer| peer.name.as_str()),
            peer_up: self.peer.as_ref().is_some_and(|peer| peer.watch.state().is_up() && !peer.left),
            peer_locum: self.peer.as_ref().is_some_and(|peer| peer.locum == Some(true)),
            deadtime: self.plan.timing.deadtime,
            groups: &self.groups,
        };
        act(&mut self.r1, &view);
    }

    /// Carries the dialect's steps and the groups' news to each other until both rest.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            while let Some(step) = self.r1.poll() {
                moved |= matches!(step, Step::Want(..));
                self.step(step);
            }
            while let Some(news) = self.groups.news() {
                moved = true;
                self.group_news(&news);
            }
            if !moved {
                break;
            }
            self.with_r1(|r1, view| r1.groups_changed(view));
        }
        self.keep_books();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Say(body) => self.say(body, None),
            Step::Want(set, run) => self.groups.want(set, run, &mut self.out),
            Step::Announce(set) => {
                let addresses: Vec<ResourceId> = self.groups.addresses(set).collect();
                self.out.extend(addresses.into_iter().map(Action::Announce));
            }
            Step::Answer(order, answer) => self.reply(order, answer),
            Step::Note(level, text) => self.note(level, text),
            Step::Left { restart, clean } => {
                let peer_up = self.peer.as_ref().is_some_and(|p| p.watch.state().is_up() && !p.left);
                let linger = if peer_up { LINGER } else { Duration::ZERO };
                self.left = Some(Leaving { until: self.now.instant + linger, restart, clean });
            }
        }
    }

    fn group_news(&mut self, news: &News) {
        let (group, verb) = match *news {
            News::Started(group) => (group, "runs"),
            News::Stopped(group) => (group, "is stopped"),
            News::Stuck(group) => (group, "cannot be stopped"),
            News::StartFailed(group) => {
                let set = self.set_of(group);
                let failures = self.groups.failures(group);
                self.with_r1(|r1, view| r1.start_failed(view, set, failures));
                (group, "could not be started")
            }
        };
        let key = self.plan.groups[group.0].key.clone();
        let text = format!("group {key} {verb} on {}", self.plan.nodes[self.plan.me.0]);
        self.out.push_back(Action::Note(Note { level: Level::Info, group: Some(key), text }));
    }

    fn exit(&mut self) {
        if let Some(leaving) = self.left.take() {
            self.note(Level::Info, "Heartbeat shutdown complete.".to_string());
            let restart = leaving.restart.then(|| self.plan.timing.deadtime + Duration::from_secs(1));
            self.out.push_back(Action::Exit { clean: leaving.clean, restart });
        }
    }

    fn set_of(&self, group: GroupIndex) -> Holding {
        if self.plan.groups[group.0].node == self.plan.me { Holding::Local } else { Holding::Foreign }
    }

    // ---- frames out ---------------------------------------------------------------------------------------------

    fn say_status(&mut self) {
        let deadtime = self.plan.timing.deadtime.as_millis();
        self.say(
            Body::Status(crate::wire::message::Status {
                state: self.state,
                dead_ms: u64::try_from(deadtime).ok(),
                protocol: Some(1),
            }),
            None,
        );
    }

    fn say_to_peer(&mut self, body: Body) {
        if let Some(peer) = &self.peer {
            let dest = Some((peer.name.clone(), peer.uuid));
            self.say(body, dest);
        }
    }

    fn say(&mut self, body: Body, dest: Option<(String, Option<Uuid>)>) {
        let numbered = !matches!(body, Body::Rexmit { .. } | Body::NakRexmit { .. } | Body::Ack { .. });
        let is_status = matches!(body, Body::Status(_));
        let mut message = Message::new(body, self.plan.nodes[self.plan.me.0].clone());
        (message.dest, message.dest_uuid) = dest.map_or((None, None), |(name, uuid)| (Some(name), uuid));
        message.src_uuid = Some(self.identity.uuid);
        message.generation = Some(self.identity.generation);
        message.unix_seconds = self.now.unix_seconds.max(1);
        message.ttl = Some(self.plan.framing.ttl);
        message.locum = is_status.then_some(LOCUM_VERSION);
        if numbered {
            message.seq = Some(self.sent.next());
            message.load = Some(self.load.clone());
        }
        self.transmit(&message);
        if numbered {
            self.sent.keep(message);
        }
    }

    /// Writes a message to every link, in each link's framing.
    fn transmit(&mut self, message: &Message) {
        self.frames.sent += 1;
        let mut made: [Option<Arc<[u8]>>; 2] = [None, None];
        for index in 0..self.links.len() {
            let serial = self.plan.links[index].is_serial();
            let framing = if serial { Framing::Classic } else { Framing::Netstring };
            let bytes = made[usize::from(serial)].get_or_insert_with(|| {
                let mut bytes = Vec::with_capacity(400);
                message.emit(framing, &self.keys, self.plan.framing.inner_auth, &mut bytes);
                Arc::from(bytes)
            });
            self.out.push_back(Action::Send { link: LinkIndex(index), bytes: Arc::clone(bytes) });
        }
    }

    fn ping_all(&mut self) {
        for (index, ping) in self.plan.pings.iter().enumerate() {
            let info = if ping.is_group { "ping_group" } else { "ping" };
            let body = Body::PingStatus { state: NodeState::Ping, info: info.to_string() };
            let mut message = Message::new(body, ping.name.clone());
            message.unix_seconds = self.now.unix_seconds.max(1);
            let mut bytes = Vec::with_capacity(200);
            message.emit(Framing::Netstring, &self.keys, self.plan.framing.inner_auth, &mut bytes);
            self.out.push_back(Action::Ping { ping: PingIndex(index), bytes: Arc::from(bytes) });
        }
    }

    fn acknowledge(&mut self) {
        if let Some(seq) = self.peer.as_mut().and_then(|peer| peer.received.take_ack()) {
            self.say_to_peer(Body::Ack { seq });
        }
    }

    fn send_again(&mut self, first: u64, last: u64) {
        let pause = self.plan.framing.rexmit_delay_max.saturating_sub(Duration::from_millis(10));
        for again in self.sent.again(self.now.instant, first, last, pause) {
            match again {
                Again::Send(message) => {
                    self.frames.sent_again += 1;
                    self.transmit(&message);
                }
                Again::Refuse(seq, reason) => {
                    self.say_to_peer(Body::NakRexmit { seq, reason: reason.to_string() });
                }
            }
        }
    }

    fn next_random(&mut self) -> u64 {
        // xorshift64: spreads requests in time; nothing secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn reply(&mut self, order: OrderId, answer: Answer) {
        self.out.push_back(Action::Reply { order, answer });
    }

    fn note(&mut self, level: Level, text: String) {
        self.out.push_back(Action::Note(Note { level, group: None, text }));
    }

    // ---- the books ----------------------------------------------------------------------------------------------

    /// Who runs the group, as far as we know.
    fn owner(&self, group: GroupIndex) -> Option<NodeIndex> {
        let set = self.set_of(group);
        if !self.r1.mine().and(set).is_none() {
            return (self.groups.phase(group) == Phase::Running).then_some(self.plan.me);
        }
        let peer = self.peer.as_ref()?;
        (!self.r1.theirs().and(set).is_none()).then_some(peer.node)
    }

    fn keep_books(&mut self) {
        let now = self.now.instant;
        for index in 0..self.books.len() {
            let owner = self.owner(GroupIndex(index));
            let book = &mut self.books[index];
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
    fn keep_books_of_loss(&mut self) {
        let Some(peer) = &self.peer else { return };
        let (node, heard) = (peer.node, peer.watch.heard());
        for book in self.books.iter_mut().filter(|book| book.owner == Some(node)) {
            *book = Book { owner: None, since: None, ownerless: Some(heard), ..*book };
        }
    }

    /// What a person may see.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        let ago = |at: Instant| now.instant.since(at).as_secs_f64();
        Status {
            cluster: self.plan.cluster.clone(),
            dialect: "r1",
            guard: "none",
            node: self.plan.nodes[self.plan.me.0].clone(),
            state: self.r1.state(),
            transition: self.r1.transition(),
            holding: self.r1.mine().word(),
            generation: self.identity.generation,
            uptime: ago(self.started),
            nodes: self.node_status(ago),
            links: self.link_status(ago),
            pings: self
                .plan
                .pings
                .iter()
                .zip(&self.pings)
                .map(|(ping, watch)| status::Ping { name: ping.name.clone(), liveness: watch.state() })
                .collect(),
            groups: self.group_status(ago),
            forecasts: self.forecasts(),
            troubles: self.troubles(),
            hints: self.hints(),
            frames: self.frames.clone(),
            digest: self.digest(),
        }
    }

    fn node_status(&self, ago: impl Fn(Instant) -> f64) -> Vec<status::Node> {
        use crate::liveness::Liveness;
        let deadtime = self.plan.timing.deadtime.as_secs_f64();
        let nodes = self.plan.nodes.iter().enumerate();
        nodes
            .map(|(index, name)| match &self.peer {
                Some(peer) if peer.node.0 == index => status::Node {
                    name: name.clone(),
                    liveness: peer.watch.state(),
                    left: peer.left,
                    program: peer.locum.map(|locum| if locum { "locum" } else { "heartbeat" }),
                    heard: peer.locum.map(|_| ago(peer.watch.heard())),
                    generation: peer.received.generation(),
                    deadtime: peer.watch.dead_after().as_secs_f64(),
                },
                _ => status::Node {
                    name: name.clone(),
                    liveness: Liveness::Alive,
                    left: self.left.is_some(),
                    program: Some("locum"),
                    heard: None,
                    generation: Some(self.identity.generation),
                    deadtime,
                },
            })
            .collect()
    }

    fn link_status(&self, ago: impl Fn(Instant) -> f64) -> Vec<status::Link> {
        let links = self.plan.links.iter().zip(&self.links);
        links
            .map(|(link, view)| status::Link {
                name: link.name.clone(),
                down: view.down.clone(),
                liveness: view.watch.state(),
                heard: (view.watch.heard() > self.started).then(|| ago(view.watch.heard())),
            })
            .collect()
    }

    fn group_status(&self, ago: impl Fn(Instant) -> f64) -> Vec<status::Group> {
        let groups = self.plan.groups.iter().zip(&self.books).enumerate();
        groups
            .map(|(index, (group, book))| {
                let index = GroupIndex(index);
                status::Group {
                    key: group.key.clone(),
                    resources: group.resources.iter().map(|resource| resource.text.clone()).collect(),
                    preferred: self.plan.nodes[group.node.0].clone(),
                    owner: book.owner.map(|node| self.plan.nodes[node.0].clone()),
                    phase: self.groups.phase(index),
                    since: book.since.map(&ago),
                    last_outage: book.last_outage.map(|outage| outage.as_secs_f64()),
                    failure: self.groups.failure(index).map(String::from),
                    taken_away: self.groups.taken_away(index),
                    contested: !self.r1.contested().and(self.set_of(index)).is_none(),
                }
            })
            .collect()
    }

    fn forecasts(&self) -> Vec<status::Forecast> {
        let me = self.plan.me;
        let Some(peer) = self.peer.as_ref().filter(|peer| peer.watch.state().is_up() && !peer.left) else {
            return self.forecast(me, None, self.plan.timing.deadtime).into_iter().collect();
        };
        [
            self.forecast(me, Some(peer.node), self.plan.timing.deadtime),
            self.forecast(peer.node, Some(me), peer.watch.dead_after()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn forecast(
        &self,
        node: NodeIndex,
        taker: Option<NodeIndex>,
        after: Duration,
    ) -> Option<status::Forecast> {
        if self.left.is_some() {
            return None;
        }
        let owned = self.plan.groups.iter().zip(&self.books).filter(|(_, book)| book.owner == Some(node));
        let starts: Vec<String> = owned
            .flat_map(|(group, _)| group.resources.iter().map(|resource| resource.text.clone()))
            .collect();
        let name = self.plan.nodes[node.0].clone();
        let reason = match taker {
            _ if starts.is_empty() => Some(format!("nothing moves: {name} runs nothing")),
            None if self.peer.is_none() => Some("nobody takes over: the cluster has one node".to_string()),
            None => Some("nobody takes over: the other node is not there".to_string()),
            Some(_) if self.r1.state() != State::Stable => Some("this node has not settled yet".to_string()),
            Some(_) => None,
        };
        let taker = taker.filter(|_| reason.is_none()).map(|node| self.plan.nodes[node.0].clone());
        Some(status::Forecast { node: name, taker, starts, after: after.as_secs_f64(), reason })
    }

    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if let Some(peer) = &self.peer {
            if peer.left {
                troubles.push(format!("{} has left the cluster: nobody would take over", peer.name));
            } else if !peer.watch.state().is_up() {
                troubles.push(format!("{} is not heard: nobody would take over", peer.name));
            }
        }
        for (link, view) in self.plan.links.iter().zip(&self.links) {
            match &view.down {
                Some(why) => troubles.push(format!("link {} is down: {why}", link.name)),
                None if self.peer.is_some() && !view.watch.state().is_up() => {
                    troubles.push(format!("the peer is not heard over link {}", link.name));
                }
                None => {}
            }
        }
        for (ping, watch) in self.plan.pings.iter().zip(&self.pings) {
            if watch.state().is_down() {
                troubles.push(format!("ping node {} does not answer", ping.name));
            }
        }
        for (index, (group, book)) in self.plan.groups.iter().zip(&self.books).enumerate() {
            let index = GroupIndex(index);
            if let Some(why) = self.groups.failure(index) {
                troubles.push(format!("group {} could not be started here: {why}", group.key));
            }
            if matches!(self.groups.phase(index), Phase::Stuck(_)) {
                troubles.push(format!("group {} cannot be stopped here: a person is needed", group.key));
            } else if book.owner.is_none() && self.left.is_none() {
                troubles.push(format!("group {} runs nowhere that this node knows of", group.key));
            }
        }
        if !self.r1.contested().is_none() {
            troubles.push("both nodes run the same groups (healed or one-way partition)".to_string());
        }
        troubles
    }

    fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        if self.keys.signing().method == crate::auth::Method::Crc {
            hints.push(
                "authkeys signs with crc: anyone on the link can take the service; use sha1".to_string(),
            );
        }
        if self.plan.links.len() == 1 && self.peer.is_some() {
            hints.push(format!("one link only ({}): its loss looks like a death", self.plan.links[0].name));
        }
        hints
    }

    /// FNV-1a over what decisions depend on: states, not times or counters.
    fn digest(&self) -> String {
        let links: Vec<_> = self.links.iter().map(|link| (&link.down, link.watch.state())).collect();
        let peer = self
            .peer
            .as_ref()
            .map(|p| (p.watch.state(), p.left, p.comm == Comm::Up, p.received.generation()));
        let phases: Vec<_> =
            (0..self.books.len()).map(|index| self.groups.phase(GroupIndex(index))).collect();
        let text = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {links:?} {peer:?} {phases:?}",
            self.state,
            self.r1.state(),
            self.r1.mine(),
            self.r1.theirs(),
            self.r1.contested(),
            self.r1.transition(),
        );
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}
