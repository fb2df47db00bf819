//! Single-vote mode, for two voters without a third. Of two, neither is a majority without the other, and a node that has
//! lost the other would have to stop what it owns. If the groups have guard `none`, the node that is left may enter
//! *single-vote mode*: then its own vote is a majority.
//!
//! In this mode it never takes what its own vote has granted to the other: such a grant runs until the other has been
//! silent for a lease. In a partition both nodes enter the mode, and then both may own a group. When they hear each other
//! again, the higher claim stays (`Member::learn`).

use alloc::vec;

use super::Voters;
use crate::model::{
    identity::MemberIndex,
    time::{Duration, Instant},
};

/// When one of two voters enters single-vote mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SingleVoteTiming {
    /// How long after it sent the last beat that the other one granted. Shorter than the lease as its owner counts it, so
    /// that no lease ends meanwhile.
    pub vote: Duration,
    /// The other one is not silent if it was heard within this time. If it does not hear us, then we are not heard, and
    /// the other may take what we have.
    pub silence: Duration,
}

/// What one of two voters knows of the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SingleVote {
    timing: SingleVoteTiming,
    lease: Duration,
    other: MemberIndex,
    /// When it was heard last; at first, when we started.
    heard: Instant,
    /// The highest generation in which it was heard.
    generation: u64,
    /// Since when it is heard without a break, in messages that count.
    hears_since: Option<Instant>,
    /// When the last of our beats that it has heard was sent.
    echoed: Option<Instant>,
    /// When the last of our beats that it granted was sent, and in which of its generations it said so.
    granted: Option<(Instant, u64)>,
    /// Since when we vote.
    votes_since: Option<Instant>,
    /// Set in single-vote mode: since when, and the last beat that was sent before.
    counts: Option<(Instant, u64)>,
    /// When [`Self::update`] may come to another result by time alone.
    next: Option<Instant>,
}

impl SingleVote {
    /// For one of these two voters, which starts now; `None` if there are more or fewer voters.
    pub(super) fn new(
        now: Instant,
        patience: SingleVoteTiming,
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
            timing: patience,
            lease,
            other,
            heard: now,
            generation: 0,
            hears_since: None,
            echoed: None,
            granted: None,
            votes_since: None,
            counts: None,
            next: None,
        };
        Some(alone)
    }

    pub(super) const fn other(&self) -> MemberIndex {
        self.other
    }

    /// Since when we are in single-vote mode.
    pub(super) fn since(&self) -> Option<Instant> {
        self.counts.map(|(since, _)| since)
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// It is alive, in this generation. `counts`: whether its messages count.
    pub(super) fn hear(&mut self, now: Instant, generation: u64, counts: bool) {
        let is_new = self.is_unheard(now) || generation > self.generation;
        self.hears_since = self.hears_since.filter(|_| !is_new).or(Some(now)).filter(|_| counts);
        self.heard = now;
        self.generation = self.generation.max(generation);
    }

    /// It has heard a beat of ours that was sent at `sent`, and perhaps granted it.
    pub(super) fn echoes(&mut self, beat: u64, sent: Instant, granted: bool) {
        self.echoed = self.echoed.max(Some(sent));
        if !granted {
            return;
        }
        if self.granted.is_none_or(|(last, _)| last < sent) {
            self.granted = Some((sent, self.generation));
        }
        // A beat that was sent before would prove nothing: its echo may be late.
        if self.counts.is_some_and(|(_, last)| beat > last) {
            self.counts = None;
        }
    }

    /// We did not run for `pause` ourselves: that silence was ours.
    pub(super) fn forgive(&mut self, now: Instant, pause: Duration) {
        self.heard = now.min(self.heard + pause);
    }

    fn is_unheard(&self, now: Instant) -> bool {
        now.since(self.heard) >= self.timing.silence
    }

    /// Whether we are in single-vote mode from now on. `votes`: whether our own vote counts. `beat`: our newest beat.
    pub(super) fn update(&mut self, now: Instant, votes: bool, beat: u64) -> bool {
        self.next = None;
        let hears_us = self.echoed.is_some_and(|sent| now.since(sent) < self.timing.vote);
        if !votes {
            (self.votes_since, self.counts) = (None, None);
            return false;
        }
        let votes_since = *self.votes_since.get_or_insert(now);
        // We hear it well, and it does not hear us: the cable works one way only.
        let hears_well = self.hears_since.is_some_and(|since| now.since(since) >= self.lease);
        let is_deaf = !hears_us && hears_well && !self.is_unheard(now);
        if self.counts.is_some() {
            self.counts = self.counts.filter(|_| !is_deaf);
            return self.counts.is_some();
        }
        let (granted, life) =
            self.granted.map_or((votes_since, None), |(sent, life)| (sent.max(votes_since), Some(life)));
        let (missed, unheard) = (granted + self.timing.vote, self.heard + self.timing.silence);
        // It is silent. Or it hears us and does not vote: it abstains after a restart, is blank, or its disk is broken.
        // Or it has started again: then it votes for nobody yet and runs nothing.
        let has_no_vote = hears_us || (!is_deaf && life.is_some_and(|life| life < self.generation));
        if now >= missed && (has_no_vote || now >= unheard) {
            self.counts = Some((now, beat));
            return true;
        }
        self.next = Some(if now < missed { missed } else { unheard });
        false
    }
}

/// The voters that count in single-vote mode: ourselves.
pub(super) fn only(me: MemberIndex, voters: &Voters) -> Voters {
    Voters { number: voters.number, members: vec![me] }
}
