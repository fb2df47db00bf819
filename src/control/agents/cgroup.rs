//! A control group for each operation, if a service manager has delegated a part of the version 2 tree to the daemon.
//! It is the sure way to find every process that an operation has started, whatever the process did to hide.
//!
//! A service that a start script leaves running stays in the control group of that start, which is removed once it is
//! empty. A native cluster's services are kept by name instead: each resource has a control group below that of its
//! cluster group. So a resource that does not stop can be ended without touching the resources to the left of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The name prefix of the control groups of operations. Nothing else in the daemon's own group begins so.
const OPERATION: &str = "operation-";
/// The name prefix of the control groups of cluster groups.
const GROUP: &str = "group-";
/// Empty control groups are looked for at most this often: each look takes longer the more there are.
const TIDY_EVERY: Duration = Duration::from_millis(500);
/// Longest name of a control group that is made from a configured name, in bytes; the kernel takes 255.
const NAME_MAX: usize = 200;

/// The daemon's own control group, if the daemon may make groups in it. That holds only under a service manager, which
/// sets `NOTIFY_SOCKET`: elsewhere the control group belongs to a login session or to the whole machine.
///
/// # Errors
/// What is missing, and the cure.
pub fn delegated() -> Result<PathBuf, String> {
    let read = |path| fs::read_to_string(path).map_err(|fault| format!("{path}: {fault}"));
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return Err("no service manager runs the daemon; start it as a systemd service".to_owned());
    }
    let own = own_path(&read("/proc/self/cgroup")?).ok_or(
        "no part of the version 2 tree is delegated to the daemon; set Delegate=yes in its systemd unit",
    )?;
    let group = mounted(&read("/proc/self/mountinfo")?, &own)
        .ok_or("no version 2 tree is mounted that holds the daemon; mount one of the type cgroup2")?;
    rustix::fs::access(&group, rustix::fs::Access::WRITE_OK).map_err(|fault| {
        format!(
            "{} cannot be written: {fault}; set Delegate=yes in the daemon's systemd unit",
            group.display()
        )
    })?;
    if !group.join("cgroup.procs").is_file() {
        return Err(format!("{} is not a control group", group.display()));
    }
    Ok(group)
}

/// The version 2 line of `/proc/self/cgroup`.
fn own_path(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.is_empty() && !path.starts_with("..")).then(|| Path::new("/").join(path))
}

/// The path of the control group in the file system.
fn mounted(mountinfo: &str, own: &Path) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        if right.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut words = left.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        Some(Path::new(point).join(own.strip_prefix(root).ok()?))
    })
}

/// The control groups that operations of this daemon use, and the number of users of each. A new group is empty until
/// the operation's process has moved in, so an empty group may still be in use. This lock is held while a group is
/// made, removed or given up.
static IN_USE: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

fn in_use() -> MutexGuard<'static, BTreeMap<PathBuf, usize>> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the control groups whose services have ended since. Does nothing within [`TIDY_EVERY`] of the last time.
/// Blocks.
pub(super) fn tidy(parent: &Path) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < TIDY_EVERY) {
            return;
        }
        *last = Some(Instant::now());
    }
    tidy_now(parent);
}

/// Removes the control groups whose services have ended, however recently that was done last. Blocks.
pub fn tidy_now(parent: &Path) {
    let Ok(entries) = parent.read_dir() else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(GROUP) {
            let members = entry.path().read_dir().into_iter().flatten().flatten();
            members.for_each(|member| remove_if_unused(&member.path()));
        }
        if name.starts_with(OPERATION) || name.starts_with(GROUP) {
            remove_if_unused(&entry.path());
        }
    }
}

/// Removes a control group that no operation uses. The kernel refuses while a process is in it or below it.
fn remove_if_unused(path: &Path) {
    let used = in_use();
    if !used.contains_key(path) {
        let _ = fs::remove_dir(path);
    }
}

/// A configured name as the name of a directory.
fn plain(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes().take(NAME_MAX / 3) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

/// The control group of one operation, or of what one resource has started. It is not removed while a value of this
/// type exists; dropping the last one removes it if it is empty.
#[derive(Debug)]
pub(super) struct Scope(PathBuf);

impl Scope {
    /// Makes the control group of an operation.
    pub(super) fn new(parent: &Path, mark: &str) -> io::Result<Self> {
        Self::of(parent, mark).make()
    }

    /// The control group that an operation of an earlier daemon may have.
    pub(super) fn of(parent: &Path, mark: &str) -> Self {
        Self::at(parent.join(format!("{OPERATION}{mark}")))
    }

    /// The control group of what a resource's starts have left running.
    pub(super) fn of_resource(parent: &Path, group: &str, resource: &str) -> Self {
        Self::at(parent.join(format!("{GROUP}{}", plain(group))).join(plain(resource)))
    }

    fn at(path: PathBuf) -> Self {
        *in_use().entry(path.clone()).or_default() += 1;
        Self(path)
    }

    /// Makes the control group if it does not exist. Its parents cannot be removed meanwhile.
    pub(super) fn make(self) -> io::Result<Self> {
        let used = in_use();
        let made = fs::create_dir_all(&self.0);
        drop(used);
        made.map(|()| self)
    }

    /// All processes in it and below it, without those that are dead and not yet waited for.
    pub(super) fn processes(&self) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut left = vec![self.0.clone()];
        while let Some(path) = left.pop() {
            let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            let below = path.read_dir().into_iter().flatten().flatten();
            left.extend(below.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        found
    }

    /// The file by which the child moves itself into the control group.
    pub(super) fn procs(&self) -> io::Result<OwnedFd> {
        Ok(fs::OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))?.into())
    }

    /// Kills every process in it. Kernels before 5.14 cannot do that.
    pub(super) fn kill(&self) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(self.0.join("cgroup.kill")).and_then(|mut file| {
            use io::Write as _;
            file.write_all(b"1")
        })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let mut used = in_use();
        let left = used.get_mut(&self.0).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            used.remove(&self.0);
            let _ = fs::remove_dir(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_wherever_the_tree_is_mounted() {
        let own = own_path("9:name=systemd:/\n4:memory:/x\n0::/system.slice/locum.service\n").unwrap();
        let mounts = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      40 30 0:35 / /sys/fs/cgroup/unified rw,relatime shared:1 - cgroup2 cgroup2 rw\n";
        let path = mounted(mounts, &own).unwrap();
        assert_eq!(path, Path::new("/sys/fs/cgroup/unified/system.slice/locum.service"));
        let part = "40 30 0:35 /system.slice /mnt rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(part, &own), Some(PathBuf::from("/mnt/locum.service")));
        assert_eq!(mounted("", &own), None);
    }

    #[test]
    fn whatever_a_resource_is_called_its_group_is_one_directory() {
        assert_eq!(plain("IPaddr::10.0.0.1/24"), "IPaddr%3a%3a10%2e0%2e0%2e1%2f24");
        assert_eq!(plain(".."), "%2e%2e");
        assert!(plain(&"/".repeat(1000)).len() <= NAME_MAX);
        let scope = Scope::of_resource(Path::new("/x"), "web", "a/../b");
        assert_eq!(scope.0, Path::new("/x/group-web/a%2f%2e%2e%2fb"));
    }

    #[test]
    fn the_root_and_what_lies_outside_are_not_ours() {
        assert_eq!(own_path("0::/\n"), None);
        assert_eq!(own_path("0::/../other\n"), None);
        assert_eq!(own_path("1:cpu:/x\n"), None);
    }
}
