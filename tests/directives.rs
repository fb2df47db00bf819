//! Compares `docs/directives.md`, which gives the state of every directive, with the rows of the parser.

use std::{fs, path::Path};

use locum_core::config::directives::{DirectiveStatus, ROWS};

/// The state of a row in the page's words.
fn state(status: DirectiveStatus) -> String {
    match status {
        DirectiveStatus::Honoured => "done".into(),
        DirectiveStatus::Old { modern } => format!("done; today written `{modern}`"),
        DirectiveStatus::Accepted(why) => format!("accepted: {why}"),
        DirectiveStatus::Refused(why) => format!("refused unless off: {why}"),
    }
}

/// Collects all test functions in the Rust files below a directory.
fn tests(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_page_says_how_every_directive_stands_and_which_test_shows_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/directives.md")).unwrap();
    let lines: Vec<Vec<&str>> = page
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let mut code = String::new();
    for directory in ["src", "crates", "tests"] {
        tests(&root.join(directory), &mut code);
    }
    assert_eq!(lines.len(), ROWS.len(), "one line for each directive");
    for (line, row) in lines.iter().zip(ROWS) {
        let [name, stands, shown] = line.as_slice() else { panic!("three columns: {line:?}") };
        assert_eq!(*name, format!("`{}`", row.name), "in the order of the parser's rows");
        assert_eq!(*stands, state(row.status), "{name}");
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{name}: which test shows it?");
        for test in names {
            assert!(code.contains(&format!("fn {test}(")), "{name}: there is no test {test}");
        }
    }
}
