//! The messages of nf_tables as bytes. Requests are gathered into one batch, which the kernel performs completely or
//! not at all. Facts: linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NlasIterator};

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
/// `NFNL_SUBSYS_NFTABLES`, which also names the subsystem of a batch.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFPROTO_NETDEV: u8 = 5;
pub(super) const NFPROTO_ARP: u8 = 3;
pub(super) const NFPROTO_IPV6: u8 = 10;
/// The sizes of `struct nlmsghdr` and `struct nfgenmsg`.
const NLMSG_HDRLEN: usize = 16;
pub(super) const FAMILY_BYTES: usize = 4;
const NLA_F_NESTED: u16 = 0x8000;

/// The kernel's message types, `NFT_MSG_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum MessageType {
    NewTable = 0,       // NFT_MSG_NEWTABLE
    GetTable = 1,       // NFT_MSG_GETTABLE
    DeleteTable = 2,    // NFT_MSG_DELTABLE
    NewChain = 3,       // NFT_MSG_NEWCHAIN
    GetChain = 4,       // NFT_MSG_GETCHAIN
    DeleteChain = 5,    // NFT_MSG_DELCHAIN
    NewRule = 6,        // NFT_MSG_NEWRULE
    GetRule = 7,        // NFT_MSG_GETRULE
    DeleteRule = 8,     // NFT_MSG_DELRULE
    NewSet = 9,         // NFT_MSG_NEWSET
    NewElement = 12,    // NFT_MSG_NEWSETELEM
    GetElement = 13,    // NFT_MSG_GETSETELEM
    DeleteElement = 14, // NFT_MSG_DELSETELEM
    GetGeneration = 16, // NFT_MSG_GETGEN
    NewObject = 18,     // NFT_MSG_NEWOBJ
    GetObject = 19,     // NFT_MSG_GETOBJ
}

impl MessageType {
    /// The message type with the subsystem, as netlink has it.
    pub(super) const fn number(self) -> u16 {
        NFNL_SUBSYS_NFTABLES << 8 | self as u16
    }

    /// New objects are made if they do not exist. Rules are appended, because their order matters.
    fn flags(self) -> u16 {
        NLM_F_REQUEST
            | match self {
                Self::NewRule => NLM_F_CREATE | NLM_F_APPEND,
                Self::NewTable | Self::NewChain | Self::NewSet | Self::NewElement | Self::NewObject => {
                    NLM_F_CREATE
                }
                _ => 0,
            }
    }
}

/// Builds requests. Its buffer is used again for the next batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// The position of the last message.
    last: usize,
    /// The sequence number of the next message.
    sequence: u32,
}

impl Batch {
    /// Discards the old content and begins a batch.
    pub(super) fn begin(&mut self) {
        self.bytes.clear();
        // Here the subsystem is in the field of the resource's number.
        self.message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, NFNL_SUBSYS_NFTABLES);
        self.end();
    }

    /// Adds one request, with the attributes that `body` writes.
    pub(super) fn request(&mut self, kind: MessageType, body: impl FnOnce(&mut AttributeWriter<'_>)) {
        self.request_of(NFPROTO_NETDEV, kind, body);
    }

    /// As [`request`](Self::request), for a table of another family.
    pub(super) fn request_of(
        &mut self,
        family: u8,
        kind: MessageType,
        body: impl FnOnce(&mut AttributeWriter<'_>),
    ) {
        self.message(kind.number(), kind.flags(), family, 0);
        body(&mut AttributeWriter(&mut self.bytes));
        self.end();
    }

    /// Ends the batch. The last request is to be acknowledged; its sequence number is returned.
    pub(super) fn finish(&mut self) -> u32 {
        let flags = self.last + 6;
        let acknowledged = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | NLM_F_ACK;
        self.bytes[flags..flags + 2].copy_from_slice(&acknowledged.to_ne_bytes());
        self.message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, 0, NFNL_SUBSYS_NFTABLES);
        self.end();
        self.sequence.wrapping_sub(2)
    }

    /// Builds a question instead of a batch, and returns its sequence number. A dump asks for all objects.
    pub(super) fn question(
        &mut self,
        kind: MessageType,
        dump: bool,
        body: impl FnOnce(&mut AttributeWriter<'_>),
    ) -> u32 {
        self.question_of(NFPROTO_NETDEV, kind, dump, body)
    }

    /// As [`question`](Self::question), for a table of another family.
    pub(super) fn question_of(
        &mut self,
        family: u8,
        kind: MessageType,
        dump: bool,
        body: impl FnOnce(&mut AttributeWriter<'_>),
    ) -> u32 {
        self.bytes.clear();
        let flags = NLM_F_REQUEST | if dump { NLM_F_DUMP } else { 0 };
        self.message(kind.number(), flags, family, 0);
        body(&mut AttributeWriter(&mut self.bytes));
        self.end();
        self.sequence.wrapping_sub(1)
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.last = self.bytes.len();
        self.bytes.extend([0; 4]); // the length: see `end`
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn end(&mut self) {
        let length = (self.bytes.len() - self.last) as u32;
        debug_assert!(length as usize >= NLMSG_HDRLEN + FAMILY_BYTES);
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Builds the attributes of a message.
pub(super) struct AttributeWriter<'a>(&'a mut Vec<u8>);

impl AttributeWriter<'_> {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.begin(kind);
        let begun = self.0.len() - 4;
        self.0.extend(value);
        self.end(begun);
    }

    /// A text, terminated by a zero byte.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.begin(kind);
        let begun = self.0.len() - 4;
        self.0.extend(value.as_bytes());
        self.0.push(0);
        self.end(begun);
    }

    /// A number of 32 bits, big-endian.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A number of 64 bits, big-endian.
    pub(super) fn long(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// An attribute that contains other attributes.
    pub(super) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut AttributeWriter<'_>)) {
        self.begin(kind | NLA_F_NESTED);
        let begun = self.0.len() - 4;
        body(&mut AttributeWriter(self.0));
        self.end(begun);
    }

    fn begin(&mut self, kind: u16) {
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
    }

    fn end(&mut self, begun: usize) {
        // The longest attribute is a list of `rules::ELEMENTS_MAX` elements, none longer than 128 bytes.
        let length = (self.0.len() - begun) as u16;
        self.0[begun..begun + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The value of the first attribute of that kind.
pub(super) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    each(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// All attributes in their order: kind and value.
pub(super) fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), attribute.value_length());
        (kind, attribute.into_inner().get(4..4 + length).unwrap_or_default())
    })
}

/// A text without its terminating zero byte.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let plain = value.split(|byte| *byte == 0).next()?;
    String::from_utf8(plain.to_vec()).ok()
}
