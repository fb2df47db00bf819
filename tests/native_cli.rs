//! The commands around `locum.toml` from outside: `explain timing`, `init`, `import`, `keygen`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Exit code, standard output, standard error.
fn locum(config: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locum"));
    let output = command.arg("--config").arg(config).args(words).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_cluster_is_made_by_commands_alone_and_passes_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("locum");
    let words = "init --cluster shop --node a=127.0.0.1 --node b=127.0.0.2 --witness third=127.0.0.3 \
                 --pace 300ms --group web --resource Delay::1";
    let words = words.split_whitespace().collect::<Vec<_>>();
    let (code, said, errors) = locum(&config, &words);
    assert_eq!(code, 0, "{errors}");
    assert!(said.contains("Next: run `locum keygen`"), "{said}");
    let (code, _, errors) = locum(&config, &words);
    assert!(code == 1 && errors.contains("exists already"), "{errors}");
    assert_eq!(locum(&config, &["keygen"]).0, 0);
    let (code, said, _) = locum(&config, &["check", "--as", "a"]);
    assert!(code == 0 && said.contains("configuration OK for a; 1 warning"), "{said}");
    let (code, said, _) = locum(&config, &["check", "--as", "third"]);
    assert!(code == 0, "{said}");

    let (code, said, _) = locum(&config, &["explain", "timing"]);
    assert_eq!(code, 0);
    for line in [
        "pace 300ms, 2 nodes",
        "lease                300ms  pace                        how long a voter reserves a group for its owner",
        "beat                  90ms  pace × 3/10                 between two beats",
        "takeover             499ms  lease + margin + (candidates − 1) × rank step + 4 × retry + collision",
        " 60.499s",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let (_, said, _) = locum(&config, &["explain", "timing", "--pace", "1s", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["times"][1]["name"], "beat");
    assert_eq!(json["times"][1]["milliseconds"], 300.0);
    assert_eq!(json["groups"][0]["group"], "web");
    let (code, _, errors) = locum(&config, &["explain", "timing", "--pace", "1"]);
    assert!(code == 64 && errors.contains("the unit is missing"), "{errors}");
    fs::write(config.join("locum.toml"), "cluster = 1\n").unwrap();
    assert_eq!(locum(&config, &["explain", "timing"]).0, 2);
}

#[test]
fn heartbeats_files_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let [old, new] = ["ha.d", "locum"].map(|name| dir.path().join(name));
    fs::create_dir(&old).unwrap();
    let import = |more: &[&str]| {
        let mut words = vec!["import", "--from", old.to_str().unwrap(), "--as", "a"];
        words.extend(more);
        locum(&new, &words)
    };
    fs::write(
        old.join("ha.cf"),
        "bcast lo\nserial /dev/null\nkeepalive 500ms\ndeadtime 2\nnode a b\nping x\n",
    )
    .unwrap();
    fs::write(old.join("haresources"), "a Delay::1\n").unwrap();
    let (code, _, errors) = import(&[]);
    assert!(code == 2 && errors.contains("ha.cf:6:6") && !errors.contains("authkeys"), "{errors}");
    fs::write(old.join("ha.cf"), "bcast lo\nserial /dev/null\nkeepalive 500ms\ndeadtime 2\nnode a b\n")
        .unwrap();
    let (code, said, errors) = import(&["--print"]);
    assert!(code == 0 && said.contains("pace = \"2s\"") && !new.exists(), "{said}{errors}");
    let (code, said, errors) = import(&[]);
    assert!(code == 0 && said.contains("look for CHANGED"), "{said}{errors}");
    assert_eq!(locum(&new, &["keygen"]).0, 0);
    let (code, said, _) = locum(&new, &["check", "--as", "b"]);
    assert!(code == 0, "{said}");
    let (code, _, errors) = import(&[]);
    assert!(code == 1 && errors.contains("exists already"), "{errors}");
    fs::write(old.join("ha.cf"), "bcast lo\nserial /dev/null\nnode a b\nstonith_host * ssh a b\n").unwrap();
    fs::write(old.join("haresources"), "a Filesystem::/dev/null::/mnt::ext4\n").unwrap();
    let (code, _, errors) = import(&["--print"]);
    assert!(code == 3 && errors.contains("decision needed: the group Filesystem"), "{errors}");
}

#[test]
fn a_directory_of_two_dialects_starts_nothing_until_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("locum");
    fs::create_dir(&config).unwrap();
    fs::write(config.join("locum.toml"), "cluster = 1\n").unwrap();
    fs::write(config.join("ha.cf"), "nonsense\n").unwrap();
    let (code, _, errors) = locum(&config, &["run"]);
    assert!(code == 2 && errors.contains("holds both ha.cf and locum.toml"), "{errors}");
    let (_, page, _) = locum(&config, &["check"]);
    assert!(page.contains("`locum run` cannot choose between them"), "{page}");
    let (code, _, errors) = locum(&config, &["run", "--dialect", "native"]);
    assert!(code == 2 && errors.contains("locum.toml:1") && !errors.contains("nonsense"), "{errors}");
    let (code, _, errors) = locum(&config, &["run", "--dialect", "r1"]);
    assert!(code == 2 && errors.contains("nonsense"), "{errors}");
    let (code, _, errors) = locum(&config, &["run", "--dialect", "native", "--prefer-scripts"]);
    assert!(code == 1 && errors.contains("behind gates"), "{errors}");
}

/// Any beginning of a file must end in a message. A draft without nodes once made the program panic.
#[test]
fn no_beginning_of_a_file_makes_check_or_run_panic() {
    let toml = "cluster = \"shop\"\npace = \"1s\"\n[nodes.a]\nlinks = { l = \"lo\" }\n[nodes.b]\nlinks = { l = \"lo\" }\n\
                [witnesses.w]\naddress = \"192.0.2.9\"\n[groups.g]\nresources = [\"192.0.2.7/24/lo\"]\n";
    let ha_cf = "keepalive 1\ndeadtime 10\nbcast lo\nudpport 695\nnode a\nnode b\n";
    for (name, text) in [("locum.toml", toml), ("ha.cf", ha_cf)] {
        for (end, _) in text.match_indices('\n') {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), &text[..=end]).unwrap();
            fs::write(dir.path().join("haresources"), "a 192.0.2.7/24/lo\n").unwrap();
            for words in [&["check"][..], &["check", "--as", "a"], &["run", "--state", "state"]] {
                let (code, said, errors) = locum(dir.path(), words);
                assert!(
                    (1..=3).contains(&code) && !errors.contains("panicked"),
                    "{:?}: {said}{errors}",
                    &text[..end]
                );
            }
        }
    }
}

#[test]
fn a_witness_of_no_cluster_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, errors) = locum(dir.path(), &["witness", "status"]);
    assert!(code == 3 && errors.contains("no cluster is served here"), "{errors}");
    let (code, line, _) = locum(dir.path(), &["witness", "add", "shop", "--address", "10.9.0.1"]);
    assert!(code == 0 && line.starts_with("witnesses.") && line.lines().count() == 1, "{line}");
    assert_eq!(locum(dir.path(), &["witness", "add", "shop", "--address", "10.9.0.1"]).1, line);
}
