//! Leftovers: the resources that an earlier daemon left running. Before its first beat a daemon owns nothing, so every
//! address and service of its groups that it finds then has no owner. The other node may have taken it over long ago.
//!
//! [`survey`] compares the kernel and the agents' answers with the plan; [`sweep`] stops the leftovers. The caller
//! decides whether to sweep.

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
    heart::places_of,
    host_config::{self, HostConfig},
};

/// How many agents are asked at the same time.
const ASKED_MAX: usize = 16;
/// The number of tries and the pause are those of the core.
const STOP_TRIES: u32 = 10;
const STOP_PAUSE: Duration = Duration::from_secs(1);

/// Access to the addresses of a machine. Calls block.
pub trait AddressAccess: Send + Sync {
    /// Reads all addresses of the machine.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn look(&self) -> io::Result<AddressSnapshot>;

    /// Removes these addresses. It is not an error if one does not exist.
    ///
    /// # Errors
    /// Those of the kernel.
    fn remove(&self, there: &[InterfaceAddress]) -> io::Result<()>;
}

/// The addresses of a machine at one moment.
#[derive(Clone, Debug, Default)]
pub struct AddressSnapshot {
    interfaces: Vec<Interface>,
    addresses: BTreeMap<IpAddr, Vec<InterfaceAddress>>,
}

impl AddressSnapshot {
    /// Makes the register of these interfaces and addresses.
    #[must_use]
    pub fn new(interfaces: Vec<Interface>, addresses: Vec<InterfaceAddress>) -> Self {
        let mut register = Self { interfaces, ..Self::default() };
        for address in addresses {
            register.addresses.entry(address.ip).or_default().push(address);
        }
        register
    }

    /// Whether the address stood on an interface where it would be ours, whether or not Locum put it there.
    #[must_use]
    pub fn stands(&self, address: &Address) -> bool {
        self.places(address).next().is_some()
    }

    /// Where the address stood that Locum did not put there, as the place is named to people.
    #[must_use]
    pub fn foreign(&self, address: &Address) -> Option<String> {
        let there = self.places(address).find(|there| !there.marked)?;
        let interface = self.interfaces.iter().find(|interface| interface.index == there.interface);
        let name = interface.map_or_else(|| there.interface.to_string(), |found| found.name.clone());
        Some(format!("{}/{} dev {name}", there.ip, there.prefix))
    }

    /// Where Locum put the address.
    #[must_use]
    pub fn ours(&self, address: &Address) -> Vec<InterfaceAddress> {
        self.places(address).filter(|there| there.marked).cloned().collect()
    }

    fn places(&self, address: &Address) -> impl Iterator<Item = &InterfaceAddress> {
        places_of(address, &self.interfaces, self.addresses.get(&address.ip).into_iter().flatten())
    }
}

/// The findings of a survey: a resource, and what its agent or the kernel says of it.
pub type SurveyFindings = Vec<(ResourceId, Outcome)>;

/// The addresses in the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelAddresses;

/// The addresses in the kernel, shared.
#[must_use]
pub fn kernel() -> Arc<dyn AddressAccess> {
    Arc::new(KernelAddresses)
}

/// How far a survey or a sweep has come, for clients that ask meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<ProgressState>>);

#[derive(Debug, Default)]
struct ProgressState {
    /// The leftovers found so far are being stopped.
    stops: bool,
    /// The resources whose agents are being asked, and since when.
    asked: BTreeMap<ResourceId, (String, Instant)>,
    /// How many have answered.
    answered: usize,
    all: usize,
    /// The names of the resources that run.
    running: Vec<String>,
}

/// How many resources are named to people.
const NAMED_MAX: usize = 8;

impl Progress {
    fn state(&self) -> MutexGuard<'_, ProgressState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, all: usize) {
        *self.state() = ProgressState { all, ..ProgressState::default() };
    }

    fn ask(&self, id: ResourceId, name: String) {
        self.state().asked.insert(id, (name, Instant::now()));
    }

    fn answer(&self, id: ResourceId, outcome: &Outcome) {
        let mut stage = self.state();
        stage.answered += 1;
        if let Some((name, _)) = stage.asked.remove(&id).filter(|_| *outcome == Outcome::Running) {
            stage.running.push(name);
        }
    }

    /// From now on the leftovers are being stopped.
    pub fn begin_to_stop(&self) {
        self.state().stops = true;
    }

    /// One sentence that explains why there is no status yet.
    #[must_use]
    pub fn tell(&self) -> String {
        let stage = self.state();
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
            return format!("this node is stopping resources that an earlier daemon left{running}");
        }
        let ProgressState { answered, all, asked, .. } = &*stage;
        let since = |(name, since): &(String, Instant)| format!("{name} for {} s", since.elapsed().as_secs());
        let asked = match asked.is_empty() {
            true => String::new(),
            false => format!("; being asked: {}", some(&mut asked.values().map(since))),
        };
        format!(
            "this node is starting and looks for resources that an earlier daemon left running: {answered} of {all} \
             have answered{asked}{running}"
        )
    }
}

impl AddressAccess for KernelAddresses {
    fn look(&self) -> io::Result<AddressSnapshot> {
        let mut netlink = Netlink::open()?;
        Ok(AddressSnapshot::new(netlink.interfaces()?, netlink.addresses()?))
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

/// Takes one look for all groups, on another thread: reading thousands of addresses takes time.
async fn look(addresses: &Arc<dyn AddressAccess>) -> Result<AddressSnapshot, String> {
    let addresses = Arc::clone(addresses);
    let register = spawn_blocking(move || addresses.look()).await;
    register
        .map_err(|fault| fault.to_string())
        .and_then(|register| register.map_err(|fault| fault.to_string()))
        .map_err(|fault| format!("the kernel does not list its addresses: {fault}"))
}

/// Asks for the status of every resource of every group, several at a time. Returns those that may run, in the order of
/// the plan: `Running`, or `Unknown` and `TimedOut` if it cannot be told. Operations that are still under way are ended
/// first, so that nothing starts behind the sweep's back.
pub async fn survey(
    agents: &Agents,
    addresses: &Arc<dyn AddressAccess>,
    progress: &Progress,
) -> SurveyFindings {
    progress.begin(agents.host_config().resources().count());
    let interrupted = agents.end_orphans().await;
    let register = Arc::new(look(addresses).await);
    let left = {
        let agents = agents.clone();
        Arc::new(spawn_blocking(move || agents.left_running()).await.unwrap_or_default())
    };
    let tickets = Arc::new(Semaphore::new(ASKED_MAX));
    let mut asked = JoinSet::new();
    let all: Vec<ResourceId> = agents.host_config().resources().map(|(id, _)| id).collect();
    for id in all {
        let (agents, register, tickets) = (agents.clone(), Arc::clone(&register), Arc::clone(&tickets));
        let left = Arc::clone(&left);
        let progress = progress.clone();
        asked.spawn(async move {
            let _ticket = tickets.acquire().await;
            progress.ask(id, agents.host_config().name(id).to_owned());
            let outcome = status(&agents, &register, id, left.contains(&id)).await;
            progress.answer(id, &outcome);
            (id, outcome)
        });
    }
    let mut found = Vec::new();
    while let Some(answer) = asked.join_next().await {
        // A task that failed asked for no resource that could be named; there is none.
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

/// `is_left`: processes of the resource run.
async fn status(
    agents: &Agents,
    register: &Result<AddressSnapshot, String>,
    id: ResourceId,
    is_left: bool,
) -> Outcome {
    if !agents.is_hearts(id) {
        let outcome = agents.run(id, Operation::Status, agents.host_config().limits(id).status, None).await;
        // If an earlier daemon started a resource whose agent is gone or half of which has died, only its processes
        // show that it runs. They are known only where they are kept together.
        if is_left && matches!(outcome, Outcome::Missing(_) | Outcome::Stopped) {
            let text = format!(
                "{} does not run, but an earlier daemon has left processes of it: killed",
                agents.host_config().name(id)
            );
            agents.note(id, Level::Warning, text);
            let ended = agents.run(id, Operation::Kill, KILL_LIMIT, None).await;
            if ended != Outcome::Ok {
                return Outcome::Unknown(format!("processes of it are left: {ended}"));
            }
        }
        return outcome;
    }
    match &agents.host_config().resource(id).agent {
        Agent::Address(address) => match register {
            Ok(register) if register.stands(address) => Outcome::Running,
            Ok(_) => Outcome::Stopped,
            Err(fault) => Outcome::Unknown(fault.clone()),
        },
        // Announcements end with the daemon.
        _ => Outcome::Stopped,
    }
}

/// Stops the leftovers of a survey, each group right to left, the groups side by side, and logs it. Returns those that
/// could not be stopped, with the reason, in the order of the plan.
pub async fn sweep(
    agents: &Agents,
    addresses: &Arc<dyn AddressAccess>,
    found: SurveyFindings,
) -> SurveyFindings {
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

/// The machine that is being swept.
struct Machine {
    addresses: Arc<dyn AddressAccess>,
    register: Result<AddressSnapshot, String>,
}

async fn sweep_group(agents: &Agents, machine: &Machine, members: SurveyFindings) -> SurveyFindings {
    let mut failed = Vec::new();
    for (id, status) in members.into_iter().rev() {
        let name = agents.host_config().name(id);
        if let Some(there) = foreign(agents, machine, id) {
            let text = format!(
                "{name} stands here, and Locum did not put it there: left alone, and the group is not started here. If it \
                 is this machine's own address, choose another one for the service; else: ip address del {there}"
            );
            agents.note(id, Level::Error, text);
            // Another address of the resource may be Locum's.
            let outcome = stop(agents, machine, id, 1).await;
            if outcome != Outcome::Ok {
                agents.note(
                    id,
                    Level::Error,
                    format!(
                        "{name} was also put here by an earlier daemon, and cannot be removed: {outcome}"
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
                    format!("{name} was left running by an earlier daemon: stopped"),
                );
                STOP_TRIES
            }
            doubt => {
                let text =
                    format!("{name} may have been left running by an earlier daemon ({doubt}): stopped");
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
    match &agents.host_config().resource(id).agent {
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
        outcome = match &agents.host_config().resource(id).agent {
            Agent::Address(address) if agents.is_hearts(id) => match machine.remove(address).await {
                Ok(()) => Outcome::Ok,
                Err(fault) => Outcome::Failed(format!("cannot remove {}: {fault}", address.ip)),
            },
            _ => agents.run(id, Operation::Stop, agents.host_config().limits(id).stop, None).await,
        };
        if outcome == Outcome::Ok {
            break;
        }
    }
    outcome
}

impl Machine {
    /// Removes the address where Locum put it.
    async fn remove(&self, address: &Address) -> Result<(), String> {
        let there = self.register.as_ref().map_err(String::clone)?.ours(address);
        let addresses = Arc::clone(&self.addresses);
        let removed = spawn_blocking(move || addresses.remove(&there)).await;
        removed.map_err(|fault| fault.to_string())?.map_err(|fault| fault.to_string())
    }
}

/// Removes the gates of this cluster that an earlier daemon left, now that their addresses are gone. Addresses that
/// could not be removed (`stuck`) stay behind their gates. So do those of a group that is no longer in the
/// configuration, because it is not known where they stand. Returns warnings for the log. Calls block.
#[must_use]
pub fn sweep_gates(host_config: &HostConfig, stuck: &[ResourceId]) -> Vec<(Level, String)> {
    // A witness runs nothing, and may run beside a node.
    if host_config.groups.is_empty() {
        return Vec::new();
    }
    // Without the rights to list gates none can be made either, which the heart reports.
    let Ok(bpffs) = gate::find_bpffs() else { return Vec::new() };
    let Ok(gates) = gate::list(bpffs.clone()) else { return Vec::new() };
    let mut said = Vec::new();
    let mut left: BTreeMap<String, (gate::Backend, Vec<gate::GateName>)> = BTreeMap::new();
    for gate in gates.into_iter().filter(|gate| gate.name.is_of(&host_config.cluster)) {
        let group = host_config.groups.iter().position(|group| gate.name.is_group(&group.key));
        let name = gate.name.group();
        // A gate that is renewed belongs to another, living cluster of that name on this host.
        let is_open = gate.deadline.is_some_and(|deadline| deadline > clock::boot_nanos());
        let Some(group) = group else {
            if is_open {
                continue;
            }
            let text = format!(
                "the gate of group {name}, which is not in the configuration, keeps its addresses silent: stop the \
                 daemon here, and `locum gate --remove --group {name}` removes both"
            );
            said.push((Level::Warning, text));
            continue;
        };
        let wants_gate = host_config.groups[group].gate != host_config::GatePolicy::None;
        if wants_gate && stuck.iter().any(|id| id.group.0 == group) {
            continue;
        }
        left.entry(gate.backend.to_string()).or_insert_with(|| (gate.backend, Vec::new())).1.push(gate.name);
    }
    for (backend, names) in left.values() {
        for (name, removed) in names.iter().zip(gate::remove_all(backend, names)) {
            let name = name.group();
            said.push(match removed {
                Ok(_) => {
                    (Level::Info, format!("the gate of group {name} was left by an earlier daemon: removed"))
                }
                Err(error) => (
                    Level::Warning,
                    format!(
                        "the gate of group {name} was left by an earlier daemon, and cannot be \
                                              removed: {error}"
                    ),
                ),
            });
        }
    }
    let filters = gate::packet_filters(bpffs).unwrap_or_default();
    for filter in filters.into_iter().filter(|filter| filter.name.is_of(&host_config.cluster)) {
        // A packet filter without a gate stops nothing, so it may stay if it cannot be removed. The heart makes it
        // ready again.
        if let Err(error) = gate::remove_packet_filter(&filter) {
            said.push((
                Level::Warning,
                format!(
                    "the packet filter for gates was left by an earlier daemon, and \
                                                cannot be removed: {error}"
                ),
            ));
        }
    }
    said
}
