//! Network interfaces, as the kernel lists them.

use std::{fs, io, path::Path};

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
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_LINK_NETNSID: u16 = 37;
const RTM_NEWLINK: u16 = 16;
const ARPHRD_ETHER: u16 = 1;
// linux/if.h
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_NOARP: u32 = 1 << 7;
const IFF_LOWER_UP: u32 = 1 << 16;

/// The state of a network interface at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it; a new interface of the same name has a new one.
    pub index: u32,
    /// The name of the interface.
    pub name: String,
    /// Its Ethernet address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// It was set up by an administrator.
    pub up: bool,
    /// It has carrier: the cable is plugged in, or the other end of a veth pair is up. Meaningless unless `up`.
    pub carrier: bool,
    /// It is the loopback interface.
    pub loopback: bool,
    /// Its neighbours are resolved by ARP and neighbour discovery, so a moved address must be announced.
    pub resolves: bool,
}

impl Interface {
    /// Whether it is up and has carrier.
    #[must_use]
    pub fn works(&self) -> bool {
        self.trouble().is_none()
    }

    /// Why it does not work, as a text to follow its name.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        match (self.up, self.carrier) {
            (false, _) => Some("is down"),
            (true, false) => Some("has no carrier"),
            (true, true) => None,
        }
    }

    /// Reads the payload of an `RTM_NEWLINK` or `RTM_DELLINK`. Reads only the attributes that Locum uses, so that new
    /// ones of a newer kernel cannot make an interface invisible.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        // struct ifinfomsg: family, pad, type (2), index (4), flags (4), change (4). Bridges report their ports in the
        // same messages under another family; a port that leaves its bridge is not gone.
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
/// `ENODEV` or `ENXIO` if there is none.
pub fn interface_name(index: u32) -> io::Result<String> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(netdevice::index_to_name(&socket, index)?)
}

/// Whether an interface takes no IPv6 address, because an administrator has switched IPv6 off on it or the kernel has
/// none. It then refuses an address with `EACCES`, as if a right were missing.
#[must_use]
pub fn ipv6_is_off(name: &str) -> bool {
    let directory = Path::new("/proc/sys/net/ipv6/conf");
    match fs::read_to_string(directory.join(name).join("disable_ipv6")) {
        Ok(text) => text.trim() != "0",
        // Without /proc nothing is known.
        Err(_) => Path::new("/proc/sys/net").is_dir() && !directory.is_dir(),
    }
}

/// Facts that decide whether an interface asks and answers for itself.
struct AnsweringInterface {
    index: u32,
    resolves: bool,
    /// It is a port, whose packets belong to another interface such as a bridge or a bond. A VRF leaves them to the
    /// interface itself.
    is_port: bool,
    /// The interface below it, if both share one cable by their hardware addresses: that one also receives this one's
    /// packets.
    shares_cable_of: Option<u32>,
}

impl AnsweringInterface {
    fn parse(payload: &[u8]) -> Option<Self> {
        let Interface { index, resolves, .. } = Interface::parse(payload)?;
        let (mut link, mut master, mut kind, mut port_kind, mut is_elsewhere) = (None, 0, None, None, false);
        let number = |value: &[u8]| value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let name = |value: &[u8]| {
            let plain = value.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(plain).into_owned()
        };
        for attribute in NlasIterator::new(payload.get(16..)?).map_while(Result::ok) {
            match attribute.kind() {
                IFLA_LINK => link = number(attribute.value()),
                IFLA_MASTER => master = number(attribute.value()).unwrap_or(0),
                IFLA_LINK_NETNSID => is_elsewhere = true,
                IFLA_LINKINFO => {
                    for info in NlasIterator::new(attribute.value()).map_while(Result::ok) {
                        match info.kind() {
                            IFLA_INFO_KIND => kind = Some(name(info.value())),
                            IFLA_INFO_SLAVE_KIND => port_kind = Some(name(info.value())),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let shares = matches!(kind.as_deref(), Some("macvlan" | "macvtap" | "ipvlan" | "ipvtap"));
        Some(Self {
            index,
            resolves,
            is_port: master != 0 && port_kind.as_deref() != Some("vrf"),
            shares_cable_of: link.filter(|_| shares && !is_elsewhere),
        })
    }
}

impl Netlink {
    /// The numbers of the interfaces on which this machine asks and answers by ARP and neighbour discovery. These
    /// exclude loopback, the ports of bridges and bonds, and the interface below one that shares its cable (macvlan),
    /// because it sees the other's packets.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn answering_interfaces(&mut self) -> io::Result<Vec<u32>> {
        let mut question = LinkMessage::default();
        question.header = LinkHeader::default();
        let all = self.dump(&RouteNetlinkMessage::GetLink(question), |kind, payload| {
            (kind == RTM_NEWLINK).then(|| AnsweringInterface::parse(payload)).flatten()
        })?;
        let shared: Vec<u32> = all.iter().filter_map(|interface| interface.shares_cable_of).collect();
        let answers = |it: &&AnsweringInterface| it.resolves && !it.is_port && !shared.contains(&it.index);
        Ok(all.iter().filter(answers).map(|interface| interface.index).collect())
    }

    /// Reads all interfaces, in the kernel's order.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let mut question = LinkMessage::default();
        question.header = LinkHeader::default();
        self.dump(&RouteNetlinkMessage::GetLink(question), |kind, payload| {
            (kind == RTM_NEWLINK).then(|| Interface::parse(payload)).flatten()
        })
    }

    /// Reads the interface with that name.
    ///
    /// # Errors
    /// The kernel's error; `NotFound` if there is none.
    pub fn interface(&mut self, name: &str) -> io::Result<Interface> {
        let found = self.interfaces()?.into_iter().find(|interface| interface.name == name);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, veth_pair};

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

    #[test]
    fn an_interface_says_whether_it_takes_ipv6() {
        in_namespace(|| {
            veth_pair("eth0", "peer0").unwrap();
            for (written, is_off) in [("1", true), ("0", false)] {
                if fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", written).is_ok() {
                    assert_eq!((ipv6_is_off("eth0"), ipv6_is_off("peer0")), (is_off, false));
                }
            }
        });
    }
}
