//! Reads groups and their resources.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{net::IpAddr, ops::Range};

use toml::de::{DeTable, DeValue};

use super::{
    keys::{KEYS, TomlTable},
    members::TomlMembers,
    reader::{Text, TomlItem, TomlReader},
};
use crate::{
    config::{
        address::names_the_network,
        diag::{FilePlace, shown},
        haresources::{agent, describe, resource},
        value::{Shown, TIME_MAX},
    },
    model::{
        identity::{GroupIndex, NodeIndex},
        resource::{self, Agent},
        time::Duration,
    },
    native::{
        plan::{
            Failback, GROUPS_MAX, Guard, HoldDown, NAME_BYTES_MAX, NativeGroup, NativeLimits, NativeResource,
            NativeRestarts, RESOURCES_MAX, Relation,
        },
        timing::NativeTiming,
    },
};

/// A group as written, its table, and its place.
pub(super) struct TomlGroup<'t> {
    pub(super) group: NativeGroup,
    pub(super) table: &'t DeTable<'t>,
    pub(super) name: Text<'t>,
    pub(super) resource_places: Vec<FilePlace>,
}

const TIME_MIN: Duration = Duration::from_millis(1);

/// Settings of a group, which `[defaults]` sets for all groups.
#[derive(Clone)]
struct TomlGroupSettings {
    guard: Option<Guard>,
    failback: Failback,
    restarts: NativeRestarts,
    hold_down: HoldDown,
    work: OperationSettings,
}

/// Settings that a resource can have, too.
#[derive(Clone, Copy)]
struct OperationSettings {
    limits: NativeLimits,
    monitor_every: Option<Duration>,
}

pub(super) fn read<'t>(
    top: &'t DeTable<'t>,
    members: &TomlMembers,
    timing: &NativeTiming,
    reader: &mut TomlReader<'_>,
) -> Vec<TomlGroup<'t>> {
    let mut defaults = TomlGroupSettings {
        guard: None,
        failback: Failback::Stay,
        restarts: NativeRestarts::default(),
        hold_down: HoldDown::default(),
        work: OperationSettings {
            limits: NativeLimits::default(),
            monitor_every: Some(timing.monitor_every),
        },
    };
    let has_third_voter = members.voters.len() > 2;
    if let Some(table) =
        top.get("defaults").and_then(|item| reader.table(item, "`[defaults]` and keys below it"))
    {
        reader.keys(table, &[TomlTable::GroupOrDefaults]);
        defaults = settings(table, &defaults, has_third_voter, reader);
    }
    let mut found: Vec<TomlGroup<'t>> = Vec::new();
    for (name, item, table) in reader.tables(top, "groups") {
        reader.keys(table, &[TomlTable::Group, TomlTable::GroupOrDefaults]);
        if reader.is_name(&name, NAME_BYTES_MAX) {
            found.push(group(name, &item.span(), table, &defaults, members, reader));
        }
    }
    if found.len() > GROUPS_MAX {
        reader.absent_from_file(
            format!("there are {} groups", found.len()),
            format!("have at most {GROUPS_MAX}"),
        );
    }
    if found.is_empty() && reader.is_whole() && !reader.report.failed() {
        let warning =
            reader.report.warning("there is no group: the nodes watch each other, and nothing is taken over");
        reader
            .report
            .add(warning.cure("add one: `[groups.NAME]` and below it `resources = [\"192.0.2.10/24\"]`"));
    }
    if defaults.guard.is_none() && !has_third_voter && found.iter().any(|it| !it.table.contains_key("guard"))
    {
        let message = "groups without `guard` get the guard `none`: with two voters a node cannot tell a dead node \
                       from an unreachable one. Each node takes over after one lease of silence, and in a partition \
                       both run the groups";
        let cure = "add a witness (`locum witness` on a third machine), or write `guard = \"none\"`";
        let warning = reader.report.warning(message).cure(cure);
        if !members.voters.is_empty() {
            reader.report.add(warning);
        }
    }
    twice(&found, reader);
    found
}

fn group<'t>(
    name: Text<'t>,
    span: &Range<usize>,
    table: &'t DeTable<'t>,
    defaults: &TomlGroupSettings,
    members: &TomlMembers,
    reader: &mut TomlReader<'_>,
) -> TomlGroup<'t> {
    let has_third_voter = members.voters.len() > 2;
    let TomlGroupSettings { guard, failback, restarts, hold_down, work } =
        settings(table, defaults, has_third_voter, reader);
    let guard = guard.unwrap_or(if has_third_voter { Guard::Lease } else { Guard::None });
    let (resources, resource_places) = resources(&name, span, table, &work, reader);
    let names = members.nodes.iter().map(|node| node.name.as_str());
    let mut nodes = |key: &str| -> Option<Vec<(NodeIndex, Text<'t>)>> {
        let choices = reader.members(table.get(key)?, "node", names.clone());
        Some(choices.into_iter().map(|(index, text)| (NodeIndex(index), text)).collect())
    };
    let prefer = nodes("prefer").unwrap_or_default();
    let allowed = nodes("nodes").map(|nodes| nodes.into_iter().map(|(node, _)| node).collect::<Vec<_>>());
    if let Some(allowed) = &allowed {
        if allowed.is_empty() {
            reader.absent(
                &name.span,
                "no node may run this group",
                "name some in `nodes`, or leave it out for all",
            );
        }
        for (node, text) in &prefer {
            if !allowed.contains(node) {
                let message = format!("`{}` is preferred and not among `nodes`", shown(text.text));
                reader.error(text, message, "add it to `nodes`, or take it out of `prefer`");
            }
        }
    }
    let prefer = prefer.into_iter().map(|(node, _)| node).collect::<Vec<_>>();
    let all = (0..members.nodes.len()).map(NodeIndex);
    let others =
        all.filter(|node| !prefer.contains(node) && allowed.as_ref().is_none_or(|them| them.contains(node)));
    let candidates = prefer.iter().copied().chain(others).collect::<Vec<_>>();
    let i_know = table.get("i-know").and_then(|item| reader.text(item, "a sentence")).and_then(|text| {
        if text.text.trim().is_empty() {
            reader.error(&text, "this is empty", "write why it is safe");
            return None;
        }
        Some(text.text.to_string())
    });
    let group = NativeGroup {
        name: name.text.into(),
        resources,
        prefer,
        candidates,
        failback,
        guard,
        restarts,
        hold_down,
        i_know,
    };
    wrong_addresses(&group, &resource_places, members, reader);
    if !table.contains_key("i-know") && guard < Guard::Watchdog {
        shared_data(&group, &resource_places, reader);
    }
    TomlGroup { group, table, name, resource_places }
}

/// Explains each group, once it is known which groups stay together.
pub(super) fn explain(
    found: &[TomlGroup<'_>],
    relations: &[Relation],
    members: &TomlMembers,
    timing: &NativeTiming,
    reader: &mut TomlReader<'_>,
) {
    for (index, TomlGroup { group, name, .. }) in found.iter().enumerate() {
        let is_of_family = relations.iter().any(|relation| relation.is_family_of(GroupIndex(index)));
        explain_one(group, name, group.takeover_bound(timing, is_of_family), members, reader);
    }
}

fn explain_one(
    group: &NativeGroup,
    name: &Text<'_>,
    bound: Duration,
    members: &TomlMembers,
    reader: &mut TomlReader<'_>,
) {
    let order = group.candidates.iter().map(|node| members.nodes[node.0].name.as_str()).collect::<Vec<_>>();
    let why = if group.prefer.is_empty() { "no preference" } else { "preferred first" };
    let text = format!(
        "group {}: guard {}; on {} ({why}); runs again within {} after its node dies",
        group.name,
        group.guard,
        order.join(", "),
        Shown(bound)
    );
    reader.explain(&name.span, text);
}

fn settings(
    table: &DeTable<'_>,
    defaults: &TomlGroupSettings,
    has_third_voter: bool,
    reader: &mut TomlReader<'_>,
) -> TomlGroupSettings {
    let mut settings = defaults.clone();
    settings.work = work(table, defaults.work, reader);
    if let Some(item) = table.get("guard") {
        settings.guard = guard(item, has_third_voter, reader).or(settings.guard);
    }
    if let Some(item) = table.get("failback") {
        settings.failback = failback(item, reader).unwrap_or(settings.failback);
    }
    let mut time = |key: &str, setting: &mut Duration| {
        let read = table.get(key).and_then(|item| reader.time(item, TIME_MIN..=TIME_MAX));
        *setting = read.unwrap_or(*setting);
    };
    time("restarts-within", &mut settings.restarts.within);
    time("moves-within", &mut settings.hold_down.within);
    time("hold-down", &mut settings.hold_down.rest);
    let mut whole = |key: &str, least: u32, setting: &mut u32| {
        let read = table.get(key).and_then(|item| reader.whole(item, least..=1000));
        *setting = read.unwrap_or(*setting);
    };
    whole("restarts", 0, &mut settings.restarts.in_place);
    whole("moves", 1, &mut settings.hold_down.moves);
    settings
}

fn work(table: &DeTable<'_>, defaults: OperationSettings, reader: &mut TomlReader<'_>) -> OperationSettings {
    let OperationSettings { mut limits, mut monitor_every } = defaults;
    for (key, setting) in [
        ("start-limit", &mut limits.start),
        ("stop-limit", &mut limits.stop),
        ("terminate-limit", &mut limits.terminate),
        ("monitor-limit", &mut limits.monitor),
    ] {
        let read = table.get(key).and_then(|item| reader.time(item, TIME_MIN..=TIME_MAX));
        *setting = read.unwrap_or(*setting);
    }
    if let Some(item) = table.get("monitor-every") {
        let is_never = matches!(item.get_ref(), DeValue::String(text) if text == "never");
        let least = Duration::from_millis(100);
        let mut read = || reader.time(item, least..=TIME_MAX).or(monitor_every);
        monitor_every = if is_never { None } else { read() };
    }
    OperationSettings { limits, monitor_every }
}

fn guard(item: &TomlItem<'_>, has_third_voter: bool, reader: &mut TomlReader<'_>) -> Option<Guard> {
    let text = reader.text(item, r#"`"none"` or `"lease"`"#)?;
    let Some(guard) = Guard::ALL.into_iter().find(|guard| guard.name() == text.text) else {
        reader.unknown(&text, "guard", Guard::ALL.into_iter().map(Guard::name));
        return None;
    };
    match guard {
        Guard::Watchdog | Guard::Fence => {
            let cure = r#"write `"lease"`: it protects addresses exactly, and data only as far as groups say `i-know`"#;
            reader.error(&text, format!("the guard `{guard}` is not there yet"), cure);
        }
        Guard::Lease if !has_third_voter => {
            let message = "the guard `lease` needs a third voter: when one of two voters falls silent, the other \
                           one is not a majority";
            let cure =
                "add a witness (`locum witness` on a third machine prints its line), or write `\"none\"`";
            if reader.is_whole() {
                reader.error(&text, message, cure);
            }
        }
        Guard::Lease | Guard::None => {}
    }
    Some(guard)
}

fn failback(item: &TomlItem<'_>, reader: &mut TomlReader<'_>) -> Option<Failback> {
    match item.get_ref() {
        DeValue::String(text) if text == "stay" => Some(Failback::Stay),
        DeValue::String(text) if text == "when-asked" => Some(Failback::WhenAsked),
        DeValue::String(text) if text.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            reader.time(item, Duration::ZERO..=TIME_MAX).map(Failback::After)
        }
        DeValue::Integer(_) => reader.time(item, Duration::ZERO..=TIME_MAX).map(Failback::After),
        _ => {
            let text = reader.text(item, r#"`"stay"`, `"when-asked"` or a time"#)?;
            let message = format!("`{}` is not a failback setting", shown(text.text));
            reader.error(
                &text,
                message,
                r#"write `"stay"`, `"when-asked"`, or how long the node must have been alive: `"5min"`"#,
            );
            None
        }
    }
}

fn resources<'t>(
    name: &Text<'_>,
    span: &Range<usize>,
    table: &'t DeTable<'t>,
    defaults: &OperationSettings,
    reader: &mut TomlReader<'_>,
) -> (Vec<NativeResource>, Vec<FilePlace>) {
    let example = r#"`resources = ["192.0.2.10/24", { unit = "nginx" }]`"#;
    let mut found = (Vec::new(), Vec::new());
    let Some(item) = table.get("resources") else {
        let message = format!("the group `{}` has no resources", shown(name.text));
        reader.absent(span, message, format!("write {example} below it"));
        return found;
    };
    let items = match item.get_ref() {
        DeValue::Array(items) => items.iter().collect::<Vec<_>>(),
        _ => [item].into(),
    };
    if items.is_empty() {
        let message = format!("the group `{}` has no resources", shown(name.text));
        reader.absent(&item.span(), message, format!("write {example}"));
    }
    if items.len() > RESOURCES_MAX {
        let message = format!("there are {} resources", items.len());
        reader.error_at(&item.span(), message, format!("a group has at most {RESOURCES_MAX}"));
    }
    for item in items {
        let work = match item.get_ref() {
            DeValue::Table(table) => work(table, *defaults, reader),
            _ => *defaults,
        };
        let Some(runs) = one_resource(item, reader) else { continue };
        let limits = work.limits;
        let monitor = work.monitor_every.map_or("never".into(), |every| format!("every {}", Shown(every)));
        let text = format!(
            "{}: {}; start within {}, stop within {}, monitor {monitor}",
            name.text,
            describe(&runs),
            Shown(limits.start),
            Shown(limits.stop)
        );
        reader.explain(&item.span(), text);
        found.1.push(reader.place(&item.span()));
        found.0.push(NativeResource { runs, limits, monitor_every: work.monitor_every });
    }
    found
}

/// The keys that name the kind of a resource.
const KINDS: [&str; 5] = ["address", "unit", "script", "ocf", "mount"];

fn one_resource(item: &TomlItem<'_>, reader: &mut TomlReader<'_>) -> Option<resource::Resource> {
    let DeValue::Table(table) = item.get_ref() else {
        let text = reader
            .text(item, r#"a text such as `"192.0.2.10/24"`, or a table such as `{ unit = "nginx" }`"#)?;
        return resource(text.text).map_err(|fault| reader.fault(&text, fault)).ok();
    };
    let limits = KEYS.iter().filter(|key| key.name.ends_with("-limit") || key.name == "monitor-every");
    let limits = limits.map(|key| key.name).collect::<Vec<_>>();
    let rest = table.iter().filter(|(key, _)| !limits.contains(&key.get_ref().as_ref()));
    let rest = rest.map(|(key, value)| (key.clone(), value.clone())).collect::<DeTable<'_>>();
    let all_known = reader.keys(&rest, &[TomlTable::Resource]);
    let kinds = KINDS.into_iter().filter(|kind| table.contains_key(*kind)).collect::<Vec<_>>();
    let [kind] = *kinds else {
        let message = match kinds.is_empty() {
            true => "the resource has no kind".to_string(),
            false => format!("the resource is {} at once", kinds.join(" and ")),
        };
        let cure = format!("write one of `{}`", KINDS.join("`, `"));
        if all_known {
            reader.absent(&item.span(), message, cure); // otherwise the unknown key causes an error
        }
        return None;
    };
    let belongs = |key: &str| match key {
        "arguments" => kind == "script",
        "parameters" => kind == "ocf",
        "on" | "type" | "options" => kind == "mount",
        _ => true,
    };
    for (key, _) in table {
        if !belongs(key.get_ref()) {
            let message = format!("`{}` does not apply to a resource with `{kind}`", key.get_ref());
            reader.error_at(&key.span(), message, "remove it");
        }
    }
    let value = table.get(kind)?;
    let main = reader.text(value, "a text")?;
    let (script, args) = words(kind, &main, table, reader)?;
    let borrowed = args.iter().map(String::as_str).collect::<Vec<_>>();
    let agent = agent(&script, &borrowed).map_err(|fault| reader.fault(&main, fault)).ok()?;
    let agent_text = core::iter::once(script.as_str()).chain(borrowed).collect::<Vec<_>>().join("::");
    let text = agent_text.trim_end_matches(':').to_string();
    let args = args.into_iter().filter(|arg| !arg.is_empty()).collect();
    Some(resource::Resource { text, script, args, agent })
}

/// The script and its arguments, in the form of `haresources`.
fn words(
    kind: &str,
    main: &Text<'_>,
    table: &DeTable<'_>,
    reader: &mut TomlReader<'_>,
) -> Option<(String, Vec<String>)> {
    let mut text = |key: &str| {
        let text = table.get(key).and_then(|item| reader.text(item, "a text"));
        text.map(|text| text.text.to_string())
    };
    let name = main.text.to_string();
    Some(match kind {
        "address" => {
            let is_v6 =
                main.text.split('/').next().is_some_and(|ip| ip.parse::<core::net::Ipv6Addr>().is_ok());
            (if is_v6 { "IPv6addr" } else { "IPaddr2" }.into(), [name].into())
        }
        "unit" => (if name.contains('.') { name } else { format!("{name}.service") }, Vec::new()),
        "script" => {
            let args =
                table.get("arguments").map(|item| reader.texts(item, "a list of texts")).unwrap_or_default();
            (name, args.into_iter().map(|arg| arg.text.to_string()).collect())
        }
        "mount" => {
            let Some(directory) = text("on") else {
                reader.absent(&main.span, "the mount has no directory", r#"add `on = "/srv/DIRECTORY"`"#);
                return None;
            };
            let [kind, options] = ["type", "options"].map(|key| text(key).unwrap_or_default());
            ("Filesystem".into(), [name, directory, kind, options].into())
        }
        _ => (format!("ocf:{name}"), parameters(table, reader)),
    })
}

fn parameters(table: &DeTable<'_>, reader: &mut TomlReader<'_>) -> Vec<String> {
    let Some(item) = table.get("parameters") else { return Vec::new() };
    let Some(parameters) = reader.table(item, r#"`parameters = { name = "value" }`"#) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (name, item) in parameters {
        let value = match item.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            DeValue::Boolean(truth) => truth.to_string(),
            _ => match reader.text(item, "a text") {
                Some(text) => text.text.to_string(),
                None => continue,
            },
        };
        found.push(format!("{}={value}", name.get_ref()));
    }
    found
}

/// OCF agents whose data must not be used by two nodes at once. `Filesystem` has an agent of its own.
const DATA: [&str; 12] = [
    "Filesystem",
    "LVM",
    "LVM-activate",
    "drbd",
    "drbddisk",
    "drbdupper",
    "Raid1",
    "mdraid",
    "ZFS",
    "iscsi",
    "raw",
    "rawdevice",
];

/// Whether two nodes must not run this resource at once because of its data.
pub(in crate::config) fn holds_data(resource: &resource::Resource) -> bool {
    match &resource.agent {
        Agent::Filesystem { .. } => true,
        Agent::Ocf { kind, parameters, .. } => {
            DATA.contains(&kind.as_str()) || parameters.iter().any(|(_, value)| is_raw_device(value))
        }
        Agent::OcfFile { kind, .. } => DATA.contains(&kind.as_str()),
        Agent::Script => {
            DATA.contains(&resource.script.as_str())
                || resource.script.ends_with(".mount")
                || resource.args.iter().any(|word| is_raw_device(word))
        }
        Agent::Address(_) | Agent::SendArp(_) | Agent::MailTo { .. } | Agent::Delay { .. } => false,
    }
}

/// Whether a word names a raw device with data, for any agent.
fn is_raw_device(word: &str) -> bool {
    const NO_DATA: [&str; 7] = ["null", "zero", "random", "urandom", "log", "watchdog", "tty"];
    let device = word.strip_prefix("/dev/");
    device.is_some_and(|device| !NO_DATA.iter().any(|harmless| device.starts_with(harmless)))
}

/// Refuses service addresses that cannot work. A node's own address would be taken from the node, and its gate would
/// shut that node's link. The address of a network answers to no client.
fn wrong_addresses(
    group: &NativeGroup,
    places: &[FilePlace],
    members: &TomlMembers,
    reader: &mut TomlReader<'_>,
) {
    for (resource, place) in group.resources.iter().zip(places) {
        let Agent::Address(address) = &resource.runs.agent else { continue };
        let ip = address.ip;
        if names_the_network(address) {
            let message = format!("{ip} is the first or last address of its network, which no host has");
            reader.warning(&place.span, message, "check the address and the mask bits");
        }
        let whose = match members.own_address(ip) {
            Some((node, link)) => format!("the node `{node}` on the link `{link}`"),
            None => match members.witnesses.iter().find(|witness| witness.address.ip() == ip) {
                Some(witness) => format!("the witness `{}`", witness.name),
                None => continue,
            },
        };
        let cure = "take a free address of the network in which the clients are";
        reader.error_at(&place.span, format!("{ip} is the address of {whose}"), cure);
    }
}

/// Warns about shared data: with a guard below `watchdog`, processes of two nodes can overlap.
fn shared_data(group: &NativeGroup, places: &[FilePlace], reader: &mut TomlReader<'_>) {
    for (resource, place) in group.resources.iter().zip(places) {
        if !holds_data(&resource.runs) {
            continue;
        }
        let message = format!(
            "the guard `{}` does not protect data: two nodes may use {} at once for a while",
            group.guard,
            shown(&resource.runs.text)
        );
        let cure = "take it out of the group, or write `i-know = \"…\"` with the reason why it is safe";
        let text = Text { text: &resource.runs.text, span: place.span.clone() };
        reader.error(&text, message, cure);
    }
}

/// The optional suffix of a unit's name: `web` means the unit `web.service` if no script has that name.
pub(in crate::config) const UNIT: &str = ".service";

/// Finds duplicates in the file: addresses must be unique, other resources should be.
fn twice(found: &[TomlGroup<'_>], reader: &mut TomlReader<'_>) {
    let mut seen: alloc::collections::BTreeMap<String, (usize, &str)> = alloc::collections::BTreeMap::new();
    for it in found {
        for (resource, place) in it.group.resources.iter().zip(&it.resource_places) {
            let ip: Option<IpAddr> = match &resource.runs.agent {
                Agent::Address(address) => Some(address.ip),
                Agent::Delay { .. } | Agent::MailTo { .. } => continue,
                _ => None,
            };
            let what = ip.map_or_else(|| resource.runs.text.clone(), |ip| ip.to_string());
            let same = what.strip_suffix(UNIT).unwrap_or(&what);
            let Some((line, group)) = seen.get(same) else {
                seen.insert(same.into(), (place.line, it.name.text));
                continue;
            };
            let message = format!("{} is already in line {line} (group {group})", shown(&what));
            match ip {
                Some(_) => {
                    let cure = "leave one: an address belongs to one group";
                    reader.error_at(&place.span, message, cure);
                }
                None => {
                    let cure = "on one node both are one thing: stopping the one stops the other";
                    reader.warning(&place.span, message, cure);
                }
            }
        }
    }
}
