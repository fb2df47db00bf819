//! States of the model: members with clocks, ledger files and disks, frames on their way, the group and its gate on
//! each node, and fencing devices. Each possible event is an [`Act`]; a [`World`] and an act make the next world. The
//! members are those of `locum-core`; only their surroundings are modelled.

use std::{fmt, sync::Arc};

use locum_core::{
    claims::{
        ClaimEvent, ClaimMember, ClaimMessage, ClaimNotice, ClaimSettings, Envelope, Lease, Proof, Receivers,
        Voters,
    },
    model::{
        breakage::{self, Breakage},
        claim::{Ballot, DurableState, EarlierOwner, GroupId},
        identity::MemberIndex,
        time::{Duration, Instant},
    },
};

use crate::step::{Event, Hashed, step};

/// The only group of the model.
pub const GROUP: GroupId = GroupId(7);
/// One step of a clock.
pub const TICK: Duration = Duration::from_secs(1);
/// Most members of a world.
pub const MEMBERS_MAX: usize = 5;
/// The time that clocks show at the beginning, so that no moment lies before their zero.
const BEGINNING: u64 = 100;
/// Most frames that one exchange of a script delivers: if a rule is broken on purpose, frames may never end.
const EXCHANGED: usize = 200;

/// The condition under which a holder of the claim may start the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The node holds the claim.
    Lease,
    /// The node holds the claim, and the watchdog of any other node that may still run the group has stopped it. It
    /// fires this many ticks after a lease.
    Watchdog(u64),
    /// The node holds the claim, and no earlier owner is unproved.
    Fence,
}

/// How often each event may still happen; events at zero do not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// By node: begins to claim.
    pub claims: [u8; MEMBERS_MAX],
    /// By node: claims again the group that it holds.
    pub reclaims: [u8; MEMBERS_MAX],
    /// By node: stops the group and gives it back.
    pub releases: [u8; MEMBERS_MAX],
    /// By node: stops a group that ran under a lost lease.
    pub stops: [u8; MEMBERS_MAX],
    /// By member: sends a beat.
    pub beats: [u8; MEMBERS_MAX],
    /// By member: its daemon dies. Resources that it started run on, and its gate stands, until the next run sweeps.
    pub crashes: [u8; MEMBERS_MAX],
    /// By member: its file is lost while it is down.
    pub losses: [u8; MEMBERS_MAX],
    /// By member: a write to disk fails.
    pub failures: [u8; MEMBERS_MAX],
    /// By member: its clock gets ahead by a tick.
    pub drifts: [u8; MEMBERS_MAX],
    /// A frame arrives twice.
    pub duplicates: u8,
    /// A node begins to fence another.
    pub fences: u8,
}

/// Rules that hold for a whole search.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Number of nodes, which may claim; witnesses come after them.
    pub nodes: u8,
    /// Number of all members, with the witnesses.
    pub members: u8,
    /// The voter set as each member knows it: arguments are the number of members and the member.
    pub voters: fn(u8, u8) -> Voters,
    /// The lease as voters count it, in ticks.
    pub lease: u64,
    /// By how many ticks the owner counts its lease shorter.
    pub margin: u64,
    /// The condition under which a group may be started.
    pub guard: Guard,
    /// The search ends this many ticks after the beginning.
    pub horizon: u64,
    /// How often each event may happen.
    pub budget: Budget,
    /// Whether writes end at once; else they take time, and a crash may come between.
    pub prompt_disks: bool,
    /// Frames that never arrive at this member. They make the search smaller, and a loss is always allowed.
    pub lost: fn(&ClaimMessage, u8) -> bool,
    /// The frames that may arrive twice.
    pub doubled: fn(&ClaimMessage) -> bool,
    /// Whether to remove frames that can never change anything any more: worlds that differ only in them are then one.
    /// Not to be used if a planted breakage may give an old answer a new meaning.
    pub prunes: bool,
}

impl Rules {
    fn ticks(ticks: u64) -> Duration {
        TICK * u32::try_from(ticks).expect("small")
    }

    fn settings(&self, me: u8, generation: u64) -> ClaimSettings {
        ClaimSettings {
            me: MemberIndex(me),
            generation,
            voters: (self.voters)(self.members, me),
            lease: Lease { length: Self::ticks(self.lease), margin: Self::ticks(self.margin) },
            // No message is repeated: a late frame is one that stays on its way for long.
            retry: Self::ticks(100_000),
            claims: me < self.nodes,
            single_vote: None,
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

/// A frame on its way to a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// The member that sent it.
    pub from: u8,
    /// The run of the sender's daemon.
    pub run_number: u64,
    /// The number of the sender's voter set.
    pub set: u32,
    /// The member that gets it.
    pub to: u8,
    pub message: ClaimMessage,
}

/// A machine, with its daemon, file, group and gate.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Seat {
    /// The daemon, while it runs.
    pub member: Option<Arc<Hashed<ClaimMember>>>,
    /// Counts the runs of the daemon.
    pub run_number: u64,
    /// By how many ticks its clock is ahead.
    ahead: u64,
    /// The content of the ledger file.
    file: Option<Arc<Hashed<DurableState>>>,
    /// The content that is being written.
    writing: Option<Arc<Hashed<DurableState>>>,
    /// The epoch under which the group was started here, if it runs.
    pub runs: Option<Ballot>,
    /// Until then, by this machine's clock, the kernel lets the address answer, even without a daemon.
    gate: Instant,
    /// Since when this run has a claim that it has not released.
    claimed: Option<Instant>,
}

/// A fence under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    by: u8,
    run_number: u64,
    target: u8,
    /// The target's generation when the fence was begun.
    generation: u64,
    /// Whether the device has cut the target's power.
    fired: bool,
}

/// A violation by past events; the properties check the present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Two runs asked for the same ballot.
    BallotTwice,
    /// A group was gained under an epoch that is not above all earlier ones.
    EpochFell,
}

/// A state of the search.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct World {
    /// Real time, in ticks since the beginning.
    pub now: u64,
    pub seats: Vec<Seat>,
    /// Frames on their way, each once, in a fixed order.
    net: Vec<Arc<Hashed<Packet>>>,
    fences: Vec<Fence>,
    /// The tick at which the search began.
    pub began: u64,
    /// How often each event may still happen.
    pub left: Budget,
    /// The run that asked for each ballot.
    asked: Vec<(Ballot, u64)>,
    /// The epochs under which the group was gained, in the order of time.
    pub gained: Vec<Ballot>,
    /// The first violation by a past event.
    pub fault: Option<Fault>,
}

/// An event that leads to the next state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A tick passes for all members.
    Tick,
    /// A member's clock gets ahead by a tick.
    Drift(u8),
    /// A frame arrives, once or for the first of two times.
    Arrives {
        packet: Arc<Hashed<Packet>>,
        /// It stays on its way, and arrives once more.
        again: bool,
    },
    /// A node begins to claim.
    Claim(u8),
    /// An owner claims again while it holds the group.
    ClaimAgain(u8),
    /// A node stops the group and gives it back.
    Release(u8),
    /// A node stops a group that ran under a lost lease.
    Stop(u8),
    /// A member sends its beat.
    Beat(u8),
    /// A daemon dies; the flag says whether its running write reached the disk.
    Crash(u8, bool),
    /// The ledger file of a dead daemon is lost.
    FileLost(u8),
    /// A dead daemon starts again, and sweeps first.
    Restart(u8),
    /// A write ends; the flag says whether it succeeded.
    Written(u8, bool),
    /// A holder begins to fence an unproved earlier owner.
    Fence(u8, EarlierOwner),
    /// The device cuts the target's power.
    FenceFires(usize),
    /// The device's answer arrives.
    FenceAnswers(usize),
    /// The waiting time of guard `watchdog` has passed.
    Waited(u8),
}

impl World {
    /// Members that have run before, with these ceilings in their files, and that do not abstain any more. No group is
    /// claimed.
    #[must_use]
    pub fn settled(rules: &Rules, ceilings: &[u64]) -> Self {
        let seat = |index: usize| {
            let durable = DurableState {
                ceiling: ceilings[index],
                longest_lease: Rules::ticks(rules.lease),
                set: (rules.voters)(rules.members, u8::try_from(index).expect("few")).number,
                ..DurableState::default()
            };
            Seat {
                member: None,
                run_number: 0,
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

    /// The same world as the initial state of a search.
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

    // ---- queries of the properties ---------------------------------------

    /// The nodes that hold the group, each by its own clock.
    pub fn holders(&self) -> impl Iterator<Item = u8> {
        self.indices().filter(|index| self.holds(*index))
    }

    /// Whether this node holds the group now, by its own clock.
    #[must_use]
    pub fn holds(&self, index: u8) -> bool {
        self.held(index).is_some()
    }

    /// The claim that this node holds, if any.
    #[must_use]
    pub fn held(&self, index: u8) -> Option<&locum_core::claims::HeldClaim> {
        let member = self.seats[usize::from(index)].member.as_ref()?;
        member.value.claimant()?.held(self.clock(index), GROUP)
    }

    /// The nodes whose gate is open, whether their daemon runs or not.
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
            == Some(locum_core::claims::VoterStanding::Voting)
    }

    // ---- possible events -------------------------------------------------

    /// Adds all events that are possible now to `acts`.
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
            let fresh = |entry: &&EarlierOwner| {
                !self.fences.iter().any(|fence| (fence.by, fence.target) == (index, entry.node.0))
            };
            acts.extend(held.claim.unproved.iter().filter(fresh).map(|entry| Act::Fence(index, *entry)));
        }
    }

    // ---- effects of events -----------------------------------------------

    /// The state after this event.
    #[must_use]
    pub fn after(&self, rules: &Rules, act: &Act) -> Self {
        let mut world = self.clone();
        world.act(rules, act);
        if rules.prunes {
            world.prune(rules);
        }
        world
    }

    /// Applies an event to this state.
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
                let life = self.seats[usize::from(index)].run_number;
                let EarlierOwner { node, generation, .. } = entry;
                self.fences.push(Fence {
                    by: index,
                    run_number: life,
                    target: node.0,
                    generation,
                    fired: false,
                });
            }
            Act::FenceFires(number) => {
                self.fences[number].fired = true;
                let target = self.fences[number].target;
                self.cut_power(target);
            }
            Act::FenceAnswers(number) => {
                let Fence { by, run_number: life, target, generation, .. } = self.fences.remove(number);
                if self.seats[usize::from(by)].run_number == life
                    && self.seats[usize::from(by)].member.is_some()
                {
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

    /// Gives an event to a member, performs its actions, and starts the group if it may start.
    fn with(&mut self, rules: &Rules, index: u8, event: &Event) {
        let now = self.clock(index);
        let seat = &mut self.seats[usize::from(index)];
        let effect = step(seat.member.as_ref().expect("alive"), now, event, seat.writing.is_none());
        seat.member = Some(effect.member.clone());
        if effect.write.is_some() {
            seat.writing.clone_from(&effect.write);
        }
        for notice in &effect.notices {
            if let ClaimNotice::Own(ClaimEvent::Gained(GROUP, epoch)) = *notice {
                seat.claimed = Some(now);
                if self.gained.last().is_some_and(|last| *last >= epoch) {
                    self.fault.get_or_insert(Fault::EpochFell);
                }
                self.gained.push(epoch);
            }
        }
        self.send(rules, index, &effect.out);
        if let Some(beat) = &effect.beat {
            self.send(
                rules,
                index,
                &[Envelope { to: Receivers::All, message: ClaimMessage::Beat(beat.clone()) }],
            );
        }
        self.run(rules, index);
        if rules.prompt_disks {
            self.finish_writes(rules, index);
        }
    }

    /// Starts the group as early as the rules allow, and renews the gate. Stops are separate events.
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
        let life = self.seats[usize::from(from)].run_number;
        let set = (rules.voters)(rules.members, from).number;
        for Envelope { to, message } in out {
            if let ClaimMessage::Prepare(list) = message {
                for (_, ballot) in list {
                    self.ask(*ballot, life);
                }
            }
            let targets: Vec<u8> = self.targets(rules, from, *to, message).collect();
            for to in targets {
                let packet =
                    Hashed::new(Packet { from, run_number: life, set, to, message: message.clone() });
                match self.net.binary_search_by_key(&packet.hash(), |other| other.hash()) {
                    Ok(_) => {}
                    Err(place) => self.net.insert(place, packet),
                }
            }
        }
    }

    /// The members that a message reaches.
    fn targets(
        &self,
        rules: &Rules,
        from: u8,
        to: Receivers,
        message: &ClaimMessage,
    ) -> impl Iterator<Item = u8> {
        let is_meant = move |index: &u8| match to {
            Receivers::All => *index != from,
            Receivers::One(one) => *index == one.0,
        };
        self.indices().filter(is_meant).filter(|index| !(rules.lost)(message, *index))
    }

    /// Removes frames that change nothing whenever they arrive: answers to a ballot that is over (ballots do not come
    /// back), and requests to voters that have promised more (promises only grow).
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
                ClaimMessage::Promise(_) | ClaimMessage::Accept(_) | ClaimMessage::Refuse(_) => changes(now),
                ClaimMessage::Prepare(_) | ClaimMessage::Propose(..) | ClaimMessage::Beat(_) => {
                    changes(now) || changes(now + far)
                }
                _ => true,
            }
        });
        self.net = net;
    }

    fn ask(&mut self, ballot: Ballot, run_number: u64) {
        match self.asked.iter().find(|(asked, _)| *asked == ballot) {
            None => self.asked.push((ballot, run_number)),
            Some((_, other)) if *other != run_number => {
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

    /// Shuts the gate, stops the group, and gives the claim back.
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

    /// Starts a daemon again: leftovers are swept before the first message.
    fn restart(&mut self, rules: &Rules, index: u8) {
        let now = self.clock(index);
        if !breakage::is(Breakage::NoSweep) {
            self.stop(index);
        }
        let seat = &mut self.seats[usize::from(index)];
        seat.run_number += 1;
        let file = seat.file.as_ref().map(|file| file.value.clone());
        let member = ClaimMember::new(now, rules.settings(index, seat.run_number), file);
        seat.member = Some(Hashed::new(member));
        self.with(rules, index, &Event::Started);
    }

    // ---- scripts ---------------------------------------------------------

    /// Delivers all frames between these members, with the answers to them; other frames stay on their way.
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

    /// Delivers the frames of a kind that are on their way to a member.
    pub fn arrive(&mut self, rules: &Rules, kind: fn(&ClaimMessage) -> bool, to: u8) {
        for packet in self.net.clone() {
            if packet.value.to == to && kind(&packet.value.message) {
                self.act(rules, &Act::Arrives { packet, again: false });
            }
        }
        self.finish_writes(rules, to);
    }

    /// Loses the frames on their way, except those to be kept.
    pub fn lose(&mut self, but: fn(&Packet) -> bool) {
        self.net.retain(|packet| but(&packet.value));
    }

    /// All frames that are on their way.
    #[must_use]
    pub fn on_its_way(&self) -> Vec<Arc<Hashed<Packet>>> {
        self.net.clone()
    }

    /// Puts frames on their way again, as if they were late or came twice.
    pub fn still_on_its_way(&mut self, frames: &[Arc<Hashed<Packet>>]) {
        self.net.extend_from_slice(frames);
        self.net.sort_by_key(|packet| packet.hash());
        self.net.dedup();
    }

    /// Lets this many ticks pass.
    pub fn pass(&mut self, rules: &Rules, ticks: u64) {
        for _ in 0..ticks {
            self.act(rules, &Act::Tick);
        }
    }
}

fn spend(left: &mut [u8; MEMBERS_MAX], index: u8) {
    let left = &mut left[usize::from(index)];
    // Scripts may spend more than the budget grants.
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
            Self::ClaimAgain(index) => write!(f, "{index} claims again the group that it holds"),
            Self::Release(index) => write!(f, "{index} gives the group back"),
            Self::Stop(index) => write!(f, "{index} stops the group that ran under a lost lease"),
            Self::Beat(index) => write!(f, "{index} sends a beat"),
            Self::Crash(index, true) => write!(f, "{index}: the daemon dies after its write"),
            Self::Crash(index, false) => write!(f, "{index}: the daemon dies"),
            Self::FileLost(index) => write!(f, "{index}: the file is lost"),
            Self::Restart(index) => write!(f, "{index} starts again and sweeps"),
            Self::Written(index, true) => write!(f, "{index}: a write ends"),
            Self::Written(index, false) => write!(f, "{index}: a write fails"),
            Self::Fence(index, entry) => {
                write!(f, "{index} has {} fenced, run {}", entry.node.0, entry.generation)
            }
            Self::FenceFires(number) => write!(f, "fence {number}: the power is cut"),
            Self::FenceAnswers(number) => write!(f, "fence {number}: the device's answer arrives"),
            Self::Waited(index) => write!(f, "{index} has waited for the watchdogs"),
        }
    }
}
