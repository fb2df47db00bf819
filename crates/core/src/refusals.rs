//! Refused frames, for the log: the first of a sender at once, and then once a minute how many more there were and why.
//! However many senders there are or are pretended, the lines are bounded, and so is what is kept.

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

use crate::{
    event::Source,
    time::{Duration, Instant},
};

/// A refused sender is worth one line in this time.
const PAUSE: Duration = Duration::from_secs(60);
/// Distinct senders that are kept apart; more share one line.
const SENDERS_MAX: usize = 32;

/// What was refused of whom in the minute that runs.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    senders: BTreeMap<Sender, Account>,
    /// When the first of their minutes ends.
    due: Option<Instant>,
}

/// Who sent it, as far as that can be told. Ports change with every forged datagram: the address is the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    Ip(IpAddr),
    Serial,
    Local,
    /// All for whom there was no room.
    Many,
}

#[derive(Debug)]
struct Account {
    until: Instant,
    /// Since the last line, by reason.
    more: BTreeMap<&'static str, u64>,
    /// What one of them was refused for, with the cure; a wrong key before anything else, which only hides it.
    text: String,
    about_key: bool,
}

impl Refusals {
    /// Keeps the books of one refused frame; the line for the log if it is the sender's first in its minute.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        from: Source,
        reason: &'static str,
        text: &dyn Display,
    ) -> Option<String> {
        let sender = match from {
            Source::Udp(address) => Sender::Ip(address.ip()),
            Source::Serial => Sender::Serial,
            Source::Local => Sender::Local,
        };
        let known = self.senders.contains_key(&sender) || self.senders.len() < SENDERS_MAX;
        let sender = if known { sender } else { Sender::Many };
        let about_key = reason.starts_with("key-");
        if let Some(account) = self.senders.get_mut(&sender) {
            if account.more.is_empty() || (about_key && !account.about_key) {
                account.text = text.to_string();
                account.about_key = about_key;
            }
            *account.more.entry(reason).or_default() += 1;
            return None;
        }
        let account = Account { until: now + PAUSE, more: BTreeMap::new(), text: String::new(), about_key };
        self.senders.insert(sender, account);
        self.note_due();
        Some(format!("frame from {sender} refused: {text}"))
    }

    /// The line of a sender whose minute is over and who was refused again in it. One who was not is forgotten.
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

impl Display for Sender {
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
    fn pretended_senders_share_a_line() {
        let mut refusals = Refusals::default();
        let lines = (0..200).filter_map(|n| refusals.add(T, ip(n), "no-frame", &"no frame")).count();
        assert_eq!(lines, SENDERS_MAX + 1);
        assert_eq!(
            refusals.tell(T + PAUSE).as_deref(),
            Some("frames from many senders refused: 167 more in 60 s (no-frame 167): no frame")
        );
        assert_eq!(refusals.tell(T + PAUSE), None);
        // Who comes later is known by its own address again.
        let line = refusals.add(T + PAUSE, ip(250), "key-other", &"another key");
        assert_eq!(line.as_deref(), Some("frame from 10.0.0.250 refused: another key"));
    }
}
