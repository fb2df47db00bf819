//! Faults of a native cluster: two nodes never answer at once, and the control shows that this would be seen.

use std::process::Command;

use super::LOCUM;

/// The worst faults, each in a cluster of its own. On a busy machine the service may come back late, but there may
/// never be two owners.
#[test]
fn a_killed_a_frozen_and_a_parted_owner_leave_no_two() {
    let scenarios = "kill,freeze,partition";
    let Some(report) = play(&["--scenarios", scenarios, "--pace", "1s", "--slack", "20s"]) else { return };
    let rows = report["rows"].as_array().unwrap();
    let figure = |row: &serde_json::Value, name: &str| row[name].as_f64().unwrap();
    // The control comes first, and must be seen.
    assert!(
        figure(&rows[0], "two_open_ms") >= 250.0 && figure(&rows[0], "two_answer_ms") >= 250.0,
        "{report:#}"
    );
    assert_eq!(rows.len(), 4);
    for row in &rows[1..] {
        assert_eq!((figure(row, "two_open_ms"), figure(row, "two_answer_ms")), (0.0, 0.0), "{row:#}");
        assert!(row["came_back"].as_bool().unwrap(), "{row:#}");
    }
}

/// The output of the command, if a rack can be built here.
fn play(options: &[&str]) -> Option<serde_json::Value> {
    let output = Command::new(LOCUM).args(["lab", "native", "--json"]).args(options).output().unwrap();
    if output.status.code() == Some(77) {
        crate::skipped(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        return None;
    }
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
