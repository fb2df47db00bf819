//! `cargo run --release -p locum-sim --bin locum-seeds -- FROM TO [STATE]`: plays native stories by chance, and says how
//! many simulated cluster-minutes that was. With a file for the state it can be stopped and goes on where it was.

use std::{
    env, fs,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    time::Instant,
};

use locum_sim::native::{
    faults::KINDS,
    tale::{self, Counts},
};

#[allow(
    clippy::disallowed_methods,
    reason = "how fast the machine is, is asked of its clock; no story sees it"
)]
fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let (Some(first), Some(end)) = (number(0), number(1)) else {
        eprintln!("usage: locum-seeds FROM TO [STATE]");
        return ExitCode::from(2);
    };
    let state = words.get(2);
    let done = state.and_then(|file| fs::read_to_string(file).ok());
    let mut seed = done.and_then(|text| text.trim().parse().ok()).unwrap_or(first).max(first);
    let mut sum = Counts::default();
    let mut failed = Vec::new();
    let began = Instant::now();
    while seed < end {
        match tale::check(seed) {
            Ok(counts) => sum.add(&counts),
            Err(report) => {
                println!("{report}");
                failed.push(seed);
            }
        }
        seed += 1;
        if seed % 50 == 0 || seed == end {
            if let Some(file) = state {
                let _ = fs::write(file, format!("{seed}\n"));
            }
            if std::io::stderr().is_terminal() {
                eprint!("\r{:3} % seed {seed} of {end}", (seed - first) * 100 / (end - first).max(1));
                let _ = std::io::stderr().flush();
            }
        }
    }
    let minutes = sum.millis as f64 / 60_000.0;
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} seeds, {minutes:.0} simulated cluster-minutes in {took:.1} s: {:.0} a second; takeovers in {:.0} %",
        sum.tales,
        minutes / took,
        sum.with_takeover as f64 * 100.0 / sum.tales.max(1) as f64
    );
    for (kind, count) in KINDS.iter().zip(sum.kinds) {
        println!("  {kind:<10} in {:5.1} %", count as f64 * 100.0 / sum.tales.max(1) as f64);
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{} seeds failed: {failed:?}", failed.len());
    ExitCode::FAILURE
}
