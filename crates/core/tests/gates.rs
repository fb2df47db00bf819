//! The gates of an R1 node: open for a while after each beat, and shut one beat before the other node takes over.

mod common;

use std::{net::IpAddr, sync::Arc};

use common::pair;
use locum_core::{
    model::{
        action::{Action, GateLease},
        claim::Ballot,
        event::{Event, Source},
        identity::{GroupIndex, LinkIndex},
        resource::{Address, Agent},
        time::{Duration, Instant},
    },
    r1::{
        director::{R1Director, R1Identity},
        plan::AutoFailback,
    },
};

const MS: Duration = Duration::from_millis(1);

/// A node whose first group has an address, and whose second has none.
fn node(me: usize, keepalive: Duration, deadtime: Duration) -> R1Director {
    let mut plan = (*pair::plan(me, AutoFailback::Off)).clone();
    let ip = IpAddr::from([172, 23, 2, 14]);
    let address =
        Address { ip, prefix: None, interface: None, label: None, broadcast: None, by_route: false };
    plan.groups[0].resources[0].agent = Agent::Address(address);
    (plan.timing.keepalive, plan.timing.deadtime) = (keepalive, deadtime);
    let identity = R1Identity {
        uuid: pair::uuid(me),
        generation: 1,
        peer_heard: None,
        stop_failed: Vec::new(),
        keeps: None,
        seed: 1,
    };
    R1Director::new(Arc::new(plan), pair::keys(), identity, pair::now(Instant::ZERO))
}

/// A group and the lease of its gate.
type Opened = (GroupIndex, GateLease);

/// Takes all waiting actions: the gates' leases, and the frames of the first link.
fn take(director: &mut R1Director) -> (Vec<Opened>, Vec<Arc<[u8]>>) {
    let (mut leases, mut frames) = (Vec::new(), Vec::new());
    while let Some(action) = director.poll() {
        match action {
            Action::Gate { group, lease } => leases.push((group, lease.expect("never shut"))),
            Action::Send { link: LinkIndex(0), bytes } => frames.push(bytes),
            _ => {}
        }
    }
    (leases, frames)
}

#[test]
fn each_beat_opens_the_gate_until_one_beat_before_the_takeover() {
    // The peer is never heard. In the third case a single late beat must not shut the gate.
    for (keepalive, deadtime, open) in [(100, 1000, 900), (1000, 10_000, 9000), (1000, 2000, 2000)] {
        let mut director = node(0, MS * keepalive, MS * deadtime);
        take(&mut director);
        for beat in 1..30 {
            let at = Instant::ZERO + MS * keepalive * beat;
            director.handle(pair::now(at), Event::Tick);
            let (leases, frames) = take(&mut director);
            let lease = GateLease { until: at + MS * open, sent: at, ballot: Ballot::ZERO };
            assert_eq!(leases, [(GroupIndex(0), lease)], "keepalive {keepalive}");
            assert!(!frames.is_empty());
        }
    }
}

#[test]
fn a_peer_that_takes_over_sooner_is_believed() {
    let (mut ours, mut theirs) = (node(0, MS * 100, MS * 1000), node(1, MS * 100, MS * 500));
    take(&mut ours);
    let (_, frames) = take(&mut theirs);
    for bytes in frames {
        let event = Event::Frame { link: LinkIndex(0), from: Source::Serial, bytes: &bytes };
        ours.handle(pair::now(Instant::ZERO + MS), event);
    }
    take(&mut ours);
    ours.handle(pair::now(Instant::ZERO + MS * 100), Event::Tick);
    let (leases, _) = take(&mut ours);
    let long = leases[0].1.until.since(leases[0].1.sent);
    assert_eq!(long, MS * 400);
}
