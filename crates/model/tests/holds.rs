//! The invariants hold in every world of every scenario; the large ones are searched up to a limit here, and further by
//! `cargo model`.

use locum_model::{
    scenario::SCENARIOS,
    search::{Limits, search},
};

/// One test, one search after the other: they would only take the memory from each other.
#[test]
fn nothing_is_violated_and_everything_is_seen() {
    let mut faults = Vec::new();
    for scenario in SCENARIOS {
        let outcome = search(scenario, Limits { depth: None, states: scenario.ends, threads: 1 });
        println!("{:<14} {outcome}", scenario.name);
        if let Some(violation) = &outcome.violation {
            faults.push(format!("{}: {}: {outcome}", scenario.name, violation.what));
        }
        if scenario.ends.is_none() && !(outcome.exhausted && outcome.unseen.is_empty()) {
            faults
                .push(format!("{} is to be exhausted and to see what it is about: {outcome}", scenario.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
