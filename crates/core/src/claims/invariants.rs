//! What holds after every change of the claims, whatever comes from outside. Checked in release builds, too: a violation is a
//! fault of Locum, and then the daemon ends, so that its gates close, before it acts on a wrong state.
//!
//! Each check costs no more than the change that it follows.

use super::{HeldClaim, Voters, rules};
use crate::model::{
    claim::{Ballot, Claim, DurableState, GroupId},
    identity::MemberIndex,
};

/// What is kept of one group by its claimant.
pub(super) struct SeatFacts<'a> {
    pub(super) me: MemberIndex,
    pub(super) generation: u64,
    /// The highest round that was seen or used.
    pub(super) round: u64,
    pub(super) held: Option<&'a HeldClaim>,
    /// What is being written over `held`.
    pub(super) write: Option<&'a Claim>,
    /// The ballot that is on its way to a claim.
    pub(super) attempt: Option<Ballot>,
    pub(super) is_wanted: bool,
    pub(super) lapsed: Option<&'a Claim>,
}

impl SeatFacts<'_> {
    pub(super) fn assert(&self, group: GroupId) {
        let Self { me, generation, round, held, write, attempt, is_wanted, lapsed } = *self;
        if let Some(ballot) = attempt {
            assert!(ballot.node == me, "{group:?}: a ballot of another member is under way");
            assert!(ballot.round <= round, "{group:?}: a round may be used twice");
        }
        if let Some(held) = held {
            assert!(held.claim.owner() == me, "{group:?}: the claim of another member is held");
            assert!(held.claim.generation == generation, "{group:?}: a claim of an earlier run is held");
            assert!(held.epoch <= held.claim.ballot, "{group:?}: the epoch is above the ballot");
            assert!(held.claim.ballot.round <= round, "{group:?}: the round of the held claim was forgotten");
            assert!(
                attempt.is_none_or(|ballot| ballot > held.claim.ballot),
                "{group:?}: claimed again, but not under a higher ballot"
            );
        }
        if let (Some(held), Some(write)) = (held, write) {
            assert!(write.ballot == held.claim.ballot, "{group:?}: a version of another claim is written");
            assert!(
                write.version == held.claim.version + 1,
                "{group:?}: a version is left out, or means two things"
            );
            assert!(
                write.unproved.len() <= held.claim.unproved.len(),
                "{group:?}: an earlier owner was added to a claim that is held"
            );
        }
        if let Some(lapsed) = lapsed {
            assert!(lapsed.owner() == me, "{group:?}: the claim of another member has lapsed");
            assert!(
                held.is_none() && attempt.is_none() && !is_wanted,
                "{group:?}: claimed before what ran under the lapsed claim was stopped and released"
            );
        }
    }
}

/// What a voter keeps of one group.
#[derive(Clone, Copy)]
pub(super) struct RecordFacts {
    pub(super) promised: Ballot,
    /// The ballot and the version of the claim.
    pub(super) accepted: Option<(Ballot, u32)>,
    pub(super) released: bool,
}

impl RecordFacts {
    /// After a change from `before`.
    pub(super) fn assert_follows(&self, before: Self, group: GroupId) {
        assert!(self.promised >= before.promised, "{group:?}: a promise was taken back");
        assert!(
            self.accepted.is_some() || !self.released,
            "{group:?}: nothing was accepted, and it is released"
        );
        let Some((was, older)) = before.accepted else { return };
        let Some((is, newer)) = self.accepted else { panic!("{group:?}: what was accepted is forgotten") };
        if !rules::accept_counts_before_disk() {
            return;
        }
        assert!(rules::may_accept(is, was), "{group:?}: an older claim replaces a newer one");
        if is == was {
            assert!(newer >= older, "{group:?}: an older version of a claim replaces a newer one");
            let goes_on = self.released || !before.released || !rules::accept_ends_release();
            assert!(goes_on, "{group:?}: a released claim is granted again");
        }
    }
}

/// What is on disk replaces what was there.
pub(super) fn assert_disk_follows(now: &DurableState, before: &DurableState) {
    assert!(now.ceiling >= before.ceiling, "the ceiling on disk fell");
    assert!(
        now.set != before.set || now.longest_lease >= before.longest_lease,
        "the longest lease on disk fell"
    );
}

/// Members whose votes count now, of all voters: all of them, or this member alone.
pub(super) fn assert_counted(counted: &Voters, voters: &Voters, me: MemberIndex) {
    assert!(counted.number == voters.number, "votes of another set are counted");
    assert!(
        counted.members == voters.members || (counted.members == [me] && voters.members.len() == 2),
        "votes are counted of neither all voters nor the only one of two"
    );
}
