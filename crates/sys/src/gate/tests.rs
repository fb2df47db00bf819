//! Both backends, through the same tests: a node and a client on one cable, each in its own network namespace.
//!
//! The client sends hand-written frames, so that no neighbour cache of its own affects what it asks. The node counts as
//! silent about an address only if no frame that reaches the client contains the address's bytes.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::mount::MountFlags;

use super::*;
use crate::{
    announce::{AnnouncementForm, Announcer},
    checksum, clock, mount,
    namespace::{self, NewNamespaces},
    netlink::{Interface, Netlink, NewAddress},
    tap::Tap,
    testing::{aside, inside, other_network, patience, set_up, veth_across},
};

const OWN4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const SERVICE4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 14);
const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
const SERVICE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x14);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
/// The port of the node's program. The checks of the other direction send to the same port of the client.
const PORT: u16 = 4711;
const CLAIMS_PORT: u16 = 4712;
const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;
/// Long enough for an answer on a cable within this machine, even a busy one.
const SILENCE: Duration = Duration::from_millis(60);
/// Set for a test that is started as a child process; its value is the backend.
const CHILD: &str = "LOCUM_GATE_TEST_ENGINE";

/// Set for a child process that is to probe the backends.
const PROBE: &str = "LOCUM_GATE_TEST_PROBE";

macro_rules! both {
    ($($name:ident)*) => {
        mod with_bpf { $(#[test] fn $name() { $crate::gate::tests::run(true, super::$name); })* }
        mod with_nft { $(#[test] fn $name() { $crate::gate::tests::run(false, super::$name); })* }
    };
}

mod arp_filter;
mod filter;
mod tags;

/// As a cluster announces its claims.
const PATTERN: Pattern = Pattern { head: *b"LOCL\x02\x01\0\0", subject: 8, proof: 40 };
/// Bytes of an announcement.
const ANNOUNCED: usize = 56;
/// What the node's gate listens for.
const SUBJECT: Subject = Subject([0x97; 20]);

/// What a rival sends.
fn announcement(subject: Subject, proof: Proof) -> [u8; ANNOUNCED] {
    let mut bytes = [0x0b; ANNOUNCED];
    bytes[..8].copy_from_slice(&PATTERN.head);
    bytes[PATTERN.subject..][..Subject::BYTES].copy_from_slice(&subject.0);
    bytes[PATTERN.proof..].copy_from_slice(&proof.0);
    bytes
}

/// Another in one byte, the first or the last.
fn others(subject: Subject) -> [Subject; 2] {
    [0, Subject::BYTES - 1].map(|place| {
        let mut other = subject;
        other.0[place] ^= 1;
        other
    })
}

both! {
    shut_it_is_silent_and_open_it_answers
    other_addresses_are_untouched
    it_ends_by_itself
    a_renewal_loses_nothing
    a_late_renewal_opens_nothing
    a_killed_process_leaves_it_shut
    deleted_parts_are_reported_and_put_back
    removed_it_leaves_nothing
    every_interface_has_it
    a_rivals_claim_shuts_it
    an_interface_without_link_headers_is_shut_too
    the_gate_of_an_earlier_daemon_is_taken_over_without_a_gap
    two_gates_do_not_meet
    no_socket_gets_an_announcement
}

mod cohorts;

/// Runs a test in its own namespaces. If that is not possible it prints that the test is skipped.
fn run(bpf: bool, test: fn(&Backend)) {
    let fresh = NewNamespaces { network: true, mounts: true, host_name: false, processes: false, ipc: false };
    aside(|| {
        match namespace::enter_new(fresh).map_err(|error| error.to_string()).and_then(|()| backend(bpf)) {
            Ok(backend) => test(&backend),
            Err(why) => {
                let _ = writeln!(io::stderr(), "skipped: {why}");
            }
        }
    });
}

fn backend(bpf: bool) -> Result<Backend, String> {
    if bpf {
        mount::make_private().map_err(|error| error.to_string())?;
        mount::memory(&std::env::temp_dir()).map_err(|error| error.to_string())?;
        ensure_bpffs(&std::env::temp_dir().join("bpf")).map_err(|error| error.to_string())?;
    }
    let probe = probe();
    if bpf {
        return probe.bpf.map(|bpffs| Backend::Bpf { bpffs });
    }
    probe.nft.map(|()| Backend::Nft)
}

/// If nothing can be pinned, the daemon has to choose the other backend before it begins, not fail at the first gate.
#[test]
fn a_read_only_bpf_file_system_is_not_used() {
    run(true, |backend| {
        let Backend::Bpf { bpffs } = backend else { panic!("{backend:?}") };
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(bpffs, flags, c"").unwrap();
        let probe = probe();
        let why = probe.bpf.as_ref().unwrap_err();
        assert!(why.ends_with(" is read-only here"), "{why}");
        if probe.nft.is_ok() {
            assert_eq!(probe.choose(), Ok(Backend::Nft));
        }
    });
}

/// A node (the calling thread) and a client, on one cable.
struct GateTestbed {
    eth: Interface,
    client_mac: [u8; 6],
    client: OwnedFd,
    tap: Tap,
}

impl GateTestbed {
    fn new() -> Self {
        let client = other_network();
        let [eth, other] = veth_across("eth0", "peer0", &client).unwrap();
        for ip in [OWN4.into(), SERVICE4.into(), OWN6.into(), SERVICE6.into()] {
            put("eth0", ip);
        }
        inside(&client, || [CLIENT4.into(), CLIENT6.into()].map(|ip| put("peer0", ip)));
        let tap = inside(&client, || Tap::open("peer0").unwrap());
        let world = Self { eth, client_mac: other.mac.unwrap(), client, tap };
        // Nothing is shut yet: this shows that the cable works, and the node learns the client's address.
        let deadline = patience();
        while !(world.answers(OWN4) && world.answers(SERVICE4) && world.answers(OWN6)) {
            assert!(deadline(), "the cable does not work");
        }
        world
    }

    fn settings(&self) -> GateSettings {
        GateSettings {
            name: GateName::new("test.cluster", "10.9.0.14"),
            addresses: vec![SERVICE4.into(), SERVICE6.into()],
            interfaces: vec![self.eth.index],
            rivals: None,
            proofs: Vec::new(),
        }
    }

    /// Sends a frame to the node on the client's side of the cable.
    fn say(&self, ethertype: u16, payload: &[u8]) {
        let mac = self.eth.mac.unwrap();
        self.tap.send(&[&mac[..], &self.client_mac, &ethertype.to_be_bytes(), payload].concat()).unwrap();
    }

    /// The next frame from the node that mentions the address, within a time; with its time stamp.
    fn hear(&self, about: IpAddr, within: Duration) -> Option<(Vec<u8>, u64)> {
        let end = clock::monotonic_nanos() + within.as_nanos() as u64;
        let mut buffer = [0; 2048];
        loop {
            while let Some(got) = self.tap.receive(&mut buffer).unwrap() {
                let frame = &buffer[..got.length];
                if frame[6..12] == self.eth.mac.unwrap() && speaks_of(frame, about) {
                    return Some((frame.to_vec(), got.arrived.unwrap().as_nanos() as u64));
                }
            }
            if clock::monotonic_nanos() > end {
                return None;
            }
            clock::sleep_until(clock::monotonic_nanos() + MILLI / 5);
        }
    }

    /// Discards all frames that have arrived.
    fn drain(&self) {
        while self.tap.receive(&mut [0; 64]).unwrap().is_some() {}
    }

    /// Whether an echo is answered. Silence only counts after the third question.
    fn answers(&self, ip: impl Into<IpAddr>) -> bool {
        let ip = ip.into();
        (0..3).any(|_| self.answers_once(ip))
    }

    fn answers_once(&self, ip: IpAddr) -> bool {
        self.drain();
        self.ask(ip);
        let is_echo = |frame: &[u8]| match ip {
            IpAddr::V4(_) => frame[12..14] == [8, 0] && frame[14 + 20] == 0,
            IpAddr::V6(_) => frame[12..14] == [0x86, 0xdd] && frame[14 + 40] == 129,
        };
        let end = clock::monotonic_nanos() + SILENCE.as_nanos() as u64;
        while clock::monotonic_nanos() < end {
            if self.hear(ip, SILENCE).is_some_and(|(frame, _)| is_echo(&frame)) {
                return true;
            }
        }
        false
    }

    /// Sends one echo request to the address.
    fn ask(&self, ip: IpAddr) {
        match ip {
            IpAddr::V4(to) => {
                let mut echo = [8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
                let sum = checksum::internet(&[&echo]);
                echo[2..4].copy_from_slice(&sum);
                self.say(0x0800, &ipv4(CLIENT4, to, 1, &echo));
            }
            IpAddr::V6(to) => self.say(0x86dd, &icmpv6(CLIENT6, to, 64, &[128, 0, 0, 0, 1, 2, 3, 4])),
        }
    }

    /// Sends an ARP packet with this sender and target.
    fn arp(&self, sender: Ipv4Addr, target: Ipv4Addr) {
        let head = [0, 1, 8, 0, 6, 4, 0, 1];
        let parts = [&head[..], &self.client_mac, &sender.octets(), &[0; 6], &target.octets()];
        self.say(0x0806, &parts.concat());
    }

    /// Sends a neighbour solicitation for the address.
    fn solicit(&self, target: Ipv6Addr) {
        let own = [&[1, 1][..], &self.client_mac].concat();
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &own].concat();
        self.say(0x86dd, &icmpv6(CLIENT6, target, 255, &message));
    }

    /// Each way to communicate with or about the service, by name, and whether it worked.
    fn probe_paths(&self) -> Vec<(&'static str, bool)> {
        let heard = |about: IpAddr| self.hear(about, SILENCE).is_some();
        let mut ways = vec![("echo", self.answers(SERVICE4)), ("echo6", self.answers(SERVICE6))];
        self.drain();
        self.arp(CLIENT4, SERVICE4);
        ways.push(("arp", heard(SERVICE4.into())));
        self.drain();
        self.solicit(SERVICE6);
        ways.push(("solicitation", heard(SERVICE6.into())));
        let announcer = Announcer::open().unwrap();
        for (name, form) in
            [("announcement", AnnouncementForm::Request), ("announced answer", AnnouncementForm::Reply)]
        {
            self.drain();
            announced(announcer.announce(&self.eth, SERVICE4.into(), form));
            ways.push((name, heard(SERVICE4.into())));
        }
        self.drain();
        announced(announcer.announce(&self.eth, SERVICE6.into(), AnnouncementForm::Request));
        ways.push(("advertisement", heard(SERVICE6.into())));
        // One direction only: what a program in the node receives, …
        for (name, service, client) in [
            ("datagram in", IpAddr::from(SERVICE4), IpAddr::from(CLIENT4)),
            ("datagram in, 6", SERVICE6.into(), CLIENT6.into()),
        ] {
            let listener = UdpSocket::bind((service, PORT)).unwrap();
            listener.set_read_timeout(Some(SILENCE)).unwrap();
            self.datagram(client, service, PORT, b"hello");
            ways.push((name, listener.recv(&mut [0; 16]).is_ok()));
        }
        // … what it learns by ARP, …
        let stranger = Ipv4Addr::new(10, 9, 0, 77);
        self.arp(stranger, SERVICE4);
        let known = fs::read_to_string("/proc/thread-self/net/arp").unwrap();
        ways.push(("arp in", known.contains("10.9.0.77 ") && forget(stranger)));
        // … and what it sends, without an error although the packet is dropped.
        for (name, service, client) in [
            ("datagram out", IpAddr::from(SERVICE4), IpAddr::from(CLIENT4)),
            ("datagram out, 6", SERVICE6.into(), CLIENT6.into()),
        ] {
            self.drain();
            let mouth = UdpSocket::bind((service, PORT + 1)).unwrap();
            mouth.send_to(b"hello", (client, PORT)).expect("a program is told of no error");
            ways.push((name, heard(service)));
        }
        ways
    }

    /// Every way works at least once. One check alone may fail for lack of a processor.
    fn all_paths_work(&self, when: &str) {
        let deadline = patience();
        let mut waiting: Vec<&str> =
            self.probe_paths().into_iter().filter(|(_, works)| !works).map(|way| way.0).collect();
        while !waiting.is_empty() {
            assert!(deadline(), "{when}: {waiting:?}");
            let ways = self.probe_paths();
            waiting.retain(|name| ways.contains(&(*name, false)));
        }
    }

    /// No way works, after packets that were on their way have arrived.
    fn no_path_works(&self, when: &str) {
        let deadline = patience();
        let speaks = || [SERVICE4.into(), SERVICE6.into()].map(|ip| self.hear(ip, SILENCE).is_some());
        while speaks().contains(&true) {
            assert!(deadline(), "{when}: it goes on to speak of the service");
        }
        for (name, works) in self.probe_paths() {
            assert!(!works, "{when}: {name}");
        }
    }

    /// Waits until the address answers.
    fn comes_to_answer(&self, ip: impl Into<IpAddr> + Copy, when: &str) {
        let deadline = patience();
        while !self.answers(ip) {
            assert!(deadline(), "{when}");
        }
    }

    /// Sends a datagram from the client's address or from one behind the client.
    fn datagram(&self, from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) {
        let length = (8 + payload.len()) as u16;
        let mut udp =
            [&port.to_be_bytes()[..], &port.to_be_bytes(), &length.to_be_bytes(), &[0; 2], payload].concat();
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.say(0x0800, &ipv4(from, to, 17, &udp)),
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let pseudo = [&u32::from(length).to_be_bytes()[..], &[0, 0, 0, 17]].concat();
                let sum = checksum::internet(&[&from.octets(), &to.octets(), &pseudo, &udp]);
                udp[6..8].copy_from_slice(&sum);
                self.say(0x86dd, &ipv6(from, to, 17, 64, &udp));
            }
            _ => panic!("two families"),
        }
    }
}

/// Adds an address, with a network of 24 or 64 bits, to an interface of this network namespace.
fn put(interface: &str, ip: IpAddr) {
    let mut netlink = Netlink::open().unwrap();
    let interface = netlink.interface(interface).unwrap().index;
    let prefix = if ip.is_ipv4() { 24 } else { 64 };
    netlink.add_address(&NewAddress::new(interface, ip, prefix)).unwrap();
}

fn forget(_stranger: Ipv4Addr) -> bool {
    // Down and up again, so that the interface forgets its neighbours. Its IPv6 addresses go, and are put back.
    set_up("eth0", false).unwrap();
    set_up("eth0", true).unwrap();
    for ip in [OWN6, SERVICE6] {
        put("eth0", ip.into());
    }
    true
}

/// A sender of whole packets is told that one was dropped, as by a full queue.
fn announced(result: io::Result<()>) {
    if let Err(error) = result {
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
    }
}

fn speaks_of(frame: &[u8], about: IpAddr) -> bool {
    match about {
        IpAddr::V4(ip) => frame.windows(4).any(|bytes| bytes == ip.octets()),
        IpAddr::V6(ip) => frame.windows(16).any(|bytes| bytes == ip.octets()),
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut header = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0, 0, 64, protocol, 0, 0]].concat();
    header.extend([from.octets(), to.octets()].concat());
    let sum = checksum::internet(&[&header]);
    header[10..12].copy_from_slice(&sum);
    [header, payload.to_vec()].concat()
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    let head = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, hops]].concat();
    [&head[..], &from.octets(), &to.octets(), payload].concat()
}

fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, hops: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let pseudo = [&(message.len() as u32).to_be_bytes()[..], &[0, 0, 0, 58]].concat();
    let sum = checksum::internet(&[&from.octets(), &to.octets(), &pseudo, &message]);
    message[2..4].copy_from_slice(&sum);
    ipv6(from, to, 58, hops, &message)
}

/// A renewal for this long from now, by a beat that is sent now.
fn for_millis(millis: u64) -> Renewal {
    let sent = clock::boot_nanos();
    Renewal { deadline: sent + millis * MILLI, sent }
}

fn pause(millis: u64) {
    clock::sleep_until(clock::monotonic_nanos() + millis * MILLI);
}

/// Converts a wall-clock stamp to boot time.
fn boot_of(stamp: u64) -> u64 {
    clock::boot_nanos() - (clock::unix_nanos() - stamp)
}

fn shut_it_is_silent_and_open_it_answers(backend: &Backend) {
    let world = GateTestbed::new();
    world.all_paths_work("without a gate");
    let mut gate = Gate::install(backend, world.settings()).unwrap();
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
    world.no_path_works("installed, but not renewed");
    assert_eq!(gate.renew(for_millis(600_000)).unwrap(), RenewalOutcome::Open);
    world.all_paths_work("open");
    gate.close().unwrap();
    world.no_path_works("closed");
    gate.renew(for_millis(600_000)).unwrap();
    world.comes_to_answer(SERVICE4, "open again");
    drop(gate);
    world.comes_to_answer(SERVICE4, "nobody's dropping it closes it");
    Gate::install(backend, world.settings()).unwrap();
    assert!(!world.answers(SERVICE4), "a new life begins shut");
}

fn other_addresses_are_untouched(backend: &Backend) {
    let world = GateTestbed::new();
    let _gate = Gate::install(backend, world.settings()).unwrap();
    assert!(world.answers(OWN4) && world.answers(OWN6));
    world.drain();
    world.arp(CLIENT4, OWN4);
    assert!(world.hear(OWN4.into(), SILENCE).is_some());
    world.drain();
    world.solicit(OWN6);
    assert!(world.hear(OWN6.into(), SILENCE).is_some());
    // Packets that are not IP, too short for their header, or in pieces must not harm the node, nor make it mention the
    // service.
    for length in [0usize, 1, 4, 7, 19, 27, 39, 41, 47, 55] {
        for ethertype in [0x0800, 0x0806, 0x86dd, 0x88cc, 0x8100] {
            world.say(ethertype, &vec![0x45; length]);
            world.say(ethertype, &vec![0x60; length]);
        }
    }
    assert!(world.answers(OWN4) && !world.answers(SERVICE4) && !world.answers(SERVICE6));
}

fn it_ends_by_itself(backend: &Backend) {
    let world = GateTestbed::new();
    let mut gate = Gate::install(backend, world.settings()).unwrap();
    let renewal = for_millis(300);
    gate.renew(renewal).unwrap();
    let mut last = 0;
    while clock::boot_nanos() < renewal.deadline + 100 * MILLI {
        world.ask(SERVICE4.into());
        if let Some((_, stamp)) = world.hear(SERVICE4.into(), Duration::from_millis(1)) {
            last = boot_of(stamp);
        }
    }
    let early = renewal.deadline.saturating_sub(last) / MILLI;
    // The answer to the last question that passed needs some time to reach the client.
    assert!(last < renewal.deadline + 5 * MILLI, "answered {} ms late", (last - renewal.deadline) / MILLI);
    // The client may wait for a processor for a while, but not for the whole lease.
    assert!(early < 250, "silent {early} ms too early");
    for (name, works) in world.probe_paths() {
        assert!(!works, "expired: {name}");
    }
}

/// The wall clock cannot be set here. Instead the lease is given as it would be after the clock was set: with a
/// deadline one year away from the present time.
#[test]
fn a_wall_clock_that_steps_a_year_shuts_the_gate_of_nft_at_worst() {
    const YEAR: u64 = 365 * 24 * 3600 * SECOND;
    run(false, |backend| {
        let world = GateTestbed::new();
        let mut gate = Gate::install(backend, world.settings()).unwrap();
        let as_if_at = |gate: &mut Gate, wall: u64, renewal: Renewal| match &mut gate.handle {
            GateHandle::Nft(gate) => {
                gate.prepare_at(wall, renewal);
                assert_eq!(gate.commit(renewal).unwrap(), RenewalOutcome::Open);
            }
            GateHandle::Bpf(_) => unreachable!("it reads no wall clock"),
        };
        // A year forwards: silent until the next renewal, however long the lease.
        as_if_at(&mut gate, clock::unix_nanos() - YEAR, for_millis(60_000));
        assert!(!world.answers(SERVICE4), "stepped forwards");
        gate.renew(for_millis(60_000)).unwrap();
        assert!(world.answers(SERVICE4), "renewed");
        // A year backwards: it answers, but not beyond its lease.
        let renewal = for_millis(1000);
        as_if_at(&mut gate, clock::unix_nanos() + YEAR, renewal);
        assert!(world.answers(SERVICE4) || clock::boot_nanos() > renewal.deadline, "stepped backwards");
        while clock::boot_nanos() < renewal.deadline + 5 * MILLI {
            pause(1);
        }
        assert!(!world.answers(SERVICE4), "expired");
    });
}

fn a_renewal_loses_nothing(backend: &Backend) {
    const QUESTIONS: u32 = 10_000;
    let world = GateTestbed::new();
    let mut gate = Gate::install(backend, world.settings()).unwrap();
    gate.renew(for_millis(10_000)).unwrap();
    world.drain();
    let mut answers = 0;
    let mut renewals = 0;
    let mut buffer = [0; 2048];
    let mut count = || {
        let mut answers = 0;
        while let Some(got) = world.tap.receive(&mut buffer).unwrap() {
            let frame = &buffer[..got.length];
            answers +=
                u32::from(frame[12..14] == [8, 0] && frame[34] == 0 && speaks_of(frame, SERVICE4.into()));
        }
        answers
    };
    let begun = clock::monotonic_nanos();
    std::thread::scope(|scope| {
        // Sends ten thousand questions while this thread renews.
        let asking = scope.spawn(|| {
            for question in 0..u64::from(QUESTIONS) {
                clock::sleep_until(begun + question * SECOND / 10_000);
                world.ask(SERVICE4.into());
            }
        });
        while !asking.is_finished() {
            gate.renew(for_millis(10_000)).unwrap();
            renewals += 1;
            answers += count();
            pause(2);
        }
    });
    pause(50);
    answers += count();
    assert_eq!(answers, QUESTIONS, "lost during {renewals} renewals");
    assert!(renewals > 50, "{renewals}");
}

fn a_late_renewal_opens_nothing(backend: &Backend) {
    let world = GateTestbed::new();
    let mut gate = Gate::install(backend, world.settings()).unwrap();
    let prepared = gate.prepare(for_millis(20));
    pause(30);
    prepared.commit().unwrap();
    assert!(!world.answers(SERVICE4), "the deadline had passed before the kernel got it");
    gate.renew(Renewal { deadline: clock::boot_nanos() - SECOND, sent: clock::boot_nanos() }).unwrap();
    assert!(!world.answers(SERVICE4), "a deadline that has passed");
    gate.renew(for_millis(10_000)).unwrap();
    assert!(world.answers(SERVICE4));
    gate.renew(for_millis(0)).unwrap();
    assert!(!world.answers(SERVICE4), "an earlier deadline counts");
}

/// Not a test by itself: started by [`a_killed_process_leaves_it_shut`]. It renews until it is killed.
#[test]
fn renews_until_it_is_killed() {
    let Ok(bpffs) = std::env::var(CHILD) else { return };
    let backend = if bpffs.is_empty() { Backend::Nft } else { Backend::Bpf { bpffs: bpffs.into() } };
    let index = Netlink::open().unwrap().interface("eth0").unwrap().index;
    let settings = GateSettings {
        name: GateName::new("test.cluster", "10.9.0.14"),
        addresses: vec![SERVICE4.into(), SERVICE6.into()],
        interfaces: vec![index],
        rivals: None,
        proofs: Vec::new(),
    };
    let mut gate = Gate::install(&backend, settings).unwrap();
    loop {
        gate.renew(for_millis(300)).unwrap();
        pause(20);
    }
}

fn child(backend: &Backend) -> Child {
    let bpffs = bpffs_of(backend).unwrap_or_default();
    // Not by its path: the directory of temporary files is covered by a mount, and this program may have been built
    // there.
    Command::new("/proc/self/exe")
        .args(["--exact", "gate::tests::renews_until_it_is_killed", "--nocapture"])
        .env(CHILD, bpffs)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn a_killed_process_leaves_it_shut(backend: &Backend) {
    let world = GateTestbed::new();
    drop(Gate::install(backend, world.settings()).unwrap());
    let mut renewing = child(backend);
    let deadline = patience();
    while !world.answers(SERVICE4) {
        assert!(deadline(), "the child does not open it");
    }
    pause(400);
    assert!(world.answers(SERVICE4), "it is renewed");
    renewing.kill().unwrap();
    renewing.wait().unwrap();
    pause(320);
    for (name, works) in world.probe_paths() {
        assert!(!works, "its process was killed: {name}");
    }
    let listed = list(bpffs_of(backend)).unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0].name, listed[0].deadline), (&world.settings().name, None));
    assert!(remove(backend, &world.settings().name).unwrap(), "its heir may remove it");
    assert!(world.answers(SERVICE4));
}

fn bpffs_of(backend: &Backend) -> Option<PathBuf> {
    match backend {
        Backend::Bpf { bpffs } => Some(bpffs.clone()),
        Backend::Nft => None,
    }
}

fn deleted_parts_are_reported_and_put_back(backend: &Backend) {
    let world = GateTestbed::new();
    let mut gate = Gate::install(backend, world.settings()).unwrap();
    let mut watch = TableWatch::open().unwrap();
    gate.renew(for_millis(60_000)).unwrap();
    assert_eq!(watch.read().unwrap(), Some([].into()), "a renewal deletes nothing");
    match backend {
        Backend::Bpf { bpffs } => {
            let pins = bpffs.join(world.settings().name.packet_filter().path());
            let pin = pins.join(format!("out-{}", world.eth.index));
            fs::remove_file(&pin).unwrap();
            let missing = gate.missing().unwrap();
            assert!(missing.len() == 1 && missing[0].contains("out-"), "{missing:?}");
            gate.restore().unwrap();
            assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
            assert!(world.answers(SERVICE4), "the lease runs on");
            fs::remove_file(pins.join("gates")).unwrap();
            let missing = gate.missing().unwrap();
            assert!(missing.len() == 1 && missing[0].contains("gates"), "{missing:?}");
            // A foreign process deletes all of it.
            assert!(remove(backend, &world.settings().name).unwrap());
            assert!(gate.missing().unwrap().len() > 4);
        }
        Backend::Nft => {
            // Another socket than the owner's: refused if the kernel knows owners.
            match remove(backend, &world.settings().name) {
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}"),
                Ok(removed) => assert!(removed),
            }
            // As on a kernel without owners: the next process to take the table gets it.
            drop(gate);
            assert!(remove(backend, &world.settings().name).unwrap() || watch.read().unwrap().is_some());
            assert_eq!(watch.read().unwrap(), Some([world.settings().name.packet_filter()].into()));
            gate = Gate::install(backend, world.settings()).unwrap();
            gate.forget_table();
            let missing = gate.missing().unwrap();
            assert!(missing.len() == 1 && missing[0].contains("the table"), "{missing:?}");
            let refused = gate.renew(for_millis(60_000)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        }
    }
    gate.restore().unwrap();
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
    let is_shut = matches!(backend, Backend::Nft);
    assert_eq!(
        world.answers(SERVICE4),
        !is_shut,
        "rules that are made anew are shut; a lease in a map runs on"
    );
    gate.close().unwrap();
    assert!(!world.answers(SERVICE4));
    gate.renew(for_millis(60_000)).unwrap();
    assert!(world.answers(SERVICE4) && world.answers(SERVICE6));
}

fn removed_it_leaves_nothing(backend: &Backend) {
    let world = GateTestbed::new();
    let before = list(bpffs_of(backend)).unwrap();
    assert_eq!(before, []);
    let mut gate = Gate::install(backend, world.settings()).unwrap();
    let renewal = for_millis(60_000);
    gate.renew(renewal).unwrap();
    let listed = list(bpffs_of(backend)).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].addresses, world.settings().addresses);
    assert_eq!(listed[0].interfaces, [world.eth.index]);
    assert_eq!(&listed[0].backend, backend);
    let deadline = listed[0].deadline.unwrap();
    assert!(deadline.abs_diff(renewal.deadline) < 250 * MILLI, "{deadline} for {renewal:?}");
    gate.remove().unwrap();
    assert_eq!(list(bpffs_of(backend)).unwrap(), []);
    assert!(!remove(backend, &world.settings().name).unwrap());
    if let Backend::Bpf { bpffs } = backend {
        assert!(!bpffs.join(ROOT).exists(), "no directory is left");
    }
    world.all_paths_work("without a gate");
}

fn every_interface_has_it(backend: &Backend) {
    let world = GateTestbed::new();
    let other = other_network();
    let [second, there] = veth_across("eth1", "peer1", &other).unwrap();
    let mut gate = Gate::install(backend, world.settings()).unwrap();
    // The address answers on any interface, so the gate must cover the new one before packets arrive there.
    let tap = inside(&other, || Tap::open("peer1").unwrap());
    let second_world =
        GateTestbed { eth: second.clone(), client_mac: there.mac.unwrap(), client: other, tap };
    inside(&second_world.client, || put("peer1", Ipv4Addr::new(10, 10, 0, 2).into()));
    put("eth1", Ipv4Addr::new(10, 10, 0, 1).into());
    let arp_answered = |world: &GateTestbed| {
        (0..3).any(|_| {
            world.drain();
            world.arp(Ipv4Addr::new(10, 10, 0, 2), SERVICE4);
            world.hear(SERVICE4.into(), SILENCE).is_some()
        })
    };
    assert!(arp_answered(&second_world), "no gate there");
    gate.add_interface(second.index).unwrap();
    assert!(!arp_answered(&second_world) && !world.answers(SERVICE4));
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
    gate.renew(for_millis(60_000)).unwrap();
    assert!(arp_answered(&second_world) && world.answers(SERVICE4));
    gate.close().unwrap();
    gate.remove_interface(second.index).unwrap();
    assert!(arp_answered(&second_world) && !world.answers(SERVICE4));
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
    // An interface that goes takes its part of the gate with it. That is reported, and the rest stays.
    gate.add_interface(second.index).unwrap();
    Netlink::open().unwrap().delete_interface(second.index).unwrap();
    let deadline = patience();
    while gate.missing().unwrap().is_empty() {
        assert!(deadline(), "the interface is gone, and nothing is missing");
    }
    gate.restore().unwrap();
    assert!(!gate.missing().unwrap().is_empty(), "it is still to stand there");
    gate.remove_interface(second.index).unwrap();
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
    let nowhere = gate.add_interface(9999).unwrap_err();
    assert!(nowhere.to_string().contains("interface 9999"), "{nowhere}");
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new(), "it is not to stand there");
    assert!(!world.answers(SERVICE4));
}

fn a_rivals_claim_shuts_it(backend: &Backend) {
    let world = GateTestbed::new();
    let filter = PacketFilter::open(backend, "test.cluster", PATTERN).unwrap();
    let peers = vec![CLIENT4.into(), CLIENT6.into()];
    let rivals =
        RivalSettings { interfaces: vec![world.eth.index], peers, port: CLAIMS_PORT, subject: SUBJECT };
    let own = Proof([0x5a; 16]);
    let settings = GateSettings { rivals: Some(rivals), proofs: vec![own], ..world.settings() };
    let mut gate = filter.install(settings).unwrap();
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
    gate.renew(for_millis(60_000)).unwrap();
    let with = |proof| announcement(SUBJECT, proof);
    let right = with(own);
    let send = |payload: &[u8]| world.datagram(CLIENT4.into(), OWN4.into(), CLAIMS_PORT, payload);
    // Without the proof, or with half of it; about something else, to another port, not from a peer, no claim.
    let [mut first, mut last] = [own.0; 2];
    (first[0], last[15]) = (0, 0);
    for wrong in [Proof([0; 16]), Proof([0xff; 16]), Proof(first), Proof(last)] {
        send(&with(wrong));
    }
    for other in others(SUBJECT) {
        send(&announcement(other, own));
    }
    let stranger = Ipv4Addr::new(10, 9, 0, 3);
    world.datagram(CLIENT4.into(), OWN4.into(), CLAIMS_PORT + 1, &right);
    world.datagram(stranger.into(), OWN4.into(), CLAIMS_PORT, &right);
    for length in 0..ANNOUNCED {
        send(&right[..length]);
    }
    for position in 0..8 {
        let mut other = right;
        other[position] ^= 1;
        send(&other);
    }
    assert!(world.answers(SERVICE4), "nothing of that shuts it");
    assert_eq!(gate.renew(for_millis(60_000)).unwrap(), RenewalOutcome::Open);

    // A valid one shuts the gate, without any process of ours running.
    let queued = for_millis(60_000);
    send(&right);
    assert!(!world.answers(SERVICE4) && !world.answers(SERVICE6));
    let renewed = gate.renew(queued).unwrap();
    let RenewalOutcome::Shut { since } = renewed else { panic!("opened by a beat sent before") };
    assert!(since > queued.sent && since <= clock::boot_nanos());
    assert!(!world.answers(SERVICE4), "a renewal by a beat sent before");
    assert!(matches!(gate.renew(queued), Ok(RenewalOutcome::Shut { .. })));
    assert!(!world.answers(SERVICE4), "however often");
    assert_eq!(list(bpffs_of(backend)).unwrap()[0].deadline, None);
    assert_eq!(gate.renew(for_millis(60_000)).unwrap(), RenewalOutcome::Open);
    assert!(world.answers(SERVICE4), "a renewal by a beat sent later");

    // The same by IPv6, and with what other versions may append.
    let more = [&right[..], b"more"].concat();
    world.datagram(CLIENT6.into(), OWN6.into(), CLAIMS_PORT, &more);
    assert!(!world.answers(SERVICE4));
    reopen(&mut gate);
    assert!(world.answers(SERVICE4));

    // In pieces: the payload is in a page of its own, as some drivers deliver it.
    pieces(&world, &more);
    assert!(!world.answers(SERVICE4), "a claim in pieces");
    reopen(&mut gate);
    assert!(world.answers(SERVICE4));

    // As many proofs as there is room for: the first and the last shut the gate. After they are replaced, only the new
    // ones do.
    let all: Vec<Proof> = (1..=PROOFS_MAX as u8).map(|number| Proof([number; 16])).collect();
    gate.set_proofs(&all).unwrap();
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
    send(&right);
    assert!(world.answers(SERVICE4), "what it was told before");
    for proof in [all[0], all[PROOFS_MAX - 1]] {
        send(&with(proof));
        assert!(!world.answers(SERVICE4), "one of them");
        reopen(&mut gate);
    }
    gate.set_proofs(&[]).unwrap();
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
    for proof in [own, all[0], Proof([0; 16])] {
        send(&with(proof));
    }
    assert!(world.answers(SERVICE4), "it expects none");
    gate.set_proofs(&[all[0], own]).unwrap();
    send(&right);
    assert!(!world.answers(SERVICE4));
}

/// Datagrams with the shape of an announcement are for the packet filter alone: a flood of them fills no socket. Those
/// that prove nothing are counted; those about other nodes are not.
fn no_socket_gets_an_announcement(backend: &Backend) {
    let world = GateTestbed::new();
    let filter = PacketFilter::open(backend, "test.cluster", PATTERN).unwrap();
    filter.listen(world.eth.index, CLAIMS_PORT).unwrap();
    let listener = UdpSocket::bind((OWN4, CLAIMS_PORT)).unwrap();
    let ear6 = UdpSocket::bind((OWN6, CLAIMS_PORT)).unwrap();
    let elsewhere = UdpSocket::bind((OWN4, CLAIMS_PORT + 1)).unwrap();
    [&listener, &ear6, &elsewhere]
        .into_iter()
        .for_each(|listener| listener.set_read_timeout(Some(SILENCE)).unwrap());
    let bytes = announcement(SUBJECT, Proof([1; 16]));
    let of = |from: IpAddr, payload: &[u8]| {
        let to = if from.is_ipv4() { OWN4.into() } else { IpAddr::from(OWN6) };
        world.datagram(from, to, CLAIMS_PORT, payload);
    };
    let silent = || listener.recv(&mut [0; 99]).is_err() && ear6.recv(&mut [0; 99]).is_err();
    // For a group without a gate.
    of(CLIENT4.into(), &bytes);
    of(CLIENT6.into(), &bytes);
    assert!(silent(), "no gate stands");
    let before = filter.refused().unwrap();
    let peers = vec![CLIENT4.into(), CLIENT6.into()];
    let rivals =
        RivalSettings { interfaces: vec![world.eth.index], peers, port: CLAIMS_PORT, subject: SUBJECT };
    let settings = GateSettings { rivals: Some(rivals), proofs: vec![Proof([2; 16])], ..world.settings() };
    let mut gate = filter.install(settings).unwrap();
    gate.renew(for_millis(60_000)).unwrap();
    let stranger = IpAddr::from(Ipv4Addr::new(10, 9, 0, 3));
    of(CLIENT4.into(), &bytes);
    of(CLIENT6.into(), &bytes);
    of(stranger, &bytes);
    of(CLIENT4.into(), &bytes[..4]);
    of(
        CLIENT4.into(),
        b"LOCL\x01\x01\0\0 of another version, and long enough to be one of its announcements",
    );
    assert!(silent());
    assert_eq!(filter.refused().unwrap() - before, 5);
    for other in others(SUBJECT) {
        of(CLIENT4.into(), &announcement(other, Proof([1; 16])));
    }
    assert!(silent());
    assert_eq!(filter.refused().unwrap() - before, 5, "about others");
    // All other datagrams arrive, also short ones. At another port every datagram arrives.
    for payload in [&b"LOC"[..], b"", b"###\nt=status\n", b"XLOCL"] {
        of(CLIENT4.into(), payload);
        assert_eq!(listener.recv(&mut [0; 99]).ok(), Some(payload.len()));
        of(CLIENT6.into(), payload);
        assert_eq!(ear6.recv(&mut [0; 99]).ok(), Some(payload.len()));
    }
    world.datagram(CLIENT4.into(), OWN4.into(), CLAIMS_PORT + 1, &bytes);
    assert_eq!(elsewhere.recv(&mut [0; 99]).ok(), Some(bytes.len()));
    assert!(world.answers(SERVICE4));
    gate.remove().unwrap();
    filter.remove().unwrap();
}

/// `nft` notices with the first renewal that a rival was heard, and opens with the second.
fn reopen(gate: &mut Gate) {
    gate.renew(for_millis(60_000)).unwrap();
    assert_eq!(gate.renew(for_millis(60_000)).unwrap(), RenewalOutcome::Open);
}

/// Sends a claim from the client's kernel without copying it.
fn pieces(world: &GateTestbed, payload: &[u8]) {
    // linux/socket.h, asm-generic/socket.h
    const MSG_ZEROCOPY: u32 = 0x400_0000;
    const SO_ZEROCOPY: i32 = 60;
    let socket = inside(&world.client, || UdpSocket::bind((CLIENT4, 0)).unwrap());
    crate::option::set(&socket, libc::SOL_SOCKET, SO_ZEROCOPY, &1i32).unwrap();
    socket.connect((OWN4, CLAIMS_PORT)).unwrap();
    let flags = rustix::net::SendFlags::from_bits_retain(MSG_ZEROCOPY);
    rustix::net::send(&socket, payload, flags).unwrap();
}

/// Makes an interface without link headers. Packets written to the file arrive on it; packets that it sends can be
/// read.
fn tunnel(name: &str) -> fs::File {
    // linux/if_tun.h
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUN_WITHOUT_HEADER: i16 = 0x1001;
    let file = fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&TUN_WITHOUT_HEADER.to_ne_bytes());
    // SAFETY: the request is as long as a struct ifreq, readable and writable.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    rustix::io::ioctl_fionbio(&file, true).unwrap();
    file
}

fn an_interface_without_link_headers_is_shut_too(backend: &Backend) {
    if !Path::new("/dev/net/tun").exists() {
        let _ = writeln!(io::stderr(), "skipped: no /dev/net/tun");
        return;
    }
    let mut tunnel = tunnel("tun0");
    set_up("tun0", true).unwrap();
    for ip in [OWN4.into(), SERVICE4.into(), OWN6.into(), SERVICE6.into()] {
        put("tun0", ip);
    }
    let interface = Netlink::open().unwrap().interface("tun0").unwrap().index;
    let settings = GateSettings {
        name: GateName::new("test", "tunnel"),
        addresses: vec![SERVICE4.into(), SERVICE6.into()],
        interfaces: vec![interface],
        rivals: None,
        proofs: Vec::new(),
    };
    let mut answers = |to: IpAddr| {
        let packet = match to {
            IpAddr::V4(to) => ipv4(CLIENT4, to, 1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
            IpAddr::V6(to) => icmpv6(CLIENT6, to, 64, &[128, 0, 0, 0, 1, 2, 3, 4]),
        };
        let mut buffer = [0; 2048];
        (0..3).any(|_| {
            tunnel.write_all(&packet).unwrap();
            pause(20);
            let mut answered = false;
            while let Ok(length) = tunnel.read(&mut buffer) {
                answered |= speaks_of(&buffer[..length], to);
            }
            answered
        })
    };
    let services = [IpAddr::from(SERVICE4), SERVICE6.into()];
    assert_eq!(services.map(&mut answers), [true; 2], "without a gate");
    let mut gate = Gate::install(backend, settings).unwrap();
    assert_eq!(services.map(&mut answers), [false; 2], "shut");
    assert_eq!([IpAddr::from(OWN4), OWN6.into()].map(&mut answers), [true; 2], "other addresses");
    gate.renew(for_millis(60_000)).unwrap();
    assert_eq!(services.map(&mut answers), [true; 2], "open");
}

fn the_gate_of_an_earlier_daemon_is_taken_over_without_a_gap(backend: &Backend) {
    let world = GateTestbed::new();
    assert!(Gate::adopt(backend, world.settings()).unwrap().is_none(), "nothing stands");
    let mut gate = Gate::install(backend, world.settings()).unwrap();
    gate.renew(for_millis(60_000)).unwrap();
    drop(gate);
    // With other settings: one address removed, one added.
    let new: IpAddr = Ipv4Addr::new(10, 9, 0, 15).into();
    put("eth0", new);
    let settings = GateSettings { addresses: vec![new, SERVICE6.into()], ..world.settings() };
    let mut gate = Gate::adopt(backend, settings).unwrap().expect("it stands");
    assert!(world.answers(SERVICE4) && world.answers(SERVICE6) && world.answers(new), "the lease runs on");
    assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
    gate.close().unwrap();
    assert!(world.answers(SERVICE4), "none of it any more");
    assert!(!world.answers(SERVICE6) && !world.answers(new));
    assert_eq!(gate.renew(for_millis(60_000)).unwrap(), RenewalOutcome::Open);
    assert!(world.answers(new));
    gate.remove().unwrap();
}

fn two_gates_do_not_meet(backend: &Backend) {
    let world = GateTestbed::new();
    let first = GateSettings { addresses: vec![SERVICE4.into()], ..world.settings() };
    let name = GateName::new("test.cluster", "another group");
    let second = GateSettings { name, addresses: vec![SERVICE6.into()], ..world.settings() };
    let filter = PacketFilter::open(backend, "test.cluster", PATTERN).unwrap();
    let mut first = filter.install(first).unwrap();
    let mut second = filter.install(second).unwrap();
    assert!(!world.answers(SERVICE4) && !world.answers(SERVICE6));
    first.renew(for_millis(60_000)).unwrap();
    assert!(world.answers(SERVICE4) && !world.answers(SERVICE6));
    second.renew(for_millis(60_000)).unwrap();
    first.close().unwrap();
    assert!(!world.answers(SERVICE4) && world.answers(SERVICE6));
    assert_eq!(list(bpffs_of(backend)).unwrap().len(), 2);
    first.remove().unwrap();
    assert!(world.answers(SERVICE4));
    assert_eq!(second.missing().unwrap(), Vec::<String>::new());
    second.close().unwrap();
    assert!(!world.answers(SERVICE6));
}

/// Not a test by itself: started by [`a_shifted_clock_is_noticed`].
#[test]
fn tells_why_there_is_no_bpf() {
    if std::env::var_os(PROBE).is_some() {
        println!("bpf: {:?}", probe().bpf);
    }
}

#[test]
fn a_shifted_clock_is_noticed() {
    if bpf::probe().is_err() {
        let _ = writeln!(io::stderr(), "skipped: no bpf here");
        return;
    }
    // A clock cannot be set to before the machine's start.
    let back = (clock::boot_nanos() / SECOND / 2).min(1000);
    for offset in ["1000".to_owned(), format!("-{back}")] {
        let Ok(output) = Command::new("unshare")
            .args(["--time", "--fork", "--boottime", &offset])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "gate::tests::tells_why_there_is_no_bpf", "--nocapture"])
            .env(PROBE, "")
            .output()
        else {
            let _ = writeln!(io::stderr(), "skipped: no unshare(1)");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let (near, about) = (
            offset.parse::<i64>().unwrap() * 1000,
            "CLOCK_BOOTTIME of this process differs from the kernel's by ",
        );
        let told = text.split(about).nth(1).and_then(|rest| rest.split(' ').next()?.parse::<i64>().ok());
        assert!(
            told.is_some_and(|told| told.abs_diff(near) < 100) && text.contains("time namespace"),
            "{output:?}"
        );
    }
}

#[test]
fn nft_needs_no_right_on_the_host() {
    let test = "gate::tests::with_nft::shut_it_is_silent_and_open_it_answers";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .output();
    match output {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !errors.contains("skipped"), "{output:?}");
        }
        other => {
            let _ = writeln!(io::stderr(), "skipped: cannot make user namespaces here: {other:?}");
        }
    }
}

#[test]
fn too_many_addresses_are_refused_in_words() {
    let settings = GateSettings {
        name: GateName::new("a", "b"),
        addresses: vec![SERVICE4.into(); ADDRESSES_MAX + 1],
        interfaces: Vec::new(),
        rivals: None,
        proofs: Vec::new(),
    };
    let error = settings.check().unwrap_err();
    assert!(error.to_string().contains("split the group in two"), "{error}");
}

#[test]
fn the_preferred_backend_that_works_is_chosen() {
    let no = Err("because".to_owned());
    let bpffs = PathBuf::from(BPFFS);
    assert_eq!(GateProbe { bpf: Ok(bpffs.clone()), nft: Ok(()) }.choose(), Ok(Backend::Bpf { bpffs }));
    assert_eq!(GateProbe { bpf: Err(String::new()), nft: Ok(()) }.choose(), Ok(Backend::Nft));
    let why = GateProbe { bpf: Err("no bpf".into()), nft: no }.choose().unwrap_err();
    assert!(why.contains("no bpf") && why.contains("because"));
}
