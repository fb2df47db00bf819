//! Turns heartbeat's files into a `locum.toml`. Settings with a counterpart are written; a comment marks each change of
//! meaning. Decisions of the administrator are left open, so that the check finds them.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt::Write as _, net::IpAddr};

use super::{
    locum_toml::{holds_data, quoted},
    value::Shown,
};
use crate::{
    model::{identity::NodeIndex, logging::Logging, time::DurationText},
    native::{
        plan::NAME_BYTES_MAX,
        timing::{NativeTiming, PACE_MAX, PACE_MIN},
    },
    r1::plan::{AutoFailback, R1Group, R1Link, R1Medium, R1Plan},
};

/// An address of this host. It is needed because `ha.cf` names only the other node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The interface that carries it.
    pub interface: String,
    pub ip: IpAddr,
}

/// The resulting file, and what it leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The text of `locum.toml`.
    pub text: String,
    /// What must be decided before the file can be used: one sentence each. Empty if the file passes the check.
    pub open: Vec<String>,
    /// What changes its meaning: one sentence each, which is also a comment in the text.
    pub changes: Vec<String>,
}

/// Writes the plan of heartbeat's files as `locum.toml`.
#[must_use]
pub fn import(plan: &R1Plan, own: &[OwnAddress]) -> Imported {
    let mut page = Page { text: String::new(), open: Vec::new(), changes: Vec::new() };
    page.line("# Made from ha.cf and haresources. `CHANGED` marks changes of meaning.");
    page.line(format!("cluster = {}", quoted(&name(&plan.cluster, &[]))));
    page.pace(plan);
    page.blank();
    let names = link_names(&plan.links);
    page.nodes(plan, &names, own);
    page.links(plan, &names);
    page.defaults(plan);
    let mut used = Vec::new();
    for group in &plan.groups {
        page.group(plan, group, &mut used);
    }
    page.local(plan);
    page.left_out(plan);
    let Page { text, open, changes } = page;
    Imported { text, open, changes }
}

struct Page {
    text: String,
    open: Vec<String>,
    changes: Vec<String>,
}

impl Page {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    /// Adds a comment about a change of meaning.
    fn changed(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.comment(&format!("CHANGED: {text}"));
        self.changes.push(text);
    }

    /// Adds a comment, wrapped so that it can be read beside the lines.
    fn comment(&mut self, text: &str) {
        let mut line = String::from("#");
        for word in text.split_whitespace() {
            if line.len() + word.len() > 110 {
                self.line(core::mem::replace(&mut line, "#".into()));
            }
            let _ = write!(line, " {}", super::diag::shown(word));
        }
        self.line(line);
    }

    fn pace(&mut self, plan: &R1Plan) {
        let deadtime = plan.timing.deadtime;
        let pace = deadtime.clamp(PACE_MIN, PACE_MAX);
        let beat = NativeTiming::of(pace).beat;
        self.blank();
        if pace != deadtime {
            let (least, most) = (Shown(PACE_MIN), Shown(PACE_MAX));
            self.changed(format!("deadtime was {}; a pace is {least} to {most}.", Shown(deadtime)));
        }
        self.changed(format!(
            "pace takes the place of deadtime, and all other times follow from it: a beat every {} (keepalive was {}), \
             no warntime and no initdead. See `locum explain timing`.",
            Shown(beat),
            Shown(plan.timing.keepalive)
        ));
        self.line(format!("pace = {}", quoted(&DurationText(pace).to_string())));
        self.changed("the UDP port is 6940 where no `port` stands, so that heartbeat can run beside it.");
    }

    fn nodes(&mut self, plan: &R1Plan, names: &[String], own: &[OwnAddress]) {
        if plan.nodes.len() < 2 {
            self.open.push("heartbeat's files name one node, a native cluster has two or more".into());
        }
        if plan.nodes.len() == 2 {
            self.changed(
                "two nodes cannot have a better guard than `none`, which is heartbeat's own. With a third machine as \
                 witness (`locum witness`, and its line here) groups get the guard `lease`: never two owners.",
            );
        }
        let ends = plan.links.iter().map(|link| ends(plan, link, own)).collect::<Vec<_>>();
        if plan.links.iter().any(|link| !link.is_serial()) {
            self.changed(
                "interfaces and devices of the other nodes are taken to have the same names as here.",
            );
        }
        for (link, end) in plan.links.iter().zip(&ends) {
            if let ImportedEnds::Unknown(peer) = end {
                self.changed(format!(
                    "the frames to {peer} go as broadcast over {}: this node's own address there is not known. For \
                     unicast write each node's address in its `links`.",
                    link.name
                ));
            }
            if link.media.len() > 1 && !link.is_serial() && !matches!(end, ImportedEnds::Addresses { .. }) {
                self.changed(format!("several media over {} are one link now.", link.name));
            }
        }
        for (index, node) in plan.nodes.iter().enumerate() {
            let links = names.iter().zip(plan.links.iter().zip(&ends)).map(|(name, (link, ends))| {
                let end = match ends {
                    ImportedEnds::Same | ImportedEnds::Unknown(_) => link.name.clone(),
                    ImportedEnds::Addresses { mine, peer } => {
                        let ip = if NodeIndex(index) == plan.me { mine } else { peer };
                        ip.to_string()
                    }
                };
                format!("{} = {}", quoted(name), quoted(&end))
            });
            let links = links.collect::<Vec<_>>().join(", ");
            self.blank();
            self.line(format!("[nodes.{}]", quoted(node)));
            self.line(format!("links = {{ {links} }}"));
        }
        self.blank();
    }

    fn links(&mut self, plan: &R1Plan, names: &[String]) {
        for (link, name) in plan.links.iter().zip(names) {
            match link.media.first() {
                Some(R1Medium::Multicast { group, ttl, .. }) if !has_unicast(link) => {
                    self.line(format!("[links.{}]", quoted(name)));
                    self.line(format!("multicast = {}", quoted(&group.to_string())));
                    if *ttl == 0 {
                        self.changed("a ttl of 0 is written as 1: frames still do not leave the network.");
                    }
                    self.line(format!("ttl = {}", (*ttl).max(1)));
                    self.blank();
                }
                Some(R1Medium::Serial { baud, .. }) => {
                    self.line(format!("[links.{}]", quoted(name)));
                    self.line(format!("baud = {baud}"));
                    self.blank();
                }
                _ => {}
            }
        }
    }

    fn defaults(&mut self, plan: &R1Plan) {
        self.line("[defaults]");
        if plan.nodes.len() == 2 {
            self.line(r#"guard = "none""#);
        }
        match plan.auto_failback {
            AutoFailback::Off => self.line(r#"failback = "stay""#),
            AutoFailback::On | AutoFailback::Legacy => {
                self.comment("auto_failback: groups return as soon as their node is back");
                self.line(r#"failback = "0s""#);
            }
        }
        let limits = plan.limits;
        self.changed("an operation that exceeds its limit has failed; heartbeat waits for ever.");
        self.line(format!("start-limit = {}", quoted(&DurationText(limits.start).to_string())));
        self.line(format!("stop-limit = {}", quoted(&DurationText(limits.stop).to_string())));
        self.comment(
            "heartbeat never asks what it has started; without the next line failed resources are noticed, started \
             again and moved",
        );
        self.line(r#"monitor-every = "never""#);
        self.blank();
    }

    fn group(&mut self, plan: &R1Plan, group: &R1Group, used: &mut Vec<String>) {
        let named = group_name(group, used);
        used.push(named.clone());
        if named != group.key {
            self.changed(format!("the group is called {named}; heartbeat called it {}", group.key));
        }
        self.line(format!("[groups.{}]", quoted(&named)));
        self.line("resources = [");
        for resource in &group.resources {
            self.line(format!("    {},", quoted(&resource.text)));
        }
        self.line("]");
        self.line(format!("prefer = {}", quoted(&plan.nodes[group.node.0])));
        if group.resources.iter().any(holds_data) {
            if plan.fencing.is_some() {
                self.changed(
                    "heartbeat reset the other node before it took these data; no guard does that yet. As it stands, \
                     the check refuses the group. Take the data out of it, or write why it is safe without: i-know = \
                     \"REASON\"",
                );
                self.open.push(format!("the group {named} holds data that were protected by fencing"));
            } else {
                self.comment(
                    "heartbeat had no guard for these data either: after a partition two nodes had them",
                );
                self.line(r#"i-know = "as with heartbeat: the data are not guarded against two owners""#);
            }
        }
        self.blank();
    }

    fn local(&mut self, plan: &R1Plan) {
        self.line("[local]");
        let Logging { logfile, debugfile, facility, debug, .. } = &plan.logging;
        let texts = [
            ("watchdog", &plan.watchdog),
            ("log-file", logfile),
            ("debug-file", debugfile),
            ("log-facility", facility),
        ];
        for (key, text) in texts.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?))) {
            self.line(format!("{key} = {}", quoted(text)));
        }
        if *debug > 0 {
            self.line(format!("debug = {debug}"));
        }
        match plan.realtime {
            None => self.line("realtime = false"),
            Some(priority) => self.line(format!("realtime-priority = {priority}")),
        }
    }

    /// Lists the settings that have no counterpart.
    fn left_out(&mut self, plan: &R1Plan) {
        self.blank();
        for ping in &plan.pings {
            self.changed(format!("the ping node {} is not watched", ping.name));
        }
        if plan.ipfail {
            self.changed("there is no ipfail: a node that loses its outer network keeps its groups");
        }
        if let Some(fencing) = &plan.fencing {
            self.changed(format!("{} resets no node: there is no guard `fence` yet", fencing.device));
        }
        for client in &plan.clients {
            let program = client.command.first().map(String::as_str).unwrap_or_default();
            self.changed(format!("{program} is not started: make it a service of systemd"));
        }
        if plan.groups.iter().flat_map(|group| &group.resources).any(|it| !it.script.contains(':')) {
            self.comment(
                "Resource scripts are looked for in resource.d beside this file, and in /etc/init.d: copy those of \
                 /etc/ha.d/resource.d, and conf/OCF if there is one.",
            );
        }
        self.comment(
            "The keys are not those of authkeys: make them with `locum keygen`, and copy them to all nodes.",
        );
    }
}

/// How the nodes are connected to a link.
enum ImportedEnds {
    /// By an interface or device of the same name on all nodes.
    Same,
    /// By addresses, of which both are known.
    Addresses { mine: IpAddr, peer: IpAddr },
    /// By addresses, of which only the peer's is known.
    Unknown(IpAddr),
}

fn has_unicast(link: &R1Link) -> bool {
    link.media.iter().any(|medium| matches!(medium, R1Medium::Unicast { .. }))
}

fn ends(plan: &R1Plan, link: &R1Link, own: &[OwnAddress]) -> ImportedEnds {
    let there = link.media.iter().filter_map(|medium| match medium {
        R1Medium::Unicast { peer, .. } => Some(*peer),
        _ => None,
    });
    let is_own = |ip: &IpAddr| own.iter().any(|address| address.ip == *ip);
    let mut others = there.clone().filter(|ip| !is_own(ip));
    let Some(peer) = others.next() else { return ImportedEnds::Same };
    let is_alone = others.all(|ip| ip == peer);
    let here = own.iter().filter(|address| address.interface == link.name);
    let mine = there.clone().find(is_own).or_else(|| {
        let same_family = |ip: &IpAddr| ip.is_ipv4() == peer.is_ipv4();
        here.map(|address| address.ip).find(same_family)
    });
    // Only one plain case counts as known. A link-local address belongs to one interface; more nodes have more
    // addresses; and of two addresses that are both not ours, neither is known to be the other node's.
    let is_plain =
        is_alone && !matches!(peer, IpAddr::V6(ip) if ip.is_unicast_link_local()) && plan.nodes.len() == 2;
    match mine {
        Some(mine) if is_plain => ImportedEnds::Addresses { mine, peer },
        _ => ImportedEnds::Unknown(peer),
    }
}

/// The valid native name that is nearest to this text and not yet in `used`.
fn name(text: &str, used: &[String]) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let mut base =
        text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).chars().map(good).collect::<String>();
    base.truncate(NAME_BYTES_MAX);
    if base.is_empty() {
        base.push('x');
    }
    let mut name = base.clone();
    let mut number = 2;
    while used.contains(&name) {
        let tail = format!("-{number}");
        name = base.chars().take(NAME_BYTES_MAX - tail.len()).collect::<String>() + &tail;
        number += 1;
    }
    name
}

/// Names a group after its first resource that is not an address, or else after its address.
fn group_name(group: &R1Group, used: &[String]) -> String {
    let is_address = |script: &str| matches!(script, "IPaddr" | "IPaddr2" | "IPv6addr");
    let service = group.resources.iter().find(|resource| !is_address(&resource.script));
    let text = match service {
        Some(resource) => resource.script.rsplit(':').next().unwrap_or_default().to_string(),
        None => group.resources.first().map(|resource| resource.args.concat()).unwrap_or_default(),
    };
    name(text.split('/').next().unwrap_or_default(), used)
}

fn link_names(links: &[R1Link]) -> Vec<String> {
    let mut names = Vec::new();
    for link in links {
        let last = link.name.rsplit('/').next().unwrap_or_default();
        let name = name(last, &names);
        names.push(name);
    }
    names
}
