//! `locum resources`, and `ResourceManager` by name: lists the groups of `haresources`, says whether they run here, and
//! starts and stops one by hand. Facts: `docs/heartbeat.md`, section 4.
//!
//! A group can be started and stopped by hand only where no daemon runs. A running daemon decides what runs: it would
//! not know of the change and would undo it.
//!
//! Exit code: 0 done (`status`: it runs), 1 not done, 2 the files are wrong, 3 `status`: it does not run, 4 `status`:
//! unknown. `verifyallidle`: the number of resources that run.

use std::{fs::File, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use locum_core::{
    model::{
        action::Operation,
        event::Outcome,
        identity::{GroupIndex, ResourceId},
        note::Level,
    },
    r1::plan::{R1Group, R1Plan},
};
use tokio::time::sleep;

use super::CommonOptions;
use crate::{
    control::{
        agents::{self, Agents},
        state,
    },
    files::Files,
    heart::StandaloneAddresses,
    host_config::HostConfig,
    observe::diagnostics,
};

/// Attempts of a stop; number and pause are the daemon's.
const STOP_TRIES: u32 = 10;
const STOP_PAUSE: Duration = Duration::from_secs(1);
/// How long an added address is announced. One or two lost frames do not matter then.
const ANNOUNCED_FOR: Duration = Duration::from_secs(1);
/// The end of an error text: why a running daemon forbids this.
const DECIDES: &str = "decides what runs";
const CURE: &str = "use `locum standby` and `locum takeover`, or stop it first";
const USAGE: &str = "usage: ResourceManager listkeys machine | allkeys | ourkeys | otherkeys | status resource | takegroup \
                     key | givegroup key | statgroup key | verifyallidle";

/// The options of `locum resources`.
#[derive(Clone, Debug, Args)]
pub struct ResourcesOptions {
    /// Verb, as of heartbeat's ResourceManager
    #[command(subcommand)]
    pub verb: ResourcesVerb,
}

/// The verbs of heartbeat's ResourceManager.
#[derive(Clone, Debug, Subcommand)]
#[command(rename_all = "lower")]
pub enum ResourcesVerb {
    /// List the keys of groups that prefer a node (pattern: `.` any character, `*` repeats the one before)
    Listkeys {
        /// Name of a node, or a pattern such as `.*`
        node: String,
    },
    /// List the keys of all groups
    Allkeys,
    /// List the resources of the groups that prefer this node, one group per line
    Ourkeys,
    /// List the resources of the other groups, one group per line
    Otherkeys,
    /// Check whether a resource runs here; the answer is the exit code
    Status {
        /// Resource, in the form of haresources
        resource: String,
    },
    /// Start a group, first resource first; only while no daemon runs
    Takegroup {
        /// Key of the group: the first resource of its line
        key: String,
    },
    /// Stop a group, last resource first; only while no daemon runs
    Givegroup {
        /// Key of the group: the first resource of its line
        key: String,
    },
    /// Print how much of a group runs here: ALL, SOME or NONE
    Statgroup {
        /// Key of the group: the first resource of its line
        key: String,
    },
    /// List every resource that runs here; none should before the daemon starts
    Verifyallidle,
}

/// The program called as `ResourceManager VERB …`.
pub(super) fn by_name(common: &CommonOptions, words: Vec<String>) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = |word: &str| word.to_owned();
    let verb = match words[..] {
        ["listkeys", node, ..] => ResourcesVerb::Listkeys { node: text(node) },
        ["allkeys", ..] => ResourcesVerb::Allkeys,
        ["ourkeys", ..] => ResourcesVerb::Ourkeys,
        ["otherkeys", ..] => ResourcesVerb::Otherkeys,
        ["status", resource, ..] => ResourcesVerb::Status { resource: text(resource) },
        ["takegroup", key, ..] => ResourcesVerb::Takegroup { key: text(key) },
        ["givegroup", key, ..] => ResourcesVerb::Givegroup { key: text(key) },
        ["statgroup", key, ..] => ResourcesVerb::Statgroup { key: text(key) },
        ["verifyallidle", ..] => ResourcesVerb::Verifyallidle,
        _ => {
            errln!("{USAGE}\n");
            return ExitCode::FAILURE;
        }
    };
    run(common, &ResourcesOptions { verb }).unwrap_or_else(|error| {
        errln!("ResourceManager: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs the verb and returns its exit code.
///
/// # Errors
/// If there is no such group or resource, if a daemon runs and the verb forbids that, or if something does not start or
/// stop.
pub fn run(common: &CommonOptions, options: &ResourcesOptions) -> anyhow::Result<ExitCode> {
    let mut files = Files::read(&common.config_dir(), None);
    let mut checked = files.check();
    if let ResourcesVerb::Status { resource } = &options.verb
        && let Some(plan) = &checked.plan
        && find(plan, resource).is_none()
    {
        // Heartbeat asks any script by any name. So the words become a group of their own and are read like any other.
        files.put_haresources(format!("{} {resource}\n", files.node));
        checked = files.check();
    }
    let (Some(plan), false) = (checked.plan.take(), checked.failed()) else {
        diagnostics::complain(&files, &checked);
        return Ok(ExitCode::from(2));
    };
    let plan = Arc::new(plan);
    match &options.verb {
        ResourcesVerb::Listkeys { node } => {
            let pattern = NodePattern::read(node)?;
            print_keys(&plan, |group| pattern.matches(&plan.nodes[group.node.0]));
        }
        ResourcesVerb::Allkeys => print_keys(&plan, |_| true),
        ResourcesVerb::Ourkeys => print_words(&plan, true),
        ResourcesVerb::Otherkeys => print_words(&plan, false),
        ResourcesVerb::Status { resource } => {
            let id = find(&plan, resource)
                .with_context(|| format!("{resource} is not a valid resource of haresources"))?;
            return by_hand(common, &plan, checked.parameters, async |mut hands| hands.status_code(id).await);
        }
        ResourcesVerb::Statgroup { key } => {
            let group = group(&plan, key)?;
            return by_hand(common, &plan, checked.parameters, async |mut hands| {
                hands.statgroup(group).await
            });
        }
        ResourcesVerb::Takegroup { key } => {
            let group = group(&plan, key)?;
            let _alone = lock_out_daemons(common, DECIDES, CURE)?;
            return by_hand(common, &plan, checked.parameters, async |mut hands| hands.take(group).await);
        }
        ResourcesVerb::Givegroup { key } => {
            let group = group(&plan, key)?;
            let _alone = lock_out_daemons(common, DECIDES, CURE)?;
            return by_hand(common, &plan, checked.parameters, async |mut hands| hands.give(group).await);
        }
        ResourcesVerb::Verifyallidle => {
            return by_hand(common, &plan, checked.parameters, async |mut hands| hands.verify_idle().await);
        }
    }
    Ok(ExitCode::SUCCESS)
}

// ---- listing the file

fn print_keys(plan: &R1Plan, wanted: impl Fn(&R1Group) -> bool) {
    plan.groups.iter().filter(|group| wanted(group)).for_each(|group| outln!("{}", group.key));
}

fn print_words(plan: &R1Plan, ours: bool) {
    for group in plan.groups.iter().filter(|group| (group.node == plan.me) == ours) {
        let words: Vec<&str> = group.resources.iter().map(|resource| resource.text.as_str()).collect();
        outln!("{}", words.join(" "));
    }
}

fn find(plan: &R1Plan, text: &str) -> Option<ResourceId> {
    all(plan).find(|id| plan.resource(*id).text == text)
}

fn all(plan: &R1Plan) -> impl Iterator<Item = ResourceId> + '_ {
    (0..plan.groups.len()).flat_map(|group| members(plan, GroupIndex(group)))
}

fn members(plan: &R1Plan, group: GroupIndex) -> impl DoubleEndedIterator<Item = ResourceId> + use<> {
    (0..plan.groups[group.0].resources.len()).map(move |member| ResourceId { group, member })
}

fn group(plan: &R1Plan, key: &str) -> anyhow::Result<GroupIndex> {
    let at = plan.groups.iter().position(|group| group.key == key);
    at.map(GroupIndex).with_context(|| {
        let keys: Vec<&str> = plan.groups.iter().map(|group| group.key.as_str()).collect();
        format!("haresources has no group {key}: its groups are {}", keys.join(" "))
    })
}

/// A node pattern of `listkeys`: the part of regular expressions that names need.
#[derive(Debug, PartialEq, Eq)]
struct NodePattern(Vec<(Option<char>, bool)>);

impl NodePattern {
    fn read(text: &str) -> anyhow::Result<Self> {
        let mut parts: Vec<(Option<char>, bool)> = Vec::new();
        for character in text.chars() {
            match character {
                '*' => match parts.last_mut() {
                    Some((_, repeated)) => *repeated = true,
                    None => bail!("the pattern {text} begins with `*`: write `.*` for any node"),
                },
                '.' => parts.push((None, false)),
                '[' | ']' | '(' | ')' | '|' | '+' | '?' | '{' | '}' | '\\' | '^' | '$' => {
                    bail!(
                        "{character} is not supported in the pattern {text}: use a node's name with `.` and `*` only"
                    )
                }
                other => parts.push((Some(other.to_ascii_lowercase()), false)),
            }
        }
        Ok(Self(parts))
    }

    fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.to_ascii_lowercase().chars().collect();
        // `used[n]`: the parts so far can match the first `n` characters of the name.
        let mut used = vec![false; name.len() + 1];
        used[0] = true;
        for (wanted, repeated) in &self.0 {
            let fits = |at: usize| wanted.is_none_or(|wanted| name[at] == wanted);
            let mut next = if *repeated { used.clone() } else { vec![false; used.len()] };
            for at in 0..name.len() {
                let from = if *repeated { next[at] } else { used[at] };
                next[at + 1] |= from && fits(at);
            }
            used = next;
        }
        used[name.len()]
    }
}

// ---- starting and stopping

/// Keeps daemons of Locum and heartbeat from starting as long as the result is held. If one runs, the error says what
/// that daemon does (`why`) and what to do (`cure`).
fn lock_out_daemons(common: &CommonOptions, why: &str, cure: &str) -> anyhow::Result<Vec<File>> {
    let locks = lock_out_locum(common, why, cure)?;
    if let Some(pid) = state::heartbeat(&common.heartbeat_pid()) {
        bail!("heartbeat itself runs here (process {pid}) and {why}: stop it first");
    }
    Ok(locks)
}

/// As [`lock_out_daemons`], but ignores heartbeat itself.
pub(super) fn lock_out_locum(common: &CommonOptions, why: &str, cure: &str) -> anyhow::Result<Vec<File>> {
    let (run_dir, state_dir) = (common.run_dir(), common.state_dir());
    let mut locks = Vec::new();
    for directory in [&run_dir, &state_dir] {
        if !directory.exists() {
            continue;
        }
        match locum_sys::file::lock_directory(directory)? {
            Some(lock) => locks.push(lock),
            None => {
                let who = state::living(&run_dir).map_or_else(String::new, |pid| format!(" (process {pid})"));
                bail!("a daemon runs here{who} and {why}: {cure}");
            }
        }
    }
    Ok(locks)
}

fn by_hand<F>(
    common: &CommonOptions,
    plan: &Arc<R1Plan>,
    parameters: std::collections::BTreeMap<String, String>,
    job: impl FnOnce(AgentRunner) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tell = |note: locum_core::model::note::Note| {
        if note.level > Level::Debug {
            errln!("locum: {}", note.text);
        }
    };
    let mut options = agents::AgentOptions::new(&common.config_dir(), Arc::new(tell));
    options.parameters = parameters;
    options.fifo = Some(common.fifo());
    options.cgroup = Err("a scope of a service manager is its daemon's".to_owned());
    let hands = AgentRunner {
        agents: Agents::new(Arc::new(HostConfig::from(plan.as_ref())), options),
        plan: Arc::clone(plan),
        addresses: None,
    };
    runtime.block_on(job(hands))
}

/// Runs agents without a daemon.
struct AgentRunner {
    plan: Arc<R1Plan>,
    agents: Agents,
    /// Opened when the first address is used.
    addresses: Option<StandaloneAddresses>,
}

impl AgentRunner {
    fn text(&self, id: ResourceId) -> &str {
        &self.plan.resource(id).text
    }

    async fn run(&mut self, id: ResourceId, operation: Operation) -> anyhow::Result<Outcome> {
        if !self.agents.is_hearts(id) {
            let limits = self.plan.limits;
            let limit = match operation {
                Operation::Start => limits.start,
                Operation::Stop | Operation::Terminate | Operation::Kill => limits.stop,
                Operation::Status => limits.status,
            };
            return Ok(self.agents.run(id, operation, limit, None).await);
        }
        let addresses = match &mut self.addresses {
            Some(addresses) => addresses,
            none => none.insert(
                StandaloneAddresses::open(self.agents.host_config())
                    .context("cannot read the kernel's interfaces")?,
            ),
        };
        Ok(addresses.run(self.agents.host_config(), id, operation))
    }

    /// Announces the added addresses repeatedly, for [`ANNOUNCED_FOR`].
    async fn announce(&mut self) {
        let Some(addresses) = &mut self.addresses else { return };
        let now = locum_sys::clock::monotonic_nanos;
        let end = now() + u64::try_from(ANNOUNCED_FOR.as_nanos()).unwrap_or(u64::MAX);
        while let Some(due) = addresses.deadline().filter(|due| *due < end) {
            sleep(Duration::from_nanos(due.saturating_sub(now()))).await;
            addresses.send_due();
        }
    }

    async fn status_code(&mut self, id: ResourceId) -> anyhow::Result<ExitCode> {
        Ok(match self.run(id, Operation::Status).await? {
            Outcome::Running => ExitCode::SUCCESS,
            Outcome::Stopped => ExitCode::from(3),
            other => {
                errln!("locum: {}: {other}", self.text(id));
                ExitCode::from(4)
            }
        })
    }

    async fn statgroup(&mut self, group: GroupIndex) -> anyhow::Result<ExitCode> {
        let (mut running, mut count) = (0, 0);
        for id in members(&self.plan, group) {
            count += 1;
            running += usize::from(self.run(id, Operation::Status).await? == Outcome::Running);
        }
        outln!(
            "{}",
            if running == 0 {
                "NONE"
            } else if running == count {
                "ALL"
            } else {
                "SOME"
            }
        );
        Ok(ExitCode::SUCCESS)
    }

    async fn verify_idle(&mut self) -> anyhow::Result<ExitCode> {
        let mut running: u8 = 0;
        for id in all(&Arc::clone(&self.plan)) {
            if self.run(id, Operation::Status).await? == Outcome::Running {
                running = running.saturating_add(1);
                errln!("CRITICAL: Resource {} is active, and should not be!", self.text(id));
                errln!("CRITICAL: Non-idle resources can affect data integrity!");
            }
        }
        Ok(ExitCode::from(running))
    }

    async fn take(&mut self, group: GroupIndex) -> anyhow::Result<ExitCode> {
        for id in members(&self.plan, group) {
            if self.run(id, Operation::Status).await? == Outcome::Running {
                continue;
            }
            let outcome = self.run(id, Operation::Start).await?;
            if outcome != Outcome::Ok {
                errln!("locum: Giving up resources due to failure of {}: {outcome}", self.text(id));
                self.give(group).await?;
                return Ok(ExitCode::FAILURE);
            }
        }
        self.announce().await;
        Ok(ExitCode::SUCCESS)
    }

    async fn give(&mut self, group: GroupIndex) -> anyhow::Result<ExitCode> {
        for id in members(&self.plan, group).rev() {
            let mut tries = 1;
            loop {
                let outcome = self.run(id, Operation::Stop).await?;
                if outcome == Outcome::Ok {
                    break;
                }
                if tries == STOP_TRIES {
                    // Resources before it in the line may not be stopped while it runs.
                    bail!(
                        "{} cannot be stopped: {outcome}; stop it by hand, then run this command again",
                        self.text(id)
                    );
                }
                tries += 1;
                sleep(STOP_PAUSE).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("node1", "node1", true),
            ("NODE1", "node1", true),
            ("node1", "node11", false),
            ("node", "node1", false),
            (".*", "node1", true),
            ("node.", "node1", true),
            ("node.*", "node", true),
            ("n*ode1", "nnnode1", true),
            ("n*ode1", "ode1", true),
            (".*2", "node1", false),
            ("a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("", "node1", false),
        ] {
            assert_eq!(NodePattern::read(pattern).unwrap().matches(name), matches, "{pattern} {name}");
        }
        for bad in ["*", "node[12]", "a|b", "^a"] {
            assert!(NodePattern::read(bad).unwrap_err().to_string().contains("pattern"), "{bad}");
        }
    }
}
