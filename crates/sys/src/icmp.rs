//! ICMP echo with a payload (RFC 792, RFC 4443): asks a machine that does not run Locum.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::net::{RecvFlags, SocketAddrAny};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{checksum, option};

const HEADER_BYTES: usize = 8;
// RFC 792, RFC 4443
const ICMP_ECHOREPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// A raw socket of one family that sends echo requests and receives all replies to this machine with its identifier.
/// Never blocks.
pub struct Pinger {
    socket: Socket,
    ipv6: bool,
    identifier: u16,
}

/// One echo reply, with its payload.
#[derive(Debug, PartialEq, Eq)]
pub struct EchoReply<'a> {
    /// The sender's address in the reply.
    pub from: IpAddr,
    /// The sequence number of the request.
    pub sequence: u16,
    /// The payload of the request.
    pub payload: &'a [u8],
}

impl Pinger {
    /// Opens a raw socket; `identifier` distinguishes its requests from others.
    ///
    /// # Errors
    /// The kernel's error; `PermissionDenied` without CAP_NET_RAW.
    pub fn open(ipv6: bool, identifier: u16) -> io::Result<Self> {
        let (domain, protocol) =
            if ipv6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
        let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
        // The kernel refuses everything but echo replies. A set bit refuses. linux/icmp.h, linux/icmpv6.h
        if ipv6 {
            let mut refused = [u32::MAX; 8];
            refused[usize::from(ICMPV6_ECHO_REPLY / 32)] &= !(1 << (ICMPV6_ECHO_REPLY % 32));
            option::set(&socket, libc::IPPROTO_ICMPV6, 1, &refused)?;
        } else {
            option::set(&socket, libc::SOL_RAW, 1, &!(1u32 << ICMP_ECHOREPLY))?;
        }
        Ok(Self { socket, ipv6, identifier })
    }

    /// Sends one echo request to `to`.
    ///
    /// # Errors
    /// The kernel's error: no route, `WouldBlock`; `InvalidInput` for the other family.
    pub fn ask(&self, to: IpAddr, sequence: u16, payload: &[u8]) -> io::Result<()> {
        if to.is_ipv6() != self.ipv6 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let kind = if self.ipv6 { ICMPV6_ECHO_REQUEST } else { ICMP_ECHO };
        let packet = request(kind, self.identifier, sequence, payload);
        self.socket.send_to(&packet, &SocketAddr::new(to, 0).into()).map(|_| ())
    }

    /// The next answer with our identifier, read into `buffer`; `None` when nothing is waiting.
    ///
    /// # Errors
    /// The kernel's error; the socket can go on being used.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<EchoReply<'a>>> {
        // Replies to other programs are skipped, at most this many in one call.
        for _ in 0..64 {
            let (length, from) = match rustix::net::recvfrom(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((length, _, from)) => (length, from),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let Some(from) = from.and_then(ip_of) else { continue };
            if let Some((sequence, begin)) = parse(&buffer[..length], self.ipv6, self.identifier) {
                return Ok(Some(EchoReply { from, sequence, payload: &buffer[begin..length] }));
            }
        }
        Ok(None)
    }
}

impl AsFd for Pinger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn ip_of(address: SocketAddrAny) -> Option<IpAddr> {
    SocketAddr::try_from(address).ok().map(|address| address.ip())
}

fn request(kind: u8, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER_BYTES + payload.len());
    packet.extend([kind, 0, 0, 0]);
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(payload);
    if kind == ICMP_ECHO {
        // The kernel computes the checksum of ICMPv6, because only it knows the addresses in it.
        let sum = checksum::internet(&[&packet]);
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// The sequence number, and the position of the payload, if these bytes are a reply to us. An IPv4 packet comes with
/// its IP header.
fn parse(packet: &[u8], ipv6: bool, identifier: u16) -> Option<(u16, usize)> {
    let header = if ipv6 { 0 } else { usize::from(packet.first()? & 0x0f) * 4 };
    let head: &[u8; HEADER_BYTES] = packet.get(header..)?.first_chunk()?;
    let kind = if ipv6 { ICMPV6_ECHO_REPLY } else { ICMP_ECHOREPLY };
    let ours = head[0] == kind && head[1] == 0 && head[4..6] == identifier.to_be_bytes();
    ours.then(|| (u16::from_be_bytes([head[6], head[7]]), header + HEADER_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, patience, set_up};

    #[test]
    fn garbage_is_no_answer() {
        for length in 0..64 {
            for fill in [0u8, 0x45, 0x4f, 129, 0xff] {
                let packet = vec![fill; length];
                let _ = parse(&packet, false, 0x4545);
                let _ = parse(&packet, true, 0x8181);
            }
        }
    }

    #[test]
    fn the_loopback_answers() {
        in_namespace(|| {
            set_up("lo", true).unwrap();
            for ip in ["127.0.0.1", "::1"] {
                let ip: IpAddr = ip.parse().unwrap();
                let pinger = Pinger::open(ip.is_ipv6(), 4711).unwrap();
                let other = Pinger::open(ip.is_ipv6(), 4712).unwrap();
                pinger.ask(ip, 7, b"###\nodd").unwrap();
                let deadline = patience();
                let mut buffer = [0; 300];
                loop {
                    assert!(deadline(), "{ip} does not answer");
                    if let Some(reply) = pinger.receive(&mut buffer).unwrap() {
                        assert_eq!(reply, EchoReply { from: ip, sequence: 7, payload: b"###\nodd" });
                        break;
                    }
                }
                assert_eq!(other.receive(&mut buffer).unwrap(), None, "not its identifier");
            }
        });
    }
}
