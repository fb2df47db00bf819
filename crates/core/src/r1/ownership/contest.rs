//! What both nodes claim, or neither: after a heal the owner from before the split keeps a set and the other stops its
//! copy (invariant 5); a tie is broken by time; a set of nobody is adopted.

use super::*;

impl R1 {
    /// Both have told what they hold: who yields what both claim?
    pub(super) fn compare(&mut self, view: &View<'_>) {
        let both = self.mine.and(self.theirs());
        let was = self.contested();
        if let Handover::Offered { set, .. } = self.handover
            && view.peer_locum
            && !both.and(set).is_none()
        {
            // It takes what it holds no second time: while the offer waited for an answer, nothing could be settled.
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
            // What it claims may not run there yet.
            Holding::None
        } else {
            // After several cuts in one direction both nodes may have seized the same set: the preferred node waits
            // to see whether the other yields. What a peer that was started afresh already runs of its own would go back to
            // it in a moment.
            let goes_home = self.failback_due
                && self.failback != AutoFailback::Off
                && !breakage::is(Breakage::OlderLifeIgnored);
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
        if self.told.is_none_or(|at| view.now >= at + view.deadtime / 4) {
            self.told = Some(view.now);
            self.say_holdings(self.settled(), None);
        }
    }

    /// Both claim the same for long. Our own set, if we took it from a peer that was alive all along, we yield when
    /// the peer has had the time to do so and has not. What neither has yielded then, the preferred node keeps.
    pub(super) fn break_tie(&mut self, view: &View<'_>) {
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

    /// Between nodes of Locum holdings are told once a deadtime while nothing moves, so that no loss and no order of
    /// messages leaves one of them with a wrong picture of the other.
    pub(super) fn tell_again(&mut self, view: &View<'_>) {
        let due = self.told.is_none_or(|at| view.now >= at + view.deadtime);
        if due && view.peer_up && view.peer_locum && self.settled() && self.leave.is_none() {
            self.told = Some(view.now);
            self.say_holdings(true, None);
        }
    }

    pub(super) fn announce_again(&mut self, set: Holding) {
        if !set.is_none() && !breakage::is(Breakage::NoAnnouncementAfterHeal) {
            self.steps.push_back(Step::Announce(set));
        }
    }

    /// Both nodes have settled and neither holds our local set: it is ours to take.
    pub(super) fn adopt_orphans(&mut self, view: &View<'_>) {
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

    pub(super) fn yield_set(&mut self, set: Holding, view: &View<'_>) {
        let text =
            format!("{} owned {} before the split and keeps it; stopping our copy", view.name(), words(set));
        self.note(Level::Warning, text);
        self.mine = self.mine.minus(set);
        self.seized = self.seized.minus(set);
        self.tasks.retain(|task| *task == Task::Own && self.mine.has_local());
        self.steps.push_back(Step::Want(set, false));
        self.add_task(Task::Yield(set));
        // The peer must not come to yield it, too.
        self.say_holdings(false, None);
    }
}
