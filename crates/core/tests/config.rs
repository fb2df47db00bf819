//! Whole configurations with their expected diagnostics, and properties that hold for any bytes.
//!
//! A case is a directory below `tests/configs` with the three files and `expected.txt`. `LOCUM_BLESS=1 cargo test -p
//! locum-core --test config` rewrites the expected texts; review the difference.

use std::{fs, path::Path};

use locum_core::config::{Changes, CheckOptions, CheckedHaFiles, HaFiles, Severity, check, keys, plan};
use proptest::prelude::*;

/// The diagnostics and explanations of one directory.
fn diagnostics(dir: &Path, node: &str) -> String {
    let [ha_cf, authkeys, haresources] =
        ["ha.cf", "authkeys", "haresources"].map(|name| fs::read(dir.join(name)).ok());
    let files = HaFiles {
        ha_cf: ha_cf.as_deref(),
        authkeys: authkeys.as_deref(),
        haresources: haresources.as_deref(),
    };
    let checked = check(&files, node, &CheckOptions::default());
    let mut text = String::new();
    for line in &checked.explained {
        text += &format!("{}:{}: {}\n", line.file, line.line, line.text);
    }
    text += "----\n";
    for diag in &checked.diags {
        text += &format!("{diag}\n");
    }
    text += "----\n";
    match (&checked.plan, &checked.keys) {
        (Some(plan), Some(keys)) => text += &format!("{plan:#?}\n{keys:?}\n"),
        (plan, keys) => text += &format!("plan: {}, keys: {}\n", plan.is_some(), keys.is_some()),
    }
    text
}

#[test]
fn every_configuration_is_read_as_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    let mut cases = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    cases.sort();
    assert!(cases.len() >= 15, "{cases:?}");
    for dir in cases {
        let said = diagnostics(&dir, "clustnode1");
        let expected = dir.join("expected.txt");
        if std::env::var_os("LOCUM_BLESS").is_some() {
            fs::write(&expected, said).unwrap();
        } else {
            assert_eq!(said, fs::read_to_string(&expected).unwrap(), "{}", dir.display());
        }
    }
}

/// The configurations that were recorded with heartbeat itself must pass without an error.
#[test]
fn recorded_configurations_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    for name in ["crc1", "md51", "sha1", "ns1", "uc1", "ser1", "png1", "ston1", "key1", "leg1", "bad1"] {
        for node in ["clustnode1", "CLUSTNODE2"] {
            let text = diagnostics(&root.join(name), node);
            assert!(!text.contains(": error: ") && text.contains("Plan {"), "{name}: {text}");
        }
    }
}

const HA_CF: &str = "bcast eth1\nnode web1 web2\n";

fn checked(ha_cf: &str, node: &str) -> CheckedHaFiles {
    let files = HaFiles {
        ha_cf: Some(ha_cf.as_bytes()),
        authkeys: Some(b"auth 1\n1 sha1 k\n"),
        haresources: Some(b"web1 10.0.0.1\n"),
    };
    check(&files, node, &CheckOptions::default())
}

#[test]
fn a_host_that_is_no_node_is_told_both_names() {
    let diags = |node: &str| checked(HA_CF, node).diags.iter().map(ToString::to_string).collect::<Vec<_>>();
    let only = "ha.cf:1:7: info: eth1 is the only link: when it breaks, both nodes start all groups (add a second link \
                that shares nothing with it)";
    assert_eq!(diags("web1"), [only]);
    assert_eq!(
        diags("web1.example.org"),
        [
            only,
            "ha.cf:2:6: error: this host is `web1.example.org`, but ha.cf has `web1` (write `node web1.example.org` \
             (here and in haresources, on both nodes), or put `web1` into the file nodeinfo)",
        ]
    );
    assert_eq!(
        diags("db"),
        [
            only,
            "ha.cf:2:6: error: this host is `db`, but ha.cf has `web1` and `web2` (is this the right host and file? A \
             node is named as `uname -n` prints it, or as the file nodeinfo says)",
        ]
    );
    assert!(checked(HA_CF, "db").diags.iter().all(|diag| diag.host == diag.message.contains("this host")));
}

#[test]
fn a_name_that_a_person_chose_is_not_this_hosts() {
    let files = HaFiles { ha_cf: Some(HA_CF.as_bytes()), authkeys: None, haresources: None };
    let options = CheckOptions { is_named: true, ..CheckOptions::default() };
    for (node, said) in [
        (
            "web1.example.org",
            "ha.cf has no node `web1.example.org`, only `web1` and `web2` (check as `web1`)",
        ),
        (
            "db",
            "ha.cf has no node `db`, only `web1` and `web2` (check as one of these, or add a `node` line)",
        ),
    ] {
        let diags = check(&files, node, &options).diags;
        let text = diags.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains(said) && !text.contains("this host"), "{text}");
    }
}

#[test]
fn a_spoiled_line_is_told_once() {
    let told = |lines: &str| {
        let checked = checked(&format!("{HA_CF}{lines}"), "web1");
        let errors = checked.diags.iter().map(|diag| (diag.severity, diag.message.clone()));
        let errors = errors.filter(|(severity, _)| *severity != Severity::Info);
        let explained = checked.explained.iter().filter(|line| line.text.contains("is not set"));
        (
            errors.map(|(_, message)| message).collect::<Vec<_>>(),
            explained.map(|line| line.text.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>(),
        )
    };
    let without = |name: &str| {
        let all = ["keepalive", "deadtime", "warntime", "initdead", "auto_failback"];
        all.into_iter().filter(|known| *known != name).collect::<Vec<_>>()
    };
    assert_eq!(told(""), (vec![], without("").into_iter().map(String::from).collect()));
    for line in ["keepalive abc", "deadtime", "warntime \u{1}", "initdead 0", "auto_failback maybe"] {
        let (errors, unset) = told(&format!("{line}\n"));
        assert_eq!(errors.len(), 1, "{line}: {errors:?}");
        assert_eq!(unset, without(line.split(' ').next().unwrap()), "{line}");
    }
    // A value without its counterpart is not compared either.
    assert_eq!(told("keepalive abc\ndeadtime 1\n").0.len(), 1);
    assert_eq!(told("deadtime abc\ninitdead 10\nwarntime 40\n").0.len(), 1);
    assert_eq!(told("auto_failback off\nping nowhere\nrespawn root /usr/lib/heartbeat/ipfail\n").0.len(), 1);
    assert_eq!(told("keepalive 1\ndeadtime 2\n").0, ["deadtime is 2 s, not above two keepalives (2 s)"]);
    // Spoiled lines of nodes and media do not count as missing.
    for text in [String::from("bcast\nnode web1 web2\n"), format!("bcast eth1\nnode {}\n", "x".repeat(100))] {
        let diags = checked(&text, "web1").diags;
        let of_cf = diags.iter().filter(|diag| diag.file.name() == "ha.cf").collect::<Vec<_>>();
        assert_eq!(of_cf.len(), 1, "{text}: {of_cf:?}");
    }
}

#[test]
fn scripts_see_the_parameters() {
    let text = format!("{HA_CF}deadtime 3\nkeepalive 500ms\nenv EDITOR=a,b\nlogfile /l\n");
    let parameters = checked(&text, "web1").parameters;
    for (name, value) in [
        ("deadtime", Some("3")),
        ("keepalive", Some("500ms")),
        ("deadping", Some("3000ms")),
        ("warntime", Some("1500ms")),
        ("udpport", Some("694")),
        ("cluster", Some("linux-ha")),
        ("EDITOR", Some("a,b")),
        ("logfile", Some("/l")),
        ("debugfile", None),
        ("node", None),
    ] {
        assert_eq!(parameters.get(name).map(String::as_str), value, "{name}");
    }
}

#[test]
fn the_page_of_directives_is_the_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ha.cf.md");
    let old = fs::read_to_string(&page).unwrap();
    let (before, rest) = old.split_once("<!-- table -->\n").expect("the page has a mark before its table");
    let (_, after) = rest.split_once("<!-- end -->\n").expect("the page has a mark behind its table");
    let table = locum_core::config::directives::table();
    let new = format!("{before}<!-- table -->\n{table}<!-- end -->\n{after}");
    if std::env::var_os("LOCUM_BLESS").is_some() {
        fs::write(&page, new).unwrap();
    } else {
        assert_eq!(old, new, "docs/ha.cf.md: LOCUM_BLESS=1 rewrites its table");
    }
}

#[test]
fn missing_files_are_said() {
    let (plan, diags) = plan(&HaFiles::default(), "web1", &CheckOptions::default());
    assert_eq!(plan, None);
    let diags = diags.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        diags,
        [
            "ha.cf: error: the file is missing (it names the nodes and the links; for a cluster of Locum alone `locum \
             init` writes locum.toml)",
            "authkeys: error: the file is missing (write `auth 1` and, below it, `1 sha1 SECRET`; chmod 600; the same \
             on both nodes)",
            "haresources: error: the file is missing (it must be there, even if it is empty)",
        ]
    );
}

#[test]
fn the_smallest_deadtime_is_just_above_two_keepalives() {
    for (keepalive, deadtime, good) in
        [("50ms", "100ms", false), ("50ms", "101ms", true), ("1", "2", false), ("1", "2001ms", true)]
    {
        let text = format!("{HA_CF}keepalive {keepalive}\ndeadtime {deadtime}\n");
        assert_eq!(checked(&text, "web1").plan.is_some(), good, "{keepalive} {deadtime}");
    }
}

#[test]
fn initdead_follows_from_deadtime() {
    for (deadtime, initdead) in [("30", 30), ("10.001", 10), ("10", 20), ("6", 12), ("5", 12), ("0.5", 12)] {
        let text = format!("{HA_CF}keepalive 100ms\ndeadtime {deadtime}\n");
        assert_eq!(checked(&text, "web1").plan.unwrap().timing.initdead.as_secs(), initdead, "{deadtime}");
    }
}

#[test]
fn ports_and_rates_hold_for_the_lines_below_them() {
    let text = "bcast eth0\nudpport 1\nserial /dev/a\nbcast eth1\nbaud 9600\nserial /dev/b\nnode web1 web2\n";
    let checked = checked(text, "web1");
    let media = checked.plan.unwrap().links.into_iter().map(|link| format!("{:?}", link.media));
    assert_eq!(
        media.collect::<Vec<_>>(),
        [
            r#"[Broadcast { interface: "eth0", port: 694 }]"#,
            r#"[Serial { device: "/dev/a", baud: 19200 }]"#,
            r#"[Broadcast { interface: "eth1", port: 1 }]"#,
            r#"[Serial { device: "/dev/b", baud: 9600 }]"#,
        ]
    );
    let diags = checked.diags.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        diags,
        [
            "ha.cf:2:9: warning: the medium in line 1 is set up before this port is known (move `udpport` above all \
             media)",
            "ha.cf:5:6: warning: the serial line in line 3 is set up before this rate is known (move `baud` above all \
             serial lines)",
        ]
    );
}

#[test]
fn lines_may_have_5119_bytes() {
    for (length, good) in [(5119, true), (5120, false)] {
        let line = format!("cluster {}", "x".repeat(length - 8));
        assert_eq!(checked(&format!("{HA_CF}{line}\n"), "web1").plan.is_some(), good, "{length}");
    }
    assert!(checked(&format!("{HA_CF}#{}", "x".repeat(2 << 20)), "web1").plan.is_none());
}

#[test]
fn comments_may_hold_anything() {
    let files = HaFiles {
        ha_cf: Some(b"node web1 web2 # \xff\xfe\n# \x00\nbcast eth1#eth2\n"),
        authkeys: Some(b"auth 1\n1 sha1 k\n"),
        haresources: Some(b"web1 10.0.0.1 # \xe4\n"),
    };
    let (plan, diags) = plan(&files, "web1", &CheckOptions::default());
    assert_eq!(plan.unwrap().links.len(), 1, "{diags:?}");
}

#[test]
fn what_needs_a_restart_is_said() {
    let plan = |ha_cf: &str, haresources: &str| {
        let files = HaFiles {
            ha_cf: Some(ha_cf.as_bytes()),
            authkeys: Some(b"auth 1\n1 sha1 k\n"),
            haresources: Some(haresources.as_bytes()),
        };
        plan(&files, "web1", &CheckOptions::default()).0.expect("a good configuration")
    };
    let old = plan("bcast eth1\nserial /dev/ttyS0\nnode web1 web2\n", "web1 10.0.0.1\nweb2 nfs\n");
    assert_eq!(Changes::between(&old, &old), Changes::default());
    let comments =
        plan("# c\nbcast eth1\nserial /dev/ttyS0\nnode web1,web2\n", "web1 \\\n 10.0.0.1\nweb2 nfs\n");
    assert_eq!(Changes::between(&old, &comments), Changes::default());
    let swapped = plan("bcast eth1\nserial /dev/ttyS0\nnode web1 web2\n", "web2 nfs\nweb1 10.0.0.1\n");
    let changes = Changes::between(&old, &swapped);
    assert!(changes.reload.is_empty());
    assert_eq!(changes.restart, ["haresources: the lines are in another order"]);
    let new = plan(
        "udpport 700\nbcast eth1 eth2\nnode web1 web3\ndeadtime 10\nauto_failback off\nlogfile /l\nping 10.0.0.9\n",
        "web1 10.0.0.1 httpd\nweb3 ldap\n",
    );
    let changes = Changes::between(&old, &new);
    assert_eq!(
        changes.restart,
        [
            "node: web1 web2 runs, the file says web1 web3",
            "group 10.0.0.1: the file says something else now",
            "group nfs: runs, but is no longer in the file",
            "group ldap: is new in the file",
        ]
    );
    assert_eq!(
        changes.reload,
        [
            "warntime: 15 s runs, the file says 5 s",
            "deadtime: 30 s runs, the file says 10 s",
            "initdead: 30 s runs, the file says 20 s",
            "deadping: 30 s runs, the file says 10 s",
            "auto_failback: legacy runs, the file says off",
            "link eth1: the file says something else now",
            "link /dev/ttyS0: runs, but is no longer in the file",
            "link eth2: is new in the file",
            "ping node 10.0.0.9: is new in the file",
            "log settings of ha.cf",
        ]
    );
}

/// Lines that look like those of the three files.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => proptest::sample::select(locum_core::config::directives::ROWS).prop_map(|row| row.name.to_string()),
        6 => proptest::sample::select(vec![
            "web1", "web2", "eth0", "10.0.0.1/24", "fd00::1/64", "1", "0", "500ms", "1.5", "on", "off", "legacy",
            "auth", "crc", "sha1", "225.0.0.1", "694", "/dev/ttyS0", "\\", "\\\n", "#", ",", "::", "IPaddr::10.0.0.2",
            "ocf:a:b::c=d", "OCF::a::b", "Delay::1", "MailTo::x", "Filesystem::a::/b", "\n", "\n", "\n", "\r\n",
        ]).prop_map(str::to_string),
        1 => "\\PC{0,8}",
    ];
    let words = proptest::collection::vec((word, prop_oneof![" ", "\t", "\n", ""]), 0..60);
    words.prop_map(|words| words.into_iter().map(|(word, gap)| word + &gap).collect::<String>().into_bytes())
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![proptest::collection::vec(any::<u8>(), 0..400), soup()]
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(ha_cf in any_file(), authkeys in any_file(), haresources in any_file()) {
        let files = HaFiles { ha_cf: Some(&ha_cf), authkeys: Some(&authkeys), haresources: Some(&haresources) };
        let checked = check(&files, "web1", &CheckOptions::default());
        for diag in &checked.diags {
            let text = match diag.file.name() { "ha.cf" => &ha_cf, "authkeys" => &authkeys, _ => &haresources };
            prop_assert!(diag.place.span.start <= diag.place.span.end && diag.place.span.end <= text.len());
            prop_assert!(diag.to_string().chars().all(|c| !c.is_control()), "{diag}");
            prop_assert!(diag.file.name() != "authkeys" || diag.text.is_empty());
        }
        prop_assert!(checked.explained.iter().all(|line| line.text.chars().all(|c| !c.is_control())));
        let (plan, diags) = plan(&files, "web1", &CheckOptions::default());
        prop_assert_eq!(plan.is_none(), locum_core::config::failed(&diags));
        if let Some(plan) = plan {
            prop_assert!(plan.timing.deadtime > plan.timing.keepalive * 2);
            prop_assert!(!plan.links.is_empty() && plan.links.iter().all(|link| !link.media.is_empty()));
            prop_assert!((1..=2).contains(&plan.nodes.len()) && plan.me.0 < plan.nodes.len());
            prop_assert!(plan.groups.iter().all(|group| group.node.0 < plan.nodes.len()));
            prop_assert!(plan.groups.iter().all(|group| !group.resources.is_empty()));
        }
    }

    #[test]
    fn no_secret_gets_into_a_diagnostic(
        before in soup(), words in proptest::collection::vec("auth|sha1|md5|crc|[0-9]{1,2}|Qq[x-z]{12}", 1..30),
    ) {
        let mut text = before;
        for (at, word) in words.iter().enumerate() {
            text.extend_from_slice(word.as_bytes());
            text.push(if at % 3 == 2 { b'\n' } else { b' ' });
        }
        let (_, diags) = keys(&text);
        for diag in diags {
            prop_assert!(!format!("{diag:?}").contains("Qq"), "{diag:?}");
        }
    }
}

/// The diagnostics of `ha.cf`, without those that every file gets.
fn remarks(ha_cf: &str, options: &CheckOptions) -> Vec<String> {
    let files = HaFiles {
        ha_cf: Some(ha_cf.as_bytes()),
        authkeys: Some(b"auth 1\n1 sha1 k\n"),
        haresources: Some(b"web1 10.0.0.1\n"),
    };
    let diags = check(&files, "web1", options).diags;
    let news = diags.iter().filter(|diag| diag.severity != Severity::Info);
    news.map(ToString::to_string).collect()
}

#[test]
fn what_deserves_a_word_gets_one_and_what_does_not_gets_none() {
    let nothing = "ping nodes are watched, and nothing moves when they fall silent: no ipfail compares them (add `respawn \
                   hacluster /usr/lib/heartbeat/ipfail`)";
    let nothing_at = |place: &str| vec![format!("ha.cf:{place}: warning: {nothing}")];
    let early = "the medium in line 1 is set up before this port is known (move `udpport` above all media)";
    for (lines, said) in [
        ("ping 10.0.0.9\n", nothing_at("3:6")),
        ("ping_group routers 10.0.0.9 10.0.0.10\n", nothing_at("3:12")),
        ("ping 10.0.0.9\nauto_failback off\nrespawn hacluster /usr/lib/heartbeat/ipfail\n", vec![]),
        // The default, which the medium above also has.
        ("udpport 694\n", vec![]),
        ("udpport 695\n", vec![format!("ha.cf:3:9: warning: {early}")]),
        (
            "undport 694\n",
            vec!["ha.cf:3:1: error: `undport` is not a directive (did you mean `udpport`?)".into()],
        ),
    ] {
        assert_eq!(
            remarks(&format!("bcast eth1\nnode web1 web2\n{lines}"), &CheckOptions::default()),
            said,
            "{lines}"
        );
    }
}

#[test]
fn names_are_looked_up_where_heartbeat_does() {
    let resolve = |name: &str, is_v6: Option<bool>| match (name, is_v6) {
        ("router", None | Some(false)) => Some("192.0.2.9".parse().unwrap()),
        ("router", Some(true)) | ("web2-six", _) => Some("fd00::9".parse().unwrap()),
        ("web2.example.org", None | Some(false)) => Some("192.0.2.2".parse().unwrap()),
        _ => None,
    };
    let known = CheckOptions { resolve, ..CheckOptions::default() };
    let ipfail = "auto_failback off\nrespawn hacluster /usr/lib/heartbeat/ipfail\n";
    let warning = |at: &str, name: &str, ip: &str| {
        format!(
            "ha.cf:{at}: warning: `{name}` is a name: it is looked up when the daemon starts, and is {ip} now (write `{ip}`: \
             name resolution may be down when it is needed)"
        )
    };
    for (line, said) in [
        ("ping router\n", warning("3:6", "router", "192.0.2.9")),
        ("ping6 router\n", warning("3:7", "router", "fd00::9")),
        ("ping_group routers 10.0.0.10 router\n", warning("3:30", "router", "192.0.2.9")),
        ("ucast eth1 web2.example.org\n", warning("3:12", "web2.example.org", "192.0.2.2")),
        ("ucast6 eth1 web2-six\n", warning("3:13", "web2-six", "fd00::9")),
    ] {
        let ipfail = if line.starts_with("ping") { ipfail } else { "" };
        assert_eq!(remarks(&format!("bcast eth1\nnode web1 web2\n{line}{ipfail}"), &known), [said], "{line}");
    }
    for (line, said) in [
        (
            "ping nowhere\n",
            "ha.cf:3:6: error: `nowhere` is neither an address nor a name that this host can resolve (write the \
             address in numbers: name resolution may be down when it is needed)",
        ),
        (
            "ucast eth1 10.0.0\n",
            "ha.cf:3:12: error: `10.0.0` is not an address (write it in numbers: name resolution may be down when \
             it is needed)",
        ),
    ] {
        assert_eq!(remarks(&format!("bcast eth1\nnode web1 web2\n{line}"), &known), [said], "{line}");
    }
}

/// A line that could not be read leaves its setting unknown: no other line is blamed for that.
#[test]
fn a_node_that_could_not_be_read_is_told_once() {
    for node in
        ["node web1\u{a0}web2", "node web1 web2\u{a0}", "node \u{feff}web1 web2", "node web1 web\u{1}2"]
    {
        let errors = remarks(&format!("bcast eth1\n{node}\n"), &CheckOptions::default());
        assert_eq!(errors.len(), 1, "{node}: {errors:#?}");
        assert!(errors[0].starts_with("ha.cf:2:"), "{errors:#?}");
    }
}
