//! Classic framing (serial lines, very old peers): `>>>`, one line per field, `<<<`, the stamp among the fields; and the
//! [`Cutter`] that finds such frames in a stream of bytes. Facts: `docs/wire.md`, sections 1.2 and 7.4.

use alloc::{borrow::Cow, vec::Vec};

use base64ct::{Base64, Encoding as _};

use super::{
    auth::ClaimedStamp,
    frame::{FRAME_BYTES_MAX, Field, FieldKind, FrameRefusal, field_name},
};

pub(crate) const OPEN: &[u8] = b">>>\n";
pub(crate) const CLOSE: &[u8] = b"<<<\n";
/// How the line of the stamp begins.
const AUTH: &[u8] = b"auth=";
/// Stands for a newline within a value.
const NEWLINE: u8 = 19;

/// Where the parts of a frame are.
pub(crate) struct ClassicBounds<'a> {
    /// The lines between the opening and the closing one.
    pub body: &'a [u8],
    /// The first `auth` line.
    pub stamp: ClaimedStamp<'a>,
}

/// Finds the body and the stamp of a frame.
pub(crate) fn find(bytes: &[u8]) -> Result<ClassicBounds<'_>, FrameRefusal> {
    let inside = bytes.strip_prefix(OPEN).ok_or(FrameRefusal::NoFrame)?;
    let inside = inside.strip_suffix(b"\0").unwrap_or(inside); // old senders end with a NUL
    let body = inside.strip_suffix(CLOSE).ok_or(FrameRefusal::NoEnd)?;
    if !matches!(body.last(), None | Some(b'\n')) {
        return Err(FrameRefusal::NoEnd);
    }
    let auth = lines(body).find_map(|line| line.strip_prefix(AUTH)).ok_or(FrameRefusal::Unsigned)?;
    let stamp = ClaimedStamp::read(&auth[..auth.len() - 1]).ok_or(FrameRefusal::Unsigned)?;
    Ok(ClassicBounds { body, stamp })
}

/// The lines that the stamp covers: all of the body but those of the stamp itself.
pub(crate) fn signed(body: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    lines(body).filter(|line| !line.starts_with(AUTH))
}

/// The lines of a body, each with its newline.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    body.split_inclusive(|&byte| byte == b'\n')
}

/// Cuts the first field off.
pub(crate) fn cut_field(bytes: &[u8]) -> Result<(Field<'_>, &[u8]), FrameRefusal> {
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(FrameRefusal::FieldBounds)?;
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    let (kind, named) = match *line {
        [b'(', digit, b')', ref named @ ..] => {
            // Text fields have no type digit here, so that one message has one form.
            let kind = FieldKind::from_digit(digit).filter(|&kind| kind != FieldKind::Text);
            (kind.ok_or(FrameRefusal::FieldKind)?, named)
        }
        _ => (FieldKind::Text, line),
    };
    let equals = named.iter().position(|&byte| byte == b'=').ok_or(FrameRefusal::FieldName)?;
    let name = field_name(&named[..equals])?;
    let value = &named[equals + 1..];
    if value.is_empty() {
        return Err(FrameRefusal::FieldValue);
    }
    let value = match kind {
        FieldKind::Binary | FieldKind::Compressed => {
            let text = core::str::from_utf8(value).map_err(|_| FrameRefusal::FieldValue)?;
            Cow::Owned(Base64::decode_vec(text).map_err(|_| FrameRefusal::FieldValue)?)
        }
        FieldKind::Text | FieldKind::List => replaced(value, NEWLINE, b'\n'),
        FieldKind::Struct => Cow::Borrowed(value),
    };
    Ok((Field { kind, name, value }, rest))
}

/// Writes one field. A field without a value is not possible in this framing and is left out.
pub(crate) fn put_field(out: &mut Vec<u8>, field: &Field<'_>) {
    if field.value.is_empty() {
        return;
    }
    if field.kind != FieldKind::Text {
        out.extend_from_slice(&[b'(', field.kind.digit(), b')']);
    }
    out.extend_from_slice(field.name.as_bytes());
    out.push(b'=');
    match field.kind {
        FieldKind::Text | FieldKind::List => out.extend_from_slice(&replaced(&field.value, b'\n', NEWLINE)),
        FieldKind::Binary | FieldKind::Compressed => {
            out.extend_from_slice(Base64::encode_string(&field.value).as_bytes());
        }
        FieldKind::Struct => out.extend_from_slice(&field.value),
    }
    out.push(b'\n');
}

fn replaced(value: &[u8], from: u8, to: u8) -> Cow<'_, [u8]> {
    if !value.contains(&from) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.iter().map(|&byte| if byte == from { to } else { byte }).collect())
}

/// Cuts classic frames out of a stream of bytes, as a serial line delivers them: in pieces of any size, with noise
/// between them, cut off anywhere. Keeps no more than [`FRAME_BYTES_MAX`] bytes.
///
/// ```
/// let mut cutter = locum_core::framing::classic::Cutter::default();
/// let mut bytes = b"noise>>>\nt=a\n<<<\n>>>\nt=".as_slice();
/// assert_eq!(cutter.cut(&mut bytes), Some(b">>>\nt=a\n<<<\n".as_slice()));
/// assert_eq!(cutter.cut(&mut bytes), None); // all read, the second frame is not whole yet
/// assert_eq!(cutter.skipped(), 5);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cutter {
    /// The frame so far, or the end of a line outside of frames.
    buffer: Vec<u8>,
    /// Where the current line begins in the buffer.
    line: usize,
    state: CutterState,
    skipped: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CutterState {
    #[default]
    Outside,
    Inside,
    /// The buffer was handed to the caller and is to be emptied.
    Given,
}

impl Cutter {
    /// Takes bytes from the front of `input` until a frame is whole. Call it again until it returns `None`: then all
    /// bytes are taken.
    pub fn cut(&mut self, input: &mut &[u8]) -> Option<&[u8]> {
        if self.state == CutterState::Given {
            self.start_outside();
        }
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.buffer.push(byte);
            match self.state {
                CutterState::Outside | CutterState::Given => self.outside(),
                CutterState::Inside => self.inside(byte),
            }
            if self.state == CutterState::Given {
                return Some(&self.buffer);
            }
        }
        None
    }

    /// The number of bytes so far that were not part of any frame.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Noise without a newline may stand before an opening line, so a line need only end like one.
    fn outside(&mut self) {
        if self.buffer.ends_with(OPEN) {
            self.start_inside();
        } else if self.buffer.len() == OPEN.len() {
            self.buffer.remove(0);
            self.skipped += 1;
        }
    }

    fn inside(&mut self, byte: u8) {
        if byte == b'\n' {
            match &self.buffer[self.line..] {
                CLOSE => self.state = CutterState::Given,
                OPEN => self.start_inside(), // the end of the frame before was lost
                _ => self.line = self.buffer.len(),
            }
        }
        if self.state == CutterState::Inside && self.buffer.len() == FRAME_BYTES_MAX {
            self.skipped += FRAME_BYTES_MAX as u64;
            self.start_outside();
        }
    }

    /// The buffer ends with an opening line; the bytes before it are not a frame.
    fn start_inside(&mut self) {
        self.skipped += (self.buffer.len() - OPEN.len()) as u64;
        self.buffer.clear();
        self.buffer.extend_from_slice(OPEN);
        self.line = self.buffer.len();
        self.state = CutterState::Inside;
    }

    fn start_outside(&mut self) {
        self.buffer.clear();
        self.line = 0;
        self.state = CutterState::Outside;
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec};

    use proptest::prelude::*;

    use super::*;

    fn frames(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, u64) {
        let mut cutter = Cutter::default();
        let mut frames = vec![];
        for mut piece in pieces.iter().copied() {
            while let Some(frame) = cutter.cut(&mut piece) {
                frames.push(frame.to_vec());
            }
        }
        (frames, cutter.skipped())
    }

    #[test]
    fn frames_are_found_again_after_every_damage() {
        let good = b">>>\nt=a\n<<<\n".as_slice();
        let expect = |input: &[u8], count, skipped| {
            assert_eq!(frames(&[input]), (vec![good.to_vec(); count], skipped), "{}", input.escape_ascii());
        };
        expect(&good.repeat(3), 3, 0);
        expect(&[b"no\x00ise", good].concat(), 1, 6);
        expect(&[b"t=b\n<<<\n", good].concat(), 1, 8); // began in the middle
        expect(&[b">>>\nt=b\n", good].concat(), 1, 8); // the end was lost
        let damaged = [b">>>\nt=b\n<<", good].concat(); // two frames look like one, which no stamp fits
        assert_eq!(frames(&[&damaged, good]), (vec![damaged.clone(), good.to_vec()], 0));
        let endless = [OPEN, &vec![b'x'; FRAME_BYTES_MAX]].concat();
        expect(&[&endless, b"\n".as_slice(), good].concat(), 1, FRAME_BYTES_MAX as u64 + 5);
    }

    #[test]
    fn a_cutter_keeps_little() {
        let mut cutter = Cutter::default();
        let mut noise = [b">>>\n".as_slice(), &vec![b'\n'; 200_000]].concat();
        noise.extend_from_slice(&vec![b'x'; 200_000]);
        assert_eq!(cutter.cut(&mut noise.as_slice()), None);
        assert!(cutter.buffer.len() <= FRAME_BYTES_MAX, "{}", cutter.buffer.len());
    }

    #[test]
    fn values_are_written_so_that_they_fit_on_a_line() {
        let field = |kind, name, value: &'static [u8]| Field { kind, name, value: Cow::Borrowed(value) };
        for (field, line) in [
            (field(FieldKind::Text, "info", b"two\nlines"), "info=two\x13lines\n"),
            (field(FieldKind::Binary, "u", b"\x00\xff"), "(1)u=AP8=\n"),
            (field(FieldKind::List, "l", b"1:a,"), "(3)l=1:a,\n"),
            (field(FieldKind::Struct, "s", b">>>\x14t=a\x14<<<\x14"), "(2)s=>>>\x14t=a\x14<<<\x14\n"),
        ] {
            let mut out = vec![];
            put_field(&mut out, &field);
            assert_eq!(String::from_utf8(out.clone()).unwrap(), line);
            assert_eq!(cut_field(&out), Ok((field, b"".as_slice())));
        }
        for (line, refusal) in [
            ("info=\n", FrameRefusal::FieldValue),
            ("(1)u=AP8\n", FrameRefusal::FieldValue),
            ("(0)t=x\n", FrameRefusal::FieldKind),
            ("(9)t=x\n", FrameRefusal::FieldKind),
            ("t\n", FrameRefusal::FieldName),
            ("\n", FrameRefusal::FieldName),
            ("t=x", FrameRefusal::FieldBounds),
        ] {
            assert_eq!(cut_field(line.as_bytes()), Err(refusal), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stream_may_come_in_any_pieces(cuts in proptest::collection::vec(0_usize..60, 0..6)) {
            let stream = b"x>>>\nt=a\n<<<\ny\n>>>\n>>>\nt=b\nu=c\n<<<\n<<<\n>>>\nt=c\n<<<\n";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(frames(&pieces), frames(&[stream]));
        }
    }
}
