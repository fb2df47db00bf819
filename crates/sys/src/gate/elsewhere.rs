//! **The ARP filter**: a question about a service address, by ARP or by neighbour discovery, is answered on the
//! address's own interface and on no other. Linux answers ARP for any of its addresses on whatever interface the
//! question arrives, but a gate covers only the address's own interface. With two interfaces on one segment, a killed
//! owner would go on answering on the other one.
//!
//! The filter knows nothing of leases and needs no renewal: on the own interface the gate decides. As rules of
//! nf_tables it is one table per family, and also covers interfaces that come later. As programs on tcx it has to be
//! attached to each interface, which takes 10 to 20 ms each: too long for a thread that has beats to send.

use std::{collections::BTreeMap, io, net::IpAddr, path::PathBuf};

use super::{Engine, Name, bpf, nft};
use crate::netlink::Netlink;

/// The service addresses, each with the number of its own interface; `None` while that is not known: then no interface
/// answers for it.
pub type Homes = BTreeMap<IpAddr, Option<u32>>;

/// The ARP filter of one cluster, in the calling thread's network namespace. Dropping the value changes nothing in the
/// kernel.
#[derive(Debug)]
pub struct ArpFilter {
    engine: Engine,
    homes: Homes,
    hold: Hold,
    looks: u32,
}

/// One check out of this many also compares the addresses: with thousands of them that takes a while, and they rarely
/// disappear without the table or map that holds them.
const LOOKS_A_COMPARISON: u32 = 60;

#[derive(Debug)]
enum Hold {
    Tables(nft::elsewhere::Tables),
    Programs(bpf::elsewhere::Programs),
}

impl ArpFilter {
    /// Makes the filter for these addresses. A filter left by an earlier daemon is taken over without a gap. Addresses
    /// of that filter that are not in `homes` are kept if they are still configured on this machine.
    ///
    /// # Errors
    /// The kernel's error, and the step that failed.
    pub fn open(engine: &Engine, cluster: &str, mut homes: Homes) -> io::Result<Self> {
        let name = Name::new(cluster, "").elsewhere();
        let mut hold = match engine {
            Engine::Nft => Hold::Tables(nft::elsewhere::Tables::open(name.path())?),
            Engine::Bpf { bpffs } => Hold::Programs(bpf::elsewhere::Programs::open(bpffs, &name)?),
        };
        let (old, others): (Vec<_>, Vec<_>) = list()?.into_iter().partition(|listed| listed.name == name);
        let standing = Netlink::open()?.addresses()?;
        for (ip, home) in old.iter().flat_map(|listed| &listed.homes) {
            if standing.iter().any(|address| address.ip == *ip) {
                homes.entry(*ip).or_insert(*home);
            }
        }
        match &mut hold {
            Hold::Tables(tables) => tables.set(&homes)?,
            Hold::Programs(programs) => {
                programs.set(&homes)?;
                programs.cover()?;
            }
        }
        // An address belongs to one cluster. If a filter of another name has one of these, an earlier daemon under that
        // name left it.
        for listed in others {
            let shared: Vec<_> = listed.homes.keys().filter(|ip| homes.contains_key(ip)).copied().collect();
            if !shared.is_empty() {
                // Refused while that cluster's daemon is running: then the address is its own.
                let _ = take_out(&listed, &shared);
            }
        }
        // Left by an earlier daemon that used the other backend.
        for listed in old.iter().filter(|listed| listed.engine != *engine) {
            remove(listed)?;
        }
        Ok(Self { engine: engine.clone(), homes, hold, looks: 0 })
    }

    /// The backend that implements the filter.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Moves the address to that interface: from now on only that one answers for it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn settle(&mut self, ip: IpAddr, interface: u32) -> io::Result<()> {
        let old = self.homes.get(&ip).copied().flatten();
        if old == Some(interface) {
            return Ok(());
        }
        match &mut self.hold {
            Hold::Tables(tables) => tables.settle(ip, old, interface)?,
            Hold::Programs(programs) => programs.settle(ip, interface)?,
        }
        self.homes.insert(ip, Some(interface));
        Ok(())
    }

    /// Attaches and detaches programs after interfaces have come, gone, or become ports of a bridge. Rules need
    /// nothing: they are not bound to interfaces.
    ///
    /// # Errors
    /// The kernel's first error; the other interfaces are covered all the same.
    pub fn cover(&mut self) -> io::Result<()> {
        match &mut self.hold {
            Hold::Tables(_) => Ok(()),
            Hold::Programs(programs) => programs.cover(),
        }
    }

    /// Puts back what somebody removed, and returns descriptions of it. To be called once a second. The first check,
    /// and one each minute, also compare the addresses.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn look_after(&mut self) -> io::Result<Vec<String>> {
        let compared = self.looks.is_multiple_of(LOOKS_A_COMPARISON).then_some(&self.homes);
        self.looks = self.looks.wrapping_add(1);
        let missing = match &mut self.hold {
            Hold::Tables(tables) => tables.missing(compared)?,
            Hold::Programs(programs) => programs.missing(compared)?,
        };
        if !missing.is_empty() {
            match &mut self.hold {
                Hold::Tables(tables) => tables.set(&self.homes)?,
                Hold::Programs(programs) => programs.restore(&self.homes)?,
            }
        }
        Ok(missing)
    }

    /// Removes the filter completely.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn remove(self, cluster: &str) -> io::Result<()> {
        match self.hold {
            Hold::Tables(mut tables) => tables.remove().map(drop),
            Hold::Programs(_) => match &self.engine {
                Engine::Bpf { bpffs } => {
                    bpf::elsewhere::remove(bpffs, &Name::new(cluster, "").elsewhere()).map(drop)
                }
                Engine::Nft => Ok(()),
            },
        }
    }
}

/// A filter found in the kernel, whichever process made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFilter {
    /// The cluster that it belongs to; see [`Name::cluster`].
    pub name: Name,
    /// The backend that implements it.
    pub engine: Engine,
    /// Its addresses, with their own interfaces.
    pub homes: Homes,
}

/// All filters of the calling thread's network namespace and of the bpf file system that is mounted, if any.
///
/// # Errors
/// The kernel's error.
pub fn list() -> io::Result<Vec<ListedFilter>> {
    let mut all = Vec::new();
    // If nf_tables cannot be asked, this process cannot have made a table.
    for table in nft::elsewhere::tables().unwrap_or_default() {
        let Some(name) = Name::from_elsewhere(&table) else { continue };
        let homes = nft::elsewhere::Tables::open(table)?.homes()?;
        all.push(ListedFilter { name, engine: Engine::Nft, homes });
    }
    if let Some(bpffs) = super::find_bpffs()? {
        for name in bpf::elsewhere::standing(&bpffs)? {
            let homes = bpf::elsewhere::homes(&bpffs, &name)?;
            all.push(ListedFilter { name, engine: Engine::Bpf { bpffs: bpffs.clone() }, homes });
        }
    }
    Ok(all)
}

/// Removes a filter completely, whichever process made it.
///
/// # Errors
/// The kernel's error; `ResourceBusy` while the process that owns its tables is running.
pub fn remove(filter: &ListedFilter) -> io::Result<()> {
    match &filter.engine {
        Engine::Nft => nft::elsewhere::Tables::open(filter.name.path())?.remove().map(drop),
        Engine::Bpf { bpffs } => bpf::elsewhere::remove(bpffs, &filter.name).map(drop),
    }
}

/// Removes some addresses from a filter; if they were the last ones, the filter, too.
///
/// # Errors
/// As [`remove`].
pub fn take_out(filter: &ListedFilter, addresses: &[IpAddr]) -> io::Result<()> {
    let is_left = match &filter.engine {
        Engine::Nft => nft::elsewhere::Tables::open(filter.name.path())?.take_out(addresses)?,
        Engine::Bpf { bpffs } => bpf::elsewhere::take_out(bpffs, &filter.name, addresses)?,
    };
    if is_left { Ok(()) } else { remove(filter) }
}

/// Chooses the backend for the filter. Rules are preferred, because they cover interfaces that come while no daemon is
/// running.
///
/// # Errors
/// The reasons why no backend works.
pub fn choose(programs: Result<PathBuf, String>) -> Result<Engine, String> {
    let Err(rules) = nft::elsewhere::probe() else { return Ok(Engine::Nft) };
    match programs {
        Ok(bpffs) => Ok(Engine::Bpf { bpffs }),
        Err(programs) => Err(format!("nft: {rules}; bpf: {programs}")),
    }
}

/// Checks whether the filter can be made of rules here.
///
/// # Errors
/// A description of what is missing.
pub fn probe_rules() -> Result<(), String> {
    nft::elsewhere::probe()
}
