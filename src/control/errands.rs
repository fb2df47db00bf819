//! Threads for calls that block. Some are made when the daemon starts and live as long as it does: they do the
//! necessary work, one thing after another, on a machine that gives no more threads. More come and go as needed. If the
//! kernel refuses one, the work waits for the next free thread. (A pool that gives up its last idle thread, and ends
//! the program when it gets no new one, kills the cluster manager on the day it is needed.)
//!
//! There are three pools, so that a call that hangs holds up nothing else:
//!
//! * [`on_disk`] has one thread: it writes the ledger and the state, one after the other.
//! * [`spawn_blocking`] is for questions to the kernel, which come back.
//! * [`call`] is for reading configured files and starting configured programs: on a file system that hangs it never
//!   comes back. It has as many threads as calls hang. While a call of one name hangs, no other one of that name is
//!   begun.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, sleep},
};

/// How many threads a pool always has: more than a daemon needs that runs a few stops at a time.
const ALWAYS: usize = 8;
/// Most threads of the pool for calls that come back.
const MOST: usize = 64;
/// How many calls of [`call`] may be young at a time: so many threads are made at once.
const YOUNG_MAX: usize = 256;
/// A call that has not come back after this time may hang, and later calls need not wait for it.
const YOUNG: Duration = Duration::from_millis(200);
/// How long a call that was given up may take to end before it counts as hanging: killing needs a moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the next call of the same name then waits for its end: a machine that is too busy is not a hanging disk.
const WAIT: Duration = Duration::from_secs(10);
/// The pause between two looks while it waits.
const LOOK: Duration = Duration::from_millis(50);
/// An extra thread ends after it has been idle for this long.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// The stack of one thread.
const STACK_BYTES: usize = 512 * 1024;

type PoolWork = Box<dyn FnOnce() + Send>;

struct Pool {
    state: Mutex<PoolState>,
    comes: Condvar,
    always: usize,
    most: usize,
}

struct PoolState {
    waiting: VecDeque<PoolWork>,
    idle: usize,
    threads: usize,
}

static DISK: Pool = Pool::new(1, 1);
static POOL: Pool = Pool::new(ALWAYS, MOST);
/// Bounded by [`HANGING`]: at most two threads for each name.
static CALLS: Pool = Pool::new(ALWAYS, usize::MAX);
static ROOM: Semaphore = Semaphore::const_new(YOUNG_MAX);

/// The calls that were given up and have not come back: for each name their number, and since when the oldest hangs.
static HANGING: Mutex<BTreeMap<String, (usize, Instant)>> = Mutex::new(BTreeMap::new());

/// Makes the threads that always exist. Call it before anything else needs one; without it they are made one by one.
///
/// # Errors
/// When the kernel refuses one of them.
pub fn prepare() -> io::Result<()> {
    for pool in [&DISK, &POOL, &CALLS] {
        let mut state = pool.lock();
        while state.threads < pool.always {
            pool.add_thread(&mut state)?;
        }
    }
    Ok(())
}

/// Does `work` on another thread. The work must come back whatever disks do. It is done even if nobody waits for it.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Errand<T> {
    POOL.send(work)
}

/// Writes to the state directory on another thread, after all earlier writes.
pub fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Errand<T> {
    DISK.send(work)
}

/// Makes a call that may never come back. If the future is dropped before the end, `work` is given up. While it hangs,
/// no other call is begun for `whose`: that one waits a while for its end, without a thread.
///
/// # Errors
/// When an earlier call goes on hanging.
pub async fn call<T: Send + 'static>(
    whose: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NoAnswer> {
    let mut waited = Duration::ZERO;
    while hangs(&whose) {
        if waited >= WAIT {
            return Err(NoAnswer::Hangs);
        }
        sleep(LOOK).await;
        waited += LOOK;
    }
    // The semaphore is never closed.
    let room = ROOM.acquire().await.ok();
    let mut asked = Asked { whose, begun: Instant::now(), owed: Arc::default(), is_answered: false };
    let owed = Arc::clone(&asked.owed);
    let mut outcome = CALLS.send(move || {
        // A call that was given up before it began is not begun.
        let is_given_up = lock(&owed).is_some();
        // The result must be dropped before the call stops being owed.
        (!is_given_up).then(|| (work(), owed))
    });
    let young = tokio::select! {
        biased;
        answer = &mut outcome => Some(answer),
        () = sleep(YOUNG) => None,
    };
    drop(room);
    let answer = match young {
        Some(answer) => answer,
        None => outcome.await,
    };
    asked.is_answered = true;
    answer.ok().flatten().map(|(outcome, _)| outcome).ok_or(NoAnswer::Lost)
}

/// Whether a call of this name was given up and hangs.
fn hangs(whose: &str) -> bool {
    lock(&HANGING).get(whose).is_some_and(|(_, since)| since.elapsed() >= PATIENCE)
}

/// A call that was given up and has not ended yet, while this value lives.
#[derive(Debug)]
pub struct Owed(String);

/// Notes that a call of this name has not ended.
#[must_use]
pub fn owe(whose: &str) -> Owed {
    Owed::since(whose, Instant::now())
}

impl Owed {
    fn since(whose: &str, since: Instant) -> Self {
        lock(&HANGING).entry(whose.to_owned()).or_insert((0, since)).0 += 1;
        Self(whose.to_owned())
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let mut hanging = lock(&HANGING);
        if let Some((count, _)) = hanging.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                hanging.remove(&self.0);
            }
        }
    }
}

/// Waits for the end of a call that was given up, on a thread, if need be for ever.
pub fn outlast(owed: Owed, work: impl FnOnce() + Send + 'static) {
    CALLS.add(Box::new(move || {
        work();
        drop(owed);
    }));
}

/// The caller that waits for a call.
struct Asked {
    whose: String,
    begun: Instant,
    /// Set when the call is given up, and dropped when the call comes back.
    owed: Arc<Mutex<Option<Owed>>>,
    is_answered: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_answered {
            *lock(&self.owed) = Some(Owed::since(&self.whose, self.begun));
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a call gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// An earlier call hangs, so this one was not made.
    Hangs,
    /// The thread that made the call has panicked.
    Lost,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hangs => f.write_str(
                "the last try still hangs in the kernel (does a disk or file system not answer?): it is not tried \
                 again until that one has ended",
            ),
            Self::Lost => Lost.fmt(f),
        }
    }
}

impl std::error::Error for NoAnswer {}

/// The outcome of a call, which can be awaited.
#[derive(Debug)]
pub struct Errand<T> {
    outcome: oneshot::Receiver<T>,
    finished: Arc<AtomicBool>,
}

impl<T> Errand<T> {
    /// Whether the call has returned.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }
}

impl<T> Future for Errand<T> {
    type Output = Result<T, Lost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(context).map_err(|_| Lost)
    }
}

/// The call did not return: its thread has panicked, which ends the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was given up")
    }
}

impl std::error::Error for Lost {}

impl Pool {
    const fn new(always: usize, most: usize) -> Self {
        let state = PoolState { waiting: VecDeque::new(), idle: 0, threads: 0 };
        Self { state: Mutex::new(state), comes: Condvar::new(), always, most }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        lock(&self.state)
    }

    fn send<T: Send + 'static>(&'static self, work: impl FnOnce() -> T + Send + 'static) -> Errand<T> {
        let (answer, outcome) = oneshot::channel();
        let finished = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&finished);
        self.add(Box::new(move || {
            let outcome = work();
            done.store(true, Ordering::Release);
            // The caller may not wait for it any more.
            let _ = answer.send(outcome);
        }));
        Errand { outcome, finished }
    }

    fn add(&'static self, work: PoolWork) {
        let mut state = self.lock();
        state.waiting.push_back(work);
        if state.waiting.len() > state.idle && state.threads < self.most {
            // If no thread can be made, the work waits for an existing one or, without any, for the next call.
            let _ = self.add_thread(&mut state);
        }
        drop(state);
        self.comes.notify_one();
    }

    /// One thread's work: takes calls until it has been idle for too long, or for ever.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                drop(state);
                work();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (woken, waited) =
                self.comes.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.waiting.is_empty() && state.threads > self.always {
                state.threads -= 1;
                return;
            }
        }
    }

    fn add_thread(&'static self, state: &mut PoolState) -> io::Result<()> {
        let builder = thread::Builder::new().name("errand".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(|| self.work())?;
        state.threads += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::OpenOptionsExt as _, sync::mpsc};

    use locum_core::native::plan::GROUPS_MAX;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn threads() -> usize {
        fs::read_dir("/proc/self/task").unwrap().count()
    }

    /// Calls to a file system that hangs, one for as many groups as there can be, and each asked again and again. The
    /// disk of the state, the kernel and all other groups go on.
    #[test]
    fn what_never_returns_holds_up_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let open = |group: usize| {
            let fifo = fifo.clone();
            // No process writes into the FIFO, so this hangs.
            call(format!("group {group}"), move || fs::read(fifo))
        };
        block_on(async {
            let all: Vec<_> = (0..GROUPS_MAX).map(|group| tokio::spawn(open(group))).collect();
            let mut begun = tokio::task::JoinSet::new();
            let began = Instant::now();
            for group in 0..100 {
                begun.spawn(async move { call(format!("healthy group {group}"), move || group).await });
            }
            assert_eq!(on_disk(|| 7).await, Ok(7));
            assert_eq!(spawn_blocking(|| 8).await, Ok(8));
            while let Some(healthy) = begun.join_next().await {
                healthy.unwrap().unwrap();
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
            while threads() < GROUPS_MAX {
                sleep(Duration::from_millis(50)).await;
            }
            for one in all {
                one.abort();
                assert!(one.await.unwrap_err().is_cancelled(), "it hangs");
            }
            sleep(PATIENCE).await;
            let before = threads();
            let mut refused: tokio::task::JoinSet<_> = (0..GROUPS_MAX).step_by(7).map(open).collect();
            while let Some(answer) = refused.join_next().await {
                assert!(matches!(answer.unwrap(), Err(NoAnswer::Hangs)));
            }
            assert!(threads() <= before, "{} threads, {before} before", threads());
            assert_eq!(call("healthy group 1".to_owned(), || 9).await, Ok(9));
            assert_eq!(on_disk(|| 7).await, Ok(7));
            assert_eq!(spawn_blocking(|| 8).await, Ok(8));
            // The file system answers again: a writer comes and goes until no call hangs.
            while hangs("group 0") || threads() > 100 {
                let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
                drop(fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&fifo));
                sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(call("group 0".to_owned(), || 9).await, Ok(9));
        });
    }

    #[test]
    fn work_is_done_whether_or_not_somebody_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            prepare().unwrap();
            assert_eq!(spawn_blocking(|| 7).await, Ok(7));
            let (say, heard) = mpsc::channel();
            drop(spawn_blocking(move || say.send(8).unwrap()));
            assert_eq!(heard.recv().unwrap(), 8);
            // As many as are needed at once, and more than always exist.
            let (gate, open) = mpsc::channel::<()>();
            let open = Arc::new(Mutex::new(open));
            let many: Vec<_> = (0..ALWAYS * 3)
                .map(|number| {
                    let open = Arc::clone(&open);
                    spawn_blocking(move || {
                        let _ = open.lock().unwrap().recv();
                        number
                    })
                })
                .collect();
            assert_eq!(spawn_blocking(|| 9).await, Ok(9), "others do not wait for those that wait");
            drop(gate);
            for (number, errand) in many.into_iter().enumerate() {
                assert_eq!(errand.await, Ok(number));
            }
        });
    }
}
