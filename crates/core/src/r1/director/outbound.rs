//! Frames out: beats, messages, answers to requests; each written once per framing and sent over every link.

use super::*;

/// Longest list of groups in a status, in bytes. Three of them leave room in a datagram of 65,507.
const KEYS_BYTES_MAX: usize = 12_000;

impl R1Director {
    pub(super) fn say_status(&mut self) {
        let deadtime = self.plan.timing.deadtime.as_millis();
        self.say(
            Body::Status(crate::r1::message::StatusMessage {
                state: self.state,
                dead_ms: u64::try_from(deadtime).ok(),
                protocol: Some(1),
            }),
            None,
        );
    }

    pub(super) fn say_to_peer(&mut self, body: Body) {
        if let Some(peer) = &self.peer {
            let dest = Some((peer.name.clone(), peer.uuid));
            self.say(body, dest);
        }
    }

    pub(super) fn say(&mut self, body: Body, dest: Option<(String, Option<Uuid>)>) {
        let mut message = R1Message::new(body, self.plan.nodes[self.plan.me.0].clone());
        (message.dest, message.dest_uuid) = dest.map_or((None, None), |(name, uuid)| (Some(name), uuid));
        self.send(message);
    }

    /// Fills in the head, sends it over every link, and keeps it for retransmission.
    pub(super) fn send(&mut self, mut message: R1Message) {
        let unnumbered =
            matches!(message.body, Body::Rexmit { .. } | Body::NakRexmit { .. } | Body::Ack { .. });
        let numbered = !unnumbered;
        let is_status = matches!(message.body, Body::Status(_));
        message.src_uuid = Some(self.identity.uuid);
        message.generation = Some(self.identity.generation);
        message.unix_seconds = self.now.unix_seconds.max(1);
        message.ttl = Some(self.plan.framing.ttl);
        message.locum = is_status.then_some(LOCUM_VERSION);
        let tells = is_status || matches!(message.body, Body::Starting);
        message.keeps = tells.then(|| self.r1.keeps()).flatten();
        if is_status {
            message.files = self.files_to_say();
        }
        message.failed = is_status.then(|| self.failed_keys()).filter(|keys| !keys.is_empty());
        message.unreachable = is_status.then(|| self.unreachable_keys()).filter(|keys| !keys.is_empty());
        if numbered {
            message.seq = Some(self.sent.next());
            message.load = Some(self.load.clone());
        }
        self.transmit(&message);
        self.event_script(&message);
        if numbered {
            self.sent.keep(message);
        }
    }

    /// The keys of the groups whose clients cannot reach this node: the peer would give them.
    fn unreachable_keys(&self) -> String {
        self.status_keys(self.unreachable.iter().copied())
    }

    /// The keys of the groups that did not start here: the peer may have given them.
    fn failed_keys(&self) -> String {
        let groups = (0..self.plan.groups.len()).map(GroupIndex);
        self.status_keys(groups.filter(|group| self.groups.failure(*group).is_some()))
    }

    /// The keys of groups as a status lists them. A status must fit into one datagram. If there are thousands of
    /// groups, the status lists the first ones; the others count as unknown until there is room.
    pub(super) fn status_keys(&self, groups: impl Iterator<Item = GroupIndex>) -> String {
        let mut told = String::new();
        for group in groups {
            let key = &self.plan.groups[group.0].key;
            if told.len() + key.len() >= KEYS_BYTES_MAX {
                break;
            }
            if !told.is_empty() {
                told.push(' ');
            }
            told.push_str(key);
        }
        told
    }

    /// Writes a message to every link, in each link's framing.
    fn transmit(&mut self, message: &R1Message) {
        self.reception.frames.sent += 1;
        let mut made: [Option<Arc<[u8]>>; 2] = [None, None];
        for index in 0..self.links.len() {
            let serial = self.plan.links[index].is_serial() && !breakage::is(Breakage::NetstringOnSerial);
            let framing = if serial { Framing::Classic } else { Framing::Netstring };
            let bytes = made[usize::from(serial)].get_or_insert_with(|| {
                let mut bytes = Vec::with_capacity(400);
                message.emit(framing, self.reception.keys(), self.plan.framing.inner_auth, &mut bytes);
                Arc::from(bytes)
            });
            self.out.push_back(Action::Send { link: LinkIndex(index), bytes: Arc::clone(bytes) });
        }
    }

    pub(super) fn ping_all(&mut self) {
        for (index, ping) in self.plan.pings.iter().enumerate() {
            let info = if ping.is_group { "ping_group" } else { "ping" };
            let body = Body::PingStatus { state: NodeState::Ping, info: info.to_string() };
            let mut message = R1Message::new(body, ping.name.clone());
            message.unix_seconds = self.now.unix_seconds.max(1);
            let mut bytes = Vec::with_capacity(200);
            message.emit(Framing::Netstring, self.reception.keys(), self.plan.framing.inner_auth, &mut bytes);
            self.out.push_back(Action::Ping { ping: PingIndex(index), bytes: Arc::from(bytes) });
        }
    }

    pub(super) fn acknowledge(&mut self) {
        if let Some(seq) = self.peer.as_mut().and_then(|peer| peer.received.take_ack())
            && !breakage::is(Breakage::NoAcknowledgement)
        {
            self.say_to_peer(Body::Ack { seq });
        }
    }

    pub(super) fn send_again(&mut self, first: u64, last: u64) {
        let pause = self.plan.framing.rexmit_delay_max.saturating_sub(Duration::from_millis(10));
        for again in self.sent.again(self.now.instant, first, last, pause) {
            match again {
                RexmitAnswer::Send(message) => {
                    self.reception.frames.sent_again += 1;
                    self.transmit(&message);
                }
                RexmitAnswer::Refuse(seq, reason) => {
                    let peer = self.peer.as_ref().map_or("", |peer| peer.name.as_str());
                    self.note(Level::Debug, format!("Cannot rexmit pkt {seq} for {peer}: {reason}"));
                    self.say_to_peer(Body::NakRexmit { seq, reason: reason.to_string() });
                }
            }
        }
    }

    pub(super) fn next_random(&mut self) -> u64 {
        // xorshift64: spreads requests in time; nothing secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
