//! Many groups with gates: how they are renewed, and at which cost.

use super::*;

const GROUPS: u32 = 150;

/// Groups with addresses only. The first one is the client's.
fn many() -> String {
    let nodes = FILE.split("[groups").next().unwrap_or_default();
    let group = |number: u32| {
        let ip = Ipv4Addr::from_bits(SERVICE.to_bits() + number);
        format!("[groups.g{number}]\nresources = [\"{ip}/24/eth0\"]\nguard = \"lease\"\n")
    };
    nodes.to_owned() + &(0..GROUPS).map(group).collect::<String>()
}

impl Shop {
    fn start_by(&mut self, member: &'static str, backend: &str) {
        let words = ["locum", "--config", CONFIG, "--state", "/run/disk/state", "run", "--gates", backend];
        let program = Program::new(&words).output("/run/disk/output");
        self.daemons.push((member, self.rack.start(member, &program).unwrap()));
    }

    /// How many groups run on this node with an open gate.
    fn open(&self, node: &str) -> usize {
        let report = self.status(node);
        report
            .map_or(0, |report| report.heart.gates.gates.iter().filter(|gate| gate.open_ms.is_some()).count())
    }
}

fn one_renewal_is_for_all_groups(backend: &str) {
    let Some(mut shop) = Shop::build_of(false, &many()) else { return };
    if !shop.locum(NODES[0], &["gate"]).1.contains(&format!("backend {backend}: works")) {
        return crate::skipped("this backend does not work here");
    }
    shop.start(WITNESS);
    for node in NODES {
        shop.start_by(node, backend);
    }
    shop.wait("all groups run", |shop| {
        NODES.iter().map(|node| shop.open(node)).sum::<usize>() == GROUPS as usize
    });
    // The node with the most of them. Some gates may be renewed separately for a while, until a beat holds their
    // claims.
    let node = NODES.into_iter().max_by_key(|node| shop.open(node)).unwrap();
    let renewals = |shop: &Shop| shop.status(node).map_or(0, |report| report.heart.gates.renewals);
    let pass = |seconds| {
        let begun = Moment::now();
        shop.wait("some beats pass", |_| Moment::now().since(begun) > Duration::from_secs(seconds));
        begun
    };
    pass(2);
    let before = renewals(&shop);
    let begun = pass(6);
    let (after, time) = (renewals(&shop), Moment::now().since(begun));
    // A beat each 600 ms, which its peer and the witness echo.
    let most = 2 * (time.as_secs() * 10 / 6 + 3);
    assert!(
        after > before && after - before <= most,
        "{} renewals in {time:?} of {GROUPS} groups",
        after - before
    );
    assert_eq!(NODES.iter().map(|node| shop.open(node)).sum::<usize>(), GROUPS as usize);

    // All of them, the client's among them, fall silent with their owner and answer again elsewhere.
    let begun = Moment::now();
    shop.daemon(node).signal(ProcessSignal::Kill).unwrap();
    let heir = NODES.into_iter().find(|other| *other != node).unwrap();
    shop.wait("the other node has all", |shop| shop.open(heir) == GROUPS as usize);
    shop.wait("the client is answered", |shop| shop.answers_since(Moment::now()));
    let (_, gates) = shop.locum(node, &["gate"]);
    assert!(gates.matches(": shut, by ").count() > 0 && !gates.contains(": open for"), "{gates}");
    assert_eq!(shop.two_answered(begun), Duration::ZERO);

    // Its leftovers are removed, and it takes part again.
    shop.daemons.retain(|(name, _)| *name != node);
    shop.start_by(node, backend);
    shop.wait("what the earlier life left is swept", |shop| {
        shop.status(node).is_some() && shop.locum(node, &["gate"]).1.contains("no gates here")
    });
    assert_eq!(shop.two_answered(begun), Duration::ZERO);
}

#[test]
fn one_renewal_is_for_all_groups_by_nft() {
    one_renewal_is_for_all_groups("nft");
}

#[test]
fn one_renewal_is_for_all_groups_by_bpf() {
    one_renewal_is_for_all_groups("bpf");
}
