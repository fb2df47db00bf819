//! Values of fields, in both dialects. Each kind of value has one form; a value in any other form is refused. Facts:
//! `docs/wire.md`, section 3.

use alloc::{format, string::String};

use super::frame::NODE_NAME_MAX;

/// A node name: printable ASCII without blanks, shorter than `NODE_NAME_MAX`.
pub(crate) fn name(value: &[u8]) -> Option<String> {
    let good = (1..NODE_NAME_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    good.then(|| value.iter().copied().map(char::from).collect())
}

/// Printable ASCII: the fields that we know never hold anything else.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let good = !value.is_empty() && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    core::str::from_utf8(value).ok().filter(|_| good)
}

pub(crate) fn hex(number: u64) -> String {
    format!("{number:x}")
}

pub(crate) fn dec(number: u64) -> String {
    format!("{number}")
}

/// A hexadecimal number in its one form: lower case, without sign, prefix or leading zeros.
pub(crate) fn number_hex(value: &[u8]) -> Option<u64> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let one_form = value == b"0" || !value.starts_with(b"0");
    let text = core::str::from_utf8(value).ok().filter(|_| one_form && value.iter().all(is_digit))?;
    u64::from_str_radix(text, 16).ok()
}

/// A decimal number in its one form: without sign or leading zeros.
pub(crate) fn number_dec(value: &[u8]) -> Option<u64> {
    let number = core::str::from_utf8(value).ok()?.parse().ok()?;
    (dec(number).as_bytes() == value).then_some(number)
}
