//! R1: whether clients would reach a set on its new node, and which starts are tried again when they would. Two
//! directors that tell each other which interfaces carry nothing.

mod common;

use common::pair::{Pair, SHORT};
use locum_core::{
    model::{
        action::Operation,
        event::{Carrier, Event},
        holding::Holding,
        identity::{GroupIndex, ResourceId},
        order::{Answer, Order},
        time::Duration,
    },
    r1::plan::AutoFailback,
};

const SECOND: Duration = Duration::from_secs(1);

/// Sets whether the interface of a group's address on a node has carrier.
fn plug(pair: &mut Pair, n: usize, group: usize, carries: bool) {
    let resource = ResourceId { group: GroupIndex(group), member: 0 };
    let state = if carries { Carrier::Up } else { Carrier::Down("eth0 is down".into()) };
    pair.give(n, Event::Service { resource, state });
}

#[test]
fn a_node_whose_interface_is_down_is_given_its_groups_when_it_is_up() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND);
    pair.power_off(0);
    pair.run(SECOND * 3);
    pair.expect("", "three one two");
    let began = pair.now;
    pair.power_on(0);
    plug(&mut pair, 0, 0, false);
    pair.run(SECOND * 8);
    pair.expect("", "three one two");
    assert_eq!(pair.outage("one", began), Duration::ZERO);
    let told = pair.status(1).waiting.unwrap().to_string();
    let why = "clients would not reach one on a: an interface there carries nothing";
    assert_eq!(told, format!("waits until a node can take it: {why}"), "of a failback");
    plug(&mut pair, 0, 0, true);
    pair.run(SECOND);
    assert_eq!(pair.status(1).waiting, None);
    pair.expect("one two", "three");
    assert!(pair.outage("one", began) < SECOND / 10);
}

#[test]
fn an_order_waits_for_the_interface_and_is_refused_with_the_reason() {
    let mut pair = Pair::new(AutoFailback::Off);
    pair.run(SECOND);
    plug(&mut pair, 1, 0, false);
    pair.run(SHORT);
    for (n, order, node) in
        [(0, Order::Standby(Holding::Local), "b"), (1, Order::Takeover(Holding::Foreign), "this node")]
    {
        let began = pair.now;
        assert_eq!(pair.order(n, order), None);
        pair.run(SECOND * 29);
        assert_eq!(pair.nodes[n].answers.pop(), None);
        let told = pair.status(n).waiting.unwrap().to_string();
        assert!(told.ends_with("an interface there carries nothing (29 s of 30)"), "{told}");
        pair.run(SECOND * 2);
        let why = format!("clients would not reach one on {node}: an interface there carries nothing");
        assert_eq!(pair.nodes[n].answers.pop(), Some(Answer::Refused(why)));
        assert_eq!(pair.status(n).waiting, None);
        pair.expect("one two", "three");
        assert_eq!(pair.outage("one", began), Duration::ZERO);
    }
    // When its interface is plugged in during the wait, the set moves.
    assert_eq!(pair.order(0, Order::Standby(Holding::Local)), None);
    plug(&mut pair, 1, 0, true);
    pair.run(SECOND);
    assert!(matches!(pair.nodes[0].answers.pop(), Some(Answer::Done(_))));
    pair.expect("", "three one two");
    // A leaving node does not wait, whatever is unplugged.
    plug(&mut pair, 0, 0, false);
    pair.run(SECOND);
    pair.ask(1, Order::Leave);
    pair.run(SECOND * 2);
    pair.expect("one two three", "");
}

/// The interface comes half a minute after the daemon, and the node is alone.
#[test]
fn what_could_not_be_started_on_a_lone_node_is_tried_again_when_its_network_comes() {
    for by_time in [false, true] {
        let mut pair = Pair::new(AutoFailback::On);
        pair.run(SECOND);
        [0, 1].into_iter().for_each(|n| pair.power_off(n));
        pair.run(SECOND);
        pair.power_on(0);
        plug(&mut pair, 0, 0, false);
        pair.failing.insert((0, Operation::Start, "one".into()));
        pair.run(SECOND * 5);
        pair.expect("three", "");
        // The group does not run here, and the answer to an order must say so.
        let answer = pair.order(0, Order::Takeover(Holding::Local));
        let again = "one could not be started here, and is tried again now";
        assert_eq!(answer, Some(Answer::Done(again.into())));
        pair.run(SECOND);
        assert_eq!(
            pair.order(0, Order::Takeover(Holding::Foreign)),
            Some(Answer::Done("already here".into()))
        );
        pair.failing.clear();
        pair.run(SECOND * 2);
        pair.expect("three", "");
        if !by_time {
            plug(&mut pair, 0, 0, true);
        }
        pair.run(SECOND * if by_time { 65 } else { 3 });
        pair.expect("one two three", "");
    }
}
