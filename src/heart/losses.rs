//! `OnlyForTesting` of the configuration directory: frames that are dropped on purpose, as heartbeat's own test suite
//! asks for it (`docs/wire.md`, section 9). Lines `rcvloss=0.1`, `xmitloss=0.1` (parts of all frames) and
//! `allownodes=a;b;` (frames of all others are not heard); `seed=7`, which heartbeat does not know, makes it repeatable.

use std::sync::Arc;

use locum_core::model::note::Escaped;

/// Decides whether each frame passes.
#[derive(Clone, Debug)]
pub struct Losses {
    /// How many of a thousand million frames are lost on arrival.
    receive: u64,
    /// How many of a thousand million frames are lost on departure.
    send: u64,
    /// The nodes whose frames are heard; `None`: all.
    nodes: Option<Vec<String>>,
    seed: u64,
    dice: u64,
    /// The last frame for which the dice were thrown, and whether it passes: it is lost on all its links or on none.
    thrown: Option<(Arc<[u8]>, bool)>,
}

const ALL: u64 = 1_000_000_000;

impl Losses {
    /// Reads the file's text; `chance` is the seed if no line sets one.
    ///
    /// # Errors
    /// The first line that cannot be read, in words.
    pub fn parse(text: &str, chance: u64) -> Result<Self, String> {
        let mut losses = Self { receive: 0, send: 0, nodes: None, seed: chance, dice: 1, thrown: None };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = || format!("`{}` has no meaning here", Escaped(line.as_bytes()));
            let (name, value) = line.split_once('=').ok_or_else(wrong)?;
            match (name.trim(), value.trim()) {
                ("rcvloss", part) => losses.receive = share(part).ok_or_else(wrong)?,
                ("xmitloss", part) => losses.send = share(part).ok_or_else(wrong)?,
                ("allownodes", names) => {
                    let names = names.split(';').map(|name| name.trim().to_lowercase());
                    losses.nodes = Some(names.filter(|name| !name.is_empty()).collect());
                }
                ("seed", number) => losses.seed = number.parse().map_err(|_| wrong())?,
                _ => return Err(wrong()),
            }
        }
        losses.dice = losses.seed | 1;
        Ok(losses)
    }

    /// Whether an incoming frame is heard.
    pub(super) fn hears(&mut self, frame: &[u8]) -> bool {
        if self.throws(self.receive) {
            return false;
        }
        let Some(nodes) = &self.nodes else { return true };
        // It is looked for as text, before the frame is authenticated: the worst result is a loss.
        sender(frame).is_none_or(|name| nodes.iter().any(|node| node.as_bytes().eq_ignore_ascii_case(name)))
    }

    /// Whether a frame goes out. The same bytes have the same fate on every link.
    pub(super) fn sends(&mut self, frame: &Arc<[u8]>) -> bool {
        if let Some((thrown, passes)) = &self.thrown
            && Arc::ptr_eq(thrown, frame)
        {
            return *passes;
        }
        let passes = !self.throws(self.send);
        self.thrown = Some((Arc::clone(frame), passes));
        passes
    }

    /// Throws a die that says yes with this chance.
    fn throws(&mut self, chance: u64) -> bool {
        // xorshift64*: nothing secret depends on it.
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        (self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % ALL < chance
    }
}

/// What is done to the frames, for the log.
impl std::fmt::Display for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let part = |share: u64| share as f64 / ALL as f64;
        write!(f, "rcvloss {}, xmitloss {}, ", part(self.receive), part(self.send))?;
        match &self.nodes {
            None => f.write_str("all nodes heard")?,
            Some(nodes) => write!(f, "only [{}] heard", Escaped(nodes.join(" ").as_bytes()))?,
        }
        write!(f, ", seed {}", self.seed)
    }
}

fn share(text: &str) -> Option<u64> {
    let part: f64 = text.parse().ok().filter(|part| (0.0..=1.0).contains(part))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1")]
    Some((part * 1e9).round() as u64)
}

/// The field `src` of a frame in either framing: `(0)src=name,` or a line `src=name`.
fn sender(frame: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"src=";
    let begins = |at: &usize| {
        frame[*at..].starts_with(NAME)
            && matches!(at.checked_sub(1).map(|before| frame[before]), Some(b')' | b'\n'))
    };
    let at = (0..frame.len()).find(begins)? + NAME.len();
    let end = frame[at..].iter().position(|byte| matches!(byte, b',' | b'\n' | b'\r'))?;
    Some(&frame[at..at + end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: &[u8] = b"###\n8:(0)t=status,17:(0)src=clustnode1,%%%\n";
    const SERIAL: &[u8] = b">>>\nt=status\nsrc=clustnode2\n<<<\n";

    #[test]
    fn parts_are_lost_as_configured_and_repeatably() {
        let text = "# for a test\nrcvloss=0.25\nxmitloss = 0.5\nseed=7\n";
        let play = || {
            let mut losses = Losses::parse(text, 1).unwrap();
            let heard = (0..10_000).filter(|_| losses.hears(UDP)).count();
            let sent = (0..10_000).filter(|_| losses.sends(&Arc::from(UDP))).count();
            (heard, sent)
        };
        let (heard, sent) = play();
        assert!((7_300..7_700).contains(&heard) && (4_800..5_200).contains(&sent), "{heard} {sent}");
        assert_eq!(play(), (heard, sent));
        let mut none = Losses::parse("rcvloss=1\nxmitloss=0\n", 1).unwrap();
        assert!((0..1000).all(|_| !none.hears(UDP) && none.sends(&Arc::from(UDP))));
    }

    #[test]
    fn a_frame_has_one_fate_on_all_links() {
        let mut losses = Losses::parse("xmitloss=0.5\n", 3).unwrap();
        for _ in 0..100 {
            let frame: Arc<[u8]> = Arc::from(UDP);
            let first = losses.sends(&frame);
            assert!((0..5).all(|_| losses.sends(&frame) == first));
        }
    }

    #[test]
    fn only_allowed_nodes_are_heard() {
        let mut losses = Losses::parse("allownodes=ClustNode1;other;\n", 1).unwrap();
        assert!(losses.hears(UDP) && !losses.hears(SERIAL));
        // Bytes without a sender are not a frame of another node.
        assert!(losses.hears(b"") && losses.hears(b"noise xsrc=y,"));
        assert_eq!(losses.to_string(), "rcvloss 0, xmitloss 0, only [clustnode1 other] heard, seed 1");
    }

    #[test]
    fn unreadable_lines_are_reported() {
        for text in
            ["rcvloss", "rcvloss=2", "rcvloss=x", "xmitloss=-1", "seed=x", "nonsense=1", "xmitloss=nan"]
        {
            assert!(Losses::parse(text, 1).unwrap_err().contains("has no meaning here"), "{text}");
        }
    }
}
