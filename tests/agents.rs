//! Agents with real children: scripts in a temporary directory, run as the daemon runs them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    future::Future,
    io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use locum::{
    control::{
        agents::{AgentOptions, Agents, Roots, event::EventScripts},
        leftovers::{self, AddressAccess, AddressSnapshot, KernelAddresses},
    },
    host_config::HostConfig,
};
use locum_core::{
    model::{
        action::Operation,
        claim::{Ballot, Epoch},
        event::Outcome,
        identity::{GroupIndex, MemberIndex, NodeIndex, ResourceId},
        logging::Logging,
        note::Note,
        resource::{Address, Agent, Resource},
    },
    r1::plan::{AutoFailback, FramingPlan, GenerationSource, R1Group, R1Limits, R1Plan, R1Timing},
};
use locum_lab::clock::{await_some, pause};
use locum_sys::netlink::{Interface, InterfaceAddress, Netlink, NewAddress};

mod ladder;

/// Longer than any step here takes on the slowest machine. It is only waited for if a test fails.
const LONG: Duration = Duration::from_secs(60);

/// A directory with a configuration directory, one for programs, and one for the output of the scripts.
struct AgentSandbox {
    dir: tempfile::TempDir,
    resources: Vec<Resource>,
    notes: Arc<Mutex<Vec<Note>>>,
    prefer_scripts: bool,
    parameters: BTreeMap<String, String>,
    cgroup: Option<PathBuf>,
    keeps_kin: bool,
}

impl AgentSandbox {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ha.d/resource.d", "bin", "init.d", "units", "ocf/resource.d/heartbeat"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        Self {
            dir,
            resources: Vec::new(),
            notes: Arc::default(),
            prefer_scripts: false,
            parameters: BTreeMap::new(),
            cgroup: None,
            keeps_kin: false,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes a shell script; `$D` in it is the directory.
    fn program(&self, name: &str, text: &str) {
        let text = format!("#!/bin/sh\nD='{}'\n{text}\n", self.dir.path().display());
        self.raw_program(name, &text);
    }

    fn raw_program(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn add(&mut self, script: &str, args: &[&str], agent: Agent) -> ResourceId {
        self.resources.push(Resource {
            text: [&[script], args].concat().join("::"),
            script: script.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            agent,
        });
        ResourceId { group: GroupIndex(0), member: self.resources.len() - 1 }
    }

    /// Adds a resource with a resource script of this text.
    fn script(&mut self, name: &str, text: &str) -> ResourceId {
        self.program(&format!("ha.d/resource.d/{name}"), text);
        self.add(name, &[], Agent::Script)
    }

    fn agents(&self) -> Agents {
        let seconds = Duration::from_secs;
        let plan = R1Plan {
            cluster: "linux-ha".into(),
            nodes: vec!["clustnode1".into(), "clustnode2".into()],
            me: NodeIndex(0),
            timing: R1Timing {
                keepalive: seconds(1),
                warntime: seconds(5),
                deadtime: seconds(10),
                initdead: seconds(20),
                deadping: seconds(10),
            },
            auto_failback: AutoFailback::On,
            links: vec![],
            pings: vec![],
            groups: vec![R1Group {
                node: NodeIndex(0),
                key: "key".into(),
                resources: self.resources.clone(),
            }],
            framing: FramingPlan { inner_auth: true, ttl: 3, rexmit_delay_max: seconds(1) },
            generation: GenerationSource::File,
            logging: Logging {
                logfile: Some("/var/log/ha-log".into()),
                debugfile: Some("/var/log/ha-debug".into()),
                ..Logging::default()
            },
            realtime: None,
            limits: R1Limits::default(),
            fencing: None,
            ipfail: false,
            clients: vec![],
            watchdog: None,
        };
        let notes = Arc::clone(&self.notes);
        let roots = Roots {
            config: self.path("ha.d"),
            init: vec![self.path("init.d")],
            old: vec![],
            units: vec![self.path("units")],
            ocf: self.path("ocf"),
            path: [self.path("bin")].into_iter().chain(["/usr/bin", "/bin"].map(PathBuf::from)).collect(),
        };
        let options = AgentOptions {
            roots,
            prefer_scripts: self.prefer_scripts,
            parameters: self.parameters.clone(),
            fifo: Some("/var/lib/heartbeat/fifo".into()),
            cgroup: self.cgroup.clone().ok_or_else(|| "this test has none".to_owned()),
            keep_kin: self.keeps_kin.then(|| self.dir.path().display().to_string()),
            notes: Some(self.path("operations")),
            tell: Arc::new(move |note| notes.lock().unwrap().push(note)),
        };
        Agents::new(Arc::new(HostConfig::from(&plan)), options)
    }

    fn run(&self, id: ResourceId, operation: Operation) -> Outcome {
        self.run_within(id, operation, LONG)
    }

    fn run_within(&self, id: ResourceId, operation: Operation, limit: Duration) -> Outcome {
        block_on(self.agents().run(id, operation, limit, None))
    }

    fn note_texts(&self) -> Vec<String> {
        self.notes.lock().unwrap().iter().map(|note| note.text.clone()).collect()
    }

    fn has_note(&self, text: &str) -> bool {
        self.note_texts().iter().any(|line| line.contains(text))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// Waits until the condition holds; false after a very long time.
async fn comes_true(test: impl Fn() -> bool) -> bool {
    for _ in 0..3000 {
        if test() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Kills processes that a test left running on purpose.
struct Killed(String);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(pid) = self.0.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

use Operation::{Kill, Start, Status, Stop, Terminate};

#[test]
fn a_script_is_started_asked_and_stopped() {
    let mut house = AgentSandbox::new();
    house.program(
        "ha.d/resource.d/httpd",
        r#"echo "$*" >> $D/journal
        case "$3" in
            start) touch $D/up;;
            stop) rm -f $D/up;;
            status) test -e $D/up && echo "is running" || echo "is stopped";;
        esac"#,
    );
    let id = house.add("httpd", &["a b", ""], Agent::Script);
    assert_eq!(house.run(id, Status), Outcome::Stopped);
    assert_eq!(house.run(id, Start), Outcome::Ok);
    assert_eq!(house.run(id, Status), Outcome::Running);
    assert_eq!(house.run(id, Stop), Outcome::Ok);
    assert_eq!(house.run(id, Stop), Outcome::Ok);
    let verbs = ["status", "start", "status", "stop", "stop"];
    assert_eq!(house.read("journal"), verbs.map(|verb| format!("a b  {verb}\n")).concat());
}

#[test]
fn the_text_and_not_the_exit_code_tells_the_status() {
    let mut house = AgentSandbox::new();
    let cases = [
        ("echo running; exit 3", Outcome::Running),
        ("echo not running; exit 0", Outcome::Stopped),
        ("exit 0", Outcome::Stopped),
        ("echo running >&2", Outcome::Stopped),
        ("printf 'OK'", Outcome::Running),
        ("printf '\\377\\376 is running \\377'", Outcome::Running),
    ];
    for (number, (text, expected)) in cases.into_iter().enumerate() {
        let id = house.script(&format!("s{number}"), text);
        assert_eq!(house.run(id, Status), expected, "{text}");
    }
}

#[test]
fn failures_say_the_last_word_of_the_script() {
    let mut house = AgentSandbox::new();
    let id = house.script("bad", "echo one; echo 'no \x1b[31mdisk' >&2; exit 6");
    let expected = Outcome::Failed("exit code 6: no \\x1b[31mdisk".into());
    assert_eq!(house.run(id, Start), expected);
    assert!(house.has_note("bad start: one"));
    let id = house.script("shot", "kill -9 $$");
    assert_eq!(house.run(id, Stop), Outcome::Failed("killed by signal 9".into()));
    assert_eq!(house.run(id, Status), Outcome::Unknown("killed by signal 9".into()));
    assert!(house.notes.lock().unwrap().iter().all(|note| note.group.as_deref() == Some("key")));
}

#[test]
fn what_cannot_be_run_is_an_answer() {
    let mut house = AgentSandbox::new();
    let ghost = house.add("ghost", &[], Agent::Script);
    for operation in [Start, Stop, Status] {
        assert!(matches!(house.run(ghost, operation), Outcome::Missing(text) if text.contains("no script")));
    }
    let evil = house.add("../../bin/sh", &[], Agent::Script);
    assert!(matches!(house.run(evil, Start), Outcome::Missing(text) if text.contains("not the name")));
    // Not executable; built for another machine; an OCF agent that is not installed.
    let plain = house.script("plain", "exit 0");
    let path = house.path("ha.d/resource.d/plain");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(house.run(plain, Stop), Outcome::Missing(text) if text.contains("chmod +x")));
    house.raw_program("ha.d/resource.d/alien", "\x7fELF is no program of any machine\n");
    let alien = house.add("alien", &[], Agent::Script);
    assert!(!matches!(house.run(alien, Start), Outcome::Ok));
    let ocf = Agent::Ocf { provider: "heartbeat".into(), kind: "None".into(), parameters: vec![] };
    let ocf = house.add("ocf:heartbeat:None", &[], ocf);
    assert!(matches!(house.run(ocf, Status), Outcome::Missing(text) if text.contains("no OCF agent")));
    house.raw_program("ha.d/resource.d/lost", "#!/nonexistent/interpreter\n");
    let lost = house.add("lost", &[], Agent::Script);
    assert!(matches!(house.run(lost, Stop), Outcome::Missing(text) if text.contains("interpreter")));
    // A script without a `#!` line is run by a shell, as a shell would do.
    house.raw_program("ha.d/resource.d/bare", "echo is running\n");
    let bare = house.add("bare", &[], Agent::Script);
    assert_eq!(house.run(bare, Status), Outcome::Running);
}

#[test]
fn a_hanging_script_is_killed_with_everything_it_started() {
    let mut house = AgentSandbox::new();
    // In its group; in a session of its own; orphaned in a session of its own; ignoring all signals but KILL.
    let id = house.script(
        "hang",
        r#"sleep 1000 & echo $! >> $D/pids
        setsid sh -c 'echo $$ >> $0/pids; trap "" TERM HUP INT; while :; do sleep 1000; done' $D &
        (setsid sh -c 'echo $$ >> $0/pids; exec sleep 1000' $D &)
        echo $$ >> $D/pids
        while [ $(wc -l < $D/pids) -lt 4 ]; do :; done
        touch $D/ready
        sleep 1000"#,
    );
    let ready = house.path("ready");
    // On a busy machine it may take long until all of them run.
    for limit in [2, 10, 50] {
        let _ = fs::remove_file(house.path("pids"));
        assert_eq!(house.run_within(id, Start, Duration::from_secs(limit)), Outcome::TimedOut);
        if ready.exists() {
            break;
        }
    }
    assert!(ready.exists());
    let pids = house.read("pids");
    assert_eq!(pids.lines().count(), 4);
    for pid in pids.lines() {
        assert!(block_on(comes_true(|| !alive(pid))), "process {pid} survived");
    }
    assert!(house.has_note("over its limit"));
}

#[test]
fn an_abandoned_operation_is_killed() {
    let mut house = AgentSandbox::new();
    let id = house.script("hang", "echo $$ > $D/new; mv $D/new $D/pid; sleep 1000");
    let agents = house.agents();
    block_on(async {
        tokio::select! {
            _ = agents.run(id, Start, LONG, None) => panic!("ended"),
            there = comes_true(|| house.path("pid").exists()) => assert!(there),
        }
    });
    let pid = house.read("pid");
    assert!(block_on(comes_true(|| !alive(pid.trim()))));
}

#[test]
fn a_service_left_in_the_background_survives() {
    let mut house = AgentSandbox::new();
    // It keeps the outputs of its start script, and prints as long as it lives.
    let id = house.script(
        "daemon",
        r#"sh -c 'echo $$ > $0/new; mv $0/new $0/pid
            while :; do n=$((n+1)); echo "tick $n"; echo "$n" > $0/ticks; sleep 0.02; done' $D &
        echo started"#,
    );
    let ticks = || house.read("ticks").trim().parse::<u64>().unwrap_or(0);
    let first_life = runtime();
    let agents = house.agents();
    assert_eq!(first_life.block_on(agents.run(id, Start, LONG, None)), Outcome::Ok);
    assert!(first_life.block_on(comes_true(|| house.path("pid").exists() && ticks() > 0)));
    let service = Killed(house.read("pid").trim().to_owned());
    assert!(
        first_life.block_on(comes_true(|| house.has_note("(background): tick"))),
        "{:?}",
        house.note_texts()
    );
    // The daemon ends, so its output is not read any more.
    drop((agents, first_life));
    let before = ticks();
    assert!(block_on(comes_true(|| ticks() > before + 10)));
    assert!(alive(&service.0));
}

#[test]
fn a_flood_is_drained_and_cut() {
    let mut house = AgentSandbox::new();
    let id = house.script("flood", "head -c 3000000 /dev/zero | tr '\\0' '\\n' | sed s/^/abc/");
    assert_eq!(house.run(id, Start), Outcome::Ok);
    assert!(house.note_texts().len() < 110, "{} lines", house.note_texts().len());
    assert!(house.has_note("more lines, not shown"));
    // Endless output must not delay the limit.
    let id = house.script("endless", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxx; done");
    assert_eq!(house.run_within(id, Start, Duration::from_millis(500)), Outcome::TimedOut);
}

#[test]
fn different_resources_run_at_the_same_time() {
    let mut house = AgentSandbox::new();
    let wait =
        |mine: &str, other: &str| format!("touch $D/{mine}; while [ ! -e $D/{other} ]; do sleep 0.02; done");
    let one = house.script("one", &wait("1", "2"));
    let two = house.script("two", &wait("2", "1"));
    let agents = house.agents();
    let both = async { tokio::join!(agents.run(one, Start, LONG, None), agents.run(two, Start, LONG, None)) };
    assert_eq!(block_on(both), (Outcome::Ok, Outcome::Ok));
}

#[test]
fn the_environment_is_the_one_scripts_know_and_nothing_else() {
    // The variables that heartbeat itself gives to a resource script, as measured, without those that its shell library
    // adds.
    let measured = "HA_BIN HA_CURHOST HA_DATEFMT HA_DEBUGLOG HA_DIR HA_DOCDIR HA_FIFO HA_FUNCS HA_LOGD HA_LOGFILE \
        HA_RCDIR HA_RESOURCEDIR HA_auto_failback HA_autojoin HA_baud HA_cluster HA_deadtime HA_debug HA_debugfile \
        HA_keepalive HA_logfile HA_udpport OCF_AGENTS OCF_ROOT";
    let mut house = AgentSandbox::new();
    let recorded = [
        ("auto_failback", "on"),
        ("autojoin", "none"),
        ("baud", "19200"),
        ("cluster", "linux-ha"),
        ("deadtime", "3"),
        ("debugfile", "/var/log/ha-debug"),
        ("keepalive", "500ms"),
        ("logfile", "/var/log/ha-log"),
        ("udpport", "694"),
    ];
    house.parameters = recorded.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let id = house.script(
        "env",
        "tr '\\0' '\\n' < /proc/$$/environ > $D/env; pwd > $D/pwd; umask > $D/umask\n\
         ls /proc/self/fd > $D/fds; cut -d' ' -f 5,6,7 /proc/$$/stat > $D/ids; echo $$ >> $D/ids\n\
         grep -E '^Sig(Ign|Blk)' /proc/self/status > $D/signals",
    );
    assert_eq!(house.run(id, Stop), Outcome::Ok);
    let text = house.read("env");
    let seen: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let names: BTreeSet<&str> = seen.keys().copied().collect();
    let expected: BTreeSet<&str> = measured.split_whitespace().chain(["PATH", "LOCUM_OPERATION"]).collect();
    assert_eq!(names, expected);
    assert_eq!(seen["HA_deadtime"], "3");
    assert_eq!(seen["HA_CURHOST"], "clustnode1");
    assert_eq!(seen["HA_DATEFMT"], "%Y/%m/%d_%T\t");
    assert_eq!(seen["HA_DIR"], house.path("ha.d").to_str().unwrap());
    assert_eq!((house.read("pwd").trim(), house.read("umask").trim()), ("/", "0022"));
    // The fourth belongs to the listing itself.
    assert_eq!(house.read("fds").split_whitespace().count(), 4, "{}", house.read("fds"));
    let ids = house.read("ids");
    let (ids, pid) = ids.trim().split_once('\n').unwrap();
    assert_eq!(ids, format!("{pid} {pid} 0"), "a session of its own, without a terminal");
}

#[test]
fn ocf_agents_get_their_parameters_and_their_exit_codes_count() {
    let mut house = AgentSandbox::new();
    house.program(
        "ocf/resource.d/heartbeat/Dummy",
        r#"[ -n "$OCF_ROOT" ] && [ "$OCF_RA_VERSION_MAJOR" = 1 ] && [ -n "$OCF_RESOURCE_INSTANCE" ] || exit 6
        echo "$1 state=$OCF_RESKEY_state $OCF_RESKEY_extra" >> $D/journal
        case "$1" in
            start) echo > "$D/$OCF_RESKEY_state";;
            stop) rm -f "$D/$OCF_RESKEY_state";;
            monitor) [ -e "$D/$OCF_RESKEY_state" ] && exit 0; exit ${OCF_RESKEY_down:-7};;
        esac"#,
    );
    let agent = |parameters: &[(&str, &str)]| Agent::Ocf {
        provider: "heartbeat".into(),
        kind: "Dummy".into(),
        parameters: parameters.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    };
    let id = house.add("ocf:heartbeat:Dummy", &["state=a b"], agent(&[("state", "a b")]));
    assert_eq!(house.run(id, Status), Outcome::Stopped);
    assert_eq!(house.run(id, Start), Outcome::Ok);
    assert_eq!(house.run(id, Status), Outcome::Running);
    assert_eq!(house.run(id, Stop), Outcome::Ok);
    assert_eq!(
        house.read("journal"),
        ["monitor", "start", "monitor", "stop"].map(|v| format!("{v} state=a b \n")).concat()
    );

    let broken = house.add("ocf:heartbeat:Dummy", &[], agent(&[("state", "x"), ("down", "5")]));
    assert!(matches!(house.run(broken, Status), Outcome::Missing(text) if text.contains("not installed")));

    fs::create_dir_all(house.path("ha.d/conf/OCF/Dummy")).unwrap();
    let file = "# parameters\nOCF_RESKEY_state=\"file state\"  # quoted\nX=1\nOCF_RESKEY_extra=$((X + 1))\n";
    fs::write(house.path("ha.d/conf/OCF/Dummy/one"), file).unwrap();
    let id =
        house.add("OCF", &["Dummy", "one"], Agent::OcfFile { kind: "Dummy".into(), instance: "one".into() });
    assert_eq!(house.run(id, Start), Outcome::Ok);
    assert!(house.read("journal").ends_with("start state=file state 2\n"), "{}", house.read("journal"));
    assert_eq!(house.run(id, Status), Outcome::Running);
}

#[test]
fn systemd_units_are_asked_through_systemctl() {
    let mut house = AgentSandbox::new();
    fs::write(house.path("units/nginx.service"), "[Service]\n").unwrap();
    house.program(
        "bin/systemctl",
        r#"echo "$*" >> $D/journal
        case $2 in
            is-active) cat $D/state; grep -q '^active' $D/state;;
            show) cat $D/substate;;
            stop) printf 'Failed to stop nginx.service: no bus\n\nSee system logs.\n' >&2; exit 1;;
        esac"#,
    );
    let id = house.add("nginx", &[], Agent::Script);
    let waits = || Outcome::Unknown("it has ended, and systemd is about to restart it".into());
    for (state, substate, expected) in [
        ("active\n", "running\n", Outcome::Running),
        ("deactivating\n", "stop-sigterm\n", Outcome::Running),
        ("activating\n", "start-pre\n", Outcome::Running),
        // A program that dies at each start is in this state nearly always.
        ("activating\n", "auto-restart\n", waits()),
        ("activating\n", "auto-restart-queued\n", waits()),
        ("inactive\n", "dead\n", Outcome::Stopped),
        ("failed\n", "failed\n", Outcome::Stopped),
        ("", "", Outcome::Unknown("exit code 1".into())),
    ] {
        fs::write(house.path("state"), state).unwrap();
        fs::write(house.path("substate"), substate).unwrap();
        assert_eq!(house.run(id, Status), expected, "{state:?} {substate:?}");
    }
    assert_eq!(house.run(id, Start), Outcome::Ok);
    assert!(house.read("journal").ends_with("--no-ask-password start -- nginx.service\n"));
    // The reason, and not the hint where to read more.
    let complaint = "exit code 1: Failed to stop nginx.service: no bus";
    assert_eq!(house.run(id, Stop), Outcome::Failed(complaint.into()));
}

#[test]
fn mail_is_sent_beside_the_takeover() {
    let mut house = AgentSandbox::new();
    let agent =
        Agent::MailTo { recipients: "root admin@example.org".into(), subject: Some("cluster".into()) };
    let id = house.add("MailTo", &["root admin@example.org", "cluster"], agent);
    let agents = house.agents();
    house.program("bin/sendmail", "cat > $D/new; echo \"$*\" >> $D/new; mv $D/new $D/mail");
    block_on(async {
        assert_eq!(agents.run(id, Status, LONG, None).await, Outcome::Stopped);
        assert_eq!(agents.run(id, Start, LONG, None).await, Outcome::Ok);
        assert!(comes_true(|| house.path("mail").exists()).await);
        assert_eq!(agents.run(id, Status, LONG, None).await, Outcome::Running);
        let mail = house.read("mail");
        assert!(
            mail.starts_with(
                "To: root, admin@example.org\nSubject: cluster takes over key on clustnode1\n\n"
            ),
            "{mail}"
        );
        assert!(mail.ends_with("\n-i -- root admin@example.org\n"), "{mail}");
        assert_eq!(agents.run(id, Stop, LONG, None).await, Outcome::Ok);
        assert!(comes_true(|| house.read("mail").contains("gives up")).await);
        // A mailer that fails is a warning.
        house.program("bin/sendmail", "echo no route >&2; exit 75");
        assert_eq!(agents.run(id, Start, LONG, None).await, Outcome::Ok);
        assert!(comes_true(|| house.has_note("no mail sent: exit code 75: no route")).await);
    });
}

#[test]
fn a_delay_takes_its_time_but_not_more_than_the_limit() {
    let mut house = AgentSandbox::new();
    let delay = |start| Agent::Delay { start: Duration::from_millis(start), stop: Duration::ZERO };
    let short = house.add("Delay", &["0"], delay(50));
    let endless = house.add("Delay", &["9999"], delay(9_999_000));
    let agents = house.agents();
    block_on(async {
        let begin = tokio::time::Instant::now();
        assert_eq!(agents.run(short, Start, LONG, None).await, Outcome::Ok);
        assert!(begin.elapsed() >= Duration::from_millis(50));
        assert_eq!(agents.run(short, Status, LONG, None).await, Outcome::Running);
        assert_eq!(agents.run(endless, Start, Duration::from_millis(50), None).await, Outcome::TimedOut);
        assert_eq!(agents.run(endless, Status, LONG, None).await, Outcome::Stopped);
    });
}

#[test]
fn a_file_system_is_mounted_by_the_systems_program() {
    let mut house = AgentSandbox::new();
    house
        .program("bin/mount", "echo \"$*\" >> $D/journal; echo 'special device does not exist' >&2; exit 32");
    let directory = house.path("mnt").display().to_string();
    let agent = |directory: &str| Agent::Filesystem {
        device: "/dev/nothing".into(),
        directory: directory.to_owned(),
        kind: Some("ext4".into()),
        options: Some("noatime".into()),
    };
    let id = house.add("Filesystem", &["/dev/nothing"], agent(&directory));
    assert_eq!(house.run(id, Status), Outcome::Stopped);
    assert_eq!(house.run(id, Stop), Outcome::Ok);
    assert_eq!(house.run(id, Start), Outcome::Failed("exit code 32: special device does not exist".into()));
    assert_eq!(house.read("journal"), format!("-t ext4 -o noatime -- /dev/nothing {directory}\n"));
    // Another file system is mounted there: it must not be touched.
    let proc = house.add("Filesystem", &["/dev/nothing"], agent("/proc"));
    assert_eq!(house.run(proc, Status), Outcome::Running, "its source is no device, so it may be ours");
    let relative = house.add("Filesystem", &["/dev/nothing"], agent("mnt"));
    assert!(matches!(house.run(relative, Start), Outcome::Failed(text) if text.contains("absolute")));
}

#[test]
fn scripts_in_the_place_of_native_agents_when_preferred() {
    let mut house = AgentSandbox::new();
    house.prefer_scripts = true;
    house.program("ha.d/resource.d/Delay", "echo \"$*\" >> $D/journal");
    let agent = Agent::Delay { start: Duration::from_secs(9999), stop: Duration::ZERO };
    let id = house.add("Delay", &["9999"], agent);
    assert_eq!(house.run(id, Start), Outcome::Ok);
    assert_eq!(house.read("journal"), "9999 start\n");
}

#[test]
fn old_places_are_warned_of_once() {
    let mut house = AgentSandbox::new();
    house.program("ha.d/httpd", "exit 0");
    let id = house.add("httpd", &[], Agent::Script);
    let agents = house.agents();
    block_on(async {
        for _ in 0..3 {
            assert_eq!(agents.run(id, Stop, LONG, None).await, Outcome::Ok);
        }
    });
    assert_eq!(house.note_texts().iter().filter(|line| line.contains("outdated directory")).count(), 1);
}

/// The addresses of an imaginary machine.
#[derive(Default)]
struct Machine {
    standing: Mutex<Vec<InterfaceAddress>>,
    /// How many removals fail before one succeeds.
    stubborn: Mutex<u32>,
    /// How long each look takes.
    slow: Duration,
    looks: AtomicUsize,
}

impl Machine {
    fn with(standing: impl IntoIterator<Item = [u8; 4]>) -> Self {
        let put = |ip: [u8; 4]| InterfaceAddress { marked: true, ..InterfaceAddress::new(2, ip.into(), 24) };
        Self { standing: Mutex::new(standing.into_iter().map(put).collect()), ..Self::default() }
    }
}

impl AddressAccess for Machine {
    fn look(&self) -> io::Result<AddressSnapshot> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        pause(self.slow);
        let eth0 = Interface {
            index: 2,
            name: "eth0".to_owned(),
            mac: None,
            up: true,
            carrier: true,
            loopback: false,
            resolves: true,
        };
        Ok(AddressSnapshot::new(vec![eth0], self.standing.lock().unwrap().clone()))
    }

    fn remove(&self, there: &[InterfaceAddress]) -> io::Result<()> {
        let mut stubborn = self.stubborn.lock().unwrap();
        if *stubborn > 0 {
            *stubborn -= 1;
            return Err(io::Error::other("not now"));
        }
        self.standing.lock().unwrap().retain(|one| !there.contains(one));
        Ok(())
    }
}

fn address(ip: [u8; 4]) -> Agent {
    Agent::Address(Address {
        ip: ip.into(),
        prefix: None,
        interface: None,
        label: None,
        broadcast: None,
        by_route: false,
    })
}

#[test]
fn leftovers_are_found_and_stopped_right_to_left() {
    let mut house = AgentSandbox::new();
    let there = house.add("IPaddr", &["10.9.8.7"], address([10, 9, 8, 7]));
    house.add("IPaddr", &["10.9.8.6"], address([10, 9, 8, 6]));
    let service = |name: &str| {
        format!(
            r#"echo "{name} $1" >> $D/journal
            case "$1" in
                status) test -e $D/{name} && echo running;;
                stop) rm $D/{name};;
            esac"#
        )
    };
    let one = house.script("one", &service("one"));
    house.script("idle", &service("idle"));
    let two = house.script("two", &service("two"));
    let deaf = house.script("deaf", "kill -9 $$");
    for name in ["one", "two"] {
        fs::write(house.path(name), "").unwrap();
    }
    let machine = Arc::new(Machine::with([[10, 9, 8, 7]]));
    *machine.stubborn.lock().unwrap() = 1;
    let (agents, addresses) = (house.agents(), Arc::clone(&machine) as Arc<dyn AddressAccess>);
    block_on(async {
        let found = leftovers::survey(&agents, &addresses, &leftovers::Progress::default()).await;
        let unknown = Outcome::Unknown("killed by signal 9".into());
        let running = |id| (id, Outcome::Running);
        assert_eq!(found, [running(there), running(one), running(two), (deaf, unknown)]);
        let failed = leftovers::sweep(&agents, &addresses, found).await;
        assert_eq!(failed, [(deaf, Outcome::Failed("killed by signal 9".into()))]);
    });
    let stops: Vec<String> =
        house.read("journal").lines().filter(|line| line.ends_with("stop")).map(str::to_owned).collect();
    assert_eq!(stops, ["two stop", "one stop"], "what does not run is not stopped");
    assert!(machine.standing.lock().unwrap().is_empty());
    assert!(house.has_note("two was left running by an earlier daemon"));
}

/// However many addresses an earlier run left, the kernel is asked once to find and once to remove them. The thread
/// that answers questions does none of it, so questions are answered meanwhile.
#[test]
fn many_leftover_addresses_hold_up_nobody() {
    const SLOW: Duration = Duration::from_millis(500);
    let mut house = AgentSandbox::new();
    let all: Vec<[u8; 4]> = (0..=255).map(|last| [10, 9, 8, last]).collect();
    for ip in &all {
        house.add("IPaddr", &[&IpAddr::from(*ip).to_string()], address(*ip));
    }
    let machine = Arc::new(Machine { slow: SLOW, ..Machine::with(all) });
    let (agents, addresses) = (house.agents(), Arc::clone(&machine) as Arc<dyn AddressAccess>);
    block_on(async {
        let answering = tokio::spawn(async {
            let mut longest = Duration::ZERO;
            loop {
                let before = tokio::time::Instant::now();
                tokio::time::sleep(Duration::from_millis(1)).await;
                longest = longest.max(before.elapsed());
                if longest >= SLOW {
                    return longest;
                }
            }
        });
        let found = leftovers::survey(&agents, &addresses, &leftovers::Progress::default()).await;
        assert_eq!(found.len(), 256);
        assert_eq!(machine.looks.load(Ordering::Relaxed), 1);
        assert_eq!(leftovers::sweep(&agents, &addresses, found).await, []);
        assert_eq!(machine.looks.load(Ordering::Relaxed), 2);
        assert!(machine.standing.lock().unwrap().is_empty());
        assert!(!answering.is_finished(), "nobody was answered for {:?}", answering.await);
    });
}

/// A service address that another program put there is left alone. One of Locum beside it is removed, and if that
/// fails, the error names both.
#[test]
fn a_leftover_beside_somebody_elses_address_is_told() {
    let mut house = AgentSandbox::new();
    let id = house.add("IPaddr", &["10.9.8.7"], address([10, 9, 8, 7]));
    let machine = Arc::new(Machine::with([[10, 9, 8, 7]]));
    let theirs = InterfaceAddress::new(2, [10, 9, 8, 7].into(), 32);
    machine.standing.lock().unwrap().push(theirs.clone());
    *machine.stubborn.lock().unwrap() = 1;
    let (agents, addresses) = (house.agents(), Arc::clone(&machine) as Arc<dyn AddressAccess>);
    let sweep = || {
        block_on(async {
            let found = leftovers::survey(&agents, &addresses, &leftovers::Progress::default()).await;
            leftovers::sweep(&agents, &addresses, found).await
        })
    };
    let left = [(id, Outcome::Failed("not put there by Locum (10.9.8.7/32 dev eth0)".into()))];
    assert_eq!(sweep(), left);
    assert!(house.has_note("cannot be removed: cannot remove 10.9.8.7: not now"), "{:?}", house.note_texts());
    assert_eq!(sweep(), left);
    assert_eq!(*machine.standing.lock().unwrap(), [theirs]);
}

/// A directory in a version 2 control group tree where groups can be made; removed at the end.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let tree = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(tree).join(format!("locum-test-{}-{count}", std::process::id()));
        fs::create_dir(&path).ok()?;
        path.join("cgroup.kill").exists().then_some(Self(path))
    }

    fn groups(&self) -> usize {
        self.0.read_dir().unwrap().flatten().filter(|entry| entry.path().is_dir()).count()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..1000 {
            for entry in self.0.read_dir().into_iter().flatten().flatten() {
                for below in entry.path().read_dir().into_iter().flatten().flatten() {
                    let _ = fs::remove_dir(below.path());
                }
                let _ = fs::remove_dir(entry.path());
            }
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
        }
    }
}

#[test]
fn with_a_control_group_nothing_can_hide() {
    let Some(group) = ControlGroup::new() else {
        crate::skipped("no control group can be made here");
        return;
    };
    let mut house = AgentSandbox::new();
    house.cgroup = Some(group.0.clone());
    // Orphaned, in a session of its own, without the marking variable.
    let id = house.script(
        "hidden",
        r#"(setsid env -i sh -c 'echo $$ > $0/new; mv $0/new $0/pid; sleep 1000' $D &)
        while [ ! -e $D/pid ]; do :; done
        sleep 1000"#,
    );
    for limit in [1, 10, 50] {
        assert_eq!(house.run_within(id, Start, Duration::from_secs(limit)), Outcome::TimedOut);
        if house.path("pid").exists() {
            break;
        }
    }
    let pid = house.read("pid");
    assert!(block_on(comes_true(|| !alive(pid.trim()))));
    // A service that goes on keeps its group. Once it has ended, the next operation removes the group.
    let id = house.script(
        "daemon",
        "case $1 in stop) kill -9 $(cat $D/service);; start) sleep 1000 & echo $! > $D/service;; esac",
    );
    assert_eq!(house.run(id, Start), Outcome::Ok);
    let service = Killed(house.read("service").trim().to_owned());
    assert!(alive(&service.0));
    assert_eq!(group.groups(), 1);
    assert_eq!(house.run(id, Stop), Outcome::Ok);
    assert!(block_on(comes_true(|| !alive(&service.0))));
    let gone = || {
        house.run(id, Status);
        (group.groups() == 0).then_some(())
    };
    assert!(await_some(LONG, gone).is_some(), "the group of the start is gone");
}

/// A start hangs before its program runs, as on a file system that does not answer. This is reported, and not repeated.
/// Other resources go on, and so does this one when the file system answers again.
#[test]
fn a_start_that_hangs_is_begun_once_and_holds_up_nobody() {
    let threads = || fs::read_dir("/proc/self/task").unwrap().count();
    let mut house = AgentSandbox::new();
    house.keeps_kin = true;
    house.cgroup = Some(house.path("cgroup"));
    let procs = house.path("cgroup/group-key/on-a-hung-disk/cgroup.procs");
    fs::create_dir_all(procs.parent().unwrap()).unwrap();
    // A FIFO without a reader: opening it for writing does not return.
    rustix::fs::mkfifoat(rustix::fs::CWD, &procs, rustix::fs::Mode::RWXU).unwrap();
    let hung = house.script("on-a-hung-disk", "");
    let healthy = house.script("healthy", "");
    assert_eq!(house.run_within(hung, Start, Duration::from_secs(3)), Outcome::TimedOut);
    let before = threads();
    let agents = house.agents();
    let outcomes = block_on(async {
        let starts = (0..200).map(|_| {
            let agents = agents.clone();
            async move { agents.run(hung, Start, LONG, None).await }
        });
        starts.collect::<tokio::task::JoinSet<_>>().join_all().await
    });
    for outcome in outcomes {
        let Outcome::Failed(why) = outcome else { panic!("it hangs still") };
        assert!(why.contains("hangs in the kernel"), "{why}");
    }
    // Other tests have threads, too.
    assert!(threads() < before + 100, "{} threads, {before} before", threads());
    assert_eq!(house.run(healthy, Start), Outcome::Ok);
    assert_eq!(house.run(hung, Stop), Outcome::Ok, "what is no start does not hang");
    let _answers = fs::OpenOptions::new().read(true).write(true).open(&procs).unwrap();
    assert!(await_some(LONG, || (house.run(hung, Start) == Outcome::Ok).then_some(())).is_some());
}

/// Many operations begin and end at once: the cleanup must not remove a group that was just made and is not entered
/// yet.
fn each_in_its_group(keeps_kin: bool, beginning: &str) {
    const SCRIPTS: usize = 40;
    const ROUNDS: usize = 3;
    let Some(group) = ControlGroup::new() else {
        crate::skipped("no control group can be made here");
        return;
    };
    let mut house = AgentSandbox::new();
    house.cgroup = Some(group.0.clone());
    house.keeps_kin = keeps_kin;
    let all: Vec<ResourceId> = (0..SCRIPTS)
        .map(|number| {
            let text = format!("[ $1 = start ] && grep ^0:: /proc/self/cgroup >> $D/groups-{number}; exit 0");
            house.script(&format!("s{number}"), &text)
        })
        .collect();
    let agents = house.agents();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // The daemon's own cleanup is paced; here it runs without a pause.
    let tidying = {
        let (parent, stop) = (group.0.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                locum::control::agents::cgroup::tidy_now(&parent);
            }
        })
    };
    let outcomes = block_on(async {
        let mut outcomes = Vec::new();
        for _ in 0..ROUNDS {
            let mut running = tokio::task::JoinSet::new();
            for id in all.clone() {
                let agents = agents.clone();
                running.spawn(async move { agents.run(id, Start, LONG, None).await });
            }
            outcomes.extend(running.join_all().await);
        }
        outcomes
    });
    stop.store(true, Ordering::Relaxed);
    tidying.join().unwrap();
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| **outcome != Outcome::Ok).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), outcomes.len(), failed.first());
    for number in 0..SCRIPTS {
        let groups = house.read(&format!("groups-{number}"));
        let own = groups.lines().filter(|line| line.contains(&format!("/{beginning}")));
        assert_eq!(own.count(), ROUNDS, "script {number}: {groups}");
    }
    locum::control::agents::cgroup::tidy_now(&group.0);
    assert_eq!(group.groups(), 0, "nothing is left of them");
}

#[test]
fn operations_that_begin_at_once_each_have_their_control_group() {
    each_in_its_group(false, "operation-");
}

#[test]
fn starts_at_once_are_kept_together_by_resource() {
    each_in_its_group(true, "group-key/");
}

#[test]
fn a_unit_is_ended_by_the_service_manager() {
    let mut house = AgentSandbox::new();
    house.keeps_kin = true;
    fs::write(house.path("units/db.service"), "[Service]\n").unwrap();
    house.program(
        "bin/systemctl",
        r#"echo "$*" >> $D/journal
        case "$2 $3" in
            "kill --signal=KILL") touch $D/dead;;
            is-active*) test -e $D/dead && echo inactive || echo deactivating;;
        esac"#,
    );
    let id = house.add("db", &[], Agent::Script);
    assert_eq!(house.run_within(id, Terminate, Duration::from_secs(1)), Outcome::TimedOut);
    assert_eq!(house.run(id, Kill), Outcome::Ok);
    let kills: Vec<String> =
        house.read("journal").lines().filter(|line| line.contains(" kill ")).map(str::to_owned).collect();
    assert_eq!(
        kills,
        ["TERM", "KILL"].map(|signal| format!("--no-ask-password kill --signal={signal} -- db.service"))
    );
}

#[test]
fn agents_and_event_scripts_are_told_the_epoch() {
    let mut house = AgentSandbox::new();
    let id = house.script("any", r#"echo "$1 $LOCUM_EPOCH" >> $D/journal"#);
    let epoch = Epoch::from(Ballot { round: 17, node: MemberIndex(2) });
    block_on(async {
        for operation in [Start, Stop] {
            assert_eq!(house.agents().run(id, operation, LONG, Some(&epoch)).await, Outcome::Ok);
        }
    });
    fs::create_dir_all(house.path("ha.d/rc.d")).unwrap();
    house.program("ha.d/rc.d/moved", r#"echo "$1 $LOCUM_EPOCH" >> $D/journal"#);
    block_on(async {
        let scripts = EventScripts::start(house.agents());
        assert!(scripts.offer("moved".into(), vec![], Some(epoch)));
        assert!(comes_true(|| house.read("journal").contains("moved")).await);
    });
    assert_eq!(house.read("journal"), "start 17.2\nstop 17.2\nmoved 17.2\n");
}

/// Needs a mount namespace of its own.
fn mount_use_and_unmount() {
    let mut house = AgentSandbox::new();
    let mount = house.path("mnt");
    fs::create_dir(&mount).unwrap();
    let agent = Agent::Filesystem {
        device: "none".into(),
        directory: format!("{}/", mount.display()),
        kind: Some("tmpfs".into()),
        options: Some("size=1m,mode=755".into()),
    };
    let id = house.add("Filesystem", &["none"], agent);
    let agents = house.agents();
    block_on(async {
        assert_eq!(agents.run(id, Start, LONG, None).await, Outcome::Ok);
        assert_eq!(agents.run(id, Start, LONG, None).await, Outcome::Ok, "mounted once");
        assert_eq!(agents.run(id, Status, LONG, None).await, Outcome::Running);
        assert_eq!(agents.run(id, Stop, LONG, None).await, Outcome::Ok);
        assert_eq!(agents.run(id, Status, LONG, None).await, Outcome::Stopped);
        // In use: by a process that ends when asked, one that does not, and another mount.
        assert_eq!(agents.run(id, Start, LONG, None).await, Outcome::Ok);
        fs::create_dir(mount.join("below")).unwrap();
        let shell = |script: &str| {
            std::process::Command::new("/bin/sh").args(["-c", script]).current_dir(&mount).spawn().unwrap()
        };
        assert!(shell("mount -t tmpfs none below").wait().unwrap().success());
        let mut gentle = shell("echo > gentle; exec sleep 1000");
        let mut deaf = shell("trap '' TERM; echo > deaf; while :; do sleep 1; done");
        assert!(comes_true(|| mount.join("gentle").exists() && mount.join("deaf").exists()).await);
        assert_eq!(agents.run(id, Stop, LONG, None).await, Outcome::Ok);
        assert_eq!(agents.run(id, Status, LONG, None).await, Outcome::Stopped);
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(gentle.wait().unwrap().signal(), Some(15));
        assert_eq!(deaf.wait().unwrap().signal(), Some(9));
    });
    assert!(house.has_note("is used by"));
    // Mounts of the daemon's own namespace are not those of the machine.
    assert!(house.has_note("is mounted only for this daemon and its children"));
}

/// Runs the named test once more in namespaces of its own, where it executes `body`. Where they are not permitted it
/// reports a skip.
fn in_namespace(flags: &str, test: &str, body: fn()) {
    const INSIDE: &str = "LOCUM_TEST_INSIDE_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let own = std::env::current_exe().unwrap();
    let unshare =
        |args: &[&str]| std::process::Command::new("unshare").arg(flags).args(args).env(INSIDE, "1").output();
    if !unshare(&["true"]).is_ok_and(|output| output.status.success()) {
        crate::skipped("no namespaces of our own here");
        return;
    }
    let output = unshare(&[own.to_str().unwrap(), "--exact", test, "--nocapture"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

#[test]
fn a_file_system_in_use_is_unmounted() {
    in_namespace("-rm", "agents::a_file_system_in_use_is_unmounted", mount_use_and_unmount);
}

#[test]
fn leftover_addresses_are_taken_from_the_kernel() {
    in_namespace("-rn", "agents::leftover_addresses_are_taken_from_the_kernel", || {
        let mut netlink = Netlink::open().unwrap();
        let loopback = netlink.interface("lo").unwrap().index;
        let (ours, not_ours) = (IpAddr::from([10, 9, 8, 7]), IpAddr::from([10, 9, 8, 6]));
        for ip in [ours, not_ours] {
            let new = NewAddress { marked: true, ..NewAddress::new(loopback, ip, 32) };
            netlink.add_address(&new).unwrap();
        }
        let address = |ip, interface: Option<&str>| Address {
            ip,
            prefix: None,
            interface: interface.map(str::to_owned),
            label: None,
            broadcast: None,
            by_route: false,
        };
        let here = address(ours, Some("lo"));
        let register = KernelAddresses.look().unwrap();
        assert!(register.stands(&here));
        assert!(!register.stands(&address(ours, Some("eth0"))));
        assert!(!register.stands(&address(ours, None)), "a real server's loopback");
        KernelAddresses.remove(&register.ours(&here)).unwrap();
        assert!(!KernelAddresses.look().unwrap().stands(&here));
        KernelAddresses.remove(&register.ours(&here)).unwrap();
        assert!(netlink.addresses().unwrap().iter().any(|there| there.ip == not_ours));
        // An address that another program put there stays, even if it is the service address.
        netlink.add_address(&NewAddress::new(loopback, ours, 24)).unwrap();
        let register = KernelAddresses.look().unwrap();
        assert_eq!(register.foreign(&here).as_deref(), Some("10.9.8.7/24 dev lo"));
        KernelAddresses.remove(&register.ours(&here)).unwrap();
        assert!(KernelAddresses.look().unwrap().stands(&here));
    });
}

#[test]
fn event_scripts_run_one_at_a_time_and_a_bounded_number_waits() {
    let house = AgentSandbox::new();
    fs::create_dir(house.path("ha.d/rc.d")).unwrap();
    house.program(
        "ha.d/rc.d/slow",
        "echo begin $HA_n >> $D/log; sleep 0.1; echo end $HA_n >> $D/log; test $HA_n != 2",
    );
    house.program("ha.d/resource.d/outside", "echo outside >> $D/log");
    let agents = house.agents();
    block_on(async {
        let scripts = EventScripts::start(agents);
        let offer = |kind: &str, n: usize| {
            scripts.offer(kind.to_owned(), vec![("n".to_owned(), n.to_string())], None)
        };
        assert!(offer("../resource.d/outside", 0) && offer("nobody", 0) && offer(".", 0));
        for n in 1..=3 {
            assert!(offer("slow", n));
        }
        let ended = || house.read("log").contains("end 3");
        while !ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // None is taken out while this thread does not wait.
        assert_eq!((0..100).filter(|_| offer("nobody", 0)).count(), 64);
    });
    assert_eq!(house.read("log"), "begin 1\nend 1\nbegin 2\nend 2\nbegin 3\nend 3\n");
    let notes = house.notes.lock().unwrap();
    let failed: Vec<&str> = notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(failed, ["event script slow: exit code 1"]);
}
