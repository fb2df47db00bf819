//! Planted breakages: a test that cannot fail shows nothing. Each breakage breaks one rule on purpose, and a named
//! story or trial must then fail that otherwise succeeds. `cargo breakages` prints the table.

use std::path::Path;

use locum_core::model::breakage::{
    Breakage::{self, *},
    plant,
};
use locum_sim::{hostile::TRIALS, simulation, story::Story, testbed::REWRITE};

/// Breakage, the story or trial that must fail, and a part of its report.
const TABLE: &[(Breakage, &str, &str)] = &[
    (NoAuthentication, "wrong-key", ""),
    (NoAuthentication, "two-clusters-one-name", ""),
    (NoAnnouncement, "power-loss", "+ client: 172.23.2.14 none"),
    (NoStopOnLeave, "graceful-stop", ""),
    (LinkLossIsDeath, "links-cut", ""),
    (StopOrderReversed, "graceful-stop", "before the members right of it were stopped"),
    (StartOrderReversed, "start-together", "before the members left of it run"),
    (OldGenerationAccepted, "replay", ""),
    (StartBeforeDone, "standby-all", "runs on two hosts"),
    (NoYieldAfterHeal, "partition", "runs on two hosts"),
    (BothYieldAfterHeal, "partition", ""),
    (NoStopAfterFailedStart, "start-failure", ""),
    (NoShutdownNotice, "graceful-stop", ""),
    (NoFailback, "return-on", "+ owner: 172.23.2.14 clustnode2"),
    (FailbackAlways, "return-off", "+ owner: 172.23.2.14 clustnode1"),
    (NoKeyRollOver, "keys-changed", ""),
    (NoRetransmission, "loss-moves", ""),
    (OwnFramesAreNews, "own-name", ""),
    (DeadtimeUnbounded, "deadtime", ""),
    (NoSweep, "daemon-killed", ""),
    (NoWaitBeforeYield, "ipfail-both", ""),
    (TakeoverUnfenced, "fence-fails", ""),
    (NoAnnouncementAfterHeal, "partition", "+ client: 172.23.2.14 none"),
    (ReloadIsLoss, "renew-all", "runs on two hosts"),
];

fn run(name: &str) -> Result<(), String> {
    if let Some(trial) = TRIALS.iter().find(|trial| trial.name == name) {
        return trial.run();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/stories/{name}.story"));
    let story = Story::read(&path).map_err(|error| error.to_string())?;
    simulation::play(&path, &story, 1)
}

/// The line of a report that says most about the failure.
fn key_line<'a>(report: &'a str, hint: &str) -> &'a str {
    let line = report.lines().map(str::trim).find(|line| {
        if hint.is_empty() { line.starts_with(['+', '-']) && line.len() > 2 } else { line.contains(hint) }
    });
    line.or(report.lines().next()).unwrap_or_default()
}

/// All in one test, because a breakage holds for the whole process.
#[test]
fn every_breakage_turns_its_story_red() {
    assert!(std::env::var_os(REWRITE).is_none(), "{REWRITE} would write broken stories into their files");
    let mut faults = Vec::new();
    println!("{:<24} {:<24} seen", "breakage", "turns red");
    for &(breakage, name, hint) in TABLE {
        plant(None);
        if let Err(report) = run(name) {
            faults.push(format!("{name} is red without a breakage: {report}"));
        }
        plant(Some(breakage));
        match run(name) {
            Ok(()) => faults.push(format!("{breakage:?} leaves {name} green")),
            Err(report) if !report.contains(hint) => {
                faults.push(format!("{breakage:?} turns {name} red without the words {hint:?}:\n{report}"));
            }
            Err(report) => {
                println!("{:<24} {name:<24} {:.90}", format!("{breakage:?}"), key_line(&report, hint));
            }
        }
    }
    plant(None);
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    println!("{} breakages, each of them found", TABLE.len());
}
