//! Searches scenarios deeper than the tests do, and prints the outcomes.

use anyhow::{Result, bail};
use clap::Parser;
use locum_model::{
    scenario::SCENARIOS,
    search::{Limits, search},
};

/// Searches the states of the claims: every order of frames, crashes, writes and ticks within a scenario's budget.
#[derive(Parser)]
struct Arguments {
    /// Scenarios by name; all of them if none is given.
    names: Vec<String>,
    /// List the scenarios' names and exit.
    #[arg(long)]
    list: bool,
    /// Search no path longer than this many steps.
    #[arg(long)]
    depth: Option<usize>,
    /// End a search after this many states.
    #[arg(long)]
    states: Option<usize>,
    /// Number of threads. With one, a violation is found by a shortest path.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> Result<()> {
    let Arguments { names, list, depth, states, threads } = Arguments::parse();
    if let Some(name) = names.iter().find(|name| SCENARIOS.iter().all(|known| known.name != **name)) {
        bail!("there is no scenario {name:?}; --list prints the names");
    }
    let mut violated = 0;
    for scenario in SCENARIOS.iter().filter(|known| names.is_empty() || names.iter().any(|n| n == known.name))
    {
        println!("{:<16} {}", scenario.name, scenario.about);
        if list {
            continue;
        }
        let outcome = search(scenario, Limits { depth, states, threads });
        println!("{:<16} {outcome}", "");
        violated += usize::from(outcome.violation.is_some());
    }
    if violated > 0 {
        bail!("{violated} scenarios violated");
    }
    Ok(())
}
