//! The search: a scenario's worlds, breadth first, each looked at by the invariants. The shortest way to a violation is
//! what it finds first.

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
            // What shows that a search has seen something.
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

/// What a scenario must have seen, for it not to be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A node gained what another had gained before.
    Followed,
    /// A claim was made again under a higher ballot, and the epoch stayed.
    ClaimedAgain,
    /// An earlier owner was struck from a claim.
    Struck,
    /// A node holds the group and may not start it yet.
    Waits,
    /// A gate is open, and the daemon that opened it is dead.
    Outlived,
    /// What was started runs on after its lease.
    RunsOn,
    /// A voter that had lost its file votes again: member 2.
    Copied,
    /// A lease was extended by beats.
    Renewed,
}

impl Sight {
    fn property(self) -> Property<&'static Scenario> {
        match self {
            Self::Followed => Property::sometimes("followed by another", |_, world: &World| {
                world.gained.windows(2).any(|pair: &[Ballot]| pair[0].node != pair[1].node)
            }),
            Self::ClaimedAgain => Property::sometimes("claimed again", |_, world: &World| {
                let again = |index| world.held(index).is_some_and(|held| held.claim.ballot > held.epoch);
                world.holders().any(again)
            }),
            Self::Struck => Property::sometimes("struck", |_, world: &World| {
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
                    world.seats[2].life > 1 && world.left.losses[2] == 0 && world.is_voting(2)
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

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No path longer than so many steps is looked at.
    pub depth: Option<usize>,
    /// The search ends after so many states.
    pub states: Option<usize>,
    /// How many threads search. With one, the path that is found is a shortest one.
    pub threads: usize,
}

/// A path to a violation.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which invariant.
    pub what: &'static str,
    /// The way there.
    pub acts: Vec<Act>,
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Different worlds.
    pub states: usize,
    /// The longest path, in steps.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether all worlds were seen, and not only those within the limits.
    pub exhausted: bool,
    /// The first violation.
    pub violation: Option<Violation>,
    /// What should have been seen and was not.
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
            write!(f, "\n  VIOLATED in {} steps: {}", violation.acts.len(), violation.what)?;
            for (number, act) in violation.acts.iter().enumerate() {
                write!(f, "\n  {:>3} {act}", number + 1)?;
            }
        }
        Ok(())
    }
}

/// Searches a scenario until it is exhausted, something is violated or a limit is met.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the rate of a search is measured")]
pub fn search(scenario: &'static Scenario, limits: Limits) -> Outcome {
    let start = Instant::now();
    step::forget();
    let mut builder = scenario.checker().threads(limits.threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(depth) = limits.depth {
        // Its depth counts worlds, ours the steps between them.
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
            violations.push(Violation { what: property.name, acts: path.into_actions() });
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
