//! Three Debian machines under a real systemd: two nodes and a witness run Locum as its unit file says, with groups of
//! scripts and of systemd units. Checks look inside the machines at the resources that run (`docs/lab.md`).

mod machine;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

pub use machine::{Machine, write};

use crate::{
    clock::{Moment, await_some, pause},
    description::Description,
    fault::Fault,
    rack::Rack,
};

/// The root that `scripts/machines` makes, in the repository.
pub const ROOT: &str = "target/machines/bookworm";

const NODES: [&str; 2] = ["web1", "web2"];
const WITNESS: &str = "third";
const KEY: &str = "8f1d9a54c8e0b7a3f26c5d4e1b0a99887766554433221100ffeeddccbbaa0099";
const SCRIPT: &str = r#"#!/bin/sh
name=${0##*/}
case $1 in
start) echo $$ >/run/$name.running;;
stop) rm -f /run/$name.running;;
status) if [ -e /run/$name.running ]; then echo running; else echo stopped; exit 3; fi;;
esac
"#;
/// Longest time after a step until all groups run.
const PATIENCE: Duration = Duration::from_secs(120);
/// A daemon that is told to stop stops its groups, one second each at most, and hands them over.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// The options of a trial on machines.
#[derive(Clone, Debug)]
pub struct MachineTrial {
    /// The program under test.
    pub program: PathBuf,
    /// The directory with the machines' root.
    pub root: PathBuf,
    /// Locum's unit files: name and text.
    pub units: Vec<(String, String)>,
    /// Number of groups, half of them scripts, half units.
    pub groups: usize,
    /// Number of groups that are moved, one after the other.
    pub moves: usize,
    /// How often a node's daemon is restarted by systemd.
    pub restarts: usize,
    /// How often a node's daemon is told to reload and, at once, to stop.
    pub reload_stops: usize,
}

/// The result of a trial on machines.
#[derive(Clone, Debug, Default)]
pub struct MachineTrialResult {
    /// The steps of the trial, with the time that each took.
    pub steps: Vec<(String, Duration)>,
    /// The errors found; empty in a good trial.
    pub wrong: Vec<String>,
    /// The last lines of the nodes' journals, if there was an error.
    pub journals: String,
}

/// Builds the machines and plays all steps of the trial.
///
/// # Errors
/// [`Fault::Missing`] where there is no root, no systemd-nspawn, or no rack; [`Fault::Description`] if a machine does
/// not boot.
pub fn play(trial: &MachineTrial, tell: &mut dyn FnMut(&str)) -> Result<MachineTrialResult, Fault> {
    let mut stage = MachineTestbed::build(trial)?;
    stage.step("first start", tell, MachineTestbed::enable);
    for turn in 0..trial.moves {
        let group = turn % trial.groups.max(1);
        stage.step(&format!("move {}", name_of(group)), tell, |stage| stage.move_away(group));
    }
    for turn in 0..trial.restarts {
        let node = NODES[turn % NODES.len()];
        stage.step(&format!("restart on {node}"), tell, |stage| {
            stage.systemctl(node, &["restart", "locum"], STOP_LIMIT)
        });
    }
    for turn in 0..trial.reload_stops {
        let node = NODES[turn % NODES.len()];
        stage.step(&format!("reload and stop at once on {node}"), tell, |stage| stage.reload_and_stop(node));
    }
    stage.check_journals();
    let lost = stage.owner_of(0).unwrap_or(NODES[0]);
    stage.step(&format!("power loss of {lost}"), tell, |stage| stage.cut_power(lost));
    stage.check_journals();
    Ok(stage.seen)
}

struct MachineTestbed {
    /// Declared before the rack: the machines must end first.
    machines: BTreeMap<&'static str, Machine>,
    rack: Rack,
    groups: usize,
    seen: MachineTrialResult,
}

fn name_of(group: usize) -> String {
    if group.is_multiple_of(2) { format!("script{group}") } else { format!("unit{group}") }
}

fn locum_toml(groups: usize) -> String {
    let mut file = String::from("cluster = \"machines\"\npace = \"2s\"\n");
    for (number, node) in NODES.iter().enumerate() {
        let host = number + 1;
        let _ =
            writeln!(file, "nodes.{node}.links = {{ front = \"10.8.0.{host}\", back = \"10.9.0.{host}\" }}");
    }
    let _ = writeln!(file, "witnesses.{WITNESS}.address = \"10.8.0.9\"");
    for group in 0..groups {
        let name = name_of(group);
        let kind = if group.is_multiple_of(2) { "script" } else { "unit" };
        let prefer = NODES[group / 2 % NODES.len()];
        let _ =
            writeln!(file, "[groups.{name}]\nresources = [{{ {kind} = \"{name}\" }}]\nprefer = \"{prefer}\"");
    }
    file
}

impl MachineTestbed {
    fn build(trial: &MachineTrial) -> Result<Self, Fault> {
        if !trial.root.is_dir() {
            return Err(machine::absent("a root for Debian machines", "scripts/machines"));
        }
        machine::sweep_leftovers();
        let [one, two] = NODES;
        let mut description = Description::new(&trial.program)
            .node(one)
            .node(two)
            .node(WITNESS)
            .segment(
                "front",
                &[
                    (one, "eth0", "10.8.0.1/24"),
                    (two, "eth0", "10.8.0.2/24"),
                    (WITNESS, "eth0", "10.8.0.9/24"),
                ],
            )
            .segment("back", &[(one, "eth1", "10.9.0.1/24"), (two, "eth1", "10.9.0.2/24")]);
        description.machine_root = Some(trial.root.clone());
        let rack = Rack::build(description)?;
        let mut stage = Self {
            machines: BTreeMap::new(),
            rack,
            groups: trial.groups,
            seen: MachineTrialResult::default(),
        };
        for node in [one, two, WITNESS] {
            stage
                .furnish(trial, node)
                .map_err(|error| Fault::Kernel { doing: format!("furnish {node}"), error })?;
            stage.boot(node)?;
        }
        Ok(stage)
    }

    fn furnish(&self, trial: &MachineTrial, node: &str) -> std::io::Result<()> {
        let put = |path: &str, text: &str, mode| write(&self.rack, node, path, text, mode);
        put("/etc/locum/locum.toml", &locum_toml(trial.groups), 0o600)?;
        put("/etc/locum/locum.key", &format!("{KEY}\n"), 0o600)?;
        for (name, text) in &trial.units {
            put(&format!("/etc/systemd/system/{name}"), text, 0o644)?;
        }
        for group in 0..trial.groups {
            let name = name_of(group);
            if group.is_multiple_of(2) {
                put(&format!("/etc/locum/resource.d/{name}"), SCRIPT, 0o755)?;
            } else {
                let unit = "[Service]\nExecStart=/bin/sleep infinity\n";
                put(&format!("/etc/systemd/system/{name}.service"), unit, 0o644)?;
            }
        }
        Ok(())
    }

    fn boot(&mut self, node: &'static str) -> Result<(), Fault> {
        let machine = Machine::boot(&self.rack, node)?;
        self.machines.insert(node, machine);
        Ok(())
    }

    fn run(&self, node: &str, words: &[&str], limit: Duration) -> Result<String, String> {
        let machine = self.machines.get(node).ok_or_else(|| format!("{node} has no power"))?;
        match machine.run(&self.rack, words, limit) {
            Ok(outcome) if outcome.code == Some(0) => Ok(outcome.text),
            Ok(outcome) => {
                Err(format!("{node}: {}: {:?} {}", words.join(" "), outcome.code, outcome.text.trim()))
            }
            Err(error) => Err(format!("{node}: {}: {error}", words.join(" "))),
        }
    }

    fn systemctl(&self, node: &str, words: &[&str], limit: Duration) -> Result<(), String> {
        self.run(node, &[&["systemctl"], words].concat(), limit).map(drop)
    }

    /// Takes a step, and waits until every group runs on exactly one node.
    fn step(
        &mut self,
        name: &str,
        tell: &mut dyn FnMut(&str),
        act: impl FnOnce(&mut Self) -> Result<(), String>,
    ) {
        let begun = Moment::now();
        let done = act(self).and_then(|()| self.await_all(name));
        let took = Moment::now().since(begun);
        tell(&format!("{name}: {} after {took:.1?}", done.as_ref().map_or("WRONG", |()| "good")));
        self.seen.wrong.extend(done.err());
        self.seen.steps.push((name.into(), took));
    }

    /// Notes the errors in the journals, and the journals themselves, unless there was an error before.
    fn check_journals(&mut self) {
        for node in NODES {
            let failures = self.failures(node);
            self.seen.wrong.extend(failures);
        }
        if !self.seen.wrong.is_empty() && self.seen.journals.is_empty() {
            self.seen.journals = self.journals();
        }
    }

    fn enable(&mut self) -> Result<(), String> {
        let all = [WITNESS, NODES[0], NODES[1]];
        all.iter().try_for_each(|node| self.systemctl(node, &["enable", "--now", "locum"], PATIENCE))
    }

    /// The groups that run on a node, by the script's file or the unit's process.
    fn running_on(&self, node: &str) -> Vec<String> {
        if !self.machines.contains_key(node) {
            return Vec::new();
        }
        let look = "cd /run; for file in script*.running; do echo ${file%.running}; done; \
                    systemctl list-units --plain --no-legend --state=active 'unit*.service' | sed 's/[.]service.*//'";
        let said = self.run(node, &["sh", "-c", look], PATIENCE).unwrap_or_default();
        let mut names: Vec<_> =
            said.split_whitespace().map(String::from).filter(|name| name != "script*").collect();
        names.sort();
        names
    }

    fn owner_of(&self, group: usize) -> Option<&'static str> {
        let name = name_of(group);
        NODES.into_iter().find(|node| self.running_on(node).contains(&name))
    }

    /// Waits until every group runs on exactly one node.
    fn await_all(&self, after: &str) -> Result<(), String> {
        let all: Vec<_> = (0..self.groups).map(name_of).collect();
        let mut last = String::new();
        let good = await_some(PATIENCE, || {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            NODES
                .iter()
                .flat_map(|node| self.running_on(node))
                .for_each(|name| *counts.entry(name).or_default() += 1);
            let odd = all.iter().filter(|name| counts.get(*name) != Some(&1));
            last = odd
                .map(|name| format!("{name} x {}", counts.get(name).unwrap_or(&0)))
                .collect::<Vec<_>>()
                .join(", ");
            if !last.is_empty() {
                pause(Duration::from_millis(200));
            }
            last.is_empty().then_some(())
        });
        good.ok_or_else(|| format!("after {after}: not on exactly one node: {last}"))
    }

    fn move_away(&self, group: usize) -> Result<(), String> {
        let owner = self.owner_of(group).ok_or("it runs nowhere")?;
        let other = if owner == NODES[0] { NODES[1] } else { NODES[0] };
        let name = name_of(group);
        self.run(owner, &["locum", "move", &name, other], PATIENCE)?;
        // The command returns when the group is released to the other node, which then starts it.
        let runs = await_some(PATIENCE, || self.running_on(other).contains(&name).then_some(()));
        runs.ok_or_else(|| format!("{name} was moved to {other} and does not run there"))
    }

    fn reload_and_stop(&self, node: &str) -> Result<(), String> {
        // In the other order, systemd itself takes the stop back.
        let both = "systemctl --no-block reload locum; systemctl stop locum; systemctl is-active locum";
        let said = self.run(node, &["sh", "-c", &format!("{both} || true")], STOP_LIMIT)?;
        if said.trim() != "inactive" {
            return Err(format!("{node}: after reload and stop the unit is: {}", said.trim()));
        }
        match &self.running_on(node)[..] {
            [] => self.systemctl(node, &["start", "locum"], PATIENCE),
            left => Err(format!("{node}: its daemon has stopped, and these run on: {left:?}")),
        }
    }

    fn cut_power(&mut self, node: &'static str) -> Result<(), String> {
        self.rack.power_off(node).map_err(|error| error.to_string())?;
        self.machines.remove(node);
        Ok(())
    }

    /// Operations that failed, according to the daemon's journal.
    fn failures(&self, node: &str) -> Option<String> {
        if !self.machines.contains_key(node) {
            return None;
        }
        let words = ["journalctl", "--unit=locum", "--output=cat", "--priority=err", "--no-pager"];
        let said = self.run(node, &words, PATIENCE).unwrap_or_else(|error| error);
        let lines: Vec<_> =
            said.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("-- ")).collect();
        let few = lines.iter().take(5).copied().collect::<Vec<_>>().join(" / ");
        (!lines.is_empty()).then(|| format!("{node}: {} errors in its journal: {few}", lines.len()))
    }

    fn journals(&self) -> String {
        let words = ["journalctl", "--unit=locum", "--output=short-precise", "--lines=200", "--no-pager"];
        let of = |node: &&str| self.run(node, &words, PATIENCE).unwrap_or_else(|error| error);
        self.machines.keys().map(of).collect()
    }
}

/// The directory with the root for machines: the given one, or one in the repository where the program was built or
/// from which it was called.
#[must_use]
pub fn find_root(given: Option<&Path>, program: &Path) -> PathBuf {
    if let Some(root) = given {
        return root.canonicalize().unwrap_or_else(|_| root.to_owned());
    }
    let above = program.ancestors().skip(1).take(4).map(Path::to_owned);
    let places = above.chain([PathBuf::from(".")]).map(|place| place.join(ROOT));
    places
        .filter_map(|place| place.canonicalize().ok())
        .find(|place| place.is_dir())
        .unwrap_or_else(|| ROOT.into())
}
