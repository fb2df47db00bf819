//! Two voters and no third: of two, neither is a majority without the other, and who has lost the other would have to stop
//! what it owns. Where nothing is promised against that (guard `none`), the one that is left may *count alone*: its own vote
//! is a majority then.
//!
//! It never takes by that what its own vote has granted to the other: such a grant runs until the other has been silent for a
//! lease. Both count alone in a partition, and then both may own a group; when they hear each other again, the higher claim
//! stays (`Member::learn`).

use alloc::vec;

use super::Voters;
use crate::model::{
    identity::MemberIndex,
    time::{Duration, Instant},
};

/// When a voter of two counts alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Patience {
    /// So long after the sending of the last beat that the other one granted. Shorter than the lease as its owner counts it,
    /// so that no lease ends meanwhile.
    pub vote: Duration,
    /// Who was heard within so long and has not heard us is no reason: then it is we who are not heard, and what we have
    /// is for the other to take.
    pub word: Duration,
}

/// What one of two voters knows of the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Alone {
    patience: Patience,
    lease: Duration,
    other: MemberIndex,
    /// When anything of it was heard last; at first our birth.
    heard: Instant,
    /// In which of its lives.
    life: u64,
    /// Since when without a break, as far as what it says counts.
    hears_since: Option<Instant>,
    /// The last of our beats that it has heard: when that was sent.
    echoed: Option<Instant>,
    /// The last of our beats that it granted: when that was sent, and in which of its lives it said so.
    granted: Option<(Instant, u64)>,
    /// We vote since then.
    votes_since: Option<Instant>,
    /// We count alone: since when, and the last beat that was sent before.
    counts: Option<(Instant, u64)>,
    /// When [`Self::judge`] may come to something else by time alone.
    next: Option<Instant>,
}

impl Alone {
    /// Of one of these two voters, born now; of any other number nobody counts alone.
    pub(super) fn new(
        now: Instant,
        patience: Patience,
        lease: Duration,
        voters: &Voters,
        me: MemberIndex,
    ) -> Option<Self> {
        let other = match voters.members[..] {
            [one, other] if one == me => other,
            [other, one] if one == me => other,
            _ => return None,
        };
        let alone = Self {
            patience,
            lease,
            other,
            heard: now,
            life: 0,
            hears_since: None,
            echoed: None,
            granted: None,
            votes_since: None,
            counts: None,
            next: None,
        };
        Some(alone)
    }

    /// The other voter.
    pub(super) const fn other(&self) -> MemberIndex {
        self.other
    }

    /// Since when we count alone.
    pub(super) fn since(&self) -> Option<Instant> {
        self.counts.map(|(since, _)| since)
    }

    /// See `next`.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// It lives, in this life of it. `counts`: what it says does.
    pub(super) fn hear(&mut self, now: Instant, life: u64, counts: bool) {
        let is_new = self.is_unheard(now) || life > self.life;
        self.hears_since = self.hears_since.filter(|_| !is_new).or(Some(now)).filter(|_| counts);
        self.heard = now;
        self.life = self.life.max(life);
    }

    /// It has heard a beat of ours that was sent then, and perhaps granted it.
    pub(super) fn echoes(&mut self, beat: u64, sent: Instant, granted: bool) {
        self.echoed = self.echoed.max(Some(sent));
        if !granted {
            return;
        }
        if self.granted.is_none_or(|(last, _)| last < sent) {
            self.granted = Some((sent, self.life));
        }
        // One that was sent before would prove nothing: it may be late.
        if self.counts.is_some_and(|(_, last)| beat > last) {
            self.counts = None;
        }
    }

    /// So long we did not run ourselves: that silence was ours.
    pub(super) fn forgive(&mut self, now: Instant, pause: Duration) {
        self.heard = now.min(self.heard + pause);
    }

    fn is_unheard(&self, now: Instant) -> bool {
        now.since(self.heard) >= self.patience.word
    }

    /// Whether we count alone from now on. `votes`: our own vote is worth something. `beat`: our newest one.
    pub(super) fn judge(&mut self, now: Instant, votes: bool, beat: u64) -> bool {
        self.next = None;
        let hears_us = self.echoed.is_some_and(|sent| now.since(sent) < self.patience.vote);
        if !votes {
            (self.votes_since, self.counts) = (None, None);
            return false;
        }
        let votes_since = *self.votes_since.get_or_insert(now);
        // We hear it well, and it does not hear us: the cable came back one way.
        let hears_well = self.hears_since.is_some_and(|since| now.since(since) >= self.lease);
        let is_deaf = !hears_us && hears_well && !self.is_unheard(now);
        if self.counts.is_some() {
            self.counts = self.counts.filter(|_| !is_deaf);
            return self.counts.is_some();
        }
        let (granted, life) =
            self.granted.map_or((votes_since, None), |(sent, life)| (sent.max(votes_since), Some(life)));
        let (missed, unheard) = (granted + self.patience.vote, self.heard + self.patience.word);
        // It is silent; or it hears us and does not vote: it is mute, blank, or its disk is broken; or it has begun a new
        // life, which votes for nobody yet and runs nothing.
        let has_no_vote = hears_us || (!is_deaf && life.is_some_and(|life| life < self.life));
        if now >= missed && (has_no_vote || now >= unheard) {
            self.counts = Some((now, beat));
            return true;
        }
        self.next = Some(if now < missed { missed } else { unheard });
        false
    }
}

/// Whose votes count for who counts alone.
pub(super) fn only(me: MemberIndex, voters: &Voters) -> Voters {
    Voters { number: voters.number, members: vec![me] }
}
