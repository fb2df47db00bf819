//! A director beside a real heartbeat that a test plays, message by message.

use locum_core::{
    framing::frame::{self, Framing},
    model::{holding::Holding, time::Duration},
    r1::{
        message::{AskStep, Body, NodeState, R1Message, ResourceMessage, StatusMessage as Beat},
        plan::AutoFailback,
    },
};

use super::pair::{Pair, keys, now, uuid};

/// Node a is played as a heartbeat; node b is the director.
pub(crate) struct Beside {
    pub(crate) pair: Pair,
    generation: u64,
    seq: u64,
}

impl Beside {
    /// b starts beside an a that settled long ago, and hears what a holds when it asks.
    pub(crate) fn begin(failback: AutoFailback, holds: Holding) -> Self {
        let mut pair = Pair::new(failback);
        // Everything sent to a is recorded; a's own director reaches no one.
        pair.cut_all(0, true);
        pair.power_off(1);
        pair.power_on(1);
        pair.recording = true;
        let mut beside = Self { pair, generation: 1, seq: 0 };
        for body in [
            Self::beat(NodeState::Active),
            Body::RepNodes { nodes: vec!["a".into(), "b".into()], deleted: vec![] },
        ] {
            beside.say(body);
        }
        beside.hold(holds);
        beside
    }

    /// a restarts and holds nothing, with the messages of a real node. They are the same after a HUP and after a loss
    /// of power shorter than the deadtime. b has announced its holdings before a does.
    pub(crate) fn begin_anew(&mut self) {
        (self.generation, self.seq) = (self.generation + 1, 0);
        for state in [NodeState::Init, NodeState::Up] {
            self.say(Self::beat(state));
        }
        self.say(Body::ReqNodes);
        self.say(Self::beat(NodeState::Active));
        self.say(Body::Starting);
        self.hold(Holding::None);
    }

    fn beat(state: NodeState) -> Body {
        Body::Status(Beat { state, dead_ms: Some(1000), protocol: Some(1) })
    }

    pub(crate) fn say(&mut self, body: Body) {
        self.seq += 1;
        let mut message = R1Message::new(body, "a");
        message.src_uuid = Some(uuid(0));
        message.seq = Some(self.seq);
        message.generation = Some(self.generation);
        message.unix_seconds = 1_000_000_000;
        let mut bytes = vec![];
        message.emit(Framing::Netstring, &keys(), true, &mut bytes);
        self.pair.inject(1, 0, &bytes);
    }

    /// a has settled and holds this, in its own view.
    pub(crate) fn hold(&mut self, hold: Holding) {
        self.say(Body::Resource(ResourceMessage { hold, full: true, stable: Some(true), info: None }));
    }

    /// a takes the set that b offers, in b's view, and then holds `holds`.
    pub(crate) fn take(&mut self, set: Holding, holds: Holding) {
        self.say(Body::AskResources { hold: set, step: AskStep::Other });
        self.run(1);
        self.say(Body::AskResources { hold: set, step: AskStep::Done });
        self.hold(holds);
    }

    /// a gives this set away, in its own view, and then holds nothing.
    pub(crate) fn give(&mut self, set: Holding) {
        for step in [AskStep::Me, AskStep::Done] {
            self.say(Body::AskResources { hold: set, step });
            self.run(1);
        }
        self.hold(Holding::None);
        self.run(1);
    }

    /// Lets time pass while a beats. Returns the hand-over messages of b.
    pub(crate) fn run(&mut self, seconds: u64) -> Vec<(Holding, AskStep)> {
        for _ in 0..seconds * 5 {
            self.say(Self::beat(NodeState::Active));
            self.pair.run(Duration::from_millis(200));
        }
        let mut asked = Vec::new();
        for (to, link, bytes) in std::mem::take(&mut self.pair.recorded) {
            let message = R1Message::parse(&frame::authenticate(&bytes, &keys()).expect("authentic"));
            if let Body::AskResources { hold, step } = message.expect("a message").body
                && (to, link.0) == (0, 0)
            {
                asked.push((hold, step));
            }
        }
        asked
    }

    #[track_caller]
    pub(crate) fn runs(&self, groups: &str) {
        assert_eq!(self.pair.nodes[1].running.join(" "), groups, "at {:?}", now(self.pair.now).instant);
    }
}
