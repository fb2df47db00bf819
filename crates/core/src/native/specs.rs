//! A native plan's groups in the form that [`crate::group`] takes.

use alloc::{format, vec::Vec};

use super::plan::{NativeGroup, NativePlan, NativeResource, NativeRestarts};
use crate::group::{self, FailedStop, GroupMember, GroupSpec, OperationLimits};

impl NativePlan {
    /// The specifications of all groups, in the order of the plan.
    #[must_use]
    pub fn specs(&self) -> Vec<GroupSpec> {
        self.groups.iter().map(spec).collect()
    }
}

fn spec(
    NativeGroup { name, resources, restarts: NativeRestarts { in_place, within }, .. }: &NativeGroup,
) -> GroupSpec {
    let texts: Vec<&str> = resources.iter().map(|resource| resource.runs.text.as_str()).collect();
    GroupSpec {
        key: name.clone(),
        line: format!("{name} {}", texts.join(" ")),
        members: resources.iter().map(|resource| member(resource, resources)).collect(),
        restarts: group::RestartPolicy { in_place: *in_place, within: *within },
    }
}

fn member(
    NativeResource { runs, limits, monitor_every }: &NativeResource,
    group: &[NativeResource],
) -> GroupMember {
    let group = group.iter().map(|resource| &resource.runs);
    let limits_of_group = OperationLimits { start: limits.start, stop: limits.stop, status: limits.monitor };
    let member = GroupMember::new(runs, group, limits_of_group);
    // An address has no processes to kill. Its stop is one request to the kernel, which can only be repeated.
    let failed_stop = match member.is_carried {
        true => FailedStop::TryAgain,
        false => FailedStop::Ladder { terminate: limits.terminate },
    };
    GroupMember { monitor_every: *monitor_every, failed_stop, ..member }
}
