//! Handing over a group of ours: to which node, when, and why not.

use alloc::{format, string::String};

use super::*;

impl Ownership {
    /// Hands a group of ours to a node, or with `None` to the best one. Waits for the node if it cannot take the group
    /// yet.
    pub fn give(
        &mut self,
        view: &NativeView<'_>,
        group: GroupIndex,
        to: Option<NodeIndex>,
        order: Option<Asker>,
    ) {
        self.rank(view);
        let name = &view.plan.groups[group.0].name;
        if let Err(reason) = self.may_give(view, group, to) {
            if let Some(order) = order {
                self.answer(order, Answer::Refused(format!("{name}: {reason}")));
            }
            return;
        }
        match self.taker(view, group, to) {
            Ok(to) => self.hand_over(view, group, Giving { to: Some(to), order, failed: false }),
            Err(why) => {
                self.wait_for_taker(view, group, Wish { to, order, why, since: view.now, until: None });
            }
        }
    }

    /// The node that could take the group now: `to`, or with `None` the best one. The error says why no node could.
    pub(super) fn taker(
        &self,
        view: &NativeView<'_>,
        group: GroupIndex,
        to: Option<NodeIndex>,
    ) -> Result<NodeIndex, String> {
        let mut first = None;
        for node in self.ranking(group).iter().copied().filter(|node| *node != view.me) {
            if to.is_some_and(|to| to != node) {
                continue;
            }
            match self.unready(view, group, node) {
                None => return Ok(node),
                Some(why) => first = first.or(Some(why)),
            }
        }
        Err(first.unwrap_or_else(|| "no other node may run it now".into()))
    }

    /// Why a group must not be handed over to a node yet.
    pub(super) fn unready(
        &self,
        view: &NativeView<'_>,
        group: GroupIndex,
        node: NodeIndex,
    ) -> Option<String> {
        let name = &view.plan.nodes[node.0].name;
        if breakage::is(Breakage::TakerNotAsked) {
            return None;
        }
        if !view.nodes[node.0].is_ready() {
            return Some(format!(
                "{name} could not claim it yet: it has just started, or no majority hears it"
            ));
        }
        // If clients reach the group on neither node, a person may have a reason to move it.
        let is_worse = self.is_unreachable(group, node) && !self.is_unreachable(group, view.me);
        is_worse.then(|| format!("clients would not reach it on {name}: an interface there carries nothing"))
    }

    pub(super) fn wait_for_taker(&mut self, view: &NativeView<'_>, group: GroupIndex, wish: Wish) {
        let wait = TAKER_WAIT.max(view.plan.timing.mute * 2);
        let text = format!("is to be handed over and waits at most {} s: {}", wait.as_secs(), wish.why);
        self.note(Level::Info, Some(group), text);
        let desk = &mut self.desks[group.0];
        assert!(
            desk.giving.is_none() && desk.wish.is_none(),
            "{}: handed over twice",
            view.plan.groups[group.0].name
        );
        desk.wish = Some(Wish { until: Some(view.now + wait), ..wish });
        self.touch(group);
    }

    /// Looks at a handover that waits: whether a node can take the group now. Returns when to look again.
    pub(super) fn look_at_wish(&mut self, view: &NativeView<'_>, group: GroupIndex) -> Option<Instant> {
        let Wish { to, order, since, until, .. } = self.desks[group.0].wish.take()?;
        if order.is_none() && !self.is_standby() {
            return None;
        }
        let why = match self.may_give(view, group, to) {
            Err(why) => {
                self.refuse(view, group, order, &why);
                return None;
            }
            Ok(()) => match self.taker(view, group, to) {
                Ok(to) => {
                    self.hand_over(view, group, Giving { to: Some(to), order, failed: false });
                    return None;
                }
                Err(why) => why,
            },
        };
        if until.is_some_and(|until| until <= view.now) {
            self.note(Level::Warning, Some(group), format!("was to be handed over and stays here: {why}"));
            self.refuse(view, group, order, &why);
            if order.is_none() {
                self.desks[group.0].wish = Some(Wish { to, order, why, since, until: None });
            }
            return None;
        }
        self.desks[group.0].wish = Some(Wish { to, order, why, since, until });
        until
    }

    /// The handover that waits: why it waits, since when, and until when.
    pub(in crate::native) fn waiting(&self, group: GroupIndex) -> Option<(&str, Instant, Option<Instant>)> {
        let Wish { why, since, until, .. } = self.desks[group.0].wish.as_ref()?;
        Some((why, *since, *until))
    }

    pub(super) fn refuse(
        &mut self,
        view: &NativeView<'_>,
        group: GroupIndex,
        order: Option<Asker>,
        why: &str,
    ) {
        if let Some(order) = order {
            let name = &view.plan.groups[group.0].name;
            self.answer(order, Answer::Refused(format!("{name}: {why}")));
        }
    }

    /// Begins to hand over the group's family, as far as it is ours.
    pub(super) fn hand_over(&mut self, view: &NativeView<'_>, group: GroupIndex, giving: Giving) {
        self.touch(group);
        let family = Arc::clone(&self.families[group.0]);
        // No other node may run the whole family, so its other groups stay.
        let alone = giving.failed && self.ranking(group).iter().all(|node| *node == view.me);
        let given = |member: &GroupIndex| *member == group || (!alone && view.holds(*member).is_some());
        for member in family.iter().copied().filter(given) {
            let desk = &mut self.desks[member.0];
            if desk.giving.is_none() {
                assert!(!desk.released, "{}: handed over after its release", view.plan.groups[member.0].name);
                let wished = desk.wish.take().and_then(|wish| wish.order);
                let order = giving.order.filter(|_| member == group).or(wished);
                desk.giving = Some(Giving { order, ..giving.clone() });
                self.note(Level::Info, Some(member), "is being handed over".into());
                if !view.at_rest(member) {
                    self.steps.push_back(NativeStep::Stop(member));
                }
            }
        }
        self.came_to_rest(view, group);
    }

    pub(super) fn may_give(
        &self,
        view: &NativeView<'_>,
        group: GroupIndex,
        to: Option<NodeIndex>,
    ) -> Result<(), String> {
        if view.holds(group).is_none() {
            return Err("it is not owned here".into());
        }
        if self.is_frozen(group) && self.leaving.is_none() {
            return Err("it is frozen, or the cluster is in maintenance: end that first".into());
        }
        if let Some(disputed) = view.disputed(self.family(group)) {
            return Err(format!("no node would start it: {disputed}"));
        }
        if self.desks[group.0].giving.is_some() || self.desks[group.0].wish.is_some() {
            return Err("it is being handed over already".into());
        }
        let ranking = self.ranking(group);
        match to {
            Some(to) if to == view.me => Err("it is here already".into()),
            Some(to) if !view.nodes.get(to.0).is_some_and(|node| node.up) => {
                Err(format!("{} is not heard", view.plan.nodes[to.0].name))
            }
            Some(to) if !view.plan.groups[group.0].candidates.contains(&to) => {
                Err(format!("{} is not among its `nodes`", view.plan.nodes[to.0].name))
            }
            Some(to) if !ranking.contains(&to) => Err(self.blocked_candidate(view, group, to).to_string()),
            None if ranking.iter().all(|node| *node == view.me) => {
                let others = view.plan.groups[group.0].candidates.iter().filter(|node| **node != view.me);
                let why: Vec<String> =
                    others.map(|node| self.blocked_candidate(view, group, *node).to_string()).collect();
                Err(match &why[..] {
                    [] => "its `nodes` name no other node".into(),
                    why => format!("no other node may run it now: {}", why.join(", ")),
                })
            }
            _ => Ok(()),
        }
    }

    /// Why a candidate that is not in the ranking may not have the group now.
    pub(in crate::native) fn blocked_candidate(
        &self,
        view: &NativeView<'_>,
        group: GroupIndex,
        node: NodeIndex,
    ) -> BlockedCandidate {
        BlockedCandidate {
            node: view.plan.nodes[node.0].name.clone(),
            reason: self.candidate_reason(view, group, node),
        }
    }

    pub(super) fn candidate_reason(
        &self,
        view: &NativeView<'_>,
        group: GroupIndex,
        node: NodeIndex,
    ) -> CandidateReason {
        let name = |group: &GroupIndex| -> String { view.plan.groups[group.0].name.clone() };
        let is_me = node == view.me;
        let known = &view.nodes[node.0];
        if !is_me && !known.up {
            return CandidateReason::Silent;
        }
        let is_standby = if is_me { self.is_standby() } else { known.standby };
        if is_standby {
            return CandidateReason::Standby;
        }
        let is_unable = |member: &&GroupIndex| match is_me {
            true => self.is_unable(view.now, **member),
            false => known.unable.contains(*member),
        };
        if let Some(member) = self.family(group).iter().find(is_unable) {
            return CandidateReason::Unable { group: name(member) };
        }
        let is_there =
            |other: &GroupIndex| view.owner(*other).is_some_and(|owner| owner.node(view.me) == node);
        let kept_away = self.kept_away(view.plan, group);
        match kept_away.iter().find(|other| is_there(other)) {
            Some(other) => CandidateReason::Apart { group: name(other) },
            None => CandidateReason::Elsewhere,
        }
    }
}
