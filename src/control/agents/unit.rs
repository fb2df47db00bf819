//! systemd units, through `systemctl`.

use std::{path::Path, time::Duration};

use locum_core::model::{action::Operation, event::Outcome};
use tokio::time::{Instant, sleep};

use super::{AgentOperation, job::ProgramEnd};

/// The pause between two looks at a unit that is to end.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(errand: &AgentOperation<'_>, unit: &str) -> Outcome {
    let Ok(systemctl) = errand.program("systemctl") else {
        return Outcome::Missing("the program systemctl is not installed".to_owned());
    };
    let verb = match errand.operation {
        Operation::Status => return ask(errand, &systemctl, unit).await,
        other => other.verb(),
    };
    let mut report = errand.job(&systemctl, ["--no-ask-password", verb, "--", unit]).run().await;
    // systemctl first says what is wrong, and then where to read more.
    report.err.last = std::mem::take(&mut report.err.first);
    errand.by_exit_code(&report)
}

async fn ask(errand: &AgentOperation<'_>, systemctl: &Path, unit: &str) -> Outcome {
    let report = errand.job(systemctl, ["--no-ask-password", "is-active", "--", unit]).run().await;
    match (&report.end, report.out.head.trim_ascii()) {
        (ProgramEnd::TimedOut | ProgramEnd::CannotRun(_), _) => errand.failed(&report),
        (_, b"activating") => ask_further(errand, systemctl, unit).await,
        // A unit that is on its way up or down has not stopped yet.
        (_, b"active" | b"reloading" | b"refreshing" | b"deactivating") => Outcome::Running,
        (_, b"inactive" | b"failed") => Outcome::Stopped,
        _ => Outcome::Unknown(report.complaint()),
    }
}

/// systemd also calls a unit activating that has died and waits for its own restart (`Restart=`). None of it runs then,
/// but it has not stopped. Without this question a unit that dies again and again would be taken for a running one.
async fn ask_further(errand: &AgentOperation<'_>, systemctl: &Path, unit: &str) -> Outcome {
    let words = ["--no-ask-password", "show", "--property=SubState", "--value", "--", unit];
    let report = errand.job(systemctl, words).run().await;
    match (&report.end, report.out.head.trim_ascii()) {
        (ProgramEnd::TimedOut | ProgramEnd::CannotRun(_), _) => errand.failed(&report),
        (_, state) if state.starts_with(b"auto-restart") => {
            errand.bad("it has ended, and systemd is about to restart it".to_owned())
        }
        _ => Outcome::Running,
    }
}

/// Signals the unit's processes. The service manager keeps them in a control group of its own, so it is told to do
/// that.
pub(super) async fn end(errand: &AgentOperation<'_>, unit: &str) -> Outcome {
    let systemctl = match errand.program("systemctl") {
        Ok(path) => path,
        Err(outcome) => return outcome,
    };
    let signal = if errand.operation == Operation::Kill { "--signal=KILL" } else { "--signal=TERM" };
    // systemctl refuses if nothing of the unit is left. The next question shows that.
    let _ = errand.job(&systemctl, ["--no-ask-password", "kill", signal, "--", unit]).run().await;
    loop {
        match ask(errand, &systemctl, unit).await {
            Outcome::Stopped => return Outcome::Ok,
            Outcome::Unknown(reason) => return errand.bad(reason),
            _ if Instant::now() >= errand.deadline => return Outcome::TimedOut,
            _ => sleep(PAUSE).await,
        }
    }
}
