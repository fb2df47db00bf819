//! All frames that a node sends on the attacked link, taken from its port of the switch with the kernel's own time
//! stamps.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use locum_core::{
    framing::frame,
    model::keys::Keys,
    r1::message::{Body, R1Message},
};
use locum_sys::tap::Tap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A frame on the wire, and its time by the wall clock.
#[derive(Clone, Debug)]
pub(super) struct Sniffed {
    pub(super) at: Duration,
    pub(super) bytes: Vec<u8>,
}

/// Listens until it is dropped.
pub(super) struct Sniffer {
    heard: Arc<Mutex<Vec<Sniffed>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    pub(super) fn start(tap: Tap) -> Self {
        let (heard, end) = (Arc::<Mutex<Vec<Sniffed>>>::default(), Arc::<AtomicBool>::default());
        let (to, until) = (heard.clone(), end.clone());
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            while !until.load(Relaxed) {
                let _ = poll(&mut [PollFd::new(&tap, PollFlags::IN)], Some(&wait));
                while let Ok(Some(frame)) = tap.receive(&mut buffer) {
                    if let (Some(at), Some(bytes)) = (frame.arrived, datagram(&buffer[..frame.length])) {
                        let sniffed = Sniffed { at, bytes: bytes.to_vec() };
                        to.lock().unwrap_or_else(PoisonError::into_inner).push(sniffed);
                    }
                }
            }
        });
        Self { heard, end, thread: Some(thread) }
    }

    /// The frames heard since the last call.
    pub(super) fn take(&self) -> Vec<Sniffed> {
        mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The payload of an Ethernet frame with a UDP datagram to the cluster's port.
fn datagram(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    let header = usize::from(packet.first()? & 15) * 4;
    let udp = packet.get(header..).filter(|_| packet.get(9) == Some(&17))?;
    let number = |at: usize| Some(u16::from_be_bytes(*udp.get(at..)?.first_chunk()?));
    let length = usize::from(number(4)?);
    udp.get(8..length).filter(|_| number(2) == Some(694))
}

/// Figures about the frames of one node in one stretch of time.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    pub(super) beats: usize,
    /// The longest time between two beats.
    pub(super) gap: Duration,
    /// Frames sent again, and refusals to send one again.
    pub(super) answers: usize,
    /// The most of these within a second, allowing for delays on the way to the wire.
    pub(super) answers_a_second: usize,
}

impl Spoken {
    pub(super) fn of(frames: &[Sniffed], keys: &Keys) -> Self {
        let (mut spoken, mut highest, mut last) = (Self::default(), 0, None);
        let mut answers = Vec::new();
        for frame in frames {
            let authentic = frame::authenticate(&frame.bytes, keys).unwrap();
            let message = R1Message::parse(&authentic).unwrap();
            let again = message.seq.is_some_and(|seq| seq <= highest);
            if again || matches!(message.body, Body::NakRexmit { .. }) {
                answers.push(frame.at);
                continue;
            }
            highest = message.seq.unwrap_or(highest);
            if matches!(message.body, Body::Status(_)) {
                spoken.beats += 1;
                spoken.gap =
                    spoken.gap.max(last.map_or(Duration::ZERO, |last| frame.at.saturating_sub(last)));
                last = Some(frame.at);
            }
        }
        spoken.answers = answers.len();
        let in_a_second = |(from, begin): (usize, &Duration)| {
            answers[from..].iter().take_while(|&&at| at < *begin + Duration::from_millis(950)).count()
        };
        spoken.answers_a_second = answers.iter().enumerate().map(in_a_second).max().unwrap_or(0);
        spoken
    }
}
