//! Tests of `locum.toml` as a whole: the plans of good files, the diagnostics of bad ones, and that no bytes panic.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        identity::{GroupIndex, NodeIndex},
        resource::Agent,
        settings::differences,
        time::Duration,
    },
    native::plan::{Failback, Guard, LinkEnd, NativeMedium, NativeMember, Relation, WitnessIndex},
};

const FULL: &str = r#"
cluster = "shop"
pace = "300ms"

[nodes.beta]
links = { front = "10.0.0.2", back = "eth1", wire = "/dev/ttyS0" }

[nodes.alpha]
links = { front = "10.0.0.1%eth0", back = "eth1", wire = "/dev/ttyS1" }

[links.back]
multicast = "239.192.1.1"
port = 7001

[witnesses.third]
address = "10.9.0.1"

[defaults]
start-limit = "2min"

[groups.web]
resources = [
    "10.0.0.100/24/eth0",
    { unit = "nginx", monitor-every = "never" },
    { ocf = "heartbeat:apache", parameters = { configfile = "/etc/a=b.conf", port = 80 }, start-limit = "5s" },
]
prefer = "beta"
after = "database"
failback = "5min"

[groups.database]
resources = [{ mount = "/dev/vg/db", on = "/srv/db", type = "ext4" }, { script = "postgres", arguments = ["main"] }]
i-know = "the array admits one host"
apart = ["batch"]
guard = "none"
failback = "when-asked"

[groups.batch]
resources = "batchd"
nodes = ["alpha"]
spread = "work"

[local]
debug = 1
"#;

fn plan(text: &str) -> NativePlan {
    let checked = check(text.as_bytes(), "ALPHA");
    assert!(
        checked.diags.iter().all(|diag| diag.severity < crate::config::Severity::Error),
        "{:#?}",
        checked.diags
    );
    checked.plan.expect("a file without errors has a plan")
}

fn diagnostics(text: &str) -> Vec<String> {
    check(text.as_bytes(), "alpha").diags.iter().map(ToString::to_string).collect()
}

/// A good file with two nodes and a witness, and more lines below.
fn with(lines: &str) -> String {
    let nodes = "cluster = 'c'\nnodes.alpha.links.a = '10.0.0.1'\nnodes.alpha.links.b = '10.1.0.1'\n\
                 nodes.beta.links.a = '10.0.0.2'\nnodes.beta.links.b = '10.1.0.2'\nwitnesses.w.address = '10.9.0.1'\n";
    format!("{nodes}{lines}")
}

/// The one error about such a file, with its line in `lines`, counted from 1.
fn fault(lines: &str) -> String {
    let found = check(with(lines).as_bytes(), "alpha");
    let errors = found.diags.iter().filter(|diag| diag.severity == crate::config::Severity::Error);
    let errors = errors.collect::<Vec<_>>();
    assert_eq!(errors.len(), 1, "{lines}: {errors:#?}");
    let mut diag = errors[0].clone();
    diag.place.line = diag.place.line.saturating_sub(6);
    diag.to_string().replacen("locum.toml:", "", 1)
}

/// Members are named as `uname -n` prints them, in any case.
#[test]
fn capital_letters_in_the_names_of_members_make_no_difference() {
    let text = include_str!("../../../tests/cases/19-capital-letters-in-prefer/locum.toml");
    let files = [
        text.to_string(),
        text.replace("prefer = \"WEB1\"", "nodes = [\"WEB2\", \"Web1\"]"),
        format!("voters = [\"WEB1\", \"web2\"]\n{text}"),
    ];
    for file in files {
        let low = file.replace("WEB", "web").replace("Web", "web");
        let [read, plain] = [file, low].map(|file| check(file.as_bytes(), "web1"));
        let told = |checked: &CheckedLocumToml| {
            checked.diags.iter().map(|diag| diag.message.clone()).collect::<Vec<_>>()
        };
        assert!(read.plan.is_some(), "{:#?}", read.diags);
        assert_eq!(told(&read), told(&plain));
        assert_eq!(read.plan, plain.plan);
    }
}

#[test]
fn everything_is_read() {
    let plan = plan(FULL);
    assert_eq!(plan.cluster, "shop");
    assert_eq!(plan.timing.beat, Duration::from_millis(90));
    assert_eq!(plan.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["alpha", "beta"]);
    let [alpha, beta] = [NodeIndex(0), NodeIndex(1)];
    assert_eq!(plan.me, NativeMember::Node(alpha));
    assert_eq!(
        plan.voters,
        [NativeMember::Node(alpha), NativeMember::Node(beta), NativeMember::Witness(WitnessIndex(0))]
    );
    assert_eq!(plan.witnesses[0].address.to_string(), "10.9.0.1:6940");
    let links = plan.links.iter().map(|link| (link.name.as_str(), link.medium)).collect::<Vec<_>>();
    assert_eq!(
        links,
        [
            ("back", NativeMedium::Multicast { group: "239.192.1.1".parse().unwrap(), port: 7001, ttl: 1 }),
            ("front", NativeMedium::Unicast { port: 6940 }),
            ("wire", NativeMedium::Serial { baud: 115_200 }),
        ]
    );
    assert_eq!(
        plan.links[1].ends[0],
        Some(LinkEnd::Address { ip: "10.0.0.1".parse().unwrap(), interface: Some("eth0".into()) })
    );
    let [batch, database, web] = plan.groups.as_slice() else { panic!("{:?}", plan.groups) };
    assert_eq!((&web.prefer[..], &web.candidates[..]), (&[beta][..], &[beta, alpha][..]));
    assert_eq!((web.failback, web.guard), (Failback::After(Duration::from_secs(300)), Guard::Lease));
    assert_eq!(batch.candidates, [alpha]);
    assert_eq!((database.failback, database.guard), (Failback::WhenAsked, Guard::None));
    let [address, unit, ocf] = web.resources.as_slice() else { panic!() };
    assert!(matches!(address.runs.agent, Agent::Address(_)));
    assert_eq!(address.limits.start, Duration::from_secs(120));
    assert_eq!(address.monitor_every, Some(Duration::from_secs(5)));
    assert_eq!((unit.runs.script.as_str(), unit.monitor_every), ("nginx.service", None));
    assert_eq!(ocf.limits.start, Duration::from_secs(5));
    let Agent::Ocf { parameters, .. } = &ocf.runs.agent else { panic!() };
    assert_eq!(parameters[0], ("configfile".into(), "/etc/a=b.conf".into()));
    assert_eq!(parameters[1], ("port".into(), "80".into()));
    let specs = plan.specs();
    let names: Vec<&str> = specs[2].members.iter().map(|member| member.text.as_str()).collect();
    assert_eq!(names[2], "ocf:heartbeat:apache", "lines of the log repeat no parameters");
    assert!(specs[2].line.ends_with("ocf:heartbeat:apache::configfile=/etc/a=b.conf::port=80"));
    assert_eq!(database.resources[0].runs.text, "Filesystem::/dev/vg/db::/srv/db::ext4");
    assert_eq!(database.resources[1].runs.args, ["main"]);
    assert_eq!(
        plan.relations,
        [
            Relation::Apart(GroupIndex(0), GroupIndex(1)),
            Relation::After { group: GroupIndex(2), first: GroupIndex(1) },
            Relation::Spread { name: "work".into(), groups: [GroupIndex(0)].into() },
        ]
    );
    assert_eq!(plan.local.logging.debug, 1);
    assert_eq!(plan.group("web"), Some(GroupIndex(2)));
    assert_eq!(plan.member("third"), Some(NativeMember::Witness(WitnessIndex(0))));
    let starts = Duration::from_secs(120 + 120 + 5);
    assert_eq!(plan.takeover_bound(GroupIndex(2), &plan.timing), plan.timing.claim_bound(2) + starts);
}

#[test]
fn the_order_of_tables_and_the_way_of_writing_do_not_change_the_meaning() {
    let ours = plan(FULL);
    let mut tables = FULL.split("\n\n").collect::<Vec<_>>();
    tables[1..].reverse();
    let reordered = plan(&tables.join("\n\n# other\n"));
    assert_eq!(ours.canonical_settings(), reordered.canonical_settings());
    assert_eq!(ours.settings_digest(), reordered.settings_digest());
    let rewritten = FULL
        .replace("\"5min\"", "'300s'")
        .replace("debug = 1", "debug = 2")
        .replace("[nodes.beta]", "[nodes.BETA]");
    assert_eq!(ours.settings_digest(), plan(&rewritten).settings_digest());
    assert_eq!(
        check(FULL.as_bytes(), "third").plan.map(|plan| plan.settings_digest()),
        Some(ours.settings_digest())
    );
}

#[test]
fn a_change_is_named_by_its_setting() {
    let ours = plan(FULL);
    for (from, to, expected) in [
        (
            "eth1\", wire = \"/dev/ttyS0",
            "eth2\", wire = \"/dev/ttyS0",
            "link back: beta: Some(\"eth1\") Some(\"eth2\")",
        ),
        (
            "port = 7001",
            "port = 7002",
            "link back: Some(\"multicast 239.192.1.1, port 7001, ttl 1\") Some(\"multicast 239.192.1.1, port \
                7002, ttl 1\")",
        ),
        ("\"when-asked\"", "\"stay\"", "group database: failback: Some(\"when-asked\") Some(\"stay\")"),
        ("spread = \"work\"", "", "spread work: Some(\"batch\") None"),
        (
            "\"postgres\", arguments = [\"main\"]",
            "\"postgres\"",
            "group database: resource 2: Some(\"postgres::main\") Some(\"postgres\")",
        ),
        (
            "type = \"ext4\"",
            "options = \"ext4\"",
            "group database: resource 1: Some(\"Filesystem::/dev/vg/db::/srv/db::ext4::\") \
                Some(\"Filesystem::/dev/vg/db::/srv/db::::ext4\")",
        ),
    ] {
        assert!(FULL.contains(from), "{from}");
        let theirs = plan(&FULL.replacen(from, to, 1));
        assert_ne!(ours.settings_digest(), theirs.settings_digest());
        let found = differences(&ours.canonical_settings(), &theirs.canonical_settings());
        let found = found.into_iter().map(|it| format!("{}: {:?} {:?}", it.name, it.ours, it.theirs));
        assert_eq!(found.collect::<Vec<_>>(), [expected]);
    }
    let faster = plan(&FULL.replacen("300ms", "500ms", 1));
    assert!(
        differences(&ours.canonical_settings(), &faster.canonical_settings())
            .iter()
            .any(|it| it.name == "timing: lease")
    );
}

#[test]
fn the_lines_of_a_plan_are_one_a_setting() {
    let lines = plan(FULL).canonical_settings();
    let mut names =
        lines.iter().map(|line| line.split_once(" = ").expect("name = value").0).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), lines.len());
    let key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let keyed =
        plan(&FULL.replace("address = \"10.9.0.1\"", &format!("address = \"10.9.0.1\"\nkey = \"{key}\"")));
    let text = format!("{:?} {keyed:?}", keyed.canonical_settings());
    assert!(!text.contains(&key[..8]) && text.contains("witness third: key's digest = "), "{text}");
}

#[test]
fn voters_are_an_odd_number_where_that_can_be() {
    let voters = |nodes: usize, witnesses: usize, more: &str| {
        let mut text = format!("cluster = 'c'\n{more}\n");
        for node in 1..=nodes {
            text += &format!("nodes.n{node:02}.links = {{ a = '10.0.0.{node}', b = '10.1.0.{node}' }}\n");
        }
        for witness in 1..=witnesses {
            text += &format!("witnesses.w{witness}.address = '10.9.0.{witness}'\n");
        }
        let checked = check(text.as_bytes(), "n01");
        checked.plan.unwrap_or_else(|| panic!("{:?}", checked.diags)).voters.len()
    };
    for (nodes, witnesses, expected) in [
        (2, 0, 2),
        (2, 1, 3),
        (2, 2, 3),
        (3, 0, 3),
        (3, 1, 3),
        (4, 1, 5),
        (6, 1, 7),
        (7, 1, 7),
        (8, 1, 7),
        (32, 0, 7),
    ] {
        assert_eq!(voters(nodes, witnesses, ""), expected, "{nodes} {witnesses}");
    }
    assert_eq!(voters(3, 2, "voters = ['w2', 'n01', 'n02', 'n03', 'w1']"), 5);
}

#[test]
fn two_nodes_alone_have_no_guard_and_are_told_why() {
    let text = with("groups.g.resources = 'x'\n").replace("witnesses.w.address = '10.9.0.1'\n", "");
    let checked = check(text.as_bytes(), "alpha");
    assert_eq!(checked.plan.map(|plan| plan.groups[0].guard), Some(Guard::None));
    let diags = checked.diags.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(diags.len(), 1, "{diags:?}");
    assert!(
        diags[0].contains("with two voters a node cannot tell a dead node from an unreachable one"),
        "{diags:?}"
    );
    assert!(diags[0].contains("add a witness"), "{diags:?}");
    assert_eq!(diagnostics(&format!("{text}groups.g.guard = 'none'\n")), Vec::<String>::new());
    let diags = diagnostics(&format!("{text}groups.g.guard = 'lease'\n"));
    assert!(diags.len() == 1 && diags[0].contains("the guard `lease` needs a third voter"), "{diags:?}");
}

#[test]
fn addresses_that_no_host_has_are_warned_of() {
    for (address, is_warned_of) in [
        ("10.1.0.255/24", true),
        ("10.1.0.0/24/eth0", true),
        ("10.1.0.128/25", true),
        ("10.1.0.254/24", false),
        ("10.1.0.255/16", false),
        ("10.1.0.0/31", false),
        ("10.1.0.0/32", false),
        ("10.1.0.255", false),
        ("fd00::/64", false),
    ] {
        for resource in [format!("'{address}'"), format!("{{ address = '{address}' }}")] {
            let diags = diagnostics(&with(&format!("groups.g.resources = [{resource}]\n")));
            let is_about_it = |said: &String| said.contains("warning") && said.contains("no host has");
            assert_eq!(diags.iter().any(is_about_it), is_warned_of, "{resource}: {diags:?}");
        }
    }
}

#[test]
fn every_fault_has_its_place_and_its_cure() {
    let cases = [
        (
            "pace = 1\n",
            r#"1:8: error: the unit is missing (write `"1s"`; units are `ms`, `s`, `min` and `h`)"#,
        ),
        ("pace = 1s\n", r#"1:8: error: texts and times need quotes (write `"1s"`)"#),
        ("pace = '10ms'\n", "1:8: error: 10ms is too short (write a time from 100ms to 1min)"),
        ("pce = '1s'\n", "1:1: error: `pce` is not a key of this table (did you mean `pace`?)"),
        ("Key_File = 'x'\n", "1:1: error: `Key_File` is not a key of this table (did you mean `key-file`?)"),
        (
            "deadtime = '1s'\n",
            "1:1: error: `deadtime` is not a key of this table (remove it; all such times follow from `pace`: see \
                `locum explain timing`)",
        ),
        (
            "prefer = 'alpha'\n",
            "1:1: error: `prefer` is not a key of this table (it belongs in [groups.NAME])",
        ),
        ("cluster = 'x'\n", "1:1: error: `cluster` appears twice (leave one of them)"),
        ("port = 0\n", "1:8: error: 0 is out of range (write a whole number from 1 to 65535)"),
        (
            "port = '1'\n",
            "1:8: error: found a text, expected a whole number (write a whole number from 1 to 65535)",
        ),
        (
            "port = 694\n",
            "1:8: error: the port 694 is used by clusters with ha.cf (write another one, such as 6940)",
        ),
        (
            "links.a.port = 694\n",
            "1:16: error: the port 694 is used by clusters with ha.cf (write another one, such as 6940)",
        ),
        (
            "witnesses.x.address = '10.9.0.2:694'\n",
            "1:23: error: the port 694 is used by clusters with ha.cf (write another one, such as 6940)",
        ),
        (
            "witnesses.x.address = '10.1.0.2:7000'\n",
            "1:23: error: 10.1.0.2 is an address of the node `beta`; if that node fails, this vote is lost, too (let the \
                witness run on another machine, and write that one's address)",
        ),
        (
            "groups.g.resources = '10.1.0.2/24'\n",
            "1:22: error: 10.1.0.2 is the address of the node `beta` on the link `b` (take a free address of the \
                network in which the clients are)",
        ),
        (
            "groups.g.resources = '10.9.0.1'\n",
            "1:22: error: 10.9.0.1 is the address of the witness `w` (take a free address of the network in which \
                the clients are)",
        ),
        ("voters = ['alpa']\n", "1:11: error: `alpa` is not a known node or witness (did you mean `alpha`?)"),
        ("voters = ['alpha', 'alpha']\n", "1:20: error: `alpha` appears twice (leave one)"),
        ("key-file = ''\n", "1:12: error: this is not a file name (write `\"locum.key\"`)"),
        (
            "nodes.alpha.links.c = '10.2.0.1'\n",
            "1:23: error: only one node is connected to the link `c` (write it in the `links` of another node too)",
        ),
        ("links.x.port = 7\n", "1:7: error: `x` is not a known link of a node (there are: a, b)"),
        (
            "links.a.ttl = 7\n",
            "1:9: error: `ttl` does not apply to the link `a` (remove it, or see in docs/locum-toml.md what makes \
                a link multicast or serial)",
        ),
        (
            "witnesses.x.address = 'third'\n",
            "1:23: error: `third` is not an address (write `\"10.9.0.1\"`, `\"10.9.0.1:6940\"` or \
                `\"[fd00::9]:6940\"`; names are not resolved)",
        ),
        (
            "witnesses.alpha.address = '10.9.0.7'\n",
            "1:11: error: `alpha` is the name of a node (remove the witness: nodes vote anyway)",
        ),
        (
            "witnesses.w.key = '00'\n",
            "1:19: error: this is not a key of 64 hex digits (copy the line that `locum witness` printed)",
        ),
        (
            "groups.g.prefer = 'alpha'\n",
            "1:8: error: the group `g` has no resources (write `resources = [\"192.0.2.10/24\", { unit = \
                \"nginx\" }]` below it)",
        ),
        (
            "groups.g.resources = '10.0.0.300'\n",
            "1:22: error: `10.0.0.300` is not an IP address (write four numbers from 0 to 255 without leading \
                zeros, or an IPv6 address)",
        ),
        (
            "groups.g.resources = [{ uint = 'x' }]\n",
            "1:25: error: `uint` is not a key of this table (did you mean `unit`?)",
        ),
        (
            "groups.g.resources = [{ unit = 'x', mount = '/y', on = '/z' }]\n",
            "1:23: error: the resource is unit and mount at once (write one of `address`, `unit`, `script`, \
                `ocf`, `mount`)",
        ),
        (
            "groups.g.resources = [{ unit = 'x', on = '/z' }]\n",
            "1:37: error: `on` does not apply to a resource with `unit` (remove it)",
        ),
        (
            "groups.g.resources = [{ ocf = 'apache' }]\n",
            "1:31: error: `ocf:apache` does not name an OCF agent (write `ocf:PROVIDER:TYPE::name=value`, such \
                as `ocf:heartbeat:apache`)",
        ),
        (
            "groups.g = { resources = ['x', '10.0.0.9'], guard = 'fence' }\n",
            "1:53: error: the guard `fence` is not there yet (write `\"lease\"`: it protects addresses exactly, \
                and data only as far as groups say `i-know`)",
        ),
        (
            "groups.g = { resources = 'x', guard = 'leas' }\n",
            "1:39: error: `leas` is not a known guard (did you mean `lease`?)",
        ),
        (
            "groups.g = { resources = 'x', failback = 'yes' }\n",
            "1:42: error: `yes` is not a failback setting (write `\"stay\"`, `\"when-asked\"`, or how long the node must \
                have been alive: `\"5min\"`)",
        ),
        (
            "groups.g = { resources = 'Filesystem::/dev/sda1::/srv' }\n",
            "1:26: error: the guard `lease` does not protect data: two nodes may use \
                Filesystem::/dev/sda1::/srv at once for a while (take it out of the group, or write `i-know = \"\u{2026}\"` \
                with the reason why it is safe)",
        ),
        (
            "groups.g = { resources = 'writer::/dev/sdc' }\n",
            "1:26: error: the guard `lease` does not protect data: two nodes may use \
                writer::/dev/sdc at once for a while (take it out of the group, or write `i-know = \"\u{2026}\"` with the reason \
                why it is safe)",
        ),
        (
            "groups.g = { resources = { ocf = 'x:iSCSILogicalUnit', parameters = { path = '/dev/sdb' } } }\n",
            "1:26: error: the guard `lease` does not protect data: two nodes may use \
                ocf:x:iSCSILogicalUnit::path=/dev/sdb at once for a while (take it out of the group, or write `i-know = \
                \"\u{2026}\"` with the reason why it is safe)",
        ),
        (
            "groups.g = { resources = 'x', prefer = 'beta', nodes = 'alpha' }\n",
            "1:40: error: `beta` is preferred and not among `nodes` (add it to `nodes`, or take it out of `prefer`)",
        ),
        (
            "groups.g = { resources = 'x', after = 'g' }\n",
            "1:39: error: the group is `after` itself (name another group, or remove it)",
        ),
        (
            "groups.g = { resources = 'x', after = 'h' }\n",
            "1:39: error: `h` is not a known group (there are: g)",
        ),
        (
            "[[groups.g]]\nresources = 'x'\n",
            "1:1: error: found a list, expected a table (write `[groups.g]` with single brackets, \
                and its keys below)",
        ),
        (
            "groups.'a b'.resources = 'x'\n",
            "1:8: error: `a b` cannot be a name (write 1 to 32 letters, digits, `-`, `_` and `.`, a letter or \
                digit first)",
        ),
        ("local.watchdog = 'x'\n", "1:18: error: `x` is not an absolute path (begin it with `/`)"),
        (
            "local.realtime = 1\n",
            "1:18: error: found a number, expected true or false (write `true` or `false`, without \
                quotes)",
        ),
        (
            "local.log-facility = 'damon'\n",
            "1:22: error: `damon` is not a known syslog facility (did you mean `daemon`?)",
        ),
    ];
    let wrong = cases
        .iter()
        .map(|(lines, expected)| (fault(lines), *expected))
        .filter(|(said, expected)| said != expected);
    assert_eq!(wrong.collect::<Vec<_>>(), []);
}

#[test]
fn a_secret_is_not_said() {
    let key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeX";
    let text = with(&format!("witnesses.w.key = '{key}'\n"));
    let checked = check(text.as_bytes(), "alpha");
    let said = format!("{:?}{:?}", checked.diags, checked.explained);
    assert!(checked.plan.is_none() && !said.contains("0123456789"), "{said}");
}

#[test]
fn nodes_and_links_are_checked_against_each_other() {
    for (lines, expected) in [
        ("cluster = 'c'\nnodes.alpha.links.a = '10.0.0.1'\n", "a cluster has at least two nodes"),
        ("cluster = 'c'\n[nodes.alpha]\n[nodes.beta]\nlinks.a = 'eth0'\n", "the node `alpha` has no link"),
        (
            "cluster = 'c'\nnodes.alpha.links.a = '10.0.0.1'\nnodes.beta.links.a = 'eth0'\n",
            "this is an interface, but the link `a` has an address on another node",
        ),
        (
            "cluster = 'c'\nnodes.alpha.links.a = '10.0.0.1'\nnodes.beta.links.a = '10.0.0.1'\n",
            "10.0.0.1 is already the address of another node",
        ),
        (
            "cluster = 'c'\nnodes.alpha.links.a = '10.0.0.1'\nnodes.beta.links.a = 'fd00::1'\n",
            "the link `a` has addresses of both families",
        ),
        (
            "cluster = 'c'\nnodes.alpha.links.a = 'fe80::1'\nnodes.beta.links.a = 'fe80::2%eth0'\n",
            "fe80::1 means something else on each interface",
        ),
        (
            "cluster = 'c'\nnodes.alpha.links.a = '10.0.0.1:694'\nnodes.beta.links.a = '10.0.0.2'\n",
            "`10.0.0.1:694` is not an IP address",
        ),
        (
            "cluster = 'c'\nnodes.alpha.links = {a = '10.0.0.1', b = '10.1.0.1'}\nnodes.beta.links.a = \
                '10.0.0.2'\nnodes.c.links.b = '10.1.0.2'\n",
            "`beta` and `c` share no link",
        ),
        (
            "cluster = 'c'\nnodes.alpha.links.a = '/dev/a'\nnodes.beta.links.a = '/dev/a'\nnodes.c.links.a = \
                '/dev/a'\n",
            "a serial line has two ends, `a` has 3",
        ),
        (
            "cluster = 'c'\nnodes.b.links.a = 'eth0'\nnodes.c.links.a = 'eth0'\n",
            "this host is `alpha`, but the file has `b`, `c`",
        ),
        (
            "cluster = 'c'\nnodes.'alpha.example.org'.links.a = 'eth0'\nnodes.c.links.a = 'eth0'\n",
            "this host is `alpha`, but the file has `alpha.example.org`",
        ),
        (
            "cluster = 'c'\nnodes.alpha.links.a = 'eth0'\nnodes.Alpha.links.a = 'eth0'\nnodes.b.links.a = 'eth0'\n",
            "the node `alpha` appears twice",
        ),
        (
            // printf node13192 | sha256sum | cut -c1-8
            "cluster = 'c'\nnodes.alpha.links.a = 'eth0'\nnodes.node13192.links.a = 'eth0'\n\
                nodes.node26341.links.a = 'eth0'\n",
            "`node13192` and `node26341` cannot be told apart in frames",
        ),
    ] {
        let said = diagnostics(lines);
        assert!(said.iter().any(|line| line.contains(&format!("error: {expected}"))), "{lines}: {said:?}");
    }
}

/// One fault is reported, but not its consequences.
#[test]
fn a_refused_node_is_all_that_is_said() {
    let rest = "nodes.alpha.links.a = '10.0.0.1'\n[groups.g]\nresources = 'x'\nguard = 'lease'\n";
    for (me, name, expected) in [
        ("alpha", "be ta", "`be ta` cannot be a name"),
        ("be ta", "be ta", "`be ta` cannot be a name"),
        ("alpha", "ALPHA", "the node `alpha` appears twice"),
    ] {
        let text = format!("cluster = 'c'\nnodes.'{name}'.links.a = '10.0.0.2'\n{rest}prefer = 'beta'\n");
        let diags = check(text.as_bytes(), me).diags;
        let errors: Vec<String> = diags.iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:?}");
    }
}

#[test]
fn one_unit_in_two_forms_is_one() {
    for (one, two) in [("'web'", "{ unit = 'web' }"), ("{ unit = 'web.service' }", "'web'")] {
        let said =
            diagnostics(&with(&format!("groups.g.resources = [{one}]\ngroups.h.resources = [{two}]\n")));
        assert!(said.iter().any(|line| line.contains("is already in line")), "{one} {two}: {said:?}");
    }
    let said =
        diagnostics(&with("groups.g.resources = ['web']\ngroups.h.resources = [{ unit = 'web.socket' }]\n"));
    assert!(said.iter().all(|line| !line.contains("is already in")), "{said:?}");
}

#[test]
fn a_host_name_is_no_address() {
    let said = fault("groups.g.resources = ['web.example.com/24']\n");
    assert!(said.contains("`web.example.com` is not an IP address (write the address itself"), "{said}");
}

#[test]
fn relations_that_cannot_be_are_refused() {
    for (a, b, c, expected) in [
        ("together = 'b'", "together = 'c'", "apart = 'a'", "`c` and `a` are together and apart"),
        (
            "after = 'b'",
            "after = 'c'",
            "after = 'a'",
            "the groups wait for each other: a after b after c after a",
        ),
        ("after = 'b'", "after = 'c'", "after = 'b'", "the groups wait for each other: b after c after b"),
        (
            "nodes = 'alpha'\ntogether = 'b'",
            "nodes = 'beta'",
            "",
            "`a` and `b` are together, and no node may run all of them",
        ),
        (
            "nodes = 'alpha'\napart = 'b'",
            "nodes = 'alpha'",
            "",
            "`a` and `b` may run only on the same single node",
        ),
    ] {
        let groups = [("a", a), ("b", b), ("c", c)]
            .map(|(name, line)| format!("[groups.{name}]\nresources = 'x{name}'\n{line}\n"));
        let said = fault(&groups.concat());
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn more_groups_than_a_machine_renews_at_that_pace_are_warned_of() {
    let said_of = |pace: &str, groups: usize| {
        let groups = (0..groups).map(|n| format!("[groups.g{n}]\nresources = 'x{n}'\n"));
        let nodes = "nodes.alpha.links = { a = '10.0.0.1', b = '10.1.0.1' }\n\
                     nodes.beta.links = { a = '10.0.0.2', b = '10.1.0.2' }\n\
                     witnesses.w.address = '10.9.0.9'\n";
        diagnostics(&format!("cluster = 'c'\npace = '{pace}'\n{nodes}{}", groups.collect::<String>()))
    };
    let many = said_of("500ms", 2100).concat();
    assert!(many.contains("2100 groups are too many for a pace of 500 ms"), "{many}");
    assert!(many.contains("pace = \"600ms\""), "the cure is a pace that is long enough: {many}");
    assert!(!said_of("600ms", 2100).concat().contains("too many"));
    assert!(
        !said_of("1s", 4096).concat().contains("too many"),
        "what the file allows runs at the pace that it has without a word"
    );
}

#[test]
fn more_groups_that_are_apart_than_nodes_are_warned_of() {
    /// Name, nodes, `apart` and `together` of a group.
    type Line<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let said_of = |groups: &[Line<'_>]| {
        let nodes = ["alpha", "beta", "gamma", "delta", "eta"];
        let nodes = nodes
            .iter()
            .zip(1..)
            .map(|(name, at)| format!("nodes.{name}.links = {{ a = '10.0.0.{at}', b = '10.1.0.{at}' }}\n"));
        let groups = groups.iter().map(|(name, nodes, apart, together)| {
            format!(
                "[groups.{name}]\nresources = 'x{name}'\nnodes = {nodes:?}\napart = {apart:?}\n\
                 together = {together:?}\n"
            )
        });
        diagnostics(&format!("cluster = 'c'\n{}{}", nodes.collect::<String>(), groups.collect::<String>()))
    };
    let (two, three): (&[_], &[_]) = (&["alpha", "beta"], &["alpha", "beta", "gamma"]);
    let many = said_of(&[
        ("a", two, &["b", "c"], &[]),
        ("b", two, &[], &[]),
        ("c", two, &["b"], &[]),
        // Apart from all of them, with nodes of its own.
        ("d", &["delta", "eta"], &["a", "b", "c"], &[]),
    ]);
    assert_eq!(
        many,
        [
            "locum.toml:10:10: warning: 3 groups must not meet one another and have 2 nodes between them, so that some \
             never run: `a`, `b`, `c` (give them more `nodes`, or take one of these `apart` away)"
        ]
    );
    // Each may run on two nodes, but they have only three nodes in all.
    let ring = said_of(&[
        ("a", &["alpha", "beta"], &["b", "c", "d"], &[]),
        ("b", &["beta", "gamma"], &["c", "d"], &[]),
        ("c", &["alpha", "gamma"], &["d"], &[]),
        ("d", three, &[], &[]),
    ]);
    assert!(matches!(&ring[..], [one] if one.contains("4 groups") && one.contains("3 nodes")), "{ring:?}");
    // Groups that are together count once, and only the nodes that all of them allow count: here the three have two
    // nodes.
    let family = said_of(&[
        ("a", three, &["c"], &["b"]),
        ("b", two, &["d"], &[]),
        ("c", two, &["d"], &[]),
        ("d", two, &[], &[]),
    ]);
    assert!(matches!(&family[..], [one] if one.contains("`a`, `c`, `d`")), "{family:?}");
    // Two such sets are two warnings.
    let both = said_of(&[
        ("a", two, &["b", "c"], &[]),
        ("b", two, &["c"], &[]),
        ("c", two, &[], &[]),
        ("d", &["delta", "eta"], &["e", "f"], &[]),
        ("e", &["delta", "eta"], &["f"], &[]),
        ("f", &["delta", "eta"], &[], &[]),
    ]);
    assert_eq!(both.len(), 2, "{both:?}");
    for good in [
        // There is a node for each.
        &[("a", three, &["b", "c"][..], &[][..]), ("b", two, &["c"], &[]), ("c", two, &[], &[])][..],
        // Not all of them are apart: b and c share a node.
        &[("a", two, &["b", "c"], &[]), ("b", two, &[], &[]), ("c", two, &[], &[])],
    ] {
        assert_eq!(said_of(good), Vec::<String>::new());
    }
}

#[test]
fn groups_that_are_together_have_one_order() {
    let text = with(
        "[groups.a]\nresources = 'x'\ntogether = 'c'\n[groups.b]\nresources = 'y'\n\
         [groups.c]\nresources = 'z'\nprefer = 'beta'\n",
    );
    let plan = plan(&text);
    assert_eq!(plan.relations, [Relation::Together([GroupIndex(0), GroupIndex(2)].into())]);
    let bounds = [0, 1, 2].map(|group| plan.takeover_bound(GroupIndex(group), &plan.timing));
    let alone = plan.timing.claim_bound(2) + Duration::from_secs(60);
    assert_eq!(bounds, [alone + plan.timing.retry * 4, alone, alone + plan.timing.retry * 4]);
    for group in [&plan.groups[0], &plan.groups[2]] {
        assert_eq!(
            (&group.prefer[..], &group.candidates[..]),
            (&[NodeIndex(1)][..], &[NodeIndex(1), NodeIndex(0)][..])
        );
    }
    assert_eq!(plan.groups[1].prefer, []);
}

#[test]
fn a_broken_line_is_named_and_nothing_is_made_up_because_of_it() {
    let said = diagnostics(
        "cluster = 'c'\npcae = '1s'\n[nodes.alpha\nlinks.a = 'eth0'\n[groups.x]\nresources = 'y'\n",
    );
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("locum.toml:2:1: error: `pcae` is not a key"), "{said:?}");
    assert!(said[1].starts_with("locum.toml:3:13: error: unclosed table, expected `]`"), "{said:?}");
}

#[test]
fn all_faults_are_said_at_once() {
    let said = diagnostics(&with(
        "pace = 1\nport = 'x'\nvotres = []\n[groups.g]\nresources = '10.0.0.999'\nguard = 'no'\nafter = 'h'\n",
    ));
    assert_eq!(said.len(), 6, "{said:#?}");
}

#[test]
fn what_is_no_text_is_refused() {
    for (text, expected) in [
        (&b"\xff"[..], "locum.toml:1:1: error: this is not UTF-8"),
        (b"cluster = 'c'\nx = '\xc3'\n", "locum.toml:2:6: error: this is not UTF-8"),
        ("\u{feff}cluster = 'c'".as_bytes(), "locum.toml:1:1: error: there is a byte order mark"),
        (b"", "locum.toml: error: the cluster has no name"),
    ] {
        let checked = check(text, "alpha");
        assert!(checked.plan.is_none());
        assert!(checked.diags[0].to_string().starts_with(expected), "{:?}", checked.diags);
    }
    let huge = [b'#'; FILE_BYTES_MAX + 1];
    assert!(check(&huge, "alpha").diags[0].message.contains("larger than"));
}

#[test]
fn a_thousand_groups_are_read_and_a_million_faults_are_bounded() {
    let groups = |line: fn(usize) -> String| with(&(0..1000).map(line).collect::<String>());
    let good = groups(|at| {
        format!("groups.g{at:04} = {{ resources = '10.7.{}.{}/16', spread = 's' }}\n", at / 250, at % 250 + 1)
    });
    assert_eq!(plan(&good).groups.len(), 1000);
    let bad =
        groups(|at| format!("groups.g{at:04} = {{ resources = 'x{at}', after = ['h{at}', 'i{at}'] }}\n"));
    assert_eq!(diagnostics(&bad).len(), 200);
}

#[test]
fn every_key_has_an_example_that_is_read() {
    for key in keys::KEYS {
        let inner = key.example;
        let node_names = ["alpha", "beta"];
        let text = match key.table {
            TomlTable::Top if key.name == "nodes" => with("")
                .replace("nodes.alpha.links.a = '10.0.0.1'", inner)
                .replace("beta.links.a", "beta.links.front"),
            TomlTable::Top if key.name == "cluster" => with("").replace("cluster = 'c'", inner),
            TomlTable::Top if key.name == "links" => with(inner).replace("links.a", "links.front"),
            TomlTable::Top if key.name == "voters" => with(inner).replace("witnesses.w.", "witnesses.third."),
            TomlTable::Top => with(inner).replace("10.9.0.1'", "10.9.0.9'"),
            TomlTable::Node => format!(
                "cluster = 'c'\n[nodes.alpha]\n{inner}\n[nodes.beta]\nlinks = {{ front = '10.0.0.2', back = \
                    '10.1.0.2', wire = '/dev/ttyS1' }}\n"
            ),
            TomlTable::Link => {
                let end = if key.name == "baud" {
                    "/dev/ttyS0"
                } else if key.name == "port" {
                    ""
                } else {
                    "eth1"
                };
                let [one, other] = node_names.map(|node| match end {
                    "" => format!("nodes.{node}.links.x = '10.5.0.{}'\n", node.len()),
                    end => format!("nodes.{node}.links.x = '{end}'\n"),
                });
                let group = if key.name == "ttl" { "multicast = '239.0.0.1'\n" } else { "" };
                with(&format!("{one}{other}[links.x]\n{group}{inner}\n"))
            }
            TomlTable::Witness => with("").replace(
                "witnesses.w.address = '10.9.0.1'\n",
                &match key.name {
                    "address" => format!("[witnesses.w]\n{inner}\n"),
                    _ => format!("[witnesses.w]\naddress = '10.9.0.1'\n{inner}\n"),
                },
            ),
            TomlTable::Group | TomlTable::GroupOrDefaults => {
                let resources = if key.name == "resources" { "" } else { "resources = 'x'\n" };
                let others = "[groups.database]\nresources = 'y'\n[groups.batch]\nresources = 'z'\n";
                with(&format!("[groups.g]\n{resources}{inner}\n{others}"))
            }
            TomlTable::Resource => {
                let first = match key.name {
                    "arguments" => "script = 'x', ",
                    "parameters" => "ocf = 'a:b', ",
                    "mount" => "on = '/x', ",
                    "on" => "mount = '/dev/x', ",
                    "type" | "options" => "mount = '/dev/x', on = '/y', ",
                    _ => "",
                };
                with(&format!("[groups.g]\nresources = [{{ {first}{inner} }}]\ni-know = 'x'\n"))
            }
            TomlTable::Local => with(&format!("[local]\n{inner}\n")),
        };
        let checked = check(text.as_bytes(), "alpha");
        assert!(checked.plan.is_some(), "{}: {text}\n{:#?}", key.name, checked.diags);
        if key.table == TomlTable::GroupOrDefaults {
            let text = with(&format!("[defaults]\n{inner}\n[groups.g]\nresources = 'x'\n"));
            assert!(check(text.as_bytes(), "alpha").plan.is_some(), "{}", key.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let checked = check(&text, "alpha");
        prop_assert!(checked.plan.is_none());
        prop_assert!(checked.diags.iter().all(|diag| !diag.to_string().contains(char::is_control)));
    }

    /// A good file with a piece cut out, doubled or moved.
    #[test]
    fn no_mutilated_file_panics(from in 0..FULL.len(), length in 0..60_usize, to in 0..FULL.len(), cut in any::<bool>()) {
        let mut text = FULL.as_bytes().to_vec();
        let piece = text[from..(from + length).min(FULL.len())].to_vec();
        if cut {
            text.drain(from..from + piece.len());
        }
        let to = to.min(text.len());
        text.splice(to..to, piece);
        let checked = check(&text, "alpha");
        let failed = checked.diags.iter().any(|diag| diag.severity == crate::config::Severity::Error);
        prop_assert_eq!(checked.plan.is_none(), failed);
        prop_assert!(checked.diags.iter().all(|diag| !diag.to_string().contains(char::is_control)));
        for diag in &checked.diags {
            prop_assert!(diag.place.span.end <= text.len());
        }
    }
}
