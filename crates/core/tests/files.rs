//! Two nodes whose files differ, and frames that are refused. Both nodes report it with the cure, and no resource has
//! two owners while they hear each other.

mod common;

use std::sync::Arc;

use common::pair::{Pair, now, plan, uuid};
use locum_core::{
    model::{
        action::Operation,
        event::{Carrier, Event},
        identity::{GroupIndex, NodeIndex, ResourceId},
        keys::{AuthMethod, Key, Keys},
        resource::{Agent, Resource},
        time::{Duration, Instant},
    },
    r1::{
        message::Uuid,
        plan::{AutoFailback, R1Group, R1Plan},
    },
};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const ALL_OF: [AutoFailback; 2] = [AutoFailback::On, AutoFailback::Off];

/// A plan with these lines of haresources, each a node and its resources.
fn with(me: usize, failback: AutoFailback, lines: &[(usize, &[&str])]) -> Arc<R1Plan> {
    let resource = |text: &&str| Resource {
        text: (*text).into(),
        script: (*text).into(),
        args: vec![],
        agent: Agent::Script,
    };
    let group = |(node, resources): &(usize, &[&str])| R1Group {
        node: NodeIndex(*node),
        key: resources[0].into(),
        resources: resources.iter().map(resource).collect(),
    };
    Arc::new(R1Plan { groups: lines.iter().map(group).collect(), ..Arc::unwrap_or_clone(plan(me, failback)) })
}

/// The usual beginner's error: each file names its own node. The address is written in two forms, but is the same.
fn each_its_own(failback: AutoFailback) -> [Arc<R1Plan>; 2] {
    [
        with(0, failback, &[(0, &["10.8.0.50/24/eth0"]), (0, &["web"])]),
        with(1, failback, &[(1, &["IPaddr2::10.8.0.50"]), (0, &["web"])]),
    ]
}

fn troubles(pair: &Pair, n: usize) -> Vec<String> {
    pair.nodes[n].director.status(now(pair.now)).troubles
}

/// Nodes that run the address.
fn owners(pair: &Pair) -> Vec<usize> {
    let has = |n: &usize| pair.nodes[*n].running.iter().any(|name| name.contains("10.8.0.50"));
    (0..2).filter(has).collect()
}

#[track_caller]
fn expect_said(pair: &Pair) {
    for n in 0..2 {
        let troubles = troubles(pair, n);
        assert!(troubles[0].starts_with("the files differ from those of "), "{n}: {troubles:?}");
        assert!(troubles[0].contains("haresources 1 is `"), "{n}: {troubles:?}");
        assert!(pair.nodes[n].notes.iter().any(|note| note.starts_with("the files differ")), "{n}");
    }
}

#[test]
fn where_each_file_names_its_own_node_one_owns_and_both_say_so() {
    for mode in ALL_OF {
        let mut pair = Pair::of(each_its_own(mode));
        pair.run(SECOND * 5);
        assert_eq!(owners(&pair), [0]);
        expect_said(&pair);
        let withheld = "group IPaddr2::10.8.0.50: not started here: the files of the nodes differ, and the other file \
                        gives it to a";
        assert_eq!(troubles(&pair, 1)[1], withheld);
        // Its owner is gone: the file of an absent node no longer counts.
        pair.power_off(0);
        pair.run(SECOND * 2);
        assert_eq!(owners(&pair), [1]);
        // The node that runs it keeps it.
        pair.power_on(0);
        pair.run(SECOND * 5);
        assert_eq!(owners(&pair), [1], "{mode:?}");
        expect_said(&pair);
        // In a partition both run it; afterwards one of them does.
        pair.partition(true);
        pair.run(SECOND * 5);
        assert_eq!(owners(&pair), [0, 1]);
        pair.partition(false);
        pair.run(SECOND * 5);
        assert_eq!(owners(&pair).len(), 1);
        // Now the file is corrected.
        pair.power_off(1);
        pair.power_on_with(1, with(1, mode, &[(0, &["10.8.0.50/24/eth0"]), (0, &["web"])]));
        pair.run(SECOND * 5);
        assert_eq!(owners(&pair), [0]);
        assert_eq!([0, 1].map(|n| troubles(&pair, n)), [vec![""; 0], vec![""; 0]]);
    }
}

#[test]
fn an_address_more_on_one_node_is_said_on_both() {
    for mode in ALL_OF {
        let mut pair = Pair::of([
            with(0, mode, &[(0, &["10.8.0.50/24/eth0", "10.8.0.51/24/eth0"])]),
            with(1, mode, &[(0, &["10.8.0.50/24/eth0"])]),
        ]);
        pair.run(SECOND * 2);
        pair.expect("10.8.0.50/24/eth0 10.8.0.51/24/eth0", "");
        expect_said(&pair);
        assert!(troubles(&pair, 1)[0].contains("10.8.0.51"));
        pair.power_off(0);
        pair.run(SECOND * 2);
        pair.expect("", "10.8.0.50/24/eth0");
    }
}

/// Files with this many lines of up to this many bytes, the same on both nodes except for one line. That line names
/// another node, with the other form of its address.
fn with_one_disputed(seed: u64, lines: usize, bytes: usize, disputed: usize) -> [Arc<R1Plan>; 2] {
    [0, 1].map(|me| {
        let texts = |n: usize| [format!("script{n}"), format!("data{n}::{}", "x".repeat((n * 7919) % bytes))];
        let texts: Vec<[String; 2]> = (0..lines).map(texts).collect();
        let node = |n: usize| usize::from((seed >> (n % 60)) & 1 == 1);
        let mut lines: Vec<Vec<&str>> =
            texts.iter().map(|texts| texts.iter().map(String::as_str).collect()).collect();
        lines[disputed].push(["10.8.0.50/24/eth0", "IPaddr2::10.8.0.50"][me]);
        let of = |n: usize| if n == disputed { me } else { node(n) };
        let lines: Vec<(usize, &[&str])> =
            lines.iter().enumerate().map(|(n, line)| (of(n), line.as_slice())).collect();
        with(me, ALL_OF[lines.len() % 2], &lines)
    })
}

/// One node runs the address and it never ran on both. Both nodes name that line and no other, and every frame fits
/// into a datagram.
#[track_caller]
fn expect_one_owner(pair: &mut Pair, line: usize, what: &str) {
    assert_eq!(owners(pair).len(), 1, "{what}");
    let is_twice = pair.journal.iter().any(|(_, running)| {
        running.iter().all(|running| running.iter().any(|name| name.contains("10.8.0.50")))
    });
    assert!(!is_twice, "{what}: both ran it");
    for n in 0..2 {
        let first = &troubles(pair, n)[0];
        assert!(first.contains(&format!("haresources {} is `", line + 1)), "{what}: {first}");
        assert!(!first.contains("missing") && !first.contains("more"), "{what}: {first}");
    }
    let longest = pair.recorded.iter().map(|(.., bytes)| bytes.len()).max().unwrap_or_default();
    assert!(longest <= 1472, "{what}: a frame of {longest} bytes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// The disputed line may be anywhere, in files and lines of any length. Its address never runs on both nodes, and
    /// both name that line and no other.
    #[test]
    fn a_line_that_both_give_to_themselves_is_found_wherever_it_stands(
        seed: u64, lines in 1_usize..150, bytes in prop_oneof![1_usize..60, 1_usize..3000], at: usize,
        apart: bool,
    ) {
        let disputed = at % lines;
        let mut pair = Pair::of(with_one_disputed(seed, lines, bytes, disputed));
        (pair.quiet, pair.recording) = (true, true);
        if apart {
            // One node starts after the other.
            pair.power_off(1);
            pair.run(SECOND * 4);
            pair.power_on(1);
        }
        // One piece is sent every tenth of a second.
        let size: usize = (0..lines).map(|n| 50 + (n * 7919) % bytes).sum();
        pair.run(SECOND * 5 + Duration::from_millis(u64::try_from(size).unwrap() / 8));
        expect_one_owner(&mut pair, disputed, &format!("{lines} lines, {bytes} bytes, line {disputed}"));
    }
}

#[test]
fn of_thousands_of_lines_the_last_one_is_found() {
    let mut pair = Pair::of(with_one_disputed(7, 2048, 30, 2047));
    (pair.quiet, pair.recording) = (true, true);
    pair.run(SECOND * 20);
    expect_one_owner(&mut pair, 2047, "2048 lines");
}

#[test]
fn letters_beyond_ascii_are_no_difference() {
    let lines = |me| with(me, AutoFailback::On, &[(0, &["gr\u{fc}n::50%+&"]), (0, &[["one", "two"][me]])]);
    let mut pair = Pair::of([lines(0), lines(1)]);
    pair.run(SECOND * 5);
    let expected = "the files differ from those of b: haresources 2 is `a one` here and `a two` there: ";
    assert!(troubles(&pair, 0)[0].starts_with(expected), "{:?}", troubles(&pair, 0));
}

/// A group that both run is stopped on one of them after half a deadtime without a break. An earlier dispute does not
/// count.
#[test]
fn a_dispute_that_ended_does_not_shorten_the_next_one() {
    let mut pair = Pair::of(each_its_own(AutoFailback::Off));
    pair.power_off(0);
    pair.run(SECOND * 5);
    pair.partition(true);
    pair.power_on(0);
    pair.run(SECOND * 5);
    assert_eq!(owners(&pair), [0, 1]);
    let mut met = |time| {
        pair.partition(false);
        let since = pair.now;
        while owners(&pair) == [0, 1] && pair.now.since(since) < time {
            pair.run(Duration::from_millis(10));
        }
        let lasted = pair.now.since(since);
        pair.partition(true);
        pair.run(SECOND * 5);
        lasted
    };
    // First they hear each other for a shorter time, later for as long as it takes.
    let short = Duration::from_millis(400);
    assert_eq!(met(short), short);
    let lasted = met(SECOND * 5);
    assert!(lasted >= Duration::from_millis(500), "{lasted:?}");
}

/// Starts, deaths and returns at any moment, with slow frames and agents and some loss. Whenever the nodes have heard
/// each other for a while, exactly one of them runs the address.
#[test]
fn however_they_come_and_go_one_owns() {
    for (seed, index) in (0..60).zip(0_usize..) {
        let mut pair = Pair::of(each_its_own(ALL_OF[index % 2]));
        pair.quiet = true;
        pair.seed = seed;
        (pair.delay, pair.agent_delay, pair.loss) = (20, 200, [0, 30][index / 2 % 2]);
        for round in 0..6 {
            let n = pair.pick(&[0, 1]);
            match pair.random(3) {
                0 => pair.power_off(n),
                1 => pair.partition(true),
                _ => {}
            }
            let wait = pair.random(4000);
            pair.run(Duration::from_millis(wait));
            pair.partition(false);
            for n in 0..2 {
                if !pair.nodes[n].alive {
                    pair.power_on(n);
                }
            }
            pair.run(SECOND * 8);
            assert_eq!(owners(&pair).len(), 1, "seed {seed}, round {round}: {:?}", pair.journal);
            let since = pair.now;
            pair.run(SECOND * 3);
            assert_eq!(owners(&pair).len(), 1, "seed {seed}, round {round}");
            assert!(pair.journal.iter().all(|(at, _)| *at <= since), "seed {seed}, round {round}: it moves");
        }
    }
}

#[test]
fn another_key_is_said_on_both_nodes_as_long_as_it_lasts() {
    let mut pair = Pair::new(AutoFailback::On);
    let other =
        || Keys::new(1, vec![Key { number: 1, method: AuthMethod::Sha1, secret: b"x".to_vec() }]).unwrap();
    pair.run(SECOND * 2);
    pair.give(0, Event::Keys(other()));
    pair.run(SECOND * 3);
    for n in 0..2 {
        let first = &troubles(&pair, n)[0];
        assert!(first.starts_with("frames from the serial line are refused: "), "{first}");
        assert!(first.contains("give both nodes the same authkeys"), "{first}");
    }
    pair.give(1, Event::Keys(other()));
    pair.run(SECOND * 6);
    assert_eq!([0, 1].map(|n| troubles(&pair, n)), [vec![""; 0], vec![""; 0]]);
}

#[test]
fn a_start_on_an_old_state_directory_is_healed_where_nothing_runs_yet() {
    // As after a disk snapshot: the generation of an earlier start again, or that of the last one.
    for earlier in [Some(900), None] {
        let mut pair = Pair::new(AutoFailback::On);
        pair.run(SECOND * 2);
        pair.power_off(0);
        pair.run(SECOND * 3);
        pair.power_on(0);
        pair.run(SECOND * 3);
        pair.expect("one two", "three");
        let last = pair.nodes[0].director.status(now(pair.now)).generation;
        pair.power_off(0);
        pair.run(SECOND * 3);
        pair.power_on_as(0, uuid(0), earlier.unwrap_or(last));
        pair.run(SECOND * 5);
        pair.expect("one two", "three");
        assert_eq!([0, 1].map(|n| troubles(&pair, n)), [vec![""; 0], vec![""; 0]]);
        let healed =
            pair.nodes[0].notes.iter().any(|note| note.contains("is an older copy; going on as generation"));
        assert!(healed, "{:?}", pair.nodes[0].notes);
    }
}

#[test]
fn an_old_state_directory_that_cannot_be_healed_is_said_on_both_nodes() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND * 2);
    pair.power_off(0);
    pair.run(SECOND * 3);
    // It comes up unheard, runs, and then meets the other node.
    pair.partition(true);
    pair.power_on_as(0, uuid(0), 900);
    pair.run(SECOND * 5);
    pair.partition(false);
    pair.run(SECOND * 3);
    let [ours, theirs] = [0, 1].map(|n| troubles(&pair, n)[0].clone());
    assert!(ours.starts_with("b refuses this node's frames: it has heard of generation"), "{ours}");
    assert!(
        theirs
            .starts_with("frames of a from the serial line are refused because their generation is too old"),
        "{theirs}"
    );
    // A restart is enough, as the trouble says.
    pair.power_off(0);
    pair.power_on_as(0, uuid(0), 901);
    pair.run(SECOND * 5);
    pair.expect("one two", "three");
    assert_eq!([0, 1].map(|n| troubles(&pair, n)), [vec![""; 0], vec![""; 0]]);
}

#[test]
fn a_clone_of_a_node_is_said_on_all_three() {
    for (other_uuid, generation) in [
        (uuid(0), 900),
        (uuid(0), 1000),
        (uuid(0), 5000),
        (Uuid([9; 16]), 900),
        (Uuid([9; 16]), 1000),
        (Uuid([9; 16]), 5000),
    ] {
        let mut pair = Pair::new(AutoFailback::Off);
        let mut other = Pair::new(AutoFailback::Off);
        pair.run(SECOND * 15);
        other.quiet = true;
        other.recording = true;
        other.power_off(0);
        other.run(SECOND * 6);
        other.power_on_as(0, other_uuid, generation);
        for _ in 0..40 {
            let ahead = pair.now.since(other.now);
            other.run(ahead);
            pair.run(Duration::from_millis(50));
            other.run(Duration::from_millis(50));
            for (to, link, bytes) in std::mem::take(&mut other.recorded) {
                // The clone's frames reach both nodes.
                if to == 1 {
                    pair.inject(0, link.0, &bytes);
                    pair.inject(1, link.0, &bytes);
                }
            }
        }
        let [ours, theirs] = [0, 1].map(|n| troubles(&pair, n));
        let what = format!("{other_uuid:?} {generation}: {ours:?} {theirs:?}");
        assert!(ours[0].contains("uses this node's name a"), "{what}");
        let seen = |text: &String| {
            text.contains("another machine uses its name") || text.contains("two machines use the name a")
        };
        // If two nodes are the same except for the time of their start, the other node hears one daemon.
        let is_the_same = (other_uuid, generation) == (uuid(0), 1000);
        assert!(is_the_same || theirs.first().is_some_and(seen), "{what}");
    }
}

/// A node that lacks a right for its addresses (this is reported before anything else) runs no group with an address. A
/// node that can run the group does.
#[test]
fn what_a_node_cannot_carry_runs_on_the_other() {
    for mode in ALL_OF {
        for together in [true, false] {
            let mut pair = Pair::new(mode);
            let bar = |pair: &mut Pair| {
                let resource = ResourceId { group: GroupIndex(0), member: 1 };
                let state = Carrier::Barred("CAP_NET_ADMIN is missing".into());
                pair.give(0, Event::Service { resource, state });
            };
            if !together {
                pair.run(SECOND * 3);
                pair.power_off(0);
                pair.run(SECOND * 3);
                pair.power_on(0);
            }
            bar(&mut pair);
            pair.run(SECOND * 5);
            pair.expect("", "three one two");
            assert!(
                pair.journal.iter().all(|(at, [a, _])| a.is_empty() || !together && at.as_millis() < 4000)
            );
            assert!(!together || pair.outage("one", Instant::from_millis(1000)) < SECOND * 3);
            let said = "group one could not be started here: CAP_NET_ADMIN is missing";
            assert!(troubles(&pair, 0).contains(&said.to_string()), "{:?}", troubles(&pair, 0));
            // The group stays there.
            let moved = pair.journal.len();
            pair.run(SECOND * 100);
            pair.expect("", "three one two");
            assert_eq!(pair.journal.len(), moved);
        }
    }
}

#[test]
fn a_node_that_is_heard_and_does_not_hear_is_said() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND * 2);
    pair.cut_all(0, true);
    pair.run(SECOND * 3);
    let said = troubles(&pair, 0);
    assert!(said[0].starts_with("b cannot hear this node, but this node hears it"), "{said:?}");
    pair.cut_all(0, false);
    pair.run(SECOND * 5);
    assert_eq!([0, 1].map(|n| troubles(&pair, n)), [vec![""; 0], vec![""; 0]]);
}

/// After `kill -9` up to a minute of what was heard is forgotten: the newest number of the peer is stored once a
/// minute. Recordings of that minute are taken for the peer itself, once, and for as long as they last. The peer is
/// then reported as not hearing this node.
#[test]
fn recordings_of_the_last_minute_keep_a_dead_peer_alive_once_and_are_said() {
    let mut pair = Pair::new(AutoFailback::On);
    pair.run(SECOND * 2);
    pair.recording = true;
    pair.run(SECOND * 20);
    pair.recording = false;
    let tape: Vec<_> = std::mem::take(&mut pair.recorded).into_iter().filter(|(to, ..)| *to == 0).collect();
    pair.power_off(0);
    pair.power_off(1);
    pair.power_on(0);
    let began = pair.now;
    let mut said = false;
    for (_, link, bytes) in &tape {
        pair.inject(0, link.0, bytes);
        pair.run(Duration::from_millis(50));
        said |= troubles(&pair, 0)
            .first()
            .is_some_and(|text| text.contains("or b's frames are being replayed here"));
    }
    assert!(said);
    // A recording that was played once is worthless from then on.
    for _ in 0..3 {
        for (_, link, bytes) in &tape {
            pair.inject(0, link.0, bytes);
            pair.run(Duration::from_millis(10));
        }
    }
    pair.expect("one two three", "");
    assert!(pair.now.since(began) > SECOND * 10);
}

/// A status stays one datagram, even if very many groups could not be started: a node that cannot send its status
/// counts as dead.
#[test]
fn hundreds_that_do_not_start_still_leave_room_for_the_status() {
    let keys: Vec<String> = (0..600).map(|n| format!("script::{n}::{}", "x".repeat(100))).collect();
    let resources: Vec<[&str; 1]> = keys.iter().map(|key| [key.as_str()]).collect();
    let lines: Vec<(usize, &[&str])> =
        resources.iter().enumerate().map(|(n, one)| (n % 2, &one[..])).collect();
    let failing =
        keys.iter().flat_map(|key| [0, 1].map(|node| (node, Operation::Start, key.clone()))).collect();
    let mut pair = Pair::of([with(0, AutoFailback::On, &lines), with(1, AutoFailback::On, &lines)]);
    (pair.quiet, pair.recording, pair.failing) = (true, true, failing);
    pair.run(Duration::from_secs(8));
    let longest = pair.recorded.iter().map(|(.., bytes)| bytes.len()).max().unwrap();
    assert!((12_000..50_000).contains(&longest), "a frame of {longest} bytes");
    for n in [0, 1] {
        let status = pair.status(n);
        assert!(status.nodes.iter().all(|node| node.liveness.is_up()), "{:?}", status.nodes);
        assert!(status.groups.iter().filter(|group| group.failure.is_some()).count() > 200);
    }
}
