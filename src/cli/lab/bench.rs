//! `locum lab bench` and `locum lab cost`: Locum and its peers on the same rack.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{Args, ValueEnum, builder::PossibleValue};
use locum_lab::{
    bench::{self, Cost, Figures, Report, Row, Scenario},
    pair::{Pace, Peer, Setup},
};
use serde_json::{Value, json};

use super::{absent, allow_heartbeat, peers_root};
use crate::cli::{demo_httpd, run::duration};

/// What all measurements need to know.
#[derive(Debug, Args)]
pub struct Common {
    /// Whom to measure
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "locum")]
    peers: Vec<Named<Peer>>,
    /// Where the peers are unpacked [default: where scripts/peers puts them, else as they are installed here]
    #[arg(long, value_name = "DIR")]
    peers_root: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The options of `locum lab bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(flatten)]
    common: Common,
    /// What is to happen to them
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "power-loss,move,return,daemon-kill,daemon-freeze"
    )]
    scenarios: Vec<Named<Scenario>>,
    /// Keepalive of Locum and heartbeat, whose deadtime is five times as long, and keepalived's time between adverts
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
    interval: Duration,
    /// The same as --interval, for use with --deadtime
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "interval")]
    keepalive: Option<Duration>,
    /// Another deadtime than five times the interval (keepalived derives its own)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadtime: Option<Duration>,
    /// How often each scenario is run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// How long a cluster must have been well before the next fault
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    calm: Duration,
}

/// The options of `locum lab cost`.
#[derive(Debug, Args)]
pub struct Expense {
    #[command(flatten)]
    common: Common,
    /// Keepalive, or time between adverts
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    time: Duration,
}

/// A value of the command line that goes by its name in the lab.
#[derive(Clone, Copy, Debug)]
struct Named<T>(T);

impl ValueEnum for Named<Peer> {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Named<Peer>; 6] = [
            Named(Peer::Locum),
            Named(Peer::Heartbeat),
            Named(Peer::LocumHeartbeat),
            Named(Peer::HeartbeatLocum),
            Named(Peer::Native),
            Named(Peer::Keepalived),
        ];
        &ALL
    }
    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.0.name().into())
    }
}

impl ValueEnum for Named<Scenario> {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Named<Scenario>; 6] = [
            Named(Scenario::PowerLoss),
            Named(Scenario::Move),
            Named(Scenario::GracefulStop),
            Named(Scenario::Return),
            Named(Scenario::DaemonKill),
            Named(Scenario::DaemonFreeze),
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
pub fn bench(options: Bench) -> anyhow::Result<ExitCode> {
    let interval = options.keepalive.unwrap_or(options.interval);
    let mut pace = Pace::of(interval);
    pace.deadtime = options.deadtime.unwrap_or(pace.deadtime);
    if pace.deadtime <= interval * 2 {
        bail!("--deadtime must be more than twice the interval: no beat may be lost otherwise");
    }
    let setup = setup(&options.common, pace, options.calm)?;
    let json = options.common.json;
    let options = bench::Options {
        setup,
        peers: options.common.peers.into_iter().map(|Named(peer)| peer).collect(),
        scenarios: options.scenarios.into_iter().map(|Named(scenario)| scenario).collect(),
        runs: options.runs,
    };
    let load = load();
    let Report { rows, relay } = bench::run(&options, &mut |line| errln!("{line}"))?;
    if json {
        outln!("{:#}", json!({ "rows": rows.iter().map(row_json).collect::<Vec<_>>() }));
    } else {
        rows_table(&rows);
        let [median, p99] = relay.map(|delay| delay.as_nanos() / 1000);
        outln!("the control's way went through relays, whose own delay is {median} us (99 of 100: {p99} us)");
        outln!("load average of the machine: {load} before, {} after", self::load());
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures what the daemons cost while nothing happens, and prints it.
///
/// # Errors
/// If there is no rack or no such peer, or if a cluster does not come up.
pub fn cost(options: &Expense) -> anyhow::Result<ExitCode> {
    let setup = setup(&options.common, Pace::of(options.interval), Duration::from_secs(5))?;
    let mut costs = Vec::new();
    for &Named(peer) in &options.common.peers {
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
fn setup(common: &Common, pace: Pace, calm: Duration) -> anyhow::Result<Setup> {
    let program = std::env::current_exe()?;
    let root = peers_root(common.peers_root.as_deref(), &program)?;
    for Named(peer) in &common.peers {
        if peer.has_heartbeat() {
            allow_heartbeat()?;
        }
        if !peer.is_present(root.as_deref()) {
            bail!(absent(peer.name(), root.as_deref()));
        }
    }
    locum_lab::enter()?;
    let web_server = demo_httpd::COMMAND.to_owned();
    Ok(Setup { program, web_server, peers_root: root, pace, calm, gates: None, failback: true })
}

/// The machine's load average of the last minute, as the kernel writes it.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

pub(super) fn millis(length: Duration) -> f64 {
    (length.as_secs_f64() * 10_000.0).round() / 10.0
}

fn row_json(row: &Row) -> Value {
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

fn rows_table(rows: &[Row]) {
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

fn cost_json(cost: &Cost) -> Value {
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
fn costs_table(costs: &[Cost]) {
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
