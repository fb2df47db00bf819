//! What a plan means, as short lines: one a setting, `name = value`, in an order that the plan alone decides. Comments,
//! the order of tables and the way a value is written do not change them. Their digest is in every beat; where two nodes
//! differ, the lines say in what.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};

use sha2::{Digest as _, Sha256};

use super::plan::{End, Failback, Group, Link, Medium, Member, Plan, Relation, Resource, Witness};
use crate::{
    config::Written,
    plan::{Agent, GroupIndex, NodeIndex},
    time::Duration,
};

/// The digest of a plan's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these lines.
    #[must_use]
    pub fn of(lines: &[String]) -> Self {
        let mut hash = Sha256::new();
        for line in lines {
            hash.update(line.as_bytes());
            hash.update(b"\n");
        }
        Self(hash.finalize().into())
    }

    /// Its first eight bytes, for frames: enough to notice a slip; who could forge it has the key.
    #[must_use]
    pub fn short(&self) -> u64 {
        self.0[..8].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
    }
}

/// In what two files differ: one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The setting.
    pub name: String,
    /// What the one says; `None` when it does not have this setting.
    pub ours: Option<String>,
    /// What the other says.
    pub theirs: Option<String>,
}

/// The settings in which two sets of lines differ, in the order of ours, then of theirs. Lines without `=` are settings
/// without a value; any text may come in.
#[must_use]
pub fn differences(ours: &[String], theirs: &[String]) -> Vec<Difference> {
    let split = |line: &String| match line.split_once(" = ") {
        Some((name, value)) => (name.to_string(), value.to_string()),
        None => (line.clone(), String::new()),
    };
    let table = |lines: &[String]| lines.iter().map(split).collect::<alloc::collections::BTreeMap<_, _>>();
    let (our_table, their_table) = (table(ours), table(theirs));
    let mut found = Vec::new();
    for (name, value) in ours.iter().map(split) {
        let other = their_table.get(&name);
        if other != Some(&value) {
            found.push(Difference { name, ours: Some(value), theirs: other.cloned() });
        }
    }
    for (name, value) in theirs.iter().map(split).filter(|(name, _)| !our_table.contains_key(name)) {
        found.push(Difference { name, ours: None, theirs: Some(value) });
    }
    found
}

/// The same for people: what only one of them has at all, such as a group or a link, is one line that counts its settings.
#[must_use]
pub fn summary(ours: &[String], theirs: &[String]) -> Vec<Difference> {
    let subject = |name: &str| Some(name.split_once(": ")?.0.to_string());
    let subjects = |lines: &[String]| lines.iter().filter_map(|line| subject(line)).collect::<BTreeSet<_>>();
    let (our_subjects, their_subjects) = (subjects(ours), subjects(theirs));
    let mut found: Vec<(Difference, usize)> = Vec::new();
    for difference in differences(ours, theirs) {
        let whole = subject(&difference.name)
            .filter(|subject| our_subjects.contains(subject) != their_subjects.contains(subject));
        let Some(subject) = whole else {
            found.push((difference, 1));
            continue;
        };
        match found.iter_mut().find(|(known, _)| known.name == subject) {
            Some((known, settings)) => {
                *settings += 1;
                let text = Some(format!("{settings} settings"));
                *(if known.ours.is_some() { &mut known.ours } else { &mut known.theirs }) = text;
            }
            None => {
                let text = |side: Option<String>| side.map(|_| String::from("1 setting"));
                let (ours, theirs) = (text(difference.ours), text(difference.theirs));
                found.push((Difference { name: subject, ours, theirs }, 1));
            }
        }
    }
    found.into_iter().map(|(difference, _)| difference).collect()
}

/// The lines of a plan. Secrets are in them as digests; what concerns one machine alone is not.
#[must_use]
pub fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = Lines { plan, lines: Vec::new() };
    lines.set("cluster", &plan.cluster);
    for row in plan.timing.rows(plan.nodes.len()) {
        lines.set(format!("timing: {}", row.name), Written(row.value));
    }
    lines.set("nodes", words(plan.nodes.iter().map(|node| node.name.as_str())));
    plan.witnesses.iter().for_each(|witness| lines.witness(witness));
    lines.set("voters", words(plan.voters.iter().map(|&voter| plan.name(voter))));
    plan.links.iter().for_each(|link| lines.link(link));
    plan.groups.iter().for_each(|group| lines.group(group));
    plan.relations.iter().for_each(|relation| lines.relation(relation));
    lines.lines
}

struct Lines<'a> {
    plan: &'a Plan,
    lines: Vec<String>,
}

impl Lines<'_> {
    fn set(&mut self, name: impl core::fmt::Display, value: impl core::fmt::Display) {
        self.lines.push(format!("{name} = {value}"));
    }

    fn witness(&mut self, witness: &Witness) {
        let name = &witness.name;
        self.set(format_args!("witness {name}: address"), witness.address);
        if let Some(key) = &witness.key {
            let digest = Digest(Sha256::digest(key.0).into());
            self.set(format_args!("witness {name}: key's digest"), format_args!("{:016x}", digest.short()));
        }
    }

    fn link(&mut self, link: &Link) {
        let name = &link.name;
        let medium = match link.medium {
            Medium::Unicast { port } => format!("unicast, port {port}"),
            Medium::Broadcast { port } => format!("broadcast, port {port}"),
            Medium::Multicast { group, port, ttl } => format!("multicast {group}, port {port}, ttl {ttl}"),
            Medium::Serial { baud } => format!("serial, {baud} baud"),
        };
        self.set(format_args!("link {name}"), medium);
        for (node, end) in link.ends.iter().enumerate() {
            let end = match end {
                None => continue,
                Some(End::Address { ip, interface: None }) => ip.to_string(),
                Some(End::Address { ip, interface: Some(interface) }) => format!("{ip}%{interface}"),
                Some(End::Interface(name) | End::Device(name)) => name.clone(),
            };
            let node = self.plan.name(Member::Node(NodeIndex(node)));
            self.set(format_args!("link {name}: {node}"), end);
        }
    }

    fn group(&mut self, group: &Group) {
        let name = &group.name;
        let nodes = |nodes: &[NodeIndex]| words(nodes.iter().map(|&node| self.plan.name(Member::Node(node))));
        let (prefer, candidates) = (nodes(&group.prefer), nodes(&group.candidates));
        self.set(format_args!("group {name}: prefer"), prefer);
        self.set(format_args!("group {name}: candidates"), candidates);
        self.set(format_args!("group {name}: failback"), FailbackText(group.failback));
        self.set(format_args!("group {name}: guard"), group.guard);
        self.set(format_args!("group {name}: restarts"), group.restarts.in_place);
        self.set(format_args!("group {name}: restarts-within"), Written(group.restarts.within));
        self.set(format_args!("group {name}: moves"), group.hold_down.moves);
        self.set(format_args!("group {name}: moves-within"), Written(group.hold_down.within));
        self.set(format_args!("group {name}: hold-down"), Written(group.hold_down.rest));
        if let Some(text) = &group.i_know {
            self.set(format_args!("group {name}: i-know"), text);
        }
        for (at, resource) in group.resources.iter().enumerate() {
            let place = format!("group {name}: resource {}", at + 1);
            let Resource { runs, limits, monitor_every } = resource;
            self.set(&place, agent(runs));
            for (what, time) in [
                ("start-limit", limits.start),
                ("stop-limit", limits.stop),
                ("terminate-limit", limits.terminate),
                ("monitor-limit", limits.monitor),
            ] {
                self.set(format_args!("{place} {what}"), Written(time));
            }
            self.set(format_args!("{place} monitor-every"), MonitorText(*monitor_every));
        }
    }

    fn relation(&mut self, relation: &Relation) {
        let name = |group: &GroupIndex| self.plan.groups[group.0].name.as_str();
        let (kind, value) = match relation {
            Relation::Together(groups) => {
                (format!("together {}", words(groups.iter().map(name))), "yes".into())
            }
            Relation::Apart(a, b) => (format!("apart {} {}", name(a), name(b)), "yes".to_string()),
            Relation::After { group, first } => {
                (format!("after {} {}", name(group), name(first)), "yes".into())
            }
            Relation::Spread { name: spread, groups } => {
                (format!("spread {spread}"), words(groups.iter().map(name)))
            }
        };
        self.set(kind, value);
    }
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

/// A resource as `haresources` would write it. Empty arguments count where their place does.
fn agent(runs: &crate::plan::Resource) -> String {
    let mut text = runs.script.clone();
    let mut push = |arg: &str| {
        text.push_str("::");
        text.push_str(arg);
    };
    match &runs.agent {
        Agent::Filesystem { device, directory, kind, options } => {
            let [kind, options] = [kind, options].map(|it| it.as_deref().unwrap_or_default());
            [device.as_str(), directory, kind, options].into_iter().for_each(push);
        }
        _ => runs.args.iter().for_each(|arg| push(arg)),
    }
    text
}

/// A failback as the file writes it.
pub(crate) struct FailbackText(pub(crate) Failback);

impl core::fmt::Display for FailbackText {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Failback::Stay => f.write_str("stay"),
            Failback::WhenAsked => f.write_str("when-asked"),
            Failback::After(time) => Written(time).fmt(f),
        }
    }
}

/// A monitor's interval as the file writes it.
pub(crate) struct MonitorText(pub(crate) Option<Duration>);

impl core::fmt::Display for MonitorText {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            None => f.write_str("never"),
            Some(time) => Written(time).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn differing_settings_are_listed_and_nothing_else() {
        let ours = owned(&["pace = 1s", "nodes = a b", "group web: guard = lease", "only ours = 1", "odd"]);
        let theirs =
            owned(&["nodes = a b", "only theirs = x = y", "pace = 2s", "group web: guard = lease", "odd"]);
        let said = differences(&ours, &theirs)
            .into_iter()
            .map(|it| format!("{}: {:?} {:?}", it.name, it.ours, it.theirs))
            .collect::<Vec<_>>();
        assert_eq!(
            said,
            [
                r#"pace: Some("1s") Some("2s")"#,
                r#"only ours: Some("1") None"#,
                r#"only theirs: None Some("x = y")"#,
            ]
        );
        assert_eq!(differences(&ours, &ours), []);
    }

    #[test]
    fn what_one_of_them_has_alone_is_one_line() {
        let ours = ["pace = 1s", "group web: guard = lease", "group web: moves = 3", "group db: moves = 3"];
        let theirs = ["pace = 1s", "group www: guard = lease", "group db: moves = 2", "link a: port = 1"];
        let (ours, theirs) = (owned(&ours), owned(&theirs));
        let said = |ours: &[String], theirs: &[String]| {
            let one = |it: Difference| format!("{}: {:?} {:?}", it.name, it.ours, it.theirs);
            summary(ours, theirs).into_iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(
            said(&ours, &theirs),
            [
                r#"group web: Some("2 settings") None"#,
                r#"group db: moves: Some("3") Some("2")"#,
                r#"group www: None Some("1 setting")"#,
                r#"link a: None Some("1 setting")"#,
            ]
        );
        assert_eq!(said(&ours, &ours), Vec::<String>::new());
    }

    #[test]
    fn a_digest_depends_on_every_line_and_their_limits() {
        let digest = |lines: &[&str]| Digest::of(&owned(lines));
        assert_eq!(digest(&["a", "b"]), digest(&["a", "b"]));
        assert_ne!(digest(&["a", "b"]), digest(&["ab"]));
        assert_ne!(digest(&["a", "b"]).short(), digest(&["b", "a"]).short());
        // printf 'a\n' | sha256sum
        assert_eq!(digest(&["a"]).short(), 0x8742_8fc5_2280_3d31);
    }
}
