//! `locum.toml`: any bytes give a checked plan, whose canonical settings have one line per setting, or an error.

use locum_core::{
    config::{
        failed,
        locum_toml::{check as check_file, quoted},
    },
    native::plan::{GROUPS_MAX, NODES_MAX, NODES_MIN, VOTERS_MAX},
};

pub fn check(input: &[u8]) {
    let checked = check_file(input, "web1");
    assert!(checked.diags.iter().all(|diag| !diag.to_string().contains(char::is_control)));
    assert!(checked.diags.iter().all(|diag| diag.place.span.end <= input.len()));
    let Some(plan) = checked.plan else { return assert!(failed(&checked.diags)) };
    assert!((NODES_MIN..=NODES_MAX).contains(&plan.nodes.len()) && plan.groups.len() <= GROUPS_MAX);
    assert!((1..=VOTERS_MAX).contains(&plan.voters.len()) && plan.majority() <= plan.voters.len());
    for link in &plan.links {
        assert!(link.ends.len() == plan.nodes.len() && link.ends.iter().flatten().count() >= 2);
    }
    for group in &plan.groups {
        assert!(!group.resources.is_empty() && group.candidates.starts_with(&group.prefer));
        assert_eq!(plan.group(&group.name).map(|index| &plan.groups[index.0].name), Some(&group.name));
    }
    let lines = plan.canonical_settings();
    assert!(lines.iter().all(|line| line.contains(" = ") && !line.contains(char::is_control)));
    // A text that the file writes is read back unchanged.
    let name = String::from_utf8_lossy(input).replace(char::is_control, " ");
    if !name.trim().is_empty() && name.len() < 1000 {
        let file = format!(
            "cluster = 'c'\nnodes.web1.links.a = 'e'\nnodes.b.links.a = 'e'\nwitnesses.w.address = '10.0.0.1'\n\
             groups.g = {{ resources = 'x', i-know = {} }}\n",
            quoted(&name)
        );
        let plan = check_file(file.as_bytes(), "web1").plan.expect("a quoted text is good");
        assert_eq!(plan.groups[0].i_know.as_deref(), Some(name.as_str()));
    }
}
