//! The heart's loop. One turn: wait; do what is due; read a bounded number of frames from each ready link; read the
//! messages of the control plane; send it ours. After every single event the director's actions are performed to the
//! last one.
//!
//! Due work comes before received frames, so that no flood delays a beat. There is one exception: if this machine did
//! not let us run and the turn comes late, one bounded round of waiting frames is read first. Otherwise our own pause
//! would look like the peer's silence.

use std::{
    collections::{BTreeSet, VecDeque},
    io, mem,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use locum_core::{
    model::{
        action::{Action, ClaimAnnouncement, GateLease, Operation},
        claim::Epoch,
        event::{Carrier, Event, Outcome, Source, Ticket},
        identity::{GroupIndex, LinkIndex, ResourceId},
        note::{Level, Note},
        resource::Agent,
    },
    native::wire::announcement,
};
use locum_sys::{
    clock,
    gate::Proof,
    poll::{Interest, Poller, ReadySource, Timer},
    realtime,
};

use super::{
    Down, HeartOptions, HeartStats, LinkStats, Up,
    address::{Addresses, NO_PROCESSES, resolves},
    arp_filter::ArpFilterThread,
    busy::HeartLoad,
    director::Director,
    gates::{ClaimListeners, GateOutcome, Gates, Lease},
    holders::Holders,
    network::Network,
    now,
    pings::{PingFamily, Pings},
    ring::HeartRings,
    rivals::RivalState,
    routed::RoutedLink,
    serial::SerialLink,
    stats::Histogram,
    udp::UdpLink,
    watchdog::ArmedWatchdog,
};
use crate::host_config::{HostConfig, LinkPath};

/// How many frames are read from one socket in one turn, while others wait.
const FRAMES_A_TURN: usize = 32;
/// How many after a pause of our own.
const FRAMES_AFTER_PAUSE: usize = 512;
/// Bytes read from a serial line in one turn: a third of a second of the fastest.
const PIECE_BYTES: usize = 4096;
/// The size of the largest datagram.
const BUFFER_BYTES: usize = 65_536;
/// The pause before links are tried again that are down for a reason without a notification; also the longest time
/// between two turns.
const RETRY_NANOS: u64 = 1_000_000_000;
/// How long the heart works without a wait before it leaves the processor to others for a yield interval. A real-time
/// thread that never waits would starve the machine, and meet the runaway limit.
const YIELD_AFTER_NANOS: u64 = 20_000_000;
const YIELD_NANOS: u64 = 2_000_000;
/// The shortest yield interval, even if a deadline has passed: only a real wait resets the count of the runaway limit.
const YIELD_MIN_NANOS: u64 = 1_000_000;
/// A wait that took longer than this counts as one.
const WAITED_NANOS: u64 = 50_000;
/// The runaway limit: computing this long without a wait is a fault that must end the process.
const RUNAWAY_LIMIT_MICROS: u64 = 2_000_000;
/// The interval of a measurement's ticks.
const MEASURE_NANOS: u64 = 10_000_000;

/// How long one turn works on things that can wait (addresses to put and remove, announcements of claims): a takeover
/// of thousands of groups must not keep a beat or a frame waiting.
const WORK_A_TURN_NANOS: u64 = 3_000_000;

/// How many gates are compared with the kernel at once: each costs a dozen system calls.
const GATES_A_LOOK: usize = 16;

/// Numbers of the poller's sources. Receivers and lines follow, [`RECEIVERS`] numbers for each link.
const TIMER: u64 = 0;
const BELL: u64 = 1;
const NETWORK: u64 = 2;
const ECHO_V4: u64 = 3;
const ECHO_V6: u64 = 4;
const RULES: u64 = 5;
/// As many as there are sockets for it: one for each few thousand addresses.
const RIVALS: u64 = 6;
const LINKS: u64 = 16;
const RECEIVERS: u64 = 64;

/// The whole state of the thread.
pub(super) struct Pulse {
    director: Director,
    host_config: Arc<HostConfig>,
    options: HeartOptions,
    shared: Arc<HeartRings>,
    poller: Poller,
    timer: Timer,
    /// The time to which the timer is set.
    timer_at: Option<u64>,
    network: Network,
    links: Vec<LinkEnd>,
    /// The processes that hold ports which links want.
    holders: Holders,
    pings: Pings,
    addresses: Addresses,
    gates: Gates,
    arp_filter: ArpFilterThread,
    /// All service addresses of the cluster.
    services: BTreeSet<IpAddr>,
    /// The network has changed since the addresses' reachability was last reported.
    services_due: bool,
    /// The actions that the heart does itself, a little in each turn; oldest first.
    work: VecDeque<Action>,
    /// How many announcements of claims are among them.
    claims_to_announce: usize,
    /// The results of actions that came while actions were performed. The director gets them one by one afterwards.
    deferred_events: VecDeque<DeferredEvent>,
    /// The leases that the gates are to be told next.
    leases: Vec<(GroupIndex, Option<Lease>)>,
    /// Messages for the control plane for which the ring had no room.
    waiting: VecDeque<Up>,
    /// The ring holds a message for which the control plane was not called yet.
    called: bool,
    retry_at: u64,
    busy: HeartLoad,
    lateness: Histogram,
    measure: Option<Measurement>,
    measured: Option<Histogram>,
    stats: HeartStats,
    watchdog: Option<ArmedWatchdog>,
    /// The control plane was told that this node takes part.
    active_reported: bool,
    /// The next run of the heart keeps the resources that run.
    goes_on: bool,
    buffer: Vec<u8>,
    ready: Vec<ReadySource>,
}

/// One link: its media, the state last told to the director, its counters.
struct LinkEnd {
    media: Media,
    reported: Option<Carrier>,
    /// The address from which frames to a witness leave, as last told.
    source: Option<SocketAddr>,
    stats: LinkStats,
}

enum Media {
    Udp(UdpLink),
    Serial(SerialLink),
    Routed(RoutedLink),
    /// This member is not connected to it.
    None,
}

/// An event that came up while an action was performed.
enum DeferredEvent {
    Done(Ticket, Outcome),
    Link(LinkIndex, Carrier),
    /// The address from which frames to a witness leave.
    Source(LinkIndex, Option<SocketAddr>),
    Gone(ResourceId),
    Service(ResourceId, Carrier),
}

/// How much is read from one source before others get their turn. At least one frame is read.
#[derive(Clone, Copy)]
struct ReadBound {
    frames: usize,
    /// The moment after which no more is read.
    until: u64,
}

struct Measurement {
    next: u64,
    until: u64,
}

impl Pulse {
    pub(super) fn new(
        director: Director,
        host_config: Arc<HostConfig>,
        options: HeartOptions,
        shared: Arc<HeartRings>,
    ) -> io::Result<Self> {
        let (poller, timer, network) = (Poller::new()?, Timer::new()?, Network::open()?);
        poller.add(&timer, TIMER, Interest::Read)?;
        poller.add(shared.bell(), BELL, Interest::Read)?;
        poller.add(&network, NETWORK, Interest::Read)?;
        let (pings, ping_fault) = Pings::new(&host_config.pings);
        for (family, source) in pings.sources() {
            let token = if family == PingFamily::V4 { ECHO_V4 } else { ECHO_V6 };
            poller.add(source, token, Interest::Read)?;
        }
        let addresses = Addresses::new(&host_config).bounded(&host_config)?;
        for (source, token) in addresses.rivals().sources().zip(RIVALS..LINKS) {
            poller.add(source, token, Interest::Read)?;
        }
        let mut gates = Gates::new(&host_config, &options);
        let listeners = claim_listeners_of(&director, &host_config, &network);
        let unready = gates.make_ready(&addresses.places(&network), listeners.as_ref());
        let homes = addresses.homes(&network, |group| gates.wants(group));
        let arp_filter =
            ArpFilterThread::start(gates.filter(), gates.cluster(), !host_config.groups.is_empty(), homes)?;
        if let Some(source) = gates.source() {
            poller.add(source, RULES, Interest::Read)?;
        }
        let links = host_config.links.iter().enumerate().map(|(index, link)| {
            let media = match &link.path {
                LinkPath::Serial { device, baud } => {
                    Media::Serial(SerialLink::new(device, *baud, token(index, 0)))
                }
                LinkPath::Interface(place, media, ports) => Media::Udp(UdpLink::new(place, media, *ports)),
                LinkPath::Routed { to, from } => Media::Routed(RoutedLink::new(*to, *from)),
                LinkPath::Nowhere => Media::None,
            };
            LinkEnd {
                media,
                reported: None,
                source: None,
                stats: LinkStats { name: link.name.clone(), ..LinkStats::default() },
            }
        });
        let mut pulse = Self {
            links: links.collect(),
            holders: Holders::default(),
            services: addresses.all(),
            services_due: true,
            director,
            host_config,
            options,
            shared,
            poller,
            timer,
            timer_at: None,
            network,
            pings,
            addresses,
            gates,
            arp_filter,
            work: VecDeque::new(),
            claims_to_announce: 0,
            deferred_events: VecDeque::new(),
            leases: Vec::new(),
            waiting: VecDeque::new(),
            called: false,
            retry_at: 0,
            busy: HeartLoad::default(),
            lateness: Histogram::default(),
            measure: None,
            measured: None,
            stats: HeartStats::default(),
            watchdog: None,
            active_reported: false,
            goes_on: false,
            buffer: vec![0; BUFFER_BYTES],
            ready: Vec::new(),
        };
        if let Some(device) = pulse.options.watchdog.clone() {
            let (watchdog, level, text) = ArmedWatchdog::get(&device, pulse.host_config.deadtime);
            pulse.watchdog = watchdog;
            pulse.note(level, text);
        }
        if let Some(fault) = ping_fault {
            pulse.note(Level::Warning, fault);
        }
        if let Some((level, text)) = pulse.gates.verdict() {
            pulse.note(level, text);
        }
        if let Some((level, text)) = pulse.arp_filter.verdict() {
            pulse.note(level, text);
        }
        for text in unready {
            pulse.note(Level::Warning, text);
        }
        if let Some(why) = pulse.addresses.cannot_announce().filter(|_| !pulse.services.is_empty()) {
            pulse.note(Level::Error, format!("addresses cannot be announced on the network: {why}"));
        }
        if let Some(why) = pulse.addresses.rivals().fault().map(str::to_owned) {
            // The sockets of both need the same right, and the error above has named it.
            let why = pulse.addresses.cannot_announce().unwrap_or(why);
            let text = format!("other machines that use an address of ours cannot be detected: {why}");
            pulse.note(Level::Warning, text);
        }
        Ok(pulse)
    }

    /// Runs until it is told to stop.
    pub(super) fn run(&mut self) {
        self.become_punctual();
        self.check_links(true);
        self.perform();
        let mut worked_since = clock::monotonic_nanos();
        while !self.shared.stopped() {
            self.set_timer();
            self.tell_control();
            let before = clock::monotonic_nanos();
            if before.saturating_sub(worked_since) > YIELD_AFTER_NANOS {
                self.stats.yields += 1;
                clock::sleep_until(yield_until(before, self.next_deadline()));
                worked_since = clock::monotonic_nanos();
                self.busy.wait(worked_since - before);
            }
            let mut ready = mem::take(&mut self.ready);
            let waits_from = clock::monotonic_nanos();
            if self.poller.wait(self.work.is_empty(), &mut ready).is_err() {
                // This cannot happen with a descriptor of our own. If it does, the timers go on at least.
                clock::sleep_until(self.next_deadline());
                ready.clear();
            }
            let after = clock::monotonic_nanos();
            self.busy.wait(after.saturating_sub(waits_from));
            if after.saturating_sub(waits_from) > WAITED_NANOS {
                worked_since = after;
            }
            self.turn(after, &ready);
            self.ready = ready;
            self.stats.turns += 1;
            self.shared.note_progress();
        }
        // Everything is said: nobody waits for slow work now.
        if !self.goes_on {
            self.gates.leave();
        }
        self.arp_filter.leave(!self.goes_on && !self.gates.are_left());
    }

    /// Asks for real-time scheduling and locked memory. Refusals are in the stats: the control plane reports them once
    /// for all runs of the heart.
    fn become_punctual(&mut self) {
        realtime::touch_stack();
        realtime::give_back_memory();
        if let Err(error) = realtime::lock_memory() {
            self.stats.lock_refused = Some(error.to_string());
        }
        let Some(priority) = self.host_config.realtime else { return };
        match realtime::become_fifo(priority) {
            Ok(()) => {
                if let Err(error) = realtime::set_runaway_limit(RUNAWAY_LIMIT_MICROS) {
                    self.note(
                        Level::Warning,
                        format!("the runaway limit of the real-time thread cannot be set: {error}"),
                    );
                }
            }
            Err(error) => {
                let why = realtime::fifo_refusal(priority, &error);
                let nice = realtime::become_nice(-20).is_ok();
                let instead = if nice { "goes on at nice -20" } else { "goes on at ordinary priority" };
                self.stats.realtime_refused = Some(format!("{why}; the heart {instead}"));
            }
        }
    }

    fn turn(&mut self, now: u64, ready: &[ReadySource]) {
        let due = self.director_deadline();
        if now >= due {
            let late = now - due;
            self.lateness.add(late);
            let bearable = u64::try_from(self.host_config.beat.as_nanos() / 4).unwrap_or(u64::MAX);
            if late > bearable {
                self.read_all(
                    ready,
                    ReadBound { frames: FRAMES_AFTER_PAUSE, until: now.saturating_add(bearable) },
                );
            }
            // Reading may have brought the tick already.
            if clock::monotonic_nanos() >= self.director_deadline() {
                self.feed(Event::Tick);
            }
        }
        self.do_due(now);
        self.read_all(ready, ReadBound { frames: FRAMES_A_TURN, until: self.director_deadline() });
        if ready.iter().any(|ready| ready.token == BELL) {
            self.hear_control();
        }
        self.work();
        self.heed_network(now);
        self.addresses.send_due(&self.network, clock::monotonic_nanos());
    }

    /// Does a little of the work that can wait: at least one thing, then until its time is over or the next beat is
    /// due.
    fn work(&mut self) {
        let until = clock::monotonic_nanos().saturating_add(WORK_A_TURN_NANOS).min(self.director_deadline());
        while let Some(action) = self.work.pop_front() {
            match action {
                Action::Run { ticket, resource, operation, limit, epoch } => {
                    match self.run_address(resource, operation) {
                        Some(outcome) => self.deferred_events.push_back(DeferredEvent::Done(ticket, outcome)),
                        None => self.send_up(Up::Run { ticket, resource, operation, limit, epoch }),
                    }
                    self.feed_deferred_events();
                }
                Action::AnnounceClaim { group, announcement } => {
                    self.claims_to_announce -= 1;
                    self.announce_claim(group, announcement);
                }
                _ => {}
            }
            // A beat may have been due in between.
            self.feed_watchdog();
            if clock::monotonic_nanos() >= until {
                break;
            }
        }
    }

    // ---- deadlines

    fn director_deadline(&self) -> u64 {
        self.director.deadline().as_nanos()
    }

    fn next_deadline(&self) -> u64 {
        let lines = self.links.iter().filter_map(|link| match &link.media {
            Media::Serial(line) => line.deadline(),
            Media::Udp(_) | Media::Routed(_) | Media::None => None,
        });
        let others = [self.addresses.deadline(), self.measure.as_ref().map(|measure| measure.next)];
        let first = lines.chain(others.into_iter().flatten()).min().unwrap_or(u64::MAX);
        first.min(self.retry_at).min(self.director_deadline())
    }

    fn set_timer(&mut self) {
        let deadline = self.next_deadline();
        // A passed deadline has to be set again even if it is the same: only that makes the timer unreadable.
        let passed = self.timer_at.is_none_or(|at| at <= clock::monotonic_nanos());
        if (passed || self.timer_at != Some(deadline)) && self.timer.set(Some(deadline)).is_ok() {
            self.timer_at = Some(deadline);
        }
    }

    /// Does everything that is due, except the director's work.
    fn do_due(&mut self, now: u64) {
        if let Some(measure) = &mut self.measure {
            while measure.next <= now && measure.next < measure.until {
                self.measured.get_or_insert_default().add(now - measure.next);
                measure.next += MEASURE_NANOS;
            }
            if measure.next >= measure.until {
                self.measure = None;
            }
        }
        if self.addresses.deadline().is_some_and(|at| at <= now) {
            self.speak_up(now);
            self.look_after_addresses(now);
        }
        for (index, link) in self.links.iter_mut().enumerate() {
            if let Media::Serial(line) = &mut link.media
                && line.expire(now, &self.poller, &mut link.stats)
            {
                let carrier = line.carrier();
                tell(&mut self.deferred_events, index, link, carrier);
            }
        }
        if self.retry_at <= now {
            self.retry_at = now + RETRY_NANOS;
            if let Some(error) = self.network.catch_up() {
                let text = format!(
                    "network: changes were missed, and the state cannot be read now; it is tried again each second: \
                     {error}"
                );
                self.note(Level::Warning, text);
            }
            if self.services_due {
                self.check_services();
            }
            self.check_links(false);
            let told = self.gates.look_after(GATES_A_LOOK);
            self.heed_gates(told);
            self.renew_lifetimes(now);
            self.speak_up(now);
            for (level, text) in self.arp_filter.look() {
                self.note(level, text);
            }
            self.look_at_load(now);
        }
        self.feed_deferred_events();
    }

    /// Logs when the heart does not keep up, and when it does again.
    fn look_at_load(&mut self, now: u64) {
        let Some(overloaded) = self.busy.look(now) else { return };
        let pace = self.host_config.deadtime;
        let text = format!(
            "the heart does not keep up: it is busy {} % of the time for {} groups at a pace of {pace:?}; set a \
             longer pace, or configure fewer groups",
            self.busy.share(),
            self.host_config.groups.len()
        );
        match overloaded {
            true => self.note(Level::Error, text.clone()),
            false => self.note(Level::Info, "the heart keeps up again".to_owned()),
        }
        self.stats.overload = overloaded.then_some(text);
    }

    /// Compares links with interfaces and devices. Without `all`, only those that are down.
    fn check_links(&mut self, all: bool) {
        let mut taken = Vec::new();
        for (index, link) in self.links.iter_mut().enumerate() {
            // Routes change without a notification here, and with them the address from which a witness is asked.
            if !all && link.reported == Some(Carrier::Up) && !matches!(link.media, Media::Routed(_)) {
                continue;
            }
            let (network, services, holders) = (&self.network, &self.services, &self.holders);
            let carrier = match &mut link.media {
                Media::Udp(udp) => {
                    let carrier = udp
                        .check(network, services, holders, &self.poller, |receiver| token(index, receiver));
                    taken.extend(udp.taken());
                    carrier
                }
                Media::Serial(line) => line.check(&self.poller),
                Media::Routed(routed) => {
                    let carrier = routed.check(holders, &self.poller, token(index, 0));
                    taken.extend(routed.taken());
                    let source = routed.source();
                    if mem::replace(&mut link.source, source) != source {
                        self.deferred_events.push_back(DeferredEvent::Source(LinkIndex(index), source));
                    }
                    carrier
                }
                Media::None => continue,
            };
            tell(&mut self.deferred_events, index, link, carrier);
        }
        let now = clock::monotonic_nanos();
        for port in taken {
            if self.holders.asks(port, now) {
                self.send_up(Up::PortTaken(port));
            }
        }
        self.feed_deferred_events();
    }

    // ---- the director

    /// Gives the director one event, and performs all its actions.
    fn feed(&mut self, event: Event<'_>) {
        let lost = match (&mut self.options.losses, &event) {
            (Some(losses), Event::Frame { bytes, .. }) => !losses.hears(bytes),
            _ => false,
        };
        if lost {
            return;
        }
        self.director.handle(now(), event);
        self.perform();
        self.feed_watchdog();
        self.feed_deferred_events();
    }

    fn feed_deferred_events(&mut self) {
        while let Some(found) = self.deferred_events.pop_front() {
            let event = match found {
                DeferredEvent::Done(ticket, outcome) => Event::Done { ticket, outcome },
                DeferredEvent::Link(link, state) => Event::Link { link, state },
                DeferredEvent::Source(link, address) => Event::OwnAddress { link, address },
                DeferredEvent::Gone(resource) => Event::AddressGone(resource),
                DeferredEvent::Service(resource, state) => Event::Service { resource, state },
            };
            self.director.handle(now(), event);
            self.perform();
        }
    }

    fn perform(&mut self) {
        // One beat renews the leases of many groups, and one frame claims many. The gates are told of all of them
        // together, before anything else is done.
        let mut leases = mem::take(&mut self.leases);
        let mut proofs = Vec::new();
        while let Some(action) = self.director.poll() {
            if !matches!(action, Action::Gate { .. }) {
                self.set_gates(&mut leases);
            }
            if !matches!(action, Action::Proofs { .. }) {
                self.set_proofs(&mut proofs);
            }
            match action {
                Action::Gate { group, lease } => {
                    leases.push((group, lease.map(|GateLease { until, sent, .. }| Lease { until, sent })));
                }
                Action::Proofs { group, proofs: expected } => {
                    proofs.push((group, expected.iter().map(|proof| Proof(proof.0)).collect()));
                }
                Action::Send { link, bytes } => self.send(link, None, &bytes),
                Action::SendTo { link, to, bytes } => self.send(link, Some(to), &bytes),
                Action::Ping { ping, bytes } => self.pings.ask(ping, &bytes),
                Action::Run { .. } if self.is_own(&action) => self.work.push_back(action),
                Action::Run { ticket, resource, operation, limit, epoch } => {
                    self.send_up(Up::Run { ticket, resource, operation, limit, epoch });
                }
                Action::Abandon(ticket) => self.send_up(Up::Abandon(ticket)),
                Action::Announce(resource) => {
                    self.addresses.announce(resource, &self.network, clock::monotonic_nanos());
                }
                // It is announced again with the next beat. So none is kept beyond one for each group, and none while
                // the heart does not keep up.
                Action::AnnounceClaim { .. } => {
                    let has_room = self.claims_to_announce < self.host_config.groups.len();
                    if has_room && !self.busy.is_overloaded() {
                        self.claims_to_announce += 1;
                        self.work.push_back(action);
                    }
                }
                Action::Write(durable) => self.send_up(Up::Write(durable)),
                Action::Fence { ticket, node } => self.send_up(Up::Fence { ticket, node }),
                Action::EventScript { kind, fields, epoch } => self.send_script(kind, fields, epoch),
                Action::Reply { order, answer } => self.send_up(Up::Reply { order, answer }),
                Action::Remember { member, heard } => self.send_up(Up::Remember { member, heard }),
                Action::Note(note) => self.send_note(note),
                Action::Exit { clean, restart, keeps } => {
                    if let Some((level, text)) = self.watchdog.take().map(|watchdog| watchdog.leave(clean)) {
                        self.note(level, text);
                    }
                    self.goes_on = keeps.is_some();
                    self.send_up(Up::Exit { clean, restart, keeps });
                }
            }
        }
        self.set_proofs(&mut proofs);
        self.set_gates(&mut leases);
        self.leases = leases;
    }

    /// Feeds the watchdog once for each of our own beats, after it was sent.
    fn feed_watchdog(&mut self) {
        let fault = self.watchdog.as_mut().and_then(|watchdog| watchdog.feed(self.director.next_beat()));
        if let Some(text) = fault {
            self.note(Level::Error, text);
        }
    }

    /// `to` is the destination, on a link that is told it with each frame.
    fn send(&mut self, index: LinkIndex, to: Option<SocketAddr>, bytes: &Arc<[u8]>) {
        if self.options.losses.as_mut().is_some_and(|losses| !losses.sends(bytes)) {
            return;
        }
        let Some(link) = self.links.get_mut(index.0) else { return };
        match &mut link.media {
            Media::Udp(udp) => {
                if let Some(carrier) = udp.send(bytes, &mut link.stats) {
                    tell(&mut self.deferred_events, index.0, link, carrier);
                }
            }
            Media::Serial(line) => {
                if line.send(bytes, clock::monotonic_nanos(), &self.poller, &mut link.stats) {
                    let carrier = line.carrier();
                    tell(&mut self.deferred_events, index.0, link, carrier);
                }
            }
            Media::Routed(routed) => {
                if let Some(carrier) = routed.send(to, bytes, &mut link.stats) {
                    tell(&mut self.deferred_events, index.0, link, carrier);
                }
            }
            Media::None => {}
        }
    }

    // ---- gates

    fn set_gates(&mut self, leases: &mut Vec<(GroupIndex, Option<Lease>)>) {
        if leases.is_empty() {
            return;
        }
        let told = self.gates.set(leases);
        leases.clear();
        self.heed_gates(told);
    }

    fn set_proofs(&mut self, proofs: &mut Vec<(GroupIndex, Vec<Proof>)>) {
        if !proofs.is_empty() {
            let outcome = self.gates.expect(mem::take(proofs));
            self.heed_gates(outcome);
        }
    }

    /// Renews lifetimes only while the lease runs: if another process has removed the gate, the lifetime is the
    /// protection that is left.
    fn renew_lifetimes(&mut self, now: u64) {
        let Self { addresses, network, gates, .. } = self;
        for (group, text) in addresses.renew_lifetimes(network, now, |group| gates.lease_runs(group, now)) {
            self.note_of(Some(group), Level::Error, text);
        }
    }

    fn heed_gates(&mut self, told: GateOutcome) {
        for (level, group, text) in told.notes {
            self.note_of(group, level, text);
        }
        self.services_due |= told.overtaking;
        for group in told.opened {
            self.addresses.announce_group(group, clock::monotonic_nanos());
        }
    }

    /// Over every UDP link between nodes: it is a hint, and nothing waits for it.
    fn announce_claim(&mut self, group: GroupIndex, announcement: ClaimAnnouncement) {
        if !self.gates.has_gate(group) {
            return;
        }
        for (index, link) in self.links.iter_mut().enumerate() {
            if let Media::Udp(udp) = &mut link.media
                && let Some(carrier) = udp.send(&announcement.0, &mut link.stats)
            {
                tell(&mut self.deferred_events, index, link, carrier);
            }
        }
    }

    /// Whether the heart performs the action itself; the control plane performs all others.
    fn is_own(&self, action: &Action) -> bool {
        let Action::Run { resource, .. } = action else { return false };
        let agent = &self.host_config.resource(*resource).agent;
        !self.options.prefer_scripts && matches!(agent, Agent::Address(_) | Agent::SendArp(_))
    }

    /// Performs an address operation that belongs to the heart. `None` for one of the control plane.
    fn run_address(&mut self, id: ResourceId, operation: Operation) -> Option<Outcome> {
        if self.options.prefer_scripts {
            return None;
        }
        let agent = &self.host_config.resource(id).agent;
        if !matches!(agent, Agent::Address(_) | Agent::SendArp(_)) {
            return None;
        }
        let now = clock::monotonic_nanos();
        if let Err(error) = self.network.refresh() {
            let why = format!("the kernel does not list its addresses: {error}");
            match operation {
                // It works with the last known state: the address must not answer for longer than need be.
                Operation::Stop => {}
                Operation::Status => return Some(Outcome::Unknown(why)),
                _ => return Some(Outcome::Failed(why)),
            }
        }
        // Only a gate that is not made yet has to know where rivals are heard, as the interfaces are at that moment.
        let is_made = !self.gates.is_to_be_made(id.group);
        let listeners =
            if is_made { None } else { claim_listeners_of(&self.director, &self.host_config, &self.network) };
        let (addresses, network, gates) = (&mut self.addresses, &mut self.network, &mut self.gates);
        let mut told = GateOutcome::default();
        let mut home = None;
        let outcome = match (&self.host_config.resource(id).agent, operation) {
            (Agent::SendArp(_), Operation::Start) => addresses.speak_for(id, network, now),
            (Agent::SendArp(_), Operation::Stop) => addresses.be_silent(id),
            (Agent::SendArp(_), Operation::Status) => addresses.speaks(id),
            (_, Operation::Terminate | Operation::Kill) => Outcome::Failed(NO_PROCESSES.to_owned()),
            (_, Operation::Start) => addresses.start(id, network, now, |interface| {
                home = Some(interface);
                told = gates.prepare(id.group, interface, listeners.as_ref(), false)?;
                Ok(())
            }),
            (_, Operation::Stop) => addresses.stop(id, network),
            (_, Operation::Status) => addresses.status(id, network, now, |interface| {
                home = Some(interface);
                // It answers already; without a gate that is possible it goes on as it is.
                if let Ok(said) = gates.prepare(id.group, interface, listeners.as_ref(), true) {
                    told = said;
                }
            }),
        };
        if let Some(interface) = home.filter(|interface| resolves(&self.network, *interface))
            && let Agent::Address(address) = &self.host_config.resource(id).agent
        {
            self.arp_filter.settle(address.ip, interface);
        }
        // Not before its last address has gone: without a gate it would answer.
        let is_over = match operation {
            Operation::Start => outcome != Outcome::Ok,
            Operation::Stop => outcome == Outcome::Ok,
            _ => false,
        };
        if is_over && !addresses.holds(id.group) {
            told.add(gates.remove(id.group));
        }
        self.heed_gates(told);
        Some(outcome)
    }

    // ---- what comes in

    /// Reads a bounded number of frames from each ready source, and all notifications of the kernel.
    fn read_all(&mut self, ready: &[ReadySource], bound: ReadBound) {
        for source in ready {
            match source.token {
                TIMER | BELL => {}
                NETWORK => {
                    if let Err(error) = self.network.refresh() {
                        self.note(
                            Level::Error,
                            format!("the kernel's notifications cannot be read: {error}"),
                        );
                    }
                }
                RULES => {
                    let told = self.gates.heed_watch();
                    self.heed_gates(told);
                }
                RIVALS..LINKS => self.hear_rivals(),
                ECHO_V4 => self.read_echoes(PingFamily::V4, bound),
                ECHO_V6 => self.read_echoes(PingFamily::V6, bound),
                token => {
                    let (index, receiver) = link_of(token);
                    self.read_link(index, receiver, source, bound);
                }
            }
        }
    }

    fn read_link(&mut self, index: usize, receiver: usize, source: &ReadySource, bound: ReadBound) {
        let mut buffer = mem::take(&mut self.buffer);
        match self.links.get_mut(index).map(|link| &mut link.media) {
            Some(Media::Udp(_) | Media::Routed(_)) => {
                self.read_datagrams(index, receiver, &mut buffer, bound);
            }
            Some(Media::Serial(_)) => self.serve_line(index, source, &mut buffer),
            Some(Media::None) | None => {}
        }
        self.buffer = buffer;
    }

    fn read_datagrams(&mut self, index: usize, receiver: usize, buffer: &mut [u8], bound: ReadBound) {
        for _ in 0..bound.frames {
            let Some(link) = self.links.get_mut(index) else { return };
            let receiver = match &link.media {
                Media::Udp(udp) => udp.receiver(receiver),
                Media::Routed(routed) => routed.receiver(),
                Media::Serial(_) | Media::None => None,
            };
            // The socket may have gone while its last frame was handled.
            let Some(receiver) = receiver else { return };
            match receiver.receive(buffer) {
                Ok(None) => return,
                Ok(Some((length, from))) => {
                    link.stats.frames_in += 1;
                    link.stats.bytes_in += length as u64;
                    let bytes = &buffer[..length];
                    // For the gate's claim listener in the packets' path, not for the director.
                    let is_claim =
                        matches!(self.director, Director::Native(_)) && announcement::has_shape(bytes);
                    if is_claim {
                        link.stats.claims_in += 1;
                        continue;
                    }
                    self.feed(Event::Frame { link: LinkIndex(index), from: Source::Udp(from), bytes });
                    if clock::monotonic_nanos() >= bound.until {
                        return;
                    }
                }
                Err(_) => {
                    link.stats.errors_in += 1;
                    return;
                }
            }
        }
    }

    fn serve_line(&mut self, index: usize, source: &ReadySource, buffer: &mut [u8]) {
        let Some(link) = self.links.get_mut(index) else { return };
        let Media::Serial(line) = &mut link.media else { return };
        if source.write {
            line.write(clock::monotonic_nanos(), &self.poller, &mut link.stats);
        }
        let mut frames = Vec::new();
        if source.read {
            line.read(&mut buffer[..PIECE_BYTES], &mut link.stats, |frame| frames.push(frame.to_vec()));
        }
        // The link's state comes first: it may have ended with these frames.
        let carrier = line.carrier();
        tell(&mut self.deferred_events, index, link, carrier);
        for bytes in frames {
            self.feed(Event::Frame { link: LinkIndex(index), from: Source::Serial, bytes: &bytes });
        }
        self.feed_deferred_events();
    }

    fn read_echoes(&mut self, family: PingFamily, bound: ReadBound) {
        let mut buffer = mem::take(&mut self.buffer);
        for _ in 0..bound.frames {
            match self.pings.receive(family, &mut buffer) {
                None => break,
                Some((None, _)) => {}
                Some((Some(ping), bytes)) => self.feed(Event::Echo { ping, bytes }),
            }
        }
        self.buffer = buffer;
    }

    /// Handles the changes of interfaces and addresses that the kernel told of in this turn.
    fn heed_network(&mut self, now: u64) {
        let changed = self.network.take_changed();
        if !changed.anything {
            return;
        }
        self.services_due = true;
        self.addresses.compare(&self.network, now);
        self.look_after_addresses(now);
        if changed.interfaces {
            self.check_services();
        }
        if changed.others {
            self.check_links(true);
        }
    }

    /// Reads what other machines say of addresses that are here.
    fn hear_rivals(&mut self) {
        let now = clock::monotonic_nanos();
        let Self { addresses, network, gates, .. } = self;
        for (group, text) in addresses.hear_rivals(network, now, |group| gates.may_answer(group, now)) {
            self.note_of(Some(group), Level::Warning, text);
        }
    }

    fn speak_up(&mut self, now: u64) {
        let Self { addresses, network, gates, .. } = self;
        addresses.speak_up(network, now, |group| gates.may_answer(group, now));
    }

    /// Reports addresses that another process removed, puts back those that the kernel removed because nobody might
    /// answer, and puts all behind the machine's own.
    fn look_after_addresses(&mut self, now: u64) {
        let Self { addresses, network, gates, .. } = self;
        let gone = addresses.take_gone(network, now, |group| gates.lease_runs(group, now));
        let fault = addresses.order(network, now);
        self.deferred_events.extend(gone.taken.into_iter().map(DeferredEvent::Gone));
        for id in gone.expired {
            if self.run_address(id, Operation::Start) != Some(Outcome::Ok) {
                self.deferred_events.push_back(DeferredEvent::Gone(id));
            }
        }
        if let Some(text) = fault {
            self.note(Level::Error, text);
        }
    }

    /// Tells the director which service addresses clients cannot reach here. Other addresses matter, too. But thousands
    /// of our own may change in a moment, so those are checked once a second.
    fn check_services(&mut self) {
        self.services_due = false;
        let Self { addresses, network, gates, .. } = self;
        let news = addresses.reach(network, |interface| gates.trouble(interface));
        self.deferred_events
            .extend(news.into_iter().map(|(resource, state)| DeferredEvent::Service(resource, state)));
    }

    // ---- the control plane

    fn hear_control(&mut self) {
        self.shared.bell().silence();
        while let Some(down) = self.shared.take_down() {
            match down {
                Down::Done { ticket, outcome } => self.feed(Event::Done { ticket, outcome }),
                Down::Written { ok } => self.feed(Event::Written { ok }),
                Down::Fenced { ticket, outcome } => self.feed(Event::Fenced { ticket, outcome }),
                Down::Script(fields) => self.feed(Event::Script(&fields)),
                Down::Order { id, order } => self.feed(Event::Order { id, order }),
                Down::Losses(losses) => self.options.losses = losses,
                Down::Keys(keys) => self.feed(Event::Keys(keys)),
                Down::Load(load) => self.feed(Event::Load(&load)),
                Down::Status { request } => {
                    let status = self.director.status(now());
                    let heart = Box::new(self.stats());
                    self.send_up(Up::Status { request, status, heart });
                }
                Down::PortHolder { port, name } => {
                    if self.holders.learn(port, name) {
                        self.check_links(false);
                    }
                }
                Down::Measure(long) => {
                    let next = clock::monotonic_nanos() + MEASURE_NANOS;
                    let long = u64::try_from(long.as_nanos()).unwrap_or(u64::MAX);
                    self.measure = Some(Measurement { next, until: next.saturating_add(long) });
                    self.measured = Some(Histogram::default());
                }
                Down::Stop => self.shared.stop(),
            }
        }
    }

    fn stats(&self) -> HeartStats {
        let links = self.links.iter().map(|link| {
            let dropped_in = match &link.media {
                Media::Udp(udp) => udp.dropped(),
                Media::Routed(routed) => routed.dropped(),
                Media::Serial(_) | Media::None => 0,
            };
            LinkStats { dropped_in, ..link.stats.clone() }
        });
        HeartStats {
            lateness: self.lateness.summary(),
            measured: self.measured.as_ref().map(Histogram::summary),
            waiting: self.waiting.len(),
            busy: self.busy.share(),
            announcements_failed: self.addresses.failures,
            pings_failed: self.pings.failures,
            links: links.collect(),
            gates: self.gates.stats(),
            rivals: self.rivals(),
            arp_filter: self.arp_filter.stats(),
            ..self.stats.clone()
        }
    }

    fn rivals(&self) -> Vec<RivalState> {
        let group = |id: ResourceId| {
            self.host_config.groups.get(id.group.0).map(|group| group.key.clone()).unwrap_or_default()
        };
        let interface = |index| {
            let interface = self.network.interface_by_index(index);
            interface.map_or_else(|| format!("interface {index}"), |interface| interface.name.clone())
        };
        self.addresses.rivals().states(clock::monotonic_nanos(), group, interface)
    }

    fn note(&mut self, level: Level, text: String) {
        self.note_of(None, level, text);
    }

    fn note_of(&mut self, group: Option<GroupIndex>, level: Level, text: String) {
        let epoch = group.and_then(|group| self.director.epoch(group));
        let group =
            group.and_then(|group| self.host_config.groups.get(group.0)).map(|group| group.key.clone());
        self.send_note(Note { level, group, epoch, text });
    }

    fn send_note(&mut self, note: Note) {
        if self.waiting.is_empty() && self.shared.has_room_for_notes() {
            let unix = SystemTime::UNIX_EPOCH + Duration::from_nanos(clock::unix_nanos());
            self.send_up(Up::Note { note, unix });
        } else {
            self.stats.notes_dropped += 1;
        }
    }

    /// Like a note: a flood of messages must not fill the ring.
    fn send_script(&mut self, kind: String, fields: Vec<(String, String)>, epoch: Option<Epoch>) {
        if self.waiting.is_empty() && self.shared.has_room_for_notes() {
            self.send_up(Up::EventScript { kind, fields, epoch });
        } else {
            self.stats.notes_dropped += 1;
        }
    }

    fn send_up(&mut self, up: Up) {
        self.called = true;
        if let Up::Remember { member, .. } = up {
            self.waiting.retain(|old| !matches!(old, Up::Remember { member: other, .. } if *other == member));
        }
        if !self.waiting.is_empty() {
            self.waiting.push_back(up);
        } else if let Err(up) = self.shared.send_up(up) {
            self.waiting.push_back(up);
        }
    }

    /// Once a turn: puts waiting messages into the ring, and calls the control plane if there is one for it.
    fn tell_control(&mut self) {
        if !self.active_reported && self.director.is_active() {
            self.active_reported = true;
            self.send_up(Up::Active);
        }
        while let Some(up) = self.waiting.pop_front() {
            if let Err(up) = self.shared.send_up(up) {
                self.waiting.push_front(up);
                break;
            }
        }
        if mem::take(&mut self.called) || !self.waiting.is_empty() {
            self.shared.wake_control();
        }
    }
}

/// R1 has no claims that could be announced.
fn claim_listeners_of(
    director: &Director,
    host_config: &HostConfig,
    network: &Network,
) -> Option<ClaimListeners> {
    match director {
        Director::R1(_) => None,
        Director::Native(_) => Some(ClaimListeners::of(host_config, network)),
    }
}

/// When a yield interval ends that begins now, if something is due at `deadline`.
fn yield_until(now: u64, deadline: u64) -> u64 {
    deadline.clamp(now.saturating_add(YIELD_MIN_NANOS), now.saturating_add(YIELD_NANOS))
}

/// Notes a link's state for the director, if it has changed.
fn tell(found: &mut VecDeque<DeferredEvent>, index: usize, link: &mut LinkEnd, carrier: Carrier) {
    if link.reported.as_ref() != Some(&carrier) {
        link.reported = Some(carrier.clone());
        found.push_back(DeferredEvent::Link(LinkIndex(index), carrier));
    }
}

fn token(link: usize, receiver: usize) -> u64 {
    LINKS + link as u64 * RECEIVERS + (receiver as u64).min(RECEIVERS - 1)
}

/// The link and its receiver for a number of the poller.
fn link_of(token: u64) -> (usize, usize) {
    let place = token.saturating_sub(LINKS);
    let as_index = |number| usize::try_from(number).unwrap_or(usize::MAX);
    (as_index(place / RECEIVERS), as_index(place % RECEIVERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise an overloaded heart would meet its own runaway limit.
    #[test]
    fn a_yield_interval_is_a_wait_whatever_is_due() {
        let now = 7_000_000;
        for (deadline, until) in [
            (0, now + YIELD_MIN_NANOS),
            (now, now + YIELD_MIN_NANOS),
            (now + 1_500_000, now + 1_500_000),
            (u64::MAX, now + YIELD_NANOS),
        ] {
            assert_eq!(yield_until(now, deadline), until);
        }
    }
}
