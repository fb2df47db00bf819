//! The random runner, like heartbeat's own cluster test suite: any step that is possible may follow any other. All
//! random numbers come from a seed, and every step is audited.

use std::{collections::VecDeque, time::Duration};

use super::{
    cluster::NodeState,
    files::{Medium, MixedSettings},
    step::{NodeSelector, Planned, Set, Step},
};
use crate::dice::Dice;

/// Longer than the cluster's deadtime.
const FROZEN: Duration = Duration::from_secs(4);
/// Longest time after which the next step follows one that is not waited for.
const HURRY_MAX: Duration = Duration::from_millis(2500);

/// Chooses random steps from a seed.
#[derive(Debug)]
pub(super) struct Chooser {
    dice: Dice,
    /// Whether steps may follow before others have ended.
    hurries: bool,
    /// The remaining steps of a choice that was made.
    next: VecDeque<Planned>,
}

impl Chooser {
    pub(super) fn new(seed: u64, hurries: bool) -> Self {
        // Both daemons start at once: there must be something to disturb.
        let next = VecDeque::from([Planned::new(Step::Start(NodeSelector::Both), "")]);
        Self { dice: Dice::new(seed, 0xc75), hurries, next }
    }

    /// The random settings of the cluster.
    pub(super) fn settings(&mut self) -> MixedSettings {
        const MEDIA: [&[Medium]; 4] = [
            &[Medium::Bcast, Medium::Serial],
            &[Medium::Bcast],
            &[Medium::Ucast],
            &[Medium::Mcast, Medium::Serial],
        ];
        const SLOW: [Duration; 2] = [Duration::ZERO, Duration::from_secs(3)];
        const LOSS: [Option<u32>; 3] = [None, None, Some(5)];
        const FAILBACK: [&str; 2] = ["on", "off"];
        let media = MEDIA[self.one_of(MEDIA.len())];
        let auto_failback = FAILBACK[self.one_of(FAILBACK.len())];
        let slow = SLOW[self.one_of(SLOW.len())];
        let loss = LOSS[self.one_of(LOSS.len())];
        MixedSettings { media, auto_failback, slow, loss, ..MixedSettings::USUAL }
    }

    fn one_of(&mut self, many: usize) -> usize {
        let point = self.dice.fraction() * many as f64;
        (1..many).filter(|&step| point >= step as f64).count()
    }

    /// The next step for a cluster whose nodes are in these states.
    pub(super) fn choose(&mut self, node_states: [NodeState; 2]) -> Planned {
        if let Some(planned) = self.next.pop_front() {
            return planned;
        }
        let possible = Self::possible(node_states);
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
        let last = chosen.len() - 1;
        for (place, &step) in chosen.iter().enumerate() {
            // Some steps follow before the ones before them have ended.
            let hurry = self.hurries && place < last && step != Step::Split && self.dice.throw(0.5);
            let hurry = hurry.then(|| HURRY_MAX.mul_f64(self.dice.fraction()));
            self.next.push_back(Planned { step, owners: "", hurry });
        }
        self.next.pop_front().expect("every choice has a step")
    }

    /// The possible steps, each with a weight.
    fn possible(node_states: [NodeState; 2]) -> Vec<(u32, Vec<Step>)> {
        let runs = node_states.map(|life| life == NodeState::Running);
        let mut possible = Vec::new();
        for node in 0..2 {
            let who = NodeSelector::at(node);
            if runs[node] {
                possible.push((4, vec![Step::Stop(who)]));
                possible.push((4, vec![Step::Stop(who), Step::Start(who)]));
                possible.push((2, vec![Step::PowerOff(who)]));
            } else {
                possible.push((16, vec![Step::Start(who)]));
                if runs[1 - node] {
                    possible.push((2, vec![Step::Start(who), Step::Stop(NodeSelector::at(1 - node))]));
                    possible.push((2, vec![Step::Start(who), Step::PowerOff(NodeSelector::at(1 - node))]));
                }
            }
            if runs == [true; 2] {
                for set in Set::EVERY {
                    possible.push((1, vec![Step::Standby(who, set)]));
                    possible.push((1, vec![Step::Takeover(who, set)]));
                }
                for (set, other) in [(Set::All, NodeSelector::at(1 - node)), (Set::Local, who)] {
                    possible.push((1, vec![Step::Standby(who, set), Step::Stop(other)]));
                    possible.push((1, vec![Step::Standby(who, set), Step::PowerOff(other)]));
                    possible.push((1, vec![Step::Takeover(who, set), Step::Kill(other)]));
                    possible.push((1, vec![Step::Standby(who, set), Step::Takeover(other, set)]));
                }
                possible.push((1, vec![Step::PowerOff(who), Step::Start(who)]));
                possible.push((1, vec![Step::Kill(who), Step::Start(who)]));
                possible.push((3, vec![Step::Kill(who)]));
                possible.push((1, vec![Step::Freeze(who, FROZEN)]));
            }
        }
        match runs {
            [true, true] => {
                possible.push((3, vec![Step::Stop(NodeSelector::Both), Step::Start(NodeSelector::Both)]));
                possible.push((1, vec![Step::Standby(NodeSelector::Both, Set::Local)]));
                possible.push((4, vec![Step::Split, Step::Heal]));
            }
            [false, false] => possible.push((16, vec![Step::Start(NodeSelector::Both)])),
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
            let mut chooser = Chooser::new(seed, true);
            (0..500).map(|_| chooser.choose([NodeState::Running; 2]).step.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(steps(3), steps(3));
        assert_ne!(steps(3), steps(4));
        for kind in ["stop 1", "stop 1 and 2", "split", "heal", "kill 2", "standby 1 all", "takeover 2 local"]
        {
            assert!(steps(3).iter().any(|step| step == kind), "{kind}");
        }
        let mut chooser = Chooser::new(5, false);
        chooser.choose([NodeState::Idle; 2]);
        let alone = (0..100).map(|_| chooser.choose([NodeState::Off, NodeState::Killed]).step);
        assert!(alone.into_iter().any(|step| matches!(step, Step::Start(NodeSelector::First))));
    }
}
