//! A recorder on a cable: it records the frames there and replays them later.

use std::{
    io,
    net::{IpAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use locum_lab::{
    Rack,
    clock::{Moment, pause},
};

use super::build::RECORDER;

/// Longer than any frame.
const FRAME_BYTES_MAX: usize = 65_536;
/// The time between two frames that are replayed.
const PACE: Duration = Duration::from_millis(20);
/// The time within which the recorder notices that it must end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

struct RecordedFrame {
    at: Moment,
    from: IpAddr,
    bytes: Vec<u8>,
}

/// Records until it is dropped.
pub(super) struct Recorder {
    port: u16,
    socket: UdpSocket,
    tape: Arc<Mutex<Vec<RecordedFrame>>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Recorder {
    /// Begins to record all datagrams to this port.
    pub(super) fn start(rack: &Rack, port: u16) -> Result<Self, String> {
        let words = |error: io::Error| format!("record frames: {error}");
        let socket = rack.inside(RECORDER, move || open(port)).map_err(super::words)?.map_err(words)?;
        let (tape, end) = (Arc::<Mutex<Vec<RecordedFrame>>>::default(), Arc::<AtomicBool>::default());
        let (listeners, to, until) = (socket.try_clone().map_err(words)?, tape.clone(), end.clone());
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; FRAME_BYTES_MAX];
            while !until.load(Relaxed) {
                // If nothing is heard for a while, the call returns an error.
                let Ok((length, from)) = listeners.recv_from(&mut buffer) else { continue };
                let frame =
                    RecordedFrame { at: Moment::now(), from: from.ip(), bytes: buffer[..length].to_vec() };
                to.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
            }
        });
        Ok(Self { port, socket, tape, end, threads: vec![thread] })
    }

    /// Replays, repeatedly for some time, the frames that these addresses sent between two moments.
    pub(super) fn replay(
        &mut self,
        senders: &[IpAddr],
        from: Moment,
        to: Moment,
        time: Duration,
    ) -> Result<(), String> {
        let tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner);
        let of_life =
            |frame: &&RecordedFrame| senders.contains(&frame.from) && frame.at >= from && frame.at < to;
        let frames: Vec<(IpAddr, Vec<u8>)> = tape
            .iter()
            .filter(of_life)
            .map(|frame| (everybody_near(frame.from), frame.bytes.clone()))
            .collect();
        drop(tape);
        if frames.is_empty() {
            return Err("nothing of that life was recorded".to_owned());
        }
        let mouth = self.socket.try_clone().map_err(|error| error.to_string())?;
        let (port, end, over) = (self.port, self.end.clone(), Moment::now() + time);
        self.threads.push(thread::spawn(move || {
            for (to, bytes) in frames.iter().cycle() {
                if over.remaining().is_zero() || end.load(Relaxed) {
                    return;
                }
                // A cut cable carries no replays either.
                let _ = mouth.send_to(bytes, (*to, port));
                pause(PACE);
            }
        }));
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(LOOK_AGAIN))?;
    Ok(socket)
}

/// The broadcast address of this address's network of 256 addresses.
fn everybody_near(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => (u32::from(ip) | 0xff).to_be_bytes().into(),
        other => other,
    }
}
