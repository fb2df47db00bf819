//! Directors that speak bytes with each other, over links that can be cut each way.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::String,
    vec,
    vec::Vec,
};
use core::net::SocketAddr;

use super::*;
use crate::{action::GateLease, config::locum_toml, event::Outcome, native::status::Way};

const TOML: &str = r#"
cluster = "test"
pace = "1s"
nodes.a.links = { front = "10.0.0.1", back = "10.1.0.1" }
nodes.b.links = { front = "10.0.0.2", back = "10.1.0.2" }
witnesses.w.address = "10.9.0.1"
groups.web.resources = ["10.0.0.100/24"]
groups.web.prefer = ["a"]
"#;

fn key(number: u8, secret: &str) -> Key {
    Key { number, method: Method::Sha256, secret: secret.as_bytes().to_vec() }
}

fn keys() -> Keys {
    Keys::new(0, vec![key(0, "secret")]).unwrap()
}

fn plan(toml: &str, name: &str) -> Arc<Plan> {
    let checked = locum_toml::check(toml.as_bytes(), name);
    Arc::new(checked.plan.unwrap_or_else(|| panic!("{toml}\n{:#?}", checked.diags)))
}

fn identity(generation: u64) -> Identity {
    let ledger = Durable { ceiling: 1, longest_lease: Duration::from_secs(1), set: 1, ..Durable::default() };
    Identity { generation, ledger: Some(ledger), heard: vec![], stuck: vec![], seed: generation }
}

const fn now(millis: u64) -> Now {
    Now { instant: Instant::from_millis(millis), unix_seconds: 0 }
}

struct Machine {
    director: Option<Director>,
    notes: Vec<String>,
    gate: Option<GateLease>,
    runs: bool,
    answers: Vec<Answer>,
    remembered: BTreeMap<NodeIndex, Heard>,
    left: bool,
}

/// A frame on its way.
struct Flying {
    at: u64,
    to: usize,
    link: LinkIndex,
    from: Source,
    bytes: Arc<[u8]>,
}

/// Three members, a millisecond from each other.
struct World {
    millis: u64,
    machines: Vec<Machine>,
    frames: VecDeque<Flying>,
    /// From, to, link.
    cuts: BTreeSet<(usize, usize, usize)>,
    /// All that was ever sent, by sender.
    tape: Vec<(usize, LinkIndex, Arc<[u8]>)>,
}

impl World {
    fn new(toml: &str) -> Self {
        let machine = |(index, name): (usize, &str)| {
            let director = Director::new(plan(toml, name), keys(), identity(10 + index as u64), now(1000));
            Machine {
                director: Some(director),
                notes: vec![],
                gate: None,
                runs: false,
                answers: vec![],
                remembered: BTreeMap::new(),
                left: false,
            }
        };
        let machines = ["a", "b", "w"].into_iter().enumerate().map(machine).collect();
        let mut world =
            Self { millis: 1000, machines, frames: VecDeque::new(), cuts: BTreeSet::new(), tape: vec![] };
        (0..3).for_each(|member| world.perform(member));
        world
    }

    fn director(&mut self, member: usize) -> &mut Director {
        self.machines[member].director.as_mut().unwrap()
    }

    fn handle(&mut self, member: usize, event: Event<'_>) {
        let now = now(self.millis);
        let Some(director) = &mut self.machines[member].director else { return };
        director.handle(now, event);
        self.perform(member);
    }

    fn perform(&mut self, member: usize) {
        while let Some(action) = self.machines[member].director.as_mut().and_then(Director::poll) {
            match action {
                Action::Send { link, bytes } => {
                    self.tape.push((member, link, Arc::clone(&bytes)));
                    let targets: &[usize] = if link.0 == 2 { &[2] } else { &[0, 1] };
                    for to in targets.iter().copied().filter(|to| *to != member) {
                        self.carry(member, to, link, &bytes);
                    }
                }
                Action::SendTo { link, to, bytes } => {
                    assert_eq!((member, link), (2, LinkIndex(2)));
                    let to = (0..2).find(|node| address(*node) == to).unwrap();
                    self.carry(member, to, link, &bytes);
                }
                Action::Run { ticket, operation, .. } => {
                    let runs = &mut self.machines[member].runs;
                    let outcome = match operation {
                        crate::action::Operation::Status if *runs => Outcome::Running,
                        crate::action::Operation::Status => Outcome::Stopped,
                        operation => {
                            *runs = operation == crate::action::Operation::Start;
                            Outcome::Ok
                        }
                    };
                    self.machines[member]
                        .director
                        .as_mut()
                        .unwrap()
                        .handle(now(self.millis), Event::Done { ticket, outcome });
                }
                Action::Write(_) => {
                    self.machines[member]
                        .director
                        .as_mut()
                        .unwrap()
                        .handle(now(self.millis), Event::Written { ok: true });
                }
                Action::Gate { lease, .. } => self.machines[member].gate = lease,
                Action::Note(note) => self.machines[member].notes.push(note.text),
                Action::Reply { answer, .. } => self.machines[member].answers.push(answer),
                Action::Remember { node, heard } => {
                    let before = self.machines[member].remembered.insert(node, heard);
                    assert!(before.is_none_or(|before| before < heard));
                }
                Action::Announce(_) => {}
                Action::Exit { clean, .. } => {
                    assert!(clean);
                    self.machines[member].left = true;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn carry(&mut self, from: usize, to: usize, link: LinkIndex, bytes: &Arc<[u8]>) {
        if !self.cuts.contains(&(from, to, link.0)) {
            let source = Source::Udp(address(from));
            let bytes = Arc::clone(bytes);
            self.frames.push_back(Flying { at: self.millis + 1, to, link, from: source, bytes });
        }
    }

    /// Both ways between two members on a link.
    fn cut(&mut self, one: usize, other: usize, link: usize) {
        self.cuts.extend([(one, other, link), (other, one, link)]);
    }

    fn pass(&mut self, millis: u64) {
        let end = self.millis + millis;
        while self.millis < end {
            self.millis += 1;
            while self.frames.front().is_some_and(|frame| frame.at <= self.millis) {
                let Some(Flying { to, link, from, bytes, .. }) = self.frames.pop_front() else { break };
                self.handle(to, Event::Frame { link, from, bytes: &bytes });
            }
            for member in 0..3 {
                let due = |director: &Director| director.deadline() <= Instant::from_millis(self.millis);
                if self.machines[member].director.as_ref().is_some_and(due) {
                    self.handle(member, Event::Tick);
                }
            }
        }
    }

    fn owner(&self) -> Option<usize> {
        let owns = |machine: &Machine| {
            machine.runs && machine.gate.is_some_and(|gate| gate.until > Instant::from_millis(self.millis))
        };
        let owners: Vec<usize> = (0..3).filter(|member| owns(&self.machines[*member])).collect();
        assert!(owners.len() < 2);
        owners.first().copied()
    }

    fn ways(&mut self, member: usize, other: usize) -> Vec<Way> {
        let now = now(self.millis);
        let status = self.director(member).status(now);
        status.members[other].links.iter().map(|path| path.way).collect()
    }

    fn take_notes(&mut self, member: usize) -> Vec<String> {
        core::mem::take(&mut self.machines[member].notes)
    }
}

fn address(member: usize) -> SocketAddr {
    format!("10.0.0.{}:6940", member + 1).parse().unwrap()
}

#[test]
fn a_cluster_comes_up_moves_and_fails_over_through_bytes() {
    let mut world = World::new(TOML);
    world.pass(4000);
    assert_eq!(world.owner(), Some(0));
    let gate = world.machines[0].gate.unwrap();
    assert_eq!(gate.until.since(gate.sent), Duration::from_millis(989));
    assert!(gate.sent <= Instant::from_millis(world.millis) && gate.ballot.node == MemberIndex(0));
    for (member, other) in [(0, 1), (1, 0)] {
        assert_eq!(world.ways(member, other), [Way::Both; 2]);
    }
    assert_eq!((world.ways(0, 2), world.ways(2, 0)), (vec![Way::Both], vec![Way::Both]));
    let web = GroupIndex(0);
    let order = Order::Native { order: node::Order::Move(web, None), user: 0 };
    world.handle(1, Event::Order { id: OrderId(1), order });
    world.pass(200);
    assert_eq!(world.owner(), Some(1));
    assert!(matches!(&world.machines[1].answers[..], [Answer::Done(_)]));
    world.machines[1].director = None;
    world.pass(3000);
    assert_eq!(world.owner(), Some(0));
}

#[test]
fn what_a_link_does_is_said_once_for_each_change() {
    let mut world = World::new(TOML);
    world.pass(5000);
    (0..3).for_each(|member| drop(world.take_notes(member)));
    world.cuts.insert((0, 1, 1));
    world.pass(5000);
    assert_eq!(
        (world.ways(0, 1), world.ways(1, 0)),
        (vec![Way::Both, Way::OnlyHere], vec![Way::Both, Way::OnlyThere])
    );
    assert_eq!(world.take_notes(0), ["link front carries frames one way only: from b, not to it"]);
    assert_eq!(world.take_notes(1), ["link front carries frames one way only: to a, not from it"]);
    world.cut(0, 1, 1);
    world.pass(5000);
    let nothing =
        "link front carries nothing between b and this member, which hear each other on other links";
    assert_eq!(
        (world.take_notes(0), world.ways(0, 1)),
        (vec![nothing.into()], vec![Way::Both, Way::Neither])
    );
    world.cuts.clear();
    world.pass(5000);
    assert_eq!(world.take_notes(0), ["link front carries frames both ways to b again"]);
    assert_eq!(world.owner(), Some(0));
    assert!(world.take_notes(2).is_empty());
}
