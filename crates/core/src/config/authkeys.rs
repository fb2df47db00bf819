//! Reads `authkeys`: the keys that authenticate frames. Facts: `docs/heartbeat.md`, section 3.
//!
//! A diagnostic about this file never contains its text: a typing error may put the secret anywhere. It names at most a
//! key's number and a known method.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    diag::{Diag, DiagReport, FileName, FilePlace, Severity},
    lines::{FileLine, is_blank, is_pasted_blank, lines},
};
use crate::model::keys::{AuthMethod, KEY_NUMBERS, Key, Keys};

const FORM: &str = "a key is written `NUMBER METHOD SECRET`, such as `1 sha1 SECRET`";

/// Reads the file. `None` if the report has an error.
pub(super) fn read(text: &[u8], report: &mut DiagReport) -> Option<Keys> {
    let mut signing: Option<(u8, FilePlace)> = None;
    let mut keys: Vec<(Key, FilePlace)> = Vec::new();
    for line in lines(text, report) {
        let parts = line.parts(is_blank);
        let Some(first) = parts.first() else { continue };
        match line.bytes[first.start] {
            b'#' => {}
            b'a' => auth_line(line, &keys, &mut signing, report),
            _ => match key(line) {
                Ok(key) => {
                    cut_secret(&key, line, report);
                    add(key, &mut keys, line, report);
                }
                Err((message, cure)) => report.add(report.error(message).at(&line.whole()).cure(cure)),
            },
        }
    }
    if signing.is_none() && !report.failed() {
        let cure = match keys.first() {
            Some((key, _)) => format!("begin the file with `auth {}`", key.number),
            None => "write `auth 1` and, below it, `1 sha1 SECRET`".into(),
        };
        report.add(report.error("no line says which key this node signs with").cure(cure));
    }
    if let Some((number, place)) = &signing
        && !keys.iter().any(|(key, _)| key.number == *number)
        && !report.failed()
    {
        let message = format!("there is no key {number}");
        report.add(report.error(message).at(place).cure(format!("add a line `{number} sha1 SECRET` below")));
    }
    if report.failed() {
        return None;
    }
    let (signing, _) = signing?;
    remarks(signing, &keys, report);
    let keys = keys.into_iter().map(|(key, _)| key).collect();
    // Checked above. If the two checks ever disagree, the stricter one decides.
    Keys::new(signing, keys).map_err(|fault| report.add(report.error(fault.to_string()))).ok()
}

/// Reads `auth N`. heartbeat chooses the signing key when it reads that key's line, so `auth` must come first.
fn auth_line(
    line: FileLine<'_>,
    keys: &[(Key, FilePlace)],
    signing: &mut Option<(u8, FilePlace)>,
    report: &mut DiagReport,
) {
    let place = line.whole();
    let parts = line.parts(is_blank);
    let words = parts.iter().map(|part| &line.bytes[part.clone()]).collect::<Vec<_>>();
    let number = match words.as_slice() {
        [b"auth", number, ..] => key_number(number),
        _ => None,
    };
    let Some(number) = number else {
        let message = "a line that begins with `a` must be `auth NUMBER`";
        report
            .add(report.error(message).at(&place).cure("write the number of the key to sign with, 0 to 15"));
        return;
    };
    if let Some((key, _)) = keys.iter().find(|(key, _)| key.number == number) {
        let message = format!("`auth {number}` stands below key {}", key.number);
        report.add(report.error(message).at(&place).cure("move it to the beginning of the file"));
    }
    if let Some((_, earlier)) = signing {
        let message = format!("line {} already chooses the key to sign with", earlier.line);
        report.add(report.error(message).at(&place).cure("leave one `auth` line"));
        return;
    }
    report.explain(line.number, format!("this node signs with key {number}"));
    *signing = Some((number, place));
}

/// Reads `NUMBER METHOD SECRET`; the rest of the line is ignored.
fn key(line: FileLine<'_>) -> Result<Key, (String, String)> {
    let parts = line.parts(is_blank);
    let words = parts.iter().map(|part| &line.bytes[part.clone()]).collect::<Vec<_>>();
    let [number, rest @ ..] = words.as_slice() else { return Err(("this is not a key".into(), FORM.into())) };
    let Some(number) = key_number(number) else {
        if number.starts_with("\u{feff}".as_bytes()) {
            let cure = "save the file as UTF-8 without it";
            return Err((
                "there is a byte order mark, as editors of other systems write it".into(),
                cure.into(),
            ));
        }
        return Err((
            format!("the line does not begin with a key number, 0 to {}", KEY_NUMBERS - 1),
            FORM.into(),
        ));
    };
    let [method, rest @ ..] = rest else { return Err((format!("key {number} has no method"), FORM.into())) };
    let Some(method) = core::str::from_utf8(method).ok().and_then(AuthMethod::named) else {
        if let Some((known, is_pasted)) = glued(method) {
            let message = if is_pasted {
                format!("key {number}: the character after {known} looks like a blank but is not one")
            } else {
                format!("key {number}: a blank is missing after {known}")
            };
            return Err((message, FORM.into()));
        }
        let message = format!("the method of key {number} is not one of crc, md5, sha1, sha256");
        return Err((message, FORM.into()));
    };
    match (method, rest.first()) {
        (AuthMethod::Crc, Some(_)) => {
            let cure = "leave the secret out, or take a method that uses it, such as sha1";
            Err((format!("key {number}: crc takes no secret"), cure.into()))
        }
        (AuthMethod::Crc, None) => Ok(Key { number, method, secret: Vec::new() }),
        (_, None) => Err((format!("key {number}: {method} needs a secret"), FORM.into())),
        (_, Some(secret)) => Ok(Key { number, method, secret: secret.to_vec() }),
    }
}

/// The method that an unknown word begins with, and whether a pasted blank follows it.
fn glued(word: &[u8]) -> Option<(AuthMethod, bool)> {
    // The longest first; none of them is a prefix of another.
    let methods = [AuthMethod::Sha256, AuthMethod::Sha1, AuthMethod::Md5, AuthMethod::Crc];
    methods.into_iter().find_map(|method| {
        let rest = word.strip_prefix(method.name().as_bytes()).filter(|rest| !rest.is_empty())?;
        let text = String::from_utf8_lossy(rest);
        Some((method, text.starts_with(is_pasted_blank)))
    })
}

/// Warns if text follows a secret: heartbeat silently ignores it, but its author may believe that it counts. A comment
/// does not count as text.
fn cut_secret(key: &Key, line: FileLine<'_>, report: &mut DiagReport) {
    let parts = line.parts(is_blank);
    let ignored = parts.get(3..).unwrap_or_default();
    if key.secret.is_empty() || ignored.first().is_none_or(|part| line.bytes[part.start] == b'#') {
        return;
    }
    let message = format!(
        "key {}: a secret is one word: the first one counts, {} more are ignored, as by heartbeat",
        key.number,
        ignored.len()
    );
    let cure = "join the words, on all nodes at once, or take them out";
    report.add(report.warning(message).at(&line.whole()).cure(cure));
}

fn key_number(word: &[u8]) -> Option<u8> {
    let number = core::str::from_utf8(word).ok()?.parse().ok()?;
    (number < KEY_NUMBERS && word[0].is_ascii_digit()).then_some(number)
}

fn add(key: Key, keys: &mut Vec<(Key, FilePlace)>, line: FileLine<'_>, report: &mut DiagReport) {
    if let Some((_, earlier)) = keys.iter().find(|(known, _)| known.number == key.number) {
        let message = format!("key {} is already in line {}", key.number, earlier.line);
        report.add(report.error(message).at(&line.whole()).cure("give one of them another number"));
        return;
    }
    report.explain(line.number, format!("key {}: {}", key.number, key.method));
    keys.push((key, line.whole()));
}

/// Remarks about files that are allowed, but could be better.
fn remarks(signing: u8, keys: &[(Key, FilePlace)], report: &mut DiagReport) {
    for (Key { number, method, .. }, place) in keys {
        match method {
            AuthMethod::Crc => {
                let message = if *number == signing {
                    format!(
                        "key {number} is crc, a checksum without a secret: anyone on the link can take the service"
                    )
                } else {
                    format!(
                        "key {number} is crc, and every key listed is accepted: anyone on the link can take the service"
                    )
                };
                let cure = if *number == signing {
                    "write `auth 2` and `2 sha1 SECRET` on both nodes, then remove this line"
                } else {
                    "remove the line when no node signs with it any more"
                };
                report.add(report.warning(message).at(place).cure(cure));
            }
            AuthMethod::Sha256 => {
                let message = format!("key {number}: only Locum knows sha256");
                report.add(report.info(message).at(place).cure("with a peer that runs heartbeat take sha1"));
            }
            AuthMethod::Md5 | AuthMethod::Sha1 => {}
        }
    }
}

/// Checks the permission bits of the file: heartbeat refuses a file that group or others can read.
///
/// # Errors
/// The diagnostic. The caller adds the cure, because it knows the file's path.
pub fn check_mode(mode: u32) -> Result<(), Diag> {
    if mode & 0o044 == 0 {
        return Ok(());
    }
    let message = format!("users other than the owner can read the keys (mode {:04o})", mode & 0o7777);
    Err(Diag::new(Severity::Error, FileName::Authkeys, message).about_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> (Option<Keys>, Vec<String>) {
        let mut report = DiagReport::new(FileName::Authkeys);
        let keys = read(text, &mut report);
        (keys, report.diags.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn good_files_are_read() {
        let text = b"# keys\n\n auth 2\n 1 crc\n2\tmd5 Locum-test-key and more\r\n15 sha1 An0ther#Key\n3 sha256 \xff\xfe\n";
        let (keys, diags) = parsed(text);
        let keys = keys.expect("a good file");
        assert_eq!((keys.signing().number, keys.signing().secret.as_slice()), (2, &b"Locum-test-key"[..]));
        let all = keys.all().iter().map(|key| (key.number, key.method.name(), key.secret.as_slice()));
        assert_eq!(
            all.collect::<Vec<_>>(),
            [
                (1, "crc", &b""[..]),
                (2, "md5", b"Locum-test-key"),
                (15, "sha1", b"An0ther#Key"),
                (3, "sha256", b"\xff\xfe"),
            ]
        );
        assert_eq!(
            diags,
            [
                "authkeys:5:1: warning: key 2: a secret is one word: the first one counts, 2 more are ignored, as by heartbeat \
                 (join the words, on all nodes at once, or take them out)",
                "authkeys:4:2: warning: key 1 is crc, and every key listed is accepted: anyone on the link can take \
                 the service (remove the line when no node signs with it any more)",
                "authkeys:7:1: info: key 3: only Locum knows sha256 (with a peer that runs heartbeat \
                 take sha1)",
            ]
        );
    }

    #[test]
    fn bad_files_are_refused_without_a_word_of_their_secrets() {
        for (text, expected) in [
            (
                "",
                "authkeys: error: no line says which key this node signs with (write `auth 1` and, below it, `1 sha1 \
                  SECRET`)",
            ),
            (
                "1 sha1 hush",
                "authkeys: error: no line says which key this node signs with (begin the file with `auth \
                             1`)",
            ),
            (
                "auth 2\n1 sha1 hush",
                "authkeys:1:1: error: there is no key 2 (add a line `2 sha1 SECRET` below)",
            ),
            (
                "1 sha1 hush\nauth 1",
                "authkeys:2:1: error: `auth 1` stands below key 1 (move it to the beginning of \
                                     the file)",
            ),
            (
                "auth 1\nauth 1\n1 sha1 hush",
                "authkeys:2:1: error: line 1 already chooses the key to sign with \
                                             (leave one `auth` line)",
            ),
            (
                "auth hush",
                "authkeys:1:1: error: a line that begins with `a` must be `auth NUMBER` (write the number of \
                           the key to sign with, 0 to 15)",
            ),
            (
                "auth 16",
                "authkeys:1:1: error: a line that begins with `a` must be `auth NUMBER` (write the number of \
                         the key to sign with, 0 to 15)",
            ),
            (
                "auth 1\n1 sha1 hush\n1 md5 hush",
                "authkeys:3:1: error: key 1 is already in line 2 (give one of \
                                                 them another number)",
            ),
            (
                "auth 1\n1 crc hush",
                "authkeys:2:1: error: key 1: crc takes no secret (leave the secret out, or take a \
                                    method that uses it, such as sha1)",
            ),
        ] {
            let (keys, diags) = parsed(text.as_bytes());
            assert_eq!((keys, diags), (None, [expected.to_string()].into()), "{text}");
        }
        for (line, message) in [
            ("1 sha1", "key 1: sha1 needs a secret"),
            ("1 hush hush", "the method of key 1 is not one of crc, md5, sha1, sha256"),
            ("1", "key 1 has no method"),
            ("1 sha1hush", "key 1: a blank is missing after sha1"),
            ("1 sha256\u{a0}hush", "key 1: the character after sha256 looks like a blank but is not one"),
            ("1 crchush", "key 1: a blank is missing after crc"),
            ("hush", "the line does not begin with a key number, 0 to 15"),
            ("16 sha1 hush", "the line does not begin with a key number, 0 to 15"),
            ("+1 sha1 hush", "the line does not begin with a key number, 0 to 15"),
            ("1\u{fc} sha1 hush", "the line does not begin with a key number, 0 to 15"),
        ] {
            let (keys, diags) = parsed(format!("auth 1\n{line}").as_bytes());
            assert_eq!(
                (keys, diags),
                (None, [format!("authkeys:2:1: error: {message} ({FORM})")].into()),
                "{line}"
            );
        }
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        let (keys, diags) = parsed("\u{feff}auth 1\n1 sha1 hush\n".as_bytes());
        let text = "authkeys:1:1: error: there is a byte order mark, as editors of other systems write it (save the file as \
                    UTF-8 without it)";
        assert_eq!((keys, diags), (None, [text.to_string()].into()));
    }

    #[test]
    fn everything_is_said_at_once() {
        let (_, diags) = parsed(b"aut 1\n1 crc x\nhush hush\n");
        assert_eq!(diags.len(), 3, "{diags:?}");
        assert!(diags.iter().all(|diag| !diag.contains("hush")), "{diags:?}");
    }

    #[test]
    fn only_the_owner_may_read_the_keys() {
        for (mode, good) in
            [(0o600, true), (0o400, true), (0o620, true), (0o640, false), (0o604, false), (0o644, false)]
        {
            assert_eq!(check_mode(0o100_000 | mode).is_ok(), good, "{mode:o}");
        }
    }
}
