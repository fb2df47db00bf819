//! The control row: no daemon runs, and two nodes hold the address on purpose. It shows how far the instruments can be
//! trusted; an outage that they report here is their noise.

use std::time::Duration;

use crate::pair::{
    PairSetup,
    cluster::{self, CLIENT_SIDE, FIRST, LAN, SECOND, SERVICE},
    sample::Sample,
};
use crate::{
    clock::{Moment, await_some, pause},
    fault::Fault,
    process::Program,
    rack::Rack,
    relay::RelayDirection,
};

/// Stands in the row in place of the peer's name.
pub const CONTROL: &str = "control";
pub(super) const SCENARIO: &str = "both-hold";

/// How long both nodes hold the address.
const BOTH: Duration = Duration::from_millis(500);
/// Time watched before and after it.
const MARGIN: Duration = Duration::from_millis(500);
/// How wrong the instruments may be: on a busy machine they may get no processor for this long.
const TOLERANCE: Duration = Duration::from_millis(200);
const TRIES: u32 = 3;
const PREFIX: u8 = 24;

/// Measures the control row. Fails if the instruments do not show the overlap in any of `TRIES` attempts. An attempt
/// that fails is reported to `tell`: a machine may be too busy for a second.
pub(super) fn measure(
    setup: &PairSetup,
    tell: &mut dyn FnMut(&str),
) -> Result<(Sample, [Duration; 2]), Fault> {
    for _ in 1..TRIES {
        match attempt(setup)? {
            Ok(seen) => return Ok(seen),
            Err(wrong) => tell(&wrong),
        }
    }
    attempt(setup)?.map_err(Fault::Description)
}

/// The sample and the relays' own delays. The inner error means that the instruments do not show the overlap.
fn attempt(setup: &PairSetup) -> Result<Result<(Sample, [Duration; 2]), String>, Fault> {
    let mut rack = Rack::build(cluster::description(setup, None).relayed(1))?;
    rack.watch(cluster::watch_spec())?;
    rack.add_address(FIRST, CLIENT_SIDE, SERVICE.into(), PREFIX)?;
    rack.run(FIRST, &Program::new(&["locum", &setup.web_server, "start"]), Duration::from_secs(10))?;
    let pages = || rack.look(|record| (record.pages.len() > 10).then_some(())).flatten();
    if await_some(Duration::from_secs(10), pages).is_none() {
        return Err(Fault::Description("the control's web server gives no pages".into()));
    }
    let from = Moment::now();
    pause(MARGIN);
    let both = Moment::now();
    rack.add_address(SECOND, CLIENT_SIDE, SERVICE.into(), PREFIX)?;
    pause(BOTH);
    rack.remove_address(SECOND, SERVICE.into())?;
    let both = Moment::now().since(both);
    pause(MARGIN);
    let sample = cluster::sample(&rack, from);
    let right = |seen: Duration| seen.abs_diff(both) < TOLERANCE;
    if right(sample.two_hold) && right(sample.two_answer) {
        let relay = rack.counters(LAN, FIRST, RelayDirection::FromNode)?;
        return Ok(Ok((sample, [relay.own_delay_median, relay.own_delay_p99])));
    }
    Ok(Err(format!(
        "both nodes held the address for {both:?}, and the instruments saw: {sample}; they cannot be trusted here"
    )))
}
