//! Two nodes, each with its own kind of daemon, the steps played on them, and the audit after each step.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use locum_sys::icmp::Pinger;
use rustix::process::{Pid, kill_process};

use super::{
    DaemonPair, MixedSetup,
    files::{self, CABLE, CLIENT, Carrier, GROUPS, LAN, MODEM, MixedSettings, NODES, SERVICES, STEADY},
    sniff::Sniffer,
    step::{NodeSelector, Planned, Set, Step},
};
use crate::{
    clock::{Moment, await_some, pause},
    daemon::{Daemon, LOG_NAME},
    fault::{Doing, Fault},
    process::{Process, ProcessSignal},
    rack::Rack,
    relay::{Impairment, RelayDirection},
    watch::WatchSpec,
};

/// How long an audit must stay good to pass.
const CALM: Duration = Duration::from_secs(2);
/// After a partition a real heartbeat goes on for two seconds, then gives everything up and sleeps for deadtime and a
/// second before it begins again. A command to stop it would be lost meanwhile.
const HEAL_CALM: Duration = Duration::from_secs(9);
/// The time between two looks of an audit.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How long the client waits for the answer to a ping.
const PING_LIMIT: Duration = Duration::from_millis(500);
/// Initdead and heartbeat's ten seconds, and then its scripts, on a busy machine.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// After a healed partition a real heartbeat restarts itself, and sleeps before it does.
const HEAL_LIMIT: Duration = Duration::from_secs(90);
/// How long to wait before a planned move is ordered again: heartbeat may refuse it while it is busy, and reports that
/// only in its log.
const MOVE_LIMIT: Duration = Duration::from_secs(20);
const MOVE_TRIES: u32 = 4;
/// Longest time in which a daemon ends.
const STOP_LIMIT: Duration = Duration::from_secs(90);
/// The line that each run of a daemon writes once.
const RUN_BEGINS: &str = "Heartbeat generation:";
/// Longest time until a daemon that reloaded in place has settled: a real one waits for its peer for 10 s.
const RELOAD_LIMIT: Duration = Duration::from_secs(15);
/// The port of the first group's web server.
const WEB_PORT: u16 = 80;
/// How many lines of a daemon's log are kept with a failure.
const LOG_LINES: usize = 40;
/// Lines that no daemon may write.
const FORBIDDEN: [&str; 3] = ["No one owns", "panicked", "hist queue is filling up"];
/// Allowed where nodes could not hear each other, which no R1 cluster can prevent.
const BOTH_OWN: &str = "Both machines own";
/// May concern the last frames of a node that leaves or starts again. So it counts only while both nodes run, and not
/// in random runs, which restart them.
const NOT_SENT_AGAIN: &str = "packet(s) were not sent again";
/// If no frame is lost, no node asks in vain for one.
const CANNOT_SEND_AGAIN: &str = "Cannot rexmit";

/// The power and daemon of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    /// The node has no power.
    Off,
    /// It has power and no daemon: the daemon ended gracefully or never began.
    Idle,
    /// Its daemon was killed; resources that it started run on.
    Killed,
    Running,
}

/// The result of a step and its audit.
#[derive(Clone, Debug)]
pub struct Audited {
    /// The step, in words.
    pub step: String,
    /// The limit of the audit.
    pub limit: Duration,
    /// The time from the end of the step until the audit was good, or the whole limit.
    pub settled: Duration,
    /// How often a move was ordered.
    pub asked: u32,
    /// Whether the next step followed at once, without an audit.
    pub hurried: bool,
    /// The owners of the groups at the end, as in [`Planned::owners`]; `-` for a group on no living node or on several.
    pub owners: String,
    /// The errors found; empty when the audit was passed.
    pub faults: Vec<String>,
    /// A measured result, if the step has one.
    pub note: Option<String>,
}

pub(super) struct MixedCluster {
    pub(super) pair: DaemonPair,
    settings: MixedSettings,
    pub(super) node_states: [NodeState; 2],
    /// By node: whether it has another key than the cluster's.
    other_key: [bool; 2],
    /// How often nodes got other times in their files.
    reloads: u32,
    /// Whether all links carry nothing.
    pub(super) split: bool,
    /// Whether, since the last audit, the nodes could not hear each other, or one was killed or frozen: two may have
    /// owned a group for a while.
    rough: bool,
    /// Lines of the services' journals read so far, and the nodes that ran each service after them.
    journals_read: [usize; 2],
    serving: [[bool; 2]; 2],
    /// How much of each log was read.
    logs_read: [usize; 2],
    sniffers: Vec<Sniffer>,
    /// Dropped before the rack: the process that started a daemon has to reap it.
    daemons: [Option<Process>; 2],
    requests: Vec<Process>,
    pub(super) rack: Rack,
}

impl MixedCluster {
    /// Two nodes with power and configuration, and no daemon running.
    pub(super) fn build(
        setup: &MixedSetup,
        pair: DaemonPair,
        settings: MixedSettings,
        seed: u64,
    ) -> Result<Self, Fault> {
        // Heartbeat's fencing plugins are needed for `stonith`, too.
        let needed = pair.0.contains(&Daemon::Heartbeat) || settings.more.contains("stonith");
        let layer = setup.peers_root.as_deref().filter(|_| needed);
        let mut rack = Rack::build(files::description(&setup.program, layer, &settings, seed))?;
        rack.watch(WatchSpec {
            client: CLIENT.into(),
            network: LAN.into(),
            nodes: NODES.map(String::from).to_vec(),
            services: settings.web_server.map(|_| vec![GROUPS[0].0, GROUPS[1].0, STEADY]).unwrap_or_default(),
            page: settings.web_server.map(|_| SocketAddrV4::new(GROUPS[0].0, WEB_PORT)),
            ..WatchSpec::default()
        })?;
        for (place, (node, daemon)) in NODES.iter().zip(pair.0).enumerate() {
            let disk = rack.disk(node);
            files::write(&disk, place, daemon, layer, &settings)
                .and_then(|()| match &setup.breakage {
                    Some(name) => fs::write(disk.join("ha.d/breakage"), name),
                    None => Ok(()),
                })
                .doing(|| format!("write the configuration of {node}"))?;
        }
        let cluster = Self {
            pair,
            settings,
            node_states: [NodeState::Idle; 2],
            other_key: [false; 2],
            reloads: 0,
            split: false,
            rough: false,
            journals_read: [0; 2],
            serving: [[false; 2]; 2],
            logs_read: [0; 2],
            sniffers: Vec::new(),
            daemons: [None, None],
            requests: Vec::new(),
            rack,
        };
        if let Some(percent) = settings.loss {
            cluster.impair(percent)?;
        }
        Ok(cluster)
    }

    /// Takes a step, and waits until the audit is good, unless the next step is to follow at once.
    pub(super) fn take(&mut self, planned: Planned) -> Result<Audited, Fault> {
        let Planned { step, owners, hurry } = planned;
        let owners: Vec<usize> =
            owners.bytes().map(|digit| usize::from(digit.saturating_sub(b'1'))).collect();
        let mut audited = Audited {
            step: step.to_string(),
            limit: limit(step),
            settled: Duration::ZERO,
            asked: 0,
            hurried: hurry.is_some(),
            owners: String::new(),
            faults: Vec::new(),
            note: None,
        };
        self.rough |= self.is_apart() || is_rough(step);
        match (step, hurry) {
            (Step::Standby(who, set) | Step::Takeover(who, set), Some(_)) => {
                self.ask_to_move(who, matches!(step, Step::Standby(..)), set)?;
            }
            (Step::Standby(who, set) | Step::Takeover(who, set), None) => {
                self.moved(who, matches!(step, Step::Standby(..)), set, &owners, &mut audited)?;
            }
            _ => audited.faults = self.act(step, &owners, &mut audited.note)?,
        }
        if let Some(time) = hurry {
            pause(time);
            return Ok(audited);
        }
        if audited.asked == 0 {
            self.settle(&owners, self.calm(step), &mut audited)?;
        }
        audited.owners = GROUPS.iter().map(|&(address, _)| self.owner(address)).collect();
        self.rough |= self.is_apart();
        let lines = self.forbidden_lines();
        audited.faults.extend(lines);
        let overlaps = self.overlaps()?;
        audited.faults.extend(overlaps);
        self.rough = self.is_apart();
        Ok(audited)
    }

    // ---- steps ------------------------------------------------------------

    fn act(&mut self, step: Step, owners: &[usize], note: &mut Option<String>) -> Result<Vec<String>, Fault> {
        match step {
            Step::Start(who) => self.start(who)?,
            Step::Run(who, daemon) => {
                who.each().iter().for_each(|&node| self.pair.0[node] = daemon);
                self.start(who)?;
            }
            Step::Stop(who) => return self.stop(who),
            Step::PowerOff(who) => who.each().iter().try_for_each(|&node| self.power_off(node))?,
            Step::Kill(who) => {
                for &node in who.each() {
                    self.signal_daemon(node, ProcessSignal::Kill)?;
                    self.daemons[node] = None;
                    self.node_states[node] = NodeState::Killed;
                }
            }
            Step::Freeze(who, time) => {
                who.each().iter().try_for_each(|&node| self.signal_daemon(node, ProcessSignal::Stop))?;
                pause(time);
                who.each().iter().try_for_each(|&node| self.signal_daemon(node, ProcessSignal::Continue))?;
            }
            Step::Standby(..) | Step::Takeover(..) => {}
            Step::Cut(link) => self.connect(link, false)?,
            Step::Mend(link) => self.connect(link, true)?,
            Step::Split | Step::Heal => {
                self.split = step == Step::Split;
                for link in 0..self.settings.media.len() {
                    self.connect(link, !self.split)?;
                }
            }
            Step::Isolate(who) | Step::Rejoin(who) => {
                for &node in who.each() {
                    if matches!(step, Step::Isolate(_)) {
                        self.rack.cut(LAN, NODES[node])?;
                    } else {
                        self.rack.mend(LAN, NODES[node])?;
                    }
                }
            }
            Step::Lose(percent) => self.lose(percent)?,
            Step::LoseNothing => return self.lose_nothing(note),
            Step::Rest(time) => pause(time),
            Step::Reload(who) => return self.reload(who, owners),
            Step::OtherKey(who) | Step::RightKey(who) => {
                let other = matches!(step, Step::OtherKey(_));
                for &node in who.each() {
                    self.other_key[node] = other;
                    let key = if other { "sha1 apart" } else { self.settings.key };
                    files::write_key(&self.rack.disk(NODES[node]), key)
                        .doing(|| format!("write the key of {}", NODES[node]))?;
                }
            }
        }
        Ok(Vec::new())
    }

    fn start(&mut self, who: NodeSelector) -> Result<(), Fault> {
        let mut begun = Vec::new();
        for &node in who.each() {
            if self.node_states[node] == NodeState::Killed && self.pair.0[node] == Daemon::Heartbeat {
                self.power_off(node)?;
            }
            if self.node_states[node] == NodeState::Off {
                self.rack.power_on(NODES[node])?;
            }
        }
        for &node in who.each() {
            begun.push((node, self.pair.0[node].start(&self.rack, NODES[node])?));
        }
        for (node, process) in begun {
            self.daemons[node] = self.pair.0[node].await_start(NODES[node], process)?;
            self.node_states[node] = NodeState::Running;
        }
        Ok(())
    }

    fn stop(&mut self, who: NodeSelector) -> Result<Vec<String>, Fault> {
        let mut faults = Vec::new();
        let mut begun = Vec::new();
        for &node in who.each() {
            begun.push((node, self.pair.0[node].stop(&self.rack, NODES[node])?));
        }
        for (node, mut command) in begun {
            let asked = command.wait(STOP_LIMIT);
            if asked.is_none_or(|status| !status.success()) {
                faults.push(format!("{}: the command to stop ends with {asked:?}", NODES[node]));
            }
            let gone = || self.daemon(node).is_ok_and(|daemon| daemon.is_empty()).then_some(());
            if await_some(Duration::from_secs(10), gone).is_none() {
                faults.push(format!("{}: the daemon has not ended", NODES[node]));
            }
            if let Some(mut daemon) = self.daemons[node].take() {
                let ended = daemon.wait(Duration::from_secs(1));
                if ended.is_none_or(|status| !status.success()) {
                    faults.push(format!("{}: the daemon ended with {ended:?}", NODES[node]));
                }
            }
            self.node_states[node] = NodeState::Idle;
        }
        Ok(faults)
    }

    fn power_off(&mut self, node: usize) -> Result<(), Fault> {
        self.daemons[node] = None;
        self.requests.clear();
        self.rack.power_off(NODES[node])?;
        self.node_states[node] = NodeState::Off;
        Ok(())
    }

    /// Sends a signal to all processes of a node's daemon.
    fn signal_daemon(&self, node: usize, signal: ProcessSignal) -> Result<(), Fault> {
        for process in self.daemon(node)? {
            if let Some(pid) = Pid::from_raw(process.cast_signed()) {
                // A process that has just ended needs no signal.
                let _ = kill_process(pid, signal.signal());
            }
        }
        Ok(())
    }

    fn daemon(&self, node: usize) -> Result<Vec<u32>, Fault> {
        self.pair.0[node].processes(&self.rack, NODES[node])
    }

    fn connect(&mut self, link: usize, on: bool) -> Result<(), Fault> {
        match (self.settings.media[link].carrier(), on) {
            (Carrier::Line, _) => self.rack.cut_line(MODEM, !on).map(drop),
            (Carrier::Network(LAN), _) => {
                Err(Fault::Description("the client's segment cannot be cut between the nodes alone".into()))
            }
            (Carrier::Network(network), true) => self.rack.mend(network, NODES[0]).map(drop),
            (Carrier::Network(network), false) => self.rack.cut(network, NODES[0]).map(drop),
        }
    }

    fn impair(&self, percent: u32) -> Result<(), Fault> {
        let loss = f64::from(percent) / 100.0;
        for medium in self.settings.media {
            match medium.carrier() {
                Carrier::Line => self.rack.lose_on_line(MODEM, loss)?,
                Carrier::Network(network) => {
                    for node in NODES {
                        let impairment = Impairment { loss, ..Impairment::default() };
                        self.rack.impair(network, node, RelayDirection::FromNode, impairment)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn lose(&mut self, percent: u32) -> Result<(), Fault> {
        self.sniffers.clear();
        for node in NODES {
            self.sniffers.push(Sniffer::start(self.rack.tap(CABLE, node)?));
        }
        self.impair(percent)
    }

    fn lose_nothing(&mut self, note: &mut Option<String>) -> Result<Vec<String>, Fault> {
        self.impair(0)?;
        let mut words = Vec::new();
        let mut faults = Vec::new();
        for (node, sniffer) in NODES.iter().zip(self.sniffers.drain(..)) {
            let (requests, answers) = sniffer.counts();
            words.push(format!("{node} asked {requests} times and sent {answers} frames again"));
            if requests == 0 || answers == 0 {
                faults.push(format!("no proof of retransmission both ways: {}", words.join(", ")));
            }
        }
        *note = Some(words.join(", "));
        Ok(faults)
    }

    /// Writes new files and sends HUP: the daemon reloads in place, and no group may stop or start.
    fn reload(&mut self, who: NodeSelector, owners: &[usize]) -> Result<Vec<String>, Fault> {
        let begun = |cluster: &Self, node| {
            // Each line of Locum's log is there twice: by its logfile, and by its standard error.
            let log = cluster.log(node);
            let generations = log.lines().filter_map(|line| line.split_once(RUN_BEGINS));
            generations.map(|(_, generation)| generation.to_owned()).collect::<BTreeSet<_>>().len()
        };
        let before = [0, 1].map(|node| (begun(self, node), self.journal(node)));
        for &node in who.each() {
            self.reloads += 1;
            files::write_other_times(&self.rack.disk(NODES[node]), node, self.reloads, &self.settings)
                .doing(|| format!("write the configuration of {}", NODES[node]))?;
            self.pair.0[node].reread(&self.rack, NODES[node])?;
        }
        let mut faults = Vec::new();
        let began = Moment::now();
        while Moment::now().since(began) < RELOAD_LIMIT && faults.is_empty() {
            self.look(owners, &mut faults)?;
            pause(LOOK_EVERY);
        }
        for (node, (lives, journal)) in before.into_iter().enumerate() {
            let expected = lives + usize::from(who.each().contains(&node));
            if begun(self, node) != expected {
                faults.push(format!(
                    "{}: {} runs of the daemon have begun, not {expected}",
                    NODES[node],
                    begun(self, node)
                ));
            }
            let (journal, now) = (journal?, self.journal(node)?);
            if journal != now {
                faults.push(format!("{}: services moved: {}", NODES[node], now[journal.len()..].trim()));
            }
        }
        Ok(faults)
    }

    fn ask_to_move(&mut self, who: NodeSelector, give: bool, set: Set) -> Result<(), Fault> {
        for &node in who.each() {
            self.requests.push(self.pair.0[node].ask_to_move(&self.rack, NODES[node], give, set.word())?);
        }
        Ok(())
    }

    /// Orders a move, again if necessary, until it is done.
    fn moved(
        &mut self,
        who: NodeSelector,
        give: bool,
        set: Set,
        owners: &[usize],
        audited: &mut Audited,
    ) -> Result<(), Fault> {
        while audited.asked < MOVE_TRIES {
            audited.asked += 1;
            audited.faults.clear();
            self.ask_to_move(who, give, set)?;
            self.settle(owners, CALM, audited)?;
            if audited.faults.is_empty() {
                break;
            }
        }
        Ok(())
    }

    // ---- audit ------------------------------------------------------------

    /// Whether both daemons run and cannot hear each other.
    fn is_apart(&self) -> bool {
        let deaf = self.split || self.other_key[0] != self.other_key[1];
        deaf && self.node_states == [NodeState::Running; 2]
    }

    fn calm(&self, step: Step) -> Duration {
        let heals = matches!(step, Step::Heal | Step::Freeze(..));
        if heals && self.pair.0.contains(&Daemon::Heartbeat) { HEAL_CALM } else { CALM }
    }

    fn settle(&mut self, owners: &[usize], calm: Duration, audited: &mut Audited) -> Result<(), Fault> {
        let begun = Moment::now();
        let (mut good_since, mut faults) = (None, Vec::new());
        loop {
            let now = Moment::now();
            faults.clear();
            self.look(owners, &mut faults)?;
            if faults.is_empty() {
                let since = *good_since.get_or_insert(now);
                if now.since(since) >= calm {
                    audited.settled = since.since(begun);
                    return Ok(());
                }
            } else {
                good_since = None;
                if now.since(begun) >= audited.limit {
                    audited.settled = audited.limit;
                    audited.faults.append(&mut faults);
                    return Ok(());
                }
            }
            pause(LOOK_EVERY);
        }
    }

    /// Adds the errors of the present state to `faults`.
    fn look(&self, owners: &[usize], faults: &mut Vec<String>) -> Result<(), Fault> {
        let apart = self.is_apart();
        let running: Vec<usize> =
            (0..2).filter(|&node| self.node_states[node] == NodeState::Running).collect();
        for (group, (address, service)) in GROUPS.into_iter().enumerate() {
            let holders = self.holders(address);
            let served: Vec<usize> = (0..2).filter(|&node| self.serves(node, service)).collect();
            let names =
                |nodes: &[usize]| nodes.iter().map(|&node| NODES[node]).collect::<Vec<_>>().join(" and ");
            if holders != served {
                faults.push(format!(
                    "{address} is on [{}], {service} on [{}]",
                    names(&holders),
                    names(&served)
                ));
            }
            // In a partition each living node owns everything; R1 can do no better.
            let right = match (running.len(), owners.get(group)) {
                (0, _) => holders.is_empty(),
                (_, _) if apart => holders == running,
                (_, Some(owner)) => holders == [*owner],
                (_, None) => holders.len() == 1,
            };
            if !right {
                let wanted = match owners.get(group) {
                    Some(owner) if !apart => NODES[*owner].into(),
                    _ if apart || running.is_empty() => format!("[{}]", names(&running)),
                    _ => "exactly one node".into(),
                };
                faults.push(format!("{address} is on [{}] and belongs on {wanted}", names(&holders)));
            }
        }
        if !faults.is_empty() || running.is_empty() {
            return Ok(());
        }
        for (address, _) in GROUPS {
            let answered = self.rack.inside(CLIENT, move || ping(address))?;
            if !answered.doing(|| format!("ping {address}"))? {
                faults.push(format!("{address} does not answer the client"));
            }
        }
        for node in running {
            if self.daemon(node)?.is_empty() {
                faults.push(format!("the daemon of {} has ended by itself", NODES[node]));
            }
        }
        Ok(())
    }

    /// The nodes that hold an address, except those whose daemon was killed: leftovers of a killed daemon do not count.
    fn holders(&self, address: Ipv4Addr) -> Vec<usize> {
        let holds = |node: usize| {
            self.rack.look(|record| record.holders(IpAddr::V4(address)).contains(&NODES[node])) == Some(true)
        };
        (0..2).filter(|&node| self.node_states[node] != NodeState::Killed && holds(node)).collect()
    }

    /// The number of the one node that holds an address, as a digit.
    fn owner(&self, address: Ipv4Addr) -> char {
        match self.holders(address).as_slice() {
            [0] => '1',
            [1] => '2',
            _ => '-',
        }
    }

    fn serves(&self, node: usize, service: &str) -> bool {
        let mark = self.rack.volatile(NODES[node]).join(SERVICES).join(service);
        !matches!(self.node_states[node], NodeState::Killed | NodeState::Off) && mark.exists()
    }

    /// New lines in the daemons' logs, since the last audit, that they must not write.
    fn forbidden_lines(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        let both_run = self.node_states == [NodeState::Running; 2];
        for (node, name) in NODES.iter().enumerate() {
            let log = self.log(node);
            let news = log.get(self.logs_read[node]..).unwrap_or_default();
            self.logs_read[node] = log.len();
            let is_bad = |line: &&str| {
                let is_bad_in_calm = || {
                    line.contains(BOTH_OWN)
                        || line.contains(NOT_SENT_AGAIN) && both_run && self.settings.loss == Some(0)
                        || line.contains(CANNOT_SEND_AGAIN) && self.settings.loss.is_none()
                };
                FORBIDDEN.iter().any(|text| line.contains(text)) || !self.rough && is_bad_in_calm()
            };
            found.extend(news.lines().filter(is_bad).map(|line| format!("{name} says: {line}")));
        }
        found.dedup();
        found
    }

    /// The services that ran on both nodes at once since the last audit, although no fault explains it. The journals
    /// show it; their clock is the same for both nodes.
    fn overlaps(&mut self) -> Result<Vec<String>, Fault> {
        let mut entries: Vec<(f64, usize, usize, bool)> = Vec::new();
        for node in 0..NODES.len() {
            let text = self.journal(node)?;
            let lines: Vec<_> = text.lines().collect();
            entries.extend(lines[self.journals_read[node]..].iter().filter_map(|line| entry(node, line)));
            self.journals_read[node] = lines.len();
        }
        entries.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut found = Vec::new();
        for (_, node, service, starts) in entries {
            self.serving[service][node] = starts;
            if self.serving[service] == [true; 2] && !self.rough {
                found.push(format!("{} ran on both nodes at once", GROUPS[service].1));
            }
        }
        found.dedup();
        // A service that ended by a loss of power or a kill wrote no line.
        for (service, (_, name)) in GROUPS.iter().enumerate() {
            self.serving[service] = [0, 1].map(|node| self.serves(node, name));
        }
        Ok(found)
    }

    /// The journal of a node's services, with their starts and stops.
    pub(super) fn journal(&self, node: usize) -> Result<String, Fault> {
        let path = self.rack.disk(NODES[node]).join("journal");
        if !path.exists() {
            return Ok(String::new());
        }
        fs::read_to_string(&path).doing(|| format!("read {}", path.display()))
    }

    pub(super) fn log(&self, node: usize) -> String {
        let log = fs::read(self.rack.disk(NODES[node]).join(LOG_NAME)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The ends of both daemons' logs and of the services' journals. If a directory is given, the whole texts are
    /// written there.
    pub(super) fn evidence(&self, keep: Option<&Path>, name: &str) -> String {
        let mut text = String::new();
        for (node, at) in NODES.iter().zip(0..) {
            let log = self.log(at);
            if let Some(directory) = keep {
                let target = directory.join(format!("{name}.{node}.log"));
                let journal = fs::read_to_string(self.rack.disk(node).join("journal")).unwrap_or_default();
                let kept = fs::create_dir_all(directory).and_then(|()| {
                    fs::write(&target, format!("{log}\n--- journal of the services\n{journal}"))
                });
                if let Err(error) = kept {
                    text += &format!("{}: {error}\n", target.display());
                }
            }
            let lines: Vec<_> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                text += &format!("    {node}: {}\n", line.escape_debug());
            }
        }
        text
    }
}

/// A line of a service's journal: time, node, service, and whether the service starts.
fn entry(node: usize, line: &str) -> Option<(f64, usize, usize, bool)> {
    let mut words = line.split(' ');
    let (at, verb, name) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let service = GROUPS.iter().position(|(_, service)| *service == name)?;
    Some((at, node, service, verb == "start"))
}

/// Whether after this step two nodes may rightly own a group for a while.
fn is_rough(step: Step) -> bool {
    match step {
        Step::PowerOff(_) | Step::Kill(_) | Step::Freeze(..) | Step::Split | Step::Heal => true,
        Step::Start(_)
        | Step::Run(..)
        | Step::Stop(_)
        | Step::Standby(..)
        | Step::Takeover(..)
        | Step::Cut(_)
        | Step::Mend(_)
        | Step::Isolate(_)
        | Step::Rejoin(_)
        | Step::Lose(_)
        | Step::LoseNothing
        | Step::Rest(_)
        | Step::OtherKey(_)
        | Step::RightKey(_)
        | Step::Reload(_) => false,
    }
}

fn limit(step: Step) -> Duration {
    match step {
        Step::Heal | Step::Freeze(..) => HEAL_LIMIT,
        Step::Standby(..) | Step::Takeover(..) => MOVE_LIMIT,
        _ => SETTLE_LIMIT,
    }
}

/// Sends an echo request to an address from the client, and waits for the answer.
fn ping(address: Ipv4Addr) -> std::io::Result<bool> {
    const IDENTIFIER: u16 = 0x10c1;
    let pinger = Pinger::open(false, IDENTIFIER)?;
    // If no host has the address, no answer comes.
    let _ = pinger.ask(address.into(), 1, b"audit");
    let mut buffer = [0; 256];
    let answer = await_some(PING_LIMIT, || {
        let reply = pinger.receive(&mut buffer).ok().flatten()?;
        (reply.from == IpAddr::V4(address)).then_some(())
    });
    Ok(answer.is_some())
}
