//! What both directors keep about received frames: the keys that must have signed them, which links carry frames,
//! counters, and refusals.

use alloc::{format, string::String, vec::Vec};
use core::fmt::Display;

use super::refusals::{RefusalAlarm, Refusals, RefusedSender};
use crate::model::{
    event::{Carrier, Source},
    identity::LinkIndex,
    keys::Keys,
    note::Level,
    status::Frames,
    time::{Duration, Instant},
};

/// The reception of frames, as one director keeps it.
#[derive(Debug)]
pub(crate) struct Reception {
    keys: Keys,
    /// By link: why it carries nothing, as far as this machine can tell.
    down: Vec<Option<String>>,
    /// Counted by the code that knows what became of a frame.
    pub(crate) frames: Frames,
    refusals: Refusals,
    /// The time between two beats of a peer. Frames refused for some beats mean that the cluster is split.
    beat: Duration,
}

/// A change of a link's carrier, and the line for the log.
pub(crate) struct LinkChange {
    pub(crate) level: Level,
    pub(crate) text: String,
    /// Whether it carries frames again.
    pub(crate) is_up: bool,
}

impl Reception {
    /// `links`: the number of links. `beat`: the time between two beats of a peer.
    pub(crate) fn new(keys: Keys, links: usize, beat: Duration) -> Self {
        let (frames, refusals) = (Frames::default(), Refusals::default());
        Self { keys, down: alloc::vec![None; links], frames, refusals, beat }
    }

    /// The keys that sign frames and verify them.
    pub(crate) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Takes over the keys of `file`, which was read again. Returns the line for the log.
    pub(crate) fn reread(&mut self, file: &str, keys: Keys) -> String {
        self.keys = keys;
        format!("{file} reread; signing with key {}", self.keys.signing().number)
    }

    /// Notes whether a link carries frames. `None` if nothing has changed.
    pub(crate) fn carrier(&mut self, link: LinkIndex, state: Carrier, name: &str) -> Option<LinkChange> {
        let down = match state {
            Carrier::Up => None,
            Carrier::Down(why) | Carrier::Barred(why) => Some(why),
        };
        let before = self.down.get_mut(link.0)?;
        if *before == down {
            return None;
        }
        before.clone_from(&down);
        Some(match down {
            Some(why) => {
                LinkChange { level: Level::Warning, text: format!("{name} is down: {why}"), is_up: false }
            }
            None => LinkChange { level: Level::Info, text: format!("{name} is open"), is_up: true },
        })
    }

    /// Why a link carries nothing, as far as this machine can tell.
    pub(crate) fn down(&self, link: LinkIndex) -> Option<&str> {
        self.down.get(link.0)?.as_deref()
    }

    /// Counts one more refused frame under this reason.
    pub(crate) fn count_refusal(&mut self, reason: &'static str) {
        *self.frames.refused.entry(reason.into()).or_default() += 1;
    }

    /// Notes a refusal for the status, if it splits the cluster.
    pub(crate) fn alarm(&mut self, now: Instant, from: Source, reason: &str, text: &dyn Display) {
        self.refusals.alarm(now, self.beat, from, reason, text);
    }

    /// Counts a refused frame and notes it for the status. Returns the line for the log, if one is due now.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        from: Source,
        reason: &'static str,
        text: &dyn Display,
    ) -> Option<String> {
        self.count_refusal(reason);
        self.alarm(now, from, reason, text);
        self.refusals.add(now, from, reason, text)
    }

    /// The next line for the log that is due; call it until `None`.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<String> {
        self.refusals.tell(now)
    }

    /// When [`Self::tell`] has the next line.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.refusals.deadline()
    }

    /// The alarms that have lasted for some beats.
    pub(crate) fn lasting(&self, now: Instant) -> impl Iterator<Item = (RefusalAlarm, &RefusedSender, &str)> {
        self.refusals.lasting(now, self.beat)
    }
}
