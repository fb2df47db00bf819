//! A relay: frames of one port, taken in on one side and put out on the other, some of them never, late, twice or in
//! another order. All chance comes from a seed.

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
/// What a relay may hold back at once; more is lost, and counted.
const FRAMES_HELD_MAX: usize = 4096;
/// A frame that is to be overtaken waits this long for others to do so.
const REORDER_HOLD: Duration = Duration::from_millis(5);
/// So many of the last delays are kept for the percentiles.
const DELAYS_KEPT: usize = 65_536;

/// What is done to the frames of one direction. The default does nothing to them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// The share that is lost, 0 to 1. 1 is a cut in this direction alone.
    pub loss: f64,
    /// Every frame waits so long.
    pub delay: Duration,
    /// And up to so much longer, by chance; frames may overtake each other then.
    pub jitter: Duration,
    /// The share that comes twice.
    pub duplicate: f64,
    /// The share that waits until others (within 5 ms) have overtaken it.
    pub reorder: f64,
}

/// A direction through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the node sends.
    FromNode,
    /// What the node is sent.
    ToNode,
}

/// What a relay did to one direction, since the rack was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Put out, doubles included.
    pub passed: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Put out a second time.
    pub duplicated: u64,
    /// Made to wait for others.
    pub reordered: u64,
    /// Lost because too many were held, or because the way out was closed.
    pub overflowed: u64,
    /// The relay's own delay: from the kernel's arrival stamp to the frame being put out, less what was asked for.
    /// Median.
    pub own_delay_median: Duration,
    /// 99 of 100 were not later.
    pub own_delay_p99: Duration,
}

impl Counters {
    /// The share of frames that chance took.
    #[must_use]
    pub fn lost_share(&self) -> f64 {
        let seen = self.passed - self.duplicated + self.lost;
        if seen == 0 { 0.0 } else { self.lost as f64 / seen as f64 }
    }
}

/// What outlives the relay's thread, and can be changed while it runs: one entry per [`Way`].
#[derive(Debug, Default)]
pub(crate) struct Settings {
    ways: [Mutex<Direction>; 2],
}

#[derive(Debug, Default)]
struct Direction {
    impairment: Impairment,
    counters: Counters,
    delays_us: Vec<u32>,
    delays_next: usize,
}

impl Settings {
    pub(crate) fn impair(&self, way: Way, impairment: Impairment) {
        self.way(way).impairment = impairment;
    }

    pub(crate) fn counters(&self, way: Way) -> Counters {
        let direction = self.way(way);
        let mut delays = direction.delays_us.clone();
        delays.sort_unstable();
        let at = |share: usize| delays.get(delays.len() * share / 100).copied().unwrap_or(0);
        Counters {
            own_delay_median: Duration::from_micros(at(50).into()),
            own_delay_p99: Duration::from_micros(at(99).into()),
            ..direction.counters
        }
    }

    fn way(&self, way: Way) -> MutexGuard<'_, Direction> {
        self.ways[way as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Direction {
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
    pub(crate) fn start(node: Tap, network: Tap, settings: Arc<Settings>, dice: Dice) -> io::Result<Self> {
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
    /// What comes in at the first goes out at the second (`Way::FromNode`), and the other way round.
    taps: [Tap; 2],
    settings: Arc<Settings>,
    dice: Dice,
    held: BinaryHeap<Reverse<Held>>,
    order: u64,
}

/// A frame that waits. Earlier ones first; of equal ones in the order of their coming.
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
                // An interface that goes down is an error told once; the relay waits for it to come up.
                while let Ok(Some(got)) = self.taps[side].receive(&mut buffer) {
                    let arrived = got.arrived.map_or_else(Moment::now, Moment::of_stamp);
                    self.take_in(side, arrived, &buffer[..got.length]);
                }
            }
        }
    }

    fn take_in(&mut self, side: usize, arrived: Moment, frame: &[u8]) {
        let way = if side == 0 { Way::FromNode } else { Way::ToNode };
        let mut direction = self.settings.way(way);
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
            let (way, out) = if held.to_node { (Way::ToNode, 0) } else { (Way::FromNode, 1) };
            let sent = self.taps[out].send(&held.frame).is_ok();
            let mut direction = self.settings.way(way);
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
