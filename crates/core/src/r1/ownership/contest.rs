//! Decides about sets that both nodes claim, or neither. After a heal the owner from before the split keeps a set, and
//! the other node stops its copy (invariant 5). A tie is broken by time. A set without an owner is adopted.

use super::*;

impl R1Ownership {
    /// Compares the holdings that both nodes have announced, and yields what this node must yield.
    pub(super) fn compare(&mut self, view: &R1View<'_>) {
        let both = self.mine.and(self.theirs());
        let was = self.contested();
        if let Handover::Offered { set, .. } = self.handover
            && view.peer_locum
            && !both.and(set).is_none()
        {
            // The peer already holds the offered set and cannot take it again: nothing could settle while the offer
            // waited.
            self.end_handover(Answer::Refused(format!("{} has taken {} meanwhile", view.name(), words(set))));
        }
        if both.is_none() {
            if !was.is_none() {
                self.contested = None;
                self.note(Level::Info, format!("{} has yielded {}", view.name(), words(was)));
                self.seized = self.seized.minus(was);
                self.announce_again(was);
                self.announce_due = self.announce_due.plus(was);
            } else if view.peer_up && self.theirs.is_some() {
                self.seized = Holding::None;
            }
            return self.adopt_orphans(view);
        }
        let yields = if breakage::is(Breakage::NoYieldAfterHeal) || !view.peer_locum {
            Holding::None
        } else if breakage::is(Breakage::BothYieldAfterHeal) {
            both
        } else if !self.other_stable {
            // The peer claims it, but it may not run there yet.
            Holding::None
        } else {
            // After several failures in one direction both nodes may have seized the same set. Then the preferred node
            // waits to see whether the other yields. A freshly started peer keeps its own set if it already runs it:
            // the set would soon return to it anyway.
            let goes_home = self.failback_due
                && self.failback != AutoFailback::Off
                && !breakage::is(Breakage::OlderRunIgnored);
            let given = if goes_home { Holding::Foreign } else { Holding::None };
            both.and(self.seized.plus(given)).and(Holding::Foreign)
        };
        if !yields.is_none() {
            self.yield_set(yields, view);
        }
        let stays = both.minus(yields);
        if stays.is_none() {
            return;
        }
        if was.is_none() {
            let text = format!(
                "Both machines own {}! Guard `none` cannot prevent that in a partition.",
                match stays {
                    Holding::Foreign => "foreign resources",
                    _ => "our resources",
                }
            );
            self.note(Level::Critical, text);
        }
        self.contested = Some((stays, self.contested.map_or(view.now, |(_, since)| since)));
        if self.repeated_at.is_none_or(|at| view.now >= at + view.deadtime / 4) {
            self.repeated_at = Some(view.now);
            self.say_holdings(self.settled(), None);
        }
    }

    /// Breaks a tie that lasts. If we took our own set from a peer that was alive all along, we yield it after half a
    /// deadtime in which the peer has not. If neither node has yielded after a whole deadtime, the preferred node keeps
    /// the set.
    pub(super) fn break_tie(&mut self, view: &R1View<'_>) {
        let Some((set, since)) = self.contested else { return };
        if !view.peer_locum || !self.other_stable || breakage::is(Breakage::NoYieldAfterHeal) {
            return;
        }
        let (both, lasted) = (self.mine.and(self.theirs()), view.now.since(since));
        let yields = Holding::of(
            both.and(self.seized).has_local() && lasted >= view.deadtime / 2,
            both.has_foreign() && lasted >= view.deadtime,
        );
        if !yields.is_none() {
            let rest = set.minus(yields);
            self.contested = (!rest.is_none()).then_some((rest, since));
            self.yield_set(yields, view);
        }
    }

    /// Repeats the holdings to a node of Locum once per deadtime while nothing moves. So no lost or reordered message
    /// leaves one node with a wrong picture of the other.
    pub(super) fn tell_again(&mut self, view: &R1View<'_>) {
        let due = self.repeated_at.is_none_or(|at| view.now >= at + view.deadtime);
        if due && view.peer_up && view.peer_locum && self.settled() && self.leave.is_none() {
            self.repeated_at = Some(view.now);
            self.say_holdings(true, None);
        }
    }

    pub(super) fn announce_again(&mut self, set: Holding) {
        if !set.is_none() && !breakage::is(Breakage::NoAnnouncementAfterHeal) {
            self.steps.push_back(R1Step::Announce(set));
        }
    }

    /// Takes our local set if both nodes have settled and neither holds it.
    pub(super) fn adopt_orphans(&mut self, view: &R1View<'_>) {
        let settled = view.peer_locum && self.other_stable && self.settled() && self.leave.is_none();
        if settled
            && !self.is_fencing()
            && !self.mine.has_local()
            && self.theirs.is_some()
            && !self.theirs().has_local()
        {
            self.note(Level::Warning, "No one owns our local resources! Taking them.".into());
            self.acquire_local();
        }
    }

    pub(super) fn yield_set(&mut self, set: Holding, view: &R1View<'_>) {
        let text =
            format!("{} owned {} before the split and keeps it; stopping our copy", view.name(), words(set));
        self.note(Level::Warning, text);
        self.mine = self.mine.minus(set);
        self.seized = self.seized.minus(set);
        self.tasks.retain(|task| *task == PendingMessage::Own && self.mine.has_local());
        self.steps.push_back(R1Step::Want(set, false));
        self.add_task(PendingMessage::Yield(set));
        // The peer must not yield it as well.
        self.say_holdings(false, None);
    }
}
