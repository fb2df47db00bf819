//! Two directors on a perfect link, with agents that answer at once: the usual course of the dialect. The simulator
//! tests faults, delays and losses.

mod common;

use common::pair::{Pair, SHORT, now};
use locum_core::{
    liveness::Liveness,
    model::{
        action::Operation,
        holding::Holding,
        order::{Answer, Order},
        time::Duration,
    },
    r1::plan::AutoFailback,
};

#[test]
fn started_together_they_settle_at_once() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SHORT);
    pair.expect("one two", "three");
    let status = pair.nodes[0].director.status(now(pair.now));
    assert_eq!(status.troubles, [""; 0]);
    assert_eq!(status.forecasts.len(), 2);
    assert_eq!(status.forecasts[1].starts, ["three"]);
}

#[test]
fn a_death_is_a_takeover_and_a_return_a_failback() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(Duration::from_secs(5));
    pair.power_off(0);
    pair.run(Duration::from_millis(899));
    pair.expect("", "three");
    pair.run(Duration::from_millis(102));
    pair.expect("", "three one two");
    assert_eq!(pair.nodes[1].director.status(now(pair.now)).nodes[0].liveness, Liveness::Dead);
    pair.run(Duration::from_secs(3));
    pair.power_on(0);
    pair.run(SHORT);
    pair.expect("one two", "three");
    let outage = pair.nodes[1].director.status(now(pair.now)).groups[0].last_outage;
    assert_eq!(outage, Some(0.0), "the way back is a hand-over without a wait");
}

#[test]
fn without_failback_what_moved_stays() {
    let mut pair = Pair::new(AutoFailback::Off);
    pair.run(SHORT);
    pair.power_off(0);
    pair.run(Duration::from_secs(2));
    pair.power_on(0);
    pair.run(Duration::from_secs(15));
    pair.expect("", "three one two");
    assert_eq!(
        pair.order(0, Order::Takeover(Holding::Local)),
        Some(Answer::Done("the local set runs here now".into()))
    );
    pair.expect("one two", "three");
}

#[test]
fn sets_are_given_and_asked_for() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SHORT);
    assert!(matches!(pair.order(0, Order::Standby(Holding::All)), Some(Answer::Done(_))));
    pair.expect("", "three one two");
    pair.run(Duration::from_secs(20));
    pair.expect("", "three one two");
    assert!(matches!(pair.order(0, Order::Takeover(Holding::All)), Some(Answer::Done(_))));
    pair.expect("one two three", "");
    assert!(matches!(pair.order(0, Order::Standby(Holding::Foreign)), Some(Answer::Done(_))));
    pair.expect("one two", "three");
    assert_eq!(
        pair.order(1, Order::Standby(Holding::Foreign)),
        Some(Answer::Done("this node holds no group of that set".into()))
    );
}

#[test]
fn a_set_that_did_not_start_there_was_not_moved() {
    let mut pair = Pair::new(AutoFailback::Off);
    pair.run(SHORT);
    pair.failing.insert((1, Operation::Start, "two".into()));
    let refused = Answer::Refused("a resource could not be started on b".into());
    assert_eq!(pair.order(0, Order::Standby(Holding::Local)), Some(refused));
    let logged = "refused: a resource could not be started on b";
    assert_eq!(
        pair.nodes[0].notes.iter().filter(|note| note.ends_with(logged)).count(),
        1,
        "the log has it, too"
    );
    let status = pair.nodes[0].director.status(now(pair.now));
    assert_eq!(status.groups[0].owner, None);
    assert_eq!(
        status.troubles,
        ["group one could not be started on b", "group one: runs on no node, as far as this node knows"]
    );
    // Offered back after a while, it runs here again; the time without it was an outage.
    pair.run(Duration::from_secs(40));
    pair.expect("one two", "three");
    let status = pair.nodes[0].director.status(now(pair.now));
    assert_eq!(status.troubles, [""; 0]);
    assert!(status.groups[0].last_outage > Some(29.0), "{:?}", status.groups[0]);
}

#[test]
fn of_two_offers_that_cross_the_first_node_s_goes_first() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SHORT);
    pair.ask(0, Order::Standby(Holding::All));
    pair.ask(1, Order::Standby(Holding::All));
    pair.run(SHORT);
    pair.expect("", "three one two");
    let answers = [0, 1].map(|n| pair.nodes[n].answers.pop());
    assert!(matches!(answers[0], Some(Answer::Done(_))), "{answers:?}");
    assert_eq!(
        answers[1],
        Some(Answer::Refused("a asked for a hand-over at the same moment and goes first".into()))
    );
    assert!(matches!(pair.order(1, Order::Standby(Holding::All)), Some(Answer::Done(_))));
    pair.expect("one two three", "");
}

#[test]
fn nothing_is_done_while_it_moves() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SHORT);
    pair.agent_delay = 100;
    pair.ask(0, Order::Standby(Holding::All));
    let mut refused = 0;
    loop {
        pair.run(Duration::from_millis(1));
        pair.nodes[1].answers.clear();
        pair.ask(1, Order::Takeover(Holding::All));
        match pair.nodes[1].answers.pop() {
            Some(Answer::Done(_)) => break pair.expect("", "three one two"),
            Some(Answer::Refused(why)) => assert!(why.starts_with("resources are in transition"), "{why}"),
            other => panic!("{other:?}"),
        }
        refused += 1;
        assert!(refused < 1000, "it never ends");
    }
    assert!(refused > 1, "it was not asked while it moved");
    pair.ask(1, Order::Standby(Holding::Local));
    while !pair.nodes[1].running.iter().all(|name| name != "three") {
        pair.run(Duration::from_millis(1));
    }
    let answers = pair.nodes[1].answers.len();
    pair.ask(1, Order::Standby(Holding::Local));
    assert!(
        matches!(pair.nodes[1].answers[answers..], [Answer::Refused(_)]),
        "the other node has not started it yet"
    );
}

#[test]
fn a_leaving_node_is_followed_at_once() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SHORT);
    assert!(matches!(pair.order(0, Order::Leave), Some(Answer::Done(_))));
    pair.expect("", "three one two");
    assert!(pair.nodes[0].exited);
    pair.run(Duration::from_secs(5));
    pair.power_on(0);
    pair.run(SHORT);
    pair.expect("one two", "three");
}

#[test]
fn a_lone_node_takes_everything_after_initdead() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.power_off(1);
    pair.run(Duration::from_millis(2990));
    pair.expect("", "");
    pair.run(Duration::from_millis(20));
    pair.expect("one two three", "");
    pair.power_on(1);
    pair.run(SHORT);
    pair.expect("one two", "three");
}
