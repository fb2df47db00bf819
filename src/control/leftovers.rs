//! Leftovers: what an earlier life of the daemon left running. Before its first beat a daemon owns nothing, so every
//! address and service of its groups that is found then has no owner; the other node may have taken it over long ago.
//!
//! [`survey`] compares the kernel and the agents' answers with the plan; [`sweep`] stops what was found. Whether to
//! sweep is the caller's decision.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use locum_core::{
    action::Operation,
    event::Outcome,
    group::KILL_LIMIT,
    note::Level,
    plan::{Address, Agent, ResourceId},
};
use locum_sys::{
    clock, gate,
    netlink::{InterfaceAddress, Netlink, interface_name},
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::agents::Agents;
use crate::{
    duties::{self, Duties},
    heart::places_of,
};

/// Agents asked at the same time.
const ASKED_MAX: usize = 16;
/// As often, and with the same pause, as the core tries it.
const STOP_TRIES: u32 = 10;
const STOP_PAUSE: Duration = Duration::from_secs(1);

/// The service addresses on this machine. Calls are short.
pub trait Addresses: Send + Sync {
    /// Whether the address stands on an interface where it would be ours, whoever put it there.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn stands(&self, address: &Address) -> io::Result<bool>;

    /// Where it stands there and Locum did not put it: as a person would name the place.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn foreign(&self, address: &Address) -> io::Result<Option<String>>;

    /// Takes it off there if Locum put it there. One that does not stand is no error.
    ///
    /// # Errors
    /// What the kernel says.
    fn remove(&self, address: &Address) -> io::Result<()>;
}

/// What was found: a resource, and what its agent or the kernel says of it.
pub type Found = Vec<(ResourceId, Outcome)>;

/// The kernel's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

/// The same, to be shared.
#[must_use]
pub fn kernel() -> Arc<dyn Addresses> {
    Arc::new(Kernel)
}

/// How far a survey or a sweep has come, for people who ask meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Stage>>);

#[derive(Debug, Default)]
struct Stage {
    /// What was found so far is being stopped.
    stops: bool,
    /// Resources whose agents are being asked, and since when.
    asked: BTreeMap<ResourceId, (String, Instant)>,
    /// How many have answered, and of how many.
    answered: usize,
    all: usize,
    /// What runs, by its name.
    running: Vec<String>,
}

/// So many resources are named to people.
const NAMED_MAX: usize = 8;

impl Progress {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, all: usize) {
        *self.stage() = Stage { all, ..Stage::default() };
    }

    fn ask(&self, id: ResourceId, name: String) {
        self.stage().asked.insert(id, (name, Instant::now()));
    }

    fn answer(&self, id: ResourceId, outcome: &Outcome) {
        let mut stage = self.stage();
        stage.answered += 1;
        if let Some((name, _)) = stage.asked.remove(&id).filter(|_| *outcome == Outcome::Running) {
            stage.running.push(name);
        }
    }

    /// What was found is being stopped from now on.
    pub fn begin_to_stop(&self) {
        self.stage().stops = true;
    }

    /// In a sentence, for a person who asks why there is no status yet.
    #[must_use]
    pub fn tell(&self) -> String {
        let stage = self.stage();
        let some = |names: &mut dyn Iterator<Item = String>| {
            let mut shown: Vec<String> = names.take(NAMED_MAX + 1).collect();
            if shown.len() > NAMED_MAX {
                shown[NAMED_MAX] = "…".to_owned();
            }
            shown.join(", ")
        };
        let running = match stage.running.is_empty() {
            true => String::new(),
            false => format!("; running: {}", some(&mut stage.running.iter().cloned())),
        };
        if stage.stops {
            return format!("this node is stopping what an earlier life left{running}");
        }
        let Stage { answered, all, asked, .. } = &*stage;
        let since = |(name, since): &(String, Instant)| format!("{name} for {} s", since.elapsed().as_secs());
        let asked = match asked.is_empty() {
            true => String::new(),
            false => format!("; being asked: {}", some(&mut asked.values().map(since))),
        };
        format!(
            "this node is starting and asks what an earlier life left running: {answered} of {all} resources have \
             answered{asked}{running}"
        )
    }
}

impl Addresses for Kernel {
    fn stands(&self, address: &Address) -> io::Result<bool> {
        Ok(!standing(address, &mut Netlink::open()?)?.is_empty())
    }

    fn foreign(&self, address: &Address) -> io::Result<Option<String>> {
        let there = standing(address, &mut Netlink::open()?)?.into_iter().find(|there| !there.marked);
        Ok(there.map(|there| {
            let name = interface_name(there.interface).unwrap_or_else(|_| there.interface.to_string());
            format!("{}/{} dev {name}", there.ip, there.prefix)
        }))
    }

    fn remove(&self, address: &Address) -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        for there in standing(address, &mut netlink)?.into_iter().filter(|there| there.marked) {
            match netlink.delete_address(&there) {
                Err(fault) if fault.kind() != io::ErrorKind::AddrNotAvailable => return Err(fault),
                _ => {}
            }
        }
        Ok(())
    }
}

fn standing(address: &Address, netlink: &mut Netlink) -> io::Result<Vec<InterfaceAddress>> {
    let interfaces = netlink.interfaces()?;
    Ok(places_of(address, &interfaces, netlink.addresses()?.iter()).cloned().collect())
}

/// Asks for the status of every resource of every group, several at a time, and returns those that do not surely
/// stand still: `Running`, or `Unknown` and `TimedOut` where nobody can tell. In the order of the plan. Operations that
/// are still under way are ended first, so that nothing starts behind the sweep's back.
pub async fn survey(agents: &Agents, addresses: &Arc<dyn Addresses>, progress: &Progress) -> Found {
    progress.begin(agents.duties().resources().count());
    let interrupted = agents.end_orphans().await;
    let tickets = Arc::new(Semaphore::new(ASKED_MAX));
    let mut asked = JoinSet::new();
    let all: Vec<ResourceId> = agents.duties().resources().map(|(id, _)| id).collect();
    for id in all {
        let (agents, addresses, tickets) = (agents.clone(), Arc::clone(addresses), Arc::clone(&tickets));
        let progress = progress.clone();
        asked.spawn(async move {
            let _ticket = tickets.acquire().await;
            progress.ask(id, agents.duties().resource(id).text.clone());
            let outcome = status(&agents, addresses.as_ref(), id).await;
            progress.answer(id, &outcome);
            (id, outcome)
        });
    }
    let mut found = Vec::new();
    while let Some(answer) = asked.join_next().await {
        // A task that failed asked for nothing that we could name; there is none.
        if let Ok((id, outcome)) = answer
            && !matches!(outcome, Outcome::Stopped | Outcome::Missing(_))
        {
            found.push((id, outcome));
        }
    }
    for id in interrupted {
        if !found.iter().any(|(known, _)| *known == id) {
            found.push((id, Outcome::Unknown("its start or stop was interrupted".to_owned())));
        }
    }
    found.sort_by_key(|(id, _)| *id);
    found
}

async fn status(agents: &Agents, addresses: &dyn Addresses, id: ResourceId) -> Outcome {
    if !agents.is_hearts(id) {
        let outcome = agents.run(id, Operation::Status, agents.duties().limits(id).status, None).await;
        if let Outcome::Missing(_) = &outcome {
            // What an earlier life has started by an agent that is gone is known by its processes alone, where those are
            // kept together at all.
            let _ = agents.run(id, Operation::Kill, KILL_LIMIT, None).await;
        }
        return outcome;
    }
    match &agents.duties().resource(id).agent {
        Agent::Address(address) => match addresses.stands(address) {
            Ok(true) => Outcome::Running,
            Ok(false) => Outcome::Stopped,
            Err(fault) => Outcome::Unknown(format!("the kernel does not tell its addresses: {fault}")),
        },
        // Announcements end with the daemon.
        _ => Outcome::Stopped,
    }
}

/// Stops what a survey found, each group right to left, the groups side by side, and logs it. Returns what could not
/// be stopped, with the reason, in the order of the plan.
pub async fn sweep(agents: &Agents, addresses: &Arc<dyn Addresses>, found: Found) -> Found {
    let mut groups = JoinSet::new();
    let mut rest = found;
    while let Some(group) = rest.last().map(|(id, _)| id.group) {
        let begin = rest.partition_point(|(id, _)| id.group < group);
        let members = rest.split_off(begin);
        let (agents, addresses) = (agents.clone(), Arc::clone(addresses));
        groups.spawn(async move { sweep_group(&agents, addresses.as_ref(), members).await });
    }
    let mut failed: Vec<_> = groups.join_all().await.into_iter().flatten().collect();
    failed.sort_by_key(|(id, _)| *id);
    failed
}

async fn sweep_group(agents: &Agents, addresses: &dyn Addresses, members: Found) -> Found {
    let mut failed = Vec::new();
    for (id, status) in members.into_iter().rev() {
        let name = &agents.duties().resource(id).text;
        if let Some(there) = foreign(agents, addresses, id) {
            let text = format!(
                "{name} stands here, and Locum did not put it there: left alone, and the group is not started here. If it \
                 is this machine's own address, choose another one for the service; else: ip address del {there}"
            );
            agents.note(id, Level::Error, text);
            stop(agents, addresses, id, 1).await;
            failed.push((id, Outcome::Failed(format!("not put there by Locum ({there})"))));
            continue;
        }
        let begin = Instant::now();
        let tries = match &status {
            Outcome::Running => {
                agents.note(
                    id,
                    Level::Warning,
                    format!("{name} was left running by an earlier life: stopped"),
                );
                STOP_TRIES
            }
            doubt => {
                let text = format!("{name} may have been left running by an earlier life ({doubt}): stopped");
                agents.note(id, Level::Warning, text);
                1
            }
        };
        match stop(agents, addresses, id, tries).await {
            Outcome::Ok => {
                let text = format!("{name} stopped after {:.3} s", begin.elapsed().as_secs_f64());
                agents.note(id, Level::Info, text);
            }
            outcome => {
                agents.note(id, Level::Error, format!("{name} cannot be stopped: {outcome}"));
                failed.push((id, outcome));
            }
        }
    }
    failed.reverse();
    failed
}

/// Where an address stands that Locum did not put there.
fn foreign(agents: &Agents, addresses: &dyn Addresses, id: ResourceId) -> Option<String> {
    match &agents.duties().resource(id).agent {
        Agent::Address(address) if agents.is_hearts(id) => addresses.foreign(address).ok().flatten(),
        _ => None,
    }
}

async fn stop(agents: &Agents, addresses: &dyn Addresses, id: ResourceId, tries: u32) -> Outcome {
    let mut outcome = Outcome::Ok;
    for attempt in 0..tries {
        if attempt > 0 {
            sleep(STOP_PAUSE).await;
        }
        outcome = match &agents.duties().resource(id).agent {
            Agent::Address(address) if agents.is_hearts(id) => match addresses.remove(address) {
                Ok(()) => Outcome::Ok,
                Err(fault) => Outcome::Failed(format!("cannot remove {}: {fault}", address.ip)),
            },
            _ => agents.run(id, Operation::Stop, agents.duties().limits(id).stop, None).await,
        };
        if outcome == Outcome::Ok {
            break;
        }
    }
    outcome
}

/// Takes away the gates of this cluster that an earlier life left, now that their addresses have gone. What is still there
/// (`stuck`) stays silent; so do the addresses of a group that the configuration does not have any more, because nobody
/// has looked where they stand. Returns what a person should know. Calls block.
#[must_use]
pub fn sweep_gates(duties: &Duties, stuck: &[ResourceId]) -> Vec<(Level, String)> {
    // A witness runs nothing, and may stand beside a node.
    if duties.groups.is_empty() {
        return Vec::new();
    }
    // Without the rights to ask nothing can be made either, which the heart says.
    let Ok(bpffs) = gate::find_bpffs() else { return Vec::new() };
    let Ok(gates) = gate::list(bpffs.clone()) else { return Vec::new() };
    let mut said = Vec::new();
    let mut left: BTreeMap<String, (gate::Engine, Vec<gate::Name>)> = BTreeMap::new();
    for gate in gates.into_iter().filter(|gate| gate.name.is_of(&duties.cluster)) {
        let group = duties.groups.iter().position(|group| gate.name.is_group(&group.key));
        let name = gate.name.group();
        // Whoever renews it lives: another cluster of that name on this host.
        let is_open = gate.deadline.is_some_and(|deadline| deadline > clock::boot_nanos());
        let Some(group) = group else {
            if is_open {
                continue;
            }
            let text = format!(
                "the gate of group {name}, which the configuration does not have, keeps its addresses silent: without a \
                 daemon here, `locum gate --remove --group {name}` takes both away"
            );
            said.push((Level::Warning, text));
            continue;
        };
        let wants_gate = duties.groups[group].gate != duties::Gate::None;
        if wants_gate && stuck.iter().any(|id| id.group.0 == group) {
            continue;
        }
        left.entry(gate.engine.to_string()).or_insert_with(|| (gate.engine, Vec::new())).1.push(gate.name);
    }
    for (engine, names) in left.values() {
        for (name, removed) in names.iter().zip(gate::remove_all(engine, names)) {
            let name = name.group();
            said.push(match removed {
                Ok(_) => {
                    (Level::Info, format!("the gate of group {name} was left by an earlier life: removed"))
                }
                Err(error) => {
                    (Level::Warning, format!("the gate of group {name} stays from an earlier life: {error}"))
                }
            });
        }
    }
    let judges = gate::judges(bpffs).unwrap_or_default();
    for judge in judges.into_iter().filter(|judge| judge.name.is_of(&duties.cluster)) {
        // What was left without a gate stops nobody; if one is left, it goes on. The heart makes it ready again.
        if let Err(error) = gate::remove_judge(&judge) {
            said.push((Level::Warning, format!("what judges for gates stays from an earlier life: {error}")));
        }
    }
    said
}
