//! A daemon that lacks one of the kernel's rights. `check` under the same rights names the right with the cure, and so
//! does the status while it is missing. A group that cannot run without it runs on the other node.

use super::*;

/// The consequence of a missing right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Consequence {
    /// The other node runs the group, and the status is not well.
    RunsThere,
    /// The group runs here, and the status is not well.
    RunsHere,
    /// The group runs here, less well, and the status has a note.
    Weaker,
}

#[test]
fn a_missing_right_is_named_and_what_needs_it_runs_on_the_other_node() {
    let table = [
        ("net_admin", Consequence::RunsThere),
        ("net_bind_service", Consequence::RunsThere),
        ("net_raw", Consequence::RunsHere),
        ("bpf", Consequence::Weaker),
        ("sys_nice", Consequence::Weaker),
        ("ipc_lock", Consequence::Weaker),
    ];
    for (right, then) in table {
        let Some(mut pair) = Pair::build(None) else { return };
        let [bounding, inherited] = ["--bounding-set", "--inh-caps"].map(|what| format!("{what}=-{right}"));
        let by = ["setpriv", &bounding, &inherited];
        let name = format!("CAP_{}", right.to_uppercase());
        pair.start(1, "");
        pair.start_by(0, "", &by, &[]);
        let check = pair.run(0, &[&by[..], &["locum", "--config", CONFIG, "check"]].concat());
        // This machine may have other means for what these two rights allow.
        let has_other_means = match right {
            "sys_nice" => locum_sys::rights::may_be_realtime(1),
            "ipc_lock" => locum_sys::rights::may_lock_memory(),
            _ => false,
        };
        assert_eq!(check.contains(&format!("{name} is missing")), !has_other_means, "{right}: {check}");
        if !has_other_means {
            let cure = format!("--cap-add={}", right.to_uppercase());
            assert!(check.contains(&cure), "{right}: {check}");
        }
        let runs =
            |pair: &Pair, node: usize| pair.run(node, &["ip", "address"]).contains(&SERVICE.to_string());
        let [here, there] = if then == Consequence::RunsThere { [1, 0] } else { [0, 1] };
        pair.wait(&format!("{right}: it runs on {}", NODES[here]), |pair| {
            runs(pair, here) && !runs(pair, there)
        });
        // It stays there.
        let moved = || (!runs(&pair, here) || runs(&pair, there)).then_some(());
        assert_eq!(await_some(Duration::from_secs(3), moved), None, "{right}");
        let page = pair.run(0, &["locum", "status"]);
        let named = page
            .lines()
            .any(|line| line.starts_with("PROBLEM: ") && line.contains(&format!("{name} is missing")));
        assert_eq!(named, then != Consequence::Weaker, "{right}: {page}");
        let tried = pair.text(0, "output");
        assert!(!tried.contains("os error 1)"), "{right}: {tried}");
    }
}
