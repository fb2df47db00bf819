//! `locum lab replace`: replaces two real heartbeats by Locum, node by node, while a client uses the service; and back.
//! For comparison, heartbeat is replaced by itself in the same order.
//!
//! Exit code: 0 Locum's replacement passed every audit, 1 it did not.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use locum_lab::{
    Daemon,
    mixed::{self, DaemonPair, Replaced, ReplacementStep},
};
use serde_json::{Value, json};

use super::{
    bench::millis,
    mixed::{MixedCommonOptions, setup},
};
use crate::cli::demo_httpd;

/// The options of `locum lab replace`.
#[derive(Debug, Args)]
pub struct LabReplaceOptions {
    #[command(flatten)]
    common: MixedCommonOptions,
    /// Leave out the comparison, in which heartbeat replaces heartbeat
    #[arg(long)]
    alone: bool,
}

/// Plays one replacement after the other, so that they do not disturb each other's measurements.
///
/// # Errors
/// If there is no rack or no heartbeat, or the kernel refuses.
pub fn replace(options: &LabReplaceOptions) -> anyhow::Result<ExitCode> {
    let setup = setup(&options.common, &[DaemonPair::ORACLE])?;
    let by: &[Daemon] = if options.alone { &[Daemon::Locum] } else { &[Daemon::Locum, Daemon::Heartbeat] };
    let mut all = Vec::new();
    for &by in by {
        all.push(mixed::replace(&setup, demo_httpd::COMMAND, by, &mut |line| errln!("{line}"))?);
    }
    if options.common.json {
        outln!("{:#}", json!({ "replacements": all.iter().map(to_json).collect::<Vec<_>>() }));
    } else {
        table(&all);
    }
    Ok(if all[0].failed().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(all: &[Replaced]) {
    outln!(
        "ms without: a page of the first group | its echo | an echo of the second group | an echo of an address \
         that does not move"
    );
    outln!(
        "(gaps of 50 ms and more, of 20 ms where the groups move; the last column shows gaps caused by this machine)"
    );
    for replaced in all {
        outln!("\nheartbeat replaced by {}", replaced.by.name());
        for stage in &replaced.steps {
            let planned = if stage.hands_over { "moves" } else { "" };
            outln!("{:20} {planned:6} {}", stage.name, cells(stage).join(" | "));
        }
    }
    for replaced in all {
        if let Some(stage) = replaced.failed() {
            outln!("\n{}, {}\n  {}", replaced.by.name(), stage.name, stage.audited);
            out!("{}", replaced.evidence);
        }
    }
}

/// The gaps of pages, of echoes of both addresses, and of the machine.
fn cells(stage: &ReplacementStep) -> [String; 4] {
    let [first, second] = &stage.echo_gaps;
    [&stage.page_gaps, first, second, &stage.machine_gaps].map(|gaps| match gaps.as_slice() {
        [] => "-".to_owned(),
        gaps => gaps.iter().map(|gap| gap.as_millis().to_string()).collect::<Vec<_>>().join(" "),
    })
}

fn to_json(replaced: &Replaced) -> Value {
    let all = |gaps: &[Duration]| gaps.iter().copied().map(millis).collect::<Vec<_>>();
    let stage = |stage: &ReplacementStep| {
        json!({
            "name": stage.name,
            "step": stage.audited.step,
            "hands_over": stage.hands_over,
            "runs": stage.pair.0.map(Daemon::name),
            "limit_ms": millis(stage.audited.limit),
            "settled_ms": millis(stage.audited.settled),
            "asked": stage.audited.asked,
            "page_gaps_ms": all(&stage.page_gaps),
            "machine_gaps_ms": all(&stage.machine_gaps),
            "unexplained_ms": millis(stage.unexplained),
            "echo_gaps_ms": stage.echo_gaps.each_ref().map(|gaps| all(gaps)),
            "faults": stage.audited.faults,
        })
    };
    json!({
        "by": replaced.by.name(),
        "passed": replaced.failed().is_none(),
        "stages": replaced.steps.iter().map(stage).collect::<Vec<_>>(),
    })
}
