//! Makes, joins and separates interfaces: veth pairs and bridges, the wiring of a rack of namespaces.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_ERROR};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use rustix::net::SendFlags;

use super::{Netlink, error_code, for_each_message};

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// The interface's name, at most 15 bytes.
    pub name: &'a str,
    /// The interface's Ethernet address.
    pub mac: [u8; 6],
    /// The network namespace for it; the connection's own if `None`.
    pub network: Option<BorrowedFd<'a>>,
}

/// One change to an interface, given by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Sets it up. Its veth partner gets carrier, if that one is up.
    Up(u32),
    /// Sets it down. Its veth partner loses carrier.
    Down(u32),
    /// Makes it a port of a bridge.
    Join {
        /// The number of the interface.
        port: u32,
        /// The number of the bridge.
        bridge: u32,
    },
    /// Removes it from its bridge; it stays up and keeps its carrier.
    Leave(u32),
}

impl LinkChange {
    fn message(self) -> RouteNetlinkMessage {
        let mut message = LinkMessage::default();
        match self {
            Self::Up(index) | Self::Down(index) => {
                message.header.index = index;
                message.header.change_mask = LinkFlags::Up;
                if matches!(self, Self::Up(_)) {
                    message.header.flags = LinkFlags::Up;
                }
            }
            Self::Join { port, bridge } => {
                message.header.index = port;
                message.attributes.push(LinkAttribute::Controller(bridge));
            }
            Self::Leave(port) => {
                message.header.index = port;
                message.attributes.push(LinkAttribute::Controller(0));
            }
        }
        RouteNetlinkMessage::SetLink(message)
    }
}

impl Netlink {
    /// Makes a bridge without spanning tree and multicast snooping: a port that joins forwards everything at once. The
    /// bridge is down.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; else the kernel's error.
    pub fn create_bridge(&mut self, name: &str) -> io::Result<()> {
        let settings = vec![InfoBridge::ForwardDelay(0), InfoBridge::MulticastSnooping(false)];
        let kind = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(settings))];
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::LinkInfo(kind)];
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes two interfaces that are the ends of one cable, both down.
    ///
    /// # Errors
    /// `AlreadyExists` if a name is taken; else the kernel's error.
    pub fn create_veth(&mut self, a: VethEnd<'_>, b: VethEnd<'_>) -> io::Result<()> {
        let mut message = a.message();
        let partner = InfoData::Veth(InfoVeth::Peer(b.message()));
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(partner)]));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes all changes in one system call, in their order, so that several links are cut in one step.
    ///
    /// # Errors
    /// The kernel's first error; the other changes are made nevertheless.
    pub fn change_links(&mut self, changes: &[LinkChange]) -> io::Result<()> {
        self.request_all(changes.iter().map(|change| change.message()))
    }

    /// Removes an interface, with its partner if it is a veth.
    ///
    /// # Errors
    /// `ENODEV` if it is gone already; else the kernel's error.
    pub fn delete_interface(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(message), 0)
    }

    fn request_all(&mut self, messages: impl Iterator<Item = RouteNetlinkMessage>) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut unanswered = 0;
        for message in messages {
            batch.extend(self.encode(message, NLM_F_REQUEST | NLM_F_ACK));
            unanswered += 1;
        }
        if unanswered == 0 {
            return Ok(());
        }
        rustix::net::send(&self.socket, &batch, SendFlags::empty())?;
        let mut result = Ok(());
        while unanswered > 0 {
            let length = self.receive()?;
            for_each_message(&self.answer[..length], |header, payload| {
                if header.message_type == NLMSG_ERROR {
                    unanswered -= 1;
                    if let (Ok(()), Err(error)) = (&result, error_code(payload)) {
                        result = Err(error);
                    }
                }
                Ok(())
            })?;
        }
        result
    }
}

impl VethEnd<'_> {
    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes =
            vec![LinkAttribute::IfName(self.name.to_owned()), LinkAttribute::Address(self.mac.to_vec())];
        if let Some(network) = self.network {
            message.attributes.push(LinkAttribute::NetNsFd(network.as_raw_fd()));
        }
        message
    }
}
