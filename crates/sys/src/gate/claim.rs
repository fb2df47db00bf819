//! The announcement of a claim: what a rival sends when a majority has accepted its claim, in bytes that a packet
//! filter can read (`docs/wire.md`, 12.9).

use std::fmt;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    big_endian::{U32, U64},
};

/// How a claim's announcement begins, whatever its version.
const MAGIC: [u8; 4] = *b"LOCL";
/// The layout's version.
const VERSION: u8 = 2;
/// The one kind that there is: a majority has accepted this claim.
const OWNED: u8 = 1;

/// The number of an ownership: totally ordered, first by round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ballot {
    /// The round.
    pub round: u64,
    /// The node that claims, as its announcements name it.
    pub node: u32,
}

/// What only a member with the cluster's key can make: it shows that an ownership of a group has ended. The filter cannot
/// make it; it is told beforehand which ones to expect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proof(pub [u8; Self::BYTES]);

impl Proof {
    /// Its length.
    pub const BYTES: usize = 16;
    /// In a gate's state: no proof. Nobody is believed who sends this.
    pub(super) const NONE: Self = Self([0; Self::BYTES]);
}

impl fmt::Debug for Proof {
    /// Until it is announced it is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

/// A claim that a majority has accepted, announced to one node whose ownership it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Of which cluster.
    pub cluster: u64,
    /// Of which group.
    pub group: u64,
    /// The node whose ownership it ends.
    pub ended: u32,
    /// Under which ballot the group is claimed.
    pub ballot: Ballot,
    /// That the ownership of `ended` is over, by somebody who has the cluster's key.
    pub proof: Proof,
}

/// As on the wire.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    reserved: [u8; 2],
    cluster: U64,
    group: U64,
    ended: U32,
    node: U32,
    round: U64,
    proof: [u8; Proof::BYTES],
}

impl Claim {
    /// So long an announcement is at least; what follows is not for the packet filter.
    pub const BYTES: usize = size_of::<Layout>();

    /// The payload of the datagram.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        zerocopy::transmute!(Layout {
            magic: MAGIC,
            version: VERSION,
            kind: OWNED,
            reserved: [0; 2],
            cluster: self.cluster.into(),
            group: self.group.into(),
            ended: self.ended.into(),
            node: self.ballot.node.into(),
            round: self.ballot.round.into(),
            proof: self.proof.0,
        })
    }

    /// The claim in a datagram's payload; `None` when it is none, or of another version.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (layout, _) = Layout::ref_from_prefix(payload).ok()?;
        let ours = layout.magic == MAGIC && layout.version == VERSION && layout.kind == OWNED;
        let ballot = Ballot { round: layout.round.get(), node: layout.node.get() };
        (ours && layout.reserved == [0; 2]).then_some(Self {
            cluster: layout.cluster.get(),
            group: layout.group.get(),
            ended: layout.ended.get(),
            ballot,
            proof: Proof(layout.proof),
        })
    }

    /// Whether a datagram's payload has the shape of an announcement, of whatever version: it is for packet filters, and
    /// nobody else reads it.
    #[must_use]
    pub fn has_shape(payload: &[u8]) -> bool {
        payload.starts_with(&MAGIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_documented() {
        let claim = Claim {
            cluster: 0x0102_0304_0506_0708,
            group: 0x1112_1314_1516_1718,
            ended: 0x2122_2324,
            ballot: Ballot { round: 5, node: 2 },
            proof: Proof(std::array::from_fn(|byte| 0x30 + byte as u8)),
        };
        let bytes = claim.encode();
        assert_eq!(bytes.len(), 56);
        assert_eq!(&bytes[..8], [b'L', b'O', b'C', b'L', 2, 1, 0, 0]);
        assert_eq!(&bytes[8..24], [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        assert_eq!(&bytes[24..40], [0x21, 0x22, 0x23, 0x24, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(bytes[40..], claim.proof.0);
        assert_eq!(Claim::parse(&bytes), Some(claim));
        let with_more = [&bytes[..], &[1; 100]].concat();
        assert_eq!(Claim::parse(&with_more), Some(claim), "what follows is not ours to read");
        for length in 0..56 {
            assert_eq!(Claim::parse(&bytes[..length]), None);
            assert_eq!(Claim::has_shape(&bytes[..length]), length >= 4);
        }
        for place in 0..8 {
            let mut other = bytes;
            other[place] ^= 1;
            assert_eq!(Claim::parse(&other), None, "byte {place}");
        }
    }

    #[test]
    fn a_proof_is_not_shown() {
        assert_eq!(format!("{:?}", Proof([7; 16])), "Proof");
    }
}
