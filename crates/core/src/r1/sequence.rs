//! Reliable multicast over lossy links (wire reference, section 5): numbering, the history for retransmission,
//! the noticing of gaps, requests for what is missing, acknowledgements and replay protection.
//!
//! Two halves that do not know each other: [`SentHistory`] keeps our own messages, [`PeerSequence`] checks those of the peer.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::message::R1Message;
use crate::model::{
    breakage::{self, Breakage},
    identity::LastHeard,
    time::{Duration, Instant},
};

/// How many of our own messages are kept for retransmission.
pub const HISTORY: usize = 500;
/// Largest gap that is repaired; after a larger one everything before it is given up.
pub const GAP_MAX: u64 = 250;
/// After the peer was silent, at most this many of the missed frames are asked for.
pub const RECENT: u64 = 10;
/// Most numbers answered to one request.
pub const REXMIT_PER_REQUEST: usize = 50;
/// Most answers to requests in any second, to all senders: a forged or faulty peer cannot make us flood the links.
pub const REXMIT_PER_SECOND: usize = 100;
/// Most refusals among them. They have a limit of their own: old requests can be recorded and replayed, and must not
/// use up the answers that the peer needs.
pub const REFUSALS_PER_SECOND: usize = 10;
/// Shortest delay of a request after a gap: a sender's frames may arrive in swapped order.
pub const REXMIT_DELAY_MIN: Duration = Duration::from_millis(50);
/// One frame in this many is acknowledged.
pub const ACK_EVERY: u64 = 10;

/// What we sent: the counter, and the history from which it can be sent again.
#[derive(Debug, Default)]
pub struct SentHistory {
    last: u64,
    /// Oldest first, numbers without a gap.
    history: VecDeque<(R1Message, Option<Instant>)>,
    /// When frames were sent again in the last second; with the refusals never more than [`REXMIT_PER_SECOND`].
    answered: VecDeque<Instant>,
    /// When requests were refused in the last second: never more than [`REFUSALS_PER_SECOND`].
    refused: VecDeque<Instant>,
}

/// An answer to a request for retransmission.
#[derive(Debug, PartialEq, Eq)]
pub enum RexmitAnswer {
    /// Send this message again.
    Send(Box<R1Message>),
    /// Say that this number is no longer available, with heartbeat's reason.
    Refuse(u64, &'static str),
}

impl SentHistory {
    /// Takes the number for the next message.
    pub const fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The newest number taken so far.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Keeps a numbered message for retransmission.
    pub fn keep(&mut self, message: R1Message) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((message, None));
    }

    /// Answers a request for the numbers `first` to `last`: at most [`REXMIT_PER_REQUEST`], at most
    /// [`REXMIT_PER_SECOND`] in all, none twice within `pause`. Acknowledged messages are sent again, too: an
    /// acknowledgement may be a recording, and a peer does not ask for messages it has.
    pub fn again(&mut self, now: Instant, first: u64, last: u64, pause: Duration) -> Vec<RexmitAnswer> {
        let mut answers = Vec::new();
        let lowest = self.last + 1 - self.history.len() as u64;
        for seq in (first.max(1)..=last).take(REXMIT_PER_REQUEST) {
            if seq > self.last {
                break;
            }
            let refusal = match seq {
                // The real daemon cannot send its newest frame again either; a peer asks only after a later one came.
                _ if seq == self.last => Some("seqno not found"),
                _ if seq < lowest => Some("seqno too low"),
                _ => None,
            };
            if let Some(reason) = refusal {
                if spend(&mut self.refused, REFUSALS_PER_SECOND, now) {
                    answers.push(RexmitAnswer::Refuse(seq, reason));
                }
                continue;
            }
            let index = usize::try_from(seq - lowest).unwrap_or(usize::MAX);
            if let Some((message, sent)) = self.history.get_mut(index) {
                if sent.is_some_and(|at| now < at + pause) {
                    continue;
                }
                if !spend(&mut self.answered, REXMIT_PER_SECOND - REFUSALS_PER_SECOND, now) {
                    break;
                }
                *sent = Some(now);
                answers.push(RexmitAnswer::Send(Box::new(message.clone())));
            }
        }
        answers
    }
}

/// Counts one more answer, unless there were `most` of them in the last second.
fn spend(answers: &mut VecDeque<Instant>, most: usize, now: Instant) -> bool {
    while answers.front().is_some_and(|&at| now >= at + Duration::from_secs(1)) {
        answers.pop_front();
    }
    let may = answers.len() < most;
    if may {
        answers.push_back(now);
    }
    may
}

/// The result of checking a frame's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberVerdict {
    /// New. `lost` numbers were skipped before it and will be asked for.
    New { lost: u64 },
    /// New, after a gap too large to repair.
    NewAfterFlood,
    /// New, and it fills a gap.
    Late {
        /// Whether nothing is missing any more.
        closed: bool,
    },
    /// The newest one again (it came over another link).
    Duplicate,
    /// Already known, or given up long ago.
    Old,
}

/// A request for this number is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RexmitRequest(pub u64);

/// State of reception from the peer: its generation, the newest number, the missing ones.
#[derive(Debug)]
pub struct PeerSequence {
    /// The highest generation heard, also before our own restart.
    generation: Option<u64>,
    /// The highest number heard of that generation before our own restart.
    before: u64,
    /// Whether a frame of that generation was accepted since our start.
    met: bool,
    last: u64,
    missing: BTreeMap<u64, Missing>,
    /// The last digit of the numbers that are acknowledged.
    ack_digit: u64,
    ack_due: Option<u64>,
    /// Requests left in the second that began at `second`.
    budget: usize,
    second: Instant,
    /// The peer was silent: only the end of what it sent meanwhile is asked for.
    was_silent: bool,
}

/// A number that was skipped.
#[derive(Clone, Copy, Debug)]
struct Missing {
    noticed: Instant,
    /// When to ask for it.
    ask: Instant,
}

/// The result of checking a frame's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationVerdict {
    /// Lower than one heard before, or heard before our own restart: a replay, or a machine whose state went back in
    /// time.
    Replayed {
        /// The highest generation known.
        known: u64,
    },
    /// The generation that we know.
    Same,
    /// The first generation heard since our start.
    First,
    /// Higher than the one known since our start: the peer has restarted.
    Restarted,
}

impl PeerSequence {
    /// `remembered` is what was heard before our own restart; `random` spreads the acknowledgements.
    #[must_use]
    pub fn new(remembered: Option<LastHeard>, random: u64) -> Self {
        Self {
            generation: remembered.map(|heard| heard.generation),
            before: remembered.map_or(0, |heard| heard.number),
            met: false,
            last: 0,
            missing: BTreeMap::new(),
            ack_digit: random % ACK_EVERY,
            ack_due: None,
            budget: REXMIT_PER_SECOND,
            second: Instant::ZERO,
            was_silent: false,
        }
    }

    /// The highest generation heard.
    #[must_use]
    pub const fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// The newest number heard.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The newest heard, also before our own restart.
    #[must_use]
    pub fn heard(&self) -> Option<LastHeard> {
        let number = if self.met { self.last } else { self.before };
        self.generation.map(|generation| LastHeard { generation, number })
    }

    /// Checks a frame's generation. For the first frame of a generation known from before our restart, it also checks
    /// the number. Changes nothing.
    #[must_use]
    pub fn check_generation(&self, generation: u64, seq: u64) -> GenerationVerdict {
        match self.generation {
            Some(known) if generation == known && !self.met && seq <= self.before => {
                GenerationVerdict::Replayed { known }
            }
            Some(known) if generation < known && !breakage::is(Breakage::OldGenerationAccepted) => {
                GenerationVerdict::Replayed { known }
            }
            Some(known) if generation == known && self.met => GenerationVerdict::Same,
            Some(_) if self.met => GenerationVerdict::Restarted,
            _ => GenerationVerdict::First,
        }
    }

    /// Begins a new generation of the peer (only a status frame may do so): sequence state is forgotten.
    pub fn begin(&mut self, generation: u64) {
        self.generation = Some(generation);
        self.met = true;
        self.last = 0;
        self.missing.clear();
        self.ack_due = None;
        self.was_silent = false;
    }

    /// Checks a number and records it. `random` (any value) spreads the first request between [`REXMIT_DELAY_MIN`] and
    /// `delay_max`.
    pub fn number(&mut self, now: Instant, seq: u64, delay_max: Duration, random: u64) -> NumberVerdict {
        if self.last == 0 || self.last.checked_add(1) == Some(seq) {
            self.last = seq;
            self.acknowledge(seq);
            return NumberVerdict::New { lost: 0 };
        }
        if seq == self.last {
            return NumberVerdict::Duplicate;
        }
        if seq < self.last {
            if self.missing.remove(&seq).is_none() {
                return NumberVerdict::Old;
            }
            let closed = self.missing.is_empty();
            if closed {
                // The newest acknowledgeable number below the closed gap.
                let over = (self.last % ACK_EVERY + ACK_EVERY - self.ack_digit) % ACK_EVERY;
                self.acknowledge(self.last.saturating_sub(over));
            }
            return NumberVerdict::Late { closed };
        }
        let lost = seq - self.last - 1;
        let mut first = self.last + 1;
        self.last = seq;
        if core::mem::take(&mut self.was_silent) {
            // A thousand beats of a partition are worthless now, and would all be sent again at once.
            first = first.max(seq.saturating_sub(RECENT));
        } else if lost > GAP_MAX || self.missing.len() as u64 + lost > GAP_MAX {
            self.missing.clear();
            return NumberVerdict::NewAfterFlood;
        }
        let spread = delay_max.saturating_sub(REXMIT_DELAY_MIN).as_millis().max(1);
        for number in first..seq {
            let wait = u64::try_from(u128::from(random.wrapping_add(number)) % spread).unwrap_or(0);
            let floor = if delay_max < REXMIT_DELAY_MIN * 2 { Duration::ZERO } else { REXMIT_DELAY_MIN };
            let ask = now + floor + Duration::from_millis(wait);
            self.missing.insert(number, Missing { noticed: now, ask });
        }
        NumberVerdict::New { lost }
    }

    fn acknowledge(&mut self, seq: u64) {
        if seq != 0 && seq % ACK_EVERY == self.ack_digit && !self.misses_before(seq) {
            self.ack_due = Some(seq);
        }
    }

    /// Whether a message sent before this number is missing.
    #[must_use]
    pub fn misses_before(&self, seq: u64) -> bool {
        self.missing.first_key_value().is_some_and(|(&first, _)| first < seq)
    }

    /// The number to acknowledge now; returned once.
    pub const fn take_ack(&mut self) -> Option<u64> {
        self.ack_due.take()
    }

    /// The peer cannot send this number again. Returns whether it was missing.
    pub fn give_up(&mut self, seq: u64) -> bool {
        self.missing.remove(&seq).is_some()
    }

    /// The next request that is due; it is repeated after `delay_max` until the frame arrives. The number of requests
    /// per second does not exceed the answers that the peer allows.
    pub fn ask(&mut self, now: Instant, delay_max: Duration) -> Option<RexmitRequest> {
        if now >= self.second + Duration::from_secs(1) {
            (self.second, self.budget) = (now, REXMIT_PER_SECOND);
        }
        let next_second = self.second + Duration::from_secs(1);
        for missing in self.missing.values_mut().filter(|missing| self.budget == 0 && now >= missing.ask) {
            missing.ask = next_second;
        }
        let (&seq, missing) = self.missing.iter_mut().find(|(_, missing)| now >= missing.ask)?;
        self.budget -= 1;
        missing.ask = now + delay_max.max(Duration::from_millis(1));
        Some(RexmitRequest(seq))
    }

    /// Gives up the numbers that were missing for `patience` (the peer may not hear us) and returns how many those are.
    pub fn give_up_old(&mut self, now: Instant, patience: Duration) -> usize {
        let before = self.missing.len();
        self.missing.retain(|_, missing| now < missing.noticed + patience);
        before - self.missing.len()
    }

    /// The peer is silent: stop asking. Generation and newest number are kept, so that a recording cannot bring it
    /// back.
    pub fn stop_asking(&mut self) {
        self.missing.clear();
        self.ack_due = None;
        self.was_silent = true;
    }

    /// When [`Self::ask`] next has a request.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.missing.values().map(|missing| missing.ask).min()
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::{super::message::Body, *};

    const T: Instant = Instant::from_millis(1000);
    const DELAY: Duration = Duration::from_millis(250);

    fn received() -> PeerSequence {
        let mut peer = PeerSequence::new(None, 3);
        peer.begin(7);
        peer
    }

    #[test]
    fn numbers_at_both_ends_do_no_harm() {
        for digit in 0..ACK_EVERY {
            let mut peer = PeerSequence::new(None, digit);
            peer.begin(7);
            for seq in [1, 3, 2, u64::MAX - 1, u64::MAX, u64::MAX, 0, 5, u64::MAX - 2] {
                peer.number(T, seq, DELAY, 1);
            }
            assert_eq!(peer.number(T, u64::MAX, DELAY, 0), NumberVerdict::Duplicate);
        }
    }

    #[test]
    fn gaps_are_noticed_asked_for_and_closed() {
        let mut peer = received();
        assert_eq!(peer.number(T, 1, DELAY, 0), NumberVerdict::New { lost: 0 });
        assert_eq!(peer.number(T, 4, DELAY, 0), NumberVerdict::New { lost: 2 });
        assert_eq!(peer.ask(T, DELAY), None, "a swapped frame gets 50 ms to arrive by itself");
        let later = T + DELAY;
        assert_eq!(peer.ask(later, DELAY), Some(RexmitRequest(2)));
        assert_eq!(peer.ask(later, DELAY), Some(RexmitRequest(3)));
        assert_eq!(peer.ask(later, DELAY), None);
        assert_eq!(peer.number(later, 3, DELAY, 0), NumberVerdict::Late { closed: false });
        assert_eq!(peer.number(later, 3, DELAY, 0), NumberVerdict::Old);
        assert_eq!(peer.ask(later + DELAY, DELAY), Some(RexmitRequest(2)), "asked again until it comes");
        assert_eq!(peer.number(later, 2, DELAY, 0), NumberVerdict::Late { closed: true });
        assert_eq!(peer.deadline(), None);
        assert_eq!(peer.number(later, 4, DELAY, 0), NumberVerdict::Duplicate);
    }

    #[test]
    fn a_flood_of_losses_is_forgotten() {
        let mut peer = received();
        peer.number(T, 1, DELAY, 0);
        assert_eq!(peer.number(T, GAP_MAX + 3, DELAY, 0), NumberVerdict::NewAfterFlood);
        assert_eq!(peer.deadline(), None);
        assert_eq!(peer.number(T, GAP_MAX + 4, DELAY, 0), NumberVerdict::New { lost: 0 });
    }

    #[test]
    fn every_tenth_in_order_frame_is_acknowledged() {
        let mut peer = received();
        let acked: Vec<u64> = (1..=25)
            .filter_map(|seq| {
                peer.number(T, seq, DELAY, 0);
                peer.take_ack()
            })
            .collect();
        assert_eq!(acked, [3, 13, 23]);
        peer.number(T, 27, DELAY, 0);
        peer.number(T, 33, DELAY, 0);
        assert_eq!(peer.take_ack(), None, "nothing is acknowledged over a gap");
        for seq in [26, 28, 29, 30, 31, 32] {
            peer.number(T, seq, DELAY, 0);
        }
        assert_eq!(peer.take_ack(), Some(33), "but when it closes");
    }

    #[test]
    fn generations_only_grow() {
        let before = LastHeard { generation: 5, number: 9 };
        let mut peer = PeerSequence::new(Some(before), 0);
        assert_eq!(peer.check_generation(4, 99), GenerationVerdict::Replayed { known: 5 });
        assert_eq!(
            peer.check_generation(5, 9),
            GenerationVerdict::Replayed { known: 5 },
            "heard before our restart"
        );
        assert_eq!(
            (peer.heard(), peer.check_generation(5, 10)),
            (Some(before), GenerationVerdict::First),
            "it may have run all along"
        );
        peer.begin(5);
        peer.number(T, 10, DELAY, 0);
        assert_eq!(peer.heard(), Some(LastHeard { generation: 5, number: 10 }));
        assert_eq!(
            (peer.check_generation(5, 9), peer.check_generation(6, 1)),
            (GenerationVerdict::Same, GenerationVerdict::Restarted)
        );
    }

    fn sent(count: u64) -> SentHistory {
        let mut sent = SentHistory::default();
        for _ in 0..count {
            let seq = sent.next();
            let mut message = R1Message::new(Body::Starting, String::from("a"));
            message.seq = Some(seq);
            sent.keep(message);
        }
        sent
    }

    #[test]
    fn requests_are_answered_within_bounds() {
        let mut ours = sent(600);
        assert_eq!(ours.again(T, 50, 50, DELAY), [RexmitAnswer::Refuse(50, "seqno too low")]);
        assert_eq!(ours.again(T, 600, 600, DELAY), [RexmitAnswer::Refuse(600, "seqno not found")]);
        assert_eq!(ours.again(T, 601, u64::MAX, DELAY), []);
        let RexmitAnswer::Send(message) = ours.again(T, 101, 101, DELAY).remove(0) else {
            panic!("not sent")
        };
        assert_eq!(message.seq, Some(101));
        assert_eq!(ours.again(T, 101, 101, DELAY), [], "not twice within the pause");
    }

    #[test]
    fn a_request_storm_costs_a_hundred_frames_a_second() {
        let mut ours = sent(500);
        let burst: usize = (0..50).map(|i| ours.again(T, i * 10 + 1, i * 10 + 10, DELAY).len()).sum();
        assert_eq!(burst, 90);
        assert_eq!(ours.again(T + Duration::from_millis(999), 480, 490, DELAY).len(), 0);
        assert_eq!(ours.again(T + Duration::from_secs(1), 480, 490, DELAY).len(), 11);
        // In any second, not only in each second of a clock.
        let mut ours = sent(500);
        assert_eq!(ours.again(T, 1, 1, DELAY).len(), 1);
        let late = T + Duration::from_millis(990);
        let burst: usize = (0..50).map(|i| ours.again(late, i * 10 + 1, i * 10 + 10, DELAY).len()).sum();
        assert_eq!(burst, 89);
        let next = T + Duration::from_millis(1100);
        let burst: usize =
            (0..50).map(|i| ours.again(next, i * 10 + 1, i * 10 + 10, Duration::ZERO).len()).sum();
        assert_eq!(burst, 1);
    }

    #[test]
    fn requests_for_what_is_long_gone_do_not_starve_those_that_can_be_met() {
        let mut ours = sent(600);
        let refused: usize = (0..50).map(|_| ours.again(T, 1, 50, DELAY).len()).sum();
        assert_eq!(refused, REFUSALS_PER_SECOND);
        assert_eq!(ours.again(T, 500, 520, DELAY).len(), 21);
    }
}
