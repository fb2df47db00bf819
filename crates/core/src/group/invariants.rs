//! What holds of a group after every change, whatever its agents say. Checked in release builds, too: a violation is a fault of
//! Locum, and then the daemon ends, so that its gates close, before it starts or stops something wrong.

use super::*;

impl Groups {
    /// Costs what the group's own operations under way are: few.
    pub(super) fn assert_sound(&self, group: GroupIndex) {
        let (spec, state) = (&self.specs[group.0], &self.states[group.0]);
        let (key, phase, members) = (&spec.key, state.phase, spec.members.len());
        assert!(
            state.begun.len() == members,
            "{key}: not of every member it is known whether it was started"
        );
        assert!(state.monitors.len() == members, "{key}: not of every member it is known when it is asked");
        assert!(
            state.floor.is_none_or(|floor| floor < members),
            "{key}: stopped down to a member it does not have"
        );
        assert!(
            state.unstopped.is_none_or(|member| member < members),
            "{key}: a member it does not have still runs"
        );
        for ticket in &self.tickets[group.0] {
            let running = self.running.get(ticket);
            assert!(
                running.is_some_and(|(id, ..)| id.group == group),
                "{key}: an operation of another group"
            );
        }
        let is_step = |purpose| purpose == Purpose::Step;
        let steps = self.under_way(group).filter(|(_, (_, _, purpose))| is_step(*purpose)).count();
        assert!(steps <= 1, "{key}: two of its steps at once");
        let waits = state.pause.is_some() || state.waits || state.postponed.is_some();
        match phase {
            GroupPhase::Stopped | GroupPhase::Running | GroupPhase::StopFailed(_) => {
                assert!(steps == 0, "{key}: {phase:?}, and something of it is being started or stopped");
            }
            GroupPhase::Starting(step) | GroupPhase::Stopping(step) => {
                assert!(step < members, "{key}: {phase:?} is past its last member");
                assert!(steps == 1 || waits, "{key}: {phase:?}, and nothing goes on");
            }
        }
        match phase {
            GroupPhase::Stopped => {
                assert!(state.floor.is_none(), "{key}: stopped, and still to be stopped");
            }
            GroupPhase::Running => {
                assert!(state.begun.iter().all(|begun| *begun), "{key}: runs, and not all of it was started");
                assert!(state.unstopped.is_none(), "{key}: runs, and something of it could not be stopped");
            }
            GroupPhase::StopFailed(member) => {
                assert!(member < members, "{key}: a member it does not have cannot be stopped");
                assert!(
                    !state.wanted || state.pause.is_some() || state.frozen,
                    "{key}: wanted, and nothing is tried"
                );
            }
            GroupPhase::Starting(_) | GroupPhase::Stopping(_) => {}
        }
    }
}
