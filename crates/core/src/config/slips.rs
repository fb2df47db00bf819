//! Slips of the pen: which known word was meant by an unknown one.

/// The word that was probably meant: the same but for case and dashes, or one letter apart.
pub(super) fn meant<'a>(word: &str, mut known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    let word = word.bytes().map(plain).collect::<alloc::vec::Vec<_>>();
    known.find(|known| {
        let known = known.bytes().map(plain).collect::<alloc::vec::Vec<_>>();
        // Among names of one or two letters everything is one slip from everything.
        known == word || (known.len() > 2 && is_one_slip(&known, &word))
    })
}

/// Whether one letter too many, too few or wrong makes the difference, or two that changed places.
fn is_one_slip(a: &[u8], b: &[u8]) -> bool {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[same..], &b[same..]);
    match (a, b) {
        ([_, x @ ..], [_, y @ ..]) if x == y => true,
        ([_, x @ ..], y) | (y, [_, x @ ..]) if x == y => true,
        ([a1, a2, x @ ..], [b1, b2, y @ ..]) => a1 == b2 && a2 == b1 && x == y,
        _ => false,
    }
}
