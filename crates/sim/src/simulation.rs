//! The simulation as a testbed: plays a story's cluster in a [`World`].

use std::{collections::BTreeSet, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use locum_core::{
    config::{self, CheckOptions, HaFiles},
    model::{
        holding::Holding,
        identity::ResourceId,
        keys::Keys,
        note::Level,
        order::{Answer, Order, OrderId},
    },
    r1::plan::R1Plan,
};

use crate::{
    story::{Command, LEVELS, NodeRef, NoteCheck, Operation, Set, Story},
    testbed::Testbed,
    transcript::{Fact, Holder},
    world::{ProcessState, Setup, World, nanos},
};

/// How long an administrator waits for an answer at most; also the longest settling.
const PATIENCE: Duration = Duration::from_secs(150);

/// The simulation, set up for one story.
pub struct Simulation<'a> {
    /// The simulated world in which the story plays.
    pub world: World,
    /// Whether `standby` and `takeover` wait for their answer.
    pub is_patient: bool,
    story: &'a Story,
    waiting: Vec<OrderId>,
    daemons: Vec<NodeRef>,
}

impl<'a> Simulation<'a> {
    /// Builds the hosts, cables and daemons of a story, with every daemon down.
    ///
    /// # Errors
    /// If the core does not accept the configuration of the story.
    pub fn new(story: &'a Story, seed: u64) -> Result<Self, String> {
        let mut world = World::new(seed, story.hosts(), story.links());
        for node in story.nodes() {
            world.add(setup(story, node)?);
        }
        Ok(Self { world, is_patient: true, story, waiting: Vec::new(), daemons: story.nodes().collect() })
    }

    /// From now on, frames are doubled, late and out of order.
    pub fn make_unruly(&mut self) {
        for segment in &mut self.world.segments {
            segment.is_unruly = true;
        }
    }

    /// Compares the logs with the notes part of the story.
    ///
    /// # Errors
    /// All lines that are missing, and all that must not be there.
    pub fn check_notes(&self) -> Result<(), String> {
        let mut faults = Vec::new();
        let mut read = vec![0; self.daemons.len()];
        for check in &self.story.notes {
            match check {
                NoteCheck::Must { node, level, text: words } => {
                    let daemon = self.daemon(*node);
                    let fits = |at: &usize| {
                        let noted = &self.world.notes[*at];
                        noted.daemon == daemon
                            && level_word(noted.note.level) == level
                            && noted.note.text.contains(words.as_str())
                    };
                    match (read[daemon]..self.world.notes.len()).find(fits) {
                        Some(at) => read[daemon] = at + 1,
                        None => faults.push(format!(
                            "{}: missing from the log (after the lines found before): {level}: {words}",
                            self.story.node_name(*node)
                        )),
                    }
                }
                NoteCheck::Never { level } => {
                    let limit = LEVELS.iter().position(|known| known == level).unwrap_or(0);
                    let loud = |l: Level| LEVELS.iter().position(|known| *known == level_word(l));
                    let found = self.world.notes.iter().filter(|n| loud(n.note.level) >= Some(limit));
                    faults.extend(found.map(|n| format!("must not be in the log: {}", self.note_line(n))));
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    /// All logs in the order of time, one line a note.
    #[must_use]
    pub fn log(&self) -> String {
        self.world.notes.iter().map(|noted| self.note_line(noted) + "\n").collect()
    }

    fn note_line(&self, noted: &crate::world::LoggedNote) -> String {
        let seconds = Duration::from_nanos(noted.at).as_secs_f64();
        let name = self.story.node_name(self.daemons[noted.daemon]);
        format!("{seconds:10.3} {name} {}: {}", level_word(noted.note.level), noted.note.text)
    }

    /// The index of a node's daemon in the simulated world.
    #[must_use]
    pub fn daemon(&self, node: NodeRef) -> usize {
        self.daemons.iter().position(|&known| known == node).expect("every node of the story has a daemon")
    }

    fn host(&self, node: NodeRef) -> usize {
        self.world.daemons[self.daemon(node)].setup.host
    }

    fn segments(&self, names: &[String]) -> Vec<usize> {
        let segments = self.world.segments.iter().enumerate();
        segments.filter(|(_, s)| names.contains(&s.link.name)).map(|(index, _)| index).collect()
    }

    fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let until = self.world.now + nanos(time);
        self.world.run_until(until);
        self.verdict()
    }

    fn verdict(&self) -> Result<(), String> {
        if self.world.checks.is_bad() { Err(self.world.checks.faults().join("\n")) } else { Ok(()) }
    }

    /// Runs until all orders are answered.
    fn hear_out(&mut self, orders: &[OrderId]) -> Result<(), String> {
        let end = self.world.now + nanos(PATIENCE);
        while !orders.iter().all(|&order| self.world.is_answered(order)) {
            if self.world.now > end {
                return Err(format!("an order has no answer after {PATIENCE:?}"));
            }
            self.run_for(Duration::from_millis(1))?;
        }
        Ok(())
    }

    fn order(&mut self, node: NodeRef, order: Order) -> Result<Option<String>, String> {
        let daemon = self.daemon(node);
        let Some(id) = self.world.order(daemon, order) else { return Ok(Some("refused".to_owned())) };
        if !self.is_patient {
            self.waiting.push(id);
            return self.verdict().map(|()| None);
        }
        self.hear_out(&[id])?;
        Ok(Some(answer_word(self.world.orders[&id].answer.as_ref()).to_owned()))
    }

    fn stop(&mut self, node: NodeRef) -> Result<Option<String>, String> {
        let daemon = self.daemon(node);
        let life = self.world.daemons[daemon].run_number;
        let told = self.order(node, Order::Leave)?;
        let end = self.world.now + nanos(PATIENCE);
        while self.is_patient && self.world.daemons[daemon].run_number == life && self.world.now < end {
            if !matches!(self.world.daemons[daemon].process, ProcessState::Up(_)) {
                break;
            }
            self.run_for(Duration::from_millis(1))?;
        }
        Ok(told.filter(|word| word != "done"))
    }

    fn conduct(&mut self, cluster: usize, conduct: &crate::story::Conduct) {
        for daemon in &mut self.world.daemons {
            if daemon.setup.node.cluster == cluster {
                daemon.setup.conducts.push(conduct.clone());
            }
        }
    }

    fn do_it(&mut self, command: &Command) -> Result<Option<String>, String> {
        match command {
            Command::Start(nodes) => {
                for &node in nodes {
                    let daemon = self.daemon(node);
                    self.world.start(daemon);
                }
            }
            Command::Stop(node) => return self.stop(*node),
            Command::PowerOff(nodes) => {
                for &node in nodes {
                    let host = self.host(node);
                    self.world.power_off(host);
                }
            }
            Command::PowerOn(nodes) => {
                for &node in nodes {
                    for daemon in self.world.on_host(self.host(node)) {
                        self.world.start(daemon);
                    }
                }
            }
            Command::Kill(node) => {
                let daemon = self.daemon(*node);
                self.world.kill(daemon);
            }
            Command::Freeze(node) | Command::Thaw(node) => {
                let daemon = self.daemon(*node);
                self.world.freeze(daemon, matches!(command, Command::Freeze(_)));
            }
            Command::Cut { links, from } => {
                let from = from.map(|node| self.host(node));
                for segment in self.segments(links) {
                    match from {
                        Some(host) => self.world.segments[segment].muted.push(host),
                        None => self.world.segments[segment].is_cut = true,
                    }
                }
            }
            Command::Heal(links) => {
                for segment in self.segments(links) {
                    self.world.segments[segment].is_cut = false;
                    self.world.segments[segment].muted.clear();
                }
            }
            Command::Lose { percent, links } => {
                for segment in &mut self.world.segments {
                    (segment.lost, segment.offered) = (0, 0);
                }
                for segment in self.segments(links) {
                    self.world.segments[segment].loss = *percent;
                }
            }
            Command::Order { give, node, set } => return self.order(*node, order(*give, *set)),
            Command::Keys { node, text } => {
                let keys = keys(text)?;
                let daemon = self.daemon(*node);
                self.world.rekey(daemon, keys);
            }
            Command::Renew { node, directives } => {
                let plan = Arc::new(plan(&self.story.with(node.cluster, directives), *node)?);
                let daemon = self.daemon(*node);
                self.waiting.extend(self.world.reload(daemon, plan));
            }
            Command::Script { cluster, conduct } => self.conduct(*cluster, conduct),
            Command::Device { works } => {
                for daemon in &mut self.world.daemons {
                    daemon.setup.device_works = *works;
                }
            }
            Command::Replay { node, time } => {
                let daemon = self.daemon(*node);
                self.world.replay(daemon, *time);
            }
            Command::Wait(time) => self.run_for(*time)?,
            Command::Settle { .. } => unreachable!("the play settles by itself"),
        }
        Ok(None)
    }
}

impl Testbed for Simulation<'_> {
    fn perform(&mut self, command: &Command) -> Result<Option<String>, String> {
        let told = self.do_it(command)?;
        self.world.look();
        self.verdict()?;
        Ok(told)
    }

    fn settle(&mut self, quiet: Duration) -> Result<Duration, String> {
        let begin = self.world.now;
        // A frozen daemon cannot answer; its orders are waited for again at the next settling.
        let frozen = |id: &OrderId| {
            let daemon = &self.world.daemons[self.world.orders[id].daemon];
            matches!(&daemon.process, ProcessState::Up(up) if up.is_frozen)
        };
        let (later, now): (Vec<_>, Vec<_>) = self.waiting.iter().copied().partition(frozen);
        self.waiting = later;
        self.hear_out(&now)?;
        loop {
            let last = self.world.last_change.max(begin);
            if self.world.jobs == 0 && self.world.now >= last + nanos(quiet) {
                self.world.check_settled();
                self.verdict()?;
                return Ok(Duration::from_nanos(last - begin));
            }
            let is_lossy = self.world.segments.iter().any(|segment| segment.loss > 0);
            if self.world.now > begin + nanos(PATIENCE) && is_lossy && !self.is_patient {
                return Ok(PATIENCE); // Random clusters may flap for ever, which is not their fault.
            }
            if self.world.now > begin + nanos(PATIENCE) {
                return Err(format!("it does not settle in {PATIENCE:?}"));
            }
            self.run_for(Duration::from_millis(5))?;
        }
    }

    fn facts(&mut self) -> Vec<Fact> {
        self.world.facts()
    }

    fn holders(&mut self, cluster: usize, group: usize) -> Vec<Holder> {
        let members = self.story.clusters[cluster].resources(group).len();
        let wanted: BTreeSet<ResourceId> = (0..members)
            .map(|member| ResourceId { group: locum_core::model::identity::GroupIndex(group), member })
            .collect();
        let of_cluster = self.world.daemons.iter().filter(|d| d.setup.node.cluster == cluster);
        of_cluster
            .filter(|d| !d.held.is_disjoint(&wanted))
            .map(|d| Holder { node: d.setup.node, whole: wanted.is_subset(&d.held) })
            .collect()
    }

    fn client(&mut self, address: IpAddr) -> Option<String> {
        self.world.client(address).map(|host| self.world.hosts[host].name.clone())
    }

    fn losses(&mut self) -> Option<(u64, u64)> {
        let segments = &self.world.segments;
        let sums = (segments.iter().map(|s| s.lost).sum(), segments.iter().map(|s| s.offered).sum());
        self.is_patient.then_some(sums)
    }

    fn slack(&self) -> Duration {
        Duration::ZERO
    }
}

/// Plays a story with a seed, its notes part included.
///
/// # Errors
/// What went wrong, with the log of all nodes.
pub fn play(path: &std::path::Path, story: &Story, seed: u64) -> Result<(), String> {
    let mut simulation = Simulation::new(story, seed)?;
    let told = crate::testbed::check(path, story, &mut simulation).and_then(|()| simulation.check_notes());
    told.map_err(|text| format!("{text}\nthe log (seed {seed}):\n{}", simulation.log()))
}

fn answer_word(answer: Option<&Answer>) -> &'static str {
    match answer {
        Some(Answer::Done(_)) => "done",
        Some(Answer::Refused(_)) => "refused",
        Some(Answer::TimedOut(_)) => "timed out",
        None => "none",
    }
}

fn order(give: bool, set: Set) -> Order {
    match (give, set) {
        (true, Set::All) => Order::Standby(Holding::All),
        (true, Set::Foreign | Set::Failback) => Order::Standby(Holding::Foreign),
        (true, Set::Local) => Order::Standby(Holding::Local),
        (false, Set::All) => Order::Takeover(Holding::All),
        (false, Set::Foreign) => Order::Takeover(Holding::Foreign),
        (false, Set::Local | Set::Failback) => Order::Takeover(Holding::Local),
    }
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
        Level::Critical => "critical",
    }
}

/// Builds the daemon of a node from the story's files, read by the core as the daemon reads them.
fn setup(story: &Story, node: NodeRef) -> Result<Setup, String> {
    let cluster = &story.clusters[node.cluster];
    let name = &cluster.nodes[node.node];
    let plan = Arc::new(plan(story, node)?);
    let hosts = story.hosts();
    let host = hosts.iter().position(|h| h == name).expect("every node is a host");
    let port = cluster.directive("udpport").and_then(|port| port.parse().ok()).unwrap_or(694);
    let segments = story.links();
    let links = cluster.links.iter().map(|link| {
        let segment = segments.iter().position(|s| s.name == link.name).expect("every link has a segment");
        (segment, SocketAddr::new(story.address(host, link), port))
    });
    Ok(Setup {
        node,
        host,
        plan,
        keys: keys(&cluster.keys)?,
        links: links.collect(),
        conducts: cluster.conducts.clone(),
        device_works: cluster.device_works,
        name: name.clone(),
    })
}

fn plan(story: &Story, node: NodeRef) -> Result<R1Plan, String> {
    let cluster = &story.clusters[node.cluster];
    let mut options = CheckOptions::default();
    for (operation, limit) in &cluster.limits {
        match operation {
            Operation::Start => options.limits.start = *limit,
            Operation::Stop => options.limits.stop = *limit,
            Operation::Status => options.limits.status = *limit,
        }
    }
    let ha_cf = story.ha_cf(node.cluster, |name| format!("/dev/{name}"));
    let haresources = cluster.haresources();
    let files = HaFiles {
        ha_cf: Some(ha_cf.as_bytes()),
        authkeys: Some(cluster.keys.as_bytes()),
        haresources: Some(haresources.as_bytes()),
    };
    let (plan, diags) = config::plan(&files, &cluster.nodes[node.node], &options);
    plan.ok_or_else(|| format!("{}.story: the cluster is not accepted: {diags:#?}", story.name))
}

fn keys(text: &str) -> Result<Keys, String> {
    let (keys, diags) = config::keys(text.as_bytes());
    keys.ok_or_else(|| format!("these keys are not accepted: {diags:#?}"))
}
