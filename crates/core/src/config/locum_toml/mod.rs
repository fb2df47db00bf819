//! Reads `locum.toml`: text in, a checked [`NativePlan`] out, and a [`Diag`] for each error and remark, all at once.
//!
//! Nodes are read first, because everything else names them; then links, witnesses and voters; then groups and their
//! relations. The order of the tables in the file does not matter.

mod groups;
pub mod keys;
mod members;
mod reader;
mod relations;
#[cfg(test)]
mod tests;

use alloc::{format, string::String, vec::Vec};

use toml::de::{DeTable, Error as Broken};

pub(super) use groups::{UNIT, holds_data};
use keys::TomlTable;
use reader::{LineIndex, Text, TomlReader};

use super::{
    diag::{Diag, DiagReport, Explained, FileName, FilePlace, shown},
    lines::FILE_BYTES_MAX,
    value::{Shown, united_time},
};
use crate::{
    model::{
        identity::NodeIndex,
        logging::Logging,
        time::{Duration, DurationText},
    },
    native::{
        plan::{KEY_FILE, Local, NativeMember, NativePlan},
        timing::{GROUPS_A_SECOND, NativeTiming, PACE, PACE_MAX, PACE_MIN},
        wire::members::{Twins, check_groups, check_members},
    },
};

/// The result of checking the file.
#[derive(Clone, Debug)]
pub struct CheckedLocumToml {
    /// The plan, if there is no error.
    pub plan: Option<NativePlan>,
    /// The plan as far as it could be read, even with errors. Use it to examine the host, never to start.
    pub draft: Option<NativePlan>,
    /// The member that reads the file. `None` if the file does not name it; then the draft's `me` is the first node.
    pub me: Option<NativeMember>,
    /// Errors, warnings and remarks, by line.
    pub diags: Vec<Diag>,
    /// The explanations of the lines, by line.
    pub explained: Vec<Explained>,
    /// The places of the parts of the plan.
    pub places: LocumTomlPlaces,
}

/// The places of the parts of a plan in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocumTomlPlaces {
    /// The end of each node, by link.
    pub ends: Vec<Vec<Option<FilePlace>>>,
    /// The place of each resource, by group.
    pub resources: Vec<Vec<FilePlace>>,
}

/// Reads the file as the node or witness of that name.
#[must_use]
pub fn check(text: &[u8], me: &str) -> CheckedLocumToml {
    let mut report = DiagReport::new(FileName::LocumToml);
    let read = as_text(text, &mut report).and_then(|text| read(text, &me.to_lowercase(), &mut report));
    let (draft, places, me) = match read {
        Some((draft, places, me)) => (Some(draft), places, me),
        None => (None, LocumTomlPlaces::default(), None),
    };
    let plan = draft.clone().filter(|_| me.is_some() && !report.failed());
    let DiagReport { mut diags, mut explained, .. } = report;
    diags.sort_by_key(|diag| (diag.place.line, diag.place.span.start));
    explained.sort_by_key(|line| line.line);
    CheckedLocumToml { plan, draft, me, diags, explained, places }
}

/// Quotes a text as the file writes it.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Reads a pace as written on a command line.
///
/// # Errors
/// The fault of the pace, with its cure.
pub fn pace(text: &str) -> Result<Duration, String> {
    let pace = united_time(text).map_err(|(message, cure)| match cure {
        Some(cure) => format!("{message}: {cure}"),
        None => message,
    })?;
    match (PACE_MIN..=PACE_MAX).contains(&pace) {
        true => Ok(pace),
        false => Err(format!("a pace is {} to {}", DurationText(PACE_MIN), DurationText(PACE_MAX))),
    }
}

/// Refuses names with equal digests: frames carry digests instead of names, and two may be equal by chance.
fn check_digests(
    members: &members::TomlMembers,
    groups: &[groups::TomlGroup<'_>],
    reader: &mut TomlReader<'_>,
) {
    let nodes = members.nodes.iter().map(|node| node.name.as_str());
    let names = nodes.chain(members.witnesses.iter().map(|witness| witness.name.as_str()));
    let members = check_members(names);
    let groups = check_groups(groups.iter().map(|group| group.group.name.as_str()));
    for Twins(first, second) in [members, groups].into_iter().filter_map(Result::err) {
        // A repeated name has been reported.
        if first != second {
            let message =
                format!("`{first}` and `{second}` cannot be told apart in frames: their digests are equal");
            reader.absent_from_file(message, "give one of them another name");
        }
    }
}

fn as_text<'t>(text: &'t [u8], report: &mut DiagReport) -> Option<&'t str> {
    if text.len() > FILE_BYTES_MAX {
        report.add(
            report.error(format!("the file is larger than {FILE_BYTES_MAX} bytes")).cure("make it shorter"),
        );
        return None;
    }
    match core::str::from_utf8(text) {
        Ok(text) if text.starts_with('\u{feff}') => {
            let diag = report.error("there is a byte order mark, as editors of other systems write it");
            report.add(diag.at(&LineIndex::of(text).place(0..3)).cure("save the file as UTF-8 without it"));
            None
        }
        Ok(text) => Some(text),
        Err(error) => {
            let good = core::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default();
            let place = LineIndex::of(good).place(good.len()..good.len());
            report.add(report.error("this is not UTF-8").at(&place).cure("save the file as UTF-8"));
            None
        }
    }
}

fn read(
    text: &str,
    me: &str,
    report: &mut DiagReport,
) -> Option<(NativePlan, LocumTomlPlaces, Option<NativeMember>)> {
    let (document, broken) = DeTable::parse_recoverable(text);
    let lines = LineIndex::of(text);
    let mut broken_from: Option<usize> = None;
    for error in &broken {
        let span = error.span().unwrap_or_default();
        let place = lines.place(span.clone());
        if !is_local(error) {
            broken_from = Some(broken_from.map_or(place.line, |line| line.min(place.line)));
        }
        let wrong = text.get(span).unwrap_or_default();
        let (message, cure) = broken_form(error.message(), wrong);
        report.add(report.error(message).at(&place).cure(cure));
    }
    let mut reader = TomlReader { lines, report, broken_from, lacks_node: false };
    let top = document.get_ref();
    reader.keys(top, &[TomlTable::Top]);
    let cluster = match top.get("cluster") {
        Some(item) => reader.name(item, r#"the cluster's name, such as `"shop"`"#),
        None => {
            reader.absent_from_file("the cluster has no name", r#"begin with `cluster = "NAME"`"#);
            None
        }
    };
    if let Some(cluster) = &cluster {
        reader.explain(&cluster.span, format!("the cluster is {}", shown(cluster.text)));
    }
    let timing = timing(top, &mut reader);
    let members = members::read(top, me, &mut reader);
    let mut groups = groups::read(top, &members, &timing, &mut reader);
    check_digests(&members, &groups, &mut reader);
    crowded(groups.len() as u64, &timing, &mut reader);
    let relations = relations::read(&mut groups, &mut reader);
    groups::explain(&groups, &relations, &members, &timing, &mut reader);
    let local = local(top, &mut reader);
    let places = LocumTomlPlaces {
        ends: members.end_places,
        resources: groups.iter().map(|group| group.resource_places.clone()).collect(),
    };
    let plan = NativePlan {
        cluster: cluster.map(|cluster| cluster.text.into()).unwrap_or_default(),
        me: members.me.unwrap_or(NativeMember::Node(NodeIndex(0))),
        timing,
        nodes: members.nodes,
        witnesses: members.witnesses,
        voters: members.voters,
        links: members.links,
        groups: groups.into_iter().map(|found| found.group).collect(),
        relations,
        local,
    };
    Some((plan, places, members.me))
}

/// Whether an error leaves the lines after it in their tables.
fn is_local(error: &Broken) -> bool {
    ["string values must be quoted", "missing comma", "duplicate key"]
        .iter()
        .any(|start| error.message().starts_with(start))
}

/// The message about a broken form, and its cure.
fn broken_form(message: &str, wrong: &str) -> (String, String) {
    let name = shown(wrong);
    if message.starts_with("string values must be quoted") {
        return match wrong {
            "" => {
                ("the value is missing".into(), "write it after the `=`; texts and times need quotes".into())
            }
            _ => ("texts and times need quotes".into(), format!(r#"write `"{name}"`"#)),
        };
    }
    if message.starts_with("duplicate key") {
        return (format!("`{name}` appears twice"), "leave one of them".into());
    }
    (message.into(), "see docs/locum-toml.md for the file's form".into())
}

fn timing(top: &DeTable<'_>, reader: &mut TomlReader<'_>) -> NativeTiming {
    let pace = top.get("pace").and_then(|item| reader.time(item, PACE_MIN..=PACE_MAX));
    let timing = NativeTiming::of(pace.unwrap_or(PACE));
    let text = format!(
        "a silent node loses its groups after {}; a beat every {} (see `locum explain timing`)",
        Shown(timing.lease),
        Shown(timing.beat)
    );
    match top.get("pace") {
        Some(item) => reader.explain(&item.span(), text),
        None => reader.report.explain(0, text),
    }
    timing
}

/// Warns about a valid file with more groups than the daemons can handle at that pace.
fn crowded(groups: u64, timing: &NativeTiming, reader: &mut TomlReader<'_>) {
    let most = timing.groups_advised();
    if groups <= most || reader.report.failed() {
        return;
    }
    let pace = Duration::from_millis((groups * 1000).div_ceil(GROUPS_A_SECOND).next_multiple_of(100));
    let message = format!(
        "{groups} groups are too many for a pace of {}: every {} all of them are renewed, and a common machine keeps up \
         with {most}",
        Shown(timing.lease),
        Shown(timing.beat)
    );
    let warning = reader.report.warning(message);
    reader
        .report
        .add(warning.cure(format!("write `pace = \"{}\"`, or have fewer groups", DurationText(pace))));
}

fn local(top: &DeTable<'_>, reader: &mut TomlReader<'_>) -> Local {
    let key_file = top.get("key-file").and_then(|item| reader.text(item, r#"`"locum.key"`"#));
    let mut local = Local {
        key_file: key_file.map_or(KEY_FILE, |file| file.text).into(),
        realtime: Some(1),
        logging: Logging { bad_packets: true, ..Logging::default() },
        watchdog: None,
    };
    if local.key_file.is_empty() || local.key_file.ends_with('/') {
        let text = Text {
            text: &local.key_file,
            span: top.get("key-file").map(toml::Spanned::span).unwrap_or_default(),
        };
        reader.error(&text, "this is not a file name", r#"write `"locum.key"`"#);
    }
    let Some(table) = top.get("local").and_then(|item| reader.table(item, "`[local]` and keys below it"))
    else {
        return local;
    };
    reader.keys(table, &[TomlTable::Local]);
    let mut path = |name: &str| {
        let text = reader.text(table.get(name)?, "an absolute path")?;
        if !text.text.starts_with('/') {
            reader.error(
                &text,
                format!("`{}` is not an absolute path", shown(text.text)),
                "begin it with `/`",
            );
            return None;
        }
        Some(text.text.into())
    };
    local.watchdog = path("watchdog");
    local.logging.logfile = path("log-file");
    local.logging.debugfile = path("debug-file");
    if let Some(item) = table.get("log-facility") {
        local.logging.facility = reader.text(item, r#"`"daemon"`"#).and_then(|text| {
            let is_known = super::directives::FACILITIES.contains(&text.text);
            if !is_known {
                reader.unknown(&text, "syslog facility", super::directives::FACILITIES.iter().copied());
            }
            (is_known && text.text != "none").then(|| text.text.into())
        });
    }
    let debug = table.get("debug").and_then(|item| reader.whole(item, 0..=255));
    local.logging.debug = debug.and_then(|debug| u8::try_from(debug).ok()).unwrap_or(0);
    let priority = table.get("realtime-priority").and_then(|item| reader.whole(item, 1..=99));
    let priority = priority.and_then(|priority| u8::try_from(priority).ok()).unwrap_or(1);
    let realtime = table.get("realtime").and_then(|item| reader.truth(item)).unwrap_or(true);
    local.realtime = realtime.then_some(priority);
    local
}
