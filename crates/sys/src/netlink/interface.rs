//! Network interfaces, as the kernel lists them.

use std::io;

use netlink_packet_core::NlasIterator;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkHeader, LinkMessage},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::Netlink;

// linux/if_link.h; linux/rtnetlink.h; linux/if_arp.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const ARPHRD_ETHER: u16 = 1;
// linux/if.h
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_NOARP: u32 = 1 << 7;
const IFF_LOWER_UP: u32 = 1 << 16;

/// A network interface as it is at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it; a new interface of the same name has a new one.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Set up by an administrator.
    pub up: bool,
    /// The layer below carries: cable plugged, the other end of a veth pair up. Means nothing while not `up`.
    pub carrier: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Addresses on it are looked up by ARP and neighbour discovery: there is somebody to tell that one has moved.
    pub resolves: bool,
}

impl Interface {
    /// Up, with carrier.
    #[must_use]
    pub fn works(&self) -> bool {
        self.trouble().is_none()
    }

    /// Why it does not work, to be said behind its name.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        match (self.up, self.carrier) {
            (false, _) => Some("is down"),
            (true, false) => Some("has no carrier"),
            (true, true) => None,
        }
    }

    /// From the payload of an `RTM_NEWLINK` or `RTM_DELLINK`. Only the attributes that we use are read, so that a
    /// newer kernel's other ones cannot make an interface invisible.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        // struct ifinfomsg: family, pad, type (2), index (4), flags (4), change (4). Bridges tell of their ports in
        // the same messages under a family of their own; a port that leaves its bridge is not gone.
        if *payload.first()? != 0 {
            return None;
        }
        let kind = u16::from_ne_bytes(*payload.get(2..)?.first_chunk()?);
        let index = u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?);
        let flags = u32::from_ne_bytes(*payload.get(8..)?.first_chunk()?);
        let (mut name, mut mac) = (None, None);
        for attribute in NlasIterator::new(payload.get(16..)?).map_while(Result::ok) {
            let value = attribute.value();
            match attribute.kind() {
                IFLA_IFNAME => {
                    name = Some(String::from_utf8_lossy(value.split(|&b| b == 0).next()?).into_owned())
                }
                IFLA_ADDRESS => mac = <[u8; 6]>::try_from(value).ok(),
                _ => {}
            }
        }
        let has = |flag| flags & flag != 0;
        Some(Self {
            index,
            name: name?,
            mac: mac.filter(|_| kind == ARPHRD_ETHER),
            up: has(IFF_UP),
            carrier: has(IFF_LOWER_UP),
            loopback: has(IFF_LOOPBACK),
            resolves: kind == ARPHRD_ETHER && !has(IFF_NOARP) && !has(IFF_LOOPBACK),
        })
    }
}

/// The name of the interface with that number, in the calling thread's network namespace.
///
/// # Errors
/// `ENODEV` or `ENXIO` when there is none.
pub fn interface_name(index: u32) -> io::Result<String> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(netdevice::index_to_name(&socket, index)?)
}

impl Netlink {
    /// All interfaces, in the kernel's order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let mut question = LinkMessage::default();
        question.header = LinkHeader::default();
        self.dump(&RouteNetlinkMessage::GetLink(question), |kind, payload| {
            (kind == RTM_NEWLINK).then(|| Interface::parse(payload)).flatten()
        })
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// What the kernel says; `NotFound` when there is none.
    pub fn interface(&mut self, name: &str) -> io::Result<Interface> {
        let found = self.interfaces()?.into_iter().find(|interface| interface.name == name);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_payloads_are_no_interface() {
        for length in 0..64 {
            assert_eq!(Interface::parse(&vec![0; length]), None, "no name in {length} zero bytes");
            let _ = Interface::parse(&vec![0xff; length]);
        }
    }

    #[test]
    fn every_machine_has_a_loopback() {
        let interfaces = Netlink::open().unwrap().interfaces().unwrap();
        let loopback = interfaces.iter().find(|i| i.name == "lo").expect("lo");
        assert!(loopback.loopback && !loopback.resolves);
        assert_eq!(loopback.index, 1);
    }
}
