//! Keeps the ARP filter (`docs/gate.md`) in a thread of its own. Putting a program on an interface takes 10 to 20 ms,
//! and checking thousands of addresses takes more. No beat waits for that.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use crossbeam_queue::ArrayQueue;
use locum_core::model::note::Level;
use locum_sys::{
    clock,
    gate::{
        Backend,
        arp_filter::{self, ArpFilter, OwnInterfaces},
    },
    netlink::{NetworkChange, NetworkMonitor},
    poll::{Bell, Interest, Poller, Timer},
};
use serde::{Deserialize, Serialize};

/// How many homes of addresses the thread is told at once; the rest follows.
const ASKED_MAX: usize = 1024;
const NOTES_MAX: usize = 32;
/// The pause between two checks, and before a failed attempt is repeated.
const LOOK_NANOS: u64 = 1_000_000_000;

const TIMER: u64 = 0;
const BELL: u64 = 1;
const INTERFACES: u64 = 2;

/// The state of the ARP filter, for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArpFilterStats {
    /// Its backend: `nft` or `bpf`; absent where none is wanted, or none is possible.
    pub backend: Option<String>,
    /// Why there is no filter, or what is wrong with it; absent when all is well.
    pub fault: Option<String>,
    /// How often it was put back after another process removed it, or a part of it.
    pub restored: u64,
}

/// The heart's end of the thread.
pub(super) struct ArpFilterThread {
    shared: Arc<ArpFilterShared>,
    thread: Option<JoinHandle<()>>,
    backend: Option<String>,
    /// Why there is no filter, or what was wrong last.
    fault: Option<String>,
    /// The home of each address, as the thread was told.
    homes: OwnInterfaces,
    /// The homes that the thread is still to be told.
    waiting: VecDeque<(IpAddr, u32)>,
}

struct ArpFilterShared {
    asked: ArrayQueue<(IpAddr, u32)>,
    notes: ArrayQueue<ArpFilterReport>,
    bell: Bell,
    stop: AtomicBool,
    /// The filter is to be removed at the end.
    remove: AtomicBool,
    restored: AtomicU64,
}

/// A report of the thread.
enum ArpFilterReport {
    /// A line for the log.
    Note(Level, String),
    /// The current fault, or `None` if it is over.
    Fault(Option<String>),
}

impl ArpFilterThread {
    /// Makes the filter for these addresses, and keeps it from now on. A filter of rules exists when this returns.
    /// Blocks for a moment: call it before the heart runs. Without `has_groups` this is a witness, which may run beside
    /// a node.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub(super) fn start(
        backend: &Result<Backend, String>,
        cluster: &str,
        has_groups: bool,
        homes: OwnInterfaces,
    ) -> io::Result<Self> {
        let shared = Arc::new(ArpFilterShared {
            asked: ArrayQueue::new(ASKED_MAX),
            notes: ArrayQueue::new(NOTES_MAX),
            bell: Bell::new()?,
            stop: AtomicBool::new(false),
            remove: AtomicBool::new(false),
            restored: AtomicU64::new(0),
        });
        let mut made = Self {
            shared: Arc::clone(&shared),
            thread: None,
            backend: backend.as_ref().ok().map(ToString::to_string),
            fault: None,
            homes: homes.clone(),
            waiting: VecDeque::new(),
        };
        if homes.is_empty() {
            made.backend = None;
            // Filters of an earlier daemon serve no purpose any more.
            let all = if has_groups { arp_filter::list().unwrap_or_default() } else { Vec::new() };
            for old in all.iter().filter(|old| old.name.is_of(cluster)) {
                if let Err(error) = arp_filter::remove(old) {
                    made.fault =
                        Some(format!("the ARP filter of an earlier daemon cannot be removed: {error}"));
                }
            }
            return Ok(made);
        }
        let backend = match backend {
            Ok(backend) => backend.clone(),
            Err(why) => {
                made.fault = Some(why.clone());
                return Ok(made);
            }
        };
        let mut work = ArpFilterWorker {
            shared,
            backend,
            cluster: cluster.to_owned(),
            homes,
            filter: None,
            fault: None,
            poller: Poller::new()?,
            timer: Timer::new()?,
            monitor: NetworkMonitor::open()?,
        };
        work.poller.add(&work.timer, TIMER, Interest::Read)?;
        work.poller.add(&work.shared.bell, BELL, Interest::Read)?;
        if work.backend == Backend::Nft {
            work.open();
            // The verdict reports it first.
            made.fault.clone_from(&work.fault);
            while work.shared.notes.pop().is_some() {}
        } else {
            // Rules stand on no interface; programs follow them.
            work.poller.add(&work.monitor, INTERFACES, Interest::Read)?;
        }
        made.thread = Some(super::spawn_thread("arp filter", move || work.run())?);
        Ok(made)
    }

    /// The line about the filter for the start of the log.
    pub(super) fn verdict(&self) -> Option<(Level, String)> {
        let Some(why) = &self.fault else {
            return self
                .backend
                .as_ref()
                .map(|backend| (Level::Info, format!("ARP filter: made by {backend}")));
        };
        let text = format!(
            "ARP filter: missing: {why}; every interface of this machine answers for a service address, even while \
             this daemon is dead or frozen"
        );
        Some((Level::Warning, text))
    }

    /// Tells the filter that the address stands on that interface now.
    pub(super) fn settle(&mut self, ip: IpAddr, interface: u32) {
        if self.thread.is_none() || self.homes.get(&ip).is_none_or(|home| *home == Some(interface)) {
            return;
        }
        self.homes.insert(ip, Some(interface));
        self.waiting.push_back((ip, interface));
        self.tell();
    }

    fn tell(&mut self) {
        let mut told = false;
        while let Some(next) = self.waiting.pop_front() {
            if let Err(next) = self.shared.asked.push(next) {
                self.waiting.push_front(next);
                break;
            }
            told = true;
        }
        if told {
            self.shared.bell.ring();
        }
    }

    /// Once a second: tells the thread the homes that are left, and returns what it has reported meanwhile.
    pub(super) fn look(&mut self) -> Vec<(Level, String)> {
        self.tell();
        let mut notes = Vec::new();
        while let Some(said) = self.shared.notes.pop() {
            match said {
                ArpFilterReport::Note(level, text) => notes.push((level, text)),
                ArpFilterReport::Fault(fault) => self.fault = fault,
            }
        }
        notes
    }

    pub(super) fn stats(&self) -> ArpFilterStats {
        ArpFilterStats {
            backend: self.backend.clone(),
            fault: self.fault.clone(),
            restored: self.shared.restored.load(Ordering::Relaxed),
        }
    }

    /// Ends the thread, and waits for it. With `remove` the filter is removed; else it stays.
    pub(super) fn leave(&mut self, remove: bool) {
        self.shared.remove.store(remove, Ordering::Release);
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.ring();
        if let Some(thread) = self.thread.take() {
            // Its only error is a panic.
            let _ = thread.join();
        }
    }
}

impl Drop for ArpFilterThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.ring();
    }
}

/// The state of the thread.
struct ArpFilterWorker {
    shared: Arc<ArpFilterShared>,
    backend: Backend,
    cluster: String,
    homes: OwnInterfaces,
    filter: Option<ArpFilter>,
    /// The last fault that was reported.
    fault: Option<String>,
    poller: Poller,
    timer: Timer,
    monitor: NetworkMonitor,
}

impl ArpFilterWorker {
    fn run(mut self) {
        let mut ready = Vec::new();
        let mut look_at = 0;
        while !self.shared.stop.load(Ordering::Acquire) {
            let now = clock::monotonic_nanos();
            if now >= look_at {
                look_at = now + LOOK_NANOS;
                self.look_after();
            }
            self.settle();
            if self.timer.set(Some(look_at)).is_err() || self.poller.wait(true, &mut ready).is_err() {
                // This cannot happen with descriptors of our own.
                clock::sleep_until(look_at);
            }
            self.shared.bell.silence();
            if self.backend != Backend::Nft && self.interfaces_changed() {
                self.cover();
            }
        }
        if self.shared.remove.load(Ordering::Acquire)
            && let Some(filter) = self.filter.take()
        {
            // A later start finds it, and `locum gate --remove` removes it.
            let _ = filter.remove(&self.cluster);
        }
    }

    fn open(&mut self) {
        match ArpFilter::open(&self.backend, &self.cluster, self.homes.clone()) {
            Ok(filter) => {
                self.filter = Some(filter);
                self.say_fault(None);
            }
            Err(error) => self.say_fault(Some(error.to_string())),
        }
    }

    fn look_after(&mut self) {
        let Some(filter) = &mut self.filter else {
            self.open();
            return;
        };
        match filter.check_and_restore() {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => {
                self.shared.restored.fetch_add(1, Ordering::Relaxed);
                let text = format!(
                    "ARP filter: another program removed a part of it: put back: {}",
                    missing.join(", ")
                );
                self.say(ArpFilterReport::Note(Level::Warning, text));
            }
            Err(error) => {
                self.say_fault(Some(error.to_string()));
                return;
            }
        }
        self.cover();
    }

    fn cover(&mut self) {
        let Some(filter) = &mut self.filter else { return };
        let fault = filter.cover().err().map(|error| error.to_string());
        self.say_fault(fault);
    }

    fn settle(&mut self) {
        while let Some((ip, interface)) = self.shared.asked.pop() {
            self.homes.insert(ip, Some(interface));
            if let Some(filter) = &mut self.filter
                && let Err(error) = filter.move_to(ip, interface)
            {
                // The next look makes it anew, with what is known then.
                self.filter = None;
                self.say_fault(Some(error.to_string()));
            }
        }
    }

    fn interfaces_changed(&mut self) -> bool {
        let mut changes = Vec::new();
        while matches!(self.monitor.read(&mut changes), Ok(true)) {}
        changes
            .iter()
            .any(|change| !matches!(change, NetworkChange::Address(_) | NetworkChange::AddressGone(_)))
    }

    /// Reports a fault once while it lasts.
    fn say_fault(&mut self, fault: Option<String>) {
        if fault == self.fault {
            return;
        }
        let (level, text) = match &fault {
            Some(why) => (Level::Error, format!("ARP filter: not complete: {why}")),
            None => (Level::Info, "ARP filter: complete again".to_owned()),
        };
        self.say(ArpFilterReport::Note(level, text));
        self.say(ArpFilterReport::Fault(fault.clone()));
        self.fault = fault;
    }

    fn say(&self, said: ArpFilterReport) {
        // The heart takes them once a second. A flood of faults is not worth a second line.
        let _ = self.shared.notes.push(said);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write as _},
        thread,
    };

    use locum_sys::namespace::{self, NewNamespaces};

    use super::*;

    /// Another process holds the tables when the daemon starts, and ends then.
    #[test]
    fn a_filter_that_does_not_stand_at_the_start_is_not_reported_to() {
        let alone = || {
            let fresh = NewNamespaces {
                network: true,
                mounts: false,
                host_name: false,
                processes: false,
                ipc: false,
            };
            if let Some(why) = namespace::enter_new(fresh)
                .map_err(|error| error.to_string())
                .and_then(|()| arp_filter::probe_rules())
                .err()
            {
                let _ = writeln!(io::stderr(), "skipped: {why}");
                return;
            }
            let homes: OwnInterfaces = [("10.9.0.14".parse().unwrap(), None)].into();
            let other = ArpFilter::open(&Backend::Nft, "test", homes.clone()).unwrap();
            let mut filter = ArpFilterThread::start(&Ok(Backend::Nft), "test", true, homes).unwrap();
            let told = filter.verdict();
            let is_fault =
                matches!(&told, Some((Level::Warning, text)) if text.contains("ARP filter: missing"));
            if !is_fault {
                // Before Linux 6.9 tables have no owner.
                assert!(filter.stats().fault.is_none() && filter.look().is_empty(), "{told:?}");
                return;
            }
            drop(other);
            let mut notes = Vec::new();
            while notes.is_empty() {
                clock::sleep_until(clock::monotonic_nanos() + 10_000_000);
                notes = filter.look();
            }
            assert_eq!(notes, [(Level::Info, "ARP filter: complete again".to_owned())]);
            assert_eq!(filter.stats().fault, None);
            filter.leave(true);
        };
        thread::scope(|scope| scope.spawn(alone).join()).unwrap();
    }
}
