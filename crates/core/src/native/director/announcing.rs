//! Proofs: what the announcements of claims carry (`docs/wire.md`, 12.9), and what the gates of this node expect of others'.

use super::*;
use crate::{
    action::{Announcement, CLAIM_PROOFS_MAX},
    claims::GroupId,
};

/// Before all that a proof is made over: no frame begins so, and no stamp of one is a proof.
pub(super) const ENDED: &[u8] = b"locum ownership ended\0";

impl Director {
    /// With every key that is accepted: in a roll-over nobody knows with which the rival signs.
    pub(super) fn tell_proofs(&mut self, group: GroupIndex) {
        let mut proofs = Vec::new();
        for ballot in self.expected.get(&group).into_iter().flatten() {
            if let Some(subject) = self.ended(group, *ballot) {
                proofs.extend(self.keys.claim_proofs([ENDED, &subject]));
            }
        }
        proofs.truncate(CLAIM_PROOFS_MAX);
        self.out.push_back(Action::Proofs { group, proofs });
    }

    pub(super) fn announce(&mut self, group: GroupIndex, ballot: Ballot, ended: Ballot) {
        let members = self.wire.members();
        let (owner, who) = (members.id(ballot.node), members.id(ended.node));
        if let (Some(owner), Some(who), Some(subject)) = (owner, who, self.ended(group, ended)) {
            let proof = self.keys.claim_proof([ENDED, &subject]);
            let announcement = Announcement { ended: who, owner, round: ballot.round, proof };
            self.out.push_back(Action::AnnounceClaim { group, announcement });
        }
    }

    /// What is proved of an ownership: cluster and group by their numbers, the owner by its id, its ballot's round. Nothing in
    /// it depends on the order of anybody's file.
    pub(super) fn ended(&self, group: GroupIndex, ballot: Ballot) -> Option<[u8; 28]> {
        let owner = self.wire.members().id(ballot.node)?;
        let mut subject = [0; 28];
        subject[..8].copy_from_slice(&GroupId::of(&self.plan.cluster).0.to_be_bytes());
        subject[8..16].copy_from_slice(&self.node.id(group).0.to_be_bytes());
        subject[16..20].copy_from_slice(&owner.0.to_be_bytes());
        subject[20..].copy_from_slice(&ballot.round.to_be_bytes());
        Some(subject)
    }
}
