//! Watches in each node's kernel which service addresses it holds.

use std::{io::PipeReader, sync::Mutex};

use locum_sys::netlink::{NetworkChange, NetworkMonitor};

use super::{Hold, Record, lock, wait};
use crate::clock::Moment;

pub(super) fn watch(mut monitor: NetworkMonitor, node: &str, record: &Mutex<Record>, stop: &PipeReader) {
    let mut changes = Vec::new();
    while wait(&monitor, stop, None) {
        let at = Moment::now();
        while let Ok(true) = monitor.read(&mut changes) {}
        for change in changes.drain(..) {
            let (ip, held) = match change {
                NetworkChange::Address(address) => (address.ip, true),
                NetworkChange::AddressGone(address) => (address.ip, false),
                // Changes of interfaces are not watched here. A burst of changes beyond the kernel's buffer of a
                // megabyte does not happen in a rack.
                NetworkChange::Interface(_) | NetworkChange::InterfaceGone(_) | NetworkChange::Lost => {
                    continue;
                }
            };
            let mut record = lock(record);
            // The kernel reports every renewal; only the change counts.
            if record.changes(node, ip).last().is_some_and(|&(_, before)| before) != held {
                record.holds.push(Hold { at, node: node.into(), ip, held });
            }
        }
    }
}
