//! Fault schedules: random steps within narrow bounds. They lead a cluster to states where a single rule of the claims
//! keeps two machines from owning one group. The planted breakages show that they do.

use super::faults::ScenarioStep;
use crate::rng::Rng;

/// The cluster against which a fault schedule is made.
#[derive(Clone, Copy, Debug)]
pub struct FaultSchedule {
    /// Its pace in milliseconds, which is also its lease.
    pub pace: u64,
    /// Number of nodes and witnesses.
    pub members: usize,
    pub nodes: usize,
    pub groups: usize,
}

impl FaultSchedule {
    /// The steps of one random fault schedule.
    pub fn steps(&self, rng: &mut Rng) -> Vec<ScenarioStep> {
        match rng.below(3) {
            0 => self.late_answers(rng),
            1 => self.old_echoes(rng),
            _ => self.old_frames(rng),
        }
    }

    /// The answers of voters to a claimant take a good part of its lease, and the claimant is cut off while they are
    /// under way. It must not count its lease from their arrival.
    fn late_answers(&self, rng: &mut Rng) -> Vec<ScenarioStep> {
        let victim = below(rng, self.nodes);
        let longest = 1 + rng.below(self.pace / 2);
        let others = (0..self.members).filter(|other| *other != victim);
        let mut steps: Vec<ScenarioStep> =
            others.map(|other| ScenarioStep::Slow(other, victim, rng.below(longest))).collect();
        steps.extend(self.moves(rng, victim));
        // The owner stops, releases, and is answered twice.
        steps.push(ScenarioStep::Wait(1 + rng.below(200 + longest * 3)));
        steps.extend(self.cut_off(rng, victim));
        steps
    }

    /// A node starts again, and some voters do not hear its new run. They echo beats of the old run, whose numbers are
    /// close to those that the new run reaches before it is cut off.
    fn old_echoes(&self, rng: &mut Rng) -> Vec<ScenarioStep> {
        let victim = below(rng, self.nodes);
        let deaf = (1 + below(rng, self.members - 1), (self.members - 1) / 2);
        let deaf = (0..deaf.1).map(|other| (victim + deaf.0 + other) % self.members);
        let mut steps = vec![ScenarioStep::Kill(victim), ScenarioStep::Start(victim)];
        steps.push(ScenarioStep::Wait(self.pace * 2 + rng.below(self.pace * 3)));
        steps.extend(deaf.filter(|other| *other != victim).map(|other| ScenarioStep::Cut(victim, other)));
        steps.extend([ScenarioStep::Kill(victim), ScenarioStep::Start(victim)]);
        steps.push(ScenarioStep::Wait(self.pace + rng.below(self.pace * 2)));
        steps.extend(self.moves(rng, victim));
        steps.push(ScenarioStep::Wait(1 + rng.below(self.pace * 2)));
        steps.extend(self.cut_off(rng, victim));
        steps
    }

    /// Frames come again long after they were sent, while groups go to and fro.
    fn old_frames(&self, rng: &mut Rng) -> Vec<ScenarioStep> {
        let percent = u8::try_from(20 + rng.below(60)).unwrap_or(20);
        let mut steps = vec![ScenarioStep::Repeat(percent, self.pace / 2 + rng.below(self.pace * 3))];
        for _ in 0..2 + rng.below(6) {
            let to = below(rng, self.nodes);
            steps.extend(self.moves(rng, to));
            let longest = if rng.chance(50) { self.pace / 2 } else { self.pace * 2 };
            steps.push(ScenarioStep::Wait(1 + rng.below(longest)));
        }
        steps
    }

    /// An administrator moves everything to one node.
    fn moves(&self, rng: &mut Rng, to: usize) -> Vec<ScenarioStep> {
        let asked = below(rng, self.nodes);
        (0..self.groups).map(|group| ScenarioStep::Move(asked, group, Some(to))).collect()
    }

    /// Cuts a member off until another one has taken over what it had.
    fn cut_off(&self, rng: &mut Rng, member: usize) -> Vec<ScenarioStep> {
        let until = ScenarioStep::Wait(self.pace * 2 + rng.below(self.pace * 2));
        vec![
            ScenarioStep::Split(1 << member),
            until,
            ScenarioStep::Heal,
            ScenarioStep::Wait(1 + rng.below(self.pace * 3)),
        ]
    }
}

fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.below(end as u64)).unwrap_or(0)
}
