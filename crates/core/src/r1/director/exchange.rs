//! Sends the lines of a node's files to the other node: all lines as one text, in pieces that fit into a status. A
//! piece follows as soon as the other node knows everything before it. A line that has not been sent yet is unknown; it
//! never counts as missing.

use super::*;
use crate::r1::{message::Piece, plan::R1Medium};

/// Most bytes of a piece: with the rest of the status it fits into an Ethernet datagram.
const PIECE_BYTES_MAX: usize = 1000;
/// Fewest bytes of a piece: a slower line carries no beats either.
const PIECE_BYTES_MIN: usize = 64;
/// Most bytes of a text; no `haresources` needs more.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// Ends each line of a text.
const END: char = '&';
/// Bits on a serial line per byte.
const BITS_A_BYTE: u128 = 10;

/// Encodes lines in printable ASCII, as a browser encodes a form. Nothing is lost.
pub(super) fn text_of(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        for byte in line.bytes() {
            match byte {
                b' ' => text.push('+'),
                b'%' | b'+' | b'&' => text += &format!("%{byte:02x}"),
                b'!'..=b'~' => text.push(char::from(byte)),
                _ => text += &format!("%{byte:02x}"),
            }
        }
        text.push(END);
    }
    text
}

/// Decodes one line; accepts any text.
fn line_of(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let escaped = || u8::from_str_radix(rest.get(1..3)?, 16).ok();
        let (byte, length) = match letter {
            '+' => (Some(b' '), 1),
            '%' => (escaped(), 3),
            _ => (None, 1),
        };
        let length = if byte.is_some() { length } else { letter.len_utf8() };
        match byte {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(&rest.as_bytes()[..length]),
        }
        rest = &rest[length..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The piece that begins at `at`; `None` at the end. `text` is ASCII.
pub(super) fn piece(text: &str, at: u64, bytes_max: usize) -> Option<Piece> {
    let of = u64::try_from(text.len()).ok().filter(|of| *of <= TEXT_BYTES_MAX)?;
    let begin = usize::try_from(at).ok()?;
    let rest = text.get(begin..).filter(|rest| !rest.is_empty())?;
    Some(Piece { at, of, text: rest[..rest.len().min(bytes_max)].into() })
}

/// What the other node has sent of its text.
#[derive(Debug, Default)]
pub(super) struct ReceivedText {
    /// Bytes known so far.
    known: u64,
    /// Bytes of the whole text, once known.
    of: Option<u64>,
    /// The last, still incomplete line.
    begun: String,
    /// The complete lines received so far.
    pub(super) lines: Vec<String>,
}

impl ReceivedText {
    /// Takes a piece. Returns whether it was the next one.
    pub(super) fn hear(&mut self, piece: &Piece) -> bool {
        let end = u64::try_from(piece.text.len()).ok().and_then(|length| piece.at.checked_add(length));
        let Some(end) = end else { return false };
        let is_next = piece.at == self.known && piece.at < end && end <= piece.of;
        if !is_next || piece.of > TEXT_BYTES_MAX || self.of.is_some_and(|of| of != piece.of) {
            return false;
        }
        (self.known, self.of) = (end, Some(piece.of));
        let mut parts = piece.text.split(END);
        self.begun += parts.next().unwrap_or_default();
        for part in parts {
            self.lines.push(line_of(&core::mem::take(&mut self.begun)));
            self.begun += part;
        }
        true
    }

    /// The offset of the next piece; `None` when all is known.
    pub(super) fn wants(&self) -> Option<u64> {
        (self.of != Some(self.known)).then_some(self.known)
    }

    /// How much of the text is known, in percent.
    pub(super) fn percent(&self) -> u64 {
        self.of.map_or(0, |of| self.known.saturating_mul(100) / of.max(1))
    }
}

/// How many bytes one status carries, and how often, while lines are being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TellingPace {
    bytes_max: usize,
    pub(super) every: Duration,
}

impl TellingPace {
    /// Most bytes of a piece in a status with `taken` bytes of other lists.
    pub(super) fn beside(self, taken: usize) -> usize {
        self.bytes_max.saturating_sub(taken).max(PIECE_BYTES_MIN)
    }

    /// The pace that all links can carry. A serial line must also carry the beats, so pieces get half of its capacity
    /// between two of them. Other links carry more.
    pub(super) fn of(plan: &R1Plan) -> Self {
        let keepalive = plan.timing.keepalive;
        let bauds = plan.links.iter().flat_map(|link| &link.media).filter_map(|medium| match medium {
            R1Medium::Serial { baud, .. } => Some(*baud),
            _ => None,
        });
        match bauds.min() {
            None => Self { bytes_max: PIECE_BYTES_MAX, every: keepalive.min(BEAT_MIN) },
            Some(baud) => {
                let bits = u128::from(baud) * keepalive.as_nanos() / 1_000_000_000;
                let bytes = usize::try_from(bits / BITS_A_BYTE / 2).unwrap_or(PIECE_BYTES_MAX);
                Self { bytes_max: bytes.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX), every: keepalive }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec as many, prelude::*};

    use super::*;

    /// Sends all lines in pieces of these sizes, again and again.
    fn exchanged(lines: &[String], sizes: &[usize]) -> Vec<String> {
        let text = text_of(lines);
        let mut told = ReceivedText::default();
        let mut sizes = sizes.iter().cycle();
        while let Some(at) = told.wants() {
            let piece = piece(&text, at, *sizes.next().unwrap()).unwrap();
            assert!(piece.text.bytes().all(|byte| matches!(byte, b'!'..=b'~')));
            let known = told.lines.len();
            assert!(told.hear(&piece));
            assert!(!told.hear(&piece), "the same one again");
            assert_eq!(told.lines[known..], lines[known..told.lines.len()], "what is told is so");
        }
        assert_eq!(piece(&text, told.known, 1), None);
        told.lines
    }

    proptest! {
        #[test]
        fn whatever_the_lines_and_the_pieces_all_of_it_comes(
            lines in many(".{0,40}|[ -~]{0,3000}|[%+&a]{0,9}", 1..60),
            sizes in many(1_usize..1500, 1..5),
        ) {
            prop_assert_eq!(exchanged(&lines, &sizes), lines);
        }

        #[test]
        fn any_text_is_a_line(text in "([%+]|.){0,20}") {
            let _ = line_of(&text);
        }

        /// A peer that sends nonsense ends nothing, and nothing counts as known that it has not sent.
        #[test]
        fn pieces_out_of_place_are_none(
            pieces in many((0_u64..40, 0_u64..60, "[ -~]{0,20}"), 0..40),
        ) {
            let mut told = ReceivedText::default();
            for (at, of, text) in pieces {
                let length = u64::try_from(text.len()).unwrap();
                let before = told.known;
                let is_news = told.hear(&Piece { at, of, text });
                prop_assert_eq!(told.known, if is_news { at + length } else { before });
                prop_assert!(told.of.is_none_or(|of| told.known <= of));
            }
        }
    }

    /// As many lines as a file of the largest size has, and as long a line, of letters that take the most room.
    #[test]
    fn the_largest_file_is_told() {
        const FILE: usize = 1 << 20;
        let many: Vec<String> = (0..FILE / 4).map(|n| format!("haresources {} = n x", n + 1)).collect();
        assert!(exchanged(&many, &[PIECE_BYTES_MAX]) == many);
        let long = [format!("haresources 1 = n {}", "\u{fc}".repeat(FILE / 2))];
        assert!(exchanged(&long, &[PIECE_BYTES_MAX]) == long);
        let most = u64::try_from(text_of(&many).len().max(text_of(&long).len())).unwrap();
        assert!(most < TEXT_BYTES_MAX);
    }
}
