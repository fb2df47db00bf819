//! The lower rungs of the ladder that stops a resource: what its starts have left running is told to terminate, or
//! killed. It is found by its control group and by its mark, so that neither a daemon of its own session nor one that has
//! left the group gets away.

use std::{collections::BTreeSet, time::Duration};

use locum_core::{action::Operation, event::Outcome, note::Level};
use locum_sys::process::Process;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Errand,
    cgroup::Scope,
    job::Kin,
    processes::{all, describe, is_kin},
};
use crate::control::errands::call;

/// Between two looks at who is left.
const PAUSE: Duration = Duration::from_millis(20);
/// A look takes no longer, unless a process that is looked at hangs.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How many of those that are left are named.
const NAMED_MAX: usize = 5;

pub(super) async fn run(errand: &Errand<'_>) -> Outcome {
    let Some(kin) = errand.kin() else {
        return errand.bad("what its starts have left running is not known".to_owned());
    };
    let mut family = Family {
        scope: errand
            .shared
            .options
            .cgroup
            .as_deref()
            .ok()
            .map(|parent| Scope::of_resource(parent, &kin.group, &kin.resource)),
        kin,
        kill: errand.operation == Operation::Kill,
        told: BTreeSet::new(),
    };
    loop {
        // The last look goes on to its end, which names those that are left.
        let round = timeout_at(errand.deadline + LOOK_LIMIT, call(errand.whose(), move || family.round()));
        let (looked, left) = match round.await {
            Ok(Ok(round)) => round,
            Ok(Err(fault)) => return errand.bad(fault.to_string()),
            Err(_) => return Outcome::TimedOut,
        };
        family = looked;
        if left.is_empty() {
            // What has no processes at all has nothing else left, either.
            errand.started().remove(&errand.id);
            return Outcome::Ok;
        }
        if Instant::now() >= errand.deadline {
            let names: Vec<String> = left.iter().take(NAMED_MAX).map(|pid| describe(*pid)).collect();
            let more = if left.len() > NAMED_MAX { " and others" } else { "" };
            errand.speaker().say(Level::Warning, format!("still there: {}{more}", names.join(", ")));
            return Outcome::TimedOut;
        }
        sleep(PAUSE).await;
    }
}

/// Whom a resource's starts have left.
struct Family {
    scope: Option<Scope>,
    kin: Kin,
    kill: bool,
    /// Who has been told to terminate: a second word makes some daemons drop everything.
    told: BTreeSet<u32>,
}

impl Family {
    /// Signals everybody and says who is there.
    fn round(mut self) -> (Self, BTreeSet<u32>) {
        if self.kill
            && let Some(scope) = &self.scope
        {
            // Kernels before 5.14 cannot; then one after the other, as below.
            let _ = scope.kill();
        }
        let found = self.find();
        for pid in &found {
            if self.kill || self.told.insert(*pid) {
                // Held, it cannot become another one; so the second look is final.
                let _ = Process::open(*pid).and_then(|held| match self.is_member(*pid) {
                    true if self.kill => held.kill(),
                    true => held.terminate(),
                    false => Ok(()),
                });
            }
        }
        (self, found)
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
