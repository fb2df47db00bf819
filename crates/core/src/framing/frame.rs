//! Finds the bounds of a frame, verifies its stamp, and only then looks at its fields. This module does not know what a
//! field means. Facts: `docs/wire.md`, sections 1 and 2.

use alloc::{borrow::Cow, string::ToString as _, vec::Vec};

use super::{auth::StampFault, classic, netstring};
use crate::model::keys::Keys;

/// The most bytes of a frame: one UDP datagram. R1 frames have 200 to 350.
pub const FRAME_BYTES_MAX: usize = 65_507;
/// The most fields of a frame. R1 frames have up to 16.
pub const FIELDS_MAX: usize = 64;
/// The most bytes of a field's name.
pub const FIELD_NAME_MAX: usize = 64;
/// A node name is shorter than this.
pub const NODE_NAME_MAX: usize = 100;
/// A message type is shorter than this.
pub const TYPE_MAX: usize = 32;

/// How the fields of a frame are held together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Framing {
    /// `###`: on UDP and in ICMP echo.
    Netstring,
    /// `>>>`: on serial lines; accepted everywhere.
    Classic,
}

/// Checks the stamp of one frame. The fields are not looked at yet.
///
/// # Errors
/// Why these bytes are not a frame, or not one of ours.
pub fn authenticate<'a>(bytes: &'a [u8], keys: &Keys) -> Result<AuthenticFrame<'a>, FrameRefusal> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameRefusal::TooLong);
    }
    let (framing, body, key) = if bytes.starts_with(netstring::OPEN) {
        let frame = netstring::find(bytes)?;
        (Framing::Netstring, frame.body, keys.verify(frame.stamp, [frame.signed])?)
    } else if bytes.starts_with(classic::OPEN) {
        let frame = classic::find(bytes)?;
        (Framing::Classic, frame.body, keys.verify(frame.stamp, classic::signed(frame.body))?)
    } else {
        return Err(FrameRefusal::NoFrame);
    };
    Ok(AuthenticFrame { framing, body, key })
}

/// Appends a frame of these fields to `out`, signed.
pub(crate) fn seal<'a>(
    framing: Framing,
    fields: impl Iterator<Item = Field<'a>>,
    keys: &Keys,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    match framing {
        Framing::Netstring => {
            out.extend_from_slice(netstring::OPEN);
            fields.for_each(|field| netstring::put_field(out, &field));
            netstring::close(out, start, keys);
        }
        Framing::Classic => {
            out.extend_from_slice(classic::OPEN);
            fields.for_each(|field| classic::put_field(out, &field));
            let stamp = keys.sign([&out[start + classic::OPEN.len()..]]).to_string();
            let auth = Field { kind: FieldKind::Text, name: "auth", value: Cow::Borrowed(stamp.as_bytes()) };
            classic::put_field(out, &auth);
            out.extend_from_slice(classic::CLOSE);
        }
    }
}

/// The first field of a frame that is not authenticated, if it is a text field of this name. It may only be used to tell
/// a foreign cluster from a wrong key.
pub(crate) fn first_field<'a>(bytes: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    let (field, _) = match (bytes.strip_prefix(netstring::OPEN), bytes.strip_prefix(classic::OPEN)) {
        (Some(body), _) => netstring::cut_field(body).ok()?,
        (_, Some(body)) => classic::cut_field(body).ok()?,
        _ => return None,
    };
    (field.name == name && field.kind == FieldKind::Text).then_some(field.value)
}

/// A frame that one of our keys has signed.
#[derive(Clone, Copy, Debug)]
pub struct AuthenticFrame<'a> {
    framing: Framing,
    /// Between the opening and the closing line.
    body: &'a [u8],
    key: u8,
}

impl<'a> AuthenticFrame<'a> {
    /// The framing that holds it together.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The number of the key, in our `authkeys`, that made its stamp.
    #[must_use]
    pub fn key(&self) -> u8 {
        self.key
    }

    /// All fields, in their order.
    ///
    /// # Errors
    /// The first field that is not well-formed.
    pub fn fields(&self) -> Result<Vec<Field<'a>>, FrameRefusal> {
        let mut rest = self.body;
        let mut fields = Vec::new();
        while !rest.is_empty() {
            if fields.len() == FIELDS_MAX {
                return Err(FrameRefusal::TooManyFields);
            }
            let (field, after) = match self.framing {
                Framing::Netstring => netstring::cut_field(rest)?,
                Framing::Classic => classic::cut_field(rest)?,
            };
            // A stamp is text. As anything else it would be a field that no stamp covers (section 2).
            if field.name == "auth" && field.kind != FieldKind::Text {
                return Err(FrameRefusal::FieldValue);
            }
            fields.push(field);
            rest = after;
        }
        Ok(fields)
    }
}

/// One field of a frame. `value` is decoded, except for a struct: that stays as its framing wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// How the value is written.
    pub kind: FieldKind,
    /// Letters, digits, `_`, `-`, `.`; not empty.
    pub name: &'a str,
    pub value: Cow<'a, [u8]>,
}

/// The type digit of a field. R1 uses only text and binary; the others are carried, not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldKind {
    /// Digit 0: plain text.
    Text,
    /// Digit 1: bytes, such as UUIDs.
    Binary,
    /// Digit 2: a message inside the message.
    Struct,
    /// Digit 3: a list of strings.
    List,
    /// Digit 4: a compressed struct.
    Compressed,
}

impl FieldKind {
    pub(crate) fn from_digit(digit: u8) -> Option<Self> {
        match digit {
            b'0' => Some(Self::Text),
            b'1' => Some(Self::Binary),
            b'2' => Some(Self::Struct),
            b'3' => Some(Self::List),
            b'4' => Some(Self::Compressed),
            _ => None, // 5 exists only in the memory of the original
        }
    }

    pub(crate) fn digit(self) -> u8 {
        match self {
            Self::Text => b'0',
            Self::Binary => b'1',
            Self::Struct => b'2',
            Self::List => b'3',
            Self::Compressed => b'4',
        }
    }
}

/// Reads the name of a field, which both framings end with `=`.
pub(crate) fn field_name(bytes: &[u8]) -> Result<&str, FrameRefusal> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let good = (1..=FIELD_NAME_MAX).contains(&bytes.len()) && bytes.iter().all(is_name);
    let name = core::str::from_utf8(bytes).ok();
    name.filter(|_| good).ok_or(FrameRefusal::FieldName)
}

/// Why bytes were refused as a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum FrameRefusal {
    /// More bytes than any frame has.
    #[error("longer than {FRAME_BYTES_MAX} bytes")]
    TooLong,
    /// It begins like neither framing.
    #[error("not a frame")]
    NoFrame,
    /// It begins like a frame, but the closing line or what must follow it is missing: cut off, or damaged.
    #[error("a frame without an end")]
    NoEnd,
    /// No stamp, or a malformed one.
    #[error("not signed")]
    Unsigned,
    /// No key of ours made the stamp.
    #[error(transparent)]
    Stamp(#[from] StampFault),
    /// A field's length does not fit the frame.
    #[error("a field whose length does not fit the frame")]
    FieldBounds,
    /// A type digit that is not known.
    #[error("a field of an unknown type")]
    FieldKind,
    /// A field's name is empty, too long or has strange letters.
    #[error("a field with an invalid name")]
    FieldName,
    /// A field's value cannot stand in its framing.
    #[error("a field whose value does not have the form of its type")]
    FieldValue,
    /// More fields than [`FIELDS_MAX`].
    #[error("more than {FIELDS_MAX} fields")]
    TooManyFields,
    /// No message type `t`, or a malformed one.
    #[error("no message type")]
    NoType,
    /// The originator `src` is missing.
    #[error("no originator (`src`)")]
    NoSource,
    /// `src` or `dest` is too long or has letters that no node name has.
    #[error("an invalid node name")]
    NodeName,
    /// No time `ts`, or one that is zero or malformed.
    #[error("no valid time (`ts`)")]
    NoTime,
}

impl FrameRefusal {
    /// A short name for counters. It does not change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::NoFrame => "no-frame",
            Self::NoEnd => "no-end",
            Self::Unsigned => "unsigned",
            Self::Stamp(StampFault::Form) => "token-form",
            Self::Stamp(StampFault::UnknownNumber { .. }) => "key-unknown",
            Self::Stamp(StampFault::OtherSigning { .. }) => "key-other-signing",
            Self::Stamp(StampFault::OtherMethod { .. }) => "key-other-method",
            Self::Stamp(StampFault::OtherKey { .. }) => "key-other",
            Self::Stamp(StampFault::Damaged) => "damaged",
            Self::FieldBounds => "field-bounds",
            Self::FieldKind => "field-kind",
            Self::FieldName => "field-name",
            Self::FieldValue => "field-value",
            Self::TooManyFields => "too-many-fields",
            Self::NoType => "no-type",
            Self::NoSource => "no-source",
            Self::NodeName => "node-name",
            Self::NoTime => "no-time",
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::model::keys::{AuthMethod, Key};

    fn keys() -> Keys {
        Keys::new(1, vec![Key { number: 1, method: AuthMethod::Crc, secret: vec![] }]).unwrap()
    }

    /// A netstring frame with this body, signed.
    fn signed(body: &[u8]) -> Vec<u8> {
        let mut out = [netstring::OPEN, body].concat();
        netstring::close(&mut out, 0, &keys());
        out
    }

    #[test]
    fn a_frame_is_authenticated_before_it_is_parsed() {
        let frame = signed(b"nonsense");
        let authentic = authenticate(&frame, &keys()).unwrap();
        assert_eq!((authentic.framing(), authentic.key()), (Framing::Netstring, 1));
        assert_eq!(authentic.fields(), Err(FrameRefusal::FieldBounds));

        let mut damaged = frame;
        damaged[5] ^= 1;
        let refusal = authenticate(&damaged, &keys()).unwrap_err();
        assert_eq!(refusal.name(), "damaged");
    }

    #[test]
    fn what_is_no_frame_is_refused_with_its_reason() {
        let refused = |bytes: &[u8]| authenticate(bytes, &keys()).unwrap_err();
        assert_eq!(refused(b""), FrameRefusal::NoFrame);
        assert_eq!(refused(b"### \n"), FrameRefusal::NoFrame);
        assert_eq!(refused(&[b'#'; FRAME_BYTES_MAX + 1]), FrameRefusal::TooLong);
        assert_eq!(refused(b"###\n"), FrameRefusal::NoEnd);
        assert_eq!(refused(b"###\n%%%\n"), FrameRefusal::NoEnd);
        assert_eq!(refused(b"###\n%%%\n10:1 d9c61b8c"), FrameRefusal::NoEnd);
        assert_eq!(refused(b"###\n%%%\n11:1 d9c61b8c,"), FrameRefusal::NoEnd);
        assert_eq!(refused(b"###\n%%%\n10:1 d9c61b8c,more"), FrameRefusal::NoEnd);
        assert_eq!(refused(b"###\n%%%\n10:x d9c61b8c,"), FrameRefusal::Unsigned);
        assert_eq!(refused(b">>>\n"), FrameRefusal::NoEnd);
        assert_eq!(refused(b">>>\nt=x\n<<<"), FrameRefusal::NoEnd);
        assert_eq!(refused(b">>>\nt=x\n<<<\n"), FrameRefusal::Unsigned);
        assert_eq!(refused(b">>>\nauth=1\n<<<\n"), FrameRefusal::Unsigned);
    }

    #[test]
    fn fields_are_cut_by_their_lengths_alone() {
        let body = b"15:(0)a=1:(0),%%%\n,5:(1)b=,8:(4)c=\x00\xffx,11:(3)d=3:abc,,";
        let frame = signed(body);
        let fields = authenticate(&frame, &keys()).unwrap().fields().unwrap();
        let field = |kind, name, value: &'static [u8]| Field { kind, name, value: Cow::Borrowed(value) };
        let expected = [
            field(FieldKind::Text, "a", b"1:(0),%%%\n"),
            field(FieldKind::Binary, "b", b""),
            field(FieldKind::Compressed, "c", b"\x00\xffx"),
            field(FieldKind::List, "d", b"3:abc,"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn fields_out_of_form_are_refused() {
        let refused = |body: &[u8]| authenticate(&signed(body), &keys()).unwrap().fields().unwrap_err();
        for bounds in [
            "5(0)t=x,",
            "7:(0)t=x,",
            "6:(0)t=xx",
            "06:(0)t=x,",
            ":(0)t=x,",
            "99999999999999999999:,",
            "5:(0)t=,9",
        ] {
            assert_eq!(refused(bounds.as_bytes()), FrameRefusal::FieldBounds, "{bounds}");
        }
        assert_eq!(refused(b"6:(5)t=x,"), FrameRefusal::FieldKind);
        assert_eq!(refused(b"3:t=x,"), FrameRefusal::FieldKind);
        assert_eq!(refused(b"5:(0)=x,"), FrameRefusal::FieldName);
        assert_eq!(refused(b"5:(0)xx,"), FrameRefusal::FieldName);
        assert_eq!(refused(b"8:(0)a b=x,"), FrameRefusal::FieldName);
        assert_eq!(refused(b"9:(1)auth=x,"), FrameRefusal::FieldValue);
        assert_eq!(refused(&b"6:(0)a=x,".repeat(FIELDS_MAX + 1)), FrameRefusal::TooManyFields);
    }

    #[test]
    fn names_of_refusals_are_all_different() {
        let label = crate::framing::auth::KeyLabel { number: 1, method: AuthMethod::Crc };
        let all = [
            FrameRefusal::TooLong,
            FrameRefusal::NoFrame,
            FrameRefusal::NoEnd,
            FrameRefusal::Unsigned,
            FrameRefusal::Stamp(StampFault::Form),
            FrameRefusal::Stamp(StampFault::UnknownNumber { ours: label, theirs: label }),
            FrameRefusal::Stamp(StampFault::OtherSigning { ours: label, theirs: label }),
            FrameRefusal::Stamp(StampFault::OtherMethod { ours: label, theirs: label }),
            FrameRefusal::Stamp(StampFault::OtherKey { theirs: label }),
            FrameRefusal::Stamp(StampFault::Damaged),
            FrameRefusal::FieldBounds,
            FrameRefusal::FieldKind,
            FrameRefusal::FieldName,
            FrameRefusal::FieldValue,
            FrameRefusal::TooManyFields,
            FrameRefusal::NoType,
            FrameRefusal::NoSource,
            FrameRefusal::NodeName,
            FrameRefusal::NoTime,
        ];
        let names: alloc::collections::BTreeSet<_> = all.iter().map(|refusal| refusal.name()).collect();
        assert_eq!(names.len(), all.len());
    }
}
