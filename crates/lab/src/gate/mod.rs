//! Trials of the gate alone: a process that renews a gate is frozen, with a renewal in flight or at any moment, and
//! thaws long after its lease. Does the address ever answer after the lease has ended?

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use locum_sys::{
    clock::{boot_nanos, monotonic_nanos},
    gate::{self, Backend, Gate, Renewal},
    mount,
};

use crate::{
    description::Description,
    dice::Dice,
    fault::{Doing, Fault},
    rack::Rack,
};

mod renewer;
mod trial;

pub(crate) use renewer::Order;
pub use renewer::{COMMAND, renew};
pub use trial::GateTrial;

const CLIENT: &str = "client";
const INTERFACE: &str = "eth0";
/// The node's own bpf file system: gates pinned there go with the rack.
const BPFFS: &str = "/run/bpf";
/// How much later than the deadline the client may get the last answer: the packet left before the deadline, and then
/// the client waited for a processor.
pub const TOLERANCE: Duration = Duration::from_millis(20);
/// Least time before a process freezes itself: the client must find the address first, and asks for it by ARP once a
/// second.
const OPEN_MIN: Duration = Duration::from_millis(1500);
/// After that time, the process freezes itself in one of this many renewals.
const RENEWALS: u32 = 20;
/// How often a trial that the machine has spoilt is tried again.
const TRIES: u32 = 10;
/// Number of renewals from which their cost is measured.
const COUNTED: u32 = 2_000;

/// A gate backend to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateBackend {
    /// The eBPF program of the gate.
    Bpf,
    /// The nf_tables rules of the gate.
    Nft,
}

impl GateBackend {
    /// Both backends, in the order of trials.
    pub const ALL: [Self; 2] = [Self::Bpf, Self::Nft];

    /// The backend's name in options and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Nft => "nft",
        }
    }

    fn backend(self) -> Backend {
        match self {
            Self::Bpf => Backend::Bpf { bpffs: BPFFS.into() },
            Self::Nft => Backend::Nft,
        }
    }
}

/// The moment at which the process is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezePoint {
    /// A renewal is prepared, and not committed.
    InFlight,
    /// At a random moment.
    Anywhere,
}

/// The trials to play, with their times.
#[derive(Clone, Debug)]
pub struct GateTrialOptions {
    /// The program, with its hidden commands.
    pub program: PathBuf,
    /// Number of trials: the odd ones freeze in flight, the even ones anywhere.
    pub runs: u32,
    /// The length of the lease.
    pub lease: Duration,
    /// The time between two renewals.
    pub every: Duration,
    /// How long the process is frozen.
    pub freeze: Duration,
    /// How many trials run side by side, at most 100, each on a node of its own.
    pub parallel: u8,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The control: the thawed process goes on with fresh renewals, which the trials must see.
    pub goes_on: bool,
}

/// The results of all trials of one backend.
#[derive(Clone, Debug)]
pub struct GateTrialReport {
    /// All trials, in the order in which they ended.
    pub trials: Vec<GateTrial>,
    /// How long one renewal takes.
    pub renewal: Duration,
}

impl GateTrialReport {
    /// The trials in which the address answered after the deadline, beyond the client's own tolerance.
    pub fn violations(&self) -> impl Iterator<Item = &GateTrial> {
        self.trials.iter().filter(|trial| trial.late > TOLERANCE)
    }
}

/// Plays all trials of one gate backend in one rack.
///
/// # Errors
/// No rack can be built; [`Fault::NoGate`] where the backend does not work; else the kernel's error.
pub fn play(
    kind: GateBackend,
    options: &GateTrialOptions,
    tell: &(dyn Fn(u32) + Sync),
) -> Result<GateTrialReport, Fault> {
    let rack = build(options)?;
    let backend = kind.backend();
    for number in 0..options.parallel {
        let ready = rack.inside(&node(number), move || prepare(kind))?;
        ready.map_err(|why| Fault::NoGate { backend: kind.name(), why })?;
    }
    let order = |number: u8| Order {
        backend: backend.clone(),
        interface: INTERFACE.into(),
        address: address(number).into(),
        lease: options.lease,
        every: options.every,
        freezes_in: 0,
        goes_on: options.goes_on,
        notes: "/run/notes".into(),
    };
    let probe = order(0);
    let renewal = rack.inside(&node(0), move || cost(&probe))?.doing(|| "renew a gate".into())?;
    let next = AtomicU32::new(0);
    let ended = Mutex::new((Vec::new(), None));
    std::thread::scope(|scope| {
        for number in 0..options.parallel {
            let (rack, order, next, ended) = (&rack, &order, &next, &ended);
            scope.spawn(move || {
                loop {
                    let run = next.fetch_add(1, Relaxed);
                    let lock = || ended.lock().unwrap_or_else(PoisonError::into_inner);
                    if run >= options.runs || lock().1.is_some() {
                        return;
                    }
                    let result = one(rack, &node(number), order(number), options, run);
                    let mut ended = lock();
                    match result {
                        Ok(trial) => ended.0.push(trial),
                        Err(fault) => ended.1 = Some(fault),
                    }
                    tell(u32::try_from(ended.0.len()).unwrap_or(u32::MAX));
                }
            });
        }
    });
    match ended.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (_, Some(fault)) => Err(fault),
        (trials, None) => Ok(GateTrialReport { trials, renewal }),
    }
}

fn one(
    rack: &Rack,
    node: &str,
    order: Order,
    options: &GateTrialOptions,
    run: u32,
) -> Result<GateTrial, Fault> {
    let chance = Dice::new(options.seed, run.into()).fraction();
    let in_flight = run % 2 == 1;
    let first = OPEN_MIN.as_nanos().div_ceil(options.every.as_nanos().max(1));
    let first = u32::try_from(first).unwrap_or(u32::MAX - RENEWALS);
    let freezes_in = if in_flight { first + run / 2 % RENEWALS } else { 0 };
    let point = if in_flight { FreezePoint::InFlight } else { FreezePoint::Anywhere };
    let plan = trial::TrialPlan { point, freeze: options.freeze, delay: options.lease.mul_f64(chance) };
    let notes = order.notes.strip_prefix("/run").unwrap_or(&order.notes);
    let notes = rack.volatile(node).join(notes);
    // Remove the notes of the trial before.
    let _ = std::fs::remove_file(&notes);
    let order = Order { freezes_in, ..order };
    for _ in 0..TRIES {
        if let Some(trial) = trial::play(rack, node, &order, &plan, &notes)? {
            return Ok(trial);
        }
    }
    Err(Fault::Description("the machine stood still for longer than a lease: try a longer lease".into()))
}

/// One node for each trial that runs at a time. In one network namespace, changes of rules wait for each other, and for
/// the cleanup after a process that ends.
fn build(options: &GateTrialOptions) -> Result<Rack, Fault> {
    let numbers = 0..options.parallel;
    let nodes: Vec<_> = numbers
        .map(|number| (node(number), format!("10.40.0.{}/16 {}/16", number + 3, address(number))))
        .collect();
    let mut ports = vec![(CLIENT, INTERFACE, "10.40.0.2/16")];
    ports.extend(nodes.iter().map(|(node, addresses)| (node.as_str(), INTERFACE, addresses.as_str())));
    let description = Description::new(&options.program).node(CLIENT);
    let description = nodes.iter().fold(description, |description, (node, _)| description.node(node));
    Rack::build(description.segment("lan", &ports))
}

fn node(number: u8) -> String {
    format!("node{number}")
}

/// The service address behind the node's gate.
fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 40, 1, number + 1)
}

/// Runs in the node: prepares the needs of the backend, and checks that it works there.
fn prepare(kind: GateBackend) -> Result<(), String> {
    let doing = |error: io::Error| format!("mount a bpf file system: {error}");
    match kind {
        GateBackend::Bpf => {
            std::fs::create_dir_all(BPFFS).map_err(doing)?;
            mount::bpf(Path::new(BPFFS)).map_err(doing)?;
            gate::probe_with(BPFFS.into()).bpf.map(drop)
        }
        // A kernel without bpf has no such file system either.
        GateBackend::Nft => gate::probe_with(BPFFS.into()).nft,
    }
}

/// Runs in the node: the mean time of one renewal, of many in a row.
fn cost(order: &Order) -> io::Result<Duration> {
    let mut gate = Gate::install(&order.backend, order.settings()?)?;
    let begun = monotonic_nanos();
    for _ in 0..COUNTED {
        let sent = boot_nanos();
        gate.renew(Renewal { deadline: sent + 1_000_000_000, sent })?;
    }
    let took = Duration::from_nanos(monotonic_nanos() - begun) / COUNTED;
    gate.remove().map(|_| took)
}
