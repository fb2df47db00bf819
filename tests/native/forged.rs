//! Forged announcements of claims. Without the cluster's key they cannot silence a service, however fast they are sent;
//! with the key they can. The statement: `docs/hostile.md`.
//!
//! usage: `LOCUM_FORGED_SECONDS=60 cargo test --release --test main forged -- --nocapture`. Without the variable the
//! test takes a few seconds, and the machine's own noise is not judged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use locum_core::{
    config::locum_key,
    model::{
        action::{ClaimAnnouncement, ClaimProof},
        claim::GroupId,
        identity::MemberId,
        keys::Keys,
    },
    native::wire::announcement,
};
use locum_lab::clock::pause;
use locum_sys::{checksum, netlink::Netlink, tap::Tap};

use super::*;

const PORT: u16 = 6940;
const ALPHA: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 12);
const BETA: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 13);
const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 23, 2, 77);
/// Forged packets a second, in the minute of them.
const RATE: u64 = 10_000;
/// Allowed differences to an idle stretch, where the machine is judged: the delay of a beat, and the number of
/// questions without an answer. One question is sent each millisecond.
const LATE_MAX: Duration = Duration::from_millis(50);
const UNANSWERED_MAX: u64 = 50;
const ATTEMPTS: usize = 3;

/// A machine on the service's segment that claims to be the other node.
struct ClaimForger {
    tap: Tap,
    own: [u8; 6],
    /// The first node's hardware address.
    owner: [u8; 6],
}

impl ClaimForger {
    fn new(shop: &Shop) -> Self {
        let mac = || Netlink::open()?.interface("eth0")?.mac.ok_or(std::io::ErrorKind::NotFound.into());
        let of = |node| -> [u8; 6] {
            shop.rack.inside(node, mac).unwrap().unwrap_or_else(|e: std::io::Error| panic!("{e}"))
        };
        let tap = shop.rack.inside(CLIENT, || Tap::open("eth0")).unwrap().unwrap();
        Self { tap, own: of(CLIENT), owner: of(NODES[0]) }
    }

    fn packet(&self, from: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let length = |header: usize| u16::try_from(header + payload.len()).unwrap().to_be_bytes();
        let mut ip = [[0x45, 0], length(28), [0, 0], [0, 0], [64, 17], [0, 0]].concat();
        ip.extend(from.octets());
        ip.extend(ALPHA.octets());
        let sum = checksum::internet(&[&ip]);
        ip[10..12].copy_from_slice(&sum);
        let udp = [40_000_u16.to_be_bytes(), PORT.to_be_bytes(), length(8), [0, 0]].concat();
        [&self.owner[..], &self.own, &[8, 0], &ip, &udp, payload].concat()
    }

    /// Waits while queues are full, so that everything reported as sent is on the wire.
    fn send(&self, packet: &[u8]) {
        while self.tap.send(packet).is_err() {
            pause(Duration::from_millis(1));
        }
    }
}

/// What the second node would announce if it had the group.
fn claim(group: &str, proof: ClaimProof) -> [u8; ClaimAnnouncement::BYTES] {
    let subject = announcement::subject("shop", GroupId::of(group), MemberId::of(NODES[0]));
    announcement::encode(subject, MemberId::of(NODES[1]), u64::MAX - 1, proof).0
}

/// What ends the ownership that the first node has under this epoch.
fn proof(keys: &Keys, epoch: &str) -> ClaimProof {
    let round = epoch.split('.').next().and_then(|round| round.parse().ok());
    let subject = announcement::subject("shop", GroupId::of("web"), MemberId::of(NODES[0]));
    keys.claim_proof([&announcement::proved(subject, round.expect("an epoch has a round"))[..]])
}

fn keys_of_file(text: &str) -> Keys {
    locum_key::read(text.as_bytes()).0.expect("a key file")
}

/// Packets that look like announcements and prove nothing: of this version and the one before, with any sixteen bytes,
/// from a peer's and a stranger's address, about other groups, cut off.
fn nothing_proved(forger: &ClaimForger) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for proof in [[0; 16], [0xff; 16], *b"0123456789abcdef"] {
        let proof = ClaimProof(proof);
        let bytes = claim("web", proof);
        all.push(forger.packet(BETA, &bytes));
        all.push(forger.packet(STRANGER, &bytes));
        all.push(forger.packet(BETA, &bytes[..40]));
        let mut older = bytes;
        older[4] = 1;
        all.push(forger.packet(BETA, &older));
        all.push(forger.packet(BETA, &claim("another group", proof)));
    }
    // As a development version took it: any ballot above ours, and no more.
    let before =
        [&b"LOCL\x01\x01\0\0"[..], &claim("web", ClaimProof([0; 16]))[8..24], &[0xff; 12], &[0; 4]].concat();
    all.push(forger.packet(BETA, &before));
    all
}

fn each_backend(play: fn(Shop)) {
    for backend in ["bpf", "nft"] {
        let Some(mut shop) = Shop::build(true) else { return };
        shop.gates = Some(backend);
        let (_, gates) = shop.locum(NODES[0], &["gate", "--json"]);
        let backends: serde_json::Value = serde_json::from_str(&gates).unwrap();
        if !backends["backends"][backend].is_null() {
            eprintln!("skipped: no {backend} here: {gates}");
            continue;
        }
        play(shop.served());
    }
}

#[test]
fn only_the_key_silences_an_owner() {
    each_backend(|shop| {
        let [alpha, beta] = NODES;
        let forger = ClaimForger::new(&shop);
        let told = |shop: &Shop| {
            shop.text(alpha, "output").matches("another node has announced that it owns").count()
        };
        let epoch =
            |shop: &Shop| shop.text(alpha, "epochs").lines().last().map(String::from).unwrap_or_default();
        let cluster =
            keys_of_file(&fs::read_to_string(shop.rack.disk(alpha).join("locum/locum.key")).unwrap());
        let file = shop.text(alpha, "locum/locum.toml");
        let witness = file.split('"').find(|word| word.len() == 64).expect("the witness's own key");
        let witness = keys_of_file(witness);
        // A proof that was right once: the group was elsewhere, and is back.
        let old = epoch(&shop);
        shop.order(alpha, &["move", "web", beta]);
        shop.wait("the group has moved", |shop| shop.runs(beta));
        shop.order(beta, &["move", "web", alpha]);
        shop.wait("the group is back", |shop| shop.runs(alpha) && shop.answers_since(Moment::now()));
        assert_ne!(epoch(&shop), old);

        let mut packets = nothing_proved(&forger);
        packets.push(forger.packet(BETA, &claim("web", proof(&witness, &epoch(&shop)))));
        packets.push(forger.packet(BETA, &claim("web", proof(&cluster, &old))));
        let before = told(&shop);
        // By its own clock a gate stays shut for one beat at most, so each packet is sent repeatedly.
        for _ in 0..50 {
            packets.iter().for_each(|packet| forger.send(packet));
            pause(Duration::from_millis(50));
        }
        shop.wait("it answers all the while", |shop| shop.answers_since(Moment::now()));
        assert_eq!(told(&shop), before, "nothing of that shuts a gate: {}", shop.text(alpha, "output"));
        let report = shop.status(alpha).unwrap();
        let gates = report.heart.gates;
        assert!(gates.refused > 500, "{gates:?}");
        assert!(gates.gates.iter().all(|gate| gate.open_ms.is_some()), "{gates:?}");
        let claims_in: u64 = report.heart.links.iter().map(|link| link.claims_in).sum();
        assert_eq!(claims_in, 0, "no socket gets them");
        let (_, page) = shop.locum(alpha, &["status"]);
        assert!(page.contains("claim announcements without a valid proof were dropped"), "{page}");

        // With the key. A new claim may have been made meanwhile.
        let epoch = epoch(&shop);
        let (round, node) = epoch.split_once('.').unwrap();
        let round: u64 = round.parse().unwrap();
        shop.wait("the key shuts the gate", |shop| {
            for round in round..round + 20 {
                let right = claim("web", proof(&cluster, &format!("{round}.{node}")));
                forger.send(&forger.packet(BETA, &right));
            }
            pause(Duration::from_millis(500));
            told(shop) > before
        });
        // The next beat opens the gate again.
        shop.wait("it answers again", |shop| shop.answers_since(Moment::now()) && shop.runs(alpha));
    });
}

/// Questions without an answer in one stretch of time, and the longest time between two of the owner's beats.
#[derive(Debug)]
struct Stretch {
    unanswered: u64,
    silence: Duration,
    beats: u64,
    beat: Duration,
}

/// Measures for this long, while `play` runs.
fn stretch(shop: &Shop, long: Duration, play: impl FnOnce()) -> Stretch {
    let tap = shop.rack.tap("lan", NODES[0]).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    // The kernel stamps each beat on the switch's port.
    let listener = thread::spawn(move || {
        let (mut beats, mut last, mut longest, mut buffer) = (0, None, Duration::ZERO, vec![0; 4096]);
        while !over.load(Relaxed) {
            while let Ok(Some(got)) = tap.receive(&mut buffer) {
                let frame = buffer.get(..got.length.min(4096)).unwrap_or_default();
                let is_beat = frame.get(26..30) == Some(&ALPHA.octets()[..])
                    && frame.windows(6).any(|bytes| bytes == b"t=beat");
                if let (true, Some(at)) = (is_beat, got.arrived) {
                    beats += 1;
                    longest = longest.max(last.map_or(Duration::ZERO, |last| at.saturating_sub(last)));
                    last = Some(at);
                }
            }
            pause(Duration::from_millis(2));
        }
        (beats, longest)
    });
    let begun = Moment::now();
    play();
    pause(long.saturating_sub(Moment::now().since(begun)));
    let window = Span::new(begun, Moment::now());
    is_over.store(true, Relaxed);
    let (beats, beat) = listener.join().unwrap();
    pause(Duration::from_millis(200));
    let asked = u64::try_from(window.to.since(window.from).as_millis()).unwrap();
    let (answered, gap) = shop
        .rack
        .look(|record| {
            let echoes = record.echoes.get(&SERVICE).map_or(&[][..], Vec::as_slice);
            let answered = echoes.iter().filter(|at| (window.from..window.to).contains(*at)).count() as u64;
            (answered, record.outage(SERVICE, window))
        })
        .unwrap();
    let silence = gap.map_or(Duration::ZERO, |gap| gap.to.since(gap.from));
    Stretch { unanswered: asked.saturating_sub(answered), silence, beats, beat }
}

#[test]
fn a_minute_of_forged_announcements_is_like_an_idle_one() {
    each_backend(|shop| {
        let seconds: Option<u64> =
            std::env::var("LOCUM_FORGED_SECONDS").ok().map(|text| text.parse().expect("a whole number"));
        let long = Duration::from_secs(seconds.unwrap_or(3));
        let [alpha, _] = NODES;
        let forger = ClaimForger::new(&shop);
        let packets = nothing_proved(&forger);
        let backend = shop.gates.unwrap();
        // If the machine is so starved that the group moves by itself, the result is void: try once more.
        let (mut idle, mut forged) = (None, None);
        let sent = AtomicU64::new(0);
        let told = || shop.text(alpha, "output").matches("another node has announced that it owns").count();
        let mut told_before = 0;
        let stays = (0..ATTEMPTS).any(|_| {
            shop.await_founding();
            shop.wait("the owner answers", |shop| shop.runs(alpha) && shop.answers_since(Moment::now()));
            let starts = || NODES.map(|node| shop.text(node, "epochs").lines().count());
            let before = starts();
            told_before = told();
            idle = Some(stretch(&shop, long, || ()));
            sent.store(0, Relaxed);
            forged = Some(stretch(&shop, long, || {
                let begun = Moment::now();
                let mut next = packets.iter().cycle();
                while Moment::now().since(begun) < long {
                    let micros = u64::try_from(Moment::now().since(begun).as_micros()).unwrap();
                    let due = (micros * RATE / 1_000_000).saturating_sub(sent.load(Relaxed)).min(64);
                    for packet in next.by_ref().take(due as usize) {
                        forger.send(packet);
                        sent.fetch_add(1, Relaxed);
                    }
                    pause(Duration::from_micros(500));
                }
            }));
            before == starts() && shop.runs(alpha)
        });
        let (idle, forged) = (idle.unwrap(), forged.unwrap());
        let report = shop.status(alpha).unwrap();
        let link = &report.heart.links[1];
        println!(
            "{backend}: {} forged packets in {long:?}; idle {idle:?}; forged {forged:?}; refused {}, to a socket {}, \
             dropped there {}; heart {:?}",
            sent.load(Relaxed),
            report.heart.gates.refused,
            report.heart.links.iter().map(|link| link.claims_in).sum::<u64>(),
            link.dropped_in,
            report.heart.lateness
        );
        assert!(stays, "the group moves in each of {ATTEMPTS} attempts");
        assert_eq!(told(), told_before, "no gate is shut");
        assert!(report.heart.gates.refused > 0);
        let claims_in: u64 = report.heart.links.iter().map(|link| link.claims_in).sum();
        assert_eq!(claims_in, 0);
        assert!(idle.beats > 0 && forged.beats > 0);
        if seconds.is_some() {
            assert!(sent.load(Relaxed) >= RATE * long.as_secs() * 9 / 10);
            // When the client gets no processor it does not ask. On average this affects both stretches alike.
            assert!(forged.unanswered <= idle.unanswered * 5 / 4 + UNANSWERED_MAX, "{idle:?} {forged:?}");
            assert!(forged.silence <= idle.silence + LATE_MAX, "{idle:?} {forged:?}");
            assert!(forged.beat <= idle.beat + LATE_MAX, "{idle:?} {forged:?}");
        }
    });
}
