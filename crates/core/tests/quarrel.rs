//! Two directors that misunderstand each other: links cut in one direction, nodes that meet late, messages lost in the
//! middle of a hand-over, orders that cross. The tests check which node runs each group in the end, that there was no
//! gap, and that each order was answered.

mod common;
#[path = "common/older.rs"]
mod older;

use common::pair::{Pair, SHORT, now};
use locum_core::{
    model::{
        action::Operation,
        holding::Holding,
        order::{Answer, Order},
        time::{Duration, Instant},
    },
    r1::{plan::AutoFailback, status::R1Status},
};

const SECOND: Duration = Duration::from_secs(1);
const MODES: [AutoFailback; 2] = [AutoFailback::On, AutoFailback::Off];

fn status(pair: &Pair, n: usize) -> R1Status {
    pair.nodes[n].director.status(now(pair.now))
}

#[track_caller]
fn expect_no_gap(pair: &Pair, since: Instant) {
    for name in ["one", "two", "three"] {
        assert_eq!(pair.outage(name, since), Duration::ZERO, "{name}");
    }
}

#[track_caller]
fn expect_rest(pair: &Pair) {
    for n in 0..2 {
        let status = status(pair, n);
        assert_eq!((status.transition, status.troubles), (None, vec![]), "{}", status.node);
        assert!(pair.nodes[n].open.is_empty(), "unanswered: {:?}", pair.nodes[n].open);
    }
}

#[test]
fn a_healed_partition_ends_as_it_began() {
    for mode in MODES {
        for moved in [false, true] {
            let mut pair = Pair::new(mode);
            pair.run(SECOND);
            if moved {
                pair.order(0, Order::Standby(Holding::All));
            }
            let began = pair.now;
            pair.partition(true);
            pair.run(SECOND * 5);
            pair.expect("one two three", "one two three");
            pair.agent_delay = 200;
            pair.partition(false);
            // The other node stops its copy within one deadtime after it hears the peer.
            pair.run(SECOND + Duration::from_millis(600));
            if moved {
                pair.expect("", "one two three");
            } else {
                pair.expect("one two", "three");
            }
            expect_no_gap(&pair, began);
            expect_rest(&pair);
        }
    }
}

#[test]
fn nodes_that_never_met_keep_their_own_when_they_meet() {
    for mode in MODES {
        let mut pair = Pair::new(mode);
        pair.partition(true);
        pair.run(SECOND * 5);
        pair.expect("one two three", "one two three");
        let began = pair.now;
        pair.agent_delay = 200;
        pair.partition(false);
        pair.run(SECOND * 4);
        pair.expect("one two", "three");
        expect_no_gap(&pair, began);
        expect_rest(&pair);
    }
}

#[test]
fn a_deaf_node_takes_what_it_must_give_back() {
    for mode in MODES {
        for deaf in [0, 1] {
            let mut pair = Pair::new(mode);
            pair.run(SECOND);
            let began = pair.now;
            pair.agent_delay = 200;
            pair.cut_all(1 - deaf, true);
            pair.run(SECOND * 10);
            pair.cut_all(1 - deaf, false);
            pair.run(SECOND * 4);
            pair.expect("one two", "three");
            expect_no_gap(&pair, began);
            expect_rest(&pair);
        }
    }
}

/// Slow stops: the node that yields takes longer than a deadtime, and the other must not yield meanwhile.
#[test]
fn one_yields_however_long_it_takes() {
    let mut pair = Pair::new(AutoFailback::Off);
    pair.run(SECOND);
    pair.order(0, Order::Standby(Holding::All));
    let began = pair.now;
    pair.agent_delay = 3000;
    pair.partition(true);
    pair.run(SECOND * 20);
    pair.partition(false);
    pair.run(SECOND * 30);
    pair.expect("", "one two three");
    expect_no_gap(&pair, began);
    expect_rest(&pair);
}

/// The giver has stopped the set. From then on the taker hears nothing and takes the giver for dead.
#[test]
fn a_hand_over_that_one_side_forgot_ends_on_the_other() {
    for taker_is_deaf in [true, false] {
        let mut pair = Pair::new(AutoFailback::Off);
        pair.run(SECOND);
        pair.agent_delay = 400;
        pair.ask(0, Order::Standby(Holding::Local));
        while status(&pair, 0).transition.as_deref() != Some("giving") {
            pair.run(Duration::from_millis(1));
        }
        pair.cut_all(usize::from(!taker_is_deaf), true);
        pair.run(SECOND * 5);
        pair.partition(false);
        pair.run(SECOND * 30);
        let running = [&pair.nodes[0].running, &pair.nodes[1].running].map(|names| names.join(" "));
        let [a, b] = running.each_ref().map(String::as_str);
        assert!(
            [("one two", "three"), ("", "three one two"), ("", "one two three")].contains(&(a, b)),
            "{running:?}"
        );
        expect_rest(&pair);
        let answer = pair.order(0, Order::Standby(Holding::All));
        assert!(
            answer.is_some_and(|answer| matches!(answer, Answer::Done(_))) || !pair.nodes[0].open.is_empty()
        );
        pair.run(SECOND * 10);
        pair.expect("", "one two three");
    }
}

/// After a withdrawn offer both nodes must know that the other has settled.
#[test]
fn after_two_offers_that_crossed_the_next_one_is_answered() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND);
    pair.delay = 20;
    pair.ask(0, Order::Standby(Holding::Local));
    pair.ask(1, Order::Standby(Holding::Local));
    pair.run(SECOND);
    pair.expect("", "one two three");
    expect_rest(&pair);
    pair.delay = 0;
    pair.order(1, Order::Standby(Holding::All));
    pair.expect("one two three", "");
    pair.order(0, Order::Standby(Holding::Foreign));
    pair.expect("one two", "three");
}

#[test]
fn every_leave_is_answered() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND);
    // The farewell is not heard, so the node lingers.
    pair.partition(true);
    pair.ask(0, Order::Leave);
    pair.ask(0, Order::Leave);
    pair.run(SHORT);
    pair.ask(0, Order::Leave);
    pair.run(SHORT);
    assert!(!pair.nodes[0].exited);
    assert!(pair.nodes[0].open.is_empty(), "unanswered: {:?}", pair.nodes[0].open);
    pair.run(SECOND * 3);
    assert!(pair.nodes[0].exited);
    pair.expect("", "one two three");
}

#[test]
fn every_set_that_could_not_be_started_is_offered() {
    let mut pair = Pair::new(AutoFailback::Off);
    pair.run(SECOND);
    pair.order(0, Order::Standby(Holding::All));
    pair.run(SECOND);
    for name in ["one", "three"] {
        pair.failing.insert((0, Operation::Start, name.into()));
    }
    pair.order(0, Order::Takeover(Holding::All));
    pair.run(SECOND * 5);
    pair.expect("", "");
    pair.run(SECOND * 40);
    pair.expect("", "one two three");
}

/// A node dies while it gives a set away; it comes back and finds its set.
#[test]
fn a_set_in_flight_is_not_lost_with_its_giver() {
    for mode in MODES {
        for victim in [0, 1] {
            for after in [0, 100, 300, 500, 700, 900, 1200] {
                let mut pair = Pair::new(mode);
                pair.run(SECOND);
                pair.agent_delay = 400;
                pair.ask(0, Order::Standby(Holding::Local));
                pair.run(Duration::from_millis(after));
                pair.kill(victim);
                // It is back before the peer missed it.
                pair.nodes[victim].running.clear();
                pair.power_on(victim);
                pair.run(SECOND * 20);
                let runs = |name: &str| {
                    pair.nodes.iter().filter(|node| node.running.iter().any(|other| other == name)).count()
                };
                assert_eq!(["one", "two", "three"].map(runs), [1; 3], "{victim} after {after} ms");
                let other = &pair.nodes[1 - victim];
                assert!(other.open.is_empty(), "unanswered: {:?}", other.open);
            }
        }
    }
}

#[test]
fn one_that_stood_still_and_one_that_was_restarted_agree_within_a_deadtime() {
    older::they_agree_within_a_deadtime();
}
