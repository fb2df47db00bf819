//! A client of the control socket: asks for the status, and reads the stream of states.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fault::{Doing, Fault};

/// A daemon that has not answered by then does not answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How soon the readers notice that they are to end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const PIECE_BYTES: usize = 1 << 16;

/// The body of the answer to `GET /status`.
pub(super) fn ask(path: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: locum\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    match end {
        Some(end) if answer.starts_with(b"HTTP/1.1 200") => Ok(answer.split_off(end + 4)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Readers of `GET /status/watch`, which read everything that comes.
pub(super) struct Watchers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Watchers {
    pub(super) fn start(path: &Path, count: usize) -> Result<Self, Fault> {
        let open = || -> io::Result<UnixStream> {
            let mut stream = UnixStream::connect(path)?;
            stream.write_all(b"GET /status/watch HTTP/1.1\r\nHost: locum\r\n\r\n")?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let streams: io::Result<Vec<UnixStream>> = (0..count).map(|_| open()).collect();
        let streams = streams.doing(|| "watch the status".into())?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name("watchers".into()).spawn(move || read_all(&streams, &told));
        Ok(Self { stop, thread: thread.doing(|| "start a thread for the watchers".into())? })
    }

    /// The bytes that all readers have read, and the number of states that the slowest one has received.
    pub(super) fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn read_all(streams: &[UnixStream], stop: &AtomicBool) -> (u64, u64) {
    let mut bytes = 0;
    let mut states = vec![0; streams.len()];
    let mut last = vec![0; streams.len()];
    let mut buffer = vec![0; PIECE_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let mut ready: Vec<PollFd<'_>> =
            streams.iter().map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
        if poll(&mut ready, Some(&LOOK_EVERY)).is_err() {
            continue;
        }
        for (index, mut stream) in streams.iter().enumerate() {
            if ready[index].revents().is_empty() {
                continue;
            }
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                bytes += length as u64;
                for byte in &buffer[..length] {
                    // A state is one line; the lines that HTTP adds between chunks end with "\r
                    // ".
                    states[index] += u64::from(*byte == b'\n' && last[index] != b'\r');
                    last[index] = *byte;
                }
            }
        }
    }
    (bytes, states.into_iter().min().unwrap_or_default())
}
