//! The native stand-ins that need neither the heart nor a file system: `MailTo` and `Delay`.

use std::time::Duration;

use locum_core::model::{action::Operation, event::Outcome, note::Level, resource::Agent};
use tokio::time::{Instant, sleep_until};

use super::{AgentOperation, filesystem, job::ProgramEnd};

pub(super) async fn run(errand: &AgentOperation<'_>) -> Outcome {
    let traceless = match &errand.resource.agent {
        Agent::MailTo { .. } | Agent::Delay { .. } => true,
        Agent::Filesystem { device, directory, kind, options } => {
            return filesystem::run(errand, device, directory, kind.as_deref(), options.as_deref()).await;
        }
        Agent::Address(_) | Agent::SendArp(_) => {
            return errand.bad("the heart runs addresses, not an agent".to_owned());
        }
        Agent::Script | Agent::OcfFile { .. } | Agent::Ocf { .. } => false,
    };
    if errand.operation == Operation::Status {
        return if errand.started().contains(&errand.id) { Outcome::Running } else { Outcome::Stopped };
    }
    let outcome = match &errand.resource.agent {
        Agent::MailTo { recipients, subject } => mail(errand, recipients, subject.as_deref()),
        Agent::Delay { start, stop } => delay(errand, *start, *stop).await,
        _ => errand.bad("it has no native agent".to_owned()),
    };
    if traceless && outcome == Outcome::Ok {
        if errand.operation == Operation::Start {
            errand.started().insert(errand.id);
        } else {
            errand.started().remove(&errand.id);
        }
    }
    outcome
}

async fn delay(errand: &AgentOperation<'_>, start: Duration, stop: Duration) -> Outcome {
    let pause = if errand.operation == Operation::Start { start } else { stop };
    // A delay that was not started has nothing to wait for at its stop.
    if errand.operation == Operation::Stop && !errand.started().contains(&errand.id) {
        return Outcome::Ok;
    }
    let end = Instant::now() + pause;
    sleep_until(end.min(errand.deadline)).await;
    if end > errand.deadline { Outcome::TimedOut } else { Outcome::Ok }
}

/// Sends the mail beside the takeover: it only informs people, so it must never hold one up or make one fail.
fn mail(errand: &AgentOperation<'_>, recipients: &str, subject: Option<&str>) -> Outcome {
    const LIMIT: Duration = Duration::from_secs(60);
    // A mail that was not started has nothing to report at its stop.
    if errand.operation == Operation::Stop && !errand.started().contains(&errand.id) {
        return Outcome::Ok;
    }
    let roots = &errand.shared.options.roots;
    let libexec = std::path::PathBuf::from("/usr/lib/sendmail");
    let Some(sendmail) = roots.program("sendmail").or_else(|| libexec.is_file().then_some(libexec)) else {
        errand.speaker().say(Level::Warning, "no mail sent: the program sendmail is not installed");
        return Outcome::Ok;
    };
    let recipients: Vec<&str> =
        recipients.split_ascii_whitespace().filter(|name| !name.starts_with('-')).collect();
    let host_config = &errand.shared.host_config;
    let (node, group) = (&host_config.me, &host_config.groups[errand.id.group.0].key);
    let what = if errand.operation == Operation::Start { "takes over" } else { "gives up" };
    let line = |text: &str| text.replace(['\r', '\n'], " ");
    let text = format!(
        "To: {}\nSubject: {} {what} {}\n\nNode {node} {what} resource group {group}.\n",
        line(&recipients.join(", ")),
        line(subject.unwrap_or("Locum:")),
        line(&format!("{group} on {node}")),
    );
    let mut job = errand.job(&sendmail, ["-i", "--"].into_iter().chain(recipients));
    job.input = Some(text.into_bytes());
    job.deadline = Instant::now() + LIMIT;
    let speaker = job.speaker.clone();
    tokio::spawn(async move {
        let report = job.run().await;
        if report.end != ProgramEnd::Exited(0) {
            speaker.say(Level::Warning, format!("no mail sent: {}", report.complaint()));
        }
    });
    Outcome::Ok
}
