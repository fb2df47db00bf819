//! Watches changes of interfaces and addresses.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::SocketFlags;

use super::{
    ANSWER_BYTES_MAX, Interface, InterfaceAddress, for_each_message, receive_from_kernel, route_socket,
};

// linux/rtnetlink.h
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
/// The receive buffer: a burst of changes (a bridge with many ports goes down) must not overflow it.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// One change reported by the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// An interface is new or changed.
    Interface(Interface),
    /// An interface is gone, with all its addresses.
    InterfaceGone(Interface),
    /// An address is new or changed.
    Address(InterfaceAddress),
    /// An address is gone.
    AddressGone(InterfaceAddress),
    /// There were more changes than the kernel kept: read everything again.
    Lost,
}

/// Receives the changes of one network namespace from the time when it was opened. Readable (for epoll) when there are
/// some.
pub struct NetworkMonitor {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl NetworkMonitor {
    /// Begins to watch the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open() -> io::Result<Self> {
        let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
        let socket = route_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, groups)?;
        // Exceeds the system's limit, which needs rights; without them the smaller buffer and `Lost` will do.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES);
        Ok(Self { socket, buffer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// Reads one datagram and appends its changes to `changes`. Returns false if none was waiting. Never blocks.
    ///
    /// # Errors
    /// The kernel's error; the monitor stays usable.
    pub fn read(&mut self, changes: &mut Vec<NetworkChange>) -> io::Result<bool> {
        let length = match receive_from_kernel(&self.socket, &mut self.buffer) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                changes.push(NetworkChange::Lost);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        for_each_message(&self.buffer[..length], |header, payload| {
            changes.extend(match header.message_type {
                RTM_NEWLINK => Interface::parse(payload).map(NetworkChange::Interface),
                RTM_DELLINK => Interface::parse(payload).map(NetworkChange::InterfaceGone),
                RTM_NEWADDR => InterfaceAddress::parse(payload).map(NetworkChange::Address),
                RTM_DELADDR => InterfaceAddress::parse(payload).map(NetworkChange::AddressGone),
                _ => None,
            });
            Ok(())
        })?;
        Ok(true)
    }
}

impl AsFd for NetworkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netlink::{Netlink, NewAddress},
        testing::{in_namespace, set_up, veth_pair},
    };

    fn all(monitor: &mut NetworkMonitor) -> Vec<NetworkChange> {
        let mut changes = Vec::new();
        while monitor.read(&mut changes).unwrap() {}
        changes
    }

    #[test]
    fn sees_what_others_do() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let mut monitor = NetworkMonitor::open().unwrap();
            assert_eq!(all(&mut monitor), []);
            let mut netlink = Netlink::open().unwrap();
            let ip = "172.23.2.14".parse().unwrap();
            let new = NewAddress::new(eth.index, ip, 24);
            netlink.add_address(&new).unwrap();
            let came = all(&mut monitor);
            let Some(NetworkChange::Address(there)) =
                came.iter().find(|c| matches!(c, NetworkChange::Address(a) if a.ip == ip))
            else {
                panic!("{came:?}")
            };
            netlink.delete_address(there).unwrap();
            assert!(
                all(&mut monitor).iter().any(|c| matches!(c, NetworkChange::AddressGone(a) if a.ip == ip))
            );
            set_up("peer0", false).unwrap();
            // Carrier changes are reported by a kernel worker, a little later.
            let deadline = crate::testing::patience();
            let mut seen = Vec::new();
            while !seen
                .iter()
                .any(|c| matches!(c, NetworkChange::Interface(i) if i.name == "eth0" && i.up && !i.carrier))
            {
                assert!(deadline(), "no word of the lost carrier: {seen:?}");
                seen.extend(all(&mut monitor));
            }
        });
    }

    #[test]
    fn too_much_at_once_is_said() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let mut monitor = NetworkMonitor::open().unwrap();
            rustix::net::sockopt::set_socket_recv_buffer_size(&monitor.socket, 1).unwrap();
            let mut netlink = Netlink::open().unwrap();
            for host in 1..100 {
                let ip = std::net::Ipv4Addr::new(10, 0, 0, host).into();
                let new = NewAddress { no_prefix_route: true, ..NewAddress::new(eth.index, ip, 32) };
                netlink.add_address(&new).unwrap();
            }
            assert!(all(&mut monitor).contains(&NetworkChange::Lost));
        });
    }
}
