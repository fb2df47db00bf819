//! The hostile neighbour: a third machine on the segment of a link floods it while the pair serves. Statement and
//! figures: `docs/hostile.md`.
//!
//! usage: `LOCUM_HOSTILE_SECONDS=60 cargo test --release --test main hostile -- --nocapture`. Without the variable the
//! test takes a few seconds, and the machine's own noise is not judged. `LOCUM_HOSTILE_SEED` sets the seed.

use std::{collections::BTreeMap, env, net::Ipv4Addr, thread, time::Duration};

use locum::{heart::LinkStats, observe::report::StatusReport};
use locum_core::model::keys::{AuthMethod, Key, Keys};
use locum_lab::{
    clock::{Moment, pause},
    timeline::Span,
};

mod cluster;
mod forge;
mod neighbour;
mod sniffer;

use cluster::{ADDRESSES, AUTHKEYS, Cluster, KEEPALIVE, LINK, NETWORK, NODES, SERVICE, not_refused};
use forge::{Fate, FrameForger, FrameSort, Tally};
use neighbour::Neighbour;
use sniffer::{Sniffed, Sniffer, Spoken};

/// Frames that the neighbour sends per second.
const RATE: u64 = 10_000;
/// How much later than its keepalive a beat may be.
const LATE_MAX: Duration = Duration::from_millis(50);
/// How many additional lines each log may have.
const LINES_MAX: usize = 100;
/// The number of different frames in one flood.
const POOL: usize = 20_000;
/// Frames that are still on their way, or were sent by the nodes themselves between two questions.
const SLACK: u64 = 20;

/// The duration, and whether this machine's own delays are judged, too.
struct FloodRun {
    flood: Duration,
    line_rate: Duration,
    judged: bool,
    seed: u64,
}

impl FloodRun {
    fn from_environment() -> Self {
        let number = |name| env::var(name).ok().map(|text| text.parse().expect("a whole number"));
        let seconds: Option<u64> = number("LOCUM_HOSTILE_SECONDS");
        let (flood, line_rate) = seconds.map_or((3, 2), |seconds| (seconds, seconds.div_ceil(6)));
        Self {
            flood: Duration::from_secs(flood),
            line_rate: Duration::from_secs(line_rate),
            judged: seconds.is_some(),
            seed: number("LOCUM_HOSTILE_SEED").unwrap_or(2002),
        }
    }
}

#[test]
fn the_pair_serves_under_hostile_traffic() {
    let Some(mut cluster) = Cluster::build() else { return };
    let run = FloodRun::from_environment();
    let keys =
        Keys::new(1, vec![Key { number: 1, method: AuthMethod::Sha1, secret: b"the-right-secret".to_vec() }]);
    let keys = keys.unwrap();
    assert!(AUTHKEYS.contains("1 sha1 the-right-secret"));
    println!("hostile: seed {}, {RATE} frames a second to both nodes for {:?}", run.seed, run.flood);

    // Records two runs of each node.
    let listeners = NODES.map(|node| Sniffer::start(cluster.rack.tap(NETWORK, node).unwrap()));
    let tape = || listeners.iter().flat_map(Sniffer::take).map(|frame| frame.bytes).collect::<Vec<_>>();
    (0..2).for_each(|node| cluster.start(node));
    cluster.settle();
    pause(Duration::from_secs(1));
    let older = tape();
    for node in [1, 0] {
        cluster.restart(node);
        pause(Duration::from_secs(1));
        cluster.settle();
    }
    tape();
    pause(Duration::from_secs(2));
    let recent = tape();
    let mut forger = FrameForger::new(run.seed, keys.clone(), older, recent);
    let pool: Vec<_> = (0..POOL).map(|_| forger.forge()).collect();
    let neighbour = Neighbour::new(&cluster.rack);

    // The machine's figures without a hostile neighbour.
    pause(run.flood.min(Duration::from_secs(10)));
    let quiet = [0, 1].map(|node| Spoken::of(&listeners[node].take(), &keys));
    wrong_keys_are_named(&cluster, &neighbour, &mut forger);

    let before = Account::take(&cluster);
    let (tally, spoken) = flood(&cluster, &neighbour, &pool, &listeners, &keys, &run);
    pause(Duration::from_secs(1));
    let after = Account::take(&cluster);
    assert_counters(&before, &after, &tally);
    for node in [0, 1] {
        println!("hostile: {}: without: {:?}", NODES[node], quiet[node]);
        println!("hostile: {}: with:    {:?}", NODES[node], spoken[node]);
        println!(
            "hostile: {}: log: {} lines more; heart: {:?}, {} breaths",
            NODES[node],
            after.lines[node] - before.lines[node],
            after.reports[node].heart.lateness,
            after.reports[node].heart.yields
        );
        assert!(after.lines[node] - before.lines[node] < LINES_MAX, "{}", cluster.log(node));
        assert!(spoken[node].answers > 0, "{:?}", spoken[node]);
        // A late heart sends several frames at once. So the core's own limit (sequence.rs) shows only on the wire of a
        // quiet machine.
        assert!(!run.judged || spoken[node].answers_a_second <= 100, "{:?}", spoken[node]);
        assert!(!run.judged || spoken[node].gap <= KEEPALIVE + LATE_MAX, "{:?}", spoken[node]);
        let raw = |c: char| c.is_control() && c != '\n';
        assert!(!cluster.log(node).contains(raw), "raw bytes in the log: {:?}", cluster.log(node));
    }
    no_deadtime_without_bounds(&cluster, &neighbour, &forger, &listeners, &keys);
    at_line_rate(&cluster, &neighbour, &pool, &listeners, &keys, &run);
}

/// Three machines with three wrong keys: one log line for each names the difference and thereby the cure.
fn wrong_keys_are_named(cluster: &Cluster, neighbour: &Neighbour, forger: &mut FrameForger) {
    let machines = [
        (
            31,
            Key { number: 1, method: AuthMethod::Sha1, secret: b"wrong".to_vec() },
            "same method, other key",
        ),
        (32, Key { number: 2, method: AuthMethod::Sha1, secret: b"wrong".to_vec() }, "key number 2 unknown"),
        (
            33,
            Key { number: 1, method: AuthMethod::Md5, secret: b"wrong".to_vec() },
            "this node signs with 1 (sha1)",
        ),
    ];
    for (last, key, _) in &machines {
        let keys = Keys::new(key.number, vec![key.clone()]).unwrap();
        for _ in 0..20 {
            neighbour.send(&forger.beat(0, &keys), Some(Ipv4Addr::new(10, 0, 0, *last)));
        }
    }
    pause(Duration::from_millis(500));
    for (last, _, cure) in machines {
        let log = cluster.log(1);
        let who = format!("from 10.0.0.{last} refused");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&who)).collect();
        assert!(lines.len() == 1 && lines[0].contains(cure), "{cure:?}: {lines:?}");
    }
}

/// One flood, while the service is probed and both nodes are asked once a second.
fn flood(
    cluster: &Cluster,
    neighbour: &Neighbour,
    pool: &[forge::Forged],
    listeners: &[Sniffer; 2],
    keys: &Keys,
    run: &FloodRun,
) -> (Tally, [Spoken; 2]) {
    let calm = cluster.statuses().map(|report| report.cluster.digest);
    listeners.iter().for_each(|listener| drop(listener.take()));
    let begin = Moment::now();
    let tally = thread::scope(|scope| {
        let sending = scope.spawn(|| neighbour.flood(pool, Some(RATE), run.flood));
        while !sending.is_finished() {
            pause(Duration::from_secs(1));
            let digests = cluster.statuses().map(|report| report.cluster.digest);
            assert!(!run.judged || digests == calm, "the core's state changed: {}", cluster.log(0));
        }
        sending.join().unwrap()
    });
    let window = Span::new(begin, Moment::now() - Duration::from_millis(100));
    let outage = cluster.rack.look(|record| record.outage(SERVICE, window)).flatten();
    let outage = outage.map(|gap| gap.to.since(gap.from));
    println!("hostile: sent {} frames, {} bytes: {:?}", tally.frames, tally.bytes, tally.sorts);
    println!("hostile: longest time without an answer of the service: {outage:?}");
    assert_eq!(cluster.holders(), [NODES[0]]);
    let every_sort = tally.sorts.len();
    assert_eq!(every_sort, 11, "{:?}", tally.sorts);
    (tally, [0, 1].map(|node| Spoken::of(&listeners[node].take(), keys)))
}

/// The counters and log lines of both nodes so far.
struct Account {
    reports: [StatusReport; 2],
    lines: [usize; 2],
    arrived: [u64; 2],
}

impl Account {
    fn take(cluster: &Cluster) -> Self {
        let arrived = [0, 1].map(|node| cluster.arrived(node));
        Self { reports: cluster.statuses(), lines: cluster.log_lines(), arrived }
    }

    fn link(&self, node: usize) -> &LinkStats {
        self.reports[node].heart.links.iter().find(|link| link.name == LINK).unwrap()
    }
}

/// Generator, kernel and core have counted the same frames, and the same reasons.
fn assert_counters(before: &Account, after: &Account, tally: &Tally) {
    for node in [0, 1] {
        let (report, frames) = (&after.reports[node], &after.reports[node].cluster.frames);
        let refused: u64 = frames.refused.values().sum();
        assert_eq!(frames.received, not_refused(frames) + refused, "each frame is counted once: {frames:?}");
        let read: u64 = report.heart.links.iter().map(|link| link.frames_in).sum();
        assert_eq!(frames.received, read, "the heart hands over what it reads");

        // All frames on the wire: the neighbour's, the peer's, and the node's own broadcasts, which come back.
        let sent = |node: usize| after.link(node).frames_out - before.link(node).frames_out;
        let offered = tally.frames + sent(0) + sent(1);
        let read = after.link(node).frames_in - before.link(node).frames_in;
        let dropped = after.link(node).dropped_in - before.link(node).dropped_in;
        println!("hostile: {}: offered {offered}, read {read}, dropped by the kernel {dropped}", NODES[node]);
        assert!(
            offered.abs_diff(read + dropped) <= SLACK,
            "{offered} offered, {read} read, {dropped} dropped"
        );

        let earlier = &before.reports[node].cluster.frames.refused;
        let more = |(reason, count): (&std::borrow::Cow<'static, str>, &u64)| {
            let more = count - earlier.get(reason).copied().unwrap_or(0);
            (more > 0).then(|| (reason.to_string(), more))
        };
        let refused: BTreeMap<String, u64> = frames.refused.iter().filter_map(more).collect();
        let due: BTreeMap<String, u64> =
            tally.refused(node).into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
        println!("hostile: {}: refused {refused:?}", NODES[node]);
        if dropped == 0 {
            assert_eq!(refused, due, "by reason");
        } else {
            let missing: u64 = due.values().sum::<u64>() - refused.values().sum::<u64>();
            assert!(missing <= dropped, "{missing} refusals are missing, the kernel dropped {dropped}");
        }
        assert_eq!(report.cluster.digest, before.reports[node].cluster.digest, "the core's state changed");
    }
}

/// With the right key, a node can be made more patient with its peer, but only within bounds.
fn no_deadtime_without_bounds(
    cluster: &Cluster,
    neighbour: &Neighbour,
    forger: &FrameForger,
    listeners: &[Sniffer; 2],
    keys: &Keys,
) {
    let deadtime = |report: &StatusReport| {
        report.cluster.nodes.iter().find(|node| node.name == NODES[0]).unwrap().deadtime
    };
    let believed = (0..20).find_map(|_| {
        listeners[0].take();
        pause(KEEPALIVE);
        let last = newest(&listeners[0].take(), keys)?;
        neighbour.send(&forger.fresh_beat(0, last + 5, u64::MAX), Some(ADDRESSES[0]));
        let told = deadtime(&cluster.status(1)?);
        (told > 2.0).then_some(told)
    });
    assert_eq!(believed, Some(3600.0));
    pause(KEEPALIVE * 10);
    assert_eq!(deadtime(&cluster.status(1).unwrap()), 2.0, "its own beats are believed again");
}

fn newest(frames: &[Sniffed], keys: &Keys) -> Option<u64> {
    use locum_core::{framing::frame::authenticate, r1::message::R1Message};
    frames
        .iter()
        .filter_map(|frame| R1Message::parse(&authenticate(&frame.bytes, keys).ok()?).ok()?.seq)
        .max()
}

/// A flood as fast as the wire allows. The nodes cannot hear each other on this link, but beats are sent on it, and the
/// other link carries the cluster.
fn at_line_rate(
    cluster: &Cluster,
    neighbour: &Neighbour,
    pool: &[forge::Forged],
    listeners: &[Sniffer; 2],
    keys: &Keys,
    run: &FloodRun,
) {
    // Large frames would only cost the sender time.
    let small = |forged: &&forge::Forged| forged.bytes.len() <= 1472;
    assert!(pool.iter().filter(small).count() > POOL / 2);
    listeners.iter().for_each(|listener| drop(listener.take()));
    let before = Account::take(cluster);
    let begin = Moment::now();
    let tally = neighbour.flood(pool, None, run.line_rate);
    let time = Moment::now().since(begin);
    let spoken = [0, 1].map(|node| Spoken::of(&listeners[node].take(), keys));
    pause(Duration::from_secs(2));
    let after = Account::take(cluster);
    let rate = tally.frames as f64 / time.as_secs_f64();
    println!("hostile: line rate: {} frames in {time:?}: {rate:.0} a second", tally.frames);
    for node in [0, 1] {
        let (link, link_before) = (after.link(node), before.link(node));
        let read = link.frames_in - link_before.frames_in;
        let dropped = link.dropped_in - link_before.dropped_in;
        let turns = after.reports[node].heart.turns - before.reports[node].heart.turns;
        println!(
            "hostile: line rate: {}: {} packets arrived, {read} frames read in {turns} turns, {dropped} dropped at \
             the socket; {:?}; {:?}",
            NODES[node],
            after.arrived[node] - before.arrived[node],
            spoken[node],
            after.reports[node].heart.lateness
        );
        assert!(after.lines[node] - before.lines[node] < LINES_MAX, "{}", cluster.log(node));
        let (calm, now) = (&before.reports[node].cluster, &after.reports[node].cluster);
        assert_eq!((&now.digest, now.state), (&calm.digest, calm.state), "{}", cluster.log(node));
        // A beat every keepalive, allowing for other work of this machine.
        let due = time.as_millis() / KEEPALIVE.as_millis();
        assert!(spoken[node].beats as u128 * 2 > due, "{:?} of {due}", spoken[node]);
    }
    assert_eq!(cluster.holders(), [NODES[0]], "a takeover");
    assert!(!cluster.log(1).contains("is dead (not heard") || run.judged, "{}", cluster.log(1));
    let accepted = tally.fates[0].get(&Fate::Accepted).copied().unwrap_or(0);
    assert!(accepted > 0 && tally.sorts.contains_key(&FrameSort::Request));
}
