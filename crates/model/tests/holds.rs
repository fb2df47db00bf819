//! Checks that the invariants hold in every state of every scenario. Large scenarios are searched up to a limit;
//! `cargo model` searches further.

use locum_model::{
    scenario::SCENARIOS,
    search::{Limits, search},
};

/// One search after the other in one test: in parallel they would only compete for memory.
#[test]
fn nothing_is_violated_and_everything_is_seen() {
    let mut faults = Vec::new();
    for scenario in SCENARIOS {
        let outcome = search(scenario, Limits { depth: None, states: scenario.ends, threads: 1 });
        println!("{:<14} {outcome}", scenario.name);
        if let Some(violation) = &outcome.violation {
            faults.push(format!("{}: {}: {outcome}", scenario.name, violation.invariant));
        }
        if scenario.ends.is_none() && !(outcome.exhausted && outcome.unseen.is_empty()) {
            faults
                .push(format!("{} is to be exhausted and to see what it is about: {outcome}", scenario.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
