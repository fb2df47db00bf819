//! A relay: takes in the frames of one port on one side and puts them out on the other. It can lose, delay, double and
//! reorder frames. All random numbers come from a seed.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, PipeWriter},
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use locum_sys::tap::{OFFLOAD_HEADER_BYTES, Tap};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{clock::Moment, dice::Dice};

/// The largest frame that the kernel hands over: 64 KiB of TCP in one piece, with its Ethernet header.
const FRAME_BYTES_MAX: usize = OFFLOAD_HEADER_BYTES + 14 + 65_536;
/// Most frames that a relay holds back at once; more are lost, and counted.
const FRAMES_HELD_MAX: usize = 4096;
/// How long a frame that is to be overtaken waits for others.
const REORDER_HOLD: Duration = Duration::from_millis(5);
/// How many of the last delays are kept for the percentiles.
const DELAYS_KEPT: usize = 65_536;

/// Impairment of the frames of one direction. The default impairs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// The share of frames that is lost, 0 to 1. 1 is a cut in this direction alone.
    pub loss: f64,
    /// How long every frame waits.
    pub delay: Duration,
    /// Up to how much longer a frame waits at random; frames may overtake each other then.
    pub jitter: Duration,
    /// The share of frames that is put out twice.
    pub duplicate: f64,
    /// The share of frames that waits until others (within 5 ms) have overtaken it.
    pub reorder: f64,
}

/// The direction of frames through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayDirection {
    /// Frames that the node sends.
    FromNode,
    /// Frames that are sent to the node.
    ToNode,
}

/// Counters of a relay for one direction, since the rack was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames put out, doubles included.
    pub passed: u64,
    /// Frames lost at random.
    pub lost: u64,
    /// Frames put out a second time.
    pub duplicated: u64,
    /// Frames made to wait for others.
    pub reordered: u64,
    /// Frames lost because too many were held, or because the outgoing interface was down.
    pub overflowed: u64,
    /// The relay's own delay: from the kernel's arrival stamp to the frame being put out, without the delay asked for.
    /// Median.
    pub own_delay_median: Duration,
    /// The 99th percentile of the same delay.
    pub own_delay_p99: Duration,
}

impl Counters {
    /// The share of frames that were lost at random.
    #[must_use]
    pub fn lost_share(&self) -> f64 {
        let seen = self.passed - self.duplicated + self.lost;
        if seen == 0 { 0.0 } else { self.lost as f64 / seen as f64 }
    }
}

/// Settings and counters, which outlive the relay's thread and can be changed while it runs: one entry per [`RelayDirection`].
#[derive(Debug, Default)]
pub(crate) struct RelayState {
    directions: [Mutex<DirectionState>; 2],
}

#[derive(Debug, Default)]
struct DirectionState {
    impairment: Impairment,
    counters: Counters,
    delays_us: Vec<u32>,
    delays_next: usize,
}

impl RelayState {
    pub(crate) fn impair(&self, direction: RelayDirection, impairment: Impairment) {
        self.direction(direction).impairment = impairment;
    }

    pub(crate) fn counters(&self, direction: RelayDirection) -> Counters {
        let direction = self.direction(direction);
        let mut delays = direction.delays_us.clone();
        delays.sort_unstable();
        let at = |share: usize| delays.get(delays.len() * share / 100).copied().unwrap_or(0);
        Counters {
            own_delay_median: Duration::from_micros(at(50).into()),
            own_delay_p99: Duration::from_micros(at(99).into()),
            ..direction.counters
        }
    }

    fn direction(&self, direction: RelayDirection) -> MutexGuard<'_, DirectionState> {
        self.directions[direction as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectionState {
    fn note_delay(&mut self, delay: Duration) {
        let micros = u32::try_from(delay.as_micros()).unwrap_or(u32::MAX);
        if self.delays_us.len() < DELAYS_KEPT {
            self.delays_us.push(micros);
        } else {
            self.delays_us[self.delays_next] = micros;
        }
        self.delays_next = (self.delays_next + 1) % DELAYS_KEPT;
    }
}

/// A running relay; it ends when dropped.
pub(crate) struct Relay {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Relays between the node's side and the network's side. Both taps have offload headers.
    pub(crate) fn start(node: Tap, network: Tap, settings: Arc<RelayState>, dice: Dice) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let mut work = Work { taps: [node, network], settings, dice, held: BinaryHeap::new(), order: 0 };
        let thread = thread::Builder::new().name("relay".into()).spawn(move || work.run(&stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    /// Frames received on the first leave on the second (`RelayDirection::FromNode`), and the other way round.
    taps: [Tap; 2],
    settings: Arc<RelayState>,
    dice: Dice,
    held: BinaryHeap<Reverse<Held>>,
    order: u64,
}

/// A frame that waits. Ordered by due time, then by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Moment,
    order: u64,
    to_node: bool,
    double: bool,
    frame: Vec<u8>,
}

impl Work {
    fn run(&mut self, stopped: &impl AsFd) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        loop {
            self.put_out();
            let wait = self.held.peek().map(|Reverse(held)| held.due.remaining());
            let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
            let mut ready = [
                PollFd::new(&self.taps[0], PollFlags::IN),
                PollFd::new(&self.taps[1], PollFlags::IN),
                PollFd::new(stopped, PollFlags::IN),
            ];
            match poll(&mut ready, wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            if !ready[2].revents().is_empty() {
                return;
            }
            let open = [!ready[0].revents().is_empty(), !ready[1].revents().is_empty()];
            for (side, _) in open.into_iter().enumerate().filter(|(_, open)| *open) {
                // An interface that goes down reports an error once; the relay waits for it to come up.
                while let Ok(Some(got)) = self.taps[side].receive(&mut buffer) {
                    let arrived = got.arrived.map_or_else(Moment::now, Moment::of_stamp);
                    self.take_in(side, arrived, &buffer[..got.length]);
                }
            }
        }
    }

    fn take_in(&mut self, side: usize, arrived: Moment, frame: &[u8]) {
        let way = if side == 0 { RelayDirection::FromNode } else { RelayDirection::ToNode };
        let mut direction = self.settings.direction(way);
        let Impairment { loss, delay, jitter, duplicate, reorder } = direction.impairment;
        if self.dice.throw(loss) {
            direction.counters.lost += 1;
            return;
        }
        let mut due = arrived + delay + jitter.mul_f64(self.dice.fraction());
        if self.dice.throw(reorder) {
            direction.counters.reordered += 1;
            due = due + REORDER_HOLD;
        }
        let copies = if self.dice.throw(duplicate) { 2 } else { 1 };
        for copy in 0..copies {
            if self.held.len() >= FRAMES_HELD_MAX {
                direction.counters.overflowed += 1;
                continue;
            }
            self.order += 1;
            let held =
                Held { due, order: self.order, to_node: side == 1, double: copy > 0, frame: frame.to_vec() };
            self.held.push(Reverse(held));
        }
    }

    fn put_out(&mut self) {
        let now = Moment::now();
        while self.held.peek().is_some_and(|Reverse(held)| held.due <= now) {
            let Some(Reverse(held)) = self.held.pop() else { return };
            let (way, out) =
                if held.to_node { (RelayDirection::ToNode, 0) } else { (RelayDirection::FromNode, 1) };
            let sent = self.taps[out].send(&held.frame).is_ok();
            let mut direction = self.settings.direction(way);
            if sent {
                direction.counters.passed += 1;
                direction.counters.duplicated += u64::from(held.double);
                direction.note_delay(Moment::now().since(held.due));
            } else {
                direction.counters.overflowed += 1;
            }
        }
    }
}
