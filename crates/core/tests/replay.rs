//! Replays the captures to the core in the place of one node. The core hears what the real node heard, at the same
//! times. It must send what the real node sent: messages of the same type, `info`, `rsc_hold`, `isstable`, in the same
//! order. Known differences are listed below with the reason; any other difference fails.
//!
//! Not compared are: repeated statuses and repeated `reqnodes`; `NS_*` messages, which depend on losses and on a random
//! digit; a node's messages to itself (`ip-request-resp`: the real daemon's way to start its own groups); messages of
//! clients and administrators' commands, which are not replayed; and times. The core answers at once, the real daemon
//! when its timers fire.
//!
//! `REPLAY_NOTES=1 cargo test -p locum-core --test replay -- --nocapture` prints what the core would have logged.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its data has failed")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use locum_core::{
    framing::{
        classic::Cutter,
        frame::{Framing, authenticate},
    },
    model::{
        action::{Action, Operation},
        event::{Event, FenceOutcome, Outcome, Source},
        holding::Holding,
        identity::{LinkIndex, ResourceId},
        keys::Keys,
        order::{Order, OrderId},
        time::{Instant, Now},
    },
    r1::{
        director::{R1Director, R1Identity},
        message::{Body, NodeState, R1Message, ResourceMessage, StatusMessage},
        plan::R1Plan,
    },
};

/// One run of one node's daemon: from its start to its end, over one or more captures.
struct DaemonRun {
    /// Number of the node: 1 or 2.
    node: usize,
    start: Start,
    parts: &'static [Part],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Its first frame is in the capture.
    Seen,
    /// The capture begins in the middle of the run, when both nodes held their own sets. A peer played by the test
    /// brings the core into that state.
    MadeUp,
}

/// The events of one capture.
struct Part {
    capture: &'static str,
    /// Beginning and end: seconds since the capture's first frame.
    window: (f64, f64),
    /// Orders of an administrator to this node, with their times.
    orders: &'static [(f64, Order)],
    /// The time in which nothing from the peer arrived.
    deaf: (f64, f64),
    /// The time in which no ping node answered.
    no_echo: (f64, f64),
    /// Whether the time since the previous capture passed for this node, too. If false, it is left out: nothing
    /// happened in it.
    after_gap: bool,
}

const ALWAYS: (f64, f64) = (-1.0, 1e9);
const NEVER: (f64, f64) = (0.0, 0.0);

const fn part(capture: &'static str, orders: &'static [(f64, Order)]) -> Part {
    Part { capture, window: ALWAYS, orders, deaf: NEVER, no_echo: NEVER, after_gap: false }
}

const fn whole(capture: &'static str) -> Part {
    part(capture, &[])
}

const fn until(end: f64, part: Part) -> Part {
    Part { window: (part.window.0, end), ..part }
}

const fn from(begin: f64, part: Part) -> Part {
    Part { window: (begin, part.window.1), ..part }
}

const fn daemon_run(node: usize, parts: &'static [Part]) -> DaemonRun {
    DaemonRun { node, start: Start::Seen, parts }
}

const fn mid_run(node: usize, parts: &'static [Part]) -> DaemonRun {
    DaemonRun { node, start: Start::MadeUp, parts }
}

const STANDBY: Order = Order::Standby(Holding::All);

const RUNS: &[DaemonRun] = &[
    daemon_run(
        1,
        &[
            whole("01-first-node-start"),
            whole("02-second-node-joins"),
            whole("03-steady"),
            part("04-standby-and-takeover", &[(1.152, STANDBY), (23.49, Order::Takeover(Holding::Local))]),
            until(2.416, whole("05-poweroff-takeover")),
        ],
    ),
    daemon_run(
        2,
        &[
            whole("02-second-node-joins"),
            whole("03-steady"),
            whole("04-standby-and-takeover"),
            whole("05-poweroff-takeover"),
            Part { after_gap: true, ..whole("06-return-and-failback") },
            whole("07-graceful-stop"),
        ],
    ),
    daemon_run(1, &[whole("06-return-and-failback"), part("07-graceful-stop", &[(1.28, Order::Leave)])]),
    mid_run(1, &[until(2.69, whole("05b-kill9-takeover"))]),
    mid_run(2, &[whole("05b-kill9-takeover")]),
    mid_run(1, &[Part { deaf: (2.709, 28.697), ..until(40.0, whole("08-link-cut-and-heal")) }]),
    mid_run(2, &[Part { deaf: (2.709, 28.697), ..until(40.0, whole("08-link-cut-and-heal")) }]),
    daemon_run(1, &[from(40.0, whole("08-link-cut-and-heal"))]),
    daemon_run(2, &[from(40.0, whole("08-link-cut-and-heal"))]),
    mid_run(1, &[part("09-packet-loss", &[(26.27, STANDBY)])]),
    mid_run(2, &[whole("09-packet-loss")]),
    daemon_run(1, &[part("10-md5-two-bcast-links", &[(34.494, STANDBY), (56.671, Order::Leave)])]),
    daemon_run(2, &[part("10-md5-two-bcast-links", &[(50.5, Order::Leave)])]),
    daemon_run(1, &[part("11-sha1-mcast", &[(35.317, STANDBY), (49.504, Order::Leave)])]),
    daemon_run(2, &[part("11-sha1-mcast", &[(43.384, Order::Leave)])]),
    daemon_run(1, &[part("12-netstring-md5", &[(34.403, Order::Leave)])]),
    daemon_run(2, &[part("12-netstring-md5", &[(28.341, Order::Leave)])]),
    daemon_run(1, &[until(45.1, part(SERIAL, &[(32.9, STANDBY)]))]),
    daemon_run(2, &[part(SERIAL, &[(58.5, Order::Leave)])]),
    daemon_run(1, &[until(52.492, whole("14-ucast-sha1-nofailback"))]),
    daemon_run(1, &[from(60.0, part("14-ucast-sha1-nofailback", &[(102.489, Order::Leave)]))]),
    daemon_run(2, &[part("14-ucast-sha1-nofailback", &[(96.397, Order::Leave)])]),
    daemon_run(1, &[whole("15-bad-auth")]),
    daemon_run(2, &[whole("15-bad-auth")]),
    daemon_run(1, &[whole("16-auth-index-differs")]),
    daemon_run(2, &[whole("16-auth-index-differs")]),
    daemon_run(1, &[part("17-legacy-failback", &[(37.634, Order::Leave)])]),
    daemon_run(2, &[whole("17-legacy-failback")]),
    daemon_run(1, &[until(27.665, whole("18-stonith-null"))]),
    daemon_run(2, &[whole("18-stonith-null")]),
    daemon_run(
        1,
        &[Part { no_echo: (24.905, 58.58), ..whole("19-ping-ipfail") }, whole("20-admin-messages")],
    ),
    daemon_run(2, &[whole("19-ping-ipfail"), whole("20-admin-messages")]),
];

const SERIAL: &str = "13-serial";

/// A known difference: a line with `-` comes only from the real node, one with `+` only from the core.
struct Difference {
    capture: &'static str,
    node: usize,
    lines: &'static [&'static str],
    reason: &'static str,
}

const FENCED_FIRST: &str = "the outcome of fencing a node never heard of is said after `active` and `starting`, not \
    before: nothing depends on this order";
const PARALLEL: &str = "the own set and the peer's are started side by side: whichever is done first is said first, \
    in the captures, too, in both orders";
const RACE: &str = "both nodes wait 10 s. The core's timer is exact and ends first, so that it tells its holdings \
    when the peer settles; the real one ends at its next tick, after the peer has settled, and says `unstable` first";
const TICK: &str = "the real node handles what came meanwhile at its next tick, in another order";
const AGAIN: &str = "the core asks as soon as it hears the peer, and again after 1 s; the recorded answer belongs to a \
    question that the real node asked later";
const AT_ONCE: &str = "scripts end at once here, so that `req_our_resources()` is said before the peer's holdings are \
    heard and answered";
const SECONDS: &str =
    "the serial streams have no times but seconds: the peer's 10 s end before the core's here";
const UNSEEN: &str = "the real node said it, too, but nobody could see it: its link was cut";
const SECOND_DEATH: &str = "when the peer returns after a partition the real node declares it dead once more; nothing \
    follows from that";
const HANG: &str = "here the real node hangs for good by a fault of its own (`docs/wire.md`, section 9)";
const ONE_WAY: &str = "the core verifies the peer's frames with any of its keys, the peer only with the one it signs \
    with. So the core knows that the peer lives and leaves the groups to it; real nodes both take them";
const NO_THIRD: &str = "no frame adds a node to the core's configuration; the real nodes add one, declare it dead and \
    both take everything";
const COUNT: &str = "the core tells how many ping nodes it reaches as soon as the peer takes part";
const GIVE_BACK: &str = "with as many ping nodes again the peer is to get its own back. The real node's ipfail meant to \
    do that too, and took the second of two equal messages for a word against it; here nobody answers the offer";
const CONTEST: &str = "the peer claims what the core holds, and is told so";

const fn differs(
    capture: &'static str,
    node: usize,
    reason: &'static str,
    lines: &'static [&'static str],
) -> Difference {
    Difference { capture, node, lines, reason }
}

const DIFFERENCES: &[Difference] = &[
    differs(
        "01-first-node-start",
        1,
        FENCED_FIRST,
        &["- stonith clustnode2 n_stnth", "+ stonith clustnode2 n_stnth"],
    ),
    differs(
        "07-graceful-stop",
        2,
        PARALLEL,
        &["+ resource all full stable req_our_resources()", "- resource all full stable req_our_resources()"],
    ),
    differs("08-link-cut-and-heal", 1, SECOND_DEATH, &["- stonith clustnode2 unneeded"]),
    differs(
        "08-link-cut-and-heal",
        1,
        RACE,
        &["- resource none full unstable", "+ resource local full stable"],
    ),
    differs("08-link-cut-and-heal", 2, SECOND_DEATH, &["- stonith clustnode1 unneeded"]),
    differs(
        "08-link-cut-and-heal",
        2,
        UNSEEN,
        &[
            "+ stonith clustnode1 n_stnth",
            "+ resource all full stable req_our_resources()",
            "+ resource foreign mach_down",
        ],
    ),
    differs(
        "10-md5-two-bcast-links",
        1,
        RACE,
        &["- resource none full unstable", "+ resource local full stable"],
    ),
    differs(
        "10-md5-two-bcast-links",
        1,
        PARALLEL,
        &[
            "- resource all full stable req_our_resources()",
            "+ resource foreign mach_down",
            "- resource foreign mach_down",
            "+ resource all full stable req_our_resources()",
        ],
    ),
    differs("10-md5-two-bcast-links", 2, TICK, &["- repnodes", "+ repnodes"]),
    differs(
        "10-md5-two-bcast-links",
        2,
        AT_ONCE,
        &["- resource local full stable", "+ resource local full stable"],
    ),
    differs("11-sha1-mcast", 1, RACE, &["- resource none full unstable", "+ resource local full stable"]),
    differs(
        "11-sha1-mcast",
        1,
        PARALLEL,
        &[
            "- resource all full stable req_our_resources()",
            "+ resource foreign mach_down",
            "- resource foreign mach_down",
            "+ resource all full stable req_our_resources()",
        ],
    ),
    differs("11-sha1-mcast", 2, AGAIN, &["+ reqnodes"]),
    differs(
        "12-netstring-md5",
        1,
        HANG,
        &[
            "+ ask_resources foreign done",
            "+ resource all full stable",
            "+ resource foreign mach_down",
            "+ resource none full unstable shutdown",
            "+ shutdone",
        ],
    ),
    differs("12-netstring-md5", 2, RACE, &["- resource none full unstable", "+ resource local full stable"]),
    differs("13-serial", 2, AGAIN, &["+ reqnodes"]),
    differs("13-serial", 2, SECONDS, &["- resource local full stable", "+ resource none full unstable"]),
    differs(
        "14-ucast-sha1-nofailback",
        1,
        RACE,
        &["- resource none full unstable", "+ resource local full stable"],
    ),
    differs(
        "14-ucast-sha1-nofailback",
        1,
        PARALLEL,
        &[
            "- resource all full stable req_our_resources()",
            "+ resource foreign mach_down",
            "- resource foreign mach_down",
            "+ resource all full stable req_our_resources()",
        ],
    ),
    differs(
        "14-ucast-sha1-nofailback",
        2,
        AT_ONCE,
        &["- resource local full stable", "+ resource local full stable"],
    ),
    differs("14-ucast-sha1-nofailback", 2, UNSEEN, &["+ resource foreign mach_down"]),
    differs(
        "15-bad-auth",
        1,
        FENCED_FIRST,
        &["- stonith clustnode2 n_stnth", "+ stonith clustnode2 n_stnth"],
    ),
    differs(
        "15-bad-auth",
        2,
        FENCED_FIRST,
        &["- stonith clustnode1 n_stnth", "+ stonith clustnode1 n_stnth"],
    ),
    differs(
        "16-auth-index-differs",
        1,
        ONE_WAY,
        &[
            "- stonith clustnode2 n_stnth",
            "- status active",
            "- starting",
            "- resource foreign mach_down",
            "- resource all full stable req_our_resources()",
            "- resource all full stable",
            "+ reqnodes",
        ],
    ),
    differs(
        "16-auth-index-differs",
        2,
        ONE_WAY,
        &[
            "- stonith clustnode1 n_stnth",
            "- status active",
            "- starting",
            "- resource all full stable req_our_resources()",
            "- resource foreign mach_down",
            "- resource all full stable",
            "+ reqnodes",
        ],
    ),
    differs(
        "17-legacy-failback",
        1,
        FENCED_FIRST,
        &["- stonith clustnode2 n_stnth", "+ stonith clustnode2 n_stnth"],
    ),
    differs("18-stonith-null", 1, AT_ONCE, &["- resource local full stable", "+ resource local full stable"]),
    differs("18-stonith-null", 2, RACE, &["- resource none full unstable", "+ resource local full stable"]),
    differs("19-ping-ipfail", 1, COUNT, &["+ num_ping_nodes 2"]),
    differs("19-ping-ipfail", 1, AT_ONCE, &["- resource local full stable", "+ resource local full stable"]),
    differs("19-ping-ipfail", 2, RACE, &["- resource none full unstable", "+ resource local full stable"]),
    differs("19-ping-ipfail", 2, GIVE_BACK, &["+ ask_resources foreign me", "+ resource all full stable"]),
    differs(
        "20-admin-messages",
        1,
        NO_THIRD,
        &[
            "- stonith clustnode3 n_stnth",
            "- resource foreign mach_down",
            "- resource all full stable req_our_resources()",
        ],
    ),
    differs(
        "20-admin-messages",
        2,
        NO_THIRD,
        &[
            "- stonith clustnode3 n_stnth",
            "- resource all full stable req_our_resources()",
            "- resource foreign mach_down",
        ],
    ),
    differs(
        "20-admin-messages",
        2,
        CONTEST,
        &["+ resource all full stable", "+ resource all full stable", "+ resource all full stable"],
    ),
];

#[test]
fn the_core_says_what_the_real_node_said() {
    let mut found = BTreeMap::new();
    let mut messages = 0;
    for life in RUNS {
        for Compared { capture, real, ours } in replay(life) {
            messages += real.len();
            let lines: &mut Vec<String> = found.entry((capture, life.node)).or_default();
            lines.extend(difference(&real, &ours));
        }
    }
    let mut report = String::new();
    for (&(capture, node), lines) in &found {
        let listed: Vec<&Difference> =
            DIFFERENCES.iter().filter(|listed| (listed.capture, listed.node) == (capture, node)).collect();
        let expected: Vec<&str> = listed.iter().flat_map(|listed| listed.lines).copied().collect();
        if *lines != expected {
            writeln!(report, "{capture}, clustnode{node}: found {lines:#?}\n  listed {expected:#?}").unwrap();
        }
        for listed in listed {
            println!("{capture}, clustnode{node}: {:?}: {}", listed.lines, listed.reason);
        }
    }
    println!("{messages} messages of real nodes compared");
    assert!(report.is_empty(), "{report}");
    for listed in DIFFERENCES {
        assert!(found.contains_key(&(listed.capture, listed.node)), "{} is not replayed", listed.capture);
    }
}

/// The lines that are in only one of two lists, by their longest common subsequence.
fn difference(real: &[String], ours: &[String]) -> Vec<String> {
    let mut common = vec![vec![0; ours.len() + 1]; real.len() + 1];
    for i in (0..real.len()).rev() {
        for j in (0..ours.len()).rev() {
            common[i][j] = if real[i] == ours[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, vec![]);
    while i < real.len() || j < ours.len() {
        if i < real.len() && j < ours.len() && real[i] == ours[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == ours.len() || (i < real.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", real[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", ours[j]));
            j += 1;
        }
    }
    lines
}

// ---- one run of a daemon ----------------------------------------------------------------------------------------

/// A frame of a capture, read. Times are microseconds since 1970.
struct Heard {
    at: u64,
    link: LinkIndex,
    from: Source,
    bytes: Vec<u8>,
    message: R1Message,
}

/// The messages of the real node and of the core in one capture.
struct Compared {
    capture: &'static str,
    real: Vec<String>,
    ours: Vec<String>,
}

fn replay(life: &DaemonRun) -> Vec<Compared> {
    let me = format!("clustnode{}", life.node);
    let config = config_of(life.parts[0].capture, life.node);
    let checked = common::configuration(config, &me);
    let plan = Arc::new(checked.plan.unwrap_or_else(|| panic!("{config}: {:?}", checked.diags)));
    let keys = checked.keys.unwrap();

    let captures: Vec<Vec<Heard>> = life.parts.iter().map(|part| heard(part.capture, &plan)).collect();
    let begin = |part: usize| captures[part][0].at + micros(life.parts[part].window.0.max(0.0));
    let own = captures[0].iter().find(|heard| heard.message.src == me && heard.at >= begin(0)).unwrap();
    let (uuid, generation) = (own.message.src_uuid.unwrap(), own.message.generation.unwrap());
    let identity =
        R1Identity { uuid, generation, peer_heard: None, stop_failed: Vec::new(), keeps: None, seed: 7 };

    let mut node = if life.start == Start::Seen {
        ReplayNode::new(plan, keys, identity, own.at)
    } else {
        let peer = captures[0].iter().find(|heard| heard.message.src != me && heard.message.seq.is_some());
        ReplayNode::led_in(plan, keys, identity, peer.unwrap(), begin(0))
    };
    let (mut real_state, mut our_state, mut results) = (None, None, vec![]);
    for (index, (part, frames)) in life.parts.iter().zip(&captures).enumerate() {
        if part.after_gap {
            node.run_to(begin(index));
            let unseen = std::mem::take(&mut node.sent);
            lines(&unseen.iter().collect::<Vec<_>>(), &mut our_state);
        } else if index > 0 {
            node.skip_to(begin(index));
        }
        node.no_echo = (micros(part.no_echo.0) + frames[0].at, micros(part.no_echo.1) + frames[0].at);
        let end = micros(part.window.1.min(1e6)) + frames[0].at;
        let end = end.min(frames.last().unwrap().at);
        let peer = frames.iter().filter(|heard| heard.message.src != me);
        let peer =
            peer.filter(|heard| (begin(index)..=end).contains(&heard.at) && !is_deaf(part, frames, heard));
        let orders = part.orders.iter().map(|&(at, order)| (micros(at) + frames[0].at, Input::Order(order)));
        let mut inputs: Vec<(u64, Input)> =
            peer.map(|heard| (heard.at, Input::Frame(heard))).chain(orders).collect();
        inputs.sort_by_key(|&(at, _)| at);
        for (at, input) in inputs {
            node.run_to(at);
            node.handle(&input);
        }
        node.run_to(end);

        // A message is identified by its number: the real node's frames may leave in another order, and more than once.
        let of_this_life = frames.iter().map(|heard| &heard.message);
        let of_this_life =
            of_this_life.filter(|message| message.src == me && message.generation == Some(generation));
        let real: BTreeMap<u64, &R1Message> =
            of_this_life.filter_map(|message| Some((message.seq?, message))).collect();
        let real: Vec<&R1Message> = real.into_values().collect();
        let ours = std::mem::take(&mut node.sent);
        results.push(Compared {
            capture: part.capture,
            real: lines(&real, &mut real_state),
            ours: lines(&ours.iter().collect::<Vec<_>>(), &mut our_state),
        });
    }
    if std::env::var_os("REPLAY_NOTES").is_some() {
        println!("{} {:?}\n{}", life.parts[0].capture, life.node, node.notes);
    }
    results
}

fn micros(seconds: f64) -> u64 {
    Duration::from_secs_f64(seconds).as_micros().try_into().unwrap()
}

fn is_deaf(part: &Part, frames: &[Heard], heard: &Heard) -> bool {
    let since = heard.at - frames[0].at;
    (micros(part.deaf.0)..micros(part.deaf.1)).contains(&since)
}

/// The compared parts of messages. `state` is the last announced status.
fn lines(messages: &[&R1Message], state: &mut Option<NodeState>) -> Vec<String> {
    let mut lines = vec![];
    for message in messages {
        match &message.body {
            Body::Status(status) if *state == Some(status.state) => {}
            Body::Status(status) => {
                *state = Some(status.state);
                lines.push(format!("status {}", status.state.word()));
            }
            Body::Resource(ResourceMessage { hold, full, stable, info }) => {
                let full = if *full { " full" } else { "" };
                let stable = stable.map_or("", |stable| if stable { " stable" } else { " unstable" });
                let info = info.as_ref().map_or(String::new(), |info| format!(" {info}"));
                lines.push(format!("resource {}{full}{stable}{info}", hold.word()));
            }
            Body::AskResources { hold, step } => {
                lines.push(format!("ask_resources {} {}", hold.word(), step.word()));
            }
            Body::Takeover { hold } => lines.push(format!("hb_takeover {}", hold.word())),
            Body::Stonith { node, result } => lines.push(format!("stonith {node} {result}")),
            Body::IpRequest { key } => lines.push(format!("ip-request {key}")),
            Body::IpRequestResponse { key, .. } if message.dest.as_ref() != Some(&message.src) => {
                lines.push(format!("ip-request-resp {key}"));
            }
            Body::PingCount { count } => once(&mut lines, format!("num_ping_nodes {count}")),
            Body::YouAreDead | Body::AbortGiveUp => once(&mut lines, message.body.kind().to_string()),
            Body::ReqNodes if lines.last().is_some_and(|last| last == "reqnodes") => {}
            Body::ReqNodes | Body::RepNodes { .. } | Body::Starting | Body::ShutDone => {
                lines.push(message.body.kind().to_string());
            }
            Body::IpRequestResponse { .. }
            | Body::PingStatus { .. }
            | Body::Rexmit { .. }
            | Body::NakRexmit { .. }
            | Body::Ack { .. }
            | Body::ClientStatus { .. }
            | Body::QueryClient { .. }
            | Body::RespondClient { .. }
            | Body::AddNode { .. }
            | Body::DelNode { .. }
            | Body::SetWeight { .. }
            | Body::SetSite { .. }
            | Body::Other { .. } => {}
        }
    }
    lines
}

/// Each of the real node's ping nodes can cause the same message; the core sends it once.
fn once(lines: &mut Vec<String>, line: String) {
    if lines.last() != Some(&line) {
        lines.push(line);
    }
}

// ---- captures as input of a node --------------------------------------------------------------------------------

fn config_of(capture: &str, node: usize) -> &'static str {
    if capture == SERIAL {
        return ["ser1", "ser2"][node - 1];
    }
    common::CAPTURES.iter().find(|known| known.name == capture).unwrap().configs[node - 1]
}

/// All frames of a capture, of both nodes.
fn heard(capture: &str, plan: &R1Plan) -> Vec<Heard> {
    if capture == SERIAL {
        return heard_serial();
    }
    let keys = [1, 2].map(|node| common::keys(config_of(capture, node)));
    let link = |from: std::net::Ipv4Addr| {
        let name = if from.octets()[0] == 10 { "eth1" } else { "eth0" };
        LinkIndex(plan.links.iter().position(|link| link.name == name).unwrap())
    };
    let packets = common::pcap(capture).into_iter();
    packets
        .map(|packet| Heard {
            at: packet.at.as_micros().try_into().unwrap(),
            link: link(packet.from),
            from: Source::Udp(SocketAddr::from((packet.from, 694))),
            message: read(&packet.payload, &keys),
            bytes: packet.payload,
        })
        .collect()
}

/// The serial streams have only the seconds in the frames as times; frames of one second are spread over it.
fn heard_serial() -> Vec<Heard> {
    let mut all = vec![];
    for node in [1, 2] {
        let keys = [common::keys(config_of(SERIAL, node))];
        let stream = common::read(&format!("{SERIAL}.from-node{node}.bin"));
        let (mut cutter, mut rest) = (Cutter::default(), stream.as_slice());
        let (mut second, mut count) = (0, 0);
        while let Some(bytes) = cutter.cut(&mut rest) {
            let message = read(bytes, &keys);
            if message.unix_seconds > second {
                (second, count) = (message.unix_seconds, 0);
            }
            count += 1;
            let at = second * 1_000_000 + count * 100_000;
            all.push(Heard { at, link: LinkIndex(0), from: Source::Serial, bytes: bytes.to_vec(), message });
        }
    }
    all.sort_by_key(|heard| heard.at);
    all
}

fn read(bytes: &[u8], keys: &[Keys]) -> R1Message {
    let authentic = keys.iter().find_map(|keys| authenticate(bytes, keys).ok()).unwrap();
    R1Message::parse(&authentic).unwrap()
}

// ---- the core in a node's place ---------------------------------------------------------------------------------

enum Input<'a> {
    Frame(&'a Heard),
    Order(Order),
}

/// The core, with a driver that performs each action at once.
struct ReplayNode {
    director: R1Director,
    keys: Keys,
    /// Time in microseconds since 1970.
    at: u64,
    /// Microseconds of gaps that were left out.
    skipped: u64,
    /// The time in which no ping node answers.
    no_echo: (u64, u64),
    running: BTreeSet<ResourceId>,
    sent: Vec<R1Message>,
    notes: String,
    ended: bool,
}

/// How long before its first capture a node of [`Start::MadeUp`] starts, in microseconds.
const LEAD_IN: u64 = 8_000_000;

impl ReplayNode {
    fn new(plan: Arc<R1Plan>, keys: Keys, identity: R1Identity, at: u64) -> Self {
        let director = R1Director::new(plan, keys.clone(), identity, now(at, 0));
        let mut node = Self {
            director,
            keys,
            at,
            skipped: 0,
            no_echo: (0, 0),
            running: BTreeSet::new(),
            sent: vec![],
            notes: String::new(),
            ended: false,
        };
        node.perform();
        node
    }

    /// A node in the middle of its run: it and the peer, which held its own set only, had started together.
    fn led_in(plan: Arc<R1Plan>, keys: Keys, identity: R1Identity, peer: &Heard, until: u64) -> Self {
        let (me, names) = (plan.nodes[plan.me.0].clone(), plan.nodes.clone());
        let mut node = Self::new(plan, keys, identity, until - LEAD_IN);
        let beat = Body::Status(StatusMessage {
            state: NodeState::Active,
            dead_ms: Some(10_000),
            protocol: Some(1),
        });
        let holdings = ResourceMessage { hold: Holding::Local, full: true, stable: Some(true), info: None };
        let script = [
            (0, beat.clone()),
            (1, Body::RepNodes { nodes: names, deleted: vec![] }),
            (1, Body::Starting),
            (2, Body::Resource(holdings)),
            (3, beat.clone()),
            (5, beat.clone()),
            (7, beat),
        ];
        let first = peer.message.seq.unwrap() - script.len() as u64;
        for (seq, (second, body)) in (first..).zip(script) {
            let mut message = R1Message::new(body, peer.message.src.clone());
            if matches!(message.body, Body::RepNodes { .. }) {
                message.dest = Some(me.clone());
            }
            message.src_uuid = peer.message.src_uuid;
            message.generation = peer.message.generation;
            message.seq = Some(seq);
            message.unix_seconds = 1;
            let mut bytes = vec![];
            message.emit(Framing::Netstring, &node.keys, true, &mut bytes);
            node.run_to(until - LEAD_IN + 100_000 + second * 1_000_000);
            node.handle(&Input::Frame(&Heard {
                at: node.at,
                link: peer.link,
                from: peer.from,
                bytes,
                message,
            }));
        }
        node.run_to(until);
        node.sent.clear();
        node
    }

    fn handle(&mut self, input: &Input<'_>) {
        if self.ended {
            return;
        }
        let event = match *input {
            Input::Frame(heard) => Event::Frame { link: heard.link, from: heard.from, bytes: &heard.bytes },
            Input::Order(order) => Event::Order { id: OrderId(self.at), order },
        };
        self.director.handle(now(self.at, self.skipped), event);
        self.perform();
    }

    /// Lets the time pass.
    fn run_to(&mut self, at: u64) {
        let mut ticks = 0;
        while !self.ended {
            let deadline = self.director.deadline().as_nanos().div_ceil(1000) + self.skipped;
            if deadline > at {
                break;
            }
            ticks = if deadline > self.at { 0 } else { ticks + 1 };
            assert!(ticks < 100, "the core wants to be woken again and again at the same time");
            self.at = self.at.max(deadline);
            self.director.handle(now(self.at, self.skipped), Event::Tick);
            self.perform();
        }
        self.at = self.at.max(at);
    }

    /// Goes on at `at`, as if only a moment had passed.
    fn skip_to(&mut self, at: u64) {
        self.skipped += (at - self.at).saturating_sub(100_000);
        self.at = at;
    }

    /// Performs the actions of the core. Agents answer at once, and do as they are told.
    fn perform(&mut self) {
        loop {
            let (mut done, mut fenced, mut echoes) = (vec![], vec![], vec![]);
            while let Some(action) = self.director.poll() {
                match action {
                    Action::Send { link: LinkIndex(0), bytes } => {
                        self.sent.push(read(&bytes, std::slice::from_ref(&self.keys)));
                    }
                    Action::Run { ticket, resource, operation, .. } => {
                        done.push((ticket, self.operate(resource, operation)));
                    }
                    Action::Ping { ping, bytes } if !(self.no_echo.0..self.no_echo.1).contains(&self.at) => {
                        echoes.push((ping, bytes));
                    }
                    Action::Fence { ticket, .. } => fenced.push(ticket),
                    Action::Abandon(_) => panic!("every operation has ended at once"),
                    Action::Note(note) => writeln!(self.notes, "{} {note}", self.at).unwrap(),
                    Action::Exit { .. } => self.ended = true,
                    action @ (Action::SendTo { .. }
                    | Action::AnnounceClaim { .. }
                    | Action::Proofs { .. }
                    | Action::Write(_)) => {
                        panic!("R1 has no {action:?}")
                    }
                    Action::Send { .. }
                    | Action::Ping { .. }
                    | Action::Gate { .. }
                    | Action::Announce(_)
                    | Action::EventScript { .. }
                    | Action::Reply { .. }
                    | Action::Remember { .. } => {}
                }
            }
            if done.is_empty() && fenced.is_empty() && echoes.is_empty() {
                return;
            }
            for (ping, bytes) in echoes {
                let now = now(self.at, self.skipped);
                self.director.handle(now, Event::Echo { ping, bytes: &bytes });
                self.perform();
            }
            for ticket in fenced {
                let outcome = FenceOutcome::Ok; // as of the null device
                self.director.handle(now(self.at, self.skipped), Event::Fenced { ticket, outcome });
                self.perform();
            }
            for (ticket, outcome) in done {
                self.director.handle(now(self.at, self.skipped), Event::Done { ticket, outcome });
                // The results are performed before the next event.
                self.perform();
            }
        }
    }

    fn operate(&mut self, resource: ResourceId, operation: Operation) -> Outcome {
        match operation {
            Operation::Start => self.running.insert(resource),
            Operation::Stop => self.running.remove(&resource),
            Operation::Status if self.running.contains(&resource) => return Outcome::Running,
            Operation::Status => return Outcome::Stopped,
            Operation::Terminate | Operation::Kill => panic!("R1 has no ladder"),
        };
        Outcome::Ok
    }
}

fn now(at: u64, skipped: u64) -> Now {
    Now { instant: Instant::from_nanos((at - skipped) * 1000), unix_seconds: at / 1_000_000 }
}
