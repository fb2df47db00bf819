//! What is worth a line in the log, as values. The voice outside decides how it is written and where; nothing that
//! came from the network gets into a text here unescaped.

use alloc::string::String;
use core::fmt;

use super::claim::Epoch;

/// How loud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For people who look for a fault in Locum.
    Debug,
    /// Normal life.
    Info,
    /// Something a person should look at one day.
    Warning,
    /// Something does not work.
    Error,
    /// A person is needed now.
    Critical,
}

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How loud.
    pub level: Level,
    /// The group it is about, by key, if it is about one.
    pub group: Option<String>,
    /// Of a group that is claimed: under which ownership.
    pub epoch: Option<Epoch>,
    /// The line, without time, node name or level. Printable, escaped.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Shows bytes that came from outside so that they can do no harm in a log, a terminal or JSON: printable ASCII as
/// it is, everything else (and the backslash) as `\xHH`. At most `LIMIT` bytes are shown, then `…`.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl Escaped<'_> {
    /// Bytes shown at most.
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
