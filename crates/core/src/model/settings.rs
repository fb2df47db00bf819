//! Canonical settings: a configuration as short lines, one per setting. Nodes compare their files by these lines and by
//! their digest. Each dialect makes its own lines.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};

use sha2::{Digest as _, Sha256};

/// The settings digest: that of a plan's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SettingsDigest(pub [u8; 32]);

impl SettingsDigest {
    /// The digest of these lines.
    #[must_use]
    pub fn of(lines: &[String]) -> Self {
        let mut hash = Sha256::new();
        for line in lines {
            hash.update(line.as_bytes());
            hash.update(b"\n");
        }
        Self(hash.finalize().into())
    }

    /// Its first eight bytes, for frames. They are enough to notice a mistake, and only a holder of the key could forge
    /// them.
    #[must_use]
    pub fn short(&self) -> u64 {
        self.0[..8].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
    }
}

/// One setting in which two files differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingDifference {
    pub name: String,
    /// The value on our side; `None` if that side does not have this setting.
    pub ours: Option<String>,
    /// The value on the other side; `None` likewise.
    pub theirs: Option<String>,
}

/// The settings in which two sets of lines differ, in the order of ours, then of theirs. A line without `=` is a setting
/// without a value; any text is accepted.
#[must_use]
pub fn differences(ours: &[String], theirs: &[String]) -> Vec<SettingDifference> {
    let split = |line: &String| match line.split_once(" = ") {
        Some((name, value)) => (name.to_string(), value.to_string()),
        None => (line.clone(), String::new()),
    };
    let table = |lines: &[String]| lines.iter().map(split).collect::<BTreeMap<_, _>>();
    let (our_table, their_table) = (table(ours), table(theirs));
    let mut found = Vec::new();
    for (name, value) in ours.iter().map(split) {
        let other = their_table.get(&name);
        if other != Some(&value) {
            found.push(SettingDifference { name, ours: Some(value), theirs: other.cloned() });
        }
    }
    for (name, value) in theirs.iter().map(split).filter(|(name, _)| !our_table.contains_key(name)) {
        found.push(SettingDifference { name, ours: None, theirs: Some(value) });
    }
    found
}

/// The same for people. A subject that only one side has, such as a group or a link, is one line that counts its
/// settings.
#[must_use]
pub fn summary(ours: &[String], theirs: &[String]) -> Vec<SettingDifference> {
    let subject = |name: &str| Some(name.split_once(": ")?.0.to_string());
    let subjects = |lines: &[String]| lines.iter().filter_map(|line| subject(line)).collect::<BTreeSet<_>>();
    let (our_subjects, their_subjects) = (subjects(ours), subjects(theirs));
    let mut found: Vec<(SettingDifference, usize)> = Vec::new();
    for difference in differences(ours, theirs) {
        let whole = subject(&difference.name)
            .filter(|subject| our_subjects.contains(subject) != their_subjects.contains(subject));
        let Some(subject) = whole else {
            found.push((difference, 1));
            continue;
        };
        match found.iter_mut().find(|(known, _)| known.name == subject) {
            Some((known, settings)) => {
                *settings += 1;
                let text = Some(format!("{settings} settings"));
                *(if known.ours.is_some() { &mut known.ours } else { &mut known.theirs }) = text;
            }
            None => {
                let text = |side: Option<String>| side.map(|_| String::from("1 setting"));
                let (ours, theirs) = (text(difference.ours), text(difference.theirs));
                found.push((SettingDifference { name: subject, ours, theirs }, 1));
            }
        }
    }
    found.into_iter().map(|(difference, _)| difference).collect()
}
