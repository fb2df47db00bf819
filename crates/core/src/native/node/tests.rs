//! What an event costs.

use alloc::{collections::VecDeque, format, vec};

use super::*;
use crate::{config::locum_toml, model::action::Operation};

/// For a node in single-vote mode that starts this many groups: how many groups were looked at for each ended
/// operation, and how often the groups that nodes cannot run were gathered in all that time, although none of that
/// changed.
fn costs_of_a_start(groups: usize) -> (usize, usize) {
    let mut toml = String::from("cluster = 'c'\n");
    for (node, at) in [("a", 1), ("b", 2)] {
        toml += &format!("nodes.{node}.links = {{ x = '10.0.0.{at}', y = '10.1.0.{at}' }}\n");
    }
    for group in 0..groups {
        toml += &format!("[groups.g{group}]\nresources = 'x{group}'\nguard = 'none'\n");
    }
    let checked = locum_toml::check(toml.as_bytes(), "a");
    let plan = Arc::new(checked.plan.unwrap_or_else(|| panic!("{:#?}", checked.diags)));
    let ledger = DurableState { ceiling: 1, set: plan.voter_set(), ..DurableState::default() };
    let identity = NodeIdentity { generation: 1, ledger: Some(ledger), stop_failed: Vec::new(), seed: 1 };
    let mut node = NativeNode::new(plan, identity, Instant::ZERO);
    let (mut pending, mut is_written) = (VecDeque::new(), false);
    let (mut operations, mut looks, mut gathered, mut millis) = (0, 0, 0, 0);
    while (0..groups).any(|group| node.phase(GroupIndex(group)) != GroupPhase::Running) {
        while let Some(action) = node.poll() {
            match action {
                NodeAction::Hands(action::Action::Run { ticket, operation, .. }) => {
                    pending.push_back((ticket, operation));
                }
                NodeAction::Hands(action::Action::Write(_)) => is_written = true,
                _ => {}
            }
        }
        let now = Instant::from_millis(millis);
        if core::mem::take(&mut is_written) {
            node.handle(now, NodeEvent::Written { ok: true });
        } else if let Some((ticket, operation)) = pending.pop_front() {
            let before = (node.ownership.looked, node.ownership.gathered);
            let outcome = if operation == Operation::Status { Outcome::Stopped } else { Outcome::Ok };
            node.handle(now, NodeEvent::Done { ticket, outcome });
            looks += node.ownership.looked - before.0;
            gathered += node.ownership.gathered - before.1;
            operations += 1;
        } else {
            millis += 10;
            assert!(millis < 60_000, "not all of them run");
            node.handle(now, NodeEvent::Tick);
        }
    }
    (looks.div_ceil(operations), gathered)
}

/// With thousands of groups, a walk over all of them for each started one would take minutes.
#[test]
fn a_group_that_has_started_costs_no_look_at_all_the_others() {
    for groups in [16, 1024] {
        let (looks, gathered) = costs_of_a_start(groups);
        assert!(looks <= 2, "{looks} of {groups} groups were looked at for each operation");
        assert_eq!(gathered, 0, "what cannot be run was gathered although nothing of that changed");
    }
}

/// As many groups are stopped in one turn as there are. Each gate is shut right before the stop of its last address,
/// and nothing else changes its place.
#[test]
fn gates_are_shut_right_before_the_stops_of_their_addresses() {
    const GROUPS: usize = 300;
    let mut toml =
        String::from("cluster = 'c'\nnodes.a.links.x = '10.0.0.1'\nnodes.b.links.x = '10.0.0.2'\n");
    for group in 0..GROUPS {
        let (low, high) = (group % 250 + 1, group / 250);
        toml += &format!("[groups.g{group}]\nresources = '10.3.{high}.{low}/16/eth0'\nguard = 'none'\n");
    }
    let checked = locum_toml::check(toml.as_bytes(), "a");
    let plan = Arc::new(checked.plan.unwrap_or_else(|| panic!("{:#?}", checked.diags)));
    let identity = NodeIdentity { generation: 1, ledger: None, stop_failed: Vec::new(), seed: 1 };
    let mut node = NativeNode::new(plan, identity, Instant::ZERO);
    let lease = Some(GateLease {
        until: Instant::from_millis(9),
        sent: Instant::ZERO,
        ballot: Ballot { round: 1, node: MemberIndex(0) },
    });
    let run = |group: usize, operation| action::Action::Run {
        ticket: Ticket(u64::try_from(group).unwrap()),
        resource: ResourceId { group: GroupIndex(group), member: 0 },
        operation,
        limit: Duration::from_secs(1),
        epoch: None,
    };
    node.hands.clear();
    for group in 0..GROUPS {
        let index = GroupIndex(group);
        node.gates.insert(index, lease);
        // Two of three are being stopped while they are ours.
        if group % 3 > 0 {
            node.closing.insert(index);
        }
        node.hands.push_back(run(group, if group % 3 == 1 { Operation::Status } else { Operation::Stop }));
    }
    node.shut_gates_of_addresses();
    let expected = (0..GROUPS).flat_map(|group| match group % 3 {
        0 => vec![run(group, Operation::Stop)],
        1 => vec![run(group, Operation::Status)],
        _ => {
            let shut = action::Action::Gate { group: GroupIndex(group), lease: None };
            vec![shut, run(group, Operation::Stop)]
        }
    });
    assert_eq!(node.hands, expected.collect::<VecDeque<_>>());
    assert!(node.closing.iter().all(|group| group.0 % 3 == 1), "what is shut closes no more");
}
