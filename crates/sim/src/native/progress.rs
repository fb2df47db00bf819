//! The progress of a long run of seeds, kept in a file: the run can be stopped at any moment and resumes where it was.
//! The counts do not depend on the number of threads.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::Path,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{
    faults::KINDS,
    scenario::{Counts, check},
};

const HEAD: &str = "locum-seeds 2";

/// Progress of a run: the seeds from `first` up to, not including, `next` are played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The first seed of the run.
    pub first: u64,
    pub next: u64,
    pub counts: Counts,
    /// CPU time that all threads together used.
    pub busy: Duration,
    pub failed: Vec<u64>,
}

impl Progress {
    /// Progress of a run that has not played any seed yet.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { first, next: first, counts: Counts::default(), busy: Duration::ZERO, failed: Vec::new() }
    }

    /// Resumes the run of a file, or begins a new one if the file does not exist.
    ///
    /// # Errors
    /// The file cannot be read, or belongs to another run. The text says what to do then.
    pub fn read(file: &Path, first: u64) -> Result<Self, String> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(first)),
            Err(error) => return Err(format!("{} cannot be read: {error}", file.display())),
            Ok(text) => text,
        };
        let cure = "name another file, or remove it to begin a new run";
        let progress = Self::parse(&text)
            .ok_or_else(|| format!("{} is not a state file of locum-seeds; {cure}", file.display()))?;
        if progress.first != first {
            let began = progress.first;
            return Err(format!(
                "{} belongs to a run from seed {began}, not from {first}; {cure}",
                file.display()
            ));
        }
        Ok(progress)
    }

    /// Writes the file. If the process is stopped meanwhile, either the old file or the new one is left.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let new = file.with_extension("new");
        fs::write(&new, self.to_string())?;
        fs::rename(new, file)
    }

    /// Plays up to, not including, `end` with `jobs` threads. `on_core` returns the CPU time of the calling thread.
    /// `played` is called after each seed, in their order, with the report if it failed.
    ///
    /// # Errors
    /// The error of `played`; the remaining seeds are not played.
    pub fn play<E>(
        &mut self,
        end: u64,
        jobs: usize,
        on_core: impl Fn() -> Duration + Sync,
        mut played: impl FnMut(&Self, Option<&str>) -> Result<(), E>,
    ) -> Result<(), E> {
        let next = AtomicU64::new(self.next);
        let (results, early) = mpsc::channel();
        let work = |results: mpsc::Sender<_>| {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let before = on_core();
                let is_wanted =
                    seed < end && results.send((seed, check(seed), on_core().saturating_sub(before))).is_ok();
                if !is_wanted {
                    break;
                }
            }
        };
        thread::scope(|scope| {
            // Moved in, so that the threads end when the receiver is dropped.
            let early = early;
            let work = &work;
            for _ in 0..jobs {
                let results = results.clone();
                scope.spawn(move || work(results));
            }
            drop(results);
            let mut waiting = BTreeMap::new();
            for (seed, result, busy) in early {
                waiting.insert(seed, (result, busy));
                while let Some((result, busy)) = waiting.remove(&self.next) {
                    self.next += 1;
                    self.busy += busy;
                    match &result {
                        Ok(counts) => self.counts.add(counts),
                        Err(_) => self.failed.push(self.next - 1),
                    }
                    played(self, result.err().as_deref())?;
                }
            }
            Ok(())
        })
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
        // Older files do not count scenarios with two owners.
        let (tales, millis, with_takeover, digest, with_two_owners) = match numbers("tales")?[..] {
            [tales, millis, takeovers, digest] => (tales, millis, takeovers, digest, 0),
            [tales, millis, takeovers, digest, both] => (tales, millis, takeovers, digest, both),
            _ => return None,
        };
        let kinds: [u64; KINDS.len()] = numbers("kinds")?.try_into().ok()?;
        let [busy] = numbers("busy")?[..] else { return None };
        let counts = Counts { scenarios: tales, millis, with_takeover, with_two_owners, kinds, digest };
        let failed = numbers("failed")?;
        (first <= next).then(|| Self { first, next, counts, busy: Duration::from_millis(busy), failed })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { scenarios: tales, millis, with_takeover, with_two_owners, kinds, digest } = self.counts;
        let words = |numbers: &[u64]| numbers.iter().map(|number| format!(" {number}")).collect::<String>();
        writeln!(f, "{HEAD}\nseeds {} {}", self.first, self.next)?;
        writeln!(
            f,
            "tales {tales} {millis} {with_takeover} {digest} {with_two_owners}\nkinds{}",
            words(&kinds)
        )?;
        writeln!(f, "busy {}\nfailed{}", self.busy.as_millis(), words(&self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stopped_goes_on_and_comes_to_the_same() {
        let file = std::env::temp_dir().join(format!("locum-seeds-{}", std::process::id()));
        let play = |mut progress: Progress, end: u64, jobs: usize| {
            let good =
                |_: &Progress, report: Option<&str>| report.map_or(Ok(()), |text| Err(text.to_owned()));
            progress.play(end, jobs, || Duration::ZERO, good).expect("these seeds are good");
            progress
        };
        let at_once = play(Progress::new(3), 7, 1);
        play(Progress::read(&file, 3).expect("there is none"), 5, 2).write(&file).expect("a file");
        let again = play(Progress::read(&file, 3).expect("a state"), 7, 3);
        let other = Progress::read(&file, 4);
        fs::write(&file, "5\n").expect("a file");
        let foreign = Progress::read(&file, 3);
        fs::remove_file(&file).expect("a file");
        assert_eq!(at_once, again);
        assert_eq!(again.counts.scenarios, 4);
        assert!(other.is_err_and(|text| text.contains("from seed 3, not from 4")));
        assert!(foreign.is_err_and(|text| text.contains("not a state file of locum-seeds")));
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
