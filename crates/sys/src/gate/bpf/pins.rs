//! Where gates are pinned: `locum/CLUSTER/GROUP` below a bpf file system, and the packet filter of all of them in
//! `locum/CLUSTER/_judge`.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt as _, fs::DirBuilderExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::StatVfsMountFlags;

use super::{state::Slot, syscall};
use crate::gate::{GateName, ROOT, hook::Hook, with_context};

/// The directory with the pins of one gate or packet filter.
#[derive(Clone, Debug)]
pub(super) struct PinDirectory {
    bpffs: PathBuf,
    directory: PathBuf,
}

impl PinDirectory {
    pub(super) fn of(bpffs: &Path, name: &GateName) -> Self {
        Self { bpffs: bpffs.into(), directory: bpffs.join(name.path()) }
    }

    /// The directory of the packet filter of the same cluster.
    pub(super) fn of_packet_filter(bpffs: &Path, name: &GateName) -> Self {
        Self::of(bpffs, &name.packet_filter())
    }

    /// All clusters with anything pinned, each by the name of its packet filter.
    pub(super) fn clusters(bpffs: &Path) -> io::Result<Vec<GateName>> {
        let mut all: Vec<_> = names(&bpffs.join(ROOT))?
            .iter()
            .filter_map(|cluster| GateName::packet_filter_of(cluster))
            .collect();
        all.sort();
        Ok(all)
    }

    /// All gates of the same cluster that are pinned.
    pub(super) fn gates(bpffs: &Path, name: &GateName) -> io::Result<Vec<GateName>> {
        let filter = name.packet_filter();
        let cluster = Self::of(bpffs, &filter).directory;
        let groups = names(cluster.parent().unwrap_or(bpffs))?;
        let mut all: Vec<_> = groups.iter().filter_map(|group| filter.sibling(group)).collect();
        all.sort();
        Ok(all)
    }

    pub(super) fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    pub(super) fn make(&self) -> io::Result<()> {
        // The daemon of another cluster may remove an upper directory while it is empty, just before ours is made in
        // it.
        const TRIES: usize = 10;
        let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        let mut made = make();
        for _ in 1..TRIES {
            match &made {
                Err(error) if error.kind() == io::ErrorKind::NotFound => made = make(),
                _ => break,
            }
        }
        made.map_err(|error| self.with_context(error))
    }

    pub(super) fn path(&self, pin: &str) -> PathBuf {
        self.directory.join(pin)
    }

    /// The hooks that are pinned.
    pub(super) fn hooks(&self) -> io::Result<Vec<Hook>> {
        Ok(names(&self.directory)?.iter().filter_map(|name| Hook::parse(name)).collect())
    }

    /// The slot of this gate, by its pin.
    pub(super) fn slot(&self) -> io::Result<Option<Slot>> {
        Ok(names(&self.directory)?.iter().find_map(|name| Slot::parse(name)))
    }

    /// Removes all pins but this one.
    pub(super) fn keep_only(&self, pin: &str) -> io::Result<()> {
        names(&self.directory)?.iter().filter(|name| *name != pin).try_for_each(|name| self.unpin(name))
    }

    /// Removes one pin, if it exists. A link is off its interface when this returns.
    pub(super) fn unpin(&self, pin: &str) -> io::Result<()> {
        if let (Some(_), Ok(Some(link))) = (Hook::parse(pin), self.get(pin)) {
            // Refused if its interface has gone; then the link was off already.
            let _ = syscall::detach(&link);
        }
        match fs::remove_file(self.path(pin)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.with_context(error)),
            _ => Ok(()),
        }
    }

    /// Removes all pins, the hooks last, and then the directories that are empty.
    pub(super) fn remove(&self) -> io::Result<()> {
        let mut pins = names(&self.directory)?;
        pins.sort_by_key(|pin| Hook::parse(pin).is_some());
        for pin in pins {
            self.unpin(&pin)?;
        }
        for directory in self.directory.ancestors().take_while(|ancestor| *ancestor != self.bpffs) {
            match fs::remove_dir(directory) {
                // Other gates are there.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => break,
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.with_context(error)),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn with_context(&self, error: io::Error) -> io::Error {
        with_context(&error, &format!("{}", self.directory.display()))
    }

    /// The object with that pin; `None` if there is none.
    pub(super) fn get(&self, pin: &str) -> io::Result<Option<OwnedFd>> {
        match syscall::get(&self.path(pin)) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.with_context(error)),
        }
    }
}

/// The names in a directory; empty if it does not exist.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(with_context(&error, &format!("{}", directory.display()))),
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// Finds the bpf file system that the calling thread sees: the one at the customary path, else the first in the mount
/// table. A mount that another one covers does not count.
///
/// # Errors
/// The mount table cannot be read.
pub fn find_bpffs() -> io::Result<Option<PathBuf>> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let mut mount_points: Vec<_> =
        table.lines().filter_map(bpf_mount).filter(|place| is_bpffs(place)).collect();
    mount_points.sort_by_key(|place| place != Path::new(CUSTOMARY_MOUNT_POINT));
    Ok(mount_points.into_iter().next())
}

/// Whether this path leads into a bpf file system, and not into a mount over it (statfs(2)).
fn is_bpffs(place: &Path) -> bool {
    // `BPF_FS_MAGIC` of linux/magic.h.
    rustix::fs::statfs(place).is_ok_and(|found| found.f_type == 0xcafe_4a11)
}

/// Whether pinning is impossible there because the file system is read-only, as in a sandbox such as systemd's
/// `ProtectKernelTunables=`.
pub(in crate::gate) fn is_read_only(place: &Path) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// The customary mount point, used by systemd and others.
pub const CUSTOMARY_MOUNT_POINT: &str = "/sys/fs/bpf";

/// Finds a mounted bpf file system. If there is none, mounts one at `directory`, which is made if it does not exist.
///
/// # Errors
/// The kernel's error: `EPERM` without the right to mount.
pub fn ensure_bpffs(directory: &Path) -> io::Result<PathBuf> {
    if let Some(mount_point) = find_bpffs()? {
        return Ok(mount_point);
    }
    let doing = |error| with_context(&error, &format!("mount a bpf file system at {}", directory.display()));
    fs::create_dir_all(directory).map_err(doing)?;
    crate::mount::bpf(directory).map_err(doing)?;
    Ok(directory.into())
}

/// The mount point in a line of `mountinfo` (proc_pid_mountinfo(5)), if the mount is of type `bpf`.
fn bpf_mount(line: &str) -> Option<PathBuf> {
    let (mount, rest) = line.split_once(" - ")?;
    let kind = rest.split(' ').next()?;
    let mount_point = mount.split(' ').nth(4)?;
    (kind == "bpf").then(|| plain(mount_point))
}

/// Decodes the table's escapes: blanks and the like are a backslash and three octal digits.
fn plain(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let octal = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_as_it_is_written() {
        let line = "36 35 0:31 / /sys/fs/bpf rw,nosuid shared:10 - bpf bpf rw,mode=700";
        assert_eq!(bpf_mount(line), Some("/sys/fs/bpf".into()));
        let blank = r"36 35 0:31 / /a\040b\134c\0 rw - bpf none rw";
        assert_eq!(bpf_mount(blank), Some(r"/a b\c\0".into()));
        for other in ["", " - ", "36 35 0:31 / /x rw - tmpfs bpf rw", "a b - bpf"] {
            assert_eq!(bpf_mount(other), None, "{other}");
        }
    }
}
