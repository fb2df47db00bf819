//! The `nft` backend: one table of nf_tables in the netdev family for all gates of a cluster, with chains at ingress
//! and egress of each interface. It lets packets of a service address pass while a timed element exists *and* the wall
//! clock is below a deadline. Each alone would not do: a time-out begins when the kernel gets it, which may be late,
//! and the wall clock may be set back.
//!
//! Uses netlink directly and runs no program. On kernels that know owners of tables (Linux 6.9), a table belongs to the
//! socket that made it: a foreign `flush ruleset` does not delete it, and it outlives its socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, netlink, netlink::SocketAddrNetlink};

use super::{
    Backend, GateName, ListedGate, ListedPacketFilter,
    hook::Hook,
    pattern::{Pattern, Proof, Subject},
};
use crate::{
    clock,
    netlink::{changed_meanwhile, error_code, for_each_message, receive_from_kernel},
};

pub(super) mod arp_filter;
mod filter;
mod legacy;
mod message;
mod rules;

#[cfg(test)]
pub(super) use filter::make_ownerless;
pub(super) use filter::{NftFilter, NftGate};
#[cfg(test)]
pub(super) use legacy::tests::make as make_old;
use message::{AttributeWriter, Batch, FAMILY_BYTES, MessageType, find, text};
use rules::TableWriter;

/// The most bytes of one piece of the kernel's answer to a dump.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The most attempts to send a batch when other processes change rules in between, and to read an answer of several
/// pieces in one state.
const TRIES: usize = 5;
/// The position in an answer of the last two bytes of the ruleset's generation number (`struct nfgenmsg`).
const GENERATION_BYTES: std::ops::Range<usize> = 2..FAMILY_BYTES;
// linux/socket.h, linux/netlink.h
const SOL_NETLINK: i32 = 270;
const NETLINK_CAP_ACK: i32 = 10;
/// The socket's send buffer; the longest batch is shorter. A socket that cannot have this much sends what fits.
const SEND_BYTES: usize = 1 << 20;

/// Sends one batch, and sends it again if another process changed rules in between.
fn change(
    connection: &mut NftConnection,
    batch: &mut Batch,
    name: &str,
    body: impl Fn(&mut TableWriter<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut result = Ok(());
    for _ in 0..TRIES {
        batch.begin();
        body(&mut TableWriter { name, batch })?;
        let last = batch.finish();
        result = connection.perform(batch, last);
        if !matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EAGAIN)) {
            break;
        }
    }
    result
}

/// Whether the gate exists, in its cluster's table or in a table of its own.
pub(super) fn gate_exists(name: &GateName) -> io::Result<bool> {
    let mut connection = NftConnection::open()?;
    let tables = connection.tables()?;
    let table = name.packet_filter().path();
    if tables.contains(&name.path()) {
        return Ok(true);
    }
    if !tables.contains(&table) {
        return Ok(false);
    }
    let mut stands = false;
    let group = name.escaped_group();
    connection.elements(&table, rules::GATES, |element| {
        stands |= find(element, rules::NFTA_SET_ELEM_USERDATA)
            .and_then(rules::text_of)
            .is_some_and(|of| of == group);
    })?;
    Ok(stands)
}

pub(super) fn list() -> io::Result<Vec<ListedGate>> {
    let mut connection = NftConnection::open()?;
    let mut all = Vec::new();
    for table in connection.tables()? {
        if let Some(name) = GateName::from_path(&table) {
            all.push(legacy::list_gate(&mut connection, name)?);
        } else if let Some(name) = GateName::packet_filter_from_path(&table) {
            all.extend(list_of(&mut connection, &name)?);
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

fn list_of(connection: &mut NftConnection, name: &GateName) -> io::Result<Vec<ListedGate>> {
    let table = name.path();
    // If a gate changed its cohort between two questions, it would seem to have another gate's lease.
    let mut read = (TableGates::default(), BTreeMap::new(), BTreeSet::new());
    for _ in 0..TRIES {
        let before = connection.generation()?;
        read = (
            connection.gates_of(&table)?,
            connection.leases(&table)?,
            connection.numbers(&table, rules::UNCONTESTED)?,
        );
        if connection.generation()? == before {
            break;
        }
    }
    let (standing, leases, uncontested) = read;
    let interfaces = connection.interfaces(&table)?;
    let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for (ip, number) in standing.addresses {
        addresses.entry(number).or_default().push(ip);
    }
    let listed = standing.gates.into_iter().filter_map(|(number, group)| {
        let cohort = standing.leased.get(&number).filter(|_| uncontested.contains(&number));
        let mut addresses = addresses.remove(&number).unwrap_or_default();
        addresses.sort();
        Some(ListedGate {
            name: name.sibling(&group)?,
            backend: Backend::Nft,
            addresses,
            interfaces: interfaces.clone(),
            deadline: cohort.and_then(|cohort| leases.get(cohort)).copied(),
        })
    });
    Ok(listed.collect())
}

/// The tables of all clusters, with and without gates.
pub(super) fn packet_filters() -> io::Result<Vec<ListedPacketFilter>> {
    let mut connection = NftConnection::open()?;
    let names = connection.tables()?;
    let names = names.iter().filter_map(|table| GateName::packet_filter_from_path(table));
    let look = |name: GateName| {
        let interfaces = connection.interfaces(&name.path())?;
        let gates = connection.numbers(&name.path(), rules::GATES)?.len();
        Ok(ListedPacketFilter { name, backend: Backend::Nft, interfaces, gates })
    };
    names.map(look).collect()
}

/// Removes a cluster's table completely, unless it has a gate. Returns whether there was one.
pub(super) fn remove_packet_filter(name: &GateName) -> io::Result<bool> {
    filter::remove_idle(name)
}

/// Removes gates of one cluster completely. Returns for each whether there was one.
pub(super) fn remove(names: &[GateName]) -> Vec<io::Result<bool>> {
    filter::remove(names)
}

/// The number of changes of rules in this network namespace.
#[cfg(test)]
pub(super) fn generation() -> u32 {
    NftConnection::open().unwrap().generation().unwrap()
}

/// The number of cohorts in the table of a gate's cluster.
#[cfg(test)]
pub(super) fn cohorts(name: &GateName) -> usize {
    NftConnection::open().unwrap().numbers(&name.packet_filter().path(), rules::OPEN).unwrap().len()
}

/// Why this backend does not work for the calling thread.
pub(super) fn probe() -> Result<(), String> {
    let mut connection = NftConnection::open().map_err(|error| match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT) => "the kernel has no nf_netlink (CONFIG_NETFILTER_NETLINK)".to_owned(),
        _ => format!("no connection to nf_tables: {error}"),
    })?;
    // Not the name of a gate: the table is deleted in the same batch.
    let name = format!("{}-probe-{}", super::ROOT, std::process::id());
    let loopback = 1;
    let mut attempt = |hooks: &[Hook], rules: bool| {
        change(&mut connection, &mut Batch::default(), &name, |table| {
            table.make(0);
            if rules {
                table.make_counter();
                table.make_shared_parts(&Pattern::UNUSED);
                table.make_cohort(0);
                table.lease(0, 1, 1);
            }
            for &hook in hooks {
                table.make_hook(hook, Some("lo"));
            }
            table.delete();
            Ok(())
        })
    };
    attempt(&[], false).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => "no right to change rules (CAP_NET_ADMIN)".to_owned(),
        _ => format!("no tables of the netdev family (CONFIG_NF_TABLES_NETDEV): {error}"),
    })?;
    attempt(&[], true).map_err(|error| format!("the kernel refuses the gate's rules: {error}"))?;
    attempt(&[Hook::Ingress(loopback)], true)
        .map_err(|error| format!("no netdev ingress hook (CONFIG_NETFILTER_INGRESS): {error}"))?;
    attempt(&[Hook::Egress(loopback)], true)
        .map_err(|error| format!("no netdev egress hook (Linux 5.16, CONFIG_NETFILTER_EGRESS): {error}"))
}

/// A netlink socket to nf_tables, of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct NftConnection {
    socket: OwnedFd,
    answer: Vec<u8>,
}

impl NftConnection {
    fn open() -> io::Result<Self> {
        let socket = socket(0)?;
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, SEND_BYTES)
            .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES));
        // Error messages need not repeat the request: many of them would not fit into the socket.
        let _ = crate::option::set(&socket, SOL_NETLINK, NETLINK_CAP_ACK, &1i32);
        Ok(Self { socket, answer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// Sends a batch, and reads the answers that are there when the send returns.
    fn perform(&mut self, batch: &Batch, last: u32) -> io::Result<()> {
        rustix::net::send(&self.socket, &batch.bytes, SendFlags::empty())?;
        let mut done = false;
        let mut result = Ok(());
        // Each failed request has an answer, and all answers are there before the send returns, unless there were too
        // many. None may be left over, or it would be taken for an answer to the next batch.
        loop {
            let length = match self.receive() {
                Ok(Some(length)) => length,
                Ok(None) => break,
                // Reported once; the answers that were kept can still be read.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    result = result.and(Err(error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            for_each_message(&self.answer[..length], |header, payload| {
                if header.message_type == NLMSG_ERROR {
                    done |= header.sequence_number == last;
                    if result.is_ok() {
                        result = error_code(payload);
                    }
                }
                Ok(())
            })?;
        }
        match result {
            Ok(()) if !done => Err(io::Error::new(io::ErrorKind::InvalidData, "nf_tables did not answer")),
            other => other,
        }
    }

    /// Whether the object that the question names exists.
    fn is_there(&mut self, question: &Batch, number: u32) -> io::Result<bool> {
        match self.ask(question, number, |_| ()) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks, and calls `each` with the attributes of each answer. Returns whether the answers describe one state: if
    /// rules change between two pieces of a long answer, an object may be in it twice or not at all.
    fn ask(&mut self, question: &Batch, number: u32, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        rustix::net::send(&self.socket, &question.bytes, SendFlags::empty())?;
        let (mut done, mut whole) = (false, true);
        let mut generation = None;
        while !done {
            let Some(length) = self.receive()? else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "nf_tables did not answer"));
            };
            for_each_message(&self.answer[..length], |header, payload| {
                if header.sequence_number != number {
                    return Ok(());
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.message_type {
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => {
                        done = true;
                        error_code(payload)?;
                    }
                    _ => {
                        done |= header.flags & NLM_F_MULTIPART == 0;
                        // For elements the kernel does not set the flag. But each piece carries the generation of rules
                        // that it describes.
                        let of = payload.get(GENERATION_BYTES);
                        whole &= generation.is_none() || generation.as_deref() == of;
                        generation = of.map(Vec::from);
                        each(payload.get(FAMILY_BYTES..).unwrap_or_default());
                    }
                }
                Ok(())
            })?;
        }
        Ok(whole)
    }

    /// As [`ask`](Self::ask), repeated until the answers describe one state. Only those are passed on.
    fn ask_all(
        &mut self,
        mut question: impl FnMut(&mut Batch) -> u32,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut batch = Batch::default();
        let mut answers = Vec::new();
        for _ in 0..TRIES {
            answers.clear();
            let number = question(&mut batch);
            if self.ask(&batch, number, |answer| answers.push(answer.to_vec()))? {
                answers.iter().for_each(|answer| each(answer));
                return Ok(());
            }
        }
        Err(changed_meanwhile())
    }

    /// Asks for all objects of a kind, narrowed down by `body`.
    fn dump(
        &mut self,
        kind: MessageType,
        body: impl Fn(&mut AttributeWriter<'_>),
        each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.ask_all(|batch| batch.question(kind, true, &body), each)
    }

    fn table_exists(&mut self, table: &str) -> io::Result<bool> {
        let mut batch = Batch::default();
        let number = batch.question(MessageType::GetTable, false, |a| a.text(rules::NFTA_TABLE_NAME, table));
        self.is_there(&batch, number)
    }

    fn tables(&mut self) -> io::Result<Vec<String>> {
        let mut tables = Vec::new();
        self.dump(
            MessageType::GetTable,
            |_| (),
            |a| tables.extend(find(a, rules::NFTA_TABLE_NAME).and_then(text)),
        )?;
        Ok(tables)
    }

    /// The chains of a table that are hooked to interfaces, with the interfaces' names.
    fn hooks(&mut self, table: &str) -> io::Result<BTreeMap<Hook, Vec<String>>> {
        let mut hooks = BTreeMap::new();
        self.dump(
            MessageType::GetChain,
            |_| (),
            |a| {
                let of_table =
                    find(a, rules::NFTA_CHAIN_TABLE).and_then(text).is_some_and(|name| name == table);
                let hook = find(a, rules::NFTA_CHAIN_NAME).and_then(text).and_then(|name| Hook::parse(&name));
                if let (true, Some(hook)) = (of_table, hook) {
                    hooks.insert(hook, find(a, rules::NFTA_CHAIN_HOOK).map(devices).unwrap_or_default());
                }
            },
        )?;
        Ok(hooks)
    }

    /// The number of rules in each chain of a table that has any.
    fn rules(&mut self, table: &str) -> io::Result<BTreeMap<String, usize>> {
        let mut rules: BTreeMap<String, usize> = BTreeMap::new();
        self.dump(
            MessageType::GetRule,
            |a| a.text(rules::NFTA_RULE_TABLE, table),
            |a| {
                let of_table =
                    find(a, rules::NFTA_RULE_TABLE).and_then(text).is_some_and(|name| name == table);
                if let (true, Some(chain)) = (of_table, find(a, rules::NFTA_RULE_CHAIN).and_then(text)) {
                    *rules.entry(chain).or_default() += 1;
                }
            },
        )?;
        Ok(rules)
    }

    /// The interfaces on which a table filters packets.
    fn interfaces(&mut self, table: &str) -> io::Result<Vec<u32>> {
        let hooks = self.hooks(table)?;
        let filters = hooks.keys().filter(|hook| !matches!(hook, Hook::ClaimListener(_)));
        Ok(filters.map(|hook| hook.interface()).collect::<BTreeSet<u32>>().into_iter().collect())
    }

    /// Reads the gates of a cluster's table from its elements.
    fn gates_of(&mut self, table: &str) -> io::Result<TableGates> {
        let mut all = TableGates::default();
        self.elements(table, rules::GATES, |element| {
            let group = find(element, rules::NFTA_SET_ELEM_USERDATA).and_then(rules::text_of);
            all.gates.extend(element_key(element).and_then(number).zip(group));
        })?;
        for map in [rules::SERVICE4, rules::SERVICE6] {
            self.elements(table, map, |element| {
                let ip = element_key(element).and_then(address);
                all.addresses.extend(ip.zip(element_number(element)));
            })?;
        }
        self.elements(table, rules::LEASED, |element| {
            all.leased.extend(element_key(element).and_then(number).zip(element_number(element)));
        })?;
        Ok(all)
    }

    /// Reads the cohorts and rivals of a cluster's table from its elements.
    fn rivals_of(&mut self, table: &str) -> io::Result<TableRivals> {
        let mut all = TableRivals { cohorts: self.numbers(table, rules::OPEN)?, ..TableRivals::default() };
        self.elements(table, rules::OURS, |element| {
            let subject = element_key(element).and_then(|key| key.try_into().ok()).map(Subject);
            all.subjects.extend(subject.zip(element_number(element)));
        })?;
        self.elements(table, rules::PROOFS, |element| {
            let proof = element_key(element).and_then(|key| key.get(Subject::BYTES..)?.try_into().ok());
            all.proofs.extend(proof.map(Proof).zip(element_number(element)));
        })?;
        self.elements(table, rules::PORTS, |element| {
            let port = element_key(element).and_then(|key| key.try_into().ok());
            all.ports.extend(port.map(u16::from_be_bytes));
        })?;
        for (set, bytes) in [(rules::PEERS4, 4), (rules::PEERS6, 16)] {
            self.elements(table, set, |element| {
                let key = element_key(element).unwrap_or_default();
                let ip = key.get(..bytes).and_then(address);
                let port = key.get(bytes..bytes + 2).and_then(|port| port.try_into().ok());
                all.peers.extend(ip.zip(port.map(u16::from_be_bytes)));
            })?;
        }
        Ok(all)
    }

    /// The boot time at which each cohort's lease ends.
    fn leases(&mut self, table: &str) -> io::Result<BTreeMap<u32, u64>> {
        let (wall, boot) = (clock::unix_nanos(), clock::boot_nanos());
        let mut leases = BTreeMap::new();
        self.elements(table, rules::LEASES, |element| {
            leases.extend(element_key(element).and_then(number).zip(deadline(element, wall, boot)));
        })?;
        Ok(leases)
    }

    /// The elements of a set of numbers, or the keys of a map with numbers as keys.
    fn numbers(&mut self, table: &str, set: &str) -> io::Result<BTreeSet<u32>> {
        let mut numbers = BTreeSet::new();
        self.elements(table, set, |element| numbers.extend(element_key(element).and_then(number)))?;
        Ok(numbers)
    }

    /// The number of packets that a counter has counted.
    fn counter(&mut self, table: &str, counter: &str) -> io::Result<u64> {
        let mut batch = Batch::default();
        let question = batch.question(MessageType::GetObject, false, |a| {
            a.text(rules::NFTA_OBJ_TABLE, table);
            a.text(rules::NFTA_OBJ_NAME, counter);
            a.number(rules::NFTA_OBJ_TYPE, rules::NFT_OBJECT_COUNTER);
        });
        let mut count = 0;
        self.ask(&batch, question, |a| {
            let data = find(a, rules::NFTA_OBJ_DATA).unwrap_or_default();
            let packets = find(data, rules::NFTA_COUNTER_PACKETS).and_then(|value| value.first_chunk());
            count = packets.map_or(0, |bytes| u64::from_be_bytes(*bytes));
        })?;
        Ok(count)
    }

    /// The generation of rules: it grows with each change in this network namespace.
    fn generation(&mut self) -> io::Result<u32> {
        let mut batch = Batch::default();
        let question = batch.question(MessageType::GetGeneration, false, |_| ());
        let mut generation = 0;
        self.ask(&batch, question, |a| {
            let value = find(a, rules::NFTA_GEN_ID).and_then(|value| value.first_chunk());
            generation = value.map_or(0, |bytes| u32::from_be_bytes(*bytes));
        })?;
        Ok(generation)
    }

    fn elements(&mut self, table: &str, set: &str, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.ask_all(
            |batch| all_elements(batch, table, set),
            |answer| elements_of(answer).for_each(&mut each),
        )
    }

    /// As [`numbers`](Self::numbers), for a set whose elements only disappear meanwhile. The union of several attempts
    /// contains each element that was there at the beginning and is still there. Changes by other processes do not make
    /// it fail.
    fn numbers_left(&mut self, table: &str, set: &str) -> io::Result<BTreeSet<u32>> {
        let (mut numbers, mut batch) = (BTreeSet::new(), Batch::default());
        for _ in 0..TRIES {
            let question = all_elements(&mut batch, table, set);
            let seen = |answer: &[u8]| {
                numbers
                    .extend(elements_of(answer).filter_map(|element| element_key(element).and_then(number)));
            };
            if self.ask(&batch, question, seen)? {
                break;
            }
        }
        Ok(numbers)
    }

    /// Receives one datagram into `self.answer` and returns its length; `None` if none is waiting.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        loop {
            match receive_from_kernel(&self.socket, &mut self.answer) {
                Ok(Some(length)) => return Ok(Some(length)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Asks for all elements of a set.
fn all_elements(batch: &mut Batch, table: &str, set: &str) -> u32 {
    batch.question(MessageType::GetElement, true, |a| {
        a.text(rules::NFTA_SET_ELEM_LIST_TABLE, table);
        a.text(rules::NFTA_SET_ELEM_LIST_SET, set);
    })
}

fn elements_of(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    find(answer, rules::NFTA_SET_ELEM_LIST_ELEMENTS)
        .into_iter()
        .flat_map(message::each)
        .map(|(_, element)| element)
}

fn socket(groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::RAW;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::NETFILTER))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// The interfaces named in a chain's hook: one, or a list.
fn devices(hook: &[u8]) -> Vec<String> {
    let one = find(hook, rules::NFTA_HOOK_DEV);
    let list = find(hook, rules::NFTA_HOOK_DEVS).into_iter().flat_map(message::each);
    let list = list.filter(|(kind, _)| *kind == rules::NFTA_DEVICE_NAME).map(|(_, name)| name);
    one.into_iter().chain(list).filter_map(text).collect()
}

/// The gates of a cluster's table: each gate's number, and the elements with these numbers.
#[derive(Debug, Default)]
struct TableGates {
    gates: Vec<(u32, String)>,
    addresses: Vec<(IpAddr, u32)>,
    /// The cohort of each gate, by the gate's number.
    leased: BTreeMap<u32, u32>,
}

/// The other elements of a cluster's table. Only a process that takes the table over reads them.
#[derive(Debug, Default)]
struct TableRivals {
    cohorts: BTreeSet<u32>,
    subjects: Vec<(Subject, u32)>,
    proofs: Vec<(Proof, u32)>,
    ports: BTreeSet<u16>,
    peers: BTreeSet<(IpAddr, u16)>,
}

fn element_key(element: &[u8]) -> Option<&[u8]> {
    find(find(element, rules::NFTA_SET_ELEM_KEY)?, rules::NFTA_DATA_VALUE)
}

/// The data of an element whose data are a number.
fn element_number(element: &[u8]) -> Option<u32> {
    number(find(find(element, rules::NFTA_SET_ELEM_DATA)?, rules::NFTA_DATA_VALUE)?)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// The boot time at which the lease ends that this element is, from its time-out and its comment.
fn deadline(element: &[u8], wall: u64, boot: u64) -> Option<u64> {
    let millis = find(element, rules::NFTA_SET_ELEM_EXPIRATION)?.first_chunk()?;
    let left = u64::from_be_bytes(*millis).saturating_mul(1_000_000);
    let until = find(element, rules::NFTA_SET_ELEM_USERDATA).and_then(rules::deadline_of)?;
    let left = left.min(until.saturating_sub(wall));
    (left > 0).then(|| boot.saturating_add(left))
}

fn address(key: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(key).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(key).map(IpAddr::from).ok())
}

/// Reports when a process deletes tables or chains of Locum. Readable (for epoll) when there is something to read,
/// which every renewal of this backend causes, too. If that is too often, call [`super::Gate::missing`] now and then
/// instead.
#[derive(Debug)]
pub struct TableWatch {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl TableWatch {
    /// Begins to watch the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open() -> io::Result<Self> {
        // linux/netfilter/nfnetlink.h
        const NFNLGRP_NFTABLES: u32 = 7;
        Ok(Self { socket: socket(1 << (NFNLGRP_NFTABLES - 1))?, buffer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// Reads all messages that are waiting, without blocking. Returns the tables of Locum from which something was
    /// deleted; a cluster's table is named by its packet filter. `None` if there was more than the kernel kept: check
    /// all of them then.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read(&mut self) -> io::Result<Option<BTreeSet<GateName>>> {
        let mut touched = BTreeSet::new();
        let mut lost = false;
        loop {
            let length = match receive_from_kernel(&self.socket, &mut self.buffer) {
                Ok(length) => length.unwrap_or(0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    lost = true;
                    0
                }
                Err(error) => return Err(error),
            };
            for_each_message(&self.buffer[..length], |header, payload| {
                let of_interest =
                    [MessageType::DeleteTable, MessageType::DeleteChain].map(MessageType::number);
                if of_interest.contains(&header.message_type) {
                    // The table's name is the first attribute of both.
                    let attributes = payload.get(FAMILY_BYTES..).unwrap_or_default();
                    let table = find(attributes, rules::NFTA_TABLE_NAME).and_then(text);
                    let name = |table: String| {
                        GateName::from_path(&table).or_else(|| GateName::packet_filter_from_path(&table))
                    };
                    touched.extend(table.and_then(name));
                }
                Ok(())
            })?;
        }
        Ok((!lost).then_some(touched))
    }
}

impl AsFd for TableWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_namespace;

    fn make(connection: &mut NftConnection, name: &str, numbers: std::ops::Range<u32>) {
        change(connection, &mut Batch::default(), name, |table| {
            table.make(0);
            table.make_counter();
            table.make_shared_parts(&Pattern::UNUSED);
            table.elements(
                MessageType::NewElement,
                rules::UNCONTESTED,
                numbers.clone().map(rules::ElementKey::number),
            );
            Ok(())
        })
        .unwrap();
    }

    /// A foreign process changes rules in the middle of a long answer.
    #[test]
    fn an_answer_that_changes_in_between_is_not_of_one_piece() {
        in_namespace(|| {
            let (mut connection, mut other) =
                (NftConnection::open().unwrap(), NftConnection::open().unwrap());
            make(&mut connection, "locum-test", 0..4000);
            let mut batch = Batch::default();
            let mut ask = |change: bool| {
                let number = all_elements(&mut batch, "locum-test", rules::UNCONTESTED);
                let mut pieces = 0;
                let whole = connection.ask(&batch, number, |_| {
                    pieces += 1;
                    if change && pieces == 1 {
                        make(&mut other, "locum-other", 0..1);
                    }
                });
                assert!(pieces > 1, "the answer is too short for this test");
                whole.unwrap()
            };
            assert_eq!([ask(false), ask(true), ask(false)], [true, false, true]);
            let all = BTreeSet::from_iter(0..4000);
            assert_eq!(connection.numbers("locum-test", rules::UNCONTESTED).unwrap(), all);
            assert_eq!(connection.numbers_left("locum-test", rules::UNCONTESTED).unwrap(), all);
        });
    }
}
