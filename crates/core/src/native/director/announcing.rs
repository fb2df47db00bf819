//! Proofs: what the announcements of claims carry (`docs/wire.md`, 12.9), and what the gates of this node expect of others'.

use super::*;
use crate::{
    model::action::{Announcement, CLAIM_PROOFS_MAX},
    native::wire::ended,
};

impl Director {
    /// With every key that is accepted: in a roll-over nobody knows with which the rival signs.
    pub(super) fn tell_proofs(&mut self, group: GroupIndex) {
        let mut proofs = Vec::new();
        for ballot in self.expected.get(&group).into_iter().flatten() {
            if let Some(subject) = self.ended(group, *ballot) {
                proofs.extend(self.reception.keys().claim_proofs([&subject[..]]));
            }
        }
        proofs.truncate(CLAIM_PROOFS_MAX);
        self.out.push_back(Action::Proofs { group, proofs });
    }

    pub(super) fn announce(&mut self, group: GroupIndex, ballot: Ballot, ended: Ballot) {
        let members = self.wire.members();
        let (owner, who) = (members.id(ballot.node), members.id(ended.node));
        if let (Some(owner), Some(who), Some(subject)) = (owner, who, self.ended(group, ended)) {
            let proof = self.reception.keys().claim_proof([&subject[..]]);
            let announcement = Announcement { ended: who, owner, round: ballot.round, proof };
            self.out.push_back(Action::AnnounceClaim { group, announcement });
        }
    }

    /// What is proved when the owner of that ballot owns the group no more; nothing of who is no member.
    pub(super) fn ended(&self, group: GroupIndex, ballot: Ballot) -> Option<[u8; ended::BYTES]> {
        let owner = self.wire.members().id(ballot.node)?;
        Some(ended::ended(&self.plan.cluster, self.node.id(group), owner, ballot.round))
    }
}
