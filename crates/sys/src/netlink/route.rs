//! The interface to which routes lead.

use std::{io, net::IpAddr};

use netlink_packet_core::NlasIterator;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};

use super::Netlink;

// linux/rtnetlink.h
const RTM_NEWROUTE: u16 = 24;
const RTN_UNICAST: u8 = 1;
const RTA_OIF: u16 = 4;
/// The size of `struct rtmsg`.
const HEADER_BYTES: usize = 12;

/// The number of the interface over which the calling thread's network namespace would reach an address; `None` if the
/// address is its own, is unreachable, or the kernel does not tell. One question, however many routes there are.
#[must_use]
pub fn interface_to(ip: IpAddr) -> Option<u32> {
    Netlink::open().and_then(|mut netlink| netlink.interface_to(ip)).ok().flatten()
}

impl Netlink {
    fn interface_to(&mut self, ip: IpAddr) -> io::Result<Option<u32>> {
        let mut message = RouteMessage::default();
        let is_v4 = ip.is_ipv4();
        message.header.address_family = if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = if is_v4 { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(ip)));
        self.ask(RouteNetlinkMessage::GetRoute(message), |kind, payload| {
            if kind != RTM_NEWROUTE || payload.get(7) != Some(&RTN_UNICAST) {
                return None;
            }
            let mut attributes = NlasIterator::new(payload.get(HEADER_BYTES..)?).map_while(Result::ok);
            let oif = attributes.find(|attribute| attribute.kind() == RTA_OIF)?;
            oif.value().first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netlink::NewAddress,
        testing::{in_namespace, veth_pair},
    };

    #[test]
    fn a_route_leads_to_an_interface() {
        in_namespace(|| {
            let [eth, _peer] = veth_pair("eth0", "peer0").unwrap();
            let to = |text: &str| interface_to(text.parse().unwrap());
            assert_eq!(to("192.0.2.7"), None);
            let ip = "192.0.2.1".parse().unwrap();
            Netlink::open().unwrap().add_address(&NewAddress::new(eth.index, ip, 24)).unwrap();
            assert_eq!((to("192.0.2.7"), to("198.51.100.1"), to("fd00::1")), (Some(eth.index), None, None));
            assert_eq!(to("192.0.2.1"), None, "one of its own leads nowhere");
        });
    }
}
