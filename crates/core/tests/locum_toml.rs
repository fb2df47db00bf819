//! The pages about `locum.toml` and its times: their tables are generated from the code, and their examples are read.

use std::{fs, path::PathBuf};

use locum_core::{
    config::{Severity, locum_toml},
    native::timing,
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// Compares the table of a page with the one from the code; `LOCUM_BLESS=1` rewrites it.
fn table(page: &str, table: &str) {
    let path = path(page);
    let old = fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = old.split_once("<!-- table -->\n").expect("the page has a mark before its table");
    let (_, after) = rest.split_once("<!-- end -->\n").expect("the page has a mark behind its table");
    let new = format!("{before}<!-- table -->\n{table}<!-- end -->\n{after}");
    if std::env::var_os("LOCUM_BLESS").is_some() {
        fs::write(&path, new).expect("the page can be written");
    } else {
        assert_eq!(old, new, "{page}: LOCUM_BLESS=1 rewrites its table");
    }
}

#[test]
fn the_page_of_keys_is_the_parsers_table() {
    table("locum-toml.md", &locum_toml::keys::page());
}

#[test]
fn the_page_of_times_is_the_codes_table() {
    table("timing.md", &timing::page());
}

#[test]
fn the_examples_of_the_page_are_good() {
    let page = fs::read_to_string(path("locum-toml.md")).unwrap();
    let examples = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let mut seen = 0;
    for example in examples {
        let checked = locum_toml::check(example.as_bytes(), "web1");
        let bad = checked.diags.iter().filter(|diag| diag.severity == Severity::Error).collect::<Vec<_>>();
        assert!(checked.plan.is_some(), "{example}\n{bad:#?}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}
