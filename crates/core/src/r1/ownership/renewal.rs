//! A daemon that is to run with other files ends its life and begins the next one without stopping anything (behaviour
//! reference, section 1: HUP). The old life says no goodbye; the new one is born with what the old one held, and says
//! so from its first frame on, so that the peer takes nothing and gives nothing back. A real peer reads holdings in
//! `resource` alone: it is told them right after `starting`.

use super::*;

/// So long the end of what moves is waited for.
pub(super) const RENEWAL_WAIT: Duration = Duration::from_secs(60);

impl R1 {
    /// A person wants the daemon to run with other files: at once, or when nothing moves any more. What is on its way has
    /// no place in the next life.
    pub fn order_renew(&mut self, view: &View<'_>, order: OrderId) {
        if let Some((earlier, _)) = self.renewal.replace((order, view.now + RENEWAL_WAIT)) {
            self.refuse_renewal(earlier, "it was asked for again");
        }
        if let Some(why) = self.unsettled(view) {
            self.note(Level::Info, format!("Restart delayed: {why}."));
        }
        self.renewal_goes_on(view);
    }

    /// Something has happened: it may be time for the renewal that was ordered, or too late.
    pub fn renewal_goes_on(&mut self, view: &View<'_>) {
        let Some((order, until)) = self.renewal else { return };
        let why = self.unsettled(view);
        let is_leaving = self.leave.is_some() || matches!(self.state, State::Leaving | State::Left);
        match why {
            None => {
                self.state = State::Left;
                self.answer(order, Answer::Done("a new life begins, and keeps what runs".into()));
                self.steps.push_back(Step::Renewed(self.mine));
            }
            Some(why) if is_leaving || view.now >= until => self.refuse_renewal(order, &why),
            Some(_) => return,
        }
        self.renewal = None;
    }

    fn refuse_renewal(&mut self, order: OrderId, why: &str) {
        self.answer(order, Answer::Refused(format!("no restart with other files: {why}")));
    }

    fn unsettled(&self, view: &View<'_>) -> Option<String> {
        if self.leave.is_some() || matches!(self.state, State::Leaving | State::Left) {
            return Some("this node is leaving".into());
        }
        if self.state != State::Stable {
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

    /// The life before this one has left this running.
    pub(super) fn go_on_with(&mut self, kept: Holding) {
        self.is_renewed = true;
        self.mine = kept;
        // Whoever had everything has it still, and a silent peer has nothing to be fenced for.
        self.peer_may_hold = kept != Holding::All;
        self.steps.push_back(Step::Keep(kept));
        self.note(Level::Info, format!("restarted, and going on with {}", words(kept)));
    }

    /// What this life has kept, as long as the peer has not heard it in the usual way.
    #[must_use]
    pub const fn keeps(&self) -> Option<Holding> {
        match self.state {
            State::Init | State::Starting | State::BothStarting | State::Received if self.is_renewed => {
                Some(self.mine)
            }
            _ => None,
        }
    }

    /// Asks who holds what.
    pub(super) fn say_starting(&mut self) {
        self.say(Body::Starting);
        if self.is_renewed {
            self.say_holdings(false, None);
        }
    }

    /// The peer begins a life: with nothing, and then its set is given back to it; or with what it had, and then nothing
    /// moves. A real one does not say which: whether it was renewed or started afresh, it asks who holds what and tells
    /// what it holds, in the same words. Its like goes by its own eyes, and so do we: who was dead or gone has come back.
    pub(super) fn begin_anew(&mut self, view: &View<'_>) {
        self.theirs = Some(view.peer_keeps.unwrap_or(Holding::None));
        let has_returned = core::mem::take(&mut self.peer_was_gone) || view.peer_locum;
        self.failback_due |= has_returned && view.peer_keeps.is_none();
    }

    /// A real peer that restarted has told what it holds: is our own set anywhere?
    pub(super) fn go_home(&mut self, view: &View<'_>) {
        if !core::mem::take(&mut self.home_due) || view.peer_locum || self.leave.is_some() {
            return;
        }
        if !self.mine.has_local() && !self.theirs().has_local() && self.handover == Handover::Idle {
            self.acquire_local();
        }
    }
}
