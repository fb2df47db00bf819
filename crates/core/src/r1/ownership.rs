//! The ownership rules of the R1 dialect: which of two nodes holds which of the two sets of groups (behaviour
//! reference, section 5; messages and sequences: wire reference, section 6). The input is what was heard and which
//! groups came to rest; the output is [`R1Step`]s. Frames, liveness timers and the starting of resources are handled
//! elsewhere.
//!
//! ```text
//!  Init ──links up──► Starting ──peer starts too──► BothStarting
//!                        │  any `resource`               │ any `resource`
//!                        ▼                               ▼
//!                     Received ◄─────────────────────────┘
//!                        │ peer is stable, or is a Locum, or 10 s: take the local set if it is free
//!                        ▼
//!                     Stable ──leave──► Leaving ──all stopped──► Left
//! ```
//!
//! The `fencing` module handles a silent peer and the proof of its death. The `legacy` module has the messages of
//! heartbeat's legacy mode.
//!
//! The `handover` module has the three-step handshake that hands over a set. Two nodes of Locum use the same messages,
//! but do not wait for timers. After a healed partition, the owner from before the split keeps the set (invariant 5).

use alloc::{collections::VecDeque, format, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use super::{
    message::{AskStep, Body, ResourceMessage},
    plan::AutoFailback,
    sets::Sets,
};
use crate::model::{
    breakage::{self, Breakage},
    event::FenceOutcome,
    holding::Holding,
    identity::GroupIndex,
    note::Level,
    order::{Answer, OrderId},
    time::{Duration, Instant},
};

/// How long to wait for a real heartbeat's holdings, and for the answer to a standby request.
pub const WAIT: Duration = Duration::from_secs(10);
/// How long the other side may take to stop or start a set.
pub const HANDOVER_MAX: Duration = Duration::from_secs(3600);
/// Wait after a failed start before the set is offered to the peer. Each failure in a row doubles it, up to
/// [`HAND_BACK_MAX`].
pub const HAND_BACK: Duration = Duration::from_secs(30);
/// Longest wait after failed starts; see [`HAND_BACK`].
pub const HAND_BACK_MAX: Duration = Duration::from_secs(3600);
/// Wait before a set is offered to the peer if one of its resources can never run here.
pub const BARRED_PAUSE: Duration = Duration::from_secs(1);
/// How many failures in a row wait only [`BARRED_PAUSE`]; later ones wait as after other failures.
const BARRED_TRIES: u32 = 3;
/// Wait before a set returns to a real heartbeat: twice heartbeat's own `max_rexmit_delay`. A message that we sent just
/// before may have been lost. If its retransmission arrived after our offer, the peer would take it for a new state.
pub const CATCH_UP: Duration = Duration::from_millis(500);
/// A real heartbeat that meets a healed partition restarts after this time.
pub const HEAL_RESTART: Duration = Duration::from_secs(2);

mod contest;
mod doubt;
mod fencing;
mod handover;
mod invariants;
mod legacy;
mod reach;
mod reload;

pub use fencing::FENCE_PAUSE;
use fencing::Fence;
use handover::Handover;
use legacy::Legacy;
pub use reach::REACH_WAIT;
use reach::WaitingOrder;

/// Phase of the ownership rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum R1State {
    /// Not every node is heard of or known dead.
    Init,
    /// This node has asked for the peer's holdings.
    Starting,
    /// The peer has asked for ours, too.
    BothStarting,
    /// Holdings were heard; this node is about to settle.
    Received,
    /// This node has settled.
    Stable,
    /// This node is giving up everything.
    Leaving,
    /// This node holds nothing and has said so.
    Left,
}

/// A message to send once groups have come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PendingMessage {
    /// The set of a dead peer was taken: `resource foreign info=mach_down`.
    MachDown,
    /// Our own set: `resource … info=req_our_resources()`.
    Own,
    /// The set of a peer that left, in our view.
    Left(Holding),
    /// The set that we yield after a healed partition.
    Yield(Holding),
}

/// An instruction of the ownership rules for the director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum R1Step {
    /// Send this to all nodes.
    Say(Body),
    /// Send this to the peer only.
    SayToPeer(Body),
    /// Start (`true`) or stop one group.
    WantGroup(GroupIndex, bool),
    /// Reset the peer with the device; answered by [`R1Ownership::fenced`].
    Fence,
    /// Abandon the starts in progress.
    EndStarts,
    /// Start (`true`) or stop the groups of a set.
    Want(Holding, bool),
    /// Take over the running groups of a set from before a reload in place.
    Keep(Holding),
    /// Announce the addresses of the running groups of a set again.
    Announce(Holding),
    /// Answer an administrator's order.
    Answer(OrderId, Answer),
    /// Write a line to the log.
    Note(Level, String),
    /// End this run of the daemon without stopping anything; the next one continues with this set.
    Reloaded(Holding),
    /// Everything is released and announced.
    Left {
        /// Start again with a new generation (after a healed partition with a real heartbeat).
        restart: bool,
        /// Whether everything has stopped; false if a resource that could not be stopped is left running.
        clean: bool,
    },
}

/// The director's facts that the ownership rules need.
#[derive(Clone, Copy, Debug)]
pub struct R1View<'a> {
    pub now: Instant,
    /// The peer's name; absent in a cluster of one node.
    pub peer: Option<&'a str>,
    /// Whether the peer is heard.
    pub peer_up: bool,
    /// Whether the peer's daemon started before ours, so that it still has what it had then.
    pub peer_older: bool,
    /// The sets that the peer kept through a reload in place, if its daemon started so.
    pub peer_keeps: Option<Holding>,
    /// The groups that the peer says it could not start.
    pub peer_failed: &'a [GroupIndex],
    /// The groups whose clients cannot reach the peer, because an interface carries nothing there.
    pub peer_unreachable: &'a [GroupIndex],
    /// The groups whose clients cannot reach this node.
    pub unreachable: &'a [GroupIndex],
    /// Whether the peer is a node of Locum (it said so in its status).
    pub peer_locum: bool,
    /// Whether this node stands before the peer in ha.cf: it goes first when both want to.
    pub is_first: bool,
    /// The type of the device that fences the peer, if one is configured.
    pub fencing: Option<&'a str>,
    /// The configured deadtime; a contested set is decided after it.
    pub deadtime: Duration,
    /// The groups and their states here.
    pub groups: &'a Sets,
}

impl R1View<'_> {
    fn name(&self) -> &str {
        self.peer.unwrap_or("the peer")
    }
}

/// The state of the ownership rules.
#[derive(Debug)]
pub struct R1Ownership {
    failback: AutoFailback,
    state: R1State,
    mine: Holding,
    /// The sets that the peer says it holds, in its view; `None` before it has said so.
    theirs: Option<Holding>,
    /// The peer has said so and called it stable, since its daemon started.
    theirs_settled: bool,
    other_stable: bool,
    /// When `Received` ends without a message, or `Starting` asks again.
    settle_at: Option<Instant>,
    handover: Handover,
    tasks: Vec<PendingMessage>,
    /// Sets taken because the peer fell silent while it held them. They are given back if it was alive all along.
    seized: Holding,
    /// The sets that both nodes claim and we keep, and since when.
    contested: Option<(Holding, Instant)>,
    /// After a heal: sets to announce once more when the peer has settled, that is, has no copy of them any more.
    announce_due: Holding,
    /// When we last repeated our holdings or a `done`.
    repeated_at: Option<Instant>,
    /// The peer has just come (back): its set is returned once it is stable.
    failback_due: bool,
    /// Earliest time of that return to a real heartbeat.
    failback_at: Option<Instant>,
    /// The peer was silent for its deadtime, or said goodbye, and has not started since.
    peer_was_gone: bool,
    /// The peer has asked for our holdings: it started during this run of ours.
    peer_has_asked: bool,
    /// Sets that we claim and do not start: a hand-over from before our restart may still be under way.
    doubt: Holding,
    /// The order that waits for this hand-over.
    order: Option<OrderId>,
    /// The order that waits for the peer to offer a set.
    takeover: Option<(OrderId, Holding, Instant)>,
    /// An order that waits until clients would reach the set on its new node.
    wish: Option<WaitingOrder>,
    /// A set that could not be started here, and when it is offered to the peer.
    hand_back: Option<(Holding, Instant)>,
    leave: Option<Leave>,
    restart_at: Option<Instant>,
    /// The order that waits for the reload in place, and until when.
    reload: Option<(OrderId, Instant)>,
    /// This run of the daemon began with a reload in place.
    is_reloaded: bool,
    /// The peer has spoken since our daemon started.
    has_met: bool,
    /// A real peer has restarted; its next message tells whether it still holds our local set.
    home_due: bool,
    legacy: Legacy,
    /// How far the proof of the peer's death is.
    fence: Fence,
    /// The peer may run something: it has not said that it holds nothing.
    peer_may_hold: bool,
    steps: VecDeque<R1Step>,
}

#[derive(Clone, Copy, Debug)]
struct Leave {
    order: Option<OrderId>,
    restart: bool,
}

impl R1Ownership {
    /// The state before the links came up. `keeps`: the sets that still run from before a reload in place; usually
    /// `None`.
    #[must_use]
    pub fn new(failback: AutoFailback, keeps: Option<Holding>) -> Self {
        let mut new = Self {
            failback,
            state: R1State::Init,
            mine: Holding::None,
            theirs: None,
            theirs_settled: false,
            other_stable: false,
            settle_at: None,
            handover: Handover::Idle,
            tasks: Vec::new(),
            seized: Holding::None,
            contested: None,
            announce_due: Holding::None,
            repeated_at: None,
            failback_due: false,
            failback_at: None,
            peer_was_gone: false,
            peer_has_asked: false,
            doubt: Holding::None,
            order: None,
            takeover: None,
            wish: None,
            hand_back: None,
            leave: None,
            restart_at: None,
            reload: None,
            is_reloaded: false,
            has_met: false,
            home_due: false,
            legacy: Legacy::new(),
            fence: Fence::Idle,
            peer_may_hold: true,
            steps: VecDeque::new(),
        };
        if let Some(kept) = keeps {
            new.go_on_with(kept);
        }
        new
    }

    /// The next step to carry out, oldest first.
    pub fn poll(&mut self) -> Option<R1Step> {
        let step = self.steps.pop_front();
        if step.is_none() {
            self.assert_sound();
        }
        step
    }

    /// Whether no step is left to carry out.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.steps.is_empty()
    }

    /// The phase of the ownership rules.
    #[must_use]
    pub const fn state(&self) -> R1State {
        self.state
    }

    /// The sets that this node holds.
    #[must_use]
    pub const fn mine(&self) -> Holding {
        self.mine
    }

    /// The sets that the peer holds, in our view; none if it has not said.
    #[must_use]
    pub fn theirs(&self) -> Holding {
        let theirs = self.theirs.unwrap_or(Holding::None);
        if breakage::is(Breakage::HoldingNotMirrored) { theirs } else { theirs.mirrored() }
    }

    /// Whether the peer has announced its holdings as complete since its daemon started. While it starts, it announces
    /// that it holds nothing.
    #[must_use]
    pub const fn has_heard_holdings(&self) -> bool {
        self.theirs.is_some() && self.theirs_settled
    }

    /// The sets that both nodes claim.
    #[must_use]
    pub fn contested(&self) -> Holding {
        self.contested.map_or(Holding::None, |(set, _)| set)
    }

    /// The transition in progress, in words; `None` when nothing moves.
    #[must_use]
    pub fn transition(&self) -> Option<&'static str> {
        match self.handover {
            Handover::Idle if self.is_fencing() => Some("fencing the peer"),
            Handover::Idle if self.legacy.is_moving() => Some("asking the peer for groups"),
            Handover::Idle if self.tasks.is_empty() => None,
            Handover::Idle => Some("acquiring"),
            Handover::Offered { .. } => Some("offering"),
            Handover::Giving { .. } => Some("giving"),
            Handover::Given { .. } => Some("waiting for the peer to start"),
            Handover::Awaiting { .. } => Some("waiting for the peer to stop"),
            Handover::Taking { .. } => Some("taking"),
        }
    }

    /// Whether this node has settled and nothing moves.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.state == R1State::Stable && self.handover == Handover::Idle && self.tasks.is_empty()
    }

    /// When [`Self::tick`] next has something to do. Waits of a deadtime need no deadline here: beats are more
    /// frequent.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let handover = match self.handover {
            Handover::Offered { until, .. }
            | Handover::Given { until, .. }
            | Handover::Awaiting { until, .. } => Some(until),
            Handover::Idle | Handover::Giving { .. } | Handover::Taking { .. } => None,
        };
        [
            self.settle_at,
            handover,
            self.takeover.map(|(_, _, until)| until),
            self.hand_back.map(|(_, at)| at),
            self.wish.map(|wish| wish.until),
            self.failback_at,
            self.restart_at,
            self.reload.map(|(_, until)| until),
            match self.fence {
                Fence::Failed { again, .. } => Some(again),
                Fence::Idle | Fence::Asked { .. } => None,
            },
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // ---- events -------------------------------------------------------------------------------------------------

    /// Every configured node is heard of or known dead: take part.
    pub fn links_up(&mut self, view: &R1View<'_>) {
        if self.state != R1State::Init {
            return;
        }
        self.state = R1State::Starting;
        self.say_starting();
        if view.peer_up && self.legacy.speaks {
            self.ask_for_groups(view);
        } else if view.peer_up {
            self.settle_at = Some(view.now + WAIT);
        } else {
            self.peer_dead(view);
        }
    }

    /// The peer says that it has released everything and leaves.
    pub fn peer_left(&mut self, view: &R1View<'_>) {
        self.note(Level::Info, format!("Received shutdown notice from '{}'.", view.name()));
        self.peer_was_gone = true;
        self.peer_may_hold = false;
        self.end_fencing(view);
        let missing = Holding::All.minus(self.mine);
        self.seized = Holding::None;
        self.contested = None;
        if !matches!(self.state, R1State::Init | R1State::Leaving | R1State::Left) {
            self.take_everything(&[
                PendingMessage::Left(missing),
                PendingMessage::Own,
                PendingMessage::MachDown,
            ]);
        }
        self.theirs = Some(Holding::None);
        self.abandon_orders(view, "has left");
    }

    /// The peer has restarted: it has stopped everything, or says which sets it kept.
    pub fn peer_restarted(&mut self, view: &R1View<'_>) {
        self.peer_may_hold = true;
        self.theirs_settled = false;
        self.end_fencing(view);
        self.other_stable = false;
        self.seized = Holding::None;
        self.contested = None;
        // A hand-over to the peer that was under way has failed.
        self.failback_due |= self.is_giving_foreign();
        self.begin_anew(view);
        self.end_doubt();
        if self.state != R1State::Stable {
            return self.ask_again(view);
        }
        if matches!(self.handover, Handover::Giving { .. } | Handover::Given { .. }) {
            self.mine = self.mine.plus(self.given().minus(self.theirs()));
            self.steps.push_back(R1Step::Want(self.mine, true));
        }
        self.handover = Handover::Idle;
        self.abandon_orders(view, "has restarted");
        if !view.peer_locum {
            self.home_due = true;
        } else if !self.mine.has_local() && !self.theirs().has_local() && self.leave.is_none() {
            self.acquire_local();
        }
    }

    /// Two living nodes hear each other again. `peer_locum` decides how the conflict is resolved.
    pub fn peer_healed(&mut self, view: &R1View<'_>) {
        if matches!(self.state, R1State::Init | R1State::Leaving | R1State::Left) {
            return;
        }
        let text = format!("Cluster node {} returning after partition.", view.name());
        self.note(Level::Critical, text);
        self.meet(view);
        self.peer_was_gone = false;
        self.theirs = None;
        self.theirs_settled = false;
        self.peer_may_hold = true;
        self.other_stable = false;
        self.end_fencing(view);
        if view.peer_locum {
            self.announce_due = Holding::All;
            self.exchange_holdings();
        } else {
            // A real heartbeat restarts itself 2 s after a heal and expects the same of us.
            self.restart_at = Some(view.now + HEAL_RESTART);
        }
    }

    /// Handles the peer's first message since our start. If its daemon is the older one, it has held its sets all
    /// along, and those we took meanwhile count as seized. With failback, our own set is left to us (see
    /// [`Self::compare`]).
    fn meet(&mut self, view: &R1View<'_>) {
        let is_first = !core::mem::replace(&mut self.has_met, true);
        let goes_home = self.failback != AutoFailback::Off;
        if is_first && view.peer_older && !self.is_reloaded && !breakage::is(Breakage::OlderRunIgnored) {
            self.seized =
                self.seized.plus(if goes_home { self.mine.and(Holding::Foreign) } else { self.mine });
        }
    }

    /// The peer has started without our noticing, after we had settled (for example, our links were dead for longer
    /// than initdead). It may hold what we took.
    pub fn peer_met(&mut self, view: &R1View<'_>) {
        self.end_fencing(view);
        self.meet(view);
        if self.state == R1State::Stable && view.peer_locum {
            self.failback_due = true;
            self.announce_due = Holding::All;
            self.exchange_holdings();
        }
    }

    /// Handles a message of the peer about ownership.
    pub fn heard(&mut self, view: &R1View<'_>, body: &Body) {
        if matches!(body, Body::Starting | Body::Resource(_)) {
            self.hear_nice(view);
        }
        match body {
            Body::Starting => self.heard_starting(view),
            Body::Resource(resource) => self.heard_resource(view, resource),
            Body::AskResources { hold, step } => self.heard_ask(view, *hold, *step),
            Body::Takeover { hold } => {
                let set = hold.mirrored();
                self.note(Level::Info, format!("{} asks for our {} resources.", view.name(), set.word()));
                if let Err(why) = self.offer(view, set, None) {
                    self.note(Level::Warning, format!("not handed over: {why}"));
                }
            }
            Body::ShutDone => self.peer_left(view),
            Body::IpRequest { key } => self.heard_ip_request(view, key),
            Body::IpRequestResponse { key, ok, .. } => self.heard_ip_answer(key, *ok, view),
            Body::Stonith { .. }
            | Body::Status(_)
            | Body::PingStatus { .. }
            | Body::Rexmit { .. }
            | Body::NakRexmit { .. }
            | Body::Ack { .. }
            | Body::ReqNodes
            | Body::RepNodes { .. }
            | Body::PingCount { .. }
            | Body::YouAreDead
            | Body::AbortGiveUp
            | Body::ClientStatus { .. }
            | Body::QueryClient { .. }
            | Body::RespondClient { .. }
            | Body::AddNode { .. }
            | Body::DelNode { .. }
            | Body::SetWeight { .. }
            | Body::SetSite { .. }
            | Body::Other { .. } => {}
        }
    }

    /// Leaves gracefully: at once, or when everything has come to rest.
    pub fn order_leave(&mut self, view: &R1View<'_>, order: Option<OrderId>) {
        self.restart_at = None;
        if self.leave.is_some() || self.state == R1State::Left {
            // An administrator's order overrides a restart of our own.
            self.leave = self.leave.map(|leave| Leave { restart: false, ..leave });
            if let Some(order) = order {
                self.answer(order, Answer::Done("already leaving".into()));
            }
            return;
        }
        self.leave = Some(Leave { order, restart: false });
        if !self.begin_leaving(view) {
            self.note(Level::Warning, "Shutdown delayed until current resource activity finishes.".into());
            self.steps.push_back(R1Step::EndStarts);
        }
    }

    /// Call this after groups were told to start or stop, and after they came to rest.
    pub fn groups_changed(&mut self, view: &R1View<'_>) {
        self.giving_goes_on(view);
        self.tasks_go_on(view);
        self.handover_goes_on(view);
        self.leaving_goes_on(view);
        self.adopt_orphans(view);
        // A real peer that settled while something moved here does not repeat its holdings.
        if !view.peer_locum && self.failback_due && self.settled() && view.groups.at_rest(Holding::All) {
            self.fail_back(view);
        }
    }

    /// A group of this set could not be started here, for the `failures`th time in a row.
    pub fn start_failed(&mut self, view: &R1View<'_>, set: Holding, failures: u32) {
        let is_barred = view.groups.of(set).any(|group| view.groups.is_barred(group));
        let wait = HAND_BACK.saturating_mul(1 << failures.saturating_sub(1).min(7)).min(HAND_BACK_MAX);
        // No wait helps here; the peer only needs time to answer.
        let wait = if is_barred && failures < BARRED_TRIES { BARRED_PAUSE } else { wait };
        let waiting = self.hand_back.map_or(Holding::None, |(set, _)| set);
        self.hand_back = Some((set.plus(waiting), view.now + wait));
        let text = format!("the {} set is offered to {} in {} s", set.word(), view.name(), wait.as_secs());
        self.note(Level::Warning, text);
    }

    /// Does what is due now; call it at [`Self::deadline`].
    pub fn tick(&mut self, view: &R1View<'_>) {
        let now = view.now;
        if self.settle_at.is_some_and(|at| now >= at) {
            self.settle_at = None;
            if self.state == R1State::Received {
                self.settle();
            } else if matches!(self.state, R1State::Starting | R1State::BothStarting) {
                self.say_starting();
                self.settle_at = Some(now + WAIT);
            }
        }
        if let Some((order, _, _)) = self.takeover.take_if(|(_, _, until)| now >= *until) {
            let text = format!("{} did not answer", view.name());
            self.answer(order, Answer::TimedOut(text));
        }
        match self.handover {
            Handover::Offered { set, until } if now >= until => {
                self.note(Level::Warning, "No reply to standby request.  Standby request cancelled.".into());
                // An offer without an order was a failback: repeat it when the peer speaks again.
                self.failback_due |= view.peer_locum && self.order.is_none() && set == Holding::Foreign;
                self.end_handover(Answer::TimedOut(format!("{} did not answer", view.name())));
                self.release_peer();
                self.say_holdings(true, None);
            }
            Handover::Given { until, .. } | Handover::Awaiting { until, .. } if now >= until => {
                self.end_handover(Answer::TimedOut(format!("{} has not finished", view.name())));
            }
            _ => {}
        }
        if let Some((set, _)) = self.hand_back.take_if(|(_, at)| now >= *at) {
            self.hand_back_now(view, set);
        }
        if self.failback_at.take_if(|at| now >= *at).is_some() {
            self.failback_at = Some(now);
            self.fail_back(view);
        }
        self.wish_goes_on(view);
        self.fencing_goes_on(view);
        self.break_tie(view);
        self.tell_again(view);
        self.say_done_again(view);
        if self.restart_at.take_if(|at| now >= *at).is_some() && self.leave.is_none() {
            self.leave = Some(Leave { order: None, restart: true });
            self.begin_leaving(view);
        }
    }

    // ---- settling -----------------------------------------------------------------------------------------------

    fn heard_starting(&mut self, view: &R1View<'_>) {
        self.peer_may_hold = true;
        self.other_stable = false;
        self.peer_has_asked = true;
        self.begin_anew(view);
        match self.state {
            R1State::Init | R1State::Leaving | R1State::Left => {}
            _ if breakage::is(Breakage::NoAnswerToStarting) => {}
            R1State::Starting | R1State::BothStarting => {
                self.state = R1State::BothStarting;
                self.say_holdings(false, None);
                self.received(view);
            }
            R1State::Received | R1State::Stable => self.say_holdings(self.state == R1State::Stable, None),
        }
    }

    fn heard_resource(&mut self, view: &R1View<'_>, resource: &ResourceMessage) {
        let known = if resource.full { Holding::None } else { self.theirs.unwrap_or(Holding::None) };
        self.theirs = Some(known.plus(resource.hold));
        self.peer_may_hold = self.theirs != Some(Holding::None);
        let was_stable = self.other_stable;
        if let Some(stable) = resource.stable {
            self.other_stable = stable;
            self.theirs_settled |= stable;
        }
        if self.other_stable && !was_stable {
            self.note(Level::Info, "remote resource transition completed.".into());
        }
        if resource.stable == Some(true) {
            self.peer_rests(view, resource.hold);
        }
        match self.state {
            R1State::Starting | R1State::BothStarting | R1State::Received if self.other_stable => {
                self.say_holdings(false, None);
                if self.doubts(view) {
                    return self.begin_doubt(view);
                }
                self.settle();
                self.compare(view);
            }
            R1State::Starting | R1State::BothStarting => self.received(view),
            R1State::Stable => {
                self.go_home(view);
                let became_stable = self.other_stable && !was_stable;
                self.withdraw_claim();
                self.compare(view);
                if self.other_stable && self.contested.is_none() {
                    let due = core::mem::replace(&mut self.announce_due, Holding::None);
                    self.announce_again(due.and(self.mine));
                }
                if self.other_stable && self.handover == Handover::Idle {
                    if became_stable {
                        // A real peer hears `stable` as soon as our holdings are decided.
                        self.say_holdings(self.settled() || !view.peer_locum, None);
                    }
                    self.fail_back(view);
                }
            }
            R1State::Init | R1State::Received | R1State::Leaving | R1State::Left => {}
        }
    }

    /// Handles the first announcement of holdings, ours or the peer's.
    fn received(&mut self, view: &R1View<'_>) {
        self.state = R1State::Received;
        if view.peer_locum {
            // Two nodes of Locum handle frames as they arrive and hold nothing unless they say so: no wait is needed.
            self.settle();
        } else {
            self.settle_at = Some(view.now + WAIT);
        }
    }

    fn settle(&mut self) {
        self.settle_at = None;
        self.state = R1State::Stable;
        self.note(Level::Info, "Initial resource acquisition complete (we settled)".into());
        if !self.mine.has_local() && !self.theirs().has_local() {
            self.acquire_local();
        } else {
            self.note(Level::Info, "Local Resource acquisition completed. (none)".into());
        }
        self.say_holdings(true, None);
    }

    fn acquire_local(&mut self) {
        self.mine = self.mine.plus(Holding::Local);
        self.steps.push_back(R1Step::Want(Holding::Local, true));
        self.add_task(PendingMessage::Own);
    }

    fn fail_back(&mut self, view: &R1View<'_>) {
        let allowed = (self.failback != AutoFailback::Off || breakage::is(Breakage::FailbackAlways))
            && !breakage::is(Breakage::NoFailback);
        if self.legacy.speaks
            || !self.failback_due
            || !self.other_stable
            || !view.peer_up
            || self.contested.is_some()
        {
            return;
        }
        let homeless = self.mine.has_foreign() && !self.theirs().has_foreign();
        if !homeless || !allowed {
            self.failback_due = false;
            self.failback_at = None;
            return;
        }
        let at = *self.failback_at.get_or_insert(view.now + CATCH_UP);
        if view.now < at && !view.peer_locum {
            return;
        }
        self.failback_at = None;
        if view.groups.of(Holding::Foreign).any(|group| view.peer_failed.contains(&group)) {
            // The peer could not start these groups. Wait until it no longer says so.
            return;
        }
        match self.offer(view, Holding::Foreign, None) {
            Ok(()) => self.failback_due = false,
            Err(why) => self.note(Level::Debug, format!("no failback yet: {why}")),
        }
    }

    // ---- death, heal, leave -------------------------------------------------------------------------------------

    fn take_everything(&mut self, tasks: &[PendingMessage]) {
        self.forget_requests();
        self.theirs = Some(Holding::None);
        self.other_stable = true;
        self.contested = None;
        // The tasks lead to `Stable`; until then nothing is asked.
        self.settle_at = None;
        self.doubt = Holding::None;
        self.handover = Handover::Idle;
        self.mine = Holding::All;
        self.steps.push_back(R1Step::Want(Holding::All, true));
        for &task in tasks {
            self.add_task(task);
        }
    }

    /// Returns false if something still moves and the leave must wait.
    fn begin_leaving(&mut self, view: &R1View<'_>) -> bool {
        if matches!(self.state, R1State::Leaving | R1State::Left) {
            return true;
        }
        let moving = self.handover != Handover::Idle || !self.tasks.is_empty();
        if self.state != R1State::Init && (moving || !view.groups.at_rest(Holding::All)) {
            return false;
        }
        let spoke = self.state != R1State::Init || self.is_reloaded;
        self.state = R1State::Leaving;
        self.mine = Holding::None;
        self.fence = Fence::Idle;
        self.forget_requests();
        self.hand_back = None;
        self.settle_at = None;
        if let Some((order, _, _)) = self.takeover.take() {
            self.answer(order, Answer::Refused("this node is leaving".into()));
        }
        self.end_wish("this node is leaving");
        if spoke {
            self.note(Level::Info, "Giving up all HA resources.".into());
            self.say_holdings(false, Some("shutdown"));
        }
        let stopped = if breakage::is(Breakage::NoStopOnLeave) { Holding::None } else { Holding::All };
        self.steps.push_back(R1Step::Want(stopped, false));
        true
    }

    /// Begins an ordered leave when nothing moves any more, and ends it when everything is stopped.
    pub fn leaving_goes_on(&mut self, view: &R1View<'_>) {
        if self.leave.is_some() && self.state != R1State::Leaving {
            self.begin_leaving(view);
            return;
        }
        if self.state != R1State::Leaving {
            return;
        }
        let planted = breakage::is(Breakage::NoStopOnLeave);
        let released = view.groups.released(Holding::All) || planted;
        let stuck = view.groups.at_rest(Holding::All) && view.groups.stop_failed(Holding::All);
        if !released && !stuck {
            return;
        }
        self.state = R1State::Left;
        if released {
            self.note(Level::Info, "All HA resources relinquished.".into());
            if !breakage::is(Breakage::NoShutdownNotice) {
                self.say(Body::ShutDone);
            }
        } else {
            let text =
                "leaving although a resource cannot be stopped; the peer is not told that all is released";
            self.note(Level::Critical, text.into());
        }
        let leave = self.leave.take();
        if let Some(order) = leave.and_then(|leave| leave.order) {
            self.answer(
                order,
                match released {
                    true => Answer::Done("left the cluster".into()),
                    false => Answer::TimedOut("left the cluster; something here cannot be stopped".into()),
                },
            );
        }
        self.steps.push_back(R1Step::Left { restart: leave.is_some_and(|l| l.restart), clean: released });
    }

    // ---- helpers ------------------------------------------------------------------------------------------------

    fn add_task(&mut self, task: PendingMessage) {
        if !self.tasks.contains(&task) {
            self.tasks.push(task);
        }
    }

    fn tasks_go_on(&mut self, view: &R1View<'_>) {
        let done = |task: &mut PendingMessage| match *task {
            PendingMessage::MachDown => view.groups.acquired(Holding::Foreign),
            PendingMessage::Own => view.groups.acquired(Holding::Local),
            PendingMessage::Left(set) => view.groups.acquired(set),
            PendingMessage::Yield(set) => view.groups.at_rest(set),
        };
        let ready: Vec<PendingMessage> = self.tasks.extract_if(.., done).collect();
        for task in &ready {
            match *task {
                PendingMessage::MachDown => {
                    self.note(Level::Info, "mach_down takeover complete.".into());
                    let body = ResourceMessage {
                        hold: Holding::Foreign,
                        full: false,
                        stable: None,
                        info: Some("mach_down".into()),
                    };
                    self.say(Body::Resource(body));
                }
                PendingMessage::Own => {
                    self.note(Level::Info, "Local Resource acquisition completed.".into());
                    self.say_holdings(true, Some("req_our_resources()"));
                }
                PendingMessage::Left(set) => {
                    self.say(Body::AskResources { hold: set, step: AskStep::Done });
                    self.say_holdings(true, None);
                }
                PendingMessage::Yield(_) => self.say_holdings(true, None),
            }
        }
        if ready.is_empty() || !self.tasks.is_empty() {
            return;
        }
        if matches!(self.state, R1State::Starting | R1State::BothStarting | R1State::Received) {
            self.settle_at = None;
            self.state = R1State::Stable;
            self.say_holdings(true, None);
        }
        self.fail_back(view);
    }

    fn abandon_orders(&mut self, view: &R1View<'_>, why: &str) {
        let text = format!("{} {why} meanwhile", view.name());
        self.end_wish(&text);
        if let Some((order, set, _)) = self.takeover.take() {
            let answer = if set.minus(self.mine).is_none() {
                Answer::Done(format!("{text}; {} is taken over", words(set)))
            } else {
                Answer::Refused(text.clone())
            };
            self.answer(order, answer);
        }
        self.end_order(Answer::Refused(text));
    }

    fn end_order(&mut self, answer: Answer) {
        if let Some(order) = self.order.take() {
            self.answer(order, answer);
        }
    }

    /// Ends the hand-over and answers the order that waited for it.
    fn end_handover(&mut self, answer: Answer) {
        self.handover = Handover::Idle;
        self.end_order(answer);
    }

    fn answer(&mut self, order: OrderId, answer: Answer) {
        self.steps.push_back(R1Step::Answer(order, answer));
    }

    fn say(&mut self, body: Body) {
        if !self.is_spoken(&body) {
            return;
        }
        self.steps.push_back(R1Step::Say(body));
    }

    /// Announces our holdings; when we become stable, the peer answers with its own.
    fn exchange_holdings(&mut self) {
        self.say_holdings(false, None);
        if self.settled() {
            self.say_holdings(true, None);
        }
    }

    fn say_holdings(&mut self, stable: bool, info: Option<&str>) {
        // `stable` promises that nothing is being handed over: the peer then ends its own half.
        let stable = stable && self.handover == Handover::Idle;
        let resource = ResourceMessage {
            hold: self.mine,
            full: true,
            stable: Some(stable),
            info: info.map(String::from),
        };
        self.say(Body::Resource(resource));
    }

    fn note(&mut self, level: Level, text: String) {
        self.steps.push_back(R1Step::Note(level, text));
    }
}

/// The name of a set in texts for administrators.
const fn words(set: Holding) -> &'static str {
    match set {
        Holding::None => "nothing",
        Holding::Local => "the local set",
        Holding::Foreign => "the foreign set",
        Holding::All => "everything",
    }
}
