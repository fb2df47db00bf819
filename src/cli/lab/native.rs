//! `locum lab native`: does a native cluster ever have two owners, whatever fails?
//!
//! Exit code: 0 no two nodes had an open gate or answered at once, and the service came back in time where it should; 1
//! otherwise.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum, builder::PossibleValue};
use locum_core::{config::locum_toml, native::timing::NativeTiming};
use locum_lab::{
    native::{self, ExpectedOutcome, NativeRow, NativeScenario, Promise},
    pair::{Pace, PairSetup},
};
use serde_json::{Value, json};

use super::{bench::millis, gate::BackendName};
use crate::cli::{demo_httpd, run::duration};

/// The options of `locum lab native`.
#[derive(Debug, Args)]
pub struct LabNativeOptions {
    /// Faults to play [default: all, one after the other]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    scenarios: Vec<ScenarioName>,
    /// Paces of the cluster
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "300ms,1s", value_parser = locum_toml::pace)]
    pace: Vec<Duration>,
    /// Runs of each scenario
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// How much later than its bound the service may come back, for a busy machine [default: 0]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    slack: Option<Duration>,
    /// How long a cluster must be well before the fault
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    calm: Duration,
    /// Gate backend [default: the best one that works]
    #[arg(long, value_name = "BACKEND")]
    gate: Option<BackendName>,
    /// Run only the control: two nodes are made to answer behind open gates, which must be seen
    #[arg(long)]
    control: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug)]
struct ScenarioName(NativeScenario);

impl ValueEnum for ScenarioName {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: [ScenarioName; NativeScenario::ALL.len()] = {
            let mut all = [ScenarioName(NativeScenario::ALL[0]); NativeScenario::ALL.len()];
            let mut place = 0;
            while place < all.len() {
                all[place] = ScenarioName(NativeScenario::ALL[place]);
                place += 1;
            }
            all
        };
        &ALL
    }
    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.0.name().into())
    }
}

/// A row and the pace of its cluster. The control has no pace.
type PacedRow = (Option<Duration>, NativeRow);

/// Plays the control, then every scenario on a rack of its own, and prints the results.
///
/// # Errors
/// If there is no rack, a cluster does not come up, or the instruments do not see two owners in the control.
pub fn native(options: &LabNativeOptions) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe()?;
    locum_lab::enter()?;
    let setup = |pace: Duration| PairSetup {
        program: program.clone(),
        web_server: demo_httpd::COMMAND.to_owned(),
        peers_root: None,
        pace: Pace::of(pace * 3 / 10),
        calm: options.calm.max(pace * 3),
        gates: options.gate.map(|BackendName(backend)| backend),
        failback: false,
    };
    let scenarios: Vec<_> = match &options.scenarios[..] {
        [] => NativeScenario::ALL.to_vec(),
        chosen => chosen.iter().map(|&ScenarioName(scenario)| scenario).collect(),
    };
    let mut rows: Vec<PacedRow> = Vec::new();
    let mut tell = |line: &str| errln!("{line}");
    let control = native::control(&setup(Duration::from_secs(1)), &mut tell)?;
    tell(&line(None, &control));
    rows.push((None, control));
    let paces: &[Duration] = if options.control { &[] } else { &options.pace };
    for _ in 0..options.runs {
        for &pace in paces {
            let takeover = NativeTiming::of(pace).claim_bound(native::CANDIDATES);
            let promise = Promise { takeover, slack: options.slack.unwrap_or_default() };
            for &scenario in &scenarios {
                let row = native::play(scenario, &setup(pace), promise, &mut tell)?;
                tell(&line(Some(pace), &row));
                if !row.status_reports.is_empty() {
                    tell(&row.status_reports);
                }
                rows.push((Some(pace), row));
            }
        }
    }
    if options.json {
        outln!("{:#}", json!({ "rows": rows.iter().map(to_json).collect::<Vec<_>>() }));
    } else {
        table(&rows);
    }
    let good = rows.iter().all(|(_, row)| row.wrong.is_empty());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(pace: Option<Duration>, row: &NativeRow) -> String {
    let pace = pace.map(|pace| format!("pace {pace:?}, ")).unwrap_or_default();
    let verdict = if row.wrong.is_empty() { "good".to_owned() } else { row.wrong.join("; ") };
    format!(
        "{pace}{}: outage {}{} ms, two gates open {} ms, two answer {} ms: {verdict}",
        row.scenario,
        if row.is_unending() { "AT LEAST " } else { "" },
        millis(row.outage()),
        millis(row.two_open),
        millis(row.two_answer()),
    )
}

fn table(rows: &[PacedRow]) {
    let backend = rows.first().map_or("", |(_, row)| row.backend.as_str());
    outln!(
        "all times in ms; gate backend {backend}; pages come from the service's web server, which must be started, too"
    );
    outln!(
        "{:>5}  {:13} {:20} {:>9} {:>9} {:>9} | {:>9} {:>10} {:>8}  verdict",
        "pace",
        "scenario",
        "expected, actual",
        "bound",
        "outage",
        "of pages",
        "two open",
        "two answer",
        "unseen"
    );
    for (pace, row) in rows {
        let pace = pace.map(|pace| pace.as_millis().to_string()).unwrap_or_default();
        let should = row.outcome.map_or("", word);
        let did = match row.owners {
            Some([before, after]) if before == after => "stayed",
            Some([_, after]) if after == native::NOBODY => "no owner",
            Some(_) => "moved",
            None => "",
        };
        let bound = row.bound.map(|bound| millis(bound).to_string()).unwrap_or_default();
        let verdict = if row.wrong.is_empty() { "good".to_owned() } else { row.wrong.join("; ") };
        outln!(
            "{pace:>5}  {:13} {:20} {bound:>9} {:>9} {:>9} | {:>9} {:>10} {:>8}  {verdict}",
            row.scenario,
            format!("{should}, {did}"),
            millis(row.outage()),
            millis(row.page_outage()),
            millis(row.two_open),
            millis(row.two_answer()),
            millis(row.unseen),
        );
    }
}

fn word(outcome: ExpectedOutcome) -> &'static str {
    match outcome {
        ExpectedOutcome::Moves => "move",
        ExpectedOutcome::Stays => "stay",
    }
}

fn to_json((pace, row): &PacedRow) -> Value {
    json!({
        "scenario": row.scenario,
        "pace_ms": pace.map(millis),
        "backend": row.backend,
        "should": row.outcome.map(word),
        "owner_before": row.owners.map(|[before, _]| before),
        "owner_after": row.owners.map(|[_, after]| after),
        "bound_ms": row.bound.map(millis),
        "outage_ms": millis(row.outage()),
        "http_outage_ms": millis(row.page_outage()),
        "came_back": !row.is_unending(),
        "two_open_ms": millis(row.two_open),
        "two_answer_ms": millis(row.two_answer()),
        "two_hold_ms": millis(row.two_hold()),
        "unseen_ms": millis(row.unseen),
        "wrong": row.wrong,
    })
}
