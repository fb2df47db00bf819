//! Compares two plans: what a running daemon can and cannot take over from changed files.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{diag::shown, value::Shown};
use crate::r1::plan::{R1Group, R1Plan};

/// The differences between the running plan and the plan of the present files, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// A reload in place takes these over; all groups run on ([`crate::model::order::Order::Reload`]).
    pub reload: Vec<String>,
    /// These change where groups run: the daemon must leave the cluster and come back.
    pub restart: Vec<String>,
}

impl Changes {
    /// Compares the running plan with the new one.
    #[must_use]
    pub fn between(old: &R1Plan, new: &R1Plan) -> Self {
        Self { reload: reload(old, new), restart: restart(old, new) }
    }
}

fn restart(old: &R1Plan, new: &R1Plan) -> Vec<String> {
    let mut changes = Vec::new();
    let mut differs = |old: String, new: String| {
        if old != new {
            changes.push(format!("node: {old} runs, the file says {new}"));
        }
    };
    differs(names(&old.nodes), names(&new.nodes));
    differs(shown(&old.nodes[old.me.0]), shown(&new.nodes[new.me.0]));
    lists("group", &old.groups, &new.groups, |group| shown(&group.key), &mut changes);
    // Groups are started in the order of the file, so moved lines are a change, too.
    let order = |groups: &[R1Group]| groups.iter().map(|group| group.key.clone()).collect::<Vec<_>>();
    if changes.is_empty() && order(&old.groups) != order(&new.groups) {
        changes.push("haresources: the lines are in another order".into());
    }
    changes
}

fn reload(old: &R1Plan, new: &R1Plan) -> Vec<String> {
    let mut changes = Vec::new();
    let mut differs = |what: &str, old: String, new: String| {
        if old != new {
            changes.push(format!("{what}: {old} runs, the file says {new}"));
        }
    };
    differs("cluster", shown(&old.cluster), shown(&new.cluster));
    for (what, old, new) in [
        ("keepalive", old.timing.keepalive, new.timing.keepalive),
        ("warntime", old.timing.warntime, new.timing.warntime),
        ("deadtime", old.timing.deadtime, new.timing.deadtime),
        ("initdead", old.timing.initdead, new.timing.initdead),
        ("deadping", old.timing.deadping, new.timing.deadping),
        ("max_rexmit_delay", old.framing.rexmit_delay_max, new.framing.rexmit_delay_max),
    ] {
        differs(what, Shown(old).to_string(), Shown(new).to_string());
    }
    let failback = |plan: &R1Plan| format!("{:?}", plan.auto_failback).to_lowercase();
    differs("auto_failback", failback(old), failback(new));
    let format_of = |plan: &R1Plan| if plan.framing.inner_auth { "classic" } else { "netstring" }.to_string();
    differs("msgfmt", format_of(old), format_of(new));
    let ttl = |plan: &R1Plan| plan.framing.ttl.to_string();
    if old.nodes.len() + old.pings.len() == new.nodes.len() + new.pings.len() {
        differs("hopfudge (ttl of frames)", ttl(old), ttl(new));
    }
    let generation = |plan: &R1Plan| format!("{:?}", plan.generation).to_lowercase();
    differs("hbgenmethod", generation(old), generation(new));
    let realtime =
        |plan: &R1Plan| plan.realtime.map_or("off".into(), |priority| format!("priority {priority}"));
    differs("realtime", realtime(old), realtime(new));
    lists("link", &old.links, &new.links, |link| shown(&link.name), &mut changes);
    lists("ping node", &old.pings, &new.pings, |ping| shown(&ping.name), &mut changes);
    for (what, differ) in [
        ("stonith", old.fencing != new.fencing),
        ("respawn and failfast", old.clients != new.clients || old.ipfail != new.ipfail),
        ("watchdog", old.watchdog != new.watchdog),
    ] {
        if differ {
            changes.push(format!("{what}: the file says something else now"));
        }
    }
    if old.logging != new.logging {
        changes.push("log settings of ha.cf".into());
    }
    changes
}

/// The entries that were added, removed or changed in a list of named items.
fn lists<T: PartialEq>(
    what: &str,
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> String,
    changes: &mut Vec<String>,
) {
    for one in old {
        match new.iter().find(|other| name(other) == name(one)) {
            None => changes.push(format!("{what} {}: runs, but is no longer in the file", name(one))),
            Some(other) if other != one => {
                changes.push(format!("{what} {}: the file says something else now", name(one)))
            }
            Some(_) => {}
        }
    }
    for one in new.iter().filter(|one| old.iter().all(|other| name(other) != name(one))) {
        changes.push(format!("{what} {}: is new in the file", name(one)));
    }
}

fn names(nodes: &[String]) -> String {
    nodes.iter().map(|node| shown(node)).collect::<Vec<_>>().join(" ")
}
