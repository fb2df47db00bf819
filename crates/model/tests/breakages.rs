//! Planted breakages: every rule of the claims that is left out is found. `cargo breakages-model` prints the table.

use locum_core::model::breakage::{
    Breakage::{self, *},
    plant,
};
use locum_model::{
    scenario::named,
    search::{Limits, search},
};

/// Breakage, and the scenario that finds it.
const TABLE: &[(Breakage, &str)] = &[
    (NewestClaimOnly, "third"),
    (NoAbstention, "witness"),
    (RunningGrantIgnored, "drift"),
    (ReleaseBeforeStop, "fence"),
    (ReleaseProvesAnyBallot, "late-release"),
    (ReleaseEndsAnyBallot, "released"),
    (FenceProvesAnyGeneration, "late-fence"),
    (AcceptedAtSync, "disks"),
    (DurableInMemory, "forgetful"),
    (PromiseEndsOwnGrant, "again"),
    (EchoExtendsLaterClaims, "beats-before"),
    (NoCeiling, "ballots"),
    (HeardRoundsOnly, "forgotten"),
    (ClearWhileOutbid, "outbid"),
    (VotesAcrossSets, "sets"),
    (BlankVotes, "file-lost"),
    (LeaseFromAnswer, "proposed"),
    (NoMargin, "drift"),
    (AcceptBelowPromise, "proposed"),
    (AnyVersionCounts, "proposed"),
    (ReleaseStays, "given-back"),
    (EchoOfAnyGeneration, "old-echo"),
    (NoSweep, "owner-dies"),
];

/// No search of the table needs more states.
const LIMITS: Limits = Limits { depth: None, states: Some(2_000_000), threads: 1 };

/// All in one test, because a breakage holds for the whole process.
#[test]
fn every_rule_that_is_left_out_is_found() {
    let mut faults = Vec::new();
    println!("{:<26} {:<14} {:>5} {:>9}  violated", "breakage", "scenario", "steps", "states");
    for &(breakage, name) in TABLE {
        plant(Some(breakage));
        let outcome = search(named(name), LIMITS);
        plant(None);
        match &outcome.violation {
            None => faults.push(format!("{breakage:?} is not found by {name}: {outcome}")),
            Some(violation) => {
                let (steps, what) = (violation.acts.len(), violation.invariant);
                let breakage = format!("{breakage:?}");
                println!("{breakage:<26} {name:<14} {steps:>5} {:>9}  {what}", outcome.states);
            }
        }
    }
    println!("{} rules, each of them found", TABLE.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
