//! What the files of both nodes must say alike, and what follows where they do not.
//!
//! Each node of Locum tells the digest of those lines in its status, and the lines themselves while the digests differ. Two
//! nodes whose `haresources` give one resource to different nodes would both run it, and neither would know: each
//! holds what the other does not know by that name. So as long as both hear each other a resource that the other node's
//! file gives to that node, and that it holds, is not started here. The group is *withheld*:
//!
//! * Who runs it keeps it.
//! * If neither runs it, or both do, the node whose name comes first has it.
//! * Withheld groups are told to the other node, so that they do not wait for each other.
//! * When the other node is gone, its file counts no more.

use core::net::IpAddr;

use super::{inbound::ECHOES, *};
use crate::{
    native::meaning::{self, Difference},
    wire::message::Files,
};

/// For so long a life of the peer counts as refused.
const REFUSED: Duration = Duration::from_secs(3);
/// The lines are told again so often while the files differ.
const LINES_PAUSE: Duration = Duration::from_secs(10);
/// Most bytes of lines in one status: a beat has to fit the slowest serial line.
const LINES_BYTES_MAX: usize = 1000;
/// Between the lines in a frame. No resource has blanks in it.
const BETWEEN: &str = " | ";
/// Most settings that are named one by one.
const NAMED_MAX: usize = 3;
/// What a line of haresources is called.
const HARESOURCES: &str = "haresources ";

/// The books of one node.
#[derive(Debug)]
pub(super) struct Agreement {
    lines: Vec<String>,
    digest: u64,
    theirs: Theirs,
    /// When the lines are told next, while the files differ.
    lines_due: Instant,
    /// By group: the dialect wants it to run.
    wanted: Vec<bool>,
    /// By group: it is not run, because the other node's file gives it to that node.
    withheld: Vec<bool>,
    /// By group: both nodes run it, since then.
    double: Vec<Option<Instant>>,
    /// Our newest number at two moments, which are at least [`ECHOES`] apart; and when the later was.
    sent: [u64; 2],
    marked: Instant,
    /// The newest life of the peer that was refused in favour of the one we know, and when.
    refused: Option<Instant>,
    /// The peer says that our generation is not above this one, of which it has heard.
    outlived: Option<(u64, Instant)>,
}

/// What the peer told in its present life.
#[derive(Debug, Default)]
struct Theirs {
    digest: Option<u64>,
    lines: Option<Vec<String>>,
    withheld: Vec<String>,
    failed: Vec<String>,
    /// Since when its digest is not ours.
    differs: Option<Instant>,
    /// Since when its statuses say that it does not hear this life of ours.
    deaf: Option<Instant>,
}

impl Agreement {
    pub(super) fn new(plan: &Plan) -> Self {
        let lines = lines(plan);
        Self {
            digest: meaning::Digest::of(&lines).short(),
            lines,
            theirs: Theirs::default(),
            lines_due: Instant::ZERO,
            wanted: alloc::vec![false; plan.groups.len()],
            withheld: alloc::vec![false; plan.groups.len()],
            double: alloc::vec![None; plan.groups.len()],
            sent: [0; 2],
            marked: Instant::ZERO,
            refused: None,
            outlived: None,
        }
    }

    pub(super) fn is_withheld(&self, group: GroupIndex) -> bool {
        self.withheld[group.0]
    }

    /// It runs, from the life before this one.
    pub(super) fn keep(&mut self, group: GroupIndex) {
        self.wanted[group.0] = true;
    }

    pub(super) fn forget_peer(&mut self) {
        self.theirs = Theirs::default();
    }

    /// A frame of an older life of the peer was refused.
    pub(super) fn refuse_old_life(&mut self, now: Instant) {
        self.refused = Some(now);
    }

    /// With each beat: our newest number.
    pub(super) fn mark(&mut self, now: Instant, sent: u64) {
        if now.since(self.marked) >= ECHOES {
            self.marked = now;
            self.sent = [self.sent[1], sent];
        }
    }

    /// What has a lower number was sent longer ago than [`ECHOES`].
    pub(super) const fn sent_before(&self) -> u64 {
        self.sent[0]
    }

    /// Whether that was a moment ago.
    pub(super) fn has_refused(&self, now: Instant) -> bool {
        self.refused.is_some_and(|at| now.since(at) < REFUSED)
    }

    fn differences(&self) -> Option<Vec<Difference>> {
        self.theirs.differs?;
        Some(meaning::differences(&self.lines, self.theirs.lines.as_deref()?))
    }
}

impl Director {
    /// What a status says of our file.
    pub(super) fn files_to_say(&mut self) -> Files {
        let now = self.now.instant;
        let patience = self.alarm_beat() * 3;
        let Some(peer) = &self.peer else { return Files::default() };
        let files = &mut self.files;
        let tells = files.theirs.differs.is_some() && now >= files.lines_due;
        if tells {
            files.lines_due = now + LINES_PAUSE;
        }
        let refuses = files.refused.is_some_and(|at| now.since(at) < patience);
        let withheld = self.plan.groups.iter().zip(&files.withheld).filter(|(_, withheld)| **withheld);
        let withheld: Vec<&str> = withheld.map(|(group, _)| group.key.as_str()).collect();
        Files {
            digest: Some(files.digest),
            lines: tells.then(|| pack(&files.lines)),
            withheld: Some(withheld.join(" ")).filter(|keys| !keys.is_empty()),
            hears: peer.received.generation().filter(|_| peer.watch.state().is_up()),
            known: peer.received.generation().filter(|_| refuses),
        }
    }

    /// What a status of the peer says of its file. `failed`: the keys of groups that it could not start.
    pub(super) fn heard_files(&mut self, told: &Files, failed: &str) {
        let now = self.now.instant;
        let hears = told.digest.is_none() || told.hears == Some(self.identity.generation);
        self.files.theirs.deaf = if hears { None } else { self.files.theirs.deaf.or(Some(now)) };
        let keys = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        let files = &mut self.files;
        files.theirs.withheld = keys(told.withheld.as_deref().unwrap_or_default());
        files.theirs.failed = keys(failed);
        let before = files.theirs.digest.or(Some(files.digest));
        files.theirs.digest = told.digest;
        let differs = told.digest.is_some_and(|digest| digest != files.digest);
        if told.digest != before {
            files.theirs.lines = None;
            files.theirs.differs = None;
        }
        if differs && files.theirs.differs.is_none() {
            files.theirs.differs = Some(now);
            files.lines_due = now;
        }
        let had_lines = files.theirs.lines.is_some();
        if let Some(lines) = told.lines.as_deref().filter(|_| differs) {
            files.theirs.lines = Some(lines.split(BETWEEN).map(String::from).collect());
        }
        let has_lines = files.theirs.lines.is_some();
        if before == told.digest && had_lines == has_lines {
            return;
        }
        match self.disagreement() {
            Some(text) => self.note(Level::Error, text),
            None => self.note(Level::Info, "the files of both nodes say the same again".to_string()),
        }
        if differs && !has_lines {
            // The peer has to know ours at once, too.
            self.say_status();
        }
    }

    /// The peer refuses our frames, because it has heard of a later life of this node.
    pub(super) fn heard_known(&mut self, told: &Files) {
        const GENERATION_MAX: u64 = 999_999_999_999_999;
        let now = self.now.instant;
        let ours = self.identity.generation;
        let refuses = |known: &u64| *known > ours || (*known == ours && told.hears != Some(ours));
        let known = told.known.filter(|known| refuses(known) && *known < GENERATION_MAX);
        self.files.outlived = known.map(|known| (known, now));
        let Some(known) = known else { return };
        if self.state == NodeState::Active {
            return;
        }
        // Nothing runs here yet: this life can go on under a later number.
        let text = format!(
            "the other node has heard of generation {known} of this node, and this is generation {}: the state directory is an \
             older copy; going on as generation {}",
            self.identity.generation,
            known + 1
        );
        self.note(Level::Warning, text);
        self.identity.generation = known + 1;
        self.files.outlived = None;
        self.sent = Sent::default();
        self.files.sent = [0; 2];
        let heard = Heard { generation: known + 1, number: 0 };
        self.out.push_back(Action::Remember { node: self.plan.me, heard });
        self.say_status();
    }

    /// What the dialect wants of one group, unless it is withheld.
    pub(super) fn want_group(&mut self, group: GroupIndex, run: bool) {
        self.files.wanted[group.0] = run;
        self.files.withheld[group.0] = run && self.is_disputed(group);
        if self.files.withheld[group.0] {
            self.say_withheld(group);
            // Before the dialect says that it holds it.
            self.say_status();
        }
        let run = run && !self.files.withheld[group.0];
        self.groups.want(group, run, &mut self.out);
    }

    /// Looks at every group again: the peer may have come, gone, or said something.
    pub(super) fn judge_files(&mut self) {
        if self.files.theirs.differs.is_none() && !self.files.withheld.contains(&true) {
            return;
        }
        let mut changed = false;
        for group in (0..self.plan.groups.len()).map(GroupIndex) {
            let disputed = self.files.wanted[group.0] && self.is_disputed(group) && self.has_lasted(group);
            if disputed == self.files.withheld[group.0] {
                continue;
            }
            changed = true;
            self.files.withheld[group.0] = disputed;
            if disputed {
                self.say_withheld(group);
            }
            let run = self.files.wanted[group.0] && !disputed;
            self.groups.want(group, run, &mut self.out);
        }
        if changed {
            self.say_status();
        }
    }

    /// What runs here is stopped only when both have run it for a while: the peer may be about to say that it does not.
    fn has_lasted(&mut self, group: GroupIndex) -> bool {
        let now = self.now.instant;
        let runs = self.runs(group);
        let double = &mut self.files.double[group.0];
        if !runs || self.files.withheld[group.0] {
            *double = None;
            return true;
        }
        now.since(*double.get_or_insert(now)) >= self.plan.timing.deadtime / 2
    }

    fn runs(&self, group: GroupIndex) -> bool {
        matches!(self.groups.phase(group), Phase::Running | Phase::Starting(_))
    }

    /// Whether the other node holds something of the group, by its own file.
    fn is_disputed(&self, group: GroupIndex) -> bool {
        let Some(peer) = &self.peer else { return false };
        let theirs = &self.files.theirs;
        let Some(since) = theirs.differs else { return false };
        if peer.left || peer.locum != Some(true) || !peer.watch.state().is_up() {
            return false;
        }
        let runs = self.runs(group);
        let me = &self.plan.nodes[self.plan.me.0];
        let goes_first = *me < peer.name;
        let Some(lines) = &theirs.lines else {
            // They come within a moment.
            return !runs && self.now.instant.since(since) < self.plan.timing.deadtime;
        };
        let held = self.r1.theirs();
        let is_said = |keys: &[String], key: &str| keys.iter().any(|other| other == key);
        lines.iter().filter_map(|line| line.strip_prefix(HARESOURCES)?.split_once(" = ")).any(|(_, line)| {
            let mut words = line.split(' ');
            let node = words.next().unwrap_or_default();
            let holds = match node {
                _ if node == peer.name => {
                    held.has_foreign() || (!goes_first && !self.r1.has_heard_holdings())
                }
                _ if node == me => held.has_local(),
                _ => false,
            };
            let key = words.clone().next().unwrap_or_default();
            if !holds || !words.any(|word| self.has_resource(group, word)) || is_said(&theirs.failed, key) {
                return false;
            }
            if is_said(&theirs.withheld, key) { !goes_first && !runs } else { !(goes_first && runs) }
        })
    }

    fn has_resource(&self, group: GroupIndex, text: &str) -> bool {
        let what = what(text);
        self.plan.groups[group.0].resources.iter().any(|resource| self::what(&resource.text) == what)
    }

    fn say_withheld(&mut self, group: GroupIndex) {
        let text = self.withheld_text(group);
        self.note(Level::Error, text);
    }

    pub(super) fn withheld_text(&self, group: GroupIndex) -> String {
        let peer = self.peer.as_ref().map_or("the other node", |peer| peer.name.as_str());
        format!(
            "group {} is not run here: the files differ, and by its own {peer} has it",
            self.plan.groups[group.0].key
        )
    }

    /// In what the files differ, if they do, with the cure.
    pub(super) fn disagreement(&self) -> Option<String> {
        let peer = self.peer.as_ref().map_or("the other node", |peer| peer.name.as_str());
        self.files.theirs.differs?;
        let cure =
            "make ha.cf and haresources the same on both nodes, then restart locum where they were wrong";
        let Some(differences) = self.files.differences() else {
            return Some(format!("ha.cf or haresources differ from those of {peer}: {cure}"));
        };
        let shown = |value: &Option<String>| match value {
            Some(value) => format!("`{}`", Escaped(value.as_bytes())),
            None => "missing".to_string(),
        };
        let named = differences.iter().take(NAMED_MAX).map(|Difference { name, ours, theirs }| {
            format!("{} is {} here and {} there", Escaped(name.as_bytes()), shown(ours), shown(theirs))
        });
        let mut named = named.collect::<Vec<_>>().join("; ");
        if differences.len() > NAMED_MAX {
            named += &format!("; and {} more", differences.len() - NAMED_MAX);
        }
        Some(format!("the files differ from those of {peer}: {named}: {cure}"))
    }

    /// The peer is heard and does not hear us, for long enough to be no matter of one frame.
    pub(super) fn one_way(&self) -> Option<String> {
        let peer = self.peer.as_ref().filter(|peer| peer.watch.state().is_up() && !peer.left)?;
        let lasts = self.now.instant.since(self.files.theirs.deaf?) >= self.plan.timing.deadtime / 2;
        lasts.then(|| {
            format!(
                "{} does not hear this node, which hears it: frames are lost one way (a filter, a bad cable), or recordings of \
                 {}'s frames are played here",
                peer.name, peer.name
            )
        })
    }

    /// The peer refuses what we say as that of an earlier life, and nothing can be done about it while groups run.
    pub(super) fn outlived(&self) -> Option<String> {
        let (known, at) = self.files.outlived?;
        let lasts = self.now.instant.since(at) < self.alarm_beat() * 3;
        let peer = self.peer.as_ref().map_or("the other node", |peer| peer.name.as_str());
        lasts.then(|| {
            format!(
                "{peer} refuses this node's frames: it has heard of generation {known}, and this is {}; the state directory \
                 is an older copy: restart locum here",
                self.identity.generation
            )
        })
    }
}

/// What must be the same on both nodes.
fn lines(plan: &Plan) -> Vec<String> {
    let failback = match plan.auto_failback {
        AutoFailback::On => "on",
        AutoFailback::Off => "off",
        AutoFailback::Legacy => "legacy",
    };
    let stonith = plan.fencing.as_ref().map_or("none", |fencing| fencing.device.as_str());
    let mut lines = alloc::vec![
        format!("node = {}", plan.nodes.join(" ")),
        format!("auto_failback = {failback}"),
        format!("stonith = {stonith}"),
        format!("ipfail = {}", if plan.ipfail { "yes" } else { "no" }),
    ];
    for (index, group) in plan.groups.iter().enumerate() {
        let texts: Vec<&str> = group.resources.iter().map(|resource| resource.text.as_str()).collect();
        lines.push(format!("{HARESOURCES}{} = {} {}", index + 1, plan.nodes[group.node.0], texts.join(" ")));
    }
    lines
}

/// For a frame: whole lines, as many as fit, in printable ASCII.
fn pack(lines: &[String]) -> String {
    let mut packed = String::new();
    for line in lines {
        let between = if packed.is_empty() { "" } else { BETWEEN };
        if packed.len() + between.len() + line.len() > LINES_BYTES_MAX {
            break;
        }
        packed.push_str(between);
        packed.extend(line.chars().map(|letter| if matches!(letter, ' '..='~') { letter } else { '?' }));
    }
    packed
}

/// An address, however it is written, or the text of another resource.
#[derive(PartialEq, Eq)]
enum What<'a> {
    Address(IpAddr),
    Other(&'a str),
}

fn what(text: &str) -> What<'_> {
    let agents = ["IPaddr::", "IPaddr2::", "IPv6addr::"];
    let address = agents.iter().find_map(|agent| text.strip_prefix(agent)).unwrap_or(text);
    let address = address.split('/').next().unwrap_or_default();
    address.parse().map_or(What::Other(text), What::Address)
}
