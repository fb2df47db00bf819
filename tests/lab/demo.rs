//! The demo as a person without anything installed runs it: nothing but a shell in `PATH`, no terminal.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    process::{Command, Output},
};

use super::{LOCUM, host};

/// 77: no rack can be built here.
fn told(output: &Output) -> Option<String> {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) {
        crate::skipped(text);
        return None;
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    Some(text)
}

/// The whole show: what it says at the end was measured, every act had its outcome, and the host is as before.
fn assert_shown(text: &str) {
    for line in [
        "- serial /dev/ttyS0",
        "the serial cable is pulled",
        "clustnode1 loses its power",
        "clustnode2 holds 172.23.2.14 and serves the client",
        "outage seen by the client",
        "moved by hand",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    let row = text.lines().find(|line| line.starts_with("power of clustnode1 cut")).unwrap_or_default();
    assert!(row.contains(" ms") || row.contains(" s "), "no outage in {row:?}");
}

#[test]
fn the_demo_needs_nothing_but_a_shell() {
    let before = host();
    let bin = tempfile::tempdir().unwrap();
    symlink("/bin/sh", bin.path().join("sh")).unwrap();
    let output = Command::new(LOCUM).arg("demo").env_clear().env("PATH", bin.path()).output().unwrap();
    if let Some(text) = told(&output) {
        assert_shown(&text);
        assert_eq!(host(), before);
    }
}

#[test]
fn nobody_sees_the_demo_too() {
    // Where the program was built may be out of nobody's reach.
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("locum");
    std::fs::copy(LOCUM, &program).unwrap();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program).arg("demo");
    match nobody.output() {
        Err(error) => crate::skipped(format!("setpriv: {error}")),
        Ok(output) if String::from_utf8_lossy(&output.stderr).starts_with("setpriv:") => {
            crate::skipped(String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => {
            if let Some(text) = told(&output) {
                assert_shown(&text);
            }
        }
    }
}

/// Who is nobody at all in a user namespace (no mapping) may make no other one.
#[test]
fn without_namespaces_it_says_what_is_missing() {
    let output = Command::new("unshare").args(["--user", "--", LOCUM, "demo"]).output();
    let Ok(output) = output else { return crate::skipped("no unshare here") };
    let text = String::from_utf8_lossy(&output.stderr);
    if text.starts_with("unshare:") {
        return crate::skipped(text);
    }
    assert_eq!(output.status.code(), Some(77), "{text}");
    assert!(text.contains("no rack of nodes can be built here: a user namespace: "), "{text}");
    assert!(text.contains("\ntry: ") && output.stdout.is_empty(), "{text}");
}
