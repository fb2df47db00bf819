//! The pause between attempts. What fails at once must not be tried at once again, whoever wants it and for whatever reason:
//! else a missing script keeps a core busy and fills the log. The first failure costs nothing, so that what died is there again
//! without delay; each further one in a row doubles the pause between two attempts, counted from the beginning of the one that
//! failed. What has run for a while has no failures behind it.

use super::*;

/// The pause after the second failure in a row.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to start or stop what keeps failing.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A group that has run for so long begins with a clean sheet.
pub const CALM: Duration = Duration::from_secs(60);
/// So does one that was not attempted for so long.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// A start that has lasted so long is ended when nobody wants the group any more; a shorter one may come to its end.
pub const LONG_START: Duration = Duration::from_secs(5);

/// Failed attempts of one group: starts, stops that ended stuck, and monitors that failed soon after a start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    /// When the last one was begun.
    begun: Instant,
    /// Nothing is attempted before.
    until: Instant,
    /// All of it runs since then.
    runs: Option<Instant>,
}

impl Attempts {
    pub(super) fn failed(&mut self, now: Instant) {
        let has_run = self.runs.take().is_some_and(|since| now.since(since) >= CALM);
        if has_run || now.since(self.begun) >= FORGOTTEN {
            self.failed = 0;
        }
        self.failed = self.failed.saturating_add(1);
        let pause = match self.failed {
            0 | 1 => Duration::ZERO,
            more => PAUSE.saturating_mul(1 << (more - 2).min(6)).min(PAUSE_MAX),
        };
        self.until = self.begun + pause;
    }

    pub(super) const fn begins(&mut self, now: Instant) {
        self.begun = now;
    }

    pub(super) const fn runs(&mut self, now: Instant) {
        self.runs = Some(now);
    }
}

impl Groups {
    /// Whether the next attempt has to wait. Then it is made by [`Groups::tick`] when the pause is over, if it is still wanted.
    pub(super) fn waits_for_pause(&mut self, group: GroupIndex) -> bool {
        let now = self.now;
        let state = &mut self.states[group.0];
        let waits = state.attempts.until > now && !breakage::is(Breakage::NoPauseAfterFailure);
        state.pause = waits.then_some(state.attempts.until);
        if !waits {
            state.attempts.begins(now);
        }
        waits
    }

    /// Who asks for a group to be stopped does not wait until a start that hangs has used up its limit.
    pub(super) fn abandon(&mut self, now: Instant, group: GroupIndex, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        if state.abandon.take_if(|at| now >= *at).is_none() {
            return;
        }
        let is_wanted = state.wanted && state.floor.is_none();
        if is_wanted || !matches!(state.phase, Phase::Starting(_)) {
            return;
        }
        let step = self.under_way(group).find(|(_, (_, _, purpose))| *purpose == Purpose::Step);
        let Some((ticket, &(resource, ..))) = step else { return };
        out.push_back(Action::Abandon(ticket));
        let text = format!(
            "{} has not started yet, and nobody wants it any more: ended",
            self.member(resource).text
        );
        self.note(group, Level::Warning, text, out);
    }

    /// Nothing is waited for any more: what is being started is not wanted. What runs goes on.
    pub fn end_starts(&mut self, out: &mut VecDeque<Action>) {
        for group in (0..self.states.len()).map(GroupIndex) {
            if matches!(self.states[group.0].phase, Phase::Starting(_)) {
                self.want(group, false, out);
            }
        }
    }

    /// A person has seen to it: what failed is attempted at once.
    pub fn forgive(&mut self, out: &mut VecDeque<Action>) {
        for group in (0..self.states.len()).map(GroupIndex) {
            let state = &mut self.states[group.0];
            let Attempts { begun, runs, .. } = state.attempts;
            state.attempts = Attempts { begun, runs, ..Attempts::default() };
            match (state.phase, state.frozen) {
                _ if state.pause.is_none() => continue,
                (Phase::Stopped | Phase::Stuck(_), false) => {
                    state.pause = None;
                    self.pursue(group, out);
                }
                (Phase::Starting(_), false) => state.pause = Some(self.now),
                _ => {}
            }
            self.touch(group);
        }
    }

    /// Until when the next attempt of what failed waits, if one is wanted.
    #[must_use]
    pub fn paused(&self, group: GroupIndex) -> Option<Instant> {
        let state = &self.states[group.0];
        let is_attempt = matches!(state.phase, Phase::Stopped | Phase::Starting(_) | Phase::Stuck(_));
        state.pause.filter(|_| is_attempt)
    }
}
