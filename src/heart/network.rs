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
    /// Something was told since somebody last asked.
    changed: bool,
    /// And that of interfaces.
    interfaces_changed: bool,
    interfaces: Vec<Interface>,
    addresses: Vec<InterfaceAddress>,
    /// The same, to be found without a walk.
    register: Register,
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
            changed: false,
            interfaces_changed: false,
            interfaces: Vec::new(),
            addresses: Vec::new(),
            register: Register::default(),
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
            let is_of_addresses = matches!(change, Change::Address(_) | Change::AddressGone(_));
            let is_news = self.apply(change);
            self.changed |= is_news;
            self.interfaces_changed |= is_news && !is_of_addresses;
        }
        self.changes = changes;
        if lost || read.is_err() {
            self.reload()?;
        }
        read
    }

    /// Whether the kernel told anything since the last time this was asked.
    pub(super) fn take_changed(&mut self) -> bool {
        mem::take(&mut self.changed)
    }

    /// The same of interfaces alone.
    pub(super) fn take_interfaces_changed(&mut self) -> bool {
        mem::take(&mut self.interfaces_changed)
    }

    fn reload(&mut self) -> io::Result<()> {
        self.interfaces = self.netlink.interfaces()?;
        self.addresses = self.netlink.addresses()?;
        // What is left of a lifetime is never the same.
        self.addresses.iter_mut().for_each(|address| address.lifetime = None);
        self.register = Register::of(self.addresses.clone());
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
                self.addresses.retain(|address| address.interface != gone.index);
                self.register.take_all_of(gone.index);
                true
            }
            Change::Address(new) => {
                let new = InterfaceAddress { lifetime: None, ..new };
                if !self.register.put(new.clone()) {
                    return false;
                }
                match self.addresses.iter_mut().find(|old| is_same(old, &new)) {
                    Some(old) => mem::replace(old, new.clone()) != new,
                    None => {
                        self.addresses.push(new);
                        true
                    }
                }
            }
            Change::AddressGone(gone) => {
                self.register.take(&gone);
                self.addresses.retain(|old| !is_same(old, &gone));
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
    pub(super) fn addresses(&self) -> &[InterfaceAddress] {
        &self.addresses
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
            self.register.put(address.clone());
            self.addresses.push(address);
        }
    }

    /// Whether `ip` stands on that interface.
    pub(super) fn carries(&self, interface: u32, ip: IpAddr) -> bool {
        self.carrying(ip).any(|address| address.interface == interface)
    }

    /// The places where this address stands, in the kernel's order.
    pub(super) fn carrying(&self, ip: IpAddr) -> impl Iterator<Item = &InterfaceAddress> {
        self.register.at(ip)
    }

    /// The address with the longest mask in whose network `ip` lies, of one interface or of all.
    pub(super) fn choose(&self, interface: Option<u32>, ip: IpAddr) -> Option<&InterfaceAddress> {
        self.register.choose(interface, ip)
    }
}

impl AsFd for Network {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

/// The kernel allows one address on one interface several times with different masks.
fn is_same(a: &InterfaceAddress, b: &InterfaceAddress) -> bool {
    a.interface == b.interface && a.ip == b.ip && a.prefix == b.prefix
}
