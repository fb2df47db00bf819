//! Datagrams with the time at which the kernel received them, so that a late reader does not distort a measurement.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use crate::option;

/// One datagram read by [`receive`].
#[derive(Clone, Copy, Debug)]
pub struct StampedDatagram {
    /// Bytes written to the buffer; a longer datagram is cut.
    pub length: usize,
    /// The kernel's wall clock at arrival, since the epoch; `None` if the socket has no time stamps.
    pub arrived: Option<Duration>,
}

/// Makes the kernel stamp everything that arrives at `socket` from now on. The first socket of the machine that asks
/// for it starts the kernel's stamping some milliseconds later; until then a datagram is stamped when it is read.
///
/// # Errors
/// The kernel's error.
pub fn enable(socket: impl AsFd) -> io::Result<()> {
    option::set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)
}

/// Reads the next datagram into `buffer`; `None` if none is waiting. Never blocks.
///
/// # Errors
/// The kernel's error, a pending error of the socket included (`ENETDOWN` when its interface goes down).
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<StampedDatagram>> {
    let mut control = [0u64; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let length = loop {
        // SAFETY: part and control point to live buffers of the lengths given.
        let length =
            unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        match usize::try_from(length) {
            Ok(length) => break length,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                error => return Err(error),
            },
        }
    };
    Ok(Some(StampedDatagram { length, arrived: arrival(&message) }))
}

fn arrival(message: &libc::msghdr) -> Option<Duration> {
    // SAFETY: `message` was filled by recvmsg and its control buffer is alive in the caller.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return only headers that lie wholly in the control buffer.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_TIMESTAMPNS {
            // SAFETY: a message of this kind carries one timespec, which may lie unaligned.
            let time = unsafe { libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned() };
            return Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?));
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, thread::park_timeout};

    use super::*;
    use crate::clock::unix_nanos;

    #[test]
    fn a_datagram_is_stamped_when_it_arrives_not_when_it_is_read() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        enable(&socket).unwrap();
        let mut buffer = [0; 8];
        assert!(receive(&socket, &mut buffer).unwrap().is_none());
        park_timeout(Duration::from_millis(100));
        socket.send_to(b"beat", socket.local_addr().unwrap()).unwrap();
        let sent = Duration::from_nanos(unix_nanos());
        park_timeout(Duration::from_millis(50));
        let got = receive(&socket, &mut buffer).unwrap().unwrap();
        assert_eq!((got.length, &buffer[..4]), (4, &b"beat"[..]));
        assert!(got.arrived.unwrap() < sent + Duration::from_millis(40));
    }
}
