//! Refused frames, for the log: the first of a sender at once, and then once a minute how many more there were and why.
//! The number of lines and of kept senders is bounded, however many senders there are or are pretended.
//!
//! Some refusals mean that nodes do not form one cluster although they should. Each of those is a [`RefusalAlarm`], which the
//! status shows as long as it lasts.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{
    fmt::{self, Display},
    net::IpAddr,
};

use crate::model::{
    event::Source,
    time::{Duration, Instant},
};

/// A refused sender gets one line in this time.
const PAUSE: Duration = Duration::from_secs(60);
/// How many senders are kept apart; more share one line.
const SENDERS_MAX: usize = 32;

/// The refusals of the current minute, by sender.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    senders: BTreeMap<RefusedSender, SenderAccount>,
    /// When the first of their minutes ends.
    due: Option<Instant>,
    alarms: BTreeMap<RefusalAlarm, LastingAlarm>,
}

/// A refusal that splits a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RefusalAlarm {
    /// Authentic frames under our own name that we have not sent.
    OurName,
    /// Authentic frames under one name of two machines.
    TwoMachines,
    /// Authentic frames of an earlier generation of a member.
    OldGeneration,
    /// Signed with a key that is not ours.
    OtherKey,
    /// Authentic frames of a name that is not in our file.
    Stranger,
}

/// When an alarm was seen first and last, and from which sender.
#[derive(Debug)]
struct LastingAlarm {
    first: Instant,
    last: Instant,
    from: RefusedSender,
    text: String,
}

impl RefusalAlarm {
    fn of(reason: &str) -> Option<Self> {
        match reason {
            "our-name" | "same-name" => Some(Self::OurName),
            "two-machines" => Some(Self::TwoMachines),
            "replayed" => Some(Self::OldGeneration),
            "unknown-node" | "unknown-sender" => Some(Self::Stranger),
            _ if reason.starts_with(WRONG_KEY) => Some(Self::OtherKey),
            _ => None,
        }
    }
}

/// Beginning of the names of refusals that come from a wrong key.
pub(crate) const WRONG_KEY: &str = "key-";
/// An alarm is over when it was not seen for this time, or for three beats if that is longer.
const ALARM_MIN: Duration = Duration::from_secs(3);
/// An alarm counts when it has lasted for this many beats. Frames under way when a member restarts cause none.
const ALARM_BEATS: u32 = 2;

/// The sender of a frame, as far as it can be told: its address without the port, which changes with every forged
/// datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RefusedSender {
    Ip(IpAddr),
    Serial,
    Local,
    /// All further senders, for which there was no room.
    Many,
}

#[derive(Debug)]
struct SenderAccount {
    until: Instant,
    /// Since the last line, by reason.
    more: BTreeMap<&'static str, u64>,
    /// The text of one refusal, with the cure. A wrong key comes before all other reasons, which only hide it.
    text: String,
    about_key: bool,
}

impl Refusals {
    /// Notes a refusal that may split the cluster. Call it for every such frame, whether or not a line is due.
    pub(crate) fn alarm(
        &mut self,
        now: Instant,
        beat: Duration,
        from: Source,
        reason: &str,
        text: &dyn Display,
    ) {
        let Some(alarm) = RefusalAlarm::of(reason) else { return };
        let from = RefusedSender::of(from);
        match self.alarms.get_mut(&alarm) {
            Some(lasting) if now.since(lasting.last) < alarm_patience(beat) => {
                lasting.last = now;
                if lasting.from != from {
                    (lasting.from, lasting.text) = (from, text.to_string());
                }
            }
            _ => {
                let text = text.to_string();
                self.alarms.insert(alarm, LastingAlarm { first: now, last: now, from, text });
            }
        }
    }

    /// The alarms that last now: which alarm, from which sender, and the text of one refusal.
    pub(crate) fn lasting(
        &self,
        now: Instant,
        beat: Duration,
    ) -> impl Iterator<Item = (RefusalAlarm, &RefusedSender, &str)> {
        let lasts = move |lasting: &LastingAlarm| {
            lasting.last.since(lasting.first) >= beat * ALARM_BEATS
                && now.since(lasting.last) < alarm_patience(beat)
        };
        let alarms = self.alarms.iter().filter(move |(_, lasting)| lasts(lasting));
        alarms.map(|(alarm, lasting)| (*alarm, &lasting.from, lasting.text.as_str()))
    }

    /// Counts one refused frame. Returns the line for the log if it is the sender's first in its minute.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        from: Source,
        reason: &'static str,
        text: &dyn Display,
    ) -> Option<String> {
        let sender = RefusedSender::of(from);
        let known = self.senders.contains_key(&sender) || self.senders.len() < SENDERS_MAX;
        let sender = if known { sender } else { RefusedSender::Many };
        let about_key = reason.starts_with(WRONG_KEY);
        if let Some(account) = self.senders.get_mut(&sender) {
            if account.more.is_empty() || (about_key && !account.about_key) {
                account.text = text.to_string();
                account.about_key = about_key;
            }
            *account.more.entry(reason).or_default() += 1;
            return None;
        }
        let account =
            SenderAccount { until: now + PAUSE, more: BTreeMap::new(), text: String::new(), about_key };
        self.senders.insert(sender, account);
        self.note_due();
        Some(format!("frame from {sender} refused: {text}"))
    }

    /// The line of a sender whose minute is over and of which more was refused in it. A sender without more is forgotten.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<String> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.senders.retain(|_, account| now < account.until || !account.more.is_empty());
        let line =
            self.senders.iter_mut().find(|(_, account)| now >= account.until).map(|(sender, account)| {
                let more = core::mem::take(&mut account.more);
                let reasons: Vec<String> =
                    more.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
                account.until = now + PAUSE;
                format!(
                    "frames from {sender} refused: {} more in {} s ({}): {}",
                    more.values().sum::<u64>(),
                    PAUSE.as_secs(),
                    reasons.join(", "),
                    account.text
                )
            });
        self.note_due();
        line
    }

    /// When [`Self::tell`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn note_due(&mut self) {
        self.due = self.senders.values().map(|account| account.until).min();
    }
}

fn alarm_patience(beat: Duration) -> Duration {
    (beat * 3).max(ALARM_MIN)
}

impl RefusedSender {
    fn of(source: Source) -> Self {
        match source {
            Source::Udp(address) => Self::Ip(address.ip()),
            Source::Serial => Self::Serial,
            Source::Local => Self::Local,
        }
    }
}

impl Display for RefusedSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Serial => f.write_str("the serial line"),
            Self::Local => f.write_str("a ping node"),
            Self::Many => f.write_str("many senders"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Instant = Instant::from_millis(1000);

    fn ip(n: u8) -> Source {
        // Another port each time.
        Source::Udp(([10, 0, 0, n], 1000 + u16::from(n)).into())
    }

    #[test]
    fn one_line_for_a_sender_and_minute_with_count_and_cure() {
        let mut refusals = Refusals::default();
        let first = refusals.add(T, ip(1), "no-frame", &"no frame");
        assert_eq!(first.as_deref(), Some("frame from 10.0.0.1 refused: no frame"));
        for at in 0..60 {
            let now = T + Duration::from_secs(at);
            assert_eq!(refusals.add(now, ip(1), "key-other", &"another key"), None);
            assert_eq!(refusals.add(now, ip(1), "no-frame", &"no frame"), None);
            assert_eq!(refusals.tell(now), None);
        }
        assert_eq!(refusals.deadline(), Some(T + PAUSE));
        assert_eq!(
            refusals.tell(T + PAUSE).as_deref(),
            Some("frames from 10.0.0.1 refused: 120 more in 60 s (key-other 60, no-frame 60): another key")
        );
        assert_eq!(refusals.tell(T + PAUSE), None);
        // Silent for a minute: forgotten.
        assert_eq!(refusals.deadline(), Some(T + PAUSE * 2));
        assert_eq!(refusals.tell(T + PAUSE * 2), None);
        assert_eq!(refusals.deadline(), None);
        assert!(refusals.add(T + PAUSE * 2, ip(1), "no-frame", &"no frame").is_some());
    }

    #[test]
    fn what_parts_a_cluster_is_an_alarm_as_long_as_it_lasts() {
        let beat = Duration::from_secs(1);
        let mut refusals = Refusals::default();
        let shown = |refusals: &Refusals, now| {
            refusals.lasting(now, beat).map(|(alarm, from, _)| (alarm, from.to_string())).collect::<Vec<_>>()
        };
        for (at, reason) in [(0, "key-other"), (0, "no-frame"), (1, "key-other"), (1, "no-frame")] {
            refusals.alarm(T + beat * at, beat, ip(1), reason, &"a text");
        }
        assert_eq!(shown(&refusals, T + beat), [], "two frames may have been on their way");
        refusals.alarm(T + beat * 2, beat, ip(1), "key-unknown", &"a text");
        assert_eq!(shown(&refusals, T + beat * 2), [(RefusalAlarm::OtherKey, "10.0.0.1".to_string())]);
        assert_eq!(shown(&refusals, T + beat * 4), [(RefusalAlarm::OtherKey, "10.0.0.1".to_string())]);
        assert_eq!(shown(&refusals, T + beat * 5), []);
        refusals.alarm(T + beat * 6, beat, ip(1), "key-unknown", &"a text");
        assert_eq!(shown(&refusals, T + beat * 6), [], "it begins anew");
    }

    #[test]
    fn pretended_senders_share_a_line() {
        let mut refusals = Refusals::default();
        let lines = (0..200).filter_map(|n| refusals.add(T, ip(n), "no-frame", &"no frame")).count();
        assert_eq!(lines, SENDERS_MAX + 1);
        assert_eq!(
            refusals.tell(T + PAUSE).as_deref(),
            Some("frames from many senders refused: 167 more in 60 s (no-frame 167): no frame")
        );
        assert_eq!(refusals.tell(T + PAUSE), None);
        // A later sender is known by its own address again.
        let line = refusals.add(T + PAUSE, ip(250), "key-other", &"another key");
        assert_eq!(line.as_deref(), Some("frame from 10.0.0.250 refused: another key"));
    }
}
