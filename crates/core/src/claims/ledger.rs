//! What a member must remember over a restart.

use super::{ByGroup, invariants, rules};
use crate::model::{
    claim::{Claim, DurableState, GroupId, VoterReport},
    time::Duration,
};

/// How many rounds the ceiling is moved ahead at once, so that it is seldom written.
pub const CEILING_STEP: u64 = 1024;

/// The file and what is on its way to it. Only one write is under way; changes made meanwhile go with the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// What is surely on disk.
    synced: DurableState,
    /// What should be on disk.
    wanted: DurableState,
    /// Whether `synced` and `wanted` may differ. Claims are many, and are not compared at every event.
    touched: bool,
    /// What is being written.
    writing: Option<DurableState>,
    /// A write failed: this member's promises cannot be relied on any more.
    failed: bool,
    /// There is no file. None is made before [`Self::adopt`]: after a restart it would be taken for a memory.
    blank: bool,
}

impl Ledger {
    /// As read from disk. The ceiling is moved ahead at once: the rounds of this run lie above those that the last one
    /// may have used.
    #[must_use]
    pub fn new(read: DurableState) -> Self {
        let ceiling = read.ceiling.saturating_add(CEILING_STEP);
        let wanted = DurableState { ceiling, ..read.clone() };
        Self { wanted, synced: read, touched: true, writing: None, failed: false, blank: false }
    }

    /// The ledger if there is no file, or if it belongs to another voter set (`other`). Of that set, the used rounds
    /// count.
    #[must_use]
    pub fn blank(other: Option<DurableState>) -> Self {
        let other = other.unwrap_or_default();
        Self { blank: true, ..Self::new(DurableState { claims: ByGroup::new(), ..other }) }
    }

    /// What is surely on disk.
    #[must_use]
    pub const fn synced(&self) -> &DurableState {
        &self.synced
    }

    /// Whether all that should be on disk is.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced == self.wanted
    }

    /// Whether a write has failed.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether this round may be promised or proposed. If not, the ceiling will be moved, and the asker has to ask again.
    pub fn admits_round(&mut self, round: u64) -> bool {
        // Early enough, so that an asker seldom has to wait for it.
        if round.saturating_add(CEILING_STEP / 2) > self.wanted.ceiling {
            self.wanted.ceiling = round.saturating_add(CEILING_STEP);
            self.touched = true;
        }
        assert!(self.wanted.ceiling >= self.synced.ceiling, "the ceiling is to fall");
        rules::round_is_covered(round, self.synced.ceiling)
    }

    /// Whether a lease of this length may be granted. If not, it will be written, and the asker has to ask again.
    pub fn admits_lease(&mut self, lease: Duration) -> bool {
        if lease > self.wanted.longest_lease {
            self.wanted.longest_lease = lease;
            self.touched = true;
        }
        lease <= self.synced.longest_lease
    }

    /// Remembers what a voter accepted. [`Self::has`] tells whether it is on disk.
    pub fn keep(&mut self, group: GroupId, report: VoterReport) {
        self.wanted.claims.insert(group, report);
        self.touched = true;
    }

    /// Whether this claim of the group, or a newer version of it, is on disk.
    #[must_use]
    pub fn has(&self, group: GroupId, claim: &Claim) -> bool {
        let kept = self.synced.claims.get(&group).and_then(|report| report.accepted.as_ref());
        kept.is_some_and(|kept| kept.ballot == claim.ballot && kept.version >= claim.version)
    }

    /// Takes over what a majority of the others remembers.
    pub fn adopt(&mut self, copied: DurableState) {
        self.blank = false;
        self.touched = true;
        self.wanted.ceiling = self.wanted.ceiling.max(copied.ceiling.saturating_add(CEILING_STEP));
        self.wanted.longest_lease = self.wanted.longest_lease.max(copied.longest_lease);
        assert!(self.wanted.ceiling >= self.synced.ceiling, "a copy lowers the ceiling");
        self.wanted.set = copied.set;
        self.wanted.claims = copied.claims;
    }

    /// The content to write now, if any. [`Self::written`] is the answer to it.
    pub fn poll(&mut self) -> Option<DurableState> {
        if self.failed || self.blank || self.writing.is_some() || !self.touched {
            return None;
        }
        self.touched = false;
        if self.is_synced() {
            return None;
        }
        assert!(!self.blank, "a file is made before it is known what was promised");
        self.writing = Some(self.wanted.clone());
        self.writing.clone()
    }

    /// The write that [`Self::poll`] gave has ended. `ok`: it is surely on disk.
    pub fn written(&mut self, ok: bool) {
        let Some(written) = self.writing.take() else { return };
        if ok {
            invariants::assert_disk_follows(&written, &self.synced);
            self.synced = written;
        } else {
            self.failed = true;
        }
    }
}
