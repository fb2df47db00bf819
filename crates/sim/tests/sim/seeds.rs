//! Random scenarios. `LOCUM_SEEDS=FIRST..END` plays other seeds, for example `LOCUM_SEEDS=1000..50000`.

use std::ops::Range;

use locum_sim::seeds::{R1Scenario, check};

fn seeds() -> Range<u64> {
    let usual = 0..250;
    let Ok(text) = std::env::var("LOCUM_SEEDS") else { return usual };
    let (first, end) = text.split_once("..").expect("LOCUM_SEEDS is FIRST..END");
    first.parse().expect("a number")..end.parse().expect("a number")
}

#[test]
fn whatever_happens_every_group_runs_once_in_the_end() {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
    let reports: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let mine = seeds.clone().filter(move |seed| seed % threads == worker);
                scope.spawn(move || mine.filter_map(|seed| check(seed).err()).take(2).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a world does not panic")).collect()
    });
    assert!(reports.is_empty(), "{}", reports.join("\n\n"));
}

/// Seeds that once failed, apart from those that are always played.
const ONCE_FAILED: [u64; 1] = [
    // 40 % lost and one direction cut during a takeover: an offer kept both nodes from settling what both held, and a
    // lost `done` kept both waiting.
    4371,
];

#[test]
fn seeds_that_once_failed_do_not_fail_again() {
    for seed in ONCE_FAILED {
        check(seed).unwrap_or_else(|report| panic!("{report}"));
    }
}

#[test]
fn a_scenario_is_a_story_file() {
    assert_eq!(R1Scenario::of(3).text(), R1Scenario::of(3).text());
    assert_ne!(R1Scenario::of(3).text(), R1Scenario::of(4).text());
}
