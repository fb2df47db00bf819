//! Reload in place: a daemon that must use other files ends and starts again without stopping anything (behaviour
//! reference, section 1: HUP). The old run says no goodbye. The new run starts with the sets that the old one held, and
//! announces that from its first frame on, so that the peer takes nothing and gives nothing back. A real peer reads
//! holdings only in `resource`, so it gets one right after `starting`.

use super::*;

/// How long a reload waits for everything to come to rest.
pub(super) const RELOAD_WAIT: Duration = Duration::from_secs(60);

impl R1Ownership {
    /// Handles an order to reload in place: at once, or when nothing moves any more. A hand-over under way could not
    /// survive the reload.
    pub fn order_reload(&mut self, view: &R1View<'_>, order: OrderId) {
        if let Some((earlier, _)) = self.reload.replace((order, view.now + RELOAD_WAIT)) {
            self.refuse_reload(earlier, "replaced by a newer order");
        }
        if let Some(why) = self.unsettled(view) {
            self.note(Level::Info, format!("Restart delayed: {why}."));
        }
        self.reload_goes_on(view);
    }

    /// Carries out or refuses the ordered reload, if the time for it has come.
    pub fn reload_goes_on(&mut self, view: &R1View<'_>) {
        let Some((order, until)) = self.reload else { return };
        let why = self.unsettled(view);
        let is_leaving = self.leave.is_some() || matches!(self.state, R1State::Leaving | R1State::Left);
        match why {
            None => {
                self.state = R1State::Left;
                self.answer(order, Answer::Done("reloading in place; running groups stay up".into()));
                self.steps.push_back(R1Step::Reloaded(self.mine));
            }
            Some(why) if is_leaving || view.now >= until => self.refuse_reload(order, &why),
            Some(_) => return,
        }
        self.reload = None;
    }

    fn refuse_reload(&mut self, order: OrderId, why: &str) {
        self.answer(order, Answer::Refused(format!("reload refused: {why}")));
    }

    fn unsettled(&self, view: &R1View<'_>) -> Option<String> {
        if self.leave.is_some() || matches!(self.state, R1State::Leaving | R1State::Left) {
            return Some("this node is leaving".into());
        }
        if self.state != R1State::Stable {
            return Some("this node has not settled yet".into());
        }
        if self.restart_at.is_some() || !self.contested().is_none() {
            return Some("a partition has just healed".into());
        }
        if self.takeover.is_some() {
            return Some("the peer was asked for resources".into());
        }
        let misplaced = view.groups.of(Holding::All).find(|group| {
            let held = view.groups.of(self.mine).any(|mine| mine == *group);
            if held { !view.groups.is_acquired(*group) } else { !view.groups.is_released(*group) }
        });
        self.moving(view).or_else(|| {
            misplaced.map(|group| format!("group {} is not as it should be", view.groups.key(group)))
        })
    }

    /// Starts with the sets that the previous run left running.
    pub(super) fn go_on_with(&mut self, kept: Holding) {
        self.is_reloaded = true;
        self.mine = kept;
        // If this node kept everything, a silent peer has nothing to be fenced for.
        self.peer_may_hold = kept != Holding::All;
        self.steps.push_back(R1Step::Keep(kept));
        self.note(Level::Info, format!("reloaded in place, still holding {}", words(kept)));
    }

    /// The sets that this run kept, as long as the peer has not heard of them in the usual way.
    #[must_use]
    pub const fn keeps(&self) -> Option<Holding> {
        match self.state {
            R1State::Init | R1State::Starting | R1State::BothStarting | R1State::Received
                if self.is_reloaded =>
            {
                Some(self.mine)
            }
            _ => None,
        }
    }

    /// Asks for the peer's holdings.
    pub(super) fn say_starting(&mut self) {
        self.say(Body::Starting);
        if self.is_reloaded {
            self.say_holdings(false, None);
        }
    }

    /// The peer starts. Either it holds nothing, and its set is given back to it; or it kept its sets, and nothing
    /// moves. A real heartbeat announces a fresh start and a reload in the same words. So a real peer gets its set back
    /// only if we saw it dead or gone before, which is how heartbeat itself decides.
    pub(super) fn begin_anew(&mut self, view: &R1View<'_>) {
        self.theirs = Some(view.peer_keeps.unwrap_or(Holding::None));
        let has_returned = core::mem::take(&mut self.peer_was_gone) || view.peer_locum;
        self.failback_due |= has_returned && view.peer_keeps.is_none();
    }

    /// A restarted real peer has announced its holdings: takes our own set if neither node holds it.
    pub(super) fn go_home(&mut self, view: &R1View<'_>) {
        if !core::mem::take(&mut self.home_due) || view.peer_locum || self.leave.is_some() {
            return;
        }
        if !self.mine.has_local() && !self.theirs().has_local() && self.handover == Handover::Idle {
            self.acquire_local();
        }
    }
}
