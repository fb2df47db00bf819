//! Checks of the repository itself: rules that a compiler cannot check and a reviewer should not have to.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// All files of the repository, except those that were built, fetched or recorded.
pub(crate) fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let skipped = [
                "target",
                ".git",
                "fuzz/target",
                "fuzz/corpus",
                "tests/captures",
                "crates/core/tests/configs",
            ];
            if path.is_symlink() || skipped.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.push((PathBuf::from(name), text));
            }
        }
    }
    assert!(found.len() > 50, "the walk found only {} files", found.len());
    found.sort();
    found
}

pub(crate) fn complain(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

pub(crate) fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["FIX", "ME"].concat(),
        ["#[ig", "nore"].concat(),
    ];
    let mut faults = Vec::new();
    for (path, text) in files().iter().filter(|(path, _)| is(path, "rs")) {
        for (line, content) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| content.contains(word.as_str())) {
                faults.push(format!("{}:{}: {word}: finish it, or take it out", path.display(), line + 1));
            }
        }
    }
    complain(&faults);
}

#[test]
fn lines_are_short_enough_to_read_side_by_side() {
    let mut faults = Vec::new();
    for (path, text) in files().iter().filter(|(path, _)| is(path, "rs")) {
        for (line, content) in text.lines().enumerate() {
            // One row per directive, one row per key: these files are tables.
            let is_table =
                path.ends_with("config/directives.rs") || path.ends_with("config/locum_toml/keys.rs");
            if content.chars().count() > 132 && !is_table {
                faults.push(format!("{}:{}: over 132 columns: break the line", path.display(), line + 1));
            }
        }
        if text.lines().count() > 1200 {
            faults.push(format!("{}: over 1200 lines: is it one room or several?", path.display()));
        }
    }
    complain(&faults);
}

#[test]
fn every_source_file_says_what_it_is() {
    let faults: Vec<_> = files()
        .iter()
        .filter(|(path, text)| is(path, "rs") && !text.contains("//!"))
        .map(|(path, _)| {
            format!("{}: begin with a doc comment: what it is, what it promises", path.display())
        })
        .collect();
    complain(&faults);
}

#[test]
fn no_path_of_a_machine_and_no_host_of_a_registry() {
    let words = [["/wo", "rk/"].concat(), ["/home", "/"].concat(), ["crates", ".io"].concat()];
    let mut faults = Vec::new();
    for (path, text) in files() {
        if path.ends_with("Cargo.lock") {
            continue;
        }
        for (line, content) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| content.contains(word.as_str())) {
                faults.push(format!(
                    "{}:{}: {word}: the project speaks of itself alone",
                    path.display(),
                    line + 1
                ));
            }
        }
    }
    complain(&faults);
}

#[test]
fn unsafe_stays_in_its_room_and_the_arrows_point_one_way() {
    let block = ["unsafe", " {"].concat();
    let mut faults = Vec::new();
    for (path, text) in files() {
        let name = path.to_string_lossy();
        if is(&path, "rs") && !name.starts_with("crates/sys/") && text.contains(block.as_str()) {
            faults.push(format!("{name}: unsafe outside crates/sys"));
        }
        let forbidden: &[&str] = match name.as_ref() {
            "crates/core/Cargo.toml" | "crates/sys/Cargo.toml" => &["locum-"],
            "crates/sim/Cargo.toml" | "crates/model/Cargo.toml" => &["locum-sys", "locum-lab"],
            "crates/lab/Cargo.toml" => &["locum-core", "locum-sim"],
            _ => &[],
        };
        for dependency in forbidden {
            let found = text.lines().any(|line| line.starts_with(dependency));
            if found {
                faults.push(format!("{name}: depends on {dependency}…; see ARCHITECTURE.md"));
            }
        }
    }
    complain(&faults);
}

/// The modules of the core, and what each may import: the modules above it. The configuration knows the plans of both
/// dialects, but nothing that runs.
const ROOMS: [(&str, &[&str]); 8] = [
    ("model", &[]),
    ("framing", &["model"]),
    ("liveness", &["model"]),
    ("claims", &["model"]),
    ("group", &["model"]),
    ("r1", &["model", "framing", "liveness", "group"]),
    ("native", &["model", "framing", "liveness", "claims", "group"]),
    ("config", &["model", "r1::plan", "native::plan", "native::timing", "native::wire::members"]),
];

/// The lab's kinds of experiments. Each knows the rack and its own pair of nodes, and no other experiment.
const PLAYS: [&str; 6] = ["bench", "native", "scale", "mixed", "machines", "gate"];

#[test]
fn the_rooms_of_the_core_import_only_what_stands_above_them() {
    let mut faults = Vec::new();
    let mut arrows = 0;
    for (path, room, import) in rooms("crates/core/src") {
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            faults.push(format!("{}: {room} is no room of the core", path.display()));
            continue;
        };
        arrows += 1;
        if !is_in(&import, &room) && !allowed.iter().any(|place| is_in(&import, place)) {
            faults.push(format!("{}: {room} imports {import}; see ARCHITECTURE.md", path.display()));
        }
    }
    complain(&faults);
    assert!(arrows > 300, "only {arrows} imports were found");
}

#[test]
fn what_the_lab_plays_does_not_know_what_else_it_plays() {
    let mut faults = Vec::new();
    for (path, room, import) in rooms("crates/lab/src") {
        let is_play = PLAYS.contains(&room.as_str()) || room == "pair";
        let other = PLAYS.iter().find(|play| **play != room && is_in(&import, play));
        // The process that renews a gate, and the kinds of gates, are shared.
        if let Some(other) = other.filter(|other| is_play && **other != "gate") {
            faults.push(format!(
                "{}: {room} imports {other}: what both need belongs into a room of its own",
                path.display()
            ));
        }
    }
    complain(&faults);
}

fn is_in(import: &str, place: &str) -> bool {
    import == place || import.starts_with(&format!("{place}::"))
}

/// Each import from the root of a crate: the file, its top-level module, and the imported path. Tests are left out.
fn rooms(root: &str) -> Vec<(PathBuf, String, String)> {
    let mut found = Vec::new();
    for (path, text) in files() {
        let Ok(inside) = path.strip_prefix(root) else { continue };
        let room = inside.with_extension("");
        let room = room.iter().next().unwrap().to_string_lossy().into_owned();
        if !is(&path, "rs")
            || room == "lib"
            || inside.iter().any(|part| part == "tests" || part == "tests.rs")
        {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        // A module at depth N reaches the root by N times `super`.
        let depth = inside.iter().count() - usize::from(inside.ends_with("mod.rs"));
        let to_root = "super::".repeat(depth);
        for import in imports(code) {
            match import.strip_prefix("crate::").or_else(|| import.strip_prefix(to_root.as_str())) {
                Some(import) if !import.starts_with("super::") => {
                    found.push((path.clone(), room.clone(), import.to_owned()));
                }
                _ => {}
            }
        }
    }
    found
}

/// The paths of all `use` declarations and all other paths from the root, without comments.
fn imports(code: &str) -> Vec<String> {
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    let code: String = lines.flat_map(|line| [line, "\n"]).collect();
    let mut found = Vec::new();
    for part in code.split(';') {
        let part = part.trim_start();
        let tree = part
            .lines()
            .rev()
            .find_map(|line| line.split_once("use ").filter(|(before, _)| is_visibility(before)));
        if tree.is_some() {
            let at = part.rfind("use ").unwrap();
            expand("", &part[at + "use ".len()..], &mut found);
        }
    }
    let mut rest = code.as_str();
    while let Some(at) = rest.find("crate::") {
        rest = &rest[at..];
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':');
        let (path, after) = rest.split_at(end.unwrap_or(rest.len()));
        // The head of a tree was expanded above.
        if !path.ends_with(':') {
            found.push(path.to_owned());
        }
        rest = after;
    }
    found
}

fn is_visibility(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text == "pub" || (text.starts_with("pub(") && text.ends_with(')'))
}

/// Writes a tree such as `a::{b, c::{d, e}}` as its paths.
fn expand(before: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, inside)) = tree.split_once('{') else {
        if !tree.is_empty() {
            found.push(format!("{before}{}", tree.split(" as ").next().unwrap()));
        }
        return;
    };
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut begin) = (0, 0);
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&format!("{before}{head}"), &inside[begin..at], found);
                begin = at + 1;
            }
            _ => {}
        }
    }
    expand(&format!("{before}{head}"), &inside[begin..], found);
}

#[test]
fn every_page_of_the_documentation_can_be_found() {
    let files = files();
    let pages = || files.iter().filter(|(path, _)| is(path, "md"));
    let faults: Vec<_> = pages()
        .filter(|(path, _)| path.starts_with("docs") && !path.starts_with("docs/decisions"))
        .filter(|(page, _)| {
            let name = page.file_name().unwrap().to_string_lossy();
            !pages().any(|(path, text)| path != page && text.contains(name.as_ref()))
        })
        .map(|(page, _)| format!("{}: no other page links to it", page.display()))
        .collect();
    complain(&faults);
}

/// A page names the tests that its statements rest on: they must exist.
#[test]
fn tests_that_a_page_names_exist() {
    let files = files();
    let mut faults = Vec::new();
    let mut named = 0;
    for (path, text) in files.iter().filter(|(path, _)| is(path, "md")) {
        for words in text.split("tested, `").skip(1) {
            let name = words.split('`').next().unwrap_or_default();
            named += 1;
            let test = format!("fn {name}(");
            if !files.iter().any(|(path, text)| is(path, "rs") && text.contains(&test)) {
                faults.push(format!("{}: there is no test {name}", path.display()));
            }
        }
    }
    assert!(named >= 8, "only {named} tests are named");
    complain(&faults);
}

/// Settings of the service manager that the daemon's promises depend on.
#[test]
fn the_service_unit_does_its_part() {
    let unit = unit("locum.service");
    let lines = settings(&unit);
    for needed in [
        "Type=notify",
        "ExecReload=-/bin/kill -HUP $MAINPID",
        "KillMode=process",
        "TimeoutStopSec=infinity",
        "Restart=on-failure",
        "StartLimitIntervalSec=0",
        "LimitMEMLOCK=infinity",
        "LimitRTPRIO=50",
        "Delegate=yes",
        "RuntimeDirectory=locum",
        "RuntimeDirectoryPreserve=yes",
        "Alias=heartbeat.service",
    ] {
        assert!(lines.contains(&needed), "{needed}");
    }
    // Else systemd warns at every start that the unit conflicts with itself.
    let names: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("Alias=")).collect();
    let others = lines.iter().filter(|line| !line.starts_with("Alias="));
    for line in others {
        assert!(!names.iter().any(|name| line.contains(name)), "{line}: that is this unit itself");
    }
    let value = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    assert!(value("WatchdogSec").is_some());
    assert!(value("After").unwrap().contains("network-online.target"), "up after, down before the network");
    let mut keys: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count, "a setting stands there twice");
}

/// A rule of the claims that a test leaves out is left out in one place: else two of them could be half of a rule each.
#[test]
fn the_rules_of_the_claims_are_left_out_where_they_stand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/core/src/claims");
    let mut rules = 0;
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.ends_with("rules.rs") {
            rules = text.matches("is_left_out(Breakage::").count();
        } else {
            assert!(!text.contains("breakage::"), "{}: say it in rules.rs", path.display());
        }
    }
    assert!(rules >= 24, "{rules}");
}

/// The service manager's own limit gives up for good what has ended five times in ten seconds.
#[test]
fn no_unit_is_given_up_by_the_service_manager() {
    for name in ["locum.service", "locum-witness.service"] {
        let unit = unit(name);
        let before_service = unit.split("[Service]").next().unwrap();
        assert!(settings(before_service).contains(&"StartLimitIntervalSec=0"), "{name}");
        assert!(settings(&unit).contains(&"RestartSec=1s"), "{name}: and it must not spin");
    }
}

fn unit(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name)).unwrap()
}

fn settings(unit: &str) -> Vec<&str> {
    unit.lines().filter(|line| line.contains('=') && !line.starts_with('#')).collect()
}
