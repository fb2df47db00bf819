//! Reads nodes, witnesses, voters, and the links between the nodes.

use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::TomlTable,
    reader::{Text, TomlItem, TomlReader},
};
use crate::{
    config::{
        HEARTBEATS_PORT,
        address::interface,
        diag::{FilePlace, shown},
        haresources::is_same_host,
    },
    model::identity::NodeIndex,
    native::plan::{
        LINKS_MAX, LinkEnd, NAME_BYTES_MAX, NODE_NAME_BYTES_MAX, NODES_MAX, NODES_MIN, NativeLink,
        NativeMedium, NativeMember, PORT, PlanNode, Secret, VOTERS_MAX, WITNESSES_MAX, Witness, WitnessIndex,
    },
};

/// The members of the cluster, its voters and its links.
#[derive(Default)]
pub(super) struct TomlMembers {
    pub(super) nodes: Vec<PlanNode>,
    pub(super) witnesses: Vec<Witness>,
    pub(super) links: Vec<NativeLink>,
    pub(super) voters: Vec<NativeMember>,
    pub(super) me: Option<NativeMember>,
    pub(super) end_places: Vec<Vec<Option<FilePlace>>>,
}

impl TomlMembers {
    /// The node and the link whose address this is.
    pub(super) fn own_address(&self, ip: IpAddr) -> Option<(&str, &str)> {
        self.links.iter().find_map(|link| {
            let is_it =
                |end: &Option<LinkEnd>| matches!(end, Some(LinkEnd::Address { ip: own, .. }) if *own == ip);
            let node = link.ends.iter().position(is_it)?;
            Some((self.nodes.get(node)?.name.as_str(), link.name.as_str()))
        })
    }
}

/// A node's end of a link, before the kind of the link is known.
struct Connection {
    node: usize,
    end: LinkEnd,
    span: Range<usize>,
}

pub(super) fn read(top: &DeTable<'_>, me: &str, reader: &mut TomlReader<'_>) -> TomlMembers {
    let mut members = TomlMembers::default();
    let mut connections: BTreeMap<String, Vec<Connection>> = BTreeMap::new();
    nodes(top, &mut members, &mut connections, reader);
    let default_port = top.get("port").and_then(|item| port(item, reader)).unwrap_or(PORT);
    links(top, default_port, &mut members, connections, reader);
    witnesses(top, default_port, &mut members, reader);
    members.me = find_me(top, me, &members, reader);
    members.voters = voters(top, &members, reader);
    members
}

fn nodes(
    top: &DeTable<'_>,
    members: &mut TomlMembers,
    connections: &mut BTreeMap<String, Vec<Connection>>,
    reader: &mut TomlReader<'_>,
) {
    let tables = reader.tables(top, "nodes");
    let mut named = Vec::new();
    for (name, item, table) in tables {
        reader.keys(table, &[TomlTable::Node]);
        if reader.is_name(&name, NODE_NAME_BYTES_MAX) {
            named.push((name.text.to_lowercase(), name, item, table));
        } else {
            reader.lacks_node = true;
        }
    }
    // The lower-case names decide the order.
    named.sort_by(|a, b| a.0.cmp(&b.0));
    for (lower, name, item, table) in named {
        if members.nodes.last().is_some_and(|node| node.name == lower) {
            let cure = "leave one: capital letters make no difference in the names of nodes";
            reader.error(&name, format!("the node `{lower}` appears twice"), cure);
            reader.lacks_node = true;
            continue;
        }
        let index = members.nodes.len();
        members.nodes.push(PlanNode { name: lower.clone() });
        reader.explain(&name.span, format!("node {lower}"));
        let Some(item) = table.get("links") else {
            let cure = format!(r#"write `[nodes.{lower}]` and below it `links = {{ NAME = "ADDRESS" }}`"#);
            reader.absent(&item.span(), format!("the node `{lower}` has no link"), cure);
            continue;
        };
        let Some(ends) = reader.table(item, r#"`links = { front = "10.0.0.1" }`"#) else { continue };
        if ends.is_empty() {
            let cure = r#"write `links = { NAME = "ADDRESS" }`"#;
            reader.absent(&item.span(), format!("the node `{lower}` has no link"), cure);
        }
        for (link, item) in ends {
            let link = Text { text: link.get_ref(), span: link.span() };
            if let Some(end) = end(item, reader)
                && reader.is_name(&link, NAME_BYTES_MAX)
            {
                let connection = Connection { node: index, end, span: item.span() };
                connections.entry(link.text.into()).or_default().push(connection);
            }
        }
    }
    match members.nodes.len() {
        NODES_MIN..=NODES_MAX => {}
        0..NODES_MIN => {
            let cure = "write `[nodes.NAME]` for each of them, NAME as `uname -n` prints it there";
            reader.absent_from_file("a cluster has at least two nodes", cure);
        }
        _ => {
            let message = format!("there are {} nodes", members.nodes.len());
            reader.absent_from_file(message, format!("a cluster has at most {NODES_MAX}"));
        }
    }
}

/// Reads the end of a link: `10.0.0.1`, `10.0.0.1%eth1`, `eth1` or `/dev/ttyS0`.
fn end(item: &TomlItem<'_>, reader: &mut TomlReader<'_>) -> Option<LinkEnd> {
    let text = reader
        .text(item, r#"an address, an interface or a device: `"10.0.0.1"`, `"eth1"`, `"/dev/ttyS0"`"#)?;
    if text.text.starts_with('/') {
        return Some(LinkEnd::Device(text.text.into()));
    }
    let (address, scope) = text.text.split_once('%').map_or((text.text, None), |(ip, name)| (ip, Some(name)));
    let Ok(ip) = address.parse::<IpAddr>() else {
        let looks_like_address =
            address.contains([':', '%']) || address.starts_with(|c: char| c.is_ascii_digit());
        if scope.is_some() || looks_like_address {
            let cure = r#"write the node's own address on this link, such as `"10.0.0.1"`; the port stands in `[links.NAME]`"#;
            reader.error(&text, format!("`{}` is not an IP address", shown(address)), cure);
            return None;
        }
        return match interface(text.text) {
            Ok(()) => Some(LinkEnd::Interface(text.text.into())),
            Err(fault) => {
                reader.fault(&text, fault);
                None
            }
        };
    };
    if let Some(Err(fault)) = scope.map(interface) {
        reader.fault(&text, fault);
        return None;
    }
    let is_broadcast = ip == IpAddr::V4(core::net::Ipv4Addr::BROADCAST);
    if ip.is_unspecified() || ip.is_multicast() || is_broadcast {
        let cure = "write the node's own address; for multicast write its interface, and the group in `[links.NAME]`";
        reader.error(&text, format!("{ip} cannot be the address of a node"), cure);
        return None;
    }
    let needs_scope = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if needs_scope && scope.is_none() {
        let cure = format!(r#"write the interface behind it: `"{ip}%eth1"`"#);
        reader.error(&text, format!("{ip} means something else on each interface"), cure);
        return None;
    }
    Some(LinkEnd::Address { ip, interface: scope.map(Into::into) })
}

fn links(
    top: &DeTable<'_>,
    default_port: u16,
    members: &mut TomlMembers,
    connections: BTreeMap<String, Vec<Connection>>,
    reader: &mut TomlReader<'_>,
) {
    let tables = reader.tables(top, "links");
    for (name, _, table) in &tables {
        reader.keys(table, &[TomlTable::Link]);
        if !connections.contains_key(name.text) && reader.is_name(name, NAME_BYTES_MAX) {
            reader.unknown(name, "link of a node", connections.keys().map(String::as_str));
        }
    }
    for (name, ends) in connections {
        let table =
            tables.iter().find(|(other, ..)| other.text == name).map(|(_, item, table)| (*item, *table));
        if let Some(medium) = medium(&name, &ends, table, default_port, reader) {
            add_link(members, name, medium, ends, reader);
        }
    }
    if members.links.len() > LINKS_MAX {
        let message = format!("there are {} links", members.links.len());
        reader.absent_from_file(message, format!("a cluster has at most {LINKS_MAX}"));
    }
    if !reader.report.failed() {
        unreachable_pairs(members, reader);
    }
}

fn port(item: &TomlItem<'_>, reader: &mut TomlReader<'_>) -> Option<u16> {
    let port = reader.whole(item, 1..=65535).and_then(|port| u16::try_from(port).ok())?;
    if port == HEARTBEATS_PORT {
        theirs(&item.span(), reader);
        return None;
    }
    Some(port)
}

/// Refuses heartbeat's port: daemons of the R1 dialect would be disturbed.
fn theirs(span: &Range<usize>, reader: &mut TomlReader<'_>) {
    let message = format!("the port {} is used by clusters with ha.cf", HEARTBEATS_PORT);
    reader.error_at(span, message, format!("write another one, such as {PORT}"));
}

/// The medium of a link, from its ends and its own table.
fn medium(
    name: &str,
    ends: &[Connection],
    table: Option<(&TomlItem<'_>, &DeTable<'_>)>,
    default_port: u16,
    reader: &mut TomlReader<'_>,
) -> Option<NativeMedium> {
    let empty = DeTable::new();
    let settings = table.map_or(&empty, |(_, table)| table);
    let first = ends.first()?;
    for other in ends {
        if core::mem::discriminant(&other.end) != core::mem::discriminant(&first.end) {
            let (is, was) = (kind(&other.end), kind(&first.end));
            let message = format!("this is {is}, but the link `{name}` has {was} on another node");
            reader.error_at(
                &other.span,
                message,
                "write the same kind on all nodes, or give one of the links another name",
            );
            return None;
        }
    }
    let mut of_others = |names: &[&str], kind: &str| {
        for key in names {
            if let Some((key, _)) = settings.get_key_value(*key) {
                let cure = format!("remove it, or see in docs/locum-toml.md what makes a link {kind}");
                reader.error_at(
                    &key.span(),
                    format!("`{}` does not apply to the link `{name}`", key.get_ref()),
                    cure,
                );
            }
        }
    };
    match &first.end {
        LinkEnd::Device(_) => of_others(&["port", "multicast", "ttl"], "carry UDP"),
        LinkEnd::Address { .. } => of_others(&["multicast", "ttl", "baud"], "multicast or serial"),
        LinkEnd::Interface(_) if settings.contains_key("multicast") => of_others(&["baud"], "serial"),
        LinkEnd::Interface(_) => of_others(&["ttl", "baud"], "multicast or serial"),
    }
    let port = settings.get("port").and_then(|item| port(item, reader)).unwrap_or(default_port);
    Some(match &first.end {
        LinkEnd::Address { .. } => NativeMedium::Unicast { port },
        LinkEnd::Interface(_) => match settings.get("multicast") {
            None => NativeMedium::Broadcast { port },
            Some(item) => {
                let text = reader.text(item, r#"`"239.192.1.1"`"#)?;
                let Some(group) = text.text.parse().ok().filter(IpAddr::is_multicast) else {
                    let message = format!("`{}` is not a multicast address", shown(text.text));
                    reader.error(&text, message, r#"write one such as `"239.192.1.1"` or `"ff02::6940"`"#);
                    return None;
                };
                let ttl = settings.get("ttl").and_then(|item| reader.whole(item, 1..=255));
                NativeMedium::Multicast {
                    group,
                    port,
                    ttl: ttl.and_then(|ttl| u8::try_from(ttl).ok()).unwrap_or(1),
                }
            }
        },
        LinkEnd::Device(_) => {
            let baud = settings.get("baud").and_then(|item| reader.whole(item, 50..=4_000_000));
            NativeMedium::Serial { baud: baud.unwrap_or(115_200) }
        }
    })
}

const fn kind(end: &LinkEnd) -> &'static str {
    match end {
        LinkEnd::Address { .. } => "an address",
        LinkEnd::Interface(_) => "an interface",
        LinkEnd::Device(_) => "a device",
    }
}

fn add_link(
    members: &mut TomlMembers,
    name: String,
    medium: NativeMedium,
    connections: Vec<Connection>,
    reader: &mut TomlReader<'_>,
) {
    let span = connections.first().map(|first| first.span.clone()).unwrap_or_default();
    match (&medium, connections.len()) {
        (_, 0 | 1) => {
            let cure = "write it in the `links` of another node too";
            reader.absent(&span, format!("only one node is connected to the link `{name}`"), cure);
            return;
        }
        (NativeMedium::Serial { .. }, 3..) => {
            let cure = "give each line a name of its own";
            reader.error_at(
                &span,
                format!("a serial line has two ends, `{name}` has {}", connections.len()),
                cure,
            );
        }
        _ => {}
    }
    let mut ends = vec![None; members.nodes.len()];
    let mut places = vec![None; members.nodes.len()];
    let mut addresses: Vec<IpAddr> = Vec::new();
    for Connection { node, end, span } in connections {
        let how = match (&end, medium) {
            (LinkEnd::Address { ip, .. }, _) => {
                if addresses.contains(ip) {
                    reader.error_at(
                        &span,
                        format!("{ip} is already the address of another node"),
                        "write this node's own address",
                    );
                } else if addresses.first().is_some_and(|first| first.is_ipv4() != ip.is_ipv4()) {
                    let cure = "write addresses of one family, or two links";
                    reader.error_at(&span, format!("the link `{name}` has addresses of both families"), cure);
                }
                addresses.push(*ip);
                format!("UDP from and to {ip}")
            }
            (LinkEnd::Interface(name), NativeMedium::Multicast { group, .. }) => {
                format!("multicast {group} over {name}")
            }
            (LinkEnd::Interface(name), _) => format!("broadcast over {name}"),
            (LinkEnd::Device(path), _) => format!("the serial line {}", shown(path)),
        };
        reader.explain(&span, format!("link {name} of {}: {how}", members.nodes[node].name));
        places[node] = Some(reader.place(&span));
        ends[node] = Some(end);
    }
    members.links.push(NativeLink { name, medium, ends });
    members.end_places.push(places);
}

/// Refuses two nodes that share no link, and warns if they share only one.
fn unreachable_pairs(members: &TomlMembers, reader: &mut TomlReader<'_>) {
    let share = |a: usize, b: usize| {
        members.links.iter().filter(move |link| link.ends[a].is_some() && link.ends[b].is_some()).count()
    };
    let name = |node: usize| members.nodes[node].name.as_str();
    let mut is_single = false;
    for a in 0..members.nodes.len() {
        for b in a + 1..members.nodes.len() {
            match share(a, b) {
                0 => {
                    let message = format!("`{}` and `{}` share no link", name(a), name(b));
                    reader.absent_from_file(
                        message,
                        "every two nodes must hear each other: connect both to one link",
                    );
                }
                1 => is_single = true,
                _ => {}
            }
        }
    }
    if is_single && !reader.report.failed() {
        let warning =
            reader.report.warning("some nodes share only one link; if it fails, they lose each other");
        reader.report.add(warning.cure("give them a second one, over other cables and switches"));
    }
}

fn witnesses(top: &DeTable<'_>, default_port: u16, members: &mut TomlMembers, reader: &mut TomlReader<'_>) {
    for (name, item, table) in reader.tables(top, "witnesses") {
        reader.keys(table, &[TomlTable::Witness]);
        if !reader.is_name(&name, NAME_BYTES_MAX) {
            continue;
        }
        let lower = name.text.to_lowercase();
        if lower != name.text {
            reader.error(
                &name,
                format!("`{}` has capital letters", shown(name.text)),
                format!("write `{lower}`"),
            );
            continue;
        }
        if members.nodes.iter().any(|node| node.name == lower) {
            let cure = "remove the witness: nodes vote anyway";
            reader.error(&name, format!("`{lower}` is the name of a node"), cure);
            continue;
        }
        let Some(address) = table.get("address") else {
            let cure = r#"write `address = "ADDRESS"` below it"#;
            reader.absent(&item.span(), format!("the witness `{lower}` has no address"), cure);
            continue;
        };
        let place = address.span();
        let Some(address) = witness_address(address, default_port, reader) else { continue };
        if let Some((node, _)) = members.own_address(address.ip()) {
            reader.error_at(
                &place,
                format!(
                    "{} is an address of the node `{node}`; if that node fails, this vote is lost, too",
                    address.ip()
                ),
                "let the witness run on another machine, and write that one's address",
            );
            continue;
        }
        if members.witnesses.iter().any(|witness| witness.address == address) {
            reader.error_at(
                &name.span,
                format!("another witness has the address {address}"),
                "leave one of them",
            );
        }
        let key = table.get("key").and_then(|item| secret(item, reader));
        reader.explain(&name.span, format!("witness {lower}, asked at {address}"));
        members.witnesses.push(Witness { name: lower, address, key });
    }
    if members.witnesses.len() > WITNESSES_MAX {
        let message = format!("there are {} witnesses", members.witnesses.len());
        reader.absent_from_file(message, format!("a cluster has at most {WITNESSES_MAX}"));
    }
}

fn witness_address(item: &TomlItem<'_>, port: u16, reader: &mut TomlReader<'_>) -> Option<SocketAddr> {
    let text = reader.text(item, r#"`"10.9.0.1"` or `"10.9.0.1:6940"`"#)?;
    let alone = text.text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
    let address = alone.or_else(|_| text.text.parse::<SocketAddr>());
    let Ok(address) = address else {
        let cure = r#"write `"10.9.0.1"`, `"10.9.0.1:6940"` or `"[fd00::9]:6940"`; names are not resolved"#;
        reader.error(&text, format!("`{}` is not an address", shown(text.text)), cure);
        return None;
    };
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
        reader.error(
            &text,
            format!("{address} cannot be a witness's address"),
            "write the witness's own address",
        );
        return None;
    }
    if address.port() == HEARTBEATS_PORT {
        theirs(&text.span, reader);
        return None;
    }
    Some(address)
}

/// Reads 64 hex digits. Diagnostics never contain any of them.
fn secret(item: &TomlItem<'_>, reader: &mut TomlReader<'_>) -> Option<Secret> {
    let key = match item.get_ref() {
        DeValue::String(text) => crate::config::locum_key::hex_key(text.as_bytes()),
        _ => None,
    };
    if key.is_none() {
        reader.error_at(
            &item.span(),
            "this is not a key of 64 hex digits",
            "copy the line that `locum witness` printed",
        );
    }
    key.map(Secret)
}

fn find_me(
    top: &DeTable<'_>,
    me: &str,
    members: &TomlMembers,
    reader: &mut TomlReader<'_>,
) -> Option<NativeMember> {
    if let Some(node) = members.nodes.iter().position(|node| node.name == me) {
        return Some(NativeMember::Node(NodeIndex(node)));
    }
    if let Some(witness) = members.witnesses.iter().position(|witness| witness.name == me) {
        return Some(NativeMember::Witness(WitnessIndex(witness)));
    }
    if members.nodes.is_empty() || !reader.is_whole() {
        return None;
    }
    let shown_me = shown(me);
    let similar = members.nodes.iter().find(|node| is_same_host(&node.name, me));
    let at = similar.unwrap_or(&members.nodes[0]);
    let key = top.get("nodes").and_then(|item| item.get_ref().as_table()).and_then(|table| {
        table.iter().map(|(name, _)| name).find(|name| name.get_ref().eq_ignore_ascii_case(&at.name))
    });
    let message = match similar {
        Some(node) => format!("this host is `{shown_me}`, but the file has `{}`", node.name),
        None => {
            let all = members.nodes.iter().take(8).map(|node| format!("`{}`", node.name)).collect::<Vec<_>>();
            format!("this host is `{shown_me}`, but the file has {}", all.join(", "))
        }
    };
    let cure = match similar {
        Some(_) => format!(r#"write `[nodes."{shown_me}"]`, on all nodes"#),
        None => "is this the right host and file? A node is named as `uname -n` prints it".into(),
    };
    let span = key.map(Spanned::span).unwrap_or_default();
    let diag =
        reader.report.error(message).at(&reader.place(&span)).offending(&at.name).cure(cure).about_host();
    reader.report.add(diag);
    None
}

/// The voters of the file; by default the nodes, and one witness if the number of nodes is even.
fn voters(top: &DeTable<'_>, members: &TomlMembers, reader: &mut TomlReader<'_>) -> Vec<NativeMember> {
    let nodes = (0..members.nodes.len()).map(|node| NativeMember::Node(NodeIndex(node)));
    let witnesses = (0..members.witnesses.len()).map(|witness| NativeMember::Witness(WitnessIndex(witness)));
    let all: Vec<NativeMember> = nodes.clone().chain(witnesses.clone()).collect();
    let names = members.nodes.iter().map(|node| node.name.as_str());
    let names = names.chain(members.witnesses.iter().map(|witness| witness.name.as_str()));
    let Some(item) = top.get("voters") else {
        let mut voters = nodes.take(VOTERS_MAX).collect::<Vec<_>>();
        if voters.len().is_multiple_of(2) {
            voters.extend(witnesses.take(1));
        }
        say_voters(&voters, members, None, reader);
        return voters;
    };
    let choices = reader.members(item, "node or witness", names);
    let mut voters = choices.into_iter().map(|(index, _)| all[index]).collect::<Vec<_>>();
    voters.sort_unstable();
    match voters.len() {
        1..=VOTERS_MAX => {}
        0 if reader.report.failed() => {}
        0 => reader.absent(&item.span(), "there are no voters", "leave `voters` out, or name some"),
        many => {
            let cure = format!("name at most {VOTERS_MAX}: more take longer and agree no better");
            reader.error_at(&item.span(), format!("there are {many} voters"), cure);
        }
    }
    say_voters(&voters, members, Some(&item.span()), reader);
    voters
}

fn say_voters(
    voters: &[NativeMember],
    members: &TomlMembers,
    span: Option<&Range<usize>>,
    reader: &mut TomlReader<'_>,
) {
    // The reason for having none has been reported.
    if voters.is_empty() {
        return;
    }
    let name = |voter: &NativeMember| match *voter {
        NativeMember::Node(NodeIndex(node)) => members.nodes[node].name.as_str(),
        NativeMember::Witness(WitnessIndex(witness)) => members.witnesses[witness].name.as_str(),
    };
    let names = voters.iter().map(name).collect::<Vec<_>>().join(", ");
    let alone = if voters.len() == 2 { ", or one in single-vote mode while the other is silent" } else { "" };
    let text = format!("voters are {names}: a claim needs {} of them{alone}", voters.len() / 2 + 1);
    match span {
        Some(span) => reader.explain(span, text),
        None => reader.report.explain(0, text),
    }
    for (index, witness) in members.witnesses.iter().enumerate() {
        if !voters.contains(&NativeMember::Witness(WitnessIndex(index))) {
            let message = format!("the witness `{}` has no vote", witness.name);
            let cure =
                "an odd number of voters is best; to let it vote all the same, name all voters in `voters`";
            let info = reader.report.info(message).cure(cure);
            reader.report.add(info);
        }
    }
    if voters.len() > 2 && voters.len().is_multiple_of(2) {
        let message = format!("{} voters survive no more losses than {}", voters.len(), voters.len() - 1);
        let info = reader.report.info(message).cure("one voter less, or one more, such as a witness");
        reader.report.add(info);
    }
}
