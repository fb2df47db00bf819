//! Lines and words of the three files, with their places. Works on bytes: a file may contain anything.

use alloc::{format, string::String, vec::Vec};
use core::ops::Range;

use super::diag::{Diag, DiagReport, FilePlace};
use crate::model::note::Escaped;

/// Longest line, without its line end (`docs/heartbeat.md`, section 2).
pub(super) const LINE_BYTES_MAX: usize = 5119;
/// Largest file: far above any real one, and small enough to be read at once.
pub(super) const FILE_BYTES_MAX: usize = 1 << 20;

/// One line without its line end, or the part of it that counts.
#[derive(Clone, Copy)]
pub(super) struct FileLine<'a> {
    /// Line number, counted from 1.
    pub(super) number: usize,
    /// Offset of its first byte in the file.
    pub(super) start: usize,
    pub(super) bytes: &'a [u8],
}

/// A word as text, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileWord {
    pub(super) text: String,
    pub(super) place: FilePlace,
}

/// The lines that are not too long; a longer one causes an error. A file that is too large has no lines.
pub(super) fn lines<'a>(text: &'a [u8], report: &mut DiagReport) -> Vec<FileLine<'a>> {
    if text.len() > FILE_BYTES_MAX {
        report.add(report.error(format!("the file is larger than {FILE_BYTES_MAX} bytes")));
        return Vec::new();
    }
    let mut start = 0;
    let mut lines = Vec::new();
    for (index, bytes) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = FileLine { number: index + 1, start, bytes };
        start += bytes.len() + 1;
        if bytes.len() <= LINE_BYTES_MAX {
            lines.push(line);
        } else {
            report.add(
                report
                    .error(format!("the line is longer than {LINE_BYTES_MAX} bytes"))
                    .at(&line.place(LINE_BYTES_MAX..bytes.len()))
                    .cure("split it; nothing of it was read"),
            );
        }
    }
    lines
}

/// heartbeat's blanks. The carriage return is one of them, so that files with DOS line ends can be read.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

/// Blanks and commas, which separate the values of most directives.
pub(super) fn is_blank_or_comma(byte: u8) -> bool {
    is_blank(byte) || byte == b','
}

impl<'a> FileLine<'a> {
    /// Returns the line without its comment.
    pub(super) fn uncommented(self) -> Self {
        let end = self.bytes.iter().position(|&byte| byte == b'#').unwrap_or(self.bytes.len());
        Self { bytes: &self.bytes[..end], ..self }
    }

    /// The place of a part of this line in the file.
    pub(super) fn place(self, part: Range<usize>) -> FilePlace {
        let characters = self.bytes[..part.start].iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        let span = self.start + part.start..self.start + part.end;
        FilePlace { line: self.number, column: characters + 1, span }
    }

    /// The place from the first to the last byte that is not blank.
    pub(super) fn whole(self) -> FilePlace {
        let first = self.bytes.iter().position(|&byte| !is_blank(byte)).unwrap_or(0);
        let last = self.bytes.iter().rposition(|&byte| !is_blank(byte)).map_or(first, |last| last + 1);
        self.place(first..last)
    }

    /// The parts between separators.
    pub(super) fn parts(self, is_separator: impl Fn(u8) -> bool) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let mut begun = None;
        for (at, &byte) in self.bytes.iter().enumerate() {
            match (is_separator(byte), begun) {
                (false, None) => begun = Some(at),
                (true, Some(start)) => {
                    parts.push(start..at);
                    begun = None;
                }
                (false, Some(_)) | (true, None) => {}
            }
        }
        parts.extend(begun.map(|start| start..self.bytes.len()));
        parts
    }

    /// A part of the line as text.
    ///
    /// # Errors
    /// When it is not UTF-8, or has a control character: this would be no name, and would do harm in a log.
    pub(super) fn word(self, part: Range<usize>, report: &DiagReport) -> Result<FileWord, Diag> {
        let place = self.place(part.clone());
        word(&self.bytes[part], place, report)
    }
}

/// Whether a character looks blank, but does not separate words: the no-break space and its like, and invisible
/// characters.
pub(super) fn is_pasted_blank(c: char) -> bool {
    (c.is_whitespace() && !c.is_ascii() && c != '\u{85}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// Bytes as a word; see [`FileLine::word`].
pub(super) fn word(bytes: &[u8], place: FilePlace, report: &DiagReport) -> Result<FileWord, Diag> {
    match core::str::from_utf8(bytes) {
        Ok(text) if text.starts_with('\u{feff}') => {
            let mut diag = report.error("there is a byte order mark, as editors of other systems write it");
            diag.text = format!("{}", Escaped(bytes));
            Err(diag.at(&place).cure("save the file as UTF-8 without it"))
        }
        Ok(text) if text.chars().any(is_pasted_blank) => {
            let found = text.chars().find(|c| is_pasted_blank(*c)).map_or(0, u32::from);
            let message = format!(
                "a character looks like a blank but is not one (U+{found:04X}), as in text from web pages and word \
                 processors"
            );
            let mut diag = report.error(message);
            diag.text = format!("{}", Escaped(bytes));
            Err(diag.at(&place).cure("retype the blanks of this line"))
        }
        Ok(text) if !text.chars().any(char::is_control) => Ok(FileWord { text: text.into(), place }),
        _ => {
            let mut diag = report.error("this is not text: it holds a control character or is not UTF-8");
            diag.text = format!("{}", Escaped(bytes));
            Err(diag.at(&place).cure("retype the word; save the file as UTF-8"))
        }
    }
}
