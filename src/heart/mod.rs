//! **The heart**: the one real-time thread. It owns the director, the links, the timers and the service addresses:
//! receive, decide, send, move addresses. It never starts a process, writes a file, resolves a name, logs or waits for
//! a lock; work that can block goes up to the control plane over a bounded ring, and the result comes back the same
//! way.
//!
//! * [`spawn`] starts it, [`Handle`] is the control plane's end;
//! * `pulse` is its loop: it sends what is due before it reads, and reads a bounded number of frames;
//! * `director` is the director of either dialect;
//! * `udp`, `serial` and `routed` are the links, `pings` the ping nodes, `address` the service addresses, `shape` their
//!   order beside the machine's own, `rivals` other machines that announce them; `gates` keeps them silent when no node
//!   may answer, `arp_filter` keeps other interfaces from answering for them;
//! * `network` mirrors the kernel's interfaces and addresses, `stats` counts;
//! * `watchdog` feeds the watchdog, `losses` drops frames in tests.

mod address;
mod arp_filter;
mod busy;
mod director;
mod gates;
mod holders;
mod lifetimes;
mod losses;
mod network;
mod pings;
mod pulse;
mod register;
mod ring;
mod rivals;
mod routed;
mod serial;
mod shape;
mod standalone;
mod stats;
#[cfg(test)]
mod tests;
mod udp;
mod watchdog;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use locum_core::model::{
    action::Operation,
    claim::{DurableState, Epoch},
    event::{FenceOutcome, Outcome, Ticket},
    holding::Holding,
    identity::{LastHeard, MemberIndex, NodeIndex, ResourceId},
    keys::Keys,
    note::Note,
    order::{Answer, Order, OrderId},
    time::{Instant, Now},
};
use locum_sys::clock;

pub(crate) use self::address::places_of;
pub use self::arp_filter::ArpFilterStats;
pub use self::director::{Director, Status};
pub use self::gates::{GateChoice, GateState, GateStats, OvertakenState};
pub use self::losses::Losses;
pub(crate) use self::register::Register;
use self::ring::HeartRings;
pub use self::rivals::RivalState;
pub use self::standalone::StandaloneAddresses;
pub use self::stats::{HeartStats, Lateness, LinkStats};
use crate::host_config::HostConfig;

/// The size of the heart's stack, far more than it uses. Only touched pages are resident.
const STACK_BYTES: usize = 1024 * 1024;
/// How often a thread that the kernel refuses is asked for again, with this pause.
const THREAD_TRIES: u32 = 50;
const THREAD_PAUSE: Duration = Duration::from_millis(100);

/// The heart's settings, beyond the host config.
#[derive(Clone, Debug, Default)]
pub struct HeartOptions {
    /// Leaves addresses to the resource scripts: they come up as [`Up::Run`] like everything else.
    pub prefer_scripts: bool,
    /// How gates are to be made.
    pub gates: GateChoice,
    /// Frames to drop on purpose, for tests.
    pub losses: Option<Losses>,
    /// The device that resets this machine when the heart does not beat.
    pub watchdog: Option<PathBuf>,
}

/// A message from the heart to the control plane.
#[derive(Debug)]
pub enum Up {
    /// Run an operation of an agent. Answered by [`Down::Done`] with the same ticket.
    Run {
        ticket: Ticket,
        resource: ResourceId,
        operation: Operation,
        /// After this time the operation is killed.
        limit: Duration,
        /// The ownership under which its group runs.
        epoch: Option<Epoch>,
    },
    /// Kill this operation, if it is still under way. It is answered as one that took too long.
    Abandon(Ticket),
    /// This node takes part from now on: every other node was heard of or is known dead. Once in a run.
    Active,
    /// Reset a node. Answered by [`Down::Fenced`] with the same ticket.
    Fence { ticket: Ticket, node: NodeIndex },
    /// Run the event script of this name, if there is one. Dropped when the control plane does not keep up.
    EventScript {
        /// The name of the script.
        kind: String,
        /// Its environment, without the prefix `HA_`.
        fields: Vec<(String, String)>,
        /// The ownership of the group that the message is about.
        epoch: Option<Epoch>,
    },
    /// The answer to an order.
    Reply {
        /// The id that came with the order.
        order: OrderId,
        answer: Answer,
    },
    /// Write this to the ledger's file and sync it. Answered by [`Down::Written`].
    Write(DurableState),
    /// Keep the newest that was heard of a member on disk.
    Remember { member: MemberIndex, heard: LastHeard },
    /// A line for the log.
    Note {
        note: Note,
        /// When the note was made.
        unix: SystemTime,
    },
    /// The answer to [`Down::Status`].
    Status {
        /// The number that came with the question.
        request: u64,
        /// The status in the director's terms.
        status: Status,
        /// The heart's own counters.
        heart: Box<HeartStats>,
    },
    /// Find out which process holds this UDP port, which a link wants. Answered by [`Down::PortHolder`].
    PortTaken(u16),
    /// Everything is said: the daemon may end.
    Exit {
        /// Nothing is left running that should have been stopped.
        clean: bool,
        /// Begin a new run after this pause instead of ending.
        restart: Option<Duration>,
        /// The groups that the new run keeps. Until it begins, this one goes on beating.
        keeps: Option<Holding>,
    },
}

/// A message from the control plane to the heart.
#[derive(Debug)]
pub enum Down {
    /// How an operation ended.
    Done {
        /// The ticket of [`Up::Run`].
        ticket: Ticket,
        outcome: Outcome,
    },
    /// The result of [`Up::Write`].
    Written {
        /// Whether it is on the disk.
        ok: bool,
    },
    /// The result of fencing a node.
    Fenced {
        /// The ticket of [`Up::Fence`].
        ticket: Ticket,
        outcome: FenceOutcome,
    },
    /// A message that a local script wrote.
    Script(Vec<(String, String)>),
    /// An order of a person. Answered by [`Up::Reply`].
    Order {
        /// Returned with the answer.
        id: OrderId,
        order: Order,
    },
    /// Use these keys from now on.
    Keys(Keys),
    /// Frames to drop on purpose from now on; `None`: no frames.
    Losses(Option<Losses>),
    /// The first line of `/proc/loadavg`, for the core.
    Load(String),
    /// A question for the status. Answered by [`Up::Status`].
    Status {
        /// Returned with the answer.
        request: u64,
    },
    /// The process that holds a UDP port which a link wants.
    PortHolder {
        port: u16,
        /// The process in words; `None` if none was found.
        name: Option<String>,
    },
    /// For this time wake up every 10 ms as well, and count how late that is. The result is in
    /// [`HeartStats::measured`].
    Measure(Duration),
    /// End the thread at once. Addresses stay as they are.
    Stop,
}

/// The control plane's end. Dropping it stops the heart without waiting for it.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<HeartRings>,
    receiver: ring::RingReceiver,
    thread: Option<JoinHandle<()>>,
}

/// Starts the heart. Links that cannot be opened are down and are tried again; they are not an error.
///
/// # Errors
/// When the kernel gives no thread, no netlink, no epoll.
pub fn spawn(
    director: impl Into<Director>,
    host_config: Arc<HostConfig>,
    options: HeartOptions,
) -> io::Result<Handle> {
    let (shared, listener) = ring::pair()?;
    // It is opened here, where an error can still be returned, and before the thread exists and must be on time.
    let mut pulse = pulse::Pulse::new(director.into(), host_config, options, Arc::clone(&shared))?;
    let thread = spawn_thread("heart", move || pulse.run())?;
    Ok(Handle { shared, receiver: listener, thread: Some(thread) })
}

/// Makes a thread for the heart or one beside it. If the kernel refuses it, it is tried again for a while: without it,
/// running resources would be left alone.
fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let work = Arc::new(Mutex::new(Some(work)));
    let mut tries = THREAD_TRIES;
    loop {
        let once = Arc::clone(&work);
        let builder = thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        let spawned = builder.spawn(move || {
            let work = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(work) = work {
                work();
            }
        });
        match spawned {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries > 0 => {
                tries -= 1;
                thread::park_timeout(THREAD_PAUSE);
            }
            spawned => return spawned,
        }
    }
}

impl Handle {
    /// Sends the heart a message. Never waits.
    ///
    /// # Errors
    /// Gives it back when the ring is full: the heart does not run.
    pub fn send(&self, down: Down) -> Result<(), Down> {
        self.shared.send_down(down)
    }

    /// The next message from the heart. Nothing is lost when the future is dropped. After the heart has ended and
    /// everything was taken, it waits for ever.
    ///
    /// # Panics
    /// Outside of a tokio runtime with io.
    pub async fn next(&mut self) -> Up {
        loop {
            if let Some(up) = self.shared.take_up() {
                return up;
            }
            self.receiver.listen().await;
        }
    }

    /// The next message that has already come up.
    pub fn try_next(&mut self) -> Option<Up> {
        self.shared.take_up()
    }

    /// A number that grows with every turn of the heart, at least once a second. For the watchdog.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.shared.progress()
    }

    /// Waits for the thread's end, which [`Down::Stop`] brings.
    ///
    /// # Errors
    /// When the thread panicked.
    pub fn join(mut self) -> thread::Result<()> {
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// The readings of the clocks for the director.
#[must_use]
pub fn now() -> Now {
    Now {
        instant: Instant::from_nanos(clock::monotonic_nanos()),
        unix_seconds: clock::unix_nanos() / 1_000_000_000,
    }
}
