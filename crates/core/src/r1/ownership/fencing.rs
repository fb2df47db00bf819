//! The death of a peer that may hold something, and its proof by a fencing device (behaviour reference, section 7). If
//! a device is configured, silence alone proves nothing. Until the device says that the node is reset, nothing of the
//! peer is taken over and nothing new is begun. The device is asked again without end. A peer that returns or says
//! goodbye meanwhile is not dead; then it is asked instead.

use super::*;

/// A device that failed to reset a node is asked again after this, without end.
pub const FENCE_PAUSE: Duration = Duration::from_secs(5);

/// How far the proof of the peer's death is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// No proof is needed.
    Idle,
    /// The device is at work, after this many failures.
    Asked { failures: u32 },
    /// The device failed this often, the last time for this reason; it is asked again at `again`.
    Failed { failures: u32, why: String, again: Instant },
}

impl R1Ownership {
    /// Whether the peer is silent, may hold something, and was not reset so far.
    #[must_use]
    pub fn is_fencing(&self) -> bool {
        self.fence != Fence::Idle
    }

    /// How often the device has failed to reset the peer, and the latest reason.
    #[must_use]
    pub fn fencing_failure(&self) -> Option<(u32, &str)> {
        match &self.fence {
            Fence::Failed { failures, why, .. } => Some((*failures, why)),
            Fence::Idle | Fence::Asked { .. } => None,
        }
    }

    /// The peer is silent beyond its deadtime. Without a fencing device this proves its death.
    pub fn peer_dead(&mut self, view: &R1View<'_>) {
        self.peer_was_gone = true;
        if matches!(self.state, R1State::Init | R1State::Leaving | R1State::Left) {
            self.theirs = None;
            return;
        }
        let Some(peer) = view.peer else { return self.death_proved(view) };
        if !self.peer_may_hold {
            self.note(Level::Info, format!("Dead node {peer} gave up resources."));
            self.say(Body::Stonith { node: peer.into(), result: "unneeded".into() });
            return self.death_proved(view);
        }
        if view.fencing.is_some() {
            self.suspend(view);
            self.ask_device(view, 0);
            if !breakage::is(Breakage::TakeoverUnfenced) {
                return;
            }
        } else {
            let text = format!(
                "No STONITH device configured: {peer} is taken for dead because it is silent. \
                 Shared disks are not protected."
            );
            self.note(Level::Warning, text);
            self.say_fenced(view, &FenceOutcome::NotConfigured);
        }
        self.death_proved(view);
    }

    /// The result of the last [`R1Step::Fence`].
    pub fn fenced(&mut self, view: &R1View<'_>, outcome: &FenceOutcome) {
        let Fence::Asked { failures } = self.fence else { return };
        let name = view.name();
        let why = match outcome {
            FenceOutcome::Ok => {
                self.fence = Fence::Idle;
                self.note(Level::Info, format!("node {name} now reset."));
                self.say_fenced(view, outcome);
                return self.death_proved(view);
            }
            FenceOutcome::BadHost(why) => {
                let device = view.fencing.unwrap_or_default();
                self.note(Level::Error, format!("Device {device} cannot reset host {name}: {why}"));
                why.clone()
            }
            FenceOutcome::Bad(why) => {
                self.note(Level::Error, format!("Host {name} not reset! ({why})"));
                why.clone()
            }
            FenceOutcome::NotConfigured => {
                self.note(Level::Error, format!("Host {name} not reset! (the device cannot be driven)"));
                String::from("the device cannot be driven")
            }
        };
        self.note(Level::Warning, format!("STONITH of {name} failed.  Retrying..."));
        // `n_stnth` would say that we take over nevertheless.
        let bad = matches!(outcome, FenceOutcome::NotConfigured).then(|| FenceOutcome::Bad(String::new()));
        self.say_fenced(view, bad.as_ref().unwrap_or(outcome));
        let again = view.now + FENCE_PAUSE;
        self.fence = Fence::Failed { failures: failures.saturating_add(1), why, again };
    }

    /// Asks the device again when it is time.
    pub(super) fn fencing_goes_on(&mut self, view: &R1View<'_>) {
        if let Fence::Failed { failures, again, .. } = self.fence
            && view.now >= again
        {
            self.ask_device(view, failures);
        }
    }

    /// The peer is back or has said goodbye. Its death needs no proof any more; a late answer of the device is ignored.
    pub(super) fn end_fencing(&mut self, view: &R1View<'_>) {
        if self.fence == Fence::Idle {
            return;
        }
        self.fence = Fence::Idle;
        self.note(Level::Info, format!("{} is back: fencing is cancelled", view.name()));
        // We had not settled when it fell silent: start again by asking for its holdings.
        if matches!(self.state, R1State::Starting | R1State::BothStarting | R1State::Received) {
            self.state = R1State::Starting;
            self.settle_at = Some(view.now + WAIT);
            self.say_starting();
        }
    }

    fn ask_device(&mut self, view: &R1View<'_>, failures: u32) {
        let device = view.fencing.unwrap_or_default();
        self.note(Level::Info, format!("Resetting node {} with [{device}]", view.name()));
        self.fence = Fence::Asked { failures };
        self.steps.push_back(R1Step::Fence);
    }

    fn say_fenced(&mut self, view: &R1View<'_>, outcome: &FenceOutcome) {
        let result = outcome.word().into();
        self.say(Body::Stonith { node: view.name().into(), result });
    }

    /// Stops what we were doing with the peer. A set that the peer has surely given, or never had, is ours.
    fn suspend(&mut self, view: &R1View<'_>) {
        self.settle_at = None;
        self.hand_back = None;
        self.contested = None;
        match self.handover {
            // The peer waits for our `done`, which was not sent: the set is still ours.
            Handover::Giving { held, .. } => {
                self.handover = Handover::Idle;
                self.mine = self.mine.plus(held);
                self.steps.push_back(R1Step::Want(held, true));
            }
            // The peer's `done` has arrived: go on.
            Handover::Taking { .. } => {}
            Handover::Idle
            | Handover::Offered { .. }
            | Handover::Given { .. }
            | Handover::Awaiting { .. } => self.handover = Handover::Idle,
        }
        self.abandon_orders(view, "fell silent");
    }

    /// The peer holds nothing any more, or we have to assume so.
    fn death_proved(&mut self, view: &R1View<'_>) {
        self.fence = Fence::Idle;
        // If the peer never spoke, everything may be running there. But if it is alive and could not hear us either, it
        // has done the same. Then each node yields the set that is not its own.
        let held = self.theirs.map_or(Holding::Foreign, Holding::mirrored);
        self.seized = self.seized.plus(held.minus(self.mine));
        let at_rest = self.state == R1State::Stable && self.handover == Handover::Idle;
        if self.mine == Holding::All && at_rest && !self.legacy.partly_given {
            self.theirs = Some(Holding::None);
            self.contested = None;
            return self.abandon_orders(view, "fell silent");
        }
        if let Some(peer) = view.peer {
            self.note(Level::Warning, format!("Resources being acquired from {peer}."));
        }
        for group in view.groups.of(Holding::Foreign.minus(self.mine)) {
            self.note(Level::Info, format!("Taking over resource group {}", view.groups.key(group)));
        }
        self.take_everything(&[PendingMessage::MachDown, PendingMessage::Own]);
        self.abandon_orders(view, "fell silent");
    }
}
