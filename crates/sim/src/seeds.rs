//! Random scenarios. First the cluster suffers faults while the checks run. Then everything is healed and started, and
//! every group must run exactly once. If scripts failed, an administrator may have to act, and only the checks count. A
//! seed that fails is shortened and printed as a story file.

use std::path::Path;

use crate::{
    rng::Rng,
    shorten::shortened,
    simulation::Simulation,
    story::Story,
    testbed::{self, Testbed},
};

/// Steps that heal all faults and give every timer enough time.
const HEALED: [&str; 9] = [
    "heal all",
    "lose 0% all",
    "thaw clustnode1",
    "thaw clustnode2",
    "power-on clustnode1 clustnode2",
    "settle",
    "power-on clustnode1 clustnode2", // One of them may have been about to leave.
    "wait 45s",
    "settle",
];

/// A cluster and the faults that happen to it.
#[derive(Clone, Debug)]
pub struct R1Scenario {
    head: String,
    steps: Vec<String>,
    is_unruly: bool,
    /// Whether scripts fail and hang.
    is_faulty: bool,
}

impl R1Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let (head, groups_take) = cluster(&mut rng);
        let count = 3 + rng.below(18);
        let mut steps = vec![match rng.below(3) {
            0 => "start clustnode1".to_owned(),
            1 => "start clustnode2".to_owned(),
            _ => "start clustnode1 clustnode2".to_owned(),
        }];
        let is_faulty = rng.chance(25);
        for _ in 0..count {
            let broken = is_faulty && rng.chance(25);
            steps.push(if broken { break_script(&mut rng, &head) } else { step(&mut rng, &head) });
            if rng.chance(70) {
                let longest = if rng.chance(30) { 12_000 } else { groups_take };
                steps.push(format!("wait {}ms", rng.below(longest)));
            }
        }
        Self { head, steps, is_unruly: rng.chance(30), is_faulty }
    }

    /// The scenario as a story file, with an empty expected part.
    #[must_use]
    pub fn text(&self) -> String {
        let steps: Vec<&str> = self.steps.iter().map(String::as_str).chain(HEALED).collect();
        format!("{}\n{}\n", self.head, steps.join("\n"))
    }

    /// Plays it and returns the transcript.
    ///
    /// # Errors
    /// A broken invariant, or a group that does not run exactly once at the end.
    pub fn play(&self, seed: u64) -> Result<String, String> {
        // A director that panics is a fault like any other, and its seed is printed, too.
        std::panic::catch_unwind(|| self.try_play(seed))
            .unwrap_or_else(|_| Err("a panic (see above)".to_owned()))
    }

    fn try_play(&self, seed: u64) -> Result<String, String> {
        let story = Story::parse(Path::new("seed.story"), &self.text()).map_err(|error| error.to_string())?;
        let mut simulation = Simulation::new(&story, seed)?;
        simulation.is_patient = false;
        if self.is_unruly {
            simulation.make_unruly();
        }
        let told = testbed::play(&story, &mut simulation).and_then(|seen| {
            for group in 0..story.clusters[0].groups.len() {
                let holders = simulation.holders(0, group);
                let runs_once = holders.len() == 1 && holders[0].whole;
                if !runs_once && !self.is_faulty {
                    let key = story.clusters[0].group_key(group);
                    return Err(format!("at the end {key} does not run exactly once: {holders:?}\n{seen}"));
                }
            }
            Ok(seen)
        });
        told.map_err(|text| format!("{text}\nthe log:\n{}", simulation.log()))
    }

    /// The shortest scenario found that still fails.
    #[must_use]
    pub fn shortened(&self, seed: u64) -> Self {
        let with = |steps: &[String]| Self { steps: steps.to_vec(), ..self.clone() };
        with(&shortened(&self.steps, |steps| with(steps).play(seed).is_err()))
    }
}

/// Plays the scenario of a seed. If it fails, returns the report with the shortened scenario.
///
/// # Errors
/// The report of the failure.
pub fn check(seed: u64) -> Result<(), String> {
    let scenario = R1Scenario::of(seed);
    let Err(first) = scenario.play(seed) else { return Ok(()) };
    let short = scenario.shortened(seed);
    let text = short.play(seed).err().unwrap_or(first);
    let how = if short.is_unruly { " (on unruly links)" } else { "" };
    Err(format!("seed {seed}{how} fails: {text}\n--- shortened:\n{}", short.text()))
}

/// A cluster block, and the time in milliseconds in which its groups move.
fn cluster(rng: &mut Rng) -> (String, u64) {
    let (keepalive, deadtime) = *rng.pick(&[(100, 1000), (200, 2000), (100, 500)]);
    let mut lines = vec![
        "# Made from a seed.".to_owned(),
        "cluster".to_owned(),
        " nodes clustnode1 clustnode2".to_owned(),
        format!(" keepalive {keepalive}ms"),
        format!(" deadtime {deadtime}ms"),
        format!(" initdead {}ms", deadtime + 500 + rng.below(3000)),
        format!(" auto_failback {}", rng.pick(&["on", "off", "legacy"])),
        " baud 115200".to_owned(),
        " limit start 2s".to_owned(),
        " limit stop 2s".to_owned(),
        format!(" keys {}", rng.pick(&["auth 1; 1 crc", "auth 2; 1 crc; 2 sha1 secret", "auth 3; 3 md5 x"])),
    ];
    let links = ["link eth1 crossover", "link eth0 lan", "link ttyS0 serial"];
    let first = rng.below(3);
    for (at, link) in links.iter().enumerate() {
        if at as u64 == first || rng.chance(50) {
            lines.push(format!(" {link}"));
        }
    }
    let words = ["172.23.2.14 httpd", "172.23.2.15 mysql web", "cyrus", "172.23.2.16 ldap"];
    let count = 1 + usize::try_from(rng.below(4)).unwrap_or(0);
    for group in &words[..count] {
        lines.push(format!(" group {} {group}", rng.pick(&["clustnode1", "clustnode2"])));
    }
    let mut longest = 100;
    for script in words[..count].iter().flat_map(|line| line.split(' ')).filter(|word| !word.contains('.')) {
        for operation in ["start", "stop"] {
            let takes = if rng.chance(40) { 10 + rng.below(1500) } else { 20 };
            longest = longest.max(takes);
            lines.push(format!(" script {script} {operation} {takes}ms"));
        }
    }
    (lines.join("\n") + "\n", longest * 3 + 2 * deadtime)
}

fn step(rng: &mut Rng, head: &str) -> String {
    let node = *rng.pick(&["clustnode1", "clustnode2"]);
    let links: Vec<&str> = ["eth1", "eth0", "ttyS0"]
        .into_iter()
        .filter(|name| head.contains(&format!(" link {name} ")))
        .chain(["all", "all"])
        .collect();
    let link = rng.pick(&links);
    match rng.below(25) {
        0 | 1 => format!("power-off {node}"),
        2..=4 => format!("power-on {node}"),
        5 => format!("kill {node}"),
        6 | 7 => format!("start {node}"),
        8 => format!("freeze {node}"),
        9 => format!("thaw {node}"),
        10 | 11 => format!("cut {link}"),
        12 | 13 => format!("heal {link}"),
        14 => format!("cut {link} from {node}"),
        15 => format!("lose {}% all", rng.pick(&[0, 5, 20, 40])),
        16 => format!("stop {node}"),
        17 | 18 => "settle".to_owned(),
        19 | 20 => format!("standby {node} {}", rng.pick(&["all", "foreign", "local", "failback"])),
        21 | 22 => format!("renew {node} keepalive {}ms", rng.pick(&[80, 120, 150])),
        _ => format!("takeover {node} {}", rng.pick(&["all", "foreign", "local", "failback"])),
    }
}

/// A command that makes a script fail, hang, or work again.
fn break_script(rng: &mut Rng, head: &str) -> String {
    let scripts: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix(" script ")).collect();
    let Some(script) = rng.pick(&scripts).split(' ').next() else { return "wait 1s".to_owned() };
    let node = rng.pick(&["clustnode1", "clustnode2"]);
    let operation = rng.pick(&["start", "start", "stop"]);
    format!(
        "script {script} on {node} {operation} {}",
        rng.pick(&["fails", "fails", "hangs", "works", "works"])
    )
}
