//! Heartbeat's own commands. Called through a link with one of these names (`locum links`), the program acts as that
//! command. Texts and exit codes are heartbeat's; `docs/commands.md` gives the reason for each difference.
//!
//! Each command also takes `--config`, `--state` and `--run`, as `locum` does.

mod cl_status;
mod hb;
mod heartbeat;

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;

use super::{CommonOptions, resources};

/// A heartbeat command whose part the program can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandName {
    /// Starts, stops, reloads and asks the daemon.
    Heartbeat,
    /// Answers one question of a script in one word.
    ClStatus,
    /// Gives groups to the other node.
    HbStandby,
    /// Takes groups from the other node.
    HbTakeover,
    /// Always refused: only `ha.cf` says which nodes there are.
    HbAddnode,
    /// Always refused, as [`Self::HbAddnode`].
    HbDelnode,
    /// Sets a node's weight, a part of its quorum data.
    HbSetweight,
    /// Sets a node's site, a part of its quorum data.
    HbSetsite,
    /// Lists groups and resources; starts and stops a group by hand.
    ResourceManager,
}

impl CommandName {
    const ALL: [(&'static str, Self); 9] = [
        ("heartbeat", Self::Heartbeat),
        ("cl_status", Self::ClStatus),
        ("hb_standby", Self::HbStandby),
        ("hb_takeover", Self::HbTakeover),
        ("hb_addnode", Self::HbAddnode),
        ("hb_delnode", Self::HbDelnode),
        ("hb_setweight", Self::HbSetweight),
        ("hb_setsite", Self::HbSetsite),
        ("ResourceManager", Self::ResourceManager),
    ];

    /// The command that the first word of a command line names, in any directory.
    #[must_use]
    pub fn called(first: &OsStr) -> Option<Self> {
        let name = Path::new(first).file_name()?;
        Self::ALL.into_iter().find(|(known, _)| name == *known).map(|(_, command)| command)
    }

    fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, name)| *name == self).map_or("", |(word, _)| word)
    }

    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self, words: Vec<OsString>) -> ExitCode {
        let (common, words) = match surroundings(words) {
            Ok(split) => split,
            Err(why) => {
                errln!("{}: {why}", self.word());
                return ExitCode::from(super::USAGE);
            }
        };
        match self {
            Self::Heartbeat => heartbeat::run(&common, words),
            Self::ClStatus => cl_status::run(&common, words),
            Self::HbStandby => hb::move_groups(&common, hb::MoveDirection::Standby, &words),
            Self::HbTakeover => hb::move_groups(&common, hb::MoveDirection::Takeover, &words),
            Self::HbAddnode | Self::HbDelnode => hb::refuse_nodes(self.word(), &words),
            Self::HbSetweight => hb::set(&common, hb::Property::Weight, &words),
            Self::HbSetsite => hb::set(&common, hb::Property::Site, &words),
            Self::ResourceManager => resources::by_name(&common, words),
        }
    }
}

/// Splits `--config`, `--state` and `--run` from the words before a `--`. Heartbeat's commands have no option that
/// looks like them.
fn surroundings(words: Vec<OsString>) -> Result<(CommonOptions, Vec<String>), String> {
    let mut common = CommonOptions::default();
    let mut rest = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let word = word.into_string().map_err(|word| format!("{} is not valid UTF-8", word.display()))?;
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let place = match name {
            "--config" => &mut common.config,
            "--state" => &mut common.state,
            "--run" => &mut common.run,
            "--" => {
                rest.push(word);
                let texts = words.by_ref().map(|word| word.into_string());
                rest.extend(
                    texts
                        .collect::<Result<Vec<_>, _>>()
                        .map_err(|word| format!("{} is not valid UTF-8", word.display()))?,
                );
                break;
            }
            _ => {
                rest.push(word);
                continue;
            }
        };
        let value = value.map(OsString::from).or_else(|| words.next()).filter(|value| !value.is_empty());
        *place = Some(PathBuf::from(value.ok_or_else(|| format!("{name} needs a directory"))?));
    }
    Ok((common, rest))
}

/// Options and operands, told apart as getopt(3) does: an option may stand anywhere before a `--`.
struct ParsedWords {
    flags: Vec<char>,
    operands: Vec<String>,
}

impl ParsedWords {
    /// `known`: the letters that are options.
    ///
    /// # Errors
    /// The first letter that is not in `known`.
    fn read(words: &[String], known: &str) -> Result<Self, char> {
        let mut given = Self { flags: Vec::new(), operands: Vec::new() };
        let mut only_operands = false;
        for word in words {
            match word.strip_prefix('-').filter(|letters| !only_operands && !letters.is_empty()) {
                Some("-") => only_operands = true,
                Some(letters) => {
                    if let Some(bad) = letters.chars().find(|letter| !known.contains(*letter)) {
                        return Err(bad);
                    }
                    given.flags.extend(letters.chars());
                }
                None => given.operands.push(word.clone()),
            }
        }
        Ok(given)
    }

    fn has(&self, flag: char) -> bool {
        self.flags.contains(&flag)
    }
}

/// The options of `locum links`.
#[derive(Clone, Debug, Args)]
pub struct LinksOptions {
    /// Directory for the links
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Names of the links [default: all]
    #[arg(value_name = "NAME", value_parser = known_name)]
    pub names: Vec<String>,
}

fn known_name(text: &str) -> Result<String, String> {
    match CommandName::ALL.iter().find(|(name, _)| *name == text) {
        Some((name, _)) => Ok((*name).to_owned()),
        None => Err(format!("the possible names are {}", CommandName::ALL.map(|(name, _)| name).join(" "))),
    }
}

/// `locum links`: makes links with heartbeat's names to this program. A file that is not such a link is left alone, and
/// is an error.
///
/// # Errors
/// If the path of this program cannot be found.
pub fn links(options: &LinksOptions) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let all = CommandName::ALL.map(|(name, _)| name.to_owned());
    let names = if options.names.is_empty() { &all[..] } else { &options.names };
    let mut bad = false;
    for name in names {
        let path = options.dir.join(name);
        match link(&program, &path) {
            Ok(()) => outln!("{} -> {}", path.display(), program.display()),
            Err(why) => {
                bad = true;
                errln!("locum: {}: {why}", path.display());
            }
        }
    }
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn link(program: &Path, path: &Path) -> Result<(), String> {
    match symlink(program, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map_err(|error| error.to_string()),
    }
    let ours = |target: PathBuf| target == program || target.file_name() == Some(OsStr::new("locum"));
    match std::fs::read_link(path) {
        Ok(target) if ours(target.clone()) => {
            if target == program {
                return Ok(());
            }
            // The link leads to an earlier path of this program.
            std::fs::remove_file(path)
                .and_then(|()| symlink(program, path))
                .map_err(|error| error.to_string())
        }
        _ => Err("the file exists and is not a link of Locum: move it away first, or keep it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn names_are_found_in_any_directory() {
        assert_eq!(CommandName::called(OsStr::new("/usr/bin/cl_status")), Some(CommandName::ClStatus));
        assert_eq!(CommandName::called(OsStr::new("heartbeat")), Some(CommandName::Heartbeat));
        assert_eq!(CommandName::called(OsStr::new("/usr/sbin/locum")), None);
        assert_eq!(CommandName::called(OsStr::new("heartbeat/locum")), None);
    }

    #[test]
    fn options_stand_anywhere() {
        let given = ParsedWords::read(&words("other -m -np x -- -y"), "mnp").unwrap();
        assert_eq!((given.flags, given.operands), (vec!['m', 'n', 'p'], words("other x -y")));
        assert_eq!(ParsedWords::read(&words("-mx"), "m").err(), Some('x'));
        assert_eq!(ParsedWords::read(&words("-"), "m").unwrap().operands, ["-"]);
    }

    #[test]
    fn directories_are_taken_out() {
        let raw = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let (common, rest) = surroundings(raw("--run=/r nodestatus --config /c a -- --state x")).unwrap();
        assert_eq!((common.run, common.config), (Some("/r".into()), Some("/c".into())));
        assert_eq!((common.state, rest), (None, words("nodestatus a -- --state x")));
        assert!(surroundings(raw("x --run")).is_err());
        assert!(surroundings(raw("--state= x")).is_err());
    }

    #[test]
    fn a_link_replaces_only_links_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("locum");
        let path = dir.path().join("heartbeat");
        for _ in 0..2 {
            link(&program, &path).unwrap();
        }
        let elsewhere = dir.path().join("new/locum");
        link(&elsewhere, &path).unwrap();
        assert_eq!(std::fs::read_link(&path).unwrap(), elsewhere);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "the original").unwrap();
        assert!(link(&program, &path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "the original");
    }
}
