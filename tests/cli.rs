//! Two real daemons on the loopback interface, driven by the commands and judged by the journals of their resource
//! scripts. No rights are needed: the links are multicast on `lo`, the groups have no addresses.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::UdpSocket,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// A user without rights.
const NOBODY: u32 = 65_534;

/// Waits until the condition holds. Tests outside of the simulator have no other clock.
#[expect(clippy::disallowed_methods, reason = "the daemons under test run in real time")]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn locum() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locum"));
    command.env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

/// One node's directories, and its daemon while it runs.
pub(crate) struct Node {
    pub(crate) place: PathBuf,
    daemon: Option<Child>,
}

impl Node {
    /// Node `name` of the cluster `a1`, `a2`. Its one group `service` prefers `a1`; the script writes every start and
    /// stop into `journal` beside the nodes' directories.
    pub(crate) fn new(cluster: &Path, name: &str, port: u16) -> Self {
        let place = cluster.join(name);
        let etc = place.join("etc");
        fs::create_dir_all(etc.join("resource.d")).unwrap();
        let ha_cf = format!(
            "mcast lo 239.255.6.94 {port} 1 1\nkeepalive 100ms\nwarntime 500ms\ndeadtime 2\ninitdead 20\n\
             auto_failback on\nlogfile {}\nnode a1 a2\n",
            place.join("log").display()
        );
        fs::write(etc.join("ha.cf"), ha_cf).unwrap();
        fs::write(etc.join("nodeinfo"), name).unwrap();
        fs::write(etc.join("haresources"), "a1 service\n").unwrap();
        let script = format!(
            "#!/bin/sh\nmark={0}/mark\ncase $1 in\nstart) test -e $mark || echo {name} start >> {1}/journal; touch $mark;;\n\
             stop) test ! -e $mark || echo {name} stop >> {1}/journal; rm -f $mark;;\n\
             status) test -e $mark && echo running || echo stopped;;\nesac\n",
            place.display(),
            cluster.display()
        );
        let path = etc.join("resource.d/service");
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let node = Self { place, daemon: None };
        node.write_keys("auth 1\n1 sha1 secret\n");
        node
    }

    fn write_keys(&self, text: &str) {
        let path = self.place.join("etc/authkeys");
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The program, with this node's directories.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = locum();
        for directory in ["config", "state", "run"] {
            let name = if directory == "config" { "etc" } else { directory };
            command.arg(format!("--{directory}")).arg(self.place.join(name));
        }
        command.args(words);
        command
    }

    fn ask(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Exit code and output, of both streams.
    pub(crate) fn output_of(&self, words: &[&str]) -> (i32, String) {
        let output = self.ask(words);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    pub(crate) fn start(&mut self) {
        self.start_with(|_| {});
    }

    fn start_with(&mut self, more: impl FnOnce(&mut Command)) {
        let mut command = self.command(&["run"]);
        let errors = File::options().create(true).append(true).open(self.place.join("errors")).unwrap();
        command.stdout(Stdio::null()).stderr(errors);
        more(&mut command);
        self.daemon = Some(command.spawn().unwrap());
    }

    pub(crate) fn status(&self) -> Option<Value> {
        serde_json::from_slice(&self.ask(&["status", "--json"]).stdout).ok()
    }

    pub(crate) fn is_well(&self) -> bool {
        self.ask(&["status"]).status.success()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.place.join("log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("/bin/sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success()
        );
    }

    /// Waits for the daemon's end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().unwrap();
        let mut end = None;
        until("the daemon ends", || {
            end = daemon.try_wait().unwrap();
            end.is_some()
        });
        end.unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.place.display(), self.log());
        }
    }
}

pub(crate) fn pair(cluster: &Path, port: u16) -> (Node, Node) {
    let (mut a1, mut a2) = (Node::new(cluster, "a1", port), Node::new(cluster, "a2", port));
    a1.start();
    a2.start();
    until("both are well", || a1.is_well() && a2.is_well());
    (a1, a2)
}

fn journal(cluster: &Path) -> Vec<String> {
    let text = fs::read_to_string(cluster.join("journal")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_pair_starts_moves_groups_and_stops() {
    let cluster = tempfile::tempdir().unwrap();
    let (mut a1, mut a2) = pair(cluster.path(), 16_941);
    assert_eq!(journal(cluster.path()), ["a1 start"]);
    let status = a2.status().unwrap();
    assert_eq!(status["groups"][0]["owner"], "a1");
    assert_eq!(status["daemon"]["pid"], a2.daemon.as_ref().unwrap().id());
    let page = String::from_utf8(a2.ask(&["status"]).stdout).unwrap();
    assert!(page.contains("if a1 falls silent: a2 starts service after 2.0 s"), "{page}");

    // Moved by hand and back: the command returns when the move is done.
    assert_eq!(a1.output_of(&["standby"]).0, 0);
    assert_eq!(journal(cluster.path())[1..], ["a1 stop", "a2 start"]);
    assert_eq!(a1.status().unwrap()["groups"][0]["owner"], "a2");
    assert_eq!(a1.output_of(&["takeover", "local"]).0, 0);
    assert_eq!(journal(cluster.path())[3..], ["a2 stop", "a1 start"]);
    assert!(a1.log().contains("ordered through the control socket: takeover local"));

    // A second daemon does not start.
    let (code, text) = a1.output_of(&["run"]);
    let pid = a1.daemon.as_ref().unwrap().id().to_string();
    assert!(code == 1 && text.contains(&pid), "{code}: {text}");

    // A graceful leave: the other node takes over at once.
    assert_eq!(a1.output_of(&["stop"]), (0, String::new()));
    assert_eq!(a1.ended().code(), Some(0));
    assert!(!a1.place.join("run/control").exists());
    until("a2 took over", || journal(cluster.path()).len() == 7);
    assert_eq!(journal(cluster.path())[5..], ["a1 stop", "a2 start"]);
    assert_eq!(a2.output_of(&["status"]).0, 1, "alone is not well");
    let (code, text) = a2.output_of(&["standby"]);
    assert!(code == 1 && text.contains("a1"), "{code}: {text}");
    assert_eq!(a1.output_of(&["status"]).0, 3);
    assert_eq!(a1.output_of(&["takeover"]).0, 3);
    assert_eq!(a1.output_of(&["stop"]).0, 3);

    // It comes back and gets its group back; then the other one leaves by signal.
    a1.start();
    until("a1 is back", || a1.is_well() && a2.is_well());
    assert_eq!(journal(cluster.path())[7..], ["a2 stop", "a1 start"]);
    a2.signal("TERM");
    a2.signal("TERM");
    assert_eq!(a2.ended().code(), Some(0));
    assert_eq!(a1.status().unwrap()["groups"][0]["owner"], "a1");
}

/// A daemon with other directories is still the same node. What runs there is not its leftover. And a user without
/// rights cannot keep a daemon from starting by taking the name that marks a running one.
#[test]
fn a_second_daemon_of_the_same_node_starts_on_no_directories_at_all() {
    let cluster = tempfile::tempdir().unwrap();
    let (mut a1, a2) = pair(cluster.path(), 16_999);
    let other = cluster.path().join("other");
    let pid = a1.daemon.as_ref().unwrap().id();
    let mut refused = locum();
    refused.arg("--config").arg(a1.place.join("etc"));
    for directory in ["state", "run"] {
        refused.arg(format!("--{directory}")).arg(other.join(directory));
    }
    let output = refused.arg("run").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let place = a1.place.join("run");
    assert!(text.contains(&format!("process {pid}")), "{text}");
    assert!(text.contains(&format!("`locum --run {} status`", place.display())), "{text}");
    assert!(!other.exists(), "it leaves nothing behind");
    assert!(a1.is_well() && a2.is_well());
    assert_eq!(journal(cluster.path()), ["a1 start"], "nothing was swept");
    // A reload keeps the name.
    a1.signal("HUP");
    until("it is reread", || a1.log().contains("Configuration unchanged."));
    let names = names_of(pid);
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(a1.output_of(&["stop"]).0, 0);
    a1.ended();

    // Another process takes its name, as root or not.
    let [name] = &names[..] else { unreachable!() };
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let root = UnixListener::bind_addr(&address).unwrap();
    let (code, text) = a1.output_of(&["run"]);
    assert!(code == 1 && text.contains(&format!("process {}", std::process::id())), "{code}: {text}");
    drop(root);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // The user of this thread only.
    let nobodys = std::thread::scope(|scope| {
        let bind = || {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
            UnixListener::bind_addr(&address).unwrap()
        };
        scope.spawn(bind).join().unwrap()
    });
    a1.start();
    until("it serves all the same", || a1.is_well());
    assert!(
        a1.log().contains("a second daemon of a1 on this machine would not be detected: user nobody"),
        "{}",
        a1.log()
    );
    drop(nobodys);
}

/// The names of the abstract sockets on which a process of Locum listens.
fn names_of(pid: u32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open: Vec<PathBuf> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let ours = lines.filter_map(|words| {
        let name = words.get(7)?.strip_prefix("@locum/")?;
        open.contains(&PathBuf::from(format!("socket:[{}]", words[6]))).then(|| format!("locum/{name}"))
    });
    ours.collect()
}

#[test]
fn a_killed_daemon_is_taken_over_and_sweeps_what_it_left() {
    let cluster = tempfile::tempdir().unwrap();
    let (mut a1, a2) = pair(cluster.path(), 16_942);
    a1.signal("KILL");
    assert_eq!(a1.ended().code(), None);
    until("a2 took over", || journal(cluster.path()).len() == 2);
    assert_eq!(journal(cluster.path())[1], "a2 start");
    assert!(
        a1.place.join("run/control").exists() && a1.place.join("mark").exists(),
        "a killed daemon cleans nothing"
    );
    a1.start();
    until("a1 is back", || a1.is_well() && a2.is_well());
    // The leftover is stopped here before the other node gives the group back.
    assert_eq!(journal(cluster.path())[2..], ["a1 stop", "a2 stop", "a1 start"]);
    assert!(a1.log().contains("left running by an earlier daemon"), "{}", a1.log());
}

#[test]
fn hup_takes_good_keys_and_keeps_the_old_ones_otherwise() {
    let cluster = tempfile::tempdir().unwrap();
    let (a1, a2) = pair(cluster.path(), 16_943);
    a1.signal("HUP");
    until("nothing is new", || a1.log().contains("info: Configuration unchanged."));
    a1.write_keys("auth 1\n1 rot13 secret\n");
    a1.signal("HUP");
    until("it is refused", || a1.log().contains("the old keys stay"));
    // From one key to another, node by node: first both know both, then both sign with the new one.
    for step in ["auth 1\n1 sha1 secret\n2 sha256 new\n", "auth 2\n1 sha1 secret\n2 sha256 new\n"] {
        for node in [&a1, &a2] {
            let before = node.log().matches("authkeys reread").count();
            node.write_keys(step);
            node.signal("HUP");
            until("it is reread", || node.log().matches("authkeys reread").count() > before);
        }
    }
    assert!(a1.is_well() && a2.is_well());
    assert_eq!(journal(cluster.path()), ["a1 start"], "nothing moved");
}

/// The owner first, then the other node: a reload in place with new times and a new log, in the same process, and
/// nothing moves.
#[test]
fn hup_with_a_changed_ha_cf_reloads_in_place_and_keeps_what_runs() {
    let cluster = tempfile::tempdir().unwrap();
    let (a1, a2) = pair(cluster.path(), 16_951);
    let change = |node: &Node, from: &str, to: &str| {
        for file in ["ha.cf", "haresources"] {
            let path = node.place.join("etc").join(file);
            let text = fs::read_to_string(&path).unwrap();
            fs::write(path, text.replace(from, to)).unwrap();
        }
        node.signal("HUP");
    };
    let generation = |node: &Node| node.status().map(|status| status["generation"].as_u64().unwrap());
    for (node, other) in [(&a1, &a2), (&a2, &a1)] {
        let (pid, born) = (node.status().unwrap()["daemon"]["pid"].clone(), generation(node));
        change(node, "deadtime 2", "deadtime 3");
        until("a new life", || generation(node).is_some_and(|now| Some(now) > born) && node.is_well());
        until("the other knows", || other.is_well());
        let status = node.status().unwrap();
        assert_eq!(status["daemon"]["pid"], pid);
        assert_eq!(status["state"], "stable", "{status:#}");
        let client = UnixStream::connect(node.place.join("run/control"));
        assert!(parameters(client.unwrap()).contains(r#""deadtime":"3""#));
        assert!(
            node.log().contains("configuration: changed: deadtime: 2 s runs, the file says 3 s"),
            "{}",
            node.log()
        );
    }
    assert_eq!(journal(cluster.path()), ["a1 start"], "nothing moved");
    // Changes that would move groups are named, and files with an error change nothing.
    let born = generation(&a1);
    change(&a1, "deadtime 3", "deadtime soon");
    until("it is refused", || a1.log().contains("the old one stays"));
    change(&a1, "deadtime soon", "deadtime 3");
    change(&a1, "a1 service", "a2 service");
    until("what needs a restart is said", || {
        a1.log().contains("configuration: this change needs a restart of the daemon: group")
    });
    assert_eq!(generation(&a1), born);
    assert!(a1.is_well() && a2.is_well());
    assert_eq!(journal(cluster.path()), ["a1 start"], "nothing moved");
}

/// Clients, links and log of the old configuration go with it; the new one has its own.
#[test]
fn hup_changes_clients_links_and_logs() {
    let cluster = tempfile::tempdir().unwrap();
    let (mut a1, a2) = pair(cluster.path(), 16_957);
    let user = Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap();
    let change = |from: &str, to: &str| {
        let path = a1.place.join("etc/ha.cf");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
        let born = a1.status().unwrap()["generation"].as_u64();
        a1.signal("HUP");
        until("a new life", || {
            a1.is_well() && a1.status().is_some_and(|status| status["generation"].as_u64() > born)
        });
    };
    let client = |name: &str| {
        let path = a1.place.join(name);
        fs::write(&path, format!("#!/bin/sh\necho $$ > {}.pid\nexec sleep 1000\n", path.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        format!("respawn {} {}\n", user.trim(), path.display())
    };
    let pid_of = |name: &str| fs::read_to_string(a1.place.join(format!("{name}.pid"))).ok();
    let lives = |pid: &str| Path::new("/proc").join(pid.trim()).exists();

    let (first, second) = (client("first"), client("second"));
    change("auto_failback on\n", &format!("auto_failback on\n{first}"));
    until("the client runs", || pid_of("first").is_some_and(|pid| lives(&pid)));
    change(&first, &second);
    until("the other client runs", || pid_of("second").is_some_and(|pid| lives(&pid)));
    let gone = pid_of("first").unwrap();
    until("the first one has ended", || !lives(&gone));

    // Another link beside the one on which the other node is heard, and another log.
    let other = a1.place.join("other-log");
    let is_free = || UdpSocket::bind("0.0.0.0:16959").is_ok();
    assert!(is_free(), "nobody listens there");
    change("keepalive", "mcast lo 239.255.6.95 16959 1 1\nkeepalive");
    assert!(!is_free(), "the new life listens on its new link");
    change(&a1.place.join("log").display().to_string(), &other.display().to_string());
    until("the new log is used", || {
        fs::read_to_string(&other).is_ok_and(|text| text.contains("still holding"))
    });
    let old = a1.log();

    assert!(a1.is_well() && a2.is_well());
    assert_eq!(journal(cluster.path()), ["a1 start"], "nothing moved");
    let last = pid_of("second").unwrap();
    assert_eq!(a1.output_of(&["stop"]).0, 0);
    a1.ended();
    assert!(!lives(&last), "a client outlives its daemon");
    assert_eq!(a1.log(), old, "the old log is written to no more");
}

fn parameters(mut control: UnixStream) -> String {
    control.write_all(b"GET /parameters HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    control.read_to_string(&mut answer).unwrap();
    answer
}

/// A checksum does not authenticate: the log, the check and the status say so.
#[test]
fn crc_is_said_everywhere() {
    let cluster = tempfile::tempdir().unwrap();
    let mut a1 = Node::new(cluster.path(), "a1", 16_947);
    a1.write_keys("auth 1\n1 crc\n");
    let (code, text) = a1.output_of(&["check"]);
    assert!(code < 2 && text.contains("anyone on the link can take the service"), "{code}: {text}");
    a1.start();
    until("it answers", || a1.status().is_some());
    let log = a1.log();
    assert!(log.lines().next().unwrap_or_default().contains("SIGNED WITH CRC ONLY"), "{log}");
    let (_, text) = a1.output_of(&["status"]);
    assert!(text.contains("authkeys signs with crc: anyone on the link can take the service"), "{text}");
    assert!(a1.status().unwrap()["hints"].to_string().contains("crc"));
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let cluster = tempfile::tempdir().unwrap();
    let path = cluster.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut buffer = [0; 500];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut a1 = Node::new(cluster.path(), "a1", 16_944);
    a1.start_with(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    let first = heard();
    let ready = if first == "WATCHDOG=1" { heard() } else { first };
    assert_eq!(ready, "READY=1\nSTATUS=a1 in cluster linux-ha");
    // The heart beats every 100 ms, so it is well each time it is asked.
    assert_eq!([heard(), heard()], ["WATCHDOG=1", "WATCHDOG=1"]);
    a1.signal("HUP");
    let others = || std::iter::repeat_with(heard).find(|word| word != "WATCHDOG=1").unwrap();
    assert_eq!(others(), "RELOADING=1");
    assert!(others().starts_with("READY=1"));
    a1.signal("INT");
    assert!(others().starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC="));
    assert_eq!(a1.ended().code(), Some(0));
}

/// The daemon takes HUP over before it writes the files by which a second daemon notices it. So a HUP during the start
/// does not end it.
#[test]
fn a_hangup_while_it_starts_does_not_end_it() {
    let cluster = tempfile::tempdir().unwrap();
    let mut a1 = Node::new(cluster.path(), "a1", 16_947);
    a1.start();
    until("it has begun", || a1.place.join("run/locum.pid").exists());
    let mut hangups = 0;
    until("it answers", || {
        a1.signal("HUP");
        hangups += 1;
        a1.status().is_some()
    });
    assert!(hangups > 0 && a1.daemon.as_mut().unwrap().try_wait().unwrap().is_none());
}

#[test]
fn a_checksum_in_the_place_of_a_signature_is_the_first_word_of_the_log() {
    let cluster = tempfile::tempdir().unwrap();
    let mut a1 = Node::new(cluster.path(), "a1", 16_948);
    a1.write_keys("auth 1\n1 crc\n");
    a1.start();
    until("it answers", || a1.status().is_some());
    let log = a1.log();
    let first = log.lines().next().unwrap();
    assert!(
        first.contains("SIGNED WITH CRC ONLY: anyone who can send on a link can take the service"),
        "{log}"
    );
    let (_, page) = a1.output_of(&["status"]);
    assert!(page.contains("authkeys signs with crc: anyone on the link can take the service"), "{page}");
    let (_, page) = a1.output_of(&["check"]);
    assert!(page.contains("anyone on the link can take the service"), "{page}");
}

/// Root changes, the socket's group reads, and every other user is told why not.
#[test]
fn who_may_look_and_who_may_change() {
    const GROUP: u32 = 65_533;
    let cluster = tempfile::tempdir().unwrap();
    if cluster.path().metadata().unwrap().uid() != 0 {
        return crate::skipped("only root can become somebody else");
    }
    // Other users may not be able to reach the directory in which the program was built or runs.
    fs::set_permissions(cluster.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = cluster.path().join("locum");
    fs::copy(env!("CARGO_BIN_EXE_locum"), &program).unwrap();
    let mut a1 = Node::new(cluster.path(), "a1", 16_949);
    a1.start();
    until("it answers", || a1.status().is_some());
    let said = |group: u32, words: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--run").arg(a1.place.join("run")).args(words).uid(NOBODY).gid(group);
        match command.output() {
            Ok(output) => Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())),
            Err(error) => {
                crate::skipped(format!("cannot run as nobody: {error}"));
                None
            }
        }
    };
    let socket = a1.place.join("run/control");
    assert_eq!(socket.metadata().unwrap().mode() & 0o777, 0o660);
    let Some((code, text)) = said(NOBODY, &["status"]) else { return };
    assert!(
        code == Some(4) && text.contains("is only for root and members of the group haclient"),
        "{code:?}: {text}"
    );
    // By heartbeat's name, with heartbeat's text.
    let name = cluster.path().join("cl_status");
    std::os::unix::fs::symlink(&program, &name).unwrap();
    let mut command = Command::new(&name);
    let output = command
        .arg("--run")
        .arg(a1.place.join("run"))
        .arg("hbstatus")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "Heartbeat is apparently running on this machine, but refuses my connection\n");
    assert_eq!(output.status.code(), Some(0));
    std::os::unix::fs::chown(&socket, None, Some(GROUP)).unwrap();
    let (code, text) = said(GROUP, &["status"]).unwrap();
    assert!(code == Some(1) && text.is_empty(), "alone, it is not well: {code:?}: {text}");
    for words in [&["standby"][..], &["takeover", "local"], &["stop"]] {
        let (code, text) = said(GROUP, words).unwrap();
        assert!(code == Some(4) && text.contains("only root may give orders"), "{words:?}: {code:?}: {text}");
    }
    let modes = ["hb_uuid", "hb_generation", "locum_generations"]
        .map(|name| a1.place.join("state").join(name).metadata().unwrap().mode() & 0o777);
    assert_eq!(modes, [0o644, 0o600, 0o600]);
    assert!(a1.status().is_some(), "it still runs");
}

#[test]
fn a_watcher_sees_until_the_end() {
    let cluster = tempfile::tempdir().unwrap();
    let mut a1 = Node::new(cluster.path(), "a1", 16_945);
    a1.start();
    until("it answers", || a1.status().is_some());
    let mut watcher = a1.command(&["status", "--json", "--watch"]);
    let mut watcher = watcher.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
    let mut next = || lines.next().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(next().unwrap()["node"], "a1");
    // Clocks and counters are not a change: this state is sent because nothing was sent for long.
    let times: Vec<f64> = (0..6).map(|_| next().unwrap()["uptime"].as_f64().unwrap()).collect();
    assert!(times.windows(2).any(|pair| pair[1] - pair[0] > 1.0), "{times:?}");
    assert_eq!(a1.output_of(&["stop"]).0, 0);
    assert_eq!(a1.ended().code(), Some(0));
    while let Some(status) = next() {
        assert_eq!(status["node"], "a1");
    }
    assert_eq!(watcher.wait().unwrap().code(), Some(1));
}

#[test]
fn a_wrong_configuration_is_drawn_and_nothing_starts() {
    let cluster = tempfile::tempdir().unwrap();
    let a1 = Node::new(cluster.path(), "a1", 16_946);
    fs::write(a1.place.join("etc/ha.cf"), "mcast lo 239.255.6.94 16946 1 1\nkeepalive soon\nnode a1 a2\n")
        .unwrap();
    let (code, text) = a1.output_of(&["run"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("ha.cf:2") && text.contains("keepalive soon") && text.contains('^'), "{text}");
    assert!(!a1.place.join("state").exists() && !a1.place.join("run").exists());
}

/// The reader has gone, or the disk is full: the output is lost, and the exit code is the same.
#[test]
fn what_cannot_be_said_changes_no_exit_code() {
    let cluster = tempfile::tempdir().unwrap();
    let a1 = Node::new(cluster.path(), "a1", 16_946);
    fs::write(a1.place.join("etc/ha.cf"), "keepalive soon\n").unwrap();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let closed = || std::io::pipe().unwrap().1;
    for sink in [Stdio::from(full()), Stdio::from(closed())] {
        assert_eq!(a1.command(&["run"]).stderr(sink).status().unwrap().code(), Some(2));
    }
    assert_eq!(a1.command(&["status"]).stderr(full()).status().unwrap().code(), Some(3));
    let links = cluster.path().join("links");
    fs::create_dir(&links).unwrap();
    let links = links.to_str().unwrap();
    assert_eq!(a1.command(&["links", links]).stdout(full()).status().unwrap().code(), Some(0));
}

/// With a limit below ten, not even the configuration files can be read.
#[test]
fn a_daemon_that_lacks_something_says_what() {
    let cluster = tempfile::tempdir().unwrap();
    let a1 = Node::new(cluster.path(), "a1", 16_989);
    // Without a resource that could not be stopped before the heart begins.
    fs::write(a1.place.join("etc/haresources"), "").unwrap();
    let last_words = |files: u32| {
        let mut command = Command::new("/bin/sh");
        let run = a1.command(&["run"]);
        command.args(["-c", "ulimit -n $0 && exec timeout 1 \"$@\""]).arg(files.to_string());
        let output = command.arg(run.get_program()).args(run.get_args()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code() == Some(1)).then(|| text.lines().last().unwrap().to_owned())
    };
    let said: Vec<String> = (10..100).map_while(last_words).collect();
    assert!(said.iter().any(|line| line.starts_with("locum: the heart cannot be started: ")), "{said:#?}");
    assert!(said.iter().all(|line| !line.starts_with("locum: Too many open files")), "{said:#?}");
}

#[test]
fn a_wrong_command_line_is_none_of_the_other_codes() {
    for words in [&["standby", "everything"][..], &["run", "--start-limit", "0"], &["no-such-command"], &[]] {
        assert_eq!(locum().args(words).output().unwrap().status.code(), Some(64), "{words:?}");
    }
    assert_eq!(locum().arg("--version").output().unwrap().status.code(), Some(0));
}
