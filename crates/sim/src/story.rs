//! The story language: a text file with a cluster, the commands that are played, and the facts that must be seen from
//! outside. The same file is played in the simulator and on a rack of real daemons (see [`crate::testbed::Testbed`]).
//!
//! ```text
//! # The reason for this story: at least one comment line.
//! cluster
//!     nodes clustnode1 clustnode2
//!     keepalive 100ms
//!     deadtime 1
//!     initdead 2
//!     auto_failback on
//!     keys auth 1; 1 crc
//!     link eth1 crossover
//!     link ttyS0 serial
//!     group clustnode1 172.23.2.14 httpd
//!     script httpd start 200ms
//!
//! start clustnode1 clustnode2
//! settle
//! power-off clustnode1
//! settle within 2s
//! ----
//! > start clustnode1 clustnode2
//! clustnode1: + 172.23.2.14
//! clustnode1: start httpd
//! owner: 172.23.2.14 clustnode1
//! client: 172.23.2.14 clustnode1
//! ...
//! ---- notes
//! clustnode2 warning: silent
//! never critical
//! ```
//!
//! **The cluster block** is indented. `nodes`, `keys`, `link`, `group`, `script` and `limit` are words of this
//! language. Every other line is a directive of `ha.cf`, copied as it stands.
//!
//! * `keys LINE; LINE…`: the lines of `authkeys`.
//! * `link NAME crossover|lan|serial [bcast|mcast|ucast]`: crossover and lan are interfaces, serial a null modem.
//!   Every node also has the interface `eth0` on the LAN of the client, whether or not frames run over it.
//! * `group NODE RESOURCE…`: a line of `haresources`.
//! * `script NAME [on NODE] start|stop TIME|works|fails|hangs`: how a resource script behaves. Also a command.
//! * `device works|fails`: how the device of `stonith_host` behaves that resets a silent node: it takes the power of
//!   the node's host, or does not. Also a command. Only the simulator has such devices.
//! * `limit start|stop|status TIME`: how long an operation may take.
//! * A second block `cluster NAME` is another cluster on the same segments. Its nodes are written `NAME/NODE`; a
//!   node of the same name is a second daemon on the same host.
//!
//! **The commands**, one a line: `start NODE…`, `stop NODE` (graceful, waits for the end), `power-off NODE…`,
//! `power-on NODE…`, `kill NODE` (the daemon alone; kernel and services stay), `freeze NODE`, `thaw NODE`,
//! `cut LINK… [from NODE]`, `heal LINK…`, `lose PERCENT% LINK…|all`, `standby|takeover NODE all|foreign|local|failback`
//! (waits for the answer), `keys NODE LINE; LINE…` (writes a new `authkeys`, then sends HUP), `renew NODE LINE; LINE…`
//! (changes these directives of `ha.cf`, then sends HUP), `replay NODE TIME` (for that time, all nodes on its links
//! hear over and over the frames that NODE sent in the run before its present or last one), `device works|fails`,
//! `wait TIME`, `settle [within TIME]` (until nothing changes any more).
//!
//! **The expected part** holds only facts seen from outside; [`crate::transcript`] says how it is written.
//! `LOCUM_REWRITE=1` writes it anew.
//!
//! **The notes part** is for the simulator alone. It names lines that must come in the log, in this order for each
//! node: `NODE LEVEL: words that the line contains`. `never LEVEL` forbids lines of that level or above.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Most bytes that a story file may have.
const STORY_BYTES_MAX: usize = 64 * 1024;

/// The directives of `ha.cf` that a cluster block may hold: with a fixed list, a misspelt directive is an error.
const DIRECTIVES: &[&str] = &[
    "keepalive",
    "deadtime",
    "warntime",
    "initdead",
    "deadping",
    "auto_failback",
    "udpport",
    "baud",
    "msgfmt",
    "max_rexmit_delay",
    "hopfudge",
    "ping",
    "respawn",
    "stonith_host",
];

/// A story, parsed and checked: every node, link and script that a command names exists.
#[derive(Clone, Debug)]
pub struct Story {
    /// The file's name without its ending.
    pub name: String,
    /// The first comment lines: the reason for the story.
    pub why: String,
    /// At least one cluster, in the order of the file.
    pub clusters: Vec<Cluster>,
    pub steps: Vec<StoryStep>,
    /// The facts that must be seen; see [`crate::transcript`].
    pub expected: String,
    /// Lines that the log must hold, and levels that it must not.
    pub notes: Vec<NoteCheck>,
    /// Everything above the line of dashes, for rewriting.
    head: String,
    /// The notes part, for rewriting.
    tail: String,
}

/// One cluster: what its three files say and how its scripts behave.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Empty for the first cluster.
    pub name: String,
    /// One or two nodes. Each name is also that of the host on which the daemon runs.
    pub nodes: Vec<String>,
    /// Lines of `ha.cf`, apart from nodes and media.
    pub directives: Vec<(String, String)>,
    /// In the order of `ha.cf`.
    pub links: Vec<Link>,
    /// Lines of `haresources`: the preferred node, then the resources.
    pub groups: Vec<Vec<String>>,
    /// The text of `authkeys`.
    pub keys: String,
    /// How scripts behave, in the order of the lines; the last line for a script counts.
    pub conducts: Vec<Conduct>,
    /// Whether the device that resets nodes works.
    pub device_works: bool,
    /// Limits of the agents' operations, where they differ from the daemon's defaults.
    pub limits: Vec<(Operation, Duration)>,
    pub deadtime: Duration,
    pub initdead: Duration,
}

/// One link between the nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface, or device below `/dev`.
    pub name: String,
    /// The kind of its cable.
    pub cable: Cable,
    /// How frames are addressed (not for serial lines).
    pub cast: Cast,
}

/// The kind of cable of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// A cable between the nodes alone.
    Crossover,
    /// The segment on which the client is.
    Lan,
    Serial,
}

/// How the frames of a UDP link are addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    Broadcast,
    Multicast,
    /// `ucast`, one line for each node (its own included, as the same file serves both)
    Unicast,
}

/// An operation of a script or limit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Start,
    Stop,
    Status,
}

/// How a script behaves from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conduct {
    /// The script's name: the first `::` word of the resource.
    pub script: String,
    /// Only on this node; `None` for all nodes.
    pub node: Option<String>,
    pub operation: Operation,
    pub manner: Manner,
}

/// How one operation of a script goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It works, and takes this long.
    Takes(Duration),
    /// It works and takes [`Manner::USUAL`].
    Works,
    /// It fails at once.
    Fails,
    /// It never ends by itself.
    Hangs,
}

impl Manner {
    /// How long an operation of a script takes by default.
    pub const USUAL: Duration = Duration::from_millis(20);
}

/// A node of one of the clusters; it has one daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRef {
    /// Index of the cluster in [`Story::clusters`].
    pub cluster: usize,
    /// Index of the node in [`Cluster::nodes`].
    pub node: usize,
}

/// A command and its place in the story file.
#[derive(Clone, Debug)]
pub struct StoryStep {
    /// Line of the file, from 1; 0 in stories that are generated.
    pub line: usize,
    /// The command as written.
    pub text: String,
    pub command: Command,
}

impl StoryStep {
    /// The step of a generated story, without a line number.
    #[must_use]
    pub fn made(text: String, command: Command) -> Self {
        Self { line: 0, text, command }
    }
}

/// The action of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Starts these daemons, and powers on their hosts first if necessary.
    Start(Vec<NodeRef>),
    /// Sends TERM and waits until the daemon has ended.
    Stop(NodeRef),
    /// Everything on these nodes' hosts is gone at once, except their disks.
    PowerOff(Vec<NodeRef>),
    /// The hosts come back and start all their daemons.
    PowerOn(Vec<NodeRef>),
    /// Kills the daemon alone; the kernel and the services stay.
    Kill(NodeRef),
    /// The daemon is not scheduled any more.
    Freeze(NodeRef),
    /// A frozen daemon is scheduled again.
    Thaw(NodeRef),
    /// These links carry nothing any more.
    Cut {
        links: Vec<String>,
        /// If set, only the frames of this node are lost.
        from: Option<NodeRef>,
    },
    /// These links carry frames again.
    Heal(Vec<String>),
    /// These links lose a share of their frames.
    Lose {
        /// Percentage of frames that are lost, 0 to 100.
        percent: u8,
        links: Vec<String>,
    },
    /// An administrator orders something of a node and waits for the answer.
    Order {
        /// `true` for `standby` (the node gives), `false` for `takeover` (the node asks).
        give: bool,
        node: NodeRef,
        set: Set,
    },
    /// Writes a new `authkeys`, then sends HUP.
    Keys { node: NodeRef, text: String },
    /// Changes directives of `ha.cf`, then sends HUP.
    Renew { node: NodeRef, directives: Vec<(String, String)> },
    /// A script behaves differently from now on.
    Script {
        /// Index of the cluster in [`Story::clusters`].
        cluster: usize,
        conduct: Conduct,
    },
    /// The fencing device works from now on, or does not.
    Device { works: bool },
    /// Frames that a node sent in an earlier run are heard again.
    Replay {
        /// The node whose frames are repeated.
        node: NodeRef,
        /// How long they are repeated.
        time: Duration,
    },
    /// Lets this much time pass.
    Wait(Duration),
    /// Waits until nothing changes any more.
    Settle {
        /// The last change must not come later than this.
        within: Option<Duration>,
    },
}

/// The set of an order, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    All,
    Foreign,
    Local,
    /// `failback`: the groups that do not prefer the node that has them.
    Failback,
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Foreign => "foreign",
            Self::Local => "local",
            Self::Failback => "failback",
        })
    }
}

/// One line of the notes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoteCheck {
    /// A line like this must come.
    Must {
        node: NodeRef,
        /// The exact level that the line must have.
        level: String,
        /// Text that the line must contain.
        text: String,
    },
    /// A line of this level or above must not come.
    Never {
        /// One of [`LEVELS`], as the story writes it.
        level: String,
    },
}

/// The levels of notes as stories write them, from quiet to loud.
pub const LEVELS: [&str; 5] = ["debug", "info", "warning", "error", "critical"];

/// An error in a story file, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryError {
    pub file: PathBuf,
    /// The line, from 1; 0 for the whole file.
    pub line: usize,
    /// The error, and how to correct it.
    pub text: String,
}

impl fmt::Display for StoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

impl std::error::Error for StoryError {}

impl Story {
    /// Reads a story file.
    ///
    /// # Errors
    /// If the file cannot be read or is not a story; the error names file and line.
    pub fn read(path: &Path) -> Result<Self, StoryError> {
        let text = std::fs::read_to_string(path).map_err(|error| StoryError {
            file: path.to_owned(),
            line: 0,
            text: error.to_string(),
        })?;
        Self::parse(path, &text)
    }

    /// Reads all stories of a directory, sorted by name.
    ///
    /// # Errors
    /// If the directory cannot be listed, or one of its `.story` files is not a story.
    pub fn read_all(directory: &Path) -> Result<Vec<Self>, StoryError> {
        let fault = |error: std::io::Error| StoryError {
            file: directory.to_owned(),
            line: 0,
            text: error.to_string(),
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            if path.extension().is_some_and(|ending| ending == "story") {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Parses the text of a story file; `path` appears only in errors.
    ///
    /// # Errors
    /// If the text is not a story; the error names file and line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, StoryError> {
        Parser { file: path, text }.story()
    }

    /// A generated story, with an empty expected part.
    #[must_use]
    pub fn made(name: String, clusters: Vec<Cluster>, steps: Vec<StoryStep>) -> Self {
        let (why, expected, head, tail) = Default::default();
        Self { name, why, clusters, steps, expected, notes: Vec::new(), head, tail }
    }

    /// Whether only the simulator can play it: no rack has a device that takes the power of a host.
    #[must_use]
    pub fn is_for_simulator(&self) -> bool {
        self.clusters.iter().any(|c| c.directive("stonith_host").is_some())
    }

    /// The file's text with another expected part.
    #[must_use]
    pub fn rewritten(&self, expected: &str) -> String {
        format!("{}----\n{expected}{}", self.head, self.tail)
    }

    /// The name of a node as stories write it: `NODE`, or `CLUSTER/NODE` in a second cluster.
    #[must_use]
    pub fn node_name(&self, node: NodeRef) -> String {
        let cluster = &self.clusters[node.cluster];
        let name = &cluster.nodes[node.node];
        if cluster.name.is_empty() { name.clone() } else { format!("{}/{name}", cluster.name) }
    }

    /// All nodes, in the order of the file.
    pub fn nodes(&self) -> impl Iterator<Item = NodeRef> + '_ {
        self.clusters
            .iter()
            .enumerate()
            .flat_map(|(cluster, c)| (0..c.nodes.len()).map(move |node| NodeRef { cluster, node }))
    }

    /// The hosts: every node name once, in the order of the file.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        once_each(self.clusters.iter().flat_map(|c| c.nodes.iter().cloned()))
    }

    /// The links of all clusters: every name once, in the order of the file.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        let mut links: Vec<Link> = Vec::new();
        for link in self.clusters.iter().flat_map(|c| &c.links) {
            if !links.iter().any(|known| known.name == link.name) {
                links.push(link.clone());
            }
        }
        links
    }

    /// How long nothing may change before the cluster counts as settled. After a start it includes `initdead`, the time
    /// for which a node waits for its peer.
    #[must_use]
    pub fn quiet(&self, after_start: bool) -> Duration {
        let deadtime = self.clusters.iter().map(|c| c.deadtime).max().unwrap_or_default();
        let initdead = self.clusters.iter().map(|c| c.initdead).max().unwrap_or_default();
        let wait = Duration::from_secs(2) + deadtime;
        if after_start { wait + initdead } else { wait }
    }

    /// The address that a host has on the segment of a link, always in a /24 network: `172.23.2.N` on the LAN,
    /// `10.77.L.N` on the crossover that is the L-th link; N counts the hosts from 1.
    #[must_use]
    pub fn address(&self, host: usize, link: &Link) -> IpAddr {
        let last = u8::try_from(host + 1).unwrap_or(u8::MAX);
        if link.cable == Cable::Lan {
            return IpAddr::from([172, 23, 2, last]);
        }
        let links = self.links();
        let third = links.iter().position(|l| l.name == link.name).unwrap_or(0) + 1;
        IpAddr::from([10, 77, u8::try_from(third).unwrap_or(u8::MAX), last])
    }

    /// The same story with other directives in one cluster.
    #[must_use]
    pub fn with(&self, cluster: usize, directives: &[(String, String)]) -> Self {
        let mut changed = self.clone();
        let known = &mut changed.clusters[cluster].directives;
        known.retain(|(name, _)| directives.iter().all(|(other, _)| other != name));
        known.extend_from_slice(directives);
        changed
    }

    /// The text of `ha.cf`, the same for all nodes of a cluster. `device` makes a serial line's device from its name.
    #[must_use]
    pub fn ha_cf(&self, cluster: usize, device: impl Fn(&str) -> String) -> String {
        let c = &self.clusters[cluster];
        let port = c.directive("udpport").unwrap_or("694");
        let hosts = self.hosts();
        let mut lines: Vec<String> = c.directives.iter().map(|(k, v)| format!("{k} {v}")).collect();
        for link in &c.links {
            let name = &link.name;
            match (link.cable, link.cast) {
                (Cable::Serial, _) => lines.push(format!("serial {}", device(name))),
                (_, Cast::Broadcast) => lines.push(format!("bcast {name}")),
                (_, Cast::Multicast) => lines.push(format!("mcast {name} 239.0.0.42 {port} 1 0")),
                (_, Cast::Unicast) => {
                    let of = |node: &String| hosts.iter().position(|h| h == node).unwrap_or(0);
                    lines.extend(
                        c.nodes.iter().map(|n| format!("ucast {name} {}", self.address(of(n), link))),
                    );
                }
            }
        }
        lines.push(format!("node {}", c.nodes.join(" ")));
        lines.join("\n") + "\n"
    }
}

impl Cluster {
    /// The value of a directive; its last line counts.
    #[must_use]
    pub fn directive(&self, name: &str) -> Option<&str> {
        self.directives.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The text of `haresources`.
    #[must_use]
    pub fn haresources(&self) -> String {
        self.groups.iter().map(|words| words.join(" ") + "\n").collect()
    }

    /// The key of a group: its first resource as written.
    #[must_use]
    pub fn group_key(&self, group: usize) -> &str {
        &self.groups[group][1]
    }

    /// The resources of a group as written.
    #[must_use]
    pub fn resources(&self, group: usize) -> &[String] {
        &self.groups[group][1..]
    }

    /// How an operation of a script goes on a node, as the cluster block says.
    #[must_use]
    pub fn manner(&self, script: &str, node: &str, operation: Operation) -> Manner {
        let fits = |c: &&Conduct| {
            c.script == script && c.operation == operation && c.node.as_deref().is_none_or(|n| n == node)
        };
        self.conducts.iter().rev().find(fits).map_or(Manner::Works, |c| c.manner)
    }
}

/// The address of a resource that is a bare address, `IPaddr`, `IPaddr2` or `IPv6addr`; `None` for all others.
#[must_use]
pub fn address_of(resource: &str) -> Option<IpAddr> {
    let words: Vec<&str> = resource.split("::").collect();
    let argument = match words.as_slice() {
        ["IPaddr" | "IPaddr2", argument, ..] => argument,
        ["IPv6addr", ..] => resource.strip_prefix("IPv6addr::")?,
        _ => resource,
    };
    argument.split('/').next()?.parse().ok()
}

/// The name of a resource's script.
#[must_use]
pub fn script_of(resource: &str) -> &str {
    resource.split("::").next().unwrap_or(resource)
}

/// Parses a time: `500ms`, `2s`, `1m`, or seconds without a unit; decimals are allowed.
///
/// # Errors
/// If the word is not a time between 0 and a day.
pub fn parse_time(word: &str) -> Result<Duration, String> {
    let at = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
    let (number, unit) = word.split_at(at);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("`{word}` is not a time; write 500ms, 2s or 1m")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{word}` is not a time; write 500ms, 2s or 1m"))?;
    let seconds = number * scale;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err(format!("`{word}` is not between 0 and a day"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn once_each(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

struct Parser<'a> {
    file: &'a Path,
    text: &'a str,
}

/// A line with its number, without its comment and trailing blanks.
struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl Line<'_> {
    fn is_indented(&self) -> bool {
        self.text.starts_with([' ', '\t'])
    }
}

impl<'a> Parser<'a> {
    fn fault(&self, line: usize, text: impl Into<String>) -> StoryError {
        StoryError { file: self.file.to_owned(), line, text: text.into() }
    }

    fn story(&self) -> Result<Story, StoryError> {
        if self.text.len() > STORY_BYTES_MAX {
            return Err(self.fault(0, format!("a story has at most {STORY_BYTES_MAX} bytes")));
        }
        let (head, expected, tail) = self.parts();
        let why: Vec<&str> = head
            .lines()
            .take_while(|line| line.starts_with('#'))
            .map(|line| line.trim_start_matches(['#', ' ']))
            .collect();
        if why.is_empty() {
            return Err(self.fault(1, "a story begins with comment lines (`# …`) that say why it is told"));
        }
        let lines: Vec<Line<'a>> = head
            .lines()
            .enumerate()
            .map(|(at, text)| Line { number: at + 1, text: without_comment(text) })
            .filter(|line| !line.text.is_empty())
            .collect();
        let (clusters, at) = self.clusters(&lines)?;
        let name = self.file.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let mut story = Story {
            name,
            why: why.join(" "),
            clusters,
            steps: Vec::new(),
            expected: expected.to_owned(),
            notes: Vec::new(),
            head: head.to_owned(),
            tail: tail.to_owned(),
        };
        for line in &lines[at..] {
            if line.is_indented() {
                return Err(self.fault(line.number, "indented lines belong into a cluster block, above"));
            }
            let step = self.step(&story, line)?;
            story.steps.push(step);
        }
        let tail_at = head.lines().count() + expected.lines().count() + 2;
        for (at, text) in tail.lines().enumerate().skip(1) {
            let text = without_comment(text).trim();
            if !text.is_empty() {
                let check = self.note_check(&story, tail_at + at, text)?;
                story.notes.push(check);
            }
        }
        Ok(story)
    }

    /// The parts above the dashes, between the dashes and the notes, and from the notes on.
    fn parts(&self) -> (&'a str, &'a str, &'a str) {
        let (head, rest) = split_at_line(self.text, "----");
        let after = rest.find('\n').map_or("", |end| &rest[end + 1..]);
        let (expected, tail) = split_at_line(after, "---- notes");
        (head, expected, tail)
    }

    fn clusters(&self, lines: &[Line<'a>]) -> Result<(Vec<Cluster>, usize), StoryError> {
        let mut clusters: Vec<Cluster> = Vec::new();
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            let words: Vec<&str> = line.text.split_whitespace().collect();
            let name = match words.as_slice() {
                ["cluster"] => "",
                ["cluster", name] => name,
                _ => break,
            };
            if clusters.iter().any(|known| known.name == name) {
                return Err(self.fault(line.number, format!("a second cluster named `{name}`")));
            }
            let end =
                lines[at + 1..].iter().position(|l| !l.is_indented()).map_or(lines.len(), |n| at + 1 + n);
            clusters.push(self.cluster(line.number, name, &lines[at + 1..end])?);
            at = end;
        }
        if clusters.is_empty() {
            let line = lines.first().map_or(1, |l| l.number);
            return Err(self.fault(line, "a story begins with a `cluster` block"));
        }
        Ok((clusters, at))
    }

    fn cluster(&self, number: usize, name: &str, lines: &[Line<'a>]) -> Result<Cluster, StoryError> {
        let mut c = Cluster {
            name: name.to_owned(),
            nodes: Vec::new(),
            directives: Vec::new(),
            links: Vec::new(),
            groups: Vec::new(),
            keys: String::new(),
            conducts: Vec::new(),
            device_works: true,
            limits: Vec::new(),
            deadtime: Duration::ZERO,
            initdead: Duration::ZERO,
        };
        for line in lines {
            self.cluster_line(&mut c, line)?;
        }
        for needed in ["keepalive", "deadtime", "initdead"] {
            if c.directive(needed).is_none() {
                return Err(self.fault(number, format!("this cluster needs a line `{needed} TIME`")));
            }
        }
        let time =
            |name| parse_time(c.directive(name).unwrap_or("0")).map_err(|text| self.fault(number, text));
        (c.deadtime, c.initdead) = (time("deadtime")?, time("initdead")?);
        for (missing, word) in
            [(c.nodes.is_empty(), "nodes"), (c.links.is_empty(), "link"), (c.keys.is_empty(), "keys")]
        {
            if missing {
                return Err(self.fault(number, format!("this cluster needs a line `{word} …`")));
            }
        }
        Ok(c)
    }

    fn cluster_line(&self, c: &mut Cluster, line: &Line<'a>) -> Result<(), StoryError> {
        let fault = |text: String| self.fault(line.number, text);
        let words: Vec<&str> = line.text.split_whitespace().collect();
        let rest = || line.text.trim().split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim());
        match words.as_slice() {
            ["nodes", names @ ..] if (1..=2).contains(&names.len()) => {
                c.nodes = names.iter().map(|n| (*n).to_owned()).collect();
            }
            ["keys", _, ..] => c.keys = keys_text(rest()),
            ["link", name, cable, cast @ ..] => c.links.push(link(name, cable, cast).map_err(fault)?),
            ["group", node, _, ..] => {
                if !c.nodes.iter().any(|known| known == node) {
                    return Err(fault(format!("`{node}` is not in the line `nodes` above")));
                }
                c.groups.push(words[1..].iter().map(|w| (*w).to_owned()).collect());
            }
            ["script", said @ ..] => {
                let conduct = conduct(said, c).map_err(fault)?;
                c.conducts.push(conduct);
            }
            ["device", manner] => c.device_works = device(manner).map_err(fault)?,
            ["limit", operation, time] => {
                let operation = match *operation {
                    "start" => Operation::Start,
                    "stop" => Operation::Stop,
                    "status" => Operation::Status,
                    other => {
                        return Err(fault(format!("`{other}` has no limit; start, stop and status have")));
                    }
                };
                c.limits.push((operation, parse_time(time).map_err(fault)?));
            }
            [name, _, ..] if DIRECTIVES.contains(name) => {
                c.directives.push(((*name).to_owned(), rest().to_owned()));
            }
            [name, ..] => {
                return Err(fault(format!(
                    "`{name}` does not belong into a cluster block like this; known are: nodes NODE [NODE], keys, \
                     link, group, script, device, limit, {}",
                    DIRECTIVES.join(", ")
                )));
            }
            [] => {}
        }
        Ok(())
    }

    fn step(&self, story: &Story, line: &Line<'a>) -> Result<StoryStep, StoryError> {
        let text = line.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let command = command(story, &text).map_err(|text| self.fault(line.number, text))?;
        Ok(StoryStep { line: line.number, text, command })
    }

    fn note_check(&self, story: &Story, number: usize, text: &str) -> Result<NoteCheck, StoryError> {
        let fault = |text: String| self.fault(number, text);
        let level = |word: &str| match LEVELS.contains(&word) {
            true => Ok(word.to_owned()),
            false => Err(fault(format!("`{word}` is not a level; levels are {}", LEVELS.join(", ")))),
        };
        if let Some(word) = text.strip_prefix("never ") {
            return Ok(NoteCheck::Never { level: level(word.trim())? });
        }
        let form = || fault("a line here is `NODE LEVEL: words` or `never LEVEL`".to_owned());
        let (front, words) = text.split_once(": ").ok_or_else(form)?;
        let (name, word) = front.split_once(' ').ok_or_else(form)?;
        let node = node_ref(story, name).map_err(fault)?;
        Ok(NoteCheck::Must { node, level: level(word.trim())?, text: words.trim().to_owned() })
    }
}

/// Splits before the first line that is exactly `mark`.
fn split_at_line<'a>(text: &'a str, mark: &str) -> (&'a str, &'a str) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == mark {
            return text.split_at(at);
        }
        at += line.len();
    }
    (text, "")
}

/// Removes a comment, which begins with `#` at the line's start or after a blank.
fn without_comment(line: &str) -> &str {
    if line.starts_with('#') {
        return "";
    }
    line.split_once(" #").map_or(line, |(front, _)| front).trim_end()
}

fn keys_text(lines: &str) -> String {
    lines.split(';').map(|line| line.trim().to_owned() + "\n").collect()
}

fn link(name: &str, cable: &str, cast: &[&str]) -> Result<Link, String> {
    let cable = match cable {
        "crossover" => Cable::Crossover,
        "lan" => Cable::Lan,
        "serial" => Cable::Serial,
        other => return Err(format!("`{other}` is not a kind of cable; write crossover, lan or serial")),
    };
    let cast = match cast {
        [] | ["bcast"] => Cast::Broadcast,
        ["mcast"] => Cast::Multicast,
        ["ucast"] => Cast::Unicast,
        other => return Err(format!("`{}` is not bcast, mcast or ucast", other.join(" "))),
    };
    Ok(Link { name: name.to_owned(), cable, cast })
}

fn conduct(words: &[&str], c: &Cluster) -> Result<Conduct, String> {
    let (script, node, operation, manner) = match words {
        [script, "on", node, operation, manner] => (script, Some(*node), operation, manner),
        [script, operation, manner] => (script, None, operation, manner),
        _ => return Err("write `script NAME [on NODE] start|stop TIME|works|fails|hangs`".to_owned()),
    };
    if !c.groups.iter().any(|words| words[1..].iter().any(|word| script_of(word) == *script)) {
        return Err(format!("no group above has a resource of the script `{script}`"));
    }
    if let Some(node) = node
        && !c.nodes.iter().any(|known| known == node)
    {
        return Err(format!("`{node}` is not a node of this cluster; its nodes are {}", c.nodes.join(", ")));
    }
    let operation = match *operation {
        "start" => Operation::Start,
        "stop" => Operation::Stop,
        other => return Err(format!("a script line sets `start` or `stop`, not `{other}`")),
    };
    let manner = match *manner {
        "works" => Manner::Works,
        "fails" => Manner::Fails,
        "hangs" => Manner::Hangs,
        time => Manner::Takes(parse_time(time)?),
    };
    Ok(Conduct { script: (*script).to_owned(), node: node.map(str::to_owned), operation, manner })
}

fn device(manner: &str) -> Result<bool, String> {
    match manner {
        "works" => Ok(true),
        "fails" => Ok(false),
        other => Err(format!("a device `works` or `fails`; it does not `{other}`")),
    }
}

fn node_ref(story: &Story, name: &str) -> Result<NodeRef, String> {
    story.nodes().find(|&node| story.node_name(node) == name).ok_or_else(|| {
        let known: Vec<String> = story.nodes().map(|node| story.node_name(node)).collect();
        format!("`{name}` is not a node of this story; nodes are {}", known.join(", "))
    })
}

fn node_refs(story: &Story, names: &[&str]) -> Result<Vec<NodeRef>, String> {
    if names.is_empty() {
        return Err("which node?".to_owned());
    }
    names.iter().map(|name| node_ref(story, name)).collect()
}

fn link_names(story: &Story, names: &[&str]) -> Result<Vec<String>, String> {
    let known: Vec<String> = story.links().into_iter().map(|link| link.name).collect();
    if names == ["all"] {
        return Ok(known);
    }
    if names.is_empty() {
        return Err(format!("no link is given; links are {} and all", known.join(", ")));
    }
    for name in names {
        if !known.iter().any(|k| k == name) {
            return Err(format!(
                "`{name}` is not a link of this story; links are {} and all",
                known.join(", ")
            ));
        }
    }
    Ok(names.iter().map(|name| (*name).to_owned()).collect())
}

fn command(story: &Story, text: &str) -> Result<Command, String> {
    let words: Vec<&str> = text.split(' ').collect();
    Ok(match words.as_slice() {
        ["start", names @ ..] => Command::Start(node_refs(story, names)?),
        ["stop", name] => Command::Stop(node_ref(story, name)?),
        ["power-off", names @ ..] => Command::PowerOff(node_refs(story, names)?),
        ["power-on", names @ ..] => Command::PowerOn(node_refs(story, names)?),
        ["kill", name] => Command::Kill(node_ref(story, name)?),
        ["freeze", name] => Command::Freeze(node_ref(story, name)?),
        ["thaw", name] => Command::Thaw(node_ref(story, name)?),
        ["cut", names @ .., "from", node] => {
            Command::Cut { links: link_names(story, names)?, from: Some(node_ref(story, node)?) }
        }
        ["cut", names @ ..] => Command::Cut { links: link_names(story, names)?, from: None },
        ["heal", names @ ..] => Command::Heal(link_names(story, names)?),
        ["lose", percent, names @ ..] => {
            let number = percent.strip_suffix('%').and_then(|n| n.parse().ok()).filter(|n| *n <= 100);
            let percent = number.ok_or_else(|| format!("`{percent}` is not a share such as 20%"))?;
            Command::Lose { percent, links: link_names(story, names)? }
        }
        [verb @ ("standby" | "takeover"), name, set] => {
            let set = match *set {
                "all" => Set::All,
                "foreign" => Set::Foreign,
                "local" => Set::Local,
                "failback" => Set::Failback,
                other => {
                    return Err(format!("`{other}` is not a set; write all, foreign, local or failback"));
                }
            };
            Command::Order { give: *verb == "standby", node: node_ref(story, name)?, set }
        }
        ["keys", name, _, ..] => {
            let lines = text.splitn(3, ' ').nth(2).unwrap_or_default();
            Command::Keys { node: node_ref(story, name)?, text: keys_text(lines) }
        }
        ["renew", name, _, ..] => {
            let lines = text.splitn(3, ' ').nth(2).unwrap_or_default();
            Command::Renew { node: node_ref(story, name)?, directives: directives(lines)? }
        }
        ["script", said @ ..] => Command::Script { cluster: 0, conduct: conduct(said, &story.clusters[0])? },
        ["device", manner] => Command::Device { works: device(manner)? },
        ["replay", name, time] => Command::Replay { node: node_ref(story, name)?, time: parse_time(time)? },
        ["wait", time] => Command::Wait(parse_time(time)?),
        ["settle"] => Command::Settle { within: None },
        ["settle", "within", time] => Command::Settle { within: Some(parse_time(time)?) },
        _ => {
            return Err(format!(
                "`{text}` is not a command; known are: start, stop, power-off, power-on, kill, freeze, thaw, cut, \
                 heal, lose, standby, takeover, keys, renew, script, device, replay, wait, settle"
            ));
        }
    })
}

/// Directives of `ha.cf`, separated by semicolons.
fn directives(text: &str) -> Result<Vec<(String, String)>, String> {
    let directive = |line: &str| match line.trim().split_once(' ') {
        Some((name, value)) if DIRECTIVES.contains(&name) => Ok((name.to_owned(), value.trim().to_owned())),
        _ => Err(format!(
            "`{line}` is not a directive with a value; known directives are: {}",
            DIRECTIVES.join(", ")
        )),
    };
    text.split(';').map(directive).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "# why\ncluster\n nodes a b\n keepalive 1\n deadtime 10\n initdead 20\n keys auth 1; 1 crc\n \
                         link eth1 crossover\n link ttyS0 serial\n group a 10.0.0.1/24 httpd\n script httpd stop fails\n";

    fn parse(rest: &str) -> Result<Story, String> {
        Story::parse(Path::new("x.story"), &format!("{BLOCK}{rest}")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_block_becomes_the_three_files() {
        let story = parse("start a b\nsettle within 2s\n----\n> start a b\n").expect("a story");
        assert_eq!(
            story.ha_cf(0, |name| format!("/dev/{name}")),
            "keepalive 1\ndeadtime 10\ninitdead 20\nbcast eth1\nserial /dev/ttyS0\nnode a b\n"
        );
        assert_eq!(story.clusters[0].haresources(), "a 10.0.0.1/24 httpd\n");
        assert_eq!(story.clusters[0].keys, "auth 1\n1 crc\n");
        assert_eq!(story.clusters[0].manner("httpd", "b", Operation::Stop), Manner::Fails);
        assert_eq!(story.clusters[0].manner("httpd", "b", Operation::Start), Manner::Works);
        assert_eq!(story.expected, "> start a b\n");
        assert_eq!(story.steps[1].command, Command::Settle { within: Some(Duration::from_secs(2)) });
    }

    #[test]
    fn rewriting_keeps_head_and_notes() {
        let text = "start a\n----\nold\n---- notes\na info: up\nnever critical\n";
        let story = parse(text).expect("a story");
        assert_eq!(story.rewritten("new\n"), format!("{BLOCK}{}", text.replace("old", "new")));
        assert_eq!(story.notes.len(), 2);
    }

    #[test]
    fn errors_name_file_line_and_cure() {
        let error = |rest| parse(rest).expect_err("an error");
        assert_eq!(error("start c\n"), "x.story:12: `c` is not a node of this story; nodes are a, b");
        assert_eq!(
            error("\ncut eth7\n"),
            "x.story:13: `eth7` is not a link of this story; links are eth1, ttyS0 and all"
        );
        assert_eq!(error("wait 3h\n"), "x.story:12: `3h` is not a time; write 500ms, 2s or 1m");
        assert!(error("dance a\n").starts_with("x.story:12: `dance a` is not a command; known are: start,"));
        assert!(error("lose 120% all\n").contains("not a share"));
        assert!(error(" frob 3\n").contains("`frob` does not belong into a cluster block"));
        let error = Story::parse(Path::new("x.story"), "cluster\n").expect_err("no reason is given");
        assert!(error.to_string().contains("say why"), "{error}");
    }

    #[test]
    fn resources_that_carry_addresses() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert_eq!(address_of("172.23.2.14"), ip("172.23.2.14"));
        assert_eq!(address_of("IPaddr2::10.0.0.1/24/eth0:web"), ip("10.0.0.1"));
        assert_eq!(address_of("IPv6addr::fd00::1/64/eth0"), ip("fd00::1"));
        assert_eq!(address_of("httpd"), None);
    }
}
