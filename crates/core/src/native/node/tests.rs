//! What an event costs.

use alloc::{collections::VecDeque, format};

use super::*;
use crate::{action::Operation, config::locum_toml};

/// How many groups were looked at for each operation that ended, while so many groups were started on a node that counts alone.
fn looks_for_an_operation(groups: usize) -> usize {
    let mut toml = String::from("cluster = 'c'\n");
    for (node, at) in [("a", 1), ("b", 2)] {
        toml += &format!("nodes.{node}.links = {{ x = '10.0.0.{at}', y = '10.1.0.{at}' }}\n");
    }
    for group in 0..groups {
        toml += &format!("[groups.g{group}]\nresources = 'x{group}'\nguard = 'none'\n");
    }
    let checked = locum_toml::check(toml.as_bytes(), "a");
    let plan = Arc::new(checked.plan.unwrap_or_else(|| panic!("{:#?}", checked.diags)));
    let ledger = Durable { ceiling: 1, set: plan.voter_set(), ..Durable::default() };
    let identity = Identity { generation: 1, ledger: Some(ledger), stuck: Vec::new(), seed: 1 };
    let mut node = Node::new(plan, identity, Instant::ZERO);
    let (mut pending, mut is_written) = (VecDeque::new(), false);
    let (mut operations, mut looks, mut millis) = (0, 0, 0);
    while (0..groups).any(|group| node.phase(GroupIndex(group)) != Phase::Running) {
        while let Some(action) = node.poll() {
            match action {
                Action::Hands(action::Action::Run { ticket, operation, .. }) => {
                    pending.push_back((ticket, operation));
                }
                Action::Hands(action::Action::Write(_)) => is_written = true,
                _ => {}
            }
        }
        let now = Instant::from_millis(millis);
        if core::mem::take(&mut is_written) {
            node.handle(now, Event::Written { ok: true });
        } else if let Some((ticket, operation)) = pending.pop_front() {
            let before = node.ownership.looked;
            let outcome = if operation == Operation::Status { Outcome::Stopped } else { Outcome::Ok };
            node.handle(now, Event::Done { ticket, outcome });
            looks += node.ownership.looked - before;
            operations += 1;
        } else {
            millis += 10;
            assert!(millis < 60_000, "not all of them run");
            node.handle(now, Event::Tick);
        }
    }
    looks.div_ceil(operations)
}

/// With thousands of groups a walk over all of them for each one that has started is minutes of work.
#[test]
fn a_group_that_has_started_costs_no_look_at_all_the_others() {
    for groups in [16, 1024] {
        let looks = looks_for_an_operation(groups);
        assert!(looks <= 2, "{looks} of {groups} groups were looked at for each operation");
    }
}
