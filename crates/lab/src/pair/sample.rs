//! The measurements of one run.

use std::{fmt, time::Duration};

/// The measured times of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) outage: Duration,
    pub(crate) page_outage: Duration,
    pub(crate) two_answer: Duration,
    pub(crate) two_hold: Duration,
    /// The service had not come back when the wait for it ended: the outages are as long as that wait.
    pub(crate) unending: bool,
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outage, page_outage, two_answer, two_hold, unending } = self;
        let more = if *unending { "AT LEAST " } else { "" };
        write!(
            out,
            "outage {more}{:.1} ms, of pages {more}{:.1} ms; two answer {:.1} ms, two hold {:.1} ms",
            millis(*outage),
            millis(*page_outage),
            millis(*two_answer),
            millis(*two_hold)
        )
    }
}

fn millis(length: Duration) -> f64 {
    length.as_secs_f64() * 1000.0
}
