//! The gates of a cluster with `ha.cf`. If a daemon is killed or frozen, its addresses fall silent before the other
//! node answers. Each node is asked at its own hardware address.

use locum_lab::{WatchSpec, clock::Moment, timeline::Span};

use super::*;

const CLIENT: &str = "client";
/// The lease with the files of [`Pair::start`]: deadtime less one keepalive.
const LEASE: Duration = Duration::from_millis(1800);
const KEEPALIVE: Duration = Duration::from_millis(200);
/// An answer may be late because the asking process did not get the processor.
const SLACK: Duration = Duration::from_millis(100);

impl Pair {
    /// Builds the pair with a client that asks both nodes.
    fn watched() -> Option<Self> {
        let description = Self::description(&[(CLIENT, "eth0", "172.23.2.20/24")]);
        let mut rack = build(description)?;
        let sight = WatchSpec {
            client: CLIENT.into(),
            network: "lan".into(),
            services: vec![SERVICE],
            nodes: NODES.map(String::from).into(),
            ask: true,
            ..WatchSpec::default()
        };
        rack.watch(sight).unwrap();
        Some(Self { daemons: [None, None], rack })
    }

    /// When the node answered last.
    fn last_answer(&self, node: usize) -> Option<Moment> {
        let key = (NODES[node].to_owned(), SERVICE);
        self.rack.look(|record| record.answers.get(&key)?.last().copied()).flatten()
    }

    fn two_answered(&self, since: Moment) -> Duration {
        let window = Span::new(since, Moment::now());
        self.rack.look(|record| record.two_answer(SERVICE, window)).unwrap_or_default()
    }

    fn answers_since(&self, node: usize, since: Moment) -> bool {
        self.last_answer(node).is_some_and(|at| at > since)
    }

    #[track_caller]
    fn await_answers(&self, node: usize) {
        let since = Moment::now();
        self.wait("it answers", |pair| pair.answers_since(node, since) && pair.is_stable(node));
    }

    /// The first node's daemon does nothing from `since` on. Its address falls silent in time, the other node takes
    /// over, and both never answer at the same time.
    #[track_caller]
    fn falls_silent(&self, since: Moment) {
        self.await_answers(1);
        let last = self.last_answer(0).unwrap();
        assert!(last <= since + LEASE + SLACK, "it answered {:?} after its last beat", last.since(since));
        // The daemon may have been about to beat.
        assert!(last + KEEPALIVE + SLACK >= since + LEASE, "silent {:?} after its end", last.since(since));
        assert_eq!(self.two_answered(since), Duration::ZERO);
        assert!(self.run(0, &["ip", "address"]).contains(&SERVICE.to_string()), "it stands there still");
        assert!(self.run(0, &["locum", "gate"]).contains(&format!("group {SERVICE}: shut")));
    }
}

#[test]
fn what_a_killed_or_frozen_daemon_leaves_is_silent_before_the_other_node_answers() {
    let Some(mut pair) = Pair::watched() else { return };
    for node in [0, 1] {
        pair.start(node, "");
    }
    pair.await_answers(0);
    let page = pair.run(0, &["locum", "status"]);
    assert!(page.contains("gates by "), "{page}");

    let killed = Moment::now();
    pair.daemons[0].as_mut().unwrap().signal(ProcessSignal::Kill).unwrap();
    pair.falls_silent(killed);

    // Without gates: the leftover is swept, and the service comes back without a gate.
    pair.start_with(0, "", &["--gates", "none"]);
    pair.await_answers(0);
    for node in [0, 1] {
        let gates = pair.run(node, &["locum", "gate"]);
        assert!(gates.contains("no gates here"), "{gates}");
        // The other node has its packet filter ready for a takeover, if the backend takes long to make it.
        let is_ready = gates.contains("packet filter on eth0, without any gate");
        assert_eq!(is_ready, node == 1 && gates.contains("backend bpf: works"), "{gates}");
    }
    pair.run(0, &["locum", "stop"]);
    pair.await_answers(1);
    pair.daemons[0].take().unwrap().wait(PATIENCE);

    // With the other backend, where the kernel has both.
    let has_nft = pair.run(0, &["locum", "gate"]).contains("backend nft: works");
    let backend = if has_nft { "nft" } else { "auto" };
    pair.start_with(0, "", &["--gates", backend]);
    pair.await_answers(0);
    assert!(!has_nft || pair.run(0, &["locum", "status"]).contains("gates by nft"));
    let mut frozen = pair.daemons[0].take().unwrap();
    let since = Moment::now();
    frozen.signal(ProcessSignal::Stop).unwrap();
    pair.falls_silent(since);
    frozen.signal(ProcessSignal::Continue).unwrap();
    pair.daemons[0] = Some(frozen);
    pair.await_answers(0);

    // A clean end leaves nothing behind, and neither does a HUP with another cluster name.
    pair.put(0, "ha.d/ha.cf", &format!("{}cluster other\n", pair.text(0, "ha.d/ha.cf")));
    pair.daemons[0].as_mut().unwrap().signal(ProcessSignal::HangUp).unwrap();
    pair.wait("the gate has another name", |pair| {
        let gates = pair.run(0, &["locum", "gate"]);
        gates.contains("cluster other") && !gates.contains("linux-ha")
    });
    pair.await_answers(0);
    for node in [1, 0] {
        pair.run(node, &["locum", "stop"]);
        assert!(pair.run(node, &["locum", "gate"]).contains("no gates here"));
        let is_ready = |pair: &Pair| pair.run(node, &["locum", "gate"]).contains("ready on");
        pair.wait("nothing is ready any more", |pair| !is_ready(pair));
    }
}
