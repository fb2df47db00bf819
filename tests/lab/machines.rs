//! Debian machines under a real systemd: a short part of `locum lab machines`.

use std::process::Command;

use super::LOCUM;

/// Groups of scripts and units start side by side, move, and survive restarts, a reload with a stop, and a power loss.
#[test]
fn a_cluster_of_debian_machines_does_what_systemd_tells_it() {
    let slice = ["--groups", "16", "--moves", "4", "--restarts", "2", "--reload-stops", "2"];
    let trial = Command::new(LOCUM).args(["lab", "machines"]).args(slice).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&trial.stdout), String::from_utf8_lossy(&trial.stderr));
    match trial.status.code() {
        Some(0) => assert!(said.contains("10 steps, 0 wrong"), "{said}"),
        Some(77) => crate::skipped(said),
        _ => panic!("{said}"),
    }
}
