//! `locum check` from outside: its output and its exit codes. The links are devices that every Linux has, so that the
//! texts do not depend on the machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

const HA_CF: &str = "\
# two nodes
serial /dev/null /dev/zero
keepalive 500ms
deadtime 10 # patient
node web1 web2
auto_failback on
";
const AUTHKEYS: &str = "auth 2\n2 sha1 hush-hush\n";
const HARESOURCES: &str = "web1 httpd::a \\\n     Delay::1\nweb2 ldap\n";

/// A configuration directory with the scripts `httpd` and `ldap`.
fn directory(ha_cf: &str, authkeys: &str, haresources: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(dir.path().join("resource.d")).unwrap();
    put("ha.cf", ha_cf, 0o644);
    put("authkeys", authkeys, 0o600);
    put("haresources", haresources, 0o644);
    put("resource.d/httpd", "#!/bin/sh\n", 0o755);
    put("resource.d/ldap", "#!/bin/sh\n", 0o755);
    dir
}

/// The exit code and the output, without the directory's name.
pub(crate) fn check(dir: &Path, options: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locum"));
    let Output { status, stdout, stderr } =
        command.arg("check").arg("--config").arg(dir).args(options).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&stderr), "");
    let text = String::from_utf8(stdout).unwrap().replace(&dir.display().to_string(), "DIR");
    (status.code().unwrap(), text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_line_of_good_files_is_explained() {
    let dir = directory(HA_CF, AUTHKEYS, HARESOURCES);
    let (code, text) = check(dir.path(), &["--as", "Web1"]);
    let expected = "\
DIR/ha.cf
                                        warntime is not set, so 5 s: half of deadtime
                                        initdead is not set, so 20 s: it follows from deadtime
   2  serial /dev/null /dev/zero        link /dev/null: serial line, 19200 bits a second
                                        link /dev/zero: serial line, 19200 bits a second
   3  keepalive 500ms                   a beat is sent every 500 ms
   4  deadtime 10 # patient             a node counts as dead when silent for 10 s
   5  node web1 web2                    web1 is a node of the cluster (this one)
                                        web2 is a node of the cluster
   6  auto_failback on                  groups return to their preferred node when it is back

DIR/authkeys
   1  auth 2                            this node signs with key 2
   2  2 sha1 ***                        key 2: sha1

DIR/haresources
   1  web1 httpd::a \\                   group httpd::a: preferred node web1; started from left to right, stopped from right to left
                                        httpd::a: script httpd with a
                                        httpd::a: served by script DIR/resource.d/httpd
   2  Delay::1                          Delay::1: wait 1 s at start, 1 s at stop
   3  web2 ldap                         group ldap: preferred node web2; started from left to right, stopped from right to left
                                        ldap: script or unit ldap
                                        ldap: served by script DIR/resource.d/ldap

configuration OK: a daemon would start here as web1";
    assert_eq!(text, expected);
    assert_eq!(code, 0);
}

#[test]
fn everything_wrong_is_said_at_once() {
    let ha_cf = "udp none0 none1\nudp none2\nnode web1 web2\nkeepalive 2\ndeadtime 4\nautojoin any\n";
    let dir = directory(ha_cf, "auth 1\n1 sha1\n", "web3 httpd\nweb1 /bin/sh\n");
    let (code, text) = check(dir.path(), &["--as", "web1"]);
    let (_, text) = text.split_once("warning: ").unwrap();
    // These lines name the interfaces of this machine.
    let (links, text): (Vec<&str>, Vec<&str>) =
        text.split("\n\n").partition(|diag| diag.starts_with("warning: there is no interface none"));
    assert_eq!(links.len(), 3);
    let text = text.join("\n\n");
    let expected = "\
`udp` is an old name
 --> DIR/ha.cf:1:1
  |
1 | udp none0 none1
  | ^^^
  |
  = help: write `bcast`

error: deadtime is 4 s, not above two keepalives (4 s)
 --> DIR/ha.cf:5:10
  |
5 | deadtime 4
  |          ^
  |
  = help: one lost beat must not make a node count as dead: set deadtime to 8 s or more

error: `autojoin` cannot be on: an unknown node could take the groups
 --> DIR/ha.cf:6:10
  |
6 | autojoin any
  |          ^^^
  |
  = help: write `autojoin none`, and a `node` line for each node

error: key 1: sha1 needs a secret
 --> DIR/authkeys:2:1
  |
2 | 1 sha1
  | ^^^^^^
  |
  = help: a key is written `NUMBER METHOD SECRET`, such as `1 sha1 SECRET`

error: `web3` is not a node of this cluster; ha.cf has web1, web2
 --> DIR/haresources:1:1
  |
1 | web3 httpd
  | ^^^^
  |
  = help: begin the line with the preferred node, named as in ha.cf; end the line before with `\\` if this is its continuation

error: `/bin/sh` cannot be the name of a script
 --> DIR/haresources:2:6
  |
2 | web1 /bin/sh
  |      ^^^^^^^
  |
  = help: write the name alone, `sh`; scripts are looked for in resource.d and /etc/init.d

the files are wrong; 5 errors, 4 warnings";
    assert_eq!(text, expected);
    assert_eq!(code, 2);
}

#[test]
fn good_files_on_the_wrong_host_are_told_apart() {
    let dir = directory(HA_CF, AUTHKEYS, HARESOURCES);
    fs::write(dir.path().join("nodeinfo"), "web1.example.org\n").unwrap();
    let (code, text) = check(dir.path(), &[]);
    assert!(
        text.contains(
            "error: this host is `web1.example.org`, but ha.cf has `web1`
 --> DIR/ha.cf:5:6
  |
5 | node web1 web2
  |      ^^^^
  |
  = help: write `node web1.example.org` (here and in haresources, on both nodes), or put `web1` into the file nodeinfo
"
        ),
        "{text}"
    );
    let verdict =
        "\nthe files are correct, but a daemon would not start on this host as web1.example.org; 1 error";
    assert!(text.ends_with(verdict), "{text}");
    assert_eq!(code, 1);
    fs::write(dir.path().join("nodeinfo"), "web2\n").unwrap();
    assert_eq!(check(dir.path(), &[]).0, 0);

    fs::remove_file(dir.path().join("resource.d/ldap")).unwrap();
    let (code, text) = check(dir.path(), &[]);
    assert!(
        text.contains("error: there is no script or systemd unit `ldap`; looked in DIR/resource.d, "),
        "{text}"
    );
    // The daemon starts nevertheless, and its log then says so.
    let verdict = "\nconfiguration OK for web2 and a daemon would start, but everything marked as an error \
                   cannot run on this host; \
                   1 error";
    assert!(code == 1 && text.ends_with(verdict), "{text}");
    let (code, text) = check(dir.path(), &["--json"]);
    assert!(code == 1 && text.contains("\"verdict\": \"not-all-here\""), "{text}");
}

#[test]
fn the_host_is_looked_at_however_wrong_the_files_are() {
    let dir = directory(&HA_CF.replace("on\n", "maybe\nbcast nosuch0\n"), AUTHKEYS, "web1 nosuch::a\n");
    let (code, text) = check(dir.path(), &["--as", "elsewhere"]);
    assert_eq!(code, 2, "{text}");
    for told in ["maybe", "elsewhere", "there is no interface nosuch0 here", "nosuch"] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn files_that_others_can_read_or_write_are_told() {
    let dir = directory(HA_CF, AUTHKEYS, HARESOURCES);
    let mode = |name: &str, mode| {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("authkeys", 0o644);
    mode("haresources", 0o646);
    let (code, text) = check(dir.path(), &["--as", "web1"]);
    assert!(
        text.contains(
            "error: users other than the owner can read the keys (mode 0644)\n--> DIR/authkeys\n = help: chmod 600 DIR/authkeys\n"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "warning: users other than the owner can write it (mode 0646), and so choose the programs that root runs\n"
        ),
        "{text}"
    );
    assert_eq!(code, 1);
}

#[test]
fn the_article_is_read_with_warnings_alone() {
    let dir = directory(
        "keepalive 2\ndeadtime 10\nwarntime 10\ninitdead 10\nnice_failback on\nudpport 694\nbaud 19200\nserial \
         /dev/null\nudp eth1\nudp eth0\nwatchdog /dev/watchdog\nnode clustnode1\nnode clustnode2\n",
        "auth 1\n1 crc\n",
        "clustnode1 httpd\n",
    );
    let (code, text) = check(dir.path(), &["--as", "clustnode2"]);
    for warning in [
        "`nice_failback` is an old name",
        "`udp` is an old name",
        "key 1 is crc, a checksum without a secret: anyone on the link can take the service",
        "warntime is 10 s, not below deadtime (10 s)",
    ] {
        assert_eq!(text.matches(&format!("warning: {warning}")).count(), 1, "{warning}\n{text}");
    }
    assert_eq!(code, 0, "{text}");
}

#[test]
fn json_has_the_same_and_no_secret() {
    let dir = directory("nonsense\nserial /dev/null\nnode web1 web2\n", "auth 1\n1 hush-hush\n", HARESOURCES);
    let (code, text) = check(dir.path(), &["--as", "web1", "--json"]);
    assert_eq!(code, 2);
    assert!(!text.contains("hush"), "{text}");
    assert!(!check(dir.path(), &["--as", "web1"]).1.contains("hush"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json["config"], &json["node"], &json["verdict"], &json["exit"]),
        (&"DIR".into(), &"web1".into(), &"wrong".into(), &2.into())
    );
    let first = &json["diags"][0];
    assert_eq!(
        *first,
        serde_json::json!({
            "severity": "error", "file": "ha.cf", "line": 1, "column": 1, "span": {"start": 0, "end": 8},
            "text": "nonsense", "message": "`nonsense` is not a directive",
            "cure": "remove the line, or see the list of directives in docs/ha.cf.md", "host": false,
        })
    );
    let explained = json["explained"].as_array().unwrap();
    assert!(explained.contains(&serde_json::json!({
        "file": "ha.cf", "line": 2, "text": "link /dev/null: serial line, 19200 bits a second",
    })));
}

#[test]
fn no_directory_is_three_missing_files() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = check(&dir.path().join("none"), &["--as", "web1"]);
    assert_eq!(text.matches("error: the file is missing").count(), 3, "{text}");
    assert_eq!(code, 2);
}
