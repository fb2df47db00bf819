//! The control: no daemon runs, and two nodes hold the address on purpose, each behind an open gate. It shows how far
//! the instruments can be trusted.

use std::{net::IpAddr, time::Duration};

use locum_sys::gate::{self, Backend};

use super::{NativeRow, description, row, watch_spec};
use crate::{
    clock::{Moment, await_some, pause},
    fault::Fault,
    gate::{GateBackend, Order},
    node::bpffs,
    pair::{
        PairSetup,
        cluster::{CLIENT_SIDE, FIRST, SECOND, SERVICE, answers},
    },
    process::{Process, ProcessSignal, Program},
    rack::Rack,
};

/// Stands in the row in place of the scenario's name.
pub const CONTROL: &str = "control";

/// How long both nodes answer.
const BOTH: Duration = Duration::from_millis(500);
/// Time watched before and after it.
const MARGIN: Duration = Duration::from_millis(500);
/// How wrong the instruments may be: on a busy machine they may get no processor for this long.
const TOLERANCE: Duration = Duration::from_millis(250);
const TRIES: u32 = 3;
const PREFIX: u8 = 24;
const LEASE: Duration = Duration::from_millis(300);
const RENEW_EVERY: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(10);

/// Plays the control, and returns its row.
///
/// # Errors
/// As for [`play`](super::play); also if the instruments do not show the overlap in any of several attempts.
pub fn control(setup: &PairSetup, tell: &mut dyn FnMut(&str)) -> Result<NativeRow, Fault> {
    for _ in 1..TRIES {
        match attempt(setup)? {
            Ok(row) => return Ok(row),
            Err(wrong) => tell(&wrong),
        }
    }
    attempt(setup)?.map_err(Fault::Description)
}

/// The row. The inner error means that the row does not show the overlap.
fn attempt(setup: &PairSetup) -> Result<Result<NativeRow, String>, Fault> {
    let mut rack = Rack::build(description(setup))?;
    rack.watch(watch_spec())?;
    let first = open_gate(&rack, FIRST, setup.gates)?;
    rack.run(FIRST, &Program::new(&["locum", &setup.web_server, "start"]), PATIENCE)?;
    if await_some(PATIENCE, || answers(&rack).then_some(())).is_none() {
        return Err(Fault::Description("the control's service does not answer".into()));
    }
    let from = Moment::now();
    pause(MARGIN);
    let mut second = open_gate(&rack, SECOND, setup.gates)?;
    let open = || rack.look(|record| record.open_gates(SERVICE).len() == 2).unwrap_or_default();
    if await_some(PATIENCE, || open().then_some(())).is_none() {
        return Ok(Err("two gates were opened, and the instruments do not see them".into()));
    }
    let both = Moment::now();
    pause(BOTH);
    // Its gate shuts by itself.
    let _ = second.signal(ProcessSignal::Kill);
    let both = Moment::now().since(both);
    pause(LEASE + MARGIN);
    rack.remove_address(SECOND, SERVICE.into())?;
    let row = row(&rack, CONTROL, from);
    drop((first, second));
    let right = |seen: Duration| seen + TOLERANCE > both && seen < both + LEASE + MARGIN;
    if right(row.two_open) && right(row.sample.two_answer) {
        return Ok(Ok(row));
    }
    Ok(Err(format!(
        "both nodes answered behind open gates for {both:?}, and the instruments saw: two open {:?}, {}; they cannot \
         be trusted here",
        row.two_open, row.sample
    )))
}

/// Puts the address on a node, behind a gate that a process renews.
fn open_gate(rack: &Rack, node: &str, asked: Option<GateBackend>) -> Result<Process, Fault> {
    let choose = move || match (gate::probe_with(bpffs().into()), asked) {
        (probe, None | Some(GateBackend::Bpf)) => probe.choose(),
        (probe, Some(GateBackend::Nft)) => probe.nft.map(|()| Backend::Nft),
    };
    let backend = rack.inside(node, choose)?;
    let backend = backend.map_err(|why| Fault::missing("a gate", &std::io::Error::other(why)))?;
    let order = Order {
        backend,
        interface: CLIENT_SIDE.into(),
        address: IpAddr::V4(SERVICE),
        lease: LEASE,
        every: RENEW_EVERY,
        freezes_in: 0,
        goes_on: true,
        notes: "/run/notes".into(),
    };
    let renewer = rack.start(node, &order.program())?;
    let open = || rack.look(|record| record.open_gates(SERVICE).contains(&node)).unwrap_or_default();
    let _ = await_some(PATIENCE, || open().then_some(()));
    rack.add_address(node, CLIENT_SIDE, SERVICE.into(), PREFIX)?;
    Ok(renewer)
}
