//! `ha.cf`: any bytes give a plan that keeps its invariants, or an error whose place lies in the file.

use locum_core::config::{CheckOptions, HaFiles, check as check_files, failed};

pub fn check(input: &[u8]) {
    let files = HaFiles {
        ha_cf: Some(input),
        authkeys: Some(b"auth 1\n1 sha1 k\n"),
        haresources: Some(b"web1 10.0.0.1\n"),
    };
    let checked = check_files(&files, "web1", &CheckOptions::default());
    for diag in &checked.diags {
        assert!(
            diag.place.span.start <= diag.place.span.end && diag.place.span.end <= input.len().max(64),
            "{diag}"
        );
        assert!(!diag.to_string().contains(char::is_control), "{diag:?}");
    }
    let Some(plan) = checked.plan else { return assert!(failed(&checked.diags)) };
    assert!(plan.timing.deadtime > plan.timing.keepalive * 2 && plan.timing.initdead >= plan.timing.deadtime);
    assert!(!plan.links.is_empty() && plan.links.iter().all(|link| !link.media.is_empty()));
    assert!((1..=2).contains(&plan.nodes.len()) && plan.nodes[plan.me.0] == "web1");
}
