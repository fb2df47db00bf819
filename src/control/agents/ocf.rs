//! OCF agents: parameters in the environment, the exit code decides.

use std::path::Path;

use locum_core::model::{action::Operation, event::Outcome};
use tokio::time::Instant;

use super::{
    AgentOperation, Parameters,
    job::{ProgramEnd, ProgramReport},
};

pub(super) async fn run(
    errand: &AgentOperation<'_>,
    agent: &Path,
    kind: &str,
    provider: &str,
    parameters: &Parameters,
) -> Outcome {
    let verb = match errand.operation {
        Operation::Status => "monitor",
        other => other.verb(),
    };
    let mut job = match parameters {
        Parameters::Line(_) => errand.job(agent, [verb]),
        // The file is written for a shell and may use all of its syntax, so a shell reads it.
        Parameters::File(file) => {
            let script = r#"set -a; . "$1"; exec "$2" "$3""#;
            let (file, agent) = (file.display().to_string(), agent.display().to_string());
            errand.job(Path::new("/bin/sh"), ["-c", script, "sh", &file, &agent, verb])
        }
    };
    let mut put = |name: &str, value: String| job.environment.insert(name.to_owned(), value);
    put("OCF_RA_VERSION_MAJOR", "1".to_owned());
    put("OCF_RA_VERSION_MINOR", "0".to_owned());
    put("OCF_RESOURCE_TYPE", kind.to_owned());
    put("OCF_RESOURCE_PROVIDER", provider.to_owned());
    put("OCF_RESOURCE_INSTANCE", instance(&errand.resource.text));
    let left = errand.deadline.saturating_duration_since(Instant::now());
    put("OCF_RESKEY_CRM_meta_timeout", left.as_millis().to_string());
    if let Parameters::Line(parameters) = parameters {
        for (name, value) in parameters {
            put(&format!("OCF_RESKEY_{name}"), value.clone());
        }
    }
    let report = job.run().await;
    match (errand.operation, &report.end) {
        (_, ProgramEnd::TimedOut | ProgramEnd::CannotRun(_)) => errand.failed(&report),
        // The program that the agent serves is not installed: it cannot run here, and does not.
        (_, ProgramEnd::Exited(5)) => Outcome::Missing(complaint(&report)),
        (Operation::Status, ProgramEnd::Exited(0 | 8)) => Outcome::Running,
        (Operation::Status, ProgramEnd::Exited(7)) => Outcome::Stopped,
        (Operation::Start | Operation::Stop, ProgramEnd::Exited(0)) => Outcome::Ok,
        _ => errand.bad(complaint(&report)),
    }
}

/// The agent's instance name. Agents name files after it, so it is made of harmless letters, and no two resources have
/// the same one.
fn instance(text: &str) -> String {
    const LENGTH_MAX: usize = 100;
    const DIGEST: usize = "-0123456789abcdef".len();
    let harmless =
        |letter: char| if letter.is_ascii_alphanumeric() || "-._".contains(letter) { letter } else { '_' };
    if text.chars().count() <= LENGTH_MAX {
        return text.chars().map(harmless).collect();
    }
    // The rest that is cut off may be all that tells two resources apart. FNV-1a: the name must stay the same after the
    // daemon's end.
    let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let head: String = text.chars().take(LENGTH_MAX - DIGEST).map(harmless).collect();
    format!("{head}-{digest:016x}")
}

/// Says what a failed operation means: the exit codes have fixed meanings.
fn complaint(report: &ProgramReport) -> String {
    let meaning = match report.end {
        ProgramEnd::Exited(1) => "failed",
        ProgramEnd::Exited(2) => "wrong parameters",
        ProgramEnd::Exited(3) => "the agent does not support this operation",
        ProgramEnd::Exited(4) => "not permitted",
        ProgramEnd::Exited(5) => "a program that it needs is not installed",
        ProgramEnd::Exited(6) => "wrongly configured",
        ProgramEnd::Exited(9) => "running, but failed",
        _ => return report.complaint(),
    };
    format!("{meaning} ({})", report.complaint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_resources_that_differ_at_their_end_are_two_instances() {
        assert_eq!(instance("ocf:heartbeat:Dummy::state=/x y"), "ocf_heartbeat_Dummy__state__x_y");
        let long =
            |end: &str| instance(&format!("ocf:heartbeat:anything::binfile=/{}::{end}", "b".repeat(100)));
        assert_eq!(long("a").len(), 100);
        assert_ne!(long("a"), long("b"));
        assert_eq!(long("a"), long("a"));
    }
}
