//! How failures, administrators and families move the groups of a native cluster. Every test is played with messages
//! and with frames: worlds whose seed is a multiple of ten exchange frames.

use locum_sim::native::{
    faults::{Agents, ScenarioStep},
    scenario::{Counts, check_family},
    world::NativeWorld,
};

const MESSAGES_AND_FRAMES: [u64; 2] = [1, 10];

/// Three voting nodes at a pace of one second.
fn cluster(groups: &str) -> String {
    let nodes = ["a", "b", "c"].iter().enumerate();
    let nodes: String = nodes
        .map(|(n, name)| format!("[nodes.{name}]\nlinks = {{ lan = \"10.0.0.{}\" }}\n", n + 1))
        .collect();
    format!("cluster = \"groups\"\npace = \"1s\"\n{nodes}{groups}")
}

struct Played(NativeWorld);

impl Played {
    fn new(groups: &str, seed: u64) -> Self {
        Self(NativeWorld::new(&cluster(groups), seed, true, false, true))
    }

    fn play(&mut self, steps: &[ScenarioStep]) {
        for step in steps {
            self.0.play(*step).unwrap_or_else(|fault| panic!("{fault}\n{}", self.0.log()));
        }
    }

    /// A cluster that has come up, with each group on its node.
    fn with(groups: &str, seed: u64, homes: &[usize]) -> Self {
        let mut world = Self::new(groups, seed);
        world.wait(8);
        for (group, home) in homes.iter().enumerate() {
            world.play(&[ScenarioStep::Move(0, group, Some(*home))]);
            world.wait(2);
        }
        homes.iter().enumerate().for_each(|(group, home)| world.runs_on(group, &[*home]));
        world
    }

    fn wait(&mut self, seconds: u64) {
        self.play(&[ScenarioStep::Wait(seconds * 1000)]);
    }

    #[track_caller]
    fn runs_on(&self, group: usize, nodes: &[usize]) {
        assert_eq!(
            self.0.holders(group),
            nodes,
            "group {group}: {}\n{}",
            self.0.describe(group),
            self.0.log()
        );
    }

    /// The nodes on which the group is held.
    fn held(&self, group: usize) -> Vec<usize> {
        let says = |node: &usize| {
            let (director, now) = self.0.node(*node)?;
            director.held_down(now, locum_core::model::identity::GroupIndex(group))
        };
        (0..3).filter(|node| says(node).is_some()).collect()
    }

    fn is_logged(&self, text: &str) -> bool {
        self.0.log().contains(text)
    }
}

// ---- held (too many failures) ----------------------------------------------

const DAEMON: &str = r#"
[groups.g]
resources = ["daemon"]
prefer = "a"
restarts = 0
moves = 2
"#;

fn fail(world: &mut Played, nodes: impl IntoIterator<Item = usize>, agents: Agents) {
    nodes.into_iter().for_each(|node| world.play(&[ScenarioStep::Agents(node, 0, agents)]));
}

#[test]
fn a_group_that_failures_have_moved_too_often_stays_and_is_started_again_there() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::new(DAEMON, seed);
        fail(&mut world, 0..3, Agents::FailToStart);
        world.wait(8);
        world.runs_on(0, &[]);
        assert_eq!(world.held(0), [0, 1, 2], "every node knows");
        assert!(world.is_logged("failures have moved it 2 times within 3600 s: it is held for"));
        let owner = world.0.open_gates(0);
        assert_eq!(owner.len(), 1, "somebody keeps it");
        // Other nodes could start it now, but their agents are not asked.
        let owner = owner[0];
        fail(&mut world, (0..3).filter(|node| *node != owner), Agents::Work);
        world.wait(70);
        assert_eq!(world.0.open_gates(0), [owner]);
        assert!(world.0.log().matches("it is held for").count() >= 3, "{}", world.0.log());
        fail(&mut world, [owner], Agents::Work);
        world.wait(31);
        world.runs_on(0, &[owner]);
        // If its owner dies, it moves even to a node where it failed.
        world.play(&[ScenarioStep::PowerOff(owner)]);
        world.wait(5);
        let better = if owner == 0 { 1 } else { 0 };
        world.runs_on(0, &[better]);
    }
}

#[test]
fn a_restarted_node_learns_which_groups_are_held_until_time_ends_it() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::new(&DAEMON.replace("moves = 2", "moves = 2\nhold-down = \"1min\""), seed);
        fail(&mut world, 0..3, Agents::FailToStart);
        world.wait(8);
        for node in 0..3 {
            world.play(&[ScenarioStep::Kill(node), ScenarioStep::Start(node)]);
            world.wait(3);
            assert_eq!(world.held(0), [0, 1, 2], "{node}");
        }
        fail(&mut world, 0..3, Agents::Work);
        world.wait(60);
        assert!(world.held(0).is_empty());
        assert_eq!(world.0.holders(0).len(), 1);
    }
}

// ---- stop-failed -----------------------------------------------------------

#[test]
fn a_lost_group_that_is_stop_failed_is_stopped_again_after_a_time_or_by_order() {
    for (seed, asks) in MESSAGES_AND_FRAMES.into_iter().flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut world = Played::with(DAEMON, seed, &[0]);
        fail(&mut world, [0], Agents::FailToStop);
        // Node a is alone on its side: its lease ends.
        world.play(&[ScenarioStep::Split(1)]);
        world.wait(20);
        let holders = world.0.holders(0);
        assert!(matches!(holders[..], [1 | 2]), "{holders:?}");
        let holder = holders[0];
        world.play(&[ScenarioStep::Heal]);
        fail(&mut world, [0], Agents::Work);
        world.wait(3);
        assert!(world.is_logged("daemon cannot be stopped"), "{}", world.0.log());
        world.play(&[ScenarioStep::Move(holder, 0, Some(0))]);
        assert!(world.is_logged("a could not run"), "what an earlier ownership left is there");
        if asks {
            world.play(&[ScenarioStep::Standby(0, false)]);
            world.wait(2);
        } else {
            world.wait(31);
        }
        world.play(&[ScenarioStep::Move(holder, 0, Some(0))]);
        world.wait(2);
        world.runs_on(0, &[0]);
    }
}

/// An order to leave always ends. A group that cannot be stopped is not released: other nodes get it when the lease has
/// ended. All other groups are handed over as usual.
#[test]
fn a_node_leaves_although_something_cannot_be_stopped() {
    const TWO: &str = r#"
[groups.g]
resources = ["daemon"]
prefer = "a"
[groups.h]
resources = ["10.0.1.9"]
prefer = "a"
"#;
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(TWO, seed, &[0, 0]);
        fail(&mut world, [0], Agents::FailToStop);
        world.play(&[ScenarioStep::Leave(0)]);
        // The time of one stop ladder.
        world.wait(120);
        assert!(world.is_logged("cannot be stopped; claims that could not be released"), "{}", world.0.log());
        assert!(world.is_logged("a has left"), "{}", world.0.log());
        for group in 0..2 {
            let holders = world.0.holders(group);
            assert!(holders.iter().any(|node| *node != 0), "{group}: {holders:?}\n{}", world.0.log());
        }
    }
}

// ---- families --------------------------------------------------------------

const FAMILY: &str = r#"
[groups.db]
resources = ["10.0.1.1", "db"]
prefer = ["a", "b"]
[groups.web]
resources = ["10.0.1.2", "web"]
together = "db"
after = "db"
restarts = 0
"#;

#[track_caller]
fn family_runs_on(world: &Played, node: usize) {
    (0..2).for_each(|group| world.runs_on(group, &[node]));
}

#[test]
fn a_family_moves_as_one_whichever_of_it_is_asked_for() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(FAMILY, seed, &[0, 0]);
        family_runs_on(&world, 0);
        for (asked, group, to) in [(0, 0, 1), (1, 1, 2), (0, 1, 0), (2, 0, 2), (2, 1, 1)] {
            world.play(&[ScenarioStep::Move(asked, group, Some(to))]);
            world.wait(2);
            family_runs_on(&world, to);
        }
        assert!(world.is_logged("db, web are released to b"), "{}", world.0.log());
        world.play(&[ScenarioStep::Move(0, 0, None)]);
        world.wait(2);
        family_runs_on(&world, 0);
        world.play(&[ScenarioStep::Standby(0, true)]);
        world.wait(2);
        family_runs_on(&world, 1);
        world.play(&[ScenarioStep::Leave(1)]);
        world.wait(2);
        family_runs_on(&world, 2);
        world.play(&[ScenarioStep::Start(1), ScenarioStep::Standby(0, false)]);
        world.wait(3);
        world.play(&[ScenarioStep::PowerOff(2)]);
        world.wait(5);
        let taker = world.0.holders(0);
        assert!(taker.len() == 1 && world.0.holders(1) == taker, "{}", world.0.log());
    }
}

#[test]
fn a_family_fails_back_and_follows_the_one_that_failed() {
    for seed in MESSAGES_AND_FRAMES {
        let failback = FAMILY.replace("prefer =", "failback = \"5s\"\nprefer =");
        let mut world = Played::with(&failback, seed, &[0, 0]);
        world.play(&[ScenarioStep::PowerOff(0)]);
        // Either of the other nodes may be faster; after the failback delay it is b's.
        world.wait(9);
        family_runs_on(&world, 1);
        world.play(&[ScenarioStep::Start(0)]);
        world.wait(4);
        family_runs_on(&world, 1);
        world.wait(5);
        family_runs_on(&world, 0);
        // One group fails where the family arrives: the whole family moves on.
        world.play(&[ScenarioStep::Agents(1, 1, Agents::FailToStart), ScenarioStep::PowerOff(0)]);
        world.wait(6);
        family_runs_on(&world, 2);
        // If no other node may have them, the groups that run stay.
        world.play(&[
            ScenarioStep::Agents(2, 1, Agents::FailToStart),
            ScenarioStep::Kill(2),
            ScenarioStep::Start(2),
        ]);
        world.wait(8);
        world.runs_on(0, &[2]);
        world.runs_on(1, &[]);
    }
}

/// How often a node takes the group while a step is played and in `seconds` after it.
fn taken(world: &mut Played, step: ScenarioStep, seconds: u64) -> usize {
    let before = world.0.log().len();
    world.play(&[step]);
    world.wait(seconds);
    world.0.log()[before..].matches("is ours under").count()
}

#[test]
fn a_group_that_is_handed_over_does_not_fail_back_to_its_giver() {
    for seed in MESSAGES_AND_FRAMES {
        for failback in ["0s", "1s"] {
            let groups = DAEMON.replace("prefer", &format!("failback = \"{failback}\"\nprefer"));
            let mut world = Played::with(&groups, seed, &[0]);
            world.wait(2);
            // The giver has been healthy for long: before it releases anything, it announces that it does not want the
            // group.
            assert_eq!(taken(&mut world, ScenarioStep::Standby(0, true), 4), 1, "{}", world.0.log());
            assert_eq!(taken(&mut world, ScenarioStep::Standby(0, false), 4), 1, "{}", world.0.log());
            world.runs_on(0, &[0]);
            assert_eq!(taken(&mut world, ScenarioStep::Leave(0), 4), 1, "{}", world.0.log());
            assert_ne!(world.0.holders(0), [0]);
        }
    }
}

#[test]
fn a_group_moved_by_order_stays_for_the_failback_delay() {
    for seed in MESSAGES_AND_FRAMES {
        let groups = DAEMON.replace("prefer", "failback = \"5s\"\nprefer");
        let mut world = Played::with(&groups, seed, &[0]);
        world.wait(6);
        assert_eq!(taken(&mut world, ScenarioStep::Move(0, 0, Some(1)), 4), 1, "{}", world.0.log());
        world.runs_on(0, &[1]);
        world.wait(3);
        world.runs_on(0, &[0]);
    }
}

#[test]
fn a_group_that_follows_a_moving_one_is_started_at_its_destination() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(&FAMILY.replace("after = \"db\"\n", ""), seed, &[0, 0]);
        // No other node may have them: the groups that run stay, the one that fails is given back.
        world.play(&[
            ScenarioStep::Standby(1, true),
            ScenarioStep::Standby(2, true),
            ScenarioStep::Agents(0, 1, Agents::FailToStart),
        ]);
        world.play(&[ScenarioStep::Kill(0), ScenarioStep::Start(0)]);
        world.wait(8);
        world.runs_on(0, &[0]);
        world.runs_on(1, &[]);
        world.play(&[ScenarioStep::Agents(0, 1, Agents::Work), ScenarioStep::Standby(1, false)]);
        world.wait(1);
        // This node may have it again, and the first of the family is moved at the same moment.
        let before = world.0.log().len();
        world.play(&[ScenarioStep::Standby(0, false), ScenarioStep::Move(0, 0, Some(1))]);
        world.wait(3);
        family_runs_on(&world, 1);
        assert!(!world.0.log()[before..].contains(" a web Acquiring"), "{}", world.0.log());
    }
}

#[test]
fn a_family_is_never_parted_whatever_happens() {
    let seeds = match std::env::var("LOCUM_FAMILY_SEEDS") {
        Ok(text) => {
            let (first, end) = text.split_once("..").expect("LOCUM_FAMILY_SEEDS is FIRST..END");
            first.parse().expect("a number")..end.parse().expect("a number")
        }
        Err(_) => 0..150,
    };
    let mut sum = Counts::default();
    for seed in seeds {
        sum.add(&check_family(seed).unwrap_or_else(|report| panic!("{report}")));
    }
    assert!(
        sum.with_takeover * 2 >= sum.scenarios,
        "takeovers in {} of {} tales",
        sum.with_takeover,
        sum.scenarios
    );
}

// ---- pins ------------------------------------------------------------------

const TWO: &str = r#"
[groups.db]
resources = ["10.0.1.1", "db"]
prefer = "a"
[groups.web]
resources = ["10.0.1.2", "web"]
prefer = "b"
"#;

/// A group that must not meet one of a family must not meet the family's first group either: the rest would follow that
/// one.
#[test]
fn a_group_apart_from_one_of_a_family_does_not_stop_the_rest_from_following() {
    // In the order of their names: `d` stands between two groups of one family.
    let nodes = "nodes = [\"a\", \"b\"]\n";
    let groups = format!(
        "[groups.c]\nresources = \"10.0.0.100\"\n{nodes}\
         [groups.d]\nresources = \"10.0.0.101\"\n{nodes}apart = \"e\"\n\
         [groups.e]\nresources = \"10.0.0.102\"\n{nodes}together = \"c\"\n"
    );
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::new(&groups, seed);
        world.wait(8);
        // One node returns alone, and no group has an owner.
        world.play(&[
            ScenarioStep::PowerOff(0),
            ScenarioStep::PowerOff(1),
            ScenarioStep::Wait(3000),
            ScenarioStep::Start(0),
        ]);
        world.wait(10);
        world.runs_on(0, &[0]);
        world.runs_on(1, &[]);
        world.runs_on(2, &[0]);
    }
}

#[test]
fn a_group_frozen_on_one_node_is_frozen_on_all_until_it_is_ended() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(TWO, seed, &[0, 1]);
        // One node does not hear the node that was asked, and learns of the freeze from the third.
        world.play(&[ScenarioStep::Cut(2, 1), ScenarioStep::Pin(2, Some(0), true)]);
        world.wait(2);
        world.play(&[ScenarioStep::Heal]);
        world.play(&[ScenarioStep::Move(0, 0, Some(1)), ScenarioStep::Standby(0, true)]);
        world.wait(3);
        world.runs_on(0, &[0]);
        assert!(world.is_logged("it is frozen, or the cluster is in maintenance"), "{}", world.0.log());
        // Its owner dies: no node takes it, not even the owner after its restart.
        world.play(&[ScenarioStep::Standby(0, false), ScenarioStep::PowerOff(0)]);
        world.wait(10);
        world.runs_on(0, &[]);
        world.runs_on(1, &[1]);
        // First the node that was asked, then all others restart, one after the other; each learns of the freeze.
        for node in [2, 0, 1] {
            world.play(&[ScenarioStep::Kill(node), ScenarioStep::Start(node)]);
            world.wait(4);
            world.runs_on(0, &[]);
        }
        world.play(&[ScenarioStep::Pin(1, Some(0), false)]);
        world.wait(4);
        world.runs_on(0, &[0]);
    }
}

#[test]
fn maintenance_holds_on_all_nodes_and_one_that_missed_its_end_learns_of_it() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(TWO, seed, &[0, 1]);
        world.play(&[ScenarioStep::Pin(0, None, true)]);
        world.wait(1);
        world.play(&[ScenarioStep::Kill(1)]);
        world.wait(8);
        world.runs_on(1, &[]);
        // A node that hears no other keeps to the last state that it knows.
        world.play(&[ScenarioStep::Split(0b100), ScenarioStep::Start(1)]);
        world.wait(1);
        world.play(&[ScenarioStep::Pin(1, None, false)]);
        world.wait(5);
        assert_eq!(world.0.holders(1).len(), 1, "{}", world.0.log());
        let pinned = |world: &Played| {
            (0..3)
                .map(|node| world.0.node(node).unwrap().0.gossip().pinned(None).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(pinned(&world), [false, false, true]);
        world.play(&[ScenarioStep::Heal]);
        world.wait(2);
        assert_eq!(pinned(&world), [false; 3]);
        // A node that leaves stops its groups all the same.
        world.play(&[ScenarioStep::Pin(2, None, true)]);
        world.wait(1);
        let owner = world.0.holders(0)[0];
        world.play(&[ScenarioStep::Leave(owner)]);
        world.wait(3);
        assert!(world.0.node(owner).is_none() && world.0.holders(0).is_empty(), "{}", world.0.log());
        world.play(&[ScenarioStep::Pin(2, None, false)]);
        world.wait(2);
        assert_eq!(world.0.holders(0).len(), 1);
    }
}

// ---- cables ----------------------------------------------------------------

#[test]
fn a_group_goes_where_clients_reach_it_and_stays_if_no_node_is_better() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(&TWO.replace("prefer", "failback = \"1s\"\nprefer"), seed, &[0, 1]);
        // A plug that is out for a moment moves nothing.
        world.play(&[
            ScenarioStep::Cable(0, 0, false),
            ScenarioStep::Wait(700),
            ScenarioStep::Cable(0, 0, true),
        ]);
        world.wait(3);
        assert!(!world.is_logged("clients cannot reach"));
        world.play(&[ScenarioStep::Cable(0, 0, false)]);
        world.wait(3);
        assert!(
            world.is_logged("clients cannot reach 10.0.1.1 on this node: eth0 has no carrier"),
            "{}",
            world.0.log()
        );
        let taker = world.0.holders(0);
        assert!(taker == [1] || taker == [2], "{taker:?}");
        // A group fails back only to a node where clients reach it.
        world.wait(3);
        world.runs_on(0, &taker);
        // No other node is better than the owner.
        world.play(&[ScenarioStep::Cable(1, 0, false), ScenarioStep::Cable(2, 0, false)]);
        world.wait(4);
        world.runs_on(0, &taker);
        // If that node dies, the group still runs somewhere.
        world.play(&[ScenarioStep::PowerOff(taker[0])]);
        world.wait(5);
        assert_eq!(world.0.holders(0).len(), 1, "{}", world.0.log());
        world.play(&[ScenarioStep::Start(taker[0]), ScenarioStep::Cable(0, 0, true)]);
        world.wait(6);
        world.runs_on(0, &[0]);
        world.runs_on(1, &[1]);
    }
}

#[test]
fn a_family_follows_the_one_of_it_that_clients_do_not_reach() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(FAMILY, seed, &[0, 0]);
        world.play(&[ScenarioStep::Cable(0, 1, false), ScenarioStep::Cable(1, 0, false)]);
        world.wait(4);
        family_runs_on(&world, 2);
    }
}

#[test]
fn more_groups_than_fit_into_a_beat_are_announced_all_the_same() {
    let groups: String = (0..40)
        .map(|group| format!("[groups.g{group:02}]\nresources = [\"10.0.2.{group}\"]\nprefer = \"a\"\n"))
        .collect();
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(&groups, seed, &[]);
        (0..40).for_each(|group| world.play(&[ScenarioStep::Move(0, group, Some(0))]));
        world.wait(3);
        (0..40).for_each(|group| world.runs_on(group, &[0]));
        for node in [0, 1] {
            (0..40).for_each(|group| world.play(&[ScenarioStep::Cable(node, group, false)]));
        }
        world.wait(4);
        // The last group is known to be unreachable on the other node as well as the first.
        (0..40).for_each(|group| world.runs_on(group, &[2]));
    }
}

// ---- hand-over -------------------------------------------------------------

const SERVICE: &str = r#"
[groups.g]
resources = ["10.0.0.100/24", "daemon"]
prefer = "a"
restarts = 1
"#;

impl Played {
    /// Looks every 20 ms for `millis` milliseconds, and returns for how many of them no node answered.
    fn silence(&mut self, group: usize, millis: u64) -> u64 {
        let mut silent = 0;
        for _ in 0..millis / 20 {
            self.play(&[ScenarioStep::Wait(20)]);
            silent += if self.0.open_gates(group).is_empty() { 20 } else { 0 };
        }
        silent
    }
}

/// If a script is missing or not executable on one node, its group fails there once and runs on another node.
#[test]
fn a_group_without_an_agent_on_a_node_runs_on_another_and_logs_few_lines() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(SERVICE, seed, &[1]);
        fail(&mut world, [0], Agents::Missing);
        let before = world.0.log().lines().count();
        world.play(&[ScenarioStep::Move(0, 0, Some(0))]);
        world.wait(20);
        world.runs_on(0, &[1]);
        assert!(world.is_logged("could not be run here; not tried again on this node"));
        let lines = world.0.log().lines().count() - before;
        assert!(lines < 50, "{lines} lines\n{}", world.0.log());
        world.play(&[ScenarioStep::Leave(0)]);
        world.wait(2);
        assert_eq!(world.0.log().matches("has left").count(), 1);
    }
}

/// A node that has just started cannot claim for a while. A group that fails back or is moved to it goes when it can.
#[test]
fn a_group_is_handed_over_when_the_other_node_can_take_it() {
    for (seed, is_asked) in MESSAGES_AND_FRAMES.into_iter().flat_map(|seed| [(seed, false), (seed, true)]) {
        let groups = if is_asked { SERVICE.into() } else { format!("{SERVICE}failback = \"1s\"\n") };
        let toml = cluster(&groups).replace("pace = \"1s\"", "pace = \"3300ms\"");
        let mut world = Played(NativeWorld::new(&toml, seed, true, false, true));
        world.wait(20);
        world.runs_on(0, &[0]);
        world.play(&[ScenarioStep::PowerOff(0)]);
        world.wait(15);
        assert_ne!(world.0.holders(0), [0]);
        world.play(&[ScenarioStep::Start(0)]);
        let mut silent = 0;
        if is_asked {
            silent += world.silence(0, 1100);
            world.play(&[ScenarioStep::Move(1, 0, Some(0))]);
        }
        silent += world.silence(0, 20_000);
        world.runs_on(0, &[0]);
        assert!(silent < 500, "nobody answered for {silent} ms\n{}", world.0.log());
    }
}

#[test]
fn a_move_to_where_clients_reach_nothing_is_refused_with_the_reason() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(SERVICE, seed, &[0]);
        world.play(&[ScenarioStep::Cable(1, 0, false)]);
        world.wait(3);
        world.play(&[ScenarioStep::Move(2, 0, Some(1))]);
        assert_eq!(world.silence(0, 29_000), 0);
        assert!(!world.is_logged("Refused"));
        world.wait(3);
        assert!(world.is_logged("g: clients would not reach it on b: an interface there carries nothing"));
        world.runs_on(0, &[0]);
        // If the cable is plugged in while the move waits, the group goes at once.
        world.play(&[ScenarioStep::Move(2, 0, Some(1))]);
        world.wait(3);
        world.play(&[ScenarioStep::Cable(1, 0, true)]);
        world.wait(4);
        world.runs_on(0, &[1]);
        // A node that leaves does not wait for another one to be reachable.
        world.play(&[ScenarioStep::Cable(0, 0, false), ScenarioStep::Cable(2, 0, false)]);
        world.wait(1);
        world.play(&[ScenarioStep::Leave(1)]);
        world.wait(3);
        assert_eq!(world.0.holders(0).len(), 1);
    }
}

/// A service finishes its clients: while the lease is renewed, the address answers until its stop takes it away.
#[test]
fn a_group_that_is_moved_answers_until_its_stop_reaches_the_address() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(SERVICE, seed, &[0]);
        fail(&mut world, [0], Agents::SlowToStop);
        world.play(&[ScenarioStep::Move(0, 0, Some(1))]);
        assert_eq!(world.silence(0, 29_000), 0, "{}", world.0.log());
        assert_eq!((world.0.open_gates(0), world.0.holders(0)), (vec![0], vec![0]));
        let silent = world.silence(0, 5000);
        assert!(silent < 500, "{silent} ms");
        world.runs_on(0, &[1]);
        // If the lease ends meanwhile, the kernel shuts the gate as usual.
        world.play(&[ScenarioStep::Move(0, 0, Some(0))]);
        world.wait(2);
        world.play(&[ScenarioStep::Move(0, 0, Some(1)), ScenarioStep::Wait(500), ScenarioStep::Split(1)]);
        world.wait(3);
        world.runs_on(0, &[1]);
    }
}

#[test]
fn a_group_that_hangs_at_its_start_is_not_waited_for_when_it_is_moved() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played::with(SERVICE, seed, &[1]);
        fail(&mut world, [0], Agents::HangAtStart);
        world.play(&[ScenarioStep::Move(0, 0, Some(0))]);
        world.wait(3);
        assert_eq!((world.0.open_gates(0), world.0.holders(0)), (vec![0], vec![]));
        world.play(&[ScenarioStep::Move(0, 0, Some(1))]);
        world.wait(4);
        assert!(
            world.is_logged("has not started yet and is not wanted any more: its start was ended"),
            "{}",
            world.0.log()
        );
        world.runs_on(0, &[1]);
    }
}

/// All start together, with and without ledger files: the preferred node may be ready to claim a moment after another
/// one.
#[test]
fn a_group_that_was_never_owned_is_claimed_by_its_preferred_node() {
    for (seed, is_founded) in (1..30).flat_map(|seed| [(seed, false), (seed, true)]) {
        for (prefer, node) in [("a", 0), ("c", 2)] {
            let toml = cluster(&SERVICE.replace("\"a\"", &format!("\"{prefer}\"")));
            let mut world = Played(NativeWorld::new(&toml, seed, is_founded, false, true));
            world.wait(8);
            world.runs_on(0, &[node]);
        }
    }
}

/// The wait for a preferred node that does not come is bounded.
#[test]
fn a_preferred_node_that_does_not_come_is_waited_for_a_bounded_time() {
    for seed in MESSAGES_AND_FRAMES {
        let mut world = Played(NativeWorld::new(&cluster(SERVICE), seed, true, false, true));
        world.play(&[ScenarioStep::PowerOff(0)]);
        world.wait(6);
        assert_ne!(world.0.holders(0), []);
    }
}

/// After a move is refused because no node could take the group, the failback delay counts as it did before the move.
#[test]
fn a_move_that_was_refused_holds_up_no_failback() {
    for seed in MESSAGES_AND_FRAMES {
        let groups = format!("{SERVICE}failback = \"50s\"\n");
        let mut world = Played::with(&groups, seed, &[0]);
        world.play(&[ScenarioStep::Move(0, 0, Some(1))]);
        world.wait(4);
        world.runs_on(0, &[1]);
        world.play(&[ScenarioStep::Cable(2, 0, false)]);
        world.wait(10);
        world.play(&[ScenarioStep::Move(0, 0, Some(2))]);
        world.wait(33);
        assert!(world.is_logged("g: clients would not reach it on c: an interface there carries nothing"));
        world.runs_on(0, &[1]);
        world.wait(10);
        world.runs_on(0, &[0]);
    }
}
