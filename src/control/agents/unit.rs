//! systemd units, through `systemctl`.

use std::{path::Path, time::Duration};

use locum_core::model::{action::Operation, event::Outcome};
use tokio::time::{Instant, sleep};

use super::{Errand, job::End};

/// Between two looks at a unit that ends.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(errand: &Errand<'_>, unit: &str) -> Outcome {
    let Ok(systemctl) = errand.program("systemctl") else {
        return Outcome::Missing("the program systemctl is not installed".to_owned());
    };
    let verb = match errand.operation {
        Operation::Status => return ask(errand, &systemctl, unit).await,
        other => other.verb(),
    };
    let mut report = errand.job(&systemctl, ["--no-ask-password", verb, "--", unit]).run().await;
    // It says first what is the matter, and then where to read more.
    report.err.last = std::mem::take(&mut report.err.first);
    errand.by_exit_code(&report)
}

async fn ask(errand: &Errand<'_>, systemctl: &Path, unit: &str) -> Outcome {
    let report = errand.job(systemctl, ["--no-ask-password", "is-active", "--", unit]).run().await;
    match (&report.end, report.out.head.trim_ascii()) {
        (End::TimedOut | End::CannotRun(_), _) => errand.failed(&report),
        (_, b"activating") => ask_further(errand, systemctl, unit).await,
        // What is on its way up or down is not yet gone.
        (_, b"active" | b"reloading" | b"refreshing" | b"deactivating") => Outcome::Running,
        (_, b"inactive" | b"failed") => Outcome::Stopped,
        _ => Outcome::Unknown(report.complaint()),
    }
}

/// On its way up is also what has died and waits for its own restart (`Restart=`). Nothing of it runs then, and yet it has not
/// stopped: a unit that dies again and again would be taken for one that runs.
async fn ask_further(errand: &Errand<'_>, systemctl: &Path, unit: &str) -> Outcome {
    let words = ["--no-ask-password", "show", "--property=SubState", "--value", "--", unit];
    let report = errand.job(systemctl, words).run().await;
    match (&report.end, report.out.head.trim_ascii()) {
        (End::TimedOut | End::CannotRun(_), _) => errand.failed(&report),
        (_, state) if state.starts_with(b"auto-restart") => {
            errand.bad("it has ended, and waits for its restart by systemd".to_owned())
        }
        _ => Outcome::Running,
    }
}

/// The service manager has the unit's processes in a control group of its own: it is told to signal them.
pub(super) async fn end(errand: &Errand<'_>, unit: &str) -> Outcome {
    let systemctl = match errand.program("systemctl") {
        Ok(path) => path,
        Err(outcome) => return outcome,
    };
    let signal = if errand.operation == Operation::Kill { "--signal=KILL" } else { "--signal=TERM" };
    // Refused when nothing of it is left, which the next question tells.
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
