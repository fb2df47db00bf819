//! Asks each node at its own hardware address, on its side of any cut, and listens on its port: shows which nodes
//! answer.

use std::{io::PipeReader, net::Ipv4Addr, sync::Mutex};

use super::{Beat, ECHO_EVERY, PortTap, Record, frames, frames::Heard, lock, wait};
use crate::clock::Moment;

/// More than any frame of a network with the usual 1500 bytes; the rest of a longer frame is ignored.
const FRAME_BYTES_MAX: usize = 2048;
const IDENTIFIER: u16 = 0x10c1;

pub(super) fn ask(
    port: &PortTap,
    node: &str,
    services: &[Ipv4Addr],
    record: &Mutex<Record>,
    stop: &PipeReader,
) {
    let pair = frames::FrameEnds { asker_mac: port.outer_mac, asker: port.asker, node_mac: port.node_mac };
    let mut beat = Beat::new(ECHO_EVERY);
    let mut sequence = 0u16;
    let mut buffer = [0; FRAME_BYTES_MAX];
    while wait(&port.tap, stop, Some(beat.next.remaining())) {
        while let Ok(Some(got)) = port.tap.receive(&mut buffer) {
            match frames::hear(&buffer[..got.length]) {
                Heard::As(source) if services.contains(&source) => {
                    let at = got.arrived.map_or_else(Moment::now, Moment::of_stamp);
                    lock(record).answers.entry((node.to_owned(), source)).or_default().push(at);
                }
                Heard::Asks { node, wanted } if wanted == port.asker => {
                    let _ = port.tap.send(&frames::arp_reply(&pair, node));
                }
                Heard::As(_) | Heard::Asks { .. } | Heard::Other => {}
            }
        }
        if beat.due() {
            sequence = sequence.wrapping_add(1);
            for &service in services {
                // A port without carrier refuses: then no machine on this side of it can ask either.
                let _ = port.tap.send(&frames::arp_request(&pair, service));
                let _ = port.tap.send(&frames::echo_request(&pair, service, IDENTIFIER, sequence));
            }
        }
    }
}
