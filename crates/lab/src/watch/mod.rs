//! Watching a service from outside: does it answer the client, who holds its address, who answers for it?
//!
//! Nothing here asks a daemon. The client probes through its own kernel, whose neighbour cache is not touched; holders
//! are known by the kernels' notifications in the nodes; who answers, by asking every node at its own hardware
//! address, on its own side of a cut, and by listening on its port.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, PipeReader, PipeWriter},
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use locum_sys::{
    netlink::{Monitor, Netlink},
    tap::Tap,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    clock::Moment,
    timeline::{self, Span},
};

mod answers;
mod echo;
pub(crate) mod frames;
mod gates;
mod holds;
mod pages;

/// How often the service is probed by echo, and every node is asked.
pub const ECHO_EVERY: Duration = Duration::from_millis(1);
/// How often a page is fetched.
pub const PAGE_EVERY: Duration = Duration::from_millis(10);
/// A node that answered twice within this time answered all the time in between: the asker may get no processor for
/// some milliseconds.
const ANSWER_STEP: Duration = Duration::from_millis(10);

pub(crate) use gates::GatePost;
pub use gates::{LOOK_EVERY, Look};

/// What is watched, and from where.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The node that probes.
    pub client: String,
    /// The network on which the client and the nodes meet.
    pub network: String,
    /// The service addresses.
    pub services: Vec<Ipv4Addr>,
    /// Where pages are fetched.
    pub page: Option<SocketAddrV4>,
    /// The nodes whose holding is recorded.
    pub nodes: Vec<String>,
    /// Ask them also, a thousand times a second each.
    pub ask: bool,
    /// Look at their gates also, every [`LOOK_EVERY`].
    pub gates: bool,
}

/// A page that the client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// When it was complete.
    pub at: Moment,
    /// Its text.
    pub text: String,
}

/// A change of holding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When the kernel told it.
    pub at: Moment,
    /// The node.
    pub node: String,
    /// The address.
    pub ip: IpAddr,
    /// It has come, or gone.
    pub held: bool,
}

/// What has been seen so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// When the client got an echo, for each service.
    pub echoes: BTreeMap<Ipv4Addr, Vec<Moment>>,
    /// The pages that the client got.
    pub pages: Vec<Page>,
    /// All changes of addresses in the nodes; what stood there at first came at the moment the node was looked at.
    pub holds: Vec<Hold>,
    /// When a node answered for a service, by node.
    pub answers: BTreeMap<(String, Ipv4Addr), Vec<Moment>>,
    /// What was seen of the service's gates in a node, by node.
    pub looks: BTreeMap<(String, Ipv4Addr), Vec<Look>>,
}

impl Record {
    /// The longest time without an echo that touches `window`.
    #[must_use]
    pub fn outage(&self, service: Ipv4Addr, window: Span) -> Option<Span> {
        timeline::longest_gap(self.echoes.get(&service)?, window)
    }

    /// The longest time without a page that touches `window`.
    #[must_use]
    pub fn page_outage(&self, window: Span) -> Option<Span> {
        let pages: Vec<_> = self.pages.iter().map(|page| page.at).collect();
        timeline::longest_gap(&pages, window)
    }

    /// How long at least two nodes held the address at once.
    #[must_use]
    pub fn two_hold(&self, ip: IpAddr, window: Span) -> Duration {
        let owners: Vec<_> = self
            .holding_nodes(ip)
            .into_iter()
            .map(|node| timeline::while_on(&self.changes(node, ip), window))
            .collect();
        timeline::shared(&owners, window)
    }

    /// How long at least two nodes answered for the service at once.
    #[must_use]
    pub fn two_answer(&self, service: Ipv4Addr, window: Span) -> Duration {
        let answers = self.answers.iter().filter(|((_, ip), _)| *ip == service);
        let owners: Vec<_> = answers.map(|(_, instants)| timeline::runs(instants, ANSWER_STEP)).collect();
        timeline::shared(&owners, window)
    }

    /// How long at least two nodes had an open gate for the service at once, in which an address answers.
    #[must_use]
    pub fn two_open(&self, service: Ipv4Addr, window: Span) -> Duration {
        let owners: Vec<_> = self.looks_at(service).map(|(_, looks)| gates::while_open(looks)).collect();
        timeline::shared(&owners, window)
    }

    /// The longest time of the window in which nobody looked at a node's gate.
    #[must_use]
    pub fn unseen(&self, node: &str, service: Ipv4Addr, window: Span) -> Duration {
        let looks = self.looks.get(&(node.to_owned(), service)).map_or(&[] as &[Look], Vec::as_slice);
        gates::longest_unseen(looks, window)
    }

    /// The nodes whose gate for the service is open, by the last looks.
    #[must_use]
    pub fn open_gates(&self, service: Ipv4Addr) -> Vec<&str> {
        let now = Moment::now();
        let open = |looks: &[Look]| looks.last().is_some_and(|look| look.open_until > Some(now));
        self.looks_at(service).filter(|(_, looks)| open(looks)).map(|(node, _)| node).collect()
    }

    fn looks_at(&self, service: Ipv4Addr) -> impl Iterator<Item = (&str, &[Look])> {
        let own = self.looks.iter().filter(move |((_, ip), _)| *ip == service);
        own.map(|((node, _), looks)| (node.as_str(), looks.as_slice()))
    }

    /// The nodes that hold the address after all that was seen.
    #[must_use]
    pub fn holders(&self, ip: IpAddr) -> Vec<&str> {
        let holds = |node: &&str| self.changes(node, ip).last().is_some_and(|&(_, held)| held);
        self.holding_nodes(ip).into_iter().filter(holds).collect()
    }

    fn holding_nodes(&self, ip: IpAddr) -> BTreeSet<&str> {
        self.holds.iter().filter(|hold| hold.ip == ip).map(|hold| hold.node.as_str()).collect()
    }

    fn changes(&self, node: &str, ip: IpAddr) -> Vec<(Moment, bool)> {
        let own = self.holds.iter().filter(|hold| hold.node == node && hold.ip == ip);
        own.map(|hold| (hold.at, hold.held)).collect()
    }
}

/// What a node's port looks like from the hub.
pub(crate) struct PortTap {
    pub(crate) tap: Tap,
    /// The hub's end.
    pub(crate) outer_mac: [u8; 6],
    /// The node's end.
    pub(crate) node_mac: [u8; 6],
    /// An address of the network that nobody has.
    pub(crate) asker: Ipv4Addr,
}

/// A watch that goes on until it is dropped.
pub(crate) struct Watch {
    pub(crate) sight: Sight,
    record: Arc<Mutex<Record>>,
    /// Dropped first: what watches single nodes.
    nodes: BTreeMap<String, Vec<Watcher>>,
    _client: Vec<Watcher>,
}

impl Watch {
    /// Begins to probe from `client`, a network namespace.
    pub(crate) fn start(sight: Sight, client: &OwnedFd) -> io::Result<Self> {
        let record = Arc::<Mutex<Record>>::default();
        let mut watchers = Vec::new();
        if !sight.services.is_empty() {
            let (services, record, client) = (sight.services.clone(), record.clone(), client.try_clone()?);
            watchers
                .push(Watcher::start("echo", move |stop| echo::probe(&client, &services, &record, stop))?);
        }
        if let Some(target) = sight.page {
            let (record, client) = (record.clone(), client.try_clone()?);
            watchers.push(Watcher::start("pages", move |stop| pages::fetch(&client, target, &record, stop))?);
        }
        Ok(Self { sight, record, nodes: BTreeMap::new(), _client: watchers })
    }

    /// Begins to watch a node, whose addresses `monitor` tells and which has `present` already.
    pub(crate) fn attach(
        &mut self,
        node: &str,
        (monitor, present): (Monitor, Vec<IpAddr>),
        port: Option<PortTap>,
        post: Option<GatePost>,
    ) -> io::Result<()> {
        let at = Moment::now();
        for ip in present {
            lock(&self.record).holds.push(Hold { at, node: node.into(), ip, held: true });
        }
        let mut watchers = Vec::new();
        let (record, name) = (self.record.clone(), node.to_owned());
        watchers.push(Watcher::start("holds", move |stop| holds::watch(monitor, &name, &record, stop))?);
        if let Some(port) = port {
            let (record, name, services) =
                (self.record.clone(), node.to_owned(), self.sight.services.clone());
            watchers.push(Watcher::start("answers", move |stop| {
                answers::ask(&port, &name, &services, &record, stop)
            })?);
        }
        if let Some(post) = post {
            let (record, name, services) =
                (self.record.clone(), node.to_owned(), self.sight.services.clone());
            watchers.push(Watcher::start("gates", move |stop| {
                gates::watch(&post, &name, &services, &record, stop);
            })?);
        }
        self.nodes.insert(node.into(), watchers);
        Ok(())
    }

    /// The node has lost its power: it holds nothing from that moment on.
    pub(crate) fn detach(&mut self, node: &str, at: Moment) {
        if self.nodes.remove(node).is_none() {
            return;
        }
        let mut record = lock(&self.record);
        let addresses: BTreeSet<IpAddr> =
            record.holds.iter().filter(|hold| hold.node == node).map(|hold| hold.ip).collect();
        for ip in addresses {
            if record.changes(node, ip).last().is_some_and(|&(_, held)| held) {
                record.holds.push(Hold { at, node: node.into(), ip, held: false });
            }
        }
        for ((_, _), looks) in record.looks.iter_mut().filter(|((name, _), _)| name == node) {
            looks.push(Look { from: at, to: at, open_until: None });
        }
    }

    pub(crate) fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    pub(crate) fn look<T>(&self, at: impl FnOnce(&Record) -> T) -> T {
        at(&lock(&self.record))
    }
}

/// What [`Watch::attach`] needs of a node; called in its room.
pub(crate) fn look_at_addresses() -> io::Result<(Monitor, Vec<IpAddr>)> {
    let monitor = Monitor::open()?;
    let present = Netlink::open()?.addresses()?.into_iter().map(|address| address.ip).collect();
    Ok((monitor, present))
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that watches until its pipe is closed.
struct Watcher {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    fn start(name: &str, work: impl FnOnce(&PipeReader) + Send + 'static) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let thread = thread::Builder::new().name(name.into()).spawn(move || work(&stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until `source` can be read, or the limit has passed. False when the watch is to end.
fn wait(source: impl AsFd, stop: &PipeReader, limit: Option<Duration>) -> bool {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut ready = [PollFd::new(&source, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    let _ = poll(&mut ready, limit.as_ref());
    ready[1].revents().is_empty()
}

/// The moments at which something is due, evenly spaced. What was missed is left out, never made up for in a burst.
struct Beat {
    next: Moment,
    every: Duration,
}

impl Beat {
    fn new(every: Duration) -> Self {
        Self { next: Moment::now(), every }
    }

    /// Whether it is due; then the next one is set.
    fn due(&mut self) -> bool {
        let now = Moment::now();
        if now < self.next {
            return false;
        }
        self.next = (self.next + self.every).max(now);
        true
    }
}
