//! A cluster with `ha.cf` whose owner has a second interface on another segment. No node answers for the service there,
//! neither while the daemon lives nor after it was killed; without the filter it would be answered for ever.

use locum_sys::{gate, netlink::Netlink};

use super::*;
use crate::lab::questions::{Asker, mac};

const CLIENT: &str = "client";

fn asked(backend: &str) -> Option<(Pair, Asker, Asker)> {
    let [one, two] = NODES;
    let description = Description::new(Path::new(LOCUM)).node(one).node(two).node(CLIENT);
    let ports = |interface, addresses: [&'static str; 3]| {
        let [a, b, c] = addresses;
        [(one, interface, a), (two, interface, b), (CLIENT, interface, c)]
    };
    let description = description
        .segment("lan", &ports("eth0", ["172.23.2.12/24", "172.23.2.13/24", "172.23.2.20/24"]))
        .segment("link", &ports("eth1", ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.20/24"]));
    let pair = Pair { daemons: [None, None], rack: build(description)? };
    if !pair.run(0, &["locum", "gate"]).contains(&format!("backend {backend}: works")) {
        crate::skipped(format!("no gates by {backend} here"));
        return None;
    }
    let front = Asker::new(&pair.rack, CLIENT, "eth0", Ipv4Addr::new(172, 23, 2, 20));
    let back = Asker::new(&pair.rack, CLIENT, "eth1", Ipv4Addr::new(10, 0, 0, 20));
    Some((pair, front, back))
}

fn is_silent_elsewhere(backend: &str) {
    let Some((mut pair, front, back)) = asked(backend) else { return };
    let homes = NODES.map(|node| mac(&pair.rack, node, "eth0"));
    for node in [0, 1] {
        pair.start_with(node, "", &["--gates", backend]);
    }
    pair.wait("the first node serves", |_| front.answers(SERVICE) == [homes[0]]);
    let says = format!("ARP filter by {backend}");
    for node in [0, 1] {
        let page = pair.run(node, &["locum", "status"]);
        assert!(page.contains(&says), "{page}");
    }
    assert_eq!(back.answers(SERVICE), [[0; 6]; 0], "on the other segment nobody answers");

    pair.daemons[0].as_mut().unwrap().signal(ProcessSignal::Kill).unwrap();
    pair.wait("the other node serves", |_| front.answers(SERVICE) == [homes[1]]);
    assert!(pair.run(0, &["ip", "address"]).contains(&SERVICE.to_string()), "it stands there still");
    assert_eq!(back.answers(SERVICE), [[0; 6]; 0], "nor does what was left");
    let gates = pair.run(0, &["locum", "gate"]);
    assert!(gates.contains(&says), "{gates}");

    // The next daemon takes the filter over, and a clean end leaves nothing.
    pair.start_with(0, "", &["--gates", backend]);
    pair.wait("the first node serves again", |_| front.answers(SERVICE) == [homes[0]]);
    assert_eq!(back.answers(SERVICE), [[0; 6]; 0]);
    for node in [1, 0] {
        pair.run(node, &["locum", "stop"]);
        pair.wait("nothing is left", |pair| !pair.run(node, &["locum", "gate"]).contains("ARP filter"));
        pair.daemons[node].take().unwrap().wait(PATIENCE);
    }

    // The same holds after an administrator removes what a killed daemon left.
    pair.start_with(0, "", &["--gates", backend]);
    pair.wait("it serves alone", |_| front.answers(SERVICE) == [homes[0]]);
    pair.daemons[0].as_mut().unwrap().signal(ProcessSignal::Kill).unwrap();
    pair.daemons[0].take().unwrap().wait(PATIENCE);
    pair.wait("gate and filter are removed", |pair| {
        pair.run(0, &["locum", "gate", "--remove"]);
        !pair.run(0, &["locum", "gate"]).contains("cluster linux-ha")
    });
    assert!(!pair.run(0, &["ip", "address"]).contains(&SERVICE.to_string()));
}

#[test]
fn an_address_is_silent_on_other_interfaces_by_bpf() {
    is_silent_elsewhere("bpf");
}

#[test]
fn an_address_is_silent_on_other_interfaces_by_nft() {
    is_silent_elsewhere("nft");
}

/// Another program on tcx, which answers "pass", was there first, and one more comes in front later. The gate shuts
/// nevertheless. Rules of nf_tables are not affected by either.
fn shuts_beside_a_foreign_program(backend: &str) {
    let Some((mut pair, front, _)) = asked(backend) else { return };
    let put = |pair: &Pair, in_front| {
        let put = move || gate::pass_everything(Netlink::open()?.interface("eth0")?.index, in_front);
        pair.rack.inside(NODES[0], put).unwrap()
    };
    let Ok(first) = put(&pair, false) else { return crate::skipped("no programs on tcx here") };
    let homes = NODES.map(|node| mac(&pair.rack, node, "eth0"));
    for node in [0, 1] {
        pair.start_with(node, "", &["--gates", backend]);
    }
    pair.wait("the first node serves", |_| front.answers(SERVICE) == [homes[0]]);
    let second = put(&pair, true).unwrap();
    if backend == "bpf" {
        // Packets in and out.
        pair.wait("it is counted and shown", |pair| {
            let page = pair.run(0, &["locum", "status"]);
            page.contains("note: the program somebody was attached in front of the gates on eth0 (2 times)")
        });
    }
    pair.daemons[0].as_mut().unwrap().signal(ProcessSignal::Kill).unwrap();
    pair.wait("the other node serves, and it alone", |_| front.answers(SERVICE) == [homes[1]]);
    for _ in 0..5 {
        assert_eq!(front.answers(SERVICE), [homes[1]]);
    }
    drop((first, second));
}

#[test]
fn a_gate_shuts_beside_a_foreign_program_by_bpf() {
    shuts_beside_a_foreign_program("bpf");
}

#[test]
fn a_gate_shuts_beside_a_foreign_program_by_nft() {
    shuts_beside_a_foreign_program("nft");
}
