//! What is wrong with the files, and what each of their lines means: plain values. Nothing is rendered here; the
//! daemon logs them, `locum check` draws them, and JSON carries them, all from the same data.

use alloc::{format, string::String, vec::Vec};
use core::{fmt, ops::Range};

use serde::Serialize;

use super::lines::Word;
use crate::model::note::Escaped;

/// One thing to tell about a file. Texts are printable: what comes from the file is escaped in them, and of
/// `authkeys` there is never more than a key's number and method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diag {
    /// How bad it is.
    pub severity: Severity,
    /// Which file.
    pub file: FileName,
    /// Where; line 0 is the file as a whole.
    #[serde(flatten)]
    pub place: Place,
    /// The offending text, escaped; empty when there is none, and always empty for `authkeys`.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub cure: Option<String>,
    /// The file may well be right, but it does not fit this host.
    pub host: bool,
}

impl Diag {
    /// About a file as a whole.
    #[must_use]
    pub fn new(severity: Severity, file: FileName, message: impl Into<String>) -> Self {
        let place = Place::default();
        Self { severity, file, place, text: String::new(), message: message.into(), cure: None, host: false }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: &Place) -> Self {
        self.place = place.clone();
        self
    }

    /// Says where, and shows the word that stands there.
    #[must_use]
    pub(super) fn word(mut self, word: &Word) -> Self {
        self.text = shown(&word.text);
        self.at(&word.place)
    }

    /// Shows the offending text (escaped here).
    #[must_use]
    pub fn offending(mut self, text: &str) -> Self {
        self.text = shown(text);
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Says that it is the host that does not fit.
    #[must_use]
    pub fn about_host(mut self) -> Self {
        self.host = true;
        self
    }
}

/// One line, for a log: `ha.cf:3:1: error: … (cure)`.
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

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// It works, but probably not as wished.
    Warning,
    /// No start with this.
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

/// The files of the configuration directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum FileName {
    /// The cluster.
    #[serde(rename = "ha.cf")]
    HaCf,
    /// The keys.
    #[serde(rename = "authkeys")]
    Authkeys,
    /// The groups.
    #[serde(rename = "haresources")]
    Haresources,
    /// All of a native cluster but its keys.
    #[serde(rename = "locum.toml")]
    LocumToml,
    /// The keys of a native cluster.
    #[serde(rename = "locum.key")]
    LocumKey,
}

impl FileName {
    /// The name in the configuration directory.
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

/// Where something stands in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Counted from 1; 0 is the file as a whole.
    pub line: usize,
    /// In characters, counted from 1; 0 for the file as a whole.
    pub column: usize,
    /// The bytes of the file.
    pub span: Range<usize>,
}

/// What a line means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Which file.
    pub file: FileName,
    /// Counted from 1; 0 is a default that holds because no line says otherwise.
    pub line: usize,
    /// The meaning, in words; printable.
    pub text: String,
}

/// Everything that was found in one file, in the order in which it was found.
pub(super) struct Report {
    file: FileName,
    pub(super) diags: Vec<Diag>,
    pub(super) explained: Vec<Explained>,
}

impl Report {
    pub(super) fn new(file: FileName) -> Self {
        Self { file, diags: Vec::new(), explained: Vec::new() }
    }

    /// A new error about this file; the caller says where and gives the cure.
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

/// Text from a file as it may be shown.
pub(super) fn shown(text: &str) -> String {
    format!("{}", Escaped(text.as_bytes()))
}
