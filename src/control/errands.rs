//! Threads for calls that block. Some are made when the daemon starts and live as long as it does: what has to be done on
//! a machine that gives no thread any more is done by them, one thing after another. More come and go as needed; one that
//! the kernel refuses is no fault, the work waits for the next thread that is free. (A pool that gives up its last thread
//! when it is idle, and ends the program when it gets no new one, kills the cluster manager on the day it is needed.)

use std::{
    collections::VecDeque,
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

use tokio::sync::oneshot;

/// Threads that are always there: more than a daemon needs that has nothing but its ledger, its state and a stop or two
/// at work.
const ALWAYS: usize = 8;
/// Threads at most.
const MOST: usize = 256;
/// A thread beyond those that are always there ends when it has been idle for so long.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// The stack of one.
const STACK_BYTES: usize = 512 * 1024;

type Work = Box<dyn FnOnce() + Send>;

struct Pool {
    state: Mutex<State>,
    comes: Condvar,
}

struct State {
    waiting: VecDeque<Work>,
    idle: usize,
    threads: usize,
}

static POOL: Pool = Pool {
    state: Mutex::new(State { waiting: VecDeque::new(), idle: 0, threads: 0 }),
    comes: Condvar::new(),
};

/// Makes the threads that are always there. To be called before anything else needs one; without it they are made one by
/// one.
///
/// # Errors
/// When the kernel refuses one of them.
pub fn prepare() -> io::Result<()> {
    let mut state = POOL.lock();
    while state.threads < ALWAYS {
        add_thread(&mut state)?;
    }
    Ok(())
}

/// Calls `work` on a thread of its own. It is called even if nobody waits for it.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Errand<T> {
    let (answer, outcome) = oneshot::channel();
    let finished = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&finished);
    POOL.add(Box::new(move || {
        let outcome = work();
        done.store(true, Ordering::Release);
        // Nobody waits for it any more.
        let _ = answer.send(outcome);
    }));
    Errand { outcome, finished }
}

/// The outcome of a call, to be waited for.
#[derive(Debug)]
pub struct Errand<T> {
    outcome: oneshot::Receiver<T>,
    finished: Arc<AtomicBool>,
}

impl<T> Errand<T> {
    /// Whether it has returned.
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
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&'static self, work: Work) {
        let mut state = self.lock();
        state.waiting.push_back(work);
        if state.waiting.len() > state.idle && state.threads < MOST {
            // Refused, it waits for a thread that is there. Without any, it waits for the next call.
            let _ = add_thread(&mut state);
        }
        drop(state);
        self.comes.notify_one();
    }

    /// One thread: works until it has been idle for too long, or for ever.
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
            if waited.timed_out() && state.waiting.is_empty() && state.threads > ALWAYS {
                state.threads -= 1;
                return;
            }
        }
    }
}

fn add_thread(state: &mut State) -> io::Result<()> {
    let builder = thread::Builder::new().name("errand".to_owned()).stack_size(STACK_BYTES);
    builder.spawn(|| POOL.work())?;
    state.threads += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_is_done_whether_or_not_somebody_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            prepare().unwrap();
            assert_eq!(spawn_blocking(|| 7).await, Ok(7));
            let (say, heard) = mpsc::channel();
            drop(spawn_blocking(move || say.send(8).unwrap()));
            assert_eq!(heard.recv().unwrap(), 8);
            // As many as are needed at once, and more than are always there.
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
