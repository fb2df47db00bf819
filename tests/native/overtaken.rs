//! Programs of other software on the interface of a service address, as container networks attach them. A program that
//! runs before a gate's and answers "pass" would open the gate.

use std::os::fd::OwnedFd;

use locum_sys::{gate, netlink::Netlink};

use super::*;
use crate::lab::questions::{Asker, mac};

/// Attaches one to the node's interface; it stays as long as the result is held.
fn put(shop: &Shop, node: &str, in_front: bool) -> Vec<OwnedFd> {
    let put = move || gate::pass_everything(Netlink::open()?.interface("eth0")?.index, in_front);
    shop.rack.inside(node, put).unwrap().unwrap()
}

fn times(shop: &Shop, node: &str) -> u64 {
    shop.status(node).map_or(0, |report| report.heart.gates.overtaken.iter().map(|state| state.times).sum())
}

#[test]
fn a_foreign_program_in_front_opens_no_gate_and_a_stubborn_one_moves_the_group() {
    let Some(mut shop) = Shop::build(false) else { return };
    let [alpha, beta] = NODES;
    if !shop.locum(alpha, &["gate"]).1.contains("backend bpf: works") {
        return crate::skipped("no gates by bpf here");
    }
    let front = Asker::new(&shop.rack, CLIENT, "eth0", Ipv4Addr::new(172, 23, 2, 20));
    let [home, other] = NODES.map(|node| mac(&shop.rack, node, "eth0"));
    let mut strangers = vec![put(&shop, alpha, false)];
    shop.start(WITNESS);
    for node in NODES {
        shop.start_with(node, &["--gates", "bpf"]);
    }
    shop.await_founding();
    shop.wait("the first node serves", |_| front.answers(SERVICE) == [home]);
    assert_eq!(times(&shop, alpha), 0, "ours went in front of what was there");
    // Another one comes in front, and ours moves to the front again.
    strangers.push(put(&shop, alpha, true));
    shop.wait("ours is in front again, both ways", |shop| times(shop, alpha) >= 2);
    let (_, page) = shop.locum(alpha, &["status"]);
    assert!(page.contains("note: the program somebody was attached in front of the gates on eth0"), "{page}");
    assert!(!page.contains("again and again") && shop.runs(alpha), "{page}");
    shop.daemon(alpha).signal(ProcessSignal::Kill).unwrap();
    shop.wait("the other node serves, and it alone", |_| front.answers(SERVICE) == [other]);
    let (_, gates) = shop.locum(alpha, &["gate"]);
    assert!(gates.contains("group web: shut"), "{gates}");
    assert_eq!(front.answers(SERVICE), [other]);

    // If that goes on, the group leaves, as long as another node is better. The cluster never leaves it without an
    // owner because of it.
    shop.start_with(alpha, &["--gates", "bpf"]);
    shop.wait("it is in the cluster again", |shop| shop.owner(alpha).as_deref() == Some(beta));
    for node in [beta, alpha] {
        shop.wait("it is said that it goes on", |shop| {
            // An interface has room for 64. Programs that ours overtook long ago make no difference.
            if strangers.len() > 20 {
                strangers.remove(0);
            }
            strangers.push(put(shop, node, true));
            shop.locum(node, &["status"]).1.contains("keeps being attached in front of the gates")
        });
        shop.wait("the first node serves, and goes on", |shop| {
            shop.runs(alpha) && front.answers(SERVICE) == [home]
        });
    }
    locum_lab::clock::pause(Duration::from_secs(6));
    assert!(shop.runs(alpha) && front.answers(SERVICE) == [home], "on both it is the same: it stays");
}
