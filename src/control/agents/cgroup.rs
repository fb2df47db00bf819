//! A control group for each operation, where a service manager has given the daemon a part of the version 2 tree: the
//! sure way to find every process that an operation has started, whatever it did to hide.
//!
//! A service that a start script leaves running stays in the group of that start, which is removed once it is empty.

use std::{
    env, fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Our groups' names begin with this; nothing else in the daemon's own group does.
const PREFIX: &str = "operation-";

/// The daemon's own control group, if it may make groups in it: only under a service manager (which sets
/// `NOTIFY_SOCKET`), because elsewhere the group belongs to somebody's login session or to the whole machine.
#[must_use]
pub fn delegated() -> Option<PathBuf> {
    env::var_os("NOTIFY_SOCKET")?;
    let own = own_path(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    let group = mounted(&fs::read_to_string("/proc/self/mountinfo").ok()?, &own)?;
    rustix::fs::access(&group, rustix::fs::Access::WRITE_OK).ok()?;
    group.join("cgroup.procs").is_file().then_some(group)
}

/// The version 2 line of `/proc/self/cgroup`.
fn own_path(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.is_empty() && !path.starts_with("..")).then(|| Path::new("/").join(path))
}

/// Where the group is in the file system.
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

/// Removes the groups whose services have ended since.
pub(super) fn tidy(parent: &Path) {
    let Ok(entries) = parent.read_dir() else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // Refused while there is somebody in it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The group of one operation.
#[derive(Debug)]
pub(super) struct Scope(PathBuf);

impl Scope {
    pub(super) fn new(parent: &Path, mark: &str) -> io::Result<Self> {
        let scope = Self::of(parent, mark);
        fs::create_dir(&scope.0)?;
        Ok(scope)
    }

    /// The group that an operation of an earlier life may have.
    pub(super) fn of(parent: &Path, mark: &str) -> Self {
        Self(parent.join(format!("{PREFIX}{mark}")))
    }

    /// For the child, which moves itself in.
    pub(super) fn procs(&self) -> io::Result<OwnedFd> {
        Ok(fs::OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))?.into())
    }

    /// Kills everything in it. Kernels before 5.14 cannot.
    pub(super) fn kill(&self) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(self.0.join("cgroup.kill")).and_then(|mut file| {
            use io::Write as _;
            file.write_all(b"1")
        })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
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
    fn the_root_and_what_lies_outside_are_not_ours() {
        assert_eq!(own_path("0::/\n"), None);
        assert_eq!(own_path("0::/../other\n"), None);
        assert_eq!(own_path("1:cpu:/x\n"), None);
    }
}
