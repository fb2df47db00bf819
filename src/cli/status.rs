//! `locum status`: the state of the cluster as this node sees it.
//!
//! Exit code: 0 all is well, 1 something is not (the last lines name it), 3 no daemon runs here, 4 no permission.

mod native;

use std::{
    fmt::{self, Write as _},
    io::{self, BufRead, IsTerminal, Write as _},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use locum_core::{
    group::GroupPhase,
    liveness::Liveness,
    r1::{
        ownership,
        status::{Forecast, R1GroupStatus, R1LinkStatus, R1NodeStatus},
    },
};

use crate::{
    cli::{CommonOptions, failed},
    heart::{ArpFilterStats, GateStats, HeartStats, OvertakenState},
    observe::{
        report::{AnyStatusReport, DaemonInfo, ServiceInterface, StatusReport},
        socket::{ClientFault, ControlClient},
    },
};

/// How long `status` shows refused announcements (without proof) after the last one, in seconds.
const REFUSED_SHOWN_SECONDS: u64 = 60;

/// The options of `locum status`.
#[derive(Clone, Copy, Debug, Args)]
pub struct StatusOptions {
    /// Print the full status as JSON
    #[arg(long)]
    pub json: bool,
    /// Print again at every change, until interrupted or the daemon ends
    #[arg(long)]
    pub watch: bool,
}

/// Prints the status, once or at every change.
///
/// # Errors
/// If this version cannot read the daemon's answer, or standard output cannot be written.
pub fn run(common: &CommonOptions, options: StatusOptions) -> anyhow::Result<ExitCode> {
    let client = ControlClient::new(&common.run_dir());
    if options.watch {
        return match client.watch() {
            Ok(lines) => watch(lines, options),
            Err(fault) => Ok(failed(&fault)),
        };
    }
    match client.status() {
        Ok(json) => show(&json, options, ""),
        Err(fault) => Ok(failed(&fault)),
    }
}

fn watch(lines: impl BufRead, options: StatusOptions) -> anyhow::Result<ExitCode> {
    let clear = if io::stdout().is_terminal() && !options.json { "\x1b[H\x1b[2J" } else { "" };
    for line in lines.lines() {
        match line {
            Ok(line) => show(&line, options, clear)?,
            // The daemon ended suddenly.
            Err(_) => break,
        };
    }
    Ok(failed(&ClientFault::Broken("it has ended".to_owned())))
}

fn show(json: &str, options: StatusOptions, before: &str) -> anyhow::Result<ExitCode> {
    let report = AnyStatusReport::read(json.as_bytes()).context(
        "the daemon's answer cannot be read: the daemon is another \
                                                        version of Locum; restart it with this one",
    )?;
    let text = match &report {
        _ if options.json => format!("{}\n", json.trim_end()),
        AnyStatusReport::R1(report) => text(report),
        AnyStatusReport::Native(report) => native::text(report),
    };
    let mut out = io::stdout().lock();
    out.write_all(format!("{before}{text}").as_bytes())?;
    out.flush()?;
    Ok(if report.troubles().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The whole page. Every text that comes from outside goes through [`TerminalSafe`].
fn text(report: &StatusReport) -> String {
    let mut page = String::new();
    // Writing into a string cannot fail.
    let _ = write_page(&mut page, report);
    page
}

fn write_page(page: &mut String, report: &StatusReport) -> fmt::Result {
    let cluster = &report.cluster;
    writeln!(
        page,
        "{} in cluster {}: {}, holds {} (locum {}, up {})",
        TerminalSafe(&cluster.node),
        TerminalSafe(&cluster.cluster),
        state_word(cluster.state),
        TerminalSafe(&cluster.holding),
        TerminalSafe(&report.daemon.version),
        SecondsText(cluster.uptime)
    )?;
    if let Some(transition) = &cluster.transition {
        writeln!(page, "now: {}", TerminalSafe(transition))?;
    }
    if let Some(waiting) = &cluster.waiting {
        writeln!(page, "handover: {}", TerminalSafe(&waiting.to_string()))?;
    }
    section(page, "nodes", cluster.nodes.iter().map(|node| node_row(node, &cluster.node)))?;
    section(page, "links", cluster.links.iter().map(link_row))?;
    section(
        page,
        "ping nodes",
        cluster.pings.iter().map(|p| [TerminalSafe(&p.name).to_string(), word(p.liveness), String::new()]),
    )?;
    section(page, "groups", cluster.groups.iter().map(group_row))?;
    section(page, "service interfaces", report.service_interfaces.iter().map(interface_row))?;
    writeln!(page)?;
    for forecast in &cluster.forecasts {
        writeln!(page, "{}", forecast_line(forecast))?;
    }
    let gates = &report.heart.gates;
    gate_lines(page, gates)?;
    filter_lines(page, &report.heart.arp_filter)?;
    if !gates.without.is_empty() {
        writeln!(
            page,
            "note: no gate is possible here (run `locum gate` for the reason): if this daemon is killed or frozen, \
             its addresses keep answering"
        )?;
    }
    notes(page, &report.daemon, &report.heart, &cluster.hints)?;
    for trouble in report.troubles() {
        writeln!(page, "PROBLEM: {}", TerminalSafe(&trouble))?;
    }
    Ok(())
}

/// The gate backend, and gates that another program removed.
fn gate_lines(page: &mut String, gates: &GateStats) -> fmt::Result {
    if let Some(backend) = &gates.backend {
        let why = match (&gates.bpf_missing, backend.as_str()) {
            (Some(why), "nft") => format!("; bpf: {}", TerminalSafe(why)),
            _ => String::new(),
        };
        writeln!(page, "gates by {}{why}", TerminalSafe(backend))?;
    }
    for OvertakenState { interface, by, times, .. } in &gates.overtaken {
        let (interface, by) = (TerminalSafe(interface), TerminalSafe(by));
        let what = format!("the program {by} was attached in front of the gates on {interface}");
        writeln!(page, "note: {what} ({times} times); the gates were moved to the front again")?;
    }
    for gate in gates.gates.iter().filter(|gate| gate.restored > 0) {
        writeln!(
            page,
            "note: gate of group {}: removed by another program and restored {} times",
            TerminalSafe(&gate.group),
            gate.restored
        )?;
    }
    if gates.refused_ago.is_some_and(|ago| ago <= REFUSED_SHOWN_SECONDS) {
        writeln!(
            page,
            "note: {} claim announcements without a valid proof were dropped: a few are normal after this node has \
             lost a group; if the number keeps growing, a node runs an older Locum, or another machine on a link \
             tries to silence services",
            gates.refused
        )?;
    }
    Ok(())
}

/// The backend of the ARP filter, and whether another program removed it.
fn filter_lines(page: &mut String, filter: &ArpFilterStats) -> fmt::Result {
    if let Some(backend) = &filter.backend {
        writeln!(page, "ARP filter by {}", TerminalSafe(backend))?;
    }
    if filter.restored > 0 {
        writeln!(
            page,
            "note: ARP filter: removed by another program and restored {} times",
            filter.restored
        )?;
    }
    Ok(())
}

/// Weaknesses that are not faults: rights that the system refuses the heart, and the director's hints.
fn notes(page: &mut String, daemon: &DaemonInfo, heart: &HeartStats, hints: &[String]) -> fmt::Result {
    let refused = [
        ("no real-time rights", &heart.realtime_refused),
        ("memory is not locked", &heart.lock_refused),
        ("no control groups for the processes of agents", &daemon.control_groups_missing),
    ];
    for (what, reason) in refused {
        if let Some(reason) = reason {
            writeln!(page, "note: {what}: {}", TerminalSafe(reason))?;
        }
    }
    hints.iter().try_for_each(|hint| writeln!(page, "note: {}", TerminalSafe(hint)))
}

/// A title and rows of three columns, the first two padded.
fn section(page: &mut String, title: &str, rows: impl Iterator<Item = [String; 3]>) -> fmt::Result {
    let rows: Vec<[String; 3]> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    writeln!(page, "\n{title}")?;
    for [name, state, rest] in &rows {
        let line = format!("  {name:first$}  {state:second$}  {rest}");
        writeln!(page, "{}", line.trim_end())?;
    }
    Ok(())
}

fn node_row(node: &R1NodeStatus, me: &str) -> [String; 3] {
    let mut facts = Vec::new();
    if node.name == me {
        facts.push("this node".to_owned());
    } else if let Some(heard) = node.heard {
        facts.push(format!("heard {} ago", SecondsText(heard)));
    }
    facts.extend(node.program.as_ref().map(|program| TerminalSafe(program).to_string()));
    facts.extend(node.generation.map(|generation| format!("generation {generation}")));
    facts.push(format!("dead after {}", SecondsText(node.deadtime)));
    let state = if node.left { "left".to_owned() } else { word(node.liveness) };
    [TerminalSafe(&node.name).to_string(), state, facts.join(", ")]
}

fn link_row(link: &R1LinkStatus) -> [String; 3] {
    let heard = link.heard.map(|heard| format!("peer heard {} ago", SecondsText(heard)));
    let (state, rest) = match &link.down {
        Some(why) => ("down".to_owned(), TerminalSafe(why).to_string()),
        None => (word(link.liveness), heard.unwrap_or_else(|| "peer not heard yet".to_owned())),
    };
    [TerminalSafe(&link.name).to_string(), state, rest]
}

fn group_row(group: &R1GroupStatus) -> [String; 3] {
    let resources: Vec<String> =
        group.resources.iter().map(|resource| TerminalSafe(resource).to_string()).collect();
    let owner = match &group.owner {
        Some(owner) => format!("on {}", TerminalSafe(owner)),
        None => "nowhere".to_owned(),
    };
    let mut facts = Vec::new();
    facts.extend(group.since.map(|since| format!("for {}", SecondsText(since))));
    facts.extend(group.last_outage.map(|outage| format!("last outage {}", OutageText(outage))));
    if group.owner.as_deref() != Some(group.preferred.as_str()) {
        facts.push(format!("prefers {}", TerminalSafe(&group.preferred)));
    }
    facts.extend(phase(group).map(|phase| format!("{phase} here")));
    if group.contested {
        facts.push("RUNS ON BOTH NODES".to_owned());
    }
    if group.taken_away > 0 {
        facts.push(format!("address restored {} times", group.taken_away));
    }
    facts.extend(group.failure.as_ref().map(|why| format!("failed here: {}", TerminalSafe(why))));
    [resources.join(" "), owner, facts.join(", ")]
}

/// The operation in progress; `None` for a group at rest.
fn phase(group: &R1GroupStatus) -> Option<String> {
    let member =
        |index: usize| group.resources.get(index).map_or_else(String::new, |r| TerminalSafe(r).to_string());
    match group.phase {
        GroupPhase::Stopped | GroupPhase::Running => None,
        GroupPhase::Starting(index) => Some(format!("starting {}", member(index))),
        GroupPhase::Stopping(index) => Some(format!("stopping {}", member(index))),
        GroupPhase::StopFailed(index) => Some(format!("{} STOP FAILED", member(index))),
    }
}

fn interface_row(service: &ServiceInterface) -> [String; 3] {
    let interface = service.interface.as_deref().unwrap_or("?");
    let state = service.fault.as_deref().unwrap_or("has carrier");
    [
        TerminalSafe(&service.address).to_string(),
        TerminalSafe(interface).to_string(),
        TerminalSafe(state).to_string(),
    ]
}

fn forecast_line(forecast: &Forecast) -> String {
    let node = TerminalSafe(&forecast.node);
    match (&forecast.taker, &forecast.reason) {
        (Some(taker), None) => {
            let starts: Vec<String> =
                forecast.starts.iter().map(|start| TerminalSafe(start).to_string()).collect();
            let (starts, after) = (starts.join(" "), forecast.after);
            format!("if {node} falls silent: {} starts {starts} after {after:.1} s", TerminalSafe(taker))
        }
        (_, reason) => {
            let reason = reason.as_deref().unwrap_or("no node takes over");
            format!("if {node} falls silent: {}", TerminalSafe(reason))
        }
    }
}

fn state_word(state: ownership::R1State) -> &'static str {
    match state {
        ownership::R1State::Init => "waiting for the other node",
        ownership::R1State::Starting | ownership::R1State::BothStarting | ownership::R1State::Received => {
            "starting"
        }
        ownership::R1State::Stable => "stable",
        ownership::R1State::Leaving => "leaving",
        ownership::R1State::Left => "left",
    }
}

fn word(liveness: Liveness) -> String {
    match liveness {
        Liveness::Unheard => "unheard",
        Liveness::Alive => "alive",
        Liveness::Late => "late",
        Liveness::Silent => "SILENT",
        Liveness::Dead => "DEAD",
        Liveness::Returned => "returned",
    }
    .to_owned()
}

/// Text from outside, for a terminal. Characters that could move the cursor, change colours or turn the writing
/// direction are shown as their numbers.
pub(super) struct TerminalSafe<'a>(pub(super) &'a str);

impl fmt::Display for TerminalSafe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() || is_invisible(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A duration in seconds, in the unit a reader expects.
struct SecondsText(f64);

impl fmt::Display for SecondsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturating, and rounded on purpose"
        )]
        let seconds = self.0.round() as u64;
        match seconds {
            0..10 => write!(f, "{:.1} s", self.0),
            10..120 => write!(f, "{seconds} s"),
            120..7200 => write!(f, "{} min", seconds / 60),
            7200..172_800 => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds / 3600 % 24),
        }
    }
}

/// The length of an outage in seconds; a good move takes a few milliseconds.
struct OutageText(f64);

impl fmt::Display for OutageText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1.0 { write!(f, "{:.0} ms", self.0 * 1000.0) } else { SecondsText(self.0).fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use locum_core::{
        model::status::{Frames, Waiting},
        r1::status::R1Status,
    };

    use super::*;
    use crate::heart::HeartStats;

    fn node(name: &str, heard: Option<f64>) -> R1NodeStatus {
        R1NodeStatus {
            name: name.to_owned(),
            liveness: Liveness::Alive,
            left: false,
            program: Some("locum".into()),
            heard,
            generation: Some(7),
            deadtime: 10.0,
            weight: 100,
            site: String::new(),
        }
    }

    /// The article's cluster as its first node sees it.
    fn article() -> StatusReport {
        let cluster = R1Status {
            cluster: "linux-ha".to_owned(),
            dialect: "r1".into(),
            guard: "none".into(),
            node: "clustnode1".to_owned(),
            state: ownership::R1State::Stable,
            transition: None,
            waiting: None,
            holding: "local".into(),
            generation: 7,
            uptime: 7500.0,
            nodes: vec![node("clustnode1", None), node("clustnode2", Some(0.34))],
            links: vec![
                R1LinkStatus {
                    name: "eth1".to_owned(),
                    down: None,
                    liveness: Liveness::Alive,
                    heard: Some(0.34),
                },
                R1LinkStatus {
                    name: "/dev/ttyS0".to_owned(),
                    down: Some("no such device".to_owned()),
                    liveness: Liveness::Unheard,
                    heard: None,
                },
            ],
            pings: Vec::new(),
            groups: vec![R1GroupStatus {
                key: "172.23.2.14".to_owned(),
                resources: vec!["172.23.2.14".to_owned(), "httpd".to_owned()],
                preferred: "clustnode1".to_owned(),
                owner: Some("clustnode1".to_owned()),
                phase: GroupPhase::Running,
                since: Some(4000.0),
                last_outage: Some(0.9),
                failure: None,
                taken_away: 0,
                contested: false,
            }],
            forecasts: vec![
                Forecast {
                    node: "clustnode1".to_owned(),
                    taker: Some("clustnode2".to_owned()),
                    starts: vec!["172.23.2.14".to_owned(), "httpd".to_owned()],
                    after: 10.0,
                    reason: None,
                },
                Forecast {
                    node: "clustnode2".to_owned(),
                    taker: None,
                    starts: Vec::new(),
                    after: 10.0,
                    reason: Some("nothing moves: clustnode2 runs nothing".to_owned()),
                },
            ],
            troubles: vec!["link /dev/ttyS0 is down: no such device".to_owned()],
            hints: Vec::new(),
            frames: Frames::default(),
            digest: "00".to_owned(),
        };
        let daemon = DaemonInfo {
            version: "0.1.0".to_owned(),
            pid: 1,
            config: "/etc/ha.d".to_owned(),
            ipfail: false,
            control_groups_missing: None,
            rights_missing: Vec::new(),
        };
        let service = ServiceInterface {
            address: "172.23.2.14".to_owned(),
            group: "172.23.2.14".to_owned(),
            interface: Some("eth0".to_owned()),
            fault: Some("eth0 has no carrier".to_owned()),
        };
        StatusReport { cluster, daemon, heart: HeartStats::default(), service_interfaces: vec![service] }
    }

    #[test]
    fn the_page_of_the_article() {
        let expected = "\
clustnode1 in cluster linux-ha: stable, holds local (locum 0.1.0, up 2 h 5 min)

nodes
  clustnode1  alive  this node, locum, generation 7, dead after 10 s
  clustnode2  alive  heard 0.3 s ago, locum, generation 7, dead after 10 s

links
  eth1        alive  peer heard 0.3 s ago
  /dev/ttyS0  down   no such device

groups
  172.23.2.14 httpd  on clustnode1  for 66 min, last outage 900 ms

service interfaces
  172.23.2.14  eth0  eth0 has no carrier

if clustnode1 falls silent: clustnode2 starts 172.23.2.14 httpd after 10.0 s
if clustnode2 falls silent: nothing moves: clustnode2 runs nothing
PROBLEM: link /dev/ttyS0 is down: no such device
PROBLEM: service address 172.23.2.14: eth0 has no carrier
";
        assert_eq!(text(&article()), expected);
    }

    #[test]
    fn what_json_carries_is_what_is_shown() {
        let report = article();
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<StatusReport>(&json).unwrap(), report);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["groups"][0]["owner"], "clustnode1");
        assert_eq!(value["daemon"]["pid"], 1);
    }

    #[test]
    fn a_group_under_way_says_so() {
        let mut group = article().cluster.groups.remove(0);
        group.phase = GroupPhase::Stopping(1);
        group.owner = None;
        group.contested = true;
        let [name, owner, facts] = group_row(&group);
        assert_eq!((name.as_str(), owner.as_str()), ("172.23.2.14 httpd", "nowhere"));
        assert!(facts.contains("stopping httpd here") && facts.contains("BOTH NODES"), "{facts}");
        assert!(facts.contains("prefers clustnode1"), "{facts}");
        group.phase = GroupPhase::StopFailed(9);
        assert!(phase(&group).unwrap().contains("STOP FAILED"));
    }

    #[test]
    fn announcements_that_prove_nothing_are_told_while_they_come() {
        let mut report = article();
        report.heart.gates.refused = 9;
        let is_told = |report: &StatusReport| {
            text(report).contains(
                "note: 9 claim announcements without a valid proof were dropped: a few are normal after",
            )
        };
        assert!(!is_told(&report));
        report.heart.gates.refused_ago = Some(59);
        assert!(is_told(&report));
        report.heart.gates.refused_ago = Some(61);
        assert!(!is_told(&report));
    }

    #[test]
    fn a_handover_that_waits_is_told() {
        let mut report = article();
        report.cluster.waiting = Some(Waiting {
            why: "clients would not reach it".to_owned(),
            waited: Some(12.3),
            at_most: Some(30.0),
        });
        let told = "\nhandover: waits until a node can take it: clients would not reach it (12 s of 30)\n";
        assert!(text(&report).contains(told), "{}", text(&report));
    }

    #[test]
    fn texts_of_others_cannot_steer_the_terminal() {
        let mut report = article();
        report.cluster.troubles = vec!["\x1b[2J\u{9b}31m\u{202e}ok\n".to_owned()];
        report.cluster.groups[0].failure = Some("\r\x07".to_owned());
        let page = text(&report);
        let harmless = |c: char| c == '\n' || !(c.is_control() || is_invisible(c));
        assert!(page.chars().all(harmless), "{page:?}");
        assert!(page.contains("\\u{1b}[2J\\u{9b}31m\\u{202e}ok\\u{a}"), "{page}");
    }

    #[test]
    fn a_cluster_that_is_not_stable_is_not_well() {
        let mut report = article();
        report.cluster.troubles.clear();
        report.service_interfaces.clear();
        assert!(report.troubles().is_empty());
        report.cluster.state = ownership::R1State::Starting;
        assert_eq!(report.troubles(), ["clustnode1 is not settled yet"]);
    }

    #[test]
    fn spans_are_said_as_people_do() {
        let cases =
            [(0.04, "0.0 s"), (9.4, "9.4 s"), (119.0, "119 s"), (121.0, "2 min"), (7260.0, "2 h 1 min")];
        for (seconds, text) in cases {
            assert_eq!(SecondsText(seconds).to_string(), text);
        }
        assert_eq!(SecondsText(200_000.0).to_string(), "2 d 7 h");
    }
}
