//! A node starts beside a real heartbeat that waits for the end of a hand-over from before the node's restart.

mod common;

use common::beside::Beside;
use locum_core::{
    model::holding::Holding,
    r1::{
        message::{AskStep, Body},
        plan::AutoFailback,
    },
};

#[test]
fn a_peer_that_waits_for_our_previous_run_is_released() {
    let mut beside = Beside::begin(AutoFailback::Off, Holding::Local);
    assert_eq!(beside.run(5), [(Holding::Foreign, AskStep::Me)]);
    beside.runs("");
    let done = (Holding::None, AskStep::Done);
    assert_eq!(beside.run(6), [done, done]);
    beside.runs("three");
    // It has left the hand-over, and says so.
    beside.hold(Holding::Local);
    assert_eq!(beside.run(12), []);
    beside.runs("three");
}

#[test]
fn a_peer_that_took_nothing_is_asked_to_take_its_own() {
    let mut beside = Beside::begin(AutoFailback::Off, Holding::None);
    assert_eq!(beside.run(1), [(Holding::Foreign, AskStep::Me)]);
    beside.say(Body::AskResources { hold: Holding::Foreign, step: AskStep::Other });
    assert_eq!(beside.run(1), [(Holding::Foreign, AskStep::Done)]);
    beside.runs("");
    beside.say(Body::AskResources { hold: Holding::Foreign, step: AskStep::Done });
    beside.hold(Holding::Local);
    assert_eq!(beside.run(12), []);
    beside.runs("three");
}

#[test]
fn what_the_peer_is_just_starting_is_left_to_it() {
    let mut beside = Beside::begin(AutoFailback::Off, Holding::Local);
    beside.run(3);
    beside.hold(Holding::All);
    assert_eq!(beside.run(12), []);
    beside.runs("");
}

#[test]
fn where_every_set_is_held_nothing_is_asked() {
    let mut beside = Beside::begin(AutoFailback::Off, Holding::All);
    assert_eq!(beside.run(12), []);
    beside.runs("");
}
