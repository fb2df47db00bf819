//! The testbed of the demo: the article's two nodes and a client on a rack, with a daemon on each node.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use locum_lab::{
    Description, Process, ProcessSignal, Program, Rack, WatchSpec, clock::Moment, timeline::Span,
};

use super::article::{self, Pace};

/// The nodes; the first is the preferred one.
pub const NODES: [&str; 2] = ["clustnode1", "clustnode2"];
/// The service address of haresources.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 14);
/// The links by the rack's names.
pub const LAN: &str = "lan";
/// The cable between the `eth1` of both nodes.
pub const CROSSOVER: &str = "crossover";
/// The null-modem cable between the nodes.
pub const SERIAL: &str = "serial";

/// A shorter gap between the client's answers may be caused by this machine.
const OUTAGE_MIN: Duration = Duration::from_millis(60);
/// An outage counts as over when answers have come again for this time.
const CALM_AGAIN: Duration = Duration::from_millis(500);
/// A daemon answers a question within this time, even on a busy machine.
const ANSWER: Duration = Duration::from_secs(5);
const CLIENT: &str = "client";
const HTTP: u16 = 80;
/// The configuration directory of a node, as the node sees it.
const CONFIG: &str = "/run/disk/ha.d";
const STATE: &str = "/run/disk/state";
/// The log of the daemon, as the node sees it.
const LOG: &str = "/run/disk/locum.log";

/// The rack that the article describes.
#[must_use]
pub fn description(program: &Path) -> Description {
    let [one, two] = NODES;
    Description::new(program)
        .node(one)
        .node(two)
        .node(CLIENT)
        .segment(
            LAN,
            &[
                (one, "eth0", "172.23.2.12/24"),
                (two, "eth0", "172.23.2.13/24"),
                (CLIENT, "eth0", "172.23.2.100/24"),
            ],
        )
        .crossover(CROSSOVER, [(one, "eth1", "10.0.0.1/24"), (two, "eth1", "10.0.0.2/24")])
        .line(SERIAL, (one, "ttyS0"), (two, "ttyS0"))
}

/// The article's pair of nodes, running on a rack.
pub struct DemoTestbed {
    pub rack: Rack,
    daemons: BTreeMap<&'static str, Process>,
    frozen: BTreeMap<&'static str, bool>,
    cut: BTreeMap<&'static str, bool>,
    /// The node whose LAN cable is pulled.
    lan_pulled: Option<&'static str>,
}

impl DemoTestbed {
    /// Builds the rack, writes the files and starts the probes. No daemon runs yet.
    ///
    /// # Errors
    /// If no rack can be built here, or the kernel refuses.
    pub fn build(pace: Pace) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let mut rack = Rack::build(description(&program))?;
        for node in NODES {
            article::write(&rack.disk(node).join("ha.d"), pace).context("write the article's files")?;
        }
        rack.watch(WatchSpec {
            client: CLIENT.into(),
            network: LAN.into(),
            services: vec![SERVICE],
            page: Some(SocketAddrV4::new(SERVICE, HTTP)),
            nodes: NODES.map(str::to_owned).to_vec(),
            ..WatchSpec::default()
        })?;
        Ok(Self {
            rack,
            daemons: BTreeMap::new(),
            frozen: BTreeMap::new(),
            cut: BTreeMap::new(),
            lan_pulled: None,
        })
    }

    /// Starts the daemon of a node.
    ///
    /// # Errors
    /// If the node has no power, or the kernel refuses.
    pub fn start(&mut self, node: &'static str) -> anyhow::Result<()> {
        let run = Program::new(&["locum", "--config", CONFIG, "--state", STATE, "run"]).output(LOG);
        self.daemons.insert(node, self.rack.start(node, &run)?);
        self.frozen.insert(node, false);
        Ok(())
    }

    /// Cuts a node's power.
    ///
    /// # Errors
    /// If it has no power, or the kernel refuses.
    pub fn power_off(&mut self, node: &'static str) -> anyhow::Result<Moment> {
        let moment = self.rack.power_off(node)?;
        self.daemons.remove(node);
        self.frozen.remove(node);
        Ok(moment)
    }

    /// Gives the power back; the node boots, and its daemon starts.
    ///
    /// # Errors
    /// If it has power, or the kernel refuses.
    pub fn power_on(&mut self, node: &'static str) -> anyhow::Result<Moment> {
        let moment = Moment::now();
        self.rack.power_on(node)?;
        self.start(node)?;
        Ok(moment)
    }

    /// Freezes or thaws a node's daemon.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn freeze(&mut self, node: &'static str, frozen: bool) -> anyhow::Result<()> {
        if let Some(daemon) = self.daemons.get_mut(node) {
            daemon.signal(if frozen { ProcessSignal::Stop } else { ProcessSignal::Continue })?;
            self.frozen.insert(node, frozen);
        }
        Ok(())
    }

    /// Whether a node's daemon is frozen.
    #[must_use]
    pub fn is_frozen(&self, node: &str) -> bool {
        self.frozen.get(node).copied().unwrap_or(false)
    }

    /// Pulls or plugs a link; of the LAN, only the owner's cable is pulled.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn cut(&mut self, link: &'static str, cut: bool) -> anyhow::Result<Moment> {
        let node = if link == LAN { self.owner().unwrap_or(NODES[0]) } else { NODES[0] };
        let moment = Moment::now();
        if link == SERIAL {
            self.rack.cut_line(SERIAL, cut)?;
        } else if cut {
            self.rack.unplug(link, node)?;
        } else {
            for node in NODES {
                self.rack.plug(link, node)?;
            }
        }
        if link == LAN {
            self.lan_pulled = cut.then_some(node);
        }
        self.cut.insert(link, cut);
        Ok(moment)
    }

    /// Whether a link is pulled.
    #[must_use]
    pub fn is_cut(&self, link: &str) -> bool {
        self.cut.get(link).copied().unwrap_or(false)
    }

    /// Whether a node's LAN cable is in.
    #[must_use]
    pub fn lan_is_plugged(&self, node: &str) -> bool {
        self.lan_pulled != Some(node)
    }

    /// Runs `locum standby` on `node`, as an administrator would: it gives all groups to the other node.
    ///
    /// # Errors
    /// If the node has no power, or the kernel refuses.
    pub fn stand_by(&self, node: &str) -> anyhow::Result<Process> {
        Ok(self.rack.start(node, &Program::new(&["locum", "standby"]).output("/run/disk/standby.log"))?)
    }

    /// The line about gates in the daemon's status page; `None` when it does not answer.
    #[must_use]
    pub fn gates(&self, node: &str) -> Option<String> {
        let outcome = self.rack.run(node, &Program::new(&["locum", "status"]), ANSWER).ok()?;
        outcome
            .text
            .lines()
            .find(|line| line.starts_with("gates by ") || line.contains("no gate"))
            .map(String::from)
    }

    /// The node that holds the service address, if there is exactly one.
    #[must_use]
    pub fn owner(&self) -> Option<&'static str> {
        match self.holders()[..] {
            [owner] => Some(owner),
            _ => None,
        }
    }

    /// The nodes whose kernels have the service address.
    #[must_use]
    pub fn holders(&self) -> Vec<&'static str> {
        let holds = |record: &locum_lab::Record| {
            let holders = record.holders(SERVICE.into());
            NODES.into_iter().filter(|node| holders.contains(node)).collect()
        };
        self.rack.look(holds).unwrap_or_default()
    }

    /// Whether a page of `node` came since `moment`.
    #[must_use]
    pub fn serves(&self, node: &str, moment: Moment) -> bool {
        let pages = |record: &locum_lab::Record| {
            let mut recent = record.pages.iter().rev().take_while(|page| page.at > moment);
            recent.any(|page| page.text.ends_with(node))
        };
        self.rack.look(pages).unwrap_or_default()
    }

    /// The longest outages, by echo and by page, that overlap the time from `begin` to now.
    #[must_use]
    pub fn outages(&self, begin: Moment) -> [Option<Duration>; 2] {
        // Answers that are still on their way do not count as missing.
        let window = Span::new(begin, Moment::now() - Duration::from_millis(100));
        let length = |gap: Option<Span>| gap.map(|gap| gap.to.since(gap.from));
        let look = |record: &locum_lab::Record| {
            [length(record.outage(SERVICE, window)), length(record.page_outage(window))]
        };
        self.rack.look(look).unwrap_or_default()
    }

    /// The longest outage by echo since `from`, if it is over: the client has had echoes and pages again for
    /// `CALM_AGAIN`. With it, the longest outage by page.
    #[must_use]
    pub fn ended_outage(&self, from: Moment) -> Option<(Span, Option<Duration>)> {
        let look = |record: &locum_lab::Record| {
            let now = Moment::now();
            let window = Span::new(from, now - CALM_AGAIN);
            let gap = record.outage(SERVICE, window)?;
            let calm = now.since(gap.to) > CALM_AGAIN && gap.to.since(gap.from) > OUTAGE_MIN;
            let page = record.page_outage(window)?;
            calm.then(|| (gap, Some(page.to.since(page.from))))
        };
        self.rack.look(look)?
    }

    /// A daemon that ended by itself, and the last lines of its log.
    pub fn fallen(&mut self) -> Option<(&'static str, String)> {
        let fallen = self.daemons.iter_mut().find_map(|(node, daemon)| daemon.ended().map(|_| *node))?;
        Some((fallen, self.last_words(fallen)))
    }

    /// The last lines of a daemon's log.
    #[must_use]
    pub fn last_words(&self, node: &str) -> String {
        let log = fs::read_to_string(self.rack.disk(node).join("locum.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}
