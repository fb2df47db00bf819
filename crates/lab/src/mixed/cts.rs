//! The random runner, in the manner of heartbeat's own cluster test suite: any step that is possible may follow any
//! other. All chance comes from a seed, and every step is audited.

use std::{collections::VecDeque, time::Duration};

use super::{
    cluster::Life,
    step::{Set, Step, Who},
};
use crate::dice::Dice;

/// Longer than deadtime.
const FROZEN: Duration = Duration::from_secs(4);

/// Chooses steps.
#[derive(Debug)]
pub(super) struct Chooser {
    dice: Dice,
    /// What follows from a choice that was made.
    next: VecDeque<Step>,
}

impl Chooser {
    pub(super) fn new(seed: u64) -> Self {
        // Both start at once: there must be something to disturb.
        Self { dice: Dice::new(seed, 0xc75), next: VecDeque::from([Step::Start(Who::Both)]) }
    }

    /// The next step for a cluster whose nodes live like this.
    pub(super) fn choose(&mut self, lives: [Life; 2]) -> Step {
        if let Some(step) = self.next.pop_front() {
            return step;
        }
        let possible = Self::possible(lives);
        let total: u32 = possible.iter().map(|&(weight, _)| weight).sum();
        let mut point = self.dice.fraction() * f64::from(total);
        let mut chosen = &possible[0].1;
        for (weight, steps) in &possible {
            chosen = steps;
            point -= f64::from(*weight);
            if point < 0.0 {
                break;
            }
        }
        self.next.extend(chosen);
        self.next.pop_front().expect("every choice has a step")
    }

    /// What may happen, each with a weight.
    fn possible(lives: [Life; 2]) -> Vec<(u32, Vec<Step>)> {
        let runs = lives.map(|life| life == Life::Running);
        let mut possible = Vec::new();
        for node in 0..2 {
            let who = Who::at(node);
            if runs[node] {
                possible.push((4, vec![Step::Stop(who)]));
                possible.push((4, vec![Step::Stop(who), Step::Start(who)]));
                possible.push((2, vec![Step::PowerOff(who)]));
            } else {
                possible.push((16, vec![Step::Start(who)]));
            }
            if runs == [true; 2] {
                for set in Set::EVERY {
                    possible.push((1, vec![Step::Standby(who, set)]));
                    possible.push((1, vec![Step::Takeover(who, set)]));
                }
                possible.push((3, vec![Step::Kill(who)]));
                possible.push((1, vec![Step::Freeze(who, FROZEN)]));
            }
        }
        match runs {
            [true, true] => {
                possible.push((3, vec![Step::Stop(Who::Both), Step::Start(Who::Both)]));
                possible.push((4, vec![Step::Split, Step::Heal]));
            }
            [false, false] => possible.push((16, vec![Step::Start(Who::Both)])),
            _ => {}
        }
        possible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_chooses_the_same_steps_and_all_kinds_of_them() {
        let steps = |seed| {
            let mut chooser = Chooser::new(seed);
            (0..500).map(|_| chooser.choose([Life::Running; 2]).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(steps(3), steps(3));
        assert_ne!(steps(3), steps(4));
        for kind in ["stop 1", "stop 1 and 2", "split", "heal", "kill 2", "standby 1 all", "takeover 2 local"]
        {
            assert!(steps(3).iter().any(|step| step == kind), "{kind}");
        }
        let mut chooser = Chooser::new(5);
        chooser.choose([Life::Idle; 2]);
        let alone = (0..100).map(|_| chooser.choose([Life::Off, Life::Killed]).to_string());
        assert!(alone.into_iter().all(|step| step.starts_with("start")));
    }
}
