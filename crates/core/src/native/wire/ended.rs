//! What a member proves when it announces that its claim ends another's ownership (`docs/wire.md`, 12.9).

use crate::model::{claim::GroupId, identity::MemberId};

/// No frame begins so: no stamp of a frame is a proof, and no proof a stamp.
const BEGINS: [u8; 24] = *b"locum: ownership ended\0\0";
/// Bytes of what is proved.
pub const BYTES: usize = BEGINS.len() + 28;

/// The bytes that are proved of one ownership. Numbers and ids are those of names, so that it means the same to members whose
/// files differ; `round` is the ballot's.
#[must_use]
pub fn ended(cluster: &str, group: GroupId, owner: MemberId, round: u64) -> [u8; BYTES] {
    let parts: [&[u8]; 5] = [
        &BEGINS,
        &GroupId::of(cluster).0.to_be_bytes(),
        &group.0.to_be_bytes(),
        &owner.0.to_be_bytes(),
        &round.to_be_bytes(),
    ];
    let mut bytes = [0; BYTES];
    bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/wire.md` has these bytes.
    #[test]
    fn bytes_as_documented() {
        let bytes = ended("shop", GroupId(0x0102_0304_0506_0708), MemberId(0x1112_1314), 5);
        assert_eq!(&bytes[..24], b"locum: ownership ended\0\0");
        assert_eq!(bytes[24..32], GroupId::of("shop").0.to_be_bytes());
        assert_eq!(&bytes[32..44], [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14]);
        assert_eq!(&bytes[44..], [0, 0, 0, 0, 0, 0, 0, 5]);
    }
}
