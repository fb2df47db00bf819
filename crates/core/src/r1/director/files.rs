//! Compares the configuration files of both nodes, and withholds groups that the files give to different nodes.
//!
//! Each node of Locum sends a digest of the lines that must be the same on both nodes, in its status. While the digests
//! differ, it sends the lines themselves, piece by piece ([`exchange`]).
//!
//! Two nodes whose `haresources` give one resource to different nodes would both run it without noticing, because each
//! holds a group that the other does not know by that name. So while both nodes hear each other, a resource is not
//! started here if the other node's file gives it to that node and that node holds it. The group is *withheld*:
//!
//! * The node that runs it keeps it.
//! * If neither node runs it, or both do, the node whose name sorts first has it.
//! * A node announces its withheld groups, so that the two nodes do not wait for each other.
//! * While lines still arrive, a group that does not run here waits for all of them.
//! * When the other node is gone, its file no longer counts.

use alloc::collections::BTreeSet;
use core::net::IpAddr;

use super::{
    exchange::{self, ReceivedText, TellingPace},
    inbound::ECHOES,
    *,
};
use crate::{
    model::settings::{self, SettingDifference},
    r1::message::FileFields,
};

/// How long a refused daemon start of the peer stays noted.
const REFUSED: Duration = Duration::from_secs(3);
/// Most settings that a message names one by one.
const NAMED_MAX: usize = 3;
/// Prefix of the names of the lines of `haresources`.
const HARESOURCES: &str = "haresources ";

/// One node's view of both nodes' files.
#[derive(Debug)]
pub(super) struct Agreement {
    lines: Vec<String>,
    digest: u64,
    /// Our lines as one text, while the files differ.
    text: String,
    pace: TellingPace,
    theirs: PeerFiles,
    /// The groups that have each resource.
    users: BTreeMap<ResourceIdentity, Vec<GroupIndex>>,
    /// By group: the dialect wants it to run.
    wanted: Vec<bool>,
    /// The groups that do not run here although the dialect wants them, and why.
    withheld: BTreeMap<GroupIndex, WithheldReason>,
    /// The groups that both nodes seem to run, and since when.
    double: BTreeMap<GroupIndex, Instant>,
    /// Our newest number at two moments at least [`ECHOES`] apart; `marked` is the later of the two moments.
    sent: [u64; 2],
    marked: Instant,
    /// When a frame of an older generation of the peer was last refused.
    refused: Option<Instant>,
    /// The peer has heard of this generation of us, which is not below ours, and when it said so.
    outlived: Option<(u64, Instant)>,
}

/// Why a group is withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WithheldReason {
    /// The other node's file gives it to that node.
    Given,
    /// The other node has not sent all of its file yet, which may give it to that node.
    Untold,
}

/// A line of the peer's file that has a resource of one of our groups.
#[derive(Debug)]
struct RivalLine {
    /// The line gives it to us; otherwise to the peer.
    is_ours: bool,
    key: String,
}

/// What the peer has said about its files since its daemon started.
#[derive(Debug, Default)]
struct PeerFiles {
    digest: Option<u64>,
    /// Its lines, while more of them are to come.
    received: ReceivedText,
    /// When the last of its lines arrived.
    learned: Instant,
    /// Its lines that concern our groups, by group.
    rivals: BTreeMap<GroupIndex, Vec<RivalLine>>,
    /// How the files differ, once all lines are known.
    differences: Option<Vec<SettingDifference>>,
    /// How many bytes of our lines it knows, while it lacks some; `asked` is since when.
    wants: Option<u64>,
    asked: Instant,
    withheld: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// Since when its digest differs from ours.
    differs: Option<Instant>,
    /// Since when its statuses say that it does not hear this daemon start of ours.
    deaf: Option<Instant>,
}

impl Agreement {
    pub(super) fn new(plan: &R1Plan) -> Self {
        let lines = lines(plan);
        let mut users: BTreeMap<ResourceIdentity, Vec<GroupIndex>> = BTreeMap::new();
        for (index, group) in plan.groups.iter().enumerate() {
            for resource in &group.resources {
                users.entry(what(&resource.text)).or_default().push(GroupIndex(index));
            }
        }
        Self {
            digest: settings::SettingsDigest::of(&lines).short(),
            lines,
            text: String::new(),
            pace: TellingPace::of(plan),
            theirs: PeerFiles::default(),
            users,
            wanted: alloc::vec![false; plan.groups.len()],
            withheld: BTreeMap::new(),
            double: BTreeMap::new(),
            sent: [0; 2],
            marked: Instant::ZERO,
            refused: None,
            outlived: None,
        }
    }

    pub(super) fn is_withheld(&self, group: GroupIndex) -> bool {
        self.withheld.contains_key(&group)
    }

    /// The group already runs: it was kept through a reload in place.
    pub(super) fn keep(&mut self, group: GroupIndex) {
        self.wanted[group.0] = true;
    }

    pub(super) fn forget_peer(&mut self) {
        self.theirs = PeerFiles::default();
    }

    /// Notes that a frame of an older generation of the peer was refused.
    pub(super) fn refuse_old_generation(&mut self, now: Instant) {
        self.refused = Some(now);
    }

    /// Notes our newest number, with each beat.
    pub(super) fn mark(&mut self, now: Instant, sent: u64) {
        if now.since(self.marked) >= ECHOES {
            self.marked = now;
            self.sent = [self.sent[1], sent];
        }
    }

    /// The number below which everything was sent longer ago than [`ECHOES`].
    pub(super) const fn sent_before(&self) -> u64 {
        self.sent[0]
    }

    /// Whether a frame of an older generation was refused within the last 3 s.
    pub(super) fn has_refused(&self, now: Instant) -> bool {
        self.refused.is_some_and(|at| now.since(at) < REFUSED)
    }

    /// Evaluates the lines that have arrived since the last call.
    fn learn(&mut self, known: usize, me: &str, peer: &str) {
        let PeerFiles { received: told, rivals, differences, .. } = &mut self.theirs;
        for line in &told.lines[known..] {
            let Some((_, line)) = line.strip_prefix(HARESOURCES).and_then(|line| line.split_once(" = "))
            else {
                continue;
            };
            let mut words = line.split(' ');
            let node = words.next().unwrap_or_default();
            let is_ours = node == me;
            if !is_ours && node != peer {
                continue;
            }
            let key = words.clone().next().unwrap_or_default();
            let groups = words.filter_map(|word| self.users.get(&what(word))).flatten();
            for group in groups.copied().collect::<BTreeSet<_>>() {
                rivals.entry(group).or_default().push(RivalLine { is_ours, key: key.into() });
            }
        }
        if told.wants().is_none() {
            *differences = Some(settings::differences(&self.lines, &told.lines));
            told.lines = Vec::new();
        }
    }
}

impl R1Director {
    /// The part of our status that concerns the files.
    pub(super) fn files_to_say(&self) -> FileFields {
        let now = self.now.instant;
        let patience = self.alarm_beat() * 3;
        let Some(peer) = &self.peer else { return FileFields::default() };
        let files = &self.files;
        let theirs =
            Some(&files.theirs).filter(|theirs| theirs.differs.is_some() && peer.watch.state().is_up());
        let refuses = files.refused.is_some_and(|at| now.since(at) < patience);
        // A group that waits for untold lines is not announced as withheld.
        let withheld = files.withheld.iter().filter(|(_, why)| **why == WithheldReason::Given);
        let withheld =
            Some(self.status_keys(withheld.map(|(group, _)| *group))).filter(|keys| !keys.is_empty());
        let taken = withheld.as_ref().map_or(0, String::len);
        let lines =
            theirs.and_then(|theirs| exchange::piece(&files.text, theirs.wants?, files.pace.beside(taken)));
        FileFields {
            digest: Some(files.digest),
            lines,
            wants: theirs.and_then(|theirs| theirs.received.wants()),
            withheld,
            hears: peer.received.generation().filter(|_| peer.watch.state().is_up()),
            known: peer.received.generation().filter(|_| refuses),
        }
    }

    /// Handles the part of a peer's status that concerns its files. `failed`: the keys of groups that it could not
    /// start.
    pub(super) fn heard_files(&mut self, announced: &FileFields, failed: &str) {
        let now = self.now.instant;
        let hears = announced.digest.is_none() || announced.hears == Some(self.identity.generation);
        self.files.theirs.deaf = if hears { None } else { self.files.theirs.deaf.or(Some(now)) };
        let keys = |text: &str| text.split_whitespace().map(String::from).collect::<BTreeSet<_>>();
        let files = &mut self.files;
        files.theirs.withheld = keys(announced.withheld.as_deref().unwrap_or_default());
        files.theirs.failed = keys(failed);
        let before = files.theirs.digest.or(Some(files.digest));
        files.theirs.digest = announced.digest;
        let differs = announced.digest.is_some_and(|digest| digest != files.digest);
        let is_new = announced.digest != before;
        if is_new {
            let PeerFiles { withheld, failed, deaf, .. } = core::mem::take(&mut files.theirs);
            files.theirs =
                PeerFiles { digest: announced.digest, withheld, failed, deaf, ..PeerFiles::default() };
            files.text = if differs { exchange::text_of(&files.lines) } else { String::new() };
        }
        let is_back = self.peer.as_ref().is_some_and(|peer| !peer.watch.state().is_up());
        if differs && (is_back || files.theirs.differs.is_none()) {
            // From now on the peer can send more lines.
            files.theirs.learned = now;
        }
        if differs {
            files.theirs.differs = files.theirs.differs.or(Some(now));
        }
        let begins_to_ask = files.theirs.wants.is_none() && announced.wants.is_some();
        if core::mem::replace(&mut files.theirs.wants, announced.wants) != announced.wants {
            files.theirs.asked = now;
        }
        let lacked = files.theirs.received.wants().is_some();
        let known = files.theirs.received.lines.len();
        let piece = announced.lines.as_ref().filter(|_| differs);
        if piece.is_some_and(|piece| files.theirs.received.hear(piece)) {
            files.theirs.learned = now;
            let peer = self.peer.as_ref().map_or("", |peer| peer.name.as_str());
            files.learn(known, &self.plan.nodes[self.plan.me.0], peer);
        }
        let is_told = lacked && files.theirs.received.wants().is_none();
        if is_new || is_told {
            match self.disagreement() {
                Some(text) => self.note(Level::Error, text),
                None => self
                    .note(Level::Info, "ha.cf and haresources are the same on both nodes again".to_string()),
            }
        }
        if differs && (is_new || begins_to_ask) {
            // A short text is sent at once.
            self.say_status();
        }
        if let Some(pace) = self.exchange_interval() {
            self.next_beat = self.next_beat.min(now + pace);
        }
    }

    /// How often beats bring a piece, while pieces come or are asked for.
    pub(super) fn exchange_interval(&self) -> Option<Duration> {
        let PeerFiles { received: told, learned, wants, asked, differs, .. } = &self.files.theirs;
        let is_recent = |at: &Instant| self.now.instant.since(*at) < self.plan.timing.deadtime;
        let goes_on = (told.wants().is_some() && is_recent(learned)) || (wants.is_some() && is_recent(asked));
        (differs.is_some() && goes_on).then_some(self.files.pace.every)
    }

    /// The peer refuses our frames because it has heard of a later generation of this node.
    pub(super) fn heard_known(&mut self, announced: &FileFields) {
        const GENERATION_MAX: u64 = 999_999_999_999_999;
        let now = self.now.instant;
        let ours = self.identity.generation;
        let refuses = |known: &u64| *known > ours || (*known == ours && announced.hears != Some(ours));
        let known = announced.known.filter(|known| refuses(known) && *known < GENERATION_MAX);
        self.files.outlived = known.map(|known| (known, now));
        let Some(known) = known else { return };
        if self.state == NodeState::Active {
            return;
        }
        // Nothing runs here yet, so the daemon can go on under a later generation.
        let text = format!(
            "the other node has heard of generation {known} of this node, and this is generation {}: the state directory is an \
             older copy; going on as generation {}",
            self.identity.generation,
            known + 1
        );
        self.note(Level::Warning, text);
        self.identity.generation = known + 1;
        self.files.outlived = None;
        self.sent = SentHistory::default();
        self.files.sent = [0; 2];
        let heard = LastHeard { generation: known + 1, number: 0 };
        self.out.push_back(Action::Remember { member: self.plan.me.into(), heard });
        self.say_status();
    }

    /// Starts or stops one group as the dialect wants, unless the group is withheld.
    pub(super) fn want_group(&mut self, group: GroupIndex, run: bool) {
        self.files.wanted[group.0] = run;
        let why = run.then(|| self.dispute(group)).flatten();
        self.withhold(group, why);
        if why == Some(WithheldReason::Given) {
            // Announce it before the dialect says that it holds the group.
            self.say_status();
        }
        self.groups.want(group, run && why.is_none(), &mut self.out);
    }

    /// Evaluates every group again: the peer may have come, gone, or said something.
    pub(super) fn check_files(&mut self) {
        if self.files.theirs.differs.is_none() && self.files.withheld.is_empty() {
            self.files.double.clear();
            return;
        }
        let mut changed = false;
        for group in (0..self.plan.groups.len()).map(GroupIndex) {
            let why = self.lasting_dispute(group);
            let was = self.withhold(group, why);
            if why.is_some() == was.is_some() {
                continue;
            }
            changed = true;
            let run = self.files.wanted[group.0] && why.is_none();
            self.groups.want(group, run, &mut self.out);
        }
        if changed {
            self.say_status();
        }
    }

    /// Why the group is withheld. A group that runs here is stopped only if both nodes have run it for half a deadtime
    /// without a break: the peer may be about to announce that it does not run it.
    fn lasting_dispute(&mut self, group: GroupIndex) -> Option<WithheldReason> {
        let now = self.now.instant;
        let why = self.files.wanted[group.0].then(|| self.dispute(group)).flatten();
        let is_double = why.is_some() && self.runs(group) && !self.files.is_withheld(group);
        if !is_double {
            self.files.double.remove(&group);
            return why;
        }
        let since = *self.files.double.entry(group).or_insert(now);
        why.filter(|_| now.since(since) >= self.plan.timing.deadtime / 2)
    }

    /// Sets or clears the reason for withholding the group. Returns the reason before.
    fn withhold(&mut self, group: GroupIndex, why: Option<WithheldReason>) -> Option<WithheldReason> {
        let was = match why {
            Some(why) => self.files.withheld.insert(group, why),
            None => self.files.withheld.remove(&group),
        };
        // Untold lines are announced once for all groups, not here.
        if why == Some(WithheldReason::Given) && why != was {
            let text = self.withheld_text(group);
            self.note(Level::Error, text);
        }
        was
    }

    fn runs(&self, group: GroupIndex) -> bool {
        matches!(self.groups.phase(group), GroupPhase::Running | GroupPhase::Starting(_))
    }

    /// Whether the other node, by its own file, holds something of the group or may hold it.
    fn dispute(&self, group: GroupIndex) -> Option<WithheldReason> {
        let peer = self.peer.as_ref()?;
        let theirs = &self.files.theirs;
        theirs.differs?;
        if peer.left || peer.locum != Some(true) || !peer.watch.state().is_up() {
            return None;
        }
        let runs = self.runs(group);
        let me = &self.plan.nodes[self.plan.me.0];
        let goes_first = *me < peer.name;
        let held = self.r1.theirs();
        let is_given = |RivalLine { is_ours, key }: &RivalLine| {
            let holds = match is_ours {
                false => held.has_foreign() || (!goes_first && !runs && !self.r1.has_heard_holdings()),
                true => held.has_local(),
            };
            if theirs.failed.contains(key) {
                return false;
            }
            // A group that the peer withholds is one that it holds, even if it has not said so yet.
            if theirs.withheld.contains(key) { !goes_first && !runs } else { holds && !(goes_first && runs) }
        };
        if theirs.rivals.get(&group).is_some_and(|rivals| rivals.iter().any(is_given)) {
            return Some(WithheldReason::Given);
        }
        let is_told = theirs.received.wants().is_none();
        let waits = !is_told && self.now.instant.since(theirs.learned) < self.plan.timing.deadtime;
        (waits && !runs).then_some(WithheldReason::Untold)
    }

    pub(super) fn withheld_text(&self, group: GroupIndex) -> String {
        let peer = self.peer.as_ref().map_or("the other node", |peer| peer.name.as_str());
        let why = match self.files.withheld.get(&group) {
            Some(WithheldReason::Untold) => format!("{peer} has not sent all of its file yet"),
            Some(WithheldReason::Given) | None => format!("the other file gives it to {peer}"),
        };
        format!(
            "group {}: not started here: the files of the nodes differ, and {why}",
            self.plan.groups[group.0].key
        )
    }

    /// How the files differ, if they do, and what to do.
    pub(super) fn disagreement(&self) -> Option<String> {
        let peer = self.peer.as_ref().map_or("the other node", |peer| peer.name.as_str());
        self.files.theirs.differs?;
        let cure =
            "make ha.cf and haresources the same on both nodes, then restart locum where they were wrong";
        let Some(differences) = &self.files.theirs.differences else {
            let told = self.files.theirs.received.percent();
            return Some(format!(
                "ha.cf or haresources differ from those of {peer} ({told} % compared so far): {cure}"
            ));
        };
        let shown = |value: &Option<String>| match value {
            Some(value) => format!("`{}`", Escaped(value.as_bytes())),
            None => "missing".to_string(),
        };
        let named = differences.iter().take(NAMED_MAX).map(|SettingDifference { name, ours, theirs }| {
            format!("{} is {} here and {} there", Escaped(name.as_bytes()), shown(ours), shown(theirs))
        });
        let mut named = named.collect::<Vec<_>>().join("; ");
        if differences.len() > NAMED_MAX {
            named += &format!("; and {} more", differences.len() - NAMED_MAX);
        }
        Some(format!("the files differ from those of {peer}: {named}: {cure}"))
    }

    /// A trouble text if the peer is heard and has not heard us for at least half a deadtime.
    pub(super) fn one_way(&self) -> Option<String> {
        let peer = self.peer.as_ref().filter(|peer| peer.watch.state().is_up() && !peer.left)?;
        let lasts = self.now.instant.since(self.files.theirs.deaf?) >= self.plan.timing.deadtime / 2;
        lasts.then(|| {
            format!(
                "{} cannot hear this node, but this node hears it: frames are lost in one direction (packet filter, \
                 bad cable), or {}'s frames are being replayed here",
                peer.name, peer.name
            )
        })
    }

    /// A trouble text if the peer refuses our frames as those of an older generation. While groups run, this node
    /// cannot change its generation.
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

/// The lines that must be the same on both nodes.
fn lines(plan: &R1Plan) -> Vec<String> {
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

/// A resource by which groups are compared: an address, however it is written, or another resource's text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ResourceIdentity {
    Address(IpAddr),
    Other(String),
}

fn what(text: &str) -> ResourceIdentity {
    let agents = ["IPaddr::", "IPaddr2::", "IPv6addr::"];
    let address = agents.iter().find_map(|agent| text.strip_prefix(agent)).unwrap_or(text);
    let address = address.split('/').next().unwrap_or_default();
    address.parse().map_or_else(|_| ResourceIdentity::Other(text.into()), ResourceIdentity::Address)
}
