//! Locum and the real heartbeat in one cluster: a short part of the suite, and of the random runner. `locum lab mixed`
//! and `locum lab cts` play all of it; `docs/mixed.md` has the results.

use std::{path::Path, process::Command, thread};

use serde_json::{Value, json};

use crate::lab::LOCUM;

/// As in `locum lab`: no rack can be built here.
const NO_RACK: i32 = 77;

/// Runs a command of the lab with the real heartbeat; `None` where that is not possible.
fn lab(words: &[&str]) -> Option<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/root");
    if !root.join(".complete").exists() {
        crate::skipped("no real heartbeat: scripts/peers fetches it");
        return None;
    }
    let mut command = Command::new(LOCUM);
    let output = command.arg("lab").args(words).arg("--json").arg("--peers-root").arg(root).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_RACK) || errors.contains("only be measured by root") {
        crate::skipped(errors);
        return None;
    }
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_real_heartbeat_serves_beside_locum() {
    let words = [
        "mixed",
        "--pairs",
        "locum+heartbeat,heartbeat+locum",
        "--scenarios",
        "loss,partition,power,serial",
        "--loss",
        "20s",
        "--racks",
        "4",
    ];
    let Some(answer) = lab(&words) else { return };
    let lives = answer["runs"].as_array().unwrap();
    assert_eq!(lives.len(), 8, "{answer:#}");
    for life in lives {
        assert_eq!(life["passed"], true, "{life:#}");
        let steps = life["steps"].as_array().unwrap();
        assert!(
            steps.len() >= 4 && steps.iter().all(|step| step["limit_ms"].as_f64() > Some(0.0)),
            "{life:#}"
        );
        let measured = steps.iter().filter_map(|step| step["note"].as_str()).collect::<Vec<_>>().join("");
        assert_eq!(life["name"] == "loss", measured.contains("frames again"), "{life:#}");
    }
}

/// A seed with quick services whose only link loses frames.
const SEED: u64 = 21;

#[test]
fn chance_finds_nothing_in_a_dozen_steps() {
    thread::scope(|scope| {
        for pair in ["locum+heartbeat", "locum+locum"] {
            scope.spawn(move || {
                let words = ["cts", "--pair", pair, "--steps", "12", "--seed", &SEED.to_string()];
                let Some(answer) = lab(&words) else { return };
                assert_eq!((&answer["passed"], &answer["seed"]), (&true.into(), &SEED.into()), "{answer:#}");
                assert_eq!(answer["steps"].as_array().map(Vec::len), Some(12), "{answer:#}");
            });
        }
    });
}

#[test]
fn heartbeat_is_replaced_node_by_node_and_comes_back_while_a_client_asks() {
    let Some(answer) = lab(&["replace", "--alone"]) else { return };
    let replaced = &answer["replacements"][0];
    assert_eq!((&replaced["passed"], &replaced["by"]), (&true.into(), &"locum".into()), "{answer:#}");
    let stages = replaced["stages"].as_array().unwrap();
    let runs_after = |name: &str| {
        let stage = stages.iter().find(|stage| stage["name"] == name);
        stage.map(|stage| stage["runs"].clone()).unwrap_or_else(|| panic!("{name}: {answer:#}"))
    };
    assert_eq!(runs_after("gather"), json!(["heartbeat", "heartbeat"]));
    assert_eq!(runs_after("hand-over"), json!(["heartbeat", "locum"]));
    assert_eq!(runs_after("hand-back"), json!(["locum", "locum"]));
    assert_eq!(runs_after("back-hand-over"), json!(["locum", "heartbeat"]));
    assert_eq!(runs_after("back-hand-back"), json!(["heartbeat", "heartbeat"]));
    // The guide names the scenarios that are played.
    let guide = include_str!("../../docs/from-heartbeat.md");
    for stage in stages {
        let name = stage["name"].as_str().unwrap();
        assert!(guide.contains(&format!("`{name}`")), "docs/from-heartbeat.md does not name {name}");
        assert!(stage["hands_over"] == true || stage["unexplained_ms"].as_f64() <= Some(500.0), "{stage:#}");
    }
}

#[test]
fn a_heartbeat_that_is_not_there_is_told_with_the_cure() {
    let empty = tempfile::tempdir().unwrap();
    for word in ["mixed", "cts", "replace"] {
        let output =
            Command::new(LOCUM).args(["lab", word, "--peers-root"]).arg(empty.path()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("scripts/peers") || errors.contains("only be measured by root"), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
