//! Monitors: each running member is asked for its status at its own period, and never twice at once. Every answer but "it
//! runs" is a failure. The answers about one run of a group say nothing about the next.

use super::*;

/// First questions are spread over this part of the period, so that a thousand members are not asked at once.
const SPREAD: u32 = 8;

impl Groups {
    /// All of the group runs since `now`: its members are monitored from now on.
    pub(super) fn watch(&mut self, group: GroupIndex, now: Instant) {
        self.states[group.0].run += 1;
        for member in 0..self.members(group) {
            let resource = ResourceId { group, member };
            let every = self.member(resource).monitor_every;
            // A member whose monitor of the run before is under way is asked again after its answer.
            let asked = self.is_asked(resource);
            let first = every.map(|every| now + every + spread(resource, every));
            self.states[group.0].monitors[member] = first.filter(|_| !asked);
        }
    }

    pub(super) fn is_asked(&self, of: ResourceId) -> bool {
        let asks = |purpose| matches!(purpose, Purpose::Monitor(_));
        self.under_way(of.group).any(|(_, (resource, _, purpose))| *resource == of && asks(*purpose))
    }

    /// Begins the monitors that are due.
    pub(super) fn ask(&mut self, now: Instant, group: GroupIndex, out: &mut VecDeque<Action>) {
        let state = &mut self.states[group.0];
        if state.phase != GroupPhase::Running {
            return;
        }
        let run = state.run;
        for member in 0..state.monitors.len() {
            if self.states[group.0].monitors[member].take_if(|at| now >= *at).is_some() {
                let resource = ResourceId { group, member };
                self.run(resource, Operation::Status, Purpose::Monitor(run), out);
            }
        }
    }

    pub(super) fn monitored(
        &mut self,
        now: Instant,
        resource: ResourceId,
        run: u64,
        outcome: &Outcome,
        out: &mut VecDeque<Action>,
    ) {
        let ResourceId { group, member } = resource;
        let every = self.member(resource).monitor_every;
        let state = &mut self.states[group.0];
        if state.phase != GroupPhase::Running {
            return;
        }
        state.monitors[member] = every.map(|every| now + every);
        if state.run != run || breakage::is(Breakage::MonitorIgnored) {
            return;
        }
        if *outcome == Outcome::Running {
            if state.complaints.remove(&member).is_some() {
                let text = format!("{} runs again", self.member(resource).text);
                self.note(group, Level::Info, text, out);
            }
        } else if state.frozen {
            self.complain(resource, outcome, out);
        } else if !self.is_being_put_back(resource) {
            self.member_failed(now, resource, self.members(group) - 1, outcome, out);
        }
    }

    /// Logs a failure of a frozen group, once for each different answer.
    fn complain(&mut self, resource: ResourceId, outcome: &Outcome, out: &mut VecDeque<Action>) {
        let why = format!("{outcome}");
        let state = &mut self.states[resource.group.0];
        if state.complaints.insert(resource.member, why.clone()).as_ref() != Some(&why) {
            let name = &self.member(resource).text;
            let text = format!("{name} failed: {why}; the group is frozen: nothing is done");
            self.note(resource.group, Level::Error, text, out);
        }
    }
}

/// How much later the first monitor of a member is due: always the same for one member, and different for most of them.
fn spread(resource: ResourceId, every: Duration) -> Duration {
    let which = (resource.group.0 * 31 + resource.member) % 16;
    let sixteenth = every / SPREAD / 16;
    sixteenth * u32::try_from(which).unwrap_or(0)
}
