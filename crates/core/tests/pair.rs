//! Two Directors on a perfect link, with agents that answer at once: the dialect's main road. Faults, delays and
//! losses are the simulator's.

use std::{collections::VecDeque, sync::Arc};

use locum_core::{
    action::{Action, Answer, Operation},
    auth::{Key, Keys, Method},
    director::{Director, Identity},
    event::{Event, Order, OrderId, Outcome, Source},
    liveness::Liveness,
    plan::*,
    time::{Duration, Instant, Now},
    wire::message::{Holding, Uuid},
};

struct Node {
    director: Director,
    alive: bool,
    /// Texts of the resources that run here, in the order of their starts.
    running: Vec<String>,
    answers: Vec<Answer>,
    exited: bool,
}

struct Pair {
    now: Instant,
    plans: [Arc<Plan>; 2],
    nodes: [Node; 2],
    wire: VecDeque<(usize, LinkIndex, Arc<[u8]>)>,
    lives: u64,
}

fn plan(me: usize, auto_failback: AutoFailback) -> Arc<Plan> {
    let group = |node: usize, names: &[&str]| Group {
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
    let link = |name: &str| Link {
        name: name.into(),
        media: vec![Medium::Broadcast { interface: name.into(), port: 694 }],
    };
    Arc::new(Plan {
        cluster: "linux-ha".into(),
        nodes: vec!["a".into(), "b".into()],
        me: NodeIndex(me),
        timing: Timing {
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
        limits: Limits::default(),
    })
}

impl Pair {
    fn new(failback: AutoFailback) -> Self {
        let plans = [plan(0, failback), plan(1, failback)];
        let now = Instant::from_millis(1000);
        let nodes = [0, 1].map(|n| Self::boot(&plans[usize::from(n)], n, now));
        Self { now, plans, nodes, wire: VecDeque::new(), lives: 1 }
    }

    fn boot(plan: &Arc<Plan>, n: u8, at: Instant) -> Node {
        let keys =
            Keys::new(1, vec![Key { number: 1, method: Method::Sha1, secret: "s".into() }]).expect("keys");
        let identity = Identity {
            uuid: Uuid([n + 1; 16]),
            generation: at.as_millis(),
            peer_generation: None,
            seed: n.into(),
        };
        let director = Director::new(Arc::clone(plan), keys, identity, now(at));
        Node { director, alive: true, running: vec![], answers: vec![], exited: false }
    }

    fn power_off(&mut self, n: usize) {
        self.nodes[n].alive = false;
    }

    fn power_on(&mut self, n: usize) {
        self.lives += 1;
        self.nodes[n] = Self::boot(&self.plans[n], u8::from(n == 1), self.now);
    }

    fn order(&mut self, n: usize, order: Order) -> Option<Answer> {
        let now = now(self.now);
        self.nodes[n].director.handle(now, Event::Order { id: OrderId(9), order });
        self.run(Duration::from_millis(50));
        self.nodes[n].answers.pop()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for n in 0..2 {
                self.drain(n);
            }
            while let Some((to, link, bytes)) = self.wire.pop_front() {
                if self.nodes[to].alive {
                    let event = Event::Frame { link, from: Source::Serial, bytes: &bytes };
                    self.nodes[to].director.handle(now(self.now), event);
                    self.drain(to);
                }
            }
            let alive = self.nodes.iter().filter(|node| node.alive);
            let next = alive.map(|node| node.director.deadline()).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            for n in 0..2 {
                if self.nodes[n].alive && self.nodes[n].director.deadline() <= self.now {
                    self.nodes[n].director.handle(now(self.now), Event::Tick);
                    self.drain(n);
                }
            }
        }
    }

    fn drain(&mut self, n: usize) {
        if !self.nodes[n].alive {
            return;
        }
        while let Some(action) = self.nodes[n].director.poll() {
            match action {
                Action::Send { link, bytes } => self.wire.push_back((1 - n, link, bytes)),
                Action::Run { ticket, resource, operation, .. } => {
                    let name = self.plans[n].resource(resource).text.clone();
                    let running = &mut self.nodes[n].running;
                    let here = running.contains(&name);
                    let outcome = match operation {
                        Operation::Status if here => Outcome::Running,
                        Operation::Status => Outcome::Stopped,
                        Operation::Start => {
                            running.push(name);
                            Outcome::Ok
                        }
                        Operation::Stop => {
                            running.retain(|other| *other != name);
                            Outcome::Ok
                        }
                    };
                    self.nodes[n].director.handle(now(self.now), Event::Done { ticket, outcome });
                }
                Action::Reply { answer, .. } => self.nodes[n].answers.push(answer),
                Action::Exit { clean, restart } => {
                    assert!(clean && restart.is_none());
                    self.nodes[n].exited = true;
                    self.nodes[n].alive = false;
                }
                Action::Note(note) => {
                    println!("{:>6} {}: {:?} {note}", self.now.as_millis(), ["a", "b"][n], note.level)
                }
                Action::Ping { .. } | Action::Announce(_) | Action::Remember { .. } => {}
            }
        }
    }

    #[track_caller]
    fn expect(&self, a: &str, b: &str) {
        let sorted = |mut names: Vec<&str>| {
            names.sort_unstable();
            names.join(" ")
        };
        let running = |n: usize| sorted(self.nodes[n].running.iter().map(String::as_str).collect());
        let expected = |text: &str| sorted(text.split_whitespace().collect());
        assert_eq!((running(0), running(1)), (expected(a), expected(b)));
    }
}

fn now(instant: Instant) -> Now {
    Now { instant, unix_seconds: 1_000_000_000 + instant.as_millis() / 1000 }
}

const SHORT: Duration = Duration::from_millis(50);

#[test]
fn started_together_they_settle_at_once() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SHORT);
    pair.expect("one two", "three");
    let status = pair.nodes[0].director.status(now(pair.now));
    assert_eq!(status.troubles, [""; 0]);
    assert_eq!(status.forecasts.len(), 2);
    assert_eq!(status.forecasts[1].starts, ["three"]);
}

#[test]
fn a_death_is_a_takeover_and_a_return_a_failback() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(Duration::from_secs(5));
    pair.power_off(0);
    pair.run(Duration::from_millis(899));
    pair.expect("one two", "three");
    pair.run(Duration::from_millis(102));
    pair.expect("one two", "three one two");
    assert_eq!(pair.nodes[1].director.status(now(pair.now)).nodes[0].liveness, Liveness::Dead);
    pair.run(Duration::from_secs(3));
    pair.power_on(0);
    pair.run(SHORT);
    pair.expect("one two", "three");
    let outage = pair.nodes[1].director.status(now(pair.now)).groups[0].last_outage;
    assert_eq!(outage, Some(0.0), "the way back is a hand-over without a wait");
}

#[test]
fn without_failback_what_moved_stays() {
    let mut pair = Pair::new(AutoFailback::Off);
    pair.run(SHORT);
    pair.power_off(0);
    pair.run(Duration::from_secs(2));
    pair.power_on(0);
    pair.run(Duration::from_secs(15));
    pair.expect("", "three one two");
    assert_eq!(
        pair.order(0, Order::Takeover(Holding::Local)),
        Some(Answer::Done("the local set runs here now".into()))
    );
    pair.expect("one two", "three");
}

#[test]
fn sets_are_given_and_asked_for() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SHORT);
    assert!(matches!(pair.order(0, Order::Standby(Holding::All)), Some(Answer::Done(_))));
    pair.expect("", "three one two");
    pair.run(Duration::from_secs(20));
    pair.expect("", "three one two");
    assert!(matches!(pair.order(0, Order::Takeover(Holding::All)), Some(Answer::Done(_))));
    pair.expect("one two three", "");
    assert!(matches!(pair.order(0, Order::Standby(Holding::Foreign)), Some(Answer::Done(_))));
    pair.expect("one two", "three");
    assert_eq!(
        pair.order(1, Order::Standby(Holding::Foreign)),
        Some(Answer::Done("nothing of that set is here".into()))
    );
}

#[test]
fn a_leaving_node_is_followed_at_once() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SHORT);
    assert!(matches!(pair.order(0, Order::Leave), Some(Answer::Done(_))));
    pair.expect("", "three one two");
    assert!(pair.nodes[0].exited);
    pair.run(Duration::from_secs(5));
    pair.power_on(0);
    pair.run(SHORT);
    pair.expect("one two", "three");
}

#[test]
fn alone_a_node_takes_everything_after_initdead() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.power_off(1);
    pair.run(Duration::from_millis(2990));
    pair.expect("", "");
    pair.run(Duration::from_millis(20));
    pair.expect("one two three", "");
    pair.power_on(1);
    pair.run(SHORT);
    pair.expect("one two", "three");
}
