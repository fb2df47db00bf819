//! Which nodes are alive. One small state machine judges a node, a node's link or a ping node by what was heard of it and
//! when.
//!
//! ```text
//!            heard                warntime            deadtime
//! Unheard ─────────► Alive ─────────────────► Late ─────────────► Silent ──┐ accepted as
//!    │                 ▲                        │                   │      │ proof, or proved
//!    │ initdead        │ heard                  │ heard             │      ▼
//!    └──────► Silent   ├────────────────────────┘                   │    Dead
//!                      │                                      heard │      │ heard
//!                      │        settled                             ▼      ▼
//!                      └─────────────────────────────────────── Returned ◄─┘
//! ```
//!
//! Silence is not death: the dialect decides what follows from silence (guard `none` accepts it as proof).

pub mod services;

use serde::{Deserialize, Serialize};

use crate::model::time::{Duration, Instant};

/// What is known of a node or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Never heard since our start.
    Unheard,
    /// Heard within its warntime.
    Alive,
    /// Not heard for warntime.
    Late,
    /// Not heard for deadtime.
    Silent,
    /// Proved or accepted to be dead, or it said goodbye.
    Dead,
    /// Heard again after silence or death. It counts as owning nothing until it has said what it owns.
    Returned,
}

/// What can happen to a node or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessEvent {
    /// Something new came from it.
    Heard,
    /// Nothing was heard for warntime.
    WarnElapsed,
    /// Nothing was heard for deadtime (or, before the first frame, for initdead).
    DeadElapsed,
    /// Its death is proved, or silence is accepted as proof, or it has left.
    Proved,
    /// After its return it has told what it owns.
    Settled,
}

impl Liveness {
    /// The next state. Total: every pair is decided here, and a test walks them.
    #[must_use]
    pub const fn step(self, event: LivenessEvent) -> Self {
        use Liveness::{Alive, Dead, Late, Returned, Silent, Unheard};
        use LivenessEvent::{DeadElapsed, Heard, Proved, Settled, WarnElapsed};
        match (self, event) {
            (_, Proved) => Dead,
            (Unheard | Alive | Late, Heard) => Alive,
            (Silent | Dead | Returned, Heard) => Returned,
            (Alive, WarnElapsed) => Late,
            (Unheard | Alive | Late | Returned, DeadElapsed) => Silent,
            (Returned, Settled) => Alive,
            (Unheard | Late | Silent | Dead | Returned, WarnElapsed)
            | (Silent | Dead, DeadElapsed)
            | (Unheard | Alive | Late | Silent | Dead, Settled) => self,
        }
    }

    /// Whether it takes part: heard within its deadtime.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Alive | Self::Late | Self::Returned)
    }

    /// Whether it has fallen silent or is dead (not merely unheard so far).
    #[must_use]
    pub const fn is_down(self) -> bool {
        matches!(self, Self::Silent | Self::Dead)
    }
}

/// A node, link or ping node under watch: its state and when it was last heard.
#[derive(Clone, Debug)]
pub struct Watch {
    state: Liveness,
    /// When it was last heard; before that, since when we listen.
    heard: Instant,
    /// The warning for this silence was given.
    warned: bool,
    warn_after: Duration,
    dead_after: Duration,
}

impl Watch {
    /// Listens from `now` on and waits `first` (initdead) for the first frame.
    #[must_use]
    pub const fn new(now: Instant, first: Duration) -> Self {
        Self { state: Liveness::Unheard, heard: now, warned: false, warn_after: first, dead_after: first }
    }

    /// The state as it is now.
    #[must_use]
    pub const fn state(&self) -> Liveness {
        self.state
    }

    /// When it was last heard (or, unheard, since when we listen).
    #[must_use]
    pub const fn heard(&self) -> Instant {
        self.heard
    }

    /// The length of a silence that counts as death.
    #[must_use]
    pub const fn dead_after(&self) -> Duration {
        self.dead_after
    }

    /// Something new came. From now on silence is judged by these times.
    pub fn hear(&mut self, now: Instant, warn_after: Duration, dead_after: Duration) {
        self.heard = self.heard.max(now);
        self.warned = false;
        self.warn_after = warn_after;
        self.dead_after = dead_after;
        self.state = self.state.step(LivenessEvent::Heard);
    }

    /// Takes in any other sign than `Heard`.
    pub fn note(&mut self, event: LivenessEvent) {
        self.state = self.state.step(event);
    }

    /// Lets time pass. Returns at most one of `WarnElapsed` and `DeadElapsed`, each once per silence.
    pub fn elapse(&mut self, now: Instant) -> Option<LivenessEvent> {
        if self.state.is_down() {
            return None;
        }
        if now >= self.heard + self.dead_after {
            self.note(LivenessEvent::DeadElapsed);
            return Some(LivenessEvent::DeadElapsed);
        }
        if !self.warned && self.warn_after < self.dead_after && now >= self.heard + self.warn_after {
            self.warned = true;
            self.note(LivenessEvent::WarnElapsed);
            return Some(LivenessEvent::WarnElapsed);
        }
        None
    }

    /// When [`Self::elapse`] returns something next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.state.is_down() {
            return None;
        }
        let warn_first = !self.warned && self.warn_after < self.dead_after;
        Some(self.heard + if warn_first { self.warn_after } else { self.dead_after })
    }

    /// This node did not run for `pause` itself: silence during it says nothing about the other side.
    pub fn forgive(&mut self, now: Instant, pause: Duration) {
        self.heard = (self.heard + pause).min(now);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Liveness::{self, *},
        LivenessEvent::{self, *},
        *,
    };

    #[test]
    fn every_pair_is_as_drawn() {
        let states = [Unheard, Alive, Late, Silent, Dead, Returned];
        let table: [(LivenessEvent, [Liveness; 6]); 5] = [
            (Heard, [Alive, Alive, Alive, Returned, Returned, Returned]),
            (WarnElapsed, [Unheard, Late, Late, Silent, Dead, Returned]),
            (DeadElapsed, [Silent, Silent, Silent, Silent, Dead, Silent]),
            (Proved, [Dead; 6]),
            (Settled, [Unheard, Alive, Late, Silent, Dead, Alive]),
        ];
        for (sign, expected) in table {
            for (state, expected) in states.into_iter().zip(expected) {
                assert_eq!(state.step(sign), expected, "{state:?} {sign:?}");
            }
        }
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn silence_warns_once_then_kills_once() {
        let mut watch = Watch::new(Instant::ZERO, ms(5000));
        watch.hear(Instant::from_millis(100), ms(500), ms(1000));
        assert_eq!(watch.deadline(), Some(Instant::from_millis(600)));
        assert_eq!(watch.elapse(Instant::from_millis(599)), None);
        assert_eq!(watch.elapse(Instant::from_millis(600)), Some(WarnElapsed));
        assert_eq!(watch.elapse(Instant::from_millis(601)), None);
        assert_eq!(watch.deadline(), Some(Instant::from_millis(1100)));
        assert_eq!(watch.elapse(Instant::from_millis(1100)), Some(DeadElapsed));
        assert_eq!((watch.elapse(Instant::from_millis(9000)), watch.deadline()), (None, None));
        watch.hear(Instant::from_millis(9001), ms(500), ms(1000));
        assert_eq!(watch.state(), Returned);
    }

    #[test]
    fn a_pause_of_our_own_is_not_the_others_silence() {
        let mut watch = Watch::new(Instant::ZERO, ms(5000));
        watch.hear(Instant::from_millis(100), ms(500), ms(1000));
        watch.forgive(Instant::from_millis(5100), ms(4900));
        assert_eq!(watch.elapse(Instant::from_millis(5100)), None);
        assert_eq!(watch.elapse(Instant::from_millis(6000)), Some(DeadElapsed));
    }
}
