//! The world of the model: members with clocks, files and disks, frames on their way, what runs on each node, the gate in
//! its kernel, fencing devices. Everything that can happen next is an [`Act`]; a [`World`] and an act make the next world.
//! The members are the core's own; all that is modelled is what lies around them.

use std::{fmt, sync::Arc};

use locum_core::{
    claims::{Envelope, Lease, Member, Message, News, Notice, Proof, Settings, To, Voters},
    model::{
        breakage::{self, Breakage},
        claim::{Ballot, Durable, Earlier, GroupId},
        identity::MemberIndex,
        time::{Duration, Instant},
    },
};

use crate::step::{Event, Hashed, step};

/// The group that all the stir is about.
pub const GROUP: GroupId = GroupId(7);
/// One step of a clock.
pub const TICK: Duration = Duration::from_secs(1);
/// Most members of a world.
pub const MEMBERS_MAX: usize = 5;
/// Clocks begin here, so that no moment lies before their zero.
const BEGINNING: u64 = 100;
/// No script exchanges more frames at a time: where a rule is broken on purpose they might never end.
const EXCHANGED: usize = 200;

/// How sure a start must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It holds the claim.
    Lease,
    /// And whoever may still run it has been stopped by its own watchdog, which fires so many ticks after a lease.
    Watchdog(u64),
    /// And nobody is unproved.
    Fence,
}

/// How often each thing may yet happen. What is zero does not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// By node: begins to claim.
    pub claims: [u8; MEMBERS_MAX],
    /// By node: claims again what it holds.
    pub reclaims: [u8; MEMBERS_MAX],
    /// By node: gives back what it claimed, after it has stopped it.
    pub releases: [u8; MEMBERS_MAX],
    /// By node: stops what ran under a lost lease.
    pub stops: [u8; MEMBERS_MAX],
    /// By member: a beat.
    pub beats: [u8; MEMBERS_MAX],
    /// By member: its daemon dies. What it started runs on, and its gate stands, until a new life sweeps.
    pub crashes: [u8; MEMBERS_MAX],
    /// By member: its file is lost while it is down.
    pub losses: [u8; MEMBERS_MAX],
    /// By member: a write fails.
    pub failures: [u8; MEMBERS_MAX],
    /// By member: its clock gets ahead by a tick.
    pub drifts: [u8; MEMBERS_MAX],
    /// A frame arrives twice.
    pub duplicates: u8,
    /// A fence is begun.
    pub fences: u8,
}

/// What holds for a whole search.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Nodes, which may claim; then witnesses.
    pub nodes: u8,
    /// All of them.
    pub members: u8,
    /// Who votes, in the eyes of each member.
    pub voters: fn(u8, u8) -> Voters,
    /// As voters count it, in ticks.
    pub lease: u64,
    /// By how much less the owner counts it, in ticks.
    pub margin: u64,
    /// How sure a start must be.
    pub guard: Guard,
    /// Time ends so many ticks after the beginning.
    pub horizon: u64,
    /// What may happen.
    pub budget: Budget,
    /// Whether writes end at once; else they take their time, and a crash may come between.
    pub prompt_disks: bool,
    /// Frames that never arrive at this member. Leaving them out makes the search smaller, and a loss is always allowed.
    pub lost: fn(&Message, u8) -> bool,
    /// Frames that may arrive twice.
    pub doubled: fn(&Message) -> bool,
    /// Whether frames that can never change anything any more are taken off the way: worlds that differ in them alone are
    /// one. Not where a planted breakage may give an old answer a new meaning.
    pub prunes: bool,
}

impl Rules {
    fn ticks(ticks: u64) -> Duration {
        TICK * u32::try_from(ticks).expect("small")
    }

    fn settings(&self, me: u8, generation: u64) -> Settings {
        Settings {
            me: MemberIndex(me),
            generation,
            voters: (self.voters)(self.members, me),
            lease: Lease { length: Self::ticks(self.lease), margin: Self::ticks(self.margin) },
            // Nothing is said again by itself: a frame that is late by so much is a frame that is on its way for so long.
            retry: Self::ticks(100_000),
            claims: me < self.nodes,
            alone: None,
        }
    }

    const fn durable(&self) -> bool {
        !matches!(self.guard, Guard::Lease)
    }
}

/// All members vote, in the first set.
#[must_use]
pub fn all_vote(members: u8, _: u8) -> Voters {
    Voters { number: 1, members: (0..members).map(MemberIndex).collect() }
}

/// A frame on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Who sent it.
    pub from: u8,
    /// In which of its lives.
    pub life: u64,
    /// With which number of its voter set.
    pub set: u32,
    /// To whom.
    pub to: u8,
    /// What.
    pub message: Message,
}

/// A machine and what is on it.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Seat {
    /// The daemon, while it lives.
    pub member: Option<Arc<Hashed<Member>>>,
    /// Counts its lives.
    pub life: u64,
    /// By how many ticks its clock is ahead.
    ahead: u64,
    /// What is on disk.
    file: Option<Arc<Hashed<Durable>>>,
    /// What is being written.
    writing: Option<Arc<Hashed<Durable>>>,
    /// What runs here: started under this epoch.
    pub runs: Option<Ballot>,
    /// The kernel lets the address answer until then, by this machine's clock, whatever becomes of the daemon.
    gate: Instant,
    /// Since when this life has a claim that it has not released.
    claimed: Option<Instant>,
}

/// A fence under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    by: u8,
    life: u64,
    target: u8,
    /// The target's generation when it was begun.
    generation: u64,
    /// The device has cut its power.
    fired: bool,
}

/// What is wrong with the past; the present is looked at by the properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Two lives asked for the same ballot.
    BallotTwice,
    /// A group was gained under an epoch that is not above all earlier ones.
    EpochFell,
}

/// A state of the search.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct World {
    /// Real time, in ticks since the beginning.
    pub now: u64,
    /// The machines.
    pub seats: Vec<Seat>,
    /// Frames on their way, each once, in a fixed order.
    net: Vec<Arc<Hashed<Packet>>>,
    fences: Vec<Fence>,
    /// When the search began.
    pub began: u64,
    /// What may yet happen.
    pub left: Budget,
    /// Which life asked for which ballot.
    asked: Vec<(Ballot, u64)>,
    /// The epochs under which the group was gained, in the order of time.
    pub gained: Vec<Ballot>,
    /// The first fault.
    pub fault: Option<Fault>,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A tick passes for everybody.
    Tick,
    /// A clock gets ahead by a tick.
    Drift(u8),
    /// A frame arrives, and perhaps will once more.
    Arrives {
        /// Which.
        packet: Arc<Hashed<Packet>>,
        /// It stays on its way.
        again: bool,
    },
    /// A node begins to claim.
    Claim(u8),
    /// An owner claims again.
    ClaimAgain(u8),
    /// A node stops the group and gives it back.
    Release(u8),
    /// A node stops what ran under a lost lease.
    Stop(u8),
    /// A member says its beat.
    Beat(u8),
    /// A daemon dies; what it was writing is on disk, or is not.
    Crash(u8, bool),
    /// A dead daemon's file is lost.
    FileLost(u8),
    /// A dead daemon lives again, and sweeps first.
    Restart(u8),
    /// A write ends: well, or not.
    Written(u8, bool),
    /// A holder has somebody fenced that is unproved.
    Fence(u8, Earlier),
    /// The device cuts the target's power.
    FenceFires(usize),
    /// The device's answer arrives.
    FenceAnswers(usize),
    /// The wait of guard `watchdog` is over.
    Waited(u8),
}

impl World {
    /// Members that have run before, with these ceilings in their files, and whose muteness is over. Nothing is claimed.
    #[must_use]
    pub fn settled(rules: &Rules, ceilings: &[u64]) -> Self {
        let seat = |index: usize| {
            let durable = Durable {
                ceiling: ceilings[index],
                longest_lease: Rules::ticks(rules.lease),
                set: (rules.voters)(rules.members, u8::try_from(index).expect("few")).number,
                ..Durable::default()
            };
            Seat {
                member: None,
                life: 0,
                ahead: 0,
                file: Some(Hashed::new(durable)),
                writing: None,
                runs: None,
                gate: Instant::ZERO,
                claimed: None,
            }
        };
        let mut world = Self {
            now: 0,
            seats: (0..usize::from(rules.members)).map(seat).collect(),
            net: Vec::new(),
            fences: Vec::new(),
            began: 0,
            left: Budget::default(),
            asked: Vec::new(),
            gained: Vec::new(),
            fault: None,
        };
        let heard = Rules { lost: |_, _| false, ..rules.clone() };
        for index in 0..rules.members {
            world.restart(&heard, index);
            world.finish_writes(&heard, index);
            world.act(&heard, &Act::Beat(index));
        }
        let all: Vec<u8> = world.indices().collect();
        world.exchange(&heard, &all);
        world.now = rules.lease + rules.margin;
        for index in 0..rules.members {
            world.with(rules, index, &Event::Tick);
        }
        world.begin(rules)
    }

    /// From here on the search goes.
    #[must_use]
    pub fn begin(mut self, rules: &Rules) -> Self {
        self.left = rules.budget;
        self.began = self.now;
        self
    }

    // ---- clocks ----------------------------------------------------------

    fn clock(&self, index: u8) -> Instant {
        let ticks = BEGINNING + self.now + self.seats[usize::from(index)].ahead;
        Instant::ZERO + Rules::ticks(ticks)
    }

    // ---- what the properties ask -----------------------------------------

    /// The nodes that hold the group, each by its own clock.
    pub fn holders(&self) -> impl Iterator<Item = u8> {
        self.indices().filter(|index| self.holds(*index))
    }

    /// Whether this node holds the group.
    #[must_use]
    pub fn holds(&self, index: u8) -> bool {
        self.held(index).is_some()
    }

    /// What this node holds.
    #[must_use]
    pub fn held(&self, index: u8) -> Option<&locum_core::claims::Held> {
        let member = self.seats[usize::from(index)].member.as_ref()?;
        member.value.claimant()?.held(self.clock(index), GROUP)
    }

    /// The nodes whose gate is open, be their daemon alive or not.
    pub fn open_gates(&self) -> impl Iterator<Item = u8> {
        self.indices().filter(|index| self.seats[usize::from(*index)].gate > self.clock(*index))
    }

    /// The nodes on which something of the group runs.
    pub fn copies(&self) -> impl Iterator<Item = u8> {
        self.indices().filter(|index| self.seats[usize::from(*index)].runs.is_some())
    }

    fn indices(&self) -> impl Iterator<Item = u8> + use<> {
        0..u8::try_from(self.seats.len()).expect("few")
    }

    /// Whether a voter that lost its file votes again.
    #[must_use]
    pub fn is_voting(&self, index: u8) -> bool {
        let member = self.seats[usize::from(index)].member.as_ref();
        member.and_then(|member| member.value.standing(self.clock(index)))
            == Some(locum_core::claims::Standing::Voting)
    }

    // ---- what can happen -------------------------------------------------

    /// Everything that can happen next.
    pub fn acts(&self, rules: &Rules, acts: &mut Vec<Act>) {
        let left = &self.left;
        for packet in &self.net {
            if self.seats[usize::from(packet.value.to)].member.is_some() {
                acts.push(Act::Arrives { packet: packet.clone(), again: false });
                if left.duplicates > 0 && (rules.doubled)(&packet.value.message) {
                    acts.push(Act::Arrives { packet: packet.clone(), again: true });
                }
            }
        }
        for index in self.indices() {
            self.acts_of(rules, index, acts);
        }
        for (number, fence) in self.fences.iter().enumerate() {
            acts.push(if fence.fired { Act::FenceAnswers(number) } else { Act::FenceFires(number) });
        }
        if self.now < self.began + rules.horizon {
            acts.push(Act::Tick);
            let drifts = |index: &u8| left.drifts[usize::from(*index)] > 0;
            acts.extend(self.indices().filter(drifts).map(Act::Drift));
        }
    }

    fn acts_of(&self, rules: &Rules, index: u8, acts: &mut Vec<Act>) {
        let at = usize::from(index);
        let (seat, left) = (&self.seats[at], &self.left);
        let Some(member) = &seat.member else {
            acts.push(Act::Restart(index));
            if left.losses[at] > 0 && seat.file.is_some() {
                acts.push(Act::FileLost(index));
            }
            return;
        };
        let held = self.held(index);
        let claiming = member.value.claimant().is_some_and(|claimant| claimant.is_claiming(GROUP));
        if left.claims[at] > 0 && held.is_none() && !claiming {
            acts.push(Act::Claim(index));
        }
        if left.reclaims[at] > 0 && held.is_some() && !claiming {
            acts.push(Act::ClaimAgain(index));
        }
        if left.releases[at] > 0 && seat.claimed.is_some() {
            acts.push(Act::Release(index));
        }
        if left.stops[at] > 0 && held.is_none() && seat.runs.is_some() {
            acts.push(Act::Stop(index));
        }
        if left.beats[at] > 0 {
            acts.push(Act::Beat(index));
        }
        if left.crashes[at] > 0 {
            acts.push(Act::Crash(index, false));
            if seat.writing.is_some() {
                acts.push(Act::Crash(index, true));
            }
        }
        if seat.writing.is_some() {
            acts.push(Act::Written(index, true));
            if left.failures[at] > 0 {
                acts.push(Act::Written(index, false));
            }
        }
        let Some(held) = held else { return };
        if let Guard::Watchdog(ticks) = rules.guard
            && !held.claim.unproved.is_empty()
            && seat.claimed.is_some_and(|since| {
                self.clock(index).since(since) >= Rules::ticks(rules.lease + rules.margin + ticks)
            })
        {
            acts.push(Act::Waited(index));
        }
        if left.fences > 0 {
            let fresh = |entry: &&Earlier| {
                !self.fences.iter().any(|fence| (fence.by, fence.target) == (index, entry.node.0))
            };
            acts.extend(held.claim.unproved.iter().filter(fresh).map(|entry| Act::Fence(index, *entry)));
        }
    }

    // ---- what becomes of it ----------------------------------------------

    /// The world after this act.
    #[must_use]
    pub fn after(&self, rules: &Rules, act: &Act) -> Self {
        let mut world = self.clone();
        world.act(rules, act);
        if rules.prunes {
            world.prune(rules);
        }
        world
    }

    /// Something happens.
    pub fn act(&mut self, rules: &Rules, act: &Act) {
        match *act {
            Act::Tick => {
                self.now += 1;
                self.fire_watchdogs(rules);
            }
            Act::Drift(index) => {
                spend(&mut self.left.drifts, index);
                self.seats[usize::from(index)].ahead += 1;
                self.fire_watchdogs(rules);
            }
            Act::Arrives { ref packet, again } => {
                if again {
                    self.left.duplicates -= 1;
                } else {
                    self.net.retain(|other| other != packet);
                }
                self.with(rules, packet.value.to, &Event::Heard(packet.clone()));
            }
            Act::Claim(index) => {
                spend(&mut self.left.claims, index);
                self.with(rules, index, &Event::Claim(rules.durable()));
            }
            Act::ClaimAgain(index) => {
                spend(&mut self.left.reclaims, index);
                self.with(rules, index, &Event::Claim(rules.durable()));
            }
            Act::Release(index) => {
                spend(&mut self.left.releases, index);
                self.release(rules, index);
            }
            Act::Stop(index) => {
                spend(&mut self.left.stops, index);
                self.stop(index);
                self.with(rules, index, &Event::Running(false));
            }
            Act::Beat(index) => {
                spend(&mut self.left.beats, index);
                self.with(rules, index, &Event::Beat);
            }
            Act::Crash(index, written) => {
                spend(&mut self.left.crashes, index);
                self.crash(index, written);
            }
            Act::FileLost(index) => {
                spend(&mut self.left.losses, index);
                self.seats[usize::from(index)].file = None;
            }
            Act::Restart(index) => self.restart(rules, index),
            Act::Written(index, ok) => {
                let seat = &mut self.seats[usize::from(index)];
                let written = seat.writing.take();
                if ok {
                    seat.file = written;
                } else {
                    spend(&mut self.left.failures, index);
                }
                self.with(rules, index, &Event::Written(ok));
            }
            Act::Fence(index, entry) => {
                self.left.fences = self.left.fences.saturating_sub(1);
                let life = self.seats[usize::from(index)].life;
                let Earlier { node, generation, .. } = entry;
                self.fences.push(Fence { by: index, life, target: node.0, generation, fired: false });
            }
            Act::FenceFires(number) => {
                self.fences[number].fired = true;
                let target = self.fences[number].target;
                self.cut_power(target);
            }
            Act::FenceAnswers(number) => {
                let Fence { by, life, target, generation, .. } = self.fences.remove(number);
                if self.seats[usize::from(by)].life == life && self.seats[usize::from(by)].member.is_some() {
                    let proof = Proof::Fenced { node: MemberIndex(target), generation };
                    self.with(rules, by, &Event::Prove(proof));
                }
            }
            Act::Waited(index) => {
                let highest = self.held(index).into_iter().flat_map(|held| &held.claim.unproved);
                if let Some(highest) = highest.map(|entry| entry.ballot).max() {
                    self.with(rules, index, &Event::Prove(Proof::Waited(highest)));
                }
            }
        }
    }

    /// Something is done to a member; then the hands do what it wants, and the runner what it may.
    fn with(&mut self, rules: &Rules, index: u8, event: &Event) {
        let now = self.clock(index);
        let seat = &mut self.seats[usize::from(index)];
        let effect = step(seat.member.as_ref().expect("alive"), now, event, seat.writing.is_none());
        seat.member = Some(effect.member.clone());
        if effect.write.is_some() {
            seat.writing.clone_from(&effect.write);
        }
        for notice in &effect.notices {
            if let Notice::Own(News::Gained(GROUP, epoch)) = *notice {
                seat.claimed = Some(now);
                if self.gained.last().is_some_and(|last| *last >= epoch) {
                    self.fault.get_or_insert(Fault::EpochFell);
                }
                self.gained.push(epoch);
            }
        }
        self.send(rules, index, &effect.out);
        if let Some(beat) = &effect.beat {
            self.send(rules, index, &[Envelope { to: To::All, message: Message::Beat(beat.clone()) }]);
        }
        self.run(rules, index);
        if rules.prompt_disks {
            self.finish_writes(rules, index);
        }
    }

    /// The runner starts as early as it may, and renews the gate; when it stops is chance.
    fn run(&mut self, rules: &Rules, index: u8) {
        let Some(held) = self.held(index) else { return };
        let (until, epoch) = (held.until, held.epoch);
        let may_start = rules.guard == Guard::Lease || held.claim.unproved.is_empty();
        let seat = &mut self.seats[usize::from(index)];
        if seat.runs.is_some() {
            seat.gate = until;
        } else if may_start {
            seat.gate = until;
            seat.runs = Some(epoch);
            self.with(rules, index, &Event::Running(true));
        }
    }

    fn send(&mut self, rules: &Rules, from: u8, out: &[Envelope]) {
        let life = self.seats[usize::from(from)].life;
        let set = (rules.voters)(rules.members, from).number;
        for Envelope { to, message } in out {
            if let Message::Prepare(list) = message {
                for (_, ballot) in list {
                    self.ask(*ballot, life);
                }
            }
            let targets: Vec<u8> = self.targets(rules, from, *to, message).collect();
            for to in targets {
                let packet = Hashed::new(Packet { from, life, set, to, message: message.clone() });
                match self.net.binary_search_by_key(&packet.hash(), |other| other.hash()) {
                    Ok(_) => {}
                    Err(place) => self.net.insert(place, packet),
                }
            }
        }
    }

    /// Whom a message reaches.
    fn targets(&self, rules: &Rules, from: u8, to: To, message: &Message) -> impl Iterator<Item = u8> {
        let is_meant = move |index: &u8| match to {
            To::All => *index != from,
            To::One(one) => *index == one.0,
        };
        self.indices().filter(is_meant).filter(|index| !(rules.lost)(message, *index))
    }

    /// Takes off the way what changes nothing when it arrives, now or ever: answers to a ballot that is over (ballots do not
    /// come back), and requests of voters that have promised more (promises only grow).
    fn prune(&mut self, rules: &Rules) {
        let far = Rules::ticks(1000);
        let mut net = std::mem::take(&mut self.net);
        net.retain(|packet| {
            let to = packet.value.to;
            let Some(member) = &self.seats[usize::from(to)].member else { return true };
            let event = Event::Heard(packet.clone());
            let changes = |now: Instant| {
                let effect = step(member, now, &event, false);
                let says = |Envelope { to: whom, message }: &Envelope| {
                    self.targets(rules, to, *whom, message).next().is_some()
                };
                effect.member.hash() != member.hash()
                    || !effect.notices.is_empty()
                    || effect.out.iter().any(says)
            };
            let now = self.clock(to);
            match packet.value.message {
                Message::Promise(_) | Message::Accept(_) | Message::Refuse(_) => changes(now),
                Message::Prepare(_) | Message::Propose(..) | Message::Beat(_) => {
                    changes(now) || changes(now + far)
                }
                _ => true,
            }
        });
        self.net = net;
    }

    fn ask(&mut self, ballot: Ballot, life: u64) {
        match self.asked.iter().find(|(asked, _)| *asked == ballot) {
            None => self.asked.push((ballot, life)),
            Some((_, other)) if *other != life => {
                self.fault.get_or_insert(Fault::BallotTwice);
            }
            Some(_) => {}
        }
    }

    fn finish_writes(&mut self, rules: &Rules, index: u8) {
        while self.seats[usize::from(index)].writing.is_some() {
            self.act(rules, &Act::Written(index, true));
        }
    }

    fn stop(&mut self, index: u8) {
        let seat = &mut self.seats[usize::from(index)];
        seat.runs = None;
        seat.gate = Instant::ZERO;
    }

    /// The gate is shut, then what runs is stopped, then the claim is given back.
    fn release(&mut self, rules: &Rules, index: u8) {
        self.seats[usize::from(index)].gate = Instant::ZERO;
        self.seats[usize::from(index)].claimed = None;
        let stopped = !breakage::is(Breakage::ReleaseBeforeStop);
        if stopped {
            self.stop(index);
        }
        self.with(rules, index, &Event::Release { stopped });
    }

    fn crash(&mut self, index: u8, written: bool) {
        let seat = &mut self.seats[usize::from(index)];
        let writing = seat.writing.take();
        if written {
            seat.file = writing.or(seat.file.take());
        }
        seat.member = None;
        seat.claimed = None;
    }

    fn cut_power(&mut self, index: u8) {
        self.crash(index, false);
        self.stop(index);
    }

    fn fire_watchdogs(&mut self, rules: &Rules) {
        let Guard::Watchdog(ticks) = rules.guard else { return };
        for index in self.indices() {
            let seat = &self.seats[usize::from(index)];
            if seat.runs.is_some() && seat.gate + Rules::ticks(ticks) <= self.clock(index) {
                self.cut_power(index);
            }
        }
    }

    /// A new life: leftovers are swept before the first word.
    fn restart(&mut self, rules: &Rules, index: u8) {
        let now = self.clock(index);
        if !breakage::is(Breakage::NoSweep) {
            self.stop(index);
        }
        let seat = &mut self.seats[usize::from(index)];
        seat.life += 1;
        let file = seat.file.as_ref().map(|file| file.value.clone());
        let member = Member::new(now, rules.settings(index, seat.life), file);
        seat.member = Some(Hashed::new(member));
        self.with(rules, index, &Event::Born);
    }

    // ---- scripts ---------------------------------------------------------

    /// Everything that is on its way between these members arrives, and what they answer; the rest stays on its way.
    pub fn exchange(&mut self, rules: &Rules, among: &[u8]) {
        let is_meant = |packet: &Packet| among.contains(&packet.from) && among.contains(&packet.to);
        for index in among {
            self.finish_writes(rules, *index);
        }
        for _ in 0..EXCHANGED {
            let Some(packet) = self.net.iter().find(|packet| is_meant(&packet.value)) else { break };
            let act = Act::Arrives { packet: packet.clone(), again: false };
            self.act(rules, &act);
            for index in among {
                self.finish_writes(rules, *index);
            }
        }
    }

    /// The frames of a kind that are on their way to a member arrive.
    pub fn arrive(&mut self, rules: &Rules, kind: fn(&Message) -> bool, to: u8) {
        for packet in self.net.clone() {
            if packet.value.to == to && kind(&packet.value.message) {
                self.act(rules, &Act::Arrives { packet, again: false });
            }
        }
        self.finish_writes(rules, to);
    }

    /// What is on its way is lost, but for what is to be kept.
    pub fn lose(&mut self, but: fn(&Packet) -> bool) {
        self.net.retain(|packet| but(&packet.value));
    }

    /// All that is on its way.
    #[must_use]
    pub fn on_its_way(&self) -> Vec<Arc<Hashed<Packet>>> {
        self.net.clone()
    }

    /// What was on its way once is so again: it was late, or came twice.
    pub fn still_on_its_way(&mut self, frames: &[Arc<Hashed<Packet>>]) {
        self.net.extend_from_slice(frames);
        self.net.sort_by_key(|packet| packet.hash());
        self.net.dedup();
    }

    /// So many ticks pass.
    pub fn pass(&mut self, rules: &Rules, ticks: u64) {
        for _ in 0..ticks {
            self.act(rules, &Act::Tick);
        }
    }
}

fn spend(left: &mut [u8; MEMBERS_MAX], index: u8) {
    let left = &mut left[usize::from(index)];
    // Scripts spend what no budget grants.
    *left = left.saturating_sub(1);
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => write!(f, "a tick passes"),
            Self::Drift(index) => write!(f, "{index}: its clock gets ahead by a tick"),
            Self::Arrives { packet, again } => {
                let Packet { from, to, message, .. } = &packet.value;
                let kept = if *again { ", and will once more" } else { "" };
                let text = format!("{message:?}").replace("GroupId(7), ", "");
                write!(f, "{from} -> {to}{kept}: {text:.150}")
            }
            Self::Claim(index) => write!(f, "{index} begins to claim"),
            Self::ClaimAgain(index) => write!(f, "{index} claims again what it holds"),
            Self::Release(index) => write!(f, "{index} gives the group back"),
            Self::Stop(index) => write!(f, "{index} stops what ran under a lost lease"),
            Self::Beat(index) => write!(f, "{index} says a beat"),
            Self::Crash(index, true) => write!(f, "{index}: the daemon dies after its write"),
            Self::Crash(index, false) => write!(f, "{index}: the daemon dies"),
            Self::FileLost(index) => write!(f, "{index}: the file is lost"),
            Self::Restart(index) => write!(f, "{index} starts again and sweeps"),
            Self::Written(index, true) => write!(f, "{index}: a write ends"),
            Self::Written(index, false) => write!(f, "{index}: a write fails"),
            Self::Fence(index, entry) => {
                write!(f, "{index} has {} fenced, life {}", entry.node.0, entry.generation)
            }
            Self::FenceFires(number) => write!(f, "fence {number}: the power is cut"),
            Self::FenceAnswers(number) => write!(f, "fence {number}: the device's answer arrives"),
            Self::Waited(index) => write!(f, "{index} has waited for the watchdogs"),
        }
    }
}
