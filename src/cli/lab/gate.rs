//! `locum lab gate`: does a gate shut in time, wherever its daemon is frozen?
//!
//! Exit code: 0 no address answered after its lease, 1 one did, 77 no rack can be built here, or the requested backend
//! does not work, or none does.

use std::{io::Write as _, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum, builder::PossibleValue};
use locum_lab::{
    Fault,
    gate::{self, FreezePoint, GateBackend, GateTrial, GateTrialReport},
};
use serde_json::{Value, json};

use super::bench::millis;
use crate::cli::run::duration;

/// The options of `locum lab gate`.
#[derive(Debug, Args)]
pub struct LabGateOptions {
    /// Trials of each backend: half are frozen during a renewal, half at any moment
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Gate backend [default: all that work here]
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendName>,
    /// Length of the lease, which is renewed five times in that time
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = duration)]
    lease: Duration,
    /// How long the renewing process is frozen; more than two leases
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    freeze: Duration,
    /// Number of trials at once
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    parallel: u8,
    /// Seed of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Run the control: a thawed process goes on renewing, which the trials must see
    #[arg(long)]
    control: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BackendName(pub(super) GateBackend);

impl ValueEnum for BackendName {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(GateBackend::Bpf), Self(GateBackend::Nft)]
    }
    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.0.name().into())
    }
}

/// Runs the trials of one backend after those of the other, and prints the results.
///
/// # Errors
/// If there is no rack, a backend does not work here, or the kernel refuses.
pub fn gate(options: &LabGateOptions) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(options.freeze > options.lease * 2, "--freeze must be longer than two leases");
    anyhow::ensure!(options.lease >= Duration::from_millis(50), "--lease must be at least 50ms");
    let plan = gate::GateTrialOptions {
        program: std::env::current_exe()?,
        runs: options.runs,
        lease: options.lease,
        every: options.lease / 5,
        freeze: options.freeze,
        parallel: options.parallel,
        seed: options.seed,
        goes_on: options.control,
    };
    locum_lab::enter()?;
    let kinds = options.backend.map_or(GateBackend::ALL.to_vec(), |BackendName(kind)| vec![kind]);
    let (mut all, mut missing) = (Vec::new(), None);
    for kind in kinds {
        let tell = |done: u32| {
            // If standard error is closed, the progress line is lost and nothing else.
            let _ = write!(std::io::stderr(), "\r{}: {done} of {}", kind.name(), options.runs);
        };
        match gate::play(kind, &plan, &tell) {
            Ok(report) => {
                errln!();
                all.push((kind, report));
            }
            // Go on with the backends that the kernel has.
            Err(fault @ Fault::NoGate { .. }) => {
                errln!("locum: {fault}");
                missing = Some(fault);
            }
            Err(fault) => return Err(fault.into()),
        }
    }
    if let Some(fault) = missing.filter(|_| all.is_empty()) {
        return Err(fault.into());
    }
    if options.json {
        outln!("{:#}", json!({ "backends": all.iter().map(to_json).collect::<Vec<_>>() }));
    } else {
        table(&all);
    }
    let violated = all.iter().any(|(_, report)| report.violations().next().is_some());
    Ok(if violated { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn table(all: &[(GateBackend, GateTrialReport)]) {
    outln!("last answer relative to the deadline, worst of all runs");
    outln!("backend frozen     runs  after      before     too late  cost of a renewal");
    for (kind, report) in all {
        for point in [FreezePoint::InFlight, FreezePoint::Anywhere] {
            let Some(figures) = FreezePointFigures::of(report, point) else { continue };
            outln!(
                "{:6}  {:9}  {:4}  {:6} ms  {:6} ms  {:8}  {:.1} us",
                kind.name(),
                word(point),
                figures.runs,
                millis(figures.late),
                millis(figures.early),
                figures.violations,
                report.renewal.as_secs_f64() * 1e6,
            );
        }
    }
    outln!(
        "too late: by more than {} ms, the time that the client may have waited for a processor",
        TOLERANCE_MS
    );
}

const TOLERANCE_MS: u128 = gate::TOLERANCE.as_millis();

/// The figures of all trials that were frozen at the same point.
struct FreezePointFigures {
    runs: usize,
    late: Duration,
    early: Duration,
    violations: usize,
}

impl FreezePointFigures {
    fn of(report: &GateTrialReport, point: FreezePoint) -> Option<Self> {
        let trials: Vec<&GateTrial> = report.trials.iter().filter(|trial| trial.point == point).collect();
        Some(Self {
            runs: trials.len(),
            late: trials.iter().map(|trial| trial.late).max()?,
            early: trials.iter().map(|trial| trial.early).max()?,
            violations: report.violations().filter(|trial| trial.point == point).count(),
        })
    }
}

fn word(point: FreezePoint) -> &'static str {
    match point {
        FreezePoint::InFlight => "in flight",
        FreezePoint::Anywhere => "anywhere",
    }
}

fn to_json((kind, report): &(GateBackend, GateTrialReport)) -> Value {
    let points = [FreezePoint::InFlight, FreezePoint::Anywhere].into_iter().filter_map(|point| {
        let figures = FreezePointFigures::of(report, point)?;
        Some(json!({
            "frozen": word(point),
            "runs": figures.runs,
            "latest_after_deadline_ms": millis(figures.late),
            "earliest_before_deadline_ms": millis(figures.early),
            "too_late": figures.violations,
        }))
    });
    json!({
        "backend": kind.name(),
        "renewal_us": report.renewal.as_secs_f64() * 1e6,
        "points": points.collect::<Vec<_>>(),
    })
}
