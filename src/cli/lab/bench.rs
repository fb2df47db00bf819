//! `locum lab bench` and `locum lab cost`: Locum and its peers on the same rack.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{Args, ValueEnum, builder::PossibleValue};
use locum_lab::{
    bench::{self, BenchReport, BenchRow, BenchScenario, Figures, PeerCost},
    pair::{Pace, PairSetup, Peer},
};
use serde_json::{Value, json};

use super::{absent, allow_heartbeat, peers_root};
use crate::cli::{demo_httpd, run::duration};

/// What all measurements need to know.
#[derive(Debug, Args)]
pub struct BenchCommonOptions {
    /// Programs to measure, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "locum")]
    peers: Vec<BenchName<Peer>>,
    /// Directory of the unpacked peers [default: that of scripts/peers, else the installed ones]
    #[arg(long, value_name = "DIR")]
    peers_root: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The options of `locum lab bench`.
#[derive(Debug, Args)]
pub struct LabBenchOptions {
    #[command(flatten)]
    common: BenchCommonOptions,
    /// Faults to measure, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "power-loss,move,return,daemon-kill,daemon-freeze"
    )]
    scenarios: Vec<BenchName<BenchScenario>>,
    /// Keepalive of Locum and heartbeat (their deadtime is five times that), and keepalived's advert interval
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
    interval: Duration,
    /// Same as --interval, for use with --deadtime
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "interval")]
    keepalive: Option<Duration>,
    /// Deadtime [default: five times the interval; keepalived derives its own]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadtime: Option<Duration>,
    /// Runs of each scenario
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// How long a cluster must be well before the next fault
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    calm: Duration,
}

/// The options of `locum lab cost`.
#[derive(Debug, Args)]
pub struct LabCostOptions {
    #[command(flatten)]
    common: BenchCommonOptions,
    /// Keepalive, or advert interval
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Duration of the measurement
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    time: Duration,
}

/// A value of the command line that goes by its name in the lab.
#[derive(Clone, Copy, Debug)]
struct BenchName<T>(T);

impl ValueEnum for BenchName<Peer> {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [BenchName<Peer>; 6] = [
            BenchName(Peer::Locum),
            BenchName(Peer::Heartbeat),
            BenchName(Peer::LocumHeartbeat),
            BenchName(Peer::HeartbeatLocum),
            BenchName(Peer::Native),
            BenchName(Peer::Keepalived),
        ];
        &ALL
    }
    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.0.name().into())
    }
}

impl ValueEnum for BenchName<BenchScenario> {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [BenchName<BenchScenario>; 6] = [
            BenchName(BenchScenario::PowerLoss),
            BenchName(BenchScenario::Move),
            BenchName(BenchScenario::GracefulStop),
            BenchName(BenchScenario::Return),
            BenchName(BenchScenario::DaemonKill),
            BenchName(BenchScenario::DaemonFreeze),
        ];
        &ALL
    }
    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.0.name().into())
    }
}

/// Measures the outages that faults cause for the client, and prints them.
///
/// # Errors
/// If there is no rack or no such peer, if a cluster does not come up, or if the instruments fail their own check.
pub fn bench(options: LabBenchOptions) -> anyhow::Result<ExitCode> {
    let interval = options.keepalive.unwrap_or(options.interval);
    let mut pace = Pace::of(interval);
    pace.deadtime = options.deadtime.unwrap_or(pace.deadtime);
    if pace.deadtime <= interval * 2 {
        bail!("--deadtime must be more than twice the interval: else a single lost beat counts as a death");
    }
    let setup = setup(&options.common, pace, options.calm)?;
    let json = options.common.json;
    let options = bench::BenchOptions {
        setup,
        peers: options.common.peers.into_iter().map(|BenchName(peer)| peer).collect(),
        scenarios: options.scenarios.into_iter().map(|BenchName(scenario)| scenario).collect(),
        runs: options.runs,
    };
    let load = load();
    let BenchReport { rows, relay } = bench::run(&options, &mut |line| errln!("{line}"))?;
    if json {
        outln!("{:#}", json!({ "rows": rows.iter().map(row_json).collect::<Vec<_>>() }));
    } else {
        rows_table(&rows);
        let [median, p99] = relay.map(|delay| delay.as_nanos() / 1000);
        outln!(
            "the control's traffic went through relays with a delay of {median} us (99th percentile: {p99} us)"
        );
        outln!("load average of the machine: {load} before, {} after", self::load());
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures what the daemons cost while nothing happens, and prints it.
///
/// # Errors
/// If there is no rack or no such peer, or if a cluster does not come up.
pub fn cost(options: &LabCostOptions) -> anyhow::Result<ExitCode> {
    let setup = setup(&options.common, Pace::of(options.interval), Duration::from_secs(5))?;
    let mut costs = Vec::new();
    for &BenchName(peer) in &options.common.peers {
        errln!("{}: {:?}", peer.name(), options.time);
        costs.extend(bench::cost(peer, &setup, options.time)?);
    }
    if options.common.json {
        outln!("{:#}", json!({ "rows": costs.iter().map(cost_json).collect::<Vec<_>>() }));
    } else {
        costs_table(&costs);
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks for the peers, then enters the lab while the process still has a single thread.
fn setup(common: &BenchCommonOptions, pace: Pace, calm: Duration) -> anyhow::Result<PairSetup> {
    let program = std::env::current_exe()?;
    let root = peers_root(common.peers_root.as_deref(), &program)?;
    for BenchName(peer) in &common.peers {
        if peer.has_heartbeat() {
            allow_heartbeat()?;
        }
        if !peer.is_present(root.as_deref()) {
            bail!(absent(peer.name(), root.as_deref()));
        }
    }
    locum_lab::enter()?;
    let web_server = demo_httpd::COMMAND.to_owned();
    Ok(PairSetup { program, web_server, peers_root: root, pace, calm, gates: None, failback: true })
}

/// The machine's load average of the last minute, as the kernel writes it.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

pub(super) fn millis(length: Duration) -> f64 {
    (length.as_secs_f64() * 10_000.0).round() / 10.0
}

fn row_json(row: &BenchRow) -> Value {
    let all = |of: Figures| {
        json!({
            "min": millis(of.min), "median": millis(of.median), "p95": millis(of.p95), "max": millis(of.max),
        })
    };
    let two = |of: Figures| json!({ "median": millis(of.median), "max": millis(of.max) });
    json!({
        "peer": row.peer,
        "scenario": row.scenario,
        "interval_ms": millis(row.interval),
        "detection_ms": millis(row.detection),
        "runs": row.runs,
        "outage_ms": all(row.outage),
        "http_outage_ms": all(row.page_outage),
        "two_answer_ms": two(row.two_answer),
        "two_hold_ms": two(row.two_hold),
    })
}

fn rows_table(rows: &[BenchRow]) {
    outln!(
        "all times in ms; outage: of echoes min, median, p95, max, of pages (http) median, max; both: median / max"
    );
    outln!(
        "{:10} {:13} {:>8} {:>9} {:>4} | {:>8} {:>8} {:>8} {:>8} | {:>8} {:>8} | {:>17} | {:>17}",
        "peer",
        "scenario",
        "interval",
        "detection",
        "runs",
        "min",
        "median",
        "p95",
        "max",
        "http",
        "max",
        "both answer",
        "both hold"
    );
    for row in rows {
        let (outage, pages) = (row.outage, row.page_outage);
        let two = |of: Figures| format!("{:.1} / {:.1}", millis(of.median), millis(of.max));
        outln!(
            "{:10} {:13} {:8} {:9} {:4} | {:8.1} {:8.1} {:8.1} {:8.1} | {:8.1} {:8.1} | {:>17} | {:>17}",
            row.peer,
            row.scenario,
            row.interval.as_millis(),
            row.detection.as_millis(),
            row.runs,
            millis(outage.min),
            millis(outage.median),
            millis(outage.p95),
            millis(outage.max),
            millis(pages.median),
            millis(pages.max),
            two(row.two_answer),
            two(row.two_hold),
        );
    }
}

fn cost_json(cost: &PeerCost) -> Value {
    json!({
        "peer": cost.peer,
        "node": cost.node,
        "processes": cost.processes,
        "cpu_percent": (cost.processor * 100_000.0).round() / 1000.0,
        "rss_bytes": cost.resident,
        "pss_bytes": cost.proportional,
    })
}

#[expect(clippy::cast_precision_loss, reason = "memory is shown with one decimal")]
fn costs_table(costs: &[PeerCost]) {
    outln!("{:10} {:10} {:>9} {:>7} {:>8} {:>8}", "peer", "node", "processes", "CPU %", "RSS MiB", "PSS MiB");
    for cost in costs {
        let mebibytes = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        outln!(
            "{:10} {:10} {:9} {:7.3} {:8.1} {:8.1}",
            cost.peer,
            cost.node,
            cost.processes,
            cost.processor * 100.0,
            mebibytes(cost.resident),
            mebibytes(cost.proportional),
        );
    }
}
