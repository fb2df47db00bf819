//! A native plan's groups in the form that [`crate::group`] takes.

use alloc::{format, vec::Vec};

use super::plan::{Group, Plan, Resource, Restarts};
use crate::group::{self, FailedStop, Limits, Member, Spec};

impl Plan {
    /// The specifications of all groups, in the order of the plan.
    #[must_use]
    pub fn specs(&self) -> Vec<Spec> {
        self.groups.iter().map(spec).collect()
    }
}

fn spec(Group { name, resources, restarts: Restarts { in_place, within }, .. }: &Group) -> Spec {
    let texts: Vec<&str> = resources.iter().map(|resource| resource.runs.text.as_str()).collect();
    Spec {
        key: name.clone(),
        line: format!("{name} {}", texts.join(" ")),
        members: resources.iter().map(|resource| member(resource, resources)).collect(),
        restarts: group::Restarts { in_place: *in_place, within: *within },
    }
}

fn member(Resource { runs, limits, monitor_every }: &Resource, group: &[Resource]) -> Member {
    let group = group.iter().map(|resource| &resource.runs);
    let limits_of_group = Limits { start: limits.start, stop: limits.stop, status: limits.monitor };
    let member = Member::new(runs, group, limits_of_group);
    // An address has no processes to kill. Its stop is one request to the kernel, which can only be repeated.
    let failed_stop = match member.is_carried {
        true => FailedStop::TryAgain,
        false => FailedStop::Ladder { terminate: limits.terminate },
    };
    Member { monitor_every: *monitor_every, failed_stop, ..member }
}
