//! The pause between attempts. An attempt that fails at once must not be repeated at once, whatever asked for it: a
//! missing script would keep a CPU busy and fill the log. The first failure costs nothing, so that a resource that died
//! runs again without delay. Each further failure in a row doubles the pause between two attempts, counted from the
//! beginning of the failed one. A group that has run for a while has no failures any more.

use super::*;

/// The pause after the second failure in a row.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to start or stop what keeps failing.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A group that has run for this time begins to count its failures anew.
pub const CALM: Duration = Duration::from_secs(60);
/// So does a group that was not attempted for this time.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// When a group is not wanted any more, a start that has lasted for this time is ended. A shorter one may come to its
/// end.
pub const LONG_START: Duration = Duration::from_secs(5);

/// Failed attempts of one group: starts, stops that nothing could bring about, and monitors that failed soon after a
/// start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    /// When the last one was begun.
    begun: Instant,
    /// Nothing is attempted before this time.
    until: Instant,
    /// Since when all of it runs.
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
    /// Whether the next attempt has to wait. [`Groups::tick`] makes it when the pause is over, if it is still wanted.
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

    /// Ends a start that hangs, if the group is not wanted any more: a stop does not wait until it has used up its limit.
    pub(super) fn abandon(&mut self, now: Instant, group: GroupIndex, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        if state.abandon.take_if(|at| now >= *at).is_none() {
            return;
        }
        let is_wanted = state.wanted && state.floor.is_none();
        if is_wanted || !matches!(state.phase, GroupPhase::Starting(_)) {
            return;
        }
        let step = self.under_way(group).find(|(_, (_, _, purpose))| *purpose == Purpose::Step);
        let Some((ticket, &(resource, ..))) = step else { return };
        out.push_back(Action::Abandon(ticket));
        let text = format!(
            "{} has not started yet and is not wanted any more: its start was ended",
            self.member(resource).text
        );
        self.note(group, Level::Warning, text, out);
    }

    /// Ends all starts that are under way: those groups are not wanted any more. Running groups go on.
    pub fn end_starts(&mut self, out: &mut VecDeque<Action>) {
        for group in (0..self.states.len()).map(GroupIndex) {
            if matches!(self.states[group.0].phase, GroupPhase::Starting(_)) {
                self.want(group, false, out);
            }
        }
    }

    /// A person has seen to the failures: failed groups are attempted at once.
    pub fn forgive(&mut self, out: &mut VecDeque<Action>) {
        for group in (0..self.states.len()).map(GroupIndex) {
            let state = &mut self.states[group.0];
            let Attempts { begun, runs, .. } = state.attempts;
            state.attempts = Attempts { begun, runs, ..Attempts::default() };
            match (state.phase, state.frozen) {
                _ if state.pause.is_none() => continue,
                (GroupPhase::Stopped | GroupPhase::StopFailed(_), false) => {
                    state.pause = None;
                    self.pursue(group, out);
                }
                (GroupPhase::Starting(_), false) => state.pause = Some(self.now),
                _ => {}
            }
            self.touch(group);
        }
    }

    /// Until when the next attempt of a failed group waits, if one is wanted.
    #[must_use]
    pub fn paused(&self, group: GroupIndex) -> Option<Instant> {
        let state = &self.states[group.0];
        let is_attempt =
            matches!(state.phase, GroupPhase::Stopped | GroupPhase::Starting(_) | GroupPhase::StopFailed(_));
        state.pause.filter(|_| is_attempt)
    }
}
