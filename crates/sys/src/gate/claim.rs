//! The announcement of a claim: what a rival sends when a majority has accepted its claim, in bytes that a packet
//! filter can read (`docs/wire.md`, section 12).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    big_endian::{U32, U64},
};

/// How a claim's announcement begins.
const MAGIC: [u8; 4] = *b"LOCL";
/// The layout's version.
const VERSION: u8 = 1;
/// The one kind that there is: a majority has accepted this claim.
const OWNED: u8 = 1;

/// The number of an ownership: totally ordered, first by round; so are its bytes in an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ballot {
    /// The round.
    pub round: u64,
    /// The node that claims.
    pub node: u32,
}

impl Ballot {
    /// Above all others: nobody's claim shuts a gate that stands at it.
    pub const HIGHEST: Self = Self { round: u64::MAX, node: u32::MAX };
}

/// A claim that a majority has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Of which cluster.
    pub cluster: u64,
    /// Of which group.
    pub group: u64,
    /// Under which ballot.
    pub ballot: Ballot,
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
    round: U64,
    node: U32,
    more: [u8; 4],
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
            round: self.ballot.round.into(),
            node: self.ballot.node.into(),
            more: [0; 4],
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
            ballot,
        })
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
            ballot: Ballot { round: 5, node: 2 },
        };
        let bytes = claim.encode();
        assert_eq!(bytes.len(), 40);
        assert_eq!(&bytes[..8], [b'L', b'O', b'C', b'L', 1, 1, 0, 0]);
        assert_eq!(&bytes[8..24], [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        assert_eq!(&bytes[24..], [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0]);
        assert_eq!(Claim::parse(&bytes), Some(claim));
        let with_more = [&bytes[..], &[1; 100]].concat();
        assert_eq!(Claim::parse(&with_more), Some(claim), "what follows is not ours to read");
        for length in 0..40 {
            assert_eq!(Claim::parse(&bytes[..length]), None);
        }
        for place in 0..8 {
            let mut other = bytes;
            other[place] ^= 1;
            assert_eq!(Claim::parse(&other), None, "byte {place}");
        }
    }

    #[test]
    fn ballots_order_as_their_bytes() {
        let all = [(0, 0), (0, 1), (1, 0), (1, 300), (256, 0), (u64::MAX, u32::MAX)];
        let all = all.map(|(round, node)| Ballot { round, node });
        let bytes = all.map(|ballot| Claim { cluster: 0, group: 0, ballot }.encode());
        assert!(all.is_sorted() && bytes.is_sorted());
        assert_eq!(all[5], Ballot::HIGHEST);
    }
}
