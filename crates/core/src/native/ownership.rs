//! Which groups this node should claim, keep, hand over or leave to others, in the native dialect. This module only keeps
//! books, as [`crate::r1::ownership`] does for heartbeat's dialect: it is told what was granted and what has stopped, and
//! answers with [`NativeStep`]s. The voters decide who *may* own a group ([`crate::claims`]). Who *should* own it is decided here,
//! by the same function on every node ([`placement`]).
//!
//! ```text
//!  free ──my turn──► claiming ──granted──► ours: start ──► running
//!   ▲                   │ refused: wait                       │ move, standby, failure, failback
//!   │                   ▼                                     ▼
//!   └────────────── released ◄──────stopped───────────── giving (or lapsed)
//! ```
//!
//! A planned move names its successor in the release. The successor claims at once, and no node waits for a lease.
//!
//! Groups that stay together are a family, and move as one: all of it is stopped, then all of it is released, to one
//! successor. Two nodes must never run parts of it. So its first group is claimed first; the owner of that group claims the
//! rest; and nothing of the family is started before all of it is owned.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::{String, ToString as _},
    sync::Arc,
    vec::Vec,
};

use super::{
    canonical::Dispute,
    gossip::{GossipState, HeldDown},
    placement::{self, Rank, Scene},
    plan::{Failback, NativePlan},
    status::{BlockedCandidate, CandidateReason, Disputed},
};
use crate::{
    claims::{ClaimEvent, ClaimMember, ClaimNotice, Claimant},
    group::{GroupPhase, Groups},
    model::{
        breakage::{self, Breakage},
        claim::{Ballot, GroupId},
        identity::{GroupIndex, MemberIndex, NodeIndex},
        note::Level,
        order::{Answer, Asker},
        time::{Duration, Instant},
        timer_queue::TimerQueue,
    },
};

mod giving;

/// How long a node does not try a group again after a failed start or too many failed monitors, unless a person asks.
pub const UNABLE: Duration = Duration::from_secs(600);
/// After this long, a held group (too many failures) that fails is started again.
pub const HELD_DOWN_PAUSE: Duration = Duration::from_secs(30);
/// How long a group that is to be handed over waits for a node that can take it; twice the mute time if that is longer.
pub const TAKER_WAIT: Duration = Duration::from_secs(30);
/// After this long, a group that is no longer ours and could not be stopped is told to stop again.
pub const STOP_FAILED_PAUSE: Duration = Duration::from_secs(30);

/// What [`Ownership`] wants done, for [`Ownership::poll`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NativeStep {
    Claim(GroupIndex),
    /// Give the group's claim back, perhaps for a named successor. Nothing of the group runs here.
    Release(GroupIndex, Option<NodeIndex>),
    /// Start the group under this epoch.
    Start(GroupIndex, Ballot),
    /// Stop the group; its gate is shut first.
    Stop(GroupIndex),
    /// Record that a failure ends our ownership of this epoch.
    Moved(GroupIndex, Ballot),
    /// Answer the person who asked.
    Answer(Asker, Answer),
    /// A line for the log, perhaps about a group.
    Note(Level, Option<GroupIndex>, String),
}

/// What this node knows of one node, itself included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Heard within its lease; always true of this node.
    pub up: bool,
    /// Since when it has been up without a break.
    pub since: Instant,
    /// It should run nothing: a person put it on standby, or it is about to leave.
    pub standby: bool,
    /// Since when it has said without a break that it could claim a group. Not used for this node.
    pub ready_since: Option<Instant>,
    /// The groups that it could not run.
    pub unable: BTreeSet<GroupIndex>,
    /// The groups that clients could not reach there.
    pub unreachable: BTreeSet<GroupIndex>,
    /// Those of `cut` that have been so for long enough to act on it. Known of this node only.
    pub unreachable_for_long: BTreeSet<GroupIndex>,
    /// The groups of which its file gives a resource to another group.
    pub disputes: BTreeMap<GroupIndex, Dispute>,
    /// Whether it may still own groups of its file: it was heard within a lease and its margin.
    pub may_own: bool,
}

impl NodeView {
    /// Whether it is up and could claim a group now.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.up && self.ready_since.is_some()
    }
}

/// What [`Ownership`] reads of the rest of the node.
#[derive(Clone, Copy, Debug)]
pub struct NativeView<'a> {
    pub now: Instant,
    pub plan: &'a NativePlan,
    pub me: NodeIndex,
    /// The state of the claims protocol.
    pub member: &'a ClaimMember,
    /// The ids by which voters know the groups, in the order of the plan.
    pub ids: &'a [GroupId],
    /// The index of each group in that order.
    pub index: &'a BTreeMap<GroupId, GroupIndex>,
    pub nodes: &'a [NodeView],
    /// What runs on this node.
    pub groups: &'a Groups,
    /// The gossip state: pins and moves by failure.
    pub gossip: &'a GossipState,
}

/// The owner of a group, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerStatus {
    /// This node holds the claim.
    Us,
    /// A living node says that it owns the group.
    Lives(NodeIndex),
    /// No living node says so, but our own vote is granted to this node until then.
    Granted(NodeIndex, Instant),
}

impl OwnerStatus {
    const fn node(self, me: NodeIndex) -> NodeIndex {
        match self {
            Self::Us => me,
            Self::Lives(node) | Self::Granted(node, _) => node,
        }
    }
}

impl NativeView<'_> {
    fn owner(&self, group: GroupIndex) -> Option<OwnerStatus> {
        let id = self.ids[group.0];
        if self.holds(group).is_some() {
            return Some(OwnerStatus::Us);
        }
        let lives = |node: &NodeIndex| self.nodes.get(node.0).is_some_and(|node| node.up);
        let says =
            self.member.owner_elsewhere(id).and_then(|claim| self.plan.node(claim.owner())).filter(lives);
        let granted = || {
            let (claim, until) = self.member.voter()?.holder(id)?;
            let granted = OwnerStatus::Granted(self.plan.node(claim.owner())?, until);
            (until > self.now && claim.owner() != self.member.settings().me).then_some(granted)
        };
        says.map(OwnerStatus::Lives).or_else(granted)
    }

    /// The node whose file gives a resource of one of these groups to another group, which that node may own as long as
    /// it lives. Voters know groups by name, and would grant both.
    pub(super) fn disputed(&self, groups: &[GroupIndex]) -> Option<Disputed> {
        let nodes =
            self.nodes.iter().enumerate().filter(|(_, node)| node.may_own && !node.disputes.is_empty());
        nodes.flat_map(|(index, node)| groups.iter().map(move |group| (index, node, group))).find_map(
            |(index, node, group)| {
                let Dispute { resource, group } = node.disputes.get(group)?.clone();
                Some(Disputed { node: self.plan.nodes[index].name.clone(), resource, group })
            },
        )
    }

    fn holds(&self, group: GroupIndex) -> Option<Ballot> {
        let held = self.member.claimant()?.held(self.now, self.ids[group.0])?;
        Some(held.epoch)
    }

    fn at_rest(&self, group: GroupIndex) -> bool {
        self.groups.phase(group) == GroupPhase::Stopped
    }

    fn runs(&self, group: GroupIndex) -> bool {
        self.groups.phase(group) == GroupPhase::Running
    }

    fn held_down(&self, group: GroupIndex) -> Option<HeldDown> {
        self.gossip.held_down(self.now, self.ids[group.0], &self.plan.groups[group.0].hold_down)
    }
}

/// The state of a group that this node is handing over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Giving {
    to: Option<NodeIndex>,
    order: Option<Asker>,
    /// A resource of it failed here too often.
    failed: bool,
}

/// A handover that waits for a node that can claim the group and where clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    to: Option<NodeIndex>,
    order: Option<Asker>,
    /// Why it waits. `since`: since when.
    why: String,
    since: Instant,
    /// Until when the person who asked waits for an answer. `None`: the answer was given, and the group waits on as
    /// long as this node is on standby.
    until: Option<Instant>,
}

/// What this node remembers of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Desk {
    /// The group was seen to have an owner since this daemon started.
    had_owner: bool,
    /// A handover that waits for a node that can take the group.
    wish: Option<Wish>,
    /// Since when no owner is known.
    free_since: Option<Instant>,
    /// The group is not claimed earlier.
    not_before: Instant,
    /// Refusals by the voters in a row.
    refusals: u32,
    /// Our lease ended before the group was stopped.
    lapsed: bool,
    giving: Option<Giving>,
    /// Its claim is being given back.
    released: bool,
    /// Its last owner released it to this node by name, so the next turn is ours.
    named: bool,
    /// The group is held and failed; it is not started earlier.
    retry_at: Option<Instant>,
    /// It was to be handed over and could not be stopped. Only a person moves it now.
    stays: bool,
    /// When to try again to stop it: it could not be stopped after it was lost.
    stop_at: Option<Instant>,
    /// A person has frozen it.
    frozen: bool,
    /// When this node became its owner; means nothing while it is not.
    gained: Instant,
}

/// The state from which [`NativeStep`]s follow: what this node remembers of its groups and of people's requests.
#[derive(Debug)]
pub struct Ownership {
    desks: Vec<Desk>,
    /// By group: its family, itself included, in order.
    families: Vec<Arc<[GroupIndex]>>,
    /// The groups that could not be run here, and until when they are not tried again.
    unable: BTreeMap<GroupIndex, Instant>,
    /// When [`Self::tick`] has something to do, as computed by the last one.
    next: Option<Instant>,
    /// The groups for which something may have changed since the last [`Self::tick`]; with `all_touched` all. A tick
    /// looks only at these, and at those whose time has come. A change to one group does not affect the rest.
    touched: BTreeSet<GroupIndex>,
    all_touched: bool,
    /// When to look at each group again.
    looks: TimerQueue<GroupIndex>,
    /// By group: the groups to look at when it changes, itself included.
    relatives: Vec<Arc<[GroupIndex]>>,
    /// By group: whether its ranking depends on the places of others, or theirs on its place.
    is_related: Vec<bool>,
    /// The groups whose owner may have changed since the last ranking.
    owners_due: BTreeSet<GroupIndex>,
    all_owners_due: bool,
    /// Whether the groups that nodes cannot run may have changed since the last ranking. `hindrances_until`: when they
    /// change by time alone.
    unable_due: bool,
    unable_until: Option<Instant>,
    /// When our vote's grants to others end.
    grants: TimerQueue<GroupIndex>,
    /// Counts how many groups were looked at.
    #[cfg(test)]
    pub(super) looked: usize,
    /// Counts how often the groups that nodes cannot run were gathered.
    #[cfg(test)]
    pub(super) gathered: usize,
    standby: bool,
    /// Nothing is claimed before the links are tested.
    waits_for_links: bool,
    /// Nothing is claimed before the gossip state of the others is known.
    waits_for_gossip: bool,
    /// Nothing is claimed before it is known which resources the others' files give to which groups.
    waits_for_files: bool,
    leaving: Option<Option<Asker>>,
    random: u64,
    /// The groups that the last [`Self::tick`] asked to claim.
    claims: BTreeSet<GroupIndex>,
    /// The last ranking, and what it was made from.
    ranking: Option<(Scene, Vec<Rank>)>,
    steps: VecDeque<NativeStep>,
}

impl Ownership {
    /// The state of a node that owns nothing. `seed`: any number; spreads the waits after collisions.
    #[must_use]
    pub fn new(plan: &NativePlan, seed: u64) -> Self {
        Self {
            desks: plan.groups.iter().map(|_| Desk::default()).collect(),
            relatives: placement::relatives(plan),
            is_related: placement::are_related(plan),
            families: placement::families(plan),
            unable: BTreeMap::new(),
            next: None,
            touched: BTreeSet::new(),
            all_touched: true,
            looks: TimerQueue::new(),
            owners_due: BTreeSet::new(),
            all_owners_due: true,
            unable_due: true,
            unable_until: None,
            grants: TimerQueue::new(),
            #[cfg(test)]
            looked: 0,
            #[cfg(test)]
            gathered: 0,
            standby: false,
            waits_for_links: false,
            waits_for_gossip: false,
            waits_for_files: false,
            leaving: None,
            random: seed | 1,
            claims: BTreeSet::new(),
            ranking: None,
            steps: VecDeque::new(),
        }
    }

    /// Marks a group: its owner, what runs of it, or what this node remembers of it may have changed.
    pub fn touch(&mut self, group: GroupIndex) {
        self.owners_due.insert(group);
        self.touched.extend(self.relatives[group.0].iter().copied());
    }

    /// Marks all groups: something has changed that does not belong to single groups, such as which nodes live.
    pub const fn touch_all(&mut self) {
        self.all_touched = true;
        self.all_owners_due = true;
        self.unable_due = true;
    }

    /// The next step to perform, oldest first.
    pub fn poll(&mut self) -> Option<NativeStep> {
        self.steps.pop_front()
    }

    /// Whether this node should run nothing: it is on standby or leaves.
    #[must_use]
    pub const fn is_standby(&self) -> bool {
        self.standby || self.leaving.is_some()
    }

    /// Sets whether nothing is claimed because the links are not tested.
    pub const fn wait_for_links(&mut self, wait: bool) {
        self.waits_for_links = wait;
    }

    /// Sets whether nothing is claimed because the gossip state of others is not known. Returns whether that changed.
    pub const fn wait_for_gossip(&mut self, wait: bool) -> bool {
        core::mem::replace(&mut self.waits_for_gossip, wait) != wait
    }

    /// Sets whether nothing is claimed because others' files are not known. Returns whether that changed.
    pub const fn wait_for_files(&mut self, wait: bool) -> bool {
        core::mem::replace(&mut self.waits_for_files, wait) != wait
    }

    /// Whether everything is being given up, after [`Self::leave`].
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether nothing is claimed because the links are not tested yet.
    pub(super) const fn waits_for_links(&self) -> bool {
        self.waits_for_links
    }

    /// Whether nothing is claimed because the others' gossip state is not known yet.
    pub(super) const fn waits_for_gossip(&self) -> bool {
        self.waits_for_gossip
    }

    /// Whether nothing is claimed because the others' files are not known yet.
    pub(super) const fn waits_for_files(&self) -> bool {
        self.waits_for_files
    }

    /// The group's family, itself included, in order.
    pub(super) fn family(&self, group: GroupIndex) -> &[GroupIndex] {
        &self.families[group.0]
    }

    /// The groups that must not be on the same node as this one.
    fn kept_away(&self, plan: &NativePlan, group: GroupIndex) -> Vec<GroupIndex> {
        placement::kept_away(plan, &self.families, group)
    }

    /// The groups that could not be run here and are not tried again yet.
    pub fn unable(&self, now: Instant) -> impl Iterator<Item = GroupIndex> {
        self.unable.iter().filter(move |(_, until)| **until > now).map(|(group, _)| *group)
    }

    /// Whether the group is among [`Self::unable`].
    #[must_use]
    pub fn is_unable(&self, now: Instant, group: GroupIndex) -> bool {
        self.unable.get(&group).is_some_and(|until| *until > now)
    }

    /// When [`Self::tick`] has something to do. Every other call that changes this state needs a tick, too, before the
    /// answer is right again; several calls may share one.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    // ---- what a person asks for ------------------------------------------

    /// Hands everything over and takes nothing until [`Self::online`].
    pub const fn standby(&mut self) {
        self.standby = true;
        self.touch_all();
    }

    /// The groups of ours that stay here for now although other nodes may run them, each with the reason. They go when
    /// the reason ends.
    pub fn staying(&mut self, view: &NativeView<'_>) -> Vec<(GroupIndex, String)> {
        self.rank(view);
        let others =
            |group: GroupIndex| view.plan.groups[group.0].candidates.iter().any(|node| *node != view.me);
        let all = (0..self.desks.len()).map(GroupIndex);
        let ours = all.filter(|group| view.holds(*group).is_some() && self.desks[group.0].giving.is_none());
        ours.filter(|group| others(*group))
            .filter_map(|group| {
                let waits = self.desks[group.0].wish.is_some();
                let may = if waits { Ok(()) } else { self.may_give(view, group, None) };
                may.and_then(|()| self.taker(view, group, None)).err().map(|why| (group, why))
            })
            .collect()
    }

    /// Takes groups again, and tries again to run or stop what could not be run or stopped here.
    pub fn online(&mut self) {
        self.standby = false;
        self.touch_all();
        self.unable.clear();
        for desk in &mut self.desks {
            desk.retry_at = None;
            desk.stop_at = desk.stop_at.map(|_| Instant::ZERO);
        }
    }

    /// Whether the group is frozen, by its own pin, by one of its family, or by maintenance.
    #[must_use]
    pub fn is_frozen(&self, group: GroupIndex) -> bool {
        self.desks[group.0].frozen
    }

    /// Sets which groups are frozen, from the pins as they are now. If one group of a family is pinned, all of the
    /// family is frozen.
    pub fn freeze(&mut self, is_pinned: impl Fn(GroupIndex) -> bool) {
        for (desk, family) in self.desks.iter_mut().zip(&self.families) {
            desk.frozen = family.iter().any(|group| is_pinned(*group));
        }
    }

    /// Hands everything over for good, because this node leaves.
    pub const fn leave(&mut self, order: Option<Asker>) {
        self.leaving = Some(order);
        self.touch_all();
    }

    // ---- what happens ----------------------------------------------------

    /// Takes a notice of the claims protocol.
    pub fn noticed(&mut self, view: &NativeView<'_>, notice: &ClaimNotice) {
        let index = |id: &GroupId| view.index.get(id).copied();
        let (ClaimNotice::Own(
            ClaimEvent::Gained(id, _)
            | ClaimEvent::Cleared(id, _)
            | ClaimEvent::Lost(id)
            | ClaimEvent::Refused(id, _),
        )
        | ClaimNotice::Released(id, ..)) = notice;
        index(id).into_iter().for_each(|group| self.touch(group));
        match notice {
            ClaimNotice::Own(ClaimEvent::Gained(id, epoch)) => {
                let Some(group) = index(id) else { return };
                let desk = &mut self.desks[group.0];
                assert!(!desk.lapsed, "{id:?}: gained before what was lost is stopped");
                *desk = Desk { frozen: desk.frozen, gained: view.now, had_owner: true, ..Desk::default() };
                let text = format!("is ours under epoch {}.{}", epoch.round, epoch.node.0);
                self.note(Level::Info, Some(group), text);
            }
            ClaimNotice::Own(ClaimEvent::Lost(id)) => {
                let Some(group) = index(id) else { return };
                let wish = self.desks[group.0].wish.take();
                self.refuse(view, group, wish.and_then(|wish| wish.order), "it was lost meanwhile");
                self.desks[group.0].lapsed = true;
                let text = match view.owner(group) {
                    Some(OwnerStatus::Lives(node)) => {
                        let name = &view.plan.nodes[node.0].name;
                        format!("is lost: {name} owns it under a higher epoch; stopping it")
                    }
                    _ => "was lost: the lease ended before a majority renewed it; stopping it".into(),
                };
                self.note(Level::Critical, Some(group), text);
                if view.at_rest(group) {
                    self.came_to_rest(view, group);
                } else {
                    self.steps.push_back(NativeStep::Stop(group));
                }
            }
            ClaimNotice::Own(ClaimEvent::Refused(id, wait)) => {
                let Some(group) = index(id) else { return };
                self.refused(view, group, *wait);
            }
            ClaimNotice::Own(ClaimEvent::Cleared(..)) => {}
            ClaimNotice::Released(id, _, successor) => {
                let Some(group) = index(id) else { return };
                let desk = &mut self.desks[group.0];
                let me = MemberIndex::from(view.me);
                desk.free_since = Some(view.now);
                desk.named = *successor == Some(me);
                desk.refusals = 0;
                // In a family only the turn of the first group counts.
                let follows = self.families[group.0][0] != group;
                let others_turn = successor.is_some_and(|named| named != me) && !follows;
                desk.not_before = if others_turn { view.now + view.plan.timing.rank_step } else { view.now };
            }
        }
    }

    /// Sets the next try after the voters have refused a claim: not before the grant against us ends, and not at the
    /// same moment as a rival.
    fn refused(&mut self, view: &NativeView<'_>, group: GroupIndex, wait: Duration) {
        let timing = &view.plan.timing;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let desk = &mut self.desks[group.0];
        let most = (timing.collision * (1 << desk.refusals.min(8))).min(timing.collision_max);
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).max(1);
        // If a running grant was the reason, there was no collision with a rival: our turn comes when the grant ends.
        let random = if wait.is_zero() { Duration::from_nanos(self.random % most) } else { Duration::ZERO };
        assert!(random <= timing.collision_max, "a node waits longer for a rival than it may");
        desk.refusals += u32::from(wait.is_zero());
        desk.not_before = view.now + wait + random;
        desk.named = false;
    }

    /// All of the group runs now.
    pub fn started(&mut self, group: GroupIndex) {
        self.touch(group);
        self.note(Level::Info, Some(group), "runs here".into());
    }

    /// The group could not be started or failed too often, and is stopped or being stopped. It is another node's turn,
    /// unless the group is held.
    pub fn failed(&mut self, view: &NativeView<'_>, group: GroupIndex) {
        self.touch(group);
        let owns = view.holds(group).is_some();
        if let Some(held) = view.held_down(group).filter(|_| owns && self.desks[group.0].giving.is_none()) {
            self.desks[group.0].retry_at = Some(view.now + HELD_DOWN_PAUSE);
            let text = format!(
                "could not be run here; failures have moved it too often: it is held for {} s more and started \
                 again here in {} s",
                held.until.since(view.now).as_secs(),
                HELD_DOWN_PAUSE.as_secs()
            );
            return self.note(Level::Error, Some(group), text);
        }
        self.unable.insert(group, view.now + UNABLE);
        self.unable_due = true;
        let text = format!("could not be run here; not tried again on this node for {} s", UNABLE.as_secs());
        self.note(Level::Error, Some(group), text);
        if owns && self.desks[group.0].giving.is_none() {
            self.rank(view);
            self.hand_over(view, group, Giving { failed: true, ..Giving::default() });
        } else if view.at_rest(group) {
            self.came_to_rest(view, group);
        }
    }

    /// Nothing of the group runs here any more.
    pub fn stopped(&mut self, view: &NativeView<'_>, group: GroupIndex) {
        self.desks[group.0].stays = false;
        self.came_to_rest(view, group);
    }

    /// Whether this node leaves and keeps the claim of a group because something of its family cannot be stopped. A
    /// claim is never released while something of its group may still run; it ends with its lease.
    #[must_use]
    pub fn is_left_behind(&self, groups: &Groups, group: GroupIndex) -> bool {
        self.leaving.is_some() && self.families[group.0].iter().any(|member| groups.is_stop_failed(*member))
    }

    /// The group cannot be stopped. A handover of it and its family is cancelled, unless this node leaves: then they
    /// are left behind.
    pub fn stop_failed(&mut self, view: &NativeView<'_>, group: GroupIndex) {
        self.touch(group);
        self.desks[group.0].stays = true;
        for member in self.families[group.0].iter().copied() {
            let giving = self.desks[member.0].giving.take();
            if let Some(Giving { order: Some(order), .. }) = giving {
                let text = "a resource cannot be stopped; it stays here".into();
                self.steps.push_back(NativeStep::Answer(order, Answer::Refused(text)));
            }
            let goes_on = self.leaving.is_none() && (giving.is_some() || member == group);
            if let Some(epoch) = view.holds(member).filter(|_| goes_on) {
                self.steps.push_back(NativeStep::Start(member, epoch));
            }
        }
    }

    fn came_to_rest(&mut self, view: &NativeView<'_>, group: GroupIndex) {
        self.touch(group);
        let desk = &mut self.desks[group.0];
        if view.at_rest(group) && core::mem::take(&mut desk.lapsed) {
            let giving = desk.giving.take();
            self.rank(view);
            self.release(view, group, giving);
        }
        let family = Arc::clone(&self.families[group.0]);
        let on_its_way = |member: &GroupIndex| {
            let desk = &self.desks[member.0];
            desk.giving.is_some() && !desk.lapsed
        };
        let mut given: Vec<GroupIndex> = family.iter().copied().filter(on_its_way).collect();
        if breakage::is(Breakage::FamilyGivenInParts) {
            given.retain(|member| view.at_rest(*member));
        }
        if given.iter().all(|member| view.at_rest(*member)) {
            self.rank(view);
            for member in given {
                let giving = self.desks[member.0].giving.take();
                self.release(view, member, giving);
            }
        }
    }

    /// Gives back a claim that is ours, or was.
    fn release(&mut self, view: &NativeView<'_>, group: GroupIndex, giving: Option<Giving>) {
        let best = self.ranking(group).iter().copied().find(|node| *node != view.me);
        let successor = giving.as_ref().and_then(|giving| giving.to).or(best).filter(|_| giving.is_some());
        assert!(view.at_rest(group), "{}: released before all of it was stopped", self.name(view, group));
        assert!(successor != Some(view.me), "{}: released to the node that has it", self.name(view, group));
        let Giving { order, failed, .. } = giving.unwrap_or_default();
        // If the group has only one candidate, nothing moves.
        if let Some(epoch) =
            view.holds(group).filter(|_| failed && view.plan.groups[group.0].candidates.len() > 1)
        {
            self.steps.push_back(NativeStep::Moved(group, epoch));
        }
        self.steps.push_back(NativeStep::Release(group, successor));
        let desk = &mut self.desks[group.0];
        desk.released = true;
        desk.free_since = Some(view.now);
        // The successor goes first. If it does not claim, this node is a candidate like any other.
        desk.not_before = view.now + view.plan.timing.lease;
        if let Some(order) = order {
            let to = successor.map_or("any node", |node| view.plan.nodes[node.0].name.as_str());
            let family = self.families[group.0].iter().map(|member| view.plan.groups[member.0].name.as_str());
            let names = family.collect::<Vec<_>>().join(", ");
            let verb = if self.families[group.0].len() > 1 { "are" } else { "is" };
            self.answer(order, Answer::Done(format!("{names} {verb} released to {to}")));
        }
    }

    /// Does what is due after time has passed or something has changed. Looks at the groups that have changed or whose
    /// time has come, in their order.
    pub fn tick(&mut self, view: &NativeView<'_>) {
        let unable = self.unable.len();
        self.unable.retain(|_, until| *until > view.now);
        let has_ended = self.unable.len() != unable;
        self.all_touched |= has_ended;
        self.unable_due |= has_ended;
        self.rank(view);
        self.claims.clear();
        let mut due = core::mem::take(&mut self.touched);
        due.extend(self.looks.due(view.now));
        // A hold after too many failures ends by time alone, which no call reports.
        due.extend(view.gossip.moved_groups().filter_map(|id| view.index.get(&id).copied()));
        let mut next = 0;
        loop {
            // A group that changes meanwhile is looked at in this tick if it comes later in the order, else in the next
            // tick.
            if core::mem::take(&mut self.all_touched) {
                due.extend((next..self.desks.len()).map(GroupIndex));
                self.touched.extend((0..next).map(GroupIndex));
            }
            due.append(&mut self.touched.split_off(&GroupIndex(next)));
            let Some(group) = due.pop_first() else { break };
            next = group.0 + 1;
            let at = self.look_at(view, group);
            self.looks.set(group, at);
        }
        assert!(
            self.ranking.as_ref().is_some_and(|(_, ranks)| ranks.len() == self.desks.len()),
            "not every group is ranked"
        );
        assert!(
            self.looks.first().is_none_or(|at| at > view.now),
            "a group is to be looked at that was just looked at"
        );
        self.next = self.looks.first().into_iter().chain(self.unable.values().min().copied()).min();
    }

    /// Looks at one group. Returns when to look again.
    fn look_at(&mut self, view: &NativeView<'_>, group: GroupIndex) -> Option<Instant> {
        #[cfg(test)]
        {
            self.looked += 1;
        }
        let Desk { wish, giving, .. } = &self.desks[group.0];
        assert!(
            wish.is_none() || giving.is_none(),
            "{}: waits for a taker, and has one",
            self.name(view, group)
        );
        let stop_at = self.stop_again(view, group);
        // A node that leaves stops even frozen groups.
        if self.is_frozen(group) && (self.leaving.is_none() || view.holds(group).is_none()) {
            self.desks[group.0].free_since = None;
            return stop_at;
        }
        let later = if view.holds(group).is_some() {
            self.look_at_own(view, group)
        } else {
            let waits = self.look_at_other(view, group);
            waits.or(Some(self.desks[group.0].not_before))
        };
        stop_at.into_iter().chain(later.filter(|at| *at > view.now)).min()
    }

    /// Repeats the stop of a group that could not be stopped and is no longer ours: a person may have removed the
    /// cause. Returns when to look again.
    fn stop_again(&mut self, view: &NativeView<'_>, group: GroupIndex) -> Option<Instant> {
        let desk = &mut self.desks[group.0];
        if !view.groups.is_stop_failed(group) || view.holds(group).is_some() {
            desk.stop_at = None;
            return None;
        }
        let at = *desk.stop_at.get_or_insert(view.now + STOP_FAILED_PAUSE);
        if at > view.now {
            return Some(at);
        }
        desk.stop_at = None;
        self.steps.push_back(NativeStep::Stop(group));
        None
    }

    /// Looks at a group of ours: whether it runs, and whether it should be here. Returns when to look again.
    fn look_at_own(&mut self, view: &NativeView<'_>, group: GroupIndex) -> Option<Instant> {
        if self.desks[group.0].giving.is_some() || self.desks[group.0].released {
            return None;
        }
        self.desks[group.0].had_owner = true;
        if self.is_left_behind(view.groups, group) {
            let wish = self.desks[group.0].wish.take();
            self.refuse(view, group, wish.and_then(|wish| wish.order), "it cannot be stopped here");
            return None;
        }
        if self.leaving.is_some() {
            // A group that no other node may run must stop, too; so this waits for no taker.
            self.hand_over(view, group, Giving::default());
            return None;
        }
        if self.desks[group.0].wish.is_some() {
            let at = self.look_at_wish(view, group);
            let Desk { wish, giving, released, .. } = &self.desks[group.0];
            if wish.is_some() || giving.is_some() || *released {
                return at;
            }
            // The handover is off. Everything else about the group has waited for it.
        }
        if self.standby {
            // A group that no other node may run stays here.
            if self.may_give(view, group, None).is_ok() {
                self.give(view, group, None, None);
            }
            return self.desks[group.0].wish.as_ref().and_then(|wish| wish.until);
        }
        let stays = self.desks[group.0].stays;
        let leader = self.families[group.0][0];
        if leader != group && view.holds(leader).is_none() && !stays {
            // A node that has lost the first group of a family gives back the rest. They belong to the node that claims
            // the first.
            self.desks[group.0].giving = Some(Giving::default());
            if !view.at_rest(group) {
                self.steps.push_back(NativeStep::Stop(group));
            }
            self.came_to_rest(view, group);
            return None;
        }
        let is_held_down = view.held_down(group).is_some();
        if view.at_rest(group) && (is_held_down || !self.unable.contains_key(&group)) {
            let retry_at = self.desks[group.0].retry_at.filter(|at| *at > view.now);
            if retry_at.is_some() {
                return retry_at;
            }
            self.desks[group.0].retry_at = None;
            self.start(view, group);
        }
        if self.is_misplaced(group) && view.runs(group) && !stays {
            if self.taker(view, group, None).is_ok() {
                self.give(view, group, None, None);
            }
            return None;
        }
        if view.runs(group) && !stays && self.is_better_connected(view, group) {
            let text =
                "clients do not reach it reliably on this node, but do on another one: handing it over";
            self.note(Level::Warning, Some(group), text.into());
            self.give(view, group, None, None);
            return None;
        }
        let Failback::After(healthy) = view.plan.groups[group.0].failback else { return None };
        if leader != group || is_held_down || stays {
            return None;
        }
        let all_run = || {
            self.families[group.0].iter().all(|member| view.holds(*member).is_none() || view.runs(*member))
        };
        let better = self.better_place(view, group).filter(|_| view.runs(group) && all_run())?;
        // The time counts from when the node could claim groups. A group that was just given to us, by a node or a
        // person, does not go back at once.
        let since = match view.nodes[better.0].ready_since {
            _ if breakage::is(Breakage::TakerNotAsked) => view.nodes[better.0].since,
            since => since?,
        };
        let at = since.max(self.desks[group.0].gained) + healthy;
        if at <= view.now && self.taker(view, group, Some(better)).is_ok() {
            self.give(view, group, Some(better), None);
        }
        Some(at)
    }

    /// Whether clients do not reach the group here, and would reach it on the best node.
    fn is_better_connected(&self, view: &NativeView<'_>, group: GroupIndex) -> bool {
        let best = self.ranking(group).first().copied();
        view.nodes[view.me.0].unreachable_for_long.contains(&group)
            && best.is_some_and(|best| best != view.me && !self.is_unreachable(group, best))
            && best.is_some_and(|best| self.unready(view, group, best).is_none())
    }

    /// Whether a group of the family is unreachable on that node, as of the last [`Self::rank`].
    fn is_unreachable(&self, group: GroupIndex, node: NodeIndex) -> bool {
        let scene = self.ranking.as_ref().map(|(scene, _)| scene);
        scene.is_some_and(|scene| {
            self.families[group.0].iter().any(|member| scene.unreachable.contains(&(node, *member)))
        })
    }

    /// A preferred node ranked above this one, if clients reach the group there.
    fn better_place(&self, view: &NativeView<'_>, group: GroupIndex) -> Option<NodeIndex> {
        let best = self.ranking(group).first().copied()?;
        let prefer = &view.plan.groups[group.0].prefer;
        (best != view.me && prefer.contains(&best) && !self.is_unreachable(group, best)).then_some(best)
    }

    fn start(&mut self, view: &NativeView<'_>, group: GroupIndex) {
        let runs = |other: GroupIndex| match view.owner(other) {
            Some(OwnerStatus::Us) => view.runs(other),
            owner => owner.is_some(),
        };
        let stays = |member: &GroupIndex| self.desks[member.0].giving.is_none();
        if let Some(epoch) = view.holds(group)
            && self.families[group.0].iter().all(stays)
            && (self.families[group.0].iter().all(|member| view.holds(*member).is_some())
                || breakage::is(Breakage::FamilyStartsInParts))
            && placement::waits_for(view.plan, group, runs).is_none()
        {
            let desk = &self.desks[group.0];
            assert!(!desk.lapsed && !desk.released, "{}: started, and not owned", self.name(view, group));
            self.steps.push_back(NativeStep::Start(group, epoch));
        }
    }

    /// Looks at a group that is not ours: whether it is free, and whether it is our turn. Returns when to look again;
    /// `None`: at `not_before`.
    fn look_at_other(&mut self, view: &NativeView<'_>, group: GroupIndex) -> Option<Instant> {
        let claiming = view.member.claimant().is_some_and(|claimant| claimant.is_claiming(view.ids[group.0]));
        let owner = view.owner(group);
        let desk = &mut self.desks[group.0];
        desk.released = false;
        if let Some(owner) = owner {
            desk.had_owner = true;
            desk.named = false;
            desk.free_since = None;
            if let OwnerStatus::Granted(_, until) = owner {
                // At that moment the group becomes free, and our turn is counted from it.
                desk.not_before = until;
            }
            return None;
        }
        let leader = self.families[group.0][0];
        let follows = leader != group;
        let waits = self.waits_for_links || self.waits_for_gossip || self.waits_for_files;
        let waits = waits || !view.member.may_claim(view.now) || view.disputed(self.family(group)).is_some();
        // If the first of the family is being handed over, the rest is claimed on the node where that goes.
        let leads_here = || view.holds(leader).is_some() && self.desks[leader.0].giving.is_none();
        let waits = waits || (follows && !leads_here());
        let desk = &mut self.desks[group.0];
        if waits {
            // Turns count from the moment at which this node may claim. Otherwise, in a cluster that was just switched
            // on, all nodes would take their turns at once.
            desk.free_since = None;
            return None;
        }
        let free_since = *desk.free_since.get_or_insert(view.now);
        let named = desk.named;
        let not_before = desk.not_before;
        if claiming
            || desk.lapsed
            || (self.unable.contains_key(&group) && view.held_down(group).is_none())
            || self.is_standby()
            || not_before > view.now
        {
            return None;
        }
        if !view.at_rest(group) {
            return None;
        }
        let rank = self.ranking(group).iter().position(|node| *node == view.me)?;
        let rank = if named || follows { 0 } else { u32::try_from(rank).unwrap_or(u32::MAX) };
        let turn = free_since + view.plan.timing.rank_step.saturating_mul(rank);
        if turn > view.now {
            let desk = &mut self.desks[group.0];
            desk.not_before = turn;
            return None;
        }
        if let Some(at) =
            self.preferred_turn(view, group, free_since).filter(|at| *at > view.now && !follows && !named)
        {
            return Some(at);
        }
        // The first of a family does not wait for groups that only its followers come after: they are started when that
        // group runs.
        let waits =
            placement::waits_for(view.plan, group, |other| view.owner(other).is_some()).filter(|_| !follows);
        // Each of two groups that must not meet may be free for us to claim, but not both.
        let is_asked_for = |other: &GroupIndex| {
            let claims = |claimant: &Claimant| claimant.is_claiming(view.ids[other.0]);
            self.claims.contains(other) || view.member.claimant().is_some_and(claims)
        };
        let kept_away = || placement::kept_away(view.plan, &self.families, group);
        if waits.is_none() && (follows || !kept_away().iter().any(is_asked_for)) {
            let name = self.name(view, group);
            assert!(!self.is_standby(), "{name}: claimed by a node on standby");
            assert!(view.holds(group).is_none() && owner.is_none(), "{name}: claimed, and it has an owner");
            assert!(!self.desks[group.0].lapsed, "{name}: claimed before what was lost is stopped");
            assert!(!self.is_frozen(group), "{name}: claimed while it is frozen");
            self.claims.insert(group);
            self.steps.push_back(NativeStep::Claim(group));
        }
        None
    }

    /// Until when a group that had no owner since our start waits for nodes that it prefers to this one: at most two
    /// mute times. So nodes that are switched on together claim one after the other.
    fn preferred_turn(
        &self,
        view: &NativeView<'_>,
        group: GroupIndex,
        free_since: Instant,
    ) -> Option<Instant> {
        let family = &self.families[group.0];
        if self.desks[group.0].had_owner || breakage::is(Breakage::FirstComeFirstServed) {
            return None;
        }
        let prefer = &view.plan.groups[family[0].0].prefer;
        let mut before_us = prefer.iter().copied().take_while(|node| *node != view.me);
        let comes = before_us.any(|node| {
            let known = &view.nodes[node.0];
            let hindered = known.standby || family.iter().any(|member| known.unable.contains(member));
            // A node that is up may still have to wait: voters that have just started grant nothing.
            !hindered
                && !self.is_unreachable(group, node)
                && (!known.up || self.ranking(group).contains(&node))
        });
        comes.then(|| free_since + view.plan.timing.mute * 2)
    }

    /// Ranks the nodes again if something changed that the ranking depends on.
    fn rank(&mut self, view: &NativeView<'_>) {
        let (mut scene, ranks) = match self.ranking.take() {
            Some((scene, ranks)) => (scene, Some(ranks)),
            None => {
                self.all_owners_due = true;
                self.unable_due = true;
                let owners = alloc::vec![None; view.plan.groups.len()];
                let (unable, cut) = (BTreeSet::new(), BTreeSet::new());
                (Scene { owners, available: Vec::new(), unable, unreachable: cut }, None)
            }
        };
        assert!(scene.owners.len() == self.desks.len(), "not of every group it is known who owns it");
        let moved = self.look_at_owners(view, &mut scene);
        let is_same = !self.look_at_nodes(view, &mut scene);
        let ranks = match ranks {
            Some(ranks) if is_same && !moved => ranks,
            old => {
                let ranks = placement::rank(view.plan, &scene);
                self.all_touched |= old.is_none_or(|old| old != ranks) || !is_same;
                ranks
            }
        };
        self.ranking = Some((scene, ranks));
    }

    /// Updates the owners in the scene. Returns whether a change affects any ranking. The place of a group without
    /// relations affects none, not even its own.
    fn look_at_owners(&mut self, view: &NativeView<'_>, scene: &mut Scene) -> bool {
        let due: Vec<GroupIndex> = match core::mem::take(&mut self.all_owners_due) {
            true => {
                self.owners_due.clear();
                (0..scene.owners.len()).map(GroupIndex).collect()
            }
            false => {
                core::mem::take(&mut self.owners_due).into_iter().chain(self.grants.due(view.now)).collect()
            }
        };
        let mut matters = false;
        for group in due {
            let owner = view.owner(group);
            let until = match owner {
                Some(OwnerStatus::Granted(_, until)) => Some(until),
                _ => None,
            };
            self.grants.set(group, until);
            let owner = owner.map(|owner| owner.node(view.me));
            let was = core::mem::replace(&mut scene.owners[group.0], owner);
            matters |= was != owner && self.is_related[group.0];
        }
        matters
    }

    /// The nodes that should have a group, best first, as of the last [`Self::rank`].
    pub(super) fn ranking(&self, group: GroupIndex) -> &[NodeIndex] {
        self.ranking.as_ref().map_or(&[], |(_, ranks)| &ranks[group.0].nodes)
    }

    fn is_misplaced(&self, group: GroupIndex) -> bool {
        self.ranking.as_ref().is_some_and(|(_, ranks)| ranks[group.0].is_misplaced)
    }

    /// Updates the nodes in the scene. Returns whether anything changed.
    fn look_at_nodes(&mut self, view: &NativeView<'_>, scene: &mut Scene) -> bool {
        let available = view.nodes.iter().enumerate().map(|(index, node)| match index == view.me.0 {
            true => !self.is_standby(),
            false => node.up && !node.standby,
        });
        let available: Vec<bool> = available.collect();
        let has_changed = scene.available != available;
        scene.available = available;
        self.look_at_unable(view, scene) || has_changed
    }

    /// Updates the groups that nodes cannot run. These may be all groups, so they are gathered again only if they may
    /// have changed.
    fn look_at_unable(&mut self, view: &NativeView<'_>, scene: &mut Scene) -> bool {
        let is_over = self.unable_until.is_some_and(|at| at <= view.now);
        if !core::mem::take(&mut self.unable_due) && !is_over {
            return false;
        }
        #[cfg(test)]
        {
            self.gathered += 1;
        }
        let nodes = || view.nodes.iter().enumerate().map(|(node, known)| (NodeIndex(node), known));
        let here = self.unable.iter().filter(|(_, until)| **until > view.now);
        let mut until = here.clone().map(|(_, until)| *until).min();
        let here = here.map(|(group, _)| (view.me, *group));
        let there = nodes().filter(|(node, _)| *node != view.me);
        let there = there.flat_map(|(node, known)| known.unable.iter().map(move |group| (node, *group)));
        // A held group must run somewhere, even on a node where it failed.
        let counts = |(_, group): &(NodeIndex, GroupIndex)| {
            let held = view.held_down(*group);
            until = held.as_ref().map(|held| held.until).into_iter().chain(until).min();
            held.is_none()
        };
        let unable: BTreeSet<_> = here.chain(there).filter(counts).collect();
        let cut = nodes().flat_map(|(node, known)| known.unreachable.iter().map(move |group| (node, *group)));
        let cut: BTreeSet<_> = cut.collect();
        self.unable_until = until;
        let has_changed = (&unable, &cut) != (&scene.unable, &scene.unreachable);
        (scene.unable, scene.unreachable) = (unable, cut);
        has_changed
    }

    fn name<'a>(&self, view: &NativeView<'a>, group: GroupIndex) -> &'a str {
        &view.plan.groups[group.0].name
    }

    fn answer(&mut self, order: Asker, answer: Answer) {
        self.steps.push_back(NativeStep::Answer(order, answer));
    }

    fn note(&mut self, level: Level, group: Option<GroupIndex>, text: String) {
        self.steps.push_back(NativeStep::Note(level, group, text));
    }
}
