//! A hostile neighbour: frames recorded and replayed, and frames forged with the right key.

mod common;

use std::sync::Arc;

use common::pair::{Pair, keys, now, plan, uuid};
use locum_core::{
    framing::frame::{self, Framing},
    liveness::Liveness,
    model::{
        action::Action,
        event::{Event, Source},
        holding::Holding,
        identity::LinkIndex,
        keys::{AuthMethod, Key, Keys},
        logging::Logging,
        order::Order,
        time::{Duration, Instant},
    },
    r1::{
        director::{R1Director, R1Identity},
        message::{AskStep, Body, NodeState, R1Message, ResourceMessage, StatusMessage as Beat},
        plan::{AutoFailback, R1Plan},
        status::R1Status,
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn status(pair: &Pair, n: usize) -> R1Status {
    pair.nodes[n].director.status(now(pair.now))
}

fn read(bytes: &[u8]) -> R1Message {
    R1Message::parse(&frame::authenticate(bytes, &keys()).expect("authentic")).expect("a message")
}

fn beat(dead_ms: u64) -> Body {
    Body::Status(Beat { state: NodeState::Active, dead_ms: Some(dead_ms), protocol: Some(1) })
}

/// A frame of node a, signed with the right key.
fn forge(body: Body, seq: Option<u64>, generation: u64) -> Vec<u8> {
    let mut message = R1Message::new(body, "a");
    message.src_uuid = Some(uuid(0));
    message.seq = seq;
    message.generation = Some(generation);
    message.unix_seconds = 1_000_000_000;
    message.locum = Some(1);
    let mut bytes = vec![];
    message.emit(Framing::Netstring, &keys() as &Keys, true, &mut bytes);
    bytes
}

/// The frames of a pair in many situations, with a loss of power of a at the end.
fn recorded() -> Pair {
    let mut pair = Pair::new(AutoFailback::On);
    pair.recording = true;
    pair.loss = 300;
    pair.run(SECOND * 2);
    pair.ask(0, Order::Standby(Holding::Local));
    pair.run(SECOND * 2);
    pair.ask(0, Order::Takeover(Holding::Local));
    pair.run(SECOND * 2);
    pair.loss = 0;
    pair.recording = false;
    pair.run(SECOND);
    pair.expect("one two", "three");
    pair
}

#[test]
fn a_recording_of_a_dead_peer_does_nothing() {
    let mut pair = recorded();
    // Its last message is not a status.
    pair.recording = true;
    pair.ask(0, Order::Standby(Holding::Local));
    pair.run(Duration::from_millis(1));
    pair.power_off(0);
    pair.recording = false;
    pair.run(SECOND * 3);
    pair.expect("", "three one two");
    let before = status(&pair, 1).digest;
    let frames = std::mem::take(&mut pair.recorded);
    let kinds: std::collections::BTreeSet<_> = frames
        .iter()
        .filter(|frame| frame.0 == 1)
        .map(|frame| read(&frame.2).body.kind().to_string())
        .collect();
    for kind in ["status", "resource", "ask_resources", "NS_ackmsg", "NS_rexmit", "reqnodes", "starting"] {
        assert!(kinds.contains(kind), "{kind} is not in {kinds:?}");
    }
    for round in 0..3 {
        for (to, link, bytes) in &frames {
            if *to == 1 {
                pair.inject(1, link.0, bytes);
                let status = status(&pair, 1);
                assert_eq!(
                    status.nodes[0].liveness,
                    Liveness::Dead,
                    "round {round}: {}",
                    read(bytes).body.kind()
                );
                assert_eq!(status.digest, before, "round {round}: {}", read(bytes).body.kind());
            }
        }
        pair.run(SECOND);
    }
    assert!(pair.nodes[1].notes.len() < 100, "{} lines", pair.nodes[1].notes.len());
}

/// The whole last run of a dead peer, replayed to a node that was restarted after that death.
#[test]
fn a_recording_does_not_outlive_our_restart() {
    let mut pair = recorded();
    pair.power_off(0);
    pair.run(SECOND * 3);
    let frames = std::mem::take(&mut pair.recorded);
    pair.power_off(1);
    pair.run(SECOND);
    pair.power_on(1);
    for _ in 0..30 {
        for (to, link, bytes) in &frames {
            if *to == 1 {
                pair.inject(1, link.0, bytes);
                assert!(!status(&pair, 1).nodes[0].liveness.is_up(), "{}", read(bytes).body.kind());
            }
        }
        pair.run(Duration::from_millis(200));
    }
    pair.expect("", "three one two");
    // Its next start is new, and so is the message that it would have sent next in the last one.
    pair.power_on(0);
    pair.run(SECOND * 5);
    pair.expect("one two", "three");
}

/// A living peer is heard again after our restart, whatever was stored of it.
#[test]
fn a_living_peer_is_heard_after_our_restart() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND * 70);
    pair.kill(1);
    pair.run(Duration::from_millis(300));
    pair.nodes[1].running.clear();
    pair.power_on(1);
    pair.run(SECOND);
    assert_eq!(status(&pair, 1).nodes[0].liveness, Liveness::Alive);
    pair.run(SECOND * 3);
    pair.expect("one two", "three");
}

#[test]
fn a_recording_does_not_hold_a_link_up() {
    let mut pair = recorded();
    let frames = std::mem::take(&mut pair.recorded);
    pair.cut[0][0] = true;
    for _ in 0..30 {
        for (to, _, bytes) in &frames {
            if *to == 1 {
                pair.inject(1, 0, bytes);
            }
        }
        pair.run(Duration::from_millis(100));
    }
    let status = status(&pair, 1);
    assert_eq!((status.links[0].liveness, status.links[1].liveness), (Liveness::Silent, Liveness::Alive));
    pair.expect("one two", "three");
}

#[test]
fn a_dead_peers_last_message_replayed_does_not_hold_a_link_up() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND);
    pair.ask(0, Order::Standby(Holding::Local));
    pair.recording = true;
    pair.run(Duration::from_millis(1));
    pair.power_off(0);
    let last = pair.recorded.iter().rev().find(|(to, _, bytes)| *to == 1 && read(bytes).seq.is_some());
    let (_, _, bytes) = last.expect("a frame").clone();
    assert_ne!(read(&bytes).body.kind(), "status");
    for _ in 0..40 {
        pair.inject(1, 0, &bytes);
        pair.run(Duration::from_millis(100));
    }
    assert_eq!(status(&pair, 1).links[0].liveness, Liveness::Silent);
}

#[test]
fn recorded_acknowledgements_of_our_earlier_start_do_not_stop_retransmission() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.recording = true;
    pair.run(SECOND * 10);
    let mut acks =
        pair.recorded.iter().filter(|(to, _, bytes)| *to == 1 && read(bytes).body.kind() == "NS_ackmsg");
    let (_, _, ack) = acks.next_back().expect("an acknowledgement").clone();
    pair.power_off(1);
    pair.run(SECOND * 2);
    pair.power_on(1);
    pair.run(SECOND * 12);
    pair.inject(1, 0, &ack);
    pair.loss = 300;
    assert!(status(&pair, 1).frames.sent_again < 5);
    pair.run(SECOND * 5);
    pair.loss = 0;
    pair.run(SECOND);
    let given_up = pair.nodes[0].notes.iter().filter(|note| note.contains("were not sent again")).count();
    assert_eq!(given_up, 0);
}

/// Every frame is counted once, by its result, and none of its bytes are printed raw.
#[test]
fn counters_add_up_and_nothing_is_printed_raw() {
    let mut pair = recorded();
    let frames = std::mem::take(&mut pair.recorded);
    let generation = status(&pair, 1).generation;
    let before = status(&pair, 1).digest;
    let nasty = "\u{1b}[2J\n\r\u{7}\"'`$(reboot)../../etc";
    for (at, (_, link, bytes)) in frames.iter().enumerate() {
        let mut mutated = bytes.to_vec();
        let place = usize::try_from(pair.random(bytes.len() as u64)).unwrap_or(0);
        mutated[place] ^= 1 << (at % 8);
        pair.inject(1, link.0, &mutated);
        pair.inject(1, link.0, &bytes[..place]);
        pair.inject(1, link.0, &nasty.as_bytes()[..at % nasty.len()]);
        pair.inject(1, link.0, bytes);
    }
    // A frame with our name and another UUID is from another machine; one without a UUID may be our own.
    for (src, with_uuid) in
        [("b", true), ("b", false), ("c", false), ("../b", false), (nasty, false), ("", false)]
    {
        let mut message = R1Message::new(beat(1000), src);
        message.src_uuid = with_uuid.then_some(uuid(0));
        (message.seq, message.generation) = (Some(1), Some(generation));
        message.unix_seconds = 1_000_000_000;
        let mut bytes = vec![];
        message.emit(Framing::Netstring, &keys() as &Keys, true, &mut bytes);
        pair.inject(1, 0, &bytes);
    }
    let status = status(&pair, 1);
    let counted = &status.frames;
    let refused: u64 = counted.refused.values().sum();
    let told =
        counted.accepted + counted.own + counted.echoes + counted.repeated + counted.elsewhere + refused;
    assert_eq!(counted.received, told, "{counted:?}");
    for reason in ["damaged", "no-frame", "no-end", "unknown-node", "our-name", "node-name"] {
        assert!(counted.refused.contains_key(reason), "{reason} is not in {:?}", counted.refused);
    }
    assert_eq!(status.digest, before);
    for note in &pair.nodes[1].notes {
        assert!(!note.contains(|c: char| c.is_control()), "{note:?}");
    }
}

/// Times in a frame are accepted between two keepalives and an hour.
#[test]
fn a_deadtime_out_of_bounds_is_not_believed() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND);
    let generation = status(&pair, 1).nodes[0].generation.expect("heard");
    let mut number = 10_000;
    for (told, believed) in
        [(0, 0.2), (1, 0.2), (500, 0.5), (3_600_000, 3600.0), (3_600_001, 3600.0), (u64::MAX, 3600.0)]
    {
        number += 1;
        pair.inject(1, 0, &forge(beat(told), Some(number), generation));
        assert_eq!(status(&pair, 1).nodes[0].deadtime, believed, "{told} ms");
    }
}

/// An attacker who has the key (with crc, anyone) can take the service, but cannot kill the daemon.
#[test]
fn numbers_at_their_ends_do_not_kill() {
    let ends = [0, 1, 2, 249, 250, 251, 252, u64::MAX / 2, u64::MAX - 251, u64::MAX - 1, u64::MAX];
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND);
    let mut generation = 1000;
    for _ in 0..2 {
        for first in ends {
            for second in ends {
                for body in [
                    beat(first),
                    Body::Rexmit { first, last: second },
                    Body::NakRexmit { seq: first, reason: "x".into() },
                    Body::Ack { seq: first },
                    Body::Starting,
                    Body::Resource(ResourceMessage {
                        hold: Holding::All,
                        full: first % 2 == 0,
                        stable: Some(second % 2 == 0),
                        info: None,
                    }),
                    Body::AskResources { hold: Holding::All, step: AskStep::Done },
                    Body::AskResources { hold: Holding::None, step: AskStep::Me },
                    Body::Takeover { hold: Holding::None },
                    Body::ShutDone,
                ] {
                    for seq in [None, Some(first), Some(second)] {
                        pair.inject(1, 0, &forge(body.clone(), seq, generation));
                    }
                }
                generation += 1;
                pair.inject(1, 0, &forge(beat(second), Some(first), generation));
                pair.run(Duration::from_millis(20));
            }
        }
        // Also with the highest possible generation.
        generation = u64::MAX - 200;
    }
}

/// A peer sends any messages in valid form. When it is silent, this node runs everything, and every order has been
/// answered.
#[test]
fn a_mad_peer_leaves_nothing_behind() {
    const SETS: [Holding; 4] = [Holding::None, Holding::Local, Holding::Foreign, Holding::All];
    for seed in 0..60 {
        let failback = if seed % 2 == 0 { AutoFailback::On } else { AutoFailback::Off };
        let mut pair = Pair::new(failback);
        pair.quiet = true;
        pair.seed = seed;
        pair.agent_delay = pair.random(3) * 100;
        pair.power_off(0);
        let (mut seq, mut generation) = (0, 5000);
        for _ in 0..300 {
            let set = pair.pick(&SETS);
            let step = pair.pick(&[AskStep::Me, AskStep::Other, AskStep::Done]);
            let body = match pair.random(14) {
                0..=3 => beat(pair.random(3000)),
                4 => Body::Starting,
                5 | 6 => Body::Resource(ResourceMessage {
                    hold: set,
                    full: pair.random(2) == 0,
                    stable: pair.pick(&[None, Some(true), Some(false)]),
                    info: None,
                }),
                7..=9 => Body::AskResources { hold: set, step },
                10 => Body::Takeover { hold: set },
                11 => Body::RepNodes { nodes: vec!["x".into()], deleted: vec![] },
                12 if pair.random(4) == 0 => Body::ShutDone,
                _ => Body::ReqNodes,
            };
            if pair.random(40) == 0 {
                (seq, generation) = (0, generation + 1);
            }
            seq += 1 + u64::from(pair.random(10) == 0);
            pair.inject(1, 0, &forge(body, Some(seq), generation));
            if pair.random(20) == 0 {
                let order = pair.pick(&[Order::Standby(set), Order::Takeover(set)]);
                pair.ask(1, order);
            }
            let pause = pair.random(150);
            pair.run(Duration::from_millis(pause));
        }
        pair.run(Duration::from_secs(30));
        pair.expect("", "one two three");
        let b = &pair.nodes[1];
        assert!(b.open.is_empty(), "seed {seed}: unanswered: {:?}", b.open);
        assert_eq!(status(&pair, 1).transition, None, "seed {seed}");
    }
}

#[test]
fn log_badpack_off_silences_wrong_keys_alone() {
    let other = Keys::new(1, vec![Key { number: 1, method: AuthMethod::Sha1, secret: b"another".to_vec() }])
        .expect("keys");
    let mut frame = vec![];
    R1Message::new(beat(1000), "b").emit(Framing::Netstring, &other, true, &mut frame);
    let start = now(Instant::from_millis(1000));
    for bad_packets in [true, false] {
        let logging = Logging { bad_packets, ..Logging::default() };
        let plan = R1Plan { logging, ..R1Plan::clone(&plan(0, AutoFailback::On)) };
        let identity = R1Identity {
            uuid: uuid(0),
            generation: 7,
            peer_heard: None,
            stop_failed: Vec::new(),
            keeps: None,
            seed: 1,
        };
        let mut director = R1Director::new(Arc::new(plan), keys(), identity, start);
        for bytes in [frame.as_slice(), b"noise"] {
            let from = Source::Udp(([10, 0, 0, if bytes == b"noise" { 8 } else { 9 }], 694).into());
            director.handle(start, Event::Frame { link: LinkIndex(0), from, bytes });
        }
        let mut refused = Vec::new();
        while let Some(action) = director.poll() {
            if let Action::Note(note) = action
                && note.text.contains("refused")
            {
                refused.push(note.text);
            }
        }
        let (about_key, others): (Vec<_>, Vec<_>) = refused.iter().partition(|text| text.contains("method"));
        assert_eq!((about_key.len(), others.len()), (usize::from(bad_packets), 1), "{refused:?}");
    }
}
