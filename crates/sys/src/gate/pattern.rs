//! The datagrams that shut a gate from outside. The kernel interprets nothing of them: it compares bytes at fixed offsets
//! with bytes that it was given. What the bytes mean is decided by the caller, who makes them (`docs/wire.md`, 12.9).

use std::{fmt, io};

/// Where such a datagram has its parts. Offsets count from the beginning of the UDP payload.
///
/// ```text
/// 0        8          subject                   proof
/// | head   |    ...   | 20 bytes |      ...     | 16 bytes |  more, which is not compared
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// How it begins. A datagram that has the first [`SHAPE_BYTES`](Self::SHAPE_BYTES) of them, and comes to a port where
    /// claims are announced, is dropped and counted, or shuts a gate; no socket gets it.
    pub head: [u8; 8],
    /// Offset of the [`Subject`].
    pub subject: usize,
    /// Offset of the [`Proof`].
    pub proof: usize,
}

impl Pattern {
    /// Bytes of the head that make the shape.
    pub const SHAPE_BYTES: usize = 4;
    /// The parts of a datagram end within this.
    pub const BYTES_MAX: usize = 64;
    /// Of a gate that hears no rivals: nothing comes to this.
    pub(super) const UNUSED: Self = Self { head: [0; 8], subject: 8, proof: 32 };

    pub(super) fn shape(&self) -> [u8; Self::SHAPE_BYTES] {
        std::array::from_fn(|byte| self.head[byte])
    }

    /// A datagram of fewer bytes is cut off.
    pub(super) fn bytes(&self) -> usize {
        (self.subject + Subject::BYTES).max(self.proof + Proof::BYTES)
    }

    /// Programs load a proof in words of eight bytes, which must be aligned.
    pub(super) fn check(&self) -> io::Result<()> {
        let Self { head, subject, proof } = self;
        let is_placed =
            |offset: usize, multiple: usize| offset >= head.len() && offset.is_multiple_of(multiple);
        if is_placed(*subject, 4) && is_placed(*proof, 8) && self.bytes() <= Self::BYTES_MAX {
            return Ok(());
        }
        let text = format!("a pattern with its subject at {subject} and its proof at {proof}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

/// What a datagram is about, as its sender writes it: the ownership of one group of one cluster by one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(pub [u8; Self::BYTES]);

impl Subject {
    /// Bytes of every subject.
    pub const BYTES: usize = 20;
}

/// What only a member with the cluster's key can make. A gate is told beforehand which proofs shut it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proof(pub [u8; Self::BYTES]);

impl Proof {
    /// Bytes of every proof.
    pub const BYTES: usize = 16;
    /// In a gate's state: no proof. A datagram that carries it is refused.
    pub(super) const NONE: Self = Self([0; Self::BYTES]);
}

impl fmt::Debug for Proof {
    /// Until it is announced it is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_not_shown() {
        assert_eq!(format!("{:?}", Proof([7; 16])), "Proof");
    }

    #[test]
    fn parts_that_the_programs_could_not_load_are_refused() {
        let right = Pattern { head: *b"anything", subject: 8, proof: 40 };
        right.check().unwrap();
        assert_eq!(right.bytes(), 56);
        Pattern::UNUSED.check().unwrap();
        for (subject, proof) in [(4, 40), (9, 40), (8, 44), (8, 0), (8, 56), (48, 8), (usize::MAX / 2, 8)] {
            let wrong = Pattern { subject, proof, ..right };
            assert_eq!(wrong.check().unwrap_err().kind(), io::ErrorKind::InvalidInput, "{subject} {proof}");
        }
    }
}
