//! The rolling replacement: on one node after the other, heartbeat gives way to another program and comes back the same
//! way, while a client asks the service. Only the steps that hand the groups over may cost the client anything.
//!
//! Each step is a step of `docs/from-heartbeat.md`, by name.

use std::{collections::BTreeMap, fs, net::IpAddr, path::PathBuf, time::Duration};

use super::{
    Audited, DaemonPair, MixedSettings, MixedSetup, Planned,
    cluster::MixedCluster,
    files::{GROUPS, NODES, STEADY},
    step::{
        NodeSelector::{Both, First, Second},
        Set::{All, Local},
        Step,
        Step::{Run, Standby, Start, Stop},
    },
};
use crate::{
    clock::{Moment, await_some},
    daemon::{CONFIG, Daemon, PROGRAM_LIMIT, complete},
    fault::{Doing, Fault},
    process::{Program, ProgramOutcome},
    timeline::{self, Span},
    watch::Record,
};

/// Shorter times without a page are ignored: a page is fetched every 10 ms, and such times depend on the machine more
/// than on the cluster.
const GAP_LEAST: Duration = Duration::from_millis(50);
/// The same during a hand-over, which is known to cost something.
const MOVE_GAP_LEAST: Duration = Duration::from_millis(20);
/// A longer gap outside a hand-over is a fault, even on a busy machine.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// Longest wait for an answer after a step, if the service works.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// Longest wait until the other node is known to be active.
const ACTIVE_LIMIT: Duration = Duration::from_secs(20);
/// The files in heartbeat's state directory that identify a node (`docs/wire.md`, section 4).
const STATE: &str = "lib/heartbeat";
const UUID: &str = "hb_uuid";
const GENERATION: &str = "hb_generation";
/// Files on a host that has served for long: Locum does not use them, and leaves them to the next heartbeat.
const CACHES: [&str; 2] = ["hostcache", "delhostcache"];
/// Texts in a daemon's log about a peer whose identity is not the known one.
const STRANGER: [&str; 3] = ["attempted replay attack", "changed its uuid", "uuid changed to"];
/// The directory below a node's `/run` with links from heartbeat's names to Locum.
const LINKS: &str = "names";

/// The result of one replacement.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// The daemon that took heartbeat's place: Locum, or heartbeat itself for comparison.
    pub by: Daemon,
    /// Its steps; if one failed, it is the last.
    pub steps: Vec<ReplacementStep>,
    /// The ends of the logs, if a step failed.
    pub evidence: String,
}

impl Replaced {
    /// The step that failed, if any did.
    #[must_use]
    pub fn failed(&self) -> Option<&ReplacementStep> {
        self.steps.iter().find(|stage| !stage.audited.faults.is_empty())
    }
}

/// A step of a replacement, and its cost to the client.
#[derive(Clone, Debug)]
pub struct ReplacementStep {
    pub name: &'static str,
    /// Whether it moves the groups, as planned.
    pub hands_over: bool,
    /// The daemons of the nodes after the step.
    pub pair: DaemonPair,
    /// The step and its audit.
    pub audited: Audited,
    /// Each time without a page of at least 50 ms, in a hand-over 20 ms.
    pub page_gaps: Vec<Duration>,
    /// The same without an echo, for either address.
    pub echo_gaps: [Vec<Duration>; 2],
    /// The same for an address that does not move: then the machine had no time for the client.
    pub machine_gaps: Vec<Duration>,
    /// The longest gap of echoes, without the part that the machine's gaps explain. Pages do not count here: the web
    /// server is a process, and waits for a processor like any other.
    pub unexplained: Duration,
}

/// A planned step: its name, the step, the owners of the groups after it, and whether it moves the groups.
type PlannedStep = (&'static str, Step, &'static str, bool);

/// At the beginning of the replacement both groups are on the first node, so the second is the standby. Groups move
/// only by commands.
fn plan(by: Daemon) -> Vec<PlannedStep> {
    let back = Daemon::Heartbeat;
    vec![
        ("begin", Start(Both), "12", true),
        ("gather", Standby(Second, Local), "11", true),
        ("stop-standby", Stop(Second), "11", false),
        ("start-standby", Run(Second, by), "11", false),
        ("hand-over", Standby(First, All), "22", true),
        ("stop-other", Stop(First), "22", false),
        ("start-other", Run(First, by), "22", false),
        ("hand-back", Standby(Second, All), "11", true),
        ("back-stop-standby", Stop(Second), "11", false),
        ("back-start-standby", Run(Second, back), "11", false),
        ("back-hand-over", Standby(First, All), "22", true),
        ("back-stop-other", Stop(First), "22", false),
        ("back-start-other", Run(First, back), "22", false),
        ("back-hand-back", Standby(Second, All), "11", true),
    ]
}

/// Replaces two real heartbeats by `by`, one after the other, and then back. `web_server` is the program's command that
/// is a web server. `tell` is given a line for each step.
///
/// # Errors
/// [`Fault::Missing`] where no rack can be built; else the kernel's error.
pub fn replace(
    setup: &MixedSetup,
    web_server: &'static str,
    by: Daemon,
    tell: &mut dyn FnMut(&str),
) -> Result<Replaced, Fault> {
    let settings =
        MixedSettings { auto_failback: "off", web_server: Some(web_server), ..MixedSettings::USUAL };
    let mut cluster = MixedCluster::build(setup, DaemonPair::ORACLE, settings, 1)?;
    write_host_state(&cluster)?;
    let mut replaced = Replaced { by, steps: Vec::new(), evidence: String::new() };
    let mut identities = [0, 1].map(|node| Identity::read(&cluster, node));
    for (name, step, owners, hands_over) in plan(by) {
        let from = Moment::now();
        let before = Quiet::seen(&cluster, owners)?;
        let mut audited = cluster.take(Planned { step, owners, hurry: None })?;
        if audited.faults.is_empty() && !matches!(step, Stop(_)) {
            after_start(&cluster, &mut audited.faults)?;
        }
        let window = Span::new(from, Moment::now());
        // A gap ends with an answer.
        let answered = |record: &Record| record.pages.last().is_some_and(|page| page.at > window.to);
        let _ = await_some(LAST_ANSWER, || (cluster.rack.look(answered) == Some(true)).then_some(()));
        let mut stage = ReplacementStep::seen(&cluster, window, name, hands_over, audited);
        stage.check(&Quiet::seen(&cluster, owners)?.since(&before));
        for (node, identity) in identities.iter_mut().enumerate() {
            let now = Identity::read(&cluster, node);
            let begun = matches!(step, Start(who) | Run(who, _) if who.each().contains(&node));
            let cared_for = cluster.pair.0[node] == Daemon::Locum;
            identity.compare(&now, begun, cared_for, NODES[node], &mut stage.audited.faults);
            *identity = now;
        }
        strangers(&cluster, &mut stage.audited.faults);
        tell(&format!("{} {name}: {}{}", by.name(), stage.audited, stage.gaps_in_words()));
        let failed = !stage.audited.faults.is_empty();
        replaced.steps.push(stage);
        if failed {
            break;
        }
    }
    let name = format!("replace.{}", by.name());
    if replaced.failed().is_some() {
        replaced.evidence = cluster.evidence(setup.keep.as_deref(), &name);
    } else if let Some(keep) = &setup.keep {
        cluster.evidence(Some(keep), &name);
    }
    Ok(replaced)
}

impl ReplacementStep {
    /// The step, with the gaps that the client saw during it.
    fn seen(
        cluster: &MixedCluster,
        window: Span,
        name: &'static str,
        hands_over: bool,
        audited: Audited,
    ) -> Self {
        let least = if hands_over { MOVE_GAP_LEAST } else { GAP_LEAST };
        let [pages, first, second, machine] =
            cluster.rack.look(|record| gaps(record, window, least)).unwrap_or_default();
        let unexplained = |gap: &Span| {
            let shared = machine.iter().filter_map(|pause| gap.meet(*pause)).map(Span::length).sum();
            gap.length().saturating_sub(shared)
        };
        let longest = first.iter().chain(&second).map(unexplained).max().unwrap_or_default();
        let lengths = |gaps: &[Span]| gaps.iter().copied().map(Span::length).collect::<Vec<_>>();
        Self {
            name,
            hands_over,
            pair: cluster.pair,
            audited,
            page_gaps: lengths(&pages),
            echo_gaps: [lengths(&first), lengths(&second)],
            machine_gaps: lengths(&machine),
            unexplained: longest,
        }
    }

    /// Adds the faults of this step, and of moves that should not have happened during it.
    fn check(&mut self, moved: &Quiet) {
        if self.hands_over {
            return;
        }
        let faults = &mut self.audited.faults;
        if self.unexplained > QUIET_MAX {
            faults.push(format!("the client had no answer for {} ms", self.unexplained.as_millis()));
        }
        if moved.changes > 0 {
            faults.push(format!("a service address came or went {} times", moved.changes));
        }
        if !moved.journal.is_empty() {
            faults.push(format!("its owner's services moved: {}", moved.journal.trim()));
        }
    }

    fn gaps_in_words(&self) -> String {
        let words = |gaps: &[Duration]| {
            gaps.iter().map(|gap| gap.as_millis().to_string()).collect::<Vec<_>>().join(", ")
        };
        let all = [
            ("pages", &self.page_gaps),
            ("echoes of the first group", &self.echo_gaps[0]),
            ("echoes of the second group", &self.echo_gaps[1]),
            ("echoes of the address that does not move", &self.machine_gaps),
        ];
        let mut text = String::new();
        for (of, gaps) in all.into_iter().filter(|(_, gaps)| !gaps.is_empty()) {
            text += &format!("; without {of} for {} ms", words(gaps));
        }
        text
    }
}

/// The times without a page, and without an echo of either group's address and of the address that does not move.
fn gaps(record: &Record, window: Span, least: Duration) -> [Vec<Span>; 4] {
    let gaps = |answers: &[Moment]| timeline::gaps(answers, window, least);
    let echoes = |address| gaps(record.echoes.get(&address).map(Vec::as_slice).unwrap_or_default());
    let pages: Vec<_> = record.pages.iter().map(|page| page.at).collect();
    [gaps(&pages), echoes(GROUPS[0].0), echoes(GROUPS[1].0), echoes(STEADY)]
}

/// State that must not change without a hand-over.
struct Quiet {
    /// How often a service address came or went, on any node.
    changes: usize,
    /// The journal of the services on the node that owns both groups.
    journal: String,
}

impl Quiet {
    /// `owners`: the owners of the groups, `"11"` or `"22"`.
    fn seen(cluster: &MixedCluster, owners: &str) -> Result<Self, Fault> {
        let ours = |ip: IpAddr| GROUPS.iter().any(|&(address, _)| ip == IpAddr::V4(address));
        let holds = |record: &Record| record.holds.iter().filter(|hold| ours(hold.ip)).count();
        let owner = usize::from(owners == "22");
        Ok(Self { changes: cluster.rack.look(holds).unwrap_or_default(), journal: cluster.journal(owner)? })
    }

    fn since(self, before: &Self) -> Self {
        let news = self.journal.get(before.journal.len()..).unwrap_or_default().to_owned();
        Self { changes: self.changes - before.changes, journal: news }
    }
}

// ---- reports of the daemons -----------------------------------------------

/// Checks both daemons with the same commands: `cl_status` says that the other node, if it runs, is active, and
/// `locum check` finds nothing wrong with the files.
fn after_start(cluster: &MixedCluster, faults: &mut Vec<String>) -> Result<(), Fault> {
    for (node, other) in [(0, 1), (1, 0)] {
        let name = NODES[node];
        let cl_status = match cluster.pair.0[node] {
            Daemon::Heartbeat => "/usr/bin/cl_status".to_owned(),
            Daemon::Locum => {
                let directory = cluster.rack.volatile(name).join(LINKS);
                fs::create_dir_all(&directory).doing(|| format!("make {}", directory.display()))?;
                let links = format!("/run/{LINKS}");
                complete(&cluster.rack, name, &["locum", "links", &links, "cl_status"])?;
                format!("{links}/cl_status")
            }
        };
        let mut said = ProgramOutcome { code: None, text: String::new() };
        let active = await_some(ACTIVE_LIMIT, || {
            said = run(cluster, name, &[&cl_status, "nodestatus", NODES[other]]).ok()?;
            (said.code == Some(0) && said.text.trim() == "active").then_some(())
        });
        if active.is_none() {
            let ProgramOutcome { code, text } = said;
            faults.push(format!(
                "{name}: cl_status nodestatus {} ends with {code:?}: {}",
                NODES[other],
                text.escape_debug()
            ));
        }
        let check = run(cluster, name, &["locum", "--config", CONFIG, "check"])?;
        if check.code != Some(0) {
            faults.push(format!(
                "{name}: locum check ends with {:?}: {}",
                check.code,
                check.text.escape_debug()
            ));
        }
    }
    Ok(())
}

fn run(cluster: &MixedCluster, node: &str, words: &[&str]) -> Result<ProgramOutcome, Fault> {
    cluster.rack.run(node, &Program::new(words), PROGRAM_LIMIT)
}

/// Adds a fault if a daemon took the other, or itself, for another node.
fn strangers(cluster: &MixedCluster, faults: &mut Vec<String>) {
    for (node, name) in NODES.iter().enumerate() {
        let log = cluster.log(node);
        let lines = log.lines().filter(|line| STRANGER.iter().any(|text| line.contains(text)));
        faults.extend(lines.map(|line| format!("{name} says: {}", line.escape_debug())));
    }
}

// ---- identities of the nodes ----------------------------------------------

fn state(cluster: &MixedCluster, node: usize) -> PathBuf {
    cluster.rack.disk(NODES[node]).join(STATE)
}

/// Gives both hosts the state directory of a cluster that has served for long.
fn write_host_state(cluster: &MixedCluster) -> Result<(), Fault> {
    // RFC 9562, version 4.
    let uuids = [0x5a_u8, 0xc3].map(|byte| {
        let mut uuid = [byte; 16];
        (uuid[6], uuid[8]) = (0x45, 0x95);
        uuid
    });
    let mut hostcache = String::new();
    for (name, uuid) in NODES.iter().zip(uuids) {
        let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        hostcache += &format!("{name}\t{}\t100\theartbeat\n", parts.join("-"));
    }
    for (node, uuid) in uuids.iter().enumerate() {
        let directory = state(cluster, node);
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join(UUID), uuid))
            .and_then(|()| fs::write(directory.join(CACHES[0]), &hostcache))
            .doing(|| format!("write the identity of {}", NODES[node]))?;
    }
    Ok(())
}

/// The content of a state directory.
struct Identity {
    uuid: Option<Vec<u8>>,
    generation: Option<u64>,
    caches: BTreeMap<&'static str, Option<Vec<u8>>>,
}

impl Identity {
    fn read(cluster: &MixedCluster, node: usize) -> Self {
        let read = |name: &str| fs::read(state(cluster, node).join(name)).ok();
        let generation = read(GENERATION).and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
        Self { uuid: read(UUID), generation, caches: CACHES.map(|name| (name, read(name))).into() }
    }

    /// Compares it with a later state and adds faults. The UUID must stay. The generation must grow with each run of a
    /// daemon, and only then. While Locum runs, heartbeat's files must not change.
    fn compare(&self, now: &Self, begun: bool, cared_for: bool, node: &str, faults: &mut Vec<String>) {
        if now.uuid != self.uuid {
            faults.push(format!("{node} has another UUID: {:x?} was {:x?}", now.uuid, self.uuid));
        }
        let rightly =
            if begun { now.generation > self.generation } else { now.generation == self.generation };
        if !rightly {
            faults.push(format!("{node} has generation {:?} after {:?}", now.generation, self.generation));
        }
        for (name, bytes) in
            self.caches.iter().filter(|&(name, bytes)| cared_for && now.caches[name] != *bytes)
        {
            let text =
                |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|bytes| bytes.escape_ascii().to_string());
            faults.push(format!("{node}: {name} is {:?} and was {:?}", text(&now.caches[name]), text(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(uuid: u8, generation: u64, cache: Option<&[u8]>) -> Identity {
        let caches = CACHES.map(|name| (name, cache.map(<[u8]>::to_vec))).into();
        Identity { uuid: Some(vec![uuid; 16]), generation: Some(generation), caches }
    }

    fn faults(now: &Identity, begun: bool, cared_for: bool) -> usize {
        let mut faults = Vec::new();
        identity(1, 7, Some(b"x")).compare(now, begun, cared_for, "a", &mut faults);
        faults.len()
    }

    #[test]
    fn an_identity_goes_on_or_is_found_fault_with() {
        assert_eq!(faults(&identity(1, 8, Some(b"x")), true, true), 0);
        assert_eq!(faults(&identity(1, 7, Some(b"x")), false, true), 0);
        assert_eq!(faults(&identity(1, 7, Some(b"x")), true, true), 1, "a new run has a higher generation");
        assert_eq!(faults(&identity(1, 8, Some(b"x")), false, true), 1, "and nothing else has");
        assert_eq!(faults(&identity(2, 8, Some(b"x")), true, true), 1);
        assert_eq!(faults(&identity(1, 8, None), true, true), CACHES.len());
        assert_eq!(faults(&identity(1, 8, None), true, false), 0, "heartbeat may do what it likes");
    }

    #[test]
    fn only_a_hand_over_may_cost_something() {
        let faults = |hands_over, gap, changes, journal: &str| {
            let audited = Audited {
                step: String::new(),
                limit: Duration::ZERO,
                settled: Duration::ZERO,
                asked: 0,
                hurried: false,
                owners: String::new(),
                faults: Vec::new(),
                note: None,
            };
            let mut stage = ReplacementStep {
                name: "",
                hands_over,
                pair: DaemonPair::ORACLE,
                audited,
                page_gaps: Vec::new(),
                echo_gaps: [Vec::new(), Vec::new()],
                machine_gaps: Vec::new(),
                unexplained: Duration::from_millis(gap),
            };
            stage.check(&Quiet { changes, journal: journal.to_owned() });
            stage.audited.faults.len()
        };
        assert_eq!((faults(true, 5000, 4, "start"), faults(false, 60, 0, "")), (0, 0));
        assert_eq!(
            (faults(false, 501, 0, ""), faults(false, 60, 2, ""), faults(false, 60, 0, "stop")),
            (1, 1, 1)
        );
    }
}
