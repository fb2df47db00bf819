//! Plays every trial of a hostile neighbour.

use locum_sim::hostile::TRIALS;

#[test]
fn every_trial_is_withstood() {
    let faults: Vec<String> = TRIALS
        .iter()
        .filter_map(|trial| {
            trial.run().err().map(|text| format!("{}: not so: {}\n{text}", trial.name, trial.promise))
        })
        .collect();
    assert!(faults.is_empty(), "{} of {} trials\n\n{}", faults.len(), TRIALS.len(), faults.join("\n\n"));
}
