//! Checks of names and docs (`CONTRIBUTING.md`): a name means one thing, and a docstring says something.

use std::{collections::BTreeMap, path::Path};

use crate::tidy::{complain, files, is};

/// Rows that the glossary may have: the field's own words need none.
const GLOSSARY_ROWS_MAX: usize = 45;

/// The crate of a source file, its tests apart; nothing for what is no source.
fn crate_of(path: &Path) -> Option<String> {
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts[..] {
        ["crates", name, folder @ ("src" | "tests"), ..] => Some(format!("{name}/{folder}")),
        [folder @ ("src" | "tests" | "fuzz"), ..] => Some(folder.to_owned()),
        _ => None,
    }
}

/// The name that a line declares after one of these words, whatever stands before them.
fn declared<'a>(line: &'a str, words: &[&str]) -> Option<&'a str> {
    let mut rest = line.trim_start();
    loop {
        let (word, after) = rest.split_once(' ')?;
        if words.contains(&word) {
            let end = after.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
            return Some(&after[..end]).filter(|name| !name.is_empty());
        }
        let is_modifier = word.starts_with("pub") || ["const", "unsafe", "async"].contains(&word);
        rest = is_modifier.then_some(after)?;
    }
}

/// Docstrings with the line on which they begin and the one behind them.
fn docstrings(text: &str) -> Vec<(usize, String, usize)> {
    let mut all: Vec<(usize, String, usize)> = Vec::new();
    for (line, content) in text.lines().enumerate() {
        let content = content.trim_start();
        let Some(words) = content.strip_prefix("///").or_else(|| content.strip_prefix("//!")) else {
            continue;
        };
        match all.last_mut() {
            Some((_, said, next)) if *next == line => {
                said.push_str(words);
                *next += 1;
            }
            _ => all.push((line, words.to_owned(), line + 1)),
        }
    }
    all
}

#[test]
fn a_docstring_says_more_than_three_words() {
    let mut faults = Vec::new();
    for (path, text) in files().iter().filter(|(path, _)| is(path, "rs")) {
        for (line, said, _) in docstrings(text) {
            if said.split_whitespace().count() <= 3 {
                faults.push(format!(
                    "{}:{}: `{}`: say more, or delete it",
                    path.display(),
                    line + 1,
                    said.trim()
                ));
            }
        }
    }
    complain(&faults);
}

/// Of the two crates that others use. Fields and variants are documented where a reader would ask.
#[test]
fn public_types_and_functions_are_documented() {
    let mut faults = Vec::new();
    let mut count = 0;
    for (path, text) in files().iter().filter(|(path, _)| is(path, "rs")) {
        if !matches!(crate_of(path).as_deref(), Some("core/src" | "sys/src")) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines: Vec<&str> = code.lines().map(str::trim_start).collect();
        for (line, content) in lines.iter().enumerate() {
            let words = ["fn", "struct", "enum", "trait", "union", "type"];
            if !content.starts_with("pub ") || declared(content, &words).is_none() {
                continue;
            }
            count += 1;
            let mut before = lines[..line]
                .iter()
                .rev()
                .skip_while(|other| other.starts_with("#[") || other.ends_with(")]") || other.ends_with(','));
            if !before.next().is_some_and(|doc| doc.starts_with("///")) {
                faults.push(format!("{}:{}: `{content}`: say what it does", path.display(), line + 1));
            }
        }
    }
    assert!(count > 500, "the search found only {count}");
    complain(&faults);
}

#[test]
fn a_type_has_its_name_for_itself_in_its_crate() {
    let mut places: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (path, text) in files().iter().filter(|(path, _)| is(path, "rs")) {
        let Some(of) = crate_of(path) else { continue };
        for (line, content) in text.lines().enumerate() {
            // An associated type has the name that its trait gives it.
            let is_associated = content.starts_with(' ') && content.trim_start().starts_with("type ");
            let words = ["struct", "enum", "trait", "union", "type"];
            if let Some(name) = declared(content, &words).filter(|_| !is_associated) {
                let place = format!("{}:{}", path.display(), line + 1);
                places.entry((of.clone(), name.to_owned())).or_default().push(place);
            }
        }
    }
    assert!(places.len() > 1000, "the search found only {}", places.len());
    let twice = places.iter().filter(|(_, places)| places.len() > 1);
    let faults: Vec<String> =
        twice.map(|((of, name), places)| format!("{of}: `{name}` at {}", places.join(", "))).collect();
    complain(&faults);
}

#[test]
fn the_glossary_is_short() {
    let glossary = files().into_iter().find(|(path, _)| path.ends_with("glossary.md")).expect("a glossary").1;
    let rows = glossary.lines().filter(|line| line.starts_with("| ")).count() - 1;
    assert!((10..=GLOSSARY_ROWS_MAX).contains(&rows), "{rows} rows; {GLOSSARY_ROWS_MAX} are enough");
}
