//! Typing errors: finds the known word that an unknown one was meant to be.

/// From this length on, words may differ by two typing errors.
const LONG: usize = 6;

/// The word that was probably meant: it differs only in case and dashes, or by one letter; among long words also by
/// two.
pub(super) fn meant<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    one_apart(word, known.clone()).or_else(|| two_apart(word, known))
}

fn two_apart<'a>(word: &str, mut known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let is_long = |known: &&str| known.len() >= LONG && word.len() >= LONG;
    known.find(|known| is_long(known) && slips(known.as_bytes(), word.as_bytes()) <= 2)
}

/// The number of letters that are too many, too few or wrong (Levenshtein's distance).
fn slips(a: &[u8], b: &[u8]) -> usize {
    let mut row: alloc::vec::Vec<usize> = (0..=b.len()).collect();
    for (at, x) in a.iter().enumerate() {
        let mut before = row[0];
        row[0] = at + 1;
        for (to, y) in b.iter().enumerate() {
            let changed = before + usize::from(x != y);
            before = row[to + 1];
            row[to + 1] = changed.min(before + 1).min(row[to] + 1);
        }
    }
    row[b.len()]
}

fn one_apart<'a>(word: &str, mut known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    let word = word.bytes().map(plain).collect::<alloc::vec::Vec<_>>();
    known.find(|known| {
        let known = known.bytes().map(plain).collect::<alloc::vec::Vec<_>>();
        // Names of one or two letters are all one letter apart, so they are left out.
        known == word || (known.len() > 2 && is_one_slip(&known, &word))
    })
}

/// Whether the words differ by one letter that is too many, too few or wrong, or by two swapped letters.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let known = ["udpport", "ucast", "udp", "keepalive", "node", "warntime"];
        for (word, is) in [
            ("undport", Some("udpport")),
            ("updport", Some("udpport")),
            ("UCAST", Some("ucast")),
            ("keep-alive", Some("keepalive")),
            ("keepalieve", Some("keepalive")),
            ("keeaplvie", None),
            ("nodd", Some("node")),
            ("nonsense", None),
            ("xxxx", None),
        ] {
            assert_eq!(meant(word, known.into_iter()), is, "{word}");
        }
        assert_eq!([slips(b"", b"abc"), slips(b"kitten", b"sitting"), slips(b"a", b"a")], [3, 3, 0]);
    }
}
