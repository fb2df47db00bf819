//! The connections of the control socket. Their number is limited. A caller that does not finish its request, or does
//! not take its answer, is disconnected. If no place is free, the connection that has been without a request for the
//! longest time is closed. So idle connections never lock out a caller who is entitled to ask.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    time::{Instant, Sleep, sleep, sleep_until},
};

/// Connections at once of all callers that may only read.
pub(super) const READERS_MAX: usize = 64;
/// Connections at once of root.
pub(super) const OWNERS_MAX: usize = 192;
/// The part of either limit that watchers may take, as (part, whole): watchers stay, and other callers need places,
/// too.
pub(super) const WATCHING: (usize, usize) = (3, 4);
/// The time within which a request must arrive, and for which a connection may be without one.
pub(super) const SILENCE_MAX: Duration =
    if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(10) };
/// The time for which a caller may take nothing of its answer.
const UNREAD_MAX: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(60) };

/// The caller at the other end, as the kernel reports it.
#[derive(Clone, Debug)]
pub(super) struct SocketCaller {
    pub(super) may_change: bool,
    pub(super) user: u32,
    connection: Arc<SharedConnection>,
}

impl SocketCaller {
    /// Marks a request as being answered until the value is dropped: meanwhile the caller waits for us, not we for it.
    pub(super) fn busy(&self) -> RequestGuard {
        self.connection.state().requests += 1;
        RequestGuard(Arc::clone(&self.connection))
    }

    /// As [`Self::busy`], for a watcher. `None` when there are too many watchers.
    pub(super) fn watch(&self) -> Option<WatcherGuard> {
        let ConnectionPool { most, watchers, .. } = self.connection.room.as_ref();
        let (part, whole) = WATCHING;
        let free = watchers.fetch_add(1, Ordering::Relaxed) < most * part / whole;
        // Dropping it gives the place back if none was free.
        let watching = WatcherGuard(self.busy());
        free.then_some(watching)
    }
}

impl Connected<IncomingStream<'_, BoundedListener>> for SocketCaller {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct RequestGuard(Arc<SharedConnection>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests -= 1;
        state.since = Instant::now();
    }
}

/// A watcher's request, which holds a watcher's place.
#[derive(Debug)]
pub(super) struct WatcherGuard(RequestGuard);

impl Drop for WatcherGuard {
    fn drop(&mut self) {
        self.0.0.room.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The part of a connection that other connections see.
#[derive(Debug)]
struct SharedConnection {
    state: Mutex<ConnectionState>,
    room: Arc<ConnectionPool>,
}

#[derive(Debug)]
struct ConnectionState {
    /// Requests that are being answered.
    requests: usize,
    /// When the last request ended, or the caller last took a part of its answer.
    since: Instant,
    /// Whether it must end because its place is needed.
    is_closed: bool,
    /// Wakes its reading end.
    waker: Option<Waker>,
}

impl SharedConnection {
    fn new(room: Arc<ConnectionPool>) -> Self {
        let state = ConnectionState { requests: 0, since: Instant::now(), is_closed: false, waker: None };
        Self { state: Mutex::new(state), room }
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// The connections of one kind of callers: of root, or of all others.
#[derive(Debug)]
struct ConnectionPool {
    most: usize,
    watchers: AtomicUsize,
    there: Mutex<Vec<Weak<SharedConnection>>>,
}

impl ConnectionPool {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, watchers: AtomicUsize::new(0), there: Mutex::default() })
    }

    /// Adds a connection; closes the longest idle one when all places are taken. `None` when all of them are busy.
    fn enter(self: &Arc<Self>) -> Option<Arc<SharedConnection>> {
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        there.retain(|connection| connection.strong_count() > 0);
        let open: Vec<Arc<SharedConnection>> = there
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|connection| !connection.state().is_closed)
            .collect();
        if open.len() >= self.most {
            let idle = open.iter().filter(|connection| connection.state().requests == 0);
            idle.min_by_key(|connection| connection.state().since)?.close();
        }
        let connection = Arc::new(SharedConnection::new(Arc::clone(self)));
        there.push(Arc::downgrade(&connection));
        Some(connection)
    }
}

/// The listener, with a limit on connections: each takes a descriptor, and agents need some, too.
pub(super) struct BoundedListener {
    listener: UnixListener,
    readers: Arc<ConnectionPool>,
    owners: Arc<ConnectionPool>,
}

impl BoundedListener {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self { listener, readers: ConnectionPool::new(READERS_MAX), owners: ConnectionPool::new(OWNERS_MAX) }
    }
}

impl axum::serve::Listener for BoundedListener {
    type Io = CountedStream;
    type Addr = SocketCaller;

    async fn accept(&mut self) -> (CountedStream, SocketCaller) {
        let own = own_user();
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // No descriptor or memory left. It may pass; asking again at once would not help.
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(peer) = stream.peer_cred() else { continue };
            let user = peer.uid();
            let may_change = user == 0 || user == own;
            let room = if may_change { &self.owners } else { &self.readers };
            if let Some(connection) = room.enter() {
                return (
                    CountedStream::new(stream, Arc::clone(&connection)),
                    SocketCaller { may_change, user, connection },
                );
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketCaller> {
        Ok(SocketCaller {
            may_change: false,
            user: own_user(),
            connection: Arc::new(SharedConnection::new(Arc::clone(&self.readers))),
        })
    }
}

fn own_user() -> u32 {
    fs::metadata("/proc/self").map_or(0, |own| own.uid())
}

/// A connection that holds a place, and ends when the caller makes us wait too long.
pub(super) struct CountedStream {
    stream: UnixStream,
    connection: Arc<SharedConnection>,
    reading: Pin<Box<Sleep>>,
    writing: Pin<Box<Sleep>>,
}

impl CountedStream {
    fn new(stream: UnixStream, connection: Arc<SharedConnection>) -> Self {
        let timer = || Box::pin(sleep_until(Instant::now()));
        Self { stream, connection, reading: timer(), writing: timer() }
    }

    /// Nothing has come from the caller: pending while it may stay silent, an error afterwards.
    fn wait_for_caller(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = {
            let mut state = self.connection.state();
            if state.is_closed {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            state.waker = Some(context.waker().clone());
            if state.requests > 0 {
                return Poll::Pending;
            }
            state.since + SILENCE_MAX
        };
        late(self.reading.as_mut(), deadline, context)
    }

    /// The caller takes nothing: pending while it may do so, an error afterwards.
    fn wait_for_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = self.connection.state().since + UNREAD_MAX;
        late(self.writing.as_mut(), deadline, context)
    }
}

/// An error once the deadline has passed.
fn late(mut timer: Pin<&mut Sleep>, deadline: Instant, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    if timer.deadline() != deadline {
        timer.as_mut().reset(deadline);
    }
    timer.poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.wait_for_caller(context),
            ready => ready,
        }
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.wait_for_room(context).map(|late| late.map(|()| 0)),
            ready => {
                self.connection.state().since = Instant::now();
                ready
            }
        }
    }
    /// Writes without copying, so that a state of megabytes is not copied for each reader.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, buffers) {
            Poll::Pending => self.wait_for_room(context).map(|late| late.map(|()| 0)),
            ready => {
                self.connection.state().since = Instant::now();
                ready
            }
        }
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    impl SocketCaller {
        pub(in crate::observe) fn of(user: u32, may_change: bool) -> Self {
            let connection = Arc::new(SharedConnection::new(ConnectionPool::new(1)));
            Self { may_change, user, connection }
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn the_longest_idle_makes_room_and_nobody_who_is_answered_does() {
        block_on(async {
            let room = ConnectionPool::new(3);
            let all: Vec<_> = (0..3).map(|_| room.enter().unwrap()).collect();
            let busy: Vec<_> = all
                .iter()
                .map(|connection| {
                    let caller =
                        SocketCaller { may_change: true, user: 0, connection: Arc::clone(connection) };
                    caller.busy()
                })
                .collect();
            assert!(room.enter().is_none(), "all are being answered");
            let mut busy = busy.into_iter();
            drop(busy.next());
            let fourth = room.enter().unwrap();
            let closed: Vec<bool> = all.iter().map(|connection| connection.state().is_closed).collect();
            assert_eq!(closed, [true, false, false]);
            drop((fourth, busy, all));
            assert!(room.enter().is_some());
        });
    }

    #[test]
    fn watchers_leave_room_for_others() {
        block_on(async {
            let room = ConnectionPool::new(8);
            let callers: Vec<SocketCaller> = (0..8)
                .map(|_| SocketCaller { may_change: true, user: 0, connection: room.enter().unwrap() })
                .collect();
            let mut watching: Vec<_> = callers.iter().map_while(SocketCaller::watch).collect();
            assert_eq!(watching.len(), 6);
            assert!(callers[7].watch().is_none());
            watching.pop();
            assert!(callers[7].watch().is_some(), "a place that was given back is free");
        });
    }

    #[test]
    fn who_takes_nothing_of_the_answer_is_let_go() {
        block_on(async {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let mut counted = CountedStream::new(ours, ConnectionPool::new(1).enter().unwrap());
            let error = counted.write_all(&vec![0; 64 << 20]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn who_trickles_a_request_is_let_go_and_who_waits_for_us_is_not() {
        block_on(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let room = ConnectionPool::new(1);
            let connection = room.enter().unwrap();
            let caller = SocketCaller { may_change: true, user: 0, connection: Arc::clone(&connection) };
            let mut counted = CountedStream::new(ours, connection);
            let trickle = tokio::spawn(async move {
                while theirs.write_all(b"x").await.is_ok() {
                    sleep(SILENCE_MAX / 10).await;
                }
            });
            let mut all = Vec::new();
            let error = counted.read_to_end(&mut all).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(counted);
            trickle.await.unwrap();

            let (ours, _theirs) = UnixStream::pair().unwrap();
            let mut counted = CountedStream::new(ours, Arc::clone(&caller.connection));
            let busy = caller.busy();
            let waits = tokio::time::timeout(SILENCE_MAX * 3, counted.read_u8()).await;
            assert!(waits.is_err(), "an answer may take its time");
            drop(busy);
            assert!(counted.read_u8().await.is_err());
        });
    }
}
