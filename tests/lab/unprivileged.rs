//! Racks built by a user other than root.

use super::LOCUM;
use std::process::Command;

/// As the user nobody, in a user namespace: the tests of the rack run again, on a host like this one.
#[test]
fn nobody_builds_a_rack_in_a_user_namespace() {
    build_as_nobody(Command::new("setpriv"));
}

/// systemd mounts a bpf file system on every machine. A user namespace may neither mount another one nor use this one.
#[test]
fn nobody_builds_a_rack_where_the_host_has_a_bpf_file_system() {
    let mut host = Command::new("unshare");
    let mounted = "mount -t bpf bpf /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf && exec setpriv \"$@\"";
    host.args(["--mount", "--", "sh", "-c", &format!("{mounted} || exit 127"), "sh"]);
    build_as_nobody(host);
}

fn build_as_nobody(mut setpriv: Command) {
    let this = std::env::current_exe().unwrap();
    setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", LOCUM, "lab", "enter", "--"]);
    setpriv.arg(&this).args(["--exact", "lab::two_holders_are_seen", "--nocapture"]);
    match setpriv.output() {
        Err(error) => crate::skipped(format!("{setpriv:?}: {error}")),
        Ok(output) => {
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            match output.status.code() {
                Some(0) => assert!(said.contains("1 passed"), "{said}"),
                // What is missing for every user here is missing for the test above, too.
                Some(77) if !said.contains("mounts for a node") => crate::skipped(said),
                // setpriv's own codes: not permitted to change the user, or the program is out of reach.
                Some(126 | 127) => crate::skipped(format!("nobody cannot run this here: {said}")),
                _ => panic!("{said}"),
            }
        }
    }
}

/// A user namespace may not load programs, because a kernel before Linux 6.6 has no place for them. Rules of nf_tables
/// work there.
#[test]
fn nobody_tries_the_gate_that_works() {
    let play = |backend: &[&str]| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", LOCUM, "lab", "gate"]);
        setpriv.args(["--runs", "2", "--parallel", "2", "--lease", "1s"]).args(backend).output()
    };
    let output = match play(&[]) {
        Err(error) => return crate::skipped(format!("setpriv: {error}")),
        Ok(output) => output,
    };
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => {}
        Some(77) if said.contains("no rack of nodes") || said.contains("gate backend nft does not work") => {
            return crate::skipped(said);
        }
        Some(126 | 127) => return crate::skipped(format!("nobody cannot run this here: {said}")),
        _ => panic!("{said}"),
    }
    assert!(
        said.contains("gate backend bpf does not work here: ") && said.contains("nft     in flight"),
        "{said}"
    );
    // A backend that was requested is not replaced by another one.
    let output = play(&["--backend", "bpf"]).unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
}
