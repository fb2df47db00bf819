//! `haresources`: any bytes give groups of configured nodes, or an error.

use locum_core::config::{CheckOptions, HaFiles, check as check_files, failed};

pub fn check(input: &[u8]) {
    let files = HaFiles {
        ha_cf: Some(b"bcast eth1\nnode web1 web2\n"),
        authkeys: Some(b"auth 1\n1 sha1 k\n"),
        haresources: Some(input),
    };
    let checked = check_files(&files, "web1", &CheckOptions::default());
    assert!(checked.diags.iter().all(|diag| !diag.to_string().contains(char::is_control)));
    let Some(plan) = checked.plan else { return assert!(failed(&checked.diags)) };
    for (at, group) in plan.groups.iter().enumerate() {
        assert!(group.node.0 < 2 && group.key == group.resources[0].text);
        assert!(plan.groups[..at].iter().all(|earlier| earlier.key != group.key));
        for resource in &group.resources {
            assert!(
                !resource.script.is_empty()
                    && !resource.script.contains('/')
                    && !resource.script.contains("..")
            );
        }
    }
}
