//! Settings of an interface, read and written in its link messages, so that no file has to be written.

use std::io;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NlasIterator};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};

use super::Netlink;

// linux/rtnetlink.h, linux/if_link.h, linux/ip.h
const RTM_NEWLINK: u16 = 16;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET_CONF: u16 = 1;
const AF_INET: u16 = 2;
const IPV4_DEVCONF_PROMOTE_SECONDARIES: u16 = 20;

/// While it lasts, the kernel promotes the next address of a network when the first one is removed, on one interface.
pub(super) struct Promotion {
    interface: u32,
    /// The kernel promoted addresses before, too.
    was_set: bool,
}

impl Promotion {
    /// Begins the promotion. [`Self::end`] restores the old setting.
    pub(super) fn ask(netlink: &mut Netlink, interface: u32) -> io::Result<Self> {
        let was = netlink.promotes(interface)?;
        if !was {
            netlink.set_promotes(interface, true)?;
        }
        Ok(Self { interface, was_set: was })
    }

    pub(super) fn end(self, netlink: &mut Netlink) {
        if !self.was_set {
            // An interface that has gone meanwhile has no settings.
            let _ = netlink.set_promotes(self.interface, false);
        }
    }
}

impl Netlink {
    /// Whether `promote_secondaries` is set for this interface itself.
    pub(super) fn promotes(&mut self, interface: u32) -> io::Result<bool> {
        let mut question = LinkMessage::default();
        question.header.index = interface;
        let answer = self.ask(RouteNetlinkMessage::GetLink(question), |kind, payload| {
            (kind == RTM_NEWLINK).then(|| promotes(payload.get(16..)?)).flatten()
        })?;
        answer.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn set_promotes(&mut self, interface: u32, on: bool) -> io::Result<()> {
        let setting = attribute(IPV4_DEVCONF_PROMOTE_SECONDARIES, &u32::from(on).to_ne_bytes());
        let family = attribute(AF_INET | NLA_F_NESTED, &attribute(IFLA_INET_CONF | NLA_F_NESTED, &setting));
        let mut message = LinkMessage::default();
        message.header.index = interface;
        message.attributes.push(LinkAttribute::Other(DefaultNla::new(IFLA_AF_SPEC | NLA_F_NESTED, family)));
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }
}

/// Reads the setting from the attributes of an interface. IPv4's settings are one number each, in order from the first.
fn promotes(attributes: &[u8]) -> Option<bool> {
    let families = value(attributes, IFLA_AF_SPEC)?;
    let settings = value(&value(&families, AF_INET)?, IFLA_INET_CONF)?;
    let at = usize::from(IPV4_DEVCONF_PROMOTE_SECONDARIES - 1) * 4;
    Some(u32::from_ne_bytes(*settings.get(at..)?.first_chunk()?) != 0)
}

fn value(attributes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    all.find(|attribute| attribute.kind() == wanted).map(|attribute| attribute.value().to_vec())
}

/// An attribute that contains four bytes or other attributes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}
