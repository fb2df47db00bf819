//! heartbeat's dialect in the control plane: reads its files and reads them again, makes the node's identity for a run,
//! and translates people's orders.

use std::path::Path;

use locum_core::{
    config::Diag,
    model::{
        breakage::{self, Breakage},
        holding::Holding,
        order::Order,
    },
    r1::{
        director::R1Identity,
        plan::{R1Limits, R1Plan},
    },
};

use super::{
    daemon::{Config, Reread},
    lifecycle::{self, Refused, Settings, Start},
    state::StateDirs,
};
use crate::{
    files::{self, Files},
    host,
    observe::{
        diagnostics,
        journal::Journal,
        socket::{GroupSet, UserOrder},
    },
};

/// Above every clock of these decades, and within the columns of the file.
const GENERATION_FALLS_FROM: u64 = 4_000_000_000;

/// Reads the files for a daemon that starts. If they are invalid, everything that is wrong with them is reported.
pub(super) fn load(dir: &Path, settings: &Settings) -> Result<Start, Refused> {
    let files = Files::read(dir, None);
    let mut checked = files.check();
    let misfits = host::misfits(&files.dir, settings.prefer_scripts, checked.clone());
    let (Some(plan), Some(keys), false) = (checked.plan.take(), checked.keys.take(), checked.failed()) else {
        return Err(Refused::by_files(dir, diagnostics::complain(&files, &checked)));
    };
    let plan = complete(plan, settings);
    Ok(Start { config: Config { plan, parameters: checked.parameters, diags: checked.diags }, keys, misfits })
}

/// HUP: reads the files again, and reports faults that were not known at the start. A fault in one file does not keep
/// the others from being used.
pub(super) fn reread(dir: &Path, settings: &Settings, known: &[Diag], journal: &Journal) -> Reread {
    let (keys, mut diags) = files::read_keys(dir);
    let checked = Files::read(dir, None).check();
    let good = !checked.failed();
    diags.retain(|diag| !checked.diags.contains(diag));
    lifecycle::report_new_faults(diags.iter().chain(&checked.diags), known, journal);
    let config = checked.plan.filter(|_| good).map(|plan| Config {
        plan: complete(plan, settings),
        parameters: checked.parameters,
        diags: checked.diags,
    });
    Reread { keys, config, losses: lifecycle::losses(dir, journal) }
}

/// The plan with the settings that `ha.cf` cannot express.
fn complete(mut plan: R1Plan, settings: &Settings) -> super::dialect::Plan {
    let Settings { start_limit: start, stop_limit: stop, status_limit: status, .. } = *settings;
    plan.limits = R1Limits { start, stop, status };
    if settings.no_realtime {
        plan.realtime = None;
    }
    settings.complete_log(&mut plan.logging);
    super::dialect::Plan::R1(plan.into())
}

/// The identity of this node in the run that begins.
pub(super) fn begin(state: &StateDirs, plan: &R1Plan) -> anyhow::Result<R1Identity> {
    let now = locum_sys::clock::unix_nanos() / 1_000_000_000;
    let me = &plan.nodes[plan.me.0];
    Ok(R1Identity {
        uuid: state.uuid()?,
        generation: match state.next_generation(me, plan.generation, now)? {
            _ if breakage::is(Breakage::GenerationFalls) => GENERATION_FALLS_FROM.saturating_sub(now),
            next => next,
        },
        peer_heard: plan.peer().and_then(|peer| state.heard_of(&plan.nodes[peer.0])),
        stop_failed: Vec::new(),
        keeps: None,
        seed: lifecycle::seed(),
    })
}

/// How the log begins.
pub(super) fn greeting(plan: &R1Plan) -> String {
    let node = &plan.nodes[plan.me.0];
    format!("Configuration validated. Starting heartbeat (locum {}) on {node}", env!("CARGO_PKG_VERSION"))
}

/// The configuration in one line.
pub(super) fn summary(plan: &R1Plan) -> String {
    let times = &plan.timing;
    let links: Vec<&str> = plan.links.iter().map(|link| link.name.as_str()).collect();
    let groups: Vec<String> = plan
        .groups
        .iter()
        .map(|group| format!("{} (prefers {})", group.key, plan.nodes[group.node.0]))
        .collect();
    format!(
        "nodes {}; links {}; keepalive {:?}, warntime {:?}, deadtime {:?}, initdead {:?}; auto_failback {}; groups: {}",
        plan.nodes.join(" "),
        links.join(" "),
        times.keepalive,
        times.warntime,
        times.deadtime,
        times.initdead,
        format!("{:?}", plan.auto_failback).to_lowercase(),
        if groups.is_empty() { "none".to_owned() } else { groups.join(", ") }
    )
}

/// Translates a person's request into an order.
///
/// # Errors
/// Why it cannot be translated, with the possible values.
pub(super) fn order(wish: &UserOrder) -> Result<Order, String> {
    Ok(match wish {
        UserOrder::Standby(set) => Order::Standby(match set {
            GroupSet::All => Holding::All,
            GroupSet::Foreign | GroupSet::Failback => Holding::Foreign,
            GroupSet::Local => Holding::Local,
        }),
        UserOrder::Takeover(set) => Order::Takeover(match set {
            GroupSet::All => Holding::All,
            GroupSet::Foreign => Holding::Foreign,
            GroupSet::Local | GroupSet::Failback => Holding::Local,
        }),
        UserOrder::Leave => Order::Leave,
        UserOrder::Move { .. } => {
            return Err(
                "a cluster with ha.cf moves sets of groups: type `locum standby` or `locum takeover`".into(),
            );
        }
        UserOrder::Online | UserOrder::Maintenance { .. } | UserOrder::Freeze { .. } => {
            return Err("a cluster with ha.cf does not have this command; it needs locum.toml".into());
        }
    })
}
