//! Computes with moments: spans of time, their overlaps, and the longest gap.

use std::time::Duration;

use crate::clock::Moment;

/// A span of time, its end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Moment,
    pub to: Moment,
}

impl Span {
    /// The span from one moment to another.
    #[must_use]
    pub const fn new(from: Moment, to: Moment) -> Self {
        Self { from, to }
    }

    pub(crate) fn length(self) -> Duration {
        self.to.since(self.from)
    }

    pub(crate) fn meet(self, other: Self) -> Option<Self> {
        let span = Self::new(self.from.max(other.from), self.to.min(other.to));
        (span.from < span.to).then_some(span)
    }
}

/// The spans in which instants follow each other within `step`. A lone instant makes an empty one.
#[must_use]
pub fn runs(instants: &[Moment], step: Duration) -> Vec<Span> {
    let mut sorted = instants.to_vec();
    sorted.sort_unstable();
    let mut runs: Vec<Span> = Vec::new();
    for instant in sorted {
        match runs.last_mut() {
            Some(run) if instant.since(run.to) <= step => run.to = instant,
            _ => runs.push(Span::new(instant, instant)),
        }
    }
    runs
}

/// The spans between being switched on and off, cut to `window`. Changes are in the order of time. If the state is on
/// before the window begins, it counts from the beginning.
#[must_use]
pub fn while_on(changes: &[(Moment, bool)], window: Span) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut since = None;
    for &(at, on) in changes {
        match (since, on) {
            (None, true) => since = Some(at),
            (Some(from), false) => {
                spans.extend(Span::new(from, at).meet(window));
                since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    spans.extend(since.and_then(|from| Span::new(from, window.to.max(from)).meet(window)));
    spans
}

/// How long, within `window`, at least two owners have a span at once.
#[must_use]
pub fn shared(owners: &[Vec<Span>], window: Span) -> Duration {
    let mut steps: Vec<(Moment, i32)> = Vec::new();
    for spans in owners {
        for span in spans.iter().filter_map(|span| span.meet(window)) {
            steps.extend([(span.from, 1), (span.to, -1)]);
        }
    }
    // At one moment, ends come before beginnings: a hand-over is not an overlap.
    steps.sort_unstable();
    let (mut inside, mut since, mut total) = (0, window.from, Duration::ZERO);
    for (at, step) in steps {
        if inside >= 2 {
            total += at.since(since);
        }
        inside += step;
        since = at;
    }
    total
}

/// The longest time without a good answer, from the last answer before a gap to the first one after it, among the gaps
/// that touch `window`. `None` if there is no answer before or none after: then its length is unknown.
#[must_use]
pub fn longest_gap(answers: &[Moment], window: Span) -> Option<Span> {
    let mut sorted = answers.to_vec();
    sorted.sort_unstable();
    if sorted.first()? > &window.from || sorted.last()? < &window.to {
        return None;
    }
    let gaps = sorted.windows(2).map(|pair| Span::new(pair[0], pair[1]));
    gaps.filter(|gap| gap.to > window.from && gap.from < window.to).max_by_key(|gap| gap.to.since(gap.from))
}

/// All times of at least `least` without a good answer that touch `window`, in their order. Times before the first
/// answer and after the last one do not count: their length is unknown.
#[must_use]
pub fn gaps(answers: &[Moment], window: Span, least: Duration) -> Vec<Span> {
    let mut sorted = answers.to_vec();
    sorted.sort_unstable();
    let gaps = sorted.windows(2).map(|pair| Span::new(pair[0], pair[1]));
    gaps.filter(|gap| gap.to > window.from && gap.from < window.to && gap.to.since(gap.from) >= least)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    fn span(from: u64, to: u64) -> Span {
        Span::new(ms(from), ms(to))
    }

    #[test]
    fn instants_make_stretches() {
        let instants = [1, 2, 3, 50, 51].map(ms);
        assert_eq!(runs(&instants, Duration::from_millis(10)), [span(1, 3), span(50, 51)]);
        assert!(runs(&[], Duration::from_millis(10)).is_empty());
    }

    #[test]
    fn every_gap_of_a_window_is_found_and_no_other() {
        let answers = [0, 50, 60, 70, 130, 140, 300].map(ms);
        assert_eq!(gaps(&answers, span(55, 141), Duration::from_millis(50)), [span(70, 130), span(140, 300)]);
        assert!(gaps(&answers, span(141, 299), Duration::from_millis(161)).is_empty());
        assert!(gaps(&answers, span(300, 900), Duration::ZERO).is_empty());
    }

    #[test]
    fn switching_makes_stretches_inside_the_window() {
        let changes = [(ms(0), true), (ms(40), false), (ms(60), true), (ms(61), true)];
        assert_eq!(while_on(&changes, span(10, 100)), [span(10, 40), span(60, 100)]);
        assert_eq!(while_on(&changes, span(45, 50)), []);
        assert_eq!(while_on(&[(ms(200), true)], span(10, 100)), []);
    }

    #[test]
    fn two_at_once_is_counted_once_and_a_handover_not_at_all() {
        let window = span(0, 1000);
        assert_eq!(shared(&[vec![span(0, 500)], vec![span(500, 900)]], window), Duration::ZERO);
        assert_eq!(shared(&[vec![span(0, 500)], vec![span(480, 900)]], window), Duration::from_millis(20));
        let three = [vec![span(0, 100)], vec![span(50, 200)], vec![span(60, 80), span(150, 160)]];
        assert_eq!(shared(&three, window), Duration::from_millis(60));
        assert_eq!(shared(&three, span(70, 75)), Duration::from_millis(5));
        assert_eq!(shared(&[], window), Duration::ZERO);
    }

    #[test]
    fn an_outage_lasts_from_the_last_good_answer_to_the_first() {
        let answers = [0, 1, 2, 90, 91, 99, 200].map(ms);
        assert_eq!(longest_gap(&answers, span(2, 100)), Some(span(99, 200)));
        assert_eq!(longest_gap(&answers, span(2, 95)), Some(span(2, 90)));
        assert_eq!(longest_gap(&answers, span(2, 300)), None, "nobody answered after it");
        assert_eq!(longest_gap(&[], span(2, 3)), None);
    }
}
