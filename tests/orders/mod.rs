//! Orders that arrive during another operation, and a machine that starts no more processes. Real daemons of both
//! dialects are judged by how they end and by what remains afterwards.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use locum_lab::{
    Description, Process, ProcessSignal, Program, Rack,
    clock::{Moment, await_some, pause},
};
use locum_sys::netlink::Netlink;

use crate::lab::{LOCUM, build};

const NODES: [&str; 2] = ["alpha", "beta"];
const WITNESS: &str = "third";
const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 100);
const PATIENCE: Duration = Duration::from_secs(90);
const CONFIG: &str = "/run/disk/conf";
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

/// The service is a file; other files say how long it takes.
const SERVICE_SCRIPT: &str = "#!/bin/sh
of() { cat /run/disk/$1 2>/dev/null || echo 0; }
case $1 in
start) touch /run/service;;
stop) sleep $(of stop-takes); [ -e /run/disk/stop-fails ] && exit 1; rm -f /run/service;;
status) sleep $(of status-takes); if [ -e /run/service ]; then echo running; else echo stopped; exit 3; fi;;
esac
exit 0
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    R1,
    Native,
}

use Dialect::{Native, R1};

/// Two nodes, and a witness where the dialect has one.
struct OrdersRack {
    dialect: Dialect,
    /// Declared before the rack, so that processes end before their hosts.
    daemons: Vec<(&'static str, Process)>,
    rack: Rack,
}

impl OrdersRack {
    fn build(dialect: Dialect) -> Option<Self> {
        let [one, two] = NODES;
        let description = Description::new(Path::new(LOCUM)).node(one).node(two).node(WITNESS).segment(
            "lan",
            &[
                (one, "eth0", "172.23.2.12/24"),
                (two, "eth0", "172.23.2.13/24"),
                (WITNESS, "eth0", "172.23.2.14/24"),
            ],
        );
        let house = Self { dialect, daemons: Vec::new(), rack: build(description)? };
        for member in [one, two, WITNESS] {
            house.put(member, "conf/resource.d/service", SERVICE_SCRIPT, 0o755);
            match dialect {
                R1 => {
                    house.write_ha_cf(member, 500);
                    let line = format!("{one} {SERVICE}/24/eth0 service\n");
                    house.put(member, "conf/haresources", &line, 0o644);
                    house.put(member, "conf/authkeys", "auth 1\n1 sha1 some-secret\n", 0o600);
                }
                Native => {
                    house.put(member, "conf/locum.key", KEY, 0o600);
                    let file = format!(
                        "cluster = \"shop\"\npace = \"1s\"\nwitnesses.third = {{ address = \"172.23.2.14\" }}\n\
                         nodes.{one}.links.lan = \"172.23.2.12\"\nnodes.{two}.links.lan = \"172.23.2.13\"\n\
                         [groups.web]\nresources = [\"{SERVICE}/24/eth0\", {{ script = \"service\" }}]\nprefer = \"{one}\"\n"
                    );
                    house.put(member, "conf/locum.toml", &file, 0o600);
                }
            }
        }
        Some(house)
    }

    fn write_ha_cf(&self, node: &str, warn: u32) {
        let nodes = NODES.join(" ");
        let text = format!(
            "keepalive 200ms\nwarntime {warn}ms\ndeadtime 1\ninitdead 2\nauto_failback off\nbcast eth0\nnode {nodes}\n"
        );
        self.put(node, "conf/ha.cf", &text, 0o644);
    }

    fn put(&self, node: &str, name: &str, text: &str, mode: u32) {
        let path = self.rack.disk(node).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn log(&self, node: &str) -> String {
        fs::read_to_string(self.rack.disk(node).join("output")).unwrap_or_default()
    }

    fn start(&mut self, member: &'static str) {
        let mut words = vec!["locum", "--config", CONFIG, "--state", "/run/disk/state", "run"];
        if self.dialect == R1 {
            words.extend(["--status-limit", "20s"]);
        }
        let program = Program::new(&words).output("/run/disk/output");
        self.daemons.retain(|(name, _)| *name != member);
        self.daemons.push((member, self.rack.start(member, &program).unwrap()));
    }

    /// Starts everything that the first node needs to serve alone, and waits until it serves.
    fn serve(&mut self) {
        if self.dialect == Native {
            for member in [WITNESS, NODES[1]] {
                self.start(member);
            }
        }
        self.start(NODES[0]);
        self.wait("the service runs somewhere", |house| NODES.iter().any(|node| house.serves(node)));
        // The founder of the cluster decides where the group begins.
        self.wait("the service runs on the first node", |house| {
            if house.serves(NODES[1]) {
                house.locum(NODES[1], &["move", "web", NODES[0]]);
            }
            house.serves(NODES[0])
        });
    }

    fn daemon(&mut self, member: &str) -> &mut Process {
        &mut self.daemons.iter_mut().find(|(name, _)| *name == member).unwrap().1
    }

    fn end_of(&mut self, member: &str, limit: Duration) -> Option<i32> {
        self.daemon(member).wait(limit).and_then(|end| end.code())
    }

    fn locum(&self, node: &str, words: &[&str]) -> (Option<i32>, String) {
        let outcome = self.rack.run(node, &Program::new(&[&["locum"], words].concat()), PATIENCE).unwrap();
        (outcome.code, outcome.text)
    }

    fn service(&self, node: &str) -> bool {
        self.rack.volatile(node).join("service").exists()
    }

    fn address(&self, node: &str) -> bool {
        let addresses: io::Result<_> = self.rack.inside(node, || Netlink::open()?.addresses()).unwrap();
        addresses.unwrap().iter().any(|address| address.ip == IpAddr::V4(SERVICE))
    }

    fn serves(&self, node: &str) -> bool {
        self.service(node) && self.address(node)
    }

    #[track_caller]
    fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let waited = await_some(PATIENCE, || is_so(self).then_some(()));
        let logs = || NODES.map(|node| format!("---- {node}\n{}", self.log(node))).concat();
        assert!(waited.is_some(), "{:?}: not in time: {what}\n{}", self.dialect, logs());
    }
}

/// How the daemon is asked to leave.
#[derive(Clone, Copy, Debug)]
enum LeaveBy {
    Term,
    Stop,
}

fn reload_and_leave(dialect: Dialect) {
    let Some(mut house) = OrdersRack::build(dialect) else { return };
    let [alpha, _] = NODES;
    house.serve();
    // The delay of the second order in milliseconds, how it is given, and whether the reload comes first.
    let rounds = [
        (0, LeaveBy::Term, true),
        (1, LeaveBy::Term, true),
        (5, LeaveBy::Term, true),
        (0, LeaveBy::Stop, true),
        (20, LeaveBy::Term, true),
        (0, LeaveBy::Term, false),
        (0, LeaveBy::Term, true),
        (3, LeaveBy::Stop, true),
    ];
    for (round, (millis, way, reload_first)) in rounds.into_iter().enumerate() {
        if round > 0 {
            house.start(alpha);
            house.wait("it serves again", |house| house.serves(alpha) || house.serves(NODES[1]));
            house.wait("it answers", |house| house.locum(alpha, &["status", "--json"]).1.contains("cluster"));
            pause(Duration::from_millis(1200));
        }
        if dialect == R1 {
            house.write_ha_cf(alpha, 500 + u32::try_from(round).unwrap() + 1);
        }
        let reload = |house: &mut OrdersRack| house.daemon(alpha).signal(ProcessSignal::HangUp).unwrap();
        let leave = |house: &mut OrdersRack| match way {
            LeaveBy::Term => house.daemon(alpha).signal(ProcessSignal::Terminate).unwrap(),
            LeaveBy::Stop => {
                let (code, said) = house.locum(alpha, &["stop"]);
                assert_eq!(code, Some(0), "round {round}: {said}");
            }
        };
        if reload_first {
            reload(&mut house);
            pause(Duration::from_millis(millis));
            leave(&mut house);
        } else {
            leave(&mut house);
            pause(Duration::from_millis(millis));
            reload(&mut house);
        }
        let end = house.end_of(alpha, Duration::from_secs(30));
        assert_eq!(end, Some(0), "round {round}, {way:?}: it does not leave\n{}", house.log(alpha));
        assert!(!house.service(alpha) && !house.address(alpha), "round {round}");
    }
}

#[test]
fn a_reload_and_a_leave_at_once_end_in_a_leave_r1() {
    reload_and_leave(R1);
}

#[test]
fn a_reload_and_a_leave_at_once_end_in_a_leave_native() {
    reload_and_leave(Native);
}

/// The daemon is killed while it serves and started again. While it sweeps its leftovers, it is asked to leave.
fn leave_in_the_sweep(dialect: Dialect, way: LeaveBy, stop_fails: bool) {
    let Some(mut house) = OrdersRack::build(dialect) else { return };
    let [alpha, beta] = NODES;
    house.serve();
    if dialect == Native {
        // The other node must not take it over meanwhile.
        house.daemon(beta).signal(ProcessSignal::Kill).unwrap();
    }
    house.put(alpha, "stop-takes", "3", 0o644);
    if stop_fails {
        house.put(alpha, "stop-fails", "", 0o644);
        house.put(alpha, "stop-takes", "0", 0o644);
    }
    house.daemon(alpha).signal(ProcessSignal::Kill).unwrap();
    house.daemon(alpha).wait(PATIENCE).unwrap();
    assert!(house.service(alpha));
    house.start(alpha);
    house.wait("it sweeps", |house| house.log(alpha).contains("was left running by an earlier daemon"));
    let (_, page) = house.locum(alpha, &["status"]);
    let expected = if stop_fails { (Some(3), Some(2)) } else { (Some(0), Some(0)) };
    match way {
        LeaveBy::Term => house.daemon(alpha).signal(ProcessSignal::Terminate).unwrap(),
        LeaveBy::Stop => {
            let (code, said) = house.locum(alpha, &["stop"]);
            assert_eq!(code, expected.1, "{said}");
        }
    }
    assert_eq!(house.end_of(alpha, PATIENCE), expected.0, "{}", house.log(alpha));
    assert_eq!(house.service(alpha), stop_fails, "{}", house.log(alpha));
    assert!(!house.address(alpha), "the address is taken off in any case");
    assert!(page.contains("is stopping resources that an earlier daemon left; running: "), "{page}");
}

#[test]
fn a_leave_during_the_sweep_stops_what_stands_r1() {
    leave_in_the_sweep(R1, LeaveBy::Term, false);
}

#[test]
fn a_leave_during_the_sweep_stops_what_stands_native() {
    leave_in_the_sweep(Native, LeaveBy::Stop, false);
}

#[test]
fn a_leave_during_the_sweep_says_what_it_could_not_stop_r1() {
    leave_in_the_sweep(R1, LeaveBy::Stop, true);
}

#[test]
fn a_leave_during_the_sweep_says_what_it_could_not_stop_native() {
    leave_in_the_sweep(Native, LeaveBy::Term, true);
}

/// Before the first beat every agent is asked; the status names at once those that do not answer.
#[test]
fn status_says_at_once_whom_it_waits_for() {
    for dialect in [R1, Native] {
        let Some(mut house) = OrdersRack::build(dialect) else { return };
        let [alpha, _] = NODES;
        house.put(alpha, "status-takes", "1000", 0o644);
        house.start(alpha);
        let mut page = String::new();
        let told = await_some(PATIENCE, || {
            let begun = Moment::now();
            page = house.locum(alpha, &["status"]).1;
            let took = Moment::now().since(begun);
            assert!(took < Duration::from_secs(5), "{took:?}: {page}");
            page.contains("being asked: ").then_some(())
        });
        assert!(told.is_some(), "{page}");
        assert!(page.contains("service for ") && page.contains("1 of 2 have answered"), "{page}");
        // An order to leave is accepted, and kept until the agent's limit is over.
        house.daemon(alpha).signal(ProcessSignal::Terminate).unwrap();
        house.wait("it is heard", |house| house.log(alpha).contains("TERM received; this node is starting"));
        house.put(alpha, "status-takes", "0", 0o644);
        assert_eq!(house.end_of(alpha, PATIENCE), Some(0), "{}", house.log(alpha));
    }
}

/// A control group that limits the number of processes and threads; removed at the end.
struct PidLimitGroup(PathBuf);

impl PidLimitGroup {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let tree = mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = Path::new(left.split(' ').nth(4)?);
            let has_pids = |text: &str| text.split([',', ' ', '\n']).any(|word| word == "pids");
            let limits = match right.split(' ').next()? {
                "cgroup" => has_pids(right.split(' ').nth(2)?),
                "cgroup2" => has_pids(&fs::read_to_string(point.join("cgroup.subtree_control")).ok()?),
                _ => false,
            };
            limits.then(|| point.to_owned())
        })?;
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = tree.join(format!("locum-test-pids-{}-{count}", std::process::id()));
        fs::create_dir(&path).ok()?;
        path.join("pids.max").exists().then_some(Self(path))
    }

    fn enter(&self, process: u32) {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).unwrap();
    }

    /// Allows no more processes than there are, or any number again.
    fn close(&self, closed: bool) {
        let now = fs::read_to_string(self.0.join("pids.current")).unwrap();
        fs::write(self.0.join("pids.max"), if closed { now.trim() } else { "max" }).unwrap();
    }
}

impl Drop for PidLimitGroup {
    fn drop(&mut self) {
        let _ = await_some(Duration::from_secs(5), || fs::remove_dir(&self.0).ok());
    }
}

fn no_process_left(dialect: Dialect) {
    let Some(pids) = PidLimitGroup::new() else {
        crate::skipped("no control group with a limit of processes can be made here");
        return;
    };
    let Some(mut house) = OrdersRack::build(dialect) else { return };
    let [alpha, beta] = NODES;
    if dialect == R1 {
        house.start(beta);
        house.wait("beta answers", |house| house.locum(beta, &["status", "--json"]).1.contains("cluster"));
    }
    house.serve_on_first();
    pids.enter(house.daemon(alpha).id());
    // Idle threads have ended after this time.
    pause(Duration::from_secs(12));
    pids.close(true);
    let (code, said) = house.locum(alpha, &["standby", "--no-wait"]);
    assert_eq!(code, Some(0), "{said}");
    house.wait("the log says why nothing can be done", |house| {
        house.log(alpha).contains("the kernel can make no more processes here")
    });
    pause(Duration::from_secs(4));
    assert!(house.daemon(alpha).ended().is_none(), "it lives\n{}", house.log(alpha));
    assert!(house.locum(alpha, &["status", "--json"]).1.contains("cluster"), "and answers");
    pids.close(false);
    house.wait("the service runs on one node", |house| {
        NODES.iter().filter(|node| house.serves(node)).count() == 1
    });
    assert!(house.daemon(alpha).ended().is_none());
    house.daemon(alpha).signal(ProcessSignal::Terminate).unwrap();
    assert_eq!(house.end_of(alpha, PATIENCE), Some(0), "{}", house.log(alpha));
    assert!(!house.service(alpha));
}

/// A second daemon, started by hand with its own directories, where a daemon of the same node serves: the latter is not
/// affected.
fn second_daemon(dialect: Dialect) {
    let Some(mut house) = OrdersRack::build(dialect) else { return };
    let [alpha, _] = NODES;
    house.serve_on_first();
    let pid = house.daemon(alpha).id();
    let place = ["--state", "/run/disk/other", "--run", "/run/other"];
    let words = [&["--config", CONFIG][..], &place, &["run"]].concat();
    let (code, said) = house.locum(alpha, &words);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("alpha of this configuration already runs here, in locum (process "), "{said}");
    assert!(said.contains("`locum --run /run/locum status`"), "{said}");
    assert!(house.serves(alpha), "{said}");
    house.wait("it answers", |house| house.locum(alpha, &["status", "--json"]).1.contains("cluster"));
    assert!(!house.log(alpha).contains("by an earlier daemon"), "{}", house.log(alpha));
    assert!(house.daemon(alpha).ended().is_none() && house.daemon(alpha).id() == pid);
    // A killed daemon is in no one's way.
    house.daemon(alpha).signal(ProcessSignal::Kill).unwrap();
    house.end_of(alpha, PATIENCE);
    house.start(alpha);
    house.wait("it answers again", |house| house.locum(alpha, &["status", "--json"]).1.contains("cluster"));
}

#[test]
fn a_second_daemon_by_hand_is_refused_r1() {
    second_daemon(R1);
}

#[test]
fn a_second_daemon_by_hand_is_refused_native() {
    second_daemon(Native);
}

impl OrdersRack {
    fn serve_on_first(&mut self) {
        if self.dialect == Native {
            return self.serve();
        }
        self.start(NODES[0]);
        self.wait("the service runs somewhere", |house| NODES.iter().any(|node| house.serves(node)));
        self.wait("the service runs on the first node", |house| {
            if house.serves(NODES[1]) {
                house.locum(NODES[0], &["takeover"]);
            }
            house.serves(NODES[0])
        });
    }
}

#[test]
fn a_machine_without_processes_does_not_end_the_daemon_r1() {
    no_process_left(R1);
}

#[test]
fn a_machine_without_processes_does_not_end_the_daemon_native() {
    no_process_left(Native);
}
