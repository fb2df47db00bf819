//! The service addresses: put on an interface, announced, removed, watched. All of it is a few messages to the kernel;
//! no process is started.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    io, mem,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};

use locum_core::model::{
    breakage::{self, Breakage},
    event::{Carrier, Outcome},
    identity::{GroupIndex, ResourceId},
    resource::{Address, Agent},
    timer_queue::TimerQueue,
};
use locum_sys::{
    announce::{AnnouncementForm, Announcer},
    claimants::AddressClaim,
    netlink::{Interface, InterfaceAddress, Lifetime, NewAddress, interface_to, ipv6_is_off},
};

use super::{
    lifetimes::Lifetimes,
    network::Network,
    rivals::{self, REFRESH_NANOS, Rivals},
    shape::{Order, OwnAddresses, other_prefix, own_reaches},
};
use crate::{host_config::HostConfig, rights};

/// The answer to a request to terminate or kill an address.
pub(super) const NO_PROCESSES: &str = "an address has no processes";

/// When an address is announced after it was taken, in milliseconds. ARP's two forms take turns, each at once and then
/// like the original's 20 frames, one each 250 ms. The early repetitions are for the case that the first frame is lost.
const SCHEDULE_MS: [u64; 24] = [
    0, 0, 50, 100, 250, 500, 750, 1000, 1250, 1500, 1750, 2000, 2250, 2500, 2750, 3000, 3250, 3500, 3750,
    4000, 4250, 4500, 4750, 5000,
];

/// The pause before a lifetime that could not be renewed is tried again.
const RENEWAL_RETRY_NANOS: u64 = 1_000_000_000;

/// How long after its removal an address is checked: addresses that go together are told one by one.
const SETTLE_NANOS: u64 = 10_000_000;
/// How long it waits for the machine's own address of its network, if that was removed, too: a restart of the network
/// removes all addresses, and puts the machine's own one back first.
const OWN_WAIT_NANOS: u64 = 5_000_000_000;
/// A moment that has passed, for what is due at once.
const AT_ONCE: u64 = 1;
/// The pause between two checks of an address that waits.
const LOOK_NANOS: u64 = 1_000_000_000;
/// How many addresses are put behind the machine's own in one turn.
const ORDERED_A_TURN: usize = 64;
/// The pause before a failed attempt to do that is repeated.
const ORDER_RETRY_NANOS: u64 = 1_000_000_000;
/// How many addresses that the kernel removed are put back in one turn.
const PUT_BACK_A_TURN: usize = 64;
/// How many frames announce addresses in one turn.
const ANNOUNCED_A_TURN: usize = 256;

/// The addresses of the configuration and what the heart does with them.
pub(super) struct Addresses {
    plan: BTreeMap<ResourceId, Address>,
    /// The IP addresses of `plan`.
    services: BTreeSet<IpAddr>,
    /// The addresses among them that something else carries (`SendArp`).
    spoken: BTreeSet<ResourceId>,
    announcer: io::Result<Announcer>,
    held: BTreeMap<ResourceId, Held>,
    /// When the next announcement of each address is due, if it is being announced.
    announcements: TimerQueue<ResourceId, u64>,
    /// When each of them is announced again, if nothing happens.
    refreshes: TimerQueue<ResourceId, u64>,
    /// When their lifetimes are to be renewed.
    renewals: TimerQueue<ResourceId, u64>,
    /// How those addresses were put that were not removed again.
    put: BTreeMap<ResourceId, NewAddress>,
    /// The addresses of ours that have gone and were not reported yet.
    missing: BTreeMap<ResourceId, Missing>,
    /// When to put addresses behind the machine's own: some may stand in front of them.
    order_at: Option<u64>,
    /// What kept one from its place last time; reported once.
    order_fault: Option<String>,
    /// Other machines that announce one of them.
    rivals: Rivals,
    /// The kernel does not keep the mark that tells who put an address.
    markless: bool,
    /// For each group: how long the kernel keeps an address that is not renewed.
    lifetimes: Vec<Option<Lifetime>>,
    /// The thread that renews the lifetimes, if there are any.
    renewer: Option<Lifetimes>,
    /// The addresses of which it was last said that clients cannot reach them here, and why.
    unreachable: BTreeMap<ResourceId, String>,
    /// Why no address can be put anywhere, whatever the interfaces are like.
    barred: Option<String>,
    /// How many announcements the kernel refused.
    pub(super) failures: u64,
}

/// An address that this node carries or announces.
struct Held {
    ip: IpAddr,
    interface: u32,
    tie: Tie,
    /// The interface worked at the last look.
    works: bool,
    announcement: Option<Announcement>,
    /// Its lifetime could not be renewed last time; reported once.
    unrenewed: bool,
    /// The machine has an address of its own in this network.
    beside_own: bool,
    /// When the machine last had one.
    own_seen: Option<u64>,
}

/// An address of ours that has gone.
struct Missing {
    since: u64,
    /// When it is checked next.
    look: u64,
    /// The machine had an address of its own in that network, until then or a moment before.
    beside_own: bool,
    /// The lease of its group did not run meanwhile.
    lapsed: bool,
}

/// The reason why addresses have gone.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Another process removed them: they are not ours any more until they are started again.
    pub(super) taken: Vec<ResourceId>,
    /// Their lifetimes ended while no lease ran, and now it does: they are to be put back. Returned some at a time.
    pub(super) expired: Vec<ResourceId>,
}

/// The relation of this node to an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tie {
    /// We put it there, or found it where we wanted it. Its removal is reported.
    Ours,
    /// A script put it there. We announce it while it exists.
    Scripts,
    /// `SendArp`: we announce it, whatever carries it.
    Spoken,
}

/// The position of an announcement in [`SCHEDULE_MS`].
#[derive(Clone, Copy)]
struct Announcement {
    begun: u64,
    step: usize,
    /// Announces once more, at once.
    again: bool,
}

impl Announcement {
    /// The whole schedule from now on.
    const fn begin(now: u64) -> Self {
        Self { begun: now, step: 0, again: false }
    }

    /// Only one announcement in both forms.
    const fn once(now: u64) -> Self {
        let step = SCHEDULE_MS.len() - 2;
        Self { begun: now.saturating_sub(SCHEDULE_MS[step] * 1_000_000), step, again: false }
    }

    fn due(self) -> u64 {
        if self.again { AT_ONCE } else { self.begun + SCHEDULE_MS[self.step] * 1_000_000 }
    }
}

/// One change that brings an address of ours to its place.
enum AddressStep {
    /// It stands in front of the machine's own: give it another mask for now.
    Away(ResourceId, InterfaceAddress),
    /// Give it its own mask again, which puts it behind, and remove the other one.
    Behind(ResourceId, InterfaceAddress),
    /// IPv6: make it no source any more, or one again.
    Source(ResourceId, bool),
    /// Another process put it again as it was ours: put the mark back.
    Adopt(ResourceId, InterfaceAddress),
}

/// The interface and settings with which an address is put; nothing is left open.
struct AddressPlace {
    interface: Interface,
    prefix: u8,
    broadcast: Option<Ipv4Addr>,
    no_prefix_route: bool,
}

impl Addresses {
    pub(super) fn new(host_config: &HostConfig) -> Self {
        let resources = host_config.resources().filter_map(|(id, resource)| match &resource.agent {
            Agent::Address(address) | Agent::SendArp(address) => Some((id, address.clone())),
            _ => None,
        });
        let is_spoken = |agent: &Agent| matches!(agent, Agent::SendArp(_));
        let spoken =
            host_config.resources().filter(|(_, resource)| is_spoken(&resource.agent)).map(|(id, _)| id);
        let announcer = Announcer::open();
        let plan: BTreeMap<ResourceId, Address> = resources.collect();
        Self {
            services: plan.values().map(|address| address.ip).collect(),
            plan,
            spoken: spoken.collect(),
            announcer,
            held: BTreeMap::new(),
            announcements: TimerQueue::default(),
            refreshes: TimerQueue::default(),
            renewals: TimerQueue::default(),
            put: BTreeMap::new(),
            missing: BTreeMap::new(),
            order_at: None,
            order_fault: None,
            rivals: Rivals::deaf(),
            markless: false,
            lifetimes: Vec::new(),
            renewer: None,
            unreachable: BTreeMap::new(),
            barred: rights::bars(host_config),
            failures: 0,
        }
    }

    /// Gives the addresses lifetimes, for a caller that will renew them.
    ///
    /// # Errors
    /// When the kernel does not give the thread that renews them.
    pub(super) fn bounded(mut self, host_config: &HostConfig) -> io::Result<Self> {
        let lifetime = |seconds| Lifetime { valid: seconds, preferred: seconds };
        self.lifetimes = host_config.groups.iter().map(|group| group.lifetime.map(lifetime)).collect();
        if self.lifetimes.iter().any(Option::is_some) {
            self.renewer = Some(Lifetimes::start()?);
        }
        let addresses = host_config.resources().filter_map(|(id, resource)| match &resource.agent {
            Agent::Address(address) => Some((address.ip, id)),
            _ => None,
        });
        self.rivals = Rivals::of(addresses.collect());
        Ok(self)
    }

    /// The other machines that announce an address of ours.
    pub(super) const fn rivals(&self) -> &Rivals {
        &self.rivals
    }

    /// Reads what other machines said of addresses of ours that may answer. Returns lines for the log.
    pub(super) fn hear_rivals(
        &mut self,
        network: &Network,
        now: u64,
        may_answer: impl Fn(GroupIndex) -> bool,
    ) -> Vec<(GroupIndex, String)> {
        let Self { rivals, held, .. } = self;
        let is_ours =
            |id: ResourceId| held.get(&id).is_some_and(|held| held.tie == Tie::Ours) && may_answer(id.group);
        let news = rivals.hear(network.interfaces(), now, is_ours);
        let line = |(id, said): (ResourceId, AddressClaim)| {
            let name = network.interface_by_index(said.interface).map_or("?", |it| it.name.as_str());
            let text = format!(
                "{} is also announced by another machine, {} on {name}: it is announced again from here, but \
                 clients may reach either; remove it from that machine",
                said.ip,
                rivals::text(said.mac)
            );
            (id.group, text)
        };
        news.into_iter().map(line).collect()
    }

    /// Answers rivals, probes for them, and announces again the addresses that were not announced for long. Only for
    /// addresses that may answer.
    pub(super) fn speak_up(&mut self, network: &Network, now: u64, may_answer: impl Fn(GroupIndex) -> bool) {
        while let Some(id) = self.refreshes.take_due(now) {
            let Some(held) = self.held.get(&id) else { continue };
            self.refreshes.set(id, Some(now + REFRESH_NANOS));
            if may_answer(id.group) {
                if held.tie == Tie::Ours {
                    self.rivals.probe(id);
                }
                self.announce_once(id, now, false);
            }
        }
        for id in self.rivals.take_due(now) {
            if may_answer(id.group) {
                self.announce_once(id, now, true);
            }
        }
        let Ok(announcer) = &self.announcer else { return };
        for id in self.rivals.take_probes() {
            let held = self.held.get(&id).filter(|_| may_answer(id.group));
            if let Some(held) = held
                && let Some(interface) = network.interface_by_index(held.interface)
            {
                rivals::ask(announcer, interface, held.ip);
            }
        }
    }

    /// Announces it in both forms, if it is held. If an announcement is under way, that one goes on instead; with
    /// `again` it also announces once more now.
    fn announce_once(&mut self, id: ResourceId, now: u64, again: bool) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let announcement = held.announcement.get_or_insert(Announcement::once(now));
        announcement.again |= again;
        self.announcements.set(id, Some(announcement.due()));
    }

    /// Why no address can be announced, if so.
    pub(super) fn cannot_announce(&self) -> Option<String> {
        let error = self.announcer.as_ref().err()?;
        let lacks_right = error.kind() == io::ErrorKind::PermissionDenied;
        Some(if lacks_right { "CAP_NET_RAW is missing".to_owned() } else { error.to_string() })
    }

    /// All addresses of the plan, ours or not.
    pub(super) fn all(&self) -> BTreeSet<IpAddr> {
        self.services.clone()
    }

    /// Puts an address on its interface and announces it. An address that exists already is announced all the same.
    /// `before` is called with the interface's number before the address is put; if it fails, nothing is put.
    pub(super) fn start(
        &mut self,
        id: ResourceId,
        network: &mut Network,
        now: u64,
        before: impl FnOnce(u32) -> Result<(), String>,
    ) -> Outcome {
        let Some(address) = self.plan.get(&id) else { return no_address() };
        let there = match self.ours(id, address, network) {
            Some(ours) => Some((ours.clone(), true)),
            None => standing(address, network).map(|other| (other.clone(), false)),
        };
        let interface = match there {
            Some((other, false)) => return Outcome::Failed(foreign(&other, network)),
            Some((ours, true)) => match before(ours.interface) {
                Ok(()) => {
                    self.put.entry(id).or_insert_with(|| as_it_stands(&ours));
                    ours.interface
                }
                Err(why) => return Outcome::Failed(why),
            },
            None => {
                let new = match new_address(address, network, self.put.get(&id), &self.services) {
                    Ok(new) => new,
                    Err(why) => return Outcome::Failed(why),
                };
                match add(&new, network, self.lifetime(id), before) {
                    Ok(()) => {
                        let interface = new.interface;
                        self.put.insert(id, new);
                        interface
                    }
                    Err(why) => return Outcome::Failed(why),
                }
            }
        };
        self.missing.remove(&id);
        self.hold(id, interface, Tie::Ours, network, now);
        Outcome::Ok
    }

    /// Where an address of ours stands: one that this daemon or an earlier one put there. An address that another
    /// program put on another interface is not ours.
    fn ours<'a>(
        &self,
        id: ResourceId,
        address: &Address,
        network: &'a Network,
    ) -> Option<&'a InterfaceAddress> {
        let known = self.known(id);
        places_of(address, network.interfaces(), network.carrying(address.ip))
            .find(|there| there.marked || known == Some(there.interface))
    }

    /// The interface where it is ours, whoever put it there the last time.
    fn known(&self, id: ResourceId) -> Option<u32> {
        let put = || self.put.get(&id).map(|put| put.interface);
        match self.held.get(&id) {
            Some(held) => Some(held.interface),
            None if self.missing.contains_key(&id) || self.markless => put(),
            None => None,
        }
    }

    /// Removes an address from all places where it would be ours. It is no error if it is not there.
    pub(super) fn stop(&mut self, id: ResourceId, network: &mut Network) -> Outcome {
        let Some(address) = self.plan.get(&id) else { return no_address() };
        if self.renewer.as_ref().is_some_and(|renewer| renewer.is_renewing(id)) {
            // The stop is tried again. Waiting for the kernel here would keep back the beats.
            return Outcome::Failed(format!("the lifetime of {} is being renewed", address.ip));
        }
        // An address that another program put there is not ours to remove.
        let known = self.known(id);
        let ours = |network: &Network| {
            let mut all = places_of(address, network.interfaces(), network.carrying(address.ip));
            all.find(|there| there.marked || known == Some(there.interface)).cloned()
        };
        while let Some(there) = ours(network) {
            match is_gone(network.netlink.delete_address(&there)) {
                // It has gone, even if the kernel does not tell it now.
                Ok(()) => network.take_out(&there),
                Err(error) => return Outcome::Failed(format!("cannot remove {}: {error}", address.ip)),
            }
            let _ = network.refresh();
        }
        // From now on its removal is not reported, and rivals are not answered.
        self.missing.remove(&id);
        self.rivals.forget(id);
        self.put.remove(&id);
        self.let_go(id);
        Outcome::Ok
    }

    /// Ends everything that is done for an address.
    fn let_go(&mut self, id: ResourceId) -> Option<Held> {
        for timers in [&mut self.announcements, &mut self.refreshes, &mut self.renewals] {
            timers.set(id, None);
        }
        self.held.remove(&id)
    }

    /// Whether an address of this group is held, or was and will be put back.
    pub(super) fn holds(&self, group: GroupIndex) -> bool {
        self.held.range(all_of(group)).any(|(_, held)| held.tie == Tie::Ours)
            || self.missing.range(all_of(group)).next().is_some()
    }

    /// Announces all addresses of a group again that we hold: nobody heard them while they were silent. The first
    /// frames leave with [`Self::send_due`].
    pub(super) fn announce_group(&mut self, group: GroupIndex, now: u64) {
        for (id, held) in self.held.range_mut(all_of(group)) {
            held.announcement = Some(Announcement::begin(now));
            self.announcements.set(*id, Some(now));
        }
    }

    /// Whether an address of ours stands where it should. One that an earlier daemon put there is held from now on, and
    /// `first` is called with its interface's number. One that has just gone and waits to be put back counts as
    /// running. One that another program put there does not: it could not be stopped.
    pub(super) fn status(
        &mut self,
        id: ResourceId,
        network: &Network,
        now: u64,
        first: impl FnOnce(u32),
    ) -> Outcome {
        let Some(address) = self.plan.get(&id) else { return no_address() };
        match self.ours(id, address, network).cloned() {
            None if self.missing.contains_key(&id) => Outcome::Running,
            None => Outcome::Stopped,
            Some(there) => {
                if !self.held.contains_key(&id) {
                    self.missing.remove(&id);
                    self.put.entry(id).or_insert_with(|| as_it_stands(&there));
                    first(there.interface);
                    self.hold(id, there.interface, Tie::Ours, network, now);
                }
                Outcome::Running
            }
        }
    }

    /// Whether the address stands here, whoever put it there.
    pub(super) fn stands(&self, id: ResourceId, network: &Network) -> Outcome {
        match self.plan.get(&id).map(|address| standing(address, network)) {
            Some(Some(_)) => Outcome::Running,
            Some(None) => Outcome::Stopped,
            None => no_address(),
        }
    }

    /// `SendArp`: announces an address that something else carries.
    pub(super) fn speak_for(&mut self, id: ResourceId, network: &Network, now: u64) -> Outcome {
        let Some(address) = self.plan.get(&id) else { return no_address() };
        let interface = match &address.interface {
            Some(name) => network.interface(name).map(|interface| interface.index),
            None => standing(address, network)
                .or_else(|| network.choose(None, address.ip))
                .map(|there| there.interface),
        };
        let Some(interface) = interface else {
            return Outcome::Failed(format!("no interface of this machine leads to {}", address.ip));
        };
        self.hold(id, interface, Tie::Spoken, network, now);
        Outcome::Ok
    }

    /// Ends [`Self::speak_for`] for this address.
    pub(super) fn be_silent(&mut self, id: ResourceId) -> Outcome {
        self.let_go(id);
        Outcome::Ok
    }

    /// `Running` after [`Self::speak_for`], `Stopped` after [`Self::be_silent`].
    pub(super) fn speaks(&self, id: ResourceId) -> Outcome {
        if self.held.contains_key(&id) { Outcome::Running } else { Outcome::Stopped }
    }

    /// Announces the address again, if it stands on this machine. That includes addresses that a script put there.
    pub(super) fn announce(&mut self, id: ResourceId, network: &Network, now: u64) {
        if let Some(held) = self.held.get_mut(&id) {
            held.announcement = Some(Announcement::begin(now));
            self.announcements.set(id, Some(now));
        } else if let Some(interface) =
            self.plan.get(&id).and_then(|a| standing(a, network)).map(|a| a.interface)
        {
            self.hold(id, interface, Tie::Scripts, network, now);
        }
    }

    fn hold(&mut self, id: ResourceId, interface: u32, tie: Tie, network: &Network, now: u64) {
        let Some(address) = self.plan.get(&id) else { return };
        let works = network.interface_by_index(interface).is_some_and(Interface::works);
        let announcement = Some(Announcement::begin(now));
        let lifetime = self.lifetime(id).filter(|_| self.put.contains_key(&id));
        self.renewals.set(id, lifetime.map(|lifetime| now + third(lifetime)));
        let ip = address.ip;
        let beside_own = own_reaches(network.addresses(), &self.services, interface, ip);
        let own_seen = beside_own.then_some(now);
        let unrenewed = false;
        self.announcements.set(id, Some(now));
        self.refreshes.set(id, Some(now + first_refresh(id)));
        if tie == Tie::Ours {
            self.rivals.probe(id);
        }
        self.held
            .insert(id, Held { ip, interface, tie, works, announcement, unrenewed, beside_own, own_seen });
    }

    fn lifetime(&self, id: ResourceId) -> Option<Lifetime> {
        self.lifetimes.get(id.group.0).copied().flatten()
    }

    /// Requests the renewal of the lifetimes that are due, in groups whose lease runs. Returns failures, each once
    /// while it lasts.
    pub(super) fn renew_lifetimes(
        &mut self,
        network: &Network,
        now: u64,
        lease_runs: impl Fn(GroupIndex) -> bool,
    ) -> Vec<(GroupIndex, String)> {
        let mut faults = Vec::new();
        let Some(renewer) = &mut self.renewer else { return faults };
        while let Some((id, came)) = renewer.answer() {
            let Some(held) = self.held.get_mut(&id) else { continue };
            match came {
                Ok(()) => held.unrenewed = false,
                Err(error) => {
                    self.renewals.set(id, Some(now + RENEWAL_RETRY_NANOS));
                    let text = format!(
                        "the lifetime of {} cannot be renewed, and the kernel removes the address when it is over: \
                         {error}",
                        held.ip
                    );
                    let is_news = !mem::replace(&mut held.unrenewed, true);
                    faults.extend(is_news.then_some((id.group, text)));
                }
            }
        }
        loop {
            let Some(id) = self.renewals.due(now).next() else { break };
            let Some(held) = self.held.get(&id) else {
                self.renewals.set(id, None);
                continue;
            };
            let lifetime = self.lifetimes.get(id.group.0).copied().flatten();
            let stands = network.carries(held.interface, held.ip);
            let can_be = stands && lease_runs(id.group) && !renewer.is_renewing(id);
            let next = match (lifetime, self.put.get(&id)) {
                (Some(lifetime), Some(new)) if can_be => {
                    let next = now + third(lifetime);
                    if !renewer.renew(id, new.clone(), lifetime, next) {
                        // Too many renewals are under way: this and the others stay due.
                        break;
                    }
                    next
                }
                _ => now + RENEWAL_RETRY_NANOS,
            };
            self.renewals.set(id, Some(next));
        }
        faults
    }

    /// Handles a change of the network: addresses of ours that have gone ([`Self::take_gone`] tells why), and
    /// interfaces that work again, whose segment has to hear from us.
    pub(super) fn compare(&mut self, network: &Network, now: u64) {
        let own = OwnAddresses::of(network.addresses(), &self.services);
        let gone = |held: &Held| held.tie != Tie::Spoken && !network.carries(held.interface, held.ip);
        let seen = |held: &Held| if held.beside_own { Some(now) } else { held.own_seen };
        let lost: Vec<_> = self.held.iter().filter(|(_, held)| gone(held)).map(|(id, _)| *id).collect();
        for id in lost {
            let Some(held) = self.let_go(id) else { continue };
            if held.tie == Tie::Ours {
                let look = now + SETTLE_NANOS;
                let beside_own = seen(&held).is_some_and(|seen| now < seen + OWN_WAIT_NANOS);
                let lost = Missing { since: now, look, beside_own, lapsed: false };
                self.missing.insert(id, lost);
            }
        }
        for (id, held) in &mut self.held {
            let works = network.interface_by_index(held.interface).is_some_and(Interface::works);
            if works && !held.works {
                held.announcement = Some(Announcement::begin(now));
                self.announcements.set(*id, Some(now));
            }
            held.works = works;
            held.own_seen = seen(held);
            held.beside_own = own.reaches(held.interface, held.ip);
        }
        self.order_at = Some(AT_ONCE);
    }

    /// The missing addresses that are to be reported now.
    pub(super) fn take_gone(
        &mut self,
        network: &Network,
        now: u64,
        lease_runs: impl Fn(GroupIndex) -> bool,
    ) -> Gone {
        let mut gone = Gone::default();
        if self.missing.is_empty() {
            return gone;
        }
        let is_back = |id: &ResourceId| {
            let put = self.put.get(id);
            put.filter(|put| network.carries(put.interface, put.ip)).map(|put| (*id, put.interface))
        };
        let back: Vec<_> = self.missing.keys().filter_map(is_back).collect();
        for (id, interface) in back {
            self.missing.remove(&id);
            self.hold(id, interface, Tie::Ours, network, now);
        }
        let own = OwnAddresses::of(network.addresses(), &self.services);
        let Self { missing, put, lifetimes, .. } = self;
        let is_bound = |group: GroupIndex| lifetimes.get(group.0).is_some_and(Option::is_some);
        let mut room = PUT_BACK_A_TURN;
        for (id, lost) in missing.extract_if(.., |id, lost| {
            let is_own_back = |put: &NewAddress| own.reaches(put.interface, put.ip);
            let waits = lost.beside_own && !put.get(id).is_some_and(is_own_back);
            let until = lost.since + if waits { OWN_WAIT_NANOS } else { SETTLE_NANOS };
            if now >= lost.look {
                lost.look = now + LOOK_NANOS;
            }
            // While no lease runs the lifetime is not renewed, so the kernel removed the address, as it should.
            let is_lapsed = is_bound(id.group) && !lease_runs(id.group);
            lost.lapsed |= is_lapsed && now >= until;
            let is_told = now >= until && !is_lapsed && (!lost.lapsed || room > 0);
            if is_told && lost.lapsed {
                room -= 1;
            } else if now >= until && !is_lapsed {
                lost.look = AT_ONCE;
            }
            is_told
        }) {
            if lost.lapsed { gone.expired.push(id) } else { gone.taken.push(id) }
        }
        gone
    }

    /// Puts service addresses behind the machine's own ([`super::shape`]), some at a time. Returns a failure, once
    /// while it lasts.
    pub(super) fn order(&mut self, network: &mut Network, now: u64) -> Option<String> {
        if self.order_at.is_none_or(|at| at > now) {
            return None;
        }
        let (fault, goes_on) = self.order_some(network);
        let done = fault.map_or_else(|| network.refresh(), Err);
        self.order_at = match &done {
            Err(_) => Some(now + ORDER_RETRY_NANOS),
            Ok(()) => goes_on.then_some(AT_ONCE),
        };
        match done {
            Ok(()) => {
                self.order_fault = None;
                None
            }
            Err(error) => {
                let text = format!("a service address stands in front of the machine's own: {error}");
                let is_news = self.order_fault.as_ref() != Some(&text);
                self.order_fault = Some(text.clone());
                is_news.then_some(text)
            }
        }
    }

    /// Takes some of these steps. Returns the first error, and whether there is more to do. An error keeps no other
    /// address from its place.
    fn order_some(&mut self, network: &mut Network) -> (Option<io::Error>, bool) {
        let mut steps = self.steps(network.addresses());
        let mut goes_on = steps.len() > ORDERED_A_TURN;
        steps.truncate(ORDERED_A_TURN);
        let mut fault = None;
        for step in steps {
            // An address that has another mask now is put behind next time.
            goes_on |= matches!(step, AddressStep::Away(..));
            if let Err(error) = self.take_step(step, network) {
                fault.get_or_insert(error);
            }
        }
        (fault, goes_on)
    }

    fn take_step(&mut self, step: AddressStep, network: &mut Network) -> io::Result<()> {
        match step {
            AddressStep::Away(id, there) => {
                let Some(put) = self.put.get(&id) else { return Ok(()) };
                let prefix = other_prefix(put.prefix);
                let aside = NewAddress { prefix, no_prefix_route: true, ..put.clone() };
                exists(self.put_now(id, &aside, network))?;
                is_gone(network.netlink.delete_address(&there))?;
            }
            AddressStep::Behind(id, there) => {
                let Some(put) = self.put.get(&id).cloned() else { return Ok(()) };
                exists(self.put_now(id, &put, network))?;
                is_gone(network.netlink.delete_address(&there))?;
            }
            AddressStep::Source(id, deprecated) => {
                let lifetime = self.lifetime(id);
                let Some(put) = self.put.get_mut(&id) else { return Ok(()) };
                put.deprecated = deprecated;
                put.no_prefix_route = deprecated;
                network.netlink.replace_address(put, lifetime)?;
            }
            AddressStep::Adopt(id, there) => {
                let Some(put) = self.put.get(&id) else { return Ok(()) };
                let ours = NewAddress { interface: there.interface, prefix: there.prefix, ..put.clone() };
                network.netlink.replace_address(&ours, self.lifetime(id))?;
                network.refresh()?;
                let mut all = network.addresses();
                self.markless = !all.any(|a| a.ip == there.ip && a.prefix == there.prefix && a.marked);
            }
        }
        Ok(())
    }

    fn put_now(&self, id: ResourceId, new: &NewAddress, network: &mut Network) -> io::Result<()> {
        put_on(new, network, self.lifetime(id))
    }

    /// The steps that bring every address to its place, in the order in which they must be taken.
    fn steps<'a>(&self, addresses: impl Iterator<Item = &'a InterfaceAddress> + Clone) -> Vec<AddressStep> {
        let own = OwnAddresses::of(addresses.clone(), &self.services);
        let order = Order::of(addresses.clone(), &own);
        let ids: BTreeMap<(u32, IpAddr), ResourceId> = self
            .held
            .iter()
            .filter(|(_, held)| held.tie == Tie::Ours)
            .map(|(id, held)| ((held.interface, held.ip), *id))
            .collect();
        let (mut away, mut others) = (Vec::new(), Vec::new());
        for (there, is_in_front) in order.services() {
            let Some(id) = ids.get(&(there.interface, there.ip)) else { continue };
            let Some(put) = self.put.get(id) else { continue };
            if there.prefix == put.prefix {
                if is_in_front {
                    away.push(AddressStep::Away(*id, there.clone()));
                }
            } else if !order.is_taken(there, put.prefix) {
                others.push(AddressStep::Behind(*id, there.clone()));
            }
        }
        // The first of a network comes last: the next one would take its place.
        away.sort_by_key(|step| Reverse(matches!(step, AddressStep::Away(_, there) if there.secondary)));
        if !self.markless {
            let unmarked = addresses.filter(|there| !there.marked && self.services.contains(&there.ip));
            let ours = unmarked.filter_map(|there| Some((*ids.get(&(there.interface, there.ip))?, there)));
            others.extend(ours.map(|(id, there)| AddressStep::Adopt(id, there.clone())));
        }
        for (id, held) in self.held.iter().filter(|(_, held)| held.tie == Tie::Ours && held.ip.is_ipv6()) {
            let is_source = self.put.get(id).is_some_and(|put| put.deprecated != held.beside_own);
            others.extend(is_source.then_some(AddressStep::Source(*id, held.beside_own)));
        }
        away.extend(others);
        away
    }

    /// The interface of each address: where it stands, or else would be put.
    pub(super) fn places(&self, network: &Network) -> Vec<(GroupIndex, u32)> {
        self.plan.iter().filter_map(|(id, address)| Some((id.group, home(address, network)?))).collect()
    }

    /// For the ARP filter: the interface where each address of these groups stands, or else would be put; `None` if it
    /// is not known. Addresses on an interface without neighbour questions (loopback, a tunnel) are left out: they are
    /// only reached through others.
    pub(super) fn homes(
        &self,
        network: &Network,
        wants: impl Fn(GroupIndex) -> bool,
    ) -> BTreeMap<IpAddr, Option<u32>> {
        let own = self.plan.iter().filter(|(id, _)| wants(id.group) && !self.spoken.contains(id));
        let homes = own.map(|(_, address)| (address.ip, home(address, network)));
        homes.filter(|(_, home)| home.is_none_or(|index| resolves(network, index))).collect()
    }

    /// The addresses whose reachability has changed, where they stand or else would be put. `trouble_on` returns other
    /// problems of an interface, by its number.
    pub(super) fn reach(
        &mut self,
        network: &Network,
        trouble_on: impl Fn(u32) -> Option<String>,
    ) -> Vec<(ResourceId, Carrier)> {
        let trouble = |address: &Address| {
            if self.barred.is_some() {
                return self.barred.clone();
            }
            let there = standing(address, network).map(|there| there.interface);
            let interface = match there.and_then(|there| network.interface_by_index(there)) {
                Some(interface) => interface.clone(),
                None => match complete(address, network) {
                    Ok(place) => place.interface,
                    Err(why) => return Some(why),
                },
            };
            let trouble = interface.trouble().map(|trouble| format!("{} {trouble}", interface.name));
            trouble.or_else(|| {
                trouble_on(interface.index).map(|trouble| format!("{}: {trouble}", interface.name))
            })
        };
        let mut news = Vec::new();
        for (id, address) in &self.plan {
            let now = trouble(address);
            if now.as_ref() == self.unreachable.get(id) {
                continue;
            }
            match &now {
                Some(why) => drop(self.unreachable.insert(*id, why.clone())),
                None => drop(self.unreachable.remove(id)),
            }
            let down = if self.barred.is_some() { Carrier::Barred } else { Carrier::Down };
            news.push((*id, now.map_or(Carrier::Up, down)));
        }
        news
    }

    /// When [`Self::send_due`] has something to send, or [`Self::take_gone`] or [`Self::order`] something to do.
    pub(super) fn deadline(&self) -> Option<u64> {
        let gone = self.missing.values().map(|lost| lost.look);
        let others = [self.announcements.first(), self.order_at, self.rivals.deadline()];
        others.into_iter().flatten().chain(gone).min()
    }

    /// Sends the announcements that are due, oldest first and some at a time. Call it at the end of each turn.
    pub(super) fn send_due(&mut self, network: &Network, now: u64) {
        for _ in 0..ANNOUNCED_A_TURN {
            let Some(id) = self.announcements.take_due(now) else { return };
            let Some(held) = self.held.get_mut(&id) else { continue };
            let Some(announcement) = held.announcement else { continue };
            let form =
                if announcement.step % 2 == 0 { AnnouncementForm::Request } else { AnnouncementForm::Reply };
            if let (Ok(announcer), Some(interface)) =
                (&self.announcer, network.interface_by_index(held.interface))
                && interface.resolves
                && !breakage::is(Breakage::NoAnnouncement)
                && announcer.announce(interface, held.ip, form).is_err()
            {
                self.failures += 1;
            }
            let step = if announcement.again { announcement.step } else { announcement.step + 1 };
            let rest = Announcement { step, again: false, ..announcement };
            held.announcement = (step < SCHEDULE_MS.len()).then_some(rest);
            if let Some(rest) = held.announcement {
                self.announcements.set(id, Some(rest.due()));
            }
        }
    }
}

/// The range of all resources that a group can have.
fn all_of(group: GroupIndex) -> RangeInclusive<ResourceId> {
    ResourceId { group, member: 0 }..=ResourceId { group, member: usize::MAX }
}

/// The delay of the first refresh: addresses that were put together are not all announced again together.
fn first_refresh(id: ResourceId) -> u64 {
    let which = (id.group.0 as u64) * 31 + id.member as u64;
    REFRESH_NANOS / 2 + which % 64 * (REFRESH_NANOS / 128)
}

/// A third of a lifetime, after which it is renewed.
fn third(lifetime: Lifetime) -> u64 {
    u64::from(lifetime.valid) * 1_000_000_000 / 3
}

fn no_address() -> Outcome {
    Outcome::Failed("the plan has no address of that number".to_string())
}

/// Where the address stands, of the places where it would be ours: on the interface that the plan names or, without a
/// name, on any but the loopback (where real servers behind a balancer keep it).
pub(crate) fn places_of<'a>(
    address: &Address,
    interfaces: &[Interface],
    addresses: impl Iterator<Item = &'a InterfaceAddress>,
) -> impl Iterator<Item = &'a InterfaceAddress> {
    let would_be_ours = move |interface: &&Interface| match &address.interface {
        Some(name) => interface.name == *name,
        None => !interface.loopback,
    };
    addresses.filter(move |there| there.ip == address.ip).filter(move |there| {
        let interface = interfaces.iter().find(|interface| interface.index == there.interface);
        interface.as_ref().is_some_and(would_be_ours)
    })
}

/// Whether neighbour questions about addresses come in on that interface.
pub(super) fn resolves(network: &Network, index: u32) -> bool {
    network.interface_by_index(index).is_some_and(|interface| interface.resolves)
}

/// The interface on which the address stands, or else would be put.
fn home(address: &Address, network: &Network) -> Option<u32> {
    let there = standing(address, network).map(|there| there.interface);
    there.or_else(|| complete(address, network).ok().map(|place| place.interface.index))
}

fn standing<'a>(address: &Address, network: &'a Network) -> Option<&'a InterfaceAddress> {
    places_of(address, network.interfaces(), network.carrying(address.ip)).next()
}

/// The settings with which it is put. `last` is how it was put before it was removed: it is put again in the same way
/// even if the addresses of this machine that would show the interface are gone, too.
fn new_address(
    address: &Address,
    network: &Network,
    last: Option<&NewAddress>,
    services: &BTreeSet<IpAddr>,
) -> Result<NewAddress, String> {
    let is_up = |index| network.interface_by_index(index).is_some_and(|interface| interface.up);
    let new = match (complete(address, network), last) {
        (Ok(place), _) => NewAddress {
            label: address.label.clone(),
            broadcast: place.broadcast,
            no_prefix_route: place.no_prefix_route,
            marked: true,
            ..NewAddress::new(place.interface.index, address.ip, place.prefix)
        },
        (Err(_), Some(last)) if is_up(last.interface) => last.clone(),
        (Err(why), _) => return Err(why),
    };
    let deprecated = new.ip.is_ipv6() && own_reaches(network.addresses(), services, new.interface, new.ip);
    // The route to the network belongs to the other address; a lifetime of ours must not become that route's.
    Ok(NewAddress { deprecated, no_prefix_route: new.no_prefix_route || deprecated, ..new })
}

fn add(
    new: &NewAddress,
    network: &mut Network,
    lifetime: Option<Lifetime>,
    before: impl FnOnce(u32) -> Result<(), String>,
) -> Result<(), String> {
    before(new.interface)?;
    if let Err(error) = exists(put_on(new, network, lifetime)) {
        let interface = network.interface_by_index(new.interface).map_or("?", |it| it.name.as_str());
        let lack = rights::no_addresses().filter(|_| error.kind() == io::ErrorKind::PermissionDenied);
        let is_off = || {
            (new.ip.is_ipv6() && ipv6_is_off(interface)).then(|| "IPv6 is off on that interface".to_owned())
        };
        let why = lack.or_else(is_off).unwrap_or_else(|| error.to_string());
        return Err(format!("cannot add {} to {interface}: {why}", new.ip));
    }
    // It exists, even if the kernel does not tell it now.
    network.take_in(new);
    let _ = network.refresh();
    Ok(())
}

fn put_on(new: &NewAddress, network: &mut Network, lifetime: Option<Lifetime>) -> io::Result<()> {
    match lifetime {
        Some(lifetime) => network.netlink.add_address_for(new, lifetime),
        None => network.netlink.add_address(new),
    }
}

/// An address that exists already counts as put.
fn exists(added: io::Result<()>) -> io::Result<()> {
    added.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
}

/// An address that does not exist any more counts as removed.
fn is_gone(deleted: io::Result<()>) -> io::Result<()> {
    deleted.or_else(|error| if error.kind() == io::ErrorKind::AddrNotAvailable { Ok(()) } else { Err(error) })
}

/// The settings of an existing address.
fn as_it_stands(there: &InterfaceAddress) -> NewAddress {
    NewAddress {
        label: there.label.clone(),
        broadcast: there.broadcast,
        no_prefix_route: there.no_prefix_route,
        marked: true,
        deprecated: false,
        ..NewAddress::new(there.interface, there.ip, there.prefix)
    }
}

/// Why an address is left alone that Locum did not put there.
fn foreign(there: &InterfaceAddress, network: &Network) -> String {
    let InterfaceAddress { ip, prefix, interface, .. } = there;
    let name = network.interface_by_index(*interface).map_or("?", |interface| interface.name.as_str());
    format!(
        "{ip} exists on {name} already, and Locum did not put it there: if it is this machine's own address, choose \
         another one for the service, else type: ip address del {ip}/{prefix} dev {name}"
    )
}

/// Completes what `haresources` leaves open. The interface is the one whose connected network contains the address,
/// longest prefix first, or else, for heartbeat's `IPaddr` with a mask, the one to which the route leads. The mask is
/// that network's. The broadcast address is the network's highest.
fn complete(address: &Address, network: &Network) -> Result<AddressPlace, String> {
    let ip = address.ip;
    let (interface, connected) = match &address.interface {
        Some(name) => {
            let interface = network.interface(name).ok_or_else(|| format!("there is no interface {name}"))?;
            (interface, network.choose(Some(interface.index), ip).cloned())
        }
        None => {
            let connected = network.choose(None, ip).cloned();
            let index = connected.as_ref().map(|connected| connected.interface);
            let index = index.or_else(|| address.by_route.then(|| interface_to(ip)).flatten());
            match index.and_then(|index| network.interface_by_index(index)) {
                Some(interface) => (interface, connected),
                None => {
                    return Err(format!(
                        "no network of this machine contains {ip}; {}",
                        cure(address, network)
                    ));
                }
            }
        }
    };
    if !interface.up {
        return Err(format!("interface {} is down", interface.name));
    }
    let prefix = match (address.prefix, &connected) {
        (Some(prefix), _) => prefix,
        (None, Some(connected)) => connected.prefix,
        (None, None) => {
            return Err(format!(
                "no network of {} contains {ip}; {}",
                interface.name,
                cure(address, network)
            ));
        }
    };
    let broadcast = match (ip, address.broadcast) {
        (IpAddr::V4(_), Some(broadcast)) => Some(broadcast),
        (IpAddr::V4(ip), None) if prefix < 31 => {
            Some(Ipv4Addr::from_bits(ip.to_bits() | u32::MAX.checked_shr(prefix.into()).unwrap_or(0)))
        }
        _ => None,
    };
    // Within a wider network that the interface reaches anyway, a route to the narrower one would only make the service
    // address the source of this machine's own traffic. In the same network the kernel makes none, and must be free to
    // make it when our address outlives the first one.
    let no_prefix_route = connected.is_some_and(|connected| connected.prefix != prefix);
    Ok(AddressPlace { interface: interface.clone(), prefix, broadcast, no_prefix_route })
}

/// What to write in `haresources` instead.
fn cure(address: &Address, network: &Network) -> String {
    let bits = address.prefix.unwrap_or(if address.ip.is_ipv4() { 24 } else { 64 });
    let first = network.interfaces().iter().find(|interface| interface.up && !interface.loopback);
    let interface = address.interface.as_deref().or(first.map(|i| i.name.as_str())).unwrap_or("eth0");
    format!("write the mask and the interface, as in {}/{bits}/{interface}", address.ip)
}
