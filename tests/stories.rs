//! The stories of `tests/stories` on their second testbed: the daemons are processes on a rack, and are judged from
//! outside. Each story is one test; where no rack can be built, one line says so.
//!
//! usage: `cargo test --test stories [-- STORY …]`; `--test-threads N` plays N at a time.

use std::{path::Path, process::ExitCode, sync::Mutex};

use libtest_mimic::{Arguments, Trial};
use locum_lab::{Description, Fault, Rack};
use locum_sim::{story::Story, testbed::play, transcript};

mod testbed;

/// Stories mostly wait, so more of them can run at once than a small machine has processors.
const RACKS_AT_ONCE: usize = 4;

/// Measurements of the stories, printed at the end.
static MEASURED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(RACKS_AT_ONCE);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let stories = match Story::read_all(&directory) {
        Ok(stories) => stories.into_iter().filter(|story| !story.is_for_simulator()).collect::<Vec<_>>(),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let missing = if arguments.list { None } else { what_is_missing() };
    if let Some(missing) = &missing {
        println!("skipped: {} stories on racks: {missing}", stories.len());
    }
    let trial = |story: Story| {
        let name = format!("story::{}", story.name.replace('-', "_"));
        Trial::test(name, move || play_and_compare(&story).map_err(Into::into))
            .with_ignored_flag(missing.is_some())
    };
    let conclusion = libtest_mimic::run(&arguments, stories.into_iter().map(trial).collect());
    let mut measured = MEASURED.lock().map(|lines| lines.clone()).unwrap_or_default();
    measured.sort();
    measured.iter().for_each(|line| println!("measured: {line}"));
    conclusion.exit_code()
}

/// The reason why this process cannot build racks, in one line.
fn what_is_missing() -> Option<String> {
    let tried = locum_lab::enter()
        .and_then(|()| Rack::build(Description::new(Path::new(testbed::LOCUM)).node("node")));
    match tried {
        Err(missing @ Fault::Missing { .. }) => Some(missing.to_string().replace('\n', "; ")),
        // Any other error is a fault of the rack, which the stories will show.
        _ => None,
    }
}

/// Plays a story and compares the result with its expected text.
fn play_and_compare(story: &Story) -> Result<(), String> {
    let mut stage = testbed::RackTestbed::new(story)?;
    let told = play(story, &mut stage).and_then(|seen| {
        if seen == story.expected {
            stage.check_logs()
        } else {
            Err(format!("another story was seen:\n{}", transcript::difference(&story.expected, &seen)))
        }
    });
    if let Ok(mut lines) = MEASURED.lock() {
        lines.extend(stage.measured.iter().map(|line| format!("{}: {line}", story.name)));
    }
    told.map_err(|text| format!("{text}\n{}", stage.logs()))
}
