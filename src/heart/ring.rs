//! The two bounded rings between the heart and the control plane. Neither end takes a lock or waits for the other.

use std::{
    io::{self, Write as _},
    os::unix::net::UnixStream as StdStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use locum_sys::poll::Bell;
use tokio::{net::UnixStream, time::sleep};

use super::{Down, Up};

/// How many messages may be on their way up.
const UP_MAX: usize = 1024;
/// Notes are dropped when no more than this is free: the rest is for messages that must not be lost.
const UP_RESERVE: usize = 256;
/// How many messages may be on their way down.
const DOWN_MAX: usize = 256;
/// The pause before waiting for the heart is tried again, after it failed.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The state that both ends share.
#[derive(Debug)]
pub(super) struct HeartRings {
    up: ArrayQueue<Up>,
    down: ArrayQueue<Down>,
    bell: Bell,
    /// Wakes the control plane: one byte in a socket pair, which its runtime can wait for without unsafe code.
    waker: StdStream,
    stop: AtomicBool,
    progress: AtomicU64,
}

/// The control plane's end of the socket pair, by which it waits for the heart.
#[derive(Debug)]
pub(super) enum RingReceiver {
    /// As made, not registered with a runtime.
    Unregistered(StdStream),
    /// Registered with the runtime.
    Registered(UnixStream),
}

pub(super) fn pair() -> io::Result<(Arc<HeartRings>, RingReceiver)> {
    let (voice, listener) = StdStream::pair()?;
    voice.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    let shared = HeartRings {
        up: ArrayQueue::new(UP_MAX),
        down: ArrayQueue::new(DOWN_MAX),
        bell: Bell::new()?,
        waker: voice,
        stop: AtomicBool::new(false),
        progress: AtomicU64::new(0),
    };
    Ok((Arc::new(shared), RingReceiver::Unregistered(listener)))
}

impl HeartRings {
    // ---- the control plane's side

    pub(super) fn send_down(&self, down: Down) -> Result<(), Down> {
        if matches!(down, Down::Stop) {
            self.stop();
            return Ok(());
        }
        let sent = self.down.push(down);
        self.bell.ring();
        sent
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
    }

    pub(super) fn take_up(&self) -> Option<Up> {
        self.up.pop()
    }

    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    // ---- the heart's side

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn take_down(&self) -> Option<Down> {
        self.down.pop()
    }

    /// Sends a message up. Gives back one that does not fit.
    pub(super) fn send_up(&self, up: Up) -> Result<(), Up> {
        self.up.push(up)
    }

    pub(super) fn has_room_for_notes(&self) -> bool {
        self.up.capacity() - self.up.len() > UP_RESERVE
    }

    pub(super) fn wake_control(&self) {
        // If the pair is full the control plane is awake, and a closed one has no reader.
        let _ = (&self.waker).write(&[0]);
    }

    pub(super) fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

impl RingReceiver {
    /// Waits until the heart has called since the last time.
    pub(super) async fn listen(&mut self) {
        if let Self::Unregistered(stream) = self
            && let Ok(stream) = stream.try_clone().and_then(UnixStream::from_std)
        {
            *self = Self::Registered(stream);
        }
        match self {
            Self::Registered(stream) => {
                // No byte is lost if the future is dropped: all bytes are read at once, after the waiting.
                let _ = stream.readable().await;
                let mut calls = [0; 256];
                while stream.try_read(&mut calls).is_ok_and(|length| length > 0) {}
            }
            // No descriptor is left at this moment: the caller looks into the ring and tries again.
            Self::Unregistered(_) => sleep(AGAIN_AFTER).await,
        }
    }
}
