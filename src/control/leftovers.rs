//! Leftovers: what an earlier life of the daemon left running. Before its first beat a daemon owns nothing, so every
//! address and service of its groups that is found then has no owner; the other node may have taken it over long ago.
//!
//! [`survey`] compares the kernel and the agents' answers with the plan; [`sweep`] stops what was found. Whether to
//! sweep is the caller's decision.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use locum_core::{
    group::KILL_LIMIT,
    model::{
        action::Operation,
        event::Outcome,
        identity::ResourceId,
        note::Level,
        resource::{Address, Agent},
    },
};
use locum_sys::{
    clock, gate,
    netlink::{Interface, InterfaceAddress, Netlink},
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{agents::Agents, errands::spawn_blocking};
use crate::{
    duties::{self, Duties},
    heart::places_of,
};

/// Agents asked at the same time.
const ASKED_MAX: usize = 16;
/// As often, and with the same pause, as the core tries it.
const STOP_TRIES: u32 = 10;
const STOP_PAUSE: Duration = Duration::from_secs(1);

/// The addresses of a machine. Calls block.
pub trait Addresses: Send + Sync {
    /// All that stand now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn look(&self) -> io::Result<Register>;

    /// Takes these off. One that does not stand is no error.
    ///
    /// # Errors
    /// What the kernel says.
    fn remove(&self, there: &[InterfaceAddress]) -> io::Result<()>;
}

/// The addresses that stood on a machine when it was looked at.
#[derive(Clone, Debug, Default)]
pub struct Register {
    interfaces: Vec<Interface>,
    addresses: BTreeMap<IpAddr, Vec<InterfaceAddress>>,
}

impl Register {
    /// Of these.
    #[must_use]
    pub fn new(interfaces: Vec<Interface>, addresses: Vec<InterfaceAddress>) -> Self {
        let mut register = Self { interfaces, ..Self::default() };
        for address in addresses {
            register.addresses.entry(address.ip).or_default().push(address);
        }
        register
    }

    /// Whether the address stood on an interface where it would be ours, whoever put it there.
    #[must_use]
    pub fn stands(&self, address: &Address) -> bool {
        self.places(address).next().is_some()
    }

    /// Where it stood and Locum did not put it: as a person would name the place.
    #[must_use]
    pub fn foreign(&self, address: &Address) -> Option<String> {
        let there = self.places(address).find(|there| !there.marked)?;
        let interface = self.interfaces.iter().find(|interface| interface.index == there.interface);
        let name = interface.map_or_else(|| there.interface.to_string(), |found| found.name.clone());
        Some(format!("{}/{} dev {name}", there.ip, there.prefix))
    }

    /// Where Locum put it.
    #[must_use]
    pub fn ours(&self, address: &Address) -> Vec<InterfaceAddress> {
        self.places(address).filter(|there| there.marked).cloned().collect()
    }

    fn places(&self, address: &Address) -> impl Iterator<Item = &InterfaceAddress> {
        places_of(address, &self.interfaces, self.addresses.get(&address.ip).into_iter().flatten())
    }
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
    fn look(&self) -> io::Result<Register> {
        let mut netlink = Netlink::open()?;
        Ok(Register::new(netlink.interfaces()?, netlink.addresses()?))
    }

    fn remove(&self, there: &[InterfaceAddress]) -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        for address in there {
            match netlink.delete_address(address) {
                Err(fault) if fault.kind() != io::ErrorKind::AddrNotAvailable => return Err(fault),
                _ => {}
            }
        }
        Ok(())
    }
}

/// One look for all groups, elsewhere: thousands of addresses take the kernel their time.
async fn look(addresses: &Arc<dyn Addresses>) -> Result<Register, String> {
    let addresses = Arc::clone(addresses);
    let register = spawn_blocking(move || addresses.look()).await;
    register
        .map_err(|fault| fault.to_string())
        .and_then(|register| register.map_err(|fault| fault.to_string()))
        .map_err(|fault| format!("the kernel does not tell its addresses: {fault}"))
}

/// Asks for the status of every resource of every group, several at a time, and returns those that do not surely
/// stand still: `Running`, or `Unknown` and `TimedOut` where nobody can tell. In the order of the plan. Operations that
/// are still under way are ended first, so that nothing starts behind the sweep's back.
pub async fn survey(agents: &Agents, addresses: &Arc<dyn Addresses>, progress: &Progress) -> Found {
    progress.begin(agents.duties().resources().count());
    let interrupted = agents.end_orphans().await;
    let register = Arc::new(look(addresses).await);
    let left = {
        let agents = agents.clone();
        Arc::new(spawn_blocking(move || agents.left_running()).await.unwrap_or_default())
    };
    let tickets = Arc::new(Semaphore::new(ASKED_MAX));
    let mut asked = JoinSet::new();
    let all: Vec<ResourceId> = agents.duties().resources().map(|(id, _)| id).collect();
    for id in all {
        let (agents, register, tickets) = (agents.clone(), Arc::clone(&register), Arc::clone(&tickets));
        let left = Arc::clone(&left);
        let progress = progress.clone();
        asked.spawn(async move {
            let _ticket = tickets.acquire().await;
            progress.ask(id, agents.duties().name(id).to_owned());
            let outcome = status(&agents, &register, id, left.contains(&id)).await;
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

/// `is_left`: processes of it run.
async fn status(
    agents: &Agents,
    register: &Result<Register, String>,
    id: ResourceId,
    is_left: bool,
) -> Outcome {
    if !agents.is_hearts(id) {
        let outcome = agents.run(id, Operation::Status, agents.duties().limits(id).status, None).await;
        // What an earlier life has started by an agent that is gone, or half of which has died, is known by its processes
        // alone, where those are kept together at all.
        if is_left && matches!(outcome, Outcome::Missing(_) | Outcome::Stopped) {
            let text = format!(
                "{} does not run, but an earlier life has left processes of it: killed",
                agents.duties().name(id)
            );
            agents.note(id, Level::Warning, text);
            let ended = agents.run(id, Operation::Kill, KILL_LIMIT, None).await;
            if ended != Outcome::Ok {
                return Outcome::Unknown(format!("processes of it are left: {ended}"));
            }
        }
        return outcome;
    }
    match &agents.duties().resource(id).agent {
        Agent::Address(address) => match register {
            Ok(register) if register.stands(address) => Outcome::Running,
            Ok(_) => Outcome::Stopped,
            Err(fault) => Outcome::Unknown(fault.clone()),
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
    if rest.is_empty() {
        return rest;
    }
    let mut register = look(addresses).await;
    for _ in 1..STOP_TRIES {
        if register.is_ok() {
            break;
        }
        sleep(STOP_PAUSE).await;
        register = look(addresses).await;
    }
    let machine = Arc::new(Machine { addresses: Arc::clone(addresses), register });
    while let Some(group) = rest.last().map(|(id, _)| id.group) {
        let begin = rest.partition_point(|(id, _)| id.group < group);
        let members = rest.split_off(begin);
        let (agents, machine) = (agents.clone(), Arc::clone(&machine));
        groups.spawn(async move { sweep_group(&agents, &machine, members).await });
    }
    let mut failed: Vec<_> = groups.join_all().await.into_iter().flatten().collect();
    failed.sort_by_key(|(id, _)| *id);
    failed
}

/// The machine that is swept.
struct Machine {
    addresses: Arc<dyn Addresses>,
    register: Result<Register, String>,
}

async fn sweep_group(agents: &Agents, machine: &Machine, members: Found) -> Found {
    let mut failed = Vec::new();
    for (id, status) in members.into_iter().rev() {
        let name = agents.duties().name(id);
        if let Some(there) = foreign(agents, machine, id) {
            let text = format!(
                "{name} stands here, and Locum did not put it there: left alone, and the group is not started here. If it \
                 is this machine's own address, choose another one for the service; else: ip address del {there}"
            );
            agents.note(id, Level::Error, text);
            // Another one of it may be Locum's.
            let outcome = stop(agents, machine, id, 1).await;
            if outcome != Outcome::Ok {
                agents.note(
                    id,
                    Level::Error,
                    format!(
                        "{name} was also put here by an earlier life, and cannot be taken away: {outcome}"
                    ),
                );
            }
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
        match stop(agents, machine, id, tries).await {
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
fn foreign(agents: &Agents, machine: &Machine, id: ResourceId) -> Option<String> {
    match &agents.duties().resource(id).agent {
        Agent::Address(address) if agents.is_hearts(id) => machine.register.as_ref().ok()?.foreign(address),
        _ => None,
    }
}

async fn stop(agents: &Agents, machine: &Machine, id: ResourceId, tries: u32) -> Outcome {
    let mut outcome = Outcome::Ok;
    for attempt in 0..tries {
        if attempt > 0 {
            sleep(STOP_PAUSE).await;
        }
        outcome = match &agents.duties().resource(id).agent {
            Agent::Address(address) if agents.is_hearts(id) => match machine.remove(address).await {
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

impl Machine {
    /// Takes the address off where Locum put it.
    async fn remove(&self, address: &Address) -> Result<(), String> {
        let there = self.register.as_ref().map_err(String::clone)?.ours(address);
        let addresses = Arc::clone(&self.addresses);
        let removed = spawn_blocking(move || addresses.remove(&there)).await;
        removed.map_err(|fault| fault.to_string())?.map_err(|fault| fault.to_string())
    }
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
