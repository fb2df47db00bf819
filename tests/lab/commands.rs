//! Heartbeat's own scripts against our daemon, on a rack node with heartbeat's files in their usual places: its
//! `hb_standby` and `ha_clustermsg`, its boot script, and ours.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use locum_lab::{Description, Program, Rack, clock::await_some};

use super::{LOCUM, build};

const LIMIT: Duration = Duration::from_secs(60);
/// All of heartbeat's files are in their usual places, except those that our links replace.
const HEARTBEAT: &str = "/run/disk/names/heartbeat";

const HA_CF: &str = "bcast eth1\nkeepalive 100ms\nwarntime 500ms\ndeadtime 2\ninitdead 20\nauto_failback off\n\
                     logfile /run/disk/ha-log\ndebugfile /run/disk/ha-debug\nnode a1 a2\n";
const SERVICE: &str = "#!/bin/sh\ncase $1 in start) : > /run/mark;; stop) rm -f /run/mark;;\n\
                       status) test -e /run/mark && echo running || echo stopped;; esac\n";
/// An administrator's event script: what it sees, after heartbeat's own shell functions.
const BACKUP: &str = "#!/bin/sh\n. $HA_FUNCS\nha_log \"info: backup $HA_level\"\n\
                      env > /run/seen.new\nmv /run/seen.new /run/seen\n";

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Two nodes with heartbeat's files, and the same configuration.
fn rack(root: &Path) -> Option<Rack> {
    let rack = build(
        Description::new(Path::new(LOCUM))
            .node("a1")
            .node("a2")
            .crossover("crossover", [("a1", "eth1", "10.0.0.1/24"), ("a2", "eth1", "10.0.0.2/24")])
            .layer(root),
    )?;
    for node in ["a1", "a2"] {
        let place = rack.disk(node).join("ha.d");
        // The node's own directory covers the layer's.
        fs::create_dir_all(place.join("rc.d")).unwrap();
        fs::create_dir_all(place.join("resource.d")).unwrap();
        let rc_d = ["status", "ip-request", "ip-request-resp", "hb_takeover", "ask_resources"];
        let files = rc_d.map(|name| format!("rc.d/{name}")).into_iter();
        for file in files.chain(["harc".to_owned(), "shellfuncs".to_owned()]) {
            fs::copy(root.join("etc/ha.d").join(&file), place.join(&file)).unwrap();
        }
        write(&place.join("ha.cf"), HA_CF, 0o644);
        write(&place.join("authkeys"), "auth 1\n1 sha1 secret\n", 0o600);
        write(&place.join("haresources"), "a1 service\n", 0o644);
        write(&place.join("resource.d/service"), SERVICE, 0o755);
        write(&place.join("rc.d/backup"), BACKUP, 0o755);
        fs::create_dir(rack.disk(node).join("names")).unwrap();
        for (from, to) in [
            (root.join("etc/init.d/heartbeat"), "original.init"),
            (Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/heartbeat.init"), "ours.init"),
        ] {
            let text = fs::read_to_string(from).unwrap();
            let text =
                text.replace("HEARTBEAT=/usr/libexec/heartbeat/heartbeat", &format!("HEARTBEAT={HEARTBEAT}"));
            write(&rack.disk(node).join(to), &text, 0o755);
        }
        output_of(&rack, node, "locum links /run/disk/names");
    }
    Some(rack)
}

/// Exit code and text of a shell line.
fn shell(rack: &Rack, node: &str, line: &str) -> (Option<i32>, String) {
    let outcome = rack.run(node, &Program::new(&["/bin/sh", "-c", line]), LIMIT).unwrap();
    (outcome.code, outcome.text)
}

fn output_of(rack: &Rack, node: &str, line: &str) -> String {
    let (code, text) = shell(rack, node, line);
    let log = fs::read_to_string(rack.disk(node).join("ha-log")).unwrap_or_default();
    assert_eq!(code, Some(0), "{node}: {line}: {text}\n{log}");
    text
}

fn until(rack: &Rack, node: &str, line: &str) {
    let is_so = || (shell(rack, node, line).0 == Some(0)).then_some(());
    let log = || fs::read_to_string(rack.disk(node).join("ha-log")).unwrap_or_default();
    assert!(await_some(LIMIT, is_so).is_some(), "{node}: {line}\n{}", log());
}

#[test]
fn heartbeats_own_scripts_lead_our_daemon() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/root");
    if !root.join("usr/share/heartbeat/hb_standby").exists() {
        return crate::skipped("no real peers: scripts/peers fetches them");
    }
    let Some(rack) = rack(&root) else { return };
    // Heartbeat's event scripts are there unchanged, so `check` does not mention them.
    assert!(!output_of(&rack, "a1", "locum check").contains("rc.d"));
    // Heartbeat's own boot script starts our daemon through the link, after its own ResourceManager looked around.
    for node in ["a1", "a2"] {
        let text = output_of(&rack, node, "mkdir -p /run/lock/subsys; sh /run/disk/original.init start 2>&1");
        assert!(text.contains("Done."), "{text}");
        let text = output_of(&rack, node, "sh /run/disk/original.init status");
        assert!(
            text.starts_with("heartbeat OK [pid ") && text.contains(&format!("running on {node} [{node}]"))
        );
        assert_eq!(output_of(&rack, node, "sh /run/disk/ours.init status"), text);
        assert_eq!(output_of(&rack, node, "kill -0 `cat /run/heartbeat.pid` && echo lives"), "lives\n");
    }
    until(&rack, "a1", "test -e /run/mark && locum status");
    until(&rack, "a2", "/run/disk/names/cl_status hbstatus && locum status");

    // hb_standby and hb_takeover, the shell scripts of 2002: messages to the FIFO.
    output_of(&rack, "a1", "/usr/share/heartbeat/hb_standby");
    until(&rack, "a2", "test -e /run/mark && locum status");
    until(&rack, "a1", "test ! -e /run/mark && locum status");
    output_of(&rack, "a1", "/usr/share/heartbeat/hb_takeover local");
    until(&rack, "a1", "test -e /run/mark && locum status");
    until(&rack, "a2", "test ! -e /run/mark && locum status");
    output_of(&rack, "a1", "/usr/share/heartbeat/hb_setweight a2 7");
    until(&rack, "a2", "test `/run/disk/names/cl_status nodeweight a2` = 7");

    // A message of the administrator's own, through heartbeat's harc, on both nodes.
    output_of(&rack, "a1", ". /etc/ha.d/shellfuncs; printf 't=backup\\nlevel=2\\n' | ha_clustermsg");
    for node in ["a1", "a2"] {
        until(&rack, node, "test -e /run/seen");
        let seen = fs::read_to_string(rack.volatile(node).join("seen")).unwrap();
        let has = |line: &str| seen.lines().any(|known| known == line);
        for line in [
            &format!("HA_CURHOST={node}"),
            "HA_t=backup",
            "HA_level=2",
            "HA_src=a1",
            "HA_OSTATUS=active",
            "HA_NICEFAILBACK=yes",
            "HA_DIR=/etc/ha.d",
            "HA_FUNCS=/etc/ha.d/shellfuncs",
            "HA_RCDIR=/etc/ha.d/rc.d",
            "HA_RESOURCEDIR=/etc/ha.d/resource.d",
            "HA_FIFO=/var/lib/heartbeat/fifo",
            "HA_BIN=/usr/libexec/heartbeat",
            "HA_DOCDIR=/usr/share/doc/heartbeat",
            "HA_LOGFILE=/run/disk/ha-log",
            "HA_DEBUGLOG=/run/disk/ha-debug",
            "HA_COMPRESSION=zlib",
            "HA_keepalive=100ms",
            "HA_deadtime=2",
            "OCF_ROOT=/usr/lib/ocf",
        ] {
            assert!(has(line), "{node}: {line}\n{seen}");
        }
        let log = fs::read_to_string(rack.disk(node).join("ha-log")).unwrap();
        assert!(log.contains("backup 2"), "what the script logs with heartbeat's functions: {log}");
    }

    // The other words of heartbeat's boot script, and of ours.
    let text = output_of(&rack, "a1", "sh /run/disk/original.init reload 2>&1");
    assert!(text.contains("Signalling heartbeat pid"), "{text}");
    let text = output_of(&rack, "a1", "sh /run/disk/original.init stop");
    assert!(text.contains("Done."), "{text}");
    until(&rack, "a2", "test -e /run/mark");
    assert_eq!(
        shell(&rack, "a1", "sh /run/disk/ours.init status"),
        (Some(3), "heartbeat is stopped. No process\n".into())
    );
    assert_eq!(shell(&rack, "a1", "test -e /run/mark -o -e /run/heartbeat.pid").0, Some(1));
    assert_eq!(
        output_of(&rack, "a1", "sh /run/disk/ours.init start"),
        "Starting High-Availability services: Done.\n"
    );
    until(&rack, "a1", "locum status");
    assert_eq!(
        output_of(&rack, "a1", "sh /run/disk/ours.init restart"),
        "Stopping High-Availability services: Done.\nStarting High-Availability services: Done.\n"
    );
    until(&rack, "a1", "locum status");
    assert!(output_of(&rack, "a1", "sh /run/disk/ours.init force-reload 2>&1").contains("Done."));
    assert_eq!(shell(&rack, "a1", "sh /run/disk/ours.init").0, Some(2));
    for node in ["a1", "a2"] {
        output_of(&rack, node, "sh /run/disk/ours.init stop");
    }
}

/// A message of the administrator's own crosses between our daemon and heartbeat itself, both ways, and each runs the
/// same script for it.
#[test]
fn scripts_of_both_programs_hear_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/root");
    if !root.join("usr/libexec/heartbeat/heartbeat").exists() {
        return crate::skipped("no real peers: scripts/peers fetches them");
    }
    let Some(rack) = rack(&root) else { return };
    output_of(&rack, "a1", &format!("{HEARTBEAT} && mkdir -p /run/resource-agents"));
    // The files that heartbeat's package and boot script make.
    output_of(
        &rack,
        "a2",
        "for d in run/heartbeat/ccm run/heartbeat/dopd lib/heartbeat/ccm lib/heartbeat/crm lib/heartbeat/pengine; do
             mkdir -p /var/$d && chmod 750 /var/$d && chown hacluster:haclient /var/$d || exit
         done
         for u in root nobody hacluster; do
             mkdir -p /var/lib/heartbeat/cores/$u && chown $u /var/lib/heartbeat/cores/$u || exit
         done
         mkdir -p /run/resource-agents && /usr/libexec/heartbeat/heartbeat",
    );
    until(&rack, "a1", "/run/disk/names/cl_status hbstatus");
    until(&rack, "a2", "cl_status hbstatus");
    let say = ". /etc/ha.d/shellfuncs; printf 't=backup\\nlevel=2\\n' | ha_clustermsg";
    for from in ["a1", "a2"] {
        output_of(&rack, from, say);
        for node in ["a1", "a2"] {
            until(&rack, node, "test -e /run/seen");
            let seen = fs::read_to_string(rack.volatile(node).join("seen")).unwrap();
            for line in ["HA_t=backup".to_owned(), "HA_level=2".to_owned(), format!("HA_src={from}")] {
                assert!(seen.lines().any(|known| known == line), "{from} to {node}: {line}\n{seen}");
            }
            fs::remove_file(rack.volatile(node).join("seen")).unwrap();
        }
    }
    output_of(&rack, "a1", "/run/disk/names/heartbeat -k");
    output_of(&rack, "a2", "/usr/libexec/heartbeat/heartbeat -k");
}

/// `locum resources takegroup` adds an address where no daemon runs, and announces it.
#[test]
fn a_group_with_an_address_is_taken_and_given_by_hand() {
    let Some(rack) = build(
        Description::new(Path::new(LOCUM))
            .node("a1")
            .node("a2")
            .crossover("crossover", [("a1", "eth1", "10.0.0.1/24"), ("a2", "eth1", "10.0.0.2/24")]),
    ) else {
        return;
    };
    let place = rack.disk("a1").join("conf");
    fs::create_dir_all(place.join("resource.d")).unwrap();
    write(&place.join("ha.cf"), HA_CF, 0o644);
    write(&place.join("authkeys"), "auth 1\n1 sha1 secret\n", 0o600);
    write(&place.join("haresources"), "a1 10.0.0.9 service\n", 0o644);
    write(&place.join("resource.d/service"), SERVICE, 0o755);
    let tap = rack.tap("crossover", "a1").unwrap();
    let resources = "locum --config /run/disk/conf --state /run/disk/state resources";
    assert_eq!(output_of(&rack, "a1", &format!("{resources} statgroup 10.0.0.9")), "NONE\n");
    output_of(&rack, "a1", &format!("{resources} takegroup 10.0.0.9"));
    assert_eq!(output_of(&rack, "a1", &format!("{resources} statgroup 10.0.0.9")), "ALL\n");
    output_of(&rack, "a1", "test -e /run/mark");
    output_of(&rack, "a1", &format!("{resources} status 10.0.0.9"));
    // An ARP frame whose sender is the address.
    let mut buffer = [0; 2048];
    let announced = || {
        let got = tap.receive(&mut buffer).ok().flatten()?;
        let frame = &buffer[..got.length];
        (frame.get(12..14) == Some(&[0x08, 0x06]) && frame.get(28..32) == Some(&[10, 0, 0, 9])).then_some(())
    };
    assert!(await_some(Duration::from_secs(5), announced).is_some(), "not announced");
    let (code, text) = shell(&rack, "a1", &format!("{resources} verifyallidle"));
    assert!(code == Some(2) && text.contains("Resource 10.0.0.9 is active"), "{code:?}: {text}");
    output_of(&rack, "a1", &format!("{resources} givegroup 10.0.0.9"));
    assert_eq!(output_of(&rack, "a1", &format!("{resources} statgroup 10.0.0.9")), "NONE\n");
    assert_eq!(shell(&rack, "a1", "test -e /run/mark").0, Some(1));
}
