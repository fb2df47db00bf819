//! The owner has a second interface on another segment. No node answers for the service there, also after the owner's
//! daemon is killed and its address stays until its lifetime ends.

use super::*;
use crate::lab::questions::{Asker, mac};

fn is_silent_elsewhere(backend: &'static str) {
    let Some(mut shop) = Shop::build(false) else { return };
    let [alpha, beta] = NODES;
    if !shop.locum(alpha, &["gate"]).1.contains(&format!("backend {backend}: works")) {
        return crate::skipped(format!("no gates by {backend} here"));
    }
    let front = Asker::new(&shop.rack, CLIENT, "eth0", Ipv4Addr::new(172, 23, 2, 20));
    let back = Asker::new(&shop.rack, CLIENT, "eth1", Ipv4Addr::new(10, 0, 0, 20));
    let [home, other] = NODES.map(|node| mac(&shop.rack, node, "eth0"));
    shop.start(WITNESS);
    for node in NODES {
        shop.start_with(node, &["--gates", backend]);
    }
    shop.await_founding();
    shop.wait("the first node serves", |_| front.answers(SERVICE) == [home]);
    assert_eq!(back.answers(SERVICE), [[0; 6]; 0], "on the other segment nobody answers");
    let (_, page) = shop.locum(alpha, &["status"]);
    assert!(page.contains(&format!("ARP filter by {backend}")), "{page}");

    shop.daemon(alpha).signal(ProcessSignal::Kill).unwrap();
    shop.wait("the other node serves", |_| front.answers(SERVICE) == [other]);
    // The lifetime of the address is longer than that.
    let stands = || shop.rack.run(alpha, &Program::new(&["ip", "address"]), PATIENCE).unwrap().text;
    assert!(stands().contains(&SERVICE.to_string()), "it stands there still");
    assert_eq!(back.answers(SERVICE), [[0; 6]; 0], "nor does what was left");
    shop.order(beta, &["stop"]);
    shop.wait("nothing is left where it ended", |shop| !shop.locum(beta, &["gate"]).1.contains("ARP filter"));
}

#[test]
fn an_address_is_silent_on_other_interfaces_by_bpf() {
    is_silent_elsewhere("bpf");
}

#[test]
fn an_address_is_silent_on_other_interfaces_by_nft() {
    is_silent_elsewhere("nft");
}
