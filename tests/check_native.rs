//! `locum check` of a `locum.toml` from outside: its output and its exit codes.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::check::check;

const FILE: &str = "\
cluster = \"shop\"
pace = \"300ms\"

[nodes.web1]
links = { wire = \"/dev/null\", other = \"/dev/zero\" }

[nodes.web2]
links = { wire = \"/dev/null\", other = \"/dev/zero\" }

[witnesses.third]
address = \"192.0.2.9\"

[groups.web]
resources = [{ script = \"httpd\" }]
prefer = \"web1\"
";
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

fn directory(file: &str, key: Option<&str>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    put("locum.toml", file, 0o644);
    if let Some(key) = key {
        put("locum.key", key, 0o600);
    }
    fs::create_dir(dir.path().join("resource.d")).unwrap();
    put("resource.d/httpd", "#!/bin/sh\n", 0o755);
    dir
}

#[test]
fn a_good_file_is_explained() {
    let dir = directory(FILE, Some(KEY));
    let (code, text) = check(dir.path(), &["--as", "web1"]);
    let expected = "\
DIR/locum.toml
                                        voters are web1, web2, third: a claim needs 2 of them
   1  cluster = \"shop\"                  the cluster is shop
   2  pace = \"300ms\"                    a silent node loses its groups after 300 ms; a beat every 90 ms (see `locum explain \
timing`)
   4  [nodes.web1]                      node web1
   5  links = { wire = \"/dev/null\", other = \"/dev/zero\" }
                                        link other of web1: the serial line /dev/zero
                                        link wire of web1: the serial line /dev/null
   7  [nodes.web2]                      node web2
   8  links = { wire = \"/dev/null\", other = \"/dev/zero\" }
                                        link other of web2: the serial line /dev/zero
                                        link wire of web2: the serial line /dev/null
  10  [witnesses.third]                 witness third, asked at 192.0.2.9:6940
  13  [groups.web]                      group web: guard lease; on web1, web2 (preferred first); runs again within \
60.499 s after its node dies
  14  resources = [{ script = \"httpd\" }]
                                        web: script or unit httpd; start within 60 s, stop within 60 s, monitor every 5 s
                                        httpd: served by script DIR/resource.d/httpd

configuration OK for web1";
    assert_eq!((code, text.as_str()), (0, expected));
}

/// As in a unit with `ProcSubset=pid`.
#[test]
fn the_host_has_its_name_without_the_files_of_proc() {
    let host = Command::new("uname").arg("-n").output().unwrap().stdout;
    let host = String::from_utf8(host).unwrap().trim().to_lowercase();
    let dir = directory(&FILE.replace("web1", &format!("\"{host}\"")).replace("\"\"", "\""), Some(KEY));
    let hidden = "mount -t tmpfs none /proc/sys || exit 77; exec \"$0\" --config \"$1\" check";
    let mut command = Command::new("unshare");
    let output =
        command.args(["-rm", "sh", "-c", hidden, env!("CARGO_BIN_EXE_locum")]).arg(dir.path()).output();
    let Ok(output) = output else { return crate::skipped("no unshare here") };
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if output.status.code() == Some(77) || text.starts_with("unshare:") {
        return crate::skipped(text);
    }
    assert!(text.contains(&format!("configuration OK for {host}")), "{text}");
}

#[test]
fn what_is_wrong_is_drawn_and_json_has_it_too() {
    let dir = directory(&FILE.replace("prefer =", "prefers ="), None);
    let (code, text) = check(dir.path(), &["--as", "web1"]);
    assert_eq!(code, 2, "{text}");
    let drawn = "\
error: `prefers` is not a key of this table
  --> DIR/locum.toml:15:1
   |
15 | prefers = \"web1\"
   | ^^^^^^^
   |
   = help: did you mean `prefer`?
";
    assert!(text.contains(drawn), "{text}");
    assert!(
        text.contains("error: the file DIR/locum.key cannot be read: No such file or directory"),
        "{text}"
    );
    let (code, json) = check(dir.path(), &["--as", "web1", "--json"]);
    assert_eq!(code, 2);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdict"], "wrong");
    assert_eq!(json["diags"][0]["file"], "locum.toml");
    assert_eq!((&json["diags"][0]["line"], &json["diags"][0]["column"]), (&15.into(), &1.into()));
}

#[test]
fn what_does_not_fit_the_host_is_told_apart() {
    let dir = directory(FILE, Some(KEY));
    let (code, text) = check(dir.path(), &["--as", "nobody"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("this host is `nobody`, but the file has `web1`, `web2`"), "{text}");
    fs::set_permissions(dir.path().join("locum.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = check(dir.path(), &["--as", "web1"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("users other than the owner can read the keys (mode 0644)"), "{text}");
}

#[test]
fn with_a_ha_cf_beside_it_the_directory_is_heartbeats_and_no_daemon_starts() {
    let dir = directory(FILE, Some(KEY));
    fs::write(dir.path().join("ha.cf"), "node web1 web2\nbcast lo\n").unwrap();
    let (_, text) = check(dir.path(), &["--as", "web1"]);
    assert!(text.contains("DIR/ha.cf") && !text.contains("DIR/locum.toml"), "{text}");
    assert!(text.contains("`locum run` cannot choose between them"), "{text}");
    assert!(!text.contains("a daemon would start here"), "{text}");
}
