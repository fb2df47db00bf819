//! Two nodes and no third voter.

use super::*;

#[test]
fn two_nodes_without_a_witness_take_over_and_agree_after_a_partition() {
    let Some(mut shop) = Shop::build(false) else { return };
    let [alpha, beta] = NODES;
    let file = format!("{HEAD}{}", FILE.replace("guard = \"lease\"", "guard = \"none\""));
    for node in NODES {
        shop.put(node, "locum/locum.toml", &file, 0o600);
        shop.start(node);
    }
    shop.wait("the group runs on the first node, and both know", |shop| {
        if shop.owner(beta).as_deref() == Some(beta) {
            shop.locum(beta, &["move", "web", alpha]);
        }
        shop.runs(alpha) && shop.owner(beta).as_deref() == Some(alpha)
    });
    let votes = |shop: &Shop, node: &str| shop.status(node).map(|report| report.cluster.votes);
    shop.wait("both vote", |shop| {
        NODES.iter().all(|node| {
            votes(shop, node).is_some_and(|votes| votes.own == OwnVote::Votes && votes.single_vote.is_none())
        })
    });
    shop.rack.power_off(alpha).unwrap();
    shop.wait("the one that is left has taken over", |shop| {
        shop.runs(beta) && shop.answers_since(Moment::now())
    });
    let (_, page) = shop.locum(beta, &["status"]);
    assert!(page.contains("single-vote mode for"), "{page}");
    // The returning node takes nothing, and the running group does not notice.
    shop.rack.power_on(alpha).unwrap();
    shop.start(alpha);
    shop.wait("two voters again", |shop| {
        votes(shop, alpha).is_some_and(|votes| votes.own == OwnVote::Votes && votes.single_vote.is_none())
            && votes(shop, beta).is_some_and(|votes| votes.single_vote.is_none())
            && shop.owner(alpha).as_deref() == Some(beta)
    });
    assert!(shop.runs(beta));
    let starts = |shop: &Shop, node: &str| shop.text(node, "epochs").lines().count();
    assert!(
        starts(&shop, beta) <= 2,
        "once where the cluster began, once now: {}",
        shop.text(beta, "epochs")
    );
    let starts_before = starts(&shop, beta);
    for network in ["lan", "link"] {
        shop.rack.cut(network, alpha).unwrap();
    }
    shop.wait("in a partition both run it", |shop| shop.runs(alpha) && shop.runs(beta));
    let starts_there = starts(&shop, alpha);
    assert_eq!(starts(&shop, beta), starts_before);
    for network in ["lan", "link"] {
        shop.rack.mend(network, alpha).unwrap();
    }
    // The later claim has the higher ballot.
    shop.wait("one owner is left", |shop| {
        let stopped = shop.status(beta).is_some_and(|report| {
            let group = &report.cluster.groups[0];
            group.phase == GroupPhase::Stopped && group.owner.as_deref() == Some(alpha)
        });
        stopped && shop.runs(alpha) && shop.answers_since(Moment::now())
    });
    let healed = Moment::now();
    shop.wait("both vote again, and nobody has to be proved anything", |shop| {
        shop.status(alpha).is_some_and(|report| {
            report.cluster.votes.single_vote.is_none() && report.cluster.groups[0].unproved.is_empty()
        })
    });
    assert_eq!(
        (starts(&shop, alpha), starts(&shop, beta)),
        (starts_there, starts_before),
        "without a restart"
    );
    assert_eq!(shop.two_answered(healed), Duration::ZERO);
}

/// As `locum import` writes it for `bcast`: the nodes' broadcasts reach the witness, too, at the same port.
#[test]
fn a_witness_on_the_network_of_broadcast_links_is_heard_at_the_default_port() {
    let links = "links = { front = \"eth0\", back = \"eth1\" }";
    let tables = FILE
        .replace("links = { front = \"172.23.2.12\", back = \"10.0.0.1\" }", links)
        .replace("links = { front = \"172.23.2.13\", back = \"10.0.0.2\" }", links);
    assert_eq!(tables.matches(links).count(), 2);
    let Some(shop) = Shop::build_of(false, &tables) else { return };
    let mut shop = shop.served();
    for node in NODES {
        shop.wait("every voter answers", |shop| {
            let answers = |report: NativeStatusReport| {
                report.cluster.votes.voters.iter().all(|voter| voter.name == node || voter.answers)
            };
            shop.status(node).is_some_and(answers)
        });
    }
    // The witness makes the majority.
    let [alpha, beta] = NODES;
    shop.rack.power_off(alpha).unwrap();
    shop.wait("the other node has taken over", |shop| shop.runs(beta) && shop.answers_since(Moment::now()));
}
