//! **The gate**: lets the service addresses of a group answer only while an unexpired lease stands in the kernel,
//! whatever becomes of the process that renews it (`docs/gate.md`).
//!
//! A gate that is shut drops, in and out, on each of its interfaces, silently: IPv4 and IPv6 packets from and to a
//! service address, ARP packets that name one as sender or target, and neighbour solicitations and advertisements that
//! are about one. All else passes. It is open as long as the boot-time clock is below its deadline, and, where rivals
//! are listened to, the beat on which the last renewal rests was sent after a rival was heard last.
//!
//! Two engines do the same: `bpf`, a program on tcx that reads its deadlines from memory shared with this process, and
//! `nft`, rules of nf_tables. Both outlive the process shut, never open.
//!
//! One [`Judge`] stands on each interface for all groups of a cluster.

use std::{fmt, io, net::IpAddr, path::PathBuf, sync::Arc};

mod bpf;
pub mod elsewhere;
mod hook;
mod name;
mod nft;
mod pattern;
#[cfg(test)]
mod tests;

pub use bpf::{CUSTOMARY as BPFFS, ensure_bpffs, find_bpffs, pass_everything};
use hook::Hook;
pub use name::Name;
pub use nft::Watch;
pub use pattern::{Pattern, Proof, Subject};

/// What every name of ours in the kernel begins with.
const ROOT: &str = "locum";
/// So many gates a cluster can have on a machine: as many as groups.
pub const GATES_MAX: u32 = 4096;
/// Service addresses and peers of one gate, together.
pub const ADDRESSES_MAX: usize = 1024;
/// Proofs that one gate expects at once; more are left out.
pub const PROOFS_MAX: usize = 12;

/// What does the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// An eBPF program, pinned in this bpf file system.
    Bpf {
        /// Where it is mounted.
        bpffs: PathBuf,
    },
    /// Rules of nf_tables.
    Nft,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bpf { .. } => "bpf",
            Self::Nft => "nft",
        })
    }
}

/// Whose claims shut this gate, heard in the packets' path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rivals {
    /// The numbers of the interfaces on which they are heard.
    pub interfaces: Vec<u32>,
    /// Who is believed.
    pub peers: Vec<IpAddr>,
    /// The UDP port to which claims are announced.
    pub port: u16,
    /// What is announced when this node's ownership of the group ends.
    pub subject: Subject,
}

/// What a gate is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whose it is.
    pub name: Name,
    /// What it shuts. An address is in one gate of a cluster.
    pub addresses: Vec<IpAddr>,
    /// The numbers of the interfaces on which it stands, at least.
    pub interfaces: Vec<u32>,
    /// Whose claims shut it, if anybody's.
    pub rivals: Option<Rivals>,
    /// An announced claim shuts the gate if it carries one of these, and nothing else does. The first [`PROOFS_MAX`] count.
    pub proofs: Vec<Proof>,
}

impl Settings {
    /// Without the interfaces that are gone.
    fn present(&self) -> Self {
        let mut present = self.clone();
        let lists = present.rivals.iter_mut().map(|rivals| &mut rivals.interfaces);
        for list in lists.chain([&mut present.interfaces]) {
            list.retain(|interface| exists(*interface).is_ok());
        }
        present
    }

    fn check(&self) -> io::Result<()> {
        let peers = self.rivals.as_ref().map_or(0, |rivals| rivals.peers.len());
        let count = self.addresses.len() + peers;
        if count > ADDRESSES_MAX {
            let text = format!(
                "a gate of {count} addresses and peers; {ADDRESSES_MAX} are possible: make two groups of it"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let heard = self.rivals.iter().flat_map(|rivals| &rivals.interfaces);
        self.interfaces.iter().chain(heard).try_for_each(|interface| exists(*interface))
    }
}

/// A renewal, in nanoseconds of [`crate::clock::boot_nanos`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Until then the gate is open.
    pub deadline: u64,
    /// When the beat was sent on which the renewal rests.
    pub sent: u64,
}

/// What a renewal achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The gate is open until the deadline.
    Open,
    /// A rival was heard after the beat was sent: the gate stays shut until a renewal by a later beat.
    Shut {
        /// The boot time before which beats are of no use.
        since: u64,
    },
}

/// What judges for all groups of one cluster, before any of them has a gate: what takes long is done then. It stops nobody
/// by itself, what is in no gate passes. Dropping it changes nothing in the kernel.
///
/// `bpf`: programs on interfaces, which take tens of milliseconds to come and to go. `nft`: a table, with chains on interfaces.
#[derive(Debug)]
pub struct Judge {
    engine: Engine,
    name: Name,
    hold: Courts,
}

#[derive(Debug)]
enum Courts {
    Bpf(Arc<bpf::Judge>),
    Nft(Arc<nft::Judge>),
}

impl Judge {
    /// Finds or makes the judge of a cluster, whose rivals announce their claims by datagrams of this pattern. Where an earlier
    /// life left it standing it goes on without a packet in between, with the programs of this version, and leases run on.
    ///
    /// # Errors
    /// What the kernel says, and to what; `InvalidInput` for a pattern that cannot be compared.
    pub fn open(engine: &Engine, cluster: &str, pattern: Pattern) -> io::Result<Self> {
        pattern.check()?;
        let name = Name::new(cluster, "").judges();
        let hold = match engine {
            Engine::Bpf { bpffs } => Courts::Bpf(Arc::new(bpf::Judge::open(bpffs, &name, pattern, true)?)),
            Engine::Nft => Courts::Nft(Arc::new(nft::Judge::open(&name, pattern, true)?)),
        };
        Ok(Self { engine: engine.clone(), name, hold })
    }

    /// Stands on the interface with that number from now on, until it is removed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn cover(&self, interface: u32) -> io::Result<()> {
        exists(interface)?;
        Hook::judges(interface).into_iter().try_for_each(|hook| self.hook(hook))
    }

    /// Hears rivals on the interface with that number from now on, until it is removed: what comes to that port and has the
    /// shape of a claim's announcement is dropped there, whether it shuts a gate or not.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listen(&self, interface: u32, port: u16) -> io::Result<()> {
        exists(interface)?;
        match &self.hold {
            Courts::Bpf(judge) => judge.hear(port)?,
            Courts::Nft(judge) => judge.hear(port)?,
        }
        self.hook(Hook::Ear(interface))
    }

    fn hook(&self, hook: Hook) -> io::Result<()> {
        match &self.hold {
            Courts::Bpf(judge) => judge.cover(hook),
            Courts::Nft(judge) => judge.cover(hook),
        }
    }

    /// Whether the kernel lets nobody else change what stands, so that nobody has to watch it (`nft`, Linux 6.9).
    #[must_use]
    pub fn is_owned(&self) -> bool {
        matches!(&self.hold, Courts::Nft(judge) if judge.is_owned())
    }

    /// Renews gates that this judge made, or shuts those that are given none, all of them at once: `nft` makes one change for all
    /// that have the same renewal, and asks one question. What became of each is returned in their order; `None` for those
    /// that were to be shut.
    ///
    /// # Errors
    /// As [`Gate::renew`], for all of them: then none may have been renewed.
    pub fn renew<'a>(
        &self,
        orders: impl Iterator<Item = (&'a Gate, Option<Renewal>)>,
    ) -> io::Result<Vec<Option<Renewed>>> {
        match &self.hold {
            Courts::Bpf(_) => {
                let renew = |(gate, renewal): (&Gate, Option<Renewal>)| match (&gate.hold, renewal) {
                    (Hold::Bpf(gate), Some(renewal)) => Some(gate.renew(renewal)),
                    (Hold::Bpf(gate), None) => {
                        gate.close();
                        None
                    }
                    (Hold::Nft(_), _) => None,
                };
                Ok(orders.map(renew).collect())
            }
            Courts::Nft(judge) => {
                let number = |(gate, renewal): (&Gate, _)| match &gate.hold {
                    Hold::Nft(gate) => Some((gate.number(), renewal)),
                    Hold::Bpf(_) => None,
                };
                judge.renew(&orders.filter_map(number).collect::<Vec<_>>())
            }
        }
    }

    /// As [`Gate::set_proofs`], for many gates that this judge made, all at once.
    ///
    /// # Errors
    /// As there, for all of them.
    pub fn set_proofs<'a>(&self, orders: impl Iterator<Item = (&'a mut Gate, Vec<Proof>)>) -> io::Result<()> {
        let mut numbers = Vec::new();
        for (gate, proofs) in orders {
            gate.settings.proofs = proofs;
            match &mut gate.hold {
                Hold::Bpf(hold) => hold.set_proofs(&gate.settings.proofs),
                Hold::Nft(hold) => numbers.push((hold.number(), &gate.settings.proofs[..])),
            }
        }
        match &self.hold {
            Courts::Nft(judge) => judge.set_proofs(&numbers),
            Courts::Bpf(_) => Ok(()),
        }
    }

    /// As [`Gate::install`], for a group of this cluster.
    ///
    /// # Errors
    /// As there; `AddrInUse` where another gate has an address already.
    pub fn install(&self, settings: Settings) -> io::Result<Gate> {
        self.stand(settings, true)
    }

    /// As [`Gate::adopt`], for a group of this cluster.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn adopt(&self, settings: Settings) -> io::Result<Option<Gate>> {
        let stands = match &self.hold {
            Courts::Bpf(_) => Gate::stands(&self.engine, &settings.name)?,
            Courts::Nft(judge) => judge.has(&settings.name),
        };
        stands.then(|| self.stand(settings, false)).transpose()
    }

    fn stand(&self, settings: Settings, closed: bool) -> io::Result<Gate> {
        settings.check()?;
        let hold = match &self.hold {
            Courts::Bpf(judge) => Hold::Bpf(bpf::Gate::install(Arc::clone(judge), &settings, closed)?),
            Courts::Nft(judge) => {
                Hold::Nft(Box::new(nft::Gate::install(Arc::clone(judge), &settings, closed)?))
            }
        };
        Ok(Gate { settings, engine: self.engine.clone(), hold })
    }

    /// What of it is not in the kernel, in words; what is the gates' alone each of them tells. An interface that is gone is
    /// nothing that is missing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn missing(&self) -> io::Result<Vec<String>> {
        match &self.hold {
            Courts::Bpf(judge) => judge.missing(usize::MAX),
            Courts::Nft(judge) => judge.missing(),
        }
    }

    /// As [`missing`](Self::missing), but of no more than so many places of interfaces, each time others. Of rules, which are
    /// asked for at once, all of it.
    ///
    /// # Errors
    /// What the kernel says; `Interrupted` where rules changed all the time, and nothing is known.
    pub fn missing_of(&self, most: usize) -> io::Result<Vec<String>> {
        match &self.hold {
            Courts::Bpf(judge) => judge.missing(most),
            Courts::Nft(judge) => judge.missing(),
        }
    }

    /// Puts back what is missing. `bpf`: the gates' own each of them puts back; `nft`: theirs, too, and what has to be made anew
    /// is shut until it is renewed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn restore(&self) -> io::Result<()> {
        match &self.hold {
            Courts::Bpf(judge) => judge.restore(),
            Courts::Nft(judge) => judge.restore(),
        }
    }

    /// How many announcements of claims were dropped here because they prove nothing: not from a named peer, of another
    /// version, cut off, or to a group of this node without one of the proofs that its gate expects. Announcements about
    /// others are dropped, too, and not counted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn refused(&self) -> io::Result<u64> {
        match &self.hold {
            Courts::Bpf(judge) => Ok(judge.refused()),
            Courts::Nft(judge) => judge.refused(),
        }
    }

    /// If somebody else's program has come before ours on an interface, and would answer in its place, ours goes in front again
    /// there, without a packet in between: one place in a call, which takes 10 to 20 ms. Returns where that was. No more than
    /// `most` places are looked at, each time others. Rules need no place in front: no other chain's verdict passes what one of
    /// them drops.
    ///
    /// # Errors
    /// What the kernel says: the other program is in front.
    pub fn stay_in_front(&self, most: usize) -> io::Result<Option<Overtaken>> {
        let Courts::Bpf(judge) = &self.hold else { return Ok(None) };
        Ok(judge.stay_in_front(most)?.map(|(interface, by)| Overtaken { interface, by }))
    }

    /// Leaves nothing of it, unless a gate of the cluster stands.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(self) -> io::Result<()> {
        match self.hold {
            Courts::Bpf(judge) => judge.remove(&self.name).map(drop),
            Courts::Nft(judge) => judge.remove().map(drop),
        }
    }
}

/// Somebody else's program was asked before a gate's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overtaken {
    /// The number of the interface.
    pub interface: u32,
    /// The other program's name, or its number.
    pub by: String,
}

/// A gate in the kernel. Dropping it changes nothing there: it stays, and shuts at its deadline.
#[derive(Debug)]
pub struct Gate {
    settings: Settings,
    engine: Engine,
    hold: Hold,
}

#[derive(Debug)]
enum Hold {
    Bpf(bpf::Gate),
    Nft(Box<nft::Gate>),
}

impl Gate {
    /// Makes the gate stand, shut, in the calling thread's network namespace. What an earlier life left of it is used
    /// and shut at once. It hears no rivals. `nft`: it has its cluster's table for itself; who has more gates, or rivals, makes
    /// them by a [`Judge`].
    ///
    /// # Errors
    /// What the kernel says, and to what. `nft`: `ResourceBusy` while somebody else has the cluster's table. `InvalidInput` with
    /// rivals.
    pub fn install(engine: &Engine, settings: Settings) -> io::Result<Self> {
        Self::stand(engine, settings, true)
    }

    /// The gate as an earlier life left it, made to be as `settings` say without a hole, its lease running on; `None`
    /// when nothing of it stands.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn adopt(engine: &Engine, settings: Settings) -> io::Result<Option<Self>> {
        Self::stands(engine, &settings.name)?.then(|| Self::stand(engine, settings, false)).transpose()
    }

    fn stands(engine: &Engine, name: &Name) -> io::Result<bool> {
        match engine {
            Engine::Bpf { bpffs } => Ok(bpf::Gate::stands(bpffs, name)),
            Engine::Nft => nft::stands(name),
        }
    }

    fn stand(engine: &Engine, settings: Settings, closed: bool) -> io::Result<Self> {
        settings.check()?;
        if settings.rivals.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a gate without a judge hears no rivals",
            ));
        }
        let hold = match engine {
            Engine::Bpf { bpffs } => {
                let judge = bpf::Judge::open(bpffs, &settings.name, Pattern::UNUSED, false)?;
                Hold::Bpf(bpf::Gate::install(Arc::new(judge), &settings, closed)?)
            }
            Engine::Nft => {
                let judge = nft::Judge::open(&settings.name, Pattern::UNUSED, false)?;
                Hold::Nft(Box::new(nft::Gate::install(Arc::new(judge), &settings, closed)?))
            }
        };
        Ok(Self { settings, engine: engine.clone(), hold })
    }

    /// Which engine it is.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What it is.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Opens the gate until the deadline, or shuts it then if that comes earlier than the last one. A deadline that
    /// has passed opens nothing, however late the renewal reaches the kernel.
    ///
    /// `bpf` stores two numbers; `nft` makes two short requests and waits for no answer that is not there.
    ///
    /// # Errors
    /// `nft`: what the kernel says, `NotFound` when the table is gone; see [`missing`](Self::missing).
    pub fn renew(&mut self, renewal: Renewal) -> io::Result<Renewed> {
        self.prepare(renewal).commit()
    }

    /// All of a renewal but what changes the kernel: whoever is frozen in between opens nothing.
    pub fn prepare(&mut self, renewal: Renewal) -> Prepared<'_> {
        if let Hold::Nft(gate) = &mut self.hold {
            gate.prepare(renewal);
        }
        Prepared { gate: self, renewal }
    }

    /// Shuts the gate now.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub fn close(&mut self) -> io::Result<()> {
        match &mut self.hold {
            Hold::Bpf(gate) => gate.close(),
            Hold::Nft(gate) => gate.close()?,
        }
        Ok(())
    }

    /// Which announced claims shut the gate from now on: those that carry one of these proofs. To be called before anything
    /// leaves this node that may let a rival make one of the new ones.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub fn set_proofs(&mut self, proofs: &[Proof]) -> io::Result<()> {
        self.settings.proofs = proofs.into();
        match &mut self.hold {
            Hold::Bpf(gate) => gate.set_proofs(proofs),
            Hold::Nft(gate) => gate.set_proofs(proofs)?,
        }
        Ok(())
    }

    /// Puts the gate on one more interface, before the address comes there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_interface(&mut self, interface: u32) -> io::Result<()> {
        exists(interface)?;
        if !self.settings.interfaces.contains(&interface) {
            self.settings.interfaces.push(interface);
        }
        match &mut self.hold {
            Hold::Bpf(gate) => gate.add_interface(interface),
            Hold::Nft(gate) => gate.add_interface(interface),
        }
    }

    /// Takes the gate from an interface, after the address. A judge that stands there for all groups stays.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_interface(&mut self, interface: u32) -> io::Result<()> {
        self.settings.interfaces.retain(|other| *other != interface);
        match &mut self.hold {
            Hold::Bpf(gate) => gate.remove_interface(interface, &self.settings.name),
            Hold::Nft(gate) => gate.remove_interface(interface),
        }
    }

    /// What of the gate is not in the kernel, in words; nothing when it holds. Of a gate that a [`Judge`] made that is what the
    /// [judge](Judge::missing) does not tell.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn missing(&mut self) -> io::Result<Vec<String>> {
        match &mut self.hold {
            Hold::Bpf(gate) => gate.missing(&self.settings),
            Hold::Nft(gate) => gate.missing(&self.settings),
        }
    }

    /// Puts back what is missing, except on interfaces that are gone. `nft`: what has to be made anew is shut until it is
    /// renewed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn restore(&mut self) -> io::Result<()> {
        let present = self.settings.present();
        match &mut self.hold {
            Hold::Bpf(gate) => gate.restore(&present),
            Hold::Nft(gate) => gate.restore(&present),
        }
    }

    /// For tests: what a stranger's `flush ruleset` does where the kernel does not know tables' owners.
    #[cfg(test)]
    fn forget_table(&mut self) {
        if let Hold::Nft(gate) = &mut self.hold {
            gate.delete_table();
        }
    }

    /// For tests: what a stranger does to a table that is nobody's.
    #[cfg(test)]
    fn nft(&self) -> &nft::Gate {
        match &self.hold {
            Hold::Nft(gate) => gate,
            Hold::Bpf(_) => unreachable!("another engine was asked for"),
        }
    }

    /// Leaves nothing of the gate: the addresses answer from now on, wherever they stand.
    ///
    /// # Errors
    /// What the kernel says; the gate stands then, all of it or what is listed.
    pub fn remove(self) -> io::Result<()> {
        match self.hold {
            Hold::Bpf(gate) => gate.remove(&self.settings.name),
            Hold::Nft(gate) => gate.remove(),
        }
    }
}

/// A renewal that is ready.
#[derive(Debug)]
pub struct Prepared<'a> {
    gate: &'a mut Gate,
    renewal: Renewal,
}

impl Prepared<'_> {
    /// Changes the kernel.
    ///
    /// # Errors
    /// As [`Gate::renew`].
    pub fn commit(self) -> io::Result<Renewed> {
        match &mut self.gate.hold {
            Hold::Bpf(gate) => Ok(gate.renew(self.renewal)),
            Hold::Nft(gate) => gate.commit(self.renewal),
        }
    }
}

/// A gate that stands, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Whose it is.
    pub name: Name,
    /// What does the work.
    pub engine: Engine,
    /// What it shuts.
    pub addresses: Vec<IpAddr>,
    /// The numbers of the interfaces on which it stands.
    pub interfaces: Vec<u32>,
    /// Until when it is open, on the boot-time clock; `None`: it is shut.
    pub deadline: Option<u64>,
}

/// All gates of the calling thread's network namespace (`nft`) and of that bpf file system, if any.
///
/// # Errors
/// What the kernel says, also that this process may not ask.
pub fn list(bpffs: Option<PathBuf>) -> io::Result<Vec<Listed>> {
    let mut all = match bpffs {
        Some(bpffs) => bpf::list(&bpffs)?,
        None => Vec::new(),
    };
    all.extend(nft::list()?);
    Ok(all)
}

/// A judge that stands, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingJudge {
    /// Of which cluster; [`Name::cluster`].
    pub name: Name,
    /// What does the work.
    pub engine: Engine,
    /// The numbers of the interfaces on which it stands.
    pub interfaces: Vec<u32>,
    /// How many groups have a gate.
    pub gates: usize,
}

/// All judges, with gates or without, where [`list`] looks.
///
/// # Errors
/// What the kernel says.
pub fn judges(bpffs: Option<PathBuf>) -> io::Result<Vec<StandingJudge>> {
    let mut all = match bpffs {
        Some(bpffs) => bpf::judges(&bpffs)?,
        None => Vec::new(),
    };
    all.extend(nft::judges()?);
    Ok(all)
}

/// Leaves nothing of a judge, whoever made it, unless a gate of its cluster stands. Returns whether there was something.
///
/// # Errors
/// What the kernel says; `nft`: `ResourceBusy` while the process lives that made it.
pub fn remove_judge(judge: &StandingJudge) -> io::Result<bool> {
    match &judge.engine {
        Engine::Bpf { bpffs } => bpf::remove_judge(bpffs, &judge.name),
        Engine::Nft => nft::remove_judge(&judge.name),
    }
}

/// Leaves nothing of a gate, whoever made it; and nothing of the judge, where it was the cluster's last. Returns whether
/// there was something.
///
/// # Errors
/// What the kernel says; `nft`: `ResourceBusy` while the process lives that made it.
pub fn remove(engine: &Engine, name: &Name) -> io::Result<bool> {
    remove_all(engine, std::slice::from_ref(name)).pop().unwrap_or(Ok(false))
}

/// As [`remove`], for gates of one cluster, which costs less than one after the other. What became of each is returned in
/// their order.
#[must_use]
pub fn remove_all(engine: &Engine, names: &[Name]) -> Vec<io::Result<bool>> {
    match engine {
        Engine::Bpf { bpffs } => names.iter().map(|name| bpf::remove(bpffs, name)).collect(),
        Engine::Nft => nft::remove(names),
    }
}

/// What the kernel has for this process, or what is missing, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The file system for pins.
    pub bpf: Result<PathBuf, String>,
    /// Rules.
    pub nft: Result<(), String>,
}

impl Probe {
    /// The preferred engine of those that work.
    ///
    /// # Errors
    /// Why none works.
    pub fn choose(&self) -> Result<Engine, String> {
        match (&self.bpf, &self.nft) {
            (Ok(bpffs), _) => Ok(Engine::Bpf { bpffs: bpffs.clone() }),
            (Err(_), Ok(())) => Ok(Engine::Nft),
            (Err(bpf), Err(nft)) => Err(format!("no gate is possible: bpf: {bpf}; nft: {nft}")),
        }
    }
}

/// Tries both engines in the calling thread's namespaces, and leaves nothing behind. The bpf file system is the one that
/// is mounted there.
#[must_use]
pub fn probe() -> Probe {
    let bpffs = match find_bpffs() {
        Ok(Some(bpffs)) if bpf::is_read_only(&bpffs) => Err(format!("{} is read-only here", bpffs.display())),
        Ok(Some(bpffs)) => Ok(bpffs),
        Ok(None) => Err(format!("no bpf file system is mounted: mount -t bpf bpf {BPFFS}")),
        Err(error) => Err(format!("the mount table cannot be read: {error}")),
    };
    Probe { bpf: bpf::probe().and(bpffs), nft: nft::probe() }
}

/// As [`probe`], with a bpf file system that the caller has mounted.
#[must_use]
pub fn probe_with(bpffs: PathBuf) -> Probe {
    Probe { bpf: bpf::probe().map(|()| bpffs), nft: nft::probe() }
}

/// The error with what was being done.
fn said(error: &io::Error, doing: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}

/// An interface that is not there is a mistake where a gate is made.
fn exists(interface: u32) -> io::Result<()> {
    let named = crate::netlink::interface_name(interface);
    named.map(drop).map_err(|error| said(&error, &format!("interface {interface}")))
}

/// For messages: words, and the interface's name, if it has one.
fn with_interface(words: &str, number: u32) -> String {
    match crate::netlink::interface_name(number) {
        Ok(name) => format!("{words} {name}"),
        Err(_) => format!("{words} interface {number}, which is gone"),
    }
}
