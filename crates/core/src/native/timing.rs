//! All times of a native cluster. Each follows from one number, the pace, by a formula that is stated here with its
//! purpose.

use alloc::{format, string::String};
use core::fmt;

use crate::model::time::Duration;

/// The shortest pace: below it a busy machine's own delays are as long as the lease.
pub const PACE_MIN: Duration = Duration::from_millis(100);
/// The longest pace that the file may name.
pub const PACE_MAX: Duration = Duration::from_secs(60);
/// The pace when the file names none.
pub const PACE: Duration = Duration::from_secs(1);

/// How many groups a common machine renews in time, and takes over within some seconds, at a pace of 1 s. At a shorter
/// pace the number falls in proportion (`docs/bench.md`, "Many groups").
pub const GROUPS_A_SECOND: u64 = 4096;

/// All times of a native cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeTiming {
    /// How long a voter's grant stands, from the receipt of the beat that it granted.
    pub lease: Duration,
    pub beat: Duration,
    /// How far clocks may drift apart in one lease.
    pub margin: Duration,
    /// How long an owner may act on a grant, from the *sending* of that beat; also the gate's deadline.
    pub hold: Duration,
    /// Silence after which a node is late, which is only a warning.
    pub late: Duration,
    /// Silence after which a node, or one link to it, is silent.
    pub silent: Duration,
    /// How long a voter grants nothing after its start.
    pub mute: Duration,
    /// Of two voters, a node enters single-vote mode when the other has not voted for this long.
    pub single_vote: Duration,
    /// A voter that was heard within this time but has not heard us is alive: no single-vote mode.
    pub unheard: Duration,
    /// How much later each further candidate claims.
    pub rank_step: Duration,
    /// After this time an unanswered prepare or propose is sent again.
    pub retry: Duration,
    /// The longest first wait after a collision; it doubles with each further one.
    pub collision: Duration,
    /// The longest wait after a collision.
    pub collision_max: Duration,
    /// How long a link must carry beats both ways before it counts.
    pub link_test: Duration,
    /// Between two monitors of a resource whose file names no interval.
    pub monitor_every: Duration,
}

/// One time, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub name: &'static str,
    pub value: Duration,
    /// How it follows from the pace.
    pub formula: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?} ({})", self.name, self.value, self.formula)
    }
}

impl NativeTiming {
    /// The times for a pace. Any pace gives times that can be calculated with; the check of the file admits
    /// [`PACE_MIN`] to [`PACE_MAX`].
    #[must_use]
    pub fn of(pace: Duration) -> Self {
        let lease = pace.clamp(PACE_MIN, PACE_MAX);
        let beat = lease * 3 / 10;
        let margin = lease / 100 + Duration::from_millis(1);
        let rank_step = lease / 20;
        Self {
            lease,
            beat,
            margin,
            hold: lease - margin,
            late: beat * 2,
            silent: lease,
            mute: lease + margin,
            single_vote: lease * 9 / 10,
            unheard: beat * 3 / 2,
            rank_step,
            retry: (lease / 10).max(Duration::from_millis(20)),
            collision: rank_step * 4,
            collision_max: lease * 2,
            link_test: beat * 2,
            monitor_every: (lease * 10).clamp(Duration::from_secs(5), Duration::from_secs(60)),
        }
    }

    /// The longest time from an owner's death to the claim of its group by one of the other candidates; `candidates`:
    /// how many the group has. A majority of the voters must live. At most one frame of each kind may be lost, and at
    /// most one collision may happen.
    #[must_use]
    pub fn claim_bound(&self, candidates: usize) -> Duration {
        let ranks = u32::try_from(candidates.saturating_sub(1)).unwrap_or(u32::MAX);
        let waits = self.rank_step.saturating_mul(ranks);
        self.lease + self.margin + waits.saturating_add(self.retry * 4 + self.collision)
    }

    /// How many groups are advisable at this pace: each beat renews all of them, and after a death all are claimed
    /// within a lease.
    #[must_use]
    pub fn groups_advised(&self) -> u64 {
        let lease = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        GROUPS_A_SECOND.saturating_mul(lease) / 1000
    }

    /// How much later the last group of a family is claimed than the first, under the same conditions. It is one more
    /// round of claims, which has no rival and waits for no lease.
    #[must_use]
    pub fn family_round(&self) -> Duration {
        self.retry * 4
    }

    /// How long the kernel keeps a service address that is not renewed, in whole seconds: five leases, at least 10 s.
    /// Nodes do not compare this time.
    #[must_use]
    pub fn address_lifetime(&self) -> Duration {
        let long = (self.lease * 5).max(Duration::from_secs(10));
        Duration::from_secs(long.as_secs() + u64::from(long.subsec_nanos() > 0))
    }

    /// All times with their formulas, in the order in which a takeover meets them. `candidates` is for the time
    /// `takeover`.
    #[must_use]
    pub fn rows(&self, candidates: usize) -> [Row; 17] {
        let row = |name, value, formula, purpose| Row { name, value, formula, purpose };
        [
            row(
                "lease",
                self.lease,
                "pace",
                "how long a voter reserves a group for its owner, from the receipt of the beat that it granted",
            ),
            row(
                "beat",
                self.beat,
                "pace × 3/10",
                "between two beats: 3.33 beats to a lease, so that one may be lost",
            ),
            row(
                "margin",
                self.margin,
                "pace / 100 + 1 ms",
                "how far two clocks may drift apart in one lease",
            ),
            row(
                "hold",
                self.hold,
                "lease − margin",
                "how long an owner and its gate act on a grant, from the sending of the beat: it ends before the grant",
            ),
            row("late", self.late, "2 × beat", "a node that is silent for this long is late: a warning"),
            row(
                "silent",
                self.silent,
                "lease",
                "a node is silent after this long: others may claim its groups",
            ),
            row(
                "mute",
                self.mute,
                "lease + margin",
                "how long a voter grants nothing after its start: its earlier grants have ended by then",
            ),
            row(
                "alone",
                self.single_vote,
                "lease × 9/10",
                "two voters, guard none: a node enters single-vote mode if the other has not voted for this long, \
                 from the sending of the last beat that it granted; this is before its own leases end",
            ),
            row(
                "unheard",
                self.unheard,
                "3/2 × beat",
                "no single-vote mode while the other was heard within this time and has not heard this node",
            ),
            row(
                "rank step",
                self.rank_step,
                "pace / 20",
                "how much later each further candidate claims, so that the best one claims alone",
            ),
            row(
                "retry",
                self.retry,
                "pace / 10, at least 20 ms",
                "an unanswered prepare or propose is sent again after this long",
            ),
            row(
                "collision",
                self.collision,
                "4 × rank step",
                "the longest first wait after a collision; random, doubled with each further one",
            ),
            row("longest collision", self.collision_max, "2 × lease", "where that doubling ends"),
            row(
                "link test",
                self.link_test,
                "2 × beat",
                "how long a link must carry beats both ways before it counts",
            ),
            row(
                "monitor",
                self.monitor_every,
                "10 × pace, 5 s to 60 s",
                "between two monitors of a resource that has no `monitor-every`",
            ),
            row(
                "takeover",
                self.claim_bound(candidates),
                "lease + margin + (candidates − 1) × rank step + 4 × retry + collision",
                "the longest time from an owner's death to the claim of its group, if a majority of the voters \
                 lives and hears the candidate both ways; the starts of its resources come on top",
            ),
            row(
                "family",
                self.family_round(),
                "4 × retry",
                "the first group of a family is claimed, then the rest, and none is started before all are owned: \
                 this comes on top of the takeover",
            ),
        ]
    }
}

/// The rows as the table of `docs/timing.md`, with the values of three paces and three candidates.
#[must_use]
pub fn page() -> String {
    let paces = [300, 1000, 5000].map(|millis| NativeTiming::of(Duration::from_millis(millis)).rows(3));
    let mut page = String::from(
        "\n| time | follows from | 300 ms | 1 s | 5 s | what it is for |\n|---|---|---|---|---|---|\n",
    );
    for (index, row) in paces[0].iter().enumerate() {
        let [fast, usual, slow] = [0, 1, 2].map(|pace: usize| paces[pace][index].value);
        let Row { name, formula, purpose, .. } = row;
        page += &format!("| {name} | {formula} | {fast:?} | {usual:?} | {slow:?} | {purpose} |\n");
    }
    page + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paces() -> impl Iterator<Item = NativeTiming> {
        [100, 101, 250, 300, 999, 1000, 5000, 59_999, 60_000]
            .into_iter()
            .map(|millis| NativeTiming::of(Duration::from_millis(millis)))
    }

    #[test]
    fn an_owner_stops_before_its_voters_forget_it_and_survives_one_lost_beat() {
        for timing in paces() {
            // Both clocks may be off by half the margin; what is left of the lease is the owner's.
            assert!(timing.hold + timing.margin <= timing.lease, "{timing:?}");
            // The hold lasts for a beat, a lost one, and the wait for the echo in the beat after: renewed before it
            // ends.
            assert!(timing.beat * 3 < timing.hold, "{timing:?}");
            // A node that has lost the other enters single-vote mode before its leases end. Had the other been heard, a
            // beat would have come.
            assert!(
                timing.single_vote < timing.hold && timing.unheard + timing.beat <= timing.single_vote,
                "{timing:?}"
            );
            assert!(timing.late < timing.silent && timing.mute > timing.lease, "{timing:?}");
            assert!(timing.collision <= timing.collision_max, "{timing:?}");
        }
    }

    #[test]
    fn detection_is_no_slower_than_keepalived_at_equal_intervals() {
        for timing in paces() {
            // keepalived's backup takes over after 3 intervals and a skew of up to one more (RFC 9568, section 6.1).
            assert!(timing.silent < timing.beat * 4, "{timing:?}");
        }
    }

    #[test]
    fn a_second_has_round_numbers() {
        let timing = NativeTiming::of(Duration::from_secs(1));
        let millis = timing.rows(3).map(|row| (row.name, row.value.as_millis()));
        assert_eq!(
            millis,
            [
                ("lease", 1000),
                ("beat", 300),
                ("margin", 11),
                ("hold", 989),
                ("late", 600),
                ("silent", 1000),
                ("mute", 1011),
                ("alone", 900),
                ("unheard", 450),
                ("rank step", 50),
                ("retry", 100),
                ("collision", 200),
                ("longest collision", 2000),
                ("link test", 600),
                ("monitor", 10_000),
                ("takeover", 1711),
                ("family", 400),
            ]
        );
    }

    #[test]
    fn an_address_outlives_several_leases_in_whole_seconds() {
        for timing in paces() {
            let lifetime = timing.address_lifetime();
            // Renewed every third of it: two renewals may fail, and no lease depends on one.
            assert!(lifetime / 3 > timing.lease && lifetime.subsec_nanos() == 0, "{timing:?}");
            assert!(lifetime >= Duration::from_secs(10) && lifetime <= Duration::from_secs(300));
        }
    }

    #[test]
    fn no_pace_overflows() {
        for pace in [Duration::ZERO, Duration::MAX] {
            let timing = NativeTiming::of(pace);
            assert!(timing.claim_bound(usize::MAX) >= timing.lease);
        }
    }
}
