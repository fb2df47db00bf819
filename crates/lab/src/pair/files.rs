//! The files of a member of the native cluster.

use std::{fmt::Write as _, fs, io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use super::{
    PairSetup,
    cluster::{CLIENT_SIDE, FIRST, SECOND, SERVICE, WITNESS},
};

/// The configuration directory, as the node sees it.
pub(crate) const CONFIG: &str = "/run/disk/locum";
/// The only group: the service's address, and a web server.
pub(crate) const GROUP: &str = "service";
/// How long each of its resources may take to start.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(1);
/// Number of the group's resources.
pub(crate) const RESOURCES: u32 = 2;
/// The failback delay: how long after its return the preferred node gets its service back, where it does.
const FAILBACK: Duration = Duration::from_secs(2);
/// The cluster's key: 32 bytes in hexadecimal digits.
const KEY: &str = "6d656173757265642066726f6d206f7574736964652c20666f72207465737473";

/// Writes the files, which are the same for the two nodes and the witness.
pub(crate) fn write(disk: &Path, setup: &PairSetup) -> io::Result<()> {
    let directory = disk.join("locum");
    fs::create_dir_all(directory.join("resource.d"))?;
    fs::write(directory.join("locum.toml"), locum_toml(setup))?;
    fs::write(directory.join("locum.key"), format!("{KEY}\n"))?;
    fs::set_permissions(directory.join("locum.key"), fs::Permissions::from_mode(0o600))?;
    let script = directory.join("resource.d/httpd");
    fs::write(&script, format!("#!/bin/sh\nexec /run/bin/locum {} \"$1\"\n", setup.web_server))?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755))
}

/// Two links between the nodes; the witness is reached on a third network.
fn locum_toml(setup: &PairSetup) -> String {
    let ms = |time: Duration| format!("\"{}ms\"", time.as_millis());
    let mut file = format!("cluster = \"lab\"\npace = {}\n", ms(setup.pace.native()));
    for (node, front, back) in [(FIRST, "172.23.2.12", "10.0.0.1"), (SECOND, "172.23.2.13", "10.0.0.2")] {
        let _ = writeln!(file, "nodes.{node}.links = {{ front = \"{front}\", back = \"{back}\" }}");
    }
    let _ = writeln!(file, "witnesses.{WITNESS}.address = \"10.9.0.9\"");
    let _ = writeln!(file, "[groups.{GROUP}]");
    let _ = writeln!(file, "resources = [\"{SERVICE}/24/{CLIENT_SIDE}\", {{ script = \"httpd\" }}]");
    let _ = writeln!(file, "prefer = \"{FIRST}\"\nstart-limit = {}", ms(START_LIMIT));
    if setup.failback {
        let _ = writeln!(file, "failback = {}", ms(FAILBACK));
    }
    file
}

#[cfg(test)]
mod tests {
    use super::super::Pace;
    use super::*;

    #[test]
    fn a_pace_is_written_as_it_was_asked_for() {
        for pace in [300, 1000] {
            let setup = PairSetup {
                program: "locum".into(),
                web_server: "httpd".into(),
                peers_root: None,
                pace: Pace::of(Duration::from_millis(pace) * 3 / 10),
                calm: Duration::ZERO,
                gates: None,
                failback: false,
            };
            let file = locum_toml(&setup);
            assert!(file.contains(&format!("pace = \"{pace}ms\"\n")), "{file}");
            assert!(!file.contains("failback"));
        }
        assert!(KEY.len() == 64 && KEY.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
}
