//! The gates of the groups that run here (`docs/gate.md`). A gate is made shut before a group's first address comes to
//! its interface, opened and shut as the core says, checked, and removed after the last address has gone. The packet
//! filter that all gates share is made ready before the first beat and removed after the last one, because putting it
//! on an interface takes long.
//!
//! A renewal by `bpf` is two stores for each gate. A renewal by `nft` is one request to the kernel and its answer for
//! all gates that the same beat renews, as a rule a fraction of a millisecond. While another process loads many rules
//! in the same network namespace it waits for them, and so does the heart. That is why `bpf` is preferred, and why a
//! pace should not be much shorter than such a wait where only `nft` works.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io, mem,
    net::IpAddr,
    os::fd::AsFd,
    time::Duration,
};

use clap::ValueEnum;
use locum_core::{
    model::{
        claim::GroupId,
        identity::{GroupIndex, MemberId},
        note::Level,
        time::Instant,
    },
    native::wire::announcement,
    r1::plan::R1Medium,
};
use locum_sys::{
    clock,
    gate::{
        self, Backend, Gate, GateName, GateSettings, PacketFilter, Pattern, Proof, Renewal, RenewalOutcome,
        RivalSettings, Subject, TableWatch,
    },
    netlink::interface_name,
};
use serde::{Deserialize, Serialize};

use super::{HeartOptions, network::Network};
use crate::host_config::{self, HostConfig, LinkInterface, LinkPath};

/// The time until which a group's addresses may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// The end of the lease.
    pub(super) until: Instant,
    /// When the beat was sent on which the lease rests.
    pub(super) sent: Instant,
}

/// How gates are to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GateChoice {
    /// The best backend that works here
    #[default]
    Auto,
    /// Programs on tcx of each interface
    Bpf,
    /// Rules in a table of nf_tables
    Nft,
    /// No gates at all
    None,
}

impl GateChoice {
    fn backend(self, probe: &gate::GateProbe) -> Result<Backend, String> {
        let asked = |why: &String| format!("no gate is possible with the chosen backend: {why}");
        match self {
            Self::Auto => probe.choose(),
            Self::Bpf => probe.bpf.as_ref().map(|bpffs| Backend::Bpf { bpffs: bpffs.clone() }).map_err(asked),
            Self::Nft => probe.nft.as_ref().map(|()| Backend::Nft).map_err(asked),
            Self::None => Err("gates are switched off".into()),
        }
    }

    /// The backend of the ARP filter: rules if they work here, unless programs were asked for.
    fn filter(self, probe: &gate::GateProbe) -> Result<Backend, String> {
        match self {
            Self::Auto => gate::arp_filter::choose_backend(probe.bpf.clone()),
            Self::Bpf | Self::None => self.backend(probe),
            Self::Nft => gate::arp_filter::probe_rules().map(|()| Backend::Nft),
        }
    }
}

/// The state of the heart's gates, for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateStats {
    /// The backend in use: `bpf` or `nft`; absent where no gate is possible, or none is wanted.
    pub backend: Option<String>,
    /// Why `bpf` is not used; absent when it is.
    pub bpf_missing: Option<String>,
    /// Why `nft` could not be used; absent when it could.
    pub nft_missing: Option<String>,
    /// How often the kernel was told of leases: once for all groups that one beat renews.
    pub renewals: u64,
    /// The groups that want a gate and have none, because no backend works.
    pub without: Vec<String>,
    /// The gates that exist, and those that should and cannot.
    pub gates: Vec<GateState>,
    /// How many announcements of claims were dropped because they prove nothing: their sender has not the cluster's
    /// key, or is a Locum that makes no proofs yet.
    #[serde(default)]
    pub refused: u64,
    /// Seconds since that number last grew; absent if it has not.
    #[serde(default)]
    pub refused_ago: Option<u64>,
    /// The interfaces on which another program came before ours.
    #[serde(default)]
    pub overtaken: Vec<OvertakenState>,
}

/// An interface on which another program came before the gates' own, and would have answered in their place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OvertakenState {
    pub interface: String,
    /// The name of the program that came last.
    pub by: String,
    /// How often our program was put in front again.
    pub times: u64,
    /// It happens again and again: groups whose addresses are there move to a node without that trouble, if there is
    /// one.
    pub lasts: bool,
}

/// The state of one gate, for the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateState {
    pub group: String,
    /// How much longer it is open, in milliseconds; absent when it is shut.
    pub open_ms: Option<u64>,
    /// How often it was put back after another process removed it, or a part of it.
    pub restored: u64,
    /// Why the last renewal or repair failed; absent when it succeeded.
    pub fault: Option<String>,
}

/// The result of something that was done to gates.
#[derive(Debug, Default)]
pub(super) struct GateOutcome {
    /// Lines for the log.
    pub(super) notes: Vec<(Level, Option<GroupIndex>, String)>,
    /// The groups whose gate was shut and is open: their segments have to hear of their addresses.
    pub(super) opened: Vec<GroupIndex>,
    /// The interfaces on which gates can be relied on have changed: [`Gates::trouble`].
    pub(super) overtaking: bool,
}

impl GateOutcome {
    /// Adds the results of another step.
    pub(super) fn add(&mut self, more: Self) {
        self.notes.extend(more.notes);
        self.opened.extend(more.opened);
        self.overtaking |= more.overtaking;
    }
}

/// If it happens this often within [`OVERTAKEN_NANOS`], it is taken to go on until it has not happened for as long.
const OVERTAKEN_TIMES: usize = 3;
const OVERTAKEN_NANOS: u64 = 60_000_000_000;
/// At most this many places of interfaces are compared with what should be there in one look: each costs a dozen system
/// calls, and each interface has two or three. The others follow with the next looks, one second apart.
const PLACES_A_LOOK: usize = 64;
/// While it goes on, our program is put in front at most this often: each time costs the heart 10 to 20 ms.
const OVERTAKEN_PAUSE_NANOS: u64 = 5_000_000_000;

/// The history of an interface on which another program comes before ours.
#[derive(Debug, Default)]
struct Overtaking {
    by: String,
    times: u64,
    /// The last times at which it happened, the newest last; no more than count.
    recent: VecDeque<u64>,
    /// It was reported that it goes on.
    lasts: bool,
}

impl Overtaking {
    fn note(&mut self, now: u64, by: String) {
        self.by = by;
        self.times += 1;
        self.recent.push_back(now);
        while self.recent.len() > OVERTAKEN_TIMES {
            self.recent.pop_front();
        }
    }

    fn state(&self, interface: u32) -> OvertakenState {
        let Self { by, times, lasts, .. } = self;
        OvertakenState { interface: name_of(interface), by: by.clone(), times: *times, lasts: *lasts }
    }

    fn goes_on(&self, now: u64) -> bool {
        let Some(last) = self.recent.back() else { return false };
        let often = self.recent.len() == OVERTAKEN_TIMES && last - self.recent[0] <= OVERTAKEN_NANOS;
        (often || self.lasts) && last + OVERTAKEN_NANOS > now
    }
}

/// Notes when the number of announcements that prove nothing grew.
#[derive(Debug, Default)]
struct Refusals {
    /// The last count; `None` before the first one.
    count: Option<u64>,
    grew: Option<u64>,
}

impl Refusals {
    fn note(&mut self, now: u64, count: u64) {
        // The counts of an earlier daemon are not reported.
        if self.count.is_some_and(|before| count > before) {
            self.grew = Some(now);
        }
        self.count = Some(count);
    }

    fn ago(&self, now: u64) -> Option<u64> {
        self.grew.map(|at| Duration::from_nanos(now.saturating_sub(at)).as_secs())
    }
}

/// All gates of this heart.
pub(super) struct Gates {
    backend: Result<Backend, String>,
    /// The backend of the ARP filter.
    filter: Result<Backend, String>,
    missing: (Option<String>, Option<String>),
    watch: Option<TableWatch>,
    eras: ClockEras,
    cluster: String,
    /// The packet filter of all groups, once it was made ready.
    packet_filter: Option<PacketFilter>,
    groups: Vec<GatedGroup>,
    renewals: u64,
    refusals: Refusals,
    /// The gate that is checked next.
    next_look: usize,
    /// The interfaces on which another program comes before ours, by number.
    overtaken: BTreeMap<u32, Overtaking>,
    /// The earliest time of the next such check (monotonic clock).
    front_at: u64,
    /// Why our program could not be put in front last time.
    front_fault: Option<String>,
    /// Why the packet filter could not be put back last time.
    packet_filter_fault: Option<String>,
}

/// The places in a packet where the claim listeners find the parts of an announced claim.
const PATTERN: Pattern =
    Pattern { head: announcement::HEAD, subject: announcement::SUBJECT, proof: announcement::PROOF };

struct GatedGroup {
    key: String,
    need: host_config::GatePolicy,
    name: GateName,
    addresses: Vec<IpAddr>,
    lease: Option<Lease>,
    /// An announced claim that carries one of these shuts the gate.
    proofs: Vec<Proof>,
    gate: Option<Gate>,
    /// The deadline that the kernel was last told (boot-time clock).
    deadline: u64,
    /// A rival was heard, and that was reported.
    contested: bool,
    restored: u64,
    fault: Option<String>,
}

impl Gates {
    /// Finds out what the kernel can do, if any group wants a gate. Blocks for a moment: call it before the heart runs.
    pub(super) fn new(host_config: &HostConfig, options: &HeartOptions) -> Self {
        // An address that a script puts would need a gate that the script opens.
        let without = options.gates == GateChoice::None || options.prefer_scripts;
        let group = |group: &host_config::HostGroup| GatedGroup {
            key: group.key.clone(),
            need: if without { host_config::GatePolicy::None } else { group.gate },
            name: GateName::new(&host_config.cluster, &group.key),
            addresses: group.addresses().collect(),
            lease: None,
            proofs: Vec::new(),
            gate: None,
            deadline: 0,
            contested: false,
            restored: 0,
            fault: None,
        };
        let groups: Vec<GatedGroup> = host_config.groups.iter().map(group).collect();
        let is_wanted = groups.iter().any(GatedGroup::wants_gate);
        let (backend, filter, missing) = if is_wanted {
            let probe = gate::probe();
            let filter = options.gates.filter(&probe);
            (options.gates.backend(&probe), filter, (probe.bpf.err(), probe.nft.err()))
        } else {
            let unwanted = || Err("no group needs a gate".into());
            (unwanted(), unwanted(), (None, None))
        };
        let is_nft = matches!(backend, Ok(Backend::Nft));
        let watch = is_nft.then(|| TableWatch::open().ok()).flatten();
        Self {
            backend,
            filter,
            missing,
            watch,
            eras: ClockEras::new(),
            cluster: host_config.cluster.clone(),
            packet_filter: None,
            groups,
            renewals: 0,
            refusals: Refusals::default(),
            next_look: 0,
            overtaken: BTreeMap::new(),
            front_at: 0,
            front_fault: None,
            packet_filter_fault: None,
        }
    }

    /// Puts the packet filter where the addresses of the groups would be put, and lets it listen where rivals announce their
    /// claims. Blocks for long, so it is called before the heart runs. What cannot be done is returned, and tried
    /// again when it is wanted.
    pub(super) fn make_ready(
        &mut self,
        places: &[(GroupIndex, u32)],
        listeners: Option<&ClaimListeners>,
    ) -> Vec<String> {
        let wants = |group: &GroupIndex| self.groups.get(group.0).is_some_and(GatedGroup::wants_gate);
        let places: BTreeSet<u32> =
            places.iter().filter(|(group, _)| wants(group)).map(|(_, interface)| *interface).collect();
        if self.backend.is_err() || !self.groups.iter().any(GatedGroup::wants_gate) {
            return Vec::new();
        }
        let filter = match self.packet_filter() {
            Ok(filter) => filter,
            Err(error) => return vec![format!("gates: cannot be made: {error}")],
        };
        let is_owned = filter.is_owned();
        let covered = places.iter().map(|interface| filter.cover(*interface));
        let heard = listeners
            .into_iter()
            .flat_map(|listeners| listeners.interfaces.iter().map(|index| (*index, listeners.port)));
        let heard = heard.map(|(interface, port)| filter.listen(interface, port));
        let faults = covered.chain(heard).filter_map(Result::err);
        let faults = faults.map(|error| format!("gates: not ready: {error}")).collect();
        if is_owned {
            // No other process can delete anything, and the watch would only report our own changes.
            self.watch = None;
        }
        faults
    }

    fn packet_filter(&mut self) -> io::Result<&PacketFilter> {
        let filter = match (self.packet_filter.take(), &self.backend) {
            (Some(filter), _) => filter,
            (None, Ok(backend)) => PacketFilter::open(backend, &self.cluster, PATTERN)?,
            (None, Err(why)) => return Err(io::Error::other(why.clone())),
        };
        Ok(self.packet_filter.insert(filter))
    }

    /// Removes the packet filter, unless a gate exists: that one keeps its addresses silent for the next daemon.
    pub(super) fn leave(&mut self) {
        if self.groups.iter().all(|group| group.gate.is_none())
            && let Some(filter) = self.packet_filter.take()
        {
            // A packet filter without gates stops nothing. A later start finds it, and `locum gate --remove` removes
            // it.
            let _ = filter.remove();
        }
    }

    /// Whether a gate is left, which keeps its addresses silent for the next daemon.
    pub(super) fn are_left(&self) -> bool {
        self.groups.iter().any(|group| group.gate.is_some())
    }

    /// The backend of the ARP filter, or why there is none.
    pub(super) fn filter(&self) -> &Result<Backend, String> {
        &self.filter
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Whether the group's addresses stand behind a gate where one is possible.
    pub(super) fn wants(&self, group: GroupIndex) -> bool {
        self.groups.get(group.0).is_some_and(GatedGroup::wants_gate)
    }

    /// Becomes readable when another process deletes rules.
    pub(super) fn source(&self) -> Option<impl AsFd + '_> {
        self.watch.as_ref()
    }

    /// The line about gates for the start of the log.
    pub(super) fn verdict(&self) -> Option<(Level, String)> {
        if !self.groups.iter().any(GatedGroup::wants_gate) {
            return None;
        }
        let is_required = self.groups.iter().any(|group| group.need == host_config::GatePolicy::Required);
        Some(match &self.backend {
            Ok(backend) => (Level::Info, format!("gates: made by {backend}")),
            Err(why) if is_required => (
                Level::Error,
                format!(
                    "{why}: addresses of groups with guard lease are not started here; those of other groups go on \
                     answering while this daemon is dead or frozen"
                ),
            ),
            Err(why) => (
                Level::Warning,
                format!("{why}: addresses go on answering while this daemon is dead or frozen"),
            ),
        })
    }

    /// Sets the leases of these groups; `None` shuts the gate. All at once costs little more than one.
    pub(super) fn set(&mut self, leases: &[(GroupIndex, Option<Lease>)]) -> GateOutcome {
        let mut outcome = GateOutcome::default();
        self.eras.look();
        let mut groups = Vec::with_capacity(leases.len());
        for (group, lease) in leases {
            if let Some(entry) = self.groups.get_mut(group.0) {
                entry.lease = *lease;
                groups.push(group.0);
            }
        }
        self.renew(groups, &mut outcome);
        outcome
    }

    /// Tells the kernel what the leases of these groups are.
    fn renew(&mut self, mut groups: Vec<usize>, told: &mut GateOutcome) {
        groups.sort_unstable();
        groups.dedup();
        let Self { packet_filter: filter, groups: entries, eras, renewals, .. } = self;
        groups.retain(|group| entries[*group].gate.is_some());
        let Some(filter) = filter else { return };
        if groups.is_empty() {
            return;
        }
        *renewals += 1;
        let now = clock::boot_nanos();
        let was_open: Vec<bool> = groups.iter().map(|group| entries[*group].is_open(now)).collect();
        let orders = || {
            let order = |group: &usize| {
                let entry = &entries[*group];
                Some((entry.gate.as_ref()?, entry.renewal(eras)))
            };
            groups.iter().filter_map(order)
        };
        let mut done = filter.renew(orders());
        if let Err(error) = &done {
            // With `nft` the table is gone. It is put back at once, or when the watch tells of it.
            let error = error.to_string();
            match filter.restore() {
                Ok(()) => {
                    told.notes.push((
                        Level::Warning,
                        None,
                        format!("gates: another program removed them ({error}): put back"),
                    ));
                    done = filter.renew(orders());
                    groups.iter().for_each(|group| entries[*group].restored += 1);
                }
                Err(again) => done = Err(io::Error::other(format!("{error}; {again}"))),
            }
        }
        let leases: Vec<_> = groups.iter().map(|group| entries[*group].renewal(eras)).collect();
        match done {
            Ok(outcomes) => {
                for (index, outcome) in outcomes.into_iter().enumerate() {
                    let entry = &mut entries[groups[index]];
                    let deadline = leases[index].map_or(0, |renewal| renewal.deadline);
                    entry.heed(GroupIndex(groups[index]), deadline, outcome, was_open[index], told);
                }
            }
            Err(error) => {
                let why = format!("its gate cannot be renewed: {error}");
                for group in groups {
                    entries[group].deadline = 0;
                    entries[group].fail(GroupIndex(group), &why, told);
                }
            }
        }
    }

    /// Whether the group's addresses may answer now.
    pub(super) fn lease_runs(&self, group: GroupIndex, now: u64) -> bool {
        let lease = self.groups.get(group.0).and_then(|entry| entry.lease);
        lease.is_some_and(|lease| lease.until.as_nanos() > now)
    }

    /// The same; a group without a gate and without a lease may always answer.
    pub(super) fn may_answer(&self, group: GroupIndex, now: u64) -> bool {
        let Some(entry) = self.groups.get(group.0) else { return false };
        entry.lease.map_or(!entry.wants_gate(), |lease| lease.until.as_nanos() > now)
    }

    /// Whether the group has a gate, on this node and so on others. Without one nobody listens to announcements of its claims.
    pub(super) fn has_gate(&self, group: GroupIndex) -> bool {
        self.groups.get(group.0).is_some_and(GatedGroup::wants_gate)
    }

    /// Sets which announced claims shut the gates of these groups from now on.
    pub(super) fn expect(&mut self, proofs: Vec<(GroupIndex, Vec<Proof>)>) -> GateOutcome {
        let mut told = GateOutcome::default();
        // For each group the last entry counts.
        let mut news: BTreeMap<usize, Vec<Proof>> = BTreeMap::new();
        for (group, proofs) in proofs {
            if self.groups.get(group.0).is_some_and(GatedGroup::wants_gate) {
                news.insert(group.0, proofs);
            }
        }
        let Self { packet_filter: filter, groups, .. } = self;
        for (group, proofs) in &news {
            groups[*group].proofs.clone_from(proofs);
        }
        let Some(filter) = filter else { return told };
        // Steps from one group to the next without a look at those in between: a batch is often of one group.
        let (mut rest, mut first) = (&mut groups[..], 0);
        let gates = news.iter().filter_map(|(index, proofs)| {
            let (entry, behind) = mem::take(&mut rest).get_mut(index - first..)?.split_first_mut()?;
            (rest, first) = (behind, index + 1);
            Some((entry.gate.as_mut()?, proofs.clone()))
        });
        if let Err(error) = filter.set_proofs(gates) {
            let why = format!("its gate cannot verify the claims of rivals: {error}");
            for group in news.into_keys() {
                if groups[group].gate.is_some() {
                    groups[group].fail(GroupIndex(group), &why, &mut told);
                }
            }
        }
        told
    }

    /// Puts the group's gate on this interface before an address of it comes there. With `answers`, an earlier daemon
    /// left the address there and it is still ours: then the gate is put around it. The gate is open if its lease runs.
    pub(super) fn prepare(
        &mut self,
        group: GroupIndex,
        interface: u32,
        listeners: Option<&ClaimListeners>,
        answers: bool,
    ) -> Result<GateOutcome, String> {
        let mut told = GateOutcome::default();
        self.eras.look();
        let Some(need) = self.groups.get(group.0).filter(|entry| entry.wants_gate()).map(|entry| entry.need)
        else {
            return Ok(told);
        };
        let stands = match &self.backend {
            Ok(_) => {
                self.packet_filter().map(drop).map_err(|error| format!("no gate is possible now: {error}"))
            }
            Err(why) if need == host_config::GatePolicy::Required => Err(format!(
                "{why}; `locum gate` shows what is missing; a group with guard none runs without a gate"
            )),
            Err(_) => return Ok(told),
        };
        let Self { packet_filter: filter, groups, cluster, .. } = self;
        let entry = &mut groups[group.0];
        let stands = stands.and_then(|()| match filter {
            Some(filter) => entry
                .stand(filter, cluster, interface, listeners, answers)
                .map_err(|error| format!("no gate on its interface: {error}")),
            None => Ok(()),
        });
        match (stands, entry.need) {
            (Ok(()), _) => self.renew(vec![group.0], &mut told),
            (Err(why), host_config::GatePolicy::Required) => return Err(why),
            (Err(why), _) => entry.fail(group, &why, &mut told),
        }
        // The address is announced when it stands.
        told.opened.clear();
        Ok(told)
    }

    /// Whether [`Self::prepare`] would make the group's gate.
    pub(super) fn is_to_be_made(&self, group: GroupIndex) -> bool {
        self.groups.get(group.0).is_some_and(|entry| entry.wants_gate() && entry.gate.is_none())
    }

    /// Removes the group's gate, because its last address has gone.
    pub(super) fn remove(&mut self, group: GroupIndex) -> GateOutcome {
        let mut told = GateOutcome::default();
        let Some(entry) = self.groups.get_mut(group.0) else { return told };
        entry.fault = None;
        let Some(gate) = entry.gate.take() else { return told };
        if let Err(error) = gate.remove() {
            let text = format!(
                "its gate cannot be removed, and stays shut: {error}; after `locum stop` try `locum gate --remove`"
            );
            told.notes.push((Level::Error, Some(group), text));
        }
        told
    }

    /// Another process deleted rules: checks whether the gates still exist.
    pub(super) fn heed_watch(&mut self) -> GateOutcome {
        let Some(watch) = &mut self.watch else { return GateOutcome::default() };
        match watch.read() {
            Ok(Some(names)) if names.is_empty() => GateOutcome::default(),
            // If all are gone, all are checked.
            _ => self.look_after(1),
        }
    }

    /// Compares some gates with the kernel's state, others each time, and puts back what another process removed.
    pub(super) fn look_after(&mut self, most: usize) -> GateOutcome {
        let mut told = GateOutcome::default();
        self.eras.look();
        self.stay_in_front(&mut told);
        let is_restored = self.check_packet_filter(&mut told);
        if let Some(Ok(count)) = self.packet_filter.as_ref().map(PacketFilter::refused) {
            self.refusals.note(clock::monotonic_nanos(), count);
        }
        let most = if is_restored { usize::MAX } else { most };
        let (begin, count) = (self.next_look, self.groups.len());
        let (mut looked, mut step, mut restored) = (0, 0, Vec::new());
        while step < count && looked < most {
            let index = (begin + step) % count;
            step += 1;
            self.next_look = (index + 1) % count;
            let entry = &mut self.groups[index];
            let group = GroupIndex(index);
            let Some(gate) = &mut entry.gate else { continue };
            looked += 1;
            if is_restored {
                // It may have been made anew, shut.
                restored.push(index);
            }
            let missing = match gate.missing() {
                Ok(missing) if missing.is_empty() => continue,
                Ok(missing) => missing.join(", "),
                Err(error) => error.to_string(),
            };
            match gate.restore() {
                Ok(()) => {
                    entry.restored += 1;
                    let text = format!("its gate: another program removed a part of it: put back: {missing}");
                    told.notes.push((Level::Warning, Some(group), text));
                    restored.push(index);
                }
                Err(error) => {
                    entry.fail(group, &format!("its gate is not complete ({missing}): {error}"), &mut told);
                }
            }
        }
        self.renew(restored, &mut told);
        told
    }

    /// Puts our programs in front of those of others, which would answer in the gates' place. Checks one place in a
    /// look.
    fn stay_in_front(&mut self, outcome: &mut GateOutcome) {
        let now = clock::monotonic_nanos();
        let Some(filter) = self.packet_filter.as_ref().filter(|_| now >= self.front_at) else { return };
        match filter.stay_in_front(PLACES_A_LOOK) {
            Ok(None) => {}
            Ok(Some(gate::Overtaken { interface, by })) => {
                let known = self.overtaken.entry(interface).or_default();
                if known.times == 0 || known.by != by {
                    let text = format!(
                        "{}: another program, {by}, went in front of the gates' programs and would have let every \
                         packet pass: they are in front again",
                        name_of(interface)
                    );
                    outcome.notes.push((Level::Warning, None, text));
                }
                known.note(now, by);
            }
            Err(error) => {
                // Its own look reports it if it lasts: an interface that is going is not a fault.
                let text = format!("gates: another program stays in front of their programs: {error}");
                if self.front_fault.as_ref() != Some(&text) {
                    outcome.notes.push((Level::Error, None, text.clone()));
                }
                self.front_fault = Some(text);
                self.front_at = now + OVERTAKEN_PAUSE_NANOS;
                return;
            }
        }
        self.front_fault = None;
        for (interface, known) in &mut self.overtaken {
            let goes_on = known.goes_on(now);
            if goes_on == known.lasts {
                continue;
            }
            known.lasts = goes_on;
            outcome.overtaking = true;
            let name = name_of(*interface);
            outcome.notes.push(if goes_on {
                let text = format!(
                    "{name}: {} goes in front of the gates' programs again and again: until that ends no gate there \
                     can be relied on; move groups with addresses there to another node",
                    known.by
                );
                (Level::Error, None, text)
            } else {
                (Level::Info, None, format!("{name}: no other program goes in front of the gates' programs any more"))
            });
        }
        if self.overtaken.values().any(|known| known.lasts) {
            self.front_at = now + OVERTAKEN_PAUSE_NANOS;
        }
    }

    /// Why no gate on that interface can be relied on, if so.
    pub(super) fn trouble(&self, interface: u32) -> Option<String> {
        let known = self.overtaken.get(&interface).filter(|known| known.lasts)?;
        Some(format!("{} goes in front of the gates' programs again and again", known.by))
    }

    /// Checks the packet filter. Returns whether it was put back: then gates may have gone with it.
    fn check_packet_filter(&mut self, outcome: &mut GateOutcome) -> bool {
        let Self { packet_filter: Some(filter), packet_filter_fault: judge_fault, .. } = self else {
            return false;
        };
        let missing = match filter.missing_of(PLACES_A_LOOK) {
            Ok(missing) if missing.is_empty() => {
                *judge_fault = None;
                return false;
            }
            Ok(missing) => missing.join(", "),
            // Rules change all the time, so nothing is known of it. It is checked again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return false,
            Err(error) => error.to_string(),
        };
        match filter.restore() {
            Ok(()) => {
                *judge_fault = None;
                let text = format!("gates: another program removed a part of all gates: put back: {missing}");
                outcome.notes.push((Level::Warning, None, text));
                true
            }
            Err(error) => {
                // Reported once while it lasts, whatever else is missing meanwhile.
                let text = error.to_string();
                if judge_fault.as_ref() != Some(&text) {
                    outcome.notes.push((
                        Level::Error,
                        None,
                        format!(
                            "gates: all of them are incomplete ({missing}): \
                                                                     {text}"
                        ),
                    ));
                }
                *judge_fault = Some(text);
                false
            }
        }
    }

    pub(super) fn stats(&self) -> GateStats {
        let now = clock::boot_nanos();
        let state = |entry: &GatedGroup| {
            let is_shown = entry.gate.is_some() || entry.fault.is_some();
            is_shown.then(|| GateState {
                group: entry.key.clone(),
                open_ms: entry
                    .deadline
                    .checked_sub(now)
                    .filter(|_| entry.is_open(now))
                    .map(|left| left / 1_000_000),
                restored: entry.restored,
                fault: entry.fault.clone(),
            })
        };
        let is_wanted = self.groups.iter().any(GatedGroup::wants_gate);
        let without = match &self.backend {
            Err(_) if is_wanted => {
                self.groups.iter().filter(|entry| entry.wants_gate()).map(|entry| entry.key.clone()).collect()
            }
            _ => Vec::new(),
        };
        GateStats {
            backend: self.backend.as_ref().ok().map(ToString::to_string),
            bpf_missing: self.missing.0.clone(),
            nft_missing: self.missing.1.clone(),
            renewals: self.renewals,
            without,
            gates: self.groups.iter().filter_map(state).collect(),
            refused: self.packet_filter.as_ref().map_or(0, |filter| filter.refused().unwrap_or(0)),
            refused_ago: self.refusals.ago(clock::monotonic_nanos()),
            overtaken: self.overtaken.iter().map(|(interface, known)| known.state(*interface)).collect(),
        }
    }
}

impl GatedGroup {
    fn wants_gate(&self) -> bool {
        self.need != host_config::GatePolicy::None && !self.addresses.is_empty()
    }

    /// Puts the gate on one more interface.
    fn stand(
        &mut self,
        packet_filter: &PacketFilter,
        cluster: &str,
        interface: u32,
        listeners: Option<&ClaimListeners>,
        answers: bool,
    ) -> io::Result<()> {
        match &mut self.gate {
            Some(gate) if gate.settings().interfaces.contains(&interface) => return Ok(()),
            Some(gate) => return gate.add_interface(interface),
            None => {}
        }
        let settings = GateSettings {
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            interfaces: vec![interface],
            rivals: listeners.and_then(|listeners| listeners.rivals(cluster, &self.key)),
            proofs: self.proofs.clone(),
        };
        // The gate of an earlier daemon goes on without a packet lost.
        let found = if answers { packet_filter.adopt(settings.clone())? } else { None };
        let gate = found.map_or_else(|| packet_filter.install(settings), Ok)?;
        self.gate = Some(gate);
        (self.deadline, self.fault, self.contested) = (0, None, false);
        Ok(())
    }

    /// The renewal of the lease for the kernel.
    fn renewal(&self, eras: &ClockEras) -> Option<Renewal> {
        let Lease { until, sent } = self.lease?;
        let shift = eras.shift_at(sent.as_nanos());
        let (deadline, sent) =
            (until.as_nanos().saturating_add(shift), sent.as_nanos().saturating_add(shift));
        Some(Renewal { deadline, sent })
    }

    fn is_open(&self, now: u64) -> bool {
        self.gate.is_some() && self.deadline > now && !self.contested
    }

    /// Notes the result of a renewal, or of the lease's end.
    fn heed(
        &mut self,
        group: GroupIndex,
        deadline: u64,
        renewed: Option<RenewalOutcome>,
        was_open: bool,
        outcome: &mut GateOutcome,
    ) {
        (self.deadline, self.fault) = (deadline, None);
        let contested = matches!(renewed, Some(RenewalOutcome::Shut { .. }));
        if contested && !self.contested {
            let text = "another node has announced that it owns the group: the gate is shut until a new beat renews \
                        its lease";
            outcome.notes.push((Level::Warning, Some(group), text.into()));
        }
        self.contested = contested;
        if !was_open && self.is_open(clock::boot_nanos()) {
            outcome.opened.push(group);
        }
    }

    /// Reports a fault once, until it works again.
    fn fail(&mut self, group: GroupIndex, why: &str, outcome: &mut GateOutcome) {
        if self.fault.is_none() {
            outcome.notes.push((Level::Error, Some(group), why.to_owned()));
        }
        self.fault = Some(why.to_owned());
    }
}

/// Where announcements of other nodes' claims come in: over the unicast links, whose senders the file names. On other links
/// nobody is named who could be believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClaimListeners {
    interfaces: Vec<u32>,
    peers: Vec<IpAddr>,
    port: u16,
    /// The member that this node is.
    member: MemberId,
}

impl ClaimListeners {
    /// The claim listeners on the interfaces as they are now. One listener hears one port: that of the first link.
    pub(super) fn of(host_config: &HostConfig, network: &Network) -> Self {
        let (interfaces, peers, port) = (Vec::new(), Vec::new(), 0);
        let mut listeners = Self { interfaces, peers, port, member: MemberId::of(&host_config.me) };
        for link in &host_config.links {
            let LinkPath::Interface(place, media, _) = &link.path else { continue };
            let interface = match place {
                LinkInterface::Named(name) => network.interface(name).map(|interface| interface.index),
                LinkInterface::Carrying(ip) => {
                    let there = network.carrying(*ip).next();
                    there.map(|address| address.interface)
                }
            };
            let Some(interface) = interface else { continue };
            for medium in media {
                let R1Medium::Unicast { peer, port, .. } = medium else { continue };
                if listeners.port == 0 {
                    listeners.port = *port;
                }
                if listeners.port == *port {
                    listeners.peers.push(*peer);
                    listeners.interfaces.push(interface);
                }
            }
        }
        listeners.interfaces.sort_unstable();
        listeners.interfaces.dedup();
        listeners.peers.sort_unstable();
        listeners.peers.dedup();
        listeners
    }

    fn rivals(&self, cluster: &str, group: &str) -> Option<RivalSettings> {
        let Self { interfaces, peers, port, member } = self;
        let (interfaces, peers) = (interfaces.clone(), peers.clone());
        let subject = Subject(announcement::subject(cluster, GroupId::of(group), *member));
        let rivals = RivalSettings { interfaces, peers, port: *port, subject };
        (!rivals.peers.is_empty()).then_some(rivals)
    }
}

fn name_of(interface: u32) -> String {
    interface_name(interface).unwrap_or_else(|_| format!("interface {interface}"))
}

/// How far the boot-time clock, which holds gates' deadlines, is ahead of the monotonic clock, which the core uses. The
/// difference grows while the machine is suspended, and a lease that began before a suspension has run on meanwhile.
struct ClockEras {
    /// The moment of the monotonic clock from which each difference holds; oldest first.
    eras: Vec<(u64, u64)>,
}

/// Two readings in a row differ by less, unless the machine was suspended.
const SUSPENDED_NANOS: u64 = 1_000_000;
/// How many suspensions are remembered: no lease rests on an older beat.
const ERAS_MAX: usize = 16;

impl ClockEras {
    fn new() -> Self {
        let mut eras = Self { eras: Vec::new() };
        eras.look();
        eras
    }

    fn look(&mut self) {
        // The boot time is read first: if it is interrupted in between, the deadline is too early, never too late.
        let boot = clock::boot_nanos();
        let now = clock::monotonic_nanos();
        self.note(now, boot.saturating_sub(now));
    }

    fn note(&mut self, now: u64, shift: u64) {
        if self.eras.last().is_none_or(|(_, last)| shift > last + SUSPENDED_NANOS) {
            self.eras.push((now, shift));
            if self.eras.len() > ERAS_MAX {
                self.eras.remove(0);
            }
        }
    }

    /// The difference that held at this moment of the monotonic clock.
    fn shift_at(&self, moment: u64) -> u64 {
        let era = self.eras.iter().rev().find(|(from, _)| *from <= moment).or(self.eras.first());
        era.map_or(0, |(_, shift)| *shift)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process::Command, thread};

    use locum_sys::{
        mount,
        namespace::{self, NewNamespaces},
    };

    use super::*;

    #[test]
    fn announcements_that_prove_nothing_are_reported_while_there_are_more() {
        let second = |seconds: u64| seconds * 1_000_000_000;
        let mut refusals = Refusals::default();
        refusals.note(second(10), 7);
        assert_eq!(refusals.ago(second(10)), None, "an earlier life counted them");
        // New rules count from zero.
        [(11, 0), (12, 3), (13, 3)].into_iter().for_each(|(at, count)| refusals.note(second(at), count));
        assert_eq!(refusals.ago(second(40)), Some(28));
    }

    #[test]
    fn what_comes_before_ours_again_and_again_is_trouble_until_it_has_ended() {
        let second = |seconds: u64| seconds * 1_000_000_000;
        let mut known = Overtaking::default();
        let mut note = |now| {
            known.note(now, "somebody".into());
            known.lasts = known.goes_on(now);
            known.lasts
        };
        // Once an hour, as when containers start, does not count.
        assert!(![0, 3600, 7200, 10_800].map(|at| note(second(at))).contains(&true));
        assert_eq!([10_810, 10_820].map(|at| note(second(at))), [false, true]);
        assert!(note(second(10_875)), "less often, and not over");
        assert!(known.goes_on(second(10_934)) && !known.goes_on(second(10_935)));
        assert_eq!((known.times, known.recent.len()), (7, OVERTAKEN_TIMES));
    }

    #[test]
    fn a_lease_runs_on_while_the_machine_is_suspended() {
        let mut eras = ClockEras { eras: Vec::new() };
        eras.note(1_000_000_000, 5_000_000_000);
        eras.note(2_000_000_000, 4_999_999_000);
        eras.note(3_000_000_000, 5_000_000_900);
        assert_eq!(eras.eras.len(), 1, "readings that were interrupted are no suspension");
        // The machine slept for an hour.
        eras.note(4_000_000_000, 3_605_000_000_000);
        assert_eq!(eras.shift_at(3_999_999_999), 5_000_000_000, "what was sent before it has run on");
        assert_eq!(eras.shift_at(4_000_000_000), 3_605_000_000_000);
        assert_eq!(eras.shift_at(0), 5_000_000_000);
        for step in 0..100 {
            eras.note(5_000_000_000 + step, 4_000_000_000_000 + step * 10_000_000);
        }
        assert_eq!(eras.eras.len(), ERAS_MAX);
    }

    /// Another process removes the file system that holds all pins, and it does not come back.
    #[test]
    fn a_packet_filter_that_cannot_be_put_back_is_reported_once_and_not_every_gate_checked() {
        let alone = || {
            let fresh =
                NewNamespaces { network: true, mounts: true, host_name: false, processes: false, ipc: false };
            let place = std::env::temp_dir();
            let ready = namespace::enter_new(fresh)
                .and_then(|()| mount::make_private())
                .and_then(|()| mount::memory(&place))
                .and_then(|()| gate::ensure_bpffs(&place.join("bpf")));
            let bpffs = match ready.map_err(|error| error.to_string()).and_then(|_| gate::probe().bpf) {
                Ok(bpffs) => bpffs,
                Err(why) => {
                    let _ = writeln!(io::stderr(), "skipped: {why}");
                    return;
                }
            };
            let backend = Backend::Bpf { bpffs: bpffs.clone() };
            let filter = PacketFilter::open(&backend, "test", PATTERN).unwrap();
            filter.cover(1).unwrap();
            let mut gates = Gates {
                backend: Ok(backend.clone()),
                filter: Ok(backend),
                missing: (None, None),
                watch: None,
                eras: ClockEras::new(),
                cluster: "test".into(),
                packet_filter: Some(filter),
                groups: Vec::new(),
                renewals: 0,
                next_look: 0,
                overtaken: BTreeMap::new(),
                refusals: Refusals::default(),
                front_at: 0,
                front_fault: None,
                packet_filter_fault: None,
            };
            let mut told = GateOutcome::default();
            assert!(!gates.check_packet_filter(&mut told) && told.notes.is_empty());
            assert!(Command::new("umount").arg("--lazy").arg(&bpffs).status().unwrap().success());
            for _ in 0..3 {
                assert!(!gates.check_packet_filter(&mut told));
            }
            assert!(matches!(&told.notes[..], [(Level::Error, None, _)]), "{:?}", told.notes);
            mount::bpf(&bpffs).unwrap();
            assert!(gates.check_packet_filter(&mut told), "all of it is put back");
            assert!(!gates.check_packet_filter(&mut told));
            assert!(matches!(&told.notes[1..], [(Level::Warning, None, _)]), "{:?}", told.notes);
            gates.leave();
        };
        thread::scope(|scope| scope.spawn(alone).join()).unwrap();
    }
}
