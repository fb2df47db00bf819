//! Stopping, and what is done when a stop fails, as the member's [`FailedStop`] says:
//!
//! * the stop is tried [`STOP_TRIES`] times, and then the agent is asked whether the member still runs;
//! * it goes down a ladder, each rung with a limit: the agent is asked to stop the member; its processes are told to
//!   terminate; they are killed. After each of the lower rungs the agent is asked whether the member still runs.
//!
//! Only the answer "it does not run" ends a stop. After any other last answer the member is stop-failed, and a person
//! (or, if a guard asks for it, a watchdog) is needed.

use super::*;

/// How often a stop that fails is tried, as heartbeat's HA_STOPRETRYMAX.
pub const STOP_TRIES: u32 = 10;
/// The pause between two tries of a stop.
pub const STOP_PAUSE: Duration = Duration::from_secs(1);
/// How long killed processes may take to be gone.
pub const KILL_LIMIT: Duration = Duration::from_secs(5);

impl Groups {
    pub(super) fn stop(&mut self, group: GroupIndex, step: usize, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        let begun = step;
        let step = state.unstopped.take().map_or(begun, |member| begun.max(member));
        if step > begun {
            // From there on, only the member that could not be stopped may run. If the group is wanted again, it goes on
            // from there.
            state.floor = Some(state.floor.map_or(begun, |floor| floor.min(begun)));
        }
        state.phase = GroupPhase::Stopping(step);
        state.tries = 0;
        state.rung = Operation::Stop;
        state.pause = None;
        state.abandon = None;
        state.complaints.clear();
        // A repair that ended after the stop would leave the address here.
        state.waits = true;
        self.end_wait(group, out);
    }

    /// The stop that waits for repairs begins, once they have ended.
    pub(super) fn end_wait(&mut self, group: GroupIndex, out: &mut VecDeque<Action>) {
        let state = &self.states[group.0];
        if let GroupPhase::Stopping(step) = state.phase
            && state.waits
            && !self.is_repairing(group)
        {
            self.states[group.0].waits = false;
            let member = self.in_stop_order(group, step);
            self.step(ResourceId { group, member }, Operation::Stop, out);
        }
    }

    pub(super) fn stop_goes_on(
        &mut self,
        now: Instant,
        resource: ResourceId,
        operation: Operation,
        outcome: &Outcome,
        out: &mut VecDeque<Action>,
    ) {
        let group = resource.group;
        let GroupPhase::Stopping(step) = self.states[group.0].phase else { return };
        match (operation, outcome) {
            (Operation::Stop, Outcome::Ok) => self.member_stopped(group, step, out),
            // A member without an agent here that was not started here does not run here.
            (Operation::Stop, Outcome::Missing(_))
                if !self.states[group.0].begun[resource.member]
                    && !breakage::is(Breakage::MissingCannotBeStopped) =>
            {
                self.member_stopped(group, step, out);
            }
            (Operation::Stop, failed) => match self.member(resource).failed_stop {
                FailedStop::TryAgain => self.try_again(now, resource, failed, out),
                FailedStop::Ladder { .. } => self.descend(resource, failed, out),
            },
            (Operation::Terminate | Operation::Kill, Outcome::Ok) => {
                self.step(resource, Operation::Status, out);
            }
            (Operation::Status, Outcome::Stopped) => {
                let name = &self.member(resource).text;
                let text = format!("{name} does not run, although its stop failed; going on");
                self.note(group, Level::Error, text, out);
                self.member_stopped(group, step, out);
            }
            (_, outcome) => self.descend(resource, outcome, out),
        }
    }

    fn try_again(
        &mut self,
        now: Instant,
        resource: ResourceId,
        failed: &Outcome,
        out: &mut VecDeque<Action>,
    ) {
        let state = &mut self.states[resource.group.0];
        state.tries += 1;
        let tries = state.tries;
        if tries < STOP_TRIES {
            state.pause = Some(now + STOP_PAUSE);
        } else {
            // The next answer is the last one.
            state.rung = Operation::Kill;
        }
        let name = &self.member(resource).text;
        let text = format!("stop of {name} failed ({tries} of {STOP_TRIES}): {failed}");
        self.note(resource.group, Level::Error, text, out);
        if tries == STOP_TRIES {
            self.step(resource, Operation::Status, out);
        }
    }

    /// The next rung of the ladder, or the end after the last one.
    fn descend(&mut self, resource: ResourceId, outcome: &Outcome, out: &mut VecDeque<Action>) {
        let name = &self.member(resource).text;
        let state = &self.states[resource.group.0];
        let (next, text) = match state.rung {
            Operation::Kill => return self.give_up_stopping(resource, outcome, out),
            _ if breakage::is(Breakage::LadderOfOneRung) => {
                return self.give_up_stopping(resource, outcome, out);
            }
            Operation::Terminate => {
                (Operation::Kill, format!("{name} was told to terminate: {outcome}; killing its processes"))
            }
            _ => (
                Operation::Terminate,
                format!("stop of {name} failed: {outcome}; telling its processes to terminate"),
            ),
        };
        self.note(resource.group, Level::Error, text, out);
        self.states[resource.group.0].rung = next;
        self.step(resource, next, out);
    }

    fn give_up_stopping(&mut self, resource: ResourceId, outcome: &Outcome, out: &mut VecDeque<Action>) {
        let group = resource.group;
        let state = &mut self.states[group.0];
        let GroupPhase::Stopping(step) = state.phase else { return };
        if state.wanted && state.floor.is_none() {
            return self.start(group, step, out);
        }
        state.wanted = false;
        state.floor = None;
        state.phase = GroupPhase::StopFailed(step);
        state.attempts.failed(self.now);
        let name = &self.member(resource).text;
        let text = format!("{name} cannot be stopped ({outcome}): stop-failed, a person is needed");
        self.note(group, Level::Critical, text, out);
        self.events.push_back(GroupEvent::StopFailed(group));
    }

    fn member_stopped(&mut self, group: GroupIndex, step: usize, out: &mut VecDeque<Action>) {
        let member = self.in_stop_order(group, step);
        let state = &mut self.states[group.0];
        state.begun[member] = false;
        if state.wanted && state.floor.is_none_or(|floor| step <= floor) {
            return self.start(group, step, out);
        }
        if step > 0 {
            return self.stop(group, step - 1, out);
        }
        state.phase = GroupPhase::Stopped;
        state.floor = None;
        let failed = state.failure.is_some();
        self.events.push_back(if failed { GroupEvent::Failed(group) } else { GroupEvent::Stopped(group) });
    }
}
