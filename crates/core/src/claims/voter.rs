//! One voter: what it has promised, accepted and granted, group by group. It decides nothing, but it never breaks a
//! promise. If it cannot keep one (it abstains after a restart, or a round or a lease is not on disk yet), it does not
//! answer at all, and the asker asks again.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{
    BeatEcho, ByGroup, ClaimBeat, ClaimsDigest, Ledger, TouchedGroups, invariants::RecordFacts, rules,
};
use crate::model::{
    claim::{Ballot, Claim, DurableState, GroupId, VoterReport},
    identity::MemberIndex,
    time::{Duration, Instant},
};

/// The most groups that one voter keeps. It bounds what a foreign cluster may cost a witness.
pub const GROUPS_MAX: usize = 4096;

/// Whether this voter may vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoterStanding {
    /// It has no file and does not know what it has promised. First it copies from a majority of the others.
    Blank,
    /// It abstains until then: before its restart it may have granted leases that run so long.
    Mute(Instant),
    /// It votes on every request.
    Voting,
    /// A write failed: it answers nothing until its daemon is started again.
    Broken,
}

/// What the voter keeps of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct VoterRecord {
    /// No ballot below this one is granted any more. Not below the floor, either.
    promised: Option<Ballot>,
    accepted: Option<Claim>,
    /// `accepted` was released, exactly this ballot: it is never granted or adopted again.
    released: bool,
    /// Until then, only the owner of `accepted` is promised anything.
    until: Instant,
    /// The owner does not list it (or not yet), so its beats do not renew it.
    unlisted: bool,
    /// `accepted` must be on disk to be granted, and is not known to be.
    unsynced: bool,
}

/// The claims that an owner lists in one of its generations, as this voter has them. Nothing here depends on the number
/// of groups: to grant a beat costs as much for a thousand of them as for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct OwnerList {
    digest: ClaimsDigest,
    groups: usize,
    /// Until when all of it is granted: claims in the list have no lease of their own.
    until: Instant,
}

/// The newest beat of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OwnerBeat {
    generation: u64,
    sequence: u64,
    digest: ClaimsDigest,
    lease: Duration,
    granted: bool,
    /// The groups of its list that we cannot grant, each with the ballot that stands against it.
    disputed: Vec<(GroupId, Ballot)>,
}

/// The answer of a voter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VoterAnswer {
    /// To a prepare: promised; this is what was accepted before.
    Promise(VoterReport),
    /// To a prepare or a propose: no.
    Refuse {
        /// The ballot that is promised.
        promised: Ballot,
        /// How long another owner's grant still runs.
        wait: Duration,
    },
    /// To a propose: accepted, and on disk where it must be.
    Accept,
}

/// The state of one voter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Voter {
    standing: VoterStanding,
    /// The promise for every group: above all that was promised before the daemon started.
    floor: Ballot,
    records: ByGroup<VoterRecord>,
    /// By owner and its generation. [`Voter::is_listed`] says which records belong to a list.
    lists: BTreeMap<(MemberIndex, u64), OwnerList>,
    heard: BTreeMap<MemberIndex, OwnerBeat>,
    /// Accepts that wait for the disk.
    unanswered: Vec<(GroupId, Ballot, u32)>,
    /// Only for a planted breakage: claims that count from the end of their write.
    late: Vec<(GroupId, Claim, Duration)>,
    /// What has changed since the last call of [`Self::take_touched`].
    touched: TouchedGroups,
}

impl Voter {
    /// The voter of a daemon that starts. `margin`: how far its clock may run ahead of an owner's within the longest
    /// lease. `blank`: it has no ledger from an earlier run, and has to copy first.
    #[must_use]
    pub fn new(now: Instant, ledger: &Ledger, margin: Duration, blank: bool) -> Self {
        let durable = ledger.synced();
        let standing = match blank {
            true => VoterStanding::Blank,
            false => VoterStanding::Mute(rules::votes_from(now, durable.longest_lease, margin)),
        };
        let mut voter = Self {
            standing,
            floor: Ballot::ZERO,
            records: BTreeMap::new(),
            lists: BTreeMap::new(),
            heard: BTreeMap::new(),
            unanswered: Vec::new(),
            late: Vec::new(),
            touched: TouchedGroups::default(),
        };
        voter.restore(durable, durable.ceiling);
        voter
    }

    /// Takes over the content of the file. Anything may have been promised up to this round.
    fn restore(&mut self, durable: &DurableState, round: u64) {
        self.floor = self.floor.max(rules::promised_to_all(round));
        for (group, report) in &durable.claims {
            self.change(*group, |record| {
                *record = VoterRecord {
                    accepted: report.accepted.clone(),
                    released: report.released,
                    ..VoterRecord::default()
                };
            });
        }
    }

    /// Whether it may vote at this time.
    #[must_use]
    pub fn standing(&self, now: Instant) -> VoterStanding {
        match self.standing {
            VoterStanding::Mute(until) if now >= until => VoterStanding::Voting,
            standing => standing,
        }
    }

    /// Until when it abstains; `None` if it does not abstain.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match self.standing {
            VoterStanding::Mute(until) => Some(until),
            VoterStanding::Blank | VoterStanding::Voting | VoterStanding::Broken => None,
        }
    }

    /// The memory of a majority of the others is copied and on disk. From here on it is as after a restart. Anything may
    /// have been promised up to this round.
    pub fn copied(&mut self, now: Instant, durable: &DurableState, round: u64, margin: Duration) {
        assert!(
            self.standing == VoterStanding::Blank,
            "a voter that remembers takes over what others remember"
        );
        self.restore(durable, round);
        self.standing = VoterStanding::Mute(rules::votes_from(now, durable.longest_lease, margin));
    }

    fn votes(&mut self, now: Instant) -> bool {
        self.standing = self.standing(now);
        self.standing == VoterStanding::Voting
    }

    fn promised(&self, record: &VoterRecord) -> Ballot {
        record.promised.map_or(self.floor, |promised| promised.max(self.floor))
    }

    fn facts(&self, record: &VoterRecord) -> RecordFacts {
        let accepted = record.accepted.as_ref().map(|claim| (claim.ballot, claim.version));
        RecordFacts { promised: self.promised(record), accepted, released: record.released }
    }

    /// The record of a group, unless there are too many.
    fn record(&self, group: GroupId) -> Option<VoterRecord> {
        match self.records.get(&group) {
            None if self.records.len() >= GROUPS_MAX => None,
            record => Some(record.cloned().unwrap_or_default()),
        }
    }

    /// Changes a record, unless there are too many. Every change goes through here, because the lists follow.
    fn change(&mut self, group: GroupId, change: impl FnOnce(&mut VoterRecord)) {
        let Some(mut record) = self.record(group) else { return };
        if let Some((owner, ballot)) = self.is_listed(&record)
            && let Some(list) = self.lists.get_mut(&owner)
        {
            assert!(list.groups > 0, "{group:?}: taken from a list that is empty");
            list.digest.remove(group, ballot);
            list.groups -= 1;
            assert!(list.groups > 0 || list.digest == ClaimsDigest::default(), "an empty list has a digest");
            record.until = list.until;
            if list.groups == 0 {
                self.lists.remove(&owner);
            }
        }
        let before = self.facts(&record);
        change(&mut record);
        self.facts(&record).assert_follows(before, group);
        if let Some((owner, ballot)) = self.is_listed(&record) {
            let list = self.lists.entry(owner).or_default();
            list.digest.add(group, ballot);
            list.groups += 1;
            // A list has one lease. A claim that joins it may get a longer one by that. It is no danger if a voter keeps
            // rivals off for longer.
            list.until = list.until.max(core::mem::take(&mut record.until));
        }
        self.records.insert(group, record);
        assert!(self.records.len() <= GROUPS_MAX, "more groups are kept than there may be");
        self.touched.add(group);
    }

    /// The groups of which something was promised, accepted or released since the last call.
    pub fn take_touched(&mut self) -> TouchedGroups {
        core::mem::take(&mut self.touched)
    }

    /// The list that a record belongs to, and its ballot. A record is in a list if its claim is confirmed and not
    /// released, no higher ballot is promised, and its node lists it.
    fn is_listed(&self, record: &VoterRecord) -> Option<((MemberIndex, u64), Ballot)> {
        let claim = record.accepted.as_ref()?;
        let grantable = claim.is_confirmed() && !record.released && self.promised(record) <= claim.ballot;
        (grantable && !record.unlisted && !record.unsynced)
            .then_some(((claim.owner(), claim.generation), claim.ballot))
    }

    /// Until when only the owner of the accepted claim is promised anything.
    fn until(&self, record: &VoterRecord) -> Instant {
        let list = self.is_listed(record).and_then(|(owner, _)| self.lists.get(&owner));
        list.map_or(record.until, |list| list.until)
    }

    /// The answer to `prepare`: may this ballot be proposed? `None` if it cannot answer now.
    pub fn prepare(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        group: GroupId,
        ballot: Ballot,
    ) -> Option<VoterAnswer> {
        if !self.votes(now) || !ledger.admits_round(ballot.round) {
            return None;
        }
        let record = self.record(group)?;
        let (promised, until) = (self.promised(&record), self.until(&record));
        let report = VoterReport { accepted: record.accepted.clone(), released: record.released };
        if record.promised == Some(ballot) {
            // A duplicate: answered again, changing nothing.
            return Some(VoterAnswer::Promise(report));
        }
        if ballot <= promised {
            return Some(VoterAnswer::Refuse { promised, wait: Duration::ZERO });
        }
        let accepted = record.accepted.as_ref();
        if rules::grant_blocks(accepted, record.released, until, now, ballot.node) {
            return Some(VoterAnswer::Refuse { promised, wait: until.since(now) });
        }
        let keeps_grant = rules::promise_keeps_grant(accepted, ballot.node);
        self.change(group, |record| {
            record.promised = Some(ballot);
            if !keeps_grant {
                record.until = Instant::ZERO;
            }
        });
        let promised = self.records.get(&group).map(|record| self.promised(record));
        assert!(promised == Some(ballot), "{group:?}: something else was promised than is said");
        Some(VoterAnswer::Promise(report))
    }

    /// The answer to `propose`: this claim, for a lease of this length from now on. `None` if it cannot answer now.
    pub fn propose(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        group: GroupId,
        claim: &Claim,
        lease: Duration,
    ) -> Option<VoterAnswer> {
        let admitted = ledger.admits_round(claim.ballot.round) & ledger.admits_lease(lease);
        if !self.votes(now) || !admitted {
            return None;
        }
        let record = self.record(group)?;
        let promised = self.promised(&record);
        if !rules::may_accept(claim.ballot, promised) {
            return Some(VoterAnswer::Refuse { promised, wait: Duration::ZERO });
        }
        let same = record.accepted.as_ref().filter(|accepted| accepted.ballot == claim.ballot);
        if same.is_some() && record.released {
            return Some(VoterAnswer::Refuse { promised, wait: Duration::ZERO });
        }
        let must_sync = rules::must_be_on_disk(claim);
        if must_sync && !rules::accept_counts_before_disk() {
            ledger.keep(group, VoterReport { accepted: Some(claim.clone()), released: false });
            self.late.push((group, claim.clone(), lease));
            return None;
        }
        if same.is_none_or(|same| same.version < claim.version) {
            self.accept(now, group, claim, lease);
            if must_sync {
                ledger.keep(group, VoterReport { accepted: Some(claim.clone()), released: false });
            }
        }
        if must_sync && !ledger.has(group, claim) {
            self.unanswered.push((group, claim.ballot, claim.version));
            return None;
        }
        Some(VoterAnswer::Accept)
    }

    /// From this moment on the claim blocks rivals and is reported, whether it is on disk or not.
    fn accept(&mut self, now: Instant, group: GroupId, claim: &Claim, lease: Duration) {
        self.change(group, |record| {
            record.promised = record.promised.max(Some(claim.ballot));
            record.accepted = Some(claim.clone());
            record.released &= !rules::accept_ends_release();
            record.unlisted = false;
            record.unsynced = claim.durable;
            record.until = record.until.max(now + lease);
        });
        let kept = self.records.get(&group).and_then(|record| record.accepted.as_ref());
        assert!(kept == Some(claim), "{group:?}: something else was accepted than is kept");
    }

    /// A write of the ledger has ended. Returns the accepts that it made durable, to be sent now. Only those count whose
    /// ballot is still the promise.
    pub fn written(&mut self, now: Instant, ledger: &Ledger) -> Vec<(GroupId, Ballot, u32)> {
        if ledger.has_failed() {
            self.standing = VoterStanding::Broken;
            self.unanswered.clear();
            return Vec::new();
        }
        assert!(self.standing != VoterStanding::Broken, "a voter whose write failed votes again");
        for (group, claim, lease) in core::mem::take(&mut self.late) {
            self.accept(now, group, &claim, lease);
            self.unanswered.push((group, claim.ballot, claim.version));
        }
        let on_disk = |(group, record): (&GroupId, &VoterRecord)| {
            let claim = record.accepted.as_ref().filter(|_| record.unsynced)?;
            ledger.has(*group, claim).then_some(*group)
        };
        let on_disk: Vec<GroupId> = self.records.iter().filter_map(on_disk).collect();
        on_disk.into_iter().for_each(|group| self.change(group, |record| record.unsynced = false));
        let (ready, waiting): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.unanswered).into_iter().partition(|(group, ballot, version)| {
                let accepted = self.records.get(group).and_then(|record| record.accepted.as_ref());
                accepted.is_none_or(|claim| {
                    claim.ballot != *ballot || claim.version > *version || ledger.has(*group, claim)
                })
            });
        self.unanswered = waiting;
        let late = !rules::accept_counts_before_disk();
        ready
            .into_iter()
            .filter(|(group, ballot, _)| {
                self.records.get(group).is_some_and(|record| record.promised == Some(*ballot) || late)
            })
            .collect()
    }

    /// `release`: the owner has stopped all that it ran under this claim. A voter that missed the accept notes it, too.
    /// It belongs to this ballot alone.
    pub fn release(&mut self, ledger: &mut Ledger, group: GroupId, claim: &Claim) {
        if matches!(self.standing, VoterStanding::Blank | VoterStanding::Broken) {
            return;
        }
        let Some(record) = self.record(group) else { return };
        let accepted = match record.accepted {
            Some(accepted) if accepted.ballot == claim.ballot && claim.version <= accepted.version => {
                accepted
            }
            Some(accepted) if !rules::release_ends(&accepted, claim) => return,
            Some(accepted) if accepted.ballot > claim.ballot => accepted,
            _ => claim.clone(),
        };
        if claim.durable {
            ledger.keep(group, VoterReport { accepted: Some(accepted.clone()), released: true });
        }
        self.change(group, |record| {
            record.accepted = Some(accepted);
            record.released = true;
            // Either the released claim is newer than the promise, or the promise is. In both cases nothing older comes
            // after.
            record.promised = record.promised.max(Some(claim.ballot));
        });
    }

    /// A node has started with this generation, and has swept what it left before. The claims of its earlier generations
    /// are released, each exactly as it stands here.
    pub fn swept(&mut self, ledger: &mut Ledger, owner: MemberIndex, generation: u64) {
        let left = |(group, record): (&GroupId, &VoterRecord)| {
            let claim = record.accepted.as_ref().filter(|_| !record.released)?;
            (claim.owner() == owner && claim.generation < generation).then(|| (*group, claim.clone()))
        };
        let left: Vec<(GroupId, Claim)> = self.records.iter().filter_map(left).collect();
        for (group, claim) in left {
            self.change(group, |record| record.released = true);
            if claim.durable {
                ledger.keep(group, VoterReport { accepted: Some(claim), released: true });
            }
        }
    }

    /// A beat of an owner: if its list is the same as ours, every claim in it is granted for another lease. Tells whether
    /// the list must be asked for.
    pub fn beat(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        owner: MemberIndex,
        generation: u64,
        beat: &ClaimBeat,
    ) -> bool {
        let ClaimBeat { sequence, digest, lease, .. } = *beat;
        let old = self.heard.get(&owner);
        if old.is_some_and(|old| (old.generation, old.sequence) >= (generation, sequence)) {
            return false;
        }
        let disputed = old.filter(|old| old.generation == generation && old.digest == digest);
        let disputed = disputed.map(|old| old.disputed.clone()).unwrap_or_default();
        self.heard.insert(owner, OwnerBeat { generation, sequence, digest, lease, granted: false, disputed });
        if !self.votes(now) || !ledger.admits_lease(lease) {
            return false;
        }
        !self.grant(now, owner)
    }

    /// Grants the newest beat of this owner if its list is the same as ours. Only the two digests are compared.
    fn grant(&mut self, now: Instant, owner: MemberIndex) -> bool {
        let Some(heard) = self.heard.get_mut(&owner) else { return false };
        let list = self.lists.get_mut(&(owner, heard.generation));
        if list.as_ref().map_or(ClaimsDigest::default(), |list| list.digest) != heard.digest {
            return false;
        }
        if let Some(list) = list {
            list.until = list.until.max(now + heard.lease);
        }
        assert!(!heard.granted, "a beat is granted twice");
        heard.granted = true;
        heard.disputed.clear();
        true
    }

    /// An owner's whole list, asked for because the digest of its beat was not ours. Claims that we missed are adopted,
    /// and those that we cannot grant are disputed. Claims that are not in it are not renewed by the owner's beats, but
    /// not ended either.
    pub fn list(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        owner: MemberIndex,
        generation: u64,
        entries: &[(GroupId, Claim)],
    ) {
        if !self.votes(now) || self.heard.get(&owner).is_none_or(|heard| heard.generation != generation) {
            return;
        }
        let listed: BTreeMap<GroupId, Ballot> =
            entries.iter().map(|(group, claim)| (*group, claim.ballot)).collect();
        let relisted = |(group, record): (&GroupId, &VoterRecord)| {
            let claim = record.accepted.as_ref().filter(|claim| claim.owner() == owner)?;
            let unlisted = listed.get(group) != Some(&claim.ballot);
            (record.unlisted != unlisted).then_some((*group, unlisted))
        };
        let relisted: Vec<(GroupId, bool)> = self.records.iter().filter_map(relisted).collect();
        relisted
            .into_iter()
            .for_each(|(group, unlisted)| self.change(group, |record| record.unlisted = unlisted));
        let mut disputed = Vec::new();
        for (group, claim) in entries {
            if claim.owner() != owner || claim.generation != generation || !claim.is_confirmed() {
                continue;
            }
            let admitted = ledger.admits_round(claim.ballot.round);
            let Some(record) = self.record(*group) else { continue };
            let promised = self.promised(&record);
            let accepted = record.accepted.as_ref();
            let is_same = accepted.is_some_and(|accepted| accepted.ballot == claim.ballot);
            if !admitted || promised > claim.ballot || (is_same && record.released) {
                disputed.push((*group, promised));
            } else if accepted.is_none_or(|accepted| {
                accepted.ballot < claim.ballot || (is_same && accepted.version < claim.version)
            }) {
                self.accept(now, *group, claim, Duration::ZERO);
                if claim.durable {
                    ledger.keep(*group, VoterReport { accepted: Some(claim.clone()), released: false });
                }
            }
        }
        if let Some(heard) = self.heard.get_mut(&owner) {
            heard.disputed = disputed;
        }
        if !self.heard.get(&owner).is_some_and(|heard| heard.granted) {
            self.grant(now, owner);
        }
    }

    /// The echo of an owner's newest beat.
    #[must_use]
    pub fn echo(&self, owner: MemberIndex) -> Option<BeatEcho> {
        let OwnerBeat { generation, sequence, granted, ref disputed, .. } = *self.heard.get(&owner)?;
        Some(BeatEcho { generation, sequence, granted, disputed: disputed.clone() })
    }

    /// All that it remembers, for a voter that has lost its file. `None` while its own memory cannot be relied on.
    pub fn copy(&mut self, now: Instant) -> Option<Vec<(GroupId, Ballot, VoterReport)>> {
        let standing = self.standing(now);
        if !matches!(standing, VoterStanding::Voting | VoterStanding::Mute(_)) {
            return None;
        }
        let of = |record: &VoterRecord| VoterReport {
            accepted: record.accepted.clone(),
            released: record.released,
        };
        let copies = self.records.iter().map(|(group, record)| (*group, self.promised(record), of(record)));
        Some(copies.collect())
    }

    /// The holder of this group, as far as known: the newest claim that this voter accepted and that was not released,
    /// and until when it keeps others away.
    #[must_use]
    pub fn holder(&self, group: GroupId) -> Option<(&Claim, Instant)> {
        let record = self.records.get(&group).filter(|record| !record.released)?;
        Some((record.accepted.as_ref()?, self.until(record)))
    }
}
