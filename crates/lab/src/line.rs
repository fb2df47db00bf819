//! A null-modem line: two pseudo terminals, and a thread that copies the bytes from each to the other.
//!
//! A pseudo terminal has no speed and no modem lines. If a receiver does not read, bytes that do not fit are lost, as
//! on a line without flow control. Bytes sent to a device that no process has open are lost, too.

use std::{
    io::{self, PipeWriter},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
    termios::OptionalActions,
};

use crate::dice::Dice;

/// How often a closed device is checked for being opened.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Bytes of one read; the frame of a beat is well below it.
const READ_BYTES: usize = 4096;

/// The switches of a line, and its counters.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    cut: AtomicBool,
    /// By end: its node has no power.
    dark: [AtomicBool; 2],
    /// By end: its output is lost.
    muted: [AtomicBool; 2],
    /// The loss as the bits of an `f64`: std has no atomic one.
    loss: AtomicU64,
    passed: AtomicU64,
    lost: AtomicU64,
}

/// Counters of a line since the rack was built. The unit is one write of a sender, as a rule a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineCounters {
    /// Writes handed on to the other end.
    pub passed: u64,
    /// Writes lost at random.
    pub lost: u64,
}

impl Switches {
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Relaxed);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    pub(crate) fn darken(&self, end: usize, dark: bool) {
        self.dark[end].store(dark, Relaxed);
    }

    pub(crate) fn mute(&self, end: usize, mute: bool) {
        self.muted[end].store(mute, Relaxed);
    }

    pub(crate) fn lose(&self, share: f64) {
        self.loss.store(share.to_bits(), Relaxed);
    }

    pub(crate) fn counters(&self) -> LineCounters {
        LineCounters { passed: self.passed.load(Relaxed), lost: self.lost.load(Relaxed) }
    }

    fn open(&self, from: usize) -> bool {
        !self.is_cut() && !self.muted[from].load(Relaxed) && !self.dark.iter().any(|dark| dark.load(Relaxed))
    }
}

/// A running line; its devices are gone when it is dropped.
pub(crate) struct NullModem {
    /// The path of each end's device, as the rack sees it.
    pub(crate) devices: [PathBuf; 2],
    pub(crate) switches: Arc<Switches>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl NullModem {
    /// Makes a line with devices in `terminals`, a mounted set of pseudo terminals. Called in the rack's hub.
    pub(crate) fn lay(terminals: &Path, dice: Dice) -> io::Result<Self> {
        let (a, device_a) = pair(terminals)?;
        let (b, device_b) = pair(terminals)?;
        let (stopped, stop) = io::pipe()?;
        let switches = Arc::<Switches>::default();
        let shared = switches.clone();
        let thread = thread::Builder::new()
            .name("line".into())
            .spawn(move || carry(&[a, b], &shared, dice, &stopped))?;
        Ok(Self { devices: [device_a, device_b], switches, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for NullModem {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The near end of a pseudo terminal and the path of its far end, which hands bytes on as they are.
fn pair(terminals: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let near = rustix::fs::open(terminals.join("ptmx"), flags, Mode::empty())?;
    rustix::pty::unlockpt(&near)?;
    let name = rustix::pty::ptsname(&near, Vec::new())?;
    let number = name.to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
    let device = terminals.join(number);
    // Without NOCTTY it could become the controlling terminal of this session, and hang it up.
    let far = rustix::fs::open(&device, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut settings = rustix::termios::tcgetattr(&far)?;
    settings.make_raw();
    rustix::termios::tcsetattr(&far, OptionalActions::Now, &settings)?;
    Ok((near, device))
}

fn carry(ends: &[OwnedFd; 2], switches: &Switches, mut dice: Dice, stopped: &impl AsFd) {
    let mut buffer = [0; READ_BYTES];
    // An end whose device is closed always polls as "ready" with a hang-up; so it is checked only now and then.
    let mut closed = [false; 2];
    loop {
        let wait = closed.contains(&true).then(|| Timespec::try_from(LOOK_AGAIN).ok()).flatten();
        let asked = |end: usize| {
            if closed[end] {
                PollFd::new(stopped, PollFlags::IN)
            } else {
                PollFd::new(&ends[end], PollFlags::IN)
            }
        };
        let mut ready = [asked(0), asked(1), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut ready, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if !ready[2].revents().is_empty() {
            return;
        }
        for (from, closed) in closed.iter_mut().enumerate() {
            *closed = !hand_on(ends, from, switches, &mut dice, &mut buffer);
        }
    }
}

/// Hands on all bytes that wait at the end `from`. False if its device is closed.
fn hand_on(
    ends: &[OwnedFd; 2],
    from: usize,
    switches: &Switches,
    dice: &mut Dice,
    buffer: &mut [u8],
) -> bool {
    let to = &ends[1 - from];
    loop {
        match rustix::io::read(&ends[from], &mut *buffer) {
            Ok(0) | Err(Errno::IO) => return false,
            Ok(length) if switches.open(from) => {
                let share = f64::from_bits(switches.loss.load(Relaxed));
                if dice.throw(share) {
                    switches.lost.fetch_add(1, Relaxed);
                } else if !is_closed(to) && rustix::io::write(to, &buffer[..length]).is_ok() {
                    switches.passed.fetch_add(1, Relaxed);
                }
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

fn is_closed(end: &OwnedFd) -> bool {
    let mut ready = [PollFd::new(end, PollFlags::empty())];
    poll(&mut ready, Some(&Timespec::default())).is_ok() && ready[0].revents().contains(PollFlags::HUP)
}
