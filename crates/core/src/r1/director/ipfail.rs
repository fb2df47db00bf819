//! Does the work of heartbeat's client `ipfail`, in its messages, so that a mixed pair agrees (behaviour reference,
//! section 10; capture 19). The nodes compare how many ping nodes each of them reaches. The one that reaches fewer
//! gives its groups away.
//!
//! ```text
//! a ping node came or went,
//! or a link died: my count ──► the other compares
//!        it reaches more: `you_are_dead`  ──► I wait two keepalives, then go standby with all
//!        as many: `abort_giveup`          ──► I stay; with auto_failback on, the other returns what is mine
//!        fewer: it waits two keepalives, then goes standby with all
//! ```
//!
//! The wait lets the other node notice a loss of its own: the same ping nodes may be gone there, too.

use super::*;

/// The client's name in its messages.
pub(super) const IPFAIL: &str = "ipfail";

/// The comparison with the peer.
#[derive(Debug)]
pub(super) struct Ipfail {
    /// How many ping nodes the peer reaches, as it last said.
    theirs: Option<u32>,
    give_up: Option<GiveUp>,
    /// A ping node came or went, or a link died. The peer is told at the next tick, when changes of the same cause are
    /// known, too.
    changed: bool,
}

/// A set that is to be given to the peer, and when.
#[derive(Debug)]
struct GiveUp {
    set: Holding,
    at: Instant,
    /// Why that was not possible at that time, as last logged.
    why_not: Option<String>,
}

impl Ipfail {
    /// `None` if there is nothing to compare.
    pub(super) fn new(plan: &R1Plan) -> Option<Self> {
        let is_on = plan.ipfail && !plan.pings.is_empty() && plan.peer().is_some();
        is_on.then_some(Self { theirs: None, give_up: None, changed: false })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.give_up.as_ref().map(|give_up| give_up.at)
    }

    /// A ping node came or went, or a link died.
    pub(super) fn note_change(&mut self) {
        self.changed = true;
    }

    /// Forgets what was known of the peer and what was to be given to it.
    pub(super) fn forget_peer(&mut self) {
        (self.theirs, self.give_up) = (None, None);
    }
}

impl R1Director {
    /// How many ping nodes we reach.
    fn pings_reached(&self) -> u32 {
        let count = self.pings.iter().filter(|watch| watch.state().is_up()).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Tells a real peer's ipfail that ours is there.
    pub(super) fn ipfail_joins(&mut self) {
        if self.ipfail.is_some() {
            self.say(Body::ClientStatus { client: IPFAIL.into(), joins: true }, None);
        }
    }

    /// Tells the peer how many ping nodes we reach. It answers if it reaches more, or as many.
    pub(super) fn ipfail_asks(&mut self) {
        let peer_up = self.peer.as_ref().is_some_and(|peer| peer.watch.state().is_up() && !peer.left);
        if self.ipfail.is_none() || !peer_up || self.state != NodeState::Active || self.left.is_some() {
            return;
        }
        self.note(Level::Info, "Asking other side for ping node count.".to_string());
        self.say_to_peer(Body::PingCount { count: self.pings_reached() });
    }

    /// Handles a message of the peer's ipfail.
    pub(super) fn ipfail_heard(&mut self, body: &Body) {
        let mine = self.pings_reached();
        let Some(ipfail) = &mut self.ipfail else { return };
        match *body {
            Body::PingCount { count } => {
                ipfail.theirs = Some(count);
                match mine.cmp(&count) {
                    Ordering::Greater => {
                        self.abort_give_up();
                        let text = "Telling other node that we have more visible ping nodes.";
                        self.note(Level::Info, text.to_string());
                        self.say_to_peer(Body::YouAreDead);
                    }
                    Ordering::Less => {
                        let text = "Giving up because we have less visible ping nodes.";
                        self.give_up_later(Holding::All, text);
                    }
                    Ordering::Equal => self.balanced(),
                }
            }
            Body::YouAreDead => {
                let text = "Giving up because we were told that we have less ping nodes.";
                self.give_up_later(Holding::All, text);
            }
            Body::AbortGiveUp => self.abort_give_up(),
            _ => {}
        }
    }

    fn balanced(&mut self) {
        self.note(Level::Info, "Ping node count is balanced.".to_string());
        self.abort_give_up();
        self.say_to_peer(Body::AbortGiveUp);
        let waits = self.ipfail.as_ref().is_some_and(|ipfail| ipfail.give_up.is_some());
        if self.plan.auto_failback == AutoFailback::On && self.r1.mine().has_foreign() && !waits {
            self.give_up_later(Holding::Foreign, "Giving up foreign resources (auto_failback).");
        }
    }

    fn give_up_later(&mut self, set: Holding, why: &str) {
        let planted = breakage::is(Breakage::NoWaitBeforeYield);
        let wait = if planted { Duration::ZERO } else { self.plan.timing.keepalive * 2 };
        let at = self.now.instant + wait;
        let Some(ipfail) = &mut self.ipfail else { return };
        // A wait that has begun is not restarted.
        if ipfail.give_up.as_ref().is_some_and(|known| known.set == set) {
            return;
        }
        ipfail.give_up = Some(GiveUp { set, at, why_not: None });
        self.note(Level::Info, why.to_string());
        self.note(Level::Info, format!("Delayed giveup in {} ms.", wait.as_millis()));
    }

    /// Cancels the give-up: we reach as many ping nodes as the peer. (A set that is to return to the peer still
    /// returns.)
    fn abort_give_up(&mut self) {
        let aborted =
            self.ipfail.as_mut().and_then(|ipfail| ipfail.give_up.take_if(|known| known.set == Holding::All));
        let text = if aborted.is_some() { "Aborted delayed giveup" } else { "No giveup timer to abort." };
        self.note(Level::Debug, text.to_string());
    }

    /// Announces changes, and gives up the set when its time has come.
    pub(super) fn ipfail_goes_on(&mut self) {
        if self.ipfail.as_mut().is_some_and(|ipfail| core::mem::take(&mut ipfail.changed)) {
            self.ipfail_asks();
        }
        let (now, mine) = (self.now.instant, self.pings_reached());
        let again = now + self.plan.timing.keepalive * 2;
        let Some(ipfail) = &mut self.ipfail else { return };
        let theirs = ipfail.theirs;
        let Some(mut give_up) = ipfail.give_up.take_if(|give_up| now >= give_up.at) else { return };
        if give_up.set == Holding::All && theirs.is_some_and(|theirs| mine >= theirs) {
            return self
                .note(Level::Info, "Aborted delayed giveup: we reach as many ping nodes.".to_string());
        }
        let mut result = Ok(());
        self.with_r1(|r1, view| result = r1.give_away(view, give_up.set));
        match result {
            Ok(()) => self.note(Level::Info, "giveup() called (timeout worked)".to_string()),
            Err(why) => {
                if give_up.why_not.as_ref() != Some(&why) {
                    self.note(Level::Info, format!("no giveup yet: {why}"));
                }
                (give_up.at, give_up.why_not) = (again, Some(why));
                if let Some(ipfail) = &mut self.ipfail {
                    ipfail.give_up = Some(give_up);
                }
            }
        }
    }
}
