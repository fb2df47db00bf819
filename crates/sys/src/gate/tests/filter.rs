//! Tests of the `bpf` packet filter, which all groups of a cluster share.

use super::*;

/// Runs a test with `bpf` alone, as [`run`] does.
fn run_bpf(test: fn(&Path)) {
    let fresh = NewNamespaces { network: true, mounts: true, host_name: false, processes: false, ipc: false };
    aside(|| {
        match namespace::enter_new(fresh).map_err(|error| error.to_string()).and_then(|()| backend(true)) {
            Ok(Backend::Bpf { bpffs }) => test(&bpffs),
            Ok(Backend::Nft) => unreachable!("another was asked for"),
            Err(why) => {
                let _ = writeln!(io::stderr(), "skipped: {why}");
            }
        }
    });
}

/// The settings of one of many groups, with its own address behind the same interface.
fn one_of_many(world: &GateTestbed, number: u32) -> GateSettings {
    GateSettings {
        name: GateName::new("test.cluster", &format!("group {number}")),
        addresses: vec![Ipv4Addr::from_bits(SERVICE4.to_bits() + number).into()],
        ..world.settings()
    }
}

/// More gates than the 64 programs that a hook takes. Prints what each step costs.
#[test]
fn a_hundred_groups_have_a_gate_on_one_interface() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        let before = clock::monotonic_nanos();
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        filter.cover(world.eth.index).unwrap();
        let stood = clock::monotonic_nanos();
        let mut gates: Vec<_> =
            (100..200).map(|number| filter.install(one_of_many(&world, number)).unwrap()).collect();
        gates.insert(50, filter.install(one_of_many(&world, 0)).unwrap());
        let made = clock::monotonic_nanos();
        assert!(!world.answers(SERVICE4), "one of them");
        for (index, gate) in gates.iter_mut().enumerate() {
            if index != 50 {
                gate.renew(for_millis(60_000)).unwrap();
            }
            assert_eq!(gate.missing().unwrap(), Vec::<String>::new());
        }
        assert!(!world.answers(SERVICE4), "all others are open");
        gates[50].renew(for_millis(60_000)).unwrap();
        assert!(world.answers(SERVICE4));
        let listed = list(Some(bpffs.into())).unwrap();
        assert_eq!(listed.len(), 101);
        assert!(listed.iter().all(|gate| gate.deadline.is_some() && gate.addresses.len() == 1));
        let begin = clock::monotonic_nanos();
        for gate in gates {
            gate.remove().unwrap();
        }
        let removed = clock::monotonic_nanos();
        let micros = |from: u64, to: u64| (to - from) / 1000;
        println!(
            "the packet filter: {} us; a gate: made in {} us, removed in {} us",
            micros(before, stood),
            micros(stood, made) / 101,
            micros(begin, removed) / 101
        );
        assert_eq!(list(Some(bpffs.into())).unwrap(), []);
        let stands = packet_filters(Some(bpffs.into())).unwrap();
        assert_eq!((stands.len(), stands[0].gates), (1, 0));
        assert_eq!(
            (stands[0].name.cluster().as_str(), &stands[0].interfaces[..]),
            ("test.cluster", &[world.eth.index][..])
        );
        filter.remove().unwrap();
        assert!(!bpffs.join(ROOT).exists(), "no directory is left");
    });
}

#[test]
fn a_filter_without_gates_drops_nothing() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        filter.cover(world.eth.index).unwrap();
        filter.listen(world.eth.index, CLAIMS_PORT).unwrap();
        for (name, works) in world.probe_paths() {
            assert!(works, "no gate stands: {name}");
        }
        let mut other = filter.install(one_of_many(&world, 9)).unwrap();
        let deadline = patience();
        while !world.answers(SERVICE6) {
            assert!(deadline(), "the interface was down for a moment, and does not come back");
        }
        for (name, works) in world.probe_paths() {
            assert!(works, "another's gate stands, shut: {name}");
        }
        // Refused while a gate exists.
        filter.remove().unwrap();
        assert_eq!(other.missing().unwrap(), Vec::<String>::new());
        assert_eq!(list(Some(bpffs.into())).unwrap().len(), 1);
        other.remove().unwrap();
        // Parts that a killed daemon left are found, and removed on request.
        let stands = packet_filters(Some(bpffs.into())).unwrap();
        assert!(remove_packet_filter(&stands[0]).unwrap());
        assert!(!bpffs.join(ROOT).exists(), "no directory is left");
    });
}

#[test]
fn a_slot_is_given_again_shut_and_clean() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        filter.cover(world.eth.index).unwrap();
        let slots = bpf::SLOTS;
        for number in 0..slots {
            let mut gate = filter.install(one_of_many(&world, 1000 + number)).unwrap();
            gate.renew(for_millis(600_000)).unwrap();
            gate.remove().unwrap();
        }
        let gate = filter.install(one_of_many(&world, 0)).unwrap();
        assert!(!world.answers(SERVICE4), "the one before had a long lease");
        assert_eq!(list(Some(bpffs.into())).unwrap()[0].deadline, None);
        let mut all: Vec<_> =
            (1..slots).map(|number| filter.install(one_of_many(&world, 1000 + number)).unwrap()).collect();
        let refused = filter.install(one_of_many(&world, 9999)).unwrap_err();
        assert!(refused.to_string().contains("4096 groups"), "{refused}");
        assert!(!bpffs.join(one_of_many(&world, 9999).name.path()).exists(), "nothing is left of it");
        all.pop().unwrap().remove().unwrap();
        filter.install(one_of_many(&world, 9999)).unwrap().remove().unwrap();
        for gate in all {
            gate.remove().unwrap();
        }
        assert!(!world.answers(SERVICE4));
        gate.remove().unwrap();
        assert!(world.answers(SERVICE4));
    });
}

#[test]
fn an_address_is_in_one_gate() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        let mut first = filter.install(one_of_many(&world, 0)).unwrap();
        let addresses = vec![Ipv4Addr::new(10, 9, 0, 99).into(), SERVICE4.into()];
        let both = GateSettings { addresses, ..one_of_many(&world, 1) };
        let refused = filter.install(both.clone()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(refused.to_string().contains("group group 0 has 10.9.0.14 already"), "{refused}");
        assert_eq!(list(Some(bpffs.into())).unwrap().len(), 1, "nothing is left of the second");
        first.renew(for_millis(60_000)).unwrap();
        assert!(world.answers(SERVICE4));
        first.remove().unwrap();
        filter.install(both).unwrap().remove().unwrap();
        filter.remove().unwrap();
    });
}

#[test]
fn the_filter_of_an_earlier_daemon_is_taken_over() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        let mut gate = filter.install(world.settings()).unwrap();
        gate.renew(for_millis(60_000)).unwrap();
        // As if it had been killed.
        drop((gate, filter));
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        assert!(world.answers(SERVICE4), "the lease runs on");
        let mut gate = filter.adopt(world.settings()).unwrap().unwrap();
        assert!(world.answers(SERVICE4));
        gate.renew(for_millis(200)).unwrap();
        drop((gate, filter));
        pause(220);
        for (name, works) in world.probe_paths() {
            assert!(!works, "the second life was killed, too: {name}");
        }
        assert_eq!(list(Some(bpffs.into())).unwrap()[0].deadline, None);

        // Somebody takes all of it away; it is missed and comes back, the lease running on.
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        let mut gate = filter.install(world.settings()).unwrap();
        gate.renew(for_millis(60_000)).unwrap();
        assert!(filter.missing().unwrap().is_empty() && gate.missing().unwrap().is_empty());
        assert!(remove(&backend, &world.settings().name).unwrap());
        gate.close().unwrap();
        assert!(world.answers(SERVICE4), "nothing stands");
        assert!(filter.missing().unwrap().len() > 4 && !gate.missing().unwrap().is_empty());
        filter.restore().unwrap();
        gate.restore().unwrap();
        assert!(filter.missing().unwrap().is_empty() && gate.missing().unwrap().is_empty());
        assert!(!world.answers(SERVICE4));
        gate.renew(for_millis(60_000)).unwrap();
        assert!(world.answers(SERVICE4) && world.answers(SERVICE6));

        // An interface that goes does not matter to the packet filter. If a gate covers it, the gate reports it.
        let other = other_network();
        let [second, _] = veth_across("eth1", "peer1", &other).unwrap();
        filter.cover(second.index).unwrap();
        Netlink::open().unwrap().delete_interface(second.index).unwrap();
        let pin =
            bpffs.join(world.settings().name.packet_filter().path()).join(format!("in-{}", second.index));
        let deadline = patience();
        while pin.exists() {
            assert!(filter.missing().unwrap().is_empty() && gate.missing().unwrap().is_empty());
            assert!(deadline(), "the interface is gone, and its pin stays");
        }
        gate.remove().unwrap();
        filter.remove().unwrap();
        assert!(!bpffs.join(ROOT).exists(), "no directory is left");
    });
}

/// Numbers of interfaces belong to a network namespace: programs in another one must not be taken for programs here.
#[test]
fn a_filter_of_another_network_namespace_does_not_count() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        filter.cover(1).unwrap();
        inside(&world.client, || {
            let refused = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap_err();
            assert!(refused.to_string().contains("1 belongs to another network namespace"), "{refused}");
        });
        assert_eq!(filter.missing().unwrap(), Vec::<String>::new());
        drop(filter);
        PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap().remove().unwrap();
    });
}

/// In earlier versions each gate had its own programs, pinned in its own directory.
#[test]
fn what_another_version_pinned_is_found_and_removed() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        let name = world.settings().name;
        let (own, filters) = (bpffs.join(name.path()), bpffs.join(name.packet_filter().path()));
        let leave = || {
            drop(Gate::install(&backend, world.settings()).unwrap());
            for pin in fs::read_dir(&own).unwrap() {
                fs::remove_file(pin.unwrap().path()).unwrap();
            }
            for pin in fs::read_dir(&filters).unwrap() {
                let pin = pin.unwrap();
                fs::rename(pin.path(), own.join(pin.file_name())).unwrap();
            }
            fs::remove_dir(&filters).unwrap();
            assert!(!world.answers(SERVICE4), "it stands, and is shut");
        };
        leave();
        let listed = list(Some(bpffs.into())).unwrap();
        assert_eq!((&listed[0].name, listed[0].deadline), (&name, None));
        assert!(remove(&backend, &name).unwrap());
        assert!(world.answers(SERVICE4) && !bpffs.join(ROOT).exists());
        leave();
        let mut gate = Gate::install(&backend, world.settings()).unwrap();
        gate.renew(for_millis(60_000)).unwrap();
        assert!(world.answers(SERVICE4), "nothing of the old one drops");
        gate.remove().unwrap();
        assert!(!bpffs.join(ROOT).exists());
    });
}

/// As with programs of container networks: one in front that answers "pass" decides, and those behind it do not run.
#[test]
fn a_foreign_program_in_front_does_not_open_the_gate() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        // A foreign program that was there before.
        let mut others = vec![bpf::pass_everything(world.eth.index, false).unwrap()];
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        let settings = GateSettings {
            rivals: Some(RivalSettings {
                interfaces: vec![world.eth.index],
                peers: vec![CLIENT4.into()],
                port: CLAIMS_PORT,
                subject: SUBJECT,
            }),
            ..world.settings()
        };
        let mut gate = filter.install(settings).unwrap();
        for (name, works) in world.probe_paths() {
            assert!(!works, "behind a program that passes everything: {name}");
        }
        assert_eq!(filter.stay_in_front(usize::MAX).unwrap(), None);
        gate.renew(for_millis(60_000)).unwrap();
        assert!(world.answers(SERVICE4));

        // A foreign program that comes later, repeatedly.
        for _ in 0..3 {
            others.push(bpf::pass_everything(world.eth.index, true).unwrap());
            gate.close().unwrap();
            assert!(world.answers(SERVICE4), "nobody has looked yet");
            let mut times = 0;
            while let Some(overtaken) = filter.stay_in_front(usize::MAX).unwrap() {
                assert_eq!((overtaken.interface, overtaken.by.as_str()), (world.eth.index, "somebody"));
                times += 1;
            }
            assert_eq!(times, 3, "in, out, and the claim listener");
            assert!(!world.answers(SERVICE4));
            assert!(filter.missing().unwrap().is_empty() && gate.missing().unwrap().is_empty());
        }
        // After a daemon was killed, the next one finds its links, and in the end nothing is left.
        drop((gate, filter));
        let filter = PacketFilter::open(&backend, "test.cluster", PATTERN).unwrap();
        assert_eq!(filter.stay_in_front(usize::MAX).unwrap(), None);
        assert!(!world.answers(SERVICE4));
        remove(&backend, &world.settings().name).unwrap();
        filter.remove().unwrap();
        assert!(world.answers(SERVICE4) && !bpffs.join(ROOT).exists());
    });
}

/// Each check looks at one hook: a foreign program is found within as many checks as there are hooks.
#[test]
fn each_check_covers_other_hooks() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let other = other_network();
        let [second, _] = veth_across("eth1", "peer1", &other).unwrap();
        let filter =
            PacketFilter::open(&Backend::Bpf { bpffs: bpffs.into() }, "test.cluster", PATTERN).unwrap();
        for interface in [world.eth.index, second.index] {
            filter.cover(interface).unwrap();
        }
        for interface in [world.eth.index, second.index, world.eth.index] {
            let _other = bpf::pass_everything(interface, true).unwrap();
            let seen: Vec<_> = (0..4).filter_map(|_| filter.stay_in_front(1).unwrap()).collect();
            assert_eq!(seen.iter().map(|seen| seen.interface).collect::<Vec<_>>(), [interface; 2]);
            assert_eq!(filter.stay_in_front(usize::MAX).unwrap(), None);
        }
        let pins = bpffs.join(GateName::new("test.cluster", "").packet_filter().path());
        for name in [format!("in-{}", second.index), format!("out-{}", world.eth.index)] {
            fs::remove_file(pins.join(&name)).unwrap();
            let seen: Vec<_> = (0..4).flat_map(|_| filter.missing_of(1).unwrap()).collect();
            assert!(seen.len() == 1 && seen[0].contains(&name), "{seen:?}");
            filter.restore().unwrap();
        }
        assert_eq!(filter.missing().unwrap(), Vec::<String>::new());
        filter.remove().unwrap();
    });
}

/// Two clusters on one machine do not displace each other from the front.
#[test]
fn programs_of_two_clusters_coexist() {
    run_bpf(|bpffs| {
        let world = GateTestbed::new();
        let backend = Backend::Bpf { bpffs: bpffs.into() };
        let filters = ["one", "two"].map(|cluster| PacketFilter::open(&backend, cluster, PATTERN).unwrap());
        for filter in &filters {
            filter.cover(world.eth.index).unwrap();
        }
        for filter in filters {
            assert_eq!(filter.stay_in_front(usize::MAX).unwrap(), None);
            filter.remove().unwrap();
        }
    });
}
