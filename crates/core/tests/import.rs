//! heartbeat's files become a `locum.toml` that passes the check and runs the same resources.

use std::{fs, path::Path};

use locum_core::{
    config::{
        CheckOptions, HaFiles, Severity, check,
        import::{Imported, OwnAddress, import},
        locum_toml,
    },
    model::identity::NodeIndex,
    native::plan as native,
    r1::plan::R1Plan,
};

fn plan(ha_cf: &str, haresources: &str) -> R1Plan {
    let files = HaFiles {
        ha_cf: Some(ha_cf.as_bytes()),
        authkeys: Some(b"auth 1\n1 sha1 k\n"),
        haresources: Some(haresources.as_bytes()),
    };
    let checked = check(&files, "web1", &CheckOptions::default());
    checked.plan.unwrap_or_else(|| panic!("{:?}", checked.diags))
}

fn own(ips: &[(&str, &str)]) -> Vec<OwnAddress> {
    let address = |&(interface, ip): &(&str, &str)| OwnAddress {
        interface: interface.into(),
        ip: ip.parse().expect("an address of the test"),
    };
    ips.iter().map(address).collect()
}

/// The plan of the imported file. It must pass the check and run the same resources as the old plan.
fn round(old: &R1Plan, imported: &Imported) -> native::NativePlan {
    let me = &old.nodes[old.me.0];
    let checked = locum_toml::check(imported.text.as_bytes(), me);
    let errors = checked.diags.iter().filter(|diag| diag.severity == Severity::Error).collect::<Vec<_>>();
    let new = checked.plan.unwrap_or_else(|| panic!("{errors:#?}\n{}", imported.text));
    assert_eq!(new.groups.len(), old.groups.len());
    for group in &old.groups {
        let same =
            |it: &&native::NativeGroup| it.resources.iter().map(|it| &it.runs).eq(group.resources.iter());
        let found = new.groups.iter().find(same).unwrap_or_else(|| panic!("{group:?}\n{}", imported.text));
        let preferred = &old.nodes[group.node.0];
        assert_eq!(found.prefer.iter().map(|node| &new.nodes[node.0].name).collect::<Vec<_>>(), [preferred]);
        assert_eq!(found.resources[0].monitor_every, None);
    }
    new
}

#[test]
fn everything_that_heartbeat_was_recorded_with_passes_the_check() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    let mut seen = 0;
    for entry in fs::read_dir(root).unwrap() {
        let dir = entry.unwrap().path();
        let [ha_cf, authkeys, haresources] =
            ["ha.cf", "authkeys", "haresources"].map(|name| fs::read(dir.join(name)).ok());
        let files = HaFiles {
            ha_cf: ha_cf.as_deref(),
            authkeys: authkeys.as_deref(),
            haresources: haresources.as_deref(),
        };
        for node in ["clustnode1", "clustnode2"] {
            let Some(old) = check(&files, node, &CheckOptions::default()).plan else { continue };
            let imported = import(&old, &own(&[("eth0", "10.77.0.1"), ("eth1", "10.88.0.1")]));
            if imported.open.is_empty() {
                round(&old, &imported);
                seen += 1;
            } else {
                assert!(old.nodes.len() == 1 || old.fencing.is_some(), "{:?}", imported.open);
            }
        }
    }
    assert!(seen >= 20, "only {seen} configurations were imported");
}

#[test]
fn what_changes_its_meaning_is_said() {
    let old = plan(
        "keepalive 500ms\ndeadtime 90\nauto_failback on\nucast eth0 10.0.0.2\nbcast eth1\nserial /dev/ttyS0\n\
         mcast eth2 239.1.2.3 694 0 0\nucast eth3 10.3.0.2\nping 10.0.0.254\nrespawn root /usr/bin/monitor\n\
         watchdog /dev/watchdog\nlogfile /var/log/ha \nnode web1 web2\n",
        "web1 10.0.0.100/24/eth0 httpd::a\nweb2 httpd::b Filesystem::/dev/sdb1::/srv::ext3\nweb2 10.0.0.101\n",
    );
    let imported = import(&old, &own(&[("eth0", "10.0.0.1"), ("lo", "127.0.0.1")]));
    let new = round(&old, &imported);
    assert_eq!(imported.open, Vec::<String>::new());
    let text = imported.text.lines().map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join(" ");
    for said in [
        "CHANGED: deadtime was 90 s; a pace is 100 ms to 60 s.",
        "a beat every 18 s (keepalive was 500 ms)",
        "the frames to 10.3.0.2 go as broadcast over eth3",
        "a ttl of 0 is written as 1",
        "the ping node 10.0.0.254 is not watched",
        "/usr/bin/monitor is not started",
        "the group is called httpd; heartbeat called it 10.0.0.100/24/eth0",
        "heartbeat had no guard for these data either",
        "make them with `locum keygen`",
    ] {
        assert!(text.contains(said), "{said}\n{}", imported.text);
    }
    assert_eq!(
        new.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(),
        ["10.0.0.101", "httpd", "httpd-2"]
    );
    assert!(new.groups.iter().all(|group| group.guard == native::Guard::None));
    assert!(
        new.groups.iter().all(|group| group.failback == native::Failback::After(std::time::Duration::ZERO))
    );
    assert_eq!(new.local.watchdog.as_deref(), Some("/dev/watchdog"));
    assert_eq!(new.local.logging.logfile.as_deref(), Some("/var/log/ha"));
    let eth0 = new.links.iter().find(|link| link.name == "eth0").unwrap();
    let ips = eth0.ends.iter().map(|end| match end {
        Some(native::LinkEnd::Address { ip, .. }) => ip.to_string(),
        other => panic!("{other:?}"),
    });
    assert_eq!(ips.collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(new.me, native::NativeMember::Node(NodeIndex(0)));
}

#[test]
fn data_that_fencing_protected_wait_for_a_decision() {
    let old = plan(
        "bcast eth0 eth1\nnode web1 web2\nstonith_host * ssh web1 web2\n",
        "web1 Filesystem::/dev/sdb1::/srv::ext3\n",
    );
    let imported = import(&old, &[]);
    assert_eq!(imported.open, ["the group Filesystem holds data that were protected by fencing"]);
    let checked = locum_toml::check(imported.text.as_bytes(), "web1");
    assert!(checked.plan.is_none());
    let decided =
        imported.text.replace("prefer = \"web1\"", "prefer = \"web1\"\ni-know = \"the array fences itself\"");
    assert!(locum_toml::check(decided.as_bytes(), "web1").plan.is_some());
}

#[test]
fn of_two_addresses_that_are_not_ours_none_is_taken_for_the_other_nodes() {
    let ha_cf = "node web1 web2\nucast eth0 10.0.0.1\nucast eth0 10.0.0.2\nbcast eth1\n";
    let old = plan(ha_cf, "web1 10.0.0.100\n");
    let known = import(&old, &own(&[("eth0", "10.0.0.1")])).text;
    assert!(known.contains("\"10.0.0.1\"") && known.contains("\"10.0.0.2\""), "{known}");
    let unknown = import(&old, &own(&[("eth0", "192.0.2.7")])).text;
    assert!(
        !unknown.contains("= \"10.0.0.1\"") && unknown.contains("go as broadcast over eth0"),
        "{unknown}"
    );
    assert!(unknown.is_ascii(), "{unknown}");
}
