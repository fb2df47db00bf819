//! The lower rungs of the ladder that stops a resource: the processes that its starts have left running are told to
//! terminate, or killed. They are found by their control group and by their mark, so that neither a daemon with its own
//! session nor one that has left the control group escapes.

use std::{collections::BTreeSet, time::Duration};

use locum_core::model::{action::Operation, event::Outcome, note::Level};
use locum_sys::process::Process;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    AgentOperation,
    cgroup::Scope,
    job::Kin,
    processes::{all, describe, is_kin, kin},
};
use crate::control::errands::call;

/// The pause between two looks at the processes that are left.
const PAUSE: Duration = Duration::from_millis(20);
/// A look takes no longer, unless a process that is looked at hangs.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How long processes have to end by themselves after their agent has returned.
const LEAVING_MAX: Duration = Duration::from_secs(2);
/// How many of the remaining processes are named.
const NAMED_MAX: usize = 5;

/// Tells the processes to terminate, or kills them, until none is left.
pub(super) async fn run(errand: &AgentOperation<'_>) -> Outcome {
    let Some(mut family) = ResourceProcesses::of(errand) else {
        return errand.bad("the processes that its starts have left running are not known".to_owned());
    };
    loop {
        // The last look is finished, because it names the processes that are left.
        let round = timeout_at(errand.deadline + LOOK_LIMIT, call(errand.whose(), move || family.round()));
        let (looked, left) = match round.await {
            Ok(Ok(round)) => round,
            Ok(Err(fault)) => return errand.bad(fault.to_string()),
            Err(_) => return Outcome::TimedOut,
        };
        family = looked;
        if left.is_empty() {
            // A resource without processes has nothing else left, either.
            errand.started().remove(&errand.id);
            return Outcome::Ok;
        }
        if Instant::now() >= errand.deadline {
            errand.speaker().say(Level::Warning, format!("still there: {}", names(&left)));
            return Outcome::TimedOut;
        }
        sleep(PAUSE).await;
    }
}

/// Checks a stop that the agent calls done, in a native cluster. If processes of the resource go on, the stop has
/// failed, and the ladder goes on. Otherwise half of a service that died would hold its port, or write to a disk that
/// another node has mounted.
pub(super) async fn after_stop(errand: &AgentOperation<'_>) -> Outcome {
    let Some(mut family) = ResourceProcesses::of(errand) else { return Outcome::Ok };
    let patience = errand.deadline.min(Instant::now() + LEAVING_MAX);
    let last = patience + LOOK_LIMIT;
    loop {
        let look = call(errand.whose(), move || {
            let found = family.left();
            (family, found)
        });
        // It cannot be known, so the agent is believed.
        let Ok(Ok((looked, left))) = timeout_at(last, look).await else { return Outcome::Ok };
        family = looked;
        if left.is_empty() {
            return Outcome::Ok;
        }
        if Instant::now() >= patience {
            return errand.bad(format!(
                "its agent reports it stopped, but these processes are left: {}",
                names(&left)
            ));
        }
        sleep(PAUSE).await;
    }
}

fn names(processes: &BTreeSet<u32>) -> String {
    let names: Vec<String> = processes.iter().take(NAMED_MAX).map(|pid| describe(*pid)).collect();
    let more = if processes.len() > NAMED_MAX { " and others" } else { "" };
    format!("{}{more}", names.join(", "))
}

/// The processes that a resource's starts have left.
struct ResourceProcesses {
    scope: Option<Scope>,
    kin: Kin,
    kill: bool,
    /// The processes that were told to terminate: a second signal makes some daemons drop everything.
    terminated: BTreeSet<u32>,
}

impl ResourceProcesses {
    /// `None` with heartbeat's files, where these processes are not known.
    fn of(errand: &AgentOperation<'_>) -> Option<Self> {
        let kin = errand.kin()?;
        let parent = errand.shared.options.cgroup.as_deref().ok();
        Some(Self {
            scope: parent.map(|parent| Scope::of_resource(parent, &kin.group, &kin.resource)),
            kin,
            kill: errand.operation == Operation::Kill,
            terminated: BTreeSet::new(),
        })
    }

    /// Signals every process of the family, and returns those that are left.
    fn round(mut self) -> (Self, BTreeSet<u32>) {
        if self.kill
            && let Some(scope) = &self.scope
        {
            // Kernels before 5.14 cannot do this; then one after the other is signalled, as below.
            let _ = scope.kill();
        }
        let found = self.find();
        for pid in &found {
            if self.kill || self.terminated.insert(*pid) {
                // While it is held its number cannot pass to another process, so the second look is final.
                let _ = Process::open(*pid).and_then(|held| match self.is_member(*pid) {
                    true if self.kill => held.kill(),
                    true => held.terminate(),
                    false => Ok(()),
                });
            }
        }
        (self, found)
    }

    /// As [`Self::find`], for callers that ask at every stop. It looks in the control group alone if there is one, else
    /// once at all processes for all who ask at the same time.
    fn left(&self) -> BTreeSet<u32> {
        match &self.scope {
            Some(scope) => scope.processes(),
            None if kin().is_some_and(|kin| kin.contains(&self.kin.mark)) => self.find(),
            None => BTreeSet::new(),
        }
    }

    fn find(&self) -> BTreeSet<u32> {
        let mut found = self.scope.as_ref().map(Scope::processes).unwrap_or_default();
        found.extend(all().into_iter().filter(|pid| is_kin(*pid, &self.kin.mark)));
        found.retain(|pid| *pid != 1 && *pid != std::process::id());
        found
    }

    fn is_member(&self, pid: u32) -> bool {
        is_kin(pid, &self.kin.mark)
            || self.scope.as_ref().is_some_and(|scope| scope.processes().contains(&pid))
    }
}
