//! Netstring framing (UDP, ICMP echo): `###`, fields with their lengths, `%%%`, and the stamp as a trailer.
//! Facts: `docs/wire.md`, section 1.1.

use alloc::{borrow::Cow, string::ToString, vec::Vec};

use super::{
    auth::ClaimedStamp,
    frame::{Field, FieldKind, FrameRefusal, field_name},
};
use crate::model::keys::Keys;

pub(crate) const OPEN: &[u8] = b"###\n";
/// The closing line. It is signed too.
const CLOSE: &[u8] = b"%%%\n";

/// Where the parts of a frame are.
pub(crate) struct NetstringBounds<'a> {
    /// The bytes that the stamp covers.
    pub signed: &'a [u8],
    pub body: &'a [u8],
    pub stamp: ClaimedStamp<'a>,
}

/// Finds the trailer, which follows the last closing line. Anywhere else it could be part of a value.
pub(crate) fn find(bytes: &[u8]) -> Result<NetstringBounds<'_>, FrameRefusal> {
    let inside = bytes.strip_prefix(OPEN).ok_or(FrameRefusal::NoFrame)?;
    let close = inside.windows(CLOSE.len()).rposition(|window| window == CLOSE).ok_or(FrameRefusal::NoEnd)?;
    let signed_len = OPEN.len() + close + CLOSE.len();
    let (trailer, after) = cut(&bytes[signed_len..]).ok_or(FrameRefusal::NoEnd)?;
    // Old senders end a datagram with a NUL. More than that does not belong here and is not covered by the stamp.
    if !matches!(after, b"" | b"\0") {
        return Err(FrameRefusal::NoEnd);
    }
    let stamp = ClaimedStamp::read(trailer).ok_or(FrameRefusal::Unsigned)?;
    Ok(NetstringBounds { signed: &bytes[..signed_len], body: &inside[..close], stamp })
}

/// Cuts the first field off.
pub(crate) fn cut_field(bytes: &[u8]) -> Result<(Field<'_>, &[u8]), FrameRefusal> {
    let (content, rest) = cut(bytes).ok_or(FrameRefusal::FieldBounds)?;
    let [b'(', digit, b')', named @ ..] = content else { return Err(FrameRefusal::FieldKind) };
    let kind = FieldKind::from_digit(*digit).ok_or(FrameRefusal::FieldKind)?;
    let equals = named.iter().position(|&byte| byte == b'=').ok_or(FrameRefusal::FieldName)?;
    let name = field_name(&named[..equals])?;
    Ok((Field { kind, name, value: Cow::Borrowed(&named[equals + 1..]) }, rest))
}

/// Cuts `LEN:CONTENT,` off the front: the content and the rest. The length has no leading zeros.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=6).contains(&digits) || (bytes[0] == b'0' && digits > 1) {
        return None;
    }
    let len = bytes[..digits].iter().fold(0, |sum, &digit| sum * 10 + usize::from(digit - b'0'));
    let content = bytes[digits..].strip_prefix(b":")?;
    let rest = content.get(len..)?.strip_prefix(b",")?;
    Some((&content[..len], rest))
}

/// Appends one field to `out`.
pub(crate) fn put_field(out: &mut Vec<u8>, field: &Field<'_>) {
    let len = "(0)=".len() + field.name.len() + field.value.len();
    out.extend_from_slice(len.to_string().as_bytes());
    out.extend_from_slice(&[b':', b'(', field.kind.digit(), b')']);
    out.extend_from_slice(field.name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(&field.value);
    out.push(b',');
}

/// Writes the closing line and the trailer of the frame that began at `start`.
pub(crate) fn close(out: &mut Vec<u8>, start: usize, keys: &Keys) {
    out.extend_from_slice(CLOSE);
    let stamp = keys.sign([&out[start..]]).to_string();
    out.extend_from_slice(stamp.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(stamp.as_bytes());
    out.push(b',');
}
