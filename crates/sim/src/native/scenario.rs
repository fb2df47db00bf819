//! Random scenarios. First the cluster suffers faults while the simulation checks its invariants. Then everything is
//! healed and started, and every group that can run must run exactly once within a stated time. A seed that fails is
//! shortened and printed.

use std::{fmt::Write as _, panic};

use super::{
    fault_schedule::FaultSchedule,
    faults::{Agents, KINDS, ScenarioStep},
    world::NativeWorld,
};
use crate::{rng::Rng, shorten::shortened};

/// The seeds from here on are clusters of two nodes without a witness.
pub const PAIRS: u64 = 1 << 32;

/// A cluster and the faults that happen to it.
#[derive(Clone, Debug)]
pub struct NativeScenario {
    seed: u64,
    toml: String,
    members: usize,
    pace: u64,
    founded: bool,
    is_unruly: bool,
    steps: Vec<ScenarioStep>,
}

/// Counts of the scenarios played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Scenarios that were played.
    pub scenarios: u64,
    /// Simulated time in milliseconds.
    pub millis: u64,
    /// Scenarios in which a group got another owner.
    pub with_takeover: u64,
    /// Scenarios in which two machines in single-vote mode owned a group at the same time.
    pub with_two_owners: u64,
    /// Scenarios with each kind of fault, see [`KINDS`].
    pub kinds: [u64; KINDS.len()],
    /// Digest of all events; equal for the same scenarios in any order.
    pub digest: u64,
}

impl Counts {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.scenarios += other.scenarios;
        self.millis += other.millis;
        self.with_takeover += other.with_takeover;
        self.digest = self.digest.wrapping_add(other.digest);
        self.with_two_owners += other.with_two_owners;
        self.kinds.iter_mut().zip(other.kinds).for_each(|(sum, more)| *sum += more);
    }
}

impl NativeScenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self::make(seed, false)
    }

    /// The scenario of a seed in which most groups form a family.
    #[must_use]
    pub fn of_family(seed: u64) -> Self {
        Self::make(seed, true)
    }

    fn make(seed: u64, is_family: bool) -> Self {
        let mut rng = Rng::new(seed);
        let (nodes, witness) =
            *rng.pick(&[(2, true), (2, true), (3, false), (3, false), (4, true), (5, false)]);
        let (nodes, witness) = if seed < PAIRS { (nodes, witness) } else { (2, false) };
        let pace = *rng.pick(&[300, 1000, 1000, 1000]);
        let groups = 1 + usize::from(is_family) + usize::try_from(rng.below(4)).unwrap_or(0);
        let toml = cluster(&mut rng, nodes, witness, pace, groups, is_family);
        let members = nodes + usize::from(witness);
        let founded = rng.chance(90);
        let mut steps = vec![ScenarioStep::Wait(pace * 8)];
        let mut scars = Scars { file_lost: false, members, nodes, groups };
        // Some scenarios lead to states where a single rule keeps the cluster safe; chance alone seldom gets there.
        let schedule = matches!(seed % 10, 6 | 9).then_some(FaultSchedule { pace, members, nodes, groups });
        for _ in 0..3 + rng.below(15) {
            match &schedule {
                Some(schedule) if rng.chance(30) => steps.extend(schedule.steps(&mut rng)),
                _ => steps.extend(scars.step(&mut rng)),
            }
            if seed >= PAIRS && rng.chance(15) {
                // Long enough that both become owners.
                steps.extend([ScenarioStep::Split(1), ScenarioStep::Wait(pace * 2 + rng.below(pace * 4))]);
                steps.extend(rng.chance(70).then_some(ScenarioStep::Heal));
            }
            if rng.chance(80) {
                let longest = if rng.chance(50) { pace / 2 } else { pace * 6 };
                steps.push(ScenarioStep::Wait(1 + rng.below(longest)));
            }
        }
        Self { seed, toml, members, pace, founded, is_unruly: rng.chance(30), steps }
    }

    /// The steps that heal all faults.
    fn heal(&self) -> Vec<ScenarioStep> {
        let members = 0..self.members;
        let groups = 0..self.toml.matches("[groups.").count();
        let works =
            move |member| groups.clone().map(move |group| ScenarioStep::Agents(member, group, Agents::Work));
        let whole = members.clone().flat_map(move |member| {
            let step = [
                ScenarioStep::Freeze(member, false),
                ScenarioStep::Pause(member, false),
                ScenarioStep::BreakDisk(member, false),
            ];
            step.into_iter().chain(works(member))
        });
        // A daemon whose disk failed sends nothing more in this run; an administrator starts it again.
        let again =
            members.clone().flat_map(|member| [ScenarioStep::Kill(member), ScenarioStep::Start(member)]);
        // One order would be enough, but the member that could give it may not run.
        let pins = (0..self.toml.matches("[groups.").count()).map(Some).chain([None]);
        let free = pins
            .flat_map(|group| (0..self.members).map(move |member| ScenarioStep::Pin(member, group, false)));
        let online = members
            .flat_map(|member| [ScenarioStep::Start(member), ScenarioStep::Standby(member, false)])
            .chain(free);
        let online: Vec<ScenarioStep> = online.collect();
        let mut steps: Vec<ScenarioStep> =
            [ScenarioStep::Heal, ScenarioStep::Calm].into_iter().chain(whole).collect();
        steps.push(ScenarioStep::Wait(self.pace * 4));
        if self.steps.iter().any(|step| matches!(step, ScenarioStep::BreakDisk(_, true))) {
            steps.extend(again);
        }
        steps.extend(online.clone());
        steps.push(ScenarioStep::Wait(self.pace * 8 + 2000));
        // A failure that a pin held back may have happened once more.
        steps.extend(online);
        steps.push(ScenarioStep::Wait(self.pace * 8 + 2000));
        // A node that was told to leave may have taken its time, and starts again only now.
        steps.extend((0..self.members).map(ScenarioStep::Start));
        steps.push(ScenarioStep::Wait(self.pace * 8 + 10_000));
        steps
    }

    /// Plays it and returns the counts.
    ///
    /// # Errors
    /// A broken invariant, or a group that does not run exactly once at the end; with the last lines of the log.
    pub fn play(&self) -> Result<Counts, String> {
        // The log is written only for a failure: a scenario that fails once fails again.
        self.try_play(false).or_else(|_| self.try_play(true))
    }

    fn fails(&self) -> bool {
        self.try_play(false).is_err()
    }

    fn try_play(&self, logs: bool) -> Result<Counts, String> {
        // A director that panics is a fault like any other, and its seed is printed, too.
        panic::catch_unwind(|| {
            self.play_in(NativeWorld::new(&self.toml, self.seed, self.founded, self.is_unruly, logs))
        })
        .unwrap_or_else(|_| Err("a panic (see above)".into()))
    }

    fn play_in(&self, mut world: NativeWorld) -> Result<Counts, String> {
        let mut counts = Counts { scenarios: 1, ..Counts::default() };
        for step in self.steps.iter().copied().chain(self.heal()) {
            if let ScenarioStep::Wait(millis) = step {
                counts.millis += millis;
            }
            if let Some(kind) = step.kind() {
                counts.kinds[kind] = 1;
            }
            world.play(step).map_err(|fault| format!("{fault}\nthe log:\n{}", world.log()))?;
        }
        let ends = (0..world.groups()).find_map(|group| world.is_where_it_belongs(group).err());
        if let Some(fault) = ends {
            return Err(format!("at the end {fault}\nthe log:\n{}", world.log()));
        }
        counts.with_takeover = u64::from(world.takeovers > 0);
        counts.digest = world.digest;
        counts.with_two_owners = u64::from(world.both_own > 0);
        Ok(counts)
    }

    /// The shortest scenario found that still fails.
    #[must_use]
    pub fn shortened(&self) -> Self {
        let with = |steps: &[ScenarioStep]| Self { steps: steps.to_vec(), ..self.clone() };
        with(&shortened(&self.steps, |steps| with(steps).fails()))
    }

    /// The scenario as text: seed, configuration and steps.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "# seed {}, founded {}, unruly {}\n{}",
            self.seed, self.founded, self.is_unruly, self.toml
        );
        for step in &self.steps {
            let _ = writeln!(text, "{step}");
        }
        text
    }
}

/// Plays the scenario of a seed. If it fails, returns the report with the shortened scenario.
///
/// # Errors
/// The report of the failure.
pub fn check(seed: u64) -> Result<Counts, String> {
    check_scenario(seed, &NativeScenario::of(seed))
}

/// Plays the scenario of a seed in which most groups form a family.
///
/// # Errors
/// The report of the failure.
pub fn check_family(seed: u64) -> Result<Counts, String> {
    check_scenario(seed, &NativeScenario::of_family(seed))
}

fn check_scenario(seed: u64, scenario: &NativeScenario) -> Result<Counts, String> {
    let first = match scenario.play() {
        Ok(counts) => return Ok(counts),
        Err(first) => first,
    };
    let short = scenario.shortened();
    let text = short.play().err().unwrap_or(first);
    Err(format!("seed {seed} fails: {text}\n--- shortened:\n{}", short.text()))
}

/// The faults that happened so far, as far as later steps depend on them.
struct Scars {
    /// If more than one file is lost, an administrator must act; so only one is.
    file_lost: bool,
    members: usize,
    nodes: usize,
    groups: usize,
}

impl Scars {
    fn step(&mut self, rng: &mut Rng) -> Vec<ScenarioStep> {
        let any = |rng: &mut Rng, end: usize| usize::try_from(rng.below(end as u64)).unwrap_or(0);
        let member = any(rng, self.members);
        let node = any(rng, self.nodes);
        let group = any(rng, self.groups);
        match rng.below(30) {
            0..=2 => vec![ScenarioStep::PowerOff(member)],
            3..=6 => vec![ScenarioStep::Start(member)],
            7 | 8 => vec![ScenarioStep::Kill(member)],
            9 | 10 => vec![ScenarioStep::Freeze(member, true)],
            11 => vec![ScenarioStep::Freeze(member, false)],
            12 => {
                vec![
                    ScenarioStep::Pause(member, true),
                    ScenarioStep::Wait(1 + rng.below(5000)),
                    ScenarioStep::Pause(member, false),
                ]
            }
            13 | 14 => {
                vec![ScenarioStep::Cut(member, (member + 1 + any(rng, self.members - 1)) % self.members)]
            }
            15 => {
                vec![ScenarioStep::Split(u32::try_from(1 + rng.below((1 << self.members) - 2)).unwrap_or(1))]
            }
            16..=18 => vec![ScenarioStep::Heal],
            19 => vec![ScenarioStep::Lose(*rng.pick(&[5, 10, 20, 40]))],
            20 if !self.file_lost => {
                self.file_lost = true;
                vec![ScenarioStep::LoseFile(member)]
            }
            21 if rng.chance(30) => vec![ScenarioStep::BreakDisk(member, true)],
            22 => vec![ScenarioStep::Agents(
                node,
                group,
                *rng.pick(&[Agents::FailToStart, Agents::HangAtStart, Agents::FailToStop, Agents::Missing]),
            )],
            23 => vec![ScenarioStep::Agents(node, group, Agents::Work)],
            24 | 25 => {
                let to = rng.chance(50).then(|| any(rng, self.nodes));
                vec![ScenarioStep::Move(node, group, to)]
            }
            26 => vec![ScenarioStep::Standby(node, true)],
            27 => vec![ScenarioStep::Standby(node, false)],
            28 => vec![ScenarioStep::Leave(node)],
            _ => {
                vec![ScenarioStep::Pin(
                    node,
                    (group < member).then_some(group),
                    !(member + group).is_multiple_of(3),
                )]
            }
        }
    }
}

fn cluster(rng: &mut Rng, nodes: usize, witness: bool, pace: u64, groups: usize, is_family: bool) -> String {
    let names = ["a", "b", "c", "d", "e"];
    let mut text = format!("cluster = \"seed\"\npace = \"{pace}ms\"\n");
    for (index, name) in names[..nodes].iter().enumerate() {
        let _ = write!(text, "[nodes.{name}]\nlinks = {{ lan = \"10.0.0.{}\" }}\n", index + 1);
    }
    if witness {
        text.push_str("[witnesses.w]\naddress = \"10.0.0.9\"\n");
    }
    for group in 0..groups {
        let _ =
            write!(text, "[groups.g{group}]\nresources = [\"10.0.0.{}\", \"daemon{group}\"]\n", 100 + group);
        let guard = if nodes + usize::from(witness) > 2 { "lease" } else { "none" };
        let _ = writeln!(text, "guard = \"{guard}\"");
        text.push_str("start-limit = \"5s\"\nstop-limit = \"5s\"\nterminate-limit = \"2s\"\n");
        if rng.chance(40) {
            let _ = writeln!(text, "prefer = \"{}\"", rng.pick(&names[..nodes]));
            if rng.chance(50) {
                text.push_str("failback = \"5s\"\n");
            }
        }
        if group > 0 && is_family && rng.chance(80) {
            text.push_str("together = [\"g0\"]\n");
            // One resource may fail on a node on which the others run.
            if rng.chance(30) {
                text.push_str("restarts = 0\n");
            }
        } else if group > 0 && rng.chance(20) {
            let relation =
                rng.pick(&["together = [\"g0\"]", "apart = [\"g0\"]", "after = \"g0\"", "spread = \"s\""]);
            let _ = writeln!(text, "{relation}");
        }
    }
    text
}
