//! `locum check`: explains every line of the configuration and lists everything that is wrong or does not fit this
//! host. Changes nothing and needs no running daemon.
//!
//! Exit code: 0 a daemon would start here with these files; 1 the files are correct, but this host does not fit them
//! (either the daemon does not start, or it starts and something named in the files cannot run here); 2 the files are
//! wrong.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

use clap::Args;
use locum_core::config::{self, CheckedHaFiles, Diag, Explained, FileName, Severity, locum_toml};
use serde::Serialize;

use crate::{
    cli::CommonOptions,
    control::state,
    files::{ConfigDialect, Files, NativeFiles},
    host,
    observe::diagnostics::{draw, one_line},
};

/// The options of `locum check`.
#[derive(Clone, Debug, Args)]
pub struct CheckCommandOptions {
    /// Check as this node [default: the node with this host's name]
    #[arg(long = "as", value_name = "NODE")]
    pub node: Option<String>,
    /// Print everything as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Prefer scripts to Locum's built-in agents, as `locum run --prefer-scripts` does
    #[arg(long)]
    pub prefer_scripts: bool,
}

/// Checks the configuration directory.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(common: &CommonOptions, options: &CheckCommandOptions) -> anyhow::Result<ExitCode> {
    let dir = common.config_dir();
    let heartbeat_runs = state::heartbeat(&common.heartbeat_pid()).is_some();
    let host = host::Host::here(&dir, options.prefer_scripts).beside_heartbeat(heartbeat_runs);
    if let Some(files) = NativeFiles::read(&dir, options.node.as_deref()) {
        let mut checked = files.check().file;
        let starts = !config::failed(&checked.diags);
        host.check_native(&mut checked);
        return print(options, &CheckedFiles::of_native(&files, &checked, starts));
    }
    let files = Files::read(&dir, options.node.as_deref());
    let mut checked = files.check();
    if ConfigDialect::of(&dir).is_none() {
        let text =
            "both ha.cf and locum.toml are in this directory, so `locum run` cannot choose between them";
        let cure = "remove one of them, or start the daemon with --dialect r1 (ha.cf) or --dialect native (locum.toml)";
        checked.diags.push(Diag::new(Severity::Error, FileName::HaCf, text).cure(cure).about_host());
    }
    // As `locum run` does: a daemon starts although only the host lacks something, because that may come later.
    let starts = !checked.failed();
    host.check(&mut checked);
    print(options, &CheckedFiles::of(&files, &checked, starts))
}

fn print(options: &CheckCommandOptions, subject: &CheckedFiles<'_>) -> anyhow::Result<ExitCode> {
    let verdict = CheckVerdict::of(subject.diags, subject.starts);
    let mut out = io::stdout().lock();
    if options.json {
        let (config, exit) = (subject.dir.display().to_string(), verdict.exit_code());
        let CheckedFiles { node, explained, diags, .. } = *subject;
        serde_json::to_writer_pretty(&mut out, &CheckJson { config, node, verdict, exit, explained, diags })?;
        writeln!(out)?;
    } else {
        let color =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        out.write_all(page(subject, verdict, color).as_bytes())?;
    }
    Ok(ExitCode::from(verdict.exit_code()))
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct CheckJson<'a> {
    config: String,
    node: &'a str,
    verdict: CheckVerdict,
    exit: u8,
    explained: &'a [Explained],
    diags: &'a [Diag],
}

/// The result of the check, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum CheckVerdict {
    /// The files are correct and a daemon would start here.
    Good,
    /// The files are correct and a daemon would start here, but not everything can run here.
    NotAllHere,
    /// The files are correct, but a daemon would not start on this host.
    NotHere,
    /// The files are wrong.
    Wrong,
}

impl CheckVerdict {
    /// `starts`: the files alone, before a look at this host, contain no error.
    fn of(diags: &[Diag], starts: bool) -> Self {
        let mut errors = diags.iter().filter(|diag| diag.severity == Severity::Error).peekable();
        match (errors.peek().is_some(), errors.all(|diag| diag.host)) {
            (false, _) => Self::Good,
            (true, true) if starts => Self::NotAllHere,
            (true, true) => Self::NotHere,
            (true, false) => Self::Wrong,
        }
    }

    const fn exit_code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::NotAllHere | Self::NotHere => 1,
            Self::Wrong => 2,
        }
    }
}

/// A line of a file has its explanation beside it only up to this width, in columns.
const SOURCE_WIDTH: usize = 32;

/// The configuration that is checked, of either dialect.
struct CheckedFiles<'a> {
    dir: &'a Path,
    node: &'a str,
    /// The files whose lines are explained, with their texts.
    texts: Vec<(FileName, Option<&'a [u8]>)>,
    explained: &'a [Explained],
    diags: &'a [Diag],
    /// The verdict to print when nothing is wrong.
    good: &'static str,
    /// Whether a daemon would start here.
    starts: bool,
}

impl<'a> CheckedFiles<'a> {
    fn of(files: &'a Files, checked: &'a CheckedHaFiles, starts: bool) -> Self {
        let names = [FileName::HaCf, FileName::Authkeys, FileName::Haresources];
        Self {
            dir: &files.dir,
            node: &files.node,
            texts: names.map(|name| (name, files.text(name))).into(),
            explained: &checked.explained,
            diags: &checked.diags,
            good: "configuration OK: a daemon would start here as",
            starts,
        }
    }

    fn of_native(files: &'a NativeFiles, checked: &'a locum_toml::CheckedLocumToml, starts: bool) -> Self {
        Self {
            dir: &files.dir,
            node: &files.node,
            texts: vec![(FileName::LocumToml, files.text())],
            explained: &checked.explained,
            diags: &checked.diags,
            good: "configuration OK for",
            starts,
        }
    }

    /// The text of a file. None for the key file of a native cluster, of which nothing may be shown.
    fn text(&self, name: FileName) -> Option<&'a [u8]> {
        self.texts.iter().find(|(other, _)| *other == name).and_then(|(_, text)| *text)
    }
}

/// The page for people: each file with its lines explained, then the faults, then the verdict.
fn page(subject: &CheckedFiles<'_>, verdict: CheckVerdict, color: bool) -> String {
    let mut page = String::new();
    for (name, text) in &subject.texts {
        let lines = subject.explained.iter().filter(|line| line.file == *name).collect::<Vec<_>>();
        if !lines.is_empty() {
            let path = subject.dir.join(name.name());
            page += &format!("{}\n{}\n", path.display(), explanations(*name, *text, &lines));
        }
    }
    for diag in subject.diags {
        page += &draw(diag, subject.dir, subject.text(diag.file), color);
        page.push('\n');
    }
    page + &summary(subject, verdict)
}

fn explanations(name: FileName, text: Option<&[u8]>, lines: &[&Explained]) -> String {
    let source = text.unwrap_or_default().split(|&byte| byte == b'\n').collect::<Vec<_>>();
    let mut text = String::new();
    let mut last = 0;
    for Explained { line, text: meaning, .. } in lines {
        let shown = match line.checked_sub(1).and_then(|line| source.get(line)) {
            Some(_) if *line == last => String::new(),
            Some(source) => one_line(name, source),
            None => String::new(),
        };
        let number = if *line == last || *line == 0 { String::new() } else { line.to_string() };
        last = *line;
        if shown.chars().count() > SOURCE_WIDTH {
            text += &format!("{number:>4}  {shown}\n{:6}{:SOURCE_WIDTH$}  {meaning}\n", "", "");
        } else {
            text += &format!("{number:>4}  {shown:SOURCE_WIDTH$}  {meaning}\n");
        }
    }
    text
}

fn summary(subject: &CheckedFiles<'_>, verdict: CheckVerdict) -> String {
    let count = |severity: Severity, word: &str| match subject
        .diags
        .iter()
        .filter(|d| d.severity == severity)
        .count()
    {
        0 => None,
        1 => Some(format!("1 {word}")),
        count => Some(format!("{count} {word}s")),
    };
    let counts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
    let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let node = locum_core::model::note::Escaped(subject.node.as_bytes());
    let verdict = match verdict {
        CheckVerdict::Good => format!("{} {node}", subject.good),
        CheckVerdict::NotAllHere => {
            format!(
                "configuration OK for {node} and a daemon would start, but everything marked as an error cannot run \
                 on this host"
            )
        }
        CheckVerdict::NotHere => format!(
            "the files are correct, but a daemon would not start on this host as \
                                          {node}"
        ),
        CheckVerdict::Wrong => "the files are wrong".to_owned(),
    };
    if counts.is_empty() { format!("{verdict}\n") } else { format!("{verdict}; {counts}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides() {
        let diag = |severity, host: bool| {
            let diag = Diag::new(severity, FileName::HaCf, "x");
            if host { diag.about_host() } else { diag }
        };
        let (error, warning) = (Severity::Error, Severity::Warning);
        for (diags, verdict) in [
            (vec![], CheckVerdict::Good),
            (vec![diag(warning, false), diag(warning, true)], CheckVerdict::Good),
            (vec![diag(warning, false), diag(error, true)], CheckVerdict::NotHere),
            (vec![diag(error, true), diag(error, false)], CheckVerdict::Wrong),
            (vec![diag(error, false)], CheckVerdict::Wrong),
        ] {
            assert_eq!(CheckVerdict::of(&diags, false), verdict, "{diags:?}");
        }
        assert_eq!(CheckVerdict::of(&[diag(error, true)], true), CheckVerdict::NotAllHere);
        assert_eq!(CheckVerdict::of(&[], true), CheckVerdict::Good);
    }
}
