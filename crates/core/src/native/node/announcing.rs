//! When the claims of this node are announced to the gates of others, in packets that are heard where nothing of Locum
//! can run (`docs/wire.md`, 12.9), and which ballots of its own such packets may end. A hint: nothing waits for it.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{Action, GateLease, GroupIndex, Instant, Node};
use crate::{
    claims::{Envelope, Held, Message},
    model::{
        breakage::{self, Breakage},
        claim::Ballot,
        time::Duration,
    },
};

/// For so long a claim is announced again with each beat, as long as an earlier owner is not proved to have stopped.
const ANNOUNCE_MAX: Duration = Duration::from_secs(10);
/// So many of our own ballots of a group are known to its gate: the owned one and the newest of those proposed since.
/// Where more were proposed, a rival that met one of the others is not heard, and the lease ends what it would have.
pub(super) const BALLOTS_MAX: usize = 6;

/// The claims that were announced.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    /// The last one of each group.
    ballots: BTreeMap<GroupIndex, Ballot>,
    /// Those that are announced again, and until when.
    again: BTreeMap<GroupIndex, Instant>,
}

impl Node {
    /// The group's gate was told its lease: once for each ballot that opens it.
    pub(super) fn announce_new(&mut self, group: GroupIndex) {
        let Some(&Some(GateLease { ballot, .. })) = self.gates.get(&group) else { return };
        if self.announced.ballots.insert(group, ballot) != Some(ballot) {
            self.announced.again.insert(group, self.now + ANNOUNCE_MAX);
            self.announce(group, ballot);
        }
    }

    /// With each beat: the first one may have been lost, and an earlier owner that stands still cannot be asked.
    pub(super) fn announce_again(&mut self) {
        let Announced { ballots, again } = &mut self.announced;
        // Long after it nobody looks at them with each beat.
        again.retain(|_, until| self.now < *until);
        let is_open = |group: &GroupIndex| self.gates.get(group).is_some_and(Option::is_some);
        let due = again.keys().filter(|group| is_open(group));
        let due: Vec<_> = due.filter_map(|group| Some((*group, *ballots.get(group)?))).collect();
        due.into_iter().for_each(|(group, ballot)| self.announce(group, ballot));
    }

    /// To each earlier owner that may still answer, under the last ballot that is known of it. Our own is never told: it is
    /// what keeps our gate from being shut.
    fn announce(&mut self, group: GroupIndex, ballot: Ballot) {
        let held = self.member.claimant().and_then(|claimant| claimant.held(self.now, self.ids[group.0]));
        let Some(Held { claim, .. }) = held.filter(|held| held.claim.ballot == ballot) else { return };
        let earlier = claim.unproved.iter().filter(|entry| entry.node != self.me);
        let ended = earlier.map(|entry| Action::Announce { group, ballot, ended: entry.ballot });
        self.announcements.extend(ended);
    }

    /// What is about to be said may be accepted by some, and be all that a rival knows of us: it is told to the gate first.
    pub(super) fn expect_proposed(&mut self, envelopes: &[Envelope]) {
        if breakage::is(Breakage::ProposalNotExpected) {
            return;
        }
        let proposals = envelopes.iter().filter_map(|envelope| match &envelope.message {
            Message::Propose(_, list) => Some(list),
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

    /// Under this ballot the group is ours: what was proposed before it can be nothing to anybody.
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
        self.out.push_back(Action::Expect { group, ballots });
    }
}
