//! The links as the native dialect sees them: which of them carry frames between each other member and us, and which
//! way. A node's link has the place that it has in the plan; after those comes one for each witness, in their order: the
//! way between that witness and everybody else.
//!
//! What a link brings is seen here. What it takes is told by the other side: its beats say on which links it hears us.
//! Both ways are believed after [`Timing::link_test`], and so is everything else: one lost beat is no news.
//!
//! Who is heard on any link is heard. Whether it hears us is told by its echoes of our beats, whatever links they took:
//! an echo has gone both ways by itself, so neither a claim nor a renewal asks for the state of any single link. (Two that
//! do not vote have no echoes of each other, and need none.) The
//! test of links is there so that people learn of a dead cable before they need it, and that no node takes up its work
//! on a cluster whose cables nobody has looked at.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::net::SocketAddr;

use crate::{
    model::{
        identity::{Heard, LinkIndex, MemberIndex, NodeIndex},
        time::{Duration, Instant},
    },
    native::{
        plan::{self, Plan, WitnessIndex},
        status::Way,
        timing::Timing,
    },
};

mod home;

use home::Home;

/// A link between one other member and us.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// The link on which its frames come.
    pub link: LinkIndex,
    /// The link on which ours go.
    pub out: LinkIndex,
    /// The newest frame that it brought: a recording of older ones keeps no link alive.
    newest: Heard,
    /// When it brought that.
    heard: Option<Instant>,
    /// What counts.
    way: Way,
    /// What it looks like, and since when.
    seems: (Way, Instant),
    /// What was last told of it.
    told: Way,
}

#[derive(Debug)]
struct Peer {
    paths: Vec<Path>,
    /// On which links it hears us, as its newest beat says, and when that came. None if that means nothing here.
    hears_us: Option<(u32, Instant)>,
    /// Its file is not ours: its links cannot be tested.
    is_strange: bool,
    /// When it was first heard.
    first: Option<Instant>,
    /// Where to answer it, if it is on no link of the plan's.
    home: Home,
}

/// The state. See the module's text.
#[derive(Debug)]
pub(super) struct Links {
    /// By member; ours has no paths.
    peers: Vec<Peer>,
    nodes: usize,
    links: usize,
    me: plan::Member,
    timing: Timing,
    started: Instant,
    /// By link: this machine itself says that it carries nothing.
    down: Vec<bool>,
    news: VecDeque<News>,
}

/// What changed of one link, to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub link: LinkIndex,
    pub way: Way,
    pub members: Vec<MemberIndex>,
}

impl Links {
    pub(super) fn new(plan: &Plan, now: Instant) -> Self {
        let all = (0..plan.nodes.len()).map(|node| plan::Member::Node(NodeIndex(node)));
        let all = all.chain((0..plan.witnesses.len()).map(|w| plan::Member::Witness(WitnessIndex(w))));
        let peer = |member| Peer {
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
            news: VecDeque::new(),
        }
    }

    /// How many there are, those to witnesses included.
    pub(super) fn count(&self) -> usize {
        self.down.len()
    }

    /// Whether this member is connected to it, and so is somebody else: links of others are nothing that could be down here.
    pub(super) fn is_ours(&self, link: LinkIndex) -> bool {
        self.peers.iter().flat_map(|peer| &peer.paths).any(|path| path.link == link || path.out == link)
    }

    /// The witness to which a link goes.
    pub(super) fn witness(&self, link: LinkIndex) -> Option<WitnessIndex> {
        link.0.checked_sub(self.links).filter(|_| link.0 < self.count()).map(WitnessIndex)
    }

    /// Whether this member may speak on this link: between nodes every node, on a witness's link that witness, and where
    /// we are the witness, everybody.
    pub(super) fn may_speak(&self, member: MemberIndex, link: LinkIndex) -> bool {
        let index = member.place();
        match self.witness(link) {
            None => index < self.nodes,
            Some(witness) if plan::Member::Witness(witness) == self.me => true,
            Some(witness) => index == self.nodes + witness.0,
        }
    }

    /// The links between a member and us.
    pub(super) fn paths(&self, member: MemberIndex) -> &[Path] {
        self.peers.get(member.place()).map_or(&[], |peer| &peer.paths)
    }

    /// Where to send to a member on our own witness's link.
    pub(super) fn home(&self, member: MemberIndex) -> Option<SocketAddr> {
        self.peers.get(member.place())?.home.address()
    }

    /// An authentic frame of a member came to a witness's link from this address; `at`: the address that it says itself.
    pub(super) fn came_from(
        &mut self,
        now: Instant,
        member: MemberIndex,
        frame: Heard,
        from: SocketAddr,
        at: Option<SocketAddr>,
    ) {
        let patience = self.timing.silent;
        let Some(peer) = self.peers.get_mut(member.place()) else { return };
        let is_deaf = peer.hears_us.is_some_and(|(links, _)| links == 0);
        peer.home.came(now, patience, is_deaf, frame, from, at);
    }

    /// An authentic frame of a member came on a link.
    pub(super) fn heard(&mut self, now: Instant, link: LinkIndex, member: MemberIndex, frame: Heard) {
        let Some(peer) = self.peers.get_mut(member.place()) else { return };
        peer.first.get_or_insert(now);
        let Some(path) = peer.paths.iter_mut().find(|path| path.link == link && path.newest < frame) else {
            return;
        };
        path.newest = frame;
        path.heard = Some(now);
    }

    /// A beat of a member says on which links it hears us. If its file is not ours, its links have other places: nothing
    /// follows then, but for a witness, to which there is one way only.
    pub(super) fn told(&mut self, now: Instant, member: MemberIndex, hears_us: u32, has_our_file: bool) {
        let only_way = self.is_only_way(member);
        let Some(peer) = self.peers.get_mut(member.place()) else { return };
        let hears_us = match only_way {
            true if hears_us != 0 => u32::MAX,
            _ => hears_us,
        };
        peer.is_strange = !has_our_file && !only_way;
        peer.hears_us = (!peer.is_strange).then_some((hears_us, now));
        judge(peer, now, &self.timing);
    }

    /// Whether a member hears us on any link, as its newest beat says; none if its file is not ours.
    pub(super) fn is_heard_by(&self, now: Instant, member: MemberIndex) -> Option<bool> {
        let peer = self.peers.get(member.place()).filter(|peer| !peer.is_strange)?;
        let is_fresh = |at: Instant| now.since(at) < self.timing.silent;
        Some(peer.hears_us.is_some_and(|(links, at)| links != 0 && is_fresh(at)))
    }

    fn is_only_way(&self, member: MemberIndex) -> bool {
        member.place() >= self.nodes || matches!(self.me, plan::Member::Witness(_))
    }

    /// This machine says that a link can or cannot carry frames. Tells whether that is news.
    pub(super) fn carries(&mut self, link: LinkIndex, carries: bool) -> bool {
        let Some(down) = self.down.get_mut(link.0) else { return false };
        core::mem::replace(down, !carries) == carries
    }

    /// We ourselves did not run for so long.
    pub(super) fn forgive(&mut self, now: Instant, pause: Duration) {
        for peer in &mut self.peers {
            let heard = peer.paths.iter_mut().filter_map(|path| path.heard.as_mut());
            for at in heard.chain(peer.hears_us.as_mut().map(|(_, at)| at)) {
                *at = (*at + pause).min(now);
            }
        }
    }

    /// On which links each member is heard now, for a beat of ours. What changed is judged, and told by [`Self::news`].
    pub(super) fn beat(&mut self, now: Instant) -> BTreeMap<MemberIndex, u32> {
        let mut hears = BTreeMap::new();
        let mut changes: BTreeMap<(LinkIndex, Way), Vec<MemberIndex>> = BTreeMap::new();
        for (index, peer) in (0..).map(MemberIndex).zip(&mut self.peers) {
            judge(peer, now, &self.timing);
            let bits = peer.paths.iter().filter(|path| path.is_heard(now, &self.timing));
            let bits = bits.fold(0, |bits, path| bits | 1 << path.link.0);
            if bits != 0 {
                hears.insert(index, bits);
            }
            for path in &mut peer.paths {
                // What this machine itself has said of the link says enough.
                let is_down =
                    self.down.get(path.link.0) == Some(&true) || self.down.get(path.out.0) == Some(&true);
                if path.way != Way::Untested && path.way != path.told && !is_down {
                    path.told = path.way;
                    changes.entry((path.out, path.way)).or_default().push(index);
                }
            }
        }
        self.news.extend(changes.into_iter().map(|((link, way), members)| News { link, way, members }));
        hears
    }

    pub(super) fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Whether every link was tested once, so that the first group may be claimed. Waited for are, from our start, those
    /// who were not heard yet, and from its first word each other, as long as a voter is mute after its start: before
    /// that nobody grants anything in a cluster that has just been switched on, and a dead cable must not keep services
    /// down.
    pub(super) fn are_tested(&self, now: Instant) -> bool {
        let waits = |peer: &Peer| {
            let untested = peer.paths.iter().any(|path| path.way == Way::Untested);
            untested && !peer.is_strange && now.since(peer.first.unwrap_or(self.started)) < self.timing.mute
        };
        !self.peers.iter().any(waits)
    }
}

impl Path {
    /// What counts.
    pub(super) const fn way(&self) -> Way {
        self.way
    }

    /// When it last brought something new.
    pub(super) const fn heard(&self) -> Option<Instant> {
        self.heard
    }

    fn is_heard(&self, now: Instant, timing: &Timing) -> bool {
        self.heard.is_some_and(|at| now.since(at) < timing.silent)
    }
}

/// What each link of a member looks like now; what has looked so for long enough, counts.
fn judge(peer: &mut Peer, now: Instant, timing: &Timing) {
    let is_up = peer.paths.iter().any(|path| path.is_heard(now, timing));
    let hears_us =
        peer.hears_us.filter(|(_, at)| is_up && now.since(*at) < timing.silent).map(|(links, _)| links);
    for path in &mut peer.paths {
        let seems = match hears_us.map(|links| links >> path.out.0 & 1 == 1) {
            None => Way::Untested,
            Some(theirs) => match (path.is_heard(now, timing), theirs) {
                (true, true) => Way::Both,
                (true, false) => Way::OnlyHere,
                (false, true) => Way::OnlyThere,
                (false, false) => Way::Neither,
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

/// The links between a member and us, in the order of their places.
fn paths(plan: &Plan, member: plan::Member, now: Instant) -> Vec<Path> {
    let path = |link: usize, out: usize| Path {
        link: LinkIndex(link),
        out: LinkIndex(out),
        newest: Heard { generation: 0, number: 0 },
        heard: None,
        way: Way::Untested,
        seems: (Way::Untested, now),
        told: Way::Both,
    };
    let witness = |WitnessIndex(witness): WitnessIndex| plan.links.len() + witness;
    match (plan.me, member) {
        (me, member) if me == member => Vec::new(),
        (plan::Member::Node(me), plan::Member::Node(other)) => {
            let joins = |link: &usize| {
                let ends = &plan.links[*link].ends;
                ends[me.0].is_some() && ends[other.0].is_some()
            };
            (0..plan.links.len()).filter(joins).map(|link| path(link, link)).collect()
        }
        (plan::Member::Node(_), plan::Member::Witness(other)) => {
            alloc::vec![path(witness(other), witness(other))]
        }
        (plan::Member::Witness(me), plan::Member::Node(_)) => alloc::vec![path(witness(me), witness(me))],
        (plan::Member::Witness(me), plan::Member::Witness(other)) => {
            alloc::vec![path(witness(me), witness(other))]
        }
    }
}
