//! The director of a native member: frames and events go in, frames and other actions come out. It is driven as
//! [`crate::r1::director::R1Director`] is: feed one event with [`NativeDirector::handle`], then perform everything that
//! [`NativeDirector::poll`] gives, oldest first, before the next event. Wake it with [`Event::Tick`] no later than
//! [`NativeDirector::deadline`].
//!
//! ```text
//!  frame ─► wire: key, cluster, sender, number ─► links ─► versions ─► node ─► messages ─► wire ─► a frame for each link
//! ```
//!
//! [`NativeNode`] decides about groups. The director adds what concerns frames: keys and their roll-over, refusals, which links
//! carry frames which way, and versions of the protocol. It also keeps what must be remembered against replays, and who
//! asked for which pin.
//!
//! Links are numbered as in the plan; after them comes one for each witness. On a node and on another witness this link is
//! the way to the witness's address. On the witness itself it is its own socket, from which it answers every member that it
//! hears ([`Action::SendTo`]).

use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{fmt::Display, net::SocketAddr};

use self::links::Links;
use super::{
    message::NativeMessage,
    node::{self, NativeNode},
    plan::{self, NativePlan, Secret, WitnessIndex},
    wire::{PROTOCOL, Reach, Versions, Wire, members::MemberTable},
};
use crate::{
    claims::Receivers,
    framing::{frame::Framing, reception::Reception, refusals::RefusalAlarm},
    model::{
        action::Action,
        claim::{Ballot, DurableState, Epoch},
        event::{Carrier, Event, Source},
        identity::{GroupIndex, LastHeard, LinkIndex, MemberIndex, NodeIndex, ResourceId},
        keys::{AuthMethod, Key, Keys},
        note::{Level, Note},
        order::{Answer, NativeOrder, Order, OrderId},
        time::{Duration, Instant, Now},
    },
};

mod announcing;
mod inbound;
mod links;
mod outbound;
mod report;
#[cfg(test)]
mod tests;

/// How often the newest frame numbers heard of living members are saved.
pub const REMEMBER_EVERY: Duration = Duration::from_secs(60);
/// Most foreign clusters that are counted by name; the frames of more are not told apart.
pub const FOREIGN_MAX: usize = 16;

/// What a member starts with, from the state directory and the sweep of leftovers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeIdentity {
    /// This start's generation; larger than any before.
    pub generation: u64,
    /// The ledger's content; `None` if there is no file of this cluster and member.
    pub ledger: Option<DurableState>,
    /// The newest frames heard of other members before this start, as [`Action::Remember`] gave them.
    pub heard: Vec<(MemberIndex, LastHeard)>,
    /// Leftover resources of an earlier daemon that could not be stopped.
    pub stop_failed: Vec<ResourceId>,
    /// Any number; spreads the waits after collisions.
    pub seed: u64,
}

/// The director of one member. See the module's text.
#[derive(Debug)]
pub struct NativeDirector {
    plan: Arc<NativePlan>,
    reception: Reception,
    /// By witness: the keys for its link, if it has a key of its own.
    witness_keys: Vec<Option<Keys>>,
    generation: u64,
    now: Now,
    started: Instant,
    node: NativeNode,
    wire: Wire,
    links: Links,
    /// By link: the address from which this machine sends to a witness.
    own_addresses: Vec<Option<SocketAddr>>,
    peers: Vec<NativePeer>,
    foreign: BTreeMap<String, u64>,
    /// The standby of this node, with the user who asked for it.
    standby: Option<StandbyRequest>,
    /// The order to leave that waits for its answer.
    leaving: Option<OrderId>,
    /// Nothing is claimed before the links are tested.
    waits_for_links: bool,
    /// Our own ballots of each group, as the node gave them.
    expected: BTreeMap<GroupIndex, Vec<Ballot>>,
    out: VecDeque<Action>,
}

/// What is known of another member's frames.
#[derive(Clone, Debug)]
struct NativePeer {
    /// Its generation and the protocols that it speaks. Its messages do not count before the first beat of this
    /// generation has given them.
    versions: Option<(u64, Versions)>,
    /// It has no protocol in common with this member, and the log says so.
    refused: bool,
    /// The number of the key that signs its frames.
    key: Option<u8>,
    /// What was last saved of it, and when.
    remembered: (Option<LastHeard>, Instant),
}

/// Which user asked for a standby, and since when it holds.
#[derive(Clone, Copy, Debug)]
struct StandbyRequest {
    since: Instant,
    user: u32,
}

impl NativeDirector {
    /// A member that has just started and has heard nobody. Its driver has swept the leftovers of earlier daemons.
    /// `keys`: the cluster's.
    #[must_use]
    pub fn new(plan: Arc<NativePlan>, keys: Keys, identity: NativeIdentity, now: Now) -> Self {
        let NativeIdentity { generation, ledger, heard, stop_failed: stuck, seed } = identity;
        let instant = now.instant;
        let mut node = NativeNode::new(
            Arc::clone(&plan),
            node::NodeIdentity { generation, ledger, stop_failed: stuck, seed },
            instant,
        );
        let members = MemberTable::of(&plan);
        let mut wire = Wire::new(plan.cluster.clone(), members, node.me(), generation, plan.timing.lease);
        for (member, heard) in heard {
            wire.remember(member, heard);
        }
        let links = Links::new(&plan, instant);
        let peer = NativePeer { versions: None, refused: false, key: None, remembered: (None, instant) };
        node.wait_for_links(true);
        let mut director = Self {
            reception: Reception::new(keys, links.count(), plan.timing.beat),
            witness_keys: plan.witnesses.iter().map(|witness| witness.key.map(keys_of)).collect(),
            generation,
            now,
            started: instant,
            node,
            wire,
            own_addresses: alloc::vec![None; links.count()],
            links,
            peers: alloc::vec![peer; plan.nodes.len() + plan.witnesses.len()],
            foreign: BTreeMap::new(),
            standby: None,
            leaving: None,
            waits_for_links: true,
            expected: BTreeMap::new(),
            out: VecDeque::new(),
            plan,
        };
        director.note(Level::Info, format!("generation {generation} of {}", director.my_name()));
        director.settle();
        director
    }

    /// Takes an event. Call [`Self::poll`] until it is empty before the next event.
    pub fn handle(&mut self, now: Now, event: Event<'_>) {
        let before = self.now.instant;
        self.now = Now { instant: now.instant.max(before), unix_seconds: now.unix_seconds };
        let long = self.plan.timing.silent / 2;
        if self.now.instant.since(before) >= long {
            let late = self.now.instant.since(self.deadline().max(before));
            if late >= long {
                // The node logs it.
                self.links.forgive(self.now.instant, late);
            }
        }
        if self.waits_for_links && self.links.are_tested(self.now.instant) {
            self.waits_for_links = false;
            self.node.wait_for_links(false);
        }
        match event {
            Event::Tick => self.tell_node(node::NodeEvent::Tick),
            Event::Frame { link, from, bytes } => self.frame(link, from, bytes),
            Event::Link { link, state } => self.carrier(link, state),
            Event::OwnAddress { link, address } => {
                if let Some(own) = self.own_addresses.get_mut(link.0) {
                    *own = address;
                }
            }
            Event::Done { ticket, outcome } => self.tell_node(node::NodeEvent::Done { ticket, outcome }),
            Event::Written { ok } => {
                if !ok {
                    let text = "the ledger could not be written: this member grants nothing and claims nothing new; \
                                check the disk of the state directory, then restart locum";
                    self.note(Level::Critical, text.to_string());
                }
                self.tell_node(node::NodeEvent::Written { ok });
            }
            Event::AddressGone(resource) => self.tell_node(node::NodeEvent::AddressGone(resource)),
            Event::Service { resource, state } => {
                self.tell_node(node::NodeEvent::Service { resource, state })
            }
            Event::Order { id, order } => self.order(id, order),
            Event::Keys(keys) => {
                let text = self.reception.reread("keys", keys);
                self.note(Level::Info, text);
                let groups: Vec<GroupIndex> = self.expected.keys().copied().collect();
                groups.into_iter().for_each(|group| self.tell_proofs(group));
                // The numbers of keys may have changed with the file.
                self.peers.iter_mut().for_each(|peer| peer.key = None);
            }
            // Events of heartbeat's dialect: ping nodes, fencing devices, the FIFO, the load.
            Event::Echo { .. } | Event::Fenced { .. } | Event::Script(_) | Event::Load(_) => {}
        }
        self.settle();
    }

    /// The next action, oldest first.
    pub fn poll(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    /// When to send [`Event::Tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.reception.deadline().map_or(self.node.deadline(), |at| at.min(self.node.deadline()))
    }

    /// Whether this member takes part: a majority of the voters hears it. Groups may be started from then on.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.node.member().is_heard(self.now.instant)
    }

    /// When the next beat is due; changes with every beat.
    #[must_use]
    pub const fn next_beat(&self) -> Instant {
        self.node.next_beat()
    }

    /// The epoch under which a group is ours; else the one under which it ran here last.
    #[must_use]
    pub fn epoch(&self, group: GroupIndex) -> Option<Epoch> {
        self.node.epoch(group)
    }

    /// The node that decides about groups.
    #[must_use]
    pub const fn node(&self) -> &NativeNode {
        &self.node
    }

    fn tell_node(&mut self, event: node::NodeEvent) {
        self.node.handle(self.now.instant, event);
    }

    /// Performs the node's actions until it has no more.
    fn settle(&mut self) {
        let now = self.now.instant;
        while let Some(action) = self.node.poll() {
            match action {
                node::NodeAction::Send { to, word } => self.say(to, &word),
                node::NodeAction::Expect { group, ballots } => {
                    self.expected.insert(group, ballots);
                    self.tell_proofs(group);
                }
                node::NodeAction::Announce { group, ballot, ended } => self.announce(group, ballot, ended),
                node::NodeAction::Hands(Action::Exit { clean, restart, keeps }) => {
                    if let Some(order) = self.leaving.take() {
                        let answer = match clean {
                            true => Answer::Done("everything is handed over; this node leaves".into()),
                            false => {
                                Answer::TimedOut("this node leaves; something here cannot be stopped".into())
                            }
                        };
                        self.out.push_back(Action::Reply { order, answer });
                    }
                    self.remember_all(Duration::ZERO);
                    self.out.push_back(Action::Exit { clean, restart, keeps });
                }
                node::NodeAction::Hands(action) => self.out.push_back(action),
            }
        }
        while let Some(line) = self.reception.tell(now) {
            self.note(Level::Warning, line);
        }
    }

    // ---- what people ask for ---------------------------------------------

    fn order(&mut self, id: OrderId, order: Order) {
        let refused = |text: &str| Answer::Refused(text.into());
        let answer = match order {
            Order::Native { order: NativeOrder::Leave, .. } | Order::Leave => return self.leave(id),
            Order::Native { order, user } => match self.check(order) {
                Ok(()) => {
                    self.pin(order, user);
                    return self.tell_node(node::NodeEvent::Order { id, order, user });
                }
                Err(answer) => answer,
            },
            Order::Standby(_) | Order::Takeover(_) => refused(
                "this cluster uses locum.toml and has no local and foreign sets: use `locum move`, `locum standby` \
                 or `locum online`",
            ),
            Order::Reload => refused(
                "a native member cannot reload its configuration in place: restart it (`systemctl restart locum`); \
                 the other members go on meanwhile",
            ),
        };
        self.out.push_back(Action::Reply { order: id, answer });
    }

    /// Refuses an order that this member cannot carry out.
    fn check(&self, order: NativeOrder) -> Result<(), Answer> {
        let unknown =
            |what: &str| Err(Answer::Refused(format!("locum.toml of this member has no such {what}")));
        let of = match order {
            NativeOrder::Move(group, _) | NativeOrder::Freeze(group, _) => Some(group),
            _ => None,
        };
        if of.is_some_and(|group| group.0 >= self.plan.groups.len()) {
            return unknown("group");
        }
        if let NativeOrder::Move(_, Some(to)) = order
            && to.0 >= self.plan.nodes.len()
        {
            return unknown("node");
        }
        if self.leaving.is_some() && matches!(order, NativeOrder::Standby | NativeOrder::Online) {
            return Err(Answer::Refused("this member is leaving".into()));
        }
        if matches!(self.plan.me, plan::NativeMember::Witness(_)) && !matches!(order, NativeOrder::Move(..)) {
            return Err(Answer::Refused("a witness runs nothing; ask a node".into()));
        }
        Ok(())
    }

    /// Remembers the user of an order that concerns this node alone. Other pins are in the gossip state.
    fn pin(&mut self, order: NativeOrder, user: u32) {
        match order {
            NativeOrder::Standby => {
                self.standby.get_or_insert(StandbyRequest { since: self.now.instant, user });
            }
            NativeOrder::Online => self.standby = None,
            _ => {}
        }
    }

    /// Begins to leave: a node hands everything over first, a witness leaves at once.
    fn leave(&mut self, id: OrderId) {
        if self.leaving.is_some() {
            let answer = Answer::Done("this member is leaving already".into());
            return self.out.push_back(Action::Reply { order: id, answer });
        }
        if matches!(self.plan.me, plan::NativeMember::Witness(_)) {
            let answer = Answer::Done("the witness leaves".into());
            self.out.push_back(Action::Reply { order: id, answer });
            self.remember_all(Duration::ZERO);
            return self.out.push_back(Action::Exit { clean: true, restart: None, keeps: None });
        }
        self.leaving = Some(id);
        self.tell_node(node::NodeEvent::Order { id, order: NativeOrder::Leave, user: 0 });
    }

    // ---- links -----------------------------------------------------------

    /// Takes what this machine itself says of a link: whether it can carry frames.
    fn carrier(&mut self, link: LinkIndex, state: Carrier) {
        if link.0 >= self.links.count() {
            return;
        }
        let name = self.link_name(link);
        let is_news = self.links.carries(link, state == Carrier::Up);
        match self.reception.carrier(link, state, &name) {
            Some(change) => self.note(change.level, change.text),
            // The first event of this link.
            None if is_news => self.note(Level::Info, format!("{name} is open")),
            None => {}
        }
    }

    /// The link's name as log lines have it.
    fn link_name(&self, link: LinkIndex) -> String {
        match self.links.witness(link) {
            Some(witness) => format!("link to witness {}", self.plan.witnesses[witness.0].name),
            None => format!("link {}", self.plan.links[link.0].name),
        }
    }

    /// The keys for a link: a witness's own or the cluster's.
    fn keys(&self, link: LinkIndex) -> &Keys {
        let own = self.links.witness(link).and_then(|witness| self.witness_keys[witness.0].as_ref());
        own.unwrap_or(self.reception.keys())
    }

    // ---- small things ----------------------------------------------------

    /// Saves the newest frame numbers of each member that were not saved for `pause`.
    fn remember_all(&mut self, pause: Duration) {
        for index in 0..self.peers.len() {
            if self.now.instant.since(self.peers[index].remembered.1) >= pause {
                self.remember(index);
            }
        }
    }

    fn remember(&mut self, index: usize) {
        let member = MemberIndex::at(index);
        let heard = self.wire.heard(member);
        let (kept, at) = &mut self.peers[index].remembered;
        if let Some(heard) = heard.filter(|heard| Some(*heard) != *kept) {
            (*kept, *at) = (Some(heard), self.now.instant);
            self.out.push_back(Action::Remember { member, heard });
        }
    }

    fn my_name(&self) -> &str {
        self.plan.name(self.plan.me)
    }

    fn name(&self, member: MemberIndex) -> &str {
        self.wire.members().name(member).unwrap_or_default()
    }

    fn note(&mut self, level: Level, text: String) {
        self.out.push_back(Action::Note(Note { level, group: None, epoch: None, text }));
    }
}

/// The keys of a witness that has a key of its own.
#[must_use]
pub fn keys_of(secret: Secret) -> Keys {
    let key = Key { number: 0, method: AuthMethod::Sha256, secret: secret.0.to_vec() };
    Keys::new(0, alloc::vec![key]).expect("one key, with a secret, that signs")
}
