//! The gates of this node's service addresses. R1 has no leases: an open gate says that the daemon runs and its beats
//! leave.

use super::*;

impl R1Director {
    /// Extends the gates of all groups with each beat, heard or not. Groups that do not run here have no address here
    /// to answer with.
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

    /// How long a gate stays open after a beat. The other node takes over one deadtime after the last beat it heard, by
    /// the shorter of our deadtime and its own. The gate shuts one beat before that. It stays open for at least two
    /// beats, or a single late beat would shut it. If deadtime is less than three beats, the gate shuts no earlier than
    /// the takeover.
    fn gate_lease(&self) -> Duration {
        let deadtime = self.plan.timing.deadtime;
        let waits = self.peer.as_ref().and_then(|peer| peer.waits).unwrap_or(deadtime);
        let every = self.beat_interval();
        waits.min(deadtime).saturating_sub(every).max(every * 2)
    }
}
