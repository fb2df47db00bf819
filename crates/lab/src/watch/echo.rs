//! The client's echo probe: one request a millisecond to each service, through the client's kernel.

use std::{
    io::PipeReader,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::Mutex,
};

use locum_sys::{namespace, stamp};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};

use super::{Beat, ECHO_EVERY, Record, frames, lock, wait};
use crate::clock::Moment;

/// Distinguishes our answers from those to other programs in the client.
const IDENTIFIER: u16 = 0x10c0;
/// An answer with its IPv4 header is much shorter.
const PACKET_BYTES_MAX: usize = 256;

pub(super) fn probe(client: &OwnedFd, services: &[Ipv4Addr], record: &Mutex<Record>, stop: &PipeReader) {
    let Ok(socket) = open(client) else { return };
    let mut beat = Beat::new(ECHO_EVERY);
    let mut sequence = 0u16;
    let mut buffer = [0; PACKET_BYTES_MAX];
    while wait(&socket, stop, Some(beat.next.remaining())) {
        while let Ok(Some(got)) = stamp::receive(&socket, &mut buffer) {
            let Some((source, IDENTIFIER)) = frames::echo_reply(&buffer[..got.length]) else { continue };
            if services.contains(&source) {
                let at = got.arrived.map_or_else(Moment::now, Moment::of_stamp);
                lock(record).echoes.entry(source).or_default().push(at);
            }
        }
        if beat.due() {
            sequence = sequence.wrapping_add(1);
            let question = frames::icmp_echo(IDENTIFIER, sequence);
            for service in services {
                // A missing address is normal, and shows as a missing answer.
                let to = SocketAddrV4::new(*service, 0);
                let _ = rustix::net::sendto(&socket, &question, SendFlags::DONTWAIT, &to);
            }
        }
    }
}

fn open(client: &OwnedFd) -> std::io::Result<OwnedFd> {
    namespace::enter_network(client)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))?;
    stamp::enable(&socket)?;
    Ok(socket)
}
