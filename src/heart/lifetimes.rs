//! Renews the lifetimes of addresses in a thread of its own. Each such request waits for the kernel's one lock of all
//! networking (rtnl). Any process on the machine may hold it for long, for example one that makes and ends many network
//! namespaces. No beat may wait for that.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use locum_core::model::identity::ResourceId;
use locum_sys::{
    clock,
    netlink::{Lifetime, Netlink, NewAddress},
};

/// How many requests may be on their way.
const REQUESTS_MAX: usize = 2048;
/// How long the thread waits at most before it looks for work.
const LOOK: Duration = Duration::from_secs(1);

/// The heart's end. Dropping it ends the thread without waiting for it.
pub(super) struct Lifetimes {
    shared: Arc<LifetimesShared>,
    thread: Thread,
    asked: u64,
    /// The number of each address's last request.
    last: BTreeMap<ResourceId, u64>,
}

struct LifetimeRequest {
    id: ResourceId,
    new: NewAddress,
    lifetime: Lifetime,
    /// The request is useless after this moment of the monotonic clock.
    until: u64,
}

struct LifetimesShared {
    requests: ArrayQueue<LifetimeRequest>,
    answers: ArrayQueue<(ResourceId, io::Result<()>)>,
    /// How many requests have ended, in the order in which they were made.
    ended: AtomicU64,
    stop: AtomicBool,
}

impl Lifetimes {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel gives no thread or no netlink.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(LifetimesShared {
            requests: ArrayQueue::new(REQUESTS_MAX),
            answers: ArrayQueue::new(REQUESTS_MAX),
            ended: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut netlink = Netlink::open()?;
        let of_thread = Arc::clone(&shared);
        let handle = super::spawn_thread("lifetimes", move || of_thread.work(&mut netlink))?;
        Ok(Self { shared, thread: handle.thread().clone(), asked: 0, last: BTreeMap::new() })
    }

    /// Requests a renewal; the answer comes by [`Self::answer`]. False if too many are under way.
    pub(super) fn renew(&mut self, id: ResourceId, new: NewAddress, lifetime: Lifetime, until: u64) -> bool {
        if self.shared.requests.push(LifetimeRequest { id, new, lifetime, until }).is_err() {
            return false;
        }
        self.asked += 1;
        self.last.insert(id, self.asked);
        self.thread.unpark();
        true
    }

    /// The next result of a request, if there is one.
    pub(super) fn answer(&mut self) -> Option<(ResourceId, io::Result<()>)> {
        self.shared.answers.pop()
    }

    /// Whether a request for this address is under way. Until it has ended the address must not be removed: the request
    /// would put it back, without a gate.
    pub(super) fn is_renewing(&self, id: ResourceId) -> bool {
        self.last.get(&id).is_some_and(|last| *last > self.shared.ended.load(Ordering::Acquire))
    }
}

impl Drop for Lifetimes {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl LifetimesShared {
    fn work(&self, netlink: &mut Netlink) {
        while !self.stop.load(Ordering::Acquire) {
            let Some(LifetimeRequest { id, new, lifetime, until }) = self.requests.pop() else {
                thread::park_timeout(LOOK);
                continue;
            };
            let is_late = clock::monotonic_nanos() >= until || self.stop.load(Ordering::Acquire);
            let came = if is_late { Ok(()) } else { netlink.renew_address(&new, lifetime) };
            // If this answer is lost, the renewal is requested again in a third of the lifetime.
            let _ = self.answers.push((id, came));
            self.ended.fetch_add(1, Ordering::Release);
        }
    }
}
