//! A simulated machine with one native group, which checks every operation; and the scenarios that planted breakages
//! must fail.

use std::collections::{BTreeMap, VecDeque};

use locum_core::{
    group::{
        FailedStop, GroupEvent, GroupMember, GroupPhase, GroupSpec, Groups, KILL_LIMIT, OperationLimits,
        RestartPolicy,
    },
    model::{
        action::{Action, Operation},
        claim::{Ballot, Epoch},
        event::{Outcome, Ticket},
        identity::{GroupIndex, MemberIndex, ResourceId},
        time::{Duration, Instant},
    },
};

use Operation::{Kill, Start, Status, Stop, Terminate};

pub(crate) const GROUP: GroupIndex = GroupIndex(0);
pub(crate) const MEMBERS: usize = 3;
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const EVERY: Duration = Duration::from_secs(10);
pub(crate) const WITHIN: Duration = Duration::from_secs(600);
pub(crate) const TERMINATE: Duration = Duration::from_secs(7);

pub(crate) fn epoch(round: u64) -> Option<Epoch> {
    Some(Ballot { round, node: MemberIndex(1) }.into())
}

pub(crate) fn spec(in_place: u32) -> GroupSpec {
    let member = |name: usize| GroupMember {
        text: format!("m{name}"),
        command: format!("m{name} x"),
        is_address: name == 0,
        is_carried: name == 0,
        limits: OperationLimits { start: SECOND * 60, stop: SECOND * 60, status: SECOND * 30 },
        monitor_every: Some(EVERY),
        failed_stop: FailedStop::Ladder { terminate: TERMINATE },
    };
    GroupSpec {
        key: "web".into(),
        line: "web m0 m1 m2".into(),
        members: (0..MEMBERS).map(member).collect(),
        restarts: RestartPolicy { in_place, within: WITHIN },
    }
}

/// One operation under way.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) member: usize,
    pub(crate) operation: Operation,
    pub(crate) limit: Duration,
    pub(crate) epoch: Option<Epoch>,
    /// A monitor that was due.
    pub(crate) is_monitor: bool,
    /// Puts back an address of a running group; not a step of the group.
    pub(crate) is_repair: bool,
}

/// The state of a member as earlier answers say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    Up,
    Down,
    /// A start or stop has begun or failed.
    Open,
}

/// A simulated machine with one group.
pub(crate) struct World {
    pub(crate) groups: Groups,
    pub(crate) now: Instant,
    pub(crate) asked: BTreeMap<Ticket, Asked>,
    pub(crate) beliefs: [Belief; MEMBERS],
    /// The true state of each member.
    pub(crate) runs: [bool; MEMBERS],
    /// The epoch under which each member was started.
    pub(crate) epochs: [Option<Epoch>; MEMBERS],
    pub(crate) frozen: bool,
    pub(crate) events: Vec<GroupEvent>,
    pub(crate) notes: Vec<String>,
    pub(crate) abandoned: Vec<Ticket>,
    pub(crate) out: VecDeque<Action>,
}

impl World {
    pub(crate) fn new(in_place: u32) -> Self {
        Self {
            groups: Groups::new(vec![spec(in_place)], &[]),
            now: Instant::from_millis(1000),
            asked: BTreeMap::new(),
            beliefs: [Belief::Down; MEMBERS],
            runs: [false; MEMBERS],
            epochs: [const { None }; MEMBERS],
            frozen: false,
            events: Vec::new(),
            notes: Vec::new(),
            abandoned: Vec::new(),
            out: VecDeque::new(),
        }
    }

    /// A group that runs under epoch 1.
    pub(crate) fn running(in_place: u32) -> Self {
        let mut world = Self::new(in_place);
        world.want(1);
        world.rest();
        assert_eq!(
            (world.phase(), world.events.split_off(0)),
            (GroupPhase::Running, vec![GroupEvent::Started(GROUP)])
        );
        world
    }

    pub(crate) fn phase(&self) -> GroupPhase {
        self.groups.phase(GROUP)
    }

    pub(crate) fn want(&mut self, round: u64) {
        self.groups.want_under(GROUP, epoch(round), &mut self.out);
        self.look();
    }

    pub(crate) fn unwant(&mut self) {
        self.groups.want(GROUP, false, &mut self.out);
        self.look();
    }

    pub(crate) fn freeze(&mut self, on: bool) {
        self.frozen = on;
        self.groups.freeze(GROUP, on, self.now, &mut self.out);
        self.look();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.groups.tick(self.now, &mut self.out);
        self.look_at(self.phase() == GroupPhase::Running);
        assert!(self.groups.deadline().is_none_or(|at| at > self.now), "it wants to be woken at once");
    }

    pub(crate) fn lose_address(&mut self) {
        self.runs[0] = false;
        self.groups.address_gone(ResourceId { group: GROUP, member: 0 }, &mut self.out);
        self.look();
    }

    /// Passes the time to the next deadline, if there is one.
    pub(crate) fn wait(&mut self) {
        if let Some(at) = self.groups.deadline() {
            self.pass(at.since(self.now));
        }
    }

    /// Takes the actions of the group and checks them.
    pub(crate) fn look(&mut self) {
        self.look_at(false);
    }

    pub(crate) fn look_at(&mut self, has_time_come: bool) {
        while let Some(action) = self.out.pop_front() {
            match action {
                Action::Run { ticket, resource, operation, limit, epoch } => {
                    assert_eq!(resource.group, GROUP);
                    let is_monitor = has_time_come && operation == Status;
                    let member = resource.member;
                    let is_repair = operation == Start && member == 0 && self.beliefs[0] == Belief::Up;
                    let asked = Asked { member, operation, limit, epoch, is_monitor, is_repair };
                    self.check(&asked);
                    self.asked.insert(ticket, asked);
                }
                Action::Note(note) => self.notes.push(note.text),
                Action::Abandon(ticket) => self.abandoned.push(ticket),
                other => panic!("{other:?}"),
            }
        }
        while let Some(news) = self.groups.next_event() {
            if matches!(news, GroupEvent::Stopped(_) | GroupEvent::Failed(_)) {
                assert_eq!(self.beliefs, [Belief::Down; MEMBERS], "said to be stopped");
                assert_eq!(self.runs, [false; MEMBERS], "said to be stopped");
            }
            if news == GroupEvent::Started(GROUP) {
                assert_eq!(self.beliefs, [Belief::Up; MEMBERS], "said to run");
                assert!(self.epochs.iter().all(|epoch| *epoch == self.epochs[0]), "{:?}", self.epochs);
            }
            self.events.push(news);
        }
    }

    pub(crate) fn check(&mut self, new: &Asked) {
        let Asked { member, operation, epoch, is_monitor, is_repair, .. } = new;
        let (member, operation) = (*member, *operation);
        assert!(epoch.is_some(), "no epoch");
        if *is_monitor {
            let twice = self.asked.values().any(|asked| asked.is_monitor && asked.member == member);
            return assert!(!twice, "{member} is asked twice at once");
        }
        assert!(!self.frozen, "{operation:?} of {member} while the group is frozen");
        if *is_repair {
            return;
        }
        let steps = self.asked.values().filter(|asked| asked.operation != Status && !asked.is_repair).count();
        assert_eq!(steps, 0, "two operations at once: {operation:?} of {member} beside {:?}", self.asked);
        match operation {
            Status => {}
            Start => {
                assert!(
                    self.beliefs[..member].iter().all(|b| *b == Belief::Up),
                    "{member}: {:?}",
                    self.beliefs
                );
                self.epochs[member].clone_from(epoch);
                self.beliefs[member] = Belief::Open;
            }
            Stop | Terminate | Kill => {
                let after = &self.beliefs[member + 1..];
                assert!(after.iter().all(|b| *b == Belief::Down), "{member}: {:?}", self.beliefs);
                self.beliefs[member] = Belief::Open;
            }
        }
    }

    /// Ends an operation: the machine changes as the outcome says, and a status answers the truth.
    pub(crate) fn end(&mut self, ticket: Ticket, outcome: Outcome) {
        let Asked { member, operation, is_repair, .. } =
            self.asked.remove(&ticket).expect("it was asked for");
        let outcome = match (operation, outcome) {
            (Status, Outcome::Ok) if self.runs[member] => Outcome::Running,
            (Status, Outcome::Ok) => Outcome::Stopped,
            (Status, other) => other,
            (Start, Outcome::Ok) => {
                self.runs[member] = true;
                self.beliefs[member] = Belief::Up;
                Outcome::Ok
            }
            (Start, other) if is_repair => other,
            (Start, Outcome::Missing(why)) => Outcome::Missing(why),
            (Start, other) => {
                self.runs[member] = true;
                other
            }
            (_, Outcome::Ok) => {
                self.runs[member] = false;
                // After the lower rungs a status must confirm the stop.
                if operation == Stop {
                    self.beliefs[member] = Belief::Down;
                }
                Outcome::Ok
            }
            (Stop, Outcome::Missing(why)) => {
                if !self.runs[member] {
                    self.beliefs[member] = Belief::Down;
                }
                Outcome::Missing(why)
            }
            (_, other) => other,
        };
        match outcome {
            Outcome::Running if self.beliefs[member] != Belief::Open || self.is_starting() => {
                self.beliefs[member] = Belief::Up;
            }
            Outcome::Stopped if self.beliefs[member] == Belief::Open => self.beliefs[member] = Belief::Down,
            _ => {}
        }
        self.groups.done(self.now, ticket, &outcome, &mut self.out);
        self.look();
    }

    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.phase(), GroupPhase::Starting(_))
    }

    /// Ends the oldest operation of this kind with this outcome.
    pub(crate) fn end_one(&mut self, operation: Operation, member: usize, outcome: Outcome) -> Asked {
        let found =
            self.asked.iter().find(|(_, asked)| asked.operation == operation && asked.member == member);
        let (ticket, asked) =
            found.unwrap_or_else(|| panic!("no {operation:?} of {member}: {:?}", self.asked));
        let (ticket, asked) = (*ticket, asked.clone());
        self.end(ticket, outcome);
        asked
    }

    /// Lets everything succeed until no operation is under way and no pause is left.
    pub(crate) fn rest(&mut self) {
        for _ in 0..200 {
            match self.asked.keys().next().copied() {
                Some(ticket) => self.end(ticket, Outcome::Ok),
                None if self.groups.paused(GROUP).is_some() && !self.frozen => self.wait(),
                None => return,
            }
        }
        panic!("no end: {:?}", self.asked);
    }

    /// Ends this member's next monitor with this outcome; those of the others succeed.
    pub(crate) fn monitor(&mut self, member: usize, outcome: &Outcome) {
        for _ in 0..20 {
            self.wait();
            while let Some((ticket, asked)) = self.asked.iter().next() {
                let (ticket, is_it) = (*ticket, asked.member == member);
                self.end(ticket, if is_it { outcome.clone() } else { Outcome::Ok });
                if is_it {
                    return;
                }
            }
        }
        panic!("{member} is not asked");
    }

    pub(crate) fn asked(&self) -> Vec<(Operation, usize)> {
        self.asked.values().map(|asked| (asked.operation, asked.member)).collect()
    }

    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.notes.iter().any(|note| note.contains(text))
    }
}

// ---- scenarios that planted breakages must fail --------------------------------

pub(crate) fn restarts_with_all_that_stands_right_of_it() {
    let mut world = World::running(1);
    world.monitor(1, &Outcome::Failed("exit code 1".into()));
    assert_eq!(world.events, [GroupEvent::Restarting(GROUP)]);
    assert!(world.has_said("m1 failed: exit code 1; it is started again here (1 of 1 times within 600 s)"));
    world.end_one(Stop, 2, Outcome::Ok);
    world.end_one(Stop, 1, Outcome::Ok);
    for member in [1, 2] {
        world.end_one(Status, member, Outcome::Ok);
        assert_eq!(world.end_one(Start, member, Outcome::Ok).epoch, epoch(1));
    }
    assert_eq!(world.events, [GroupEvent::Restarting(GROUP), GroupEvent::Started(GROUP)]);
    assert_eq!((world.groups.restarts(GROUP, world.now), world.asked()), (1, vec![]));
}

pub(crate) fn one_failure_more_ends_it_here() {
    for outcome in [Outcome::Stopped, Outcome::TimedOut, Outcome::Unknown("?".into())] {
        let mut world = World::running(2);
        for _ in 0..2 {
            world.monitor(2, &outcome);
            world.rest();
        }
        assert_eq!(world.phase(), GroupPhase::Running);
        world.monitor(2, &outcome);
        world.rest();
        assert_eq!(
            (world.phase(), world.events.last()),
            (GroupPhase::Stopped, Some(&GroupEvent::Failed(GROUP)))
        );
        assert_eq!(world.groups.failure(GROUP), Some(format!("m2: {outcome}").as_str()));
        // Wanted again, it starts with all counters cleared.
        world.want(2);
        world.rest();
        assert_eq!((world.phase(), world.groups.restarts(GROUP, world.now)), (GroupPhase::Running, 0));
        assert!(world.epochs.iter().all(|under| *under == epoch(2)));
    }
}

pub(crate) fn missing() -> Outcome {
    Outcome::Missing("there is no script `m1`".into())
}

/// The second of three members has no agent on this machine.
pub(crate) fn what_has_no_agent_here_fails_once_and_is_stopped() {
    let mut world = World::new(3);
    world.want(1);
    world.end_one(Status, 0, Outcome::Ok);
    world.end_one(Start, 0, Outcome::Ok);
    world.end_one(Status, 1, missing());
    world.end_one(Stop, 1, missing());
    world.end_one(Stop, 0, Outcome::Ok);
    assert_eq!((&world.events[..], world.asked()), (&[GroupEvent::Failed(GROUP)][..], vec![]));
    assert_eq!((world.phase(), world.notes.len()), (GroupPhase::Stopped, 5), "{:#?}", world.notes);
}

/// The number of operations that failures without delay cause in `time`, if the group is wanted again after each
/// failure (`wanted_again`).
pub(crate) fn operations(time: Duration, in_place: u32, answers: &[Outcome], wanted_again: bool) -> usize {
    let mut world = World::new(in_place);
    let end = world.now + time;
    let mut count = 0;
    world.want(1);
    while world.now < end && count < 20_000 {
        while let Some(ticket) = world.asked.keys().next().copied() {
            world.end(ticket, answers[count % answers.len()].clone());
            count += 1;
            if count > 20_000 {
                return count;
            }
            // Like the native dialect for a group that it owns: again under the same epoch.
            if wanted_again && world.groups.rests(GROUP) {
                world.want(1);
            }
        }
        if world.groups.deadline().is_none() {
            break;
        }
        world.wait();
    }
    count
}

/// The group is no longer wanted while its second member hangs in its start.
pub(crate) fn a_long_start_that_nobody_wants_is_ended() {
    let mut world = World::new(1);
    world.want(1);
    world.end_one(Status, 0, Outcome::Ok);
    world.end_one(Start, 0, Outcome::Ok);
    world.end_one(Status, 1, Outcome::Ok);
    world.pass(SECOND);
    world.unwant();
    // Most starts end in a moment, so this one gets some time.
    assert_eq!((&world.abandoned[..], world.groups.deadline()), (&[][..], Some(world.now + SECOND * 4)));
    world.pass(SECOND * 4);
    let [ticket] = world.abandoned[..] else { panic!("{:?}", world.abandoned) };
    assert_eq!(world.asked(), [(Start, 1)]);
    world.end(ticket, Outcome::TimedOut);
    for member in [1, 0] {
        world.end_one(Stop, member, Outcome::Ok);
    }
    assert_eq!((&world.events[..], world.groups.deadline()), (&[GroupEvent::Stopped(GROUP)][..], None));
    // A start that has already hung for longer is abandoned at once. If the group is wanted again, the start continues.
    let mut world = World::new(1);
    world.want(1);
    world.pass(SECOND * 20);
    world.unwant();
    world.want(1);
    world.pass(Duration::ZERO);
    assert_eq!(world.abandoned, []);
    world.unwant();
    world.pass(Duration::ZERO);
    assert_eq!(world.abandoned.len(), 1);
}

pub(crate) fn what_fails_at_once_is_not_tried_at_once_again() {
    let count = operations(Duration::from_secs(3600), 1000, &[Outcome::Failed("no".into())], true);
    assert!(count < 1000, "{count} operations in an hour");
}

pub(crate) fn a_stop_goes_down_the_ladder() {
    let mut world = World::running(1);
    world.unwant();
    world.end_one(Stop, 2, Outcome::TimedOut);
    assert_eq!(world.end_one(Terminate, 2, Outcome::TimedOut).limit, TERMINATE);
    assert_eq!(world.end_one(Kill, 2, Outcome::Ok).limit, KILL_LIMIT);
    world.end_one(Status, 2, Outcome::Ok);
    // A member that was terminated is not killed; a failed stop is handled like one that hangs.
    world.end_one(Stop, 1, Outcome::Failed("exit code 1".into()));
    world.end_one(Terminate, 1, Outcome::Ok);
    world.end_one(Status, 1, Outcome::Ok);
    world.end_one(Stop, 0, Outcome::Ok);
    assert_eq!(world.events, [GroupEvent::Stopped(GROUP)]);
    assert!(world.has_said("stop of m1 failed: exit code 1; telling its processes to terminate"));
}
