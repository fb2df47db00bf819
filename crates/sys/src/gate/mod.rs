//! **The gate**: lets the service addresses of a group answer only while an unexpired lease stands in the kernel,
//! whatever happens to the process that renews it (`docs/gate.md`).
//!
//! A shut gate silently drops packets on each of its interfaces, in both directions: IPv4 and IPv6 packets from and to
//! a service address, ARP packets with one as sender or target, and neighbour solicitations and advertisements about
//! one. All other packets pass. The gate is open as long as the boot-time clock is below its deadline. If it listens to
//! rivals, the beat behind the last renewal must also have been sent after the last rival was heard.
//!
//! Two backends do the same: `bpf`, a program on tcx that reads its deadlines from memory shared with this process, and
//! `nft`, rules of nf_tables. Both stay in the kernel when the process ends, and then they shut at the deadline.
//!
//! One packet filter ([`PacketFilter`]) per interface serves all groups of a cluster.

use std::{fmt, io, net::IpAddr, path::PathBuf, sync::Arc};

pub mod arp_filter;
mod bpf;
mod hook;
mod name;
mod nft;
mod pattern;
#[cfg(test)]
mod tests;

pub use bpf::{CUSTOMARY_MOUNT_POINT as BPFFS, ensure_bpffs, find_bpffs, pass_everything};
use hook::Hook;
pub use name::GateName;
pub use nft::TableWatch;
pub use pattern::{Pattern, Proof, Subject};

/// All names that Locum uses in the kernel begin with this.
const ROOT: &str = "locum";
/// The most gates that a cluster can have on one machine: as many as groups.
pub const GATES_MAX: u32 = 4096;
/// The most service addresses and peers of one gate, together.
pub const ADDRESSES_MAX: usize = 1024;
/// The most proofs that one gate expects at a time; further ones are left out.
pub const PROOFS_MAX: usize = 12;

/// The mechanism that implements a gate in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// An eBPF program, pinned in this bpf file system.
    Bpf {
        /// Where it is mounted.
        bpffs: PathBuf,
    },
    /// Rules of nf_tables, in one table per cluster.
    Nft,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bpf { .. } => "bpf",
            Self::Nft => "nft",
        })
    }
}

/// Whose claims shut this gate. The gate hears them in the packet path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RivalSettings {
    /// The numbers of the interfaces on which they are heard.
    pub interfaces: Vec<u32>,
    /// The addresses whose announcements are believed.
    pub peers: Vec<IpAddr>,
    /// The UDP port to which claims are announced.
    pub port: u16,
    /// What is announced when this node's ownership of the group ends.
    pub subject: Subject,
}

/// How a gate is to be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSettings {
    /// The cluster and the group that the gate belongs to.
    pub name: GateName,
    /// The service addresses that it opens and shuts. An address belongs to one gate of a cluster only.
    pub addresses: Vec<IpAddr>,
    /// The numbers of the interfaces that it covers, at least.
    pub interfaces: Vec<u32>,
    /// Whose claims shut it; `None` if no claims do.
    pub rivals: Option<RivalSettings>,
    /// An announced claim shuts the gate only if it carries one of these proofs. The first [`PROOFS_MAX`] count.
    pub proofs: Vec<Proof>,
}

impl GateSettings {
    /// A copy without the interfaces that no longer exist.
    fn present(&self) -> Self {
        let mut present = self.clone();
        let lists = present.rivals.iter_mut().map(|rivals| &mut rivals.interfaces);
        for list in lists.chain([&mut present.interfaces]) {
            list.retain(|interface| check_interface(*interface).is_ok());
        }
        present
    }

    fn check(&self) -> io::Result<()> {
        let peers = self.rivals.as_ref().map_or(0, |rivals| rivals.peers.len());
        let count = self.addresses.len() + peers;
        if count > ADDRESSES_MAX {
            let text = format!(
                "a gate cannot have {count} addresses and peers together, at most {ADDRESSES_MAX}: split the group \
                 in two"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let heard = self.rivals.iter().flat_map(|rivals| &rivals.interfaces);
        self.interfaces.iter().chain(heard).try_for_each(|interface| check_interface(*interface))
    }
}

/// A renewal of a gate's lease, in nanoseconds of [`crate::clock::boot_nanos`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The gate is open until this time.
    pub deadline: u64,
    /// The time when the beat behind this renewal was sent.
    pub sent: u64,
}

/// What a renewal achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// The gate is open until the deadline.
    Open,
    /// A rival was heard after the beat was sent. The gate stays shut until a later beat renews it.
    Shut {
        /// Beats sent before this boot time cannot open the gate.
        since: u64,
    },
}

/// The packet filter of one cluster, which serves the gates of all its groups. It can be set up before any group has a
/// gate, because setting it up is the slow part. By itself it blocks nothing: addresses that are in no gate pass.
/// Dropping the value changes nothing in the kernel.
///
/// `bpf`: programs on interfaces, which take tens of milliseconds to attach and detach. `nft`: a table with chains on
/// interfaces.
#[derive(Debug)]
pub struct PacketFilter {
    backend: Backend,
    name: GateName,
    handle: FilterHandle,
}

#[derive(Debug)]
enum FilterHandle {
    Bpf(Arc<bpf::BpfFilter>),
    Nft(Arc<nft::NftFilter>),
}

impl PacketFilter {
    /// Finds or makes the packet filter of a cluster, whose rivals announce their claims by datagrams of this
    /// pattern. Where an earlier run left it in place it goes on without a packet in between, with the programs of this
    /// version, and leases run on.
    ///
    /// # Errors
    /// What the kernel says, and to what; `InvalidInput` for a pattern that cannot be compared.
    pub fn open(backend: &Backend, cluster: &str, pattern: Pattern) -> io::Result<Self> {
        pattern.check()?;
        let name = GateName::new(cluster, "").packet_filter();
        let handle = match backend {
            Backend::Bpf { bpffs } => {
                FilterHandle::Bpf(Arc::new(bpf::BpfFilter::open(bpffs, &name, pattern, true)?))
            }
            Backend::Nft => FilterHandle::Nft(Arc::new(nft::NftFilter::open(&name, pattern, true)?)),
        };
        Ok(Self { backend: backend.clone(), name, handle })
    }

    /// Puts the packet filter on the interface with that number, until it is removed.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn cover(&self, interface: u32) -> io::Result<()> {
        check_interface(interface)?;
        Hook::of_packet_filter(interface).into_iter().try_for_each(|hook| self.cover_hook(hook))
    }

    /// Hears rivals on the interface with that number, until it is removed. Datagrams to that port that have the shape
    /// of a claim's announcement are dropped there, whether they shut a gate or not.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn listen(&self, interface: u32, port: u16) -> io::Result<()> {
        check_interface(interface)?;
        match &self.handle {
            FilterHandle::Bpf(filter) => filter.listen_to(port)?,
            FilterHandle::Nft(filter) => filter.listen_to(port)?,
        }
        self.cover_hook(Hook::ClaimListener(interface))
    }

    fn cover_hook(&self, hook: Hook) -> io::Result<()> {
        match &self.handle {
            FilterHandle::Bpf(filter) => filter.cover(hook),
            FilterHandle::Nft(filter) => filter.cover(hook),
        }
    }

    /// Whether the kernel protects the packet filter from changes by other processes (`nft`, Linux 6.9). If it does, no
    /// watch is needed.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        matches!(&self.handle, FilterHandle::Nft(filter) if filter.is_owned())
    }

    /// Renews gates that this packet filter made, all at once. Gates without a renewal are shut. `nft` makes one change
    /// for all gates with the same renewal, and asks one question. The result of each gate is returned in their order;
    /// `None` for those that were to be shut.
    ///
    /// # Errors
    /// As [`Gate::renew`], for all of them. After an error none may have been renewed.
    pub fn renew<'a>(
        &self,
        orders: impl Iterator<Item = (&'a Gate, Option<Renewal>)>,
    ) -> io::Result<Vec<Option<RenewalOutcome>>> {
        match &self.handle {
            FilterHandle::Bpf(_) => {
                let renew = |(gate, renewal): (&Gate, Option<Renewal>)| match (&gate.handle, renewal) {
                    (GateHandle::Bpf(gate), Some(renewal)) => Some(gate.renew(renewal)),
                    (GateHandle::Bpf(gate), None) => {
                        gate.close();
                        None
                    }
                    (GateHandle::Nft(_), _) => None,
                };
                Ok(orders.map(renew).collect())
            }
            FilterHandle::Nft(filter) => {
                let number = |(gate, renewal): (&Gate, _)| match &gate.handle {
                    GateHandle::Nft(gate) => Some((gate.number(), renewal)),
                    GateHandle::Bpf(_) => None,
                };
                filter.renew(&orders.filter_map(number).collect::<Vec<_>>())
            }
        }
    }

    /// As [`Gate::set_proofs`], for many gates that this packet filter made, all at once.
    ///
    /// # Errors
    /// As there, for all of them.
    pub fn set_proofs<'a>(&self, orders: impl Iterator<Item = (&'a mut Gate, Vec<Proof>)>) -> io::Result<()> {
        let mut numbers = Vec::new();
        for (gate, proofs) in orders {
            gate.settings.proofs = proofs;
            match &mut gate.handle {
                GateHandle::Bpf(hold) => hold.set_proofs(&gate.settings.proofs),
                GateHandle::Nft(hold) => numbers.push((hold.number(), &gate.settings.proofs[..])),
            }
        }
        match &self.handle {
            FilterHandle::Nft(filter) => filter.set_proofs(&numbers),
            FilterHandle::Bpf(_) => Ok(()),
        }
    }

    /// As [`Gate::install`], for a group of this cluster.
    ///
    /// # Errors
    /// As there; `AddrInUse` where another gate has an address already.
    pub fn install(&self, settings: GateSettings) -> io::Result<Gate> {
        self.set_up(settings, true)
    }

    /// As [`Gate::adopt`], for a group of this cluster.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn adopt(&self, settings: GateSettings) -> io::Result<Option<Gate>> {
        let stands = match &self.handle {
            FilterHandle::Bpf(_) => Gate::exists(&self.backend, &settings.name)?,
            FilterHandle::Nft(filter) => filter.has_gate(&settings.name),
        };
        stands.then(|| self.set_up(settings, false)).transpose()
    }

    fn set_up(&self, settings: GateSettings, closed: bool) -> io::Result<Gate> {
        settings.check()?;
        let handle = match &self.handle {
            FilterHandle::Bpf(filter) => {
                GateHandle::Bpf(bpf::BpfGate::install(Arc::clone(filter), &settings, closed)?)
            }
            FilterHandle::Nft(filter) => {
                GateHandle::Nft(Box::new(nft::NftGate::install(Arc::clone(filter), &settings, closed)?))
            }
        };
        Ok(Gate { settings, backend: self.backend.clone(), handle })
    }

    /// Describes what is missing in the kernel. Parts that belong to one gate alone are reported by [`Gate::missing`].
    /// An interface that no longer exists does not count as missing.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn missing(&self) -> io::Result<Vec<String>> {
        match &self.handle {
            FilterHandle::Bpf(filter) => filter.missing(usize::MAX),
            FilterHandle::Nft(filter) => filter.missing(),
        }
    }

    /// As [`missing`](Self::missing), but checks at most that many hooks of interfaces, each time others. `nft` asks
    /// for all rules at once, and checks them all.
    ///
    /// # Errors
    /// The kernel's error; `Interrupted` if rules kept changing, so that nothing is known.
    pub fn missing_of(&self, most: usize) -> io::Result<Vec<String>> {
        match &self.handle {
            FilterHandle::Bpf(filter) => filter.missing(most),
            FilterHandle::Nft(filter) => filter.missing(),
        }
    }

    /// Puts back what is missing. With `bpf` each gate puts back its own part. `nft` puts back the gates' parts, too; a
    /// part that is made anew is shut until it is renewed.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn restore(&self) -> io::Result<()> {
        match &self.handle {
            FilterHandle::Bpf(filter) => filter.restore(),
            FilterHandle::Nft(filter) => filter.restore(),
        }
    }

    /// The number of claim announcements that were dropped here because they prove nothing: they came from no named
    /// peer, were of another version or cut off, or were for a group of this node without a proof that its gate
    /// expects. Announcements about other nodes are dropped without being counted.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn refused(&self) -> io::Result<u64> {
        match &self.handle {
            FilterHandle::Bpf(filter) => Ok(filter.refused()),
            FilterHandle::Nft(filter) => filter.refused(),
        }
    }

    /// If a foreign program runs before ours on an interface and could decide in its place, puts ours in front again
    /// without missing a packet. One call repairs one hook, which takes 10 to 20 ms, and returns which one. At most
    /// `most` hooks are checked, each time others. Rules need no place in front: no other chain's verdict passes a
    /// packet that one of them drops.
    ///
    /// # Errors
    /// The kernel's error; the foreign program is still in front then.
    pub fn stay_in_front(&self, most: usize) -> io::Result<Option<Overtaken>> {
        let FilterHandle::Bpf(filter) = &self.handle else { return Ok(None) };
        Ok(filter.stay_in_front(most)?.map(|(interface, by)| Overtaken { interface, by }))
    }

    /// Removes it completely, unless a gate of the cluster still exists.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn remove(self) -> io::Result<()> {
        match self.handle {
            FilterHandle::Bpf(filter) => filter.remove(&self.name).map(drop),
            FilterHandle::Nft(filter) => filter.remove().map(drop),
        }
    }
}

/// A foreign program that ran before a gate's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overtaken {
    /// The number of the interface where it ran.
    pub interface: u32,
    /// The foreign program's name, or its number.
    pub by: String,
}

/// A gate in the kernel. Dropping the value changes nothing there: the gate stays, and shuts at its deadline.
#[derive(Debug)]
pub struct Gate {
    settings: GateSettings,
    backend: Backend,
    handle: GateHandle,
}

#[derive(Debug)]
enum GateHandle {
    Bpf(bpf::BpfGate),
    Nft(Box<nft::NftGate>),
}

impl Gate {
    /// Sets the gate up, shut, in the calling thread's network namespace. What an earlier run left of it is used and
    /// shut at once. It hears no rivals. `nft`: it has its cluster's table for itself; for several gates, or with
    /// rivals, make them by a [`PacketFilter`].
    ///
    /// # Errors
    /// What the kernel says, and to what. `nft`: `ResourceBusy` while somebody else has the cluster's table. `InvalidInput` with
    /// rivals.
    pub fn install(backend: &Backend, settings: GateSettings) -> io::Result<Self> {
        Self::set_up(backend, settings, true)
    }

    /// Takes over the gate that an earlier daemon left. It is changed to `settings` without being shut or open in
    /// between, and its lease goes on. `None` if no part of it exists.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn adopt(backend: &Backend, settings: GateSettings) -> io::Result<Option<Self>> {
        Self::exists(backend, &settings.name)?.then(|| Self::set_up(backend, settings, false)).transpose()
    }

    fn exists(backend: &Backend, name: &GateName) -> io::Result<bool> {
        match backend {
            Backend::Bpf { bpffs } => Ok(bpf::BpfGate::exists(bpffs, name)),
            Backend::Nft => nft::gate_exists(name),
        }
    }

    fn set_up(backend: &Backend, settings: GateSettings, closed: bool) -> io::Result<Self> {
        settings.check()?;
        if settings.rivals.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a gate without a packet filter hears no rivals",
            ));
        }
        let handle = match backend {
            Backend::Bpf { bpffs } => {
                let filter = bpf::BpfFilter::open(bpffs, &settings.name, Pattern::UNUSED, false)?;
                GateHandle::Bpf(bpf::BpfGate::install(Arc::new(filter), &settings, closed)?)
            }
            Backend::Nft => {
                let filter = nft::NftFilter::open(&settings.name, Pattern::UNUSED, false)?;
                GateHandle::Nft(Box::new(nft::NftGate::install(Arc::new(filter), &settings, closed)?))
            }
        };
        Ok(Self { settings, backend: backend.clone(), handle })
    }

    /// The backend that implements the gate.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The settings that the gate has now.
    #[must_use]
    pub fn settings(&self) -> &GateSettings {
        &self.settings
    }

    /// Opens the gate until the deadline; a deadline earlier than the last one shuts it then. A deadline that has
    /// passed opens nothing, however late the renewal reaches the kernel.
    ///
    /// `bpf` stores two numbers. `nft` makes two short requests, and waits only for answers that are there already.
    ///
    /// # Errors
    /// `nft`: the kernel's error, `NotFound` when the table is gone; see [`missing`](Self::missing).
    pub fn renew(&mut self, renewal: Renewal) -> io::Result<RenewalOutcome> {
        self.prepare(renewal).commit()
    }

    /// Prepares a renewal without changing the kernel. If the process is frozen before [`PreparedRenewal::commit`] and goes on
    /// after the deadline, the commit opens nothing.
    pub fn prepare(&mut self, renewal: Renewal) -> PreparedRenewal<'_> {
        if let GateHandle::Nft(gate) = &mut self.handle {
            gate.prepare(renewal);
        }
        PreparedRenewal { gate: self, renewal }
    }

    /// Shuts the gate now.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub fn close(&mut self) -> io::Result<()> {
        match &mut self.handle {
            GateHandle::Bpf(gate) => gate.close(),
            GateHandle::Nft(gate) => gate.close()?,
        }
        Ok(())
    }

    /// Sets the proofs that shut the gate when an announced claim carries one of them. To be called before this node
    /// sends anything that may let a rival make one of the new proofs.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub fn set_proofs(&mut self, proofs: &[Proof]) -> io::Result<()> {
        self.settings.proofs = proofs.into();
        match &mut self.handle {
            GateHandle::Bpf(gate) => gate.set_proofs(proofs),
            GateHandle::Nft(gate) => gate.set_proofs(proofs)?,
        }
        Ok(())
    }

    /// Puts the gate on one more interface. To be called before the address is put there.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn add_interface(&mut self, interface: u32) -> io::Result<()> {
        check_interface(interface)?;
        if !self.settings.interfaces.contains(&interface) {
            self.settings.interfaces.push(interface);
        }
        match &mut self.handle {
            GateHandle::Bpf(gate) => gate.add_interface(interface),
            GateHandle::Nft(gate) => gate.add_interface(interface),
        }
    }

    /// Takes the gate from an interface. To be called after the address was removed there. A packet filter that serves
    /// all groups stays there.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn remove_interface(&mut self, interface: u32) -> io::Result<()> {
        self.settings.interfaces.retain(|other| *other != interface);
        match &mut self.handle {
            GateHandle::Bpf(gate) => gate.remove_interface(interface, &self.settings.name),
            GateHandle::Nft(gate) => gate.remove_interface(interface),
        }
    }

    /// Describes what is missing in the kernel; empty if the gate is complete. For a gate made by a [`PacketFilter`] this
    /// covers only the parts that the [packet filter](PacketFilter::missing) does not report.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn missing(&mut self) -> io::Result<Vec<String>> {
        match &mut self.handle {
            GateHandle::Bpf(gate) => gate.missing(&self.settings),
            GateHandle::Nft(gate) => gate.missing(&self.settings),
        }
    }

    /// Puts back what is missing, except on interfaces that are gone. `nft`: a part that is made anew is shut until it
    /// is renewed.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn restore(&mut self) -> io::Result<()> {
        let present = self.settings.present();
        match &mut self.handle {
            GateHandle::Bpf(gate) => gate.restore(&present),
            GateHandle::Nft(gate) => gate.restore(&present),
        }
    }

    /// For tests: does what a foreign `flush ruleset` does on kernels without table owners.
    #[cfg(test)]
    fn forget_table(&mut self) {
        if let GateHandle::Nft(gate) = &mut self.handle {
            gate.delete_table();
        }
    }

    /// For tests: gives access to a gate's elements in a table without an owner.
    #[cfg(test)]
    fn nft(&self) -> &nft::NftGate {
        match &self.handle {
            GateHandle::Nft(gate) => gate,
            GateHandle::Bpf(_) => unreachable!("another backend was asked for"),
        }
    }

    /// Removes the gate completely. From then on the addresses answer wherever they are configured.
    ///
    /// # Errors
    /// The kernel's error. The gate then still exists, or the parts of it that are listed.
    pub fn remove(self) -> io::Result<()> {
        match self.handle {
            GateHandle::Bpf(gate) => gate.remove(&self.settings.name),
            GateHandle::Nft(gate) => gate.remove(),
        }
    }
}

/// A renewal that is ready to be committed.
#[derive(Debug)]
pub struct PreparedRenewal<'a> {
    gate: &'a mut Gate,
    renewal: Renewal,
}

impl PreparedRenewal<'_> {
    /// Sends the prepared renewal to the kernel.
    ///
    /// # Errors
    /// As [`Gate::renew`].
    pub fn commit(self) -> io::Result<RenewalOutcome> {
        match &mut self.gate.handle {
            GateHandle::Bpf(gate) => Ok(gate.renew(self.renewal)),
            GateHandle::Nft(gate) => gate.commit(self.renewal),
        }
    }
}

/// A gate found in the kernel, whichever process made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGate {
    /// The cluster and the group that it belongs to.
    pub name: GateName,
    /// The backend that implements it.
    pub backend: Backend,
    /// The service addresses that it opens and shuts.
    pub addresses: Vec<IpAddr>,
    /// The numbers of the interfaces that it covers.
    pub interfaces: Vec<u32>,
    /// The end of its lease, on the boot-time clock; `None` if it is shut.
    pub deadline: Option<u64>,
}

/// All gates of the calling thread's network namespace (`nft`) and of that bpf file system, if any.
///
/// # Errors
/// The kernel's error, also if this process may not ask.
pub fn list(bpffs: Option<PathBuf>) -> io::Result<Vec<ListedGate>> {
    let mut all = match bpffs {
        Some(bpffs) => bpf::list(&bpffs)?,
        None => Vec::new(),
    };
    all.extend(nft::list()?);
    Ok(all)
}

/// A packet filter found in the kernel, whichever process made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPacketFilter {
    /// The cluster that it belongs to; see [`GateName::cluster`].
    pub name: GateName,
    /// The backend that implements it.
    pub backend: Backend,
    /// The numbers of the interfaces that it covers.
    pub interfaces: Vec<u32>,
    /// The number of groups that have a gate.
    pub gates: usize,
}

/// All packet filters where [`list`] looks, with and without gates.
///
/// # Errors
/// The kernel's error.
pub fn packet_filters(bpffs: Option<PathBuf>) -> io::Result<Vec<ListedPacketFilter>> {
    let mut all = match bpffs {
        Some(bpffs) => bpf::packet_filters(&bpffs)?,
        None => Vec::new(),
    };
    all.extend(nft::packet_filters()?);
    Ok(all)
}

/// Removes a packet filter completely, whichever process made it, unless a gate of its cluster still exists. Returns
/// whether there was one.
///
/// # Errors
/// The kernel's error; `nft`: `ResourceBusy` while the process that made it is running.
pub fn remove_packet_filter(filter: &ListedPacketFilter) -> io::Result<bool> {
    match &filter.backend {
        Backend::Bpf { bpffs } => bpf::remove_filter(bpffs, &filter.name),
        Backend::Nft => nft::remove_packet_filter(&filter.name),
    }
}

/// Removes a gate completely, whichever process made it. If it was the cluster's last one, the packet filter goes with
/// it. Returns whether there was a gate.
///
/// # Errors
/// The kernel's error; `nft`: `ResourceBusy` while the process that made it is running.
pub fn remove(backend: &Backend, name: &GateName) -> io::Result<bool> {
    remove_all(backend, std::slice::from_ref(name)).pop().unwrap_or(Ok(false))
}

/// As [`remove`], for several gates of one cluster at once, which is faster than one after the other. The results are
/// in the order of `names`.
#[must_use]
pub fn remove_all(backend: &Backend, names: &[GateName]) -> Vec<io::Result<bool>> {
    match backend {
        Backend::Bpf { bpffs } => names.iter().map(|name| bpf::remove(bpffs, name)).collect(),
        Backend::Nft => nft::remove(names),
    }
}

/// What each backend needs from the kernel: found, or an explanation of what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateProbe {
    /// The bpf file system for pins, or why `bpf` does not work.
    pub bpf: Result<PathBuf, String>,
    /// Why `nft` does not work, if so.
    pub nft: Result<(), String>,
}

impl GateProbe {
    /// The preferred backend of those that work.
    ///
    /// # Errors
    /// The reasons why none works.
    pub fn choose(&self) -> Result<Backend, String> {
        match (&self.bpf, &self.nft) {
            (Ok(bpffs), _) => Ok(Backend::Bpf { bpffs: bpffs.clone() }),
            (Err(_), Ok(())) => Ok(Backend::Nft),
            (Err(bpf), Err(nft)) => Err(format!("no gate is possible: bpf: {bpf}; nft: {nft}")),
        }
    }
}

/// Tries both backends in the calling thread's namespaces, and leaves nothing behind. Uses the bpf file system that is
/// mounted there.
#[must_use]
pub fn probe() -> GateProbe {
    let bpffs = match find_bpffs() {
        Ok(Some(bpffs)) if bpf::is_read_only(&bpffs) => Err(format!("{} is read-only here", bpffs.display())),
        Ok(Some(bpffs)) => Ok(bpffs),
        Ok(None) => Err(format!("no bpf file system is mounted: mount -t bpf bpf {BPFFS}")),
        Err(error) => Err(format!("the mount table cannot be read: {error}")),
    };
    GateProbe { bpf: bpf::probe().and(bpffs), nft: nft::probe() }
}

/// As [`probe`], with a bpf file system that the caller has mounted.
#[must_use]
pub fn probe_with(bpffs: PathBuf) -> GateProbe {
    GateProbe { bpf: bpf::probe().map(|()| bpffs), nft: nft::probe() }
}

/// Adds to an error the step that failed.
fn with_context(error: &io::Error, doing: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}

/// Checks that the interface exists: a gate cannot be made on a missing one.
fn check_interface(interface: u32) -> io::Result<()> {
    let named = crate::netlink::interface_name(interface);
    named.map(drop).map_err(|error| with_context(&error, &format!("interface {interface}")))
}

/// For messages: `words`, followed by the interface's name, or its number if it is gone.
fn with_interface(words: &str, number: u32) -> String {
    match crate::netlink::interface_name(number) {
        Ok(name) => format!("{words} {name}"),
        Err(_) => format!("{words} interface {number}, which is gone"),
    }
}
