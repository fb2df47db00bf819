//! Planted breakages of the claims, in random native scenarios: finds each rule that is left out, and the number of
//! seeds that this takes. `cargo breakages-sim` prints the table. The model checker (`cargo breakages-model`) finds
//! those that do not need several groups or two voters, and others. The breakages here can occur in a cluster of guards
//! `lease` and `none` with one voter set.

use std::{
    panic,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use locum_core::model::breakage::{
    Breakage::{self, *},
    plant,
};
use locum_sim::native::{
    faults::{Agents, ScenarioStep},
    scenario::{NativeScenario, PAIRS},
    world::NativeWorld,
};

const TWO_OWNERS: &str = "two open gates";
const BALLOT_AGAIN: &str = "uses Ballot";
const STARTED: &str = "a part of a family is started";
const UNEXPECTED: &str = "which its gate does not expect";
const GIVEN: &str = "a part of a family is given";

/// A function that makes the scenario of a seed.
type ScenarioOf = fn(u64) -> NativeScenario;
const MIXED: ScenarioOf = NativeScenario::of;
/// Scenarios of two nodes without a witness.
const OF_PAIRS: ScenarioOf = |seed| NativeScenario::of(PAIRS + seed);
const OF_FAMILIES: ScenarioOf = NativeScenario::of_family;

/// Breakage, the scenarios that find it, and the report of the first seed that fails.
const TABLE: &[(Breakage, ScenarioOf, &str)] = &[
    (NoAbstention, MIXED, TWO_OWNERS),
    (RunningGrantIgnored, MIXED, TWO_OWNERS),
    (ReleaseEndsAnyBallot, MIXED, TWO_OWNERS),
    (PromiseEndsOwnGrant, MIXED, TWO_OWNERS),
    (EchoExtendsLaterClaims, MIXED, TWO_OWNERS),
    (NoCeiling, MIXED, BALLOT_AGAIN),
    (BlankVotes, MIXED, BALLOT_AGAIN),
    (LeaseFromAnswer, MIXED, TWO_OWNERS),
    (NoMargin, MIXED, TWO_OWNERS),
    (AcceptBelowPromise, MIXED, TWO_OWNERS),
    (AnyVersionCounts, MIXED, TWO_OWNERS),
    (ReleaseStays, MIXED, TWO_OWNERS),
    (EchoOfAnyGeneration, MIXED, TWO_OWNERS),
    (NoSweep, MIXED, TWO_OWNERS),
    (HigherClaimIgnored, OF_PAIRS, TWO_OWNERS),
    (FamilyStartsInParts, OF_FAMILIES, STARTED),
    (FamilyGivenInParts, OF_FAMILIES, GIVEN),
    (ProposalNotExpected, MIXED, UNEXPECTED),
];

/// Limits of the seeds that are played, and of those that fail.
const SEEDS_MAX: u64 = 10_000;
const FAILING_MAX: usize = 7;

/// The failing seeds in order, and the report of the first one.
fn failing(scenario: ScenarioOf) -> (Vec<u64>, String) {
    let next = AtomicU64::new(0);
    let found = AtomicU64::new(0);
    let work = || {
        let mut failing = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS_MAX || found.load(Ordering::Relaxed) >= FAILING_MAX as u64 {
                return failing;
            }
            if let Err(report) = scenario(seed).play() {
                found.fetch_add(1, Ordering::Relaxed);
                failing.push((seed, report.lines().next().unwrap_or_default().to_owned()));
            }
        }
    };
    let threads = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let mut failing: Vec<(u64, String)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a world does not panic")).collect()
    });
    failing.sort_unstable();
    let first = failing.first().map(|(_, text)| text.clone()).unwrap_or_default();
    (failing.into_iter().map(|(seed, _)| seed).collect(), first)
}

/// The median of the number of seeds until one fails.
fn median(failing: &[u64]) -> u64 {
    let before = [None].into_iter().chain(failing.iter().copied().map(Some));
    let mut gaps: Vec<u64> =
        failing.iter().zip(before).map(|(seed, before)| before.map_or(seed + 1, |b| seed - b)).collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied().unwrap_or(SEEDS_MAX)
}

/// Breakage, and the test that finds it. These rules prevent an outage, which a random scenario does not take for a
/// fault.
const SCENARIOS: &[(Breakage, fn() -> Result<(), String>)] = &[
    (TakerNotAsked, || handed_over("failback = \"1s\"", &[], 20_000)),
    (GateShutBeforeStop, || {
        handed_over(
            "",
            &[ScenarioStep::Agents(0, 0, Agents::SlowToStop), ScenarioStep::Move(1, 0, Some(1))],
            35_000,
        )
    }),
    (FirstComeFirstServed, || (1..20).try_for_each(founded)),
];

fn world(group: &str, seed: u64, founded: bool) -> NativeWorld {
    let toml = format!(
        "cluster = \"c\"\npace = \"3300ms\"\nnodes.a.links.lan = \"10.0.0.1\"\nnodes.b.links.lan = \"10.0.0.2\"\n\
         nodes.c.links.lan = \"10.0.0.3\"\n[groups.g]\nresources = [\"10.0.0.100/24\", \"daemon\"]\nprefer = \"a\"\n{group}\n"
    );
    NativeWorld::new(&toml, seed, founded, false, false)
}

/// Returns the preferred node and plays the steps; an error if no node answers for 500 ms in all.
fn handed_over(group: &str, steps: &[ScenarioStep], millis: u64) -> Result<(), String> {
    // Worlds with such a seed exchange frames, and test their links.
    let mut world = world(group, 10, true);
    for step in [
        ScenarioStep::Wait(20_000),
        ScenarioStep::PowerOff(0),
        ScenarioStep::Wait(15_000),
        ScenarioStep::Start(0),
        ScenarioStep::Wait(1000),
    ] {
        world.play(step)?;
    }
    if !steps.is_empty() {
        [ScenarioStep::Wait(15_000), ScenarioStep::Move(1, 0, Some(0)), ScenarioStep::Wait(5000)]
            .into_iter()
            .try_for_each(|s| world.play(s))?;
    }
    steps.iter().try_for_each(|step| world.play(*step))?;
    let mut silent = 0;
    for _ in 0..millis / 20 {
        world.play(ScenarioStep::Wait(20))?;
        silent += if world.open_gates(0).is_empty() { 20 } else { 0 };
    }
    if silent < 500 { Ok(()) } else { Err(format!("nobody answers for {silent} ms")) }
}

fn founded(seed: u64) -> Result<(), String> {
    let mut world = world("", seed, false);
    world.play(ScenarioStep::Wait(20_000))?;
    match world.holders(0)[..] {
        [0] => Ok(()),
        ref other => Err(format!("seed {seed}: runs on {other:?}")),
    }
}

/// All in one test, because a breakage holds for the whole process.
#[test]
fn every_rule_that_is_left_out_is_found_by_chance() {
    for &(breakage, scenario) in SCENARIOS {
        scenario().unwrap_or_else(|fault| panic!("{breakage:?}: red without it: {fault}"));
        plant(Some(breakage));
        let end = scenario();
        plant(None);
        let fault = end.expect_err(&format!("{breakage:?} is not found"));
        println!("{:<26} {fault}", format!("{breakage:?}"));
    }
    // A breakage that makes a director panic is found, too; its message is not printed.
    panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    println!("{:<26} {:>6} {:>6}  first seen", "breakage", "median", "first");
    for &(breakage, tales, what) in TABLE {
        plant(Some(breakage));
        let (seeds, seen) = failing(tales);
        plant(None);
        match seeds.first() {
            Some(first) if seen.contains(what) => {
                let breakage = format!("{breakage:?}");
                println!("{breakage:<26} {:>6} {:>6}  {seen:.90}", median(&seeds), first + 1);
            }
            _ => missed.push(format!("{breakage:?} is not found in {SEEDS_MAX} seeds as {what:?}: {seen}")),
        }
    }
    let _ = panic::take_hook();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    println!("{} rules, each of them found", TABLE.len());
}
