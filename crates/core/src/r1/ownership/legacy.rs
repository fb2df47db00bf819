//! `auto_failback legacy` beside a real heartbeat (behaviour reference, section 5; capture 17). There nobody tells what
//! it holds: a node that starts asks for each of its groups, and whoever runs one stops it and answers.
//!
//! ```text
//! starting node                      the other
//!   ip-request KEY ─────────────────►  stops the group, if it runs there
//!   starts the group ◄─────────────── ip-request-resp KEY weown=yes|no ok=OK
//! ```
//!
//! The deaths and goodbyes are as ever; there is no hand-over. Between nodes of Locum `legacy` is another word for `on`.

use super::*;

/// What is asked and what is to be answered, group by group.
#[derive(Debug)]
pub(super) struct Legacy {
    /// The peer is a real heartbeat and has not spoken as those of the other modes do.
    pub(super) speaks: bool,
    /// A real peer told what it holds: its ha.cf has another `auto_failback`.
    nice_peer: bool,
    /// Groups of ours for which we have asked.
    asked: Vec<GroupIndex>,
    /// Groups for which the peer has asked, that are being stopped.
    giving: Vec<GroupIndex>,
    /// It has asked for some of its groups, and not for all that run here.
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

impl R1 {
    /// Looks whose language is to be spoken, before anything is.
    pub fn know_peer(&mut self, view: &View<'_>) {
        if view.peer_locum {
            self.legacy.nice_peer = false;
        }
        let legacy = self.failback == AutoFailback::Legacy;
        self.legacy.speaks = legacy && !view.peer_locum && !self.legacy.nice_peer;
    }

    /// A real peer spoke in the manner of the other modes: so do we, or nothing would ever move.
    pub(super) fn hear_nice(&mut self, view: &View<'_>) {
        if !view.peer_locum && self.legacy.speaks {
            let text = format!("{} does not have `auto_failback legacy` in its ha.cf, as we do", view.name());
            self.note(Level::Warning, text);
            (self.legacy.nice_peer, self.legacy.speaks) = (true, false);
        }
    }

    /// Whether this is said in the language that is spoken.
    pub(super) const fn is_spoken(&self, body: &Body) -> bool {
        let nice = matches!(
            body,
            Body::Starting | Body::Resource(_) | Body::AskResources { .. } | Body::Takeover { .. }
        );
        !(nice && self.legacy.speaks)
    }

    /// We begin beside a living real peer, which has its own groups.
    pub(super) fn ask_for_groups(&mut self, view: &View<'_>) {
        self.other_stable = true;
        if self.is_renewed {
            // Neither of us asks for anything: it stays as it was.
            self.theirs = Some(Holding::All.minus(self.mine).mirrored());
            self.state = State::Stable;
            return;
        }
        self.theirs = Some(Holding::Local);
        self.legacy.asked = view.groups.of(Holding::Local).collect();
        self.ask_again(view);
        if self.legacy.asked.is_empty() {
            self.own_answered();
        }
    }

    /// The peer has begun anew, and forgot what it was asked.
    pub(super) fn ask_again(&mut self, view: &View<'_>) {
        for group in self.legacy.asked.clone() {
            self.say(Body::IpRequest { key: view.groups.key(group).into() });
        }
    }

    /// The peer wants one of its groups.
    pub(super) fn heard_ip_request(&mut self, view: &View<'_>, key: &str) {
        if view.peer_locum || matches!(self.state, State::Init | State::Leaving | State::Left) {
            return;
        }
        let group = view.groups.named(key).filter(|group| !view.groups.is_released(*group));
        let Some(group) = group else { return self.answer_ip_request(key.into(), false) };
        self.note(Level::Info, format!("{} asks for {key}", view.name()));
        if !self.legacy.giving.contains(&group) {
            self.legacy.giving.push(group);
        }
        self.legacy.partly_given = true;
        self.steps.push_back(Step::WantGroup(group, false));
    }

    /// The peer has stopped one of ours, or never had it.
    pub(super) fn heard_ip_answer(&mut self, key: &str, ok: bool, view: &View<'_>) {
        let Some(place) = self.legacy.asked.iter().position(|&group| view.groups.key(group) == key) else {
            return;
        };
        if !ok {
            return self.note(Level::Warning, format!("{} does not give {key}", view.name()));
        }
        let group = self.legacy.asked.remove(place);
        self.mine = self.mine.plus(Holding::Local);
        self.steps.push_back(Step::WantGroup(group, true));
        if self.legacy.asked.is_empty() {
            self.own_answered();
        }
    }

    /// Groups have come to rest: those that the peer waits for it may start.
    pub(super) fn giving_goes_on(&mut self, view: &View<'_>) {
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

    /// Whoever is dead or gone waits for nothing, and answers nothing.
    pub(super) fn forget_requests(&mut self) {
        self.legacy.asked.clear();
        self.legacy.giving.clear();
        self.legacy.partly_given = false;
    }

    fn answer_ip_request(&mut self, key: String, we_own: bool) {
        self.steps.push_back(Step::SayToPeer(Body::IpRequestResponse { key, we_own, ok: true }));
    }

    fn own_answered(&mut self) {
        self.note(Level::Info, "Initial resource acquisition complete (ip-request-resp)".into());
        self.mine = self.mine.plus(Holding::Local);
        self.add_task(Task::Own);
    }
}
