//! Tables of earlier versions: one per group, with all its rules. They are found, listed and removed, and their leases
//! go on in the cluster's table. They are no longer made.

use std::{collections::BTreeSet, io};

use super::{
    NftConnection, change,
    filter::busy,
    message::Batch,
    rules::{self, ElementKey},
};
use crate::{
    clock,
    gate::{Backend, GateName, ListedGate, hook::Hook},
};

/// The sets with the lease, and with the sign that no rival was heard. Each has one element or none.
const LEASE: &str = "lease";
const UNCONTESTED: &str = rules::UNCONTESTED;
const THE_KEY: u32 = 1;

pub(super) fn list_gate(connection: &mut NftConnection, name: GateName) -> io::Result<ListedGate> {
    let table = name.path();
    let hooks = connection.hooks(&table)?;
    let filters = hooks.keys().filter(|hook| !matches!(hook, Hook::ClaimListener(_)));
    let interfaces: BTreeSet<u32> = filters.map(|hook| hook.interface()).collect();
    let mut addresses = Vec::new();
    for set in [rules::SERVICE4, rules::SERVICE6] {
        connection.elements(&table, set, |element| {
            addresses.extend(super::element_key(element).and_then(super::address));
        })?;
    }
    addresses.sort();
    Ok(ListedGate {
        deadline: deadline(connection, &name)?,
        interfaces: interfaces.into_iter().collect(),
        backend: Backend::Nft,
        addresses,
        name,
    })
}

/// The boot time until which the gate is open.
pub(super) fn deadline(connection: &mut NftConnection, name: &GateName) -> io::Result<Option<u64>> {
    let table = name.path();
    let mut batch = Batch::default();
    let question = rules::ask_element(&mut batch, &table, UNCONTESTED, &ElementKey::number(THE_KEY));
    if !connection.is_there(&batch, question)? {
        return Ok(None);
    }
    let (wall, boot) = (clock::unix_nanos(), clock::boot_nanos());
    let mut deadline = None;
    connection.elements(&table, LEASE, |element| {
        deadline = super::deadline(element, wall, boot);
    })?;
    Ok(deadline)
}

/// Removes the gate's table. Returns whether there was one.
pub(super) fn remove(connection: &mut NftConnection, name: &GateName) -> io::Result<bool> {
    let table = name.path();
    if !connection.table_exists(&table)? {
        return Ok(false);
    }
    let deleted = change(connection, &mut Batch::default(), &table, |table| {
        table.delete();
        Ok(())
    });
    deleted.map(|()| true).map_err(|error| busy(&error, &table))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::gate::nft::message::MessageType;

    /// Makes a table as earlier versions did, as far as this version reads it: a gate that is open for a minute,
    /// without rules.
    pub(in crate::gate) fn make(name: &GateName, address: std::net::Ipv4Addr) {
        let mut connection = NftConnection::open().unwrap();
        let table = name.path();
        change(&mut connection, &mut Batch::default(), &table, |table| {
            table.make(0);
            table.make_old(&[
                (rules::SERVICE4, 4, 0),
                (rules::SERVICE6, 16, 0),
                (LEASE, 4, 0x30),
                (UNCONTESTED, 4, 0x20),
            ]);
            table.elements(MessageType::NewElement, rules::SERVICE4, [rules::service(address.into()).1]);
            table.elements(MessageType::NewElement, UNCONTESTED, [ElementKey::number(THE_KEY)]);
            table.old_lease(LEASE, THE_KEY, 60_000, clock::unix_nanos() + 60_000_000_000);
            Ok(())
        })
        .unwrap();
    }
}
