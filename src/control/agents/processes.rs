//! Finds processes in `/proc` and signals them, but never a number that meanwhile belongs to another process: a process
//! is first held by a handle, then checked again, then signalled.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use locum_core::model::note::Escaped;
use locum_sys::{
    clock::monotonic_nanos,
    process::{Process, kill_tree},
};

/// The variable that marks every process that an operation has started, however far it has gone from its parents.
pub(super) const MARK: &str = "LOCUM_OPERATION";

/// If a look at all processes takes longer, it waits for one that hangs.
const LOOK_MAX_NANOS: u64 = 5_000_000_000;

/// The variable that marks every process that a resource's start has left running.
pub(super) const KIN: &str = "LOCUM_RESOURCE";

/// Kills every process of an operation that can be found now: the script with its group and descendants, and all that
/// carry its mark in their first environment. Returns how many carried the mark.
///
/// The caller has not yet waited for the script itself, so its number still belongs to it.
pub(super) fn kill_operation(leader: u32, mark: &str) -> usize {
    // An error means that some are gone already. Those that are left are found by the mark.
    let _ = kill_tree(leader);
    signal_where(Process::kill, |process| carries(process, mark))
}

/// The same for a script that is not our child. Its number may pass to another process meanwhile, so its descendants
/// are only touched while it carries the mark.
pub(super) fn kill_marked(leader: u32, mark: &str) -> usize {
    if has_mark(leader, mark) {
        return kill_operation(leader, mark);
    }
    signal_where(Process::kill, |process| carries(process, mark))
}

/// Whether a living process was started by this operation.
pub(super) fn has_mark(pid: u32, mark: &str) -> bool {
    carries(&directory_of(pid), mark)
}

fn carries(process: &Path, mark: &str) -> bool {
    is_set(process, MARK, mark)
}

/// Whether a living process was started with this in its environment.
fn is_set(process: &Path, name: &str, value: &str) -> bool {
    let entry = format!("{name}={value}");
    fs::read(process.join("environ"))
        .is_ok_and(|text| text.split(|&byte| byte == 0).any(|word| word == entry.as_bytes()))
}

/// Signals every living process for which the test holds, given its directory in `/proc`, except ourselves and process
/// 1. Returns how many there were.
pub(super) fn signal_where(signal: fn(&Process) -> io::Result<()>, test: impl Fn(&Path) -> bool) -> usize {
    let mut count = 0;
    for pid in all() {
        let directory = directory_of(pid);
        if pid != std::process::id() && pid != 1 && test(&directory) {
            // While it is held its number cannot pass to another process, so the second look is final.
            let signalled =
                Process::open(pid).and_then(|held| if test(&directory) { signal(&held) } else { Ok(()) });
            count += usize::from(signalled.is_ok());
        }
    }
    count
}

/// Whether a start of this resource left the process running.
pub(super) fn is_kin(pid: u32, mark: &str) -> bool {
    is_set(&directory_of(pid), KIN, mark)
}

/// The marks of all starts of which a process runs now, or `None` if that cannot be known because a process that is
/// looked at hangs. Thousands of simultaneous callers share one look at all processes, which has begun after they
/// asked.
pub(super) fn kin() -> Option<Arc<BTreeSet<String>>> {
    static LAST: Mutex<Option<(u64, Arc<BTreeSet<String>>)>> = Mutex::new(None);
    /// When the look under way began; 0 if none is.
    static SINCE: AtomicU64 = AtomicU64::new(0);
    let asked = monotonic_nanos();
    let since = SINCE.load(Ordering::Relaxed);
    if since != 0 && asked.saturating_sub(since) > LOOK_MAX_NANOS {
        return None;
    }
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, found)) = &*last
        && *at >= asked
    {
        return Some(Arc::clone(found));
    }
    let begin = monotonic_nanos();
    SINCE.store(begin, Ordering::Relaxed);
    let found = Arc::new(all().into_iter().filter_map(kin_of).collect());
    SINCE.store(0, Ordering::Relaxed);
    *last = Some((begin, Arc::clone(&found)));
    Some(found)
}

fn kin_of(pid: u32) -> Option<String> {
    let text = fs::read(directory_of(pid).join("environ")).ok()?;
    let entry = |word: &[u8]| Some(word.strip_prefix(KIN.as_bytes())?.strip_prefix(b"=")?.to_vec());
    let found = text.split(|&byte| byte == 0).find_map(entry)?;
    Some(String::from_utf8_lossy(&found).into_owned())
}

/// The process's name and number, for messages.
pub(super) fn describe(pid: u32) -> String {
    let name = fs::read(directory_of(pid).join("comm")).unwrap_or_default();
    format!("{} (process {pid})", Escaped(name.trim_ascii_end()))
}

/// The numbers of all processes.
pub(super) fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn directory_of(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Whether the living process uses something at or below the directory: as working or root directory, as program, or as
/// an open or mapped file.
pub(super) fn uses(process: &Path, directory: &Path) -> bool {
    let points_in = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(directory));
    if ["cwd", "root", "exe"].iter().any(|name| points_in(process.join(name))) {
        return true;
    }
    if let Ok(entries) = process.join("fd").read_dir()
        && entries.flatten().any(|entry| points_in(entry.path()))
    {
        return true;
    }
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    maps.lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .any(|path| Path::new(path).starts_with(directory))
}

/// The processes for which the test holds, each by name and number for messages.
pub(super) fn describe_where(test: impl Fn(&Path) -> bool) -> Vec<String> {
    all().into_iter().filter(|&pid| test(&directory_of(pid))).map(describe).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn users_of_a_directory_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let mut child = Command::new("sleep").arg("60").current_dir(&path).spawn().unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        assert!(uses(&process, &path));
        assert!(!uses(&process, &path.join("below")));
        let found = describe_where(|process| uses(process, &path));
        assert_eq!(found, [format!("sleep (process {})", child.id())]);
        assert_eq!(signal_where(Process::kill, |process| uses(process, &path)), 1);
        child.wait().unwrap();
        assert!(!uses(&process, &path));
    }
}
