//! One node of Locum beside a real heartbeat that the test plays: the legacy mode, orders and messages of scripts,
//! messages of administrators.

#![expect(clippy::unwrap_used, reason = "a test that cannot read what was said has failed")]

mod common;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use common::pair::{keys, now, plan, uuid};
use locum_core::{
    framing::frame::{Framing, authenticate},
    model::{
        action::{Action, Operation},
        event::{Event, FenceOutcome, Outcome, Source, Ticket},
        holding::Holding,
        identity::{LinkIndex, ResourceId},
        note::Level,
        order::{Answer, Order, OrderId},
        time::Instant,
    },
    r1::{
        director::{R1Director, R1Identity},
        message::{AskStep, Body, NodeState, R1Message, ResourceMessage, StatusMessage},
        plan::{AutoFailback, Fencing, FencingParameters, R1Plan},
    },
};

/// The node `a`, and its actions since the last call.
struct DropInNode {
    director: R1Director,
    plan: Arc<R1Plan>,
    at: Instant,
    peer_seq: u64,
    running: BTreeSet<ResourceId>,
    sent: Vec<R1Message>,
    scripts: Vec<(String, Vec<(String, String)>)>,
    notes: Vec<(Level, String)>,
    answers: Vec<Answer>,
    fences: Vec<Ticket>,
    exited: bool,
}

impl DropInNode {
    fn new(plan: R1Plan) -> Self {
        let (plan, at) = (Arc::new(plan), Instant::from_millis(1000));
        let identity = R1Identity {
            uuid: uuid(0),
            generation: 10,
            peer_heard: None,
            seed: 3,
            stop_failed: vec![],
            keeps: None,
        };
        let director = R1Director::new(Arc::clone(&plan), keys(), identity, now(at));
        let mut node = Self {
            director,
            plan,
            at,
            peer_seq: 0,
            running: BTreeSet::new(),
            sent: vec![],
            scripts: vec![],
            notes: vec![],
            answers: vec![],
            fences: vec![],
            exited: false,
        };
        node.drain();
        node
    }

    /// A node that has met `b`, an active heartbeat with its own groups.
    fn beside(failback: AutoFailback) -> Self {
        let mut node = Self::new((*plan(0, failback)).clone());
        node.hear(beat());
        node.hear(Body::RepNodes { nodes: vec!["a".into(), "b".into()], deleted: vec![] });
        node
    }

    fn event(&mut self, event: Event<'_>) {
        self.director.handle(now(self.at), event);
        self.drain();
    }

    /// `b` sends this to all, or to `a`.
    fn hear(&mut self, body: Body) {
        self.peer_seq += 1;
        let mut message = R1Message::new(body, "b");
        if matches!(message.body, Body::RepNodes { .. } | Body::IpRequestResponse { .. }) {
            message.dest = Some("a".into());
        }
        (message.src_uuid, message.generation) = (Some(uuid(1)), Some(20));
        (message.seq, message.unix_seconds) = (Some(self.peer_seq), 1);
        self.hear_message(&message);
    }

    fn hear_message(&mut self, message: &R1Message) {
        let mut bytes = vec![];
        message.emit(Framing::Netstring, &keys(), true, &mut bytes);
        self.event(Event::Frame { link: LinkIndex(0), from: Source::Serial, bytes: &bytes });
    }

    /// Lets time pass; `b` beats all the while if it is alive.
    fn run(&mut self, time: Duration, peer_lives: bool) {
        let end = self.at + time;
        let mut next_beat = self.at;
        while self.at < end {
            let due = self.director.deadline().max(self.at).min(end);
            self.at = if peer_lives { due.min(next_beat.max(self.at)) } else { due };
            if peer_lives && self.at >= next_beat {
                self.hear(beat());
                next_beat = self.at + Duration::from_millis(100);
            }
            if !self.exited {
                self.event(Event::Tick);
            }
            if self.at < end && self.director.deadline() <= self.at {
                self.at = self.at + Duration::from_millis(1);
            }
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.director.poll() {
            match action {
                Action::Send { link: LinkIndex(0), bytes } => {
                    let keys = keys();
                    self.sent.push(R1Message::parse(&authenticate(&bytes, &keys).unwrap()).unwrap());
                }
                Action::Run { ticket, resource, operation, .. } => {
                    let outcome = match operation {
                        Operation::Start => {
                            self.running.insert(resource);
                            Outcome::Ok
                        }
                        Operation::Stop => {
                            self.running.remove(&resource);
                            Outcome::Ok
                        }
                        Operation::Status if self.running.contains(&resource) => Outcome::Running,
                        Operation::Status => Outcome::Stopped,
                        Operation::Terminate | Operation::Kill => panic!("R1 has no ladder"),
                    };
                    self.director.handle(now(self.at), Event::Done { ticket, outcome });
                }
                Action::Fence { ticket, .. } => self.fences.push(ticket),
                Action::Abandon(_) => panic!("every operation has ended at once"),
                Action::EventScript { kind, fields, .. } => self.scripts.push((kind, fields)),
                Action::Note(note) => self.notes.push((note.level, note.text)),
                Action::Reply { answer, .. } => self.answers.push(answer),
                Action::Exit { .. } => self.exited = true,
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
                | Action::Remember { .. } => {}
            }
        }
    }

    fn script(&mut self, fields: &[(&str, &str)]) {
        let fields: Vec<(String, String)> =
            fields.iter().map(|&(name, value)| (name.to_string(), value.to_string())).collect();
        self.event(Event::Script(&fields));
    }

    fn order(&mut self, order: Order) -> Option<Answer> {
        self.event(Event::Order { id: OrderId(1), order });
        self.answers.pop()
    }

    /// The messages since the last call, without beats and protocol messages.
    fn take_sent(&mut self) -> Vec<Body> {
        let said = std::mem::take(&mut self.sent).into_iter().map(|message| message.body);
        let is_talk = |body: &Body| {
            !matches!(body, Body::Status(_) | Body::Ack { .. } | Body::Rexmit { .. } | Body::ReqNodes)
        };
        said.filter(is_talk).collect()
    }

    fn runs(&self) -> Vec<&str> {
        self.running.iter().map(|&id| self.plan.resource(id).text.as_str()).collect()
    }

    fn noted(&self, words: &str) -> bool {
        self.notes.iter().any(|(_, text)| text.contains(words))
    }
}

fn beat() -> Body {
    Body::Status(StatusMessage { state: NodeState::Active, dead_ms: Some(1000), protocol: Some(1) })
}

fn answer(key: &str) -> Body {
    Body::IpRequestResponse { key: key.into(), we_own: true, ok: true }
}

fn request(key: &str) -> Body {
    Body::IpRequest { key: key.into() }
}

// ---- legacy ---------------------------------------------------------------------------------------------------------

#[test]
fn in_legacy_mode_own_groups_are_asked_for_and_foreign_ones_given() {
    let mut a = DropInNode::beside(AutoFailback::Legacy);
    assert_eq!(a.take_sent(), [request("one")]);
    a.run(Duration::from_secs(15), true);
    assert!(a.runs().is_empty(), "nothing is started before the owner has answered");
    a.hear(answer("one"));
    assert_eq!(a.runs(), ["one", "two"]);
    a.run(Duration::from_secs(1), true);
    assert_eq!(a.director.status(now(a.at)).holding, "local");
    assert_eq!(a.take_sent(), []);

    // There is no hand-over.
    assert!(
        matches!(a.order(Order::Standby(Holding::All)), Some(Answer::Refused(why)) if why.contains("legacy"))
    );
    assert!(matches!(a.order(Order::Takeover(Holding::All)), Some(Answer::Refused(_))));

    // The peer dies and restarts.
    a.run(Duration::from_secs(2), false);
    assert_eq!(a.runs(), ["one", "two", "three"]);
    let fenced = Body::Stonith { node: "b".into(), result: "n_stnth".into() };
    assert_eq!(a.take_sent(), [fenced]);
    let mut status = R1Message::new(beat(), "b");
    (status.src_uuid, status.generation) = (Some(uuid(1)), Some(21));
    (status.seq, status.unix_seconds) = (Some(1), 1);
    a.hear_message(&status);
    let mut asks = R1Message::new(request("three"), "b");
    (asks.src_uuid, asks.generation, asks.seq, asks.unix_seconds) = (Some(uuid(1)), Some(21), Some(2), 1);
    a.hear_message(&asks);
    assert_eq!(a.runs(), ["one", "two"]);
    assert_eq!(a.take_sent(), [answer("three")]);
    assert_eq!(a.director.status(now(a.at)).holding, "local");
    // A repeated request, or one for an unknown group: the group is not here.
    (asks.seq, asks.body) = (Some(3), request("four"));
    a.hear_message(&asks);
    let not_here = Body::IpRequestResponse { key: "four".into(), we_own: false, ok: true };
    assert_eq!(a.take_sent(), [not_here]);
}

#[test]
fn a_goodbye_in_legacy_mode_is_a_takeover() {
    let mut a = DropInNode::beside(AutoFailback::Legacy);
    a.hear(answer("one"));
    a.take_sent();
    a.hear(Body::ShutDone);
    assert_eq!(a.runs(), ["one", "two", "three"]);
    assert_eq!(a.take_sent(), []);
}

#[test]
fn a_real_peer_of_another_mode_is_answered_in_its_own() {
    let mut a = DropInNode::beside(AutoFailback::Legacy);
    a.take_sent();
    a.hear(Body::Starting);
    assert!(a.noted("does not have `auto_failback legacy`"));
    assert!(a.take_sent().iter().any(|body| matches!(body, Body::Resource(_))));
}

// ---- fencing --------------------------------------------------------------------------------------------------------

#[test]
fn late_answers_of_the_device_are_none() {
    let fencing = Fencing { device: "null".into(), parameters: FencingParameters::Line("a b".into()) };
    let mut a = DropInNode::new(R1Plan { fencing: Some(fencing), ..(*plan(0, AutoFailback::On)).clone() });
    a.run(Duration::from_secs(4), false);
    assert_eq!((a.fences.len(), a.runs()), (1, vec![]));
    let first = a.fences[0];
    a.event(Event::Fenced { ticket: first, outcome: FenceOutcome::NotConfigured });
    // The answer has been used.
    a.event(Event::Fenced { ticket: first, outcome: FenceOutcome::Ok });
    assert!(a.runs().is_empty());
    let failed = Body::Stonith { node: "b".into(), result: "bad".into() };
    assert!(a.take_sent().contains(&failed));
    a.run(Duration::from_millis(5100), false);
    let second = *a.fences.last().unwrap();
    assert!(a.fences.len() == 2 && second != first);
    // The peer is there after all; the device answers a moment too late.
    a.hear(beat());
    a.event(Event::Fenced { ticket: second, outcome: FenceOutcome::Ok });
    assert!(a.runs().is_empty() && a.noted("is back: fencing is cancelled"));
    // It dies before it has announced its holdings.
    a.run(Duration::from_secs(2), false);
    assert_eq!((a.fences.len(), a.runs()), (3, vec![]));
    a.event(Event::Fenced { ticket: a.fences[2], outcome: FenceOutcome::Ok });
    assert_eq!(a.runs(), ["one", "two", "three"]);
    assert_eq!(a.director.status(now(a.at)).guard, "fencing");
}

// ---- scripts --------------------------------------------------------------------------------------------------------

/// Both nodes started together and have settled; each holds its own set.
fn settled() -> DropInNode {
    let mut a = DropInNode::beside(AutoFailback::On);
    a.hear(Body::Starting);
    let holdings = ResourceMessage { hold: Holding::Local, full: true, stable: Some(true), info: None };
    a.hear(Body::Resource(holdings));
    a.run(Duration::from_secs(1), true);
    assert_eq!(a.runs(), ["one", "two"]);
    a.take_sent();
    a
}

#[test]
fn scripts_order_standby_and_takeover() {
    let mut a = settled();
    a.script(&[("t", "hb_takeover"), ("rsc_hold", "all")]);
    assert_eq!(a.take_sent(), [Body::Takeover { hold: Holding::All }]);
    a.script(&[("t", "ask_resources"), ("rsc_hold", "failback"), ("info", "me")]);
    assert_eq!(a.take_sent(), [], "nothing foreign is here");
    a.script(&[("t", "ask_resources"), ("rsc_hold", "all"), ("info", "me")]);
    let offer = Body::AskResources { hold: Holding::All, step: AskStep::Me };
    assert_eq!(a.take_sent(), [offer]);
    // A second order at the wrong moment is refused in the log only.
    a.script(&[("t", "ask_resources"), ("rsc_hold", "all"), ("info", "me")]);
    assert!(a.take_sent().is_empty() && a.noted("not handed over: resources are in transition"));
    assert!(a.answers.is_empty());
}

#[test]
fn a_message_of_a_script_is_completed_sent_and_shown_to_scripts() {
    let mut a = settled();
    a.script(&[("t", "backup"), ("seq", "999"), ("src", "mallory"), ("what", "all of it"), ("a-b", "kept")]);
    let message = a.sent.pop().unwrap();
    assert_eq!(message.body, Body::Other { kind: "backup".into() });
    assert_eq!((message.src.as_str(), message.generation), ("a", Some(10)));
    assert!(message.seq.is_some_and(|seq| seq < 999) && message.unknown("what") == Some(b"all of it"));
    let (kind, fields) = a.scripts.pop().unwrap();
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!((kind.as_str(), field("what"), field("src")), ("backup", Some("all of it"), Some("a")));
    assert_eq!((field("a-b"), field("auth")), (None, None));

    // The peer's messages are shown, too, except those that are handled here.
    let mut theirs = R1Message::of_script("backup", &[("what".into(), "theirs".into())], "b", true);
    a.peer_seq += 1;
    (theirs.src_uuid, theirs.generation) = (Some(uuid(1)), Some(20));
    (theirs.seq, theirs.unix_seconds) = (Some(a.peer_seq), 1);
    a.hear_message(&theirs);
    let (kind, fields) = a.scripts.pop().unwrap();
    assert_eq!(kind, "backup");
    assert!(
        fields.contains(&("what".into(), "theirs".into())) && fields.contains(&("src".into(), "b".into()))
    );
    a.run(Duration::from_secs(1), true);
    assert_eq!(a.scripts, []);
}

#[test]
fn what_a_script_may_not_say_is_refused_with_the_reason() {
    let mut a = settled();
    let before = a.notes.len();
    let long = "x".repeat(2000);
    let cases: &[&[(&str, &str)]] = &[
        &[("x", "y")],
        &[("t", "two words")],
        &[("t", &long[..32])],
        &[("t", "status"), ("st", "dead")],
        &[("t", "shutdone")],
        &[("t", "resource"), ("rsc_hold", "all")],
        &[("t", "ip-request-resp"), ("ipaddr", "one"), ("ok", "OK")],
        &[("t", "you_are_dead")],
        &[("t", "NS_rexmit"), ("firstseq", "1"), ("lastseq", "2")],
        &[("t", "addnode"), ("nodelist", "c")],
        &[("t", "delnode"), ("nodelist", "b")],
        &[("t", "ask_resources"), ("rsc_hold", "some"), ("info", "me")],
        &[("t", "ask_resources"), ("rsc_hold", "all"), ("info", "done")],
        &[("t", "backup"), ("what", "")],
        &[("t", "backup"), ("what", "two\nlines")],
        &[("t", "backup"), ("wh=at", "x")],
        &[("t", "backup"), ("what", &long)],
        &[("t", "backup"), ("dest", "mallory")],
        &[("t", "setweight"), ("node", "c"), ("weight", "1")],
        &[("t", "setweight"), ("node", "a"), ("weight", "heavy")],
        &[("t", "setsite"), ("node", "a")],
    ];
    for case in cases {
        a.script(case);
        assert_eq!((a.take_sent(), a.scripts.len()), (vec![], 0), "{case:?}");
    }
    let refused = a.notes[before..].iter().filter(|(_, text)| text.contains("of a local script refused: "));
    assert_eq!(refused.count(), cases.len());
}

// ---- administrators -------------------------------------------------------------------------------------------------

#[test]
fn no_frame_changes_the_nodes() {
    let mut a = settled();
    a.hear(Body::AddNode { nodes: "c".into() });
    a.hear(Body::DelNode { nodes: "a".into() });
    let refused = a.notes.iter().filter(|(level, text)| {
        *level == Level::Warning && text.contains("refused, because nodes are configured in ha.cf")
    });
    assert_eq!(refused.count(), 2);
    let names: Vec<String> = a.director.status(now(a.at)).nodes.into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["a", "b"]);
    a.run(Duration::from_secs(5), true);
    assert_eq!(a.runs(), ["one", "two"]);
}

#[test]
fn weight_and_site_are_kept_and_shown() {
    let mut a = settled();
    let labels = |a: &DropInNode| {
        let nodes = a.director.status(now(a.at)).nodes;
        nodes.into_iter().map(|node| (node.weight, node.site)).collect::<Vec<_>>()
    };
    assert_eq!(labels(&a), [(100, String::new()), (100, String::new())]);
    a.hear(Body::SetWeight { node: "a".into(), weight: 50 });
    a.hear(Body::SetSite { node: "B".into(), site: "cellar".into() });
    a.hear(Body::SetWeight { node: "c".into(), weight: 1 });
    assert_eq!(labels(&a), [(50, String::new()), (100, "cellar".into())]);
    assert!(a.noted("setweight for node [c], which is not in ha.cf"));
    a.script(&[("t", "setweight"), ("node", "b"), ("weight", "7")]);
    assert_eq!(labels(&a)[1].0, 7);
    assert_eq!(a.take_sent(), [Body::SetWeight { node: "b".into(), weight: 7 }]);
}

#[test]
fn clients_of_ours_are_asked_for() {
    let mut a = settled();
    a.hear(Body::QueryClient { client: "ipfail".into(), from: "997".into() });
    let reply =
        |state: &str| Body::RespondClient { client: "ipfail".into(), state: state.into(), to: "997".into() };
    assert_eq!(a.take_sent(), [reply("offline")]);
}

// ---- times that do not fit ------------------------------------------------------------------------------------------

#[test]
fn a_peer_that_waits_no_longer_than_two_keepalives_hears_beats_in_time() {
    let slow = |keepalive| {
        let mut plan = (*plan(0, AutoFailback::Off)).clone();
        (plan.timing.keepalive, plan.timing.deadtime) = (keepalive, keepalive * 3);
        let mut a = DropInNode::new(plan);
        a.hear(beat());
        a.sent.clear();
        a.run(Duration::from_secs(12), true);
        let beats = a.sent.iter().filter(|message| matches!(message.body, Body::Status(_))).count();
        (
            beats,
            a.notes
                .iter()
                .filter(|(_, text)| text.contains("takes this node for dead after 1000 ms"))
                .count(),
        )
    };
    // b waits for a second, so four beats must come in it. Logged once.
    let (beats, said) = slow(Duration::from_secs(3));
    assert!((48..52).contains(&beats), "{beats} beats");
    assert_eq!(said, 1);
    let (beats, said) = slow(Duration::from_millis(400));
    assert!((30..34).contains(&beats), "{beats} beats");
    assert_eq!(said, 0);
}
