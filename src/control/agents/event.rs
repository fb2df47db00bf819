//! Event scripts: a person's script in `rc.d`, run when a message of its name comes. Facts: `docs/heartbeat.md`,
//! section 8.
//!
//! One at a time, as in the original; a bounded number waits. A frame never names a path (invariant 3): its type is
//! compared with the names that lie in `rc.d`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use locum_core::model::{
    claim::Epoch,
    note::{Escaped, Level, Note},
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Agents, EPOCH,
    find::is_program,
    job::{ProgramEnd, ProgramJob},
    output::Speaker,
};
use crate::control::errands::call;

/// How many messages may wait for their script.
const WAITING_MAX: usize = 64;
/// After this time a script is killed, with everything that it has started.
const LIMIT: Duration = Duration::from_secs(300);

type ScriptMessage = (String, Vec<(String, String)>, Option<Epoch>);

/// The queue of messages for event scripts.
#[derive(Clone, Debug)]
pub struct EventScripts(mpsc::Sender<ScriptMessage>);

impl EventScripts {
    /// Begins to wait for messages. Needs a runtime around it.
    #[must_use]
    pub fn start(agents: Agents) -> Self {
        let (queue, mut messages) = mpsc::channel::<ScriptMessage>(WAITING_MAX);
        tokio::spawn(async move {
            while let Some((kind, fields, epoch)) = messages.recv().await {
                run(&agents, &kind, fields, epoch.as_ref()).await;
            }
        });
        Self(queue)
    }

    /// Queues a message for the script of its name, if there is one. False when too many messages wait.
    #[must_use]
    pub fn offer(&self, kind: String, fields: Vec<(String, String)>, epoch: Option<Epoch>) -> bool {
        self.0.try_send((kind, fields, epoch)).is_ok()
    }
}

async fn run(agents: &Agents, kind: &str, fields: Vec<(String, String)>, epoch: Option<&Epoch>) {
    let shared = &agents.0;
    let (config, name) = (shared.options.roots.config.clone(), kind.to_owned());
    let found = call("rc.d".to_owned(), move || program(&config, &name)).await;
    let Ok(Some(program)) = found else { return };
    let mut all = shared.environment.clone();
    all.extend(epoch.map(|epoch| (EPOCH.to_owned(), epoch.as_str().to_owned())));
    let job = ProgramJob {
        program,
        args: vec![kind.to_owned()],
        environment: environment(all, fields, shared.host_config.legacy),
        input: None,
        speaker: Speaker {
            tell: shared.options.tell.clone(),
            group: None,
            epoch: None,
            label: format!("event script {}", Escaped(kind.as_bytes())),
        },
        level: Level::Info,
        deadline: Instant::now() + LIMIT,
        cgroup: shared.options.cgroup_path(),
        kin: None,
        resource: String::new(),
        whose: format!("event script {kind}"),
        // A later daemon does not need to know about it.
        notes: None,
        service: None,
    };
    let speaker = job.speaker.clone();
    let report = job.run().await;
    if report.end != ProgramEnd::Exited(0) {
        let text = format!("{}: {}", speaker.label, report.complaint());
        (speaker.tell)(Note { level: Level::Warning, group: None, epoch: None, text });
    }
}

/// The program that serves a message of this type: `harc` of the configuration directory, which runs the script, or, if
/// there is none, the script itself.
fn program(config: &Path, kind: &str) -> Option<PathBuf> {
    let entries = config.join("rc.d").read_dir().ok()?;
    let script = entries.flatten().find(|entry| entry.file_name() == *kind)?.path();
    if !is_program(&script) {
        return None;
    }
    Some(Some(config.join("harc")).filter(|harc| is_program(harc)).unwrap_or(script))
}

/// The environment of every script, and the message. A field never replaces a variable that is already set.
fn environment(
    mut all: BTreeMap<String, String>,
    fields: Vec<(String, String)>,
    legacy: bool,
) -> BTreeMap<String, String> {
    if !legacy {
        all.insert("HA_NICEFAILBACK".to_owned(), "yes".to_owned());
    }
    for (name, value) in fields {
        all.entry(format!("HA_{name}")).or_insert(value);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_never_replaces_what_was_there() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let all = BTreeMap::from([pair("HA_DIR", "/etc/ha.d"), pair("PATH", "/bin")]);
        let fields =
            vec![pair("DIR", "/tmp"), pair("info", "x"), pair("NICEFAILBACK", "no"), pair("info", "y")];
        let all = environment(all, fields, false);
        let expected = [
            pair("HA_DIR", "/etc/ha.d"),
            pair("HA_NICEFAILBACK", "yes"),
            pair("HA_info", "x"),
            pair("PATH", "/bin"),
        ];
        assert_eq!(all, BTreeMap::from(expected));
    }
}
