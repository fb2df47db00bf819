//! The machine from which hostile frames come: through its own UDP stack, or as packets with forged senders.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use locum_lab::{
    Rack,
    clock::{Moment, pause},
};
use locum_sys::{netlink::Netlink, tap::Tap};

use super::{
    cluster::{LINK, NEIGHBOUR, NEIGHBOUR_ADDRESS},
    forge::{Forged, Tally},
};

/// The broadcast address, which reaches both nodes at once.
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 255);
const PORT: u16 = 694;
/// The most bytes that fit into one packet with a forged sender.
const PACKET_BYTES_MAX: usize = 1472;

pub(super) struct Neighbour {
    socket: UdpSocket,
    tap: Tap,
    mac: [u8; 6],
}

impl Neighbour {
    pub(super) fn new(rack: &Rack) -> Self {
        let open = || -> io::Result<Self> {
            let socket = UdpSocket::bind((NEIGHBOUR_ADDRESS, 0))?;
            socket.set_broadcast(true)?;
            let mac = Netlink::open()?.interface(LINK)?.mac.ok_or(io::ErrorKind::NotFound)?;
            Ok(Self { socket, tap: Tap::open(LINK)?, mac })
        };
        rack.inside(NEIGHBOUR, open).unwrap().unwrap()
    }

    /// Sends one frame to both nodes, in the name of `sender` if given. Waits while queues are full, so that everything
    /// reported as sent is on the wire.
    pub(super) fn send(&self, bytes: &[u8], sender: Option<Ipv4Addr>) {
        let send = || match sender {
            Some(sender) if bytes.len() <= PACKET_BYTES_MAX => self.tap.send(&self.packet(bytes, sender)),
            _ => self.socket.send_to(bytes, (EVERYBODY, PORT)).map(drop),
        };
        let full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::WouldBlock) || error.raw_os_error() == Some(NO_BUFFERS)
        };
        while let Err(error) = send() {
            assert!(full(&error), "{error}");
            pause(Duration::from_millis(1));
        }
    }

    /// Sends frames of the pool in order, repeatedly, at `rate` a second or as fast as possible. Every fifth has a
    /// forged sender.
    pub(super) fn flood(&self, pool: &[Forged], rate: Option<u64>, time: Duration) -> Tally {
        let (begin, mut tally) = (Moment::now(), Tally::default());
        let mut frames = pool.iter().cycle();
        loop {
            let elapsed = Moment::now().since(begin);
            if elapsed >= time && rate.is_none() {
                return tally;
            }
            let nanos = elapsed.min(time).as_nanos();
            let due = rate
                .map_or(u64::MAX, |rate| u64::try_from(nanos * u128::from(rate) / 1_000_000_000).unwrap());
            for forged in
                frames.by_ref().take(usize::try_from(due.saturating_sub(tally.frames).min(64)).unwrap())
            {
                self.send(&forged.bytes, (tally.frames % 5 == 0).then(|| forged_sender(tally.frames)));
                tally.add(forged);
            }
            if elapsed >= time && tally.frames >= due {
                return tally;
            }
            if rate.is_some() {
                pause(Duration::from_micros(500));
            }
        }
    }

    /// An Ethernet broadcast frame with a UDP datagram in it. A UDP checksum of zero means none.
    fn packet(&self, payload: &[u8], sender: Ipv4Addr) -> Vec<u8> {
        let length = |header: usize| u16::try_from(header + payload.len()).unwrap().to_be_bytes();
        let mut ip = [[0x45, 0], length(28), [0, 0], [0, 0], [64, 17], [0, 0]].concat();
        ip.extend(sender.octets());
        ip.extend(EVERYBODY.octets());
        let sum: u32 = ip.chunks_exact(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
        let udp = [40_000_u16.to_be_bytes(), PORT.to_be_bytes(), length(8), [0, 0]].concat();
        [&[0xff; 6], &self.mac[..], &[8, 0], &ip, &udp, payload].concat()
    }
}

const NO_BUFFERS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();

/// One of thousands of addresses, on the link's own network and elsewhere, but never a real node's.
fn forged_sender(number: u64) -> Ipv4Addr {
    let [.., high, low] = (number / 5).to_be_bytes();
    if low % 2 == 0 { Ipv4Addr::new(10, 0, 0, 20 + low % 200) } else { Ipv4Addr::new(192, 168, high, low) }
}
