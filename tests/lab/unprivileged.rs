//! A rack by somebody who is not root.

use super::LOCUM;
use std::process::Command;

/// As nobody, in a user namespace: the tests of the rack run again.
#[test]
fn nobody_builds_a_rack_in_a_user_namespace() {
    let this = std::env::current_exe().unwrap();
    let mut again = Command::new("setpriv");
    again.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", LOCUM, "lab", "enter", "--"]);
    again.arg(&this).args(["--exact", "lab::two_holders_are_seen", "--nocapture"]);
    match again.output() {
        Err(error) => crate::skipped(format!("setpriv: {error}")),
        Ok(output) => {
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            match output.status.code() {
                Some(0) => assert!(said.contains("1 passed"), "{said}"),
                Some(77) => crate::skipped(said),
                // setpriv's own code: not permitted to change the user, or the program lies out of reach.
                Some(126 | 127) => crate::skipped(format!("nobody cannot run this here: {said}")),
                _ => panic!("{said}"),
            }
        }
    }
}
