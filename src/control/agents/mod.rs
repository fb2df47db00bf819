//! Agents run the resources that are not an address of the heart. Resource scripts, OCF agents and systemd units are
//! children of the control plane; `MailTo`, `Delay` and `Filesystem` are stand-ins for heartbeat's scripts of these
//! names.
//!
//! The programs of fencing devices and the clients that `ha.cf` starts are children, too ([`Agents::fence`],
//! [`client`]).
//!
//! One call of [`Agents::run`] is one operation of one resource; different resources may run at the same time. The core
//! decides about repeated stops and about what a failure means to the group.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use locum_core::model::{
    action::Operation,
    claim::Epoch,
    event::Outcome,
    identity::{GroupIndex, ResourceId},
    note::{Level, Note},
    resource::{Agent, Resource},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    control::errands::{call, spawn_blocking},
    host_config::HostConfig,
};

pub mod cgroup;
pub mod client;
mod ending;
mod environment;
pub mod event;
mod fence;
mod filesystem;
mod find;
mod job;
mod native;
mod ocf;
pub mod orphans;
mod output;
mod processes;
mod script;
mod unit;

use cgroup::Scope;
pub(crate) use fence::AGENTS;
pub(crate) use find::is_program;
pub use find::{NotFound, Parameters, ResourceProgram, Roots, ScriptPlace, find};
use job::{Kin, ProgramEnd, ProgramJob, ProgramReport};
pub use output::NoteSink;
use output::Speaker;

/// The variable in which agents and event scripts find the epoch.
const EPOCH: &str = "LOCUM_EPOCH";

/// The settings of agents that are not in the plan.
#[derive(Clone)]
pub struct AgentOptions {
    /// The directories in which programs are looked for.
    pub roots: Roots,
    /// Use scripts named like the native stand-ins where they exist.
    pub prefer_scripts: bool,
    /// The recorded parameters of `ha.cf` as written, which scripts see as `HA_` and the name.
    pub parameters: BTreeMap<String, String>,
    /// The FIFO by which scripts write messages for the cluster.
    pub fifo: Option<PathBuf>,
    /// Where control groups for operations can be made ([`cgroup::delegated`]), or why there is no such directory.
    /// Without it, operations are found by their session and a mark in their environment, which is nearly as sure.
    pub cgroup: Result<PathBuf, String>,
    /// In a native cluster: the processes that a start leaves running are kept together, so that they can be terminated
    /// and killed ([`Operation::Terminate`]). Holds a name that tells this daemon from any other on the machine.
    pub keep_kin: Option<String>,
    /// Where operations are noted while they last ([`orphans::DIRECTORY`] in the run directory), so that the next
    /// daemon finds those that outlive this one.
    pub notes: Option<PathBuf>,
    /// Takes the notes for the log.
    pub tell: NoteSink,
}

impl AgentOptions {
    /// The directories of an ordinary system, no parameters.
    #[must_use]
    pub fn new(config_dir: &Path, tell: NoteSink) -> Self {
        Self {
            roots: Roots::system(config_dir),
            prefer_scripts: false,
            parameters: BTreeMap::new(),
            fifo: None,
            cgroup: cgroup::delegated(),
            keep_kin: None,
            notes: None,
            tell,
        }
    }

    fn cgroup_path(&self) -> Option<PathBuf> {
        self.cgroup.clone().ok()
    }
}

/// The agents of one configuration. Cheap to clone.
#[derive(Clone)]
pub struct Agents(Arc<AgentsShared>);

struct AgentsShared {
    host_config: Arc<HostConfig>,
    options: AgentOptions,
    environment: BTreeMap<String, String>,
    /// The native resources that were started by us and leave no trace in the system.
    started: Mutex<BTreeSet<ResourceId>>,
    /// The warnings that were already given.
    warned: Mutex<BTreeSet<String>>,
}

impl Agents {
    /// Agents for the resources of this configuration.
    #[must_use]
    pub fn new(host_config: Arc<HostConfig>, options: AgentOptions) -> Self {
        let environment = environment::for_scripts(&host_config, &options);
        Self(Arc::new(AgentsShared {
            host_config,
            options,
            environment,
            started: Mutex::default(),
            warned: Mutex::default(),
        }))
    }

    /// The host config of the resources that they run.
    #[must_use]
    pub fn host_config(&self) -> &Arc<HostConfig> {
        &self.0.host_config
    }

    /// Why control groups do not keep together what the agents start; `None` if there are no groups.
    #[must_use]
    pub fn control_groups_missing(&self) -> Option<String> {
        self.0.options.cgroup.clone().err().filter(|_| !self.0.host_config.groups.is_empty())
    }

    /// Whether the resource is an address that the heart carries itself. [`Agents::run`] must not be called for it.
    #[must_use]
    pub fn is_hearts(&self, id: ResourceId) -> bool {
        let agent = &self.0.host_config.resource(id).agent;
        matches!(agent, Agent::Address(_) | Agent::SendArp(_)) && !self.0.options.prefer_scripts
    }

    /// Runs one operation and returns how it ended. A start or stop ends with [`Outcome::Ok`], `Failed` or `TimedOut`;
    /// a status with `Running`, `Stopped`, `Unknown` or `TimedOut`; any of them with `Missing` if no agent can be run.
    /// The agent gets the epoch. Returns within the limit, but for the moment that killing takes. If the future is
    /// dropped before the end, the operation is killed.
    ///
    /// # Panics
    /// When the id was not made from this configuration.
    pub async fn run(
        &self,
        id: ResourceId,
        operation: Operation,
        limit: Duration,
        epoch: Option<&Epoch>,
    ) -> Outcome {
        let errand = AgentOperation {
            shared: &self.0,
            id,
            resource: self.0.host_config.resource(id),
            operation,
            epoch,
            deadline: Instant::now() + limit,
        };
        let found = errand.find().await;
        if matches!(operation, Operation::Terminate | Operation::Kill) {
            return match found {
                Ok(ResourceProgram::Unit { name, .. }) => unit::end(&errand, &name).await,
                // The agent may be missing; the processes are ended all the same.
                _ => ending::run(&errand).await,
            };
        }
        let found = match found {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let outcome = match found {
            ResourceProgram::Script { path, .. } => script::run(&errand, &path).await,
            ResourceProgram::Ocf { path, kind, provider, parameters } => {
                ocf::run(&errand, &path, &kind, &provider, &parameters).await
            }
            ResourceProgram::Unit { name, .. } => return unit::run(&errand, &name).await,
            ResourceProgram::Native { .. } => return native::run(&errand).await,
        };
        match (operation, outcome) {
            (Operation::Stop, Outcome::Ok) => ending::after_stop(&errand).await,
            (_, outcome) => outcome,
        }
    }

    /// The resources with scripts and OCF agents of which processes run that an earlier daemon has started, in a native
    /// cluster. Takes one look at all processes. If half of a service has died, its agent may say that nothing runs.
    /// Blocks.
    #[must_use]
    pub fn left_running(&self) -> BTreeSet<ResourceId> {
        let Some(name) = &self.0.options.keep_kin else { return BTreeSet::new() };
        let marked = processes::kin().unwrap_or_default();
        let cgroup = self.0.options.cgroup.as_deref().ok();
        let is_left = |kin: &Kin| {
            let in_group =
                |parent| !Scope::of_resource(parent, &kin.group, &kin.resource).processes().is_empty();
            marked.contains(&kin.mark) || cgroup.is_some_and(in_group)
        };
        let all = self.0.host_config.resources();
        all.filter(|(_, resource)| {
            matches!(resource.agent, Agent::Script | Agent::Ocf { .. } | Agent::OcfFile { .. })
        })
        .filter(|(id, resource)| is_left(&kin_of(name, &self.0.host_config, *id, resource)))
        .map(|(id, _)| id)
        .collect()
    }

    /// Ends the operations that an earlier daemon began and that are still under way. Returns their resources, whose
    /// state is unknown.
    pub async fn end_orphans(&self) -> Vec<ResourceId> {
        let Some(notes) = self.0.options.notes.clone() else { return Vec::new() };
        let cgroup = self.0.options.cgroup_path();
        let ended = spawn_blocking(move || orphans::end(&notes, cgroup.as_deref())).await;
        let tell = |group, level, text| (self.0.options.tell)(Note { level, group, epoch: None, text });
        let orphans = match ended {
            Ok(Ok(orphans)) => orphans,
            Ok(Err(fault)) => {
                let text =
                    format!("operations: cannot be noted, so a later daemon will not find them: {fault}");
                tell(None, Level::Warning, text);
                return Vec::new();
            }
            Err(fault) => {
                tell(
                    None,
                    Level::Error,
                    format!("operations of an earlier daemon: cannot be ended: {fault}"),
                );
                return Vec::new();
            }
        };
        let mut whose = Vec::new();
        for orphan in orphans {
            let id = self.resource(&orphan.resource);
            let name = id.map_or(orphan.resource.as_str(), |id| self.0.host_config.name(id));
            let (level, end) = match orphan.is_gone {
                true => (Level::Warning, "killed with all its processes"),
                false => {
                    (Level::Critical, "it cannot be killed; end its processes by hand or reboot this node")
                }
            };
            let group = id.map(|id| self.0.host_config.groups[id.group.0].key.clone());
            tell(group, level, format!("{name}: an operation of an earlier daemon was still running: {end}"));
            whose.extend(id);
        }
        whose
    }

    /// The resource with this text, if the configuration still has it.
    fn resource(&self, text: &str) -> Option<ResourceId> {
        self.0.host_config.groups.iter().enumerate().find_map(|(group, g)| {
            let member = g.resources.iter().position(|resource| resource.text == text)?;
            Some(ResourceId { group: GroupIndex(group), member })
        })
    }

    /// Logs something about a resource's group that does not belong to an ownership: none is known of the things that
    /// an earlier daemon left.
    pub(super) fn note(&self, id: ResourceId, level: Level, text: String) {
        let group = Some(self.0.host_config.groups[id.group.0].key.clone());
        (self.0.options.tell)(Note { level, group, epoch: None, text });
    }
}

/// `name` is that of this daemon.
fn kin_of(name: &str, host_config: &HostConfig, id: ResourceId, resource: &Resource) -> Kin {
    let group = host_config.groups[id.group.0].key.clone();
    let resource = resource.text.clone();
    Kin { mark: format!("{name}/{group}/{resource}"), group, resource }
}

/// One operation under way.
struct AgentOperation<'a> {
    shared: &'a AgentsShared,
    id: ResourceId,
    resource: &'a Resource,
    operation: Operation,
    epoch: Option<&'a Epoch>,
    deadline: Instant,
}

impl AgentOperation<'_> {
    /// Finds the program of the resource. Looks on the disk each time, so changes made while the daemon runs count from
    /// the next operation on.
    async fn find(&self) -> Result<ResourceProgram, Outcome> {
        let (roots, resource) = (self.shared.options.roots.clone(), self.resource.clone());
        let prefer_scripts = self.shared.options.prefer_scripts;
        let found = self.call(move || find(&roots, &resource, prefer_scripts)).await?;
        let found = found.map_err(|missing| Outcome::Missing(missing.to_string()))?;
        if let Some(warning) = found.warning()
            && self.shared.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(warning.clone())
        {
            self.speaker().say(Level::Warning, warning);
        }
        Ok(found)
    }

    /// Makes a call that may hang, within the limit.
    async fn call<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Outcome> {
        let answer =
            timeout_at(self.deadline, call(self.whose(), work)).await.map_err(|_| Outcome::TimedOut)?;
        answer.map_err(|fault| self.bad(fault.to_string()))
    }

    /// The name under which calls are counted as hanging: while an operation of a resource hangs, it is not begun
    /// again, but the resource's other operations are.
    fn whose(&self) -> String {
        let group = &self.shared.host_config.groups[self.id.group.0].key;
        format!("{group}: {} {}", self.resource.text, self.operation.verb())
    }

    /// The outcome for an operation that did not go well and ended with this report.
    fn failed(&self, report: &ProgramReport) -> Outcome {
        match &report.end {
            ProgramEnd::TimedOut => Outcome::TimedOut,
            ProgramEnd::CannotRun(reason) => Outcome::Missing(reason.clone()),
            _ => self.bad(report.complaint()),
        }
    }

    /// The outcome for an operation that did not go well.
    fn bad(&self, reason: String) -> Outcome {
        match self.operation {
            Operation::Status => Outcome::Unknown(reason),
            _ => Outcome::Failed(reason),
        }
    }

    /// The outcome of a start or stop whose exit code decides.
    fn by_exit_code(&self, report: &ProgramReport) -> Outcome {
        match report.end {
            ProgramEnd::Exited(0) => Outcome::Ok,
            _ => self.failed(report),
        }
    }

    fn speaker(&self) -> Speaker {
        Speaker {
            tell: Arc::clone(&self.shared.options.tell),
            group: Some(self.shared.host_config.groups[self.id.group.0].key.clone()),
            epoch: self.epoch.cloned(),
            label: format!("{} {}", self.shared.host_config.name(self.id), self.operation.verb()),
        }
    }

    /// The job that runs a program for this operation, with the environment of resource scripts.
    fn job(&self, program: &Path, args: impl IntoIterator<Item = impl Into<String>>) -> ProgramJob {
        let mut environment = self.shared.environment.clone();
        environment.extend(self.epoch.map(|epoch| (EPOCH.to_owned(), epoch.as_str().to_owned())));
        ProgramJob {
            program: program.to_path_buf(),
            args: args.into_iter().map(Into::into).collect(),
            environment,
            input: None,
            speaker: self.speaker(),
            level: if self.operation == Operation::Status { Level::Debug } else { Level::Info },
            deadline: self.deadline,
            cgroup: self.shared.options.cgroup_path(),
            kin: self.kin().filter(|_| self.operation == Operation::Start),
            resource: self.resource.text.clone(),
            whose: self.whose(),
            // A status changes nothing, whenever it ends.
            notes: self.shared.options.notes.clone().filter(|_| self.operation != Operation::Status),
            service: None,
        }
    }

    /// Keeps together the processes that this resource's starts leave running, in a native cluster.
    fn kin(&self) -> Option<Kin> {
        let name = self.shared.options.keep_kin.as_ref()?;
        Some(kin_of(name, &self.shared.host_config, self.id, self.resource))
    }

    /// Whether it works for a native cluster.
    fn is_native(&self) -> bool {
        self.shared.options.keep_kin.is_some()
    }

    /// A program of the system, or the outcome if it is missing.
    fn program(&self, name: &str) -> Result<PathBuf, Outcome> {
        self.shared
            .options
            .roots
            .program(name)
            .ok_or_else(|| self.bad(format!("the program {name} is not installed")))
    }

    /// The resources that count as started, for native agents that leave no trace in the system.
    fn started(&self) -> std::sync::MutexGuard<'_, BTreeSet<ResourceId>> {
        self.shared.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
