//! The director of a simulated machine. Most scenarios run the bare node, which exchanges messages; some run the whole
//! director, so that every message is encoded, signed and read back.

use std::{collections::BTreeMap, net::SocketAddr, ops::Deref, sync::Arc};

use locum_core::{
    claims::To,
    model::{
        action,
        claim::{Ballot, Durable},
        event::{self, Source},
        identity::{GroupIndex, Heard, LinkIndex, MemberIndex},
        keys::{Key, Keys, Method},
        order,
        time::{Instant, Now},
    },
    native::{
        director::{self, Director},
        node::{self, Node},
        plan::{Medium, Plan},
        wire::{Content, Wire, members::Members},
        word::Word,
    },
};

/// The director of a member: the bare node, or all of it.
#[derive(Debug)]
pub enum Mind {
    /// The bare node, which exchanges messages.
    Words(Box<Node>),
    /// The whole director, which exchanges signed frames.
    Bytes(Box<Director>),
}

/// One message or frame on a cable.
#[derive(Clone, Debug)]
pub enum Said {
    /// A message of a member, in one run of its daemon.
    Word { generation: u64, word: Word },
    /// A frame on a link.
    Bytes { link: LinkIndex, bytes: Arc<[u8]> },
}

/// An action that a director asks of the simulation.
#[derive(Debug)]
pub enum Does {
    /// Send this to these members.
    Say(Said, Vec<usize>),
    /// Tell the gate which of its own ballots others may know.
    Expect(GroupIndex, Vec<Ballot>),
    /// Any other action, for the control plane.
    Hands(action::Action),
}

/// The data that a daemon needs at its start.
#[derive(Debug)]
pub struct Birth {
    pub plan: Arc<Plan>,
    /// Which run of the member's daemon this is.
    pub life: u64,
    /// The content of the ledger's file; `None` if the file is missing.
    pub ledger: Option<Durable>,
    /// The other members' newest frames, as kept on disk.
    pub heard: BTreeMap<MemberIndex, Heard>,
    pub seed: u64,
}

impl Mind {
    /// The director of a daemon that starts now.
    #[must_use]
    pub fn new(bytes: bool, birth: Birth, now: Instant) -> Self {
        let Birth { plan, life: generation, ledger, heard, seed } = birth;
        if bytes {
            let heard = heard.into_iter().collect();
            let identity = director::Identity { generation, ledger, heard, stuck: vec![], seed };
            return Self::Bytes(Box::new(Director::new(plan, keys(), identity, at(now))));
        }
        let identity = node::Identity { generation, ledger, stuck: vec![], seed };
        Self::Words(Box::new(Node::new(plan, identity, now)))
    }

    /// Handles an event other than a message or frame.
    pub fn handle(&mut self, now: Instant, event: node::Event) {
        let director = match self {
            Self::Words(node) => return node.handle(now, event),
            Self::Bytes(director) => director,
        };
        director.handle(
            at(now),
            match event {
                node::Event::Tick | node::Event::Heard { .. } => event::Event::Tick,
                node::Event::Done { ticket, outcome } => event::Event::Done { ticket, outcome },
                node::Event::Written { ok } => event::Event::Written { ok },
                node::Event::AddressGone(resource) => event::Event::AddressGone(resource),
                node::Event::Service { resource, state } => event::Event::Service { resource, state },
                node::Event::Order { id, order, user } => {
                    event::Event::Order { id, order: order::Order::Native { order, user } }
                }
            },
        );
    }

    /// Handles a message or frame of another member.
    pub fn hear(&mut self, now: Instant, from: usize, said: Said) {
        match (self, said) {
            (Self::Words(node), Said::Word { generation, word }) => {
                let from = MemberIndex(u8::try_from(from).unwrap_or(u8::MAX));
                let set = node.member().settings().voters.number;
                node.handle(now, node::Event::Heard { from, generation, set, word });
            }
            (Self::Bytes(director), Said::Bytes { link, bytes }) => {
                let from = Source::Udp(address(from));
                director.handle(at(now), event::Event::Frame { link, from, bytes: &bytes });
            }
            _ => {}
        }
    }

    /// The next thing that the director wants done.
    pub fn poll(&mut self, plan: &Plan, me: usize, generation: u64) -> Option<Does> {
        let members = plan.nodes.len() + plan.witnesses.len();
        let others = |to: To| match to {
            To::All => (0..members).filter(|other| *other != me).collect(),
            To::One(member) => vec![member.place()],
        };
        let director = match self {
            Self::Words(node) => loop {
                return Some(match node.poll()? {
                    node::Action::Send { to, word } => Does::Say(Said::Word { generation, word }, others(to)),
                    node::Action::Expect { group, ballots } => Does::Expect(group, ballots),
                    node::Action::Announce { .. } => continue,
                    node::Action::Hands(action) => Does::Hands(action),
                });
            },
            Self::Bytes(director) => director,
        };
        Some(match director.poll()? {
            action::Action::Send { link, bytes } => {
                let targets = match link.0.checked_sub(plan.links.len()) {
                    Some(witness) => vec![plan.nodes.len() + witness],
                    None => {
                        assert!(matches!(plan.links[link.0].medium, Medium::Unicast { .. }));
                        (0..plan.nodes.len()).filter(|node| *node != me).collect()
                    }
                };
                Does::Say(Said::Bytes { link, bytes }, targets)
            }
            action::Action::SendTo { link, to, bytes } => {
                let targets = (0..members).filter(|member| address(*member) == to).collect();
                Does::Say(Said::Bytes { link, bytes }, targets)
            }
            action => Does::Hands(action),
        })
    }

    /// The time at which the director must be woken.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match self {
            Self::Words(node) => node.deadline(),
            Self::Bytes(director) => director.deadline(),
        }
    }
}

/// Gives the checker the node within the director.
impl Deref for Mind {
    type Target = Node;

    fn deref(&self) -> &Node {
        match self {
            Self::Words(node) => node,
            Self::Bytes(director) => director.node(),
        }
    }
}

/// Reads the ballots that members prepare in their frames, for the checker.
#[derive(Debug)]
pub struct Eye(Wire);

impl Eye {
    /// A reader for the members of this plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let (members, patience) = (Members::of(plan), plan.timing.lease);
        Self(Wire::new(plan.cluster.clone(), members, MemberIndex::NOBODY, 0, patience))
    }

    /// The message of a `prepare` frame; `None` for frames of all other kinds, which are not read further.
    pub fn prepare(&mut self, now: Instant, bytes: &[u8]) -> Option<Word> {
        const KIND: &[u8] = b"(0)t=prepare,";
        bytes.windows(KIND.len()).find(|window| *window == KIND)?;
        match self.0.read(now, bytes, &keys()).ok()?.content {
            Content::Message(word, _) => Some(word),
            _ => None,
        }
    }
}

fn keys() -> Keys {
    let key = Key { number: 0, method: Method::Sha256, secret: b"a secret of the simulator".to_vec() };
    Keys::new(0, vec![key]).expect("one key that signs")
}

const fn at(instant: Instant) -> Now {
    Now { instant, unix_seconds: 0 }
}

fn address(member: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(member).unwrap_or(u8::MAX)], 6940))
}
