//! The core asserts its own invariants in release builds. One that trips ends the daemon, and its gates close by themselves.

use std::{
    env, io,
    io::{BufRead as _, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use locum_core::{
    claims::{Claimant, Lease, Ledger},
    model::{claim::DurableState, identity::MemberIndex, logging::Logging, note::Level, time},
};
use locum_sys::{
    clock,
    gate::{self, Backend, Gate, GateName, GateSettings, Renewal},
    mount,
    namespace::{self, NewNamespaces},
};

use crate::observe::journal::{Journal, LogTargets};

/// Set for a second process of this test, which is to die: the bpf file system, or nothing for `nft`.
const DIES: &str = "LOCUM_TEST_ASSERTION";
const LEASE_NANOS: u64 = 1_000_000_000;
const LEASE: Duration = Duration::from_nanos(LEASE_NANOS);
const PATIENCE: Duration = Duration::from_secs(30);

fn backend(bpffs: PathBuf) -> Backend {
    if bpffs.as_os_str().is_empty() { Backend::Nft } else { Backend::Bpf { bpffs } }
}

/// What the daemon is to the kernel: a process whose heart renews a gate, until its core finds itself in a wrong state.
fn die(backend: &Backend) {
    Journal::start(LogTargets::new("test", Level::Info, &Logging::default())).unwrap().catch_panics();
    let settings = GateSettings {
        name: GateName::new("test", "web"),
        addresses: vec!["10.9.0.14".parse().unwrap()],
        interfaces: vec![1],
        rivals: None,
        proofs: Vec::new(),
    };
    let mut gate = Gate::install(backend, settings).unwrap();
    let mut renew = move || {
        let sent = clock::boot_nanos();
        gate.renew(Renewal { deadline: sent + LEASE_NANOS, sent }).unwrap();
    };
    renew();
    writeln!(io::stdout(), "open").unwrap();
    let heart = thread::Builder::new().name("heart".into());
    let heart = heart.spawn(move || {
        io::stdin().read_line(&mut String::new()).unwrap();
        renew();
        let lease = Lease { length: LEASE, margin: Duration::ZERO };
        let ledger = Ledger::new(DurableState::default());
        let mut claimant = Claimant::new(MemberIndex(0), 1, lease, LEASE, &ledger);
        let now = time::Instant::from_millis(1);
        // No two beats have one number.
        let _ = [(); 2].map(|()| claimant.beat(now, 7));
    });
    // As other threads of the daemon, which go on.
    let _ = heart.unwrap().join();
    thread::park_timeout(PATIENCE);
}

fn child(bpffs: &str) -> Child {
    let name = "heart::tests::a_tripped_assertion_ends_the_daemon_with_its_gate_shut";
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(DIES, bpffs);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn is_open(bpffs: &str) -> bool {
    let all = gate::list((!bpffs.is_empty()).then(|| bpffs.into())).unwrap();
    let [gate] = &all[..] else { panic!("one gate stands, open or shut: {all:?}") };
    gate.deadline.is_some()
}

fn play(bpffs: &str) {
    let mut child = child(bpffs);
    let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("open")), "it does not come up");
    assert!(is_open(bpffs));
    writeln!(child.stdin.take().unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("a beat's number is used twice"), "{said}");
    assert!(said.contains("a bug in Locum ends the daemon"), "{said}");
    let dead = clock::boot_nanos();
    while is_open(bpffs) {
        let long = Duration::from_nanos(clock::boot_nanos() - dead);
        assert!(long < LEASE + Duration::from_millis(500), "open {long:?} after the daemon's end");
        thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_tripped_assertion_ends_the_daemon_with_its_gate_shut() {
    if let Some(bpffs) = env::var_os(DIES) {
        return die(&backend(bpffs.into()));
    }
    let directory = tempfile::tempdir().unwrap();
    let alone = || {
        let fresh =
            NewNamespaces { network: true, mounts: true, host_name: false, processes: false, ipc: false };
        let ready = namespace::enter_new(fresh)
            .and_then(|()| mount::make_private())
            .and_then(|()| mount::bpf(directory.path()));
        let probe = match ready {
            Ok(()) => gate::probe_with(directory.path().into()),
            Err(error) => return drop(writeln!(io::stderr(), "skipped: {error}")),
        };
        for (backend, path) in [
            ("bpf", probe.bpf.map(|path| path.display().to_string())),
            ("nft", probe.nft.map(|()| String::new())),
        ] {
            match path {
                Ok(path) => play(&path),
                Err(why) => drop(writeln!(io::stderr(), "skipped {backend}: {why}")),
            }
        }
    };
    thread::scope(|scope| scope.spawn(alone).join()).unwrap();
}
