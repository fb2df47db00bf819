//! Lines for the log, as values. The program decides how and where they are written. Nothing that came from the network
//! gets into a text here unescaped.

use alloc::string::String;
use core::fmt;

use super::claim::Epoch;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For people who look for a fault in Locum.
    Debug,
    /// Normal operation; needs no attention.
    Info,
    /// A condition that needs attention, but not now.
    Warning,
    /// Something does not work.
    Error,
    /// A person is needed now.
    Critical,
}

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub level: Level,
    /// The group it is about, by key, if it is about one.
    pub group: Option<String>,
    /// The epoch of that group, if the group is claimed.
    pub epoch: Option<Epoch>,
    /// The line, without time, node name or level. Printable, escaped.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Shows bytes from outside so that they do no harm in a log, a terminal or JSON: printable ASCII as it is, a backslash
/// doubled, everything else as `\xHH`. At most `LIMIT` bytes are shown, then `…`.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl Escaped<'_> {
    /// How many bytes are shown at most.
    pub const LIMIT: usize = 120;
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0.iter().take(Self::LIMIT) {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                0x20..=0x7e => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        if self.0.len() > Self::LIMIT { f.write_str("…") } else { Ok(()) }
    }
}
