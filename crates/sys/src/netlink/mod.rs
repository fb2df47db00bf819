//! Synchronous route netlink: reads, changes and watches the kernel's interfaces and addresses.
//!
//! The message crates change their interface several times a year, so nothing of them is visible outside this module.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, netlink::SocketAddrNetlink,
};

mod address;
mod create;
mod interface;
mod monitor;
mod route;
mod settings;

pub use address::{
    ADDRESS_METRIC, ADDRESS_PROTOCOL, InterfaceAddress, Lifetime, NewAddress, choose_interface, same_network,
};
pub use create::{LinkChange, VethEnd};
pub use interface::{Interface, interface_name, ipv6_is_off};
pub use monitor::{NetworkChange, NetworkMonitor};
pub use route::interface_to;

/// The most bytes of a message that answers a request: the kernel fills dumps up to 32 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The most attempts to read a dump that the kernel marks as changed while it was read.
const DUMP_TRIES: usize = 5;

/// A connection to the kernel's routing tables of the network namespace in which it was opened.
///
/// Every call is one or two system calls and returns when the kernel has acted. That takes well below a millisecond,
/// unless another process holds the kernel's configuration lock.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    answer: Vec<u8>,
    /// Whether the kernel stores which program added an address.
    keeps_protocol: bool,
}

impl Netlink {
    /// Opens a connection in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: route_socket(SocketFlags::CLOEXEC, 0)?,
            sequence: 0,
            answer: vec![0; ANSWER_BYTES_MAX],
            keeps_protocol: address::kernel_keeps_protocol(),
        })
    }

    /// Asks for one change and waits until the kernel has made it.
    pub(crate) fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            let length = self.receive()?;
            let mut acknowledged = false;
            for_each_message(&self.answer[..length], |header, payload| {
                if header.sequence_number == sequence && header.message_type == NLMSG_ERROR {
                    acknowledged = true;
                    return error_code(payload);
                }
                Ok(())
            })?;
            if acknowledged {
                return Ok(());
            }
        }
    }

    /// Asks for one object. Returns what `read` makes of the answer's type and payload.
    pub(crate) fn ask<T>(
        &mut self,
        message: RouteNetlinkMessage,
        read: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let sequence = self.send(message, NLM_F_REQUEST)?;
        let (mut answered, mut answer) = (false, None);
        while !answered {
            let length = self.receive()?;
            for_each_message(&self.answer[..length], |header, payload| {
                if header.sequence_number != sequence {
                    return Ok(());
                }
                answered = true;
                match header.message_type {
                    NLMSG_ERROR => return error_code(payload),
                    kind => answer = read(kind, payload),
                }
                Ok(())
            })?;
        }
        Ok(answer)
    }

    /// Reads a whole table: collects what `entry` makes of each entry's type and payload. It is an error if the table
    /// changes during each of several attempts, because a missing entry may still exist then.
    pub(crate) fn dump<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        entry: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let (entries, is_whole) = self.dump_roughly(message, entry)?;
        if is_whole { Ok(entries) } else { Err(changed_meanwhile()) }
    }

    /// As [`Self::dump`], but a table that keeps changing is returned as it was read last. Also returns whether it is
    /// complete.
    pub(crate) fn dump_roughly<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        entry: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> io::Result<(Vec<T>, bool)> {
        let mut entries = Vec::new();
        for _ in 0..DUMP_TRIES {
            entries.clear();
            if self.dump_once(message.clone(), &entry, &mut entries)? {
                return Ok((entries, true));
            }
        }
        Ok((entries, false))
    }

    /// Returns whether the table did not change while it was read.
    fn dump_once<T>(
        &mut self,
        message: RouteNetlinkMessage,
        entry: &impl Fn(u16, &[u8]) -> Option<T>,
        entries: &mut Vec<T>,
    ) -> io::Result<bool> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut whole = true;
        let mut done = false;
        while !done {
            let length = self.receive()?;
            for_each_message(&self.answer[..length], |header, payload| {
                if header.sequence_number != sequence {
                    return Ok(());
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.message_type {
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => return error_code(payload),
                    kind => entries.extend(entry(kind, payload)),
                }
                Ok(())
            })?;
        }
        Ok(whole)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        let bytes = self.encode(message, flags);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(self.sequence)
    }

    /// The bytes of the next request; its sequence number is then `self.sequence`.
    fn encode(&mut self, message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// Receives one datagram from the kernel into `self.answer` and returns its length.
    fn receive(&mut self) -> io::Result<usize> {
        loop {
            if let Some(length) = receive_from_kernel(&self.socket, &mut self.answer)? {
                return Ok(length);
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn route_socket(flags: SocketFlags, groups: u32) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Receives one datagram; `None` if it is not the kernel's (any process may write to a netlink socket that it can
/// name).
pub(crate) fn receive_from_kernel(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let (filled, whole, from) = loop {
        match rustix::net::recvfrom(socket, &mut *buffer, RecvFlags::TRUNC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let from_kernel = from
        .and_then(|address: SocketAddrAny| SocketAddrNetlink::try_from(address).ok())
        .is_some_and(|address| address.pid() == 0);
    if filled < whole {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a netlink answer did not fit into its buffer",
        ));
    }
    Ok(from_kernel.then_some(filled))
}

/// Splits a datagram into messages. A malformed message ends it, because the next one cannot be found.
pub(crate) fn for_each_message(
    mut bytes: &[u8],
    mut each: impl FnMut(&MessageHeader, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while let Ok(message) = NetlinkBuffer::new_checked(bytes) {
        let header = MessageHeader {
            message_type: message.message_type(),
            flags: message.flags(),
            sequence_number: message.sequence_number(),
        };
        each(&header, message.payload())?;
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(())
}

/// The header of a message.
pub(crate) struct MessageHeader {
    pub(crate) message_type: u16,
    pub(crate) flags: u16,
    pub(crate) sequence_number: u32,
}

/// The error for an answer of several pieces that changed between them in each attempt, so that nothing is known.
pub(crate) fn changed_meanwhile() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the kernel's tables changed during each attempt to read them")
}

/// The payload of an error message begins with a negative errno; 0 is an acknowledgement.
pub(crate) fn error_code(payload: &[u8]) -> io::Result<()> {
    let Some(code) = payload.first_chunk::<4>() else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink error message without a code"));
    };
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_lying_datagram_is_no_panic() {
        for length in 0..40 {
            for fill in [0u8, 1, 0x10, 0x7f, 0xff] {
                let _ = for_each_message(&vec![fill; length], |_, payload| error_code(payload).or(Ok(())));
            }
        }
        assert!(error_code(&[1]).is_err());
        assert_eq!(error_code(&(-17i32).to_ne_bytes()).unwrap_err().raw_os_error(), Some(17));
        assert_eq!(error_code(&i32::MIN.to_ne_bytes()).unwrap_err().raw_os_error(), Some(i32::MAX));
    }
}
