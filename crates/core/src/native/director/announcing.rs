//! Proofs: what announcements of claims carry (`docs/wire.md`, 12.9), and which proofs the gates of this node accept.

use super::*;
use crate::{model::action::CLAIM_PROOFS_MAX, native::wire::announcement};

impl NativeDirector {
    /// Gives the group's gate the proofs that end our ownership, by every accepted key. In a roll-over this node does
    /// not know which key a rival signs with.
    pub(super) fn tell_proofs(&mut self, group: GroupIndex) {
        let mut proofs = Vec::new();
        for ballot in self.expected.get(&group).into_iter().flatten() {
            if let Some(subject) = self.subject(group, *ballot) {
                let proved = announcement::proved(subject, ballot.round);
                proofs.extend(self.reception.keys().claim_proofs([&proved[..]]));
            }
        }
        proofs.truncate(CLAIM_PROOFS_MAX);
        self.out.push_back(Action::Proofs { group, proofs });
    }

    pub(super) fn announce(&mut self, group: GroupIndex, ballot: Ballot, ended: Ballot) {
        let owner = self.wire.members().id(ballot.node);
        if let (Some(owner), Some(subject)) = (owner, self.subject(group, ended)) {
            let proved = announcement::proved(subject, ended.round);
            let proof = self.reception.keys().claim_proof([&proved[..]]);
            let announcement = announcement::encode(subject, owner, ballot.round, proof);
            self.out.push_back(Action::AnnounceClaim { group, announcement });
        }
    }

    /// What is announced when the ownership under that ballot ends; `None` if its owner is not a member any more.
    pub(super) fn subject(
        &self,
        group: GroupIndex,
        ballot: Ballot,
    ) -> Option<[u8; announcement::SUBJECT_BYTES]> {
        let owner = self.wire.members().id(ballot.node)?;
        Some(announcement::subject(&self.plan.cluster, self.node.id(group), owner))
    }
}
