//! `auto_failback legacy` beside a real heartbeat (behaviour reference, section 5; capture 17). In this mode nodes do
//! not announce their holdings. A node that starts asks for each of its groups; a node that runs the group stops it and
//! answers.
//!
//! ```text
//! starting node                      the other
//!   ip-request KEY ─────────────────►  stops the group, if it runs there
//!   starts the group ◄─────────────── ip-request-resp KEY weown=yes|no ok=OK
//! ```
//!
//! Deaths and goodbyes work as in the other modes; there is no hand-over. Between nodes of Locum `legacy` means `on`.

use super::*;

/// Requests and answers under way, by group.
#[derive(Debug)]
pub(super) struct Legacy {
    /// The peer is a real heartbeat and has sent no message of the other modes.
    pub(super) speaks: bool,
    /// A real peer announced its holdings: its ha.cf has another `auto_failback`.
    nice_peer: bool,
    /// Groups of ours that we have asked for.
    asked: Vec<GroupIndex>,
    /// Groups that the peer has asked for and that are being stopped.
    giving: Vec<GroupIndex>,
    /// The peer has asked for some of its groups, but not for all that run here.
    pub(super) partly_given: bool,
}

impl Legacy {
    pub(super) const fn new() -> Self {
        Self { speaks: false, nice_peer: false, asked: Vec::new(), giving: Vec::new(), partly_given: false }
    }

    /// Whether a group is on its way.
    pub(super) const fn is_moving(&self) -> bool {
        !self.asked.is_empty() || !self.giving.is_empty()
    }
}

impl R1Ownership {
    /// Finds out which messages the peer understands; call it before anything is said.
    pub fn know_peer(&mut self, view: &R1View<'_>) {
        if view.peer_locum {
            self.legacy.nice_peer = false;
        }
        let legacy = self.failback == AutoFailback::Legacy;
        self.legacy.speaks = legacy && !view.peer_locum && !self.legacy.nice_peer;
    }

    /// A real peer used the messages of the other modes: we switch to them, or nothing would ever move.
    pub(super) fn hear_nice(&mut self, view: &R1View<'_>) {
        if !view.peer_locum && self.legacy.speaks {
            let text = format!("{} does not have `auto_failback legacy` in its ha.cf, as we do", view.name());
            self.note(Level::Warning, text);
            (self.legacy.nice_peer, self.legacy.speaks) = (true, false);
        }
    }

    /// Whether the mode in use has this message.
    pub(super) const fn is_spoken(&self, body: &Body) -> bool {
        let nice = matches!(
            body,
            Body::Starting | Body::Resource(_) | Body::AskResources { .. } | Body::Takeover { .. }
        );
        !(nice && self.legacy.speaks)
    }

    /// Begins beside a living real peer, which has its own groups.
    pub(super) fn ask_for_groups(&mut self, view: &R1View<'_>) {
        self.other_stable = true;
        if self.is_reloaded {
            // Neither node asks for anything: everything stays as it was.
            self.theirs = Some(Holding::All.minus(self.mine).mirrored());
            self.state = R1State::Stable;
            return;
        }
        self.theirs = Some(Holding::Local);
        self.legacy.asked = view.groups.of(Holding::Local).collect();
        self.ask_again(view);
        if self.legacy.asked.is_empty() {
            self.own_answered();
        }
    }

    /// Repeats our requests: the peer has restarted and forgot them.
    pub(super) fn ask_again(&mut self, view: &R1View<'_>) {
        for group in self.legacy.asked.clone() {
            self.say(Body::IpRequest { key: view.groups.key(group).into() });
        }
    }

    /// The peer asks for one of its groups.
    pub(super) fn heard_ip_request(&mut self, view: &R1View<'_>, key: &str) {
        if view.peer_locum || matches!(self.state, R1State::Init | R1State::Leaving | R1State::Left) {
            return;
        }
        let group = view.groups.named(key).filter(|group| !view.groups.is_released(*group));
        let Some(group) = group else { return self.answer_ip_request(key.into(), false) };
        self.note(Level::Info, format!("{} asks for {key}", view.name()));
        if !self.legacy.giving.contains(&group) {
            self.legacy.giving.push(group);
        }
        self.legacy.partly_given = true;
        self.steps.push_back(R1Step::WantGroup(group, false));
    }

    /// The peer has stopped one of our groups, or never had it.
    pub(super) fn heard_ip_answer(&mut self, key: &str, ok: bool, view: &R1View<'_>) {
        let Some(place) = self.legacy.asked.iter().position(|&group| view.groups.key(group) == key) else {
            return;
        };
        if !ok {
            return self.note(Level::Warning, format!("{} does not give {key}", view.name()));
        }
        let group = self.legacy.asked.remove(place);
        self.mine = self.mine.plus(Holding::Local);
        self.steps.push_back(R1Step::WantGroup(group, true));
        if self.legacy.asked.is_empty() {
            self.own_answered();
        }
    }

    /// Groups have come to rest: the peer may start those it waits for.
    pub(super) fn giving_goes_on(&mut self, view: &R1View<'_>) {
        let given: Vec<GroupIndex> =
            self.legacy.giving.extract_if(.., |group| view.groups.is_released(*group)).collect();
        for group in &given {
            self.answer_ip_request(view.groups.key(*group).into(), true);
        }
        if !given.is_empty() && view.groups.released(Holding::Foreign) {
            self.mine = self.mine.minus(Holding::Foreign);
            self.legacy.partly_given = false;
            self.theirs = Some(Holding::Local);
            self.other_stable = true;
            self.peer_may_hold = true;
        }
    }

    /// Forgets all requests: a dead or departed peer waits for nothing and answers nothing.
    pub(super) fn forget_requests(&mut self) {
        self.legacy.asked.clear();
        self.legacy.giving.clear();
        self.legacy.partly_given = false;
    }

    fn answer_ip_request(&mut self, key: String, we_own: bool) {
        self.steps.push_back(R1Step::SayToPeer(Body::IpRequestResponse { key, we_own, ok: true }));
    }

    fn own_answered(&mut self) {
        self.note(Level::Info, "Initial resource acquisition complete (ip-request-resp)".into());
        self.mine = self.mine.plus(Holding::Local);
        self.add_task(PendingMessage::Own);
    }
}
