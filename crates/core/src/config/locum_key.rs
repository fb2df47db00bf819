//! Reads `locum.key`: the one or two keys of a native cluster, 64 hex digits per line. The first key signs; both
//! verify, so that a key can be replaced node by node. Empty lines and lines that begin with `#` are ignored. A
//! diagnostic never contains text of the file.

use alloc::{format, vec::Vec};

use super::{
    diag::{Diag, DiagReport, FileName},
    lines::{is_blank, lines},
};
use crate::model::keys::{AuthMethod, Key, Keys};

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// Reads the file. Returns no keys if anything is wrong with it. Keys are numbered in their order, from 0.
#[must_use]
pub fn read(text: &[u8]) -> (Option<Keys>, Vec<Diag>) {
    let mut report = DiagReport::new(FileName::LocumKey);
    let mut keys: Vec<Key> = Vec::new();
    for line in lines(text, &mut report) {
        let parts = line.uncommented().parts(is_blank);
        let [part] = parts.as_slice() else {
            if !parts.is_empty() {
                let diag = report.error("there is more than one word in this line").at(&line.whole());
                report.add(diag.cure("write one key a line, 64 hex digits"));
            }
            continue;
        };
        let place = line.place(part.clone());
        let Some(secret) = hex_key(&line.bytes[part.clone()]) else {
            let diag = report.error("this is not a key of 64 hex digits").at(&place);
            report.add(diag.cure("make one with `locum keygen`, and copy the file to all nodes"));
            continue;
        };
        if keys.iter().any(|earlier| earlier.secret == secret) {
            let diag = report.error("this key appears twice").at(&place);
            report.add(diag.cure("remove this line"));
            continue;
        }
        let number = u8::try_from(keys.len()).unwrap_or(u8::MAX);
        if number == 2 {
            let diag = report.error("there are more than two keys").at(&place);
            report
                .add(diag.cure("remove the oldest, below: the first signs, the second is still understood"));
            break;
        }
        keys.push(Key { number, method: AuthMethod::Sha256, secret: secret.into() });
    }
    if keys.is_empty() && !report.failed() {
        report.add(report.error("there is no key").cure("make one with `locum keygen`"));
    }
    if report.failed() {
        return (None, report.diags);
    }
    match Keys::new(0, keys) {
        Ok(keys) => (Some(keys), report.diags),
        Err(fault) => {
            report.add(report.error(format!("{fault}")));
            (None, report.diags)
        }
    }
}

/// Decodes 64 hex digits into bytes.
pub(super) fn hex_key(text: &[u8]) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.chunks_exact(2)) {
        let digit =
            |at: usize| char::from(digits[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use super::*;

    const A: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    const B: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

    fn diagnostics(text: &str) -> Vec<String> {
        let (keys, diags) = read(text.as_bytes());
        assert_eq!(keys.is_none(), !diags.is_empty());
        diags.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_key_signs_and_both_verify() {
        let keys = |text: String| read(text.as_bytes()).0.unwrap();
        let (old, new) = (keys(format!("{A}\n")), keys(format!("# new\n{B} # old below\n\n {A}\r\n")));
        assert_eq!(new.signing().secret[..2], [0xff, 0xee]);
        let parts = [&b"frame"[..]];
        let stamp = old.sign(parts);
        let claimed =
            crate::framing::auth::ClaimedStamp { number: stamp.number, token: stamp.token.as_bytes() };
        assert!(new.verify(claimed, parts).is_ok());
        let stamp = new.sign(parts);
        let claimed =
            crate::framing::auth::ClaimedStamp { number: stamp.number, token: stamp.token.as_bytes() };
        assert!(old.verify(claimed, parts).is_err());
    }

    #[test]
    fn what_is_wrong_is_said_without_a_digit_of_a_key() {
        let short = &A[1..];
        for (text, message) in [
            (String::new(), "locum.key: error: there is no key"),
            (format!("{short}\n"), "locum.key:1:1: error: this is not a key of 64 hex digits"),
            (format!("{A}\n{short}g\n"), "locum.key:2:1: error: this is not a key of 64 hex digits"),
            (format!("{A} {B}\n"), "locum.key:1:1: error: there is more than one word"),
            (format!("{A}\n{}\n", A.to_lowercase()), "locum.key:2:1: error: this key appears twice"),
            (
                format!("{A}\n{B}\n{}\n", A.replace('0', "1")),
                "locum.key:3:1: error: there are more than two keys",
            ),
        ] {
            let said = diagnostics(&text);
            assert!(said.len() == 1 && said[0].starts_with(message), "{said:?}");
            assert!(!said[0].contains("2233") && !said[0].contains("ddcc"), "{said:?}");
        }
    }
}
