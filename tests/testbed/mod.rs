//! A rack of real daemons as the testbed of stories. Daemons get orders and are asked nothing else. Addresses are taken
//! from the notifications of each host's kernel, services from the journals of their scripts and their living
//! processes, answers from the client.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    fs,
    net::IpAddr,
    path::Path,
    time::Duration,
};

use locum_lab::{
    Impairment, Process, ProcessSignal, Program, Rack, RelayDirection,
    clock::{Moment, await_some, pause},
};
use locum_sim::{
    story::{Cable, Command, NodeRef, Operation, Set, Story, address_of, script_of},
    testbed::Testbed,
    transcript::{Fact, Holder, ObservedChange},
};
use locum_sys::netlink::Netlink;

mod build;
mod client;
mod journal;
mod recorder;

use build::{CLIENT, LAN, LAN_INTERFACE};
use journal::ScriptJournal;
use recorder::Recorder;

/// The program under test.
pub(crate) const LOCUM: &str = env!("CARGO_BIN_EXE_locum");

/// How late this machine may be, on top of what a story allows. It is less than a deadtime of a second, so that an
/// immediate action can be told from one after a silence.
const SLACK: Duration = Duration::from_millis(600);
/// The limit for settling, for the answer to an order, and for the end of a daemon.
const PATIENCE: Duration = Duration::from_secs(150);
/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Processes that a killed operation has started must be gone after this time.
const DEATH: Duration = Duration::from_secs(2);
/// How many of a daemon's last log lines are shown when a story fails.
const LAST_LINES: usize = 60;

/// The testbed of one story.
pub(crate) struct RackTestbed<'a> {
    /// Measurements, one line each.
    pub(crate) measured: Vec<String>,
    story: &'a Story,
    recorder: Option<Recorder>,
    /// Declared before the rack, so that processes end before their hosts.
    daemons: BTreeMap<NodeRef, Process>,
    rack: Rack,
    journals: BTreeMap<NodeRef, ScriptJournal>,
    facts: Vec<(Moment, Fact)>,
    /// How many of the kernels' notifications have become facts.
    holds_read: usize,
    last_change: Moment,
    /// The moments at which each daemon was started.
    run_starts: BTreeMap<NodeRef, Vec<Moment>>,
    /// Daemons that were killed, and those of them that have been started again since the last telling.
    killed: Vec<NodeRef>,
    sweeping: Vec<NodeRef>,
    /// Frames lost and offered when the loss began.
    losses_before: (u64, u64),
    macs: BTreeMap<[u8; 6], String>,
}

impl<'a> RackTestbed<'a> {
    /// Builds the rack of a story, with all hosts powered and no daemon running.
    pub(crate) fn new(story: &'a Story) -> Result<Self, String> {
        let mut rack = Rack::build(build::description(story)?).map_err(words)?;
        let hosts = story.hosts();
        let sight = locum_lab::WatchSpec {
            client: CLIENT.into(),
            network: LAN.into(),
            nodes: hosts.clone(),
            ..locum_lab::WatchSpec::default()
        };
        rack.watch(sight).map_err(words)?;
        let mut macs = BTreeMap::new();
        for host in hosts {
            let mac = rack.inside(&host, || Ok(Netlink::open()?.interface(LAN_INTERFACE)?.mac));
            let mac: std::io::Result<_> = mac.map_err(words)?;
            macs.extend(mac.map_err(words)?.map(|mac| (mac, host)));
        }
        for node in story.nodes() {
            build::write_files(&rack, story, node).map_err(words)?;
        }
        let recorder = if build::replays(story) { Some(Recorder::start(&rack, 694)?) } else { None };
        Ok(Self {
            measured: Vec::new(),
            story,
            recorder,
            daemons: BTreeMap::new(),
            rack,
            journals: story.nodes().map(|node| (node, ScriptJournal::default())).collect(),
            facts: Vec::new(),
            holds_read: 0,
            last_change: Moment::now(),
            run_starts: BTreeMap::new(),
            killed: Vec::new(),
            sweeping: Vec::new(),
            losses_before: (0, 0),
            macs,
        })
    }

    /// The last log lines of all daemons.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for node in self.story.nodes() {
            let log = self.log(node);
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            let _ = writeln!(text, "the log of {}:\n    {}", self.story.node_name(node), last.join("\n    "));
        }
        text
    }

    /// Checks that no daemon logged an action that daemons never take.
    pub(crate) fn check_logs(&self) -> Result<(), String> {
        for node in self.story.nodes() {
            if let Some(line) = self.log(node).lines().find(|line| line.contains("panicked")) {
                return Err(format!("{}: {line}", self.story.node_name(node)));
            }
        }
        Ok(())
    }

    fn log(&self, node: NodeRef) -> String {
        fs::read_to_string(build::place(&self.rack, self.story, node).join("log")).unwrap_or_default()
    }

    fn host(&self, node: NodeRef) -> &'a str {
        &self.story.clusters[node.cluster].nodes[node.node]
    }

    /// All daemons of a host.
    fn on_host(&self, host: &str) -> Vec<NodeRef> {
        self.story.nodes().filter(|&node| self.host(node) == host).collect()
    }

    // ---- what an administrator does -------------------------------------------------------------------------------

    fn start(&mut self, node: NodeRef) -> Result<(), String> {
        let host = self.host(node);
        if !self.rack.is_on(host) {
            self.rack.power_on(host).map_err(words)?;
        }
        if self.daemons.contains_key(&node) {
            return Err(format!("the daemon of {} runs already", self.story.node_name(node)));
        }
        let name = build::cluster_name(self.story, node.cluster);
        let disk = format!("/run/disk/{name}");
        let (config, state, run) = (format!("{disk}/ha.d"), format!("{disk}/state"), format!("/run/{name}"));
        let mut line = vec!["locum", "--config", &config, "--state", &state, "--run", &run, "run"];
        let limits: Vec<(&str, String)> =
            self.story.clusters[node.cluster].limits.iter().map(|&(of, time)| limit(of, time)).collect();
        line.extend(limits.iter().flat_map(|(option, time)| [*option, time.as_str()]));
        let program = Program::new(&line).output(&format!("{disk}/log"));
        let begun = Moment::now();
        self.daemons.insert(node, self.rack.start(host, &program).map_err(words)?);
        self.run_starts.entry(node).or_default().push(begun);
        if let Some(at) = self.killed.iter().position(|&killed| killed == node) {
            self.killed.swap_remove(at);
            self.sweeping.push(node);
        }
        Ok(())
    }

    fn stop(&mut self, node: NodeRef) -> Result<Option<String>, String> {
        let Some(mut daemon) = self.daemons.remove(&node) else { return Ok(Some("refused".to_owned())) };
        daemon.signal(ProcessSignal::Terminate).map_err(words)?;
        let ended = daemon.wait(PATIENCE).ok_or("the daemon does not end")?;
        match ended.code() {
            Some(0) => Ok(None),
            Some(3) => Ok(Some("not clean".to_owned())),
            _ => Err(format!("the daemon ended with {ended}")),
        }
    }

    fn power_off(&mut self, host: &str) -> Result<(), String> {
        self.look()?;
        let moment = self.rack.power_off(host).map_err(words)?;
        for node in self.on_host(host) {
            self.daemons.remove(&node);
            self.killed.retain(|&killed| killed != node);
        }
        // Everything before this moment was seen. What was lost with the power was not undone by any operation.
        self.look_until(Some((host, moment)))?;
        for node in self.on_host(host) {
            self.journals.entry(node).or_default().lost();
        }
        Ok(())
    }

    fn signal(&mut self, node: NodeRef, signal: ProcessSignal) -> Result<(), String> {
        let name = self.story.node_name(node);
        let daemon = self.daemons.get_mut(&node).ok_or_else(|| format!("no daemon runs on {name}"))?;
        daemon.signal(signal).map_err(words)
    }

    fn order(&mut self, node: NodeRef, give: bool, set: Set) -> Result<String, String> {
        let run = format!("/run/{}", build::cluster_name(self.story, node.cluster));
        let verb = if give { "standby" } else { "takeover" };
        let command = Program::new(&["locum", "--run", &run, verb, &set.to_string()]);
        let outcome = self.rack.run(self.host(node), &command, PATIENCE).map_err(words)?;
        match outcome.code {
            Some(0) => Ok("done".to_owned()),
            Some(1 | 3) => Ok("refused".to_owned()),
            Some(2) => Ok("timed out".to_owned()),
            code => Err(format!("the command ended with {code:?}: {}", outcome.text)),
        }
    }

    fn cut(&mut self, name: &str, cut: bool) -> Result<(), String> {
        let links = self.story.links();
        let link = links.iter().find(|link| link.name == name).ok_or_else(|| format!("no link {name}"))?;
        if link.cable == Cable::Serial {
            return self.rack.cut_line(name, cut).map(drop).map_err(words);
        }
        for host in self.story.hosts() {
            if link.cable != Cable::Lan && !build::has_link(self.story, &host, name) {
                continue;
            }
            let network = build::network(link);
            // A switch that fails keeps the carrier up; a cable that is pulled does not.
            let done = match (link.cable, cut) {
                (Cable::Lan, true) => self.rack.cut(network, &host),
                (Cable::Lan, false) => self.rack.mend(network, &host),
                (_, true) => self.rack.unplug(network, &host),
                (_, false) => self.rack.plug(network, &host),
            };
            done.map_err(words)?;
        }
        Ok(())
    }

    /// Begins or ends the loss of all frames that a host sends on a link.
    fn mute(&mut self, name: &str, host: &str, mute: bool) -> Result<(), String> {
        let links = self.story.links();
        let link = links.iter().find(|link| link.name == name).ok_or_else(|| format!("no link {name}"))?;
        if link.cable == Cable::Serial {
            return self.rack.mute_line(name, host, mute).map_err(words);
        }
        let loss = Impairment { loss: if mute { 1.0 } else { 0.0 }, ..Impairment::default() };
        self.rack.impair(build::network(link), host, RelayDirection::FromNode, loss).map_err(words)
    }

    fn heal(&mut self, name: &str) -> Result<(), String> {
        self.cut(name, false)?;
        let was_muted = |command: &Command| matches!(command, Command::Cut { from: Some(_), .. });
        if self.story.steps.iter().any(|step| was_muted(&step.command)) {
            for host in self.story.hosts() {
                self.mute(name, &host, false)?;
            }
        }
        Ok(())
    }

    fn lose(&mut self, percent: u8, names: &[String]) -> Result<(), String> {
        let share = f64::from(percent) / 100.0;
        for link in self.story.links().iter().filter(|link| names.contains(&link.name)) {
            if link.cable == Cable::Serial {
                self.rack.lose_on_line(&link.name, share).map_err(words)?;
                continue;
            }
            for host in self.story.hosts() {
                let loss = Impairment { loss: share, ..Impairment::default() };
                self.rack
                    .impair(build::network(link), &host, RelayDirection::FromNode, loss)
                    .map_err(words)?;
            }
        }
        self.losses_before = self.count_losses()?;
        Ok(())
    }

    /// Frames lost by chance, and all frames that were offered, since the rack was built.
    fn count_losses(&self) -> Result<(u64, u64), String> {
        let mut sum = (0, 0);
        let mut add = |lost: u64, passed: u64| sum = (sum.0 + lost, sum.1 + lost + passed);
        for link in self.story.links() {
            if link.cable == Cable::Serial {
                let counters = self.rack.line_counters(&link.name).map_err(words)?;
                add(counters.lost, counters.passed);
                continue;
            }
            for host in self.story.hosts() {
                let network = build::network(&link);
                let counters = self.rack.counters(network, &host, RelayDirection::FromNode).map_err(words)?;
                add(counters.lost, counters.passed);
            }
        }
        Ok(sum)
    }

    fn replay(&mut self, node: NodeRef, time: Duration) -> Result<(), String> {
        let lives = self.run_starts.get(&node).map(Vec::as_slice).unwrap_or_default();
        let [.., from, to] = lives else { return Err("there was no earlier life".to_owned()) };
        let hosts = self.story.hosts();
        let at = hosts.iter().position(|host| host == self.host(node)).unwrap_or(0);
        let links = &self.story.clusters[node.cluster].links;
        let senders: Vec<IpAddr> = links.iter().map(|link| self.story.address(at, link)).collect();
        let recorder = self.recorder.as_mut().ok_or("nobody has recorded anything")?;
        recorder.replay(&senders, *from, *to, time)
    }

    fn do_it(&mut self, command: &Command) -> Result<Option<String>, String> {
        match command {
            Command::Start(nodes) => nodes.iter().try_for_each(|&node| self.start(node))?,
            Command::Stop(node) => return self.stop(*node),
            Command::PowerOff(nodes) => {
                nodes.iter().try_for_each(|&node| self.power_off(self.host(node)))?;
            }
            Command::PowerOn(nodes) => {
                for &node in nodes {
                    self.on_host(self.host(node)).into_iter().try_for_each(|node| self.start(node))?;
                }
            }
            Command::Kill(node) => {
                self.signal(*node, ProcessSignal::Kill)?;
                self.daemons.remove(node);
                self.killed.push(*node);
            }
            Command::Freeze(node) => self.signal(*node, ProcessSignal::Stop)?,
            Command::Thaw(node) => self.signal(*node, ProcessSignal::Continue)?,
            Command::Cut { links, from: None } => links.iter().try_for_each(|link| self.cut(link, true))?,
            Command::Cut { links, from: Some(node) } => {
                let host = self.host(*node);
                links.iter().try_for_each(|link| self.mute(link, host, true))?;
            }
            Command::Heal(links) => links.iter().try_for_each(|link| self.heal(link))?,
            Command::Lose { percent, links } => self.lose(*percent, links)?,
            Command::Order { give, node, set } => return self.order(*node, *give, *set).map(Some),
            Command::Keys { node, text } => {
                build::write_keys(&build::place(&self.rack, self.story, *node), text).map_err(words)?;
                self.signal(*node, ProcessSignal::HangUp)?;
            }
            Command::Renew { node, directives } => {
                let changed = self.story.with(node.cluster, directives);
                build::write_ha_cf(&build::place(&self.rack, self.story, *node), &changed, *node)
                    .map_err(words)?;
                self.signal(*node, ProcessSignal::HangUp)?;
            }
            Command::Script { cluster, conduct } => {
                let of_cluster = self.story.nodes().filter(|node| node.cluster == *cluster);
                for node in of_cluster {
                    if conduct.node.as_deref().is_none_or(|named| named == self.host(node)) {
                        let place = build::place(&self.rack, self.story, node);
                        build::conduct(&place, conduct).map_err(words)?;
                    }
                }
            }
            Command::Device { .. } => return Err("no rack has a device that resets nodes".to_owned()),
            Command::Replay { node, time } => self.replay(*node, *time)?,
            Command::Wait(time) => {
                let end = Moment::now() + *time;
                while !end.remaining().is_zero() {
                    self.look()?;
                    pause(LOOK_EVERY.min(end.remaining()));
                }
            }
            Command::Settle { .. } => unreachable!("the play settles by itself"),
        }
        Ok(None)
    }

    // ---- what is seen ---------------------------------------------------------------------------------------------

    /// Reads what the kernels notified and the scripts wrote since the last look.
    fn look(&mut self) -> Result<(), String> {
        self.look_until(None)?;
        for (node, daemon) in &mut self.daemons {
            if let Some(status) = daemon.ended() {
                return Err(format!("the daemon of {} ended: {status}", self.story.node_name(*node)));
            }
        }
        Ok(())
    }

    /// As [`look`](Self::look). A host that lost its power saw nothing after that moment.
    fn look_until(&mut self, dark: Option<(&str, Moment)>) -> Result<(), String> {
        self.read_holds(dark);
        for node in self.story.nodes() {
            self.read_journal(node)?;
        }
        Ok(())
    }

    fn read_holds(&mut self, dark: Option<(&str, Moment)>) {
        let read = self.holds_read;
        let news = self.rack.look(|record| record.holds[read..].to_vec()).unwrap_or_default();
        self.holds_read += news.len();
        for hold in news {
            if dark.is_some_and(|(host, since)| hold.node == host && hold.at >= since) {
                continue;
            }
            for node in self.on_host(&hold.node) {
                let carries = |text: &String| address_of(text) == Some(hold.ip);
                let cluster = &self.story.clusters[node.cluster];
                let groups = 0..cluster.groups.len();
                for group in groups.filter(|&group| cluster.resources(group).iter().any(carries)) {
                    let sight =
                        if hold.held { ObservedChange::AddressUp } else { ObservedChange::AddressDown };
                    self.saw(hold.at, Fact { node, group, change: sight(hold.ip) });
                }
            }
        }
    }

    fn read_journal(&mut self, node: NodeRef) -> Result<(), String> {
        let journal = self.journals.entry(node).or_default();
        let open = journal.open();
        let host = self.story.clusters[node.cluster].nodes[node.node].as_str();
        // Asked before the journal is read: a process that is gone by now has written all its lines.
        let gone = if self.rack.is_on(host) { gone(&self.rack, host, open)? } else { Vec::new() };
        let path = build::place(&self.rack, self.story, node).join(journal::FILE);
        let text = fs::read_to_string(path).unwrap_or_default();
        let entries = journal.read(&text, &gone, Moment::now())?;
        let cluster = &self.story.clusters[node.cluster];
        for entry in entries {
            let group = (0..cluster.groups.len()).find(|&g| cluster.resources(g).contains(&entry.resource));
            let group = group.ok_or_else(|| format!("a script was run for {}", entry.resource))?;
            if let ObservedChange::Start(_, end) | ObservedChange::Stop(_, end) = &entry.sight
                && *end == locum_sim::transcript::ScriptOutcome::Killed
            {
                self.check_no_orphan(node, &entry.resource)?;
            }
            self.saw(entry.at, Fact { node, group, change: entry.sight });
        }
        Ok(())
    }

    /// Checks that all processes that a killed operation had started are gone.
    fn check_no_orphan(&self, node: NodeRef, resource: &str) -> Result<(), String> {
        let (host, name) = (self.host(node), format!("{resource}.hanging"));
        let Some(child) = self.noted_process(node, &name) else { return Ok(()) };
        let all_gone = await_some(DEATH, || match gone(&self.rack, host, vec![child]) {
            Ok(gone) if gone.is_empty() => None,
            told => Some(told.map(drop)),
        });
        all_gone.unwrap_or_else(|| Err(format!("{resource} was killed at its limit, but not its child")))
    }

    /// The process that a script has noted under this name.
    fn noted_process(&self, node: NodeRef, name: &str) -> Option<u32> {
        let services = self.rack.volatile(self.host(node)).join(journal::SERVICES);
        let file = services.join(build::cluster_name(self.story, node.cluster)).join(name);
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    fn saw(&mut self, at: Moment, fact: Fact) {
        self.last_change = self.last_change.max(at);
        self.facts.push((at, fact));
    }

    /// Measures from the start of a daemon after a kill to the last stop of its sweep, which is before its first start.
    fn measure_sweeps(&mut self, facts: &[(Moment, Fact)]) {
        for node in std::mem::take(&mut self.sweeping) {
            let begun =
                self.run_starts.get(&node).and_then(|lives| lives.last()).copied().unwrap_or_default();
            let of_life = facts.iter().filter(|(at, fact)| fact.node == node && *at > begun);
            let stops = |sight: &ObservedChange| {
                matches!(sight, ObservedChange::AddressDown(_) | ObservedChange::Stop(..))
            };
            let stopped: Vec<Moment> =
                of_life.take_while(|(_, fact)| stops(&fact.change)).map(|(at, _)| *at).collect();
            if let Some(last) = stopped.last() {
                let (name, count) = (self.story.node_name(node), stopped.len());
                let time = last.since(begun).as_secs_f64();
                self.measured.push(format!(
                    "leftovers of {name}: {count} stopped, the last of them {time:.3} s after the start"
                ));
            }
        }
    }

    fn runs(&self, node: NodeRef, resource: &str) -> bool {
        let host = self.host(node);
        if !self.rack.is_on(host) {
            return false;
        }
        match address_of(resource) {
            Some(ip) => self.rack.look(|record| record.holders(ip).contains(&host)).unwrap_or(false),
            None => {
                let process = self.noted_process(node, resource);
                process.is_some_and(|pid| gone(&self.rack, host, vec![pid]).is_ok_and(|gone| gone.is_empty()))
            }
        }
    }

    fn has_page(&self, address: IpAddr) -> bool {
        let groups = self.story.clusters.iter().flat_map(|c| &c.groups);
        let with_address = groups.filter(|words| words[1..].iter().any(|w| address_of(w) == Some(address)));
        with_address.into_iter().any(|words| words[1..].iter().any(|word| script_of(word) == "httpd"))
    }
}

impl Testbed for RackTestbed<'_> {
    fn perform(&mut self, command: &Command) -> Result<Option<String>, String> {
        let told = self.do_it(command)?;
        self.look()?;
        Ok(told)
    }

    fn settle(&mut self, quiet: Duration) -> Result<Duration, String> {
        let begin = Moment::now();
        loop {
            self.look()?;
            let now = Moment::now();
            let busy = self.journals.values().any(|journal| !journal.open().is_empty());
            let last = self.last_change.max(begin);
            if !busy && now.since(last) >= quiet {
                return Ok(last.since(begin));
            }
            if now.since(begin) > PATIENCE {
                return Err(format!("it does not settle in {PATIENCE:?}"));
            }
            pause(LOOK_EVERY);
        }
    }

    fn facts(&mut self) -> Vec<Fact> {
        let mut facts = std::mem::take(&mut self.facts);
        facts.sort_by_key(|(at, _)| *at);
        self.measure_sweeps(&facts);
        facts.into_iter().map(|(_, fact)| fact).collect()
    }

    fn holders(&mut self, cluster: usize, group: usize) -> Vec<Holder> {
        let resources = self.story.clusters[cluster].resources(group);
        let nodes = self.story.nodes().filter(|node| node.cluster == cluster);
        let of_node = |node: NodeRef| {
            let running = resources.iter().filter(|resource| self.runs(node, resource)).count();
            (running > 0).then_some(Holder { node, whole: running == resources.len() })
        };
        nodes.filter_map(of_node).collect()
    }

    fn client(&mut self, address: IpAddr) -> Option<String> {
        let answer = match client::ask(&self.rack, address, self.has_page(address)) {
            Ok(answer) => answer?,
            Err(fault) => return Some(format!("nobody knows: {fault}")),
        };
        let unknown = || "somebody unknown".to_owned();
        let host = self.macs.get(&answer.mac).cloned().unwrap_or_else(unknown);
        match answer.page {
            Some(page) if page != format!("hello world from {host}") => {
                Some(format!("{host} with the page: {page}"))
            }
            _ => Some(host),
        }
    }

    fn losses(&mut self) -> Option<(u64, u64)> {
        let (lost, offered) = self.count_losses().ok()?;
        let (lost, offered) = (lost - self.losses_before.0, offered - self.losses_before.1);
        let share = lost as f64 * 100.0 / (offered.max(1) as f64);
        self.measured.push(format!("{lost} of {offered} frames were lost, {share:.1} %"));
        Some((lost, offered))
    }

    fn slack(&self) -> Duration {
        SLACK
    }
}

/// The processes among these that do not live any more.
fn gone(rack: &Rack, host: &str, mut processes: Vec<u32>) -> Result<Vec<u32>, String> {
    if processes.is_empty() {
        return Ok(processes);
    }
    let looked = rack.inside(host, move || {
        processes.retain(|pid| !Path::new("/proc").join(pid.to_string()).exists());
        processes
    });
    looked.map_err(words)
}

/// An option of `locum run`, and its value.
fn limit(operation: Operation, time: Duration) -> (&'static str, String) {
    let option = match operation {
        Operation::Start => "--start-limit",
        Operation::Stop => "--stop-limit",
        Operation::Status => "--status-limit",
    };
    (option, format!("{}ms", time.as_millis()))
}

fn words(error: impl Display) -> String {
    error.to_string()
}
