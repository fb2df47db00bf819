//! `locum explain timing`: every time of a native cluster, with its formula and its purpose.
//!
//! Exit code: 0 printed, 1 the directory of `--config` has no locum.toml and there is no `--pace`, 2 the configuration is
//! wrong.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use clap::{Args, Subcommand};
use locum_core::{
    config::locum_toml,
    model::identity::GroupIndex,
    native::{
        plan::NativePlan,
        timing::{NativeTiming, PACE, Row},
    },
};
use serde::Serialize;

use crate::{cli::CommonOptions, files::NativeFiles};

/// The subjects that `locum explain` knows.
#[derive(Clone, Debug, Subcommand)]
pub enum ExplainCommand {
    /// Print all times of the cluster, which follow from the pace of locum.toml
    Timing(TimingOptions),
}

/// The options of `locum explain timing`.
#[derive(Clone, Debug, Args)]
pub struct TimingOptions {
    /// Use this pace instead of the configured one, such as 300ms
    #[arg(long, value_parser = locum_toml::pace)]
    pub pace: Option<Duration>,
    /// Print everything as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The number of candidates of a group that is assumed when there is no configuration.
const CANDIDATES: usize = 2;

/// Prints all times of the configuration, or of the given pace.
///
/// # Errors
/// If standard output cannot be written, or the configuration cannot be read.
pub fn run(common: &CommonOptions, command: &ExplainCommand) -> anyhow::Result<ExitCode> {
    let ExplainCommand::Timing(options) = command;
    let dir = common.config_dir();
    let plan = match NativeFiles::read(&dir, None) {
        // The times do not depend on whether this host is a member and has the keys.
        Some(files) => {
            let checked = files.check();
            let wrong = checked
                .file
                .diags
                .iter()
                .any(|diag| diag.severity == locum_core::config::Severity::Error && !diag.host);
            match checked.file.draft.filter(|_| !wrong) {
                Some(plan) => Some(plan),
                None => {
                    errln!("locum: the configuration is wrong: run `locum check` to see the errors");
                    return Ok(ExitCode::from(2));
                }
            }
        }
        None if common.config.is_some() && options.pace.is_none() => {
            bail!(
                "there is no locum.toml in {}: give a pace, such as `locum explain timing --pace 1s`",
                dir.display()
            )
        }
        None => None,
    };
    let pace = options.pace.or(plan.as_ref().map(|plan| plan.timing.lease)).unwrap_or(PACE);
    let timing = NativeTiming::of(pace);
    let nodes = plan.as_ref().map_or(CANDIDATES, |plan| plan.nodes.len());
    let rows = timing.rows(nodes);
    let bounds = plan.as_ref().map(|plan| bounds(plan, &timing)).unwrap_or_default();
    let has_families =
        plan.is_some_and(|plan| plan.relations.iter().any(|relation| relation.family().is_some()));
    let mut out = io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &TimingJson::of(&rows, &bounds, nodes))?;
        writeln!(out)?;
    } else {
        out.write_all(page(pace, nodes, &rows, &bounds, has_families).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// For each group, the time within which it runs again.
fn bounds(plan: &NativePlan, timing: &NativeTiming) -> Vec<(String, Duration)> {
    let bound = |group| plan.takeover_bound(GroupIndex(group), timing);
    plan.groups.iter().enumerate().map(|(index, group)| (group.name.clone(), bound(index))).collect()
}

/// A formula has its purpose beside it only up to this width, in columns.
const FORMULA_WIDTH: usize = 26;

fn page(
    pace: Duration,
    nodes: usize,
    rows: &[Row],
    bounds: &[(String, Duration)],
    has_families: bool,
) -> String {
    let mut page = format!("pace {pace:?}, {nodes} nodes\n\n");
    for Row { name, value, formula, purpose } in rows {
        let value = format!("{value:?}");
        let head = format!("{name:<16}{value:>10}  {formula}");
        if formula.chars().count() > FORMULA_WIDTH {
            let _ = writeln!(page, "{head}");
            let _ = writeln!(page, "{:28}{:FORMULA_WIDTH$}  {purpose}", "", "");
        } else {
            let pad = FORMULA_WIDTH - formula.chars().count();
            let _ = writeln!(page, "{head}{:pad$}  {purpose}", "");
        }
    }
    if !bounds.is_empty() {
        page += "\nafter its owner dies, a group is claimed within `takeover` and then started. The sum with its \
                 start limits:\n";
        if has_families {
            page += "(a group that stays together with others: plus `family`)\n";
        }
        page.push('\n');
        for (group, bound) in bounds {
            let _ = writeln!(page, "{group:<32}{:>10}", format!("{bound:?}"));
        }
    }
    page
}

/// The object that `--json` prints; times are in milliseconds.
#[derive(Serialize)]
struct TimingJson<'a> {
    nodes: usize,
    times: Vec<TimeJson<'a>>,
    groups: Vec<GroupBoundJson<'a>>,
}

#[derive(Serialize)]
struct TimeJson<'a> {
    name: &'a str,
    milliseconds: f64,
    formula: &'a str,
    purpose: &'a str,
}

#[derive(Serialize)]
struct GroupBoundJson<'a> {
    group: &'a str,
    milliseconds: f64,
}

impl<'a> TimingJson<'a> {
    fn of(rows: &'a [Row], bounds: &'a [(String, Duration)], nodes: usize) -> Self {
        let millis = |time: &Duration| time.as_secs_f64() * 1000.0;
        let time = |row: &'a Row| TimeJson {
            name: row.name,
            milliseconds: millis(&row.value),
            formula: row.formula,
            purpose: row.purpose,
        };
        let bound =
            |(group, bound): &'a (String, Duration)| GroupBoundJson { group, milliseconds: millis(bound) };
        Self { nodes, times: rows.iter().map(time).collect(), groups: bounds.iter().map(bound).collect() }
    }
}
