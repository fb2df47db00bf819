//! Values of the file with their places. Each value is read as the expected type, or becomes an error with its cure.
//! After an error the caller goes on with a default, so that all errors are reported at once.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::ops::{Range, RangeInclusive};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::keys::{KEYS, TomlTable};
use crate::{
    config::{
        address::ConfigFault,
        diag::{Diag, DiagReport, FilePlace, shown},
        slips::meant,
        value::united_time,
    },
    model::time::{Duration, DurationText},
    native::plan::NAME_BYTES_MAX,
};

/// A value with its place.
pub(super) type TomlItem<'t> = Spanned<DeValue<'t>>;
/// Most diagnostics about one file: people read no more, and a file with a million faults must not cost memory.
const DIAGS_MAX: usize = 200;

/// Text with its place.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) span: Range<usize>,
}

/// The offsets where lines begin, to turn bytes into lines and columns.
pub(super) struct LineIndex<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let after_ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: core::iter::once(0).chain(after_ends).collect() }
    }

    /// The place of a range of bytes.
    pub(super) fn place(&self, span: Range<usize>) -> FilePlace {
        let start = span.start.min(self.text.len());
        let line = self.starts.partition_point(|&first| first <= start); // at least 1: the first line starts at 0
        let before = self.text.as_bytes().get(self.starts[line - 1]..start).unwrap_or_default();
        let characters = before.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        FilePlace { line, column: characters + 1, span: start..span.end.clamp(start, self.text.len()) }
    }
}

/// Reads the file and collects its diagnostics.
pub(super) struct TomlReader<'r> {
    pub(super) lines: LineIndex<'r>,
    pub(super) report: &'r mut DiagReport,
    /// From this offset on lines may be in another table than intended, because the file's form is broken.
    pub(super) broken_from: Option<usize>,
    /// A node is in the file and was refused. What is missing because of it is not reported.
    pub(super) lacks_node: bool,
}

impl TomlReader<'_> {
    pub(super) fn place(&self, span: &Range<usize>) -> FilePlace {
        self.lines.place(span.clone())
    }

    /// Whether everything that the file should have is known; only then can something be reported as missing.
    pub(super) const fn is_whole(&self) -> bool {
        self.broken_from.is_none() && !self.lacks_node
    }

    fn add(&mut self, diag: Diag) {
        let is_known_to_stand_there =
            self.broken_from.is_none_or(|line| diag.place.line < line && diag.place.line > 0);
        if is_known_to_stand_there && !self.is_full() {
            self.report.add(diag);
        }
    }

    fn is_full(&self) -> bool {
        self.report.diags.len() >= DIAGS_MAX
    }

    /// Adds an error about a text of the file.
    pub(super) fn error(&mut self, at: &Text<'_>, message: impl Into<String>, cure: impl Into<String>) {
        let diag = self.report.error(message).at(&self.place(&at.span)).offending(at.text).cure(cure);
        self.add(diag);
    }

    /// Adds an error about a place, without its text: the text is useless or secret.
    pub(super) fn error_at(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let diag = self.report.error(message).at(&self.place(span)).cure(cure);
        self.add(diag);
    }

    /// Adds an error about something missing in a table or in the file. A file with a broken form may have it after
    /// all.
    pub(super) fn absent(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        if self.is_whole() {
            self.error_at(span, message, cure);
        }
    }

    /// As [`Self::absent`], about the file as a whole.
    pub(super) fn absent_from_file(&mut self, message: impl Into<String>, cure: impl Into<String>) {
        if self.is_whole() {
            let diag = self.report.error(message).cure(cure);
            self.report.add(diag);
        }
    }

    /// Adds an error about an unknown name; `known` are the known ones.
    pub(super) fn unknown<'a>(
        &mut self,
        at: &Text<'_>,
        what: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) {
        if self.is_full() || !self.is_whole() {
            return;
        }
        let message = format!("`{}` is not a known {what}", shown(at.text));
        let cure = match meant(at.text, known.clone()) {
            Some(name) => format!("did you mean `{}`?", shown(name)),
            None => {
                let all = known.take(12).map(shown).collect::<Vec<_>>().join(", ");
                if all.is_empty() { format!("there is no {what}") } else { format!("there are: {all}") }
            }
        };
        self.error(at, message, cure);
    }

    pub(super) fn warning(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let diag = self.report.warning(message).at(&self.place(span)).cure(cure);
        self.add(diag);
    }

    pub(super) fn fault(&mut self, at: &Text<'_>, (message, cure): ConfigFault) {
        let mut diag = self.report.error(message).at(&self.place(&at.span)).offending(at.text);
        diag.cure = cure;
        self.add(diag);
    }

    pub(super) fn explain(&mut self, span: &Range<usize>, text: impl Into<String>) {
        let line = self.place(span).line;
        self.report.explain(line, text);
    }

    /// Adds an error about a value of another type than expected.
    fn wrong_kind(&mut self, item: &TomlItem<'_>, expected: &str, example: &str) {
        let is = match item.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time of day",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error_at(&item.span(), format!("found {is}, expected {expected}"), format!("write {example}"));
    }

    pub(super) fn text<'a>(&mut self, item: &'a TomlItem<'a>, example: &str) -> Option<Text<'a>> {
        let DeValue::String(text) = item.get_ref() else {
            self.wrong_kind(item, "a text", example);
            return None;
        };
        let text = Text { text, span: item.span() };
        if text.text.chars().any(char::is_control) {
            self.error(&text, "the text holds a control character", "write it in one line, without tabs");
            return None;
        }
        Some(text)
    }

    /// Reads a name: it becomes a part of file names and frames.
    pub(super) fn name<'a>(&mut self, item: &'a TomlItem<'a>, example: &str) -> Option<Text<'a>> {
        let text = self.text(item, example)?;
        self.is_name(&text, NAME_BYTES_MAX).then_some(text)
    }

    pub(super) fn is_name(&mut self, text: &Text<'_>, bytes_max: usize) -> bool {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let name = text.text;
        let is_name = !name.is_empty()
            && name.len() <= bytes_max
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(is_good);
        if !is_name {
            let cure =
                format!("write 1 to {bytes_max} letters, digits, `-`, `_` and `.`, a letter or digit first");
            self.error(text, format!("`{}` cannot be a name", shown(name)), cure);
        }
        is_name
    }

    pub(super) fn time(&mut self, item: &TomlItem<'_>, range: RangeInclusive<Duration>) -> Option<Duration> {
        if let DeValue::Integer(number) = item.get_ref() {
            let cure = format!(r#"write `"{number}s"`; units are `ms`, `s`, `min` and `h`"#);
            self.error_at(&item.span(), "the unit is missing", cure);
            return None;
        }
        let text = self.text(item, r#"a time such as `"10s"`"#)?;
        let time = united_time(text.text).map_err(|fault| self.fault(&text, fault)).ok()?;
        if !range.contains(&time) {
            let (least, most) = (DurationText(*range.start()), DurationText(*range.end()));
            let message = format!(
                "{} is too {}",
                DurationText(time),
                if time < *range.start() { "short" } else { "long" }
            );
            self.error(&text, message, format!("write a time from {least} to {most}"));
            return None;
        }
        Some(time)
    }

    pub(super) fn whole(&mut self, item: &TomlItem<'_>, range: RangeInclusive<u32>) -> Option<u32> {
        let example = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = item.get_ref() else {
            self.wrong_kind(item, "a whole number", &example);
            return None;
        };
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let text = number.to_string();
                let text = Text { text: &text, span: item.span() };
                self.error(
                    &text,
                    format!("{} is out of range", shown(text.text)),
                    format!("write {example}"),
                );
                None
            }
        }
    }

    pub(super) fn truth(&mut self, item: &TomlItem<'_>) -> Option<bool> {
        if let DeValue::Boolean(truth) = item.get_ref() {
            return Some(*truth);
        }
        self.wrong_kind(item, "true or false", "`true` or `false`, without quotes");
        None
    }

    /// Reads one text, or a list of texts.
    pub(super) fn texts<'a>(&mut self, item: &'a TomlItem<'a>, example: &str) -> Vec<Text<'a>> {
        match item.get_ref() {
            DeValue::Array(items) => items.iter().filter_map(|item| self.text(item, example)).collect(),
            _ => self.text(item, example).into_iter().collect(),
        }
    }

    /// As [`Self::choices`], for members: their names ignore case.
    pub(super) fn members<'k, 'a>(
        &mut self,
        item: &'a TomlItem<'a>,
        what: &str,
        known: impl Iterator<Item = &'k str> + Clone,
    ) -> Vec<(usize, Text<'a>)> {
        self.choices_by(item, what, known, |name, text| name == text.to_lowercase())
    }

    /// Reads texts that are keys of `known`; each at most once.
    pub(super) fn choices<'k, 'a>(
        &mut self,
        item: &'a TomlItem<'a>,
        what: &str,
        known: impl Iterator<Item = &'k str> + Clone,
    ) -> Vec<(usize, Text<'a>)> {
        self.choices_by(item, what, known, |name, text| name == text)
    }

    fn choices_by<'k, 'a>(
        &mut self,
        item: &'a TomlItem<'a>,
        what: &str,
        known: impl Iterator<Item = &'k str> + Clone,
        is: impl Fn(&str, &str) -> bool,
    ) -> Vec<(usize, Text<'a>)> {
        let mut found: Vec<(usize, Text<'a>)> = Vec::new();
        for text in self.texts(item, &format!("the name of a {what}, or a list of them")) {
            let Some(index) = known.clone().position(|name| is(name, text.text)) else {
                self.unknown(&text, what, known.clone());
                continue;
            };
            if found.iter().any(|(earlier, _)| *earlier == index) {
                self.error(&text, format!("`{}` appears twice", shown(text.text)), "leave one");
                continue;
            }
            found.push((index, text));
        }
        found
    }

    pub(super) fn table<'a>(&mut self, item: &'a TomlItem<'a>, example: &str) -> Option<&'a DeTable<'a>> {
        if let DeValue::Table(table) = item.get_ref() {
            return Some(table);
        }
        self.wrong_kind(item, "a table", example);
        None
    }

    /// The tables in a table, with their names.
    pub(super) fn tables<'a>(
        &mut self,
        parent: &'a DeTable<'a>,
        key: &str,
    ) -> Vec<(Text<'a>, &'a TomlItem<'a>, &'a DeTable<'a>)> {
        let Some(item) = parent.get(key) else { return Vec::new() };
        let Some(table) = self.table(item, &format!("tables such as `[{key}.NAME]`")) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, item) in table {
            let name = Text { text: name.get_ref(), span: name.span() };
            let example = format!("`[{key}.{}]` with single brackets, and its keys below", shown(name.text));
            if let Some(table) = self.table(item, &example) {
                found.push((name, item, table));
            }
        }
        found
    }

    /// Reports the unknown keys of a table. Returns whether all are known.
    pub(super) fn keys(&mut self, table: &DeTable<'_>, which: &[TomlTable]) -> bool {
        let mut all_known = true;
        let known = KEYS.iter().filter(|key| which.contains(&key.table)).map(|key| key.name);
        for (name, _) in table {
            let name = Text { text: name.get_ref(), span: name.span() };
            if known.clone().any(|known| known == name.text) {
                continue;
            }
            all_known = false;
            let cure = match (meant(name.text, known.clone()), elsewhere(name.text)) {
                (Some(known), _) => format!("did you mean `{known}`?"),
                (None, Some(cure)) => cure,
                (None, None) => {
                    let all = known.clone().collect::<Vec<_>>().join(", ");
                    format!("remove it; known here are {all}")
                }
            };
            self.error(&name, format!("`{}` is not a key of this table", shown(name.text)), cure);
        }
        all_known
    }
}

/// The cure for a key that belongs to other tables, or that `ha.cf` had.
fn elsewhere(name: &str) -> Option<String> {
    let derived = ["keepalive", "deadtime", "warntime", "initdead", "lease", "beat", "timeout", "interval"];
    if derived.contains(&name) {
        return Some("remove it; all such times follow from `pace`: see `locum explain timing`".into());
    }
    let key = KEYS.iter().find(|key| key.name == name)?;
    Some(format!("it belongs in {}", key.table.header()))
}
