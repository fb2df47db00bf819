//! What holds of a group after every change, whatever its agents say. Checked in release builds, too: a violation is a fault of
//! Locum, and then the daemon ends, so that its gates close, before it starts or stops something wrong.

use super::*;

impl Groups {
    /// Costs what the group's own operations under way are: few.
    pub(super) fn assert_sound(&self, group: GroupIndex) {
        let (spec, state) = (&self.specs[group.0], &self.states[group.0]);
        let (key, phase, members) = (&spec.key, state.phase, spec.members.len());
        assert!(state.begun.len() == members, "{key}: its list of started members has another length");
        assert!(state.monitors.len() == members, "{key}: its list of monitor times has another length");
        assert!(
            state.floor.is_none_or(|floor| floor < members),
            "{key}: stopped down to a member it does not have"
        );
        assert!(
            state.unstopped.is_none_or(|member| member < members),
            "{key}: a member it does not have still runs"
        );
        let mut steps = 0;
        for ticket in &self.tickets[group.0] {
            let running = self.running.get(ticket).filter(|(id, ..)| id.group == group);
            assert!(running.is_some(), "{key}: an operation of another group");
            steps += usize::from(running.is_some_and(|(_, _, purpose)| *purpose == Purpose::Step));
        }
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
