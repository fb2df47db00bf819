//! Hears who else on a segment claims to have an address: the sender of any ARP packet (RFC 5227, section 2.4) and the
//! target of any neighbour advertisement (RFC 4861, section 4.4).

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use crate::option;

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
/// The socket's buffer for a late reader. The kernel drops packets beyond that; the next packet says the same.
const QUEUE_BYTES: i32 = 1 << 16;
/// The filter compares an address with each of up to this many, because a jump reaches 255 instructions. It selects
/// such a block by the block's highest address.
const BLOCK: usize = 250;
/// The most addresses in one filter, which may have 4,096 instructions (`BPF_MAXINSNS`).
const FILTERED_MAX: usize = 16 * BLOCK;
/// The positions of the sender's address in an ARP packet and of the target in an advertisement.
const ARP_SENDER: usize = 14;
const ARP_BYTES: usize = 28;
const ADVERTISEMENT_TARGET: usize = 48;
const ADVERTISEMENT_BYTES: usize = 64;

/// A machine's claim to have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressClaim {
    /// The IP address that is claimed.
    pub ip: IpAddr,
    /// The hardware address that claims it.
    pub mac: [u8; 6],
    /// The number of the interface on which it was heard.
    pub interface: u32,
}

/// A packet socket that hears such claims on all interfaces of the network namespace in which it was opened. It never
/// blocks, and does not hear what this machine sends.
#[derive(Debug)]
pub struct ClaimantSocket {
    socket: OwnedFd,
    kind: u16,
}

impl ClaimantSocket {
    /// Hears claims to these IPv4 addresses only. Returns several sockets if the addresses are too many for one filter.
    ///
    /// # Errors
    /// The kernel's error; `PermissionDenied` without CAP_NET_RAW.
    pub fn of_arp(addresses: &[Ipv4Addr]) -> io::Result<Vec<Self>> {
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.chunks(FILTERED_MAX).map(|some| Self::open(ETH_P_ARP, &arp_filter(some))).collect()
    }

    /// Hears claims to all IPv6 addresses. The kernel's filter sees every IPv6 packet that arrives.
    ///
    /// # Errors
    /// As [`of_arp`](Self::of_arp).
    pub fn of_advertisements() -> io::Result<Self> {
        Self::open(ETH_P_IPV6, &advertisement_filter())
    }

    fn open(kind: u16, filter: &[libc::sock_filter]) -> io::Result<Self> {
        let flags = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is passed. Protocol 0: nothing arrives before the filter stands and the socket is bound.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        option::set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &QUEUE_BYTES)?;
        attach(&socket, filter)?;
        // SAFETY: all-zero bytes are a valid sockaddr_ll; interface 0 is any.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = kind.to_be();
        // SAFETY: the kernel reads `address`, of the length given.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound == 0 { Ok(Self { socket, kind }) } else { Err(io::Error::last_os_error()) }
    }

    /// Reads the next packet: `None` if none is waiting, `Some(None)` if it contains no claim.
    ///
    /// # Errors
    /// The kernel's error, for example that an interface went down; the socket can go on being used.
    pub fn receive(&self) -> io::Result<Option<Option<AddressClaim>>> {
        let mut packet = [0u8; 128];
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut length = size_of_val(&from) as libc::socklen_t;
        // SAFETY: packet and from are writable for the lengths given, and the kernel keeps neither pointer.
        let received = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                packet.as_mut_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut length,
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        };
        let packet = &packet[..received.min(packet.len())];
        if from.sll_pkttype == libc::PACKET_OUTGOING {
            return Ok(Some(None));
        }
        let reported = match self.kind {
            ETH_P_ARP => parse_arp(packet),
            _ => parse_advertisement(packet, from.sll_addr.first_chunk().copied()),
        };
        let interface = u32::try_from(from.sll_ifindex).unwrap_or(0);
        Ok(Some(reported.map(|(ip, mac)| AddressClaim { ip, mac, interface })))
    }
}

impl AsFd for ClaimantSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Ethernet and IPv4 alone. A probe without a sender's address (RFC 5227) claims nothing.
fn parse_arp(packet: &[u8]) -> Option<(IpAddr, [u8; 6])> {
    let packet: &[u8; ARP_BYTES] = packet.first_chunk()?;
    if packet[..6] != [0, 1, 8, 0, 6, 4] || packet[6] != 0 || !matches!(packet[7], 1 | 2) {
        return None;
    }
    let ip = Ipv4Addr::from(*packet[ARP_SENDER..].first_chunk::<4>()?);
    let mac = *packet[8..].first_chunk()?;
    (!ip.is_unspecified()).then_some((ip.into(), mac))
}

/// The hardware address is the option's, else the frame's.
fn parse_advertisement(packet: &[u8], frame: Option<[u8; 6]>) -> Option<(IpAddr, [u8; 6])> {
    let fixed: &[u8; ADVERTISEMENT_BYTES] = packet.first_chunk()?;
    if fixed[6..8] != [58, 255] || fixed[40] != 136 {
        return None;
    }
    let target = Ipv6Addr::from(*fixed[ADVERTISEMENT_TARGET..].first_chunk::<16>()?);
    let option = packet.get(ADVERTISEMENT_BYTES..).filter(|option| option.starts_with(&[2, 1]));
    let mac = option.and_then(|option| option.get(2..)?.first_chunk().copied()).or(frame)?;
    Some((target.into(), mac))
}

// linux/filter.h, linux/bpf_common.h
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const RETURN: u16 = 0x06;

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Passes ARP packets whose sender is one of `addresses`, which are sorted.
fn arp_filter(addresses: &[Ipv4Addr]) -> Vec<libc::sock_filter> {
    let mut filter = vec![step(LOAD_WORD, 0, 0, ARP_SENDER as u32)];
    for block in addresses.chunks(BLOCK) {
        let (count, highest) = (block.len() as u8, block[block.len() - 1].to_bits());
        filter.push(step(JUMP_GREATER, count + 2, 0, highest));
        filter.extend((1..).zip(block).map(|(at, ip)| step(JUMP_EQUAL, count - at + 1, 0, ip.to_bits())));
        filter.push(step(RETURN, 0, 0, 0));
        filter.push(step(RETURN, 0, 0, u32::MAX));
    }
    filter.push(step(RETURN, 0, 0, 0));
    filter
}

fn advertisement_filter() -> Vec<libc::sock_filter> {
    vec![
        step(LOAD_BYTE, 0, 0, 6),
        step(JUMP_EQUAL, 0, 5, 58),
        step(LOAD_BYTE, 0, 0, 7),
        step(JUMP_EQUAL, 0, 3, 255),
        step(LOAD_BYTE, 0, 0, 40),
        step(JUMP_EQUAL, 0, 1, 136),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

fn attach(socket: &OwnedFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `program` and the steps that it points to, of the lengths given, writes neither, and keeps
    // no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        announce::{AnnouncementForm, Announcer},
        netlink::{Netlink, NewAddress},
        testing::{in_namespace, inside, other_network, patience, veth_across},
    };

    #[test]
    fn garbage_says_nothing() {
        for length in 0..128 {
            for fill in [0u8, 1, 2, 6, 58, 0xff] {
                let packet = vec![fill; length];
                assert_eq!(parse_arp(&packet), None);
                assert_eq!(parse_advertisement(&packet, Some([0; 6])), None);
            }
        }
    }

    #[test]
    fn announcements_and_the_answers_to_probes_are_heard() {
        in_namespace(|| {
            let there = other_network();
            let [eth, peer] = veth_across("eth0", "peer0", &there).unwrap();
            let (v4, v6, other): (IpAddr, IpAddr, IpAddr) =
                ("10.1.0.7".parse().unwrap(), "fd00::7".parse().unwrap(), "10.1.0.8".parse().unwrap());
            let IpAddr::V4(plain) = v4 else { unreachable!() };
            let mut listeners = ClaimantSocket::of_arp(&[Ipv4Addr::LOCALHOST, plain]).unwrap();
            listeners.push(ClaimantSocket::of_advertisements().unwrap());
            let mac = peer.mac.unwrap();
            let announcer = Announcer::open().unwrap();
            let mut heard = Vec::new();
            let listen = |heard: &mut Vec<AddressClaim>| {
                for listener in &listeners {
                    while let Some(reported) = listener.receive().unwrap() {
                        heard.extend(reported.filter(|said| [v4, v6, other].contains(&said.ip)));
                    }
                }
            };
            let deadline = patience();
            let all = |heard: &[AddressClaim]| {
                [v4, v6].iter().all(|ip| heard.contains(&AddressClaim { ip: *ip, mac, interface: eth.index }))
            };
            while !all(&heard) {
                assert!(deadline(), "{heard:?}");
                inside(&there, || {
                    let announcer = Announcer::open().unwrap();
                    for ip in [v4, v6, other] {
                        announcer.announce(&peer, ip, AnnouncementForm::Reply).unwrap();
                    }
                });
                // Ours.
                announcer.announce(&eth, v4, AnnouncementForm::Reply).unwrap();
                listen(&mut heard);
            }
            assert!(heard.iter().all(|said| said.ip != other && said.mac == mac), "{heard:?}");
            // No machine has announced an address; a probe asks for it.
            inside(&there, || {
                for (ip, prefix) in [(v4, 24), (v6, 64)] {
                    Netlink::open().unwrap().add_address(&NewAddress::new(peer.index, ip, prefix)).unwrap();
                }
            });
            crate::clock::sleep_until(crate::clock::monotonic_nanos() + 50_000_000);
            listen(&mut heard);
            heard.clear();
            let deadline = patience();
            while !all(&heard) {
                assert!(deadline(), "nobody answers a probe: {heard:?}");
                announcer.probe(&eth, v4).unwrap();
                announcer.probe(&eth, v6).unwrap();
                listen(&mut heard);
            }
        });
    }
    /// As many addresses as there can be groups. Each is heard once, and other addresses do not wake the reader.
    #[test]
    fn of_thousands_each_is_heard_and_no_stranger() {
        in_namespace(|| {
            let there = other_network();
            let [_eth, peer] = veth_across("eth0", "peer0", &there).unwrap();
            // Every second one, in three places.
            let ours = |number: u32| Ipv4Addr::from_bits(0x0a01_0000 + number % 3 * 0x0100_0000 + number * 2);
            let services: Vec<Ipv4Addr> = (0..4096).map(ours).collect();
            let listeners = ClaimantSocket::of_arp(&services).unwrap();
            assert_eq!(listeners.len(), 2);
            let heard = || {
                let mut heard = Vec::new();
                for listener in &listeners {
                    while let Some(reported) = listener.receive().unwrap() {
                        heard.extend(reported.map(|said| said.ip));
                    }
                }
                heard
            };
            let announcer = inside(&there, || Announcer::open().unwrap());
            let say = |ip: Ipv4Addr| announcer.announce(&peer, ip.into(), AnnouncementForm::Reply).unwrap();
            // The cable works.
            let deadline = patience();
            while heard().is_empty() {
                assert!(deadline(), "nothing is heard");
                say(services[0]);
            }
            let _ = heard();
            // No more at once than a socket keeps.
            for some in services.chunks(32) {
                for ip in some {
                    say(Ipv4Addr::from_bits(ip.to_bits() + 1));
                    say(*ip);
                    say(Ipv4Addr::from_bits(ip.to_bits() - 1));
                }
                let wanted: Vec<IpAddr> = some.iter().map(|ip| (*ip).into()).collect();
                let mut all = Vec::new();
                let deadline = patience();
                while all.len() < wanted.len() {
                    assert!(deadline(), "{all:?}, not {wanted:?}");
                    all.extend(heard());
                }
                all.extend(heard());
                all.sort_unstable_by_key(|ip| wanted.iter().position(|wanted| wanted == ip));
                assert_eq!(all, wanted);
            }
        });
    }
}
