//! The log has the texts that administrators and their tools search for, and loud ones only when something is wrong.
//! Source: `docs/heartbeat.md`, section 11.

use std::path::{Path, PathBuf};

use locum_core::model::note::Level;
use locum_sim::{simulation::Simulation, story::Story, testbed};

/// Stories in which something goes wrong: they may have lines above a warning. All other stories are ordinary
/// operation.
const GONE_WRONG: [&str; 17] = [
    "daemon-frozen",
    "fence-fails",
    "fence-first-alone",
    "fence-retried",
    "fence-returns",
    "hanging-script",
    "hanging-stop",
    "idle-frozen",
    "keys-differ",
    "partition",
    "partition-active-active",
    "partition-moved",
    "partition-one-way",
    // Its files differ for good: only one node has `auto_failback off`.
    "renew-all",
    "start-apart",
    "start-failure",
    "stop-failure",
];

/// Parts of log lines that the stories must produce.
const LOG_TEXTS: [&str; 46] = [
    "Heartbeat generation: ",
    "Local status now set to: 'up'",
    "Local status now set to: 'active'",
    "Link clustnode1:eth1 up.",
    "Link clustnode1:eth1 dead.",
    "Status update for node clustnode2: status up",
    "Status update for node clustnode2: status active",
    "Comm_now_up(): updating status to active",
    "node clustnode1: is dead",
    "Late heartbeat: Node clustnode1: interval ",
    "Heartbeat restart on node clustnode1",
    "Cluster node clustnode1 returning after partition.",
    " lost packet(s) for [clustnode1] [",
    "No pkts missing from clustnode1!",
    "should_drop_message: attempted replay attack [clustnode1]? [gen = ",
    "Resources being acquired from clustnode1.",
    "remote resource transition completed.",
    "Initial resource acquisition complete (",
    "Local Resource acquisition completed.",
    "Local Resource acquisition completed. (none)",
    "mach_down takeover complete.",
    "Taking over resource group 172.23.2.14",
    "Acquiring resource group: clustnode1 172.23.2.14 httpd",
    "Releasing resource group: clustnode1 172.23.2.14 httpd",
    "Running httpd start",
    "Running httpd stop",
    "clustnode1 wants to go standby [all]",
    "standby: clustnode2 can take our all resources",
    "standby: acquire [all] resources from clustnode1",
    "give up all HA resources (standby).",
    "all HA resource release completed (standby).",
    "Local standby process completed [all].",
    "Standby resource acquisition done [all].",
    "Other node completed standby takeover of all resources.",
    "Both machines own our resources!",
    "Resetting node clustnode1 with [null]",
    "node clustnode1 now reset.",
    "STONITH of clustnode1 failed.  Retrying...",
    "Dead node clustnode2 gave up resources.",
    "No STONITH device configured",
    "Shared disks are not protected.",
    "Heartbeat shutdown in progress.",
    "Received shutdown notice from 'clustnode1'.",
    "Giving up all HA resources.",
    "All HA resources relinquished.",
    "clustnode1 Heartbeat shutdown complete.",
];

fn notes(story: &Story) -> Vec<(Level, String)> {
    let mut simulation = Simulation::new(story, 1).expect("a good cluster");
    testbed::play(story, &mut simulation).expect("a good story");
    simulation.world.notes.iter().map(|noted| (noted.note.level, noted.note.text.clone())).collect()
}

fn stories() -> Vec<Story> {
    let directory: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/stories");
    Story::read_all(&directory).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn ordinary_operation_has_no_errors() {
    let mut faults = Vec::new();
    for story in stories() {
        let loud: Vec<String> = notes(&story)
            .into_iter()
            .filter(|(level, _)| *level > Level::Warning)
            .map(|(_, text)| text)
            .collect();
        if GONE_WRONG.contains(&story.name.as_str()) == loud.is_empty() {
            faults.push(format!("{}: {loud:?}", story.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_stories_log_the_texts_that_are_searched_for() {
    let said: Vec<String> = stories().iter().flat_map(notes).map(|(_, text)| text).collect();
    let missing: Vec<&str> =
        LOG_TEXTS.into_iter().filter(|words| !said.iter().any(|text| text.contains(words))).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
