//! The bytes of nf_tables: requests are gathered into one batch that happens as a whole or not at all. Facts:
//! linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NlasIterator};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_SUBSYS_NFTABLES`, which also names the subsystem of a batch.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_NETDEV`
const NETDEV: u8 = 5;
/// `NFPROTO_ARP`
pub(super) const ARP_FAMILY: u8 = 3;
/// `NFPROTO_IPV6`
pub(super) const IPV6_FAMILY: u8 = 10;
/// `struct nlmsghdr` and `struct nfgenmsg`
const HEADER_BYTES: usize = 16;
pub(super) const FAMILY_BYTES: usize = 4;
const NESTED: u16 = 0x8000;

/// `NFT_MSG_…`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    DeleteChain = 5,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
    NewSet = 9,
    NewElement = 12,
    GetElement = 13,
    DeleteElement = 14,
    GetGeneration = 16,
    NewObject = 18,
    GetObject = 19,
}

impl Kind {
    /// The type of a message.
    pub(super) const fn number(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }

    /// What is new is made if it is not there; of rules the order counts.
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

/// Requests in the making; used again for the next.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    /// The number of the next message.
    sequence: u32,
}

impl Batch {
    /// Forgets what is there and begins a batch.
    pub(super) fn begin(&mut self) {
        self.bytes.clear();
        // The subsystem stands where the others have a resource's number.
        self.message(BATCH_BEGIN, NLM_F_REQUEST, 0, SUBSYSTEM);
        self.end();
    }

    /// One request; all that `body` writes is its attributes.
    pub(super) fn request(&mut self, kind: Kind, body: impl FnOnce(&mut Attributes<'_>)) {
        self.request_of(NETDEV, kind, body);
    }

    /// The same about a table of another family.
    pub(super) fn request_of(&mut self, family: u8, kind: Kind, body: impl FnOnce(&mut Attributes<'_>)) {
        self.message(kind.number(), kind.flags(), family, 0);
        body(&mut Attributes(&mut self.bytes));
        self.end();
    }

    /// Ends the batch. The last request is to be acknowledged; its number is returned.
    pub(super) fn finish(&mut self) -> u32 {
        let flags = self.last + 6;
        let acknowledged = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | NLM_F_ACK;
        self.bytes[flags..flags + 2].copy_from_slice(&acknowledged.to_ne_bytes());
        self.message(BATCH_END, NLM_F_REQUEST, 0, SUBSYSTEM);
        self.end();
        self.sequence.wrapping_sub(2)
    }

    /// A question in place of a batch; its number is returned. A dump asks for all there are.
    pub(super) fn question(&mut self, kind: Kind, dump: bool, body: impl FnOnce(&mut Attributes<'_>)) -> u32 {
        self.question_of(NETDEV, kind, dump, body)
    }

    /// The same about a table of another family.
    pub(super) fn question_of(
        &mut self,
        family: u8,
        kind: Kind,
        dump: bool,
        body: impl FnOnce(&mut Attributes<'_>),
    ) -> u32 {
        self.bytes.clear();
        let flags = NLM_F_REQUEST | if dump { NLM_F_DUMP } else { 0 };
        self.message(kind.number(), flags, family, 0);
        body(&mut Attributes(&mut self.bytes));
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
        debug_assert!(length as usize >= HEADER_BYTES + FAMILY_BYTES);
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Attributes in the making.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Plain bytes.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.begin(kind);
        let begun = self.0.len() - 4;
        self.0.extend(value);
        self.end(begun);
    }

    /// A text, which ends in a zero.
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

    /// Attributes in an attribute.
    pub(super) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.begin(kind | NESTED);
        let begun = self.0.len() - 4;
        body(&mut Attributes(self.0));
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

/// The value of an attribute among others.
pub(super) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    each(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// All attributes, in order.
pub(super) fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), attribute.value_length());
        (kind, attribute.into_inner().get(4..4 + length).unwrap_or_default())
    })
}

/// A text without its zero.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let plain = value.split(|byte| *byte == 0).next()?;
    String::from_utf8(plain.to_vec()).ok()
}
