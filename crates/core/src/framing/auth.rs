//! Authentication: the keys of `authkeys`, the methods crc, md5, sha1 and sha256, signing and verifying.
//!
//! A frame carries the number of a key and a *token*. [`Keys::sign`] makes the token. [`Keys::verify`] checks it: first
//! with the key that the frame's number names, then with every other key. So keys can be rolled over node by node, and
//! the nodes understand each other all the time. Facts: `docs/wire.md`, section 2.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;

use crate::model::{
    action::ClaimProof,
    breakage::{self, Breakage},
    keys::{AuthMethod, Key, Keys},
};

/// Hex digits of the longest token.
pub const TOKEN_DIGITS_MAX: usize = 64;

/// The method whose tokens have this length: all differ in length.
fn method_of(token: &[u8]) -> Option<AuthMethod> {
    match token.len() {
        1..=8 => Some(AuthMethod::Crc),
        32 => Some(AuthMethod::Md5),
        40 => Some(AuthMethod::Sha1),
        64 => Some(AuthMethod::Sha256),
        _ => None,
    }
}

impl Key {
    /// The token over these bytes, which may come in pieces.
    pub fn token<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Token {
        match self.method {
            AuthMethod::Crc => Token::of_crc(crc(parts)),
            AuthMethod::Md5 => Token::of_digest(&self.mac::<Hmac<Md5>>(parts).finalize().into_bytes()),
            AuthMethod::Sha1 => Token::of_digest(&self.mac::<Hmac<Sha1>>(parts).finalize().into_bytes()),
            AuthMethod::Sha256 => Token::of_digest(&self.mac::<Hmac<Sha256>>(parts).finalize().into_bytes()),
        }
    }

    /// The first bytes of an HMAC-SHA-256 over these bytes, whatever the key's method.
    fn claim_proof<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> ClaimProof {
        let digest = self.mac::<Hmac<Sha256>>(parts).finalize().into_bytes();
        let mut proof = ClaimProof([0; 16]);
        proof.0.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        proof
    }

    /// Whether this key makes that token over these bytes. The time that it takes tells nothing about the right token.
    fn makes<'a>(&self, token: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) -> bool {
        if self.method == AuthMethod::Crc {
            return Token::of_crc(crc(parts)).as_bytes() == token; // crc has no secret that the time could tell
        }
        let mut buffer = [0; TOKEN_DIGITS_MAX / 2];
        let Some(digest) = unhex(token, &mut buffer) else { return false };
        match self.method {
            AuthMethod::Crc => false,
            AuthMethod::Md5 => self.mac::<Hmac<Md5>>(parts).verify_slice(digest).is_ok(),
            AuthMethod::Sha1 => self.mac::<Hmac<Sha1>>(parts).verify_slice(digest).is_ok(),
            AuthMethod::Sha256 => self.mac::<Hmac<Sha256>>(parts).verify_slice(digest).is_ok(),
        }
    }

    fn mac<'a, M: Mac + KeyInit>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> M {
        let mut mac = <M as KeyInit>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        parts.into_iter().for_each(|part| mac.update(part));
        mac
    }
}

impl Keys {
    /// The stamp of this node over these bytes.
    pub fn sign<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Stamp {
        let key = self.signing();
        Stamp { number: key.number, token: key.token(parts) }
    }

    /// The proof of these bytes for members that accept the key with which this node signs.
    pub fn claim_proof<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> ClaimProof {
        self.signing().claim_proof(parts)
    }

    /// The proofs of these bytes that this node accepts: one for each of its keys.
    pub fn claim_proofs<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a [u8]> + Clone,
    ) -> impl Iterator<Item = ClaimProof> {
        self.all().iter().map(move |key| key.claim_proof(parts.clone()))
    }

    /// Verifies the stamp of a frame. Returns the number of the key that made it, in *our* `authkeys`. `parts` is walked
    /// once for every key tried.
    ///
    /// # Errors
    /// Why no key of ours makes this token.
    pub fn verify<'a>(
        &self,
        stamp: ClaimedStamp<'_>,
        parts: impl IntoIterator<Item = &'a [u8]> + Clone,
    ) -> Result<u8, StampFault> {
        let Some(method) = method_of(stamp.token) else { return Err(StampFault::Form) };
        let named = self.all().iter().find(|key| key.number == stamp.number);
        let others = self.all().iter().filter(|key| key.number != stamp.number);
        let signing = self.signing();
        for key in named.into_iter().chain(others).filter(|key| key.method == method) {
            let allowed = !breakage::is(Breakage::NoKeyRollOver) || key == signing;
            if allowed && key.makes(stamp.token, parts.clone()) {
                return Ok(key.number);
            }
        }
        if breakage::is(Breakage::NoAuthentication) {
            return Ok(stamp.number);
        }
        let (ours, theirs) = (KeyLabel::of(signing), KeyLabel { number: stamp.number, method });
        Err(match named {
            None => StampFault::UnknownNumber { ours, theirs },
            Some(key) if key.number != signing.number => StampFault::OtherSigning { ours, theirs },
            Some(key) if key.method != method => StampFault::OtherMethod { ours, theirs },
            Some(_) if method == AuthMethod::Crc => StampFault::Damaged,
            Some(_) => StampFault::OtherKey { theirs },
        })
    }
}

/// The stamp that this node puts on a frame: `NUMBER TOKEN` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub number: u8,
    pub token: Token,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.token.as_str())
    }
}

/// The stamp found on a frame: well-formed, but not yet verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedStamp<'a> {
    /// The key's number, as the frame gives it.
    pub number: u8,
    /// The token, as the frame gives it.
    pub token: &'a [u8],
}

impl<'a> ClaimedStamp<'a> {
    /// Reads `NUMBER TOKEN`: a decimal number below 16, one blank, up to 64 lower-case hex digits.
    #[must_use]
    pub fn read(text: &'a [u8]) -> Option<Self> {
        let blank = text.iter().position(|&byte| byte == b' ')?;
        let (number, token) = (&text[..blank], &text[blank + 1..]);
        let number: u8 = match *number {
            [one @ b'0'..=b'9'] => one - b'0',
            [b'1', one @ b'0'..=b'5'] => 10 + one - b'0',
            _ => return None,
        };
        let is_hex = token.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ((1..=TOKEN_DIGITS_MAX).contains(&token.len()) && is_hex).then_some(Self { number, token })
    }
}

/// A key's number and method, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyLabel {
    pub number: u8,
    pub method: AuthMethod,
}

impl KeyLabel {
    fn of(key: &Key) -> Self {
        Self { number: key.number, method: key.method }
    }
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number, self.method)
    }
}

/// Why a stamp is refused. It says what differs between the frame's sender and us, which is also the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum StampFault {
    /// The token has the length of no known method.
    #[error("a token of an unknown method")]
    Form,
    /// The number is not in our `authkeys`.
    #[error("key number {} unknown: the frame is signed with {theirs}, this node signs with {ours}", theirs.number)]
    UnknownNumber { ours: KeyLabel, theirs: KeyLabel },
    /// The frame names a key that we have but do not sign with, and ours of that number is another key.
    #[error("this node signs with {ours}, the frame with {theirs}, which is another key here")]
    OtherSigning { ours: KeyLabel, theirs: KeyLabel },
    /// The number is that of our signing key, the method is not.
    #[error("other method: this node signs with {ours}, the frame with {theirs}")]
    OtherMethod { ours: KeyLabel, theirs: KeyLabel },
    /// The checksum is wrong. It has no key, so another key cannot be the reason.
    #[error("the frame is damaged: its crc is wrong")]
    Damaged,
    /// Number and method are those of our signing key, but the token is not.
    #[error("same method, other key: key number {theirs} differs between the nodes, or the frame is damaged")]
    OtherKey { theirs: KeyLabel },
}

/// A token: lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    digits: [u8; TOKEN_DIGITS_MAX],
    len: usize,
}

impl Token {
    /// All digits of a digest, two per byte.
    fn of_digest(digest: &[u8]) -> Self {
        let mut token = Self { digits: [0; TOKEN_DIGITS_MAX], len: 0 };
        digest.iter().for_each(|byte| {
            token.push(byte >> 4);
            token.push(byte & 15);
        });
        token
    }

    /// A number without leading zeros.
    fn of_crc(sum: u32) -> Self {
        let mut token = Self { digits: [0; TOKEN_DIGITS_MAX], len: 0 };
        let digits = (8 - sum.leading_zeros() / 4).max(1);
        (0..digits).rev().for_each(|digit| token.push(((sum >> (4 * digit)) & 15) as u8));
        token
    }

    fn push(&mut self, digit: u8) {
        self.digits[self.len] = b"0123456789abcdef"[usize::from(digit)];
        self.len += 1;
    }

    /// The hex digits as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    /// The hex digits as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).expect("hex digits are ASCII")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Decodes lower-case hex digits; `None` if `token` is anything else.
fn unhex<'b>(token: &[u8], buffer: &'b mut [u8; TOKEN_DIGITS_MAX / 2]) -> Option<&'b [u8]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let out = buffer.get_mut(..token.len() / 2)?;
    for (byte, pair) in out.iter_mut().zip(token.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    token.len().is_multiple_of(2).then_some(out)
}

/// heartbeat's crc: polynomial 0x04C11DB7, most significant bit first, initial value 0, final complement.
fn crc<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let bytes = parts.into_iter().flatten();
    !bytes.fold(0_u32, |sum, &byte| sum << 8 ^ CRC_TABLE[usize::from((sum >> 24) as u8 ^ byte)])
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut sum = byte << 24;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum >> 31 == 1 { sum << 1 ^ 0x04C1_1DB7 } else { sum << 1 };
            bit += 1;
        }
        table[byte as usize] = sum;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use alloc::vec::Vec;

    use super::*;
    use crate::model::keys::KeysFault;

    fn key(number: u8, method: AuthMethod, secret: &str) -> Key {
        Key { number, method, secret: secret.as_bytes().to_vec() }
    }

    #[test]
    fn tokens_of_published_vectors() {
        // RFC 2202 (MD5 and SHA-1, case 2), RFC 4231 (SHA-256, case 2).
        let text = b"what do ya want for nothing?".as_slice();
        let token = |method| key(1, method, "Jefe").token([&text[..5], &text[5..]]).as_str().to_string();
        assert_eq!(token(AuthMethod::Md5), "750c783e6ab0b503eaa86e310a5db738");
        assert_eq!(token(AuthMethod::Sha1), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert_eq!(
            token(AuthMethod::Sha256),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_proof_is_the_beginning_of_the_published_vector() {
        let keys =
            Keys::new(1, vec![key(1, AuthMethod::Sha256, "Jefe"), key(2, AuthMethod::Sha256, "other")])
                .unwrap();
        let text = b"what do ya want for nothing?".as_slice();
        let proof = keys.claim_proof([&text[..9], &text[9..]]);
        assert_eq!(proof.0[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(proof.0[12..], [0x08, 0x95, 0x75, 0xc7]);
        let accepted: Vec<ClaimProof> = keys.claim_proofs([text]).collect();
        assert_eq!(accepted.len(), 2);
        assert_eq!(accepted[0], proof);
        assert_ne!(accepted[1], proof);
        assert_eq!(alloc::format!("{proof:?}"), "ClaimProof");
    }

    #[test]
    fn crc_is_posix_cksum_without_the_length() {
        // `cksum` of "123456789" appends the length byte 9 and prints 930766865.
        assert_eq!(crc([b"123456789\x09".as_slice()]), 930_766_865);
        assert_eq!(Token::of_crc(0x01ab).as_str(), "1ab");
        assert_eq!(Token::of_crc(0).as_str(), "0");
        assert_eq!(Token::of_crc(u32::MAX).as_str(), "ffffffff");
    }

    #[test]
    fn keys_are_checked() {
        let crc = || key(1, AuthMethod::Crc, "");
        let sha1 = |number| key(number, AuthMethod::Sha1, "x");
        let fault = |signing, keys| Keys::new(signing, keys).unwrap_err();
        assert_eq!(fault(1, vec![]), KeysFault::SigningUnknown { number: 1 });
        assert_eq!(fault(2, vec![crc()]), KeysFault::SigningUnknown { number: 2 });
        assert_eq!(fault(1, vec![crc(), sha1(1)]), KeysFault::Twice { number: 1 });
        assert_eq!(fault(16, vec![sha1(16)]), KeysFault::NumberTooHigh { number: 16 });
        assert_eq!(fault(1, vec![key(1, AuthMethod::Crc, "x")]), KeysFault::SecretForbidden { number: 1 });
        let none = fault(1, vec![key(1, AuthMethod::Md5, "")]);
        assert_eq!(none.to_string(), "key number 1: method md5 needs a key");
        assert_eq!(Keys::new(2, vec![crc(), sha1(2)]).unwrap().signing(), &sha1(2));
    }

    #[test]
    fn a_rolling_change_of_keys_never_loses_a_frame() {
        let frame = || [b"a frame".as_slice()];
        let (old, new) = (key(1, AuthMethod::Crc, ""), key(2, AuthMethod::Sha1, "secret"));
        let before = Keys::new(1, vec![old.clone(), new.clone()]).unwrap();
        let after = Keys::new(2, vec![old, new.clone()]).unwrap();
        let renumbered = Keys::new(7, vec![Key { number: 7, ..new }]).unwrap();
        for (sender, receiver, by) in [(&before, &after, 1), (&after, &before, 2), (&renumbered, &before, 2)]
        {
            let stamp = sender.sign(frame()).to_string();
            let claimed = ClaimedStamp::read(stamp.as_bytes()).unwrap();
            assert_eq!(receiver.verify(claimed, frame()), Ok(by));
            assert!(receiver.verify(claimed, [b"another".as_slice()]).is_err());
        }
    }

    #[test]
    fn faults_name_the_cure() {
        let fault = |ours: Vec<Key>, theirs: Key| {
            let stamp = Keys::new(theirs.number, vec![theirs]).unwrap().sign([b"x".as_slice()]).to_string();
            let keys = Keys::new(ours[0].number, ours).unwrap();
            keys.verify(ClaimedStamp::read(stamp.as_bytes()).unwrap(), [b"x".as_slice()])
                .unwrap_err()
                .to_string()
        };
        let (sha1, md5) = (|| key(1, AuthMethod::Sha1, "a"), || key(2, AuthMethod::Md5, "b"));
        assert_eq!(
            fault(vec![sha1()], md5()),
            "key number 2 unknown: the frame is signed with 2 (md5), this node signs with 1 (sha1)"
        );
        assert_eq!(
            fault(vec![sha1(), key(2, AuthMethod::Md5, "c")], md5()),
            "this node signs with 1 (sha1), the frame with 2 (md5), which is another key here"
        );
        assert_eq!(
            fault(vec![sha1()], key(1, AuthMethod::Md5, "a")),
            "other method: this node signs with 1 (sha1), the frame with 1 (md5)"
        );
        let crc = Keys::new(1, vec![key(1, AuthMethod::Crc, "")]).unwrap();
        let damaged = crc.verify(ClaimedStamp { number: 1, token: b"0" }, [b"x".as_slice()]);
        assert_eq!(damaged.unwrap_err().to_string(), "the frame is damaged: its crc is wrong");
        assert_eq!(
            fault(vec![sha1()], key(1, AuthMethod::Sha1, "b")),
            "same method, other key: key number 1 (sha1) differs between the nodes, or the frame is damaged"
        );
    }

    #[test]
    fn stamps_are_read_strictly() {
        assert_eq!(ClaimedStamp::read(b"15 0af"), Some(ClaimedStamp { number: 15, token: b"0af" }));
        for bad in ["", "1", "1 ", " 1 ab", "16 ab", "01 ab", "1  ab", "1 AB", "1 ab ", "-1 ab", "1 xyz"] {
            assert_eq!(ClaimedStamp::read(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(ClaimedStamp::read(&[b'1'; 80]), None);
        let long = [b"1 ".as_slice(), &[b'a'; 65]].concat();
        assert_eq!(ClaimedStamp::read(&long), None);
    }

    #[test]
    fn debug_keeps_the_secret() {
        let keys = Keys::new(3, vec![key(3, AuthMethod::Sha1, "hunter2")]).unwrap();
        assert_eq!(alloc::format!("{keys:?}"), "Keys { signing: 0, keys: [Key(3 sha1)] }");
    }
}
