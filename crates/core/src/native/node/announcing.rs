//! When the claims of this node are announced to the gates of others, in packets that are heard where nothing of Locum
//! can run (`docs/wire.md`, 12.9). A hint: nothing waits for it.

use alloc::vec::Vec;

use super::{GateLease, GroupIndex, Instant, Node, action::Action};
use crate::{
    claims::{Ballot, Held},
    time::Duration,
};

/// For so long a claim is announced again with each beat, as long as an earlier owner is not proved to have stopped.
const ANNOUNCE_MAX: Duration = Duration::from_secs(10);

/// One claim that was announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    ballot: Ballot,
    /// No more after this.
    until: Instant,
}

impl Node {
    /// The gates were told these leases: once for each ballot that opens one.
    pub(super) fn announce_new(&mut self) {
        let Self { gates, announced, hands, now, .. } = self;
        for (&group, lease) in gates.iter() {
            let Some(GateLease { ballot, .. }) = *lease else { continue };
            if announced.get(&group).is_none_or(|last| last.ballot != ballot) {
                announced.insert(group, Announced { ballot, until: *now + ANNOUNCE_MAX });
                hands.push_back(Action::AnnounceClaim { group, ballot });
            }
        }
    }

    /// With each beat: the first one may have been lost, and an earlier owner that stands still cannot be asked.
    pub(super) fn announce_again(&mut self) {
        let now = self.now;
        let claimant = self.member.claimant();
        let wants = |group: &GroupIndex, last: &Announced| {
            let held = claimant.and_then(|claimant| claimant.held(now, self.ids[group.0]));
            let is_open = self.gates.get(group).is_some_and(Option::is_some);
            let is_in_doubt =
                |held: &Held| held.claim.ballot == last.ballot && !held.claim.unproved.is_empty();
            is_open && held.is_some_and(is_in_doubt)
        };
        let due = self.announced.iter().filter(|(group, last)| now < last.until && wants(group, last));
        let due: Vec<Action> =
            due.map(|(&group, last)| Action::AnnounceClaim { group, ballot: last.ballot }).collect();
        self.hands.extend(due);
    }
}
