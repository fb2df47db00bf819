//! Invariants of the simulation, checked after every event.
//!
//! * Two hosts never run the same resource while two connected daemons have no reason to doubt each other. Reasons are
//!   a cut, a freeze, a kill, or losses.
//! * A group runs one operation at a time. A member starts only when all before it run, and stops only when all after
//!   it are down (or their stop has failed).
//! * A ticket is used once, an order is answered once, and only a host that has an address announces it.
//! * A daemon that ends by itself leaves no resource running, unless its stop failed.
//! * The gates of a running daemon do not shut, and are open for less than a deadtime.
//! * The beats of a running daemon are at most the keepalive and 50 ms apart. No daemon floods a link.
//! * A remembered generation only grows. No daemon asks for an immediate wake-up again and again.

use std::collections::{BTreeMap, BTreeSet};

use locum_core::{
    group::GroupPhase,
    model::{
        action::{GateLease, Operation},
        event::Ticket,
        identity::{GroupIndex, LinkIndex, ResourceId},
    },
    r1::status::R1GroupStatus,
};

use crate::world::{ProcessState, World, nanos};

/// How late a beat may be, in nanoseconds.
const BEAT_SLACK: u64 = 50_000_000;
/// Most frames that a daemon may send on a link within a second.
const FRAMES_A_SECOND_MAX: u32 = 300;
/// Bytes of the largest frame.
const FRAME_BYTES_MAX: usize = 1400;

/// State of the checks, and the faults that they found.
#[derive(Debug, Default)]
pub struct Checks {
    faults: Vec<String>,
    is_doubtful: bool,
    used: BTreeSet<(usize, Ticket)>,
    stop_tried: BTreeSet<(usize, ResourceId)>,
    beats: BTreeMap<(usize, LinkIndex), u64>,
    /// When each gate ends if nothing renews it.
    gates: BTreeMap<(usize, GroupIndex), u64>,
    rates: BTreeMap<(usize, LinkIndex), (u64, u32)>,
}

impl Checks {
    /// Records that an invariant is broken.
    pub fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    /// Whether any invariant was broken.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The faults found so far, in the order in which they were found.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// From now on a daemon may rightly believe its peer dead while it is alive.
    pub fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// All faults are healed, and the cluster has settled.
    pub fn trust(&mut self) {
        self.is_doubtful = false;
    }

    /// Forgets the state of a daemon whose run has ended.
    pub fn ended(&mut self, daemon: usize) {
        self.used.retain(|(d, _)| *d != daemon);
        self.stop_tried.retain(|(d, _)| *d != daemon);
        self.beats.retain(|(d, _), _| *d != daemon);
        self.gates.retain(|(d, _), _| *d != daemon);
        self.rates.retain(|(d, _), _| *d != daemon);
    }
}

impl World {
    /// Checks after every event whether connected daemons still are connected.
    pub(crate) fn look(&mut self) {
        if self.checks.is_doubtful {
            return;
        }
        for a in 0..self.daemons.len() {
            for b in self.peers(a) {
                let both_run = [a, b].iter().all(|&d| matches!(self.daemons[d].process, ProcessState::Up(_)));
                if a < b && both_run && !self.are_connected(a, b) {
                    self.checks.doubt();
                }
            }
        }
    }

    /// Checks the invariants after a resource changed on a host.
    pub(crate) fn check_held(&mut self, daemon: usize, resource: ResourceId) {
        self.look();
        if self.checks.is_doubtful || !self.daemons[daemon].held.contains(&resource) {
            return;
        }
        for peer in self.peers(daemon) {
            if self.daemons[peer].held.contains(&resource) {
                let name = &self.daemons[daemon].setup.plan.resource(resource).text;
                let text =
                    format!("{name} runs on two hosts, although no daemon had a reason to doubt the other");
                self.checks.fault(text);
            }
        }
    }

    /// Checks the state of a cluster in which nothing changes any more.
    pub(crate) fn check_settled(&mut self) {
        let mut is_calm = true;
        for a in 0..self.daemons.len() {
            self.check_beats(a);
            for b in self.peers(a) {
                let up = [a, b].map(|d| matches!(self.daemons[d].process, ProcessState::Up(_)));
                if up == [true, true] && !self.are_connected(a, b) {
                    is_calm = false;
                }
                if self.are_connected(a, b) {
                    self.check_not_both(a, b);
                }
            }
            is_calm &=
                !self.status(a).is_some_and(|status| status.groups.iter().any(is_stop_failed_or_stopping));
            // The services of a killed daemon still run.
            is_calm &=
                matches!(self.daemons[a].process, ProcessState::Up(_)) || self.daemons[a].held.is_empty();
        }
        if is_calm {
            self.checks.trust();
        }
    }

    fn check_not_both(&mut self, a: usize, b: usize) {
        let both: Vec<_> = self.daemons[a].held.intersection(&self.daemons[b].held).copied().collect();
        for resource in both {
            // A resource that cannot be stopped after a partition runs on; the log asks an administrator for help.
            if [a, b].iter().any(|&daemon| self.may_run_on(daemon, resource)) {
                continue;
            }
            let name = &self.daemons[a].setup.plan.resource(resource).text;
            let text = format!("{name} runs on two hosts that have heard each other for long");
            self.checks.fault(text);
        }
    }

    /// Whether the daemon reports that the stop of the resource's group failed, or has not succeeded yet.
    fn may_run_on(&self, daemon: usize, resource: ResourceId) -> bool {
        self.status(daemon).is_some_and(|status| is_stop_failed_or_stopping(&status.groups[resource.group.0]))
    }

    fn check_beats(&mut self, daemon: usize) {
        let (now, keepalive) = (self.now, nanos(self.daemons[daemon].setup.plan.timing.keepalive));
        let ProcessState::Up(up) = &self.daemons[daemon].process else { return };
        if up.is_frozen {
            return;
        }
        for (&(d, link), &at) in &self.checks.beats {
            if d == daemon && now - at > keepalive + BEAT_SLACK {
                let text = format!("daemon {daemon} sends no beats any more on {link:?}");
                return self.checks.fault(text);
            }
        }
    }

    /// Checks a frame that a daemon is about to send.
    pub(crate) fn check_frame(&mut self, daemon: usize, link: LinkIndex, bytes: &[u8]) {
        if bytes.len() > FRAME_BYTES_MAX {
            self.checks.fault(format!("daemon {daemon} sends a frame of {} bytes", bytes.len()));
        }
        let second = self.now / 1_000_000_000;
        let rate = self.checks.rates.entry((daemon, link)).or_default();
        *rate = if rate.0 == second { (second, rate.1 + 1) } else { (second, 1) };
        if rate.1 == FRAMES_A_SECOND_MAX {
            self.checks.fault(format!("daemon {daemon} floods {link:?}"));
        }
        let is_beat = bytes.windows(9).any(|part| part == b"t=status," || part == b"t=status\n");
        if !is_beat {
            return;
        }
        let keepalive = nanos(self.daemons[daemon].setup.plan.timing.keepalive);
        let frozen_or_new = self.checks.is_doubtful; // After a freeze the first beat is late, of course.
        if let Some(before) = self.checks.beats.insert((daemon, link), self.now)
            && self.now - before > keepalive + BEAT_SLACK
            && !frozen_or_new
        {
            let gap = (self.now - before) / 1_000_000;
            self.checks.fault(format!("daemon {daemon} sends a beat {gap} ms after the last one"));
        }
    }

    /// Checks how long a daemon lets the addresses of a group answer.
    pub(crate) fn check_gate(&mut self, daemon: usize, group: GroupIndex, lease: Option<GateLease>) {
        let Some(lease) = lease else {
            return self.checks.fault(format!("daemon {daemon} shuts a gate, and R1 has no leases"));
        };
        let long = nanos(lease.until.since(lease.sent));
        let timing = &self.daemons[daemon].setup.plan.timing;
        if long >= nanos(timing.deadtime) || long < nanos(timing.keepalive * 2) {
            self.checks.fault(format!("daemon {daemon} opens a gate for {} ms", long / 1_000_000));
        }
        let before = self.checks.gates.insert((daemon, group), self.now + long);
        if before.is_some_and(|end| end < self.now) && !self.checks.is_doubtful {
            self.checks.fault(format!("daemon {daemon}: a gate was shut although the daemon runs"));
        }
    }

    /// Checks an operation that an agent is about to begin.
    pub(crate) fn check_run(
        &mut self,
        daemon: usize,
        ticket: Ticket,
        resource: ResourceId,
        operation: Operation,
    ) {
        let d = &self.daemons[daemon];
        let ProcessState::Up(up) = &d.process else { return };
        let name = d.setup.plan.resource(resource).text.clone();
        let members = d.setup.plan.groups[resource.group.0].resources.len();
        let of_group = |member: usize| ResourceId { group: resource.group, member };
        let is_busy = up.tickets.values().any(|(other, _)| other.group == resource.group);
        let before_are_up = (0..resource.member).all(|member| d.held.contains(&of_group(member)));
        let after_are_down = (resource.member + 1..members).all(|member| {
            let other = of_group(member);
            !d.held.contains(&other) || self.checks.stop_tried.contains(&(daemon, other))
        });
        if is_busy {
            self.checks.fault(format!("{operation:?} of {name} while another operation of its group runs"));
        }
        if !self.checks.used.insert((daemon, ticket)) {
            self.checks.fault(format!("{ticket:?} is used twice"));
        }
        match operation {
            Operation::Start if !before_are_up => {
                self.checks.fault(format!("start of {name} before the members left of it run"));
            }
            Operation::Stop if !after_are_down => {
                self.checks.fault(format!("stop of {name} before the members right of it were stopped"));
            }
            Operation::Stop => {
                self.checks.stop_tried.insert((daemon, resource));
            }
            Operation::Start => {
                self.checks.stop_tried.remove(&(daemon, resource));
            }
            Operation::Status => {}
            Operation::Terminate | Operation::Kill => {
                self.checks.fault(format!("{operation:?} of {name}, but R1 has no stop ladder"));
            }
        }
    }

    /// Checks that a daemon that ends has released everything.
    pub(crate) fn check_exit(&mut self, daemon: usize) {
        let d = &self.daemons[daemon];
        let left = d.held.iter().find(|r| !self.checks.stop_tried.contains(&(daemon, **r)));
        if let Some(&resource) = left {
            let name = &d.setup.plan.resource(resource).text;
            let text = format!("daemon {daemon} ends, and {name} still runs");
            self.checks.fault(text);
        }
    }
}

fn is_stop_failed_or_stopping(group: &R1GroupStatus) -> bool {
    matches!(group.phase, GroupPhase::StopFailed(_) | GroupPhase::Stopping(_))
}
