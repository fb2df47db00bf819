//! Resource scripts: `SCRIPT ARGS… start|stop|status`, the calling convention of heartbeat and of the system's start
//! scripts.
//!
//! With heartbeat's files the printed text of `status` decides, as in heartbeat. In a native cluster the exit code
//! decides, as the Linux Standard Base says, unless text and code contradict each other: see [`by_both`].

use std::path::Path;

use locum_core::model::{action::Operation, event::Outcome, note::Level};

use super::{AgentOperation, job::ProgramEnd};

pub(super) async fn run(errand: &AgentOperation<'_>, path: &Path) -> Outcome {
    errand.speaker().say(Level::Debug, format!("runs {}", path.display()));
    let args = errand.resource.args.iter().cloned().chain([errand.operation.verb().to_owned()]);
    let report = errand.job(path, args).run().await;
    if errand.operation != Operation::Status {
        return errand.by_exit_code(&report);
    }
    match report.end {
        ProgramEnd::Exited(code) if errand.is_native() => {
            by_both(code, &report.out.head).unwrap_or_else(|| errand.failed(&report))
        }
        ProgramEnd::Exited(_) if says_running(&report.out.head) => Outcome::Running,
        ProgramEnd::Exited(_) => Outcome::Stopped,
        ProgramEnd::Signalled(_)
        | ProgramEnd::NotStarted(_)
        | ProgramEnd::TimedOut
        | ProgramEnd::CannotRun(_) => errand.failed(&report),
    }
}

/// The meaning of an answer to `status` in a native cluster; `None` if it cannot be told.
///
/// Exit codes (LSB 5.0, 22.2): 0 means running, 1 and 2 dead with a file left behind, 3 not running; any other is
/// unknown. Scripts written for heartbeat may end with 0 whatever they print: their text is believed when it says no.
fn by_both(code: i32, text: &[u8]) -> Option<Outcome> {
    match code {
        0 if says_stopped(text) => Some(Outcome::Stopped),
        0 => Some(Outcome::Running),
        1..=3 => Some(Outcome::Stopped),
        _ => None,
    }
}

/// Whether the text says in one of the usual phrases that the service does not run.
fn says_stopped(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    says_not_running(&text)
        || ["stopped", "inactive", "dead"]
            .iter()
            .any(|word| text.split(|letter: char| !letter.is_alphanumeric()).any(|found| found == *word))
}

fn says_not_running(lower: &str) -> bool {
    lower.find("not ").is_some_and(|at| lower[at..].contains("running"))
}

/// The meaning of an answer to `status` with heartbeat's files. The text decides, not the exit code: "not" and later
/// "running" means no; "running", "Running" or "OK" mean yes; everything else means no (behaviour reference, section
/// 4).
fn says_running(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    if says_not_running(&text.to_ascii_lowercase()) {
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

    #[test]
    fn in_a_native_cluster_the_exit_code_decides_unless_the_text_says_no() {
        for (code, text, expected) in [
            // Debian's script of postgresql prints neither "running" nor "OK".
            (0, "15/main (port 5432): online\n", Some(Outcome::Running)),
            (0, "", Some(Outcome::Running)),
            (0, "nginx is running.\n", Some(Outcome::Running)),
            (0, "stopped", Some(Outcome::Stopped)),
            (0, "httpd is not running\n", Some(Outcome::Stopped)),
            (0, "Active: inactive (dead)", Some(Outcome::Stopped)),
            (1, "httpd dead but pid file exists", Some(Outcome::Stopped)),
            (3, "15/main (port 5432): down\n", Some(Outcome::Stopped)),
            (3, "not running", Some(Outcome::Stopped)),
            (4, "running", None),
            (127, "", None),
        ] {
            assert_eq!(by_both(code, text.as_bytes()), expected, "{code} {text}");
        }
    }
}
