//! Hostile neighbours: attacks by another machine on the link, with and without the cluster's key, and what must come
//! of them. Each trial begins with a pair that serves, and is one row of [`TRIALS`].

use std::{net::SocketAddr, path::Path};

use locum_core::{
    framing::frame::Framing,
    model::{
        event::Source,
        holding::Holding,
        keys::{AuthMethod, Key, Keys},
    },
    r1::{
        message::{Body, NodeState, R1Message, ResourceMessage, StatusMessage},
        status::R1Status as Seen,
    },
};

use crate::{
    rng::Rng,
    simulation::Simulation,
    story::{Command, NodeRef, Story},
    testbed::Testbed,
};

/// One attack by a neighbour, with the expected outcome.
pub struct Trial {
    pub name: &'static str,
    /// The property that must hold in spite of the attack.
    pub promise: &'static str,
    act: fn(&mut Scene<'_>) -> Result<(), String>,
}

/// All trials, in the order in which they run.
pub const TRIALS: &[Trial] = &[
    Trial {
        name: "wrong-key",
        promise: "frames that are not signed with our key change nothing, and are one line a minute in the log",
        act: wrong_key,
    },
    Trial {
        name: "own-name",
        promise: "a frame with our own name is ignored: it keeps neither a dead peer nor a dead link alive",
        act: own_name,
    },
    Trial {
        name: "strangers",
        promise: "no frame adds, removes or renames a node, not even a signed one",
        act: strangers,
    },
    Trial {
        name: "deadtime",
        promise: "a peer's deadtime is believed between two keepalives and an hour",
        act: deadtime,
    },
    Trial {
        name: "retransmission-flood",
        promise: "at most a hundred frames a second are sent again, whichever node asks",
        act: retransmission_flood,
    },
    Trial {
        name: "noise",
        promise: "random bytes, and real frames cut short or changed, change nothing",
        act: noise,
    },
    Trial { name: "terminal", promise: "nothing from a frame reaches the log unescaped", act: terminal },
];

const PAIR: &str = "# A pair that serves.
cluster
    nodes clustnode1 clustnode2
    keepalive 100ms
    deadtime 1
    initdead 2
    auto_failback on
    keys auth 1; 1 sha1 secret
    link eth1 crossover
    group clustnode1 172.23.2.14 httpd

start clustnode1 clustnode2
settle
";

const ONE: NodeRef = NodeRef { cluster: 0, node: 0 };
const TWO: NodeRef = NodeRef { cluster: 0, node: 1 };

impl Trial {
    /// Runs the attack and checks the promise.
    ///
    /// # Errors
    /// The part of the promise that was not kept.
    pub fn run(&self) -> Result<(), String> {
        let story = Story::parse(Path::new("hostile.story"), PAIR).map_err(|error| error.to_string())?;
        let mut simulation = Simulation::new(&story, 1)?;
        crate::testbed::play(&story, &mut simulation)?;
        simulation.facts();
        let log = simulation.world.notes.len();
        let mut scene = Scene { simulation, log, seq: 1000 };
        (self.act)(&mut scene).map_err(|text| format!("{text}\nthe log:\n{}", scene.simulation.log()))
    }
}

/// A pair that serves, and the means to disturb it.
struct Scene<'a> {
    simulation: Simulation<'a>,
    /// Number of log lines before the trial began.
    log: usize,
    seq: u64,
}

impl Scene<'_> {
    fn wait(&mut self, ms: u64) -> Result<(), String> {
        self.simulation.perform(&Command::Wait(std::time::Duration::from_millis(ms))).map(|_| ())
    }

    /// Puts bytes on the link, as if from the address of the first node.
    fn throw(&mut self, bytes: &[u8]) {
        let from = Source::Udp(SocketAddr::from(([10, 77, 1, 1], 694)));
        self.simulation.world.inject(0, from, bytes);
    }

    /// A frame that is valid in every way but its sender. Its numbers keep rising.
    fn forge(&mut self, keys: &Keys, src: &str, of: NodeRef, body: Body) -> Vec<u8> {
        let mut message = R1Message::new(body, src);
        self.seq += 1;
        message.seq = Some(self.seq);
        let daemon = self.simulation.daemon(of);
        message.generation = Some(self.simulation.world.daemons[daemon].generation());
        message.unix_seconds = 1_017_619_200;
        message.ttl = Some(3);
        message.locum = Some(1);
        let mut bytes = Vec::new();
        message.emit(Framing::Netstring, keys, true, &mut bytes);
        bytes
    }

    fn keys(&self) -> Keys {
        self.simulation.world.daemons[0].setup.keys.clone()
    }

    fn seen(&self, node: NodeRef) -> Result<Seen, String> {
        let daemon = self.simulation.daemon(node);
        self.simulation.world.status(daemon).ok_or_else(|| "the daemon does not run".to_owned())
    }

    /// The digests of both nodes' states.
    fn digests(&self) -> Result<[String; 2], String> {
        Ok([self.seen(ONE)?.digest, self.seen(TWO)?.digest])
    }

    fn must_be_as_before(&mut self, before: &[String; 2]) -> Result<(), String> {
        if self.digests()? != *before {
            return Err("the state of a node has changed".to_owned());
        }
        let facts = self.simulation.facts();
        if facts.is_empty() { Ok(()) } else { Err(format!("something moved: {facts:?}")) }
    }

    fn lines(&self) -> usize {
        self.simulation.world.notes.len() - self.log
    }

    fn must_serve(&mut self, node: NodeRef) -> Result<(), String> {
        let holders = self.simulation.holders(0, 0);
        let serves = holders.len() == 1 && holders[0].node == node && holders[0].whole;
        if serves { Ok(()) } else { Err(format!("the service is at {holders:?}")) }
    }
}

fn beat(dead_ms: u64) -> Body {
    Body::Status(StatusMessage { state: NodeState::Active, dead_ms: Some(dead_ms), protocol: Some(1) })
}

fn wrong_key(scene: &mut Scene<'_>) -> Result<(), String> {
    let key = Key { number: 1, method: AuthMethod::Sha1, secret: b"guessed".to_vec() };
    let keys = Keys::new(1, vec![key]).map_err(|fault| fault.to_string())?;
    let before = scene.digests()?;
    let refused = scene.seen(TWO)?.frames.refused.values().sum::<u64>();
    for round in 0..1000 {
        let body = if round % 2 == 0 { beat(1) } else { Body::ShutDone };
        let bytes = scene.forge(&keys, "clustnode1", ONE, body);
        scene.throw(&bytes);
        scene.wait(10)?;
    }
    scene.must_be_as_before(&before)?;
    let refused = scene.seen(TWO)?.frames.refused.values().sum::<u64>() - refused;
    if refused != 1000 {
        return Err(format!("{refused} of 1000 frames were counted"));
    }
    if scene.lines() > 2 { Err(format!("{} lines in the log", scene.lines())) } else { Ok(()) }
}

fn own_name(scene: &mut Scene<'_>) -> Result<(), String> {
    let keys = scene.keys();
    scene.simulation.perform(&Command::PowerOff(vec![ONE]))?;
    for _ in 0..60 {
        let bytes = scene.forge(&keys, "clustnode2", TWO, beat(1000));
        scene.throw(&bytes);
        scene.wait(50)?;
    }
    scene.must_serve(TWO)?;
    let link = scene.seen(TWO)?.links[0].liveness;
    if link.is_up() { Err(format!("the link is {link:?}")) } else { Ok(()) }
}

fn strangers(scene: &mut Scene<'_>) -> Result<(), String> {
    let keys = scene.keys();
    let before = scene.digests()?;
    let all = || ResourceMessage { hold: Holding::All, full: true, stable: Some(true), info: None };
    let nodes = || vec!["mallory".to_owned(), "clustnode2".to_owned()];
    for _ in 0..50 {
        for body in [beat(1000), Body::Starting, Body::Resource(all()), Body::ShutDone] {
            let bytes = scene.forge(&keys, "mallory", ONE, body);
            scene.throw(&bytes);
        }
        for kind in ["addnode", "delnode"] {
            let bytes = scene.forge(&keys, "mallory", ONE, Body::Other { kind: kind.to_owned() });
            scene.throw(&bytes);
        }
        let body = Body::RepNodes { nodes: nodes(), deleted: vec!["clustnode1".to_owned()] };
        let bytes = scene.forge(&keys, "mallory", ONE, body);
        scene.throw(&bytes);
        scene.wait(20)?;
    }
    scene.must_be_as_before(&before)?;
    let names: Vec<String> = scene.seen(TWO)?.nodes.into_iter().map(|node| node.name).collect();
    if names != ["clustnode1", "clustnode2"] {
        return Err(format!("the nodes are {names:?} now"));
    }
    if scene.lines() > 4 { Err(format!("{} lines in the log", scene.lines())) } else { Ok(()) }
}

fn deadtime(scene: &mut Scene<'_>) -> Result<(), String> {
    let keys = scene.keys();
    // The peer asks thirty times a second to be dead after 1 ms; its real beats come each 100 ms.
    for _ in 0..100 {
        let bytes = scene.forge(&keys, "clustnode1", ONE, beat(1));
        scene.throw(&bytes);
        scene.wait(33)?;
    }
    scene.must_serve(ONE)?;
    // The last frame of a dying peer asks for the longest possible deadtime.
    scene.simulation.perform(&Command::PowerOff(vec![ONE]))?;
    let bytes = scene.forge(&keys, "clustnode1", ONE, beat(u64::MAX));
    scene.throw(&bytes);
    scene.wait(3_590_000)?;
    if !scene.simulation.holders(0, 0).is_empty() {
        return Err("the daemon did not wait for an hour".to_owned());
    }
    scene.wait(20_000)?;
    scene.must_serve(TWO)
}

fn retransmission_flood(scene: &mut Scene<'_>) -> Result<(), String> {
    let keys = scene.keys();
    let before = scene.digests()?;
    let sent = scene.seen(TWO)?.frames.sent_again;
    for _ in 0..3000 {
        let mut message = R1Message::new(Body::Rexmit { first: 1, last: 50 }, "clustnode1");
        message.dest = Some("clustnode2".to_owned());
        message.generation = Some(scene.simulation.world.daemons[0].generation());
        message.unix_seconds = 1_017_619_200;
        let mut bytes = Vec::new();
        message.emit(Framing::Netstring, &keys, true, &mut bytes);
        scene.throw(&bytes);
        scene.wait(1)?;
    }
    let sent = scene.seen(TWO)?.frames.sent_again - sent;
    if !(100..=400).contains(&sent) {
        return Err(format!("{sent} frames were sent again in 3 s"));
    }
    scene.must_be_as_before(&before)
}

fn noise(scene: &mut Scene<'_>) -> Result<(), String> {
    let before = scene.digests()?;
    let mut rng = Rng::new(9);
    let tape: Vec<Vec<u8>> = scene.simulation.world.daemons[0].tape().map(<[u8]>::to_vec).collect();
    for round in 0..10_000 {
        let mut bytes = rng.pick(&tape).clone();
        let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap_or(0);
        match rng.below(4) {
            0 => bytes.truncate(at),
            1 => bytes[at] = bytes[at].wrapping_add(1 + u8::try_from(rng.below(255)).unwrap_or(0)),
            2 => bytes.insert(at, b'9'),
            _ => bytes.fill_with(|| u8::try_from(rng.below(256)).unwrap_or(0)),
        }
        scene.throw(&bytes);
        if round % 10 == 0 {
            scene.wait(1)?;
        }
    }
    scene.must_be_as_before(&before)
}

fn terminal(scene: &mut Scene<'_>) -> Result<(), String> {
    let keys = scene.keys();
    for name in ["\u{1b}[2J", "a\nclustnode1 critical: all is lost", "\u{202e}", "\\"] {
        let bytes = scene.forge(&keys, name, ONE, beat(1000));
        scene.throw(&bytes);
        let bytes = scene.forge(&keys, "clustnode1", ONE, Body::Other { kind: name.to_owned() });
        scene.throw(&bytes);
        scene.wait(61_000)?;
    }
    let ugly = scene
        .simulation
        .world
        .notes
        .iter()
        .find(|noted| noted.note.text.contains(|c: char| !(' '..='~').contains(&c)));
    match ugly {
        Some(noted) => Err(format!("the log holds {:?}", noted.note.text)),
        None if scene.lines() == 0 => Err("the log says nothing about it".to_owned()),
        None => Ok(()),
    }
}
