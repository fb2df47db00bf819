//! Heartbeat's own commands by name, run against real daemons on the loopback interface. Each text and exit code is
//! compared with heartbeat's (`docs/commands.md`).

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::cli::{Node, pair, until};

/// The links with heartbeat's names, in a directory beside the nodes'.
struct Names(PathBuf);

impl Names {
    fn new(cluster: &Path) -> Self {
        let dir = cluster.join("names");
        fs::create_dir_all(&dir).unwrap();
        let made = Command::new(env!("CARGO_BIN_EXE_locum")).arg("links").arg(&dir).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        assert_eq!(String::from_utf8(made.stdout).unwrap().lines().count(), 9);
        Self(dir)
    }

    fn command(&self, node: &Node, name: &str, words: &[&str]) -> Command {
        let mut command = Command::new(self.0.join(name));
        command.env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM").stdin(Stdio::null());
        for (option, place) in [("--config", "etc"), ("--state", "state"), ("--run", "run")] {
            command.arg(option).arg(node.place.join(place));
        }
        command.args(words);
        command
    }

    /// Exit code, standard output, standard error.
    fn ask(&self, node: &Node, name: &str, words: &[&str]) -> (i32, String, String) {
        let output = self.command(node, name, words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Exit code and standard output; standard error must be empty.
    fn output_of(&self, node: &Node, name: &str, words: &[&str]) -> (i32, String) {
        let (code, out, errors) = self.ask(node, name, words);
        assert_eq!(errors, "", "{name} {words:?}");
        (code, out)
    }

    fn cl_status(&self, node: &Node, line: &str) -> (i32, String) {
        self.output_of(node, "cl_status", &line.split_whitespace().collect::<Vec<_>>())
    }
}

/// A daemon that is not our child; it is ended with the test.
struct Background<'a>(&'a Names, &'a Node);

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let _ = self.0.command(self.1, "heartbeat", &["-k"]).output();
    }
}

fn pid_of(text: &str) -> u32 {
    text.split("[pid ").nth(1).unwrap().split([' ', ']']).next().unwrap().parse().unwrap()
}

#[test]
fn heartbeat_is_started_asked_reloaded_and_stopped() {
    let cluster = tempfile::tempdir().unwrap();
    let names = Names::new(cluster.path());
    let a1 = Node::new(cluster.path(), "a1", 16_998);
    let heartbeat = |words: &[&str]| names.ask(&a1, "heartbeat", words);
    let ok = |out: &str| (0, out.to_owned(), String::new());

    // Without a daemon.
    assert_eq!(heartbeat(&["-V"]).1, format!("3.0.6 (locum {})\n", env!("CARGO_PKG_VERSION")));
    let (code, out, _) = heartbeat(&["-D"]);
    assert!(code == 0 && out.starts_with("Directive") && out.contains("\ndeadtime "), "{out}");
    let (code, _, errors) = heartbeat(&["-Z"]);
    assert!(code == 2 && errors.contains("invalid option -- 'Z'") && errors.contains("Usage: heartbeat"));
    assert_eq!(heartbeat(&["-R", "-C", "all"]).0, 2);
    assert_eq!(heartbeat(&["-s"]), (3, "heartbeat is stopped. No process\n".into(), String::new()));
    assert_eq!(heartbeat(&["-k"]), ok("INFO: Heartbeat already stopped.\n"));
    let (code, out, _) = heartbeat(&["-v"]);
    assert!(code == 0 && out.contains("\ndeadtime\t2\t#\t") && out.contains("\nnode a2\n"), "{out}");
    assert!(out.contains("\nmcast lo 239.255.6.94 16998 1 1\n"), "{out}");

    // Started: the command returns at once, long before the node takes part (initdead is 20 s and the peer is not
    // there).
    assert_eq!(heartbeat(&[]), ok(""));
    let _background = Background(&names, &a1);
    let (code, out, _) = heartbeat(&["-s"]);
    let pid = pid_of(&out);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(out, format!("heartbeat OK [pid {pid} et al] is running on {} [a1]...\n", host.trim()));
    assert_eq!(code, 0);
    assert_eq!(fs::read_to_string(a1.place.join("run/heartbeat.pid")).unwrap(), format!("{pid:>10}\n"));
    let (code, _, errors) = heartbeat(&[]);
    assert_eq!(
        (code, errors.as_str()),
        (0, &*format!("heartbeat: info: heartbeat: already running [pid {pid}].\n"))
    );
    assert_eq!(names.cl_status(&a1, "hbstatus"), (1, "Heartbeat is stopped on this machine.\n".into()));
    until("it answers", || a1.status().is_some());
    assert_eq!(names.cl_status(&a1, "hbstatus"), (1, "Heartbeat is stopped on this machine.\n".into()));
    assert_eq!(names.cl_status(&a1, "nodestatus a1"), (0, "up\n".into()));
    assert_eq!(names.cl_status(&a1, "nodestatus a2"), (1, "init\n".into()));
    assert_eq!(names.cl_status(&a1, "rscstatus"), (0, "transition\n".into()));

    // Its standard error is not that of the process that started it.
    let target = fs::read_link(format!("/proc/{pid}/fd/2")).unwrap();
    assert_eq!(target, Path::new("/dev/null"));

    // Reread; with wrong files nothing happens to the daemon.
    let (code, _, errors) = heartbeat(&["-r"]);
    let text = format!("heartbeat: info: Signalling heartbeat pid {pid} to reread config files\n");
    assert_eq!((code, errors), (0, text));
    let ha_cf = a1.place.join("etc/ha.cf");
    // USR1: everything goes to the log; USR2: only what was asked for at the start. Neither ends the daemon.
    for (signal, text) in [("USR1", "with debug lines"), ("USR2", "the levels that were set at the start")] {
        let kill = Command::new("/bin/sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap();
        assert!(kill.success());
        until("it is heard", || a1.log().contains(text));
    }
    let good = fs::read_to_string(&ha_cf).unwrap();
    fs::write(&ha_cf, format!("{good}keepalive soon\n")).unwrap();
    let (code, _, errors) = heartbeat(&["-r"]);
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains(&format!("Heartbeat pid {pid} NOT restarted")), "{errors}");
    for words in [&[][..], &["-v"], &["-f"]] {
        let (code, _, errors) = heartbeat(words);
        assert!(
            code == 6 && errors.contains("Configuration error, heartbeat not started"),
            "{code}: {errors}"
        );
        assert!(errors.contains("keepalive soon"), "the line is drawn: {errors}");
    }
    fs::write(&ha_cf, good).unwrap();

    // Stopped: the command returns when the daemon has ended.
    assert_eq!(heartbeat(&["-k"]), ok(""));
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists() && !a1.place.join("run/heartbeat.pid").exists());
    assert_eq!(heartbeat(&["-s"]).0, 3);

    // -r starts a daemon that does not run. A killed one leaves its pid file: LSB has another code for that.
    assert_eq!(heartbeat(&["-r"]), ok(""));
    let pid = pid_of(&heartbeat(&["-s"]).1);
    let kill = Command::new("/bin/sh").args(["-c", &format!("kill -9 {pid}")]).status().unwrap();
    assert!(kill.success());
    until("it is gone", || {
        heartbeat(&["-s"]) == (1, "heartbeat is stopped. No process\n".into(), String::new())
    });
    assert_eq!(heartbeat(&["-k"]).0, 0);
}

#[test]
fn a_daemon_that_cannot_start_says_why_to_who_started_it() {
    let cluster = tempfile::tempdir().unwrap();
    let names = Names::new(cluster.path());
    let a1 = Node::new(cluster.path(), "a1", 16_952);
    fs::create_dir(a1.place.join("state")).unwrap();
    // Another daemon holds the state directory.
    let lock = fs::File::open(a1.place.join("state")).unwrap();
    lock.try_lock().unwrap();
    let (code, _, errors) = names.ask(&a1, "heartbeat", &[]);
    assert!(code == 1 && errors.contains("only one daemon can run on it"), "{code}: {errors}");
    drop(lock);
    // Heartbeat itself runs here.
    let original = cluster.path().join("heartbeat");
    fs::copy("/bin/sleep", &original).unwrap();
    let mut original = Command::new(original).arg("60").spawn().unwrap();
    fs::create_dir_all(a1.place.join("run")).unwrap();
    fs::write(a1.place.join("run/heartbeat.pid"), format!("{:>10}\n", original.id())).unwrap();
    let (code, _, errors) = names.ask(&a1, "heartbeat", &[]);
    let (taken, _, refused) = names.ask(&a1, "ResourceManager", &["takegroup", "service"]);
    original.kill().unwrap();
    original.wait().unwrap();
    assert!(code == 1 && errors.contains("heartbeat itself runs here"), "{code}: {errors}");
    assert!(taken == 1 && refused.contains("heartbeat itself runs here"), "{taken}: {refused}");
    // A pid file that heartbeat left behind does not count.
    let mut daemon = names.command(&a1, "heartbeat", &["-f", "--", "--stop-limit", "10s"]).spawn().unwrap();
    until("it answers", || a1.status().is_some());
    assert_eq!(names.ask(&a1, "heartbeat", &["-k"]).0, 0);
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

#[test]
fn cl_status_answers_as_the_original_does() {
    let cluster = tempfile::tempdir().unwrap();
    let names = Names::new(cluster.path());
    let stopped = Node::new(cluster.path(), "a3", 16_953);
    let ask = |words: &[&str]| names.ask(&stopped, "cl_status", words);
    assert_eq!(
        ask(&["hbstatus", "-m"]),
        (1, "Heartbeat is stopped on this machine.\n".into(), String::new())
    );
    let (code, out, _) = ask(&[]);
    assert!(code == 0 && out.starts_with("Usage: cl_status <sub-command>"));
    for words in
        [&["listnodes"][..], &["nodestatus", "a1"], &["rscstatus"], &["hbparameter", "-p", "deadtime"]]
    {
        let (code, out, errors) = ask(words);
        assert_eq!((code, out.as_str()), (1, ""), "{words:?}");
        let lines: Vec<&str> = errors.lines().collect();
        assert!(lines[0].ends_with("ERROR: Cannot signon with heartbeat"), "{errors}");
        assert!(lines.len() == 2 && lines[1].contains("ERROR: REASON: "), "{errors}");
    }
    for words in [&["bogus"][..], &["--help"], &["-m"], &["listnodes", "-x"]] {
        assert_eq!(ask(words).0, 11, "{words:?}");
    }

    let (mut a1, mut a2) = (Node::new(cluster.path(), "a1", 16_953), Node::new(cluster.path(), "a2", 16_953));
    for node in [&a1, &a2] {
        let ha_cf = node.place.join("etc/ha.cf");
        let text = fs::read_to_string(&ha_cf).unwrap();
        let more = "ping 127.0.0.1\nrespawn hacluster /usr/lib/heartbeat/ipfail\n";
        fs::write(&ha_cf, format!("{text}{more}")).unwrap();
    }
    a1.start();
    a2.start();
    until("both are settled", || {
        [&a1, &a2]
            .iter()
            .all(|node| node.status().is_some_and(|s| s["state"] == "stable" && s["transition"].is_null()))
    });
    let table = [
        ("hbstatus", 0, "Heartbeat is running on this machine."),
        ("hbstatus extra", 0, "Heartbeat is running on this machine."),
        ("listnodes", 0, "a1\na2\n127.0.0.1"),
        ("listnodes -m", 0, "The nodes are as follow:\na1\na2\n127.0.0.1"),
        ("listnodes -n", 0, "a1\na2"),
        ("listnodes -p", 0, "127.0.0.1"),
        ("listnodes -np", 0, "a1\na2\n127.0.0.1"),
        ("nodestatus", 11, "Not enough parameters."),
        ("nodestatus a1", 0, "active"),
        ("nodestatus A2", 0, "active"),
        ("nodestatus a2 -m", 0, "The cluster node a2 is active"),
        ("nodestatus nosuch", 11, "Error. May be due to incorrect node name"),
        ("nodetype a2", 0, "normal"),
        ("nodetype -m a2", 0, "The node a2's type: normal"),
        ("nodetype 127.0.0.1", 0, "ping"),
        ("nodetype nosuch", 11, "Error. May be due to incorrect node name"),
        ("nodeweight a2", 0, "100"),
        ("nodeweight -m a2", 0, "The weight of the cluster node a2 is 100"),
        ("nodeweight nosuch", 11, "Error. May be due to incorrect node name"),
        ("nodesite a2", 0, ""),
        ("nodesite -m a2", 0, "The site of the cluster node a2 is "),
        ("listhblinks a2", 0, "\tlo"),
        ("listhblinks a1", 0, "\tlo"),
        ("listhblinks -m a2", 0, "\tthis node has the following heartbeat links:\n\tlo"),
        ("listhblinks -v a2", 0, "\tlo\tup"),
        ("listhblinks 127.0.0.1", 0, "\t127.0.0.1"),
        ("listhblinks", 11, "No enough parameter."),
        ("hblinkstatus a2 lo", 0, "up"),
        ("hblinkstatus -m a2 lo", 0, "The node a2's heartbeat link lo is up"),
        ("hblinkstatus a2", 11, "No enough parameter."),
        ("clientstatus a1 ipfail", 0, "online"),
        ("clientstatus a2 ccm", 1, "offline"),
        ("clientstatus -m a2 ccm 500", 1, "offline"),
        ("clientstatus a2", 11, "No enough parameter."),
        ("rscstatus", 0, "local"),
        ("rscstatus -m", 0, "This node is holding local resources."),
        ("hbparameter -p deadtime", 0, "2"),
        ("hbparameter -m -p deadtime", 0, "Heartbeat parameter deadtime's value: 2"),
        ("hbparameter -p keepalive", 0, "100ms"),
    ];
    for (line, code, out) in table {
        assert_eq!(names.cl_status(&a1, line), (code, format!("{out}\n")), "cl_status {line}");
    }
    assert_eq!(names.cl_status(&a2, "rscstatus"), (0, "local\n".to_owned()));
    let failing = [
        ("listhblinks nosuch", 13, "Cannot start heartbeat link interface walk."),
        ("hblinkstatus a2 eth9", 13, "Cannot get heartbeat link status"),
        ("hblinkstatus nosuch lo", 13, "Cannot get heartbeat link status"),
        ("clientstatus nosuch ipfail", 13, "Cannot get heartbeat client ipfail's status"),
        ("hbparameter -p nosuch", 1, "Cannot get parameter nosuch's value"),
        ("hbparameter deadtime", 11, "parameter name required"),
        ("hbparameter", 11, "parameter name required"),
    ];
    for (line, code, text) in failing {
        let (got, out, errors) = names.ask(&a1, "cl_status", &line.split_whitespace().collect::<Vec<_>>());
        assert_eq!((got, out.as_str()), (code, ""), "cl_status {line}");
        assert!(errors.starts_with(&format!("cl_status: ERROR: {text}\n")), "cl_status {line}: {errors}");
    }
    let (code, out) = names.cl_status(&a1, "hbstatus -v");
    assert!(
        code == 0
            && out.contains("managed by:\t\"haresources\"\n\na1\tactive\t(nodetype: normal)\n\tlo\tup\n")
    );

    // The peer leaves.
    assert_eq!(a2.output_of(&["stop"]).0, 0);
    a2.ended();
    until("it is dead", || names.cl_status(&a1, "nodestatus a2") == (1, "dead\n".into()));
    until("all is here", || names.cl_status(&a1, "rscstatus").1 == "all\n");
    until("its link is dead", || names.cl_status(&a1, "hblinkstatus a2 lo") == (1, "dead\n".into()));

    // A daemon that is frozen.
    a1.signal("STOP");
    let (code, _, errors) = names.ask(&a1, "cl_status", &["rscstatus"]);
    a1.signal("CONT");
    assert!(code == 12 && errors.contains("REASON: the daemon does not answer in time"), "{code}: {errors}");
}

#[test]
fn groups_are_moved_and_nodes_are_not() {
    let cluster = tempfile::tempdir().unwrap();
    let names = Names::new(cluster.path());
    let (a1, a2) = pair(cluster.path(), 16_954);
    let owner = |node: &Node| node.status().map(|status| status["groups"][0]["owner"].clone());
    assert_eq!(names.ask(&a1, "hb_standby", &[]), (0, String::new(), "Going standby [all].\n".into()));
    until("a2 has it", || owner(&a1).is_some_and(|owner| owner == "a2"));
    until("both are well", || a1.is_well() && a2.is_well());
    assert_eq!(names.ask(&a1, "hb_takeover", &["local"]), (0, String::new(), String::new()));
    until("a1 has it", || owner(&a2).is_some_and(|owner| owner == "a1"));
    until("both are well", || a1.is_well() && a2.is_well());
    assert_eq!(names.ask(&a1, "hb_standby", &["failback"]).2, "Going standby [foreign].\n");

    let (code, _, errors) = names.ask(&a1, "hb_standby", &["bogus"]);
    assert!(code == 1 && errors.starts_with("hb_standby: wrong resources(bogus).\nusage:\n"), "{errors}");
    let (code, _, errors) = names.ask(&a1, "hb_takeover", &["all", "local"]);
    assert!(code == 1 && errors.starts_with("hb_takeover: too many arguments\nusage:\n"), "{errors}");
    assert!(names.ask(&a1, "hb_takeover", &["--help"]).2.contains("[all|foreign|local|failback]"));

    for name in ["hb_addnode", "hb_delnode"] {
        let (code, _, errors) = names.ask(&a1, name, &[]);
        assert_eq!((code, errors), (1, format!("usage: {name} <node> <node> ...\n")));
        let (code, _, errors) = names.ask(&a1, name, &["a3"]);
        assert!(
            code == 1 && errors.contains("refused") && errors.contains("`node` lines of ha.cf"),
            "{errors}"
        );
    }
    assert_eq!(names.ask(&a1, "hb_setweight", &["a2"]).2, "usage: hb_setweight <node> <weight>\n");
    assert_eq!(names.ask(&a1, "hb_setsite", &[]).2, "usage: hb_setsite <node> <site>\n");
    assert_eq!(names.ask(&a1, "hb_setweight", &["a2", "7"]), (0, String::new(), String::new()));
    assert_eq!(names.ask(&a1, "hb_setsite", &["a2", "bonn"]), (0, String::new(), String::new()));
    for node in [&a1, &a2] {
        until("the weight is known", || names.cl_status(node, "nodeweight a2") == (0, "7\n".into()));
        until("the site is known", || names.cl_status(node, "nodesite a2") == (0, "bonn\n".into()));
    }
    let (code, _, errors) = names.ask(&a1, "hb_setweight", &["a9", "7"]);
    assert!(code == 1 && errors.contains("no node a9"), "{code}: {errors}");
    assert_eq!(names.ask(&a1, "hb_setweight", &["a2", "-7"]).0, 1);
    drop(a2);
    until("the death is seen", || names.cl_status(&a1, "nodestatus a2") == (1, "dead\n".into()));
    let (code, _, errors) = names.ask(&a1, "hb_standby", &[]);
    assert!(code == 1 && errors.contains("hb_standby: refused: "), "{code}: {errors}");
    let gone = Node::new(cluster.path(), "a4", 16_954);
    assert_eq!(names.ask(&gone, "hb_standby", &[]).0, 1);
}

fn write_fifo(node: &Node, text: &[u8]) {
    let mut fifo = fs::File::options().append(true).open(node.place.join("state/fifo")).unwrap();
    fifo.write_all(text).unwrap();
}

#[test]
fn scripts_speak_through_the_fifo_and_are_spoken_to() {
    let cluster = tempfile::tempdir().unwrap();
    let (a1, a2) = pair(cluster.path(), 16_955);
    let fifo = a1.place.join("state/fifo").metadata().unwrap();
    assert!(fifo.file_type().is_fifo() && fifo.permissions().mode() & 0o777 == 0o600);
    // A script for a message of the administrator's own, on both nodes; through harc on one.
    let seen = |node: &Node| fs::read_to_string(node.place.join("seen")).unwrap_or_default();
    for node in [&a1, &a2] {
        let rc_d = node.place.join("etc/rc.d");
        fs::create_dir(&rc_d).unwrap();
        for name in ["backup", "status"] {
            let text =
                format!("#!/bin/sh\n{{ echo $0 $*; env; }} >> {}\n", node.place.join("seen").display());
            fs::write(rc_d.join(name), text).unwrap();
            fs::set_permissions(rc_d.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let harc = a2.place.join("etc/harc");
    fs::write(
        &harc,
        format!("#!/bin/sh\necho harc >> {}\nexec $HA_RCDIR/$1 \"$@\"\n", a2.place.join("seen").display()),
    )
    .unwrap();
    fs::set_permissions(&harc, fs::Permissions::from_mode(0o755)).unwrap();

    write_fifo(&a1, b">>>\nt=backup\nlevel=2\nDIR=/tmp\nodd-name=x\ncommand=$(touch /tmp/x); `id`\n<<<\n");
    for node in [&a1, &a2] {
        until("the script has run", || seen(node).contains("HA_seq="));
        let text = seen(node);
        let has = |line: &str| text.lines().any(|known| known == line);
        let script = node.place.join("etc/rc.d/backup");
        assert!(has(&format!("{} backup", script.display())), "{text}");
        for line in [
            "HA_t=backup",
            "HA_level=2",
            "HA_src=a1",
            "HA_command=$(touch /tmp/x); `id`",
            "HA_OSTATUS=active",
        ] {
            assert!(has(line), "{line}: {text}");
        }
        assert!(has("HA_NICEFAILBACK=yes") && has("HA_deadtime=2") && has("HA_auto_failback=on"), "{text}");
        let place = |name: &str, value: PathBuf| has(&format!("{name}={}", value.display()));
        assert!(place("HA_DIR", node.place.join("etc")), "a field replaces nothing: {text}");
        assert!(place("HA_FIFO", node.place.join("state/fifo")) && !text.contains("odd-name"), "{text}");
    }
    assert!(seen(&a2).starts_with("harc\n") && !seen(&a1).contains("harc"));
    assert!(!seen(&a1).contains("rc.d/status"), "what Locum does itself runs no script");

    // Garbage costs a log line, and the frame after it is read. It is netstring framing, as with `msgfmt netstring`.
    write_fifo(&a1, b"rubbish\n>>>\nt=backup\n>>>\nno field\n<<<\n>>>\nt=resource\nrsc_hold=all\n<<<\n");
    write_fifo(&a1, b"###\n18:(0)t=ask_resources,15:(0)rsc_hold=all,10:(0)info=me,%%%\n");
    until("it moves", || a1.status().is_some_and(|status| status["groups"][0]["owner"] == "a2"));
    until("both are well", || a1.is_well() && a2.is_well());
    assert!(a1.log().contains("invalid pieces of input from local scripts"), "{}", a1.log());
    assert!(a1.log().contains("message [resource] of a local script refused"), "{}", a1.log());

    write_fifo(&a1, b">>>\nt=hb_takeover\nrsc_hold=all\n<<<\n");
    until("it moves back", || a2.status().is_some_and(|status| status["groups"][0]["owner"] == "a1"));
}

#[test]
fn resource_manager_lists_asks_starts_and_stops() {
    let cluster = tempfile::tempdir().unwrap();
    let names = Names::new(cluster.path());
    let mut a1 = Node::new(cluster.path(), "a1", 16_956);
    let etc = a1.place.join("etc");
    fs::write(etc.join("haresources"), "a1 service second::x\nA2 third \\\n  fourth::a::b # c\n").unwrap();
    for name in ["second", "third", "fourth"] {
        // Runs while its marker file exists; `stubborn` makes it fail.
        let mark = a1.place.join(name);
        let script = format!(
            "#!/bin/sh\nfor verb; do :; done\necho {name} $* >> {0}/calls\ntest -e {0}/stubborn.{name}.$verb && exit 7\n\
             case $verb in\nstart) touch {1};;\nstop) rm -f {1};;\nstatus) test -e {1} && echo running || echo stopped;;\nesac\n",
            a1.place.display(),
            mark.display()
        );
        let path = etc.join("resource.d").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let calls = || fs::read_to_string(a1.place.join("calls")).unwrap_or_default();
    let rm = |words: &[&str]| names.ask(&a1, "ResourceManager", words);
    let out = |words: &[&str]| {
        let (code, out, errors) = rm(words);
        assert_eq!((code, errors.as_str()), (0, ""), "{words:?}");
        out
    };
    assert_eq!(out(&["allkeys"]), "service\nthird\n");
    assert_eq!(out(&["listkeys", "a1"]), "service\n");
    assert_eq!(out(&["listkeys", "A2"]), "third\n");
    assert_eq!(out(&["listkeys", ".*"]), "service\nthird\n");
    assert_eq!(out(&["listkeys", "a9"]), "");
    assert_eq!(out(&["ourkeys"]), "service second::x\n");
    assert_eq!(out(&["otherkeys"]), "third fourth::a::b\n");
    assert_eq!(a1.output_of(&["resources", "ourkeys"]), (0, "service second::x\n".into()));
    for words in [&["bogus"][..], &[], &["status"]] {
        let (code, _, errors) = rm(words);
        assert!(code == 1 && errors.starts_with("usage: ResourceManager listkeys machine"), "{errors}");
    }
    assert_eq!(rm(&["status", "fourth::a::b"]).0, 3);
    assert_eq!(rm(&["status", "third"]).0, 3);
    // Not in the file: asked nevertheless.
    assert_eq!(rm(&["status", "fourth::z"]).0, 3);
    assert!(calls().contains("fourth z status"), "{}", calls());
    assert_eq!(out(&["statgroup", "third"]), "NONE\n");
    assert_eq!(rm(&["verifyallidle"]).0, 0);

    // In order, with the words as arguments; a resource that runs already is not started again.
    fs::remove_file(a1.place.join("calls")).unwrap();
    assert_eq!(out(&["takegroup", "third"]), "");
    assert_eq!(calls(), "third status\nthird start\nfourth a b status\nfourth a b start\n");
    assert_eq!(out(&["statgroup", "third"]), "ALL\n");
    fs::remove_file(a1.place.join("fourth")).unwrap();
    assert_eq!(out(&["statgroup", "third"]), "SOME\n");
    assert_eq!(rm(&["status", "third"]).0, 0);
    let (code, _, errors) = rm(&["verifyallidle"]);
    assert!(
        code == 1 && errors.contains("CRITICAL: Resource third is active, and should not be!"),
        "{errors}"
    );
    fs::remove_file(a1.place.join("calls")).unwrap();
    assert_eq!(out(&["givegroup", "third"]), "");
    assert_eq!(calls(), "fourth a b stop\nthird stop\n");
    let (code, _, errors) = rm(&["takegroup", "nosuch"]);
    assert!(code == 1 && errors.contains("its groups are service third"), "{errors}");

    // If a start fails, everything started before is stopped again.
    fs::write(a1.place.join("stubborn.fourth.start"), "").unwrap();
    let (code, _, errors) = rm(&["takegroup", "third"]);
    assert!(code == 1 && errors.contains("Giving up resources due to failure of fourth::a::b"), "{errors}");
    assert_eq!(rm(&["status", "third"]).0, 3);
    fs::remove_file(a1.place.join("stubborn.fourth.start")).unwrap();

    // While a daemon runs, only the daemon decides.
    a1.start();
    until("it answers", || a1.status().is_some());
    for verb in ["takegroup", "givegroup"] {
        let (code, _, errors) = names.ask(&a1, "ResourceManager", &[verb, "third"]);
        assert!(code == 1 && errors.contains("a daemon runs here (process "), "{code}: {errors}");
    }
    assert_eq!(names.ask(&a1, "ResourceManager", &["status", "third"]).0, 3);
}
