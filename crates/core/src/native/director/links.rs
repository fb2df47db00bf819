//! The links in the native dialect: which of them carry frames between each other member and us, and which way. A link
//! of the plan has its index in the plan. After those comes one link for each witness, in their order: the way between
//! that witness and all other members.
//!
//! This member sees itself what a link brings. The other side reports what the link carries to it: its beats say on
//! which links it hears us. A state counts after it has lasted for [`NativeTiming::link_test`], so one lost beat changes
//! nothing.
//!
//! A member counts as heard if any link brings its frames. Its echoes of our beats show that it hears us, whatever
//! links they took: an echo has gone both ways by itself. So neither a claim nor a renewal depends on the state of a
//! single link. (Two members that do not vote have no echoes of each other, and need none.)
//!
//! Links are tested so that people learn of a dead cable before they need it, and so that no node claims groups in a
//! cluster whose cables were never tested.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::net::SocketAddr;

use crate::{
    model::{
        identity::{LastHeard, LinkIndex, MemberIndex, NodeIndex},
        time::{Duration, Instant},
    },
    native::{
        plan::{self, NativePlan, WitnessIndex},
        status::LinkDirections,
        timing::NativeTiming,
    },
};

mod home;

use home::Home;

/// A link between one other member and us.
#[derive(Clone, Debug)]
pub(super) struct LinkPath {
    /// The link on which its frames come.
    pub link: LinkIndex,
    /// The link on which ours go.
    pub out: LinkIndex,
    /// The newest frame that it brought. A recording of older frames does not make the link look alive.
    newest: LastHeard,
    /// When it brought that frame.
    heard: Option<Instant>,
    /// The state that counts.
    way: LinkDirections,
    /// The state as it looks now, and since when.
    seems: (LinkDirections, Instant),
    /// The state last reported by [`Links::next_change`].
    reported: LinkDirections,
}

#[derive(Debug)]
struct LinkPeer {
    paths: Vec<LinkPath>,
    /// The links on which it hears us, a bit for each, from its newest beat, and when that came. `None`: the bits mean
    /// nothing here.
    hears_us: Option<(u32, Instant)>,
    /// Its file differs from ours, so its links cannot be tested.
    is_strange: bool,
    /// When its first frame came.
    first: Option<Instant>,
    /// The address for answers, if it is on no link of the plan.
    home: Home,
}

/// The state of all links. See the module's text.
#[derive(Debug)]
pub(super) struct Links {
    /// By member; this member has no paths.
    peers: Vec<LinkPeer>,
    nodes: usize,
    links: usize,
    me: plan::NativeMember,
    timing: NativeTiming,
    started: Instant,
    /// By link: this machine itself says that it carries nothing.
    down: Vec<bool>,
    changes: VecDeque<LinkReport>,
}

/// A change of one link, to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkReport {
    pub link: LinkIndex,
    pub way: LinkDirections,
    pub members: Vec<MemberIndex>,
}

impl Links {
    pub(super) fn new(plan: &NativePlan, now: Instant) -> Self {
        let all = (0..plan.nodes.len()).map(|node| plan::NativeMember::Node(NodeIndex(node)));
        let all = all.chain((0..plan.witnesses.len()).map(|w| plan::NativeMember::Witness(WitnessIndex(w))));
        let peer = |member| LinkPeer {
            paths: paths(plan, member, now),
            hears_us: None,
            is_strange: false,
            first: None,
            home: Home::default(),
        };
        let links = plan.links.len();
        Self {
            peers: all.map(peer).collect(),
            nodes: plan.nodes.len(),
            links,
            me: plan.me,
            timing: plan.timing,
            started: now,
            down: alloc::vec![false; links + plan.witnesses.len()],
            changes: VecDeque::new(),
        }
    }

    /// The number of links, those to witnesses included.
    pub(super) fn count(&self) -> usize {
        self.down.len()
    }

    /// Whether the link connects this member to another one. A link between others cannot be down here.
    pub(super) fn is_ours(&self, link: LinkIndex) -> bool {
        self.peers.iter().flat_map(|peer| &peer.paths).any(|path| path.link == link || path.out == link)
    }

    /// The witness that a link leads to.
    pub(super) fn witness(&self, link: LinkIndex) -> Option<WitnessIndex> {
        link.0.checked_sub(self.links).filter(|_| link.0 < self.count()).map(WitnessIndex)
    }

    /// Whether this member may speak on this link. On a link between nodes every node may, on a witness's link that
    /// witness; if this member is the witness, all may.
    pub(super) fn may_speak(&self, member: MemberIndex, link: LinkIndex) -> bool {
        let index = member.index();
        match self.witness(link) {
            None => index < self.nodes,
            Some(witness) if plan::NativeMember::Witness(witness) == self.me => true,
            Some(witness) => index == self.nodes + witness.0,
        }
    }

    /// The links between a member and us.
    pub(super) fn paths(&self, member: MemberIndex) -> &[LinkPath] {
        self.peers.get(member.index()).map_or(&[], |peer| &peer.paths)
    }

    /// The address to answer a member at, on our own witness's link.
    pub(super) fn home(&self, member: MemberIndex) -> Option<SocketAddr> {
        self.peers.get(member.index())?.home.address()
    }

    /// An authentic frame of a member came to a witness's link from the address `from`; `at`: the address that the
    /// frame itself names.
    pub(super) fn came_from(
        &mut self,
        now: Instant,
        member: MemberIndex,
        frame: LastHeard,
        from: SocketAddr,
        at: Option<SocketAddr>,
    ) {
        let patience = self.timing.silent;
        let Some(peer) = self.peers.get_mut(member.index()) else { return };
        let is_deaf = peer.hears_us.is_some_and(|(links, _)| links == 0);
        peer.home.came(now, patience, is_deaf, frame, from, at);
    }

    /// An authentic frame of a member came on a link.
    pub(super) fn heard(&mut self, now: Instant, link: LinkIndex, member: MemberIndex, frame: LastHeard) {
        let Some(peer) = self.peers.get_mut(member.index()) else { return };
        peer.first.get_or_insert(now);
        let Some(path) = peer.paths.iter_mut().find(|path| path.link == link && path.newest < frame) else {
            return;
        };
        path.newest = frame;
        path.heard = Some(now);
    }

    /// A beat of a member says on which links it hears us. If its file differs from ours, its links have other numbers
    /// and the bits are ignored. On the only link to or from a witness, any bit means that link.
    pub(super) fn reported(&mut self, now: Instant, member: MemberIndex, hears_us: u32, has_our_file: bool) {
        let only_way = self.is_only_way(member);
        let Some(peer) = self.peers.get_mut(member.index()) else { return };
        let hears_us = match only_way {
            true if hears_us != 0 => u32::MAX,
            _ => hears_us,
        };
        peer.is_strange = !has_our_file && !only_way;
        peer.hears_us = (!peer.is_strange).then_some((hears_us, now));
        update_states(peer, now, &self.timing);
    }

    /// Whether a member hears us on any link, as its newest beat says; `None` if its file differs from ours.
    pub(super) fn is_heard_by(&self, now: Instant, member: MemberIndex) -> Option<bool> {
        let peer = self.peers.get(member.index()).filter(|peer| !peer.is_strange)?;
        let is_fresh = |at: Instant| now.since(at) < self.timing.silent;
        Some(peer.hears_us.is_some_and(|(links, at)| links != 0 && is_fresh(at)))
    }

    fn is_only_way(&self, member: MemberIndex) -> bool {
        member.index() >= self.nodes || matches!(self.me, plan::NativeMember::Witness(_))
    }

    /// Records what this machine says of a link: whether it can carry frames. Returns whether that changed.
    pub(super) fn carries(&mut self, link: LinkIndex, carries: bool) -> bool {
        let Some(down) = self.down.get_mut(link.0) else { return false };
        core::mem::replace(down, !carries) == carries
    }

    /// Discounts a time in which this daemon itself did not run.
    pub(super) fn forgive(&mut self, now: Instant, pause: Duration) {
        for peer in &mut self.peers {
            let heard = peer.paths.iter_mut().filter_map(|path| path.heard.as_mut());
            for at in heard.chain(peer.hears_us.as_mut().map(|(_, at)| at)) {
                *at = (*at + pause).min(now);
            }
        }
    }

    /// The links on which each member is heard now, for a beat of ours. Also judges all links; [`Self::next_change`] has the
    /// changes.
    pub(super) fn beat(&mut self, now: Instant) -> BTreeMap<MemberIndex, u32> {
        let mut hears = BTreeMap::new();
        let mut changes: BTreeMap<(LinkIndex, LinkDirections), Vec<MemberIndex>> = BTreeMap::new();
        for (index, peer) in (0..).map(MemberIndex).zip(&mut self.peers) {
            update_states(peer, now, &self.timing);
            let bits = peer.paths.iter().filter(|path| path.is_heard(now, &self.timing));
            let bits = bits.fold(0, |bits, path| bits | 1 << path.link.0);
            if bits != 0 {
                hears.insert(index, bits);
            }
            for path in &mut peer.paths {
                // The log already has what this machine itself said of the link.
                let is_down =
                    self.down.get(path.link.0) == Some(&true) || self.down.get(path.out.0) == Some(&true);
                if path.way != LinkDirections::Untested && path.way != path.reported && !is_down {
                    path.reported = path.way;
                    changes.entry((path.out, path.way)).or_default().push(index);
                }
            }
        }
        self.changes.extend(changes.into_iter().map(|((link, way), members)| LinkReport {
            link,
            way,
            members,
        }));
        hears
    }

    pub(super) fn next_change(&mut self) -> Option<LinkReport> {
        self.changes.pop_front()
    }

    /// Whether the link tests are over, so that the first group may be claimed. A member that was not heard yet is
    /// waited for from our start, any other from its first frame, for the mute time in both cases. In a cluster that
    /// was just switched on, voters grant nothing before that. A dead cable must not keep services down for longer.
    pub(super) fn are_tested(&self, now: Instant) -> bool {
        let waits = |peer: &LinkPeer| {
            let untested = peer.paths.iter().any(|path| path.way == LinkDirections::Untested);
            untested && !peer.is_strange && now.since(peer.first.unwrap_or(self.started)) < self.timing.mute
        };
        !self.peers.iter().any(waits)
    }
}

impl LinkPath {
    /// The state of the link that counts.
    pub(super) const fn way(&self) -> LinkDirections {
        self.way
    }

    /// When it last brought a frame that was new.
    pub(super) const fn heard(&self) -> Option<Instant> {
        self.heard
    }

    fn is_heard(&self, now: Instant, timing: &NativeTiming) -> bool {
        self.heard.is_some_and(|at| now.since(at) < timing.silent)
    }
}

/// Updates what each link of a member looks like now. What has lasted for [`NativeTiming::link_test`] counts.
fn update_states(peer: &mut LinkPeer, now: Instant, timing: &NativeTiming) {
    let is_up = peer.paths.iter().any(|path| path.is_heard(now, timing));
    let hears_us =
        peer.hears_us.filter(|(_, at)| is_up && now.since(*at) < timing.silent).map(|(links, _)| links);
    for path in &mut peer.paths {
        let seems = match hears_us.map(|links| links >> path.out.0 & 1 == 1) {
            None => LinkDirections::Untested,
            Some(theirs) => match (path.is_heard(now, timing), theirs) {
                (true, true) => LinkDirections::Both,
                (true, false) => LinkDirections::OnlyHere,
                (false, true) => LinkDirections::OnlyThere,
                (false, false) => LinkDirections::Neither,
            },
        };
        if path.seems.0 != seems {
            path.seems = (seems, now);
        }
        if now.since(path.seems.1) >= timing.link_test {
            path.way = seems;
        }
    }
}

/// The links between a member and us, in the order of their numbers.
fn paths(plan: &NativePlan, member: plan::NativeMember, now: Instant) -> Vec<LinkPath> {
    let path = |link: usize, out: usize| LinkPath {
        link: LinkIndex(link),
        out: LinkIndex(out),
        newest: LastHeard { generation: 0, number: 0 },
        heard: None,
        way: LinkDirections::Untested,
        seems: (LinkDirections::Untested, now),
        reported: LinkDirections::Both,
    };
    let witness = |WitnessIndex(witness): WitnessIndex| plan.links.len() + witness;
    match (plan.me, member) {
        (me, member) if me == member => Vec::new(),
        (plan::NativeMember::Node(me), plan::NativeMember::Node(other)) => {
            let joins = |link: &usize| {
                let ends = &plan.links[*link].ends;
                ends[me.0].is_some() && ends[other.0].is_some()
            };
            (0..plan.links.len()).filter(joins).map(|link| path(link, link)).collect()
        }
        (plan::NativeMember::Node(_), plan::NativeMember::Witness(other)) => {
            alloc::vec![path(witness(other), witness(other))]
        }
        (plan::NativeMember::Witness(me), plan::NativeMember::Node(_)) => {
            alloc::vec![path(witness(me), witness(me))]
        }
        (plan::NativeMember::Witness(me), plan::NativeMember::Witness(other)) => {
            alloc::vec![path(witness(me), witness(other))]
        }
    }
}
