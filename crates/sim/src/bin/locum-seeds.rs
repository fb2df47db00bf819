//! `cargo seeds FROM TO [STATE] [--jobs N]`: plays random native scenarios and reports how many simulated
//! cluster-minutes they were. With a state file, a run can be stopped at any moment and resumes where it was. A seed
//! that fails is shortened and printed. Seeds from 4294967296 on are clusters of two nodes without a witness.
//!
//! `cargo seeds --scale`: measures the traffic of clusters with many nodes and groups, and its cost.
//!
//! `cargo seeds --rate`: measures how many simulated cluster-minutes one core plays in a second (three nodes, pace 1
//! s).

use std::{
    env, fs,
    io::{IsTerminal as _, Write as _, stderr, stdout},
    num::NonZero,
    path::PathBuf,
    process::ExitCode,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use locum_sim::native::{faults::KINDS, progress::Progress, rate};

const USAGE: &str = "usage: locum-seeds FROM TO [STATE] [--jobs N]: plays the seeds from FROM up to, not including, TO, \
                     with N threads (all cores)\n       locum-seeds --rate: measures this machine\n       locum-seeds \
                     --scale: measures many nodes and groups";
/// How often the state file is written and the progress bar drawn.
const SAVED_EVERY: Duration = Duration::from_millis(500);
/// Simulated minutes that [`rate`] measures, after one minute in which the cluster settles.
const RATE_MINUTES: u64 = 1000;

/// The cluster sizes that [`measure_scale`] reports.
const SCALE_NODES: [u64; 3] = [2, 8, 32];
const SCALE_GROUPS: [u64; 3] = [1, 100, 1000];
/// How long each cluster is measured, at rest and after a death, in simulated milliseconds.
const SCALE_MILLIS: u64 = 9_000;
const SCALE_TAKEOVER_MILLIS: u64 = 3_000;

struct Wanted {
    first: u64,
    end: u64,
    state: Option<PathBuf>,
    jobs: usize,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let measure: Option<fn()> = match &words[..] {
        [word] if word == "--rate" => Some(measure_rate),
        [word] if word == "--scale" => Some(measure_scale),
        _ => None,
    };
    if let Some(measure) = measure {
        measure();
        return ExitCode::SUCCESS;
    }
    let Some(wanted) = read(words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&wanted) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

fn read(mut words: Vec<String>) -> Option<Wanted> {
    let mut jobs = thread::available_parallelism().map_or(1, NonZero::get);
    if let Some(at) = words.iter().position(|word| word == "--jobs") {
        jobs = words.get(at + 1)?.parse().ok().filter(|jobs| (1..=1024).contains(jobs))?;
        words.drain(at..at + 2);
    }
    let number = |at: usize| words.get(at)?.parse().ok();
    let (first, end) = (number(0)?, number(1)?);
    (words.len() <= 3).then(|| Wanted { first, end, state: words.get(2).map(PathBuf::from), jobs })
}

/// Returns whether no seed failed.
fn run(wanted: &Wanted) -> Result<bool, String> {
    let Wanted { first, end, ref state, jobs } = *wanted;
    let mut progress =
        state.as_deref().map_or_else(|| Ok(Progress::new(first)), |file| Progress::read(file, first))?;
    let mut saved = now();
    progress.play(end, jobs, time_on_core, |progress, report| {
        if let Some(report) = report {
            say(&format!("{report}\n"));
        }
        if saved.elapsed() >= SAVED_EVERY || progress.next == end {
            saved = now();
            if let Some(file) = state {
                let cannot = |error| format!("{} cannot be written: {error}", file.display());
                progress.write(file).map_err(cannot)?;
            }
            draw(progress, end);
        }
        Ok::<(), String>(())
    })?;
    say(&summary(&progress));
    Ok(progress.failed.is_empty())
}

fn measure_rate() {
    let mut steady = rate::Steady::new(3, 3, false);
    let before = time_on_core();
    steady.pass(RATE_MINUTES * 60_000);
    let seconds = time_on_core().saturating_sub(before).as_secs_f64();
    say(&format!(
        "three nodes, pace 1 s: {RATE_MINUTES} simulated cluster-minutes in {seconds:.2} s of one core: {:.0} a second\n",
        RATE_MINUTES as f64 / seconds
    ));
}

/// Measures a cluster at rest, and while the groups of a dead node are taken over.
fn measure_scale() {
    say("pace 1 s; of each node in a second; CPU is that of the whole simulator\n");
    say("nodes groups          frames sent  bytes of one  frames heard  kB heard   CPU us\n");
    for nodes in SCALE_NODES {
        for groups in SCALE_GROUPS {
            let mut steady = rate::Steady::new(nodes, groups, true);
            let before = time_on_core();
            let load = steady.load(SCALE_MILLIS);
            row(nodes, groups, "at rest", &load, SCALE_MILLIS, time_on_core().saturating_sub(before), nodes);
            let (traffic, before) = (steady.traffic(), time_on_core());
            let lost = steady.lose_an_owner();
            let waited = steady.wait_for_owners();
            steady.pass(SCALE_TAKEOVER_MILLIS.saturating_sub(waited));
            let millis = waited.max(SCALE_TAKEOVER_MILLIS);
            let load = steady.load_since(traffic, millis);
            row(nodes, groups, "takeover", &load, millis, time_on_core().saturating_sub(before), nodes - 1);
            say(&format!("             {lost} groups owned again after {waited} ms\n"));
        }
    }
}

fn row(nodes: u64, groups: u64, what: &str, load: &rate::Load, millis: u64, busy: Duration, alive: u64) {
    let rate::Load { frames, frame_bytes, copies, copied_bytes } = *load;
    let micros = busy.as_secs_f64() * 1e9 / (millis * alive) as f64;
    let kilobytes = copied_bytes / 1000.0;
    say(&format!(
        "{nodes:5} {groups:6} {what:<8} {frames:12.1} {frame_bytes:13.0} {copies:13.1} {kilobytes:9.1} {micros:8.0}\n"
    ));
}

#[allow(
    clippy::disallowed_methods,
    reason = "how fast the machine is, is asked of its clock; no story sees it"
)]
fn now() -> Instant {
    Instant::now()
}

/// The CPU time of this thread as the kernel reports it, or the elapsed time where it does not.
fn time_on_core() -> Duration {
    let read = || {
        let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
    };
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    read().unwrap_or_else(|| BEGAN.get_or_init(now).elapsed())
}

fn minutes(progress: &Progress) -> f64 {
    progress.counts.millis as f64 / 60_000.0
}

fn draw(progress: &Progress, end: u64) {
    if !stderr().is_terminal() {
        return;
    }
    let (done, all) = (progress.next - progress.first, (end - progress.first).max(1));
    let full = usize::try_from(done * 40 / all).unwrap_or(40);
    eprint!(
        "\r[{:<40}] {:3} % seed {} of {end}, {:.0} minutes, {} failed ",
        "#".repeat(full),
        done * 100 / all,
        progress.next,
        minutes(progress),
        progress.failed.len()
    );
    if progress.next == end {
        eprintln!();
    }
    let _ = stderr().flush();
}

fn summary(progress: &Progress) -> String {
    let Progress { counts, busy, failed, .. } = progress;
    let percent = |count: u64| count as f64 * 100.0 / counts.scenarios.max(1) as f64;
    let (minutes, seconds) = (minutes(progress), busy.as_secs_f64());
    let mut text = format!(
        "{} seeds, {minutes:.0} simulated cluster-minutes in {seconds:.1} s of one core: {:.0} a second; takeovers \
         in {:.0} %, two owners in single-vote mode in {:.0} %; digest {:016x}\n",
        counts.scenarios,
        minutes / seconds.max(0.001),
        percent(counts.with_takeover),
        percent(counts.with_two_owners),
        counts.digest
    );
    for (kind, count) in KINDS.iter().zip(counts.kinds) {
        text += &format!("  {kind:<10} in {:5.1} %\n", percent(count));
    }
    if !failed.is_empty() {
        text += &format!("{} seeds failed: {failed:?}\n", failed.len());
    }
    text
}

/// A reader that has closed the pipe (`| head`) is not an error.
fn say(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}
