//! A real heartbeat restarts beside this node: it does not say whether it was reloaded or started afresh. Also: what a
//! reload in place of our own waits for.

mod common;

use common::{
    beside::Beside,
    pair::{Pair, SHORT},
};
use locum_core::{
    model::{
        holding::Holding,
        order::{Answer, Order},
        time::Duration,
    },
    r1::{
        message::{AskStep, Body},
        plan::AutoFailback,
    },
};

const OFFERED: (Holding, AskStep) = (Holding::Foreign, AskStep::Me);
const GIVEN: (Holding, AskStep) = (Holding::Foreign, AskStep::Done);

/// b holds everything, because a gave it away.
fn beside_one_that_holds_nothing() -> Beside {
    let mut beside = Beside::begin(AutoFailback::On, Holding::All);
    beside.run(12);
    beside.give(Holding::All);
    beside.runs("one three two");
    beside
}

#[test]
fn a_real_node_that_was_never_gone_gets_nothing_back() {
    let mut beside = beside_one_that_holds_nothing();
    for _ in 0..2 {
        beside.begin_anew();
        assert_eq!(beside.run(15), []);
        beside.runs("one three two");
    }
}

#[test]
fn a_real_node_that_was_silent_gets_its_own_back_once() {
    let mut beside = beside_one_that_holds_nothing();
    beside.pair.run(Duration::from_secs(3));
    beside.begin_anew();
    assert_eq!(beside.run(1), [OFFERED]);
    beside.take(Holding::Foreign, Holding::Local);
    beside.runs("three");
    // Given away again, and reloaded: that was no return.
    beside.give(Holding::Local);
    beside.begin_anew();
    assert_eq!(beside.run(15), []);
    beside.runs("three one two");
}

#[test]
fn a_real_node_that_had_left_gets_its_own_back() {
    let mut beside = beside_one_that_holds_nothing();
    beside.say(Body::ShutDone);
    beside.run(1);
    beside.begin_anew();
    assert_eq!(beside.run(1), [OFFERED]);
    beside.take(Holding::Foreign, Holding::Local);
    beside.runs("three");
}

#[test]
fn a_real_node_that_began_anew_before_it_had_all_is_offered_it_again() {
    let mut beside = beside_one_that_holds_nothing();
    beside.pair.run(Duration::from_secs(3));
    beside.begin_anew();
    assert_eq!(beside.run(1), [OFFERED]);
    beside.say(Body::AskResources { hold: Holding::Foreign, step: AskStep::Other });
    assert_eq!(beside.run(1), [GIVEN]);
    beside.begin_anew();
    assert_eq!(beside.run(1), [OFFERED]);
    beside.take(Holding::Foreign, Holding::Local);
    beside.runs("three");
}

#[test]
fn what_moves_for_longer_than_a_minute_is_not_waited_for() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SHORT);
    pair.agent_delay = 1_000_000;
    pair.ask(0, Order::Standby(Holding::Local));
    pair.ask(0, Order::Reload);
    pair.run(Duration::from_secs(59));
    assert_eq!(pair.nodes[0].answers, []);
    pair.run(Duration::from_secs(2));
    let refused =
        |answer: &Answer| matches!(answer, Answer::Refused(why) if why.starts_with("reload refused: "));
    assert!(pair.nodes[0].answers.iter().any(refused), "{:?}", pair.nodes[0].answers);
    assert!(!pair.nodes[0].exited);
}

#[test]
fn a_leaving_node_is_not_reloaded() {
    for is_asked_first in [true, false] {
        let mut pair = Pair::new(AutoFailback::On);
        pair.run(SHORT);
        pair.agent_delay = 1000;
        pair.run(SHORT);
        if is_asked_first {
            // The reload waits for the end of the hand-over; then the node leaves.
            pair.ask(0, Order::Standby(Holding::Local));
            pair.ask(0, Order::Reload);
            pair.ask(0, Order::Leave);
        } else {
            pair.ask(0, Order::Leave);
            pair.ask(0, Order::Reload);
        }
        pair.run(Duration::from_secs(20));
        let answers = &pair.nodes[0].answers;
        let refused = Answer::Refused("reload refused: this node is leaving".into());
        assert!(answers.contains(&refused), "{answers:?}");
        assert!(answers.contains(&Answer::Done("left the cluster".into())), "{answers:?}");
        pair.expect("", "three one two");
    }
}
