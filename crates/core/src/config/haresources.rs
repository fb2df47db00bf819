//! Reads `haresources`: the groups and the node that each prefers. Facts: `docs/heartbeat.md`, section 4.
//!
//! ```text
//! file     = line*                  "\" at the end of a line joins it with the next, "#" begins a comment
//! line     = node resource+
//! resource = script [ "::" arg ]*   |   address
//! ```

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    address::{
        AddressFamily, ConfigFault, address, has_mask_for_broadcast, interface, is_bare, names_the_network,
        plain,
    },
    diag::{Diag, DiagReport, FilePlace, shown},
    lines::{FileLine, FileWord, is_blank, lines, word},
    locum_toml::UNIT,
    value::{Shown, time},
};
use crate::{
    model::{
        identity::NodeIndex,
        resource::{Agent, Resource},
    },
    r1::plan::R1Group,
};

/// The groups, and the places of their resources.
#[derive(Default)]
pub(super) struct HaresourcesGroups {
    pub(super) groups: Vec<R1Group>,
    /// The place of each resource, by group.
    pub(super) places: Vec<Vec<FilePlace>>,
}

/// Reads the file. `nodes` are those of `ha.cf`; if there are none, the nodes of the lines are not checked.
pub(super) fn read(text: &[u8], nodes: &[String], report: &mut DiagReport) -> HaresourcesGroups {
    let mut found = HaresourcesGroups::default();
    for words in logical_lines(text, report) {
        line(&words, nodes, report, &mut found);
    }
    twice(&found, report);
    if found.groups.is_empty() && !report.failed() {
        report.add(
            report
                .warning("there is no group: the nodes watch each other, and nothing is ever taken over")
                .cure("add a line such as `NODE 192.0.2.10 httpd`"),
        );
    }
    found
}

/// The words of each line, with continuations joined. A line with a word that is not text is left out.
fn logical_lines(text: &[u8], report: &mut DiagReport) -> Vec<Vec<FileWord>> {
    let mut joined: Vec<Vec<FileWord>> = Vec::new();
    let mut current: Vec<(Vec<u8>, FilePlace)> = Vec::new();
    let mut touches = false; // the last word ends at the backslash
    for line in lines(text, report) {
        let (line, continues) = without_backslash(line);
        for (at, part) in line.parts(is_blank).into_iter().enumerate() {
            let place = line.place(part.clone());
            match current.last_mut() {
                Some((bytes, first)) if at == 0 && touches && part.start == 0 => {
                    bytes.extend_from_slice(&line.bytes[part]);
                    first.span.end = place.span.end;
                }
                _ => current.push((line.bytes[part].to_vec(), place)),
            }
        }
        touches = continues && line.bytes.last().is_some_and(|&byte| !is_blank(byte));
        if !continues {
            close(&mut current, &mut joined, report);
        }
    }
    close(&mut current, &mut joined, report);
    joined
}

fn close(current: &mut Vec<(Vec<u8>, FilePlace)>, joined: &mut Vec<Vec<FileWord>>, report: &mut DiagReport) {
    let mut words = Vec::new();
    let mut whole = true;
    for (bytes, place) in current.drain(..) {
        match word(&bytes, place, report) {
            Ok(word) => words.push(word),
            Err(diag) => {
                report.add(diag);
                whole = false;
            }
        }
    }
    if whole && !words.is_empty() {
        joined.push(words);
    }
}

/// The line without comment and line end, and whether the next line continues it.
fn without_backslash(line: FileLine<'_>) -> (FileLine<'_>, bool) {
    let line = line.uncommented();
    let bytes = line.bytes.strip_suffix(b"\r").unwrap_or(line.bytes);
    match bytes.strip_suffix(b"\\") {
        Some(bytes) => (FileLine { bytes, ..line }, true),
        None => (FileLine { bytes, ..line }, false),
    }
}

fn line(words: &[FileWord], nodes: &[String], report: &mut DiagReport, found: &mut HaresourcesGroups) {
    let Some((node, resources)) = words.split_first() else { return };
    let name = node.text.to_lowercase();
    let index = nodes.iter().position(|known| *known == name);
    if index.is_none() && !nodes.is_empty() {
        report.add(bad_node(node, nodes, report));
    }
    let Some(first) = resources.first() else {
        let cure = "write the resources after the node: `NODE ADDRESS SCRIPT`";
        report.add(report.error("the line names a node and no resource").word(node).cure(cure));
        return;
    };
    let group = shown(&first.text);
    report.explain(
        node.place.line,
        format!(
            "group {group}: preferred node {}; started from left to right, stopped from right to left",
            shown(&name)
        ),
    );
    let mut group = Vec::new();
    let mut places = Vec::new();
    for word in resources {
        match written(&word.text) {
            Ok(resource) => {
                report.explain(word.place.line, format!("{}: {}", shown(&word.text), describe(&resource)));
                remarks(&resource, word, report);
                group.push(resource);
                places.push(word.place.clone());
            }
            Err((message, cure)) => {
                let mut diag = report.error(message).word(word);
                diag.cure = cure;
                report.add(diag);
            }
        }
    }
    // A line with a fault makes no usable group, but it can still be compared with other lines.
    let node = NodeIndex(index.unwrap_or(0));
    found.groups.push(R1Group { node, key: first.text.clone(), resources: group });
    found.places.push(places);
}

fn bad_node(word: &FileWord, nodes: &[String], report: &DiagReport) -> Diag {
    let all = nodes.iter().map(|node| shown(node)).collect::<Vec<_>>().join(", ");
    let message = format!("`{}` is not a node of this cluster; ha.cf has {all}", shown(&word.text));
    let glued = nodes.iter().find_map(|node| {
        let rest = word.text.get(..node.len()).filter(|begin| begin.eq_ignore_ascii_case(node));
        let rest = rest.and_then(|_| word.text.get(node.len()..)).filter(|rest| !rest.is_empty())?;
        (is_bare(rest).is_some() || rest.contains("::")).then_some((node, rest))
    });
    if let Some((node, rest)) = glued {
        let cure =
            format!("a blank is missing after `{}`: write `{} {}`", shown(node), shown(node), shown(rest));
        return report.error(message).word(word).cure(cure);
    }
    let cure = match nodes.iter().find(|node| is_same_host(node, &word.text)) {
        Some(node) => format!("write `{}`: the line begins with the preferred node, named as in ha.cf", shown(node)),
        None => "begin the line with the preferred node, named as in ha.cf; end the line before with `\\` if this is \
                 its continuation"
            .into(),
    };
    report.error(message).word(word).cure(cure)
}

/// Whether two names differ only in case or in their domain.
pub(super) fn is_same_host(a: &str, b: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    short(a) == short(b)
}

/// Reads one word of `haresources` as a resource, also in forms that heartbeat takes and a new file should not use.
///
/// # Errors
/// The fault of the word, with its cure.
fn written(text: &str) -> Result<Resource, ConfigFault> {
    near_miss(text)?;
    let mut resource = match plain_form(text) {
        None => resource(text)?,
        // It keeps the name that a peer with heartbeat gives it; only its content is rewritten in the plain form.
        Some((before, plain)) => {
            let meant = resource(&format!("{before}{plain}"))?;
            let args = text[before.len()..].split("::").map(ToString::to_string).collect();
            Resource { text: text.into(), args, ..meant }
        }
    };
    if let Agent::Address(address) = &mut resource.agent {
        address.by_route =
            resource.script == "IPaddr" && address.prefix.is_some() && address.interface.is_none();
    }
    Ok(resource)
}

/// The part before the address, and the address in the plain form; `None` if it is in that form already.
fn plain_form(text: &str) -> Option<(&str, String)> {
    let (before, script, address) = match text.split_once("::") {
        None => ("", "IPaddr", text),
        Some((script, address)) => (&text[..script.len() + 2], script, address),
    };
    let is_address = !before.is_empty() || is_bare(text) == Some(AddressFamily::V4);
    is_address.then(|| plain(address, script)).flatten().map(|plain| (before, plain))
}

/// Known scripts whose names are often misspelled; each takes an argument.
const KNOWN: [&str; 4] = ["IPaddr", "IPaddr2", "IPv6addr", "SendArp"];

/// Refuses a word that would mean something other than it seems.
fn near_miss(text: &str) -> Result<(), ConfigFault> {
    if text == "\\" || text.ends_with('\\') {
        let message = "the backslash is not at the end of the line, so it joins nothing";
        return Err((message.into(), Some("remove everything after it, blanks too".into())));
    }
    let known = |name: &str| KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    let ip = |text: &str| text.split('/').next().is_some_and(|ip| ip.parse::<core::net::IpAddr>().is_ok());
    if let Some((name, rest)) = text.split_once("::")
        && let Some(meant) = known(name).filter(|known| *known != name && ip(rest))
    {
        let message = format!("`{}` is not a script that takes an address", shown(name));
        return Err((message, Some(format!("did you mean `{meant}::{}`?", shown(rest)))));
    }
    if let Some((name, rest)) = text.split_once(':')
        && let Some(meant) = known(name).filter(|_| !rest.starts_with(':') && ip(rest))
    {
        let message = format!("there is only one colon after `{}`", shown(name));
        return Err((message, Some(format!("write `{meant}::{}`", shown(rest)))));
    }
    // A script's name directly after an interface: the interface ends with the last digit.
    if is_bare(text) == Some(AddressFamily::V4)
        && let Some((address, _)) = text.split_once("::")
        && let Some(end) = address.rfind(|c: char| c.is_ascii_digit()).map(|at| at + 1)
        && end < address.len()
    {
        let (address, script) = (shown(&text[..end]), shown(&text[end..]));
        let message = format!("`{}` is an address and a script", shown(text));
        return Err((message, Some(format!("a blank is missing: write `{address} {script}`"))));
    }
    Ok(())
}

/// Reads one word as a resource.
///
/// # Errors
/// The fault of the word, with its cure.
pub(super) fn resource(text: &str) -> Result<Resource, ConfigFault> {
    let (script, rest) = match is_bare(text) {
        Some(AddressFamily::V6) => ("IPv6addr", Some(text)),
        Some(AddressFamily::V4 | AddressFamily::Any) => ("IPaddr", Some(text)),
        None => text.split_once("::").map_or((text, None), |(script, rest)| (script, Some(rest))),
    };
    let args = rest.map(|rest| arguments(script, rest)).unwrap_or_default();
    let agent = agent(script, &args)?;
    let args = args.into_iter().filter(|arg| !arg.is_empty()).map(ToString::to_string).collect();
    Ok(Resource { text: text.into(), script: script.into(), args, agent })
}

/// The parts between `::`. An IPv6 address may contain `::` itself.
fn arguments<'a>(script: &str, rest: &'a str) -> Vec<&'a str> {
    let takes_address = matches!(script, "IPaddr" | "IPaddr2" | "IPv6addr" | "SendArp");
    let ip = rest.split('/').next().unwrap_or(rest);
    if takes_address && ip.parse::<core::net::Ipv6Addr>().is_ok() {
        [rest].into()
    } else {
        rest.split("::").collect()
    }
}

pub(super) fn agent(script: &str, args: &[&str]) -> Result<Agent, ConfigFault> {
    if script == "ocf" || script.starts_with("ocf:") {
        return ocf(script, args);
    }
    file_name(script, "a script")?;
    match script {
        "IPaddr" => Ok(Agent::Address(address(only("IPaddr::ADDRESS", args)?, AddressFamily::V4)?)),
        "IPaddr2" => Ok(Agent::Address(address(only("IPaddr2::ADDRESS", args)?, AddressFamily::Any)?)),
        "IPv6addr" => Ok(Agent::Address(address(only("IPv6addr::ADDRESS", args)?, AddressFamily::V6)?)),
        "SendArp" => send_arp(args),
        "MailTo" => mail_to(args),
        "Delay" => delay(args),
        "Filesystem" => filesystem(args),
        "OCF" => match *args {
            [kind, instance] => {
                file_name(kind, "an OCF agent")?;
                file_name(instance, "an instance")?;
                Ok(Agent::OcfFile { kind: kind.into(), instance: instance.into() })
            }
            _ => usage("OCF::TYPE::INSTANCE"),
        },
        _ => Ok(Agent::Script),
    }
}

fn usage<T>(form: &str) -> Result<T, ConfigFault> {
    Err((format!("this is not of the form `{form}`"), Some(format!("write it as `{form}`"))))
}

fn only<'a>(form: &str, args: &[&'a str]) -> Result<&'a str, ConfigFault> {
    if let [arg] = *args { Ok(arg) } else { usage(form) }
}

/// Refuses names that could lead out of a directory: they become parts of paths.
fn file_name(name: &str, of: &str) -> Result<(), ConfigFault> {
    if let Some((host, bits)) = name.split_once('/')
        && host.contains('.')
        && !host.starts_with('.')
        && bits.starts_with(|c: char| c.is_ascii_digit())
    {
        let message = format!("`{}` is not an IP address", shown(host));
        let cure = "write the address itself: name resolution may be down when it is needed";
        return Err((message, Some(cure.into())));
    }
    if name.is_empty() || name == "." || name.contains('/') || name.contains("..") {
        let last = name.rsplit('/').next().filter(|last| !last.is_empty() && !last.contains(".."));
        let cure = last.map_or_else(
            || "write the name alone".to_string(),
            |last| {
                format!(
                    "write the name alone, `{}`; scripts are looked for in resource.d and /etc/init.d",
                    shown(last)
                )
            },
        );
        return Err((format!("`{}` cannot be the name of {of}", shown(name)), Some(cure)));
    }
    Ok(())
}

/// `SendArp::ADDRESS[::IF]`; the address may also be `ip/if`.
fn send_arp(args: &[&str]) -> Result<Agent, ConfigFault> {
    const FORM: &str = "SendArp::ADDRESS::INTERFACE";
    let (text, named) = match *args {
        [text] => (text, None),
        [text, named] => (text, Some(named)),
        _ => return usage(FORM),
    };
    let (text, after_ip) = match text.split_once('/') {
        Some((ip, name)) if !name.starts_with(|c: char| c.is_ascii_digit()) => (ip, Some(name)),
        _ => (text, None),
    };
    let mut address = address(text, AddressFamily::Any)?;
    for name in [after_ip, named].into_iter().flatten() {
        interface(name)?;
        address.interface = Some(name.into());
    }
    Ok(Agent::SendArp(address))
}

/// `MailTo::ADDRESSES[::SUBJECT]`; commas separate the addresses, because a word has no blanks.
fn mail_to(args: &[&str]) -> Result<Agent, ConfigFault> {
    let (recipients, subject) = match *args {
        [recipients] => (recipients, None),
        [recipients, subject] => (recipients, Some(subject)),
        _ => return usage("MailTo::ADDRESS,ADDRESS::SUBJECT"),
    };
    let recipients = recipients.split(',').filter(|one| !one.is_empty()).collect::<Vec<_>>();
    if recipients.is_empty() {
        return usage("MailTo::ADDRESS,ADDRESS::SUBJECT");
    }
    if recipients.iter().any(|one| one.starts_with('-')) {
        return Err(("an address that begins with `-` would be an option of the mail program".into(), None));
    }
    Ok(Agent::MailTo { recipients: recipients.join(" "), subject: subject.map(Into::into) })
}

/// `Delay::START[::STOP]`; STOP defaults to START.
fn delay(args: &[&str]) -> Result<Agent, ConfigFault> {
    let (start, stop) = match *args {
        [start] => (start, start),
        [start, stop] => (start, stop),
        _ => return usage("Delay::START::STOP"),
    };
    Ok(Agent::Delay { start: time(start)?, stop: time(stop)? })
}

/// Reads a mount: `Filesystem::DEVICE::DIRECTORY[::TYPE[::OPTIONS]]`.
fn filesystem(args: &[&str]) -> Result<Agent, ConfigFault> {
    const FORM: &str = "Filesystem::DEVICE::DIRECTORY::TYPE::OPTIONS";
    let (device, directory, kind, options) = match *args {
        [device, directory] => (device, directory, "", ""),
        [device, directory, kind] => (device, directory, kind, ""),
        [device, directory, kind, options] => (device, directory, kind, options),
        _ => return usage(FORM),
    };
    if device.is_empty() {
        return usage(FORM);
    }
    if !directory.starts_with('/') {
        let message = format!("`{}` is not a directory to mount on", shown(directory));
        return Err((message, Some("write an absolute path".into())));
    }
    let given = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let (kind, options) = (given(kind), given(options));
    Ok(Agent::Filesystem { device: device.into(), directory: directory.into(), kind, options })
}

/// Reads an OCF agent: `ocf:PROVIDER:TYPE[::name=value]*`.
fn ocf(script: &str, args: &[&str]) -> Result<Agent, ConfigFault> {
    const FORM: &str = "ocf:PROVIDER:TYPE::name=value";
    let parts = script.split(':').collect::<Vec<_>>();
    let [_, provider, kind] = *parts else {
        let message = format!("`{}` does not name an OCF agent", shown(script));
        return Err((message, Some(format!("write `{FORM}`, such as `ocf:heartbeat:apache`"))));
    };
    file_name(provider, "a provider")?;
    file_name(kind, "an OCF agent")?;
    let mut parameters: Vec<(String, String)> = Vec::new();
    for arg in args {
        let Some((name, value)) = arg.split_once('=') else { return usage(FORM) };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_name) {
            let message = format!("`{}` cannot be the name of a parameter", shown(name));
            return Err((message, Some("letters, digits and `_` make one".into())));
        }
        if parameters.iter().any(|(earlier, _)| earlier == name) {
            return Err((format!("the parameter `{name}` appears twice"), Some("leave one".into())));
        }
        parameters.push((name.into(), value.into()));
    }
    Ok(Agent::Ocf { provider: provider.into(), kind: kind.into(), parameters })
}

/// Describes a resource in words.
pub(super) fn describe(resource: &Resource) -> String {
    let args = resource.args.iter().map(|arg| shown(arg)).collect::<Vec<_>>().join(" ");
    match &resource.agent {
        Agent::Address(it) => {
            let interface = it.interface.as_deref().map_or_else(
                || "on the interface whose network contains it".into(),
                |name| format!("on interface {}", shown(name)),
            );
            let prefix = it.prefix.map_or(String::new(), |prefix| format!("/{prefix}"));
            let label =
                it.label.as_deref().map_or(String::new(), |label| format!(", label {}", shown(label)));
            let broadcast =
                it.broadcast.map_or(String::new(), |broadcast| format!(", broadcast address {broadcast}"));
            format!("service address {}{prefix} {interface}{label}{broadcast}", it.ip)
        }
        Agent::SendArp(it) => format!("announce {} to its neighbours", it.ip),
        Agent::MailTo { recipients, .. } => format!("mail to {} at start and stop", shown(recipients)),
        Agent::Delay { start, stop } => format!("wait {} at start, {} at stop", Shown(*start), Shown(*stop)),
        Agent::Filesystem { device, directory, kind, .. } => {
            let kind = kind.as_deref().map_or(String::new(), |kind| format!(" ({})", shown(kind)));
            format!("mount {} on {}{kind}", shown(device), shown(directory))
        }
        Agent::OcfFile { kind, instance } => {
            let [kind, instance] = [kind, instance].map(|name| shown(name));
            format!("OCF agent {kind}, its parameters in conf/OCF/{kind}/{instance}")
        }
        Agent::Ocf { provider, kind, parameters } => {
            format!(
                "OCF agent {} of provider {}, {} parameters",
                shown(kind),
                shown(provider),
                parameters.len()
            )
        }
        Agent::Script if args.is_empty() => format!("script or unit {}", shown(&resource.script)),
        Agent::Script => format!("script {} with {args}", shown(&resource.script)),
    }
}

/// Remarks about resources that are allowed, but could be better.
fn remarks(resource: &Resource, word: &FileWord, report: &mut DiagReport) {
    let (Agent::Address(it) | Agent::SendArp(it)) = &resource.agent else { return };
    if let Some((before, plain)) = plain_form(&word.text) {
        let message =
            format!("`{}` is read as heartbeat reads it, but is not in the plain form", shown(&word.text));
        report.add(report.warning(message).word(word).cure(format!(
            "write `{}{}`",
            shown(before),
            shown(&plain)
        )));
    }
    if has_mask_for_broadcast(it) {
        let message = "the netmask in place of the broadcast address is used as the broadcast address";
        let cure =
            "end after the interface: the mask bits are enough, and the broadcast address follows from them";
        report.add(report.warning(message).word(word).cure(cure));
    }
    if names_the_network(it) {
        let message = format!("{} is the first or last address of its network, which no host has", it.ip);
        report.add(report.warning(message).word(word).cure("check the address and the mask bits"));
    }
    if resource.args.iter().any(|arg| arg.contains("::")) {
        report.add(
            report
                .info("a peer that runs heartbeat splits this address at its `::`")
                .word(word)
                .cure("with such a peer write all eight groups of the address"),
        );
    }
}

/// Finds duplicates in the file: group keys and addresses must be unique, other resources should be.
fn twice(found: &HaresourcesGroups, report: &mut DiagReport) {
    let mut keys: Vec<(&R1Group, &FilePlace)> = Vec::new();
    let mut members: Vec<(&Resource, &FilePlace)> = Vec::new();
    for (group, places) in found.groups.iter().zip(&found.places) {
        for (at, (resource, place)) in group.resources.iter().zip(places).enumerate() {
            // A repeated key is an error of its own, below.
            let is_old_key = at == 0 && keys.iter().any(|(earlier, _)| earlier.key == group.key);
            let is_address = matches!(resource.agent, Agent::Address(_));
            if (is_address || !is_old_key)
                && let Some(diag) = same_resource(resource, &members, report)
            {
                report.add(diag.at(place).offending(&resource.text));
            }
            members.push((resource, place));
        }
        let Some(place) = places.first() else { continue };
        match keys.iter().find(|(earlier, _)| earlier.key == group.key) {
            // The error about the address is enough.
            Some(_) if matches!(group.resources.first(), Some(Resource { agent: Agent::Address(_), .. })) => {
            }
            Some((_, earlier)) => {
                let message = format!("the group {} is already in line {}", shown(&group.key), earlier.line);
                let cure = "begin one of the lines with another resource: the first names the group";
                report.add(report.error(message).at(place).offending(&group.key).cure(cure));
            }
            None => keys.push((group, place)),
        }
    }
}

fn same_resource(
    resource: &Resource,
    earlier: &[(&Resource, &FilePlace)],
    report: &DiagReport,
) -> Option<Diag> {
    if let Agent::Address(it) = &resource.agent {
        let is_same = |other: &Resource| matches!(&other.agent, Agent::Address(other) if other.ip == it.ip);
        let (_, place) = earlier.iter().find(|(other, _)| is_same(other))?;
        let message = format!("the address {} is already in line {}", it.ip, place.line);
        return Some(report.error(message).cure("leave one: an address belongs to one group"));
    }
    let name =
        |resource: &Resource| resource.script.strip_suffix(UNIT).unwrap_or(&resource.script).to_string();
    let is_same = |other: &Resource| name(other) == name(resource) && other.args == resource.args;
    let (_, place) = earlier.iter().find(|(other, _)| is_same(other))?;
    let message = format!("{} is already in line {}", shown(&resource.text), place.line);
    Some(report.warning(message).cure("on one node both are one thing: stopping the one stops the other"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diag::FileName;

    fn parsed(text: &[u8]) -> (HaresourcesGroups, Vec<String>) {
        parsed_for(&["clustnode1", "clustnode2"], text)
    }

    fn parsed_for(nodes: &[&str], text: &[u8]) -> (HaresourcesGroups, Vec<String>) {
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let mut report = DiagReport::new(FileName::Haresources);
        let groups = read(text, &nodes, &mut report);
        (groups, report.diags.iter().map(ToString::to_string).collect())
    }

    fn good(word: &str) -> Resource {
        let (mut groups, diags) = parsed(format!("clustnode1 {word}\n").as_bytes());
        assert_eq!(diags, Vec::<String>::new(), "{word}");
        groups.groups.remove(0).resources.remove(0)
    }

    fn bad(word: &str) -> String {
        let (_, mut diags) = parsed(format!("clustnode1 {word}\n").as_bytes());
        assert_eq!(diags.len(), 1, "{diags:?}");
        diags.remove(0).replacen("haresources:1:12: error: ", "", 1)
    }

    #[test]
    fn lines_are_joined_and_comments_dropped() {
        let text = b"# all\n\n ClustNode1  10.0.0.1/24 \\\n\thttpd::a::b # \\\nclustnode2 10.0.\\\n0.2 ht\\\r\ntpd \\";
        let (found, diags) = parsed(text);
        assert_eq!(diags, Vec::<String>::new());
        let read = found.groups.iter().map(|group| {
            let words = group.resources.iter().map(|resource| resource.text.as_str()).collect::<Vec<_>>();
            format!("{} {} {}", group.node.0, group.key, words.join(" "))
        });
        assert_eq!(
            read.collect::<Vec<_>>(),
            ["0 10.0.0.1/24 10.0.0.1/24 httpd::a::b", "1 10.0.0.2 10.0.0.2 httpd"]
        );
        let at = |group: usize, member: usize| {
            let place: &FilePlace = &found.places[group][member];
            (place.line, place.column, &text[place.span.clone()])
        };
        assert_eq!(at(0, 0), (3, 14, &b"10.0.0.1/24"[..]));
        assert_eq!(at(0, 1), (4, 2, &b"httpd::a::b"[..]));
        assert_eq!(at(1, 0), (5, 12, &b"10.0.\\\n0.2"[..]));
        assert_eq!(at(1, 1), (6, 5, &b"ht\\\r\ntpd"[..]));
    }

    #[test]
    fn every_kind_of_resource_is_read() {
        assert!(matches!(good("10.0.0.1").agent, Agent::Address(_)));
        assert_eq!(good("10.0.0.1/24/eth0").script, "IPaddr");
        assert_eq!(good("10.0.0.1/24/eth0").args, ["10.0.0.1/24/eth0"]);
        assert_eq!(
            good("IPaddr2::10.0.0.1/24/eth0:web/10.0.0.255").args,
            ["10.0.0.1/24/eth0:web/10.0.0.255"]
        );
        let Agent::Address(v6) = good("IPv6addr::2001:db8:0:0:0:0:0:1/64/eth0").agent else { panic!() };
        assert_eq!((v6.ip.to_string().as_str(), v6.prefix), ("2001:db8::1", Some(64)));
        assert_eq!(good("httpd").agent, Agent::Script);
        assert_eq!(good("drbddisk::r0").args, ["r0"]);
        assert_eq!(good("foo::a::::b").args, ["a", "b"]);
        assert_eq!(
            good("OCF::apache::web").agent,
            Agent::OcfFile { kind: "apache".into(), instance: "web".into() }
        );
        assert_eq!(
            good("ocf:heartbeat:apache::configfile=/etc/a=b.conf::port=80").agent,
            Agent::Ocf {
                provider: "heartbeat".into(),
                kind: "apache".into(),
                parameters: [("configfile".into(), "/etc/a=b.conf".into()), ("port".into(), "80".into())]
                    .into(),
            }
        );
        let [web, mail, db] =
            ["ocf:x:web::port=80", "ocf:x:mail::port=25", "Filesystem::/dev/a::/b"].map(good);
        let all = [&web, &mail, &db].map(|resource| resource.name([&web, &mail, &db]));
        assert_eq!(all, ["ocf:x:web", "ocf:x:mail", "Filesystem::/dev/a::/b"]);
        let other = good("ocf:x:web::port=81");
        assert_eq!(web.name([&web, &other]), "ocf:x:web::port=80", "two of a kind are told apart");
        assert_eq!(
            good("MailTo::root,ops@example.org::Cluster").agent,
            Agent::MailTo { recipients: "root ops@example.org".into(), subject: Some("Cluster".into()) }
        );
        let seconds = crate::model::time::Duration::from_secs;
        assert_eq!(good("Delay::5").agent, Agent::Delay { start: seconds(5), stop: seconds(5) });
        assert_eq!(good("Delay::5::0").agent, Agent::Delay { start: seconds(5), stop: seconds(0) });
        assert_eq!(
            good("Filesystem::nas:/export::/mnt::nfs::ro,noatime").agent,
            Agent::Filesystem {
                device: "nas:/export".into(),
                directory: "/mnt".into(),
                kind: Some("nfs".into()),
                options: Some("ro,noatime".into()),
            }
        );
        let Agent::Filesystem { kind, .. } = good("Filesystem::/dev/sda1::/mnt").agent else { panic!() };
        assert_eq!(kind, None);
        for (word, interface) in [("SendArp::10.0.0.1/eth0", "eth0"), ("SendArp::10.0.0.1/24/eth1", "eth1")] {
            let Agent::SendArp(it) = good(word).agent else { panic!() };
            assert_eq!(it.interface.as_deref(), Some(interface));
        }
        let Agent::SendArp(it) = good("SendArp::10.0.0.1::eth2").agent else { panic!() };
        assert_eq!(it.interface.as_deref(), Some("eth2"));
    }

    #[test]
    fn an_ipv6_address_keeps_its_colons() {
        let (found, diags) = parsed(b"clustnode1 IPv6addr::2001:db8::1/64 fd00::9/64/eth0\n");
        let ips = found.groups[0].resources.iter().map(|resource| match &resource.agent {
            Agent::Address(it) => it.ip.to_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(ips.collect::<Vec<_>>(), ["2001:db8::1", "fd00::9"]);
        assert_eq!(diags.len(), 2, "{diags:?}");
        assert!(diags[0].contains("a peer that runs heartbeat splits this address"), "{diags:?}");
    }

    #[test]
    fn bad_resources_are_refused_with_a_cure() {
        for (word, text) in [
            (
                "/etc/init.d/httpd",
                "`/etc/init.d/httpd` cannot be the name of a script (write the name alone, `httpd`; scripts are looked \
                 for in resource.d and /etc/init.d)",
            ),
            (
                "../../bin/sh",
                "`../../bin/sh` cannot be the name of a script (write the name alone, `sh`; scripts are \
              looked for in resource.d and /etc/init.d)",
            ),
            ("..", "`..` cannot be the name of a script (write the name alone)"),
            ("::a", "`` cannot be the name of a script (write the name alone)"),
            ("IPaddr", "this is not of the form `IPaddr::ADDRESS` (write it as `IPaddr::ADDRESS`)"),
            (
                "IPaddr::10.0.0.1::x",
                "this is not of the form `IPaddr::ADDRESS` (write it as `IPaddr::ADDRESS`)",
            ),
            (
                "IPaddr::10.0.0.1/40",
                "`40` is not a number of mask bits (write 1 to 32; an interface or a broadcast address stands after the \
                 mask bits)",
            ),
            ("IPv6addr::10.0.0.1", "IPv6addr takes IPv6 addresses (write `IPaddr::10.0.0.1`)"),
            (
                "OCF::apache",
                "this is not of the form `OCF::TYPE::INSTANCE` (write it as `OCF::TYPE::INSTANCE`)",
            ),
            (
                "OCF::apache::../x",
                "`../x` cannot be the name of an instance (write the name alone, `x`; scripts are \
              looked for in resource.d and /etc/init.d)",
            ),
            (
                "ocf::heartbeat:apache",
                "`ocf` does not name an OCF agent (write `ocf:PROVIDER:TYPE::name=value`, such as \
                 `ocf:heartbeat:apache`)",
            ),
            (
                "ocf:heartbeat:apache::x",
                "this is not of the form `ocf:PROVIDER:TYPE::name=value` (write it as \
              `ocf:PROVIDER:TYPE::name=value`)",
            ),
            (
                "ocf:heartbeat:apache::a-b=1",
                "`a-b` cannot be the name of a parameter (letters, digits and `_` make one)",
            ),
            ("ocf:heartbeat:apache::a=1::a=2", "the parameter `a` appears twice (leave one)"),
            ("Delay::5s", "`s` is not a unit of time here (seconds have none: write `5`)"),
            ("Filesystem::/dev/sda1::mnt", "`mnt` is not a directory to mount on (write an absolute path)"),
            (
                "Filesystem::/dev/sda1",
                "this is not of the form `Filesystem::DEVICE::DIRECTORY::TYPE::OPTIONS` (write \
              it as `Filesystem::DEVICE::DIRECTORY::TYPE::OPTIONS`)",
            ),
            ("MailTo::-x", "an address that begins with `-` would be an option of the mail program"),
            (
                "MailTo",
                "this is not of the form `MailTo::ADDRESS,ADDRESS::SUBJECT` (write it as \
              `MailTo::ADDRESS,ADDRESS::SUBJECT`)",
            ),
        ] {
            assert_eq!(bad(word), text, "{word}");
        }
    }

    #[test]
    fn what_heartbeat_takes_is_taken_and_put_plainly() {
        let text = include_bytes!("../../tests/cases/11-mask-and-slash-forms/haresources");
        let (found, diags) = parsed_for(&["web1", "web2"], text);
        let there: Vec<String> = found.groups.iter().map(|group| describe(&group.resources[0])).collect();
        let on = |ip: u8, rest: &str| format!("service address 192.0.2.{ip}/24 {rest}");
        assert_eq!(
            there,
            [
                on(50, "on the interface whose network contains it"),
                on(51, "on interface eth0, label eth0:1"),
                on(52, "on interface eth0"),
                on(53, "on the interface whose network contains it"),
                on(54, "on interface eth0"),
            ]
        );
        // The key is that of a peer with heartbeat; its scripts get the same arguments.
        assert_eq!(
            (found.groups[1].key.as_str(), &found.groups[1].resources[0].args[..]),
            ("192.0.2.51//24/eth0:1", &["192.0.2.51//24/eth0:1".to_string()][..])
        );
        assert_eq!(diags.len(), 5);
        assert!(
            diags.iter().all(|diag| diag.contains(": warning: ") && diag.contains("(write `192.0.2.5")),
            "{diags:#?}"
        );
        assert!(diags[0].ends_with("(write `192.0.2.50/24`)"), "{}", diags[0]);
    }

    #[test]
    fn near_misses_are_advised() {
        let text = include_bytes!("../../tests/cases/16-near-misses-without-advice/haresources");
        let (_, diags) = parsed_for(&["web1", "web2"], text);
        let expected = [
            "1:6: error: `IPAddr` is not a script that takes an address (did you mean `IPaddr::192.0.2.1/24/eth0`?)",
            "2:6: error: `Ipaddr` is not a script that takes an address (did you mean `IPaddr::192.0.2.2/24/eth0`?)",
            "3:6: error: there is only one colon after `IPaddr` (write `IPaddr::192.0.2.3/24/eth0`)",
            "4:6: error: `192.0.2.4/24/eth0drbddisk::r0` is an address and a script (a blank is missing: write \
             `192.0.2.4/24/eth0 drbddisk::r0`)",
            "5:1: error: `web1192.0.2.5` is not a node of this cluster; ha.cf has web1, web2 (a blank is missing \
             after `web1`: write `web1 192.0.2.5`)",
            "6:6: error: `IPAddr2` is not a script that takes an address (did you mean `IPaddr2::192.0.2.6/24/eth0`?)",
            "7:6: warning: the netmask in place of the broadcast address is used as the broadcast address \
             (end after the interface: the mask bits are enough, and the broadcast address follows from them)",
        ];
        assert_eq!(diags, expected.map(|text| format!("haresources:{text}")));
        for (line, text) in [
            (
                "web1\u{a0}192.0.2.1 httpd",
                "1:1: error: a character looks like a blank but is not one (U+00A0), as in text from web pages and \
                 word processors (retype the blanks of this line)",
            ),
            (
                "web1 10.0.0.1 \\ \n  httpd",
                "1:15: error: the backslash is not at the end of the line, so it joins nothing (remove everything \
                 after it, blanks too)",
            ),
        ] {
            let (_, diags) = parsed_for(&["web1", "web2"], line.as_bytes());
            assert_eq!(diags.first(), Some(&format!("haresources:{text}")), "{diags:#?}");
        }
        // Words that only look like a near miss.
        for line in ["web1 drbddisk::r0", "web1 ipaddr", "web1 IPaddrs::x", "web1 10.0.0.1/24/eth0 a\\b"] {
            assert_eq!(parsed_for(&["web1", "web2"], line.as_bytes()).1, [""; 0], "{line}");
        }
    }

    #[test]
    fn nodes_must_be_configured() {
        let (_, diags) = parsed(b"clustnode1.example.org httpd\nclustnode3 nfs\nclustnode2\n");
        assert_eq!(
            diags,
            [
                "haresources:1:1: error: `clustnode1.example.org` is not a node of this cluster; ha.cf has clustnode1, \
                 clustnode2 (write `clustnode1`: the line begins with the preferred node, named as in ha.cf)",
                "haresources:2:1: error: `clustnode3` is not a node of this cluster; ha.cf has clustnode1, clustnode2 \
                 (begin the line with the preferred node, named as in ha.cf; end the line before with `\\` if this is \
                 its continuation)",
                "haresources:3:1: error: the line names a node and no resource (write the resources after the node: \
                 `NODE ADDRESS SCRIPT`)",
            ]
        );
    }

    #[test]
    fn nothing_stands_twice() {
        let (_, diags) = parsed(
            b"clustnode1 10.0.0.1 httpd\nclustnode2 httpd nfs\nclustnode1 httpd\nclustnode2 IPaddr2::10.0.0.1/24\n\
              clustnode1 10.0.0.1\n",
        );
        assert_eq!(
            diags,
            [
                "haresources:2:12: warning: httpd is already in line 1 (on one node both are one thing: \
                 stopping the one stops the other)",
                "haresources:3:12: error: the group httpd is already in line 2 (begin one of the lines with \
                 another resource: the first names the group)",
                "haresources:4:12: error: the address 10.0.0.1 is already in line 1 (leave one: an address \
                 belongs to one group)",
                "haresources:5:12: error: the address 10.0.0.1 is already in line 1 (leave one: an address \
                 belongs to one group)",
            ]
        );
    }

    #[test]
    fn what_is_no_text_is_refused_and_the_rest_is_read() {
        let (found, diags) =
            parsed(b"clustnode1 ht\xfftpd\n# \xff\nclustnode2 a\x1b[31m nfs\nclustnode2 nfs\n");
        assert_eq!(found.groups.len(), 1);
        assert_eq!(diags.len(), 2);
        assert_eq!(
            diags[0],
            "haresources:1:12: error: this is not text: it holds a control character or is not UTF-8 (retype the \
             word; save the file as UTF-8)"
        );
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        let (found, diags) = parsed("\u{feff}clustnode1 httpd\nclustnode2 nfs\n".as_bytes());
        assert_eq!(found.groups.len(), 1);
        assert_eq!(
            diags,
            [
                "haresources:1:1: error: there is a byte order mark, as editors of other systems write it (save the \
             file as UTF-8 without it)"
            ]
        );
    }

    #[test]
    fn a_file_without_groups_is_allowed() {
        let (_, diags) = parsed(b"# nothing\n");
        assert_eq!(diags.len(), 1);
        assert!(diags[0].starts_with("haresources: warning: there is no group"), "{diags:?}");
    }
}
