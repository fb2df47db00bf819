//! How far a long run of seeds has come, as a file: it can be stopped at any moment and goes on where it was.

use std::{fmt, fs, io, path::Path, time::Duration};

use super::{
    faults::KINDS,
    tale::{Counts, check},
};

/// The first line of the file.
const HEAD: &str = "locum-seeds 1";

/// Seeds from `first` up to `next` are played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where the run began.
    pub first: u64,
    /// The seed to play next.
    pub next: u64,
    /// What was counted.
    pub counts: Counts,
    /// For how long the machine was busy with it.
    pub busy: Duration,
    /// The seeds that failed.
    pub failed: Vec<u64>,
}

impl Progress {
    /// Nothing is played yet.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { first, next: first, counts: Counts::default(), busy: Duration::ZERO, failed: Vec::new() }
    }

    /// Goes on where a file says, or begins if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is none of this run, and what to do then.
    pub fn read(file: &Path, first: u64) -> Result<Self, String> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(first)),
            Err(error) => return Err(format!("{} cannot be read: {error}", file.display())),
            Ok(text) => text,
        };
        let cure = "name another file, or remove it to begin anew";
        let progress = Self::parse(&text)
            .ok_or_else(|| format!("{} is no state of locum-seeds; {cure}", file.display()))?;
        if progress.first != first {
            let began = progress.first;
            return Err(format!(
                "{} belongs to a run from seed {began}, not from {first}; {cure}",
                file.display()
            ));
        }
        Ok(progress)
    }

    /// Writes the file; a stop at any moment leaves the old one or the new one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let new = file.with_extension("new");
        fs::write(&new, self.to_string())?;
        fs::rename(new, file)
    }

    /// Plays one more; what is wrong with it, if it fails.
    pub fn step(&mut self) -> Result<(), String> {
        let seed = self.next;
        self.next += 1;
        let counts = check(seed).inspect_err(|_| self.failed.push(seed))?;
        self.counts.add(&counts);
        Ok(())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut numbers = |name: &str| -> Option<Vec<u64>> {
            let mut words = lines.next()?.split(' ');
            (words.next() == Some(name)).then(|| words.map(|word| word.parse().ok()).collect())?
        };
        let [first, next] = numbers("seeds")?[..] else { return None };
        let [tales, millis, with_takeover] = numbers("tales")?[..] else { return None };
        let kinds: [u64; KINDS.len()] = numbers("kinds")?.try_into().ok()?;
        let [busy] = numbers("busy")?[..] else { return None };
        let counts = Counts { tales, millis, with_takeover, kinds };
        let failed = numbers("failed")?;
        (first <= next).then(|| Self { first, next, counts, busy: Duration::from_millis(busy), failed })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { tales, millis, with_takeover, kinds } = self.counts;
        let words = |numbers: &[u64]| numbers.iter().map(|number| format!(" {number}")).collect::<String>();
        writeln!(f, "{HEAD}\nseeds {} {}", self.first, self.next)?;
        writeln!(f, "tales {tales} {millis} {with_takeover}\nkinds{}", words(&kinds))?;
        writeln!(f, "busy {}\nfailed{}", self.busy.as_millis(), words(&self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stopped_goes_on_and_comes_to_the_same() {
        let file = std::env::temp_dir().join(format!("locum-seeds-{}", std::process::id()));
        let play = |mut progress: Progress, end: u64| {
            while progress.next < end {
                progress.step().expect("these seeds are good");
            }
            progress
        };
        let at_once = play(Progress::new(3), 7);
        play(Progress::read(&file, 3).expect("there is none"), 5).write(&file).expect("a file");
        let again = play(Progress::read(&file, 3).expect("a state"), 7);
        let other = Progress::read(&file, 4);
        fs::write(&file, "5\n").expect("a file");
        let foreign = Progress::read(&file, 3);
        fs::remove_file(&file).expect("a file");
        assert_eq!(at_once, again);
        assert_eq!(again.counts.tales, 4);
        assert!(other.is_err_and(|text| text.contains("from seed 3, not from 4")));
        assert!(foreign.is_err_and(|text| text.contains("no state of locum-seeds")));
    }

    #[test]
    fn the_file_says_all() {
        let mut progress = Progress::new(7);
        progress.next = 12;
        progress.counts.kinds[2] = 9;
        progress.busy = Duration::from_millis(1500);
        progress.failed = vec![8, 9];
        assert_eq!(Progress::parse(&progress.to_string()), Some(progress));
    }
}
