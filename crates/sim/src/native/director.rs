//! The director of a simulated machine. Most scenarios run the bare node, which exchanges messages; some run the whole
//! director, so that every message is encoded, signed and read back.

use std::{collections::BTreeMap, net::SocketAddr, ops::Deref, sync::Arc};

use locum_core::{
    claims::Receivers,
    model::{
        action,
        claim::{Ballot, DurableState},
        event::{self, Source},
        identity::{GroupIndex, LastHeard, LinkIndex, MemberIndex},
        keys::{AuthMethod, Key, Keys},
        order,
        time::{Instant, Now},
    },
    native::{
        director::{self, NativeDirector},
        message::NativeMessage,
        node::{self, NativeNode},
        plan::{NativeMedium, NativePlan},
        wire::{Wire, WireContent, members::MemberTable},
    },
};

/// The director of a member: the bare node, or all of it.
#[derive(Debug)]
pub enum SimDirector {
    /// The bare node, which exchanges messages.
    Node(Box<NativeNode>),
    /// The whole director, which exchanges signed frames.
    Director(Box<NativeDirector>),
}

/// One message or frame on a cable.
#[derive(Clone, Debug)]
pub enum Transmission {
    /// A message of a member, in one run of its daemon.
    Message { generation: u64, word: NativeMessage },
    /// A frame on a link.
    Frame { link: LinkIndex, bytes: Arc<[u8]> },
}

/// An action that a director asks of the simulation.
#[derive(Debug)]
pub enum DirectorAction {
    /// Send this to these members.
    Send(Transmission, Vec<usize>),
    /// Tell the gate which of its own ballots others may know.
    Expect(GroupIndex, Vec<Ballot>),
    /// Any other action, for the control plane.
    Hands(action::Action),
}

/// The data that a daemon needs at its start.
#[derive(Debug)]
pub struct DaemonStart {
    pub plan: Arc<NativePlan>,
    /// Which run of the member's daemon this is.
    pub run_number: u64,
    /// The content of the ledger's file; `None` if the file is missing.
    pub ledger: Option<DurableState>,
    /// The other members' newest frames, as kept on disk.
    pub heard: BTreeMap<MemberIndex, LastHeard>,
    pub seed: u64,
}

impl SimDirector {
    /// The director of a daemon that starts now.
    #[must_use]
    pub fn new(bytes: bool, start: DaemonStart, now: Instant) -> Self {
        let DaemonStart { plan, run_number: generation, ledger, heard, seed } = start;
        if bytes {
            let heard = heard.into_iter().collect();
            let identity = director::NativeIdentity { generation, ledger, heard, stop_failed: vec![], seed };
            return Self::Director(Box::new(NativeDirector::new(plan, keys(), identity, at(now))));
        }
        let identity = node::NodeIdentity { generation, ledger, stop_failed: vec![], seed };
        Self::Node(Box::new(NativeNode::new(plan, identity, now)))
    }

    /// Handles an event other than a message or frame.
    pub fn handle(&mut self, now: Instant, event: node::NodeEvent) {
        let director = match self {
            Self::Node(node) => return node.handle(now, event),
            Self::Director(director) => director,
        };
        director.handle(
            at(now),
            match event {
                node::NodeEvent::Tick | node::NodeEvent::Heard { .. } => event::Event::Tick,
                node::NodeEvent::Done { ticket, outcome } => event::Event::Done { ticket, outcome },
                node::NodeEvent::Written { ok } => event::Event::Written { ok },
                node::NodeEvent::AddressGone(resource) => event::Event::AddressGone(resource),
                node::NodeEvent::Service { resource, state } => event::Event::Service { resource, state },
                node::NodeEvent::Order { id, order, user } => {
                    event::Event::Order { id, order: order::Order::Native { order, user } }
                }
            },
        );
    }

    /// Handles a message or frame of another member.
    pub fn hear(&mut self, now: Instant, from: usize, transmission: Transmission) {
        match (self, transmission) {
            (Self::Node(node), Transmission::Message { generation, word }) => {
                let from = MemberIndex(u8::try_from(from).unwrap_or(u8::MAX));
                let set = node.member().settings().voters.number;
                node.handle(now, node::NodeEvent::Heard { from, generation, set, message: word });
            }
            (Self::Director(director), Transmission::Frame { link, bytes }) => {
                let from = Source::Udp(address(from));
                director.handle(at(now), event::Event::Frame { link, from, bytes: &bytes });
            }
            _ => {}
        }
    }

    /// The next thing that the director wants done.
    pub fn poll(&mut self, plan: &NativePlan, me: usize, generation: u64) -> Option<DirectorAction> {
        let members = plan.nodes.len() + plan.witnesses.len();
        let others = |to: Receivers| match to {
            Receivers::All => (0..members).filter(|other| *other != me).collect(),
            Receivers::One(member) => vec![member.index()],
        };
        let director = match self {
            Self::Node(node) => loop {
                return Some(match node.poll()? {
                    node::NodeAction::Send { to, word } => {
                        DirectorAction::Send(Transmission::Message { generation, word }, others(to))
                    }
                    node::NodeAction::Expect { group, ballots } => DirectorAction::Expect(group, ballots),
                    node::NodeAction::Announce { .. } => continue,
                    node::NodeAction::Hands(action) => DirectorAction::Hands(action),
                });
            },
            Self::Director(director) => director,
        };
        Some(match director.poll()? {
            action::Action::Send { link, bytes } => {
                let targets = match link.0.checked_sub(plan.links.len()) {
                    Some(witness) => vec![plan.nodes.len() + witness],
                    None => {
                        assert!(matches!(plan.links[link.0].medium, NativeMedium::Unicast { .. }));
                        (0..plan.nodes.len()).filter(|node| *node != me).collect()
                    }
                };
                DirectorAction::Send(Transmission::Frame { link, bytes }, targets)
            }
            action::Action::SendTo { link, to, bytes } => {
                let targets = (0..members).filter(|member| address(*member) == to).collect();
                DirectorAction::Send(Transmission::Frame { link, bytes }, targets)
            }
            action => DirectorAction::Hands(action),
        })
    }

    /// The time at which the director must be woken.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match self {
            Self::Node(node) => node.deadline(),
            Self::Director(director) => director.deadline(),
        }
    }
}

/// Gives the checker the node within the director.
impl Deref for SimDirector {
    type Target = NativeNode;

    fn deref(&self) -> &NativeNode {
        match self {
            Self::Node(node) => node,
            Self::Director(director) => director.node(),
        }
    }
}

/// Reads the ballots that members prepare in their frames, for the checker.
#[derive(Debug)]
pub struct PrepareReader(Wire);

impl PrepareReader {
    /// A reader for the members of this plan.
    #[must_use]
    pub fn new(plan: &NativePlan) -> Self {
        let (members, patience) = (MemberTable::of(plan), plan.timing.lease);
        Self(Wire::new(plan.cluster.clone(), members, MemberIndex::NOBODY, 0, patience))
    }

    /// The message of a `prepare` frame; `None` for frames of all other kinds, which are not read further.
    pub fn prepare(&mut self, now: Instant, bytes: &[u8]) -> Option<NativeMessage> {
        const KIND: &[u8] = b"(0)t=prepare,";
        bytes.windows(KIND.len()).find(|window| *window == KIND)?;
        match self.0.read(now, bytes, &keys()).ok()?.content {
            WireContent::Message(word, _) => Some(word),
            _ => None,
        }
    }
}

fn keys() -> Keys {
    let key = Key { number: 0, method: AuthMethod::Sha256, secret: b"a secret of the simulator".to_vec() };
    Keys::new(0, vec![key]).expect("one key that signs")
}

const fn at(instant: Instant) -> Now {
    Now { instant, unix_seconds: 0 }
}

fn address(member: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(member).unwrap_or(u8::MAX)], 6940))
}
