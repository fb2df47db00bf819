//! The frames of a hostile neighbour, made from a seed and from recorded frames of this cluster; and the fate that each
//! must have at each node.

use std::collections::BTreeMap;

use locum_core::{
    framing::frame::{self, Framing},
    model::keys::{AuthMethod, Key, Keys},
    r1::message::{Body, NodeState, R1Message, StatusMessage, Uuid},
};
use locum_sim::rng::Rng;

use super::cluster::NODES;

/// The sorts of frames, with their percentages.
const SORTS: [(FrameSort, u64); 11] = [
    (FrameSort::Noise, 11),
    (FrameSort::Truncated, 11),
    (FrameSort::Mutated, 20),
    (FrameSort::Oversized, 3),
    (FrameSort::WrongKey, 15),
    (FrameSort::OlderRun, 12),
    (FrameSort::ThisRun, 8),
    (FrameSort::OurName, 4),
    (FrameSort::UnknownNode, 6),
    (FrameSort::Deadtime, 3),
    (FrameSort::Request, 7),
];

/// The way in which a frame is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FrameSort {
    /// Random bytes, some of them after the opening of a frame.
    Noise,
    /// A recorded frame, cut off somewhere.
    Truncated,
    /// A recorded frame with some bytes changed, taken out or put in, or made of two.
    Mutated,
    /// Signed with the right key: too many fields, names and values far too long, false lengths.
    Oversized,
    /// Signed with another secret, an unknown number or another method.
    WrongKey,
    /// Recorded in an earlier run of its sender.
    OlderRun,
    /// Recorded some moments ago.
    ThisRun,
    /// Signed with the right key, in the name of a node that is another machine's.
    OurName,
    /// Signed with the right key, by a node that is not in `ha.cf`, with names that would be paths or escape sequences.
    UnknownNode,
    /// Signed with the right key: an old number, and an absurd deadtime.
    Deadtime,
    /// Signed with the right key: a request to send fifty frames again.
    Request,
}

/// The fate of a frame at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Refused(&'static str),
    Own,
    Repeated,
    Elsewhere,
    Accepted,
}

pub(super) struct Forged {
    pub(super) sort: FrameSort,
    pub(super) bytes: Vec<u8>,
    pub(super) fates: [Fate; 2],
}

/// The identity of a node in its present run.
#[derive(Clone, Copy, Debug)]
struct SenderIdentity {
    uuid: Uuid,
    generation: u64,
    /// A number that the node used long ago.
    number: u64,
}

pub(super) struct FrameForger {
    rng: Rng,
    right: Keys,
    wrong: Vec<Keys>,
    /// Frames recorded in an earlier run, and in this one.
    older: Vec<Vec<u8>>,
    recent: Vec<Vec<u8>>,
    identities: [SenderIdentity; 2],
}

impl FrameForger {
    /// A forger with recorded frames of both nodes, from an earlier run and from this one.
    pub(super) fn new(seed: u64, right: Keys, older: Vec<Vec<u8>>, recent: Vec<Vec<u8>>) -> Self {
        let read = |bytes: &Vec<u8>| R1Message::parse(&frame::authenticate(bytes, &right).unwrap()).unwrap();
        let lives = NODES.map(|name| {
            let of_node = |message: &R1Message| message.src == name && message.seq.is_some();
            let message = recent.iter().map(read).find(of_node).unwrap();
            SenderIdentity {
                uuid: message.src_uuid.unwrap(),
                generation: message.generation.unwrap(),
                number: message.seq.unwrap(),
            }
        });
        let key = |number: u8, method, secret: &str| Key { number, method, secret: secret.into() };
        let wrong = [
            key(1, AuthMethod::Sha1, "another secret"),
            key(2, AuthMethod::Sha1, "the-right-secret of another cluster"),
            key(1, AuthMethod::Md5, "the-right-secret"),
            key(1, AuthMethod::Sha256, "the-right-secret"),
            key(1, AuthMethod::Crc, ""),
        ];
        let wrong = wrong.map(|key| Keys::new(key.number, vec![key]).unwrap()).to_vec();
        Self { rng: Rng::new(seed), right, wrong, older, recent, identities: lives }
    }

    pub(super) fn forge(&mut self) -> Forged {
        let mut dice = self.rng.below(100);
        let sort = SORTS.iter().find(|(_, share)| {
            let hit = dice < *share;
            dice = dice.saturating_sub(*share);
            hit
        });
        let sort = sort.map_or(FrameSort::Noise, |(sort, _)| *sort);
        let bytes = self.bytes(sort);
        let fates = [self.fate(&bytes, 0), self.fate(&bytes, 1)];
        Forged { sort, bytes, fates }
    }

    fn bytes(&mut self, sort: FrameSort) -> Vec<u8> {
        match sort {
            FrameSort::Noise => self.noise(),
            FrameSort::Truncated => {
                let mut bytes = self.recorded();
                bytes.truncate(self.below(bytes.len()));
                bytes
            }
            FrameSort::Mutated => self.mutated(),
            FrameSort::Oversized => self.oversized(),
            FrameSort::WrongKey => {
                let (keys, node) = (self.rng.pick(&self.wrong).clone(), self.below(2));
                self.signed_message(node, &keys, |_| {})
            }
            FrameSort::OlderRun => self.rng.pick(&self.older).clone(),
            FrameSort::ThisRun => self.rng.pick(&self.recent).clone(),
            FrameSort::OurName => self.by_another(None),
            FrameSort::UnknownNode => {
                let names = [
                    "clustnode3",
                    "clustnode1x",
                    "..",
                    "../../etc/passwd",
                    "\u{1b}[2J\u{7}",
                    "a\nb",
                    "%s%n$(id)",
                ];
                let name = *self.rng.pick(&names);
                self.by_another(Some(name))
            }
            FrameSort::Deadtime => {
                let told = *self.rng.pick(&[0, 1, 399, 3_600_001, u64::MAX]);
                let (keys, node) = (self.right.clone(), self.below(2));
                self.signed_message(node, &keys, |message| {
                    if let Body::Status(status) = &mut message.body {
                        status.dead_ms = Some(told);
                    }
                })
            }
            FrameSort::Request => {
                let (keys, node, first) = (self.right.clone(), self.below(2), self.rng.below(2000));
                self.signed_message(node, &keys, |message| {
                    message.body = Body::Rexmit { first, last: first.saturating_add(50) };
                    message.dest = Some(NODES[1 - node].to_owned());
                    message.seq = None;
                })
            }
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.rng.below(end as u64)).unwrap()
    }

    fn random_bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.rng.bits().to_le_bytes()[0]).collect()
    }

    fn recorded(&mut self) -> Vec<u8> {
        if self.rng.chance(50) {
            self.rng.pick(&self.older).clone()
        } else {
            self.rng.pick(&self.recent).clone()
        }
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.below(1400);
        let mut bytes = self.rng.pick(&["", "", "###\n", ">>>\n", "###\n9:"]).as_bytes().to_vec();
        bytes.extend(self.random_bytes(length));
        if self.rng.chance(30) {
            bytes.extend(b"%%%\n10:1 d9c61b8c,");
        }
        bytes
    }

    fn mutated(&mut self) -> Vec<u8> {
        let mut bytes = self.recorded();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len());
            let byte = self.rng.bits().to_le_bytes()[0];
            match self.below(6) {
                0 => bytes[at] ^= 1 << (byte % 8),
                1 => bytes[at] = byte,
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, byte),
                4 => bytes.splice(at..at, *b"18446744073709551616:").for_each(drop),
                _ => {
                    let other = self.recorded();
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[self.below(other.len())..]);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    }

    /// Bodies that an honest node would not sign, signed with the right key.
    fn oversized(&mut self) -> Vec<u8> {
        let head = "8:(0)t=status,17:(0)src=clustnode1,7:(0)ts=1,";
        let body = match self.below(8) {
            0 => format!("{head}{}", "6:(0)a=x,".repeat(1 + self.below(200))),
            1 => format!("{head}{}", field(&"n".repeat(65 + self.below(1000)), "x")),
            2 => field("t", "status") + &field("src", &"n".repeat(100 + self.below(1000))) + "7:(0)ts=1,",
            3 => field("t", &"t".repeat(32 + self.below(1000))) + "17:(0)src=clustnode1,",
            4 => format!("{head}99999999999999999999:(0)a=x,"),
            5 => format!("{head}{}:(0)a=x,", 1 + self.below(70_000)),
            6 => format!("{head}{}", field("seq", &"f".repeat(17 + self.below(1000)))),
            // The largest datagram, which the kernel has to send in fragments.
            _ if self.rng.chance(10) => format!("{head}{}", field("ld", &"9".repeat(65_000))),
            _ => format!("{head}{}", field("ld", &"\u{1b}]0;owned\u{7}".repeat(100))),
        };
        let open = ["###\n", &body, "%%%\n"].concat();
        let stamp = self.right.sign([open.as_bytes()]).to_string();
        format!("{open}{}:{stamp},", stamp.len()).into_bytes()
    }

    /// Frames of a machine that is not one of the two, in the name of one of them or in another.
    fn by_another(&mut self, name: Option<&str>) -> Vec<u8> {
        let (keys, node, uuid) = (self.right.clone(), self.below(2), self.random_bytes(16));
        self.signed_message(node, &keys, |message| {
            message.src_uuid = uuid.try_into().ok().map(Uuid);
            if let Some(name) = name {
                message.src = name.to_owned();
            }
        })
    }

    /// A beat in the name of a node with a number that it used long ago, modified by `change`.
    fn signed_message(&self, node: usize, keys: &Keys, change: impl FnOnce(&mut R1Message)) -> Vec<u8> {
        let life = self.identities[node];
        let beat = StatusMessage { state: NodeState::Active, dead_ms: Some(2000), protocol: Some(1) };
        let mut message = R1Message::new(Body::Status(beat), NODES[node]);
        message.src_uuid = Some(life.uuid);
        message.seq = Some(life.number);
        message.generation = Some(life.generation);
        message.unix_seconds = 1_000_000_000;
        message.locum = Some(1);
        change(&mut message);
        let mut bytes = Vec::new();
        message.emit(Framing::Netstring, keys, true, &mut bytes);
        bytes
    }

    /// A beat with an old number in the name of a node, signed with other keys.
    pub(super) fn beat(&self, node: usize, keys: &Keys) -> Vec<u8> {
        self.signed_message(node, keys, |_| {})
    }

    /// A beat of a node with a new number, far ahead.
    pub(super) fn fresh_beat(&self, node: usize, ahead_of: u64, dead_ms: u64) -> Vec<u8> {
        self.signed_message(node, &self.right, |message| {
            message.seq = Some(ahead_of);
            if let Body::Status(status) = &mut message.body {
                status.dead_ms = Some(dead_ms);
            }
        })
    }

    /// The fate that a frame must have at a node. It depends on its stamp and form first, then on its sender's name,
    /// then on generation and number.
    pub(super) fn fate(&self, bytes: &[u8], node: usize) -> Fate {
        let read = frame::authenticate(bytes, &self.right).and_then(|frame| R1Message::parse(&frame));
        let message = match read {
            Ok(message) => message,
            Err(refusal) => return Fate::Refused(refusal.name()),
        };
        let (us, peer) = (self.identities[node], self.identities[1 - node]);
        if message.src == NODES[node] {
            let ours = message.src_uuid.is_none_or(|uuid| uuid == us.uuid);
            return if ours { Fate::Own } else { Fate::Refused("our-name") };
        }
        if message.src != NODES[1 - node] {
            return Fate::Refused("unknown-node");
        }
        match (message.seq, message.generation) {
            (Some(0), _) => Fate::Refused("number"),
            (Some(_), None) => Fate::Refused("generation"),
            (Some(_), Some(generation)) if generation < peer.generation => Fate::Refused("replayed"),
            (Some(_), Some(_)) => Fate::Repeated,
            (None, Some(generation)) if generation != peer.generation => Fate::Refused("generation"),
            (None, _) => {
                let for_us = match message.dest_uuid {
                    Some(uuid) if uuid.0 != [0; 16] => uuid == us.uuid,
                    _ => message.dest.is_none_or(|dest| dest == NODES[node]),
                };
                if for_us { Fate::Accepted } else { Fate::Elsewhere }
            }
        }
    }
}

fn field(name: &str, value: &str) -> String {
    format!("{}:(0){name}={value},", name.len() + value.len() + 4)
}

/// The frames that were sent, by sort, and the fate that each must have at each node.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) sorts: BTreeMap<FrameSort, u64>,
    pub(super) fates: [BTreeMap<Fate, u64>; 2],
}

impl Tally {
    pub(super) fn add(&mut self, forged: &Forged) {
        self.frames += 1;
        self.bytes += forged.bytes.len() as u64;
        *self.sorts.entry(forged.sort).or_default() += 1;
        for (fates, fate) in self.fates.iter_mut().zip(forged.fates) {
            *fates.entry(fate).or_default() += 1;
        }
    }

    /// Frames that a node has to refuse, by reason.
    pub(super) fn refused(&self, node: usize) -> BTreeMap<&'static str, u64> {
        let reason = |(fate, count): (&Fate, &u64)| match *fate {
            Fate::Refused(reason) => Some((reason, *count)),
            _ => None,
        };
        self.fates[node].iter().filter_map(reason).collect()
    }
}
