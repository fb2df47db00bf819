//! Plays every file of `tests/stories` in the simulator. `LOCUM_REWRITE=1` writes the transcripts into the files.

use std::path::{Path, PathBuf};

use locum_sim::{
    simulation,
    story::{Command, Story},
    testbed::REWRITE,
};

/// Seeds for each story: the outcome must not depend on which node is a little faster.
const SEEDS: u64 = 5;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/stories")
}

#[test]
fn every_story_is_as_written() {
    let stories = Story::read_all(&directory()).unwrap_or_else(|error| panic!("{error}"));
    assert!(stories.len() >= 30, "only {} stories were found", stories.len());
    let seeds = if std::env::var_os(REWRITE).is_some() { 1 } else { SEEDS };
    let mut faults = Vec::new();
    for story in &stories {
        let path = directory().join(format!("{}.story", story.name));
        if let Some(fault) = (1..=seeds).find_map(|seed| simulation::play(&path, story, seed).err()) {
            faults.push(fault);
        }
    }
    assert!(faults.is_empty(), "{} of {} stories\n\n{}", faults.len(), stories.len(), faults.join("\n\n"));
}

#[test]
fn every_story_settles_before_it_ends() {
    for story in Story::read_all(&directory()).unwrap_or_else(|error| panic!("{error}")) {
        let last = story.steps.last().map(|step| &step.command);
        assert!(
            matches!(last, Some(Command::Settle { .. })),
            "{}: the last step is not `settle`",
            story.name
        );
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let stories = Story::read_all(&directory()).unwrap_or_else(|error| panic!("{error}"));
    let story = stories.iter().find(|story| story.name == "loss").expect("the story of losses");
    let play = |seed| {
        let mut simulation = simulation::Simulation::new(story, seed).expect("a good cluster");
        locum_sim::testbed::play(story, &mut simulation).expect("a good story");
        (simulation.world.frames, simulation.world.now, simulation.log())
    };
    assert_eq!(play(7), play(7));
    assert_ne!(play(7), play(8));
}
