//! One node's side of its own claims: asking for groups, counting votes, renewing by beats, clearing proved earlier
//! owners, releasing. The layer above decides whether a group should be claimed, started or given up; this module only
//! keeps to what is true.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use super::{
    BeatEcho, ByGroup, ClaimRefusal, ClaimsDigest, Lease, Ledger, Proof, TouchedGroups, Voters,
    invariants::SeatFacts, rules, union,
};
use crate::model::{
    claim::{Ballot, Claim, GroupId, VoterReport},
    identity::MemberIndex,
    time::{Duration, Instant},
    timer_queue::TimerQueue,
};

/// How many beats an echo may be late: older ones extend nothing.
const BEATS_KEPT: usize = 16;
/// For how many groups calls are repeated at one moment. If thousands are not answered in time, repeating all of them
/// would keep everybody from answering. The rest has its turn after the next wait.
const REPEATED_MAX: usize = 512;
/// How often a release is sent. A member that misses all of them waits for the lease.
const RELEASES: u32 = 3;

/// A report for the layer above on what became of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimEvent {
    /// It is ours, under this epoch.
    Gained(GroupId, Ballot),
    /// An earlier owner was cleared from the claim; the number of those that are left.
    Cleared(GroupId, usize),
    /// Our lease has ended: all of the group must be stopped, and [`Claimant::release`]d then.
    Lost(GroupId),
    /// Our ballot failed. Another owner's grant still runs for at least this time; zero if a higher ballot stood against
    /// ours, or nobody answered.
    Refused(GroupId, Duration),
}

/// A claim that is ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeldClaim {
    /// As a majority accepted it.
    pub claim: Claim,
    /// The ballot under which the group was gained; it stays when the claim is made again under a higher one.
    pub epoch: Ballot,
    /// The end of the lease, by our own clock.
    pub until: Instant,
    /// The first beat that listed it, without a gap since then.
    listed_since: Option<u64>,
    /// Being written at the same ballot: confirmed, or with entries cleared.
    write: Option<PendingWrite>,
    /// Proofs that came while something was being written.
    proofs: Vec<Proof>,
}

/// A proposal under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PendingWrite {
    claim: Claim,
    /// When it was first sent: the lease counts from then.
    sent: Instant,
    again: Instant,
    accepted: Vec<MemberIndex>,
    refused: Vec<(MemberIndex, Duration)>,
}

impl PendingWrite {
    const fn new(claim: Claim, now: Instant, again: Instant) -> Self {
        Self { claim, sent: now, again, accepted: Vec::new(), refused: Vec::new() }
    }
}

/// A ballot on its way to a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    /// When it is given up, a lease after it began. A voter that lost its file forgets what it promised, and abstains for
    /// no less than a lease. So no ballot may count its old promise together with its votes after that.
    until: Instant,
    phase: AttemptPhase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum AttemptPhase {
    Prepare {
        ballot: Ballot,
        again: Instant,
        promises: BTreeMap<MemberIndex, VoterReport>,
        refused: Vec<(MemberIndex, Duration)>,
    },
    Propose(PendingWrite),
}

impl Attempt {
    /// The claim that voters may have accepted.
    fn into_claim(self) -> Option<Claim> {
        match self.phase {
            AttemptPhase::Propose(write) => Some(write.claim),
            AttemptPhase::Prepare { .. } => None,
        }
    }
}

/// A release that is being sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PendingRelease {
    claim: Claim,
    successor: Option<MemberIndex>,
    again: Instant,
    left: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Seat {
    held: Option<HeldClaim>,
    attempt: Option<Attempt>,
    /// Set if it is to be claimed as soon as the ledger admits a round; then, whether durably.
    wanted: Option<bool>,
    /// Our claim when the lease ended: nothing new is claimed before it was stopped and released.
    lapsed: Option<Claim>,
    /// The highest round seen or used.
    round: u64,
    /// We have said that we start nothing below this ballot.
    barred: Option<Ballot>,
    pending_release: Option<PendingRelease>,
}

impl Seat {
    /// `base`: rounds up to it were perhaps used by an earlier run.
    fn facts(&self, me: MemberIndex, generation: u64, base: u64) -> SeatFacts<'_> {
        let attempt = self.attempt.as_ref().map(|attempt| match &attempt.phase {
            AttemptPhase::Prepare { ballot, .. } => *ballot,
            AttemptPhase::Propose(write) => write.claim.ballot,
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
        let attempt = self.attempt.as_ref().map(|attempt| match attempt.phase {
            AttemptPhase::Prepare { again, .. } | AttemptPhase::Propose(PendingWrite { again, .. }) => {
                again.min(attempt.until)
            }
        });
        let held = self.held.as_ref().map(|held| held.until);
        let write = self.held.as_ref().and_then(|held| held.write.as_ref()).map(|write| write.again);
        let leaving = self.pending_release.as_ref().map(|leaving| leaving.again);
        [attempt, held, write, leaving].into_iter().flatten().min()
    }
}

/// A message to all voters about one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Prepare(GroupId, Ballot),
    Propose(GroupId, Claim),
    Release(GroupId, Claim, Option<MemberIndex>),
}

/// A beat that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SentBeat {
    sequence: u64,
    at: Instant,
}

/// The state of one node's own claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claimant {
    me: MemberIndex,
    generation: u64,
    lease: Lease,
    /// The time after which an unanswered call is sent again.
    retry: Duration,
    /// Earlier runs of this daemon used no round above this one.
    base: u64,
    seats: ByGroup<Seat>,
    /// By group, when something of it becomes due.
    timers: TimerQueue<GroupId>,
    /// The groups that wait for the ledger to admit a round.
    waiting: BTreeSet<GroupId>,
    /// The groups of which we hold a claim.
    holding: BTreeSet<GroupId>,
    beats: VecDeque<SentBeat>,
    /// The newest of our beats that each voter granted.
    echoed: BTreeMap<MemberIndex, u64>,
    /// The newest of our beats that a majority granted.
    granted: u64,
    /// What has changed since the last call of [`Self::take_touched`].
    touched: TouchedGroups,
    calls: Vec<Call>,
    events: VecDeque<ClaimEvent>,
}

impl Claimant {
    /// The claimant of a daemon that starts: it holds nothing.
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
            timers: TimerQueue::new(),
            waiting: BTreeSet::new(),
            holding: BTreeSet::new(),
            beats: VecDeque::new(),
            echoed: BTreeMap::new(),
            granted: 0,
            touched: TouchedGroups::default(),
            calls: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// An earlier run of this daemon may have used rounds up to this one.
    pub(super) fn start_above(&mut self, round: u64) {
        self.base = self.base.max(round);
    }

    /// The next report, oldest first.
    pub fn poll(&mut self) -> Option<ClaimEvent> {
        self.events.pop_front()
    }

    pub(super) fn take_calls(&mut self) -> Vec<Call> {
        core::mem::take(&mut self.calls)
    }

    /// Our claim of a group, if we have one whose lease runs.
    #[must_use]
    pub fn held(&self, now: Instant, group: GroupId) -> Option<&HeldClaim> {
        self.seats.get(&group)?.held.as_ref().filter(|held| held.until > now)
    }

    /// Whether a ballot for this group is under way, or waits for the disk.
    #[must_use]
    pub fn is_claiming(&self, group: GroupId) -> bool {
        self.seats.get(&group).is_some_and(|seat| seat.attempt.is_some() || seat.wanted.is_some())
    }

    /// All that we hold, in order.
    pub fn holds(&self, now: Instant) -> impl Iterator<Item = (GroupId, &HeldClaim)> {
        self.all_held().filter(move |(_, held)| held.until > now)
    }

    fn all_held(&self) -> impl Iterator<Item = (GroupId, &HeldClaim)> {
        self.holding.iter().filter_map(|group| Some((*group, self.seats.get(group)?.held.as_ref()?)))
    }

    /// The groups of which our claim or our request may have changed since the last call.
    pub fn take_touched(&mut self) -> TouchedGroups {
        core::mem::take(&mut self.touched)
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first()
    }

    /// Must be called after every change of a seat: the lists of groups follow it.
    fn reindex(&mut self, group: GroupId) {
        let Some(seat) = self.seats.get(&group) else { return };
        seat.facts(self.me, self.generation, self.base).assert(group);
        self.touched.add(group);
        self.timers.set(group, seat.deadline());
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

    /// Begins to claim a group; also one that we hold, under a higher ballot. Does nothing while a lapsed claim is not
    /// released, or a ballot is under way.
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
        let stage = AttemptPhase::Prepare {
            ballot,
            again: now + self.retry,
            promises: BTreeMap::new(),
            refused: Vec::new(),
        };
        seat.attempt = Some(Attempt { until: now + self.lease.owner(), phase: stage });
        // A claim that is made again is not renewed by beats meanwhile: a voter that has promised a higher ballot grants
        // no lower one.
        if let Some(held) = &mut seat.held {
            held.listed_since = None;
        }
        self.calls.push(Call::Prepare(group, ballot));
    }

    /// Another member uses this ballot for the group: our next one will be higher.
    pub(super) fn saw(&mut self, group: GroupId, ballot: Ballot) {
        let seat = self.seats.entry(group).or_default();
        seat.round = seat.round.max(ballot.round);
    }

    /// A voter has promised our ballot. With a majority of promises, the claim is proposed.
    pub fn promised(
        &mut self,
        now: Instant,
        voters: &Voters,
        from: MemberIndex,
        group: GroupId,
        ballot: Ballot,
        report: VoterReport,
    ) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let Some(attempt) = &mut seat.attempt else { return };
        let AttemptPhase::Prepare { ballot: ours, promises, .. } = &mut attempt.phase else { return };
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
            // Another node owned it since we did: our clock stood still. The group runs here under an old epoch.
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
        attempt.phase = AttemptPhase::Propose(PendingWrite::new(claim.clone(), now, now + self.retry));
        self.calls.push(Call::Propose(group, claim));
        self.reindex(group);
    }

    /// A refusal of a prepare or of a proposal.
    pub fn refused(&mut self, now: Instant, voters: &Voters, from: MemberIndex, refusal: &ClaimRefusal) {
        let ClaimRefusal { group, ballot, promised, wait } = *refusal;
        let Some(seat) = self.seats.get_mut(&group) else { return };
        if !voters.contains(from) {
            return;
        }
        seat.round = seat.round.max(promised.round);
        if let Some(held) = seat.held.as_mut().filter(|held| held.claim.ballot == ballot) {
            // A write of ours at a ballot that was outbid: claim again above it, while the lease runs.
            if held.write.take().is_some() && seat.attempt.is_none() {
                seat.wanted = Some(held.claim.durable);
            }
            return self.reindex(group);
        }
        let refused = match seat.attempt.as_mut().map(|attempt| &mut attempt.phase) {
            Some(AttemptPhase::Prepare { ballot: ours, again, refused, .. }) if *ours == ballot => {
                // Asked again as soon as that grant ends, so that the next node in rank does not come first.
                if !wait.is_zero() {
                    *again = (*again).min(now + wait);
                }
                refused
            }
            Some(AttemptPhase::Propose(write)) if write.claim.ballot == ballot => &mut write.refused,
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

    /// The ballot has failed. While we hold the group under a lower one, it is claimed again.
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
        self.events.push_back(ClaimEvent::Refused(group, wait));
    }

    /// A voter has accepted our claim. With a majority, the group is ours, or the new version of its claim counts.
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
        let counts = |write: &mut PendingWrite| {
            if write.claim.ballot == ballot
                && rules::accept_is_of(version, write.claim.version)
                && voters.contains(from)
                && !write.accepted.contains(&from)
            {
                write.accepted.push(from);
            }
            voters.has_majority(&write.accepted)
        };
        if let Some(Attempt { phase: AttemptPhase::Propose(write), until }) = &mut seat.attempt
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
                self.events.push_back(ClaimEvent::Cleared(group, held.claim.unproved.len()));
            }
            self.clear_proved(now, group);
            self.reindex(group);
        }
    }

    /// A majority has accepted our proposal.
    fn gain(&mut self, now: Instant, group: GroupId) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let Some(Attempt { phase: AttemptPhase::Propose(write), .. }) = seat.attempt.take() else { return };
        let until = rules::lease_begins(write.sent, now) + self.lease.owner();
        let held_before = seat.held.take().filter(|held| held.until > now);
        let barred = seat.barred.is_some_and(|barred| write.claim.ballot < barred);
        if held_before.is_none() && (until <= now || barred) {
            // Too late, or we have promised another node not to start under it.
            seat.wanted = None;
            self.say_release(now, group, write.claim, None);
            self.events.push_back(ClaimEvent::Refused(group, Duration::ZERO));
            return;
        }
        seat.wanted = None;
        seat.pending_release = None;
        let epoch = held_before.as_ref().map_or(write.claim.ballot, |held| held.epoch);
        let is_new = held_before.is_none();
        let until = held_before.as_ref().map_or(until, |held| held.until.max(until));
        let proofs = held_before.map(|held| held.proofs).unwrap_or_default();
        let confirmed = Claim { version: 1, ..write.claim.clone() };
        let confirm = PendingWrite::new(confirmed.clone(), now, now + self.retry);
        if let Some(seat) = self.seats.get_mut(&group) {
            seat.held = Some(HeldClaim {
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
            self.events.push_back(ClaimEvent::Gained(group, epoch));
        }
    }

    // ---- renewing --------------------------------------------------------

    /// A beat is sent now. Returns the digest of the list that it stands for.
    pub fn beat(&mut self, now: Instant, sequence: u64) -> ClaimsDigest {
        for group in &self.holding {
            let Some(seat) = self.seats.get_mut(group) else { continue };
            let again = seat.attempt.is_some() || seat.wanted.is_some();
            if let Some(held) = seat.held.as_mut().filter(|held| held.claim.is_confirmed() && !again) {
                held.listed_since.get_or_insert(sequence);
            }
        }
        let last = self.beats.back().map(|beat| beat.sequence);
        assert!(last.is_none_or(|last| last < sequence), "a beat's number is used twice");
        self.beats.push_back(SentBeat { sequence, at: now });
        if self.beats.len() > BEATS_KEPT {
            self.beats.pop_front();
        }
        ClaimsDigest::of(self.list().map(|(group, claim)| (group, claim.ballot)))
    }

    /// The claims that are in the list now.
    pub fn list(&self) -> impl Iterator<Item = (GroupId, &Claim)> {
        let listed = self.all_held().filter(|(_, held)| held.listed_since.is_some());
        listed.map(|(group, held)| (group, &held.claim))
    }

    /// The list, for a voter that asks for it.
    pub(super) fn whole_list(&self) -> Vec<(GroupId, Claim)> {
        self.list().map(|(group, claim)| (group, claim.clone())).collect()
    }

    /// A voter's echo of a beat of ours. Disputed groups are claimed again whether the voter's votes count now or not.
    pub fn echoed(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        voters: &Voters,
        from: MemberIndex,
        echo: &BeatEcho,
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

    /// The newest beat that a majority granted extends the claims in its list, from the moment when it was sent.
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
                self.timers.set(*group, seat.deadline());
            }
        }
    }

    // ---- proofs ----------------------------------------------------------

    /// Something is proved of an earlier owner: the entries that it covers are cleared by one more write.
    pub fn prove(&mut self, now: Instant, group: GroupId, proof: Proof) {
        if let Some(held) = self.seats.get_mut(&group).and_then(|seat| seat.held.as_mut()) {
            // The same answer may come with each beat until it can be written.
            if !held.proofs.contains(&proof) {
                held.proofs.push(proof);
            }
            self.clear_proved(now, group);
            self.reindex(group);
        }
    }

    /// Clears the entries that are proved, but not while something is being written, and not while the claim is to be
    /// made again under a higher ballot. A version that was refused may have been accepted by some voters, and no version
    /// may come to mean two things.
    fn clear_proved(&mut self, now: Instant, group: GroupId) {
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
        let write = PendingWrite::new(claim, now, now + self.retry);
        if let Some(held) = self.seats.get_mut(&group).and_then(|seat| seat.held.as_mut()) {
            held.write = Some(write);
        }
    }

    /// The node that holds the group under `ballot` asks whether we run nothing of it. `running`: something of the group
    /// may run here. If the answer is yes, nothing will be started here under a lower ballot.
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

    /// Gives the claim back, held or lapsed. All of the group must be stopped, and its gate shut.
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
        let leaving = PendingRelease { claim, successor, again: now + self.retry, left: RELEASES - 1 };
        self.seats.entry(group).or_default().pending_release = Some(leaving);
    }

    /// Time has passed: leases end, and unanswered calls are repeated.
    pub fn tick(&mut self, now: Instant, ledger: &mut Ledger) {
        let mut groups: BTreeSet<GroupId> = self.timers.due(now).collect();
        groups.extend(&self.waiting);
        let most = self.calls.len() + REPEATED_MAX;
        for group in groups {
            self.expire(now, group);
            self.begin(now, ledger, group);
            self.repeat(now, group, self.calls.len() < most);
            self.reindex(group);
        }
        assert!(self.timers.first().is_none_or(|at| at > now), "something of a claim is due for ever");
    }

    fn expire(&mut self, now: Instant, group: GroupId) {
        let held = self.seats.get(&group).and_then(|seat| seat.held.as_ref());
        if held.is_some_and(|held| held.until <= now) {
            self.lose(group);
        }
    }

    /// Another node has this claim of the group. If it is confirmed and under a higher ballot than ours, it is the one
    /// that counts: our clock stood still, or both of us were in single-vote mode.
    pub(super) fn learn(&mut self, group: GroupId, claim: &Claim) {
        let held = self.seats.get(&group).and_then(|seat| seat.held.as_ref());
        if held.is_some_and(|held| rules::is_overtaken(held.claim.ballot, claim, self.me)) {
            self.lose(group);
            self.reindex(group);
        }
    }

    /// The group is not ours any more.
    fn lose(&mut self, group: GroupId) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let Some(held) = seat.held.take() else { return };
        seat.wanted = None;
        assert!(seat.lapsed.is_none(), "{group:?}: lost twice, and never released");
        let proposed = seat.attempt.take().and_then(Attempt::into_claim);
        seat.lapsed = Some(proposed.unwrap_or_else(|| held.write.map_or(held.claim, |write| write.claim)));
        self.events.push_back(ClaimEvent::Lost(group));
    }

    /// Repeats the calls that were not answered, or puts that off.
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
        let attempt = seat.attempt.as_mut().map(|attempt| match &mut attempt.phase {
            AttemptPhase::Prepare { ballot, again, .. } => (again, Call::Prepare(group, *ballot)),
            AttemptPhase::Propose(PendingWrite { claim, again, .. }) => {
                (again, Call::Propose(group, claim.clone()))
            }
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
        if let Some(leaving) = seat.pending_release.as_mut().filter(|leaving| leaving.again <= now) {
            leaving.again = now + retry;
            if may_say {
                leaving.left -= 1;
                self.calls.push(Call::Release(group, leaving.claim.clone(), leaving.successor));
            }
        }
        seat.pending_release.take_if(|leaving| leaving.left == 0);
        if give_up {
            self.fail(now, group, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::model::claim::DurableState;

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
        let mut ledger = Ledger::new(DurableState { ceiling: 10, ..DurableState::default() });
        sync(&mut ledger);
        let claimant = Claimant::new(MemberIndex(0), 1, LEASE, RETRY, &ledger);
        (claimant, ledger)
    }

    /// If all of them were repeated whenever answers are late, thousands of groups would drown the members that have to
    /// answer.
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
        let refusal = ClaimRefusal { group: GROUP, ballot, promised: OLD, wait };
        claimant.refused(now, &voters, MemberIndex(1), &refusal);
        assert_eq!(claimant.deadline(), Some(now + wait));
        claimant.tick(now + wait, &mut ledger);
        assert_eq!(claimant.take_calls(), vec![Call::Prepare(GROUP, ballot)]);
        assert_eq!(claimant.deadline(), Some(now + wait + RETRY), "and then as often as ever");
    }

    /// Found by a simulated cluster: a voter that had restarted refused the confirmation, the earlier owner answered, and
    /// version 1 was sent twice, of two claims. Voters that had accepted the first answered for the second, and granted
    /// nothing.
    #[test]
    fn no_version_of_a_claim_that_was_outbid_means_two_things() {
        let now = Instant::from_millis(1000);
        let voters = Voters { number: 1, members: (0..5).map(MemberIndex).collect() };
        let (mut claimant, mut ledger) = claimant();
        let others = [1, 2, 3].map(MemberIndex);

        let earlier = Claim { ballot: OLD, generation: 1, version: 1, durable: false, unproved: Vec::new() };
        let report = VoterReport { accepted: Some(earlier), released: false };
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
        let refusal = ClaimRefusal { group: GROUP, ballot: first, promised, wait: Duration::ZERO };
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

        // Claimed again above, the proved entry is cleared.
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
