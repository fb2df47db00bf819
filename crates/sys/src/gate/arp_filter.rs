//! **The ARP filter**: a question about a service address, by ARP or by neighbour discovery, is answered on the
//! address's own interface and on no other. Linux answers ARP for any of its addresses on whatever interface the
//! question arrives, but a gate covers only the address's own interface. With two interfaces on one segment, a killed
//! owner would go on answering on the other one.
//!
//! The filter knows nothing of leases and needs no renewal: on the own interface the gate decides. As rules of
//! nf_tables it is one table per family, and also covers interfaces that come later. As programs on tcx it has to be
//! attached to each interface, which takes 10 to 20 ms each: too long for a thread that has beats to send.

use std::{collections::BTreeMap, io, net::IpAddr, path::PathBuf};

use super::{Backend, GateName, bpf, nft};
use crate::netlink::Netlink;

/// The service addresses, each with the number of its own interface; `None` while that is not known: then no interface
/// answers for it.
pub type OwnInterfaces = BTreeMap<IpAddr, Option<u32>>;

/// The ARP filter of one cluster, in the calling thread's network namespace. Dropping the value changes nothing in the
/// kernel.
#[derive(Debug)]
pub struct ArpFilter {
    backend: Backend,
    own_interfaces: OwnInterfaces,
    handle: ArpFilterHandle,
    checks: u32,
}

/// One check out of this many also compares the addresses: with thousands of them that takes a while, and they rarely
/// disappear without the table or map that holds them.
const CHECKS_PER_COMPARISON: u32 = 60;

#[derive(Debug)]
enum ArpFilterHandle {
    Tables(nft::arp_filter::ArpTables),
    Programs(bpf::arp_filter::ArpPrograms),
}

impl ArpFilter {
    /// Makes the filter for these addresses. A filter left by an earlier daemon is taken over without a gap. Addresses
    /// of that filter that are not in `homes` are kept if they are still configured on this machine.
    ///
    /// # Errors
    /// The kernel's error, and the step that failed.
    pub fn open(backend: &Backend, cluster: &str, mut own_interfaces: OwnInterfaces) -> io::Result<Self> {
        let name = GateName::new(cluster, "").arp_filter();
        let mut hold = match backend {
            Backend::Nft => ArpFilterHandle::Tables(nft::arp_filter::ArpTables::open(name.path())?),
            Backend::Bpf { bpffs } => {
                ArpFilterHandle::Programs(bpf::arp_filter::ArpPrograms::open(bpffs, &name)?)
            }
        };
        let (old, others): (Vec<_>, Vec<_>) = list()?.into_iter().partition(|listed| listed.name == name);
        let standing = Netlink::open()?.addresses()?;
        for (ip, home) in old.iter().flat_map(|listed| &listed.own_interfaces) {
            if standing.iter().any(|address| address.ip == *ip) {
                own_interfaces.entry(*ip).or_insert(*home);
            }
        }
        match &mut hold {
            ArpFilterHandle::Tables(tables) => tables.set(&own_interfaces)?,
            ArpFilterHandle::Programs(programs) => {
                programs.set(&own_interfaces)?;
                programs.cover()?;
            }
        }
        // An address belongs to one cluster. If a filter of another name has one of these, an earlier daemon under that
        // name left it.
        for listed in others {
            let shared: Vec<_> =
                listed.own_interfaces.keys().filter(|ip| own_interfaces.contains_key(ip)).copied().collect();
            if !shared.is_empty() {
                // Refused while that cluster's daemon is running: then the address is its own.
                let _ = remove_addresses(&listed, &shared);
            }
        }
        // Left by an earlier daemon that used the other backend.
        for listed in old.iter().filter(|listed| listed.backend != *backend) {
            remove(listed)?;
        }
        Ok(Self { backend: backend.clone(), own_interfaces, handle: hold, checks: 0 })
    }

    /// The backend that implements the filter.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Moves the address to that interface: from now on only that one answers for it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn move_to(&mut self, ip: IpAddr, interface: u32) -> io::Result<()> {
        let old = self.own_interfaces.get(&ip).copied().flatten();
        if old == Some(interface) {
            return Ok(());
        }
        match &mut self.handle {
            ArpFilterHandle::Tables(tables) => tables.move_to(ip, old, interface)?,
            ArpFilterHandle::Programs(programs) => programs.move_to(ip, interface)?,
        }
        self.own_interfaces.insert(ip, Some(interface));
        Ok(())
    }

    /// Attaches and detaches programs after interfaces have come, gone, or become ports of a bridge. Rules need
    /// nothing: they are not bound to interfaces.
    ///
    /// # Errors
    /// The kernel's first error; the other interfaces are covered all the same.
    pub fn cover(&mut self) -> io::Result<()> {
        match &mut self.handle {
            ArpFilterHandle::Tables(_) => Ok(()),
            ArpFilterHandle::Programs(programs) => programs.cover(),
        }
    }

    /// Puts back what somebody removed, and returns descriptions of it. To be called once a second. The first check,
    /// and one each minute, also compare the addresses.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn check_and_restore(&mut self) -> io::Result<Vec<String>> {
        let compared = self.checks.is_multiple_of(CHECKS_PER_COMPARISON).then_some(&self.own_interfaces);
        self.checks = self.checks.wrapping_add(1);
        let missing = match &mut self.handle {
            ArpFilterHandle::Tables(tables) => tables.missing(compared)?,
            ArpFilterHandle::Programs(programs) => programs.missing(compared)?,
        };
        if !missing.is_empty() {
            match &mut self.handle {
                ArpFilterHandle::Tables(tables) => tables.set(&self.own_interfaces)?,
                ArpFilterHandle::Programs(programs) => programs.restore(&self.own_interfaces)?,
            }
        }
        Ok(missing)
    }

    /// Removes the filter completely.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn remove(self, cluster: &str) -> io::Result<()> {
        match self.handle {
            ArpFilterHandle::Tables(mut tables) => tables.remove().map(drop),
            ArpFilterHandle::Programs(_) => match &self.backend {
                Backend::Bpf { bpffs } => {
                    bpf::arp_filter::remove(bpffs, &GateName::new(cluster, "").arp_filter()).map(drop)
                }
                Backend::Nft => Ok(()),
            },
        }
    }
}

/// A filter found in the kernel, whichever process made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedArpFilter {
    /// The cluster that it belongs to; see [`GateName::cluster`].
    pub name: GateName,
    /// The backend that implements it.
    pub backend: Backend,
    /// Its addresses, with their own interfaces.
    pub own_interfaces: OwnInterfaces,
}

/// All filters of the calling thread's network namespace and of the bpf file system that is mounted, if any.
///
/// # Errors
/// The kernel's error.
pub fn list() -> io::Result<Vec<ListedArpFilter>> {
    let mut all = Vec::new();
    // If nf_tables cannot be asked, this process cannot have made a table.
    for table in nft::arp_filter::tables().unwrap_or_default() {
        let Some(name) = GateName::arp_filter_from_path(&table) else { continue };
        let homes = nft::arp_filter::ArpTables::open(table)?.own_interfaces()?;
        all.push(ListedArpFilter { name, backend: Backend::Nft, own_interfaces: homes });
    }
    if let Some(bpffs) = super::find_bpffs()? {
        for name in bpf::arp_filter::clusters(&bpffs)? {
            let homes = bpf::arp_filter::own_interfaces(&bpffs, &name)?;
            all.push(ListedArpFilter {
                name,
                backend: Backend::Bpf { bpffs: bpffs.clone() },
                own_interfaces: homes,
            });
        }
    }
    Ok(all)
}

/// Removes a filter completely, whichever process made it.
///
/// # Errors
/// The kernel's error; `ResourceBusy` while the process that owns its tables is running.
pub fn remove(filter: &ListedArpFilter) -> io::Result<()> {
    match &filter.backend {
        Backend::Nft => nft::arp_filter::ArpTables::open(filter.name.path())?.remove().map(drop),
        Backend::Bpf { bpffs } => bpf::arp_filter::remove(bpffs, &filter.name).map(drop),
    }
}

/// Removes some addresses from a filter; if they were the last ones, the filter, too.
///
/// # Errors
/// As [`remove`].
pub fn remove_addresses(filter: &ListedArpFilter, addresses: &[IpAddr]) -> io::Result<()> {
    let is_left = match &filter.backend {
        Backend::Nft => nft::arp_filter::ArpTables::open(filter.name.path())?.remove_addresses(addresses)?,
        Backend::Bpf { bpffs } => bpf::arp_filter::remove_addresses(bpffs, &filter.name, addresses)?,
    };
    if is_left { Ok(()) } else { remove(filter) }
}

/// Chooses the backend for the filter. Rules are preferred, because they cover interfaces that come while no daemon is
/// running.
///
/// # Errors
/// The reasons why no backend works.
pub fn choose_backend(programs: Result<PathBuf, String>) -> Result<Backend, String> {
    let Err(rules) = nft::arp_filter::probe() else { return Ok(Backend::Nft) };
    match programs {
        Ok(bpffs) => Ok(Backend::Bpf { bpffs }),
        Err(programs) => Err(format!("nft: {rules}; bpf: {programs}")),
    }
}

/// Checks whether the filter can be made of rules here.
///
/// # Errors
/// A description of what is missing.
pub fn probe_rules() -> Result<(), String> {
    nft::arp_filter::probe()
}
