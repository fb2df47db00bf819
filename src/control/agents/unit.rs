//! systemd units, through `systemctl`.

use locum_core::{action::Operation, event::Outcome};

use super::{Errand, job::End};

pub(super) async fn run(errand: &Errand<'_>, unit: &str) -> Outcome {
    let systemctl = match errand.program("systemctl") {
        Ok(path) => path,
        Err(outcome) => return outcome,
    };
    let verb = match errand.operation {
        Operation::Start => "start",
        Operation::Stop => "stop",
        Operation::Status => "is-active",
    };
    let report = errand.job(&systemctl, ["--no-ask-password", verb, "--", unit]).run().await;
    if errand.operation != Operation::Status {
        return errand.by_exit_code(&report);
    }
    match (&report.end, report.out.head.trim_ascii()) {
        (End::TimedOut, _) => Outcome::TimedOut,
        // What is on its way up or down is not yet gone.
        (_, b"active" | b"reloading" | b"refreshing" | b"activating" | b"deactivating") => Outcome::Running,
        (_, b"inactive" | b"failed") => Outcome::Stopped,
        _ => Outcome::Unknown(report.complaint()),
    }
}
