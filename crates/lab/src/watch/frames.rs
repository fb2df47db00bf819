//! The few frames that ask a node, and the frames that show its answers.

use std::net::Ipv4Addr;

use locum_sys::checksum;

const ETH_P_IP: [u8; 2] = [0x08, 0x00];
const ETH_P_ARP: [u8; 2] = [0x08, 0x06];
/// Hardware Ethernet, protocol IPv4, address lengths (RFC 826).
const ARP_PREFIX: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ARPOP_REQUEST: u8 = 1;
const ARPOP_REPLY: u8 = 2;
const IPPROTO_ICMP: u8 = 1;
const ICMP_ECHOREPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
/// On a real wire, shorter frames are padded to this length.
pub(super) const FRAME_BYTES_MIN: usize = 60;

/// The two ends of a question, on Ethernet and IPv4.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameEnds {
    pub(super) asker_mac: [u8; 6],
    pub(super) asker: Ipv4Addr,
    pub(super) node_mac: [u8; 6],
}

/// "Who has `service`?", to the node's own hardware address.
pub(super) fn arp_request(pair: &FrameEnds, service: Ipv4Addr) -> Vec<u8> {
    arp(pair, ARPOP_REQUEST, service)
}

/// "`asker` is here", for a node that asks for it.
pub(super) fn arp_reply(pair: &FrameEnds, node: Ipv4Addr) -> Vec<u8> {
    arp(pair, ARPOP_REPLY, node)
}

fn arp(pair: &FrameEnds, operation: u8, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(pair, ETH_P_ARP);
    frame.extend(ARP_PREFIX);
    frame.extend([0, operation]);
    frame.extend(pair.asker_mac);
    frame.extend(pair.asker.octets());
    frame.extend(if operation == ARPOP_REQUEST { [0; 6] } else { pair.node_mac });
    frame.extend(target.octets());
    frame.resize(FRAME_BYTES_MIN, 0);
    frame
}

/// An ICMP echo request to `service`, to the node's own hardware address.
pub(super) fn echo_request(pair: &FrameEnds, service: Ipv4Addr, identifier: u16, sequence: u16) -> Vec<u8> {
    let icmp = icmp_echo(identifier, sequence);
    let length = u16::try_from(20 + icmp.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, IPPROTO_ICMP, 0, 0];
    header.extend(pair.asker.octets());
    header.extend(service.octets());
    let sum = checksum::internet(&[&header]);
    header[10..12].copy_from_slice(&sum);
    let mut frame = ethernet(pair, ETH_P_IP);
    frame.extend(header);
    frame.extend(icmp);
    frame.resize(FRAME_BYTES_MIN.max(frame.len()), 0);
    frame
}

/// The ICMP part of an echo request.
pub(crate) fn icmp_echo(identifier: u16, sequence: u16) -> Vec<u8> {
    let mut icmp = vec![ICMP_ECHO, 0, 0, 0];
    icmp.extend(identifier.to_be_bytes());
    icmp.extend(sequence.to_be_bytes());
    let sum = checksum::internet(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum);
    icmp
}

/// The source and identifier of an echo reply, from a whole IPv4 packet.
pub(crate) fn echo_reply(packet: &[u8]) -> Option<(Ipv4Addr, u16)> {
    let (source, protocol, payload) = ipv4(packet)?;
    let is_reply = protocol == IPPROTO_ICMP && payload.first() == Some(&ICMP_ECHOREPLY);
    is_reply.then(|| Some((source, u16::from_be_bytes(*payload.get(4..)?.first_chunk()?))))?
}

/// The meaning of a frame that a node sends on its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The node uses this address: an ARP reply, or a packet from it.
    As(Ipv4Addr),
    /// The node, as `node`, asks where `wanted` is.
    Asks {
        node: Ipv4Addr,
        wanted: Ipv4Addr,
    },
    Other,
}

pub(super) fn hear(frame: &[u8]) -> Heard {
    let (Some(kind), Some(body)) = (frame.get(12..14), frame.get(14..)) else { return Heard::Other };
    if kind == ETH_P_IP {
        return ipv4(body).map_or(Heard::Other, |(source, ..)| Heard::As(source));
    }
    let address = |at: usize| body.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
    let (Some(sender), Some(target)) = (address(14), address(24)) else { return Heard::Other };
    match (kind == ETH_P_ARP && body.starts_with(&ARP_PREFIX), body[7]) {
        // An announcement is also a reply or a request for the sender itself; it answers no question.
        (true, ARPOP_REPLY) if sender != target => Heard::As(sender),
        (true, ARPOP_REQUEST) if sender != target => Heard::Asks { node: sender, wanted: target },
        _ => Heard::Other,
    }
}

/// Source, protocol and payload of an IPv4 packet.
fn ipv4(packet: &[u8]) -> Option<(Ipv4Addr, u8, &[u8])> {
    let header = packet.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0xf) * 4;
    let source = Ipv4Addr::from(*header[12..].first_chunk::<4>()?);
    (header[0] >> 4 == 4 && length >= 20).then_some((source, header[9], packet.get(length..)?))
}

fn ethernet(pair: &FrameEnds, kind: [u8; 2]) -> Vec<u8> {
    [&pair.node_mac[..], &pair.asker_mac, &kind].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: FrameEnds = FrameEnds {
        asker_mac: [2, 0, 0, 0, 0, 1],
        asker: Ipv4Addr::new(10, 0, 0, 9),
        node_mac: [2, 0, 0, 0, 0, 2],
    };
    const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

    #[test]
    fn questions_are_heard_as_questions() {
        let request = arp_request(&PAIR, SERVICE);
        assert_eq!((request.len(), &request[..6]), (60, &PAIR.node_mac[..]));
        assert_eq!(hear(&request), Heard::Asks { node: PAIR.asker, wanted: SERVICE });
        assert_eq!(hear(&arp_reply(&PAIR, SERVICE)), Heard::As(PAIR.asker));
        assert_eq!(hear(&echo_request(&PAIR, SERVICE, 1, 2)), Heard::As(PAIR.asker));
        let announcement = arp_reply(&PAIR, PAIR.asker);
        assert_eq!(hear(&announcement), Heard::Other);
    }

    #[test]
    fn checksums_sum_up_to_nothing() {
        let packet = echo_request(&PAIR, SERVICE, 0xbeef, 0x1234);
        assert_eq!(checksum::internet(&[&packet[14..34]]), [0, 0]);
        assert_eq!(checksum::internet(&[&packet[34..42]]), [0, 0]);
        let mut reply = packet[14..].to_vec();
        assert_eq!(echo_reply(&reply), None);
        reply[20] = ICMP_ECHOREPLY;
        assert_eq!(echo_reply(&reply), Some((PAIR.asker, 0xbeef)));
    }

    #[test]
    fn torn_frames_are_nothing() {
        for whole in [arp_request(&PAIR, SERVICE), echo_request(&PAIR, SERVICE, 1, 1)] {
            for length in 0..34 {
                assert_eq!(hear(&whole[..length]), Heard::Other);
                assert_eq!(echo_reply(&whole[..length]), None);
            }
        }
    }
}
