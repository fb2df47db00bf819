//! What holds whenever the dialect has nothing more to do, whatever the peer says. Checked in release builds, too: a violation is
//! a fault of Locum, and then the daemon ends before it starts or stops something wrong.

use super::*;

impl R1Ownership {
    pub(super) fn assert_sound(&self) {
        let is_in = |set: Holding, of: Holding| set.minus(of).is_none();
        match self.state {
            R1State::Init
            | R1State::Starting
            | R1State::BothStarting
            | R1State::Received
            | R1State::Stable => {}
            // Perhaps for a new run of the daemon, which goes on with what is held.
            R1State::Left => assert!(self.leave.is_none(), "left, and about to leave"),
            R1State::Leaving => {
                assert!(self.mine.is_none(), "{:?}, and {:?} is held", self.state, self.mine);
                assert!(self.hand_back.is_none(), "leaving, and a set is to be handed back");
                assert!(self.takeover.is_none(), "leaving, and a person waits for a takeover");
                assert!(self.wish.is_none(), "leaving, and a set waits to be handed over");
                assert!(self.settle_at.is_none(), "leaving, and still to settle");
            }
        }
        match self.handover {
            Handover::Giving { set, held } | Handover::Given { set, held, .. } => {
                assert!(is_in(held, set), "more was held of a set than there is in it");
                assert!(set.and(self.mine).is_none(), "a set is given away and held");
            }
            Handover::Idle
            | Handover::Offered { .. }
            | Handover::Awaiting { .. }
            | Handover::Taking { .. } => {}
        }
        if let Some((set, _)) = self.contested {
            assert!(!set.is_none(), "contested since a moment, and nothing is");
        }
    }
}
