//! `locum lab scale`: what many groups cost, and how soon all of them run.
//!
//! Exit code: 0 all groups came up, and ran again after their owner lost its power; 1 otherwise, or a daemon died.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use locum_core::{config::locum_toml, group::GroupPhase, native::timing::NativeTiming};
use locum_lab::scale::{self, NodeCost, NodeStatus, ScaleReport, ScaleSetup};
use serde_json::{Value, json};

use super::{bench::millis, gate::BackendName as Backend};
use crate::{cli::run::duration, observe::report::AnyStatusReport};

/// The options of `locum lab scale`.
#[derive(Debug, Args)]
pub struct LabScaleOptions {
    /// Groups, with one address each
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=4096))]
    groups: u16,
    /// Nodes, in addition to a witness
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=32))]
    nodes: u8,
    /// Spread the groups over the nodes [default: all prefer the first node]
    #[arg(long)]
    spread: bool,
    /// Pace of the cluster
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = locum_toml::pace)]
    pace: Duration,
    /// Gate backend [default: the best one that works]
    #[arg(long, value_name = "NAME")]
    gate: Option<Backend>,
    /// Watchers of the status of the node with the most groups
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u8).range(0..=150))]
    watchers: u8,
    /// Duration of each measurement of the cost, at rest and with the watchers
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    time: Duration,
    /// Time limit until all groups run
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    limit: Duration,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Builds the cluster, measures, and prints the results.
///
/// # Errors
/// If there is no rack, or the kernel refuses.
pub fn scale(options: &LabScaleOptions) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe()?;
    locum_lab::enter()?;
    let setup = ScaleSetup {
        program,
        nodes: options.nodes.into(),
        groups: options.groups.into(),
        spread: options.spread,
        pace: options.pace,
        gates: options.gate.map(|Backend(backend)| backend),
        watchers: options.watchers.into(),
        time: options.time,
        limit: options.limit,
        read: view,
    };
    let report = scale::measure(&setup, &mut |line| errln!("{line}"))?;
    let detection = NativeTiming::of(options.pace).claim_bound(setup.nodes);
    if options.json {
        outln!("{:#}", to_json(&setup, detection, &report));
    } else {
        print(&setup, detection, &report);
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads the answer of a node's control socket.
fn view(answer: &[u8]) -> Option<NodeStatus> {
    let Ok(AnyStatusReport::Native(report)) = AnyStatusReport::read(answer) else { return None };
    let is_open = |group: &&locum_core::native::status::NativeGroupStatus| {
        group.phase == GroupPhase::Running && group.gate_left.is_some()
    };
    Some(NodeStatus {
        open: report.cluster.groups.iter().filter(is_open).count(),
        latest: Duration::from_micros(report.heart.lateness.max_us),
        yields: report.heart.yields,
        dropped: report.heart.links.iter().map(|link| link.dropped_in).sum(),
    })
}

fn print(setup: &ScaleSetup, detection: Duration, report: &ScaleReport) {
    let time = |time: Option<Duration>| time.map_or("never".into(), |time| format!("{} ms", millis(time)));
    outln!(
        "{} groups, {} nodes and a witness, pace {:?}, gate backend: {}",
        setup.groups,
        setup.nodes,
        setup.pace,
        setup.gates.map_or("the best backend that works", locum_lab::gate::GateBackend::name),
    );
    outln!("up: addresses {}, open {}; {} at the end", time(report.addresses), time(report.open), report.up);
    costs("at rest", &report.rest);
    if let Some(watched) = &report.watched {
        costs(&format!("with {} watchers", setup.watchers), std::slice::from_ref(&watched.cost));
        let unanswered = watched.answers.iter().filter(|answer| answer.is_none()).count();
        let slowest = watched.answers.iter().flatten().max().copied();
        outln!(
            "   each got {} states or more, {:.1} MiB in all; slowest answer {}, {unanswered} unanswered; move {}; \
              {:.1} MiB resident after they ended",
            watched.states,
            mebibytes(watched.bytes),
            time(slowest),
            time(watched.moved),
            mebibytes(watched.resident_after),
        );
    }
    if let Some(taken) = report.taken {
        outln!(
            "power loss of {} groups: addresses {}, open {} (claimed within {} ms)",
            taken.lost,
            time(taken.addresses),
            time(taken.open),
            millis(detection),
        );
    }
    costs("at the end", &report.end);
    for died in &report.died {
        outln!("DIED: {died}");
    }
}

fn costs(when: &str, costs: &[NodeCost]) {
    for cost in costs {
        let NodeCost { node, addresses, heart, processor, resident, view } = cost;
        let says = match view {
            Some(view) => format!(
                "latest {} ms, {} yields, {} frames dropped",
                millis(view.latest),
                view.yields,
                view.dropped
            ),
            None => "does not answer".to_owned(),
        };
        outln!(
            "{when}: {node} with {addresses} groups: heart {:.1} %, daemon {:.1} % of a core, {:.1} MiB resident; {says}",
            heart * 100.0,
            processor * 100.0,
            mebibytes(*resident),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn to_json(setup: &ScaleSetup, detection: Duration, report: &ScaleReport) -> Value {
    let time = |time: Option<Duration>| time.map(millis);
    let cost = |cost: &NodeCost| {
        json!({
            "node": cost.node,
            "groups": cost.addresses,
            "heart": cost.heart,
            "daemon": cost.processor,
            "resident": cost.resident,
            "open": cost.view.map(|view| view.open),
            "latest_ms": cost.view.map(|view| millis(view.latest)),
            "yields": cost.view.map(|view| view.yields),
            "dropped": cost.view.map(|view| view.dropped),
        })
    };
    let costs = |all: &[NodeCost]| all.iter().map(cost).collect::<Vec<_>>();
    json!({
        "groups": setup.groups,
        "nodes": setup.nodes,
        "pace_ms": millis(setup.pace),
        "up_addresses_ms": time(report.addresses),
        "up_open_ms": time(report.open),
        "up": report.up,
        "rest": costs(&report.rest),
        "watched": report.watched.as_ref().map(|watched| json!({
            "watchers": setup.watchers,
            "cost": cost(&watched.cost),
            "bytes": watched.bytes,
            "states": watched.states,
            "answers_ms": watched.answers.iter().map(|answer| time(*answer)).collect::<Vec<_>>(),
            "move_ms": time(watched.moved),
            "resident_after": watched.resident_after,
        })),
        "taken": report.taken.map(|taken| json!({
            "lost": taken.lost,
            "claimed_within_ms": millis(detection),
            "addresses_ms": time(taken.addresses),
            "open_ms": time(taken.open),
        })),
        "end": costs(&report.end),
        "died": report.died,
    })
}
