//! The canonical settings of a plan, as short lines: one a setting, `name = value`, in an order that the plan alone
//! decides. Comments, the order of tables and the way a value is written do not change them. Their digest is in every
//! beat. If two nodes differ, they compare the lines to find where.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::plan::{
    Failback, LinkEnd, NativeGroup, NativeLink, NativeMedium, NativeMember, NativePlan, NativeResource,
    Relation, Witness,
};
use crate::model::{
    identity::{GroupIndex, NodeIndex},
    resource::Agent,
    settings::SettingsDigest,
    time::{Duration, DurationText},
};

/// A resource that two files give to different groups. Voters know a group by its name alone, so both groups could be
/// owned at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// The resource that both groups name.
    pub resource: String,
    /// The group that has it in the other file.
    pub group: String,
}

/// By name, those of our groups of which the other file gives a resource to another group, each with the first such
/// resource. A resource that both files give to that other group does not count.
#[must_use]
pub fn disputes(ours: &[String], theirs: &[String]) -> BTreeMap<String, Dispute> {
    let (our_things, their_things) = (things(ours), things(theirs));
    let known: BTreeSet<_> = our_things.iter().copied().collect();
    let mut givers: BTreeMap<Thing<'_>, Vec<&str>> = BTreeMap::new();
    for (thing, group) in their_things.into_iter().filter(|given| !known.contains(given)) {
        givers.entry(thing).or_default().push(group);
    }
    let mut found = BTreeMap::new();
    for (thing, group) in our_things {
        if let Some(other) =
            givers.get(&thing).and_then(|groups| groups.iter().find(|other| **other != group))
        {
            let dispute = Dispute { resource: thing.to_string(), group: (*other).into() };
            found.entry(group.into()).or_insert(dispute);
        }
    }
    found
}

/// A thing that must not be in use in two places, however a file writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing<'a> {
    Address(IpAddr),
    Device(&'a str),
    Directory(&'a str),
    /// A unit, a script or an OCF agent, with all its arguments.
    Agent(&'a str),
}

impl core::fmt::Display for Thing<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Address(ip) => ip.fmt(f),
            Self::Device(text) | Self::Directory(text) | Self::Agent(text) => f.write_str(text),
        }
    }
}

/// The things that lines give to groups, in the order of the lines. Any text may come in.
fn things(lines: &[String]) -> Vec<(Thing<'_>, &str)> {
    let mut found = Vec::new();
    for line in lines {
        let resource = || {
            let (group, rest) = line.strip_prefix("group ")?.split_once(": resource ")?;
            let (place, text) = rest.split_once(" = ")?;
            // A line without a number is a limit of the resource.
            place.parse::<u32>().ok()?;
            Some((group, text))
        };
        if let Some((group, text)) = resource() {
            found.extend(things_of(text).into_iter().map(|thing| (thing, group)));
        }
    }
    found
}

fn things_of(text: &str) -> Vec<Thing<'_>> {
    let mut words = text.split("::");
    let script = words.next().unwrap_or_default();
    let address = |word: &str| word.split('/').next()?.parse().ok().map(Thing::Address);
    // `tmpfs` and the like may be mounted in any number of places.
    let device = |word| Some(Thing::Device(word)).filter(|_| word.contains(['/', '=']));
    let mut found: Vec<Thing<'_>> = match script {
        // They hold nothing that two nodes could share.
        "MailTo" | "Delay" => return Vec::new(),
        "IPaddr" | "IPaddr2" | "IPv6addr" | "SendArp" => words.next().and_then(address).into_iter().collect(),
        "Filesystem" => {
            let directory = |word| Some(Thing::Directory(word)).filter(|_| !word.is_empty());
            let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            device(first).into_iter().chain(directory(second)).collect()
        }
        _ if script.starts_with("ocf:") => words
            .filter_map(|word| match word.split_once('=')? {
                ("ip", value) => address(value),
                ("device", value) => device(value),
                ("directory", value) => Some(Thing::Directory(value)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    if found.is_empty() {
        found.push(Thing::Agent(text));
    }
    found
}

impl NativePlan {
    /// The canonical settings, one line a setting.
    #[must_use]
    pub fn canonical_settings(&self) -> Vec<String> {
        lines(self)
    }

    /// The settings digest: the digest of these lines.
    #[must_use]
    pub fn settings_digest(&self) -> SettingsDigest {
        SettingsDigest::of(&self.canonical_settings())
    }
}

/// The canonical settings of a plan. They contain digests of secrets, never the secrets. Settings that concern one
/// machine alone are left out.
#[must_use]
pub fn lines(plan: &NativePlan) -> Vec<String> {
    let mut lines = CanonicalLines { plan, lines: Vec::new() };
    lines.set("cluster", &plan.cluster);
    for row in plan.timing.rows(plan.nodes.len()) {
        lines.set(format!("timing: {}", row.name), DurationText(row.value));
    }
    lines.set("nodes", words(plan.nodes.iter().map(|node| node.name.as_str())));
    plan.witnesses.iter().for_each(|witness| lines.witness(witness));
    lines.set("voters", words(plan.voters.iter().map(|&voter| plan.name(voter))));
    plan.links.iter().for_each(|link| lines.link(link));
    plan.groups.iter().for_each(|group| lines.group(group));
    plan.relations.iter().for_each(|relation| lines.relation(relation));
    lines.lines
}

struct CanonicalLines<'a> {
    plan: &'a NativePlan,
    lines: Vec<String>,
}

impl CanonicalLines<'_> {
    fn set(&mut self, name: impl core::fmt::Display, value: impl core::fmt::Display) {
        self.lines.push(format!("{name} = {value}"));
    }

    fn witness(&mut self, witness: &Witness) {
        let name = &witness.name;
        self.set(format_args!("witness {name}: address"), witness.address);
        if let Some(key) = &witness.key {
            let digest = SettingsDigest(Sha256::digest(key.0).into());
            self.set(format_args!("witness {name}: key's digest"), format_args!("{:016x}", digest.short()));
        }
    }

    fn link(&mut self, link: &NativeLink) {
        let name = &link.name;
        let medium = match link.medium {
            NativeMedium::Unicast { port } => format!("unicast, port {port}"),
            NativeMedium::Broadcast { port } => format!("broadcast, port {port}"),
            NativeMedium::Multicast { group, port, ttl } => {
                format!("multicast {group}, port {port}, ttl {ttl}")
            }
            NativeMedium::Serial { baud } => format!("serial, {baud} baud"),
        };
        self.set(format_args!("link {name}"), medium);
        for (node, end) in link.ends.iter().enumerate() {
            let end = match end {
                None => continue,
                Some(LinkEnd::Address { ip, interface: None }) => ip.to_string(),
                Some(LinkEnd::Address { ip, interface: Some(interface) }) => format!("{ip}%{interface}"),
                Some(LinkEnd::Interface(name) | LinkEnd::Device(name)) => name.clone(),
            };
            let node = self.plan.name(NativeMember::Node(NodeIndex(node)));
            self.set(format_args!("link {name}: {node}"), end);
        }
    }

    fn group(&mut self, group: &NativeGroup) {
        let name = &group.name;
        let nodes =
            |nodes: &[NodeIndex]| words(nodes.iter().map(|&node| self.plan.name(NativeMember::Node(node))));
        let (prefer, candidates) = (nodes(&group.prefer), nodes(&group.candidates));
        self.set(format_args!("group {name}: prefer"), prefer);
        self.set(format_args!("group {name}: candidates"), candidates);
        self.set(format_args!("group {name}: failback"), FailbackText(group.failback));
        self.set(format_args!("group {name}: guard"), group.guard);
        self.set(format_args!("group {name}: restarts"), group.restarts.in_place);
        self.set(format_args!("group {name}: restarts-within"), DurationText(group.restarts.within));
        self.set(format_args!("group {name}: moves"), group.hold_down.moves);
        self.set(format_args!("group {name}: moves-within"), DurationText(group.hold_down.within));
        self.set(format_args!("group {name}: hold-down"), DurationText(group.hold_down.rest));
        if let Some(text) = &group.i_know {
            self.set(format_args!("group {name}: i-know"), text);
        }
        for (at, resource) in group.resources.iter().enumerate() {
            let place = format!("group {name}: resource {}", at + 1);
            let NativeResource { runs, limits, monitor_every } = resource;
            self.set(&place, agent(runs));
            for (what, time) in [
                ("start-limit", limits.start),
                ("stop-limit", limits.stop),
                ("terminate-limit", limits.terminate),
                ("monitor-limit", limits.monitor),
            ] {
                self.set(format_args!("{place} {what}"), DurationText(time));
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

/// A resource as `haresources` would write it. A file system always has four arguments, because each is known by its
/// place; a missing one is empty.
fn agent(runs: &crate::model::resource::Resource) -> String {
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
            Failback::After(time) => DurationText(time).fmt(f),
        }
    }
}

/// A monitor's interval as the file writes it.
pub(crate) struct MonitorText(pub(crate) Option<Duration>);

impl core::fmt::Display for MonitorText {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            None => f.write_str("never"),
            Some(time) => DurationText(time).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::{SettingDifference, differences, summary};

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
            let one = |it: SettingDifference| format!("{}: {:?} {:?}", it.name, it.ours, it.theirs);
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
    fn what_two_files_give_to_different_groups_is_disputed_however_it_is_written() {
        let said = |ours: &[&str], theirs: &[&str]| {
            let lines = |groups: &[&str]| {
                let line = |text: &&str| {
                    let (group, resource) = text.split_once(' ').unwrap();
                    [
                        format!("group {group}: resource 1 = {resource}"),
                        format!("group {group}: resource 1 start-limit = 60s"),
                        format!("group {group}: guard = lease"),
                    ]
                };
                groups.iter().flat_map(line).collect::<Vec<_>>()
            };
            let found = disputes(&lines(ours), &lines(theirs));
            found
                .into_iter()
                .map(|(group, it)| format!("{group} {} {}", it.resource, it.group))
                .collect::<Vec<_>>()
        };
        for (one, other, what) in [
            ("IPaddr::10.0.0.7/24", "IPaddr2::10.0.0.7/16/eth1", "10.0.0.7"),
            ("IPaddr::10.0.0.7", "ocf:heartbeat:IPaddr2::ip=10.0.0.7::nic=eth0", "10.0.0.7"),
            ("IPv6addr::fd00::7/64", "IPv6addr::fd00:0::7", ""),
            ("apache2", "apache2", "apache2"),
            (
                "ocf:heartbeat:pgsql::pgdata=/a",
                "ocf:heartbeat:pgsql::pgdata=/a",
                "ocf:heartbeat:pgsql::pgdata=/a",
            ),
            ("ocf:heartbeat:pgsql::pgdata=/a", "ocf:heartbeat:pgsql::pgdata=/b", ""),
            ("Filesystem::/dev/sda1::/srv::ext4::", "Filesystem::/dev/sda1::/mnt::::", "/dev/sda1"),
            ("Filesystem::/dev/sda1::/srv::ext4::", "Filesystem::LABEL=x::/srv::::", "/srv"),
            ("Filesystem::tmpfs::/srv::tmpfs::", "Filesystem::tmpfs::/mnt::tmpfs::", ""),
            ("MailTo::root", "MailTo::root", ""),
            ("Delay::1", "Delay::1", ""),
        ] {
            let (old, new) = (format!("web {one}"), format!("www {other}"));
            let expected = |text: String| if what.is_empty() { Vec::new() } else { [text].into() };
            assert_eq!(said(&[&old], &[&new]), expected(format!("web {what} www")));
            assert_eq!(said(&[&new], &[&old]), expected(format!("www {what} web")), "{one} {other}");
            assert_eq!(said(&[&old], &[&old]), [""; 0]);
        }
        // A resource that both files give to two groups is not in dispute, whatever else they differ in.
        assert_eq!(said(&["a x", "b x"], &["a x", "b x", "c y"]), [""; 0]);
        assert_eq!(said(&["a x", "b x"], &["a x", "c x"]), ["a x c", "b x c"]);
        assert_eq!(
            disputes(&owned(&["group a: resource 1 = x"]), &owned(&["group ", "odd", "group b: resource x"])),
            BTreeMap::new()
        );
    }

    #[test]
    fn a_digest_depends_on_every_line_and_their_limits() {
        let digest = |lines: &[&str]| SettingsDigest::of(&owned(lines));
        assert_eq!(digest(&["a", "b"]), digest(&["a", "b"]));
        assert_ne!(digest(&["a", "b"]), digest(&["ab"]));
        assert_ne!(digest(&["a", "b"]).short(), digest(&["b", "a"]).short());
        // printf 'a\n' | sha256sum
        assert_eq!(digest(&["a"]).short(), 0x8742_8fc5_2280_3d31);
    }
}
