//! Watches a service from outside: its answers to the client, the nodes that hold its address, and the nodes that
//! answer for it.
//!
//! The watch never asks a daemon. The client probes through its own kernel, whose neighbour cache is not touched. The
//! kernels' notifications show which nodes hold an address. To see which nodes answer, every node is asked at its own
//! hardware address, on its side of any cut, and its port is listened on.

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
    netlink::{Netlink, NetworkMonitor},
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
/// A node that answered twice within this time counts as answering in between: the asker may get no processor for some
/// milliseconds.
const ANSWER_STEP: Duration = Duration::from_millis(10);

pub(crate) use gates::GatePost;
pub use gates::{LOOK_EVERY, Look};

/// The services and nodes to watch, and the node that probes.
#[derive(Clone, Debug, Default)]
pub struct WatchSpec {
    /// The node from which the service is probed.
    pub client: String,
    /// The network on which the client and the nodes meet.
    pub network: String,
    pub services: Vec<Ipv4Addr>,
    /// The address and port from which pages are fetched.
    pub page: Option<SocketAddrV4>,
    /// The nodes whose held addresses are recorded.
    pub nodes: Vec<String>,
    /// Whether to ask each of these nodes a thousand times a second.
    pub ask: bool,
    /// Whether to look at the gates of these nodes, every [`LOOK_EVERY`].
    pub gates: bool,
}

/// A page that the client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// When the page was complete.
    pub at: Moment,
    pub text: String,
}

/// A change of the addresses that a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When the kernel reported the change.
    pub at: Moment,
    pub node: String,
    pub ip: IpAddr,
    /// Whether the address came (or went).
    pub held: bool,
}

/// Everything that a watch has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// By service: when the client got echoes.
    pub echoes: BTreeMap<Ipv4Addr, Vec<Moment>>,
    /// The pages that the client got, in the order of time.
    pub pages: Vec<Page>,
    /// All changes of addresses in the nodes. Addresses that a node had at first count from the moment when the watch
    /// began.
    pub holds: Vec<Hold>,
    /// By node and service: when the node answered for the service.
    pub answers: BTreeMap<(String, Ipv4Addr), Vec<Moment>>,
    /// By node and service: the looks at the service's gate.
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

    /// How long at least two nodes at once had an open gate for the service, behind which the address answers.
    #[must_use]
    pub fn two_open(&self, service: Ipv4Addr, window: Span) -> Duration {
        let owners: Vec<_> = self.looks_at(service).map(|(_, looks)| gates::while_open(looks)).collect();
        timeline::shared(&owners, window)
    }

    /// The longest time of the window in which a node's gate was not looked at.
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

    /// The nodes that hold the address now, by the record.
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

/// A node's port, as the hub sees it.
pub(crate) struct PortTap {
    pub(crate) tap: Tap,
    /// The hardware address of the hub's end.
    pub(crate) outer_mac: [u8; 6],
    /// The hardware address of the node's end.
    pub(crate) node_mac: [u8; 6],
    /// An address of the network that no machine has.
    pub(crate) asker: Ipv4Addr,
}

/// A watch that goes on until it is dropped.
pub(crate) struct Watch {
    pub(crate) spec: WatchSpec,
    record: Arc<Mutex<Record>>,
    /// Dropped first: the watchers of single nodes.
    nodes: BTreeMap<String, Vec<Watcher>>,
    _client: Vec<Watcher>,
}

impl Watch {
    /// Begins to probe from `client`, a network namespace.
    pub(crate) fn start(spec: WatchSpec, client: &OwnedFd) -> io::Result<Self> {
        let record = Arc::<Mutex<Record>>::default();
        let mut watchers = Vec::new();
        if !spec.services.is_empty() {
            let (services, record, client) = (spec.services.clone(), record.clone(), client.try_clone()?);
            watchers
                .push(Watcher::start("echo", move |stop| echo::probe(&client, &services, &record, stop))?);
        }
        if let Some(target) = spec.page {
            let (record, client) = (record.clone(), client.try_clone()?);
            watchers.push(Watcher::start("pages", move |stop| pages::fetch(&client, target, &record, stop))?);
        }
        Ok(Self { spec, record, nodes: BTreeMap::new(), _client: watchers })
    }

    /// Begins to watch a node. `monitor` reports changes of its addresses; `present` are those that it already has.
    pub(crate) fn attach(
        &mut self,
        node: &str,
        (monitor, present): (NetworkMonitor, Vec<IpAddr>),
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
            let (record, name, services) = (self.record.clone(), node.to_owned(), self.spec.services.clone());
            watchers.push(Watcher::start("answers", move |stop| {
                answers::ask(&port, &name, &services, &record, stop)
            })?);
        }
        if let Some(post) = post {
            let (record, name, services) = (self.record.clone(), node.to_owned(), self.spec.services.clone());
            watchers.push(Watcher::start("gates", move |stop| {
                gates::watch(&post, &name, &services, &record, stop);
            })?);
        }
        self.nodes.insert(node.into(), watchers);
        Ok(())
    }

    /// Notes that the node has lost its power: it holds nothing from that moment on.
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

/// The monitor and addresses of a node for [`Watch::attach`]; called in its room.
pub(crate) fn look_at_addresses() -> io::Result<(NetworkMonitor, Vec<IpAddr>)> {
    let monitor = NetworkMonitor::open()?;
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

/// Evenly spaced moments at which something is due. Missed moments are left out, never made up for in a burst.
struct Beat {
    next: Moment,
    every: Duration,
}

impl Beat {
    fn new(every: Duration) -> Self {
        Self { next: Moment::now(), every }
    }

    /// Whether the moment has come; then the next one is set.
    fn due(&mut self) -> bool {
        let now = Moment::now();
        if now < self.next {
            return false;
        }
        self.next = (self.next + self.every).max(now);
        true
    }
}
