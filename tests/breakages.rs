//! Planted breakages beside a real heartbeat. Each breaks one rule of Locum on purpose, and a named run of the mixed
//! suite, which passes otherwise, must fail by it. `cargo breakages-mixed` prints the table. They take minutes and so
//! are not part of the usual tests. The breakages that the simulator shows are in `crates/sim/tests/breakages.rs`.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// As in `locum lab`: no rack can be built here.
const NO_RACK: i32 = 77;

/// The breakage, the run that must fail, and the pair of nodes.
const TABLE: &[(&str, &str, &str)] = &[
    ("NumbersConfused", "loss", "locum+heartbeat"),
    ("NoAcknowledgement", "loss", "locum+heartbeat"),
    ("NewestAskedAgain", "power", "heartbeat+locum"),
    ("PeerDeadtimeIgnored", "slow-beats", "locum+heartbeat"),
    ("HoldingNotMirrored", "power", "locum+heartbeat"),
    ("GenerationFalls", "power", "locum+heartbeat"),
    ("NoAnswerToStarting", "first-first", "locum+heartbeat"),
    ("NoAgreement", "words", "heartbeat+locum"),
    ("NetstringOnSerial", "serial", "heartbeat+locum"),
    ("NoNodeList", "first-first", "locum+heartbeat"),
];

/// Plays one run. Returns the lab's answer, or `None` where no rack can be built.
fn play(breakage: Option<&str>, scenario: &str, pair: &str) -> Option<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locum"));
    command.args(["lab", "mixed", "--json", "--loss", "100s", "--scenarios", scenario, "--pairs", pair]);
    if let Some(name) = breakage {
        command.args(["--breakage", name]);
    }
    let output = command.output().expect("the lab");
    let errors = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(NO_RACK) => None,
        Some(0 | 1) if !output.stdout.is_empty() => {
            Some(serde_json::from_slice(&output.stdout).expect("an answer"))
        }
        _ => panic!("{scenario}: {errors}"),
    }
}

/// The first fault of a run, if it has one.
fn fault(answer: &Value) -> Option<String> {
    let steps = answer["runs"][0]["steps"].as_array().expect("steps");
    let failed = steps.iter().find(|step| step["faults"].as_array().is_some_and(|f| !f.is_empty()))?;
    Some(format!("{}: {}", failed["step"].as_str()?, failed["faults"][0].as_str()?))
}

/// A single test, because the runs take turns on the machine.
#[test]
fn every_breakage_fails_its_scenario() {
    let mut faults = Vec::new();
    let healthy: BTreeSet<_> = TABLE.iter().map(|&(_, life, pair)| (life, pair)).collect();
    for (life, pair) in healthy {
        let Some(answer) = play(None, life, pair) else { return println!("skipped: no rack here") };
        faults.extend(fault(&answer).map(|fault| format!("{life} is red without a breakage: {fault}")));
    }
    println!("{:<20} {:<16} {:<16} seen", "breakage", "turns red", "pair");
    for &(breakage, life, pair) in TABLE {
        match play(Some(breakage), life, pair).as_ref().and_then(fault) {
            None => faults.push(format!("{breakage} leaves {life} green")),
            Some(fault) => println!("{breakage:<20} {life:<16} {pair:<16} {fault:.90}"),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{} breakages, each of them found", TABLE.len());
}
