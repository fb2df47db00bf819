//! The search: checks the invariants in a scenario's states, breadth first. So it finds a shortest path to a violation
//! first.

use std::{
    fmt,
    time::{Duration, Instant},
};

use locum_core::model::claim::Ballot;
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::{
    scenario::Scenario,
    step,
    world::{Act, Fault, Guard, World},
};

impl Model for &'static Scenario {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![(self.begin)(&self.rules)]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        world.acts(&self.rules, acts);
    }

    fn next_state(&self, world: &World, act: Act) -> Option<World> {
        Some(world.after(&self.rules, &act))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("at most one node holds an unexpired claim", |_, world: &World| {
                world.holders().count() <= 1
            }),
            Property::always("at most one gate is open", |_, world: &World| world.open_gates().count() <= 1),
            Property::always("a gate is open only under an unexpired claim", |_, world: &World| {
                world
                    .open_gates()
                    .all(|index| world.seats[usize::from(index)].member.is_none() || world.holds(index))
            }),
            Property::always("no ballot is used twice", |_, world: &World| {
                world.fault != Some(Fault::BallotTwice)
            }),
            Property::always("epochs only grow", |_, world: &World| world.fault != Some(Fault::EpochFell)),
            // This shows that a search has seen anything at all.
            Property::sometimes("gained", |_, world: &World| !world.gained.is_empty()),
        ];
        if self.rules.guard != Guard::Lease {
            properties.push(Property::always("no two nodes run the group", |_, world: &World| {
                world.copies().count() <= 1
            }));
        }
        properties.extend(self.sees.iter().map(|sight| sight.property()));
        properties
    }
}

/// A situation that a scenario must have seen, to show that it tests anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    /// A node gained the group after another node had gained it.
    Followed,
    /// A claim was made again under a higher ballot, and the epoch stayed.
    ClaimedAgain,
    /// An earlier owner was cleared from a claim.
    Cleared,
    /// A node holds the group and may not start it yet.
    Waits,
    /// A gate is open, and the daemon that opened it is dead.
    Outlived,
    /// The group runs on after its lease has ended.
    RunsOn,
    /// A voter that had lost its file votes again (member 2).
    Copied,
    /// A lease was extended by beats.
    Renewed,
}

impl Situation {
    fn property(self) -> Property<&'static Scenario> {
        match self {
            Self::Followed => Property::sometimes("followed by another", |_, world: &World| {
                world.gained.windows(2).any(|pair: &[Ballot]| pair[0].node != pair[1].node)
            }),
            Self::ClaimedAgain => Property::sometimes("claimed again", |_, world: &World| {
                let again = |index| world.held(index).is_some_and(|held| held.claim.ballot > held.epoch);
                world.holders().any(again)
            }),
            Self::Cleared => Property::sometimes("struck", |_, world: &World| {
                world.holders().any(|index| world.held(index).is_some_and(|held| held.claim.version > 1))
            }),
            Self::Waits => Property::sometimes("holds and waits", |_, world: &World| {
                world.holders().any(|index| world.seats[usize::from(index)].runs.is_none())
            }),
            Self::Outlived => Property::sometimes("the gate outlives the daemon", |_, world: &World| {
                world.open_gates().any(|index| world.seats[usize::from(index)].member.is_none())
            }),
            Self::RunsOn => Property::sometimes("runs on after its lease", |_, world: &World| {
                world.copies().any(|index| !world.holds(index))
            }),
            Self::Copied => {
                Property::sometimes("a voter without its file votes again", |_, world: &World| {
                    world.seats[2].run_number > 1 && world.left.losses[2] == 0 && world.is_voting(2)
                })
            }
            Self::Renewed => {
                Property::sometimes("renewed by beats", |scenario: &&'static Scenario, world: &World| {
                    let long = world.now > world.began + scenario.rules.lease;
                    long && world.gained.len() == 1 && world.holders().next().is_some()
                })
            }
        }
    }
}

/// Limits of a search.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Paths longer than this many steps are not looked at.
    pub depth: Option<usize>,
    /// The search ends after this many states.
    pub states: Option<usize>,
    /// Number of threads. With one, the path found is a shortest one.
    pub threads: usize,
}

/// A path to a state that violates an invariant.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: &'static str,
    /// The events that lead to the violation.
    pub acts: Vec<Act>,
}

/// The outcome of a search.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Number of different states seen.
    pub states: usize,
    /// The longest path, in steps.
    pub depth: usize,
    /// Duration of the search.
    pub took: Duration,
    /// Whether all states were seen, and not only those within the limits.
    pub exhausted: bool,
    pub violation: Option<Violation>,
    /// Situations that should have been seen and were not.
    pub unseen: Vec<&'static str>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rate to be read")]
        let rate = self.states as f64 / seconds;
        let end = if self.exhausted { "exhausted" } else { "up to the limit" };
        write!(
            f,
            "{} states, {} steps deep, {end}, {seconds:.1} s, {rate:.0} states/s",
            self.states, self.depth
        )?;
        if !self.unseen.is_empty() {
            write!(f, "; never seen: {}", self.unseen.join(", "))?;
        }
        if let Some(violation) = &self.violation {
            write!(f, "\n  VIOLATED in {} steps: {}", violation.acts.len(), violation.invariant)?;
            for (number, act) in violation.acts.iter().enumerate() {
                write!(f, "\n  {:>3} {act}", number + 1)?;
            }
        }
        Ok(())
    }
}

/// Searches a scenario until it is exhausted, an invariant is violated, or a limit is reached.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the rate of a search is measured")]
pub fn search(scenario: &'static Scenario, limits: Limits) -> Outcome {
    let start = Instant::now();
    step::forget();
    let mut builder = scenario.checker().threads(limits.threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(depth) = limits.depth {
        // The library's depth counts states, ours the steps between them.
        builder = builder.target_max_depth(depth + 1);
    }
    if let Some(states) = limits.states {
        builder = builder.target_state_count(states);
    }
    let checker = builder.spawn_bfs().join();
    let took = start.elapsed();
    let mut violations: Vec<Violation> = Vec::new();
    let mut unseen = Vec::new();
    let properties = scenario.properties();
    for property in &properties {
        let found = checker.discovery(property.name);
        if property.expectation == stateright::Expectation::Sometimes {
            if found.is_none() {
                unseen.push(property.name);
            }
        } else if let Some(path) = found {
            violations.push(Violation { invariant: property.name, acts: path.into_actions() });
        }
    }
    violations.sort_by_key(|violation| violation.acts.len());
    let depth = checker.max_depth().saturating_sub(1);
    let cut = limits.depth.is_some_and(|limit| depth >= limit)
        || limits.states.is_some_and(|limit| checker.state_count() >= limit);
    Outcome {
        states: checker.unique_state_count(),
        depth,
        took,
        exhausted: !cut && violations.is_empty(),
        violation: violations.into_iter().next(),
        unseen,
    }
}
