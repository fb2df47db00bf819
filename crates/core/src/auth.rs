//! Who may speak: keys, the methods crc, md5, sha1 and sha256, signing and verifying.

/// The keys of `authkeys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {}
