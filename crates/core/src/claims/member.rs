//! The claims of one member of the cluster: a node that claims, a voter, or both. Messages come in, messages go out. The
//! driver writes to disk for it and reports that as an event. A message to all goes to the member itself, too: its own
//! vote is a vote like any other.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec,
    vec::Vec,
};

use super::{
    ByGroup, ClaimEvent, Claimant, ClaimsDigest, Lease, Ledger, Proof, TouchedGroups, Voter, VoterAnswer,
    VoterStanding, Voters,
    claimant::Call,
    invariants,
    message::{BeatEcho, ClaimBeat, ClaimMessage, ClaimRefusal, Envelope, Receivers, VoterCopy, VoterMemory},
    rules,
    single_vote::{self, SingleVote, SingleVoteTiming},
};
use crate::model::{
    claim::{Ballot, Claim, DurableState, GroupId, VoterReport},
    identity::MemberIndex,
    time::{Duration, Instant},
};

/// In how many beats a new run says that it has swept. A member that misses all of them waits for the old run's leases.
const SWEPT_BEATS: u64 = 3;

/// The settings with which a member starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimSettings {
    /// Which member it is.
    pub me: MemberIndex,
    /// Which start of its daemon this is.
    pub generation: u64,
    pub voters: Voters,
    /// For how long ownership is granted.
    pub lease: Lease,
    /// The time after which an unanswered message is sent again.
    pub retry: Duration,
    /// Whether it may claim: a witness may not.
    pub claims: bool,
    /// When it may enter single-vote mode, if there is exactly one other voter. Then nothing protects from an owner that
    /// lives and is not heard, so only for groups with guard `none`.
    pub single_vote: Option<SingleVoteTiming>,
}

/// What the layer above must know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimNotice {
    /// A report on our own claims.
    Own(ClaimEvent),
    /// A group was released by its owner; perhaps for a certain member.
    Released(GroupId, Ballot, Option<MemberIndex>),
}

/// What is known of another member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct ClaimPeer {
    generation: u64,
    sequence: u64,
    memory: Option<VoterMemory>,
    /// Our newest beat that it has heard.
    echoed: u64,
    /// The claims that it lists as its own, as of `list_digest`.
    list: ByGroup<Claim>,
    list_digest: ClaimsDigest,
    copied: Option<VoterCopy>,
}

/// Whether we know what earlier runs of this daemon promised and proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum MemoryState {
    /// There is no file.
    Lost,
    /// There is no file, and every other voter was heard to be blank since we started. The cluster is new.
    Founding,
    /// A copy is on its way to the disk; up to this round anything may have been promised or proposed.
    Adopting(u64),
    /// All of it is known.
    Good,
}

/// The state of one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimMember {
    settings: ClaimSettings,
    /// The voters that count now: all of them, or only ourselves in single-vote mode.
    counted: Voters,
    /// Only for a node that is one of two voters and may enter single-vote mode.
    single_vote: Option<SingleVote>,
    ledger: Ledger,
    voter: Option<Voter>,
    claimant: Option<Claimant>,
    peers: BTreeMap<MemberIndex, ClaimPeer>,
    sequence: u64,
    /// When our newest beats were sent, for [`Self::is_heard`].
    sent: VecDeque<(u64, Instant)>,
    /// The groups that may run here, as the layer above says.
    running: BTreeSet<GroupId>,
    memory: MemoryState,
    out: Vec<Envelope>,
    notices: VecDeque<ClaimNotice>,
    /// Changes in what others list as theirs.
    touched: TouchedGroups,
}

impl ClaimMember {
    /// The member of a daemon that starts. `read`: the content of the file; `None` if there is none, or none that belongs
    /// to this cluster. Promises from another voter set do not count in this one: the new set begins when all its voters
    /// are there, or by a copy.
    #[must_use]
    pub fn new(now: Instant, settings: ClaimSettings, read: Option<DurableState>) -> Self {
        let blank = !rules::remembers(read.as_ref().map(|read| read.set), settings.voters.number);
        let ledger = if blank { Ledger::blank(read) } else { Ledger::new(read.unwrap_or_default()) };
        let votes = settings.voters.contains(settings.me);
        let voter = votes.then(|| Voter::new(now, &ledger, settings.lease.margin, blank));
        let claimant = settings.claims.then(|| {
            Claimant::new(settings.me, settings.generation, settings.lease, settings.retry, &ledger)
        });
        let alone = settings.single_vote.filter(|_| settings.claims).and_then(|patience| {
            SingleVote::new(now, patience, settings.lease.length, &settings.voters, settings.me)
        });
        Self {
            counted: settings.voters.clone(),
            single_vote: alone,
            settings,
            ledger,
            voter,
            claimant,
            peers: BTreeMap::new(),
            sequence: 0,
            sent: VecDeque::new(),
            running: BTreeSet::new(),
            memory: if blank { MemoryState::Lost } else { MemoryState::Good },
            out: Vec::new(),
            notices: VecDeque::new(),
            touched: TouchedGroups::default(),
        }
    }

    // ---- what comes out --------------------------------------------------

    /// The messages to send, oldest first.
    pub fn take_out(&mut self) -> Vec<Envelope> {
        core::mem::take(&mut self.out)
    }

    /// The next notice, oldest first.
    pub fn poll(&mut self) -> Option<ClaimNotice> {
        self.notices.pop_front()
    }

    /// The content to write now, if any; answered by [`Self::written`].
    pub fn write(&mut self) -> Option<DurableState> {
        self.ledger.poll()
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let claims = self.claimant.as_ref().and_then(Claimant::deadline);
        claims.into_iter().chain(self.single_vote.as_ref().and_then(SingleVote::deadline)).min()
    }

    /// The settings with which it started.
    #[must_use]
    pub const fn settings(&self) -> &ClaimSettings {
        &self.settings
    }

    /// Its ledger: what is on disk, and on its way there.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether it may vote; `None` if it is not a voter.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Option<VoterStanding> {
        self.voter.as_ref().map(|voter| voter.standing(now))
    }

    /// Its voter, if it is one.
    #[must_use]
    pub const fn voter(&self) -> Option<&Voter> {
        self.voter.as_ref()
    }

    /// Its claims, if it may claim.
    #[must_use]
    pub const fn claimant(&self) -> Option<&Claimant> {
        self.claimant.as_ref()
    }

    /// The groups whose owner, or our request for them, may have changed since the last call.
    pub fn take_touched(&mut self) -> TouchedGroups {
        let mut touched = core::mem::take(&mut self.touched);
        touched.take_in(self.claimant.as_mut().map(Claimant::take_touched).unwrap_or_default());
        touched.take_in(self.voter.as_mut().map(Voter::take_touched).unwrap_or_default());
        touched
    }

    /// The newest claim of this group in the lists of the others.
    #[must_use]
    pub fn owner_elsewhere(&self, group: GroupId) -> Option<&Claim> {
        self.peers.values().filter_map(|peer| peer.list.get(&group)).max_by_key(|claim| claim.ballot)
    }

    /// Whether a majority of voters has heard a beat of ours that is younger than a lease. A node that is not heard must
    /// not claim.
    #[must_use]
    pub fn is_heard(&self, now: Instant) -> bool {
        let Some(oldest) = self.oldest_that_counts(now) else { return false };
        let voters = &self.counted;
        voters.has_majority(voters.members.iter().filter(|voter| self.has_echoed(oldest, **voter)))
    }

    /// Since when this member is in single-vote mode: its own vote is a majority, because the only other voter is silent
    /// or does not vote.
    #[must_use]
    pub fn single_vote_since(&self) -> Option<Instant> {
        self.single_vote.as_ref().and_then(SingleVote::since)
    }

    /// Whether [`Self::claim`] would do anything: a majority hears us, and we know what earlier runs of this daemon
    /// proposed.
    #[must_use]
    pub fn may_claim(&self, now: Instant) -> bool {
        self.memory == MemoryState::Good && self.is_heard(now)
    }

    /// Whether `member` has heard a beat of ours that is younger than a lease, and we have heard it say so. Only for
    /// members that exchange echoes with us ([`Self::echoes`]).
    #[must_use]
    pub fn is_heard_by(&self, now: Instant, member: MemberIndex) -> bool {
        self.oldest_that_counts(now).is_some_and(|oldest| self.has_echoed(oldest, member))
    }

    /// Whether this member and we echo each other's beats: at least one of us votes. Between others an echo would count
    /// for nothing, and with many nodes that do not vote most messages would be such echoes.
    #[must_use]
    pub fn echoes(&self, member: MemberIndex) -> bool {
        self.voter.is_some() || self.settings.voters.contains(member)
    }

    /// The oldest of our beats that is younger than a lease.
    fn oldest_that_counts(&self, now: Instant) -> Option<u64> {
        let is_young = |(_, at): &&(u64, Instant)| now.since(*at) < self.settings.lease.length;
        self.sent.iter().find(is_young).map(|(sequence, _)| *sequence)
    }

    fn has_echoed(&self, beat: u64, member: MemberIndex) -> bool {
        member == self.settings.me || self.peers.get(&member).is_some_and(|peer| peer.echoed >= beat)
    }

    // ---- what is asked of it ---------------------------------------------

    /// Claims a group; see [`Claimant::claim`]. A member without memory claims nothing: it might use a ballot twice.
    pub fn claim(&mut self, now: Instant, group: GroupId, durable: bool) {
        if let Some(claimant) = self.claimant.as_mut().filter(|_| self.memory == MemoryState::Good) {
            claimant.claim(now, &mut self.ledger, group, durable);
        }
        self.settle(now);
    }

    /// Gives back a group that was stopped.
    pub fn release(&mut self, now: Instant, group: GroupId, successor: Option<MemberIndex>) {
        self.with_claimant(now, |claimant| claimant.release(now, group, successor));
    }

    /// Something is proved of an earlier owner.
    pub fn prove(&mut self, now: Instant, group: GroupId, proof: Proof) {
        self.with_claimant(now, |claimant| claimant.prove(now, group, proof));
    }

    /// Sets whether anything of a group may run here.
    pub fn set_running(&mut self, group: GroupId, runs: bool) {
        if runs {
            self.running.insert(group);
        } else {
            self.running.remove(&group);
        }
    }

    fn with_claimant(&mut self, now: Instant, change: impl FnOnce(&mut Claimant)) {
        if let Some(claimant) = &mut self.claimant {
            change(claimant);
        }
        self.settle(now);
    }

    /// The next beat, to be sent to all right now.
    pub fn beat(&mut self, now: Instant) -> ClaimBeat {
        self.tick(now);
        self.sequence += 1;
        let sequence = self.sequence;
        let last = self.sent.back().map(|(last, _)| *last);
        assert!(last.is_none_or(|last| last < sequence), "a beat's number is used twice");
        self.sent.push_back((sequence, now));
        self.sent.retain(|(_, at)| now.since(*at) < self.settings.lease.length);
        let digest = self.claimant.as_mut().map(|claimant| claimant.beat(now, sequence));
        let mut beat = ClaimBeat {
            sequence,
            digest: digest.unwrap_or_default(),
            lease: self.settings.lease.length,
            memory: self.announced_memory(),
            echoes: Vec::new(),
        };
        self.hear_own_beat(now, &beat);
        self.ask_the_unproved();
        if self.claimant.is_some() && !self.is_known_to_all_voters() {
            self.say(Receivers::All, ClaimMessage::Swept);
        }
        if matches!(self.memory, MemoryState::Lost | MemoryState::Founding) {
            self.say(Receivers::All, ClaimMessage::AskCopy);
        }
        self.settle(now);
        let echoed = self.peers.keys().filter(|peer| self.echoes(**peer));
        beat.echoes = echoed.filter_map(|peer| Some((*peer, self.echo(*peer)?))).collect();
        beat
    }

    /// Another member is alive, although its messages do not count.
    pub fn heard_uncounted(&mut self, now: Instant, member: MemberIndex, generation: u64) {
        if let Some(alone) = self.single_vote.as_mut().filter(|alone| alone.other() == member) {
            alone.hear(now, generation, false);
        }
    }

    /// We did not run for `pause` ourselves: the silence of others in that time was ours.
    pub fn forgive(&mut self, now: Instant, pause: Duration) {
        if let Some(alone) = &mut self.single_vote {
            alone.forgive(now, pause);
        }
    }

    /// Time has passed: leases end, and unanswered messages are repeated.
    pub fn tick(&mut self, now: Instant) {
        self.update_single_vote(now);
        if let Some(claimant) = &mut self.claimant {
            claimant.tick(now, &mut self.ledger);
        }
        self.settle(now);
    }

    /// The write that [`Self::write`] gave has ended.
    pub fn written(&mut self, now: Instant, ok: bool) {
        self.ledger.written(ok);
        let adopted = match self.memory {
            MemoryState::Adopting(round) if self.ledger.is_synced() => Some(round),
            _ => None,
        };
        if let Some(round) = adopted {
            assert!(!self.ledger.has_failed(), "a copy counts, and is not on disk");
            self.memory = MemoryState::Good;
            if let Some(claimant) = &mut self.claimant {
                claimant.start_above(round);
            }
        }
        if let Some(voter) = &mut self.voter {
            let answers = voter.written(now, &self.ledger);
            if let Some(round) = adopted {
                voter.copied(now, self.ledger.synced(), round, self.settings.lease.margin);
            }
            for (group, ballot, version) in answers {
                self.reply(now, ballot.node, ClaimMessage::Accept(vec![(group, ballot, version)]));
            }
        }
        self.tick(now);
    }

    // ---- what it hears ---------------------------------------------------

    /// A message came from another member, of this generation, with this number of its voter set.
    pub fn heard(
        &mut self,
        now: Instant,
        from: MemberIndex,
        generation: u64,
        set: u32,
        message: ClaimMessage,
    ) {
        if let Some(alone) = self.single_vote.as_mut().filter(|alone| alone.other() == from) {
            alone.hear(now, generation, true);
        }
        self.tick(now);
        let peer = self.peers.entry(from).or_default();
        if generation < peer.generation {
            return;
        }
        if generation > peer.generation {
            self.touched.groups.extend(peer.list.keys());
            *peer = ClaimPeer { generation, ..ClaimPeer::default() };
        }
        assert!(peer.generation == generation, "an earlier run of a member is heard");
        self.take(now, from, generation, set, message);
        self.settle(now);
    }

    fn take(&mut self, now: Instant, from: MemberIndex, generation: u64, set: u32, message: ClaimMessage) {
        let counts = rules::votes_count(set, self.settings.voters.number);
        match message {
            ClaimMessage::Beat(beat) => self.heard_beat(now, from, generation, counts, beat),
            ClaimMessage::Prepare(list) if counts => self.heard_prepare(now, from, &list),
            ClaimMessage::Propose(lease, list) if counts => self.heard_propose(now, from, lease, &list),
            ClaimMessage::Promise(list) if counts => {
                if let Some(claimant) = &mut self.claimant {
                    for (group, ballot, report) in list {
                        claimant.promised(now, &self.counted, from, group, ballot, report);
                    }
                }
            }
            ClaimMessage::Refuse(list) if counts => {
                if let Some(claimant) = &mut self.claimant {
                    for refusal in list {
                        claimant.refused(now, &self.counted, from, &refusal);
                    }
                }
            }
            ClaimMessage::Accept(list) if counts => {
                if let Some(claimant) = &mut self.claimant {
                    for (group, ballot, version) in list {
                        claimant.accepted(now, &self.counted, from, group, ballot, version);
                    }
                }
            }
            ClaimMessage::Release(list) => self.heard_release(now, from, list),
            ClaimMessage::Swept => self.heard_swept(now, from, generation),
            ClaimMessage::AskList => {
                let list = self.claimant.as_ref().map(Claimant::whole_list).unwrap_or_default();
                self.say(Receivers::One(from), ClaimMessage::List(list));
            }
            ClaimMessage::List(list) => self.heard_list(now, from, generation, list),
            ClaimMessage::Ask(list) => self.heard_ask(now, from, &list),
            ClaimMessage::Clear(list) => {
                for (group, ballot) in list {
                    self.prove_own(now, group, Proof::Answered { node: from, ballot });
                }
            }
            ClaimMessage::AskCopy if counts => {
                if let Some(groups) = self.voter.as_mut().and_then(|voter| voter.copy(now)) {
                    let DurableState { ceiling, longest_lease, .. } = *self.ledger.synced();
                    self.say(
                        Receivers::One(from),
                        ClaimMessage::Copy(VoterCopy { ceiling, longest_lease, groups }),
                    );
                }
            }
            ClaimMessage::Copy(copied) if counts => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.copied = Some(copied);
                }
            }
            // Votes of another set are no votes, and its memory does not count here.
            ClaimMessage::Prepare(_)
            | ClaimMessage::Propose(..)
            | ClaimMessage::Promise(_)
            | ClaimMessage::Refuse(_)
            | ClaimMessage::Accept(_)
            | ClaimMessage::AskCopy
            | ClaimMessage::Copy(_) => {}
        }
    }

    fn heard_beat(
        &mut self,
        now: Instant,
        from: MemberIndex,
        generation: u64,
        counts: bool,
        beat: ClaimBeat,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if beat.sequence <= peer.sequence {
            return;
        }
        peer.sequence = beat.sequence;
        peer.memory = Some(beat.memory).filter(|_| counts);
        let knows_list = beat.digest == peer.list_digest;
        let mut ask = !knows_list;
        if let Some(voter) = self.voter.as_mut().filter(|_| counts) {
            ask |= voter.beat(now, &mut self.ledger, from, generation, &beat);
        }
        if ask {
            self.say(Receivers::One(from), ClaimMessage::AskList);
        }
        let me = self.settings.me;
        for (_, mut echo) in beat.echoes.into_iter().filter(|(of, _)| *of == me) {
            // If both of us were in single-vote mode, the other may have the group. So a promise to its own ballot is
            // claimed above only when we know its list.
            if self.single_vote.is_some() && !knows_list {
                echo.disputed.retain(|(_, promised)| promised.node != from);
            }
            self.heard_echo(now, from, counts, &echo);
        }
    }

    fn heard_echo(&mut self, now: Instant, from: MemberIndex, counts: bool, echo: &BeatEcho) {
        if !rules::echo_is_of(echo.generation, self.settings.generation) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.echoed = peer.echoed.max(echo.sequence);
        }
        if let Some(alone) = self.single_vote.as_mut().filter(|alone| alone.other() == from)
            && let Some((_, sent)) = self.sent.iter().find(|(sequence, _)| *sequence == echo.sequence)
        {
            alone.echoes(echo.sequence, *sent, echo.granted);
            self.update_single_vote(now);
        }
        let counts = counts && self.settings.voters.contains(from);
        if let Some(claimant) = self.claimant.as_mut().filter(|_| counts) {
            claimant.echoed(now, &mut self.ledger, &self.counted, from, echo);
        }
    }

    fn hear_own_beat(&mut self, now: Instant, beat: &ClaimBeat) {
        let ClaimSettings { me, generation, .. } = self.settings;
        let Some(voter) = &mut self.voter else { return };
        if voter.beat(now, &mut self.ledger, me, generation, beat) {
            let list = self.claimant.as_ref().map(Claimant::whole_list).unwrap_or_default();
            voter.list(now, &mut self.ledger, me, generation, &list);
        }
        if let (Some(echo), Some(claimant)) = (voter.echo(me), &mut self.claimant) {
            claimant.echoed(now, &mut self.ledger, &self.counted, me, &echo);
        }
    }

    /// Our echo of a member's newest beat. A member that does not vote only says that it has heard it.
    fn echo(&self, of: MemberIndex) -> Option<BeatEcho> {
        let peer = self.peers.get(&of).filter(|peer| peer.sequence > 0)?;
        let ClaimPeer { generation, sequence, .. } = *peer;
        let voted = self.voter.as_ref().and_then(|voter| voter.echo(of));
        let heard = BeatEcho { generation, sequence, granted: false, disputed: Vec::new() };
        Some(voted.filter(|echo| (echo.generation, echo.sequence) == (generation, sequence)).unwrap_or(heard))
    }

    /// Another member uses this ballot: ours will be higher.
    fn saw(&mut self, group: GroupId, ballot: Ballot) {
        if let Some(claimant) = &mut self.claimant {
            claimant.saw(group, ballot);
        }
    }

    fn heard_prepare(&mut self, now: Instant, from: MemberIndex, list: &[(GroupId, Ballot)]) {
        list.iter().for_each(|(group, ballot)| self.saw(*group, *ballot));
        let Some(voter) = &mut self.voter else { return };
        let (mut promises, mut refusals) = (Vec::new(), Vec::new());
        for &(group, ballot) in list.iter().filter(|(_, ballot)| ballot.node == from) {
            match voter.prepare(now, &mut self.ledger, group, ballot) {
                Some(VoterAnswer::Promise(report)) => promises.push((group, ballot, report)),
                Some(VoterAnswer::Refuse { promised, wait }) => {
                    refusals.push(ClaimRefusal { group, ballot, promised, wait });
                }
                Some(VoterAnswer::Accept) | None => {}
            }
        }
        self.reply_lists(now, from, ClaimMessage::Promise(promises), ClaimMessage::Refuse(refusals));
    }

    fn heard_propose(&mut self, now: Instant, from: MemberIndex, lease: Duration, list: &[(GroupId, Claim)]) {
        let Some(voter) = &mut self.voter else { return };
        let (mut accepts, mut refusals) = (Vec::new(), Vec::new());
        for (group, claim) in list.iter().filter(|(_, claim)| claim.owner() == from) {
            match voter.propose(now, &mut self.ledger, *group, claim, lease) {
                Some(VoterAnswer::Accept) => accepts.push((*group, claim.ballot, claim.version)),
                Some(VoterAnswer::Refuse { promised, wait }) => {
                    refusals.push(ClaimRefusal { group: *group, ballot: claim.ballot, promised, wait });
                }
                Some(VoterAnswer::Promise(_)) | None => {}
            }
        }
        self.reply_lists(now, from, ClaimMessage::Accept(accepts), ClaimMessage::Refuse(refusals));
        let theirs = list.iter().filter(|(_, claim)| claim.owner() == from);
        theirs.for_each(|(group, claim)| self.learn(*group, claim));
    }

    fn heard_release(
        &mut self,
        now: Instant,
        from: MemberIndex,
        list: Vec<(GroupId, Claim, Option<MemberIndex>)>,
    ) {
        for (group, claim, successor) in list {
            if claim.owner() != from {
                continue;
            }
            self.saw(group, claim.ballot);
            if let Some(voter) = &mut self.voter {
                voter.release(&mut self.ledger, group, &claim);
            }
            self.prove_own(now, group, Proof::Released(claim.ballot));
            if let Some(peer) = self.peers.get_mut(&from)
                && peer.list.get(&group).is_some_and(|listed| listed.ballot <= claim.ballot)
            {
                peer.list.remove(&group);
                self.touched.add(group);
            }
            if from != self.settings.me {
                self.notices.push_back(ClaimNotice::Released(group, claim.ballot, successor));
            }
        }
    }

    fn heard_swept(&mut self, now: Instant, from: MemberIndex, generation: u64) {
        if let Some(voter) = &mut self.voter {
            voter.swept(&mut self.ledger, from, generation);
        }
        let groups: Vec<GroupId> =
            self.claimant.iter().flat_map(|claimant| claimant.holds(now)).map(|(group, _)| group).collect();
        for group in groups {
            self.prove_own(now, group, Proof::Swept { node: from, generation });
        }
    }

    fn heard_list(&mut self, now: Instant, from: MemberIndex, generation: u64, list: Vec<(GroupId, Claim)>) {
        if let Some(voter) = &mut self.voter {
            voter.list(now, &mut self.ledger, from, generation, &list);
        }
        let theirs = list.iter().filter(|(_, claim)| claim.owner() == from);
        theirs.for_each(|(group, claim)| self.learn(*group, claim));
        if let Some(peer) = self.peers.get_mut(&from) {
            self.touched.groups.extend(peer.list.keys());
            self.touched.groups.extend(list.iter().map(|(group, _)| *group));
            peer.list_digest = ClaimsDigest::of(list.iter().map(|(group, claim)| (*group, claim.ballot)));
            peer.list = list.into_iter().collect();
        }
    }

    fn heard_ask(&mut self, now: Instant, from: MemberIndex, list: &[(GroupId, Ballot)]) {
        let Some(claimant) = &mut self.claimant else { return };
        let running = &self.running;
        let clear: Vec<(GroupId, Ballot)> = list
            .iter()
            .copied()
            .filter(|(group, ballot)| {
                ballot.node == from && claimant.answer(now, *group, *ballot, running.contains(group))
            })
            .collect();
        if !clear.is_empty() {
            self.say(Receivers::One(from), ClaimMessage::Clear(clear));
        }
    }

    // ---- single-vote mode ------------------------------------------------

    /// Enters single-vote mode, or leaves it.
    fn update_single_vote(&mut self, now: Instant) {
        let votes = self.standing(now) == Some(VoterStanding::Voting);
        let Some(alone) = &mut self.single_vote else { return };
        let ClaimSettings { me, ref voters, .. } = self.settings;
        let counts = alone.update(now, votes, self.sequence);
        if counts == (self.counted.members.len() == 1) {
            return;
        }
        self.counted = if counts { single_vote::only(me, voters) } else { voters.clone() };
        invariants::assert_counted(&self.counted, voters, me);
        if let Some(claimant) = &mut self.claimant {
            // Our own grant is enough now, before any lease ends.
            claimant.extend(&self.counted);
        }
    }

    /// Another node has this claim.
    fn learn(&mut self, group: GroupId, claim: &Claim) {
        if let Some(claimant) = &mut self.claimant {
            claimant.learn(group, claim);
        }
    }

    // ---- small things ----------------------------------------------------

    fn prove_own(&mut self, now: Instant, group: GroupId, proof: Proof) {
        if let Some(claimant) = &mut self.claimant {
            claimant.prove(now, group, proof);
        }
    }

    /// Whether every voter has heard enough of our beats since we started to have heard that we swept.
    fn is_known_to_all_voters(&self) -> bool {
        let known = |voter: &MemberIndex| {
            *voter == self.settings.me || self.peers.get(voter).is_some_and(|peer| peer.echoed >= SWEPT_BEATS)
        };
        self.settings.voters.members.iter().all(known)
    }

    /// Asks every earlier owner that may still run something, with each beat, before any node thinks of fencing it.
    fn ask_the_unproved(&mut self) {
        let mut questions: BTreeMap<MemberIndex, Vec<(GroupId, Ballot)>> = BTreeMap::new();
        for (group, claim) in self.claimant.iter().flat_map(Claimant::list) {
            for entry in &claim.unproved {
                questions.entry(entry.node).or_default().push((group, claim.ballot));
            }
        }
        for (node, list) in questions {
            self.say(Receivers::One(node), ClaimMessage::Ask(list));
        }
    }

    /// What our beats say of our memory.
    const fn announced_memory(&self) -> VoterMemory {
        match self.memory {
            MemoryState::Lost => VoterMemory::Blank,
            MemoryState::Founding => VoterMemory::AllBlank,
            // Nothing was promised before the copy is on disk, and others need not wait for that.
            MemoryState::Adopting(_) | MemoryState::Good => VoterMemory::Good,
        }
    }

    /// A member without memory copies from a majority of the other voters. If no voter has one, there is nothing to copy.
    fn copy(&mut self) {
        if !matches!(self.memory, MemoryState::Lost | MemoryState::Founding) {
            return;
        }
        let me = self.settings.me;
        let others: Vec<&ClaimPeer> = self
            .settings
            .voters
            .members
            .iter()
            .filter(|voter| **voter != me)
            .filter_map(|voter| self.peers.get(voter))
            .collect();
        let all = others.len() + 1 == self.settings.voters.members.len();
        let is = |peer: &ClaimPeer, least: VoterMemory| peer.memory.is_some_and(|word| word >= least);
        let votes = self.voter.is_some();
        let all_blank = all
            && votes
            && others.iter().all(|peer| is(peer, VoterMemory::Blank) && !is(peer, VoterMemory::Good));
        // A member that was blank together with all others, and now meets one with a file, knows that all of them founded
        // the cluster.
        let founded = (all_blank && others.iter().all(|peer| is(peer, VoterMemory::AllBlank)))
            || (self.memory == MemoryState::Founding
                && others.iter().any(|peer| is(peer, VoterMemory::Good)));
        let copies: Vec<&VoterCopy> = others.iter().filter_map(|peer| peer.copied.as_ref()).collect();
        // Of two voters, the other one knows all that both have decided.
        let voters = &self.settings.voters;
        let there_are = voters.members.iter().filter(|voter| **voter != me).count();
        let copied = copies.len() >= voters.majority().min(there_are);
        if !copied && !founded {
            if all_blank {
                assert!(votes, "a cluster is founded by a member that does not vote");
                self.memory = MemoryState::Founding;
            }
            return;
        }
        let mut durable = DurableState {
            longest_lease: self.settings.lease.length,
            set: self.settings.voters.number,
            ..DurableState::default()
        };
        for copy in copies {
            durable.longest_lease = durable.longest_lease.max(copy.longest_lease);
            durable.ceiling = durable.ceiling.max(copy.ceiling);
            for (group, promised, report) in &copy.groups {
                durable.ceiling = durable.ceiling.max(promised.round);
                merge(durable.claims.entry(*group).or_default(), report);
            }
        }
        if copied {
            durable.ceiling = durable.ceiling.saturating_add(rules::rounds_above_a_copy());
        }
        self.memory = MemoryState::Adopting(durable.ceiling);
        self.ledger.adopt(durable);
    }

    fn reply_lists(&mut self, now: Instant, to: MemberIndex, yes: ClaimMessage, no: ClaimMessage) {
        for message in [yes, no] {
            let is_empty = match &message {
                ClaimMessage::Promise(list) => list.is_empty(),
                ClaimMessage::Refuse(list) => list.is_empty(),
                ClaimMessage::Accept(list) => list.is_empty(),
                _ => false,
            };
            if !is_empty {
                self.reply(now, to, message);
            }
        }
    }

    /// Sends a message to one member, which may be ourselves.
    fn reply(&mut self, now: Instant, to: MemberIndex, message: ClaimMessage) {
        if to == self.settings.me {
            self.take(now, to, self.settings.generation, self.settings.voters.number, message);
        } else {
            self.say(Receivers::One(to), message);
        }
    }

    fn say(&mut self, to: Receivers, message: ClaimMessage) {
        self.out.push(Envelope { to, message });
    }

    /// Sends the claimant's calls to all voters, our own included, many groups in one message.
    fn settle(&mut self, now: Instant) {
        loop {
            let calls = self.claimant.as_mut().map(Claimant::take_calls).unwrap_or_default();
            if calls.is_empty() {
                break;
            }
            let (mut prepares, mut proposes, mut releases) = (Vec::new(), Vec::new(), Vec::new());
            for call in calls {
                match call {
                    Call::Prepare(group, ballot) => prepares.push((group, ballot)),
                    Call::Propose(group, claim) => proposes.push((group, claim)),
                    Call::Release(group, claim, successor) => releases.push((group, claim, successor)),
                }
            }
            let ClaimSettings { me, generation, lease, .. } = self.settings;
            let set = self.settings.voters.number;
            let both = |member: &mut Self, message: ClaimMessage| {
                member.say(Receivers::All, message.clone());
                member.take(now, me, generation, set, message);
            };
            if !releases.is_empty() {
                both(self, ClaimMessage::Release(releases));
            }
            if !prepares.is_empty() {
                both(self, ClaimMessage::Prepare(prepares));
            }
            if !proposes.is_empty() {
                both(self, ClaimMessage::Propose(lease.length, proposes));
            }
        }
        if let Some(claimant) = &mut self.claimant {
            while let Some(news) = claimant.poll() {
                self.notices.push_back(ClaimNotice::Own(news));
            }
        }
        self.copy();
    }
}

/// Merges two reports of a group, for the memory of a majority: the newer claim, in its newest version, released if one
/// of them says so.
fn merge(into: &mut VoterReport, other: &VoterReport) {
    let Some(claim) = &other.accepted else { return };
    match &mut into.accepted {
        Some(ours) if ours.ballot > claim.ballot => {}
        Some(ours) if ours.ballot == claim.ballot => {
            into.released |= other.released;
            if claim.version > ours.version {
                *ours = claim.clone();
            }
        }
        ours => {
            *ours = Some(claim.clone());
            into.released = other.released;
        }
    }
}

#[cfg(test)]
mod tests;
