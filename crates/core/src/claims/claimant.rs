//! One node's side of its own claims: asking for groups, counting votes, renewing by beats, striking what is proved,
//! releasing. Whether a group should be claimed, started or given up is decided above; here is only what is true.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use super::{
    ByGroup, Digest, Echo, Lease, Ledger, Proof, Refusal, Touched, Voters, invariants::SeatFacts, rules,
    union,
};
use crate::model::{
    claim::{Ballot, Claim, GroupId, Report},
    identity::MemberIndex,
    time::{Duration, Instant},
    timer_queue::Agenda,
};

/// How many beats an echo may be late: older ones extend nothing.
const BEATS_KEPT: usize = 16;
/// So many groups' calls are said again at one moment: where thousands are not answered in time, more of the same would keep
/// everybody from answering. The rest has its turn after the next wait.
const REPEATED_MAX: usize = 512;
/// How often a release is said: whoever misses all of them waits for the lease.
const RELEASES: u32 = 3;

/// What became of a group, for the layer above.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum News {
    /// It is ours, under this epoch.
    Gained(GroupId, Ballot),
    /// An earlier owner was struck from the claim; the number of those that are left.
    Struck(GroupId, usize),
    /// Our lease has ended: whatever runs must be stopped, and [`Claimant::release`]d then.
    Lost(GroupId),
    /// Our ballot failed. Another owner's grant runs for at least so long yet; zero if a higher ballot stood against it,
    /// or nobody answered.
    Refused(GroupId, Duration),
}

/// A claim that is ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// As a majority accepted it.
    pub claim: Claim,
    /// The ballot under which the group was gained; it stays when the claim is made again under a higher one.
    pub epoch: Ballot,
    /// The end of the lease, by our own clock.
    pub until: Instant,
    /// The first beat in whose list it is, without a gap since then.
    listed_since: Option<u64>,
    /// Being written at the same ballot: confirmed, or with entries struck.
    write: Option<Write>,
    /// Proofs that came while something was being written.
    proofs: Vec<Proof>,
}

/// A proposal under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Write {
    claim: Claim,
    /// When it was first sent: from then on it counts.
    sent: Instant,
    again: Instant,
    accepted: Vec<MemberIndex>,
    refused: Vec<(MemberIndex, Duration)>,
}

impl Write {
    const fn new(claim: Claim, now: Instant, again: Instant) -> Self {
        Self { claim, sent: now, again, accepted: Vec::new(), refused: Vec::new() }
    }
}

/// A ballot on its way to a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    /// Given up then, a lease after it began: a voter that lost its file forgets what it promised, and is mute for no less
    /// than a lease; no ballot may count its old word together with what was said after that.
    until: Instant,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Prepare {
        ballot: Ballot,
        again: Instant,
        promises: BTreeMap<MemberIndex, Report>,
        refused: Vec<(MemberIndex, Duration)>,
    },
    Propose(Write),
}

impl Attempt {
    /// What voters may have accepted of it.
    fn into_claim(self) -> Option<Claim> {
        match self.stage {
            Stage::Propose(write) => Some(write.claim),
            Stage::Prepare { .. } => None,
        }
    }
}

/// A release that is being said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Leaving {
    claim: Claim,
    successor: Option<MemberIndex>,
    again: Instant,
    left: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Seat {
    held: Option<Held>,
    attempt: Option<Attempt>,
    /// To be claimed as soon as the ledger admits a round; whether durably.
    wanted: Option<bool>,
    /// What was ours when the lease ended: nothing new is claimed before it was stopped and released.
    lapsed: Option<Claim>,
    /// The highest round seen or used.
    round: u64,
    /// We have said that we start nothing below this.
    barred: Option<Ballot>,
    leaving: Option<Leaving>,
}

impl Seat {
    /// `base`: rounds up to it were perhaps used by an earlier run.
    fn facts(&self, me: MemberIndex, generation: u64, base: u64) -> SeatFacts<'_> {
        let attempt = self.attempt.as_ref().map(|attempt| match &attempt.stage {
            Stage::Prepare { ballot, .. } => *ballot,
            Stage::Propose(write) => write.claim.ballot,
        });
        SeatFacts {
            me,
            generation,
            round: self.round.max(base),
            held: self.held.as_ref(),
            write: self.held.as_ref().and_then(|held| Some(&held.write.as_ref()?.claim)),
            attempt,
            is_wanted: self.wanted.is_some(),
            lapsed: self.lapsed.as_ref(),
        }
    }

    /// When something of it must be said again, or ends.
    fn deadline(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref().map(|attempt| match attempt.stage {
            Stage::Prepare { again, .. } | Stage::Propose(Write { again, .. }) => again.min(attempt.until),
        });
        let held = self.held.as_ref().map(|held| held.until);
        let write = self.held.as_ref().and_then(|held| held.write.as_ref()).map(|write| write.again);
        let leaving = self.leaving.as_ref().map(|leaving| leaving.again);
        [attempt, held, write, leaving].into_iter().flatten().min()
    }
}

/// What is to be said to all voters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Prepare(GroupId, Ballot),
    Propose(GroupId, Claim),
    Release(GroupId, Claim, Option<MemberIndex>),
}

/// A beat that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sent {
    sequence: u64,
    at: Instant,
}

/// The claimant's state. See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claimant {
    me: MemberIndex,
    generation: u64,
    lease: Lease,
    /// After which an unanswered call is sent again.
    retry: Duration,
    /// Rounds of earlier lives lie below.
    base: u64,
    seats: ByGroup<Seat>,
    /// Of which groups something becomes due, and when.
    agenda: Agenda<GroupId>,
    /// The groups that wait for the ledger to admit a round.
    waiting: BTreeSet<GroupId>,
    /// The groups of which we hold a claim.
    holding: BTreeSet<GroupId>,
    beats: VecDeque<Sent>,
    /// The newest of our beats that each voter granted.
    echoed: BTreeMap<MemberIndex, u64>,
    /// The newest of our beats that a majority granted.
    granted: u64,
    /// What was changed since [`Self::take_touched`] was asked last.
    touched: Touched,
    calls: Vec<Call>,
    news: VecDeque<News>,
}

impl Claimant {
    /// A new life: it holds nothing.
    #[must_use]
    pub fn new(me: MemberIndex, generation: u64, lease: Lease, retry: Duration, ledger: &Ledger) -> Self {
        let base = rules::rounds_begin_above(ledger.synced().ceiling);
        Self {
            me,
            generation,
            lease,
            retry,
            base,
            seats: BTreeMap::new(),
            agenda: Agenda::new(),
            waiting: BTreeSet::new(),
            holding: BTreeSet::new(),
            beats: VecDeque::new(),
            echoed: BTreeMap::new(),
            granted: 0,
            touched: Touched::default(),
            calls: Vec::new(),
            news: VecDeque::new(),
        }
    }

    /// Rounds up to this one were perhaps used by an earlier life.
    pub(super) fn start_above(&mut self, round: u64) {
        self.base = self.base.max(round);
    }

    /// What happened, oldest first.
    pub fn poll(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    pub(super) fn take_calls(&mut self) -> Vec<Call> {
        core::mem::take(&mut self.calls)
    }

    /// Our claim of a group, if we have one whose lease runs.
    #[must_use]
    pub fn held(&self, now: Instant, group: GroupId) -> Option<&Held> {
        self.seats.get(&group)?.held.as_ref().filter(|held| held.until > now)
    }

    /// Whether a ballot for this group is under way, or waits for the disk.
    #[must_use]
    pub fn is_claiming(&self, group: GroupId) -> bool {
        self.seats.get(&group).is_some_and(|seat| seat.attempt.is_some() || seat.wanted.is_some())
    }

    /// All that we hold, in order.
    pub fn holds(&self, now: Instant) -> impl Iterator<Item = (GroupId, &Held)> {
        self.all_held().filter(move |(_, held)| held.until > now)
    }

    fn all_held(&self) -> impl Iterator<Item = (GroupId, &Held)> {
        self.holding.iter().filter_map(|group| Some((*group, self.seats.get(group)?.held.as_ref()?)))
    }

    /// Of which groups what we hold or ask for may have changed since this was asked last.
    pub fn take_touched(&mut self) -> Touched {
        core::mem::take(&mut self.touched)
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.agenda.first()
    }

    /// To be called after whatever changed a seat: the lists of groups follow it.
    fn reindex(&mut self, group: GroupId) {
        let Some(seat) = self.seats.get(&group) else { return };
        seat.facts(self.me, self.generation, self.base).assert(group);
        self.touched.add(group);
        self.agenda.set(group, seat.deadline());
        let put = |list: &mut BTreeSet<GroupId>, is_in: bool| {
            if is_in {
                list.insert(group)
            } else {
                list.remove(&group)
            };
        };
        put(&mut self.waiting, seat.wanted.is_some() && seat.attempt.is_none());
        put(&mut self.holding, seat.held.is_some());
    }

    // ---- asking ----------------------------------------------------------

    /// Begins to claim a group; also one that we hold, under a higher ballot. Nothing happens while what a lapsed claim
    /// left is not released, or a ballot is under way.
    pub fn claim(&mut self, now: Instant, ledger: &mut Ledger, group: GroupId, durable: bool) {
        let seat = self.seats.entry(group).or_default();
        if seat.lapsed.is_none() && seat.attempt.is_none() {
            seat.wanted = Some(durable);
            self.begin(now, ledger, group);
            self.reindex(group);
        }
    }

    /// Sends the prepare if the ledger admits its round; else [`Self::tick`] tries again.
    fn begin(&mut self, now: Instant, ledger: &mut Ledger, group: GroupId) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let round = seat.round.max(self.base) + 1;
        if seat.wanted.is_none() || seat.attempt.is_some() || !ledger.admits_round(round) {
            return;
        }
        assert!(round > seat.round && round > self.base, "{group:?}: a round is used twice");
        seat.round = round;
        let ballot = Ballot { round, node: self.me };
        let stage = Stage::Prepare {
            ballot,
            again: now + self.retry,
            promises: BTreeMap::new(),
            refused: Vec::new(),
        };
        seat.attempt = Some(Attempt { until: now + self.lease.owner(), stage });
        // A claim that is made again is not renewed by beats meanwhile: what is promised to a higher ballot is granted to
        // no lower one.
        if let Some(held) = &mut seat.held {
            held.listed_since = None;
        }
        self.calls.push(Call::Prepare(group, ballot));
    }

    /// Somebody uses this ballot for the group: the next of ours will be higher.
    pub(super) fn saw(&mut self, group: GroupId, ballot: Ballot) {
        let seat = self.seats.entry(group).or_default();
        seat.round = seat.round.max(ballot.round);
    }

    /// `promise`
    pub fn promised(
        &mut self,
        now: Instant,
        voters: &Voters,
        from: MemberIndex,
        group: GroupId,
        ballot: Ballot,
        report: Report,
    ) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let Some(attempt) = &mut seat.attempt else { return };
        let Stage::Prepare { ballot: ours, promises, .. } = &mut attempt.stage else { return };
        if *ours != ballot || !voters.contains(from) {
            return;
        }
        promises.insert(from, report);
        if !voters.has_majority(promises.keys()) {
            return;
        }
        let accepted = promises.values().filter_map(|report| report.accepted.as_ref());
        let held = seat.held.as_ref().map(|held| held.claim.ballot);
        if accepted.filter(|claim| claim.owner() != self.me).any(|claim| Some(claim.ballot) > held)
            && held.is_some()
        {
            // Somebody else owned it since we did: our clock stood still. What runs here runs under an old epoch.
            self.lose(group);
            return self.reindex(group);
        }
        let claim = Claim {
            ballot,
            generation: self.generation,
            version: 0,
            durable: seat.wanted.unwrap_or_default(),
            unproved: union(promises.values(), self.me),
        };
        attempt.stage = Stage::Propose(Write::new(claim.clone(), now, now + self.retry));
        self.calls.push(Call::Propose(group, claim));
        self.reindex(group);
    }

    /// A refusal of a prepare or of a proposal.
    pub fn refused(&mut self, now: Instant, voters: &Voters, from: MemberIndex, refusal: &Refusal) {
        let Refusal { group, ballot, promised, wait } = *refusal;
        let Some(seat) = self.seats.get_mut(&group) else { return };
        if !voters.contains(from) {
            return;
        }
        seat.round = seat.round.max(promised.round);
        if let Some(held) = seat.held.as_mut().filter(|held| held.claim.ballot == ballot) {
            // A write of ours at a ballot that somebody has outbid: claim again above it, while the lease runs.
            if held.write.take().is_some() && seat.attempt.is_none() {
                seat.wanted = Some(held.claim.durable);
            }
            return self.reindex(group);
        }
        let refused = match seat.attempt.as_mut().map(|attempt| &mut attempt.stage) {
            Some(Stage::Prepare { ballot: ours, again, refused, .. }) if *ours == ballot => {
                // Asked again as soon as that grant ends: the next in rank is not to come first.
                if !wait.is_zero() {
                    *again = (*again).min(now + wait);
                }
                refused
            }
            Some(Stage::Propose(write)) if write.claim.ballot == ballot => &mut write.refused,
            _ => return,
        };
        refused.retain(|(voter, _)| *voter != from);
        refused.push((from, wait));
        let left = voters.members.iter().filter(|voter| refused.iter().all(|(no, _)| no != *voter));
        if !voters.has_majority(left) {
            let wait = refused.iter().map(|(_, wait)| *wait).min().unwrap_or_default();
            self.fail(now, group, wait);
        }
        self.reindex(group);
    }

    /// The ballot will not be ours. While we hold the group under a lower one, it is claimed again.
    fn fail(&mut self, now: Instant, group: GroupId, wait: Duration) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let proposed = seat.attempt.take().and_then(Attempt::into_claim);
        if seat.held.is_some() {
            return;
        }
        seat.wanted = None;
        if let Some(claim) = proposed {
            self.say_release(now, group, claim, None);
        }
        self.news.push_back(News::Refused(group, wait));
    }

    /// `accept`
    pub fn accepted(
        &mut self,
        now: Instant,
        voters: &Voters,
        from: MemberIndex,
        group: GroupId,
        ballot: Ballot,
        version: u32,
    ) {
        let owner_lease = self.lease.owner();
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let counts = |write: &mut Write| {
            if write.claim.ballot == ballot
                && rules::accept_is_of(version, write.claim.version)
                && voters.contains(from)
                && !write.accepted.contains(&from)
            {
                write.accepted.push(from);
            }
            voters.has_majority(&write.accepted)
        };
        if let Some(Attempt { stage: Stage::Propose(write), until }) = &mut seat.attempt
            && counts(write)
            && *until > now
        {
            self.gain(now, group);
            return self.reindex(group);
        }
        let Some(held) = &mut seat.held else { return };
        if held.write.as_mut().is_some_and(counts)
            && let Some(write) = held.write.take()
        {
            held.until = held.until.max(write.sent + owner_lease);
            let was_confirmed = held.claim.is_confirmed();
            held.claim = write.claim;
            if was_confirmed {
                self.news.push_back(News::Struck(group, held.claim.unproved.len()));
            }
            self.strike(now, group);
            self.reindex(group);
        }
    }

    /// A majority has accepted our proposal.
    fn gain(&mut self, now: Instant, group: GroupId) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let Some(Attempt { stage: Stage::Propose(write), .. }) = seat.attempt.take() else { return };
        let until = rules::lease_begins(write.sent, now) + self.lease.owner();
        let held_before = seat.held.take().filter(|held| held.until > now);
        let barred = seat.barred.is_some_and(|barred| write.claim.ballot < barred);
        if held_before.is_none() && (until <= now || barred) {
            // Too late, or we have promised somebody not to start under it.
            seat.wanted = None;
            self.say_release(now, group, write.claim, None);
            self.news.push_back(News::Refused(group, Duration::ZERO));
            return;
        }
        seat.wanted = None;
        seat.leaving = None;
        let epoch = held_before.as_ref().map_or(write.claim.ballot, |held| held.epoch);
        let is_new = held_before.is_none();
        let until = held_before.as_ref().map_or(until, |held| held.until.max(until));
        let proofs = held_before.map(|held| held.proofs).unwrap_or_default();
        let confirmed = Claim { version: 1, ..write.claim.clone() };
        let confirm = Write::new(confirmed.clone(), now, now + self.retry);
        if let Some(seat) = self.seats.get_mut(&group) {
            seat.held = Some(Held {
                claim: write.claim,
                epoch,
                until,
                listed_since: None,
                write: Some(confirm),
                proofs,
            });
        }
        self.calls.push(Call::Propose(group, confirmed));
        if is_new {
            self.news.push_back(News::Gained(group, epoch));
        }
    }

    // ---- renewing --------------------------------------------------------

    /// A beat goes out now: the digest of the list that it stands for.
    pub fn beat(&mut self, now: Instant, sequence: u64) -> Digest {
        for group in &self.holding {
            let Some(seat) = self.seats.get_mut(group) else { continue };
            let again = seat.attempt.is_some() || seat.wanted.is_some();
            if let Some(held) = seat.held.as_mut().filter(|held| held.claim.is_confirmed() && !again) {
                held.listed_since.get_or_insert(sequence);
            }
        }
        let last = self.beats.back().map(|beat| beat.sequence);
        assert!(last.is_none_or(|last| last < sequence), "a beat's number is used twice");
        self.beats.push_back(Sent { sequence, at: now });
        if self.beats.len() > BEATS_KEPT {
            self.beats.pop_front();
        }
        Digest::of(self.list().map(|(group, claim)| (group, claim.ballot)))
    }

    /// What is in the list now.
    pub fn list(&self) -> impl Iterator<Item = (GroupId, &Claim)> {
        let listed = self.all_held().filter(|(_, held)| held.listed_since.is_some());
        listed.map(|(group, held)| (group, &held.claim))
    }

    /// The same for a voter that asks for it.
    pub(super) fn whole_list(&self) -> Vec<(GroupId, Claim)> {
        self.list().map(|(group, claim)| (group, claim.clone())).collect()
    }

    /// A voter's echo of a beat of ours. What it disputes is claimed again whether its votes count now or not.
    pub fn echoed(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        voters: &Voters,
        from: MemberIndex,
        echo: &Echo,
    ) {
        if echo.granted {
            let newest = self.echoed.entry(from).or_default();
            *newest = echo.sequence.max(*newest);
            self.extend(voters);
        }
        for (group, promised) in &echo.disputed {
            let Some(seat) = self.seats.get_mut(group) else { continue };
            seat.round = seat.round.max(promised.round);
            let Some(held) = seat.held.as_mut().filter(|held| held.until > now) else { continue };
            if held.claim.ballot < *promised && seat.attempt.is_none() {
                held.listed_since = None;
                seat.wanted = Some(held.claim.durable);
                self.begin(now, ledger, *group);
                self.reindex(*group);
            }
        }
    }

    /// The newest beat that a majority granted extends what was in its list, from the moment it was sent.
    pub(super) fn extend(&mut self, voters: &Voters) {
        let echoed =
            || self.echoed.iter().filter(|(voter, _)| voters.contains(**voter)).map(|(_, beat)| beat);
        let granted_so_far = |beat: &&u64| echoed().filter(|n| n >= beat).count();
        let newest = echoed().filter(|beat| granted_so_far(beat) >= voters.majority()).max();
        let Some(&granted) = newest.filter(|n| rules::echo_is_newer(**n, self.granted)) else { return };
        let Some(sent) = self.beats.iter().find(|beat| beat.sequence == granted) else { return };
        let until = sent.at + self.lease.owner();
        assert!(granted >= self.granted, "an older beat extends leases");
        self.granted = granted;
        self.touched.extended = true;
        for group in &self.holding {
            let Some(seat) = self.seats.get_mut(group) else { continue };
            let Some(held) = &mut seat.held else { continue };
            if rules::echo_extends(held.listed_since, granted) {
                held.until = held.until.max(until);
                self.agenda.set(*group, seat.deadline());
            }
        }
    }

    // ---- proofs ----------------------------------------------------------

    /// Something is proved of an earlier owner: what it covers is struck by one more write.
    pub fn prove(&mut self, now: Instant, group: GroupId, proof: Proof) {
        if let Some(held) = self.seats.get_mut(&group).and_then(|seat| seat.held.as_mut()) {
            // The same answer may come with each beat until it can be written.
            if !held.proofs.contains(&proof) {
                held.proofs.push(proof);
            }
            self.strike(now, group);
            self.reindex(group);
        }
    }

    /// Strikes what is proved, unless something is being written: then it waits. It waits, too, while the claim is to be made
    /// again under a higher ballot: what was refused of this one may have been accepted by some, and no version of it may
    /// come to mean two things.
    fn strike(&mut self, now: Instant, group: GroupId) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let may_strike = rules::may_strike(seat.wanted.is_some());
        let Some(held) = seat.held.as_mut().filter(|held| held.write.is_none() && may_strike) else { return };
        let proofs = core::mem::take(&mut held.proofs);
        let mut claim = held.claim.clone();
        claim.unproved.retain(|entry| !proofs.iter().any(|proof| proof.covers(entry)));
        if claim.unproved.len() == held.claim.unproved.len() {
            return;
        }
        claim.version += 1;
        self.calls.push(Call::Propose(group, claim.clone()));
        let write = Write::new(claim, now, now + self.retry);
        if let Some(held) = self.seats.get_mut(&group).and_then(|seat| seat.held.as_mut()) {
            held.write = Some(write);
        }
    }

    /// Somebody who holds the group under `ballot` asks whether we may be forgotten. `running`: something of the group may
    /// run here. If the answer is yes, nothing will be started here under a lower ballot.
    pub fn answer(&mut self, now: Instant, group: GroupId, ballot: Ballot, running: bool) -> bool {
        let seat = self.seats.entry(group).or_default();
        let holds = seat.held.as_ref().is_some_and(|held| held.until > now);
        if running || holds || ballot.node == self.me {
            return false;
        }
        assert!(!holds && !running, "{group:?}: this node may be forgotten, and it runs or holds it");
        seat.barred = seat.barred.max(Some(ballot));
        seat.round = seat.round.max(ballot.round);
        true
    }

    // ---- ending ----------------------------------------------------------

    /// Everything that ran of the group is stopped, and its gate is shut: the claim, held or lapsed, is given back.
    pub fn release(&mut self, now: Instant, group: GroupId, successor: Option<MemberIndex>) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        seat.wanted = None;
        let proposed = seat.attempt.take().and_then(Attempt::into_claim);
        let held = seat.held.take().map(|held| held.write.map_or(held.claim, |write| write.claim));
        let lapsed = seat.lapsed.take();
        // The highest of them covers the others.
        if let Some(claim) = [proposed, held, lapsed].into_iter().flatten().max_by_key(|claim| claim.ballot) {
            self.say_release(now, group, claim, successor);
        }
        self.reindex(group);
        assert!(!self.holding.contains(&group), "{group:?}: released, and held");
        assert!(!self.waiting.contains(&group), "{group:?}: released, and asked for");
    }

    fn say_release(&mut self, now: Instant, group: GroupId, claim: Claim, successor: Option<MemberIndex>) {
        self.calls.push(Call::Release(group, claim.clone(), successor));
        let leaving = Leaving { claim, successor, again: now + self.retry, left: RELEASES - 1 };
        self.seats.entry(group).or_default().leaving = Some(leaving);
    }

    /// Time has passed: leases end, what was not answered is said again.
    pub fn tick(&mut self, now: Instant, ledger: &mut Ledger) {
        let mut groups: BTreeSet<GroupId> = self.agenda.due(now).collect();
        groups.extend(&self.waiting);
        let most = self.calls.len() + REPEATED_MAX;
        for group in groups {
            self.expire(now, group);
            self.begin(now, ledger, group);
            self.repeat(now, group, self.calls.len() < most);
            self.reindex(group);
        }
        assert!(self.agenda.first().is_none_or(|at| at > now), "something of a claim is due for ever");
    }

    fn expire(&mut self, now: Instant, group: GroupId) {
        let held = self.seats.get(&group).and_then(|seat| seat.held.as_ref());
        if held.is_some_and(|held| held.until <= now) {
            self.lose(group);
        }
    }

    /// Somebody else has this confirmed claim of the group. Under a higher ballot than ours it is what counts: our clock
    /// stood still, or each of us counted alone.
    pub(super) fn learn(&mut self, group: GroupId, claim: &Claim) {
        let held = self.seats.get(&group).and_then(|seat| seat.held.as_ref());
        if held.is_some_and(|held| rules::is_overtaken(held.claim.ballot, claim, self.me)) {
            self.lose(group);
            self.reindex(group);
        }
    }

    /// What is held is ours no longer.
    fn lose(&mut self, group: GroupId) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let Some(held) = seat.held.take() else { return };
        seat.wanted = None;
        assert!(seat.lapsed.is_none(), "{group:?}: lost twice, and never released");
        let proposed = seat.attempt.take().and_then(Attempt::into_claim);
        seat.lapsed = Some(proposed.unwrap_or_else(|| held.write.map_or(held.claim, |write| write.claim)));
        self.news.push_back(News::Lost(group));
    }

    /// Says again what was not answered, or puts that off.
    fn repeat(&mut self, now: Instant, group: GroupId, may_say: bool) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let retry = self.retry;
        let due = |again: &mut Instant| {
            let due = *again <= now;
            if due {
                *again = now + retry;
            }
            due && may_say
        };
        let give_up = seat.attempt.as_ref().is_some_and(|attempt| attempt.until <= now);
        let attempt = seat.attempt.as_mut().map(|attempt| match &mut attempt.stage {
            Stage::Prepare { ballot, again, .. } => (again, Call::Prepare(group, *ballot)),
            Stage::Propose(Write { claim, again, .. }) => (again, Call::Propose(group, claim.clone())),
        });
        if let Some((again, call)) = attempt.filter(|_| !give_up)
            && due(again)
        {
            self.calls.push(call);
        }
        if let Some(write) = seat.held.as_mut().and_then(|held| held.write.as_mut())
            && due(&mut write.again)
        {
            self.calls.push(Call::Propose(group, write.claim.clone()));
        }
        if let Some(leaving) = seat.leaving.as_mut().filter(|leaving| leaving.again <= now) {
            leaving.again = now + retry;
            if may_say {
                leaving.left -= 1;
                self.calls.push(Call::Release(group, leaving.claim.clone(), leaving.successor));
            }
        }
        seat.leaving.take_if(|leaving| leaving.left == 0);
        if give_up {
            self.fail(now, group, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::model::claim::Durable;

    const GROUP: GroupId = GroupId(7);
    const OLD: Ballot = Ballot { round: 3, node: MemberIndex(4) };
    const LEASE: Lease = Lease { length: Duration::from_secs(1), margin: Duration::from_millis(20) };
    const RETRY: Duration = Duration::from_millis(50);

    fn sync(ledger: &mut Ledger) {
        ledger.poll();
        ledger.written(true);
    }

    /// Node 0, whose rounds up to 10 are on disk.
    fn claimant() -> (Claimant, Ledger) {
        let mut ledger = Ledger::new(Durable { ceiling: 10, ..Durable::default() });
        sync(&mut ledger);
        let claimant = Claimant::new(MemberIndex(0), 1, LEASE, RETRY, &ledger);
        (claimant, ledger)
    }

    /// Were all of them said again whenever nobody answers in time, thousands of groups would drown who has to answer.
    #[test]
    fn of_thousands_that_are_not_answered_some_are_said_again_at_a_time() {
        let begin = Instant::from_millis(1000);
        let (mut claimant, mut ledger) = claimant();
        claimant.base = 10;
        let groups = u64::try_from(REPEATED_MAX).unwrap_or(u64::MAX) * 4;
        for group in 0..groups {
            claimant.claim(begin, &mut ledger, GroupId(group), false);
        }
        assert_eq!(claimant.take_calls().len(), REPEATED_MAX * 4, "the first time all of them");
        for wait in 1..5 {
            claimant.tick(begin + RETRY * wait, &mut ledger);
            assert_eq!(claimant.take_calls().len(), REPEATED_MAX);
        }
    }

    /// One voter knows a moment later than we do that the owner's lease is over.
    #[test]
    fn a_voter_whose_grant_still_runs_is_asked_again_when_it_ends() {
        let now = Instant::from_millis(1000);
        let voters = Voters { number: 1, members: (0..3).map(MemberIndex).collect() };
        let (mut claimant, mut ledger) = claimant();
        claimant.base = 10;
        claimant.claim(now, &mut ledger, GROUP, false);
        let ballot = Ballot { round: 11, node: MemberIndex(0) };
        assert_eq!(claimant.take_calls(), vec![Call::Prepare(GROUP, ballot)]);
        let wait = Duration::from_millis(7);
        let refusal = Refusal { group: GROUP, ballot, promised: OLD, wait };
        claimant.refused(now, &voters, MemberIndex(1), &refusal);
        assert_eq!(claimant.deadline(), Some(now + wait));
        claimant.tick(now + wait, &mut ledger);
        assert_eq!(claimant.take_calls(), vec![Call::Prepare(GROUP, ballot)]);
        assert_eq!(claimant.deadline(), Some(now + wait + RETRY), "and then as often as ever");
    }

    /// Found by a simulated cluster: the confirmation was refused by a voter that had restarted, the earlier owner answered,
    /// and version 1 was said twice, of two claims; who had accepted the first answered for the second, and granted nothing.
    #[test]
    fn no_version_of_a_claim_that_was_outbid_means_two_things() {
        let now = Instant::from_millis(1000);
        let voters = Voters { number: 1, members: (0..5).map(MemberIndex).collect() };
        let (mut claimant, mut ledger) = claimant();
        let others = [1, 2, 3].map(MemberIndex);

        let earlier = Claim { ballot: OLD, generation: 1, version: 1, durable: false, unproved: Vec::new() };
        let report = Report { accepted: Some(earlier), released: false };
        let first = Ballot { round: 11, node: MemberIndex(0) };
        claimant.base = 10;
        claimant.claim(now, &mut ledger, GROUP, false);
        for voter in others {
            claimant.promised(now, &voters, voter, GROUP, first, report.clone());
        }
        for voter in others {
            claimant.accepted(now, &voters, voter, GROUP, first, 0);
        }
        assert_eq!(claimant.held(now, GROUP).expect("gained").claim.unproved.len(), 1);

        // Its round is far above, and the disk takes its time.
        let promised = Ballot { round: 5000, node: MemberIndex(4) };
        let refusal = Refusal { group: GROUP, ballot: first, promised, wait: Duration::ZERO };
        claimant.refused(now, &voters, MemberIndex(4), &refusal);
        claimant.tick(now, &mut ledger);
        claimant.take_calls();
        let until = claimant.held(now, GROUP).expect("held").until;
        let later = now + Duration::from_millis(100);
        claimant.prove(later, GROUP, Proof::Swept { node: MemberIndex(4), generation: 2 });
        assert_eq!(claimant.take_calls(), vec![], "nothing more is said under the ballot that was outbid");
        for voter in others {
            claimant.accepted(later, &voters, voter, GROUP, first, 1);
        }
        assert_eq!(claimant.held(later, GROUP).expect("held").until, until);

        // Claimed again above, what was proved is struck.
        sync(&mut ledger);
        claimant.tick(later, &mut ledger);
        let second = Ballot { round: 5001, node: MemberIndex(0) };
        for voter in others {
            claimant.promised(later, &voters, voter, GROUP, second, report.clone());
        }
        for version in 0..3 {
            for voter in others {
                claimant.accepted(later, &voters, voter, GROUP, second, version);
            }
        }
        let held = claimant.held(later, GROUP).expect("held");
        assert_eq!((held.claim.ballot, held.claim.version, held.claim.unproved.len()), (second, 2, 0));
        assert_eq!(held.epoch, first, "the group does not notice");
    }
}
