//! The native dialect in the control plane: reads its files and reads them again, makes the member's identity for a
//! run, and translates people's orders.

use std::{collections::BTreeMap, path::Path};

use locum_core::{
    config::{self, Changes, Diag, FileName},
    model::{
        identity::{GroupIndex, MemberIndex, NodeIndex},
        note::{Escaped, Level},
        order::{NativeOrder, Order},
        settings::{self, SettingDifference},
    },
    native::{
        director,
        plan::{NativeMember, NativePlan},
        wire::members::MemberTable,
    },
    r1::plan::GenerationSource,
};

use super::{
    daemon::{Config, Reread},
    dialect::{Identity, RunStart},
    ledger::Ledger,
    lifecycle::{self, Refused, Settings, Start},
    state::{StateDirs, cure},
};
use crate::{
    files::NativeFiles,
    heart::GateChoice,
    host,
    observe::{
        diagnostics,
        journal::Journal,
        socket::{GroupSet, OrderRequest, UserOrder},
    },
};

/// Reads the files for a daemon that starts. If they are invalid, everything that is wrong with them is reported.
///
/// # Errors
/// When a setting of the command line does not exist in this dialect.
pub(super) fn load(dir: &Path, settings: &Settings) -> anyhow::Result<Result<Start, Refused>> {
    anyhow::ensure!(
        !settings.prefer_scripts,
        "--prefer-scripts works only with ha.cf: the addresses of a native cluster stand behind gates, which \
         scripts cannot open"
    );
    anyhow::ensure!(
        settings.gates != GateChoice::None,
        "--gates none works only with ha.cf: in locum.toml give a group guard none, and it runs without a gate \
         where none is possible"
    );
    let files = NativeFiles::read_them(dir, None);
    let mut checked = files.check();
    let misfits = host::native_misfits(dir, checked.file.clone());
    let failed = config::failed(&checked.file.diags);
    let (Some(plan), Some(keys), false) = (checked.file.plan.take(), checked.keys.take(), failed) else {
        let text = |name| if name == FileName::LocumToml { files.text() } else { None };
        let here_alone = diagnostics::complain_of(&checked.file.diags, dir, text);
        return Ok(Err(Refused::by_files(dir, here_alone)));
    };
    let config =
        Config { plan: complete(plan, settings), parameters: BTreeMap::new(), diags: checked.file.diags };
    Ok(Ok(Start { config, keys, misfits }))
}

/// HUP: reads the files again, and reports faults that were not known at the start.
pub(super) fn reread(dir: &Path, settings: &Settings, known: &[Diag], journal: &Journal) -> Reread {
    let checked = NativeFiles::read_them(dir, None).check();
    let diags = checked.file.diags;
    lifecycle::report_new_faults(&diags, known, journal);
    let good = !config::failed(&diags);
    let config = checked.file.plan.filter(|_| good).map(|plan| Config {
        plan: complete(plan, settings),
        parameters: BTreeMap::new(),
        diags,
    });
    Reread { keys: checked.keys, config, losses: None }
}

/// The plan with the settings of the command line.
fn complete(mut plan: NativePlan, settings: &Settings) -> super::dialect::Plan {
    if settings.no_realtime {
        plan.local.realtime = None;
    }
    settings.complete_log(&mut plan.local.logging);
    super::dialect::Plan::Native(plan.into())
}

/// Begins a run of the member. Its generation is above every one that the member is known to have used, by its state
/// and by its ledger, and above the clock: if one of the three is lost or goes back, the others carry it on.
pub(super) fn begin(
    state: &StateDirs,
    plan: &NativePlan,
    now: u64,
    say: impl Fn(Level, String),
) -> anyhow::Result<RunStart> {
    let members = MemberTable::of(plan);
    let me = plan.name(plan.me);
    let lived = state.generation_of(me);
    let place = state.directory();
    let (mut ledger, found) = Ledger::open(place, &plan.cluster, me, members.clone(), lived);
    if let Some((level, text)) = found.note {
        say(level, text);
    }
    let above = lived.unwrap_or(0).max(found.generation) + 1;
    let generation = above.max(now);
    // The ledger comes first: it must never look older than the run that wrote it.
    ledger.begin(generation, found.durable.as_ref()).map_err(|error| {
        anyhow::anyhow!("the ledger in {} cannot be written: {error}{}", place.display(), cure(&error))
    })?;
    let generation = state.next_generation(me, GenerationSource::Time, generation)?;
    let heard = (0..plan.nodes.len() + plan.witnesses.len()).filter_map(|index| {
        let member = MemberIndex::at(index);
        let name = members.name(member)?;
        Some((member, state.heard_of(name).filter(|_| name != me)?))
    });
    let identity = director::NativeIdentity {
        generation,
        ledger: found.durable,
        heard: heard.collect(),
        stop_failed: Vec::new(),
        seed: lifecycle::seed(),
    };
    Ok(RunStart { identity: Identity::Native(identity), ledger: Some(ledger) })
}

/// How the log begins.
pub(super) fn greeting(plan: &NativePlan) -> String {
    let kind = if matches!(plan.me, NativeMember::Node(_)) { "node" } else { "witness" };
    let (me, cluster, version) = (plan.name(plan.me), &plan.cluster, env!("CARGO_PKG_VERSION"));
    format!("starting locum {version} as {kind} {me} of cluster {cluster}")
}

/// A permanent warning about this cluster, if there is one.
pub(super) fn warning(plan: &NativePlan) -> Option<&'static str> {
    plan.may_use_single_vote().then_some(
        "there is no third voter: a node takes over after one lease of silence, so in a partition both nodes run \
         every group; add a witness on a third machine: `locum witness add`",
    )
}

/// The configuration in one line.
pub(super) fn summary(plan: &NativePlan) -> String {
    let names = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let nodes = plan.nodes.iter().map(|node| node.name.as_str()).collect();
    let voters = plan.voters.iter().map(|voter| plan.name(*voter)).collect();
    let links = plan.links.iter().map(|link| link.name.as_str()).collect();
    let groups: Vec<String> =
        plan.groups.iter().map(|group| format!("{} (guard {})", group.name, group.guard)).collect();
    let times = &plan.timing;
    format!(
        "nodes {}; voters {}; links {}; pace {:?}, beat {:?}; groups: {}",
        names(nodes),
        names(voters),
        names(links),
        times.lease,
        times.beat,
        if groups.is_empty() { "none".to_owned() } else { groups.join(", ") }
    )
}

/// The differences in a file that was read again.
pub(super) fn changes(old: &NativePlan, new: &NativePlan) -> Changes {
    let says = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
    let differences = settings::summary(&old.canonical_settings(), &new.canonical_settings());
    let line = |difference: &SettingDifference| {
        let SettingDifference { name, ours, theirs } = difference;
        format!("{name}: the daemon uses {}, the file says {}", says(ours), says(theirs))
    };
    let mut restart: Vec<String> = differences.iter().map(line).collect();
    if old.local != new.local {
        restart.push("[local]".to_owned());
    }
    Changes { restart, ..Changes::default() }
}

/// Translates a person's request into an order.
///
/// # Errors
/// Why it cannot be translated, with the possible values.
pub(super) fn order(
    plan: &NativePlan,
    OrderRequest { user_order: wish, user }: &OrderRequest,
) -> Result<Order, String> {
    let group = |name: &str| -> Result<GroupIndex, String> {
        let names = || plan.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(" ");
        plan.group(name).ok_or_else(|| {
            format!("there is no group {}; the groups are: {}", Escaped(name.as_bytes()), names())
        })
    };
    let node = |name: &str| -> Result<NodeIndex, String> {
        let names = || plan.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" ");
        match plan.member(&name.to_lowercase()) {
            Some(NativeMember::Node(node)) => Ok(node),
            Some(NativeMember::Witness(_)) => Err(format!("{name} is a witness, which runs no groups")),
            None => Err(format!("there is no node {}; the nodes are: {}", Escaped(name.as_bytes()), names())),
        }
    };
    let order = match wish {
        UserOrder::Standby(GroupSet::All) => NativeOrder::Standby,
        UserOrder::Standby(_) | UserOrder::Takeover(_) => {
            return Err(
                "a cluster with locum.toml has no sets of groups: type `locum move GROUP NODE`".into()
            );
        }
        UserOrder::Online => NativeOrder::Online,
        UserOrder::Maintenance { on } => NativeOrder::Maintenance(*on),
        UserOrder::Freeze { group: name, on } => NativeOrder::Freeze(group(name)?, *on),
        UserOrder::Move { group: name, to } => {
            NativeOrder::Move(group(name)?, to.as_deref().map(node).transpose()?)
        }
        UserOrder::Leave => return Ok(Order::Leave),
    };
    Ok(Order::Native { order, user: *user })
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, path::PathBuf};

    use locum_core::{config::locum_toml, model::claim::DurableState};

    use super::*;

    const YEAR: u64 = 365 * 86_400;
    const NOW: u64 = 1_795_334_146;

    /// Makes one run after another on one state directory.
    struct MemberRuns {
        directory: tempfile::TempDir,
        plan: NativePlan,
        notes: RefCell<Vec<String>>,
    }

    impl MemberRuns {
        fn new() -> Self {
            let file = b"cluster = 'shop'\nnodes.a.links.x = '10.0.0.1'\nnodes.b.links.x = '10.0.0.2'\n\
                witnesses.c.address = '10.0.0.3'\n";
            let plan = locum_toml::check(file, "a").plan.unwrap();
            Self { directory: tempfile::tempdir().unwrap(), plan, notes: RefCell::default() }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("state")
        }

        /// One run of the member, which writes this ledger, if any.
        fn live(&self, now: u64, ledger: Option<u64>) -> (u64, Option<DurableState>) {
            let state = StateDirs::open(&self.path(), &self.directory.path().join("run")).unwrap();
            let say = |_, text| self.notes.borrow_mut().push(text);
            let birth = begin(&state, &self.plan, now, say).unwrap();
            if let Some(ceiling) = ledger {
                let durable = DurableState { ceiling, ..DurableState::default() };
                birth.ledger.unwrap().write(&durable).unwrap();
            }
            match birth.identity {
                Identity::Native(identity) => (identity.generation, identity.ledger),
                Identity::R1(_) => panic!("the other dialect"),
            }
        }
    }

    #[test]
    fn no_clock_and_no_lost_file_makes_a_generation_fall() {
        let lives = MemberRuns::new();
        let mut last = 0;
        let mut above = |now, ledger| {
            let (generation, found) = lives.live(now, ledger);
            assert!(generation > last, "{generation} after {last}");
            last = generation;
            found
        };
        above(NOW, None);
        above(NOW, Some(7));
        assert!(above(NOW + YEAR, None).is_some());
        assert!(above(NOW - YEAR, None).is_some());
        for name in ["hb_generation", "locum_generations"] {
            std::fs::remove_file(lives.path().join(name)).unwrap();
        }
        assert!(above(0, None).is_some(), "the ledger knows it");
        for name in ["ledger-shop-a", "ledger-shop-b"] {
            let _ = std::fs::remove_file(lives.path().join(name));
        }
        assert!(above(0, None).is_none(), "and so does the state without a ledger");
        assert!(lives.notes.borrow().last().unwrap().contains("earlier runs is gone"));
    }

    #[test]
    fn a_ledger_that_was_put_back_is_not_believed() {
        let lives = MemberRuns::new();
        lives.live(NOW, Some(7));
        lives.live(NOW + 1, None);
        let copy = |from: &Path, to: &Path| {
            std::fs::create_dir_all(to).unwrap();
            for name in ["ledger-shop-a", "ledger-shop-b"] {
                std::fs::copy(from.join(name), to.join(name)).unwrap();
            }
        };
        let kept = lives.directory.path().join("kept");
        copy(&lives.path(), &kept);
        assert!(lives.live(NOW + 2, Some(9)).1.is_some());
        copy(&kept, &lives.path());
        assert_eq!(lives.live(NOW + 3, None).1, None);
        assert!(lives.notes.borrow().last().unwrap().contains("an old copy"));
    }
}
