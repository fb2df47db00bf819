//! A cluster's table, and what its owner knows of it: the numbers of gates, and the cohorts, which are gates with the
//! same lease. A renewal is one batch for all gates that the same beat renews, and one question: whether a rival was
//! heard.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    NftConnection, TRIES, change, legacy,
    message::{Batch, MessageType},
    rules::{self, ElementKey, TableWriter, open_chain},
};
use crate::{
    clock,
    gate::{
        GATES_MAX, GateName, GateSettings, PROOFS_MAX, Pattern, Proof, Renewal, RenewalOutcome, Subject,
        hook::Hook, with_context, with_interface,
    },
    netlink::interface_name,
};

/// The most gates that change their cohort in one batch: a batch must fit into a socket's buffer.
const MOVES_MAX: usize = 1024;
/// The most empty cohorts that are kept; …
const IDLE_MAX: usize = 8;
/// … of the others, this many are deleted with a renewal.
const DROPPED_MAX: usize = 16;
/// The most gates that are put back in one batch.
const RESTORED_MAX: usize = 128;

/// A gate's number in its table.
type GateNumber = u32;
/// A cohort's number in its table.
type CohortNumber = u32;

/// A cluster's table. Its lock is never contended: one thread makes, renews and removes a cluster's gates.
#[derive(Debug)]
pub(in crate::gate) struct NftFilter {
    records: Mutex<NftRecords>,
    /// It stays when no group has a gate.
    stays: bool,
}

/// The state of the table as far as this process knows it.
#[derive(Debug)]
struct NftRecords {
    name: GateName,
    table: String,
    pattern: Pattern,
    connection: NftConnection,
    batch: Batch,
    /// No other process can change the table.
    owned: bool,
    hooks: BTreeSet<Hook>,
    ports: BTreeSet<u16>,
    peers: BTreeSet<(IpAddr, u16)>,
    gates: BTreeMap<GateNumber, GateRecord>,
    numbers: BTreeMap<String, GateNumber>,
    addresses: BTreeMap<IpAddr, GateNumber>,
    /// Empty ones are kept for later use.
    cohorts: BTreeMap<CohortNumber, CohortRecord>,
    /// The number assigned last; the search for a free one begins behind it. A released number thus rests for long: a
    /// packet that read it just before does not affect another gate.
    last: GateNumber,
    /// A rival may have been heard by some gate without the kernel still showing it. The next renewal examines all
    /// gates.
    rivals_pending: bool,
    /// Groups of this cluster with a table of their own, made by an earlier version.
    legacy: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct GateRecord {
    group: String,
    addresses: BTreeSet<IpAddr>,
    subject: Option<Subject>,
    proofs: BTreeSet<Proof>,
    cohort: Option<CohortNumber>,
    /// A rival may have been heard before this boot time: beats sent until then open nothing.
    contested: u64,
}

#[derive(Debug, Default)]
struct CohortRecord {
    count: usize,
    /// The lease that this process wrote last.
    renewal: Option<Renewal>,
}

/// A renewal of some gates, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct RenewalPlan {
    steps: Vec<PlanStep>,
    outcomes: Vec<Option<RenewalOutcome>>,
}

/// One batch of a renewal, and the changes to note when it has been performed.
#[derive(Debug, Default)]
struct PlanStep {
    batch: Batch,
    last: u32,
    renewed: Vec<(CohortNumber, Renewal)>,
    moves: Vec<(GateNumber, Option<CohortNumber>)>,
    /// Cohorts that this batch deletes.
    dropped: Vec<CohortNumber>,
}

/// A gate of this backend: its number in its cluster's table.
#[derive(Debug)]
pub(in crate::gate) struct NftGate {
    filter: std::sync::Arc<NftFilter>,
    number: GateNumber,
    prepared: Option<RenewalPlan>,
}

impl NftFilter {
    /// Finds the table of the cluster of that name, or makes it; it is this process's from now on, where the kernel knows that.
    /// Leases run on. `stays`: it goes only when it is [removed](Self::remove), not with the last gate.
    pub(in crate::gate) fn open(name: &GateName, pattern: Pattern, stays: bool) -> io::Result<Self> {
        let mut records = NftRecords::find(name, pattern)?;
        if stays {
            // Peers that are still believed come with the gates.
            (records.ports, records.peers) = Default::default();
        }
        records.make_shared_parts(true)?;
        Ok(Self { records: Mutex::new(records), stays })
    }

    fn records(&self) -> MutexGuard<'_, NftRecords> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stays(&self) -> bool {
        self.stays
    }

    /// Whether no other process can change the table.
    pub(in crate::gate) fn is_owned(&self) -> bool {
        self.records().owned
    }

    /// Whether the gate exists, in this table or in one of its own.
    pub(in crate::gate) fn has_gate(&self, name: &GateName) -> bool {
        let (records, group) = (self.records(), name.escaped_group());
        records.numbers.contains_key(group) || records.legacy.contains(group)
    }

    /// Covers the hook from now on. Costs nothing if it is covered already.
    pub(in crate::gate) fn cover(&self, hook: Hook) -> io::Result<()> {
        self.records().cover(hook)
    }

    /// Listens to announcements to this port from now on; no socket gets them.
    pub(in crate::gate) fn listen_to(&self, port: u16) -> io::Result<()> {
        self.records().believe(port, &[])
    }

    /// The number of announcements that proved nothing.
    pub(in crate::gate) fn refused(&self) -> io::Result<u64> {
        let mut records = self.records();
        let table = records.table.clone();
        records.connection.counter(&table, rules::REFUSED)
    }

    /// Renews gates, or shuts them, all at once. The results of those that were to be renewed are in their order.
    pub(in crate::gate) fn renew(
        &self,
        orders: &[(GateNumber, Option<Renewal>)],
    ) -> io::Result<Vec<Option<RenewalOutcome>>> {
        let mut records = self.records();
        if orders.iter().any(|(number, _)| !records.gates.contains_key(number)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Read the wall clock first: if the process is frozen between the two readings, the deadline is earlier, never
        // later.
        let plan = records.plan(clock::unix_nanos(), orders);
        records.commit(plan, orders)
    }

    /// Sets the proofs that shut each of these gates.
    pub(in crate::gate) fn set_proofs(&self, orders: &[(GateNumber, &[Proof])]) -> io::Result<()> {
        orders.chunks(RESTORED_MAX).try_for_each(|orders| self.records().set_proofs(orders))
    }

    /// Describes what is missing in the kernel, except for what [each gate](NftGate::missing) reports. An interface that
    /// is gone does not count as missing.
    pub(in crate::gate) fn missing(&self) -> io::Result<Vec<String>> {
        self.records().missing(|hook| interface_name(hook.interface()).is_ok())
    }

    /// Puts back what is missing, also the gates' parts.
    pub(in crate::gate) fn restore(&self) -> io::Result<()> {
        self.records().restore()
    }

    /// Removes the table, unless it has a gate. Returns whether it was removed.
    pub(in crate::gate) fn remove(&self) -> io::Result<bool> {
        let mut records = self.records();
        if !records.gates.is_empty() {
            return Ok(false);
        }
        records.delete_table().map(|()| true)
    }
}

impl NftGate {
    /// Makes the gate as `settings` say, whatever parts of it exist already. A running lease goes on unless `closed`.
    pub(in crate::gate) fn install(
        filter: std::sync::Arc<NftFilter>,
        settings: &GateSettings,
        closed: bool,
    ) -> io::Result<Self> {
        let number = {
            let mut records = filter.records();
            Hook::wanted(settings).into_iter().try_for_each(|hook| records.cover(hook))?;
            if let Some(rivals) = &settings.rivals {
                records.believe(rivals.port, &rivals.peers)?;
            }
            records.install(settings, closed)?
        };
        Ok(Self { filter, number, prepared: None })
    }

    pub(in crate::gate) fn number(&self) -> u32 {
        self.number
    }

    pub(in crate::gate) fn prepare(&mut self, renewal: Renewal) {
        self.prepare_at(clock::unix_nanos(), renewal);
    }

    /// As [`prepare`](Self::prepare), with the given wall-clock time.
    pub(in crate::gate) fn prepare_at(&mut self, wall: u64, renewal: Renewal) {
        self.prepared = Some(self.filter.records().plan(wall, &[(self.number, Some(renewal))]));
    }

    /// Sends what [`prepare`](Self::prepare) has prepared for this renewal.
    pub(in crate::gate) fn commit(&mut self, renewal: Renewal) -> io::Result<RenewalOutcome> {
        let plan = self.prepared.take().unwrap_or_default();
        let outcomes = self.filter.records().commit(plan, &[(self.number, Some(renewal))])?;
        outcomes.into_iter().next().flatten().ok_or_else(|| io::Error::other("no renewal was prepared"))
    }

    pub(in crate::gate) fn close(&mut self) -> io::Result<()> {
        self.filter.renew(&[(self.number, None)]).map(drop)
    }

    pub(in crate::gate) fn set_proofs(&mut self, proofs: &[Proof]) -> io::Result<()> {
        self.filter.set_proofs(&[(self.number, proofs)])
    }

    pub(in crate::gate) fn add_interface(&mut self, interface: u32) -> io::Result<()> {
        let mut records = self.filter.records();
        Hook::of_packet_filter(interface).into_iter().try_for_each(|hook| records.cover(hook))
    }

    /// Removes the chains from there if the table serves this gate alone. A table for all gates of the cluster keeps
    /// them.
    pub(in crate::gate) fn remove_interface(&mut self, interface: u32) -> io::Result<()> {
        let mut records = self.filter.records();
        if self.filter.stays() || records.gates.len() > 1 {
            return Ok(());
        }
        records.uncover(&Hook::of_packet_filter(interface))
    }

    /// Describes what is missing of the gate in the kernel. A table that stays reports its own parts.
    pub(in crate::gate) fn missing(&self, settings: &GateSettings) -> io::Result<Vec<String>> {
        let mut records = self.filter.records();
        let wanted = Hook::wanted(settings);
        let mut missing = Vec::new();
        if !self.filter.stays() {
            missing = records.missing(|_| true)?;
            if !records.connection_has_table()? {
                return Ok(missing);
            }
        }
        let uncovered = wanted.into_iter().filter(|hook| !records.hooks.contains(hook));
        missing.extend(uncovered.map(|hook| with_interface("the chain on", hook.interface())));
        missing.extend(records.missing_of(self.number)?);
        Ok(missing)
    }

    pub(in crate::gate) fn restore(&mut self, settings: &GateSettings) -> io::Result<()> {
        let mut records = self.filter.records();
        records.restore()?;
        Hook::wanted(settings).into_iter().try_for_each(|hook| records.cover(hook))
    }

    /// Removes the gate completely, and its table if that served this gate alone.
    pub(in crate::gate) fn remove(self) -> io::Result<()> {
        let mut records = self.filter.records();
        let is_last = records.gates.len() == 1 && !self.filter.stays();
        if is_last { records.delete_table() } else { records.remove(&[self.number]) }
    }

    /// Does what a foreign process can do to a table without an owner: empties the map of gates with a lease.
    #[cfg(test)]
    pub(in crate::gate) fn flush_leased(&self) {
        let mut records = self.filter.records();
        records
            .change(|table| {
                table.empty(rules::LEASED);
                Ok(())
            })
            .unwrap();
    }

    /// Deletes the rules of all chains of cohorts.
    #[cfg(test)]
    pub(in crate::gate) fn flush_cohorts(&self) {
        let mut records = self.filter.records();
        let cohorts: Vec<_> = records.cohorts.keys().copied().collect();
        records
            .change(|table| {
                cohorts.iter().for_each(|cohort| table.clear(&open_chain(*cohort)));
                Ok(())
            })
            .unwrap();
    }

    #[cfg(test)]
    pub(in crate::gate) fn delete_table(&self) {
        let mut records = self.filter.records();
        records
            .change(|table| {
                table.delete();
                Ok(())
            })
            .unwrap();
    }
}

/// Makes a cluster's table as on kernels before Linux 6.9: without an owner.
#[cfg(test)]
pub(in crate::gate) fn make_ownerless(name: &GateName) {
    let mut connection = NftConnection::open().unwrap();
    change(&mut connection, &mut Batch::default(), &name.packet_filter().path(), |table| {
        table.make(0);
        table.make_counter();
        table.make_shared_parts(&Pattern::UNUSED);
        table.elements(MessageType::NewElement, rules::UNCONTESTED, [ElementKey::number(rules::NO_RIVAL)]);
        Ok(())
    })
    .unwrap();
}

/// Removes gates of one cluster whose daemon is gone. Returns the result for each. The last gate takes the table with
/// it.
pub(super) fn remove(groups: &[GateName]) -> Vec<io::Result<bool>> {
    let Some(first) = groups.first() else { return Vec::new() };
    let mut records = match NftRecords::find(first, Pattern::UNUSED) {
        Ok(book) => book,
        Err(error) => return groups.iter().map(|_| Err(with_context(&error, "read the gates"))).collect(),
    };
    let stands = match records.connection_has_table() {
        Ok(stands) => stands,
        Err(error) => return groups.iter().map(|_| Err(with_context(&error, "read the gates"))).collect(),
    };
    let numbers: Vec<_> =
        groups.iter().map(|name| records.numbers.get(name.escaped_group()).copied()).collect();
    let all: Vec<GateNumber> = numbers.iter().flatten().copied().collect();
    let is_last = stands && !all.is_empty() && all.len() == records.gates.len();
    let removed = if is_last { records.delete_table() } else { records.remove(&all) };
    let removed = removed.map_err(|error| busy(&error, &records.table));
    let became = groups.iter().zip(numbers).map(|(name, number)| {
        let old = legacy::remove(&mut records.connection, name)?;
        match (&removed, number) {
            (Err(error), Some(_)) => Err(io::Error::new(error.kind(), error.to_string())),
            (_, number) => Ok(old || number.is_some()),
        }
    });
    became.collect()
}

/// Removes a table without gates. Returns whether there was one.
pub(super) fn remove_idle(name: &GateName) -> io::Result<bool> {
    let mut records = NftRecords::find(name, Pattern::UNUSED)?;
    if !records.gates.is_empty() || !records.connection_has_table()? {
        return Ok(false);
    }
    records.delete_table().map(|()| true).map_err(|error| busy(&error, &records.table))
}

/// Explains the kernel's error about a table that another process owns.
pub(super) fn busy(error: &io::Error, table: &str) -> io::Error {
    if error.raw_os_error() == Some(libc::EPERM) {
        let text = format!("the table {table} belongs to a running process: stop that process first");
        return io::Error::new(io::ErrorKind::ResourceBusy, text);
    }
    with_context(error, &format!("change the table {table}"))
}

impl NftRecords {
    /// What stands of a cluster, read from the kernel; nothing is changed.
    fn find(name: &GateName, pattern: Pattern) -> io::Result<Self> {
        let mut connection =
            NftConnection::open().map_err(|error| with_context(&error, "open a connection to nf_tables"))?;
        let name = name.packet_filter();
        let table = name.path();
        let tables = connection.tables()?;
        let of_cluster = tables.iter().filter_map(|table| GateName::from_path(table));
        let old =
            of_cluster.filter(|gate| gate.packet_filter() == name).map(|gate| gate.escaped_group().into());
        let mut records = Self {
            legacy: old.collect(),
            name,
            pattern,
            connection,
            batch: Batch::default(),
            owned: false,
            hooks: BTreeSet::new(),
            ports: BTreeSet::new(),
            peers: BTreeSet::new(),
            gates: BTreeMap::new(),
            numbers: BTreeMap::new(),
            addresses: BTreeMap::new(),
            cohorts: BTreeMap::new(),
            last: 0,
            rivals_pending: false,
            table,
        };
        if tables.contains(&records.table) {
            records.read()?;
        }
        Ok(records)
    }

    /// Reads what an earlier daemon left in the table.
    fn read(&mut self) -> io::Result<()> {
        let now = clock::boot_nanos();
        let stands = self.connection.gates_of(&self.table)?;
        let hearing = self.connection.rivals_of(&self.table)?;
        self.hooks = self.connection.hooks(&self.table)?.into_keys().collect();
        let uncontested = self.connection.numbers(&self.table, rules::UNCONTESTED)?;
        // A daemon that ended while it dealt with rivals has left such gates.
        self.rivals_pending = stands.gates.iter().any(|(number, _)| !uncontested.contains(number));
        for (number, group) in stands.gates {
            self.numbers.insert(group.clone(), number);
            // Without a lease a rival may have been heard, at an unknown time.
            let is_quiet = uncontested.contains(&number) && stands.leased.contains_key(&number);
            let contested = if is_quiet { 0 } else { now };
            self.gates.insert(number, GateRecord { group, contested, ..GateRecord::default() });
        }
        for (ip, number) in stands.addresses {
            if let Some(entry) = self.gates.get_mut(&number) {
                entry.addresses.insert(ip);
                self.addresses.insert(ip, number);
            }
        }
        for (subject, number) in hearing.subjects {
            if let Some(entry) = self.gates.get_mut(&number) {
                entry.subject = Some(subject);
            }
        }
        for (proof, number) in hearing.proofs {
            if let Some(entry) = self.gates.get_mut(&number) {
                entry.proofs.insert(proof);
            }
        }
        self.cohorts = hearing.cohorts.iter().map(|cohort| (*cohort, CohortRecord::default())).collect();
        for (number, cohort) in stands.leased {
            if let Some(entry) = self.gates.get_mut(&number) {
                entry.cohort = Some(cohort);
                self.cohorts.entry(cohort).or_default().count += 1;
            }
        }
        (self.ports, self.peers) = (hearing.ports, hearing.peers);
        Ok(())
    }

    fn connection_has_table(&mut self) -> io::Result<bool> {
        self.connection.table_exists(&self.table)
    }

    fn change(&mut self, body: impl Fn(&mut TableWriter<'_>) -> io::Result<()>) -> io::Result<()> {
        change(&mut self.connection, &mut self.batch, &self.table, body)
    }

    // ---- the table

    /// Makes the table and everything that serves all gates, in one step. `forget`: removes all believed peers that
    /// this process has not noted.
    fn make_shared_parts(&mut self, forget: bool) -> io::Result<()> {
        // Owned and persistent, if the kernel knows both and the table was not made otherwise.
        let owned = match self.write(rules::NFT_TABLE_F_OWNER | rules::NFT_TABLE_F_PERSIST, forget) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                self.write(0, forget).map(|()| false)
            }
            other => other.map(|()| true),
        };
        self.owned = owned.map_err(|error| busy(&error, &self.table))?;
        Ok(())
    }

    fn write(&mut self, flags: u32, forget: bool) -> io::Result<()> {
        let fresh = !self.connection_has_table()?;
        let standing = if fresh { BTreeMap::new() } else { self.connection.hooks(&self.table)? };
        let Self { connection, batch, table, pattern, hooks, ports, peers, .. } = self;
        change(connection, batch, table, |table| {
            table.make(flags);
            if fresh {
                table.make_counter();
            }
            table.make_shared_parts(pattern);
            if fresh {
                table.elements(
                    MessageType::NewElement,
                    rules::UNCONTESTED,
                    [ElementKey::number(rules::NO_RIVAL)],
                );
            }
            if forget {
                [rules::PORTS, rules::PEERS4, rules::PEERS6].iter().for_each(|set| table.empty(set));
            }
            believe(table, ports, peers);
            for &hook in hooks.iter() {
                // An interface that is gone has taken its chain with it.
                let Ok(device) = interface_name(hook.interface()) else { continue };
                let stands = standing.get(&hook).is_some_and(|devices| devices.contains(&device));
                table.make_hook(hook, (!stands).then_some(&device));
            }
            Ok(())
        })
    }

    fn delete_table(&mut self) -> io::Result<()> {
        self.change(|table| {
            table.delete();
            Ok(())
        })?;
        self.hooks.clear();
        (self.gates, self.numbers, self.addresses) = Default::default();
        self.cohorts.clear();
        Ok(())
    }

    fn cover(&mut self, hook: Hook) -> io::Result<()> {
        if self.hooks.contains(&hook) {
            return Ok(());
        }
        let interface = hook.interface();
        let device = interface_name(interface)
            .map_err(|error| with_context(&error, &format!("interface {interface}")))?;
        self.change(|table| {
            table.make_hook(hook, Some(&device));
            Ok(())
        })
        .map_err(|error| with_context(&error, &with_interface("put the gates on", interface)))?;
        self.hooks.insert(hook);
        Ok(())
    }

    fn uncover(&mut self, hooks: &[Hook]) -> io::Result<()> {
        let mut standing = self.connection.hooks(&self.table)?;
        standing.retain(|hook, _| hooks.contains(hook));
        // A batch needs at least one request.
        if !standing.is_empty() {
            self.change(|table| {
                standing.keys().for_each(|hook| table.delete_hook(*hook));
                Ok(())
            })?;
        }
        self.hooks.retain(|hook| !hooks.contains(hook));
        Ok(())
    }

    fn believe(&mut self, port: u16, peers: &[IpAddr]) -> io::Result<()> {
        let peers: BTreeSet<_> = peers.iter().map(|ip| (*ip, port)).collect();
        let new: BTreeSet<_> = peers.difference(&self.peers).copied().collect();
        if new.is_empty() && self.ports.contains(&port) {
            return Ok(());
        }
        self.change(|table| {
            believe(table, &[port].into(), &new);
            Ok(())
        })?;
        self.ports.insert(port);
        self.peers.extend(new);
        Ok(())
    }

    // ---- gates

    fn install(&mut self, settings: &GateSettings, closed: bool) -> io::Result<GateNumber> {
        let group = settings.name.escaped_group().to_owned();
        let known = self.numbers.get(&group).copied();
        let wanted: BTreeSet<IpAddr> = settings.addresses.iter().copied().collect();
        for ip in &wanted {
            if let Some(other) = self.addresses.get(ip).filter(|number| known != Some(**number)) {
                let other = self.gates.get(other).map(|entry| entry.group.as_str()).unwrap_or_default();
                let other = self.name.sibling(other).map(|name| name.group()).unwrap_or_default();
                let text = format!("the gate of group {other} has {ip} already");
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
        }
        let number = match known {
            Some(number) => number,
            None => self.free_number()?,
        };
        let subject = settings.rivals.as_ref().map(|rivals| rivals.subject);
        let proofs: BTreeSet<Proof> = settings.proofs.iter().take(PROOFS_MAX).copied().collect();
        // The table of an earlier version for this group alone, and the end of its lease.
        let old = self.legacy.contains(&group).then(|| settings.name.clone());
        let before = self.gates.remove(&number).unwrap_or_default();
        let cohort = before.cohort.filter(|_| !closed);
        let written = self.change(|table| {
            table.gate(number, &group);
            // If a lease goes on, a rival that was heard is not forgotten.
            if closed || known.is_none() {
                table.elements(MessageType::NewElement, rules::UNCONTESTED, [ElementKey::number(number)]);
            }
            if closed && before.cohort.is_some() {
                table.elements(MessageType::DeleteElement, rules::LEASED, [ElementKey::number(number)]);
            }
            put_addresses(table, MessageType::DeleteElement, before.addresses.difference(&wanted), number);
            put_addresses(table, MessageType::NewElement, wanted.difference(&before.addresses), number);
            rewrite_proofs(table, number, (before.subject, &before.proofs), (subject, &proofs));
            Ok(())
        });
        if let Err(error) = written {
            if known.is_some() {
                self.gates.insert(number, before);
            }
            return Err(busy(&error, &self.table));
        }
        if closed {
            self.leave(before.cohort);
        }
        for ip in before.addresses.difference(&wanted) {
            self.addresses.remove(ip);
        }
        self.addresses.extend(wanted.iter().map(|ip| (*ip, number)));
        let contested = match known {
            Some(_) if !closed => before.contested,
            None if old.is_none() => 0,
            _ => clock::boot_nanos(),
        };
        self.numbers.insert(group.clone(), number);
        let entry =
            GateRecord { group: group.clone(), addresses: wanted, subject, proofs, cohort, contested };
        self.gates.insert(number, entry);
        self.last = number;
        if let Some(name) = old {
            if !closed && let Some(deadline) = legacy::deadline(&mut self.connection, &name)? {
                self.continue_lease(number, deadline)?;
            }
            legacy::remove(&mut self.connection, &name)?;
            self.legacy.remove(&group);
        }
        Ok(number)
    }

    /// Continues the lease of an earlier version's table in this one. No rival had been heard there.
    fn continue_lease(&mut self, number: GateNumber, deadline: u64) -> io::Result<()> {
        if let Some(entry) = self.gates.get_mut(&number) {
            entry.contested = 0;
        }
        let orders = [(number, Some(Renewal { deadline, sent: 1 }))];
        let plan = self.plan(clock::unix_nanos(), &orders);
        self.commit(plan, &orders).map(drop)
    }

    fn free_number(&self) -> io::Result<GateNumber> {
        let behind = (1..=GATES_MAX).map(|step| (self.last + step) % GATES_MAX);
        behind.into_iter().find(|number| !self.gates.contains_key(number)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::StorageFull, format!("this cluster has {GATES_MAX} gates on this machine \
                                                                already, which is the limit; `locum gate` lists them"))
        })
    }

    fn leave(&mut self, cohort: Option<CohortNumber>) {
        if let Some(members) = cohort.and_then(|cohort| self.cohorts.get_mut(&cohort)) {
            members.count = members.count.saturating_sub(1);
        }
    }

    fn set_proofs(&mut self, orders: &[(GateNumber, &[Proof])]) -> io::Result<()> {
        let mut changed: BTreeMap<GateNumber, BTreeSet<Proof>> = BTreeMap::new();
        for (number, proofs) in orders {
            changed.insert(*number, proofs.iter().take(PROOFS_MAX).copied().collect());
        }
        changed.retain(|number, proofs| {
            self.gates.get(number).is_some_and(|entry| entry.subject.is_some() && entry.proofs != *proofs)
        });
        if changed.is_empty() {
            return Ok(());
        }
        let Self { connection, batch, table, gates, .. } = self;
        change(connection, batch, table, |table| {
            for (number, proofs) in &changed {
                let GateRecord { subject, proofs: before, .. } = &gates[number];
                rewrite_proofs(table, *number, (*subject, before), (*subject, proofs));
            }
            Ok(())
        })?;
        for (number, proofs) in changed {
            if let Some(entry) = self.gates.get_mut(&number) {
                entry.proofs = proofs;
            }
        }
        Ok(())
    }

    fn remove(&mut self, numbers: &[GateNumber]) -> io::Result<()> {
        for numbers in numbers.chunks(RESTORED_MAX) {
            let Self { connection, batch, table, gates, .. } = self;
            let entries = || numbers.iter().filter_map(|number| Some((*number, gates.get(number)?)));
            change(connection, batch, table, |table| {
                for (number, entry) in entries() {
                    put_addresses(table, MessageType::DeleteElement, entry.addresses.iter(), number);
                    rewrite_proofs(table, number, (entry.subject, &entry.proofs), (None, &BTreeSet::new()));
                }
                let leased = entries().filter(|(_, entry)| entry.cohort.is_some());
                table.elements(
                    MessageType::DeleteElement,
                    rules::LEASED,
                    leased.map(|(n, _)| ElementKey::number(n)),
                );
                let keys = || entries().map(|(number, _)| ElementKey::number(number)).collect::<Vec<_>>();
                table.delete_if_present(rules::UNCONTESTED, keys());
                table.elements(MessageType::DeleteElement, rules::GATES, keys());
                Ok(())
            })?;
            for number in numbers {
                if let Some(entry) = self.gates.remove(number) {
                    self.numbers.remove(&entry.group);
                    for ip in entry.addresses {
                        self.addresses.remove(&ip);
                    }
                    self.leave(entry.cohort);
                }
            }
        }
        Ok(())
    }

    // ---- renewing

    /// Plans what to send so that each gate has the lease in `orders`, or none. The caller read the wall clock before.
    fn plan(&mut self, wall: u64, orders: &[(GateNumber, Option<Renewal>)]) -> RenewalPlan {
        let boot = clock::boot_nanos();
        let mut plan = RenewalPlan { steps: Vec::new(), outcomes: vec![None; orders.len()] };
        let mut moves: Vec<(GateNumber, Option<CohortNumber>)> = Vec::new();
        let mut leases: Vec<(Renewal, GateNumber)> = Vec::new();
        for (outcome, &(number, renewal)) in plan.outcomes.iter_mut().zip(orders) {
            let Some(entry) = self.gates.get(&number) else { continue };
            match renewal {
                Some(renewal) if renewal.sent <= entry.contested => {
                    *outcome = Some(RenewalOutcome::Shut { since: entry.contested });
                }
                Some(renewal) if renewal.deadline > boot => {
                    *outcome = Some(RenewalOutcome::Open);
                    leases.push((renewal, number));
                }
                _ => {
                    *outcome = renewal.map(|_| RenewalOutcome::Open);
                    moves.extend(entry.cohort.map(|_| (number, None)));
                }
            }
        }
        leases.sort_unstable_by_key(|(renewal, number)| (renewal.deadline, renewal.sent, *number));
        let mut taken = BTreeSet::new();
        let mut renewed: Vec<(CohortNumber, Renewal, bool)> = Vec::new();
        for class in leases.chunk_by(|one, other| one.0 == other.0) {
            let (cohort, is_new, is_renewed) = self.choose(class, &taken);
            taken.insert(cohort);
            if !is_renewed {
                renewed.push((cohort, class[0].0, is_new));
            }
            let elsewhere = class.iter().filter(|(_, number)| self.gates[number].cohort != Some(cohort));
            moves.extend(elsewhere.map(|(_, number)| (*number, Some(cohort))));
        }
        if renewed.is_empty() && moves.is_empty() {
            return plan;
        }
        // A lease is written before gates are assigned to it.
        let mut step = PlanStep::default();
        step.batch.begin();
        let mut table = TableWriter { name: &self.table, batch: &mut step.batch };
        for &(cohort, renewal, is_new) in &renewed {
            let left = renewal.deadline.saturating_sub(boot);
            if is_new {
                table.make_cohort(cohort);
            }
            table.lease(cohort, left.div_ceil(1_000_000), wall.saturating_add(left));
            step.renewed.push((cohort, renewal));
        }
        step.dropped = self.superfluous(&taken);
        for cohort in &step.dropped {
            table.delete_cohort(*cohort);
        }
        let mut pieces = moves.chunks(MOVES_MAX).peekable();
        loop {
            if let Some(moves) = pieces.next() {
                let mut table = TableWriter { name: &self.table, batch: &mut step.batch };
                let from = moves.iter().filter(|(number, _)| self.gates[number].cohort.is_some());
                let from = from.map(|(number, _)| ElementKey::number(*number));
                table.elements(MessageType::DeleteElement, rules::LEASED, from);
                let to = moves
                    .iter()
                    .filter_map(|(number, cohort)| Some((ElementKey::number(*number), (*cohort)?)));
                table.pairs(MessageType::NewElement, rules::LEASED, to);
                step.moves = moves.to_vec();
            }
            step.last = step.batch.finish();
            plan.steps.push(std::mem::take(&mut step));
            if pieces.peek().is_none() {
                return plan;
            }
            step.batch.begin();
        }
    }

    /// Chooses the cohort for these gates, which have the same lease. Also returns whether it must be made, and whether
    /// it has that lease already. A cohort is only renewed if all its members are.
    fn choose(
        &self,
        class: &[(Renewal, GateNumber)],
        taken: &BTreeSet<CohortNumber>,
    ) -> (CohortNumber, bool, bool) {
        let renewal = class[0].0;
        let all = || self.cohorts.iter().filter(|(cohort, _)| !taken.contains(cohort));
        let same = all().find(|(_, members)| members.count > 0 && members.renewal == Some(renewal));
        if let Some((cohort, _)) = same {
            return (*cohort, false, true);
        }
        let mut counts: BTreeMap<CohortNumber, usize> = BTreeMap::new();
        for cohort in class.iter().filter_map(|(_, number)| self.gates[number].cohort) {
            *counts.entry(cohort).or_default() += 1;
        }
        let renewed = |cohort| counts.get(cohort).copied().unwrap_or(0);
        let whole = all().filter(|(cohort, members)| members.count == renewed(cohort));
        // The largest whole one, which may be an empty one; else a new one.
        match whole.max_by_key(|(_, members)| members.count) {
            Some((cohort, _)) => (*cohort, false, false),
            None => {
                let is_free =
                    |cohort: &CohortNumber| !self.cohorts.contains_key(cohort) && !taken.contains(cohort);
                ((0..).find(is_free).unwrap_or(CohortNumber::MAX), true, false)
            }
        }
    }

    /// Some of the empty cohorts that are not used now, if there are many: the kernel looks at each whenever rules
    /// change.
    fn superfluous(&self, taken: &BTreeSet<CohortNumber>) -> Vec<CohortNumber> {
        let idle = self.cohorts.iter().filter(|(cohort, of)| of.count == 0 && !taken.contains(cohort));
        idle.map(|(cohort, _)| *cohort).skip(IDLE_MAX).take(DROPPED_MAX).collect()
    }

    /// Sends the plan for these gates, and asks whether a rival was heard.
    fn commit(
        &mut self,
        mut plan: RenewalPlan,
        orders: &[(GateNumber, Option<Renewal>)],
    ) -> io::Result<Vec<Option<RenewalOutcome>>> {
        for step in &plan.steps {
            let mut result = Ok(());
            for _ in 0..TRIES {
                result = self.connection.perform(&step.batch, step.last);
                if !matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EAGAIN)) {
                    break;
                }
            }
            result?;
            self.note(step);
        }
        let listens =
            |number: &GateNumber| self.gates.get(number).is_some_and(|entry| entry.subject.is_some());
        let is_open = |outcome: &Option<RenewalOutcome>| *outcome == Some(RenewalOutcome::Open);
        let asks = plan.outcomes.iter().zip(orders).any(|(o, (number, _))| is_open(o) && listens(number));
        if asks {
            // No renewal's batch writes the element that a rival's announcement deletes, so whatever was heard before
            // or after stays noted.
            if self.rivals_pending
                || !self.has_element(rules::UNCONTESTED, &ElementKey::number(rules::NO_RIVAL))?
            {
                let shut = self.handle_rivals()?;
                for (outcome, (number, _)) in plan.outcomes.iter_mut().zip(orders) {
                    if is_open(outcome) && shut.contains(number) {
                        let since = self.gates[number].contested;
                        *outcome = Some(RenewalOutcome::Shut { since });
                    }
                }
            }
        }
        Ok(plan.outcomes)
    }

    /// Whether a set has this element.
    fn has_element(&mut self, set: &str, key: &ElementKey) -> io::Result<bool> {
        let question = rules::ask_element(&mut self.batch, &self.table, set, key);
        self.connection.is_there(&self.batch, question)
    }

    fn note(&mut self, step: &PlanStep) {
        for cohort in &step.dropped {
            self.cohorts.remove(cohort);
        }
        for &(cohort, renewal) in &step.renewed {
            self.cohorts.entry(cohort).or_default().renewal = Some(renewal);
        }
        for &(number, cohort) in &step.moves {
            let Some(entry) = self.gates.get_mut(&number) else { continue };
            let before = std::mem::replace(&mut entry.cohort, cohort);
            self.leave(before);
            if let Some(members) = cohort.and_then(|cohort| self.cohorts.get_mut(&cohort)) {
                members.count += 1;
            }
        }
    }

    /// Deals with a rival that was heard: finds the gates concerned, shuts them, and listens for the next rival.
    fn handle_rivals(&mut self) -> io::Result<BTreeSet<GateNumber>> {
        // First arm the sign for the next rival, then look, so that nothing is missed in between. If a step after that
        // fails, all has to be done again, and the kernel would not show it.
        self.rivals_pending = true;
        self.change(|table| {
            table.elements(
                MessageType::NewElement,
                rules::UNCONTESTED,
                [ElementKey::number(rules::NO_RIVAL)],
            );
            Ok(())
        })?;
        let uncontested = self.connection.numbers_left(&self.table, rules::UNCONTESTED)?;
        let shut: BTreeSet<_> =
            self.gates.keys().copied().filter(|number| !uncontested.contains(number)).collect();
        let leased: Vec<_> =
            shut.iter().copied().filter(|number| self.gates[number].cohort.is_some()).collect();
        if shut.is_empty() {
            self.rivals_pending = false;
            return Ok(shut);
        }
        self.change(|table| {
            table.elements(
                MessageType::DeleteElement,
                rules::LEASED,
                leased.iter().copied().map(ElementKey::number),
            );
            table.elements(
                MessageType::NewElement,
                rules::UNCONTESTED,
                shut.iter().copied().map(ElementKey::number),
            );
            Ok(())
        })?;
        self.rivals_pending = false;
        // Taken after rivals could be heard again: a beat sent from now on was sent after everything that was missed.
        let contested = clock::boot_nanos();
        for number in &shut {
            if let Some(entry) = self.gates.get_mut(number) {
                entry.contested = contested;
                let before = entry.cohort.take();
                self.leave(before);
            }
        }
        Ok(shut)
    }

    // ---- checking and repairing

    /// Describes what is missing of the parts for all gates; `wanted` selects the hooks.
    fn missing(&mut self, wanted: impl Fn(Hook) -> bool) -> io::Result<Vec<String>> {
        if !self.connection_has_table()? {
            return Ok(vec![format!("the table {}", self.table)]);
        }
        let (standing, rules) = (self.connection.hooks(&self.table)?, self.connection.rules(&self.table)?);
        let mut missing = Vec::new();
        for &hook in self.hooks.iter().filter(|hook| wanted(**hook)) {
            let stands = standing.get(&hook).is_some_and(|devices| {
                interface_name(hook.interface()).is_ok_and(|name| devices.contains(&name))
            });
            if !stands || rules.get(&hook.name()) != Some(&1) {
                let chain = format!("the chain {} on", hook.name());
                missing.push(with_interface(&chain, hook.interface()));
            }
        }
        let fewer = rules::expected_rules().filter(|(chain, count)| rules.get(*chain) != Some(count));
        missing.extend(fewer.map(|(chain, _)| format!("rules of the chain {chain}")));
        if !self.owned {
            let broken = self.broken_cohorts(&rules)?;
            missing.extend(broken.iter().map(|cohort| format!("rules of the chain {}", open_chain(*cohort))));
        }
        Ok(missing)
    }

    /// The cohorts with gates whose chain is not as it was made. Without its rules it would let everything pass.
    fn broken_cohorts(&mut self, rules: &BTreeMap<String, usize>) -> io::Result<Vec<CohortNumber>> {
        let open = self.connection.numbers(&self.table, rules::OPEN)?;
        let is_whole =
            |cohort| rules.get(&open_chain(cohort)) == Some(&rules::COHORT_RULES) && open.contains(&cohort);
        let used = self.cohorts.iter().filter(|(_, members)| members.count > 0).map(|(cohort, _)| *cohort);
        Ok(used.filter(|cohort| !is_whole(*cohort)).collect())
    }

    /// Repairs them, shut: the next renewal opens them.
    fn mend_cohorts(&mut self) -> io::Result<()> {
        let rules = self.connection.rules(&self.table)?;
        let broken = self.broken_cohorts(&rules)?;
        if broken.is_empty() {
            return Ok(());
        }
        self.change(|table| {
            for cohort in &broken {
                table.make_cohort(*cohort);
                table.lease(*cohort, 1, 0);
            }
            Ok(())
        })?;
        for cohort in broken {
            self.cohorts.entry(cohort).or_default().renewal = None;
        }
        Ok(())
    }

    /// Describes what is missing of one gate. In a table that this process owns nothing can be missing.
    fn missing_of(&mut self, number: GateNumber) -> io::Result<Option<String>> {
        let Some(entry) = self.gates.get(&number).filter(|_| !self.owned) else { return Ok(None) };
        let mut wanted: Vec<_> = entry.addresses.iter().map(|ip| rules::service(*ip)).collect();
        wanted.push((rules::GATES, ElementKey::number(number)));
        wanted.extend(entry.cohort.map(|_| (rules::LEASED, ElementKey::number(number))));
        if let Some(subject) = entry.subject {
            wanted
                .extend(entry.proofs.iter().map(|proof| (rules::PROOFS, ElementKey::proof(subject, *proof))));
        }
        for (set, key) in wanted {
            if !self.has_element(set, &key)? {
                return Ok(Some(format!("an element of {set}")));
            }
        }
        // A rival may have deleted that: it is not put back, but treated as a rival heard.
        self.rivals_pending |= !self.has_element(rules::UNCONTESTED, &ElementKey::number(number))?;
        Ok(None)
    }

    /// Puts back what is missing, also the gates' parts. A part that is made anew is shut until it is renewed.
    fn restore(&mut self) -> io::Result<()> {
        let fresh = !self.connection_has_table()?;
        if fresh {
            self.cohorts.clear();
            self.gates.values_mut().for_each(|entry| entry.cohort = None);
        }
        self.make_shared_parts(false)?;
        if self.owned && !fresh {
            return Ok(());
        }
        if !fresh {
            self.mend_cohorts()?;
        }
        let numbers: Vec<GateNumber> = self.gates.keys().copied().collect();
        for numbers in numbers.chunks(RESTORED_MAX) {
            let Self { connection, batch, table, gates, .. } = self;
            change(connection, batch, table, |table| {
                for number in numbers {
                    let entry = &gates[number];
                    table.gate(*number, &entry.group);
                    if fresh {
                        table.elements(
                            MessageType::NewElement,
                            rules::UNCONTESTED,
                            [ElementKey::number(*number)],
                        );
                    }
                    let leased = entry.cohort.map(|cohort| (ElementKey::number(*number), cohort));
                    table.pairs(MessageType::NewElement, rules::LEASED, leased);
                    put_addresses(table, MessageType::NewElement, entry.addresses.iter(), *number);
                    let after = (entry.subject, &entry.proofs);
                    rewrite_proofs(table, *number, (None, &BTreeSet::new()), after);
                }
                Ok(())
            })
            .map_err(|error| busy(&error, table))?;
        }
        Ok(())
    }
}

fn believe(table: &mut TableWriter<'_>, ports: &BTreeSet<u16>, peers: &BTreeSet<(IpAddr, u16)>) {
    table.elements(MessageType::NewElement, rules::PORTS, ports.iter().map(|port| ElementKey::port(*port)));
    for set in [rules::PEERS4, rules::PEERS6] {
        let keys = peers.iter().map(|(ip, port)| rules::peer(*ip, *port));
        let keys = keys.filter(|(of, _)| *of == set).map(|(_, key)| key);
        table.elements(MessageType::NewElement, set, keys);
    }
}

fn put_addresses<'a>(
    table: &mut TableWriter<'_>,
    kind: MessageType,
    addresses: impl Iterator<Item = &'a IpAddr> + Clone,
    number: GateNumber,
) {
    for set in [rules::SERVICE4, rules::SERVICE6] {
        let keys = addresses.clone().map(|ip| rules::service(*ip)).filter(|(of, _)| *of == set);
        table.pairs(kind, set, keys.map(|(_, key)| (key, number)));
    }
}

/// Replaces a gate's numbers and proofs; new ones are added first.
fn rewrite_proofs(
    table: &mut TableWriter<'_>,
    number: GateNumber,
    before: (Option<Subject>, &BTreeSet<Proof>),
    after: (Option<Subject>, &BTreeSet<Proof>),
) {
    let keys = |(subject, proofs): (Option<Subject>, &BTreeSet<Proof>)| -> BTreeSet<(Subject, Proof)> {
        subject.into_iter().flat_map(|subject| proofs.iter().map(move |proof| (subject, *proof))).collect()
    };
    let (had, has) = (keys(before), keys(after));
    let pair = |(subject, proof): &(Subject, Proof)| (ElementKey::proof(*subject, *proof), number);
    table.pairs(MessageType::NewElement, rules::PROOFS, has.difference(&had).map(pair));
    table.pairs(MessageType::DeleteElement, rules::PROOFS, had.difference(&has).map(pair));
    if before.0 != after.0 {
        let pair = |subject: Subject| (ElementKey::subject(subject), number);
        table.pairs(MessageType::NewElement, rules::OURS, after.0.map(pair));
        table.pairs(MessageType::DeleteElement, rules::OURS, before.0.map(pair));
    }
}
