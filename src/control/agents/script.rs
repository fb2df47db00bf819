//! Resource scripts: `SCRIPT ARGS… start|stop|status`, the calling convention of heartbeat and of the system's start
//! scripts.

use std::path::Path;

use locum_core::{action::Operation, event::Outcome, note::Level};

use super::{Errand, job::End};

pub(super) async fn run(errand: &Errand<'_>, path: &Path) -> Outcome {
    errand.speaker().say(Level::Debug, format!("runs {}", path.display()));
    let args = errand.resource.args.iter().cloned().chain([errand.operation.verb().to_owned()]);
    let report = errand.job(path, args).run().await;
    if errand.operation != Operation::Status {
        return errand.by_exit_code(&report);
    }
    match report.end {
        End::Exited(_) if says_running(&report.out.head) => Outcome::Running,
        End::Exited(_) => Outcome::Stopped,
        End::Signalled(_) | End::NotStarted(_) | End::TimedOut | End::CannotRun(_) => errand.failed(&report),
    }
}

/// What the answer to `status` means. The text decides, not the exit code: "not" and later "running" means no,
/// "running", "Running" or "OK" mean yes, everything else no (behaviour reference, section 4).
fn says_running(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let lower = text.to_ascii_lowercase();
    if lower.find("not ").is_some_and(|at| lower[at..].contains("running")) {
        return false;
    }
    ["running", "Running", "OK"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_decides() {
        for yes in [
            "running",
            "httpd (pid 12) is running...\n",
            "Running",
            "OK",
            "IPaddr OK\n",
            "Active: active (running)",
        ] {
            assert!(says_running(yes.as_bytes()), "{yes}");
        }
        for no in [
            "",
            "stopped",
            "not running",
            "NOT Running",
            "httpd is not running but OK",
            "is not currently running",
            "RUNNING",
            "ok",
            "Active: inactive (dead)",
        ] {
            assert!(!says_running(no.as_bytes()), "{no}");
        }
        assert!(says_running(b"\xff\xfe running \xff"));
    }
}
