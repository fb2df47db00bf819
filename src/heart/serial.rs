//! A link over a serial line. Nothing here ever blocks: frames wait in a short queue, and an outdated one is replaced
//! by the newer one.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use locum_core::{framing::classic::Cutter, model::event::Carrier};
use locum_sys::{
    poll::{Interest, Poller},
    serial::SerialLine,
};

use super::stats::LinkStats;

/// How much is written at once, in bytes (wire reference: heartbeat writes in such pieces).
const CHUNK_BYTES: usize = 512;
/// With fewer bytes waiting in the driver, the kernel calls a line writable, and so does Locum.
const WRITABLE_BYTES: usize = 256;
/// How many bytes may wait; the oldest frames are dropped for newer ones.
const QUEUE_BYTES_MAX: usize = 16 * 1024;
/// A line that makes no progress for longer than this, beyond the time that it needs itself, is broken (wire reference,
/// section 7.4).
const STALL_NANOS: u64 = 500_000_000;
/// Bits on the line for a byte: start, eight data bits, stop.
const BITS_A_BYTE: u64 = 10;

/// One serial line, open or not.
pub(super) struct SerialLink {
    device: PathBuf,
    baud: u32,
    token: u64,
    line: Option<SerialLine>,
    cutter: Cutter,
    queue: VecDeque<Arc<[u8]>>,
    /// How many bytes of the queue's first frame are written.
    begun: usize,
    /// When bytes were last written, or began to wait.
    moved: u64,
    /// How many bytes were written at that moment.
    moved_bytes: usize,
    /// Whether the poller watches for room to write.
    watched: bool,
    stall: Option<LineStall>,
    trouble: String,
}

/// A line that took nothing for too long. It stays open, and is tried with every new frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineStall {
    Silent,
    /// Something was written since. If that leaves the machine, the line works again.
    Tried,
}

impl SerialLink {
    pub(super) fn new(device: &str, baud: u32, token: u64) -> Self {
        Self {
            device: device.into(),
            baud,
            token,
            line: None,
            cutter: Cutter::default(),
            queue: VecDeque::new(),
            begun: 0,
            moved: 0,
            moved_bytes: 0,
            watched: false,
            stall: None,
            trouble: "not opened yet".to_string(),
        }
    }

    /// Opens the line if it is not open.
    pub(super) fn check(&mut self, poller: &Poller) -> Carrier {
        if self.line.is_none() {
            let opened = SerialLine::open(&self.device, self.baud).and_then(|line| {
                poller.add(&line, self.token, Interest::Read)?;
                Ok(line)
            });
            match opened {
                Ok(line) => {
                    self.line = Some(line);
                    self.cutter = Cutter::default();
                    self.watched = false;
                }
                Err(error) => self.trouble = format!("{}: {error}", self.device.display()),
            }
        }
        self.carrier()
    }

    pub(super) fn carrier(&self) -> Carrier {
        if self.line.is_none() {
            Carrier::Down(self.trouble.clone())
        } else if self.stall.is_some() {
            Carrier::Down(format!("{}: no connection or bad cable", self.device.display()))
        } else {
            Carrier::Up
        }
    }

    /// Puts a frame into the queue. Returns whether the link's state may have changed.
    pub(super) fn send(
        &mut self,
        bytes: &Arc<[u8]>,
        now: u64,
        poller: &Poller,
        stats: &mut LinkStats,
    ) -> bool {
        let Some(line) = &self.line else {
            stats.errors_out += 1;
            return false;
        };
        let mut changed = false;
        if self.stall == Some(LineStall::Tried) && self.queue.is_empty() && matches!(line.unsent(), Ok(0)) {
            self.stall = None;
            changed = true;
        }
        let idle = self.queue.is_empty() && line.unsent().is_ok_and(|bytes| bytes < WRITABLE_BYTES);
        self.make_room(bytes, stats);
        if self.queue.is_empty() {
            (self.moved, self.moved_bytes) = (now, 0);
        }
        self.queue.push_back(Arc::clone(bytes));
        if idle {
            self.write(now, poller, stats);
            return changed || self.line.is_none();
        }
        self.watch(poller);
        changed
    }

    /// Drops queued beats, because the newest says all that they do. A frame that was begun must be finished.
    fn make_room(&mut self, new: &[u8], stats: &mut LinkStats) {
        let first = usize::from(self.begun > 0);
        if is_beat(new) {
            let before = self.queue.len();
            let mut index = 0;
            self.queue.retain(|frame| {
                index += 1;
                index <= first || !is_beat(frame)
            });
            stats.overtaken += (before - self.queue.len()) as u64;
        }
        let mut waiting: usize = self.queue.iter().map(|frame| frame.len()).sum();
        while waiting + new.len() > QUEUE_BYTES_MAX && self.queue.len() > first {
            if let Some(dropped) = self.queue.remove(first) {
                waiting -= dropped.len();
                stats.errors_out += 1;
            }
        }
    }

    /// There is room to write: writes one chunk. So no more than about a chunk waits in the kernel, where it cannot be
    /// replaced any more.
    pub(super) fn write(&mut self, now: u64, poller: &Poller, stats: &mut LinkStats) {
        let (Some(line), Some(frame)) = (&self.line, self.queue.front()) else { return self.watch(poller) };
        let rest = &frame[self.begun..];
        match line.write(&rest[..rest.len().min(CHUNK_BYTES)]) {
            Ok(0) => {}
            Ok(written) => {
                (self.moved, self.moved_bytes) = (now, written);
                self.begun += written;
                if self.stall.is_some() {
                    self.stall = Some(LineStall::Tried);
                }
                if self.begun == frame.len() {
                    stats.frames_out += 1;
                    stats.bytes_out += frame.len() as u64;
                    self.queue.pop_front();
                    self.begun = 0;
                }
            }
            Err(error) => self.close(&error, stats),
        }
        self.watch(poller);
    }

    /// Reads the waiting bytes, at most a buffer full, and hands whole frames to `each`.
    pub(super) fn read(&mut self, buffer: &mut [u8], stats: &mut LinkStats, mut each: impl FnMut(&[u8])) {
        let Some(line) = &self.line else { return };
        match line.read(buffer) {
            Ok(None) => {}
            Ok(Some(length)) => {
                let mut bytes = &buffer[..length];
                while let Some(frame) = self.cutter.cut(&mut bytes) {
                    stats.frames_in += 1;
                    stats.bytes_in += frame.len() as u64;
                    each(frame);
                }
            }
            Err(error) => {
                stats.errors_in += 1;
                self.close(&error, stats);
            }
        }
    }

    /// When [`Self::expire`] must check the line.
    pub(super) fn deadline(&self) -> Option<u64> {
        if self.line.is_none() || self.queue.is_empty() {
            return None;
        }
        let line_nanos = self.moved_bytes as u64 * BITS_A_BYTE * 1_000_000_000 / u64::from(self.baud.max(1));
        Some(self.moved.saturating_add(STALL_NANOS).saturating_add(line_nanos))
    }

    /// Checks at the deadline whether the line is broken, that is, takes nothing. Returns whether the link's state may
    /// have changed.
    pub(super) fn expire(&mut self, now: u64, poller: &Poller, stats: &mut LinkStats) -> bool {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return false;
        }
        if let Some(line) = &self.line {
            // Old beats that leave the machine later would tell the peer an outdated state.
            let _ = line.discard();
        }
        stats.errors_out += self.queue.len() as u64;
        self.queue.clear();
        self.begun = 0;
        self.stall = Some(LineStall::Silent);
        self.watch(poller);
        true
    }

    fn close(&mut self, error: &io::Error, stats: &mut LinkStats) {
        stats.errors_out += self.queue.len() as u64;
        self.trouble = format!("{}: {error}", self.device.display());
        self.line = None;
        self.queue.clear();
        self.begun = 0;
        self.stall = None;
        self.watched = false;
    }

    fn watch(&mut self, poller: &Poller) {
        let Some(line) = &self.line else { return };
        let wanted = !self.queue.is_empty();
        if wanted != self.watched {
            let interest = if wanted { Interest::ReadWrite } else { Interest::Read };
            if poller.change(line, self.token, interest).is_ok() {
                self.watched = wanted;
            }
        }
    }
}

/// Whether a classic frame is a `status`, by its bytes. The queue needs to understand no more.
fn is_beat(frame: &[u8]) -> bool {
    const TYPE: &[u8] = b"\nt=status\n";
    frame.windows(TYPE.len()).take(64).any(|window| window == TYPE)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    fn open() -> (OwnedFd, SerialLink, Poller) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let poller = Poller::new().unwrap();
        let mut link = SerialLink::new(&name, 19_200, 7);
        assert_eq!(link.check(&poller), Carrier::Up);
        (master, link, poller)
    }

    fn frame(text: &str) -> Arc<[u8]> {
        format!(">>>\n{text}\n<<<\n").into_bytes().into()
    }

    fn drain(master: &OwnedFd) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(length) = rustix::io::read(master, &mut buffer) {
            all.extend_from_slice(&buffer[..length]);
        }
        all
    }

    #[test]
    fn a_line_that_takes_nothing_is_down_until_it_takes_something() {
        let (master, mut link, poller) = open();
        let mut stats = LinkStats::default();
        let mut now = 1_000_000_000;
        // Nobody reads: first the kernel's buffer fills, then our queue.
        while stats.errors_out == 0 {
            link.send(&frame(&"x".repeat(1000)), now, &poller, &mut stats);
            for _ in 0..3 {
                link.write(now, &poller, &mut stats);
            }
            assert!(stats.frames_out < 10_000, "a line without an end");
        }
        assert_eq!(link.carrier(), Carrier::Up);
        now = link.deadline().unwrap();
        assert!(now > 1_000_000_000 + STALL_NANOS);
        assert!(!link.expire(now - 1, &poller, &mut stats));
        assert!(link.expire(now, &poller, &mut stats));
        assert!(matches!(link.carrier(), Carrier::Down(why) if why.contains("no connection or bad cable")));
        assert_eq!(link.deadline(), None, "nothing waits any more");

        drain(&master);
        link.send(&frame("t=status"), now, &poller, &mut stats);
        link.write(now, &poller, &mut stats);
        assert!(matches!(link.carrier(), Carrier::Down(_)), "not before it is seen to have gone out");
        assert!(link.send(&frame("t=status"), now, &poller, &mut stats));
        assert_eq!(link.carrier(), Carrier::Up);
    }

    #[test]
    fn a_newer_beat_overtakes_a_waiting_one_and_nothing_else() {
        let (master, mut link, poller) = open();
        let mut stats = LinkStats::default();
        while link.queue.is_empty() {
            link.send(&frame(&"x".repeat(400)), 1, &poller, &mut stats);
        }
        for text in ["t=status\nseq=1", "t=resource\nseq=2", "t=status\nseq=3"] {
            link.send(&frame(text), 1, &poller, &mut stats);
        }
        assert_eq!(stats.overtaken, 1);
        let mut heard = Vec::new();
        while !link.queue.is_empty() {
            heard.extend(drain(&master));
            link.write(1, &poller, &mut stats);
        }
        heard.extend(drain(&master));
        let heard = String::from_utf8(heard).unwrap();
        assert!(heard.ends_with(">>>\nt=resource\nseq=2\n<<<\n>>>\nt=status\nseq=3\n<<<\n"), "{heard}");
        assert!(!heard.contains("seq=1"));
    }

    #[test]
    fn a_device_that_comes_late_is_opened_when_it_is_there() {
        let (_master, held, poller) = open();
        let directory = tempfile::tempdir().unwrap();
        let late = directory.path().join("ttyUSB0");
        let mut link = SerialLink::new(late.to_str().unwrap(), 19_200, 8);
        let missing = |carrier| matches!(carrier, Carrier::Down(why) if why.contains("No such file"));
        assert!(missing(link.check(&poller)));
        std::os::unix::fs::symlink(&held.device, &late).unwrap();
        assert!(matches!(link.check(&poller), Carrier::Down(why) if why.contains("another process uses it")));
        drop(held);
        assert_eq!(link.check(&poller), Carrier::Up);
    }

    #[test]
    fn a_device_that_goes_is_down_and_says_so() {
        let (master, mut link, poller) = open();
        let mut stats = LinkStats::default();
        drop(master);
        link.read(&mut [0; 100], &mut stats, |_| panic!("a frame out of nothing"));
        assert!(matches!(link.carrier(), Carrier::Down(why) if why.contains("the other end is gone")));
        assert!(matches!(link.check(&poller), Carrier::Down(_)));
        link.send(&frame("t=status"), 1, &poller, &mut stats);
        assert_eq!((stats.errors_in, stats.errors_out), (1, 1));
    }
}
