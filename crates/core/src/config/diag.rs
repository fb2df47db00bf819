//! Diagnostics about the files, and the explanation of each line: plain values. Nothing is rendered here. The daemon
//! logs them, `locum check` prints them, and JSON carries them, all from the same data.

use alloc::{format, string::String, vec::Vec};
use core::{fmt, ops::Range};

use serde::Serialize;

use super::lines::FileWord;
use crate::model::note::Escaped;

/// One diagnostic about a file. Its texts are printable: text from the file is escaped. About `authkeys` it contains at
/// most a key's number and method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diag {
    pub severity: Severity,
    pub file: FileName,
    /// The place; line 0 means the file as a whole.
    #[serde(flatten)]
    pub place: FilePlace,
    /// The offending text, escaped. Empty if there is none, and always empty for `authkeys`.
    pub text: String,
    pub message: String,
    /// What to do about it.
    pub cure: Option<String>,
    /// Whether it is about this host: the file may be right, but it does not fit the host.
    pub host: bool,
}

impl Diag {
    /// A diagnostic about a file as a whole.
    #[must_use]
    pub fn new(severity: Severity, file: FileName, message: impl Into<String>) -> Self {
        let place = FilePlace::default();
        Self { severity, file, place, text: String::new(), message: message.into(), cure: None, host: false }
    }

    /// Sets the place in the file.
    #[must_use]
    pub fn at(mut self, place: &FilePlace) -> Self {
        self.place = place.clone();
        self
    }

    /// Sets the place and the offending text to those of a word.
    #[must_use]
    pub(super) fn word(mut self, word: &FileWord) -> Self {
        self.text = shown(&word.text);
        self.at(&word.place)
    }

    /// Sets the offending text (escaped here).
    #[must_use]
    pub fn offending(mut self, text: &str) -> Self {
        self.text = shown(text);
        self
    }

    /// Sets the cure: what to do.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Marks it as being about this host, not about the file.
    #[must_use]
    pub fn about_host(mut self) -> Self {
        self.host = true;
        self
    }
}

/// Formats it as one line for a log: `ha.cf:3:1: error: … (cure)`.
impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.place.line > 0 {
            write!(f, "{}:{}:", self.place.line, self.place.column)?;
        }
        write!(f, " {}: {}", self.severity, self.message)?;
        self.cure.as_ref().map_or(Ok(()), |cure| write!(f, " ({cure})"))
    }
}

/// How serious a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A remark; nothing is wrong.
    Info,
    /// It works, but probably not as intended.
    Warning,
    /// The daemon does not start with this.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A file of the configuration directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum FileName {
    #[serde(rename = "ha.cf")]
    HaCf,
    #[serde(rename = "authkeys")]
    Authkeys,
    #[serde(rename = "haresources")]
    Haresources,
    /// Everything of a native cluster except its keys.
    #[serde(rename = "locum.toml")]
    LocumToml,
    /// The keys of a native cluster.
    #[serde(rename = "locum.key")]
    LocumKey,
}

impl FileName {
    /// The file's name in the configuration directory.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HaCf => "ha.cf",
            Self::Authkeys => "authkeys",
            Self::Haresources => "haresources",
            Self::LocumToml => "locum.toml",
            Self::LocumKey => "locum.key",
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A place in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FilePlace {
    /// Counted from 1; 0 means the file as a whole.
    pub line: usize,
    /// In characters, counted from 1; 0 means the file as a whole.
    pub column: usize,
    /// The byte range in the file.
    pub span: Range<usize>,
}

/// The explanation of one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    pub file: FileName,
    /// Counted from 1; 0 means a default, which no line changes.
    pub line: usize,
    /// The explanation in words; printable.
    pub text: String,
}

/// All diagnostics and explanations of one file, in the order in which they were found.
pub(super) struct DiagReport {
    file: FileName,
    pub(super) diags: Vec<Diag>,
    pub(super) explained: Vec<Explained>,
}

impl DiagReport {
    pub(super) fn new(file: FileName) -> Self {
        Self { file, diags: Vec::new(), explained: Vec::new() }
    }

    /// A new error about this file; the caller adds place and cure.
    pub(super) fn error(&self, message: impl Into<String>) -> Diag {
        Diag::new(Severity::Error, self.file, message)
    }

    pub(super) fn warning(&self, message: impl Into<String>) -> Diag {
        Diag::new(Severity::Warning, self.file, message)
    }

    pub(super) fn info(&self, message: impl Into<String>) -> Diag {
        Diag::new(Severity::Info, self.file, message)
    }

    pub(super) fn add(&mut self, diag: Diag) {
        self.diags.push(diag);
    }

    pub(super) fn explain(&mut self, line: usize, text: impl Into<String>) {
        self.explained.push(Explained { file: self.file, line, text: text.into() });
    }

    pub(super) fn failed(&self) -> bool {
        self.diags.iter().any(|diag| diag.severity == Severity::Error)
    }
}

/// Escapes text from a file for display.
pub(super) fn shown(text: &str) -> String {
    format!("{}", Escaped(text.as_bytes()))
}
