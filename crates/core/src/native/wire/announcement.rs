//! The announcement of a claim (`docs/wire.md`, 12.9): one datagram by which a node tells an earlier owner of a group that a
//! majority has accepted the node's claim.
//!
//! The earlier owner may be frozen, so its kernel must understand the datagram. A packet filter compares bytes at fixed
//! offsets; it has no key and decodes nothing. This module makes all bytes on both sides: the datagram that is sent, and what
//! the filter compares it with. Nothing here reads a datagram that came in.

use crate::model::{
    action::{ClaimAnnouncement, ClaimProof},
    claim::GroupId,
    identity::MemberId,
};

/// How each announcement begins: four letters, the version of the layout, the kind (1: a majority has accepted this claim),
/// two zeros.
pub const HEAD: [u8; 8] = *b"LOCL\x02\x01\0\0";
/// A datagram that begins with so many bytes of [`HEAD`] is for packet filters alone, whatever its version.
pub const SHAPE_BYTES: usize = 4;
/// Offset of the [`subject`].
pub const SUBJECT: usize = 8;
/// Bytes of the [`subject`].
pub const SUBJECT_BYTES: usize = 20;
/// Offset of the proof.
pub const PROOF: usize = 40;

/// No frame begins so: the stamp of a frame is never a proof, and a proof never a stamp.
const PROVED_HEAD: [u8; 24] = *b"locum: ownership ended\0\0";
/// Bytes of what a proof is made of.
pub const PROVED_BYTES: usize = PROVED_HEAD.len() + SUBJECT_BYTES + 8;

/// What an announcement is about: that `owner` owns this group of this cluster. Numbers are digests of names, so members whose
/// files differ mean the same. To be told to the packet filter of `owner`.
#[must_use]
pub fn subject(cluster: &str, group: GroupId, owner: MemberId) -> [u8; SUBJECT_BYTES] {
    let parts: [&[u8]; 3] =
        [&GroupId::of(cluster).0.to_be_bytes(), &group.0.to_be_bytes(), &owner.0.to_be_bytes()];
    joined(&parts)
}

/// What the proof is made of that an ownership has ended: `round` is that of its ballot. The packet filter is told the proof
/// beforehand, because it cannot make it.
#[must_use]
pub fn proved(subject: [u8; SUBJECT_BYTES], round: u64) -> [u8; PROVED_BYTES] {
    joined(&[&PROVED_HEAD, &subject, &round.to_be_bytes()])
}

/// The datagram's payload. `proof` shows that the ownership of `subject` has ended; `claimant` owns the group now, by a ballot
/// of `round`.
#[must_use]
pub fn encode(
    subject: [u8; SUBJECT_BYTES],
    claimant: MemberId,
    round: u64,
    proof: ClaimProof,
) -> ClaimAnnouncement {
    let [claimant, round] = [&claimant.0.to_be_bytes()[..], &round.to_be_bytes()];
    ClaimAnnouncement(joined(&[&HEAD, &subject, claimant, round, &proof.0]))
}

/// Whether a datagram that came in is for packet filters alone. The only look at bytes before they are authenticated: at four
/// of them, to leave them unread.
#[must_use]
pub fn has_shape(payload: &[u8]) -> bool {
    payload.starts_with(&HEAD[..SHAPE_BYTES])
}

/// Parts one behind the other; their lengths sum up to `N`.
fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    debug_assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), N);
    let mut bytes = [0; N];
    bytes.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/wire.md` has these bytes.
    #[test]
    fn bytes_as_documented() {
        let group = GroupId(0x0102_0304_0506_0708);
        let subject = subject("shop", group, MemberId(0x1112_1314));
        assert_eq!(subject[..8], GroupId::of("shop").0.to_be_bytes());
        assert_eq!(subject[8..], [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14]);

        let proved = proved(subject, 5);
        assert_eq!(&proved[..24], b"locum: ownership ended\0\0");
        assert_eq!(proved[24..44], subject);
        assert_eq!(proved[44..], [0, 0, 0, 0, 0, 0, 0, 5]);

        let proof = ClaimProof(*b"0123456789abcdef");
        let ClaimAnnouncement(bytes) = encode(subject, MemberId(2), 6, proof);
        assert_eq!(bytes.len(), 56);
        assert_eq!(bytes[..8], [b'L', b'O', b'C', b'L', 2, 1, 0, 0]);
        assert_eq!(bytes[SUBJECT..SUBJECT + SUBJECT_BYTES], subject);
        assert_eq!(bytes[28..40], [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 6]);
        assert_eq!(bytes[PROOF..], proof.0);
        for length in 0..bytes.len() {
            assert_eq!(has_shape(&bytes[..length]), length >= SHAPE_BYTES);
        }
    }
}
