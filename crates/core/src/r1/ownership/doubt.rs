//! A life that begins beside a real heartbeat which says that nothing moves there, although nobody holds one of the
//! sets. Either our last life ended in the middle of a hand-over, or so suddenly that the peer did not notice (it goes
//! by silence alone), or it is just starting what our last life gave it: a real heartbeat counts such a set as held
//! only when all of it runs. It waits for the end of a hand-over for an hour, and cannot even be stopped meanwhile.
//!
//! So what nobody holds is claimed, for else the peer would complain that nobody owns it, but not started; and the
//! peer is asked, in the way of a hand-over, to take what is its own. One that has nothing else to do answers, and
//! takes it; one that is starting what we claim says so when it has; one that waits for our last life does neither,
//! and is told that all is done, with a set of nothing. Then the rest is started.

use alloc::format;

use super::{AskStep, Body, Handover, Holding, Level, R1, State, Step, Task, View};

impl R1 {
    /// Whether the holdings that a settled peer has told leave that doubt. A peer that starts as we do holds nothing at
    /// first.
    pub(super) fn doubts(&self, view: &View<'_>) -> bool {
        let was_there = self.state == State::Starting && !self.peer_has_asked;
        was_there && !view.peer_locum && !self.free().is_none()
    }

    /// What neither node says to hold.
    fn free(&self) -> Holding {
        Holding::All.minus(self.mine.plus(self.theirs()))
    }

    /// Settles, starts nothing, and asks.
    pub(super) fn begin_doubt(&mut self, view: &View<'_>) {
        self.doubt = self.free();
        self.mine = self.mine.plus(self.doubt);
        self.settle_at = None;
        self.state = State::Stable;
        let text = format!(
            "{} has settled, and nobody held {}: asking whether something is under way",
            view.name(),
            super::words(self.doubt)
        );
        self.note(Level::Info, text);
        self.say_holdings(true, None);
        let _ = self.offer(view, Holding::Foreign, None);
    }

    /// The settled peer has told what it holds: if that is what we claim, it was starting it.
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

    /// Nothing is under way any more: what is left of our claim is started.
    pub(super) fn end_doubt(&mut self) {
        let left = core::mem::replace(&mut self.doubt, Holding::None).and(self.mine);
        if left.is_none() {
            return;
        }
        self.steps.push_back(Step::Want(left, true));
        for (set, task) in [(Holding::Local, Task::Own), (Holding::Foreign, Task::MachDown)] {
            if !set.and(left).is_none() {
                self.add_task(task);
            }
        }
    }

    /// The peer does not answer: it waits for the end of a hand-over. In whichever half of it it is, it leaves that
    /// after two such words, and starts nothing.
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
