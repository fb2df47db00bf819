//! `locum lab bench`: the same faults for Locum and its peers, measured by the same client.
//!
//! Every run has a rack of its own, so that none depends on what another left. Two nodes serve one address and a web
//! page; the client probes it; the outage is the longest time without a good answer that the fault causes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use locum_lab::{
    Description, Rack, Record, Sight, Way,
    clock::{Moment, await_some, pause},
    timeline::Span,
};
use serde::Serialize;

use super::peers::{Cluster, Peer};

/// The nodes; the first is the preferred one.
pub const NODES: [&str; 2] = ["node1", "node2"];
/// The address that is served.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 14);

const CLIENT: &str = "client";
const LAN: &str = "lan";
const HTTP: u16 = 80;
/// What any peer may need to start, or to move, besides its own times, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Undisturbed time before and after a fault.
const CALM: Duration = Duration::from_millis(800);
/// After a death or a freeze of the daemon, the time that two owners have beyond the detection.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How long the control row makes both nodes hold.
const CONTROL: Duration = Duration::from_millis(300);

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Whose daemons, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "locum,heartbeat,keepalived")]
    pub peers: Vec<Peer>,
    /// Which faults, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "power-loss,move,return,daemon-kill,daemon-freeze"
    )]
    pub scenarios: Vec<Scenario>,
    /// The time between two beats or adverts; all other times follow from it
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = interval)]
    pub interval: Duration,
    /// Runs of each scenario with each peer
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What happens to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Its power is cut
    PowerLoss,
    /// A person moves the service away
    Move,
    /// It comes back after a loss of power, and takes its service back
    Return,
    /// Its daemon is killed; the kernel keeps what it has. Started again two seconds after the detection
    DaemonKill,
    /// Its daemon is frozen. Thawed two seconds after the detection
    DaemonFreeze,
}

/// `100ms`, `1s`, `2s`: what all three peers can be told.
fn interval(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        _ => return Err("write a whole number and ms or s".into()),
    };
    let millis = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    match millis {
        Some(millis @ 10..=10_000) => Ok(Duration::from_millis(millis)),
        _ => Err("must be between 10ms and 10s".into()),
    }
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    peer: &'static str,
    scenario: String,
    interval_ms: f64,
    detection_ms: f64,
    runs: u32,
    /// Runs that did not come to their end; they are in no other figure.
    failed: u32,
    outage_ms: Option<Spread>,
    http_outage_ms: Option<Spread>,
    two_answer_ms: Option<Twice>,
    two_hold_ms: Option<Twice>,
}

/// Of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    p95: f64,
    max: f64,
}

/// Of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Twice {
    median: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    rows: Vec<Row>,
    /// What a relay of the rack adds to a frame's way, median and 99 of 100.
    relay_delay_us: [f64; 2],
    /// The machine's load average of the last minute, at the beginning and at the end.
    load: [f64; 2],
}

/// What one run showed.
#[derive(Clone, Copy, Debug)]
struct Measured {
    outage: Duration,
    http_outage: Duration,
    two_answer: Duration,
    two_hold: Duration,
}

/// Measures and prints.
///
/// # Errors
/// No rack can be built here, or the control row shows that nothing would be seen.
pub fn run(options: &Options) -> anyhow::Result<()> {
    locum_lab::enter()?;
    let load = load();
    let (control, relay_delay_us) = control()?;
    let mut rows = vec![control];
    for &peer in &options.peers {
        if let Err(reason) = peer.installed() {
            eprintln!("{}: {reason}", peer.name());
            continue;
        }
        for &scenario in &options.scenarios {
            rows.push(row(peer, scenario, options));
        }
    }
    let report = Report { rows, relay_delay_us, load: [load, self::load()] };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).context("write JSON")?);
    } else {
        print!("{}", table(&report));
    }
    Ok(())
}

/// All runs of one scenario with one peer. A run that fails is told, and counted.
fn row(peer: Peer, scenario: Scenario, options: &Options) -> Row {
    let name = scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut measured = Vec::new();
    for run in 1..=options.runs {
        match one_run(peer, scenario, options.interval) {
            Ok(one) => {
                eprintln!("{} {name} {run}/{}: {:.1} ms", peer.name(), options.runs, millis(one.outage));
                measured.push(one);
            }
            Err(error) => eprintln!("{} {name} {run}/{}: failed: {error:#}", peer.name(), options.runs),
        }
    }
    let good = u32::try_from(measured.len()).unwrap_or(u32::MAX);
    Row {
        peer: peer.name(),
        scenario: name,
        interval_ms: millis(options.interval),
        detection_ms: millis(peer.detection(options.interval)),
        runs: options.runs,
        failed: options.runs - good,
        outage_ms: spread(measured.iter().map(|one| one.outage)),
        http_outage_ms: spread(measured.iter().map(|one| one.http_outage)),
        two_answer_ms: twice(measured.iter().map(|one| one.two_answer)),
        two_hold_ms: twice(measured.iter().map(|one| one.two_hold)),
    }
}

fn description(relayed: bool) -> anyhow::Result<Description> {
    let program = std::env::current_exe().context("find this program")?;
    let [one, two] = NODES;
    let description = Description::new(&program).node(one).node(two).node(CLIENT).segment(
        LAN,
        &[
            (one, "eth0", "172.23.2.12/24"),
            (two, "eth0", "172.23.2.13/24"),
            (CLIENT, "eth0", "172.23.2.100/24"),
        ],
    );
    let description = if relayed { description.relayed(1) } else { description };
    Ok(description.crossover("cross", [(one, "eth1", "10.0.0.1/24"), (two, "eth1", "10.0.0.2/24")]))
}

fn sight() -> Sight {
    Sight {
        client: CLIENT.into(),
        network: LAN.into(),
        services: vec![SERVICE],
        page: Some(SocketAddrV4::new(SERVICE, HTTP)),
        nodes: NODES.map(str::to_owned).to_vec(),
        ask: true,
    }
}

fn one_run(peer: Peer, scenario: Scenario, interval: Duration) -> anyhow::Result<Measured> {
    let mut cluster = Cluster::build(Rack::build(description(false)?)?, peer, interval)?;
    cluster.rack.watch(sight())?;
    let begin = act(&mut cluster, scenario, peer.detection(interval));
    let begin = begin.with_context(|| format!("the daemons' last words:\n{}", cluster.last_words()))?;
    pause(CALM);
    measured(&cluster.rack.record(), begin)
}

/// Waits for the service, does what the scenario says, waits for its outcome. Returns when it began.
fn act(cluster: &mut Cluster, scenario: Scenario, detection: Duration) -> anyhow::Result<Moment> {
    let [one, two] = NODES;
    let limit = detection + PATIENCE;
    served_by(&cluster.rack, one, limit).context("the beginning")?;
    pause(CALM + detection);
    let begin = match scenario {
        Scenario::PowerLoss => {
            let begin = cluster.power_off(one)?;
            served_by(&cluster.rack, two, limit)?;
            begin
        }
        Scenario::Return => {
            cluster.power_off(one)?;
            served_by(&cluster.rack, two, limit)?;
            pause(CALM + detection);
            let begin = cluster.power_on(one)?;
            served_by(&cluster.rack, one, limit)?;
            begin
        }
        Scenario::Move => {
            let begin = Moment::now();
            let _order = cluster.move_away(one)?;
            served_by(&cluster.rack, two, limit)?;
            begin
        }
        Scenario::DaemonKill => {
            let begin = cluster.kill_daemon(one)?;
            pause(detection + AFTERMATH);
            cluster.start(one)?;
            one_holder(&cluster.rack)?;
            begin
        }
        Scenario::DaemonFreeze => {
            let begin = cluster.freeze_daemon(one, true)?;
            pause(detection + AFTERMATH);
            cluster.freeze_daemon(one, false)?;
            one_holder(&cluster.rack)?;
            begin
        }
    };
    Ok(begin)
}

/// Waits until the address is held by this node alone and its pages reach the client.
fn served_by(rack: &Rack, node: &str, limit: Duration) -> anyhow::Result<()> {
    let serves = |record: &Record| {
        let now = Moment::now();
        let fresh = record
            .pages
            .last()
            .is_some_and(|page| page.text.ends_with(node) && now.since(page.at) < Duration::from_millis(100));
        fresh && record.holders(SERVICE.into()) == [node]
    };
    let reached = || rack.look(serves).unwrap_or_default().then_some(());
    await_some(limit, reached).with_context(|| format!("{node} alone did not serve within {limit:?}"))
}

/// Waits until somebody alone holds the address and answers.
fn one_holder(rack: &Rack) -> anyhow::Result<()> {
    let one = |record: &Record| {
        let now = Moment::now();
        let fresh = record.pages.last().is_some_and(|page| now.since(page.at) < Duration::from_millis(100));
        fresh && record.holders(SERVICE.into()).len() == 1
    };
    let reached = || rack.look(one).unwrap_or_default().then_some(());
    await_some(PATIENCE, reached).with_context(|| format!("no single owner within {PATIENCE:?}"))
}

fn measured(record: &Record, begin: Moment) -> anyhow::Result<Measured> {
    // An answer that is still on its way at the end is not missing.
    let window = Span::new(begin, Moment::now() - Duration::from_millis(200));
    let length = |gap: Option<Span>| gap.map(|gap| gap.to.since(gap.from));
    Ok(Measured {
        outage: length(record.outage(SERVICE, window)).context("no answer before or after the fault")?,
        http_outage: length(record.page_outage(window)).context("no page before or after the fault")?,
        two_answer: record.two_answer(SERVICE, window),
        two_hold: record.two_hold(SERVICE.into(), window),
    })
}

/// Both nodes are made to hold the address for a known time, without any daemon: what is not seen here would not be
/// seen in the other rows either.
fn control() -> anyhow::Result<(Row, [f64; 2])> {
    let [one, two] = NODES;
    let mut rack = Rack::build(description(true)?)?;
    rack.watch(sight())?;
    for node in NODES {
        let server = locum_lab::Program::new(&["locum", crate::cli::demo_httpd::COMMAND, "start"]);
        let outcome = rack.run(node, &server, PATIENCE)?;
        if outcome.code != Some(0) {
            bail!("the web server of the control row: {}", outcome.text);
        }
    }
    rack.add_address(one, "eth0", SERVICE.into(), 24)?;
    served_by(&rack, one, PATIENCE)?;
    pause(CALM);
    let begin = Moment::now();
    rack.add_address(two, "eth0", SERVICE.into(), 24)?;
    pause(CONTROL);
    rack.remove_address(two, SERVICE.into())?;
    pause(CALM);
    let seen = measured(&rack.record(), begin)?;
    let half = CONTROL / 2;
    if seen.two_hold < half || seen.two_answer < half {
        bail!(
            "the control row shows {seen:?}, where two held for {CONTROL:?}: this machine is too busy to measure"
        );
    }
    let relay = rack.counters(LAN, one, Way::FromNode)?;
    let micros = |length: Duration| length.as_nanos() as f64 / 1e3;
    let row = Row {
        peer: "control",
        scenario: format!("both-hold-{}ms", CONTROL.as_millis()),
        interval_ms: 0.0,
        detection_ms: 0.0,
        runs: 1,
        failed: 0,
        outage_ms: spread([seen.outage].into_iter()),
        http_outage_ms: spread([seen.http_outage].into_iter()),
        two_answer_ms: twice([seen.two_answer].into_iter()),
        two_hold_ms: twice([seen.two_hold].into_iter()),
    };
    Ok((row, [micros(relay.own_delay_median), micros(relay.own_delay_p99)]))
}

fn load() -> f64 {
    let text = fs::read_to_string(Path::new("/proc/loadavg")).unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// To a tenth of a millisecond: the probes are not finer.
fn millis(length: Duration) -> f64 {
    (length.as_secs_f64() * 1e4).round() / 10.0
}

fn sorted(lengths: impl Iterator<Item = Duration>) -> Vec<f64> {
    let mut lengths: Vec<_> = lengths.collect();
    lengths.sort_unstable();
    lengths.into_iter().map(millis).collect()
}

/// The value below which this share of the values lies, by nearest rank.
fn rank(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied()
}

fn spread(lengths: impl Iterator<Item = Duration>) -> Option<Spread> {
    let sorted = sorted(lengths);
    Some(Spread {
        min: *sorted.first()?,
        median: rank(&sorted, 50)?,
        p95: rank(&sorted, 95)?,
        max: *sorted.last()?,
    })
}

fn twice(lengths: impl Iterator<Item = Duration>) -> Option<Twice> {
    let sorted = sorted(lengths);
    Some(Twice { median: rank(&sorted, 50)?, max: *sorted.last()? })
}

fn table(report: &Report) -> String {
    let mut lines = vec![
        format!(
            "{:<11}{:<16}{:>9}{:>10}{:>6}  {:>31}  {:>17}  {:>15}  {:>15}",
            "", "", "", "", "", "outage by echo", "by page", "two answer", "two hold"
        ),
        format!(
            "{:<11}{:<16}{:>9}{:>10}{:>6}  {:>7}{:>8}{:>8}{:>8}  {:>9}{:>8}  {:>7}{:>8}  {:>7}{:>8}",
            "peer",
            "scenario",
            "interval",
            "detection",
            "runs",
            "min",
            "median",
            "p95",
            "max",
            "median",
            "max",
            "median",
            "max",
            "median",
            "max"
        ),
    ];
    for row in &report.rows {
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.0}"));
        let (outage, page) = (row.outage_ms, row.http_outage_ms);
        let runs = if row.failed > 0 { format!("{}-{}", row.runs, row.failed) } else { row.runs.to_string() };
        lines.push(format!(
            "{:<11}{:<16}{:>9.0}{:>10.0}{:>6}  {:>7}{:>8}{:>8}{:>8}  {:>9}{:>8}  {:>7}{:>8}  {:>7}{:>8}",
            row.peer,
            row.scenario,
            row.interval_ms,
            row.detection_ms,
            runs,
            number(outage.map(|outage| outage.min)),
            number(outage.map(|outage| outage.median)),
            number(outage.map(|outage| outage.p95)),
            number(outage.map(|outage| outage.max)),
            number(page.map(|page| page.median)),
            number(page.map(|page| page.max)),
            number(row.two_answer_ms.map(|two| two.median)),
            number(row.two_answer_ms.map(|two| two.max)),
            number(row.two_hold_ms.map(|two| two.median)),
            number(row.two_hold_ms.map(|two| two.max)),
        ));
    }
    lines.push(
        "All times in ms. An echo every millisecond, a page every ten; `detection` is what is configured."
            .into(),
    );
    lines.push("daemon-kill, daemon-freeze: the daemon is back two seconds after the detection.".into());
    let [median, p99] = report.relay_delay_us;
    lines.push(format!(
        "The control row went through the rack's relays, whose own delay is {median:.0} us (99 of 100: {p99:.0} us)."
    ));
    lines.push(format!("Load average {} before, {} after.\n", report.load[0], report.load[1]));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_several_runs() {
        let lengths = || (1..=20).rev().map(Duration::from_millis);
        assert_eq!(spread(lengths()), Some(Spread { min: 1.0, median: 10.0, p95: 19.0, max: 20.0 }));
        assert_eq!(twice([Duration::from_micros(1_260)].into_iter()), Some(Twice { median: 1.3, max: 1.3 }));
        assert_eq!(spread(std::iter::empty()), None);
    }

    #[test]
    fn intervals_are_read_with_their_unit() {
        assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        for wrong in ["", "ms", "1h", "5ms", "11s", "99999999999999999999s", "-1s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
