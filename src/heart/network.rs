//! The kernel's interfaces and addresses as the heart knows them. They are read once, then kept up to date by the
//! kernel's notifications, so that nothing has to be asked when every millisecond counts.

use std::{
    io, mem,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use locum_sys::netlink::{Interface, InterfaceAddress, Netlink, NetworkChange, NetworkMonitor, NewAddress};

use super::register::Register;

/// How many datagrams of the kernel are read at a time; each tells of one change. That covers all 4,096 groups of a
/// file.
const READS_A_TURN: usize = 8192;

/// The interfaces, the addresses, and the two connections to the kernel behind them.
pub(super) struct Network {
    /// The connection for changes of our own.
    pub(super) netlink: Netlink,
    monitor: NetworkMonitor,
    changes: Vec<NetworkChange>,
    /// The changes since they were last taken.
    changed: Changed,
    /// A notification was missed, and the state could not be read again since, so it is older.
    stale: bool,
    /// It was reported that the state cannot be read.
    stale_reported: bool,
    interfaces: Vec<Interface>,
    addresses: Register,
}

/// The kinds of changes that the kernel told of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changed {
    /// Any change at all.
    pub(super) anything: bool,
    /// A change of interfaces.
    pub(super) interfaces: bool,
    /// A change of interfaces, or of addresses that do not bear our mark: links depend on these.
    pub(super) others: bool,
}

impl Network {
    pub(super) fn open() -> io::Result<Self> {
        // The monitor is opened first: a change between the two is then told twice and not missed.
        let opened = || Ok((NetworkMonitor::open()?, Netlink::open()?));
        let (monitor, netlink) = opened().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("the kernel gives no netlink socket: {error}"))
        })?;
        let mut network = Self {
            netlink,
            monitor,
            changes: Vec::new(),
            changed: Changed::default(),
            stale: false,
            stale_reported: false,
            interfaces: Vec::new(),
            addresses: Register::default(),
        };
        network.reload()?;
        Ok(network)
    }

    /// Applies the notifications of the kernel.
    ///
    /// The kernel tells of our own changes before it answers their request, so a refresh after a change shows it. If a
    /// notification was missed, the state is read again at once. If the kernel does not give a whole list now,
    /// [`catch_up`](Self::catch_up) reads it later, and the earlier state holds until then.
    ///
    /// # Errors
    /// The kernel's notifications cannot be read. A missing list is no error here: no operation fails because of it.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        let mut changes = mem::take(&mut self.changes);
        let read = self.read_some(&mut changes);
        let missed = read.is_err() || changes.contains(&NetworkChange::Lost);
        for change in changes.drain(..) {
            let (of_interfaces, ours) = match &change {
                NetworkChange::Address(address) | NetworkChange::AddressGone(address) => {
                    (false, address.marked)
                }
                NetworkChange::Interface(_) | NetworkChange::InterfaceGone(_) | NetworkChange::Lost => {
                    (true, false)
                }
            };
            let is_news = self.apply(change);
            self.changed.anything |= is_news;
            self.changed.interfaces |= is_news && of_interfaces;
            self.changed.others |= is_news && !ours;
        }
        self.changes = changes;
        if missed && !mem::replace(&mut self.stale, true) {
            let _ = self.ask_again();
        }
        read
    }

    /// Reads a bounded number, so that another process that makes changes without pause does not hold up the heart. The
    /// rest is read next time.
    fn read_some(&mut self, changes: &mut Vec<NetworkChange>) -> io::Result<()> {
        for _ in 0..READS_A_TURN {
            if !self.monitor.read(changes)? {
                break;
            }
        }
        Ok(())
    }

    /// Reads the state again if a notification was missed. Call it once a second. Returns why that fails, once while it
    /// lasts; `Interrupted` if addresses change each time that they are read.
    pub(super) fn catch_up(&mut self) -> Option<io::Error> {
        let fault = if self.stale { self.ask_again().err() } else { None };
        let was_told = mem::replace(&mut self.stale_reported, fault.is_some());
        fault.filter(|_| !was_told)
    }

    fn ask_again(&mut self) -> io::Result<()> {
        self.reload()?;
        self.stale = false;
        self.changed = Changed { anything: true, interfaces: true, others: true };
        Ok(())
    }

    /// Returns the changes since the last call.
    pub(super) fn take_changed(&mut self) -> Changed {
        mem::take(&mut self.changed)
    }

    fn reload(&mut self) -> io::Result<()> {
        let (interfaces, mut addresses) = (self.netlink.interfaces()?, self.netlink.addresses()?);
        self.interfaces = interfaces;
        // The rest of a lifetime is never the same.
        addresses.iter_mut().for_each(|address| address.lifetime = None);
        self.addresses = Register::of(addresses);
        Ok(())
    }

    /// Applies a change. Returns whether it changes anything. A lifetime that begins anew is told like a new address.
    fn apply(&mut self, change: NetworkChange) -> bool {
        match change {
            NetworkChange::Interface(new) => {
                match self.interfaces.iter_mut().find(|old| old.index == new.index) {
                    Some(old) => mem::replace(old, new.clone()) != new,
                    None => {
                        self.interfaces.push(new);
                        true
                    }
                }
            }
            NetworkChange::InterfaceGone(gone) => {
                self.interfaces.retain(|old| old.index != gone.index);
                self.addresses.take_all_of(gone.index);
                true
            }
            NetworkChange::Address(new) => self.addresses.put(InterfaceAddress { lifetime: None, ..new }),
            NetworkChange::AddressGone(gone) => {
                self.addresses.take(&gone);
                true
            }
            NetworkChange::Lost => true,
        }
    }

    pub(super) fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    pub(super) fn interface_by_index(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The interfaces in the kernel's order.
    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The addresses. Those that existed when they were read are in the kernel's order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &InterfaceAddress> + Clone {
        self.addresses.iter()
    }

    /// Adds an address of ours that was put: the kernel tells of an IPv6 address a moment after it has acknowledged it.
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

    /// Removes an address of ours, as the kernel has acknowledged.
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

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        thread,
    };

    use locum_sys::namespace::{self, NewNamespaces};

    use super::*;

    /// Runs `body` with the loopback of a new network namespace, or says that it did not.
    fn with_loopback(body: impl FnOnce(u32) + Send) {
        let alone = || {
            let fresh = NewNamespaces {
                network: true,
                mounts: false,
                host_name: false,
                processes: false,
                ipc: false,
            };
            match namespace::enter_new(fresh) {
                Ok(()) => body(Netlink::open().unwrap().interface("lo").unwrap().index),
                Err(error) => {
                    let _ = writeln!(
                        io::stderr(),
                        "skipped: cannot make a network namespace of our own here: {error}"
                    );
                }
            }
        };
        thread::scope(|scope| {
            scope.spawn(alone).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
    }

    fn number(n: u32) -> IpAddr {
        let byte = |n: u32| u8::try_from(n).unwrap();
        IpAddr::from([10, 9, byte(n / 250), byte(n % 250 + 1)])
    }

    fn there(network: &Network, ip: IpAddr) -> bool {
        network.carrying(ip).next().is_some()
    }

    #[test]
    fn what_was_missed_is_asked_for_at_once_and_then_once_a_second() {
        with_loopback(|index| {
            let mut network = Network::open().unwrap();
            // This is more than the socket holds while it is not read.
            let mut other = Netlink::open().unwrap();
            for _ in 0..6 {
                for n in 0..1000 {
                    other.add_address(&NewAddress::new(index, number(n), 32)).unwrap();
                }
                for n in 1..1000 {
                    other.delete_address(&InterfaceAddress::new(index, number(n), 32)).unwrap();
                }
                other.delete_address(&InterfaceAddress::new(index, number(0), 32)).unwrap();
            }
            other.add_address(&NewAddress::new(index, number(1500), 32)).unwrap();
            network.refresh().unwrap();
            assert!(there(&network, number(1500)) && !there(&network, number(1)));
            assert!(!network.stale && network.take_changed().others);

            // It is not read with every operation: if the kernel gives no whole list, each of them would ask in vain.
            network.take_out(&InterfaceAddress::new(index, number(1500), 32));
            network.stale = true;
            network.refresh().unwrap();
            assert!(network.stale && !there(&network, number(1500)));
            assert!(network.catch_up().is_none());
            assert!(!network.stale && there(&network, number(1500)));
        });
    }

    #[test]
    fn addresses_that_change_without_pause_fail_no_operation() {
        with_loopback(|index| {
            let mut network = Network::open().unwrap();
            let mut other = Netlink::open().unwrap();
            for n in 0..2000 {
                other.add_address(&NewAddress::new(index, number(n), 32)).unwrap();
            }
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                // Its thread is in the same network namespace.
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        for n in 2000..2100 {
                            other.add_address(&NewAddress::new(index, number(n), 32)).unwrap();
                            other.delete_address(&InterfaceAddress::new(index, number(n), 32)).unwrap();
                        }
                    }
                });
                for n in 0..200 {
                    network.stale = n % 2 == 0;
                    network.refresh().unwrap();
                    let new = NewAddress::new(index, number(5000 + n), 32);
                    network.netlink.add_address(&new).unwrap();
                    network.take_in(&new);
                    assert!(there(&network, number(5000 + n)));
                    let fault = network.catch_up();
                    assert!(fault.is_none_or(|why| why.kind() == io::ErrorKind::Interrupted));
                }
                is_over.store(true, Relaxed);
            });
            // As soon as there is a pause, all of it is known.
            network.refresh().unwrap();
            network.catch_up();
            assert!(!network.stale && !network.stale_reported);
            assert!((0..2000).chain(5000..5200).all(|n| there(&network, number(n))));
            assert!((2000..2100).all(|n| !there(&network, number(n))));
        });
    }
}
