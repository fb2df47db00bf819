//! Other machines that say to have a service address of ours: heard of, answered, shown.
//!
//! Every address is announced again once in [`REFRESH_NANOS`], and the segment asked who else has it; so also at its start,
//! where nothing waits for the answer: an earlier owner that still answers must not keep anybody from taking over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use locum_core::plan::ResourceId;
use locum_sys::{
    announce::Announcer,
    claimants::{Claimants, Claimed},
    netlink::Interface,
};
use serde::{Deserialize, Serialize};

/// An address is announced again after so long, and the segment is asked who else has it.
pub(super) const REFRESH_NANOS: u64 = 60_000_000_000;
/// A rival's announcement is answered at once, and further ones after a pause that doubles up to the longest.
const PAUSE_NANOS: u64 = 1_000_000_000;
const PAUSE_MAX_NANOS: u64 = 32_000_000_000;
/// Who was not heard for so long is no rival any more: two refreshes, and an answer that was lost.
const FORGET_NANOS: u64 = 150_000_000_000;
/// So many packets are read in one turn.
const PACKETS_A_TURN: usize = 32;
/// And about so many addresses the segment is asked.
const PROBES_A_TURN: usize = 32;

/// Another machine that says to have an address of ours, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RivalState {
    /// The address.
    pub address: String,
    /// Its group.
    pub group: String,
    /// The other machine's hardware address.
    pub mac: String,
    /// The interface on which it is heard.
    pub interface: String,
    /// How often it was heard.
    pub heard: u64,
    /// How long ago the last time was, in milliseconds.
    pub ago_ms: u64,
}

/// One of them.
struct Rival {
    mac: [u8; 6],
    interface: u32,
    heard: u64,
    last: u64,
    /// When it is answered next, and how long after that not again.
    answer: Option<u64>,
    not_before: u64,
    pause: u64,
}

/// What is known of all.
pub(super) struct Rivals {
    ears: Vec<Claimants>,
    /// Why nobody is heard, if so.
    fault: Option<String>,
    services: BTreeMap<IpAddr, ResourceId>,
    rivals: BTreeMap<ResourceId, Rival>,
    /// To be asked about.
    probes: BTreeSet<ResourceId>,
}

impl Rivals {
    /// Hears who else has these addresses; nobody where there are none.
    pub(super) fn of(services: BTreeMap<IpAddr, ResourceId>) -> Self {
        let v4: Vec<_> = services
            .keys()
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            })
            .collect();
        let arp = Claimants::of_arp(&v4);
        let neighbours = (v4.len() < services.len()).then(Claimants::of_advertisements).transpose();
        let (mut ears, mut fault) = (Vec::new(), None);
        for heard in [arp, neighbours.map(Vec::from_iter)] {
            match heard {
                Ok(heard) => ears.extend(heard),
                Err(error) => fault = Some(error.to_string()),
            }
        }
        Self { ears, fault, services, rivals: BTreeMap::new(), probes: BTreeSet::new() }
    }

    /// Nobody is heard.
    pub(super) fn deaf() -> Self {
        Self::of(BTreeMap::new())
    }

    /// What becomes readable when somebody says something.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Claimants> {
        self.ears.iter()
    }

    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The segment is to be asked who else has it.
    pub(super) fn probe(&mut self, id: ResourceId) {
        if !self.ears.is_empty() {
            self.probes.insert(id);
        }
    }

    /// Some of those to be asked about.
    pub(super) fn take_probes(&mut self) -> Vec<ResourceId> {
        let some: Vec<_> = self.probes.iter().copied().take(PROBES_A_TURN).collect();
        self.probes.retain(|id| !some.contains(id));
        some
    }

    /// It is not ours any more.
    pub(super) fn forget(&mut self, id: ResourceId) {
        self.rivals.remove(&id);
        self.probes.remove(&id);
    }

    /// Reads what was said of addresses that are ours to answer for. Returns those of which a rival was heard for the first
    /// time, or another one.
    pub(super) fn hear(
        &mut self,
        interfaces: &[Interface],
        now: u64,
        is_ours: impl Fn(ResourceId) -> bool,
    ) -> Vec<(ResourceId, Claimed)> {
        let mut news = Vec::new();
        for ear in &self.ears {
            for _ in 0..PACKETS_A_TURN {
                // An error is that of an interface that went down.
                let Ok(Some(said)) = ear.receive() else { break };
                let Some(said) = said else { continue };
                let Some(id) = self.services.get(&said.ip).copied() else { continue };
                let is_own = interfaces.iter().any(|interface| interface.mac == Some(said.mac));
                if is_own || !is_ours(id) {
                    continue;
                }
                if note(&mut self.rivals, id, said, now) {
                    news.push((id, said));
                }
            }
        }
        news
    }

    /// Which rivals are to be answered now.
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

    /// For people. `group` names an address's group, `interface` an interface.
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
            ago_ms: now.saturating_sub(rival.last) / 1_000_000,
        };
        self.rivals.iter().map(state).collect()
    }
}

/// Returns whether it is somebody who was not heard of lately.
fn note(rivals: &mut BTreeMap<ResourceId, Rival>, id: ResourceId, said: Claimed, now: u64) -> bool {
    let known = rivals.get(&id).filter(|rival| now < rival.last + FORGET_NANOS);
    let is_news = known.is_none_or(|rival| rival.mac != said.mac);
    let rival = rivals.entry(id).or_insert(Rival {
        mac: said.mac,
        interface: said.interface,
        heard: 0,
        last: now,
        answer: None,
        not_before: now,
        pause: PAUSE_NANOS,
    });
    if now > rival.last + REFRESH_NANOS {
        rival.pause = PAUSE_NANOS;
    }
    (rival.mac, rival.interface, rival.last) = (said.mac, said.interface, now);
    rival.heard += 1;
    rival.answer.get_or_insert(now.max(rival.not_before));
    is_news
}

/// As people write a hardware address.
pub(super) fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Asks the segment who else has an address. What the kernel refuses is asked again with the next refresh.
pub(super) fn ask(announcer: &Announcer, interface: &Interface, ip: IpAddr) {
    if interface.resolves {
        let _ = announcer.probe(interface, ip);
    }
}

#[cfg(test)]
mod tests {
    use locum_core::plan::GroupIndex;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Announces as long as `says`, and returns when it was answered.
    fn answers(says: impl Fn(u64) -> bool, until: u64) -> Vec<u64> {
        let id = ResourceId { group: GroupIndex(0), member: 0 };
        let said = Claimed { ip: "10.0.0.1".parse().unwrap(), mac: [2; 6], interface: 2 };
        let mut rivals = Rivals::deaf();
        let mut answered = Vec::new();
        for tenth in 0..until * 10 {
            let now = SECOND + tenth * SECOND / 10;
            if says(tenth) {
                note(&mut rivals.rivals, id, said, now);
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
        // What comes during the pause is answered at its end: caches have the last word that they heard.
        assert_eq!(answers(|tenth| tenth == 5 || tenth == 7, 10), [5, 15]);
        let without_end = answers(|_| true, 300);
        assert_eq!(without_end[..5], [0, 10, 30, 70, 150]);
        assert!(without_end.len() < 16, "{without_end:?}");
        // After a rest at once again.
        assert_eq!(answers(|tenth| tenth < 40 || tenth == 1200, 150), [0, 10, 30, 70, 1200]);
    }
}
