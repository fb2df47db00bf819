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
        director::Identity,
        plan::{Limits, Plan},
    },
};

use super::{
    daemon::{Config, Reread},
    lifecycle::{self, Refused, Settings, Start},
    state::State,
};
use crate::{
    files::{self, Files},
    host,
    voice::{
        diagnostics,
        journal::Journal,
        socket::{Set, Wish},
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
    lifecycle::say_news(diags.iter().chain(&checked.diags), known, journal);
    let config = checked.plan.filter(|_| good).map(|plan| Config {
        plan: complete(plan, settings),
        parameters: checked.parameters,
        diags: checked.diags,
    });
    Reread { keys, config, losses: lifecycle::losses(dir, journal) }
}

/// The plan with the settings that `ha.cf` cannot express.
fn complete(mut plan: Plan, settings: &Settings) -> super::dialect::Plan {
    let Settings { start_limit: start, stop_limit: stop, status_limit: status, .. } = *settings;
    plan.limits = Limits { start, stop, status };
    if settings.no_realtime {
        plan.realtime = None;
    }
    settings.complete_log(&mut plan.logging);
    super::dialect::Plan::R1(plan.into())
}

/// The identity of this node in the run that begins.
pub(super) fn begin(state: &State, plan: &Plan) -> anyhow::Result<Identity> {
    let now = locum_sys::clock::unix_nanos() / 1_000_000_000;
    let me = &plan.nodes[plan.me.0];
    Ok(Identity {
        uuid: state.uuid()?,
        generation: match state.next_generation(me, plan.generation, now)? {
            _ if breakage::is(Breakage::GenerationFalls) => GENERATION_FALLS_FROM.saturating_sub(now),
            next => next,
        },
        peer_heard: plan.peer().and_then(|peer| state.heard_of(&plan.nodes[peer.0])),
        stuck: Vec::new(),
        keeps: None,
        seed: lifecycle::seed(),
    })
}

/// How the log begins.
pub(super) fn greeting(plan: &Plan) -> String {
    let node = &plan.nodes[plan.me.0];
    format!("Configuration validated. Starting heartbeat (locum {}) on {node}", env!("CARGO_PKG_VERSION"))
}

/// The configuration in one line.
pub(super) fn summary(plan: &Plan) -> String {
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
pub(super) fn order(wish: &Wish) -> Result<Order, String> {
    Ok(match wish {
        Wish::Standby(set) => Order::Standby(match set {
            Set::All => Holding::All,
            Set::Foreign | Set::Failback => Holding::Foreign,
            Set::Local => Holding::Local,
        }),
        Wish::Takeover(set) => Order::Takeover(match set {
            Set::All => Holding::All,
            Set::Foreign => Holding::Foreign,
            Set::Local | Set::Failback => Holding::Local,
        }),
        Wish::Leave => Order::Leave,
        Wish::Move { .. } => {
            return Err("a cluster with ha.cf moves sets of groups: `locum standby`, `locum takeover`".into());
        }
        Wish::Online | Wish::Maintenance { .. } | Wish::Freeze { .. } => {
            return Err("a cluster with ha.cf does not know this; one with locum.toml does".into());
        }
    })
}
