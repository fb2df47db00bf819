//! A tap on one Ethernet interface: reads whole frames as they arrive, and sends frames as given (packet sockets).

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use crate::{
    option,
    stamp::{self, StampedDatagram},
};

/// The bytes before every frame of a tap opened with [`Tap::open_raw`]: the kernel's notes about an unfinished checksum
/// or a frame yet to be segmented. A relay can pass such frames on if it hands these bytes on unchanged.
pub const OFFLOAD_HEADER_BYTES: usize = 10;

/// The size of a socket's queue: with one probe a millisecond, enough for a reader that gets no processor for some
/// seconds.
const QUEUE_BYTES: i32 = 4 << 20;

/// A packet socket on one interface, non-blocking.
#[derive(Debug)]
pub struct Tap(OwnedFd);

impl Tap {
    /// Taps `interface` of the calling thread's network namespace, for frames as they are on the wire.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`, `ENODEV` without the interface.
    pub fn open(interface: &str) -> io::Result<Self> {
        let tap = Self::socket()?;
        stamp::enable(&tap)?;
        tap.bind(interface)?;
        Ok(tap)
    }

    /// As [`open`](Self::open), but each frame is preceded by [`OFFLOAD_HEADER_BYTES`] bytes, in both directions.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_raw(interface: &str) -> io::Result<Self> {
        let tap = Self::socket()?;
        stamp::enable(&tap)?;
        option::set(&tap, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1i32)?;
        tap.bind(interface)?;
        Ok(tap)
    }

    /// The next frame that arrived at the interface (never one that this host sent); `None` when none is waiting.
    ///
    /// # Errors
    /// `ENETDOWN` once when the interface goes down; the tap works again when it comes up.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<StampedDatagram>> {
        stamp::receive(&self.0, buffer)
    }

    /// Sends a frame out of the interface.
    ///
    /// # Errors
    /// `ENETDOWN`, `ENXIO` when the interface is down or gone; `ENOBUFS`, `EAGAIN` when its queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.0, frame, rustix::net::SendFlags::DONTWAIT)?;
        Ok(())
    }

    fn socket() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is passed. Protocol 0: nothing arrives before the socket is bound to its interface.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        let tap = Self(unsafe { OwnedFd::from_raw_fd(descriptor) });
        // The forced form exceeds the host's limit, but needs a right that root of a user namespace does not have.
        option::set(&tap, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &QUEUE_BYTES)
            .or_else(|_| option::set(&tap, libc::SOL_SOCKET, libc::SO_RCVBUF, &QUEUE_BYTES))?;
        Ok(tap)
    }

    fn bind(&self, interface: &str) -> io::Result<()> {
        let index = rustix::net::netdevice::name_to_index(&self.0, interface)?;
        option::set(&self.0, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index.cast_signed();
        // SAFETY: the kernel reads `address`, of the length given.
        let bound = unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
