//! Checks that the bench runs and prints the promised form. Its figures are not tested, because they depend on the
//! machine.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use locum_lab::{Description, Program};
use serde_json::Value;

use crate::lab::{LOCUM, build};

/// As in `locum lab`: no rack can be built here.
const NO_RACK: i32 = 77;

fn numbers(row: &Value, name: &str, fields: &[&str]) -> Vec<f64> {
    let number = |field: &&str| row[name][*field].as_f64().unwrap_or_else(|| panic!("{name}.{field}: {row}"));
    fields.iter().map(number).collect()
}

#[test]
fn a_run_gives_a_row_and_the_control_row() {
    let words = ["lab", "bench", "--peers", "locum", "--scenarios", "power-loss", "--interval", "200ms"];
    let output =
        Command::new(LOCUM).args(words).args(["--runs", "1", "--calm", "1s", "--json"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_RACK) {
        return crate::skipped(errors);
    }
    assert!(output.status.success(), "{errors}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = answer["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| (row["peer"].as_str(), row["scenario"].as_str())).collect();
    assert_eq!(
        names,
        [(Some("locum"), Some("power-loss")), (Some("control"), Some("both-hold"))],
        "{answer:#}"
    );
    for row in rows {
        assert_eq!(row["runs"], 1);
        for name in ["outage_ms", "http_outage_ms"] {
            let figures = numbers(row, name, &["min", "median", "p95", "max"]);
            assert!(figures.is_sorted() && figures[0] > 0.0, "{row}");
        }
        for name in ["two_answer_ms", "two_hold_ms"] {
            assert!(numbers(row, name, &["median", "max"]).is_sorted(), "{row}");
        }
    }
    assert_eq!((&rows[0]["interval_ms"], &rows[0]["detection_ms"]), (&200.0.into(), &1000.0.into()));
    // Both were made to hold the address, and the instruments saw it.
    assert!(rows[1]["two_hold_ms"]["max"].as_f64() > Some(0.0), "{answer:#}");
    assert!(rows[1]["two_answer_ms"]["max"].as_f64() > Some(0.0), "{answer:#}");
}

#[test]
fn a_peer_that_is_not_there_is_told_with_the_cure() {
    let empty = tempfile::tempdir().unwrap();
    for peer in ["heartbeat", "keepalived"] {
        let mut command = Command::new(LOCUM);
        command.args(["lab", "bench", "--peers", peer, "--peers-root"]).arg(empty.path());
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains(&format!("{peer} is not")) && errors.contains("scripts/peers"), "{errors}");
    }
}

#[test]
fn wrong_words_are_refused() {
    for words in
        [["--peers", "corosync"], ["--scenarios", "earthquake"], ["--runs", "0"], ["--deadtime", "200ms"]]
    {
        let output = Command::new(LOCUM).args(["lab", "bench"]).args(words).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn what_is_laid_over_a_node_is_as_if_installed_there_alone() {
    let layer = tempfile::Builder::new().prefix("a layer, with:blanks").tempdir().unwrap();
    for directory in ["usr/bin", "etc"] {
        fs::create_dir_all(layer.path().join(directory)).unwrap();
    }
    let program = layer.path().join("usr/bin/locum-layer-test");
    fs::write(&program, "#!/bin/sh\nread line < /etc/locum-layer-test; echo $line\n").unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(layer.path().join("etc/locum-layer-test"), "laid over\n").unwrap();
    let description = Description::new(Path::new(LOCUM)).node("a").layer(layer.path());
    let Some(rack) = build(description) else { return };
    let run = |words: &[&str]| rack.run("a", &Program::new(words), Duration::from_secs(10)).unwrap();
    assert_eq!(run(&["/usr/bin/locum-layer-test"]).text, "laid over\n");
    assert_eq!(
        run(&["/bin/sh", "-c", "echo > /etc/locum-layer-test"]).code,
        Some(2),
        "nobody can write there"
    );
    assert!(!Path::new("/usr/bin/locum-layer-test").exists() && !Path::new("/etc/locum-layer-test").exists());
    let processes = rack.processes("a").unwrap();
    assert!(processes.is_empty(), "only the holder is left: {processes:?}");
    let _sleeper = rack.start("a", &Program::new(&["/bin/sh", "-c", "sleep 1000; :"])).unwrap();
    assert!(!rack.processes("a").unwrap().is_empty());
}

/// Heartbeat and keepalived as Debian packs them, moved once by the administrator.
#[test]
fn the_real_peers_run_where_they_have_been_fetched() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/root");
    if !root.join(".complete").exists() {
        return crate::skipped("no real peers: scripts/peers fetches them");
    }
    let words = ["lab", "bench", "--peers", "heartbeat,keepalived", "--scenarios", "move", "--json"];
    let mut command = Command::new(LOCUM);
    command
        .args(words)
        .args(["--runs", "1", "--calm", "1s", "--interval", "200ms", "--peers-root"])
        .arg(root);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_RACK) || errors.contains("only be measured by root") {
        return crate::skipped(errors);
    }
    assert!(output.status.success(), "{errors}");
    assert!(!errors.contains("AT LEAST"), "the service was gone for good: {errors}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = answer["rows"].as_array().unwrap().iter();
    let names: Vec<_> = rows.filter_map(|row| row["peer"].as_str()).collect();
    assert_eq!(names, ["heartbeat", "keepalived", "control"]);
}
