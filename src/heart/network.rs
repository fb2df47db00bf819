//! The kernel's interfaces and addresses as the heart knows them: read once, then kept up to date by the kernel's own
//! notifications, so that nothing has to be asked when every millisecond counts.

use std::{
    io, mem,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use locum_sys::netlink::{Change, Interface, InterfaceAddress, Monitor, Netlink, NewAddress};

use super::register::Register;

/// Interfaces, addresses, and the two connections to the kernel behind them.
pub(super) struct Network {
    /// For changes of our own.
    pub(super) netlink: Netlink,
    monitor: Monitor,
    changes: Vec<Change>,
    /// Since somebody last asked.
    changed: Changed,
    /// Something was missed, and could not be asked for since: what stands here is what was known before.
    stale: bool,
    interfaces: Vec<Interface>,
    addresses: Register,
}

/// What the kernel told of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changed {
    /// Anything.
    pub(super) anything: bool,
    /// Interfaces.
    pub(super) interfaces: bool,
    /// Interfaces, or addresses that do not bear our mark: what links depend on.
    pub(super) others: bool,
}

impl Network {
    pub(super) fn open() -> io::Result<Self> {
        // The monitor first: what changes between the two is told twice and not missed.
        let opened = || Ok((Monitor::open()?, Netlink::open()?));
        let (monitor, netlink) = opened().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("the kernel gives no netlink socket: {error}"))
        })?;
        let mut network = Self {
            netlink,
            monitor,
            changes: Vec::new(),
            changed: Changed::default(),
            stale: false,
            interfaces: Vec::new(),
            addresses: Register::default(),
        };
        network.reload()?;
        Ok(network)
    }

    /// Takes in all that the kernel has told.
    ///
    /// The kernel tells of our own changes before it answers their request: after one, a refresh shows it.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        let mut changes = mem::take(&mut self.changes);
        let read = (|| {
            while self.monitor.read(&mut changes)? {}
            Ok(())
        })();
        let lost = changes.contains(&Change::Lost);
        for change in changes.drain(..) {
            let (of_interfaces, ours) = match &change {
                Change::Address(address) | Change::AddressGone(address) => (false, address.marked),
                Change::Interface(_) | Change::InterfaceGone(_) | Change::Lost => (true, false),
            };
            let is_news = self.apply(change);
            self.changed.anything |= is_news;
            self.changed.interfaces |= is_news && of_interfaces;
            self.changed.others |= is_news && !ours;
        }
        self.changes = changes;
        self.stale |= lost || read.is_err();
        if self.stale {
            self.reload()?;
            self.stale = false;
            self.changed = Changed { anything: true, interfaces: true, others: true };
        }
        read
    }

    /// Asks again for what was missed, if anything was. What the kernel refuses is asked for once more with the next call.
    pub(super) fn catch_up(&mut self) {
        if self.stale {
            let _ = self.refresh();
        }
    }

    /// What the kernel told of since this was last asked.
    pub(super) fn take_changed(&mut self) -> Changed {
        mem::take(&mut self.changed)
    }

    fn reload(&mut self) -> io::Result<()> {
        let (interfaces, mut addresses) = (self.netlink.interfaces()?, self.netlink.addresses()?);
        self.interfaces = interfaces;
        // What is left of a lifetime is never the same.
        addresses.iter_mut().for_each(|address| address.lifetime = None);
        self.addresses = Register::of(addresses);
        Ok(())
    }

    /// Whether it is news: a lifetime that begins anew is told like a new address.
    fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Interface(new) => match self.interfaces.iter_mut().find(|old| old.index == new.index) {
                Some(old) => mem::replace(old, new.clone()) != new,
                None => {
                    self.interfaces.push(new);
                    true
                }
            },
            Change::InterfaceGone(gone) => {
                self.interfaces.retain(|old| old.index != gone.index);
                self.addresses.take_all_of(gone.index);
                true
            }
            Change::Address(new) => self.addresses.put(InterfaceAddress { lifetime: None, ..new }),
            Change::AddressGone(gone) => {
                self.addresses.take(&gone);
                true
            }
            Change::Lost => true,
        }
    }

    pub(super) fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    pub(super) fn interface_by_index(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// Interfaces in the kernel's order.
    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Addresses, in the kernel's order for those that stood when it was asked.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &InterfaceAddress> + Clone {
        self.addresses.iter()
    }

    /// An address of ours was put and stands: of an IPv6 address the kernel tells a moment after it has acknowledged it.
    pub(super) fn take_in(&mut self, new: &NewAddress) {
        let there = |old: &InterfaceAddress| {
            old.interface == new.interface && old.ip == new.ip && old.prefix == new.prefix
        };
        if !self.carrying(new.ip).any(there) {
            let address = InterfaceAddress {
                label: new.label.clone(),
                broadcast: new.broadcast,
                no_prefix_route: new.no_prefix_route,
                marked: new.marked,
                ..InterfaceAddress::new(new.interface, new.ip, new.prefix)
            };
            self.addresses.put(address);
        }
    }

    /// An address of ours was taken off, as the kernel has acknowledged.
    pub(super) fn take_out(&mut self, gone: &InterfaceAddress) {
        self.addresses.take(gone);
    }

    /// Whether `ip` stands on that interface.
    pub(super) fn carries(&self, interface: u32, ip: IpAddr) -> bool {
        self.carrying(ip).any(|address| address.interface == interface)
    }

    /// The places where this address stands, in the kernel's order.
    pub(super) fn carrying(&self, ip: IpAddr) -> impl Iterator<Item = &InterfaceAddress> {
        self.addresses.at(ip)
    }

    /// The address with the longest mask in whose network `ip` lies, of one interface or of all.
    pub(super) fn choose(&self, interface: Option<u32>, ip: IpAddr) -> Option<&InterfaceAddress> {
        self.addresses.choose(interface, ip)
    }
}

impl AsFd for Network {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}
