//! `locum lab mixed` and `locum lab cts`: Locum and the real heartbeat in one cluster, audited after every step.
//!
//! Exit code: 0 every audit that two real heartbeats pass was passed, 1 one was not.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{Args, ValueEnum, builder::PossibleValue};
use locum_lab::{
    Daemon,
    mixed::{self, Audited, DaemonPair, MixedOptions, MixedScenario, MixedSetup, Played},
};
use serde_json::{Value, json};

use super::{absent, allow_heartbeat, bench::millis, peers_root};
use crate::cli::run::duration;

/// What both commands need to know.
#[derive(Debug, Args)]
pub struct MixedCommonOptions {
    /// Directory of the unpacked heartbeat [default: that of scripts/peers, else the installed one]
    #[arg(long, value_name = "DIR")]
    peers_root: Option<PathBuf>,
    /// Keep the logs of all daemons in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Breakage to plant in Locum
    #[cfg(feature = "breakage")]
    #[arg(long, value_name = "NAME")]
    breakage: Option<String>,
}

/// The options of `locum lab mixed`.
#[derive(Debug, Args)]
pub struct LabMixedOptions {
    #[command(flatten)]
    common: MixedCommonOptions,
    /// Programs of the first and the second node [default: all pairs]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pairs: Vec<MixedName<DaemonPair>>,
    /// Scenarios to play [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    scenarios: Vec<MixedName<MixedScenario>>,
    /// Duration of frame loss in scenarios with loss
    #[arg(long, value_name = "TIME", default_value = "5min", value_parser = duration)]
    loss: Duration,
    /// Number of racks at once
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    racks: u8,
}

/// The options of `locum lab cts`.
#[derive(Debug, Args)]
pub struct LabCtsOptions {
    #[command(flatten)]
    common: MixedCommonOptions,
    /// Programs of the first and the second node
    #[arg(long, default_value = "locum+heartbeat")]
    pair: MixedName<DaemonPair>,
    /// Number of steps of the run
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// Random seed: the same one chooses the same steps [default: a new one, which is printed]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Start steps before earlier ones have ended; real heartbeats do not survive that
    #[arg(long)]
    hurry: bool,
    /// If an audit fails, play the same steps with two real heartbeats: a failure that they share does not count
    #[arg(long)]
    oracle: bool,
}

/// A value of the command line that goes by its name in the lab.
#[derive(Clone, Copy, Debug)]
struct MixedName<T>(T);

impl ValueEnum for MixedName<DaemonPair> {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [MixedName<DaemonPair>; 4] = [
            MixedName(DaemonPair::ALL[0]),
            MixedName(DaemonPair::ALL[1]),
            MixedName(DaemonPair::ALL[2]),
            MixedName(DaemonPair::ALL[3]),
        ];
        &ALL
    }
    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.0.name().into())
    }
}

impl ValueEnum for MixedName<MixedScenario> {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [MixedName<MixedScenario>; MixedScenario::ALL.len()] = {
            let mut all = [MixedName(MixedScenario::ALL[0]); MixedScenario::ALL.len()];
            let mut at = 0;
            while at < all.len() {
                all[at] = MixedName(MixedScenario::ALL[at]);
                at += 1;
            }
            all
        };
        &ALL
    }
    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.0.name().into())
    }
}

/// Plays scenarios, and prints the results.
///
/// # Errors
/// If there is no rack or no heartbeat, or the kernel refuses.
pub fn mixed(options: LabMixedOptions) -> anyhow::Result<ExitCode> {
    let pairs = if options.pairs.is_empty() {
        DaemonPair::ALL.to_vec()
    } else {
        options.pairs.into_iter().map(|MixedName(pair)| pair).collect()
    };
    let scenarios = if options.scenarios.is_empty() {
        MixedScenario::ALL.to_vec()
    } else {
        options.scenarios.into_iter().map(|MixedName(scenario)| scenario).collect()
    };
    let setup = setup(&options.common, &pairs)?;
    let json = options.common.json;
    let options =
        MixedOptions { setup, pairs, scenarios, loss: options.loss, racks: usize::from(options.racks) };
    let all = mixed::scenarios(&options, &mut |line| errln!("{line}"))?;
    if json {
        outln!(
            "{:#}",
            json!({ "runs": all.iter().map(|played| played_json(played, &all)).collect::<Vec<_>>() })
        );
    } else {
        table(&options, &all);
    }
    Ok(verdict(&all))
}

/// Plays the steps that a seed chooses, and prints the results.
///
/// # Errors
/// As [`mixed()`].
pub fn cts(options: &LabCtsOptions) -> anyhow::Result<ExitCode> {
    let MixedName(pair) = options.pair;
    if options.oracle && pair == DaemonPair::ORACLE {
        bail!(
            "--oracle compares with two real heartbeats, and this pair is that already: leave the option out"
        );
    }
    let pairs = if options.oracle { vec![pair, DaemonPair::ORACLE] } else { vec![pair] };
    let setup = setup(&options.common, &pairs)?;
    let seed = options.seed.unwrap_or_else(|| locum_sys::clock::unix_nanos() / 1_000_000);
    errln!("{pair}: {} steps, seed {seed}", options.steps);
    let mut tell = |line: &str| errln!("{line}");
    let mut play = |pair, steps| mixed::random(&setup, pair, steps, seed, options.hurry, &mut tell);
    let steps = options.steps as usize;
    let mut all = vec![play(pair, steps)?];
    if options.oracle && all[0].failed().is_some() {
        all.push(play(DaemonPair::ORACLE, all[0].steps.len())?);
    }
    if options.common.json {
        let mut value = played_json(&all[0], &all);
        value["seed"] = seed.into();
        value["oracle"] = all.get(1).map_or(Value::Null, |oracle| played_json(oracle, &all));
        outln!("{value:#}");
    } else {
        for (played, asked) in all.iter().zip([steps, all[0].steps.len()]) {
            let passed = played.steps.len() - usize::from(played.failed().is_some());
            outln!("{}, seed {seed}: {passed} of {asked} audits passed", played.pair);
            failure(played, &all);
        }
    }
    Ok(verdict(&all))
}

/// Looks for heartbeat where it is needed, then enters the lab while the process still has a single thread.
pub(super) fn setup(common: &MixedCommonOptions, pairs: &[DaemonPair]) -> anyhow::Result<MixedSetup> {
    let program = std::env::current_exe()?;
    let peers_root = peers_root(common.peers_root.as_deref(), &program)?;
    if pairs.iter().any(|pair| pair.0.contains(&Daemon::Heartbeat)) {
        allow_heartbeat()?;
        if !Daemon::Heartbeat.is_present(peers_root.as_deref()) {
            bail!(absent(Daemon::Heartbeat.name(), peers_root.as_deref()));
        }
    }
    locum_lab::enter()?;
    #[cfg(feature = "breakage")]
    let breakage = common.breakage.clone();
    #[cfg(not(feature = "breakage"))]
    let breakage = None;
    Ok(MixedSetup { program, peers_root, keep: common.keep.clone(), breakage })
}

/// Whether two real heartbeats failed at the same step of the same scenario.
fn is_shared(played: &Played, all: &[Played]) -> bool {
    let oracle = all.iter().find(|one| one.pair == DaemonPair::ORACLE && one.name == played.name);
    let place = |played: &Played| played.failed().map(|_| played.steps.len());
    played.failed().is_some() && oracle.is_some_and(|oracle| place(oracle) == place(played))
}

fn verdict(all: &[Played]) -> ExitCode {
    let is_ours = |played: &&Played| {
        played.failed().is_some() && !is_shared(played, all) && !played.failed_without_locum()
    };
    let ours = all.iter().filter(is_ours).count();
    if ours == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(options: &MixedOptions, all: &[Played]) {
    outln!("seconds after each step until all was well");
    for &scenario in &options.scenarios {
        for played in all.iter().filter(|played| played.name == scenario.name()) {
            let seconds = |audited: &Audited| {
                let time = format!("{:.1}", audited.settled.as_secs_f64());
                if audited.faults.is_empty() { time } else { "FAILED".into() }
            };
            let times: Vec<_> = played.steps.iter().map(seconds).collect();
            outln!("{:21} {:19} {}", played.name, played.pair.name(), times.join(" "));
        }
    }
    all.iter().for_each(|played| failure(played, all));
}

fn failure(played: &Played, all: &[Played]) {
    let Some(audited) = played.failed() else { return };
    let shared = match () {
        () if played.failed_without_locum() => " (no Locum was started yet)",
        () if is_shared(played, all) => " (two real heartbeats fail here, too)",
        () => "",
    };
    outln!("\n{}, {}: step {}{shared}\n  {audited}", played.pair, played.name, played.steps.len());
    out!("{}", played.evidence);
}

fn played_json(played: &Played, all: &[Played]) -> Value {
    let step = |audited: &Audited| {
        json!({
            "step": audited.step,
            "limit_ms": millis(audited.limit),
            "settled_ms": millis(audited.settled),
            "asked": audited.asked,
            "audited": !audited.hurried,
            "owners": audited.owners,
            "faults": audited.faults,
            "note": audited.note,
        })
    };
    json!({
        "pair": played.pair.name(),
        "name": played.name,
        "passed": played.failed().is_none(),
        "shared_with_two_real_nodes": is_shared(played, all),
        "without_locum": played.failed_without_locum(),
        "steps": played.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of `steps` steps, of which the last one failed.
    fn failed(pair: DaemonPair, steps: usize) -> Played {
        let step = |faults| Audited {
            step: "split".into(),
            limit: Duration::from_secs(60),
            settled: Duration::ZERO,
            asked: 0,
            hurried: false,
            owners: "12".into(),
            faults,
            note: None,
        };
        let mut audits = vec![step(Vec::new()); steps - 1];
        audits.push(step(vec!["x".into()]));
        Played { pair, name: "seed-1".into(), steps: audits, met_locum: true, evidence: String::new() }
    }

    #[test]
    fn what_fails_before_a_locum_was_started_is_not_held_against_it() {
        let alone = |pair| Played { met_locum: false, ..failed(pair, 1) };
        let ours = alone(DaemonPair::ALL[2]);
        assert!(ours.failed_without_locum());
        assert_eq!(played_json(&ours, &[])["without_locum"], true);
        assert_eq!(verdict(std::slice::from_ref(&ours)), ExitCode::SUCCESS);
        assert_eq!(
            verdict(&[ours, failed(DaemonPair::ALL[2], 1)]),
            ExitCode::FAILURE,
            "played again, it failed"
        );
        assert!(!alone(DaemonPair::ORACLE).failed_without_locum());
    }

    #[test]
    fn two_real_nodes_excuse_what_fails_for_them_at_the_same_step_alone() {
        let ours = || failed(DaemonPair::ALL[1], 3);
        let mut passed = failed(DaemonPair::ORACLE, 3);
        passed.steps[2].faults.clear();
        for (oracle, shared) in [
            (Some(failed(DaemonPair::ORACLE, 3)), true),
            (Some(failed(DaemonPair::ORACLE, 2)), false),
            (Some(Played { name: "seed-2".into(), ..failed(DaemonPair::ORACLE, 3) }), false),
            (Some(passed), false),
            (None, false),
        ] {
            let all: Vec<_> = [ours()].into_iter().chain(oracle).collect();
            assert_eq!(is_shared(&all[0], &all), shared, "{all:?}");
            assert_eq!(played_json(&all[0], &all)["shared_with_two_real_nodes"], shared);
            assert_eq!(verdict(&all) == ExitCode::SUCCESS, shared);
        }
    }
}
