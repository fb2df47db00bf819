//! The other engine: a table of nf_tables in the netdev family, with chains at ingress and egress of each interface.
//! It lets packets of a service address pass while a timed element stands *and* the wall clock is below a deadline:
//! a time-out alone begins when the kernel gets it, which may be late; the wall clock alone may be set back.
//!
//! Spoken by netlink; no program is run. A table belongs to the socket that made it, where the kernel knows that
//! (Linux 6.9): then nobody's `flush ruleset` deletes it, and it survives its socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, netlink, netlink::SocketAddrNetlink};

use super::{Engine, Listed, Name, Renewal, Renewed, Settings, hook::Hook, said, with_interface};
use crate::{
    clock,
    netlink::{error_code, for_each_message, interface_name, receive_from_kernel},
};

mod message;
mod rules;

use message::{Attributes, Batch, FAMILY_BYTES, Kind, find, text};
use rules::Table;

/// The kernel's answers to a dump come in pieces of at most this size.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A batch is tried again when a change by somebody else came in between.
const TRIES: usize = 5;

/// A gate of this engine.
#[derive(Debug)]
pub(super) struct Gate {
    table: String,
    connection: Connection,
    batch: Batch,
    /// The number of the request in `batch` that is acknowledged.
    last: u32,
    /// Renewals by beats sent until then open nothing: a rival may have been heard.
    contested: u64,
}

impl Gate {
    /// Makes the gate stand as `settings` say, whatever of it stands already. A lease that runs goes on, unless it is
    /// to be closed first.
    pub(super) fn install(settings: &Settings, closed: bool) -> io::Result<Self> {
        let mut connection =
            Connection::open().map_err(|error| said(&error, "open a connection to nf_tables"))?;
        let table = settings.name.path();
        let stands = connection.table_exists(&table)?;
        // In a table that was there already a rival may have been heard, and nobody knows when.
        let contested = if stands { clock::boot_nanos() } else { 0 };
        let mut gate = Self { table, connection, batch: Batch::default(), last: 0, contested };
        // A new table is shut. To shut one that is not there costs milliseconds: the kernel takes a batch back only when all
        // readers have left it.
        if closed && stands {
            match gate.close() {
                // Not what could be shut.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                other => other.map_err(|error| said(&error, &format!("shut the table {}", settings.name)))?,
            }
        }
        gate.update(settings)?;
        Ok(gate)
    }

    /// Makes all stand as `settings` say, in one step. A new table is shut.
    pub(super) fn update(&mut self, settings: &Settings) -> io::Result<()> {
        let doing = |error| said(&error, &format!("make the table {}", settings.name));
        // Owned and persistent, if the kernel knows both and nobody made it otherwise.
        match self.write(settings, rules::OWNED | rules::PERSISTS) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                self.write(settings, 0).map_err(doing)
            }
            other => other.map_err(doing),
        }
    }

    fn write(&mut self, settings: &Settings, flags: u32) -> io::Result<()> {
        let fresh = !self.connection.table_exists(&self.table)?;
        let standing = self.connection.hooks(&self.table)?;
        let wanted = Hook::wanted(settings);
        self.change(|table| {
            table.make(flags);
            table.furnish(settings);
            if fresh {
                table.settle();
            }
            for (&hook, _) in standing.iter().filter(|(hook, _)| !wanted.contains(hook)) {
                table.delete_hook(hook);
            }
            for &hook in &wanted {
                let device = interface_name(hook.interface())
                    .map_err(|error| said(&error, &format!("interface {}", hook.interface())))?;
                let stands = standing.get(&hook).is_some_and(|devices| devices.contains(&device));
                table.make_hook(hook, (!stands).then_some(&device));
            }
            Ok(())
        })
    }

    pub(super) fn prepare(&mut self, renewal: Renewal) {
        // The wall clock first: whoever is frozen between the two gets an earlier deadline, never a later one.
        self.prepare_at(clock::unix_nanos(), renewal);
    }

    /// As if the wall clock stood there.
    pub(super) fn prepare_at(&mut self, wall: u64, renewal: Renewal) {
        let left = renewal.deadline.saturating_sub(clock::boot_nanos());
        self.batch.begin();
        let mut table = Table { name: &self.table, batch: &mut self.batch };
        if left == 0 {
            table.shut();
        } else {
            table.open(left.div_ceil(1_000_000), wall.saturating_add(left));
        }
        self.last = self.batch.finish();
    }

    /// Sends what was prepared for this renewal.
    pub(super) fn commit(&mut self, renewal: Renewal) -> io::Result<Renewed> {
        if renewal.sent <= self.contested {
            return Ok(Renewed::Shut { since: self.contested, rival: None });
        }
        self.connection.perform(&self.batch, self.last)?;
        // The element that a rival deletes is not in the batch: what was heard before or after stays heard.
        let question = rules::ask_element(&mut self.batch, &self.table, rules::UNCONTESTED);
        if self.connection.is_there(&self.batch, question)? {
            return Ok(Renewed::Open);
        }
        self.change(|table| {
            table.shut();
            table.settle();
            Ok(())
        })?;
        // After the rival could be heard again: a beat sent from now on was sent after all that went unheard.
        self.contested = clock::boot_nanos();
        Ok(Renewed::Shut { since: self.contested, rival: None })
    }

    pub(super) fn close(&mut self) -> io::Result<()> {
        self.change(|table| {
            table.shut();
            Ok(())
        })
    }

    pub(super) fn set_proofs(&mut self, settings: &Settings) -> io::Result<()> {
        self.change(|table| {
            table.listen(settings.rivals.as_ref(), &settings.proofs);
            Ok(())
        })
    }

    /// What of the gate is not in the kernel any more.
    pub(super) fn missing(&mut self, settings: &Settings) -> io::Result<Vec<String>> {
        if !self.connection.table_exists(&self.table)? {
            return Ok(vec![format!("the table {}", self.table)]);
        }
        let mut missing = Vec::new();
        let (standing, rules) = (self.connection.hooks(&self.table)?, self.connection.rules(&self.table)?);
        for hook in Hook::wanted(settings) {
            let stands = standing.get(&hook).is_some_and(|devices| {
                interface_name(hook.interface()).is_ok_and(|name| devices.contains(&name))
            });
            if !stands || rules.get(&hook.name()) != Some(&1) {
                let chain = format!("the chain {} on", hook.name());
                missing.push(with_interface(&chain, hook.interface()));
            }
        }
        for (chain, count) in rules::expected(settings) {
            if rules.get(chain) != Some(&count) {
                missing.push(format!("rules of the chain {chain}"));
            }
        }
        let mut wanted = settings.addresses.clone();
        wanted.sort();
        wanted.dedup();
        if self.connection.addresses(&self.table)? != wanted {
            missing.push("addresses".into());
        }
        Ok(missing)
    }

    pub(super) fn delete_table(&mut self) -> io::Result<()> {
        self.change(|table| {
            table.delete();
            Ok(())
        })
    }

    /// What a table that is gone belonged to.
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    fn change(&mut self, body: impl Fn(&mut Table<'_>) -> io::Result<()>) -> io::Result<()> {
        change(&mut self.connection, &mut self.batch, &self.table, body)
    }
}

/// One batch, again when somebody else's change came in between.
fn change(
    connection: &mut Connection,
    batch: &mut Batch,
    name: &str,
    body: impl Fn(&mut Table<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut result = Ok(());
    for _ in 0..TRIES {
        batch.begin();
        body(&mut Table { name, batch })?;
        let last = batch.finish();
        result = connection.perform(batch, last);
        if !matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EAGAIN)) {
            break;
        }
    }
    result
}

pub(super) fn stands(name: &Name) -> io::Result<bool> {
    Connection::open()?.table_exists(&name.path())
}

pub(super) fn list() -> io::Result<Vec<Listed>> {
    let mut connection = Connection::open()?;
    let mut names: Vec<_> = connection.tables()?.iter().filter_map(|table| Name::from_path(table)).collect();
    names.sort();
    names.into_iter().map(|name| look(&mut connection, name)).collect()
}

fn look(connection: &mut Connection, name: Name) -> io::Result<Listed> {
    let table = name.path();
    let hooks = connection.hooks(&table)?;
    let judges = hooks.keys().filter(|hook| !matches!(hook, Hook::Ear(_)));
    let interfaces: BTreeSet<u32> = judges.map(|hook| hook.interface()).collect();
    let mut batch = Batch::default();
    let question = rules::ask_element(&mut batch, &table, rules::UNCONTESTED);
    let uncontested = connection.is_there(&batch, question)?;
    let deadline = if uncontested { connection.lease(&table)? } else { None };
    Ok(Listed {
        addresses: connection.addresses(&table)?,
        interfaces: interfaces.into_iter().collect(),
        deadline,
        engine: Engine::Nft,
        name,
    })
}

pub(super) fn remove(name: &Name) -> io::Result<bool> {
    let mut connection = Connection::open()?;
    let table = name.path();
    if !connection.table_exists(&table)? {
        return Ok(false);
    }
    let deleted = change(&mut connection, &mut Batch::default(), &table, |table| {
        table.delete();
        Ok(())
    });
    deleted.map(|()| true).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => {
            let text = format!("the table {table} belongs to a process that still lives: stop that first");
            io::Error::new(io::ErrorKind::ResourceBusy, text)
        }
        _ => said(&error, &format!("delete the table {table}")),
    })
}

/// Why this engine does not work for the calling thread.
pub(super) fn probe() -> Result<(), String> {
    let mut connection = Connection::open().map_err(|error| match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT) => "the kernel has no nf_netlink (CONFIG_NETFILTER_NETLINK)".to_owned(),
        _ => format!("no connection to nf_tables: {error}"),
    })?;
    // No name of a gate: it does not outlive the batch.
    let name = format!("{}-probe-{}", super::ROOT, std::process::id());
    let loopback = 1;
    let settings = |interfaces| Settings {
        name: Name::new("", ""),
        addresses: Vec::new(),
        interfaces,
        rivals: None,
        proofs: Vec::new(),
    };
    let mut attempt = |hooks: &[Hook], rules: bool| {
        change(&mut connection, &mut Batch::default(), &name, |table| {
            table.make(0);
            if rules {
                table.furnish(&settings(vec![loopback]));
                table.settle();
                table.open(1, 1);
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
    attempt(&[Hook::In(loopback)], true)
        .map_err(|error| format!("no netdev ingress hook (CONFIG_NETFILTER_INGRESS): {error}"))?;
    attempt(&[Hook::Out(loopback)], true)
        .map_err(|error| format!("no netdev egress hook (Linux 5.16, CONFIG_NETFILTER_EGRESS): {error}"))
}

/// A netlink socket to nf_tables of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    answer: Vec<u8>,
}

impl Connection {
    fn open() -> io::Result<Self> {
        Ok(Self { socket: socket(0)?, answer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// Sends a batch, and reads what the kernel has answered when that returns.
    fn perform(&mut self, batch: &Batch, last: u32) -> io::Result<()> {
        rustix::net::send(&self.socket, &batch.bytes, SendFlags::empty())?;
        let mut done = false;
        let mut result = Ok(());
        // Each request that fails has an answer, and all are there before the call returns.
        while let Some(length) = self.receive()? {
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
            Ok(()) if !done => Err(io::Error::new(io::ErrorKind::InvalidData, "nf_tables has not answered")),
            other => other,
        }
    }

    /// Whether what is asked for exists.
    fn is_there(&mut self, question: &Batch, number: u32) -> io::Result<bool> {
        match self.ask(question, number, |_| ()) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks, and shows each answer's attributes.
    fn ask(&mut self, question: &Batch, number: u32, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        rustix::net::send(&self.socket, &question.bytes, SendFlags::empty())?;
        let mut done = false;
        while !done {
            let Some(length) = self.receive()? else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "nf_tables has not answered"));
            };
            for_each_message(&self.answer[..length], |header, payload| {
                if header.sequence_number != number {
                    return Ok(());
                }
                match header.message_type {
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => {
                        done = true;
                        error_code(payload)?;
                    }
                    _ => {
                        done |= header.flags & NLM_F_MULTIPART == 0;
                        each(payload.get(FAMILY_BYTES..).unwrap_or_default());
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// All of a kind, that `body` narrows down.
    fn dump(
        &mut self,
        kind: Kind,
        body: impl Fn(&mut Attributes<'_>),
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut batch = Batch::default();
        let number = batch.question(kind, true, body);
        self.ask(&batch, number, &mut each)
    }

    fn table_exists(&mut self, table: &str) -> io::Result<bool> {
        let mut batch = Batch::default();
        let number = batch.question(Kind::GetTable, false, |a| a.text(rules::TABLE_NAME, table));
        self.is_there(&batch, number)
    }

    fn tables(&mut self) -> io::Result<Vec<String>> {
        let mut tables = Vec::new();
        self.dump(Kind::GetTable, |_| (), |a| tables.extend(find(a, rules::TABLE_NAME).and_then(text)))?;
        Ok(tables)
    }

    /// The chains of a table that stand on interfaces, with the names of these.
    fn hooks(&mut self, table: &str) -> io::Result<BTreeMap<Hook, Vec<String>>> {
        let mut hooks = BTreeMap::new();
        self.dump(
            Kind::GetChain,
            |_| (),
            |a| {
                let of_table = find(a, rules::CHAIN_TABLE).and_then(text).is_some_and(|name| name == table);
                let hook = find(a, rules::CHAIN_NAME).and_then(text).and_then(|name| Hook::parse(&name));
                if let (true, Some(hook)) = (of_table, hook) {
                    hooks.insert(hook, find(a, rules::CHAIN_HOOK).map(devices).unwrap_or_default());
                }
            },
        )?;
        Ok(hooks)
    }

    /// How many rules each chain of a table has that has any.
    fn rules(&mut self, table: &str) -> io::Result<BTreeMap<String, usize>> {
        let mut rules: BTreeMap<String, usize> = BTreeMap::new();
        self.dump(
            Kind::GetRule,
            |a| a.text(rules::RULE_TABLE, table),
            |a| {
                let of_table = find(a, rules::RULE_TABLE).and_then(text).is_some_and(|name| name == table);
                if let (true, Some(chain)) = (of_table, find(a, rules::RULE_CHAIN).and_then(text)) {
                    *rules.entry(chain).or_default() += 1;
                }
            },
        )?;
        Ok(rules)
    }

    /// The service addresses of a table, sorted.
    fn addresses(&mut self, table: &str) -> io::Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for set in rules::service_sets() {
            self.elements(table, set, |element| addresses.extend(element_key(element).and_then(address)))?;
        }
        addresses.sort();
        Ok(addresses)
    }

    /// Until which boot time a table's lease runs.
    fn lease(&mut self, table: &str) -> io::Result<Option<u64>> {
        let (wall, boot) = (clock::unix_nanos(), clock::boot_nanos());
        let mut deadline = None;
        self.elements(table, rules::LEASE, |element| {
            let millis = find(element, rules::ELEMENT_EXPIRES).and_then(|value| value.first_chunk());
            let left = millis.map(|bytes| u64::from_be_bytes(*bytes).saturating_mul(1_000_000));
            let until = find(element, rules::ELEMENT_NOTE).and_then(rules::deadline_of);
            if let (Some(left), Some(until)) = (left, until) {
                let left = left.min(until.saturating_sub(wall));
                deadline = (left > 0).then(|| boot.saturating_add(left));
            }
        })?;
        Ok(deadline)
    }

    fn elements(&mut self, table: &str, set: &str, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.dump(
            Kind::GetElement,
            |a| {
                a.text(rules::ELEMENTS_TABLE, table);
                a.text(rules::ELEMENTS_SET, set);
            },
            |a| {
                for (_, element) in find(a, rules::ELEMENTS).into_iter().flat_map(message::each) {
                    each(element);
                }
            },
        )
    }

    /// One datagram into `self.answer`; its length; `None` when none is waiting.
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

fn socket(groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::RAW;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::NETFILTER))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// The interfaces that a chain's hook names: one, or a list.
fn devices(hook: &[u8]) -> Vec<String> {
    let one = find(hook, rules::HOOK_DEVICE);
    let list = find(hook, rules::HOOK_DEVICES).into_iter().flat_map(message::each);
    let list = list.filter(|(kind, _)| *kind == rules::DEVICE_NAME).map(|(_, name)| name);
    one.into_iter().chain(list).filter_map(text).collect()
}

fn element_key(element: &[u8]) -> Option<&[u8]> {
    find(find(element, rules::ELEMENT_KEY)?, rules::DATA)
}

fn address(key: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(key).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(key).map(IpAddr::from).ok())
}

/// Tells when tables or chains of ours are deleted, by whomever: readable (for epoll) when there is something to read,
/// which every renewal of this engine causes too. Where that is too often, [`super::Gate::missing`] now and then does.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Watch {
    /// Begins to watch the calling thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        // linux/netfilter/nfnetlink.h
        const NFNLGRP_NFTABLES: u32 = 7;
        Ok(Self { socket: socket(1 << (NFNLGRP_NFTABLES - 1))?, buffer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// Reads all that is waiting, without blocking: the tables of ours of which something was deleted. `None`: there
    /// was more than the kernel kept; look at all of them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&mut self) -> io::Result<Option<BTreeSet<Name>>> {
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
                let of_interest = [Kind::DeleteTable, Kind::DeleteChain].map(Kind::number);
                if of_interest.contains(&header.message_type) {
                    // The table's name is the first attribute of both.
                    let attributes = payload.get(FAMILY_BYTES..).unwrap_or_default();
                    let table = find(attributes, rules::TABLE_NAME).and_then(text);
                    touched.extend(table.and_then(|table| Name::from_path(&table)));
                }
                Ok(())
            })?;
        }
        Ok((!lost).then_some(touched))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
