//! **The ARP filter**: a question about a service address, by ARP or by neighbour discovery, is answered on the address's own
//! interface and on no other. Linux answers ARP for any of its addresses on whatever interface the question comes in, and a
//! gate stands on the address's own interface alone: with two interfaces on one segment a killed owner would go on answering
//! on the other one.
//!
//! It knows nothing of leases and needs no renewal: what is answered on the own interface is the gate's affair. By rules of
//! nf_tables it is one table a family, and holds on interfaces that come later. By programs on tcx it has to be put on each
//! interface, which takes 10 to 20 ms each: not for a thread that has beats to send.

use std::{collections::BTreeMap, io, net::IpAddr, path::PathBuf};

use super::{Engine, Name, bpf, nft};
use crate::netlink::Netlink;

/// The service addresses, each with the number of the interface on which it is answered for; on none as long as that is not
/// known.
pub type Homes = BTreeMap<IpAddr, Option<u32>>;

/// The filter of one cluster, in the calling thread's network namespace. Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct ArpFilter {
    engine: Engine,
    homes: Homes,
    hold: Hold,
    looks: u32,
}

/// In one of so many looks the addresses are compared, too: thousands take a while, and they go with what holds them.
const LOOKS_A_COMPARISON: u32 = 60;

#[derive(Debug)]
enum Hold {
    Tables(nft::elsewhere::Tables),
    Programs(bpf::elsewhere::Programs),
}

impl ArpFilter {
    /// Makes the filter stand for these addresses. What an earlier life left is taken over without a hole; an address that it
    /// has, that is none of these, and that stands on this machine still, is kept.
    ///
    /// # Errors
    /// What the kernel says, and to what.
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
        // An address is in one cluster: what the filter of another name has of these is from a life under that name.
        for listed in others {
            let shared: Vec<_> = listed.homes.keys().filter(|ip| homes.contains_key(ip)).copied().collect();
            if !shared.is_empty() {
                // Refused while that cluster's daemon lives: then it is that one's.
                let _ = take_out(&listed, &shared);
            }
        }
        // By the other engine, an earlier life's.
        for listed in old.iter().filter(|listed| listed.engine != *engine) {
            remove(listed)?;
        }
        Ok(Self { engine: engine.clone(), homes, hold, looks: 0 })
    }

    /// What does the work.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// From now on the address is answered for on that interface, and on no other.
    ///
    /// # Errors
    /// What the kernel says.
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

    /// Interfaces have come, gone, or become ports of a bridge: programs are put on and taken off. Rules stand on none.
    ///
    /// # Errors
    /// What the kernel says of the first that it refuses; the others are covered.
    pub fn cover(&mut self) -> io::Result<()> {
        match &mut self.hold {
            Hold::Tables(_) => Ok(()),
            Hold::Programs(programs) => programs.cover(),
        }
    }

    /// Puts back what somebody took away; what that was, in words. To be called once a second: in the first look and each
    /// minute the addresses are compared, too.
    ///
    /// # Errors
    /// What the kernel says.
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

    /// Leaves nothing of it.
    ///
    /// # Errors
    /// What the kernel says.
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

/// A filter that stands, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFilter {
    /// Of which cluster; [`Name::cluster`].
    pub name: Name,
    /// What does the work.
    pub engine: Engine,
    /// Its addresses.
    pub homes: Homes,
}

/// All filters of the calling thread's network namespace and of the bpf file system that is mounted, if any.
///
/// # Errors
/// What the kernel says.
pub fn list() -> io::Result<Vec<ListedFilter>> {
    let mut all = Vec::new();
    // Where nf_tables cannot be asked nothing of it stands that this process could have made.
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

/// Leaves nothing of a filter, whoever made it.
///
/// # Errors
/// What the kernel says; `ResourceBusy` while the process lives to which its tables belong.
pub fn remove(filter: &ListedFilter) -> io::Result<()> {
    match &filter.engine {
        Engine::Nft => nft::elsewhere::Tables::open(filter.name.path())?.remove().map(drop),
        Engine::Bpf { bpffs } => bpf::elsewhere::remove(bpffs, &filter.name).map(drop),
    }
}

/// Takes some addresses out of a filter, and leaves nothing of it if they were the last.
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

/// What can make the filter here. Rules are preferred: they hold on interfaces that come when no daemon lives.
///
/// # Errors
/// Why nothing can.
pub fn choose(programs: Result<PathBuf, String>) -> Result<Engine, String> {
    let Err(rules) = nft::elsewhere::probe() else { return Ok(Engine::Nft) };
    match programs {
        Ok(bpffs) => Ok(Engine::Bpf { bpffs }),
        Err(programs) => Err(format!("nft: {rules}; bpf: {programs}")),
    }
}

/// Whether rules can make the filter here.
///
/// # Errors
/// What is missing, in words.
pub fn probe_rules() -> Result<(), String> {
    nft::elsewhere::probe()
}
