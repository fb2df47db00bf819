//! Announcements of this node's claims to the gates of earlier owners, and which ballots of its own such announcements
//! may end. The packets are heard even where nothing of Locum can run (`docs/wire.md`, 12.9). They only speed things
//! up: nothing waits for them.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{GateLease, GroupIndex, Instant, NativeNode, NodeAction};
use crate::{
    claims::{ClaimMessage, Envelope, HeldClaim},
    model::{
        breakage::{self, Breakage},
        claim::Ballot,
        time::Duration,
    },
};

/// How long a claim is announced again with each beat while an earlier owner is not proved to have stopped.
const ANNOUNCE_MAX: Duration = Duration::from_secs(10);
/// Most ballots of our own that a group's gate knows: the owned one and the newest proposed since. If more were
/// proposed, a proof against one of the others is not accepted, and the gate stays open until the lease ends.
pub(super) const BALLOTS_MAX: usize = 6;

/// The claims that this node has announced.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    /// The last announced ballot of each group.
    ballots: BTreeMap<GroupIndex, Ballot>,
    /// The groups whose claim is announced again with each beat, and until when.
    again: BTreeMap<GroupIndex, Instant>,
}

impl NativeNode {
    /// Announces a claim when the group's gate has its lease: once for each ballot that opens it.
    pub(super) fn announce_new(&mut self, group: GroupIndex) {
        let Some(&Some(GateLease { ballot, .. })) = self.gates.get(&group) else { return };
        if self.announced.ballots.insert(group, ballot) != Some(ballot) {
            self.announced.again.insert(group, self.now + ANNOUNCE_MAX);
            self.announce(group, ballot);
        }
    }

    /// Announces claims again, with each beat: the first announcement may have been lost, and an earlier owner that
    /// does not run cannot be asked.
    pub(super) fn announce_again(&mut self) {
        let Announced { ballots, again } = &mut self.announced;
        // Drops expired entries, so that the beats do not walk over them for ever.
        again.retain(|_, until| self.now < *until);
        let is_open = |group: &GroupIndex| self.gates.get(group).is_some_and(Option::is_some);
        let due = again.keys().filter(|group| is_open(group));
        let due: Vec<_> = due.filter_map(|group| Some((*group, *ballots.get(group)?))).collect();
        due.into_iter().for_each(|(group, ballot)| self.announce(group, ballot));
    }

    /// Announces a claim to each earlier owner that may still answer clients, with the last ballot known of that owner.
    /// No proof of our own ballot is ever sent: with it anybody could shut our gate.
    fn announce(&mut self, group: GroupIndex, ballot: Ballot) {
        let held = self.member.claimant().and_then(|claimant| claimant.held(self.now, self.ids[group.0]));
        let Some(HeldClaim { claim, .. }) = held.filter(|held| held.claim.ballot == ballot) else { return };
        let earlier = claim.unproved.iter().filter(|entry| entry.node != self.me);
        let ended = earlier.map(|entry| NodeAction::Announce { group, ballot, ended: entry.ballot });
        self.announcements.extend(ended);
    }

    /// Gives the gate the ballots that are about to be proposed. Some voters may accept a proposal, and it may be all
    /// that a rival knows of us, so the gate must know it first.
    pub(super) fn expect_proposed(&mut self, envelopes: &[Envelope]) {
        if breakage::is(Breakage::ProposalNotExpected) {
            return;
        }
        let proposals = envelopes.iter().filter_map(|envelope| match &envelope.message {
            ClaimMessage::Propose(_, list) => Some(list),
            _ => None,
        });
        for (id, claim) in proposals.flatten() {
            let Some(&group) = self.index.get(id) else { continue };
            let held = self.member.claimant().and_then(|claimant| claimant.held(self.now, *id));
            let Some(owned) = held.map(|held| held.claim.ballot).filter(|owned| *owned < claim.ballot) else {
                continue;
            };
            self.expect_owned(group, owned);
            let ballots = self.expected.entry(group).or_default();
            if !ballots.contains(&claim.ballot) {
                if ballots.len() >= BALLOTS_MAX {
                    // The oldest of those that were only proposed.
                    ballots.remove(1);
                }
                ballots.push(claim.ballot);
                self.tell_expected(group);
            }
        }
    }

    /// Makes `owned` the first expected ballot. Older ballots are forgotten: nobody can own the group under them any
    /// more.
    pub(super) fn expect_owned(&mut self, group: GroupIndex, owned: Ballot) {
        let ballots = self.expected.entry(group).or_default();
        if ballots.first() != Some(&owned) {
            ballots.retain(|ballot| *ballot > owned);
            ballots.insert(0, owned);
            self.tell_expected(group);
        }
    }

    fn tell_expected(&mut self, group: GroupIndex) {
        let ballots = self.expected.get(&group).cloned().unwrap_or_default();
        self.out.push_back(NodeAction::Expect { group, ballots });
    }
}
