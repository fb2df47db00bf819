//! `locum doctor --heart`: measures whether this machine is punctual enough, by how late the heart is at a tick of 10
//! ms. It measures in the running daemon. Without one it starts a heart in temporary network namespaces, with links,
//! timers, a service address and a peer.
//!
//! Exit code: 0 measured, 1 measured without real-time rights or the daemon did not answer, 4 no permission, 77 nothing can
//! be measured here.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use locum_core::{
    config::{self, HaFiles},
    model::event::{FenceOutcome, Outcome},
    r1::{
        director::{R1Director, R1Identity},
        message::Uuid,
        plan::R1Plan,
    },
};
use locum_sys::{
    clock,
    namespace::{self, NewNamespaces},
    netlink::{LinkChange, Netlink, NewAddress, VethEnd},
    realtime,
};
use serde::Serialize;

use crate::{
    cli::{CommonOptions, failed},
    heart::{self, Down, Handle, HeartOptions, HeartStats, Lateness, Up},
    host_config::HostConfig,
    observe::socket::{ClientFault, ControlClient, MeasureOrder},
};

/// The options of `locum doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorOptions {
    /// Measure how late the heart is at a tick of 10 ms
    #[arg(long, required = true)]
    pub heart: bool,
    /// Duration of each measurement, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Measure a second time under load: a busy loop and a thread that allocates memory per core, and a fork storm
    #[arg(long)]
    pub load: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Make load until killed (used internally)
    #[arg(long, hide = true)]
    pub be_load: bool,
}

/// The exit code where nothing can be measured.
const CANNOT: u8 = 77;

/// The results, as `--json` prints them.
#[derive(Debug, Serialize)]
struct HeartMeasurements {
    /// Whose heart was measured: `daemon` or `own`.
    heart: &'static str,
    realtime_refused: Option<String>,
    lock_refused: Option<String>,
    idle: LatenessRun,
    load: Option<LatenessRun>,
}

/// The result of one measurement.
#[derive(Debug, Serialize)]
struct LatenessRun {
    #[serde(flatten)]
    lateness: Lateness,
    /// Time that a hypervisor took from this machine during the measurement, in milliseconds. No scheduling can win it
    /// back.
    stolen_ms: Option<u64>,
}

/// Measures and prints.
///
/// # Errors
/// If the load cannot be started.
pub fn run(common: &CommonOptions, options: DoctorOptions) -> anyhow::Result<ExitCode> {
    if options.be_load {
        be_load();
    }
    let client = ControlClient::new(&common.run_dir());
    let subject = match client.status() {
        Ok(_) => MeasuredHeart::Daemon(client),
        Err(ClientFault::NotRunning(_)) => match TemporaryHearts::start() {
            Ok(own) => MeasuredHeart::Own(Box::new(own)),
            Err(error) => {
                errln!("locum: no daemon runs here, and a temporary heart cannot be started: {error:#}");
                errln!("locum: it needs network namespaces: run as root, or outside of this container");
                return Ok(ExitCode::from(CANNOT));
            }
        },
        Err(fault) => return Ok(failed(&fault)),
    };
    let findings = match examine(subject, &options) {
        Ok(findings) => findings?,
        Err(fault) => return Ok(failed(&fault)),
    };
    if options.json {
        outln!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print(&findings);
    }
    Ok(ExitCode::from(u8::from(findings.realtime_refused.is_some())))
}

fn examine(
    mut subject: MeasuredHeart,
    options: &DoctorOptions,
) -> Result<anyhow::Result<HeartMeasurements>, ClientFault> {
    let (idle, _) = measure(&mut subject, options.seconds)?;
    let load = if options.load {
        let load = match LoadProcess::start() {
            Ok(load) => load,
            Err(error) => return Ok(Err(error)),
        };
        let allocators = matches!(subject, MeasuredHeart::Own(_)).then(Allocators::start);
        let run = measure(&mut subject, options.seconds)?.0;
        drop((load, allocators));
        Some(run)
    } else {
        None
    };
    let stats = subject.stats()?;
    let heart = if matches!(subject, MeasuredHeart::Daemon(_)) { "daemon" } else { "own" };
    let HeartStats { realtime_refused, lock_refused, .. } = stats;
    Ok(Ok(HeartMeasurements { heart, realtime_refused, lock_refused, idle, load }))
}

fn measure(subject: &mut MeasuredHeart, seconds: u32) -> Result<(LatenessRun, HeartStats), ClientFault> {
    let stolen = realtime::stolen_ticks();
    subject.measure(seconds)?;
    let stats = subject.stats()?;
    // The kernel counts stolen time in hundredths of a second.
    let stolen_ms =
        realtime::stolen_ticks().zip(stolen).map(|(after, before)| after.saturating_sub(before) * 10);
    let lateness = stats.measured.unwrap_or_default();
    Ok((LatenessRun { lateness, stolen_ms }, stats))
}

fn print(findings: &HeartMeasurements) {
    match &findings.realtime_refused {
        None => outln!("real-time rights: granted"),
        Some(why) => outln!("real-time rights: MISSING: {why}"),
    }
    match &findings.lock_refused {
        None => outln!("memory: locked"),
        Some(why) => outln!("memory: not locked, {why}"),
    }
    match findings.heart {
        "daemon" => outln!("measured in the running daemon"),
        _ => {
            outln!(
                "measured in a temporary heart with links, timers, an address and a peer, in network namespaces"
            )
        }
    }
    outln!();
    outln!("lateness of a 10 ms tick      ticks       p50       p99       max   stolen by a hypervisor");
    row("idle", &findings.idle);
    if let Some(load) = &findings.load {
        row("busy cores and forks", load);
    }
}

#[expect(clippy::cast_precision_loss, reason = "printed to a thousandth")]
fn row(name: &str, run: &LatenessRun) {
    let ms = |micros: u64| micros as f64 / 1000.0;
    let Lateness { count, p50_us, p99_us, max_us } = run.lateness;
    let stolen = run.stolen_ms.map_or("unknown".to_string(), |ms| format!("{ms} ms"));
    outln!(
        "{name:<26} {count:>8} {:>6.3} ms {:>6.3} ms {:>6.3} ms   {stolen}",
        ms(p50_us),
        ms(p99_us),
        ms(max_us)
    );
}

/// The heart that is measured.
enum MeasuredHeart {
    Daemon(ControlClient),
    Own(Box<TemporaryHearts>),
}

impl MeasuredHeart {
    /// Measures for this many seconds and waits for the end.
    fn measure(&mut self, seconds: u32) -> Result<(), ClientFault> {
        let long = Duration::from_secs(seconds.into());
        match self {
            Self::Daemon(client) => {
                client.measure(MeasureOrder { seconds })?;
            }
            Self::Own(own) => own.heart.send(Down::Measure(long)).map_err(|_| silent())?,
        }
        let end = clock::monotonic_nanos() + u64::from(seconds) * 1_000_000_000 + 50_000_000;
        while clock::monotonic_nanos() < end {
            clock::sleep_until(end.min(clock::monotonic_nanos() + 100_000_000));
            if let Self::Own(own) = self {
                own.hear();
            }
        }
        Ok(())
    }

    fn stats(&mut self) -> Result<HeartStats, ClientFault> {
        match self {
            Self::Daemon(client) => {
                let report: serde_json::Value = serde_json::from_str(&client.status()?)
                    .map_err(|error| ClientFault::Broken(error.to_string()))?;
                let heart = report.get("heart").cloned().unwrap_or_default();
                serde_json::from_value(heart).map_err(|error| ClientFault::Broken(error.to_string()))
            }
            Self::Own(own) => own.stats().ok_or_else(silent),
        }
    }
}

fn silent() -> ClientFault {
    ClientFault::Broken("the heart does not answer".to_string())
}

/// Two hearts, connected by cables, in two network namespaces.
struct TemporaryHearts {
    heart: Handle,
    peer: Handle,
    answers: BTreeMap<u64, HeartStats>,
    asked: u64,
}

const HA_CF: &[u8] = b"keepalive 100ms\nwarntime 500ms\ndeadtime 1\ninitdead 2\nudpport 694\n\
bcast eth0 eth1\nauto_failback on\nnode clustnode1 clustnode2\n";
const AUTHKEYS: &[u8] = b"auth 1\n1 sha1 doctor\n";
const HARESOURCES: &[u8] = b"clustnode1 172.23.2.14\n";

impl TemporaryHearts {
    fn start() -> anyhow::Result<Self> {
        if !namespace::may_enter_new() {
            namespace::become_root_of_user_namespace().context("cannot make a user namespace")?;
        }
        let networks = [fresh_network()?, fresh_network()?];
        for (cable, network) in [("eth0", "172.23.2"), ("eth1", "10.1.0")] {
            lay(cable, network, &networks)?;
        }
        let [heart, peer] = [start_heart(0, &networks[0])?, start_heart(1, &networks[1])?];
        let mut own = Self { heart, peer, answers: BTreeMap::new(), asked: 0 };
        // Leaves the first seconds out: they show the start and not the steady state.
        let end = clock::monotonic_nanos() + 3_000_000_000;
        while clock::monotonic_nanos() < end {
            clock::sleep_until(clock::monotonic_nanos() + 50_000_000);
            own.hear();
        }
        Ok(own)
    }

    /// Takes the place of the control plane: every agent fails, and log lines are dropped.
    fn hear(&mut self) {
        for handle in [&mut self.heart, &mut self.peer] {
            while let Some(up) = handle.try_next() {
                match up {
                    Up::Status { request, heart, .. } => {
                        self.answers.insert(request, *heart);
                    }
                    Up::Run { ticket, .. } => {
                        let outcome = Outcome::Failed("the doctor has no agents".to_string());
                        let _ = handle.send(Down::Done { ticket, outcome });
                    }
                    Up::Fence { ticket, .. } => {
                        let outcome = FenceOutcome::NotConfigured;
                        let _ = handle.send(Down::Fenced { ticket, outcome });
                    }
                    // Only the native dialect sends these.
                    Up::Write(_)
                    | Up::Abandon(_)
                    | Up::Active
                    | Up::EventScript { .. }
                    | Up::Reply { .. }
                    | Up::Remember { .. }
                    | Up::Note { .. }
                    | Up::PortTaken(_)
                    | Up::Exit { .. } => {}
                }
            }
        }
    }

    fn stats(&mut self) -> Option<HeartStats> {
        self.asked += 1;
        self.heart.send(Down::Status { request: self.asked }).ok()?;
        for _ in 0..100 {
            clock::sleep_until(clock::monotonic_nanos() + 20_000_000);
            self.hear();
            if let Some(stats) = self.answers.remove(&self.asked) {
                return Some(stats);
            }
        }
        None
    }
}

/// Runs `body` in a thread of its own, so that a change of namespaces does not affect the caller.
fn aside<T: Send>(body: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| scope.spawn(body).join().map_err(|_| anyhow!("a thread of the doctor panicked"))?)
}

fn fresh_network() -> anyhow::Result<OwnedFd> {
    aside(|| {
        namespace::enter_new(NewNamespaces { network: true, ..NewNamespaces::default() })
            .context("cannot make a network namespace")?;
        Ok(namespace::network()?)
    })
}

/// Connects interfaces of the same name in both namespaces.
fn lay(name: &str, network: &str, networks: &[OwnedFd; 2]) -> anyhow::Result<()> {
    aside(|| {
        namespace::enter_network(&networks[0])?;
        let letter = name.bytes().last().unwrap_or_default();
        let mac = |node| [2, 0, 0, 0, letter, node];
        let a = VethEnd { name, mac: mac(1), network: None };
        let b = VethEnd { name, mac: mac(2), network: Some(networks[1].as_fd()) };
        Ok(Netlink::open()?.create_veth(a, b)?)
    })?;
    for (node, home) in networks.iter().enumerate() {
        let ip: IpAddr = format!("{network}.{}", node + 1).parse()?;
        aside(move || {
            namespace::enter_network(home)?;
            let mut netlink = Netlink::open()?;
            let interface = netlink.interface(name)?.index;
            netlink.change_links(&[LinkChange::Up(interface)])?;
            Ok(netlink.add_address(&NewAddress::new(interface, ip, 24))?)
        })?;
    }
    Ok(())
}

fn start_heart(node: u8, network: &OwnedFd) -> anyhow::Result<Handle> {
    let files = HaFiles { ha_cf: Some(HA_CF), authkeys: Some(AUTHKEYS), haresources: Some(HARESOURCES) };
    let checked = config::check(&files, &format!("clustnode{}", node + 1), &config::CheckOptions::default());
    let (plan, keys) = checked.plan.zip(checked.keys).context("the doctor's own configuration is refused")?;
    // Ask for real-time rights in any case: whether they are granted is part of the result.
    let plan = Arc::new(R1Plan { realtime: plan.realtime.or(Some(20)), ..plan });
    let identity = R1Identity {
        uuid: Uuid([node + 1; 16]),
        generation: 1,
        peer_heard: None,
        stop_failed: Vec::new(),
        keeps: None,
        seed: node.into(),
    };
    aside(|| {
        namespace::enter_network(network)?;
        let director = R1Director::new(Arc::clone(&plan), keys, identity, heart::now());
        Ok(heart::spawn(director, Arc::new(HostConfig::from(plan.as_ref())), HeartOptions::default())?)
    })
}

/// A busy loop per core and a fork storm, in a process of their own. Dropping this value kills the process.
struct LoadProcess(Child);

impl LoadProcess {
    fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let child = Command::new(program)
            .args(["doctor", "--heart", "--be-load"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the load cannot be started")?;
        Ok(Self(child))
    }
}

impl Drop for LoadProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Threads beside the heart, in its own process, that allocate and free memory without pause, as a control plane does at its
/// worst: one a core. The heart allocates, too. If such a thread loses the processor while it holds a lock of the allocator
/// that the heart needs, the heart waits until it runs again.
struct Allocators {
    is_over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Allocators {
    fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..cores).map(|_| mpsc::sync_channel(64)).unzip();
        let to_next = senders.iter().cycle().skip(1).cloned();
        let of_each: Vec<_> = receivers.into_iter().zip(to_next).collect();
        let thread = |(from, to): (mpsc::Receiver<Vec<u8>>, mpsc::SyncSender<Vec<u8>>)| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                // Sizes of notes, frames and reports. What another thread has allocated is freed here.
                let mut bytes = 16;
                while !is_over.load(Ordering::Relaxed) {
                    let _ = to.try_send(std::hint::black_box(vec![1; bytes]));
                    drop(from.try_recv());
                    bytes = if bytes < 65_536 { bytes * 3 / 2 } else { 16 };
                }
            })
        };
        let threads = of_each.into_iter().map(thread).collect();
        Self { is_over, threads }
    }
}

impl Drop for Allocators {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Makes load until killed. Also ends when the parent ends, because that closes our standard input.
fn be_load() -> ! {
    thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..cores {
        thread::spawn(|| {
            let mut sum = 0u64;
            loop {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
            }
        });
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "/bin/true".into());
    loop {
        let child = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if child.is_err() {
            // No process can be started: the busy loops must suffice.
            clock::sleep_until(clock::monotonic_nanos() + 10_000_000);
        }
    }
}
