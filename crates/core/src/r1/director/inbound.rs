//! Frames in: from unauthenticated bytes to messages for the dialect. A frame must pass three checks: authentication,
//! generation, number.

use super::*;
use crate::framing::refusals::WRONG_KEY;

/// How long after this start our own frames of the previous generation may still come back.
pub(super) const ECHOES: Duration = Duration::from_secs(2);
/// Largest difference in seconds between a frame's wall clock and ours for the frame to count as new.
const NEW_SECONDS: u64 = 60;

impl R1Director {
    pub(super) fn frame(&mut self, link: LinkIndex, from: Source, bytes: &[u8]) {
        if link.0 >= self.links.len() {
            return;
        }
        self.reception.frames.received += 1;
        match self.read(bytes) {
            Ok(message) => self.message(link, from, message),
            Err(refusal) => self.refuse(from, refusal.name(), &refusal),
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<R1Message, FrameRefusal> {
        let authentic = frame::authenticate(bytes, self.reception.keys())?;
        R1Message::parse(&authentic)
    }

    /// Handles an authentic message. Its sender knows our key, but it may be a replay, or the sender may be faulty.
    fn message(&mut self, link: LinkIndex, from: Source, message: R1Message) {
        let own = message.src == self.plan.nodes[self.plan.me.0];
        if own && !(breakage::is(Breakage::OwnFramesAreNews) && self.peer.is_some()) {
            if message.src_uuid.is_some_and(|uuid| uuid != self.identity.uuid) {
                return self.refuse(from, "our-name", &"another machine uses our node name");
            }
            if self.is_of_a_clone(&message) {
                self.alarm(from, "our-name", &"another machine uses our node name");
            }
            self.reception.frames.own += 1;
            return;
        }
        let Some(peer) = &self.peer else { return self.stranger(from, &message.src) };
        if !own && message.src != peer.name {
            return self.stranger(from, &message.src);
        }
        match message.seq {
            Some(0) => self.count_refusal("number"),
            Some(seq) => self.numbered(link, from, seq, message),
            None => self.unnumbered(&message),
        }
    }

    fn stranger(&mut self, from: Source, name: &str) {
        let name = Escaped(name.as_bytes());
        self.refuse(
            from,
            "unknown-node",
            &format_args!("process_status_message: bad node [{name}] in message: it is not in ha.cf"),
        );
    }

    /// Handles messages without a number (`NS_*`). They change only the bookkeeping of numbers. They can be replayed at
    /// any time, so they prove neither that the peer lives nor that the link works.
    fn unnumbered(&mut self, message: &R1Message) {
        let Some(peer) = &mut self.peer else { return };
        if message.generation.is_some() && message.generation != peer.received.generation() {
            return self.count_refusal("generation");
        }
        if !peer.watch.state().is_up() {
            return self.count_refusal("before-status");
        }
        if !self.is_for_us(message) {
            self.reception.frames.elsewhere += 1;
            return;
        }
        self.reception.frames.accepted += 1;
        match message.body {
            Body::Rexmit { first, last } => self.send_again(first, last),
            Body::NakRexmit { seq, ref reason } => {
                let gave_up = self.peer.as_mut().is_some_and(|peer| peer.received.give_up(seq));
                if gave_up {
                    let reason = Escaped(reason.as_bytes());
                    let text =
                        format!("Irretrievably lost packet: node {} seq {seq} ({reason})", message.src);
                    self.note(Level::Warning, text);
                    self.deliver();
                }
            }
            _ => {}
        }
    }

    fn numbered(&mut self, link: LinkIndex, from: Source, seq: u64, message: R1Message) {
        let Some(peer) = &mut self.peer else { return };
        let Some(generation) = message.generation else {
            return self.count_refusal("generation");
        };
        let is_status = matches!(message.body, Body::Status(_));
        let life = peer.received.check_generation(generation, seq);
        match life {
            GenerationVerdict::Replayed { known } => {
                let name = peer.name.clone();
                if known > generation && is_status && self.is_new(&message) {
                    self.files.refuse_old_generation(self.now.instant);
                }
                return self.refuse(
                    from,
                    "replayed",
                    &format_args!(
                        "should_drop_message: attempted replay attack [{name}]? [gen = {generation}, curgen = {known}]"
                    ),
                );
            }
            GenerationVerdict::First | GenerationVerdict::Restarted | GenerationVerdict::Same
                if !is_status && (life != GenerationVerdict::Same || !peer.watch.state().is_up()) =>
            {
                // Only a status begins a generation or ends a silence. Earlier messages will be asked for or sent
                // again.
                return self.count_refusal("before-status");
            }
            GenerationVerdict::First | GenerationVerdict::Restarted => {
                self.begin_generation(generation, life, message.keeps)
            }
            GenerationVerdict::Same
                if is_status && peer.watch.state().is_down() && seq <= peer.last_status =>
            {
                if self.is_new(&message) {
                    self.files.refuse_old_generation(self.now.instant);
                }
                return self.refuse(from, "replayed", &"an old status of a dead node");
            }
            GenerationVerdict::Same => {}
        }
        if let Some(peer) = &self.peer
            && let (Some(known), Some(uuid)) = (peer.uuid, message.src_uuid)
            && known != uuid
        {
            let text = format!("two machines use the name {}", peer.name);
            self.alarm(from, "two-machines", &text);
        }
        self.number(link, seq, message);
    }

    fn number(&mut self, link: LinkIndex, seq: u64, message: R1Message) {
        let now = self.now.instant;
        let random = self.next_random();
        let delay = self.plan.framing.rexmit_delay_max;
        let Some(peer) = &mut self.peer else { return };
        let verdict = peer.received.number(now, seq, delay, random);
        match verdict {
            NumberVerdict::New { lost: 0 } => {}
            NumberVerdict::New { lost } => {
                self.reception.frames.lost += lost;
                let text = format!("{lost} lost packet(s) for [{}] [{}:{seq}]", message.src, seq - lost - 1);
                self.note(Level::Debug, text);
            }
            NumberVerdict::NewAfterFlood => {
                self.note(Level::Warning, format!("lost a lot of packets! (of {})", message.src));
            }
            NumberVerdict::Late { closed: true } => {
                self.note(Level::Debug, format!("No pkts missing from {}!", message.src));
            }
            NumberVerdict::Late { closed: false } => {}
            NumberVerdict::Duplicate => {
                self.reception.frames.repeated += 1;
                return self.heard_on(link, now);
            }
            NumberVerdict::Old => {
                self.reception.frames.repeated += 1;
                return;
            }
        }
        self.heard_on(link, now);
        self.acknowledge();
        if breakage::is(Breakage::NewestAskedAgain) {
            self.say_to_peer(Body::Rexmit { first: seq, last: seq });
        }
        if !self.is_for_us(&message) {
            self.reception.frames.elsewhere += 1;
        } else {
            self.reception.frames.accepted += 1;
            match message.body {
                Body::Starting
                | Body::Resource(_)
                | Body::AskResources { .. }
                | Body::Takeover { .. }
                | Body::IpRequest { .. }
                | Body::IpRequestResponse { .. } => {
                    self.queue(seq, message);
                }
                _ => self.accept(seq, &message),
            }
        }
        self.deliver();
    }

    /// Queues a message behind a missing one: the dialect's messages build on each other.
    fn queue(&mut self, seq: u64, message: R1Message) {
        let Some(peer) = &mut self.peer else { return };
        if peer.waiting.len() >= WAITING_MAX {
            peer.received.give_up_old(self.now.instant, Duration::ZERO);
        }
        peer.waiting.insert(seq, message);
    }

    /// Delivers the messages that wait for nothing any more.
    pub(super) fn deliver(&mut self) {
        while let Some(peer) = &mut self.peer
            && let Some(first) = peer.waiting.first_entry()
            && !peer.received.misses_before(*first.key())
        {
            let (seq, message) = first.remove_entry();
            self.accept(seq, &message);
        }
    }

    /// Handles a new, authentic message of the peer, addressed to us.
    fn accept(&mut self, seq: u64, message: &R1Message) {
        if let Some(peer) = &mut self.peer {
            peer.uuid = message.src_uuid.or(peer.uuid);
        }
        match &message.body {
            Body::Status(beat) => {
                let failed = message.failed.as_deref().unwrap_or_default();
                self.heard_failures(failed);
                if message.locum.is_some() {
                    self.heard_files(&message.files, failed);
                    self.heard_known(&message.files);
                }
                self.heard_status(seq, message.locum.is_some(), *beat);
                self.heard_unreachable(message.unreachable.as_deref().unwrap_or_default());
            }
            Body::ReqNodes if breakage::is(Breakage::NoNodeList) => {}
            Body::ReqNodes => {
                let nodes = self.plan.nodes.clone();
                self.say_to_peer(Body::RepNodes { nodes, deleted: Vec::new() });
            }
            Body::RepNodes { nodes, .. } => {
                let same = nodes.iter().all(|name| self.plan.nodes.contains(name))
                    && self.plan.nodes.iter().all(|name| nodes.contains(name));
                if !same {
                    let text = "the peer's ha.cf has other nodes than ours; write the same `node` lines on both nodes";
                    self.note(Level::Warning, text.to_string());
                }
                self.join();
            }
            Body::PingCount { .. } | Body::YouAreDead | Body::AbortGiveUp | Body::ClientStatus { .. } => {
                self.ipfail_heard(&message.body);
            }
            Body::QueryClient { client, from } => {
                let state =
                    if client == ipfail::IPFAIL && self.ipfail.is_some() { "online" } else { "offline" };
                let (client, to) = (client.clone(), from.clone());
                self.say_to_peer(Body::RespondClient { client, state: state.into(), to });
            }
            Body::RespondClient { .. } => {}
            Body::AddNode { nodes } | Body::DelNode { nodes } => self.refuse_nodes(message, nodes),
            Body::SetWeight { .. } | Body::SetSite { .. } => {
                self.label(&message.body);
            }
            Body::Other { .. } => self.event_script(message),
            Body::ShutDone => {
                if let Some(peer) = &mut self.peer {
                    peer.left = true;
                    peer.waiting.clear();
                }
                self.ipfail.iter_mut().for_each(Ipfail::forget_peer);
                self.heard_r1(&message.body);
                self.come_up();
            }
            // After its goodbye the peer holds and gives nothing.
            _ if self.peer.as_ref().is_some_and(|peer| peer.left) => {}
            body => self.heard_r1(body),
        }
    }

    fn heard_r1(&mut self, body: &Body) {
        if let Body::Resource(resource) = body
            && resource.info.as_deref() == Some("shutdown")
        {
            self.record_lost_owners();
        }
        self.with_r1(|r1, view| r1.heard(view, body));
        if self.left.is_some() && matches!(body, Body::Resource(resource) if resource.hold.has_foreign()) {
            // The peer has taken our groups: this node is no longer needed.
            self.exit();
        }
    }

    /// The groups of these keys; unknown keys are ignored.
    fn keyed(&self, keys: &str) -> Vec<GroupIndex> {
        let groups = self.plan.groups.iter().enumerate();
        let named = groups.filter(|(_, group)| keys.split(' ').any(|key| key == group.key));
        named.map(|(index, _)| GroupIndex(index)).collect()
    }

    /// Takes the keys of groups whose clients cannot reach the peer. Groups that waited for that may go there now.
    fn heard_unreachable(&mut self, keys: &str) {
        let cut = self.keyed(keys);
        let Some(peer) = self.peer.as_mut().filter(|peer| peer.unreachable != cut) else { return };
        peer.unreachable = cut;
        self.with_r1(R1Ownership::peer_carries);
    }

    /// Takes the keys of groups that the peer could not start.
    fn heard_failures(&mut self, keys: &str) {
        let failed = self.keyed(keys);
        if let Some(peer) = &mut self.peer {
            peer.failed = failed;
        }
    }

    fn heard_status(&mut self, seq: u64, locum: bool, beat: crate::r1::message::StatusMessage) {
        let now = self.now.instant;
        let (warn, dead) = self.patience(beat.dead_ms);
        self.heard_waits(beat.dead_ms.map(Duration::from_millis));
        let Some(peer) = &mut self.peer else { return };
        peer.last_status = peer.last_status.max(seq);
        let was = peer.watch.state();
        if peer.left {
            // It said goodbye and goes on beating for a moment; that is not a return.
            if was.is_up() {
                peer.watch.hear(now, warn, dead);
            }
            return;
        }
        peer.watch.hear(now, warn, dead);
        if now >= peer.remembered + REMEMBER_EVERY {
            self.remember();
        }
        let Some(peer) = &mut self.peer else { return };
        let joined = beat.state == NodeState::Active && peer.state != Some(beat.state);
        if peer.locum != Some(locum) || peer.state != Some(beat.state) {
            peer.locum = Some(locum);
            peer.state = Some(beat.state);
            let program = if locum { "Locum" } else { "heartbeat" };
            let text =
                format!("Status update for node {}: status {} ({program})", peer.name, beat.state.word());
            self.note(Level::Info, text);
        }
        if joined {
            self.ipfail_asks();
        }
        if was == Liveness::Unheard {
            self.with_r1(R1Ownership::peer_met);
        }
        if was.is_down() {
            self.with_r1(R1Ownership::peer_healed);
            if let Some(peer) = &mut self.peer {
                peer.watch.note(LivenessEvent::Settled);
            }
        }
        self.come_up();
    }

    /// Takes the peer's `dt`: how long it waits for our beats.
    fn heard_waits(&mut self, waits: Option<Duration>) {
        let before = self.beat_interval();
        let Some(peer) = &mut self.peer else { return };
        peer.waits = waits;
        let every = self.beat_interval();
        if every == before {
            return;
        }
        self.next_beat = self.next_beat.min(self.now.instant + every);
        let peer = self.peer.as_ref().map_or("", |peer| peer.name.as_str());
        let waits = waits.unwrap_or_default().as_millis();
        let text = format!(
            "{peer} takes this node for dead after {waits} ms of silence, and keepalive is {} ms here: a beat every {} ms; \
             write the same times into ha.cf on both nodes",
            self.plan.timing.keepalive.as_millis(),
            every.as_millis()
        );
        self.note(Level::Warning, text);
    }

    /// How long the peer's silence may last before it is late, and before it is dead: by its own `dt`, within bounds.
    fn patience(&self, dead_ms: Option<u64>) -> (Duration, Duration) {
        let timing = self.plan.timing;
        let told = dead_ms.map_or(timing.deadtime, Duration::from_millis);
        let told = if breakage::is(Breakage::PeerDeadtimeIgnored) { timing.deadtime } else { told };
        let dead = if breakage::is(Breakage::DeadtimeUnbounded) {
            told
        } else {
            // Not `clamp`, which panics when two keepalives are more than an hour.
            told.min(DEADTIME_MAX).max(timing.keepalive * 2)
        };
        (timing.warntime.min(dead), dead)
    }

    fn begin_generation(&mut self, generation: u64, life: GenerationVerdict, keeps: Option<Holding>) {
        let Some(peer) = &mut self.peer else { return };
        let known = peer.received.generation();
        peer.received.begin(generation);
        peer.last_status = 0;
        peer.state = None;
        peer.waiting.clear();
        peer.uuid = None;
        peer.failed.clear();
        self.files.forget_peer();
        peer.unreachable.clear();
        peer.left = false;
        peer.keeps = keeps.filter(|_| !breakage::is(Breakage::ReloadIsLoss));
        let is_renewed = peer.keeps.is_some();
        self.ipfail.iter_mut().for_each(Ipfail::forget_peer);
        let was = peer.watch.state();
        if was.is_down() {
            peer.watch = Watch::new(self.now.instant, self.plan.timing.initdead);
        }
        let (node, name) = (peer.node, peer.name.clone());
        if known.is_none_or(|known| known < generation) {
            self.out.push_back(Action::Remember {
                member: node.into(),
                heard: LastHeard { generation, number: 0 },
            });
        }
        // A peer that has just started refuses everything from us before our next status.
        self.say_status();
        if life == GenerationVerdict::Restarted {
            self.note(Level::Info, format!("Heartbeat restart on node {name}"));
            if !is_renewed {
                self.record_lost_owners();
            }
            self.with_r1(R1Ownership::peer_restarted);
        }
    }

    /// Notes that a frame of the peer came over this link.
    fn heard_on(&mut self, link: LinkIndex, now: Instant) {
        let dead = self.peer.as_ref().map_or(self.plan.timing.deadtime, |peer| peer.watch.dead_after());
        let view = &mut self.links[link.0];
        let up = view.watch.state().is_up();
        view.watch.hear(now, dead, dead);
        if !up {
            view.watch.note(LivenessEvent::Settled);
            let peer = self.peer.as_ref().map_or("", |peer| peer.name.as_str());
            self.note(Level::Info, format!("Link {peer}:{} up.", self.plan.links[link.0].name));
        }
    }

    /// Whether a frame with our name and UUID is from another machine, made from a copy of this one's disk. Our own
    /// frames come back at once or never; a recording is recognized by its time.
    fn is_of_a_clone(&self, message: &R1Message) -> bool {
        let (Some(generation), Some(seq)) = (message.generation, message.seq) else { return false };
        let (ours, last) = (self.identity.generation, self.sent.last());
        match generation.cmp(&ours) {
            Ordering::Greater => true,
            Ordering::Less => self.now.instant.since(self.started) > ECHOES && self.is_new(message),
            Ordering::Equal => {
                let age = self.now.unix_seconds.saturating_sub(message.unix_seconds);
                seq > last || (seq < self.files.sent_before() && age < ECHOES.as_secs())
            }
        }
    }

    /// Whether a frame was written within the last minute, by the wall clocks.
    fn is_new(&self, message: &R1Message) -> bool {
        message.unix_seconds.abs_diff(self.now.unix_seconds) <= NEW_SECONDS
    }

    fn is_for_us(&self, message: &R1Message) -> bool {
        match message.dest_uuid {
            Some(uuid) if uuid.0 != [0; 16] => uuid == self.identity.uuid,
            _ => message.dest.as_ref().is_none_or(|dest| *dest == self.plan.nodes[self.plan.me.0]),
        }
    }

    pub(super) fn echo(&mut self, ping: PingIndex, bytes: &[u8]) {
        let (Some(watch), Some(node)) = (self.pings.get(ping.0), self.plan.pings.get(ping.0)) else { return };
        let was_up = watch.state().is_up();
        self.reception.frames.received += 1;
        let ours = match self.read(bytes) {
            Ok(message) => matches!(message.body, Body::PingStatus { .. }) && message.src == node.name,
            Err(refusal) => return self.refuse(Source::Local, refusal.name(), &refusal),
        };
        if !ours {
            self.reception.frames.elsewhere += 1;
            return;
        }
        self.reception.frames.echoes += 1;
        let dead = self.plan.timing.deadping;
        let (now, name) = (self.now.instant, node.name.clone());
        self.pings[ping.0].hear(now, dead, dead);
        self.pings[ping.0].note(LivenessEvent::Settled);
        if !was_up {
            self.note(Level::Info, format!("ping node {name} answers"));
            self.ipfail.iter_mut().for_each(Ipfail::note_change);
        }
    }

    /// Counts a refusal without a log line: it happens in normal operation, when the first frames of two nodes cross.
    fn count_refusal(&mut self, reason: &'static str) {
        self.reception.count_refusal(reason);
    }

    /// Raises an alarm in the status if the refusal splits the cluster.
    fn alarm(&mut self, from: Source, reason: &str, text: &dyn Display) {
        self.reception.alarm(self.now.instant, from, reason, text);
    }

    /// Also writes a log line, now or together with later ones.
    fn refuse(&mut self, from: Source, reason: &'static str, text: &dyn Display) {
        if reason.starts_with(WRONG_KEY) && !self.plan.logging.bad_packets {
            self.count_refusal(reason);
            return self.alarm(from, reason, text);
        }
        if let Some(line) = self.reception.refuse(self.now.instant, from, reason, text) {
            self.note(Level::Warning, line);
        }
    }
}
