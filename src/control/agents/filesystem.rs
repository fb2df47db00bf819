//! `Filesystem::DEVICE::DIRECTORY[::TYPE[::OPTIONS]]`: mounted by the system's mount program. It is unmounted even when
//! processes still use it: they are named in the log, asked to end, then killed. It is never unmounted lazily: the file
//! system would then stay in use here while the other node mounts it.

use std::{
    fs,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use locum_core::model::{action::Operation, event::Outcome, note::Level};
use locum_sys::process::Process;
use tokio::time::{Instant, sleep};

use super::{
    AgentOperation,
    job::{ProgramEnd, ProgramReport},
    processes,
};
use crate::control::errands::spawn_blocking;

pub(super) async fn run(
    errand: &AgentOperation<'_>,
    device: &str,
    directory: &str,
    kind: Option<&str>,
    options: Option<&str>,
) -> Outcome {
    if !directory.starts_with('/') {
        return errand.bad(format!("`{directory}` is not an absolute path"));
    }
    let mounts = match mounts().await {
        Ok(mounts) => mounts,
        Err(reason) => return errand.bad(reason),
    };
    let directory = plain(directory);
    let mounted = mounts.iter().rev().find(|mount| mount.directory == directory);
    match (errand.operation, mounted) {
        (Operation::Status, None) => Outcome::Stopped,
        (Operation::Stop | Operation::Terminate | Operation::Kill, None) => Outcome::Ok,
        (Operation::Start, None) => mount(errand, device, &directory, kind, options).await,
        (operation, Some(mount)) => {
            let (source, wanted) = (mount.clone(), device.to_owned());
            let same = match errand.call(move || source.may_be(&wanted)).await {
                Ok(same) => same,
                Err(outcome) => return outcome,
            };
            if !same {
                let reason =
                    format!("{} holds a mount of {}, not of {device}", directory.display(), mount.source);
                // A file system that we did not mount must not be unmounted by us.
                return if operation == Operation::Start {
                    errand.bad(reason)
                } else {
                    not_ours(errand, reason)
                };
            }
            match operation {
                Operation::Status => Outcome::Running,
                Operation::Start => Outcome::Ok,
                Operation::Stop | Operation::Terminate | Operation::Kill => unmount(errand, &directory).await,
            }
        }
    }
}

/// The outcome if another file system is mounted there instead of ours.
fn not_ours(errand: &AgentOperation<'_>, reason: String) -> Outcome {
    errand.speaker().say(Level::Warning, reason);
    if errand.operation == Operation::Status { Outcome::Stopped } else { Outcome::Ok }
}

async fn mount(
    errand: &AgentOperation<'_>,
    device: &str,
    directory: &Path,
    kind: Option<&str>,
    options: Option<&str>,
) -> Outcome {
    let program = match errand.program("mount") {
        Ok(program) => program,
        Err(outcome) => return outcome,
    };
    let mut args = Vec::new();
    for (flag, value) in [("-t", kind), ("-o", options)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            args.extend([flag.to_owned(), value.to_owned()]);
        }
    }
    // `-Llabel` and `-Uuuid` are flags of mount, as in the original. No other device may begin with a dash.
    if device.starts_with("-L") || device.starts_with("-U") {
        args.push(device.to_owned());
        args.extend(["--".to_owned(), directory.display().to_string()]);
    } else {
        args.extend(["--".to_owned(), device.to_owned(), directory.display().to_string()]);
    }
    let report = errand.job(&program, args).run().await;
    let outcome = errand.by_exit_code(&report);
    if outcome == Outcome::Ok && is_hidden(directory).await {
        let text = format!(
            "{} is mounted only for this daemon and its children, so systemd units see the directory below it: the \
             daemon has its own mount namespace; remove the setting that makes it from the daemon's unit, such as \
             ProtectSystem= or PrivateTmp=",
            directory.display()
        );
        errand.speaker().say(Level::Warning, text);
    }
    outcome
}

/// Whether the mount is hidden from the machine's first process. If that cannot be known, it is not.
async fn is_hidden(directory: &Path) -> bool {
    let first = spawn_blocking(|| fs::read("/proc/1/mountinfo")).await;
    let (Ok(Ok(first)), Ok(ours)) = (first, mounts().await) else { return false };
    let has = |mounts: &[Mount]| mounts.iter().any(|mount| mount.directory == directory);
    has(&ours) && !has(&parse(&first))
}

/// Unmounts everything on and below the directory, the newest first. Processes that use it are asked to end, then
/// killed.
async fn unmount(errand: &AgentOperation<'_>, directory: &Path) -> Outcome {
    const TRIES_MAX: usize = 8;
    const PAUSE: Duration = Duration::from_secs(1);
    let program = match errand.program("umount") {
        Ok(program) => program,
        Err(outcome) => return outcome,
    };
    let mut last = String::new();
    for attempt in 0..TRIES_MAX {
        match unmount_once(errand, &program, directory).await {
            Ok(()) => return Outcome::Ok,
            Err(ProgramReport { end: ProgramEnd::TimedOut, .. }) => return Outcome::TimedOut,
            Err(report) => last = report.complaint(),
        }
        let users = match users(errand, directory).await {
            Ok(users) => users,
            Err(outcome) => return outcome,
        };
        if !users.is_empty() {
            last = format!("{} is used by {}", directory.display(), users.join(", "));
            // They are asked to end first. After three seconds they are killed.
            let (signal, how): (fn(&Process) -> _, _) =
                if attempt < 3 { (Process::terminate, "asked to end") } else { (Process::kill, "killed") };
            if attempt == 0 || attempt == 3 {
                errand.speaker().say(Level::Warning, format!("{last}: {how}"));
            }
            let place = directory.to_path_buf();
            let signalling = errand.call(move || {
                processes::signal_where(signal, |process| processes::uses(process, &place));
            });
            if let Err(outcome) = signalling.await {
                return outcome;
            }
        }
        if Instant::now() + PAUSE >= errand.deadline {
            return Outcome::TimedOut;
        }
        sleep(PAUSE).await;
    }
    Outcome::Failed(last)
}

async fn users(errand: &AgentOperation<'_>, directory: &Path) -> Result<Vec<String>, Outcome> {
    let place = directory.to_path_buf();
    errand.call(move || processes::describe_where(|process| processes::uses(process, &place))).await
}

async fn unmount_once(
    errand: &AgentOperation<'_>,
    program: &Path,
    directory: &Path,
) -> Result<(), ProgramReport> {
    let mounts = mounts().await.unwrap_or_default();
    for mount in mounts.iter().rev().filter(|mount| mount.directory.starts_with(directory)) {
        let report = errand.job(program, ["--", &mount.directory.display().to_string()]).run().await;
        if report.end != ProgramEnd::Exited(0) {
            return Err(report);
        }
    }
    Ok(())
}

/// One mount: a line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// `major:minor` of the device of its files.
    numbers: String,
    directory: PathBuf,
    source: String,
}

impl Mount {
    /// Whether the mount may be of this device: false only when it surely is another one.
    fn may_be(&self, device: &str) -> bool {
        let same_file = |device: &str| match (fs::canonicalize(device), fs::canonicalize(&self.source)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        };
        // Only mount knows which device a label, a UUID, a network share or a keyword stands for.
        if !device.starts_with("/dev/") || !self.source.starts_with("/dev/") {
            return true;
        }
        let numbers = fs::metadata(device).map(|data| {
            let id = data.rdev();
            format!("{}:{}", rustix::fs::major(id), rustix::fs::minor(id))
        });
        device == self.source || same_file(device) || numbers.is_ok_and(|numbers| numbers == self.numbers)
    }
}

async fn mounts() -> Result<Vec<Mount>, String> {
    let read = spawn_blocking(|| fs::read("/proc/self/mountinfo")).await;
    match read {
        Ok(Ok(text)) => Ok(parse(&text)),
        Ok(Err(fault)) => Err(format!("/proc/self/mountinfo: {fault}")),
        Err(fault) => Err(fault.to_string()),
    }
}

/// In the order of the file, which is the order of mounting.
fn parse(text: &[u8]) -> Vec<Mount> {
    let line = |line: &[u8]| -> Option<Mount> {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = words.iter().position(|&word| word == b"-")?;
        Some(Mount {
            numbers: String::from_utf8_lossy(words.get(2)?).into_owned(),
            directory: PathBuf::from(std::ffi::OsString::from_vec(unescape(words.get(4)?))),
            source: String::from_utf8_lossy(&unescape(words.get(dash + 2)?)).into_owned(),
        })
    };
    text.split(|&byte| byte == b'\n').filter_map(line).collect()
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) if byte == b'\\' => {
                plain.push(code);
                rest = &after[3..];
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

/// Without doubled or trailing slashes, as the kernel shows it.
fn plain(directory: &str) -> PathBuf {
    Path::new(directory).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_whatever_the_names() {
        let text = b"24 1 254:0 / / rw,noatime - ext4 /dev/vda rw\n\
                     61 24 0:50 / /srv/a\\040b\\134c rw shared:3 master:1 - tmpfs none rw,size=1k\n\
                     garbage\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].source, "/dev/vda");
        assert_eq!(mounts[1].directory, Path::new("/srv/a b\\c"));
        assert_eq!(mounts[1].numbers, "0:50");
        assert_eq!(plain("//srv///x/"), Path::new("/srv/x"));
    }

    #[test]
    fn only_another_device_is_another_device() {
        let mount =
            |source: &str| Mount { numbers: "9:9".into(), directory: "/x".into(), source: source.into() };
        assert!(!mount("/dev/null").may_be("/dev/zero"));
        assert!(mount("/dev/null").may_be("/dev/null"));
        assert!(mount("/dev/sda1").may_be("LABEL=data"));
        assert!(mount("tmpfs").may_be("none"));
        let zero = Mount { numbers: "1:5".into(), ..mount("/dev/other") };
        assert!(zero.may_be("/dev/zero"));
    }
}
