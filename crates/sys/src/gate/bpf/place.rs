//! Where gates are pinned: `locum/CLUSTER/GROUP` below a bpf file system, and what judges for all of them in
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
use crate::gate::{Name, ROOT, hook::Hook, said};

/// A gate's directory.
#[derive(Clone, Debug)]
pub(super) struct Place {
    bpffs: PathBuf,
    directory: PathBuf,
}

impl Place {
    pub(super) fn of(bpffs: &Path, name: &Name) -> Self {
        Self { bpffs: bpffs.into(), directory: bpffs.join(name.path()) }
    }

    /// Of what judges for all groups of the same cluster.
    pub(super) fn of_judge(bpffs: &Path, name: &Name) -> Self {
        Self::of(bpffs, &name.judges())
    }

    /// All clusters of which something is pinned, each by the name of its judge.
    pub(super) fn clusters(bpffs: &Path) -> io::Result<Vec<Name>> {
        let mut all: Vec<_> =
            names(&bpffs.join(ROOT))?.iter().filter_map(|cluster| Name::of_judge(cluster)).collect();
        all.sort();
        Ok(all)
    }

    /// All gates of the same cluster that are pinned.
    pub(super) fn gates(bpffs: &Path, name: &Name) -> io::Result<Vec<Name>> {
        let judge = name.judges();
        let cluster = Self::of(bpffs, &judge).directory;
        let groups = names(cluster.parent().unwrap_or(bpffs))?;
        let mut all: Vec<_> = groups.iter().filter_map(|group| judge.beside(group)).collect();
        all.sort();
        Ok(all)
    }

    pub(super) fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    pub(super) fn make(&self) -> io::Result<()> {
        // The daemon of another cluster may take an upper directory away, empty as it was, just before ours is in it.
        const TRIES: usize = 10;
        let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        let mut made = make();
        for _ in 1..TRIES {
            match &made {
                Err(error) if error.kind() == io::ErrorKind::NotFound => made = make(),
                _ => break,
            }
        }
        made.map_err(|error| self.said(error))
    }

    pub(super) fn path(&self, pin: &str) -> PathBuf {
        self.directory.join(pin)
    }

    /// The hooks that are pinned.
    pub(super) fn hooks(&self) -> io::Result<Vec<Hook>> {
        Ok(names(&self.directory)?.iter().filter_map(|name| Hook::parse(name)).collect())
    }

    /// The slot that is the gate's.
    pub(super) fn slot(&self) -> io::Result<Option<Slot>> {
        Ok(names(&self.directory)?.iter().find_map(|name| Slot::parse(name)))
    }

    /// Takes away all pins but this one.
    pub(super) fn keep_only(&self, pin: &str) -> io::Result<()> {
        names(&self.directory)?.iter().filter(|name| *name != pin).try_for_each(|name| self.unpin(name))
    }

    /// Takes away one pin; one that is not there is away already. A link is off its interface when this returns.
    pub(super) fn unpin(&self, pin: &str) -> io::Result<()> {
        if let (Some(_), Ok(Some(link))) = (Hook::parse(pin), self.get(pin)) {
            // Refused if its interface has gone, and it was off before.
            let _ = syscall::detach(&link);
        }
        match fs::remove_file(self.path(pin)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.said(error)),
            _ => Ok(()),
        }
    }

    /// Takes away all pins, the hooks last, and the directories that are empty then.
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
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.said(error)),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn said(&self, error: io::Error) -> io::Error {
        said(&error, &format!("{}", self.directory.display()))
    }

    /// The object pinned there; `None` when there is none.
    pub(super) fn get(&self, pin: &str) -> io::Result<Option<OwnedFd>> {
        match syscall::get(&self.path(pin)) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.said(error)),
        }
    }
}

/// The names in a directory; none when it does not exist.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(said(&error, &format!("{}", directory.display()))),
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// Where the calling thread sees a bpf file system: the customary place, else the first there is. One that another mount
/// covers does not count.
///
/// # Errors
/// The mount table cannot be read.
pub fn find_bpffs() -> io::Result<Option<PathBuf>> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let mut places: Vec<_> = table.lines().filter_map(bpf_mount).filter(|place| is_bpffs(place)).collect();
    places.sort_by_key(|place| place != Path::new(CUSTOMARY));
    Ok(places.into_iter().next())
}

/// Whether a look at this path ends in a bpf file system, and not in what was mounted over it (statfs(2)).
fn is_bpffs(place: &Path) -> bool {
    // `BPF_FS_MAGIC` of linux/magic.h.
    rustix::fs::statfs(place).is_ok_and(|found| found.f_type == 0xcafe_4a11)
}

/// Whether nothing can be pinned there: a sandbox, such as `ProtectKernelTunables=` of systemd, shows it read-only.
pub(in crate::gate) fn is_read_only(place: &Path) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Where systemd and others mount it.
pub const CUSTOMARY: &str = "/sys/fs/bpf";

/// Where a bpf file system is mounted; if there is none, one is mounted at `directory`, which is made if it is not
/// there.
///
/// # Errors
/// What the kernel says: `EPERM` without the right to mount.
pub fn ensure_bpffs(directory: &Path) -> io::Result<PathBuf> {
    if let Some(place) = find_bpffs()? {
        return Ok(place);
    }
    let doing = |error| said(&error, &format!("mount a bpf file system at {}", directory.display()));
    fs::create_dir_all(directory).map_err(doing)?;
    crate::mount::bpf(directory).map_err(doing)?;
    Ok(directory.into())
}

/// The place of a mount of type `bpf` from a line of `mountinfo` (proc_pid_mountinfo(5)).
fn bpf_mount(line: &str) -> Option<PathBuf> {
    let (mount, rest) = line.split_once(" - ")?;
    let kind = rest.split(' ').next()?;
    let place = mount.split(' ').nth(4)?;
    (kind == "bpf").then(|| plain(place))
}

/// Blanks and the like are written as a backslash and three octal digits.
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
