//! `cargo seeds FROM TO [STATE]`: plays native stories by chance on one core, and says how many simulated
//! cluster-minutes that was. With a file for the state it can be stopped at any moment and goes on where it was. A seed
//! that fails is made shorter and printed.

use std::{
    env, fs,
    io::{IsTerminal as _, Write as _, stderr},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use locum_sim::native::{faults::KINDS, progress::Progress};

const USAGE: &str = "usage: locum-seeds FROM TO [STATE]: plays the seeds from FROM up to, not including, TO";
/// Between two looks at the state file and the bar.
const SAVED_EVERY: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let (Some(first), Some(end), true) = (number(0), number(1), words.len() <= 3) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(first, end, words.get(2).map(Path::new)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went well.
#[allow(
    clippy::disallowed_methods,
    reason = "how fast the machine is, is asked of its clock; no story sees it"
)]
fn run(first: u64, end: u64, state: Option<&Path>) -> Result<bool, String> {
    let began = Instant::now();
    let on_core = || time_on_core().unwrap_or_else(|| began.elapsed());
    let mut progress = state.map_or_else(|| Ok(Progress::new(first)), |file| Progress::read(file, first))?;
    let busy_before = progress.busy.saturating_sub(on_core());
    let mut saved = began;
    while progress.next < end {
        if let Err(report) = progress.step() {
            println!("{report}");
        }
        if saved.elapsed() >= SAVED_EVERY || progress.next == end {
            saved = Instant::now();
            progress.busy = busy_before + on_core();
            if let Some(file) = state {
                let cannot = |error| format!("{} cannot be written: {error}", file.display());
                progress.write(file).map_err(cannot)?;
            }
            draw(&progress, end);
        }
    }
    tell(&progress);
    Ok(progress.failed.is_empty())
}

/// What this thread has used of a core, where the kernel tells.
fn time_on_core() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
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

fn tell(progress: &Progress) {
    let Progress { counts, busy, failed, .. } = progress;
    let percent = |count: u64| count as f64 * 100.0 / counts.tales.max(1) as f64;
    let (minutes, seconds) = (minutes(progress), busy.as_secs_f64());
    println!(
        "{} seeds, {minutes:.0} simulated cluster-minutes in {seconds:.1} s of one core: {:.0} a second; \
         takeovers in {:.0} %",
        counts.tales,
        minutes / seconds.max(0.001),
        percent(counts.with_takeover)
    );
    for (kind, count) in KINDS.iter().zip(counts.kinds) {
        println!("  {kind:<10} in {:5.1} %", percent(count));
    }
    if !failed.is_empty() {
        println!("{} seeds failed: {failed:?}", failed.len());
    }
}
