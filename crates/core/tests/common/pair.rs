//! Two directors on two links. By default the links are perfect and agents answer at once. Tests cut, lose, delay,
//! freeze and kill as they need it. All random numbers come from [`Pair::seed`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use locum_core::{
    model::{
        action::{Action, Operation},
        event::{Event, Outcome, Source, Ticket},
        identity::{LastHeard, *},
        keys::{AuthMethod, Key, Keys},
        logging::*,
        order::{Answer, Order, OrderId},
        resource::*,
        time::{Duration, Instant, Now},
    },
    r1::{
        director::{R1Director, R1Identity},
        message::Uuid,
        plan::*,
    },
};

const NEVER: Instant = Instant::from_nanos(u64::MAX);
/// Links of the pair.
pub(crate) const LINKS: usize = 2;
/// Long enough for everything that happens at once, shorter than a beat.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

pub(crate) struct PairNode {
    pub(crate) director: R1Director,
    pub(crate) alive: bool,
    /// Texts of the running resources, in the order of their starts. They survive the daemon's end, but not a loss of
    /// power.
    pub(crate) running: Vec<String>,
    /// Orders to this daemon start that are not answered yet.
    pub(crate) open: BTreeSet<OrderId>,
    pub(crate) answers: Vec<Answer>,
    /// Log lines of this daemon start.
    pub(crate) notes: Vec<String>,
    pub(crate) exited: bool,
    /// Until then the node does nothing; its events wait.
    pub(crate) frozen: Instant,
    life: u64,
    /// The newest heard of the peer, as stored on disk.
    remembered: Option<LastHeard>,
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) nodes: [PairNode; 2],
    /// The cut directions, as `cut[from][link]`.
    pub(crate) cut: [[bool; LINKS]; 2],
    /// Frames lost, per thousand.
    pub(crate) loss: u64,
    /// Longest delay of frames and agents in milliseconds.
    pub(crate) delay: u64,
    pub(crate) agent_delay: u64,
    /// Operations that fail: node, operation, resource.
    pub(crate) failing: BTreeSet<(usize, Operation, String)>,
    /// Every frame that arrived: the receiving node, the link, the bytes. Only while `recording`.
    pub(crate) recorded: Vec<(usize, LinkIndex, Arc<[u8]>)>,
    pub(crate) recording: bool,
    pub(crate) seed: u64,
    /// The resources that each node ran, whenever they changed.
    pub(crate) journal: Vec<(Instant, [Vec<String>; 2])>,
    pub(crate) quiet: bool,
    plans: [Arc<R1Plan>; 2],
    events: BTreeMap<(Instant, u64), Happening>,
    count: u64,
}

enum Happening {
    Frame { to: usize, link: LinkIndex, bytes: Arc<[u8]> },
    Done { node: usize, life: u64, ticket: Ticket, resource: ResourceId, operation: Operation },
}

pub(crate) fn plan(me: usize, auto_failback: AutoFailback) -> Arc<R1Plan> {
    let group = |node: usize, names: &[&str]| R1Group {
        node: NodeIndex(node),
        key: names[0].into(),
        resources: names
            .iter()
            .map(|name| Resource {
                text: (*name).into(),
                script: (*name).into(),
                args: vec![],
                agent: Agent::Script,
            })
            .collect(),
    };
    let link = |name: &str| R1Link {
        name: name.into(),
        media: vec![R1Medium::Broadcast { interface: name.into(), port: 694 }],
    };
    Arc::new(R1Plan {
        cluster: "linux-ha".into(),
        nodes: vec!["a".into(), "b".into()],
        me: NodeIndex(me),
        timing: R1Timing {
            keepalive: Duration::from_millis(100),
            warntime: Duration::from_millis(500),
            deadtime: Duration::from_secs(1),
            initdead: Duration::from_secs(3),
            deadping: Duration::from_secs(1),
        },
        auto_failback,
        links: vec![link("eth1"), link("eth0")],
        pings: vec![],
        groups: vec![group(0, &["one", "two"]), group(1, &["three"])],
        framing: FramingPlan { inner_auth: true, ttl: 3, rexmit_delay_max: Duration::from_millis(250) },
        generation: GenerationSource::File,
        logging: Logging::default(),
        realtime: None,
        limits: R1Limits::default(),
        fencing: None,
        ipfail: false,
        clients: vec![],
        watchdog: None,
    })
}

pub(crate) fn keys() -> Keys {
    // Without a secret: tests can forge frames, and thousands of frames cost little.
    Keys::new(1, vec![Key { number: 1, method: AuthMethod::Crc, secret: vec![] }]).expect("keys")
}

pub(crate) const fn uuid(n: usize) -> Uuid {
    Uuid([if n == 0 { 1 } else { 2 }; 16])
}

impl Pair {
    pub(crate) fn new(failback: AutoFailback) -> Self {
        Self::of([plan(0, failback), plan(1, failback)])
    }

    /// Each node with a plan of its own.
    pub(crate) fn of(plans: [Arc<R1Plan>; 2]) -> Self {
        let now = Instant::from_millis(1000);
        let nodes = [0, 1].map(|n| Self::boot(&plans[n], n, now, None));
        Self {
            now,
            nodes,
            cut: [[false; LINKS]; 2],
            loss: 0,
            delay: 0,
            agent_delay: 0,
            failing: BTreeSet::new(),
            recorded: vec![],
            recording: false,
            seed: 1,
            journal: vec![],
            quiet: false,
            plans,
            events: BTreeMap::new(),
            count: 0,
        }
    }

    fn boot(plan: &Arc<R1Plan>, n: usize, at: Instant, remembered: Option<LastHeard>) -> PairNode {
        Self::boot_as(plan, n, at, remembered, (uuid(n), at.as_millis()))
    }

    fn boot_as(
        plan: &Arc<R1Plan>,
        n: usize,
        at: Instant,
        peer_heard: Option<LastHeard>,
        (uuid, generation): (Uuid, u64),
    ) -> PairNode {
        let identity =
            R1Identity { uuid, generation, peer_heard, stop_failed: Vec::new(), keeps: None, seed: n as u64 };
        let director = R1Director::new(Arc::clone(plan), keys(), identity, now(at));
        PairNode {
            director,
            alive: true,
            running: vec![],
            open: BTreeSet::new(),
            answers: vec![],
            notes: vec![],
            exited: false,
            frozen: at,
            life: at.as_millis(),
            remembered: peer_heard,
        }
    }

    /// Cuts the power: nothing runs here any more.
    pub(crate) fn power_off(&mut self, n: usize) {
        self.kill(n);
        self.nodes[n].running.clear();
        self.write_journal();
    }

    /// Kills only the daemon; the resources that it started run on.
    pub(crate) fn kill(&mut self, n: usize) {
        self.nodes[n].alive = false;
        self.nodes[n].life = 0;
    }

    /// Starts the daemon again: leftovers are swept, the generation is counted up.
    pub(crate) fn power_on(&mut self, n: usize) {
        self.say(&format!("{} starts", ["a", "b"][n]));
        let remembered = self.nodes[n].remembered;
        self.nodes[n] = Self::boot(&self.plans[n], n, self.now, remembered);
        self.write_journal();
    }

    /// Starts the daemon on the state directory of an earlier start.
    pub(crate) fn power_on_as(&mut self, n: usize, uuid: Uuid, generation: u64) {
        self.nodes[n] = Self::boot_as(&self.plans[n], n, self.now, None, (uuid, generation));
        self.write_journal();
    }

    /// Starts the daemon with another plan.
    pub(crate) fn power_on_with(&mut self, n: usize, plan: Arc<R1Plan>) {
        self.plans[n] = plan;
        self.power_on(n);
    }

    pub(crate) fn cut_all(&mut self, from: usize, cut: bool) {
        self.cut[from] = [cut; LINKS];
    }

    /// Cuts or mends all links both ways.
    pub(crate) fn partition(&mut self, cut: bool) {
        self.cut_all(0, cut);
        self.cut_all(1, cut);
    }

    pub(crate) fn freeze(&mut self, n: usize, time: Duration) {
        self.nodes[n].frozen = self.now + time;
    }

    /// Gives an order without waiting for the answer.
    pub(crate) fn ask(&mut self, n: usize, order: Order) -> OrderId {
        self.count += 1;
        let id = OrderId(self.count);
        self.say(&format!("{}: {order:?} {id:?}", ["a", "b"][n]));
        self.nodes[n].open.insert(id);
        self.give(n, Event::Order { id, order });
        id
    }

    /// Gives an order and waits a moment for its answer.
    pub(crate) fn order(&mut self, n: usize, order: Order) -> Option<Answer> {
        self.ask(n, order);
        self.run(SHORT);
        self.nodes[n].answers.pop()
    }

    pub(crate) fn status(&self, n: usize) -> locum_core::r1::status::R1Status {
        self.nodes[n].director.status(now(self.now))
    }

    pub(crate) fn give(&mut self, n: usize, event: Event<'_>) {
        self.nodes[n].director.handle(now(self.now), event);
        self.drain(n);
    }

    /// Hands a frame to a node as if the wire had brought it.
    pub(crate) fn inject(&mut self, n: usize, link: usize, bytes: &[u8]) {
        self.give(n, Event::Frame { link: LinkIndex(link), from: Source::Serial, bytes });
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        // splitmix64
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let index = self.random(of.len() as u64);
        of[usize::try_from(index).expect("an index")]
    }

    fn later(&mut self, within: u64, happening: Happening) {
        let delay = if within == 0 { 0 } else { self.random(within + 1) };
        self.put(self.now + Duration::from_millis(delay), happening);
    }

    fn put(&mut self, at: Instant, happening: Happening) {
        self.count += 1;
        self.events.insert((at, self.count), happening);
    }

    /// Lets time pass. Events of the same moment happen in the order in which they were scheduled.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        // The messages of their start.
        self.drain(0);
        self.drain(1);
        loop {
            let happening = self.events.first_key_value().map_or(NEVER, |((at, _), _)| *at);
            let wake = (0..2).filter(|&n| self.nodes[n].alive);
            let wake = wake.map(|n| (self.nodes[n].director.deadline().max(self.nodes[n].frozen), n)).min();
            let tick = wake.map_or(NEVER, |(at, _)| at);
            if happening.min(tick) > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(happening.min(tick));
            if happening <= self.now {
                let (_, happening) = self.events.pop_first().expect("an event");
                self.happen(happening);
            } else if let Some((_, n)) = wake {
                self.give(n, Event::Tick);
                let due = self.nodes[n].director.deadline();
                assert!(!self.nodes[n].alive || due > self.now, "a deadline that no tick meets: {due:?}");
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Frame { to, link, bytes } => {
                if !self.nodes[to].alive {
                    return;
                }
                if self.nodes[to].frozen > self.now {
                    let at = self.nodes[to].frozen;
                    return self.put(at, Happening::Frame { to, link, bytes });
                }
                if self.recording {
                    self.recorded.push((to, link, Arc::clone(&bytes)));
                }
                self.inject(to, link.0, &bytes);
            }
            Happening::Done { node, life, ticket, resource, operation } => {
                if self.nodes[node].life != life {
                    return;
                }
                if self.nodes[node].frozen > self.now {
                    let at = self.nodes[node].frozen;
                    return self.put(at, Happening::Done { node, life, ticket, resource, operation });
                }
                let outcome = self.perform(node, resource, operation);
                self.give(node, Event::Done { ticket, outcome });
            }
        }
    }

    fn perform(&mut self, n: usize, id: ResourceId, operation: Operation) -> Outcome {
        let members = &self.plans[n].groups[id.group.0].resources;
        let texts: Vec<String> = members.iter().map(|member| member.text.clone()).collect();
        let name = texts[id.member].clone();
        let running = &mut self.nodes[n].running;
        let here = running.contains(&name);
        if operation != Operation::Status && self.failing.contains(&(n, operation, name.clone())) {
            return Outcome::Failed("planned".into());
        }
        match operation {
            Operation::Status if here => Outcome::Running,
            Operation::Status => Outcome::Stopped,
            Operation::Start => {
                assert!(!here, "{name} is started twice");
                assert!(texts[..id.member].iter().all(|member| running.contains(member)), "start order");
                running.push(name);
                self.write_journal();
                Outcome::Ok
            }
            Operation::Stop => {
                assert!(!texts[id.member + 1..].iter().any(|member| running.contains(member)), "stop order");
                running.retain(|other| *other != name);
                self.write_journal();
                Outcome::Ok
            }
            Operation::Terminate | Operation::Kill => panic!("R1 has no ladder"),
        }
    }

    fn write_journal(&mut self) {
        let running = [self.nodes[0].running.clone(), self.nodes[1].running.clone()];
        self.journal.push((self.now, running));
    }

    fn drain(&mut self, n: usize) {
        if !self.nodes[n].alive {
            return;
        }
        while let Some(action) = self.nodes[n].director.poll() {
            match action {
                Action::Send { link, bytes } => {
                    if !self.cut[n][link.0] && (self.loss == 0 || self.random(1000) >= self.loss) {
                        self.later(self.delay, Happening::Frame { to: 1 - n, link, bytes });
                    }
                }
                Action::Run { ticket, resource, operation, .. } => {
                    let life = self.nodes[n].life;
                    let done = Happening::Done { node: n, life, ticket, resource, operation };
                    self.later(self.agent_delay, done);
                }
                Action::Reply { order, answer } => {
                    self.say(&format!("{}: {order:?}: {answer:?}", ["a", "b"][n]));
                    assert!(self.nodes[n].open.remove(&order), "{order:?} answered twice: {answer:?}");
                    self.nodes[n].answers.push(answer);
                }
                Action::Exit { restart, .. } => {
                    assert!(restart.is_none());
                    self.nodes[n].exited = true;
                    self.nodes[n].alive = false;
                }
                Action::Note(note) => {
                    self.say(&format!("{}: {:?} {note}", ["a", "b"][n], note.level));
                    self.nodes[n].notes.push(note.text);
                }
                // Its own generation, raised above the one that the other node has heard.
                Action::Remember { member, .. } if member.index() == n => {}
                Action::Remember { heard, .. } => {
                    assert!(self.nodes[n].remembered.is_none_or(|before| before <= heard));
                    self.nodes[n].remembered = Some(heard);
                }
                action @ (Action::SendTo { .. }
                | Action::AnnounceClaim { .. }
                | Action::Proofs { .. }
                | Action::Write(_)) => {
                    panic!("R1 has no {action:?}")
                }
                // Operations take no longer than an agent's delay.
                Action::Abandon(_)
                | Action::Ping { .. }
                | Action::Gate { .. }
                | Action::Announce(_)
                | Action::EventScript { .. } => {}
                Action::Fence { .. } => unreachable!("no fencing is configured"),
            }
        }
    }

    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            println!("{:>6} {text}", self.now.as_millis());
        }
    }

    #[track_caller]
    pub(crate) fn expect(&self, a: &str, b: &str) {
        let sorted = |mut names: Vec<&str>| {
            names.sort_unstable();
            names.join(" ")
        };
        let running = |n: usize| sorted(self.nodes[n].running.iter().map(String::as_str).collect());
        let expected = |text: &str| sorted(text.split_whitespace().collect());
        assert_eq!((running(0), running(1)), (expected(a), expected(b)));
    }

    /// The total time since that moment in which a resource ran on both nodes.
    pub(crate) fn overlap(&self, since: Instant) -> Duration {
        let mut overlap = Duration::ZERO;
        for (index, (at, running)) in self.journal.iter().enumerate() {
            let until = self.journal.get(index + 1).map_or(self.now, |(at, _)| *at);
            if running[0].iter().any(|name| running[1].contains(name)) {
                overlap += until.since((*at).max(since));
            }
        }
        overlap
    }

    /// The total time since that moment in which `name` ran nowhere.
    pub(crate) fn outage(&self, name: &str, since: Instant) -> Duration {
        let mut outage = Duration::ZERO;
        for (index, (at, running)) in self.journal.iter().enumerate() {
            let until = self.journal.get(index + 1).map_or(self.now, |(at, _)| *at);
            let nowhere = !running.iter().flatten().any(|other| other == name);
            if nowhere {
                outage += until.since((*at).max(since));
            }
        }
        outage
    }
}

pub(crate) fn now(instant: Instant) -> Now {
    Now { instant, unix_seconds: 1_000_000_000 + instant.as_millis() / 1000 }
}
