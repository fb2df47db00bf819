//! Faults of a native cluster: no two nodes ever answer, and the control shows that it would be seen.

use std::process::Command;

use super::LOCUM;

/// The control alone: two nodes are made to answer behind open gates, and the command fails when it does not see it.
#[test]
fn two_open_gates_are_seen() {
    let words = ["lab", "native", "--control", "--json"];
    let output = Command::new(LOCUM).args(words).output().unwrap();
    if output.status.code() == Some(77) {
        return crate::skipped(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figure = |name: &str| report["rows"][0][name].as_f64().unwrap();
    assert!(figure("two_open_ms") >= 250.0 && figure("two_answer_ms") >= 250.0, "{report}");
}
