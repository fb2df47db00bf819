//! Handles a start beside a real heartbeat that says nothing moves there, although neither node holds one of the sets.
//! There are two possible reasons. Our previous run may have ended in the middle of a hand-over, or so suddenly that
//! the peer did not notice (it goes by silence alone). Or the peer is just starting a set that we gave it: a real
//! heartbeat counts such a set as held only when all of it runs. It waits for the end of a hand-over for an hour, and
//! cannot even be stopped meanwhile.
//!
//! So a set that neither node holds is claimed but not started. (Without a claim the peer would complain that nobody
//! owns it.) The peer is then offered its own set by a hand-over. An idle peer answers and takes it. A peer that is
//! starting the set we claim says so when it has started it. A peer that waits for our previous run does neither; it is
//! told that everything is done, with an empty set. Then the rest is started.

use alloc::format;

use super::{AskStep, Body, Handover, Holding, Level, PendingMessage, R1Ownership, R1State, R1Step, R1View};

impl R1Ownership {
    /// Whether the holdings of a settled peer leave this doubt. They do not if the peer has started while we did: it
    /// holds nothing at first.
    pub(super) fn doubts(&self, view: &R1View<'_>) -> bool {
        let was_there = self.state == R1State::Starting && !self.peer_has_asked;
        was_there && !view.peer_locum && !self.free().is_none()
    }

    /// The sets that neither node says it holds.
    fn free(&self) -> Holding {
        Holding::All.minus(self.mine.plus(self.theirs()))
    }

    /// Settles without starting anything, and asks the peer.
    pub(super) fn begin_doubt(&mut self, view: &R1View<'_>) {
        self.doubt = self.free();
        self.mine = self.mine.plus(self.doubt);
        self.settle_at = None;
        self.state = R1State::Stable;
        let text = format!(
            "{} has settled and no node held {}: asking it whether a hand-over is under way",
            view.name(),
            super::words(self.doubt)
        );
        self.note(Level::Info, text);
        self.say_holdings(true, None);
        let _ = self.offer(view, Holding::Foreign, None);
    }

    /// The settled peer has announced its holdings. If they include what we claim, the peer was starting it.
    pub(super) fn withdraw_claim(&mut self) {
        let held = self.doubt.and(self.theirs());
        if held.is_none() {
            return;
        }
        self.mine = self.mine.minus(held);
        if matches!(self.handover, Handover::Offered { .. }) {
            self.handover = Handover::Idle;
        }
        self.end_doubt();
    }

    /// Nothing is under way any more: starts what is left of our claim.
    pub(super) fn end_doubt(&mut self) {
        let left = core::mem::replace(&mut self.doubt, Holding::None).and(self.mine);
        if left.is_none() {
            return;
        }
        self.steps.push_back(R1Step::Want(left, true));
        for (set, task) in
            [(Holding::Local, PendingMessage::Own), (Holding::Foreign, PendingMessage::MachDown)]
        {
            if !set.and(left).is_none() {
                self.add_task(task);
            }
        }
    }

    /// The peer does not answer: it waits for the end of a hand-over. Two such messages make it leave either half of
    /// the hand-over, and start nothing.
    pub(super) fn release_peer(&mut self) {
        if self.doubt.is_none() {
            return;
        }
        for _ in 0..2 {
            self.say(Body::AskResources { hold: Holding::None, step: AskStep::Done });
        }
        self.failback_due = true;
        self.end_doubt();
    }
}
