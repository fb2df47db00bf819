//! The keys of `authkeys`, checked against each other. Signing and verifying is in [`crate::framing::auth`].

use alloc::vec::Vec;
use core::fmt;

/// Key numbers are below this.
pub const KEY_NUMBERS: u8 = 16;

/// How a token is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthMethod {
    /// A checksum without a key: guards against a bad cable, not against people.
    Crc,
    /// HMAC with MD5 as hash.
    Md5,
    /// HMAC with SHA-1 as hash.
    Sha1,
    /// HMAC with SHA-256 as hash: an extension, for clusters in which every node runs Locum.
    Sha256,
}

impl AuthMethod {
    /// The method of that name in `authkeys`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Crc, Self::Md5, Self::Sha1, Self::Sha256].into_iter().find(|method| method.name() == name)
    }

    /// The name in `authkeys`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc => "crc",
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of `authkeys`.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The key's number, 0 to 15.
    pub number: u8,
    /// How tokens are made with it.
    pub method: AuthMethod,
    /// The third word of the line, as text; empty for crc.
    pub secret: Vec<u8>,
}

impl fmt::Debug for Key {
    /// Never shows the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {})", self.number, self.method)
    }
}

/// The keys of `authkeys`: at least one, with different numbers, and the one that signs is among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The index of the signing key in `keys`.
    signing: usize,
    keys: Vec<Key>,
}

impl Keys {
    /// Checks the keys. `signing` is the number in the line `auth N`.
    ///
    /// # Errors
    /// The first fault found, in the order of the keys.
    pub fn new(signing: u8, keys: Vec<Key>) -> Result<Self, KeysFault> {
        for (place, key) in keys.iter().enumerate() {
            if key.number >= KEY_NUMBERS {
                return Err(KeysFault::NumberTooHigh { number: key.number });
            }
            if keys[..place].iter().any(|earlier| earlier.number == key.number) {
                return Err(KeysFault::Twice { number: key.number });
            }
            match (key.method, key.secret.is_empty()) {
                (AuthMethod::Crc, false) => return Err(KeysFault::SecretForbidden { number: key.number }),
                (AuthMethod::Crc, true) | (_, false) => {}
                (method, true) => return Err(KeysFault::SecretMissing { number: key.number, method }),
            }
        }
        let place = keys.iter().position(|key| key.number == signing);
        let signing = place.ok_or(KeysFault::SigningUnknown { number: signing })?;
        Ok(Self { signing, keys })
    }

    /// The key with which this node signs.
    #[must_use]
    pub fn signing(&self) -> &Key {
        &self.keys[self.signing]
    }

    /// All keys, in the order of `authkeys`.
    #[must_use]
    pub fn all(&self) -> &[Key] {
        &self.keys
    }
}

/// Why keys cannot be used together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysFault {
    /// A number above 15.
    #[error("key number {number} is too high: 0 to {max}", max = KEY_NUMBERS - 1)]
    NumberTooHigh { number: u8 },
    /// Two keys with one number.
    #[error("key number {number} is used twice")]
    Twice { number: u8 },
    /// A method that needs a secret has none.
    #[error("key number {number}: method {method} needs a key")]
    SecretMissing { number: u8, method: AuthMethod },
    /// A key of method crc has a secret, which crc does not take.
    #[error("key number {number}: method crc takes no key")]
    SecretForbidden { number: u8 },
    /// `auth N` names no key.
    #[error("auth {number}: no key has this number")]
    SigningUnknown { number: u8 },
}
