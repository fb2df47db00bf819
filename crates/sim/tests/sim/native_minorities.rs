//! Clusters of three, five and seven nodes lose every possible minority, in every order, at once and one after the
//! other. Each group is claimed by a living node within the bound that `locum explain timing` prints.

use std::{fmt::Write as _, ops::Range};

use locum_core::{model::time::Duration, native::timing::NativeTiming};
use locum_sim::native::{faults::ScenarioStep, world::NativeWorld};

/// How often the cluster is looked at, in simulated milliseconds.
const LOOK_MILLIS: u64 = 5;
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// Each node is preferred by one group, and `siblings` further groups stay together with it.
fn cluster(nodes: usize, pace: u64, siblings: usize) -> String {
    let mut text = format!("cluster = \"sizes\"\npace = \"{pace}ms\"\n");
    for (node, name) in NAMES[..nodes].iter().enumerate() {
        let _ = write!(text, "[nodes.{name}]\nlinks = {{ lan = \"10.0.0.{}\" }}\n", node + 1);
        let _ = write!(text, "[groups.g{node}]\nresources = [\"10.0.1.{node}\"]\nguard = \"lease\"\n");
        let _ = writeln!(text, "prefer = \"{name}\"");
        for sibling in 0..siblings {
            let _ =
                write!(text, "[groups.g{node}-{sibling}]\nresources = [\"10.0.{}.{node}\"]\n", 2 + sibling);
            let _ = writeln!(text, "guard = \"lease\"\ntogether = [\"g{node}\"]");
        }
    }
    text
}

/// All orders in which this many of the nodes can die.
fn orders(nodes: usize, deaths: usize) -> Vec<Vec<usize>> {
    if deaths == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(nodes, deaths - 1).into_iter();
    shorter
        .flat_map(|order| {
            let rest: Vec<usize> = (0..nodes).filter(|node| !order.contains(node)).collect();
            rest.into_iter().map(move |node| [order.clone(), vec![node]].concat())
        })
        .collect()
}

/// Lets time pass until every group has one open gate, and returns how many milliseconds that took.
fn claimed(world: &mut NativeWorld, limit: Duration) -> Result<u64, String> {
    for millis in (0..).step_by(5) {
        if (0..world.groups()).all(|group| world.open_gates(group).len() == 1) {
            return Ok(millis);
        }
        if u128::from(millis) > limit.as_millis() {
            let lost = (0..world.groups()).find(|group| world.open_gates(*group).len() != 1).unwrap_or(0);
            return Err(format!("not within {limit:?}: {}\n{}", world.describe(lost), world.log()));
        }
        world.play(ScenarioStep::Wait(LOOK_MILLIS))?;
    }
    Ok(0)
}

/// Plays the deaths, and returns the longest time without an owner in milliseconds.
fn play(
    nodes: usize,
    pace: u64,
    siblings: usize,
    order: &[usize],
    at_once: bool,
    seed: u64,
    logs: bool,
) -> Result<u64, String> {
    let timing = NativeTiming::of(Duration::from_millis(pace));
    let mut world = NativeWorld::new(&cluster(nodes, pace, siblings), seed, true, false, logs);
    world.play(ScenarioStep::Wait(pace * 5))?;
    claimed(&mut world, Duration::ZERO)?;
    let mut longest = 0;
    for (count, node) in order.iter().enumerate() {
        world.play(ScenarioStep::PowerOff(*node))?;
        if at_once && count + 1 < order.len() {
            continue;
        }
        let family = if siblings > 0 { timing.family_round() } else { Duration::ZERO };
        let bound = timing.claim_bound(nodes - count - 1) + family + Duration::from_millis(LOOK_MILLIS);
        longest = longest.max(claimed(&mut world, bound)?);
    }
    Ok(longest)
}

fn every_minority(nodes: usize, pace: u64, siblings: usize, seeds: Range<u64>) {
    let mut longest = 0;
    let mut reports = Vec::new();
    let most = (nodes - 1) / 2;
    for order in (1..=most).flat_map(|deaths| orders(nodes, deaths)) {
        for at_once in [false, true] {
            for seed in seeds.clone() {
                match play(nodes, pace, siblings, &order, at_once, seed, false) {
                    Ok(time) => longest = longest.max(time),
                    // Played again with a log for the report.
                    Err(_) => {
                        let text = play(nodes, pace, siblings, &order, at_once, seed, true)
                            .err()
                            .unwrap_or_default();
                        reports.push(format!("{order:?} at once {at_once} seed {seed}: {text}"));
                    }
                }
            }
        }
    }
    let timing = NativeTiming::of(Duration::from_millis(pace));
    let family = if siblings > 0 { timing.family_round() } else { Duration::ZERO };
    let bound = (timing.claim_bound(nodes - 1) + family).as_millis();
    println!("{nodes} nodes, pace {pace} ms: claimed after {longest} ms at the latest, bound {bound} ms");
    assert!(reports.is_empty(), "{} of them: {}", reports.len(), reports[0]);
}

#[test]
fn of_three_nodes_any_may_die() {
    for pace in [300, 1000] {
        every_minority(3, pace, 0, 0..20);
    }
}

#[test]
fn of_five_nodes_any_two_may_die() {
    every_minority(5, 1000, 0, 0..4);
}

#[test]
fn of_seven_nodes_any_three_may_die() {
    every_minority(7, 1000, 0, 0..1);
}

/// A gate opens when all groups of its family are owned.
#[test]
fn families_are_owned_within_their_bound() {
    for pace in [300, 1000] {
        every_minority(3, pace, 2, 0..20);
    }
    every_minority(5, 1000, 2, 0..1);
}
