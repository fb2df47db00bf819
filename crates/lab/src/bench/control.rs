//! The control row: no daemon, and two nodes that are made to hold the address. What the instruments say of that is
//! what they are worth; the outage that they see where there is none is their noise.

use std::time::Duration;

use crate::pair::{
    Setup,
    cluster::{self, CLIENT_SIDE, FIRST, LAN, SECOND, SERVICE},
    sample::Sample,
};
use crate::{
    clock::{Moment, await_some, pause},
    fault::Fault,
    process::Program,
    rack::Rack,
    relay::Way,
};

/// Stands in the place of the peer.
pub const CONTROL: &str = "control";
pub(super) const SCENARIO: &str = "both-hold";

/// For how long both hold the address.
const BOTH: Duration = Duration::from_millis(500);
/// Beside it, on each side.
const MARGIN: Duration = Duration::from_millis(500);
/// How wrong the instruments may be: a busy machine gives them no processor for this long.
const TOLERANCE: Duration = Duration::from_millis(200);
const TRIES: u32 = 3;
const PREFIX: u8 = 24;

/// Measures the control. An error when the instruments do not show what was done, even when asked again: a machine
/// that is too busy for a second may be blamed once, and it is told.
pub(super) fn measure(setup: &Setup, tell: &mut dyn FnMut(&str)) -> Result<(Sample, [Duration; 2]), Fault> {
    for _ in 1..TRIES {
        match attempt(setup)? {
            Ok(seen) => return Ok(seen),
            Err(wrong) => tell(&wrong),
        }
    }
    attempt(setup)?.map_err(Fault::Description)
}

/// The sample and the relays' own delays; or, in the inner error, that they do not show what was done.
fn attempt(setup: &Setup) -> Result<Result<(Sample, [Duration; 2]), String>, Fault> {
    let mut rack = Rack::build(cluster::description(setup, None).relayed(1))?;
    rack.watch(cluster::sight())?;
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
        let relay = rack.counters(LAN, FIRST, Way::FromNode)?;
        return Ok(Ok((sample, [relay.own_delay_median, relay.own_delay_p99])));
    }
    Ok(Err(format!(
        "both nodes held the address for {both:?}, and the instruments saw: {sample}; they cannot be trusted here"
    )))
}
