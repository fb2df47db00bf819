//! Tests of many gates of one cluster that are renewed together.

use super::*;

both! {
    each_gate_has_the_lease_that_it_was_given
    a_rival_shuts_one_gate_of_many
    a_thousand_gates_are_renewed_at_once
    many_gates_of_an_earlier_daemon_are_taken_over
    gates_of_a_killed_process_are_removed_together
}

const CLUSTER: &str = "test.cluster";

/// The settings of one of many groups, with its own address behind the same interface.
fn one_of(world: &GateTestbed, number: u32) -> GateSettings {
    GateSettings {
        name: GateName::new(CLUSTER, &format!("group {number}")),
        addresses: vec![Ipv4Addr::from_bits(SERVICE4.to_bits() + number).into()],
        ..world.settings()
    }
}

fn many(filter: &PacketFilter, world: &GateTestbed, count: u32) -> Vec<Gate> {
    (0..count).map(|number| filter.install(one_of(world, number)).unwrap()).collect()
}

/// Renews all gates by one beat.
fn renew_all(filter: &PacketFilter, gates: &[Gate], renewal: Renewal) -> Vec<Option<RenewalOutcome>> {
    filter.renew(gates.iter().map(|gate| (gate, Some(renewal)))).unwrap()
}

/// The deadlines in the kernel, by the groups' numbers.
fn deadlines(backend: &Backend) -> Vec<Option<u64>> {
    let listed = list(bpffs_of(backend)).unwrap();
    let number =
        |gate: &ListedGate| -> u32 { gate.name.group().strip_prefix("group ").unwrap().parse().unwrap() };
    let mut all: Vec<_> = listed.iter().map(|gate| (number(gate), gate.deadline)).collect();
    all.sort_unstable();
    all.into_iter().map(|(_, deadline)| deadline).collect()
}

/// A pseudo-random number, the same in each run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Whatever gates are renewed together, in whatever order: each has its own deadline and never another's.
fn each_gate_has_the_lease_that_it_was_given(backend: &Backend) {
    const COUNT: u32 = 12;
    let world = GateTestbed::new();
    let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
    filter.cover(world.eth.index).unwrap();
    let mut gates = many(&filter, &world, COUNT);
    let mut wanted: Vec<Option<u64>> = vec![None; gates.len()];
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for round in 0..300 {
        let now = clock::boot_nanos();
        // At most three different beats in one call. Each gate is renewed by one of them or by none, or it is shut.
        let leases: [u64; 3] = std::array::from_fn(|_| now + (2 + random(&mut state) % 600) * SECOND);
        let mut orders = Vec::new();
        for (index, wanted) in wanted.iter_mut().enumerate() {
            let lease = match random(&mut state) % 8 {
                0 => continue,
                1 => None,
                // Mostly the same lease for all, as in practice.
                2 => Some(leases[1]),
                3 => Some(leases[2]),
                _ => Some(leases[0]),
            };
            *wanted = lease;
            orders.push((index, lease));
        }
        let renewal = |deadline| Renewal { deadline, sent: now };
        let all = orders.iter().map(|(index, lease)| (&gates[*index], lease.map(renewal)));
        let outcomes = filter.renew(all).unwrap();
        for ((index, lease), outcome) in orders.iter().zip(outcomes) {
            assert_eq!(outcome, lease.map(|_| RenewalOutcome::Open), "round {round}, gate {index}");
        }
        if random(&mut state).is_multiple_of(4) {
            // One gate renewed by itself, and one removed and made again.
            let index = random(&mut state) as usize % gates.len();
            gates[index].renew(renewal(leases[0])).unwrap();
            wanted[index] = Some(leases[0]);
            let index = random(&mut state) as usize % gates.len();
            gates.swap_remove(index).remove().unwrap();
            gates.push(filter.install(one_of(&world, index as u32)).unwrap());
            // The last one takes its place.
            let last = gates.len() - 1;
            gates.swap(index, last);
            wanted[index] = None;
        }
        let found = deadlines(backend);
        assert_eq!(found.len(), wanted.len());
        for (index, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            let near = match (found, wanted) {
                (Some(found), Some(wanted)) => found.abs_diff(*wanted) < SECOND / 2,
                (found, wanted) => found == wanted,
            };
            assert!(near, "round {round}, gate {index}: {found:?}, not {wanted:?}");
        }
    }
    // The first gate, as a client sees it.
    gates[0].close().unwrap();
    assert!(!world.answers(SERVICE4));
    renew_all(&filter, &gates, for_millis(60_000));
    assert!(world.answers(SERVICE4));
    assert_eq!(filter.missing().unwrap(), Vec::<String>::new());
}

fn a_rival_shuts_one_gate_of_many(backend: &Backend) {
    const COUNT: u32 = 20;
    let world = GateTestbed::new();
    let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
    filter.listen(world.eth.index, CLAIMS_PORT).unwrap();
    let subject = |number: u32| Subject([number as u8 + 1; 20]);
    let proof = |number: u32| Proof([number as u8 + 1; 16]);
    let with_rivals = |number: u32| {
        let peers = vec![CLIENT4.into()];
        let (interfaces, subject) = (vec![world.eth.index], subject(number));
        let rivals = RivalSettings { interfaces, peers, port: CLAIMS_PORT, subject };
        GateSettings { rivals: Some(rivals), proofs: vec![proof(number)], ..one_of(&world, number) }
    };
    let mut gates: Vec<_> = (0..COUNT).map(|number| filter.install(with_rivals(number)).unwrap()).collect();
    let claim = |number: u32, proof| {
        let bytes = announcement(subject(number), proof);
        world.datagram(CLIENT4.into(), OWN4.into(), CLAIMS_PORT, &bytes);
    };
    let open = vec![Some(RenewalOutcome::Open); COUNT as usize];
    assert_eq!(renew_all(&filter, &gates, for_millis(60_000)), open);
    assert!(world.answers(SERVICE4));

    // Another gate's proof proves nothing.
    claim(0, proof(1));
    assert!(world.answers(SERVICE4));
    let queued = for_millis(60_000);
    claim(0, proof(0));
    assert!(!world.answers(SERVICE4));
    let shut = |outcomes: &[Option<RenewalOutcome>]| -> Vec<usize> {
        let is_shut = |outcome: &Option<RenewalOutcome>| matches!(outcome, Some(RenewalOutcome::Shut { .. }));
        (0..).zip(outcomes).filter(|(_, outcome)| is_shut(outcome)).map(|(index, _)| index).collect()
    };
    // By the earlier beat, twice: all other gates stay open.
    for _ in 0..2 {
        let outcomes = renew_all(&filter, &gates, queued);
        assert_eq!(shut(&outcomes), [0]);
        assert!(!world.answers(SERVICE4), "a renewal by a beat sent before");
        let open: Vec<bool> = deadlines(backend).iter().map(Option::is_some).collect();
        assert_eq!(open.iter().filter(|open| **open).count(), COUNT as usize - 1);
        assert!(!open[0]);
    }
    assert_eq!(renew_all(&filter, &gates, for_millis(60_000)), open);
    assert!(world.answers(SERVICE4), "a renewal by a beat sent later");

    // Two at once; one of them is not renewed by the beat that notices it.
    let before = for_millis(60_000);
    claim(0, proof(0));
    claim(7, proof(7));
    let outcomes = filter.renew(gates[1..].iter().map(|gate| (gate, Some(before)))).unwrap();
    assert_eq!(shut(&outcomes), [6]);
    assert_eq!(shut(&filter.renew([(&gates[0], Some(before))].into_iter()).unwrap()), [0]);
    assert!(!world.answers(SERVICE4));
    let outcomes = renew_all(&filter, &gates, for_millis(60_000));
    assert_eq!(outcomes, open);
    assert!(world.answers(SERVICE4));

    // A gate that hears a rival again while it is shut stays shut, and renewals of others do not open it.
    claim(0, proof(0));
    renew_all(&filter, &gates, for_millis(60_000));
    let queued = for_millis(60_000);
    claim(0, proof(0));
    assert_eq!(shut(&renew_all(&filter, &gates, queued)), [0]);
    assert!(!world.answers(SERVICE4));
    assert_eq!(renew_all(&filter, &gates, for_millis(60_000)), open);
    assert!(world.answers(SERVICE4));

    // A removed gate takes its proofs with it; its successor expects its own.
    gates.remove(0).remove().unwrap();
    let mut heir = filter.install(GateSettings { proofs: Vec::new(), ..with_rivals(0) }).unwrap();
    heir.renew(for_millis(60_000)).unwrap();
    claim(0, proof(0));
    assert!(world.answers(SERVICE4));
    heir.set_proofs(&[proof(0)]).unwrap();
    claim(0, proof(0));
    assert!(!world.answers(SERVICE4));
    heir.remove().unwrap();
    gates.into_iter().for_each(|gate| gate.remove().unwrap());
    filter.remove().unwrap();
    assert_eq!(list(bpffs_of(backend)).unwrap(), []);
}

/// Runs a test of tables without an owner, as before Linux 6.9, with their packet filter and two gates. The first gate
/// hears rivals.
fn run_ownerless(test: fn(&GateTestbed, &PacketFilter, Vec<Gate>)) {
    let fresh = NewNamespaces { network: true, mounts: true, host_name: false, processes: false, ipc: false };
    aside(|| {
        match namespace::enter_new(fresh).map_err(|error| error.to_string()).and_then(|()| backend(false)) {
            Ok(backend) => {
                let world = GateTestbed::new();
                nft::make_ownerless(&GateName::new(CLUSTER, ""));
                let filter = PacketFilter::open(&backend, CLUSTER, PATTERN).unwrap();
                assert!(!filter.is_owned());
                let rivals = RivalSettings {
                    interfaces: vec![world.eth.index],
                    peers: vec![CLIENT4.into()],
                    port: CLAIMS_PORT,
                    subject: SUBJECT,
                };
                let first =
                    GateSettings { rivals: Some(rivals), proofs: vec![Proof([1; 16])], ..one_of(&world, 0) };
                let gates = vec![filter.install(first).unwrap(), filter.install(one_of(&world, 1)).unwrap()];
                test(&world, &filter, gates);
            }
            Err(why) => {
                let _ = writeln!(io::stderr(), "skipped: {why}");
            }
        }
    });
}

/// A rival is heard, and the node's reaction fails halfway.
#[test]
fn an_unhandled_rival_is_handled_by_the_next_renewal() {
    run_ownerless(|world, filter, gates| {
        let open = [Some(RenewalOutcome::Open), Some(RenewalOutcome::Open)];
        assert_eq!(renew_all(filter, &gates, for_millis(60_000)), open);
        assert!(world.answers(SERVICE4));
        let before = for_millis(60_000);
        let bytes = announcement(SUBJECT, Proof([1; 16]));
        world.datagram(CLIENT4.into(), OWN4.into(), CLAIMS_PORT, &bytes);
        assert!(!world.answers(SERVICE4));
        // The batch that shuts the gate deletes an element that a foreign process has deleted already.
        gates[0].nft().flush_leased();
        filter.renew(gates.iter().map(|gate| (gate, Some(before)))).unwrap_err();
        filter.restore().unwrap();
        let outcomes = renew_all(filter, &gates, before);
        assert!(
            matches!(outcomes[..], [Some(RenewalOutcome::Shut { .. }), Some(RenewalOutcome::Open)]),
            "{outcomes:?}"
        );
        assert!(!world.answers(SERVICE4));
        assert_eq!(renew_all(filter, &gates, for_millis(60_000)), open);
        assert!(world.answers(SERVICE4), "said to be open, and shut");
    });
}

#[test]
fn leases_that_somebody_takes_away_are_missed_and_put_back() {
    run_ownerless(|world, filter, mut gates| {
        renew_all(filter, &gates, for_millis(60_000));
        assert!(world.answers(SERVICE4));
        assert_eq!(filter.missing().unwrap(), Vec::<String>::new());
        assert_eq!(gates[0].missing().unwrap(), Vec::<String>::new());
        gates[0].nft().flush_leased();
        assert!(!world.answers(SERVICE4));
        assert_eq!(gates[0].missing().unwrap(), ["an element of leased"]);
        gates[0].restore().unwrap();
        assert_eq!(gates[0].missing().unwrap(), Vec::<String>::new());
        assert!(world.answers(SERVICE4));

        // Without its rules a cohort's chain lets every packet pass, open or shut.
        filter.renew(gates.iter().map(|gate| (gate, Some(for_millis(300))))).unwrap();
        gates[0].nft().flush_cohorts();
        pause(320);
        assert!(world.answers(SERVICE4), "nobody has looked yet");
        let missing = filter.missing().unwrap();
        assert!(missing.iter().any(|missing| missing.contains("rules of the chain open-")), "{missing:?}");
        filter.restore().unwrap();
        assert_eq!(filter.missing().unwrap(), Vec::<String>::new());
        assert!(!world.answers(SERVICE4), "put back shut");
        let renewal = for_millis(60_000);
        renew_all(filter, &gates, renewal);
        assert!(world.answers(SERVICE4));
        // The same lease opens the gates that were put back meanwhile.
        gates[0].nft().flush_cohorts();
        filter.restore().unwrap();
        assert!(!world.answers(SERVICE4));
        renew_all(filter, &gates, renewal);
        assert!(world.answers(SERVICE4));
    });
}

/// One change of rules renews all of them. Prints what each step costs.
fn a_thousand_gates_are_renewed_at_once(backend: &Backend) {
    const COUNT: u32 = 1000;
    let world = GateTestbed::new();
    let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
    filter.cover(world.eth.index).unwrap();
    let begun = clock::monotonic_nanos();
    let mut gates = many(&filter, &world, COUNT);
    let made = clock::monotonic_nanos();
    assert!(!world.answers(SERVICE4));
    renew_all(&filter, &gates, for_millis(60_000));
    let opened = clock::monotonic_nanos();
    assert!(world.answers(SERVICE4));
    let is_nft = matches!(backend, Backend::Nft);
    let generation = || if is_nft { nft::generation() } else { 0 };
    let before = generation();
    let renewing = clock::monotonic_nanos();
    const ROUNDS: u32 = 20;
    for _ in 0..ROUNDS {
        let outcomes = renew_all(&filter, &gates, for_millis(60_000));
        assert!(outcomes.iter().all(|outcome| *outcome == Some(RenewalOutcome::Open)));
    }
    let renewed = clock::monotonic_nanos();
    if is_nft {
        assert_eq!(generation() - before, ROUNDS, "one change for all gates");
    }
    assert!(world.answers(SERVICE4));
    // One gate with another lease: two changes in one batch, no more.
    let beat = for_millis(60_000);
    gates[0].renew(for_millis(50_000)).unwrap();
    let before = generation();
    let later = for_millis(60_000);
    let orders = (0..).zip(&gates).map(|(index, gate)| (gate, Some(if index == 0 { beat } else { later })));
    assert!(filter.renew(orders).unwrap().iter().all(|outcome| *outcome == Some(RenewalOutcome::Open)));
    assert_eq!(generation() - before, u32::from(is_nft));
    assert!(world.answers(SERVICE4));
    let looking = clock::monotonic_nanos();
    assert_eq!(filter.missing().unwrap(), Vec::<String>::new());
    let looked = clock::monotonic_nanos();
    assert_eq!(gates[1].missing().unwrap(), Vec::<String>::new());
    let closing = clock::monotonic_nanos();
    filter.renew(gates.iter().map(|gate| (gate, None))).unwrap();
    let closed = clock::monotonic_nanos();
    assert!(!world.answers(SERVICE4));
    assert_eq!(deadlines(backend), vec![None; COUNT as usize]);
    let removing = clock::monotonic_nanos();
    gates.into_iter().for_each(|gate| gate.remove().unwrap());
    let removed = clock::monotonic_nanos();
    let micros = |from: u64, to: u64| (to - from) / 1000;
    println!(
        "{backend}: {COUNT} gates: made in {} us each, opened together in {} us, renewed together in {} us, looked after in {} us, \
         shut together in {} us, removed in {} us each",
        micros(begun, made) / u64::from(COUNT),
        micros(made, opened),
        micros(renewing, renewed) / u64::from(ROUNDS),
        micros(looking, looked),
        micros(closing, closed),
        micros(removing, removed) / u64::from(COUNT),
    );
    filter.remove().unwrap();
}

fn many_gates_of_an_earlier_daemon_are_taken_over(backend: &Backend) {
    const COUNT: u32 = 50;
    let world = GateTestbed::new();
    let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
    filter.cover(world.eth.index).unwrap();
    let gates = many(&filter, &world, COUNT);
    renew_all(&filter, &gates, for_millis(60_000));
    // One gate has another lease, one is shut.
    let apart = for_millis(30_000);
    filter.renew([(&gates[1], Some(apart)), (&gates[2], None)].into_iter()).unwrap();
    let before = deadlines(backend);
    drop((gates, filter));
    let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
    assert!(world.answers(SERVICE4), "the leases run on");
    let mut gates: Vec<_> =
        (0..COUNT).map(|number| filter.adopt(one_of(&world, number)).unwrap().expect("it stands")).collect();
    assert!(world.answers(SERVICE4));
    for (after, before) in deadlines(backend).iter().zip(&before) {
        let near = match (after, before) {
            (Some(after), Some(before)) => after.abs_diff(*before) < SECOND / 4,
            (after, before) => after == before,
        };
        assert!(near, "{after:?}, not {before:?}");
    }
    assert_eq!(filter.missing().unwrap(), Vec::<String>::new());
    assert!(gates.iter_mut().all(|gate| gate.missing().unwrap().is_empty()));
    assert!(
        renew_all(&filter, &gates, for_millis(200))
            .iter()
            .all(|outcome| *outcome == Some(RenewalOutcome::Open))
    );
    assert!(world.answers(SERVICE4));
    drop((gates, filter));
    pause(220);
    assert!(!world.answers(SERVICE4), "the second life was killed, too");
    assert_eq!(deadlines(backend), vec![None; COUNT as usize]);
    // What is made anew begins shut.
    let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
    let gates = many(&filter, &world, COUNT);
    assert_eq!(deadlines(backend), vec![None; COUNT as usize]);
    renew_all(&filter, &gates, for_millis(60_000));
    assert!(world.answers(SERVICE4));
}

fn gates_of_a_killed_process_are_removed_together(backend: &Backend) {
    const COUNT: u32 = 300;
    let world = GateTestbed::new();
    let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
    filter.cover(world.eth.index).unwrap();
    let gates = many(&filter, &world, COUNT);
    let names: Vec<GateName> = gates.iter().map(|gate| gate.settings().name.clone()).collect();
    let standing = packet_filters(bpffs_of(backend)).unwrap();
    assert_eq!((standing.len(), standing[0].gates, &standing[0].backend), (1, COUNT as usize, backend));
    assert_eq!(standing[0].interfaces, [world.eth.index]);
    drop((gates, filter));
    // All but one, one of them twice, and one that never existed.
    let mut some = names[1..].to_vec();
    some.push(GateName::new(CLUSTER, "nobody"));
    let removed: Vec<bool> = remove_all(backend, &some).into_iter().map(Result::unwrap).collect();
    assert!(removed[..removed.len() - 1].iter().all(|removed| *removed) && !removed[removed.len() - 1]);
    assert_eq!(list(bpffs_of(backend)).unwrap().len(), 1);
    assert!(!world.answers(SERVICE4), "that one is shut");
    assert!(!remove_packet_filter(&packet_filters(bpffs_of(backend)).unwrap()[0]).unwrap(), "a gate stands");
    assert!(!world.answers(SERVICE4));
    assert!(remove(backend, &names[0]).unwrap());
    assert_eq!(
        (list(bpffs_of(backend)).unwrap(), packet_filters(bpffs_of(backend)).unwrap()),
        (vec![], vec![])
    );
    assert!(world.answers(SERVICE4));
}

/// A foreign `flush ruleset` on kernels before Linux 6.9 deletes everything, and it is put back.
#[test]
fn a_flushed_table_comes_back_with_all_its_gates() {
    run(false, |backend| {
        let world = GateTestbed::new();
        let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
        filter.cover(world.eth.index).unwrap();
        filter.listen(world.eth.index, CLAIMS_PORT).unwrap();
        let mut gates = many(&filter, &world, 300);
        renew_all(&filter, &gates, for_millis(60_000));
        gates[0].close().unwrap();
        gates[0].forget_table();
        assert!(world.answers(SERVICE4), "nothing stands");
        let missing = filter.missing().unwrap();
        assert!(missing.len() == 1 && missing[0].contains("the table"), "{missing:?}");
        let renewal = Some(for_millis(60_000));
        let refused = filter.renew(gates.iter().map(|gate| (gate, renewal))).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        filter.restore().unwrap();
        assert_eq!(filter.missing().unwrap(), Vec::<String>::new());
        assert!(gates.iter_mut().all(|gate| gate.missing().unwrap().is_empty()));
        assert!(!world.answers(SERVICE4), "made anew, it is shut");
        assert_eq!(deadlines(backend), vec![None; 300]);
        renew_all(&filter, &gates[1..], for_millis(60_000));
        assert!(!world.answers(SERVICE4), "the others were renewed");
        renew_all(&filter, &gates, for_millis(60_000));
        assert!(world.answers(SERVICE4));
    });
}

/// In earlier versions each gate had its own table.
#[test]
fn what_another_version_left_in_tables_is_listed_removed_and_taken_over() {
    run(false, |backend| {
        let world = GateTestbed::new();
        let name = one_of(&world, 0).name;
        nft::make_old(&name, SERVICE4);
        let listed = list(None).unwrap();
        assert_eq!((listed.len(), &listed[0].name), (1, &name));
        assert_eq!(listed[0].addresses, [IpAddr::from(SERVICE4)]);
        let until = listed[0].deadline.unwrap();
        assert!(until.abs_diff(clock::boot_nanos() + 60 * SECOND) < SECOND);
        assert!(remove(backend, &name).unwrap());
        assert_eq!(list(None).unwrap(), []);

        // It goes on in its cluster's table, with its lease …
        nft::make_old(&name, SERVICE4);
        let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
        filter.cover(world.eth.index).unwrap();
        let gate = filter.adopt(one_of(&world, 0)).unwrap().expect("it stands");
        let listed = list(None).unwrap();
        assert_eq!(listed.len(), 1, "the old one has gone");
        assert!(listed[0].deadline.unwrap().abs_diff(until) < SECOND);
        assert!(world.answers(SERVICE4));
        gate.remove().unwrap();

        // … or shut.
        drop(filter);
        nft::make_old(&name, SERVICE4);
        let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
        let _gate = filter.install(one_of(&world, 0)).unwrap();
        let listed = list(None).unwrap();
        assert_eq!((listed.len(), listed[0].deadline), (1, None));
        assert!(!world.answers(SERVICE4));
    });
}

/// Each of a hundred claims has its own lease for a moment. Later the extra cohorts go.
#[test]
fn leases_that_were_apart_leave_little_when_they_are_one() {
    run(false, |backend| {
        let world = GateTestbed::new();
        let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
        filter.cover(world.eth.index).unwrap();
        let gates = many(&filter, &world, 100);
        let name = &gates[0].settings().name;
        for round in 0..3 {
            let apart = |index: u64| Some(for_millis(30_000 + index * 100));
            let orders = (0..).zip(&gates).map(|(index, gate)| (gate, apart(index)));
            filter.renew(orders).unwrap();
            assert!(nft::cohorts(name) >= 100, "round {round}");
            for _ in 0..20 {
                let outcomes = renew_all(&filter, &gates, for_millis(60_000));
                assert!(outcomes.iter().all(|outcome| *outcome == Some(RenewalOutcome::Open)));
                assert!(world.answers(SERVICE4));
            }
            assert!(nft::cohorts(name) <= 10, "{}", nft::cohorts(name));
        }
        assert_eq!(filter.missing().unwrap(), Vec::<String>::new());
    });
}

/// As many gates as possible. The refusal of one more is explained, and a number is assigned again only after all
/// others.
#[test]
fn there_is_room_for_all_groups_in_one_table() {
    run(false, |backend| {
        let world = GateTestbed::new();
        let filter = PacketFilter::open(backend, CLUSTER, PATTERN).unwrap();
        filter.cover(world.eth.index).unwrap();
        let begun = clock::monotonic_nanos();
        let mut gates = many(&filter, &world, GATES_MAX);
        let made = clock::monotonic_nanos();
        let refused = filter.install(one_of(&world, 9999)).unwrap_err();
        assert!(refused.to_string().contains("4096 gates"), "{refused}");
        renew_all(&filter, &gates, for_millis(60_000));
        let opened = clock::monotonic_nanos();
        renew_all(&filter, &gates, for_millis(60_000));
        let renewed = clock::monotonic_nanos();
        assert!(world.answers(SERVICE4));
        let taken = GateSettings { name: GateName::new(CLUSTER, "another"), ..one_of(&world, 0) };
        gates.pop().unwrap().remove().unwrap();
        let refused = filter.install(taken).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(refused.to_string().contains("group group 0 has 10.9.0.14 already"), "{refused}");
        assert_eq!(list(None).unwrap().len(), 4095, "nothing is left of it");
        let micros = |from: u64, to: u64| (to - from) / 1000;
        println!(
            "4096 gates of nft: made in {} us each, opened together in {} us, renewed together in {} us",
            micros(begun, made) / 4096,
            micros(made, opened),
            micros(opened, renewed)
        );
        filter.renew(gates.iter().map(|gate| (gate, None))).unwrap();
        drop((gates, filter));
        let standing = packet_filters(None).unwrap();
        assert_eq!(standing[0].gates, 4095);
        let names: Vec<_> = list(None).unwrap().into_iter().map(|gate| gate.name).collect();
        assert!(remove_all(backend, &names).into_iter().all(|removed| removed.unwrap()));
        assert_eq!(packet_filters(None).unwrap(), []);
    });
}
