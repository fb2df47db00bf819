//! Diagnostics about the configuration, drawn for the administrator: file, line and column, the line itself with the
//! offending text underlined, and the cure. Of `authkeys` only numbers and methods are drawn.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use locum_core::{
    config::{CheckedHaFiles, Diag, FileName, Severity},
    model::keys::AuthMethod,
};

use crate::files::Files;

/// Prints the faults of heartbeat's files on standard error. Returns whether all of them are wrong on this host only.
pub(crate) fn complain(files: &Files, checked: &CheckedHaFiles) -> bool {
    complain_of(&checked.diags, &files.dir, |name| files.text(name))
}

/// As [`complain`], for any files.
pub(crate) fn complain_of<'a>(
    diags: &[Diag],
    dir: &Path,
    text: impl Fn(FileName) -> Option<&'a [u8]>,
) -> bool {
    let color = io::stderr().is_terminal();
    for diag in diags {
        err!("{}", draw(diag, dir, text(diag.file), color));
    }
    diags.iter().filter(|diag| diag.severity == Severity::Error).all(|diag| diag.host)
}

/// Draws one diagnostic. `dir` is the configuration directory, `text` the text of the file as it was read.
#[must_use]
pub fn draw(diag: &Diag, dir: &Path, text: Option<&[u8]>, color: bool) -> String {
    let level = match diag.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let path = dir.join(diag.file.name()).display().to_string();
    let title = level.primary_title(diag.message.as_str());
    let group = match line_of(diag, text) {
        Some(line) => title.element(snippet(diag, &line, path)),
        None if diag.place.line > 0 => {
            title.element(Origin::path(path).line(diag.place.line).char_column(diag.place.column))
        }
        None => title.element(Origin::path(path)),
    };
    let group = add_cure(group, diag);
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group]) + "\n"
}

fn snippet<'a>(
    diag: &Diag,
    line: &DrawnLine,
    path: String,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let span = line.offset(diag.place.span.start)..line.offset(diag.place.span.end);
    Snippet::source(line.text.clone())
        .line_start(diag.place.line)
        .path(path)
        .annotation(AnnotationKind::Primary.span(span))
}

fn add_cure<'a>(group: Group<'a>, diag: &'a Diag) -> Group<'a> {
    match &diag.cure {
        Some(cure) => group.element(Level::HELP.message(cure.as_str())),
        None => group,
    }
}

/// A line as it is drawn, with the new position of each of its bytes.
struct DrawnLine {
    text: String,
    /// The offset of the line within the file.
    start: usize,
    /// For each byte of the line, and for its end, the position in `text`.
    places: Vec<usize>,
}

impl DrawnLine {
    /// The position in the drawn line of a byte of the file. A byte beyond the line is at its end.
    fn offset(&self, byte: usize) -> usize {
        let at = byte.saturating_sub(self.start).min(self.places.len() - 1);
        self.places[at]
    }
}

fn line_of(diag: &Diag, text: Option<&[u8]>) -> Option<DrawnLine> {
    let number = diag.place.line.checked_sub(1)?;
    let text = text?;
    let mut lines = text.split(|&byte| byte == b'\n');
    let start = lines.by_ref().take(number).map(|line| line.len() + 1).sum();
    let line = lines.next()?;
    Some(drawable(diag.file, line, start))
}

/// A line without the secrets that such a file may contain.
fn drawable(file: FileName, line: &[u8], start: usize) -> DrawnLine {
    match file {
        FileName::Authkeys => masked(line, start),
        FileName::LocumToml | FileName::LocumKey => printable(&without_keys(line), start),
        FileName::HaCf | FileName::Haresources => printable(line, start),
    }
}

/// The line with stars in place of a possible key, which is a long row of hex digits.
fn without_keys(line: &[u8]) -> Vec<u8> {
    const DIGITS_MIN: usize = 33; // an IPv6 address without colons has fewer
    let mut line = line.to_vec();
    for run in line.split_mut(|byte| !byte.is_ascii_hexdigit()).filter(|run| run.len() >= DIGITS_MIN) {
        run.fill(b'*');
    }
    line
}

/// A line of a file as one line of text, for lists.
#[must_use]
pub fn one_line(file: FileName, line: &[u8]) -> String {
    drawable(file, line, 0).text.replace('\t', " ").trim().to_owned()
}

/// Keeps letters, digits, printable ASCII and tabs; writes the rest as `\xHH` or `\u{…}`.
fn printable(line: &[u8], start: usize) -> DrawnLine {
    let mut shown = DrawnLine { text: String::new(), start, places: Vec::new() };
    for chunk in line.utf8_chunks() {
        for c in chunk.valid().chars() {
            let at = shown.text.len();
            match c {
                '\r' => {}
                '\t' | ' '..='~' => shown.text.push(c),
                c if c.is_alphanumeric() => shown.text.push(c),
                c => shown.text.extend(c.escape_unicode()),
            }
            shown.places.extend(std::iter::repeat_n(at, c.len_utf8()));
        }
        for byte in chunk.invalid() {
            shown.places.push(shown.text.len());
            shown.text += &format!("\\x{byte:02x}");
        }
    }
    shown.places.push(shown.text.len());
    shown
}

/// Keeps only words that cannot be a secret: a number or `auth`, followed by a method or a number.
fn masked(line: &[u8], start: usize) -> DrawnLine {
    let mut shown = DrawnLine { text: String::new(), start, places: Vec::new() };
    let is_number = |word: &[u8]| word.len() <= 2 && word.iter().all(u8::is_ascii_digit);
    let is_method =
        |word: &[u8]| std::str::from_utf8(word).is_ok_and(|word| AuthMethod::named(word).is_some());
    let mut known = true; // every word so far could be shown
    let mut words = 0;
    let mut is_auth = false;
    for word in line.split_inclusive(|byte| !byte.is_ascii_graphic()) {
        let gap = usize::from(word.last().is_some_and(|byte| !byte.is_ascii_graphic()));
        let word = &word[..word.len() - gap];
        let at = shown.text.len();
        if !word.is_empty() {
            known &= match words {
                0 => is_number(word) || word == b"auth",
                1 if is_auth => is_number(word),
                1 => is_method(word),
                _ => false,
            };
            is_auth |= word == b"auth";
            words += 1;
            if known {
                shown.text.push_str(&String::from_utf8_lossy(word));
                shown.places.extend(at..at + word.len());
            } else {
                shown.text.push_str("***");
                shown.places.extend(std::iter::repeat_n(at, word.len()));
            }
        }
        if gap > 0 {
            shown.places.push(shown.text.len());
            shown.text.push(' ');
        }
    }
    shown.places.push(shown.text.len());
    shown
}

#[cfg(test)]
mod tests {
    use locum_core::config::{CheckOptions, HaFiles, check};

    use super::*;

    fn drawn(ha_cf: &[u8], authkeys: &[u8], haresources: &[u8]) -> String {
        let files = HaFiles { ha_cf: Some(ha_cf), authkeys: Some(authkeys), haresources: Some(haresources) };
        let diags = check(&files, "web1", &CheckOptions::default()).diags;
        let text = |diag: &Diag| match diag.file {
            FileName::HaCf => ha_cf,
            FileName::Authkeys => authkeys,
            FileName::Haresources => haresources,
            FileName::LocumToml | FileName::LocumKey => panic!("not of this dialect"),
        };
        diags.iter().map(|diag| draw(diag, Path::new("/etc/ha.d"), Some(text(diag)), false)).collect()
    }

    #[test]
    fn the_offending_text_is_underlined() {
        let text = drawn(
            b"bcast eth0 eth1\nnode web1 web2\ndeadtime\t10s # long\n",
            b"auth 1\n1 sha1 k\n",
            b"web1 httpd\n",
        );
        assert_eq!(
            text,
            "error: `s` is not a unit of time here
 --> /etc/ha.d/ha.cf:3:10
  |
3 | deadtime    10s # long
  |             ^^^
  |
  = help: seconds have none: write `10`
"
        );
    }

    #[test]
    fn a_file_as_a_whole_has_no_line() {
        let text = drawn(b"node web1 web2\n", b"auth 1\n1 sha1 k\n", b"web1 httpd\n");
        assert_eq!(
            text,
            "error: there is no medium: the nodes cannot hear each other
--> /etc/ha.d/ha.cf
 = help: add at least one, better two: `bcast eth1`, `serial /dev/ttyS0`
"
        );
    }

    #[test]
    fn secrets_are_not_drawn() {
        let text = drawn(
            b"bcast eth0 eth1\nnode web1 web2\n",
            b"auth 1\n1 sha512 hush\n2  crc  hush more\nhush\n3 sha1\n4 hush\n",
            b"web1 httpd\n",
        );
        assert!(!text.contains("hush") && !text.contains("more"), "{text}");
        assert!(text.contains("3 | 2  crc  *** ***\n  | ^^^^^^^^^^^^^^^\n"), "{text}");
        assert!(text.contains("2 | 1 *** ***\n"), "{text}");
        assert!(text.contains("4 | ***\n"), "{text}");
    }

    #[test]
    fn keys_of_the_native_dialect_are_not_drawn() {
        let key = "0123456789abcdef".repeat(4);
        let text = format!("cluster = \"c\"\nwitnesses.w = {{ address = \"x\", key = \"{key}\" }}\n");
        let checked = locum_core::config::locum_toml::check(text.as_bytes(), "web1");
        let all = checked
            .diags
            .iter()
            .map(|diag| draw(diag, Path::new("/etc/locum"), Some(text.as_bytes()), false));
        let all = all.collect::<String>();
        assert!(all.contains("`x` is not an address") && all.contains("key = \"****"), "{all}");
        assert!(!all.contains("0123"), "{all}");
        let (_, diags) = locum_core::config::locum_key::read(b"# one\n0123\n");
        let drawn = draw(&diags[0], Path::new("/etc/locum"), None, false);
        assert!(drawn.contains("--> /etc/locum/locum.key:2:1\n"), "{drawn}");
    }

    #[test]
    fn what_cannot_be_printed_is_escaped() {
        let text = drawn(
            "bcast eth0 eth1\nnode web1 web2\nn\u{f6}de \u{202e}x\x1b[31m web3\n".as_bytes(),
            b"auth 1\n1 sha1 k\n",
            b"web1 ht\xfftpd\n",
        );
        assert!(text.contains("3 | n\u{f6}de \\u{202e}x\\u{1b}[31m web3\n  | ^^^^\n"), "{text}");
        assert!(text.contains("1 | web1 ht\\xfftpd\n  |      ^^^^^^^^^\n"), "{text}");
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text}");
    }

    #[test]
    fn continued_words_are_underlined_to_the_end_of_their_line() {
        let text = drawn(
            b"bcast eth0 eth1\nnode web1 web2\n",
            b"auth 1\n1 sha1 k\n",
            b"web1 10.0.\\\n0.256 httpd\n",
        );
        assert!(text.contains("1 | web1 10.0.\\\n  |      ^^^^^^\n"), "{text}");
    }
}
