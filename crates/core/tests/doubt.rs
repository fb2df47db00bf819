//! A life that begins beside a real heartbeat which waits for the end of a hand-over that our last life began.

mod common;

use common::pair::{Pair, keys, now, uuid};
use locum_core::{
    plan::AutoFailback,
    time::Duration,
    wire::{
        frame::{self, Framing},
        message::{AskStep, Body, Holding, Message, NodeState, Resource, Status as Beat},
    },
};

/// Node a, played as a heartbeat that has settled long ago; node b is the program's.
struct Beside {
    pair: Pair,
    seq: u64,
}

impl Beside {
    /// b begins its life, and hears what a holds when it asks.
    fn begin(holds: Holding) -> Self {
        let mut pair = Pair::new(AutoFailback::Off);
        // What it hears is recorded, and what it says itself goes nowhere.
        pair.cut_all(0, true);
        pair.power_off(1);
        pair.power_on(1);
        pair.recording = true;
        let mut beside = Self { pair, seq: 0 };
        for body in [Self::beat(), Body::RepNodes { nodes: vec!["a".into(), "b".into()], deleted: vec![] }] {
            beside.say(body);
        }
        beside.hold(holds);
        beside
    }

    fn beat() -> Body {
        Body::Status(Beat { state: NodeState::Active, dead_ms: Some(1000), protocol: Some(1) })
    }

    fn say(&mut self, body: Body) {
        self.seq += 1;
        let mut message = Message::new(body, "a");
        message.src_uuid = Some(uuid(0));
        message.seq = Some(self.seq);
        message.generation = Some(1);
        message.unix_seconds = 1_000_000_000;
        let mut bytes = vec![];
        message.emit(Framing::Netstring, &keys(), true, &mut bytes);
        self.pair.inject(1, 0, &bytes);
    }

    fn hold(&mut self, hold: Holding) {
        self.say(Body::Resource(Resource { hold, full: true, stable: Some(true), info: None }));
    }

    /// Lets time pass in which a beats; what b said of hand-overs.
    fn run(&mut self, seconds: u64) -> Vec<(Holding, AskStep)> {
        for _ in 0..seconds * 5 {
            self.say(Self::beat());
            self.pair.run(Duration::from_millis(200));
        }
        let mut asked = Vec::new();
        for (to, link, bytes) in std::mem::take(&mut self.pair.recorded) {
            let message = Message::parse(&frame::authenticate(&bytes, &keys()).expect("authentic"));
            if let Body::AskResources { hold, step } = message.expect("a message").body
                && (to, link.0) == (0, 0)
            {
                asked.push((hold, step));
            }
        }
        asked
    }

    fn runs(&self, groups: &str) {
        assert_eq!(self.pair.nodes[1].running.join(" "), groups, "at {:?}", now(self.pair.now).instant);
    }
}

#[test]
fn a_peer_that_waits_for_our_last_life_is_released() {
    let mut beside = Beside::begin(Holding::Local);
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
    let mut beside = Beside::begin(Holding::None);
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
    let mut beside = Beside::begin(Holding::Local);
    beside.run(3);
    beside.hold(Holding::All);
    assert_eq!(beside.run(12), []);
    beside.runs("");
}

#[test]
fn where_every_set_is_held_nothing_is_asked() {
    let mut beside = Beside::begin(Holding::All);
    assert_eq!(beside.run(12), []);
    beside.runs("");
}
