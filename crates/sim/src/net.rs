//! The cables: segments that delay, lose, cut, double and reorder what is sent over them.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    rng::Rng,
    story::{Cable, Link},
};

/// What the driver of a serial line buffers before it drops frames, as time on the line.
const SERIAL_BACKLOG_MAX: Duration = Duration::from_secs(2);

/// One segment: everything plugged into it hears what is sent on it.
#[derive(Debug)]
pub struct Segment {
    /// Its link, as the story names it.
    pub link: Link,
    /// It carries nothing at all.
    pub is_cut: bool,
    /// Hosts of which nothing is carried.
    pub muted: Vec<usize>,
    /// Share of frames lost, in percent, for each receiver by itself.
    pub loss: u8,
    /// Frames are sometimes doubled, and late by up to 50 ms without keeping their order.
    pub is_unruly: bool,
    /// Frames offered to a receiver while `loss` was set, since then.
    pub offered: u64,
    /// How many of those were lost.
    pub lost: u64,
    /// When the last frame to each receiver arrives: order is kept.
    arrivals: BTreeMap<usize, u64>,
    /// When the last frame of each sender has left a serial line.
    departures: BTreeMap<usize, u64>,
}

impl Segment {
    /// A segment that works.
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

    /// Whether frames of this host are carried, all of them.
    #[must_use]
    pub fn carries(&self, host: usize) -> bool {
        !self.is_cut && self.loss == 0 && !self.muted.contains(&host)
    }

    /// When a frame sent now by host `from` (`bytes` long, on a serial line of `baud` bits a second) has left the
    /// sender; `None` when it gets nowhere.
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

    /// When a frame that left at `left` arrives at `receiver`: not at all, once, or twice.
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
