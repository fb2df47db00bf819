//! Whether clients would reach a set on the node that is to get it. Nodes of Locum tell each other which groups are
//! unreachable there, because an interface carries nothing. A planned hand-over (failback, `standby`, `takeover`) waits
//! for that interface. A real heartbeat announces nothing of this and is given its groups at once. A goodbye, a death
//! and a failed start never wait.

use super::*;

/// How long an order waits until clients would reach the set on its new node; then it is refused with the reason.
pub const REACH_WAIT: Duration = Duration::from_secs(30);

/// An administrator's order that waits for an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitingOrder {
    order: OrderId,
    set: Holding,
    gives: bool,
    pub(super) until: Instant,
}

impl WaitingOrder {
    pub(super) fn gives(order: OrderId, set: Holding, now: Instant) -> Self {
        Self { order, set, gives: true, until: now + REACH_WAIT }
    }

    pub(super) fn takes(order: OrderId, set: Holding, now: Instant) -> Self {
        Self { order, set, gives: false, until: now + REACH_WAIT }
    }
}

impl R1Ownership {
    /// The reason of a waiting planned hand-over, and for an order until when it waits.
    #[must_use]
    pub fn waiting(&self, view: &R1View<'_>) -> Option<(String, Option<Instant>)> {
        if let Some(WaitingOrder { set, gives, until, .. }) = self.wish {
            let why =
                if gives { self.unreachable_there(view, set) } else { self.unreachable_here(view, set) };
            return Some((why?, Some(until)));
        }
        let is_due = self.failback_due && self.failback != AutoFailback::Off && !self.theirs().has_foreign();
        let why = (is_due && self.in_flux(view).is_none())
            .then(|| self.unreachable_there(view, Holding::Foreign))
            .flatten()?;
        Some((why, None))
    }

    /// Why clients would not reach a set of ours on the peer, although they reach it here.
    pub(super) fn unreachable_there(&self, view: &R1View<'_>, set: Holding) -> Option<String> {
        let told = if view.peer_locum && !breakage::is(Breakage::TakerNotAsked) {
            view.peer_unreachable
        } else {
            &[]
        };
        let mut groups = view.groups.of(set.and(self.mine));
        let group = groups.find(|group| told.contains(group) && !view.unreachable.contains(group))?;
        Some(unreachable(view.groups.key(group), view.name()))
    }

    /// Why clients would not reach a set here, although they reach it on the peer.
    pub(super) fn unreachable_here(&self, view: &R1View<'_>, set: Holding) -> Option<String> {
        let mut groups = view.groups.of(set.minus(self.mine));
        let group = groups
            .find(|group| view.unreachable.contains(group) && !view.peer_unreachable.contains(group))?;
        Some(unreachable(view.groups.key(group), "this node"))
    }

    pub(super) fn wait_for_reach(&mut self, view: &R1View<'_>, wish: WaitingOrder, why: &str) {
        if self.wish.is_some() {
            return self.answer(wish.order, Answer::Refused("another hand-over waits already".into()));
        }
        let wait = wish.until.since(view.now).as_secs();
        self.note(Level::Info, format!("the hand-over waits at most {wait} s: {why}"));
        self.wish = Some(wish);
    }

    /// Goes on with the waiting order, or refuses it when its time is over.
    pub(super) fn wish_goes_on(&mut self, view: &R1View<'_>) {
        let Some(WaitingOrder { order, set, gives, until }) = self.wish else { return };
        let why = if gives { self.unreachable_there(view, set) } else { self.unreachable_here(view, set) };
        match why {
            Some(why) if view.now >= until => self.end_wish(&why),
            Some(_) => {}
            None => {
                self.wish = None;
                if gives {
                    self.order_standby(view, order, set)
                } else {
                    self.order_takeover(view, order, set)
                }
            }
        }
    }

    pub(super) fn end_wish(&mut self, why: &str) {
        if let Some(wish) = self.wish.take() {
            self.answer(wish.order, Answer::Refused(why.into()));
        }
    }

    /// The peer's unreachable groups have changed: its own set may be able to return.
    pub fn peer_carries(&mut self, view: &R1View<'_>) {
        self.wish_goes_on(view);
        if self.state == R1State::Stable && self.handover == Handover::Idle {
            self.fail_back(view);
        }
    }

    /// Interfaces of these groups carry something here again: tries failed starts again.
    pub fn interfaces_back(&mut self, view: &R1View<'_>, groups: &[GroupIndex]) {
        self.wish_goes_on(view);
        for set in [Holding::Local, Holding::Foreign] {
            if view.groups.of(set).any(|group| groups.contains(&group)) {
                let _ = self.start_again(view, set);
            }
        }
    }

    /// Starts our failed groups again if nothing else is under way. Returns a text about it.
    pub(super) fn start_again(&mut self, view: &R1View<'_>, set: Holding) -> Option<String> {
        let is_ours =
            self.state == R1State::Stable && self.leave.is_none() && self.handover == Handover::Idle;
        let failed =
            |group: &GroupIndex| view.groups.failure(*group).is_some() && view.groups.is_released(*group);
        let groups: Vec<GroupIndex> = view.groups.of(set.and(self.mine)).filter(failed).collect();
        if groups.is_empty() || !is_ours {
            return None;
        }
        let keys: Vec<&str> = groups.iter().map(|group| view.groups.key(*group)).collect();
        let text = format!("{} could not be started here, and is tried again now", keys.join(", "));
        self.note(Level::Info, text.clone());
        self.steps.extend(groups.into_iter().map(|group| R1Step::WantGroup(group, true)));
        Some(text)
    }
}

fn unreachable(key: &str, node: &str) -> String {
    format!("clients would not reach {key} on {node}: an interface there carries nothing")
}
