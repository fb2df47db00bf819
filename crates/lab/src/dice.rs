//! Random numbers from a seed: the same seed gives the same numbers on every machine.

/// The generator `SplitMix64` (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0xA076_1D64_78BD_642F))
    }

    /// True in the given share of calls: 0 is never, 1 is always.
    pub(crate) fn throw(&mut self, share: f64) -> bool {
        self.fraction() < share
    }

    /// A random number, evenly distributed from 0 to below 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        // 53 bits: as many as an f64 holds exactly.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_throws_and_the_same_ones_each_time() {
        let throws = |seed| {
            let mut dice = Dice::new(seed, 3);
            (0..10_000).map(|_| dice.throw(0.2)).collect::<Vec<_>>()
        };
        let hits = throws(7).into_iter().filter(|&hit| hit).count();
        assert!((1_850..2_150).contains(&hits), "{hits}");
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
        let mut dice = Dice::new(1, 1);
        assert!((0..1000).all(|_| !dice.throw(0.0)) && (0..1000).all(|_| dice.throw(1.0)));
    }
}
