//! The native dialect: which group this node should claim, keep, hand over or leave alone. Pure bookkeeping, as
//! [`crate::r1::ownership`] is for heartbeat's: it is told what was granted and what came to rest, and answers with [`Step`]s.
//! Who *may* own is the voters' affair ([`crate::claims`]); who *should* is decided here, by the same function on every
//! node ([`placement`]).
//!
//! ```text
//!  free ──my turn──► claiming ──granted──► ours: start ──► running
//!   ▲                   │ refused: wait                       │ move, standby, failure, failback
//!   │                   ▼                                     ▼
//!   └────────────── released ◄──────stopped───────────── giving (or lapsed)
//! ```
//!
//! A planned move names its successor in the release: it claims at once, and nobody waits for a lease.
//!
//! Groups that stay together are a family, and move as one: all of it is stopped, then all of it is released, to one
//! successor. So that two nodes never run parts of it, its first group is claimed first, the rest by whoever owns that
//! one, and nothing of it is started before all of it is owned.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::{String, ToString as _},
    sync::Arc,
    vec::Vec,
};

use super::{
    board::{Board, HeldDown},
    meaning::Dispute,
    placement::{self, Rank, Scene},
    plan::{Failback, Plan},
    status::{Disputed, Hindered, Hindrance},
};
use crate::{
    claims::{Claimant, Member, News, Notice},
    group::{Groups, Phase},
    model::{
        breakage::{self, Breakage},
        claim::{Ballot, GroupId},
        identity::{GroupIndex, MemberIndex, NodeIndex},
        note::Level,
        order::{Answer, Asker},
        time::{Duration, Instant},
        timer_queue::Agenda,
    },
};

mod giving;

/// After a failed start or too many failed monitors a node is not tried again for so long, unless a person says so.
pub const UNABLE: Duration = Duration::from_secs(600);
/// A group that is held down and fails is started again after this long.
pub const HELD_DOWN_PAUSE: Duration = Duration::from_secs(30);
/// So long a group that is to be handed over waits for a node that can take it; twice the mute time where that is longer.
pub const TAKER_WAIT: Duration = Duration::from_secs(30);
/// What cannot be stopped and is ours no longer is told to stop again after this long.
pub const STUCK_PAUSE: Duration = Duration::from_secs(30);

/// What the dialect wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Claim this group.
    Claim(GroupIndex),
    /// Nothing of it runs here: give its claim back, perhaps for somebody.
    Release(GroupIndex, Option<NodeIndex>),
    /// Start it under this epoch.
    Start(GroupIndex, Ballot),
    /// Stop it; its gate is shut before.
    Stop(GroupIndex),
    /// A failure ends our ownership of this epoch.
    Moved(GroupIndex, Ballot),
    /// Answer a person.
    Answer(Asker, Answer),
    /// A line for the log, about a group.
    Note(Level, Option<GroupIndex>, String),
}

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Heard of within its lease; of ourselves: always.
    pub up: bool,
    /// Since when without a break.
    pub since: Instant,
    /// A person wants nothing to run there, or it is about to leave.
    pub standby: bool,
    /// Since when it has said without a break that it could claim what it is given; of ourselves nobody asks.
    pub ready_since: Option<Instant>,
    /// What it could not run.
    pub unable: BTreeSet<GroupIndex>,
    /// Whose service would reach nobody from there.
    pub cut: BTreeSet<GroupIndex>,
    /// Those of them for which it is time to do something; known of ourselves alone.
    pub cut_for_long: BTreeSet<GroupIndex>,
    /// Of which groups its file gives a resource to another group.
    pub disputes: BTreeMap<GroupIndex, Dispute>,
    /// It may still own what its file has: it was heard within a lease and its margin.
    pub may_own: bool,
}

impl NodeView {
    /// It lives, and could claim now what it is given.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.up && self.ready_since.is_some()
    }
}

/// What the rest of the node knows and the dialect needs to know.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The time.
    pub now: Instant,
    /// The configuration.
    pub plan: &'a Plan,
    /// This node.
    pub me: NodeIndex,
    /// The claims.
    pub member: &'a Member,
    /// The groups as the voters know them, in the order of the plan.
    pub ids: &'a [GroupId],
    /// Where in that order each is.
    pub index: &'a BTreeMap<GroupId, GroupIndex>,
    /// By node.
    pub nodes: &'a [NodeView],
    /// What runs here.
    pub groups: &'a Groups,
    /// What people and failures have done.
    pub board: &'a Board,
}

/// Who owns a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// We do.
    Us,
    /// A living node says so.
    Lives(NodeIndex),
    /// Nobody says so any more, but our own vote is granted to it until then.
    Granted(NodeIndex, Instant),
}

impl Owner {
    const fn node(self, me: NodeIndex) -> NodeIndex {
        match self {
            Self::Us => me,
            Self::Lives(node) | Self::Granted(node, _) => node,
        }
    }
}

impl View<'_> {
    fn owner(&self, group: GroupIndex) -> Option<Owner> {
        let id = self.ids[group.0];
        if self.holds(group).is_some() {
            return Some(Owner::Us);
        }
        let lives = |node: &NodeIndex| self.nodes.get(node.0).is_some_and(|node| node.up);
        let says =
            self.member.owner_elsewhere(id).and_then(|claim| self.plan.node(claim.owner())).filter(lives);
        let granted = || {
            let (claim, until) = self.member.voter()?.holder(id)?;
            let granted = Owner::Granted(self.plan.node(claim.owner())?, until);
            (until > self.now && claim.owner() != self.member.settings().me).then_some(granted)
        };
        says.map(Owner::Lives).or_else(granted)
    }

    /// Whose file gives a resource of one of these to another group, which that node may own as long as it lives: voters
    /// know groups by name, and would grant both.
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
        self.groups.phase(group) == Phase::Stopped
    }

    fn runs(&self, group: GroupIndex) -> bool {
        self.groups.phase(group) == Phase::Running
    }

    fn held_down(&self, group: GroupIndex) -> Option<HeldDown> {
        self.board.held_down(self.now, self.ids[group.0], &self.plan.groups[group.0].hold_down)
    }
}

/// A group on its way from us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Giving {
    to: Option<NodeIndex>,
    order: Option<Asker>,
    /// Something of it failed here too often.
    failed: bool,
}

/// A group that is to go, as soon as a node could claim it that clients would reach.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    to: Option<NodeIndex>,
    order: Option<Asker>,
    /// Why it waits, and since when.
    why: String,
    since: Instant,
    /// Then whoever asked is told why not; `None`: that was told, and it waits on as long as this node is on standby.
    until: Option<Instant>,
}

/// What is kept of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Desk {
    /// Somebody was seen to own it in this life of ours.
    had_owner: bool,
    /// It waits for somebody who can take it.
    wish: Option<Wish>,
    /// Nobody is known to own it since then.
    free_since: Option<Instant>,
    /// It is not claimed before.
    not_before: Instant,
    /// Refusals in a row.
    refusals: u32,
    /// Our lease ended before it was stopped.
    lapsed: bool,
    giving: Option<Giving>,
    /// Its claim is being given back.
    released: bool,
    /// Released to us by name: the next turn is ours.
    named: bool,
    /// It is held down and failed: it is not started before.
    retry_at: Option<Instant>,
    /// It was to be given and could not be stopped: nothing but a person moves it now.
    stays: bool,
    /// It could not be stopped after it was lost: then that is tried again.
    stop_at: Option<Instant>,
    /// A person wants nothing to be done to it.
    frozen: bool,
    /// When it became ours, if it is.
    gained: Instant,
}

/// The dialect's state.
#[derive(Debug)]
pub struct Ownership {
    desks: Vec<Desk>,
    /// By group: those that stay together with it, itself included, in order.
    families: Vec<Arc<[GroupIndex]>>,
    /// What could not be run here, and until when it is not tried again.
    unable: BTreeMap<GroupIndex, Instant>,
    /// When [`Self::tick`] has something to do, as of the last one.
    next: Option<Instant>,
    /// Of which groups something may be otherwise since the last [`Self::tick`], or all: only these are looked at, and those
    /// whose time has come. What changes of the others changes nothing here.
    touched: BTreeSet<GroupIndex>,
    all_touched: bool,
    /// When each group is to be looked at again.
    looks: Agenda<GroupIndex>,
    /// By group: those whose fate may depend on it, itself included.
    relatives: Vec<Arc<[GroupIndex]>>,
    /// By group: the places of others are something to it, or its own is something to them.
    is_related: Vec<bool>,
    /// Whose owner may be another than in the last ranking.
    owners_due: BTreeSet<GroupIndex>,
    all_owners_due: bool,
    /// What nodes cannot run may be otherwise than in the last ranking; and when time alone makes it so.
    hindrances_due: bool,
    hindrances_until: Option<Instant>,
    /// When what our vote has granted to others ends.
    grants: Agenda<GroupIndex>,
    /// How many groups were looked at.
    #[cfg(test)]
    pub(super) looked: usize,
    /// How often what nodes cannot run was gathered.
    #[cfg(test)]
    pub(super) gathered: usize,
    standby: bool,
    /// Nothing is claimed before the links are tested.
    waits_for_links: bool,
    /// Nothing is claimed before the others' boards are known.
    waits_for_board: bool,
    /// Nothing is claimed before it is known what the others' files give to which group.
    waits_for_files: bool,
    leaving: Option<Option<Asker>>,
    random: u64,
    /// What the last [`Self::tick`] asked to be claimed.
    claims: BTreeSet<GroupIndex>,
    /// The last ranking, and what it was made of.
    ranking: Option<(Scene, Vec<Rank>)>,
    steps: VecDeque<Step>,
}

impl Ownership {
    /// A node that owns nothing. `seed`: any number; spreads the waits after collisions.
    #[must_use]
    pub fn new(plan: &Plan, seed: u64) -> Self {
        Self {
            desks: plan.groups.iter().map(|_| Desk::default()).collect(),
            relatives: placement::relatives(plan),
            is_related: placement::are_related(plan),
            families: placement::families(plan),
            unable: BTreeMap::new(),
            next: None,
            touched: BTreeSet::new(),
            all_touched: true,
            looks: Agenda::new(),
            owners_due: BTreeSet::new(),
            all_owners_due: true,
            hindrances_due: true,
            hindrances_until: None,
            grants: Agenda::new(),
            #[cfg(test)]
            looked: 0,
            #[cfg(test)]
            gathered: 0,
            standby: false,
            waits_for_links: false,
            waits_for_board: false,
            waits_for_files: false,
            leaving: None,
            random: seed | 1,
            claims: BTreeSet::new(),
            ranking: None,
            steps: VecDeque::new(),
        }
    }

    /// Something of this group may be otherwise: who owns it, what runs of it, what is kept of it here.
    pub fn touch(&mut self, group: GroupIndex) {
        self.owners_due.insert(group);
        self.touched.extend(self.relatives[group.0].iter().copied());
    }

    /// The same of all: something is otherwise that is not of single groups, as which nodes live.
    pub const fn touch_all(&mut self) {
        self.all_touched = true;
        self.all_owners_due = true;
        self.hindrances_due = true;
    }

    /// What is to be done next, oldest first.
    pub fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Whether this node wants to run nothing.
    #[must_use]
    pub const fn is_standby(&self) -> bool {
        self.standby || self.leaving.is_some()
    }

    /// From now on nothing is claimed, or no longer so.
    pub const fn wait_for_links(&mut self, wait: bool) {
        self.waits_for_links = wait;
    }

    /// The same, because what others know is not known here yet. Whether that is new.
    pub const fn wait_for_board(&mut self, wait: bool) -> bool {
        core::mem::replace(&mut self.waits_for_board, wait) != wait
    }

    /// The same, because it is not known what others' files say. Whether that is new.
    pub const fn wait_for_files(&mut self, wait: bool) -> bool {
        core::mem::replace(&mut self.waits_for_files, wait) != wait
    }

    /// Whether everything is to be given up, after [`Self::leave`].
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether nothing is claimed before the links are tested.
    pub(super) const fn waits_for_links(&self) -> bool {
        self.waits_for_links
    }

    /// Whether nothing is claimed before the others' boards are known.
    pub(super) const fn waits_for_board(&self) -> bool {
        self.waits_for_board
    }

    /// Whether nothing is claimed before the others' files are known.
    pub(super) const fn waits_for_files(&self) -> bool {
        self.waits_for_files
    }

    /// Those that stay together with this group, itself included, in order.
    pub(super) fn family(&self, group: GroupIndex) -> &[GroupIndex] {
        &self.families[group.0]
    }

    /// The groups that must not be where this one is.
    fn kept_away(&self, plan: &Plan, group: GroupIndex) -> Vec<GroupIndex> {
        placement::kept_away(plan, &self.families, group)
    }

    /// What could not be run here, and is not tried again yet.
    pub fn unable(&self, now: Instant) -> impl Iterator<Item = GroupIndex> {
        self.unable.iter().filter(move |(_, until)| **until > now).map(|(group, _)| *group)
    }

    /// Whether it is among [`Self::unable`].
    #[must_use]
    pub fn is_unable(&self, now: Instant, group: GroupIndex) -> bool {
        self.unable.get(&group).is_some_and(|until| *until > now)
    }

    /// When [`Self::tick`] has something to do. Whatever else is asked or told of here wants one, too, before this holds
    /// again: one for many, if they come together.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    // ---- what a person asks for ------------------------------------------

    /// Everything is handed over, and nothing is taken, until [`Self::online`].
    pub const fn standby(&mut self) {
        self.standby = true;
        self.touch_all();
    }

    /// Which groups of ours stay here for now while others may run them, and why. They go when that changes.
    pub fn staying(&mut self, view: &View<'_>) -> Vec<(GroupIndex, String)> {
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

    /// Takes part again; what could not be run or stopped here is tried again.
    pub fn online(&mut self) {
        self.standby = false;
        self.touch_all();
        self.unable.clear();
        for desk in &mut self.desks {
            desk.retry_at = None;
            desk.stop_at = desk.stop_at.map(|_| Instant::ZERO);
        }
    }

    /// Whether nothing is done to this group.
    #[must_use]
    pub fn is_frozen(&self, group: GroupIndex) -> bool {
        self.desks[group.0].frozen
    }

    /// People's pins as they are now: by their own words these are frozen, or all of them. With one of a family all of it
    /// is.
    pub fn freeze(&mut self, is_pinned: impl Fn(GroupIndex) -> bool) {
        for (desk, family) in self.desks.iter_mut().zip(&self.families) {
            desk.frozen = family.iter().any(|group| is_pinned(*group));
        }
    }

    /// Hands everything over for good.
    pub const fn leave(&mut self, order: Option<Asker>) {
        self.leaving = Some(order);
        self.touch_all();
    }

    // ---- what happens ----------------------------------------------------

    /// News of the claims.
    pub fn noticed(&mut self, view: &View<'_>, notice: &Notice) {
        let index = |id: &GroupId| view.index.get(id).copied();
        let (Notice::Own(News::Gained(id, _) | News::Struck(id, _) | News::Lost(id) | News::Refused(id, _))
        | Notice::Released(id, ..)) = notice;
        index(id).into_iter().for_each(|group| self.touch(group));
        match notice {
            Notice::Own(News::Gained(id, epoch)) => {
                let Some(group) = index(id) else { return };
                let desk = &mut self.desks[group.0];
                assert!(!desk.lapsed, "{id:?}: gained before what was lost is stopped");
                *desk = Desk { frozen: desk.frozen, gained: view.now, had_owner: true, ..Desk::default() };
                let text = format!("is ours under epoch {}.{}", epoch.round, epoch.node.0);
                self.note(Level::Info, Some(group), text);
            }
            Notice::Own(News::Lost(id)) => {
                let Some(group) = index(id) else { return };
                let wish = self.desks[group.0].wish.take();
                self.refuse(view, group, wish.and_then(|wish| wish.order), "it was lost meanwhile");
                self.desks[group.0].lapsed = true;
                let text = match view.owner(group) {
                    Some(Owner::Lives(node)) => {
                        let name = &view.plan.nodes[node.0].name;
                        format!("is lost: {name} owns it under a higher epoch; stopping it")
                    }
                    _ => "was lost: the lease ended before a majority renewed it; stopping it".into(),
                };
                self.note(Level::Critical, Some(group), text);
                if view.at_rest(group) {
                    self.came_to_rest(view, group);
                } else {
                    self.steps.push_back(Step::Stop(group));
                }
            }
            Notice::Own(News::Refused(id, wait)) => {
                let Some(group) = index(id) else { return };
                self.refused(view, group, *wait);
            }
            Notice::Own(News::Struck(..)) => {}
            Notice::Released(id, _, successor) => {
                let Some(group) = index(id) else { return };
                let desk = &mut self.desks[group.0];
                let me = MemberIndex::from(view.me);
                desk.free_since = Some(view.now);
                desk.named = *successor == Some(me);
                desk.refusals = 0;
                // Of a family it is the first one's turn that counts.
                let follows = self.families[group.0][0] != group;
                let others_turn = successor.is_some_and(|named| named != me) && !follows;
                desk.not_before = if others_turn { view.now + view.plan.timing.rank_step } else { view.now };
            }
        }
    }

    /// The voters said no: not before the grant that stands against us ends, and not at the same moment as a rival.
    fn refused(&mut self, view: &View<'_>, group: GroupIndex, wait: Duration) {
        let timing = &view.plan.timing;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let desk = &mut self.desks[group.0];
        let most = (timing.collision * (1 << desk.refusals.min(8))).min(timing.collision_max);
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Who was refused for a grant that runs has met no rival: its turn comes when the grant ends.
        let random = if wait.is_zero() { Duration::from_nanos(self.random % most) } else { Duration::ZERO };
        assert!(random <= timing.collision_max, "a node waits longer for a rival than it may");
        desk.refusals += u32::from(wait.is_zero());
        desk.not_before = view.now + wait + random;
        desk.named = false;
    }

    /// All of the group runs.
    pub fn started(&mut self, group: GroupIndex) {
        self.touch(group);
        self.note(Level::Info, Some(group), "runs here".into());
    }

    /// It could not be started, or failed too often, and was stopped or is being stopped: another node's turn, unless it is
    /// held down.
    pub fn failed(&mut self, view: &View<'_>, group: GroupIndex) {
        self.touch(group);
        let owns = view.holds(group).is_some();
        if let Some(held) = view.held_down(group).filter(|_| owns && self.desks[group.0].giving.is_none()) {
            self.desks[group.0].retry_at = Some(view.now + HELD_DOWN_PAUSE);
            let text = format!(
                "could not be run here, and failures have moved it too often: it is held down for {} s more and started \
                 again here in {} s",
                held.until.since(view.now).as_secs(),
                HELD_DOWN_PAUSE.as_secs()
            );
            return self.note(Level::Error, Some(group), text);
        }
        self.unable.insert(group, view.now + UNABLE);
        self.hindrances_due = true;
        let text = format!("could not be run here; not tried again on this node for {} s", UNABLE.as_secs());
        self.note(Level::Error, Some(group), text);
        if owns && self.desks[group.0].giving.is_none() {
            self.rank(view);
            self.hand_over(view, group, Giving { failed: true, ..Giving::default() });
        } else if view.at_rest(group) {
            self.came_to_rest(view, group);
        }
    }

    /// Nothing of it runs here any more.
    pub fn stopped(&mut self, view: &View<'_>, group: GroupIndex) {
        self.desks[group.0].stays = false;
        self.came_to_rest(view, group);
    }

    /// Whether this node leaves and keeps the claim of a group, because something of its family cannot be stopped: what
    /// may still run is never released. The claim ends with its lease.
    #[must_use]
    pub fn is_left_behind(&self, groups: &Groups, group: GroupIndex) -> bool {
        self.leaving.is_some() && self.families[group.0].iter().any(|member| groups.is_stuck(*member))
    }

    /// It cannot be stopped: what was to be handed over stays, with all of its family. Unless this node leaves: then it is
    /// left behind.
    pub fn stuck(&mut self, view: &View<'_>, group: GroupIndex) {
        self.touch(group);
        self.desks[group.0].stays = true;
        for member in self.families[group.0].iter().copied() {
            let giving = self.desks[member.0].giving.take();
            if let Some(Giving { order: Some(order), .. }) = giving {
                let text = "a resource cannot be stopped; it stays here".into();
                self.steps.push_back(Step::Answer(order, Answer::Refused(text)));
            }
            let goes_on = self.leaving.is_none() && (giving.is_some() || member == group);
            if let Some(epoch) = view.holds(member).filter(|_| goes_on) {
                self.steps.push_back(Step::Start(member, epoch));
            }
        }
    }

    fn came_to_rest(&mut self, view: &View<'_>, group: GroupIndex) {
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
    fn release(&mut self, view: &View<'_>, group: GroupIndex, giving: Option<Giving>) {
        let best = self.ranking(group).iter().copied().find(|node| *node != view.me);
        let successor = giving.as_ref().and_then(|giving| giving.to).or(best).filter(|_| giving.is_some());
        assert!(view.at_rest(group), "{}: released before all of it was stopped", self.name(view, group));
        assert!(successor != Some(view.me), "{}: released to the node that has it", self.name(view, group));
        let Giving { order, failed, .. } = giving.unwrap_or_default();
        // Where there is one node alone, nothing moves.
        if let Some(epoch) =
            view.holds(group).filter(|_| failed && view.plan.groups[group.0].candidates.len() > 1)
        {
            self.steps.push_back(Step::Moved(group, epoch));
        }
        self.steps.push_back(Step::Release(group, successor));
        let desk = &mut self.desks[group.0];
        desk.released = true;
        desk.free_since = Some(view.now);
        // Whoever it is for goes first; if it does not come, we are a candidate like any other.
        desk.not_before = view.now + view.plan.timing.lease;
        if let Some(order) = order {
            let to = successor.map_or("nobody", |node| view.plan.nodes[node.0].name.as_str());
            let family = self.families[group.0].iter().map(|member| view.plan.groups[member.0].name.as_str());
            let names = family.collect::<Vec<_>>().join(", ");
            let verb = if self.families[group.0].len() > 1 { "are" } else { "is" };
            self.answer(order, Answer::Done(format!("{names} {verb} released to {to}")));
        }
    }

    /// Time has passed, or something changed: whatever is due is done. Groups are looked at of which something changed, or
    /// whose time has come, in their order.
    pub fn tick(&mut self, view: &View<'_>) {
        let unable = self.unable.len();
        self.unable.retain(|_, until| *until > view.now);
        let has_ended = self.unable.len() != unable;
        self.all_touched |= has_ended;
        self.hindrances_due |= has_ended;
        self.rank(view);
        self.claims.clear();
        let mut due = core::mem::take(&mut self.touched);
        due.extend(self.looks.due(view.now));
        // What failures have moved is let go by time, which nobody tells.
        due.extend(view.board.moved_groups().filter_map(|id| view.index.get(&id).copied()));
        let mut next = 0;
        loop {
            // What becomes otherwise on the way is looked at if its turn is yet to come, else in the next look.
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

    /// When to look again.
    fn look_at(&mut self, view: &View<'_>, group: GroupIndex) -> Option<Instant> {
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
        // Who leaves takes nothing along: even what is frozen is stopped.
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

    /// What could not be stopped and is ours no longer is told to stop once more, now and then: a person may have helped.
    /// When to look again.
    fn stop_again(&mut self, view: &View<'_>, group: GroupIndex) -> Option<Instant> {
        let desk = &mut self.desks[group.0];
        if !view.groups.is_stuck(group) || view.holds(group).is_some() {
            desk.stop_at = None;
            return None;
        }
        let at = *desk.stop_at.get_or_insert(view.now + STUCK_PAUSE);
        if at > view.now {
            return Some(at);
        }
        desk.stop_at = None;
        self.steps.push_back(Step::Stop(group));
        None
    }

    /// A group of ours: does it run, and should it be here? When to look again.
    fn look_at_own(&mut self, view: &View<'_>, group: GroupIndex) -> Option<Instant> {
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
            // What nobody else may run must stop all the same, and nobody is waited for.
            self.hand_over(view, group, Giving::default());
            return None;
        }
        if self.desks[group.0].wish.is_some() {
            let at = self.look_at_wish(view, group);
            let Desk { wish, giving, released, .. } = &self.desks[group.0];
            if wish.is_some() || giving.is_some() || *released {
                return at;
            }
            // It is not to go any more: whatever else there is to do about it has waited for that.
        }
        if self.standby {
            // What nobody else may run stays where it is.
            if self.may_give(view, group, None).is_ok() {
                self.give(view, group, None, None);
            }
            return self.desks[group.0].wish.as_ref().and_then(|wish| wish.until);
        }
        let stays = self.desks[group.0].stays;
        let leader = self.families[group.0][0];
        if leader != group && view.holds(leader).is_none() && !stays {
            // Who has lost the first of a family gives back the rest: it belongs to whoever claims that one.
            self.desks[group.0].giving = Some(Giving::default());
            if !view.at_rest(group) {
                self.steps.push_back(Step::Stop(group));
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
            let text = "clients do not reach it safely on this node, and on another one they do";
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
        // It is well when it could claim it; and who gave it to us, or a person, does not get it back at once.
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

    /// The group's service reaches nobody from here, and the best node has what we lack.
    fn is_better_connected(&self, view: &View<'_>, group: GroupIndex) -> bool {
        let best = self.ranking(group).first().copied();
        view.nodes[view.me.0].cut_for_long.contains(&group)
            && best.is_some_and(|best| best != view.me && !self.is_cut(group, best))
            && best.is_some_and(|best| self.unready(view, group, best).is_none())
    }

    /// Clients do not reach all of the family there, as of the last [`Self::rank`].
    fn is_cut(&self, group: GroupIndex, node: NodeIndex) -> bool {
        let scene = self.ranking.as_ref().map(|(scene, _)| scene);
        scene.is_some_and(|scene| {
            self.families[group.0].iter().any(|member| scene.cut.contains(&(node, *member)))
        })
    }

    /// A preferred node that is above us in the ranking, and not only because nobody is reached by clients.
    fn better_place(&self, view: &View<'_>, group: GroupIndex) -> Option<NodeIndex> {
        let best = self.ranking(group).first().copied()?;
        let prefer = &view.plan.groups[group.0].prefer;
        (best != view.me && prefer.contains(&best) && !self.is_cut(group, best)).then_some(best)
    }

    fn start(&mut self, view: &View<'_>, group: GroupIndex) {
        let runs = |other: GroupIndex| match view.owner(other) {
            Some(Owner::Us) => view.runs(other),
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
            self.steps.push_back(Step::Start(group, epoch));
        }
    }

    /// A group that is not ours: is it free, and is it our turn? When to look again, if not at `not_before`.
    fn look_at_other(&mut self, view: &View<'_>, group: GroupIndex) -> Option<Instant> {
        let claiming = view.member.claimant().is_some_and(|claimant| claimant.is_claiming(view.ids[group.0]));
        let owner = view.owner(group);
        let desk = &mut self.desks[group.0];
        desk.released = false;
        if let Some(owner) = owner {
            desk.had_owner = true;
            desk.named = false;
            desk.free_since = None;
            if let Owner::Granted(_, until) = owner {
                // From that moment on it is free, and our turn is counted from it.
                desk.not_before = until;
            }
            return None;
        }
        let leader = self.families[group.0][0];
        let follows = leader != group;
        let waits = self.waits_for_links || self.waits_for_board || self.waits_for_files;
        let waits = waits || !view.member.may_claim(view.now) || view.disputed(self.family(group)).is_some();
        // What follows one that is on its way from here is claimed where that goes.
        let leads_here = || view.holds(leader).is_some() && self.desks[leader.0].giving.is_none();
        let waits = waits || (follows && !leads_here());
        let desk = &mut self.desks[group.0];
        if waits {
            // Turns are counted from the moment at which there is a choice: on a cluster that has just been switched on,
            // nodes would take theirs all at once otherwise.
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
        // The first of a family has not waited for what the others come after: they are started when that runs.
        let waits =
            placement::waits_for(view.plan, group, |other| view.owner(other).is_some()).filter(|_| !follows);
        // Each of two that must not meet may be free to be ours; both are not.
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
            self.steps.push_back(Step::Claim(group));
        }
        None
    }

    /// Nodes that are switched on together can claim one after the other. What nobody has owned since waits for those that it
    /// prefers to us, for at most two mute times; until when.
    fn preferred_turn(&self, view: &View<'_>, group: GroupIndex, free_since: Instant) -> Option<Instant> {
        let family = &self.families[group.0];
        if self.desks[group.0].had_owner || breakage::is(Breakage::FirstComeFirstServed) {
            return None;
        }
        let prefer = &view.plan.groups[family[0].0].prefer;
        let mut before_us = prefer.iter().copied().take_while(|node| *node != view.me);
        let comes = before_us.any(|node| {
            let known = &view.nodes[node.0];
            let hindered = known.standby || family.iter().any(|member| known.unable.contains(member));
            // It may be there and yet have to wait: voters that have just been started grant nothing to anybody.
            !hindered && !self.is_cut(group, node) && (!known.up || self.ranking(group).contains(&node))
        });
        comes.then(|| free_since + view.plan.timing.mute * 2)
    }

    /// Ranks the groups anew if anything changed that matters for it.
    fn rank(&mut self, view: &View<'_>) {
        let (mut scene, ranks) = match self.ranking.take() {
            Some((scene, ranks)) => (scene, Some(ranks)),
            None => {
                self.all_owners_due = true;
                self.hindrances_due = true;
                let owners = alloc::vec![None; view.plan.groups.len()];
                let (unable, cut) = (BTreeSet::new(), BTreeSet::new());
                (Scene { owners, available: Vec::new(), unable, cut }, None)
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

    /// Brings the owners in the scene up to date. Whether one changed that matters for the ranking of any group: the place of
    /// a group that stands in no relation to others matters for none, not even for its own.
    fn look_at_owners(&mut self, view: &View<'_>, scene: &mut Scene) -> bool {
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
                Some(Owner::Granted(_, until)) => Some(until),
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

    /// Brings the nodes in the scene up to date. Whether anything changed.
    fn look_at_nodes(&mut self, view: &View<'_>, scene: &mut Scene) -> bool {
        let available = view.nodes.iter().enumerate().map(|(index, node)| match index == view.me.0 {
            true => !self.is_standby(),
            false => node.up && !node.standby,
        });
        let available: Vec<bool> = available.collect();
        let has_changed = scene.available != available;
        scene.available = available;
        self.look_at_hindrances(view, scene) || has_changed
    }

    /// The same of what nodes cannot run: that may be all groups, so it is gathered anew only if it may be otherwise.
    fn look_at_hindrances(&mut self, view: &View<'_>, scene: &mut Scene) -> bool {
        let is_over = self.hindrances_until.is_some_and(|at| at <= view.now);
        if !core::mem::take(&mut self.hindrances_due) && !is_over {
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
        // What is held down must be somewhere, wherever it failed.
        let counts = |(_, group): &(NodeIndex, GroupIndex)| {
            let held = view.held_down(*group);
            until = held.as_ref().map(|held| held.until).into_iter().chain(until).min();
            held.is_none()
        };
        let unable: BTreeSet<_> = here.chain(there).filter(counts).collect();
        let cut = nodes().flat_map(|(node, known)| known.cut.iter().map(move |group| (node, *group)));
        let cut: BTreeSet<_> = cut.collect();
        self.hindrances_until = until;
        let has_changed = (&unable, &cut) != (&scene.unable, &scene.cut);
        (scene.unable, scene.cut) = (unable, cut);
        has_changed
    }

    fn name<'a>(&self, view: &View<'a>, group: GroupIndex) -> &'a str {
        &view.plan.groups[group.0].name
    }

    fn answer(&mut self, order: Asker, answer: Answer) {
        self.steps.push_back(Step::Answer(order, answer));
    }

    fn note(&mut self, level: Level, group: Option<GroupIndex>, text: String) {
        self.steps.push_back(Step::Note(level, group, text));
    }
}
