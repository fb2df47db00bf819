//! Lets the lifetimes of addresses begin anew, in a thread of its own. Each such request waits for the kernel's one lock of
//! all networking (rtnl), which anybody on the machine may hold for long, as whoever makes and ends many network namespaces
//! does: no beat may wait for that.

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

/// Requests on their way at most.
const REQUESTS_MAX: usize = 2048;
/// The thread looks for work at least so often.
const LOOK: Duration = Duration::from_secs(1);

/// The heart's end. Dropped, it ends the thread without waiting for it.
pub(super) struct Lifetimes {
    shared: Arc<Shared>,
    thread: Thread,
    asked: u64,
    /// The last request of each address.
    last: BTreeMap<ResourceId, u64>,
}

struct Request {
    id: ResourceId,
    new: NewAddress,
    lifetime: Lifetime,
    /// Of no use after that moment of the monotonic clock.
    until: u64,
}

struct Shared {
    requests: ArrayQueue<Request>,
    answers: ArrayQueue<(ResourceId, io::Result<()>)>,
    /// So many requests have ended, in the order in which they were made.
    ended: AtomicU64,
    stop: AtomicBool,
}

impl Lifetimes {
    /// # Errors
    /// When the kernel gives no thread or no netlink.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
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

    /// Asks for it; the answer comes by [`Self::answer`]. False if too much is under way.
    pub(super) fn renew(&mut self, id: ResourceId, new: NewAddress, lifetime: Lifetime, until: u64) -> bool {
        if self.shared.requests.push(Request { id, new, lifetime, until }).is_err() {
            return false;
        }
        self.asked += 1;
        self.last.insert(id, self.asked);
        self.thread.unpark();
        true
    }

    /// What has come of a request.
    pub(super) fn answer(&mut self) -> Option<(ResourceId, io::Result<()>)> {
        self.shared.answers.pop()
    }

    /// Whether a request for this address is under way. Until it has ended the address must not be taken off: the request
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

impl Shared {
    fn work(&self, netlink: &mut Netlink) {
        while !self.stop.load(Ordering::Acquire) {
            let Some(Request { id, new, lifetime, until }) = self.requests.pop() else {
                thread::park_timeout(LOOK);
                continue;
            };
            let is_late = clock::monotonic_nanos() >= until || self.stop.load(Ordering::Acquire);
            let came = if is_late { Ok(()) } else { netlink.renew_address(&new, lifetime) };
            // Whoever does not hear the answer asks again in a third of the lifetime.
            let _ = self.answers.push((id, came));
            self.ended.fetch_add(1, Ordering::Release);
        }
    }
}
