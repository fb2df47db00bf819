//! What both directors keep of the frames that reach them: the keys that frames must be signed with, which links carry frames, how
//! many frames there were and what became of them, and what is refused.

use alloc::{format, string::String, vec::Vec};
use core::fmt::Display;

use super::refusals::{Alarm, Refusals, Sender};
use crate::model::{
    event::{Carrier, Source},
    identity::LinkIndex,
    keys::Keys,
    note::Level,
    status::Frames,
    time::{Duration, Instant},
};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Reception {
    keys: Keys,
    /// By link: why this machine says that it carries nothing.
    down: Vec<Option<String>>,
    /// Counted by whoever knows what a frame is worth.
    pub(crate) frames: Frames,
    refusals: Refusals,
    /// Between two beats of a peer: what is refused for some of them parts the cluster.
    beat: Duration,
}

/// What a link's carrier has come to, and the line for the log.
pub(crate) struct LinkChange {
    pub(crate) level: Level,
    pub(crate) text: String,
    /// It carries frames again.
    pub(crate) is_up: bool,
}

impl Reception {
    /// `links`: how many there are. `beat`: between two beats of a peer.
    pub(crate) fn new(keys: Keys, links: usize, beat: Duration) -> Self {
        let (frames, refusals) = (Frames::default(), Refusals::default());
        Self { keys, down: alloc::vec![None; links], frames, refusals, beat }
    }

    /// What frames are signed with, and judged by.
    pub(crate) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// `file` was read again. Returns the line for the log.
    pub(crate) fn reread(&mut self, file: &str, keys: Keys) -> String {
        self.keys = keys;
        format!("{file} reread; signing with key {}", self.keys.signing().number)
    }

    /// A link carries frames from now on, or does not. `None` where that is no news.
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

    /// One more was refused, for this reason.
    pub(crate) fn count_refusal(&mut self, reason: &'static str) {
        *self.frames.refused.entry(reason.into()).or_default() += 1;
    }

    /// For the status, if it parts the cluster.
    pub(crate) fn alarm(&mut self, now: Instant, from: Source, reason: &str, text: &dyn Display) {
        self.refusals.alarm(now, self.beat, from, reason, text);
    }

    /// Counts it, and remembers it for the status. Returns the line for the log, if it is worth one now.
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

    /// Lines for the log that are due, one after the other.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<String> {
        self.refusals.tell(now)
    }

    /// When the next of them is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.refusals.deadline()
    }

    /// What is refused now and has been for some beats.
    pub(crate) fn lasting(&self, now: Instant) -> impl Iterator<Item = (Alarm, &Sender, &str)> {
        self.refusals.lasting(now, self.beat)
    }
}
