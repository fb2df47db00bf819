//! The service addresses: put on an interface, announced, taken off, watched. All of it is a few messages to the
//! kernel; no process is started.

use std::{
    collections::BTreeMap,
    io, mem,
    net::{IpAddr, Ipv4Addr},
};

use locum_core::{
    breakage::{self, Breakage},
    event::{Carrier, Outcome},
    plan::{Address, Agent, GroupIndex, ResourceId},
};
use locum_sys::{
    announce::{Announcer, Form},
    netlink::{Interface, InterfaceAddress, Lifetime, NewAddress, choose_interface},
};

use super::{lifetimes::Lifetimes, network::Network};
use crate::duties::Duties;

/// The answer to whoever wants to terminate or kill an address.
pub(super) const NO_PROCESSES: &str = "an address has no processes";

/// When an address is announced after it was taken, in milliseconds. ARP's two forms take turns, each at once and then
/// like the original's 20 frames, one each 250 ms. The early repetitions are for a first frame that was lost.
const SCHEDULE_MS: [u64; 24] = [
    0, 0, 50, 100, 250, 500, 750, 1000, 1250, 1500, 1750, 2000, 2250, 2500, 2750, 3000, 3250, 3500, 3750,
    4000, 4250, 4500, 4750, 5000,
];

/// A lifetime that could not be renewed is tried again so soon.
const RENEWAL_RETRY_NANOS: u64 = 1_000_000_000;

/// The addresses of the configuration and what the heart does with them.
pub(super) struct Addresses {
    plan: BTreeMap<ResourceId, Address>,
    announcer: io::Result<Announcer>,
    held: BTreeMap<ResourceId, Held>,
    /// How those were put that were not taken off again.
    put: BTreeMap<ResourceId, NewAddress>,
    /// By group: for how long the kernel keeps what nobody renews.
    lifetimes: Vec<Option<Lifetime>>,
    /// Who renews them; if anything is to be renewed.
    renewer: Option<Lifetimes>,
    /// Those of which it was last said that they would reach nobody, and why.
    cut: BTreeMap<ResourceId, String>,
    /// Announcements that the kernel refused.
    pub(super) failures: u64,
}

/// An address that we have to do with.
struct Held {
    ip: IpAddr,
    interface: u32,
    tie: Tie,
    /// The interface worked when we last looked.
    works: bool,
    announcement: Option<Announcement>,
    /// When its lifetime is to begin anew, if it has one.
    renewal: Option<u64>,
    /// Its lifetime could not be renewed last time; said once.
    unrenewed: bool,
}

/// What we have to do with an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tie {
    /// We put it there, or found it where we wanted it. If it goes, that is news.
    Ours,
    /// A script put it there. We announce it as long as it stands.
    Scripts,
    /// `SendArp`: we announce it, whatever carries it.
    Spoken,
}

/// Where in [`SCHEDULE_MS`] an announcement is.
#[derive(Clone, Copy)]
struct Announcement {
    begun: u64,
    step: usize,
}

impl Announcement {
    fn due(self) -> u64 {
        self.begun + SCHEDULE_MS[self.step] * 1_000_000
    }
}

/// Where an address goes, with every question answered.
struct Place {
    interface: Interface,
    prefix: u8,
    broadcast: Option<Ipv4Addr>,
    no_prefix_route: bool,
}

impl Addresses {
    pub(super) fn new(duties: &Duties) -> Self {
        let resources = duties.resources().filter_map(|(id, resource)| match &resource.agent {
            Agent::Address(address) | Agent::SendArp(address) => Some((id, address.clone())),
            _ => None,
        });
        let announcer = Announcer::open();
        Self {
            plan: resources.collect(),
            announcer,
            held: BTreeMap::new(),
            put: BTreeMap::new(),
            lifetimes: Vec::new(),
            renewer: None,
            cut: BTreeMap::new(),
            failures: 0,
        }
    }

    /// For somebody who will renew their lifetimes.
    ///
    /// # Errors
    /// When the kernel does not give what renews them.
    pub(super) fn bounded(mut self, duties: &Duties) -> io::Result<Self> {
        let lifetime = |seconds| Lifetime { valid: seconds, preferred: seconds };
        self.lifetimes = duties.groups.iter().map(|group| group.lifetime.map(lifetime)).collect();
        if self.lifetimes.iter().any(Option::is_some) {
            self.renewer = Some(Lifetimes::start()?);
        }
        Ok(self)
    }

    /// Why no address can be announced, if so.
    pub(super) fn cannot_announce(&self) -> Option<String> {
        self.announcer.as_ref().err().map(ToString::to_string)
    }

    /// All addresses of the plan, ours or not.
    pub(super) fn all(&self) -> Vec<IpAddr> {
        self.plan.values().map(|address| address.ip).collect()
    }

    /// Puts an address on its interface and announces it. One that stands there already is announced all the same.
    /// `before` is done with the interface's number before the address is there; where it fails, nothing is put.
    pub(super) fn start(
        &mut self,
        id: ResourceId,
        network: &mut Network,
        now: u64,
        before: impl FnOnce(u32) -> Result<(), String>,
    ) -> Outcome {
        let Some(address) = self.plan.get(&id) else { return no_address() };
        let standing = standing(address, network).map(|there| there.interface);
        let interface = match standing {
            Some(interface) => match before(interface) {
                Ok(()) => interface,
                Err(why) => return Outcome::Failed(why),
            },
            None => match add(address, network, self.put.get(&id), self.lifetime(id), before) {
                Ok(new) => {
                    let interface = new.interface;
                    self.put.insert(id, new);
                    interface
                }
                Err(why) => return Outcome::Failed(why),
            },
        };
        self.hold(id, interface, Tie::Ours, network, now);
        Outcome::Ok
    }

    /// Takes an address off, wherever it may stand of those places where it would be ours. One that is not there is
    /// off already.
    pub(super) fn stop(&mut self, id: ResourceId, network: &mut Network) -> Outcome {
        let Some(address) = self.plan.get(&id) else { return no_address() };
        if self.renewer.as_ref().is_some_and(|renewer| renewer.is_renewing(id)) {
            // It is tried again. Had the kernel kept us waiting for this, no beat would have gone out meanwhile.
            return Outcome::Failed(format!("the lifetime of {} is being renewed", address.ip));
        }
        // Not held from now on: its going is no news, and nobody is told any more that it is here.
        let held = self.held.remove(&id);
        while let Some(there) = standing(address, network).cloned() {
            match network.netlink.delete_address(&there) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) => {
                    if let Some(held) = held {
                        self.held.insert(id, held);
                    }
                    return Outcome::Failed(format!("cannot remove {}: {error}", address.ip));
                }
            }
            if let Err(error) = network.refresh() {
                return Outcome::Failed(format!("the kernel does not tell its addresses: {error}"));
            }
        }
        self.put.remove(&id);
        Outcome::Ok
    }

    /// Whether an address of this group is held.
    pub(super) fn holds(&self, group: GroupIndex) -> bool {
        self.held.iter().any(|(id, held)| id.group == group && held.tie == Tie::Ours)
    }

    /// Announces all addresses of a group again that we hold: nobody heard them while they were silent.
    pub(super) fn announce_group(&mut self, group: GroupIndex, network: &Network, now: u64) {
        for (_, held) in self.held.iter_mut().filter(|(id, _)| id.group == group) {
            held.announcement = Some(Announcement { begun: now, step: 0 });
        }
        self.send_due(network, now);
    }

    /// Whether an address stands where it should. One that does is ours from now on; if it was not before, `first` is done
    /// with its interface's number.
    pub(super) fn status(
        &mut self,
        id: ResourceId,
        network: &Network,
        now: u64,
        first: impl FnOnce(u32),
    ) -> Outcome {
        let Some(address) = self.plan.get(&id) else { return no_address() };
        match standing(address, network).map(|there| there.interface) {
            None => Outcome::Stopped,
            Some(interface) => {
                if !self.held.contains_key(&id) {
                    first(interface);
                    self.hold(id, interface, Tie::Ours, network, now);
                }
                Outcome::Running
            }
        }
    }

    /// `SendArp`: speaks for an address that something else carries.
    pub(super) fn speak_for(&mut self, id: ResourceId, network: &Network, now: u64) -> Outcome {
        let Some(address) = self.plan.get(&id) else { return no_address() };
        let interface = match &address.interface {
            Some(name) => network.interface(name).map(|interface| interface.index),
            None => standing(address, network)
                .or_else(|| choose_interface(network.addresses(), address.ip))
                .map(|there| there.interface),
        };
        let Some(interface) = interface else {
            return Outcome::Failed(format!("no interface of this machine leads to {}", address.ip));
        };
        self.hold(id, interface, Tie::Spoken, network, now);
        Outcome::Ok
    }

    /// The end of [`Self::speak_for`].
    pub(super) fn be_silent(&mut self, id: ResourceId) -> Outcome {
        self.held.remove(&id);
        Outcome::Ok
    }

    /// Whether [`Self::speak_for`] was called last.
    pub(super) fn speaks(&self, id: ResourceId) -> Outcome {
        if self.held.contains_key(&id) { Outcome::Running } else { Outcome::Stopped }
    }

    /// Announces again, if it stands somewhere here. Works for addresses that a script put there, too.
    pub(super) fn announce(&mut self, id: ResourceId, network: &Network, now: u64) {
        if let Some(held) = self.held.get_mut(&id) {
            held.announcement = Some(Announcement { begun: now, step: 0 });
        } else if let Some(interface) =
            self.plan.get(&id).and_then(|a| standing(a, network)).map(|a| a.interface)
        {
            self.hold(id, interface, Tie::Scripts, network, now);
        }
        self.send_due(network, now);
    }

    fn hold(&mut self, id: ResourceId, interface: u32, tie: Tie, network: &Network, now: u64) {
        let Some(address) = self.plan.get(&id) else { return };
        let works = network.interface_by_index(interface).is_some_and(Interface::works);
        let announcement = Some(Announcement { begun: now, step: 0 });
        let renewal = self.lifetime(id).filter(|_| self.put.contains_key(&id));
        let renewal = renewal.map(|lifetime| now + third(lifetime));
        let ip = address.ip;
        self.held.insert(id, Held { ip, interface, tie, works, announcement, renewal, unrenewed: false });
        self.send_due(network, now);
    }

    fn lifetime(&self, id: ResourceId) -> Option<Lifetime> {
        self.lifetimes.get(id.group.0).copied().flatten()
    }

    /// Has the lifetimes renewed that are due, of groups that may answer. Returns what could not be renewed, once for as long
    /// as it lasts.
    pub(super) fn renew_lifetimes(
        &mut self,
        network: &Network,
        now: u64,
        may_answer: impl Fn(GroupIndex) -> bool,
    ) -> Vec<(GroupIndex, String)> {
        let mut faults = Vec::new();
        let Some(renewer) = &mut self.renewer else { return faults };
        while let Some((id, came)) = renewer.answer() {
            let Some(held) = self.held.get_mut(&id) else { continue };
            match came {
                Ok(()) => held.unrenewed = false,
                Err(error) => {
                    held.renewal = Some(now + RENEWAL_RETRY_NANOS);
                    let text = format!(
                        "the lifetime of {} cannot be renewed, and it goes when that is over: {error}",
                        held.ip
                    );
                    let is_news = !mem::replace(&mut held.unrenewed, true);
                    faults.extend(is_news.then_some((id.group, text)));
                }
            }
        }
        for (id, held) in &mut self.held {
            let is_due = held.renewal.is_some_and(|at| at <= now) && may_answer(id.group);
            if !is_due || renewer.is_renewing(*id) || !network.carries(held.interface, held.ip) {
                continue;
            }
            let lifetime = self.lifetimes.get(id.group.0).copied().flatten();
            let (Some(lifetime), Some(new)) = (lifetime, self.put.get(id)) else { continue };
            let next = now + third(lifetime);
            if renewer.renew(*id, new.clone(), lifetime, next) {
                held.renewal = Some(next);
            }
        }
        faults
    }

    /// The network has changed: addresses of ours that others took away (they are not ours any more until they are
    /// started again), and interfaces that work again, whose segment has to hear from us.
    pub(super) fn compare(&mut self, network: &Network, now: u64) -> Vec<ResourceId> {
        let gone = |held: &Held| held.tie != Tie::Spoken && !network.carries(held.interface, held.ip);
        let lost = self.held.extract_if(.., |_, held| gone(held));
        let lost = lost.filter(|(_, held)| held.tie == Tie::Ours).map(|(id, _)| id).collect();
        for held in self.held.values_mut() {
            let works = network.interface_by_index(held.interface).is_some_and(Interface::works);
            if works && !held.works {
                held.announcement = Some(Announcement { begun: now, step: 0 });
            }
            held.works = works;
        }
        self.send_due(network, now);
        lost
    }

    /// Where each address stands, or else would be put, as the interfaces are now.
    pub(super) fn places(&self, network: &Network) -> Vec<(GroupIndex, u32)> {
        let interface = |address: &Address| {
            let there = standing(address, network).map(|there| there.interface);
            there.or_else(|| place(address, network).ok().map(|place| place.interface.index))
        };
        self.plan.iter().filter_map(|(id, address)| Some((id.group, interface(address)?))).collect()
    }

    /// Of which addresses it has changed whether they would reach anybody: where they stand, or else would be put.
    pub(super) fn reach(&mut self, network: &Network) -> Vec<(ResourceId, Carrier)> {
        let trouble = |address: &Address| {
            let there = standing(address, network).map(|there| there.interface);
            let interface = match there.and_then(|there| network.interface_by_index(there)) {
                Some(interface) => interface.clone(),
                None => match place(address, network) {
                    Ok(place) => place.interface,
                    Err(why) => return Some(why),
                },
            };
            interface.trouble().map(|trouble| format!("{} {trouble}", interface.name))
        };
        let mut news = Vec::new();
        for (id, address) in &self.plan {
            let now = trouble(address);
            if now.as_ref() == self.cut.get(id) {
                continue;
            }
            match &now {
                Some(why) => drop(self.cut.insert(*id, why.clone())),
                None => drop(self.cut.remove(id)),
            }
            news.push((*id, now.map_or(Carrier::Up, Carrier::Down)));
        }
        news
    }

    /// When [`Self::send_due`] has something to send.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.held.values().filter_map(|held| held.announcement).map(Announcement::due).min()
    }

    /// Sends the announcements whose time has come.
    pub(super) fn send_due(&mut self, network: &Network, now: u64) {
        for held in self.held.values_mut() {
            while let Some(announcement) = held.announcement.filter(|announcement| announcement.due() <= now)
            {
                let form = if announcement.step % 2 == 0 { Form::Request } else { Form::Reply };
                if let (Ok(announcer), Some(interface)) =
                    (&self.announcer, network.interface_by_index(held.interface))
                    && interface.resolves
                    && !breakage::is(Breakage::NoAnnouncement)
                    && announcer.announce(interface, held.ip, form).is_err()
                {
                    self.failures += 1;
                }
                let step = announcement.step + 1;
                held.announcement =
                    (step < SCHEDULE_MS.len()).then_some(Announcement { step, ..announcement });
            }
        }
    }
}

/// So often within a lifetime it is renewed.
fn third(lifetime: Lifetime) -> u64 {
    u64::from(lifetime.valid) * 1_000_000_000 / 3
}

fn no_address() -> Outcome {
    Outcome::Failed("the plan knows no address of that number".to_string())
}

/// Where the address stands, of the places where it would be ours: on the interface that the plan names, or without a
/// name on any but the loopback (where real servers behind a balancer keep it).
pub(crate) fn places_of<'a>(
    address: &Address,
    interfaces: &[Interface],
    addresses: &'a [InterfaceAddress],
) -> impl Iterator<Item = &'a InterfaceAddress> {
    let would_be_ours = move |interface: &&Interface| match &address.interface {
        Some(name) => interface.name == *name,
        None => !interface.loopback,
    };
    addresses.iter().filter(move |there| there.ip == address.ip).filter(move |there| {
        let interface = interfaces.iter().find(|interface| interface.index == there.interface);
        interface.as_ref().is_some_and(would_be_ours)
    })
}

fn standing<'a>(address: &Address, network: &'a Network) -> Option<&'a InterfaceAddress> {
    places_of(address, network.interfaces(), network.addresses()).next()
}

/// Adds it, and says how. `last`: how it was put before somebody took it away; so it is put again where they took
/// the addresses of this machine as well, which would show the place.
fn add(
    address: &Address,
    network: &mut Network,
    last: Option<&NewAddress>,
    lifetime: Option<Lifetime>,
    before: impl FnOnce(u32) -> Result<(), String>,
) -> Result<NewAddress, String> {
    let is_up = |index| network.interface_by_index(index).is_some_and(|interface| interface.up);
    let new = match (place(address, network), last) {
        (Ok(place), _) => NewAddress {
            interface: place.interface.index,
            ip: address.ip,
            prefix: place.prefix,
            label: address.label.clone(),
            broadcast: place.broadcast,
            no_prefix_route: place.no_prefix_route,
        },
        (Err(_), Some(last)) if is_up(last.interface) => last.clone(),
        (Err(why), _) => return Err(why),
    };
    before(new.interface)?;
    let added = match lifetime {
        Some(lifetime) => network.netlink.add_address_for(&new, lifetime),
        None => network.netlink.add_address(&new),
    };
    match added {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            let interface = network.interface_by_index(new.interface).map_or("?", |it| it.name.as_str());
            return Err(format!("cannot add {} to {interface}: {error}", address.ip));
        }
    }
    network.refresh().map_err(|error| format!("the kernel does not tell its addresses: {error}"))?;
    Ok(new)
}

/// Answers what `haresources` left open: the interface is the one whose connected network contains the address,
/// longest prefix first; the mask is that network's; the broadcast address is the network's highest.
fn place(address: &Address, network: &Network) -> Result<Place, String> {
    let ip = address.ip;
    let (interface, connected) = match &address.interface {
        Some(name) => {
            let interface = network.interface(name).ok_or_else(|| format!("there is no interface {name}"))?;
            let own: Vec<_> =
                network.addresses().iter().filter(|a| a.interface == interface.index).cloned().collect();
            (interface, choose_interface(&own, ip).cloned())
        }
        None => {
            let connected = choose_interface(network.addresses(), ip).cloned();
            let index = connected.as_ref().map(|connected| connected.interface);
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
    // Within a wider network that the interface reaches anyway, a route to the narrower one would only make the
    // service address the source of this machine's own traffic. In the same network the kernel makes none, and
    // must be free to make it when our address outlives the first one.
    let no_prefix_route = connected.is_some_and(|connected| connected.prefix != prefix);
    Ok(Place { interface: interface.clone(), prefix, broadcast, no_prefix_route })
}

/// What to write in `haresources` instead.
fn cure(address: &Address, network: &Network) -> String {
    let bits = address.prefix.unwrap_or(if address.ip.is_ipv4() { 24 } else { 64 });
    let first = network.interfaces().iter().find(|interface| interface.up && !interface.loopback);
    let interface = address.interface.as_deref().or(first.map(|i| i.name.as_str())).unwrap_or("eth0");
    format!("write the mask and the interface, as in {}/{bits}/{interface}", address.ip)
}
