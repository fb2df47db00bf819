//! Files that are replaced as a whole, and directories that only one process may use.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Locks a directory for this process as long as the returned file is open; `None` if another process holds the lock.
/// The lock is the kernel's: it ends with the process, however that ends, and leaves no file behind.
///
/// # Errors
/// The kernel's error when opening or locking the directory.
pub fn lock_directory(directory: &Path) -> io::Result<Option<File>> {
    let handle = File::open(directory)?;
    match handle.try_lock() {
        Ok(()) => Ok(Some(handle)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Writes a file so that after a crash or a power failure it has either the old or the new content, complete. `mode` is
/// its permissions. Returns when the new content is on the disk.
///
/// # Errors
/// The kernel's error; the old file is then unchanged.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file");
    let name = path.file_name().ok_or_else(invalid)?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut next_name = std::ffi::OsString::from(".");
    next_name.push(name);
    next_name.push(".new");
    let next = directory.join(next_name);
    // A leftover of a crash may have other permissions; a new file gets ours.
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&next)?;
        file.write_all(bytes)?;
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
        // fsync, not fdatasync: the permissions count, too.
        file.sync_all()?;
        std::fs::rename(&next, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&next);
        return written;
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_lock_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock_directory(directory.path()).unwrap().expect("free");
        assert!(lock_directory(directory.path()).unwrap().is_none());
        drop(first);
        assert!(lock_directory(directory.path()).unwrap().is_some());
        assert!(lock_directory(&directory.path().join("missing")).is_err());
    }

    #[test]
    fn replaced_whole_with_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hb_generation");
        write_atomically(&path, b"old and longer\n", 0o644).unwrap();
        std::fs::write(directory.path().join(".hb_generation.new"), "left by a crash").unwrap();
        write_atomically(&path, b"new\n", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(directory.path().read_dir().unwrap().count(), 1, "nothing else is left");
        assert!(write_atomically(Path::new("/"), b"", 0o600).is_err());
        assert!(write_atomically(&directory.path().join("no/file"), b"", 0o600).is_err());
    }
}
