//! **The heart**: the one real-time thread. It owns the director, the links, the timers and the service addresses:
//! receive, decide, send, move addresses. It never starts a process, writes a file, resolves a name, logs or waits for a
//! lock; everything that can block goes up to the control plane over a bounded ring, and comes back the same way.
//!
//! * [`spawn`] starts it, [`Handle`] is the control plane's end;
//! * `pulse` is its loop: what is due is sent before anything is read, and reading is bounded;
//! * `mind` is the director of either dialect;
//! * `udp`, `serial` and `routed` are the links, `pings` the ping nodes, `address` the service addresses, `shape` their
//!   order beside the machine's own, `rivals` other machines that say to have them, `gates` what keeps them silent when
//!   nobody may answer, `arp_filter` what keeps other interfaces from answering for them;
//! * `network` mirrors the kernel's interfaces and addresses, `stats` counts;
//! * `dog` feeds the watchdog, `losses` drops frames in tests.

mod address;
mod alone;
mod arp_filter;
mod busy;
mod dog;
mod gates;
mod holders;
mod lifetimes;
mod losses;
mod mind;
mod network;
mod pings;
mod pulse;
mod register;
mod ring;
mod rivals;
mod routed;
mod serial;
mod shape;
mod stats;
#[cfg(test)]
mod tests;
mod udp;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use locum_core::model::{
    action::Operation,
    claim::{Durable, Epoch},
    event::{FenceOutcome, Outcome, Ticket},
    holding::Holding,
    identity::{Heard, MemberIndex, NodeIndex, ResourceId},
    keys::Keys,
    note::Note,
    order::{Answer, Order, OrderId},
    time::{Instant, Now},
};
use locum_sys::clock;

pub(crate) use self::address::places_of;
pub use self::alone::Alone;
pub use self::arp_filter::ArpFilterStats;
pub use self::gates::{GateChoice, GateState, GateStats, OvertakenState};
pub use self::losses::Losses;
pub use self::mind::{Mind, Status};
pub(crate) use self::register::Register;
use self::ring::Shared;
pub use self::rivals::RivalState;
pub use self::stats::{HeartStats, Lateness, LinkStats};
use crate::duties::Duties;

/// The heart's stack. Far more than it uses; only what it touches is ever resident.
const STACK_BYTES: usize = 1024 * 1024;
/// A thread that the kernel refuses is asked for so often again, with this pause.
const THREAD_TRIES: u32 = 50;
const THREAD_PAUSE: Duration = Duration::from_millis(100);

/// How the heart is to work, beyond its duties.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Leave addresses to the resource scripts: they come up as [`Up::Run`] like everything else.
    pub prefer_scripts: bool,
    /// What makes gates.
    pub gates: GateChoice,
    /// Frames that are dropped on purpose.
    pub losses: Option<Losses>,
    /// The device that resets this machine when the heart does not beat.
    pub watchdog: Option<PathBuf>,
}

/// What comes up from the heart.
#[derive(Debug)]
pub enum Up {
    /// Let an agent work; to be answered by [`Down::Done`] with the same ticket.
    Run {
        /// For the answer.
        ticket: Ticket,
        /// What.
        resource: ResourceId,
        /// Which way.
        operation: Operation,
        /// After this long it is killed.
        limit: Duration,
        /// The ownership under which its group runs.
        epoch: Option<Epoch>,
    },
    /// Kill this operation, if it is still under way; it is answered as one that took too long.
    Abandon(Ticket),
    /// This node takes part from now on: everybody is heard of or known dead. Once in a life.
    Active,
    /// Reset a node; to be answered by [`Down::Fenced`] with the same ticket.
    Fence {
        /// For the answer.
        ticket: Ticket,
        /// Which.
        node: NodeIndex,
    },
    /// Run a person's script of this name, if there is one. Dropped when the control plane does not keep up.
    EventScript {
        /// The script's name.
        kind: String,
        /// Its environment, without the prefix `HA_`.
        fields: Vec<(String, String)>,
        /// The ownership of the group that it is about.
        epoch: Option<Epoch>,
    },
    /// The answer to an order.
    Reply {
        /// As given with the order.
        order: OrderId,
        /// What came of it.
        answer: Answer,
    },
    /// Write this to the ledger's file and sync it; to be answered by [`Down::Written`].
    Write(Durable),
    /// Keep on disk the newest that was heard of a member.
    Remember {
        /// Of whom.
        member: MemberIndex,
        /// What.
        heard: Heard,
    },
    /// A line for the log.
    Note {
        /// The line.
        note: Note,
        /// When it was taken.
        unix: SystemTime,
    },
    /// The state of everything, as asked for.
    Status {
        /// As given with the question.
        request: u64,
        /// What the director knows.
        status: Status,
        /// What the heart counted.
        heart: Box<HeartStats>,
    },
    /// Find out who has this UDP port, which a link wants; to be answered by [`Down::PortHolder`].
    PortTaken(u16),
    /// Everything is said: the daemon may end.
    Exit {
        /// Nothing is left running that should have been stopped.
        clean: bool,
        /// Begin a new life after this long instead of ending.
        restart: Option<Duration>,
        /// What the new life goes on with. Until it begins, this one goes on beating.
        keeps: Option<Holding>,
    },
}

/// What goes down to the heart.
#[derive(Debug)]
pub enum Down {
    /// How an operation ended.
    Done {
        /// As given with [`Up::Run`].
        ticket: Ticket,
        /// How.
        outcome: Outcome,
    },
    /// What came of [`Up::Write`].
    Written {
        /// It is on the disk.
        ok: bool,
    },
    /// How fencing a node ended.
    Fenced {
        /// As given with [`Up::Fence`].
        ticket: Ticket,
        /// How.
        outcome: FenceOutcome,
    },
    /// A message that a local script wrote.
    Script(Vec<(String, String)>),
    /// A person asks for something; answered by [`Up::Reply`].
    Order {
        /// Returned with the answer.
        id: OrderId,
        /// What.
        order: Order,
    },
    /// New keys.
    Keys(Keys),
    /// Other frames are dropped on purpose from now on, or none.
    Losses(Option<Losses>),
    /// The first line of the load average file.
    Load(String),
    /// Tell the state of everything; answered by [`Up::Status`].
    Status {
        /// Returned with the answer.
        request: u64,
    },
    /// Who has a UDP port that a link wants.
    PortHolder {
        /// As asked for.
        port: u16,
        /// In words; nothing when nobody was found.
        name: Option<String>,
    },
    /// For so long wake up every 10 ms as well, and count how late that is; the result stands in
    /// [`HeartStats::measured`].
    Measure(Duration),
    /// End the thread at once. Addresses stay as they are.
    Stop,
}

/// The control plane's end. Dropped, it stops the heart without waiting for it.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    ear: ring::Ear,
    thread: Option<JoinHandle<()>>,
}

/// Starts the heart. Links that cannot be opened are down links and are tried again; they are no error.
///
/// # Errors
/// When the kernel gives no thread, no netlink, no epoll.
pub fn spawn(mind: impl Into<Mind>, duties: Arc<Duties>, options: Options) -> io::Result<Handle> {
    let (shared, ear) = ring::pair()?;
    // Opened here, where an error can still be told; and before the thread exists nothing of it has to be timely.
    let mut pulse = pulse::Pulse::new(mind.into(), duties, options, Arc::clone(&shared))?;
    let thread = spawn_thread("heart", move || pulse.run())?;
    Ok(Handle { shared, ear, thread: Some(thread) })
}

/// A thread for the heart or beside it. Where the kernel gives none, it is tried again for a while: what runs here would be
/// left alone without it.
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
    /// Tells the heart something. Never waits.
    ///
    /// # Errors
    /// Gives it back when the ring is full: the heart does not run.
    pub fn send(&self, down: Down) -> Result<(), Down> {
        self.shared.send_down(down)
    }

    /// The next thing that comes up. Nothing is lost when the future is dropped. After the heart has ended and
    /// everything was taken, it waits for ever.
    ///
    /// # Panics
    /// Outside of a tokio runtime with io.
    pub async fn next(&mut self) -> Up {
        loop {
            if let Some(up) = self.shared.take_up() {
                return up;
            }
            self.ear.listen().await;
        }
    }

    /// The next thing that has already come up.
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

/// What the clocks say, in the director's terms.
#[must_use]
pub fn now() -> Now {
    Now {
        instant: Instant::from_nanos(clock::monotonic_nanos()),
        unix_seconds: clock::unix_nanos() / 1_000_000_000,
    }
}
