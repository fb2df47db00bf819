//! Counts, on a node's port, the requests for retransmission that the node sends, and the frames that it sends again.
//! The lab knows nothing of the core: it reads only the type and the number of a frame.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use locum_sys::tap::Tap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longer than any frame on a cable.
const FRAME_BYTES_MAX: usize = 65_536;
/// How soon the thread notices that it is to end.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    answers: AtomicU64,
    end: AtomicBool,
}

/// Listens until it is dropped. The node's daemon must not restart meanwhile, and its numbers must come over only one
/// medium of this port.
pub(super) struct Sniffer {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    pub(super) fn start(tap: Tap) -> Self {
        let counts = Arc::<Counts>::default();
        let to = Arc::clone(&counts);
        let thread = thread::spawn(move || {
            let (mut buffer, mut highest) = (vec![0; FRAME_BYTES_MAX], 0);
            while !to.end.load(Relaxed) {
                let _ = poll(&mut [PollFd::new(&tap, PollFlags::IN)], Some(&LOOK_AGAIN));
                while let Ok(Some(got)) = tap.receive(&mut buffer) {
                    match FrameKind::of(&buffer[..got.length]) {
                        Some(FrameKind::Request) => drop(to.requests.fetch_add(1, Relaxed)),
                        Some(FrameKind::Numbered(number)) if number > highest => highest = number,
                        Some(FrameKind::Numbered(_)) => drop(to.answers.fetch_add(1, Relaxed)),
                        None => {}
                    }
                }
            }
        });
        Self { counts, thread: Some(thread) }
    }

    /// Numbers of requests and of repeated frames since it began.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.counts.requests.load(Relaxed), self.counts.answers.load(Relaxed))
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.counts.end.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum FrameKind {
    /// A request for retransmission (`NS_rexmit`).
    Request,
    Numbered(u64),
}

impl FrameKind {
    /// The kind of an Ethernet frame, if it is a frame of the cluster in netstring framing.
    fn of(bytes: &[u8]) -> Option<Self> {
        let begin = bytes.windows(4).position(|four| four == b"###\n")?;
        let text = &bytes[begin..];
        if value(text, b"(0)t=") == Some(b"NS_rexmit") {
            return Some(Self::Request);
        }
        let number = str::from_utf8(value(text, b"(0)seq=")?).ok()?;
        u64::from_str_radix(number, 16).ok().map(Self::Numbered)
    }
}

/// The value of a field: the text from its name to the comma at its end.
fn value<'a>(text: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let begin = text.windows(field.len()).position(|window| window == field)? + field.len();
    text[begin..].split(|&byte| byte == b',').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_numbers_are_told_apart() {
        let kind = |text: &str| FrameKind::of(&[b"header of some bytes", text.as_bytes()].concat());
        assert_eq!(
            kind("###\n11:(0)t=status,10:(0)seq=1f,%%%\n10:1 d9c61b8c,"),
            Some(FrameKind::Numbered(0x1f))
        );
        assert_eq!(kind("###\n14:(0)t=NS_rexmit,15:(0)firstseq=12,%%%\n"), Some(FrameKind::Request));
        assert_eq!(kind("###\n15:(0)t=NS_ackmsg,13:(0)ackseq=12,%%%\n"), None);
        assert_eq!(kind("nothing of the cluster"), None);
    }
}
