//! Incoming frames: from bytes of any sender to messages for the node.

use super::*;

/// For this long after the start, our own frames of the run before it may still come back.
const ECHOES: Duration = Duration::from_secs(2);
use crate::native::wire::{WireContent, WireReceived, WireRefusal};

impl NativeDirector {
    pub(super) fn frame(&mut self, link: LinkIndex, from: Source, bytes: &[u8]) {
        if link.0 >= self.links.count() {
            return;
        }
        self.reception.frames.received += 1;
        let own = self.links.witness(link).and_then(|witness| self.witness_keys[witness.0].as_ref());
        let keys = own.unwrap_or(self.reception.keys());
        let links = &self.links;
        let may_speak = |member| links.may_speak(member, link);
        match self.wire.read_of(self.now.instant, bytes, keys, may_speak) {
            Ok(received) => self.received(link, from, received),
            Err(WireRefusal::Own) => self.reception.frames.own += 1,
            Err(refusal @ WireRefusal::OwnEarlier) => {
                self.reception.frames.own += 1;
                if self.now.instant.since(self.started) > ECHOES {
                    self.reception.alarm(self.now.instant, from, "same-name", &refusal);
                }
            }
            Err(WireRefusal::ForeignCluster(name)) => self.foreign(name),
            Err(refusal) => self.refuse(from, refusal.name(), &refusal),
        }
    }

    /// Takes an authentic frame of another member, which may be a copy of one heard before.
    fn received(&mut self, link: LinkIndex, from: Source, received: WireReceived) {
        let WireReceived { from: member, generation, begins, number, set, key, at, content } = received;
        let frame = LastHeard { generation, number };
        if let (Source::Udp(address), Some(_)) = (from, self.links.witness(link)) {
            self.links.came_from(self.now.instant, member, frame, address, at);
        }
        self.links.heard(self.now.instant, link, member, frame);
        if content != WireContent::Again {
            self.note_key(link, member, key);
        }
        if begins {
            // Saved at once: from now on recordings of its earlier generations are refused, also after our own restart.
            self.remember(member.index());
        }
        match content {
            WireContent::Message(word, reach) => self.message(member, generation, set, word, reach),
            WireContent::Unknown(_) => self.count_refusal("unknown-kind"),
            WireContent::Part => self.reception.frames.accepted += 1,
            WireContent::ForAnother => self.reception.frames.elsewhere += 1,
            WireContent::Again => self.reception.frames.repeated += 1,
        }
    }

    fn message(
        &mut self,
        member: MemberIndex,
        generation: u64,
        set: u32,
        message: NativeMessage,
        reach: Option<Reach>,
    ) {
        if let (NativeMessage::Beat(beat), Some(reach)) = (&message, reach) {
            let hears_us = reach.hears.get(&self.node.me()).copied().unwrap_or_default();
            let has_our_file = beat.config == self.node.config();
            self.links.reported(self.now.instant, member, hears_us, has_our_file);
            self.heard_versions(member, generation, reach.versions);
        }
        let peer = &self.peers[member.index()];
        let versions = peer.versions.filter(|(of, _)| *of == generation).map(|(_, versions)| versions);
        match versions.map(|versions| versions.common(OURS)) {
            // Its first beat was lost; it will repeat what it said.
            None => self.count_refusal("before-beat"),
            Some(None) => self.count_refusal("version"),
            Some(Some(_)) => {
                self.reception.frames.accepted += 1;
                let event = node::NodeEvent::Heard { from: member, generation, set, message };
                self.node.handle(self.now.instant, event);
            }
        }
    }

    fn heard_versions(&mut self, member: MemberIndex, generation: u64, versions: Versions) {
        let peer = &mut self.peers[member.index()];
        peer.versions = Some((generation, versions));
        let refused = versions.common(OURS).is_none();
        if core::mem::replace(&mut peer.refused, refused) == refused {
            return;
        }
        let name = self.name(member);
        let Versions { lowest, highest } = versions;
        let (level, text) = match refused {
            true => (
                Level::Error,
                format!(
                    "{name} is refused: it speaks protocols {lowest} to {highest}, this member {} to {}; upgrade \
                     the older one",
                    OURS.lowest, OURS.highest
                ),
            ),
            false => (Level::Info, format!("{name} speaks a protocol in common with this member now")),
        };
        self.note(level, text);
    }

    /// Logs that a member begins to sign with another key, as it does in a roll-over.
    fn note_key(&mut self, link: LinkIndex, member: MemberIndex, key: u8) {
        let ours = self.keys(link).signing().number;
        let known = self.peers[member.index()].key.replace(key);
        if known == Some(key) || (known.is_none() && key == ours) {
            return;
        }
        let name = self.name(member);
        let text = match key == ours {
            true => format!("{name} now signs with key {key}, as this member does"),
            false => {
                format!("{name} signs with key {key}, this member with key {ours}: finish the roll-over")
            }
        };
        self.note(Level::Info, text);
    }

    /// Counts a frame of another cluster on our links, which is no fault. Its name is not authentic, so only
    /// [`FOREIGN_MAX`] names are kept.
    fn foreign(&mut self, name: String) {
        self.count_refusal("foreign-cluster");
        let is_new = !self.foreign.contains_key(&name);
        if is_new && self.foreign.len() >= FOREIGN_MAX {
            return;
        }
        *self.foreign.entry(name.clone()).or_default() += 1;
        if is_new {
            self.note(
                Level::Info,
                format!("another cluster, `{name}`, is on our links; its frames are ignored"),
            );
        }
    }

    pub(super) fn count_refusal(&mut self, reason: &'static str) {
        self.reception.count_refusal(reason);
    }

    /// Counts a refused frame and logs it, at once or in a later line together with others.
    fn refuse(&mut self, from: Source, reason: &'static str, text: &dyn Display) {
        if let Some(line) = self.reception.refuse(self.now.instant, from, reason, text) {
            self.note(Level::Warning, line);
        }
    }
}

/// The protocols that this program speaks.
const OURS: Versions = Versions { lowest: PROTOCOL, highest: PROTOCOL };
