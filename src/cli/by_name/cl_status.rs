//! `cl_status`: one fact for a script, as one word and an exit code. Facts: `docs/heartbeat.md`, section 6.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use locum_core::{
    liveness::Liveness,
    r1::{
        ownership,
        status::{Node, Status},
    },
};

use super::Given;
use crate::{
    cli::Common,
    voice::{
        report::Report,
        socket::{Client, Fault},
    },
};

/// Heartbeat's exit codes of `cl_status`.
mod code {
    pub(super) const OK: u8 = 0;
    pub(super) const NO: u8 = 1;
    pub(super) const BAD_PARAMETER: u8 = 11;
    pub(super) const TIMEOUT: u8 = 12;
    pub(super) const UNKNOWN: u8 = 13;
}

const USAGE: &str = "\
Usage: cl_status <sub-command> [<options>] [<parameters>]

Sub-commands:
clientstatus <node-name> <client-id> [<timeout>]
\tWhether a client runs on a node: online, offline, join, leave.
hblinkstatus <node-name> <link-name>
\tWhether a node is heard over a link: up, dead.
hbstatus
\tWhether the daemon runs on this machine and takes part.
\tOptions:
\t\t-v\tversion and the output of \"listnodes -v\" too
listnodes [<option>]
\tThe nodes of the cluster, one a line.
\tOptions:
\t\t-p\tping nodes alone
\t\t-n\tordinary nodes alone
\t\t-v\ttype, status and links of each too
listhblinks <node-name>
\tThe links over which a node is heard.
\tOptions:
\t\t-v\twith their status
nodestatus <node-name>
\tinit, up, active, dead, ping.
nodeweight <node-name>
nodesite <node-name>
\tQuorum data of a node.
nodetype <node-name>
\tnormal, ping.
rscstatus
\tWhich groups this node holds: none, local, foreign, all, transition.
hbparameter -p <parameter-name>
\tThe value of a parameter of ha.cf.
All take -m: a sentence instead of a word.";

/// The text to print, and the exit code.
struct Said {
    out: String,
    code: u8,
}

fn said(out: impl Into<String>, code: u8) -> Said {
    Said { out: out.into(), code }
}

/// Why there is no answer, and how to report it.
enum Wrong {
    /// Printed on standard output, as heartbeat does with its commonest complaints.
    Printed(&'static str),
    /// Printed on standard error like a line of a log; with the exit code.
    Error(String, u8),
}

pub(super) fn run(common: &Common, words: Vec<String>) -> ExitCode {
    let Some((command, words)) = words.split_first() else {
        outln!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    let ask = Ask { client: Client::new(&common.run_dir()) };
    match ask.answer(command, words) {
        Ok(said) => {
            outln!("{}", said.out);
            ExitCode::from(said.code)
        }
        Err(Wrong::Printed(text)) => {
            outln!("{text}");
            ExitCode::from(code::BAD_PARAMETER)
        }
        Err(Wrong::Error(text, code)) => {
            for line in text.lines() {
                errln!("cl_status: ERROR: {line}");
            }
            ExitCode::from(code)
        }
    }
}

struct Ask {
    client: Client,
}

impl Ask {
    fn answer(&self, command: &str, words: &[String]) -> Result<Said, Wrong> {
        const COMMANDS: [&str; 11] = [
            "hbstatus",
            "listnodes",
            "nodestatus",
            "nodeweight",
            "nodesite",
            "nodetype",
            "listhblinks",
            "hblinkstatus",
            "clientstatus",
            "rscstatus",
            "hbparameter",
        ];
        if !COMMANDS.contains(&command) {
            return Err(Wrong::Error(format!("{command}: invalid sub-command."), code::BAD_PARAMETER));
        }
        let given = Given::read(words, "mpnv").map_err(|letter| {
            Wrong::Error(format!("{command}: invalid option -- '{letter}'"), code::BAD_PARAMETER)
        })?;
        if command == "hbstatus" {
            return Ok(self.hbstatus(&given));
        }
        if command == "hbparameter" {
            let parameters = self.client.parameters().map_err(not_signed_on)?;
            return hbparameter(&given, &parameters);
        }
        let Report { cluster, daemon, .. } = self.report().map_err(not_signed_on)?;
        match command {
            "listnodes" => Ok(listnodes(&given, &cluster)),
            "nodestatus" => nodestatus(&given, &cluster),
            "nodeweight" => nodeweight(&given, &cluster),
            "nodesite" => nodesite(&given, &cluster),
            "nodetype" => nodetype(&given, &cluster),
            "listhblinks" => listhblinks(&given, &cluster),
            "hblinkstatus" => hblinkstatus(&given, &cluster),
            "clientstatus" => clientstatus(&given, &cluster, daemon.ipfail),
            _ => Ok(rscstatus(&given, &cluster)),
        }
    }

    fn report(&self) -> Result<Report, Fault> {
        let text = self.client.status()?;
        serde_json::from_str(&text).map_err(|error| Fault::Broken(error.to_string()))
    }

    /// Answers "stopped" until the node takes part, as heartbeat does: scripts wait for that.
    fn hbstatus(&self, given: &Given) -> Said {
        let stopped = || said("Heartbeat is stopped on this machine.", code::NO);
        match self.report() {
            Ok(report) if report.cluster.state == ownership::State::Init => stopped(),
            Ok(report) if given.has('v') => {
                let version = &report.daemon.version;
                let nodes = verbose_nodes(&report.cluster);
                said(
                    format!("version:\t3.0.6 (locum {version})\nmanaged by:\t\"haresources\"\n{nodes}"),
                    code::OK,
                )
            }
            Ok(_) => said("Heartbeat is running on this machine.", code::OK),
            Err(Fault::NoPermission(_)) => {
                said("Heartbeat is apparently running on this machine, but refuses my connection", code::OK)
            }
            Err(Fault::NotRunning(_) | Fault::Broken(_) | Fault::NotNow(_) | Fault::TimedOut) => stopped(),
        }
    }
}

fn not_signed_on(fault: Fault) -> Wrong {
    let code = if matches!(fault, Fault::TimedOut) { code::TIMEOUT } else { code::NO };
    Wrong::Error(format!("Cannot signon with heartbeat\nREASON: {fault}"), code)
}

/// An ordinary node of `ha.cf`, or a ping node.
enum Member<'a> {
    Normal(&'a Node),
    Ping(&'a locum_core::r1::status::Ping),
}

impl Member<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Normal(node) => &node.name,
            Self::Ping(ping) => &ping.name,
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Normal(_) => "normal",
            Self::Ping(_) => "ping",
        }
    }

    fn status(&self, cluster: &Status) -> &'static str {
        match self {
            Self::Ping(ping) if ping.liveness.is_up() => "ping",
            Self::Ping(_) => "dead",
            Self::Normal(node) => node_word(node, cluster),
        }
    }

    /// The names of the links, and whether the node is heard over each.
    fn links(&self, cluster: &Status) -> Vec<(String, bool)> {
        match self {
            Self::Ping(ping) => vec![(ping.name.clone(), ping.liveness.is_up())],
            Self::Normal(node) => {
                let own = node.name == cluster.node;
                let up = |link: &locum_core::r1::status::Link| {
                    link.down.is_none() && (own || link.liveness.is_up())
                };
                cluster.links.iter().map(|link| (link.name.clone(), up(link))).collect()
            }
        }
    }
}

fn node_word(node: &Node, cluster: &Status) -> &'static str {
    let own = node.name == cluster.node;
    match node.liveness {
        _ if own && cluster.state == ownership::State::Init => "up",
        _ if own => "active",
        Liveness::Unheard => "init",
        _ if node.left => "dead",
        Liveness::Silent | Liveness::Dead => "dead",
        Liveness::Alive | Liveness::Late | Liveness::Returned => "active",
    }
}

fn members(cluster: &Status) -> impl Iterator<Item = Member<'_>> {
    cluster.nodes.iter().map(Member::Normal).chain(cluster.pings.iter().map(Member::Ping))
}

fn member<'a>(cluster: &'a Status, name: &str) -> Option<Member<'a>> {
    members(cluster).find(|member| member.name().eq_ignore_ascii_case(name))
}

/// The node that the first operand names.
fn named<'a>(given: &Given, cluster: &'a Status) -> Result<Member<'a>, Wrong> {
    let name = given.operands.first().ok_or(Wrong::Printed("Not enough parameters."))?;
    member(cluster, name).ok_or(Wrong::Printed("Error. May be due to incorrect node name"))
}

/// The word alone, or a sentence with `-m`.
fn one(given: &Given, word: &str, sentence: impl FnOnce() -> String) -> String {
    if given.has('m') { sentence() } else { word.to_owned() }
}

fn listnodes(given: &Given, cluster: &Status) -> Said {
    if given.has('v') {
        return said(verbose_nodes(cluster), code::OK);
    }
    let wanted = |member: &Member<'_>| match member {
        Member::Normal(_) => given.has('n') || !given.has('p'),
        Member::Ping(_) => given.has('p') || !given.has('n'),
    };
    let heading = given.has('m').then(|| "The nodes are as follow:".to_owned());
    let names = members(cluster).filter(wanted).map(|member| member.name().to_owned());
    said(heading.into_iter().chain(names).collect::<Vec<_>>().join("\n"), code::OK)
}

fn verbose_nodes(cluster: &Status) -> String {
    let mut text = String::new();
    for member in members(cluster) {
        // Writing to a string cannot fail.
        let _ =
            write!(text, "\n{}\t{}\t(nodetype: {})", member.name(), member.status(cluster), member.kind());
        for (link, up) in member.links(cluster) {
            let _ = write!(text, "\n\t{link}\t{}", link_word(up));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

fn nodestatus(given: &Given, cluster: &Status) -> Result<Said, Wrong> {
    let member = named(given, cluster)?;
    let word = member.status(cluster);
    let code = if matches!(word, "active" | "up" | "ping") { code::OK } else { code::NO };
    Ok(said(one(given, word, || format!("The cluster node {} is {word}", member.name())), code))
}

fn nodetype(given: &Given, cluster: &Status) -> Result<Said, Wrong> {
    let member = named(given, cluster)?;
    let word = member.kind();
    Ok(said(one(given, word, || format!("The node {}'s type: {word}", member.name())), code::OK))
}

fn nodeweight(given: &Given, cluster: &Status) -> Result<Said, Wrong> {
    let weight = match named(given, cluster)? {
        Member::Normal(node) => node.weight,
        Member::Ping(_) => 0,
    };
    let sentence = || format!("The weight of the cluster node {} is {weight}", given.operands[0]);
    Ok(said(one(given, &weight.to_string(), sentence), code::OK))
}

fn nodesite(given: &Given, cluster: &Status) -> Result<Said, Wrong> {
    let site = match named(given, cluster)? {
        Member::Normal(node) => &node.site,
        Member::Ping(_) => "",
    };
    let sentence = || format!("The site of the cluster node {} is {site}", given.operands[0]);
    Ok(said(one(given, site, sentence), code::OK))
}

const fn link_word(up: bool) -> &'static str {
    if up { "up" } else { "dead" }
}

fn listhblinks(given: &Given, cluster: &Status) -> Result<Said, Wrong> {
    let name = given.operands.first().ok_or(Wrong::Printed("No enough parameter."))?;
    let unknown = || {
        let text = format!("Cannot start heartbeat link interface walk.\nREASON: no node {name}");
        Wrong::Error(text, code::UNKNOWN)
    };
    let member = member(cluster, name).ok_or_else(unknown)?;
    let heading = given.has('m').then(|| "\tthis node has the following heartbeat links:".to_owned());
    let line = |(link, up): (String, bool)| match given.has('v') {
        true => format!("\t{link}\t{}", link_word(up)),
        false => format!("\t{link}"),
    };
    let lines = member.links(cluster).into_iter().map(line);
    Ok(said(heading.into_iter().chain(lines).collect::<Vec<_>>().join("\n"), code::OK))
}

fn hblinkstatus(given: &Given, cluster: &Status) -> Result<Said, Wrong> {
    let [name, link] = &given.operands[..] else { return Err(Wrong::Printed("No enough parameter.")) };
    let links = member(cluster, name).map(|member| member.links(cluster)).unwrap_or_default();
    let Some((_, up)) = links.into_iter().find(|(known, _)| known == link) else {
        let text = format!("Cannot get heartbeat link status\nREASON: no link {link} of a node {name}");
        return Err(Wrong::Error(text, code::UNKNOWN));
    };
    let word = link_word(up);
    let sentence = || format!("The node {name}'s heartbeat link {link} is {word}");
    Ok(said(one(given, word, sentence), if up { code::OK } else { code::NO }))
}

/// Whether a client of heartbeat's programming interface runs. Locum has no such clients; only `ipfail`, a part of the
/// daemon, counts as one. The clients of the peer are unknown here.
fn clientstatus(given: &Given, cluster: &Status, ipfail: bool) -> Result<Said, Wrong> {
    let [name, client, ..] = &given.operands[..] else { return Err(Wrong::Printed("No enough parameter.")) };
    let Some(Member::Normal(_)) = member(cluster, name) else {
        let text = format!("Cannot get heartbeat client {client}'s status\nREASON: no node {name}");
        return Err(Wrong::Error(text, code::UNKNOWN));
    };
    let online = ipfail && client == "ipfail" && name.eq_ignore_ascii_case(&cluster.node);
    Ok(if online { said("online", code::OK) } else { said("offline", code::NO) })
}

fn rscstatus(given: &Given, cluster: &Status) -> Said {
    let settled = cluster.state == ownership::State::Stable && cluster.transition.is_none();
    let word = if settled { &*cluster.holding } else { "transition" };
    said(one(given, word, || format!("This node is holding {word} resources.")), code::OK)
}

fn hbparameter(given: &Given, parameters: &BTreeMap<String, String>) -> Result<Said, Wrong> {
    let name = given.operands.first().filter(|_| given.has('p'));
    let name = name.ok_or_else(|| Wrong::Error("parameter name required".to_owned(), code::BAD_PARAMETER))?;
    let Some(value) = parameters.get(name) else {
        let text = format!("Cannot get parameter {name}'s value\nREASON: ha.cf does not set it");
        return Err(Wrong::Error(text, code::NO));
    };
    Ok(said(one(given, value, || format!("Heartbeat parameter {name}'s value: {value}")), code::OK))
}
