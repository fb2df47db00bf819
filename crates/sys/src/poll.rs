//! Waits for many sources at once: epoll, one absolute timer, and a bell that other threads ring.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

/// The most sources reported by one wait; the next wait reports the others.
const READY_MAX: usize = 64;

/// A set of sources to wait for, each with a number chosen by the caller. Level-triggered: a source is reported as long
/// as it is ready.
pub struct Poller {
    epoll: OwnedFd,
}

/// The events that a source is watched for, besides errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Reports when there is something to read.
    Read,
    /// Reports when there is something to read or room to write.
    ReadWrite,
}

/// A source that is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadySource {
    /// The number that the caller chose.
    pub token: u64,
    /// There is something to read, or an error to be fetched by reading. Also set if the other end or the device is
    /// gone.
    pub read: bool,
    /// There is room to write.
    pub write: bool,
}

impl Poller {
    /// Makes an empty set of sources.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Adds a source. It leaves the set when it is closed.
    ///
    /// # Errors
    /// The kernel's error; `AlreadyExists` if the source is in the set already.
    pub fn add(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(token), flags(interest))?)
    }

    /// Changes the events that a source is watched for.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn change(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, epoll::EventData::new_u64(token), flags(interest))?)
    }

    /// Waits until a source is ready, and replaces the content of `ready`. With `block` false it only checks.
    ///
    /// # Errors
    /// The kernel's error; being interrupted by a signal is not an error.
    pub fn wait(&self, block: bool, ready: &mut Vec<ReadySource>) -> io::Result<()> {
        let mut events = [MaybeUninit::uninit(); READY_MAX];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        ready.clear();
        let (events, _) = match epoll::wait(&self.epoll, &mut events, (!block).then_some(&now)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        ready.extend(events.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            let has = |flag| flags.contains(flag);
            let hangup = has(epoll::EventFlags::HUP) || has(epoll::EventFlags::ERR);
            ReadySource {
                token: data.u64(),
                read: has(epoll::EventFlags::IN) || hangup,
                write: has(epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn flags(interest: Interest) -> epoll::EventFlags {
    match interest {
        Interest::Read => epoll::EventFlags::IN,
        Interest::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
    }
}

/// One deadline on the clock of [`crate::clock::monotonic_nanos`]. Readable when it has passed.
pub struct Timer {
    timer: OwnedFd,
}

impl Timer {
    /// Makes a timer that is not set.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { timer: timerfd_create(TimerfdClockId::Monotonic, flags)? })
    }

    /// Sets an absolute deadline in nanoseconds; one in the past passes at once. `None` unsets it. An earlier deadline
    /// that has passed is forgotten.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn set(&self, deadline: Option<u64>) -> io::Result<()> {
        // Zero would unset it.
        let nanos = deadline.map_or(0, |nanos| nanos.max(1));
        let value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (nanos % 1_000_000_000) as _,
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// A bell that any thread can ring. It is readable until it is silenced. Neither side ever blocks.
#[derive(Debug)]
pub struct Bell {
    event: OwnedFd,
}

impl Bell {
    /// Makes a bell that is silent.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Makes it readable. Several rings count as one.
    pub fn ring(&self) {
        // The only possible error is a full counter, and then it is readable already.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Silences the bell until it is rung again.
    pub fn silence(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic_nanos;

    #[test]
    fn bell_and_timer() {
        let (poller, bell, timer) = (Poller::new().unwrap(), Bell::new().unwrap(), Timer::new().unwrap());
        let mut ready = Vec::new();
        poller.add(&bell, 7, Interest::Read).unwrap();
        poller.add(&timer, 8, Interest::Read).unwrap();
        poller.wait(false, &mut ready).unwrap();
        assert_eq!(ready, []);
        bell.ring();
        bell.ring();
        poller.wait(true, &mut ready).unwrap();
        assert_eq!(ready, [ReadySource { token: 7, read: true, ..ReadySource::default() }]);
        bell.silence();
        let deadline = monotonic_nanos() + 2_000_000;
        timer.set(Some(deadline)).unwrap();
        poller.wait(true, &mut ready).unwrap();
        assert_eq!(ready, [ReadySource { token: 8, read: true, ..ReadySource::default() }]);
        assert!(monotonic_nanos() >= deadline);
        timer.set(None).unwrap();
        poller.wait(false, &mut ready).unwrap();
        assert_eq!(ready, []);
        timer.set(Some(0)).unwrap();
        poller.wait(true, &mut ready).unwrap();
        assert_eq!(ready[0].token, 8, "a past deadline has passed");
    }
}
