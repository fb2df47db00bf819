//! `locum keygen`: makes the key file of a native cluster, or rolls its key over in three calls. First the new key is
//! added for reading, then it signs, then the old one is dropped. All nodes understand each other at every moment.
//!
//! Exit code: 0 the file is written, 1 it is not.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use locum_core::{config::locum_key::KEY_BYTES, native::plan::KEY_FILE};
use locum_sys::file::write_atomically;

use crate::{
    cli::CommonOptions,
    files::{NativeFiles, read_native_keys},
};

/// The options of `locum keygen`.
#[derive(Clone, Debug, Args)]
pub struct KeygenOptions {
    /// Key file [default: the one named by locum.toml, else locum.key, in the configuration directory]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Change the key of a running cluster in three steps; after each, copy the file to all who share it and reload them
    #[arg(long, value_name = "STEP")]
    pub roll: Option<RollStep>,
}

/// A step of rolling the key over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RollStep {
    /// Add a new key: it is accepted, the old one still signs
    Add,
    /// Sign with the new key; the old one is still accepted
    Switch,
    /// Remove the old key
    Drop,
}

const MODE: u32 = 0o600;

/// Makes the key file, or performs one step of a key roll-over.
///
/// # Errors
/// Why nothing was written.
pub fn run(common: &CommonOptions, options: &KeygenOptions) -> anyhow::Result<ExitCode> {
    let path = options.file.clone().unwrap_or_else(|| default_file(common));
    let text = match options.roll {
        None => {
            make(&path, &file(&[new_key()?]))?;
            format!(
                "{} is written. Copy it to all nodes, and to witnesses without a key of their own, with mode 0600.",
                path.display()
            )
        }
        Some(step) => roll(&path, step)?,
    };
    outln!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn default_file(common: &CommonOptions) -> PathBuf {
    let dir = common.native_dir();
    let plan = NativeFiles::read(&dir, None).and_then(|files| files.check().file.draft);
    dir.join(plan.map_or_else(|| KEY_FILE.into(), |plan| plan.local.key_file))
}

fn new_key() -> anyhow::Result<Vec<u8>> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).context("the system's random number generator failed")?;
    Ok(key.into())
}

fn file(keys: &[Vec<u8>]) -> String {
    let mut text =
        String::from("# The first key signs, all are accepted. Change them with `locum keygen --roll`.\n");
    for key in keys {
        for byte in key {
            let _ = write!(text, "{byte:02x}"); // writing into a String cannot fail
        }
        text.push('\n');
    }
    text
}

/// Writes a new file, readable only by its owner from the first moment.
fn make(path: &Path, text: &str) -> anyhow::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    let mut file = made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!(
            "{} exists already: to change the key of a running cluster use `locum keygen --roll add`; to begin anew \
             remove the file",
            path.display()
        ),
        _ => anyhow::Error::new(error).context(format!("{} cannot be created", path.display())),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("{} cannot be written", path.display()))
}

fn roll(path: &Path, step: RollStep) -> anyhow::Result<String> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let (keys, diags) = read_native_keys(dir, &path.file_name().unwrap_or_default().to_string_lossy());
    let Some(keys) = keys else {
        let said = diags.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        bail!("{}: {said}", path.display());
    };
    let keys = keys.all().iter().map(|key| key.secret.clone()).collect::<Vec<_>>();
    let (new, next) = match (step, keys.as_slice()) {
        (RollStep::Add, [old]) => (vec![old.clone(), new_key()?], "run `locum keygen --roll switch`"),
        (RollStep::Switch, [old, new]) => (vec![new.clone(), old.clone()], "run `locum keygen --roll drop`"),
        (RollStep::Drop, [new, _]) => (vec![new.clone()], "the roll-over is complete"),
        (RollStep::Add, _) => {
            bail!(
                "{} has two keys already: go on with `locum keygen --roll switch`, or `--roll drop` if that is done",
                path.display()
            )
        }
        (RollStep::Switch | RollStep::Drop, _) => {
            bail!("{} has one key: begin with `locum keygen --roll add`", path.display())
        }
    };
    write_atomically(path, file(&new).as_bytes(), MODE)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(format!(
        "{} is written. Copy it to all nodes, and to witnesses without a key of their own, and reload each daemon \
         (`systemctl reload locum`). After the last one, {next}.",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(Into::into).collect()
    }

    #[test]
    fn a_key_is_made_once_and_rolled_over_in_three_steps() {
        let dir = tempfile::tempdir().unwrap();
        let common = CommonOptions { config: Some(dir.path().into()), ..CommonOptions::default() };
        let step = |roll| run(&common, &KeygenOptions { file: None, roll });
        assert!(step(Some(RollStep::Add)).unwrap_err().to_string().contains("cannot be read"));
        step(None).unwrap();
        let path = dir.path().join("locum.key");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let [old] = <[String; 1]>::try_from(lines(&path)).unwrap();
        assert!(old.len() == 64 && old.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(step(None).unwrap_err().to_string().contains("exists already"));
        assert!(
            step(Some(RollStep::Switch))
                .unwrap_err()
                .to_string()
                .contains("begin with `locum keygen --roll add`")
        );
        step(Some(RollStep::Add)).unwrap();
        let [first, new] = <[String; 2]>::try_from(lines(&path)).unwrap();
        assert!(first == old && new != old);
        assert!(step(Some(RollStep::Add)).unwrap_err().to_string().contains("has two keys already"));
        step(Some(RollStep::Switch)).unwrap();
        assert_eq!(lines(&path), [new.clone(), old]);
        step(Some(RollStep::Drop)).unwrap();
        assert_eq!(lines(&path), [new]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn the_file_that_locum_toml_names_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("locum.toml"),
            "cluster = 'c'\nkey-file = 'other.key'\nnodes.a.links.x = 'lo'\nnodes.b.links.x = 'lo'\n\
             witnesses.w.address = '10.0.0.1'\n",
        )
        .unwrap();
        let common = CommonOptions { config: Some(dir.path().into()), ..CommonOptions::default() };
        assert_eq!(default_file(&common), dir.path().join("other.key"), "though this host is no member");
    }
}
