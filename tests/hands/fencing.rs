//! Devices that reset a node: a fence agent, and cluster-glue's null device through its own program.

use super::*;

/// A fence agent that succeeds once the file `works` exists, and notes its input.
const AGENT: &str = r#"#!/bin/sh
# As fence agents do: options from standard input, the exit code is the answer.
while read -r line; do
    echo "$line" >> /run/disk/asked
    [ "$line" = action=monitor ] && exit 0
done
[ -e /run/disk/works ] && exit 0
echo "the device does not answer" >&2
exit 1
"#;

/// A layer with one program over the nodes' system.
fn layer(name: &str, program: &str) -> tempfile::TempDir {
    let layer = tempfile::tempdir().unwrap();
    let programs = layer.path().join("usr/sbin");
    fs::create_dir_all(&programs).unwrap();
    fs::set_permissions(layer.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(programs.join(name), program).unwrap();
    fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    layer
}

/// Two stable nodes with a device; the first one has just lost its power.
fn bereaved(layer: &Path, device: &str) -> Option<Pair> {
    let mut pair = Pair::build(Some(layer))?;
    for node in [0, 1] {
        pair.start(node, &format!("stonith_host * {device}\n"));
    }
    pair.wait("both settle", |pair| {
        [0, 1].iter().all(|&node| pair.is_stable(node)) && owner(pair, 1).as_deref() == Some(NODES[0])
    });
    pair.wait("the device is looked at", |pair| {
        pair.log_has(
            1,
            &format!("info: Checking status of STONITH device [{}]", device.split(' ').next().unwrap()),
        )
    });
    pair.rack.power_off(NODES[0]).unwrap();
    Some(pair)
}

fn owner(pair: &Pair, node: usize) -> Option<String> {
    pair.status(node)?.cluster.groups.first()?.owner.clone()
}

#[test]
fn a_fence_agent_is_asked_until_it_has_reset_the_peer_and_nothing_is_taken_before() {
    let layer = layer("fence_pretend", AGENT);
    let Some(pair) = bereaved(layer.path(), "fence_pretend ip=10.0.0.9 password=secret") else { return };
    pair.wait("asked in vain", |pair| pair.log_has(1, "WARN: STONITH of clustnode1 failed.  Retrying..."));
    assert!(pair.log_has(1, "info: Resetting node clustnode1 with [fence_pretend]"));
    assert!(pair.log_has(1, "ERROR: Host clustnode1 not reset! (exit code 1: the device does not answer)"));
    assert_eq!(owner(&pair, 1), None, "nothing is taken from a node that was not reset");
    let asked = pair.text(1, "asked");
    let reset = "ip=10.0.0.9\npassword=secret\naction=reboot\nnodename=clustnode1\nplug=clustnode1\n";
    assert!(
        asked.starts_with("ip=10.0.0.9\npassword=secret\naction=monitor\n") && asked.ends_with(reset),
        "{asked}"
    );
    pair.put(1, "works", "");
    pair.wait("reset", |pair| pair.log_has(1, "info: node clustnode1 now reset."));
    pair.wait("taken over", |pair| owner(pair, 1).as_deref() == Some(NODES[1]));
}

#[test]
fn the_null_device_of_cluster_glue_resets_the_peer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/root");
    if !root.join("usr/sbin/stonith").exists() {
        return crate::skipped("no stonith program: scripts/peers fetches it");
    }
    let Some(pair) = bereaved(&root, "null clustnode1 clustnode2") else { return };
    pair.wait("taken over", |pair| owner(pair, 1).as_deref() == Some(NODES[1]));
    for words in ["info: Resetting node clustnode1 with [null]", "info: node clustnode1 now reset."] {
        assert!(pair.log_has(1, words), "{words}\n{}", pair.text(1, "ha-log"));
    }
    assert!(!pair.log_has(1, "ERROR:") && !pair.log_has(1, "CRIT:"), "{}", pair.text(1, "ha-log"));
}

#[test]
fn a_device_that_does_not_work_is_told_before_it_is_needed() {
    let layer = layer(
        "fence_broken",
        "#!/bin/sh\ncat > /run/disk/asked\necho 'no route to the device' >&2\nexit 1\n",
    );
    let Some(mut pair) = Pair::build(Some(layer.path())) else { return };
    for node in [0, 1] {
        pair.start(node, "stonith_host * fence_broken ip=10.0.0.9\n");
    }
    let told = [
        "info: Checking status of STONITH device [fence_broken]",
        "ERROR: STONITH device fence_broken not operational! (exit code 1: no route to the device)",
        "ERROR: STONITH status operation failed.",
        "ERROR: This may mean that the STONITH device has failed! Nothing is taken over from a node that it cannot reset.",
    ];
    for node in [0, 1] {
        for words in told {
            pair.wait(words, |pair| pair.log_has(node, words));
        }
        assert_eq!(pair.text(node, "asked"), "ip=10.0.0.9\naction=monitor\n");
    }
    // The cluster serves nevertheless.
    pair.wait("both settle", |pair| {
        [0, 1].iter().all(|&node| pair.is_stable(node)) && owner(pair, 1).as_deref() == Some(NODES[0])
    });
    assert!(!pair.log_has(1, "Resetting node"), "nobody is reset");
}
