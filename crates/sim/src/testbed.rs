//! Plays a story on a testbed: the simulation ([`crate::simulation::Simulation`]) or a rack of real daemons.

use std::{collections::BTreeMap, net::IpAddr, path::Path, time::Duration};

use crate::{
    story::{self, Command, Story, StoryStep},
    transcript::{self, Fact, Holder, Transcript},
};

/// A testbed that can play stories. All that it reports is seen from outside of the daemons.
pub trait Testbed {
    /// Performs any command but `settle`. For an order, waits for the answer and returns its word.
    ///
    /// # Errors
    /// If the command could not be performed, or a check of the testbed found a fault.
    fn perform(&mut self, command: &Command) -> Result<Option<String>, String>;

    /// Lets time pass until nothing has changed for `quiet`: no fact came, and no agent's operation still runs. Returns
    /// how long after the call the last change was seen.
    ///
    /// # Errors
    /// If it does not become quiet within two minutes, or a check of the testbed found a fault.
    fn settle(&mut self, quiet: Duration) -> Result<Duration, String>;

    /// The facts seen since the last call, in the order in which they happened.
    fn facts(&mut self) -> Vec<Fact>;

    /// The nodes on which any resource of a group runs.
    fn holders(&mut self, cluster: usize, group: usize) -> Vec<Holder>;

    /// The host that answers the client at this address. The client's neighbour cache is left as it is.
    fn client(&mut self, address: IpAddr) -> Option<String>;

    /// Frames lost and frames offered on the lossy links since the last `lose`; `None` when it does not matter.
    fn losses(&mut self) -> Option<(u64, u64)>;

    /// How much later than told an event may be seen: added to the time of a `within`.
    fn slack(&self) -> Duration;
}

/// The environment variable that makes [`check`] rewrite the expected part.
pub const REWRITE: &str = "LOCUM_REWRITE";

/// Plays a story on a testbed and returns the transcript.
///
/// # Errors
/// With the step's line, if the testbed found a fault or a step missed its time.
pub fn play(story: &Story, testbed: &mut dyn Testbed) -> Result<String, String> {
    let mut transcript = Transcript::default();
    let mut after_start = false;
    let mut losing = None;
    for step in &story.steps {
        after_start |= matches!(step.command, Command::Start(_) | Command::PowerOn(_));
        let told = play_step(story, step, testbed, &mut transcript, after_start, &mut losing);
        if let Err(text) = told {
            transcript.see(testbed.facts());
            transcript.tell(story);
            let before = transcript.into_text();
            return Err(format!(
                "{}.story:{}: `{}`: {text}\nuntil then:\n{before}",
                story.name, step.line, step.text
            ));
        }
        if matches!(step.command, Command::Settle { .. }) {
            after_start = false;
        }
    }
    Ok(transcript.into_text())
}

fn play_step(
    story: &Story,
    step: &StoryStep,
    testbed: &mut dyn Testbed,
    transcript: &mut Transcript,
    after_start: bool,
    losing: &mut Option<u8>,
) -> Result<(), String> {
    transcript.step(step);
    match &step.command {
        Command::Settle { within } => {
            let took = testbed.settle(story.quiet(after_start))?;
            if let Some(within) = within
                && took > *within + testbed.slack()
            {
                return Err(format!("the last change came after {took:.3?}"));
            }
            transcript.see(testbed.facts());
            transcript.tell(story);
            write_owners(story, testbed, transcript);
        }
        command => {
            if let Command::Lose { percent, .. } = command {
                check_losses(*losing, testbed)?;
                *losing = Some(*percent);
            }
            if let Some(word) = testbed.perform(command)? {
                transcript.answer(&word);
            }
            if matches!(command, Command::Wait(_)) {
                transcript.see(testbed.facts());
                transcript.tell(story);
            }
        }
    }
    Ok(())
}

/// Checks that the frames really were lost at the rate that the story tells.
fn check_losses(percent: Option<u8>, testbed: &mut dyn Testbed) -> Result<(), String> {
    let Some(percent) = percent.filter(|&percent| percent > 0) else { return Ok(()) };
    let Some((lost, offered)) = testbed.losses() else { return Ok(()) };
    let wanted = u64::from(percent);
    let share = lost * 100 / offered.max(1);
    if offered < 100 || share + 5 < wanted || share > wanted + 5 {
        return Err(format!("{lost} of {offered} frames were lost, which is not {percent} %"));
    }
    Ok(())
}

fn write_owners(story: &Story, testbed: &mut dyn Testbed, transcript: &mut Transcript) {
    let mut addresses: BTreeMap<IpAddr, bool> = BTreeMap::new();
    for (cluster, c) in story.clusters.iter().enumerate() {
        for group in 0..c.groups.len() {
            let holders = testbed.holders(cluster, group);
            transcript.owner(story, cluster, group, &holders);
            for address in c.resources(group).iter().filter_map(|text| story::address_of(text)) {
                addresses.insert(address, holders.len() == 1);
            }
        }
    }
    for (address, _) in addresses.into_iter().filter(|(_, one_has_it)| *one_has_it) {
        let host = testbed.client(address);
        transcript.client(address, host.as_deref());
    }
}

/// Plays a story and compares the transcript. With [`REWRITE`] in the environment, writes it into the file instead.
///
/// # Errors
/// What went wrong, or the difference between the expected and the seen transcript.
pub fn check(path: &Path, story: &Story, testbed: &mut dyn Testbed) -> Result<(), String> {
    let seen = play(story, testbed)?;
    if seen == story.expected {
        return Ok(());
    }
    if std::env::var_os(REWRITE).is_some() {
        return std::fs::write(path, story.rewritten(&seen)).map_err(|e| format!("{}: {e}", path.display()));
    }
    let difference = transcript::difference(&story.expected, &seen);
    Err(format!(
        "{}: the transcript differs ({REWRITE}=1 writes the new one into the file):\n{difference}",
        path.display()
    ))
}
