//! UDP sockets for links. Each belongs to one interface, except for a witness's. Neither side ever blocks. Facts:
//! `docs/wire.md`, the section on media.
//!
//! A socket stays bound to the interface that had the name when it was opened. If that one is gone and a new one of the
//! same name comes, the socket neither receives nor sends any more and has to be opened again.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::{netlink::Interface, option};

/// The receive buffer: about half a second of 10,000 small frames a second, including the kernel's bookkeeping.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// The priority in the sender's own queue, so that beats pass bulk traffic. Higher ones need rights, and change nothing
/// on the wire.
const TC_PRIO_INTERACTIVE: u32 = 6;

/// The sharing of a receiver's port and interface with other sockets. Facts: socket(7), tested below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSharing {
    /// Not shared: opening fails if the port is in use.
    Exclusive,
    /// Shared with sockets that also set SO_REUSEADDR. Each receives what is sent to all; datagrams to one address
    /// reach the socket opened last.
    Copied,
    /// Shared with sockets that also set SO_REUSEPORT, as heartbeat's unicast links do. Each receives what is sent to
    /// all; datagrams to one address reach one of the sockets, always the same for the same sender.
    Balanced,
}

/// Receives datagrams that arrive on one interface.
pub struct UdpReceiver {
    socket: UdpSocket,
}

impl UdpReceiver {
    /// Receives datagrams to `port` at any address of this machine (broadcasts included) that arrive on the interface.
    ///
    /// # Errors
    /// The kernel's error: `PermissionDenied` for a port below 1024 without rights, `AddrInUse`, no such device.
    pub fn open(interface: &Interface, ipv6: bool, port: u16, sharing: PortSharing) -> io::Result<Self> {
        let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = socket(interface, ipv6)?;
        socket.set_reuse_address(sharing != PortSharing::Exclusive)?;
        socket.set_reuse_port(sharing == PortSharing::Balanced)?;
        Self::bind(socket, SocketAddr::new(any, port))
    }

    /// Receives datagrams to a multicast group at `port` that arrive on the interface.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn join(interface: &Interface, group: IpAddr, port: u16) -> io::Result<Self> {
        let socket = socket(interface, group.is_ipv6())?;
        socket.set_reuse_address(true)?;
        match group {
            IpAddr::V4(ip) => {
                socket.join_multicast_v4_n(&ip, &InterfaceIndexOrAddress::Index(interface.index))?;
                Self::bind(socket, SocketAddrV4::new(ip, port).into())
            }
            IpAddr::V6(ip) => {
                socket.join_multicast_v6(&ip, interface.index)?;
                Self::bind(socket, SocketAddrV6::new(ip, port, 0, interface.index).into())
            }
        }
    }

    /// Receives datagrams to this port of the machine on any interface; port 0 lets the kernel choose one. Also sends
    /// ([`Self::send`]), wherever the routes lead.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn anywhere(local: SocketAddr) -> io::Result<Self> {
        Self::bind(unbound_socket(local.is_ipv6())?, local)
    }

    /// The address and port from which [`Self::send`] sends to that destination now, as the routes choose it. It
    /// changes with routes and addresses.
    ///
    /// # Errors
    /// The kernel's error: no route, no address.
    pub fn source(&self, to: SocketAddr) -> io::Result<SocketAddr> {
        // A second socket: a connected one would not receive from others any more.
        let probe: UdpSocket = unbound_socket(to.is_ipv6())?.into();
        probe.connect(to)?;
        Ok(SocketAddr::new(probe.local_addr()?.ip(), self.socket.local_addr()?.port()))
    }

    /// Sends a datagram from the port at which it receives.
    ///
    /// # Errors
    /// As [`UdpSender::send`].
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.send_to(bytes, to).map(|_| ())
    }

    fn bind(socket: Socket, address: SocketAddr) -> io::Result<Self> {
        // Exceeds the system's limit, which needs rights; without them a smaller buffer will do.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        }
        socket.bind(&address.into())?;
        Ok(Self { socket: socket.into() })
    }

    /// Reads one datagram into `buffer`: its length (cut to the buffer's) and the sender's address in it. `None` if
    /// none is waiting.
    ///
    /// # Errors
    /// The kernel's error, for example if the interface went down. The socket stays usable.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        match self.socket.recv_from(buffer) {
            Ok(datagram) => Ok(Some(datagram)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The number of datagrams that the kernel has dropped since the socket was opened, because they were not read in
    /// time. SO_RXQ_OVFL would tell it, too, but only with the next datagram.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn dropped(&self) -> io::Result<u32> {
        // linux/socket.h, linux/sock_diag.h
        const SO_MEMINFO: libc::c_int = 55;
        const SK_MEMINFO_DROPS: usize = 8;
        let counters: [u32; SK_MEMINFO_DROPS + 1] = option::get(&self.socket, libc::SOL_SOCKET, SO_MEMINFO)?;
        Ok(counters[SK_MEMINFO_DROPS])
    }
}

impl AsFd for UdpReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends datagrams out of one interface, from a port of the kernel's choice.
pub struct UdpSender {
    socket: UdpSocket,
}

impl UdpSender {
    /// Makes a sender to the broadcast address of the interface's network, never through a router. Frames leave from
    /// `source` if given, else from the address that the kernel chooses for each.
    ///
    /// # Errors
    /// The kernel's error; `AddrNotAvailable` if this machine does not have `source`.
    pub fn broadcast(interface: &Interface, source: Option<IpAddr>) -> io::Result<Self> {
        let socket = sending(interface, false, source)?;
        socket.set_broadcast(true)?;
        option::set(&socket, libc::SOL_SOCKET, libc::SO_DONTROUTE, &1i32)?;
        Ok(Self { socket: socket.into() })
    }

    /// Makes a sender to single addresses of one family, neighbours or behind routers. `source` as for
    /// [`broadcast`](Self::broadcast).
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn unicast(interface: &Interface, ipv6: bool, source: Option<IpAddr>) -> io::Result<Self> {
        Ok(Self { socket: sending(interface, ipv6, source)?.into() })
    }

    /// Makes a sender to multicast groups of one family, at most `hops` routers away. With `own_too` listeners on this
    /// machine receive the datagrams, too. `source` as for [`broadcast`](Self::broadcast).
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn multicast(
        interface: &Interface,
        ipv6: bool,
        hops: u8,
        own_too: bool,
        source: Option<IpAddr>,
    ) -> io::Result<Self> {
        let socket = sending(interface, ipv6, source)?;
        if ipv6 {
            socket.set_multicast_if_v6(interface.index)?;
            socket.set_multicast_hops_v6(hops.into())?;
            socket.set_multicast_loop_v6(own_too)?;
        } else {
            // Being bound to the interface is enough to choose it.
            socket.set_multicast_ttl_v4(hops.into())?;
            socket.set_multicast_loop_v4(own_too)?;
        }
        Ok(Self { socket: socket.into() })
    }

    /// Sends one datagram. A full queue drops it, as any network may.
    ///
    /// # Errors
    /// The kernel's error: `NetworkDown`, `NetworkUnreachable`, `WouldBlock`.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.send_to(bytes, to).map(|_| ())
    }
}

/// A socket that sends from that address and from a port of the kernel's choice.
fn sending(interface: &Interface, ipv6: bool, source: Option<IpAddr>) -> io::Result<Socket> {
    let socket = socket(interface, ipv6)?;
    if let Some(source) = source {
        let mut from = SocketAddr::new(source, 0);
        if let SocketAddr::V6(from) = &mut from
            && from.ip().is_unicast_link_local()
        {
            from.set_scope_id(interface.index);
        }
        socket.bind(&from.into())?;
    }
    Ok(socket)
}

fn socket(interface: &Interface, ipv6: bool) -> io::Result<Socket> {
    let socket = unbound_socket(ipv6)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    Ok(socket)
}

fn unbound_socket(ipv6: bool) -> io::Result<Socket> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if ipv6 {
        socket.set_only_v6(true)?;
    }
    socket.set_priority(TC_PRIO_INTERACTIVE)?;
    Ok(socket)
}

impl std::fmt::Debug for UdpReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receiver({})", self.socket.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netlink::{Netlink, NewAddress},
        testing::{in_namespace, inside, other_network, patience, set_up, veth_across},
    };

    fn give(interface: &Interface, ip: &str) {
        let new = NewAddress::new(interface.index, ip.parse().unwrap(), 24);
        Netlink::open().unwrap().add_address(&new).unwrap();
    }

    /// Sends again and again (IPv6 needs a moment after the interface came up) until it is heard.
    fn heard(send: impl Fn() -> io::Result<()>, receiver: &UdpReceiver) -> (Vec<u8>, SocketAddr) {
        let deadline = patience();
        let mut buffer = [0; 2000];
        loop {
            assert!(deadline(), "nothing was heard");
            let _ = send();
            if let Some((length, from)) = receiver.receive(&mut buffer).unwrap() {
                return (buffer[..length].to_vec(), from);
            }
        }
    }

    #[test]
    fn broadcast_reaches_all_listeners_of_its_interface() {
        in_namespace(|| {
            let there = other_network();
            let [eth, peer] = veth_across("eth0", "peer0", &there).unwrap();
            let listeners = inside(&there, || {
                give(&peer, "10.1.0.2");
                set_up("lo", true).unwrap();
                let lo = Netlink::open().unwrap().interface("lo").unwrap();
                [&peer, &peer, &lo]
                    .map(|interface| UdpReceiver::open(interface, false, 694, PortSharing::Copied).unwrap())
            });
            give(&eth, "10.1.0.1");
            let own = UdpReceiver::open(&eth, false, 694, PortSharing::Copied).unwrap();
            let sender = UdpSender::broadcast(&eth, None).unwrap();
            let to = "10.1.0.255:694".parse().unwrap();
            let (bytes, from) = heard(|| sender.send(b"beat", to), &listeners[0]);
            assert_eq!(bytes, b"beat");
            assert_eq!(from.ip().to_string(), "10.1.0.1");
            assert!(
                listeners[1].receive(&mut [0; 10]).unwrap().is_some(),
                "two daemons on one host both hear it"
            );
            assert!(listeners[2].receive(&mut [0; 10]).unwrap().is_none(), "another interface");
            assert!(own.receive(&mut [0; 10]).unwrap().is_some(), "the own broadcast comes back");

            rustix::net::sockopt::set_socket_recv_buffer_size(&listeners[0], 1).unwrap();
            let before = listeners[0].dropped().unwrap();
            let deadline = patience();
            while listeners[0].dropped().unwrap() == before {
                assert!(deadline(), "no drop was counted");
                for _ in 0..100 {
                    let _ = sender.send(&[0; 1000], to);
                }
            }
        });
    }

    #[test]
    fn unicast_of_both_families() {
        in_namespace(|| {
            set_up("lo", true).unwrap();
            let lo = Netlink::open().unwrap().interface("lo").unwrap();
            for (ipv6, to) in [(false, "127.0.0.1:694"), (true, "[::1]:694")] {
                let receiver = UdpReceiver::open(&lo, ipv6, 694, PortSharing::Balanced).unwrap();
                let sender = UdpSender::unicast(&lo, ipv6, None).unwrap();
                let (bytes, _) = heard(|| sender.send(b"beat", to.parse().unwrap()), &receiver);
                assert_eq!(bytes, b"beat");
                UdpReceiver::open(&lo, ipv6, 694, PortSharing::Balanced).expect("shared");
                for sharing in [PortSharing::Copied, PortSharing::Exclusive] {
                    let _first = UdpReceiver::open(&lo, ipv6, 695, sharing).unwrap();
                    let beside = UdpReceiver::open(&lo, ipv6, 695, PortSharing::Exclusive).err().unwrap();
                    assert_eq!(beside.kind(), io::ErrorKind::AddrInUse, "{sharing:?}");
                }
            }
        });
    }

    #[test]
    fn multicast_of_both_families() {
        in_namespace(|| {
            let there = other_network();
            let [eth, peer] = veth_across("eth0", "peer0", &there).unwrap();
            let groups: [(IpAddr, SocketAddr); 2] = [
                ("239.0.0.1".parse().unwrap(), "239.0.0.1:694".parse().unwrap()),
                ("ff02::694".parse().unwrap(), "[ff02::694]:694".parse().unwrap()),
            ];
            let listeners = inside(&there, || {
                give(&peer, "10.1.0.2");
                groups.map(|(group, _)| UdpReceiver::join(&peer, group, 694).unwrap())
            });
            give(&eth, "10.1.0.1");
            for ((group, to), listener) in groups.into_iter().zip(&listeners) {
                let own = UdpReceiver::join(&eth, group, 694).unwrap();
                let silent = UdpSender::multicast(&eth, group.is_ipv6(), 1, false, None).unwrap();
                assert_eq!(heard(|| silent.send(b"m", to), listener).0, b"m");
                assert!(own.receive(&mut [0; 10]).unwrap().is_none(), "our own frames do not come back");
                let echoing = UdpSender::multicast(&eth, group.is_ipv6(), 1, true, None).unwrap();
                assert_eq!(heard(|| echoing.send(b"m", to), &own).0, b"m");
            }
        });
    }

    #[test]
    fn no_such_interface() {
        let interface = Interface {
            index: 999_999,
            name: "nosuch0".to_string(),
            mac: None,
            up: true,
            carrier: true,
            loopback: false,
            resolves: true,
        };
        assert!(UdpReceiver::open(&interface, false, 694, PortSharing::Copied).is_err());
        assert!(UdpSender::unicast(&interface, true, None).is_err());
    }
}
