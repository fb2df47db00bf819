//! The decisions of one member of a native cluster, a node or a witness: an event goes in, actions come out, as with
//! [`crate::r1::director`]. It composes [`crate::claims`] (who owns), [`super::ownership`] (who should own) and
//! [`crate::group`] (start and stop). It sends and takes [`NativeMessage`]s; its driver turns them into authentic frames and
//! back.
//!
//! The driver's contract: feed one event with [`NativeNode::handle`], then perform everything that [`NativeNode::poll`] gives,
//! oldest first, before the next event. Wake it with [`NodeEvent::Tick`] no later than [`NativeNode::deadline`].

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::String,
    sync::Arc,
    vec::Vec,
};

use super::{
    canonical,
    gossip::{GossipEntry, GossipState},
    message::{GroupLists, NativeBeat, NativeMessage},
    ownership::{NativeStep, NativeView, NodeView, Ownership},
    plan::{self, NativePlan},
};
use crate::{
    claims::{
        ClaimMember, ClaimMessage, ClaimSettings, ClaimsDigest, Envelope, Lease, Receivers, SingleVoteTiming,
        Voters,
    },
    group::{GroupEvent, GroupPhase, Groups},
    liveness::{LivenessEvent, Watch, services::Services},
    model::{
        action::{self, GateLease},
        breakage::{self, Breakage},
        claim::{self, Ballot, DurableState, GroupId},
        event::{Carrier, Outcome, Ticket},
        identity::{GroupIndex, MemberIndex, NodeIndex, ResourceId},
        note::{Level, Note},
        order::{Answer, Asker, NativeOrder, OrderId},
        resource::Agent,
        settings,
        time::{Duration, Instant},
    },
};

/// Most groups that an answer names; the rest is only counted.
const STAYING_NAMED_MAX: usize = 8;
/// How long an owner may take to hand over a group that a person asked for. Then the person is told to look at
/// `status`.
pub const MOVE_MAX: Duration = Duration::from_secs(600);
/// How long claims wait for a living node whose file differs to send its lines. It is asked with each of its beats.
/// Lines that never come, because they are longer than a list may be, must keep no service down.
pub const FILES_WAIT: Duration = Duration::from_secs(10);

/// An event for [`NativeNode::handle`].
#[derive(Debug)]
pub enum NodeEvent {
    /// The time returned by [`NativeNode::deadline`] has been reached.
    Tick,
    /// A message of another member: authentic, of this cluster, and new.
    Heard {
        from: MemberIndex,
        /// The generation of the sender's daemon.
        generation: u64,
        /// The number of the sender's voter set.
        set: u32,
        message: NativeMessage,
    },
    /// An operation of an agent has ended.
    Done {
        /// The ticket of the action that started it.
        ticket: Ticket,
        outcome: Outcome,
    },
    /// The write of [`crate::model::action::Action::Write`] has ended.
    Written {
        /// The ledger is on disk; `false`: it may or may not be.
        ok: bool,
    },
    /// Somebody else took a service address of ours from its interface.
    AddressGone(ResourceId),
    /// The state of a service address's interface, see [`crate::model::event::Event::Service`].
    Service { resource: ResourceId, state: Carrier },
    /// A person asks for something.
    Order {
        /// Returned with the answer.
        id: OrderId,
        order: NativeOrder,
        /// The uid of the user of this machine who asks.
        user: u32,
    },
}

/// An action that the driver must perform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAction {
    /// Send this message over every link that leads to its receivers.
    Send { to: Receivers, word: NativeMessage },
    /// The group's gate accepts proofs against these ballots of this node, the owned one first. Other members may know
    /// us as the group's owner under any of them. A proof that one of them has ended shuts the gate.
    Expect {
        group: GroupIndex,
        /// The complete list; it replaces the last one.
        ballots: Vec<Ballot>,
    },
    /// Announce our claim to the gate of an earlier owner.
    Announce {
        group: GroupIndex,
        /// The ballot of our claim.
        ballot: Ballot,
        /// The ownership that our claim ends: the last ballot known of that owner.
        ended: Ballot,
    },
    /// An action that the director passes on to its own driver.
    Hands(action::Action),
}

/// The state that a member starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// This start's generation; larger than any before.
    pub generation: u64,
    /// The ledger's content; `None` if there is no file of this cluster.
    pub ledger: Option<DurableState>,
    /// Leftover resources of an earlier daemon that could not be stopped.
    pub stop_failed: Vec<ResourceId>,
    /// Any number; spreads the waits after collisions.
    pub seed: u64,
}

mod announcing;
mod blocked;
mod report;
#[cfg(test)]
mod tests;

use announcing::Announced;

#[derive(Debug)]
struct NodePeer {
    watch: Watch,
    generation: u64,
    config: Option<u64>,
    /// The digest of its gossip state, from its last beat.
    gossip: Option<ClaimsDigest>,
    /// Its lease differs from ours: its claims messages do not count.
    refused: bool,
    /// The settings in which its file differs from ours.
    differences: Vec<settings::SettingDifference>,
    /// It has sent the lines of its file.
    has_sent_settings: bool,
    /// Since when it is asked for them.
    asked_since: Instant,
}

/// The state of one member. See the module's text.
#[derive(Debug)]
pub struct NativeNode {
    plan: Arc<NativePlan>,
    me: MemberIndex,
    config: u64,
    now: Instant,
    ids: Vec<GroupId>,
    index: BTreeMap<GroupId, GroupIndex>,
    member: ClaimMember,
    /// By member; the entry of this member is not used.
    peers: Vec<NodePeer>,
    /// By member: what ownership needs to know of it. The entries of witnesses are not used.
    views: Vec<NodeView>,
    ownership: Ownership,
    gossip: GossipState,
    services: Services,
    /// Until then nothing is claimed before the gossip state of the other nodes is known.
    gossip_deadline: Instant,
    groups: Groups,
    /// The groups whose gates should be open, with the lease that each gate was last given.
    gates: BTreeMap<GroupIndex, Option<GateLease>>,
    /// A subset of `gates`: groups that are being stopped while this node owns them. The gate is shut when the stop
    /// reaches the address.
    closing: BTreeSet<GroupIndex>,
    /// By group, the last claim that was announced.
    announced: Announced,
    /// By group, our own ballots as [`NodeAction::Expect`] last gave them.
    expected: BTreeMap<GroupIndex, Vec<Ballot>>,
    /// Announcements to be sent after the gates have their leases.
    announcements: Vec<NodeAction>,
    /// The groups with a resource that cannot be stopped.
    stop_failed: BTreeSet<GroupIndex>,
    next_beat: Instant,
    /// Something changed that matters for who should own what. [`Ownership`] knows which groups to look at.
    due_to_look: bool,
    /// The groups whose gates may need another lease.
    gates_due: BTreeSet<GroupIndex>,
    /// Whether a majority of the voters hears us and this member remembers what it must.
    may_claim: bool,
    /// Whether the log has a line that single-vote mode is on.
    logged_single_vote: bool,
    /// Orders that we passed on to owners, and how long each is waited for.
    passed: BTreeMap<OrderId, Instant>,
    left: bool,
    out: VecDeque<NodeAction>,
    hands: VecDeque<action::Action>,
}

impl NativeNode {
    /// A member that has just started and has heard nobody. Its driver has swept the leftovers of earlier daemons.
    #[must_use]
    pub fn new(plan: Arc<NativePlan>, identity: NodeIdentity, now: Instant) -> Self {
        let index = |member: plan::NativeMember| plan.index(member);
        let me = index(plan.me);
        let timing = plan.timing;
        let settings = ClaimSettings {
            me,
            generation: identity.generation,
            voters: Voters {
                number: plan.voter_set(),
                members: plan.voters.iter().map(|voter| index(*voter)).collect(),
            },
            lease: Lease { length: timing.lease, margin: timing.margin },
            retry: timing.retry,
            claims: matches!(plan.me, plan::NativeMember::Node(_)),
            single_vote: plan
                .may_use_single_vote()
                .then_some(SingleVoteTiming { vote: timing.single_vote, silence: timing.unheard }),
        };
        let is_of_others =
            identity.ledger.as_ref().is_some_and(|ledger| ledger.set != settings.voters.number);
        let peer = || NodePeer {
            watch: Watch::new(now, timing.silent),
            generation: 0,
            config: None,
            gossip: None,
            refused: false,
            differences: Vec::new(),
            has_sent_settings: false,
            asked_since: now,
        };
        let ids: Vec<GroupId> = plan.groups.iter().map(|group| GroupId::of(&group.name)).collect();
        let members = 0..plan.nodes.len() + plan.witnesses.len();
        let view = |member: usize| NodeView { up: member == me.index(), since: now, ..NodeView::default() };
        let mut node = Self {
            me,
            config: plan.settings_digest().short(),
            now,
            index: ids.iter().enumerate().map(|(index, id)| (*id, GroupIndex(index))).collect(),
            ids,
            member: ClaimMember::new(now, settings, identity.ledger),
            peers: members.clone().map(|_| peer()).collect(),
            views: members.map(view).collect(),
            ownership: Ownership::new(&plan, identity.seed),
            gossip: GossipState::default(),
            services: Services::new(timing.lease, now + timing.mute),
            gossip_deadline: now + timing.mute,
            groups: Groups::new(plan.specs(), &identity.stop_failed),
            gates: BTreeMap::new(),
            closing: BTreeSet::new(),
            announced: Announced::default(),
            expected: BTreeMap::new(),
            announcements: Vec::new(),
            stop_failed: BTreeSet::new(),
            next_beat: now,
            due_to_look: true,
            gates_due: BTreeSet::new(),
            may_claim: false,
            logged_single_vote: false,
            passed: BTreeMap::new(),
            left: false,
            out: VecDeque::new(),
            hands: VecDeque::new(),
            plan,
        };
        if is_of_others {
            let text = "the voters differ from those of this machine's last run: it votes and claims when all of \
                        them have been started with this file";
            node.note(Level::Warning, None, text.into());
        }
        node.tick();
        node.settle();
        node
    }

    /// Takes an event. Call [`Self::poll`] until it is empty before the next event.
    pub fn handle(&mut self, now: Instant, event: NodeEvent) {
        self.forgive_own_pause(now);
        self.now = now.max(self.now);
        match event {
            NodeEvent::Tick => {}
            NodeEvent::Heard { from, generation, set, message: word } => {
                self.heard(from, generation, set, word)
            }
            NodeEvent::Done { ticket, outcome } => {
                self.groups.done(self.now, ticket, &outcome, &mut self.hands);
            }
            NodeEvent::Written { ok } => self.member.written(self.now, ok),
            NodeEvent::AddressGone(resource) => self.groups.address_gone(resource, &mut self.hands),
            NodeEvent::Service { resource, state } => {
                let is_ours = self.plan.groups.get(resource.group.0);
                if is_ours.is_some_and(|group| resource.member < group.resources.len()) {
                    self.services.report(self.now, resource, state);
                    self.services_changed();
                }
            }
            NodeEvent::Order { id, order, user } => self.order(id, order, user),
        }
        self.tick();
        self.settle();
    }

    /// Sets whether this node claims nothing because the links that it would rely on are not tested yet.
    pub fn wait_for_links(&mut self, wait: bool) {
        self.stir();
        self.ownership.wait_for_links(wait);
    }

    /// The next action, oldest first.
    pub fn poll(&mut self) -> Option<NodeAction> {
        self.out.pop_front()
    }

    /// When to send [`NodeEvent::Tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let peers = self.peers.iter().enumerate().filter(|(index, _)| *index != self.me.index());
        let watches = peers.filter_map(|(_, peer)| peer.watch.deadline());
        let others = [
            self.member.deadline(),
            self.groups.deadline(),
            self.ownership.deadline(),
            self.services.deadline(),
        ];
        let passed = self.passed.values().copied();
        watches.chain(others.into_iter().flatten()).chain(passed).fold(self.next_beat, Instant::min)
    }

    /// The phase of a group on this node.
    #[must_use]
    pub fn phase(&self, group: GroupIndex) -> GroupPhase {
        self.groups.phase(group)
    }

    /// The state of the claims protocol.
    #[must_use]
    pub const fn member(&self) -> &ClaimMember {
        &self.member
    }

    /// The group's id, by which voters know it.
    #[must_use]
    pub fn id(&self, group: GroupIndex) -> GroupId {
        self.ids[group.0]
    }

    /// Whether another member is heard now.
    #[must_use]
    pub fn hears(&self, member: MemberIndex) -> bool {
        self.peers.get(member.index()).is_some_and(|peer| peer.watch.state().is_up())
    }

    /// The settings in which another member's file differs from ours, as far as they are known.
    #[must_use]
    pub fn differences(&self, member: MemberIndex) -> &[settings::SettingDifference] {
        self.peers.get(member.index()).map_or(&[], |peer| &peer.differences)
    }

    // ---- time ------------------------------------------------------------

    /// Discounts silence for a time in which this node itself did not run.
    fn forgive_own_pause(&mut self, now: Instant) {
        let long = self.plan.timing.silent / 2;
        // If the last event is recent, no deadline lies that far back.
        if now.since(self.now) < long {
            return;
        }
        let late = now.since(self.deadline().max(self.now));
        if late < long {
            return;
        }
        let text = format!(
            "this node did not run for {:.1} s; silence of other members in that time does not count",
            late.as_secs_f64()
        );
        self.note(Level::Warning, None, text);
        self.peers.iter_mut().for_each(|peer| peer.watch.forgive(now, late));
        self.member.forgive(now, late);
    }

    fn tick(&mut self) {
        let now = self.now;
        self.member.tick(now);
        self.groups.tick(now, &mut self.hands);
        self.watch_peers();
        self.watch_services();
        let waits = now < self.gossip_deadline && self.knows_not_all();
        let may_claim = self.member.may_claim(now);
        let was_otherwise = core::mem::replace(&mut self.may_claim, may_claim) != may_claim;
        if self.ownership.wait_for_gossip(waits) | was_otherwise {
            self.stir();
        }
        self.watch_files();
        self.log_single_vote();
        let overdue: Vec<OrderId> =
            self.passed.extract_if(.., |_, until| *until <= now).map(|(id, _)| id).collect();
        for id in overdue {
            let text = "the owner has not answered; `locum status` shows where the group is";
            self.hands.push_back(action::Action::Reply { order: id, answer: Answer::TimedOut(text.into()) });
        }
        if now >= self.next_beat {
            self.beat();
        }
        self.due_to_look |= self.ownership.deadline().is_some_and(|at| at <= now);
    }

    /// Makes ownership look at all groups: something changed that concerns more groups than can be named.
    fn stir(&mut self) {
        self.due_to_look = true;
        self.ownership.touch_all();
    }

    fn services_changed(&mut self) {
        let view = &mut self.views[self.me.index()];
        view.unreachable = self.services.unreachable().into_iter().collect();
        view.unreachable_for_long = self.services.unreachable_for_long().into_iter().collect();
        self.stir();
    }

    fn watch_services(&mut self) {
        let news = self.services.elapse(self.now);
        if !news.is_empty() {
            self.services_changed();
        }
        for (resource, trouble) in &news {
            let group = &self.plan.groups[resource.group.0];
            let address = &group.resources[resource.member].runs.text;
            let (level, text) = match trouble {
                Some(why) => (Level::Warning, format!("clients cannot reach {address} on this node: {why}")),
                None => (Level::Info, format!("clients can reach {address} on this node again")),
            };
            self.note(level, Some(resource.group), text);
        }
    }

    fn watch_peers(&mut self) {
        let now = self.now;
        for index in 0..self.peers.len() {
            if index == self.me.index() {
                continue;
            }
            let silence = now.since(self.peers[index].watch.heard());
            let sign = self.peers[index].watch.elapse(now);
            self.views[index].up = self.peers[index].watch.state().is_up();
            match sign {
                Some(LivenessEvent::DeadElapsed) => {
                    self.stir();
                    let text = format!("{} is silent", self.name(index));
                    self.note(Level::Warning, None, text);
                }
                Some(LivenessEvent::WarnElapsed) => {
                    let text = format!("{} is late: {} ms", self.name(index), silence.as_millis());
                    self.note(Level::Warning, None, text);
                }
                _ => {}
            }
        }
    }

    /// Whether the gossip state of a living node differs from ours. That node sends its own as soon as it has heard our
    /// beat.
    fn knows_not_all(&self) -> bool {
        let digest = self.gossip.digest();
        let nodes = self.peers.iter().zip(&self.views).take(self.plan.nodes.len()).enumerate();
        let mut others =
            nodes.filter(|(index, (peer, view))| *index != self.me.index() && view.up && peer.generation > 0);
        self.node().is_some() && others.any(|(_, (peer, _))| peer.gossip != Some(digest))
    }

    /// Brings up to date whose files count, and whether all of those are known.
    fn watch_files(&mut self) {
        let now = self.now;
        let mut untold = false;
        let me = self.me.index();
        for index in (0..self.plan.nodes.len()).filter(|index| *index != me) {
            let peer = &self.peers[index];
            // If its clock is slower than ours, its lease still runs when we call it silent.
            let may_own = peer.generation > 0 && now.since(peer.watch.heard()) < self.plan.timing.mute;
            let is_known = peer.has_sent_settings || peer.config == Some(self.config);
            untold |= may_own && !is_known && now.since(peer.asked_since) < FILES_WAIT;
            if core::mem::replace(&mut self.views[index].may_own, may_own) != may_own {
                self.stir();
            }
        }
        if self.ownership.wait_for_files(untold) {
            self.stir();
        }
    }

    /// Takes the lines of a node's file: what differs from ours, and which groups are in dispute.
    fn heard_settings(&mut self, from: MemberIndex, theirs: &[String]) {
        let ours = self.plan.canonical_settings();
        let Some(peer) = self.peers.get_mut(from.index()) else { return };
        peer.differences = settings::summary(&ours, theirs);
        peer.has_sent_settings = true;
        let disputes = canonical::disputes(&ours, theirs);
        let disputes = disputes.into_iter().filter_map(|(name, it)| Some((self.plan.group(&name)?, it)));
        self.views[from.index()].disputes = disputes.collect();
        self.stir();
    }

    /// Logs a change of single-vote mode, a lease later: one lost beat is soon made good.
    fn log_single_vote(&mut self) {
        let since = self.member.single_vote_since();
        let tell = since.is_some_and(|since| self.now.since(since) >= self.plan.timing.lease);
        if core::mem::replace(&mut self.logged_single_vote, tell) == tell {
            return;
        }
        let voters = &self.member.settings().voters.members;
        let other = voters.iter().find(|voter| **voter != self.me).copied().unwrap_or(self.me);
        let name = self.name(other.index());
        let (level, text) = match (tell, self.hears(other)) {
            (false, _) => (Level::Info, format!("{name} votes again: this node leaves single-vote mode")),
            (true, true) => {
                (Level::Warning, format!("{name} does not vote: this node is in single-vote mode"))
            }
            (true, false) => {
                let text = format!(
                    "{name} is silent: this node is in single-vote mode; if {name} is alive, both nodes run every \
                     group"
                );
                (Level::Warning, text)
            }
        };
        self.note(level, None, text);
    }

    fn beat(&mut self) {
        self.gossip.forget(self.now, &self.plan, &self.index);
        let every = self.plan.timing.beat;
        self.next_beat = self.next_beat + every;
        if self.next_beat <= self.now {
            self.next_beat = self.now + every;
        }
        let claims = self.member.beat(self.now);
        let now = self.now;
        let held = self.member.claimant().into_iter().flat_map(|claimant| claimant.holds(now));
        let runs = |id: &GroupId| {
            self.index.get(id).is_some_and(|group| self.groups.phase(*group) == GroupPhase::Running)
        };
        let all = GroupLists {
            starting: held.map(|(id, _)| id).filter(|id| !runs(id)).collect(),
            unable: self.unable().map(|group| self.ids[group.0]).collect(),
            unreachable: self.services.unreachable().into_iter().map(|group| self.ids[group.0]).collect(),
        };
        // Renewals must not depend on the arrival of several frames.
        let (lists, apart) = if all.are_short() { (Some(all), None) } else { (None, Some(all)) };
        let beat = NativeBeat {
            claims,
            config: self.config,
            gossip: self.gossip.digest(),
            standby: self.ownership.is_standby(),
            waits: self.node().is_some() && !self.could_claim(),
            lists,
        };
        self.send(Receivers::All, NativeMessage::Beat(beat));
        self.announce_again();
        if let Some(lists) = apart {
            self.send(Receivers::All, NativeMessage::Lists(lists));
        }
    }

    /// Whether this node could claim a group now.
    fn could_claim(&self) -> bool {
        let Self { ownership, .. } = self;
        let waits =
            ownership.waits_for_links() || ownership.waits_for_gossip() || ownership.waits_for_files();
        self.member.may_claim(self.now) && !waits
    }

    /// Groups that must not be given to this node now: it could not run them, or something of an earlier ownership
    /// cannot be stopped here.
    fn unable(&self) -> impl Iterator<Item = GroupIndex> {
        self.ownership.unable(self.now).chain(self.stop_failed.iter().copied())
    }

    // ---- messages of others -----------------------------------------------

    fn heard(&mut self, from: MemberIndex, generation: u64, set: u32, message: NativeMessage) {
        let now = self.now;
        let timing = self.plan.timing;
        let Some(peer) = self.peers.get_mut(from.index()).filter(|_| from != self.me) else { return };
        if generation < peer.generation {
            return;
        }
        let is_back = generation > peer.generation || !peer.watch.state().is_up();
        peer.generation = generation;
        peer.watch.hear(now, timing.late, timing.silent);
        peer.watch.note(LivenessEvent::Settled);
        let refused = peer.refused;
        let view = &mut self.views[from.index()];
        view.up = peer.watch.state().is_up();
        if is_back {
            view.since = now;
            view.ready_since = None;
            self.stir();
        }
        match message {
            NativeMessage::Beat(beat) => self.heard_beat(from, generation, set, beat),
            NativeMessage::Claims(_) if refused => {}
            NativeMessage::Claims(message) => {
                self.due_to_look |= matches!(message, ClaimMessage::List(_) | ClaimMessage::Release(_));
                self.member.heard(now, from, generation, set, message);
            }
            NativeMessage::AskMove { order, group, to } => self.asked_to_move(from, order, group, to),
            NativeMessage::MoveAnswer { order, done, text } => {
                if self.passed.remove(&order).is_some() {
                    let answer = if done { Answer::Done(text) } else { Answer::Refused(text) };
                    self.hands.push_back(action::Action::Reply { order, answer });
                }
            }
            // Only nodes exchange gossip state: a witness runs nothing, and one with a key of its own is not trusted
            // with it.
            NativeMessage::Gossip(entries) if !refused && self.node().is_some() && self.is_node(from) => {
                self.heard_gossip(&entries);
            }
            NativeMessage::Gossip(_) => {}
            NativeMessage::Lists(lists) => self.heard_lists(from, &lists),
            NativeMessage::AskSettings => {
                self.send(Receivers::One(from), NativeMessage::Settings(self.plan.canonical_settings()))
            }
            NativeMessage::Settings(lines) => self.heard_settings(from, &lines),
        }
    }

    fn heard_beat(&mut self, from: MemberIndex, generation: u64, set: u32, beat: NativeBeat) {
        if let Some(lists) = &beat.lists {
            self.heard_lists(from, lists);
        }
        let ours = self.plan.timing.lease;
        let Some(peer) = self.peers.get_mut(from.index()) else { return };
        let view = &mut self.views[from.index()];
        let mut is_otherwise = core::mem::replace(&mut view.standby, beat.standby) != beat.standby;
        let ready_since = (!beat.waits).then(|| view.ready_since.unwrap_or(self.now));
        is_otherwise |= view.ready_since.is_some() != ready_since.is_some();
        view.ready_since = ready_since;
        let is_new = peer.config.replace(beat.config) != Some(beat.config);
        if is_new {
            peer.differences.clear();
            view.disputes.clear();
            (peer.has_sent_settings, peer.asked_since) = (false, self.now);
            is_otherwise = true;
        }
        peer.gossip = Some(beat.gossip);
        let theirs = beat.claims.lease;
        let was_refused = core::mem::replace(&mut peer.refused, theirs != ours);
        let refused = peer.refused;
        if is_otherwise {
            self.stir();
        }
        // A witness has no configuration of the cluster, and no pace of its own.
        let is_node = self.is_node(from);
        if is_node && beat.config != self.config {
            // With each beat until it has answered: the question or the answer may be lost.
            if !self.peers[from.index()].has_sent_settings {
                self.send(Receivers::One(from), NativeMessage::AskSettings);
            }
            if is_new {
                let name = self.name(from.index());
                let text = format!("{name} has another configuration; `locum status` shows the differences");
                self.note(Level::Warning, None, text);
            }
        }
        if refused && !was_refused {
            let name = self.name(from.index());
            let text = format!(
                "{name} is refused: its pace is {theirs:?}, ours is {ours:?} (`locum explain timing`); give both one pace"
            );
            self.note(Level::Error, None, text);
        }
        if is_node && !refused && self.node().is_some() && beat.gossip != self.gossip.digest() {
            // When it has heard our next beat, it sends what we lack.
            self.send_gossip(Receivers::One(from), self.gossip.entries(self.now));
        }
        if refused {
            self.member.heard_uncounted(self.now, from, generation);
        } else {
            self.member.heard(self.now, from, generation, set, ClaimMessage::Beat(beat.claims));
        }
    }

    fn heard_lists(&mut self, from: MemberIndex, lists: &GroupLists) {
        let known = |ids: &[GroupId]| ids.iter().filter_map(|id| self.index(*id)).collect::<BTreeSet<_>>();
        let (unable, cut) = (known(&lists.unable), known(&lists.unreachable));
        let Some(view) = self.views.get_mut(from.index()) else { return };
        let is_otherwise = view.unable != unable || view.unreachable != cut;
        (view.unable, view.unreachable) = (unable, cut);
        if is_otherwise {
            self.stir();
        }
    }

    fn asked_to_move(&mut self, from: MemberIndex, order: OrderId, group: GroupId, to: Option<MemberIndex>) {
        let asker = Asker::At(from, order);
        match self.index(group) {
            Some(group) => {
                let to = to.and_then(|to| self.plan.node(to));
                self.change_ownership(|ownership, view| ownership.give(view, group, to, Some(asker)));
            }
            None => self.answer(asker, Answer::Refused("this node does not know the group".into())),
        }
    }

    // ---- gossip state -----------------------------------------------------

    fn send_gossip(&mut self, to: Receivers, entries: Vec<GossipEntry>) {
        if !entries.is_empty() {
            self.send(to, NativeMessage::Gossip(entries));
        }
    }

    fn heard_gossip(&mut self, entries: &[GossipEntry]) {
        let mut has_changed = false;
        for entry in entries {
            // A pin that is already over is not logged: this node never knew that it held.
            let is_said = match *entry {
                GossipEntry::Pin { group, on: false, .. } => self.gossip.pinned(group).is_some(),
                GossipEntry::Pin { .. } | GossipEntry::Moved { .. } => true,
            };
            if self.gossip.merge(self.now, &self.plan, &self.index, entry) {
                has_changed = true;
                if is_said {
                    self.note_entry(entry);
                }
            }
        }
        if has_changed {
            self.apply_pins();
        }
    }

    /// Applies the pins that the gossip state has now.
    fn apply_pins(&mut self) {
        let all = self.gossip.pinned(None).is_some();
        let is_pinned = |group: GroupIndex| all || self.gossip.pinned(Some(self.ids[group.0])).is_some();
        self.ownership.freeze(is_pinned);
        self.freeze_groups();
        self.stir();
    }

    fn note_entry(&mut self, entry: &GossipEntry) {
        match *entry {
            GossipEntry::Pin { group, number, on, user, age } => {
                let by = self.name(number.node.index());
                let what = match (group, on) {
                    (Some(_), true) => "is frozen",
                    (Some(_), false) => "is no longer frozen",
                    (None, true) => "maintenance begins",
                    (None, false) => "maintenance is over",
                };
                let ago = match age.as_secs() {
                    0 => String::new(),
                    seconds => format!(", {seconds} s ago"),
                };
                let text = format!("{what}: asked for at {by} by user {user}{ago}");
                self.note(Level::Info, group.and_then(|group| self.index(group)), text);
            }
            GossipEntry::Moved { group, .. } => {
                let Some(index) = self.index(group) else { return };
                let rule = self.plan.groups[index.0].hold_down;
                if let Some(held) = self.gossip.held_down(self.now, group, &rule) {
                    let text = format!(
                        "failures have moved it {} times within {} s: it is held for {} s",
                        rule.moves,
                        rule.within.as_secs(),
                        held.until.since(self.now).as_secs()
                    );
                    self.note(Level::Warning, Some(index), text);
                }
            }
        }
    }

    fn pin(&mut self, group: Option<GroupIndex>, on: bool, user: u32) {
        let group = group.map(|group| self.ids[group.0]);
        if let Some(entry) = self.gossip.pin(self.now, self.me, group, on, user) {
            self.note_entry(&entry);
            self.apply_pins();
            self.send_gossip(Receivers::All, alloc::vec![entry]);
        }
    }

    // ---- what people ask for ---------------------------------------------

    fn order(&mut self, id: OrderId, order: NativeOrder, user: u32) {
        let asker = Asker::Here(id);
        let done = |text: &str| Answer::Done(text.into());
        if matches!(order, NativeOrder::Standby | NativeOrder::Online | NativeOrder::Leave) {
            // Before anything is released: the new owner must know by our beat that it cannot give the group back to
            // us.
            self.next_beat = self.now;
        }
        match order {
            NativeOrder::Move(group, to) => self.order_move(id, group, to),
            NativeOrder::Standby => {
                let mut staying = Vec::new();
                self.change_ownership(|ownership, view| {
                    ownership.standby();
                    staying = ownership.staying(view);
                });
                let answer = match self.staying_text(&staying) {
                    None => {
                        done("this node is on standby: every group that another node may run is handed over")
                    }
                    Some(said) => Answer::TimedOut(format!(
                        "this node is on standby; these groups go as soon as another node can take them: {said}"
                    )),
                };
                self.answer(asker, answer);
            }
            NativeOrder::Online => {
                self.change_ownership(|ownership, _| ownership.online());
                self.groups.forgive(&mut self.hands);
                self.answer(asker, done("this node takes groups again"));
            }
            NativeOrder::Maintenance(on) => {
                self.pin(None, on, user);
                let text =
                    if on { "nothing is started, stopped or moved any more" } else { "maintenance is over" };
                self.answer(asker, done(text));
            }
            NativeOrder::Freeze(group, on) => {
                self.pin(Some(group), on, user);
                self.answer(
                    asker,
                    done(if on { "the group is frozen" } else { "the group is no longer frozen" }),
                );
            }
            NativeOrder::Leave => {
                self.change_ownership(|ownership, _| ownership.leave(Some(asker)));
                self.freeze_groups();
            }
        }
    }

    /// The groups that stay, each with the reason, on one line; `None` if no group stays.
    fn staying_text(&self, staying: &[(GroupIndex, String)]) -> Option<String> {
        let said =
            |(group, why): &(GroupIndex, String)| format!("{} ({why})", self.plan.groups[group.0].name);
        let mut shown: Vec<String> = staying.iter().take(STAYING_NAMED_MAX).map(said).collect();
        let rest = staying.len() - shown.len();
        if rest > 0 {
            shown.push(format!("{rest} more"));
        }
        (!shown.is_empty()).then(|| shown.join(", "))
    }

    fn order_move(&mut self, id: OrderId, group: GroupIndex, to: Option<NodeIndex>) {
        let group_id = self.ids[group.0];
        let owns = self.member.claimant().is_some_and(|claimant| claimant.held(self.now, group_id).is_some());
        if owns {
            return self
                .change_ownership(|ownership, view| ownership.give(view, group, to, Some(Asker::Here(id))));
        }
        let owner = self.member.owner_elsewhere(group_id).map(|claim| claim.owner());
        match owner.filter(|owner| self.hears(*owner)) {
            Some(owner) => {
                let to = to.map(MemberIndex::from);
                self.passed.insert(id, self.now + MOVE_MAX);
                self.send(Receivers::One(owner), NativeMessage::AskMove { order: id, group: group_id, to });
            }
            None => {
                let why =
                    self.blocked_reason(self.now, group).map(|why| format!(": {why}")).unwrap_or_default();
                self.answer(
                    Asker::Here(id),
                    Answer::Refused(format!("this member knows no owner of it now{why}")),
                );
            }
        }
    }

    fn answer(&mut self, asker: Asker, answer: Answer) {
        let (to, order) = match asker {
            Asker::Here(order) => return self.hands.push_back(action::Action::Reply { order, answer }),
            Asker::At(member, order) => (member, order),
        };
        let (done, text) = match answer {
            Answer::Done(text) => (true, text),
            Answer::Refused(text) | Answer::TimedOut(text) => (false, text),
        };
        self.send(Receivers::One(to), NativeMessage::MoveAnswer { order, done, text });
    }

    // ---- consequences ----------------------------------------------------

    /// What ownership needs to see, for a question at `now`.
    fn view(&self, now: Instant, me: NodeIndex) -> NativeView<'_> {
        NativeView {
            now,
            plan: &self.plan,
            me,
            member: &self.member,
            ids: &self.ids,
            index: &self.index,
            nodes: &self.views[..self.plan.nodes.len()],
            groups: &self.groups,
            gossip: &self.gossip,
        }
    }

    fn change_ownership(&mut self, change: impl FnOnce(&mut Ownership, &NativeView<'_>)) {
        self.tell_touched();
        let Some(me) = self.node() else { return };
        let view = NativeView {
            now: self.now,
            plan: &self.plan,
            me,
            member: &self.member,
            ids: &self.ids,
            index: &self.index,
            nodes: &self.views[..self.plan.nodes.len()],
            groups: &self.groups,
            gossip: &self.gossip,
        };
        self.due_to_look = true;
        change(&mut self.ownership, &view);
    }

    /// Tells ownership of which groups the claims have changed.
    fn tell_touched(&mut self) {
        let touched = self.member.take_touched();
        if touched.extended {
            self.gates_due.extend(self.gates.keys());
        }
        for id in touched.groups {
            let Some(group) = self.index(id) else { continue };
            self.gates_due.insert(group);
            self.ownership.touch(group);
        }
    }

    fn node(&self) -> Option<NodeIndex> {
        match self.plan.me {
            plan::NativeMember::Node(node) => Some(node),
            plan::NativeMember::Witness(_) => None,
        }
    }

    /// Passes results between claims, groups and ownership until none has anything new.
    fn settle(&mut self) {
        loop {
            // Each decision is performed before the next one is made.
            if let Some(step) = self.ownership.poll() {
                self.perform(step);
            } else if let Some(notice) = self.member.poll() {
                self.change_ownership(|ownership, view| ownership.noticed(view, &notice));
            } else if let Some(news) = self.groups.next_event() {
                self.change_ownership(|ownership, view| match news {
                    GroupEvent::Started(group) => ownership.started(group),
                    GroupEvent::Failed(group) => ownership.failed(view, group),
                    GroupEvent::Restarting(group) => ownership.touch(group),
                    GroupEvent::Stopped(group) => ownership.stopped(view, group),
                    GroupEvent::StopFailed(group) => ownership.stop_failed(view, group),
                });
            } else if core::mem::take(&mut self.due_to_look) {
                self.change_ownership(Ownership::tick);
                self.due_to_look = false;
            } else {
                break;
            }
        }
        self.tell_running();
        self.tell_touched();
        self.shut_gates_of_addresses();
        for group in core::mem::take(&mut self.gates_due) {
            self.tell_gate(group);
        }
        if let Some(durable) = self.member.write() {
            self.hands.push_back(action::Action::Write(durable));
        }
        let envelopes = Envelope::joined(self.member.take_out());
        self.expect_proposed(&envelopes);
        // A group's gate is shut before its release is sent.
        self.out.extend(self.hands.drain(..).map(NodeAction::Hands));
        self.out.extend(self.announcements.drain(..));
        for Envelope { to, message } in envelopes {
            self.send(to, NativeMessage::Claims(message));
        }
        if !self.left && self.ownership.is_leaving() && self.has_let_go() {
            self.left = true;
            let clean = !(0..self.ids.len()).any(|group| self.groups.is_stop_failed(GroupIndex(group)));
            if !clean {
                let text = "leaving although a resource cannot be stopped; claims that could not be released end \
                            with their lease";
                self.note(Level::Critical, None, text.into());
                self.out.extend(self.hands.drain(..).map(NodeAction::Hands));
            }
            self.out.push_back(NodeAction::Hands(action::Action::Exit { clean, restart: None, keeps: None }));
        }
    }

    fn perform(&mut self, step: NativeStep) {
        let now = self.now;
        match step {
            NativeStep::Claim(group) => self.member.claim(now, self.ids[group.0], false),
            NativeStep::Release(group, successor) => {
                let phase = self.groups.phase(group);
                assert!(
                    phase == GroupPhase::Stopped,
                    "{}: released, and it is {phase:?}",
                    self.groups.key(group)
                );
                // What failed was stopped without being told to.
                self.shut_gate(group);
                assert!(
                    !self.gates.contains_key(&group),
                    "{}: released with its gate open",
                    self.groups.key(group)
                );
                self.member.release(now, self.ids[group.0], successor.map(MemberIndex::from));
                self.due_to_look = true;
            }
            NativeStep::Start(group, epoch) => {
                let held = self.member.claimant().and_then(|claimant| claimant.held(now, self.ids[group.0]));
                let owned = held.map(|held| held.epoch);
                assert!(owned == Some(epoch), "{}: started and not owned", self.groups.key(group));
                self.closing.remove(&group);
                self.gates.entry(group).or_default();
                self.tell_gate(group);
                self.groups.want_under(group, Some(epoch.into()), &mut self.hands);
            }
            NativeStep::Stop(group) => {
                let lost = self.member.claimant().is_none_or(|c| c.held(now, self.ids[group.0]).is_none());
                if self.gates.contains_key(&group) {
                    self.closing.insert(group);
                }
                if lost || breakage::is(Breakage::GateShutBeforeStop) {
                    // The kernel has shut it by now: its lease has ended.
                    self.shut_gate(group);
                }
                if lost {
                    // Another node will run it: even a frozen group must stop.
                    self.groups.freeze(group, false, now, &mut self.hands);
                }
                self.groups.want(group, false, &mut self.hands);
            }
            NativeStep::Moved(group, epoch) => {
                let rule = self.plan.groups[group.0].hold_down;
                let entry = self.gossip.moved(now, self.ids[group.0], epoch, &rule);
                self.note_entry(&entry);
                self.apply_pins();
                self.send_gossip(Receivers::All, alloc::vec![entry]);
            }
            NativeStep::Answer(order, answer) => self.answer(order, answer),
            NativeStep::Note(level, group, text) => self.note(level, group, text),
        }
    }

    fn freeze_groups(&mut self) {
        for group in (0..self.ids.len()).map(GroupIndex) {
            // A freeze does not hold for a group that is lost, which is being stopped, nor on a node that leaves and
            // stops all.
            let held = self.member.claimant().and_then(|c| c.held(self.now, self.ids[group.0])).is_some();
            let frozen = held && self.ownership.is_frozen(group) && !self.ownership.is_leaving();
            self.groups.freeze(group, frozen, self.now, &mut self.hands);
        }
    }

    fn tell_running(&mut self) {
        for group in self.groups.changed() {
            self.ownership.touch(group);
            let runs = self.groups.phase(group) != GroupPhase::Stopped;
            self.member.set_running(self.ids[group.0], runs);
            if self.groups.is_stop_failed(group) {
                self.stop_failed.insert(group);
            } else {
                self.stop_failed.remove(&group);
            }
        }
    }

    /// Shuts the gate of a group that is stopped while it is ours right before its last address is taken away. Until
    /// then its services finish with their clients.
    fn shut_gates_of_addresses(&mut self) {
        let Self { plan, gates, closing, hands, .. } = self;
        if closing.is_empty() {
            return;
        }
        let mut shut = |action: &action::Action| {
            let action::Action::Run { resource, operation: action::Operation::Stop, .. } = action else {
                return None;
            };
            let ResourceId { group, member } = *resource;
            let mut resources = plan.groups[group.0].resources.iter();
            let last = resources.position(|own| matches!(own.runs.agent, Agent::Address(_)));
            let closes = last == Some(member) && closing.remove(&group);
            let was_told = closes && gates.remove(&group).flatten().is_some();
            was_told.then_some(action::Action::Gate { group, lease: None })
        };
        let todo = hands.drain(..).flat_map(|action| [shut(&action), Some(action)]).flatten();
        *hands = todo.collect();
    }

    /// Shuts a gate until the group is started again.
    fn shut_gate(&mut self, group: GroupIndex) {
        self.closing.remove(&group);
        if self.gates.remove(&group).flatten().is_some() {
            self.hands.push_back(action::Action::Gate { group, lease: None });
        }
    }

    /// Gives the gate its group's lease, as long as the group should run.
    fn tell_gate(&mut self, group: GroupIndex) {
        let Some(told) = self.gates.get_mut(&group) else { return };
        let held = self.member.claimant().and_then(|claimant| claimant.held(self.now, self.ids[group.0]));
        let lease = held.map(|held| GateLease {
            until: held.until,
            sent: self.member.settings().lease.sent(held.until),
            ballot: held.claim.ballot,
        });
        if let Some(lease) = lease {
            assert!(lease.until > self.now, "a gate is to be open under a lease that has ended");
            assert!(lease.sent < lease.until, "a lease ends before it begins");
            let before = told.filter(|told| told.ballot == lease.ballot);
            assert!(before.is_none_or(|before| before.until <= lease.until), "a gate's lease was shortened");
        }
        if lease != *told {
            let ballot = lease.map(|lease| lease.ballot);
            let owned = ballot.filter(|ballot| Some(*ballot) != told.map(|told| told.ballot));
            *told = lease;
            self.hands.push_back(action::Action::Gate { group, lease });
            owned.into_iter().for_each(|ballot| self.expect_owned(group, ballot));
        }
        self.announce_new(group);
    }

    /// Whether nothing is owned here and nothing runs, except for what cannot be stopped.
    fn has_let_go(&self) -> bool {
        let kept = |group: GroupIndex| self.ownership.is_left_behind(&self.groups, group);
        let is_owned = |id: GroupId| self.index(id).is_none_or(|group| !kept(group));
        let owns = self
            .member
            .claimant()
            .is_some_and(|claimant| claimant.holds(self.now).map(|(id, _)| id).any(is_owned));
        let runs = |group: GroupIndex| {
            !matches!(self.groups.phase(group), GroupPhase::Stopped) && !self.groups.is_stop_failed(group)
        };
        !owns && !(0..self.ids.len()).map(GroupIndex).any(runs)
    }

    // ---- helpers ---------------------------------------------------------

    fn index(&self, id: GroupId) -> Option<GroupIndex> {
        self.index.get(&id).copied()
    }

    fn is_node(&self, member: MemberIndex) -> bool {
        self.plan.node(member).is_some()
    }

    fn name(&self, member: usize) -> alloc::borrow::Cow<'_, str> {
        let node = self.plan.nodes.get(member).map(|node| node.name.as_str());
        let witness =
            || self.plan.witnesses.get(member - self.plan.nodes.len()).map(|witness| witness.name.as_str());
        node.or_else(witness).unwrap_or("nobody").into()
    }

    fn send(&mut self, to: Receivers, message: NativeMessage) {
        self.out.push_back(NodeAction::Send { to, word: message });
    }

    /// The epoch under which the group is ours; else the one under which it ran here last.
    pub(in crate::native) fn epoch(&self, group: GroupIndex) -> Option<claim::Epoch> {
        let held = self.member.claimant().and_then(|claimant| claimant.held(self.now, self.ids[group.0]));
        held.map(|held| held.epoch.into()).or_else(|| self.groups.epoch(group).cloned())
    }

    fn note(&mut self, level: Level, group: Option<GroupIndex>, text: String) {
        let epoch = group.and_then(|group| self.epoch(group));
        let group = group.map(|group| self.plan.groups[group.0].name.clone());
        self.hands.push_back(action::Action::Note(Note { level, group, epoch, text }));
    }
}
