//! Other machines that announce a service address of ours: they are heard, answered and shown.
//!
//! Once in [`REFRESH_NANOS`] every address is announced again, and the segment is asked which other machine has it.
//! That is also done at its start, without waiting for the answer: an earlier owner that still answers must not keep
//! another node from taking over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use locum_core::model::identity::ResourceId;
use locum_sys::{
    announce::Announcer,
    claimants::{AddressClaim, ClaimantSocket},
    netlink::Interface,
};
use serde::{Deserialize, Serialize};

/// The interval after which an address is announced again and the segment is asked which other machine has it.
pub(super) const REFRESH_NANOS: u64 = 60_000_000_000;
/// A rival's announcement is answered at once, and further ones after a pause that doubles up to the longest.
const PAUSE_NANOS: u64 = 1_000_000_000;
const PAUSE_MAX_NANOS: u64 = 32_000_000_000;
/// A machine that was not heard for this long is not a rival any more: two refreshes, and an answer that was lost.
const FORGET_NANOS: u64 = 150_000_000_000;
/// How many lines about rivals the log gets within [`REFRESH_NANOS`], at most one for each address: any machine on the
/// segment can send anything in any name. `status` shows them all.
const LINES_MAX: usize = 32;
/// How many packets are read in one turn.
const PACKETS_A_TURN: usize = 32;
/// About how many addresses the segment is asked in one turn.
const PROBES_A_TURN: usize = 32;

/// Another machine that announces an address of ours, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RivalState {
    pub address: String,
    pub group: String,
    /// The other machine's hardware address.
    pub mac: String,
    /// The interface on which it is heard.
    pub interface: String,
    /// How often it, or another machine with the same address, was heard.
    pub heard: u64,
    /// How often it was another hardware address than the last time. The log names one a minute.
    #[serde(default)]
    pub changed: u64,
    /// How long ago it was last heard, in milliseconds.
    pub ago_ms: u64,
}

/// What was heard of one rival.
struct Rival {
    mac: [u8; 6],
    interface: u32,
    heard: u64,
    changed: u64,
    last: u64,
    /// The hardware address that the log names, and until when it names no other.
    logged: Option<([u8; 6], u64)>,
    /// When it is answered next, and until when after that not again.
    answer: Option<u64>,
    not_before: u64,
    pause: u64,
}

/// How many lines were logged lately, for all addresses.
#[derive(Debug, Default)]
struct LogQuota {
    count: usize,
    until: u64,
}

impl LogQuota {
    /// Takes room for one line. Returns whether there was any.
    fn take(&mut self, now: u64) -> bool {
        if now >= self.until {
            *self = Self { count: 0, until: now + REFRESH_NANOS };
        }
        self.count += 1;
        self.count <= LINES_MAX
    }
}

/// The rivals of all addresses.
pub(super) struct Rivals {
    listeners: Vec<ClaimantSocket>,
    /// Why no rival can be heard, if so.
    fault: Option<String>,
    services: BTreeMap<IpAddr, ResourceId>,
    rivals: BTreeMap<ResourceId, Rival>,
    lines: LogQuota,
    /// The addresses about which the segment is to be asked.
    probes: BTreeSet<ResourceId>,
}

impl Rivals {
    /// Listens for rivals of these addresses; without addresses for none.
    pub(super) fn of(services: BTreeMap<IpAddr, ResourceId>) -> Self {
        let v4: Vec<_> = services
            .keys()
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            })
            .collect();
        let arp = ClaimantSocket::of_arp(&v4);
        let neighbours = (v4.len() < services.len()).then(ClaimantSocket::of_advertisements).transpose();
        let (mut listeners, mut fault) = (Vec::new(), None);
        for heard in [arp, neighbours.map(Vec::from_iter)] {
            match heard {
                Ok(heard) => listeners.extend(heard),
                Err(error) => fault = Some(error.to_string()),
            }
        }
        let (rivals, lines, probes) = Default::default();
        Self { listeners, fault, services, rivals, lines, probes }
    }

    /// Hears no rivals at all.
    pub(super) fn deaf() -> Self {
        Self::of(BTreeMap::new())
    }

    /// The sockets that become readable when a machine announces an address.
    pub(super) fn sources(&self) -> impl Iterator<Item = &ClaimantSocket> {
        self.listeners.iter()
    }

    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Has the segment asked which other machine has this address.
    pub(super) fn probe(&mut self, id: ResourceId) {
        if !self.listeners.is_empty() {
            self.probes.insert(id);
        }
    }

    /// Some of the addresses about which the segment is to be asked.
    pub(super) fn take_probes(&mut self) -> Vec<ResourceId> {
        let some: Vec<_> = self.probes.iter().copied().take(PROBES_A_TURN).collect();
        self.probes.retain(|id| !some.contains(id));
        some
    }

    /// Forgets the rival of an address that is not ours any more.
    pub(super) fn forget(&mut self, id: ResourceId) {
        self.rivals.remove(&id);
        self.probes.remove(&id);
    }

    /// Reads announcements of addresses that are ours to answer for. Returns the new or changed rivals for which the
    /// log has room.
    pub(super) fn hear(
        &mut self,
        interfaces: &[Interface],
        now: u64,
        is_ours: impl Fn(ResourceId) -> bool,
    ) -> Vec<(ResourceId, AddressClaim)> {
        let mut news = Vec::new();
        for listener in &self.listeners {
            for _ in 0..PACKETS_A_TURN {
                // The error is that of an interface that went down.
                let Ok(Some(said)) = listener.receive() else { break };
                let Some(said) = said else { continue };
                let Some(id) = self.services.get(&said.ip).copied() else { continue };
                let is_own = interfaces.iter().any(|interface| interface.mac == Some(said.mac));
                if is_own {
                    continue;
                }
                if !is_ours(id) {
                    // The address is not ours to answer for, so its holder is not a rival.
                    self.rivals.remove(&id);
                    continue;
                }
                if note(&mut self.rivals, &mut self.lines, id, said, now) {
                    news.push((id, said));
                }
            }
        }
        news
    }

    /// The addresses whose rivals are to be answered now.
    pub(super) fn take_due(&mut self, now: u64) -> Vec<ResourceId> {
        self.rivals.retain(|_, rival| now < rival.last + FORGET_NANOS);
        let mut due = Vec::new();
        for (id, rival) in &mut self.rivals {
            if rival.answer.take_if(|at| *at <= now).is_some() {
                rival.not_before = now + rival.pause;
                rival.pause = (rival.pause * 2).min(PAUSE_MAX_NANOS);
                due.push(*id);
            }
        }
        due
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let probe = (!self.probes.is_empty()).then_some(1);
        self.rivals.values().filter_map(|rival| rival.answer).chain(probe).min()
    }

    /// The rivals for the status. `group` names an address's group, `interface` an interface.
    pub(super) fn states(
        &self,
        now: u64,
        group: impl Fn(ResourceId) -> String,
        interface: impl Fn(u32) -> String,
    ) -> Vec<RivalState> {
        let ips: BTreeMap<ResourceId, IpAddr> = self.services.iter().map(|(ip, id)| (*id, *ip)).collect();
        let state = |(id, rival): (&ResourceId, &Rival)| RivalState {
            address: ips.get(id).map(IpAddr::to_string).unwrap_or_default(),
            group: group(*id),
            mac: text(rival.mac),
            interface: interface(rival.interface),
            heard: rival.heard,
            changed: rival.changed,
            ago_ms: now.saturating_sub(rival.last) / 1_000_000,
        };
        self.rivals.iter().map(state).collect()
    }
}

/// Notes an announcement of a rival. Returns whether it is worth a line.
fn note(
    rivals: &mut BTreeMap<ResourceId, Rival>,
    lines: &mut LogQuota,
    id: ResourceId,
    claimed: AddressClaim,
    now: u64,
) -> bool {
    let is_new = || Rival {
        mac: claimed.mac,
        interface: claimed.interface,
        heard: 0,
        changed: 0,
        last: now,
        logged: None,
        answer: None,
        not_before: now,
        pause: PAUSE_NANOS,
    };
    let rival = rivals.entry(id).or_insert_with(is_new);
    if now >= rival.last + FORGET_NANOS {
        *rival = is_new();
    }
    if now > rival.last + REFRESH_NANOS {
        rival.pause = PAUSE_NANOS;
    }
    rival.changed += u64::from(rival.mac != claimed.mac);
    (rival.mac, rival.interface, rival.last) = (claimed.mac, claimed.interface, now);
    rival.heard += 1;
    rival.answer.get_or_insert(now.max(rival.not_before));
    let is_known = rival.logged.is_some_and(|(mac, until)| mac == claimed.mac || now < until);
    if is_known || !lines.take(now) {
        return false;
    }
    rival.logged = Some((claimed.mac, now + REFRESH_NANOS));
    true
}

/// A hardware address in its usual notation.
pub(super) fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Asks the segment which other machine has an address. If the kernel refuses, it is asked again with the next refresh.
pub(super) fn ask(announcer: &Announcer, interface: &Interface, ip: IpAddr) {
    if interface.resolves {
        let _ = announcer.probe(interface, ip);
    }
}

#[cfg(test)]
mod tests {
    use locum_core::model::identity::GroupIndex;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Announces while `says` holds, and returns when it was answered.
    fn answers(says: impl Fn(u64) -> bool, until: u64) -> Vec<u64> {
        let id = ResourceId { group: GroupIndex(0), member: 0 };
        let said = AddressClaim { ip: "10.0.0.1".parse().unwrap(), mac: [2; 6], interface: 2 };
        let mut rivals = Rivals::deaf();
        let mut answered = Vec::new();
        for tenth in 0..until * 10 {
            let now = SECOND + tenth * SECOND / 10;
            if says(tenth) {
                note(&mut rivals.rivals, &mut rivals.lines, id, said, now);
            }
            if rivals.take_due(now) == [id] {
                answered.push(tenth);
            }
        }
        answered
    }

    #[test]
    fn a_rival_is_answered_at_once_and_ever_more_rarely() {
        assert_eq!(answers(|tenth| tenth == 5, 10), [5]);
        // An announcement during the pause is answered at its end: caches keep the last one that they heard.
        assert_eq!(answers(|tenth| tenth == 5 || tenth == 7, 10), [5, 15]);
        let without_end = answers(|_| true, 300);
        assert_eq!(without_end[..5], [0, 10, 30, 70, 150]);
        assert!(without_end.len() < 16, "{without_end:?}");
        // After a rest it is answered at once again.
        assert_eq!(answers(|tenth| tenth < 40 || tenth == 1200, 150), [0, 10, 30, 70, 1200]);
    }
    /// Any machine on the segment may send what it likes.
    #[test]
    fn no_flood_fills_the_log() {
        let id = |group| ResourceId { group: GroupIndex(group), member: 0 };
        let said = |mac: u64| AddressClaim {
            ip: "10.0.0.1".parse().unwrap(),
            mac: mac.to_be_bytes()[2..].try_into().unwrap(),
            interface: 2,
        };
        let mut rivals = Rivals::deaf();
        let mut note =
            |group, mac, now| note(&mut rivals.rivals, &mut rivals.lines, id(group), said(mac), now);
        // Two take turns, and then one more comes with each packet, for ten minutes.
        let packets = (0..6000_u64).map(|tenth| (tenth, if tenth < 3000 { tenth % 2 } else { tenth }));
        let lines = packets.filter(|(tenth, mac)| note(0, *mac, SECOND + tenth * SECOND / 10)).count();
        assert_eq!(lines, 10, "one a minute");
        // The same for as many addresses as there can be.
        let now = 1000 * SECOND;
        let lines = (1..4096).filter(|group| note(*group, 7, now)).count();
        assert_eq!(lines, LINES_MAX);
        // One that was not logged is logged when there is room, and only once.
        let later = now + REFRESH_NANOS;
        assert!(
            note(4000, 7, later) && !note(4000, 7, later + 1) && !note(4000, 7, later + 2 * REFRESH_NANOS)
        );
        let all = rivals.states(now, |_| String::new(), |_| String::new());
        assert_eq!((all.len(), all[0].heard), (4096, 6000));
        assert_eq!(all[0].changed, 5999);
    }
}
