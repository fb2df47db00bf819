//! The gates of this node's service addresses. R1 has no leases: a gate tells that the daemon lives, and its beats leave.

use super::*;

impl Director {
    /// With each beat, whether or not anybody hears it: the addresses of all groups may answer for a while. Of those that do
    /// not run here none stands here.
    pub(super) fn open_gates(&mut self) {
        let sent = self.now.instant;
        let lease = Some(GateLease { until: sent + self.gate_lease(), sent, ballot: Ballot::ZERO });
        let gated = |group: &&GroupIndex| {
            let resources = &self.plan.groups[group.0].resources;
            resources.iter().any(|resource| matches!(resource.agent, Agent::Address(_)))
        };
        let groups = (0..self.plan.groups.len()).map(GroupIndex);
        let gates = groups.filter(|group| gated(&group)).map(|group| Action::Gate { group, lease });
        self.out.extend(gates);
    }

    /// How long a gate stays open after a beat. The other node takes over a deadtime after the last beat that it heard, by the
    /// shorter one of ours and its own: the gate is shut one beat before that. Never less than two beats, or a single late one
    /// would shut it; where deadtime is less than three, that is as late as the takeover, or later.
    fn gate_lease(&self) -> Duration {
        let deadtime = self.plan.timing.deadtime;
        let waits = self.peer.as_ref().and_then(|peer| peer.waits).unwrap_or(deadtime);
        let every = self.beat_interval();
        waits.min(deadtime).saturating_sub(every).max(every * 2)
    }
}
