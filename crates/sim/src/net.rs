//! Simulated cables: segments that delay, lose, cut, double and reorder frames.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    rng::Rng,
    story::{Cable, Link},
};

/// Most time on the line that frames in a serial driver's buffer may need; beyond it the driver drops frames.
const SERIAL_BACKLOG_MAX: Duration = Duration::from_secs(2);

/// One segment: every host on it hears the frames sent on it.
#[derive(Debug)]
pub struct Segment {
    /// The link of this segment, as the story names it.
    pub link: Link,
    /// Whether the segment carries nothing at all.
    pub is_cut: bool,
    /// Hosts whose frames are not carried.
    pub muted: Vec<usize>,
    /// Percentage of frames lost, drawn for each receiver by itself.
    pub loss: u8,
    /// Frames are sometimes doubled, or late by up to 50 ms and out of order.
    pub is_unruly: bool,
    /// Frames offered to a receiver since `loss` was set.
    pub offered: u64,
    /// How many of the offered frames were lost.
    pub lost: u64,
    /// When the last frame to each receiver arrives; keeps frames in order.
    arrivals: BTreeMap<usize, u64>,
    /// When the last frame of each sender has left a serial line.
    departures: BTreeMap<usize, u64>,
}

impl Segment {
    /// A segment that works without losses.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self {
            link,
            is_cut: false,
            muted: Vec::new(),
            loss: 0,
            is_unruly: false,
            offered: 0,
            lost: 0,
            arrivals: BTreeMap::new(),
            departures: BTreeMap::new(),
        }
    }

    /// Whether all frames of this host are carried.
    #[must_use]
    pub fn carries(&self, host: usize) -> bool {
        !self.is_cut && self.loss == 0 && !self.muted.contains(&host)
    }

    /// When a frame sent now by host `from` has left the sender, or `None` if it is not carried. The frame has `bytes`
    /// bytes; a serial line has `baud` bits a second.
    pub fn depart(&mut self, now: u64, from: usize, bytes: usize, baud: u32) -> Option<u64> {
        if self.link.cable != Cable::Serial {
            return (!self.is_cut && !self.muted.contains(&from)).then_some(now);
        }
        // Ten bits a byte: 8N1.
        let on_the_line = (bytes as u64).saturating_mul(10_000_000_000) / u64::from(baud.max(1));
        let free = self.departures.get(&from).copied().unwrap_or(0).max(now);
        if u128::from(free - now) > SERIAL_BACKLOG_MAX.as_nanos() {
            return None;
        }
        let left = free + on_the_line;
        self.departures.insert(from, left);
        (!self.is_cut && !self.muted.contains(&from)).then_some(left)
    }

    /// When a frame that left at `left` arrives at `receiver`: no, one or two times.
    pub fn arrive(&mut self, left: u64, receiver: usize, rng: &mut Rng) -> Vec<u64> {
        if self.loss > 0 {
            self.offered += 1;
            if rng.chance(self.loss) {
                self.lost += 1;
                return Vec::new();
            }
        }
        let at = left + 50_000 + rng.below(200_000);
        if self.is_unruly && self.link.cable != Cable::Serial && rng.chance(10) {
            let stray = |rng: &mut Rng| at + rng.below(50_000_000);
            let first = stray(rng);
            return if rng.chance(50) { vec![first, stray(rng)] } else { vec![first] };
        }
        let at = at.max(self.arrivals.get(&receiver).copied().unwrap_or(0));
        self.arrivals.insert(receiver, at);
        vec![at]
    }
}
