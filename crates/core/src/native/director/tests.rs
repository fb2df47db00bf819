//! Directors that exchange frames over links that can be cut in each direction.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::net::SocketAddr;

use proptest::{collection::vec as many, prelude::*};

use super::*;
use crate::{
    config::locum_toml,
    model::{
        action::{ClaimAnnouncement, ClaimProof, GateLease},
        claim::GroupId,
        event::Outcome,
        identity::MemberId,
    },
    native::{
        status::{LinkDirections, NativeGroupStatus, PinKind},
        wire::announcement,
    },
};

mod announced;
mod renamed;

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
    Key { number, method: AuthMethod::Sha256, secret: secret.as_bytes().to_vec() }
}

fn keys() -> Keys {
    Keys::new(0, vec![key(0, "secret")]).unwrap()
}

fn plan(toml: &str, name: &str) -> Arc<NativePlan> {
    let checked = locum_toml::check(toml.as_bytes(), name);
    Arc::new(checked.plan.unwrap_or_else(|| panic!("{toml}\n{:#?}", checked.diags)))
}

fn identity(generation: u64) -> NativeIdentity {
    let set = plan(TOML, "a").voter_set();
    let ledger =
        DurableState { ceiling: 1, longest_lease: Duration::from_secs(1), set, ..DurableState::default() };
    NativeIdentity { generation, ledger: Some(ledger), heard: vec![], stop_failed: vec![], seed: generation }
}

const fn now(millis: u64) -> Now {
    Now { instant: Instant::from_millis(millis), unix_seconds: 0 }
}

/// The parts of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AnnouncementParts {
    subject: [u8; announcement::SUBJECT_BYTES],
    owner: MemberId,
    round: u64,
    proof: ClaimProof,
}

impl AnnouncementParts {
    fn of(ClaimAnnouncement(bytes): ClaimAnnouncement) -> Self {
        fn part<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
            bytes[offset..][..N].try_into().unwrap()
        }
        Self {
            subject: part(&bytes, announcement::SUBJECT),
            owner: MemberId(u32::from_be_bytes(part(&bytes, 28))),
            round: u64::from_be_bytes(part(&bytes, 32)),
            proof: ClaimProof(part(&bytes, announcement::PROOF)),
        }
    }
}

/// That this node owns the group.
fn subject_of(node: &str) -> [u8; announcement::SUBJECT_BYTES] {
    announcement::subject("test", GroupId::of("web"), MemberId::of(node))
}

struct Machine {
    director: Option<NativeDirector>,
    notes: Vec<String>,
    gate: Option<GateLease>,
    /// By group, the lease that its gate was last given.
    gates: BTreeMap<GroupIndex, GateLease>,
    /// What was announced, and when.
    announced: Vec<(u64, AnnouncementParts)>,
    /// What ends an ownership of this machine, as its gate was told, and what it was told before.
    proofs: Vec<ClaimProof>,
    proofs_before: Vec<Vec<ClaimProof>>,
    runs: bool,
    /// The running resources, with their group, as the file writes them.
    running: BTreeSet<(GroupIndex, String)>,
    /// Its agents can start nothing.
    fails: bool,
    answers: Vec<Answer>,
    remembered: BTreeMap<MemberIndex, LastHeard>,
    /// All ledgers that were written, oldest first.
    ledgers: Vec<DurableState>,
    left: bool,
}

/// A frame that was sent and has not arrived.
struct Flying {
    at: u64,
    to: usize,
    link: LinkIndex,
    from: Source,
    bytes: Arc<[u8]>,
}

/// Three members; a frame takes 1 ms between them.
struct World {
    millis: u64,
    /// The wall clock of each member, by time in ms.
    wall: fn(u64, usize) -> u64,
    machines: Vec<Machine>,
    frames: VecDeque<Flying>,
    /// The cut links, each as (from, to, link).
    cuts: BTreeSet<(usize, usize, usize)>,
    /// The witness also hears the frames between the nodes.
    broadcasts: bool,
    /// A relay forwards what is sent to the witness, and its copies arrive first.
    relay: bool,
    /// The messages with the lines of files are lost.
    swallows_settings: bool,
    /// Counts answers of the witness to addresses of no node.
    astray: usize,
    /// All frames ever sent, by sender.
    tape: Vec<(usize, LinkIndex, Arc<[u8]>)>,
}

impl World {
    fn new(toml: &str) -> Self {
        Self::of(toml, identity)
    }

    fn of(toml: &str, identity: impl Fn(u64) -> NativeIdentity) -> Self {
        let machine = |(index, name): (usize, &str)| {
            let director =
                NativeDirector::new(plan(toml, name), keys(), identity(10 + index as u64), now(1000));
            Machine {
                director: Some(director),
                notes: vec![],
                gate: None,
                gates: BTreeMap::new(),
                announced: vec![],
                proofs: vec![],
                proofs_before: vec![],
                runs: false,
                running: BTreeSet::new(),
                fails: false,
                answers: vec![],
                remembered: BTreeMap::new(),
                ledgers: identity(0).ledger.into_iter().collect(),
                left: false,
            }
        };
        let machines = ["a", "b", "w"].into_iter().enumerate().map(machine).collect();
        let mut world = Self {
            millis: 1000,
            wall: |_, _| 0,
            machines,
            frames: VecDeque::new(),
            cuts: BTreeSet::new(),
            broadcasts: false,
            relay: false,
            swallows_settings: false,
            astray: 0,
            tape: vec![],
        };
        (0..3).for_each(|member| world.perform(member));
        world
    }

    fn now(&self, member: usize) -> Now {
        Now { unix_seconds: (self.wall)(self.millis, member), ..now(self.millis) }
    }

    fn director(&mut self, member: usize) -> &mut NativeDirector {
        self.machines[member].director.as_mut().unwrap()
    }

    fn handle(&mut self, member: usize, event: Event<'_>) {
        let now = self.now(member);
        let Some(director) = &mut self.machines[member].director else { return };
        director.handle(now, event);
        self.perform(member);
    }

    fn perform(&mut self, member: usize) {
        while let Some(action) = self.machines[member].director.as_mut().and_then(NativeDirector::poll) {
            match action {
                Action::Send { link, bytes } => {
                    self.tape.push((member, link, Arc::clone(&bytes)));
                    let targets: &[usize] = if link.0 == 2 { &[2] } else { &[0, 1] };
                    // A copy that arrives before the frame itself.
                    if member < 2 && (link.0 < 2 && self.broadcasts || link.0 == 2 && self.relay) {
                        let from = if link.0 == 2 { RELAY } else { "10.0.0.9:40000" };
                        let from = Source::Udp(from.parse().unwrap());
                        let (to, link, bytes) = (2, LinkIndex(2), Arc::clone(&bytes));
                        self.frames.push_back(Flying { at: self.millis + 1, to, link, from, bytes });
                    }
                    for to in targets.iter().copied().filter(|to| *to != member) {
                        self.carry(member, to, link, &bytes);
                    }
                }
                Action::SendTo { link, to, bytes } => {
                    assert_eq!((member, link), (2, LinkIndex(2)));
                    match (0..2).find(|node| address(*node) == to) {
                        Some(to) => self.carry(member, to, link, &bytes),
                        None => self.astray += 1,
                    }
                }
                Action::Run { ticket, operation, resource, .. } => {
                    let text = self.director(member).plan.resource(resource).runs.text.clone();
                    let Machine { runs, running, fails, .. } = &mut self.machines[member];
                    let held = (resource.group, text);
                    let outcome = match operation {
                        crate::model::action::Operation::Status if running.contains(&held) => {
                            Outcome::Running
                        }
                        crate::model::action::Operation::Status => Outcome::Stopped,
                        crate::model::action::Operation::Start if *fails => Outcome::Failed("no disk".into()),
                        operation => {
                            match operation {
                                crate::model::action::Operation::Start => running.insert(held),
                                _ => running.remove(&held),
                            };
                            *runs = !running.is_empty();
                            Outcome::Ok
                        }
                    };
                    let now = self.now(member);
                    self.director(member).handle(now, Event::Done { ticket, outcome });
                }
                Action::Write(durable) => {
                    self.machines[member].ledgers.push(durable);
                    let now = self.now(member);
                    self.director(member).handle(now, Event::Written { ok: true });
                }
                Action::Gate { group, lease } => {
                    let Machine { gate, gates, .. } = &mut self.machines[member];
                    *gate = lease;
                    gates.remove(&group);
                    gates.extend(lease.map(|lease| (group, lease)));
                }
                Action::AnnounceClaim { announcement, .. } => {
                    let announcement = AnnouncementParts::of(announcement);
                    let mut gates = self.machines[member].gates.values();
                    assert!(gates.any(|gate| gate.ballot.round == announcement.round));
                    let millis = self.millis;
                    self.machines[member].announced.push((millis, announcement));
                }
                Action::Proofs { proofs, .. } => {
                    let before = core::mem::replace(&mut self.machines[member].proofs, proofs);
                    self.machines[member].proofs_before.push(before);
                }
                Action::Note(note) => self.machines[member].notes.push(note.text),
                Action::Reply { answer, .. } => self.machines[member].answers.push(answer),
                Action::Remember { member: of, heard } => {
                    let before = self.machines[member].remembered.insert(of, heard);
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
        let is_swallowed = self.swallows_settings && bytes.windows(9).any(|word| word == b"t=meaning");
        if !self.cuts.contains(&(from, to, link.0)) && !is_swallowed {
            let source = Source::Udp(address(from));
            let bytes = Arc::clone(bytes);
            self.frames.push_back(Flying { at: self.millis + 1, to, link, from: source, bytes });
        }
    }

    /// Cuts a link between two members, both ways.
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
                let due =
                    |director: &NativeDirector| director.deadline() <= Instant::from_millis(self.millis);
                if self.machines[member].director.as_ref().is_some_and(due) {
                    self.handle(member, Event::Tick);
                }
            }
        }
    }

    /// Restarts a member. It finds its newest ledger, or with `torn` the one before.
    fn restart(&mut self, member: usize, generation: u64, torn: bool) {
        let machine = &mut self.machines[member];
        if torn {
            machine.ledgers.pop();
        }
        self.begin(member, TOML, generation);
    }

    /// Starts a member with this file.
    fn begin(&mut self, member: usize, toml: &str, generation: u64) {
        let machine = &mut self.machines[member];
        // A driver writes the ledger before the start, too.
        let ledger = machine.ledgers.last().cloned().unwrap();
        machine.ledgers.push(ledger.clone());
        (machine.gate, machine.runs, machine.left) = (None, false, false);
        (machine.gates, machine.running) = (BTreeMap::new(), BTreeSet::new());
        let born = NativeIdentity { ledger: Some(ledger), ..identity(generation) };
        let name = ["a", "b", "w"][member];
        machine.director = Some(NativeDirector::new(plan(toml, name), keys(), born, now(self.millis)));
        self.perform(member);
    }

    fn owner(&self) -> Option<usize> {
        let owns = |machine: &Machine| {
            machine.runs && machine.gate.is_some_and(|gate| gate.until > Instant::from_millis(self.millis))
        };
        let owners: Vec<usize> = (0..3).filter(|member| owns(&self.machines[*member])).collect();
        assert!(owners.len() < 2);
        owners.first().copied()
    }

    fn directions(&mut self, member: usize, other: usize) -> Vec<LinkDirections> {
        let now = now(self.millis);
        let status = self.director(member).status(now);
        status.members[other].links.iter().map(|path| path.way).collect()
    }

    /// The blocked reasons of the groups that have no owner, as that member sees them.
    fn blocked(&mut self, member: usize) -> Vec<String> {
        let now = now(self.millis);
        let status = self.director(member).status(now);
        for group in &status.groups {
            assert_eq!(group.owner.is_none(), group.blocked.is_some(), "{group:?}");
        }
        let says = |group: &NativeGroupStatus| {
            let why = group.blocked.as_ref()?;
            assert!(status.troubles.contains(&format!("{} has no owner: {why}", group.name)));
            Some(format!("{}: {why}", group.name))
        };
        status.groups.iter().filter_map(says).collect()
    }

    fn take_notes(&mut self, member: usize) -> Vec<String> {
        core::mem::take(&mut self.machines[member].notes)
    }
}

#[test]
fn what_parts_the_cluster_stands_first_in_the_status_as_long_as_it_lasts() {
    let mut world = World::new(TOML);
    world.pass(5000);
    let troubles = |world: &mut World, member| {
        let now = now(world.millis);
        world.director(member).status(now).troubles
    };
    assert_eq!(troubles(&mut world, 0), [""; 0]);
    world.handle(1, Event::Keys(Keys::new(0, vec![key(0, "another")]).unwrap()));
    world.pass(3000);
    for member in 0..3 {
        let first = troubles(&mut world, member)[0].clone();
        assert!(first.starts_with("frames from 10.0.0."), "{member}: {first}");
        assert!(first.contains("give all members the same locum.key"), "{member}: {first}");
    }
    world.handle(1, Event::Keys(keys()));
    world.pass(8000);
    for member in 0..3 {
        assert_eq!(troubles(&mut world, member), [""; 0], "{member}");
    }
    // Two machines made from a copy of the first one's disk, one with an older clock and one with a newer one.
    for generation in [5, 5000] {
        let members = MemberTable::new(["a", "b", "w"].iter().map(ToString::to_string));
        let mut clone = Wire::new("test", members, MemberIndex(0), generation, Duration::from_secs(1));
        for _ in 0..30 {
            let frame = clone.write(1, Receivers::All, &NativeMessage::AskSettings, &Reach::default())[0]
                .bytes(&keys());
            let from = Source::Udp(([10, 0, 0, 9], 6940).into());
            world.handle(0, Event::Frame { link: LinkIndex(0), from, bytes: &frame });
            world.pass(100);
        }
        let first = troubles(&mut world, 0)[0].clone();
        assert!(first.starts_with("another machine, 10.0.0.9, sends under this member's name a"), "{first}");
        world.pass(5000);
        assert_eq!(troubles(&mut world, 0), [""; 0]);
    }
}

const RELAY: &str = "10.0.0.66:1";

#[test]
fn the_witness_answers_who_asked_it_whatever_copies_it_hears_first() {
    for (broadcasts, relay) in [(true, false), (false, true), (true, true)] {
        let mut world = World::new(TOML);
        (world.broadcasts, world.relay) = (broadcasts, relay);
        for node in 0..2 {
            world.handle(node, Event::OwnAddress { link: LinkIndex(2), address: Some(address(node)) });
        }
        world.pass(4000);
        assert_eq!(world.owner(), Some(0), "{broadcasts} {relay}");
        assert_eq!(world.directions(0, 2), [LinkDirections::Both]);
        let astray = world.astray;
        world.pass(5000);
        assert_eq!(world.astray, astray, "{broadcasts} {relay}");
        // The witness's vote counts: the other node is gone, and the witness makes the majority.
        world.machines[1].director = None;
        world.pass(10_000);
        assert_eq!(world.owner(), Some(0));
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
        assert_eq!(world.directions(member, other), [LinkDirections::Both; 2]);
    }
    assert_eq!(
        (world.directions(0, 2), world.directions(2, 0)),
        (vec![LinkDirections::Both], vec![LinkDirections::Both])
    );
    let web = GroupIndex(0);
    let epoch =
        |world: &mut World, member| world.director(member).epoch(web).map(|epoch| epoch.as_str().to_string());
    let first = epoch(&mut world, 0).unwrap();
    assert_eq!((&first[first.len() - 2..], epoch(&mut world, 1)), (".0", None));
    let order = Order::Native { order: NativeOrder::Move(web, None), user: 0 };
    world.handle(1, Event::Order { id: OrderId(1), order });
    world.pass(200);
    assert_eq!(world.owner(), Some(1));
    assert_eq!(epoch(&mut world, 0), Some(first), "what is said of it there is said of its last ownership");
    assert!(epoch(&mut world, 1).unwrap().ends_with(".1"));
    assert!(matches!(&world.machines[1].answers[..], [Answer::Done(_)]));
    world.machines[1].director = None;
    world.pass(3000);
    assert_eq!(world.owner(), Some(0));
}

/// Two of three voters are a majority, but neither may claim before the third has come, too.
#[test]
fn a_new_cluster_is_founded_when_its_last_voter_comes_late() {
    for late in 0..3 {
        let blank = |generation| NativeIdentity { ledger: None, ..identity(generation) };
        let mut world = World::of(TOML, blank);
        let last = world.machines[late].director.take();
        world.pass(20_000);
        assert_eq!(world.owner(), None);
        world.machines[late].director = last;
        world.pass(4000);
        assert!(world.owner().is_some(), "the last was {late}");
    }
}

#[test]
fn whoever_has_lost_its_last_write_keeps_nobody_from_owning() {
    let mut world = World::new(TOML);
    world.pass(4000);
    let mut generation = 100;
    for round in 0..40 {
        let owner = world.owner().unwrap();
        let member = [1 - owner, 2, owner][round % 3];
        generation += 1;
        world.restart(member, generation, round >= 3);
        world.pass(if member == owner { 5000 } else { 1200 });
        let notes = world.take_notes(member);
        assert!(
            world.owner().is_some(),
            "{round}: {member} {notes:#?} {:#?}",
            world.director(0).status(now(0))
        );
    }
}

#[test]
fn a_wall_clock_that_jumps_years_changes_not_a_byte() {
    const YEAR: u64 = 365 * 24 * 3600;
    const NOW: u64 = 1_795_334_146;
    // A cluster starts, a group moves, its owner dies. The result is all that was sent and logged, and the gates at the
    // end.
    let play = |wall: fn(u64, usize) -> u64| {
        let mut world = World::new(TOML);
        world.wall = wall;
        world.pass(4000);
        assert_eq!(world.owner(), Some(0));
        let order = NativeOrder::Move(GroupIndex(0), Some(NodeIndex(1)));
        world.handle(0, Event::Order { id: OrderId(1), order: Order::Native { order, user: 0 } });
        world.pass(4000);
        assert_eq!(world.owner(), Some(1));
        world.machines[1].director = None;
        world.pass(10_000);
        assert_eq!(world.owner(), Some(0));
        let said: Vec<_> =
            world.machines.iter().map(|machine| (machine.notes.clone(), machine.gate)).collect();
        (world.tape, said)
    };
    let steady = play(|millis, _| NOW + millis / 1000);
    // The wall clock jumps every second, each member's another way, and also stands at its beginning or end.
    let jumps = |millis: u64, member: usize| match (millis / 1000 + member as u64) % 5 {
        0 => NOW,
        1 => NOW + YEAR,
        2 => NOW - YEAR,
        3 => 0,
        _ => u64::MAX,
    };
    assert!(play(jumps) == steady, "a clock that jumps was noticed");
}

#[test]
fn a_change_of_a_link_is_logged_once() {
    let mut world = World::new(TOML);
    world.pass(5000);
    (0..3).for_each(|member| drop(world.take_notes(member)));
    world.cuts.insert((0, 1, 1));
    world.pass(5000);
    assert_eq!(
        (world.directions(0, 1), world.directions(1, 0)),
        (
            vec![LinkDirections::Both, LinkDirections::OnlyHere],
            vec![LinkDirections::Both, LinkDirections::OnlyThere]
        )
    );
    assert_eq!(world.take_notes(0), ["link front carries frames one way only: from b, not to it"]);
    assert_eq!(world.take_notes(1), ["link front carries frames one way only: to a, not from it"]);
    world.cut(0, 1, 1);
    world.pass(5000);
    let nothing =
        "link front carries nothing between b and this member, which hear each other on other links";
    assert_eq!(
        (world.take_notes(0), world.directions(0, 1)),
        (vec![nothing.into()], vec![LinkDirections::Both, LinkDirections::Neither])
    );
    world.cuts.clear();
    world.pass(5000);
    assert_eq!(world.take_notes(0), ["link front carries frames both ways to b again"]);
    assert_eq!(world.owner(), Some(0));
    assert!(world.take_notes(2).is_empty());
}

#[test]
fn the_first_claim_waits_for_every_link_and_not_for_ever() {
    let claims = |world: &mut World| {
        while world.owner().is_none() {
            assert!(world.millis < 10_000);
            world.pass(1);
        }
        let ways =
            [world.directions(0, 1), world.directions(0, 2), world.directions(1, 0), world.directions(1, 2)]
                .concat();
        (world.millis - 1000, ways)
    };
    let (whole, ways) = claims(&mut World::new(TOML));
    assert!(ways.iter().all(|way| *way == LinkDirections::Both), "{ways:?}");
    assert!(whole < 1500, "{whole}");

    let mut world = World::new(TOML);
    world.cut(0, 1, 1);
    let (broken, ways) = claims(&mut world);
    assert!(!ways.contains(&LinkDirections::Untested), "{ways:?}");
    assert!(broken < 2500, "{broken}");

    // Only the witness is there: links to a dead node cannot be tested.
    let mut world = World::new(TOML);
    world.machines[1].director = None;
    while world.owner().is_none() {
        world.pass(1);
        assert!(world.millis < 4000);
    }
    assert_eq!(world.directions(0, 2), [LinkDirections::Both]);
}

/// What each of two nodes knows of the other if only the witness votes.
#[test]
fn two_that_do_not_vote_test_their_links_without_echoes() {
    let one_voter = format!("voters = [\"w\"]\n{TOML}");
    let set = plan(&one_voter, "a").voter_set();
    let born = |generation| {
        let ledger = identity(generation).ledger.map(|ledger| DurableState { set, ..ledger });
        NativeIdentity { ledger, ..identity(generation) }
    };
    let hears_us = |world: &mut World, member: usize| {
        let now = now(world.millis);
        world.director(member).status(now).members.iter().map(|other| other.hears_us).collect::<Vec<_>>()
    };
    let mut world = World::of(&one_voter, born);
    while world.owner().is_none() {
        world.pass(1);
        assert!(world.millis < 2500);
    }
    assert_eq!(
        (world.directions(0, 1), world.directions(0, 2)),
        (vec![LinkDirections::Both; 2], vec![LinkDirections::Both])
    );
    assert_eq!(hears_us(&mut world, 0)[1..], [Some(true); 2]);
    // b does not get a's frames.
    world.cuts.extend([(0, 1, 0), (0, 1, 1)]);
    world.pass(5000);
    assert_eq!(
        (world.directions(0, 1), world.directions(1, 0)),
        (vec![LinkDirections::OnlyHere; 2], vec![LinkDirections::Untested; 2])
    );
    assert_eq!(hears_us(&mut world, 0)[1..], [Some(false), Some(true)]);
    // b does not get a's frames, so it cannot know whether a hears it.
    assert_eq!(hears_us(&mut world, 1)[0], None);
    // With another file the places mean nothing, and nothing is logged about the link.
    let other = one_voter.replace("groups.web.prefer", "groups.web.failback = \"5min\"\ngroups.web.prefer");
    world.cuts.clear();
    let later = now(world.millis);
    world.machines[1].director = Some(NativeDirector::new(plan(&other, "b"), keys(), born(20), later));
    world.perform(1);
    world.pass(3000);
    assert_eq!(hears_us(&mut world, 0)[1..], [None, Some(true)]);
    assert_eq!(world.owner(), Some(0));
}

#[test]
fn frames_that_are_not_ours_are_counted_by_name_and_logged_in_few_lines() {
    let mut world = World::new(TOML);
    world.pass(5000);
    drop(world.take_notes(0));
    let members = |names: &[&str]| MemberTable::new(names.iter().map(ToString::to_string));
    let wire = |cluster: &str, me: u8, names: &[&str]| {
        Wire::new(cluster, members(names), MemberIndex(me), 99, Duration::from_secs(1))
    };
    let stranger = Keys::new(0, vec![key(0, "another")]).unwrap();
    let bytes = |wire: &mut Wire, keys: &Keys| {
        let word = NativeMessage::AskSettings;
        wire.write(1, Receivers::All, &word, &Reach::default())[0].bytes(keys)
    };
    let ours = ["a", "b", "w"];
    for n in 0..100 {
        let refused = [
            bytes(&mut wire("test", 1, &ours), &stranger),
            bytes(&mut wire("other", 0, &["x"]), &stranger),
            bytes(&mut wire(&format!("other{n}"), 0, &["x"]), &stranger),
            bytes(&mut wire("test", 0, &["stranger"]), &keys()),
            bytes(&mut wire("test", 0, &ours), &keys()),
            b"###\n%%%\n".to_vec(),
        ];
        for (bytes, from) in refused.iter().zip(20_u8..) {
            let from = Source::Udp(([10, 0, 0, from], 6940).into());
            world.handle(0, Event::Frame { link: LinkIndex(0), from, bytes });
        }
        world.pass(100);
    }
    let now = now(world.millis);
    let status = world.director(0).status(now);
    let counts: Vec<(&str, u64)> =
        status.frames.refused.iter().map(|(name, count)| (name.as_ref(), *count)).collect();
    assert_eq!(
        counts,
        [
            ("foreign-cluster", 200),
            ("key-other", 100),
            ("no-end", 100),
            ("same-name", 100),
            ("unknown-sender", 100)
        ]
    );
    assert_eq!(status.foreign.len(), FOREIGN_MAX);
    assert!(status.foreign.contains(&("other".into(), 100)));
    assert!(
        status.troubles.iter().any(|trouble| trouble.contains("under this member's name")),
        "{:?}",
        status.troubles
    );
    let notes = world.take_notes(0);
    let count = |text: &str| notes.iter().filter(|note| note.contains(text)).count();
    assert_eq!(count("another cluster, `other`"), 1);
    assert_eq!(count("another cluster"), FOREIGN_MAX);
    assert_eq!(count("refused"), 4, "{notes:#?}");
    assert_eq!(notes.len(), FOREIGN_MAX + 4, "{notes:#?}");
    assert_eq!(world.owner(), Some(0));
}

#[test]
fn keys_are_changed_member_by_member_without_a_lost_lease() {
    let mut world = World::new(TOML);
    world.pass(5000);
    drop(world.take_notes(0));
    let two = |first: &str, second: &str| Keys::new(0, vec![key(0, first), key(1, second)]).unwrap();
    let steps = [two("secret", "new"), two("new", "secret"), Keys::new(0, vec![key(0, "new")]).unwrap()];
    for keys in steps {
        for member in [1, 2, 0] {
            world.handle(member, Event::Keys(keys.clone()));
            world.pass(2000);
            assert_eq!(world.owner(), Some(0));
        }
    }
    let notes = world.take_notes(0);
    assert!(
        notes.iter().any(|note| note.starts_with("b signs with key 1, this member with key 0")),
        "{notes:#?}"
    );
    let now = now(world.millis);
    let status = world.director(0).status(now);
    assert_eq!(status.frames.refused.get("key-other"), None);
    assert_eq!(status.members[1].key, Some(0));
    // Frames signed with the old key are refused now.
    world.handle(1, Event::Keys(Keys::new(0, vec![key(0, "secret")]).unwrap()));
    world.pass(3000);
    let status = world.director(0).status(Now { instant: Instant::from_millis(9_999_999), unix_seconds: 0 });
    assert!(status.frames.refused.get("key-other").is_some_and(|count| *count > 0), "{:?}", status.frames);
}

#[test]
fn a_member_without_a_common_protocol_is_refused_with_a_line() {
    let mut world = World::new(TOML);
    world.machines[1].director = None;
    world.pass(2000);
    let plan = plan(TOML, "b");
    let mut wire = Wire::new("test", MemberTable::of(&plan), MemberIndex(1), 50, Duration::from_secs(1));
    let mut node = NativeNode::new(
        Arc::clone(&plan),
        node::NodeIdentity { generation: 50, ledger: None, stop_failed: vec![], seed: 1 },
        Instant::ZERO,
    );
    let words: Vec<NativeMessage> = core::iter::from_fn(|| node.poll())
        .filter_map(|action| match action {
            node::NodeAction::Send { word, .. } => Some(word),
            _ => None,
        })
        .collect();
    assert!(matches!(words[..], [NativeMessage::Beat(_), ..]) && words.len() > 1, "{words:?}");
    let mut say = |world: &mut World, lowest, highest| {
        for word in &words {
            let reach = Reach { versions: Versions { lowest, highest }, ..Reach::default() };
            for frame in wire.write(1, Receivers::All, word, &reach) {
                let bytes = frame.bytes(&keys());
                world.handle(
                    0,
                    Event::Frame { link: LinkIndex(0), from: Source::Udp(address(1)), bytes: &bytes },
                );
            }
        }
    };
    drop(world.take_notes(0));
    (0..3).for_each(|_| say(&mut world, PROTOCOL + 1, PROTOCOL + 2));
    let refused = "b is refused: it speaks protocols 2 to 3, this member 1 to 1; upgrade the older one";
    assert_eq!(world.take_notes(0), [refused]);
    let now = now(world.millis);
    let status = world.director(0).status(now);
    assert_eq!(status.frames.refused.get("version"), Some(&(3 * words.len() as u64)));
    assert_eq!(status.members[1].refused.as_deref(), Some("it has no protocol in common with us"));
    assert!(!world.director(0).node().hears(MemberIndex(1)));
    say(&mut world, PROTOCOL, PROTOCOL + 2);
    assert!(world.take_notes(0).contains(&"b speaks a protocol in common with this member now".into()));
    assert!(world.director(0).node().hears(MemberIndex(1)));
}

#[test]
fn recordings_of_a_dead_member_are_nothing_after_our_restart() {
    let mut world = World::new(TOML);
    world.pass(5000);
    world.handle(1, Event::Order { id: OrderId(7), order: Order::Leave });
    assert!(world.machines[1].left);
    assert!(matches!(&world.machines[1].answers[..], [Answer::Done(_)]), "{:?}", world.machines[1].answers);
    let heard: Vec<(MemberIndex, LastHeard)> = world.machines[1].remembered.clone().into_iter().collect();
    assert_eq!(heard.len(), 2);
    let tape: Vec<(LinkIndex, Arc<[u8]>)> = world
        .tape
        .iter()
        .filter(|(from, ..)| *from == 0)
        .map(|(_, link, bytes)| (*link, Arc::clone(bytes)))
        .collect();
    assert!(tape.len() > 30);
    let replay = |heard: Vec<(MemberIndex, LastHeard)>| {
        let identity = NativeIdentity { heard, ..identity(50) };
        let mut director = NativeDirector::new(plan(TOML, "b"), keys(), identity, now(world.millis));
        let from = Source::Udp(address(0));
        for (_, bytes) in tape.iter().filter(|(link, _)| link.0 < 2) {
            director.handle(now(world.millis), Event::Frame { link: LinkIndex(0), from, bytes });
        }
        (director.node().hears(MemberIndex(0)), director.status(now(world.millis)).frames)
    };
    let (hears, frames) = replay(heard);
    assert!(!hears && frames.refused["replayed"] == frames.received, "{frames:?}");
    // Without the saved numbers, the recordings look like frames of a live member.
    assert!(replay(vec![]).0);
}

#[test]
fn a_witness_with_a_key_of_its_own_speaks_for_itself_alone() {
    let secret = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let mut world = World::new(&format!("{TOML}\nwitnesses.w.key = \"{secret}\"\n"));
    world.pass(3000);
    assert_eq!(world.owner(), Some(0));
    let plan = plan(TOML, "w");
    let witness = world.director(2).witness_keys[0].clone().unwrap();
    let mut as_node = Wire::new("test", MemberTable::of(&plan), MemberIndex(1), 99, Duration::from_secs(1));
    let mut hear = |link, keys: &Keys| {
        let bytes =
            as_node.write(1, Receivers::All, &NativeMessage::AskSettings, &Reach::default())[0].bytes(keys);
        world.handle(0, Event::Frame { link: LinkIndex(link), from: Source::Udp(address(2)), bytes: &bytes });
        let now = now(world.millis);
        world.director(0).status(now).frames.refused
    };
    assert_eq!(hear(2, &witness).get("wrong-link"), Some(&1));
    assert_eq!(hear(1, &witness).get("key-other"), Some(&1));
    assert_eq!(hear(2, &keys()).get("key-other"), Some(&2));
    assert_eq!(world.director(0).wire.heard(MemberIndex(1)).unwrap().generation, 11);
}

#[test]
fn orders_are_pinned_with_who_asked_and_those_of_another_dialect_are_refused() {
    let mut world = World::new(TOML);
    world.pass(3000);
    let native = |order, user| Order::Native { order, user };
    let web = GroupIndex(0);
    world.handle(0, Event::Order { id: OrderId(1), order: native(NativeOrder::Freeze(web, true), 1000) });
    world.handle(0, Event::Order { id: OrderId(2), order: native(NativeOrder::Maintenance(true), 0) });
    world.pass(2000);
    world.handle(0, Event::Order { id: OrderId(3), order: native(NativeOrder::Maintenance(true), 7) });
    let status = world.director(0).status(now(6000));
    let seen = |pins: &[crate::native::status::Pin]| {
        pins.iter().map(|pin| (pin.kind, pin.user, pin.age)).collect::<Vec<_>>()
    };
    assert_eq!(seen(&status.groups[0].pins), [(PinKind::Frozen, Some(1000), Some(2.0))]);
    assert_eq!(seen(&status.pins), [(PinKind::Maintenance, Some(0), Some(2.0))]);
    world.handle(0, Event::Order { id: OrderId(4), order: native(NativeOrder::Freeze(web, false), 0) });
    world.handle(0, Event::Order { id: OrderId(5), order: native(NativeOrder::Maintenance(false), 0) });
    let status = world.director(0).status(now(6000));
    assert!(status.pins.is_empty() && status.groups[0].pins.is_empty());

    world.machines[0].answers.clear();
    let nobody = NodeIndex(2);
    let refused = [
        Order::Reload,
        Order::Standby(crate::model::holding::Holding::All),
        native(NativeOrder::Move(GroupIndex(1), None), 0),
        native(NativeOrder::Freeze(GroupIndex(1), true), 0),
        native(NativeOrder::Move(web, Some(nobody)), 0),
    ];
    for (id, order) in (10..).map(OrderId).zip(refused) {
        world.handle(0, Event::Order { id, order });
    }
    let answers = &world.machines[0].answers;
    assert!(
        answers.len() == 5 && answers.iter().all(|answer| matches!(answer, Answer::Refused(_))),
        "{answers:?}"
    );
    world.handle(2, Event::Order { id: OrderId(1), order: native(NativeOrder::Standby, 0) });
    assert!(matches!(&world.machines[2].answers[..], [Answer::Refused(_)]));
    // A person at the witness may move groups that nodes run.
    world.handle(2, Event::Order { id: OrderId(2), order: native(NativeOrder::Move(web, None), 0) });
    world.pass(200);
    assert_eq!(world.owner(), Some(1));
    world.handle(2, Event::Order { id: OrderId(3), order: Order::Leave });
    assert!(world.machines[2].left);
}

#[test]
fn a_restarted_node_logs_the_pins_that_hold_and_not_those_that_are_over() {
    let mut world = World::new(TOML);
    world.pass(4000);
    let order = |world: &mut World, order| {
        world.handle(0, Event::Order { id: OrderId(1), order: Order::Native { order, user: 7 } });
    };
    let said = |world: &mut World, member: usize| {
        let mut notes = world.take_notes(member);
        notes.retain(|note| note.contains("asked for"));
        notes
    };
    let web = GroupIndex(0);
    for on in [true, false] {
        order(&mut world, NativeOrder::Freeze(web, on));
        world.pass(100);
    }
    let by = "asked for at a by user 7";
    assert_eq!(said(&mut world, 1), [format!("is frozen: {by}"), format!("is no longer frozen: {by}")]);
    order(&mut world, NativeOrder::Maintenance(true));
    world.pass(3500);
    assert_eq!(said(&mut world, 1), [format!("maintenance begins: {by}")]);
    world.restart(1, 20, false);
    world.pass(3000);
    assert_eq!(said(&mut world, 1), [format!("maintenance begins: {by}, 3 s ago")]);
    order(&mut world, NativeOrder::Maintenance(false));
    world.pass(100);
    assert_eq!(said(&mut world, 1), [format!("maintenance is over: {by}")]);
    // All pins have ended: after its next start the node logs none of those that it has seen.
    world.restart(1, 30, false);
    world.pass(3000);
    assert!(said(&mut world, 1).is_empty());
}

#[test]
fn status_says_why_a_group_has_no_owner() {
    let mut world = World::new(TOML);
    let order = |world: &mut World, member, order| {
        world.handle(member, Event::Order { id: OrderId(1), order: Order::Native { order, user: 0 } });
    };
    let mut said = [vec![], vec![]];
    while world.owner().is_none() {
        world.pass(1);
        for (member, said) in said.iter_mut().enumerate() {
            said.extend(world.blocked(member));
            said.dedup();
        }
    }
    let [a, b] = said;
    assert_eq!(
        a,
        [
            "web: no majority of the voters hears this node",
            "web: the links of this node are not tested yet",
            "web: this node asks the voters for it"
        ]
    );
    assert_eq!((&b[0], b.last().unwrap().as_str()), (&a[0], "web: a claims it first"));
    world.pass(1000);
    assert_eq!((world.blocked(0), world.blocked(1)), (vec![], vec![]));
    // The owner dies while its group is frozen.
    order(&mut world, 0, NativeOrder::Freeze(GroupIndex(0), true));
    world.pass(100);
    world.machines[0].director = None;
    world.pass(3000);
    assert_eq!(world.blocked(1), ["web: web is frozen"]);
    order(&mut world, 1, NativeOrder::Maintenance(true));
    assert_eq!(world.blocked(1), ["web: maintenance: nothing is claimed"]);
    order(&mut world, 1, NativeOrder::Maintenance(false));
    order(&mut world, 1, NativeOrder::Freeze(GroupIndex(0), false));
    world.pass(1000);
    assert_eq!((world.owner(), world.blocked(1)), (Some(1), vec![]));
    world.machines[2].director = None;
    world.pass(3000);
    assert_eq!(world.blocked(1), ["web: no majority of the voters hears this node"]);
}

#[test]
fn status_says_for_whom_a_handover_waits() {
    let mut world = World::new(TOML);
    world.pass(4000);
    assert_eq!(world.owner(), Some(0));
    let resource = ResourceId { group: GroupIndex(0), member: 0 };
    world.handle(1, Event::Service { resource, state: Carrier::Down("eth0 has no carrier".into()) });
    world.pass(2000);
    let order = NativeOrder::Move(GroupIndex(0), Some(NodeIndex(1)));
    world.handle(0, Event::Order { id: OrderId(1), order: Order::Native { order, user: 0 } });
    world.pass(12_000);
    let waiting = |world: &mut World| {
        let now = world.now(0);
        world.director(0).status(now).groups[0].waiting.as_ref().map(ToString::to_string)
    };
    let why = "clients would not reach it on b: an interface there carries nothing";
    assert_eq!(waiting(&mut world), Some(format!("waits until a node can take it: {why} (12 s of 30)")));
    world.handle(1, Event::Service { resource, state: Carrier::Up });
    world.pass(2000);
    assert_eq!((world.owner(), waiting(&mut world)), (Some(1), None));
}

#[test]
fn status_says_what_hinders_each_candidate() {
    let apart = "groups.db.resources = ['d']\ngroups.db.prefer = 'a'\n\
                 groups.log.resources = ['l']\ngroups.log.nodes = ['a']\ngroups.log.apart = 'db'\n";
    let mut world = World::new(&format!("{TOML}{apart}"));
    world.pass(5000);
    let met = "log: no node may have it now: a has db, which must not be on the same node".to_string();
    assert_eq!((world.blocked(0), world.blocked(1)), (vec![met.clone()], vec![met]));

    // The only candidate of a group dies. A second group comes after that one, and a third stays together with the
    // second.
    let after = "groups.cache.resources = ['c']\ngroups.cache.together = 'web'\ngroups.cache.prefer = 'a'\n\
                 groups.cache.after = 'db'\ngroups.db.resources = ['d']\ngroups.db.nodes = ['a']\n";
    let toml = format!("{TOML}{after}");
    let mut world = World::new(&toml);
    world.pass(5000);
    assert_eq!((world.blocked(0), world.blocked(1)), (vec![], vec![]));
    world.machines[0].director = None;
    world.pass(3000);
    let orphans = [
        "cache: it comes after db, which has no owner",
        "db: no node may have it now: a is silent",
        "web: it stays together with cache, and is claimed by the owner of that group",
    ];
    assert_eq!(world.blocked(1), orphans);

    // It fails on its only candidate.
    let mut world = World::new(&toml);
    world.machines[0].fails = true;
    world.pass(5000);
    let failed = "db: no node may have it now: a could not run db (`locum online` there lets it try again)"
        .to_string();
    assert!(
        world.blocked(0).contains(&failed) && world.blocked(1).contains(&failed),
        "{:?}",
        world.blocked(0)
    );

    let mut world = World::new(&toml);
    let order = Order::Native { order: NativeOrder::Standby, user: 0 };
    world.handle(0, Event::Order { id: OrderId(1), order });
    world.pass(5000);
    let standby = "db: no node may have it now: a is on standby or leaves".to_string();
    assert!(
        world.blocked(0).contains(&standby) && world.blocked(1).contains(&standby),
        "{:?}",
        world.blocked(1)
    );
}

#[test]
fn a_refused_move_says_what_hinders_the_node() {
    let mut world = World::new(TOML);
    let order = |world: &mut World, member: usize, order: NativeOrder| {
        world.handle(member, Event::Order { id: OrderId(1), order: Order::Native { order, user: 0 } });
        world.pass(2000);
        world.machines[member].answers.pop()
    };
    let refused = |text: &str| Some(Answer::Refused(text.into()));
    let web = |to: Option<usize>| NativeOrder::Move(GroupIndex(0), to.map(NodeIndex));
    // Right after its start it knows no owner, which does not mean that there is none.
    let unknown = order(&mut world, 1, web(None));
    let Some(Answer::Refused(text)) = unknown else { panic!("{unknown:?}") };
    assert!(text.starts_with("this member knows no owner of it now: "), "{text}");
    world.pass(5000);
    assert!(world.machines[0].runs);

    order(&mut world, 1, NativeOrder::Standby);
    assert_eq!(order(&mut world, 0, web(Some(1))), refused("web: b is on standby or leaves"));
    let nobody = "web: no other node may run it now: b is on standby or leaves";
    assert_eq!(order(&mut world, 0, web(None)), refused(nobody));
    // On standby it keeps a group that no other node can take, and says so.
    let Some(Answer::TimedOut(text)) = order(&mut world, 0, NativeOrder::Standby) else { panic!() };
    assert!(text.ends_with(": web (no other node may run it now: b is on standby or leaves)"), "{text}");
    assert!(world.machines[0].runs);
    order(&mut world, 0, NativeOrder::Online);
    order(&mut world, 1, NativeOrder::Online);
    let done = Some(Answer::Done(
        "this node is on standby: every group that another node may run is handed over".into(),
    ));
    assert_eq!(order(&mut world, 0, NativeOrder::Standby), done);
    assert!(!world.machines[0].runs);
    order(&mut world, 0, NativeOrder::Online);
    order(&mut world, 1, web(Some(0)));
    world.pass(5000);
    assert!(world.machines[0].runs);

    world.machines[1].fails = true;
    order(&mut world, 0, web(Some(1)));
    world.pass(5000);
    assert!(world.machines[0].runs, "it failed at b and is back");
    world.machines[1].fails = false;
    let unable = "b could not run web (`locum online` there lets it try again)";
    assert_eq!(order(&mut world, 0, web(Some(1))), refused(&format!("web: {unable}")));
    order(&mut world, 1, NativeOrder::Online);
    assert!(matches!(order(&mut world, 0, web(Some(1))), Some(Answer::Done(_))));
}

#[test]
fn a_file_that_differs_is_shown_line_by_line_and_its_links_are_not_tested() {
    let mut world = World::new(TOML);
    let other = TOML.replace("groups.web.prefer", "groups.web.failback = \"5min\"\ngroups.web.prefer");
    world.machines[1].director =
        Some(NativeDirector::new(plan(&other, "b"), keys(), identity(20), now(1000)));
    world.perform(1);
    // The first answer is lost.
    world.cuts.extend([(1, 0, 0), (1, 0, 1)]);
    world.pass(100);
    world.cuts.clear();
    world.pass(3000);
    let now = now(world.millis);
    let status = world.director(0).status(now);
    let b = &status.members[1];
    assert!(b.differs && b.refused.is_none());
    let [difference] = &b.differences[..] else { panic!("{:?}", b.differences) };
    assert!(difference.name.contains("failback"), "{difference:?}");
    assert_ne!(difference.ours, difference.theirs);
    assert_eq!(world.directions(0, 1), [LinkDirections::Untested; 2]);
    assert_eq!(world.directions(0, 2), [LinkDirections::Both]);
    assert_eq!(world.owner(), Some(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Garbage, and good frames with a flipped bit or a missing end, change nothing but counters.
    #[test]
    fn damaged_bytes_change_nothing(
        garbage in many(any::<u8>(), 0..200),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        link in 0_usize..5,
    ) {
        let mut world = World::new(TOML);
        world.pass(700);
        // Frames of the others that this member has not heard.
        world.cuts = (0..3).flat_map(|from| (0..3).flat_map(move |to| (0..3).map(move |link| (from, to, link)))).collect();
        let known = world.tape.len();
        world.pass(400);
        let fresh: Vec<Arc<[u8]>> =
            world.tape[known..].iter().filter(|(from, ..)| *from != 0).map(|(.., bytes)| Arc::clone(bytes)).collect();
        prop_assert!(!fresh.is_empty());
        let mut damaged = vec![garbage.clone()];
        for bytes in &fresh {
            let place = place.index(bytes.len());
            let mut turned = bytes.to_vec();
            turned[place] ^= 1 << bit;
            damaged.extend([turned, bytes[..place].to_vec(), [&bytes[..place], &garbage[..]].concat()]);
        }
        let seen = |director: &NativeDirector| {
            format!("{:?} {:?} {:?} {:?}", director.node, director.wire, director.links, director.standby)
        };
        let now = now(world.millis);
        let director = world.director(0);
        let before = seen(director);
        for bytes in damaged.iter().filter(|bytes| crate::framing::frame::authenticate(bytes, &keys()).is_err()) {
            director.handle(now, Event::Frame { link: LinkIndex(link), from: Source::Serial, bytes });
            while let Some(action) = director.poll() {
                prop_assert!(matches!(action, Action::Note(_)), "{action:?}");
            }
        }
        prop_assert_eq!(before, seen(director));
    }
}
