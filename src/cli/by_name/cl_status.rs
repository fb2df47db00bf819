//! `cl_status`: one fact for a script, as one word and an exit code. Facts: `docs/heartbeat.md`, section 6.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use locum_core::{
    liveness::Liveness,
    r1::{
        ownership,
        status::{R1NodeStatus, R1Status},
    },
};

use super::ParsedWords;
use crate::{
    cli::CommonOptions,
    observe::{
        report::StatusReport,
        socket::{ClientFault, ControlClient},
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
struct ScriptAnswer {
    out: String,
    code: u8,
}

fn script_answer(out: impl Into<String>, code: u8) -> ScriptAnswer {
    ScriptAnswer { out: out.into(), code }
}

/// Why there is no answer, and how to report it.
enum AnswerFault {
    /// Printed on standard output, as heartbeat does with its commonest complaints.
    Printed(&'static str),
    /// Printed on standard error like a line of a log; with the exit code.
    Error(String, u8),
}

pub(super) fn run(common: &CommonOptions, words: Vec<String>) -> ExitCode {
    let Some((command, words)) = words.split_first() else {
        outln!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    let ask = StatusQuery { client: ControlClient::new(&common.run_dir()) };
    match ask.answer(command, words) {
        Ok(said) => {
            outln!("{}", said.out);
            ExitCode::from(said.code)
        }
        Err(AnswerFault::Printed(text)) => {
            outln!("{text}");
            ExitCode::from(code::BAD_PARAMETER)
        }
        Err(AnswerFault::Error(text, code)) => {
            for line in text.lines() {
                errln!("cl_status: ERROR: {line}");
            }
            ExitCode::from(code)
        }
    }
}

struct StatusQuery {
    client: ControlClient,
}

impl StatusQuery {
    fn answer(&self, command: &str, words: &[String]) -> Result<ScriptAnswer, AnswerFault> {
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
            return Err(AnswerFault::Error(format!("{command}: invalid sub-command."), code::BAD_PARAMETER));
        }
        let given = ParsedWords::read(words, "mpnv").map_err(|letter| {
            AnswerFault::Error(format!("{command}: invalid option -- '{letter}'"), code::BAD_PARAMETER)
        })?;
        if command == "hbstatus" {
            return Ok(self.hbstatus(&given));
        }
        if command == "hbparameter" {
            let parameters = self.client.parameters().map_err(not_signed_on)?;
            return hbparameter(&given, &parameters);
        }
        let StatusReport { cluster, daemon, .. } = self.report().map_err(not_signed_on)?;
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

    fn report(&self) -> Result<StatusReport, ClientFault> {
        let text = self.client.status()?;
        serde_json::from_str(&text).map_err(|error| ClientFault::Broken(error.to_string()))
    }

    /// Answers "stopped" until the node takes part, as heartbeat does: scripts wait for that.
    fn hbstatus(&self, given: &ParsedWords) -> ScriptAnswer {
        let stopped = || script_answer("Heartbeat is stopped on this machine.", code::NO);
        match self.report() {
            Ok(report) if report.cluster.state == ownership::R1State::Init => stopped(),
            Ok(report) if given.has('v') => {
                let version = &report.daemon.version;
                let nodes = verbose_nodes(&report.cluster);
                script_answer(
                    format!("version:\t3.0.6 (locum {version})\nmanaged by:\t\"haresources\"\n{nodes}"),
                    code::OK,
                )
            }
            Ok(_) => script_answer("Heartbeat is running on this machine.", code::OK),
            Err(ClientFault::NoPermission(_)) => script_answer(
                "Heartbeat is apparently running on this machine, but refuses my connection",
                code::OK,
            ),
            Err(
                ClientFault::NotRunning(_)
                | ClientFault::Broken(_)
                | ClientFault::NotNow(_)
                | ClientFault::TimedOut,
            ) => stopped(),
        }
    }
}

fn not_signed_on(fault: ClientFault) -> AnswerFault {
    let code = if matches!(fault, ClientFault::TimedOut) { code::TIMEOUT } else { code::NO };
    AnswerFault::Error(format!("Cannot signon with heartbeat\nREASON: {fault}"), code)
}

/// An ordinary node of `ha.cf`, or a ping node.
enum NamedNode<'a> {
    Normal(&'a R1NodeStatus),
    Ping(&'a locum_core::r1::status::R1PingStatus),
}

impl NamedNode<'_> {
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

    fn status(&self, cluster: &R1Status) -> &'static str {
        match self {
            Self::Ping(ping) if ping.liveness.is_up() => "ping",
            Self::Ping(_) => "dead",
            Self::Normal(node) => node_word(node, cluster),
        }
    }

    /// The names of the links, and whether the node is heard over each.
    fn links(&self, cluster: &R1Status) -> Vec<(String, bool)> {
        match self {
            Self::Ping(ping) => vec![(ping.name.clone(), ping.liveness.is_up())],
            Self::Normal(node) => {
                let own = node.name == cluster.node;
                let up = |link: &locum_core::r1::status::R1LinkStatus| {
                    link.down.is_none() && (own || link.liveness.is_up())
                };
                cluster.links.iter().map(|link| (link.name.clone(), up(link))).collect()
            }
        }
    }
}

fn node_word(node: &R1NodeStatus, cluster: &R1Status) -> &'static str {
    let own = node.name == cluster.node;
    match node.liveness {
        _ if own && cluster.state == ownership::R1State::Init => "up",
        _ if own => "active",
        Liveness::Unheard => "init",
        _ if node.left => "dead",
        Liveness::Silent | Liveness::Dead => "dead",
        Liveness::Alive | Liveness::Late | Liveness::Returned => "active",
    }
}

fn members(cluster: &R1Status) -> impl Iterator<Item = NamedNode<'_>> {
    cluster.nodes.iter().map(NamedNode::Normal).chain(cluster.pings.iter().map(NamedNode::Ping))
}

fn member<'a>(cluster: &'a R1Status, name: &str) -> Option<NamedNode<'a>> {
    members(cluster).find(|member| member.name().eq_ignore_ascii_case(name))
}

/// The node that the first operand names.
fn named<'a>(given: &ParsedWords, cluster: &'a R1Status) -> Result<NamedNode<'a>, AnswerFault> {
    let name = given.operands.first().ok_or(AnswerFault::Printed("Not enough parameters."))?;
    member(cluster, name).ok_or(AnswerFault::Printed("Error. May be due to incorrect node name"))
}

/// The word alone, or a sentence with `-m`.
fn one(given: &ParsedWords, word: &str, sentence: impl FnOnce() -> String) -> String {
    if given.has('m') { sentence() } else { word.to_owned() }
}

fn listnodes(given: &ParsedWords, cluster: &R1Status) -> ScriptAnswer {
    if given.has('v') {
        return script_answer(verbose_nodes(cluster), code::OK);
    }
    let wanted = |member: &NamedNode<'_>| match member {
        NamedNode::Normal(_) => given.has('n') || !given.has('p'),
        NamedNode::Ping(_) => given.has('p') || !given.has('n'),
    };
    let heading = given.has('m').then(|| "The nodes are as follow:".to_owned());
    let names = members(cluster).filter(wanted).map(|member| member.name().to_owned());
    script_answer(heading.into_iter().chain(names).collect::<Vec<_>>().join("\n"), code::OK)
}

fn verbose_nodes(cluster: &R1Status) -> String {
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

fn nodestatus(given: &ParsedWords, cluster: &R1Status) -> Result<ScriptAnswer, AnswerFault> {
    let member = named(given, cluster)?;
    let word = member.status(cluster);
    let code = if matches!(word, "active" | "up" | "ping") { code::OK } else { code::NO };
    Ok(script_answer(one(given, word, || format!("The cluster node {} is {word}", member.name())), code))
}

fn nodetype(given: &ParsedWords, cluster: &R1Status) -> Result<ScriptAnswer, AnswerFault> {
    let member = named(given, cluster)?;
    let word = member.kind();
    Ok(script_answer(one(given, word, || format!("The node {}'s type: {word}", member.name())), code::OK))
}

fn nodeweight(given: &ParsedWords, cluster: &R1Status) -> Result<ScriptAnswer, AnswerFault> {
    let weight = match named(given, cluster)? {
        NamedNode::Normal(node) => node.weight,
        NamedNode::Ping(_) => 0,
    };
    let sentence = || format!("The weight of the cluster node {} is {weight}", given.operands[0]);
    Ok(script_answer(one(given, &weight.to_string(), sentence), code::OK))
}

fn nodesite(given: &ParsedWords, cluster: &R1Status) -> Result<ScriptAnswer, AnswerFault> {
    let site = match named(given, cluster)? {
        NamedNode::Normal(node) => &node.site,
        NamedNode::Ping(_) => "",
    };
    let sentence = || format!("The site of the cluster node {} is {site}", given.operands[0]);
    Ok(script_answer(one(given, site, sentence), code::OK))
}

const fn link_word(up: bool) -> &'static str {
    if up { "up" } else { "dead" }
}

fn listhblinks(given: &ParsedWords, cluster: &R1Status) -> Result<ScriptAnswer, AnswerFault> {
    let name = given.operands.first().ok_or(AnswerFault::Printed("No enough parameter."))?;
    let unknown = || {
        let text = format!("Cannot start heartbeat link interface walk.\nREASON: no node {name}");
        AnswerFault::Error(text, code::UNKNOWN)
    };
    let member = member(cluster, name).ok_or_else(unknown)?;
    let heading = given.has('m').then(|| "\tthis node has the following heartbeat links:".to_owned());
    let line = |(link, up): (String, bool)| match given.has('v') {
        true => format!("\t{link}\t{}", link_word(up)),
        false => format!("\t{link}"),
    };
    let lines = member.links(cluster).into_iter().map(line);
    Ok(script_answer(heading.into_iter().chain(lines).collect::<Vec<_>>().join("\n"), code::OK))
}

fn hblinkstatus(given: &ParsedWords, cluster: &R1Status) -> Result<ScriptAnswer, AnswerFault> {
    let [name, link] = &given.operands[..] else { return Err(AnswerFault::Printed("No enough parameter.")) };
    let links = member(cluster, name).map(|member| member.links(cluster)).unwrap_or_default();
    let Some((_, up)) = links.into_iter().find(|(known, _)| known == link) else {
        let text = format!("Cannot get heartbeat link status\nREASON: no link {link} of a node {name}");
        return Err(AnswerFault::Error(text, code::UNKNOWN));
    };
    let word = link_word(up);
    let sentence = || format!("The node {name}'s heartbeat link {link} is {word}");
    Ok(script_answer(one(given, word, sentence), if up { code::OK } else { code::NO }))
}

/// Whether a client of heartbeat's programming interface runs. Locum has no such clients; only `ipfail`, a part of the
/// daemon, counts as one. The clients of the peer are unknown here.
fn clientstatus(given: &ParsedWords, cluster: &R1Status, ipfail: bool) -> Result<ScriptAnswer, AnswerFault> {
    let [name, client, ..] = &given.operands[..] else {
        return Err(AnswerFault::Printed("No enough parameter."));
    };
    let Some(NamedNode::Normal(_)) = member(cluster, name) else {
        let text = format!("Cannot get heartbeat client {client}'s status\nREASON: no node {name}");
        return Err(AnswerFault::Error(text, code::UNKNOWN));
    };
    let online = ipfail && client == "ipfail" && name.eq_ignore_ascii_case(&cluster.node);
    Ok(if online { script_answer("online", code::OK) } else { script_answer("offline", code::NO) })
}

fn rscstatus(given: &ParsedWords, cluster: &R1Status) -> ScriptAnswer {
    let settled = cluster.state == ownership::R1State::Stable && cluster.transition.is_none();
    let word = if settled { &*cluster.holding } else { "transition" };
    script_answer(one(given, word, || format!("This node is holding {word} resources.")), code::OK)
}

fn hbparameter(
    given: &ParsedWords,
    parameters: &BTreeMap<String, String>,
) -> Result<ScriptAnswer, AnswerFault> {
    let name = given.operands.first().filter(|_| given.has('p'));
    let name =
        name.ok_or_else(|| AnswerFault::Error("parameter name required".to_owned(), code::BAD_PARAMETER))?;
    let Some(value) = parameters.get(name) else {
        let text = format!("Cannot get parameter {name}'s value\nREASON: ha.cf does not set it");
        return Err(AnswerFault::Error(text, code::NO));
    };
    Ok(script_answer(one(given, value, || format!("Heartbeat parameter {name}'s value: {value}")), code::OK))
}
