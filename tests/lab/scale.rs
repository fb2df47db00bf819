//! Many groups: all of them come up and are taken over, also beside watchers.

use std::process::Command;

use serde_json::Value;

use super::LOCUM;

/// A part of `locum lab scale`; its figures are in `docs/bench.md`. Here the machine may be busy, and the program is
/// not optimized. Without indexes, both nodes were blocked by their own work with this many groups.
#[test]
fn a_thousand_groups_come_up_and_are_taken_over_beside_watchers() {
    let options = ["--groups", "1000", "--watchers", "64", "--time", "3s", "--limit", "60s"];
    let Some(report) = play(&options) else { return };
    assert_eq!(report["died"], Value::Array(Vec::new()), "{report:#}");
    assert!(report["up_open_ms"].is_number() && report["taken"]["open_ms"].is_number(), "{report:#}");
    let watched = &report["watched"];
    assert!(watched["answers_ms"].as_array().unwrap().iter().all(Value::is_number), "{report:#}");
    assert!(watched["move_ms"].is_number(), "{report:#}");
    // 140 MB before watchers shared their states, and never freed again.
    for resident in [&watched["cost"]["resident"], &watched["resident_after"]] {
        assert!(resident.as_u64().unwrap() < 80 << 20, "{report:#}");
    }
}

/// The output of the command, if a rack can be built here.
fn play(options: &[&str]) -> Option<Value> {
    let output = Command::new(LOCUM).args(["lab", "scale", "--json"]).args(options).output().unwrap();
    if output.status.code() == Some(77) {
        crate::skipped(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        return None;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).map_err(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))).ok()
}
