//! The bench: the same faults for Locum and other cluster managers (the peers), on the same rack, measured from
//! outside.
//!
//! [`run`] takes the peers in turn within each round, so that a busy minute of the machine hits all of them. Each peer
//! gets a rack of its own, so that none inherits anything. `docs/bench.md` says what is measured, and what a figure
//! does not show. [`cost()`] measures CPU time and memory of a daemon while nothing happens.

mod control;
mod cost;
pub(crate) mod figures;
mod scenario;

use std::time::Duration;

pub use control::CONTROL;
pub use cost::{PeerCost, cost};
pub use figures::Figures;
pub use scenario::BenchScenario;

use crate::{
    clock::pause,
    fault::Fault,
    pair::{PairSetup, Peer, cluster::PairCluster},
};
use figures::Samples;

/// The peers, scenarios and number of runs to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub setup: PairSetup,
    pub peers: Vec<Peer>,
    /// The faults that are played with each peer.
    pub scenarios: Vec<BenchScenario>,
    /// How often each scenario is played.
    pub runs: u32,
}

/// The results of one peer in one scenario.
#[derive(Clone, Debug)]
pub struct BenchRow {
    /// The peer, or [`CONTROL`].
    pub peer: &'static str,
    pub scenario: &'static str,
    /// Keepalive or time between adverts; zero in the control row.
    pub interval: Duration,
    /// By its configuration, how long after the last beat the peer notices a death; zero in the control row.
    pub detection: Duration,
    /// Number of runs in the figures.
    pub runs: u32,
    /// The client's longest time without an echo.
    pub outage: Figures,
    /// The client's longest time without a page.
    pub page_outage: Figures,
    /// How long both nodes answered for the address.
    pub two_answer: Figures,
    /// How long both kernels held the address.
    pub two_hold: Figures,
}

/// The results of the bench.
#[derive(Clone, Debug)]
pub struct BenchReport {
    /// The rows in the order of the options; the control row comes last.
    pub rows: Vec<BenchRow>,
    /// The delay that a relay of the rack itself adds to a frame: the worst median and the worst 99th percentile of the
    /// control runs. Only the control has relays.
    pub relay: [Duration; 2],
}

/// Plays all scenarios with all peers and measures them. `tell` is given a line for each run and for each problem.
///
/// # Errors
/// [`Fault::Missing`] where no rack can be built; [`Fault::Description`] if a cluster does not come up, or if the
/// control row shows that the instruments cannot be trusted.
pub fn run(options: &BenchOptions, tell: &mut dyn FnMut(&str)) -> Result<BenchReport, Fault> {
    let (peers, scenarios) = (&options.peers, &options.scenarios);
    let mut samples = vec![vec![Samples::default(); scenarios.len()]; peers.len()];
    let (mut controls, mut relay) = (Samples::default(), [Duration::ZERO; 2]);
    for run in 0..options.runs {
        let round = format!("run {} of {}", run + 1, options.runs);
        let (sample, delays) = control::measure(&options.setup, tell)?;
        relay = [relay[0].max(delays[0]), relay[1].max(delays[1])];
        tell(&format!("{round}: {CONTROL}, {}: {sample}", control::SCENARIO));
        controls.add(sample);
        for (place, &peer) in peers.iter().enumerate() {
            let mut cluster = None;
            for scenario in BenchScenario::in_order(scenarios) {
                let ready = PairCluster::prepared(
                    cluster.take(),
                    peer,
                    &options.setup,
                    scenario == BenchScenario::Return,
                    tell,
                )?;
                let ready = cluster.insert(ready);
                // Places the faults evenly over the time between two beats.
                pause(options.setup.pace.interval.mul_f64(f64::from(run) * 0.618 % 1.0));
                let sample = scenario.measure(ready)?;
                tell(&format!("{round}: {}, {}: {sample}", peer.name(), scenario.name()));
                for (at, _) in scenarios.iter().enumerate().filter(|&(_, &asked)| asked == scenario) {
                    samples[place][at].add(sample);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (&peer, samples) in peers.iter().zip(&samples) {
        for (&scenario, samples) in scenarios.iter().zip(samples) {
            let (interval, detection) = (options.setup.pace.interval, peer.detection(options.setup.pace));
            rows.push(samples.row(peer.name(), scenario.name(), interval, detection));
        }
    }
    rows.push(controls.row(CONTROL, control::SCENARIO, Duration::ZERO, Duration::ZERO));
    Ok(BenchReport { rows, relay })
}
