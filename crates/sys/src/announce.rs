//! Tells a segment where an address is now: gratuitous ARP (RFC 826, RFC 5227, RFC 5944 section 4.6) and unsolicited
//! neighbour advertisements (RFC 4861 section 7.2.6). Neighbours that know the address correct their entry at once,
//! instead of asking an owner that is gone.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use zerocopy::{
    Immutable, IntoBytes,
    byteorder::network_endian::{U16, U32},
};

use crate::{checksum, netlink::Interface};

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const BROADCAST: [u8; 6] = [0xff; 6];
/// The all-nodes group's Ethernet address (RFC 2464 section 7).
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// The form of an announcement. Some stacks learn from one form, some from the other; sending both in turn reaches all.
/// Neighbour advertisements have one form only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnouncementForm {
    /// ARP: a broadcast request for the address by its owner (an announcement in the words of RFC 5227).
    Request,
    /// ARP: an unsolicited broadcast reply.
    Reply,
}

/// A packet socket that only sends. It belongs to the network namespace in which it was opened, not to an interface.
pub struct Announcer {
    socket: OwnedFd,
}

impl Announcer {
    /// Opens the packet socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's error; `PermissionDenied` without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        // Datagram: the kernel writes the link header. Protocol 0: nothing is received, no packet is copied for us.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)?;
        Ok(Self { socket })
    }

    /// Announces that `ip` is at the interface's hardware address. Sends one packet; never blocks.
    ///
    /// # Errors
    /// `Unsupported` if the interface does not resolve neighbours; else the kernel's error (`NetworkDown`).
    pub fn announce(&self, interface: &Interface, ip: IpAddr, form: AnnouncementForm) -> io::Result<()> {
        let Some(mac) = interface.mac.filter(|_| interface.resolves) else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this interface does not resolve addresses (no ARP, no neighbour discovery)",
            ));
        };
        match ip {
            IpAddr::V4(ip) => {
                self.send(interface.index, ETH_P_ARP, BROADCAST, ArpPacket::new(mac, ip, form).as_bytes())
            }
            IpAddr::V6(ip) => self.send(
                interface.index,
                ETH_P_IPV6,
                ALL_NODES,
                NeighbourAdvertisement::new(mac, ip).as_bytes(),
            ),
        }
    }

    /// Asks the segment who has `ip`, without a source address (RFC 5227, a probe; RFC 4862, section 5.4.2). Every
    /// owner of the address answers, even if this machine has it, too. Sends one packet; never blocks.
    ///
    /// # Errors
    /// As [`announce`](Self::announce).
    pub fn probe(&self, interface: &Interface, ip: IpAddr) -> io::Result<()> {
        let Some(mac) = interface.mac.filter(|_| interface.resolves) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        match ip {
            IpAddr::V4(ip) => {
                let packet =
                    ArpPacket { sender_ip: [0; 4], ..ArpPacket::new(mac, ip, AnnouncementForm::Request) };
                self.send(interface.index, ETH_P_ARP, BROADCAST, packet.as_bytes())
            }
            IpAddr::V6(ip) => {
                let packet = NeighbourSolicitation::new(ip);
                let [.., a, b, c] = ip.octets();
                self.send(interface.index, ETH_P_IPV6, [0x33, 0x33, 0xff, a, b, c], packet.as_bytes())
            }
        }
    }

    fn send(&self, interface: u32, ethertype: u16, to: [u8; 6], packet: &[u8]) -> io::Result<()> {
        // SAFETY: sockaddr_ll is plain integers, for which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&to);
        // SAFETY: packet and address are readable for the lengths given, and the kernel keeps neither pointer.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// An ARP packet for Ethernet and IPv4 (RFC 826).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ArpPacket {
    hardware: U16,
    protocol: U16,
    hardware_length: u8,
    protocol_length: u8,
    operation: U16,
    sender_mac: [u8; 6],
    sender_ip: [u8; 4],
    target_mac: [u8; 6],
    target_ip: [u8; 4],
}

impl ArpPacket {
    fn new(mac: [u8; 6], ip: Ipv4Addr, form: AnnouncementForm) -> Self {
        let (operation, target_mac) = match form {
            AnnouncementForm::Request => (1, [0; 6]),
            AnnouncementForm::Reply => (2, mac),
        };
        Self {
            hardware: U16::new(1),
            protocol: U16::new(0x0800),
            hardware_length: 6,
            protocol_length: 4,
            operation: U16::new(operation),
            sender_mac: mac,
            sender_ip: ip.octets(),
            target_mac,
            target_ip: ip.octets(),
        }
    }
}

/// An IPv6 packet to all nodes with a neighbour advertisement (RFC 4861 section 4.4) and its target's link-layer
/// address option.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct NeighbourAdvertisement {
    version_class_flow: U32,
    payload_length: U16,
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
    kind: u8,
    code: u8,
    checksum: U16,
    flags: U32,
    target: [u8; 16],
    option: u8,
    option_length: u8,
    mac: [u8; 6],
}

/// The flag "override" alone: replaces existing entries; not solicited, no router.
const ND_NA_FLAG_OVERRIDE: u32 = 1 << 29;
const IPV6_HEADER_BYTES: usize = 40;
const IPPROTO_ICMPV6: u8 = 58;

impl NeighbourAdvertisement {
    fn new(mac: [u8; 6], ip: Ipv6Addr) -> Self {
        let mut packet = Self {
            version_class_flow: U32::new(6 << 28),
            payload_length: U16::new(32),
            next_header: IPPROTO_ICMPV6,
            hop_limit: 255,
            source: ip.octets(),
            destination: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets(),
            kind: 136,
            code: 0,
            checksum: U16::new(0),
            flags: U32::new(ND_NA_FLAG_OVERRIDE),
            target: ip.octets(),
            option: 2,
            option_length: 1,
            mac,
        };
        packet.checksum = U16::from_bytes(icmpv6_checksum(packet.as_bytes()));
        packet
    }
}

/// An IPv6 packet with a neighbour solicitation for duplicate address detection (RFC 4861, section 4.3), from the
/// unspecified address to the target's solicited-node group.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct NeighbourSolicitation {
    version_class_flow: U32,
    payload_length: U16,
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
    kind: u8,
    code: u8,
    checksum: U16,
    reserved: U32,
    target: [u8; 16],
}

impl NeighbourSolicitation {
    fn new(ip: Ipv6Addr) -> Self {
        let [.., a, b] = ip.segments();
        let mut packet = Self {
            version_class_flow: U32::new(6 << 28),
            payload_length: U16::new(24),
            next_header: IPPROTO_ICMPV6,
            hop_limit: 255,
            source: [0; 16],
            destination: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (a & 0xff), b).octets(),
            kind: 135,
            code: 0,
            checksum: U16::new(0),
            reserved: U32::new(0),
            target: ip.octets(),
        };
        packet.checksum = U16::from_bytes(icmpv6_checksum(packet.as_bytes()));
        packet
    }
}

/// The checksum of an IPv6 packet whose payload is ICMPv6, its checksum field zero (RFC 8200 section 8.1): over the
/// addresses and the payload, the payload's length, and the protocol number.
fn icmpv6_checksum(packet: &[u8]) -> [u8; 2] {
    let length = (packet.len() - IPV6_HEADER_BYTES) as u32;
    checksum::internet(&[&packet[8..], &length.to_be_bytes(), &[0, IPPROTO_ICMPV6]])
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;
    use crate::testing::{in_namespace, patience, set_up, veth_pair};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0xab, 0xcd];

    #[test]
    fn arp_bytes() {
        let ip = Ipv4Addr::new(172, 23, 2, 14);
        let request = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0xab, 0xcd, 172, 23, 2, 14, 0, 0, 0, 0, 0, 0, 172, 23, 2, 14,
        ];
        let reply = [
            0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0xab, 0xcd, 172, 23, 2, 14, 2, 0, 0, 0, 0xab, 0xcd, 172, 23,
            2, 14,
        ];
        assert_eq!(ArpPacket::new(MAC, ip, AnnouncementForm::Request).as_bytes(), request);
        assert_eq!(ArpPacket::new(MAC, ip, AnnouncementForm::Reply).as_bytes(), reply);
    }

    #[test]
    fn advertisement_bytes() {
        let packet = NeighbourAdvertisement::new(MAC, "fd00::14".parse().unwrap());
        let bytes = packet.as_bytes();
        assert_eq!(bytes.len(), 72);
        assert_eq!(&bytes[..8], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(bytes[40], 136);
        assert_eq!(&bytes[44..48], [0x20, 0, 0, 0], "override alone");
        assert_eq!(&bytes[64..], [2, 1, 2, 0, 0, 0, 0xab, 0xcd]);
        // The receiver's check: with the checksum in place the sum is all ones.
        assert_eq!(icmpv6_checksum(bytes), [0, 0]);
    }

    #[test]
    fn a_neighbour_hears_it() {
        in_namespace(|| {
            let [eth, peer] = veth_pair("eth0", "peer0").unwrap();
            let listener =
                Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(3u16.to_be()))))
                    .unwrap();
            listener.set_nonblocking(true).unwrap();
            let announcer = Announcer::open().unwrap();
            let deadline = patience();
            let mut heard = [false; 3];
            let mac = eth.mac.unwrap();
            while heard != [true; 3] {
                assert!(deadline(), "heard {heard:?}");
                announcer.announce(&eth, "172.23.2.14".parse().unwrap(), AnnouncementForm::Request).unwrap();
                announcer.announce(&eth, "172.23.2.14".parse().unwrap(), AnnouncementForm::Reply).unwrap();
                announcer.announce(&eth, "fd00::14".parse().unwrap(), AnnouncementForm::Request).unwrap();
                let mut frame = [0; 200];
                while let Ok(length) = (&listener).read(&mut frame) {
                    let frame = &frame[..length];
                    heard[0] |= frame[..6] == BROADCAST
                        && frame[6..12] == mac
                        && frame[12..14] == [8, 6]
                        && frame[21] == 1;
                    heard[1] |= frame[..6] == BROADCAST
                        && frame[6..12] == mac
                        && frame[12..14] == [8, 6]
                        && frame[21] == 2;
                    heard[2] |= frame[..6] == ALL_NODES && frame[12..14] == [0x86, 0xdd] && frame[54] == 136;
                }
            }
            set_up(&peer.name, false).unwrap();
            set_up(&eth.name, false).unwrap();
            let down = announcer
                .announce(&eth, "172.23.2.14".parse().unwrap(), AnnouncementForm::Reply)
                .unwrap_err();
            assert_eq!(down.kind(), io::ErrorKind::NetworkDown);
            let lo = crate::netlink::Netlink::open().unwrap().interface("lo").unwrap();
            let nobody =
                announcer.announce(&lo, "127.0.0.2".parse().unwrap(), AnnouncementForm::Reply).unwrap_err();
            assert_eq!(nobody.kind(), io::ErrorKind::Unsupported);
        });
    }
}
