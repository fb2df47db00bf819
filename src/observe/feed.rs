//! The stream of states for the watchers of the status. Each state is made once, however many watch, and all share its
//! bytes. They are cut into pieces, so that a slow reader holds a piece and not the state. Only the newest states are
//! kept. A reader that needs longer than that for one line has lost the rest of it, and its connection ends.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::body::Bytes;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep},
};

/// The least time between two states while they are small, and the time after which an unchanged state is repeated.
const EVERY: Duration = Duration::from_millis(250);
const QUIET: Duration = Duration::from_secs(5);
/// Larger states are made less often: one second is added for each this many bytes. So the cost of watching does not
/// grow with the number of watchers, nor, beyond a point, with that of the groups.
const BYTES_A_SECOND: u64 = 2 << 20;
/// The number of states that are kept for readers that have not finished them.
const KEPT: usize = 8;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// The state of everything, as the watchers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateText {
    /// The state as JSON.
    pub text: Bytes,
    /// A digest of the parts of the state whose change is reported at once.
    pub digest: u64,
}

/// One line of the stream.
#[derive(Debug)]
struct FeedLine {
    pieces: Vec<Bytes>,
}

impl FeedLine {
    fn of(text: &[u8]) -> Self {
        // Each piece is allocated separately, so that it is freed when its last reader is done.
        let mut pieces: Vec<Bytes> = text.chunks(PIECE).map(Bytes::copy_from_slice).collect();
        pieces.push(Bytes::from_static(b"\n"));
        Self { pieces }
    }
}

/// The newest line, as the watchers follow it.
#[derive(Clone, Debug, Default)]
struct LatestState {
    line: Weak<FeedLine>,
    /// Grows when the daemon did not answer: all streams that began before then end.
    ends: u64,
}

/// Sends new states to all watchers.
#[derive(Clone, Debug)]
pub struct StateFeed {
    latest: watch::Sender<LatestState>,
    wanted: Arc<Notify>,
    every: Duration,
}

impl StateFeed {
    /// A feed that has no watchers yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            latest: watch::Sender::new(LatestState::default()),
            wanted: Arc::new(Notify::new()),
            every: EVERY,
        }
    }

    /// Adds a watcher and returns the pieces of its stream, the present state first. The stream ends with the daemon,
    /// or when the pieces were not taken in time.
    pub fn subscribe(&self) -> mpsc::Receiver<Bytes> {
        let (pieces, reader) = mpsc::channel(1);
        let latest = self.latest.subscribe();
        let ends = latest.borrow().ends;
        tokio::spawn(follow(latest, ends, pieces));
        self.wanted.notify_one();
        reader
    }

    /// Makes states while anyone watches. `ask` returns the present one.
    pub async fn run<E, F: Future<Output = Result<StateText, E>>>(&self, ask: impl Fn() -> F) {
        loop {
            self.wanted.notified().await;
            self.feed_watchers(&ask).await;
            self.latest.send_modify(|latest| latest.line = Weak::new());
        }
    }

    async fn feed_watchers<E, F: Future<Output = Result<StateText, E>>>(&self, ask: &impl Fn() -> F) {
        let mut kept: VecDeque<Arc<FeedLine>> = VecDeque::new();
        let mut last: Option<(u64, Instant)> = None;
        while self.latest.receiver_count() > 0 {
            let Ok(StateText { text, digest: face }) = ask().await else {
                return self.latest.send_modify(|latest| latest.ends += 1);
            };
            if last.is_none_or(|(old, said)| old != face || said.elapsed() >= QUIET) {
                last = Some((face, Instant::now()));
                if kept.len() >= KEPT {
                    kept.pop_front();
                }
                let line = Arc::new(FeedLine::of(&text));
                let newest = Arc::downgrade(&line);
                kept.push_back(line);
                self.latest.send_modify(|latest| latest.line = newest);
            }
            let more = Duration::from_micros(text.len() as u64 * 1_000_000 / BYTES_A_SECOND);
            sleep(self.every.max(more)).await;
        }
    }
}

impl Default for StateFeed {
    fn default() -> Self {
        Self::new()
    }
}

/// Sends the newest state, and after it the one that is the newest by then.
async fn follow(mut latest: watch::Receiver<LatestState>, ends: u64, pieces: mpsc::Sender<Bytes>) {
    loop {
        let now = latest.borrow_and_update().clone();
        if now.ends != ends {
            return;
        }
        let mut next = 0;
        while let Some(line) = now.line.upgrade() {
            let Some(piece) = line.pieces.get(next).cloned() else { break };
            drop(line);
            if pieces.send(piece).await.is_err() {
                return;
            }
            next += 1;
        }
        // The line was dropped while half of it was sent: a reader could not parse the next one.
        if next > 0 && now.line.strong_count() == 0 {
            return;
        }
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return },
            () = pieces.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    /// A daemon whose state has this many bytes and is different each time; and a counter of how often it was asked.
    fn daemon(bytes: usize) -> (impl Fn() -> std::future::Ready<Result<StateText, ()>>, Arc<AtomicU64>) {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let ask = move || {
            let face = count.fetch_add(1, Ordering::Relaxed);
            ready(Ok(StateText { text: vec![b'0'; bytes].into(), digest: face }))
        };
        (ask, asked)
    }

    fn plays(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    fn feed() -> StateFeed {
        StateFeed { every: SOON, ..StateFeed::new() }
    }

    async fn line(reader: &mut mpsc::Receiver<Bytes>) -> Option<usize> {
        let mut bytes = 0;
        loop {
            let piece = reader.recv().await?;
            bytes += piece.len();
            if piece.ends_with(b"\n") {
                return Some(bytes);
            }
        }
    }

    #[test]
    fn a_state_is_made_once_for_all_who_watch() {
        plays(async {
            let (feed, (ask, asked)) = (feed(), daemon(3000));
            let mut readers: Vec<_> = (0..64).map(|_| feed.subscribe()).collect();
            let told = async {
                for _ in 0..10 {
                    for reader in &mut readers {
                        assert_eq!(line(reader).await.unwrap(), 3001);
                    }
                }
                // A slow reader gets the newest states and not all of them: fewer than were made, never more.
                let asked = asked.load(Ordering::Relaxed);
                assert!((10..200).contains(&asked), "64 readers of ten states: {asked} were made");
            };
            tokio::select! { () = feed.run(ask) => {}, () = told => {} }
        });
    }

    #[test]
    fn large_states_are_made_less_often_and_none_when_nobody_watches() {
        plays(async {
            let (feed, (ask, asked)) = (feed(), daemon(1 << 20));
            let mut reader = feed.subscribe();
            let begun = Instant::now();
            let watched = async {
                for _ in 0..3 {
                    line(&mut reader).await.unwrap();
                }
                assert!(begun.elapsed() >= Duration::from_millis(900), "1 MiB at 2 MiB a second");
                drop(reader);
                let seen = asked.load(Ordering::Relaxed);
                sleep(Duration::from_millis(1200)).await;
                assert!(asked.load(Ordering::Relaxed) <= seen + 1, "nobody watches");
            };
            tokio::select! { () = feed.run(ask) => {}, () = watched => {} }
        });
    }

    #[test]
    fn a_reader_that_stands_still_loses_its_line_and_keeps_one_piece() {
        plays(async {
            let (feed, (ask, _)) = (feed(), daemon(100_000));
            let (mut slow, mut quick) = (feed.subscribe(), feed.subscribe());
            let told = async {
                slow.recv().await.unwrap();
                for _ in 0..20 {
                    line(&mut quick).await.unwrap();
                }
                let mut left = 0;
                while let Some(piece) = slow.recv().await {
                    left += piece.len();
                }
                assert!(left <= PIECE, "{left} bytes of an old state were kept for it");
            };
            tokio::select! { () = feed.run(ask) => {}, () = told => {} }
        });
    }

    #[test]
    fn it_ends_when_the_daemon_does_not_answer() {
        plays(async {
            let feed = feed();
            let mut reader = feed.subscribe();
            let silent = || ready(Err::<StateText, ()>(()));
            tokio::select! { () = feed.run(silent) => {}, ended = reader.recv() => assert_eq!(ended, None) }
        });
    }
}
