//! A pair of nodes with a peer's daemons, and a client that watches them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use rustix::process::{Pid, kill_process};

use super::{PairSetup, Peer, sample::Sample};
use crate::{
    clock::{Moment, await_some},
    daemon::LOG_NAME,
    description::Description,
    fault::Fault,
    process::{Process, ProcessSignal},
    rack::Rack,
    timeline::Span,
    watch::{Record, WatchSpec},
};

pub(crate) const FIRST: &str = "clustnode1";
pub(crate) const SECOND: &str = "clustnode2";
pub(crate) const CLIENT: &str = "client";
/// The nodes' interface to the client's network.
pub(crate) const CLIENT_SIDE: &str = "eth0";
pub(crate) const LAN: &str = "lan";
/// The cable between the nodes.
pub(crate) const CROSSOVER: &str = "crossover";
/// A member that votes in a native cluster, and runs nothing.
pub(crate) const WITNESS: &str = "witness";
/// The network on which the nodes reach the witness, and the client does not.
pub(crate) const THIRD: &str = "third";
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 14);
const PORT: u16 = 80;

/// Longest wait for a cluster to come up: heartbeat needs some 30 seconds in the worst case.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long to wait before a planned move is ordered again: heartbeat may refuse it while it is busy, and reports that
/// only in its log.
const MOVE_PATIENCE: Duration = Duration::from_secs(20);
const MOVE_TRIES: u32 = 4;
/// An older answer does not show that the service answers now.
const FRESH: Duration = Duration::from_millis(200);
/// Longest time until a service that works answers.
const LAST_ANSWER: Duration = Duration::from_secs(2);
/// How many lines of a daemon's log are shown when it does not come up.
const LOG_LINES: usize = 8;

/// Two nodes and a client, as in the article; for a native cluster also a witness, on a network of its own.
pub(crate) fn description(setup: &PairSetup, peer: Option<Peer>) -> Description {
    let ports = [
        (FIRST, CLIENT_SIDE, "172.23.2.12/24"),
        (SECOND, CLIENT_SIDE, "172.23.2.13/24"),
        (CLIENT, "eth0", "172.23.2.100/24"),
    ];
    let description = Description::new(&setup.program)
        .node(FIRST)
        .node(SECOND)
        .node(CLIENT)
        .segment(LAN, &ports)
        .crossover(CROSSOVER, [(FIRST, "eth1", "10.0.0.1/24"), (SECOND, "eth1", "10.0.0.2/24")]);
    let description = if peer == Some(Peer::Native) {
        let ports = [
            (FIRST, "eth2", "10.9.0.1/24"),
            (SECOND, "eth2", "10.9.0.2/24"),
            (WITNESS, "eth0", "10.9.0.9/24"),
        ];
        description.node(WITNESS).segment(THIRD, &ports)
    } else {
        description
    };
    match &setup.peers_root {
        Some(root) => description.layer(root),
        None => description,
    }
}

pub(crate) fn watch_spec() -> WatchSpec {
    WatchSpec {
        client: CLIENT.into(),
        network: LAN.into(),
        services: vec![SERVICE],
        page: Some(SocketAddrV4::new(SERVICE, PORT)),
        nodes: vec![FIRST.into(), SECOND.into()],
        ask: true,
        gates: false,
    }
}

/// The measurements of a rack's watch from a moment until now.
pub(crate) fn sample(rack: &Rack, from: Moment) -> Sample {
    let window = Span::new(from, Moment::now());
    // An outage ends with an answer. If the service works, one comes after the window, too.
    let _ = await_some(LAST_ANSWER, || {
        let later = rack
            .look(|record| last_answers(record).is_some_and(|last| last.iter().all(|&at| at > window.to)));
        (later == Some(true)).then_some(())
    });
    rack.look(|record| seen(record, window)).unwrap_or_default()
}

fn seen(record: &Record, window: Span) -> Sample {
    let length = |gap: Option<Span>| gap.map(|gap| gap.to.since(gap.from));
    let (echoes, pages) = (length(record.outage(SERVICE, window)), length(record.page_outage(window)));
    let all = window.to.since(window.from);
    Sample {
        outage: echoes.unwrap_or(all),
        page_outage: pages.unwrap_or(all),
        two_answer: record.two_answer(SERVICE, window),
        two_hold: record.two_hold(SERVICE.into(), window),
        unending: echoes.is_none() || pages.is_none(),
    }
}

/// The moments of the last echo and of the last page.
fn last_answers(record: &Record) -> Option<[Moment; 2]> {
    Some([*record.echoes.get(&SERVICE)?.last()?, record.pages.last()?.at])
}

/// Whether the client got an echo and a page just now.
pub(crate) fn answers(rack: &Rack) -> bool {
    let fresh = |at: Moment| Moment::now().since(at) < FRESH;
    let look = |record: &Record| last_answers(record).is_some_and(|last| last.into_iter().all(fresh));
    rack.look(look).unwrap_or_default()
}

/// Waits until the service has answered for `calm`, during which `good` was true.
pub(crate) fn await_steadily(rack: &Rack, calm: Duration, good: impl Fn() -> bool) -> bool {
    let mut since = Moment::now();
    await_some(PATIENCE + calm, || {
        if !(good() && answers(rack)) {
            since = Moment::now();
        }
        (Moment::now().since(since) >= calm).then_some(())
    })
    .is_some()
}

pub(crate) struct PairCluster {
    peer: Peer,
    setup: PairSetup,
    /// Whether it must not be used for another run.
    pub(crate) spoiled: bool,
    /// Whether the first node has power, and its daemon was asked to leave.
    left: bool,
    /// Dropped before the rack: the process that started a daemon has to reap it.
    daemons: Vec<(&'static str, Process)>,
    requests: Vec<Process>,
    pub(crate) rack: Rack,
}

impl PairCluster {
    /// A cluster in the initial state of a scenario, made from the cluster that the scenario before has left if that is
    /// good. `without_first`: the first node has no power, and the service is on the second.
    pub(crate) fn prepared(
        used: Option<Self>,
        peer: Peer,
        setup: &PairSetup,
        without_first: bool,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self, Fault> {
        if let Some(mut used) = used.filter(|used| !used.spoiled) {
            if used.restore(without_first)? {
                return Ok(used);
            }
            tell(&format!("{} did not come back to its first state: a new rack is built", peer.name()));
        }
        let mut fresh = Self::started(peer, setup)?;
        if fresh.restore(without_first)? { Ok(fresh) } else { Err(fresh.fault("does not stay as it began")) }
    }

    /// A cluster in which both nodes run, with the service on the first.
    pub(crate) fn started(peer: Peer, setup: &PairSetup) -> Result<Self, Fault> {
        let cluster = Self::built(peer, setup, description(setup, Some(peer)), watch_spec())?;
        let calm = setup.calm;
        if cluster.await_calm(&[FIRST], calm) { Ok(cluster) } else { Err(cluster.fault("does not come up")) }
    }

    /// A cluster with all daemons started, on a rack of this description.
    pub(crate) fn built(
        peer: Peer,
        setup: &PairSetup,
        description: Description,
        spec: WatchSpec,
    ) -> Result<Self, Fault> {
        let mut rack = Rack::build(description)?;
        rack.watch(spec)?;
        let mut cluster = Self {
            peer,
            setup: setup.clone(),
            spoiled: false,
            left: false,
            daemons: Vec::new(),
            requests: Vec::new(),
            rack,
        };
        for node in peer.members() {
            peer.configure(&cluster.rack, node, setup)?;
        }
        for node in peer.members() {
            cluster.start(node)?;
        }
        Ok(cluster)
    }

    /// Starts the daemon of a node.
    pub(crate) fn start(&mut self, node: &'static str) -> Result<(), Fault> {
        self.daemons.extend(self.peer.start(&self.rack, node, &self.setup)?.map(|process| (node, process)));
        Ok(())
    }

    /// Brings it into the initial state of a scenario. False if it does not get there.
    fn restore(&mut self, without_first: bool) -> Result<bool, Fault> {
        self.requests.clear();
        if std::mem::take(&mut self.left) {
            self.daemons.retain(|&(node, _)| node != FIRST);
            self.start(FIRST)?;
            return Ok(self.await_calm(&[FIRST], self.setup.calm) && self.restore(without_first)?);
        }
        let calm = self.setup.calm;
        if without_first {
            if self.rack.is_on(FIRST) {
                self.power_off()?;
            }
            return Ok(self.await_calm(&[SECOND], calm));
        }
        if !self.rack.is_on(FIRST) {
            self.power_on()?;
        } else if !self.is_held_by(&[FIRST]) {
            self.ask_to_move(false)?;
        }
        Ok(self.await_calm(&[FIRST], calm))
    }

    /// Makes a planned move away from the first node, and measures it.
    pub(crate) fn moved(&mut self) -> Result<Sample, Fault> {
        let from = self.ask_to_move(true)?;
        self.spoiled |= !self.await_calm(&[SECOND], Duration::from_secs(1));
        Ok(self.sample(from))
    }

    /// Orders a move until the service begins to move; returns the moment of the last order.
    fn ask_to_move(&mut self, away: bool) -> Result<Moment, Fault> {
        let target = if away { SECOND } else { FIRST };
        let mut from = Moment::now();
        for _ in 0..MOVE_TRIES {
            from = Moment::now();
            self.requests.extend(self.peer.ask_to_move(&self.rack, away)?);
            if await_some(MOVE_PATIENCE, || self.is_held_by(&[target]).then_some(())).is_some() {
                break;
            }
        }
        Ok(from)
    }

    pub(crate) fn power_off(&mut self) -> Result<Moment, Fault> {
        self.lose_power(FIRST)
    }

    pub(crate) fn lose_power(&mut self, member: &str) -> Result<Moment, Fault> {
        let from = self.rack.power_off(member)?;
        self.daemons.retain(|&(node, _)| node != member);
        Ok(from)
    }

    /// Makes the first node's daemon leave gracefully, and waits until none of its processes is left.
    pub(crate) fn leave(&mut self) -> Result<Moment, Fault> {
        let from = Moment::now();
        match self.peer.ask_to_stop(&self.rack)? {
            Some(asked) => self.requests.push(asked),
            None => self.signal_daemon(ProcessSignal::Terminate)?,
        }
        self.left = true;
        let gone = || self.daemon(FIRST).is_ok_and(|daemon| daemon.is_empty()).then_some(());
        self.spoiled |= await_some(PATIENCE, gone).is_none();
        Ok(from)
    }

    pub(crate) fn power_on(&mut self) -> Result<Moment, Fault> {
        let from = Moment::now();
        self.rack.power_on(FIRST)?;
        self.start(FIRST)?;
        Ok(from)
    }

    /// Sends a signal to all processes of the first node's daemon.
    pub(crate) fn signal_daemon(&mut self, signal: ProcessSignal) -> Result<(), Fault> {
        let daemon = self.daemon(FIRST)?;
        if daemon.is_empty() {
            return Err(self.fault("has no daemon any more"));
        }
        for process in daemon.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // A process that has just ended needs no signal.
            let _ = kill_process(process, signal.signal());
        }
        Ok(())
    }

    /// The processes of a node's daemon.
    pub(crate) fn daemon(&self, node: &str) -> Result<Vec<u32>, Fault> {
        let mut processes = self.rack.processes(node)?;
        processes.retain(|&process| self.peer.is_daemon(node, process));
        Ok(processes)
    }

    /// Waits until a node holds the address.
    pub(crate) fn await_holder(&self, node: &str) {
        let holds = || self.rack.look(|record| record.holders(SERVICE.into()).contains(&node));
        let _ = await_some(PATIENCE, || (holds() == Some(true)).then_some(()));
    }

    /// Waits until exactly these nodes have held the address for `calm`, during which the service answered.
    pub(crate) fn await_calm(&self, holders: &[&str], calm: Duration) -> bool {
        await_steadily(&self.rack, calm, || self.is_held_by(holders))
    }

    /// Waits until exactly one node has held the address for `calm`, during which the service answered.
    pub(crate) fn await_one_owner(&self, calm: Duration) -> bool {
        await_steadily(&self.rack, calm, || {
            self.rack.look(|record| record.holders(SERVICE.into()).len() == 1).unwrap_or_default()
        })
    }

    fn is_held_by(&self, nodes: &[&str]) -> bool {
        self.rack.look(|record| record.holders(SERVICE.into()) == nodes).unwrap_or_default()
    }

    pub(crate) fn sample(&self, from: Moment) -> Sample {
        sample(&self.rack, from)
    }

    /// An error about the peer, with the ends of its daemons' logs.
    pub(crate) fn fault(&self, what: &str) -> Fault {
        let mut text = format!("{} {what}", self.peer.name());
        for node in self.peer.members() {
            let log = fs::read(self.rack.disk(node).join(LOG_NAME)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                text += &format!("\n{node}: {}", line.escape_debug());
            }
        }
        Fault::Description(text)
    }
}
