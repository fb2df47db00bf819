//! The gate by itself: frozen daemons, and the command that lists and removes leftover gates.

use std::{fs, process::Command, time::Duration};

use locum_lab::{ProcessSignal, Program, Rack, clock::await_some};

use super::{LOCUM, build, pair, text};

const RENEWER: [&str; 10] =
    ["locum", "gate-renewer", "nft", "eth0", "172.23.2.14", "300", "60", "0", "false", "/run/notes"];

/// Twenty-five trials of each backend; and the control, a thawed process that goes on, which the trials must see.
#[test]
fn no_frozen_renewal_outlives_its_lease() {
    let control = ["lab", "gate", "--runs", "4", "--lease", "1s", "--backend", "nft", "--control"];
    play(&control, Some(1), "nft     anywhere      2");
    for backend in ["bpf", "nft"] {
        let trials = ["lab", "gate", "--runs", "25", "--parallel", "25", "--backend", backend];
        play(&trials, Some(0), "too late");
    }
}

fn play(words: &[&str], code: Option<i32>, says: &str) {
    let output = Command::new(LOCUM).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(77) {
        return crate::skipped(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    assert!(output.status.code() == code && said.contains(says), "{words:?}: {output:?}");
}

#[test]
fn what_a_daemon_left_is_listed_and_removed() {
    let Some(rack) = build(pair()) else { return };
    let node = "clustnode1";
    let gate = |words: &[&str]| {
        let words = [&["locum", "gate"], words].concat();
        rack.run(node, &Program::new(&words), Duration::from_secs(20)).unwrap()
    };
    assert!(gate(&[]).text.contains("no gates here\nbackend bpf: "));
    let mut renewer = rack.start(node, &Program::new(&RENEWER)).unwrap();
    let open = || gate(&[]).text.contains("cluster lab, group 172.23.2.14: open for ").then_some(());
    if gate(&["--json"]).text.contains("\"nft\": \"") {
        return crate::skipped("no nft backend here");
    }
    await_some(Duration::from_secs(10), open).expect("the gate is listed");
    assert!(gate(&["--list", "--json"]).text.contains("\"interfaces\": [\n        \"eth0\"\n      ]"));

    // While a daemon runs, or the process that made the gate lives, the gate cannot be removed.
    let _daemon = lock(&rack, node);
    let refused = gate(&["--remove"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(
        refused.text.contains("a daemon runs here") && refused.text.contains("locum stop"),
        "{}",
        refused.text
    );
    drop(_daemon);
    let refused = gate(&["--remove"]);
    let says = format!("{refused:?}");
    assert!(refused.code == Some(1) && says.contains("is still open for "), "{says}");
    let refused = gate(&["--remove", "--keep-addresses"]);
    // Linux before 6.9 does not know which process made it.
    if refused.code != Some(0) {
        assert!(refused.code == Some(1) && refused.text.contains("a running process"), "{}", refused.text);
    }

    renewer.signal(ProcessSignal::Kill).unwrap();
    assert!(renewer.wait(Duration::from_secs(10)).is_some());
    if refused.code != Some(0) {
        let shut = || gate(&[]).text.contains("172.23.2.14: shut, by nft: 172.23.2.14 on eth0").then_some(());
        await_some(Duration::from_secs(10), shut).expect("a killed process leaves it shut");
        let other = gate(&["--remove", "--group", "another"]);
        assert!(other.code == Some(1) && other.text.contains("no such gate"), "{}", other.text);
        // The address is removed before its gate. The machine's own address stays, because it has no mark of Locum.
        let mark = locum_sys::netlink::ADDRESS_METRIC.to_string();
        text(&rack, node, &["ip", "address", "add", "172.23.2.14/24", "dev", "eth0", "metric", &mark]);
        text(&rack, node, &["ip", "address", "add", "172.23.2.14/32", "dev", "eth0"]);
        let chosen = ["locum", "gate", "--remove", "--cluster", "lab", "--group", "172.23.2.14"];
        let said = text(&rack, node, &chosen);
        assert!(said.contains("removed: 172.23.2.14/24 on eth0\n"), "{said}");
        assert!(said.contains("kept: 172.23.2.14/32 on eth0: not added by Locum"), "{said}");
        assert!(said.contains("removed: cluster lab, "), "{said}");
        let left = text(&rack, node, &["ip", "address"]);
        assert!(
            !left.contains("172.23.2.14/24")
                && left.contains("172.23.2.14/32")
                && left.contains("172.23.2.12/"),
            "{left}"
        );
    }
    assert!(gate(&[]).text.contains("no gates here"));
}

/// Holds the lock of a running daemon.
fn lock(rack: &Rack, node: &str) -> fs::File {
    let run = rack.volatile(node).join("locum");
    fs::create_dir_all(&run).unwrap();
    locum_sys::file::lock_directory(&run).unwrap().expect("nobody else runs there")
}
